#include "worker/runner/jsonout.h"

#include "base/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_MAX 24u /* digits, sign and comma of any 64-bit number */
#define REAL_MAX 32u   /* what %.17g makes of a double, and its NUL */

/* Decimal digits of v at p; returns their end. */
static char *put_u64(char *p, uint64_t v)
{
    char tmp[20];
    size_t n = 0;

    do {
        tmp[n++] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    while (n)
        *p++ = tmp[--n];
    return p;
}

static char *put_i64(char *p, int64_t v)
{
    if (v >= 0)
        return put_u64(p, (uint64_t)v);
    *p++ = '-';
    return put_u64(p, 0 - (uint64_t)v);
}

static char *room(struct pl_jsonout *o, size_t n)
{
    char *p = o->failed ? NULL : pl_buf_reserve(o->buf, n);

    if (!p)
        o->failed = true;
    return p;
}

static void took(struct pl_jsonout *o, const char *end)
{
    o->buf->len = (size_t)(end - o->buf->data);
    o->buf->data[o->buf->len] = '\0';
}

void pl_jsonout_raw(struct pl_jsonout *o, const char *text, size_t n)
{
    char *p = room(o, n);

    if (!p)
        return;
    memcpy(p, text, n);
    took(o, p + n);
}

void pl_jsonout_i64(struct pl_jsonout *o, int64_t v)
{
    char *p = room(o, NUMBER_MAX);

    if (p)
        took(o, put_i64(p, v));
}

void pl_jsonout_u64(struct pl_jsonout *o, uint64_t v)
{
    char *p = room(o, NUMBER_MAX);

    if (p)
        took(o, put_u64(p, v));
}

void pl_jsonout_f64(struct pl_jsonout *o, double v)
{
    char *p = room(o, REAL_MAX);
    int n = 0;

    if (!p)
        return;
    if (!isfinite(v)) {
        memcpy(p, "null", 4);
        took(o, p + 4);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        n = snprintf(p, REAL_MAX, "%.*g", digits, v);
        if (strtod(p, NULL) == v)
            break;
    }
    took(o, p + n);
}

void pl_jsonout_hex64(struct pl_jsonout *o, uint64_t v)
{
    static const char digits[] = "0123456789abcdef";
    char *p = room(o, 18);

    if (!p)
        return;
    *p++ = '"';
    for (int shift = 60; shift >= 0; shift -= 4)
        *p++ = digits[(v >> shift) & 15];
    *p++ = '"';
    took(o, p);
}

void pl_jsonout_str(struct pl_jsonout *o, const char *s, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *u = (const unsigned char *)s;
    uint32_t c;

    pl_jsonout_lit(o, "\"");
    for (size_t i = 0; i < n && !o->failed;) {
        size_t len = pl_utf8_char(s + i, n - i, &c);
        if (len == 0) {
            pl_jsonout_lit(o, "\xEF\xBF\xBD");
            i++;
            continue;
        }
        if (u[i] == '"' || u[i] == '\\') {
            const char esc[2] = {'\\', s[i]};
            pl_jsonout_raw(o, esc, 2);
        } else if (u[i] == '\n') {
            pl_jsonout_lit(o, "\\n");
        } else if (u[i] < 0x20 || u[i] == 0x7F) {
            const char esc[6] = {'\\', 'u', '0', '0', digits[u[i] >> 4], digits[u[i] & 15]};
            pl_jsonout_raw(o, esc, 6);
        } else {
            pl_jsonout_raw(o, s + i, len);
        }
        i += len;
    }
    pl_jsonout_lit(o, "\"");
}

/* Room for a whole list is made once: a check a number would cost more than its digits. */
#define LIST(name, type, put)                                                                      \
    void name(struct pl_jsonout *o, const type *v, size_t n)                                       \
    {                                                                                              \
        char *p = n < SIZE_MAX / NUMBER_MAX - 1 ? room(o, (n + 1) * NUMBER_MAX) : NULL;            \
        if (!p) {                                                                                  \
            o->failed = true;                                                                      \
            return;                                                                                \
        }                                                                                          \
        *p++ = '[';                                                                                \
        for (size_t i = 0; i < n; i++) {                                                           \
            if (i)                                                                                 \
                *p++ = ',';                                                                        \
            p = put(p, v[i]);                                                                      \
        }                                                                                          \
        *p++ = ']';                                                                                \
        took(o, p);                                                                                \
    }

LIST(pl_jsonout_i32s, int32_t, put_i64)
LIST(pl_jsonout_i64s, int64_t, put_i64)
LIST(pl_jsonout_u32s, uint32_t, put_u64)
