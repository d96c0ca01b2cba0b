/* What the kernels share: number formats, warp sums, launches. */
#ifndef PL_MODEL_CUDA_COMMON_CUH
#define PL_MODEL_CUDA_COMMON_CUH

#include <cuda_runtime.h>

#include "model/cuda/kernels.h"

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define PL_LAUNCH(kernel, grid, block, shared, stream, ...)                                        \
    kernel<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__)
/* The same of a kernel that may begin before the launch before it has ended (pl_k_overlap): it
 * calls previous_is_over() in every block, before it reads what others may have written. */
#define PL_LAUNCH_EARLY(kernel, grid, block, shared, stream, ...)                                  \
    launch_early(kernel, (grid), (block), (shared), (stream), __VA_ARGS__)
#define PL_DYNAMIC_SHARED(type, name)                                                              \
    extern __shared__ __align__(16) unsigned char pl_dynamic_shared[];                             \
    type *name = (type *)pl_dynamic_shared
#define PL_BIG_SHARED(kernel, bytes)                                                               \
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes))
#else /* tests/cuda_emu */
#define PL_LAUNCH(kernel, grid, block, shared, stream, ...)                                        \
    pl_emu_launch(                                                                                 \
        __PRETTY_FUNCTION__, #kernel, (grid), (block), (shared), (stream),                         \
        [](auto... a) { kernel(a...); }, __VA_ARGS__)
#define PL_LAUNCH_EARLY(kernel, grid, block, shared, stream, ...)                                  \
    (pl_emu_early(pl_k_overlaps()), PL_LAUNCH(kernel, grid, block, shared, stream, __VA_ARGS__))
#define PL_DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(pl_emu_shared())
#define PL_BIG_SHARED(kernel, bytes) pl_emu_big_shared(__PRETTY_FUNCTION__, #kernel, (bytes))
#endif

#ifdef __CUDACC__
template <typename... P, typename... A>
static inline void launch_early(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
                                cudaStream_t s, const A &...args)
{
    cudaLaunchAttribute early = {};
    cudaLaunchConfig_t c = {};

    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    c.gridDim = grid;
    c.blockDim = block;
    c.dynamicSmemBytes = shared;
    c.stream = s;
    c.attrs = &early;
    c.numAttrs = pl_k_overlaps() ? 1 : 0;
    cudaLaunchKernelEx(&c, kernel, static_cast<P>(args)...);
}
#endif

/* Blocks of the next launch may begin where there is room for them. */
__device__ __forceinline__ void next_may_begin()
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Waits until the launch before this one has ended, and all that it wrote can be read. */
__device__ __forceinline__ void previous_is_over()
{
#if defined(__CUDA_ARCH__)
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
#elif !defined(__CUDACC__)
    pl_emu_waited();
#endif
}

/* Bytes of dynamic shared memory that no kernel need ask for: with its static ones they stay below
 * the 48 KiB that every launch may have. */
#define PL_PLAIN_SHARED ((size_t)40 << 10)

#define WARP 32
#define FULL 0xffffffffu

struct pl_f16 {
    uint16_t u;
};
struct pl_bf16 {
    uint16_t u;
};

__device__ __forceinline__ float half_to_f32(uint16_t u)
{
#ifdef __CUDACC__
    return __half2float(__ushort_as_half(u));
#else
    return pl_f16_to_f32(u);
#endif
}

