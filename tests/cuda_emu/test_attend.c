/*
 * Attention of few vectors against sums in f64: widths, groups, several sequences, rings that wrap, windows, bias, mask, trees, parts. What
 * no row sees is NaN, so that whatever is read of it shows.
 */
#include "fixture.h"

#include "model/cuda/kernels.h"

#include <math.h>

#define SPANS 3
#define MAX_ROWS 24

struct attend_case {
    enum pl_dtype kv;
    int dim, heads, kv_heads, n_spans, rows[SPANS], len[SPANS];
    int window, cap, first; /* cap 0: as many as there are keys; first: of kept keys, where there is no ring */
    int splits, chunk;
    bool whole, bias, mask, lse, tree; /* whole: rows see all keys and are none of them */
    enum pl_dtype to;
};

struct attend_data {
    int total, keys; /* rows; most keys of a span */
    float *q, *out, *lse, *partial, *bias, *mask;
    unsigned *ended;
    double *k, *v; /* [spans][kv_heads][keys][dim], as the cache holds them */
    int32_t span_row[SPANS + 1], tree[PL_CUDA_TREE_HEAD + MAX_ROWS * PL_CUDA_TREE_WORDS];
    struct pl_cuda_kv kv[SPANS];
};

static uint32_t random_state;

static float random_one(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (float)(random_state >> 8) / (1 << 23) - 1;
}

