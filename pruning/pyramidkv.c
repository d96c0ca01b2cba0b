/*
 * PyramidKV (arXiv 2406.02069; budgets as in github.com/Zefan-Cai/KVCache-Factory
 * pyramidkv_utils.py, with the ratio of kvpress): SnapKV's scores, and a budget that falls in a
 * straight line from the first layer to the last, keep · n on average.
 */
#include "pruning/window.h"

#include <math.h>

/* To even, as Python's round does. */
static size_t whole(double v)
{
    return v <= 1 ? 1 : (size_t)nearbyint(v);
}

static size_t kv_budget(const struct pl_pruner *p, int32_t layer, size_t n)
{
    const double len = (double)n, window = (double)p->o.window, mean = len * p->o.keep[0];
    double low = mean / (double)p->o.beta, high = mean * 2 - low;

    if (p->o.keep[0] >= 1)
        return n;
    if (high >= len - window) {
        high = len - window;
        low = mean * 2 - high;
    }
    if (!(len >= high && high >= low && low >= window)) /* too short for a pyramid */
        return pl_prune_window_least(p, whole(mean), n);
    const double step = p->arch->layers > 1 ? (high - low) / (p->arch->layers - 1) : 0;
    return pl_prune_window_least(p, whole(high - layer * step), n);
}

const struct pl_prune_method pl_prune_pyramidkv = {.name = "pyramidkv",
                                                   .where = PL_PRUNE_KV,
                                                   .needs = PL_STAGE_ATTN,
                                                   .window = pl_prune_window,
                                                   .kv_score = pl_prune_window_score,
                                                   .kv_budget = kv_budget};
