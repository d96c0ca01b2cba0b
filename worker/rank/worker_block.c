/* A lease, trial by trial: order, warm-ups, retries, rows. */
#include "worker/rank/worker_impl.h"

#include "base/log.h"
#include "results/quality.h"
#include "results/reader.h"
#include "worker/rank/row.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AHEAD_NS                                                                                   \
    (5 * PL_NS_PER_MS) /* ask for the next block when so little is left of this one                \
                        */

/* ---- begin and end ---- */

void pl_block_release(struct block *b)
{
    free(b->msg);
    free(b->items);
    free(b->given_up);
    free(b->given_why);
    *b = (struct block){0};
}

/* Clock of the first core of this worker's share, MHz; NaN where the system does not tell. */
static double core_mhz(const struct pl_worker *w)
{
    char path[96];
    double khz = __builtin_nan("");
    if (w->n_cpus == 0)
        return khz;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/cpufreq/scaling_cur_freq",
             w->cpu_list[0]);
    FILE *f = fopen(path, "re");
    if (f) {
        if (fscanf(f, "%lf", &khz) != 1)
            khz = __builtin_nan("");
        fclose(f);
    }
    return khz / 1e3;
}

void pl_block_open_nvml(struct pl_worker *w)
{
    const struct pl_device *d = &w->deal.set[0];
    struct pl_err err = {""};
    const char *library = getenv("PACELINE_NVML"); /* for tests */
    if (w->nvml || w->deal.n == 0 || strcmp(d->kind, "cuda") != 0)
        return;
    if (pl_nvml_open(library && *library ? library : NULL, d->uuid, &w->nvml, &err) != PL_OK)
        pl_log(PL_LOG_WARN, "%s: clocks, temperature and energy of %s are not recorded", err.text,
               d->name);
}

/* Clock, temperature and throttle bits of what trials run on: the GPU, else the first core. */
static void edge(struct pl_worker *w, double *mhz, double *celsius, uint64_t *throttle)
{
    struct pl_nvml_reading r;
    pl_nvml_read(w->nvml, &r);
    *mhz = w->nvml ? r.mhz : core_mhz(w);
    *celsius = r.celsius;
    *throttle = r.throttle;
}

static enum pl_status make_order(struct pl_worker *w, struct block *b, struct pl_err *err)
{
    const struct pl_msg_lease *m = b->msg;
    const struct pl_job *j = w->job;
    const uint32_t n = pl_cells_count(&b->cells);
    struct pl_order_arm *arms = calloc(b->cells.n_arms, sizeof *arms);
    uint8_t *done = calloc(PL_BITS(n) + 1, 1);
    enum pl_status st = PL_ENOMEM;
    if (!arms || !done) {
        st = pl_fail(err, PL_ENOMEM, "a block of %u trials", n);
        goto out;
    }
    for (uint32_t a = 0; a < b->cells.n_arms; a++)
        arms[a] = (struct pl_order_arm){b->cells.arms[a], j->arms[b->cells.arms[a]].residence};
    for (size_t i = 0; i < PL_BITS(n); i++)
        done[i] = (uint8_t)~b->todo[i];
    /* warm-ups are not listed: what needs one is known only when its turn comes */
    const struct pl_order_in in = {.seed = j->seed,
                                   .context = m->context,
                                   .first_sample = m->first_sample,
                                   .n_samples = m->n_samples,
                                   .repeats = j->shape.repeats,
                                   .run_samples = j->run_samples,
                                   .arms = arms,
                                   .n_arms = b->cells.n_arms,
                                   .done = done};
    st = pl_order_make(&in, &b->items, &b->n_items, err);
out:
    free(arms);
    free(done);
    return st;
}

