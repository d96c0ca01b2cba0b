/* Curves of what happens in a round: acceptance by position, and what a verification costs. */
#include "analysis/figure.h"
#include "analysis/table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define PLOT_PX 620
#define PANEL_PX 240
#define LEFT_PX 80
#define RIGHT_PX 24
#define TOP_PX 40 /* and the legend */
#define PANEL_TOP_PX 30
#define PANEL_BOTTOM_PX 44
#define LAST_PX 10
#define WIDTH_PX (LEFT_PX + PLOT_PX + RIGHT_PX)
#define LEGEND_MAX 64
#define X_MAX 64
#define RATE_STEPS 50 /* of an axis from 0 to 100 % */

/* A curve an arm, a panel a context. */
struct curves {
    const struct pl_dataset *d;
    /* y at x (1 … X_MAX) of an arm at a context, NaN: none */
    double (*get)(const struct pl_dataset *d, uint32_t arm, uint32_t context, unsigned x);
    const char *title, *xlabel, *ylabel;
    double y_max; /* 0: of the data */
    bool guides;  /* dotted: y = 1 and y = x */
    /* NULL, or: x is the acceptance rate, in 50 steps; a dotted curve, and one point, % and y */
    double (*ideal)(const struct pl_dataset *d, uint32_t arm, uint32_t context, unsigned x);
    bool (*point)(const struct curves *c, uint32_t arm, uint32_t context, double *x,
                  struct pl_ratio *y);
    /* NULL, or: half of the 95 % interval of get's y, NaN: not known (a hollow point) */
    double (*spread)(const struct pl_dataset *d, uint32_t arm, uint32_t context, unsigned x);
    const struct pl_speedups *s; /* of point */
    struct pl_legend legend[LEGEND_MAX];
    uint32_t arms[LEGEND_MAX];
    size_t n_arms;
};

static bool has_curve(const struct curves *c, uint32_t arm)
{
    for (uint32_t i = 0; i < c->d->shape.contexts; i++)
        for (unsigned x = 1; x <= X_MAX; x++)
            if (!isnan(c->get(c->d, arm, i, x)))
                return true;
    return false;
}

/* Colours, then the same with other marks. */
static void find_arms(struct curves *c)
{
    for (uint32_t a = 0; a < c->d->shape.arms && c->n_arms < LEGEND_MAX; a++) {
        struct pl_legend *l = &c->legend[c->n_arms];
        if (!has_curve(c, a))
            continue;
        pl_figure_shorten(c->d->arms[a], l->text, sizeof l->text);
        l->colour = pl_figure_colour(c->n_arms);
        l->point = pl_figure_point(c->n_arms);
        c->arms[c->n_arms++] = a;
    }
}

static void draw_rates(const struct curves *c, uint32_t context, struct pl_out *o)
{
    for (size_t i = 0; i < c->n_arms; i++) {
        double x = NAN;
        struct pl_ratio y;
        pl_out_f(o, "$m%zu << EOD\n", i);
        if (!c->point(c, c->arms[i], context, &x, &y))
            pl_out_text(o, "NaN NaN NaN NaN\nEOD\n");
        else
            pl_out_f(o, "%.9g %.9g %.9g %.9g\nEOD\n", x, y.speedup,
                     isnan(y.ci_low) ? y.speedup : y.ci_low,
                     isnan(y.ci_high) ? y.speedup : y.ci_high);
        pl_out_f(o, "$a%zu << EOD\n", i);
        for (unsigned k = 0; k <= RATE_STEPS; k++) {
            const double v = c->get(c->d, c->arms[i], context, k);
            const double ideal = c->ideal(c->d, c->arms[i], context, k);
            if (isnan(v) || isnan(ideal))
                pl_out_text(o, "NaN NaN NaN\n");
            else
                pl_out_f(o, "%.9g %.9g %.9g\n", 100.0 * k / RATE_STEPS, v, ideal);
        }
        pl_out_text(o, "EOD\n");
    }
    pl_out_text(o, "set xrange [0:103]\nset yrange [*:*]\nplot 1 with lines lw 1 dt 3 lc rgb "
                   "'#555555' notitle");
    for (size_t i = 0; i < c->n_arms; i++) {
        const char *colour = c->legend[i].colour;
        pl_out_f(o,
                 ", \\\n  $a%zu using 1:2 with lines lw 1.6 lc rgb '%s' notitle, \\\n  $a%zu using "
                 "1:3 with lines lw 1.2 dt 2 lc rgb '%s' notitle, \\\n  $m%zu using 1:2:3:4 with "
                 "yerrorbars pt %d ps 1.1 lw 1.2 lc rgb '%s' notitle",
                 i, colour, i, colour, i, c->legend[i].point, colour);
    }
    pl_out_text(o, "\nunset label\n");
}

