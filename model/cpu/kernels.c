#include "model/cpu/vec.h"

#include <math.h>
#include <string.h>

#define DIRECT_ROWS                                                                                \
    12 /* up to here each weight is converted in registers, above once into scratch */

INLINE vf pick(vi mask, vf yes, vf no)
{
    return (vf)(((vi)yes & mask) | ((vi)no & ~mask));
}

/* WIDTH weights from element i on. */
INLINE vf load_weight(const void *w, size_t i, enum pl_dtype dt)
{
    if (dt == PL_DT_F32)
        return load((const float *)w + i);
#if defined(PL_ISA_AVX512)
    __m256i h = _mm256_loadu_si256((const __m256i *)((const uint16_t *)w + i));
    if (dt == PL_DT_F16)
        return (vf)_mm512_cvtph_ps(h);
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16);
#elif defined(PL_ISA_AVX2)
    __m128i h = _mm_loadu_si128((const __m128i *)((const uint16_t *)w + i));
    if (dt == PL_DT_F16)
        return (vf)_mm256_cvtph_ps(h);
    return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16);
#else
    vu u = __builtin_convertvector(*(const vh *)((const uint16_t *)w + i), vu);
    if (dt == PL_DT_BF16)
        return (vf)(u << 16);
    /* exponent and mantissa moved into place, then rebiased by an exact product (subnormals too) */
    vf v = (vf)((u & 0x7fff) << 13) * splat(0x1p112f);
    vi top = (u & 0x7c00) == 0x7c00;
    v = pick(top, (vf)((u & 0x7fff) << 13 | 0x7f800000), v);
    return (vf)((vu)v | (u & 0x8000) << 16);
#endif
}

/* mr rows × np panels, both constants where this is inlined. */
INLINE void tile(int mr, int np, enum pl_dtype dt, const float *x, size_t ldx, size_t k,
                 const void *w, size_t stride, float *y, size_t ldy, bool resume)
{
    const int nv = np * PER_PANEL;
    vf acc[MAX_ROWS][4 * PER_PANEL], b[4 * PER_PANEL];

#pragma GCC unroll 16
    for (int m = 0; m < mr; m++) {
#pragma GCC unroll 16
        for (int j = 0; j < nv; j++)
            acc[m][j] = resume ? load(y + (size_t)m * ldy + (size_t)j * WIDTH) : splat(0);
    }
    for (size_t i = 0; i < k; i++) {
#pragma GCC unroll 16
        for (int j = 0; j < nv; j++)
            b[j] = load_weight(w,
                               (size_t)(j / PER_PANEL) * stride + i * PL_PANEL +
                                   (size_t)(j % PER_PANEL) * WIDTH,
                               dt);
#pragma GCC unroll 16
        for (int m = 0; m < mr; m++) {
            vf a = splat(x[(size_t)m * ldx + i]);
#pragma GCC unroll 16
            for (int j = 0; j < nv; j++)
                acc[m][j] = fma_(a, b[j], acc[m][j]);
        }
    }
#pragma GCC unroll 16
    for (int m = 0; m < mr; m++) {
#pragma GCC unroll 16
        for (int j = 0; j < nv; j++)
            store(y + (size_t)m * ldy + (size_t)j * WIDTH, acc[m][j]);
    }
}

/* Up to MAX_ROWS rows on one panel. */
INLINE void rows_by_panel(size_t mr, enum pl_dtype dt, const float *x, size_t ldx, size_t k,
                          const void *w, float *y, size_t ldy, bool resume)
{
    switch (mr) {
#define X(n)                                                                                       \
    case n:                                                                                        \
        tile(n, 1, dt, x, ldx, k, w, 0, y, ldy, resume);                                           \
        break;
        ROW_CASES(X)
#undef X
    default:
        break;
    }
}

/* Bias, then the sum with add_to, on rows [row, row + rows) of panels [first, end). */
static void finish(const struct pl_gemm *g, size_t row, size_t rows, size_t first, size_t end)
{
    size_t o0 = first * PL_PANEL, o1 = end * PL_PANEL < g->n ? end * PL_PANEL : g->n;

    for (size_t r = row; g->bias && r < row + rows; r++)
        for (size_t o = o0; o < o1; o++)
            g->y[r * g->ldy + o] += g->bias[o];
    for (size_t r = row; g->add_to && r < row + rows; r++)
        for (size_t o = o0; o < o1; o++)
            g->add_to[r * g->ld_add + o] += g->y[r * g->ldy + o];
}

