/* From files with known truths to tables: pairing, planted effects, and files with little in them.
 */
#include "analysis/pruned.h"
#include "analysis/report.h"
#include "base/buf.h"
#include "base/rng.h"
#include "cmocka_all.h"
#include "fixture.h"
#include "results/quality.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/tmp/paceline-analysis-XXXXXX";

static const char *file(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    unlink(file("a.h5"));
    return rmdir(dir);
}

static void load(const struct fixture *f, struct pl_report *r)
{
    struct pl_err err = {""};
    fixture_write(file("a.h5"), f);
    if (pl_report_load(file("a.h5"), r, &err) != PL_OK)
        fail_msg("%s", err.text);
}

static const struct pl_cell_value *value(const struct pl_table *t, size_t row, const char *col)
{
    for (size_t c = 0; c < t->n_cols; c++)
        if (strcmp(t->cols[c].name, col) == 0)
            return &t->cells[row * t->n_cols + c];
    fail_msg("%s has no column %s", t->name, col);
    return NULL;
}

static size_t rows_of_kind(const struct pl_report *r, const char *kind)
{
    const struct pl_table *t = &r->tables[PL_TABLE_WARNINGS];
    size_t n = 0;
    for (size_t i = 0; i < t->n_rows; i++)
        n += strcmp(value(t, i, "kind")->text, kind) == 0;
    return n;
}

/* n of docs/METRICS.md, "How many samples". */
static uint32_t documented_n(void)
{
    struct pl_buf text;
    struct pl_err err;
    unsigned n = 0;
    assert_int_equal(pl_read_file(PL_SOURCE_DIR "/docs/METRICS.md", 1 << 20, &text, &err), PL_OK);
    const char *at = strstr(text.data, "The planted 2 % effect");
    assert_non_null(at);
    at = strstr(at, " n = ");
    assert_non_null(at);
    assert_int_equal(sscanf(at, " n = %u", &n), 1);
    pl_buf_release(&text);
    return n;
}

static void test_planted(void **state)
{
    const uint32_t n = documented_n();
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        const struct fixture f = {.arms = 4,
                                  .samples = seed % 2 ? n : n / 4,
                                  .repeats = seed % 2 ? 1 : 4,
                                  .devices = 3,
                                  .scale = {1, 0.98, 1, 1.02},
                                  .noise = 0.05,
                                  .sample_effect = 0.2,
                                  .device_effect = 0.03,
                                  .seed = seed};
        struct pl_report r;
        load(&f, &r);
        const enum pl_verdict fast = pl_speedups_find(&r.speedups, 1, 0, PL_METRIC_E2E)->verdict;
        const enum pl_verdict same = pl_speedups_find(&r.speedups, 2, 0, PL_METRIC_E2E)->verdict;
        const enum pl_verdict slow = pl_speedups_find(&r.speedups, 3, 0, PL_METRIC_E2E)->verdict;
        assert_int_equal(fast, PL_FASTER);
        assert_int_equal(same, PL_SAME);
        assert_int_equal(slow, PL_SLOWER);
        pl_report_release(&r);
    }
}

/* How many of 95 % intervals hold the truth, 1, where five questions share a scene that moves
 * them together. */
static unsigned holding(bool flat, unsigned seeds)
{
    unsigned n = 0;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        const struct fixture f = {.arms = 2,
                                  .samples = 100,
                                  .questions = 5,
                                  .noise = 0.02,
                                  .scene_effect = 0.1,
                                  .prefill = true,
                                  .flat = flat,
                                  .seed = seed};
        struct pl_dataset *d = NULL;
        struct pl_speedups s;
        struct pl_err err = {""};
        fixture_write(file("a.h5"), &f);
        assert_int_equal(pl_dataset_load(file("a.h5"), &d, &err), PL_OK);
        assert_int_equal(pl_speedups_make(d, &s, &err), PL_OK);
        const struct pl_ratio r = pl_speedups_find(&s, 1, 0, PL_METRIC_E2E)->ratio;
        assert_int_equal(r.units, flat ? 100 : 20);
        n += r.ci_low <= 1 && r.ci_high >= 1;
        pl_speedups_release(&s);
        pl_dataset_free(d);
    }
    return n;
}

