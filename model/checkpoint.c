#include "model/checkpoint.h"

#include "base/arena.h"
#include "base/json.h"
#include "model/gguf.h"
#include "model/quant.h"
#include "model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct mapping {
    void *at;
    size_t size;
    const char *file;
};

struct pl_checkpoint {
    struct pl_arena arena;
    struct mapping *maps;
    size_t n_maps;
    struct pl_tensor_view *tensors; /* by name */
    size_t n;
    struct pl_gguf *gguf; /* NULL: safetensors */
};

static enum pl_status map_file(struct pl_checkpoint *c, const char *path, struct pl_err *err)
{
    struct mapping *m = &c->maps[c->n_maps];
    enum pl_status st = PL_OK;
    struct stat sb;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return pl_fail_errno(err, errno, "%s", path);
    if (fstat(fd, &sb)) {
        st = pl_fail_errno(err, errno, "%s", path);
        goto out;
    }
    if (!S_ISREG(sb.st_mode)) {
        st = pl_fail(err, PL_EFORMAT, "%s: not a regular file", path);
        goto out;
    }
    m->file = pl_arena_strdup(&c->arena, path);
    if (!m->file) {
        st = pl_fail(err, PL_ENOMEM, "%s: no memory", path);
        goto out;
    }
    m->size = (size_t)sb.st_size;
    if (m->size) {
        m->at = mmap(NULL, m->size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (m->at == MAP_FAILED) {
            m->at = NULL;
            st = pl_fail_errno(err, errno, "%s: cannot map it", path);
            goto out;
        }
    }
    c->n_maps++;
out:
    close(fd);
    return st;
}

static int by_name(const void *a, const void *b)
{
    const struct pl_tensor_view *x = a, *y = b;

    return strcmp(x->name, y->name);
}

/* Maps and parses one more file and adds its tensors. */
static enum pl_status add_file(struct pl_checkpoint *c, const char *path, bool may_be_gguf,
                               struct pl_err *err)
{
    struct pl_tensor_view *made = NULL, *all;
    const struct pl_tensor_view *t;
    enum pl_status st;
    size_t n = 0;

    st = map_file(c, path, err);
    if (st)
        return st;
    const struct mapping *m = &c->maps[c->n_maps - 1];
    if (may_be_gguf && m->at && pl_gguf_is(m->at, m->size)) {
        st = pl_gguf_parse(m->file, m->at, m->size, &c->arena, &c->gguf, err);
        t = st ? NULL : pl_gguf_tensors(c->gguf, &n);
    } else {
        st = pl_safetensors_parse(m->file, m->at, m->size, &c->arena, &made, &n, err);
        t = made;
    }
    if (st)
        return st;
    all = realloc(c->tensors, (c->n + n + 1) * sizeof(*all));
    if (!all)
        return pl_fail(err, PL_ENOMEM, "%s: no memory for its tensor list", path);
    c->tensors = all;
    if (n)
        memcpy(c->tensors + c->n, t, n * sizeof(*t));
    c->n += n;
    return PL_OK;
}

static enum pl_status sort_tensors(struct pl_checkpoint *c, struct pl_err *err)
{
    if (c->n)
        qsort(c->tensors, c->n, sizeof(*c->tensors), by_name);
    for (size_t i = 1; i < c->n; i++)
        if (!strcmp(c->tensors[i - 1].name, c->tensors[i].name))
            return pl_fail(err, PL_EFORMAT, "tensor %s stands in both %s and %s",
                           c->tensors[i].name, c->tensors[i - 1].file, c->tensors[i].file);
    return PL_OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct shard names of an index, checked to be plain file names. */
static enum pl_status shard_names(struct pl_checkpoint *c, const char *index, json_t *map,
                                  const char ***out, size_t *n, struct pl_err *err)
{
    size_t size = json_object_size(map), count = 0;
    const char **names, *key;
    json_t *v;

    if (!size || size > PL_CHECKPOINT_MAX_TENSORS)
        return pl_fail(err, PL_EFORMAT, "%s: no usable weight_map", index);
    names = pl_arena_calloc(&c->arena, size, sizeof(*names));
    if (!names)
        return pl_fail(err, PL_ENOMEM, "%s: no memory", index);
    json_object_foreach (map, key, v) {
        const char *s = json_string_value(v);
        if (!s || !*s || strchr(s, '/') || strlen(s) > 255)
            return pl_fail(err, PL_EFORMAT, "%s: weight_map: %s is not in a file of this directory",
                           index, key);
        names[count++] = s;
    }
    qsort(names, size, sizeof(*names), by_text);
    count = 1;
    for (size_t i = 1; i < size; i++)
        if (strcmp(names[i], names[count - 1]))
            names[count++] = names[i];
    if (count > PL_CHECKPOINT_MAX_SHARDS)
        return pl_fail(err, PL_EFORMAT, "%s: more than %u shards", index, PL_CHECKPOINT_MAX_SHARDS);
    *out = names;
    *n = count;
    return PL_OK;
}

static enum pl_status open_sharded(struct pl_checkpoint *c, const char *dir, const char *index,
                                   struct pl_err *err)
{
    json_t *root = NULL, *map, *v;
    const char **names = NULL, *key;
    enum pl_status st;
    size_t n = 0;

