#include "model/npy.h"

#include "base/buf.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC "\x93NUMPY"
#define MAX_HEADER 65536

/* The header's text, a Python dict, read from left to right; never beyond end. */
struct text {
    const char *at, *end;
};

static enum pl_status bad(struct pl_err *err, const char *name, const char *what)
{
    return pl_fail(err, PL_EFORMAT, "%s: %s", name, what);
}

static void blanks(struct text *t)
{
    while (t->at < t->end && strchr(" \t\n", *t->at) && *t->at)
        t->at++;
}

static bool take(struct text *t, char c)
{
    blanks(t);
    if (t->at == t->end || *t->at != c)
        return false;
    t->at++;
    return true;
}

static bool take_word(struct text *t, const char *word)
{
    size_t n = strlen(word);

    blanks(t);
    if ((size_t)(t->end - t->at) < n || memcmp(t->at, word, n) != 0)
        return false;
    t->at += n;
    return true;
}

/* A quoted string without escapes; the text between the quotes. */
static bool take_string(struct text *t, const char **s, size_t *len)
{
    const char *close;
    char quote;

    blanks(t);
    if (t->at == t->end || (*t->at != '\'' && *t->at != '"'))
        return false;
    quote = *t->at++;
    close = memchr(t->at, quote, (size_t)(t->end - t->at));
    if (!close || memchr(t->at, '\\', (size_t)(close - t->at)))
        return false;
    *s = t->at;
    *len = (size_t)(close - t->at);
    t->at = close + 1;
    return true;
}

static bool take_size(struct text *t, size_t *out)
{
    size_t v = 0;
    bool any = false;

    blanks(t);
    for (; t->at < t->end && *t->at >= '0' && *t->at <= '9'; t->at++, any = true)
        if (__builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (size_t)(*t->at - '0'), &v))
            return false;
    if (any && t->at < t->end && *t->at == 'L') /* Python 2 wrote long integers so */
        t->at++;
    *out = v;
    return any;
}

bool pl_npy_type_parse(const char *text, size_t len, struct pl_npy_type *out)
{
    struct pl_npy_type t = {0};
    struct text rest = {text, text + len};

    if (len && strchr("<>|=", *text) && *text) {
        t.big = *text == '>';
        rest.at++;
    }
    if (rest.at == rest.end)
        return false;
    t.kind = *rest.at++;
    if (t.kind == '?') {
        t.kind = 'b';
        t.item = 1;
    } else if (t.kind == 'O') {
        t.item = 8; /* "O8", older: "O4" */
        if (rest.at < rest.end && !take_size(&rest, &t.item))
            return false;
    } else if (!take_size(&rest, &t.item) || rest.at != rest.end) {
        return false;
    }
    switch (t.kind) {
    case 'i':
    case 'u':
        if (t.item != 1 && t.item != 2 && t.item != 4 && t.item != 8)
            return false;
        break;
    case 'f':
        if (t.item != 2 && t.item != 4 && t.item != 8 && t.item != 16)
            return false;
        break;
    case 'b':
        if (t.item != 1)
            return false;
        break;
    case 'U':
        if (__builtin_mul_overflow(t.item, 4u, &t.item))
            return false;
        break;
    case 'O':
    case 'S':
    case 'V':
        break;
    default:
        return false;
    }
    *out = t;
    return true;
}

/* ('x', '<u2') or ('pad', '<f4', (3,)): the latter's item is not a number to us. */
static bool take_field(struct text *t, struct pl_npy *out)
{
    struct pl_npy_field *f;
    const char *name, *type;
    size_t name_len, type_len, n;

    if (out->fields == PL_NPY_MAX_FIELDS)
        return false;
    f = &out->field[out->fields];
    if (!take(t, '(') || !take_string(t, &name, &name_len) || !take(t, ',') ||
        !take_string(t, &type, &type_len) || !pl_npy_type_parse(type, type_len, &f->type) ||
        name_len >= sizeof(f->name))
        return false;
    memcpy(f->name, name, name_len);
    f->name[name_len] = '\0';
    if (take(t, ',') && take(t, '(')) {
        f->type.kind = 'V';
        while (!take(t, ')')) {
            if (!take_size(t, &n) || __builtin_mul_overflow(f->type.item, n, &f->type.item))
                return false;
            take(t, ',');
        }
    }
    f->at = out->type.item;
    out->fields++;
    return !__builtin_add_overflow(out->type.item, f->type.item, &out->type.item) && take(t, ')');
}

