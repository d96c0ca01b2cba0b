/*
 * Block-quantised weights as a GPU has them: repacked at load, so that each lane's share comes in
 * 16-byte loads that follow one another across the warp, whatever the format's alignment was. A
 * format is a line of form_of. None grows but by filling up to 16 rows and 64 columns, and Q3_K
 * from 110 to 112 bytes a block.
 *
 * A panel is 16 rows: groups of 2 or 8 units, of 32 columns each. Lane (g, t) = (lane / 4,
 * lane % 4) has, of a unit, four words, as the instruction wants them: word 2h + r holds columns
 * 16h + 4t … + 3 of row g + 8r. A group is
 *   kept    of formats with blocks of 256: for each row, 16 bytes of scales as the file has them
 * (Q6_K: + 128) halves  for each g, scales of each unit, then mins of each: of rows g and g + 8 low
 * for each lane, its words: two nibbles, four pairs or one byte of units that follow one another in
 * each byte high    the bits above them, the same way; where two units' are but a word: in each
 * byte, bit 4u + i of word i of unit u Signed numbers are stored with their top bit inverted: put
 * at the top of a byte, they then have no offset.
 */
#ifndef PL_MODEL_CUDA_PACKED_CUH
#define PL_MODEL_CUDA_PACKED_CUH

#include "model/cuda/mma.cuh"

#include <type_traits>

#define PANEL PL_CUDA_PANEL
#define UNIT 32

/* X(dtype) */
#define PL_CUDA_PACKED(X)                                                                          \
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

/* Some bits of each column of a file's block: of column c they are in byte at + c / (run · per) ·
 * run + c % run, from bit c / run % per · n on, where a byte has those of `per` = 8 / n columns. */
struct bits {
    int n, at, run;
};

struct form {
    int block, bytes; /* columns and bytes of a block */
    struct bits low, high;
    int kept_at, kept; /* bytes of scales, and mins, that are kept as they are */
    int halves_at, halves;
    bool mins;  /* then integers are unsigned */
    bool by_16; /* a scale for 16 columns */
};

static __host__ __device__ constexpr struct form form_of(int dt)
{
    return dt == PL_DT_Q4_0   ? form{32, 18, {4, 2, 16}, {0, 0, 1}, 0, 0, 0, 1, false, false}
           : dt == PL_DT_Q4_1 ? form{32, 20, {4, 4, 16}, {0, 0, 1}, 0, 0, 0, 2, true, false}
           : dt == PL_DT_Q5_0 ? form{32, 22, {4, 6, 16}, {1, 2, 1}, 0, 0, 0, 1, false, false}
           : dt == PL_DT_Q5_1 ? form{32, 24, {4, 8, 16}, {1, 4, 1}, 0, 0, 0, 2, true, false}
           : dt == PL_DT_Q8_0 ? form{32, 34, {8, 2, 32}, {0, 0, 1}, 0, 0, 0, 1, false, false}
           : dt == PL_DT_Q2_K ? form{256, 84, {2, 16, 32}, {0, 0, 1}, 0, 16, 80, 2, true, true}
           : dt == PL_DT_Q3_K ? form{256, 110, {2, 32, 32}, {1, 0, 32}, 96, 14, 0, 0, false, true}
           : dt == PL_DT_Q4_K ? form{256, 144, {4, 16, 32}, {0, 0, 1}, 0, 16, 0, 0, true, false}
           : dt == PL_DT_Q5_K
               ? form{256, 176, {4, 48, 32}, {1, 16, 32}, 0, 16, 0, 0, true, false}
               : form{256, 210, {4, 0, 64}, {2, 128, 32}, 192, 16, 208, 1, false, true};
}

