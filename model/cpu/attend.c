/*
 * Softmax attention, once for each instruction set. A chunk of keys at a time passes a block of
 * query vectors: their scores as tiles of a product, the softmax that is merged into what came
 * before, and the values, again as tiles. What a query gets is made of chains of its own keys in
 * rising order, so that its bits do not depend on the others of the block.
 */
#include "model/cpu/tile.h"

#include <string.h>

/* Query vectors from which on a chunk of keys or values in 16 bits is turned into floats once. */
#define CONVERT_ROWS 12

INLINE vf larger(vf a, vf b)
{
#if defined(PL_ISA_AVX512)
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(PL_ISA_AVX2)
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return pick(a > b, a, b);
#endif
}

/* eˣ for x ≤ 0 as vexp has it, in half its instructions. A NaN stays one. */
INLINE vf vexp_down(vf x)
{
    const vf lo = splat(EXP_LOWEST);
    vf t, y = exp_reduced(larger(x, lo), &t);

    y = (vf)((vi)y + ((vi)t << 23)); /* n stands in t's lowest bits; 2ⁿ is no subnormal */
    y = (vf)((vi)y & (x >= lo));
    return pick(x == x, y, x);
}

/* The largest of a vector and `max`. */
INLINE float largest(vf v, float max)
{
    float lane[WIDTH];

    store(lane, v);
#pragma GCC unroll 16
    for (size_t n = WIDTH / 2; n > 0; n /= 2)
#pragma GCC unroll 16
        for (size_t j = 0; j < n; j++)
            lane[j] = lane[j + n] > lane[j] ? lane[j + n] : lane[j];
    return lane[0] > max ? lane[0] : max;
}

/* The largest of n scores (a multiple of 16). A NaN is passed over: its eˣ is NaN. */
INLINE float max_of(const float *s, size_t n)
{
    vf m[PER_PANEL];

#pragma GCC unroll 16
    for (size_t i = 0; i < PER_PANEL; i++)
        m[i] = splat(-INFINITY);
    for (size_t j = 0; j < n; j += PL_PANEL)
#pragma GCC unroll 16
        for (size_t i = 0; i < PER_PANEL; i++)
            m[i] = larger(load(s + j + i * WIDTH), m[i]);
#pragma GCC unroll 16
    for (size_t i = 1; i < PER_PANEL; i++)
        m[0] = larger(m[i], m[0]);
    return largest(m[0], -INFINITY);
}

