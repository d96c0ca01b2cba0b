#include "model/gguf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 32u
#define MAX_ALIGNMENT (1u << 30)
#define MAX_GGUF_DIMS 4

struct pl_gguf {
    const char *file;
    uint32_t version;
    struct pl_gguf_pair *pairs;
    size_t n_pairs;
    struct pl_tensor_view *tensors;
    size_t n_tensors;
};

/* Where parsing is. Once something failed it stays failed: `st` is looked at after a group of
 * reads. */
struct reader {
    const char *file;
    const unsigned char *p;
    size_t size, at;
    struct pl_arena *arena;
    struct pl_err *err;
    enum pl_status st;
};

static const struct {
    const char *name;
    unsigned char bytes; /* 0: not of a fixed size */
} types[PL_GGUF_TYPES] = {{"u8", 1},  {"i8", 1},  {"u16", 2},  {"i16", 2},    {"u32", 4},
                          {"i32", 4}, {"f32", 4}, {"bool", 1}, {"string", 0}, {"array", 0},
                          {"u64", 8}, {"i64", 8}, {"f64", 8}};

/* ggml's type numbers; dt PL_DT_COUNT: known by name only. */
static const struct {
    uint32_t id;
    enum pl_dtype dt;
    const char *name;
} ggml_types[] = {
    {0, PL_DT_F32, "F32"},
    {1, PL_DT_F16, "F16"},
    {2, PL_DT_Q4_0, "Q4_0"},
    {3, PL_DT_Q4_1, "Q4_1"},
    {4, PL_DT_COUNT, "Q4_2"},
    {5, PL_DT_COUNT, "Q4_3"},
    {6, PL_DT_Q5_0, "Q5_0"},
    {7, PL_DT_Q5_1, "Q5_1"},
    {8, PL_DT_Q8_0, "Q8_0"},
    {9, PL_DT_COUNT, "Q8_1"},
    {10, PL_DT_Q2_K, "Q2_K"},
    {11, PL_DT_Q3_K, "Q3_K"},
    {12, PL_DT_Q4_K, "Q4_K"},
    {13, PL_DT_Q5_K, "Q5_K"},
    {14, PL_DT_Q6_K, "Q6_K"},
    {15, PL_DT_COUNT, "Q8_K"},
    {16, PL_DT_IQ2_XXS, "IQ2_XXS"},
    {17, PL_DT_IQ2_XS, "IQ2_XS"},
    {18, PL_DT_IQ3_XXS, "IQ3_XXS"},
    {19, PL_DT_IQ1_S, "IQ1_S"},
    {20, PL_DT_IQ4_NL, "IQ4_NL"},
    {21, PL_DT_IQ3_S, "IQ3_S"},
    {22, PL_DT_IQ2_S, "IQ2_S"},
    {23, PL_DT_IQ4_XS, "IQ4_XS"},
    {24, PL_DT_I8, "I8"},
    {25, PL_DT_I16, "I16"},
    {26, PL_DT_I32, "I32"},
    {27, PL_DT_I64, "I64"},
    {28, PL_DT_F64, "F64"},
    {29, PL_DT_IQ1_M, "IQ1_M"},
    {30, PL_DT_BF16, "BF16"},
    {31, PL_DT_COUNT, "Q4_0_4_4"},
    {32, PL_DT_COUNT, "Q4_0_4_8"},
    {33, PL_DT_COUNT, "Q4_0_8_8"},
    {34, PL_DT_TQ1_0, "TQ1_0"},
    {35, PL_DT_TQ2_0, "TQ2_0"},
    {36, PL_DT_COUNT, "IQ4_NL_4_4"},
    {37, PL_DT_COUNT, "IQ4_NL_4_8"},
    {38, PL_DT_COUNT, "IQ4_NL_8_8"},
    {39, PL_DT_MXFP4, "MXFP4"},
    {40, PL_DT_NVFP4, "NVFP4"},
};

bool pl_gguf_is(const void *data, size_t size)
{
    return size >= 4 && !memcmp(data, "GGUF", 4);
}