void pl_block_begin(struct pl_worker *w, struct pl_msg_lease *m)
{
    struct block *b = &w->block;
    const struct pl_job *j = w->job;
    struct pl_err err = {""};
    enum pl_status st = PL_EPROTO;
    *b = (struct block){.msg = m, .lease = m->lease};
    w->phase = RUNNING;
    if (m->group < j->n_groups && m->context < j->shape.contexts && m->n_samples > 0 &&
        m->first_sample < j->shape.samples && m->n_samples <= j->shape.samples - m->first_sample) {
        b->cells =
            (struct pl_cells){.arms = j->group_arms + j->group_first[m->group],
                              .n_arms = j->group_first[m->group + 1] - j->group_first[m->group],
                              .context = m->context,
                              .first_sample = m->first_sample,
                              .n_samples = m->n_samples,
                              .repeats = j->shape.repeats};
        b->todo = m->bits;
        b->again = m->has_again ? m->bits + PL_BITS(m->n_cells) : NULL;
        b->given_up = calloc(b->cells.n_arms, sizeof *b->given_up);
        b->given_why = calloc(b->cells.n_arms, 1);
        if (!b->given_up || !b->given_why)
            st = pl_fail(&err, PL_ENOMEM, "a block");
        else if (pl_cells_count(&b->cells) == m->n_cells)
            st = make_order(w, b, &err);
    }
    if (st != PL_OK) {
        pl_worker_go_out(w, true, "block %llu: %s", (unsigned long long)m->block,
                         err.text[0] ? err.text : "not of this sweep");
        return;
    }
    b->record.block = (uint32_t)m->block;
    b->record.start_unix_ns = pl_wall_ns();
    double mhz, celsius;
    uint64_t throttle;
    edge(w, &mhz, &celsius, &throttle);
    b->record.mhz_start = mhz; /* packed: through locals */
    b->record.celsius_start = celsius;
    b->record.throttle_start = throttle;
    b->record.celsius_end = __builtin_nan("");
}

void pl_block_end(struct pl_worker *w)
{
    struct block *b = &w->block;
    if (!b->msg)
        return;
    pl_trial_over(w);
    w->row_ready = false;
    w->want_turn = false;
    w->wait_seq = 0;
    pl_worker_report(w, true);
    if (!b->revoked) {
        struct pl_msg_done m = {.head = pl_msg_head(PL_MSG_DONE),
                                .lease = b->lease,
                                .cannot = b->cannot,
                                .record = b->record};
        m.record.done = b->done;
        m.record.failed = b->failed;
        m.record.end_unix_ns = pl_wall_ns();
        double mhz, celsius;
        uint64_t throttle;
        edge(w, &mhz, &celsius, &throttle);
        m.record.mhz_end = mhz;
        m.record.celsius_end = celsius;
        m.record.throttle_end = throttle;
        pl_worker_tell(w, &m, sizeof m);
    }
    w->n_cells = 0;
    pl_block_release(b);
}

/* ---- rows ---- */

static uint32_t arm_pos(const struct block *b, uint32_t arm)
{
    uint32_t a = 0;
    while (a + 1 < b->cells.n_arms && b->cells.arms[a] != arm)
        a++;
    return a;
}

static uint32_t cell_of(const struct block *b, const struct pl_order_item *it)
{
    return (arm_pos(b, it->arm) * b->cells.n_samples + (it->sample - b->cells.first_sample)) *
               b->cells.repeats +
           it->repeat;
}

static uint64_t row_of(const struct pl_worker *w, const struct pl_order_item *it)
{
    const struct pl_row_id id = {it->arm, w->block.cells.context, it->sample, it->repeat};
    return pl_row_index(&w->job->shape, &id);
}

static unsigned attempt_of(const struct pl_worker *w, const struct pl_order_item *it)
{
    const struct block *b = &w->block;
    const bool again = b->again && pl_bit_get(b->again, cell_of(b, it));
    const unsigned n = (again ? b->msg->again_attempt : 0) + b->try;
    return n < UINT8_MAX ? n : UINT8_MAX;
}

/* What the worker itself knows of a row. */
static void fill_row(struct pl_worker *w, const struct pl_order_item *it)
{
    struct pl_trial *t = w->row.trial;
    const struct engine *e = &w->engines[w->job->arms[it->arm].engine];
    t->worker = w->number;
    t->load = e->load;
    t->block = (uint32_t)w->block.msg->block;
    t->order = it->order;
    t->swapped = it->swapped;
    t->neighbours_min = (uint16_t)(w->neighbours_min > UINT16_MAX ? UINT16_MAX : w->neighbours_min);
    t->neighbours_max = (uint16_t)(w->neighbours_max > UINT16_MAX ? UINT16_MAX : w->neighbours_max);
    t->start_unix_ns = w->trial_unix;
}

static void failed_row(struct pl_worker *w, const struct pl_order_item *it, enum pl_reason reason,
                       unsigned attempt)
{
    pl_row_clear(&w->row, &w->job->shape);
    fill_row(w, it);
    w->row.trial->reason = (uint16_t)reason;
    w->row.trial->synthetic = w->job->arms[it->arm].sim;
    w->row_state = PL_ROW_FAILED;
    w->row_attempt = (uint8_t)attempt;
    w->row_ready = true;
}

/* The row in hand, once nothing is waited for. The lease's clock is looked at right before the
 * first write. */
