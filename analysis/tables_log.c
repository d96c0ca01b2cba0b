/* The tables about what happened: memory, KV lengths, failures, warnings, provenance. */
#include "analysis/pruned.h"
#include "analysis/tables.h"
#include "base/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define N(cols) (sizeof(cols) / sizeof(cols)[0])

static int64_t context_of(const struct pl_dataset *d, uint32_t context)
{
    return pl_reader_context(d->reader, context);
}

/* ---- memory and KV ---- */

static const struct pl_col memory_cols[] = {
    {"arm", PL_COL_TEXT, NULL, 0},
    {"context", PL_COL_INT, NULL, 0},
    {"n", PL_COL_INT, "trials", 0},
    {"weights_bytes", PL_COL_BYTES, "weights", 0},
    {"kv_bytes", PL_COL_BYTES, "KV", 0},
    {"workspace_bytes", PL_COL_BYTES, "workspace", 0},
    {"device_peak_bytes", PL_COL_BYTES, "device peak, mean", 0},
    {"device_peak_max_bytes", PL_COL_BYTES, "device peak, most", 0},
    {"other_bytes", PL_COL_BYTES, "other", 0},
    {"synthetic", PL_COL_BOOL, NULL, 0},
};

/* An engine that does not say writes 0. */
static void bytes(struct pl_table *t, double sum, uint64_t n)
{
    if (sum > 0)
        pl_table_real(t, sum / (double)n);
    else
        pl_table_null(t, "n/a");
}

void pl_table_memory(const struct pl_dataset *d, struct pl_table *t)
{
    pl_table_init(t, pl_table_id_name(PL_TABLE_MEMORY), "Memory (means over trials)", memory_cols,
                  N(memory_cols));
    for (uint32_t c = 0; c < d->shape.contexts; c++)
        for (uint32_t a = 0; a < d->shape.arms; a++) {
            const struct pl_cell *v = pl_dataset_cell(d, a, c);
            if (!(v->weights_bytes + v->kv_bytes + v->workspace_bytes + v->device_peak_bytes +
                      v->other_bytes >
                  0))
                continue;
            pl_table_row(t);
            pl_table_text(t, d->arms[a]);
            pl_table_context(t, context_of(d, c));
            pl_table_int(t, (int64_t)v->n);
            bytes(t, v->weights_bytes, v->done);
            bytes(t, v->kv_bytes, v->done);
            bytes(t, v->workspace_bytes, v->done);
            bytes(t, v->device_peak_bytes, v->done);
            bytes(t, v->device_peak_max, 1);
            bytes(t, v->other_bytes, v->done);
            pl_table_bool(t, v->synthetic > 0);
        }
    pl_tables_label(d, t);
}

static const struct pl_col kv_cols[] = {
    {"arm", PL_COL_TEXT, NULL, 0},
    {"context", PL_COL_INT, NULL, 0},
    {"model", PL_COL_TEXT, NULL, 0},
    {"layers", PL_COL_INT, NULL, 0},
    {"n", PL_COL_INT, "trials", 0},
    {"mean_length", PL_COL_TIME, "mean length", 0},
    {"shortest", PL_COL_INT, NULL, 0},
    {"longest", PL_COL_INT, NULL, 0},
    {"reduction", PL_COL_SHARE, NULL, 0},
    {"bytes", PL_COL_BYTES, "KV at the end", 0},
    {"lengths", PL_COL_LIST, "by layer", PL_COL_WIDE},
    {"synthetic", PL_COL_BOOL, NULL, 0},
};

/* Mean rows of each layer, first to last; null where they are not known. */
static void layer_lengths(const struct pl_dataset *d, const struct pl_cell *c, struct pl_table *t)
{
    double *v = pl_arena_alloc(&t->arena, d->shape.layers * sizeof *v);
    for (uint32_t l = 0; v && l < d->shape.layers; l++)
        v[l] = pl_cell_layer_rows(d, c, l);
    t->failed |= !v;
    pl_table_list(t, v, v ? d->shape.layers : 0);
}

