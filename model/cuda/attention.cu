/*
 * Softmax attention with running maxima, for any head width, ring, window, bias and mask. A block
 * takes PL_CUDA_VECTORS query vectors that share a KV head (row by row, within a row head by head,
 * so that grouped queries read K and V once), and walks the keys in tiles of 32: lanes lie over
 * keys for the scores, over elements for the values. Where there are few vectors, a sequence's keys
 * are split among blocks, the last of which merges the parts.
 */
#include "model/cuda/attend.cuh"

#include <type_traits>

#define WARPS 4
#define EACH (PL_CUDA_VECTORS / WARPS)  /* vectors of a warp */
#define WIDTH (PL_CUDA_MAX_HEAD / WARP) /* elements of a lane, at most */

struct vectors {
    int row[EACH], head[EACH], first[EACH], end[EACH]; /* of this warp; end 0: none */
};

template <typename T>
__device__ void load_tile(const struct pl_cuda_kv *kv, const struct pl_cuda_attend &a, int kv_head,
                          int key0, int keys, float *k, float *v)
{
    int64_t head = (int64_t)kv_head * kv->cap;

    for (int i = (int)threadIdx.x; i < PL_CUDA_KEYS * a.dim; i += (int)blockDim.x) {
        int j = i / a.dim, d = i % a.dim;
        int64_t from = (head + (key0 + j) % kv->cap) * a.dim + d;
        k[j * (a.dim + 1) + d] = j < keys ? to_f32(((const T *)kv->k)[from]) : 0;
        if (v)
            v[i] = j < keys ? to_f32(((const T *)kv->v)[from]) : 0;
    }
}

template <typename T>
__global__ void __launch_bounds__(WARPS *WARP)
    attend(const struct pl_cuda_step st, const struct pl_cuda_attend a, int blocks_a_span)
{
    PL_DYNAMIC_SHARED(float, room);
    float *q = room, *k = q + PL_CUDA_VECTORS * a.dim, *v = k + PL_CUDA_KEYS * (a.dim + 1);
    const int span = (int)blockIdx.x / blocks_a_span, kv_head = (int)blockIdx.y;
    const int group = a.heads / a.kv_heads, split = (int)blockIdx.z;
    const int row0 = st.span_row[span], rows = st.span_row[span + 1] - row0;
    const int v0 = (int)blockIdx.x % blocks_a_span * PL_CUDA_VECTORS, n_vectors = rows * group;
    const struct pl_cuda_kv *kv = &st.kv[a.layer * st.n_spans + span];
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    float m[EACH], l[EACH], o[EACH][WIDTH] = {}, s[EACH];
    struct vectors my;
    int begin, end;

    if (v0 >= n_vectors)
        return;
    const int last = min(v0 + PL_CUDA_VECTORS, n_vectors) - 1;
    if (row0 + last / group < a.first_row || row0 + v0 / group >= a.first_row + a.n_rows)
        return;
    for (int i = 0; i < EACH; i++) {
        int at = v0 + warp * EACH + i, row = row0 + at / group;
        bool there = at <= last && row >= a.first_row && row < a.first_row + a.n_rows;
        my.row[i] = min(at, last) / group;
        my.head[i] = kv_head * group + min(at, last) % group;
        seen_of(st, kv, a.causal, my.row[i], &my.first[i], &my.end[i]);
        my.end[i] = there ? my.end[i] : 0;
        m[i] = -INFINITY;
        l[i] = 0;
    }
    seen_by(st, kv, a.causal, v0 / group, last / group, &begin, &end);
    part_of(a, split, PL_CUDA_KEYS, &begin, &end);
    for (int i = (int)threadIdx.x; i < PL_CUDA_VECTORS * a.dim; i += (int)blockDim.x) {
        int at = min(v0 + i / a.dim, last);
        q[i] = a.q[((int64_t)(row0 + at / group) * a.heads + kv_head * group + at % group) * a.dim +
                   i % a.dim];
    }
    for (int key0 = begin; key0 < end; key0 += PL_CUDA_KEYS) {
        __syncthreads();
        load_tile<T>(kv, a, kv_head, key0, min(PL_CUDA_KEYS, end - key0), k, v);
        __syncthreads();
        for (int i = 0; i < EACH; i++)
            s[i] = 0;
        for (int d = 0; d < a.dim; d++) {
            float kd = k[lane * (a.dim + 1) + d];
            for (int i = 0; i < EACH; i++)
                s[i] = fmaf(q[(warp * EACH + i) * a.dim + d], kd, s[i]);
        }
        for (int i = 0; i < EACH; i++) {
            s[i] = scored(st, kv, a, s[i] * a.scale, 1, key0 + lane, my.row[i], my.head[i],
                          my.first[i], my.end[i]);
            float top = fmaxf(m[i], warp_max(s[i]));
            if (top == -INFINITY) { /* the same for all lanes */
                s[i] = 0;
                continue;
            }
            float shrink = expf(m[i] - top);
            s[i] = expf(s[i] - top);
            l[i] = l[i] * shrink + warp_sum(s[i]);
            m[i] = top;
            for (int j = 0; j < WIDTH; j++)
                o[i][j] *= shrink;
        }
        for (int key = 0; key < PL_CUDA_KEYS; key++) {
            float p[EACH];
            for (int i = 0; i < EACH; i++)
                p[i] = __shfl_sync(FULL, s[i], key);
            for (int j = 0; j < WIDTH && lane + j * WARP < a.dim; j++) {
                float vd = v[key * a.dim + lane + j * WARP];
                for (int i = 0; i < EACH; i++)
                    o[i][j] = fmaf(p[i], vd, o[i][j]);
            }
        }
    }
    for (int i = 0; i < EACH; i++) {
        if (!my.end[i])
            continue;
        int64_t at = (int64_t)(row0 + my.row[i]) * a.heads + my.head[i];
        if (parted(a)) {
            float *to = a.partial +
                        ((at - (int64_t)a.first_row * a.heads) * a.splits + split) * (a.dim + 2);
            for (int j = 0; j < WIDTH && lane + j * WARP < a.dim; j++)
                to[2 + lane + j * WARP] = o[i][j];
            if (!lane) {
                to[0] = m[i];
                to[1] = l[i];
            }
            continue;
        }
        float by = l[i] > 0 ? 1.0f / l[i] : 0;
        for (int j = 0; j < WIDTH && lane + j * WARP < a.dim; j++)
            attend_out(a, at * a.dim + lane + j * WARP, o[i][j] * by);
        if (a.lse && !lane)
            a.lse[at] = m[i] + logf(l[i]);
    }
    if (parted(a))
        merge_parts<WARPS>(a, row0, kv_head, v0, last);
}

