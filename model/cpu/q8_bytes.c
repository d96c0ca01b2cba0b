/*
 * Many rows of activations with q8_0's weights, with AVX2 (layouts and order: q8.h). Products of
 * bytes fill 16 bits, so that nothing can be summed there as q8.c does with fewer bits: the sign of
 * a weight goes to the activation (vpsignb), then vpmaddubsw, vpmaddwd and vpaddd, for four rows at
 * once whose sums stay in registers. In registers that is 75 · 10⁹ multiply-adds a second on Zen 3.
 */
#include "model/cpu/q8.h"

#include <immintrin.h>
#include <string.h>

#define GROUP 4 /* rows */
#define TILE 64 /* rows that pass 256 columns of a panel */
#define BLOCK (32 + 16 * PL_Q8_UNIT)

#define INLINE static inline __attribute__((always_inline))

/* sum += four columns of a row by both halves of a panel's outputs; w their weights, w0 and w1
 * these without sign. In assembly, since GCC mixes the rows of a group until registers do not
 * suffice. */
INLINE void add_four(__m256i *sum0, __m256i *sum1, __m256i w0, __m256i w1, const uint8_t *w,
                     __m256i one, const int8_t *q)
{
    __m256i x, y;

    __asm__("vpbroadcastd %[q], %[x]\n\t"
            "vpsignb %[m0], %[x], %[y]\n\t"
            "vpsignb %[m1], %[x], %[x]\n\t"
            "vpmaddubsw %[y], %[w0], %[y]\n\t"
            "vpmaddubsw %[x], %[w1], %[x]\n\t"
            "vpmaddwd %[one], %[y], %[y]\n\t"
            "vpmaddwd %[one], %[x], %[x]\n\t"
            "vpaddd %[y], %[s0], %[s0]\n\t"
            "vpaddd %[x], %[s1], %[s1]"
            : [s0] "+x"(*sum0), [s1] "+x"(*sum1), [x] "=&x"(x), [y] "=&x"(y)
            : [w0] "x"(w0), [w1] "x"(w1), [m0] "m"(*(const uint8_t(*)[32])w),
              [m1] "m"(*(const uint8_t(*)[32])(w + 32)), [one] "x"(one),
              [q] "m"(*(const int8_t(*)[4])q));
}

INLINE __m256i magnitude(const uint8_t *w)
{
    return _mm256_abs_epi8(_mm256_loadu_si256((const __m256i *)(const void *)w));
}

/* `units` blocks and `rows` rows, a constant where this is inlined: their chains in out go on. */
INLINE void group(size_t rows, const uint8_t *w, const struct pl_q8 *a, size_t units, bool fetch,
                  float out[][PL_PANEL])
{
    const __m256i one = _mm256_set1_epi16(1);

    for (size_t u = 0; u < units; u++, w += BLOCK) {
        __m256i acc[GROUP][2];
        if (fetch)
            pl_q8_fetch(w, BLOCK);
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++)
            acc[r][0] = acc[r][1] = _mm256_setzero_si256();
#pragma GCC unroll 1
        for (size_t j = 0; j < 8; j++) {
            const uint8_t *at = w + 32 + 64 * j;
            const __m256i w0 = magnitude(at), w1 = magnitude(at + 32);
#pragma GCC unroll 4
            for (size_t r = 0; r < rows; r++)
                add_four(&acc[r][0], &acc[r][1], w0, w1, at, one, a[r].q + PL_Q8_UNIT * u + 4 * j);
        }
#pragma GCC unroll 2
        for (size_t h = 0; h < 2; h++) {
            const __m256 d =
                _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(w + 16 * h)));
#pragma GCC unroll 4
            for (size_t r = 0; r < rows; r++)
                _mm256_storeu_ps(out[r] + 8 * h,
                                 _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(acc[r][h]), d),
                                                 _mm256_broadcast_ss(&a[r].d[u]),
                                                 _mm256_loadu_ps(out[r] + 8 * h)));
        }
        __asm__ volatile("" ::: "memory"); /* out stays there: registers are short */
    }
}

static void any_group(size_t rows, const uint8_t *w, const struct pl_q8 *a, size_t units,
                      bool fetch, float out[][PL_PANEL])
{
    switch (rows) {
    case 1:
        group(1, w, a, units, fetch, out);
        break;
    case 2:
        group(2, w, a, units, fetch, out);
        break;
    case 3:
        group(3, w, a, units, fetch, out);
        break;
    default:
        group(GROUP, w, a, units, fetch, out);
        break;
    }
}

/* Rows [r0, r0 + rows) of panel p. */
static void panel_tile(const struct pl_gemm *g, size_t p, size_t r0, size_t rows)
{
    const size_t n = g->n - p * PL_PANEL < PL_PANEL ? g->n - p * PL_PANEL : PL_PANEL;
    const uint8_t *w = (const uint8_t *)g->w + p * g->stride;
    const struct pl_q8 *a = g->q8 + r0;
    float out[TILE][PL_PANEL];

    memset(out, 0, rows * sizeof(out[0]));
    for (size_t k = 0; k < g->k; k += PL_Q8_CHUNK, a += g->ldq8) {
        const size_t left = g->k - k,
                     units = (left < PL_Q8_CHUNK ? left : PL_Q8_CHUNK) / PL_Q8_UNIT;
        for (size_t r = 0; r < rows; r += GROUP)
            any_group(rows - r < GROUP ? rows - r : GROUP, w, a + r, units, !r && rows <= PL_Q8_FEW,
                      out + r);
        w += units * BLOCK;
    }
    for (size_t r = 0; r < rows; r++)
        memcpy(g->y + (r0 + r) * g->ldy + p * PL_PANEL, out[r], n * sizeof(float));
}

/* A tile's rows stay near while all panels pass. */
void PL_Q8_BYTES(const struct pl_gemm *g)
{
    for (size_t r = 0; r < g->rows; r += TILE)
        for (size_t p = g->first; p < g->end; p++)
            panel_tile(g, p, r, g->rows - r < TILE ? g->rows - r : TILE);
}