static uint16_t rounded(enum pl_dtype dt, float f, double *is)
{
    uint16_t u;
    float back;

    if (dt == PL_DT_F16) {
        u = pl_f32_to_f16(f);
        back = pl_f16_to_f32(u);
    } else {
        uint32_t bits;
        memcpy(&bits, &f, sizeof(bits));
        u = (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
        bits = (uint32_t)u << 16;
        memcpy(&back, &bits, sizeof(back));
    }
    *is = back;
    return u;
}

/* Keys [first, end) that a row sees, before the tree has its say. */
static void row_sees(const struct attend_case *c, int span, int row, int *first, int *end)
{
    const int at = c->len[span] + row;

    *first = c->whole ? 0 : c->first;
    *end = c->whole ? c->len[span] : at + 1;
    if (!c->whole && c->window && at + 1 - c->window > *first)
        *first = at + 1 - c->window;
}

/* The tree's rows: the parent of node i. */
static int parent_of(int i)
{
    return i < 2 ? i - 1 : i - 2;
}

static bool tree_sees(const struct attend_case *c, int row, int key, int *at)
{
    int node = row, depth = 0;

    for (int i = row; parent_of(i) >= 0; i = parent_of(i))
        depth++;
    *at = c->len[0] + depth;
    while (node >= 0 && node != key - c->len[0])
        node = parent_of(node);
    return key < c->len[0] || node >= 0;
}

static int tree_depth(int node)
{
    return parent_of(node) < 0 ? 0 : 1 + tree_depth(parent_of(node));
}

static void fill_tree(const struct attend_case *c, struct attend_data *d)
{
    for (int i = 0; i < c->rows[0]; i++) {
        d->tree[1 + i] = tree_depth(i);
        for (int j = i; j >= 0; j = parent_of(j))
            d->tree[PL_CUDA_TREE_HEAD + i * PL_CUDA_TREE_WORDS + j / 32] |= (int32_t)(1u << j % 32);
    }
}

static void make_span(const struct attend_case *c, struct attend_data *d, int s)
{
    const int keys = c->len[s] + (c->whole ? 0 : c->rows[s]);
    struct pl_cuda_kv *kv = &d->kv[s];
    int first, none;

    *kv = (struct pl_cuda_kv){.cap = c->cap ? c->cap : keys, .window = c->window, .first = c->first, .len = c->len[s]};
    const size_t n = (size_t)(c->kv_heads * kv->cap * c->dim);
    kv->k = aligned_alloc(16, n * 2);
    kv->v = aligned_alloc(16, n * 2);
    memset(kv->k, 0xff, n * 2); /* NaN in both types */
    memset(kv->v, 0xff, n * 2);
    row_sees(c, s, 0, &first, &none);
    for (int h = 0; h < c->kv_heads; h++)
        for (int j = first; j < keys; j++)
            for (int e = 0; e < c->dim; e++) {
                const size_t to = (size_t)((h * kv->cap + j % kv->cap) * c->dim + e);
                const size_t at = (size_t)(((s * c->kv_heads + h) * d->keys + j) * c->dim + e);
                ((uint16_t *)kv->k)[to] = rounded(c->kv, random_one(), &d->k[at]);
                ((uint16_t *)kv->v)[to] = rounded(c->kv, random_one(), &d->v[at]);
            }
}

static void make(const struct attend_case *c, struct attend_data *d)
{
    *d = (struct attend_data){0};
    for (int s = 0; s < c->n_spans; s++) {
        d->span_row[s + 1] = d->span_row[s] + c->rows[s];
        d->keys = d->keys > c->len[s] + c->rows[s] ? d->keys : c->len[s] + c->rows[s];
    }
    d->total = d->span_row[c->n_spans];
    const size_t vectors = (size_t)(d->total * c->heads), all = (size_t)(c->n_spans * c->kv_heads * d->keys * c->dim);
    d->q = aligned_alloc(16, vectors * (size_t)c->dim * 4);
    d->out = calloc(vectors * (size_t)c->dim, 4);
    d->lse = calloc(vectors, 4);
    d->partial = calloc(vectors * (size_t)(c->splits * (c->dim + 2)), 4);
    d->ended = calloc(vectors, sizeof(*d->ended));
    d->bias = calloc((size_t)(c->heads * 2 * d->keys), 4);
    d->mask = calloc((size_t)d->keys, 4);
    d->k = calloc(all, sizeof(double));
    d->v = calloc(all, sizeof(double));
    for (size_t i = 0; i < vectors * (size_t)c->dim; i++)
        d->q[i] = 3 * random_one();
    for (int i = 0; i < c->heads * 2 * d->keys; i++)
        d->bias[i] = random_one();
    for (int i = 0; i < d->keys; i++)
        d->mask[i] = i % 5 == 3 ? -INFINITY : 0;
    for (int s = 0; s < c->n_spans; s++)
        make_span(c, d, s);
    if (c->tree)
        fill_tree(c, d);
}

static void drop(const struct attend_case *c, struct attend_data *d)
{
    for (int s = 0; s < c->n_spans; s++) {
        free(d->kv[s].k);
        free(d->kv[s].v);
    }
    free(d->q);
    free(d->out);
    free(d->lse);
    free(d->partial);
    free(d->ended);
    free(d->bias);
    free(d->mask);
    free(d->k);
    free(d->v);
}

static void run(const struct attend_case *c, struct attend_data *d)
{
    const struct pl_cuda_step st = {.span_row = d->span_row,
                                    .kv = d->kv,
                                    .tree = c->tree ? d->tree : NULL,
                                    .rows = d->total,
                                    .n_spans = c->n_spans};
    struct pl_cuda_attend a = {.q = d->q,
                               .out = d->out,
                               .to = c->to,
                               .lse = c->lse ? d->lse : NULL,
                               .heads = c->heads,
                               .kv_heads = c->kv_heads,
                               .dim = c->dim,
                               .kv_dtype = c->kv,
                               .scale = 1 / sqrtf((float)c->dim),
                               .causal = !c->whole,
                               .bias = c->bias ? d->bias : NULL,
                               .bias_span = 2 * d->keys,
                               .bias_centre = d->keys,
                               .mask = c->mask ? d->mask : NULL,
                               .splits = c->splits,
                               .partial = d->partial,
                               .ended = d->ended,
                               .chunk = c->chunk,
                               .n_rows = d->total};

    for (int s = 0; s < c->n_spans; s++)
        a.max_span = a.max_span > c->rows[s] ? a.max_span : c->rows[s];
    assert_true(pl_k_attend_few_does(&a, c->tree) > 0); /* else something else is tested */
    const long launches = pl_emu_asked.launches;
    pl_k_attend(&st, &a, NULL);
    cudaDeviceSynchronize();
    assert_int_equal(pl_emu_asked.launches - launches, 1); /* parts or not */
    for (int i = 0; i < d->total * c->heads; i++)
        assert_int_equal(d->ended[i], 0);
}

/* One vector in f64: out [dim]; log Σ exp. */
static double plain(const struct attend_case *c, const struct attend_data *d, int s, int row, int head, double *out)
{
    const int kv_head = head / (c->heads / c->kv_heads);
    const float *q = d->q + (size_t)((d->span_row[s] + row) * c->heads + head) * (size_t)c->dim;
    double sum = 0;
    int first, end;

    row_sees(c, s, row, &first, &end);
    memset(out, 0, sizeof(*out) * (size_t)c->dim);
    for (int j = first; j < end; j++) {
        const size_t kv = (size_t)(((s * c->kv_heads + kv_head) * d->keys + j) * c->dim);
        int at = c->whole ? row : c->len[s] + row, place = j;
        double dot = 0;
        if (c->tree && !tree_sees(c, row, j, &at))
            continue;
        if (c->tree && j >= c->len[s])
            place = c->len[s] + tree_depth(j - c->len[s]);
        for (int e = 0; e < c->dim; e++)
            dot += (double)q[e] * d->k[kv + (size_t)e];
        dot /= sqrt((double)c->dim);
        dot += c->bias ? (double)d->bias[head * 2 * d->keys + d->keys + place - at] : 0;
        dot += c->mask ? (double)d->mask[place] : 0;
        const double p = exp(dot);
        sum += p;
        for (int e = 0; e < c->dim; e++)
            out[e] += p * d->v[kv + (size_t)e];
    }
    for (int e = 0; e < c->dim; e++)
        out[e] /= sum;
    return log(sum);
}

static float result(const struct attend_case *c, const struct attend_data *d, size_t i)
{
    float f;

    pl_dtype_to_f32(c->to, (const char *)d->out + pl_dtype_bytes(c->to, i), &f, 1);
    return f;
}

static void check(const struct attend_case *c)
{
    const double near = c->to == PL_DT_F32 ? 3e-5 : 4e-3;
    struct attend_data d;
    double want[128], worst = 0, worst_lse = 0;

    make(c, &d);
    run(c, &d);
    for (int s = 0; s < c->n_spans; s++)
        for (int i = 0; i < c->rows[s] * c->heads; i++) {
            const size_t at = (size_t)(d.span_row[s] * c->heads + i);
            const double lse = plain(c, &d, s, i / c->heads, i % c->heads, want);
            for (int e = 0; e < c->dim; e++)
                worst = fmax(worst, isnan(result(c, &d, at * (size_t)c->dim + (size_t)e))
                                        ? INFINITY
                                        : fabs((double)result(c, &d, at * (size_t)c->dim + (size_t)e) - want[e]));
            if (c->lse)
                worst_lse = fmax(worst_lse, isnan(d.lse[at]) ? INFINITY : fabs((double)d.lse[at] - lse));
        }
    if (worst > near || worst_lse > near)
        fail_msg("%s, width %d, %d heads on %d, %d spans of %d… rows, %d parts, chunk %d, window %d in %d: off by %g, sums by %g",
                 c->kv == PL_DT_F16 ? "f16" : "bf16", c->dim, c->heads, c->kv_heads, c->n_spans, c->rows[0], c->splits, c->chunk,
                 c->window, c->cap, worst, worst_lse);
    drop(c, &d);
}

static const enum pl_dtype kvs[] = {PL_DT_BF16, PL_DT_F16};

/* Every width and group, of 1 … 8 rows: one block's sets and several blocks, the keys in one part and in many. */
static void test_shapes(void **state)
{
    static const int dims[] = {16, 32, 64, 80, 128}, groups[] = {1, 4, 7, 8};

    (void)state;
    random_state = 1;
    for (int i = 0; i < 40; i++) {
        const int group = groups[i / 5 % 4];
        struct attend_case c = {.kv = kvs[i / 20],
                                .dim = dims[i % 5],
                                .heads = 2 * group,
                                .kv_heads = 2,
                                .n_spans = 1 + i % 3,
                                .rows = {1 + i % 8, 1 + i * 3 % 8, 1},
                                .len = {37 + 11 * (i % 7), 5 * (i % 4), 130},
                                .splits = i % 2 ? 1 : 2 + i % 5,
                                .lse = i % 3 != 1,
                                .to = PL_DT_F32};
        check(&c);
    }
}

static void test_rings(void **state)
{
    (void)state;
    random_state = 2;
    for (int i = 0; i < 12; i++) {
        const int rows = 1 + i % 4 * 2, window = 20 + 13 * (i % 5);
        struct attend_case c = {.kv = kvs[i % 2],
                                .dim = i % 3 ? 64 : 40,
                                .heads = 4,
                                .kv_heads = 2,
                                .n_spans = 2,
                                .rows = {rows, 1},
                                .len = {window * 2 + 7 * i, window - 9},
                                .window = window,
                                .cap = window + 8 + i % 3,
                                .splits = 1 + i % 4,
                                .lse = true,
                                .to = PL_DT_F32};
        check(&c);
        c.chunk = 64; /* parts at fixed places */
        c.splits = 1;
        check(&c);
    }
    check(&(struct attend_case){.kv = PL_DT_BF16, .dim = 64, .heads = 4, .kv_heads = 1, .n_spans = 1, .rows = {3}, .len = {90},
                                .first = 21, .splits = 2, .lse = true, .to = PL_DT_F32});
}

/* Relative bias, masked sources, rows of a tree. */
static void test_biased(void **state)
{
    (void)state;
    random_state = 3;
    for (int i = 0; i < 6; i++) {
        struct attend_case c = {.kv = kvs[i % 2],
                                .dim = 64,
                                .heads = 4,
                                .kv_heads = 4 >> i % 3,
                                .n_spans = 1,
                                .rows = {1 + 3 * (i % 3)},
                                .len = {70 + i},
                                .splits = 1 + i % 3,
                                .bias = true,
                                .lse = true,
                                .to = PL_DT_F32};
        check(&c);
        c.whole = c.mask = true;
        c.bias = i % 2;
        check(&c);
        c.whole = c.mask = false;
        c.bias = c.tree = true;
        c.rows[0] = 3 + 4 * i;
        check(&c);
    }
}

/* Many sequences of a row each leave 16-bit results. */
static void test_narrow(void **state)
{
    (void)state;
    random_state = 4;
    for (int i = 0; i < 2; i++) {
        struct attend_case c = {.kv = kvs[i], .dim = 128, .heads = 8, .kv_heads = 8 >> 3 * i, .n_spans = 3, .rows = {1, 1, 1},
                                .len = {300, 20, 0}, .splits = 2 - i, .to = kvs[i]};
        check(&c);
    }
}

/* With parts at fixed places, rows verified together have the bits of each decoded alone. */
static void test_alone(void **state)
{
    const struct attend_case c = {.kv = PL_DT_BF16, .dim = 64, .heads = 8, .kv_heads = 2, .n_spans = 1, .rows = {7},
                                  .len = {150}, .splits = 3, .chunk = 64, .to = PL_DT_F32};
    const size_t row = (size_t)(c.heads * c.dim);
    struct attend_data d;

    (void)state;
    random_state = 5;
    make(&c, &d);
    run(&c, &d);
    for (int r = 0; r < c.rows[0]; r++) {
        struct attend_case one = c;
        struct attend_data e = d;
        one.rows[0] = e.total = e.span_row[1] = 1;
        one.len[0] = e.kv[0].len = c.len[0] + r;
        e.q += (size_t)r * row;
        e.out = calloc(row, sizeof(float));
        run(&one, &e);
        assert_memory_equal(e.out, d.out + (size_t)r * row, row * sizeof(float));
        free(e.out);
    }
    drop(&c, &d);
}

/* One key that counts for nearly all and thousands that f16 could only just tell from nothing. */
static void test_faint(void **state)
{
    const struct attend_case c = {.kv = PL_DT_F16, .dim = 16, .heads = 1, .kv_heads = 1, .n_spans = 1, .rows = {1}, .len = {4000},
                                  .splits = 1, .to = PL_DT_F32};
    struct attend_data d;
    double want[16];

    (void)state;
    make(&c, &d);
    memset(d.q, 0, (size_t)c.dim * sizeof(float));
    d.q[0] = 4 * 24.5f * 0.6931472f; /* e to a fourth of it: 2 to 24.5 */
    for (int i = 0; i < d.keys * c.dim; i++) {
        ((uint16_t *)d.kv[0].k)[i] = rounded(c.kv, i == 0, &d.k[i]);
        ((uint16_t *)d.kv[0].v)[i] = rounded(c.kv, i < c.dim ? 0 : 8, &d.v[i]);
    }
    run(&c, &d);
    plain(&c, &d, 0, 0, 0, want);
    for (int e = 0; e < c.dim; e++)
        assert_true(fabs((double)d.out[e] - want[e]) < 1e-2 * want[e]);
    drop(&c, &d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shapes), cmocka_unit_test(test_rings), cmocka_unit_test(test_biased),
                                       cmocka_unit_test(test_narrow), cmocka_unit_test(test_alone), cmocka_unit_test(test_faint)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
