#include "model/pickle_impl.h"

#include <stdlib.h>
#include <string.h>

struct machine {
    const char *name;
    const uint8_t *start, *at, *end;
    struct pl_arena *arena;
    struct pl_pickle **stack, **memo;
    size_t n, room, memo_n, memo_room;
    size_t ops;
    struct pl_err *err;
};

static struct pl_pickle the_mark = {.kind = MARK}, the_none = {.kind = NONE};

static enum pl_status bad(struct machine *m, const char *what)
{
    return pl_fail(m->err, PL_EFORMAT, "%s: pickle, byte %zu: %s", m->name,
                   (size_t)(m->at - m->start), what);
}

static enum pl_status no_memory(struct machine *m)
{
    return pl_fail(m->err, PL_ENOMEM, "%s: no memory", m->name);
}

/* ---- stack and memo ---- */

static enum pl_status grow(struct machine *m, struct pl_pickle ***v, size_t *room, size_t need)
{
    size_t next = *room ? *room : 64;
    struct pl_pickle **p;

    if (need > PL_PICKLE_MAX_OPS)
        return bad(m, "more values than a file of events has");
    while (next < need)
        next *= 2;
    if (next == *room)
        return PL_OK;
    p = realloc(*v, next * sizeof(struct pl_pickle *));
    if (!p)
        return no_memory(m);
    memset(p + *room, 0, (next - *room) * sizeof(struct pl_pickle *));
    *v = p;
    *room = next;
    return PL_OK;
}

static enum pl_status push(struct machine *m, struct pl_pickle *v)
{
    enum pl_status st = grow(m, &m->stack, &m->room, m->n + 1);

    if (!st)
        m->stack[m->n++] = v;
    return st;
}

static enum pl_status push_new(struct machine *m, enum kind kind, struct pl_pickle **out)
{
    struct pl_pickle *v = pl_arena_alloc(m->arena, sizeof(*v));

    if (!v)
        return no_memory(m);
    v->kind = kind;
    if (out)
        *out = v;
    return push(m, v);
}

static enum pl_status push_int(struct machine *m, int64_t i)
{
    struct pl_pickle *v;
    enum pl_status st = push_new(m, INT, &v);

    if (!st)
        v->i = i;
    return st;
}

/* The last n values, none a mark; they stay where they are. */
static struct pl_pickle **top(struct machine *m, size_t n)
{
    if (m->n < n)
        return NULL;
    for (size_t i = 1; i <= n; i++)
        if (m->stack[m->n - i]->kind == MARK)
            return NULL;
    return m->stack + m->n - n;
}

/* How many values stand above the last mark; SIZE_MAX: there is none. */
static size_t above_mark(const struct machine *m)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->stack[m->n - 1 - i]->kind == MARK)
            return i;
    return SIZE_MAX;
}

static enum pl_status put(struct machine *m, size_t i)
{
    struct pl_pickle **v = top(m, 1);
    enum pl_status st;

    if (!v)
        return bad(m, "nothing to remember");
    st = grow(m, &m->memo, &m->memo_room, i + 1);
    if (st)
        return st;
    m->memo[i] = *v;
    if (i >= m->memo_n)
        m->memo_n = i + 1;
    return PL_OK;
}

static enum pl_status get(struct machine *m, size_t i)
{
    if (i >= m->memo_n || !m->memo[i])
        return bad(m, "something is asked for that was not remembered");
    return push(m, m->memo[i]);
}

/* ---- the bytes ---- */

static enum pl_status take(struct machine *m, uint64_t n, const uint8_t **out)
{
    if (n > (uint64_t)(m->end - m->at))
        return bad(m, "the file ends in the middle of a value");
    *out = m->at;
    m->at += n;
    return PL_OK;
}

static enum pl_status take_uint(struct machine *m, int bytes, uint64_t *out)
{
    const uint8_t *p = NULL;
    enum pl_status st = take(m, (uint64_t)bytes, &p);

