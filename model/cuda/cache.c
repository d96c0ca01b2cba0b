#include "model/cuda/cuda.h"

#include "model/positions.h"

#include <stdlib.h>
#include <string.h>

/* Rows of a layer: all, or a ring that holds the window and the rows of one forward. */
static size_t layer_cap(const struct pl_arch *a, const struct pl_cache_opts *o, int32_t layer)
{
    size_t all = pl_cuda_round(o->max_tokens, PL_CUDA_KEYS), ring = all;

    if (a->window && layer >= a->window_from && !o->whole_kv && (size_t)a->window < all)
        ring = pl_cuda_round((size_t)a->window + PL_CUDA_CHUNK, PL_CUDA_KEYS);
    return ring < all ? ring : all;
}

/* K or V of `cap` rows. */
static size_t half_bytes(const struct pl_arch *a, enum pl_dtype dt, size_t cap)
{
    return pl_cuda_round(
        (size_t)a->kv_heads * cap * (size_t)a->head_dim * pl_dtype_traits(dt)->bytes, 256);
}

/* Layers that have K and V of their own. */
static int32_t kv_layers(const struct pl_arch *a)
{
    return a->causal ? a->layers : 1;
}

static size_t kv_bytes(const struct pl_arch *a, const struct pl_cache_opts *o)
{
    size_t sum = 0;

    for (int32_t l = 0; l < kv_layers(a); l++)
        sum += 2 * half_bytes(a, o->kv_dtype, layer_cap(a, o, l));
    if (a->encoder_layers)
        sum += (size_t)a->layers * 2 *
               half_bytes(a, o->kv_dtype, pl_cuda_round(o->max_source, PL_CUDA_KEYS));
    return sum;
}

static size_t padded_tokens(const struct pl_cache_opts *o)
{
    return pl_cuda_round(o->max_tokens, PL_CUDA_KEYS);
}

static struct pl_cache_opts source_opts(const struct pl_cache_opts *o)
{
    return (struct pl_cache_opts){.kv_dtype = o->kv_dtype, .max_tokens = o->max_source};
}

/* Rows that one forward of this cache may have: an encoder takes its source whole. */
static size_t forward_rows(const struct pl_arch *a, const struct pl_cache_opts *o)
{
    size_t chunk = pl_cuda_chunk(a);

    return !a->causal && o->max_tokens > chunk ? o->max_tokens : chunk;
}

struct pl_cache_bytes pl_cuda_cache_need(const struct pl_arch *a, const struct pl_cache_opts *o)
{
    int64_t row = (int64_t)a->hidden * 4, all = (int64_t)kv_bytes(a, o);
    int64_t padded = (int64_t)padded_tokens(o);
    int64_t shared = pl_cuda_work_bytes(a, forward_rows(a, o));
    struct pl_cache_bytes b = {.kv = a->causal ? all : 0, .workspace = shared, .shared = shared};

    b.workspace += a->causal ? 0 : all + padded * 4;
    b.workspace += (int64_t)o->n_taps * (int64_t)o->max_tokens * row;
    b.workspace += o->stage || !a->causal ? (int64_t)o->max_tokens * row : 0;
    b.workspace += o->attn_sums ? a->heads * padded * 4 : 0;
    b.workspace += a->pos == PL_POS_RELATIVE ? a->heads * 2 * padded * 4 : 0;
    if (a->encoder_layers) {
        struct pl_arch e = pl_arch_encoder(a);
        struct pl_cache_opts so = source_opts(o);
        b.workspace += pl_cuda_cache_need(&e, &so).workspace;
    }
    return b;
}

static enum pl_status matrix(struct pl_cache *c, struct pl_tensor *t, size_t rows, size_t cols,
                             struct pl_err *err)
{
    size_t bytes = rows * cols * sizeof(float);
    enum pl_status st;
    void *p;

    st = pl_cuda_alloc(&p, bytes, "a session", err);
    if (st)
        return st;
    *t = (struct pl_tensor){.device = c->network->device, .rows = rows, .cols = cols, .data = p};
    c->other_bytes += (int64_t)bytes;
    return pl_cuda_check(cudaMemset(p, 0, bytes), "a session", err);
}

static char *place(const struct pl_arch *a, enum pl_dtype dt, struct pl_cuda_kv *kv, size_t cap,
                   char *at)
{
    size_t half = half_bytes(a, dt, cap);

    kv->cap = (int32_t)cap;
    kv->k = at;
    kv->v = at + half;
    return at + 2 * half;
}

static enum pl_status allocate_kv(struct pl_cache *c, const struct pl_cache_opts *o,
                                  struct pl_err *err)
{
    const struct pl_arch *a = &c->network->arch;
    size_t layers = (size_t)a->layers;
    enum pl_status st;
    char *at;

