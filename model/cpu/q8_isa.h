/*
 * What differs between instruction sets in products of 8-bit activations: vectors of bytes, their
 * multiplication and sums. For q8.c alone, which is compiled once for each.
 *
 * With AVX2 products are pairs in 16 bits; as many are added there as cannot overflow (eight of 4
 * bits, four of 5; of 6 bits four, whose centred sum fits), then widened and scaled by one
 * multiplication. 8-bit weights fill 16 bits at once.
 */
#ifndef PL_MODEL_CPU_Q8_ISA_H
#define PL_MODEL_CPU_Q8_ISA_H

#include "model/cpu/vec.h"

#include <string.h>

#define VB (4 * WIDTH) /* bytes of a vector: 4 columns of WIDTH outputs */
#define PARTS PER_PANEL

typedef uint8_t vb __attribute__((vector_size(VB), aligned(1), may_alias));
typedef uint16_t vs __attribute__((vector_size(VB), aligned(1), may_alias));

INLINE vb load_bytes(const uint8_t *p)
{
    return *(const vb *)p;
}

INLINE vb low_bits(vb v, int mask)
{
    return v & (uint8_t)mask;
}

/* Bytes shifted within 16 bits: callers mask what comes from the neighbour. left < 0: right. */
INLINE vb shift(vb v, int left)
{
    return left >= 0 ? (vb)((vs)v << left) : (vb)((vs)v >> -left);
}

INLINE vf to_float(vi v)
{
    return __builtin_convertvector(v, vf);
}

/* WIDTH halves. */
INLINE vf load_halves(const uint8_t *p)
{
#if defined(PL_ISA_AVX512)
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif defined(PL_ISA_AVX2)
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else
    vf v;
    for (int i = 0; i < WIDTH; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, 2);
        v[i] = pl_f16_to_f32(h);
    }
    return v;
#endif
}

/*
 * What differs between instruction sets. vacc: sums of products of one group; mac adds w (not
 * negative, or signed in mac8) times four columns of a row; widen scales it to 32 bits; LIMIT: how
 * many products of `bits` bits a vacc takes. vscale: a group's integer scale, as widen wants it.
 */
#if defined(PL_ISA_AVX512)

typedef vi vacc;
typedef vi vscale;
#define LIMIT(bits) ((void)(bits), 8)

INLINE vi four(const void *a)
{
    int32_t v;

    memcpy(&v, a, 4);
    return (vi)_mm512_set1_epi32(v);
}

INLINE vacc mac(vacc acc, vb w, const int8_t *a)
{
    return (vacc)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, (__m512i)four(a));
}

/* acc − a pair of 16-bit sums times by */
INLINE vi minus_pair(vi acc, const int16_t *pair, int16_t by)
{
    return (vi)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)four(pair), _mm512_set1_epi16(-by));
}

INLINE vacc centre(vacc acc, const int16_t *pair, int shift_right)
{
    vi p = (vi)_mm512_srai_epi16((__m512i)four(pair), (unsigned)shift_right);

    return (vi)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)p, _mm512_set1_epi16(-1));
}

INLINE vi widen(vacc acc, vscale s)
{
    return acc * s;
}

INLINE vi widen_plain(vacc acc)
{
    return acc;
}

INLINE vscale load_scales(const uint8_t *p, bool is_signed)
{
    __m128i b = _mm_loadu_si128((const __m128i *)p);

    return (vscale)(is_signed ? _mm512_cvtepi8_epi32(b) : _mm512_cvtepu8_epi32(b));
}

/* Σ of a pair's products with the scales of two groups, from vectors of 32 bits. */
INLINE vi pair_product(vscale s0, vscale s1, const int16_t *pair)
{
    vi both = s0 | (vi)((vu)s1 << 16);

    return (vi)_mm512_madd_epi16((__m512i)both, (__m512i)four(pair));
}

#elif defined(PL_ISA_AVX2)

