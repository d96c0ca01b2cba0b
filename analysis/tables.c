/* The set of tables, and those about times. */
#include "analysis/tables.h"
#include "analysis/limits.h"
#include "analysis/pruned.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N(cols) (sizeof(cols) / sizeof(cols)[0])

static const char *const names[PL_TABLE_COUNT] = {[PL_TABLE_SPEEDUP] = "speedup",
                                                  [PL_TABLE_SPEEDUP_DEVICES] = "speedup_devices",
                                                  [PL_TABLE_LATENCY] = "latency",
                                                  [PL_TABLE_MEMORY] = "memory",
                                                  [PL_TABLE_KV] = "kv",
                                                  [PL_TABLE_TABLE2] = "table2",
                                                  [PL_TABLE_QUALITY] = "quality",
                                                  [PL_TABLE_CONTEXT_SCALING] = "context_scaling",
                                                  [PL_TABLE_ACCEPTANCE] = "acceptance",
                                                  [PL_TABLE_SPEEDUP_ANALYSIS] = "speedup_analysis",
                                                  [PL_TABLE_ACCEPT_TO_SPEEDUP] =
                                                      "accept_to_speedup",
                                                  [PL_TABLE_VERIFY_COST] = "verify_cost",
                                                  [PL_TABLE_ENERGY] = "energy",
                                                  [PL_TABLE_KERNELS] = "kernels",
                                                  [PL_TABLE_OUTLIERS] = "outliers",
                                                  [PL_TABLE_FAILURES] = "failures",
                                                  [PL_TABLE_WARNINGS] = "warnings",
                                                  [PL_TABLE_PROVENANCE] = "provenance"};

const char *pl_table_id_name(enum pl_table_id id)
{
    return (unsigned)id < PL_TABLE_COUNT ? names[id] : "";
}

enum pl_table_id pl_table_id_parse(const char *name, size_t len)
{
    for (int i = 0; i < PL_TABLE_COUNT; i++)
        if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0)
            return (enum pl_table_id)i;
    return PL_TABLE_COUNT;
}

void pl_tables_label(const struct pl_dataset *d, struct pl_table *t)
{
    char text[160];

    pl_dataset_synthetic_text(d, text, sizeof text);
    if (*text)
        pl_table_note(t, "%s", text);
    if (d->caches_vision)
        pl_table_note(t, "%s", PL_CACHED_VISION);
    if (d->done + d->failed < d->rows)
        pl_table_note(t, "incomplete: %" PRIu64 " of %" PRIu64 " trials are in the file",
                      d->done + d->failed, d->rows);
}

static int64_t context_of(const struct pl_dataset *d, uint32_t context)
{
    return pl_reader_context(d->reader, context);
}

/* ---- speedup ---- */

static const struct pl_col speedup_cols[] = {
    {"arm", PL_COL_TEXT, NULL, 0},
    {"context", PL_COL_INT, NULL, 0},
    {"baseline", PL_COL_TEXT, NULL, 0},
    {"metric", PL_COL_TEXT, NULL, 0},
    {"n", PL_COL_INT, "pairs", 0},
    {"baseline_ms", PL_COL_TIME, "baseline ms", 0},
    {"arm_ms", PL_COL_TIME, "arm ms", 0},
    {"speedup", PL_COL_RATIO, NULL, 0},
    {"ci_low", PL_COL_RATIO, "95 % from", 0},
    {"ci_high", PL_COL_RATIO, "to", 0},
    {"verdict", PL_COL_TEXT, NULL, PL_COL_VERDICT},
    {"quality_metric", PL_COL_TEXT, NULL, PL_COL_WIDE},
    {"quality", PL_COL_RATIO, NULL, PL_COL_WIDE},
    {"quality_baseline", PL_COL_RATIO, NULL, PL_COL_WIDE},
    {"devices", PL_COL_INT, NULL, 0},
    {"device_speedups", PL_COL_TEXT, NULL, PL_COL_WIDE},
    {"scope", PL_COL_TEXT, NULL, 0},
    {"synthetic", PL_COL_BOOL, NULL, 0},
};

#define DEVICES_SHOWN 8

