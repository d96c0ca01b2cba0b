/*
 * The kernel language on the CPU: a block's threads are fibers of one thread, switched at barriers
 * and at warp exchanges; blocks run one after the other. A barrier that not all threads of a block
 * (or lanes of a warp) reach ends the program with a message instead of hanging.
 */
#ifndef PL_EMU_CUDA_RUNTIME_H
#define PL_EMU_CUDA_RUNTIME_H

#include "cuda_runtime_api.h"

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c)
    {
    }
};
struct __attribute__((aligned(16))) uint4 {
    unsigned x, y, z, w;
};
struct __attribute__((aligned(8))) uint2 {
    unsigned x, y;
};
struct __attribute__((aligned(8))) float2 {
    float x, y;
};
struct __attribute__((aligned(16))) float4 {
    float x, y, z, w;
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

/* Queues body() for every thread of every block, on the stream's GPU, which must be current. where, name: which kernel. */
void pl_emu_run(const char *where, const char *name, dim3 grid, dim3 block, size_t shared, cudaStream_t s, std::function<void()> body);
/* That kernel may have so many bytes of dynamic shared memory, on the current GPU. */
void pl_emu_big_shared(const char *where, const char *name, size_t bytes);
/* The next launch may begin before the last one has ended, if `may`; then each of its blocks says that it waited. */
void pl_emu_early(int may);
void pl_emu_waited(void);
void *pl_emu_shared(void);
void __syncthreads(void);
void __syncwarp(unsigned mask = 0xffffffffu);
/* What lane `from` gives. */
uint64_t pl_emu_exchange(uint64_t mine, int from);
int pl_emu_lane(void);
/* What all 32 lanes give, one behind the other: n ≤ 64 bytes each, alive until the lane's next but one call. */
const void *pl_emu_gather(const void *mine, size_t n);

/* The arguments are those of now, whenever it runs. */
template <typename K, typename... A>
void pl_emu_launch(const char *where, const char *name, dim3 grid, dim3 block, size_t shared, cudaStream_t s, K kernel, const A &...args)
{
    pl_emu_run(where, name, grid, block, shared, s, [=] { kernel(args...); });
}

template <typename T> T pl_emu_from(T v, int lane)
{
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof(v));
    bits = pl_emu_exchange(bits, lane);
    memcpy(&v, &bits, sizeof(v));
    return v;
}
template <typename T> T __shfl_sync(unsigned, T v, int lane)
{
    return pl_emu_from(v, lane & 31);
}
template <typename T> T __shfl_xor_sync(unsigned, T v, int mask)
{
    return pl_emu_from(v, pl_emu_lane() ^ mask);
}

/* The clock of a GPU. */
inline int64_t pl_emu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

inline int min(int a, int b)
{
    return a < b ? a : b;
}
inline int max(int a, int b)
{
    return a > b ? a : b;
}
inline float __expf(float x)
{
    return expf(x);
}
/* Four of the eight bytes of x (0 … 3) and y (4 … 7), one a nibble of s. */
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned s)
{
    const uint64_t bytes = (uint64_t)y << 32 | x;
    unsigned r = 0;

    for (int i = 0; i < 4; i++)
        r |= (unsigned)(bytes >> (s >> 4 * i & 7) * 8 & 255) << 8 * i;
    return r;
}
template <typename T> T __ldg(const T *p)
{
    return *p;
}
template <typename T> T __ldcg(const T *p)
{
    return *p;
}
inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
inline unsigned atomicMax(unsigned *p, unsigned v)
{
    unsigned old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (v > old && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return old;
}
inline unsigned atomicAdd(unsigned *p, unsigned v)
{
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
inline unsigned atomicInc(unsigned *p, unsigned most)
{
    unsigned old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(p, &old, old >= most ? 0 : old + 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return old;
}
inline void __threadfence(void)
{
}

#endif