    if (st)
        return st;
    *out = 0;
    for (int i = 0; i < bytes; i++)
        *out |= (uint64_t)p[i] << (8 * i);
    return PL_OK;
}

/* A string or bytes behind a length of that many bytes. */
static enum pl_status push_bytes(struct machine *m, enum kind kind, int length_bytes)
{
    const uint8_t *p = NULL;
    uint64_t len;
    struct pl_pickle *v;
    enum pl_status st = take_uint(m, length_bytes, &len);

    if (!st)
        st = take(m, len, &p);
    if (!st)
        st = push_new(m, kind, &v);
    if (!st) {
        v->bytes = p;
        v->len = (size_t)len;
    }
    return st;
}

/* Two lines of text: module and name. */
static enum pl_status take_line(struct machine *m, const uint8_t **line, size_t *len)
{
    const uint8_t *end = memchr(m->at, '\n', (size_t)(m->end - m->at));

    if (!end)
        return bad(m, "the file ends in the middle of a name");
    *line = m->at;
    *len = (size_t)(end - m->at);
    m->at = end + 1;
    return PL_OK;
}

/* A little-endian number of any length in two's complement. */
static enum pl_status push_long(struct machine *m)
{
    const uint8_t *p = NULL;
    uint64_t n, v = 0;
    enum pl_status st = take_uint(m, 1, &n);

    if (!st && n > 8)
        return bad(m, "a number of more than 64 bits");
    if (!st)
        st = take(m, n, &p);
    if (st)
        return st;
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    if (n && n < 8 && p[n - 1] & 0x80)
        v |= UINT64_MAX << (8 * n);
    return push_int(m, (int64_t)v);
}

/* ---- values ---- */

static enum pl_status push_global(struct machine *m, const struct pl_pickle *module,
                                  const struct pl_pickle *name)
{
    static const struct {
        const char *module[2], *name;
        enum global global;
    } known[] = {
        {{"numpy.core.multiarray", "numpy._core.multiarray"}, "_reconstruct", G_RECONSTRUCT},
        {{"numpy.core.multiarray", "numpy._core.multiarray"}, "scalar", G_SCALAR},
        {{"numpy.core.numeric", "numpy._core.numeric"}, "_frombuffer", G_FROMBUFFER},
        {{"numpy", "numpy"}, "ndarray", G_NDARRAY},
        {{"numpy", "numpy"}, "dtype", G_DTYPE},
        {{"_codecs", "_codecs"}, "encode", G_ENCODE}};
    struct pl_pickle *v;
    enum pl_status st;

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if ((!pl_pickle_is(module, known[i].module[0]) &&
             !pl_pickle_is(module, known[i].module[1])) ||
            !pl_pickle_is(name, known[i].name))
            continue;
        st = push_new(m, GLOBAL, &v);
        if (!st)
            v->global = known[i].global;
        return st;
    }
    return pl_fail(
        m->err, PL_EFORMAT,
        "%s: pickle, byte %zu: it wants Python's %.*s.%.*s, only NumPy's arrays are read", m->name,
        (size_t)(m->at - m->start), module->len > 60 ? 60 : (int)module->len,
        (const char *)module->bytes, name->len > 60 ? 60 : (int)name->len,
        (const char *)name->bytes);
}

/* The n values on top as the items of a new tuple, in their place. */
static enum pl_status make_tuple(struct machine *m, size_t n, bool mark)
{
    struct pl_pickle **from = n == SIZE_MAX ? NULL : top(m, n);
    struct pl_pickle *v = pl_arena_alloc(m->arena, sizeof(*v));

    if (!from)
        return bad(m, "a tuple of more than there is");
    if (!v)
        return no_memory(m);
    v->kind = TUPLE;
    v->len = n;
    v->item = pl_arena_calloc(m->arena, n ? n : 1, sizeof(struct pl_pickle *));
    if (!v->item)
        return no_memory(m);
    memcpy(v->item, from, n * sizeof(struct pl_pickle *));
    m->n -= n + mark;
    return push(m, v);
}

