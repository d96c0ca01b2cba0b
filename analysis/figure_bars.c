/* Horizontal bars: phases of a trial and failures by reason, stacked; tokens/s with intervals. */
#include "analysis/figure.h"
#include "analysis/table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define BAR_PX 20
#define PLOT_PX 640
#define TOP_PX 40 /* and the legend */
#define PANEL_TOP_PX 30
#define PANEL_BOTTOM_PX 34
#define LAST_PX 24 /* the axis label */
#define PARTS_MAX 16

/* Values [bar][part]; a bar without any is not drawn but has its place. */
struct panel {
    char title[64];
    const char *const *names; /* [bars] */
    double *values;
    const double *low, *high; /* [bars] ends of a whisker, low 0: none; NULL: no bar has one */
    size_t bars;
};

struct chart {
    struct pl_out *o;
    const char *title, *xlabel;
    bool counts; /* whole numbers */
    const struct pl_legend *parts;
    size_t n_parts;
    int left, width, height;
};

static double total(const struct chart *c, const struct panel *p, size_t bar)
{
    double sum = 0;
    for (size_t i = 0; i < c->n_parts; i++)
        sum += p->values[bar * c->n_parts + i];
    return sum;
}

static double most_of(const struct chart *c, const struct panel *panels, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t b = 0; b < panels[i].bars; b++)
            most =
                fmax(most, fmax(total(c, &panels[i], b), panels[i].high ? panels[i].high[b] : 0));
    return most;
}

static void data(const struct chart *c, const struct panel *p)
{
    for (size_t i = 0; i < c->n_parts; i++) {
        pl_out_f(c->o, "$p%zu << EOD\n", i);
        for (size_t b = 0; b < p->bars; b++) {
            double from = 0;
            for (size_t k = 0; k < i; k++)
                from += p->values[b * c->n_parts + k];
            const double v = p->values[b * c->n_parts + i];
            pl_out_f(c->o, "%.9g %zu %.9g %.9g\n", from, b, from, from + v);
        }
        pl_out_text(c->o, "EOD\n");
    }
    if (!p->low)
        return;
    pl_out_text(c->o, "$w << EOD\n");
    for (size_t b = 0; b < p->bars; b++)
        if (p->low[b] > 0)
            pl_out_f(c->o, "%.9g %zu %.9g %.9g\n", total(c, p, b), b, p->low[b], p->high[b]);
        else
            pl_out_text(c->o, "NaN NaN NaN NaN\n");
    pl_out_text(c->o, "EOD\n");
}

static void draw_panel(const struct chart *c, const struct panel *p, int top, bool last)
{
    const int bottom = top + (int)p->bars * BAR_PX;
    const double most = most_of(c, p, 1);

    data(c, p);
    pl_out_f(c->o, "set tmargin at screen %.6f\nset bmargin at screen %.6f\n",
             1 - (double)top / c->height, 1 - (double)bottom / c->height);
    pl_out_f(c->o, "set yrange [%.9g:-0.5]\nset xrange [0:%.9g]\n", (double)p->bars - 0.5,
             most > 0 ? most * 1.16 : 1);
    pl_out_f(c->o, "set title '%s' offset 0,-0.6\nset xlabel '%s' offset 0,0.4\n", p->title,
             last ? c->xlabel : "");
    pl_out_text(c->o, "set ytics scale 0 (");
    for (size_t b = 0; b < p->bars; b++) {
        pl_out_text(c->o, b ? ", " : "");
        pl_figure_name(c->o, p->names[b]);
        pl_out_f(c->o, " %zu", b);
    }
    pl_out_text(c->o, ")\n");
    for (size_t b = 0; b < p->bars; b++) {
        char number[40];
        const double sum = total(c, p, b);
        if (sum > 0) {
            if (c->counts)
                snprintf(number, sizeof number, "%.0f", sum);
            else
                pl_format_sig(sum, number, sizeof number);
            pl_out_f(c->o, "set label %zu '%s' at %.9g, %zu left offset 0.6,0\n", b + 2, number,
                     fmax(sum, p->high ? p->high[b] : 0), b);
        }
    }
    pl_out_text(c->o, "plot ");
    for (size_t i = 0; i < c->n_parts; i++)
        pl_out_f(c->o,
                 "%s$p%zu using 1:2:3:4:($2-0.34):($2+0.34) with boxxyerror fillstyle solid 1 "
                 "noborder lc rgb '%s' notitle",
                 i ? ", \\\n  " : "", i, c->parts[i].colour);
    if (p->low)
        pl_out_text(c->o,
                    ", \\\n  $w using 1:2:3:4 with xerrorbars pt 7 ps 0 lw 1.4 lc rgb '#555555' "
                    "notitle");
    pl_out_text(c->o, "\nunset label\n");
}

