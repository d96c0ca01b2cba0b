/*
 * Softmax attention with running maxima, for any head width, ring, window, bias and mask. A block
 * takes PL_CUDA_VECTORS query vectors that share a KV head (row by row, within a row head by head,
 * so that grouped queries read K and V once), and walks the keys in tiles of 32: lanes lie over
 * keys for the scores, over elements for the values. Where there are few vectors, a sequence's keys
 * are split among blocks and the parts are merged by a second kernel.
 */
#include "model/cuda/attend.cuh"

#include <type_traits>

#define WARPS 4
#define EACH (PL_CUDA_VECTORS / WARPS)  /* vectors of a warp */
#define WIDTH (PL_CUDA_MAX_HEAD / WARP) /* elements of a lane, at most */

/* The same where rows are a tree's: what stands between is not all seen (in_tree). */
__device__ __forceinline__ void seen_of(const struct pl_cuda_step &st, const struct pl_cuda_kv *kv,
                                        bool causal, int row, int *first, int *end)
{
    int none;

    seen(kv, causal, row, first, end);
    if (st.tree) /* the window ends at the row's own place in its path */
        seen(kv, causal, st.tree[1 + st.tree[0] + row] - st.tree[0], first, &none);
}

/* Where key `key` stands in the path to row `row`; −1: not in it. */
__device__ __forceinline__ int in_tree(const struct pl_cuda_step &st, const struct pl_cuda_kv *kv,
                                       int key, int row)
{
    int start = kv->len - st.tree[0], node = key - start;

    if (node < 0)
        return key;
    if (node > st.tree[0] + row || node >= PL_TREE_MAX)
        return -1;
    const int32_t *bits = st.tree + PL_CUDA_TREE_HEAD + (int64_t)row * PL_CUDA_TREE_WORDS;
    return (uint32_t)bits[node / 32] >> node % 32 & 1 ? start + st.tree[1 + node] : -1;
}

struct vectors {
    int row[EACH], head[EACH], first[EACH], end[EACH]; /* of this warp; end 0: none */
};

template <typename T>
__device__ void load_tile(const struct pl_cuda_kv *kv, const struct pl_cuda_attend &a, int kv_head,
                          int key0, int keys, float *k, float *v)
{
    int64_t head = (int64_t)kv_head * kv->cap;

    for (int i = (int)threadIdx.x; i < PL_CUDA_KEYS * a.dim; i += (int)blockDim.x) {
        int j = i / a.dim, d = i % a.dim;
        int64_t from = (head + (key0 + j) % kv->cap) * a.dim + d;
        k[j * (a.dim + 1) + d] = j < keys ? to_f32(((const T *)kv->k)[from]) : 0;
        if (v)
            v[i] = j < keys ? to_f32(((const T *)kv->v)[from]) : 0;
    }
}

/* Score of this lane's key for one vector; −∞ where it is not seen. */
__device__ __forceinline__ float score(const struct pl_cuda_attend &a, float dot, int key, int row,
                                       int head, int first, int end)
{
    float s = dot * a.scale;

    if (key < first || key >= end)
        return -INFINITY;
    if (a.bias)
        s += a.bias[(int64_t)head * a.bias_span + a.bias_centre + key - row];
    return a.mask ? s + a.mask[key] : s;
}

