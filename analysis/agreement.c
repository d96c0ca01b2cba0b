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

static bool keep_baseline(void *ctx, const struct pl_row_view *v)
{
    struct agreement *a = ctx;
    const uint64_t slot = slot_of(&a->d->shape, &v->id);

    if (!a->tokens[v->id.arm] || !counts(v))
        return true;
    memcpy(a->tokens[v->id.arm] + slot * a->ids, v->row.tokens, a->ids * sizeof(int32_t));
    a->have[v->id.arm][slot] = true;
    return true;
}

/* NaN where neither has an id. */
static double share(const int32_t *x, const int32_t *y, size_t n)
{
    size_t same = 0, of = 0;

    for (size_t i = 0; i < n; i++) {
        of += x[i] >= 0 || y[i] >= 0;
        same += x[i] >= 0 && x[i] == y[i];
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
    c->quality[a->metric][row] = share(v->row.tokens, a->tokens[base] + slot * a->ids, a->ids);
    return true;
}

static bool find_metric(const struct pl_dataset *d, uint32_t *out)
{
    for (uint32_t m = 0; m < d->shape.metrics; m++)
        if (strcmp(pl_reader_metric(d->reader, m), pl_quality_name(PL_QUALITY_AGREEMENT)) == 0) {
            *out = m;
            return true;
        }
    return false;
}

/* Room for the ids of every arm that another is compared with. */
static bool make_room(struct agreement *a, bool *any)
{
    const struct pl_dataset *d = a->d;

    a->tokens = calloc(d->shape.arms, sizeof *a->tokens);
    a->have = calloc(d->shape.arms, sizeof *a->have);
    if (!a->tokens || !a->have)
        return false;
    for (uint32_t i = 0; i < d->shape.arms; i++) {
        const uint32_t base = d->baseline[i];
        if (base == i || a->tokens[base])
            continue;
        a->tokens[base] = calloc(a->slots * a->ids, sizeof(int32_t));
        a->have[base] = calloc(a->slots, sizeof(bool));
        if (!a->tokens[base] || !a->have[base])
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

    if (!find_metric(d, &a.metric) || d->synthetic == d->done)
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
    }
    free(a.tokens);
    free(a.have);
    return st;
}
