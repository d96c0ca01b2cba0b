#include "model/cpu/cpu.h"

#include "model/positions.h"

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

/* A layer with a window is a ring that holds the window and the rows of one forward. */
static size_t layer_cap(const struct pl_arch *a, const struct pl_cache_opts *o, int32_t layer)
{
    size_t all = pl_round_up(o->max_tokens, PL_ATTN_CHUNK), ring = all;

    if (a->window && layer >= a->window_from && !o->whole_kv && (size_t)a->window < all)
        ring = pl_round_up((size_t)a->window + PL_CPU_CHUNK, PL_ATTN_CHUNK);
    return ring < all ? ring : all;
}

/* Layers that have K and V of their own. */
static int32_t kv_layers(const struct pl_arch *a)
{
    return a->causal ? a->layers : 1;
}

static size_t kv_bytes(const struct pl_arch *a, const struct pl_cache_opts *o)
{
    size_t sum = 0, k, v;

    for (int32_t l = 0; l < kv_layers(a); l++) {
        layer_bytes(a, o->kv_dtype, layer_cap(a, o, l), &k, &v);
        sum += k + v;
    }
    if (a->encoder_layers) {
        layer_bytes(a, o->kv_dtype, pl_round_up(o->max_source, PL_ATTN_CHUNK), &k, &v);
        sum += (size_t)a->layers * (k + v);
    }
    return sum;
}

static size_t relative_floats(const struct pl_arch *a, size_t padded)
{
    return (size_t)a->heads * (2 * padded + PL_ATTN_CHUNK);
}

/* An encoder's cache in an encoder–decoder's. */
static struct pl_cache_opts source_opts(const struct pl_cache_opts *o)
{
    return (struct pl_cache_opts){.kv_dtype = o->kv_dtype, .max_tokens = o->max_source};
}

struct pl_cache_bytes pl_cpu_cache_need(const struct pl_arch *a, const struct pl_cache_opts *o)
{
    size_t padded = pl_round_up(o->max_tokens, PL_ATTN_CHUNK);
    int64_t row = (int64_t)a->hidden * 4, all = (int64_t)kv_bytes(a, o);
    struct pl_cache_bytes b = {.kv = a->causal ? all : 0,
                               .workspace = pl_cpu_work_bytes(a),
                               .shared = pl_cpu_work_bytes(a)};

