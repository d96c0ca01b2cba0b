/* Curves over context: latency and memory side by side, a curve an arm, bands for the spread; and
 * the one against the other. */
#include "analysis/figure.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define PANEL_PX 420
#define PANEL_HEIGHT_PX 300
#define LEFT_PX 76
#define BETWEEN_PX 84 /* the second panel's axis */
#define RIGHT_PX 24
#define TOP_PX 66 /* and the legend */
#define BOTTOM_PX 58
#define CONTEXTS_MIN 3
#define LOG_FROM 30 /* most over least from which the y axis is logarithmic */
#define LEGEND_MAX 24
#define TICS_MAX 10

enum what { LATENCY, MEMORY };

struct picture {
    const struct pl_dataset *d;
    const struct pl_scaling *s;
    struct pl_out *o;
    int top, width, height;
};

static int64_t length_of(const struct picture *p, const struct pl_scaling_point *v)
{
    return pl_reader_context(p->d->reader, v->context);
}

/* False where the point does not have it. The band is the value itself where no interval is known.
 */
static bool get(const struct picture *p, const struct pl_scaling_point *v, enum what what,
                double *mid, double *low, double *high)
{
    if (length_of(p, v) <= 0)
        return false; /* a log axis has no place for it */
    if (what == MEMORY) {
        *mid = *high = v->memory_max / 1e9;
        *low = v->memory_min / 1e9;
        return v->memory_max > 0;
    }
    *mid = v->mean;
    *low = isnan(v->ci_low) ? v->mean : v->ci_low;
    *high = isnan(v->ci_high) ? v->mean : v->ci_high;
    return true;
}

/* The most contexts that one arm has a value at. */
static size_t most_points(const struct picture *p, enum what what)
{
    size_t most = 0, here = 0;
    double mid, low, high;
    for (size_t i = 0; i < p->s->n; i++) {
        if (i == 0 || p->s->points[i].arm != p->s->points[i - 1].arm)
            here = 0;
        here += get(p, &p->s->points[i], what, &mid, &low, &high);
        most = here > most ? here : most;
    }
    return most;
}

static void data(const struct picture *p, enum what what)
{
    double mid, low, high;
    for (size_t i = 0; i < p->s->n; i++) {
        const struct pl_scaling_point *v = &p->s->points[i];
        if (i == 0 || v->arm != v[-1].arm)
            pl_out_f(p->o, "$a%" PRIu32 " << EOD\n", v->arm);
        if (get(p, v, what, &mid, &low, &high))
            pl_out_f(p->o, "%" PRId64 " %.9g %.9g %.9g\n", length_of(p, v), mid, low, high);
        else
            pl_out_text(p->o, "NaN NaN NaN NaN\n");
        if (i + 1 == p->s->n || v->arm != v[1].arm)
            pl_out_text(p->o, "EOD\n");
    }
}

static void axes(const struct picture *p, enum what what)
{
    double least = INFINITY, most = 0, mid, low, high;
    int64_t first = INT64_MAX, last = 0;

    for (size_t i = 0; i < p->s->n; i++) {
        const struct pl_scaling_point *v = &p->s->points[i];
        if (!get(p, v, what, &mid, &low, &high))
            continue;
        first = length_of(p, v) < first ? length_of(p, v) : first;
        last = length_of(p, v) > last ? length_of(p, v) : last;
        least = fmin(least, low > 0 ? low : mid);
        most = fmax(most, high);
    }
    pl_out_f(p->o, "set xrange [%.9g:%.9g]\n", (double)first / 1.15, (double)last * 1.15);
    if (most / least > LOG_FROM)
        pl_out_f(p->o, "set logscale y 10\nset yrange [%.9g:%.9g]\n", least / 1.3, most * 1.3);
    else
        pl_out_f(p->o, "unset logscale y\nset yrange [0:%.9g]\n", most * 1.08);
}

static void curves(const struct picture *p)
{
    const char *comma = "plot ";
    for (int band = 1; band >= 0; band--)
        for (size_t i = 0; i < p->s->n; i++) {
            const uint32_t arm = p->s->points[i].arm;
            const char *colour = pl_figure_colour(arm);
            if (i && arm == p->s->points[i - 1].arm)
                continue;
            if (band)
                pl_out_f(p->o,
                         "%s$a%" PRIu32 " using 1:3:4 with filledcurves fillstyle transparent "
                         "solid 0.22 noborder lc rgb '%s' notitle",
                         comma, arm, colour);
            else
                pl_out_f(p->o,
                         "%s$a%" PRIu32 " using 1:2 with linespoints pt 7 ps 0.6 lw 1.6 lc rgb "
                         "'%s' notitle",
                         comma, arm, colour);
            comma = ", \\\n  ";
        }
    pl_out_text(p->o, "\n");
}

