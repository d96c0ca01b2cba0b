/*
 * FILE.status.json: what a batch script reads when launchers hide exit codes. Replaced atomically.
 * The first line holds the keys of CONTRACTS §4 {state, exit, done, failed, left, reason}, one
 * each, so that sed can read them; then come the extras that `paceline status` shows: session,
 * ranks, host, pid, unix_ns, rate_per_s, eta_s, workers.
 */
#ifndef PL_ORCHESTRATOR_STATUS_H
#define PL_ORCHESTRATOR_STATUS_H

#include "base/json.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct pl_run_status {
    const char *state; /* running, done, interrupted, failed */
    int exit_code;     /* −1: not ended (null) */
    uint64_t done, failed, left;
    const char *reason;       /* "" when there is nothing to say */
    double rate_per_s, eta_s; /* < 0: not known (null) */
    unsigned session, ranks;
    json_t *workers; /* borrowed; NULL: none */
};

/* durable: also fsynced (begin and end; not at every interval). */
PL_MUST_CHECK
enum pl_status pl_run_status_write(const char *results, const struct pl_run_status *s, bool durable,
                                   struct pl_err *err);
/* The file as an object (new reference), NULL when there is none or it is not whole. */
json_t *pl_run_status_read(const char *results);

#endif
