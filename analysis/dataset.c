/* From a results file to arrays. */
#include "analysis/dataset.h"

#include "analysis/agreement.h"
#include "analysis/out.h"
#include "base/json.h"
#include "results/quality.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where (session, worker) computed. */
struct ref {
    uint16_t session;
    uint32_t worker, place;
};

struct loader {
    struct pl_dataset *d;
    struct ref *refs; /* sorted by session, worker */
    size_t n_refs;
    enum pl_status st;
    struct pl_err *err;
};

static char *clean_copy(const char *s)
{
    char *copy = strdup(s ? s : "");
    if (copy)
        pl_text_clean(copy);
    return copy;
}

/* ---- places ---- */

static enum pl_status add_device(struct loader *l, const char *name, uint32_t *out)
{
    struct pl_dataset *d = l->d;
    char *copy = clean_copy(name);
    if (!copy)
        return PL_ENOMEM;
    for (uint32_t i = 0; i < d->n_devices; i++)
        if (strcmp(d->devices[i], copy) == 0) {
            free(copy);
            *out = i;
            return PL_OK;
        }
    char **more = realloc(d->devices, (d->n_devices + 1) * sizeof *more);
    if (!more) {
        free(copy);
        return PL_ENOMEM;
    }
    d->devices = more;
    d->devices[d->n_devices] = copy;
    *out = d->n_devices++;
    return PL_OK;
}

static enum pl_status add_place(struct loader *l, uint32_t device, uint16_t session, uint32_t *out)
{
    struct pl_dataset *d = l->d;
    for (uint32_t i = 0; i < d->n_places; i++)
        if (d->places[i].device == device && d->places[i].session == session) {
            *out = i;
            return PL_OK;
        }
    struct pl_place *more = realloc(d->places, (d->n_places + 1) * sizeof *more);
    if (!more)
        return PL_ENOMEM;
    d->places = more;
    d->places[d->n_places] = (struct pl_place){.device = device, .session = session};
    *out = d->n_places++;
    return PL_OK;
}