static uint64_t read_le(const unsigned char *p, int bytes)
{
    uint64_t v = 0;

    for (int i = bytes - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static uint64_t get(struct reader *r, int bytes, const char *what)
{
    if (r->st)
        return 0;
    if (r->size - r->at < (size_t)bytes) {
        r->st = pl_fail(r->err, PL_EFORMAT, "%s: the file ends in %s (truncated?)", r->file, what);
        return 0;
    }
    r->at += (size_t)bytes;
    return read_le(r->p + r->at - bytes, bytes);
}

/* Skips n bytes that must be there. */
static const unsigned char *skip(struct reader *r, uint64_t n, const char *what)
{
    if (r->st)
        return NULL;
    if (n > r->size - r->at) {
        r->st = pl_fail(r->err, PL_EFORMAT,
                        "%s: %s takes %" PRIu64 " bytes, but only %zu are left (truncated?)",
                        r->file, what, n, r->size - r->at);
        return NULL;
    }
    r->at += (size_t)n;
    return r->p + r->at - n;
}

/* A key or name: printable ASCII, so that it can stand in any message. */
static const char *get_name(struct reader *r, uint64_t max, const char *what)
{
    uint64_t len = get(r, 8, what);
    const unsigned char *p;

    if (r->st)
        return NULL;
    if (len == 0 || len > max) {
        r->st = pl_fail(r->err, PL_EFORMAT, "%s: %s of %" PRIu64 " bytes (1 to %" PRIu64 ")",
                        r->file, what, len, max);
        return NULL;
    }
    p = skip(r, len, what);
    for (uint64_t i = 0; p && i < len; i++) {
        if (p[i] < 0x20 || p[i] > 0x7e) {
            r->st = pl_fail(r->err, PL_EFORMAT, "%s: %s at byte %zu holds byte 0x%02x", r->file,
                            what, (size_t)(p - r->p), p[i]);
            return NULL;
        }
    }
    if (!p)
        return NULL;
    char *s = pl_arena_strndup(r->arena, (const char *)p, (size_t)len);
    if (!s)
        r->st = pl_fail(r->err, PL_ENOMEM, "%s: no memory", r->file);
    return s;
}

static enum pl_gguf_type get_type(struct reader *r, const char *key)
{
    uint64_t t = get(r, 4, key);

    if (!r->st && t >= PL_GGUF_TYPES)
        r->st = pl_fail(r->err, PL_EFORMAT, "%s: %s: unknown value type %" PRIu64, r->file, key, t);
    return r->st ? PL_GGUF_U8 : (enum pl_gguf_type)t;
}

/* Walks over `count` values of a type. */
static void skip_values(struct reader *r, enum pl_gguf_type t, uint64_t count, int depth,
                        const char *key)
{
    uint64_t bytes;

    if (types[t].bytes) {
        if (__builtin_mul_overflow(count, (uint64_t)types[t].bytes, &bytes))
            bytes = UINT64_MAX;
        const unsigned char *p = skip(r, bytes, key);
        for (uint64_t i = 0; p && t == PL_GGUF_BOOL && i < count; i++)
            if (p[i] > 1) {
                r->st = pl_fail(r->err, PL_EFORMAT, "%s: %s: %u is neither true nor false", r->file,
                                key, p[i]);
                return;
            }
        return;
    }
    if (depth > PL_GGUF_MAX_NESTING) {
        r->st = pl_fail(r->err, PL_EFORMAT, "%s: %s: arrays nested deeper than %d", r->file, key,
                        PL_GGUF_MAX_NESTING);
        return;
    }
    for (uint64_t i = 0; i < count && !r->st; i++) {
        if (t == PL_GGUF_STRING) {
            skip(r, get(r, 8, key), key);
        } else {
            enum pl_gguf_type of = get_type(r, key);
            uint64_t n = get(r, 8, key);
            if (!r->st)
                skip_values(r, of, n, depth + 1, key);
        }
    }
}

static void get_pair(struct reader *r, struct pl_gguf_pair *out)
{
    struct pl_gguf_pair p = {.count = 1};

    p.key = get_name(r, PL_GGUF_MAX_KEY, "a metadata key");
    if (r->st)
        return;
    p.type = get_type(r, p.key);
    if (p.type == PL_GGUF_STRING) {
        p.count = get(r, 8, p.key);
    } else if (p.type == PL_GGUF_ARRAY) {
        p.of = get_type(r, p.key);
        p.count = get(r, 8, p.key);
    }
    if (r->st)
        return;
    p.data = r->p + r->at;
    if (p.type == PL_GGUF_STRING)
        skip(r, p.count, p.key);
    else if (p.type == PL_GGUF_ARRAY)
        skip_values(r, p.of, p.count, 1, p.key);
    else
        skip_values(r, p.type, 1, 0, p.key);
    p.bytes = (size_t)(r->p + r->at - p.data);
    *out = p;
}

static int by_key(const void *a, const void *b)
{
    const struct pl_gguf_pair *x = a, *y = b;

    return strcmp(x->key, y->key);
}

static void get_pairs(struct reader *r, struct pl_gguf *g, uint64_t count)
{
    /* the smallest pair: one byte of key and one of value */
    if (count > PL_GGUF_MAX_PAIRS || count > (r->size - r->at) / 14) {
        r->st = pl_fail(r->err, PL_EFORMAT,
                        "%s: the header promises %" PRIu64 " metadata pairs (at most %u, and no "
                        "more than fit the file)",
                        r->file, count, PL_GGUF_MAX_PAIRS);
        return;
    }
    g->pairs = pl_arena_calloc(r->arena, (size_t)count + 1, sizeof(*g->pairs));
    if (!g->pairs) {
        r->st = pl_fail(r->err, PL_ENOMEM, "%s: no memory for its metadata", r->file);
        return;
    }
    for (; g->n_pairs < count; g->n_pairs++) {
        get_pair(r, &g->pairs[g->n_pairs]);
        if (r->st)
            return;
    }
    qsort(g->pairs, g->n_pairs, sizeof(*g->pairs), by_key);
    for (size_t i = 1; i < g->n_pairs; i++)
        if (!strcmp(g->pairs[i - 1].key, g->pairs[i].key)) {
            r->st = pl_fail(r->err, PL_EFORMAT, "%s: the metadata has %s twice", r->file,
                            g->pairs[i].key);
            return;
        }
}

/* The type's dtype, or a failure that names it. */
static enum pl_dtype tensor_type(struct reader *r, const char *name, uint64_t id)
{
    const char *known = NULL;

    for (size_t i = 0; i < sizeof(ggml_types) / sizeof(ggml_types[0]); i++) {
        if (ggml_types[i].id != id)
            continue;
        if (ggml_types[i].dt != PL_DT_COUNT)
            return ggml_types[i].dt;
        known = ggml_types[i].name;
    }
    r->st = known ? pl_fail(r->err, PL_EUNSUPPORTED,
                            "%s: tensor %s is of type %s, which is not "
                            "supported",
                            r->file, name, known)
                  : pl_fail(r->err, PL_EUNSUPPORTED, "%s: tensor %s is of unknown type %" PRIu64,
                            r->file, name, id);
    return PL_DT_COUNT;
}

/* Sizes come innermost first; the view's shape is the other way round. */
static void get_shape(struct reader *r, struct pl_tensor_view *t)
{
    uint64_t dims = get(r, 4, t->name), ne;

    if (r->st)
        return;
    if (dims > MAX_GGUF_DIMS) {
        r->st = pl_fail(r->err, PL_EFORMAT, "%s: tensor %s has %" PRIu64 " dimensions (at most %d)",
                        r->file, t->name, dims, MAX_GGUF_DIMS);
        return;
    }
    t->dims = (int32_t)dims;
    t->elements = 1;
    for (int32_t i = t->dims - 1; i >= 0; i--) {
        ne = get(r, 8, t->name);
        if (r->st)
            return;
        if (ne > INT64_MAX || __builtin_mul_overflow(t->elements, (int64_t)ne, &t->elements)) {
            r->st =
                pl_fail(r->err, PL_EFORMAT, "%s: tensor %s: its shape overflows", r->file, t->name);
            return;
        }
        t->shape[i] = (int64_t)ne;
    }
}

/* Offsets are kept in *offset until the data's begin is known. */
static void get_tensor(struct reader *r, struct pl_tensor_view *t, uint64_t *offset)
{
    const struct pl_dtype_traits *traits;
    int64_t cols, bytes;

    t->file = r->file;
    t->name = get_name(r, PL_GGUF_MAX_NAME, "a tensor's name");
    if (!r->st)
        get_shape(r, t);
    uint64_t id = get(r, 4, r->st ? "" : t->name);
    if (r->st)
        return;
    t->dtype = tensor_type(r, t->name, id);
    *offset = get(r, 8, t->name);
    if (r->st)
        return;
    traits = pl_dtype_traits(t->dtype);
    cols = t->dims ? t->shape[t->dims - 1] : 1;
    if (cols % traits->block) {
        r->st = pl_fail(r->err, PL_EFORMAT,
                        "%s: tensor %s: rows of %" PRId64 " are no whole blocks of %u (%s)",
                        r->file, t->name, cols, traits->block, traits->name);
        return;
    }
    if (__builtin_mul_overflow(t->elements / traits->block, (int64_t)traits->bytes, &bytes)) {
        r->st = pl_fail(r->err, PL_EFORMAT, "%s: tensor %s: its shape overflows", r->file, t->name);
        return;
    }
    t->bytes = (size_t)bytes;
}

static int by_offset(const void *a, const void *b)
{
    const struct pl_tensor_view *const *x = a, *const *y = b;
    const char *p = (*x)->data, *q = (*y)->data;

    if (p != q)
        return p < q ? -1 : 1;
    return (*x)->bytes < (*y)->bytes ? -1 : (*x)->bytes > (*y)->bytes;
}

static int by_name(const void *a, const void *b)
{
    const struct pl_tensor_view *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

/* No name twice, no byte in two tensors. */
static void check_tensors(struct reader *r, struct pl_gguf *g)
{
    size_t n = g->n_tensors;
    const struct pl_tensor_view **order = pl_arena_calloc(r->arena, n + 1, sizeof(*order));

    if (!order) {
        r->st = pl_fail(r->err, PL_ENOMEM, "%s: no memory for its tensor list", r->file);
        return;
    }
    for (size_t i = 0; i < n; i++)
        order[i] = &g->tensors[i];
    qsort(order, n, sizeof(*order), by_name);
    for (size_t i = 1; i < n; i++)
        if (!strcmp(order[i - 1]->name, order[i]->name)) {
            r->st = pl_fail(r->err, PL_EFORMAT, "%s: tensor %s stands in it twice", r->file,
                            order[i]->name);
            return;
        }
    qsort(order, n, sizeof(*order), by_offset);
    for (size_t i = 1; i < n; i++)
        if ((const char *)order[i - 1]->data + order[i - 1]->bytes > (const char *)order[i]->data) {
            r->st = pl_fail(r->err, PL_EFORMAT, "%s: tensors %s and %s overlap", r->file,
                            order[i - 1]->name, order[i]->name);
            return;
        }
}

static void get_tensors(struct reader *r, struct pl_gguf *g, uint64_t count, int64_t alignment)
{
    uint64_t *offsets;
    size_t begin, left;

    /* the smallest tensor: a name of one byte and no dimensions */
    if (count > PL_CHECKPOINT_MAX_TENSORS || count > (r->size - r->at) / 25) {
        r->st = pl_fail(r->err, PL_EFORMAT,
                        "%s: the header promises %" PRIu64 " tensors (at most %u, and no more than "
                        "fit the file)",
                        r->file, count, PL_CHECKPOINT_MAX_TENSORS);
        return;
    }
    g->tensors = pl_arena_calloc(r->arena, (size_t)count + 1, sizeof(*g->tensors));
    offsets = pl_arena_calloc(r->arena, (size_t)count + 1, sizeof(*offsets));
    if (!g->tensors || !offsets) {
        r->st = pl_fail(r->err, PL_ENOMEM, "%s: no memory for its tensor list", r->file);
        return;
    }
    for (; g->n_tensors < count; g->n_tensors++) {
        get_tensor(r, &g->tensors[g->n_tensors], &offsets[g->n_tensors]);
        if (r->st)
            return;
    }
    begin = (r->at + (size_t)alignment - 1) / (size_t)alignment * (size_t)alignment;
    left = begin < r->size ? r->size - begin : 0;
    for (size_t i = 0; i < g->n_tensors; i++) {
        struct pl_tensor_view *t = &g->tensors[i];
        if (offsets[i] % (uint64_t)alignment) {
            r->st = pl_fail(r->err, PL_EFORMAT,
                            "%s: tensor %s: offset %" PRIu64 " is no multiple of the alignment "
                            "%" PRId64,
                            r->file, t->name, offsets[i], alignment);
            return;
        }
        if (offsets[i] > left || t->bytes > left - offsets[i]) {
            r->st = pl_fail(r->err, PL_EFORMAT,
                            "%s: tensor %s takes %zu bytes at %" PRIu64
                            " of the data, but the file holds %zu (truncated?)",
                            r->file, t->name, t->bytes, offsets[i], left);
            return;
        }
        t->data = r->p + (t->bytes ? begin + offsets[i] : 0);
    }
    check_tensors(r, g);
}

enum pl_status pl_gguf_parse(const char *file, const void *data, size_t size,
                             struct pl_arena *arena, struct pl_gguf **out, struct pl_err *err)
{
    struct reader r = {.file = file, .p = data, .size = size, .arena = arena, .err = err};
    struct pl_gguf *g = pl_arena_calloc(arena, 1, sizeof(*g));
    uint64_t tensors, pairs;
    int64_t alignment = 0;

    if (!g)
        return pl_fail(err, PL_ENOMEM, "%s: no memory", file);
    if (!size)
        return pl_fail(err, PL_EFORMAT, "%s: the file is empty", file);
    if (!pl_gguf_is(data, size))
        return pl_fail(err, PL_EFORMAT, "%s: not a GGUF file", file);
    r.at = 4;
    g->file = file;
    g->version = (uint32_t)get(&r, 4, "the header");
    if (r.st)
        return r.st;
    if (g->version && !(g->version & 0xffff))
        return pl_fail(err, PL_EUNSUPPORTED, "%s: a big-endian GGUF file is not supported", file);
    if (g->version != 2 && g->version != 3)
        return pl_fail(err, PL_EUNSUPPORTED, "%s: GGUF version %" PRIu32 " is not supported (2, 3)",
                       file, g->version);
    tensors = get(&r, 8, "the header");
    pairs = get(&r, 8, "the header");
    if (!r.st)
        get_pairs(&r, g, pairs);
    if (!r.st)
        r.st = pl_gguf_int(g, "general.alignment", ALIGNMENT, 1, MAX_ALIGNMENT, &alignment, err);
    if (!r.st && alignment & (alignment - 1))
        r.st = pl_fail(err, PL_EFORMAT, "%s: general.alignment %" PRId64 " is no power of two",
                       file, alignment);
    if (!r.st)
        get_tensors(&r, g, tensors, alignment);
    if (!r.st)
        *out = g;
    return r.st;
}

const char *pl_gguf_file(const struct pl_gguf *g)
{
    return g->file;
}

uint32_t pl_gguf_version(const struct pl_gguf *g)
{
    return g->version;
}

const struct pl_tensor_view *pl_gguf_tensors(const struct pl_gguf *g, size_t *n)
{
    *n = g->n_tensors;
    return g->tensors;
}

size_t pl_gguf_pairs(const struct pl_gguf *g)
{
    return g->n_pairs;
}

const struct pl_gguf_pair *pl_gguf_pair(const struct pl_gguf *g, size_t i)
{
    return &g->pairs[i];
}

const struct pl_gguf_pair *pl_gguf_find(const struct pl_gguf *g, const char *key)
{
    const struct pl_gguf_pair p = {.key = key};

    return g->n_pairs ? bsearch(&p, g->pairs, g->n_pairs, sizeof(p), by_key) : NULL;
}

const char *pl_gguf_type_name(enum pl_gguf_type t)
{
    return types[t].name;
}