/* Draws the panels one under the other; sets the figure's size. */
static void draw(const struct pl_dataset *d, struct chart *c, const struct panel *panels, size_t n,
                 struct pl_figure *f)
{
    const size_t named = c->parts[0].text[0] ? c->n_parts : 0; /* a nameless part has no legend */
    int names = 0, top;

    for (size_t i = 0; i < n; i++)
        for (size_t b = 0; b < panels[i].bars; b++) {
            const int px = pl_figure_name_px(panels[i].names[b]);
            names = px > names ? px : names;
        }
    c->left = names + 30;
    c->width = c->left + PLOT_PX + 24;
    top = TOP_PX + PL_LEGEND_ROW_PX * pl_figure_legend_rows(c->parts, named, c->width);
    c->height = top + LAST_PX;
    for (size_t i = 0; i < n; i++)
        c->height += PANEL_TOP_PX + (int)panels[i].bars * BAR_PX + PANEL_BOTTOM_PX;
    f->width = c->width;
    f->height = c->height;
    pl_out_f(c->o,
             "set multiplot\nset border 1 lc rgb '#555555'\nset tics nomirror textcolor rgb "
             "'black'\nunset key\n"
             "set format x '%%g'\nset grid xtics lc rgb '#C8C8C8' lw 0.6 lt 1\nset lmargin at "
             "screen %.6f\n"
             "set rmargin at screen %.6f\n",
             (double)c->left / c->width, (double)(c->left + PLOT_PX) / c->width);
    if (c->counts && most_of(c, panels, n) < 10)
        pl_out_text(c->o, "set xtics 1\n");
    pl_figure_title(d, c->title, c->height, c->o);
    pl_figure_legend(c->parts, named, 5, 42, c->width, c->height, c->o);
    for (size_t i = 0; i < n; i++) {
        top += PANEL_TOP_PX;
        draw_panel(c, &panels[i], top, i + 1 == n);
        top += (int)panels[i].bars * BAR_PX + PANEL_BOTTOM_PX;
    }
    pl_out_text(c->o, "unset multiplot\n");
}

/* ---- latency ---- */

static const struct {
    enum pl_metric metric;
    struct pl_legend part;
} phases[] = {
    {PL_METRIC_TOKENIZE, {"tokenize", "#B0B0B0"}}, {PL_METRIC_VISION, {"vision", "#CC79A7"}},
    {PL_METRIC_ENCODE, {"encode", "#009E73"}},     {PL_METRIC_PREFILL, {"prefill", "#0072B2"}},
    {PL_METRIC_DRAFT, {"draft", "#56B4E9"}},       {PL_METRIC_ADAPTER, {"adapter", "#6B4C9A"}},
    {PL_METRIC_VERIFY, {"verify", "#D55E00"}},     {PL_METRIC_DECODE, {"decode", "#E69F00"}},
    {PL_METRIC_WAIT, {"wait", "#8C8C8C"}}};
#define N_PHASES (sizeof phases / sizeof phases[0])

static double mean(const struct pl_dataset *d, const struct pl_cell *c, enum pl_metric m)
{
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++) {
        const double v = pl_cell_value(d, c, m, i);
        if (!isnan(v)) {
            sum += v;
            n++;
        }
    }
    return n ? sum / (double)n : 0;
}

/* all[N_PHASES + 1]: the last is what no phase claims. */
static void cell_phases(const struct pl_dataset *d, const struct pl_cell *c, double *all)
{
    double sum = 0;
    for (size_t i = 0; i < N_PHASES; i++) {
        all[i] = mean(d, c, phases[i].metric);
        sum += all[i];
    }
    const double rest = mean(d, c, PL_METRIC_E2E) - sum;
    all[N_PHASES] = rest > 0.02 * (sum + rest) ? rest : 0;
}

