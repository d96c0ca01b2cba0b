#include "fixture.h"

#include "base/rng.h"

#include <math.h>

#define B pl_backend_by_name(NULL)

static struct pl_device *open_device(int threads, const char *isa)
{
    struct pl_device *d = NULL;

    ok(B->open(&(struct pl_device_opts){.threads = threads, .isa = isa}, &d, &err));
    return d;
}

static struct pl_tensor *tensor(struct pl_device *d, size_t rows, size_t cols, const float *v)
{
    struct pl_tensor *t = NULL;

    ok(B->tensor_create(d, rows, cols, &t, &err));
    if (v)
        ok(B->upload(t, 0, rows, v, &err));
    return t;
}

static void fill(float *v, size_t n, uint64_t seed)
{
    struct pl_rng r;

    pl_rng_init(&r, seed);
    for (size_t i = 0; i < n; i++)
        v[i] = (float)pl_rng_normal(&r);
}

static void near(const float *a, const double *b, size_t n, double tolerance)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)a[i] - b[i]) <= tolerance * (1 + fabs(b[i]))))
            fail_msg("element %zu: %.9g, expected %.9g", i, (double)a[i], b[i]);
}

/* Against double precision, for every size around the panels and tiles, each row the same bits as
 * alone. */
static void check_linear(struct pl_device *d, size_t rows, size_t in, size_t out)
{
    float *w = malloc(in * out * 4), *x = malloc(rows * in * 4), *bias = malloc(out * 4);
    float *y = malloc(rows * out * 4), *one = malloc(out * 4);
    double *want = malloc(rows * out * sizeof(*want));
    struct pl_tensor_view v = {
        .dtype = PL_DT_F32, .elements = (int64_t)(in * out), .data = w, .bytes = in * out * 4};
    struct pl_weight_source src = {
        .name = "w", .view = &v, .rows = (int64_t)out, .cols = (int64_t)in};
    struct pl_tensor *tw = NULL, *tx, *ty, *tb, *row, *y1;

    fill(w, in * out, 1);
    fill(x, rows * in, 2);
    fill(bias, out, 3);
    for (size_t r = 0; r < rows; r++) {
        for (size_t o = 0; o < out; o++) {
            want[r * out + o] = (double)bias[o];
            for (size_t i = 0; i < in; i++)
                want[r * out + o] += (double)x[r * in + i] * (double)w[o * in + i];
        }
    }
    ok(B->weight_create(d, &src, PL_DT_AUTO, &tw, &err));
    tx = tensor(d, rows, in, x);
    ty = tensor(d, rows, out, NULL);
    tb = tensor(d, 1, out, bias);
    y1 = tensor(d, 1, out, NULL);
    ok(B->linear(ty, tx, tw, tb, &err));
    ok(B->download(ty, 0, rows, y, &err));
    near(y, want, rows * out, 1e-6 * (1 + 2 * sqrt((double)in)));
    for (size_t r = 0; r < rows; r++) {
        ok(B->tensor_view(tx, r, 1, &row, &err));
        ok(B->linear(y1, row, tw, tb, &err));
        ok(B->download(y1, 0, 1, one, &err));
        if (exact_device())
            assert_memory_equal(one, y + r * out, out * 4);
        B->tensor_free(row);
    }
    struct pl_tensor *const all[] = {tw, tx, ty, tb, y1};
    for (size_t i = 0; i < 5; i++)
        B->tensor_free(all[i]);
    free(w);
    free(x);
    free(bias);
    free(y);
    free(one);
    free(want);
}

static void test_linear(void **state)
{
    const char *isa;

    (void)state;
    for (size_t i = 0; next_isa(&i, &isa);) {
        struct pl_device *d = open_device((int)i, isa);
        for (size_t rows = 1; rows <= 14; rows++)
            check_linear(d, rows, 7 + rows, 15 + rows);
        check_linear(d, 27, 600, 65);
        check_linear(d, 13, 256, 64);
        check_linear(d, 1, 257, 129);
        check_linear(d, 5, 1, 1);
        B->close(d);
    }
}

