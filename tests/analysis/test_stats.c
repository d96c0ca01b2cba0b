/* Exact small cases, the reference of another implementation, and how often intervals hold. */
#include "analysis/stats.h"
#include "base/rng.h"
#include "cmocka_all.h"

#include <math.h>
#include <string.h>

static void near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance))
        fail_msg("%.17g is not %.17g within %g", a, b, tolerance);
}

static void test_floors(void **state)
{
    (void)state;
    assert_int_equal(pl_percentile_floor(0.50), 11);
    assert_int_equal(pl_percentile_floor(0.90), 64);
    assert_int_equal(pl_percentile_floor(0.95), 130);
    assert_int_equal(pl_percentile_floor(0.99), 662);
    for (size_t n = 0; n <= 700; n++) {
        static double v[700];
        struct pl_summary s;
        for (size_t i = 0; i < n; i++)
            v[i] = (double)(n - i);
        pl_summarise(v, n, &s);
        assert_int_equal(isnan(s.p50), n < 11);
        assert_int_equal(isnan(s.p95), n < 130);
        assert_int_equal(isnan(s.p99), n < 662);
        assert_int_equal(isnan(s.mean), n < 1);
        assert_int_equal(isnan(s.sd), n < 2);
    }
}

/* numpy.percentile([15, 20, 35, 40, 50], [5, 30, 40, 95]) and numpy.std(ddof=1). */
static void test_against_numpy(void **state)
{
    double v[] = {40, 15, 50, 35, 20};
    struct pl_summary s;
    (void)state;
    pl_summarise(v, 5, &s);
    near(s.mean, 32, 0);
    near(s.sd, 14.404860290887934, 1e-12);
    pl_summarise((double[]){38.228, 38.228, 38.228}, 3, &s); /* their mean is rounded */
    near(s.sd, 0, 0);
    near(pl_quantile(v, 5, 0.05), 16, 1e-12);
    near(pl_quantile(v, 5, 0.30), 23, 1e-12);
    near(pl_quantile(v, 5, 0.40), 29, 1e-12);
    near(pl_quantile(v, 5, 0.95), 48, 1e-12);
    near(pl_quantile(v, 5, 0), 15, 0);
    near(pl_quantile(v, 5, 1), 50, 0);
}

static void test_outliers(void **state)
{
    /* quartiles 3.25 and 7.75, IQR 4.5: fences −3.5 and 14.5; far beyond 21.25 */
    double v[] = {1, 2, 3, 4, 5, 6, 7, 8, 15, 22};
    struct pl_summary s;
    (void)state;
    pl_summarise(v, 10, &s);
    near(s.fence_low, -3.5, 1e-12);
    near(s.fence_high, 14.5, 1e-12);
    assert_int_equal(s.mild, 1);
    assert_int_equal(s.far, 1);
    near(s.mean, 7.3, 1e-12);
}

static void test_t(void **state)
{
    (void)state;
    near(pl_t975(1), 12.706204736, 1e-8);
    near(pl_t975(30), 2.042272456, 1e-8);
    near(pl_t975(31), 2.039513446, 2e-6);
    near(pl_t975(100), 1.983971519, 1e-6);
    near(pl_t975(1000000), 1.959966, 1e-5);
}

