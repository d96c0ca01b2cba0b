/*
 * What the files of the CUDA backend share. Host code is C over the runtime's C interface; kernels
 * stand in *.cu behind kernels.h. Everything of a device runs on its one stream, so that nothing
 * waits but a copy back to the host.
 *
 * The residual stream and all sums are f32. Products of up to PL_CUDA_GEMV_ROWS rows read f32
 * activations and stream the weights as they are stored, and the common GGUF blocks, repacked, with
 * activations in 8 bits; larger ones go to cuBLASLt in `act`: f32, f16 or bf16, what the weights
 * are (blocks of GGUF: decoded to bf16 first). A device opened with isa "portable" runs all of them
 * in f32. A deterministic one takes up to PL_EXACT_ROWS rows the first way, PL_CUDA_GEMV_ROWS at a
 * time, and splits their keys at fixed places.
 */
#ifndef PL_MODEL_CUDA_CUDA_H
#define PL_MODEL_CUDA_CUDA_H

#include "base/arena.h"
#include "model/backend.h"
#include "model/cache.h"
#include "model/cuda/kernels.h"

#define PL_CUDA_CHUNK 2048          /* most rows of one forward */
#define PL_CUDA_DECODED (64u << 20) /* most bytes of decoded weights at a time */
#define PL_CUDA_LOGIT_ROWS 64       /* rows of logits on the device at a time */
#define PL_CUDA_PARTIALS 8192       /* vectors · splits of one attention */
#define PL_CUDA_EXACT_KEYS 512      /* of a deterministic device's part of an attention */
#define PL_CUDA_GRAPHS 64
#define PL_CUDA_BURST 1024 /* steps that the device makes with no word of the host's, */
#define PL_CUDA_MADE 8192  /* and tokens of all their sequences */

struct pl_cuda_gemm;
struct pl_cuda_profile;

struct pl_device {
    int ordinal, sms, major; /* major: of its compute capability */
    bool plain;              /* all products in f32: what others are held against */
    bool overlap;            /* launches of a decode begin before those before them have ended */
    bool exact;              /* sums of few rows do not depend on how many (pl_cuda_few) */
    int32_t exact_keys;      /* then: keys that one part of an attention takes, at least */
    int64_t partials; /* vectors · splits of one launch: PL_CUDA_PARTIALS, tests take less */
    int graphs;       /* that a model keeps: PL_CUDA_GRAPHS, tests take less */
    bool uncaptured;  /* a capture failed: that model's launches go out one by one */
    char name[64];
    cudaStream_t stream; /* what work is given to: the whole GPU's, or a part's (split.c) */
    cudaStream_t whole;
    struct pl_cuda_part *parts, *part; /* all there are; the one that `narrow` goes to, or NULL */
    int part_id;                       /* of the part that `stream` is; 0: none */
    struct pl_cuda_gemm *gemm;
    void *scratch; /* device memory of operations; grown by pl_cuda_scratch */
    size_t scratch_bytes;
    struct pl_device_work work;
    cudaEvent_t marks[PL_DEVICE_MARKS]; /* NULL: not set yet */
    struct pl_cuda_profile *profile;    /* NULL: none is on */
    cudaEvent_t fence;                  /* of copies to or from another device; NULL: none yet */
};

enum pl_cuda_weight {
    PL_W_Q,
    PL_W_K,
    PL_W_V,
    PL_W_O,
    PL_W_GATE,
    PL_W_UP,
    PL_W_DOWN,
    PL_W_CROSS_Q,
    PL_W_CROSS_K,
    PL_W_CROSS_V,
    PL_W_CROSS_O,
    PL_W_COUNT
};
enum pl_cuda_vector {
    PL_V_ATTN,
    PL_V_ATTN_BIAS,
    PL_V_FFN,
    PL_V_FFN_BIAS,
    PL_V_Q,
    PL_V_K,
    PL_V_CROSS,
    PL_V_COUNT
};

struct pl_cuda_layer {
    struct pl_cuda_matrix w[PL_W_COUNT]; /* data NULL: none */
    float *v[PL_V_COUNT];                /* NULL: none */
};

/* Device memory of one forward, for `rows` rows. in, att and mid hold f32 or `act`. */
struct pl_cuda_work {
    size_t rows;
    float *x, *q, *k, *v, *gate, *up;
    void *in, *att, *mid;
    float *lse, *partial, *logits;
    unsigned *ended;        /* of attentions in parts, [PL_CUDA_PARTIALS] */
    bool stopped;           /* a forward ended midway: what it left in `ended` is not 0, maybe */
    void *decoded;          /* weights as `act` */
    void *block;            /* all of the above are parts of it */
    void *step, *step_host; /* what kernels.h calls a step; on the device, and where it is made */
    size_t step_bytes;
    bool step_busy; /* step_host may still be being read */
};