/* The n values on top go to the list or dict below them (and below a mark). */
static enum pl_status append(struct machine *m, enum kind kind, size_t n, bool mark)
{
    struct pl_pickle **from = n == SIZE_MAX ? NULL : top(m, n), *to, **items;

    if (!from || m->n < n + mark + 1 || (kind == DICT && n % 2))
        return bad(m, "items without a list or dict");
    to = m->stack[m->n - n - mark - 1];
    if (to->kind != kind)
        return pl_fail(m->err, PL_EFORMAT, "%s: pickle, byte %zu: items for %s", m->name,
                       (size_t)(m->at - m->start), pl_pickle_kinds[to->kind]);
    if (to->len + n > to->room) {
        size_t room = 2 * (to->len + n);
        items = pl_arena_calloc(m->arena, room, sizeof(struct pl_pickle *));
        if (!items)
            return no_memory(m);
        if (to->len)
            memcpy(items, to->item, to->len * sizeof(struct pl_pickle *));
        to->item = items;
        to->room = room;
    }
    if (n)
        memcpy(to->item + to->len, from, n * sizeof(struct pl_pickle *));
    to->len += n;
    m->n -= n + mark;
    return PL_OK;
}

/* ---- NumPy's constructors ---- */

static bool shape_of(const struct pl_pickle *tuple, struct pl_pickle *array)
{
    if (tuple->kind != TUPLE || tuple->len > PL_PICKLE_MAX_DIMS)
        return false;
    array->count = 1;
    for (size_t i = 0; i < tuple->len; i++) {
        const struct pl_pickle *d = tuple->item[i];
        if (d->kind != INT || d->i < 0 ||
            __builtin_mul_overflow(array->count, (size_t)d->i, &array->count))
            return false;
        array->dim[i] = (size_t)d->i;
    }
    array->dims = (int)tuple->len;
    return true;
}

/* An array of these bytes, or of a list's items. */
static enum pl_status fill_array(struct machine *m, struct pl_pickle *a,
                                 const struct pl_pickle *shape, const struct pl_pickle *type,
                                 const struct pl_pickle *data)
{
    size_t bytes;

    if (!shape_of(shape, a) || type->kind != DTYPE)
        return bad(m, "an array without a shape or type");
    a->type = type->type;
    if (a->type.kind == 'O') {
        if (data->kind != LIST || data->len != a->count)
            return bad(m, "an array of objects without them");
        a->item = data->item;
        a->len = data->len;
        return PL_OK;
    }
    if (data->kind != BYTES || __builtin_mul_overflow(a->count, a->type.item, &bytes) ||
        bytes != data->len)
        return bad(m, "an array whose bytes are not what its shape says");
    a->bytes = data->bytes;
    a->len = data->len;
    return PL_OK;
}

static enum pl_status make_dtype(struct machine *m, const struct pl_pickle *args)
{
    struct pl_pickle *v;
    struct pl_npy_type t;
    enum pl_status st;

    if (args->len < 1 || args->item[0]->kind != STR ||
        !pl_npy_type_parse((const char *)args->item[0]->bytes, args->item[0]->len, &t))
        return bad(m, "a dtype that is not known");
    st = push_new(m, DTYPE, &v);
    if (!st)
        v->type = t;
    return st;
}

/* How protocol 2 writes bytes: a string, each character one byte ("latin1"). */
static enum pl_status make_encoded(struct machine *m, const struct pl_pickle *args)
{
    const struct pl_pickle *s = args->len ? args->item[0] : &the_none;
    struct pl_pickle *v;
    uint8_t *out;
    size_t n = 0;
    enum pl_status st;

