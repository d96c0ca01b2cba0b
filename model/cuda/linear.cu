#include "model/cuda/common.cuh"

#include <type_traits>

/*
 * Products with few rows read each weight once: a warp owns N outputs, its lanes lie over k, and x
 * comes from L1. One launch takes the products of one input together, so that narrow ones (K and V)
 * ride with wide ones.
 */
#define GEMV_WARPS 4
#define PL_CUDA_OVERLAPS 64 /* GPUs that pl_k_overlap knows of */

struct gemv : parts {
    int groups; /* of N outputs */
    const float *x;
};

/* Sixteen bytes of weights at once. */
template <typename W> struct wide {
    static const int n = 16 / (int)sizeof(W);
    W v[16 / sizeof(W)];
};

template <typename W> __device__ __forceinline__ wide<W> load_wide(const W *p)
{
    wide<W> w;
    uint4 raw = *(const uint4 *)(const void *)p;

    memcpy(&w, &raw, sizeof(w));
    return w;
}

template <int R>
__device__ __forceinline__ void finish(const struct gemv &g, int s, int64_t o, float *acc, int lane)
{
    for (int r = 0; r < R; r++) {
        float v = warp_sum(acc[r]);
        if (lane == r && r < g.rows) {
            float *y = g.part[s].y + r * g.part[s].out + o;
            v += g.part[s].bias ? g.part[s].bias[o] : 0;
            *y = g.part[s].add ? *y + v : v;
        }
    }
}

/* Σ over k of this lane's part of N weight rows with R rows of x. WIDE: rows of w and x are 16-byte
 * aligned. */
template <typename W, int R, int N, bool WIDE>
__device__ __forceinline__ void accumulate(const struct gemv &g, const W *const *w, float (*acc)[R],
                                           int lane)
{
    const int V = WIDE ? wide<W>::n : 1;

#pragma unroll 4
    for (int64_t k = lane * V; k < g.in; k += WARP * V) {
        float wf[N][V];
        for (int j = 0; j < N; j++) {
            if (WIDE) {
                wide<W> raw = load_wide(w[j] + k);
                for (int i = 0; i < V; i++)
                    wf[j][i] = to_f32(raw.v[i]);
            } else {
                wf[j][0] = to_f32(w[j][k]);
            }
        }
        for (int r = 0; r < R; r++) {
            const float *x = g.x + (R == 1 || r < g.rows ? r : 0) * g.in + k;
            for (int i = 0; i < V; i++)
                for (int j = 0; j < N; j++)
                    acc[j][r] = fmaf(wf[j][i], x[i], acc[j][r]);
        }
    }
}

template <typename W, int R, int N, bool WIDE>
__global__ void __launch_bounds__(GEMV_WARPS *WARP) gemv_dense(const struct gemv g)
{
    const int at = (int)(blockIdx.x * GEMV_WARPS + threadIdx.x / WARP);
    const int lane = (int)threadIdx.x % WARP;
    float acc[N][R] = {};

    if (at >= g.groups)
        return;
    const int s = part_of(g, at);
    const int64_t o = (int64_t)(at - g.part[s].first) * N, out = g.part[s].out;
    const W *w[N];
    for (int j = 0; j < N; j++) /* beyond the last: read the last again, store nothing */
        w[j] = (const W *)g.part[s].w + (o + j < out ? o + j : out - 1) * g.in;
    accumulate<W, R, N, WIDE>(g, w, acc, lane);
    for (int j = 0; j < N; j++)
        if (o + j < out)
            finish<R>(g, s, o + j, acc[j], lane);
}

/* y = act(gate · x) · (up · x): a warp has the same output of both, so that neither goes to memory.
 */
template <typename W, int R, bool WIDE>
__global__ void __launch_bounds__(GEMV_WARPS *WARP)
    gemv_gated(const struct gemv g, int act, float *y)
{
    int64_t o = (int64_t)blockIdx.x * GEMV_WARPS + threadIdx.x / WARP;
    const int lane = (int)threadIdx.x % WARP;
    float acc[2][R] = {};

    if (o >= g.groups)
        return;
    const W *w[2] = {(const W *)g.part[0].w + o * g.in, (const W *)g.part[1].w + o * g.in};
    accumulate<W, R, 2, WIDE>(g, w, acc, lane);
    for (int r = 0; r < R; r++) {
        float gate = warp_sum(acc[0][r]), up = warp_sum(acc[1][r]);
        if (lane != r || r >= g.rows)
            continue;
        gate += g.part[0].bias ? g.part[0].bias[o] : 0;
        up += g.part[1].bias ? g.part[1].bias[o] : 0;
        y[r * (int64_t)g.groups + o] = act_one(act, gate) * up;
    }
}

static bool aligned(const struct gemv &g, size_t each)
{
    bool ok = g.in * (int64_t)each % 16 == 0 && g.in % 4 == 0;

    for (int i = 0; i < g.n; i++)
        ok = ok && (uintptr_t)g.part[i].w % 16 == 0;
    return ok;
}

template <typename W, int R, int N>
static void launch_dense(const struct gemv &g, unsigned blocks, cudaStream_t s)
{
    if (aligned(g, sizeof(W)))
        PL_LAUNCH((gemv_dense<W, R, N, true>), blocks, GEMV_WARPS * WARP, 0, s, g);
    else
        PL_LAUNCH((gemv_dense<W, R, N, false>), blocks, GEMV_WARPS * WARP, 0, s, g);
}