static void test_scenes(void **state)
{
    const unsigned told = holding(false, 40), flat = holding(true, 40);
    (void)state;
    assert_in_range(told, 35, 40); /* 38 are expected */
    assert_in_range(flat, 0, 32);  /* questions taken for independent: about 25 */
}

static void test_quality(void **state)
{
    /* perplexities 10·2^a and 40·2^a: geometric mean 20·2^a; ids of arm a: a of 20 differ */
    struct fixture f = {
        .arms = 3, .contexts = 2, .samples = 4, .tokens = 20, .real = true, .quality = true};
    struct pl_report r;
    (void)state;
    load(&f, &r);
    const struct pl_table *t = &r.tables[PL_TABLE_SPEEDUP];
    for (size_t i = 0; i < t->n_rows; i++) {
        const int arm = value(t, i, "arm")->text[3] - '0';
        assert_string_equal(value(t, i, "quality_metric")->text, "perplexity");
        assert_true(fabs(value(t, i, "quality")->real - ldexp(20, arm)) < 1e-9);
        assert_true(fabs(value(t, i, "quality_baseline")->real - 20) < 1e-9);
    }
    for (uint32_t arm = 0; arm < 3; arm++) {
        const struct pl_cell *c = pl_dataset_cell(r.data, arm, 1);
        uint64_t rows = 9;
        const double v = pl_cell_quality(r.data, c, PL_QUALITY_AGREEMENT, &rows);
        assert_int_equal(rows, arm ? 4 : 0); /* a baseline agrees with itself */
        assert_true(arm ? fabs(v - (1 - arm / 20.0)) < 1e-12 : isnan(v));
    }
    pl_report_release(&r);
    f.answer = 10; /* what stands behind the end is no answer, and still another token */
    load(&f, &r);
    for (uint32_t arm = 1; arm < 3; arm++) {
        const struct pl_cell *c = pl_dataset_cell(r.data, arm, 1);
        const double v = pl_cell_quality(r.data, c, PL_QUALITY_AGREEMENT, NULL);
        assert_true(fabs(v - (1 - arm / 10.0)) < 1e-12);
        assert_int_equal(c->compared, 4);
        assert_int_equal(c->differing, 4);
        assert_true(isnan(pl_cell_quality(r.data, c, PL_QUALITY_ANSWER_TOKENS, NULL)));
    }
    pl_report_release(&r);
    f.real = false; /* made-up ids agree on nothing */
    load(&f, &r);
    assert_true(
        isnan(pl_cell_quality(r.data, pl_dataset_cell(r.data, 1, 0), PL_QUALITY_AGREEMENT, NULL)));
    pl_report_release(&r);
}

static int by_number(const void *x, const void *y)
{
    const double a = *(const double *)x, b = *(const double *)y;

    return (a > b) - (a < b);
}

/* Of samples that differ fourfold among themselves and are all 1.5 or 1.6 times as hard to the arm
 * as to its baseline, the ratio is known to 3 %. */
static void beside(const struct pl_dataset *d)
{
    const struct pl_cell *arm = pl_dataset_cell(d, 2, 0), *base = pl_dataset_cell(d, 0, 0);
    struct pl_beside b;

    for (size_t i = 0; i < arm->n; i++)
        arm->quality[PL_QUALITY_PERPLEXITY][i] =
            base->quality[PL_QUALITY_PERPLEXITY][i] * (i % 2 ? 1.5 : 1.6);
    assert_true(pl_quality_beside(d, 2, 0, PL_QUALITY_PERPLEXITY, &b));
    const double mean = (5 * log(1.5) + 6 * log(1.6)) / 11, apart = log(1.6 / 1.5);
    const double sd = apart * sqrt(5.0 * 6 / 11 / 10);
    assert_true(fabs(b.value - exp(mean)) < 1e-12);
    assert_true(fabs(b.low - exp(mean - 2.228138852 * sd / sqrt(11))) < 1e-9);
    assert_true(fabs(b.high - exp(mean + 2.228138852 * sd / sqrt(11))) < 1e-9);
    assert_false(pl_quality_beside(d, 0, 0, PL_QUALITY_PERPLEXITY, &b) || !isnan(b.value));
    assert_false(pl_quality_beside(d, 2, 0, PL_QUALITY_AGREEMENT, &b)); /* the baseline has none */
}

