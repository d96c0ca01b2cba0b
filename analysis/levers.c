#include "analysis/levers.h"

#include "analysis/table.h"

#include <math.h>
#include <stdio.h>

static double sum_of(const uint32_t *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += v[i];
    return sum;
}

static const char *largest(double acceptance, double verify, double overlap)
{
    if (!(isfinite(acceptance) && isfinite(verify) && isfinite(overlap)))
        return NULL;
    if (acceptance >= verify && acceptance >= overlap)
        return "acceptance";
    return verify >= overlap ? "verify cost" : "overlap";
}

/* What would be saved if every draft were accepted: first plain steps, then whole rounds, each of
 * which would give all that it drafted and one token more. */
static double acceptance_saves(const struct pl_levers *l, double tokens)
{
    const double each = 1 + l->drafted / l->rounds;
    const double plain = fmax(0, tokens - l->accepted - l->rounds);
    if (l->rounds * each <= tokens)
        return (l->drafted - l->accepted) * l->step;
    return plain * l->step +
           (l->rounds - tokens / each) * (l->verify + l->draft + l->adapter) / l->rounds;
}

static void fill(const struct pl_dataset *d, const struct pl_draft_cell *c, struct pl_levers *l)
{
    const struct pl_cell *cell = pl_dataset_cell(d, l->arm, l->context);
    const struct pl_draft_base b = pl_drafts_base(d, l->arm, l->context);
    const double n = (double)cell->n;
    l->drafted = (double)c->drafted / n;
    l->accepted = (double)c->accepted / n;
    l->rounds = (double)c->rounds / n;
    l->step = b.step;
    l->base_e2e = b.e2e;
    l->e2e = pl_cell_mean(d, cell, PL_METRIC_E2E);
    l->verify = pl_drafts_verify_ms(d, cell, c);
    l->beyond = l->verify - l->rounds * b.step;
    l->draft = pl_cell_part(d, cell, PL_METRIC_DRAFT);
    l->adapter = pl_cell_part(d, cell, PL_METRIC_ADAPTER);
    l->wait = pl_cell_part(d, cell, PL_METRIC_WAIT);
    l->all_accepted =
        acceptance_saves(l, sum_of(cell->generated, cell->n) / n - 1 + (double)c->cut / n);
    l->cheap_verify = isnan(l->beyond) ? NAN : fmax(0, l->beyond);
    l->all_hidden = l->draft + l->adapter + l->wait;
    l->largest = largest(l->all_accepted, l->cheap_verify, l->all_hidden);
}

bool pl_levers_get(const struct pl_dataset *d, size_t i, struct pl_levers *out)
{
    for (uint32_t c = 0; c < d->shape.contexts; c++)
        for (uint32_t a = 0; a < d->shape.arms; a++) {
            if (!pl_drafts_cell(d, a, c) || i-- > 0)
                continue;
            *out = (struct pl_levers){.arm = a, .context = c};
            fill(d, pl_drafts_cell(d, a, c), out);
            return true;
        }
    return false;
}

void pl_levers_text(const struct pl_levers *l, char out[PL_LEVERS_TEXT])
{
    const double now = l->base_e2e / l->e2e;
    if (!l->largest || !isfinite(now)) {
        snprintf(out, PL_LEVERS_TEXT, "no plain baseline, so nothing can be said");
        return;
    }
    snprintf(out, PL_LEVERS_TEXT,
             "%s would pay most: %.2f× now, %.2f× if every draft were accepted, %.2f× if a "
             "verification cost one step, %.2f× if drafting, adapter and waiting were hidden",
             l->largest, now, l->base_e2e / (l->e2e - l->all_accepted),
             l->base_e2e / (l->e2e - l->cheap_verify), l->base_e2e / (l->e2e - l->all_hidden));
}

void pl_levers_lines(const struct pl_dataset *d, struct pl_out *o)
{
    struct pl_levers l;
    for (size_t i = 0; pl_levers_get(d, i, &l); i++) {
        char text[PL_LEVERS_TEXT], context[PL_CONTEXT_TEXT];
        pl_levers_text(&l, text);
        pl_context_text(pl_reader_context(d->reader, l.context), context);
        pl_out_f(o, "%s, %s: %s\n", d->arms[l.arm], context, text);
    }
}
