#include "model/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

static size_t k_head_elements(const struct pl_arch *a, size_t padded)
{
    return padded * (size_t)a->head_dim;
}

static size_t v_head_elements(const struct pl_arch *a, size_t padded)
{
    return padded * pl_round_up((size_t)a->head_dim, PL_PANEL);
}

size_t pl_cpu_k_head(const struct pl_cache *c, size_t head)
{
    return head * k_head_elements(&c->network->arch, c->padded);
}

size_t pl_cpu_v_head(const struct pl_cache *c, size_t head)
{
    return head * v_head_elements(&c->network->arch, c->padded);
}

/* K and V of one layer, each rounded to 64 bytes. */
static void layer_bytes(const struct pl_arch *a, enum pl_dtype dt, size_t padded, size_t *k,
                        size_t *v)
{
    size_t heads = (size_t)a->kv_heads, bytes = pl_cpu_dtype_bytes(dt);

    *k = pl_round_up(heads * k_head_elements(a, padded) * bytes, 64);
    *v = pl_round_up(heads * v_head_elements(a, padded) * bytes, 64);
}

struct pl_cache_bytes pl_cpu_cache_need(const struct pl_arch *a, const struct pl_cache_opts *o)
{
    size_t padded = pl_round_up(o->max_tokens, PL_ATTN_CHUNK), k, v;
    int64_t row = (int64_t)a->hidden * 4;
    struct pl_cache_bytes b;

    layer_bytes(a, o->kv_dtype, padded, &k, &v);
    b.kv = (int64_t)(k + v) * a->layers;
    b.workspace = pl_cpu_work_bytes(a);
    b.workspace += (int64_t)o->n_taps * (int64_t)o->max_tokens * row;
    b.workspace += o->stage ? (int64_t)o->max_tokens * row : 0;
    b.workspace += o->attn_sums ? (int64_t)a->heads * (int64_t)padded * 4 : 0;
    return b;
}

static bool matrix(struct pl_cache *c, struct pl_tensor *t, size_t rows, size_t cols)
{
    t->device = c->network->device;
    t->rows = rows;
    t->cols = cols;
    t->data = pl_cpu_alloc(rows * cols, sizeof(float));
    c->other_bytes += (int64_t)(rows * cols * sizeof(float));
    return t->data != NULL;
}

static bool allocate(struct pl_cache *c, const struct pl_cache_opts *o)
{
    const struct pl_arch *a = &c->network->arch;
    size_t hidden = (size_t)a->hidden, layers = (size_t)a->layers, k, v;

    layer_bytes(a, c->dtype, c->padded, &k, &v);
    c->kv_bytes = (int64_t)(k + v) * a->layers;
    c->kv = calloc(layers, sizeof(*c->kv));
    c->taps = calloc(o->n_taps + 1, sizeof(*c->taps));
    c->tap_layers = calloc(o->n_taps + 1, sizeof(*c->tap_layers));
    c->block = pl_cpu_alloc(layers, k + v);
    if (!c->kv || !c->taps || !c->tap_layers || !c->block)
        return false;
    for (size_t l = 0; l < layers; l++) {
        c->kv[l].k = (char *)c->block + l * (k + v);
        c->kv[l].v = (char *)c->block + l * (k + v) + k;
    }
    for (size_t i = 0; i < o->n_taps; i++) {
        c->tap_layers[i] = o->taps[i];
        c->n_taps++;
        if (!matrix(c, &c->taps[i], c->max_tokens, hidden))
            return false;
    }
    if (o->stage && !matrix(c, &c->stage, c->max_tokens, hidden))
        return false;
    return !o->attn_sums || matrix(c, &c->sums, (size_t)a->heads, c->padded);
}

enum pl_status pl_cpu_cache_create(struct pl_network *n, const struct pl_cache_opts *o,
                                   struct pl_cache **out, struct pl_err *err)
{
    struct pl_cache *c;

