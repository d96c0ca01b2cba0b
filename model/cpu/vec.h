/*
 * The vectors that kernels are written in: sixteen floats with AVX-512, eight with AVX2, else four,
 * in GCC's and clang's vector extensions; PL_ISA_BF16 comes with PL_ISA_AVX512. For files that are
 * compiled once for each instruction set.
 */
#ifndef PL_MODEL_CPU_VEC_H
#define PL_MODEL_CPU_VEC_H

#include "model/cpu/kernels.h"

/* ROW_CASES: MAX_ROWS as a list. */
#if defined(PL_ISA_AVX512)
#include <immintrin.h>
#define WIDTH 16
#define MAX_ROWS 12 /* 12 accumulators hide the latency of two units */
#define ROW_CASES(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#elif defined(PL_ISA_AVX2)
#include <immintrin.h>
#define WIDTH 8
#define MAX_ROWS 6 /* 12 accumulators, 2 weights, 1 broadcast of 16 registers */
#define ROW_CASES(X) X(1) X(2) X(3) X(4) X(5) X(6)
#else
#define WIDTH 4
#define MAX_ROWS 3 /* 12 accumulators of 16 registers */
#define ROW_CASES(X) X(1) X(2) X(3)
#endif
#define PER_PANEL (PL_PANEL / WIDTH)
#define K_BLOCK 256 /* 16 KB of a panel stay in L1 while all rows pass */

/* All of a kernel is one function, but where a sanitizer's checks stand between its lines: those,
 * inlined so often, took GCC minutes a file. */
#ifdef PL_SANITIZED
#define INLINE static inline
#else
#define INLINE static inline __attribute__((always_inline))
#endif

typedef float vf __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(WIDTH * 2), aligned(2), may_alias));

_Static_assert(K_BLOCK *PL_PANEL <= PL_GEMM_SCRATCH, "a converted block fits the scratch");

INLINE vf splat(float f)
{
    return f - (vf){0};
}

INLINE vf load(const float *p)
{
    return *(const vf *)p;
}

INLINE void store(float *p, vf v)
{
    *(vf *)p = v;
}

#ifdef PL_ISA_BF16
/* c + the products of two pairs of bf16 in each lane (kernels.h: pl_gemm.pairs). */
INLINE vf dot_pairs(vf a, vf b, vf c)
{
    return (vf)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
}
#endif

INLINE vf fma_(vf a, vf b, vf c)
{
#if defined(PL_ISA_AVX512)
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(PL_ISA_AVX2)
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

#endif
