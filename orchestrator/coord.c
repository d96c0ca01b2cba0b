/* The coordinator's clockwork: phases, expiry, status, the end. */
#include "orchestrator/coord_impl.h"

#include "base/log.h"
#include "orchestrator/job.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOIN_NS (20 * PL_NS_PER_S)
#define END_NS (15 * PL_NS_PER_S)
#define HARD_END_NS (500 * PL_NS_PER_MS)
#define STATUS_NS (2 * PL_NS_PER_S)
#define MESSAGES_MAX 4096 /* a step: signals and clocks are looked at in between */

/* ---- life ---- */

enum pl_status pl_coord_new(const struct pl_coord_opts *opts, struct pl_coord **out,
                            struct pl_err *err)
{
    struct pl_coord *c = calloc(1, sizeof *c);
    struct pl_sched_counts n;
    if (!c)
        return pl_fail(err, PL_ENOMEM, "coordinator");
    c->o = *opts;
    c->comm = opts->comm;
    c->session = *opts->session;
    c->exit_code = -1;
    c->n_members = (uint32_t)opts->comm->size - 1;
    c->members = calloc(c->n_members + 1, sizeof *c->members);
    c->job_text = json_dumps(opts->job, JSON_COMPACT | JSON_REAL_PRECISION(17));
    c->bits = malloc(sizeof(struct pl_msg_lease) + 2 * PL_BITS(pl_sched_max_cells(opts->sched)));
    if (!c->members || !c->job_text || !c->bits) {
        pl_coord_free(c);
        return pl_fail(err, PL_ENOMEM, "coordinator");
    }
    for (uint32_t s = 0; s < c->n_members; s++)
        c->members[s].block = UINT64_MAX;
    if (c->o.join_ns <= 0)
        c->o.join_ns = JOIN_NS;
    if (c->o.end_ns <= 0)
        c->o.end_ns = END_NS;
    c->began = c->phase_since = pl_now_ns();
    c->status_every = STATUS_NS;
    pl_sched_count(c->o.sched, &n);
    pl_progress_init(&c->progress, c->o.log_json, c->began, n.done + n.failed);
    pl_coord_log_session(c, false, 0);
    *out = c;
    return PL_OK;
}

void pl_coord_free(struct pl_coord *c)
{
    if (!c)
        return;
    free(c->bursts.done);
    free(c->members);
    free(c->job_text);
    free(c->bits);
    free(c);
}

void pl_coord_send(struct pl_coord *c, uint32_t slot, const void *msg, size_t n)
{
    struct pl_err err;
    if (pl_comm_send(c->comm, (int)slot + 1, msg, n, &err) != PL_OK)
        pl_coord_say(c, PL_LOG_ERROR, "%s", err.text);
}

