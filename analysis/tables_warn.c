/* What a reader should know before believing the other tables. */
#include "analysis/limits.h"
#include "analysis/tables.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static const struct pl_col cols[] = {{"kind", PL_COL_TEXT, NULL, 0},
                                     {"arm", PL_COL_TEXT, NULL, 0},
                                     {"context", PL_COL_INT, NULL, 0},
                                     {"text", PL_COL_TEXT, NULL, PL_COL_LONG}};

static void about_file(const struct pl_dataset *d, struct pl_table *t)
{
    char text[160];

    pl_dataset_synthetic_text(d, text, sizeof text);
    if (*text)
        pl_tables_warn(t, "synthetic", NULL, -1, "%s", text);
    if (d->done + d->failed < d->rows)
        pl_tables_warn(t, "incomplete", NULL, -1,
                       "%" PRIu64 " of %" PRIu64 " trials are in the file (%" PRIu64
                       " done, %" PRIu64 " failed): it is still being written, or was interrupted",
                       d->done + d->failed, d->rows, d->done, d->failed);
    if (d->torn)
        pl_tables_warn(t, "torn", NULL, -1,
                       "%" PRIu64 " rows do not match their checksum and count as missing",
                       d->torn);
    for (int k = 0; k < PL_LOG_KINDS; k++)
        if (d->overflow[k])
            pl_tables_warn(t, "log_overflow", NULL, -1, "%" PRIu64 " records of /%s found no slot",
                           d->overflow[k], pl_log_name((enum pl_log_kind)k));
    if (d->caches_vision)
        pl_tables_warn(t, "cached_vision", NULL, -1, "%s", PL_CACHED_VISION);
    if (d->prunes)
        pl_tables_warn(t, "mlperf", NULL, -1,
                       "token-pruned results are not MLPerf-comparable: its closed rules forbid "
                       "KV pruning");
}

static const char *plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}

static void about_pairs(const struct pl_dataset *d, const struct pl_speedups *s, struct pl_table *t)
{
    for (size_t i = 0; i < s->n_unpaired; i++) {
        const struct pl_unpaired *u = &s->unpaired[i];
        const int64_t context = pl_reader_context(d->reader, u->context);
        if (u->alone)
            pl_tables_warn(t, "unpaired", d->arms[u->arm], context,
                           "%" PRIu64 " trial%s left out of the speedups: the baseline's own is "
                           "missing or failed",
                           u->alone, plural(u->alone));
        if (u->elsewhere)
            pl_tables_warn(t, "unpaired", d->arms[u->arm], context,
                           "%" PRIu64 " pair%s left out of the speedups: the two trials ran on "
                           "different devices",
                           u->elsewhere, plural(u->elsewhere));
    }
}

static void about_quality(const struct pl_dataset *d, uint32_t arm, uint32_t context,
                          struct pl_table *t)
{
    const struct pl_cell *c = pl_dataset_cell(d, arm, context);
    const int64_t at = pl_reader_context(d->reader, context);

    if (c->failed)
        pl_tables_warn(t, "failures", d->arms[arm], at,
                       "%" PRIu64 " of %" PRIu64 " trials failed and are in no table of times",
                       c->failed, c->failed + c->done);
    if (c->swapped)
        pl_tables_warn(t, "swapped", d->arms[arm], at,
                       "%" PRIu64 " trials ran in runs with models swapped between them, not "
                       "interleaved one by one",
                       c->swapped);
    if (c->divergent)
        pl_tables_warn(t, "divergent", d->arms[arm], at,
                       "%" PRIu64 " trials had a near tie that batched verification decided "
                       "otherwise than single steps",
                       c->divergent);
    if (c->disturbed && c->disturbed < c->done)
        pl_tables_warn(t, "neighbours", d->arms[arm], at,
                       "%" PRIu64 " of %" PRIu64 " trials had other workers measuring on their "
                       "node, the rest had none",
                       c->disturbed, c->done);
}

/* What is larger than any cache cannot be read faster than memory can. */
static void about_limit(const struct pl_dataset *d, uint32_t arm, uint32_t context,
                        struct pl_table *t)
{
    const double pct = pl_limit_pct(d, arm, context, PL_METRIC_DECODE);

    if (pct > 110 && pl_limit_step_bytes(d, arm, context) >= 256.0 * 1024 * 1024)
        pl_tables_warn(t, "limit", d->arms[arm], pl_reader_context(d->reader, context),
                       "decode read memory at %.0f %% of the rate measured before it: that was a "
                       "slower moment of this machine, and limit_pct is a share of no limit",
                       pct);
}

static enum pl_status about_series(const struct pl_dataset *d, uint32_t arm, uint32_t context,
                                   struct pl_table *t, struct pl_err *err)
{
    const struct pl_cell *c = pl_dataset_cell(d, arm, context);
    const int64_t at = pl_reader_context(d->reader, context);
    struct pl_drift drift;
    const enum pl_status st = pl_cell_drift(d, c, &drift, err);

    if (st != PL_OK)
        return st;
    if (drift.halves_bad)
        pl_tables_warn(t, "drift", d->arms[arm], at,
                       "e2e was %+.2f %% in the second half of each device's trials against the "
                       "first (%.1f standard errors); pairing takes it out of the speedups",
                       100 * drift.change, fabs(drift.z));
    if (drift.lag1_bad)
        pl_tables_warn(t, "autocorrelation", d->arms[arm], at,
                       "lag-1 autocorrelation of e2e is %.2f over %zu samples: neighbours in time "
                       "are alike, and intervals may be too narrow",
                       drift.lag1, drift.n);
    return PL_OK;
}

/* One row for all: the table `outliers` has the rest. Its columns: arm, context, metric, n, mild,
 * far. */
static void about_outliers(const struct pl_table *outliers, struct pl_table *t)
{
    const struct pl_cell_value *worst = NULL;
    int64_t far = 0, n = 0;

    for (size_t r = 0; r < outliers->n_rows; r++) {
        const struct pl_cell_value *v = &outliers->cells[r * outliers->n_cols];
        far += v[5].integer;
        n += v[3].integer;
        if (!worst || v[5].integer > worst[5].integer)
            worst = v;
    }
    if (far)
        pl_tables_warn(t, "outliers", worst[0].text, worst[1].integer,
                       "%" PRId64 " of %" PRId64 " e2e times in all lie beyond 3 IQR of their "
                       "quartiles, %" PRId64 " of %" PRId64 " here, the most; they are kept",
                       far, n, worst[5].integer, worst[3].integer);
}

enum pl_status pl_table_warnings(const struct pl_dataset *d, const struct pl_speedups *s,
                                 const struct pl_table *outliers, struct pl_table *t,
                                 struct pl_err *err)
{
    enum pl_status st = PL_OK;

    pl_table_init(t, pl_table_id_name(PL_TABLE_WARNINGS), "Warnings", cols,
                  sizeof cols / sizeof cols[0]);
    about_file(d, t);
    about_pairs(d, s, t);
    for (uint32_t c = 0; c < d->shape.contexts && st == PL_OK; c++)
        for (uint32_t a = 0; a < d->shape.arms && st == PL_OK; a++) {
            about_quality(d, a, c, t);
            about_limit(d, a, c, t);
            st = about_series(d, a, c, t, err);
        }
    pl_warn_energy(d, t);
    about_outliers(outliers, t);
    return st;
}
