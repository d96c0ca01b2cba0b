/*
 * What products of floats and attention share: weights as floats, a tile of a product held in
 * registers, sums over lanes and eˣ. For files that are compiled once for each instruction set.
 */
#ifndef PL_MODEL_CPU_TILE_H
#define PL_MODEL_CPU_TILE_H

#include "model/cpu/vec.h"

#include <math.h>
#include <string.h>

INLINE vf pick(vi mask, vf yes, vf no)
{
#if defined(PL_ISA_AVX2) && !defined(PL_ISA_AVX512)
    return (vf)_mm256_blendv_ps((__m256)no, (__m256)yes, (__m256)mask);
#else
    return (vf)(((vi)yes & mask) | ((vi)no & ~mask));
#endif
}

/* Where a dtype is asked for: no type of values, but pl_gemm.pairs. */
#define BF16_PAIRS PL_DT_COUNT

/* Whether a weight takes four bytes, and stands as the tile wants it. */
INLINE bool is_wide(enum pl_dtype dt)
{
    return dt == PL_DT_F32 || dt == BF16_PAIRS;
}

INLINE const void *element(const void *w, size_t i, enum pl_dtype dt)
{
    return (const char *)w + i * (is_wide(dt) ? 4 : 2);
}

/* WIDTH weights from element i on. */
INLINE vf load_weight(const void *w, size_t i, enum pl_dtype dt)
{
    if (is_wide(dt))
        return load((const float *)w + i);
#if defined(PL_ISA_AVX512)
    __m256i h = _mm256_loadu_si256((const __m256i *)((const uint16_t *)w + i));
    if (dt == PL_DT_F16)
        return (vf)_mm512_cvtph_ps(h);
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16);
#elif defined(PL_ISA_AVX2)
    __m128i h = _mm_loadu_si128((const __m128i *)((const uint16_t *)w + i));
    if (dt == PL_DT_F16)
        return (vf)_mm256_cvtph_ps(h);
    return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16);
#else
    vu u = __builtin_convertvector(*(const vh *)((const uint16_t *)w + i), vu);
    if (dt == PL_DT_BF16)
        return (vf)(u << 16);
    /* exponent and mantissa moved into place, then rebiased by an exact product (subnormals too) */
    vf v = (vf)((u & 0x7fff) << 13) * splat(0x1p112f);
    vi top = (u & 0x7c00) == 0x7c00;
    v = pick(top, (vf)((u & 0x7fff) << 13 | 0x7f800000), v);
    return (vf)((vu)v | (u & 0x8000) << 16);
#endif
}

/* What the finished chains of a panel's 16 outputs go through while they are in registers: plus
 * bias, then the sum with `add`, whose rows are ld_add apart. NULL: nothing. */
struct behind {
    const float *bias;
    float *add;
    size_t ld_add;
};

/* An activation for every lane. */
INLINE vf every_lane(const float *x, enum pl_dtype dt)
{
#ifdef PL_ISA_BF16
    int32_t pair;

    memcpy(&pair, x, sizeof(pair));
    if (dt == BF16_PAIRS)
        return (vf)_mm512_set1_epi32(pair);
#endif
    (void)dt;
    return splat(*x);
}

INLINE vf multiply_add(vf a, vf b, vf c, enum pl_dtype dt)
{
#ifdef PL_ISA_BF16
    if (dt == BF16_PAIRS)
        return dot_pairs(a, b, c);
#endif
    (void)dt;
    return fma_(a, b, c);
}

/* mr rows × np panels, both constants where this is inlined; `then` only with one panel. Where it
 * adds, y is left as it was. */