void pl_table_kv(const struct pl_dataset *d, struct pl_table *t)
{
    pl_table_init(t, pl_table_id_name(PL_TABLE_KV), "KV cache after prefill", kv_cols, N(kv_cols));
    for (uint32_t c = 0; c < d->shape.contexts; c++)
        for (uint32_t a = 0; a < d->shape.arms; a++)
            for (int m = 0; m < 2; m++) {
                const struct pl_cell *v = pl_dataset_cell(d, a, c);
                const double layers = v->kv[m].layers;
                if (!(layers > 0))
                    continue;
                pl_table_row(t);
                pl_table_text(t, d->arms[a]);
                pl_table_context(t, context_of(d, c));
                pl_table_text(t, m ? "drafter" : "main");
                pl_table_int(t, llround(layers / ((double)v->n * v->sequences)));
                pl_table_int(t, (int64_t)v->n);
                pl_table_real(t, v->kv[m].lengths / layers);
                pl_table_int(t, v->kv[m].shortest);
                pl_table_int(t, v->kv[m].longest);
                /* the drafter's prompt is its own: nothing to compare with */
                pl_table_real(t, m ? NAN : 1 - v->kv[m].lengths / v->kv[m].full);
                pl_table_real(t, m || !(v->kv_bytes > 0) ? NAN : v->kv_bytes / (double)v->n);
                if (m)
                    pl_table_null(t, NULL);
                else
                    layer_lengths(d, v, t);
                pl_table_bool(t, v->synthetic > 0);
            }
    pl_table_note(t, "reduction = 1 − Σ lengths / (layers · prompt tokens)");
    pl_tables_label(d, t);
}

/* ---- failures ---- */

static const struct pl_col failure_cols[] = {
    {"arm", PL_COL_TEXT, NULL, 0},
    {"context", PL_COL_INT, NULL, 0},
    {"reason", PL_COL_TEXT, NULL, 0},
    {"failed", PL_COL_INT, "given up", 0},
    {"retried", PL_COL_INT, "failed attempts", 0},
    {"of", PL_COL_INT, "of trials", 0},
    {"share", PL_COL_SHARE, NULL, 0},
    {"sample", PL_COL_TEXT, "first sample", 0},
    {"repeat", PL_COL_INT, NULL, PL_COL_WIDE},
    {"detail", PL_COL_TEXT, "first message", PL_COL_LONG},
    {"stderr_tail", PL_COL_TEXT, NULL, PL_COL_WIDE},
    {"synthetic", PL_COL_BOOL, NULL, PL_COL_WIDE},
};

static bool same_failure(const struct pl_dataset *d, const struct pl_log_failure *f, uint32_t arm,
                         uint32_t context, unsigned reason)
{
    if (f->reason != reason || f->row >= d->rows)
        return false;
    const struct pl_row_id id = pl_row_at(&d->shape, f->row);
    return id.arm == arm && id.context == context;
}

static void failure_row(const struct pl_dataset *d, uint32_t arm, uint32_t context, unsigned reason,
                        struct pl_table *t)
{
    const struct pl_cell *c = pl_dataset_cell(d, arm, context);
    const struct pl_log_failure *first = NULL;
    uint64_t attempts = 0;
    char tail[sizeof first->stderr_tail + 1], detail[sizeof first->detail + 1];

    for (uint32_t i = 0; i < d->n_failures; i++)
        if (same_failure(d, &d->failures[i], arm, context, reason)) {
            first = first ? first : &d->failures[i];
            attempts++;
        }
    if (c->by_reason[reason] == 0 && !first)
        return;
    const uint64_t trials = c->done + c->failed;
    pl_table_row(t);
    pl_table_text(t, d->arms[arm]);
    pl_table_context(t, context_of(d, context));
    pl_table_text(t, pl_reason_name((enum pl_reason)reason));
    pl_table_int(t, (int64_t)c->by_reason[reason]);
    pl_table_int(t, (int64_t)(attempts > c->by_reason[reason] ? attempts : c->by_reason[reason]));
    pl_table_int(t, (int64_t)trials);
    pl_table_real(t, trials ? (double)c->by_reason[reason] / (double)trials : NAN);
    if (first) {
        const struct pl_row_id id = pl_row_at(&d->shape, first->row);
        snprintf(detail, sizeof detail, "%.*s", (int)sizeof first->detail, first->detail);
        snprintf(tail, sizeof tail, "%.*s", (int)sizeof first->stderr_tail, first->stderr_tail);
        pl_table_text(t, pl_reader_sample(d->reader, id.sample));
        pl_table_int(t, id.repeat);
        pl_table_text(t, detail);
        pl_table_text(t, tail);
    } else {
        for (int i = 0; i < 4; i++)
            pl_table_null(t, NULL);
    }
    pl_table_bool(t, c->synthetic > 0);
}