void pl_coord_say(struct pl_coord *c, enum pl_log_level level, const char *fmt, ...)
{
    char text[1400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    pl_progress_clear(&c->progress);
    pl_log(level, "%s", text);
}

static void to_phase(struct pl_coord *c, enum coord_phase phase)
{
    c->phase = phase;
    c->phase_since = pl_now_ns();
    c->busy = true;
}

/* ---- status ---- */

static int code_of_counts(const struct pl_sched_counts *n)
{
    if (n->left > 0)
        return 5;
    return n->failed == 0 ? 0 : n->done == 0 ? 4 : 3;
}

int pl_coord_exit_code(const struct pl_coord *c)
{
    struct pl_sched_counts n;
    if (c->exit_code >= 0)
        return c->exit_code;
    pl_sched_count(c->o.sched, &n);
    return code_of_counts(&n);
}

static void write_status(struct pl_coord *c, bool ended, int64_t now)
{
    struct pl_sched_counts n;
    struct pl_err err;
    pl_sched_count(c->o.sched, &n);
    const int code = pl_coord_exit_code(c);
    if (ended && !*c->reason && n.failed)
        snprintf(c->reason, sizeof c->reason, "%" PRIu64 " of %" PRIu64 " trials failed",
                 (uint64_t)n.failed, (uint64_t)(n.done + n.failed + n.left));
    struct pl_run_status s = {.state = "running",
                              .exit_code = ended ? code : -1,
                              .done = n.done,
                              .failed = n.failed,
                              .left = n.left,
                              .reason = c->reason,
                              .rate_per_s = c->progress.rate,
                              .eta_s = ended ? -1 : pl_progress_eta(&c->progress, n.left),
                              .session = c->session.number,
                              .ranks = c->o.ranks,
                              .workers = pl_coord_workers(c, now)};
    if (ended)
        s.state = code == 0 || (code == 3 && n.left == 0) ? "done"
                  : code == 5                             ? "interrupted"
                                                          : "failed";
    if (pl_run_status_write(c->o.results, &s, ended, &err) != PL_OK && !c->log_warned) {
        c->log_warned = true;
        pl_coord_say(c, PL_LOG_WARN, "%s", err.text);
    }
    json_decref(s.workers);
    c->status_at = pl_now_ns();
    /* on a slow file system less often: at most 2 % of the time */
    c->status_every = (c->status_at - now) * 50 > STATUS_NS ? (c->status_at - now) * 50 : STATUS_NS;
}

/* ---- ends ---- */

/* A failing that nothing can be done about: the run ends. */
void pl_coord_fail(struct pl_coord *c, int exit_code, const char *fmt, ...)
{
    va_list ap;
    if (c->phase >= COORD_STOPPING)
        return;
    va_start(ap, fmt);
    vsnprintf(c->reason, sizeof c->reason, fmt, ap);
    va_end(ap);
    pl_progress_clear(&c->progress);
    pl_coord_say(c, PL_LOG_ERROR, "%s", c->reason);
    c->exit_code = exit_code;
    pl_coord_stop(c, false, c->reason);
}

void pl_coord_refuse(struct pl_coord *c, int exit_code, const char *fmt, ...)
{
    struct pl_msg_refuse m = {.head = pl_msg_head(PL_MSG_REFUSE), .exit_code = exit_code};
    va_list ap;
    if (c->phase >= COORD_STOPPING)
        return;
    va_start(ap, fmt);
    vsnprintf(c->reason, sizeof c->reason, fmt, ap);
    va_end(ap);
    pl_coord_say(c, PL_LOG_ERROR, "%s", c->reason);
    c->exit_code = exit_code;
    for (uint32_t s = 0; s < c->n_members; s++)
        if (c->members[s].hello)
            pl_coord_send(c, s, &m, sizeof m);
    to_phase(c, COORD_STOPPING);
}

void pl_coord_stop(struct pl_coord *c, bool hard, const char *reason)
{
    const struct pl_msg_stop m = {.head = pl_msg_head(PL_MSG_STOP), .hard = hard};
    if (c->phase >= COORD_GOODBYE || (c->phase == COORD_STOPPING && (!hard || c->hard)))
        return;
    if (c->reason != reason)
        snprintf(c->reason, sizeof c->reason, "%s", reason);
    c->hard |= hard;
    pl_progress_clear(&c->progress);
    if (c->exit_code < 0 || hard)
        pl_coord_say(c, PL_LOG_INFO, "stopping%s: %s",
                     hard ? " at once" : "; the trials in hand are finished", reason);
    for (uint32_t s = 0; s < c->n_members; s++)
        if (c->members[s].hello && !c->members[s].bye)
            pl_coord_send(c, s, &m, sizeof m);
    if (hard)
        write_status(c, true, pl_now_ns());
    to_phase(c, COORD_STOPPING);
}

bool pl_coord_missing(const struct pl_coord *c)
{
    return c->missing;
}

static bool all_gone(const struct pl_coord *c)
{
    for (uint32_t s = 0; s < c->n_members; s++)
        if (!c->members[s].bye && !c->members[s].lost)
            return false;
    return true;
}

/* Every row is settled. */
static void finish(struct pl_coord *c, int64_t now)
{
    const struct pl_msg_finish m = {.head = pl_msg_head(PL_MSG_FINISH)};
    struct pl_err err = {""};
    pl_progress_clear(&c->progress);
    pl_coord_log_session(c, true, pl_coord_exit_code(c));
    if (pl_writer_sync(c->o.writer, &err) != PL_OK)
        pl_coord_say(c, PL_LOG_ERROR, "%s", err.text);
    write_status(c, true, now);
    for (uint32_t s = 0; s < c->n_members; s++)
        if (c->members[s].hello && !c->members[s].bye)
            pl_coord_send(c, s, &m, sizeof m);
    to_phase(c, COORD_GOODBYE);
}

static void over(struct pl_coord *c, int64_t now)
{
    if (c->phase == COORD_STOPPING) {
        pl_coord_log_session(c, true, pl_coord_exit_code(c));
        write_status(c, true, now);
    }
    for (uint32_t s = 0; s < c->n_members; s++)
        c->missing |= !c->members[s].bye;
    to_phase(c, COORD_OVER);
}

/* ---- the clockwork ---- */

static void expire(struct pl_coord *c, int64_t now)
{
    const int64_t most = c->o.lease_ns + c->o.grace_ns;
    uint32_t slot;
    uint64_t lease;
    while (pl_sched_expire(c->o.sched, now, &slot, &lease)) {
        const struct pl_msg_revoked m = {.head = pl_msg_head(PL_MSG_REVOKED), .lease = lease};
        pl_coord_send(c, slot, &m, sizeof m);
        c->busy = true;
    }
    for (slot = 0; slot < c->n_members; slot++) {
        struct member *m = &c->members[slot];
        if (m->welcomed && !m->bye && !m->lost && now - m->heard > most)
            pl_coord_lost(c, slot);
    }
}

static bool all_hello(const struct pl_coord *c)
{
    for (uint32_t s = 0; s < c->n_members; s++)
        if (!c->members[s].hello)
            return false;
    return true;
}

static void look_for_late_ones(struct pl_coord *c, int64_t now)
{
    for (uint32_t s = 0; s < c->n_members; s++) {
        if (c->members[s].usable && !c->members[s].welcomed) {
            pl_coord_join(c, now, false);
            return;
        }
    }
}

static void joining(struct pl_coord *c, int64_t now)
{
    const bool all = all_hello(c);
    struct pl_sched_counts n;
    if (!all && now - c->phase_since < c->o.join_ns)
        return;
    pl_sched_count(c->o.sched, &n);
    if (n.left == 0 && !pl_coord_energy_left(c)) { /* a resume with nothing to do needs nobody */
        finish(c, now);
        return;
    }
    pl_coord_join(c, now, true);
    if (c->phase != COORD_JOINING)
        return;
    if (pl_sched_workers(c->o.sched) == 0 && (all || now - c->phase_since > 6 * c->o.join_ns))
        pl_coord_fail(c, 6, "no rank can measure anything");
    else if (pl_sched_workers(c->o.sched) > 0)
        to_phase(c, COORD_RUNNING);
}

static void running(struct pl_coord *c, int64_t now)
{
    struct pl_sched_counts n;
    expire(c, now);
    look_for_late_ones(c, now);
    for (uint32_t s = 0; s < c->n_members && c->phase == COORD_RUNNING; s++)
        if (c->members[s].waiting)
            pl_coord_grant(c, s, now);
    pl_sched_count(c->o.sched, &n);
    if (c->phase != COORD_RUNNING)
        return;
    if (n.left == 0) {
        if (!pl_coord_energy(c))
            finish(c, now);
        return;
    }
    if (c->o.max_fails >= 0 && n.failed > (uint64_t)c->o.max_fails)
        pl_coord_fail(c, n.done ? 3 : 4, "%llu trials failed, more than --max-fails %lld",
                      (unsigned long long)n.failed, (long long)c->o.max_fails);
    else if (pl_sched_stuck(c->o.sched))
        pl_coord_fail(c, 6, "no worker is left that can take the %llu trials that are left",
                      (unsigned long long)n.left);
}

static void show(struct pl_coord *c, int64_t now)
{
    struct pl_sched_counts n;
    pl_sched_count(c->o.sched, &n);
    const struct pl_progress_now at = {.done = n.done,
                                       .failed = n.failed,
                                       .left = n.left,
                                       .rows = n.rows,
                                       .workers = pl_sched_workers(c->o.sched)};
    pl_progress_step(&c->progress, now, &at);
    if (now - c->status_at >= c->status_every && !(c->hard && c->phase == COORD_STOPPING))
        write_status(c, false, now);
}

bool pl_coord_step(struct pl_coord *c, int64_t now)
{
    const void *buf;
    size_t n;
    int src;
    c->busy = false;
    for (int i = 0; i < MESSAGES_MAX && pl_comm_poll(c->comm, &src, &buf, &n); i++) {
        c->busy = true;
        if (src >= 1 && (uint32_t)src <= c->n_members)
            pl_coord_hear(c, (uint32_t)src - 1, buf, n, now);
    }
    switch (c->phase) {
    case COORD_JOINING:
        joining(c, now);
        break;
    case COORD_RUNNING:
        running(c, now);
        break;
    case COORD_STOPPING:
        /* rows in hand may take their time unless it is urgent; who is silent is given up */
        expire(c, now);
        if (all_gone(c) || (c->hard && now - c->phase_since > HARD_END_NS))
            over(c, now);
        else
            for (uint32_t s = 0; s < c->n_members; s++)
                if (!c->members[s].hello && now - c->phase_since > c->o.end_ns)
                    c->members[s].lost = true; /* it never came */
        break;
    case COORD_GOODBYE:
        expire(c, now);
        if (all_gone(c) || now - c->phase_since > c->o.end_ns)
            over(c, now);
        break;
    case COORD_OVER:
        return false;
    }
    if (c->phase < COORD_GOODBYE)
        show(c, now);
    return c->phase != COORD_OVER;
}

bool pl_coord_busy(const struct pl_coord *c)
{
    return c->busy;
}

/* ---- a run that does not begin ---- */

bool pl_coord_refuse_all(struct pl_comm *comm, int exit_code, const char *text, int64_t wait_ns)
{
    struct pl_msg_refuse m = {.head = pl_msg_head(PL_MSG_REFUSE), .exit_code = exit_code};
    const int64_t until = pl_now_ns() + wait_ns;
    const void *buf;
    size_t n;
    int src, byes = 0;
    snprintf(m.text, sizeof m.text, "%s", text);
    while (byes < comm->size - 1 && pl_now_ns() < until) {
        struct pl_err err;
        if (!pl_comm_poll(comm, &src, &buf, &n)) {
            pl_sleep_ns(PL_NS_PER_MS);
            continue;
        }
        const enum pl_msg_type type = pl_msg_check(buf, n);
        if (type == PL_MSG_HELLO && pl_comm_send(comm, src, &m, sizeof m, &err) != PL_OK)
            return false;
        byes += type == PL_MSG_BYE;
    }
    return byes == comm->size - 1;
}