template <int DT> struct packing {
    static const bool mins = form_of(DT).mins, by_16 = form_of(DT).by_16;
    /* Integers, which are few, are multiplied by their scales before they are multiplied with x. */
    static const bool scaled = mins && by_16;
    static const int low = form_of(DT).low.n, high = form_of(DT).high.n;
    static const int units = form_of(DT).block == 256 ? 8 : 2;
    static const int kept = form_of(DT).kept ? 16 * PANEL : 0;
    /* words of a lane: pairs of halves, bits */
    static const int each_half = units == 8 ? 1 : units; /* a block's, or each unit's */
    static const int half_words = form_of(DT).halves * each_half;
    static const int low_words = units * low / 2, high_words = units * high / 2;
    static const int bits_at = kept + half_words * 4 * (PANEL / 2);
    static const int bytes = bits_at + 4 * WARP * (low_words + high_words);
    /* groups that a warp has on their way at a time, two KiB or so of them */
    static const int at_once = units == 8 ? 1 : low == 8 ? 2 : 4;
};

/* What a lane has of a group. */
template <int DT> struct group {
    typedef packing<DT> P;
    uint32_t kept[2][4]; /* of rows g and g + 8 */
    uint32_t half[P::half_words ? P::half_words : 1];
    uint32_t low[P::low_words], high[P::high_words ? P::high_words : 1];
};

/* Which word of a lane's, and from which bit of each of its bytes on. */
struct place {
    int word, bit;
};
template <int DT> __device__ __forceinline__ struct place low_place(int u, int i)
{
    const int per = 8 / packing<DT>::low;

    return {u / per * 4 + i, u % per * packing<DT>::low};
}
template <int DT> __device__ __forceinline__ struct place high_place(int u, int i)
{
    typedef packing<DT> P;
    const int per = P::high ? 8 / P::high : 1;

    if (P::high_words < 4)
        return {0, 4 * u + i};
    return {u / per * 4 + i, u % per * P::high};
}

/* From which bit on a unit's integers stand in their bytes: signed ones at the top, others where
 * their low bits are, or half a byte below where they grow, or where there is room for the rest. */
template <int DT> __device__ __forceinline__ int stands_at(int u)
{
    typedef packing<DT> P;
    const int room = 8 - P::low - P::high, bit = low_place<DT>(u, 0).bit;

    return P::scaled ? bit % 4 : P::mins && bit < room ? bit : room;
}

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

/* N words of a lane, whose share of the warp's is the lane-th. */
template <int N>
__device__ __forceinline__ void load_words(uint32_t *to, const uint8_t *p, int lane)
{
    PL_UNROLL
    for (int i = 0; i < N / 4; i++)
        load_16(to + 4 * i, p + (16 * WARP * i + 16 * lane));
    if (N % 4 == 2) {
        const uint2 two = ((const uint2 *)(const void *)p)[lane];
        to[0] = two.x;
        to[1] = two.y;
    }
    if (N % 4 == 1)
        *to = ((const uint32_t *)(const void *)p)[lane];
}

template <int DT>
__device__ __forceinline__ void load(struct group<DT> &v, const uint8_t *p, int lane)
{
    typedef packing<DT> P;
    const int g = lane / 4;

    if (P::kept) {
        load_16(v.kept[0], p + 16 * g);
        load_16(v.kept[1], p + 16 * (g + 8));
    }
    load_words<P::half_words>(v.half, p + P::kept, g);
    load_words<P::low_words>(v.low, p + P::bits_at, lane);
    load_words<P::high_words>(v.high, p + (P::bits_at + 4 * WARP * P::low_words), lane);
}

/* Left (n > 0) or right. */
__device__ __forceinline__ uint32_t shift(uint32_t v, int n)
{
    return n >= 0 ? v << n : v >> -n;
}

/* n bits from bit `from` on of each byte, moved to bit `to`. */
__device__ __forceinline__ uint32_t moved(uint32_t v, int n, int from, int to)
{
    return shift(v, to - from) & (0x01010101u * (((1u << n) - 1) << to & 255));
}

/* The scales (mins) of 16 or 32 columns each among which are unit u's; where they begin there. */
template <int DT>
__device__ __forceinline__ uint32_t scale_bytes(const uint32_t *w, int u, bool mins)
{
    const int four = u / 2 % 4;

    switch (DT) {
    case PL_DT_Q2_K:
        return (mins ? w[four] >> 4 : w[four]) & 0x0f0f0f0fu;
    case PL_DT_Q3_K:
        return (four < 2 ? w[four] & 0x0f0f0f0fu : w[four % 2] >> 4 & 0x0f0f0f0fu) |
               (shift(w[2], 4 - 2 * four) & 0x30303030u);
    case PL_DT_Q6_K:
        return w[four];
    default: /* Q4_K, Q5_K */
        return u < 4
                   ? w[mins ? 2 : 1] & 0x3f3f3f3fu
                   : (w[3] >> (mins ? 4 : 0) & 0x0f0f0f0fu) | (w[mins ? 2 : 1] >> 2 & 0x30303030u);
    }
}

