/*
 * Products of up to 32 rows with 16-bit weights, which are read once and go from memory straight to
 * tensor cores (m16n8k16; weights are A, rows of x the columns of B). Where k stands in a fragment
 * is free as long as A and B agree: a lane takes eight weights that follow one another, 16 bytes. A
 * block has 16 or 32 outputs; its warps share k, two steps of 32 at a time, and are added up in
 * their order, so that an output's bits depend neither on the number of rows nor on what else is in
 * the launch.
 *
 * x in f32 is taken as the sum of two 16-bit numbers, which keep 16 (bf16) or 22 (f16) of its bits.
 * Where rows are to be normed by their mean square first, x is multiplied by the gain as it comes
 * and the sums by the row's factor, whose squares every block adds up on its way.
 */
#include "model/cuda/mma.cuh"

#include <type_traits>

#define STREAM_WARPS 8
#define STEP 32     /* of k: eights of four lanes */
#define TOGETHER 2  /* steps that follow one another, of one warp */
#define IN_FLIGHT 4 /* steps of a tile of 16 rows that a warp has on their way from memory */

struct stream : parts {
    int steps;
    const void *x;
    const float *gain; /* [in], of a norm by mean squares; NULL: x as it is */
    float eps;
};

/* Eights of k of 8 rows, for two k16 steps. */
struct columns {
    uint32_t b[2][2];
};

template <typename T> __device__ __forceinline__ struct columns columns_of(const T *x, bool there)
{
    uint4 v = {};

    if (there)
        v = *(const uint4 *)(const void *)x;
    return {{{v.x, v.y}, {v.z, v.w}}};
}

/* c[tile] += weights · x of eight rows. */
template <typename T, int TILES>
__device__ __forceinline__ void times(float (*c)[4], const uint4 (*w)[2], const struct columns &x)
{
    PL_UNROLL
    for (int i = 0; i < TILES; i++) {
        const uint32_t a[2][4] = {{w[i][0].x, w[i][1].x, w[i][0].y, w[i][1].y},
                                  {w[i][0].z, w[i][1].z, w[i][0].w, w[i][1].w}};
        mma(c[i], a[0], x.b[0], T());
        mma(c[i], a[1], x.b[1], T());
    }
}

/* The same with x in its own type, or in f32: first what fits, then what it left. */
template <typename T, int TILES, bool NORM>
__device__ __forceinline__ void step(float (*c)[4], const uint4 (*w)[2], const T *x, const float *,
                                     float *, bool there)
{
    times<T, TILES>(c, w, columns_of(x, there));
}
template <typename T, int TILES, bool NORM>
__device__ __forceinline__ void step(float (*c)[4], const uint4 (*w)[2], const float *x,
                                     const float *gain, float *squares, bool there)
{
    float4 v[2] = {};
    struct columns most, left;

    PL_UNROLL
    for (int i = 0; i < 2 && there; i++) {
        v[i] = ((const float4 *)(const void *)x)[i];
        if (NORM) {
            const float4 by = ((const float4 *)(const void *)gain)[i];
            *squares = fmaf(v[i].x, v[i].x, *squares);
            *squares = fmaf(v[i].y, v[i].y, *squares);
            *squares = fmaf(v[i].z, v[i].z, *squares);
            *squares = fmaf(v[i].w, v[i].w, *squares);
            v[i] = float4{v[i].x * by.x, v[i].y * by.y, v[i].z * by.z, v[i].w * by.w};
        }
    }
    PL_UNROLL
    for (int i = 0; i < 2; i++) {
        most.b[i][0] = pack(v[i].x, v[i].y, T());
        most.b[i][1] = pack(v[i].z, v[i].w, T());
        left.b[i][0] = rest<T>(v[i].x, v[i].y, most.b[i][0]);
        left.b[i][1] = rest<T>(v[i].z, v[i].w, most.b[i][1]);
    }
    times<T, TILES>(c, w, most);
    times<T, TILES>(c, w, left);
}

/* Which step is the u-th of those that this warp takes at once from `at` on. */
__device__ __forceinline__ int step_at(int at, int u)
{
    return at + u / TOGETHER * STREAM_WARPS * TOGETHER + u % TOGETHER;
}

