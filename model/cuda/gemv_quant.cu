/*
 * Products of up to 8 rows with block-quantised weights, on 8-bit tensor cores (m16n8k32: weights
 * are A, rows of x the columns of B), with x in 8 bits, one scale for each 32 numbers. Weights are
 * repacked at load, so that each lane's share comes in 16-byte loads that follow one another across
 * the warp, whatever the format's alignment was; no format grows but by filling up to 16 rows and
 * 64 columns.
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
 *
 * A unit's integers, at most 32 · 127 · 255 in all, are summed exactly, on top of 1.5 · 2^23 as an
 * integer, which makes the sum a float's low bits: no conversion. A block's warps share the groups
 * and are added up in their order, so that an output's bits depend neither on the number of rows
 * nor on what else is in the launch.
 */
#include "model/cuda/mma.cuh"

#include <type_traits>

#define QUANT_WARPS 8
#define PARTS 4
#define PANEL PL_CUDA_PANEL
#define UNIT 32
#define ROWS PL_CUDA_GEMV_ROWS
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

struct blocks {
    struct {
        const uint8_t *w;
        const float *bias;
        float *y;
        int64_t out;
        int first; /* panel among all */
        bool add;
    } part[PARTS];
    int n, rows, groups; /* groups of a panel */
    const uint8_t *x;    /* see quantise */
    const float4 *scale; /* [units][t]: scale of rows 2t, 2t + 1; the same times Σ of the row's q */
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

/* 1.5 · 2^23 + Σ over k, as an integer. */
#define MAGIC 0x4b400000
#define MAGIC_F32 12582912.0F

#ifdef __CUDACC__
template <bool UNSIGNED>
__device__ __forceinline__ void dot_32(int d[4], const uint32_t a[4], const uint32_t b[2])
{
    if (UNSIGNED)
        asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
            "{%8,%9}, {%10,%10,%10,%10};"
            : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(MAGIC));
    else
        asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
            "{%8,%9}, {%10,%10,%10,%10};"
            : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(MAGIC));
}
/* Half of the columns: a[0…1], b[0]. */
__device__ __forceinline__ void dot_16(int d[4], const uint32_t a[2], uint32_t b)
{
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
        "{%7,%7,%7,%7};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b), "r"(MAGIC));
}
#else /* tests/cuda_emu: from the fragments as PTX lays them out */
template <bool UNSIGNED> int byte_of(uint32_t w, int i)
{
    const uint32_t b = w >> 8 * i & 255;

    return UNSIGNED ? (int)b : (int)(int8_t)b;
}

template <bool UNSIGNED> void dot(int d[4], const uint32_t *a, const uint32_t *b, int words)
{
    struct fragment {
        uint32_t a[4], b[2];
    } mine = {};
    const int g = pl_emu_lane() / 4, t = pl_emu_lane() % 4;

    memcpy(mine.a, a, (size_t)words * 8);
    memcpy(mine.b, b, (size_t)words * 4);
    const struct fragment *all = (const struct fragment *)pl_emu_gather(&mine, sizeof(mine));
    for (int i = 0; i < 4; i++) {
        d[i] = MAGIC;
        for (int k = 0; k < 16 * words; k++) {
            const struct fragment *x = &all[g * 4 + k % 16 / 4],
                                  *y = &all[(2 * t + i % 2) * 4 + k % 16 / 4];
            d[i] += byte_of<UNSIGNED>(x->a[k / 16 * 2 + i / 2], k % 4) *
                    byte_of<false>(y->b[k / 16], k % 4);
        }
    }
}

template <bool UNSIGNED> void dot_32(int d[4], const uint32_t a[4], const uint32_t b[2])
{
    dot<UNSIGNED>(d, a, b, 2);
}
inline void dot_16(int d[4], const uint32_t a[2], uint32_t b)
{
    dot<false>(d, a, &b, 1);
}
#endif

