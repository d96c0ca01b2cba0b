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
    return pick(a > b, a, b);
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

/* The largest of n scaled scores (n a multiple of 16) and `max`; scales them in place. A NaN is
 * passed over: its eˣ is NaN. */
INLINE float scale_max(float *s, size_t n, float scale, float max)
{
    float lane[WIDTH];
    vf m = splat(max);

    for (size_t j = 0; j < n; j += WIDTH) {
        vf v = load(s + j) * splat(scale);
        store(s + j, v);
        m = larger(v, m);
    }
    store(lane, m);
    for (size_t j = 0; j < WIDTH; j++)
        max = lane[j] > max ? lane[j] : max;
    return max;
}

/* s = e^(s − max) for n scores (a multiple of 16); returns their sum. */
INLINE float exp_sum(float *s, size_t n, float max)
{
    vf sums[PER_PANEL] = {{0}};
    float lane[PL_PANEL];

    for (size_t j = 0; j < n; j += PL_PANEL) {
#pragma GCC unroll 16
        for (size_t i = 0; i < PER_PANEL; i++) {
            vf p = vexp_down(load(s + j + i * WIDTH) - splat(max));
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
    float *q, *s, *o; /* [n, dp], [n, CHUNK], [n, dp] */
    float max[PL_ATTN_BLOCK], sum[PL_ATTN_BLOCK];
};

/* One chunk's scaled scores of one query → e^(s − running maximum); what came before shrinks. Keys
 * before `hidden` and from `valid` on are not seen. */
INLINE void softmax_step(struct state *t, size_t i, size_t hidden, size_t valid, float scale)
{
    float m, shrink[WIDTH], *s = t->s + i * PL_ATTN_CHUNK, *o = t->o + i * t->dp;

    for (size_t j = 0; j < hidden; j++)
        s[j] = -INFINITY;
    for (size_t j = valid; j < PL_ATTN_CHUNK; j++)
        s[j] = -INFINITY;
    m = scale_max(s, PL_ATTN_CHUNK, scale, t->max[i]);
    store(shrink, vexp_down(splat(t->max[i] - m)));
    t->sum[i] = t->sum[i] * shrink[0] + exp_sum(s, PL_ATTN_CHUNK, m);
    t->max[i] = m;
    for (size_t d = 0; shrink[0] != 1 && d < t->dp; d += WIDTH)
        store(o + d, load(o + d) * splat(shrink[0]));
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
        tile(1, 4, dt, x, ldx, k, element(w, p * stride, dt), stride, y + p * PL_PANEL, ldy,
             resume);
    for (; p < panels; p++)
        rows_by_panel(mr, dt, x, ldx, k, element(w, p * stride, dt), y + p * PL_PANEL, ldy, resume);
}

/* Scores of the query vectors [from, to) on a chunk of keys, as far as each tile sees them. */
INLINE void scores(const struct state *t, enum pl_dtype dt, const void *k, size_t first,
                   size_t from, size_t to)
{
    size_t dim = t->a->dim, mr;

    for (size_t p = 0; p < PL_ATTN_CHUNK / PL_PANEL; p++) {
        for (size_t i = from; i < to; i += mr) {
            mr = least(to - i, MAX_ROWS);
            if (t->a->len[i + mr - 1] > first + p * PL_PANEL)
                rows_by_panel(mr, dt, t->q + i * t->dp, t->dp, dim,
                              element(k, p * dim * PL_PANEL, dt),
                              t->s + i * PL_ATTN_CHUNK + p * PL_PANEL, PL_ATTN_CHUNK, false);
        }
    }
}

/* The same for one query vector. */
INLINE void scores_of_one(const struct state *t, enum pl_dtype dt, const void *k, size_t first,
                          size_t i)
{
    size_t keys = least(t->a->len[i] - first, PL_ATTN_CHUNK), dim = t->a->dim;

    rows_by_panels(1, dt, t->q + i * t->dp, t->dp, dim, k, dim * PL_PANEL,
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
    for (size_t i = from; i < to; i++) {
        bool biased = a->bias[i] || a->mask;
        if (biased)
            add_biases(a, i, first, t->s + i * PL_ATTN_CHUNK);
        softmax_step(t, i, a->first[i] > first ? a->first[i] - first : 0,
                     least(a->len[i] - first, PL_ATTN_CHUNK), biased ? 1 : a->scale);
    }
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
    struct state t = {.a = a, .dp = pl_round_up(a->dim, PL_PANEL)};

    t.s = a->scratch + PL_GEMM_SCRATCH;
    t.q = t.s + PL_ATTN_BLOCK * PL_ATTN_CHUNK;
    t.o = t.q + PL_ATTN_BLOCK * t.dp;
    for (size_t i = 0; i < a->n; i++) {
        memcpy(t.q + i * t.dp, a->q[i], a->dim * sizeof(float));
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
    max = scale_max(p, padded, scale, -INFINITY);
    total = exp_sum(p, padded, max);
    for (size_t j = 0; j < len; j++)
        p[j] /= total;
}
