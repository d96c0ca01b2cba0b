/*
 * Products with weights of block formats, in f32: sixteen rows are unpacked to bytes, the bytes
 * turned so that outputs lie side by side, and each vector of weights made from them on the way to
 * the accumulators (few rows) or once into a panel of floats (many rows). A weight's value and the
 * order of every chain are those of kernels.c with the decoded weights.
 *
 * Turning bytes takes a quarter of the shuffles that turning floats would. Another product, such as
 * one of 8-bit activations, finds its integers and scales in the same `turned`.
 */
#include "model/cpu/vec.h"
#include "model/quant_blocks.h"

#include <string.h>

#define FUSED_ROWS MAX_ROWS /* up to here weights are made in registers */

/* Up to K_BLOCK columns of a panel: q [k][16], scale and add [k / group][16]. */
struct turned {
    int8_t q[K_BLOCK * PL_PANEL];
    float scale[PL_QUANT_GROUPS * PL_PANEL], add[PL_QUANT_GROUPS * PL_PANEL];
};

_Static_assert(K_BLOCK % PL_QUANT_BLOCK == 0, "blocks are not cut");
_Static_assert(PL_PANEL == 16, "a panel is sixteen bytes wide");
_Static_assert(PL_GEMM_SCRATCH >= K_BLOCK * PL_PANEL, "a panel of floats fits the scratch");

/* in[16 rows][K_BLOCK] → out[n][16]; n is a multiple of 32. */
#if defined(PL_ISA_AVX2)
static __attribute__((noinline)) void turn(const int8_t *in, size_t n, int8_t *out)
{
    /* Each round of shuffles rotates the index (row, column) by one bit; two halves at a time. */
    for (size_t k = 0; k < n; k += 32) {
        __m256i a[16], b[16];
        for (int r = 0; r < 16; r++)
            a[r] = _mm256_loadu_si256((const __m256i *)(in + r * K_BLOCK + k));
#pragma GCC unroll 2
        for (int round = 0; round < 2; round++) {
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) {
                b[2 * i] = _mm256_unpacklo_epi8(a[i], a[i + 8]);
                b[2 * i + 1] = _mm256_unpackhi_epi8(a[i], a[i + 8]);
            }
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) {
                a[2 * i] = _mm256_unpacklo_epi8(b[i], b[i + 8]);
                a[2 * i + 1] = _mm256_unpackhi_epi8(b[i], b[i + 8]);
            }
        }
        for (int i = 0; i < 16; i++) {
            int8_t *to = out + (k + (size_t)i) * PL_PANEL;
            _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(a[i]));
            _mm_storeu_si128((__m128i *)(to + 16 * PL_PANEL), _mm256_extracti128_si256(a[i], 1));
        }
    }
}
#else
static __attribute__((noinline)) void turn(const int8_t *in, size_t n, int8_t *out)
{
    for (size_t k = 0; k < n; k++)
        for (size_t r = 0; r < PL_PANEL; r++)
            out[k * PL_PANEL + r] = in[r * K_BLOCK + k];
}
#endif

/* Columns [k0, k0 + n) of panel p; dt is a constant where this is inlined. Rows behind the last
 * output repeat it: nobody reads them. */
INLINE void unpack_rows(enum pl_dtype dt, uint32_t block, uint32_t bytes, const struct pl_gemm *g,
                        size_t p, size_t k0, size_t n, struct turned *t)
{
    const size_t groups = block / pl_quant_group(dt), d = g->paired, half = d / 2;
    float scale[PL_QUANT_GROUPS], add[PL_QUANT_GROUPS] = {0};
    int8_t q[PL_PANEL * K_BLOCK];

    for (size_t r = 0; r < PL_PANEL; r++) {
        size_t o = p * PL_PANEL + r < g->n ? p * PL_PANEL + r : g->n - 1;
        size_t row = d ? o / d * d + o % d % half * 2 + o % d / half : o;
        const uint8_t *from = (const uint8_t *)g->w + row * g->stride + k0 / block * bytes;
        for (size_t b = 0; b < n / block; b++, from += bytes) {
            /* Hardware does not foresee the step from row to row; beyond the end is harmless. */
            for (uint32_t i = 0; i < bytes; i += 64)
                __builtin_prefetch(from + PL_PANEL * g->stride + i);
            pl_quant_unpack(dt, from, q + r * K_BLOCK + b * block, scale, add);
            for (size_t i = 0; i < groups; i++) {
                t->scale[(b * groups + i) * PL_PANEL + r] = scale[i];
                if (pl_quant_has_add(dt))
                    t->add[(b * groups + i) * PL_PANEL + r] = add[i];
            }
        }
    }
    turn(q, n, t->q);
}

/* The formats, each its own loop. */
static void unpack_panel(const struct pl_gemm *g, size_t p, size_t k0, size_t n, struct turned *t)
{
    switch (g->dtype) {
#define PL_X(dt, block, bytes)                                                                     \
    case dt:                                                                                       \
        unpack_rows(dt, block, bytes, g, p, k0, n, t);                                             \
        break;
        PL_QUANT_LIST(PL_X)
#undef PL_X
    default:
        break;
    }
}

/* WIDTH integers as floats. */
INLINE vf convert(const int8_t *q)
{
#if defined(PL_ISA_AVX512)
    return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)q)));
#elif defined(PL_ISA_AVX2)
    return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)q)));
#else
    vf v;
    for (int i = 0; i < WIDTH; i++)
        v[i] = (float)q[i];
    return v;
#endif
}

