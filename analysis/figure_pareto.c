/* Quality against KV kept: a curve a pruning method, at the longest context that was measured. */
#include "analysis/figure.h"
#include "analysis/pruned.h"
#include "base/json.h"
#include "results/quality.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH_PX 920
#define PLOT_PX 340
#define LEFT_PX 84
#define RIGHT_PX 28
#define BOTTOM_PX 58
#define TOP_PX 52 /* and the legend */
#define METHODS_MAX 16
#define POINTS_MAX 256

struct point {
    size_t method;
    double kept, value, low, high;
};

struct pareto {
    const char *methods[METHODS_MAX];
    size_t n_methods;
    struct point points[POINTS_MAX];
    size_t n;
    double base; /* the baseline's; NaN: not measured */
    uint32_t metric, context;
    bool paired; /* whiskers are of differences from the baseline */
};

static size_t method_of(struct pareto *p, const char *name)
{
    for (size_t i = 0; i < p->n_methods; i++)
        if (strcmp(p->methods[i], name) == 0)
            return i;
    if (p->n_methods == METHODS_MAX)
        return METHODS_MAX;
    p->methods[p->n_methods] = name;
    return p->n_methods++;
}

/* 95 % of what the arm loses to its baseline, about its own point: texts differ much more among
 * themselves than arms do. Where there are no pairs, its own interval. */
static void whiskers(const struct pl_dataset *d, uint32_t arm, struct pareto *p, struct point *v)
{
    const bool geometric =
        pl_quality_geometric(pl_quality_parse(pl_reader_metric(d->reader, p->metric)));
    struct pl_beside b;

    if (pl_quality_beside(d, arm, p->context, p->metric, &b)) {
        v->low = geometric ? v->value * b.low / b.value : v->value + b.low - b.value;
        v->high = geometric ? v->value * b.high / b.value : v->value + b.high - b.value;
        p->paired = true;
    } else {
        pl_cell_quality_interval(d, pl_dataset_cell(d, arm, p->context), p->metric, &v->low,
                                 &v->high);
    }
    if (isnan(v->low))
        v->low = v->high = v->value;
}

static void gather(const struct pl_dataset *d, struct pareto *p)
{
    for (uint32_t a = 0; a < d->shape.arms && p->n < POINTS_MAX; a++) {
        const struct pl_cell *c = pl_dataset_cell(d, a, p->context);
        const json_t *prune = json_object_get(pl_reader_arm_json(d->reader, a), "prune");
        struct point v = {.value = pl_cell_quality(d, c, p->metric, NULL)};
        if (!pl_arm_prunes(d, a) || d->baseline[a] == a || isnan(v.value) || !(c->kv[0].full > 0))
            continue;
        v.method = method_of(p, pl_json_get_str(prune, "method", "?"));
        v.kept = 100 * c->kv[0].lengths / c->kv[0].full;
        whiskers(d, a, p, &v);
        if (v.method == METHODS_MAX)
            continue;
        p->points[p->n++] = v;
        p->base =
            pl_cell_quality(d, pl_dataset_cell(d, d->baseline[a], p->context), p->metric, NULL);
    }
}

static int by_kept(const void *x, const void *y)
{
    const struct point *a = x, *b = y;

    return a->method != b->method ? (a->method < b->method ? -1 : 1)
                                  : (a->kept > b->kept) - (a->kept < b->kept);
}

/* The first metric of the list that two points have, at the longest context that has them. */
static bool find(const struct pl_dataset *d, struct pareto *p)
{
    for (uint32_t m = 0; m < d->shape.metrics; m++)
        for (uint32_t c = d->shape.contexts; c-- > 0;) {
            *p = (struct pareto){.base = NAN, .metric = m, .context = c};
            gather(d, p);
            if (p->n > 1)
                return true;
        }
    return false;
}