/* c += scale · sum · x's scale, less min · Σ x; of the even rows only where there is but one row.
 */
template <bool MINS, bool ONE>
__device__ __forceinline__ void add_up(float c[4], const int d[4], const float s[2],
                                       const float m[2], float4 x)
{
    PL_UNROLL
    for (int i = 0; i < 4; i += ONE ? 2 : 1) {
        const float sum = as_float((uint32_t)d[i]) - MAGIC_F32;
        c[i] = fmaf(sum * s[i / 2], i % 2 ? x.y : x.x, c[i]);
        if (MINS)
            c[i] = fmaf(-m[i / 2], i % 2 ? x.w : x.z, c[i]);
    }
}

template <int DT, bool ONE>
__device__ __forceinline__ void times(float c[4], const struct group<DT> &v, int u,
                                      const uint32_t b[2], float4 x)
{
    typedef packing<DT> P;
    uint32_t a[4];
    float s[2], m[2];
    int d[4];

    PL_UNROLL
    for (int i = 0; i < 4; i++)
        a[i] = word<DT>(v, u, i);
    PL_UNROLL
    for (int h = 0; h < (P::by_16 ? 2 : 1); h++) {
        scale_of<DT>(v, u, h, 0, &s[0], &m[0]);
        scale_of<DT>(v, u, h, 1, &s[1], &m[1]);
        if (P::by_16)
            dot_16(d, a + 2 * h, b[h]);
        else
            dot_32<P::mins>(d, a, b);
        add_up<P::mins, ONE>(c, d, s, m, x);
    }
}

/* Those groups from `at` on that a warp takes at once. */
template <int DT>
__device__ __forceinline__ void load_all(struct group<DT> *v, const uint8_t *w, int at, int groups,
                                         int lane)
{
    typedef packing<DT> P;

    PL_UNROLL
    for (int j = 0; j < P::at_once; j++)
        if (at + j * QUANT_WARPS < groups)
            load<DT>(v[j], w + (int64_t)(at + j * QUANT_WARPS) * P::bytes, lane);
}

/* A lane whose row of x is not there reads the first, and what comes of it is not stored. */
template <int DT, bool ONE>
__global__ void __launch_bounds__(QUANT_WARPS *WARP, 2) gemv_packed(const struct blocks g)
{
    typedef packing<DT> P;
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const int s = part_of(g, (int)blockIdx.x), panel = (int)blockIdx.x - g.part[s].first;
    const uint8_t *w = g.part[s].w + (int64_t)panel * g.groups * P::bytes;
    const uint4 *xs = (const uint4 *)(const void *)g.x + (lane / 4 < g.rows ? lane : lane % 4);
    const float4 *scales = g.scale + (lane % 4 * 2 < g.rows ? lane % 4 : 0);
    const int64_t out = g.part[s].out;
    struct group<DT> now[P::at_once], next[P::at_once] = {
    };
    float c[4] = {};

    load_all<DT>(next, w, warp, g.groups, lane);
    for (int at = warp; at < g.groups; at += QUANT_WARPS * P::at_once) {
        memcpy(now, next, sizeof(now));
        load_all<DT>(next, w, at + QUANT_WARPS * P::at_once, g.groups, lane);
        PL_UNROLL
        for (int j = 0; j < P::at_once; j++) {
            if (at + j * QUANT_WARPS >= g.groups)
                break;
            PL_UNROLL
            for (int u = 0; u < P::units; u += 2) {
                const int unit = (at + j * QUANT_WARPS) * P::units + u;
                const uint4 x = xs[unit / 2 * WARP];
                const uint32_t b[2][2] = {{x.x, x.y}, {x.z, x.w}};
                times<DT, ONE>(c, now[j], u, b[0], scales[unit * 4]);
                times<DT, ONE>(c, now[j], u + 1, b[1], scales[unit * 4 + 4]);
            }
        }
    }
    if (!together<QUANT_WARPS, 4>(c))
        return;
    PL_UNROLL
    for (int i = 0; i < 4; i++) {
        const int row = lane % 4 * 2 + i % 2;
        const int64_t o = (int64_t)panel * PANEL + lane / 4 + i / 2 * 8;
        if (row >= g.rows || o >= out)
            continue;
        float *y = g.part[s].y + row * out + o;
        const float v = c[i] + (g.part[s].bias ? g.part[s].bias[o] : 0);
        *y = g.part[s].add ? *y + v : v;
    }
}

