/*
 * A worker: takes leases from rank 0, drives its runners through them, writes the rows. It never
 * blocks in MPI and never waits for a runner longer than it is told to: its owner calls
 * pl_worker_step in a loop. Local; one thread.
 */
#ifndef PL_WORKER_RANK_WORKER_H
#define PL_WORKER_RANK_WORKER_H

#include "base/status.h"
#include "worker/rank/comm.h"

#include <stdbool.h>
#include <stdint.h>

struct pl_worker;

struct pl_worker_opts {
    struct pl_comm *comm; /* borrowed; its rank 0 is the coordinator */
    int mpi_rank;         /* for /workers: the rank of this process, 0 without MPI */
    const char *program;  /* path of paceline-runner */
    const char
        *sweep_sha;    /* of the sweep file's text and the selection as seen here; "" with error */
    const char *error; /* why this rank cannot take part; NULL else */
    int64_t vanish_ns; /* rank 0 silent for so long: it is gone. 0: 60 s */
    /* Takes the workers' lock on the results file before it is opened; NULL: none. */
    enum pl_status (*lock)(void *ctx, const char *results, struct pl_err *err);
    void *lock_ctx;
};

/* Copies the options. */
PL_MUST_CHECK
enum pl_status pl_worker_new(const struct pl_worker_opts *opts, struct pl_worker **out,
                             struct pl_err *err);
/* Kills the runners, closes the file. NULL is fine. */
void pl_worker_free(struct pl_worker *w);

enum pl_worker_state {
    PL_WORKER_RUNS,
    PL_WORKER_ENDED, /* it said BYE: nothing more to do */
    PL_WORKER_ALONE  /* rank 0 is gone */
};
/* Handles what is there, then waits up to wait_ns for the runner, or sleeps where there is none to
 * wait for. */
enum pl_worker_state pl_worker_step(struct pl_worker *w, int64_t wait_ns);
/* True when the last step did something. */
bool pl_worker_busy(const struct pl_worker *w);
/* A signal: no new trial; hard: the one in hand is dropped, too. Rank 0 is told. */
void pl_worker_stop(struct pl_worker *w, bool hard);
/* Kills the runners at once, without a word to anyone. */
void pl_worker_kill(struct pl_worker *w);
int pl_worker_exit_code(const struct pl_worker *w);
/* Rank 0 refused this worker: its text; NULL else. */
const char *pl_worker_refusal(const struct pl_worker *w);

#endif
