/*
 * Which cores a worker's runner gets. The node's usable PUs are what the cgroup's cpuset allows (by
 * hwloc), never the mask that mpirun gave the rank; they are split among the local workers core by
 * core. Pure but for pl_cores_share.
 */
#ifndef PL_WORKER_RANK_CORES_H
#define PL_WORKER_RANK_CORES_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#define PL_CORES_LIST 4096 /* bytes that any list of this header fits in */

struct pl_pu {
    uint32_t pu; /* the system's number, as in sched_setaffinity */
    uint32_t
        core; /* physical core, any numbering; PUs of one core are hyperthreads of each other */
};

/*
 * The share of worker local_index (0 … local_count − 1) on this node, as a list "0-3,8" of PU
 * numbers: one PU of each of its cores first, then their hyperthreads. *n_threads: threads worth
 * starting, one a physical core, fewer where the cgroup's CPU quota is smaller. Never empty: with
 * more workers than PUs they take turns. PL_ERANGE: local_index out of range, or list too small.
 */
PL_MUST_CHECK
enum pl_status pl_cores_share(int local_index, int local_count, char *list, size_t size,
                              int *n_threads, struct pl_err *err);

/* The splitting alone. pus: in the topology's order (neighbours adjacent), all of one core
 * adjacent, n ≥ 1. quota: CPUs that the node's cgroup may use at once, 0: no limit. */
PL_MUST_CHECK
enum pl_status pl_cores_split(const struct pl_pu *pus, size_t n, double quota, int local_index,
                              int local_count, char *list, size_t size, int *n_threads,
                              struct pl_err *err);

/* "0-1,4" → the numbers in order, into pus[cap]; how many there are, 0 for anything that is not
 * such a list. */
size_t pl_cores_parse(const char *list, uint32_t *pus, size_t cap);

#endif