/* x in 8 bits: q = round to even(x · 127 / max |x|) of each unit of a row, a warp for each; rows
 * and columns beyond the last are zeros. Of two units, for each row, for each t: words 2t and 2t +
 * 1 as a lane's b of each. NaN or infinity makes the scale NaN, and so the product. */
__global__ void __launch_bounds__(ROWS *WARP)
    quantise_rows(const float *x, int rows, int64_t in, int8_t *q, float *scale)
{
    const int row = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const int unit = (int)blockIdx.x, t = lane % 16 / 4;
    const int64_t k = (int64_t)unit * UNIT + lane;
    const float v = row < rows && k < in ? x[row * in + k] : 0;
    int most, sum = 0;

    memcpy(&most, &v, sizeof(most)); /* as integers, so that NaN is the largest */
    most &= 0x7fffffff;
    for (int o = WARP / 2; o; o /= 2)
        most = max(most, __shfl_xor_sync(FULL, most, o));
    const float top = as_float((uint32_t)most);
    const bool usable = top >= 1e-30F && most < 0x7f800000;
    const float d = usable ? top / 127 : most < 0x7f800000 ? 0 : as_float(0x7fc00000u);
    if (usable)
        sum = (int)rintf(v * (127 / top));
    q[(int64_t)(unit / 2) * (ROWS * 64) + row * 64 + t * 16 + unit % 2 * 8 + lane / 16 * 4 +
      lane % 4] = (int8_t)sum;
    for (int o = WARP / 2; o; o /= 2)
        sum += __shfl_xor_sync(FULL, sum, o);
    if (lane == 0) {
        float *to = scale + (int64_t)unit * (2 * ROWS) + row / 2 * 4 + row % 2;
        to[0] = d;
        to[2] = d * (float)sum;
    }
}

/* --- between the file's blocks and panels --- */

/* Column c of a file's block: its low bits, and those above them. */
template <int DT> __device__ __forceinline__ int low_bits(const uint8_t *p, int c)
{
    const int odd = c % 64 / 32;

    switch (DT) {
    case PL_DT_Q4_0:
        return (p[2 + c % 16] >> c / 16 * 4 & 15) ^ 8;
    case PL_DT_Q8_0:
        return p[2 + c];
    case PL_DT_Q6_K:
        return p[c / 128 * 64 + odd * 32 + c % 32] >> c % 128 / 64 * 4 & 15;
    default:
        return p[(DT == PL_DT_Q5_K ? 48 : 16) + c / 64 * 32 + c % 32] >> odd * 4 & 15;
    }
}
template <int DT> __device__ __forceinline__ int high_bits(const uint8_t *p, int c)
{
    return DT == PL_DT_Q5_K ? p[16 + c % 32] >> c / 32 & 1
                            : (p[128 + c / 128 * 32 + c % 32] >> c % 128 / 32 * 2 & 3) ^ 2;
}

/* Rows g and g + 8 as the file has them (NULL: beyond the last). */
template <int DT> struct file_rows {
    static const int block = packing<DT>::k ? 256 : 32;
    static const int bytes = DT == PL_DT_Q4_0   ? 18
                             : DT == PL_DT_Q8_0 ? 34
                             : DT == PL_DT_Q4_K ? 144
                             : DT == PL_DT_Q5_K ? 176
                                                : 210;
    const uint8_t *row[2];
    int64_t at, in; /* first column of the group; columns */
};

