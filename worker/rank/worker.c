/* A worker's life: joining, leases, messages, the end. */
#include "worker/rank/worker_impl.h"

#include "base/log.h"
#include "worker/rank/cores.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VANISH_NS (60 * PL_NS_PER_S)
#define PROBE_NS (20 * PL_NS_PER_S)
#define PROBES 3 /* a runner that dies or hangs at its first word may have had bad luck */
#define REPORT_NS (100 * PL_NS_PER_MS)
#define REPORT_ROWS 256
#define IMPATIENT_NS (20 * PL_NS_PER_MS) /* between two signs of life when the lease ran out */
#define TURN_NS (500 * PL_NS_PER_US)     /* between two questions whether the node is free */

/* ---- saying things ---- */

void pl_worker_tell(struct pl_worker *w, const void *msg, size_t n)
{
    struct pl_err err;
    w->last_sent = pl_now_ns();
    if (pl_comm_send(w->comm, 0, msg, n, &err) != PL_OK)
        pl_log(PL_LOG_ERROR, "%s", err.text);
}

void pl_worker_report(struct pl_worker *w, bool now)
{
    const int64_t at = pl_now_ns();
    const bool rows = w->n_cells > 0 && (now || at - w->report_since >= REPORT_NS);
    const int64_t quiet = now ? IMPATIENT_NS : w->lease_ns / 6;
    if (!rows && at - w->last_sent < quiet)
        return;
    const struct pl_msg_progress head = {.head = pl_msg_head(PL_MSG_PROGRESS),
                                         .lease = w->block.lease,
                                         .stamp = at,
                                         .n = w->n_cells};
    unsigned char bytes[sizeof head + REPORT_ROWS * sizeof w->cells[0]];
    memcpy(bytes, &head, sizeof head);
    memcpy(bytes + sizeof head, w->cells, w->n_cells * sizeof w->cells[0]);
    pl_worker_tell(w, bytes, sizeof head + w->n_cells * sizeof w->cells[0]);
    w->n_cells = 0;
}

uint64_t pl_worker_log_failure(struct pl_worker *w, uint64_t row, enum pl_reason reason,
                               unsigned attempt, bool final, const char *detail, const char *tail)
{
    struct pl_msg_failure m = {.head = pl_msg_head(PL_MSG_FAILURE), .seq = ++w->seq};
    m.record.attempt = (uint8_t)(attempt < UINT8_MAX ? attempt : UINT8_MAX);
    m.record.final = final;
    m.record.reason = (uint16_t)reason;
    m.record.row = row;
    m.record.unix_ns = pl_wall_ns();
    snprintf(m.record.detail, sizeof m.record.detail, "%s", detail);
    /* the end of stderr is what counts */
    const size_t len = strlen(tail), most = sizeof m.record.stderr_tail - 1;
    snprintf(m.record.stderr_tail, sizeof m.record.stderr_tail, "%s",
             len > most ? tail + len - most : tail);
    pl_worker_tell(w, &m, sizeof m);
    return m.seq;
}

void pl_worker_go_out(struct pl_worker *w, bool fatal, const char *fmt, ...)
{
    va_list ap;
    if (w->going_out)
        return;
    va_start(ap, fmt);
    vsnprintf(w->out_text, sizeof w->out_text, fmt, ap);
    va_end(ap);
    w->going_out = true;
    w->out_fatal = fatal;
}

static void go_out(struct pl_worker *w)
{
    struct pl_msg_out m = {.head = pl_msg_head(PL_MSG_OUT), .fatal = w->out_fatal};
    w->going_out = false;
    pl_block_end(w);
    free(w->next); /* OUT gives its lease back */
    w->next = NULL;
    snprintf(m.text, sizeof m.text, "%s", w->out_text);
    pl_worker_tell(w, &m, sizeof m);
    pl_worker_kill(w);
    w->phase = OUT;
}

bool pl_worker_lease_live(const struct pl_worker *w)
{
    return pl_now_ns() < w->lease_until;
}

/* ---- joining ---- */

