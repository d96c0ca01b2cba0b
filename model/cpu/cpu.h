/*
 * What the files of the CPU backend share. A weight [out, in] is held in panels of 16 outputs,
 * [panel][in][16], so that lanes lie over outputs; one of a block format row by row as in its file,
 * and is decoded into such panels on the way (quant.c). Vectors and activations are plain f32 rows.
 */
#ifndef PL_MODEL_CPU_CPU_H
#define PL_MODEL_CPU_CPU_H

#include "base/clock.h"
#include "model/backend.h"
#include "model/cache.h"
#include "model/cpu/kernels.h"
#include "model/cpu/pool.h"
#include "model/cpu/q8.h"

#define PL_CPU_CHUNK 256 /* rows of a prompt that pass through all layers at once */
#define PL_CPU_OWN                                                                                 \
    16384 /* floats of normed rows that a member rather makes for itself than waits for */

/* What a profile tells apart. */
#define PL_CPU_OP_LIST(X)                                                                          \
    X(OTHER, "other")                                                                              \
    X(INPUT, "embeddings")                                                                         \
    X(NORM, "norm")                                                                                \
    X(QUANTIZE, "quantise activations")                                                            \
    X(QKV, "q, k, v")                                                                              \
    X(ROPE, "rope, store k and v")                                                                 \
    X(ATTENTION, "attention")                                                                      \
    X(OUT, "attention output")                                                                     \
    X(FFN_IN, "gate, up")                                                                          \
    X(ACT, "activation")                                                                           \
    X(FFN_OUT, "down")                                                                             \
    X(CROSS, "cross attention's matrices")                                                         \
    X(HEAD, "head")                                                                                \
    X(WAIT, "waiting for other threads")

enum pl_cpu_op {
#define PL_X(sym, name) PL_CPU_##sym,
    PL_CPU_OP_LIST(PL_X)
#undef PL_X
        PL_CPU_OPS
};

struct pl_cpu_profile {
    bool on;
    int64_t last;
    struct pl_op_time ops[PL_CPU_OPS];
};

struct pl_device {
    struct pl_pool *pool;           /* the one in use: whole or narrow */
    struct pl_pool *whole, *narrow; /* narrow: part `part` of `parts`, NULL until asked for */
    int part, parts;
    const struct pl_kernels *kernels;
    float *scratch;      /* [threads][scratch_each] */
    size_t scratch_each; /* floats; grown only where things are created */
    struct pl_cpu_profile profile;
    struct pl_device_work work; /* members add to it */
};

/* Adds to what the device has done: some products' multiply–adds, twice, and bytes read. */
static inline void pl_cpu_count(struct pl_device *d, size_t flops, size_t bytes)
{
    __atomic_fetch_add(&d->work.flops, (int64_t)flops, __ATOMIC_RELAXED);
    __atomic_fetch_add(&d->work.bytes, (int64_t)bytes, __ATOMIC_RELAXED);
}

/* Member 0's time since the last mark was spent on `op`. */
static inline void pl_cpu_mark(struct pl_device *d, int member, enum pl_cpu_op op)
{
    struct pl_cpu_profile *p = &d->profile;

    if (!p->on || member)
        return;
    int64_t now = pl_now_ns();
    p->ops[op].ns += now - p->last;
    p->last = now;
}

/* One matrix of a network or a tensor's weight, [out, in] in panels, or in rows of blocks. */
struct pl_panels {
    size_t out, in;
    enum pl_dtype dtype;
    void *data;    /* 64-byte aligned, unless mapped */
    float *bias;   /* [out] or NULL */
    bool mapped;   /* data is the checkpoint's */
    size_t paired; /* rows of blocks: as pl_weight_source has it */
    /* What products with it read. INT8: it holds blocks in the order of q8.h; BF16: pairs
     * (kernels.h: pl_gemm). */
    enum pl_activations acts;
    enum pl_cpu_op op;
};

/* Rows by id or position, in a type of their own. */
struct pl_rows {
    void *data; /* NULL: none */
    enum pl_dtype dtype;
};

