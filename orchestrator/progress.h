/* How far a run is, for a person: a live line where stderr is a terminal, one plain line an
 * interval elsewhere, a JSON line with
 * --log-json. The rate is that of the last minute or so of this session. */
#ifndef PL_ORCHESTRATOR_PROGRESS_H
#define PL_ORCHESTRATOR_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct pl_progress {
    int64_t began, last_said, last_mark;
    uint64_t first, marked; /* settled rows at the begin, at the last mark */
    double rate;            /* rows a second; < 0: not known yet */
    bool live, json, shown; /* shown: a live line stands on the terminal */
};

struct pl_progress_now {
    uint64_t done, failed, left, rows;
    unsigned workers;
};

void pl_progress_init(struct pl_progress *p, bool json, int64_t now, uint64_t settled);
/* Keeps the rate; prints when it is time. */
void pl_progress_step(struct pl_progress *p, int64_t now, const struct pl_progress_now *at);
/* Ends the live line, so that other output starts on its own. */
void pl_progress_clear(struct pl_progress *p);
double pl_progress_eta(const struct pl_progress *p, uint64_t left); /* s; < 0: not known */

#endif
