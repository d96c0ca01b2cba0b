/* Products of few rows with 16-bit weights on tensor cores, held against sums in f64; and that
 * neither the number of rows nor what else is in a launch moves a bit. */
#include "base/rng.h"
#include "model/cuda/kernels.h"
#include "model/dtype.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MOST_IN 544
#define MOST_OUT 70

static struct pl_rng rng;
static uint16_t weights[2][MOST_OUT * MOST_IN] __attribute__((aligned(16)));
static uint16_t x16[PL_CUDA_STREAM_ROWS * MOST_IN] __attribute__((aligned(16)));
static float x32[PL_CUDA_STREAM_ROWS * MOST_IN] __attribute__((aligned(16)));
static float bias[2][MOST_OUT], y[2][PL_CUDA_STREAM_ROWS * MOST_OUT],
    again[2][PL_CUDA_STREAM_ROWS * MOST_OUT];

static double uniform(void)
{
    return pl_rng_double(&rng) * 2 - 1;
}

static uint16_t to16(enum pl_dtype dt, float v)
{
    return dt == PL_DT_F16 ? pl_f32_to_f16(v) : pl_f32_to_bf16(v);
}

static float from16(enum pl_dtype dt, uint16_t v)
{
    return dt == PL_DT_F16 ? pl_f16_to_f32(v) : pl_bf16_to_f32(v);
}

/* Wide ranges of x, so that what one 16-bit number loses would show. */
static void draw(enum pl_dtype dt)
{
    for (size_t i = 0; i < sizeof(weights) / 2; i++)
        weights[i / (MOST_OUT * MOST_IN)][i % (MOST_OUT * MOST_IN)] = to16(dt, (float)uniform());
    for (size_t i = 0; i < sizeof(x32) / sizeof(*x32); i++) {
        x32[i] = (float)(uniform() * exp(3 * uniform()));
        x16[i] = to16(dt, x32[i]);
    }
    for (size_t i = 0; i < MOST_OUT; i++) {
        bias[0][i] = (float)uniform();
        bias[1][i] = (float)uniform();
    }
}

static struct pl_cuda_matrix matrix(int i, enum pl_dtype dt, int64_t out, int64_t in, bool biased)
{
    return (struct pl_cuda_matrix){.data = weights[i],
                                   .out = out,
                                   .in = in,
                                   .dtype = dt,
                                   .row_bytes = (size_t)in * 2,
                                   .bias = biased ? bias[i] : NULL};
}

/* Row r of x times weight row o, and the sum of the products' sizes. */
static double exact(const struct pl_cuda_matrix *w, int i, int rows, int r, int64_t o, double *size)
{
    double sum = 0;

    *size = 0;
    for (int64_t k = 0; k < w->in; k++) {
        const float v =
            rows <= PL_CUDA_GEMV_ROWS ? x32[r * w->in + k] : from16(w->dtype, x16[r * w->in + k]);
        const double p = (double)v * (double)from16(w->dtype, weights[i][o * w->in + k]);
        sum += p;
        *size += fabs(p);
    }
    return sum;
}

static const void *input(int rows)
{
    return rows <= PL_CUDA_GEMV_ROWS ? (const void *)x32 : (const void *)x16;
}

/* Two products of one input: the first adds, the second has a bias and another height. */
static void check_products(enum pl_dtype dt, int rows, int64_t out, int64_t in)
{
    const struct pl_cuda_matrix w[2] = {matrix(0, dt, out, in, false),
                                        matrix(1, dt, MOST_OUT - out + 1, in, true)};
    const struct pl_cuda_product p[2] = {{.w = &w[0], .y = y[0], .add = true},
                                         {.w = &w[1], .y = y[1]}};

    for (size_t i = 0; i < PL_CUDA_STREAM_ROWS * MOST_OUT; i++)
        y[0][i] = y[1][i] = 0.5F;
    assert_true(pl_k_gemv_mma_does(&w[0], rows));
    pl_k_gemv_mma(p, 2, input(rows), NULL, rows, NULL);
    cudaDeviceSynchronize();
    for (int i = 0; i < 2; i++)
        for (int r = 0; r < rows; r++)
            for (int64_t o = 0; o < w[i].out; o++) {
                double size,
                    want = exact(&w[i], i, rows, r, o, &size) + (i ? (double)bias[1][o] : 0.5);
                const double got = (double)y[i][r * w[i].out + o];
                if (!(fabs(got - want) <= 1e-5 * (size + 1)))
                    fail_msg("%s, %d rows, [%lld, %lld]: row %d, output %lld of product %d is "
                             "%.9g, expected %.9g",
                             pl_dtype_traits(dt)->name, rows, (long long)w[i].out, (long long)in, r,
                             (long long)o, i, got, want);
            }
    for (int i = 0; i < 2; i++) /* nothing behind the last row */
        for (size_t k = (size_t)(rows * w[i].out); k < sizeof(y[i]) / sizeof(float); k++)
            assert_true(y[i][k] == 0.5F);
}

