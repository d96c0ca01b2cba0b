/* One trial request: what goes into it, whose turn it is, and who measured beside it. */
#include "worker/rank/worker_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CEILINGS_TIMEOUT_NS (60 * PL_NS_PER_S)
#define TEXT_BYTES_PER_TOKEN 12 /* of the longest prompt that a foreign engine may cut */

static bool exclusive(const struct pl_worker *w, uint32_t arm)
{
    const struct pl_job *j = w->job;
    if (j->exclusive != PL_EXCLUSIVE_AUTO)
        return j->exclusive == PL_EXCLUSIVE_NODE;
    return !j->arms[arm].sim && strcmp(w->deal.set[0].kind, "cpu") == 0;
}

/* ---- what a foreign engine cannot look up ---- */

static json_t *cached_ids(struct pl_worker *w, uint32_t model, uint32_t sample, uint32_t context)
{
    for (uint32_t i = 0; i < w->n_inputs; i++) {
        const struct input *in = &w->inputs[i];
        if (in->ids && in->model == model && in->sample == sample && in->context == context)
            return in->ids;
    }
    return NULL;
}

/* Asks a runner of our own that loads nothing. */
static enum need ask_ids(struct pl_worker *w, uint32_t model, uint32_t sample, uint32_t context,
                         struct pl_err *err)
{
    struct engine *e = &w->engines[w->job->n_engines];
    if (e->dead_of) {
        snprintf(err->text, sizeof err->text, "%s", e->why);
        return NEED_NOW;
    }
    if (e->state == ENGINE_OFF)
        return pl_engine_start(w, e, err) == PL_OK ? NEED_WAIT : NEED_NOW;
    json_t *request = json_pack(
        "{s:s,s:O,s:I,s:o}", "type", "ids", "model", (json_t *)w->models[model].json, "context",
        (json_int_t)w->job->contexts[context], "sample", pl_samples_request(w->samples, sample));
    const enum pl_status st =
        request
            ? pl_runner_send(e->runner, request,
                             pl_history_deadline(&w->load_history, w->job->load_timeout_ns, false),
                             err)
            : pl_fail(err, PL_ENOMEM, "an ids request");
    json_decref(request);
    if (st != PL_OK)
        return NEED_NOW;
    struct input *in = &w->inputs[w->next_input];
    json_decref(in->ids);
    *in = (struct input){.model = model, .sample = sample, .context = context};
    e->state = ENGINE_IDS;
    w->waiting = e;
    return NEED_WAIT;
}

void pl_trial_ids_event(struct pl_worker *w, enum pl_runner_event ev, const json_t *answer,
                        const char *text)
{
    struct engine *e = &w->engines[w->job->n_engines];
    json_t *ids = json_object_get(answer, "ids");
    w->waiting = NULL;
    e->state = ENGINE_READY;
    if (ev == PL_RUNNER_ANSWER && json_is_array(ids)) {
        w->inputs[w->next_input].ids = json_incref(ids);
        w->next_input = (w->next_input + 1) % w->n_inputs;
        return;
    }
    char why[512];
    snprintf(why, sizeof why, "the sample's ids: %s",
             answer ? pl_json_get_str(answer, "text", "no ids came") : text);
    const enum pl_reason reason =
        answer ? pl_reason_parse(pl_json_get_str(answer, "reason", "data")) : PL_REASON_DATA;
    if (ev == PL_RUNNER_FAILED)
        (void)pl_engine_drop(w, e);
    pl_block_fail(w, reason, why, "", false);
}

static enum pl_status add_text(struct pl_worker *w, json_t *sample, uint32_t context,
                               struct pl_err *err)
{
    const char *text;
    size_t len;
    if (!w->texts && !(w->texts = pl_text_cache_new()))
        return pl_fail(err, PL_ENOMEM, "text");
    const enum pl_status st = pl_text_cache_get(w->texts, sample, &text, &len, err);
    if (st != PL_OK)
        return st;
    const size_t most = (size_t)w->job->contexts[context] * TEXT_BYTES_PER_TOKEN + 256;
    if (len > most) {
        len = most;
        while (len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80)
            len--; /* never half a character */
    }
    json_object_set_new(sample, "text", json_stringn(text, len));
    return PL_OK;
}

