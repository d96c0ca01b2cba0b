#include "analysis/agreement.h"

#include "results/quality.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct agreement {
    struct pl_dataset *d;
    uint32_t metric;
    uint64_t slots;   /* rows of an arm */
    size_t ids;       /* of a row */
    int32_t **tokens; /* [arms]: of arms that are a baseline [slots][ids], else NULL */
    bool **have;      /* [arms][slots] */
    uint32_t end;     /* the metric that tells where an answer ended; no metric: none does */
    double **ends;    /* [arms][slots] of those baselines; NaN: not told */
    enum pl_status st;
};

static uint64_t slot_of(const struct pl_shape *s, const struct pl_row_id *id)
{
    return ((uint64_t)id->context * s->samples + id->sample) * s->repeats + id->repeat;
}

static bool counts(const struct pl_row_view *v)
{
    return v->commit.state == PL_ROW_DONE && !v->row.trial->synthetic;
}

/* Ids that the answer has before the model's own end; NaN: not told, so all of them. */
static double end_of(const struct agreement *a, const struct pl_row_view *v)
{
    const struct pl_shape *s = &a->d->shape;
    return s->batch == 1 && a->end < s->metrics ? v->row.quality[a->end] : NAN;
}

static bool keep_baseline(void *ctx, const struct pl_row_view *v)
{
    struct agreement *a = ctx;
    const uint64_t slot = slot_of(&a->d->shape, &v->id);

    if (!a->tokens[v->id.arm] || !counts(v))
        return true;
    memcpy(a->tokens[v->id.arm] + slot * a->ids, v->row.tokens, a->ids * sizeof(int32_t));
    a->ends[v->id.arm][slot] = end_of(a, v);
    a->have[v->id.arm][slot] = true;
    return true;
}

struct answer {
    const int32_t *ids;
    double end; /* NaN: all of them */
};

static int32_t id_at(const struct answer *a, size_t i)
{
    return (double)i >= a->end ? -1 : a->ids[i];
}

/* NaN where neither has an id. */
static double share(const struct answer *x, const struct answer *y, size_t n)
{
    size_t same = 0, of = 0;

    for (size_t i = 0; i < n; i++) {
        const int32_t p = id_at(x, i), q = id_at(y, i);
        of += p >= 0 || q >= 0;
        same += p >= 0 && p == q;
    }
    return of ? (double)same / (double)of : NAN;
}

/* The cell's row of this sample and repeat; n where it has none (it was written since). Rows stand
 * in the order of their slots. */
static size_t row_of(const struct pl_cell *c, uint64_t slot)
{
    size_t low = 0, high = c->n;

    while (low < high) {
        const size_t mid = low + (high - low) / 2;
        if (c->slot[mid] < slot)
            low = mid + 1;
        else
            high = mid;
    }
    return low < c->n && c->slot[low] == slot ? low : c->n;
}

static bool compare(void *ctx, const struct pl_row_view *v)
{
    struct agreement *a = ctx;
    struct pl_dataset *d = a->d;
    const uint32_t base = d->baseline[v->id.arm];
    const uint64_t slot = slot_of(&d->shape, &v->id);
    struct pl_cell *c = &d->cells[(size_t)v->id.arm * d->shape.contexts + v->id.context];
    const size_t row = row_of(c, (uint64_t)v->id.sample * d->shape.repeats + v->id.repeat);

    if (base == v->id.arm || !counts(v) || !a->have[base][slot] || row == c->n)
        return true;
    if (!c->quality[a->metric]) {
        c->quality[a->metric] = malloc(c->n * sizeof(double));
        if (!c->quality[a->metric]) {
            a->st = PL_ENOMEM;
            return false;
        }
        for (size_t i = 0; i < c->n; i++)
            c->quality[a->metric][i] = NAN;
    }
    const int32_t *ids = a->tokens[base] + slot * a->ids;
    const double end = end_of(a, v);
    const struct answer theirs = {ids, a->ends[base][slot]};
    const struct answer own = {v->row.tokens, isnan(end) ? theirs.end : end};
    c->quality[a->metric][row] = share(&own, &theirs, a->ids);
    c->compared++;
    c->differing += memcmp(v->row.tokens, ids, a->ids * sizeof *ids) != 0;
    return true;
}

static bool find_metric(const struct pl_dataset *d, enum pl_quality q, uint32_t *out)
{
    for (uint32_t m = 0; m < d->shape.metrics; m++)
        if (strcmp(pl_reader_metric(d->reader, m), pl_quality_name(q)) == 0) {
            *out = m;
            return true;
        }
    *out = UINT32_MAX;
    return false;
}

/* Room for the ids of every arm that another is compared with. */
static bool make_room(struct agreement *a, bool *any)
{
    const struct pl_dataset *d = a->d;

    a->tokens = calloc(d->shape.arms, sizeof *a->tokens);
    a->have = calloc(d->shape.arms, sizeof *a->have);
    a->ends = calloc(d->shape.arms, sizeof *a->ends);
    if (!a->tokens || !a->have || !a->ends)
        return false;
    for (uint32_t i = 0; i < d->shape.arms; i++) {
        const uint32_t base = d->baseline[i];
        if (base == i || a->tokens[base])
            continue;
        a->tokens[base] = calloc(a->slots * a->ids, sizeof(int32_t));
        a->have[base] = calloc(a->slots, sizeof(bool));
        a->ends[base] = calloc(a->slots, sizeof(double));
        if (!a->tokens[base] || !a->have[base] || !a->ends[base])
            return false;
        *any = true;
    }
    return true;
}

enum pl_status pl_agreement_add(struct pl_dataset *d, struct pl_err *err)
{
    struct agreement a = {.d = d,
                          .slots =
                              (uint64_t)d->shape.contexts * d->shape.samples * d->shape.repeats,
                          .ids = (size_t)d->shape.batch * d->shape.tokens};
    enum pl_status st = PL_OK;
    bool any = false;

    (void)find_metric(d, PL_QUALITY_ANSWER_TOKENS, &a.end);
    if (!find_metric(d, PL_QUALITY_AGREEMENT, &a.metric) || d->synthetic == d->done)
        return PL_OK;
    if (!make_room(&a, &any))
        st = pl_fail(err, PL_ENOMEM, "the ids that the baselines generated");
    if (st == PL_OK && any)
        st = pl_reader_each(d->reader, keep_baseline, &a, err);
    if (st == PL_OK && any)
        st = pl_reader_each(d->reader, compare, &a, err);
    if (st == PL_OK && a.st != PL_OK)
        st = pl_fail(err, a.st, "the agreement of one arm");
    for (uint32_t i = 0; i < d->shape.arms; i++) {
        free(a.tokens ? a.tokens[i] : NULL);
        free(a.have ? a.have[i] : NULL);
        free(a.ends ? a.ends[i] : NULL);
    }
    free(a.tokens);
    free(a.have);
    free(a.ends);
    return st;
}