/* Means of word scores are no counts of yes and no: t over the samples' own spread, as a bootstrap
 * over samples has it; and 11 samples that are all right leave room for wrong ones. */
static void word_scores(const struct pl_dataset *d, const struct pl_cell *c)
{
    static const double f1[] = {0.4, 0.5, 0.5, 0.6, 0.45, 0.55, 0.5, 0.52, 0.48, 0.58, 0.42};
    double *v = c->quality[PL_QUALITY_AGREEMENT], means[2000], low, high;
    struct pl_rng rng;

    assert_int_equal(c->n, 11);
    memcpy(v, f1, sizeof f1);
    pl_cell_quality_interval(d, c, PL_QUALITY_AGREEMENT, &low, &high);
    assert_true(fabs((low + high) / 2 - 0.5) < 1e-12);
    assert_true(fabs((high - low) / 2 - 0.0417388) < 1e-6); /* a share of 11: ± 0.34 */
    pl_rng_init(&rng, 1);
    for (size_t k = 0; k < 2000; k++) {
        means[k] = 0;
        for (size_t i = 0; i < 11; i++)
            means[k] += f1[pl_rng_below(&rng, 11)] / 11;
    }
    qsort(means, 2000, sizeof means[0], by_number);
    assert_true(fabs(means[50] - low) < 0.01 && fabs(means[1949] - high) < 0.01);
    for (size_t i = 0; i < 11; i++)
        v[i] = 1;
    pl_cell_quality_interval(d, c, PL_QUALITY_AGREEMENT, &low, &high);
    assert_true(fabs(low - pow(0.025, 1 / 11.0)) < 1e-12 && high == 1);
    memset(v, 0, sizeof f1);
    pl_cell_quality_interval(d, c, PL_QUALITY_AGREEMENT, &low, &high);
    assert_true(low == 0 && fabs(high - (1 - pow(0.025, 1 / 11.0))) < 1e-12);
}

/* The last arm's upper half of layers is half as long: a quarter of the cache is gone. */
static void test_pruned(void **state)
{
    const struct fixture f = {.arms = 3,
                              .contexts = 2,
                              .samples = 11,
                              .scale = {1, 1, 0.5},
                              .real = true,
                              .quality = true,
                              .memory = true};
    struct pl_report r;
    struct pl_pruned p;
    struct pl_out o;
    (void)state;
    load(&f, &r);
    for (size_t i = 0; i < 2; i++) {
        assert_true(pl_pruned_get(r.data, &r.speedups, i, &p));
        assert_true(p.arm == 2 && p.baseline == 0 && p.context == i && p.n == 11);
        assert_true(fabs(p.prefill.speedup - 2) < 1e-9 && fabs(p.e2e.speedup - 2) < 1e-9);
        assert_true(fabs(p.ideal_prefill - 2) < 1e-12 && fabs(p.ideal_decode - 4) < 1e-12);
        assert_true(fabs(p.ideal_e2e -
                         (p.base_s[0] + p.base_s[1]) / (p.base_s[0] / 2 + p.base_s[1] / 4)) < 1e-9);
        assert_true(fabs(p.reduction - 0.25) < 1e-12 && fabs(p.arm_kv / p.base_kv - 0.75) < 1e-12);
        const struct pl_cell *c = pl_dataset_cell(r.data, 2, (uint32_t)i);
        assert_true(pl_cell_layer_rows(r.data, c, 0) == 2 * pl_cell_layer_rows(r.data, c, 3));
    }
    assert_false(pl_pruned_get(r.data, &r.speedups, 2, &p));
    const struct pl_table *t = &r.tables[PL_TABLE_TABLE2];
    assert_int_equal(t->n_rows, 4);
    assert_string_equal(t->cols[7].name, "KV Reduction (%)");
    assert_true(fabs(value(t, 1, "KV Reduction (%)")->real - 25) < 1e-9);
    assert_true(value(t, 0, "End2End Speedup (×)")->real == 1);
    assert_string_equal(value(t, 1, "quality_metric")->text, "perplexity");
    assert_true(fabs(value(t, 0, "prefill_tflops")->real - 64e-6) < 1e-15);
    assert_true(value(t, 1, "decode_gb")->real == 0.75);
    pl_out_init(&o, 1 << 16);
    pl_pruned_lines(r.data, &r.speedups, &o);
    assert_non_null(strstr(
        o.buf.data, "KV Cache: baseline=64, sdtp=48, reduction=25.0%  (arm2, context 64)\n"));
    pl_out_release(&o);
    t = &r.tables[PL_TABLE_QUALITY]; /* arm 2: perplexity 40 or 160 by turns, agreement 30 of 32 */
    size_t seen = 0;
    for (size_t i = 0; i < t->n_rows; i++) {
        if (strcmp(value(t, i, "arm")->text, "arm2") != 0)
            continue;
        const bool agreement = strcmp(value(t, i, "metric")->text, "agreement") == 0;
        const double v = value(t, i, "value")->real;
        seen++;
        assert_true(value(t, i, "ci_low")->real <= v && v <= value(t, i, "ci_high")->real);
        assert_true(!agreement || fabs(v - 30 / 32.0) < 1e-12);
        assert_true(agreement || (v > 40 && v < 160 && value(t, i, "ci_low")->real < v));
        assert_true(fabs(value(t, i, "kv_kept")->real - 0.75) < 1e-12);
    }
    assert_int_equal(seen, 4);
    const struct pl_cell *c = pl_dataset_cell(r.data, 2, 0);
    double low, high; /* of a share near 1 with one trial far off: 0.85 ± 0.19 */
    c->quality[PL_QUALITY_AGREEMENT][0] = 0;
    pl_cell_quality_interval(r.data, c, PL_QUALITY_AGREEMENT, &low, &high);
    assert_true(low > 0.6 && low < 0.7 && high == 1);
    beside(r.data);
    word_scores(r.data, pl_dataset_cell(r.data, 1, 0));
    pl_report_release(&r);
}

