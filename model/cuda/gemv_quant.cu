/*
 * Products of up to 32 rows with block-quantised weights, on 8-bit tensor cores (m16n8k32: weights
 * are A, eight rows of x the columns of B), with x in 8 bits, one scale for each 32 numbers.
 * Weights are packed as packed.cuh says, and read once for all rows.
 *
 * A unit's integers, at most 32 · 127 · 255 in all, are summed exactly, on top of 1.5 · 2^23 as an
 * integer, which makes the sum a float's low bits: no conversion. A block's
 * warps share the groups and are added up in their order, so that an output's bits depend neither
 * on the number of rows nor on what else is in the launch.
 *
 * One row is normed and quantised by each block for itself, while its first weights are on their
 * way; there are as many blocks as the GPU runs at once, each with several panels, so that this is
 * done seldom. More rows have a launch before, one for norm and quantising.
 */
#include "model/cuda/packed.cuh"

#define QUANT_WARPS 8
#define QUANT_THREADS (QUANT_WARPS * WARP)
#define BLOCKS_AT_ONCE 2 /* on a multiprocessor */
#define ROWS 8           /* of x, in one product of a warp */
#define EIGHTS (PL_CUDA_STREAM_ROWS / ROWS)
#define ONE_SHARED (32 << 10) /* most bytes of one row in 8 bits that a block keeps */

