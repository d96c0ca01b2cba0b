/* The clocks. Durations and deadlines are monotonic integer ns; wall time is for stamps only. */
#ifndef PL_BASE_CLOCK_H
#define PL_BASE_CLOCK_H

#include <stdint.h>

#define PL_NS_PER_S INT64_C(1000000000)
#define PL_NS_PER_MS INT64_C(1000000)
#define PL_NS_PER_US INT64_C(1000)

int64_t pl_now_ns(void);      /* CLOCK_MONOTONIC */
int64_t pl_wall_ns(void);     /* CLOCK_REALTIME, unix ns */
int64_t pl_cpu_ns(void);      /* CLOCK_PROCESS_CPUTIME_ID */
void pl_sleep_ns(int64_t ns); /* restarts after signals; ≤ 0 returns at once */

#endif