static enum pl_status probe_once(struct pl_worker *w, struct pl_device_report *report,
                                 struct pl_err *err)
{
    struct pl_runner *r = NULL;
    json_t *answer = NULL;
    enum pl_reason reason;
    enum pl_runner_event ev = PL_RUNNER_NOTHING;
    const struct pl_runner_opts opts = {.program = w->program, .hello_timeout_ns = PROBE_NS};
    enum pl_status st = pl_runner_start(&opts, &r, err);
    if (st != PL_OK)
        return st;
    while (ev == PL_RUNNER_NOTHING)
        ev = pl_runner_pump(r, PROBE_NS, &answer, &reason, err);
    json_decref(answer);
    if (ev == PL_RUNNER_READY)
        pl_devices_from_hello(pl_runner_hello(r), report);
    else
        st = PL_EPROTO;
    (void)pl_runner_free(r);
    return st;
}

/* Starts a runner, reads its hello, lets it go: which devices this rank sees. Blocks, but nobody
 * waits for us yet. */
static enum pl_status probe(struct pl_worker *w, struct pl_device_report *report,
                            struct pl_err *err)
{
    enum pl_status st = PL_EPROTO;
    for (int i = 0; i < PROBES && st == PL_EPROTO; i++)
        st = probe_once(w, report, err);
    return st;
}

enum pl_status pl_worker_new(const struct pl_worker_opts *opts, struct pl_worker **out,
                             struct pl_err *err)
{
    struct pl_worker *w = calloc(1, sizeof *w);
    struct pl_msg_hello m = {.head = pl_msg_head(PL_MSG_HELLO)};
    struct pl_device_report report = {.worker = 1};
    struct pl_err why = {""};
    if (!w)
        return pl_fail(err, PL_ENOMEM, "worker");
    w->opts = *opts;
    w->comm = opts->comm;
    w->lease_ns = VANISH_NS / 2;
    w->last_heard = pl_now_ns();
    if (w->opts.vanish_ns <= 0)
        w->opts.vanish_ns = VANISH_NS;
    snprintf(w->program, sizeof w->program, "%s", opts->program ? opts->program : "");
    w->cells = calloc(REPORT_ROWS, sizeof *w->cells);
    w->cap_cells = REPORT_ROWS;
    if (!w->cells) {
        free(w);
        return pl_fail(err, PL_ENOMEM, "worker");
    }
    m.mpi_rank = opts->mpi_rank;
    m.pid = getpid();
    snprintf(m.version, sizeof m.version, "%s", PL_VERSION);
    snprintf(m.sweep_sha, sizeof m.sweep_sha, "%s", opts->sweep_sha ? opts->sweep_sha : "");
    report.rank = w->comm->rank;
    if (gethostname(report.host, sizeof report.host - 1) != 0)
        snprintf(report.host, sizeof report.host, "unknown");
    if (opts->error)
        snprintf(m.error, sizeof m.error, "%s", opts->error);
    else if (probe(w, &report, &why) != PL_OK)
        snprintf(m.error, sizeof m.error, "%.500s", why.text);
    m.report = report;
    pl_worker_tell(w, &m, sizeof m);
    *out = w;
    return PL_OK;
}

static void release_run(struct pl_worker *w)
{
    pl_block_release(&w->block);
    free(w->next);
    w->next = NULL;
    if (w->job) {
        pl_engines_release(w);
        pl_row_release(&w->row);
    }
    pl_writer_free(w->writer);
    pl_samples_free(w->samples);
    pl_text_cache_free(w->texts);
    pl_node_close(w->node);
    pl_nvml_close(w->nvml);
    w->nvml = NULL;
    for (uint32_t i = 0; i < w->n_inputs; i++)
        json_decref(w->inputs[i].ids);
    free(w->inputs);
    w->inputs = NULL;
    w->n_inputs = 0;
    pl_job_free(w->job);
    free(w->cpu_list);
    w->job = NULL;
    w->writer = NULL;
    w->samples = NULL;
    w->texts = NULL;
    w->node = NULL;
    w->cpu_list = NULL;
    w->waiting = NULL;
}

