#include "base/utf8.h"

size_t pl_utf8_char(const char *s, size_t n, uint32_t *c)
{
    const unsigned char *p = (const unsigned char *)s;
    unsigned char low = 0x80, high = 0xBF; /* what the second byte may be */
    size_t len = p[0] < 0x80 ? 1 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    uint32_t v;

    if (len == 1) {
        *c = p[0];
        return 1;
    }
    if (p[0] < 0xC2 || p[0] > 0xF4 || n < len)
        return 0;
    if (p[0] == 0xE0) /* else it would fit fewer bytes */
        low = 0xA0;
    else if (p[0] == 0xF0)
        low = 0x90;
    else if (p[0] == 0xED) /* surrogates */
        high = 0x9F;
    else if (p[0] == 0xF4) /* beyond U+10FFFF */
        high = 0x8F;
    if (p[1] < low || p[1] > high)
        return 0;
    v = (p[0] & (0x7Fu >> len)) << 6 | (p[1] & 0x3F);
    for (size_t i = 2; i < len; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return 0;
        v = v << 6 | (p[i] & 0x3F);
    }
    *c = v;
    return len;
}