template <typename T>
__global__ void __launch_bounds__(WARPS *WARP)
    attend(const struct pl_cuda_step st, const struct pl_cuda_attend a, int blocks_a_span)
{
    PL_DYNAMIC_SHARED(float, room);
    float *q = room, *k = q + PL_CUDA_VECTORS * a.dim, *v = k + PL_CUDA_KEYS * (a.dim + 1);
    const int span = (int)blockIdx.x / blocks_a_span, kv_head = (int)blockIdx.y;
    const int group = a.heads / a.kv_heads, split = (int)blockIdx.z;
    const int row0 = st.span_row[span], rows = st.span_row[span + 1] - row0;
    const int v0 = (int)blockIdx.x % blocks_a_span * PL_CUDA_VECTORS, n_vectors = rows * group;
    const struct pl_cuda_kv *kv = &st.kv[a.layer * st.n_spans + span];
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    float m[EACH], l[EACH], o[EACH][WIDTH] = {}, s[EACH];
    struct vectors my;
    int begin, end, none;

    if (v0 >= n_vectors)
        return;
    const int last = min(v0 + PL_CUDA_VECTORS, n_vectors) - 1;
    if (row0 + last / group < a.first_row || row0 + v0 / group >= a.first_row + a.n_rows)
        return;
    for (int i = 0; i < EACH; i++) {
        int at = v0 + warp * EACH + i, row = row0 + at / group;
        bool there = at <= last && row >= a.first_row && row < a.first_row + a.n_rows;
        my.row[i] = min(at, last) / group;
        my.head[i] = kv_head * group + min(at, last) % group;
        seen_of(st, kv, a.causal, my.row[i], &my.first[i], &my.end[i]);
        my.end[i] = there ? my.end[i] : 0;
        m[i] = -INFINITY;
        l[i] = 0;
    }
    seen_of(st, kv, a.causal, v0 / group, &begin, &none);
    seen_of(st, kv, a.causal, last / group, &none, &end);
    for (int row = v0 / group + 1; st.tree && row <= last / group; row++) {
        int first;
        seen_of(st, kv, a.causal, row, &first, &none);
        begin = min(begin, first);
    }
    if (a.chunk) { /* tiles begin at the same keys for whatever rows are at hand */
        begin = begin / PL_CUDA_KEYS * PL_CUDA_KEYS;
        if (a.splits > 1) {
            begin = max(begin, split * a.chunk);
            end = min(end, (split + 1) * a.chunk);
        }
    } else if (a.splits > 1) {
        int each =
            (end - begin + a.splits * PL_CUDA_KEYS - 1) / (a.splits * PL_CUDA_KEYS) * PL_CUDA_KEYS;
        begin += split * each;
        end = min(end, begin + each);
    }
    for (int i = (int)threadIdx.x; i < PL_CUDA_VECTORS * a.dim; i += (int)blockDim.x) {
        int at = min(v0 + i / a.dim, last);
        q[i] = a.q[((int64_t)(row0 + at / group) * a.heads + kv_head * group + at % group) * a.dim +
                   i % a.dim];
    }
    for (int key0 = begin; key0 < end; key0 += PL_CUDA_KEYS) {
        __syncthreads();
        load_tile<T>(kv, a, kv_head, key0, min(PL_CUDA_KEYS, end - key0), k, v);
        __syncthreads();
        for (int i = 0; i < EACH; i++)
            s[i] = 0;
        for (int d = 0; d < a.dim; d++) {
            float kd = k[lane * (a.dim + 1) + d];
            for (int i = 0; i < EACH; i++)
                s[i] = fmaf(q[(warp * EACH + i) * a.dim + d], kd, s[i]);
        }
        for (int i = 0; i < EACH; i++) {
            int key = key0 + lane, at = a.causal ? kv->len + my.row[i] : my.row[i];
            if (st.tree) {
                key = key < my.end[i] ? in_tree(st, kv, key, my.row[i]) : -1;
                at = kv->len - st.tree[0] + st.tree[1 + st.tree[0] + my.row[i]];
            }
            s[i] = score(a, s[i], key, at, my.head[i], my.first[i], my.end[i]);
            float top = fmaxf(m[i], warp_max(s[i]));
            if (top == -INFINITY) { /* the same for all lanes */
                s[i] = 0;
                continue;
            }
            float shrink = expf(m[i] - top);
            s[i] = expf(s[i] - top);
            l[i] = l[i] * shrink + warp_sum(s[i]);
            m[i] = top;
            for (int j = 0; j < WIDTH; j++)
                o[i][j] *= shrink;
        }
        for (int key = 0; key < PL_CUDA_KEYS; key++) {
            float p[EACH];
            for (int i = 0; i < EACH; i++)
                p[i] = __shfl_sync(FULL, s[i], key);
            for (int j = 0; j < WIDTH && lane + j * WARP < a.dim; j++) {
                float vd = v[key * a.dim + lane + j * WARP];
                for (int i = 0; i < EACH; i++)
                    o[i][j] = fmaf(p[i], vd, o[i][j]);
            }
        }
    }
    for (int i = 0; i < EACH; i++) {
        if (!my.end[i])
            continue;
        int64_t at = (int64_t)(row0 + my.row[i]) * a.heads + my.head[i];
        if (a.splits > 1 || a.chunk) { /* one part or more: the last division is merge's */
            float *to = a.partial +
                        ((at - (int64_t)a.first_row * a.heads) * a.splits + split) * (a.dim + 2);
            for (int j = 0; j < WIDTH && lane + j * WARP < a.dim; j++)
                to[2 + lane + j * WARP] = o[i][j];
            if (!lane) {
                to[0] = m[i];
                to[1] = l[i];
            }
            continue;
        }
        float by = l[i] > 0 ? 1.0f / l[i] : 0;
        for (int j = 0; j < WIDTH && lane + j * WARP < a.dim; j++)
            attend_out(a, at * a.dim + lane + j * WARP, o[i][j] * by);
        if (a.lse && !lane)
            a.lse[at] = m[i] + logf(l[i]);
    }
}