void pl_worker_free(struct pl_worker *w)
{
    if (!w)
        return;
    release_run(w);
    free(w->cells);
    free(w->refusal);
    free(w);
}

static enum pl_status share_cores(struct pl_worker *w, struct pl_err *err)
{
    char list[PL_CORES_LIST];
    if (w->deal.local_index < 0)
        return pl_fail(err, PL_EPROTO, "no place on this node");
    w->cpu_list = calloc(PL_CORES_LIST, sizeof *w->cpu_list);
    if (!w->cpu_list)
        return pl_fail(err, PL_ENOMEM, "cores");
    const enum pl_status st = pl_cores_share(w->deal.local_index, w->deal.local_count, list,
                                             sizeof list, &w->threads, err);
    if (st != PL_OK)
        return st;
    w->n_cpus = pl_cores_parse(list, w->cpu_list, PL_CORES_LIST);
    if (strlen(list) < sizeof w->cpus)
        snprintf(w->cpus, sizeof w->cpus, "%s", list);
    return PL_OK;
}

static enum pl_status take_job(struct pl_worker *w, const struct pl_msg_welcome *m,
                               struct pl_err *err)
{
    json_t *json = NULL;
    char key[PL_NODE_KEY], digest[PL_SAMPLES_DIGEST];
    struct pl_err why = {""};
    enum pl_status st = pl_json_parse("job", m->json, m->json_len, &json, err);
    if (st != PL_OK)
        return st;
    st = pl_job_parse(json, &w->job, err);
    json_decref(json);
    if (st != PL_OK)
        return st;
    if (json_object_size(w->job->models) > 256)
        return pl_fail(err, PL_ERANGE, "%zu models, at most 256", json_object_size(w->job->models));
    st = share_cores(w, err);
    if (st == PL_OK)
        st = pl_row_init(&w->row, &w->job->shape, err);
    if (st == PL_OK)
        st = pl_engines_init(w, err);
    if (st == PL_OK)
        st = pl_samples_open(w->job->data, w->job->seed, w->job->contexts, w->job->shape.contexts,
                             w->job->shape.samples, &w->samples, err);
    if (st == PL_OK)
        pl_samples_digest(w->samples, digest);
    if (st == PL_OK && strcmp(digest, w->job->samples) != 0)
        st = pl_fail(err, PL_EFORMAT,
                     "the samples that are seen from here are not those of rank 0: is the data the "
                     "same on every node?");
    if (st == PL_OK && w->opts.lock)
        st = w->opts.lock(w->opts.lock_ctx, w->job->results, err);
    if (st == PL_OK)
        st = pl_writer_open(w->job->results, &w->job->shape, &w->writer, err);
    if (st != PL_OK)
        return st;
    pl_node_key(w->job->results, key);
    if (pl_node_open(key, &w->node, &why) != PL_OK) {
        pl_log(PL_LOG_WARN, "neighbours on this node are not known: %s", why.text);
        w->node = NULL;
    }
    return PL_OK;
}

void pl_worker_ask(struct pl_worker *w)
{
    struct pl_msg_req m = {.head = pl_msg_head(PL_MSG_REQ)};
    if (w->asked || w->next || w->stopping)
        return;
    snprintf(m.cpus, sizeof m.cpus, "%.63s", w->cpus);
    w->asked = true;
    pl_worker_tell(w, &m, sizeof m);
}

static void ask(struct pl_worker *w)
{
    w->phase = ASKING;
    pl_worker_ask(w);
}

static void join(struct pl_worker *w, const struct pl_msg_welcome *m)
{
    struct pl_err err = {""};
    if (w->phase != JOINING)
        return;
    w->number = m->worker;
    w->deal = m->deal;
    w->lease_ns = m->lease_ns;
    if (m->deal.n == 0) {
        w->phase = OUT; /* rank 0 knows: it dealt */
        return;
    }
    if (take_job(w, m, &err) != PL_OK) {
        pl_worker_go_out(w, false, "%s", err.text);
        return;
    }
    pl_block_open_nvml(w);
    if (!w->stopping)
        ask(w);
}

/* ---- the end ---- */

