/* Blocks of a file to panels, and panels back to plain numbers. */
#include "model/cuda/packed.cuh"

/* Rows g and g + 8 as the file has them (NULL: beyond the last). */
struct file_rows {
    const uint8_t *row[2];
    int64_t at, in; /* first column of the group; columns */
};

/* Where the block of column c of a group stands; NULL: beyond the last. */
template <int DT>
__device__ __forceinline__ const uint8_t *block_at(const struct file_rows &f, int r, int c)
{
    const int block = form_of(DT).block, bytes = form_of(DT).bytes;

    return f.row[r] && f.at + c < f.in ? f.row[r] + (f.at + c) / block * bytes : NULL;
}

/* Column c's bits of a file's block. */
__device__ __forceinline__ uint32_t bits_of(const struct bits &b, const uint8_t *p, int c)
{
    const int per = 8 / b.n, byte = b.at + c / (b.run * per) * b.run + c % b.run;

    return p[byte] >> c / b.run % per * b.n & ((1u << b.n) - 1);
}

/* The bits of a lane's words of unit u. */
template <int DT>
__device__ __forceinline__ void pack_unit(struct group<DT> &v, const struct file_rows &f, int u,
                                          int t)
{
    const struct form form = form_of(DT);
    const uint32_t top = form.mins || form.low.n == 8 ? 0 : 1; /* to be inverted */

    for (int i = 0; i < 4; i++) {
        const struct place low = low_place<DT>(u, i), high = high_place<DT>(u, i);
        for (int b = 0; b < 4; b++) {
            const int c = u * UNIT + i / 2 * 16 + 4 * t + b, at = c % form.block;
            const uint8_t *p = block_at<DT>(f, i % 2, c);
            if (!p)
                continue;
            uint32_t bits = bits_of(form.low, p, at);
            if (packing<DT>::high)
                v.high[high.word] |= (bits_of(form.high, p, at) ^ top << (form.high.n - 1))
                                     << (8 * b + high.bit);
            else
                bits ^= top << (form.low.n - 1);
            v.low[low.word] |= bits << (8 * b + low.bit);
        }
    }
}

template <int DT>
__device__ __forceinline__ void pack_scales(const struct file_rows &f, uint8_t *to, int g)
{
    typedef packing<DT> P;
    const struct form form = form_of(DT);

    for (int r = 0; r < 2; r++) {
        const uint8_t *p = block_at<DT>(f, r, 0);
        for (int i = 0; i < (P::kept ? 16 : 0); i++)
            to[(g + 8 * r) * 16 + i] =
                !p || i >= form.kept
                    ? 0
                    : (uint8_t)(p[form.kept_at + i] ^ (DT == PL_DT_Q6_K ? 128 : 0));
        for (int i = 0; i < 2 * P::half_words; i++) { /* of each word, a byte and the next */
            const uint8_t *block = block_at<DT>(f, r, i / 2 % P::each_half * UNIT);
            to[P::kept + (g * P::half_words + i / 2) * 4 + 2 * r + i % 2] =
                block ? block[form.halves_at + i / 2 / P::each_half * 2 + i % 2] : 0;
        }
    }
}

/* N words of a lane to where load_words finds them. */
template <int N>
__device__ __forceinline__ void store_words(uint8_t *p, const uint32_t *v, int lane)
{
    const int each = N == 0 ? 1 : N < 4 ? N : 4;

    for (int i = 0; i < N; i++)
        memcpy(p + 4 * (i / each * each * WARP + lane * each + i % each), &v[i], 4);
}

/* Rows [n, in] of the file's blocks → panels; a warp for each group. */
template <int DT>
__global__ void pack_panels(const uint8_t *from, int64_t n, int64_t in, int groups, uint8_t *to)
{
    typedef packing<DT> P;
    const int64_t id = (int64_t)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    const int lane = (int)threadIdx.x % WARP;
    const int64_t panel = id / groups, first = panel * PANEL + lane / 4;
    struct file_rows f = {{NULL, NULL}, id % groups * P::units * UNIT, in};
    struct group<DT> v = {
    };

    if (panel * PANEL >= n)
        return;
    for (int r = 0; r < 2; r++)
        if (first + 8 * r < n)
            f.row[r] = from + (first + 8 * r) * (in / form_of(DT).block * form_of(DT).bytes);
    to += id * P::bytes;
    if (lane % 4 == 0)
        pack_scales<DT>(f, to, lane / 4);
    PL_UNROLL
    for (int u = 0; u < P::units; u++)
        pack_unit<DT>(v, f, u, lane % 4);
    store_words<P::low_words>(to + P::bits_at, v.low, lane);
    store_words<P::high_words>(to + (P::bits_at + 4 * WARP * P::low_words), v.high, lane);
}

/* Four weights: word i of unit u. The values are the file's, to the bit. */
template <int DT>
__device__ __forceinline__ void values(const struct group<DT> &v, int u, int i, float w[4])
{
    const uint32_t bytes = word<DT>(v, u, i);
    float s, m;

    scale_of<DT>(v, u, i / 2, i % 2, &s, &m);
    for (int b = 0; b < 4; b++) {
        const uint32_t q = bytes >> 8 * b & 255;
        w[b] = s * (float)(packing<DT>::mins ? (int)q : (int)(int8_t)q) - m;
    }
}

