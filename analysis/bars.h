/* Horizontal bars for the figures: stacked parts, whiskers, panels one under the other. */
#ifndef PL_ANALYSIS_BARS_H
#define PL_ANALYSIS_BARS_H

#include "analysis/figure.h"

#include <stdbool.h>
#include <stddef.h>

#define PL_BARS_PARTS_MAX 16

/* Values [bar][part]; a bar without any is not drawn but has its place. */
struct pl_bars_panel {
    char title[64];
    const char *const *names; /* [bars] */
    double *values;
    const double *low, *high; /* [bars] ends of a whisker, low 0: none; NULL: no bar has one */
    size_t bars;
};

struct pl_bars {
    struct pl_out *o;
    const char *title, *xlabel;
    bool counts;                   /* whole numbers */
    double line;                   /* a vertical line there; 0: none */
    double axis_max;               /* where the axis ends; 0: behind the longest bar */
    const struct pl_legend *parts; /* one without a text: no legend */
    size_t n_parts;
    int left, width, height; /* px; set by pl_bars_draw */
};

/* Draws the panels one under the other; sets the figure's size. */
void pl_bars_draw(const struct pl_dataset *d, struct pl_bars *c, const struct pl_bars_panel *panels,
                  size_t n, struct pl_figure *f);
/* "context 512" */
void pl_bars_context_title(const struct pl_dataset *d, uint32_t context, struct pl_bars_panel *p);

#endif