    b.workspace += a->causal ? 0 : all + (int64_t)padded * 4 + (int64_t)o->max_tokens * 4;
    b.workspace += (int64_t)o->n_taps * (int64_t)o->max_tokens * row;
    b.workspace += o->stage || !a->causal ? (int64_t)o->max_tokens * row : 0;
    b.workspace += o->attn_sums ? (int64_t)a->heads * (int64_t)padded * 4 : 0;
    b.workspace += a->pos == PL_POS_RELATIVE ? (int64_t)relative_floats(a, padded) * 4 : 0;
    if (a->encoder_layers) {
        struct pl_arch e = pl_arch_encoder(a);
        struct pl_cache_opts so = source_opts(o);
        b.workspace += pl_cpu_cache_need(&e, &so).workspace - pl_cpu_work_bytes(&e);
    }
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

static char *place_kv(const struct pl_arch *a, enum pl_dtype dt, struct pl_cpu_kv *kv, size_t cap,
                      char *at)
{
    size_t k, v;

    layer_bytes(a, dt, cap, &k, &v);
    kv->cap = cap;
    kv->k = at;
    kv->v = at + k;
    return at + k + v;
}

static bool allocate_kv(struct pl_cache *c, const struct pl_cache_opts *o)
{
    const struct pl_arch *a = &c->network->arch;
    size_t layers = (size_t)a->layers;
    char *at;

    c->kv_bytes = (int64_t)kv_bytes(a, o);
    c->kv = calloc(layers, sizeof(*c->kv));
    c->cross = calloc(layers, sizeof(*c->cross));
    c->block = pl_cpu_alloc((size_t)c->kv_bytes, 1);
    if (!c->kv || !c->cross || !c->block)
        return false;
    at = c->block;
    for (int32_t l = 0; l < a->layers; l++) {
        if (l < kv_layers(a))
            at = place_kv(a, c->dtype, &c->kv[l], layer_cap(a, o, l), at);
        else
            c->kv[l] = c->kv[0];
        c->kv[l].window = a->window && l >= a->window_from ? (size_t)a->window : 0;
    }
    for (int32_t l = 0; l < a->layers && a->encoder_layers; l++)
        at = place_kv(a, c->dtype, &c->cross[l], pl_round_up(o->max_source, PL_ATTN_CHUNK), at);
    if (!a->causal) { /* nothing stays: it is workspace */
        c->other_bytes += c->kv_bytes;
        c->kv_bytes = 0;
    }
    return true;
}

/* The bias of every distance, laid out so that a query's keys lie side by side. */
static bool make_relative(struct pl_cache *c)
{
    const struct pl_arch *a = &c->network->arch;
    size_t span = 2 * c->padded + PL_ATTN_CHUNK, heads = (size_t)a->heads;

    c->relative = pl_cpu_alloc(relative_floats(a, c->padded), sizeof(float));
    if (!c->relative)
        return false;
    c->other_bytes += (int64_t)(relative_floats(a, c->padded) * sizeof(float));
    for (size_t i = 0; i < span; i++) {
        size_t b = (size_t)pl_relative_bucket(a, (int64_t)i - (int64_t)c->padded);
        for (size_t h = 0; h < heads; h++)
            c->relative[h * span + i] = c->network->relative[b * heads + h];
    }
    return true;
}

static bool allocate(struct pl_cache *c, const struct pl_cache_opts *o)
{
    const struct pl_arch *a = &c->network->arch;
    size_t hidden = (size_t)a->hidden;

    c->taps = calloc(o->n_taps + 1, sizeof(*c->taps));
    c->tap_layers = calloc(o->n_taps + 1, sizeof(*c->tap_layers));
    if (!c->taps || !c->tap_layers || !allocate_kv(c, o))
        return false;
    for (size_t i = 0; i < o->n_taps; i++) {
        c->tap_layers[i] = o->taps[i];
        c->n_taps++;
        if (!matrix(c, &c->taps[i], c->max_tokens, hidden))
            return false;
    }
    if ((o->stage || !a->causal) && !matrix(c, &c->stage, c->max_tokens, hidden))
        return false;
    if (!a->causal) {
        c->mask = pl_cpu_alloc(c->padded, sizeof(float));
        c->positions = pl_cpu_alloc(c->max_tokens, sizeof(int32_t));
        c->other_bytes += (int64_t)(c->padded * sizeof(float) + c->max_tokens * sizeof(int32_t));
        if (!c->mask || !c->positions)
            return false;
    }
    if (a->pos == PL_POS_RELATIVE && !make_relative(c))
        return false;
    return !o->attn_sums || matrix(c, &c->sums, (size_t)a->heads, c->padded);
}

enum pl_status pl_cpu_cache_create(struct pl_network *n, const struct pl_cache_opts *o,
                                   struct pl_cache **out, struct pl_err *err)
{
    enum pl_status st = PL_OK;
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
    if (!allocate(c, o))
        st = pl_fail(err, PL_ENOMEM, "no memory for a session of %zu tokens (KV cache %lld bytes)",
                     o->max_tokens, (long long)pl_cpu_cache_need(&n->arch, o).kv);
    if (!st && o->attn_sums)
        st = pl_cpu_scratch(n->device, PL_GEMM_SCRATCH + c->padded, err);
    if (!st && n->encoder) {
        struct pl_cache_opts so = source_opts(o);
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
    if (!c)
        return;
    pl_cpu_cache_free(c->source);
    for (size_t i = 0; i < c->n_taps; i++)
        free(c->taps[i].data);
    free(c->stage.data);
    free(c->sums.data);
    free(c->taps);
    free(c->tap_layers);
    free(c->relative);
    free(c->mask);
    free(c->positions);
    free(c->block);
    free(c->cross);
    free(c->kv);
    free(c);
}

struct pl_cache_bytes pl_cpu_cache_bytes(const struct pl_cache *c)
{
    return (struct pl_cache_bytes){.kv = c->kv_bytes,
                                   .workspace = c->other_bytes + c->network->work_bytes,
                                   .shared = c->network->work_bytes};
}

size_t pl_cpu_cache_len(const struct pl_cache *c, int32_t layer)
{
    const struct pl_cpu_kv *kv = &c->kv[layer];
    size_t rows = kv->len - kv->first;

    return kv->window && rows > kv->window ? kv->window : rows;
}

void pl_cpu_cache_reset(struct pl_cache *c)
{
    for (int32_t l = 0; l < c->network->arch.layers; l++) {
        struct pl_cpu_kv *kv = &c->kv[l];
        kv->first = kv->len = kv->written = 0;
        kv->next_position = 0;
        c->cross[l].len = 0;
    }
    if (c->source)
        pl_cpu_cache_reset(c->source);
}

size_t pl_cpu_cache_can_drop(const struct pl_cache *c)
{
    size_t least = SIZE_MAX;

    for (int32_t l = 0; l < c->network->arch.layers; l++) {
        const struct pl_cpu_kv *kv = &c->kv[l];
        if (kv->written <= kv->cap)
            continue;
        size_t stays = kv->written - kv->cap + kv->window - 1; /* rows that must be left */
        size_t n = kv->len > stays ? kv->len - stays : 0;
        least = n < least ? n : least;
    }
    return least;
}

void pl_cpu_cache_drop(struct pl_cache *c, size_t n)
{
    for (int32_t l = 0; l < c->network->arch.layers; l++) {
        c->kv[l].len -= n;
        c->kv[l].next_position -= (int64_t)n;
    }
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
    size_t base = kv->len - pl_cpu_cache_len(c, layer);

    for (size_t h = 0; h < (size_t)a->kv_heads; h++) {
        size_t k = pl_cpu_k_head(a, kv->cap, h), v = pl_cpu_v_head(a, kv->cap, h);
        for (size_t i = 0; i < n; i++) {
            size_t from = (base + (size_t)idx[h * n + i]) % kv->cap, to = (base + i) % kv->cap;
            for (size_t d = 0; d < dim && from != to; d++) {
                move(kv->k, bytes, k + pl_cpu_k_at(dim, to, d), k + pl_cpu_k_at(dim, from, d));
                move(kv->v, bytes, v + pl_cpu_v_at(dim, to, d), v + pl_cpu_v_at(dim, from, d));
            }
        }
    }
    kv->first = base;
    kv->len = base + n;
}

struct pl_tensor *pl_cpu_cache_stage(struct pl_cache *c)
{
    return c->stage.data ? &c->stage : NULL;
}

const struct pl_tensor *pl_cpu_cache_encoded(const struct pl_cache *c)
{
    return c->source ? &c->source->stage : c->network->arch.causal ? NULL : &c->stage;
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
