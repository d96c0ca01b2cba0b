/* Runner children of a worker: start, what is loaded in them, what does not load here. */
#include "worker/rank/worker_impl.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_NS (60 * PL_NS_PER_S)
#define FIRST_TIMEOUT_NS (600 * PL_NS_PER_S) /* nothing is known yet: a real model may be slow */

/* ---- deadlines ---- */

void pl_history_add(struct history *h, double ms)
{
    h->ms[h->n++ % HISTORY] = (float)ms;
}

static int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

int64_t pl_history_deadline(const struct history *h, int64_t given_ns, bool sim)
{
    float sorted[HISTORY];
    const uint32_t n = h->n < HISTORY ? h->n : HISTORY;
    if (given_ns > 0)
        return given_ns;
    if (n == 0)
        return sim ? TIMEOUT_NS : FIRST_TIMEOUT_NS;
    memcpy(sorted, h->ms, n * sizeof sorted[0]);
    qsort(sorted, n, sizeof sorted[0], by_size);
    const double ns = 20.0 * sorted[n / 2] * 1e6;
    return ns > (double)TIMEOUT_NS ? (int64_t)ns : TIMEOUT_NS;
}

/* ---- life ---- */

uint32_t pl_engine_model(const struct pl_worker *w, const char *name)
{
    for (uint32_t m = 0; name && m < w->n_models; m++)
        if (strcmp(w->models[m].name, name) == 0)
            return m;
    return UINT32_MAX;
}

enum pl_status pl_engines_init(struct pl_worker *w, struct pl_err *err)
{
    const struct pl_job *j = w->job;
    const size_t cells = (size_t)j->shape.arms * j->shape.contexts;
    json_t *value;
    const char *name;
    w->models = calloc(json_object_size(j->models) + 1, sizeof *w->models);
    w->engines = calloc((size_t)j->n_engines + 1, sizeof *w->engines);
    w->warm = calloc(cells, sizeof *w->warm);
    w->warm_fails = calloc(j->shape.arms, sizeof *w->warm_fails);
    w->history = calloc(cells, sizeof *w->history);
    w->inputs = calloc((size_t)j->shape.batch + INPUTS, sizeof *w->inputs);
    w->n_inputs = w->inputs ? j->shape.batch + INPUTS : 0;
    if (!w->models || !w->engines || !w->warm || !w->warm_fails || !w->history)
        return pl_fail(err, PL_ENOMEM, "worker");
    json_object_foreach ((json_t *)j->models, name, value) {
        w->models[w->n_models++] = (struct model){.name = name, .json = value};
    }
    for (uint32_t e = 0; e <= j->n_engines; e++) {
        struct engine *g = &w->engines[e];
        g->has_arm = calloc(j->shape.arms, sizeof *g->has_arm);
        g->has_model = calloc(w->n_models + 1, sizeof *g->has_model);
        g->asked = calloc(w->n_models + 1, sizeof *g->asked);
        if (!g->has_arm || !g->has_model || !g->asked)
            return pl_fail(err, PL_ENOMEM, "worker");
    }
    return PL_OK;
}

void pl_engines_release(struct pl_worker *w)
{
    for (uint32_t e = 0; w->engines && e <= w->job->n_engines; e++) {
        (void)pl_runner_free(w->engines[e].runner);
        free(w->engines[e].has_arm);
        free(w->engines[e].has_model);
        free(w->engines[e].asked);
    }
    free(w->engines);
    free(w->models);
    free(w->warm);
    free(w->warm_fails);
    free(w->history);
    w->engines = NULL;
}

static void forget_arm(struct pl_worker *w, struct engine *e, uint32_t arm)
{
    const uint32_t contexts = w->job->shape.contexts;
    e->has_arm[arm] = false;
    memset(w->warm + (size_t)arm * contexts, 0, contexts * sizeof *w->warm);
}

bool pl_engine_drop(struct pl_worker *w, struct engine *e)
{
    const bool reaped = pl_runner_free(e->runner);
    e->runner = NULL;
    e->state = ENGINE_OFF;
    e->load = 0;
    e->load_seq = 0;
    memset(e->has_model, 0, w->n_models * sizeof *e->has_model);
    for (uint32_t a = 0; a < w->job->shape.arms; a++)
        if (e->has_arm[a])
            forget_arm(w, e, a);
    if (w->waiting == e)
        w->waiting = NULL;
    if (!reaped)
        pl_worker_go_out(w, false, "a runner could not be killed: its device is quarantined");
    return reaped;
}

