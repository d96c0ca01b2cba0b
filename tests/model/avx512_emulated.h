/* The AVX-512, VNNI and BF16 instructions that model/cpu uses, in plain C by their descriptions in
 * Intel's manual, so that the paths that need them can be followed on any machine. Included before
 * everything else in the sources of those paths. */
#ifndef PL_TESTS_MODEL_AVX512_EMULATED_H
#define PL_TESTS_MODEL_AVX512_EMULATED_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#pragma GCC diagnostic ignored "-Wpsabi" /* vectors pass only between functions of one file */

#define EMULATED static inline __attribute__((unused))

typedef union {
    __m512i v;
    __m512 f;
    int32_t d[16];
    uint32_t ud[16];
    int16_t w[32];
    int8_t b[64];
    uint8_t ub[64];
    float s[16];
} emulated_512;

EMULATED __m512i emulated_set1_epi32(int a)
{
    emulated_512 r;
    for (int i = 0; i < 16; i++)
        r.d[i] = a;
    return r.v;
}

EMULATED __m512i emulated_set1_epi16(int a)
{
    emulated_512 r;
    for (int i = 0; i < 32; i++)
        r.w[i] = (int16_t)a;
    return r.v;
}

EMULATED __m512i emulated_dpbusd(__m512i acc, __m512i a, __m512i b)
{
    emulated_512 r = {.v = acc}, x = {.v = a}, y = {.v = b};
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 4; j++)
            r.d[i] += x.ub[4 * i + j] * y.b[4 * i + j];
    return r.v;
}

EMULATED __m512i emulated_dpwssd(__m512i acc, __m512i a, __m512i b)
{
    emulated_512 r = {.v = acc}, x = {.v = a}, y = {.v = b};
    for (int i = 0; i < 16; i++)
        r.d[i] += x.w[2 * i] * y.w[2 * i] + x.w[2 * i + 1] * y.w[2 * i + 1];
    return r.v;
}

EMULATED __m512i emulated_madd_epi16(__m512i a, __m512i b)
{
    return emulated_dpwssd(emulated_set1_epi32(0), a, b);
}

EMULATED __m512i emulated_srai_epi16(__m512i a, unsigned by)
{
    emulated_512 r = {.v = a};
    for (int i = 0; i < 32; i++)
        r.w[i] = (int16_t)(r.w[i] >> by);
    return r.v;
}

EMULATED __m512i emulated_slli_epi32(__m512i a, unsigned by)
{
    emulated_512 r = {.v = a};
    for (int i = 0; i < 16; i++)
        r.ud[i] <<= by;
    return r.v;
}

EMULATED __m512i emulated_cvtepi8_epi32(__m128i a)
{
    emulated_512 r;
    int8_t b[16];
    memcpy(b, &a, 16);
    for (int i = 0; i < 16; i++)
        r.d[i] = b[i];
    return r.v;
}

EMULATED __m512i emulated_cvtepu8_epi32(__m128i a)
{
    emulated_512 r;
    uint8_t b[16];
    memcpy(b, &a, 16);
    for (int i = 0; i < 16; i++)
        r.d[i] = b[i];
    return r.v;
}

EMULATED __m512i emulated_cvtepu16_epi32(__m256i a)
{
    emulated_512 r;
    uint16_t h[16];
    memcpy(h, &a, 32);
    for (int i = 0; i < 16; i++)
        r.d[i] = h[i];
    return r.v;
}

EMULATED __m512 emulated_cvtepi32_ps(__m512i a)
{
    emulated_512 r = {.v = a};
    for (int i = 0; i < 16; i++)
        r.s[i] = (float)r.d[i];
    return r.f;
}

EMULATED __m512 emulated_cvtph_ps(__m256i a)
{
    emulated_512 r;
    uint16_t h[16];
    memcpy(h, &a, 32);
    for (int i = 0; i < 16; i++)
        r.s[i] = _cvtsh_ss(h[i]);
    return r.f;
}

EMULATED __m512 emulated_fmadd_ps(__m512 a, __m512 b, __m512 c)
{
    emulated_512 r, x = {.f = a}, y = {.f = b}, z = {.f = c};
    for (int i = 0; i < 16; i++)
        r.s[i] = fmaf(x.s[i], y.s[i], z.s[i]);
    return r.f;
}

/* The second where either is no number. */
EMULATED __m512 emulated_max_ps(__m512 a, __m512 b)
{
    emulated_512 r, x = {.f = a}, y = {.f = b};
    for (int i = 0; i < 16; i++)
        r.s[i] = x.s[i] > y.s[i] ? x.s[i] : y.s[i];
    return r.f;
}

/* Of what a multiplication reads: subnormal is 0. */
EMULATED float emulated_daz(float f)
{
    return fabsf(f) < 0x1p-126f ? copysignf(0, f) : f;
}

/* The half word h of a pair as the upper half of a float. */
EMULATED float emulated_bf16(uint32_t pair, int h)
{
    uint32_t u = h ? pair & 0xffff0000u : pair << 16;
    float f;
    memcpy(&f, &u, 4);
    return emulated_daz(f);
}

/* VDPBF16PS in Intel's manual, volume 2: "srcdest.fp32[i] += make_fp32(src1.bfloat16[2*i+1]) *
 * make_fp32(t.bfloat[1])", then the same of 2*i+0 and [0], each an "FP32 FMA with daz in, ftz out
 * and RNE rounding", whatever MXCSR says. What is tiny is judged behind the rounding; the manual
 * does not say. */
EMULATED __m512 emulated_dpbf16_ps(__m512 acc, __m512i a, __m512i b)
{
    emulated_512 r = {.f = acc}, x = {.v = a}, y = {.v = b};
    for (int i = 0; i < 16; i++)
        for (int h = 1; h >= 0; h--)
            r.s[i] = emulated_daz(
                fmaf(emulated_bf16(x.ud[i], h), emulated_bf16(y.ud[i], h), emulated_daz(r.s[i])));
    return r.f;
}

/* A type of its own only where the compiler has the instruction. */
#define __m512bh __m512i
#define _mm512_dpbf16_ps emulated_dpbf16_ps
#define _mm512_set1_epi32 emulated_set1_epi32
#define _mm512_set1_epi16 emulated_set1_epi16
#define _mm512_dpbusd_epi32 emulated_dpbusd
#define _mm512_dpwssd_epi32 emulated_dpwssd
#define _mm512_madd_epi16 emulated_madd_epi16
#undef _mm512_srai_epi16
#define _mm512_srai_epi16 emulated_srai_epi16
#undef _mm512_slli_epi32
#define _mm512_slli_epi32 emulated_slli_epi32
#define _mm512_cvtepi8_epi32 emulated_cvtepi8_epi32
#define _mm512_cvtepu8_epi32 emulated_cvtepu8_epi32
#define _mm512_cvtepu16_epi32 emulated_cvtepu16_epi32
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
#define _mm512_cvtph_ps emulated_cvtph_ps
#define _mm512_max_ps emulated_max_ps
#define _mm512_fmadd_ps emulated_fmadd_ps

#endif
