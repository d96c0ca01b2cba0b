/*
 * The kernels, as the host's C sees them: launches on a stream, no waiting. All pointers are the
 * device's; matrices are row-major. Sums are f32, whatever the weights are.
 *
 * A step is what one forward knows of its rows; it lies in device memory, so that a captured graph
 * runs on whatever was last copied there.
 */
#ifndef PL_MODEL_CUDA_KERNELS_H
#define PL_MODEL_CUDA_KERNELS_H

#ifdef __cplusplus
extern "C" {
#endif

#include "model/arch.h"
#include "model/dtype.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>

#define PL_CUDA_GEMV_ROWS 8    /* more rows than this are a product for the library */
#define PL_CUDA_STREAM_ROWS 32 /* the same, where tensor cores take the weights as they come */
#define PL_CUDA_PANEL 16       /* rows of a panel of packed weights */
#define PL_CUDA_VECTORS 16     /* query vectors of one attention block */
#define PL_CUDA_MMA_VECTORS 64 /* the same, on tensor cores */
#define PL_CUDA_KEYS 32        /* keys of one tile */
#define PL_CUDA_SPANS 256      /* sequences of one forward */
#define PL_CUDA_MAX_HEAD 256   /* widest head */
#define PL_CUDA_MAX_SPLITS 64  /* parts that a sequence's keys are attended in */
/* Blocks of attend_few.cu that a multiprocessor has room for, of a GPU of that compute capability:
 * of three, ptxas spills registers in the loop for 10. */
#define PL_CUDA_FEW_BLOCKS(major) ((major) >= 10 ? 2 : 3)

/* K and V [kv_heads][cap][head_dim] of one layer of one sequence; row j stands at place j mod cap.
 */
struct pl_cuda_kv {
    void *k, *v;
    int32_t cap, window, first, len; /* as struct pl_kv has them; len before the rows at hand */
    int32_t next_position;
};

struct pl_cuda_step {
    const int32_t *ids;            /* [rows] */
    const int32_t *positions;      /* [rows], or NULL: next_position + place in the span */
    const int32_t *types;          /* [rows] or NULL */
    const int32_t *span, *in_span; /* [rows] */
    const int32_t *span_row;       /* [n_spans + 1] first row of each span */
    const struct pl_cuda_kv *kv;   /* [layers][n_spans] */
    /* The rows are a tree's (backend.h), or NULL: rows of it before these; [PL_TREE_MAX] depth of
     * each; [rows][PL_CUDA_TREE_WORDS] bits of what each row at hand sees of it. */
    const int32_t *tree;
    const int32_t *ends; /* [PL_MAX_EOS] ids that a pick leaves out, −1 behind them */
    int32_t *picks;      /* [PL_CUDA_SPANS][2] struct pl_picked of rows of logits */
    const int32_t *draw; /* [PL_CUDA_DRAW] the bytes of doubles: temperature, u of each such row */
    int32_t rows, n_spans;
};
#define PL_CUDA_DRAW (2 + 2 * PL_CUDA_SPANS)
#define PL_CUDA_TREE_WORDS (PL_TREE_MAX / 32)
#define PL_CUDA_TREE_HEAD (1 + PL_TREE_MAX) /* words before the bits */

/* Whether the kernels of a decode may begin before the one before them has ended, on that GPU,
 * which must be of compute capability 9 or more: their first weights are then on their way when it
 * does. And whether it is so on the current one. */
void pl_k_overlap(int ordinal, bool on);
bool pl_k_overlaps(void);

/* A weight [out, in]: dense, row by row, or in the blocks of a GGUF format. */
struct pl_cuda_matrix {
    void *data;
    int64_t out, in;
    enum pl_dtype dtype;
    size_t row_bytes;
    float *bias; /* [out] or NULL */
    bool packed; /* such blocks, in panels of PL_CUDA_PANEL rows */
};

/* y[r][o] = Σ x[r][k] · w[o][k] + bias[o], added to what y holds where `add` says so. */
struct pl_cuda_product {
    const struct pl_cuda_matrix *w;
    float *y; /* [rows, out] */
    bool add;
};

/* Up to four products of one input [rows, in] in one launch; rows ≤ PL_CUDA_GEMV_ROWS. Dense weights
 * of one dtype and one `in`. */
void pl_k_gemv(const struct pl_cuda_product *p, int n, const float *x, int rows, cudaStream_t s);
/* y[r][o] = act(gate · x[r]) · (up · x[r]) of two dense weights of one type and shape; rows as
 * above. */
void pl_k_gemv_gated(const struct pl_cuda_matrix *gate, const struct pl_cuda_matrix *up,
                     enum pl_act_kind act, const float *x, int rows, float *y, cudaStream_t s);
/* x[r] · gain / √(mean x[r]² + eps) on the way into a product. */
struct pl_cuda_rms {
    const float *gain; /* [in] */
    float eps;
};

/* Both on tensor cores, of up to PL_CUDA_STREAM_ROWS rows and 16-bit weights. x is f32 up to
 * PL_CUDA_GEMV_ROWS rows and of the weights' type beyond them; so is y of the gated one. norm: of
 * x in f32, or NULL. A row's bits do not depend on the other rows, up to PL_CUDA_GEMV_ROWS. */
bool pl_k_gemv_mma_does(const struct pl_cuda_matrix *w, int64_t rows);
void pl_k_gemv_mma(const struct pl_cuda_product *p, int n, const void *x,
                   const struct pl_cuda_rms *norm, int rows, cudaStream_t s);
void pl_k_gemv_mma_gated(const struct pl_cuda_matrix *gate, const struct pl_cuda_matrix *up,
                         enum pl_act_kind act, const void *x, const struct pl_cuda_rms *norm,
                         int rows, void *y, cudaStream_t s);
/* Weights of block formats in panels (gemv_quant.cu), and x in 8 bits, one scale for each 32. Bytes
 * of a packed row (0: dt has no such form); the rows are filled up to whole panels. */
size_t pl_k_packed_row_bytes(enum pl_dtype dt, int64_t in);
/* Rows first … first + n of w from the file's blocks, one row behind the other; first: the first
 * of a panel. */
void pl_k_pack(const struct pl_cuda_matrix *w, int64_t first, int64_t n, const void *blocks,
               cudaStream_t s);
/* What they are multiplied with. */
struct pl_cuda_packed_rows {
    const void *x;                  /* [rows, in] */
    enum pl_dtype type;             /* of x: f32, f16 or bf16 */
    int rows;                       /* ≤ PL_CUDA_STREAM_ROWS */
    const struct pl_cuda_rms *norm; /* of x; NULL: as it is */
    void *room;                     /* pl_k_packed_room(in) bytes */
    int sms;                        /* the GPU's multiprocessors */
};
/* As pl_k_gemv; the products' types may differ: one launch of each type, and one before of more
 * rows than one. A row's bits do not depend on the other rows. */
void pl_k_gemv_packed(const struct pl_cuda_product *p, int n, const struct pl_cuda_packed_rows *x,
                      cudaStream_t s);
size_t pl_k_packed_room(int64_t in);
/* The same as pl_k_gemv_mma_gated, of one type of weights, to: y's, and as pl_k_gemv_mma_qkv, a
 * launch for each type. */
void pl_k_gemv_packed_gated(const struct pl_cuda_matrix *gate, const struct pl_cuda_matrix *up,
                            enum pl_act_kind act, const struct pl_cuda_packed_rows *x, void *y,
                            enum pl_dtype to, cudaStream_t s);
/* What pl_k_decode and pl_k_embed do with packed weights. */
void pl_k_packed_decode(const struct pl_cuda_matrix *w, enum pl_dtype to, void *out,
                        cudaStream_t s);
void pl_k_packed_embed(const struct pl_cuda_matrix *table, const int32_t *ids, int rows, float *x,
                       cudaStream_t s);
/* A weight, or n plain values, as f32, f16 or bf16. */
void pl_k_decode(const struct pl_cuda_matrix *w, enum pl_dtype to, void *out, cudaStream_t s);
void pl_k_cast(const float *x, int64_t n, enum pl_dtype to, void *y, cudaStream_t s);
/* y[r][i] += bias[i] */
void pl_k_add_bias(float *y, const float *bias, int rows, int64_t cols, cudaStream_t s);
void pl_k_scale(float *x, float by, int64_t n, cudaStream_t s);
void pl_k_axpby(float a, const float *x, float b, float *y, int64_t n, cudaStream_t s);
void pl_k_tanh(float *x, int64_t n, cudaStream_t s);
/* Uniform in ±std·√3 from (key, element), the very numbers of pl_weight_read. */
void pl_k_random(enum pl_dtype to, void *out, int64_t n, uint64_t key, float std, cudaStream_t s);

/* x[r] = table row ids[r] */
void pl_k_embed(const struct pl_cuda_matrix *table, const int32_t *ids, int rows, float *x,
                cudaStream_t s);
/* x[r] += table[position + offset] (layer 0's), and table[type] of the second, where given. */
void pl_k_add_tables(const struct pl_cuda_step *step, const float *positions, int32_t offset,
                     const float *types, int64_t cols, float *x, cudaStream_t s);
/* The rows of an image [channels, size, size]: zeros for the class, then patches [channel][y][x].
 */
void pl_k_patches(const float *pixels, int channels, int size, int patch, float *out,
                  cudaStream_t s);
/* One side of a resize on the device (model/resize.h): output i < n reads taps[i] inputs from
 * first + at[i] on, with weights[i · most …]. */
struct pl_cuda_side {
    int32_t n, before, first, rows, most; /* rows: inputs that any output reads */
    const int32_t *at, *taps, *weights;
};
/* last[y · width + x] = 2 + 2 · i + polarity of the last event i there; what no event touches
 * stays. */
void pl_k_raster(const uint16_t *x, const uint16_t *y, const uint8_t *p, int64_t n, int32_t width,
                 uint32_t *last, cudaStream_t s);
/* A picture `width` wide, [height][width][3] bytes or what pl_k_raster left (0: white), to pixels
 * [3][crop][crop] by table[3][256]. wide: y->rows · 3 · x->n bytes of room. */
void pl_k_pixels(const void *picture, bool events, int32_t width, const struct pl_cuda_side *x,
                 const struct pl_cuda_side *y, int32_t crop, const float *table, uint8_t *wide,
                 float *out, cudaStream_t s);
/* y = norm(x) · gain + bias as f32, f16 or bf16; y may be x (f32). */
void pl_k_norm(enum pl_norm_kind kind, float eps, void *y, enum pl_dtype to, const float *x,
               const float *gain, const float *bias, int rows, int64_t cols, cudaStream_t s);
/* y = act(gate) · up, or act(up) without gate, both of type `from`: f32, or y's. y may be up. */
void pl_k_act(enum pl_act_kind act, void *y, enum pl_dtype to, const void *gate, const void *up,
              enum pl_dtype from, int64_t n, cudaStream_t s);

struct pl_cuda_heads {
    int32_t heads, kv_heads, dim, layer;
    enum pl_dtype kv_dtype;
    float eps;
    const float *q_norm, *k_norm; /* [dim] or NULL */
    const float *inv_freq;        /* [dim / 2], NULL: no RoPE */
    float rope_factor;            /* on cos and sin */
    bool append; /* rows go behind the cache's; else row r of the step goes to place r */
};
/* q in place; k and v into the cache. q or k NULL: not there. */
void pl_k_rope_store(const struct pl_cuda_step *step, const struct pl_cuda_heads *h, float *q,
                     float *k, const float *v, cudaStream_t s);
/* pl_k_gemv_mma of Q, K and V with pl_k_rope_store behind it in one launch, for at most
 * PL_CUDA_GEMV_ROWS rows: q in f32 into p[0].y, K and V into the cache alone. Heads of a multiple
 * of 32, below 2^18 elements of them, not normed themselves. */
bool pl_k_gemv_mma_qkv_does(const struct pl_cuda_heads *h);
void pl_k_gemv_mma_qkv(const struct pl_cuda_product *p, const float *x,
                       const struct pl_cuda_rms *norm, const struct pl_cuda_step *step,
                       const struct pl_cuda_heads *h, cudaStream_t s);

void pl_k_gemv_packed_qkv(const struct pl_cuda_product *p, const struct pl_cuda_packed_rows *x,
                          const struct pl_cuda_step *step, const struct pl_cuda_heads *h,
                          cudaStream_t s);

struct pl_cuda_attend {
    const float *q; /* [rows, heads · dim] */
    void *out;      /* the same shape */
    enum pl_dtype to;
    float *lse; /* [rows, heads] log Σ exp of the scores, or NULL */
    int32_t heads, kv_heads, dim, layer;
    enum pl_dtype kv_dtype;
    float scale;
    bool causal;       /* else every row sees all `len` keys */
    const float *bias; /* [heads][bias_span]: of key j for the row at place i: centre + j − i */
    int32_t bias_span, bias_centre;
    const float *mask; /* [len] or NULL */
    int32_t max_span;  /* most rows of a span */
    int32_t splits;    /* ≥ 1; each row's partial results then lie in `partial` */
    float *partial;    /* [n_rows · heads][splits][dim + 2] */
    unsigned *ended; /* [n_rows · heads], all 0: parts that are there; 0 again behind the launch */
    int32_t
        chunk; /* > 0: part s takes keys s · chunk …, whatever the rows see; 0: an equal share */
    int32_t first_row, n_rows; /* of the step: the others are left out */
};
void pl_k_attend(const struct pl_cuda_step *step, const struct pl_cuda_attend *a, cudaStream_t s);
/* Query vectors that a block takes of this one (`tree`: of rows that are a tree's). */
int pl_k_attend_vectors(const struct pl_cuda_attend *a, bool tree);
/* The same of the kernel for few vectors over 16-bit K and V, 0: it does not do this one; and that
 * kernel. pl_k_attend asks. */
int pl_k_attend_few_does(const struct pl_cuda_attend *a, bool tree);
void pl_k_attend_few(const struct pl_cuda_step *step, const struct pl_cuda_attend *a,
                     cudaStream_t s);
/* Whether tensor cores do this one (what is 16 bits wide on both sides, no tree), and how;
 * pl_k_attend asks.
 */
bool pl_k_attend_mma_does(const struct pl_cuda_attend *a);
void pl_k_attend_mma(const struct pl_cuda_step *step, const struct pl_cuda_attend *a,
                     cudaStream_t s);
/* sums[head][key] (row stride `ld`) += p(row, key) of the rows from `skip` on; keys < max_len. */
void pl_k_attend_sums(const struct pl_cuda_step *step, const struct pl_cuda_attend *a, int skip,
                      int max_len, float *sums, int64_t ld, cudaStream_t s);
/* Plain attention of the operation table: q, y [n, heads·d], k, v [m, heads·d]. */
void pl_k_attend_small(float *y, const float *q, const float *k, const float *v, int n, int m,
                       int heads, int dim, bool causal, cudaStream_t s);

/* Keeps, of each KV head, the rows idx[head · n + i] (places from `base` on), in order. */
void pl_k_kv_keep(const struct pl_cuda_kv *kv, int kv_heads, int dim, enum pl_dtype dt, int base,
                  const int32_t *idx, int n, void *k_to, void *v_to, cudaStream_t s);
/* Rows of K and V at places base, base + 1, … and their copies aside, [kv_heads][rows][dim]. */
struct pl_cuda_kv_side {
    struct pl_cuda_kv kv;
    int32_t base, kv_heads, dim, rows;
    enum pl_dtype dtype;
    void *k, *v;
};
/* The first n of the places to the copies; or back, place i from copy idx[i] (NULL: i). */
void pl_k_kv_side(const struct pl_cuda_kv_side *side, const int32_t *idx, int32_t n, bool back,
                  cudaStream_t s);
void pl_k_gather(float *y, const float *x, const int32_t *idx, int n, int64_t cols, cudaStream_t s);
/* idx[r] as pl_logits_argmax */
void pl_k_argmax(const float *x, int rows, int64_t cols, int32_t *idx, cudaStream_t s);
/* Reads n·16 bytes once through, 16 at a time; *out changes only if they xor to `never`. */
void pl_k_read(const void *from, int64_t n, uint32_t never, uint32_t *out, int blocks,
               cudaStream_t s);
/* picks[r] = {best that is none of ends, −1: NaN or infinite; best of all} */
void pl_k_pick(const float *x, int rows, int64_t cols, const int32_t *ends, int32_t *picks,
               cudaStream_t s);
/* The same, drawn (struct pl_draw): x is the step's rows from `first` on, as are u and picks. */
void pl_k_draw(const float *x, int first, int rows, int64_t cols, const int32_t *ends,
               const int32_t *draw, int32_t *picks, cudaStream_t s);
/* A token that the device made, when by its clock. */
struct pl_cuda_made {
    int32_t id, all; /* as struct pl_picked has them */
    int64_t ns;
};
/* What the device needs to make token after token by itself. */
struct pl_cuda_burst {
    int32_t *at;               /* steps made so far */
    const double *draws;       /* [steps + 1][n_spans]; NULL: greedy */
    struct pl_cuda_made *made; /* [steps][n_spans] */
};
/* Writes down what was picked of each sequence of a step, and makes it the sequence's only row of
 * the next one, with the next draw. */
void pl_k_burst_next(const struct pl_cuda_step *step, int layers, const struct pl_cuda_burst *b,
                     cudaStream_t s);
/* The k largest of n, as ascending indices: one block, four passes of 256 buckets. */
void pl_k_topk(const float *x, int n, int k, int32_t *idx, cudaStream_t s);

#ifdef __cplusplus
}
#endif
#endif