template <typename W> static void dense(const struct gemv &g, unsigned blocks, cudaStream_t s)
{
    if (g.rows == 1)
        launch_dense<W, 1, 1>(g, blocks, s);
    else if (g.rows <= 4)
        launch_dense<W, 4, 2>(g, blocks, s);
    else
        launch_dense<W, 8, 2>(g, blocks, s);
}

template <typename W, int R>
static void launch_gated(const struct gemv &g, int act, float *y, cudaStream_t s)
{
    unsigned blocks = ceil_div(g.groups, GEMV_WARPS);

    if (aligned(g, sizeof(W)))
        PL_LAUNCH((gemv_gated<W, R, true>), blocks, GEMV_WARPS * WARP, 0, s, g, act, y);
    else
        PL_LAUNCH((gemv_gated<W, R, false>), blocks, GEMV_WARPS * WARP, 0, s, g, act, y);
}

extern "C" void pl_k_gemv_gated(const struct pl_cuda_matrix *gate, const struct pl_cuda_matrix *up,
                                enum pl_act_kind act, const float *x, int rows, float *y,
                                cudaStream_t s)
{
    const struct pl_cuda_product p[2] = {{gate, NULL, false}, {up, NULL, false}};
    struct gemv g = {};

    fill_parts(&g, p, 2, gate->dtype, rows, 1);
    g.groups = (int)gate->out;
    g.x = x;
    by_dtype(gate->dtype, [&](auto *t) {
        typedef typename std::remove_pointer<decltype(t)>::type W;
        if (rows == 1)
            launch_gated<W, 1>(g, (int)act, y, s);
        else if (rows <= 4)
            launch_gated<W, 4>(g, (int)act, y, s);
        else
            launch_gated<W, 8>(g, (int)act, y, s);
    });
}

extern "C" void pl_k_gemv(const struct pl_cuda_product *p, int n, const float *x, int rows,
                          cudaStream_t s)
{
    const enum pl_dtype dt = p[0].w->dtype;
    struct gemv g = {};

    g.groups = fill_parts(&g, p, n, dt, rows, rows > 1 ? 2 : 1);
    g.x = x;
    by_dtype(dt, [&](auto *t) {
        typedef typename std::remove_pointer<decltype(t)>::type W;
        dense<W>(g, ceil_div(g.groups, GEMV_WARPS), s);
    });
}

static bool overlaps[PL_CUDA_OVERLAPS];

extern "C" void pl_k_overlap(int ordinal, bool on)
{
    if (ordinal < PL_CUDA_OVERLAPS)
        overlaps[ordinal] = on;
}

extern "C" bool pl_k_overlaps(void)
{
    int ordinal;

    return !cudaGetDevice(&ordinal) && ordinal < PL_CUDA_OVERLAPS && overlaps[ordinal];
}

template <typename F, typename T> __global__ void cast(const F *x, int64_t n, T *y)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;

    if (i < n)
        from_f32(to_f32(x[i]), y + i);
}

#define FLAT 256

extern "C" void pl_k_cast(const float *x, int64_t n, enum pl_dtype to, void *y, cudaStream_t s)
{
    by_dtype(
        to, [&](auto *t) { PL_LAUNCH(cast, ceil_div(n, FLAT), FLAT, 0, s, x, n, (decltype(t))y); });
}

extern "C" void pl_k_decode(const struct pl_cuda_matrix *w, enum pl_dtype to, void *out,
                            cudaStream_t s)
{
    const int64_t n = w->out * w->in;

    if (w->packed)
        return pl_k_packed_decode(w, to, out, s);
    by_dtype(to, [&](auto *t) {
        by_dtype(w->dtype, [&](auto *f) {
            PL_LAUNCH(cast, ceil_div(n, FLAT), FLAT, 0, s, (decltype(f))w->data, n,
                      (decltype(t))out);
        });
    });
}

template <typename W>
__global__ void embed_dense(const W *w, const int32_t *ids, int64_t cols, float *x)
{
    const W *row = w + (int64_t)ids[blockIdx.x] * cols;

    for (int64_t c = threadIdx.x; c < cols; c += blockDim.x)
        x[blockIdx.x * cols + c] = to_f32(row[c]);
}

extern "C" void pl_k_embed(const struct pl_cuda_matrix *t, const int32_t *ids, int rows, float *x,
                           cudaStream_t s)
{
    if (t->packed)
        return pl_k_packed_embed(t, ids, rows, x, s);
    by_dtype(t->dtype, [&](auto *w) {
        PL_LAUNCH(embed_dense, (unsigned)rows, FLAT, 0, s, (decltype(w))t->data, ids, t->in, x);
    });
}

template <typename T> __global__ void random_fill(T *out, int64_t n, uint64_t key, double step)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;

    if (i >= n)
        return;
    uint64_t z = key + (uint64_t)(i / 2) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    from_f32((float)((double)(int32_t)(uint32_t)(i % 2 ? z >> 32 : z) * step), out + i);
}

extern "C" void pl_k_random(enum pl_dtype to, void *out, int64_t n, uint64_t key, float std,
                            cudaStream_t s)
{
    double step = (double)std * 1.7320508075688772 * 2 / 4294967296.0;

    by_dtype(to, [&](auto *t) {
        PL_LAUNCH(random_fill, ceil_div(n, FLAT), FLAT, 0, s, (decltype(t))out, n, key, step);
    });
}
