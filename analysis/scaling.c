/* Points of the curves over context: a mean is a ratio of totals, time over trials. */
#include "analysis/scaling.h"

#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *pl_scaling_arch_name(enum pl_scaling_arch a)
{
    static const char *const names[] = {[PL_SCALING_UNKNOWN] = NULL,
                                        [PL_SCALING_DECODER] = "decoder",
                                        [PL_SCALING_ENCDEC] = "encdec",
                                        [PL_SCALING_ENCODER] = "encoder"};
    return (size_t)a < sizeof names / sizeof names[0] ? names[a] : NULL;
}

static enum pl_scaling_arch arch_of(const struct pl_cell *c)
{
    bool generates = false;
    for (size_t i = 0; i < c->n && !generates; i++)
        generates = c->generated[i] > 0;
    if (c->column[PL_METRIC_ENCODE])
        return generates ? PL_SCALING_ENCDEC : PL_SCALING_ENCODER;
    return c->column[PL_METRIC_PREFILL] ? PL_SCALING_DECODER : PL_SCALING_UNKNOWN;
}

/* Trials of a cell as they are grouped: of one prompt in one device × session together. */
struct item {
    uint64_t sample;
    uint32_t place;
    double ms;
};

static int by_prompt(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->sample != y->sample)
        return x->sample < y->sample ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

struct work {
    struct item *items;
    struct pl_unit *units;
    double *values;
};

static size_t group(const struct item *items, size_t n, struct pl_unit *units)
{
    size_t n_units = 0;
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || by_prompt(&items[i - 1], &items[i]) != 0)
            units[n_units++] = (struct pl_unit){.cluster = items[i].place};
        units[n_units - 1].base += items[i].ms;
        units[n_units - 1].arm += 1;
    }
    return n_units;
}

/* What ran through the model in the trials that have a time: tokens that came, or where none or
 * only the first is asked for, those that went in. */
static double tokens(const struct pl_dataset *d, const struct pl_cell *c, enum pl_metric m,
                     enum pl_scaling_arch arch, size_t n)
{
    double sum = 0;
    if (arch == PL_SCALING_ENCODER || d->prefill_mode)
        return c->prompt_tokens / (double)c->n * (double)n;
    for (size_t i = 0; i < c->n; i++)
        if (c->column[m][i] > 0)
            sum += c->generated[i];
    return sum;
}

static enum pl_status make_point(const struct pl_dataset *d, struct work *w,
                                 struct pl_scaling_point *p, struct pl_err *err)
{
    const struct pl_cell *c = pl_dataset_cell(d, p->arm, p->context);
    const uint64_t seed = pl_keyv(d->seed, 0x5ca1e, p->arm, p->context);
    struct pl_summary s;
    struct pl_ratio r;
    enum pl_metric m;

    p->arch = arch_of(c);
    m = p->arch == PL_SCALING_ENCODER ? PL_METRIC_ENCODE : PL_METRIC_E2E;
    for (size_t i = 0; i < c->n && c->column[m]; i++)
        if (c->column[m][i] > 0) {
            w->values[p->n] = c->column[m][i];
            w->items[p->n++] =
                (struct item){pl_dataset_unit(d, c->slot[i] / d->shape.repeats, c->sequences),
                              c->place[i], c->column[m][i]};
        }
    if (p->n == 0)
        return PL_OK;
    pl_summarise(w->values, p->n, &s);
    qsort(w->items, p->n, sizeof *w->items, by_prompt);
    const size_t n_units = group(w->items, p->n, w->units);
    const enum pl_status st = pl_ratio_ci(w->units, n_units, seed, 0, &r, err);
    if (st != PL_OK)
        return st;
    p->mean = s.mean;
    p->sd = s.sd;
    p->ci_low = r.ci_low;
    p->ci_high = r.ci_high;
    p->throughput = 1000 * tokens(d, c, m, p->arch, p->n) / (s.mean * (double)p->n);
    p->memory_min = c->device_peak_min;
    p->memory_max = c->device_peak_max;
    p->synthetic = c->synthetic > 0;
    return PL_OK;
}

static uint32_t next_context(const struct pl_dataset *d, const bool *taken)
{
    uint32_t least = UINT32_MAX;
    for (uint32_t c = 0; c < d->shape.contexts; c++)
        if (!taken[c] && (least == UINT32_MAX ||
                          pl_reader_context(d->reader, c) < pl_reader_context(d->reader, least)))
            least = c;
    return least;
}

enum pl_status pl_scaling_make(const struct pl_dataset *d, struct pl_scaling *out,
                               struct pl_err *err)
{
    const size_t cells = (size_t)d->shape.arms * d->shape.contexts;
    size_t most = 1;
    enum pl_status st = PL_OK;

    *out = (struct pl_scaling){NULL, 0};
    for (size_t i = 0; i < cells; i++)
        most = d->cells[i].n > most ? d->cells[i].n : most;
    struct work w = {.items = malloc(most * sizeof *w.items),
                     .units = malloc(most * sizeof *w.units),
                     .values = malloc(most * sizeof *w.values)};
    bool *taken = malloc(d->shape.contexts * sizeof *taken);
    out->points = calloc(cells, sizeof *out->points);
    if (!w.items || !w.units || !w.values || !taken || !out->points)
        st = pl_fail(err, PL_ENOMEM, "the curves over context");
    for (uint32_t a = 0; a < d->shape.arms && st == PL_OK; a++) {
        memset(taken, 0, d->shape.contexts * sizeof *taken);
        for (uint32_t k = 0; k < d->shape.contexts && st == PL_OK; k++) {
            const uint32_t c = next_context(d, taken);
            struct pl_scaling_point *p = &out->points[out->n];
            taken[c] = true;
            *p = (struct pl_scaling_point){.arm = a, .context = c};
            st = make_point(d, &w, p, err);
            out->n += p->n > 0;
        }
    }
    free(w.items);
    free(w.units);
    free(w.values);
    free(taken);
    return st;
}

void pl_scaling_release(struct pl_scaling *s)
{
    free(s->points);
    *s = (struct pl_scaling){NULL, 0};
}
