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

    for (int l = (int)threadIdx.x; l < layers; l += (int)blockDim.x) {
        kv[l].len++;
        kv[l].next_position++;
    }
    if (threadIdx.x)
        return;
    const int at = *b.at, id = st.picks[0];
    b.made[at].id = id;
    b.made[at].all = st.picks[1];
    b.made[at].ns = device_ns();
    ((int32_t *)st.ids)[0] = id < 0 ? 0 : id;
    memcpy((int32_t *)st.draw + 2, &b.draws[at + 1], sizeof(double)); /* u; the temperature stays */
    *b.at = at + 1;
}

extern "C" void pl_k_burst_next(const struct pl_cuda_step *st, int layers,
                                const struct pl_cuda_burst *b, cudaStream_t s)
{
    PL_LAUNCH(burst_next, 1, 64, 0, s, *st, layers, *b);
}
