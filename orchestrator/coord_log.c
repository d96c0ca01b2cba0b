/* The file's logs: rank 0 alone writes them, slot after slot; what finds no slot is counted. */
#include "orchestrator/coord_impl.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void pl_coord_log(struct pl_coord *c, enum pl_log_kind kind, const void *record)
{
    struct pl_err err = {""};
    enum pl_status st = PL_ERANGE;
    if (c->session.overflow[kind] == 0)
        st = pl_writer_log(c->o.writer, kind, c->session.slot[kind], record, &err);
    if (st == PL_OK) {
        c->session.slot[kind]++;
        return;
    }
    if (st == PL_ERANGE) {
        st = pl_writer_overflow(c->o.writer, kind, ++c->session.overflow[kind], &err);
        if (st == PL_OK)
            return;
    }
    pl_coord_fail(c, 6, "%s", err.text);
}

void pl_coord_log_session(struct pl_coord *c, bool end, int exit_code)
{
    struct pl_log_session s = {.used = 1,
                               .event = end ? 2 : 1,
                               .session = c->session.number,
                               .exit_code = end ? exit_code : 0,
                               .ranks = c->o.ranks,
                               .unix_ns = pl_wall_ns()};
    struct pl_sched_counts n;
    pl_sched_count(c->o.sched, &n);
    s.done = (uint32_t)n.done;
    s.failed = (uint32_t)n.failed;
    if (gethostname(s.host, sizeof s.host - 1) != 0)
        s.host[0] = '\0';
    snprintf(s.version, sizeof s.version, "%s", PL_VERSION);
    /* The inputs are the same in every session (resume sees to it); their hashes stand in /sweep.
     */
    json_t *start = c->o.provenance ? json_copy((json_t *)c->o.provenance) : NULL;
    json_object_del(start, "weights");
    json_object_del(start, "data");
    json_object_del(start, "work");
    json_object_del(start, "engines");
    char *text = start ? json_dumps(start, JSON_COMPACT) : NULL;
    if (text && strlen(text) >= sizeof s.provenance) { /* a job of many variables */
        free(text);
        json_object_del(start, "slurm");
        text = json_dumps(start, JSON_COMPACT);
    }
    if (text && strlen(text) < sizeof s.provenance)
        memcpy(s.provenance, text, strlen(text));
    free(text);
    json_decref(start);
    pl_coord_log(c, PL_LOG_SESSIONS, &s);
}

void pl_coord_log_worker(struct pl_coord *c, uint32_t slot, const char *cpus)
{
    struct member *m = &c->members[slot];
    struct pl_log_worker w = {.used = 1,
                              .session = c->session.number,
                              .worker = m->number,
                              .rank = (uint32_t)m->said.mpi_rank,
                              .pid = (uint32_t)m->said.pid,
                              .local_index = (uint32_t)m->deal.local_index,
                              .local_count = (uint32_t)m->deal.local_count,
                              .unix_ns = pl_wall_ns()};
    if (m->recorded)
        return;
    m->recorded = true;
    memcpy(w.host, m->said.report.host, sizeof w.host);
    snprintf(w.cpus, sizeof w.cpus, "%s", cpus);
    const struct pl_device *d = m->deal.set;
    if (m->deal.n == 2)
        snprintf(w.device, sizeof w.device, "%.45s,%.45s", d[0].uuid, d[1].uuid);
    else if (strcmp(d[0].kind, "cpu") == 0)
        snprintf(w.device, sizeof w.device, "cpu");
    else
        snprintf(w.device, sizeof w.device, "%.90s", d[0].uuid);
    pl_coord_log(c, PL_LOG_WORKERS, &w);
}
