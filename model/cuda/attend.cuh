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

__device__ __forceinline__ void attend_out(const struct pl_cuda_attend &a, int64_t at, float v)
{
    put(a.to, a.out, at, v);
}

#endif