static void device_speedups(const struct pl_dataset *d, const struct pl_speedup *s,
                            struct pl_table *t)
{
    char text[DEVICES_SHOWN * 224] = "";
    double low = INFINITY, high = -INFINITY;
    size_t at = 0;

    for (uint32_t i = 0; i < s->n_devices; i++) {
        const struct pl_device_ratio *r = &s->devices[i];
        low = fmin(low, r->base / r->arm);
        high = fmax(high, r->base / r->arm);
        if (s->n_devices <= DEVICES_SHOWN)
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%.180s %.4f", i ? "; " : "",
                                   d->devices[r->device], r->base / r->arm);
    }
    if (s->n_devices > DEVICES_SHOWN)
        snprintf(text, sizeof text, "%.4f to %.4f", low, high);
    pl_table_text(t, s->n_devices ? text : NULL);
}

/* The first metric that either of the two has. */
static void quality(const struct pl_dataset *d, const struct pl_speedup *s, struct pl_table *t)
{
    const struct pl_cell *arm = pl_dataset_cell(d, s->arm, s->context);
    const struct pl_cell *base = pl_dataset_cell(d, s->baseline, s->context);
    for (uint32_t m = 0; m < d->shape.metrics; m++)
        if (arm->quality[m] || base->quality[m]) {
            pl_table_text(t, pl_reader_metric(d->reader, m));
            pl_table_real(t, pl_cell_quality(d, arm, m, NULL));
            pl_table_real(t, pl_cell_quality(d, base, m, NULL));
            return;
        }
    for (int i = 0; i < 3; i++)
        pl_table_null(t, "not measured");
}

static const char *scope(const struct pl_speedup *s)
{
    if (s->n == 0)
        return NULL;
    if (!s->ratio.fixed)
        return "devices like these";
    return s->n_devices == 1 ? "for this device" : "for these devices";
}

static void speedup_notes(const struct pl_dataset *d, const struct pl_speedups *s,
                          struct pl_table *t)
{
    bool fixed = false, open = false;
    for (size_t i = 0; i < s->n; i++) {
        fixed |= s->rows[i].n && s->rows[i].ratio.fixed;
        open |= s->rows[i].n && !s->rows[i].ratio.fixed;
    }
    if (t->n_rows == 0)
        pl_table_note(t, "no arm has a baseline other than itself");
    pl_table_note(t,
                  "speedup = Σ baseline time / Σ arm time over pairs of the same prompt, repeat "
                  "and device; 95 %% bootstrap interval; δ = %g; above 1 the arm is faster",
                  d->delta);
    if (d->shape.batch > 1)
        pl_table_note(t, "ms are for a sequence: a trial's time over its sequences, ttft their "
                         "mean; samples whose trials run the same prompts are resampled together");
    if (fixed)
        pl_table_note(t,
                      "fewer than %d devices × sessions: they are taken as fixed, and the result "
                      "is for this device (or these) and no other",
                      PL_CLUSTERS_MIN);
    if (open)
        pl_table_note(t, "the interval covers other devices of this kind: devices × sessions were "
                         "resampled, then prompts");
    pl_tables_label(d, t);
}

void pl_table_speedup(const struct pl_dataset *d, const struct pl_speedups *s, struct pl_table *t)
{
    pl_table_init(t, names[PL_TABLE_SPEEDUP], "Speedup over the baseline", speedup_cols,
                  N(speedup_cols));
    for (size_t i = 0; i < s->n; i++) {
        const struct pl_speedup *r = &s->rows[i];
        pl_table_row(t);
        pl_table_text(t, d->arms[r->arm]);
        pl_table_context(t, context_of(d, r->context));
        pl_table_text(t, d->arms[r->baseline]);
        pl_table_text(t, pl_metric_name(r->metric));
        pl_table_int(t, (int64_t)r->n);
        pl_table_real(t, r->baseline_ms);
        pl_table_real(t, r->arm_ms);
        pl_table_real(t, r->ratio.speedup);
        pl_table_real(t, r->ratio.ci_low);
        pl_table_real(t, r->ratio.ci_high);
        if (r->verdict == PL_VERDICT_NONE)
            pl_table_null(t, "no pairs");
        else
            pl_table_text(t, pl_verdict_text(r->verdict));
        quality(d, r, t);
        pl_table_int(t, r->n_devices);
        device_speedups(d, r, t);
        pl_table_text(t, scope(r));
        pl_table_bool(t, r->synthetic);
    }
    speedup_notes(d, s, t);
}