static void test_verdicts(void **state)
{
    static const struct {
        double low, high;
        const char *text;
    } cases[] = {{1.02, 1.05, "FASTER"},
                 {1.001, 1.009, "FASTER (small)"},
                 {1.001, 1.02, "FASTER"},
                 {0.95, 0.98, "SLOWER"},
                 {0.991, 0.999, "SLOWER (small)"},
                 {0.98, 0.999, "SLOWER"},
                 {0.995, 1.005, "SAME"},
                 {1.0, 1.005, "SAME"},
                 {0.99, 1.01, "SAME"},
                 {0.98, 1.005, "AMBIGUOUS"},
                 {0.9, 1.1, "AMBIGUOUS"},
                 {1.0, 1.02, "AMBIGUOUS"},
                 {NAN, NAN, "AMBIGUOUS"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_string_equal(pl_verdict_text(pl_verdict(cases[i].low, cases[i].high, 0.01)),
                            cases[i].text);
    assert_null(pl_verdict_text(PL_VERDICT_NONE));
}

static void test_ratio_exact(void **state)
{
    struct pl_ratio r;
    struct pl_err err;
    (void)state;

    assert_int_equal(pl_ratio_ci(NULL, 0, 1, 0, &r, &err), PL_OK);
    assert_true(isnan(r.speedup) && isnan(r.ci_low));

    /* ratio of totals, not mean of ratios: 12/8 = 1.5, the mean of 2/1 and 10/7 is 1.714 */
    const struct pl_unit two[] = {{2, 1, 0}, {10, 7, 0}};
    assert_int_equal(pl_ratio_ci(two, 1, 1, 0, &r, &err), PL_OK);
    near(r.speedup, 2, 0);
    assert_true(isnan(r.ci_low) && isnan(r.ci_high));
    assert_int_equal(pl_ratio_ci(two, 2, 1, 0, &r, &err), PL_OK);
    near(r.speedup, 1.5, 0);
    assert_true(r.ci_low < 1.5 && r.ci_high > 1.5);
    assert_true(r.fixed);
    assert_int_equal(r.clusters, 1);

    /* no spread: a point; equal times: exactly 1, and SAME */
    struct pl_unit same[40];
    for (size_t i = 0; i < 40; i++)
        same[i] = (struct pl_unit){3.7 + (double)i, 3.7 + (double)i, (uint32_t)i % 8};
    assert_int_equal(pl_ratio_ci(same, 40, 1, 0, &r, &err), PL_OK);
    near(r.ci_low, 1, 0);
    near(r.ci_high, 1, 0);
    assert_false(r.fixed);
    assert_int_equal(pl_verdict(r.ci_low, r.ci_high, 0.01), PL_SAME);
}

static double log_normal(struct pl_rng *r, double sigma)
{
    return exp(sigma * pl_rng_normal(r) - sigma * sigma / 2);
}

#define UNITS_MAX 6000

/* n prompts over `clusters` devices; the arm's ratio differs between devices by `between`. */
static void make_units(struct pl_rng *r, struct pl_unit *u, size_t n, uint32_t clusters,
                       double ratio, double noise, double between)
{
    double device[64];
    for (uint32_t c = 0; c < clusters; c++)
        device[c] = log_normal(r, between);
    for (size_t i = 0; i < n; i++) {
        const double sample = log_normal(r, 0.2);
        u[i].cluster = (uint32_t)(i % clusters);
        u[i].base = 100 * sample * log_normal(r, noise);
        u[i].arm = 100 * ratio * sample * device[u[i].cluster] * log_normal(r, noise);
    }
}

static void test_ratio_is_reproducible(void **state)
{
    static struct pl_unit u[UNITS_MAX], v[UNITS_MAX];
    struct pl_ratio a, b, c;
    struct pl_err err;
    struct pl_rng r;
    (void)state;
    pl_rng_init(&r, 5);
    make_units(&r, u, UNITS_MAX, 7, 0.9, 0.05, 0.01);
    for (size_t i = 0; i < UNITS_MAX; i++)
        v[i] = u[UNITS_MAX - 1 - i]; /* the order of the rows says nothing */
    assert_int_equal(pl_ratio_ci(u, UNITS_MAX, 42, 0, &a, &err), PL_OK);
    assert_int_equal(pl_ratio_ci(v, UNITS_MAX, 42, 0, &b, &err), PL_OK);
    assert_int_equal(pl_ratio_ci(u, UNITS_MAX, 43, 0, &c, &err), PL_OK);
    assert_memory_equal(&a.ci_low, &b.ci_low, sizeof a.ci_low);
    assert_memory_equal(&a.ci_high, &b.ci_high, sizeof a.ci_high);
    assert_true(a.ci_low != c.ci_low);
    near(a.ci_low, c.ci_low, 0.003);
}

/* How many of 1000 intervals hold the truth, in percent. */
static double coverage(size_t n, uint32_t clusters, double noise, double between, double *width)
{
    static struct pl_unit u[UNITS_MAX];
    const int runs = 1000;
    int held = 0;
    struct pl_rng r;
    pl_rng_init(&r, pl_keyv(7, n, clusters, (uint64_t)(noise * 1e6), (uint64_t)(between * 1e6)));
    *width = 0;
    for (int i = 0; i < runs; i++) {
        struct pl_ratio ci;
        struct pl_err err;
        make_units(&r, u, n, clusters, 1 / 1.25, noise, between);
        assert_int_equal(pl_ratio_ci(u, n, (uint64_t)i, 1000, &ci, &err), PL_OK);
        held += ci.ci_low <= 1.25 && 1.25 <= ci.ci_high;
        *width += (ci.ci_high - ci.ci_low) / runs;
    }
    return 100.0 * held / runs;
}

static void test_coverage(void **state)
{
    static const struct {
        size_t n;
        uint32_t clusters;
        double noise, between;
    } cases[] = {{8, 1, 0.05, 0},    {20, 1, 0.05, 0},   {100, 2, 0.05, 0},    {250, 1, 0.05, 0},
                 {20, 1, 0.4, 0},    {100, 1, 0.4, 0},   {60, 6, 0.05, 0},     {60, 6, 0.05, 0.02},
                 {100, 10, 0.05, 0}, {90, 6, 0.2, 0.05}, {120, 24, 0.05, 0.03}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double width;
        const double c =
            coverage(cases[i].n, cases[i].clusters, cases[i].noise, cases[i].between, &width);
        print_message("%4zu prompts, %2u clusters, noise %.2f, between %.2f: %.1f %%, width %.4f\n",
                      cases[i].n, cases[i].clusters, cases[i].noise, cases[i].between, c, width);
        assert_true(c >= 93 && c <= 97);
    }
}

/* Grouping prompts bounds the work and must not change the width. */
static void test_groups(void **state)
{
    static struct pl_unit u[UNITS_MAX];
    struct pl_ratio ci;
    struct pl_err err;
    struct pl_rng r;
    double sum = 0;
    (void)state;
    for (int i = 0; i < 20; i++) {
        pl_rng_init(&r, pl_keyv(11, (uint64_t)i));
        make_units(&r, u, UNITS_MAX, 2, 1, 0.05, 0);
        assert_int_equal(pl_ratio_ci(u, UNITS_MAX, 1, 0, &ci, &err), PL_OK);
        sum += log(ci.ci_high / ci.ci_low) / 20;
    }
    /* 2 · 1.96 · 0.05 · √2 · √(e^0.04 / 6000) */
    near(sum / (2 * 1.96 * 0.05 * sqrt(2) * sqrt(exp(0.04) / UNITS_MAX)), 1, 0.03);
}

static void test_drift(void **state)
{
    double x[200];
    uint32_t stream[200];
    struct pl_drift d;
    struct pl_rng r;
    int halves = 0, lags = 0;
    (void)state;
    for (int run = 0; run < 200; run++) {
        pl_rng_init(&r, pl_keyv(3, (uint64_t)run));
        for (size_t i = 0; i < 200; i++) {
            stream[i] = i >= 80;
            x[i] = 0.05 * pl_rng_normal(&r) + (double)stream[i];
        }
        pl_drift(x, stream, 200, 0.001, &d);
        halves += d.halves_bad;
        lags += d.lag1_bad;
    }
    assert_in_range(halves, 0, 8); /* 1 % of 200 is 2 */
    assert_in_range(lags, 0, 8);
    for (size_t i = 0; i < 200; i++)
        x[i] = 0.001 * (double)i + 0.01 * pl_rng_normal(&r);
    pl_drift(x, stream, 200, 0.01, &d);
    assert_true(d.halves_bad && d.lag1_bad);
    near(d.change, expm1(0.052), 0.004); /* 40 and 60 apart, weighted 80 : 120 */
    pl_drift(x, stream, PL_DRIFT_MIN - 1, 0.01, &d);
    assert_false(d.halves_bad || d.lag1_bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floors),
        cmocka_unit_test(test_against_numpy),
        cmocka_unit_test(test_outliers),
        cmocka_unit_test(test_t),
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_ratio_exact),
        cmocka_unit_test(test_ratio_is_reproducible),
        cmocka_unit_test(test_coverage),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_drift),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
