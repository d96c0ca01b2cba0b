/* Things dealt out as members come for them: each once, whatever members do meanwhile. */
#include "model/cpu/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_take)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
