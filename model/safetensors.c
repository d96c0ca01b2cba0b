#include "model/safetensors.h"

#include "base/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static enum pl_status parse_shape(const char *file, const json_t *shape, struct pl_tensor_view *t,
                                  struct pl_err *err)
{
    size_t dims = json_array_size(shape);

    if (!json_is_array(shape))
        return pl_fail(err, PL_EFORMAT, "%s: tensor %s has no shape list", file, t->name);
    if (dims > PL_MAX_DIMS)
        return pl_fail(err, PL_EFORMAT, "%s: tensor %s has %zu dimensions (at most %d)", file,
                       t->name, dims, PL_MAX_DIMS);
    t->dims = (int32_t)dims;
    t->elements = 1;
    for (size_t i = 0; i < dims; i++) {
        const json_t *d = json_array_get(shape, i);
        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return pl_fail(err, PL_EFORMAT, "%s: tensor %s: dimension %zu is not a size", file,
                           t->name, i);
        t->shape[i] = json_integer_value(d);
        if (__builtin_mul_overflow(t->elements, t->shape[i], &t->elements))
            return pl_fail(err, PL_EFORMAT, "%s: tensor %s: its shape overflows", file, t->name);
    }
    return PL_OK;
}

/* One entry of the header: {"dtype": "F32", "shape": […], "data_offsets": [begin, end]}. */
static enum pl_status parse_tensor(const char *file, const json_t *o, const char *data,
                                   size_t data_size, struct pl_tensor_view *t, struct pl_err *err)
{
    const char *dtype = json_string_value(json_object_get(o, "dtype"));
    const json_t *off = json_object_get(o, "data_offsets");
    enum pl_status st;
    int64_t bytes;

    if (!json_is_object(o))
        return pl_fail(err, PL_EFORMAT, "%s: tensor %s is not described by an object", file,
                       t->name);
    if (!dtype)
        return pl_fail(err, PL_EFORMAT, "%s: tensor %s has no dtype", file, t->name);
    t->dtype = pl_dtype_by_safetensors(dtype);
    if (t->dtype == PL_DT_COUNT)
        return pl_fail(err, PL_EUNSUPPORTED, "%s: tensor %s has unknown dtype \"%.32s\"", file,
                       t->name, dtype);
    st = parse_shape(file, json_object_get(o, "shape"), t, err);
    if (st)
        return st;
    if (json_array_size(off) != 2 || !json_is_integer(json_array_get(off, 0)) ||
        !json_is_integer(json_array_get(off, 1)))
        return pl_fail(err, PL_EFORMAT, "%s: tensor %s has no data_offsets [begin, end]", file,
                       t->name);
    int64_t begin = json_integer_value(json_array_get(off, 0));
    int64_t end = json_integer_value(json_array_get(off, 1));
    if (begin < 0 || end < begin)
        return pl_fail(err, PL_EFORMAT,
                       "%s: tensor %s: data_offsets [%" PRId64 ", %" PRId64 "] are no range", file,
                       t->name, begin, end);
    if ((uint64_t)end > data_size)
        return pl_fail(err, PL_EFORMAT,
                       "%s: tensor %s ends at byte %" PRId64
                       " of the data, but the file holds %zu (truncated?)",
                       file, t->name, end, data_size);
    if (__builtin_mul_overflow(t->elements, (int64_t)pl_dtype_traits(t->dtype)->bytes, &bytes) ||
        bytes != end - begin)
        return pl_fail(err, PL_EFORMAT,
                       "%s: tensor %s: its shape and type %s need %" PRId64
                       " bytes, data_offsets give %" PRId64,
                       file, t->name, dtype, bytes, end - begin);
    t->data = data + begin;
    t->bytes = (size_t)bytes;
    return PL_OK;
}

