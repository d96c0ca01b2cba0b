/* Inside the coordinator. Nobody else includes this. */
#ifndef PL_ORCHESTRATOR_COORD_IMPL_H
#define PL_ORCHESTRATOR_COORD_IMPL_H

#include "base/clock.h"
#include "base/log.h"
#include "orchestrator/coord.h"
#include "orchestrator/progress.h"
#include "orchestrator/status.h"
#include "worker/rank/msg.h"

/* A rank that is or may become a worker: members[rank − 1], also its slot in the scheduler. */
struct member {
    bool hello, usable, welcomed, joined, out, bye, lost, waiting, recorded;
    struct pl_msg_hello said;
    struct pl_device_deal deal;
    uint32_t number; /* in /workers */
    int64_t heard;
    uint64_t done, failed, block; /* block: of the last lease, UINT64_MAX before */
};

enum coord_phase { COORD_JOINING, COORD_RUNNING, COORD_STOPPING, COORD_GOODBYE, COORD_OVER };

struct pl_coord {
    struct pl_coord_opts o;
    struct pl_comm *comm;
    enum coord_phase phase;
    struct member *members;
    uint32_t n_members;
    struct pl_session session;
    char *job_text;
    char results[4096];
    struct pl_progress progress;
    int64_t began, phase_since, status_at, status_every;
    bool busy, hard, failed_run, missing;
    int exit_code; /* −1: decided by the counts */
    char reason[512];
    uint8_t *bits; /* of a LEASE message */
    bool log_warned;
    unsigned failures_said;
    struct {        /* measure.energy */
        bool *done; /* [arms][contexts]; NULL: not looked up yet */
        size_t next;
        uint32_t slot; /* whose burst it is, once given */
        bool given, said;
    } bursts;
};

/* coord.c */
/* pl_log, not in the middle of the live progress line. */
void pl_coord_say(struct pl_coord *c, enum pl_log_level level, const char *fmt, ...)
    PL_PRINTF(3, 4);
void pl_coord_send(struct pl_coord *c, uint32_t slot, const void *msg, size_t n);
void pl_coord_fail(struct pl_coord *c, int exit_code, const char *fmt, ...) PL_PRINTF(3, 4);
void pl_coord_refuse(struct pl_coord *c, int exit_code, const char *fmt, ...) PL_PRINTF(3, 4);
/* coord_member.c */
void pl_coord_hear(struct pl_coord *c, uint32_t slot, const void *buf, size_t n, int64_t now);
void pl_coord_join(struct pl_coord *c, int64_t now, bool all_there);
void pl_coord_grant(struct pl_coord *c, uint32_t slot, int64_t now);
void pl_coord_lost(struct pl_coord *c, uint32_t slot);
json_t *pl_coord_workers(const struct pl_coord *c, int64_t now); /* for the status file */
/* coord_energy.c */
bool pl_coord_energy_left(struct pl_coord *c); /* bursts are wanted and not done */
/* Gives the next burst to somebody who waits; false: there is none, or nobody to do it. */
bool pl_coord_energy(struct pl_coord *c);
void pl_coord_burst(struct pl_coord *c, uint32_t slot, const struct pl_msg_burst *in);
/* coord_log.c */
void pl_coord_log(struct pl_coord *c, enum pl_log_kind kind, const void *record);
void pl_coord_log_session(struct pl_coord *c, bool end, int exit_code);
void pl_coord_log_worker(struct pl_coord *c, uint32_t slot, const char *cpus);

#endif
