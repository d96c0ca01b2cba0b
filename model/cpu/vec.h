/*
 * The vectors that kernels are written in: eight floats with AVX2, else four, in GCC's and clang's
 * vector extensions. For kernels.c and quant.c only, which are compiled once for each instruction
 * set.
 */
#ifndef PL_MODEL_CPU_VEC_H
#define PL_MODEL_CPU_VEC_H

#include "model/cpu/kernels.h"

#ifdef PL_ISA_AVX2
#include <immintrin.h>
#define WIDTH 8
#define MAX_ROWS 6 /* 12 accumulators, 2 weights, 1 broadcast of 16 registers */
#else
#define WIDTH 4
#define MAX_ROWS 3 /* 12 accumulators of 16 registers */
#endif
#define PER_PANEL (PL_PANEL / WIDTH)
#define K_BLOCK 256 /* 16 KB of a panel stay in L1 while all rows pass */

#define INLINE static inline __attribute__((always_inline))

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

INLINE vf fma_(vf a, vf b, vf c)
{
#ifdef PL_ISA_AVX2
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

#endif