static const struct pl_col device_cols[] = {
    {"arm", PL_COL_TEXT, NULL, 0},
    {"context", PL_COL_INT, NULL, 0},
    {"baseline", PL_COL_TEXT, NULL, 0},
    {"metric", PL_COL_TEXT, NULL, 0},
    {"device", PL_COL_TEXT, NULL, 0},
    {"n", PL_COL_INT, "pairs", 0},
    {"baseline_ms", PL_COL_TIME, "baseline ms", 0},
    {"arm_ms", PL_COL_TIME, "arm ms", 0},
    {"speedup", PL_COL_RATIO, NULL, 0},
    {"synthetic", PL_COL_BOOL, NULL, 0},
};

void pl_table_speedup_devices(const struct pl_dataset *d, const struct pl_speedups *s,
                              struct pl_table *t)
{
    pl_table_init(t, names[PL_TABLE_SPEEDUP_DEVICES], "Speedup on each device", device_cols,
                  N(device_cols));
    for (size_t i = 0; i < s->n; i++)
        for (uint32_t k = 0; k < s->rows[i].n_devices; k++) {
            const struct pl_speedup *r = &s->rows[i];
            const struct pl_device_ratio *v = &r->devices[k];
            pl_table_row(t);
            pl_table_text(t, d->arms[r->arm]);
            pl_table_context(t, context_of(d, r->context));
            pl_table_text(t, d->arms[r->baseline]);
            pl_table_text(t, pl_metric_name(r->metric));
            pl_table_text(t, d->devices[v->device]);
            pl_table_int(t, (int64_t)v->n);
            pl_table_real(t, v->base / (double)v->n);
            pl_table_real(t, v->arm / (double)v->n);
            pl_table_real(t, v->base / v->arm);
            pl_table_bool(t, r->synthetic);
        }
    pl_tables_label(d, t);
}

/* ---- latency ---- */

static const struct pl_col latency_cols[] = {
    {"arm", PL_COL_TEXT, NULL, 0},
    {"context", PL_COL_INT, NULL, 0},
    {"phase", PL_COL_TEXT, NULL, 0},
    {"n", PL_COL_INT, "trials", 0},
    {"mean", PL_COL_TIME, NULL, 0},
    {"sd", PL_COL_TIME, NULL, 0},
    {"p50", PL_COL_TIME, NULL, 0},
    {"p95", PL_COL_TIME, NULL, 0},
    {"p99", PL_COL_TIME, NULL, 0},
    {"p95_needs", PL_COL_INT, NULL, PL_COL_WIDE},
    {"p99_needs", PL_COL_INT, NULL, PL_COL_WIDE},
    {"unit", PL_COL_TEXT, NULL, 0},
    {"limit_pct", PL_COL_TIME, NULL, PL_COL_WIDE},
    {"synthetic", PL_COL_BOOL, NULL, 0},
};
static const struct pl_col outlier_cols[] = {
    {"arm", PL_COL_TEXT, NULL, 0},
    {"context", PL_COL_INT, NULL, 0},
    {"metric", PL_COL_TEXT, NULL, 0},
    {"n", PL_COL_INT, "trials", 0},
    {"mild", PL_COL_INT, "beyond 1.5 IQR", 0},
    {"far", PL_COL_INT, "beyond 3 IQR", 0},
    {"fence_low_ms", PL_COL_TIME, "fence ms from", 0},
    {"fence_high_ms", PL_COL_TIME, "to", 0},
    {"synthetic", PL_COL_BOOL, NULL, 0},
};

static void percentile(struct pl_table *t, double v, double p)
{
    if (!isnan(v))
        pl_table_real(t, v);
    else if (p == 0.5)
        pl_table_null(t, "n/a (needs 11)");
    else
        pl_table_null(t, p == 0.95 ? "n/a (needs 130)" : "n/a (needs 662)");
}

