/*
 * Attention of many rows on tensor cores: 16-bit K and V, queries and probabilities rounded to the
 * same type, sums and maxima in f32. A warp takes 16 query vectors that share a KV head (row by
 * row, within a row head by head), a block four warps; they walk the keys in tiles of 64 that are
 * fetched a tile ahead. Any ring, window, bias, mask and head width up to 128: narrower ones are
 * padded with zeros to 64 or 128.
 */
#include "model/cuda/attend.cuh"
#include "model/cuda/mma.cuh"

#include <type_traits>

#define MMA_WARPS (PL_CUDA_MMA_VECTORS / 16)
#define MMA_KEYS 64
#define LOG2_E 1.4426950408889634f

/* Rows [key0, end) of one head's K or V, zeros behind them and beyond the head's width. */
template <int DIM>
__device__ __forceinline__ void fetch(const struct pl_cuda_kv *kv, const void *from, int kv_head,
                                      int dim, int key0, int end, uint16_t *tile)
{
    const uint16_t *head = (const uint16_t *)from + (int64_t)kv_head * kv->cap * dim;

    for (int i = (int)threadIdx.x; i < MMA_KEYS * (DIM / 8); i += MMA_WARPS * WARP) {
        const int j = i / (DIM / 8), d = i % (DIM / 8) * 8, key = key0 + j;
        uint16_t *to = tile + j * (DIM + 8) + d;
        if (key < end && d + 8 <= dim && dim % 8 == 0) {
            copy_16(to, head + (int64_t)(key % kv->cap) * dim + d);
            continue;
        }
        for (int e = 0; e < 8; e++)
            to[e] = key < end && d + e < dim ? head[(int64_t)(key % kv->cap) * dim + d + e] : 0;
    }
}

/* This lane's two vectors: places g and g + 8 among the warp's sixteen. */
struct pair {
    int row[2], head[2], first[2], end[2];
    bool there[2];
};

/* Bias, mask and what is not seen, on scores in units of log 2. */
template <int TILES>
__device__ __forceinline__ void unseen(const struct pl_cuda_attend &a, const struct pair &my,
                                       int key0, int len, float (*s)[4])
{
    PL_UNROLL
    for (int n = 0; n < TILES; n++) {
        PL_UNROLL
        for (int c = 0; c < 4; c++) {
            const int i = c / 2, key = key0 + n * 8 + (int)threadIdx.x % 4 * 2 + c % 2;
            if (key < my.first[i] || key >= my.end[i]) {
                s[n][c] = -INFINITY;
                continue;
            }
            if (a.bias)
                s[n][c] += LOG2_E * a.bias[(int64_t)my.head[i] * a.bias_span + a.bias_centre + key -
                                           (a.causal ? len + my.row[i] : my.row[i])];
            if (a.mask)
                s[n][c] += LOG2_E * a.mask[key];
        }
    }
}

__device__ __forceinline__ float four_max(float v)
{
    v = fmaxf(v, __shfl_xor_sync(FULL, v, 1));
    return fmaxf(v, __shfl_xor_sync(FULL, v, 2));
}

__device__ __forceinline__ float four_sum(float v)
{
    v += __shfl_xor_sync(FULL, v, 1);
    return v + __shfl_xor_sync(FULL, v, 2);
}

