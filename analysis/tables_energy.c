/* What the energy bursts say: joules of nothing but one arm at one context. */
#include "analysis/tables.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct pl_col cols[] = {
    {"arm", PL_COL_TEXT, NULL, 0},
    {"context", PL_COL_INT, NULL, 0},
    {"energy_per_sample", PL_COL_TIME, "J a sample", 0},
    {"energy_per_token", PL_COL_TIME, "J a token", 0},
    {"watts", PL_COL_TIME, "W", 0},
    {"joules", PL_COL_TIME, "J", 0},
    {"seconds", PL_COL_TIME, "s", 0},
    {"trials", PL_COL_INT, NULL, 0},
    {"samples", PL_COL_INT, NULL, 0},
    {"readings", PL_COL_INT, NULL, 0},
    {"source", PL_COL_TEXT, NULL, 0},
    {"synthetic", PL_COL_BOOL, NULL, 0},
};

static void row(const struct pl_dataset *d, const struct pl_log_energy *e, struct pl_table *t)
{
    const double samples = (double)e->trials * e->sequences;
    char source[sizeof e->source + 1];
    snprintf(source, sizeof source, "%.*s", (int)sizeof e->source, e->source);
    pl_text_clean(source);
    pl_table_row(t);
    pl_table_text(t, d->arms[e->arm]);
    pl_table_int(t, pl_reader_context(d->reader, e->context));
    if (!isfinite(e->joules) || !(samples > 0) || !(e->seconds > 0)) {
        for (int i = 0; i < 8; i++)
            pl_table_null(t, "not measured");
        pl_table_null(t, NULL);
        pl_table_bool(t, e->synthetic);
        return;
    }
    pl_table_real(t, e->joules / samples);
    if (e->tokens)
        pl_table_real(t, e->joules / (double)e->tokens);
    else
        pl_table_null(t, "no tokens");
    pl_table_real(t, e->joules / e->seconds);
    pl_table_real(t, e->joules);
    pl_table_real(t, e->seconds);
    pl_table_int(t, (int64_t)e->trials);
    pl_table_int(t, (int64_t)samples);
    pl_table_int(t, e->readings);
    pl_table_text(t, source);
    pl_table_bool(t, e->synthetic);
}

/* The last burst of an arm at a context; NULL: none. */
static const struct pl_log_energy *burst_of(const struct pl_dataset *d, uint32_t arm,
                                            uint32_t context)
{
    const struct pl_log_energy *found = NULL;
    for (uint32_t i = 0; i < d->n_energy; i++)
        if (d->energy[i].arm == arm && d->energy[i].context == context)
            found = &d->energy[i];
    return found;
}

void pl_table_energy(const struct pl_dataset *d, struct pl_table *t)
{
    bool absent = false;
    pl_table_init(t, pl_table_id_name(PL_TABLE_ENERGY), "Energy", cols,
                  sizeof cols / sizeof cols[0]);
    for (uint32_t c = 0; c < d->shape.contexts; c++)
        for (uint32_t a = 0; a < d->shape.arms; a++) {
            const struct pl_log_energy *e = burst_of(d, a, c);
            if (!e)
                continue;
            row(d, e, t);
            if (!isfinite(e->joules) && !absent) {
                char why[sizeof e->absent + 1];
                snprintf(why, sizeof why, "%.*s", (int)sizeof e->absent, e->absent);
                pl_text_clean(why);
                pl_table_note(t, "not measured: %s", why);
                absent = true;
            }
        }
    if (t->n_rows == 0)
        pl_table_note(t, d->measures_energy ? "measure.energy: no burst is in the file yet"
                                            : "not asked for (measure.energy)");
    else
        pl_table_note(t,
                      "each from one uninterrupted burst after the grid, at least 10 s long unless "
                      "its seconds say otherwise; the processors' packages, whoever used them, and "
                      "their memory where it is counted");
    pl_tables_label(d, t);
}

void pl_warn_energy(const struct pl_dataset *d, struct pl_table *t)
{
    for (uint32_t i = 0; i < d->n_energy; i++) {
        const struct pl_log_energy *e = &d->energy[i];
        char why[sizeof e->absent + 1];
        if (isfinite(e->joules) || e->arm >= d->shape.arms || e->context >= d->shape.contexts)
            continue;
        snprintf(why, sizeof why, "%.*s", (int)sizeof e->absent, e->absent);
        pl_text_clean(why);
        pl_tables_warn(t, "energy", d->arms[e->arm], pl_reader_context(d->reader, e->context),
                       "energy was asked for and not measured: %s", why);
    }
}