/* One block a vector: merges its parts in their order. */
template <typename T> __global__ void merge(const struct pl_cuda_attend a)
{
    const float *from = a.partial + (int64_t)blockIdx.x * a.splits * (a.dim + 2);
    const int64_t to = (int64_t)a.first_row * a.heads + blockIdx.x;
    float top = -INFINITY, sum = 0;

    for (int i = 0; i < a.splits; i++)
        top = fmaxf(top, from[i * (a.dim + 2)]);
    for (int i = 0; i < a.splits; i++) {
        const float *p = from + i * (a.dim + 2);
        sum += p[1] > 0 ? p[1] * expf(p[0] - top) : 0;
    }
    for (int d = (int)threadIdx.x; d < a.dim; d += (int)blockDim.x) {
        float o = 0;
        for (int i = 0; i < a.splits; i++) {
            const float *p = from + i * (a.dim + 2);
            o += p[1] > 0 ? p[2 + d] * expf(p[0] - top) : 0;
        }
        from_f32(sum > 0 ? o / sum : 0, (T *)a.out + to * a.dim + d);
    }
    if (a.lse && !threadIdx.x)
        a.lse[to] = top + logf(sum);
}

static size_t attend_shared(int dim)
{
    return (size_t)(PL_CUDA_VECTORS * dim + PL_CUDA_KEYS * (dim + 1) + PL_CUDA_KEYS * dim) *
           sizeof(float);
}

extern "C" void pl_k_attend(const struct pl_cuda_step *st, const struct pl_cuda_attend *a,
                            cudaStream_t s)
{
    int blocks = (int)ceil_div((int64_t)a->max_span * (a->heads / a->kv_heads), PL_CUDA_VECTORS);
    dim3 grid((unsigned)(blocks * st->n_spans), (unsigned)a->kv_heads, (unsigned)a->splits);
    size_t shared = attend_shared(a->dim);

    if (!st->tree && pl_k_attend_mma_does(a))
        pl_k_attend_mma(st, a, s);
    else
        by_dtype(a->kv_dtype, [&](auto *t) {
            typedef typename std::remove_pointer<decltype(t)>::type T;
            if (shared > 48 * 1024)
                PL_BIG_SHARED(attend<T>, shared);
            PL_LAUNCH(attend<T>, grid, WARPS * WARP, shared, s, *st, *a, blocks);
        });
    if (a->splits > 1 || a->chunk)
        by_dtype(a->to, [&](auto *t) {
            typedef typename std::remove_pointer<decltype(t)>::type T;
            PL_LAUNCH(merge<T>, (unsigned)(a->n_rows * a->heads), 64, 0, s, *a);
        });
}

#define SUM_WARPS 8

