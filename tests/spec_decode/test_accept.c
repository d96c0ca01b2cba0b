/* The acceptance rules against what they promise: the verifier's own choice, or its distribution.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "spec_decode/accept.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define V 8

static struct pl_err err;

static void greedy_chain(void **state)
{
    float logits[4][V] = {{0, 9}, {0, 0, 9}, {0, 0, 0, 9}, {0, 0, 0, 0, 9}};
    const int32_t ids[] = {1, 2, 5};
    const struct pl_proposal d = {.ids = ids, .k = 3};
    const struct pl_accept_rule rule = {.temperature = 0};
    int32_t path[3], next = -1;
    size_t n = 9;

    (void)state;
    assert_int_equal(pl_accept(&rule, &d, &logits[0][0], V, 1, path, &n, &next, &err), PL_OK);
    assert_int_equal(n, 2);
    assert_int_equal(next, 3);
    const int32_t all[] = {1, 2, 3};
    const struct pl_proposal e = {.ids = all, .k = 3};
    assert_int_equal(pl_accept(&rule, &e, &logits[0][0], V, 1, path, &n, &next, &err), PL_OK);
    assert_int_equal(n, 3);
    assert_int_equal(next, 4);
    const struct pl_proposal none = {.ids = all, .k = 0};
    assert_int_equal(pl_accept(&rule, &none, &logits[0][0], V, 1, path, &n, &next, &err), PL_OK);
    assert_int_equal(n, 0);
    assert_int_equal(next, 1);
}

static void greedy_tree(void **state)
{
    /* root → 0, 1; 1 → 2, 3; 3 → 4. The verifier says 1 (node 1), 3 (node 3), then 7 (no child). */
    float logits[6][V] = {{0, 9}, {9}, {0, 0, 0, 9}, {9}, {0, 0, 0, 0, 0, 0, 0, 9}, {9}};
    const int32_t ids[] = {4, 1, 2, 3, 6}, parents[] = {-1, -1, 1, 1, 3};
    const struct pl_proposal d = {.ids = ids, .parents = parents, .k = 5};
    const struct pl_accept_rule rule = {.temperature = 0};
    int32_t path[5], next = -1;
    size_t n = 9;

    (void)state;
    assert_int_equal(pl_accept(&rule, &d, &logits[0][0], V, 1, path, &n, &next, &err), PL_OK);
    assert_int_equal(n, 2);
    assert_int_equal(path[0], 1);
    assert_int_equal(path[1], 3);
    assert_int_equal(next, 7);
}

static void masks_and_nan(void **state)
{
    float logits[V] = {1, 9, 2};
    const int32_t eos = 1;
    struct pl_accept_rule rule = {.masked = &eos, .n_masked = 1};
    float p[2 * V];
    int32_t id = -1;

    (void)state;
    assert_int_equal(pl_accept_one(&rule, logits, V, 0, &id, &err), PL_OK);
    assert_int_equal(id, 2);
    assert_true(logits[1] == 9);
    rule.temperature = 1;
    rule.p = p;
    for (uint64_t t = 0; t < 1000; t++) {
        assert_int_equal(pl_accept_one(&rule, logits, V, t, &id, &err), PL_OK);
        assert_int_not_equal(id, 1);
    }
    logits[3] = NAN;
    assert_int_equal(pl_accept_one(&rule, logits, V, 0, &id, &err), PL_EFORMAT);
    rule.temperature = 0;
    assert_int_equal(pl_accept_one(&rule, logits, V, 0, &id, &err), PL_EFORMAT);
}

/* χ² of the first token's counts against p: below the 99.9 % point of V − 1 = 7 degrees (24.3). */
static double chi2(const double *count, const float *p, double n)
{
    double sum = 0;

    for (int i = 0; i < V; i++) {
        double want = (double)p[i] * n;
        sum += want > 0 ? (count[i] - want) * (count[i] - want) / want : count[i] * 1e9;
    }
    return sum;
}

/* A drafter that draws from another distribution, or that always says the same, changes nothing. */
static void sampling_keeps_the_distribution(void **state)
{
    float logits[2][V] = {{0, 1, 2, -1, 0.5f, 0, -3, 1}, {1, 0, 0, 2, 0, 0.3f, -1, 0}};
    float q[V] = {0.4f, 0.05f, 0.05f, 0.1f, 0.1f, 0.1f, 0.1f, 0.1f}, p[2][V], work[2 * V];
    struct pl_accept_rule rule = {.temperature = 0.8, .p = work};
    double first[3][V] = {{0}}, second[3][V] = {{0}}, n_second[3] = {0};
    const char *wanted = getenv("PACELINE_DRAWS"); /* bench/lossless.sh: 10⁶ */
    const uint64_t N = wanted ? strtoull(wanted, NULL, 10) : 100000;

    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(pl_accept_probs(&rule, logits[i], V, p[i], &err), PL_OK);
    for (int kind = 0; kind < 3; kind++) {
        for (uint64_t i = 0; i < N; i++) {
            struct pl_rng r;
            int32_t ids[2] = {2, 5}, path[2], next = -1;
            const int32_t parents[2] = {-1, -1};
            struct pl_proposal d = {.ids = ids, .k = kind == 1 ? 2 : 1};
            size_t n = 0;
            rule.key = pl_keyv(11, i, (uint64_t)kind);
            pl_rng_init(&r, pl_keyv(12, i, (uint64_t)kind));
            if (kind == 0) {
                d.q = q;
                ids[0] = pl_accept_draw(q, V, pl_rng_double(&r));
            } else if (kind == 1) {
                d.parents = parents; /* two children of the root, by no chance */
            }
            float rows[3][V];
            memcpy(rows[0], logits[0], sizeof(rows[0]));
            memcpy(rows[1], logits[1], sizeof(rows[1]));
            memcpy(rows[2], logits[1], sizeof(rows[2]));
            assert_int_equal(pl_accept(&rule, &d, &rows[0][0], V, 5, path, &n, &next, &err), PL_OK);
            first[kind][n ? ids[path[0]] : next]++;
            if (n) {
                second[kind][next]++;
                n_second[kind]++;
            }
        }
        assert_true(chi2(first[kind], p[0], (double)N) < 24.3);
        assert_true(n_second[kind] > 1000);
        assert_true(chi2(second[kind], p[1], n_second[kind]) < 24.3);
    }
    /* and the test can fail: q is not p */
    double wrong[V];
    for (int i = 0; i < V; i++)
        wrong[i] = (double)q[i] * (double)N;
    assert_true(chi2(wrong, p[0], (double)N) > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_chain), cmocka_unit_test(greedy_tree),
        cmocka_unit_test(masks_and_nan), cmocka_unit_test(sampling_keeps_the_distribution)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