static bool take_descr(struct text *t, struct pl_npy *out)
{
    const char *s;
    size_t len;

    if (!take(t, '['))
        return take_string(t, &s, &len) && pl_npy_type_parse(s, len, &out->type);
    out->type.kind = 'V';
    while (!take(t, ']')) {
        if (!take_field(t, out))
            return false;
        take(t, ',');
    }
    return out->fields > 0;
}

static bool take_shape(struct text *t, struct pl_npy *out)
{
    if (!take(t, '('))
        return false;
    while (!take(t, ')')) {
        if (out->dims == PL_NPY_MAX_DIMS || !take_size(t, &out->dim[out->dims++]))
            return false;
        if (!take(t, ',')) {
            blanks(t);
            if (t->at == t->end || *t->at != ')')
                return false;
        }
    }
    return true;
}

static enum pl_status take_header(const char *name, struct text t, struct pl_npy *out,
                                  struct pl_err *err)
{
    bool descr = false, order = false, shape = false;
    const char *key;
    size_t len;

    if (!take(&t, '{'))
        return bad(err, name, "the .npy header is no dictionary");
    while (!take(&t, '}')) {
        if (!take_string(&t, &key, &len) || !take(&t, ':'))
            return bad(err, name, "the .npy header is no dictionary");
        if (len == 5 && !memcmp(key, "descr", 5) && !descr) {
            descr = take_descr(&t, out);
            if (!descr)
                return bad(err, name, "the .npy header's descr is not a type that is known");
        } else if (len == 13 && !memcmp(key, "fortran_order", 13) && !order) {
            out->fortran = take_word(&t, "True");
            order = out->fortran || take_word(&t, "False");
            if (!order)
                return bad(err, name, "the .npy header's fortran_order is neither True nor False");
        } else if (len == 5 && !memcmp(key, "shape", 5) && !shape) {
            shape = take_shape(&t, out);
            if (!shape)
                return bad(err, name, "the .npy header's shape is no tuple of sizes");
        } else {
            return pl_fail(err, PL_EFORMAT, "%s: unexpected \"%.*s\" in the .npy header", name,
                           len > 40 ? 40 : (int)len, key);
        }
        take(&t, ',');
    }
    if (!descr || !order || !shape)
        return pl_fail(err, PL_EFORMAT, "%s: the .npy header has no %s", name,
                       !descr   ? "descr"
                       : !order ? "fortran_order"
                                : "shape");
    return PL_OK;
}

enum pl_status pl_npy_parse(const char *name, const void *data, size_t len, struct pl_npy *out,
                            struct pl_err *err)
{
    const uint8_t *u = data;
    struct pl_npy a = {.dims = 0};
    size_t start, head;
    enum pl_status st;

    if (len < 12 || memcmp(u, MAGIC, 6) != 0)
        return bad(err, name, "not a .npy file");
    if (u[6] < 1 || u[6] > 3)
        return bad(err, name, "a .npy version that is not known");
    start = u[6] == 1 ? 10 : 12;
    head = u[8] | (size_t)u[9] << 8;
    if (u[6] > 1)
        head |= (size_t)u[10] << 16 | (size_t)u[11] << 24;
    if (head > MAX_HEADER || head > len - start)
        return bad(err, name, "the .npy header is longer than it may be");
    if (memchr(u + start, '\0', head))
        return bad(err, name, "the .npy header holds a NUL");
    st = take_header(name, (struct text){(const char *)u + start, (const char *)u + start + head},
                     &a, err);
    if (st)
        return st;
    a.count = 1;
    for (int i = 0; i < a.dims; i++)
        if (__builtin_mul_overflow(a.count, a.dim[i], &a.count))
            return pl_fail(err, PL_ERANGE, "%s: the .npy header's shape is beyond memory", name);
    a.data = u + start + head;
    if (a.type.kind == 'O') {
        a.bytes = len - start - head;
    } else if (__builtin_mul_overflow(a.count, a.type.item, &a.bytes)) {
        return pl_fail(err, PL_ERANGE, "%s: the .npy header's shape is beyond memory", name);
    } else if (a.bytes != len - start - head) {
        return pl_fail(err, PL_EFORMAT, "%s: %zu bytes of numbers, its shape says %zu", name,
                       len - start - head, a.bytes);
    }
    *out = a;
    return PL_OK;
}

/* ---- columns ---- */

#define SWAP1(v) (v)
#define READ_INTS(to, raw, swap)                                                                   \
    for (size_t i = 0; i < c->n; i++) {                                                            \
        raw bits;                                                                                  \
        memcpy(&bits, c->data + i * c->stride, sizeof(bits));                                      \
        out[i] = (int64_t)(to)(c->type.big ? swap(bits) : bits);                                   \
    }                                                                                              \
    return PL_OK

