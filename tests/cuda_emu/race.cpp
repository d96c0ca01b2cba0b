/* A kernel with a race and the same one without: race [ordered]. The thread sanitizer has to tell the first, and nothing of the second;
 * else the tests of kernels under it could not fail. */
#include "model/cuda/common.cuh"

#include <stdio.h>
#include <string.h>

/* Each lane reads what its neighbour wrote: with a barrier between, or none (a shuffle is none). */
static void neighbours(const float *from, float *to, bool ordered)
{
    __shared__ float room[64];
    const int i = (int)threadIdx.x;

    room[i] = from[i];
    if (ordered)
        __syncthreads();
    else
        (void)__shfl_sync(FULL, i, 0);
    to[i] = room[(i + 1) % 64];
}

int main(int argc, char **argv)
{
    const bool ordered = argc > 1 && !strcmp(argv[1], "ordered");
    float *from, *to;
    cudaStream_t s;

    if (cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking) || cudaMalloc((void **)&from, 64 * sizeof(float)) || cudaMalloc((void **)&to, 64 * sizeof(float)))
        return 2;
    cudaMemset(from, 0, 64 * sizeof(float));
    for (int again = 0; again < 2; again++)
        PL_LAUNCH(neighbours, 3, 64, 0, s, from, to, ordered);
    cudaStreamSynchronize(s);
    printf("%g\n", (double)to[0]);
    cudaFree(from);
    cudaFree(to);
    cudaStreamDestroy(s);
    return 0;
}
