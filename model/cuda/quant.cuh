/* Sixteen consecutive weights of a block format, as model/quant.h has them: 16 divides every block
 * and every group that shares a scale. */
#ifndef PL_MODEL_CUDA_QUANT_CUH
#define PL_MODEL_CUDA_QUANT_CUH

#include "model/cuda/common.cuh"

/* X(dtype) */
#define PL_CUDA_QUANTS(X)                                                                          \
    X(PL_DT_Q4_0)                                                                                  \
    X(PL_DT_Q4_1)                                                                                  \
    X(PL_DT_Q5_0)                                                                                  \
    X(PL_DT_Q5_1)                                                                                  \
    X(PL_DT_Q8_0)                                                                                  \
    X(PL_DT_Q2_K)                                                                                  \
    X(PL_DT_Q3_K)                                                                                  \
    X(PL_DT_Q4_K)                                                                                  \
    X(PL_DT_Q5_K)                                                                                  \
    X(PL_DT_Q6_K)

__device__ __forceinline__ float half_at(const uint8_t *p)
{
    return half_to_f32((uint16_t)(p[0] | p[1] << 8));
}

/* Formats of 32: `head` bytes before the nibbles, fifth bits at `fifth` (0: none). */
__device__ __forceinline__ void nibbles16(const uint8_t *p, int half, int fifth, int head,
                                          int minus, float d, float m, float *w)
{
    uint32_t high = 0;

    if (fifth)
        high = (uint32_t)(p[fifth] | p[fifth + 1] << 8 | p[fifth + 2] << 16) |
               (uint32_t)p[fifth + 3] << 24;
    high >>= 16 * half;
    for (int i = 0; i < 16; i++) {
        int q = half ? p[head + i] >> 4 : p[head + i] & 15;
        q |= (int)(high >> i & 1) << 4;
        w[i] = d * (float)(q - minus) + m;
    }
}

/* The 6-bit scale and min of group g of q4_k and q5_k. */
__device__ __forceinline__ void scale_min(const uint8_t *s, int g, int *scale, int *min)
{
    if (g < 4) {
        *scale = s[g] & 63;
        *min = s[g + 4] & 63;
    } else {
        *scale = (s[g + 4] & 15) | (s[g - 4] >> 6) << 4;
        *min = (s[g + 4] >> 4) | (s[g] >> 6) << 4;
    }
}

/* Weights 16·c … 16·c + 15 of a block of 256 at p, c < 16. */
template <int DT> __device__ __forceinline__ void kquant16(const uint8_t *p, int c, float *w)
{
    int half = c / 8, quarter = c % 8 / 2, pos = c % 2 * 16;

    if (DT == PL_DT_Q2_K) {
        float d = half_at(p + 80) * (float)(p[c] & 15), m = half_at(p + 82) * (float)(p[c] >> 4);
        for (int i = 0; i < 16; i++)
            w[i] = d * (float)(p[16 + half * 32 + pos + i] >> 2 * quarter & 3) - m;
    } else if (DT == PL_DT_Q3_K) {
        const uint8_t *sc = p + 96;
        int low = c < 8 ? sc[c] & 15 : sc[c - 8] >> 4, high = sc[8 + c % 4] >> 2 * (c / 4) & 3;
        float d = half_at(p + 108) * (float)((low | high << 4) - 32);
        for (int i = 0; i < 16; i++) {
            int q = p[32 + half * 32 + pos + i] >> 2 * quarter & 3;
            int third = p[pos + i] >> (4 * half + quarter) & 1;
            w[i] = d * (float)(q - (third ? 0 : 4));
        }
    } else if (DT == PL_DT_Q6_K) {
        float d = half_at(p + 208) * (float)(int8_t)p[192 + c];
        for (int i = 0; i < 16; i++) {
            int low = p[half * 64 + (quarter & 1) * 32 + pos + i];
            int high = p[128 + half * 32 + pos + i] >> 2 * quarter & 3;
            w[i] = d * (float)(((quarter < 2 ? low & 15 : low >> 4) | high << 4) - 32);
        }
    } else { /* q4_k, q5_k */
        int g = c / 2, scale, min, nibble = DT == PL_DT_Q5_K ? 48 : 16;
        scale_min(p + 4, g, &scale, &min);
        float d = half_at(p) * (float)scale, m = half_at(p + 2) * (float)min;
        for (int i = 0; i < 16; i++) {
            int byte = p[nibble + g / 2 * 32 + pos + i], q = g % 2 ? byte >> 4 : byte & 15;
            if (DT == PL_DT_Q5_K)
                q |= (p[16 + pos + i] >> g & 1) << 4;
            w[i] = d * (float)q - m;
        }
    }
}

/* Weights 16·c … of a row that begins at p. */
template <int DT> __device__ __forceinline__ void quant16(const uint8_t *p, int64_t c, float *w)
{
    if (DT == PL_DT_Q4_0) {
        p += c / 2 * 18;
        nibbles16(p, (int)(c % 2), 0, 2, 8, half_at(p), 0, w);
    } else if (DT == PL_DT_Q4_1) {
        p += c / 2 * 20;
        nibbles16(p, (int)(c % 2), 0, 4, 0, half_at(p), half_at(p + 2), w);
    } else if (DT == PL_DT_Q5_0) {
        p += c / 2 * 22;
        nibbles16(p, (int)(c % 2), 2, 6, 16, half_at(p), 0, w);
    } else if (DT == PL_DT_Q5_1) {
        p += c / 2 * 24;
        nibbles16(p, (int)(c % 2), 4, 8, 0, half_at(p), half_at(p + 2), w);
    } else if (DT == PL_DT_Q8_0) {
        p += c / 2 * 34;
        float d = half_at(p);
        for (int i = 0; i < 16; i++)
            w[i] = d * (float)(int8_t)p[2 + c % 2 * 16 + i];
    } else {
        const int bytes = DT == PL_DT_Q2_K   ? 84
                          : DT == PL_DT_Q3_K ? 110
                          : DT == PL_DT_Q4_K ? 144
                          : DT == PL_DT_Q5_K ? 176
                                             : 210;
        kquant16<DT>(p + c / 16 * bytes, (int)(c % 16), w);
    }
}

#endif