static bool write_row(struct pl_worker *w)
{
    struct block *b = &w->block;
    const struct pl_order_item *it = &b->items[b->at];
    struct pl_err err = {""};
    if (!pl_worker_lease_live(w)) {
        pl_worker_report(w, true); /* its answer renews the lease or takes it away */
        return false;
    }
    const bool spans = w->row_state == PL_ROW_DONE;
    if (pl_writer_spans(w->writer, row_of(w, it), w->spans, spans ? w->n_spans : 0, &err) !=
            PL_OK ||
        pl_writer_row(w->writer, row_of(w, it), &w->row, w->row_state, w->row_attempt,
                      w->job->session, &err) != PL_OK) {
        pl_worker_go_out(w, true, "%s", err.text);
        return false;
    }
    if (w->n_cells == 0)
        w->report_since = pl_now_ns();
    w->cells[w->n_cells++] =
        (struct pl_msg_cell){.cell = cell_of(b, it), .failed = w->row_state == PL_ROW_FAILED};
    if (w->row_state == PL_ROW_FAILED)
        b->failed++;
    else
        b->done++;
    w->row_ready = false;
    b->try = 0;
    b->at++;
    if (b->at < b->n_items && b->items[b->at].residence != b->items[b->at - 1].residence)
        b->all_warm = false;
    if (w->n_cells == w->cap_cells)
        pl_worker_report(w, true);
    return true;
}

/* ---- failures ---- */

static bool worth_another_try(enum pl_reason r)
{
    return r != PL_REASON_DATA && r != PL_REASON_CONTEXT && r != PL_REASON_MEMORY;
}

void pl_block_fail(struct pl_worker *w, enum pl_reason reason, const char *text, const char *tail,
                   bool drop)
{
    struct block *b = &w->block;
    const struct pl_order_item *it = &b->items[b->at];
    struct engine *e = &w->engines[w->job->arms[it->arm].engine];
    const unsigned attempt = attempt_of(w, it);
    pl_trial_over(w);
    b->try++;
    const bool final = !worth_another_try(reason) || b->try > w->job->retries;
    const uint64_t seq =
        pl_worker_log_failure(w, row_of(w, it), reason, attempt, final, text, tail);
    if (final) {
        failed_row(w, it, reason, attempt);
        w->wait_seq = seq; /* its entry in /failures first */
    }
    if (drop)
        (void)pl_engine_drop(w, e);
}

static void warm_up_failed(struct pl_worker *w, enum pl_reason reason, const char *text,
                           const char *tail)
{
    struct block *b = &w->block;
    const uint32_t arm = b->warm_arm;
    char detail[256];
    snprintf(detail, sizeof detail, "warm-up of %s at context %lld: %s", w->job->arms[arm].name,
             (long long)w->job->contexts[b->cells.context], text);
    pl_worker_log_failure(w, UINT64_MAX, reason, w->warm_fails[arm], false, detail, tail);
    if (++w->warm_fails[arm] > w->job->retries) {
        b->given_up[arm_pos(b, arm)] = true;
        b->given_why[arm_pos(b, arm)] = (uint8_t)reason;
        snprintf(b->given_text, sizeof b->given_text, "%s", detail);
    }
    b->all_warm = false;
    (void)pl_engine_drop(w, &w->engines[w->job->arms[arm].engine]);
}

/* ---- answers ---- */

/* What each kernel took in the trial that was asked for it. */
static void tell_kernels(struct pl_worker *w, uint32_t arm, uint32_t context, const json_t *answer)
{
    const json_t *list = json_object_get(answer, "kernels"), *k;
    struct pl_msg_kernel m = {.head = pl_msg_head(PL_MSG_KERNEL)};
    size_t i;
    m.record.arm = arm;
    m.record.context = context;
    m.record.unix_ns = w->trial_unix;
    m.record.synthetic = json_is_true(json_object_get(answer, "synthetic"));
    json_array_foreach (list, i, k) {
        m.record.ms = (double)pl_json_get_i64(k, "ns", 0) / 1e6;
        m.record.calls = (uint64_t)pl_json_get_i64(k, "calls", 0);
        m.record.bytes = (uint64_t)pl_json_get_i64(k, "bytes", 0);
        m.record.flops = (uint64_t)pl_json_get_i64(k, "flops", 0);
        memset(m.record.name, 0, sizeof m.record.name);
        snprintf(m.record.name, sizeof m.record.name, "%s", pl_json_get_str(k, "name", "?"));
        pl_worker_tell(w, &m, sizeof m);
    }
}

/* What the engine said against what is right, where both are known: the mean over the sequences
 * of the batch. The engine does not get to know the answer. */
