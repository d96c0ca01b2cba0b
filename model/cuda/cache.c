#include "model/cuda/cuda.h"

#include <stdlib.h>

/* K or V of `cap` rows. */
static size_t half_bytes(const struct pl_arch *a, enum pl_dtype dt, size_t cap)
{
    return pl_round_up((size_t)a->kv_heads * cap * (size_t)a->head_dim * pl_dtype_traits(dt)->bytes,
                       256);
}

static void layer_bytes(const struct pl_arch *a, enum pl_dtype dt, size_t cap, size_t *k, size_t *v)
{
    *k = *v = half_bytes(a, dt, cap);
}

static enum pl_status alloc(void **out, size_t bytes, struct pl_err *err)
{
    enum pl_status st = pl_cuda_alloc(out, bytes, "a session", err);

    if (st)
        return st;
    st = pl_cuda_check(cudaMemset(*out, 0, bytes), "a session", err);
    if (st) {
        cudaFree(*out);
        *out = NULL;
    }
    return st;
}

static void release(void *p)
{
    cudaFree(p);
}

static const struct pl_cache_memory memory = {.chunk = PL_CUDA_CHUNK,
                                              .keys = PL_CUDA_KEYS,
                                              .layer_bytes = layer_bytes,
                                              .alloc = alloc,
                                              .free = release};

/* Rows that one forward of this cache may have: an encoder takes its source whole. */
static size_t forward_rows(const struct pl_arch *a, const struct pl_cache_opts *o)
{
    size_t chunk = pl_cuda_chunk(a);

    return !a->causal && o->max_tokens > chunk ? o->max_tokens : chunk;
}

struct pl_cache_bytes pl_cuda_cache_need(const struct pl_arch *a, const struct pl_cache_opts *o)
{
    int64_t padded = (int64_t)pl_round_up(o->max_tokens, PL_CUDA_KEYS);
    int64_t all = pl_cache_kv_bytes(&memory, a, o);
    int64_t shared = pl_cuda_work_bytes(a, forward_rows(a, o));
    struct pl_cache_bytes b = {.kv = a->causal ? all : 0, .workspace = shared, .shared = shared};

    b.workspace += (a->causal ? 0 : all) + pl_cache_side_bytes(&memory, a, o);
    b.workspace += a->pos == PL_POS_RELATIVE ? a->heads * 2 * padded * 4 : 0;
    if (a->encoder_layers) {
        struct pl_arch e = pl_arch_encoder(a);
        struct pl_cache_opts so = pl_cache_source_opts(o);
        b.workspace += pl_cuda_cache_need(&e, &so).workspace;
    }
    return b;
}

/* The bias of every distance: key j for the query at place i is at padded + j − i. */
static enum pl_status make_relative(struct pl_cache *c, struct pl_err *err)
{
    size_t span = 2 * c->padded, bytes = (size_t)c->arch->heads * span * sizeof(float);
    float *table = malloc(bytes);
    enum pl_status st;
    void *p = NULL;

    if (!table)
        return pl_fail(err, PL_ENOMEM, "no memory for a session");
    pl_cache_relative(c, c->network->relative, span, table);
    st = pl_cuda_alloc(&p, bytes, "relative positions", err);
    if (!st)
        st = pl_cuda_check(cudaMemcpy(p, table, bytes, cudaMemcpyHostToDevice),
                           "relative positions", err);
    c->relative = p;
    c->other_bytes += (int64_t)bytes;
    free(table);
    return st;
}

enum pl_status pl_cuda_cache_create(struct pl_network *n, const struct pl_cache_opts *o,
                                    struct pl_cache **out, struct pl_err *err)
{
    struct pl_cache *c = NULL;
    enum pl_status st;

    st = pl_cuda_enter(n->device, "a session", err);
    if (!st)
        st = pl_cuda_work_reserve(n, forward_rows(&n->arch, o), err);
    if (!st)
        st = pl_cache_create(&memory, n, &n->arch, n->device, o, &c, err);
    if (!st && n->arch.pos == PL_POS_RELATIVE)
        st = make_relative(c, err);
    if (!st && n->encoder) {
        struct pl_cache_opts so = pl_cache_source_opts(o);
        st = pl_cuda_cache_create(n->encoder, &so, &c->source, err);
    }
    if (!st && n->encoder) /* the source's rows pass through this workspace for K and V */
        st = pl_cuda_work_reserve(n, o->max_source, err);
    if (!st)
        st = pl_cuda_loaded(n->device, "a session", err);
    if (st) {
        pl_cuda_cache_free(c);
        return st;
    }
    *out = c;
    return PL_OK;
}