static void say_bye(struct pl_worker *w, int code)
{
    const struct pl_msg_bye m = {.head = pl_msg_head(PL_MSG_BYE), .exit_code = code};
    char key[PL_NODE_KEY] = "";
    if (w->phase == ENDED)
        return;
    if (w->job)
        pl_node_key(w->job->results, key);
    const bool first = w->node && w->deal.local_index == 0;
    pl_block_end(w);
    release_run(w);
    if (first)
        pl_node_unlink(key);
    w->exit_code = code;
    w->phase = ENDED;
    pl_worker_tell(w, &m, sizeof m);
}

void pl_worker_kill(struct pl_worker *w)
{
    for (uint32_t e = 0; w->job && w->engines && e <= w->job->n_engines; e++) {
        (void)pl_runner_free(w->engines[e].runner);
        w->engines[e].runner = NULL;
        w->engines[e].state = ENGINE_OFF;
    }
    w->waiting = NULL;
}

static void stop(struct pl_worker *w, bool hard)
{
    const bool trial = w->waiting && w->waiting->state == ENGINE_TRIAL && !w->block.warming;
    w->stopping = true;
    if (w->phase == ENDED)
        return;
    /* a load or a warm-up is nobody's result: no reason to wait for it */
    if (hard || (w->waiting && !trial)) {
        w->row_ready = false;
        pl_worker_kill(w);
        pl_block_end(w);
    }
}

void pl_worker_stop(struct pl_worker *w, bool hard)
{
    const struct pl_msg_stopping m = {.head = pl_msg_head(PL_MSG_STOPPING), .hard = hard};
    if (w->phase == ENDED)
        return;
    pl_worker_tell(w, &m, sizeof m);
    stop(w, hard);
}

int pl_worker_exit_code(const struct pl_worker *w)
{
    return w->exit_code;
}

const char *pl_worker_refusal(const struct pl_worker *w)
{
    return w->refusal;
}

/* ---- hearing things ---- */

static void take_lease(struct pl_worker *w, const void *buf, size_t n)
{
    const bool run = w->job && !w->stopping && !w->going_out;
    struct pl_msg_lease *copy = run ? malloc(n) : NULL;
    w->asked = false;
    if (copy)
        memcpy(copy, buf, n);
    if (copy && w->phase == ASKING) {
        pl_block_begin(w, copy);
    } else if (copy && w->phase == RUNNING && !w->next) {
        w->next = copy;
    } else { /* not wanted any more: nothing of it was done */
        struct pl_msg_done m = {.head = pl_msg_head(PL_MSG_DONE),
                                .lease = ((const struct pl_msg_lease *)buf)->lease};
        m.record.block = UINT32_MAX;
        free(copy);
        pl_worker_tell(w, &m, sizeof m);
    }
}

static void lose_lease(struct pl_worker *w, uint64_t lease)
{
    if (w->next && w->next->lease == lease) {
        free(w->next);
        w->next = NULL;
    }
    if (w->block.msg && w->block.lease == lease) {
        pl_log(PL_LOG_WARN, "lease %llu ran out: its rows go to another worker",
               (unsigned long long)lease);
        w->block.revoked = true;
        w->row_ready = false;
        w->n_cells = 0;
    }
}

static void take_ack(struct pl_worker *w, const struct pl_msg_ack *m)
{
    pl_engine_acked(w, m->seq, m->number);
    if (m->seq == w->wait_seq)
        w->wait_seq = 0;
}

