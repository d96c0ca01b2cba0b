/*
 * Attention of few query vectors over 16-bit K and V, at the rate at which memory gives those: a
 * decode, a verification. A warp takes up to eight vectors that share a KV head (row by row, within
 * a row head by head) and a fourth of a part's keys, 16 at a time, which go from memory straight
 * into the fragments of the tensor cores, 16 bytes a lane, the next ones on their way meanwhile.
 * Which element of a row stands where in a product is free as long as both sides agree:
 *
 *   scores: lane (g, t) holds elements 8t … 8t + 7 of each 32 of keys g and g + 8: two steps of b
 *   output: elements 8g … 8g + 7 of each 64 of keys 2t, 2t + 1, 2t + 8, 2t + 9: eight tiles of b
 *
 * (g = lane / 4, t = lane % 4). The eight rows of a product that the vectors leave over take what
 * is lost where queries and probabilities are rounded to 16 bits, so that no more than of f32 is.
 * A vector's bits depend on its keys and on where the part begins, not on the vectors beside it.
 */
#include "model/cuda/attend.cuh"
#include "model/cuda/mma.cuh"

#include <type_traits>

#define FEW_WARPS 4
#define FEW_KEYS 16
#ifdef __CUDA_ARCH__
#define BLOCKS_AT_ONCE PL_CUDA_FEW_BLOCKS(__CUDA_ARCH__ / 100)
#else
#define BLOCKS_AT_ONCE 1 /* nobody reads it */
#endif
#define LOG2_E 1.4426950408889634f

/* Probabilities stand 2^this above the largest's 1, where a type would lose the small ones. */
__device__ __forceinline__ float raised(pl_f16)
{
    return 14;
}
__device__ __forceinline__ float raised(pl_bf16)
{
    return 0;
}

__device__ __forceinline__ void load_16(const void *from, uint32_t to[4])
{
    const uint4 x = __ldg((const uint4 *)from); /* nobody writes them meanwhile */

    to[0] = x.x;
    to[1] = x.y;
    to[2] = x.z;
    to[3] = x.w;
}

/* The lower or the higher number of each of two pairs. */
__device__ __forceinline__ uint32_t pick_pair(uint32_t low, uint32_t high, int higher)
{
#ifdef __CUDACC__
    return __byte_perm(low, high, higher ? 0x7632 : 0x5410);
#else
    return higher ? low >> 16 | (high & 0xffff0000u) : (low & 0xffffu) | high << 16;
#endif
}

/* Two numbers rounded, and what that loses of them. */
template <typename T>
__device__ __forceinline__ void pack_both(float low, float high, uint32_t *near, uint32_t *left)
{
    *near = pack(low, high, T());
    *left = rest<T>(low, high, *near);
}

/* K and V of one head; keys behind the last are read as that. */
struct rows_of {
    const char *k, *v;          /* the lane's elements of the first row */
    int bytes, cap, turn, last; /* of a row; turn: where the ring began anew before the first key */
};

__device__ __forceinline__ int64_t row_at(const struct rows_of &r, int key, int bytes)
{
    const int at = min(key, r.last) - r.turn;

    return (int64_t)(at >= r.cap ? at - r.cap : at) * bytes;
}

/* Bytes from a lane's first elements to its i-th, `step` on each time: beyond the row's end, those
 * at the end. */
template <bool WHOLE>
__device__ __forceinline__ int elements_at(const struct rows_of &r, int first, int step, int i)
{
    return WHOLE ? i * step : min(first + i * step, r.bytes - 16) - first;
}

/* DIM: the head's width, or where not WHOLE, what it is filled up to: with elements that meet zeros
 * in the queries, and in the output with columns that nobody stores. */
template <int DIM, bool WHOLE>
__device__ __forceinline__ void fetch_k(const struct rows_of &r, int key0, int first,
                                        uint32_t k[DIM / 32][2][4])
{
    const int g = (int)threadIdx.x % WARP / 4, t = (int)threadIdx.x % 4;

    PL_UNROLL
    for (int n = 0; n < 2; n++) {
        const char *row = r.k + row_at(r, max(key0 + n * 8 + g, first), WHOLE ? 2 * DIM : r.bytes);
        PL_UNROLL
        for (int c = 0; c < DIM / 32; c++)
            load_16(row + elements_at<WHOLE>(r, t * 16, 64, c), k[c][n]);
    }
}

