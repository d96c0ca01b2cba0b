/* What the workers say, and what they are told. */
#include "orchestrator/coord_impl.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAILURES_SAID 20

/* ---- joining ---- */

static void refuse_one(struct pl_coord *c, uint32_t slot, int code, const char *text)
{
    struct pl_msg_refuse m = {.head = pl_msg_head(PL_MSG_REFUSE), .exit_code = code};
    snprintf(m.text, sizeof m.text, "%s", text);
    pl_coord_send(c, slot, &m, sizeof m);
}

/* Another program or another sweep than rank 0's: no row of it may get into the file. */
static bool differs(const struct pl_coord *c, const struct member *m, char *why, size_t size)
{
    const int rank = m->said.mpi_rank;
    const char *host = m->said.report.host;
    if (strcmp(m->said.version, PL_VERSION) != 0)
        snprintf(why, size, "rank %d on host %s runs paceline %s, rank 0 %s", rank, host,
                 m->said.version, PL_VERSION);
    else if (m->said.sweep_sha[0] == '\0')
        snprintf(why, size, "rank %d on host %s cannot read the sweep: %s", rank, host,
                 m->said.error);
    else if (strcmp(m->said.sweep_sha, c->o.sweep_sha) != 0)
        snprintf(why, size, "rank %d on host %s has another sweep file or selection than rank 0",
                 rank, host);
    else
        return false;
    return true;
}

static void hello(struct pl_coord *c, uint32_t slot, const struct pl_msg_hello *h)
{
    struct member *m = &c->members[slot];
    char why[800];
    m->said = *h;
    m->said.version[sizeof m->said.version - 1] = '\0';
    m->said.sweep_sha[sizeof m->said.sweep_sha - 1] = '\0';
    m->said.error[sizeof m->said.error - 1] = '\0';
    m->said.report.host[sizeof m->said.report.host - 1] = '\0';
    m->hello = true;
    if (c->phase == COORD_GOODBYE || c->phase == COORD_STOPPING) {
        refuse_one(c, slot, c->exit_code > 0 ? c->exit_code : 0, "");
        return;
    }
    if (differs(c, m, why, sizeof why)) {
        if (c->phase == COORD_JOINING)
            pl_coord_refuse(c, 2, "%s", why);
        else { /* rows are being measured: only the late one goes */
            pl_coord_say(c, PL_LOG_WARN, "refused: %s", why);
            refuse_one(c, slot, 2, why);
        }
    } else if (m->said.error[0]) {
        pl_coord_say(c, PL_LOG_WARN, "rank %d on host %s cannot measure: %s", m->said.mpi_rank,
                     m->said.report.host, m->said.error);
    } else {
        m->usable = true;
    }
}

static uint32_t set_size(const struct pl_coord *c)
{
    uint32_t n = 1;
    for (uint32_t a = 0; a < c->o.plan->shape.arms; a++)
        if (c->o.plan->arms[a].devices > n)
            n = c->o.plan->arms[a].devices;
    return n;
}

/* The devices that the models ask for: GPUs where one does, else the processor, which is auto's. */
static const char *device_kind(const struct pl_coord *c)
{
    const char *name;
    json_t *model;
    json_object_foreach (json_object_get(c->o.sweep->resolved, "models"), name, model) {
        const char *d = pl_json_get_str(model, "device", "auto");
        if (strcmp(d, "auto") != 0 && strcmp(d, "cpu") != 0)
            return d;
    }
    return "cpu";
}

static bool taken(const struct pl_coord *c, const struct pl_device_deal *deal)
{
    for (uint32_t s = 0; s < c->n_members; s++) {
        const struct member *m = &c->members[s];
        if (!m->welcomed || m->bye || m->lost)
            continue;
        for (uint32_t i = 0; i < deal->n; i++)
            for (uint32_t k = 0; k < m->deal.n; k++)
                if (strcmp(deal->set[i].kind, "cpu") != 0 &&
                    strcmp(deal->set[i].uuid, m->deal.set[k].uuid) == 0)
                    return true;
    }
    return false;
}

