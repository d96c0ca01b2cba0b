/*
 * One block of each format → small integers with their scales, as inline code: for quant.c and for
 * the kernels of each instruction set. Element i of a block is scale[i / group] · q[i], plus
 * add[i / group] where the format has one.
 *
 * Layouts (ggml-common.h; halves are IEEE, little endian; n: nibbles, low one first):
 *   q4_0  d            | 16 B n: low nibbles elements 0…15, high 16…31            (q − 8)
 *   q4_1  d m          | 16 B n                                                    q + m
 *   q5_0  d | 4 B fifth bits, bit i of element i | 16 B n                         (q − 16)
 *   q5_1  d m | 4 B fifth bits | 16 B n                                            q + m
 *   q8_0  d            | 32 signed bytes
 *   q2_k  16 B scale | min << 4 | 64 B of 2 bits | d dmin                          groups of 16
 *   q3_k  32 B third bits | 64 B of 2 bits | 12 B of 6-bit scales | d              groups of 16
 *   q4_k  d dmin | 12 B of 6-bit scales and mins | 128 B n                         groups of 32
 *   q5_k  d dmin | 12 B of 6-bit scales and mins | 32 B fifth bits | 128 B n       groups of 32
 *   q6_k  128 B low 4 bits | 64 B high 2 bits | 16 signed scales | d              groups of 16
 */
#ifndef PL_MODEL_QUANT_BLOCKS_H
#define PL_MODEL_QUANT_BLOCKS_H

#include "model/dtype.h"

#include <stdbool.h>
#include <string.h>

#ifdef __F16C__
#include <immintrin.h>
#endif

#define PL_QUANT_BLOCK 256 /* elements of the largest block */
#define PL_QUANT_GROUPS 16 /* groups of the block that has most */

/* X(dtype, elements a block, bytes a block) of the formats that are decoded here. */
#define PL_QUANT_LIST(X)                                                                           \
    X(PL_DT_Q4_0, 32, 18)                                                                          \
    X(PL_DT_Q4_1, 32, 20)                                                                          \
    X(PL_DT_Q5_0, 32, 22)                                                                          \
    X(PL_DT_Q5_1, 32, 24)                                                                          \
    X(PL_DT_Q8_0, 32, 34)                                                                          \
    X(PL_DT_Q2_K, 256, 84)                                                                         \
    X(PL_DT_Q3_K, 256, 110)                                                                        \
    X(PL_DT_Q4_K, 256, 144)                                                                        \
    X(PL_DT_Q5_K, 256, 176)                                                                        \
    X(PL_DT_Q6_K, 256, 210)

/* Elements that share a scale; 0: dt is not decoded here. */
static inline uint32_t pl_quant_group(enum pl_dtype dt)
{
    switch (dt) {
    case PL_DT_Q4_0:
    case PL_DT_Q4_1:
    case PL_DT_Q5_0:
    case PL_DT_Q5_1:
    case PL_DT_Q8_0:
    case PL_DT_Q4_K:
    case PL_DT_Q5_K:
        return 32;
    case PL_DT_Q2_K:
    case PL_DT_Q3_K:
    case PL_DT_Q6_K:
        return 16;
    default:
        return 0;
    }
}

static inline bool pl_quant_has_add(enum pl_dtype dt)
{
    return dt == PL_DT_Q4_1 || dt == PL_DT_Q5_1 || dt == PL_DT_Q2_K || dt == PL_DT_Q4_K ||
           dt == PL_DT_Q5_K;
}

static inline float pl_quant_half(const uint8_t *p)
{
    uint16_t h;

    memcpy(&h, p, sizeof(h));
#ifdef __F16C__
    return _cvtsh_ss(h);
#else
    return pl_f16_to_f32(h);
#endif
}

typedef uint8_t pl_quant_v __attribute__((vector_size(16))); /* sixteen elements at a time */