static void draw_panel(const struct picture *p, enum what what, int x, int px)
{
    const char *comma = "";

    data(p, what);
    pl_out_f(p->o, "set lmargin at screen %.6f\nset rmargin at screen %.6f\n", (double)x / p->width,
             (double)(x + px) / p->width);
    pl_out_text(p->o, what == LATENCY
                          ? "set title 'latency, 95 % interval of the mean' offset 0,-0.4\n"
                            "set ylabel 'ms' offset 1,0\n"
                          : "set title 'device peak, least to most' offset 0,-0.4\n"
                            "set ylabel 'GB' offset 1,0\n");
    axes(p, what);
    pl_out_text(p->o, p->d->shape.contexts > TICS_MAX ? "set xtics auto\n" : "set xtics (");
    for (uint32_t c = 0; c < p->d->shape.contexts && p->d->shape.contexts <= TICS_MAX; c++) {
        const int64_t length = pl_reader_context(p->d->reader, c);
        if (length <= 0)
            continue;
        pl_out_f(p->o, "%s%" PRId64, comma, length);
        comma = ", ";
    }
    pl_out_text(p->o, p->d->shape.contexts > TICS_MAX ? "" : ")\n");
    curves(p);
    pl_out_text(p->o, "unset label\n");
}

static size_t legend_of(const struct picture *p, struct pl_legend *legend)
{
    size_t n = 0;
    for (size_t i = 0; i < p->s->n && n < LEGEND_MAX; i++) {
        const uint32_t arm = p->s->points[i].arm;
        if (i && arm == p->s->points[i - 1].arm)
            continue;
        legend[n].colour = pl_figure_colour(arm);
        pl_figure_shorten(p->d->arms[arm], legend[n].text, sizeof legend[n].text);
        n++;
    }
    return n;
}

void pl_figure_context_scaling(const struct pl_dataset *d, const struct pl_scaling *s,
                               struct pl_figure *f)
{
    struct picture p = {.d = d, .s = s, .o = &f->body};
    struct pl_legend legend[LEGEND_MAX] = {{.point = 0}};

    if (most_points(&p, LATENCY) < CONTEXTS_MIN)
        return;
    const bool memory = most_points(&p, MEMORY) >= CONTEXTS_MIN;
    const int px = memory ? PANEL_PX : PANEL_PX + PANEL_PX / 2;
    const size_t n = legend_of(&p, legend);
    p.width = LEFT_PX + px + (memory ? BETWEEN_PX + px : 0) + RIGHT_PX;
    p.top = TOP_PX + PL_LEGEND_ROW_PX * pl_figure_legend_rows(legend, n, p.width);
    p.height = p.top + PANEL_HEIGHT_PX + BOTTOM_PX;
    f->width = p.width;
    f->height = p.height;
    pl_out_f(p.o,
             "set multiplot\nset border 3 lc rgb '#555555'\nset tics nomirror textcolor rgb "
             "'black'\nunset key\nset format '%%g'\nset grid lc rgb '#C8C8C8' lw 0.6 lt 1\n"
             "set logscale x 2\nset tmargin at screen %.6f\nset bmargin at screen %.6f\n"
             "set xlabel 'context (tokens)' offset 0,0.4\n",
             1 - (double)p.top / p.height, (double)BOTTOM_PX / p.height);
    pl_figure_title(d, memory ? "Latency and memory over context" : "Latency over context",
                    p.height, p.o);
    pl_figure_legend(legend, n, 7, 42, p.width, p.height, p.o);
    draw_panel(&p, LATENCY, LEFT_PX, px);
    if (memory)
        draw_panel(&p, MEMORY, LEFT_PX + px + BETWEEN_PX, px);
    pl_out_text(p.o, "unset multiplot\n");
}

/* ---- memory against latency ---- */

/* What the engine itself holds, MB; where no runner tells that, the device's peak. */
static double megabytes(const struct pl_dataset *d, const struct pl_scaling_point *v, bool own)
{
    const struct pl_cell *c = pl_dataset_cell(d, v->arm, v->context);
    return (own ? (c->weights_bytes + c->kv_bytes + c->workspace_bytes) / (double)c->done
                : v->memory_max) /
           1e6;
}

static size_t with_memory(const struct picture *p, bool own)
{
    size_t n = 0;
    for (size_t i = 0; i < p->s->n; i++)
        n += megabytes(p->d, &p->s->points[i], own) > 0;
    return n;
}

