/*
 * Block-quantised weights as a GPU has them: repacked at load, so that each lane's share comes in
 * 16-byte loads that follow one another across the warp, whatever the format's alignment was. No
 * format grows but by filling up to 16 rows and 64 columns.
 *
 * A panel is 16 rows: groups of 2 or 8 units, of 32 columns each. Lane (g, t) = (lane / 4,
 * lane % 4) has, of a unit, four words, as the instruction wants them: word 2h + r holds columns
 * 16h + 4t … + 3 of row g + 8r. A group is
 *   scales  Q4_0, Q8_0: for each g, for each of 2 units, halves d of rows g and g + 8
 *           Q4_K, Q5_K: for each row, its 16 bytes as the file has them
 *           Q6_K: for each row, 16 bytes scale + 128; for each g, halves d of rows g and g + 8
 *   low     for each two units (Q8_0: each unit), for each lane, four words: nibbles, the even
 *           unit's in the low half of each byte (Q8_0: bytes)
 *   high    Q5_K: for each lane, four words, in each byte bit u is unit u's; Q6_K: the same twice,
 *           with two bits each of units 0 … 3 and 4 … 7
 * Nibbles and bits of Q4_0 and Q6_K are stored with their top bit inverted: put at the top of a
 * byte, they are then signed numbers without an offset.
 */
#ifndef PL_MODEL_CUDA_PACKED_CUH
#define PL_MODEL_CUDA_PACKED_CUH

#include "model/cuda/mma.cuh"

#include <type_traits>

#define PANEL PL_CUDA_PANEL
#define UNIT 32
#define LOAD (16 * WARP) /* bytes of a warp's load */

/* X(dtype) */
#define PL_CUDA_PACKED(X)                                                                          \
    X(PL_DT_Q4_0)                                                                                  \
    X(PL_DT_Q8_0)                                                                                  \
    X(PL_DT_Q4_K)                                                                                  \
    X(PL_DT_Q5_K)                                                                                  \
    X(PL_DT_Q6_K)

template <int DT> struct packing {
    static const bool k = DT != PL_DT_Q4_0 && DT != PL_DT_Q8_0;
    static const bool mins = DT == PL_DT_Q4_K || DT == PL_DT_Q5_K; /* then integers are unsigned */
    static const bool by_16 = DT == PL_DT_Q6_K;                    /* a scale for 16 columns */
    static const int units = k ? 8 : 2;
    static const int scales = by_16 ? 288 : k ? 256 : 64;
    static const int low = DT == PL_DT_Q8_0 ? units : units / 2; /* loads */
    static const int high = DT == PL_DT_Q6_K ? 2 : DT == PL_DT_Q5_K ? 1 : 0;
    static const int bytes = scales + LOAD * (low + high);
    /* groups that a warp has on their way at a time, two KiB or more of them */
    static const int at_once = DT == PL_DT_Q4_0 ? 4 : DT == PL_DT_Q8_0 ? 2 : 1;
};

/* What a lane has of a group. */
template <int DT> struct group {
    uint32_t scale[2][4], d[2]; /* of rows g and g + 8, and both; or of units 0 and 1 */
    uint32_t low[packing<DT>::low][4], high[packing<DT>::high ? packing<DT>::high : 1][4];
};

/* Read and written at once. */
template <typename T> struct __align__(4 * sizeof(T)) four
{
    T v[4];
};

__device__ __forceinline__ float as_float(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

/* 16 bytes that are not read again. */
__device__ __forceinline__ void load_16(uint32_t to[4], const uint8_t *from)
{
#ifdef __CUDACC__
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
        : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
        : "l"(from));
#else
    memcpy(to, from, 16);
#endif
}

template <int DT>
__device__ __forceinline__ void load(struct group<DT> &v, const uint8_t *p, int lane)
{
    typedef packing<DT> P;
    const int g = lane / 4;

    if (P::k) {
        load_16(v.scale[0], p + 16 * g);
        load_16(v.scale[1], p + 16 * (g + 8));
        if (P::by_16)
            v.d[0] = *(const uint32_t *)(const void *)(p + 256 + 4 * g);
    } else {
        v.d[0] = ((const uint32_t *)(const void *)(p + 8 * g))[0];
        v.d[1] = ((const uint32_t *)(const void *)(p + 8 * g))[1];
    }
    p += P::scales + 16 * lane;
    PL_UNROLL
    for (int i = 0; i < P::low; i++)
        load_16(v.low[i], p + LOAD * i);
    PL_UNROLL
    for (int i = 0; i < P::high; i++)
        load_16(v.high[i], p + LOAD * (P::low + i));
}