/* The weights of column k as vectors. */
INLINE void weights(const struct turned *t, size_t k, bool has_add, const vf *scale, const vf *add,
                    vf *w)
{
#pragma GCC unroll 4
    for (int j = 0; j < PER_PANEL; j++) {
        w[j] = convert(t->q + k * PL_PANEL + j * WIDTH) * scale[j];
        if (has_add)
            w[j] = w[j] + add[j];
    }
}

/* mr rows on n columns: chains go on from acc[mr][16]. */
INLINE void fused(int mr, bool has_add, const struct turned *t, size_t group, const float *x,
                  size_t ldx, size_t n, float *chains)
{
    vf acc[MAX_ROWS][PER_PANEL], scale[PER_PANEL], add[PER_PANEL], w[PER_PANEL];

#pragma GCC unroll 16
    for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
        for (int j = 0; j < PER_PANEL; j++)
            acc[m][j] = load(chains + m * PL_PANEL + j * WIDTH);
    for (size_t k0 = 0; k0 < n; k0 += group) {
#pragma GCC unroll 4
        for (int j = 0; j < PER_PANEL; j++) {
            scale[j] = load(t->scale + k0 / group * PL_PANEL + (size_t)j * WIDTH);
            if (has_add)
                add[j] = load(t->add + k0 / group * PL_PANEL + (size_t)j * WIDTH);
        }
        for (size_t k = k0; k < k0 + group; k++) {
            weights(t, k, has_add, scale, add, w);
#pragma GCC unroll 16
            for (int m = 0; m < mr; m++) {
                vf a = splat(x[(size_t)m * ldx + k]);
#pragma GCC unroll 4
                for (int j = 0; j < PER_PANEL; j++)
                    acc[m][j] = fma_(a, w[j], acc[m][j]);
            }
        }
    }
#pragma GCC unroll 16
    for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
        for (int j = 0; j < PER_PANEL; j++)
            store(chains + m * PL_PANEL + j * WIDTH, acc[m][j]);
}

INLINE void fused_rows(size_t mr, bool has_add, const struct turned *t, size_t group,
                       const float *x, size_t ldx, size_t n_columns, float *chains)
{
    switch (mr) {
#define X(n)                                                                                       \
    case n:                                                                                        \
        fused(n, has_add, t, group, x, ldx, n_columns, chains);                                    \
        break;
        ROW_CASES(X)
#undef X
    default:
        break;
    }
}

static size_t block_width(const struct pl_gemm *g, size_t k0)
{
    return g->k - k0 < K_BLOCK ? g->k - k0 : K_BLOCK;
}

static size_t panel_width(const struct pl_gemm *g, size_t p)
{
    return g->n - p * PL_PANEL < PL_PANEL ? g->n - p * PL_PANEL : PL_PANEL;
}

/* Few rows: a panel's chains stay in reach while its columns pass. */
static void few_rows(const struct pl_gemm *g, struct turned *t)
{
    size_t group = pl_quant_group(g->dtype);
    float chains[MAX_ROWS * PL_PANEL];

    for (size_t p = g->first; p < g->end; p++) {
        float *y = g->y + p * PL_PANEL;
        memset(chains, 0, sizeof(chains));
        for (size_t m = 0; g->resume && m < g->rows; m++)
            memcpy(chains + m * PL_PANEL, y + m * g->ldy, panel_width(g, p) * sizeof(float));
        for (size_t k0 = 0; k0 < g->k; k0 += K_BLOCK) {
            size_t n = block_width(g, k0);
            unpack_panel(g, p, k0, n, t);
            if (pl_quant_has_add(g->dtype))
                fused_rows(g->rows, true, t, group, g->x + k0, g->ldx, n, chains);
            else
                fused_rows(g->rows, false, t, group, g->x + k0, g->ldx, n, chains);
        }
        for (size_t m = 0; m < g->rows; m++)
            memcpy(y + m * g->ldy, chains + m * PL_PANEL, panel_width(g, p) * sizeof(float));
    }
}

static void decode_panel(const struct turned *t, enum pl_dtype dt, size_t n, float *out)
{
    size_t group = pl_quant_group(dt);
    bool has_add = pl_quant_has_add(dt);

    for (size_t k = 0; k < n; k++) {
        const float *scale = t->scale + k / group * PL_PANEL, *add = t->add + k / group * PL_PANEL;
#pragma GCC unroll 4
        for (int j = 0; j < PER_PANEL; j++) {
            vf w = convert(t->q + k * PL_PANEL + j * WIDTH) * load(scale + j * WIDTH);
            if (has_add)
                w = w + load(add + j * WIDTH);
            store(out + k * PL_PANEL + (size_t)j * WIDTH, w);
        }
    }
}

/* Many rows: each panel's block is decoded once and all rows pass it. */
static void many_rows(const struct pl_gemm *g, struct turned *t)
{
    for (size_t k0 = 0; k0 < g->k; k0 += K_BLOCK) {
        for (size_t p = g->first; p < g->end; p++) {
            struct pl_gemm part = {.x = g->x + k0,
                                   .ldx = g->ldx,
                                   .rows = g->rows,
                                   .k = block_width(g, k0),
                                   .w = g->scratch,
                                   .dtype = PL_DT_F32,
                                   .end = 1,
                                   .n = panel_width(g, p),
                                   .y = g->y + p * PL_PANEL,
                                   .ldy = g->ldy,
                                   .resume = g->resume || k0 > 0};
            unpack_panel(g, p, k0, part.k, t);
            decode_panel(t, g->dtype, part.k, g->scratch);
            PL_KERNELS.gemm(&part);
        }
    }
}

void PL_QUANT_GEMM(const struct pl_gemm *g)
{
    struct turned t;

    if (g->rows <= FUSED_ROWS)
        few_rows(g, &t);
    else
        many_rows(g, &t);
}