/* Where the block of column c of a group stands; NULL: beyond the last. */
template <int DT>
__device__ __forceinline__ const uint8_t *block_at(const struct file_rows<DT> &f, int r, int c)
{
    typedef file_rows<DT> F;

    return f.row[r] && f.at + c < f.in ? f.row[r] + (f.at + c) / F::block * F::bytes : NULL;
}

/* Byte b of word i of unit u: low bits (high false), or those above them. */
template <int DT>
__device__ __forceinline__ uint32_t bits_of(const struct file_rows<DT> &f, int u, int i, int t,
                                            int b, bool high)
{
    const int c = u * UNIT + i / 2 * 16 + 4 * t + b;
    const uint8_t *p = block_at<DT>(f, i % 2, c);

    return !p     ? 0
           : high ? (uint32_t)high_bits<DT>(p, c % file_rows<DT>::block)
                  : (uint32_t)low_bits<DT>(p, c % file_rows<DT>::block);
}

template <int DT>
__device__ __forceinline__ void pack_scales(const struct file_rows<DT> &f, uint8_t *to, int g)
{
    typedef packing<DT> P;

    for (int r = 0; r < 2; r++)
        for (int u = 0; u < (P::k ? 1 : P::units); u++) {
            const uint8_t *p = block_at<DT>(f, r, u * UNIT);
            uint8_t *halves = to + (P::by_16 ? 256 + 4 * g : (g * P::units + u) * 4) + 2 * r;
            if (P::by_16 || !P::k)
                for (int i = 0; i < 2; i++)
                    halves[i] = p ? p[(P::by_16 ? 208 : 0) + i] : 0;
            if (P::k)
                for (int i = 0; i < 16; i++)
                    to[(g + 8 * r) * 16 + i] = !p         ? 0
                                               : P::by_16 ? (uint8_t)(p[192 + i] ^ 128)
                                                          : p[i];
        }
}

/* Rows [n, in] of the file's blocks → panels; a warp for each group. */
template <int DT>
__global__ void pack_panels(const uint8_t *from, int64_t n, int64_t in, int groups, uint8_t *to)
{
    typedef packing<DT> P;
    typedef file_rows<DT> F;
    const int64_t id = (int64_t)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    const int lane = (int)threadIdx.x % WARP, t = lane % 4;
    const int64_t panel = id / groups, first = panel * PANEL + lane / 4;
    F f = {{NULL, NULL}, id % groups * P::units * UNIT, in};

    if (panel * PANEL >= n)
        return;
    for (int r = 0; r < 2; r++)
        if (first + 8 * r < n)
            f.row[r] = from + (first + 8 * r) * (in / F::block * F::bytes);
    to += id * P::bytes;
    if (t == 0)
        pack_scales<DT>(f, to, lane / 4);
    uint8_t *lane_to = to + P::scales + 16 * lane;
    for (int i = 0; i < 16; i++) { /* byte i % 4 of word i / 4 */
        for (int j = 0; j < P::low; j++)
            lane_to[LOAD * j + i] =
                (uint8_t)(DT == PL_DT_Q8_0
                              ? bits_of<DT>(f, j, i / 4, t, i % 4, false)
                              : bits_of<DT>(f, 2 * j, i / 4, t, i % 4, false) |
                                    bits_of<DT>(f, 2 * j + 1, i / 4, t, i % 4, false) << 4);
        for (int j = 0; j < P::high; j++) {
            const int each = P::units / (P::high ? P::high : 1);
            uint32_t v = 0;
            for (int u = 0; u < each; u++)
                v |= bits_of<DT>(f, j * each + u, i / 4, t, i % 4, true) << u * P::high;
            lane_to[LOAD * (P::low + j) + i] = (uint8_t)v;
        }
    }
}