    if (o->kv_dtype != PL_DT_F32 && o->kv_dtype != PL_DT_F16 && o->kv_dtype != PL_DT_BF16)
        return pl_fail(err, PL_EUNSUPPORTED, "a KV cache of type %s cannot be run (f32, f16, bf16)",
                       pl_dtype_traits(o->kv_dtype)->name);
    c = calloc(1, sizeof(*c));
    if (!c)
        return pl_fail(err, PL_ENOMEM, "no memory for a session");
    c->network = n;
    c->dtype = o->kv_dtype;
    c->max_tokens = o->max_tokens;
    c->padded = pl_round_up(o->max_tokens, PL_ATTN_CHUNK);
    if (!allocate(c, o)) {
        pl_cpu_cache_free(c);
        return pl_fail(err, PL_ENOMEM,
                       "no memory for a session of %zu tokens (KV cache %lld bytes)", o->max_tokens,
                       (long long)pl_cpu_cache_need(&n->arch, o).kv);
    }
    if (o->attn_sums && pl_cpu_scratch(n->device, PL_GEMM_SCRATCH + c->padded, err)) {
        pl_cpu_cache_free(c);
        return PL_ENOMEM;
    }
    *out = c;
    return PL_OK;
}

void pl_cpu_cache_free(struct pl_cache *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n_taps; i++)
        free(c->taps[i].data);
    free(c->stage.data);
    free(c->sums.data);
    free(c->taps);
    free(c->tap_layers);
    free(c->block);
    free(c->kv);
    free(c);
}

struct pl_cache_bytes pl_cpu_cache_bytes(const struct pl_cache *c)
{
    return (struct pl_cache_bytes){.kv = c->kv_bytes,
                                   .workspace = c->other_bytes + c->network->work_bytes};
}

size_t pl_cpu_cache_len(const struct pl_cache *c, int32_t layer)
{
    return c->kv[layer].len;
}

void pl_cpu_cache_set(struct pl_cache *c, int32_t layer, size_t len, int64_t next_position)
{
    c->kv[layer].len = len;
    c->kv[layer].next_position = next_position;
}

int64_t pl_cpu_cache_position(const struct pl_cache *c, int32_t layer)
{
    return c->kv[layer].next_position;
}

static void move(void *base, size_t bytes, size_t to, size_t from)
{
    char *p = base;

    memmove(p + to * bytes, p + from * bytes, bytes);
}

void pl_cpu_cache_keep(struct pl_cache *c, int32_t layer, const int32_t *idx, size_t n)
{
    const struct pl_arch *a = &c->network->arch;
    size_t dim = (size_t)a->head_dim, bytes = pl_cpu_dtype_bytes(c->dtype);
    struct pl_cpu_kv *kv = &c->kv[layer];

    for (size_t h = 0; h < (size_t)a->kv_heads; h++) {
        for (size_t i = 0; i < n; i++) {
            size_t from = (size_t)idx[h * n + i], k = pl_cpu_k_head(c, h), v = pl_cpu_v_head(c, h);
            for (size_t d = 0; d < dim && from != i; d++) {
                move(kv->k, bytes, k + pl_cpu_k_at(dim, i, d), k + pl_cpu_k_at(dim, from, d));
                move(kv->v, bytes, v + pl_cpu_v_at(dim, i, d), v + pl_cpu_v_at(dim, from, d));
            }
        }
    }
    kv->len = n;
}

struct pl_tensor *pl_cpu_cache_stage(struct pl_cache *c)
{
    return c->stage.data ? &c->stage : NULL;
}

const struct pl_tensor *pl_cpu_cache_sums(const struct pl_cache *c)
{
    return c->sums.data ? &c->sums : NULL;
}

void pl_cpu_cache_sums_clear(struct pl_cache *c)
{
    if (c->sums.data)
        memset(c->sums.data, 0, c->sums.rows * c->sums.cols * sizeof(float));
}

const struct pl_tensor *pl_cpu_cache_tap(const struct pl_cache *c, size_t tap)
{
    return &c->taps[tap];
}

int64_t pl_cpu_cache_kv_read(const struct pl_cache *c)
{
    return c->kv_read;
}