static void welcome(struct pl_coord *c, uint32_t slot, int64_t now)
{
    struct member *m = &c->members[slot];
    const size_t len = strlen(c->job_text);
    struct pl_msg_welcome *w = malloc(sizeof *w + len);
    if (!w) {
        pl_coord_fail(c, 6, "out of memory");
        return;
    }
    m->number = c->session.next_worker++;
    *w = (struct pl_msg_welcome){.head = pl_msg_head(PL_MSG_WELCOME),
                                 .worker = m->number,
                                 .lease_ns = c->o.lease_ns,
                                 .deal = m->deal,
                                 .json_len = (uint32_t)len};
    memcpy(w->json, c->job_text, len);
    pl_coord_send(c, slot, w, sizeof *w + len);
    free(w);
    m->welcomed = true;
    m->heard = now;
    if (m->deal.n == 0) {
        pl_coord_say(c, PL_LOG_WARN, "rank %d on host %s idles: %s", m->said.mpi_rank,
                     m->said.report.host, m->deal.why);
        return;
    }
    m->joined = true;
    pl_sched_join(c->o.sched, slot, m->deal.n);
}

void pl_coord_join(struct pl_coord *c, int64_t now, bool all_there)
{
    struct pl_device_report *reports = calloc(c->n_members, sizeof *reports);
    struct pl_device_deal *deals = calloc(c->n_members, sizeof *deals);
    uint32_t *slots = calloc(c->n_members, sizeof *slots);
    struct pl_err err = {""};
    size_t n = 0;
    bool fresh = false;
    if (!reports || !deals || !slots) {
        pl_coord_fail(c, 6, "out of memory");
        goto out;
    }
    for (uint32_t s = 0; s < c->n_members; s++) {
        if (!c->members[s].usable || c->members[s].bye)
            continue;
        slots[n] = s;
        reports[n++] = c->members[s].said.report;
        fresh |= !c->members[s].welcomed;
    }
    if (!fresh)
        goto out;
    if (pl_devices_deal(reports, n, device_kind(c), set_size(c), deals, &err) != PL_OK) {
        pl_coord_fail(c, 6, "%s", err.text);
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        struct member *m = &c->members[slots[i]];
        if (m->welcomed)
            continue;
        m->deal = deals[i];
        if (!all_there && taken(c, &m->deal)) { /* a late one: nobody gives up what it has */
            m->deal.n = 0;
            snprintf(m->deal.why, sizeof m->deal.why, "its devices were dealt before it came");
        }
        welcome(c, slots[i], now);
    }
out:
    free(reports);
    free(deals);
    free(slots);
}

void pl_coord_lost(struct pl_coord *c, uint32_t slot)
{
    struct member *m = &c->members[slot];
    pl_coord_say(c, PL_LOG_WARN,
                 "rank %d on host %s has not been heard of for %.0f s: its trials go to others",
                 m->said.mpi_rank, m->said.report.host,
                 (double)(c->o.lease_ns + c->o.grace_ns) / 1e9);
    m->lost = true;
    m->waiting = false;
    if (m->joined)
        pl_sched_leave(c->o.sched, slot);
}

/* ---- leases ---- */

static void lease(struct pl_coord *c, uint32_t slot, const struct pl_grant *g)
{
    const uint32_t n = pl_cells_count(&g->cells);
    const size_t bits = PL_BITS(n),
                 size = sizeof(struct pl_msg_lease) + bits * (g->has_again ? 2 : 1);
    struct pl_msg_lease *m = (struct pl_msg_lease *)c->bits;
    memset(m, 0, size);
    *m = (struct pl_msg_lease){
        .head = pl_msg_head(PL_MSG_LEASE),
        .lease = g->lease,
        .block = g->block.index,
        .group = g->block.group,
        .context = g->block.context,
        .first_sample = g->block.first_sample,
        .n_samples = g->block.n_samples,
        .n_cells = n,
        .give_up = g->give_up,
        .has_again = g->has_again,
        .again_attempt = (uint8_t)(g->again_attempt < UINT8_MAX ? g->again_attempt : UINT8_MAX)};
    pl_sched_cells(c->o.sched, g, m->bits, g->has_again ? m->bits + bits : NULL);
    c->members[slot].block = g->block.index;
    c->members[slot].waiting = false;
    pl_coord_send(c, slot, m, size);
}