/* A captured step and what it was captured for. */
struct pl_cuda_graph {
    cudaGraphExec_t exec;
    struct pl_device_work work; /* of its products */
    int rows, n_spans, max_span, splits, part_id;
    bool positions, tree, picks, draws, burst;
    enum pl_dtype kv_dtype;
};

struct pl_network {
    struct pl_device *device;
    struct pl_arch arch;
    enum pl_dtype act;
    struct pl_cuda_layer *layers;
    struct pl_cuda_matrix embed, head, patch, pooler; /* data NULL: none, or tied */
    float *final_gain, *final_bias, *embed_gain, *embed_bias, *positions, *types, *cls, *inv_freq;
    float *relative; /* [buckets, heads] on the host */
    struct pl_network *encoder;
    const struct pl_network *embedder; /* where ids are looked up; NULL: here */
    struct pl_tensor head_tensor, final_tensor;
    struct pl_cuda_work work;
    void *paths, *paths_host; /* path.c's: likewise, from the first tree on */
    void *burst, *burst_host; /* burst.c's: on the device, and pinned; decoders' alone */
    void *kept;               /* its logits of all steps, where they were asked for */
    size_t kept_bytes;
    struct pl_cuda_graph graphs[PL_CUDA_GRAPHS];
    int n_graphs;   /* made so far: of more than there is room for, the oldest went */
    bool no_graphs; /* capturing failed once: launches go out one by one */
    size_t largest; /* elements of the largest matrix that GEMMs decode */
    int64_t widest; /* columns of the widest matrix */
    int64_t bytes;
};

/* As kernels have it: what is in the cache before the rows at hand. */
static inline struct pl_cuda_kv pl_cuda_kv(const struct pl_kv *kv)
{
    return (struct pl_cuda_kv){.k = kv->k,
                               .v = kv->v,
                               .cap = (int32_t)kv->cap,
                               .window = (int32_t)kv->window,
                               .first = (int32_t)kv->first,
                               .len = (int32_t)kv->len,
                               .next_position = (int32_t)kv->next_position};
}

/* 32-bit numbers of a step before its tree: those of rows and spans, ends, picks, a draw. */
static inline size_t pl_cuda_step_numbers(size_t rows)
{
    return 5 * rows + PL_CUDA_SPANS + 1 + PL_MAX_EOS + 2 * PL_CUDA_SPANS + PL_CUDA_DRAW;
}

/* Bytes of a step before its K and V. */
static inline size_t pl_cuda_step_head(size_t rows)
{
    size_t bits = (rows < PL_TREE_MAX ? rows : PL_TREE_MAX) * PL_CUDA_TREE_WORDS;

    return pl_round_up((pl_cuda_step_numbers(rows) + PL_CUDA_TREE_HEAD + bits) * sizeof(int32_t),
                       256);
}

/* Whether so many rows are multiplied in f32, row by row in the same order, and not by the library.
 */
static inline bool pl_cuda_few(const struct pl_device *d, int64_t rows)
{
    return rows <= (d->exact ? PL_EXACT_ROWS : PL_CUDA_GEMV_ROWS);
}

/* What GEMMs of a weight of dt run in. */
static inline enum pl_dtype pl_cuda_act(const struct pl_device *d, enum pl_dtype dt)
{
    return d->plain || dt == PL_DT_F32 ? PL_DT_F32 : dt == PL_DT_F16 ? PL_DT_F16 : PL_DT_BF16;
}

/* PL_ENOMEM when memory ran out, else PL_EDEVICE; "what: the runtime's text". */
PL_MUST_CHECK
enum pl_status pl_cuda_check(cudaError_t e, const char *what, struct pl_err *err);
/* Makes d the calling thread's current device: before anything is allocated, launched or recorded
 * there. Another device, or another thread's, may have been used last. */
PL_MUST_CHECK
enum pl_status pl_cuda_enter(const struct pl_device *d, const char *what, struct pl_err *err);
/* Waits for the stream; what went wrong in it since the last time. */
PL_MUST_CHECK
enum pl_status pl_cuda_sync(struct pl_device *d, const char *what, struct pl_err *err);
/* The same, and for what the runtime's calls that name no stream have begun (clearing, copies of
 * pageable memory), which the stream does not wait for by itself. Unlike a wait for the whole
 * device, it ends no other lane's capture. */