    c->kv_bytes = (int64_t)kv_bytes(a, o);
    c->kv = calloc(layers, sizeof(*c->kv));
    c->cross = calloc(layers, sizeof(*c->cross));
    c->written = calloc(layers, sizeof(*c->written));
    if (!c->kv || !c->cross || !c->written)
        return pl_fail(err, PL_ENOMEM, "no memory for a session");
    st = pl_cuda_alloc(&c->block, (size_t)c->kv_bytes, "the KV cache", err);
    if (st)
        return st;
    at = c->block;
    for (int32_t l = 0; l < a->layers; l++) {
        if (l < kv_layers(a))
            at = place(a, c->dtype, &c->kv[l], layer_cap(a, o, l), at);
        else
            c->kv[l] = c->kv[0];
        c->kv[l].window = a->window && l >= a->window_from ? (int32_t)a->window : 0;
    }
    for (int32_t l = 0; l < a->layers && a->encoder_layers; l++)
        at = place(a, c->dtype, &c->cross[l], pl_cuda_round(o->max_source, PL_CUDA_KEYS), at);
    if (!a->causal) { /* nothing stays: it is workspace */
        c->other_bytes += c->kv_bytes;
        c->kv_bytes = 0;
    }
    return PL_OK;
}

/* The bias of every distance: key j for the query at place i is at padded + j − i. */
static enum pl_status make_relative(struct pl_cache *c, struct pl_err *err)
{
    const struct pl_arch *a = &c->network->arch;
    size_t span = 2 * c->padded, heads = (size_t)a->heads, bytes = heads * span * sizeof(float);
    float *table = malloc(bytes);
    enum pl_status st;
    void *p = NULL;

    if (!table)
        return pl_fail(err, PL_ENOMEM, "no memory for a session");
    for (size_t i = 0; i < span; i++) {
        size_t b = (size_t)pl_relative_bucket(a, (int64_t)i - (int64_t)c->padded);
        for (size_t h = 0; h < heads; h++)
            table[h * span + i] = c->network->relative[b * heads + h];
    }
    st = pl_cuda_alloc(&p, bytes, "relative positions", err);
    if (!st)
        st = pl_cuda_check(cudaMemcpy(p, table, bytes, cudaMemcpyHostToDevice),
                           "relative positions", err);
    c->relative = p;
    c->other_bytes += (int64_t)bytes;
    free(table);
    return st;
}

static enum pl_status allocate(struct pl_cache *c, const struct pl_cache_opts *o,
                               struct pl_err *err)
{
    const struct pl_arch *a = &c->network->arch;
    size_t hidden = (size_t)a->hidden;
    enum pl_status st = allocate_kv(c, o, err);
    void *p;

    c->taps = calloc(o->n_taps + 1, sizeof(*c->taps));
    c->tap_layers = calloc(o->n_taps + 1, sizeof(*c->tap_layers));
    if (!st && (!c->taps || !c->tap_layers))
        st = pl_fail(err, PL_ENOMEM, "no memory for a session");
    for (size_t i = 0; i < o->n_taps && !st; i++) {
        c->tap_layers[i] = o->taps[i];
        c->n_taps++;
        st = matrix(c, &c->taps[i], c->max_tokens, hidden, err);
    }
    if (!st && (o->stage || !a->causal))
        st = matrix(c, &c->stage, c->max_tokens, hidden, err);
    if (!st && !a->causal) {
        st = pl_cuda_alloc(&p, c->padded * sizeof(float), "a mask", err);
        if (!st) {
            c->mask = p;
            c->other_bytes += (int64_t)(c->padded * sizeof(float));
        }
    }
    if (!st && a->pos == PL_POS_RELATIVE)
        st = make_relative(c, err);
    if (!st && o->attn_sums)
        st = matrix(c, &c->sums, (size_t)a->heads, c->padded, err);
    return st;
}

enum pl_status pl_cuda_cache_create(struct pl_network *n, const struct pl_cache_opts *o,
                                    struct pl_cache **out, struct pl_err *err)
{
    struct pl_cache *c;
    enum pl_status st;