static size_t lower_bound(const struct loader *l, uint16_t session, uint32_t worker)
{
    size_t low = 0, high = l->n_refs;
    while (low < high) {
        const size_t mid = (low + high) / 2;
        const struct ref *r = &l->refs[mid];
        if (r->session < session || (r->session == session && r->worker < worker))
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* The later record of a worker wins: it may have been given another device. */
static enum pl_status set_ref(struct loader *l, uint16_t session, uint32_t worker, const char *name)
{
    uint32_t device = 0, place = 0;
    enum pl_status st = add_device(l, name, &device);
    if (st == PL_OK)
        st = add_place(l, device, session, &place);
    if (st != PL_OK)
        return pl_fail(l->err, st, "the list of devices");
    const size_t at = lower_bound(l, session, worker);
    if (at < l->n_refs && l->refs[at].session == session && l->refs[at].worker == worker) {
        l->refs[at].place = place;
        return PL_OK;
    }
    struct ref *more = realloc(l->refs, (l->n_refs + 1) * sizeof *more);
    if (!more)
        return pl_fail(l->err, PL_ENOMEM, "the list of workers");
    l->refs = more;
    memmove(&more[at + 1], &more[at], (l->n_refs - at) * sizeof *more);
    more[at] = (struct ref){session, worker, place};
    l->n_refs++;
    return PL_OK;
}

static enum pl_status find_place(struct loader *l, uint16_t session, uint32_t worker, uint32_t *out)
{
    size_t at = lower_bound(l, session, worker);
    if (at >= l->n_refs || l->refs[at].session != session || l->refs[at].worker != worker) {
        char name[32]; /* its record found no slot */
        snprintf(name, sizeof name, "worker %" PRIu32, worker);
        const enum pl_status st = set_ref(l, session, worker, name);
        if (st != PL_OK)
            return st;
        at = lower_bound(l, session, worker);
    }
    *out = l->refs[at].place;
    return PL_OK;
}

/* A log's records, owned by the caller; NULL where it or an earlier one could not be read. */
static void *read_log(struct loader *l, enum pl_log_kind kind, uint32_t *n)
{
    void *records = NULL;

    if (l->st == PL_OK)
        l->st = pl_reader_log(l->d->reader, kind, &records, n, &l->d->overflow[kind], l->err);
    return records;
}

static enum pl_status add_workers(struct loader *l)
{
    struct pl_dataset *d = l->d;
    enum pl_status st = PL_OK;

    for (uint32_t i = 0; i < d->n_workers && st == PL_OK; i++) {
        const struct pl_log_worker *w = &d->workers[i];
        char name[sizeof w->host + sizeof w->device + 2];
        snprintf(name, sizeof name, "%.*s/%.*s", (int)sizeof w->host, w->host,
                 (int)sizeof w->device, w->device[0] ? w->device : "cpu");
        st = set_ref(l, w->session, w->worker, name);
    }
    return st;
}

/* A record of a place: its mean with those before it. */
static void add_ceiling(struct pl_place *p, const struct pl_log_ceiling *c, double before)
{
    p->read_bytes_per_s = (p->read_bytes_per_s * before + c->read_bytes_per_s) / (before + 1);
    p->flop_per_s = (p->flop_per_s * before + c->flop_per_s) / (before + 1);
}

static enum pl_status add_ceilings(struct loader *l)
{
    struct pl_dataset *d = l->d;
    enum pl_status st = PL_OK;

    for (uint32_t i = 0; i < d->n_ceilings && st == PL_OK; i++) {
        const struct pl_log_ceiling *c = &d->ceilings[i];
        uint32_t place = 0, other = 0;
        double before = 0;
        st = find_place(l, c->session, c->worker, &place);
        for (uint32_t k = 0; k < i && st == PL_OK; k++) {
            st = find_place(l, d->ceilings[k].session, d->ceilings[k].worker, &other);
            before += other == place;
        }
        if (st == PL_OK)
            add_ceiling(&d->places[place], c, before);
    }
    return st;
}

/* ---- rows ---- */

static bool grow(struct pl_cell *c, uint32_t metrics)
{
    const size_t cap = c->cap ? c->cap * 2 : 64;
    void *p;
#define GROW_BY(field, each)                                                                       \
    p = realloc(c->field, cap * (each) * sizeof *c->field);                                        \
    if (!p)                                                                                        \
        return false;                                                                              \
    c->field = p
#define GROW(field) GROW_BY(field, 1)
    GROW(slot);
    GROW(place);
    GROW(generated);
    GROW(start_ns);
    if (c->sequences > 1) {
        GROW_BY(seq_ttft, c->sequences);
        GROW_BY(seq_tpot, c->sequences);
    }
    for (int m = 0; m < PL_METRIC_COLUMN_COUNT; m++)
        if (c->column[m]) {
            GROW(column[m]);
        }
    for (uint32_t m = 0; m < metrics; m++)
        if (c->quality[m]) {
            GROW(quality[m]);
        }
#undef GROW
#undef GROW_BY
    c->cap = cap;
    return true;
}

/* Row c->n of a column that is made with its first number. */
static bool set_column(struct pl_cell *c, double **column, double v)
{
    if (!*column && isnan(v))
        return true;
    if (!*column) {
        *column = malloc(c->cap * sizeof **column);
        if (!*column)
            return false;
        for (size_t i = 0; i < c->n; i++)
            (*column)[i] = NAN;
    }
    (*column)[c->n] = isfinite(v) ? v : NAN;
    return true;
}

static void add_kv(const struct pl_dataset *d, struct pl_cell *c, const struct pl_row *row)
{
    const struct pl_shape *s = &d->shape;
    for (uint32_t m = 0; m < 2; m++)
        for (size_t i = 0; i < (size_t)s->batch * s->layers; i++) {
            const uint32_t len = row->kv_len[(size_t)m * s->batch * s->layers + i];
            if (len == 0)
                continue; /* the model has fewer layers, or the engine did not say */
            if (c->kv[m].layers == 0 || len < c->kv[m].shortest)
                c->kv[m].shortest = len;
            if (len > c->kv[m].longest)
                c->kv[m].longest = len;
            c->kv[m].lengths += len;
            if (m == 0) {
                c->layer_rows[i % s->layers] += len;
                c->layer_n[i % s->layers] += 1;
            }
            c->kv[m].layers += 1;
            c->kv[m].full += (double)row->trial->prompt_tokens / c->sequences;
        }
}

static void add_sums(const struct pl_dataset *d, struct pl_cell *c, const struct pl_row *row)
{
    const struct pl_trial *t = row->trial;
    c->prompt_tokens += t->prompt_tokens;
    c->weights_bytes += (double)t->weights_bytes;
    c->kv_bytes += (double)t->kv_bytes;
    c->workspace_bytes += (double)t->workspace_bytes;
    c->device_peak_bytes += (double)t->device_peak_bytes;
    c->other_bytes += (double)t->other_bytes;
    c->prefill_flops += (double)row->work.prefill_flops;
    c->decode_flops += (double)row->work.decode_flops;
    c->decode_bytes += (double)row->work.decode_bytes;
    c->worked += row->work.prefill_flops > 0;
    if (t->device_peak_bytes &&
        (c->device_peak_min == 0 || (double)t->device_peak_bytes < c->device_peak_min))
        c->device_peak_min = (double)t->device_peak_bytes;
    c->device_peak_max = fmax(c->device_peak_max, (double)t->device_peak_bytes);
    c->synthetic += t->synthetic != 0;
    c->swapped += t->swapped != 0;
    c->divergent += t->divergent != 0;
    c->disturbed += t->neighbours_max > 0;
    add_kv(d, c, row);
}

/* Tokens of a sequence, and when the last came. */
static uint32_t sequence_end(const struct pl_dataset *d, const struct pl_row *row, uint32_t b,
                             double *last)
{
    const int32_t *ids = row->tokens + (size_t)b * d->shape.tokens;
    uint32_t n = 0;
    while (n < d->shape.tokens && ids[n] >= 0)
        n++;
    *last = n ? (double)row->token_ms[(size_t)b * d->shape.tokens + n - 1] : NAN;
    return n;
}

/* Each sequence's own times, from those of its tokens. In a closed loop a sequence comes when its
 * client was answered before; the first ones once the texts are ids. */
static void add_sequences(const struct pl_dataset *d, struct pl_cell *c, const struct pl_row *row)
{
    const double begin = c->clients && row->trial->tokenize_ms > 0 ? row->trial->tokenize_ms : 0;
    float *ttft = c->seq_ttft + c->n * c->sequences, *tpot = c->seq_tpot + c->n * c->sequences;

    for (uint32_t b = 0; b < c->sequences; b++) {
        const double first = (double)row->token_ms[(size_t)b * d->shape.tokens];
        double last, came = begin;
        const uint32_t n = sequence_end(d, row, b, &last);
        if (c->clients && b >= c->clients)
            (void)sequence_end(d, row, b - c->clients, &came);
        ttft[b] = n ? (float)(first - came) : NAN;
        tpot[b] = n > 1 ? (float)((last - first) / (n - 1)) : NAN;
    }
}

static enum pl_status add_done(struct loader *l, struct pl_cell *c, const struct pl_row_view *v)
{
    const struct pl_trial *t = v->row.trial;
    uint32_t place = 0;
    enum pl_status st = find_place(l, v->commit.session, t->worker, &place);
    if (st != PL_OK)
        return st;
    if (c->n == c->cap && !grow(c, l->d->shape.metrics))
        return pl_fail(l->err, PL_ENOMEM, "the rows of one arm");
    bool ok = true;
#define PL_X(sym, field, name) ok = ok && set_column(c, &c->column[PL_METRIC_##sym], t->field);
    PL_METRIC_COLUMNS(PL_X)
#undef PL_X
    for (uint32_t m = 0; m < l->d->shape.metrics; m++)
        if (pl_quality_parse(pl_reader_metric(l->d->reader, m)) != PL_QUALITY_ANSWER_TOKENS)
            ok = ok && set_column(c, &c->quality[m], v->row.quality[m]);
    if (!ok)
        return pl_fail(l->err, PL_ENOMEM, "the rows of one arm");
    c->slot[c->n] = (uint64_t)v->id.sample * l->d->shape.repeats + v->id.repeat;
    c->place[c->n] = place;
    c->generated[c->n] = t->generated;
    c->start_ns[c->n] = t->start_unix_ns;
    add_sums(l->d, c, &v->row);
    if (c->sequences > 1)
        add_sequences(l->d, c, &v->row);
    c->n++;
    c->done++;
    return pl_drafts_add(l->d, v, l->err);
}

static bool take_row(void *ctx, const struct pl_row_view *v)
{
    struct loader *l = ctx;
    struct pl_dataset *d = l->d;
    struct pl_cell *c = &d->cells[(size_t)v->id.arm * d->shape.contexts + v->id.context];

    if (v->torn) {
        c->torn++;
        d->torn++;
    } else if (v->commit.state == PL_ROW_FAILED) {
        const uint16_t reason = v->row.trial->reason;
        c->failed++;
        d->failed++;
        c->by_reason[reason < PL_REASON_COUNT ? reason : PL_REASON_RUNNER]++;
    } else if (v->commit.state == PL_ROW_DONE) {
        d->done++;
        d->synthetic += v->row.trial->synthetic != 0;
        l->st = add_done(l, c, v);
    }
    return l->st == PL_OK;
}

/* ---- the sweep ---- */

static bool is_set(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return v && !json_is_null(v);
}

static uint32_t find_arm(const struct pl_dataset *d, const char *name)
{
    for (uint32_t a = 0; a < d->shape.arms && name; a++)
        if (strcmp(pl_reader_arm(d->reader, a), name) == 0)
            return a;
    return UINT32_MAX;
}

static void set_sequences(struct pl_dataset *d, uint32_t arm, const json_t *json)
{
    const int64_t clients = pl_json_get_i64(json, "concurrency", 1);
    int64_t n = clients > 1 ? pl_json_get_i64(json, "requests", clients)
                            : pl_json_get_i64(json, "batch", 1);

    n = n < 1 ? 1 : n > d->shape.batch ? d->shape.batch : n;
    for (uint32_t c = 0; c < d->shape.contexts; c++) {
        struct pl_cell *v = &d->cells[(size_t)arm * d->shape.contexts + c];
        v->sequences = (uint32_t)n;
        v->clients = clients > 1 ? (uint32_t)(clients < n ? clients : n) : 0;
    }
}

static enum pl_status read_sweep(struct pl_dataset *d, struct pl_err *err)
{
    const json_t *sweep = pl_reader_sweep(d->reader);
    const json_t *measure = json_object_get(sweep, "measure");
    const char *top = pl_json_get_str(sweep, "baseline", NULL), *key;
    json_t *model;

    d->seed = (uint64_t)pl_json_get_i64(sweep, "seed", 1);
    d->delta = pl_json_get_f64(measure, "noise", 0.01);
    d->measures_energy = json_is_true(json_object_get(measure, "energy"));
    d->measures_kernels = json_is_true(json_object_get(measure, "kernels"));
    d->caches_vision =
        json_is_true(json_object_get(json_object_get(sweep, "data"), "cache_vision"));
    d->prefill_mode = strcmp(pl_json_get_str(measure, "mode", "e2e"), "prefill") == 0;
    json_object_foreach (json_object_get(sweep, "models"), key, model) {
        d->simulates |= strcmp(pl_json_get_str(model, "engine", ""), "sim") == 0;
        d->draws_random_weights |= is_set(model, "weights");
    }
    for (uint32_t a = 0; a < d->shape.arms; a++) {
        const json_t *arm = pl_reader_arm_json(d->reader, a);
        d->arms[a] = clean_copy(pl_reader_arm(d->reader, a));
        if (!d->arms[a])
            return pl_fail(err, PL_ENOMEM, "the names of the arms");
        const uint32_t base = find_arm(d, pl_json_get_str(arm, "baseline", top));
        d->baseline[a] = base == UINT32_MAX ? a : base;
        d->prunes |= is_set(arm, "prune");
        set_sequences(d, a, arm);
    }
    return PL_OK;
}

static enum pl_status make_cells(struct pl_dataset *d, struct pl_err *err)
{
    const size_t n = (size_t)d->shape.arms * d->shape.contexts;
    d->cells = calloc(n, sizeof *d->cells);
    d->arms = calloc(d->shape.arms, sizeof *d->arms);
    d->baseline = calloc(d->shape.arms, sizeof *d->baseline);
    if (!d->cells || !d->arms || !d->baseline)
        return pl_fail(err, PL_ENOMEM, "%zu cells", n);
    for (size_t i = 0; i < n; i++) {
        d->cells[i].layer_rows = calloc(d->shape.layers, sizeof(double));
        d->cells[i].layer_n = calloc(d->shape.layers, sizeof(double));
        if (!d->cells[i].layer_rows || !d->cells[i].layer_n)
            return pl_fail(err, PL_ENOMEM, "%zu cells", n);
    }
    for (size_t i = 0; i < n && d->shape.metrics; i++) {
        d->cells[i].quality = calloc(d->shape.metrics, sizeof(double *));
        if (!d->cells[i].quality)
            return pl_fail(err, PL_ENOMEM, "%zu cells", n);
    }
    return PL_OK;
}

static enum pl_status read_logs(struct loader *l)
{
    struct pl_dataset *d = l->d;
    uint32_t n;

    d->workers = read_log(l, PL_LOG_WORKERS, &d->n_workers);
    d->ceilings = read_log(l, PL_LOG_CEILINGS, &d->n_ceilings);
    d->energy = read_log(l, PL_LOG_ENERGY, &d->n_energy);
    d->kernels = read_log(l, PL_LOG_KERNELS, &d->n_kernels);
    d->sessions = read_log(l, PL_LOG_SESSIONS, &d->n_session_events);
    d->failures = read_log(l, PL_LOG_FAILURES, &d->n_failures);
    free(read_log(l, PL_LOG_LOADS, &n)); /* of these only how many were lost */
    free(read_log(l, PL_LOG_BLOCKS, &n));
    if (l->st == PL_OK)
        l->st = add_workers(l);
    if (l->st == PL_OK)
        l->st = add_ceilings(l);
    return l->st;
}

static uint32_t count_sessions(const struct pl_dataset *d)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < d->n_places; i++) {
        bool seen = false;
        for (uint32_t j = 0; j < i && !seen; j++)
            seen = d->places[j].session == d->places[i].session;
        n += !seen;
    }
    return n;
}