/* Left (n > 0) or right. */
__device__ __forceinline__ uint32_t shift(uint32_t v, int n)
{
    return n >= 0 ? v << n : v >> -n;
}

/* Word i of unit u as bytes; what they are too large by stands in `part_of_one`. */
template <int DT> __device__ __forceinline__ uint32_t word(const struct group<DT> &v, int u, int i)
{
    const uint32_t w = v.low[DT == PL_DT_Q8_0 ? u : u / 2][i];
    const uint32_t high = v.high[DT == PL_DT_Q6_K ? u / 4 : 0][i];

    switch (DT) {
    case PL_DT_Q4_0:
        return (u % 2 ? w : w << 4) & 0xf0f0f0f0u;
    case PL_DT_Q4_K:
        return w & (u % 2 ? 0xf0f0f0f0u : 0x0f0f0f0fu);
    case PL_DT_Q5_K:
        return u % 2 ? (w >> 1 & 0x78787878u) | (shift(high, 7 - u) & 0x80808080u)
                     : (w & 0x0f0f0f0fu) | (shift(high, 4 - u) & 0x10101010u);
    case PL_DT_Q6_K:
        return (shift(w, u % 2 ? -2 : 2) & 0x3c3c3c3cu) |
               (shift(high, 6 - u % 4 * 2) & 0xc0c0c0c0u);
    default:
        return w;
    }
}

template <int DT> __device__ __forceinline__ float part_of_one(int u)
{
    return DT == PL_DT_Q4_0                 ? 1.0F / 16
           : DT == PL_DT_Q4_K && u % 2 == 1 ? 1.0F / 16
           : DT == PL_DT_Q5_K && u % 2 == 1 ? 1.0F / 8
           : DT == PL_DT_Q6_K               ? 1.0F / 4
                                            : 1.0F;
}

/* Byte i of w less `minus`. */
__device__ __forceinline__ float byte_at(uint32_t w, int i, float minus)
{
    return as_float(__byte_perm(w, 0x4b000000u, 0x7440u + (unsigned)i)) - (8388608.0F + minus);
}

__device__ __forceinline__ float low_half(uint32_t w)
{
    return half_to_f32((uint16_t)(w & 0xffffu));
}

/* Scale and min of columns 16h … of unit u, of row g + 8r. */
template <int DT>
__device__ __forceinline__ void scale_of(const struct group<DT> &v, int u, int h, int r, float *s,
                                         float *m)
{
    typedef packing<DT> P;
    const float one = part_of_one<DT>(u);
    const uint32_t *w = v.scale[r];

    *m = 0;
    if (P::by_16) {
        *s = low_half(v.d[0] >> 16 * r) * one * byte_at(w[u / 2], u % 2 * 2 + h, 128);
    } else if (P::mins) {
        const uint32_t scales =
            u < 4 ? w[1] & 0x3f3f3f3fu : (w[3] & 0x0f0f0f0fu) | (w[1] >> 2 & 0x30303030u);
        const uint32_t mins =
            u < 4 ? w[2] & 0x3f3f3f3fu : (w[3] >> 4 & 0x0f0f0f0fu) | (w[2] >> 2 & 0x30303030u);
        *s = low_half(w[0]) * one * byte_at(scales, u % 4, 0);
        *m = low_half(w[0] >> 16) * byte_at(mins, u % 4, 0);
    } else {
        *s = low_half(v.d[u] >> 16 * r) * one;
    }
}

/* Columns that a row of panels has, its units filled up to whole groups. */
static inline int64_t padded(int64_t in)
{
    return (in + 2 * UNIT - 1) / (2 * UNIT) * (2 * UNIT);
}

/* Calls f with the dtype as a constant; false: none that is packed. */
template <typename F> static bool by_packing(enum pl_dtype dt, F f)
{
    switch (dt) {
#define PL_X(dt)                                                                                   \
    case dt:                                                                                       \
        f(std::integral_constant<int, dt>());                                                      \
        return true;
        PL_CUDA_PACKED(PL_X)
#undef PL_X
    default:
        return false;
    }
}

#endif