template <int DIM, bool WHOLE>
__device__ __forceinline__ void fetch_v(const struct rows_of &r, int key0, int first,
                                        uint32_t v[DIM / 64][4][4])
{
    const int g = (int)threadIdx.x % WARP / 4, t = (int)threadIdx.x % 4;

    PL_UNROLL
    for (int i = 0; i < 4; i++) {
        const char *row = r.v + row_at(r, max(key0 + i / 2 * 8 + 2 * t + i % 2, first),
                                       WHOLE ? 2 * DIM : r.bytes);
        PL_UNROLL
        for (int c = 0; c < DIM / 64; c++)
            load_16(row + elements_at<WHOLE>(r, g * 16, 128, c), v[c][i]);
    }
}

/* The lane's vector as the products' other side, in units of log 2. */
template <typename T, int DIM>
__device__ __forceinline__ void queries(const struct pl_cuda_attend &a, const float *from,
                                        uint4 q[DIM / 16][WARP])
{
    PL_UNROLL
    for (int s = 0; s < DIM / 16; s++) {
        const int d = s / 2 * 32 + (int)threadIdx.x % 4 * 8 + s % 2 * 4;
        float4 x = {0, 0, 0, 0};
        if (d < a.dim)
            x = *(const float4 *)(const void *)(from + d);
        const float by = a.scale * LOG2_E;
        uint4 to;
        pack_both<T>(x.x * by, x.y * by, &to.x, &to.y);
        pack_both<T>(x.z * by, x.w * by, &to.z, &to.w);
        q[s][threadIdx.x % WARP] = to;
    }
}

/* Scores of the lane's vector with keys 2t, 2t + 1, 2t + 8, 2t + 9. */
template <typename T, int DIM>
__device__ __forceinline__ void scores(const uint4 q[DIM / 16][WARP],
                                       const uint32_t k[DIM / 32][2][4], float s[4])
{
    float c[2][4] = {};

    PL_UNROLL
    for (int i = 0; i < DIM / 32; i++) {
        PL_UNROLL
        for (int part = 0; part < 2; part++) {
            const uint4 x = q[2 * i + part][threadIdx.x % WARP];
            const uint32_t w[4] = {x.x, x.y, x.z, x.w};
            PL_UNROLL
            for (int n = 0; n < 2; n++)
                mma(c[n], w, k[i][n] + 2 * part, T());
        }
    }
    PL_UNROLL
    for (int n = 0; n < 2; n++) {
        s[2 * n] = c[n][0] + c[n][2];
        s[2 * n + 1] = c[n][1] + c[n][3];
    }
}

/* o += p · V */
template <typename T, int DIM>
__device__ __forceinline__ void weigh(const float p[4], const uint32_t v[DIM / 64][4][4],
                                      float o[DIM / 8][4])
{
    uint32_t w[4];

    pack_both<T>(p[0], p[1], &w[0], &w[1]);
    pack_both<T>(p[2], p[3], &w[2], &w[3]);
    PL_UNROLL
    for (int j = 0; j < DIM / 8; j++) {
        const uint32_t(*x)[4] = v[j / 8];
        const int at = j % 8 / 2;
        const uint32_t b[2] = {pick_pair(x[0][at], x[1][at], j % 2),
                               pick_pair(x[2][at], x[3][at], j % 2)};
        mma(o[j], w, b, T());
    }
}

/* What the warps of a block have to tell each other at the end. */
template <int DIM> struct warp_results {
    float m[FEW_WARPS][8], l[FEW_WARPS][8], o[FEW_WARPS][8][DIM + 4]; /* + 4: other banks */
};

/* Merges the results of vector v's warps and stores them: a warp, its lanes over elements. */
template <int DIM>
__device__ __forceinline__ void store(const struct pl_cuda_attend &a,
                                      const struct warp_results<DIM> &all, int v, int sets,
                                      int64_t at, int split)
{
    const int lane = (int)threadIdx.x % WARP, set = v / 8, g = v % 8;
    float *part = a.partial +
                  ((at - (int64_t)a.first_row * a.heads) * a.splits + split) * (int64_t)(a.dim + 2);
    float top = -INFINITY, sum = 0, by[FEW_WARPS];

    for (int w = set; w < FEW_WARPS; w += sets)
        top = fmaxf(top, all.m[w][g]);
    PL_UNROLL
    for (int w = 0; w < FEW_WARPS; w++) {
        by[w] = w % sets == set && all.l[w][g] != 0 ? exp2f(all.m[w][g] - top) : 0;
        sum += by[w] != 0 ? by[w] * all.l[w][g] : 0;
    }
    for (int d = lane; d < a.dim; d += WARP) {
        float o = 0;
        PL_UNROLL
        for (int w = 0; w < FEW_WARPS; w++)
            o += by[w] != 0 ? by[w] * all.o[w][g][d] : 0;
        if (parted(a))
            part[2 + d] = o;
        else
            attend_out(a, at * a.dim + d, sum != 0 ? o / sum : 0);
    }
    if (lane)
        return;
    if (parted(a)) {
        part[0] = top / LOG2_E;
        part[1] = sum;
    } else if (a.lse) {
        a.lse[at] = top / LOG2_E + logf(sum);
    }
}