PL_MUST_CHECK
enum pl_status pl_cuda_loaded(struct pl_device *d, const char *what, struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_cuda_alloc(void **out, size_t bytes, const char *what, struct pl_err *err);
/* The host's, that a device copies from and to without a stop (cudaFreeHost). */
PL_MUST_CHECK
enum pl_status pl_cuda_alloc_host(void **out, size_t bytes, const char *what, struct pl_err *err);
/* measure.c: reads how much is used, for the peak; after every allocation. */
void pl_cuda_note_memory(void);
/* At least so many bytes in d->scratch; what was there is lost. */
PL_MUST_CHECK
enum pl_status pl_cuda_scratch(struct pl_device *d, size_t bytes, struct pl_err *err);

/* gemm.c: y[rows, ldy] = x[rows, in] · w[out, in]ᵀ, added to y where `add` says so; x and w of dt,
 * sums and y f32. */
struct pl_cuda_gemm_call {
    enum pl_dtype dtype; /* of w and x */
    enum pl_dtype to;    /* of y: f32, or dtype, then without `add` */
    const void *w, *x;
    void *y;
    int64_t out, in, rows, ldy;
    bool add;
};
PL_MUST_CHECK
enum pl_status pl_cuda_gemm_create(struct pl_cuda_gemm **out, struct pl_err *err);
void pl_cuda_gemm_free(struct pl_cuda_gemm *g);
PL_MUST_CHECK
enum pl_status pl_cuda_gemm_run(struct pl_cuda_gemm *g, const struct pl_cuda_gemm_call *c,
                                cudaStream_t s, struct pl_err *err);

/* y = x · wᵀ + bias (added to y where `add` says so). x: f32 rows, or of `act` when they are not
 * few; decoded: room for weights of another type than act, and for x in 8 bits (NULL, where rows
 * are few: the device's scratch). */
PL_MUST_CHECK
enum pl_status pl_cuda_product(struct pl_device *d, const struct pl_cuda_matrix *w, const void *x,
                               int64_t rows, enum pl_dtype act, void *decoded, float *y, bool add,
                               struct pl_err *err);

/* weight.c: sources → device memory. */
enum pl_dtype pl_cuda_weight_dtype(const struct pl_weight_source *src, enum pl_dtype want);
int64_t pl_cuda_matrix_bytes(const struct pl_weight_source *src, enum pl_dtype want);
PL_MUST_CHECK
enum pl_status pl_cuda_matrix_load(struct pl_device *d, const struct pl_weight_source *src,
                                   enum pl_dtype want, struct pl_cuda_matrix *out,
                                   struct pl_err *err);
void pl_cuda_matrix_free(struct pl_cuda_matrix *m);
/* All of a source as f32; *out NULL when it is absent. on_host: by calloc. */
PL_MUST_CHECK
enum pl_status pl_cuda_vector_load(const struct pl_weight_source *src, bool on_host, float **out,
                                   struct pl_err *err);

/* Room for `rows` rows in one forward, and taps' worth of state. */
PL_MUST_CHECK
enum pl_status pl_cuda_work_reserve(struct pl_network *n, size_t rows, struct pl_err *err);
int64_t pl_cuda_work_bytes(const struct pl_arch *a, size_t rows);
size_t pl_cuda_chunk(const struct pl_arch *a);

/* burst.c: room for the tokens that the device makes by itself. */
PL_MUST_CHECK
enum pl_status pl_cuda_burst_create(struct pl_network *n, struct pl_err *err);

/* measure.c: entries of the vtable. */
size_t pl_cuda_list(struct pl_device_info *out, size_t max);
const char *pl_cuda_version(void);
enum pl_status pl_cuda_ceilings(struct pl_device *d, struct pl_device_ceilings *out,
                                struct pl_err *err);
void pl_cuda_memory(struct pl_device *d, bool reset, struct pl_device_memory *out);
void pl_cuda_mark(struct pl_device *d, int i);
int64_t pl_cuda_between(struct pl_device *d, int from, int to);
void pl_cuda_marks_free(struct pl_device *d);

/* split.c: entries of the vtable; and what a device had of them. */
enum pl_status pl_cuda_split(struct pl_device *first, struct pl_device *second, double share,
                             struct pl_device_split *out, struct pl_err *err);
enum pl_status pl_cuda_narrow(struct pl_device *d, int part, int parts, struct pl_err *err);
void pl_cuda_parts_free(struct pl_device *d);

/* profile.c: entries of the vtable. */
enum pl_status pl_cuda_profile(struct pl_device *d, bool on, struct pl_err *err);
const struct pl_op_time *pl_cuda_profile_read(struct pl_device *d, size_t *n);

/* tensor.c, pixels.c, between.c, network.c, cache.c, forward.c: entries of the vtable. */
enum pl_status pl_cuda_tensor_create(struct pl_device *d, size_t rows, size_t cols,
                                     struct pl_tensor **out, struct pl_err *err);
enum pl_status pl_cuda_weight_create(struct pl_device *d, const struct pl_weight_source *src,
                                     enum pl_dtype dt, struct pl_tensor **out, struct pl_err *err);
void pl_cuda_tensor_free(struct pl_tensor *t);
enum pl_status pl_cuda_upload(struct pl_tensor *t, size_t first, size_t n, const float *src,
                              struct pl_err *err);
enum pl_status pl_cuda_download(const struct pl_tensor *t, size_t first, size_t n, float *dst,
                                struct pl_err *err);
enum pl_status pl_cuda_copy(struct pl_tensor *y, size_t y_first, const struct pl_tensor *x,
                            size_t x_first, size_t n, struct pl_err *err);
enum pl_status pl_cuda_reaches(struct pl_device *from, struct pl_device *to, struct pl_err *err);
enum pl_status pl_cuda_native(struct pl_device *d, struct pl_device_native *out,
                              struct pl_err *err);
float *pl_cuda_address(struct pl_tensor *t);
enum pl_status pl_cuda_poll(struct pl_device *d, bool *done, struct pl_err *err);
enum pl_status pl_cuda_linear(struct pl_tensor *y, const struct pl_tensor *x,
                              const struct pl_tensor *w, const struct pl_tensor *bias,
                              struct pl_err *err);
enum pl_status pl_cuda_norm(enum pl_norm_kind kind, float eps, struct pl_tensor *y,
                            const struct pl_tensor *x, const struct pl_tensor *gain,
                            const struct pl_tensor *bias, struct pl_err *err);
enum pl_status pl_cuda_activate(enum pl_act_kind act, struct pl_tensor *y,
                                const struct pl_tensor *x, struct pl_err *err);
enum pl_status pl_cuda_axpby(float a, const struct pl_tensor *x, float b, struct pl_tensor *y,
                             struct pl_err *err);
enum pl_status pl_cuda_attention(struct pl_tensor *y, const struct pl_tensor *q,
                                 const struct pl_tensor *k, const struct pl_tensor *v, size_t heads,
                                 bool causal, struct pl_err *err);
enum pl_status pl_cuda_topk(const struct pl_tensor *x, size_t k, int32_t *idx, struct pl_err *err);
enum pl_status pl_cuda_gather(struct pl_tensor *y, const struct pl_tensor *x, const int32_t *idx,
                              size_t n, struct pl_err *err);
enum pl_status pl_cuda_pixels(struct pl_device *d, const struct pl_frames *f,
                              const struct pl_preprocess *p, struct pl_tensor *out,
                              struct pl_err *err);
enum pl_status pl_cuda_argmax(const struct pl_tensor *x, int32_t *idx, struct pl_err *err);

enum pl_status pl_cuda_network_create(struct pl_device *d, const struct pl_arch *a,
                                      const struct pl_model_sources *src, enum pl_dtype dt,
                                      struct pl_network **out, struct pl_err *err);
void pl_cuda_network_free(struct pl_network *n);
int64_t pl_cuda_network_need(const struct pl_arch *a, const struct pl_model_sources *src,
                             enum pl_dtype dt);
void pl_cuda_embed(const struct pl_network *n, const int32_t *ids, size_t n_ids, float *out);

enum pl_status pl_cuda_cache_create(struct pl_network *n, const struct pl_cache_opts *o,
                                    struct pl_cache **out, struct pl_err *err);
void pl_cuda_cache_free(struct pl_cache *c);
struct pl_cache_bytes pl_cuda_cache_bytes(const struct pl_cache *c);
struct pl_cache_bytes pl_cuda_cache_need(const struct pl_arch *a, const struct pl_cache_opts *o);
void pl_cuda_cache_keep(struct pl_cache *c, int32_t layer, const int32_t *idx, size_t n);
enum pl_status pl_cuda_cache_keep_path(struct pl_cache *c, size_t rows, const int32_t *idx,
                                       size_t n, struct pl_err *err);
void pl_cuda_cache_sums_clear(struct pl_cache *c);
enum pl_status pl_cuda_forward(struct pl_network *n, const struct pl_forward *f,
                               struct pl_err *err);
enum pl_status pl_cuda_generate(struct pl_network *n, struct pl_cache *const *caches,
                                size_t n_caches, const struct pl_generation *g,
                                struct pl_generated *out, struct pl_err *err);
enum pl_status pl_cuda_encode(struct pl_network *n, struct pl_cache *c, const struct pl_source *s,
                              struct pl_err *err);
enum pl_status pl_cuda_encode_batch(struct pl_network *n, struct pl_cache *const *caches,
                                    const struct pl_source *sources, size_t n_sources,
                                    struct pl_err *err);
enum pl_status pl_cuda_pool(struct pl_network *n, struct pl_cache *c, float *out,
                            struct pl_err *err);

#endif
