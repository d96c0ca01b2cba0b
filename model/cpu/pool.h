/*
 * A team of threads that runs one function together. The calling thread is member 0. Members meet
 * at barriers, where they spin for some tens of µs and then sleep (at once when there are more
 * members than CPUs, or than the control group lets run at once). One caller at a time.
 */
#ifndef PL_MODEL_CPU_POOL_H
#define PL_MODEL_CPU_POOL_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

#define PL_POOL_MAX 1024

struct pl_pool;

/* threads 0: n_cpus when given, else as many as the process may use (affinity, control group).
 * Member i is bound to cpus[i mod n_cpus]; the caller, member 0, is bound when it first runs
 * something on this pool. */
PL_MUST_CHECK
enum pl_status pl_pool_create(int threads, const int *cpus, size_t n_cpus, struct pl_pool **out,
                              struct pl_err *err);
void pl_pool_free(struct pl_pool *p); /* accepts NULL */
int pl_pool_threads(const struct pl_pool *p);
/* The CPUs it was given, borrowed; 0: none. */
size_t pl_pool_cpus(const struct pl_pool *p, const int **cpus);
/* fn(arg, member, members) on every member; returns when all are done. */
void pl_pool_run(struct pl_pool *p, void (*fn)(void *arg, int member, int members), void *arg);
/* Within fn: waits for all members; what was written before is seen by all after. */
void pl_pool_barrier(struct pl_pool *p);

/* Within fn: member m begins a loop over things that are dealt out as members come for them, so
 * that one whose core does other work as well holds nobody up. All members begin the same loops in
 * the same order; no barrier. */
void pl_pool_loop(struct pl_pool *p, int m);
/* The next things [*begin, *end) of the n of m's loop: half of an equal share of those that are
 * left, at least `least`; false: all are taken. */
bool pl_pool_take(struct pl_pool *p, int m, size_t n, size_t least, size_t *begin, size_t *end);

/* Member m's part [*begin, *end) of n things, in order, sizes differing by at most one. */
static inline void pl_pool_share(size_t n, int m, int members, size_t *begin, size_t *end)
{
    size_t k = (size_t)members, i = (size_t)m;

    *begin = n / k * i + (n % k < i ? n % k : i);
    *end = *begin + n / k + (i < n % k);
}

#endif