static int by_offset(const void *a, const void *b)
{
    const struct pl_tensor_view *x = a, *y = b;
    const char *p = x->data, *q = y->data;

    if (p != q)
        return p < q ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* The data must be covered from its first byte to its last, each byte once. */
static enum pl_status check_cover(const char *file, const char *data, size_t data_size,
                                  struct pl_tensor_view *t, size_t n, struct pl_err *err)
{
    size_t at = 0;

    qsort(t, n, sizeof(*t), by_offset);
    for (size_t i = 0; i < n; i++) {
        size_t begin = (size_t)((const char *)t[i].data - data);
        if (begin < at)
            return pl_fail(err, PL_EFORMAT, "%s: tensors %s and %s overlap", file,
                           i ? t[i - 1].name : "?", t[i].name);
        if (begin > at)
            return pl_fail(err, PL_EFORMAT,
                           "%s: bytes %zu to %zu of the data belong to no tensor (before %s)", file,
                           at, begin, t[i].name);
        at = begin + t[i].bytes;
    }
    if (at != data_size)
        return pl_fail(err, PL_EFORMAT, "%s: %zu bytes after the last tensor belong to none", file,
                       data_size - at);
    return PL_OK;
}

enum pl_status pl_safetensors_parse(const char *file, const void *data, size_t size,
                                    struct pl_arena *arena, struct pl_tensor_view **out, size_t *n,
                                    struct pl_err *err)
{
    const unsigned char *p = data;
    json_t *header = NULL, *value;
    struct pl_tensor_view *t;
    const char *key;
    enum pl_status st;
    uint64_t len = 0;
    size_t count = 0;

    if (!size)
        return pl_fail(err, PL_EFORMAT, "%s: the file is empty", file);
    if (size < 8)
        return pl_fail(err, PL_EFORMAT, "%s: %zu bytes are too few for a safetensors header", file,
                       size);
    for (int i = 7; i >= 0; i--)
        len = len << 8 | p[i];
    if (len > PL_SAFETENSORS_HEADER_MAX)
        return pl_fail(err, PL_EFORMAT,
                       "%s: header length %" PRIu64 " is above the format's limit of %u "
                       "(not a safetensors file?)",
                       file, len, PL_SAFETENSORS_HEADER_MAX);
    if (len > size - 8)
        return pl_fail(err, PL_EFORMAT,
                       "%s: header length %" PRIu64 " is beyond the file's %zu bytes (truncated?)",
                       file, len, size);
    if (len < 2 || p[8] != '{')
        return pl_fail(err, PL_EFORMAT, "%s: the header is not a JSON object", file);
    st = pl_json_parse(file, (const char *)p + 8, (size_t)len, &header, err);
    if (st)
        return pl_err_prefix(err, st, "safetensors header");
    st = PL_EFORMAT;
    if (!json_is_object(header)) {
        pl_fail(err, st, "%s: the header is not a JSON object", file);
        goto out;
    }
    if (json_object_size(header) > PL_CHECKPOINT_MAX_TENSORS) {
        pl_fail(err, st, "%s: more than %u tensors", file, PL_CHECKPOINT_MAX_TENSORS);
        goto out;
    }
    t = pl_arena_calloc(arena, json_object_size(header) + 1, sizeof(*t));
    if (!t) {
        st = pl_fail(err, PL_ENOMEM, "%s: no memory for its tensor list", file);
        goto out;
    }
    json_object_foreach (header, key, value) {
        if (!strcmp(key, "__metadata__"))
            continue;
        t[count].file = file;
        t[count].name = pl_arena_strdup(arena, key);
        if (!t[count].name) {
            st = pl_fail(err, PL_ENOMEM, "%s: no memory for its tensor list", file);
            goto out;
        }
        st = parse_tensor(file, value, (const char *)p + 8 + len, size - 8 - len, &t[count], err);
        if (st)
            goto out;
        count++;
    }
    st = check_cover(file, (const char *)p + 8 + len, size - 8 - len, t, count, err);
    if (st)
        goto out;
    *out = t;
    *n = count;
out:
    json_decref(header);
    return st;
}