template <typename T, int DIM>
__global__ void __launch_bounds__(MMA_WARPS *WARP)
    attend_mma(const struct pl_cuda_step st, const struct pl_cuda_attend a, int blocks_a_span)
{
    const int STRIDE = DIM + 8, TILE = MMA_KEYS * STRIDE, TILES = MMA_KEYS / 8;
    PL_DYNAMIC_SHARED(uint16_t, room); /* K, V and the next ones */
    const int span = (int)blockIdx.x / blocks_a_span, kv_head = (int)blockIdx.y;
    const int group = a.heads / a.kv_heads, split = (int)blockIdx.z;
    const int row0 = st.span_row[span], rows = st.span_row[span + 1] - row0;
    const int v0 = (int)blockIdx.x % blocks_a_span * PL_CUDA_MMA_VECTORS, n_vectors = rows * group;
    const struct pl_cuda_kv *kv = &st.kv[a.layer * st.n_spans + span];
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, t = lane % 4;
    uint32_t q[DIM / 16][4];
    float o[DIM / 8][4] = {}, m[2] = {-INFINITY, -INFINITY}, l[2] = {0, 0};
    struct pair my;
    int begin, end, none, all_first, all_end; /* the warp's vectors all see [all_first, all_end) */

    if (v0 >= n_vectors)
        return;
    const int last = min(v0 + PL_CUDA_MMA_VECTORS, n_vectors) - 1;
    for (int i = 0; i < 2; i++) {
        const int at = v0 + warp * 16 + lane / 4 + 8 * i;
        my.there[i] = at <= last;
        my.row[i] = min(at, last) / group;
        my.head[i] = kv_head * group + min(at, last) % group;
        seen(kv, a.causal, my.row[i], &my.first[i], &my.end[i]);
    }
    seen(kv, a.causal, min(v0 + warp * 16, last) / group, &none, &all_end);
    seen(kv, a.causal, min(v0 + warp * 16 + 15, last) / group, &all_first, &none);
    seen(kv, a.causal, v0 / group, &begin, &none);
    seen(kv, a.causal, last / group, &none, &end);
    if (a.splits > 1) {
        int each = (end - begin + a.splits * MMA_KEYS - 1) / (a.splits * MMA_KEYS) * MMA_KEYS;
        begin += split * each;
        end = min(end, begin + each);
    }
    PL_UNROLL
    for (int s = 0; s < DIM / 16; s++) {
        PL_UNROLL
        for (int part = 0; part < 4; part++) {
            const int i = part % 2, d = s * 16 + part / 2 * 8 + 2 * t;
            const float *from =
                a.q + ((int64_t)(row0 + my.row[i]) * a.heads + my.head[i]) * a.dim + d;
            float low = d < a.dim ? from[0] : 0, high = d + 1 < a.dim ? from[1] : 0;
            q[s][part] = pack(low * a.scale * LOG2_E, high * a.scale * LOG2_E, T());
        }
    }
    if (begin < end) {
        fetch<DIM>(kv, kv->k, kv_head, a.dim, begin, end, room);
        fetch<DIM>(kv, kv->v, kv_head, a.dim, begin, end, room + TILE);
    }
    copies_sent();
    for (int key0 = begin, turn = 0; key0 < end; key0 += MMA_KEYS, turn ^= 1) {
        const uint16_t *k = room + turn * 2 * TILE, *v = k + TILE;
        uint16_t *next = room + (turn ^ 1) * 2 * TILE;
        float s[TILES][4] = {};
        if (key0 + MMA_KEYS < end) {
            fetch<DIM>(kv, kv->k, kv_head, a.dim, key0 + MMA_KEYS, end, next);
            fetch<DIM>(kv, kv->v, kv_head, a.dim, key0 + MMA_KEYS, end, next + TILE);
            copies_sent();
            copies_wait(1);
        } else {
            copies_wait(0);
        }
        __syncthreads();
        PL_UNROLL
        for (int x = 0; x < DIM / 16; x++) {
            PL_UNROLL
            for (int n = 0; n < TILES; n += 2) {
                uint32_t b[4];
                load_rows(k, STRIDE, n * 8, x * 16, b);
                mma(s[n], q[x], b, T());
                mma(s[n + 1], q[x], b + 2, T());
            }
        }
        if (key0 < all_first || key0 + MMA_KEYS > all_end || a.bias || a.mask)
            unseen<MMA_KEYS / 8>(a, my, key0, kv->len, s);
        PL_UNROLL
        for (int i = 0; i < 2; i++) {
            float top = m[i], sum = 0;
            PL_UNROLL
            for (int n = 0; n < TILES; n++)
                top = fmaxf(top, fmaxf(s[n][2 * i], s[n][2 * i + 1]));
            top = four_max(top);
            const float base = top == -INFINITY ? 0 : top, shrink = exp2f(m[i] - base);
            PL_UNROLL
            for (int n = 0; n < TILES; n++) {
                s[n][2 * i] = exp2f(s[n][2 * i] - base);
                s[n][2 * i + 1] = exp2f(s[n][2 * i + 1] - base);
                sum += s[n][2 * i] + s[n][2 * i + 1];
            }
            m[i] = top;
            l[i] = l[i] * shrink + sum;
            PL_UNROLL
            for (int n = 0; n < DIM / 8; n++) {
                o[n][2 * i] *= shrink;
                o[n][2 * i + 1] *= shrink;
            }
        }
        PL_UNROLL
        for (int x = 0; x < MMA_KEYS / 16; x++) {
            const float *p = s[2 * x], *r = s[2 * x + 1];
            const uint32_t w[4] = {pack(p[0], p[1], T()), pack(p[2], p[3], T()),
                                   pack(r[0], r[1], T()), pack(r[2], r[3], T())};
            PL_UNROLL
            for (int n = 0; n < DIM / 8; n += 2) {
                uint32_t b[4];
                load_columns(v, STRIDE, x * 16, n * 8, b);
                mma(o[n], w, b, T());
                mma(o[n + 1], w, b + 2, T());
            }
        }
        __syncthreads();
    }
    PL_UNROLL
    for (int i = 0; i < 2; i++) {
        const float sum = four_sum(l[i]), by = sum > 0 ? 1.0f / sum : 0;
        const int64_t at = (int64_t)(row0 + my.row[i]) * a.heads + my.head[i];
        float *part =
            a.partial + ((at - (int64_t)a.first_row * a.heads) * a.splits + split) * (a.dim + 2);
        if (!my.there[i])
            continue;
        PL_UNROLL
        for (int n = 0; n < DIM / 8; n++) {
            const int d = n * 8 + 2 * t;
            for (int c = 0; c < 2 && d + c < a.dim; c++) {
                const float v = c ? o[n][2 * i + 1] : o[n][2 * i];
                if (a.splits > 1)
                    part[2 + d + c] = v;
                else
                    attend_out(a, at * a.dim + d + c, v * by);
            }
        }
        if (t)
            continue;
        if (a.splits > 1) {
            part[0] = m[i] / LOG2_E;
            part[1] = sum;
        } else if (a.lse) {
            a.lse[at] = m[i] / LOG2_E + logf(sum);
        }
    }
    if (parted(a))
        merge_parts<MMA_WARPS>(a, row0, kv_head, v0, last);
}