/* What the next panel will read: fetched a part with each tile, since hardware does not foresee
 * the step from panel to panel. */
struct ahead {
    const char *at;
    size_t bytes;
};

/* All rows on one panel of `valid` outputs; y points to the panel's first output. */
INLINE void panel_rows(enum pl_dtype dt, const float *x, size_t ldx, size_t rows, size_t k,
                       const void *w, size_t valid, float *y, size_t ldy, bool resume,
                       struct ahead next)
{
    const size_t each = rows ? pl_round_up(next.bytes * MAX_ROWS / rows + 1, 64) : 0;
    float part[MAX_ROWS * PL_PANEL];

    for (size_t r = 0, at = 0; r < rows; r += MAX_ROWS) {
        size_t mr = rows - r < MAX_ROWS ? rows - r : MAX_ROWS;
        for (size_t to = at + each; at < to && at < next.bytes; at += 64)
            __builtin_prefetch(next.at + at);
        for (size_t m = r + mr; resume && m < rows && m < r + 2 * MAX_ROWS; m++)
            __builtin_prefetch(y + m * ldy, 1);
        if (valid == PL_PANEL) {
            rows_by_panel(mr, dt, x + r * ldx, ldx, k, w, y + r * ldy, ldy, resume);
            continue;
        }
        memset(part, 0, sizeof(part));
        for (size_t m = 0; resume && m < mr; m++)
            memcpy(part + m * PL_PANEL, y + (r + m) * ldy, valid * sizeof(float));
        rows_by_panel(mr, dt, x + r * ldx, ldx, k, w, part, PL_PANEL, resume);
        for (size_t m = 0; m < mr; m++)
            memcpy(y + (r + m) * ldy, part + m * PL_PANEL, valid * sizeof(float));
    }
}

static const void *element(const void *w, size_t i, enum pl_dtype dt)
{
    return (const char *)w + i * (dt == PL_DT_F32 ? 4 : 2);
}

static size_t panel_width(const struct pl_gemm *g, size_t p)
{
    return g->n - p * PL_PANEL < PL_PANEL ? g->n - p * PL_PANEL : PL_PANEL;
}

/* Few rows: weights pass once, converted in registers. One row takes four panels at a time to hide
 * the latency of fma. */
INLINE void gemm_direct(const struct pl_gemm *g, enum pl_dtype dt)
{
    size_t p = g->first;

    while (g->rows == 1 && p + 4 <= g->end && (p + 4) * PL_PANEL <= g->n) {
        tile(1, MAX_ROWS > 3 ? 4 : 2, dt, g->x, g->ldx, g->k, element(g->w, p * g->stride, dt),
             g->stride, g->y + p * PL_PANEL, g->ldy, g->resume);
        p += MAX_ROWS > 3 ? 4 : 2;
    }
    for (; p < g->end; p++)
        panel_rows(dt, g->x, g->ldx, g->rows, g->k, element(g->w, p * g->stride, dt),
                   panel_width(g, p), g->y + p * PL_PANEL, g->ldy, g->resume, (struct ahead){0});
}

/* A block of x side by side in out: where its rows lie an even number of lines apart, a tile's
 * would meet in the same few places of L1. */
static void pack_rows(const float *x, size_t ldx, size_t rows, size_t n, float *out)
{
    for (size_t r = 0; r < rows; r++)
        memcpy(out + r * K_BLOCK, x + r * ldx, n * sizeof(*out));
}

/* Many rows: blocks of k so that a panel's block stays in L1, and of rows so that x's stays in L2;
 * partial chains wait in y, which is exact. */
