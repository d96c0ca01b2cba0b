/* Speedup over prompt length: a curve an arm that prunes, with its interval as a band, beside what
 * its work alone would allow; prefill and end to end. */
#include "analysis/figure.h"
#include "analysis/pruned.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define PANEL_PX 420
#define PLOT_PX 330
#define LEFT_PX 76
#define BETWEEN_PX 62
#define RIGHT_PX 26
#define BOTTOM_PX 58
#define TOP_PX 66 /* and the legend */
#define CURVES_MAX 12

struct curves {
    const struct pl_dataset *d;
    const struct pl_speedups *s;
    uint32_t arm[CURVES_MAX];
    size_t n;
};

struct panel {
    const char *label;
    bool whole; /* end to end, else prefill */
};

/* Whether p is a point of the arm at a length, and its numbers. */
static bool point(const struct curves *c, const struct panel *panel, uint32_t arm,
                  const struct pl_pruned *p, double *length, double v[4])
{
    const struct pl_ratio *r = panel->whole ? &p->e2e : &p->prefill;

    *length = (double)pl_reader_context(c->d->reader, p->context);
    v[0] = r->speedup;
    v[1] = isnan(r->ci_low) ? v[0] : r->ci_low;
    v[2] = isnan(r->ci_high) ? v[0] : r->ci_high;
    v[3] = panel->whole ? p->ideal_e2e : p->ideal_prefill;
    return p->arm == arm && *length > 0 && isfinite(v[0]);
}

static size_t points_of(const struct curves *c, const struct panel *panel, uint32_t arm)
{
    struct pl_pruned p;
    double length, v[4];
    size_t n = 0;

    for (size_t i = 0; pl_pruned_get(c->d, c->s, i, &p); i++)
        n += point(c, panel, arm, &p, &length, v);
    return n;
}

/* $aK: length, speedup, its interval; $iK: length, ideal. */
static void curve(const struct curves *c, const struct panel *panel, size_t k, double *low,
                  double *high, struct pl_out *o)
{
    struct pl_pruned p;
    double length, v[4];

    pl_out_f(o, "$a%zu << EOD\n", k);
    for (size_t i = 0; pl_pruned_get(c->d, c->s, i, &p); i++)
        if (point(c, panel, c->arm[k], &p, &length, v)) {
            pl_out_f(o, "%.9g %.9g %.9g %.9g\n", length, v[0], v[1], v[2]);
            *low = fmin(*low, v[1]);
            *high = fmax(*high, v[2]);
        }
    pl_out_f(o, "EOD\n$i%zu << EOD\nNaN NaN\n", k);
    for (size_t i = 0; pl_pruned_get(c->d, c->s, i, &p); i++)
        if (point(c, panel, c->arm[k], &p, &length, v) && isfinite(v[3])) {
            pl_out_f(o, "%.9g %.9g\n", length, v[3]);
            *low = fmin(*low, v[3]);
            *high = fmax(*high, v[3]);
        }
    pl_out_text(o, "EOD\n");
}

static void draw(const struct curves *c, const struct panel *panel, int index, int width,
                 struct pl_out *o)
{
    const int x = LEFT_PX + index * (PANEL_PX + BETWEEN_PX);
    double low = 1, high = 1;

    for (size_t k = 0; k < c->n; k++)
        curve(c, panel, k, &low, &high, o);
    low = fmax(low, 0.02); /* an interval from two prompts may be huge: it is drawn to the edge */
    high = fmin(high, 50);
    const double room = high > low ? 0.06 * (high - low) : 0.01;
    pl_out_f(o,
             "set lmargin at screen %.6f\nset rmargin at screen %.6f\nset title '%s' offset "
             "0,-0.4\nset yrange [%.9g:%.9g]\n",
             (double)x / width, (double)(x + PANEL_PX) / width, panel->label, low - room,
             high + room);
    pl_out_text(o, "plot 1 with lines lw 1.5 lc rgb '#555555' notitle");
    for (size_t k = 0; k < c->n; k++)
        pl_out_f(o,
                 ", \\\n  $a%zu using 1:3:4 with filledcurves fc rgb '%s' fs transparent solid "
                 "0.2 noborder notitle",
                 k, pl_figure_colour(k));
    for (size_t k = 0; k < c->n; k++)
        pl_out_f(o,
                 ", \\\n  $i%zu using 1:2 with lines lw 1.2 dt 2 lc rgb '%s' notitle, \\\n  $a%zu "
                 "using 1:2 with linespoints pt 7 ps 0.5 lw 1.6 lc rgb '%s' notitle",
                 k, pl_figure_colour(k), k, pl_figure_colour(k));
    pl_out_text(o, "\n");
}

