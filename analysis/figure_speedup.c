/* Intervals of the speedup: a panel a metric, a band of rows an arm, a row a context. */
#include "analysis/figure.h"
#include "analysis/table.h"

#include <math.h>
#include <stdio.h>

#define ROW_PX 15
#define GAP_PX 8  /* between arms */
#define TOP_PX 66 /* and the legend */
#define BOTTOM_PX 58
#define PANEL_PX 280
#define BETWEEN_PX 26
#define RIGHT_PX 24

#define LEGEND_MAX 32

struct panel {
    enum pl_metric metric;
    const char *label;
    double low, high; /* of what is drawn */
};

struct picture {
    const struct pl_dataset *d;
    const struct pl_speedups *s;
    struct pl_out *o;
    int left, top, width, height, panel; /* px; panel: the width of one */
    size_t arms;
};

static bool has_rows(const struct pl_speedups *s, enum pl_metric m)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->rows[i].metric == m && s->rows[i].n)
            return true;
    return false;
}

static void range(const struct picture *p, struct panel *panel)
{
    panel->low = 1 - p->d->delta;
    panel->high = 1 + p->d->delta;
    for (size_t i = 0; i < p->s->n; i++) {
        const struct pl_speedup *r = &p->s->rows[i];
        if (r->metric != panel->metric || !r->n)
            continue;
        panel->low = fmin(panel->low, fmin(r->ratio.speedup, r->ratio.ci_low));
        panel->high = fmax(panel->high, fmax(r->ratio.speedup, r->ratio.ci_high));
    }
    /* an interval from two prompts may be huge: it is drawn to the edge */
    panel->low = fmax(panel->low, 0.02);
    panel->high = fmin(panel->high, 50);
}

/* Position of an arm's band from the top, in rows. */
static double row_of(const struct picture *p, size_t band, uint32_t context)
{
    const double gap = (double)GAP_PX / ROW_PX;
    return (double)band * ((double)p->d->shape.contexts + gap) + context;
}

static void x_axis(const struct picture *p, const struct panel *panel)
{
    const bool logs = panel->high / panel->low > 4;
    const double pad = logs ? 1.08 : 0;

    if (logs)
        pl_out_f(p->o,
                 "set logscale x\nset xtics (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, "
                 "7, 10, 20, 50)\n"
                 "set xrange [%.9g:%.9g]\n",
                 panel->low / pad, panel->high * pad);
    else {
        static const double steps[] = {1, 2, 5, 10};
        const double wide = panel->high - panel->low, margin = 0.06 * wide;
        const double unit = pow(10, floor(log10(wide / 5)));
        double step = 10 * unit;
        for (int k = 3; k >= 0; k--)
            if (steps[k] * unit >= wide / 5) /* at most six tics */
                step = steps[k] * unit;
        pl_out_f(p->o, "unset logscale x\nset xtics %.9g\nset xrange [%.9g:%.9g]\n", step,
                 panel->low - margin, panel->high + margin);
    }
}

/* One context's points: verdict called → filled, else hollow. */
static void series(const struct picture *p, const struct panel *panel, uint32_t context,
                   bool called)
{
    size_t band = 0, points = 0;

    pl_out_f(p->o, "$c%u%c << EOD\n", context, called ? 'f' : 'h');
    for (uint32_t a = 0; a < p->d->shape.arms; a++) {
        if (p->d->baseline[a] == a)
            continue;
        const struct pl_speedup *r = pl_speedups_find(p->s, a, context, panel->metric);
        const size_t at = band++;
        if (!r || !r->n)
            continue;
        const bool is_called = r->ratio.ci_low > 1 || r->ratio.ci_high < 1;
        if (is_called != called)
            continue;
        const double v = r->ratio.speedup;
        const double low = isnan(r->ratio.ci_low) ? v : fmax(r->ratio.ci_low, 0.001);
        const double high = isnan(r->ratio.ci_high) ? v : fmin(r->ratio.ci_high, 1000);
        pl_out_f(p->o, "%.9g %.9g %.9g %.9g\n", v, row_of(p, at, context), low, high);
        points++;
    }
    if (!points)
        pl_out_text(p->o, "NaN NaN NaN NaN\n");
    pl_out_text(p->o, "EOD\n");
}

static void arm_labels(const struct picture *p, bool first)
{
    const char *comma = "";
    size_t band = 0;

    pl_out_text(p->o, first ? "set ytics scale 0 (" : "unset ytics\n");
    for (uint32_t a = 0; a < p->d->shape.arms && first; a++) {
        if (p->d->baseline[a] == a)
            continue;
        pl_out_text(p->o, comma);
        pl_figure_name(p->o, p->d->arms[a]);
        pl_out_f(p->o, " %.9g", row_of(p, band++, 0) + (p->d->shape.contexts - 1) / 2.0);
        comma = ", ";
    }
    pl_out_text(p->o, first ? ")\n" : "");
}