enum pl_status pl_engine_start(struct pl_worker *w, struct engine *e, struct pl_err *err)
{
    const size_t i = (size_t)(e - w->engines);
    const struct pl_runner_opts opts = {.program = w->program,
                                        .exec =
                                            i < w->job->n_engines ? w->job->engines[i].exec : NULL,
                                        .cpus = w->cpus[0] ? w->cpus : NULL,
                                        .hello_timeout_ns = w->job->load_timeout_ns};
    const enum pl_status st = pl_runner_start(&opts, &e->runner, err);
    if (st != PL_OK)
        return st;
    e->state = ENGINE_STARTING;
    w->waiting = e;
    return PL_OK;
}

static void start_failed(struct pl_worker *w, struct engine *e, const char *text, const char *tail)
{
    pl_worker_log_failure(w, UINT64_MAX, PL_REASON_START, e->start_fails, false, text, tail);
    if (++e->start_fails > w->job->retries) {
        e->dead_of = PL_REASON_START;
        snprintf(e->why, sizeof e->why, "%s", text);
    }
}

/* ---- what is needed ---- */

static enum pl_reason model_dead(const struct pl_worker *w, const char *name, const char **why)
{
    const uint32_t m = pl_engine_model(w, name);
    if (m == UINT32_MAX || !w->models[m].dead_of)
        return PL_REASON_NONE;
    *why = w->models[m].why;
    return w->models[m].dead_of;
}

enum pl_reason pl_engine_arm_dead(const struct pl_worker *w, uint32_t arm, const char **why)
{
    const struct pl_job_arm *a = &w->job->arms[arm];
    enum pl_reason dead = w->engines[a->engine].dead_of;
    if (dead)
        *why = w->engines[a->engine].why;
    if (!dead)
        dead = model_dead(w, a->model, why);
    if (!dead && a->draft_model)
        dead = model_dead(w, a->draft_model, why);
    return dead;
}

static bool wants(const struct pl_worker *w, const struct engine *e, uint32_t arm, uint32_t group,
                  uint32_t residence)
{
    const struct pl_job_arm *a = &w->job->arms[arm];
    const char *why;
    return a->group == group && a->residence == residence &&
           a->engine == (uint32_t)(e - w->engines) &&
           pl_engine_arm_dead(w, arm, &why) == PL_REASON_NONE;
}

static void models_of(const struct pl_worker *w, uint32_t arm, uint32_t out[2])
{
    out[0] = pl_engine_model(w, w->job->arms[arm].model);
    out[1] = pl_engine_model(w, w->job->arms[arm].draft_model);
}

static void needed_models(const struct pl_worker *w, const struct engine *e, uint32_t group,
                          uint32_t residence, bool *needed, bool *missing_arm)
{
    *missing_arm = false;
    for (uint32_t a = 0; a < w->job->shape.arms; a++) {
        uint32_t m[2];
        if (!wants(w, e, a, group, residence))
            continue;
        models_of(w, a, m);
        for (int i = 0; i < 2; i++)
            if (m[i] != UINT32_MAX)
                needed[m[i]] = true;
        *missing_arm |= !e->has_arm[a];
    }
}

static enum need sent(struct pl_worker *w, struct engine *e, enum engine_state state,
                      enum pl_status st, const struct pl_err *err)
{
    if (st != PL_OK) {
        start_failed(w, e, err->text, pl_runner_stderr_tail(e->runner));
        return pl_engine_drop(w, e) ? NEED_NOW : NEED_WAIT;
    }
    e->state = state;
    w->waiting = e;
    return NEED_WAIT;
}

