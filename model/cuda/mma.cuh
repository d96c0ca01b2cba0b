/*
 * Matrix products of a warp, m16n8k16 on f16 or bf16 with f32 sums (sm_80 and later), and what
 * feeds them from shared memory. Fragments as PTX lays them out; g = lane / 4, t = lane % 4:
 *
 *   a[0…3]: A(g, 2t…) A(g + 8, 2t…) A(g, 2t + 8…) A(g + 8, 2t + 8…), two numbers each
 *   b[0…1]: B(2t…, g) B(2t + 8…, g)
 *   c[0…3]: C(g, 2t) C(g, 2t + 1) C(g + 8, 2t) C(g + 8, 2t + 1)
 *
 * The emulation (tests/cuda_emu) computes the same from the same fragments.
 */
#ifndef PL_MODEL_CUDA_MMA_CUH
#define PL_MODEL_CUDA_MMA_CUH

#include "model/cuda/common.cuh"

/* Arrays stay in registers only where every index is known to the compiler. */
#ifdef __CUDACC__
#define PL_UNROLL _Pragma("unroll")

__device__ __forceinline__ void mma(float c[4], const uint32_t a[4], const uint32_t b[2], pl_bf16)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma(float c[4], const uint32_t a[4], const uint32_t b[2], pl_f16)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ uint32_t pack(float low, float high, pl_bf16)
{
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
__device__ __forceinline__ uint32_t pack(float low, float high, pl_f16)
{
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

__device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* b of two tiles whose columns are rows of the tile: r[0…1] of rows n0…, r[2…3] of rows n0 + 8…;
 * k0… along a row. Rows begin at multiples of 16 bytes. */
__device__ __forceinline__ void load_rows(const uint16_t *tile, int stride, int n0, int k0,
                                          uint32_t r[4])
{
    const int lane = (int)threadIdx.x % WARP, part = lane / 8;
    const uint32_t at =
        shared_address(tile + (n0 + part / 2 * 8 + lane % 8) * stride + k0 + part % 2 * 8);

    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at));
}

/* b of two tiles whose rows are rows of the tile: r[0…1] of columns n0…, r[2…3] of columns n0 + 8…;
 * rows k0…. */
__device__ __forceinline__ void load_columns(const uint16_t *tile, int stride, int k0, int n0,
                                             uint32_t r[4])
{
    const int lane = (int)threadIdx.x % WARP, part = lane / 8;
    const uint32_t at =
        shared_address(tile + (k0 + part % 2 * 8 + lane % 8) * stride + n0 + part / 2 * 8);

    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at));
}

/* 16 bytes on their way to shared memory while the thread goes on. */
__device__ __forceinline__ void copy_16(uint16_t *to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from)
                 : "memory");
}
__device__ __forceinline__ void copies_sent()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* All but the last `but` (0 or 1) groups that this thread sent have come. */
__device__ __forceinline__ void copies_wait(int but)
{
    if (but)
        asm volatile("cp.async.wait_group 1;" ::: "memory");
    else
        asm volatile("cp.async.wait_group 0;" ::: "memory");
}

#else /* tests/cuda_emu */
#define PL_UNROLL

template <typename T> uint32_t pack(float low, float high, T)
{
    T a, b;

    from_f32(low, &a);
    from_f32(high, &b);
    return a.u | (uint32_t)b.u << 16;
}

template <typename T> void unpack(uint32_t pair, float out[2])
{
    const T low = {(uint16_t)(pair & 0xffffu)}, high = {(uint16_t)(pair >> 16)};

    out[0] = to_f32(low);
    out[1] = to_f32(high);
}

template <typename T> void mma(float c[4], const uint32_t a[4], const uint32_t b[2], T)
{
    struct fragment {
        float a[4][2], b[2][2];
    } mine;
    const int g = pl_emu_lane() / 4, t = pl_emu_lane() % 4;

    for (int i = 0; i < 4; i++)
        unpack<T>(a[i], mine.a[i]);
    for (int i = 0; i < 2; i++)
        unpack<T>(b[i], mine.b[i]);
    const struct fragment *all = (const struct fragment *)pl_emu_gather(&mine, sizeof(mine));
    for (int k = 0; k < 16; k++) {
        const struct fragment *x = &all[g * 4 + k % 8 / 2];
        const float *b0 = all[2 * t * 4 + k % 8 / 2].b[k / 8],
                    *b1 = all[(2 * t + 1) * 4 + k % 8 / 2].b[k / 8];
        const float low = x->a[k / 8 * 2][k % 2], high = x->a[k / 8 * 2 + 1][k % 2];
        c[0] += low * b0[k % 2];
        c[1] += low * b1[k % 2];
        c[2] += high * b0[k % 2];
        c[3] += high * b1[k % 2];
    }
}

inline void load_rows(const uint16_t *tile, int stride, int n0, int k0, uint32_t r[4])
{
    const int g = pl_emu_lane() / 4, t = pl_emu_lane() % 4;

    for (int part = 0; part < 4; part++) {
        const uint16_t *at = tile + (n0 + part / 2 * 8 + g) * stride + k0 + part % 2 * 8 + 2 * t;
        r[part] = at[0] | (uint32_t)at[1] << 16;
    }
}

inline void load_columns(const uint16_t *tile, int stride, int k0, int n0, uint32_t r[4])
{
    const int g = pl_emu_lane() / 4, t = pl_emu_lane() % 4;

    for (int part = 0; part < 4; part++) {
        const uint16_t *at = tile + (k0 + part % 2 * 8 + 2 * t) * stride + n0 + part / 2 * 8 + g;
        r[part] = at[0] | (uint32_t)at[stride] << 16;
    }
}

inline void copy_16(uint16_t *to, const void *from)
{
    memcpy(to, from, 16);
}
inline void copies_sent()
{
}
inline void copies_wait(int)
{
}

#endif

/* What rounding left of a pair. */
template <typename T> __device__ __forceinline__ uint32_t rest(float low, float high, uint32_t pair)
{
    const T a = {(uint16_t)(pair & 0xffffu)}, b = {(uint16_t)(pair >> 16)};

    return pack(low - to_f32(a), high - to_f32(b), T());
}

/* Adds the warps' sums up, in their order, into the first's; false: another warp. A block that does
 * so again and again takes turns 0 and 1, so that the others need not wait for the first to read.
 */
template <int WARPS, int N, int TURNS = 1>
__device__ __forceinline__ bool together(float *c, int turn = 0)
{
    __shared__ float all[TURNS][WARPS - 1][N][WARP];
    float(*sums)[N][WARP] = all[turn];
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;

    if (warp) {
        PL_UNROLL
        for (int i = 0; i < N; i++)
            sums[warp - 1][i][lane] = c[i];
    }
    __syncthreads();
    if (warp)
        return false;
    for (int w = 0; w < WARPS - 1; w++) {
        PL_UNROLL
        for (int i = 0; i < N; i++)
            c[i] += sums[w][i][lane];
    }
    return true;
}

#endif