static inline pl_quant_v pl_quant_load(const uint8_t *p)
{
    pl_quant_v v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static inline void pl_quant_store(int8_t *q, pl_quant_v v)
{
    memcpy(q, &v, sizeof(v));
}

/* 16 where a bit of `bits` is set: bit i for element i. */
static inline pl_quant_v pl_quant_fifth(uint32_t bits)
{
    typedef uint64_t wide __attribute__((vector_size(16)));
    const pl_quant_v one_each = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint64_t every = UINT64_C(0x0101010101010101);
    wide spread = {(bits & 255) * every, (bits >> 8 & 255) * every};

    return (pl_quant_v)(((pl_quant_v)spread & one_each) == one_each) & 16;
}

/* 16 bytes of nibbles and the bits above them (0: none) → 32 integers. */
static inline void pl_quant_nibbles(const uint8_t *p, uint32_t high, uint8_t minus, int8_t *q)
{
    pl_quant_v n = pl_quant_load(p);

    pl_quant_store(q, ((n & 15) | pl_quant_fifth(high)) - minus);
    pl_quant_store(q + 16, (n >> 4 | pl_quant_fifth(high >> 16)) - minus);
}

static inline void pl_quant_q2_k(const uint8_t *p, int8_t *q, float *scale, float *add)
{
    float d = pl_quant_half(p + 80), dmin = pl_quant_half(p + 82);

    for (int g = 0; g < 16; g++) {
        scale[g] = d * (float)(p[g] & 15);
        add[g] = -(dmin * (float)(p[g] >> 4));
    }
    for (int i = 0; i < 64; i += 16) {
        pl_quant_v v = pl_quant_load(p + 16 + i);
        int8_t *to = q + i / 32 * 128 + i % 32;
        pl_quant_store(to, v & 3);
        pl_quant_store(to + 32, v >> 2 & 3);
        pl_quant_store(to + 64, v >> 4 & 3);
        pl_quant_store(to + 96, v >> 6);
    }
}

/* The sixteen 6-bit scales of q3_k, −32 … 31. */
static inline void pl_quant_q3_scales(const uint8_t *p, int8_t *scale)
{
    const uint8_t *sc = p + 96;

    for (int g = 0; g < 16; g++) {
        int low = g < 8 ? sc[g] & 15 : sc[g - 8] >> 4, high = sc[8 + g % 4] >> 2 * (g / 4) & 3;
        scale[g] = (int8_t)((low | high << 4) - 32);
    }
}

static inline void pl_quant_q3_k(const uint8_t *p, int8_t *q, float *scale)
{
    float d = pl_quant_half(p + 108);
    int8_t sc[16];

    pl_quant_q3_scales(p, sc);
    for (int g = 0; g < 16; g++)
        scale[g] = d * (float)sc[g];
    for (int i = 0; i < 64; i += 16) { /* a clear third bit: four less */
        pl_quant_v v = pl_quant_load(p + 32 + i), h = pl_quant_load(p + i % 32);
        int8_t *to = q + i / 32 * 128 + i % 32;
        h = i < 32 ? h : h >> 4;
        pl_quant_store(to, ((v & 3) | (h << 2 & 4)) - 4);
        pl_quant_store(to + 32, ((v >> 2 & 3) | (h << 1 & 4)) - 4);
        pl_quant_store(to + 64, ((v >> 4 & 3) | (h & 4)) - 4);
        pl_quant_store(to + 96, (v >> 6 | (h >> 1 & 4)) - 4);
    }
}

/* The eight 6-bit scales and mins of q4_k and q5_k. */
static inline void pl_quant_scale_min(const uint8_t *p, uint8_t *scale, uint8_t *min)
{
    const uint8_t *s = p + 4;

    for (int g = 0; g < 4; g++) {
        scale[g] = s[g] & 63;
        min[g] = s[g + 4] & 63;
        scale[g + 4] = (uint8_t)((s[g + 8] & 15) | (s[g] >> 6) << 4);
        min[g + 4] = (uint8_t)((s[g + 8] >> 4) | (s[g + 4] >> 6) << 4);
    }
}

static inline void pl_quant_k_scales(const uint8_t *p, float *scale, float *add)
{
    float d = pl_quant_half(p), dmin = pl_quant_half(p + 2);
    uint8_t sc[8], min[8];

    pl_quant_scale_min(p, sc, min);
    for (int g = 0; g < 8; g++) {
        scale[g] = d * (float)sc[g];
        add[g] = -(dmin * (float)min[g]);
    }
}

static inline void pl_quant_q4_k(const uint8_t *p, int8_t *q, float *scale, float *add)
{
    pl_quant_k_scales(p, scale, add);
    for (int i = 0; i < 128; i += 16) {
        pl_quant_v v = pl_quant_load(p + 16 + i);
        int8_t *to = q + i / 32 * 64 + i % 32;
        pl_quant_store(to, v & 15);
        pl_quant_store(to + 32, v >> 4);
    }
}

static inline void pl_quant_q5_k(const uint8_t *p, int8_t *q, float *scale, float *add)
{
    pl_quant_k_scales(p, scale, add);
    for (int i = 0; i < 32; i += 16) {
        pl_quant_v high = pl_quant_load(p + 16 + i);
        for (int part = 0; part < 4; part++, high >>= 2) {
            pl_quant_v v = pl_quant_load(p + 48 + part * 32 + i);
            pl_quant_store(q + part * 64 + i, (v & 15) | (high << 4 & 16));
            pl_quant_store(q + part * 64 + 32 + i, v >> 4 | (high << 3 & 16));
        }
    }
}

static inline void pl_quant_q6_k(const uint8_t *p, int8_t *q, float *scale)
{
    float d = pl_quant_half(p + 208);

    for (int g = 0; g < 16; g++)
        scale[g] = d * (float)(int8_t)p[192 + g];
    for (int i = 0; i < 64; i += 16) {
        const uint8_t *low = p + i / 32 * 64 + i % 32;
        pl_quant_v a = pl_quant_load(low), b = pl_quant_load(low + 32);
        pl_quant_v high = pl_quant_load(p + 128 + i);
        int8_t *to = q + i / 32 * 128 + i % 32;
        pl_quant_store(to, ((a & 15) | (high << 4 & 48)) - 32);
        pl_quant_store(to + 32, ((b & 15) | (high << 2 & 48)) - 32);
        pl_quant_store(to + 64, (a >> 4 | (high & 48)) - 32);
        pl_quant_store(to + 96, (b >> 4 | (high >> 2 & 48)) - 32);
    }
}

/* dt decodes. q[block], scale and add [block / group]; add is left alone where there is none. */
static inline void pl_quant_unpack(enum pl_dtype dt, const uint8_t *p, int8_t *q, float *scale,
                                   float *add)
{
    uint32_t high = 0;

    switch (dt) {
    case PL_DT_Q2_K:
        pl_quant_q2_k(p, q, scale, add);
        return;
    case PL_DT_Q3_K:
        pl_quant_q3_k(p, q, scale);
        return;
    case PL_DT_Q4_K:
        pl_quant_q4_k(p, q, scale, add);
        return;
    case PL_DT_Q5_K:
        pl_quant_q5_k(p, q, scale, add);
        return;
    case PL_DT_Q6_K:
        pl_quant_q6_k(p, q, scale);
        return;
    default:
        break;
    }
    scale[0] = pl_quant_half(p);
    if (dt == PL_DT_Q4_0) {
        pl_quant_nibbles(p + 2, 0, 8, q);
    } else if (dt == PL_DT_Q4_1) {
        add[0] = pl_quant_half(p + 2);
        pl_quant_nibbles(p + 4, 0, 0, q);
    } else if (dt == PL_DT_Q5_0) {
        memcpy(&high, p + 2, sizeof(high));
        pl_quant_nibbles(p + 6, high, 16, q);
    } else if (dt == PL_DT_Q5_1) {
        add[0] = pl_quant_half(p + 2);
        memcpy(&high, p + 4, sizeof(high));
        pl_quant_nibbles(p + 8, high, 0, q);
    } else {
        memcpy(q, p + 2, 32);
    }
}

#endif
