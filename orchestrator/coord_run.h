/* A run from end to end: rank 0 with its file and its lock, a worker's rank, and both in one
 * process. */
#ifndef PL_ORCHESTRATOR_COORD_RUN_H
#define PL_ORCHESTRATOR_COORD_RUN_H

#include "orchestrator/plan.h"
#include "worker/rank/comm.h"

#include <stdbool.h>
#include <stdint.h>

struct pl_run_opts {
    struct pl_comm *comm; /* NULL: one process is both; else MPI's. Closed by the run */
    bool by_mpirun;       /* INT and TERM leave a second only */
    const char *program;  /* path of paceline-runner */
    const char *results;  /* as given */
    const char *sweep_sha, *sweep_error; /* pl_job_sweep_sha, or "" and why it cannot be read */
    bool resume, rerun_failed, log_json;
    uint32_t retries;
    int64_t max_fails; /* < 0: no limit */
    double lease_s;    /* 0: 30 */
};

/* Absolute path of a results file that need not be there yet; PL_ENOENT, PL_EIO: its directory is
 * missing or not writable; PL_EEXIST when it is there and may not be. */
PL_MUST_CHECK
enum pl_status pl_run_check_output(const char *results, bool may_exist, char *out, size_t size,
                                   struct pl_err *err);
/* Rank ≥ 1: a worker until rank 0 says otherwise. Returns the exit code. */
int pl_run_worker(const struct pl_run_opts *o);
/* Rank 0 (or the only one), with its plan made. Messages go to stderr. Returns the exit code. */
int pl_run_coordinator(const struct pl_run_opts *o, const struct pl_sweep *sweep,
                       const struct pl_plan *plan);
/* A start that failed before its first trial, when there is a results file and no status file:
 * writes one, since a batch script that sees a results file and no word on this start takes it for
 * an interrupted run and starts it for ever. */
void pl_run_leave_word(const char *results, int exit_code, const char *reason);
/* Rank 0 when it cannot begin: the workers go home with the same code. Returns it. */
int pl_run_refuse(const struct pl_run_opts *o, int exit_code);

#endif