/* Both axes hold all points; logarithmic where they span much. */
static void square_axes(const struct picture *p, bool own)
{
    double least[2] = {INFINITY, INFINITY}, most[2] = {0, 0};
    for (size_t i = 0; i < p->s->n; i++) {
        const struct pl_scaling_point *v = &p->s->points[i];
        const double at[2] = {v->mean, megabytes(p->d, v, own)};
        for (int k = 0; k < 2 && at[1] > 0; k++) {
            least[k] = fmin(least[k], k == 0 && v->ci_low > 0 ? v->ci_low : at[k]);
            most[k] = fmax(most[k], k == 0 && v->ci_high > at[k] ? v->ci_high : at[k]);
        }
    }
    for (int k = 0; k < 2; k++)
        if (most[k] / least[k] > LOG_FROM)
            pl_out_f(p->o, "set logscale %c 10\nset %crange [%.9g:%.9g]\n", "xy"[k], "xy"[k],
                     least[k] / 1.5, most[k] * 1.5);
        else
            pl_out_f(p->o, "set %crange [0:%.9g]\n", "xy"[k], most[k] * 1.12);
}

static void scatter(const struct picture *p, bool own)
{
    const char *comma = "plot ";
    for (size_t i = 0; i < p->s->n; i++) {
        const struct pl_scaling_point *v = &p->s->points[i];
        const double mb = megabytes(p->d, v, own);
        if (i == 0 || v->arm != v[-1].arm)
            pl_out_f(p->o, "$a%" PRIu32 " << EOD\n", v->arm);
        if (mb > 0)
            pl_out_f(p->o, "%.9g %.9g %.9g %.9g\n", v->mean, mb,
                     isnan(v->ci_low) ? v->mean : v->ci_low,
                     isnan(v->ci_high) ? v->mean : v->ci_high);
        else
            pl_out_text(p->o, "NaN NaN NaN NaN\n");
        if (i + 1 == p->s->n || v->arm != v[1].arm)
            pl_out_text(p->o, "EOD\n");
    }
    for (size_t i = 0; i < p->s->n; i++) {
        const uint32_t arm = p->s->points[i].arm;
        if (i && arm == p->s->points[i - 1].arm)
            continue;
        pl_out_f(p->o,
                 "%s$a%" PRIu32
                 " using 1:2 with lines lw 0.8 dt 3 lc rgb '%s' notitle, \\\n  $a%" PRIu32
                 " using 1:2:3:4 with xerrorbars pt 7 ps 0.7 lw 1.4 lc rgb '%s' notitle",
                 comma, arm, pl_figure_colour(arm), arm, pl_figure_colour(arm));
        comma = ", \\\n  ";
    }
    pl_out_text(p->o, "\n");
}

void pl_figure_memory_latency(const struct pl_dataset *d, const struct pl_scaling *s,
                              struct pl_figure *f)
{
    struct picture p = {.d = d, .s = s, .o = &f->body};
    struct pl_legend legend[LEGEND_MAX] = {{.point = 0}};
    const bool own = with_memory(&p, true) > 1;

    if (!own && with_memory(&p, false) < 2)
        return;
    const size_t n = legend_of(&p, legend);
    p.width = LEFT_PX + 2 * PANEL_PX + RIGHT_PX;
    p.top = TOP_PX - 14 + PL_LEGEND_ROW_PX * pl_figure_legend_rows(legend, n, p.width);
    p.height = p.top + PANEL_HEIGHT_PX + BOTTOM_PX;
    f->width = p.width;
    f->height = p.height;
    pl_out_f(p.o,
             "set border 3 lc rgb '#555555'\nset tics nomirror textcolor rgb 'black'\nunset key\n"
             "set format '%%g'\nset grid lc rgb '#C8C8C8' lw 0.6 lt 1\nset tmargin at screen %.6f\n"
             "set bmargin at screen %.6f\nset lmargin at screen %.6f\nset rmargin at screen %.6f\n"
             "set xlabel 'latency, ms (95 %% interval of the mean)' offset 0,0.4\n"
             "set ylabel '%s' offset -0.6,0\n",
             1 - (double)p.top / p.height, (double)BOTTOM_PX / p.height, (double)LEFT_PX / p.width,
             (double)(p.width - RIGHT_PX) / p.width,
             own ? "MB: weights + KV + workspace" : "MB: device peak");
    pl_figure_title(d, "Memory against latency, from the shortest context to the longest", p.height,
                    p.o);
    pl_figure_legend(legend, n, 7, 42, p.width, p.height, p.o);
    square_axes(&p, own);
    scatter(&p, own);
}
