/*
 * What runs a model. A backend is a const vtable with one coarse call, `forward`, and a small table
 * of operations on opaque tensors for adapters, scorers and heads (used only outside blocks).
 * pl_cpu_backend is also the oracle that others are tested against.
 *
 * Tensors are matrices [rows, cols], row-major, f32 unless said; a weight made for `linear` is in
 * the backend's own order. Tensors belong to the device that made them and die before it.
 * Operations of one device are called by one thread at a time. Shapes that do not fit are
 * PL_ERANGE, naming both.
 *
 * Batch invariance (cpu, f32): every output element is one chain of operations in an order that
 * depends on nothing but its own inputs: not on the number of rows, of threads, nor on how a prompt
 * was cut.
 */
#ifndef PL_MODEL_BACKEND_H
#define PL_MODEL_BACKEND_H

#include "base/status.h"
#include "model/arch.h"
#include "model/checkpoint.h"
#include "model/dtype.h"
#include "model/events.h"
#include "model/image.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pl_device;  /* an open backend: its threads, or a GPU */
struct pl_tensor;  /* a matrix on a device */
struct pl_network; /* a model's weights on a device */
struct pl_cache;   /* one sequence's KV cache and its buffers */

struct pl_device_opts {
    int threads; /* 0: one for each of cpus, else the CPUs that this process may use */
    /* Thread i is bound to cpus[i]; thread 0 is whoever runs the model, bound from its first run
     * on. NULL: not bound. Copied. */
    const int *cpus;
    size_t n_cpus;
    const char *isa; /* NULL or "auto": the best there is; "portable", "avx2", "avx512" (with
                        VNNI) and "avx512bf16" force a path */
    int ordinal;     /* device number, where there are several */
    /* cuda: up to PL_EXACT_ROWS rows of a forward are summed in an order that does not depend on
     * how many there are, so that a verification, or a tree's, gives the bits of its decodes. A
     * longer prompt's bits depend on how it is cut.
     * The CPU always does. */
    bool deterministic;
};
#define PL_EXACT_ROWS 256

/* Where a weight comes from: a view into a checkpoint, or (view NULL) numbers drawn from `key`. A
 * zeroed one is absent. */
struct pl_weight_source {
    const char *name;
    const struct pl_tensor_view *view;
    uint64_t key; /* view NULL: uniform in ±std·√3, element i from (key, i) alone; std 0: `fill` */
    float std, fill;
    int64_t rows, cols; /* as checked against the architecture; vectors are [1, cols] */
    int64_t skip;       /* elements of the view before ours: a part of a fused matrix */
    int64_t ld; /* 0: rows in order; else the view is [cols, ld], and (r, c) at c · ld + skip + r */
    /* d > 0: RoPE's pairs lie side by side in the view (gguf_arch.h): row h·d + j·d/2 + i of the
     * matrix (or element of the vector) is row h·d + 2i + j of the view. */
    int32_t paired;
    bool absent; /* an optional weight that this model has not */
};

/* Where row r stands in the view. */
static inline size_t pl_weight_row(const struct pl_weight_source *s, size_t r)
{
    size_t d = (size_t)s->paired, half = d / 2;

    return d ? r / d * d + r % d % half * 2 + r % d / half : r;
}

static inline bool pl_weight_absent(const struct pl_weight_source *s)
{
    return s->absent || !s->name;
}

/* n elements of the source's view (or of its random numbers) from element `first` on, as f32: in
 * the view's own order, so that a caller applies pl_weight_row and ld. */
void pl_weight_read(const struct pl_weight_source *s, size_t first, float *out, size_t n);

/* Bytes of it as f32; 0: absent. */
int64_t pl_weight_f32_bytes(const struct pl_weight_source *s);

/* What a product multiplies weights with. Asked for are F32 or INT8; BF16 is what comes of INT8
 * where weights are bf16 and the processor has AVX-512 BF16. */
enum pl_activations {
    PL_ACTIVATIONS_F32,  /* the weights' values with f32: the reference */
    PL_ACTIVATIONS_INT8, /* integers of a block format (quant.h) with 8-bit integers, quantised once
                            for each product; where a backend has no such product: f32 */
    PL_ACTIVATIONS_BF16, /* bf16 with values rounded to it once for each product, summed in f32 */
};

