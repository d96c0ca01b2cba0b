/* Horizontal bars: phases of a trial and failures by reason, stacked; tokens/s with intervals. */
#include "analysis/bars.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- phases ---- */

#define N_PHASES PL_FIGURE_PHASES

static bool of_lane(size_t phase, int lane)
{
    return (phase >= PL_METRIC_D_VISION) == lane;
}

/* A bar: one lane of an arm, at each context. */
struct lane {
    uint32_t arm;
    int lane;
};

/* all[N_PHASES + 1]: the last is what no phase claims. */
static void cell_phases(const struct pl_dataset *d, const struct pl_cell *c, int lane, double *all)
{
    double sum = 0;
    for (size_t i = 0; i < N_PHASES; i++) {
        all[i] = of_lane(i, lane) ? pl_cell_part(d, c, (enum pl_metric)i) : 0;
        sum += all[i];
    }
    const double rest = lane == 0 ? pl_cell_part(d, c, PL_METRIC_E2E) - sum : 0;
    all[N_PHASES] = rest > 0.02 * (sum + rest) ? rest : 0;
}

/* The parts that are seen somewhere: indices of phases, N_PHASES for what none claims. */
static size_t parts_seen(const double *all, size_t bars, size_t *keep)
{
    const size_t k = N_PHASES + 1;
    size_t n = 0;
    for (size_t i = 0; i < k; i++) {
        double most = 0;
        for (size_t bar = 0; bar < bars; bar++) {
            double whole = 0;
            for (size_t j = 0; j < k; j++)
                whole += all[bar * k + j];
            most = fmax(most, whole > 0 ? all[bar * k + i] / whole : 0);
        }
        if (most >= 0.002) /* not thinner than a pixel everywhere */
            keep[n++] = i;
    }
    return n;
}

static void draw_phases(const struct pl_dataset *d, const char *title, const struct lane *lanes,
                        const char *const *names, size_t n, struct pl_figure *f)
{
    const size_t contexts = d->shape.contexts, k = N_PHASES + 1;
    struct pl_bars_panel *panels = calloc(contexts, sizeof *panels);
    double *all = calloc(n * contexts * k, sizeof *all);
    double *used = calloc(n * contexts * k, sizeof *used);
    struct pl_legend parts[PL_BARS_PARTS_MAX] = {{.point = 0}};
    struct pl_bars chart = {.o = &f->body, .title = title, .xlabel = "ms", .parts = parts};
    size_t keep[N_PHASES + 1];

    if (!panels || !all || !used) {
        f->body.st = pl_fail(&f->body.err, PL_ENOMEM, "a figure of phases");
        goto out;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < contexts; c++)
            cell_phases(d, pl_dataset_cell(d, lanes[i].arm, (uint32_t)c), lanes[i].lane,
                        all + (c * n + i) * k);
    chart.n_parts = parts_seen(all, n * contexts, keep);
    if (chart.n_parts == 0)
        goto out;
    for (size_t i = 0; i < chart.n_parts; i++)
        parts[i] = keep[i] < N_PHASES ? *pl_figure_phase((enum pl_metric)keep[i])
                                      : (struct pl_legend){"not split", "#707070", 0};
    for (size_t c = 0; c < contexts; c++) {
        panels[c] = (struct pl_bars_panel){
            .names = names, .values = used + c * n * chart.n_parts, .bars = n};
        pl_bars_context_title(d, (uint32_t)c, &panels[c]);
        for (size_t b = 0; b < n; b++)
            for (size_t i = 0; i < chart.n_parts; i++)
                panels[c].values[b * chart.n_parts + i] = all[(c * n + b) * k + keep[i]];
    }
    pl_bars_draw(d, &chart, panels, contexts, f);
out:
    free(panels);
    free(all);
    free(used);
}

/* Whether some trial of the arm has the drafter's lane. */
static bool has_lane(const struct pl_dataset *d, uint32_t arm)
{
    for (uint32_t c = 0; c < d->shape.contexts; c++)
        if (pl_cell_has(d, pl_dataset_cell(d, arm, c), PL_METRIC_D_PREFILL) ||
            pl_cell_has(d, pl_dataset_cell(d, arm, c), PL_METRIC_D_DECODE))
            return true;
    return false;
}

/* Draws every arm, or those that draft with their baselines and both lanes. */
static void phases_figure(const struct pl_dataset *d, bool drafting, const char *title,
                          struct pl_figure *f)
{
    struct lane *lanes = calloc(2 * (size_t)d->shape.arms, sizeof *lanes);
    const char **names = calloc(2 * (size_t)d->shape.arms, sizeof *names);
    size_t n = 0;
    bool any = !drafting;