/* N of a warp's steps; zeros beyond the last. */
template <typename T, int TILES, int N>
__device__ __forceinline__ void load(uint4 (*w)[TILES][2], const T *const (*from)[2], int at,
                                     int steps)
{
    PL_UNROLL
    for (int u = 0; u < N; u++) {
        PL_UNROLL
        for (int i = 0; i < TILES * 2; i++) {
            w[u][i / 2][i % 2] = uint4{};
            if (step_at(at, u) < steps)
                w[u][i / 2][i % 2] =
                    *(const uint4 *)(const void *)(from[i / 2][i % 2] + step_at(at, u) * STEP);
        }
    }
}

/* Sums of this warp's share of k: tile i are 16 weight rows from from[i] on, c[r][i] of rows
 * 8r … 8r + 7 of x; and the squares of this lane's share of x. */
template <typename T, typename X, int ROWS8, int TILES, bool NORM>
__device__ __forceinline__ float share(const struct stream &g, const T *const (*from)[2],
                                       float (*c)[TILES][4])
{
    const int N = IN_FLIGHT / TILES, warp = (int)threadIdx.x / WARP;
    const int lane = (int)threadIdx.x % WARP;
    const X *x = (const X *)g.x + (int64_t)(lane / 4) * g.in + lane % 4 * 8;
    const float *gain = NORM ? g.gain + lane % 4 * 8 : NULL;
    uint4 w[N][TILES][2], next[N][TILES][2];
    float squares = 0;

    next_may_begin();
    load<T, TILES, N>(next, from, warp * TOGETHER, g.steps);
    previous_is_over(); /* weights are nobody's to write, x is */
    for (int at = warp * TOGETHER; at < g.steps; at += STREAM_WARPS * N) {
        memcpy(w, next, sizeof(w));
        load<T, TILES, N>(next, from, at + STREAM_WARPS * N, g.steps);
        PL_UNROLL
        for (int u = 0; u < N; u++) {
            PL_UNROLL
            for (int r = 0; r < ROWS8; r++)
                step<T, TILES, NORM>(c[r], w[u], x + 8 * r * g.in + step_at(at, u) * STEP,
                                     NORM ? gain + step_at(at, u) * STEP : NULL, &squares,
                                     step_at(at, u) < g.steps && 8 * r + lane / 4 < g.rows);
        }
    }
    return squares;
}

/* The warps' sums together, and normed: c of two rows, 2t and 2t + 1 of every eight, takes turns.
 * false: not the first warp. */
template <int N, bool NORM>
__device__ __forceinline__ bool together_normed(const struct stream &g, float *c, float squares)
{
    __shared__ float squared[STREAM_WARPS][8];
    const int lane = (int)threadIdx.x % WARP;

    if (NORM) {
        squares += __shfl_xor_sync(FULL, squares, 1);
        squares += __shfl_xor_sync(FULL, squares, 2);
        if (lane % 4 == 0)
            squared[threadIdx.x / WARP][lane / 4] = squares;
    }
    if (!together<STREAM_WARPS, N>(c))
        return false;
    PL_UNROLL
    for (int k = 0; k < 2 && NORM; k++) {
        float all = 0;
        for (int w = 0; w < STREAM_WARPS; w++)
            all += squared[w][lane % 4 * 2 + k];
        const float by = 1.0f / sqrtf(all / (float)g.in + g.eps);
        PL_UNROLL
        for (int i = k; i < N; i += 2)
            c[i] *= by;
    }
    return true;
}

template <typename T, typename X, int ROWS8, int TILES, bool NORM>
__global__ void __launch_bounds__(STREAM_WARPS *WARP, 2) gemv_mma(const struct stream g)
{
    const int lane = (int)threadIdx.x % WARP, s = part_of(g, (int)blockIdx.x);
    const int64_t out = g.part[s].out;
    const int64_t o0 = (int64_t)((int)blockIdx.x - g.part[s].first) * 16 * TILES + lane / 4;
    const T *from[TILES][2];
    float c[ROWS8][TILES][4] = {};

    for (int i = 0; i < TILES * 2; i++) { /* beyond the last: read the last again, store nothing */
        const int64_t o = o0 + 8 * i;
        from[i / 2][i % 2] = (const T *)g.part[s].w + (o < out ? o : out - 1) * g.in + lane % 4 * 8;
    }
    const float squares = share<T, X, ROWS8, TILES, NORM>(g, from, c);
    if (!together_normed<ROWS8 * TILES * 4, NORM>(g, &c[0][0][0], squares))
        return;
    PL_UNROLL
    for (int i = 0; i < ROWS8 * TILES * 4; i++) {
        const int row = i / (4 * TILES) * 8 + lane % 4 * 2 + i % 2;
        const int64_t o = o0 + i % (4 * TILES) / 2 * 8;
        if (row >= g.rows || o >= out)
            continue;
        float *y = g.part[s].y + row * out + o;
        const float v = (&c[0][0][0])[i] + (g.part[s].bias ? g.part[s].bias[o] : 0);
        *y = g.part[s].add ? *y + v : v;
    }
}