static void test_truth(void **state)
{
    /* no noise: every number is known */
    const struct fixture f = {.arms = 3,
                              .contexts = 2,
                              .samples = 11,
                              .devices = 2,
                              .names = {"base", "half", "other"},
                              .baseline = {NULL, NULL, "half"},
                              .scale = {1, 0.5, 1},
                              .sample_effect = 0.3,
                              .tokens = 21,
                              .real = true};
    struct pl_report r;
    (void)state;
    load(&f, &r);
    const struct pl_table *t = &r.tables[PL_TABLE_SPEEDUP];
    assert_int_equal(t->n_rows, 2 * 2 * 4); /* contexts, arms, metrics */
    for (size_t i = 0; i < t->n_rows; i++) {
        const bool half = strcmp(value(t, i, "arm")->text, "half") == 0;
        assert_string_equal(value(t, i, "baseline")->text, half ? "base" : "half");
        assert_true(fabs(value(t, i, "speedup")->real - (half ? 2 : 0.5)) < 1e-9);
        assert_string_equal(value(t, i, "verdict")->text, half ? "FASTER" : "SLOWER");
        assert_int_equal(value(t, i, "n")->integer, 11);
        assert_int_equal(value(t, i, "devices")->integer, 2);
        assert_int_equal(value(t, i, "synthetic")->integer, 0);
        assert_true(value(t, i, "quality")->null);
    }
    t = &r.tables[PL_TABLE_LATENCY];
    for (size_t i = 0; i < t->n_rows; i++) {
        const char *phase = value(t, i, "phase")->text;
        assert_false(value(t, i, "p50")->null);
        assert_true(value(t, i, "p95")->null);
        assert_string_equal(value(t, i, "p99")->text, "n/a (needs 662)");
        assert_int_equal(value(t, i, "p99_needs")->integer, 662);
        if (strcmp(phase, "decode_tps") == 0) /* 20 steps after the first token */
            assert_true(fabs(value(t, i, "mean")->real * value(t, i - 1, "mean")->real - 1000) <
                        1e-6);
    }
    assert_int_equal(r.tables[PL_TABLE_SPEEDUP_DEVICES].n_rows, 2 * 2 * 4 * 2);
    assert_int_equal(r.tables[PL_TABLE_FAILURES].n_rows, 0);
    assert_int_equal(rows_of_kind(&r, "synthetic"), 0);
    pl_report_release(&r);
}