/* Its byte for columns 16h … of unit u, and what that is too large by. */
template <int DT> __device__ __forceinline__ int scale_byte(int u, int h)
{
    return packing<DT>::by_16 ? u % 2 * 2 + h : u % 4;
}
template <int DT> __device__ __forceinline__ float scale_offset()
{
    return DT == PL_DT_Q3_K ? 32.0F : DT == PL_DT_Q6_K ? 128.0F : 0.0F;
}

/* Byte i of w; as each of four. */
__device__ __forceinline__ uint32_t byte_of(uint32_t w, int i)
{
    return __byte_perm(w, 0, 0x4440u + (unsigned)i);
}
__device__ __forceinline__ uint32_t byte_4(uint32_t w, int i)
{
    return __byte_perm(w, 0, 0x1111u * (unsigned)i);
}

/* Word i of unit u as bytes; what they are too large by stands in `part_of_one`. */
template <int DT> __device__ __forceinline__ uint32_t word(const struct group<DT> &v, int u, int i)
{
    typedef packing<DT> P;
    const struct place low = low_place<DT>(u, i), high = high_place<DT>(u, i);
    const int to = stands_at<DT>(u);
    uint32_t w = moved(v.low[low.word], P::low, low.bit, to);

    if (P::high)
        w |= moved(v.high[high.word], P::high, high.bit, to + P::low);
    if (P::scaled)
        w *= byte_of(scale_bytes<DT>(v.kept[i % 2], u, false), scale_byte<DT>(u, i / 2));
    return w;
}

template <int DT> __device__ __forceinline__ float part_of_one(int u)
{
    return 1.0F / (float)(1 << stands_at<DT>(u));
}

/* Where integers are scaled: the mins of a word's columns, each in a byte. */
template <int DT>
__device__ __forceinline__ uint32_t min_word(const struct group<DT> &v, int u, int i)
{
    return byte_4(scale_bytes<DT>(v.kept[i % 2], u, true), scale_byte<DT>(u, i / 2));
}

/* Byte i of w less `minus`. */
__device__ __forceinline__ float byte_at(uint32_t w, int i, float minus)
{
    return as_float(__byte_perm(w, 0x4b000000u, 0x7440u + (unsigned)i)) - (8388608.0F + minus);
}

/* Unit u's half of row g + 8r: the scale (min) of its block. */
template <int DT>
__device__ __forceinline__ float half_of(const struct group<DT> &v, int u, int r, bool min)
{
    typedef packing<DT> P;
    const uint32_t w = P::half_words ? v.half[(min ? P::each_half : 0) + u % P::each_half] >> 16 * r
                       : DT == PL_DT_Q3_K ? v.kept[r][3]
                                          : v.kept[r][0] >> (min ? 16 : 0);

    return half_to_f32((uint16_t)(w & 0xffffu));
}

/* What columns 16h … of unit u, of row g + 8r, are times `word`, and less. */
template <int DT>
__device__ __forceinline__ void scale_of(const struct group<DT> &v, int u, int h, int r, float *s,
                                         float *m)
{
    typedef packing<DT> P;
    const int i = scale_byte<DT>(u, h);

    *m = 0;
    *s = half_of<DT>(v, u, r, false) * part_of_one<DT>(u);
    if (P::kept && !P::scaled)
        *s *= byte_at(scale_bytes<DT>(v.kept[r], u, false), i, scale_offset<DT>());
    if (P::mins && P::kept)
        *m = half_of<DT>(v, u, r, true) * byte_at(scale_bytes<DT>(v.kept[r], u, true), i, 0);
    else if (P::mins)
        *m = -half_of<DT>(v, u, r, true);
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
