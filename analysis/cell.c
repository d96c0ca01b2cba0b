/* What the trials of one arm at one context say, metric by metric. */
#include "analysis/dataset.h"

#include "results/quality.h"

#include <math.h>

const char *pl_metric_name(enum pl_metric m)
{
    static const char *const names[] = {
#define PL_X(sym, column, name) [PL_METRIC_##sym] = name,
        PL_METRIC_COLUMNS(PL_X)
#undef PL_X
            [PL_METRIC_TPOT] = "tpot",
        [PL_METRIC_DECODE_TPS] = "decode_tps", [PL_METRIC_THROUGHPUT] = "throughput",
        [PL_METRIC_GENERATION] = "decode"};
    return (unsigned)m < PL_METRIC_COUNT ? names[m] : "unknown";
}

const struct pl_cell *pl_dataset_cell(const struct pl_dataset *d, uint32_t arm, uint32_t context)
{
    return &d->cells[(size_t)arm * d->shape.contexts + context];
}

static double generation(const struct pl_cell *c, size_t i)
{
    static const enum pl_metric parts[] = {PL_METRIC_DECODE, PL_METRIC_DRAFT, PL_METRIC_ADAPTER,
                                           PL_METRIC_VERIFY};
    double sum = NAN;
    for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++) {
        const double v = c->column[parts[p]] ? c->column[parts[p]][i] : NAN;
        if (!isnan(v))
            sum = isnan(sum) ? v : sum + v;
    }
    return sum;
}

double pl_cell_decode_ms(const struct pl_cell *c, size_t i)
{
    return c->sequences > 1 ? generation(c, i)
                            : c->column[PL_METRIC_E2E][i] - c->column[PL_METRIC_TTFT][i];
}

double pl_cell_sequence(const struct pl_cell *c, enum pl_metric m, size_t i, uint32_t sequence)
{
    const float *of = m == PL_METRIC_TTFT ? c->seq_ttft : c->seq_tpot;
    return of ? (double)of[i * c->sequences + sequence] : NAN;
}

static double mean_of_sequences(const struct pl_cell *c, size_t i)
{
    double sum = 0;
    uint32_t n = 0;
    for (uint32_t b = 0; b < c->sequences; b++) {
        const double v = pl_cell_sequence(c, PL_METRIC_TPOT, i, b);
        if (isnan(v))
            continue;
        sum += v;
        n++;
    }
    return n ? sum / n : NAN;
}

double pl_cell_value(const struct pl_dataset *d, const struct pl_cell *c, enum pl_metric m,
                     size_t i)
{
    if (m < PL_METRIC_COLUMN_COUNT)
        return c->column[m] ? c->column[m][i] : NAN;
    if (m == PL_METRIC_GENERATION)
        return d->prefill_mode ? NAN : generation(c, i);
    if (!c->column[PL_METRIC_E2E] || !c->column[PL_METRIC_TTFT])
        return NAN;
    if (m == PL_METRIC_THROUGHPUT)
        return c->generated[i] ? 1000 * c->generated[i] / c->column[PL_METRIC_E2E][i] : NAN;
    if (m == PL_METRIC_TPOT && c->sequences > 1)
        return mean_of_sequences(c, i);
    if (m == PL_METRIC_DECODE_TPS && c->clients)
        return NAN; /* prompts run between the steps */
    const double ms = pl_cell_decode_ms(c, i);
    const double steps = (double)c->generated[i] - c->sequences;
    if (!(ms > 0) || !(steps > 0))
        return NAN;
    return m == PL_METRIC_TPOT ? ms / steps : 1000 * steps / ms;
}

uint64_t pl_cell_group(const struct pl_cell *a, const struct pl_cell *b)
{
    uint64_t x = a->sequences, y = b->sequences;
    while (y) {
        const uint64_t rest = x % y;
        x = y;
        y = rest;
    }
    return (uint64_t)a->sequences / x * b->sequences;
}

uint64_t pl_dataset_unit(const struct pl_dataset *d, uint64_t sample, uint64_t group)
{
    uint64_t g = sample / group;
    while (g > 0 && d->scene[g * group] == d->scene[g * group - 1])
        g--;
    return g;
}

static double sum_of(const struct pl_dataset *d, const struct pl_cell *c, enum pl_metric m,
                     size_t *n)
{
    double sum = 0;
    *n = 0;
    for (size_t i = 0; i < c->n; i++) {
        const double v = pl_cell_value(d, c, m, i);
        if (!isnan(v)) {
            sum += v;
            ++*n;
        }
    }
    return sum;
}

double pl_cell_mean(const struct pl_dataset *d, const struct pl_cell *c, enum pl_metric m)
{
    size_t n;
    const double sum = sum_of(d, c, m, &n);
    return n ? sum / (double)n : NAN;
}

double pl_cell_part(const struct pl_dataset *d, const struct pl_cell *c, enum pl_metric m)
{
    size_t n;
    const double sum = sum_of(d, c, m, &n);
    return c->n ? sum / (double)c->n : 0;
}

bool pl_cell_has(const struct pl_dataset *d, const struct pl_cell *c, enum pl_metric m)
{
    if (m < PL_METRIC_COLUMN_COUNT)
        return c->column[m] != NULL;
    for (size_t i = 0; i < c->n; i++)
        if (!isnan(pl_cell_value(d, c, m, i)))
            return true;
    return false;
}

double pl_cell_quality(const struct pl_dataset *d, const struct pl_cell *c, uint32_t metric,
                       uint64_t *rows)
{
    const bool geometric =
        pl_quality_geometric(pl_quality_parse(pl_reader_metric(d->reader, metric)));
    double sum = 0;
    uint64_t n = 0;
    for (size_t i = 0; c->quality[metric] && i < c->n; i++) {
        const double v = c->quality[metric][i];
        if (isnan(v))
            continue;
        sum += geometric ? log(v) : v;
        n++;
    }
    if (rows)
        *rows = n;
    return n == 0 ? NAN : geometric ? exp(sum / (double)n) : sum / (double)n;
}
