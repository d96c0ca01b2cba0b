#include "analysis/drafts.h"

#include "analysis/dataset.h"
#include "analysis/stats.h"

#include <math.h>
#include <stdlib.h>

enum { KIND_PREFILL = 3 }; /* of a span: the place of prefill_ms among the phases */

static size_t capped(size_t n)
{
    return n < PL_DRAFT_POSITIONS ? n : PL_DRAFT_POSITIONS - 1;
}

static void add_round(struct pl_draft_cell *c, const struct pl_round *r)
{
    c->rounds++;
    c->drafted += r->drafted;
    c->accepted += r->accepted;
    c->draft_us += r->draft_us;
    c->verify_us += r->verify_us;
    c->accepted_n[capped(r->accepted)]++;
    c->verify_n[capped(r->drafted)]++;
    c->verify_at_us[capped(r->drafted)] += r->verify_us;
    c->verify_at_us2[capped(r->drafted)] += (double)r->verify_us * r->verify_us;
    for (size_t i = 0; i < r->drafted && i < PL_DRAFT_POSITIONS; i++) {
        c->drafted_at[i]++;
        c->accepted_at[i] += i < r->accepted;
    }
}

static enum pl_status overlap_ms(const struct pl_dataset *d, uint64_t index, double *ms,
                                 struct pl_err *err)
{
    struct pl_lane_span s[PL_SPANS_MAX];
    double from = 0, to = 0;
    uint32_t n = 0;
    const enum pl_status st = pl_reader_spans(d->reader, index, s, &n, err);
    *ms = NAN;
    if (st != PL_OK || n == 0)
        return st;
    for (uint32_t i = 0; i < n; i++)
        if (s[i].lane == 0 && s[i].kind == KIND_PREFILL) {
            from = s[i].start_ms;
            to = s[i].end_ms;
        }
    *ms = 0;
    for (uint32_t i = 0; i < n; i++)
        if (s[i].lane == 1)
            *ms += fmax(0, fmin(to, s[i].end_ms) - fmax(from, s[i].start_ms));
    return PL_OK;
}

enum pl_status pl_drafts_overlap_ms(const struct pl_dataset *d, uint64_t index, double *ms)
{
    struct pl_err err;
    return overlap_ms(d, index, ms, &err);
}

static enum pl_status add_spans(struct pl_dataset *d, struct pl_draft_cell *c, uint64_t index,
                                struct pl_err *err)
{
    double ms = NAN;
    const enum pl_status st = overlap_ms(d, index, &ms, err);
    if (st == PL_OK && !isnan(ms)) {
        c->overlaps++;
        c->overlap_ms += ms;
    }
    return st;
}

enum pl_status pl_drafts_add(struct pl_dataset *d, const struct pl_row_view *v, struct pl_err *err)
{
    const struct pl_shape *s = &d->shape;
    const uint32_t used = v->row.trial->rounds;
    if (!s->rounds || !used)
        return PL_OK;
    if (!d->drafts) {
        d->drafts = calloc((size_t)s->arms * s->contexts, sizeof(struct pl_draft_cell *));
        if (!d->drafts)
            return pl_fail(err, PL_ENOMEM, "the drafting arms");
    }
    struct pl_draft_cell **at = &d->drafts[(size_t)v->id.arm * s->contexts + v->id.context];
    if (!*at && (*at = calloc(1, sizeof **at)))
        (*at)->samples = calloc(s->samples, sizeof *(*at)->samples);
    if (!*at || !(*at)->samples)
        return pl_fail(err, PL_ENOMEM, "the drafting arms");
    (*at)->trials++;
    (*at)->free_tokens += v->row.trial->free_tokens;
    (*at)->cut += v->row.trial->cut;
    for (uint32_t b = 0; b < s->batch; b++)
        for (uint32_t i = 0; i < s->rounds; i++) {
            const struct pl_round *r = &v->row.rounds[(size_t)b * s->rounds + i];
            if (r->drafted || r->verify_us || r->draft_us)
                add_round(*at, r);
        }
    (*at)->samples[v->id.sample].drafted += v->row.trial->drafted;
    (*at)->samples[v->id.sample].accepted += v->row.trial->accepted;
    return add_spans(d, *at, v->index, err);
}

const struct pl_draft_cell *pl_drafts_cell(const struct pl_dataset *d, uint32_t arm,
                                           uint32_t context)
{
    return d->drafts ? d->drafts[(size_t)arm * d->shape.contexts + context] : NULL;
}

bool pl_drafts_arm(const struct pl_dataset *d, uint32_t arm)
{
    for (uint32_t c = 0; c < d->shape.contexts; c++)
        if (pl_drafts_cell(d, arm, c))
            return true;
    return false;
}

bool pl_drafts_baseline(const struct pl_dataset *d, uint32_t arm)
{
    for (uint32_t a = 0; a < d->shape.arms; a++)
        if (a != arm && d->baseline[a] == arm && pl_drafts_arm(d, a))
            return true;
    return false;
}