/* s = e^(s · scale − max) for n scores (a multiple of 16); returns their sum. */
INLINE float exp_sum(float *s, size_t n, float scale, float max)
{
    vf sums[PER_PANEL] = {{0}};
    float lane[PL_PANEL];

    for (size_t j = 0; j < n; j += PL_PANEL) {
#pragma GCC unroll 16
        for (size_t i = 0; i < PER_PANEL; i++) {
            vf p = vexp_down(fma_(load(s + j + i * WIDTH), splat(scale), splat(-max)));
            store(s + j + i * WIDTH, p);
            sums[i] += p;
        }
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < PER_PANEL; i++)
        store(lane + i * WIDTH, sums[i]);
    return fold(lane);
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* A call: its query vectors side by side, and what they have come to. */
struct state {
    const struct pl_attend *a;
    size_t dp;        /* dim, rounded up to panels */
    size_t pitch;     /* floats from a query vector to the next */
    float *q, *s, *o; /* [n, pitch], [n, CHUNK], [n, dp] */
    float max[PL_ATTN_BLOCK], sum[PL_ATTN_BLOCK];
};

/* What one chunk's scores mean for a query: the new maximum, and by which power of e what came
 * before shrinks. Keys before `hidden` and from `valid` on are not seen. */
INLINE float new_max(struct state *t, size_t i, size_t hidden, size_t valid, float scale)
{
    float m, by, *s = t->s + i * PL_ATTN_CHUNK;

    for (size_t j = 0; j < hidden; j++)
        s[j] = -INFINITY;
    for (size_t j = valid; j < PL_ATTN_CHUNK; j++)
        s[j] = -INFINITY;
    m = max_of(s, PL_ATTN_CHUNK) * scale;
    m = m > t->max[i] ? m : t->max[i];
    by = t->max[i] - m;
    t->max[i] = m;
    return by;
}

/* A chunk's scores of one query → e^(s · scale − its maximum); what came before shrinks. */
INLINE void softmax_step(struct state *t, size_t i, float scale, float shrink)
{
    float *o = t->o + i * t->dp;

    t->sum[i] =
        t->sum[i] * shrink + exp_sum(t->s + i * PL_ATTN_CHUNK, PL_ATTN_CHUNK, scale, t->max[i]);
    for (size_t d = 0; shrink != 1 && d < t->dp; d += WIDTH)
        store(o + d, load(o + d) * splat(shrink));
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

/* Some rows on panels [0, panels) that are `stride` elements apart; one row takes four at a time,
 * to hide the latency of fma. */
INLINE void rows_by_panels(size_t mr, enum pl_dtype dt, const float *x, size_t ldx, size_t k,
                           const void *w, size_t stride, size_t panels, float *y, size_t ldy,
                           bool resume)
{
    size_t p = 0;

    for (; mr == 1 && MAX_ROWS > 3 && p + 4 <= panels; p += 4)
        tile(1, 4, dt, x, ldx, k, element(w, p * stride, dt), stride, y + p * PL_PANEL, ldy, resume,
             (struct behind){0});
    for (; p < panels; p++)
        rows_by_panel(mr, dt, x, ldx, k, element(w, p * stride, dt), y + p * PL_PANEL, ldy, resume,
                      (struct behind){0});
}

/* Scores of the query vectors [from, to) on a chunk of keys, as far as each tile sees them; pitch
 * is t's, a constant where it can be one: a tile then needs no registers for where its rows are. */
INLINE void scores_at(const struct state *t, enum pl_dtype dt, size_t pitch, const void *k,
                      size_t first, size_t from, size_t to)
{
    size_t dim = t->a->dim, mr;

    for (size_t p = 0; p < PL_ATTN_CHUNK / PL_PANEL; p++) {
        for (size_t i = from; i < to; i += mr) {
            mr = least(to - i, MAX_ROWS);
            if (t->a->len[i + mr - 1] > first + p * PL_PANEL)
                rows_by_panel(mr, dt, t->q + i * pitch, pitch, dim,
                              element(k, p * dim * PL_PANEL, dt),
                              t->s + i * PL_ATTN_CHUNK + p * PL_PANEL, PL_ATTN_CHUNK, false,
                              (struct behind){0});
        }
    }
}

INLINE void scores(const struct state *t, enum pl_dtype dt, const void *k, size_t first,
                   size_t from, size_t to)
{
    if (t->pitch == PL_ATTN_PITCH)
        scores_at(t, dt, PL_ATTN_PITCH, k, first, from, to);
    else
        scores_at(t, dt, t->pitch, k, first, from, to);
}

/* The same for one query vector. */
INLINE void scores_of_one(const struct state *t, enum pl_dtype dt, const void *k, size_t first,
                          size_t i)
{
    size_t keys = least(t->a->len[i] - first, PL_ATTN_CHUNK), dim = t->a->dim;

    rows_by_panels(1, dt, t->q + i * t->pitch, t->pitch, dim, k, dim * PL_PANEL,
                   (keys + PL_PANEL - 1) / PL_PANEL, t->s + i * PL_ATTN_CHUNK, PL_ATTN_CHUNK,
                   false);
}

/* o += e^s · values: a tile's rows together over the keys that all of them see, then each over its
 * further ones. (Those before a query's first have weight 0.) */
INLINE void values(const struct state *t, enum pl_dtype dt, const void *v, size_t first,
                   size_t from, size_t to)
{
    const size_t stride = (size_t)PL_ATTN_CHUNK * PL_PANEL, panels = t->dp / PL_PANEL;

    for (size_t i = from, mr; i < to; i += mr) {
        mr = least(to - i, MAX_ROWS);
        size_t shared = least(t->a->len[i] - first, PL_ATTN_CHUNK);
        const float *s = t->s + i * PL_ATTN_CHUNK;
        rows_by_panels(mr, dt, s, PL_ATTN_CHUNK, shared, v, stride, panels, t->o + i * t->dp, t->dp,
                       true);
        for (size_t m = 1; m < mr; m++) {
            size_t own = least(t->a->len[i + m] - first, PL_ATTN_CHUNK);
            if (own > shared)
                rows_by_panels(1, dt, s + m * PL_ATTN_CHUNK + shared, PL_ATTN_CHUNK, own - shared,
                               element(v, shared * PL_PANEL, dt), stride, panels,
                               t->o + (i + m) * t->dp, t->dp, true);
        }
    }
}

/* n elements as floats, in the call's scratch; n a multiple of 16 */
INLINE const void *converted(const struct state *t, enum pl_dtype dt, const void *w, size_t n)
{
    for (size_t i = 0; i < n; i += WIDTH)
        store(t->a->scratch + i, load_weight(w, i, dt));
    return t->a->scratch;
}

INLINE bool biased(const struct pl_attend *a, size_t i)
{
    return a->bias[i] || a->mask;
}

/* What a vector's scores are still to be multiplied by: add_biases has done so where it was called.
 */
INLINE float scale_left(const struct pl_attend *a, size_t i)
{
    return biased(a, i) ? 1 : a->scale;
}

/* A chunk's scores of the query vectors [from, to) → weights: pass by pass, since within a query
 * each step waits for the one before. */
static void softmax_chunk(struct state *t, size_t first, size_t from, size_t to)
{
    const struct pl_attend *a = t->a;
    float shrink[PL_ATTN_BLOCK + WIDTH];

    for (size_t i = from; i < to; i++) {
        if (biased(a, i))
            add_biases(a, i, first, t->s + i * PL_ATTN_CHUNK);
        shrink[i - from] = new_max(t, i, a->first[i] > first ? a->first[i] - first : 0,
                                   least(a->len[i] - first, PL_ATTN_CHUNK), scale_left(a, i));
    }
    store(shrink + (to - from), splat(0));
    for (size_t i = 0; i < to - from; i += WIDTH)
        store(shrink + i, vexp_down(load(shrink + i)));
    for (size_t i = from; i < to; i++)
        softmax_step(t, i, scale_left(a, i), shrink[i - from]);
}

/* A chunk of keys for the query vectors [from, to). */
INLINE void chunk_of(struct state *t, enum pl_dtype dt, size_t first, size_t from, size_t to)
{
    const struct pl_attend *a = t->a;
    bool tail = a->tail_k && first >= a->tail;
    size_t at = tail ? first - a->tail : a->ring ? first % a->ring : first;
    const void *k = element(tail ? a->tail_k : a->k, at * a->dim, dt);
    const void *v = element(tail ? a->tail_v : a->v, at * t->dp, dt);
    bool convert =
        dt != PL_DT_F32 && to - from > CONVERT_ROWS && PL_ATTN_CHUNK * t->dp <= PL_GEMM_SCRATCH;

    if (to - from == 1)
        scores_of_one(t, dt, k, first, from);
    else if (convert)
        scores(t, PL_DT_F32, converted(t, dt, k, PL_ATTN_CHUNK * a->dim), first, from, to);
    else
        scores(t, dt, k, first, from, to);
    softmax_chunk(t, first, from, to);
    if (convert)
        values(t, PL_DT_F32, converted(t, dt, v, PL_ATTN_CHUNK * t->dp), first, from, to);
    else
        values(t, dt, v, first, from, to);
}

/* A chunk is left out for a query that sees none of its keys, so that the bits do not depend on
 * which queries share a call. */
void PL_ATTEND(const struct pl_attend *a)
{
    size_t from = 0, to = 0;
    struct state t = {
        .a = a, .dp = pl_round_up(a->dim, PL_PANEL), .pitch = pl_attend_pitch(a->dim)};

    t.s = a->scratch + PL_GEMM_SCRATCH;
    t.q = t.s + PL_ATTN_BLOCK * PL_ATTN_CHUNK;
    t.o = t.q + PL_ATTN_BLOCK * t.pitch;
    for (size_t i = 0; i < a->n; i++) {
        memcpy(t.q + i * t.pitch, a->q[i], a->dim * sizeof(float));
        t.max[i] = -INFINITY;
    }
    memset(t.o, 0, a->n * t.dp * sizeof(float));
    for (size_t first = a->first[0] / PL_ATTN_CHUNK * PL_ATTN_CHUNK; first < a->len[a->n - 1];
         first += PL_ATTN_CHUNK) {
        while (a->len[from] <= first)
            from++;
        while (to < a->n && a->first[to] < first + PL_ATTN_CHUNK)
            to++;
        if (from >= to)
            continue;
        if (a->dtype == PL_DT_F32)
            chunk_of(&t, PL_DT_F32, first, from, to);
        else if (a->dtype == PL_DT_F16)
            chunk_of(&t, PL_DT_F16, first, from, to);
        else
            chunk_of(&t, PL_DT_BF16, first, from, to);
    }
    for (size_t i = 0; i < a->n; i++)
        for (size_t d = 0; d < a->dim; d++)
            a->out[i][d] = t.o[i * t.dp + d] / t.sum[i];
}

void PL_WEIGHTS(float *p, const float *q, size_t dim, const void *k, enum pl_dtype dtype,
                size_t first, size_t len, float scale, float *scratch)
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

    PL_KERNELS.gemm(&g);
    for (size_t j = 0; j < first; j++)
        p[j] = -INFINITY;
    for (size_t j = len; j < padded; j++)
        p[j] = -INFINITY;
    max = max_of(p, padded) * scale;
    total = exp_sum(p, padded, scale, max);
    for (size_t j = 0; j < len; j++)
        p[j] /= total;
}
