/* The AVX-512 and VNNI instructions that model/cpu uses, in plain C by their descriptions in
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
#define _mm512_fmadd_ps emulated_fmadd_ps

#endif