void pl_drafts_free(struct pl_dataset *d)
{
    const size_t n = (size_t)d->shape.arms * d->shape.contexts;
    for (size_t i = 0; d->drafts && i < n; i++)
        if (d->drafts[i]) {
            free(d->drafts[i]->samples);
            free(d->drafts[i]);
        }
    free(d->drafts);
    d->drafts = NULL;
}

/* A ratio of totals, linearised: a prompt's part of the error is (its accepted − rate · its
 * drafted) / all drafted. */
void pl_drafts_acceptance_ci(const struct pl_dataset *d, const struct pl_draft_cell *c, double *low,
                             double *high)
{
    const double all = (double)c->drafted, rate = all > 0 ? (double)c->accepted / all : NAN;
    struct pl_errors e = {0};
    for (uint32_t i = 0; i < d->shape.samples; i++)
        if (c->samples[i].drafted)
            pl_errors_add(&e, pl_dataset_unit(d, i, 1),
                          ((double)c->samples[i].accepted - rate * (double)c->samples[i].drafted) /
                              all);
    const double half = pl_errors_half(&e);
    *low = isnan(half) ? NAN : fmax(0, rate - half);
    *high = isnan(half) ? NAN : fmin(1, rate + half);
}

double pl_drafts_hidden_ms(const struct pl_draft_cell *c)
{
    return c->overlaps ? c->overlap_ms / (double)c->overlaps : NAN;
}

double pl_drafts_model(double prefill, double step, double verify, double tokens, double accepted,
                       double rounds)
{
    const double left = tokens - accepted - rounds;
    return left < 0 ? NAN : (prefill + tokens * step) / (prefill + verify + left * step);
}

struct pl_draft_base pl_drafts_step(const struct pl_dataset *d, uint32_t baseline, uint32_t context)
{
    const struct pl_cell *c = pl_dataset_cell(d, baseline, context);
    double tokens = 0;
    struct pl_draft_base b = {NAN, NAN, NAN, NAN};
    if (c->sequences > 1 || !c->n)
        return b;
    for (size_t i = 0; i < c->n; i++)
        tokens += c->generated[i];
    b.ttft = pl_cell_mean(d, c, PL_METRIC_TTFT);
    b.e2e = pl_cell_mean(d, c, PL_METRIC_E2E);
    b.tokens = tokens / (double)c->n;
    b.step = b.tokens > 1 ? (b.e2e - b.ttft) / (b.tokens - 1) : NAN;
    return b;
}

struct pl_draft_base pl_drafts_base(const struct pl_dataset *d, uint32_t arm, uint32_t context)
{
    if (d->baseline[arm] == arm)
        return (struct pl_draft_base){NAN, NAN, NAN, NAN};
    return pl_drafts_step(d, d->baseline[arm], context);
}

double pl_drafts_verify_ms(const struct pl_dataset *d, const struct pl_cell *cell,
                           const struct pl_draft_cell *c)
{
    const double phase = pl_cell_part(d, cell, PL_METRIC_VERIFY);
    return phase > 0 ? phase : c->verify_us / 1e3 / (double)cell->n;
}

static struct pl_verify_cost cost_of(uint64_t n, double sum, double squares)
{
    const double mean = sum / (double)n, above = squares - (double)n * mean * mean;
    struct pl_verify_cost v = {.n = n, .mean = NAN, .sd = NAN};
    if (n)
        v.mean = mean / 1e3;
    if (n > 1)
        v.sd = sqrt(fmax(0, above) / (double)(n - 1)) / 1e3;
    return v;
}

struct pl_verify_cost pl_drafts_verify(const struct pl_dataset *d, uint32_t arm, uint32_t context,
                                       size_t k)
{
    const struct pl_draft_cell *c = pl_drafts_cell(d, arm, context);
    if (!c || k < 2 || k > PL_DRAFT_POSITIONS)
        return cost_of(0, 0, 0);
    return cost_of(c->verify_n[k - 1], c->verify_at_us[k - 1], c->verify_at_us2[k - 1]);
}

struct pl_verify_cost pl_drafts_verify_all(const struct pl_dataset *d, uint32_t baseline,
                                           uint32_t context, size_t k)
{
    uint64_t n = 0;
    double sum = 0, squares = 0;
    for (uint32_t a = 0; k > 1 && k <= PL_DRAFT_POSITIONS && a < d->shape.arms; a++) {
        const struct pl_draft_cell *c = pl_drafts_cell(d, a, context);
        if (!c || a == baseline || d->baseline[a] != baseline)
            continue;
        n += c->verify_n[k - 1];
        sum += c->verify_at_us[k - 1];
        squares += c->verify_at_us2[k - 1];
    }
    if (k == 1)
        return (struct pl_verify_cost){.n = pl_dataset_cell(d, baseline, context)->n,
                                       .mean = pl_drafts_step(d, baseline, context).step,
                                       .sd = NAN};
    return cost_of(n, sum, squares);
}