/* One block. Optional, so maybe absent: biases, q_norm and k_norm, cross_*, gate. */
struct pl_layer_sources {
    struct pl_weight_source attn_norm, q, k, v, o, q_bias, k_bias, v_bias, o_bias;
    struct pl_weight_source ffn_norm, gate, up, down, gate_bias, up_bias, down_bias;
    struct pl_weight_source attn_norm_bias, ffn_norm_bias, q_norm, k_norm;
    struct pl_weight_source cross_norm, cross_q, cross_k, cross_v, cross_o;
};

struct pl_model_sources {
    struct pl_weight_source embed, final_norm, lm_head; /* lm_head absent: tied, or no head */
    struct pl_weight_source rope_factors; /* [1, head_dim / 2]: each frequency is divided by its
                                             factor; absent: by none */
    struct pl_layer_sources *layers;      /* [arch.layers] */
    struct pl_weight_source final_norm_bias, embed_norm, embed_norm_bias;
    struct pl_weight_source positions;           /* [pos_offset + max_positions, hidden] */
    struct pl_weight_source types;               /* [types, hidden] */
    struct pl_weight_source relative;            /* [buckets, heads] */
    struct pl_weight_source patch;               /* [hidden, channels · patch · patch] */
    struct pl_weight_source cls;                 /* [1, hidden] the row before an image's patches */
    struct pl_weight_source pooler, pooler_bias; /* [hidden, hidden] */
    struct pl_model_sources *encoder; /* of an encoder–decoder: layers, final_norm and relative */
    enum pl_activations activations;
};

/* Whether the embeddings are in memory of their own: else the head, tied, is read for them. */
bool pl_sources_own_embed(const struct pl_arch *a, const struct pl_model_sources *s);
/* Where the head's weights come from. */
const struct pl_weight_source *pl_sources_head(const struct pl_model_sources *s);

struct pl_cache_opts {
    enum pl_dtype kv_dtype;
    size_t max_tokens; /* KV rows a layer */
    size_t max_rows; /* rows of one forward that need logits or a tap at once: the longest verify */
    size_t max_source; /* rows of the source, of an encoder–decoder */
    bool whole_kv;     /* layers with a window keep all their rows, too (hooks) */
    bool stage;        /* hidden states of the whole prompt are kept between segments (hooks) */
    bool attn_sums;    /* column sums of attention may be asked for */
    const int *taps;   /* see session.h */
    size_t n_taps;
};

struct pl_cache_bytes {
    int64_t kv, workspace;
    int64_t shared; /* of workspace: what all caches of the network share */
};

/* One sequence of a forward: rows that continue its cache. */
struct pl_span {
    struct pl_cache *cache;
    size_t rows;
};

/* Rows that hang on each other instead of following each other: row i of the tree sees what the
 * cache held before it, and its ancestors. Its position is that place's + depth[i]. Rows
 * [base, base + the forward's rows) of the tree are at hand; those before came with earlier
 * forwards and are the cache's last. */
struct pl_token_tree {
    const int32_t *parents; /* [base + rows] each < its child; −1: what was before the tree */
    const int32_t *depth;   /* [base + rows] 0 for those */
    size_t base;
};

/* The choice of a row of logits: the best id that is not left out (−1: NaN, or the best is
 * infinite), and the best of all ids, which may be one that is (a text would end here). Ties: the
 * lowest. Drawn (struct pl_draw): what was drawn, and `all` is one that was left out and beats it,
 * or the same. */
struct pl_picked {
    int32_t id, all;
};

/* A draw from softmax(logits / temperature) over what is not left out: the first id, in their
 * order, at which the sum of the probabilities exceeds u (spec_decode/accept.h does the same). */
struct pl_draw {
    double temperature; /* > 0 */
    double u;           /* [0, 1) */
};

/* Decode steps of some sequences together, each of the tokens that the one before it made; the last
 * ones made do not go in. */
struct pl_generation {
    const int32_t
        *ids; /* [n_ids] go in first: one for each sequence, or several for the only one */
    size_t n_ids;
    size_t n;
    double temperature;  /* 0: greedy */
    const double *draws; /* [n][sequences] struct pl_draw's u, above temperature 0 */
    const int32_t *ends; /* [n_ends] ids that may not come */
    size_t n_ends;       /* ≤ PL_MAX_EOS */
    float *logits; /* [n][vocab] where those of the only sequence go, behind the last; or NULL */
};

enum pl_logit_rows { PL_LOGITS_NONE, PL_LOGITS_LAST, PL_LOGITS_ALL };