static enum need send_unload(struct pl_worker *w, struct engine *e, const bool *needed)
{
    struct pl_err err = {""};
    json_t *names = json_array();
    for (uint32_t m = 0; m < w->n_models; m++) {
        if (!e->has_model[m] || needed[m])
            continue;
        json_array_append_new(names, json_string(w->models[m].name));
        e->has_model[m] = false;
        for (uint32_t a = 0; a < w->job->shape.arms; a++) {
            uint32_t of[2];
            models_of(w, a, of);
            if (e->has_arm[a] && (of[0] == m || of[1] == m))
                forget_arm(w, e, a);
        }
    }
    json_t *request = json_pack("{s:s,s:o}", "type", "unload", "models", names);
    const enum pl_status st =
        pl_runner_send(e->runner, request,
                       pl_history_deadline(&w->load_history, w->job->load_timeout_ns, false), &err);
    json_decref(request);
    return sent(w, e, ENGINE_UNLOADING, st, &err);
}

static json_t *device_json(const struct pl_device *d)
{
    return json_pack("{s:s,s:s,s:s}", "kind", d->kind, "uuid", d->uuid, "name", d->name);
}

static void add_devices(const struct pl_worker *w, json_t *request)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < w->deal.n && i < 2; i++)
        json_array_append_new(list, device_json(&w->deal.set[i]));
    json_object_set_new(request, "device",
                        w->deal.n ? device_json(&w->deal.set[0])
                                  : json_pack("{s:s}", "kind", "cpu"));
    json_object_set_new(request, "devices", list);
}

/* The sweep's, with the most tokens of any context: each trial says its own number. */
static json_t *generate_of(const struct pl_job *j)
{
    json_t *out = json_copy(json_object_get(j->sweep, "generate"));
    uint32_t most = 1;
    for (uint32_t i = 0; i < j->shape.contexts; i++)
        most = j->tokens[i] > most ? j->tokens[i] : most;
    if (json_is_array(json_object_get(out, "tokens")))
        json_object_set_new(out, "tokens", json_integer(most));
    return out;
}

static json_t *load_request(struct pl_worker *w, struct engine *e, uint32_t group,
                            uint32_t residence, const bool *needed)
{
    const struct pl_job *j = w->job;
    json_t *models = json_object(), *arms = json_object(), *cpus = json_array();
    bool first = true;
    memset(e->asked, 0, w->n_models * sizeof *e->asked);
    for (uint32_t m = 0; m < w->n_models; m++) {
        if (!needed[m] || e->has_model[m] || (e->one_by_one && !first))
            continue;
        json_object_set(models, w->models[m].name, (json_t *)w->models[m].json);
        e->asked[m] = true;
        first = false;
    }
    for (uint32_t a = 0; a < j->shape.arms; a++) {
        uint32_t of[2];
        if (!wants(w, e, a, group, residence) || e->has_arm[a])
            continue;
        models_of(w, a, of);
        bool whole = true;
        for (int i = 0; i < 2; i++)
            whole &= of[i] == UINT32_MAX || e->has_model[of[i]] || e->asked[of[i]];
        if (whole)
            json_object_set(arms, j->arms[a].name, (json_t *)j->arms[a].json);
    }
    for (size_t i = 0; i < w->n_cpus; i++)
        json_array_append_new(cpus, json_integer(w->cpu_list[i]));
    json_t *request =
        json_pack("{s:s,s:o,s:o,s:o?,s:O?,s:I,s:i,s:o,s:I}", "type", "load", "models", models,
                  "arms", arms, "generate", generate_of(j), "measure",
                  json_object_get(j->sweep, "measure"), "seed", (json_int_t)j->seed, "threads",
                  w->threads, "cpus", cpus, "max_context", (json_int_t)j->max_context);
    if (request)
        add_devices(w, request);
    return request;
}

