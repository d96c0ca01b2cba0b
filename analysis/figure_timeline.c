/* What both lanes did when: two rows an arm, a panel a sample. */
#include "analysis/figure.h"
#include "analysis/table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define PLOT_PX 760
#define ROW_PX 15
#define GAP_PX 8 /* between arms */
#define TOP_PX 40
#define PANEL_TOP_PX 30
#define PANEL_BOTTOM_PX 40
#define LANE_PX 70 /* "verifier" */
#define RIGHT_PX 24
#define CONTEXTS_MAX 3
#define N_PARTS PL_FIGURE_PHASES /* of a span: its place among the phases */

struct sheet {
    const struct pl_dataset *d;
    struct pl_out *o;
    uint32_t *arms; /* that have spans */
    size_t n_arms;
    bool seen[N_PARTS];
    int left, width, height;
};

static enum pl_status spans_of(const struct pl_dataset *d, uint32_t arm, uint32_t context,
                               uint32_t sample, struct pl_lane_span *s, uint32_t *n,
                               struct pl_err *err)
{
    const uint64_t index =
        (((uint64_t)arm * d->shape.contexts + context) * d->shape.samples + sample) *
        d->shape.repeats;
    return pl_reader_spans(d->reader, index, s, n, err);
}

static double row_of(size_t arm, unsigned lane)
{
    return (double)arm * (2 + (double)GAP_PX / ROW_PX) + lane;
}

/* One block of boxes a part, so that each has one colour; the time of the last span's end. */
static double boxes(struct sheet *t, uint32_t context, uint32_t sample, size_t part)
{
    struct pl_lane_span s[PL_SPANS_MAX];
    double end = 0;
    bool any = false;

    pl_out_f(t->o, "$p%zu << EOD\n", part);
    for (size_t a = 0; a < t->n_arms && t->o->st == PL_OK; a++) {
        uint32_t n = 0;
        const enum pl_status st = spans_of(t->d, t->arms[a], context, sample, s, &n, &t->o->err);
        if (st != PL_OK)
            t->o->st = st;
        for (uint32_t i = 0; i < n && st == PL_OK; i++) {
            if (s[i].kind != part || s[i].lane > 1)
                continue;
            pl_out_f(t->o, "%.9g %.9g %.9g\n", s[i].start_ms, row_of(a, s[i].lane), s[i].end_ms);
            end = fmax(end, s[i].end_ms);
            any = true;
        }
    }
    pl_out_text(t->o, any ? "EOD\n" : "NaN NaN NaN\nEOD\n");
    t->seen[part] |= any;
    return end;
}

static void panel(struct sheet *t, uint32_t context, uint32_t sample, int top, bool last)
{
    const double rows = row_of(t->n_arms - 1, 1);
    const int bottom = top + (int)((rows + 1) * ROW_PX);
    char text[PL_CONTEXT_TEXT];
    double end = 0;

    for (size_t i = 0; i < N_PARTS; i++)
        end = fmax(end, boxes(t, context, sample, i));
    pl_context_text(pl_reader_context(t->d->reader, context), text);
    pl_out_f(t->o, "set tmargin at screen %.6f\nset bmargin at screen %.6f\n",
             1 - (double)top / t->height, 1 - (double)bottom / t->height);
    pl_out_f(t->o, "set yrange [%.9g:-0.6]\nset xrange [0:%.9g]\n", rows + 0.6,
             end > 0 ? end * 1.01 : 1);
    pl_out_f(t->o, "set title '%s, sample %u' offset 0,-0.6\nset xlabel '%s' offset 0,0.4\n", text,
             sample, last ? "ms since the trial began" : "");
    pl_out_text(t->o, "set ytics scale 0 (");
    for (size_t a = 0; a < t->n_arms; a++)
        pl_out_f(t->o, "%s'verifier' %.9g, 'drafter' %.9g", a ? ", " : "", row_of(a, 0),
                 row_of(a, 1));
    pl_out_text(t->o, ")\n");
    for (size_t a = 0; a < t->n_arms; a++) {
        pl_out_f(t->o, "set label %zu ", a + 2);
        pl_figure_name(t->o, t->d->arms[t->arms[a]]);
        pl_out_f(t->o, " at screen %.6f, first %.9g right\n",
                 (double)(t->left - LANE_PX) / t->width, row_of(a, 0) + 0.5);
    }
    pl_out_text(t->o, "plot ");
    for (size_t i = 0; i < N_PARTS; i++)
        pl_out_f(t->o,
                 "%s$p%zu using 1:2:1:3:($2-0.4):($2+0.4) with boxxyerror fillstyle solid 1 "
                 "noborder lc rgb '%s' notitle",
                 i ? ", \\\n  " : "", i, pl_figure_phase((enum pl_metric)i)->colour);
    pl_out_text(t->o, "\nunset label\n");
}