static void test_scope(void **state)
{
    struct fixture f = {.arms = 2, .samples = 50, .noise = 0.05};
    static const struct {
        uint32_t devices, sessions;
        const char *scope;
    } cases[] = {{1, 1, "for this device"},
                 {1, 4, "for this device"},
                 {4, 1, "for these devices"},
                 {5, 1, "devices like these"},
                 {3, 2, "devices like these"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct pl_report r;
        f.devices = cases[i].devices;
        f.sessions = cases[i].sessions;
        load(&f, &r);
        assert_string_equal(value(&r.tables[PL_TABLE_SPEEDUP], 0, "scope")->text, cases[i].scope);
        pl_report_release(&r);
    }
}

static void test_nothing_there(void **state)
{
    const struct fixture empty = {.arms = 2, .samples = 10, .leave = 1};
    const struct fixture failed = {.arms = 2, .samples = 10, .fail = 1};
    struct pl_report r;
    (void)state;

    load(&empty, &r);
    const struct pl_table *t = &r.tables[PL_TABLE_SPEEDUP];
    assert_int_equal(t->n_rows, 1); /* e2e, with nothing in it */
    assert_int_equal(value(t, 0, "n")->integer, 0);
    assert_true(value(t, 0, "speedup")->null && value(t, 0, "ci_low")->null);
    assert_true(value(t, 0, "verdict")->null && value(t, 0, "arm_ms")->null);
    assert_int_equal(r.tables[PL_TABLE_LATENCY].n_rows, 0);
    assert_int_equal(rows_of_kind(&r, "incomplete"), 1);
    pl_report_release(&r);

    load(&failed, &r);
    t = &r.tables[PL_TABLE_FAILURES];
    assert_int_equal(t->n_rows, 4); /* two arms, two reasons */
    int64_t n = 0;
    for (size_t i = 0; i < t->n_rows; i++) {
        n += value(t, i, "failed")->integer;
        assert_int_equal(value(t, i, "of")->integer, 10);
    }
    assert_int_equal(n, 20);
    assert_int_equal(rows_of_kind(&r, "incomplete"), 0);
    assert_int_equal(rows_of_kind(&r, "failures"), 2);
    assert_null(strchr(value(t, 0, "stderr_tail")->text, '\x1b'));
    pl_report_release(&r);
}

static void test_gaps(void **state)
{
    const struct fixture partial = {
        .arms = 2, .samples = 200, .repeats = 2, .leave = 0.4, .noise = 0.05, .seed = 3};
    const struct fixture one = {.arms = 1, .samples = 10};
    const struct fixture single = {.arms = 2, .samples = 1, .repeats = 5, .noise = 0.05};
    struct pl_report r;
    (void)state;

    load(&partial, &r);
    const struct pl_speedup *s = pl_speedups_find(&r.speedups, 1, 0, PL_METRIC_E2E);
    const struct pl_cell *base = pl_dataset_cell(r.data, 0, 0),
                         *arm = pl_dataset_cell(r.data, 1, 0);
    uint64_t both = 0;
    for (size_t i = 0; i < base->n; i++)
        for (size_t k = 0; k < arm->n; k++)
            both += base->slot[i] == arm->slot[k];
    assert_true(both > 100 && both < arm->n);
    assert_int_equal(s->n, both);
    assert_int_equal(r.speedups.unpaired[0].alone, arm->n - both);
    assert_int_equal(rows_of_kind(&r, "unpaired"), 1);
    pl_report_release(&r);

    load(&one, &r);
    assert_int_equal(r.tables[PL_TABLE_SPEEDUP].n_rows, 0);
    assert_true(r.tables[PL_TABLE_LATENCY].n_rows > 0);
    pl_report_release(&r);

    load(&single, &r); /* five repeats of one prompt are one unit */
    const struct pl_table *t = &r.tables[PL_TABLE_SPEEDUP];
    assert_int_equal(value(t, 0, "n")->integer, 5);
    assert_false(value(t, 0, "speedup")->null);
    assert_true(value(t, 0, "ci_low")->null);
    assert_string_equal(value(t, 0, "verdict")->text, "AMBIGUOUS");
    pl_report_release(&r);
}

static bool has_phase(const struct pl_report *r, const char *phase)
{
    const struct pl_table *t = &r->tables[PL_TABLE_LATENCY];
    for (size_t i = 0; i < t->n_rows; i++)
        if (strcmp(value(t, i, "phase")->text, phase) == 0)
            return true;
    return false;
}

static void test_phases(void **state)
{
    const struct fixture foreign = {.arms = 2, .samples = 12, .few_phases = true};
    const struct fixture prefill = {.arms = 2, .samples = 12, .prefill = true};
    const struct fixture drafts = {
        .arms = 2, .samples = 12, .drafts = true, .memory = true, .tokens = 16};
    struct pl_report r;
    (void)state;

    load(&foreign, &r);
    assert_false(has_phase(&r, "prefill") || has_phase(&r, "decode"));
    assert_true(has_phase(&r, "ttft") && has_phase(&r, "e2e") && has_phase(&r, "tpot"));
    assert_null(pl_speedups_find(&r.speedups, 1, 0, PL_METRIC_PREFILL));
    assert_null(pl_speedups_find(&r.speedups, 1, 0, PL_METRIC_GENERATION));
    pl_report_release(&r);

    load(&prefill, &r);
    assert_true(has_phase(&r, "prefill"));
    assert_false(has_phase(&r, "decode") || has_phase(&r, "tpot") || has_phase(&r, "decode_tps"));
    assert_null(pl_speedups_find(&r.speedups, 1, 0, PL_METRIC_GENERATION));
    pl_report_release(&r);

    load(&drafts, &r); /* decode of 15 steps against 0.6 · 16 */
    const struct pl_speedup *s = pl_speedups_find(&r.speedups, 1, 0, PL_METRIC_GENERATION);
    assert_non_null(s);
    assert_true(fabs(s->ratio.speedup - 15 / 9.6) < 1e-9);
    const struct pl_table *kv = &r.tables[PL_TABLE_KV];
    assert_int_equal(kv->n_rows, 2);
    assert_true(fabs(value(kv, 0, "reduction")->real) < 1e-12);
    assert_true(fabs(value(kv, 1, "reduction")->real - 0.25) < 1e-12);
    assert_int_equal(value(kv, 1, "layers")->integer, 4);
    assert_int_equal(rows_of_kind(&r, "mlperf"), 1);
    assert_int_equal(r.tables[PL_TABLE_MEMORY].n_rows, 2);
    pl_report_release(&r);
}

static void test_drift_is_told(void **state)
{
    const struct fixture drift = {.arms = 2, .samples = 200, .noise = 0.02, .drift = 0.2};
    const struct fixture steady = {.arms = 2, .samples = 200, .noise = 0.02};
    struct pl_report r;
    (void)state;
    load(&drift, &r);
    assert_int_equal(rows_of_kind(&r, "drift"), 2);
    assert_int_equal(rows_of_kind(&r, "autocorrelation"), 2);
    pl_report_release(&r);
    load(&steady, &r);
    assert_int_equal(rows_of_kind(&r, "drift") + rows_of_kind(&r, "autocorrelation"), 0);
    pl_report_release(&r);
}

static void test_not_a_file(void **state)
{
    struct pl_report r;
    struct pl_err err = {""};
    (void)state;
    assert_int_equal(pl_report_load(file("none.h5"), &r, &err), PL_ENOENT);
    pl_report_release(&r);
    assert_int_equal(pl_report_load("/dev/null", &r, &err), PL_EFORMAT);
    pl_report_release(&r);
    assert_true(*err.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planted),       cmocka_unit_test(test_truth),
        cmocka_unit_test(test_scenes),        cmocka_unit_test(test_quality),
        cmocka_unit_test(test_pruned),        cmocka_unit_test(test_scope),
        cmocka_unit_test(test_nothing_there), cmocka_unit_test(test_gaps),
        cmocka_unit_test(test_phases),        cmocka_unit_test(test_drift_is_told),
        cmocka_unit_test(test_not_a_file),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
