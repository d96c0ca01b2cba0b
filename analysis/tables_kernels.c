/* What each kernel took (measure.kernels), beside what the device can do at most. */
#include "analysis/tables.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct pl_col cols[] = {
    {"arm", PL_COL_TEXT, NULL, 0},
    {"context", PL_COL_INT, NULL, 0},
    {"kernel", PL_COL_TEXT, NULL, 0},
    {"calls", PL_COL_INT, NULL, 0},
    {"ms", PL_COL_TIME, "ms", 0},
    {"share_pct", PL_COL_TIME, "% of all", 0},
    {"gb", PL_COL_TIME, "GB", 0},
    {"gflop", PL_COL_TIME, "GFLOP", 0},
    {"gb_per_s", PL_COL_TIME, "GB/s", 0},
    {"gflop_per_s", PL_COL_TIME, "GFLOP/s", 0},
    {"limit_pct", PL_COL_TIME, "% of limit", 0},
    {"synthetic", PL_COL_BOOL, NULL, 0},
};

/* The ceilings that the worker measured in that session; NULL: none. */
static const struct pl_log_ceiling *ceiling_of(const struct pl_dataset *d,
                                               const struct pl_log_kernel *k)
{
    for (uint32_t i = 0; i < d->n_ceilings; i++)
        if (d->ceilings[i].session == k->session && d->ceilings[i].worker == k->worker)
            return &d->ceilings[i];
    return NULL;
}

static void real_or(struct pl_table *t, double v, const char *why)
{
    if (isfinite(v) && v > 0)
        pl_table_real(t, v);
    else
        pl_table_null(t, why);
}

static void row(const struct pl_dataset *d, const struct pl_log_kernel *k, double all,
                struct pl_table *t)
{
    const struct pl_log_ceiling *c = ceiling_of(d, k);
    const double s = k->ms / 1e3, bytes = (double)k->bytes / s, flops = (double)k->flops / s;
    char name[sizeof k->name + 1];
    double limit = NAN;
    if (c && c->read_bytes_per_s > 0)
        limit = 100 * bytes / c->read_bytes_per_s;
    if (c && c->flop_per_s > 0)
        limit = fmax(limit, 100 * flops / c->flop_per_s);
    snprintf(name, sizeof name, "%.*s", (int)sizeof k->name, k->name);
    pl_text_clean(name);
    pl_table_row(t);
    pl_table_text(t, d->arms[k->arm]);
    pl_table_int(t, pl_reader_context(d->reader, k->context));
    pl_table_text(t, name);
    pl_table_int(t, (int64_t)k->calls);
    pl_table_real(t, k->ms);
    real_or(t, 100 * k->ms / all, "no time");
    real_or(t, (double)k->bytes / 1e9, "not counted");
    real_or(t, (double)k->flops / 1e9, "not counted");
    real_or(t, bytes / 1e9, "not counted");
    real_or(t, flops / 1e9, "not counted");
    real_or(t, limit, k->bytes || k->flops ? "no ceiling" : "not counted");
    pl_table_bool(t, k->synthetic);
}

/* The last trial of an arm at a context whose kernels are there; 0: none. */
static int64_t last_of(const struct pl_dataset *d, uint32_t arm, uint32_t context)
{
    int64_t last = 0;
    for (uint32_t i = 0; i < d->n_kernels; i++)
        if (d->kernels[i].arm == arm && d->kernels[i].context == context &&
            d->kernels[i].unix_ns > last)
            last = d->kernels[i].unix_ns;
    return last;
}

void pl_table_kernels(const struct pl_dataset *d, struct pl_table *t)
{
    pl_table_init(t, pl_table_id_name(PL_TABLE_KERNELS), "Kernels", cols,
                  sizeof cols / sizeof cols[0]);
    for (uint32_t c = 0; c < d->shape.contexts; c++)
        for (uint32_t a = 0; a < d->shape.arms; a++) {
            const int64_t last = last_of(d, a, c);
            double all = 0;
            for (int pass = 0; pass < 2; pass++)
                for (uint32_t i = 0; i < d->n_kernels && last; i++) {
                    const struct pl_log_kernel *k = &d->kernels[i];
                    if (k->arm != a || k->context != c || k->unix_ns != last)
                        continue;
                    if (pass)
                        row(d, k, all, t);
                    else
                        all += k->ms;
                }
        }
    if (t->n_rows == 0)
        pl_table_note(t, d->measures_kernels
                             ? "measure.kernels: no trial of them is in the file yet"
                             : "not asked for (measure.kernels)");
    else
        pl_table_note(t, "one untimed trial each, behind the warm-ups, its kernels launched one by "
                         "one; bytes and operations of an operation stand beside its longest "
                         "kernel");
    pl_tables_label(d, t);
}
