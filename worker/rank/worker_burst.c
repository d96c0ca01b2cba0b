/* An energy burst (docs/METRICS.md, `energy`): trials of one arm at one context, one behind the
 * other and nothing between them, while the processors' energy counters are read. */
#include "worker/rank/worker_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BURST_NS (10 * PL_NS_PER_S)
#define READ_NS PL_NS_PER_S /* a counter turns round in minutes */

/* PACELINE_BURST_S and PACELINE_POWERCAP are for tests: the file says how long a burst was, and
 * what it read. */
static int64_t burst_ns(void)
{
    const char *s = getenv("PACELINE_BURST_S");
    const double v = s ? strtod(s, NULL) : 0;
    return v > 0 && v < 3600 ? (int64_t)(v * 1e9) : BURST_NS;
}

static const char *powercap(void)
{
    const char *s = getenv("PACELINE_POWERCAP");
    return s && *s ? s : PL_RAPL_ROOT;
}

/* Of the GPU where one was dealt, and of the processors where their counters can be read. */
static double joules(const struct burst *b)
{
    return b->gpu_joules + (b->processors ? pl_rapl_joules(&b->rapl) : 0);
}

/* First readings. PL_ENOENT: nothing here counts energy. */
static enum pl_status open_counters(struct pl_worker *w, struct pl_err *err)
{
    struct burst *b = &w->burst;
    struct pl_nvml_reading r;
    const enum pl_status st = pl_rapl_open(powercap(), &b->rapl, err);
    b->processors = st == PL_OK;
    pl_nvml_read(w->nvml, &r);
    b->gpu_readings = isnan(r.joules) ? 0 : 1;
    b->gpu_from = r.joules;
    b->gpu_joules = 0;
    return b->gpu_readings ? PL_OK : st;
}

static enum pl_status read_counters(struct pl_worker *w, struct pl_err *err)
{
    struct burst *b = &w->burst;
    struct pl_nvml_reading r;
    if (b->gpu_readings) {
        pl_nvml_read(w->nvml, &r);
        if (!(r.joules >= b->gpu_from))
            return pl_fail(err, PL_EIO, "%s: its energy counter cannot be read any more",
                           w->deal.set[0].uuid);
        b->gpu_joules = r.joules - b->gpu_from;
        b->gpu_readings++;
    }
    return b->processors ? pl_rapl_read(&b->rapl, err) : PL_OK;
}

/* Tells rank 0 what came of it; why NULL: it was measured. */
static void end(struct pl_worker *w, const char *why)
{
    struct burst *b = &w->burst;
    struct pl_msg_burst m = {.head = pl_msg_head(PL_MSG_BURST)};
    struct pl_log_energy *e = &m.record;
    pl_trial_over(w);
    *e = (struct pl_log_energy){.arm = b->arm,
                                .context = b->context,
                                .sequences = w->job->arms[b->arm].sequences,
                                .trials = why ? 0 : b->trials,
                                .readings =
                                    why ? 0 : (b->processors ? b->rapl.readings : b->gpu_readings),
                                .unix_ns = b->unix_ns,
                                .tokens = why ? 0 : b->tokens,
                                .synthetic = b->synthetic,
                                .seconds = why ? NAN : (double)(b->until - b->began) / 1e9,
                                .joules = why ? NAN : joules(b)};
    if (b->gpu_readings)
        snprintf(e->source, sizeof e->source, "%.12s %.48s", w->deal.set[0].uuid,
                 b->processors ? b->rapl.source : "");
    else
        snprintf(e->source, sizeof e->source, "%s", b->rapl.source);
    snprintf(e->absent, sizeof e->absent, "%s", why ? why : "");
    pl_worker_tell(w, &m, sizeof m);
    b->active = false;
    w->want_turn = false;
}