INLINE void gemm_blocked(const struct pl_gemm *g, enum pl_dtype dt)
{
    const bool pack = g->ldx % (2 * PL_PANEL) == 0 && g->end - g->first >= 4; /* worth its copy */
    const size_t most = PL_GEMM_ROWS;
    const size_t block = K_BLOCK * PL_PANEL * (dt == PL_DT_F32 ? 4 : 2);

    for (size_t k0 = 0; k0 < g->k || k0 == 0; k0 += K_BLOCK) {
        size_t kn = g->k - k0 < K_BLOCK ? g->k - k0 : K_BLOCK;
        bool resume = g->resume || k0 > 0, last = k0 + kn == g->k;
        for (size_t r = 0; r < g->rows; r += most) {
            size_t rows = g->rows - r < most ? g->rows - r : most;
            const float *x = g->x + r * g->ldx + k0;
            if (pack) {
                pack_rows(x, g->ldx, rows, kn, g->scratch + K_BLOCK * PL_PANEL);
                x = g->scratch + K_BLOCK * PL_PANEL;
            }
            for (size_t p = g->first; p < g->end; p++) {
                const void *w = element(g->w, p * g->stride + k0 * PL_PANEL, dt);
                struct ahead next = {element(w, g->stride, dt), block * kn / K_BLOCK};
                if (p + 1 == g->end && last)
                    next.bytes = 0;
                else if (p + 1 == g->end)
                    next.at = element(g->w, g->first * g->stride + (k0 + kn) * PL_PANEL, dt);
                if (dt != PL_DT_F32) {
                    for (size_t i = 0; i < kn * PL_PANEL; i += WIDTH)
                        store(g->scratch + i, load_weight(w, i, dt));
                    w = g->scratch;
                }
                panel_rows(PL_DT_F32, x, pack ? K_BLOCK : g->ldx, rows, kn, w, panel_width(g, p),
                           g->y + r * g->ldy + p * PL_PANEL, g->ldy, resume, next);
                if (last)
                    finish(g, r, rows, p, p + 1);
            }
        }
    }
}

static void gemm(const struct pl_gemm *g)
{
    if (g->first >= g->end)
        return;
    if (g->q8) {
        PL_Q8_GEMM(g);
    } else if (pl_dtype_traits(g->dtype)->block > 1) {
        PL_QUANT_GEMM(g);
    } else if (g->rows <= DIRECT_ROWS) {
        if (g->dtype == PL_DT_F32)
            gemm_direct(g, PL_DT_F32);
        else if (g->dtype == PL_DT_F16)
            gemm_direct(g, PL_DT_F16);
        else
            gemm_direct(g, PL_DT_BF16);
    } else {
        if (g->dtype == PL_DT_F32)
            gemm_blocked(g, PL_DT_F32);
        else if (g->dtype == PL_DT_F16)
            gemm_blocked(g, PL_DT_F16);
        else
            gemm_blocked(g, PL_DT_BF16);
        return;
    }
    finish(g, 0, g->rows, g->first, g->end);
}

/* The 16 lanes of a row sum, folded 8, 4, 2, 1. */
static float fold(const float lane[16])
{
    float s[8];

    for (int i = 0; i < 8; i++)
        s[i] = lane[i] + lane[i + 8];
    for (int i = 0; i < 4; i++)
        s[i] += s[i + 4];
    s[0] += s[2];
    s[1] += s[3];
    return s[0] + s[1];
}

/* eˣ to about 1 ulp, by Cody and Waite's reduction and the polynomial of Cephes' expf; below −87.3:
 * 0. */
INLINE vf vexp(vf x)
{
    const vf lo = splat(-87.3365402f), hi = splat(88.7228394f), magic = splat(12582912.0f);
    vf c = pick(x < lo, lo, pick(x > hi, hi, x));
    vf t = fma_(c, splat(1.44269504088896341f), magic);
    vf n = t - magic;
    vf r = fma_(n, splat(-0.693359375f), c);
    r = fma_(n, splat(2.12194440e-4f), r);
    vf p = splat(1.9875691500e-4f);
    p = fma_(p, r, splat(1.3981999507e-3f));
    p = fma_(p, r, splat(8.3334519073e-3f));
    p = fma_(p, r, splat(4.1665795894e-2f));
    p = fma_(p, r, splat(1.6666665459e-1f));
    p = fma_(p, r, splat(5.0000001201e-1f));
    vf y = fma_(p, r * r, r) + splat(1);
    vi e = (vi)t - (vi)magic; /* n as an integer; 2ⁿ in two halves, since 2¹²⁸ is no float */
    vi half = e >> 1;
    y *= (vf)((half + 127) << 23);
    y *= (vf)((e - half + 127) << 23);
    y = pick(x < lo, splat(0), y);
    y = pick(x > hi, splat(INFINITY), y);
    return pick(x == x, y, x);
}

