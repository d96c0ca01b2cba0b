/*
 * Products of up to 8 rows with block-quantised weights, on 8-bit tensor cores (m16n8k32: weights
 * are A, rows of x the columns of B), with x in 8 bits, one scale for each 32 numbers. Weights are
 * packed as packed.cuh says.
 *
 * A unit's integers, at most 32 · 127 · 255 in all, are summed exactly, on top of 1.5 · 2^23 as an
 * integer, which makes the sum a float's low bits: no conversion. A block's warps share the groups
 * and are added up in their order, so that an output's bits depend neither on the number of rows
 * nor on what else is in the launch.
 */
#include "model/cuda/packed.cuh"

#define QUANT_WARPS 8
#define ROWS PL_CUDA_GEMV_ROWS

struct blocks : parts {
    int groups;          /* of a panel */
    const uint8_t *x;    /* see quantise */
    const float4 *scale; /* [units][t]: scale of rows 2t, 2t + 1; the same times Σ of the row's q */
};

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
    const uint8_t *w = (const uint8_t *)g.part[s].w + (int64_t)panel * g.groups * P::bytes;
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

extern "C" size_t pl_k_packed_room(int64_t in)
{
    return (size_t)padded(in) * ROWS + (size_t)(padded(in) / UNIT) * 2 * ROWS * sizeof(float);
}

/* Whether p[i] is the first of its type. */
static bool first_of_type(const struct pl_cuda_product *p, int i)
{
    for (int j = 0; j < i; j++)
        if (p[j].w->dtype == p[i].w->dtype)
            return false;
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
    g.x = (const uint8_t *)room;
    g.scale = (const float4 *)(const void *)scale;
    for (int i = 0; i < n; i++) {
        if (!first_of_type(p, i))
            continue;
        const unsigned panels = (unsigned)fill_parts(&g, p, n, p[i].w->dtype, rows, PANEL);
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