struct pl_cpu_layer {
    struct pl_panels q, k, v, o, gate, up, down;
    struct pl_panels cross_q, cross_k, cross_v, cross_o;
    float *attn_norm, *ffn_norm;           /* [hidden] */
    float *attn_norm_bias, *ffn_norm_bias; /* [hidden] or NULL */
    float *cross_norm;                     /* [hidden] or NULL */
    float *q_norm, *k_norm;                /* [head_dim] or NULL */
};

/* Floats from one row of a workspace to the next: an odd number of cache lines, so that the rows of
 * a product's tile do not meet in the same few places of L1. */
static inline size_t pl_cpu_pitch(size_t cols)
{
    return pl_round_up(cols, PL_PANEL) | PL_PANEL;
}

/* Rows are pl_cpu_pitch(columns) apart, but for cos and sin. */
struct pl_workspace {
    float *block;                    /* what stands below as floats, in one piece */
    float *x, *xn;                   /* [CHUNK, hidden] residual stream, normed */
    float *q, *att;                  /* [CHUNK, heads · head_dim] */
    float *k, *v;                    /* [CHUNK, kv_heads · head_dim] */
    float *gate, *up;                /* [CHUNK, ffn] */
    float *cos, *sin;                /* [CHUNK, head_dim / 2] of each row's position */
    float *patch;                    /* [CHUNK, channels · patch²] pixels of each row's patch */
    const struct pl_span **row_span; /* [CHUNK] the span of each row */
    size_t *row_in_span;             /* [CHUNK] */
    struct pl_q8 *q8;                /* [chunks][CHUNK], or NULL */
    float *pairs;                    /* [CHUNK, widest row's pairs of bf16], or NULL */
};

struct pl_network {
    struct pl_device *device;
    struct pl_arch arch;
    enum pl_activations activations; /* asked for */
    bool int8, bf16;                 /* some matrix's products read such */
    struct pl_cpu_layer *layers;
    struct pl_tensor head, final_norm; /* views of what stands below, for the operation table */
    struct pl_panels head_panels;
    float *final_gain, *final_bias, *embed_gain, *embed_bias; /* [hidden] or NULL */
    struct pl_rows positions, types;
    float *relative;                /* [buckets, heads] or NULL */
    struct pl_panels patch, pooler; /* data NULL: none */
    float *cls;                     /* [hidden] or NULL */
    struct pl_network *encoder;     /* of an encoder–decoder; shares workspace and embeddings */
    const struct pl_network *embedder; /* where ids are looked up; NULL: here */
    void *embed; /* [vocab, hidden] as embed_dtype; NULL: tied, read from head_panels */
    enum pl_dtype embed_dtype;
    bool embed_mapped; /* embed is the checkpoint's, of a block format */
    float *inv_freq;   /* [head_dim / 2] */
    struct pl_workspace work;
    int64_t bytes, work_bytes;
};

static inline size_t pl_cpu_dtype_bytes(enum pl_dtype dt)
{
    return pl_dtype_traits(dt)->bytes;
}

/* 64-byte aligned, zeroed, from 2 MB on in huge pages; NULL when out of memory or on overflow. Free
 * with free(). */
void *pl_cpu_alloc(size_t n, size_t size);
/* Makes every thread's scratch at least n floats. */
PL_MUST_CHECK
enum pl_status pl_cpu_scratch(struct pl_device *d, size_t n, struct pl_err *err);
static inline float *pl_cpu_scratch_of(const struct pl_device *d, int member)
{
    return d->scratch + (size_t)member * d->scratch_each;
}

/* What a product with p reads: w, dtype, stride, paired, pairs, k and n of *g. */
void pl_cpu_gemm_weight(struct pl_gemm *g, const struct pl_panels *p);
/* Rows · chunks of 256 columns of activations that a member rather converts for itself than waits
 * for, and the floats that one takes: a struct pl_q8, or 128 pairs and what a pitch adds. */