    if (!lanes || !names) {
        f->body.st = pl_fail(&f->body.err, PL_ENOMEM, "a figure of phases");
        goto out;
    }
    for (uint32_t a = 0; a < d->shape.arms; a++) {
        const bool drafts = pl_drafts_arm(d, a);
        if (drafting && !drafts && !pl_drafts_baseline(d, a))
            continue;
        any |= drafts;
        names[n] = d->arms[a];
        lanes[n++] = (struct lane){a, 0};
        if (!drafting || !has_lane(d, a))
            continue;
        names[n] = "its drafter's lane";
        lanes[n++] = (struct lane){a, 1};
    }
    if (any)
        draw_phases(d, title, lanes, names, n, f);
out:
    free(lanes);
    free(names);
}

void pl_figure_latency(const struct pl_dataset *d, struct pl_figure *f)
{
    phases_figure(d, false, "Mean time of a trial, by phase", f);
}

void pl_figure_lanes(const struct pl_dataset *d, struct pl_figure *f)
{
    phases_figure(d, true, "Mean time of a drafting trial, by phase, in both lanes", f);
}

/* ---- performance ---- */

/* The time's interval, turned over: tokens over its ends. */
void pl_figure_performance(const struct pl_dataset *d, const struct pl_scaling *s,
                           struct pl_figure *f)
{
    const size_t arms = d->shape.arms, contexts = d->shape.contexts;
    struct pl_bars_panel *panels = calloc(contexts, sizeof *panels);
    double *all = calloc(3 * arms * contexts, sizeof *all);
    const struct pl_legend part = {.text = "", .colour = "#56B4E9"};
    struct pl_bars chart = {.o = &f->body,
                            .title = "Tokens/s over a whole trial, with 95 % intervals",
                            .xlabel = "tokens/s",
                            .parts = &part,
                            .n_parts = 1};

    if (!panels || !all) {
        f->body.st = pl_fail(&f->body.err, PL_ENOMEM, "the figure of tokens/s");
        goto out;
    }
    for (size_t c = 0; c < contexts; c++) {
        double *at = all + 3 * c * arms;
        panels[c] = (struct pl_bars_panel){.names = (const char *const *)d->arms,
                                           .values = at,
                                           .low = at + arms,
                                           .high = at + 2 * arms,
                                           .bars = arms};
        pl_bars_context_title(d, (uint32_t)c, &panels[c]);
    }
    for (size_t i = 0; i < s->n; i++) {
        const struct pl_scaling_point *p = &s->points[i];
        double *at = all + 3 * p->context * arms + p->arm;
        at[0] = p->throughput;
        if (p->ci_low > 0) {
            at[arms] = p->throughput * p->mean / p->ci_high;
            at[2 * arms] = p->throughput * p->mean / p->ci_low;
        }
    }
    if (s->n)
        pl_bars_draw(d, &chart, panels, contexts, f);
out:
    free(panels);
    free(all);
}

/* ---- failures ---- */

void pl_figure_failures(const struct pl_dataset *d, struct pl_figure *f)
{
    struct pl_legend parts[PL_REASON_COUNT] = {{.point = 0}};
    struct pl_bars_panel panel = {
        .title = "all contexts", .names = (const char *const *)d->arms, .bars = d->shape.arms};
    struct pl_bars chart = {.o = &f->body,
                            .title = "Failed trials, by reason",
                            .xlabel = "trials given up",
                            .counts = true,
                            .parts = parts};
    double *values = calloc((size_t)d->shape.arms * PL_REASON_COUNT, sizeof *values);

    if (!values) {
        f->body.st = pl_fail(&f->body.err, PL_ENOMEM, "the figure of failures");
        return;
    }
    unsigned keep[PL_REASON_COUNT];
    for (unsigned r = 0; r < PL_REASON_COUNT; r++) {
        uint64_t n = 0;
        for (size_t i = 0; i < (size_t)d->shape.arms * d->shape.contexts; i++)
            n += d->cells[i].by_reason[r];
        if (n == 0)
            continue;
        keep[chart.n_parts] = r;
        snprintf(parts[chart.n_parts].text, sizeof parts[0].text, "%s",
                 pl_reason_name((enum pl_reason)r));
        parts[chart.n_parts].colour = pl_figure_colour(chart.n_parts);
        chart.n_parts++;
    }
    for (uint32_t a = 0; a < d->shape.arms; a++)
        for (size_t i = 0; i < chart.n_parts; i++)
            for (uint32_t c = 0; c < d->shape.contexts; c++)
                values[a * chart.n_parts + i] +=
                    (double)pl_dataset_cell(d, a, c)->by_reason[keep[i]];
    panel.values = values;
    if (chart.n_parts)
        pl_bars_draw(d, &chart, &panel, 1, f);
    free(values);
}