/* Failures that belong to no trial: a model that could not be loaded, a runner that did not start.
 */
static void load_failures(const struct pl_dataset *d, struct pl_table *t)
{
    for (unsigned reason = 0; reason < PL_REASON_COUNT; reason++) {
        const struct pl_log_failure *first = NULL;
        char tail[sizeof first->stderr_tail + 1], detail[sizeof first->detail + 1];
        int64_t attempts = 0;
        for (uint32_t i = 0; i < d->n_failures; i++)
            if (d->failures[i].row >= d->rows && d->failures[i].reason == reason) {
                first = first ? first : &d->failures[i];
                attempts++;
            }
        if (!first)
            continue;
        snprintf(detail, sizeof detail, "%.*s", (int)sizeof first->detail, first->detail);
        snprintf(tail, sizeof tail, "%.*s", (int)sizeof first->stderr_tail, first->stderr_tail);
        pl_table_row(t);
        pl_table_null(t, "(no trial)");
        pl_table_null(t, NULL);
        pl_table_text(t, pl_reason_name((enum pl_reason)reason));
        pl_table_int(t, 0);
        pl_table_int(t, attempts);
        for (int i = 0; i < 4; i++)
            pl_table_null(t, NULL);
        pl_table_text(t, detail);
        pl_table_text(t, tail);
        pl_table_bool(t, false);
    }
}

void pl_table_failures(const struct pl_dataset *d, struct pl_table *t)
{
    pl_table_init(t, pl_table_id_name(PL_TABLE_FAILURES), "Failures", failure_cols,
                  N(failure_cols));
    for (uint32_t c = 0; c < d->shape.contexts; c++)
        for (uint32_t a = 0; a < d->shape.arms; a++)
            for (unsigned r = 0; r < PL_REASON_COUNT; r++)
                failure_row(d, a, c, r, t);
    load_failures(d, t);
    if (t->n_rows == 0)
        pl_table_note(t, "no trial failed");
    else
        pl_table_note(t, "given up: trials whose last attempt failed; they are in no other table. "
                         "failed attempts: all that are known, retried ones too");
    pl_tables_label(d, t);
}

/* ---- provenance ---- */

static const struct pl_col provenance_cols[] = {{"key", PL_COL_TEXT, NULL, 0},
                                                {"value", PL_COL_TEXT, NULL, PL_COL_LONG}};

static void fact(struct pl_table *t, const char *key, const char *value)
{
    pl_table_row(t);
    pl_table_text(t, key);
    pl_table_text(t, value);
}

static void fact_u64(struct pl_table *t, const char *key, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, value);
    fact(t, key, text);
}

static void fact_time(struct pl_table *t, const char *key, int64_t unix_ns)
{
    char text[32];
    const time_t s = (time_t)(unix_ns / 1000000000);
    struct tm tm;
    if (unix_ns > 0 && gmtime_r(&s, &tm) && strftime(text, sizeof text, "%Y-%m-%d %H:%M:%SZ", &tm))
        fact(t, key, text);
}

#define DEPTH_MAX 8

/* {"a": {"b": 1}} → a.b, lists whole. */
static enum pl_status flatten(const char *prefix, const json_t *v, int depth, struct pl_table *t,
                              struct pl_err *err)
{
    struct pl_buf text;
    char key[256];
    const char *name;
    json_t *child;
    enum pl_status st = PL_OK;

    if (json_is_object(v) && json_object_size(v) && depth < DEPTH_MAX) {
        json_object_foreach ((json_t *)(uintptr_t)v, name, child) {
            snprintf(key, sizeof key, "%s%s%s", prefix, *prefix ? "." : "", name);
            st = flatten(key, child, depth + 1, t, err);
            if (st != PL_OK)
                return st;
        }
        return PL_OK;
    }
    if (json_is_string(v)) {
        fact(t, prefix, json_string_value(v));
        return PL_OK;
    }
    if (json_is_array(v) || json_is_object(v)) {
        pl_buf_init(&text, PL_JSON_MAX);
        st = pl_json_dump(v, &text, err);
        if (st == PL_OK)
            fact(t, prefix, text.len ? text.data : "");
        pl_buf_release(&text);
        return st;
    }
    if (json_is_real(v))
        snprintf(key, sizeof key, "%.17g", json_real_value(v));
    else if (json_is_integer(v))
        snprintf(key, sizeof key, "%lld", (long long)json_integer_value(v));
    else
        snprintf(key, sizeof key, "%s", json_is_null(v) ? "" : json_is_true(v) ? "true" : "false");
    fact(t, prefix, key);
    return PL_OK;
}