void pl_burst_begin(struct pl_worker *w, uint32_t arm, uint32_t context)
{
    struct burst *b = &w->burst;
    struct pl_err err = {""};
    if (!w->job || arm >= w->job->shape.arms || context >= w->job->shape.contexts)
        return;
    *b = (struct burst){.active = true, .arm = arm, .context = context, .unix_ns = pl_wall_ns()};
    /* what cannot be read is not worth a burst */
    if (open_counters(w, &err) != PL_OK)
        end(w, err.text);
}

static bool send(struct pl_worker *w)
{
    struct burst *b = &w->burst;
    struct pl_err err = {""};
    const uint32_t sample = (uint32_t)((b->trials + b->warm) % w->job->shape.samples);
    switch (pl_trial_send(w, b->arm, b->context, sample, 0, 0, false, &err)) {
    case NEED_READY:
    case NEED_WAIT:
        return false;
    default:
        end(w, err.text);
        return true;
    }
}

bool pl_burst_advance(struct pl_worker *w)
{
    struct burst *b = &w->burst;
    const struct pl_job *j = w->job;
    struct pl_err err = {""};
    const char *why = "";
    const int64_t now = pl_now_ns();
    if (!b->active || w->block.msg)
        return false;
    if (w->stopping || w->going_out) {
        b->active = false;
        return false;
    }
    if (b->began && now - b->read > READ_NS) {
        b->read = now;
        if (read_counters(w, &err) != PL_OK && !w->waiting) {
            end(w, err.text);
            return true;
        }
    }
    if (w->waiting || w->wait_seq)
        return false;
    if (pl_engine_arm_dead(w, b->arm, &why) != PL_REASON_NONE) {
        end(w, why);
        return true;
    }
    switch (pl_engines_need(w, j->arms[b->arm].group, j->arms[b->arm].residence)) {
    case NEED_WAIT:
        return false;
    case NEED_NOW:
        return true;
    default:
        return send(w);
    }
}

static void begin_measuring(struct pl_worker *w)
{
    struct burst *b = &w->burst;
    struct pl_err err = {""};
    if (open_counters(w, &err) != PL_OK)
        end(w, err.text);
    else
        b->began = b->read = pl_now_ns();
}

void pl_burst_event(struct pl_worker *w, enum pl_runner_event ev, const json_t *answer,
                    const char *text)
{
    struct burst *b = &w->burst;
    struct engine *e = w->waiting;
    const bool ids = e->state == ENGINE_IDS;
    const char *type = pl_json_get_str(answer, "type", "");
    struct pl_err err = {""};
    if (ids && ev == PL_RUNNER_ANSWER && json_is_array(json_object_get(answer, "ids"))) {
        pl_trial_ids_event(w, ev, answer, text);
        return;
    }
    pl_trial_over(w);
    w->waiting = NULL;
    e->state = ENGINE_READY;
    if (ids || ev != PL_RUNNER_ANSWER || strcmp(type, "result") != 0) {
        char why[128];
        snprintf(why, sizeof why, "a trial of the burst failed: %s",
                 answer ? pl_json_get_str(answer, "text", "no result") : text);
        if (ev == PL_RUNNER_FAILED)
            (void)pl_engine_drop(w, e);
        end(w, why);
        return;
    }
    b->synthetic |= json_is_true(json_object_get(answer, "synthetic")) ||
                    pl_runner_synthetic(e->runner) || w->job->arms[b->arm].sim;
    if (!b->began) { /* the models may have come just now */
        if (b->warm++ >= w->job->warmup)
            begin_measuring(w);
        return;
    }
    b->trials++;
    const json_t *generated = json_object_get(answer, "generated");
    for (size_t i = 0; i < json_array_size(generated); i++)
        b->tokens += (uint64_t)json_integer_value(json_array_get(generated, i));
    b->until = pl_now_ns();
    if (b->until - b->began < burst_ns())
        return;
    const enum pl_status st = read_counters(w, &err);
    b->until = pl_now_ns();
    end(w, st == PL_OK ? NULL : err.text);
}