/* Four weights: word i of unit u. The values are the file's, to the bit. */
template <int DT>
__device__ __forceinline__ void values(const struct group<DT> &v, int u, int i, float w[4])
{
    const uint32_t bytes = word<DT>(v, u, i);
    float s, m;

    scale_of<DT>(v, u, i / 2, i % 2, &s, &m);
    for (int b = 0; b < 4; b++) {
        const uint32_t q = bytes >> 8 * b & 255;
        w[b] = s * (float)(packing<DT>::mins ? (int)q : (int)(int8_t)q) - m;
    }
}

template <typename T> struct __align__(4 * sizeof(T)) four
{
    T v[4];
};

/* A warp for each group. */
template <int DT, typename T>
__global__ void decode_packed(const uint8_t *w, int64_t out, int64_t in, int groups, T *to)
{
    typedef packing<DT> P;
    const int64_t id = (int64_t)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    const int lane = (int)threadIdx.x % WARP;
    struct group<DT> v = {
    };

    if (id / groups * PANEL >= out)
        return;
    load<DT>(v, w + id * P::bytes, lane);
    PL_UNROLL
    for (int i = 0; i < 4 * P::units; i++) {
        const int64_t o = id / groups * PANEL + lane / 4 + i % 2 * 8;
        const int64_t k = (id % groups * P::units + i / 4) * UNIT + i % 4 / 2 * 16 + lane % 4 * 4;
        float f[4];
        four<T> all;
        values<DT>(v, i / 4, i % 4, f);
        for (int b = 0; b < 4; b++)
            from_f32(f[b], &all.v[b]);
        if (o < out && k < in)
            *(four<T> *)(void *)(to + o * in + k) = all;
    }
}

/* A block for each id; of a group, the four lanes that have its row. */
template <int DT>
__global__ void embed_packed(const uint8_t *w, const int32_t *ids, int64_t in, int groups, float *x)
{
    typedef packing<DT> P;
    const int32_t id = ids[blockIdx.x];
    const int lane = id % 8 * 4 + (int)threadIdx.x % 4;
    struct group<DT> v = {
    };

    w += (int64_t)(id / PANEL) * groups * P::bytes;
    for (int at = (int)threadIdx.x / 4; at < groups; at += (int)blockDim.x / 4) {
        load<DT>(v, w + (int64_t)at * P::bytes, lane);
        PL_UNROLL
        for (int i = 0; i < 2 * P::units; i++) {
            const int64_t k = (at * P::units + i / 2) * UNIT + i % 2 * 16 + lane % 4 * 4;
            float f[2][4];
            values<DT>(v, i / 2, i % 2 * 2, f[0]);
            values<DT>(v, i / 2, i % 2 * 2 + 1, f[1]);
            for (int b = 0; b < 4 && k < in; b++)
                x[blockIdx.x * in + k + b] = id % PANEL < 8 ? f[0][b] : f[1][b];
        }
    }
}

/* --- the host's side --- */

/* Columns that a row of panels has, its units filled up to whole groups. */
static int64_t padded(int64_t in)
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

extern "C" size_t pl_k_packed_row_bytes(enum pl_dtype dt, int64_t in)
{
    size_t bytes = 0;

    by_packing(dt, [&](auto t) {
        typedef packing<decltype(t)::value> P;
        if (in % file_rows<decltype(t)::value>::block == 0)
            bytes = (size_t)(padded(in) / (UNIT * P::units)) * (P::bytes / PANEL);
    });
    return bytes;
}

extern "C" size_t pl_k_packed_room(int64_t in)
{
    return (size_t)padded(in) * ROWS + (size_t)(padded(in) / UNIT) * 2 * ROWS * sizeof(float);
}

#define GROUPS_A_BLOCK 4 /* of the kernels that have a warp for each */

