/* The curves over context: known means, intervals that hold them, what an arm's phases make it. */
#include "analysis/report.h"
#include "cmocka_all.h"
#include "fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[] = "/tmp/paceline-scaling-XXXXXX";

static int make_file(void **state)
{
    const int fd = mkstemp(path);
    (void)state;
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static void load(const struct fixture *f, struct pl_report *r)
{
    struct pl_err err = {""};
    fixture_write(path, f);
    if (pl_report_load(path, r, &err) != PL_OK)
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

static void assert_real(const struct pl_table *t, size_t row, const char *col, double want)
{
    const struct pl_cell_value *v = value(t, row, col);
    assert_false(v->null);
    if (!(fabs(v->real - want) <= 1e-9 * fabs(want)))
        fail_msg("%s of row %zu is %.17g, not %.17g", col, row, v->real, want);
}

static void test_truth(void **state)
{
    /* no noise: prefill 0.002 ms a token, encode twice that, 20 steps of 0.3 ms */
    const struct fixture f = {.arms = 3,
                              .contexts = 4,
                              .samples = 6,
                              .repeats = 2,
                              .context = {1024, 128, 4096, 512},
                              .names = {"gpt", "t5", "bert"},
                              .tokens = 21,
                              .encodes = true,
                              .memory = true,
                              .real = true};
    static const char *const ids[] = {"gpt-128",  "gpt-512",  "gpt-1024",  "gpt-4096",
                                      "t5-128",   "t5-512",   "t5-1024",   "t5-4096",
                                      "bert-128", "bert-512", "bert-1024", "bert-4096"};
    static const char *const archs[] = {"decoder", "encdec", "encoder"};
    static const double lengths[] = {128, 512, 1024, 4096};
    struct pl_report r;
    (void)state;
    load(&f, &r);
    const struct pl_table *t = &r.tables[PL_TABLE_CONTEXT_SCALING];
    assert_int_equal(t->n_rows, 12);
    for (size_t i = 0; i < 12; i++) {
        const double prefill = 0.002 * lengths[i % 4];
        const double ms = i < 4 ? prefill + 6 : i < 8 ? 3 * prefill + 6 : 2 * prefill;
        assert_string_equal(value(t, i, "exp_id")->text, ids[i]);
        assert_string_equal(value(t, i, "model")->text, "sim"); /* has no path */
        assert_string_equal(value(t, i, "arch")->text, archs[i / 4]);
        assert_int_equal(value(t, i, "context_length")->integer, (int64_t)lengths[i % 4]);
        assert_real(t, i, "latency_ms", ms);
        assert_real(t, i, "throughput", 1000 * (i < 8 ? 21 : lengths[i % 4]) / ms);
        assert_real(t, i, "max_memory_gb", 9 * 1048576 / 1e9);
        assert_int_equal(value(t, i, "n")->integer, 12);
        assert_true(value(t, i, "sd")->real < 1e-9);
        assert_real(t, i, "ci_low", ms);
        assert_real(t, i, "ci_high", ms);
        assert_int_equal(value(t, i, "synthetic")->integer, 0);
    }
    pl_report_release(&r);
}

/* The interval is of the mean over prompts: repeats of a prompt do not narrow it. */
static void test_interval(void **state)
{
    size_t held = 0, all = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        const struct fixture f = {.arms = 1,
                                  .contexts = 2,
                                  .context = {128, 512},
                                  .samples = 25,
                                  .repeats = 6,
                                  .sample_effect = 0.3,
                                  .noise = 0.02,
                                  .seed = seed,
                                  .tokens = 21};
        struct pl_report r;
        load(&f, &r);
        for (size_t i = 0; i < r.scaling.n; i++) {
            const struct pl_scaling_point *p = &r.scaling.points[i];
            const double truth = 6 + 0.002 * (i ? 512 : 128);
            assert_int_equal(p->n, 150);
            assert_true(p->synthetic && p->memory_max == 0);
            assert_true(p->ci_low < p->mean && p->mean < p->ci_high);
            held += p->ci_low <= truth && truth <= p->ci_high;
            all++;
            /* 25 prompts: 2·2.06·0.3/√25 of the mean, and twice as wide as of 150 free trials */
            assert_true((p->ci_high - p->ci_low) / p->mean > 0.12);
        }
        pl_report_release(&r);
    }
    /* the two contexts share prompts: 40 draws of 95 %; fewer than 33 come once in 1000 */
    assert_true(all == 80 && held >= 66);
}

static void test_little(void **state)
{
    const struct fixture one = {.arms = 1, .contexts = 2, .samples = 1, .repeats = 3};
    const struct fixture none = {.arms = 2, .contexts = 3, .samples = 4, .leave = 1};
    const struct fixture foreign = {.arms = 1, .samples = 5, .few_phases = true};
    const struct fixture prefill = {.arms = 1, .samples = 5, .prefill = true};
    struct pl_report r;
    (void)state;

    load(&one, &r); /* one prompt says nothing about others */
    assert_int_equal(r.tables[PL_TABLE_CONTEXT_SCALING].n_rows, 2);
    assert_true(value(&r.tables[PL_TABLE_CONTEXT_SCALING], 0, "ci_low")->null);
    assert_true(value(&r.tables[PL_TABLE_CONTEXT_SCALING], 0, "max_memory_gb")->null);
    pl_report_release(&r);

    load(&none, &r);
    assert_int_equal(r.tables[PL_TABLE_CONTEXT_SCALING].n_rows, 0);
    pl_report_release(&r);

    load(&foreign, &r); /* no phases: nothing is known of what ran */
    assert_true(value(&r.tables[PL_TABLE_CONTEXT_SCALING], 0, "arch")->null);
    pl_report_release(&r);

    load(&prefill, &r); /* 64 tokens of 0.002 ms */
    assert_real(&r.tables[PL_TABLE_CONTEXT_SCALING], 0, "throughput", 500e3);
    pl_report_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_truth),
        cmocka_unit_test(test_interval),
        cmocka_unit_test(test_little),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