static void draw(const struct pareto *p, struct pl_out *o)
{
    double low = p->points[0].low, high = p->points[0].high;

    for (size_t i = 0; i < p->n; i++) {
        low = fmin(low, p->points[i].low);
        high = fmax(high, p->points[i].high);
        if (i == 0 || p->points[i].method != p->points[i - 1].method)
            pl_out_f(o, "$m%zu << EOD\n", p->points[i].method);
        pl_out_f(o, "%.9g %.9g %.9g %.9g\n", p->points[i].kept, p->points[i].value,
                 p->points[i].low, p->points[i].high);
        if (i + 1 == p->n || p->points[i].method != p->points[i + 1].method)
            pl_out_text(o, "EOD\n");
    }
    if (isfinite(p->base)) {
        low = fmin(low, p->base);
        high = fmax(high, p->base);
    }
    const double room = high > low ? 0.06 * (high - low) : 0.01;
    pl_out_f(o, "set xrange [0:103]\nset yrange [%.9g:%.9g]\n", low - room, high + room);
    pl_out_text(o, "plot ");
    if (isfinite(p->base))
        pl_out_f(o, "%.9g with lines lw 1 dt 3 lc rgb '#555555' notitle, \\\n  ", p->base);
    for (size_t m = 0; m < p->n_methods; m++)
        pl_out_f(o,
                 "%s$m%zu using 1:2 with lines lw 1.4 lc rgb '%s' notitle, \\\n  $m%zu using "
                 "1:2:3:4 with yerrorbars pt %d ps 0.8 lw 0.9 lc rgb '%s' notitle",
                 m ? ", \\\n  " : "", m, pl_figure_colour(m), m, pl_figure_point(m),
                 pl_figure_colour(m));
    pl_out_text(o, "\n");
}

void pl_figure_pareto(const struct pl_dataset *d, struct pl_figure *f)
{
    struct pareto *p = malloc(sizeof *p);
    struct pl_legend legend[METHODS_MAX] = {{.point = 0}};
    char context[PL_CONTEXT_TEXT], title[160];

    if (!p || !find(d, p)) {
        free(p);
        return;
    }
    qsort(p->points, p->n, sizeof p->points[0], by_kept);
    for (size_t i = 0; i < p->n_methods; i++) {
        legend[i].colour = pl_figure_colour(i);
        legend[i].point = pl_figure_point(i);
        pl_figure_shorten(p->methods[i], legend[i].text, sizeof legend[i].text);
    }
    const char *metric = pl_reader_metric(d->reader, p->metric);
    const int rows = pl_figure_legend_rows(legend, p->n_methods, WIDTH_PX);
    const int top = TOP_PX + PL_LEGEND_ROW_PX * rows;
    f->width = WIDTH_PX;
    f->height = top + PLOT_PX + BOTTOM_PX;
    pl_out_f(&f->body,
             "set border 3 lc rgb '#555555'\nset tics nomirror textcolor rgb 'black'\nunset key\n"
             "set format '%%g'\nset grid lc rgb '#C8C8C8' lw 0.6 lt 1\nset tmargin at screen %.6f\n"
             "set bmargin at screen %.6f\nset lmargin at screen %.6f\nset rmargin at screen %.6f\n"
             "set xlabel 'KV kept, %% of layers · prompt' offset 0,0.4\nset ylabel '%s (%s is "
             "better)' noenhanced offset -0.6,0\n",
             1 - (double)top / f->height, (double)BOTTOM_PX / f->height, (double)LEFT_PX / WIDTH_PX,
             1 - (double)RIGHT_PX / WIDTH_PX, metric,
             pl_quality_more_is_better(pl_quality_parse(metric)) ? "more" : "less");
    pl_context_text(pl_reader_context(d->reader, p->context), context);
    snprintf(title, sizeof title,
             "Quality against KV kept, %s; dotted: the baseline; whiskers: 95 %% of %s", context,
             p->paired ? "what is lost to it" : "the mean");
    pl_figure_title(d, title, f->height, &f->body);
    pl_figure_legend(legend, p->n_methods, 7, 42, WIDTH_PX, f->height, &f->body);
    draw(p, &f->body);
    free(p);
}