/* A block takes 32 keys of one head and all rows: a warp every eighth row, added up in order. */
template <typename T>
__global__ void attend_sums(const struct pl_cuda_step st, const struct pl_cuda_attend a, int skip,
                            float *sums, int64_t ld)
{
    PL_DYNAMIC_SHARED(float, k);
    __shared__ float part[SUM_WARPS][WARP];
    const int head = (int)blockIdx.y, kv_head = head / (a.heads / a.kv_heads);
    const struct pl_cuda_kv *kv = &st.kv[a.layer * st.n_spans];
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const int key0 = (int)blockIdx.x * PL_CUDA_KEYS, all = kv->len + st.rows;
    float sum = 0;

    if (key0 >= all)
        return;
    load_tile<T>(kv, a, kv_head, key0, min(PL_CUDA_KEYS, all - key0), k, NULL);
    __syncthreads();
    for (int r = skip + warp; r < st.rows; r += SUM_WARPS) {
        const float *q = a.q + ((int64_t)r * a.heads + head) * a.dim;
        int first, end;
        float dot = 0;
        seen(kv, true, r, &first, &end);
        for (int d = 0; d < a.dim; d++)
            dot = fmaf(q[d], k[lane * (a.dim + 1) + d], dot);
        float x = score(a, dot, key0 + lane, kv->len + r, head, first, end);
        sum += x == -INFINITY ? 0 : expf(x - a.lse[(int64_t)r * a.heads + head]);
    }
    part[warp][lane] = sum;
    __syncthreads();
    if (warp || key0 + lane >= all)
        return;
    for (int w = 1; w < SUM_WARPS; w++)
        sum += part[w][lane];
    sums[head * ld + key0 + lane] += sum;
}

extern "C" void pl_k_attend_sums(const struct pl_cuda_step *st, const struct pl_cuda_attend *a,
                                 int skip, int max_len, float *sums, int64_t ld, cudaStream_t s)
{
    dim3 grid(ceil_div(max_len, PL_CUDA_KEYS), (unsigned)a->heads);
    size_t shared = (size_t)(PL_CUDA_KEYS * (a->dim + 1)) * sizeof(float);

    by_dtype(a->kv_dtype, [&](auto *t) {
        typedef typename std::remove_pointer<decltype(t)>::type T;
        PL_LAUNCH(attend_sums<T>, grid, SUM_WARPS * WARP, shared, s, *st, *a, skip, sums, ld);
    });
}

/* A warp takes one head of one row, in two passes over the keys. */
__global__ void attend_small(float *y, const float *q, const float *k, const float *v, int n, int m,
                             int heads, int dim, bool causal)
{
    int64_t unit = (int64_t)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    int lane = (int)threadIdx.x % WARP, row = (int)(unit / heads), head = (int)(unit % heads);
    int len = causal ? m - n + row + 1 : m, cols = heads * dim;
    float scale = 1.0f / sqrtf((float)dim), top = -INFINITY, sum = 0;

    if (row >= n)
        return;
    q += (int64_t)row * cols + head * dim;
    y += (int64_t)row * cols + head * dim;
    for (int j = lane; j < len; j += WARP) {
        float dot = 0;
        for (int d = 0; d < dim; d++)
            dot = fmaf(q[d], k[(int64_t)j * cols + head * dim + d], dot);
        top = fmaxf(top, dot * scale);
    }
    top = warp_max(top);
    for (int d = lane; d < dim; d += WARP)
        y[d] = 0;
    for (int j0 = 0; j0 < len; j0 += WARP) {
        float dot = 0, p = 0;
        if (j0 + lane < len) {
            for (int d = 0; d < dim; d++)
                dot = fmaf(q[d], k[(int64_t)(j0 + lane) * cols + head * dim + d], dot);
            p = expf(dot * scale - top);
        }
        sum += warp_sum(p);
        for (int j = 0; j < WARP && j0 + j < len; j++) {
            float pj = __shfl_sync(FULL, p, j);
            for (int d = lane; d < dim; d += WARP)
                y[d] += pj * v[(int64_t)(j0 + j) * cols + head * dim + d];
        }
    }
    for (int d = lane; d < dim; d += WARP)
        y[d] /= sum;
}

extern "C" void pl_k_attend_small(float *y, const float *q, const float *k, const float *v, int n,
                                  int m, int heads, int dim, bool causal, cudaStream_t s)
{
    PL_LAUNCH(attend_small, ceil_div((int64_t)n * heads, 4), 4 * WARP, 0, s, y, q, k, v, n, m,
              heads, dim, causal);
}
