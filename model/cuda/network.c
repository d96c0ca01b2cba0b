#include "model/cuda/cuda.h"

#include "model/positions.h"
#include "model/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SOURCE(field) offsetof(struct pl_layer_sources, field)

/* Where each matrix of a layer and its bias come from; NO: no such bias. */
#define NO SIZE_MAX
static const struct {
    size_t w, bias;
} matrices[PL_W_COUNT] = {
    [PL_W_Q] = {SOURCE(q), SOURCE(q_bias)},          [PL_W_K] = {SOURCE(k), SOURCE(k_bias)},
    [PL_W_V] = {SOURCE(v), SOURCE(v_bias)},          [PL_W_O] = {SOURCE(o), SOURCE(o_bias)},
    [PL_W_GATE] = {SOURCE(gate), SOURCE(gate_bias)}, [PL_W_UP] = {SOURCE(up), SOURCE(up_bias)},
    [PL_W_DOWN] = {SOURCE(down), SOURCE(down_bias)}, [PL_W_CROSS_Q] = {SOURCE(cross_q), NO},
    [PL_W_CROSS_K] = {SOURCE(cross_k), NO},          [PL_W_CROSS_V] = {SOURCE(cross_v), NO},
    [PL_W_CROSS_O] = {SOURCE(cross_o), NO},
};
static const size_t vectors[PL_V_COUNT] = {
    [PL_V_ATTN] = SOURCE(attn_norm),   [PL_V_ATTN_BIAS] = SOURCE(attn_norm_bias),
    [PL_V_FFN] = SOURCE(ffn_norm),     [PL_V_FFN_BIAS] = SOURCE(ffn_norm_bias),
    [PL_V_Q] = SOURCE(q_norm),         [PL_V_K] = SOURCE(k_norm),
    [PL_V_CROSS] = SOURCE(cross_norm),
};

static const struct pl_weight_source *source_at(const struct pl_layer_sources *s, size_t offset)
{
    return (const struct pl_weight_source *)(const void *)((const char *)s + offset);
}

/* The vectors around the blocks. */
struct outer {
    const struct pl_weight_source *src;
    float **to;
};
#define OUTER 8
static void outer_vectors(const struct pl_model_sources *s, struct pl_network *n, struct outer *out)
{
    const struct outer list[OUTER] = {
        {&s->final_norm, &n->final_gain},
        {&s->final_norm_bias, &n->final_bias},
        {&s->embed_norm, &n->embed_gain},
        {&s->embed_norm_bias, &n->embed_bias},
        {&s->positions, &n->positions},
        {&s->types, &n->types},
        {&s->cls, &n->cls},
        {&s->pooler_bias, &n->pooler.bias},
    };
    memcpy(out, list, sizeof(list));
}

int64_t pl_cuda_network_need(const struct pl_arch *a, const struct pl_model_sources *src,
                             enum pl_dtype dt)
{
    struct pl_network none;
    struct outer outer[OUTER];
    int64_t sum = a->head ? pl_cuda_matrix_bytes(pl_sources_head(src), dt) : 0;

    outer_vectors(src, &none, outer);
    for (int j = 0; j < OUTER; j++)
        sum += pl_weight_f32_bytes(outer[j].src);
    sum += pl_sources_own_embed(a, src) ? pl_cuda_matrix_bytes(&src->embed, dt) : 0;
    sum += pl_cuda_matrix_bytes(&src->patch, dt) + pl_cuda_matrix_bytes(&src->pooler, dt);
    for (int32_t i = 0; i < a->layers; i++) {
        const struct pl_layer_sources *s = &src->layers[i];
        for (int j = 0; j < PL_W_COUNT; j++) {
            sum += pl_cuda_matrix_bytes(source_at(s, matrices[j].w), dt);
            sum += matrices[j].bias == NO ? 0 : pl_weight_f32_bytes(source_at(s, matrices[j].bias));
        }
        for (int j = 0; j < PL_V_COUNT; j++)
            sum += pl_weight_f32_bytes(source_at(s, vectors[j]));
    }
    if (src->encoder) {
        struct pl_arch e = pl_arch_encoder(a);
        sum += pl_cuda_network_need(&e, src->encoder, dt);
    }
    return sum;
}

/* Loads a matrix, where there is one, and notes what GEMMs will have to decode. */
static enum pl_status load_matrix(struct pl_network *n, const struct pl_weight_source *src,
                                  enum pl_dtype dt, struct pl_cuda_matrix *to, struct pl_err *err)
{
    float *bias = to->bias;
    enum pl_status st;