static size_t attend_shared(int dim)
{
    return (size_t)(PL_CUDA_VECTORS * dim + PL_CUDA_KEYS * (dim + 1) + PL_CUDA_KEYS * dim) *
           sizeof(float);
}

extern "C" int pl_k_attend_vectors(const struct pl_cuda_attend *a, bool tree)
{
    const int few = pl_k_attend_few_does(a, tree);

    return few ? few : !tree && pl_k_attend_mma_does(a) ? PL_CUDA_MMA_VECTORS : PL_CUDA_VECTORS;
}

extern "C" void pl_k_attend(const struct pl_cuda_step *st, const struct pl_cuda_attend *a,
                            cudaStream_t s)
{
    int blocks = (int)ceil_div((int64_t)a->max_span * (a->heads / a->kv_heads), PL_CUDA_VECTORS);
    dim3 grid((unsigned)(blocks * st->n_spans), (unsigned)a->kv_heads, (unsigned)a->splits);
    size_t shared = attend_shared(a->dim);

    if (pl_k_attend_few_does(a, st->tree != NULL))
        pl_k_attend_few(st, a, s);
    else if (!st->tree && pl_k_attend_mma_does(a))
        pl_k_attend_mma(st, a, s);
    else
        by_dtype(a->kv_dtype, [&](auto *t) {
            typedef typename std::remove_pointer<decltype(t)>::type T;
            if (shared > PL_PLAIN_SHARED)
                PL_BIG_SHARED(attend<T>, shared);
            PL_LAUNCH(attend<T>, grid, WARPS * WARP, shared, s, *st, *a, blocks);
        });
}

#define SUM_WARPS 8