/* A vector's row and head, and the keys that it sees. */
struct __align__(16) seen_keys
{
    int row, head, first, end;
};

/* `sets` of eight vectors in a block: its warps are shared out among them, and find in L1 what
 * another set's have read. */
template <typename T, int DIM, bool WHOLE>
__global__ void __launch_bounds__(FEW_WARPS *WARP, BLOCKS_AT_ONCE)
    attend_few(const struct pl_cuda_step st, const struct pl_cuda_attend a, int blocks_a_span,
               int sets)
{
    __shared__ struct warp_results<DIM> all;
    /* Each lane reads what it wrote; what is in registers is K, V and the output. */
    __shared__ uint4 all_q[FEW_WARPS][DIM / 16][WARP];
    __shared__ struct seen_keys sees[FEW_WARPS * WARP];
    next_may_begin();
    previous_is_over();
    const int span = (int)blockIdx.x / blocks_a_span, kv_head = (int)blockIdx.y;
    const int group = a.heads / a.kv_heads, row0 = st.span_row[span];
    const int n_vectors = (st.span_row[span + 1] - row0) * group;
    const int v0 = (int)blockIdx.x % blocks_a_span * 8 * sets;
    const struct pl_cuda_kv *kv = &st.kv[a.layer * st.n_spans + span];
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, g = lane / 4;
    const int mine = v0 + warp % sets * 8, step = FEW_WARPS / sets * FEW_KEYS;
    const int last = min(v0 + 8 * sets, n_vectors) - 1;
    uint32_t k[DIM / 32][2][4], v[DIM / 64][4][4];
    float o[DIM / 8][4] = {}, m = -INFINITY, l = 0;
    int begin, end, first, my_end, all_first, all_end, none;

    if (last < v0 || row0 + last / group < a.first_row ||
        row0 + v0 / group >= a.first_row + a.n_rows)
        return;
    seen_by(st, kv, a.causal, v0 / group, last / group, &begin, &end);
    const int64_t in = (int64_t)kv_head * kv->cap * a.dim * 2;
    struct rows_of from = {.k = (const char *)kv->k + in + lane % 4 * 16,
                           .v = (const char *)kv->v + in + g * 16,
                           .bytes = 2 * a.dim,
                           .cap = kv->cap,
                           .turn = begin / kv->cap * kv->cap};
    const int lo = begin; /* those before it are read as it is, and only in the first step */
    part_of(a, (int)blockIdx.z, FEW_WARPS * FEW_KEYS, &begin, &end);
    from.last = end - 1; /* a part is of whole steps of 16 keys, but for the last */
    int key0 = begin + warp / sets * FEW_KEYS;
    const bool busy = mine <= last && key0 < end;
    if (busy) {
        fetch_k<DIM, WHOLE>(from, key0, lo, k);
        fetch_v<DIM, WHOLE>(from, key0, lo, v);
    }
    const int at = min(mine + g, last), row = at / group, head = kv_head * group + at % group;
    seen(kv, a.causal, min(mine, last) / group, &none, &all_end);
    seen(kv, a.causal, min(mine + 7, last) / group, &all_first, &none);
    seen_of(st, kv, a.causal, row, &first, &my_end);
    sees[threadIdx.x] = {row, head, first, my_end};
    const bool simple = !st.tree && !a.bias && !a.mask;
    if (busy)
        queries<T, DIM>(a, a.q + ((int64_t)(row0 + row) * a.heads + head) * a.dim, all_q[warp]);
    for (; busy && key0 < end; key0 += step) {
        float s[4];
        scores<T, DIM>(all_q[warp], k, s);
        fetch_k<DIM, WHOLE>(from, key0 + step, 0, k);
        if (!simple || key0 < all_first || key0 + FEW_KEYS > all_end) {
            const struct seen_keys my = sees[threadIdx.x];
            PL_UNROLL
            for (int i = 0; i < 4; i++) {
                const int key = key0 + i / 2 * 8 + lane % 4 * 2 + i % 2;
                s[i] = scored(st, kv, a, s[i], LOG2_E, key, my.row, my.head, my.first, my.end);
            }
        }
        float top = fmaxf(fmaxf(s[0], s[1]), fmaxf(s[2], s[3]));
        top = fmaxf(top, __shfl_xor_sync(FULL, top, 1));
        top = fmaxf(top, __shfl_xor_sync(FULL, top, 2)) - raised(T());
        if (top > m) {
            const float shrink = exp2f(m - top);
            m = top;
            l *= shrink;
            PL_UNROLL
            for (int j = 0; j < DIM / 8; j++) {
                PL_UNROLL
                for (int i = 0; i < 4; i++)
                    o[j][i] *= shrink;
            }
        }
        const float base = m == -INFINITY ? 0 : m;
        PL_UNROLL
        for (int i = 0; i < 4; i++) {
            s[i] = exp2f(s[i] - base);
            l += s[i];
        }
        weigh<T, DIM>(s, v, o);
        fetch_v<DIM, WHOLE>(from, key0 + step, 0, v);
    }
    l += __shfl_xor_sync(FULL, l, 1);
    l += __shfl_xor_sync(FULL, l, 2);
    if (lane % 4 == 0) {
        all.m[warp][g] = m;
        all.l[warp][g] = l;
    }
    PL_UNROLL
    for (int j = 0; j < DIM / 8; j++) {
        float *to = all.o[warp][g] + j / 8 * 64 + lane % 4 * 16 + j % 8;
        to[0] = o[j][0] + o[j][2];
        to[8] = o[j][1] + o[j][3];
    }
    __syncthreads();
    for (int i = warp; i < 8 * sets && v0 + i <= last; i += FEW_WARPS) {
        const int64_t r = row0 + (v0 + i) / group;
        if (r >= a.first_row && r < a.first_row + a.n_rows)
            store<DIM>(a, all, i, sets, r * a.heads + kv_head * group + (v0 + i) % group,
                       (int)blockIdx.z);
    }
    if (parted(a))
        merge_parts<FEW_WARPS>(a, row0, kv_head, v0, last);
}