    if (pl_weight_absent(src))
        return PL_OK;
    st = pl_cuda_matrix_load(n->device, src, dt, to, err);
    if (st)
        return st;
    to->bias = bias;
    if ((size_t)(to->out * to->in) > n->largest)
        n->largest = (size_t)(to->out * to->in);
    if (to->in > n->widest)
        n->widest = to->in;
    return PL_OK;
}

static enum pl_status load_layer(struct pl_network *n, const struct pl_layer_sources *src,
                                 struct pl_cuda_layer *l, enum pl_dtype dt, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    for (int j = 0; j < PL_W_COUNT && !st; j++) {
        st = load_matrix(n, source_at(src, matrices[j].w), dt, &l->w[j], err);
        if (!st && matrices[j].bias != NO)
            st = pl_cuda_vector_load(source_at(src, matrices[j].bias), false, &l->w[j].bias, err);
    }
    for (int j = 0; j < PL_V_COUNT && !st; j++)
        st = pl_cuda_vector_load(source_at(src, vectors[j]), false, &l->v[j], err);
    return st;
}

static enum pl_status load_outer(struct pl_network *n, const struct pl_model_sources *src,
                                 enum pl_dtype dt, struct pl_err *err)
{
    struct outer v[OUTER];
    enum pl_status st = PL_OK;

    outer_vectors(src, n, v);
    for (int j = 0; j < OUTER && !st; j++)
        st = pl_cuda_vector_load(v[j].src, false, v[j].to, err);
    if (!st)
        st = pl_cuda_vector_load(&src->relative, true, &n->relative, err);
    if (!st && pl_sources_own_embed(&n->arch, src))
        st = load_matrix(n, &src->embed, dt, &n->embed, err);
    if (!st && n->arch.head)
        st = load_matrix(n, pl_sources_head(src), dt, &n->head, err);
    if (!st)
        st = load_matrix(n, &src->patch, dt, &n->patch, err);
    if (!st)
        st = load_matrix(n, &src->pooler, dt, &n->pooler, err);
    return st;
}

static enum pl_status make_rope(struct pl_network *n, const struct pl_weight_source *factors,
                                struct pl_err *err)
{
    size_t half = (size_t)n->arch.head_dim / 2;
    enum pl_status st;
    float *by = NULL, *freq;
    void *p;

    if (n->arch.pos != PL_POS_ROPE)
        return PL_OK;
    freq = calloc(half, sizeof(*freq));
    st = freq ? pl_cuda_vector_load(factors, true, &by, err)
              : pl_fail(err, PL_ENOMEM, "no memory for the RoPE table");
    if (!st) {
        pl_rope_frequencies(&n->arch, by, freq);
        st = pl_cuda_alloc(&p, half * sizeof(*freq), "RoPE", err);
    }
    if (!st) {
        n->inv_freq = p;
        st = pl_cuda_check(cudaMemcpy(p, freq, half * sizeof(*freq), cudaMemcpyHostToDevice),
                           "RoPE", err);
    }
    free(by);
    free(freq);
    return st;
}

size_t pl_cuda_chunk(const struct pl_arch *a)
{
    size_t most = a->max_positions > 0 ? pl_round_up((size_t)a->max_positions, 256) : 256;

    return most < PL_CUDA_CHUNK ? most : PL_CUDA_CHUNK;
}

/* Parts of the workspace block, each rounded to 256 bytes. in, att, mid and the like count as f32,
 * whatever they will hold. */
struct parts {
    size_t x, q, k, v, gate, up, in, att, mid, lse, partial, ended, logits, all;
};

static size_t part(size_t *at, size_t rows, size_t cols)
{
    size_t from = *at;

    *at += pl_round_up(rows * cols * sizeof(float), 256);
    return from;
}