/* Arms with spans, and the width of their names. */
static enum pl_status find_arms(struct sheet *t)
{
    struct pl_lane_span s[PL_SPANS_MAX];
    int names = 0;

    for (uint32_t a = 0; a < t->d->shape.arms; a++) {
        uint32_t n = 0;
        for (uint32_t c = 0; c < t->d->shape.contexts && !n; c++) {
            const enum pl_status st = spans_of(t->d, a, c, 0, s, &n, &t->o->err);
            if (st != PL_OK)
                return st;
        }
        if (!n)
            continue;
        for (uint32_t i = 0; i < n; i++)
            for (size_t k = 0; k < N_PARTS; k++)
                t->seen[k] |= s[i].kind == k;
        const int px = pl_figure_name_px(t->d->arms[a]);
        names = px > names ? px : names;
        t->arms[t->n_arms++] = a;
    }
    t->left = names + 20 + LANE_PX;
    t->width = t->left + PLOT_PX + RIGHT_PX;
    return PL_OK;
}

static void draw(struct sheet *t, struct pl_figure *f)
{
    const uint32_t contexts =
        t->d->shape.contexts < CONTEXTS_MAX ? t->d->shape.contexts : CONTEXTS_MAX;
    const uint32_t samples = contexts == 1 && t->d->shape.samples > 1 ? 2 : 1;
    const int rows = (int)((row_of(t->n_arms - 1, 1) + 1) * ROW_PX);
    struct pl_legend legend[N_PARTS] = {{.point = 0}};
    size_t n = 0;

    for (size_t i = 0; i < N_PARTS; i++)
        if (t->seen[i])
            legend[n++] = *pl_figure_phase((enum pl_metric)i);
    int top = TOP_PX + PL_LEGEND_ROW_PX * pl_figure_legend_rows(legend, n, t->width);
    t->height = top + 10 + (int)(contexts * samples) * (PANEL_TOP_PX + rows + PANEL_BOTTOM_PX);
    f->width = t->width;
    f->height = t->height;
    pl_out_f(t->o,
             "set multiplot\nset border 1 lc rgb '#555555'\nset tics nomirror textcolor rgb "
             "'black'\nunset key\nset format x '%%g'\nset grid xtics lc rgb '#C8C8C8' lw 0.6 lt 1\n"
             "set lmargin at screen %.6f\nset rmargin at screen %.6f\n",
             (double)t->left / t->width, 1 - (double)RIGHT_PX / t->width);
    pl_figure_title(t->d, "What both lanes did when, by their own clocks", t->height, t->o);
    pl_figure_legend(legend, n, 5, 42, t->width, t->height, t->o);
    for (uint32_t c = 0; c < contexts; c++)
        for (uint32_t i = 0; i < samples; i++) {
            top += PANEL_TOP_PX;
            panel(t, c, i, top, c + 1 == contexts && i + 1 == samples);
            top += rows + PANEL_BOTTOM_PX;
        }
    pl_out_text(t->o, "unset multiplot\n");
}

void pl_figure_timeline(const struct pl_dataset *d, struct pl_figure *f)
{
    struct sheet t = {.d = d, .o = &f->body, .arms = calloc(d->shape.arms, sizeof(uint32_t))};
    enum pl_status st = t.arms ? PL_OK : pl_fail(&f->body.err, PL_ENOMEM, "the timeline");

    if (st == PL_OK && d->drafts)
        st = find_arms(&t);
    if (st == PL_OK && t.n_arms)
        draw(&t, f);
    if (st != PL_OK)
        f->body.st = st;
    free(t.arms);
}