    if (args->len != 2 || s->kind != STR || args->item[1]->kind != STR ||
        (!pl_pickle_is(args->item[1], "latin1") && !pl_pickle_is(args->item[1], "latin-1")))
        return bad(m, "bytes in an encoding other than latin1");
    out = pl_arena_alloc(m->arena, s->len + 1);
    if (!out)
        return no_memory(m);
    for (size_t i = 0; i < s->len; i++) {
        uint8_t c = s->bytes[i];
        if (c >= 0x80) {
            if ((c != 0xc2 && c != 0xc3) || i + 1 == s->len || (s->bytes[i + 1] & 0xc0) != 0x80)
                return bad(m, "bytes whose text is not latin1");
            c = (uint8_t)(c << 6 | (s->bytes[++i] & 0x3f));
        }
        out[n++] = c;
    }
    st = push_new(m, BYTES, &v);
    if (!st) {
        v->bytes = out;
        v->len = n;
    }
    return st;
}

static enum pl_status reduce(struct machine *m)
{
    struct pl_pickle **v = top(m, 2), *f, *args, *made;
    enum pl_status st;

    if (!v || v[0]->kind != GLOBAL || v[1]->kind != TUPLE)
        return bad(m, "a call of what is no constructor");
    f = v[0];
    args = v[1];
    m->n -= 2;
    switch (f->global) {
    case G_DTYPE:
        return make_dtype(m, args);
    case G_ENCODE:
        return make_encoded(m, args);
    case G_SCALAR:
        return push_new(m, SCALAR, NULL);
    case G_RECONSTRUCT:
        if (args->len != 3 || args->item[0]->kind != GLOBAL || args->item[0]->global != G_NDARRAY)
            return bad(m, "an array of another class than NumPy's");
        st = push_new(m, ARRAY, &made);
        if (!st)
            made->dims = -1;
        return st;
    case G_FROMBUFFER:
        if (args->len != 4)
            return bad(m, "_frombuffer without its four arguments");
        st = push_new(m, ARRAY, &made);
        return st ? st : fill_array(m, made, args->item[2], args->item[1], args->item[0]);
    case G_NDARRAY:
        break;
    }
    return bad(m, "a call of what is no constructor");
}

/* The state of an array or a dtype: (version, shape, dtype, fortran, data); (version, byte order,
 * …). */
static enum pl_status build(struct machine *m)
{
    struct pl_pickle **v = top(m, 2), *to, *state;

    if (!v || v[1]->kind != TUPLE)
        return bad(m, "a state for nothing");
    to = v[0];
    state = v[1];
    m->n--;
    if (to->kind == DTYPE) {
        const struct pl_pickle *order = state->len > 1 ? state->item[1] : &the_none;
        if (order->kind != STR && order->kind != BYTES)
            return bad(m, "a dtype without a byte order");
        if (state->len > 3 && state->item[3]->kind != NONE)
            return bad(m, "a structured dtype in a pickle");
        to->type.big = pl_pickle_is(order, ">");
        return PL_OK;
    }
    if (to->kind != ARRAY || to->dims != -1 || state->len != 5)
        return bad(m, "a state for what is no array");
    return fill_array(m, to, state->item[1], state->item[2], state->item[4]);
}

/* ---- operations ---- */

static enum pl_status simple(struct machine *m, uint8_t op)
{
    size_t n;

    switch (op) {
    case '(':
        return push(m, &the_mark);
    case 'N':
        return push(m, &the_none);
    case 0x88:
    case 0x89:
        return push_int(m, op == 0x88);
    case '0':
        if (m->n == 0)
            return bad(m, "nothing to drop");
        m->n--;
        return PL_OK;
    case '1':
        n = above_mark(m);
        if (n == SIZE_MAX)
            return bad(m, "nothing to drop");
        m->n -= n + 1;
        return PL_OK;
    case ')':
        return make_tuple(m, 0, false);
    case 0x85:
    case 0x86:
    case 0x87:
        return make_tuple(m, (size_t)(op - 0x84), false);
    case 't':
        return make_tuple(m, above_mark(m), true);
    case ']':
        return push_new(m, LIST, NULL);
    case '}':
        return push_new(m, DICT, NULL);
    case 'a':
        return append(m, LIST, 1, false);
    case 's':
        return append(m, DICT, 2, false);
    case 'e':
        return append(m, LIST, above_mark(m), true);
    case 'u':
        return append(m, DICT, above_mark(m), true);
    case 'R':
        return reduce(m);
    case 'b':
        return build(m);
    case 0x94:
        return put(m, m->memo_n);
    default:
        return pl_fail(
            m->err, PL_EFORMAT,
            "%s: pickle, byte %zu: operation 0x%02x is not one of a dictionary of arrays", m->name,
            (size_t)(m->at - m->start) - 1, op);
    }
}

