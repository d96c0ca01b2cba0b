#include "base/clock.h"

#include <errno.h>
#include <time.h>

static int64_t read_clock(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * PL_NS_PER_S + t.tv_nsec;
}

int64_t pl_now_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t pl_wall_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

int64_t pl_cpu_ns(void)
{
    return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

void pl_sleep_ns(int64_t ns)
{
    if (ns <= 0)
        return;
    int64_t now = pl_now_ns();
    int64_t end = ns > INT64_MAX - now ? INT64_MAX : now + ns;
    struct timespec t = {.tv_sec = (time_t)(end / PL_NS_PER_S),
                         .tv_nsec = (long)(end % PL_NS_PER_S)};
    /* an absolute end: restarts do not add up */
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        continue;
}
