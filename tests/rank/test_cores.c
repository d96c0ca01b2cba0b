/* Shares of cores: contiguous, disjoint while there are enough, never empty. */
#include "worker/rank/cores.h"

#include "base/cgroup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

/* 2 cores without hyperthreads; 4 cores whose second threads are numbered 4 … 7; a cpuset with
 * holes. */
static const struct pl_pu plain[] = {{0, 0}, {1, 1}};
static const struct pl_pu smt[] = {{0, 0}, {4, 0}, {1, 1}, {5, 1}, {2, 2}, {6, 2}, {3, 3}, {7, 3}};
static const struct pl_pu holes[] = {{2, 7}, {3, 8}, {8, 20}, {9, 21}, {12, 22}};

static void shares(void **state)
{
    static const struct {
        const struct pl_pu *pus;
        size_t n;
        double quota;
        int index, count;
        const char *list;
        int threads;
    } cases[] = {
        {plain, 2, 0, 0, 1, "0-1", 2},
        {plain, 2, 0, 0, 2, "0", 1},
        {plain, 2, 0, 1, 2, "1", 1},
        {plain, 2, 0, 2, 5, "0", 1}, /* more workers than processors take turns */
        {plain, 2, 0, 3, 5, "1", 1},
        {smt, 8, 0, 0, 1, "0-7", 4}, /* a thread a core, its hyperthreads after it */
        {smt, 8, 0, 0, 2, "0-1,4-5", 2},
        {smt, 8, 0, 1, 2, "2-3,6-7", 2},
        {smt, 8, 0, 0, 3, "0,4", 1},
        {smt, 8, 0, 1, 3, "1,5", 1},
        {smt, 8, 0, 2, 3, "2-3,6-7", 2},
        {smt, 8, 0, 0, 6, "0", 1}, /* more workers than cores: hyperthreads */
        {smt, 8, 0, 1, 6, "4", 1},
        {smt, 8, 0, 2, 6, "1,5", 1},
        {smt, 8, 0, 7, 8, "7", 1},
        {holes, 5, 0, 0, 1, "2-3,8-9,12", 5},
        {holes, 5, 0, 0, 2, "2-3", 2},
        {holes, 5, 0, 1, 2, "8-9,12", 3},
        {smt, 8, 2.0, 0, 1, "0-7", 2}, /* the quota bounds threads, not places */
        {smt, 8, 2.0, 0, 2, "0-1,4-5", 1},
        {smt, 8, 0.5, 0, 1, "0-7", 1},
        {smt, 8, 3.5, 0, 1, "0-7", 3},
        {smt, 8, 100, 0, 1, "0-7", 4},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char list[PL_CORES_LIST];
        struct pl_err err;
        int threads = 0;
        assert_int_equal(pl_cores_split(cases[i].pus, cases[i].n, cases[i].quota, cases[i].index,
                                        cases[i].count, list, sizeof(list), &threads, &err),
                         PL_OK);
        assert_string_equal(list, cases[i].list);
        assert_int_equal(threads, cases[i].threads);
    }
}

/* Whatever the counts: every processor is somebody's, and nobody else's while there are enough. */
static void nothing_is_lost(void **state)
{
    struct pl_pu pus[96];

    (void)state;
    for (uint32_t i = 0; i < 96; i++)
        pus[i] = (struct pl_pu){.pu = i / 2 + (i % 2) * 48, .core = i / 2};
    for (int workers = 1; workers <= 200; workers++) {
        int owners[96] = {0};
        for (int w = 0; w < workers; w++) {
            char list[PL_CORES_LIST];
            uint32_t mine[96];
            struct pl_err err;
            int threads;
            assert_int_equal(
                pl_cores_split(pus, 96, 0, w, workers, list, sizeof(list), &threads, &err), PL_OK);
            size_t n = pl_cores_parse(list, mine, 96);
            assert_in_range(n, 1, 96);
            assert_in_range(threads, 1, (int)n);
            for (size_t i = 0; i < n; i++)
                owners[mine[i]]++;
        }
        for (int i = 0; i < 96; i++)
            assert_in_range(owners[i], 1, workers <= 96 ? 1 : 3);
    }
}

static void wrong_shares(void **state)
{
    char list[PL_CORES_LIST] = "kept";
    struct pl_err err;
    int threads = 77;

    (void)state;
    assert_int_equal(pl_cores_split(smt, 8, 0, 2, 2, list, sizeof(list), &threads, &err),
                     PL_ERANGE);
    assert_int_equal(pl_cores_split(smt, 8, 0, -1, 2, list, sizeof(list), &threads, &err),
                     PL_ERANGE);
    assert_int_equal(pl_cores_split(smt, 0, 0, 0, 1, list, sizeof(list), &threads, &err),
                     PL_ERANGE);
    assert_int_equal(pl_cores_split(holes, 5, 0, 0, 1, list, 10, &threads, &err), PL_ERANGE);
    assert_string_equal(list, "kept");
    assert_int_equal(threads, 77);
    assert_int_equal(pl_cores_split(holes, 5, 0, 0, 1, list, 11, &threads, &err), PL_OK);
}

static void lists(void **state)
{
    static const char *const bad[] = {"",
                                      ",",
                                      "1,",
                                      "a",
                                      "1-",
                                      "-1",
                                      "3-1",
                                      "1 2",
                                      "1,,2",
                                      "0-8",
                                      "99999999999999999999",
                                      "4294967295"};
    uint32_t pus[8];

    (void)state;
    assert_int_equal(pl_cores_parse("3,0-1,7", pus, 8), 4);
    assert_int_equal(pus[0], 3);
    assert_int_equal(pus[2], 1);
    assert_int_equal(pus[3], 7);
    assert_int_equal(pl_cores_parse("0-7", pus, 8), 8);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(pl_cores_parse(bad[i], pus, 8), 0);
}

/* On this machine: within what is allowed, and the same when this process is bound to one
 * processor, as mpirun binds ranks. */
static void this_node(void **state)
{
    char list[PL_CORES_LIST] = "", bound[PL_CORES_LIST] = "";
    uint32_t pus[4096];
    struct pl_err err = {""};
    cpu_set_t old, one;
    int threads = 0, threads_bound = 0;
    size_t n;

    (void)state;
    assert_int_equal(pl_cores_share(0, 1, list, sizeof(list), &threads, &err), PL_OK);
    n = pl_cores_parse(list, pus, 4096);
    assert_in_range(n, 1, 4096);
    assert_in_range(threads, 1, (int)n);
    print_message("processors %s, %d threads, quota %.2f\n", list, threads, pl_cpu_quota(""));
    assert_int_equal(sched_getaffinity(0, sizeof(old), &old), 0);
    CPU_ZERO(&one);
    CPU_SET(pus[0], &one);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    assert_int_equal(pl_cores_share(0, 1, bound, sizeof(bound), &threads_bound, &err), PL_OK);
    assert_int_equal(sched_setaffinity(0, sizeof(old), &old), 0);
    assert_string_equal(list, bound);
    assert_int_equal(threads, threads_bound);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares), cmocka_unit_test(nothing_is_lost), cmocka_unit_test(wrong_shares),
        cmocka_unit_test(lists),  cmocka_unit_test(this_node),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