/* A rate's mean is the ratio of totals: all tokens over all time. */
static double mean_rate(const struct pl_dataset *d, const struct pl_cell *c, enum pl_metric m)
{
    double tokens = 0, ms = 0;
    for (size_t i = 0; i < c->n; i++) {
        if (isnan(pl_cell_value(d, c, m, i)))
            continue;
        tokens += (double)c->generated[i] - (m == PL_METRIC_DECODE_TPS ? c->sequences : 0);
        ms += m == PL_METRIC_DECODE_TPS ? pl_cell_decode_ms(c, i) : c->column[PL_METRIC_E2E][i];
    }
    return 1000 * tokens / ms;
}

/* A cell's values of a metric: one a trial, ttft and tpot one a sequence where its engine tells
 * the times of tokens. Returns how many. */
static size_t collect(const struct pl_dataset *d, const struct pl_cell *c, enum pl_metric m,
                      double *values)
{
    const bool each = m == PL_METRIC_TTFT || m == PL_METRIC_TPOT;
    size_t n = 0;
    for (size_t i = 0; each && c->seq_ttft && i < c->n; i++)
        for (uint32_t b = 0; b < c->sequences; b++) {
            values[n] = pl_cell_sequence(c, m, i, b);
            n += !isnan(values[n]);
        }
    if (n)
        return n;
    for (size_t i = 0; i < c->n; i++) {
        values[n] = pl_cell_value(d, c, m, i);
        n += !isnan(values[n]);
    }
    return n;
}

static void latency_row(const struct pl_dataset *d, uint32_t arm, uint32_t context,
                        enum pl_metric m, double *values, struct pl_table *t,
                        struct pl_table *outliers)
{
    const struct pl_cell *c = pl_dataset_cell(d, arm, context);
    struct pl_summary s;
    const bool rate = m == PL_METRIC_DECODE_TPS || m == PL_METRIC_THROUGHPUT;
    const size_t n = collect(d, c, m, values);

    if (n == 0)
        return;
    pl_summarise(values, n, &s);
    pl_table_row(t);
    pl_table_text(t, d->arms[arm]);
    pl_table_context(t, context_of(d, context));
    pl_table_text(t, pl_metric_name(m));
    pl_table_int(t, (int64_t)n);
    pl_table_real(t, rate ? mean_rate(d, c, m) : s.mean);
    pl_table_real(t, s.sd);
    percentile(t, s.p50, 0.50);
    percentile(t, s.p95, 0.95);
    percentile(t, s.p99, 0.99);
    pl_table_int(t, (int64_t)pl_percentile_floor(0.95));
    pl_table_int(t, (int64_t)pl_percentile_floor(0.99));
    pl_table_text(t, rate ? "tokens/s" : "ms");
    pl_table_real(t, pl_limit_pct(d, arm, context, m));
    pl_table_bool(t, c->synthetic > 0);
    if (m != PL_METRIC_E2E)
        return;
    pl_table_row(outliers);
    pl_table_text(outliers, d->arms[arm]);
    pl_table_context(outliers, context_of(d, context));
    pl_table_text(outliers, pl_metric_name(m));
    pl_table_int(outliers, (int64_t)n);
    pl_table_int(outliers, (int64_t)s.mild);
    pl_table_int(outliers, (int64_t)s.far);
    pl_table_real(outliers, s.fence_low);
    pl_table_real(outliers, s.fence_high);
    pl_table_bool(outliers, c->synthetic > 0);
}

enum pl_status pl_table_latency(const struct pl_dataset *d, struct pl_table *latency,
                                struct pl_table *outliers, struct pl_err *err)
{
    size_t most = 1;