/* A warp for each group. */
template <int DT, typename T>
__global__ void decode_packed(const uint8_t *w, int64_t out, int64_t in, int groups, T *to)
{
    typedef packing<DT> P;
    const int64_t id = (int64_t)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    const int lane = (int)threadIdx.x % WARP;
    struct group<DT> v = {
    };

    if (id / groups * PANEL >= out)
        return;
    load<DT>(v, w + id * P::bytes, lane);
    PL_UNROLL
    for (int i = 0; i < 4 * P::units; i++) {
        const int64_t o = id / groups * PANEL + lane / 4 + i % 2 * 8;
        const int64_t k = (id % groups * P::units + i / 4) * UNIT + i % 4 / 2 * 16 + lane % 4 * 4;
        float f[4];
        four<T> all;
        values<DT>(v, i / 4, i % 4, f);
        for (int b = 0; b < 4; b++)
            from_f32(f[b], &all.v[b]);
        if (o < out && k < in)
            *(four<T> *)(void *)(to + o * in + k) = all;
    }
}

/* A block for each id; of a group, the four lanes that have its row. */
template <int DT>
__global__ void embed_packed(const uint8_t *w, const int32_t *ids, int64_t in, int groups, float *x)
{
    typedef packing<DT> P;
    const int32_t id = ids[blockIdx.x];
    const int lane = id % 8 * 4 + (int)threadIdx.x % 4;
    struct group<DT> v = {
    };

    w += (int64_t)(id / PANEL) * groups * P::bytes;
    for (int at = (int)threadIdx.x / 4; at < groups; at += (int)blockDim.x / 4) {
        load<DT>(v, w + (int64_t)at * P::bytes, lane);
        PL_UNROLL
        for (int i = 0; i < 2 * P::units; i++) {
            const int64_t k = (at * P::units + i / 2) * UNIT + i % 2 * 16 + lane % 4 * 4;
            float f[2][4];
            values<DT>(v, i / 2, i % 2 * 2, f[0]);
            values<DT>(v, i / 2, i % 2 * 2 + 1, f[1]);
            for (int b = 0; b < 4 && k < in; b++)
                x[blockIdx.x * in + k + b] = id % PANEL < 8 ? f[0][b] : f[1][b];
        }
    }
}

extern "C" size_t pl_k_packed_row_bytes(enum pl_dtype dt, int64_t in)
{
    size_t bytes = 0;

    by_packing(dt, [&](auto t) {
        typedef packing<decltype(t)::value> P;
        if (in % form_of(decltype(t)::value).block == 0)
            bytes = (size_t)(padded(in) / (UNIT * P::units)) * (P::bytes / PANEL);
    });
    return bytes;
}

#define GROUPS_A_BLOCK 4 /* of the kernels that have a warp for each */

extern "C" void pl_k_pack(const struct pl_cuda_matrix *w, int64_t first, int64_t n,
                          const void *blocks, cudaStream_t s)
{
    by_packing(w->dtype, [&](auto t) {
        typedef packing<decltype(t)::value> P;
        const int groups = (int)(padded(w->in) / (UNIT * P::units));
        PL_LAUNCH(pack_panels<decltype(t)::value>,
                  ceil_div(ceil_div(n, PANEL) * (int64_t)groups, GROUPS_A_BLOCK),
                  GROUPS_A_BLOCK * WARP, 0, s, (const uint8_t *)blocks, n, w->in, groups,
                  (uint8_t *)w->data + (size_t)first * w->row_bytes);
    });
}

extern "C" void pl_k_packed_decode(const struct pl_cuda_matrix *w, enum pl_dtype to, void *out,
                                   cudaStream_t s)
{
    by_packing(w->dtype, [&](auto t) {
        by_dtype(to, [&](auto *p) {
            typedef packing<decltype(t)::value> P;
            const int groups = (int)(padded(w->in) / (UNIT * P::units));
            PL_LAUNCH(decode_packed<decltype(t)::value>,
                      ceil_div(ceil_div(w->out, PANEL) * (int64_t)groups, GROUPS_A_BLOCK),
                      GROUPS_A_BLOCK * WARP, 0, s, (const uint8_t *)w->data, w->out, w->in, groups,
                      (decltype(p))out);
        });
    });
}

extern "C" void pl_k_packed_embed(const struct pl_cuda_matrix *table, const int32_t *ids, int rows,
                                  float *x, cudaStream_t s)
{
    by_packing(table->dtype, [&](auto t) {
        typedef packing<decltype(t)::value> P;
        PL_LAUNCH(embed_packed<decltype(t)::value>, (unsigned)rows, 64, 0, s,
                  (const uint8_t *)table->data, ids, table->in,
                  (int)(padded(table->in) / (UNIT * P::units)), x);
    });
}