static void test_norm_and_activations(void **state)
{
    struct pl_device *d = open_device(1, NULL);
    float x[2 * 37], gain[37], bias[37], y[2 * 37];
    double want[2 * 37];
    struct pl_tensor *tx, *tg, *tb, *ty = tensor(d, 2, 37, NULL);

    (void)state;
    fill(x, 74, 4);
    fill(gain, 37, 5);
    fill(bias, 37, 6);
    tx = tensor(d, 2, 37, x);
    tg = tensor(d, 1, 37, gain);
    tb = tensor(d, 1, 37, bias);
    for (int kind = 0; kind < 2; kind++) {
        for (size_t r = 0; r < 2; r++) {
            double mean = 0, var = 0;
            for (size_t i = 0; i < 37; i++)
                mean += kind == PL_NORM_LAYER ? (double)x[r * 37 + i] / 37 : 0;
            for (size_t i = 0; i < 37; i++)
                var += pow((double)x[r * 37 + i] - mean, 2) / 37;
            for (size_t i = 0; i < 37; i++)
                want[r * 37 + i] =
                    ((double)x[r * 37 + i] - mean) / sqrt(var + 1e-5) * (double)gain[i] +
                    (double)bias[i];
        }
        ok(B->norm((enum pl_norm_kind)kind, 1e-5f, ty, tx, tg, tb, &err));
        ok(B->download(ty, 0, 2, y, &err));
        near(y, want, 74, 1e-6);
    }
    for (size_t i = 0; i < 74; i++)
        x[i] = ((float)i - 37) * (i % 5 ? 0.3f : 40.0f);
    ok(B->upload(tx, 0, 2, x, &err));
    for (int a = PL_ACT_SILU; a <= PL_ACT_RELU; a++) {
        for (size_t i = 0; i < 74; i++) {
            double v = (double)x[i], c = sqrt(2 / M_PI);
            want[i] = a == PL_ACT_SILU        ? v / (1 + exp(-v))
                      : a == PL_ACT_GELU      ? v * 0.5 * (1 + erf(v / sqrt(2)))
                      : a == PL_ACT_GELU_TANH ? v * 0.5 * (1 + tanh(c * (v + 0.044715 * v * v * v)))
                      : a == PL_ACT_QUICK_GELU ? v / (1 + exp(-1.702 * v))
                                               : fmax(v, 0);
        }
        ok(B->activate((enum pl_act_kind)a, ty, tx, &err));
        ok(B->download(ty, 0, 2, y, &err));
        near(y, want, 74, 1e-6);
    }
    ok(B->axpby(2, tx, 0.5f, tx, &err));
    ok(B->download(tx, 0, 2, y, &err));
    for (size_t i = 0; i < 74; i++)
        assert_true(y[i] == 2.5f * x[i]);
    struct pl_tensor *const all[] = {tx, tg, tb, ty};
    for (size_t i = 0; i < 4; i++)
        B->tensor_free(all[i]);
    B->close(d);
}