/* The largest of n scaled scores (n a multiple of 16) and `max`; scales them in place. A NaN is
 * passed over: its eˣ is NaN. */
static float scale_max(float *s, size_t n, float scale, float max)
{
    float lane[WIDTH];
    vf m = splat(max);

    for (size_t j = 0; j < n; j += WIDTH) {
        vf v = load(s + j) * splat(scale);
        store(s + j, v);
        m = pick(v > m, v, m);
    }
    store(lane, m);
    for (size_t j = 0; j < WIDTH; j++)
        max = lane[j] > max ? lane[j] : max;
    return max;
}

/* s = e^(s − max) for n scores (a multiple of 16); returns their sum. */
static float exp_sum(float *s, size_t n, float max)
{
    float lane[16] = {0};

    for (size_t j = 0; j < n; j += 16) {
#pragma GCC unroll 16
        for (size_t i = 0; i < 16; i += WIDTH) {
            vf p = vexp(load(s + j + i) - splat(max));
            store(s + j + i, p);
            store(lane + i, load(lane + i) + p);
        }
    }
    return fold(lane);
}

/* One chunk's scaled scores of one query → e^(s − running maximum); what came before shrinks by
 * *shrink. Keys before `hidden` and from `valid` on are not seen. */
static void softmax_step(float *s, size_t hidden, size_t valid, float scale, float *max, float *sum,
                         float *shrink)
{
    float m, corr[WIDTH];

    for (size_t j = 0; j < hidden; j++)
        s[j] = -INFINITY;
    for (size_t j = valid; j < PL_ATTN_CHUNK; j++)
        s[j] = -INFINITY;
    m = scale_max(s, PL_ATTN_CHUNK, scale, *max);
    store(corr, vexp(splat(*max - m)));
    *sum = *sum * corr[0] + exp_sum(s, PL_ATTN_CHUNK, m);
    *shrink = corr[0];
    *max = m;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* s = s · scale + bias + mask for a chunk whose first key is `first`. */
static void add_biases(const struct pl_attend *a, size_t i, size_t first, float *s)
{
    const float *bias = a->bias[i];

    for (size_t j = 0; j < PL_ATTN_CHUNK; j += WIDTH) {
        vf v = load(s + j) * splat(a->scale);
        if (bias)
            v = v + load(bias + first + j);
        if (a->mask)
            v = v + load(a->mask + first + j);
        store(s + j, v);
    }
}

/* One chunk of keys for the query vectors [from, to). */
static void attend_chunk(const struct pl_attend *a, size_t chunk, size_t from, size_t to,
                         const float *q, float *s, float *o, float *max, float *sum)
{
    size_t dp = pl_round_up(a->dim, PL_PANEL), first = chunk * PL_ATTN_CHUNK;
    bool tail = a->tail_k && first >= a->tail;
    size_t at = tail ? first - a->tail : a->ring ? first % a->ring : first;
    const void *v = tail ? a->tail_v : a->v;
    size_t keys = least(a->len[to - 1] - first, PL_ATTN_CHUNK);
    size_t shared = least(a->len[from] - first, PL_ATTN_CHUNK);
    struct pl_gemm g = {.x = q + from * dp,
                        .ldx = dp,
                        .rows = to - from,
                        .k = a->dim,
                        .w = element(tail ? a->tail_k : a->k, at * a->dim, a->dtype),
                        .dtype = a->dtype,
                        .stride = a->dim * PL_PANEL,
                        .end = (keys + PL_PANEL - 1) / PL_PANEL,
                        .n = PL_ATTN_CHUNK,
                        .y = s + from * PL_ATTN_CHUNK,
                        .ldy = PL_ATTN_CHUNK,
                        .scratch = a->scratch};
    gemm(&g);
    for (size_t i = from; i < to; i++) {
        float shrink;
        bool biased = a->bias[i] || a->mask;
        if (biased)
            add_biases(a, i, first, s + i * PL_ATTN_CHUNK);
        softmax_step(s + i * PL_ATTN_CHUNK, a->first[i] > first ? a->first[i] - first : 0,
                     least(a->len[i] - first, PL_ATTN_CHUNK), biased ? 1 : a->scale, &max[i],
                     &sum[i], &shrink);
        for (size_t d = 0; d < dp; d++)
            o[i * dp + d] *= shrink;
    }
    /* Keys that all of them see in one product; then, alone, each query's further ones. (Those
     * before a query's first have weight 0.) */
    g = (struct pl_gemm){.x = s + from * PL_ATTN_CHUNK,
                         .ldx = PL_ATTN_CHUNK,
                         .rows = to - from,
                         .k = shared,
                         .w = element(v, at * dp, a->dtype),
                         .dtype = a->dtype,
                         .stride = (size_t)PL_ATTN_CHUNK * PL_PANEL,
                         .end = dp / PL_PANEL,
                         .n = dp,
                         .y = o + from * dp,
                         .ldy = dp,
                         .resume = true,
                         .scratch = a->scratch};
    gemm(&g);
    for (size_t i = from; i < to; i++) {
        size_t own = least(a->len[i] - first, PL_ATTN_CHUNK);
        if (own == shared)
            continue;
        g.x = s + i * PL_ATTN_CHUNK + shared;
        g.rows = 1;
        g.k = own - shared;
        g.w = element(v, at * dp + shared * PL_PANEL, a->dtype);
        g.y = o + i * dp;
        gemm(&g);
    }
}

/* A chunk is left out for a query that sees none of its keys, so that the bits do not depend on
 * which queries share a call. */
static void attend(const struct pl_attend *a)
{
    size_t dp = pl_round_up(a->dim, PL_PANEL), from = 0, to = 0;
    float *s = a->scratch + PL_GEMM_SCRATCH, *q = s + PL_ATTN_BLOCK * PL_ATTN_CHUNK;
    float *o = q + PL_ATTN_BLOCK * dp;
    float max[PL_ATTN_BLOCK], sum[PL_ATTN_BLOCK];

    for (size_t i = 0; i < a->n; i++) {
        memcpy(q + i * dp, a->q[i], a->dim * sizeof(float));
        max[i] = -INFINITY;
        sum[i] = 0;
    }
    memset(o, 0, a->n * dp * sizeof(float));
    for (size_t c = a->first[0] / PL_ATTN_CHUNK; c * PL_ATTN_CHUNK < a->len[a->n - 1]; c++) {
        while (a->len[from] <= c * PL_ATTN_CHUNK)
            from++;
        while (to < a->n && a->first[to] < (c + 1) * PL_ATTN_CHUNK)
            to++;
        if (from < to)
            attend_chunk(a, c, from, to, q, s, o, max, sum);
    }
    for (size_t i = 0; i < a->n; i++)
        for (size_t d = 0; d < a->dim; d++)
            a->out[i][d] = o[i * dp + d] / sum[i];
}

static void attention_weights(float *p, const float *q, size_t dim, const void *k,
                              enum pl_dtype dtype, size_t first, size_t len, float scale,
                              float *scratch)
{
    size_t padded = pl_round_up(len, PL_ATTN_CHUNK);
    float max, total;
    struct pl_gemm g = {.x = q,
                        .ldx = dim,
                        .rows = 1,
                        .k = dim,
                        .w = k,
                        .dtype = dtype,
                        .stride = dim * PL_PANEL,
                        .end = (len + PL_PANEL - 1) / PL_PANEL,
                        .n = padded,
                        .y = p,
                        .ldy = padded,
                        .scratch = scratch};

    gemm(&g);
    for (size_t j = 0; j < first; j++)
        p[j] = -INFINITY;
    for (size_t j = len; j < padded; j++)
        p[j] = -INFINITY;
    max = scale_max(p, padded, scale, -INFINITY);
    total = exp_sum(p, padded, max);
    for (size_t j = 0; j < len; j++)
        p[j] /= total;
}

/* Σ x, or Σ (x − mean)² */
INLINE float row_sum(const float *x, size_t n, float mean, bool square)
{
    float lane[16] = {0};
    size_t i = 0;

    for (; i + 16 <= n; i += 16) {
        for (size_t j = 0; j < 16; j++) {
            float d = x[i + j] - mean;
            lane[j] += square ? d * d : d;
        }
    }
    for (size_t j = 0; i + j < n; j++) {
        float d = x[i + j] - mean;
        lane[j] += square ? d * d : d;
    }
    return fold(lane);
}

static void norm(enum pl_norm_kind kind, float eps, float *y, const float *x, const float *gain,
                 const float *bias, size_t n)
{
    float mean = 0, scale;

    if (kind == PL_NORM_LAYER)
        mean = row_sum(x, n, 0, false) / (float)n;
    scale = 1.0f / sqrtf(row_sum(x, n, mean, true) / (float)n + eps);
    for (size_t i = 0; i < n; i++) {
        float v = (x[i] - mean) * scale * gain[i];
        y[i] = bias ? v + bias[i] : v;
    }
}

/* erf to about 1 ulp: a polynomial around 0, beyond it 1 − e^(a polynomial). */
INLINE vf verf(vf x)
{
    vf s = x * x, t = pick(x < splat(0), -x, x);
    vf near = splat(-5.96761703e-4f);
    near = fma_(near, s, splat(4.99119423e-3f));
    near = fma_(near, s, splat(-2.67681349e-2f));
    near = fma_(near, s, splat(1.12819925e-1f));
    near = fma_(near, s, splat(-3.76125336e-1f));
    near = fma_(near, s, splat(1.28379166e-1f));
    near = fma_(near, x, x);
    vf c = pick(t > splat(4), splat(4), t); /* 1 from there on */
    vf c2 = c * c;
    vf far = fma_(splat(-1.72853470e-5f), c, splat(3.83197126e-4f));
    far = fma_(far, c2, fma_(splat(-3.88396438e-3f), c, splat(2.42546219e-2f)));
    far = fma_(far, c, splat(-1.06777877e-1f));
    far = fma_(far, c, splat(-6.34846687e-1f));
    far = fma_(far, c, splat(-1.28717512e-1f));
    far = fma_(far, c, -c);
    far = splat(1) - vexp(far);
    far = pick(x < splat(0), -far, far);
    return pick(t > splat(0.927734375f), far, pick(x == x, near, x));
}

INLINE vf act_vector(enum pl_act_kind kind, vf x)
{
    vf u;

    switch (kind) {
    case PL_ACT_SILU:
        return x / (splat(1) + vexp(-x));
    case PL_ACT_QUICK_GELU:
        return x / (splat(1) + vexp(x * splat(-1.702f)));
    case PL_ACT_GELU:
        return splat(0.5f) * x * (splat(1) + verf(x * splat(0.70710678118654752f)));
    case PL_ACT_GELU_TANH: /* (1 + tanh u) / 2 = 1 / (1 + e^−2u) */
        u = splat(0.79788456080286536f) * (x + splat(0.044715f) * x * x * x);
        return x / (splat(1) + vexp(splat(-2) * u));
    case PL_ACT_RELU:
        return pick(x < splat(0), splat(0), x);
    }
    return x;
}

/* The tail goes through the same vector code. */
INLINE void act_loop(enum pl_act_kind kind, float *y, const float *x, const float *up, size_t n)
{
    size_t i = 0;

    for (; i + WIDTH <= n; i += WIDTH) {
        vf v = act_vector(kind, load(x + i));
        if (up)
            v = v * load(up + i);
        store(y + i, v);
    }
    if (i < n) {
        float in[WIDTH] = {0};
        memcpy(in, x + i, (n - i) * sizeof(float));
        store(in, act_vector(kind, load(in)));
        for (size_t j = 0; i + j < n; j++)
            y[i + j] = up ? in[j] * up[i + j] : in[j];
    }
}

static void act(enum pl_act_kind kind, float *y, const float *x, const float *up, size_t n)
{
    switch (kind) {
#define X(sym)                                                                                     \
    case sym:                                                                                      \
        act_loop(sym, y, x, up, n);                                                                \
        break;
        X(PL_ACT_SILU)
        X(PL_ACT_QUICK_GELU)
        X(PL_ACT_GELU)
        X(PL_ACT_GELU_TANH)
        X(PL_ACT_RELU)
#undef X
    }
}

const struct pl_kernels PL_KERNELS = {
    .name = PL_KERNELS_NAME,
    .gemm = gemm,
    .quantize = PL_Q8_QUANTIZE,
    .attend = attend,
    .weights = attention_weights,
    .norm = norm,
    .act = act,
};