static void draw_panel(const struct curves *c, uint32_t context, struct pl_out *o)
{
    double most = 0;
    unsigned last = 1;

    for (size_t i = 0; i < c->n_arms; i++) {
        bool any = false;
        pl_out_f(o, "$a%zu << EOD\n", i);
        for (unsigned x = 1; x <= X_MAX; x++) {
            const double y = c->get(c->d, c->arms[i], context, x);
            if (isnan(y))
                continue;
            const double spread = c->spread ? c->spread(c->d, c->arms[i], context, x) : 0;
            if (isnan(spread)) /* x, y, y of a filled point, half its interval, y of a hollow one */
                pl_out_f(o, "%u %.9g NaN NaN %.9g\n", x, y, y);
            else
                pl_out_f(o, "%u %.9g %.9g %.9g NaN\n", x, y, y, spread);
            most = fmax(most, isnan(spread) ? y : y + spread);
            last = x > last ? x : last;
            any = true;
        }
        pl_out_text(o, any ? "EOD\n" : "NaN NaN NaN NaN NaN\nEOD\n");
    }
    pl_out_f(o, "set xrange [0.5:%u.5]\nset xtics %u\nset yrange [0:%.9g]\n", last,
             last > 40   ? 8
             : last > 20 ? 4
             : last > 10 ? 2
                         : 1,
             c->y_max > 0 ? c->y_max
             : most > 0   ? most * 1.08
                          : 1);
    pl_out_text(o, "plot ");
    if (c->guides)
        pl_out_text(o, "1 with lines lw 1 dt 3 lc rgb '#555555' notitle, \\\n  x with lines lw 1 "
                       "dt 3 lc rgb '#555555' notitle, \\\n  ");
    for (size_t i = 0; i < c->n_arms; i++) {
        const char *colour = c->legend[i].colour;
        const int point = c->legend[i].point;
        if (c->spread) /* gnuplot's hollow points stand before the filled ones */
            pl_out_f(o,
                     "%s$a%zu using 1:2 with lines lw 1.5 lc rgb '%s' notitle, \\\n  $a%zu using "
                     "1:3:4 with yerrorbars pt %d ps 0.6 lw 1 lc rgb '%s' notitle, \\\n  $a%zu "
                     "using 1:5 with points pt %d ps 0.6 lc rgb '%s' notitle",
                     i ? ", \\\n  " : "", i, colour, i, point, colour, i, point - 1, colour);
        else
            pl_out_f(o,
                     "%s$a%zu using 1:2 with linespoints pt %d ps 0.6 lw 1.5 lc rgb '%s' notitle",
                     i ? ", \\\n  " : "", i, point, colour);
    }
    pl_out_text(o, "\nunset label\n");
}

static void draw(struct curves *c, struct pl_figure *f)
{
    const uint32_t contexts = c->d->shape.contexts;
    struct pl_out *o = &f->body;

    find_arms(c);
    if (!c->n_arms)
        return;
    int top = TOP_PX + PL_LEGEND_ROW_PX * pl_figure_legend_rows(c->legend, c->n_arms, WIDTH_PX);
    f->width = WIDTH_PX;
    f->height = top + LAST_PX + (int)contexts * (PANEL_TOP_PX + PANEL_PX + PANEL_BOTTOM_PX);
    pl_out_f(o,
             "set multiplot\nset border 3 lc rgb '#555555'\nset tics nomirror textcolor rgb "
             "'black'\nunset key\nset format '%%g'\nset grid lc rgb '#C8C8C8' lw 0.6 lt 1\n"
             "set lmargin at screen %.6f\nset rmargin at screen %.6f\nset ylabel '%s'\n",
             (double)LEFT_PX / WIDTH_PX, 1 - (double)RIGHT_PX / WIDTH_PX, c->ylabel);
    pl_figure_title(c->d, c->title, f->height, o);
    pl_figure_legend(c->legend, c->n_arms, 7, 42, f->width, f->height, o);
    for (uint32_t i = 0; i < contexts; i++) {
        char text[PL_CONTEXT_TEXT];
        pl_context_text(pl_reader_context(c->d->reader, i), text);
        top += PANEL_TOP_PX;
        pl_out_f(o,
                 "set tmargin at screen %.6f\nset bmargin at screen %.6f\nset title '%s' offset "
                 "0,-0.6\nset xlabel '%s' offset 0,0.4\n",
                 1 - (double)top / f->height, 1 - (double)(top + PANEL_PX) / f->height, text,
                 c->xlabel);
        if (c->point)
            draw_rates(c, i, o);
        else
            draw_panel(c, i, o);
        top += PANEL_PX + PANEL_BOTTOM_PX;
    }
    pl_out_text(o, "unset multiplot\n");
}