void pl_cuda_cache_free(struct pl_cache *c)
{
    if (!c)
        return;
    cudaSetDevice(c->network->device->ordinal);
    pl_cuda_cache_free(c->source);
    pl_cache_free(&memory, c);
}

struct pl_cache_bytes pl_cuda_cache_bytes(const struct pl_cache *c)
{
    int64_t shared = pl_cuda_work_bytes(&c->network->arch, c->network->work.rows);
    struct pl_cache_bytes b = {
        .kv = c->kv_bytes, .workspace = c->other_bytes + shared, .shared = shared};

    if (c->source)
        b.workspace += pl_cuda_cache_bytes(c->source).workspace;
    return b;
}

void pl_cuda_cache_keep(struct pl_cache *c, int32_t layer, const int32_t *idx, size_t n)
{
    const struct pl_arch *a = c->arch;
    struct pl_device *d = c->network->device;
    struct pl_kv *kv = &c->kv[layer];
    struct pl_cuda_kv was = pl_cuda_kv(kv);
    size_t base = kv->len - pl_cache_len(c, layer);
    size_t list = pl_round_up((size_t)a->kv_heads * n * sizeof(*idx), 256);
    size_t half = half_bytes(a, c->dtype, n);
    char *room;

    /* the call cannot fail: without room the sequence is emptied, which the next step refuses */
    kv->first = kv->len = base;
    if (pl_cuda_enter(d, "keep", NULL) || pl_cuda_scratch(d, list + 2 * half, NULL))
        return;
    room = d->scratch;
    if (cudaMemcpyAsync(room, idx, (size_t)a->kv_heads * n * sizeof(*idx), cudaMemcpyHostToDevice,
                        d->stream))
        return;
    pl_k_kv_keep(&was, a->kv_heads, a->head_dim, c->dtype, (int)base, (const int32_t *)(void *)room,
                 (int)n, room + list, room + list + half, d->stream);
    if (!pl_cuda_sync(d, "keep", NULL))
        kv->len = base + n;
}

enum pl_status pl_cuda_cache_keep_path(struct pl_cache *c, size_t rows, const int32_t *idx,
                                       size_t n, struct pl_err *err)
{
    const struct pl_arch *a = c->arch;
    struct pl_device *d = c->network->device;
    size_t heads = (size_t)a->kv_heads, list = pl_round_up(heads * n * sizeof(*idx), 256);
    size_t half = half_bytes(a, c->dtype, n);
    enum pl_status st = PL_OK;
    bool moved = false;

    for (size_t i = 0; i < n; i++)
        moved |= idx[i] != (int32_t)i;
    if (moved)
        st = pl_cuda_enter(d, "a path", err);
    if (moved && !st)
        st = pl_cuda_scratch(d, list + 2 * half, err);
    for (size_t h = 0; h < heads && moved && !st; h++)
        st = pl_cuda_check(cudaMemcpyAsync((int32_t *)d->scratch + h * n, idx, n * sizeof(*idx),
                                           cudaMemcpyHostToDevice, d->stream),
                           "a path", err);
    for (int32_t l = 0; l < a->layers && moved && !st; l++) {
        const struct pl_cuda_kv kv = pl_cuda_kv(&c->kv[l]);
        pl_k_kv_keep(&kv, a->kv_heads, a->head_dim, c->dtype, kv.len - (int32_t)rows,
                     (const int32_t *)d->scratch, (int)n, (char *)d->scratch + list,
                     (char *)d->scratch + list + half, d->stream);
    }
    if (moved && !st)
        st = pl_cuda_sync(d, "a path", err); /* idx is the caller's */
    if (!st)
        pl_cache_drop(c, rows - n);
    return st;
}

void pl_cuda_cache_sums_clear(struct pl_cache *c)
{
    if (c->sums.data && !pl_cuda_enter(c->network->device, "sums", NULL))
        (void)!cudaMemsetAsync(c->sums.data, 0, c->sums.rows * c->sums.cols * sizeof(float),
                               c->network->device->stream);
}