void pl_coord_grant(struct pl_coord *c, uint32_t slot, int64_t now)
{
    struct pl_grant g;
    const struct pl_msg_wait m = {.head = pl_msg_head(PL_MSG_WAIT)};
    const bool told = c->members[slot].waiting;
    c->members[slot].waiting = true;
    if (c->phase != COORD_RUNNING)
        return;
    if (pl_sched_grant(c->o.sched, slot, now, &g) == PL_GRANTED)
        lease(c, slot, &g);
    else if (!told)
        pl_coord_send(c, slot, &m, sizeof m);
}

/* ---- reports ---- */

static void progress(struct pl_coord *c, uint32_t slot, const struct pl_msg_progress *p,
                     int64_t now)
{
    struct member *m = &c->members[slot];
    const struct pl_msg_renewed renewed = {.head = pl_msg_head(PL_MSG_RENEWED), .stamp = p->stamp};
    pl_sched_renew(c->o.sched, slot, now);
    for (uint32_t i = 0; i < p->n; i++) {
        const bool failed = p->cells[i].failed != 0;
        if (!pl_sched_row(c->o.sched, slot, p->lease, p->cells[i].cell, failed))
            continue;
        if (failed)
            m->failed++;
        else
            m->done++;
    }
    pl_coord_send(c, slot, &renewed, sizeof renewed);
}

static void load(struct pl_coord *c, uint32_t slot, const struct pl_msg_load *in)
{
    struct pl_log_load rec = in->record;
    const struct pl_msg_ack ack = {
        .head = pl_msg_head(PL_MSG_ACK), .seq = in->seq, .number = c->session.next_load};
    rec.used = 1;
    rec.session = c->session.number;
    rec.load = c->session.next_load++;
    rec.worker = c->members[slot].number;
    pl_coord_log(c, PL_LOG_LOADS, &rec);
    pl_coord_send(c, slot, &ack, sizeof ack);
}

static void ceiling(struct pl_coord *c, uint32_t slot, const struct pl_msg_ceiling *in)
{
    struct pl_log_ceiling rec = in->record;
    rec.used = 1;
    rec.session = c->session.number;
    rec.worker = c->members[slot].number;
    rec.kind[sizeof rec.kind - 1] = '\0';
    pl_coord_log(c, PL_LOG_CEILINGS, &rec);
}

static void kernel(struct pl_coord *c, uint32_t slot, const struct pl_msg_kernel *in)
{
    struct pl_log_kernel rec = in->record;
    if (rec.arm >= c->o.plan->shape.arms || rec.context >= c->o.plan->shape.contexts)
        return;
    rec.used = 1;
    rec.session = c->session.number;
    rec.worker = c->members[slot].number;
    rec.name[sizeof rec.name - 1] = '\0';
    pl_coord_log(c, PL_LOG_KERNELS, &rec);
}

static void failure(struct pl_coord *c, uint32_t slot, const struct pl_msg_failure *in)
{
    struct pl_log_failure rec = in->record;
    const struct pl_msg_ack ack = {.head = pl_msg_head(PL_MSG_ACK), .seq = in->seq};
    rec.used = 1;
    rec.session = c->session.number;
    rec.worker = c->members[slot].number;
    rec.detail[sizeof rec.detail - 1] = '\0';
    rec.stderr_tail[sizeof rec.stderr_tail - 1] = '\0';
    pl_coord_log(c, PL_LOG_FAILURES, &rec);
    if (++c->failures_said <= FAILURES_SAID)
        pl_coord_say(c, PL_LOG_WARN, "worker %u: %s: %s%s", rec.worker,
                     pl_reason_name((enum pl_reason)rec.reason), rec.detail,
                     c->failures_said == FAILURES_SAID ? " (further ones stand in /failures alone)"
                                                       : "");
    pl_coord_send(c, slot, &ack, sizeof ack);
}

static void block_done(struct pl_coord *c, uint32_t slot, const struct pl_msg_done *in)
{
    struct pl_log_block rec = in->record;
    rec.used = 1;
    rec.session = c->session.number;
    rec.worker = c->members[slot].number;
    if (rec.block != UINT32_MAX) /* else it did not even begin */
        pl_coord_log(c, PL_LOG_BLOCKS, &rec);
    pl_sched_done(c->o.sched, slot, in->lease, in->cannot != 0);
}

