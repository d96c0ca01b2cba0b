#include "base/utf8.h"

#include "unit.h"

#include <stdbool.h>

/* By the definition, without a look at what is not a character. */
static size_t encode(uint32_t c, char out[4])
{
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[5] = {0, 0, 0xC0, 0xE0, 0xF0};

    for (size_t i = n; i-- > 1; c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)(lead[n] | c);
    return n;
}

static void every_character(void **state)
{
    uint32_t got;
    char s[4];

    (void)state;
    for (uint32_t c = 0; c < 0x120000; c++) {
        size_t n = encode(c, s);
        bool is_one = c < 0x110000 && (c < 0xD800 || c >= 0xE000);
        got = 0xFFFFFFFF;
        assert_int_equal(pl_utf8_char(s, n, &got), is_one ? n : 0);
        assert_int_equal(got, is_one ? c : 0xFFFFFFFF);
        for (size_t cut = 1; cut < n; cut++)
            assert_int_equal(pl_utf8_char(s, cut, &got), 0);
    }
}

/* As many strings of each length are taken as there are characters of that length: so no other is.
 */
static void nothing_else(void **state)
{
    size_t taken[5] = {0};
    uint32_t c;
    char s[4];

    (void)state;
    for (uint32_t v = 0; v < 1u << 24; v++) {
        s[0] = (char)(v >> 16);
        s[1] = (char)(v >> 8);
        s[2] = (char)v;
        size_t n = pl_utf8_char(s, 3, &c);
        taken[n] += n == 3 || (n == 2 && !s[2]) || (n == 1 && !s[1] && !s[2]);
    }
    assert_int_equal(taken[1], 0x80);
    assert_int_equal(taken[2], 0x800 - 0x80);
    assert_int_equal(taken[3], 0x10000 - 0x800 - 0x800);
    for (uint32_t v = 0; v < 1u << 24; v++) { /* four bytes: any before two at the edges */
        static const char edge[] = {'\x00', '\x7F', '\x80', '\xBF', '\xC0', '\xFF'};
        s[0] = (char)(v >> 16);
        s[1] = (char)(v >> 8);
        s[2] = edge[(v >> 4 & 15) % 6];
        s[3] = edge[(v & 15) % 6];
        if ((v >> 4 & 15) < 6 && (v & 15) < 6)
            taken[4] += pl_utf8_char(s, 4, &c) == 4;
    }
    assert_int_equal(taken[4], 0x100000 / 0x1000 * 2 * 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_character),
                                       cmocka_unit_test(nothing_else)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