static void sessions(const struct pl_dataset *d, struct pl_table *t)
{
    for (uint32_t i = 0; i < d->n_session_events; i++) {
        const struct pl_log_session *s = &d->sessions[i];
        char key[64], text[192];
        snprintf(key, sizeof key, "session.%u.%s", s->session, s->event == 1 ? "start" : "end");
        fact_time(t, key, s->unix_ns);
        if (s->event == 1) {
            snprintf(key, sizeof key, "session.%u.host", s->session);
            snprintf(text, sizeof text, "%.64s, %" PRIu32 " ranks, paceline %.32s", s->host,
                     s->ranks, s->version);
        } else {
            snprintf(key, sizeof key, "session.%u.result", s->session);
            snprintf(text, sizeof text, "exit %d, %" PRIu32 " done, %" PRIu32 " failed",
                     s->exit_code, s->done, s->failed);
        }
        fact(t, key, text);
    }
}

static void ceilings(const struct pl_dataset *d, struct pl_table *t)
{
    for (uint32_t i = 0; i < d->n_ceilings; i++) {
        const struct pl_log_ceiling *c = &d->ceilings[i];
        char key[64], text[160];
        snprintf(key, sizeof key, "session.%u.worker.%" PRIu32 ".ceilings", c->session, c->worker);
        snprintf(text, sizeof text, "%" PRIu32 " threads: read %.3g GB/s, %.3g GFLOP/s (%.*s)",
                 c->threads, c->read_bytes_per_s / 1e9, c->flop_per_s / 1e9, (int)sizeof c->kind,
                 c->kind);
        fact(t, key, text);
    }
}

static void places(const struct pl_dataset *d, struct pl_table *t)
{
    for (uint32_t i = 0; i < d->n_devices; i++) {
        char key[32];
        snprintf(key, sizeof key, "device.%" PRIu32, i);
        fact(t, key, d->devices[i]);
    }
}

enum pl_status pl_table_provenance(const struct pl_dataset *d, struct pl_table *t,
                                   struct pl_err *err)
{
    const json_t *sweep = pl_reader_sweep(d->reader);
    char text[192];

    pl_table_init(t, pl_table_id_name(PL_TABLE_PROVENANCE), "Provenance", provenance_cols,
                  N(provenance_cols));
    fact(t, "file", d->path);
    fact(t, "sweep.name", pl_json_get_str(sweep, "name", ""));
    fact(t, "sweep.sha256", pl_reader_sha256(d->reader));
    fact_u64(t, "sweep.seed", d->seed);
    fact(t, "sweep.mode", d->prefill_mode ? "prefill" : "e2e");
    snprintf(text, sizeof text,
             "%" PRIu32 " arms × %" PRIu32 " contexts × %" PRIu32 " samples × %" PRIu32 " repeats",
             d->shape.arms, d->shape.contexts, d->shape.samples, d->shape.repeats);
    fact(t, "sweep.grid", text);
    fact_u64(t, "sweep.batch", d->shape.batch);
    fact_u64(t, "trials.all", d->rows);
    fact_u64(t, "trials.done", d->done);
    fact_u64(t, "trials.failed", d->failed);
    fact_u64(t, "trials.left", d->rows - d->done - d->failed);
    fact_u64(t, "trials.synthetic", d->synthetic);
    snprintf(text, sizeof text, "%d (%d with more than %d prompts), seeded by sweep.seed",
             PL_RESAMPLES, PL_RESAMPLES_MANY, PL_UNITS_EXACT);
    fact(t, "report.resamples", text);
    fact(t, "report.paceline", PL_VERSION);
    places(d, t);
    sessions(d, t);
    ceilings(d, t);
    enum pl_status st =
        flatten("sweep.data", json_object_get(pl_reader_sweep(d->reader), "data"), 0, t, err);
    if (st == PL_OK)
        st = flatten("", pl_reader_provenance(d->reader), 0, t, err);
    for (uint32_t a = 0; a < d->shape.arms && st == PL_OK; a++) {
        snprintf(text, sizeof text, "arm.%.160s", d->arms[a]);
        st = flatten(text, pl_reader_arm_json(d->reader, a), DEPTH_MAX, t, err);
    }
    pl_tables_label(d, t);
    return st;
}