static void out(struct pl_coord *c, uint32_t slot, const struct pl_msg_out *in)
{
    struct member *m = &c->members[slot];
    char text[sizeof in->text];
    memcpy(text, in->text, sizeof text);
    text[sizeof text - 1] = '\0';
    m->out = true;
    m->waiting = false;
    pl_sched_leave(c->o.sched, slot);
    if (in->fatal)
        pl_coord_fail(c, 6, "worker %u on host %s: %s", m->number, m->said.report.host, text);
    else
        pl_coord_say(c, PL_LOG_WARN, "worker %u on host %s takes no more trials: %s", m->number,
                     m->said.report.host, text);
}

/* It was given up and speaks again: its old leases are gone, new ones it may have. */
static void back_again(struct pl_coord *c, uint32_t slot)
{
    struct member *m = &c->members[slot];
    m->lost = false;
    if (m->joined && !m->out && !m->bye) {
        pl_coord_say(c, PL_LOG_INFO, "rank %d on host %s is back", m->said.mpi_rank,
                     m->said.report.host);
        pl_sched_join(c->o.sched, slot, m->deal.n);
    }
}

void pl_coord_hear(struct pl_coord *c, uint32_t slot, const void *buf, size_t n, int64_t now)
{
    struct member *m = &c->members[slot];
    const enum pl_msg_type type = pl_msg_check(buf, n);
    m->heard = now;
    if (m->lost)
        back_again(c, slot);
    switch (type) {
    case PL_MSG_HELLO:
        hello(c, slot, buf);
        break;
    case PL_MSG_REQ: {
        char cpus[sizeof((const struct pl_msg_req *)buf)->cpus];
        memcpy(cpus, ((const struct pl_msg_req *)buf)->cpus, sizeof cpus);
        cpus[sizeof cpus - 1] = '\0';
        pl_coord_log_worker(c, slot, cpus);
        pl_coord_grant(c, slot, now);
        break;
    }
    case PL_MSG_PROGRESS:
        progress(c, slot, buf, now);
        break;
    case PL_MSG_LOAD:
        load(c, slot, buf);
        break;
    case PL_MSG_FAILURE:
        failure(c, slot, buf);
        break;
    case PL_MSG_CEILING:
        ceiling(c, slot, buf);
        break;
    case PL_MSG_KERNEL:
        kernel(c, slot, buf);
        break;
    case PL_MSG_BURST:
        pl_coord_burst(c, slot, buf);
        break;
    case PL_MSG_DONE:
        block_done(c, slot, buf);
        break;
    case PL_MSG_OUT:
        out(c, slot, buf);
        break;
    case PL_MSG_STOPPING:
        pl_coord_stop(c, ((const struct pl_msg_stopping *)buf)->hard, "a rank was told to stop");
        break;
    case PL_MSG_BYE:
        m->bye = true;
        m->waiting = false;
        if (m->joined)
            pl_sched_leave(c->o.sched, slot);
        break;
    default:
        pl_coord_say(c, PL_LOG_ERROR, "rank %u: a message that is none of ours", slot + 1);
    }
}

json_t *pl_coord_workers(const struct pl_coord *c, int64_t now)
{
    json_t *list = json_array();
    for (uint32_t s = 0; s < c->n_members; s++) {
        const struct member *m = &c->members[s];
        const char *state = m->bye           ? "ended"
                            : m->lost        ? "lost"
                            : m->out         ? "out"
                            : !m->welcomed   ? "joining"
                            : m->deal.n == 0 ? "idle"
                            : m->waiting     ? "waiting"
                                             : "measuring";
        if (!m->hello)
            continue;
        json_array_append_new(list, json_pack("{s:I,s:i,s:s,s:i,s:s,s:s,s:I,s:I,s:f}", "worker",
                                              (json_int_t)m->number, "rank", (int)m->said.mpi_rank,
                                              "host", m->said.report.host, "pid", (int)m->said.pid,
                                              "state", state, "device",
                                              m->deal.n ? m->deal.set[0].kind : "", "done",
                                              (json_int_t)m->done, "failed", (json_int_t)m->failed,
                                              "heard_s_ago", (double)(now - m->heard) / 1e9));
    }
    return list;
}
