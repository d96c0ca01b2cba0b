/* A load's number finds its engine whatever happened to the lease meanwhile. */
#include "base/clock.h"
#include "worker/rank/worker_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

/* LOAD is out; the lease is taken away; then rank 0 says the number. */
static void number_after_the_lease(void **state)
{
    struct pl_job job = {.n_engines = 1};
    struct engine engines[2] = {{.load = 4, .load_seq = 7}};
    struct pl_worker w = {.job = &job, .engines = engines, .seq = 7, .last_sent = pl_now_ns()};

    (void)state;
    w.block.msg = calloc(1, sizeof *w.block.msg);
    w.block.revoked = true;
    pl_block_end(&w);
    assert_int_equal(pl_engines_need(&w, 0, 0), NEED_WAIT); /* no trial names a load unheard of */
    pl_engine_acked(&w, 6, 5);                              /* of another message */
    assert_int_equal(pl_engines_need(&w, 0, 0), NEED_WAIT);
    pl_engine_acked(&w, 7, 9);
    assert_int_equal(pl_engines_need(&w, 0, 0), NEED_READY);
    assert_int_equal(engines[0].load, 9);
    pl_engine_acked(&w, 8, 1); /* a failure's */
    assert_int_equal(engines[0].load, 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(number_after_the_lease)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