/*
 * Layers [first_layer, end_layer) over the rows of all spans, appended to their caches. Input: ids
 * or embeds when first_layer is 0, else the cache's stage rows from stage_row on (one span only).
 * Output: the stage rows when end_layer < layers, else logits and taps.
 */
struct pl_forward {
    const struct pl_span *spans;
    size_t n_spans;
    const int32_t *ids;       /* [rows] or NULL */
    const float *embeds;      /* [rows, hidden] on the host, or NULL */
    const int32_t *positions; /* [rows]; NULL: each layer's next position on */
    const struct pl_token_tree
        *tree; /* of a decoder's only span, all layers, no positions; or NULL */
    int32_t first_layer, end_layer;
    size_t stage_row;
    bool to_stage; /* even when end_layer == layers: final hidden states stay in the stage rows */
    int32_t
        sums_layer; /* ≥ 0: add this layer's attention probabilities to the cache's column sums */
    size_t sums_skip; /* … of rows from this one on */
    size_t tap_row;   /* taps are written at this row on */
    enum pl_logit_rows want;
    size_t silent; /* LAST: the last so many spans give no logits */
    float *logits; /* LAST: [n_spans − silent, vocab], ALL: [rows, vocab]; on the host. NULL with
                      `picked`: they stay on the device */
    struct pl_picked *picked; /* of each row of logits, a few of them; NULL, or the backend picks */
    const struct pl_draw *draw; /* [n_spans] of each sequence's only row of logits, instead of the
                                   greedy choice, at one temperature; or NULL */
    const int32_t *ends;        /* [n_ends] ids that `picked` leaves out */
    size_t n_ends;              /* ≤ PL_MAX_EOS */
};

/* What an encoder reads: one of ids, embeds and pixels. */
struct pl_source {
    const int32_t *ids;              /* [n] */
    const float *embeds;             /* [n, hidden] before positions and types are added */
    const float *pixels;             /* [channels, image, image], n its rows */
    const struct pl_tensor *picture; /* or these on the device: row picture_row; `pixels` NULL */
    size_t picture_row;
    const int32_t *types; /* [n] or NULL: 0 */
    const uint8_t *mask;  /* [n], 0: padding, seen by no row; NULL: none is */
    size_t n;
};

/* What pixels are made of: pictures, or events and where they are cut into frames. */
struct pl_frames {
    const struct pl_images *images;   /* or NULL */
    const struct pl_events *events;   /* or NULL */
    const struct pl_event_frame *cut; /* [n] as pl_events_cut made them */
    size_t n;
};

/* Time that one operation took, or one kernel of it. */
struct pl_op_time {
    const char *name;
    int64_t ns;
    int64_t calls;        /* launches; 0: not counted */
    int64_t flops, bytes; /* as struct pl_device_work has them; 0: not counted here */
};

/* What a device has done since it was opened, counted where it is done. */
struct pl_device_work {
    int64_t flops; /* 2 for each multiply–add of matrix products, and of attention with the keys
                      that a row sees */
    int64_t bytes; /* of weights and KV that these products read, as stored */
};

struct pl_generated {
    struct pl_picked token;
    int64_t ns;                 /* when it was there, by the device's clock */
    struct pl_device_work work; /* its step's, for its sequence alone: the bytes of K and V */
    int64_t shared_bytes;       /* its step's for all sequences: the bytes of weights */
};

/* A device that this machine has. */
struct pl_device_info {
    char kind[8], uuid[48], name[64]; /* "cuda", "GPU-…", as its maker calls it */
    int64_t bytes;                    /* its memory */
};

/* What a device can do at most, measured on it here and now. */
struct pl_device_ceilings {
    double read_bytes_per_s; /* of its own memory, streamed once through */
    double flop_per_s;       /* of the library's matrix product on random numbers */
    char kind[32];           /* "bf16 8192³": what the second was measured with */
};

struct pl_device_memory {
    int64_t used; /* on the device now, whoever uses it */
    int64_t peak; /* the most of it that was seen, at each allocation and each reading */
    int64_t total;
};

/* A device as its maker's libraries know it. */
struct pl_device_native {
    int ordinal;
    void *stream; /* that its work goes through */
};

#define PL_DEVICE_MARKS 4

/* Multiprocessors. */
struct pl_device_split {
    int first, second, all;
};

