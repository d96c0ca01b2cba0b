/* What lets the device make token after token by itself. */
#include "model/cuda/common.cuh"

#ifdef __CUDACC__
__device__ __forceinline__ int64_t device_ns()
{
    int64_t ns;

    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
    return ns;
}
#else
#define device_ns pl_emu_ns
#endif

/* No id (the logits were no numbers): any will do, since the host ends there. */
__global__ void burst_next(const struct pl_cuda_step st, int layers, const struct pl_cuda_burst b)
{
    struct pl_cuda_kv *kv = (struct pl_cuda_kv *)st.kv;
    const int n = st.n_spans, at = *b.at;

    for (int i = (int)threadIdx.x; i < layers * n; i += (int)blockDim.x) {
        const int rows = st.span_row[i % n + 1] - st.span_row[i % n];
        kv[i].len += rows;
        kv[i].next_position += rows;
    }
    __syncthreads(); /* behind here no thread reads what another one writes */
    for (int s = (int)threadIdx.x; s < n; s += (int)blockDim.x) {
        const int id = st.picks[2 * s];
        struct pl_cuda_made *made = b.made + (int64_t)at * n + s;
        made->id = id;
        made->all = st.picks[2 * s + 1];
        made->ns = device_ns();
        ((int32_t *)st.ids)[s] = id < 0 ? 0 : id;
        ((int32_t *)st.span)[s] = s;
        ((int32_t *)st.in_span)[s] = 0;
        ((int32_t *)st.span_row)[s + 1] = s + 1;
        if (b.draws) /* the temperature stays */
            memcpy((int32_t *)st.draw + 2 * (1 + s), &b.draws[(int64_t)(at + 1) * n + s],
                   sizeof(double));
    }
    if (!threadIdx.x)
        *b.at = at + 1;
}

extern "C" void pl_k_burst_next(const struct pl_cuda_step *st, int layers,
                                const struct pl_cuda_burst *b, cudaStream_t s)
{
    PL_LAUNCH(burst_next, 1, 256, 0, s, *st, layers, *b);
}