    if (o->kv_dtype != PL_DT_F32 && o->kv_dtype != PL_DT_F16 && o->kv_dtype != PL_DT_BF16)
        return pl_fail(err, PL_EUNSUPPORTED, "a KV cache of type %s cannot be run (f32, f16, bf16)",
                       pl_dtype_traits(o->kv_dtype)->name);
    c = calloc(1, sizeof(*c));
    if (!c)
        return pl_fail(err, PL_ENOMEM, "no memory for a session");
    c->network = n;
    c->dtype = o->kv_dtype;
    c->max_tokens = o->max_tokens;
    c->padded = padded_tokens(o);
    st = pl_cuda_work_reserve(n, forward_rows(&n->arch, o), err);
    if (!st)
        st = allocate(c, o, err);
    if (!st && n->encoder) {
        struct pl_cache_opts so = source_opts(o);
        st = pl_cuda_cache_create(n->encoder, &so, &c->source, err);
    }
    if (!st && c->source) /* the source's rows pass through this workspace for K and V */
        st = pl_cuda_work_reserve(n, o->max_source, err);
    if (!st)
        st = pl_cuda_check(cudaDeviceSynchronize(), "a session", err);
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
    for (size_t i = 0; i < c->n_taps; i++)
        cudaFree(c->taps[i].data);
    cudaFree(c->stage.data);
    cudaFree(c->sums.data);
    cudaFree(c->relative);
    cudaFree(c->mask);
    cudaFree(c->block);
    free(c->taps);
    free(c->tap_layers);
    free(c->written);
    free(c->cross);
    free(c->kv);
    free(c);
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

size_t pl_cuda_cache_len(const struct pl_cache *c, int32_t layer)
{
    const struct pl_cuda_kv *kv = &c->kv[layer];
    int32_t rows = kv->len - kv->first;

    return (size_t)(kv->window && rows > kv->window ? kv->window : rows);
}

void pl_cuda_cache_reset(struct pl_cache *c)
{
    for (int32_t l = 0; l < c->network->arch.layers; l++) {
        struct pl_cuda_kv *kv = &c->kv[l];
        kv->first = kv->len = kv->next_position = 0;
        c->written[l] = 0;
        c->cross[l].len = 0;
    }
    if (c->source)
        pl_cuda_cache_reset(c->source);
}

size_t pl_cuda_cache_can_drop(const struct pl_cache *c)
{
    size_t least = SIZE_MAX;

    for (int32_t l = 0; l < c->network->arch.layers; l++) {
        const struct pl_cuda_kv *kv = &c->kv[l];
        size_t cap = (size_t)kv->cap, len = (size_t)kv->len;
        if (c->written[l] <= cap)
            continue;
        size_t stays = c->written[l] - cap + (size_t)kv->window - 1; /* rows that must be left */
        size_t n = len > stays ? len - stays : 0;
        least = n < least ? n : least;
    }
    return least;
}

void pl_cuda_cache_drop(struct pl_cache *c, size_t n)
{
    for (int32_t l = 0; l < c->network->arch.layers; l++) {
        c->kv[l].len -= (int32_t)n;
        c->kv[l].next_position -= (int32_t)n;
    }
}

void pl_cuda_cache_keep(struct pl_cache *c, int32_t layer, const int32_t *idx, size_t n)
{
    const struct pl_arch *a = &c->network->arch;
    struct pl_device *d = c->network->device;
    struct pl_cuda_kv *kv = &c->kv[layer];
    size_t base = (size_t)kv->len - pl_cuda_cache_len(c, layer);
    size_t list = pl_cuda_round((size_t)a->kv_heads * n * sizeof(*idx), 256);
    size_t half = half_bytes(a, c->dtype, n);
    char *room;

    /* the call cannot fail: without room the sequence is emptied, which the next step refuses */
    kv->first = (int32_t)base;
    kv->len = (int32_t)base;
    if (pl_cuda_scratch(d, list + 2 * half, NULL))
        return;
    room = d->scratch;
    if (cudaMemcpyAsync(room, idx, (size_t)a->kv_heads * n * sizeof(*idx), cudaMemcpyHostToDevice,
                        d->stream))
        return;
    pl_k_kv_keep(kv, a->kv_heads, a->head_dim, c->dtype, (int)base, (const int32_t *)(void *)room,
                 (int)n, room + list, room + list + half, d->stream);
    if (!pl_cuda_sync(d, "keep", NULL))
        kv->len = (int32_t)(base + n);
}

struct pl_tensor *pl_cuda_cache_stage(struct pl_cache *c)
{
    return c->stage.data ? &c->stage : NULL;
}

const struct pl_tensor *pl_cuda_cache_encoded(const struct pl_cache *c)
{
    return c->source ? &c->source->stage : c->network->arch.causal ? NULL : &c->stage;
}

const struct pl_tensor *pl_cuda_cache_sums(const struct pl_cache *c)
{
    return c->sums.data ? &c->sums : NULL;
}

void pl_cuda_cache_sums_clear(struct pl_cache *c)
{
    if (c->sums.data)
        (void)!cudaMemsetAsync(c->sums.data, 0, c->sums.rows * c->sums.cols * sizeof(float),
                               c->network->device->stream);
}

const struct pl_tensor *pl_cuda_cache_tap(const struct pl_cache *c, size_t tap)
{
    return &c->taps[tap];
}

int64_t pl_cuda_cache_kv_read(const struct pl_cache *c)
{
    return c->kv_read;
}