    pl_table_init(latency, names[PL_TABLE_LATENCY], "Latency of each phase", latency_cols,
                  N(latency_cols));
    pl_table_init(outliers, names[PL_TABLE_OUTLIERS], "Outliers (flagged, kept)", outlier_cols,
                  N(outlier_cols));
    for (size_t i = 0; i < (size_t)d->shape.arms * d->shape.contexts; i++)
        most = d->cells[i].n * d->cells[i].sequences > most ? d->cells[i].n * d->cells[i].sequences
                                                            : most;
    double *values = malloc(most * sizeof *values);
    if (!values)
        return pl_fail(err, PL_ENOMEM, "the times of %zu trials", most);
    for (uint32_t c = 0; c < d->shape.contexts; c++)
        for (uint32_t a = 0; a < d->shape.arms; a++)
            for (int m = 0; m < PL_METRIC_GENERATION; m++) {
                const bool later = m == PL_METRIC_DECODE || m >= PL_METRIC_COLUMN_COUNT;
                if (m == PL_METRIC_THROUGHPUT && d->shape.batch == 1)
                    continue; /* e2e says the same */
                if (!(later && d->prefill_mode))
                    latency_row(d, a, c, (enum pl_metric)m, values, latency, outliers);
            }
    free(values);
    pl_table_note(latency, "percentiles need 11 (p50), 130 (p95) and 662 (p99) trials; tpot = "
                           "(e2e − ttft) / (generated − 1); the mean of decode_tps is all tokens "
                           "over all time");
    if (d->shape.batch > 1)
        pl_table_note(latency, "arms of several sequences: ttft and tpot are one value a sequence, "
                               "phases and e2e the whole trial's; throughput: all tokens over e2e");
    pl_table_note(outliers,
                  "Tukey's fences on e2e times; no trial is dropped from any other table");
    pl_tables_label(d, latency);
    pl_tables_label(d, outliers);
    return PL_OK;
}

/* ---- all of them ---- */

enum pl_status pl_tables_make(const struct pl_dataset *d, const struct pl_speedups *s,
                              const struct pl_scaling *scaling, struct pl_table *tables,
                              struct pl_err *err)
{
    memset(tables, 0, PL_TABLE_COUNT * sizeof *tables);
    pl_table_speedup(d, s, &tables[PL_TABLE_SPEEDUP]);
    pl_table_speedup_devices(d, s, &tables[PL_TABLE_SPEEDUP_DEVICES]);
    pl_table_memory(d, &tables[PL_TABLE_MEMORY]);
    pl_table_kv(d, &tables[PL_TABLE_KV]);
    pl_table_table2(d, s, &tables[PL_TABLE_TABLE2]);
    pl_table_quality(d, &tables[PL_TABLE_QUALITY]);
    pl_table_acceptance(d, &tables[PL_TABLE_ACCEPTANCE]);
    pl_table_speedup_analysis(d, &tables[PL_TABLE_SPEEDUP_ANALYSIS]);
    pl_table_accept_to_speedup(d, &tables[PL_TABLE_ACCEPT_TO_SPEEDUP]);
    pl_table_verify_cost(d, &tables[PL_TABLE_VERIFY_COST]);
    pl_table_context_scaling(d, scaling, &tables[PL_TABLE_CONTEXT_SCALING]);
    pl_table_energy(d, &tables[PL_TABLE_ENERGY]);
    pl_table_kernels(d, &tables[PL_TABLE_KERNELS]);
    pl_table_failures(d, &tables[PL_TABLE_FAILURES]);
    enum pl_status st =
        pl_table_latency(d, &tables[PL_TABLE_LATENCY], &tables[PL_TABLE_OUTLIERS], err);
    if (st == PL_OK)
        st = pl_table_provenance(d, &tables[PL_TABLE_PROVENANCE], err);
    if (st == PL_OK)
        st = pl_table_warnings(d, s, &tables[PL_TABLE_OUTLIERS], &tables[PL_TABLE_WARNINGS], err);
    for (int i = 0; i < PL_TABLE_COUNT && st == PL_OK; i++)
        if (tables[i].failed)
            st = pl_fail(err, PL_ENOMEM, "the table %s", names[i]);
    return st;
}

void pl_tables_release(struct pl_table *tables)
{
    for (int i = 0; i < PL_TABLE_COUNT; i++)
        pl_table_release(&tables[i]);
}

void pl_tables_warn(struct pl_table *warnings, const char *kind, const char *arm, int64_t context,
                    const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    pl_table_row(warnings);
    pl_table_text(warnings, kind);
    pl_table_text(warnings, arm);
    if (context < 0)
        pl_table_null(warnings, NULL);
    else
        pl_table_context(warnings, context);
    pl_table_text(warnings, text);
}