struct pl_backend {
    const char *name;   /* "cpu" */
    bool int8;          /* PL_ACTIVATIONS_INT8 is there */
    bool picks;         /* a forward of a few rows fills `picked` */
    size_t max_forward; /* most rows of one forward */

    enum pl_status (*open)(const struct pl_device_opts *o, struct pl_device **out,
                           struct pl_err *err);
    void (*close)(struct pl_device *d); /* accepts NULL */
    /* From the next call on runs on part number `part` of `parts` of its threads and CPUs (one
     * thread at least), so that two devices of the same cores run beside each other; parts 1: on
     * all of them. The bits do not change. Only between calls; cheap from the second time on. */
    enum pl_status (*narrow)(struct pl_device *d, int part, int parts, struct pl_err *err);
    /* Two devices on one GPU: from now on narrow(…, 2) puts each on multiprocessors of its own,
     * about `share` of them the second's (as the GPU can share them out), instead of both on all;
     * 0: on all again. The bits do not change. Quick where the same two were split so before.
     * PL_EUNSUPPORTED says why it cannot be; both are then on all. NULL: narrow shares out what
     * there is. */
    enum pl_status (*split)(struct pl_device *first, struct pl_device *second, double share,
                            struct pl_device_split *out, struct pl_err *err);
    struct pl_device_work (*work)(const struct pl_device *d);
    /* "avx2, 2 threads" */
    void (*describe)(const struct pl_device *d, char *out, size_t size);
    /* The devices that there are, at most `max`; how many. NULL, or 0: none but the processor. */
    size_t (*list)(struct pl_device_info *out, size_t max);
    /* Of the library that drives the devices, "13.0". NULL: there is none. */
    const char *(*version)(void);
    /* Less than a second. NULL: the caller measures the processor itself. */
    enum pl_status (*ceilings)(struct pl_device *d, struct pl_device_ceilings *out,
                               struct pl_err *err);
    /* reset: the peak begins anew, at what is used now. NULL: memory is the process's own. */
    void (*memory)(struct pl_device *d, bool reset, struct pl_device_memory *out);
    /* Puts mark i where the device's work has come to. NULL: work is done when a call returns. */
    void (*mark)(struct pl_device *d, int i);
    /* ns between two marks by the device's clock, once both are passed; −1: they were not set. */
    int64_t (*between)(struct pl_device *d, int from, int to);
    /* Clears the times of operations and counts from here on, or no longer. PL_EUNSUPPORTED: what
     * would count is not there. NULL: not kept here. */
    enum pl_status (*profile)(struct pl_device *d, bool on, struct pl_err *err);
    /* The CPU's: time of the calling thread since then, by operation; a GPU's: of its kernels, once
     * all are done. *n of them, until the next call of either. */
    const struct pl_op_time *(*profile_read)(struct pl_device *d, size_t *n);

    enum pl_status (*tensor_create)(struct pl_device *d, size_t rows, size_t cols,
                                    struct pl_tensor **out, struct pl_err *err);
    /* A weight [out, in] for `linear`, kept as dt (PL_DT_AUTO: as it comes). */
    enum pl_status (*weight_create)(struct pl_device *d, const struct pl_weight_source *src,
                                    enum pl_dtype dt, struct pl_tensor **out, struct pl_err *err);
    /* Rows [first, first + n) of t as a tensor that shares its memory and must be freed before it;
     * not of weights. */
    enum pl_status (*tensor_view)(const struct pl_tensor *t, size_t first, size_t n,
                                  struct pl_tensor **out, struct pl_err *err);
    void (*tensor_free)(struct pl_tensor *t); /* accepts NULL */
    size_t (*rows)(const struct pl_tensor *t);
    size_t (*cols)(const struct pl_tensor *t);
    /* n rows from row `first` on; not for weights. */
    enum pl_status (*upload)(struct pl_tensor *t, size_t first, size_t n, const float *src,
                             struct pl_err *err);
    enum pl_status (*download)(const struct pl_tensor *t, size_t first, size_t n, float *dst,
                               struct pl_err *err);
    /* n rows of x to rows of y, which is of the same width and other memory; y may be of another
     * device that x's `reaches`. Behind the work of both devices so far; not waited for. */
    enum pl_status (*copy)(struct pl_tensor *y, size_t y_first, const struct pl_tensor *x,
                           size_t x_first, size_t n, struct pl_err *err);
    /* --- for what stands between devices (spec_decode/transport.h); NULL: memory is the host's ---
     */
    /* Whether `copy` goes straight from one device to another. PL_EUNSUPPORTED says why not. */
    enum pl_status (*reaches)(struct pl_device *from, struct pl_device *to, struct pl_err *err);
    /* For a library beside this one: makes d the calling thread's current device. */
    enum pl_status (*native)(struct pl_device *d, struct pl_device_native *out, struct pl_err *err);
    float *(*address)(struct pl_tensor *t); /* of row 0, where the device has it */
    /* Whether all work so far is done, without waiting for it. */
    enum pl_status (*poll)(struct pl_device *d, bool *done, struct pl_err *err);