    st = pl_json_read_file(index, PL_SAFETENSORS_HEADER_MAX, &root, err);
    if (st)
        return st;
    map = json_object_get(root, "weight_map");
    st = shard_names(c, index, map, &names, &n, err);
    if (st)
        goto out;
    c->maps = pl_arena_calloc(&c->arena, n, sizeof(*c->maps));
    if (!c->maps) {
        st = pl_fail(err, PL_ENOMEM, "%s: no memory", index);
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        const char *path = pl_arena_printf(&c->arena, "%s/%s", dir, names[i]);
        st = path ? add_file(c, path, false, err) : pl_fail(err, PL_ENOMEM, "%s: no memory", index);
        if (st) {
            st = pl_err_prefix(err, st, "shard named by %s", index);
            goto out;
        }
    }
    st = sort_tensors(c, err);
    if (st)
        goto out;
    json_object_foreach (map, key, v) {
        const struct pl_tensor_view *t = pl_checkpoint_find(c, key);
        const char *base = t ? strrchr(t->file, '/') + 1 : "";
        if (strcmp(base, json_string_value(v))) {
            st = pl_fail(err, PL_EFORMAT, "%s: tensor %s is not in %s, where the index puts it",
                         index, key, json_string_value(v));
            goto out;
        }
    }
out:
    json_decref(root);
    return st;
}

static bool exists(const char *path)
{
    return path && !access(path, F_OK);
}

static enum pl_status open_dir(struct pl_checkpoint *c, const char *dir, struct pl_err *err)
{
    const char *one = pl_arena_printf(&c->arena, "%s/model.safetensors", dir);
    const char *index = pl_arena_printf(&c->arena, "%s/model.safetensors.index.json", dir);
    const char *bin = pl_arena_printf(&c->arena, "%s/pytorch_model.bin", dir);

    if (!one || !index || !bin)
        return pl_fail(err, PL_ENOMEM, "%s: no memory", dir);
    if (!exists(one) && exists(index))
        return open_sharded(c, dir, index, err);
    if (!exists(one))
        return pl_fail(
            err, PL_ENOENT,
            "%s: no weights: looked for model.safetensors and "
            "model.safetensors.index.json%s",
            dir, exists(bin) ? " (pytorch_model.bin is there, but is not read: convert it)" : "");
    c->maps = pl_arena_calloc(&c->arena, 1, sizeof(*c->maps));
    if (!c->maps)
        return pl_fail(err, PL_ENOMEM, "%s: no memory", dir);
    return add_file(c, one, false, err);
}

enum pl_status pl_checkpoint_open(const char *path, struct pl_checkpoint **out, struct pl_err *err)
{
    struct pl_checkpoint *c = calloc(1, sizeof(*c));
    enum pl_status st;
    struct stat sb;