static void check_gated(enum pl_dtype dt, int rows, int64_t out, int64_t in)
{
    const struct pl_cuda_matrix gate = matrix(0, dt, out, in, true),
                                up = matrix(1, dt, out, in, true);
    uint16_t got16[PL_CUDA_STREAM_ROWS * MOST_OUT];

    pl_k_gemv_mma_gated(&gate, &up, PL_ACT_SILU, input(rows), NULL, rows,
                        rows <= PL_CUDA_GEMV_ROWS ? (void *)y[0] : (void *)got16, NULL);
    cudaDeviceSynchronize();
    for (int r = 0; r < rows; r++)
        for (int64_t o = 0; o < out; o++) {
            double size[2], g = exact(&gate, 0, rows, r, o, &size[0]) + (double)bias[0][o];
            double u = exact(&up, 1, rows, r, o, &size[1]) + (double)bias[1][o],
                   want = g / (1 + exp(-g)) * u;
            double room = 2e-5 * ((size[0] + 1) * (fabs(u) + 1) + (size[1] + 1) * (fabs(g) + 1));
            double got = (double)y[0][r * out + o];
            if (rows > PL_CUDA_GEMV_ROWS) {
                got = (double)from16(dt, got16[r * out + o]);
                room += fabs(want) / (dt == PL_DT_F16 ? 1024 : 128);
            }
            if (!(fabs(got - want) <= room))
                fail_msg(
                    "%s, gated, %d rows, [%lld, %lld]: row %d, output %lld is %.9g, expected %.9g",
                    pl_dtype_traits(dt)->name, rows, (long long)out, (long long)in, r, (long long)o,
                    got, want);
        }
}

static void test_values(void **state)
{
    static const int64_t ins[] = {32, 64, 96, 512, 544}, outs[] = {1, 8, 17, 32, 45};
    static const enum pl_dtype types[] = {PL_DT_BF16, PL_DT_F16};
    static const int rows[] = {1, 2, 4, 5, 8, 9, 16, 17, 22, 24, 25, 32};

    (void)state;
    for (size_t t = 0; t < 2; t++) {
        draw(types[t]);
        for (size_t r = 0; r < sizeof(rows) / sizeof(*rows); r++) {
            check_products(types[t], rows[r], outs[r % 5], ins[(r + t) % 5]);
            check_products(types[t], rows[r], outs[(r + 3) % 5], MOST_IN);
            check_gated(types[t], rows[r], outs[(r + 2) % 5], ins[(r + 1) % 5]);
        }
    }
}

static void test_bits(void **state)
{
    const struct pl_cuda_matrix w[2] = {matrix(0, PL_DT_BF16, 40, MOST_IN, true),
                                        matrix(1, PL_DT_BF16, 23, MOST_IN, false)};
    const struct pl_cuda_product both[2] = {{.w = &w[0], .y = y[0]}, {.w = &w[1], .y = y[1]}};

    (void)state;
    draw(PL_DT_BF16);
    pl_k_gemv_mma(both, 2, x32, NULL, PL_CUDA_GEMV_ROWS, NULL);
    cudaDeviceSynchronize();
    for (int rows = 1; rows < PL_CUDA_GEMV_ROWS; rows++)
        for (int i = 0; i < 2; i++) {
            const struct pl_cuda_product one = {.w = &w[i], .y = again[i]};
            const int first = PL_CUDA_GEMV_ROWS - rows;
            pl_k_gemv_mma(&one, 1, x32 + first * MOST_IN, NULL, rows, NULL);
            cudaDeviceSynchronize();
            assert_memory_equal(again[i], y[i] + first * w[i].out,
                                (size_t)(rows * w[i].out) * sizeof(float));
        }
}