static double accepted_at(const struct pl_dataset *d, uint32_t arm, uint32_t context, unsigned x)
{
    const struct pl_draft_cell *c = pl_drafts_cell(d, arm, context);
    if (!c || x > PL_DRAFT_POSITIONS || !c->drafted_at[x - 1])
        return NAN;
    return 100 * (double)c->accepted_at[x - 1] / (double)c->rounds;
}

void pl_figure_position(const struct pl_dataset *d, struct pl_figure *f)
{
    struct curves c = {.d = d,
                       .get = accepted_at,
                       .title = "Rounds that accepted the token at a position of the draft",
                       .xlabel = "position in the draft",
                       .ylabel = "% of rounds",
                       .y_max = 104};
    draw(&c, f);
}

static double verify_at(const struct pl_dataset *d, uint32_t arm, uint32_t context, unsigned x)
{
    if (!pl_drafts_baseline(d, arm))
        return NAN;
    return pl_drafts_verify_all(d, arm, context, x).mean / pl_drafts_step(d, arm, context).step;
}

/* Of fewer rounds an interval would say more of them than of the cost. */
#define VERIFY_ROUNDS_MIN 5

static double verify_spread(const struct pl_dataset *d, uint32_t arm, uint32_t context, unsigned x)
{
    const struct pl_verify_cost v = pl_drafts_verify_all(d, arm, context, x);
    if (v.n < VERIFY_ROUNDS_MIN)
        return NAN;
    if (isnan(v.sd)) /* a decode step */
        return 0;
    return pl_t975(v.n - 1) * v.sd / sqrt((double)v.n) / pl_drafts_step(d, arm, context).step;
}

void pl_figure_verify_cost(const struct pl_dataset *d, struct pl_figure *f)
{
    struct curves c = {.d = d,
                       .get = verify_at,
                       .spread = verify_spread,
                       .title = "A verification, in decode steps of the baseline",
                       .xlabel = "tokens verified at once (1: a decode step)",
                       .ylabel = "decode steps",
                       .guides = true};
    draw(&c, f);
}

/* The model of accept_to_speedup at k / RATE_STEPS of the drafted tokens; ideal: a verification for
 * the price of a step. */
static double model_at(const struct pl_dataset *d, uint32_t arm, uint32_t context, unsigned k,
                       bool ideal)
{
    const struct pl_draft_cell *c = pl_drafts_cell(d, arm, context);
    const struct pl_draft_base b = pl_drafts_base(d, arm, context);
    const double n = (double)pl_dataset_cell(d, arm, context)->n;
    if (!c || k > RATE_STEPS)
        return NAN;
    const double rounds = (double)c->rounds / n;
    const double verify = ideal ? rounds * b.step : c->verify_us / 1e3 / n;
    return pl_drafts_model(b.ttft, b.step, verify, b.tokens - 1,
                           (double)c->drafted / n * k / RATE_STEPS, rounds);
}

static double measured_verify(const struct pl_dataset *d, uint32_t arm, uint32_t context,
                              unsigned k)
{
    return model_at(d, arm, context, k, false);
}

static double ideal_verify(const struct pl_dataset *d, uint32_t arm, uint32_t context, unsigned k)
{
    return model_at(d, arm, context, k, true);
}

static bool measured(const struct curves *c, uint32_t arm, uint32_t context, double *x,
                     struct pl_ratio *y)
{
    const struct pl_draft_cell *cell = pl_drafts_cell(c->d, arm, context);
    const struct pl_speedup *s = pl_speedups_find(c->s, arm, context, PL_METRIC_E2E);
    if (!cell || !cell->drafted || !s || isnan(s->ratio.speedup))
        return false;
    *x = 100 * (double)cell->accepted / (double)cell->drafted;
    *y = s->ratio;
    return true;
}

void pl_figure_accept_to_speedup(const struct pl_dataset *d, const struct pl_speedups *s,
                                 struct pl_figure *f)
{
    struct curves c = {.d = d,
                       .s = s,
                       .get = measured_verify,
                       .title = "What acceptance would buy",
                       .xlabel = "% of drafted tokens accepted",
                       .ylabel = "speedup (× baseline)",
                       .ideal = ideal_verify,
                       .point = measured};
    draw(&c, f);
}
