#include "model/cpu/cpu.h"

#include "model/cpu/steps.h"

#include <stdlib.h>
#include <string.h>

static size_t k_head_elements(const struct pl_arch *a, size_t cap)
{
    return cap * (size_t)a->head_dim;
}

static size_t v_head_elements(const struct pl_arch *a, size_t cap)
{
    return cap * pl_round_up((size_t)a->head_dim, PL_PANEL);
}

size_t pl_cpu_k_head(const struct pl_arch *a, size_t cap, size_t head)
{
    return head * k_head_elements(a, cap);
}

size_t pl_cpu_v_head(const struct pl_arch *a, size_t cap, size_t head)
{
    return head * v_head_elements(a, cap);
}

/* K and V of one layer of `cap` places, each rounded to 64 bytes. */
static void layer_bytes(const struct pl_arch *a, enum pl_dtype dt, size_t cap, size_t *k, size_t *v)
{
    size_t heads = (size_t)a->kv_heads, bytes = pl_cpu_dtype_bytes(dt);

    *k = pl_round_up(heads * k_head_elements(a, cap) * bytes, 64);
    *v = pl_round_up(heads * v_head_elements(a, cap) * bytes, 64);
}

static enum pl_status alloc(void **out, size_t bytes, struct pl_err *err)
{
    *out = pl_cpu_alloc(bytes, 1);
    return *out ? PL_OK : pl_fail(err, PL_ENOMEM, "no memory for %zu bytes", bytes);
}

static const struct pl_cache_memory memory = {.chunk = PL_CPU_CHUNK,
                                              .keys = PL_ATTN_CHUNK,
                                              .layer_bytes = layer_bytes,
                                              .alloc = alloc,
                                              .free = free};

static size_t relative_floats(const struct pl_arch *a, size_t padded)
{
    return (size_t)a->heads * (2 * padded + PL_ATTN_CHUNK);
}

/* Of an encoder: where its rows' positions stand. */
static int64_t position_bytes(const struct pl_arch *a, size_t max_tokens)
{
    return a->causal ? 0 : (int64_t)(max_tokens * sizeof(int32_t));
}

struct pl_cache_bytes pl_cpu_cache_need(const struct pl_arch *a, const struct pl_cache_opts *o)
{
    size_t padded = pl_round_up(o->max_tokens, PL_ATTN_CHUNK);
    int64_t all = pl_cache_kv_bytes(&memory, a, o);
    struct pl_cache_bytes b = {.kv = a->causal ? all : 0,
                               .workspace = pl_cpu_work_bytes(a),
                               .shared = pl_cpu_work_bytes(a)};

    b.workspace += (a->causal ? 0 : all) + position_bytes(a, o->max_tokens);
    b.workspace += pl_cache_side_bytes(&memory, a, o);
    b.workspace += a->pos == PL_POS_RELATIVE ? (int64_t)relative_floats(a, padded) * 4 : 0;
    if (a->encoder_layers) {
        struct pl_arch e = pl_arch_encoder(a);
        struct pl_cache_opts so = pl_cache_source_opts(o);
        b.workspace += pl_cpu_cache_need(&e, &so).workspace - pl_cpu_work_bytes(&e);
    }
    return b;
}

/* The bias of every distance, laid out so that a query's keys lie side by side. */
static enum pl_status make_relative(struct pl_cache *c, struct pl_err *err)
{
    size_t n = relative_floats(c->arch, c->padded);

    c->relative = pl_cpu_alloc(n, sizeof(float));
    if (!c->relative)
        return pl_fail(err, PL_ENOMEM, "no memory for relative positions");
    c->other_bytes += (int64_t)(n * sizeof(float));
    pl_cache_relative(c, c->network->relative, 2 * c->padded + PL_ATTN_CHUNK, c->relative);
    return PL_OK;
}

