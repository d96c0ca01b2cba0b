#include "base/clock.h"

#include "unit.h"

#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

static volatile sig_atomic_t alarms;

static void on_alarm(int sig)
{
    (void)sig;
    alarms++;
}

static void clocks_run(void **state)
{
    int64_t a = pl_now_ns(), b = pl_now_ns();

    (void)state;
    assert_true(b >= a);
    assert_true(pl_wall_ns() / PL_NS_PER_S >= (int64_t)time(NULL) - 2);
    int64_t cpu = pl_cpu_ns();
    for (volatile int i = 0; i < 5000000; i++)
        continue;
    assert_true(pl_cpu_ns() > cpu);
}

static void sleep_outlasts_signals(void **state)
{
    struct sigaction sa;
    struct itimerval every = {.it_interval = {.tv_usec = 3000}, .it_value = {.tv_usec = 3000}};
    const struct itimerval off = {0};

    (void)state;
    memset(&sa, 0, sizeof(sa));
    sa.sa_handler = on_alarm; /* no SA_RESTART */
    assert_int_equal(sigaction(SIGALRM, &sa, NULL), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &every, NULL), 0);
    int64_t t = pl_now_ns();
    pl_sleep_ns(40 * PL_NS_PER_MS);
    t = pl_now_ns() - t;
    setitimer(ITIMER_REAL, &off, NULL);
    assert_true(alarms > 0);
    assert_true(t >= 40 * PL_NS_PER_MS);
}

static void sleep_of_nothing(void **state)
{
    int64_t t = pl_now_ns();

    (void)state;
    pl_sleep_ns(0);
    pl_sleep_ns(-PL_NS_PER_S);
    pl_sleep_ns(INT64_MIN);
    assert_true(pl_now_ns() - t < PL_NS_PER_S);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clocks_run),
        cmocka_unit_test(sleep_outlasts_signals),
        cmocka_unit_test(sleep_of_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
