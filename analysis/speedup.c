/* Pairing an arm's trials with its baseline's. */
#include "analysis/speedup.h"

#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const enum pl_metric metrics[] = {PL_METRIC_PREFILL, PL_METRIC_GENERATION, PL_METRIC_TTFT,
                                         PL_METRIC_E2E};
#define N_METRICS (sizeof metrics / sizeof metrics[0])

struct pair {
    size_t base, arm; /* rows of the two cells */
};

struct pairing {
    const struct pl_dataset *d;
    const struct pl_cell *base, *arm;
    struct pair *pairs;
    struct pl_unit *units;
    size_t n;
};

/* Both cells are in order of (sample, repeat): a merge. */
static void pair_up(struct pairing *p, struct pl_unpaired *un)
{
    size_t b = 0;
    for (size_t a = 0; a < p->arm->n; a++) {
        while (b < p->base->n && p->base->slot[b] < p->arm->slot[a])
            b++;
        if (b >= p->base->n || p->base->slot[b] != p->arm->slot[a]) {
            un->alone++;
            continue;
        }
        const struct pl_place *places = p->d->places;
        if (places[p->base->place[b]].device != places[p->arm->place[a]].device)
            un->elsewhere++;
        else
            p->pairs[p->n++] = (struct pair){b, a};
    }
}

/* The unit of (sample, place) among those of the same sample, which are the last ones. */
static struct pl_unit *find_unit(struct pl_unit *units, size_t first, size_t *n, uint32_t place)
{
    for (size_t u = first; u < *n; u++)
        if (units[u].cluster == place)
            return &units[u];
    units[*n] = (struct pl_unit){0, 0, place};
    return &units[(*n)++];
}

static struct pl_device_ratio *find_device(struct pl_speedup *s, uint32_t device)
{
    for (uint32_t i = 0; i < s->n_devices; i++)
        if (s->devices[i].device == device)
            return &s->devices[i];
    s->devices[s->n_devices] = (struct pl_device_ratio){.device = device};
    return &s->devices[s->n_devices++];
}

static int by_device(const void *a, const void *b)
{
    const struct pl_device_ratio *x = a, *y = b;
    return x->device < y->device ? -1 : x->device > y->device;
}

/* A metric for each sequence of a trial; a ttft is one already. */
static double a_sequence(const struct pl_dataset *d, const struct pl_cell *c, enum pl_metric m,
                         size_t i)
{
    const double v = pl_cell_value(d, c, m, i);
    return m == PL_METRIC_TTFT ? v : v / c->sequences;
}

static enum pl_status one_metric(struct pairing *p, struct pl_speedup *s, struct pl_err *err)
{
    const struct pl_dataset *d = p->d;
    size_t units = 0, first = 0;
    uint64_t sample = UINT64_MAX;
    double base = 0, arm = 0;
    /* trials of a group of samples run the same prompts, and questions about a scene share it: they
     * move together */
    const uint64_t group = pl_cell_group(p->arm, p->base);

    s->devices = calloc(d->n_devices ? d->n_devices : 1, sizeof *s->devices);
    if (!s->devices)
        return pl_fail(err, PL_ENOMEM, "speedups of %u devices", d->n_devices);
    for (size_t i = 0; i < p->n; i++) {
        const struct pair *q = &p->pairs[i];
        const double vb = a_sequence(d, p->base, s->metric, q->base);
        const double va = a_sequence(d, p->arm, s->metric, q->arm);
        if (!(vb > 0) || !(va > 0))
            continue;
        const uint64_t of = pl_dataset_unit(d, p->arm->slot[q->arm] / d->shape.repeats, group);
        if (of != sample)
            first = units;
        sample = of;
        const uint32_t place = p->arm->place[q->arm];
        struct pl_unit *u = find_unit(p->units, first, &units, place);
        struct pl_device_ratio *dev = find_device(s, d->places[place].device);
        u->base += vb;
        u->arm += va;
        dev->base += vb;
        dev->arm += va;
        dev->n++;
        base += vb;
        arm += va;
        s->n++;
    }
    qsort(s->devices, s->n_devices, sizeof *s->devices, by_device);
    const uint64_t key = pl_keyv(d->seed, pl_hash_str("speedup"), pl_hash_str(d->arms[s->arm]),
                                 (uint64_t)pl_reader_context(d->reader, s->context), s->metric);
    const enum pl_status st = pl_ratio_ci(p->units, units, key, 0, &s->ratio, err);
    if (st != PL_OK)
        return st;
    s->baseline_ms = s->n ? base / (double)s->n : NAN;
    s->arm_ms = s->n ? arm / (double)s->n : NAN;
    s->verdict = s->n ? pl_verdict(s->ratio.ci_low, s->ratio.ci_high, d->delta) : PL_VERDICT_NONE;
    return PL_OK;
}