    /* y[n, out] = x[n, in] · wᵀ (+ bias[1, out]) */
    enum pl_status (*linear)(struct pl_tensor *y, const struct pl_tensor *x,
                             const struct pl_tensor *w, const struct pl_tensor *bias,
                             struct pl_err *err);
    /* y = norm(x) · gain (+ bias); RMS: x/√(mean x² + eps), LAYER: (x − mean)/√(var + eps). gain
     * [1, cols]. y may be x. */
    enum pl_status (*norm)(enum pl_norm_kind kind, float eps, struct pl_tensor *y,
                           const struct pl_tensor *x, const struct pl_tensor *gain,
                           const struct pl_tensor *bias, struct pl_err *err);
    /* y = act(x); y may be x */
    enum pl_status (*activate)(enum pl_act_kind act, struct pl_tensor *y, const struct pl_tensor *x,
                               struct pl_err *err);
    /* y = a·x + b·y; b 0: y is not read */
    enum pl_status (*axpby)(float a, const struct pl_tensor *x, float b, struct pl_tensor *y,
                            struct pl_err *err);
    /* Softmax attention, `heads` heads side by side: q, y [n, heads·d], k, v [m, heads·d], scale
     * 1/√d. causal: row i sees keys 0 … i + m − n. */
    enum pl_status (*attention)(struct pl_tensor *y, const struct pl_tensor *q,
                                const struct pl_tensor *k, const struct pl_tensor *v, size_t heads,
                                bool causal, struct pl_err *err);
    /* The k largest of row 0, as indices in ascending order; ties: the lower index; NaN: smaller
     * than all. O(cols). */
    enum pl_status (*topk)(const struct pl_tensor *x, size_t k, int32_t *idx, struct pl_err *err);
    /* y[i] = x[idx[i]], i < n; y may be x when idx ascends. */
    enum pl_status (*gather)(struct pl_tensor *y, const struct pl_tensor *x, const int32_t *idx,
                             size_t n, struct pl_err *err);
    /* idx[i] = the largest of row i; ties: the lower index; −1: the row holds a NaN. */
    enum pl_status (*argmax)(const struct pl_tensor *x, int32_t *idx, struct pl_err *err);
    /* Pixels of frames to rows 0, 1, … of `out` [≥ n, 3 · crop · crop], the very bits of
     * pl_images_preprocess, and waited for. NULL: there is nothing but the host for that. */
    enum pl_status (*pixels)(struct pl_device *d, const struct pl_frames *f,
                             const struct pl_preprocess *p, struct pl_tensor *out,
                             struct pl_err *err);

    /* --- the coarse part: used by model.c and session.c only --- */
    /* Matrices of block formats (quant.h), with dt PL_DT_AUTO, are read where their views are for
     * as long as the network lives; all other sources are no longer needed afterwards. */
    enum pl_status (*network_create)(struct pl_device *d, const struct pl_arch *a,
                                     const struct pl_model_sources *src, enum pl_dtype dt,
                                     struct pl_network **out, struct pl_err *err);
    void (*network_free)(struct pl_network *n);
    int64_t (*network_bytes)(const struct pl_network *n);
    /* What its products read: BF16 or INT8 where some do; NULL: F32. */
    enum pl_activations (*network_activations)(const struct pl_network *n);
    /* What network_create and cache_create would allocate (tensors and KV exactly, small things
     * roughly). */
    int64_t (*network_need)(const struct pl_arch *a, const struct pl_model_sources *src,
                            enum pl_dtype dt);
    struct pl_cache_bytes (*cache_need)(const struct pl_arch *a, const struct pl_cache_opts *o);
    /* The head [vocab, hidden] for `linear`, and the final norm's gain; borrowed. */
    const struct pl_tensor *(*network_head)(const struct pl_network *n);
    const struct pl_tensor *(*network_final_norm)(const struct pl_network *n);
    /* out[n, hidden] on the host */
    void (*embed)(const struct pl_network *n, const int32_t *ids, size_t n_ids, float *out);