#define PL_CPU_OWN_CHUNKS 64
#define PL_CPU_OWN_CHUNK 160
/* Where they stand in its scratch, behind the floats of PL_CPU_OWN. */
#define PL_CPU_OWN_AT (PL_GEMM_SCRATCH + PL_CPU_OWN)
static inline struct pl_q8 *pl_cpu_own_q8(const struct pl_device *d, int member)
{
    return (struct pl_q8 *)(void *)(pl_cpu_scratch_of(d, member) + PL_CPU_OWN_AT);
}
static inline float *pl_cpu_own_pairs(const struct pl_device *d, int member)
{
    return pl_cpu_scratch_of(d, member) + PL_CPU_OWN_AT;
}
_Static_assert(sizeof(struct pl_q8) <= PL_CPU_OWN_CHUNK * sizeof(float), "a chunk holds either");
static inline size_t pl_cpu_pairs(size_t columns)
{
    return (columns + 1) / 2;
}
/* Pairs from one row to the next. */
static inline size_t pl_cpu_pairs_pitch(size_t columns)
{
    return pl_cpu_pitch(pl_cpu_pairs(columns));
}
/* Element k of output o in p's panels, p not in blocks. */
static inline size_t pl_cpu_panel_at(const struct pl_panels *p, size_t o, size_t k)
{
    size_t panel = o / PL_PANEL, lane = o % PL_PANEL;

    if (p->acts == PL_ACTIVATIONS_BF16)
        return ((panel * pl_cpu_pairs(p->in) + k / 2) * PL_PANEL + lane) * 2 + k % 2;
    return (panel * p->in + k) * PL_PANEL + lane;
}
/* g, a product with p, of rows that no step has converted: member m does it, a few rows at a time.
 */
void pl_cpu_gemm_rows(struct pl_device *d, struct pl_gemm *g, const struct pl_panels *p, int m);
/* Counts the product that *g asks for. */
void pl_cpu_gemm_count(struct pl_device *d, const struct pl_gemm *g);

/* One more path that `isa` may name, never chosen by itself: for tests of kernels whose
 * instructions a machine lacks. */
void pl_cpu_offer(const struct pl_kernels *k);

/* weight.c: sources → memory. */
enum pl_dtype pl_cpu_weight_dtype(const struct pl_weight_source *src, enum pl_dtype want);
int64_t pl_cpu_panel_bytes(size_t out, size_t in, enum pl_dtype dt, enum pl_activations acts);
/* Panels; of a block format that stays as it is, a view (mapped), or repacked for 8-bit
 * activations. With acts INT8 bf16 comes as pairs where the device multiplies those. */
PL_MUST_CHECK
enum pl_status pl_cpu_pack(struct pl_device *d, const struct pl_weight_source *src,
                           enum pl_dtype dt, enum pl_activations acts, struct pl_panels *out,
                           struct pl_err *err);
/* The matrix row by row, in the type that pl_cpu_weight_dtype says, which is no block format
 * (embeddings). free() it. */
PL_MUST_CHECK
enum pl_status pl_cpu_rows_copy(struct pl_device *d, const struct pl_weight_source *src,
                                enum pl_dtype dt, void **out, struct pl_err *err);
/* A vector, or a small matrix row by row, as f32; *out NULL when the source is absent. */
PL_MUST_CHECK
enum pl_status pl_cpu_vector(const struct pl_weight_source *src, float **out, struct pl_err *err);
void pl_cpu_store(enum pl_dtype dt, void *dst, size_t i, float v);
float pl_cpu_load(enum pl_dtype dt, const void *src, size_t i);

/* network.c, cache.c, forward.c, ops.c: entries of the vtable. */
enum pl_status pl_cpu_network_create(struct pl_device *d, const struct pl_arch *a,
                                     const struct pl_model_sources *src, enum pl_dtype dt,
                                     struct pl_network **out, struct pl_err *err);
void pl_cpu_network_free(struct pl_network *n);
int64_t pl_cpu_network_need(const struct pl_arch *a, const struct pl_model_sources *src,
                            enum pl_dtype dt);
void pl_cpu_embed(const struct pl_network *n, const int32_t *ids, size_t n_ids, float *out);
int64_t pl_cpu_work_bytes(const struct pl_arch *a);

enum pl_status pl_cpu_cache_create(struct pl_network *n, const struct pl_cache_opts *o,
                                   struct pl_cache **out, struct pl_err *err);