/* y = act(part 0) · part 1: a block has the same outputs of both. */
template <typename T, typename X, int ROWS8, bool NORM>
__global__ void __launch_bounds__(STREAM_WARPS *WARP, 2)
    gemv_mma_gated(const struct stream g, int act, X *y)
{
    const int lane = (int)threadIdx.x % WARP;
    const int64_t out = g.part[0].out, o0 = (int64_t)blockIdx.x * 16 + lane / 4;
    const T *from[2][2];
    float c[ROWS8][2][4] = {};

    for (int i = 0; i < 4; i++) {
        const int64_t o = o0 + i % 2 * 8;
        from[i / 2][i % 2] =
            (const T *)g.part[i / 2].w + (o < out ? o : out - 1) * g.in + lane % 4 * 8;
    }
    const float squares = share<T, X, ROWS8, 2, NORM>(g, from, c);
    if (!together_normed<ROWS8 * 8, NORM>(g, &c[0][0][0], squares))
        return;
    PL_UNROLL
    for (int r = 0; r < ROWS8; r++) {
        PL_UNROLL
        for (int i = 0; i < 4; i++) {
            const int row = r * 8 + lane % 4 * 2 + i % 2;
            const int64_t o = o0 + i / 2 * 8;
            if (row >= g.rows || o >= out)
                continue;
            const float gate = c[r][0][i] + (g.part[0].bias ? g.part[0].bias[o] : 0);
            const float up = c[r][1][i] + (g.part[1].bias ? g.part[1].bias[o] : 0);
            from_f32(act_one(act, gate) * up, y + row * out + o);
        }
    }
}

/* Q, K and V (the parts) of normed rows: a block has 16 elements of one head and those half a head
 * behind them, so that a thread turns pairs of its own; q in f32, K and V to their places. */
template <typename T>
__global__ void __launch_bounds__(STREAM_WARPS *WARP, 2)
    gemv_mma_qkv(const struct stream g, const struct pl_cuda_step st, const struct pl_cuda_heads h)
{
    const int lane = (int)threadIdx.x % WARP, s = part_of(g, (int)blockIdx.x), half = h.dim / 2;
    const int group = (int)blockIdx.x - g.part[s].first, head = group / (half / 16);
    const int first = group % (half / 16) * 16 + lane / 4;
    const int64_t o0 = (int64_t)head * h.dim + first;
    const T *from[2][2];
    float c[1][2][4] = {};

    for (int i = 0; i < 4; i++)
        from[i / 2][i % 2] =
            (const T *)g.part[s].w + (o0 + i / 2 * half + i % 2 * 8) * g.in + lane % 4 * 8;
    const float squares = share<T, float, 1, 2, true>(g, from, c);
    if (!together_normed<8, true>(g, &c[0][0][0], squares))
        return;
    PL_UNROLL
    for (int e = 0; e < 4; e++) {
        const int row = lane % 4 * 2 + e % 2;
        if (row < g.rows)
            put_heads(g, st, h, s, row, head, first + e / 2 * 8, c[0][0][e], c[0][1][e]);
    }
}

template <int N> using constant = std::integral_constant<int, N>;

/* Calls f with null pointers of the weights' and x's types, the eights of rows, and the tiles of 16
 * outputs that share an x. */
template <typename F> static void by_rows(enum pl_dtype w, int rows, F f)
{
    by_dtype_16(w, [&](auto *t) {
        if (rows <= 4)
            f(t, (float *)NULL, constant<1>(), constant<1>());
        else if (rows <= PL_CUDA_GEMV_ROWS)
            f(t, (float *)NULL, constant<1>(), constant<2>());
        else if (rows <= 16)
            f(t, t, constant<2>(), constant<2>());
        else if (rows <= 24)
            f(t, t, constant<3>(), constant<2>());
        else
            f(t, t, constant<4>(), constant<2>());
    });
}