static void score(struct pl_worker *w, const struct pl_order_item *it, const json_t *answer)
{
    const json_t *texts = json_object_get(answer, "texts");
    const struct pl_job *j = w->job;
    const uint32_t n = (uint32_t)json_array_size(texts);
    struct pl_sample_scores sum = {0, 0, 0, 0, 0};
    for (uint32_t i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(texts, i));
        struct pl_sample_scores v;
        if (!text)
            return;
        pl_samples_score(w->samples, pl_samples_in_group(j->shape.samples, n, it->sample, i), text,
                         &v);
        sum.accuracy += v.accuracy / n;
        sum.f1 += v.f1 / n;
        sum.rouge_l += v.rouge_l / n;
        sum.exact_match += v.exact_match / n;
        sum.classification += v.classification / n;
    }
    if (n == 0)
        return;
    w->row.quality[PL_QUALITY_ACCURACY] = sum.accuracy;
    w->row.quality[PL_QUALITY_F1] = sum.f1;
    w->row.quality[PL_QUALITY_ROUGE_L] = sum.rouge_l;
    w->row.quality[PL_QUALITY_EXACT_MATCH] = sum.exact_match;
    w->row.quality[PL_QUALITY_CLASSIFICATION] = sum.classification;
}

static void take_result(struct pl_worker *w, const json_t *answer)
{
    struct block *b = &w->block;
    const struct pl_order_item *it = &b->items[b->at];
    const struct engine *e = &w->engines[w->job->arms[it->arm].engine];
    struct pl_err err = {""};
    char why[256];
    if (pl_row_from_result(answer, &w->job->shape, w->job->arms[it->arm].sequences, &w->row,
                           &err) != PL_OK ||
        pl_spans_from_result(answer, w->spans, &w->n_spans, &err) != PL_OK) {
        pl_block_fail(w, PL_REASON_GARBAGE, err.text, pl_runner_stderr_tail(e->runner), true);
        return;
    }
    const uint64_t asked =
        (uint64_t)w->job->tokens[b->cells.context] * w->job->arms[it->arm].sequences;
    if (w->row.trial->generated > asked) {
        snprintf(why, sizeof why, "generated %" PRIu32 " tokens, %" PRIu64 " were asked for",
                 w->row.trial->generated, asked);
        pl_block_fail(w, PL_REASON_GARBAGE, why, pl_runner_stderr_tail(e->runner), true);
        return;
    }
    fill_row(w, it);
    score(w, it, answer);
    w->row.trial->synthetic |= pl_runner_synthetic(e->runner) || w->job->arms[it->arm].sim;
    const char *broken = pl_row_check(&w->job->shape, &w->row, why, sizeof why);
    if (broken) {
        pl_block_fail(w, PL_REASON_IDENTITY, broken, pl_runner_stderr_tail(e->runner), false);
        return;
    }
    w->row_state = PL_ROW_DONE;
    w->row_attempt = (uint8_t)attempt_of(w, it);
    w->row_ready = true;
}

void pl_block_trial_event(struct pl_worker *w, enum pl_runner_event ev, const json_t *answer,
                          enum pl_reason reason, const char *text)
{
    struct block *b = &w->block;
    struct engine *e = w->waiting;
    const char *type = answer ? pl_json_get_str(answer, "type", "") : "";
    const char *tail = pl_runner_stderr_tail(e->runner);
    const double ms = (double)(pl_now_ns() - w->trial_began) / 1e6;
    const uint32_t arm = b->warming ? b->warm_arm : b->items[b->at].arm;
    const size_t at = (size_t)arm * w->job->shape.contexts + b->cells.context;
    pl_trial_over(w);
    w->waiting = NULL;
    e->state = ENGINE_READY;
    const bool error = strcmp(type, "error") == 0;
    if (ev == PL_RUNNER_ANSWER && !error && strcmp(type, "result") != 0) {
        ev = PL_RUNNER_FAILED;
        reason = PL_REASON_GARBAGE;
        text = "an answer that is no result";
    }
    if (error) {
        reason = pl_reason_parse(pl_json_get_str(answer, "reason", "runner"));
        text = pl_json_get_str(answer, "text", "");
    }
    if (ev == PL_RUNNER_ANSWER && !error) {
        pl_history_add(&w->history[at], ms);
        w->item_ns = w->item_ns > 0 ? 0.9 * w->item_ns + 0.1 * ms * 1e6 : ms * 1e6;
    }
    if (!b->warming) {
        if (ev == PL_RUNNER_FAILED || error)
            pl_block_fail(w, reason, text, tail,
                          ev == PL_RUNNER_FAILED || worth_another_try(reason));
        else
            take_result(w, answer);
        return;
    }
    b->warming = false;
    /* a sample that does not fit is no fault of the arm: the timed trial says it */
    if (ev == PL_RUNNER_FAILED || (error && worth_another_try(reason))) {
        warm_up_failed(w, reason, text, tail);
        return;
    }
    tell_kernels(w, arm, b->cells.context, answer);
    w->warm[at]++;
    w->warm_fails[arm] = 0;
}