void pl_cpu_cache_free(struct pl_cache *c);
struct pl_cache_bytes pl_cpu_cache_bytes(const struct pl_cache *c);
struct pl_cache_bytes pl_cpu_cache_need(const struct pl_arch *a, const struct pl_cache_opts *o);
void pl_cpu_cache_keep(struct pl_cache *c, int32_t layer, const int32_t *idx, size_t n);
enum pl_status pl_cpu_cache_keep_path(struct pl_cache *c, size_t rows, const int32_t *idx, size_t n,
                                      struct pl_err *err);
void pl_cpu_cache_sums_clear(struct pl_cache *c);
/* Where a KV head begins in a layer of `cap` places, in elements. */
size_t pl_cpu_k_head(const struct pl_arch *a, size_t cap, size_t head);
size_t pl_cpu_v_head(const struct pl_arch *a, size_t cap, size_t head);
/* Element d of key or value j within a head. */
static inline size_t pl_cpu_k_at(size_t dim, size_t j, size_t d)
{
    return (j / PL_PANEL * dim + d) * PL_PANEL + j % PL_PANEL;
}
static inline size_t pl_cpu_v_at(size_t dim, size_t j, size_t d)
{
    size_t vp = (dim + PL_PANEL - 1) / PL_PANEL;

    return ((j / PL_ATTN_CHUNK * vp + d / PL_PANEL) * PL_ATTN_CHUNK + j % PL_ATTN_CHUNK) *
               PL_PANEL +
           d % PL_PANEL;
}

enum pl_status pl_cpu_forward(struct pl_network *n, const struct pl_forward *f, struct pl_err *err);
enum pl_status pl_cpu_encode(struct pl_network *n, struct pl_cache *c, const struct pl_source *s,
                             struct pl_err *err);
enum pl_status pl_cpu_encode_batch(struct pl_network *n, struct pl_cache *const *caches,
                                   const struct pl_source *sources, size_t n_sources,
                                   struct pl_err *err);
enum pl_status pl_cpu_pool_row(struct pl_network *n, struct pl_cache *c, float *out,
                               struct pl_err *err);

enum pl_status pl_cpu_tensor_create(struct pl_device *d, size_t rows, size_t cols,
                                    struct pl_tensor **out, struct pl_err *err);
enum pl_status pl_cpu_weight_create(struct pl_device *d, const struct pl_weight_source *src,
                                    enum pl_dtype dt, struct pl_tensor **out, struct pl_err *err);
void pl_cpu_tensor_free(struct pl_tensor *t);
enum pl_status pl_cpu_upload(struct pl_tensor *t, size_t first, size_t n, const float *src,
                             struct pl_err *err);
enum pl_status pl_cpu_download(const struct pl_tensor *t, size_t first, size_t n, float *dst,
                               struct pl_err *err);
enum pl_status pl_cpu_copy(struct pl_tensor *y, size_t y_first, const struct pl_tensor *x,
                           size_t x_first, size_t n, struct pl_err *err);
enum pl_status pl_cpu_linear(struct pl_tensor *y, const struct pl_tensor *x,
                             const struct pl_tensor *w, const struct pl_tensor *bias,
                             struct pl_err *err);
enum pl_status pl_cpu_norm(enum pl_norm_kind kind, float eps, struct pl_tensor *y,
                           const struct pl_tensor *x, const struct pl_tensor *gain,
                           const struct pl_tensor *bias, struct pl_err *err);
enum pl_status pl_cpu_activate(enum pl_act_kind act, struct pl_tensor *y, const struct pl_tensor *x,
                               struct pl_err *err);
enum pl_status pl_cpu_axpby(float a, const struct pl_tensor *x, float b, struct pl_tensor *y,
                            struct pl_err *err);
enum pl_status pl_cpu_attention(struct pl_tensor *y, const struct pl_tensor *q,
                                const struct pl_tensor *k, const struct pl_tensor *v, size_t heads,
                                bool causal, struct pl_err *err);
enum pl_status pl_cpu_topk(const struct pl_tensor *x, size_t k, int32_t *idx, struct pl_err *err);
enum pl_status pl_cpu_gather(struct pl_tensor *y, const struct pl_tensor *x, const int32_t *idx,
                             size_t n, struct pl_err *err);
enum pl_status pl_cpu_argmax(const struct pl_tensor *x, int32_t *idx, struct pl_err *err);

#endif