enum need pl_engines_need(struct pl_worker *w, uint32_t group, uint32_t residence)
{
    bool needed[256];
    struct pl_err err = {""};
    if (w->n_models > sizeof needed)
        return NEED_WAIT; /* refused when the job came */
    /* first what must leave the memory, on every engine; then what must come */
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < w->job->n_engines; i++) {
            struct engine *e = &w->engines[i];
            bool missing, extra = false;
            memset(needed, 0, sizeof needed);
            needed_models(w, e, group, residence, needed, &missing);
            for (uint32_t m = 0; m < w->n_models; m++)
                extra |= e->has_model[m] && !needed[m];
            if (pass == 0 && extra && e->state == ENGINE_READY)
                return send_unload(w, e, needed);
            if (pass == 0 || !missing)
                continue;
            if (e->state == ENGINE_OFF) {
                if (pl_engine_start(w, e, &err) == PL_OK)
                    return NEED_WAIT;
                start_failed(w, e, err.text, "");
                return NEED_NOW;
            }
            json_t *request = load_request(w, e, group, residence, needed);
            const int64_t deadline =
                pl_history_deadline(&w->load_history, w->job->load_timeout_ns, false);
            e->asked_at = pl_now_ns();
            const enum pl_status st = request ? pl_runner_send(e->runner, request, deadline, &err)
                                              : pl_fail(&err, PL_ENOMEM, "a load request");
            json_decref(request);
            return sent(w, e, ENGINE_LOADING, st, &err);
        }
    }
    for (uint32_t i = 0; i < w->job->n_engines; i++)
        if (w->engines[i].load_seq)
            return NEED_WAIT;
    return NEED_READY;
}

/* ---- what came of it ---- */

/* ", 32 of 132 multiprocessors", ", not split: WHY", or "". */
static void note_lanes(const json_t *arm, char *out, size_t size)
{
    const json_t *m = json_object_get(arm, "multiprocessors");
    const char *why = pl_json_get_str(arm, "not_split", NULL);

    *out = '\0';
    if (json_array_size(m) == 2)
        snprintf(out, size, ", %lld of %lld multiprocessors",
                 (long long)json_integer_value(json_array_get(m, 0)),
                 (long long)json_integer_value(json_array_get(m, 1)));
    else if (why)
        snprintf(out, size, ", not split: %s", why);
}

/* What the runner says of how arms' states travel and lanes share a GPU, as text. */
static void note_transports(const json_t *answer, char *out, size_t size)
{
    const char *arm;
    json_t *v;
    size_t at = 0;
    json_object_foreach (json_object_get(answer, "arms"), arm, v) {
        const char *name = pl_json_get_str(v, "transport", NULL);
        const bool shared = json_is_true(json_object_get(v, "shared_device"));
        char lanes[96];
        note_lanes(v, lanes, sizeof lanes);
        const int n = name || *lanes ? snprintf(out + at, size - at, "%s%s%s%s%s%s", at ? "; " : "",
                                                arm, name ? " " : "", name ? name : "",
                                                shared ? ", shared device" : "", lanes)
                                     : 0;
        at += n > 0 ? (size_t)n : 0;
        if (at >= size)
            return;
    }
}

static void log_load(struct pl_worker *w, struct engine *e, bool ok, const json_t *answer)
{
    struct pl_msg_load m = {.head = pl_msg_head(PL_MSG_LOAD), .seq = ++w->seq};
    const json_t *hello = pl_runner_hello(e->runner), *of;
    const int64_t ns = pl_json_get_i64(answer, "load_ns", pl_now_ns() - e->asked_at);
    size_t at = 0;
    m.record.ok = ok;
    m.record.unix_ns = pl_wall_ns();
    m.record.load_ms = (double)ns / 1e6;
    m.record.stage_ms = __builtin_nan("");
    for (uint32_t i = 0; i < w->n_models; i++) {
        if (!e->asked[i])
            continue;
        of = json_object_get(json_object_get(answer, "models"), w->models[i].name);
        m.record.weights_bytes += (uint64_t)pl_json_get_i64(of, "weights_bytes", 0);
        m.record.resident_bytes += (uint64_t)pl_json_get_i64(of, "resident_bytes", 0);
        const int n = snprintf(m.record.models + at, sizeof m.record.models - at, "%s%s",
                               at ? "," : "", w->models[i].name);
        at += n > 0 ? (size_t)n : 0;
        if (at >= sizeof m.record.models)
            at = sizeof m.record.models - 1;
    }
    snprintf(m.record.runner, sizeof m.record.runner, "%.40s %.20s",
             pl_json_get_str(hello, "runner", "?"), pl_json_get_str(hello, "version", ""));
    note_transports(answer, m.record.transports, sizeof m.record.transports);
    if (ok) /* rows name their load: no trial before its number is known */
        e->load_seq = m.seq;
    pl_worker_tell(w, &m, sizeof m);
    if (ok)
        pl_history_add(&w->load_history, (double)(pl_now_ns() - e->asked_at) / 1e6);
}