static void test_attention(void **state)
{
    struct pl_device *d = open_device(1, NULL);
    float q[3 * 6], k[5 * 6], v[5 * 6], y[3 * 6];
    struct pl_tensor *tq, *tk, *tv, *ty = tensor(d, 3, 6, NULL);

    (void)state;
    fill(q, 18, 7);
    fill(k, 30, 8);
    fill(v, 30, 9);
    tq = tensor(d, 3, 6, q);
    tk = tensor(d, 5, 6, k);
    tv = tensor(d, 5, 6, v);
    for (int causal = 0; causal < 2; causal++) {
        double want[18] = {0};
        for (size_t r = 0; r < 3; r++) {
            for (size_t h = 0; h < 2; h++) {
                size_t len = causal ? r + 3 : 5;
                double p[5], sum = 0;
                for (size_t j = 0; j < len; j++) {
                    p[j] = 0;
                    for (size_t i = 0; i < 3; i++)
                        p[j] += (double)q[r * 6 + h * 3 + i] * (double)k[j * 6 + h * 3 + i];
                    p[j] = exp(p[j] / sqrt(3));
                    sum += p[j];
                }
                for (size_t j = 0; j < len; j++)
                    for (size_t i = 0; i < 3; i++)
                        want[r * 6 + h * 3 + i] += p[j] / sum * (double)v[j * 6 + h * 3 + i];
            }
        }
        ok(B->attention(ty, tq, tk, tv, 2, causal, &err));
        ok(B->download(ty, 0, 3, y, &err));
        near(y, want, 18, 1e-5);
    }
    fails(PL_ERANGE, "no 4 heads", B->attention(ty, tq, tk, tv, 4, false, &err));
    struct pl_tensor *const all[] = {tq, tk, tv, ty};
    for (size_t i = 0; i < 4; i++)
        B->tensor_free(all[i]);
    B->close(d);
}

/* topk against sorting, with ties, NaN, infinities and both zeros. */
static void test_topk(void **state)
{
    struct pl_device *d = open_device(1, NULL);
    float x[200];
    int32_t idx[200];

    (void)state;
    for (uint64_t round = 0; round < 50; round++) {
        struct pl_tensor *t;
        struct pl_rng r;
        pl_rng_init(&r, round);
        for (int i = 0; i < 200; i++) {
            x[i] = (float)((int)pl_rng_below(&r, round % 2 ? 10 : 100000) - 5);
            if (pl_rng_below(&r, 20) == 0)
                x[i] = (const float[]){NAN, INFINITY, -INFINITY, -0.0f}[pl_rng_below(&r, 4)];
        }
        t = tensor(d, 1, 200, x);
        for (size_t k = 1; k <= 200; k += 1 + k / 4) {
            ok(B->topk(t, k, idx, &err));
            /* each element's rank: how many are before it; the k first are chosen */
            for (int i = 0, at = 0; i < 200; i++) {
                size_t before = 0;
                for (int j = 0; j < 200; j++) {
                    bool less = isnan(x[i]) ? !isnan(x[j]) : x[j] > x[i];
                    bool tie = (isnan(x[i]) && isnan(x[j])) || x[i] == x[j];
                    before += less || (tie && j < i);
                }
                if (before < k)
                    assert_int_equal(idx[at++], i);
            }
        }
        B->tensor_free(t);
    }
    B->close(d);
}

static void test_gather_and_argmax(void **state)
{
    struct pl_device *d = open_device(1, NULL);
    float x[8] = {1, 2, 3, 4, 5, 6, 7, 8}, y[4];
    struct pl_tensor *t = tensor(d, 4, 2, x), *nan = tensor(d, 1, 3, (float[]){1, NAN, 2});
    int32_t best[4];

    (void)state;
    ok(B->argmax(t, best, &err));
    assert_true(best[0] == 1 && best[3] == 1);
    ok(B->argmax(nan, best, &err));
    assert_int_equal(best[0], -1);
    fails(PL_ERANGE, "row 4 of 4", B->gather(t, t, (int32_t[]){0, 4}, 2, &err));
    ok(B->gather(t, t, (int32_t[]){1, 3}, 2, &err));
    ok(B->download(t, 0, 2, y, &err));
    assert_true(y[0] == 3 && y[1] == 4 && y[2] == 7 && y[3] == 8);
    fails(PL_ERANGE, "rows 3 to 5", B->download(t, 3, 2, y, &err));
    fails(PL_ERANGE, "[4, 2] and [1, 3]", B->activate(PL_ACT_RELU, t, nan, &err));
    fails(PL_EUSAGE, "weight_create", B->linear(t, t, t, NULL, &err));
    B->tensor_free(t);
    B->tensor_free(nan);
    B->close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_norm_and_activations),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_topk),
        cmocka_unit_test(test_gather_and_argmax),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
