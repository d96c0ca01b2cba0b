/* What the attention kernels share: which keys a row sees, and where results go. */
#ifndef PL_MODEL_CUDA_ATTEND_CUH
#define PL_MODEL_CUDA_ATTEND_CUH

#include "model/cuda/common.cuh"

/* Keys [first, end) that row `row` of a span sees. */
__device__ __forceinline__ void seen(const struct pl_cuda_kv *kv, bool causal, int row, int *first,
                                     int *end)
{
    int at = kv->len + row;

    *first = causal ? kv->first : 0;
    *end = causal ? at + 1 : kv->len;
    if (causal && kv->window && at + 1 > kv->window + kv->first)
        *first = at + 1 - kv->window;
}

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

/* Score `s` with bias and mask, of which `unit` is one; −∞ where the row does not see the key. */
__device__ __forceinline__ float scored(const struct pl_cuda_step &st, const struct pl_cuda_kv *kv,
                                        const struct pl_cuda_attend &a, float s, float unit,
                                        int key, int row, int head, int first, int end)
{
    int at = a.causal ? kv->len + row : row;

    if (st.tree) {
        key = key < end ? in_tree(st, kv, key, row) : -1;
        at = kv->len - st.tree[0] + st.tree[1 + st.tree[0] + row];
    }
    if (key < first || key >= end)
        return -INFINITY;
    if (a.bias)
        s += unit * a.bias[(int64_t)head * a.bias_span + a.bias_centre + key - at];
    return a.mask ? s + unit * a.mask[key] : s;
}

/* Keys [begin, end) that any of the rows [row, last] sees. */
__device__ __forceinline__ void seen_by(const struct pl_cuda_step &st, const struct pl_cuda_kv *kv,
                                        bool causal, int row, int last, int *begin, int *end)
{
    int first, none;

    seen_of(st, kv, causal, row, begin, &none);
    seen_of(st, kv, causal, last, &none, end);
    while (st.tree && ++row <= last) {
        seen_of(st, kv, causal, row, &first, &none);
        *begin = min(*begin, first);
    }
}

/* Those of part `split` that a block takes, `tile` at a time. */
__device__ __forceinline__ void part_of(const struct pl_cuda_attend &a, int split, int tile,
                                        int *begin, int *end)
{
    if (a.chunk) { /* tiles begin at the same keys for whatever rows are at hand */
        const int from = a.splits > 1 ? split * a.chunk : 0;
        *begin = max(*begin, from);
        *begin -= (*begin - from) % tile;
        if (a.splits > 1)
            *end = min(*end, from + a.chunk);
    } else if (a.splits > 1) {
        const int each = (*end - *begin + a.splits * tile - 1) / (a.splits * tile) * tile;
        *begin += split * each;
        *end = min(*end, *begin + each);
    }
}

__device__ __forceinline__ void attend_out(const struct pl_cuda_attend &a, int64_t at, float v)
{
    put(a.to, a.out, at, v);
}

/* Whether partial results are left, whose last division the merging does. */
__device__ __forceinline__ bool parted(const struct pl_cuda_attend &a)
{
    return a.splits > 1 || a.chunk;
}

/* All threads of a block that has written its part of what `counter` counts: whether it is the last
 * of them, which then sees what the others wrote. The count is 0 again behind the last. */
__device__ __forceinline__ bool last_part(const struct pl_cuda_attend &a, int64_t counter)
{
    __shared__ bool last;

    __syncthreads(); /* the block's own are written, for thread 0 at least … */
    if (threadIdx.x == 0) {
        __threadfence(); /* … and before the count, for whoever sees that */
        last = atomicInc(a.ended + counter, (unsigned)a.splits - 1) == (unsigned)a.splits - 1;
        __threadfence();
    }
    __syncthreads();
    return last;
}

/* One vector's parts, whose results `from` holds, by a warp that takes every `step`-th 32 elements
 * from d on: in the parts' order, whichever ended when. by: [PL_CUDA_MAX_SPLITS], the warp's own.
 */
__device__ __forceinline__ void merge_vector(const struct pl_cuda_attend &a, const float *from,
                                             int64_t at, int d, int step, float *by)
{
    const int lane = (int)threadIdx.x % WARP, each = a.dim + 2;
    float tops[2], sums[2], sum = 0;

    for (int i = 0; i < 2; i++) { /* past L1, which may hold what stood there before */
        const int part = lane + i * WARP;
        tops[i] = part < a.splits ? __ldcg(from + part * each) : -INFINITY;
        sums[i] = part < a.splits ? __ldcg(from + part * each + 1) : 0;
    }
    const float top = warp_max(fmaxf(tops[0], tops[1]));
    for (int i = 0; i < 2; i++) { /* how much a part counts; not at all where it saw nothing */
        by[lane + i * WARP] = sums[i] != 0 ? expf(tops[i] - top) : 0;
        sum += warp_sum(sums[i] != 0 ? by[lane + i * WARP] * sums[i] : 0);
    }
    __syncwarp();
    for (int k = d; k < a.dim; k += step) {
        float o = 0;
#pragma unroll 8
        for (int i = 0; i < a.splits; i++)
            o += by[i] * __ldcg(from + i * each + 2 + k);
        attend_out(a, at * a.dim + k, sum != 0 ? o / sum : 0);
    }
    if (a.lse && d == 0)
        a.lse[at] = top + logf(sum);
    __syncwarp();
}

/* What a block does behind its part of vectors v0 … last of a span that begins with row0: the last
 * one of them to come here merges all parts, so that no launch has to. */
template <int WARPS>
__device__ __forceinline__ void merge_parts(const struct pl_cuda_attend &a, int row0, int kv_head,
                                            int v0, int last)
{
    __shared__ float by[WARPS][PL_CUDA_MAX_SPLITS];
    const int group = a.heads / a.kv_heads, warp = (int)threadIdx.x / WARP;
    const int first = max(v0, (a.first_row - row0) * group);
    const int n = min(last + 1, (a.first_row + a.n_rows - row0) * group) - first;
    const int shared_by = n < WARPS ? WARPS / n : 1; /* warps of a vector */
    const int64_t base = (int64_t)a.first_row * a.heads;
    const int64_t at0 = (int64_t)(row0 + first / group) * a.heads + kv_head * group + first % group;

    if (!last_part(a, at0 - base))
        return;
    for (int i = warp / shared_by; i < n; i += WARPS / shared_by) {
        const int v = first + i;
        const int64_t at = (int64_t)(row0 + v / group) * a.heads + kv_head * group + v % group;
        const int d = warp % shared_by * WARP + (int)threadIdx.x % WARP;
        merge_vector(a, a.partial + (at - base) * a.splits * (a.dim + 2), at, d, shared_by * WARP,
                     by[warp]);
    }
}

#endif