/* Operations with something behind them. */
static enum pl_status step(struct machine *m, uint8_t op)
{
    static const uint8_t bytes[256] = {/* of the number behind it */
                                       [0x80] = 1, [0x95] = 8, ['J'] = 4, ['K'] = 1, ['M'] = 2,
                                       ['G'] = 8,  ['q'] = 1,  ['r'] = 4, ['h'] = 1, ['j'] = 4};
    uint64_t u = 0;
    enum pl_status st = bytes[op] ? take_uint(m, bytes[op], &u) : PL_OK;

    if (st)
        return st;
    switch (op) {
    case 0x80:
        return u < 2 || u > 5 ? bad(m, "protocols 2 to 5 are read") : PL_OK;
    case 0x95: /* a frame: how much to read ahead, nothing to us */
        return PL_OK;
    case 'J':
        return push_int(m, (int32_t)(uint32_t)u);
    case 'K':
    case 'M':
        return push_int(m, (int64_t)u);
    case 0x8a:
        return push_long(m);
    case 'G':
        return push_new(m, FLOAT, NULL);
    case 'X':
        return push_bytes(m, STR, 4);
    case 0x8c:
        return push_bytes(m, STR, 1);
    case 0x8d:
        return push_bytes(m, STR, 8);
    case 'B':
    case 'T': /* Python 2's strings are bytes */
        return push_bytes(m, BYTES, 4);
    case 'C':
    case 'U':
        return push_bytes(m, BYTES, 1);
    case 0x8e:
    case 0x96:
        return push_bytes(m, BYTES, 8);
    case 'q':
    case 'r':
        return put(m, (size_t)u);
    case 'h':
    case 'j':
        return get(m, (size_t)u);
    default:
        return simple(m, op);
    }
}

static enum pl_status global(struct machine *m, bool from_stack)
{
    struct pl_pickle module = {.kind = STR}, name = {.kind = STR}, **v;
    enum pl_status st;

    if (from_stack) {
        v = top(m, 2);
        if (!v || v[0]->kind != STR || v[1]->kind != STR)
            return bad(m, "a global without a name");
        m->n -= 2;
        return push_global(m, v[0], v[1]);
    }
    st = take_line(m, &module.bytes, &module.len);
    if (!st)
        st = take_line(m, &name.bytes, &name.len);
    return st ? st : push_global(m, &module, &name);
}

static enum pl_status run(struct machine *m)
{
    enum pl_status st = PL_OK;

    while (!st) {
        const uint8_t *op = NULL;
        if (++m->ops > PL_PICKLE_MAX_OPS)
            return bad(m, "more operations than a file of events has");
        st = take(m, 1, &op);
        if (st)
            return st;
        if (*op == '.')
            return m->n == 1 && top(m, 1) ? PL_OK : bad(m, "it ends with other than one value");
        st = *op == 'c' || *op == 0x93 ? global(m, *op == 0x93) : step(m, *op);
    }
    return st;
}

enum pl_status pl_pickle_read(const char *name, const void *data, size_t len,
                              struct pl_arena *arena, const struct pl_pickle **out,
                              struct pl_err *err)
{
    const uint8_t *p = data;
    struct machine m = {
        .name = name, .start = p, .at = p, .end = p + len, .arena = arena, .err = err};
    enum pl_status st = grow(&m, &m.stack, &m.room, 1); /* top() is never NULL for want of one */

    if (!st)
        st = run(&m);
    if (!st)
        *out = m.stack[0];
    free(m.stack);
    free(m.memo);
    return st;
}
