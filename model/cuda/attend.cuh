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

#endif
