#include "model/gguf.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static bool is_integer(enum pl_gguf_type t)
{
    return t <= PL_GGUF_I32 || t == PL_GGUF_U64 || t == PL_GGUF_I64;
}

static bool is_real(enum pl_gguf_type t)
{
    return is_integer(t) || t == PL_GGUF_F32 || t == PL_GGUF_F64;
}

static uint64_t bits(const unsigned char *p, int bytes)
{
    uint64_t v = 0;

    for (int i = bytes - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static int64_t integer_of(enum pl_gguf_type t, const unsigned char *p, uint64_t i)
{
    uint64_t u;

    switch (t) {
    case PL_GGUF_U8:
    case PL_GGUF_BOOL:
        return p[i];
    case PL_GGUF_I8:
        return (int8_t)p[i];
    case PL_GGUF_U16:
        return (int64_t)bits(p + 2 * i, 2);
    case PL_GGUF_I16:
        return (int16_t)bits(p + 2 * i, 2);
    case PL_GGUF_U32:
        return (int64_t)bits(p + 4 * i, 4);
    case PL_GGUF_I32:
        return (int32_t)bits(p + 4 * i, 4);
    case PL_GGUF_I64:
        return (int64_t)bits(p + 8 * i, 8);
    case PL_GGUF_U64:
        u = bits(p + 8 * i, 8);
        return u > INT64_MAX ? INT64_MAX : (int64_t)u;
    default:
        return 0;
    }
}

double pl_gguf_number(const struct pl_gguf_pair *p, uint64_t i, int64_t *integer)
{
    enum pl_gguf_type t = p->type == PL_GGUF_ARRAY ? p->of : p->type;
    double d = 0;
    float f = 0;

    if (t == PL_GGUF_F32) {
        memcpy(&f, p->data + 4 * i, sizeof(f));
        return (double)f;
    }
    if (t == PL_GGUF_F64) {
        memcpy(&d, p->data + 8 * i, sizeof(d));
        return d;
    }
    *integer = integer_of(t, p->data, i);
    return (double)*integer;
}

static enum pl_status wrong(const struct pl_gguf *g, const struct pl_gguf_pair *p, const char *want,
                            struct pl_err *err)
{
    bool array = p->type == PL_GGUF_ARRAY;

    return pl_fail(err, PL_EFORMAT, "%s: %s is %s%s, expected %s", pl_gguf_file(g), p->key,
                   array ? "an array of " : "", pl_gguf_type_name(array ? p->of : p->type), want);
}

enum pl_status pl_gguf_int(const struct pl_gguf *g, const char *key, int64_t dflt, int64_t min,
                           int64_t max, int64_t *out, struct pl_err *err)
{
    const struct pl_gguf_pair *p = pl_gguf_find(g, key);
    int64_t v = dflt;

    if (p && !is_integer(p->type))
        return wrong(g, p, "an integer", err);
    if (p) {
        v = integer_of(p->type, p->data, 0);
        if (v < min || v > max)
            return pl_fail(err, PL_EFORMAT,
                           "%s: %s is %" PRId64 ", expected %" PRId64 " to %" PRId64,
                           pl_gguf_file(g), key, v, min, max);
    }
    *out = v;
    return PL_OK;
}

enum pl_status pl_gguf_real(const struct pl_gguf *g, const char *key, double dflt, double *out,
                            struct pl_err *err)
{
    const struct pl_gguf_pair *p = pl_gguf_find(g, key);
    int64_t unused;
    double v = dflt;

    if (p && !is_real(p->type))
        return wrong(g, p, "a number", err);
    if (p) {
        v = pl_gguf_number(p, 0, &unused);
        if (!isfinite(v))
            return pl_fail(err, PL_EFORMAT, "%s: %s is not finite", pl_gguf_file(g), key);
    }
    *out = v;
    return PL_OK;
}

enum pl_status pl_gguf_bool(const struct pl_gguf *g, const char *key, bool dflt, bool *out,
                            struct pl_err *err)
{
    const struct pl_gguf_pair *p = pl_gguf_find(g, key);

    if (p && p->type != PL_GGUF_BOOL)
        return wrong(g, p, "true or false", err);
    *out = p ? p->data[0] != 0 : dflt;
    return PL_OK;
}

enum pl_status pl_gguf_string(const struct pl_gguf *g, const char *key, struct pl_gguf_str *out,
                              struct pl_err *err)
{
    const struct pl_gguf_pair *p = pl_gguf_find(g, key);

    if (p && p->type != PL_GGUF_STRING)
        return wrong(g, p, "a string", err);
    *out = p ? (struct pl_gguf_str){.s = (const char *)p->data, .len = (size_t)p->count}
             : (struct pl_gguf_str){NULL, 0};
    return PL_OK;
}

const char *pl_gguf_printable(struct pl_gguf_str s, char *out, size_t size)
{
    size_t n = s.len < size ? s.len : size - 1;

    for (size_t i = 0; i < n; i++)
        out[i] = s.s[i] >= 0x20 && s.s[i] < 0x7f ? s.s[i] : '?';
    out[n] = 0;
    return out;
}

/* Finds an array; *p NULL: there is none. */
static enum pl_status find_array(const struct pl_gguf *g, const char *key, const char *want,
                                 bool (*fits)(enum pl_gguf_type), const struct pl_gguf_pair **p,
                                 struct pl_err *err)
{
    *p = pl_gguf_find(g, key);
    if (*p && ((*p)->type != PL_GGUF_ARRAY || !fits((*p)->of)))
        return wrong(g, *p, want, err);
    return PL_OK;
}

static bool is_string(enum pl_gguf_type t)
{
    return t == PL_GGUF_STRING;
}

static enum pl_status no_memory(const struct pl_gguf *g, const char *key, struct pl_err *err)
{
    return pl_fail(err, PL_ENOMEM, "%s: no memory for %s", pl_gguf_file(g), key);
}

enum pl_status pl_gguf_strings(const struct pl_gguf *g, const char *key, struct pl_arena *arena,
                               struct pl_gguf_str **out, size_t *n, struct pl_err *err)
{
    const struct pl_gguf_pair *p;
    enum pl_status st = find_array(g, key, "an array of strings", is_string, &p, err);
    struct pl_gguf_str *list = NULL;
    size_t at = 0;

    if (st)
        return st;
    if (p) {
        list = pl_arena_calloc(arena, (size_t)p->count + 1, sizeof(*list));
        if (!list)
            return no_memory(g, key, err);
        for (uint64_t i = 0; i < p->count; i++) { /* lengths were checked at parsing */
            list[i].len = (size_t)bits(p->data + at, 8);
            list[i].s = (const char *)p->data + at + 8;
            at += 8 + list[i].len;
        }
    }
    *out = list;
    *n = p ? (size_t)p->count : 0;
    return PL_OK;
}

enum pl_status pl_gguf_floats(const struct pl_gguf *g, const char *key, struct pl_arena *arena,
                              float **out, size_t *n, struct pl_err *err)
{
    const struct pl_gguf_pair *p;
    enum pl_status st = find_array(g, key, "an array of numbers", is_real, &p, err);
    float *list = NULL;
    int64_t unused;

    if (st)
        return st;
    if (p) {
        list = pl_arena_calloc(arena, (size_t)p->count + 1, sizeof(*list));
        if (!list)
            return no_memory(g, key, err);
        for (uint64_t i = 0; i < p->count; i++)
            list[i] = (float)pl_gguf_number(p, i, &unused);
    }
    *out = list;
    *n = p ? (size_t)p->count : 0;
    return PL_OK;
}

enum pl_status pl_gguf_ints(const struct pl_gguf *g, const char *key, struct pl_arena *arena,
                            int32_t **out, size_t *n, struct pl_err *err)
{
    const struct pl_gguf_pair *p;
    enum pl_status st = find_array(g, key, "an array of integers", is_integer, &p, err);
    int32_t *list = NULL;

    if (st)
        return st;
    if (p) {
        list = pl_arena_calloc(arena, (size_t)p->count + 1, sizeof(*list));
        if (!list)
            return no_memory(g, key, err);
        for (uint64_t i = 0; i < p->count; i++) {
            int64_t v = integer_of(p->of, p->data, i);
            if (v < INT32_MIN || v > INT32_MAX)
                return pl_fail(err, PL_EFORMAT, "%s: %s: element %" PRIu64 " is beyond 32 bits",
                               pl_gguf_file(g), key, i);
            list[i] = (int32_t)v;
        }
    }
    *out = list;
    *n = p ? (size_t)p->count : 0;
    return PL_OK;
}
