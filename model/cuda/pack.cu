/* Blocks of a file to panels, and panels back to plain numbers. */
#include "model/cuda/packed.cuh"

/* Column c of a file's block: its low bits, and those above them. */
template <int DT> __device__ __forceinline__ int low_bits(const uint8_t *p, int c)
{
    const int odd = c % 64 / 32;

    switch (DT) {
    case PL_DT_Q4_0:
        return (p[2 + c % 16] >> c / 16 * 4 & 15) ^ 8;
    case PL_DT_Q8_0:
        return p[2 + c];
    case PL_DT_Q6_K:
        return p[c / 128 * 64 + odd * 32 + c % 32] >> c % 128 / 64 * 4 & 15;
    default:
        return p[(DT == PL_DT_Q5_K ? 48 : 16) + c / 64 * 32 + c % 32] >> odd * 4 & 15;
    }
}
template <int DT> __device__ __forceinline__ int high_bits(const uint8_t *p, int c)
{
    return DT == PL_DT_Q5_K ? p[16 + c % 32] >> c / 32 & 1
                            : (p[128 + c / 128 * 32 + c % 32] >> c % 128 / 32 * 2 & 3) ^ 2;
}

/* Rows g and g + 8 as the file has them (NULL: beyond the last). */
template <int DT> struct file_rows {
    static const int block = packing<DT>::k ? 256 : 32;
    static const int bytes = DT == PL_DT_Q4_0   ? 18
                             : DT == PL_DT_Q8_0 ? 34
                             : DT == PL_DT_Q4_K ? 144
                             : DT == PL_DT_Q5_K ? 176
                                                : 210;
    const uint8_t *row[2];
    int64_t at, in; /* first column of the group; columns */
};

/* Where the block of column c of a group stands; NULL: beyond the last. */
template <int DT>
__device__ __forceinline__ const uint8_t *block_at(const struct file_rows<DT> &f, int r, int c)
{
    typedef file_rows<DT> F;

    return f.row[r] && f.at + c < f.in ? f.row[r] + (f.at + c) / F::block * F::bytes : NULL;
}

/* Byte b of word i of unit u: low bits (high false), or those above them. */
template <int DT>
__device__ __forceinline__ uint32_t bits_of(const struct file_rows<DT> &f, int u, int i, int t,
                                            int b, bool high)
{
    const int c = u * UNIT + i / 2 * 16 + 4 * t + b;
    const uint8_t *p = block_at<DT>(f, i % 2, c);

    return !p     ? 0
           : high ? (uint32_t)high_bits<DT>(p, c % file_rows<DT>::block)
                  : (uint32_t)low_bits<DT>(p, c % file_rows<DT>::block);
}

template <int DT>
__device__ __forceinline__ void pack_scales(const struct file_rows<DT> &f, uint8_t *to, int g)
{
    typedef packing<DT> P;

    for (int r = 0; r < 2; r++)
        for (int u = 0; u < (P::k ? 1 : P::units); u++) {
            const uint8_t *p = block_at<DT>(f, r, u * UNIT);
            uint8_t *halves = to + (P::by_16 ? 256 + 4 * g : (g * P::units + u) * 4) + 2 * r;
            if (P::by_16 || !P::k)
                for (int i = 0; i < 2; i++)
                    halves[i] = p ? p[(P::by_16 ? 208 : 0) + i] : 0;
            if (P::k)
                for (int i = 0; i < 16; i++)
                    to[(g + 8 * r) * 16 + i] = !p         ? 0
                                               : P::by_16 ? (uint8_t)(p[192 + i] ^ 128)
                                                          : p[i];
        }
}

/* Rows [n, in] of the file's blocks → panels; a warp for each group. */
template <int DT>
__global__ void pack_panels(const uint8_t *from, int64_t n, int64_t in, int groups, uint8_t *to)
{
    typedef packing<DT> P;
    typedef file_rows<DT> F;
    const int64_t id = (int64_t)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    const int lane = (int)threadIdx.x % WARP, t = lane % 4;
    const int64_t panel = id / groups, first = panel * PANEL + lane / 4;
    F f = {{NULL, NULL}, id % groups * P::units * UNIT, in};

    if (panel * PANEL >= n)
        return;
    for (int r = 0; r < 2; r++)
        if (first + 8 * r < n)
            f.row[r] = from + (first + 8 * r) * (in / F::block * F::bytes);
    to += id * P::bytes;
    if (t == 0)
        pack_scales<DT>(f, to, lane / 4);
    uint8_t *lane_to = to + P::scales + 16 * lane;
    for (int i = 0; i < 16; i++) { /* byte i % 4 of word i / 4 */
        for (int j = 0; j < P::low; j++)
            lane_to[LOAD * j + i] =
                (uint8_t)(DT == PL_DT_Q8_0
                              ? bits_of<DT>(f, j, i / 4, t, i % 4, false)
                              : bits_of<DT>(f, 2 * j, i / 4, t, i % 4, false) |
                                    bits_of<DT>(f, 2 * j + 1, i / 4, t, i % 4, false) << 4);
        for (int j = 0; j < P::high; j++) {
            const int each = P::units / (P::high ? P::high : 1);
            uint32_t v = 0;
            for (int u = 0; u < each; u++)
                v |= bits_of<DT>(f, j * each + u, i / 4, t, i % 4, true) << u * P::high;
            lane_to[LOAD * (P::low + j) + i] = (uint8_t)v;
        }
    }
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
        if (in % file_rows<decltype(t)::value>::block == 0)
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