static struct parts lay_out(const struct pl_arch *a, size_t rows)
{
    size_t q = (size_t)a->heads * (size_t)a->head_dim, h = (size_t)a->hidden;
    size_t kv = (size_t)a->kv_heads * (size_t)a->head_dim, ffn = (size_t)a->ffn;
    size_t patch = (size_t)a->channels * (size_t)a->patch * (size_t)a->patch, at = 0;
    struct parts p = {.x = part(&at, rows, h),
                      .q = part(&at, rows, q),
                      .k = part(&at, rows, kv),
                      .v = part(&at, rows, kv),
                      .gate = part(&at, rows, ffn),
                      .up = part(&at, rows, ffn),
                      .in = part(&at, rows, h > patch ? h : patch),
                      .att = part(&at, rows, q),
                      .mid = part(&at, rows, ffn > patch ? ffn : patch),
                      .lse = part(&at, rows, (size_t)a->heads),
                      .partial = part(&at, PL_CUDA_PARTIALS, (size_t)a->head_dim + 2),
                      .ended = part(&at, PL_CUDA_PARTIALS, 1),
                      .logits = part(&at, a->head ? PL_CUDA_LOGIT_ROWS : 0, (size_t)a->vocab)};

    p.all = at;
    return p;
}

int64_t pl_cuda_work_bytes(const struct pl_arch *a, size_t rows)
{
    return (int64_t)lay_out(a, rows).all;
}

static size_t step_bytes(const struct pl_arch *a, size_t rows)
{
    return pl_cuda_step_head(rows) +
           (size_t)a->layers * 2 * PL_CUDA_SPANS * sizeof(struct pl_cuda_kv);
}

static void free_work(struct pl_cuda_work *w)
{
    cudaFree(w->block);
    cudaFree(w->decoded);
    cudaFree(w->step);
    cudaFreeHost(w->step_host);
    *w = (struct pl_cuda_work){0};
}

static void drop_graphs(struct pl_network *n)
{
    for (int i = 0; i < n->n_graphs && i < n->device->graphs; i++)
        cudaGraphExecDestroy(n->graphs[i].exec);
    n->n_graphs = 0;
}

enum pl_status pl_cuda_work_reserve(struct pl_network *n, size_t rows, struct pl_err *err)
{
    struct parts p = lay_out(&n->arch, rows);
    struct pl_cuda_work w = {.rows = rows, .step_bytes = step_bytes(&n->arch, rows)};
    size_t all = n->largest * (n->act == PL_DT_F32 ? 4 : 2);
    size_t decoded = all < PL_CUDA_DECODED ? all : PL_CUDA_DECODED;
    size_t packed = pl_k_packed_room(n->widest);
    enum pl_status st;
    char *at;

    if (rows <= n->work.rows)
        return PL_OK;
    st = pl_cuda_sync(n->device, "workspace", err);
    if (!st)
        st = pl_cuda_alloc(&w.block, p.all, "workspace", err);
    if (!st)
        st = pl_cuda_alloc(&w.decoded, decoded > packed ? decoded : packed, "workspace", err);
    if (!st)
        st = pl_cuda_alloc(&w.step, w.step_bytes, "workspace", err);
    if (!st)
        st = pl_cuda_alloc_host(&w.step_host, w.step_bytes, "workspace", err);
    if (st) {
        free_work(&w);
        return st;
    }
    at = w.block;
    w.x = (float *)(void *)(at + p.x);
    w.q = (float *)(void *)(at + p.q);
    w.k = (float *)(void *)(at + p.k);
    w.v = (float *)(void *)(at + p.v);
    w.gate = (float *)(void *)(at + p.gate);
    w.up = (float *)(void *)(at + p.up);
    w.in = at + p.in;
    w.att = at + p.att;
    w.mid = at + p.mid;
    w.lse = (float *)(void *)(at + p.lse);
    w.partial = (float *)(void *)(at + p.partial);
    w.ended = (unsigned *)(void *)(at + p.ended);
    w.stopped = true; /* nothing is known of new memory */
    w.logits = (float *)(void *)(at + p.logits);
    drop_graphs(n); /* they know the old memory */
    free_work(&n->work);
    n->work = w;
    return PL_OK;
}

enum pl_status pl_cuda_network_create(struct pl_device *d, const struct pl_arch *a,
                                      const struct pl_model_sources *src, enum pl_dtype dt,
                                      struct pl_network **out, struct pl_err *err)
{
    struct pl_network *n = calloc(1, sizeof(*n));
    enum pl_status st = PL_OK;

