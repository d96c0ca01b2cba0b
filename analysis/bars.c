#include "analysis/bars.h"

#include "analysis/table.h"

#include <math.h>
#include <stdio.h>

#define BAR_PX 20
#define PLOT_PX 640
#define TOP_PX 40 /* and the legend */
#define PANEL_TOP_PX 30
#define PANEL_BOTTOM_PX 34
#define LAST_PX 24 /* the axis label */

static double total(const struct pl_bars *c, const struct pl_bars_panel *p, size_t bar)
{
    double sum = 0;
    for (size_t i = 0; i < c->n_parts; i++)
        sum += p->values[bar * c->n_parts + i];
    return sum;
}

static double most_of(const struct pl_bars *c, const struct pl_bars_panel *panels, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t b = 0; b < panels[i].bars; b++)
            most =
                fmax(most, fmax(total(c, &panels[i], b), panels[i].high ? panels[i].high[b] : 0));
    return most;
}

static void data(const struct pl_bars *c, const struct pl_bars_panel *p)
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

static void draw_panel(const struct pl_bars *c, const struct pl_bars_panel *p, int top, bool last)
{
    const int bottom = top + (int)p->bars * BAR_PX;
    const double most = fmax(most_of(c, p, 1), c->line);
    const double end = c->axis_max > 0 ? c->axis_max : most > 0 ? most * 1.16 : 1;

    data(c, p);
    pl_out_f(c->o, "set tmargin at screen %.6f\nset bmargin at screen %.6f\n",
             1 - (double)top / c->height, 1 - (double)bottom / c->height);
    pl_out_f(c->o, "set yrange [%.9g:-0.5]\nset xrange [0:%.9g]\n", (double)p->bars - 0.5, end);
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
    if (c->line > 0)
        pl_out_f(c->o,
                 "set arrow 1 from %.9g, graph 0 to %.9g, graph 1 nohead linecolor rgb '#555555' "
                 "linewidth 1.5 front\n",
                 c->line, c->line);
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

void pl_bars_draw(const struct pl_dataset *d, struct pl_bars *c, const struct pl_bars_panel *panels,
                  size_t n, struct pl_figure *f)
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

void pl_bars_context_title(const struct pl_dataset *d, uint32_t context, struct pl_bars_panel *p)
{
    char text[PL_CONTEXT_TEXT];
    pl_context_text(pl_reader_context(d->reader, context), text);
    snprintf(p->title, sizeof p->title, "%s", text);
}