/* Of data of scenes a sample's id is SCENE × QUESTION, and the samples of a scene stand together.
 */
static enum pl_status find_scenes(struct pl_dataset *d, struct pl_err *err)
{
    static const char times[] = " × ";
    const json_t *data = json_object_get(pl_reader_sweep(d->reader), "data");
    const char *kind = pl_json_get_str(data, "kind", "");
    const bool scenes = strcmp(kind, "dsec") == 0 || strcmp(kind, "eventgpt") == 0;

    d->scene = malloc((size_t)d->shape.samples * sizeof *d->scene);
    if (!d->scene)
        return pl_fail(err, PL_ENOMEM, "%" PRIu32 " samples", d->shape.samples);
    for (uint32_t i = 0; i < d->shape.samples; i++) {
        const char *id = pl_reader_sample(d->reader, i);
        const char *end = scenes ? strstr(id, times) : NULL;
        const size_t n = end ? (size_t)(end - id) + strlen(times) : 0;
        const bool same = n && i && strncmp(id, pl_reader_sample(d->reader, i - 1), n) == 0;
        d->scene[i] = same ? d->scene[i - 1] : i;
    }
    return PL_OK;
}

enum pl_status pl_dataset_load(const char *path, struct pl_dataset **out, struct pl_err *err)
{
    struct pl_dataset *d = calloc(1, sizeof *d);
    struct loader l = {.d = d, .err = err};
    enum pl_status st = PL_OK;