    if (!n)
        return pl_fail(err, PL_ENOMEM, "no memory for a model");
    n->device = d;
    n->arch = *a;
    n->layers = calloc((size_t)a->layers, sizeof(*n->layers));
    if (!n->layers)
        st = pl_fail(err, PL_ENOMEM, "no memory for a model");
    if (!st)
        st = pl_cuda_enter(d, "a model", err);
    if (!st && a->head_dim > PL_CUDA_MAX_HEAD)
        st = pl_fail(err, PL_EUNSUPPORTED, "heads of %d: the CUDA backend runs up to %d",
                     (int)a->head_dim, PL_CUDA_MAX_HEAD);
    for (int32_t i = 0; i < a->layers && !st; i++)
        st = load_layer(n, &src->layers[i], &n->layers[i], dt, err);
    if (!st)
        st = load_outer(n, src, dt, err);
    if (!st)
        st = make_rope(n, &src->rope_factors, err);
    if (!st && src->encoder) {
        struct pl_arch e = pl_arch_encoder(a);
        st = pl_cuda_network_create(d, &e, src->encoder, dt, &n->encoder, err);
    }
    if (!st) {
        n->act = pl_cuda_act(d, n->layers[0].w[PL_W_UP].dtype);
        st = pl_cuda_work_reserve(n, pl_cuda_chunk(a), err);
    }
    if (!st && a->causal && n->head.data)
        st = pl_cuda_burst_create(n, err);
    if (!st)
        st = pl_cuda_loaded(d, "loading", err);
    if (st) {
        pl_cuda_network_free(n);
        return st;
    }
    if (n->encoder)
        n->encoder->embedder = n;
    n->head_tensor = (struct pl_tensor){.device = d,
                                        .rows = (size_t)n->head.out,
                                        .cols = (size_t)n->head.in,
                                        .weight = n->head.data ? &n->head : NULL};
    n->final_tensor = (struct pl_tensor){
        .device = d, .rows = 1, .cols = (size_t)a->hidden, .data = n->final_gain};
    n->bytes = pl_cuda_network_need(a, src, dt);
    *out = n;
    return PL_OK;
}

void pl_cuda_network_free(struct pl_network *n)
{
    static const struct pl_model_sources none;
    struct outer outer[OUTER];

    if (!n)
        return;
    cudaSetDevice(n->device->ordinal);
    pl_cuda_network_free(n->encoder);
    drop_graphs(n);
    for (int32_t i = 0; n->layers && i < n->arch.layers; i++) {
        for (int j = 0; j < PL_W_COUNT; j++)
            pl_cuda_matrix_free(&n->layers[i].w[j]);
        for (int j = 0; j < PL_V_COUNT; j++)
            cudaFree(n->layers[i].v[j]);
    }
    outer_vectors(&none, n, outer);
    for (int j = 0; j < OUTER; j++) {
        cudaFree(*outer[j].to);
        *outer[j].to = NULL;
    }
    pl_cuda_matrix_free(&n->embed);
    pl_cuda_matrix_free(&n->head);
    pl_cuda_matrix_free(&n->patch);
    pl_cuda_matrix_free(&n->pooler);
    cudaFree(n->inv_freq);
    free(n->relative);
    free_work(&n->work);
    cudaFree(n->paths);
    cudaFreeHost(n->paths_host);
    cudaFree(n->burst);
    cudaFree(n->kept);
    cudaFreeHost(n->burst_host);
    free(n->layers);
    free(n);
}

void pl_cuda_embed(const struct pl_network *n, const int32_t *ids, size_t n_ids, float *out)
{
    const struct pl_network *from = n->embedder ? n->embedder : n;
    const struct pl_cuda_matrix *t = from->embed.data ? &from->embed : &from->head;
    struct pl_device *d = n->device;
    size_t h = (size_t)n->arch.hidden, list = pl_round_up(n_ids * sizeof(*ids), 256);

    /* the call cannot fail; what it could not fill stays NaN, which no later step takes for data */
    for (size_t i = 0; i < n_ids * h; i++)
        out[i] = (float)NAN;
    if (pl_cuda_enter(d, "embed", NULL) ||
        pl_cuda_scratch(d, list + n_ids * h * sizeof(float), NULL))
        return;
    float *rows = (float *)(void *)((char *)d->scratch + list);
    if (cudaMemcpyAsync(d->scratch, ids, n_ids * sizeof(*ids), cudaMemcpyHostToDevice, d->stream))
        return;
    pl_k_embed(t, d->scratch, (int)n_ids, rows, d->stream);
    if (!cudaMemcpyAsync(out, rows, n_ids * h * sizeof(float), cudaMemcpyDeviceToHost, d->stream))
        (void)!pl_cuda_sync(d, "embed", NULL);
}