typedef __m256i vacc;
typedef __m256i vscale; /* each scale twice in 16 bits */
#define LIMIT(bits) ((bits) <= 4 ? 8 : 4)

INLINE __m256i four(const void *a)
{
    int32_t v;

    memcpy(&v, a, 4);
    return _mm256_set1_epi32(v);
}

INLINE vacc mac(vacc acc, vb w, const int8_t *a)
{
    return _mm256_add_epi16(acc, _mm256_maddubs_epi16((__m256i)w, four(a)));
}

INLINE vi minus_pair(vi acc, const int16_t *pair, int16_t by)
{
    return acc - (vi)_mm256_madd_epi16(four(pair), _mm256_set1_epi16(by));
}

INLINE vacc centre(vacc acc, const int16_t *pair, int shift_right)
{
    return _mm256_sub_epi16(acc, _mm256_srai_epi16(four(pair), shift_right));
}

INLINE vi widen(vacc acc, vscale s)
{
    return (vi)_mm256_madd_epi16(acc, s);
}

INLINE vi widen_plain(vacc acc)
{
    return (vi)_mm256_madd_epi16(acc, _mm256_set1_epi16(1));
}

INLINE vscale load_scales(const uint8_t *p, bool is_signed)
{
    const __m256i twice = _mm256_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13, 0, 1,
                                           0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13);
    __m128i b = _mm_loadl_epi64((const __m128i *)p);

    return _mm256_shuffle_epi8(is_signed ? _mm256_cvtepi8_epi32(b) : _mm256_cvtepu8_epi32(b),
                               twice);
}

INLINE vi pair_product(vscale s0, vscale s1, const int16_t *pair)
{
    return (vi)_mm256_madd_epi16(_mm256_blend_epi16(s0, s1, 0xaa), four(pair));
}

/* The sign goes to the activations. */
#define OFFSET_OF_8 0

INLINE vb first8(const uint8_t *w)
{
    return (vb)_mm256_abs_epi8((__m256i)load_bytes(w));
}

INLINE vi mac8(vi acc, vb w, const uint8_t *from, const int8_t *a)
{
    __m256i p = _mm256_sign_epi8(four(a), (__m256i)load_bytes(from));

    return acc + (vi)_mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)w, p), _mm256_set1_epi16(1));
}

#else

typedef vi vacc;
typedef vi vscale;
#define LIMIT(bits) ((void)(bits), 8)

INLINE vacc mac(vacc acc, vb w, const int8_t *a)
{
    for (int i = 0; i < WIDTH; i++)
        for (int c = 0; c < 4; c++)
            acc[i] += w[4 * i + c] * a[c];
    return acc;
}

INLINE vi minus_pair(vi acc, const int16_t *pair, int16_t by)
{
    return acc - (pair[0] + pair[1]) * by;
}

INLINE vacc centre(vacc acc, const int16_t *pair, int shift_right)
{
    return acc - ((pair[0] >> shift_right) + (pair[1] >> shift_right));
}

INLINE vi widen(vacc acc, vscale s)
{
    return acc * s;
}

INLINE vi widen_plain(vacc acc)
{
    return acc;
}

INLINE vscale load_scales(const uint8_t *p, bool is_signed)
{
    vscale v;

    for (int i = 0; i < WIDTH; i++)
        v[i] = is_signed ? (int8_t)p[i] : p[i];
    return v;
}

INLINE vi pair_product(vscale s0, vscale s1, const int16_t *pair)
{
    return s0 * pair[0] + s1 * pair[1];
}

#endif

#ifndef OFFSET_OF_8 /* no vpsignb to give a sign away with */
/* −128 … 127 as 0 … 255: 128 times the activations are taken off again. */
#define OFFSET_OF_8 128

INLINE vb first8(const uint8_t *w)
{
    return load_bytes(w) ^ 128;
}

INLINE vi mac8(vi acc, vb w, const uint8_t *from, const int8_t *a)
{
    (void)from;
    return mac(acc, w, a);
}

#endif

#endif