/* ---- the machine's ceilings ---- */

/* Measured by the first runner of ours that is about to run a real model, in its turn on the node,
 * so that neither disturbs a neighbour's trial nor is halved by one. */
static bool ask_ceilings(struct pl_worker *w, uint32_t arm, struct engine *e)
{
    const struct pl_job *j = w->job;
    struct pl_err err;
    if (w->ceilings_asked || j->arms[arm].sim || j->engines[j->arms[arm].engine].exec)
        return false;
    w->ceilings_asked = true;
    json_t *request = json_pack("{s:s,s:i}", "type", "ceilings", "threads", w->threads);
    if (request && w->deal.n)
        json_object_set_new(
            request, "device",
            json_pack("{s:s,s:s}", "kind", w->deal.set[0].kind, "uuid", w->deal.set[0].uuid));
    const bool sent =
        request && pl_runner_send(e->runner, request, CEILINGS_TIMEOUT_NS, &err) == PL_OK;
    json_decref(request);
    if (!sent) /* the trial will say why */
        return false;
    e->state = ENGINE_CEILINGS;
    w->waiting = e;
    return true;
}

/* A report without ceilings has no limit_pct: nothing fails for want of them. */
void pl_trial_ceilings_event(struct pl_worker *w, enum pl_runner_event ev, const json_t *answer)
{
    struct engine *e = w->waiting;
    struct pl_msg_ceiling m = {.head = pl_msg_head(PL_MSG_CEILING)};
    w->waiting = NULL;
    e->state = ENGINE_READY;
    if (w->node)
        pl_node_end_exclusive(w->node);
    if (ev == PL_RUNNER_FAILED) {
        (void)pl_engine_drop(w, e);
        return;
    }
    m.record.threads = (uint32_t)pl_json_get_i64(answer, "threads", 0);
    m.record.unix_ns = pl_wall_ns();
    m.record.read_bytes_per_s = pl_json_get_f64(answer, "read_bytes_per_s", 0);
    m.record.flop_per_s = pl_json_get_f64(answer, "flop_per_s", 0);
    snprintf(m.record.kind, sizeof m.record.kind, "%s", pl_json_get_str(answer, "kind", ""));
    if (m.record.read_bytes_per_s > 0 || m.record.flop_per_s > 0)
        pl_worker_tell(w, &m, sizeof m);
}

/* ---- the request ---- */

/* The `sample` of one sequence, with what a foreign engine cannot look up. */
static enum pl_status one_sample(struct pl_worker *w, const struct pl_job_engine *def,
                                 uint32_t model, uint32_t context, uint32_t sample, json_t **out,
                                 struct pl_err *err)
{
    json_t *o = pl_samples_request(w->samples, sample);
    enum pl_status st = o ? PL_OK : pl_fail(err, PL_ENOMEM, "a trial request");
    if (st == PL_OK && model != UINT32_MAX)
        json_object_set(o, "ids", cached_ids(w, model, sample, context));
    else if (st == PL_OK && def->exec && strcmp(pl_json_get_str(o, "kind", ""), "text") == 0)
        st = add_text(w, o, context, err);
    if (st == PL_OK)
        *out = o;
    else
        json_decref(o);
    return st;
}

/* `sample`, and with several sequences `samples`, into the request. */
static enum pl_status add_samples(struct pl_worker *w, json_t *request, uint32_t arm,
                                  uint32_t model, uint32_t context, uint32_t sample,
                                  struct pl_err *err)
{
    const struct pl_job *j = w->job;
    const struct pl_job_engine *def = &j->engines[j->arms[arm].engine];
    const uint32_t n = j->arms[arm].sequences;
    json_t *list = n > 1 ? json_array() : NULL;
    enum pl_status st = PL_OK;
    for (uint32_t b = 0; b < n && st == PL_OK; b++) {
        json_t *o = NULL;
        const uint32_t of = pl_samples_in_group(j->shape.samples, n, sample, b);
        st = one_sample(w, def, model, context, of, &o, err);
        if (st == PL_OK && ((b == 0 && json_object_set(request, "sample", o) != 0) ||
                            (n > 1 && json_array_append(list, o) != 0)))
            st = pl_fail(err, PL_ENOMEM, "a trial request");
        json_decref(o);
    }
    if (st == PL_OK && list && json_object_set(request, "samples", list) != 0)
        st = pl_fail(err, PL_ENOMEM, "a trial request");
    json_decref(list);
    return st;
}