enum pl_status pl_cpu_cache_create(struct pl_network *n, const struct pl_cache_opts *o,
                                   struct pl_cache **out, struct pl_err *err)
{
    struct pl_cache *c = NULL;
    enum pl_status st;

    st = pl_cache_create(&memory, n, &n->arch, n->device, o, &c, err);
    if (!st)
        c->other_bytes += position_bytes(&n->arch, o->max_tokens);
    if (!st && n->arch.pos == PL_POS_RELATIVE)
        st = make_relative(c, err);
    if (!st && o->attn_sums)
        st = pl_cpu_scratch(n->device, PL_GEMM_SCRATCH + c->padded, err);
    if (!st && n->arch.causal)
        st = pl_cpu_scratch(n->device, pl_cpu_tree_scratch(&n->arch, o->max_rows), err);
    if (!st && n->encoder) {
        struct pl_cache_opts so = pl_cache_source_opts(o);
        st = pl_cpu_cache_create(n->encoder, &so, &c->source, err);
    }
    if (st) {
        pl_cpu_cache_free(c);
        return st;
    }
    if (c->source)
        c->other_bytes += c->source->other_bytes;
    *out = c;
    return PL_OK;
}

void pl_cpu_cache_free(struct pl_cache *c)
{
    if (c)
        pl_cpu_cache_free(c->source);
    pl_cache_free(&memory, c);
}

struct pl_cache_bytes pl_cpu_cache_bytes(const struct pl_cache *c)
{
    return (struct pl_cache_bytes){.kv = c->kv_bytes,
                                   .workspace = c->other_bytes + c->network->work_bytes,
                                   .shared = c->network->work_bytes};
}

static void move(void *base, size_t bytes, size_t to, size_t from)
{
    char *p = base;

    memmove(p + to * bytes, p + from * bytes, bytes);
}

/* Rows base + idx[i] (ascending) of one head's KV to base + i. */
static void compact(const struct pl_cache *c, const struct pl_kv *kv, size_t head, size_t base,
                    const int32_t *idx, size_t n)
{
    const struct pl_arch *a = c->arch;
    size_t dim = (size_t)a->head_dim, bytes = pl_cpu_dtype_bytes(c->dtype);
    size_t k = pl_cpu_k_head(a, kv->cap, head), v = pl_cpu_v_head(a, kv->cap, head);

    for (size_t i = 0; i < n; i++) {
        size_t from = (base + (size_t)idx[i]) % kv->cap, to = (base + i) % kv->cap;
        for (size_t d = 0; d < dim && from != to; d++) {
            move(kv->k, bytes, k + pl_cpu_k_at(dim, to, d), k + pl_cpu_k_at(dim, from, d));
            move(kv->v, bytes, v + pl_cpu_v_at(dim, to, d), v + pl_cpu_v_at(dim, from, d));
        }
    }
}

void pl_cpu_cache_keep(struct pl_cache *c, int32_t layer, const int32_t *idx, size_t n)
{
    struct pl_kv *kv = &c->kv[layer];
    size_t base = kv->len - pl_cache_len(c, layer);

    for (size_t h = 0; h < (size_t)c->arch->kv_heads; h++)
        compact(c, kv, h, base, idx + h * n, n);
    kv->first = base;
    kv->len = base + n;
}

enum pl_status pl_cpu_cache_keep_path(struct pl_cache *c, size_t rows, const int32_t *idx, size_t n,
                                      struct pl_err *err)
{
    (void)err;
    for (int32_t l = 0; l < c->arch->layers; l++) {
        struct pl_kv *kv = &c->kv[l];
        for (size_t h = 0; h < (size_t)c->arch->kv_heads; h++)
            compact(c, kv, h, kv->len - rows, idx, n);
    }
    pl_cache_drop(c, rows - n);
    return PL_OK;
}

void pl_cpu_cache_sums_clear(struct pl_cache *c)
{
    if (c->sums.data)
        memset(c->sums.data, 0, c->sums.rows * c->sums.cols * sizeof(float));
}