static int sets_of(const struct pl_cuda_attend *a)
{
    const int64_t n = (int64_t)a->max_span * (a->heads / a->kv_heads);

    if (a->chunk) /* a vector's keys always go to the same warps */
        return 1;
    return n <= 8 ? 1 : n <= 16 ? 2 : 4;
}

template <typename T, int DIM, bool WHOLE>
static void launch(const struct pl_cuda_step *st, const struct pl_cuda_attend *a, cudaStream_t s)
{
    const int sets = sets_of(a);
    const int blocks = (int)ceil_div((int64_t)a->max_span * (a->heads / a->kv_heads), 8 * sets);
    dim3 grid((unsigned)(blocks * st->n_spans), (unsigned)a->kv_heads, (unsigned)a->splits);

    PL_LAUNCH_EARLY((attend_few<T, DIM, WHOLE>), grid, FEW_WARPS * WARP, 0, s, *st, *a, blocks,
                    sets);
}

template <typename T>
static void by_width(const struct pl_cuda_step *st, const struct pl_cuda_attend *a, cudaStream_t s)
{
    if (a->dim == 64)
        launch<T, 64, true>(st, a, s);
    else if (a->dim == 128)
        launch<T, 128, true>(st, a, s);
    else if (a->dim < 64)
        launch<T, 64, false>(st, a, s);
    else
        launch<T, 128, false>(st, a, s);
}

extern "C" int pl_k_attend_few_does(const struct pl_cuda_attend *a, bool tree)
{
    if (a->kv_dtype == PL_DT_F32 || a->dim > 128 || a->dim % 8)
        return 0;
    if (!tree && pl_k_attend_mma_does(a) && a->max_span * (a->heads / a->kv_heads) > 8)
        return 0;
    return 8 * sets_of(a);
}

extern "C" void pl_k_attend_few(const struct pl_cuda_step *st, const struct pl_cuda_attend *a,
                                cudaStream_t s)
{
    by_dtype_16(a->kv_dtype, [&](auto *t) {
        by_width<typename std::remove_pointer<decltype(t)>::type>(st, a, s);
    });
}
