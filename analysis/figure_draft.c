/* Figures of drafting arms: bars of speedup and of acceptance. */
#include "analysis/bars.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static bool any_draft(const struct pl_dataset *d)
{
    for (uint32_t a = 0; a < d->shape.arms; a++)
        if (pl_drafts_arm(d, a))
            return true;
    return false;
}

/* ---- bars: an arm that drafts each ---- */

struct bar {
    double value, low, high; /* low NaN: no interval */
    size_t part;             /* of the chart's, which it is all */
};

struct chosen {
    const struct pl_dataset *d;
    const struct pl_speedups *s;
};

/* A panel a context; chart has parts, texts and axis. get: value NaN is no bar. */
static void draw_bars(const struct chosen *c,
                      struct bar (*get)(const struct chosen *c, uint32_t arm, uint32_t context),
                      struct pl_bars *chart, struct pl_figure *f)
{
    const struct pl_dataset *d = c->d;
    const size_t contexts = d->shape.contexts, k = chart->n_parts;
    const char **names = calloc(d->shape.arms, sizeof *names);
    struct pl_bars_panel *panels = calloc(contexts, sizeof *panels);
    double *all = calloc((size_t)d->shape.arms * contexts * (k + 2), sizeof *all);
    size_t n = 0;

    if (!names || !panels || !all) {
        f->body.st = pl_fail(&f->body.err, PL_ENOMEM, "a figure of drafting arms");
        goto out;
    }
    for (uint32_t a = 0; a < d->shape.arms; a++)
        if (pl_drafts_arm(d, a))
            names[n++] = d->arms[a];
    for (uint32_t i = 0; i < contexts; i++) {
        double *at = all + i * n * (k + 2);
        size_t bar = 0;
        panels[i] = (struct pl_bars_panel){
            .names = names, .values = at, .low = at + n * k, .high = at + n * (k + 1), .bars = n};
        pl_bars_context_title(d, i, &panels[i]);
        for (uint32_t a = 0; a < d->shape.arms; a++) {
            if (!pl_drafts_arm(d, a))
                continue;
            const struct bar b = get(c, a, i);
            if (!isnan(b.value))
                at[bar * k + b.part] = b.value;
            if (!isnan(b.value) && !isnan(b.low)) {
                at[n * k + bar] = fmax(b.low, 1e-9); /* 0: none */
                at[n * (k + 1) + bar] = b.high;
            }
            bar++;
        }
    }
    pl_bars_draw(d, chart, panels, contexts, f);
out:
    free(names);
    free(panels);
    free(all);
}

static struct bar speedup_bar(const struct chosen *c, uint32_t arm, uint32_t context)
{
    const struct pl_speedup *r = pl_speedups_find(c->s, arm, context, PL_METRIC_E2E);
    if (!r || !r->n)
        return (struct bar){.value = NAN};
    return (struct bar){.value = r->ratio.speedup,
                        .low = r->ratio.ci_low,
                        .high = r->ratio.ci_high,
                        .part = r->ratio.ci_low > 1    ? 0
                                : r->ratio.ci_high < 1 ? 1
                                                       : 2};
}

void pl_figure_draft_speedup(const struct pl_dataset *d, const struct pl_speedups *s,
                             struct pl_figure *f)
{
    static const struct pl_legend parts[] = {
        {"faster", "#009E73", 0}, {"slower", "#D55E00", 0}, {"interval holds 1", "#B9BDC2", 0}};
    const struct chosen c = {.d = d, .s = s};
    struct pl_bars chart = {.o = &f->body,
                            .title = "Speedup of drafting arms, end to end, with 95 % intervals",
                            .xlabel = "speedup (× baseline)",
                            .line = 1,
                            .parts = parts,
                            .n_parts = 3};
    if (any_draft(d) && s->n)
        draw_bars(&c, speedup_bar, &chart, f);
}

static struct bar acceptance_bar(const struct chosen *c, uint32_t arm, uint32_t context)
{
    const struct pl_draft_cell *dc = pl_drafts_cell(c->d, arm, context);
    struct bar b = {.value = NAN};
    if (!dc || !dc->drafted)
        return b;
    b.value = 100 * (double)dc->accepted / (double)dc->drafted;
    pl_drafts_acceptance_ci(c->d, dc, &b.low, &b.high);
    b.low *= 100;
    b.high *= 100;
    return b;
}

void pl_figure_acceptance(const struct pl_dataset *d, struct pl_figure *f)
{
    static const struct pl_legend part = {"", "#56B4E9", 0};
    const struct chosen c = {.d = d};
    struct pl_bars chart = {.o = &f->body,
                            .title = "Accepted of what was drafted, with 95 % intervals",
                            .xlabel = "% of drafted tokens",
                            .axis_max = 112,
                            .parts = &part,
                            .n_parts = 1};
    if (any_draft(d))
        draw_bars(&c, acceptance_bar, &chart, f);
}