/* The model whose tokenizer makes the ids of an arm's samples (UINT32_MAX: none does), once all ids
 * are there. NEED_WAIT and NEED_NOW as pl_trial_send has them. */
static enum need ids_ready(struct pl_worker *w, uint32_t arm, uint32_t context, uint32_t sample,
                           uint32_t *model, struct pl_err *err)
{
    const struct pl_job *j = w->job;
    const struct pl_job_engine *def = &j->engines[j->arms[arm].engine];
    const uint32_t n = j->arms[arm].sequences;
    *model = UINT32_MAX;
    if (!def->exec || !def->ids_from)
        return NEED_READY;
    *model = pl_engine_model(w, def->ids_from);
    if (*model == UINT32_MAX) {
        pl_fail(err, PL_EPROTO, "ids_from: no model %s", def->ids_from);
        return NEED_NOW;
    }
    for (uint32_t b = 0; b < n; b++) {
        const uint32_t of = pl_samples_in_group(j->shape.samples, n, sample, b);
        if (!cached_ids(w, *model, of, context))
            return ask_ids(w, *model, of, context, err);
    }
    return NEED_READY;
}

enum need pl_trial_send(struct pl_worker *w, uint32_t arm, uint32_t context, uint32_t sample,
                        uint32_t repeat, uint32_t attempt, bool timed, struct pl_err *err)
{
    const struct pl_job *j = w->job;
    struct engine *e = &w->engines[j->arms[arm].engine];
    uint32_t model;
    const enum need need = ids_ready(w, arm, context, sample, &model, err);
    if (need != NEED_READY)
        return need;
    if (w->node && exclusive(w, arm) && !pl_node_try_exclusive(w->node)) {
        w->want_turn = true;
        return NEED_WAIT;
    }
    w->want_turn = false;
    if (ask_ceilings(w, arm, e))
        return NEED_WAIT;
    json_t *request = json_pack("{s:s,s:s,s:I,s:I,s:i,s:i,s:b}", "type", "trial", "arm",
                                j->arms[arm].name, "context", (json_int_t)j->contexts[context],
                                "tokens", (json_int_t)j->tokens[context], "repeat", (int)repeat,
                                "attempt", (int)attempt, "timed", timed);
    if (request && !timed && w->want_kernels)
        json_object_set_new(request, "kernels", json_true());
    enum pl_status st = request ? add_samples(w, request, arm, model, context, sample, err)
                                : pl_fail(err, PL_ENOMEM, "a trial request");
    w->neighbours_min = UINT16_MAX;
    w->neighbours_max = 0;
    if (w->node)
        pl_node_enter(w->node);
    w->measuring = true;
    pl_block_sample(w);
    w->trial_unix = pl_wall_ns();
    w->trial_began = pl_now_ns();
    if (st == PL_OK)
        st = pl_runner_send(e->runner, request,
                            pl_history_deadline(&w->history[arm * j->shape.contexts + context],
                                                j->timeout_ns, j->arms[arm].sim),
                            err);
    json_decref(request);
    if (st != PL_OK) {
        pl_trial_over(w);
        return NEED_NOW;
    }
    e->state = ENGINE_TRIAL;
    w->waiting = e;
    return NEED_READY;
}

void pl_block_sample(struct pl_worker *w)
{
    if (!w->measuring)
        return;
    const unsigned n = w->node ? pl_node_neighbours(w->node) : NEIGHBOURS_UNKNOWN;
    if (n < w->neighbours_min)
        w->neighbours_min = n;
    if (n > w->neighbours_max)
        w->neighbours_max = n;
}

void pl_trial_over(struct pl_worker *w)
{
    if (!w->measuring)
        return;
    pl_block_sample(w);
    w->measuring = false;
    if (w->node) {
        pl_node_leave(w->node);
        pl_node_end_exclusive(w->node);
    }
}