static enum pl_status add(struct pl_speedups *out, struct pairing *p, uint32_t arm,
                          uint32_t context, enum pl_metric m, struct pl_err *err)
{
    if (out->n == out->cap) {
        const size_t cap = out->cap ? out->cap * 2 : 32;
        struct pl_speedup *more = realloc(out->rows, cap * sizeof *more);
        if (!more)
            return pl_fail(err, PL_ENOMEM, "%zu speedups", cap);
        out->rows = more;
        out->cap = cap;
    }
    struct pl_speedup *s = &out->rows[out->n++];
    *s = (struct pl_speedup){.arm = arm,
                             .baseline = p->d->baseline[arm],
                             .context = context,
                             .metric = m,
                             .synthetic = p->arm->synthetic > 0 || p->base->synthetic > 0};
    return one_metric(p, s, err);
}

static enum pl_status one_cell(const struct pl_dataset *d, uint32_t arm, uint32_t context,
                               struct pl_speedups *out, struct pl_err *err)
{
    struct pairing p = {.d = d,
                        .base = pl_dataset_cell(d, d->baseline[arm], context),
                        .arm = pl_dataset_cell(d, arm, context)};
    struct pl_unpaired *un = &out->unpaired[out->n_unpaired++];
    enum pl_status st = PL_OK;

    *un = (struct pl_unpaired){.arm = arm, .context = context};
    p.pairs = malloc((p.arm->n + 1) * sizeof *p.pairs);
    p.units = malloc((p.arm->n + 1) * sizeof *p.units);
    if (!p.pairs || !p.units) {
        st = pl_fail(err, PL_ENOMEM, "pairs of %zu trials", p.arm->n);
        goto out;
    }
    pair_up(&p, un);
    for (size_t m = 0; m < N_METRICS && st == PL_OK; m++) {
        const bool measured =
            pl_cell_has(d, p.arm, metrics[m]) || pl_cell_has(d, p.base, metrics[m]);
        if (measured || metrics[m] == PL_METRIC_E2E)
            st = add(out, &p, arm, context, metrics[m], err);
    }
out:
    free(p.pairs);
    free(p.units);
    return st;
}

enum pl_status pl_speedups_make(const struct pl_dataset *d, struct pl_speedups *out,
                                struct pl_err *err)
{
    struct pl_speedups s = {0};
    enum pl_status st = PL_OK;

    s.unpaired = calloc((size_t)d->shape.arms * d->shape.contexts, sizeof *s.unpaired);
    if (!s.unpaired)
        st = pl_fail(err, PL_ENOMEM, "speedups");
    for (uint32_t c = 0; c < d->shape.contexts && st == PL_OK; c++)
        for (uint32_t a = 0; a < d->shape.arms && st == PL_OK; a++)
            if (d->baseline[a] != a)
                st = one_cell(d, a, c, &s, err);
    if (st == PL_OK)
        *out = s;
    else
        pl_speedups_release(&s);
    return st;
}

void pl_speedups_release(struct pl_speedups *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->rows[i].devices);
    free(s->rows);
    free(s->unpaired);
    memset(s, 0, sizeof *s);
}

const struct pl_speedup *pl_speedups_find(const struct pl_speedups *s, uint32_t arm,
                                          uint32_t context, enum pl_metric m)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->rows[i].arm == arm && s->rows[i].context == context && s->rows[i].metric == m)
            return &s->rows[i];
    return NULL;
}

/* ---- drift ---- */

struct event {
    uint32_t device;
    int64_t at;
    double ln_ms;
};

static int by_time(const void *a, const void *b)
{
    const struct event *x = a, *y = b;
    if (x->device != y->device)
        return x->device < y->device ? -1 : 1;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return (x->ln_ms > y->ln_ms) - (x->ln_ms < y->ln_ms);
}

/* Samples whose repeats all ran on one device become one event. */
static size_t collect(const struct pl_dataset *d, const struct pl_cell *c, struct event *events)
{
    size_t n = 0;
    for (size_t from = 0, to; from < c->n; from = to) {
        const uint64_t sample = c->slot[from] / d->shape.repeats;
        struct event e = {.device = d->places[c->place[from]].device, .at = c->start_ns[from]};
        size_t values = 0;
        for (to = from; to < c->n && c->slot[to] / d->shape.repeats == sample; to++) {
            const double ms = pl_cell_value(d, c, PL_METRIC_E2E, to);
            if (!(ms > 0))
                continue;
            e.ln_ms += log(ms);
            values++;
        }
        if (values) {
            e.ln_ms /= (double)values;
            events[n++] = e;
        }
    }
    return n;
}

enum pl_status pl_cell_drift(const struct pl_dataset *d, const struct pl_cell *c,
                             struct pl_drift *out, struct pl_err *err)
{
    struct event *events = malloc((c->n + 1) * sizeof *events);
    double *ln = malloc((c->n + 1) * sizeof *ln);
    uint32_t *stream = malloc((c->n + 1) * sizeof *stream);
    enum pl_status st = PL_OK;

    if (!events || !ln || !stream) {
        st = pl_fail(err, PL_ENOMEM, "the series of %zu trials", c->n);
        goto out;
    }
    const size_t n = collect(d, c, events);
    qsort(events, n, sizeof *events, by_time);
    for (size_t i = 0; i < n; i++) {
        ln[i] = events[i].ln_ms;
        stream[i] = events[i].device;
    }
    pl_drift(ln, stream, n, d->delta, out);
out:
    free(events);
    free(ln);
    free(stream);
    return st;
}