static void context_title(const struct pl_dataset *d, uint32_t c, struct panel *p)
{
    char text[PL_CONTEXT_TEXT];
    pl_context_text(pl_reader_context(d->reader, c), text);
    snprintf(p->title, sizeof p->title, "%s", text);
}

void pl_figure_latency(const struct pl_dataset *d, struct pl_figure *f)
{
    const size_t arms = d->shape.arms, contexts = d->shape.contexts, k = N_PHASES + 1;
    struct panel *panels = calloc(contexts, sizeof *panels);
    double *all = calloc(arms * contexts * k, sizeof *all);
    double *used = calloc(arms * contexts * k, sizeof *used);
    struct pl_legend parts[PARTS_MAX];
    struct chart chart = {
        .o = &f->body, .title = "Mean time of a trial, by phase", .xlabel = "ms", .parts = parts};

    if (!panels || !all || !used) {
        f->body.st = pl_fail(&f->body.err, PL_ENOMEM, "the latency figure");
        goto out;
    }
    for (size_t a = 0; a < arms; a++)
        for (size_t c = 0; c < contexts; c++)
            cell_phases(d, pl_dataset_cell(d, (uint32_t)a, (uint32_t)c), all + (c * arms + a) * k);
    size_t keep[PARTS_MAX];
    for (size_t i = 0; i < k; i++) {
        double sum = 0, most = 0;
        for (size_t cell = 0; cell < arms * contexts; cell++) {
            double whole = 0;
            for (size_t j = 0; j < k; j++)
                whole += all[cell * k + j];
            sum += all[cell * k + i];
            most = fmax(most, whole > 0 ? all[cell * k + i] / whole : 0);
        }
        if (!(sum > 0) || most < 0.002) /* thinner than a pixel everywhere */
            continue;
        keep[chart.n_parts] = i;
        parts[chart.n_parts++] =
            i < N_PHASES ? phases[i].part : (struct pl_legend){"not split", "#D8D8D8"};
    }
    if (chart.n_parts == 0)
        goto out;
    for (size_t c = 0; c < contexts; c++) {
        panels[c] = (struct panel){.names = (const char *const *)d->arms,
                                   .values = used + c * arms * chart.n_parts,
                                   .bars = arms};
        context_title(d, (uint32_t)c, &panels[c]);
        for (size_t a = 0; a < arms; a++)
            for (size_t i = 0; i < chart.n_parts; i++)
                panels[c].values[a * chart.n_parts + i] = all[(c * arms + a) * k + keep[i]];
    }
    draw(d, &chart, panels, contexts, f);
out:
    free(panels);
    free(all);
    free(used);
}

/* ---- performance ---- */

/* The time's interval, turned over: tokens over its ends. */
void pl_figure_performance(const struct pl_dataset *d, const struct pl_scaling *s,
                           struct pl_figure *f)
{
    const size_t arms = d->shape.arms, contexts = d->shape.contexts;
    struct panel *panels = calloc(contexts, sizeof *panels);
    double *all = calloc(3 * arms * contexts, sizeof *all);
    const struct pl_legend part = {.text = "", .colour = "#56B4E9"};
    struct chart chart = {.o = &f->body,
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
        panels[c] = (struct panel){.names = (const char *const *)d->arms,
                                   .values = at,
                                   .low = at + arms,
                                   .high = at + 2 * arms,
                                   .bars = arms};
        context_title(d, (uint32_t)c, &panels[c]);
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
        draw(d, &chart, panels, contexts, f);
out:
    free(panels);
    free(all);
}

/* ---- failures ---- */

void pl_figure_failures(const struct pl_dataset *d, struct pl_figure *f)
{
    struct pl_legend parts[PL_REASON_COUNT];
    struct panel panel = {
        .title = "all contexts", .names = (const char *const *)d->arms, .bars = d->shape.arms};
    struct chart chart = {.o = &f->body,
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
        draw(d, &chart, &panel, 1, f);
    free(values);
}
