/* What arms that prune came to beside their baselines. */
#ifndef PL_ANALYSIS_PRUNED_H
#define PL_ANALYSIS_PRUNED_H

#include "analysis/out.h"
#include "analysis/speedup.h"
#include "analysis/table.h"

/* Whether an arm has a `prune`. */
bool pl_arm_prunes(const struct pl_dataset *d, uint32_t arm);
/* An arm that prunes, at a context, over the pairs with its baseline; NaN: not measured. */
struct pl_pruned {
    uint32_t arm, baseline, context;
    uint64_t n; /* pairs */
    struct pl_ratio prefill, decode, e2e;
    double base_s[3], arm_s[3];   /* means: prefill, decode, total */
    double base_bytes, arm_bytes; /* mean device peak */
    double base_kv, arm_kv;       /* KV rows a layer, mean over layers */
    double reduction;             /* 1 − Σ lengths / (layers · prompt) */
    double base_flops, arm_flops; /* mean of a prefill */
    double base_read, arm_read;   /* mean bytes of all that follows the first token */
    /* Speedups that the operations (prefill) and bytes (decode) alone would allow; of the whole, at
     * the baseline's measured shares of time. */
    double ideal_prefill, ideal_decode, ideal_e2e;
};
/* The i-th of them by context, then arm; false: there are no more. */
bool pl_pruned_get(const struct pl_dataset *d, const struct pl_speedups *s, size_t i,
                   struct pl_pruned *out);
/* Mean KV rows of a layer after prefill, of the only model or verifier; NaN: not known. */
double pl_cell_layer_rows(const struct pl_dataset *d, const struct pl_cell *c, uint32_t layer);

/* 95 % of a quality metric: mean ± t · SE over samples, whose repeats are averaged (they say the
 * same text again), whatever the values are (0 or 1, word scores); but of perplexity within 0 and
 * 1, and the exact binomial interval where all are 0 or all 1. NaN with fewer than two. */
void pl_cell_quality_interval(const struct pl_dataset *d, const struct pl_cell *c, uint32_t metric,
                              double *low, double *high);

/* A quality beside the baseline's on the same trials: of perplexity the ratio, else the difference;
 * 95 % over samples, in which what makes one text harder than another cancels. */
struct pl_beside {
    double value, low, high; /* NaN: not known */
};
/* false (and NaN): the arm is a baseline, or no trial of both was scored. */
bool pl_quality_beside(const struct pl_dataset *d, uint32_t arm, uint32_t context, uint32_t metric,
                       struct pl_beside *out);

/* The published columns, and what stands behind them. Empty unless an arm prunes. */
void pl_table_table2(const struct pl_dataset *d, const struct pl_speedups *s, struct pl_table *t);
/* Every quality metric of every arm, with its interval over samples. */
void pl_table_quality(const struct pl_dataset *d, struct pl_table *t);
/* "KV Cache: baseline=…, sdtp=…, reduction=…%", a line an arm that prunes and context. */
void pl_pruned_lines(const struct pl_dataset *d, const struct pl_speedups *s, struct pl_out *o);

#endif