/* Row r normed by its mean square, and what `exact` says of it then. */
static double exact_normed(const struct pl_cuda_matrix *w, int i, const struct pl_cuda_rms *norm,
                           int r, int64_t o, double *size)
{
    double squares = 0, sum = 0;

    *size = 0;
    for (int64_t k = 0; k < w->in; k++)
        squares += (double)x32[r * w->in + k] * (double)x32[r * w->in + k];
    const double by = 1 / sqrt(squares / (double)w->in + (double)norm->eps);
    for (int64_t k = 0; k < w->in; k++) {
        const double v = (double)x32[r * w->in + k] * (double)norm->gain[k] * by *
                         (double)from16(w->dtype, weights[i][o * w->in + k]);
        sum += v;
        *size += fabs(v);
    }
    return sum;
}

static float gain[MOST_IN] __attribute__((aligned(16)));

static void draw_gain(void)
{
    for (size_t i = 0; i < MOST_IN; i++)
        gain[i] = (float)(1 + uniform() / 2);
}

static void test_normed(void **state)
{
    const struct pl_cuda_rms norm = {.gain = gain, .eps = 1e-5F};

    (void)state;
    draw(PL_DT_BF16);
    draw_gain();
    for (int rows = 1; rows <= PL_CUDA_GEMV_ROWS; rows += rows == 1 ? 3 : 4) {
        const struct pl_cuda_matrix w[2] = {matrix(0, PL_DT_BF16, 33, MOST_IN, true),
                                            matrix(1, PL_DT_BF16, 33, MOST_IN, true)};
        const struct pl_cuda_product p = {.w = &w[0], .y = y[0]};
        pl_k_gemv_mma(&p, 1, x32, &norm, rows, NULL);
        pl_k_gemv_mma_gated(&w[0], &w[1], PL_ACT_RELU, x32, &norm, rows, y[1], NULL);
        cudaDeviceSynchronize();
        for (int r = 0; r < rows; r++)
            for (int64_t o = 0; o < 33; o++) {
                double size, more,
                    g = exact_normed(&w[0], 0, &norm, r, o, &size) + (double)bias[0][o];
                double u = exact_normed(&w[1], 1, &norm, r, o, &more) + (double)bias[1][o];
                assert_true(fabs((double)y[0][r * 33 + o] - g) <= 1e-5 * (size + 1));
                assert_true(fabs((double)y[1][r * 33 + o] - fmax(g, 0) * u) <=
                            2e-5 * ((size + 1) * (fabs(u) + 1) + (more + 1) * (fabs(g) + 1)));
            }
    }
}

#define DIM 32
#define CAP 11

/* A cache's element, whatever its type. */
static double at(enum pl_dtype dt, const void *p, int64_t i)
{
    return dt == PL_DT_F32 ? (double)((const float *)p)[i]
                           : (double)from16(dt, ((const uint16_t *)p)[i]);
}

/* Two sequences, of 3 and 2 rows, whose caches end at 9 of 11 and at 4; two heads read one K and V
 * of 32. */