extern "C" void pl_k_pack(const struct pl_cuda_matrix *w, int64_t first, int64_t n,
                          const void *blocks, cudaStream_t s)
{
    by_packing(w->dtype, [&](auto t) {
        typedef packing<decltype(t)::value> P;
        const int groups = (int)(padded(w->in) / (UNIT * P::units));
        PL_LAUNCH(pack_panels<decltype(t)::value>,
                  ceil_div(ceil_div(n, PANEL) * (int64_t)groups, GROUPS_A_BLOCK),
                  GROUPS_A_BLOCK * WARP, 0, s, (const uint8_t *)blocks, n, w->in, groups,
                  (uint8_t *)w->data + (size_t)first * w->row_bytes);
    });
}

extern "C" void pl_k_packed_decode(const struct pl_cuda_matrix *w, enum pl_dtype to, void *out,
                                   cudaStream_t s)
{
    by_packing(w->dtype, [&](auto t) {
        by_dtype(to, [&](auto *p) {
            typedef packing<decltype(t)::value> P;
            const int groups = (int)(padded(w->in) / (UNIT * P::units));
            PL_LAUNCH(decode_packed<decltype(t)::value>,
                      ceil_div(ceil_div(w->out, PANEL) * (int64_t)groups, GROUPS_A_BLOCK),
                      GROUPS_A_BLOCK * WARP, 0, s, (const uint8_t *)w->data, w->out, w->in, groups,
                      (decltype(p))out);
        });
    });
}

extern "C" void pl_k_packed_embed(const struct pl_cuda_matrix *table, const int32_t *ids, int rows,
                                  float *x, cudaStream_t s)
{
    by_packing(table->dtype, [&](auto t) {
        typedef packing<decltype(t)::value> P;
        PL_LAUNCH(embed_packed<decltype(t)::value>, (unsigned)rows, 64, 0, s,
                  (const uint8_t *)table->data, ids, table->in,
                  (int)(padded(table->in) / (UNIT * P::units)), x);
    });
}

/* Those of p that have the type of p[first]; true: it is the first of its type. */
static bool same_type(struct blocks *g, const struct pl_cuda_product *p, int n, int first)
{
    int panels = 0;

    g->n = 0;
    for (int i = 0; i < n; i++) {
        if (p[i].w->dtype != p[first].w->dtype)
            continue;
        if (i < first)
            return false;
        g->part[g->n].w = (const uint8_t *)p[i].w->data;
        g->part[g->n].bias = p[i].w->bias;
        g->part[g->n].y = p[i].y;
        g->part[g->n].out = p[i].w->out;
        g->part[g->n].first = panels;
        g->part[g->n++].add = p[i].add;
        panels += (int)ceil_div(p[i].w->out, PANEL);
    }
    return true;
}

extern "C" void pl_k_gemv_packed(const struct pl_cuda_product *p, int n, const float *x, int rows,
                                 void *room, cudaStream_t s)
{
    const int64_t in = p[0].w->in, units = padded(in) / UNIT;
    struct blocks g = {};
    float *scale = (float *)(void *)((char *)room + padded(in) * ROWS);

    PL_LAUNCH(quantise_rows, (unsigned)units, ROWS * WARP, 0, s, x, rows, in, (int8_t *)room,
              scale);
    g.rows = rows;
    g.x = (const uint8_t *)room;
    g.scale = (const float4 *)(const void *)scale;
    for (int i = 0; i < n; i++) {
        if (!same_type(&g, p, n, i))
            continue;
        const int last = g.n - 1;
        const unsigned panels = (unsigned)g.part[last].first + ceil_div(g.part[last].out, PANEL);
        by_packing(p[i].w->dtype, [&](auto t) {
            g.groups = (int)(units / packing<decltype(t)::value>::units);
            if (rows == 1)
                PL_LAUNCH((gemv_packed<decltype(t)::value, true>), panels, QUANT_WARPS * WARP, 0, s,
                          g);
            else
                PL_LAUNCH((gemv_packed<decltype(t)::value, false>), panels, QUANT_WARPS * WARP, 0,
                          s, g);
        });
    }
}
