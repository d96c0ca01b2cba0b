/* What is done row by row or element by element. */
#include "model/cuda/common.cuh"
#include "model/float_rank.h"

#include <type_traits>

#define FLAT 256

__device__ __forceinline__ int64_t flat_index()
{
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

__global__ void add_bias(float *y, const float *bias, int64_t n, int64_t cols)
{
    int64_t i = flat_index();

    if (i < n)
        y[i] += bias[i % cols];
}

extern "C" void pl_k_add_bias(float *y, const float *bias, int rows, int64_t cols, cudaStream_t s)
{
    PL_LAUNCH(add_bias, ceil_div(rows * cols, FLAT), FLAT, 0, s, y, bias, rows * cols, cols);
}

__global__ void axpby(float a, const float *x, float b, float *y, int64_t n)
{
    int64_t i = flat_index();

    if (i < n)
        y[i] = b != 0 ? a * x[i] + b * y[i] : a * x[i];
}

extern "C" void pl_k_axpby(float a, const float *x, float b, float *y, int64_t n, cudaStream_t s)
{
    PL_LAUNCH(axpby, ceil_div(n, FLAT), FLAT, 0, s, a, x, b, y, n);
}

extern "C" void pl_k_scale(float *x, float by, int64_t n, cudaStream_t s)
{
    PL_LAUNCH(axpby, ceil_div(n, FLAT), FLAT, 0, s, by, x, 0.0f, x, n);
}

__global__ void tanh_all(float *x, int64_t n)
{
    int64_t i = flat_index();

    if (i < n)
        x[i] = tanhf(x[i]);
}

extern "C" void pl_k_tanh(float *x, int64_t n, cudaStream_t s)
{
    PL_LAUNCH(tanh_all, ceil_div(n, FLAT), FLAT, 0, s, x, n);
}

/* One block a row. */
template <typename T>
__global__ void norm_rows(bool layer, float eps, T *y, const float *x, const float *gain,
                          const float *bias, int64_t cols)
{
    __shared__ float room[WARP];
    float sum = 0, mean = 0, square = 0;

    x += blockIdx.x * cols;
    y += blockIdx.x * cols;
    if (layer) {
        for (int64_t i = threadIdx.x; i < cols; i += blockDim.x)
            sum += x[i];
        mean = block_sum(sum, room) / (float)cols;
    }
    for (int64_t i = threadIdx.x; i < cols; i += blockDim.x)
        square += (x[i] - mean) * (x[i] - mean);
    float by = 1.0f / sqrtf(block_sum(square, room) / (float)cols + eps);
    for (int64_t i = threadIdx.x; i < cols; i += blockDim.x)
        from_f32((x[i] - mean) * by * gain[i] + (bias ? bias[i] : 0), y + i);
}

extern "C" void pl_k_norm(enum pl_norm_kind kind, float eps, void *y, enum pl_dtype to,
                          const float *x, const float *gain, const float *bias, int rows,
                          int64_t cols, cudaStream_t s)
{
    by_dtype(to, [&](auto *t) {
        PL_LAUNCH(norm_rows, (unsigned)rows, cols > 1024 ? 256 : 128, 0, s, kind == PL_NORM_LAYER,
                  eps, (decltype(t))y, x, gain, bias, cols);
    });
}

#define ACT_EACH 4

/* What a thread takes at once: fewer bytes on their way do not keep up with memory. */
template <typename T> struct __align__(ACT_EACH * sizeof(T)) several
{
    T v[ACT_EACH];
};

template <typename T, typename F>
__global__ void act_all(int act, T *y, const F *gate, const F *up, int64_t n)
{
    const int64_t i = flat_index() * ACT_EACH;
    several<F> g = {}, u = {};
    several<T> out;

    if (i >= n)
        return;
    if (i + ACT_EACH > n || ((uintptr_t)y | (uintptr_t)gate | (uintptr_t)up) % 16) {
        for (int64_t k = i; k < n && k < i + ACT_EACH; k++)
            from_f32(gate ? act_one(act, to_f32(gate[k])) * to_f32(up[k])
                          : act_one(act, to_f32(up[k])),
                     y + k);
        return;
    }
    if (gate)
        g = *(const several<F> *)(const void *)(gate + i);
    u = *(const several<F> *)(const void *)(up + i);
    for (int k = 0; k < ACT_EACH; k++)
        from_f32(gate ? act_one(act, to_f32(g.v[k])) * to_f32(u.v[k])
                      : act_one(act, to_f32(u.v[k])),
                 &out.v[k]);
    *(several<T> *)(void *)(y + i) = out;
}

extern "C" void pl_k_act(enum pl_act_kind act, void *y, enum pl_dtype to, const void *gate,
                         const void *up, enum pl_dtype from, int64_t n, cudaStream_t s)
{
    const unsigned blocks = ceil_div(n, FLAT * ACT_EACH);

    by_dtype(to, [&](auto *t) {
        typedef decltype(t) T;
        if (from == to)
            PL_LAUNCH(act_all, blocks, FLAT, 0, s, (int)act, (T)y, (T)gate, (T)up, n);
        else
            PL_LAUNCH(act_all, blocks, FLAT, 0, s, (int)act, (T)y, (const float *)gate,
                      (const float *)up, n);
    });
}

__global__ void add_tables(const struct pl_cuda_step st, const float *positions, int32_t offset,
                           const float *types, int64_t cols, float *x)
{
    int r = (int)blockIdx.x, type = st.types ? st.types[r] : 0;
    int64_t at = positions ? position_of(st, 0, r) + offset : 0;

    for (int64_t i = threadIdx.x; i < cols; i += blockDim.x) {
        float v = x[r * cols + i];
        v += types ? types[type * cols + i] : 0;
        v += positions ? positions[at * cols + i] : 0;
        x[r * cols + i] = v;
    }
}

extern "C" void pl_k_add_tables(const struct pl_cuda_step *st, const float *positions,
                                int32_t offset, const float *types, int64_t cols, float *x,
                                cudaStream_t s)
{
    PL_LAUNCH(add_tables, (unsigned)st->rows, FLAT, 0, s, *st, positions, offset, types, cols, x);
}

__global__ void patches(const float *pixels, int channels, int size, int patch, float *out)
{
    int row = (int)blockIdx.x, side = size / patch, each = channels * patch * patch;
    int y0 = (row - 1) / side * patch, x0 = (row - 1) % side * patch;

    for (int i = (int)threadIdx.x; i < each; i += (int)blockDim.x) {
        int c = i / (patch * patch), y = i / patch % patch, x = i % patch;
        out[(int64_t)row * each + i] =
            row ? pixels[((int64_t)c * size + y0 + y) * size + x0 + x] : 0;
    }
}

extern "C" void pl_k_patches(const float *pixels, int channels, int size, int patch, float *out,
                             cudaStream_t s)
{
    unsigned rows = (unsigned)(size / patch * (size / patch) + 1);

    PL_LAUNCH(patches, rows, FLAT, 0, s, pixels, channels, size, patch, out);
}

/* A warp takes one head of one row: RMS over the head where the model does that, RoPE on pairs
 * (i, i + dim/2), then K and V go to their place. */
template <typename T>
__global__ void rope_store(const struct pl_cuda_step st, const struct pl_cuda_heads h, float *q,
                           float *k, const float *v)
{
    int heads = (q ? h.heads : 0) + (k ? h.kv_heads : 0), half = h.dim / 2;
    int64_t unit = (int64_t)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    int lane = (int)threadIdx.x % WARP, r = (int)(unit / heads), head = (int)(unit % heads);
    bool key = !q || head >= h.heads;

    if (r >= st.rows)
        return;
    head -= q && key ? h.heads : 0;
    float *x = key ? k + ((int64_t)r * h.kv_heads + head) * h.dim
                   : q + ((int64_t)r * h.heads + head) * h.dim;
    const float *gain = key ? h.k_norm : h.q_norm;
    float by = 1;
    if (gain) {
        float sum = 0;
        for (int i = lane; i < h.dim; i += WARP)
            sum += x[i] * x[i];
        by = 1.0f / sqrtf(warp_sum(sum) / (float)h.dim + h.eps);
        for (int i = lane; i < h.dim; i += WARP)
            x[i] = x[i] * by * gain[i];
        __syncwarp();
    }
    if (h.inv_freq) {
        float pos = (float)position_of(st, h.layer, r);
        for (int i = lane; i < half; i += WARP) {
            float sin, cos, a = x[i], b = x[i + half];
            sincosf(pos * h.inv_freq[i], &sin, &cos);
            sin *= h.rope_factor;
            cos *= h.rope_factor;
            x[i] = a * cos - b * sin;
            x[i + half] = b * cos + a * sin;
        }
        __syncwarp();
    }
    if (!key)
        return;
    const struct pl_cuda_kv *kv = &st.kv[h.layer * st.n_spans + st.span[r]];
    int at = (h.append ? kv->len + st.in_span[r] : r) % kv->cap;
    int64_t to = ((int64_t)head * kv->cap + at) * h.dim;
    const float *value = v + ((int64_t)r * h.kv_heads + head) * h.dim;
    for (int i = lane; i < h.dim; i += WARP) {
        from_f32(x[i], (T *)kv->k + to + i);
        from_f32(value[i], (T *)kv->v + to + i);
    }
}

extern "C" void pl_k_rope_store(const struct pl_cuda_step *st, const struct pl_cuda_heads *h,
                                float *q, float *k, const float *v, cudaStream_t s)
{
    int64_t units = (int64_t)st->rows * ((q ? h->heads : 0) + (k ? h->kv_heads : 0));

    by_dtype(h->kv_dtype, [&](auto *t) {
        typedef typename std::remove_pointer<decltype(t)>::type T;
        PL_LAUNCH(rope_store<T>, ceil_div(units, 4), 4 * WARP, 0, s, *st, *h, q, k, v);
    });
}

/* To a second buffer, since rows move forward over rows that are still to be read. */
template <typename T>
__global__ void kv_keep(const struct pl_cuda_kv kv, int dim, int base, const int32_t *idx, int n,
                        T *k_to, T *v_to)
{
    int i = (int)blockIdx.x, head = (int)blockIdx.y;
    int from = (base + idx[(int64_t)head * n + i]) % kv.cap;
    int64_t src = ((int64_t)head * kv.cap + from) * dim, dst = ((int64_t)head * n + i) * dim;

    for (int d = (int)threadIdx.x; d < dim; d += (int)blockDim.x) {
        k_to[dst + d] = ((const T *)kv.k)[src + d];
        v_to[dst + d] = ((const T *)kv.v)[src + d];
    }
}

template <typename T>
__global__ void kv_put(const struct pl_cuda_kv kv, int dim, int base, int n, const T *k, const T *v)
{
    int i = (int)blockIdx.x, head = (int)blockIdx.y;
    int64_t dst = ((int64_t)head * kv.cap + (base + i) % kv.cap) * dim;
    int64_t src = ((int64_t)head * n + i) * dim;

    for (int d = (int)threadIdx.x; d < dim; d += (int)blockDim.x) {
        ((T *)kv.k)[dst + d] = k[src + d];
        ((T *)kv.v)[dst + d] = v[src + d];
    }
}

template <typename T>
__global__ void kv_side(const struct pl_cuda_kv_side s, const int32_t *idx, bool back)
{
    const int i = (int)blockIdx.x, head = (int)blockIdx.y;
    const int64_t at = ((int64_t)head * s.kv.cap + (s.base + i) % s.kv.cap) * s.dim;
    const int64_t aside = ((int64_t)head * s.rows + (idx ? idx[i] : i)) * s.dim;
    T *k = (T *)s.kv.k + at, *v = (T *)s.kv.v + at;
    T *k_side = (T *)s.k + aside, *v_side = (T *)s.v + aside;

    for (int d = (int)threadIdx.x; d < s.dim; d += (int)blockDim.x) {
        (back ? k : k_side)[d] = (back ? k_side : k)[d];
        (back ? v : v_side)[d] = (back ? v_side : v)[d];
    }
}

extern "C" void pl_k_kv_side(const struct pl_cuda_kv_side *side, const int32_t *idx, int32_t n,
                             bool back, cudaStream_t s)
{
    dim3 grid((unsigned)n, (unsigned)side->kv_heads);

    by_dtype(side->dtype, [&](auto *t) {
        typedef typename std::remove_pointer<decltype(t)>::type T;
        PL_LAUNCH(kv_side<T>, grid, 64, 0, s, *side, idx, back);
    });
}

extern "C" void pl_k_kv_keep(const struct pl_cuda_kv *kv, int kv_heads, int dim, enum pl_dtype dt,
                             int base, const int32_t *idx, int n, void *k_to, void *v_to,
                             cudaStream_t s)
{
    dim3 grid((unsigned)n, (unsigned)kv_heads);

    by_dtype(dt, [&](auto *t) {
        typedef decltype(t) T;
        PL_LAUNCH(kv_keep, grid, 64, 0, s, *kv, dim, base, idx, n, (T)k_to, (T)v_to);
        PL_LAUNCH(kv_put, grid, 64, 0, s, *kv, dim, base, n, (T)k_to, (T)v_to);
    });
}

__global__ void gather(float *y, const float *x, const int32_t *idx, int64_t cols)
{
    const float *from = x + idx[blockIdx.x] * cols;

    for (int64_t i = threadIdx.x; i < cols; i += blockDim.x)
        y[blockIdx.x * cols + i] = from[i];
}

extern "C" void pl_k_gather(float *y, const float *x, const int32_t *idx, int n, int64_t cols,
                            cudaStream_t s)
{
    PL_LAUNCH(gather, (unsigned)n, FLAT, 0, s, y, x, idx, cols);
}

/* The better of two candidates: the larger, then the lower index. */
__device__ __forceinline__ void better(float *v, int *at, float other, int other_at)
{
    if (other > *v || (other == *v && other_at < *at)) {
        *v = other;
        *at = other_at;
    }
}

/* The best of a row over a block, and whether it holds a NaN; ends NULL: of all ids. Thread 0 gets
 * it. */
__device__ void best_of(const float *x, int64_t cols, const int32_t *ends, float *value, int *index,
                        int *nan)
{
    __shared__ float best[WARP];
    __shared__ int where[WARP], bad[WARP];
    float v = -INFINITY;
    int at = INT32_MAX, no = 0, warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;

    for (int64_t i = threadIdx.x; i < cols; i += blockDim.x) {
        bool out = false;
        for (int e = 0; ends && e < PL_MAX_EOS; e++)
            out |= ends[e] == (int32_t)i;
        no |= x[i] != x[i];
        better(&v, &at, out ? -INFINITY : x[i], (int)i);
    }
    for (int o = WARP / 2; o; o /= 2) {
        float ov = __shfl_xor_sync(FULL, v, o);
        int oat = __shfl_xor_sync(FULL, at, o);
        no |= __shfl_xor_sync(FULL, no, o);
        better(&v, &at, ov, oat);
    }
    __syncthreads();
    if (!lane) {
        best[warp] = v;
        where[warp] = at;
        bad[warp] = no;
    }
    __syncthreads();
    for (int w = 0; !threadIdx.x && w < (int)blockDim.x / WARP; w++) {
        better(&v, &at, best[w], where[w]);
        no |= bad[w];
    }
    *value = v;
    *index = at == INT32_MAX ? 0 : at;
    *nan = no;
}

__global__ void argmax(const float *x, int64_t cols, int32_t *idx)
{
    float v;
    int at, nan;

    best_of(x + blockIdx.x * cols, cols, NULL, &v, &at, &nan);
    if (!threadIdx.x)
        idx[blockIdx.x] = nan ? -1 : at;
}

__global__ void pick_rows(const float *x, int64_t cols, const int32_t *ends, int32_t *picks)
{
    float v, top;
    int at, all, nan;

    x += blockIdx.x * cols;
    best_of(x, cols, NULL, &top, &all, &nan);
    best_of(x, cols, ends, &v, &at, &nan);
    if (threadIdx.x)
        return;
    bool broken = nan || !(fabsf(v) < INFINITY);
    picks[2 * blockIdx.x] = broken ? -1 : at;
    picks[2 * blockIdx.x + 1] = broken ? -1 : all;
}

extern "C" void pl_k_pick(const float *x, int rows, int64_t cols, const int32_t *ends,
                          int32_t *picks, cudaStream_t s)
{
    PL_LAUNCH(pick_rows, (unsigned)rows, 512, 0, s, x, cols, ends, picks);
}

#define DRAW 1024

/* Σ of v over the warps before this one, and over all. */
__device__ double warps_before(double v, double *part, double *all)
{
    const int lane = (int)threadIdx.x % WARP;
    double sum = 0;

    for (int o = WARP / 2; o; o /= 2)
        v += __shfl_xor_sync(FULL, v, o);
    __syncthreads();
    if (!lane)
        part[threadIdx.x / WARP] = v;
    __syncthreads();
    *all = 0;
    for (int w = 0; w < DRAW / WARP; w++) {
        sum += w < (int)threadIdx.x / WARP ? part[w] : 0;
        *all += part[w];
    }
    return sum;
}

__device__ int block_min(int v, int *room)
{
    for (int o = WARP / 2; o; o /= 2)
        v = min(v, __shfl_xor_sync(FULL, v, o));
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        room[threadIdx.x / WARP] = v;
    __syncthreads();
    for (int w = 0; w < DRAW / WARP; w++)
        v = min(v, room[w]);
    return v;
}

/* A block a row; a warp has cols / 32 ids that follow one another. Probabilities are rounded as the
 * host's are, their sums in f64 differ from its by their order alone. */
__global__ void __launch_bounds__(DRAW) draw_row(const float *x, int64_t cols, const int32_t *ends,
                                                 const int32_t *given, int first_row,
                                                 int32_t *picks)
{
    __shared__ double part[WARP];
    __shared__ int room[WARP];
    __shared__ float top;
    __shared__ int broken;
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const int64_t each = (cols + WARP * WARP - 1) / (WARP * WARP) * WARP;
    const int64_t first = warp * each, end = min((int)(first + each), (int)cols);
    double draw[2], sum = 0, all, mine = 0;
    float v;
    int at, nan, found = INT32_MAX, last = INT32_MAX;

    x += blockIdx.x * cols;
    picks += 2 * (first_row + (int)blockIdx.x);
    memcpy(draw, given, sizeof(double));
    memcpy(draw + 1, given + 2 * (1 + first_row + (int)blockIdx.x), sizeof(double));
    const double scale = 1 / draw[0];
    best_of(x, cols, ends, &v, &at, &nan);
    if (!threadIdx.x) {
        top = v;
        broken = nan || !(fabsf(v) < INFINITY);
    }
    __syncthreads();
    const auto weight = [&](int64_t i) {
        bool out = i >= end;
        for (int e = 0; e < PL_MAX_EOS; e++)
            out |= ends[e] == (int32_t)i;
        return out ? 0.0f : (float)exp(((double)x[i] - (double)top) * scale);
    };
    for (int64_t i = first + lane; i < end; i += WARP)
        mine += (double)weight(i);
    warps_before(mine, part, &sum);
    mine = 0;
    for (int64_t i = first + lane; i < end; i += WARP)
        mine += (double)(float)((double)weight(i) / sum);
    double before = warps_before(mine, part, &all);
    for (int64_t i0 = first; i0 < end; i0 += WARP) {
        const int64_t i = i0 + lane;
        const float p = (float)((double)weight(i) / sum);
        double upto = (double)p;
        for (int o = 1; o < WARP; o *= 2) {
            const double left = __shfl_sync(FULL, upto, lane - o);
            upto += lane >= o ? left : 0;
        }
        if (p > 0) {
            last = -(int)i; /* the least of these is the last id */
            if (draw[1] * all < before + upto)
                found = min(found, (int)i);
        }
        before += __shfl_sync(FULL, upto, WARP - 1);
    }
    found = block_min(found, room);
    last = block_min(last, room);
    found = found == INT32_MAX ? -last : found; /* rounding left a little over */
    if (threadIdx.x)
        return;
    at = found;
    for (int e = 0; e < PL_MAX_EOS && !broken; e++)
        if (ends[e] >= 0 && (x[ends[e]] > x[at] || (x[ends[e]] == x[at] && ends[e] < at)))
            at = ends[e];
    picks[0] = broken ? -1 : found;
    picks[1] = broken ? -1 : at;
}

extern "C" void pl_k_draw(const float *x, int first, int rows, int64_t cols, const int32_t *ends,
                          const int32_t *draw, int32_t *picks, cudaStream_t s)
{
    PL_LAUNCH(draw_row, (unsigned)rows, DRAW, 0, s, x, cols, ends, draw, first, picks);
}

extern "C" void pl_k_argmax(const float *x, int rows, int64_t cols, int32_t *idx, cudaStream_t s)
{
    PL_LAUNCH(argmax, (unsigned)rows, 512, 0, s, x, cols, idx);
}

#define TOPK 1024

/* Places before this thread's that have a flag, over a block of TOPK; *all: how many have. */
__device__ int flags_before(bool flag, int *counts, int *all)
{
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, sum = flag, before = 0;

    for (int o = 1; o < WARP; o *= 2) {
        int v = __shfl_sync(FULL, sum, lane - o);
        sum += lane >= o ? v : 0;
    }
    __syncthreads();
    if (lane == WARP - 1)
        counts[warp] = sum;
    __syncthreads();
    *all = 0;
    for (int w = 0; w < TOPK / WARP; w++) {
        before += w < warp ? counts[w] : 0;
        *all += counts[w];
    }
    return before + sum - flag;
}

__global__ void topk(const float *x, int n, int k, int32_t *idx)
{
    __shared__ unsigned count[256];
    __shared__ int warps[TOPK / WARP];
    __shared__ uint32_t prefix;
    __shared__ int left;
    uint32_t mask = 0;

    if (!threadIdx.x) {
        prefix = 0;
        left = k;
    }
    for (int shift = 24; shift >= 0; shift -= 8) {
        __syncthreads();
        if (threadIdx.x < 256)
            count[threadIdx.x] = 0;
        __syncthreads();
        for (int i = (int)threadIdx.x; i < n; i += TOPK)
            if ((pl_float_rank(x[i]) & mask) == prefix)
                atomicAdd(&count[pl_float_rank(x[i]) >> shift & 255], 1u);
        __syncthreads();
        if (!threadIdx.x) {
            int b = 255;
            for (; (int)count[b] < left; b--)
                left -= (int)count[b];
            prefix |= (uint32_t)b << shift;
        }
        mask |= 255u << shift;
    }
    __syncthreads();
    uint32_t least = prefix;
    int ties = left, out = 0, all;
    for (int base = 0; base < n; base += TOPK) {
        int i = base + (int)threadIdx.x;
        uint32_t r = i < n ? pl_float_rank(x[i]) : 0;
        int nth = flags_before(i < n && r == least, warps, &all);
        bool take = i < n && (r > least || (r == least && nth < ties));
        ties = ties > all ? ties - all : 0;
        int at = flags_before(take, warps, &all);
        if (take)
            idx[out + at] = i;
        out += all;
    }
}

extern "C" void pl_k_topk(const float *x, int n, int k, int32_t *idx, cudaStream_t s)
{
    PL_LAUNCH(topk, 1, TOPK, 0, s, x, n, k, idx);
}

/* Four loads in flight a thread; what they hold must matter, or the compiler drops them. */
__global__ void read_all(const uint4 *from, int64_t n, uint32_t never, uint32_t *out)
{
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    uint32_t sum = 0;
    int64_t i = flat_index();

    for (; i + 3 * step < n; i += 4 * step) {
        uint4 a = from[i], b = from[i + step], c = from[i + 2 * step], d = from[i + 3 * step];
        sum ^= a.x ^ a.y ^ a.z ^ a.w ^ b.x ^ b.y ^ b.z ^ b.w;
        sum ^= c.x ^ c.y ^ c.z ^ c.w ^ d.x ^ d.y ^ d.z ^ d.w;
    }
    for (; i < n; i += step)
        sum ^= from[i].x ^ from[i].y ^ from[i].z ^ from[i].w;
    if (sum == never)
        *out = sum;
}

extern "C" void pl_k_read(const void *from, int64_t n, uint32_t never, uint32_t *out, int blocks,
                          cudaStream_t s)
{
    PL_LAUNCH(read_all, (unsigned)blocks, FLAT, 0, s, (const uint4 *)from, n, never, out);
}