static void check_qkv(enum pl_dtype kv_dtype)
{
    static float cache[2][2][CAP * DIM];
    const int32_t span[] = {0, 0, 0, 1, 1}, in_span[] = {0, 1, 2, 0, 1}, span_row[] = {0, 3, 5},
                  len[] = {9, 4};
    const struct pl_cuda_kv kv[2] = {{cache[0][0], cache[0][1], CAP, 0, 0, 9, 30},
                                     {cache[1][0], cache[1][1], CAP, 0, 0, 4, 7}};
    const struct pl_cuda_step step = {
        .span = span, .in_span = in_span, .span_row = span_row, .kv = kv, .rows = 5, .n_spans = 2};
    const struct pl_cuda_rms norm = {.gain = gain, .eps = 1e-6F};
    const struct pl_cuda_matrix w[3] = {matrix(0, PL_DT_BF16, 2 * DIM, MOST_IN, false),
                                        matrix(1, PL_DT_BF16, DIM, MOST_IN, true),
                                        matrix(1, PL_DT_BF16, DIM, MOST_IN, false)};
    const struct pl_cuda_product p[3] = {{.w = &w[0], .y = y[0]}, {.w = &w[1]}, {.w = &w[2]}};
    float inv_freq[DIM / 2];
    const struct pl_cuda_heads h = {.heads = 2,
                                    .kv_heads = 1,
                                    .dim = DIM,
                                    .kv_dtype = kv_dtype,
                                    .inv_freq = inv_freq,
                                    .rope_factor = 1.25F,
                                    .append = true};
    const double fine = kv_dtype == PL_DT_F32 ? 0 : kv_dtype == PL_DT_F16 ? 1.0 / 2048 : 1.0 / 256;

    for (int i = 0; i < DIM / 2; i++)
        inv_freq[i] = (float)pow(10000, -2.0 * i / DIM);
    assert_true(pl_k_gemv_mma_qkv_does(&h));
    pl_k_gemv_mma_qkv(p, x32, &norm, &step, &h, NULL);
    cudaDeviceSynchronize();
    for (int r = 0; r < 5; r++)
        for (int part = 0; part < 4; part++) /* two heads of q, k, v */
            for (int i = 0; i < DIM / 2; i++) {
                const int m = part < 2 ? 0 : part - 1;
                const int64_t o = part == 1 ? DIM + i : i;
                double size[2], a = exact_normed(&w[m], m > 0, &norm, r, o, &size[0]) +
                                    (m == 1 ? (double)bias[1][o] : 0);
                double b = exact_normed(&w[m], m > 0, &norm, r, o + DIM / 2, &size[1]) +
                           (m == 1 ? (double)bias[1][o + DIM / 2] : 0);
                const double angle =
                    (double)(kv[span[r]].next_position + in_span[r]) * (double)inv_freq[i];
                const double want[2] = {part == 3 ? a : 1.25 * (a * cos(angle) - b * sin(angle)),
                                        part == 3 ? b : 1.25 * (b * cos(angle) + a * sin(angle))};
                for (int half = 0; half < 2; half++) {
                    const int64_t place =
                        (int64_t)((len[span[r]] + in_span[r]) % CAP) * DIM + i + half * DIM / 2;
                    const double got = part < 2 ? (double)y[0][r * 2 * DIM + o + half * DIM / 2]
                                                : at(kv_dtype, cache[span[r]][part - 2], place);
                    if (!(fabs(got - want[half]) <= 3e-5 * (size[0] + size[1] + 1) +
                                                        (part < 2 ? 0 : fine * fabs(want[half]))))
                        fail_msg("row %d, part %d, element %d: %.9g, expected %.9g", r, part,
                                 i + half * DIM / 2, got, want[half]);
                }
            }
}

static void test_qkv(void **state)
{
    (void)state;
    draw(PL_DT_BF16);
    draw_gain();
    check_qkv(PL_DT_F32);
    check_qkv(PL_DT_F16);
    check_qkv(PL_DT_BF16);
}

/* What it does not take: other types, rows that are no whole steps, more rows, an address that is
 * not a multiple of 16. */
static void test_refused(void **state)
{
    struct pl_cuda_matrix w = matrix(0, PL_DT_BF16, 16, 64, false);

    (void)state;
    assert_true(pl_k_gemv_mma_does(&w, PL_CUDA_STREAM_ROWS));
    assert_false(pl_k_gemv_mma_does(&w, PL_CUDA_STREAM_ROWS + 1));
    w.in = 80;
    assert_false(pl_k_gemv_mma_does(&w, 1));
    w = matrix(0, PL_DT_F32, 16, 64, false);
    assert_false(pl_k_gemv_mma_does(&w, 1));
    w = matrix(0, PL_DT_BF16, 16, 64, false);
    w.data = weights[0] + 1;
    assert_false(pl_k_gemv_mma_does(&w, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_values), cmocka_unit_test(test_normed),
                                       cmocka_unit_test(test_qkv), cmocka_unit_test(test_bits),
                                       cmocka_unit_test(test_refused)};

    pl_rng_init(&rng, 11);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