/* Products in groups of `each` outputs, and how many groups there are. */
static struct stream stream_of(const struct pl_cuda_product *p, int n, int each, const void *x,
                               const struct pl_cuda_rms *norm, int rows, unsigned *groups)
{
    struct stream g = {};

    *groups = (unsigned)fill_parts(&g, p, n, p[0].w->dtype, rows, each);
    if (norm) {
        g.gain = norm->gain;
        g.eps = norm->eps;
    }
    g.steps = (int)(g.in / STEP);
    g.x = x;
    return g;
}

extern "C" bool pl_k_gemv_mma_does(const struct pl_cuda_matrix *w, int64_t rows)
{
    return rows <= PL_CUDA_STREAM_ROWS && w->in % STEP == 0 && (uintptr_t)w->data % 16 == 0 &&
           (w->dtype == PL_DT_BF16 || w->dtype == PL_DT_F16);
}

/* Calls f with NORM, which 16-bit rows never ask for. */
template <typename X, typename F> static void by_norm(const struct pl_cuda_rms *norm, F f)
{
    if constexpr (std::is_same<X, float>::value) {
        if (norm) {
            f(std::true_type());
            return;
        }
    }
    f(std::false_type());
}

extern "C" void pl_k_gemv_mma(const struct pl_cuda_product *p, int n, const void *x,
                              const struct pl_cuda_rms *norm, int rows, cudaStream_t s)
{
    unsigned groups;
    const struct stream g = stream_of(p, n, rows > 4 ? 32 : 16, x, norm, rows, &groups);

    by_rows(p[0].w->dtype, rows, [&](auto *t, auto *f, auto eights, auto tiles) {
        typedef typename std::remove_pointer<decltype(t)>::type T;
        typedef typename std::remove_pointer<decltype(f)>::type X;
        by_norm<X>(norm, [&](auto normed) {
            PL_LAUNCH_EARLY((gemv_mma<T, X, decltype(eights)::value, decltype(tiles)::value,
                                      decltype(normed)::value>),
                            groups, STREAM_WARPS * WARP, 0, s, g);
        });
    });
}

extern "C" void pl_k_gemv_mma_gated(const struct pl_cuda_matrix *gate,
                                    const struct pl_cuda_matrix *up, enum pl_act_kind act,
                                    const void *x, const struct pl_cuda_rms *norm, int rows,
                                    void *y, cudaStream_t s)
{
    const struct pl_cuda_product p[2] = {{gate, NULL, false}, {up, NULL, false}};
    unsigned both;
    const struct stream g = stream_of(p, 2, 16, x, norm, rows, &both);

    by_rows(gate->dtype, rows, [&](auto *t, auto *f, auto eights, auto) {
        typedef typename std::remove_pointer<decltype(t)>::type T;
        typedef typename std::remove_pointer<decltype(f)>::type X;
        by_norm<X>(norm, [&](auto normed) {
            PL_LAUNCH_EARLY(
                (gemv_mma_gated<T, X, decltype(eights)::value, decltype(normed)::value>), both / 2,
                STREAM_WARPS * WARP, 0, s, g, (int)act, (X *)y);
        });
    });
}

extern "C" bool pl_k_gemv_mma_qkv_does(const struct pl_cuda_heads *h)
{
    return h->dim % 32 == 0 && h->heads * (h->dim / 32) < 1 << 13 && !h->q_norm && !h->k_norm;
}

extern "C" void pl_k_gemv_mma_qkv(const struct pl_cuda_product *p, const float *x,
                                  const struct pl_cuda_rms *norm, const struct pl_cuda_step *step,
                                  const struct pl_cuda_heads *h, cudaStream_t s)
{
    unsigned groups;
    const struct stream g = stream_of(p, 3, 32, x, norm, step->rows, &groups);

    by_dtype_16(p[0].w->dtype, [&](auto *t) {
        typedef typename std::remove_pointer<decltype(t)>::type T;
        PL_LAUNCH_EARLY(gemv_mma_qkv<T>, groups, STREAM_WARPS * WARP, 0, s, g, *step, *h);
    });
}