__device__ __forceinline__ float to_f32(float v)
{
    return v;
}
__device__ __forceinline__ float to_f32(pl_f16 v)
{
    return half_to_f32(v.u);
}
__device__ __forceinline__ float to_f32(pl_bf16 v)
{
    uint32_t u = (uint32_t)v.u << 16;
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

__device__ __forceinline__ void from_f32(float f, float *out)
{
    *out = f;
}
__device__ __forceinline__ void from_f32(float f, pl_f16 *out)
{
#ifdef __CUDACC__
    out->u = __half_as_ushort(__float2half_rn(f));
#else
    out->u = pl_f32_to_f16(f);
#endif
}
/* To nearest even; NaN stays NaN. */
__device__ __forceinline__ void from_f32(float f, pl_bf16 *out)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));
    if ((u & 0x7fffffffu) > 0x7f800000u)
        out->u = (uint16_t)(u >> 16 | 0x40u);
    else
        out->u = (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

/* to[at] = v, in the type dt. */
__device__ __forceinline__ void put(enum pl_dtype dt, void *to, int64_t at, float v)
{
    if (dt == PL_DT_F32)
        ((float *)to)[at] = v;
    else if (dt == PL_DT_BF16)
        from_f32(v, (pl_bf16 *)to + at);
    else
        from_f32(v, (pl_f16 *)to + at);
}

__device__ __forceinline__ float warp_sum(float v)
{
    for (int o = WARP / 2; o; o /= 2)
        v += __shfl_xor_sync(FULL, v, o);
    return v;
}

__device__ __forceinline__ float warp_max(float v)
{
    for (int o = WARP / 2; o; o /= 2)
        v = fmaxf(v, __shfl_xor_sync(FULL, v, o));
    return v;
}

/* Sum over a block of whole warps; room: [WARP] in shared memory. All threads get it. */
__device__ __forceinline__ float block_sum(float v, float *room)
{
    v = warp_sum(v);
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        room[threadIdx.x / WARP] = v;
    __syncthreads();
    v = threadIdx.x % WARP < blockDim.x / WARP ? room[threadIdx.x % WARP] : 0;
    return warp_sum(v);
}

__device__ __forceinline__ float act_one(int act, float x)
{
    switch (act) {
    case PL_ACT_SILU:
        return x / (1.0f + expf(-x));
    case PL_ACT_GELU:
        return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case PL_ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case PL_ACT_QUICK_GELU:
        return x / (1.0f + expf(-1.702f * x));
    default:
        return x > 0 || x != x ? x : 0;
    }
}

/* Where row r stands in its text. */
__device__ __forceinline__ int32_t position_of(const struct pl_cuda_step &st, int layer, int r)
{
    if (st.positions)
        return st.positions[r];
    if (st.tree)
        return st.kv[layer].next_position - st.tree[0] + st.tree[1 + st.tree[0] + r];
    return st.kv[layer * st.n_spans + st.span[r]].next_position + st.in_span[r];
}

static inline unsigned ceil_div(int64_t a, int64_t b)
{
    return (unsigned)((a + b - 1) / b);
}

/* Several products of one input and of one type of weights in one launch. */
#define PARTS 4
struct parts {
    struct {
        const void *w;
        const float *bias;
        float *y;
        int64_t out;
        size_t row_bytes;
        int first; /* group of outputs among all */
        int index; /* among the products of the call, of whatever type */
        bool add;
    } part[PARTS];
    int n, rows;
    int64_t in;
};

/* Those of p whose weights are of type dt; how many groups of `each` outputs they have. */
static inline int fill_parts(struct parts *g, const struct pl_cuda_product *p, int n,
                             enum pl_dtype dt, int rows, int each)
{
    int groups = 0;

    g->n = 0;
    g->rows = rows;
    g->in = p[0].w->in;
    for (int i = 0; i < n; i++) {
        const struct pl_cuda_matrix *w = p[i].w;
        if (w->dtype != dt)
            continue;
        g->part[g->n].w = w->data;
        g->part[g->n].bias = w->bias;
        g->part[g->n].y = p[i].y;
        g->part[g->n].out = w->out;
        g->part[g->n].row_bytes = w->row_bytes;
        g->part[g->n].first = groups;
        g->part[g->n].index = i;
        g->part[g->n++].add = p[i].add;
        groups += (int)ceil_div(w->out, each);
    }
    return groups;
}

/* The product that group `at` of outputs belongs to. */
__device__ __forceinline__ int part_of(const struct parts &g, int at)
{
    int s = 0;

    while (s + 1 < g.n && at >= g.part[s + 1].first)
        s++;
    return s;
}

/* Elements i and i + dim / 2 of a row's head, of part s: of Q, K or V (index 0 … 2), turned and put
 * to their place: q in f32 to its rows, K and V into the cache. */
__device__ __forceinline__ void put_heads(const struct parts &g, const struct pl_cuda_step &st,
                                          const struct pl_cuda_heads &h, int s, int row, int head,
                                          int i, float a, float b)
{
    const int half = h.dim / 2, which = g.part[s].index;
    const int64_t o = (int64_t)head * h.dim + i;
    const float *bias = g.part[s].bias;

    a += bias ? bias[o] : 0;
    b += bias ? bias[o + half] : 0;
    if (which < 2 && h.inv_freq) {
        float sin, cos, turned;
        sincosf((float)position_of(st, h.layer, row) * h.inv_freq[i], &sin, &cos);
        sin *= h.rope_factor;
        cos *= h.rope_factor;
        turned = a * cos - b * sin;
        b = b * cos + a * sin;
        a = turned;
    }
    if (which == 0) {
        g.part[s].y[row * g.part[s].out + o] = a;
        g.part[s].y[row * g.part[s].out + o + half] = b;
        return;
    }
    const struct pl_cuda_kv *kv = &st.kv[h.layer * st.n_spans + st.span[row]];
    const int at = (h.append ? kv->len + st.in_span[row] : row) % kv->cap;
    const int64_t to = ((int64_t)head * kv->cap + at) * h.dim + i;
    put(h.kv_dtype, which == 1 ? kv->k : kv->v, to, a);
    put(h.kv_dtype, which == 1 ? kv->k : kv->v, to + half, b);
}

/* Calls f with a null pointer of the type that dt stands for, one of 16 bits. */
template <typename F> static void by_dtype_16(enum pl_dtype dt, F f)
{
    if (dt == PL_DT_F16)
        f((pl_f16 *)NULL);
    else
        f((pl_bf16 *)NULL);
}

/* The same of any. */
template <typename F> static void by_dtype(enum pl_dtype dt, F f)
{
    if (dt == PL_DT_F16 || dt == PL_DT_BF16)
        by_dtype_16(dt, f);
    else
        f((float *)NULL);
}

#endif