    if (!d || !(d->path = clean_copy(path))) {
        st = pl_fail(err, PL_ENOMEM, "%s", path);
        goto out;
    }
    st = pl_reader_open(path, &d->reader, err);
    if (st != PL_OK)
        goto out;
    d->shape = *pl_reader_shape(d->reader);
    d->rows = pl_shape_rows(&d->shape);
    st = make_cells(d, err);
    if (st == PL_OK)
        st = read_sweep(d, err);
    if (st == PL_OK)
        st = find_scenes(d, err);
    if (st == PL_OK)
        st = read_logs(&l);
    if (st == PL_OK)
        st = pl_reader_each(d->reader, take_row, &l, err);
    if (st == PL_OK)
        st = l.st;
    if (st == PL_OK)
        st = pl_agreement_add(d, err);
    if (st == PL_OK)
        d->n_sessions = count_sessions(d);
out:
    free(l.refs);
    if (st == PL_OK)
        *out = d;
    else
        pl_dataset_free(d);
    return st;
}

void pl_dataset_free(struct pl_dataset *d)
{
    if (!d)
        return;
    for (size_t i = 0; d->cells && i < (size_t)d->shape.arms * d->shape.contexts; i++) {
        struct pl_cell *c = &d->cells[i];
        free(c->slot);
        free(c->place);
        free(c->generated);
        free(c->start_ns);
        free(c->seq_ttft);
        free(c->seq_tpot);
        for (int m = 0; m < PL_METRIC_COLUMN_COUNT; m++)
            free(c->column[m]);
        free(c->layer_rows);
        free(c->layer_n);
        for (uint32_t m = 0; c->quality && m < d->shape.metrics; m++)
            free(c->quality[m]);
        free(c->quality);
    }
    pl_drafts_free(d);
    for (uint32_t i = 0; d->arms && i < d->shape.arms; i++)
        free(d->arms[i]);
    for (uint32_t i = 0; i < d->n_devices; i++)
        free(d->devices[i]);
    free(d->cells);
    free(d->arms);
    free(d->baseline);
    free(d->scene);
    free(d->devices);
    free(d->places);
    free(d->failures);
    free(d->sessions);
    free(d->workers);
    free(d->ceilings);
    free(d->energy);
    free(d->kernels);
    free(d->path);
    pl_reader_free(d->reader);
    free(d);
}

void pl_dataset_synthetic_text(const struct pl_dataset *d, char *out, size_t size)
{
    const char *what = d->simulates && d->draws_random_weights ? "simulated engine, random weights"
                       : d->simulates                          ? "simulated engine"
                       : d->draws_random_weights               ? "random weights"
                                                               : "as the runner says";
    if (d->synthetic == 0)
        out[0] = '\0';
    else if (d->synthetic == d->done)
        snprintf(out, size, "synthetic: all %" PRIu64 " finished trials (%s)", d->done, what);
    else
        snprintf(out, size, "synthetic: %" PRIu64 " of %" PRIu64 " finished trials (%s)",
                 d->synthetic, d->done, what);
}