/* A block takes 32 keys of one head and all rows: a warp every eighth row, added up in order. */
template <typename T>
__global__ void attend_sums(const struct pl_cuda_step st, const struct pl_cuda_attend a, int skip,
                            float *sums, int64_t ld)
{
    PL_DYNAMIC_SHARED(float, k);
    __shared__ float part[SUM_WARPS][WARP];
    const int head = (int)blockIdx.y, kv_head = head / (a.heads / a.kv_heads);
    const struct pl_cuda_kv *kv = &st.kv[a.layer * st.n_spans];
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const int key0 = (int)blockIdx.x * PL_CUDA_KEYS, all = kv->len + st.rows;
    float sum = 0;

    if (key0 >= all)
        return;
    load_tile<T>(kv, a, kv_head, key0, min(PL_CUDA_KEYS, all - key0), k, NULL);
    __syncthreads();
    for (int r = skip + warp; r < st.rows; r += SUM_WARPS) {
        const float *q = a.q + ((int64_t)r * a.heads + head) * a.dim;
        int first, end;
        float dot = 0;
        seen(kv, true, r, &first, &end);
        for (int d = 0; d < a.dim; d++)
            dot = fmaf(q[d], k[lane * (a.dim + 1) + d], dot);
        float x = scored(st, kv, a, dot * a.scale, 1, key0 + lane, r, head, first, end);
        sum += x == -INFINITY ? 0 : expf(x - a.lse[(int64_t)r * a.heads + head]);
    }
    part[warp][lane] = sum;
    __syncthreads();
    if (warp || key0 + lane >= all)
        return;
    for (int w = 1; w < SUM_WARPS; w++)
        sum += part[w][lane];
    sums[head * ld + key0 + lane] += sum;
}

extern "C" void pl_k_attend_sums(const struct pl_cuda_step *st, const struct pl_cuda_attend *a,
                                 int skip, int max_len, float *sums, int64_t ld, cudaStream_t s)
{
    dim3 grid(ceil_div(max_len, PL_CUDA_KEYS), (unsigned)a->heads);
    size_t shared = (size_t)(PL_CUDA_KEYS * (a->dim + 1)) * sizeof(float);

    by_dtype(a->kv_dtype, [&](auto *t) {
        typedef typename std::remove_pointer<decltype(t)>::type T;
        PL_LAUNCH(attend_sums<T>, grid, SUM_WARPS * WARP, shared, s, *st, *a, skip, sums, ld);
    });
}

/* A warp takes one head of one row, in two passes over the keys. */
__global__ void attend_small(float *y, const float *q, const float *k, const float *v, int n, int m,
                             int heads, int dim, bool causal)
{
    int64_t unit = (int64_t)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    int lane = (int)threadIdx.x % WARP, row = (int)(unit / heads), head = (int)(unit % heads);
    int len = causal ? m - n + row + 1 : m, cols = heads * dim;
    float scale = 1.0f / sqrtf((float)dim), top = -INFINITY, sum = 0;

    if (row >= n)
        return;
    q += (int64_t)row * cols + head * dim;
    y += (int64_t)row * cols + head * dim;
    for (int j = lane; j < len; j += WARP) {
        float dot = 0;
        for (int d = 0; d < dim; d++)
            dot = fmaf(q[d], k[(int64_t)j * cols + head * dim + d], dot);
        top = fmaxf(top, dot * scale);
    }
    top = warp_max(top);
    for (int d = lane; d < dim; d += WARP)
        y[d] = 0;
    for (int j0 = 0; j0 < len; j0 += WARP) {
        float dot = 0, p = 0;
        if (j0 + lane < len) {
            for (int d = 0; d < dim; d++)
                dot = fmaf(q[d], k[(int64_t)(j0 + lane) * cols + head * dim + d], dot);
            p = expf(dot * scale - top);
        }
        sum += warp_sum(p);
        for (int j = 0; j < WARP && j0 + j < len; j++) {
            float pj = __shfl_sync(FULL, p, j);
            for (int d = lane; d < dim; d += WARP)
                y[d] += pj * v[(int64_t)(j0 + j) * cols + head * dim + d];
        }
    }
    for (int d = lane; d < dim; d += WARP)
        y[d] /= sum;
}

extern "C" void pl_k_attend_small(float *y, const float *q, const float *k, const float *v, int n,
                                  int m, int heads, int dim, bool causal, cudaStream_t s)
{
    PL_LAUNCH(attend_small, ceil_div((int64_t)n * heads, 4), 4 * WARP, 0, s, y, q, k, v, n, m,
              heads, dim, causal);
}