/* Memory that was not there is told apart from what would load nowhere. */
static void load_failed(struct pl_worker *w, struct engine *e, enum pl_reason reason,
                        const char *text)
{
    const bool memory = reason == PL_REASON_OOM || reason == PL_REASON_MEMORY;
    const enum pl_reason of = memory ? reason : PL_REASON_LOAD;
    char detail[256];
    uint32_t n = 0, last = 0;
    for (uint32_t m = 0; m < w->n_models; m++) {
        if (!e->asked[m])
            continue;
        n++;
        last = m;
    }
    snprintf(detail, sizeof detail, "loading %s: %s: %s",
             n == 1 ? w->models[last].name : "several models", pl_reason_name(reason), text);
    log_load(w, e, false, NULL);
    if (n == 1) {
        struct model *m = &w->models[last];
        m->fails++;
        m->dead_of = m->fails > w->job->retries ? of : PL_REASON_NONE;
        snprintf(m->why, sizeof m->why, "%s", detail);
    } else if (n > 1) {
        e->one_by_one = true;
    } else { /* arms alone were refused: as good as a model that does not load */
        if (++e->start_fails > w->job->retries)
            e->dead_of = memory ? of : PL_REASON_START;
        snprintf(e->why, sizeof e->why, "%s", detail);
    }
    pl_worker_log_failure(w, UINT64_MAX, of, 0, false, detail, pl_runner_stderr_tail(e->runner));
    (void)pl_engine_drop(w, e);
}

static void loaded(struct pl_worker *w, struct engine *e, const json_t *answer)
{
    log_load(w, e, true, answer);
    for (uint32_t m = 0; m < w->n_models; m++) {
        if (!e->asked[m])
            continue;
        e->has_model[m] = true;
        w->models[m].fails = 0;
    }
    for (uint32_t a = 0; a < w->job->shape.arms; a++) {
        uint32_t of[2];
        const uint32_t group = w->block.msg ? w->block.msg->group : 0;
        const uint32_t residence = w->block.items ? w->block.items[w->block.at].residence : 0;
        if (!wants(w, e, a, group, residence) || e->has_arm[a])
            continue;
        models_of(w, a, of);
        if ((of[0] == UINT32_MAX || e->has_model[of[0]]) &&
            (of[1] == UINT32_MAX || e->has_model[of[1]])) {
            forget_arm(w, e, a);
            e->has_arm[a] = true;
        }
    }
    w->block.all_warm = false;
}

void pl_engine_event(struct pl_worker *w, struct engine *e, enum pl_runner_event ev,
                     const json_t *answer, enum pl_reason reason, const char *text)
{
    const bool error = answer && strcmp(pl_json_get_str(answer, "type", ""), "error") == 0;
    const enum engine_state was = e->state;
    w->waiting = NULL;
    e->state = ENGINE_READY;
    if (ev == PL_RUNNER_READY) {
        e->start_fails = 0;
        return;
    }
    if (error) {
        reason = pl_reason_parse(pl_json_get_str(answer, "reason", "runner"));
        text = pl_json_get_str(answer, "text", "");
    }
    if (was == ENGINE_LOADING && (error || ev == PL_RUNNER_FAILED)) {
        load_failed(w, e, reason, text);
    } else if (was == ENGINE_LOADING) {
        loaded(w, e, answer);
    } else if (ev == PL_RUNNER_FAILED || error) {
        pl_log(PL_LOG_WARN, "%s", text);
        if (was == ENGINE_STARTING)
            start_failed(w, e, text, pl_runner_stderr_tail(e->runner));
        (void)pl_engine_drop(w, e);
    }
}

void pl_engine_acked(struct pl_worker *w, uint64_t seq, uint32_t number)
{
    for (uint32_t i = 0; i < w->job->n_engines; i++) {
        struct engine *e = &w->engines[i];
        if (e->load_seq != seq)
            continue;
        e->load = number;
        e->load_seq = 0;
    }
}