static void draw_panel(const struct picture *p, const struct panel *panel, int index)
{
    const double rows = row_of(p, p->arms - 1, p->d->shape.contexts - 1);
    const int x = p->left + index * (p->panel + BETWEEN_PX);

    for (uint32_t c = 0; c < p->d->shape.contexts; c++) {
        series(p, panel, c, true);
        series(p, panel, c, false);
    }
    x_axis(p, panel);
    arm_labels(p, index == 0);
    pl_out_f(p->o, "set lmargin at screen %.6f\nset rmargin at screen %.6f\n", (double)x / p->width,
             (double)(x + p->panel) / p->width);
    pl_out_f(p->o, "set yrange [%.9g:-0.9]\nset title '%s' offset 0,-0.4\n", rows + 0.9,
             panel->label);
    pl_out_text(p->o, "unset object\n");
    pl_out_f(p->o,
             "set object 1 rectangle from %.9g, graph 0 to %.9g, graph 1 behind fillcolor rgb "
             "'#8C8C8C' fillstyle transparent solid 0.18 noborder\n",
             1 - p->d->delta, 1 + p->d->delta);
    pl_out_text(p->o, "unset arrow\nset arrow 1 from 1, graph 0 to 1, graph 1 nohead linecolor "
                      "rgb '#555555' linewidth 1.5 back\n");
    pl_out_text(p->o, "plot ");
    for (uint32_t c = 0; c < p->d->shape.contexts; c++) {
        const char *colour = pl_figure_colour(c);
        pl_out_f(p->o,
                 "%s$c%uf using 1:2:3:4 with xerrorbars pt 7 ps 0.7 lw 1.6 lc rgb '%s' notitle, "
                 "\\\n  $c%uh using 1:2:3:4 with xerrorbars pt 6 ps 0.7 lw 1.6 lc "
                 "rgb '%s' notitle",
                 c ? ", \\\n  " : "", c, colour, c, colour);
    }
    pl_out_text(p->o, "\n");
}

void pl_figure_speedup(const struct pl_dataset *d, const struct pl_speedups *s, struct pl_figure *f)
{
    static const struct panel all[] = {{PL_METRIC_PREFILL, "prefill", 0, 0},
                                       {PL_METRIC_GENERATION, "decode", 0, 0},
                                       {PL_METRIC_E2E, "end to end", 0, 0}};
    struct picture p = {.d = d, .s = s, .o = &f->body};
    struct pl_legend legend[LEGEND_MAX] = {{.point = 0}};
    struct panel panels[3];
    char title[128];
    int n = 0, names = 0;

    for (uint32_t a = 0; a < d->shape.arms; a++)
        if (d->baseline[a] != a) {
            const int px = pl_figure_name_px(d->arms[a]);
            names = px > names ? px : names;
            p.arms++;
        }
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (has_rows(s, all[i].metric) &&
            !(d->prefill_mode && all[i].metric == PL_METRIC_PREFILL)) {
            panels[n] = all[i];
            range(&p, &panels[n++]);
        }
    if (n == 0)
        return;
    if (d->prefill_mode)
        panels[n - 1].label = "prefill";
    p.left = names + 30;
    p.panel = n == 1 ? 2 * PANEL_PX : PANEL_PX;
    p.width = p.left + n * p.panel + (n - 1) * BETWEEN_PX + RIGHT_PX;
    if (p.width < 640)
        p.width = 640;
    const size_t entries = d->shape.contexts < LEGEND_MAX ? d->shape.contexts : LEGEND_MAX;
    for (size_t c = 0; c < entries; c++) {
        char text[PL_CONTEXT_TEXT];
        legend[c].colour = pl_figure_colour(c);
        pl_context_text(pl_reader_context(d->reader, (uint32_t)c), text);
        snprintf(legend[c].text, sizeof legend[c].text, "%s", text);
    }
    p.top = TOP_PX + PL_LEGEND_ROW_PX * pl_figure_legend_rows(legend, entries, p.width);
    p.height = p.top + BOTTOM_PX + GAP_PX +
               (int)fmin(1e6, (row_of(&p, p.arms - 1, d->shape.contexts - 1) + 1) * ROW_PX);
    f->width = p.width;
    f->height = p.height;
    pl_out_f(p.o,
             "set multiplot\nset border 1 lc rgb '#555555'\nset tics nomirror textcolor rgb "
             "'black'\nunset key\n"
             "set format x '%%g'\nset grid xtics lc rgb '#C8C8C8' lw 0.6 lt 1\n"
             "set tmargin at screen %.6f\nset bmargin at screen %.6f\n"
             "set xlabel 'speedup (× baseline)' offset 0,0.4\n",
             1 - (double)p.top / p.height, (double)BOTTOM_PX / p.height);
    snprintf(title, sizeof title,
             "Speedup over the baseline, 95 %% intervals (filled: excludes 1; band: 1 ± %g)",
             d->delta);
    pl_figure_title(d, title, p.height, p.o);
    pl_figure_legend(legend, entries, 7, 42, p.width, p.height, p.o);
    for (int i = 0; i < n; i++) {
        draw_panel(&p, &panels[i], i);
        pl_out_text(p.o, "unset label\n");
    }
    pl_out_text(p.o, "unset multiplot\n");
}