template <typename T, int DIM>
static void launch(const struct pl_cuda_step *st, const struct pl_cuda_attend *a, cudaStream_t s)
{
    int blocks =
        (int)ceil_div((int64_t)a->max_span * (a->heads / a->kv_heads), PL_CUDA_MMA_VECTORS);
    dim3 grid((unsigned)(blocks * st->n_spans), (unsigned)a->kv_heads, (unsigned)a->splits);
    size_t shared = (size_t)4 * MMA_KEYS * (DIM + 8) * sizeof(uint16_t);

    if (shared > PL_PLAIN_SHARED)
        PL_BIG_SHARED((attend_mma<T, DIM>), shared);
    PL_LAUNCH((attend_mma<T, DIM>), grid, MMA_WARPS * WARP, shared, s, *st, *a, blocks);
}

template <typename T>
static void by_width(const struct pl_cuda_step *st, const struct pl_cuda_attend *a, cudaStream_t s)
{
    if (a->dim <= 64)
        launch<T, 64>(st, a, s);
    else
        launch<T, 128>(st, a, s);
}

extern "C" bool pl_k_attend_mma_does(const struct pl_cuda_attend *a)
{
    return a->kv_dtype != PL_DT_F32 && a->to != PL_DT_F32 && a->dim <= 128;
}

extern "C" void pl_k_attend_mma(const struct pl_cuda_step *st, const struct pl_cuda_attend *a,
                                cudaStream_t s)
{
    by_dtype_16(a->kv_dtype, [&](auto *t) {
        by_width<typename std::remove_pointer<decltype(t)>::type>(st, a, s);
    });
}