static void hear(struct pl_worker *w, const void *buf, size_t n)
{
    w->last_heard = pl_now_ns();
    switch (pl_msg_check(buf, n)) {
    case PL_MSG_WELCOME:
        join(w, buf);
        break;
    case PL_MSG_REFUSE: {
        const struct pl_msg_refuse *m = buf;
        w->refusal = strndup(m->text, sizeof m->text);
        say_bye(w, m->exit_code);
        break;
    }
    case PL_MSG_LEASE:
        take_lease(w, buf, n);
        break;
    case PL_MSG_ACK:
        take_ack(w, buf);
        break;
    case PL_MSG_RENEWED: {
        const int64_t until = ((const struct pl_msg_renewed *)buf)->stamp + w->lease_ns;
        if (until > w->lease_until)
            w->lease_until = until;
        break;
    }
    case PL_MSG_REVOKED:
        lose_lease(w, ((const struct pl_msg_revoked *)buf)->lease);
        break;
    case PL_MSG_STOP:
        stop(w, ((const struct pl_msg_stop *)buf)->hard);
        if (!w->block.msg)
            say_bye(w, 0);
        else
            w->phase = LAST_WORD;
        break;
    case PL_MSG_ENERGY: {
        const struct pl_msg_energy *m = buf;
        pl_burst_begin(w, m->arm, m->context);
        break;
    }
    case PL_MSG_FINISH:
        say_bye(w, 0);
        break;
    default:
        break; /* WAIT: a lease follows */
    }
}

/* ---- going on ---- */

static void take_event(struct pl_worker *w, enum pl_runner_event ev, const json_t *answer,
                       enum pl_reason reason, const char *text)
{
    struct engine *e = w->waiting;
    if (e->state == ENGINE_TRIAL && w->block.msg)
        pl_block_trial_event(w, ev, answer, reason, text);
    else if (e->state == ENGINE_IDS && w->block.msg)
        pl_trial_ids_event(w, ev, answer, text);
    else if ((e->state == ENGINE_TRIAL || e->state == ENGINE_IDS) && w->burst.active)
        pl_burst_event(w, ev, answer, text);
    else if (e->state == ENGINE_CEILINGS)
        pl_trial_ceilings_event(w, ev, answer);
    else
        pl_engine_event(w, e, ev, answer, reason, text);
}

static void advance(struct pl_worker *w)
{
    for (int i = 0; i < 64 && pl_block_advance(w); i++)
        w->busy = true;
    for (int i = 0; i < 64 && pl_burst_advance(w); i++)
        w->busy = true;
    if (w->going_out)
        go_out(w);
    if (w->block.msg)
        return;
    if (w->phase == LAST_WORD) {
        say_bye(w, 0);
    } else if (w->phase == RUNNING && w->next) {
        struct pl_msg_lease *m = w->next;
        w->next = NULL;
        pl_block_begin(w, m);
        w->busy = true;
    } else if (w->phase == RUNNING) {
        w->phase = ASKING;
        if (!w->stopping)
            ask(w);
    }
}

static void wait_for_runner(struct pl_worker *w, int64_t wait_ns)
{
    json_t *answer = NULL;
    enum pl_reason reason = PL_REASON_NONE;
    struct pl_err err = {""};
    const enum pl_runner_event ev =
        pl_runner_pump(w->waiting->runner, wait_ns, &answer, &reason, &err);
    if (ev == PL_RUNNER_NOTHING) {
        pl_block_sample(w);
        return;
    }
    w->busy = true;
    take_event(w, ev, answer, reason, err.text);
    json_decref(answer);
    advance(w); /* the next request goes out before anything else */
}

enum pl_worker_state pl_worker_step(struct pl_worker *w, int64_t wait_ns)
{
    const void *buf;
    size_t n;
    int src;
    w->busy = false;
    while (w->phase != ENDED && pl_comm_poll(w->comm, &src, &buf, &n)) {
        w->busy = true;
        hear(w, buf, n);
    }
    if (w->phase == ENDED)
        return PL_WORKER_ENDED;
    advance(w);
    pl_worker_report(w, false);
    /* before WELCOME rank 0 may be busy with the plan */
    if (w->phase != ENDED &&
        pl_now_ns() - w->last_heard > w->opts.vanish_ns * (w->phase == JOINING ? 20 : 1))
        return PL_WORKER_ALONE;
    if (w->waiting)
        wait_for_runner(w, wait_ns);
    else if (!w->busy)
        pl_sleep_ns(w->want_turn && wait_ns > TURN_NS ? TURN_NS : wait_ns);
    return w->phase == ENDED ? PL_WORKER_ENDED : PL_WORKER_RUNS;
}

bool pl_worker_busy(const struct pl_worker *w)
{
    return w->busy;
}