    if (!c)
        return pl_fail(err, PL_ENOMEM, "%s: no memory", path);
    pl_arena_init(&c->arena);
    if (stat(path, &sb)) {
        st = pl_fail_errno(err, errno, "%s", path);
    } else if (S_ISDIR(sb.st_mode)) {
        st = open_dir(c, path, err);
    } else {
        c->maps = pl_arena_calloc(&c->arena, 1, sizeof(*c->maps));
        st =
            c->maps ? add_file(c, path, true, err) : pl_fail(err, PL_ENOMEM, "%s: no memory", path);
    }
    if (!st)
        st = sort_tensors(c, err);
    if (st) {
        pl_checkpoint_free(c);
        return st;
    }
    *out = c;
    return PL_OK;
}

void pl_checkpoint_free(struct pl_checkpoint *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n_maps; i++)
        if (c->maps[i].at)
            munmap(c->maps[i].at, c->maps[i].size);
    free(c->tensors);
    pl_arena_release(&c->arena);
    free(c);
}

size_t pl_checkpoint_count(const struct pl_checkpoint *c)
{
    return c->n;
}

const struct pl_tensor_view *pl_checkpoint_tensor(const struct pl_checkpoint *c, size_t i)
{
    return &c->tensors[i];
}

const struct pl_tensor_view *pl_checkpoint_find(const struct pl_checkpoint *c, const char *name)
{
    const struct pl_tensor_view key = {.name = name};

    return c->n ? bsearch(&key, c->tensors, c->n, sizeof(key), by_name) : NULL;
}

const struct pl_gguf *pl_checkpoint_gguf(const struct pl_checkpoint *c)
{
    return c->gguf;
}

bool pl_checkpoint_is_gguf(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char magic[4] = {0};
    struct stat sb;
    bool is = false;

    if (fd < 0)
        return false;
    if (!fstat(fd, &sb) && S_ISREG(sb.st_mode))
        is = read(fd, magic, sizeof(magic)) == (ssize_t)sizeof(magic) &&
             pl_gguf_is(magic, sizeof(magic));
    close(fd);
    return is;
}

int64_t pl_checkpoint_file_bytes(const struct pl_checkpoint *c)
{
    int64_t sum = 0;

    for (size_t i = 0; i < c->n_maps; i++)
        sum += (int64_t)c->maps[i].size;
    return sum;
}

void pl_tensor_nonfinite(const struct pl_tensor_view *t, int64_t *nan, int64_t *inf)
{
    float buf[1024];
    bool quant = pl_quant_decodes(t->dtype);

    *nan = *inf = 0;
    if (!quant && !pl_dtype_traits(t->dtype)->computes)
        return;
    for (int64_t i = 0; i < t->elements; i += 1024) {
        size_t n = t->elements - i < 1024 ? (size_t)(t->elements - i) : 1024;
        const char *from = (const char *)t->data + pl_dtype_bytes(t->dtype, (size_t)i);
        if (quant)
            pl_quant_to_f32(t->dtype, from, buf, n);
        else
            pl_dtype_to_f32(t->dtype, from, buf, n);
        for (size_t j = 0; j < n; j++) {
            *nan += isnan(buf[j]) != 0;
            *inf += isinf(buf[j]) != 0;
        }
    }
}

void pl_tensor_shape_text(const struct pl_tensor_view *t, char *out, size_t size)
{
    size_t at = 0;

    if (!size)
        return;
    out[0] = 0;
    for (int32_t i = 0; i <= t->dims && at < size; i++) {
        int w = i < t->dims
                    ? snprintf(out + at, size - at, "%s%" PRId64, i ? ", " : "[", t->shape[i])
                    : snprintf(out + at, size - at, "%s", t->dims ? "]" : "[]");
        at += w > 0 ? (size_t)w : 0;
    }
}

void pl_checkpoint_fetch(const struct pl_checkpoint *c)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    for (size_t i = 0; i < c->n_maps; i++) {
        const struct mapping *m = &c->maps[i];
        if (!m->at)
            continue;
#ifdef MADV_POPULATE_READ
        if (!madvise(m->at, m->size, MADV_POPULATE_READ))
            continue;
#endif
        madvise(m->at, m->size, MADV_WILLNEED);
        for (size_t at = 0; at < m->size; at += page)
            (void)*((const volatile char *)m->at + at);
    }
}

void pl_checkpoint_drop_pages(struct pl_checkpoint *c)
{
    for (size_t i = 0; i < c->n_maps; i++)
        if (c->maps[i].at)
            madvise(c->maps[i].at, c->maps[i].size, MADV_DONTNEED);
}
