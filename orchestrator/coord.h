/*
 * The coordinator: rank 0's half of a run. Workers come (HELLO), get a device set (WELCOME), take
 * blocks, report rows; the coordinator keeps the scheduler, the file's logs, FILE.status.json and
 * the progress line, and decides when the run is over. It never waits: pl_coord_step does what is
 * there and returns. No call is collective. One thread.
 */
#ifndef PL_ORCHESTRATOR_COORD_H
#define PL_ORCHESTRATOR_COORD_H

#include "orchestrator/plan.h"
#include "orchestrator/resume.h"
#include "orchestrator/sched.h"
#include "results/writer.h"
#include "worker/rank/comm.h"

#include <stdbool.h>
#include <stdint.h>

struct pl_coord;

struct pl_coord_opts {
    struct pl_comm *comm;  /* borrowed: ranks 1 … size − 1 are workers */
    unsigned ranks;        /* of the job, for the records (1 without MPI) */
    const char *results;   /* path, the same on every host */
    const char *sweep_sha; /* pl_job_sweep_sha of what rank 0 read */
    const struct pl_sweep *sweep;
    const struct pl_plan *plan;
    struct pl_sched *sched;           /* borrowed; rows of earlier sessions are settled in it */
    const struct pl_session *session; /* copied */
    struct pl_writer *writer;         /* borrowed; for logs alone */
    json_t *job;                      /* pl_job_make's; borrowed */
    const json_t *provenance;         /* of this session */
    int64_t lease_ns, grace_ns;
    int64_t join_ns;   /* how long to wait for all ranks before the first block; 0: 20 s */
    int64_t end_ns;    /* how long to wait for the last words; 0: 15 s */
    int64_t max_fails; /* more failed trials end the run; < 0: no limit */
    bool log_json;
};

PL_MUST_CHECK
enum pl_status pl_coord_new(const struct pl_coord_opts *opts, struct pl_coord **out,
                            struct pl_err *err);
void pl_coord_free(struct pl_coord *c);

/* Does what there is to do at `now` (monotonic ns). False once the run is over: the status is
 * written, every worker that is alive has said BYE or had its time. */
bool pl_coord_step(struct pl_coord *c, int64_t now);
bool pl_coord_busy(const struct pl_coord *c); /* the last step did something */
/* Ends the run before its time. hard: FILE.status.json is written at once and nobody is waited for
 * longer than half a second; else every worker finishes the trial in hand. May be called again to
 * turn soft into hard. */
void pl_coord_stop(struct pl_coord *c, bool hard, const char *reason);
/* After the end: exit code of CONTRACTS §4, and whether a worker is missing, so that MPI_Finalize
 * could hang. */
int pl_coord_exit_code(const struct pl_coord *c);
bool pl_coord_missing(const struct pl_coord *c);

/* For a rank 0 that cannot even begin: tells every worker to go home with `exit_code` and waits for
 * them up to wait_ns. True: all have. text: what they print; "" when rank 0 has said it. */
bool pl_coord_refuse_all(struct pl_comm *comm, int exit_code, const char *text, int64_t wait_ns);

#endif