/* ---- going on ---- */

/* An arm that is timed before the next swap and not warm yet; false: none. */
static bool cold_arm(struct pl_worker *w, uint32_t *arm)
{
    struct block *b = &w->block;
    const char *why;
    if (b->all_warm)
        return false;
    for (size_t i = b->at; i < b->n_items && b->items[i].residence == b->items[b->at].residence;
         i++) {
        const uint32_t a = b->items[i].arm;
        if (b->given_up[arm_pos(b, a)] || pl_engine_arm_dead(w, a, &why) != PL_REASON_NONE)
            continue;
        if (w->warm[(size_t)a * w->job->shape.contexts + b->cells.context] <
            w->job->warmup + w->job->kernels) {
            *arm = a;
            return true;
        }
    }
    b->all_warm = true;
    return false;
}

static bool send_warm_up(struct pl_worker *w, uint32_t arm)
{
    struct block *b = &w->block;
    struct pl_err err = {""};
    const size_t at = (size_t)arm * w->job->shape.contexts + b->cells.context;
    const uint32_t round = w->warm[at];
    b->warming = true;
    b->warm_arm = arm;
    w->want_kernels = w->job->kernels && round == w->job->warmup;
    switch (pl_trial_send(w, arm, b->cells.context,
                          b->cells.first_sample + round % b->cells.n_samples, 0, w->warm_fails[arm],
                          false, &err)) {
    case NEED_READY:
        return false;
    case NEED_WAIT:
        b->warming = false;
        return false;
    default: /* there is no input for it: the timed trial will say so */
        b->warming = false;
        w->warm[at]++;
        return true;
    }
}

static bool send_timed(struct pl_worker *w)
{
    struct block *b = &w->block;
    const struct pl_order_item *it = &b->items[b->at];
    struct pl_err err = {""};
    switch (pl_trial_send(w, it->arm, b->cells.context, it->sample, it->repeat, attempt_of(w, it),
                          true, &err)) {
    case NEED_READY:
        break;
    case NEED_WAIT:
        return false;
    default:
        pl_block_fail(w, PL_REASON_DATA, err.text, "", false);
        return true;
    }
    if ((double)(b->n_items - b->at - 1) * w->item_ns <= (double)AHEAD_NS)
        pl_worker_ask(w);
    return false;
}

/* The arm cannot run here: its rows fail at once when nobody can, else another worker gets them. */
static bool pass_over(struct pl_worker *w, enum pl_reason reason, const char *why, bool final)
{
    struct block *b = &w->block;
    const struct pl_order_item *it = &b->items[b->at];
    if (!final) {
        b->cannot = true;
        b->at++;
        b->all_warm = false;
        return true;
    }
    w->trial_unix = pl_wall_ns();
    w->neighbours_min = w->neighbours_max = NEIGHBOURS_UNKNOWN;
    const unsigned attempt = attempt_of(w, it);
    w->wait_seq = pl_worker_log_failure(w, row_of(w, it), reason, attempt, true, why, "");
    failed_row(w, it, reason, attempt);
    return true;
}

bool pl_block_advance(struct pl_worker *w)
{
    struct block *b = &w->block;
    const char *why = "";
    uint32_t arm;
    if (!b->msg || w->waiting || w->going_out)
        return false;
    if (b->revoked) {
        pl_block_end(w);
        return true;
    }
    if (w->wait_seq)
        return false;
    if (w->row_ready)
        return write_row(w);
    if (w->stopping || b->at >= b->n_items) {
        pl_block_end(w);
        return true;
    }
    const struct pl_order_item *it = &b->items[b->at];
    const uint32_t pos = arm_pos(b, it->arm);
    if (b->given_up[pos])
        return pass_over(w, (enum pl_reason)b->given_why[pos], b->given_text, true);
    const enum pl_reason dead = pl_engine_arm_dead(w, it->arm, &why);
    if (dead != PL_REASON_NONE)
        return pass_over(w, dead, why, b->msg->give_up);
    switch (pl_engines_need(w, b->msg->group, it->residence)) {
    case NEED_WAIT:
        return false;
    case NEED_NOW:
        return true;
    case NEED_READY:
        break;
    }
    if (cold_arm(w, &arm))
        return send_warm_up(w, arm);
    return send_timed(w);
}
