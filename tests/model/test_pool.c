/*
 * Things dealt out as members come for them: each once, whatever members do meanwhile. Barriers
 * with fewer and with more members than CPUs, sleep behind them, and the CPUs that members are
 * bound to.
 */
#include "model/cpu/pool.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <sched.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOOPS = 400, MOST = 61 };

struct deal {
    struct pl_pool *pool;
    size_t least;
    atomic_int times[LOOPS][MOST];
    atomic_int parts[LOOPS];
};

static size_t things(size_t loop)
{
    return loop * 7 % (MOST + 1);
}

/* No barrier between the loops, and one member is slow in some of them. */
static void take_all(void *arg, int m, int members)
{
    struct deal *d = arg;
    size_t begin, end;

    for (size_t l = 0; l < LOOPS; l++) {
        for (volatile int i = 0; (int)(l % 5) == m && i < 20000;)
            i = i + 1;
        pl_pool_loop(d->pool, m);
        while (pl_pool_take(d->pool, m, things(l), d->least, &begin, &end)) {
            atomic_fetch_add(&d->parts[l], 1);
            assert_true(begin < end && end <= things(l));
            assert_true(members == 1 || end - begin >= d->least || end == things(l));
            for (size_t i = begin; i < end; i++)
                atomic_fetch_add(&d->times[l][i], 1);
        }
    }
}

static void check(int threads, size_t least)
{
    struct deal *d = calloc(1, sizeof(*d));
    struct pl_err err;

    d->least = least;
    assert_int_equal(pl_pool_create(threads, NULL, 0, &d->pool, &err), PL_OK);
    for (int run = 1; run <= 3; run++) {
        pl_pool_run(d->pool, take_all, d);
        for (size_t l = 0; l < LOOPS; l++)
            for (size_t i = 0; i < MOST; i++)
                assert_int_equal(atomic_load(&d->times[l][i]), i < things(l) ? run : 0);
    }
    /* half of an equal share at first, then less: more parts than members */
    for (size_t l = 0; l < LOOPS; l++)
        if (threads > 1 && least == 1 && things(l) == MOST)
            assert_true(atomic_load(&d->parts[l]) >= 3 * threads);
    pl_pool_free(d->pool);
    free(d);
}

static void test_take(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 4; threads++)
        for (size_t least = 1; least <= 8; least += 7)
            check(threads, least);
}

enum { MEETINGS = 200, MEMBERS = 7 };

struct meetings {
    struct pl_pool *pool;
    int written[MEMBERS]; /* plain: the barrier is what orders them */
};

static void meet(void *arg, int m, int members)
{
    struct meetings *w = arg;

    for (int i = 1; i <= MEETINGS; i++) {
        w->written[m] = i;
        pl_pool_barrier(w->pool);
        for (int o = 0; o < members; o++)
            assert_int_equal(w->written[o], i);
        pl_pool_barrier(w->pool);
    }
}

static void test_barrier(void **state)
{
    struct pl_err err;

    (void)state;
    for (int threads = 1; threads <= MEMBERS; threads += 2) {
        struct meetings w = {0};
        assert_int_equal(pl_pool_create(threads, NULL, 0, &w.pool, &err), PL_OK);
        for (int run = 0; run < 3; run++)
            pl_pool_run(w.pool, meet, &w);
        pl_pool_free(w.pool);
    }
}

static int64_t cpu_ns(void)
{
    struct timespec t;

    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t), 0);
    return (int64_t)t.tv_sec * PL_NS_PER_S + t.tv_nsec;
}

/* Member 0 is late by 100 ms. */
static void late(void *arg, int m, int members)
{
    (void)arg;
    (void)members;
    if (m == 0)
        (void)usleep(100000);
}

/* Between runs, and at a barrier that one is late for, members do not spin for long. */
static void test_sleep(void **state)
{
    struct pl_pool *pool;
    struct pl_err err;

    (void)state;
    for (int threads = 2; threads <= 6; threads += 4) { /* 6: more than most test machines have */
        assert_int_equal(pl_pool_create(threads, NULL, 0, &pool, &err), PL_OK);
        int64_t begin = cpu_ns();
        for (int i = 0; i < 3; i++)
            pl_pool_run(pool, late, NULL);
        (void)usleep(300000);
        int64_t used = cpu_ns() - begin;
        print_message("%d threads, 600 ms of waiting: %.2f ms of CPU time\n", threads,
                      (double)used / PL_NS_PER_MS);
        assert_true(used < 30 * PL_NS_PER_MS);
        pl_pool_free(pool);
    }
}

/* Each member's affinity, as it is found while it runs. */
static void look(void *arg, int m, int members)
{
    cpu_set_t *sets = arg;

    (void)members;
    assert_int_equal(sched_getaffinity(0, sizeof(*sets), &sets[m]), 0);
}

static void test_affinity(void **state)
{
    cpu_set_t before, sets[3];
    struct pl_pool *pool;
    struct pl_err err;
    int cpus[2], n = 0;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    for (int i = 0; i < CPU_SETSIZE && n < 2; i++)
        if (CPU_ISSET(i, &before))
            cpus[n++] = i;
    /* without a list members stay where the process may be, and are no more than that allows */
    assert_int_equal(pl_pool_create(3, NULL, 0, &pool, &err), PL_OK);
    pl_pool_run(pool, look, sets);
    for (int m = 0; m < 3; m++)
        assert_true(CPU_EQUAL(&sets[m], &before));
    pl_pool_free(pool);
    assert_int_equal(pl_pool_create(0, NULL, 0, &pool, &err), PL_OK);
    assert_in_range(pl_pool_threads(pool), 1, CPU_COUNT(&before));
    pl_pool_free(pool);
    /* with one each has its own, in turn */
    assert_int_equal(pl_pool_create(3, cpus, (size_t)n, &pool, &err), PL_OK);
    pl_pool_run(pool, look, sets);
    for (int m = 0; m < 3; m++) {
        assert_int_equal(CPU_COUNT(&sets[m]), 1);
        assert_true(CPU_ISSET(cpus[m % n], &sets[m]));
    }
    pl_pool_free(pool);
    assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
    cpus[0] = CPU_SETSIZE;
    assert_int_equal(pl_pool_create(1, cpus, 1, &pool, &err), PL_ERANGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_take), cmocka_unit_test(test_barrier),
                                       cmocka_unit_test(test_sleep),
                                       cmocka_unit_test(test_affinity)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