static double read_float(const struct pl_column *c, size_t i)
{
    const uint8_t *at = c->data + i * c->stride;
    uint32_t b4;
    uint64_t b8;
    float f;
    double d;

    if (c->type.item == 4) {
        memcpy(&b4, at, sizeof(b4));
        b4 = c->type.big ? __builtin_bswap32(b4) : b4;
        memcpy(&f, &b4, sizeof(f));
        return (double)f;
    }
    memcpy(&b8, at, sizeof(b8));
    b8 = c->type.big ? __builtin_bswap64(b8) : b8;
    memcpy(&d, &b8, sizeof(d));
    return d;
}

static enum pl_status float_ints(const struct pl_column *c, const char *name, const char *what,
                                 bool round_down, int64_t *out, struct pl_err *err)
{
    for (size_t i = 0; i < c->n; i++) {
        double d = read_float(c, i), whole = floor(d);
        if (!(whole >= -9007199254740992.0 && whole <= 9007199254740992.0) ||
            (!round_down && whole != d))
            return pl_fail(err, PL_ERANGE, "%s: %s[%zu] is %g, a whole number is expected", name,
                           what, i, d);
        out[i] = (int64_t)whole;
    }
    return PL_OK;
}

enum pl_status pl_column_ints(const struct pl_column *c, const char *name, const char *what,
                              bool floor, int64_t *out, struct pl_err *err)
{
    switch (c->type.kind == 'b' ? 'u' << 8 | 1 : c->type.kind << 8 | (int)(c->type.item & 255)) {
    case 'u' << 8 | 1:
        READ_INTS(uint8_t, uint8_t, SWAP1);
    case 'i' << 8 | 1:
        READ_INTS(int8_t, uint8_t, SWAP1);
    case 'u' << 8 | 2:
        READ_INTS(uint16_t, uint16_t, __builtin_bswap16);
    case 'i' << 8 | 2:
        READ_INTS(int16_t, uint16_t, __builtin_bswap16);
    case 'u' << 8 | 4:
        READ_INTS(uint32_t, uint32_t, __builtin_bswap32);
    case 'i' << 8 | 4:
        READ_INTS(int32_t, uint32_t, __builtin_bswap32);
    case 'i' << 8 | 8:
        READ_INTS(int64_t, uint64_t, __builtin_bswap64);
    case 'u' << 8 | 8:
        for (size_t i = 0; i < c->n; i++) {
            uint64_t v;
            memcpy(&v, c->data + i * c->stride, sizeof(v));
            v = c->type.big ? __builtin_bswap64(v) : v;
            if (v > INT64_MAX)
                return pl_fail(err, PL_ERANGE, "%s: %s[%zu] is beyond 2^63", name, what, i);
            out[i] = (int64_t)v;
        }
        return PL_OK;
    case 'f' << 8 | 4:
    case 'f' << 8 | 8:
        return float_ints(c, name, what, floor, out, err);
    default:
        return pl_fail(err, PL_EFORMAT,
                       "%s: %s is of type '%c%zu': integers, f4, f8 or bool are expected", name,
                       what, c->type.kind, c->type.kind == 'U' ? c->type.item / 4 : c->type.item);
    }
}

/* ---- pixels ---- */

enum pl_status pl_npy_read_pixels(const char *path, float **out, size_t n[4], struct pl_err *err)
{
    struct pl_buf b;
    struct pl_npy a;
    float *v = NULL;
    enum pl_status st = pl_read_file(path, (size_t)PL_NPY_MAX_PIXELS * 4 + MAX_HEADER, &b, err);

    if (st)
        return st;
    st = pl_npy_parse(path, b.data, b.len, &a, err);
    if (!st && (a.type.kind != 'f' || a.type.item != 4 || a.type.big))
        st = bad(err, path, "float32 is expected ('<f4')");
    if (!st && a.fortran)
        st = bad(err, path, "C order is expected, not Fortran's");
    if (!st && a.dims != 3 && a.dims != 4)
        st = bad(err, path, "images are expected, shape (frames, channels, height, width)");
    if (!st && a.count > PL_NPY_MAX_PIXELS)
        st = pl_fail(err, PL_ERANGE, "%s: more than %u numbers", path, PL_NPY_MAX_PIXELS);
    if (!st && !(v = malloc(a.bytes ? a.bytes : 1)))
        st = pl_fail(err, PL_ENOMEM, "%s: no memory", path);
    if (!st) {
        memcpy(v, a.data, a.bytes);
        for (int i = 0; i < 4; i++)
            n[i] = a.dims == 4 ? a.dim[i] : i ? a.dim[i - 1] : 1;
        *out = v;
    }
    pl_buf_release(&b);
    return st;
}
