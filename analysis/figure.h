/*
 * Figures: gnuplot scripts made from the tables' data, drawn by gnuplot as a child process, as SVG
 * and PNG. A machine without gnuplot has no figures and a warning. Colours: Okabe and Ito's, which
 * most colour-blind people tell apart.
 */
#ifndef PL_ANALYSIS_FIGURE_H
#define PL_ANALYSIS_FIGURE_H

#include "analysis/dataset.h"
#include "analysis/out.h"
#include "analysis/scaling.h"
#include "analysis/speedup.h"

#include <stdbool.h>

enum pl_figure_id {
    PL_FIGURE_SPEEDUP,         /* intervals per arm and context */
    PL_FIGURE_LATENCY,         /* mean phases, stacked, per context and arm */
    PL_FIGURE_PERFORMANCE,     /* tokens/s with intervals, per context and arm */
    PL_FIGURE_CONTEXT_SCALING, /* latency and memory; where an arm has three contexts */
    PL_FIGURE_MEMORY_LATENCY,  /* memory against latency, a curve an arm */
    PL_FIGURE_LENGTH,          /* speedup over length; where an arm that prunes has two */
    PL_FIGURE_PARETO,          /* quality against KV kept; where two arms prune and are scored */
    PL_FIGURE_FAILURES,        /* failed trials per arm and reason; only where there are any */
    /* where an arm drafts */
    PL_FIGURE_DRAFT_SPEEDUP,     /* bars with intervals, per context and drafting arm */
    PL_FIGURE_LANES,             /* mean phases of both lanes, stacked */
    PL_FIGURE_ACCEPTANCE,        /* bars with intervals */
    PL_FIGURE_POSITION,          /* acceptance by position in the draft, a curve an arm */
    PL_FIGURE_VERIFY_COST,       /* a verification's time in decode steps, over the tokens in it */
    PL_FIGURE_ACCEPT_TO_SPEEDUP, /* the model's curves, and what was measured */
    PL_FIGURE_TIMELINE,          /* what both lanes did when, in the first samples */
    PL_FIGURE_COUNT
};

struct pl_figure {
    const char *name, *title; /* static */
    const char *caption;      /* static: how to read it */
    int width, height;        /* px, of the SVG */
    bool wanted;              /* there is something to draw */
    bool too_large;           /* there is, but more than a picture can hold; not wanted then */
    struct pl_out body;       /* gnuplot commands after the terminal is set */
};

/* figures[PL_FIGURE_COUNT]; release with pl_figures_release whatever was returned. */
PL_MUST_CHECK
enum pl_status pl_figures_make(const struct pl_dataset *d, const struct pl_speedups *s,
                               const struct pl_scaling *scaling, struct pl_figure *figures,
                               struct pl_err *err);
void pl_figures_release(struct pl_figure *figures);

/* Draws one into DIR/NAME.svg and DIR/NAME.png, atomically. PL_ENOENT: no gnuplot; PL_EIO with its
 * message; PL_ETIMEOUT after a minute. */
PL_MUST_CHECK
enum pl_status pl_figure_draw(const struct pl_figure *f, const char *dir, struct pl_err *err);

/* Of pl_figures_make: one each. */
void pl_figure_speedup(const struct pl_dataset *d, const struct pl_speedups *s,
                       struct pl_figure *f);
void pl_figure_latency(const struct pl_dataset *d, struct pl_figure *f);
void pl_figure_performance(const struct pl_dataset *d, const struct pl_scaling *s,
                           struct pl_figure *f);
void pl_figure_memory_latency(const struct pl_dataset *d, const struct pl_scaling *s,
                              struct pl_figure *f);
void pl_figure_context_scaling(const struct pl_dataset *d, const struct pl_scaling *s,
                               struct pl_figure *f);
void pl_figure_length(const struct pl_dataset *d, const struct pl_speedups *s, struct pl_figure *f);
void pl_figure_pareto(const struct pl_dataset *d, struct pl_figure *f);
void pl_figure_failures(const struct pl_dataset *d, struct pl_figure *f);
void pl_figure_draft_speedup(const struct pl_dataset *d, const struct pl_speedups *s,
                             struct pl_figure *f);
void pl_figure_lanes(const struct pl_dataset *d, struct pl_figure *f);
void pl_figure_acceptance(const struct pl_dataset *d, struct pl_figure *f);
void pl_figure_position(const struct pl_dataset *d, struct pl_figure *f);
void pl_figure_verify_cost(const struct pl_dataset *d, struct pl_figure *f);
void pl_figure_accept_to_speedup(const struct pl_dataset *d, const struct pl_speedups *s,
                                 struct pl_figure *f);
void pl_figure_timeline(const struct pl_dataset *d, struct pl_figure *f);

/* Shared by them. Colour i of the palette; gnuplot's point type, another one each time the colours
 * begin anew. */
const char *pl_figure_colour(size_t i);
int pl_figure_point(size_t i);
/* A name of at most 28 characters, cut at a whole one. */
void pl_figure_shorten(const char *name, char *out, size_t size);
/* A name as a gnuplot string of at most 28 characters (what no plain font has becomes a box), and
 * the px that it takes. */
void pl_figure_name(struct pl_out *o, const char *name);
int pl_figure_name_px(const char *name);
/* The title line, with " · synthetic" and " · incomplete" where that is so. */
void pl_figure_title(const struct pl_dataset *d, const char *text, int height, struct pl_out *o);

struct pl_legend {
    char text[40];
    const char *colour;
    int point; /* gnuplot's point type; 0: the figure's */
};
/* The name and colour of a phase in every figure. Those of a lane, and kinds of a span, come first;
 * parts of a phase (tower, …) are drawn nowhere. */
#define PL_FIGURE_PHASES (PL_METRIC_D_WAIT + 1)
const struct pl_legend *pl_figure_phase(enum pl_metric m);
#define PL_LEGEND_ROW_PX 20
/* Rows that the entries take in a figure of that width, and drawing them from top_px down as labels
 * (numbers from 100) with point type `point`. */
int pl_figure_legend_rows(const struct pl_legend *entries, size_t n, int width);
void pl_figure_legend(const struct pl_legend *entries, size_t n, int point, int top_px, int width,
                      int height, struct pl_out *o);

#endif