struct blocks : parts {
    int groups;       /* of a panel */
    const uint8_t *q; /* see quantise_rows */
    const float4
        *scale;     /* [units][eights][t]: of rows 2t, 2t + 1; the same times Σ of the row's q */
    const float *x; /* one row, not quantised yet: normed by gain and eps, or as it is */
    const float *gain;
    float eps;
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

/* Four numbers that follow one another, of a unit that eight lanes have, as bytes q = round to
 * even(x · 127 / max |x|); the unit's scale, and scale · Σ q. NaN or infinity makes the scale NaN,
 * and so the product. */
__device__ __forceinline__ uint32_t quantise_4(const float v[4], float2 *scale)
{
    uint32_t bytes = 0;
    int most = 0, sum = 0;

    PL_UNROLL
    for (int i = 0; i < 4; i++) { /* as integers, so that NaN is the largest */
        int bits;
        memcpy(&bits, &v[i], sizeof(bits));
        most = max(most, bits & 0x7fffffff);
    }
    for (int o = 1; o < 8; o *= 2)
        most = max(most, __shfl_xor_sync(FULL, most, o));
    const float top = as_float((uint32_t)most);
    const bool usable = top >= 1e-30F && most < 0x7f800000;
    const float by = usable ? 127 / top : 0;
    PL_UNROLL
    for (int i = 0; i < 4; i++) {
        const int q = usable ? (int)rintf(v[i] * by) : 0;
        bytes |= (uint32_t)(q & 255) << 8 * i;
        sum += q;
    }
    for (int o = 1; o < 8; o *= 2)
        sum += __shfl_xor_sync(FULL, sum, o);
    scale->x = usable ? top / 127 : most < 0x7f800000 ? 0 : as_float(0x7fc00000u);
    scale->y = scale->x * (float)sum;
    return bytes;
}

/* Where columns k … k + 3 stand among the eight words of their unit: as a lane's b. */
__device__ __forceinline__ int word_at(int64_t k)
{
    return (int)(k % (UNIT / 2) / 4 * 2 + k % UNIT / (UNIT / 2));
}

/* Four of a row's numbers from column k on, normed by `by` and gain; zeros beyond the last. */
template <typename X>
__device__ __forceinline__ void normed_4(const X *x, const float *gain, float by, int64_t in,
                                         int64_t k, float v[4])
{
    four<X> raw = {};

    if (k < in)
        raw = *(const four<X> *)(const void *)(x + k);
    PL_UNROLL
    for (int i = 0; i < 4; i++)
        v[i] = gain && k < in ? to_f32(raw.v[i]) * by * gain[k + i] : to_f32(raw.v[i]);
}

/* What a row's mean square makes of it; by a block of QUANT_THREADS. */
template <typename X>
__device__ __forceinline__ float row_factor(const X *x, const float *gain, float eps, int64_t in)
{
    __shared__ float room[WARP];
    float square = 0, v[4];

    if (!gain)
        return 1;
    for (int64_t k = 4 * (int64_t)threadIdx.x; k < in; k += 4 * QUANT_THREADS) {
        normed_4(x, (const float *)NULL, 1, in, k, v);
        PL_UNROLL
        for (int i = 0; i < 4; i++)
            square = fmaf(v[i], v[i], square);
    }
    return 1.0f / sqrtf(block_sum(square, room) / (float)in + eps);
}

/* A block quantises 4 · QUANT_THREADS columns of a row, blockIdx.x. q: [units][eights][ROWS][32],
 * in each 32, for each t, the two words of a lane's b; scale: see blocks. What stands for rows
 * beyond the last is left as it is, and what comes of it is not stored. */
template <typename X>
__global__ void __launch_bounds__(QUANT_THREADS)
    quantise_rows(const X *x, const float *gain, float eps, int64_t in, int64_t units, int eights,
                  uint32_t *q, float *scale)
{
    const int64_t row = blockIdx.x, k = ((int64_t)blockIdx.y * QUANT_THREADS + threadIdx.x) * 4;
    const int64_t at = k / UNIT * eights + row / ROWS;
    const int r = (int)(row % ROWS);
    float v[4];
    float2 s;

    next_may_begin();
    previous_is_over();
    x += row * in;
    normed_4(x, gain, row_factor(x, gain, eps, in), in, k, v);
    const uint32_t bytes = quantise_4(v, &s);
    if (k >= units * UNIT)
        return;
    q[(at * ROWS + r) * 8 + word_at(k)] = bytes;
    if (threadIdx.x % 8 == 0) {
        float *to = scale + (at * 4 + r / 2) * 4 + r % 2;
        to[0] = s.x;
        to[2] = s.y;
    }
}

/* The same of one row by each block that multiplies with it: [units][32], and of each unit. */
__device__ __forceinline__ void quantise_one(const struct blocks &g, int64_t units, uint32_t *q,
                                             float2 *scale)
{
    const float by = row_factor(g.x, g.gain, g.eps, g.in);

    for (int64_t k = 4 * (int64_t)threadIdx.x; k / (4 * WARP) * (4 * WARP) < units * UNIT;
         k += 4 * QUANT_THREADS) { /* whole warps */
        float v[4];
        float2 s;
        normed_4(g.x, g.gain, by, g.in, k, v);
        const uint32_t bytes = quantise_4(v, &s);
        if (k >= units * UNIT)
            continue;
        q[k / UNIT * 8 + word_at(k)] = bytes;
        if (threadIdx.x % 8 == 0)
            scale[k / UNIT] = s;
    }
    __syncthreads();
}

/* Rows of x as a lane sees them: of a unit and eight rows their bytes, and scales. */
template <int MOST, bool ONE> struct columns {
    const uint2 *q;
    const float4 *scale;
    __device__ __forceinline__ uint2 bytes(int unit, int e) const
    {
        return q[(unit * MOST + e) * WARP];
    }
    __device__ __forceinline__ float4 scales(int unit, int e) const
    {
        return scale[(unit * MOST + e) * 4];
    }
};
template <int MOST> struct columns<MOST, true> { /* in shared memory */
    const uint2 *q;
    const float2 *scale;
    __device__ __forceinline__ uint2 bytes(int unit, int) const
    {
        return q[unit * 4];
    }
    __device__ __forceinline__ float4 scales(int unit, int) const
    {
        return float4{scale[unit].x, 0, scale[unit].y, 0};
    }
};

/* c += scale · sum · x's scale, less min · Σ x; of the even rows only where there is but one row.
 */
template <bool MINS, bool ONE>
__device__ __forceinline__ void add_up(float c[4], const int d[4], const float s[2],
                                       const float m[2], float4 x)
{
    PL_UNROLL
    for (int i = 0; i < 4; i += ONE ? 2 : 1) {
        /* a scale has 19 bits at most, so that its product with the magic number is exact */
        const float sum = fmaf(as_float((uint32_t)d[i]), s[i / 2], -MAGIC_F32 * s[i / 2]);
        c[i] = fmaf(sum, i % 2 ? x.y : x.x, c[i]);
        if (MINS)
            c[i] = fmaf(-m[i / 2], i % 2 ? x.w : x.z, c[i]);
    }
}

/* Unit u of a group, whose number among all is `unit`: c[e] of the e-th eight rows. */
template <int DT, int MOST, bool ONE>
__device__ __forceinline__ void times(float (*c)[4], const struct group<DT> &v, int u, int unit,
                                      const struct columns<MOST, ONE> &x, int eights)
{
    typedef packing<DT> P;
    const bool mins = P::mins && !P::scaled;
    const int halves = P::by_16 && !P::scaled ? 2 : 1;
    uint32_t a[4], least[4];
    float s[2][2], m[2];

    PL_UNROLL
    for (int i = 0; i < 4; i++) {
        a[i] = word<DT>(v, u, i);
        least[i] = P::scaled ? min_word<DT>(v, u, i) : 0;
    }
    PL_UNROLL
    for (int i = 0; i < 2 * halves; i++)
        scale_of<DT>(v, u, i / 2, i % 2, &s[i / 2][i % 2], &m[i % 2]);
    PL_UNROLL
    for (int r = 0; r < 2 && P::scaled; r++) /* a second sum, of the mins */
        s[1][r] = -half_of<DT>(v, u, r, true);
    PL_UNROLL
    for (int e = 0; e < MOST; e++) {
        if (e > 0 && e >= eights)
            break;
        const uint2 bytes = x.bytes(unit, e);
        const uint32_t b[2] = {bytes.x, bytes.y};
        const float4 scales = x.scales(unit, e);
        PL_UNROLL
        for (int h = 0; h < halves; h++) {
            int d[4];
            if (halves == 2)
                dot_16(d, a + 2 * h, b[h]);
            else
                dot_32<P::mins>(d, a, b);
            add_up<mins, ONE>(c[e], d, s[h], m, scales);
        }
        if (P::scaled) {
            int d[4];
            dot_32<true>(d, least, b);
            add_up<false, ONE>(c[e], d, s[1], m, scales);
        }
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

/* What becomes of sums. A piece of work is one panel, or two: the same outputs of gate and up, or
 * sixteen elements of a head and those half a head behind them. */
enum goal { TO_ROWS, TO_GATED, TO_HEADS };
struct output {
    enum goal goal;
    int panels, pieces; /* of a piece; of all */
    int act;            /* of gate */
    enum pl_dtype type;
    void *y;
    struct pl_cuda_step st;
    struct pl_cuda_heads h;
    unsigned each, by; /* pieces of a head; what divides by it: see head_of */
};

/* Which head a piece of a product is of: below 2^16 / 8 pieces, as pl_k_gemv_mma_qkv_does asks,
 * `by` = 2^16 / each, rounded up, gives the quotient. */
__device__ __forceinline__ int head_of(const struct output &out, int piece)
{
    return (int)((unsigned)piece * out.by >> 16);
}

/* The panel-th panel of a piece. */
__device__ __forceinline__ const uint8_t *weights(const struct blocks &g, const struct output &out,
                                                  int piece, int panel, int64_t bytes)
{
    const int s = out.goal == TO_GATED ? panel : part_of(g, piece);
    int at = out.goal == TO_GATED ? piece : piece - g.part[s].first;

    if (out.goal == TO_HEADS)
        at += (head_of(out, at) + panel) * (int)out.each;
    return (const uint8_t *)g.part[s].w + at * bytes;
}

/* Output i of a piece's panels, of a row of x. */
__device__ __forceinline__ void store(const struct blocks &g, const struct output &out, int piece,
                                      int row, int i, float first, float second)
{
    const int s = out.goal == TO_GATED ? 0 : part_of(g, piece), at = piece - g.part[s].first;
    const int64_t o = (int64_t)at * PANEL + i, outs = g.part[s].out;

    if (out.goal == TO_HEADS) {
        const int head = head_of(out, at);
        put_heads(g, out.st, out.h, s, row, head, (at - head * (int)out.each) * PANEL + i, first,
                  second);
        return;
    }
    if (o >= outs)
        return;
    first += g.part[s].bias ? g.part[s].bias[o] : 0;
    if (out.goal == TO_GATED) {
        second += g.part[1].bias ? g.part[1].bias[o] : 0;
        put(out.type, out.y, row * outs + o, act_one(out.act, first) * second);
        return;
    }
    float *y = g.part[s].y + row * outs + o;
    *y = g.part[s].add ? *y + first : first;
}

/* MOST: eights of rows at most. */
template <int DT, int MOST, bool ONE>
__global__ void __launch_bounds__(QUANT_THREADS, BLOCKS_AT_ONCE)
    gemv_packed(const struct blocks g, const struct output out)
{
    PL_DYNAMIC_SHARED(uint32_t, room);
    __shared__ float sums[2][MOST * 4][WARP]; /* of a piece's panels; the first warp's */
    typedef packing<DT> P;
    const int AHEAD = QUANT_WARPS * P::at_once;
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const int units = g.groups * P::units, eights = (g.rows + ROWS - 1) / ROWS;
    const int64_t bytes = (int64_t)g.groups * P::bytes;
    struct columns<MOST, ONE> x;
    struct group<DT> now[P::at_once], next[P::at_once] = {
    };
    int piece = (int)blockIdx.x, panel = 0;
    const uint8_t *w = weights(g, out, piece, panel, bytes);

    next_may_begin();
    load_all<DT>(next, w, warp, g.groups, lane);
    previous_is_over(); /* weights are nobody's to write, x is */
    if constexpr (ONE) {
        float2 *scale = (float2 *)(void *)(room + units * (UNIT / 4));
        quantise_one(g, units, room, scale);
        x = {(const uint2 *)(const void *)room + lane % 4, scale};
    } else {
        x = {(const uint2 *)(const void *)g.q + lane, g.scale + lane % 4};
    }
    for (int turn = 0; piece < out.pieces; turn ^= 1) {
        const bool last = panel + 1 == out.panels;
        const int then = last ? piece + (int)gridDim.x : piece, its = last ? 0 : panel + 1;
        const uint8_t *after = then < out.pieces ? weights(g, out, then, its, bytes) : NULL;
        float c[MOST][4] = {};
        for (int k = warp; k < g.groups; k += AHEAD) {
            const bool more = k + AHEAD < g.groups;
            memcpy(now, next, sizeof(now));
            if (more || after)
                load_all<DT>(next, more ? w : after, more ? k + AHEAD : warp, g.groups, lane);
            PL_UNROLL
            for (int j = 0; j < P::at_once; j++) {
                if (k + j * QUANT_WARPS >= g.groups)
                    break;
                PL_UNROLL
                for (int u = 0; u < P::units; u++)
                    times<DT, MOST, ONE>(c, now[j], u, (k + j * QUANT_WARPS) * P::units + u, x,
                                         eights);
            }
        }
        if (together<QUANT_WARPS, MOST * 4, 2>(&c[0][0], turn)) {
            PL_UNROLL
            for (int i = 0; i < MOST * 4; i++)
                sums[panel][i][lane] = c[i / 4][i % 4];
#pragma unroll 1
            for (int i = 0; i < MOST * 4 && last; i++) {
                const int row = i / 4 * ROWS + lane % 4 * 2 + i % 2;
                if (row < g.rows)
                    store(g, out, piece, row, lane / 4 + i % 4 / 2 * 8, sums[0][i][lane],
                          sums[1][i][lane]);
            }
        }
        w = after;
        piece = then;
        panel = its;
    }
}

extern "C" size_t pl_k_packed_room(int64_t in)
{
    return (size_t)padded(in) * PL_CUDA_STREAM_ROWS +
           (size_t)(padded(in) / UNIT) * 2 * PL_CUDA_STREAM_ROWS * sizeof(float);
}

/* Quantises the rows of x, but one that a block has room for; g then knows where they are. Bytes of
 * that room. */
static size_t quantise(const struct pl_cuda_packed_rows *x, int64_t in, struct blocks *g,
                       cudaStream_t s)
{
    const int64_t units = padded(in) / UNIT;
    const size_t one = (size_t)units * (UNIT + sizeof(float2));
    float *scale = (float *)(void *)((char *)x->room + padded(in) * PL_CUDA_STREAM_ROWS);

    g->gain = x->norm ? x->norm->gain : NULL;
    g->eps = x->norm ? x->norm->eps : 0;
    if (x->rows == 1 && x->type == PL_DT_F32 && one <= ONE_SHARED) {
        g->x = (const float *)x->x;
        return one;
    }
    g->q = (const uint8_t *)x->room;
    g->scale = (const float4 *)(const void *)scale;
    by_dtype(x->type, [&](auto *t) {
        typedef typename std::remove_pointer<decltype(t)>::type X;
        const dim3 grid((unsigned)x->rows, ceil_div(padded(in), 4 * QUANT_THREADS));
        PL_LAUNCH_EARLY(quantise_rows<X>, grid, QUANT_THREADS, 0, s, (const X *)x->x, g->gain,
                        g->eps, in, units, x->rows <= ROWS ? 1 : EIGHTS, (uint32_t *)x->room,
                        scale);
    });
    return 0;
}

/* The products that fill_parts found; one: bytes of one row. */
static void launch(struct blocks *g, enum pl_dtype dt, size_t one,
                   const struct pl_cuda_packed_rows *x, const struct output &out, cudaStream_t s)
{
    const unsigned rounds = ceil_div(out.pieces, BLOCKS_AT_ONCE * (int64_t)(x->sms ? x->sms : 1));
    const unsigned grid = ceil_div(out.pieces, rounds);

    by_packing(dt, [&](auto t) {
        const int DT = decltype(t)::value;
        g->groups = (int)(padded(g->in) / UNIT / packing<DT>::units);
        if (one)
            PL_LAUNCH_EARLY((gemv_packed<DT, 1, true>), grid, QUANT_THREADS, one, s, *g, out);
        else if (x->rows <= ROWS)
            PL_LAUNCH_EARLY((gemv_packed<DT, 1, false>), grid, QUANT_THREADS, 0, s, *g, out);
        else
            PL_LAUNCH_EARLY((gemv_packed<DT, EIGHTS, false>), grid, QUANT_THREADS, 0, s, *g, out);
    });
}

/* Whether p[i] is the first of its type. */
static bool first_of_type(const struct pl_cuda_product *p, int i)
{
    for (int j = 0; j < i; j++)
        if (p[j].w->dtype == p[i].w->dtype)
            return false;
    return true;
}

/* A launch for each type. */
static void launch_all(const struct pl_cuda_product *p, int n, const struct pl_cuda_packed_rows *x,
                       struct output *out, cudaStream_t s)
{
    struct blocks g = {};
    const size_t one = quantise(x, p[0].w->in, &g, s);

    for (int i = 0; i < n; i++) {
        const enum pl_dtype dt = p[i].w->dtype;
        if (!first_of_type(p, i))
            continue;
        out->pieces = fill_parts(&g, p, n, dt, x->rows, out->goal == TO_HEADS ? 2 * PANEL : PANEL);
        if (out->goal == TO_GATED)
            out->pieces /= 2;
        launch(&g, dt, one, x, *out, s);
    }
}

extern "C" void pl_k_gemv_packed(const struct pl_cuda_product *p, int n,
                                 const struct pl_cuda_packed_rows *x, cudaStream_t s)
{
    struct output out = {};

    out.panels = 1;
    launch_all(p, n, x, &out, s);
}

extern "C" void pl_k_gemv_packed_gated(const struct pl_cuda_matrix *gate,
                                       const struct pl_cuda_matrix *up, enum pl_act_kind act,
                                       const struct pl_cuda_packed_rows *x, void *y,
                                       enum pl_dtype to, cudaStream_t s)
{
    const struct pl_cuda_product p[2] = {{gate, NULL, false}, {up, NULL, false}};
    struct output out = {};

    out.goal = TO_GATED;
    out.panels = 2;
    out.act = (int)act;
    out.type = to;
    out.y = y;
    launch_all(p, 2, x, &out, s);
}

extern "C" void pl_k_gemv_packed_qkv(const struct pl_cuda_product *p,
                                     const struct pl_cuda_packed_rows *x,
                                     const struct pl_cuda_step *step, const struct pl_cuda_heads *h,
                                     cudaStream_t s)
{
    struct output out = {};

    out.goal = TO_HEADS;
    out.panels = 2;
    out.st = *step;
    out.h = *h;
    out.each = (unsigned)h->dim / (2 * PANEL);
    out.by = 65535 / out.each + 1;
    launch_all(p, 3, x, &out, s);
}