INLINE void tile(int mr, int np, enum pl_dtype dt, const float *x, size_t ldx, size_t k,
                 const void *w, size_t stride, float *y, size_t ldy, bool resume,
                 struct behind then)
{
    const int nv = np * PER_PANEL;
    vf acc[MAX_ROWS][4 * PER_PANEL], b[4 * PER_PANEL];

#pragma GCC unroll 16
    for (int m = 0; m < mr; m++) {
#pragma GCC unroll 16
        for (int j = 0; j < nv; j++)
            acc[m][j] = resume ? load(y + (size_t)m * ldy + (size_t)j * WIDTH) : splat(0);
    }
    for (size_t i = 0; i < k; i++) {
#pragma GCC unroll 16
        for (int j = 0; j < nv; j++)
            b[j] = load_weight(w,
                               (size_t)(j / PER_PANEL) * stride + i * PL_PANEL +
                                   (size_t)(j % PER_PANEL) * WIDTH,
                               dt);
#pragma GCC unroll 16
        for (int m = 0; m < mr; m++) {
            vf a = every_lane(x + (size_t)m * ldx + i, dt);
#pragma GCC unroll 16
            for (int j = 0; j < nv; j++)
                acc[m][j] = multiply_add(a, b[j], acc[m][j], dt);
        }
    }
    if (then.bias) {
#pragma GCC unroll 16
        for (int j = 0; j < nv; j++)
            b[j] = load(then.bias + (size_t)j * WIDTH);
#pragma GCC unroll 16
        for (int m = 0; m < mr; m++)
#pragma GCC unroll 16
            for (int j = 0; j < nv; j++)
                acc[m][j] += b[j];
    }
    if (then.add) {
        y = then.add;
        ldy = then.ld_add;
#pragma GCC unroll 16
        for (int m = 0; m < mr; m++)
#pragma GCC unroll 16
            for (int j = 0; j < nv; j++)
                acc[m][j] = load(y + (size_t)m * ldy + (size_t)j * WIDTH) + acc[m][j];
    }
#pragma GCC unroll 16
    for (int m = 0; m < mr; m++) {
#pragma GCC unroll 16
        for (int j = 0; j < nv; j++)
            store(y + (size_t)m * ldy + (size_t)j * WIDTH, acc[m][j]);
    }
}

/* Up to MAX_ROWS rows on one panel. */
INLINE void rows_by_panel(size_t mr, enum pl_dtype dt, const float *x, size_t ldx, size_t k,
                          const void *w, float *y, size_t ldy, bool resume, struct behind then)
{
    switch (mr) {
#define X(n)                                                                                       \
    case n:                                                                                        \
        tile(n, 1, dt, x, ldx, k, w, 0, y, ldy, resume, then);                                     \
        break;
        ROW_CASES(X)
#undef X
    default:
        break;
    }
}

/* The 16 lanes of a row sum, folded 8, 4, 2, 1. */
INLINE float fold(const float lane[16])
{
    float s[8];

    for (int i = 0; i < 8; i++)
        s[i] = lane[i] + lane[i + 8];
    for (int i = 0; i < 4; i++)
        s[i] += s[i + 4];
    s[0] += s[2];
    s[1] += s[3];
    return s[0] + s[1];
}

#define EXP_LOWEST (-87.3365402f)
#define EXP_MAGIC 12582912.0f /* 1.5 · 2²³: what is added to it stands in the lowest bits */

/* eˣ / 2ⁿ to about 1 ulp, by Cody and Waite's reduction and the polynomial of Cephes' expf; *t: n +
 * EXP_MAGIC. */
INLINE vf exp_reduced(vf x, vf *t)
{
    const vf magic = splat(EXP_MAGIC);
    *t = fma_(x, splat(1.44269504088896341f), magic);
    vf n = *t - magic;
    vf r = fma_(n, splat(-0.693359375f), x);
    r = fma_(n, splat(2.12194440e-4f), r);
    vf p = splat(1.9875691500e-4f);
    p = fma_(p, r, splat(1.3981999507e-3f));
    p = fma_(p, r, splat(8.3334519073e-3f));
    p = fma_(p, r, splat(4.1665795894e-2f));
    p = fma_(p, r, splat(1.6666665459e-1f));
    p = fma_(p, r, splat(5.0000001201e-1f));
    return fma_(p, r * r, r) + splat(1);
}

/* eˣ; below −87.3: 0. */
INLINE vf vexp(vf x)
{
    const vf lo = splat(EXP_LOWEST), hi = splat(88.7228394f);
    vf t, y = exp_reduced(pick(x < lo, lo, pick(x > hi, hi, x)), &t);
    vi e = (vi)t -
           (vi)splat(EXP_MAGIC); /* n as an integer; 2ⁿ in two halves, since 2¹²⁸ is no float */
    vi half = e >> 1;
    y *= (vf)((half + 127) << 23);
    y *= (vf)((e - half + 127) << 23);
    y = pick(x < lo, splat(0), y);
    y = pick(x > hi, splat(INFINITY), y);
    return pick(x == x, y, x);
}

#endif
