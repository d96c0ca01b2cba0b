/*
 * The inner loops of the CPU backend: kernels.c, attend.c, quant.c and q8*.c, compiled once for
 * each instruction set, chosen at run time.
 *
 * Order of operations, which is what makes results independent of rows and threads: an element of a
 * product is one chain acc = fma(x[k], w[k], acc) in rising k (lanes lie over outputs, so a
 * vector's width does not matter); sums over a row use 16 lanes, lane i taking elements i, i + 16,
 * …, then folded 8, 4, 2, 1. The portable path multiplies and adds where the others fuse.
 */
#ifndef PL_MODEL_CPU_KERNELS_H
#define PL_MODEL_CPU_KERNELS_H

#include "base/arena.h"
#include "model/arch.h"
#include "model/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_PANEL 16 /* outputs of a weight that lie side by side */
#define PL_GEMM_ROWS                                                                               \
    132 /* rows whose 256 columns stay in L2 while panels pass; half a chunk in one go */
/* Floats a thread lends to gemm: 256 columns of a panel and of those rows. */
#define PL_GEMM_SCRATCH (256 * (PL_PANEL + PL_GEMM_ROWS))
#define PL_ATTN_CHUNK 64  /* keys whose softmax is merged at once */
#define PL_ATTN_BLOCK 48  /* most query vectors of one attend call */
#define PL_ATTN_PITCH 144 /* floats between those of up to 128, an odd number of lines */

struct pl_q8;

/*
 * y[rows, n] = x[rows, k] · wᵀ for the outputs of panels [first, end). A panel holds 16 outputs as
 * [k][16] in dtype; panel p starts at element p · stride. Output o of the last panel is only stored
 * when o < n.
 *
 * A block format (model/quant.h) stands row by row: row o starts at byte o · stride (or, paired, at
 * that of row pl_weight_row(o)). Its products are bit for bit those of the f32 weights that it
 * decodes to.
 *
 * With q8 the weights are those formats repacked (q8.h), panels `stride` bytes apart; row r's
 * columns from 256 · c on are q8[c · ldq8 + r], and x is not read.
 *
 * With pairs both x and the panels hold two bf16 of one row or output wherever a float would stand,
 * the earlier column in the lower half, the last one's partner 0 where columns are odd; ldx, stride
 * and k count pairs. A step of the chain is then vdpbf16ps: acc = fma(x, w, acc) of the pair's
 * later column, then of its earlier one, what is subnormal taken for 0.
 */
struct pl_gemm {
    const float *x;
    const struct pl_q8 *q8; /* NULL: the product is one of floats */
    size_t ldx, ldq8, rows, k;
    const void *w;
    enum pl_dtype dtype; /* f32, f16, bf16, block formats */
    size_t stride, first, end, n;
    size_t paired; /* of block formats; see backend.h */
    bool pairs;    /* only with a path that has `round` */
    float *y;
    size_t ldy;
    bool resume;       /* the chains start from what y holds, not from 0; not with q8 */
    const float *bias; /* [n] or NULL: added to the finished chain */
    float *add_to;     /* [rows, n] or NULL: what y would be is added to it; y is only room */
    size_t ld_add;
    float *scratch; /* [PL_GEMM_SCRATCH] */
};

/* Softmax attention of up to PL_ATTN_BLOCK query vectors on one KV head. Keys in panels of 16:
 * element d of key j at (j / 16 · dim + d) · 16 + j % 16. Values in chunks of 64: element d of key
 * j at
 * (((j / 64) · vp + d / 16) · 64 + j % 64) · 16 + d % 16, vp = panels of dim. */
struct pl_attend {
    const float *q[PL_ATTN_BLOCK]; /* [dim] each */
    float *out[PL_ATTN_BLOCK];     /* [dim] each */
    /* Each sees keys first … len − 1, at least one; neither falls from one to the next. */
    size_t len[PL_ATTN_BLOCK], first[PL_ATTN_BLOCK];
    /* NULL, or what is added to a query's scaled score of key j: bias[j], readable up to the end of
     * a chunk of 64. mask: the same for all queries, finite. */
    const float *bias[PL_ATTN_BLOCK], *mask;
    size_t n, dim;
    size_t ring; /* > 0: key j stands at place j mod ring, a multiple of 64 */
    const void *k, *v;
    /* NULL, or keys from `tail` on (a multiple of 64) stand there instead, from its beginning. */
    const void *tail_k, *tail_v;
    size_t tail;
    enum pl_dtype dtype;
    float scale;
    float *scratch; /* [pl_attend_scratch(dim)] */
};

static inline size_t pl_attend_pitch(size_t dim)
{
    return dim <= 128 ? PL_ATTN_PITCH : pl_round_up(dim, 16) + 16;
}

static inline size_t pl_attend_scratch(size_t dim)
{
    return PL_GEMM_SCRATCH +
           PL_ATTN_BLOCK * (PL_ATTN_CHUNK + pl_round_up(dim, 16) + pl_attend_pitch(dim));
}

struct pl_kernels {
    const char *name;
    void (*gemm)(const struct pl_gemm *g);
    /* n columns (a multiple of 32) of one row → structs `stride` apart */
    void (*quantize)(const float *x, size_t n, struct pl_q8 *out, size_t stride);
    /* NULL: gemm takes no pairs. n columns of one row → pairs of bf16, to nearest even; out is read
     * as pl_gemm.x */
    void (*round)(const float *x, size_t n, float *out);
    void (*attend)(const struct pl_attend *a);
    /* p[0…len) = softmax(q · keys · scale) over keys first … len − 1, 0 before them; p has room for
     * len rounded up to 64 */
    void (*weights)(float *p, const float *q, size_t dim, const void *k, enum pl_dtype dtype,
                    size_t first, size_t len, float scale, float *scratch);
    /* y[n] = norm(x) · gain + bias (bias may be NULL); y may be x */
    void (*norm)(enum pl_norm_kind kind, float eps, float *y, const float *x, const float *gain,
                 const float *bias, size_t n);
    /* y = act(x) or, with up, act(x) · up; y may be x */
    void (*act)(enum pl_act_kind act, float *y, const float *x, const float *up, size_t n);
};

extern const struct pl_kernels pl_kernels_portable;
extern const struct pl_kernels pl_kernels_avx2;
extern const struct pl_kernels pl_kernels_avx512;     /* with VNNI */
extern const struct pl_kernels pl_kernels_avx512bf16; /* and vdpbf16ps */

#ifdef PL_KERNELS /* the path that is being compiled */
extern const struct pl_kernels PL_KERNELS;
/* attend.c: `attend` and `weights`. */
void PL_ATTEND(const struct pl_attend *a);
void PL_WEIGHTS(float *p, const float *q, size_t dim, const void *k, enum pl_dtype dtype,
                size_t first, size_t len, float scale, float *scratch);
/* quant.c: gemm of block formats, less bias and add_to. */
void PL_QUANT_GEMM(const struct pl_gemm *g);
/* q8.c: the same with q8; q8_quantize.c: `quantize`. */
void PL_Q8_GEMM(const struct pl_gemm *g);
void PL_Q8_QUANTIZE(const float *x, size_t n, struct pl_q8 *out, size_t stride);
#ifdef PL_Q8_BYTES /* this path has one of its own for many rows of q8_0 (q8_bytes.c) */
void PL_Q8_BYTES(const struct pl_gemm *g);
#endif
#endif

#endif