    enum pl_status (*cache_create)(struct pl_network *n, const struct pl_cache_opts *o,
                                   struct pl_cache **out, struct pl_err *err);
    void (*cache_free)(struct pl_cache *c);
    struct pl_cache_bytes (*cache_bytes)(const struct pl_cache *c);
    /* KV rows that the next row of a layer can see (a window shows no more than it is wide). */
    size_t (*cache_len)(const struct pl_cache *c, int32_t layer);
    /* Forgets everything. */
    void (*cache_reset)(struct pl_cache *c);
    /* How many of the last rows can be forgotten: a ring has overwritten what stood before more of
     * them. SIZE_MAX: any. */
    size_t (*cache_can_drop)(const struct pl_cache *c);
    /* Forgets the last n rows, and their positions, in every layer. */
    void (*cache_drop)(struct pl_cache *c, size_t n);
    /* Of the last `rows` rows, in every layer, keeps idx [n] (ascending), which then follow each
     * other, and forgets the others: a tree becomes one of its paths. */
    enum pl_status (*cache_keep_path)(struct pl_cache *c, size_t rows, const int32_t *idx, size_t n,
                                      struct pl_err *err);
    /* Keeps rows idx[head·n … ] (ascending) of a layer's KV, n for each of its KV heads; positions
     * stay. */
    void (*cache_keep)(struct pl_cache *c, int32_t layer, const int32_t *idx, size_t n);
    /* [max_tokens, hidden]; NULL without opts.stage */
    struct pl_tensor *(*cache_stage)(struct pl_cache *c);
    /* An encoder's last states of the source, [max_source or max_tokens, hidden]. */
    const struct pl_tensor *(*cache_encoded)(const struct pl_cache *c);
    /* [heads, max_tokens] column sums since sums_clear; NULL without opts.attn_sums */
    const struct pl_tensor *(*cache_sums)(const struct pl_cache *c);
    void (*cache_sums_clear)(struct pl_cache *c);
    /* [max_tokens, hidden] */
    const struct pl_tensor *(*cache_tap)(const struct pl_cache *c, size_t tap);
    /* KV bytes that the last forward read, summed over layers, rows and KV heads. */
    int64_t (*cache_kv_read)(const struct pl_cache *c);
    enum pl_status (*forward)(struct pl_network *n, const struct pl_forward *f, struct pl_err *err);
    /* g->n steps behind the rows of different caches, one for each sequence, to out [g->n]
     * [n_caches], with one wait, at the end; an id of −1 makes those behind it meaningless. The
     * taps hold the rows of all steps. NULL: the caller decodes step by step. */
    enum pl_status (*generate)(struct pl_network *n, struct pl_cache *const *caches,
                               size_t n_caches, const struct pl_generation *g,
                               struct pl_generated *out, struct pl_err *err);
    /* The encoder over the whole source: taps and last states of an encoder, K and V
     * of the source for each layer of an encoder–decoder. */
    enum pl_status (*encode)(struct pl_network *n, struct pl_cache *c, const struct pl_source *s,
                             struct pl_err *err);
    /* Several sources of ids in one go, source i into caches[i]: the same bits as one by one. */
    enum pl_status (*encode_batch)(struct pl_network *n, struct pl_cache *const *caches,
                                   const struct pl_source *sources, size_t n_sources,
                                   struct pl_err *err);
    /* tanh(pooler · row 0) of the last encode, [hidden] to the host. PL_EUNSUPPORTED: the model has
     * no pooler. */
    enum pl_status (*pool)(struct pl_network *n, struct pl_cache *c, float *out,
                           struct pl_err *err);
};

extern const struct pl_backend pl_cpu_backend;
extern const struct pl_backend pl_cuda_backend; /* only in builds with CUDA */

/* By name (NULL: the default); NULL when this build has none of that name. */
const struct pl_backend *pl_backend_by_name(const char *name);
/* What "cpu", "cuda" or "cuda:N" means (NULL: the default); *ordinal stays where none is named.
 * PL_EUSAGE: another text; PL_EUNSUPPORTED: this build has none of that name. Whether there is such
 * a device, `open` tells. */
PL_MUST_CHECK
enum pl_status pl_backend_find(const char *device, const struct pl_backend **out, int *ordinal,
                               struct pl_err *err);

#endif