/* The lengths that were measured, as tics of a log axis. */
static void length_axis(const struct pl_dataset *d, struct pl_out *o)
{
    const char *comma = "";
    double low = INFINITY, high = 1;

    pl_out_text(o, "set logscale x 2\nset xtics (");
    for (uint32_t c = 0; c < d->shape.contexts; c++) {
        const int64_t n = pl_reader_context(d->reader, c);
        if (n <= 0)
            continue;
        low = fmin(low, (double)n);
        high = fmax(high, (double)n);
        if (n % 1024 == 0)
            pl_out_f(o, "%s'%" PRId64 "K' %" PRId64, comma, n / 1024, n);
        else
            pl_out_f(o, "%s'%" PRId64 "' %" PRId64, comma, n, n);
        comma = ", ";
    }
    pl_out_f(o, ")\nset xrange [%.9g:%.9g]\nset xlabel 'prompt tokens' offset 0,0.4\n", low / 1.06,
             high * 1.06);
}

void pl_figure_length(const struct pl_dataset *d, const struct pl_speedups *s, struct pl_figure *f)
{
    static const struct panel panels[] = {{"prefill", false}, {"end to end", true}};
    const int n = d->prefill_mode ? 1 : 2,
              width = LEFT_PX + n * PANEL_PX + (n - 1) * BETWEEN_PX + RIGHT_PX;
    struct curves c = {.d = d, .s = s};
    struct pl_legend legend[CURVES_MAX] = {{.point = 0}};

    for (uint32_t a = 0; a < d->shape.arms && c.n < CURVES_MAX; a++) {
        if (points_of(&c, &panels[0], a) < 2)
            continue;
        legend[c.n].colour = pl_figure_colour(c.n);
        pl_figure_shorten(d->arms[a], legend[c.n].text, sizeof legend[c.n].text);
        c.arm[c.n++] = a;
    }
    if (!c.n)
        return;
    const int top = TOP_PX + PL_LEGEND_ROW_PX * pl_figure_legend_rows(legend, c.n, width);
    f->width = width;
    f->height = top + PLOT_PX + BOTTOM_PX;
    pl_out_f(&f->body,
             "set multiplot\nset border 3 lc rgb '#555555'\nset tics nomirror textcolor rgb "
             "'black'\nunset key\nset format y '%%g'\nset grid lc rgb '#C8C8C8' lw 0.6 lt 1\n"
             "set tmargin at screen %.6f\nset bmargin at screen %.6f\n"
             "set ylabel 'speedup (× baseline)' offset 0.2,0\n",
             1 - (double)top / f->height, (double)BOTTOM_PX / f->height);
    length_axis(d, &f->body);
    pl_figure_title(d,
                    n == 1 ? "Speedup over length, 95 % bands; dashed: what the work allows"
                           : "Speedup over length, 95 % bands; dashed: what the work alone would "
                             "allow",
                    f->height, &f->body);
    pl_figure_legend(legend, c.n, 7, 42, width, f->height, &f->body);
    for (int i = 0; i < n; i++) {
        draw(&c, &panels[i], i, width, &f->body);
        pl_out_text(&f->body, "unset label\nunset ylabel\n");
    }
    pl_out_text(&f->body, "unset multiplot\n");
}
