/*
 * SnapKV (arXiv 2404.14469; checked against kvpress): a KV head keeps the last `window` rows and
 * those that their queries look at most, averaged over `kernel` neighbours and over the group's
 * query heads.
 */
#include "pruning/window.h"

#include <math.h>

void pl_prune_window_score(const struct pl_pruner *p, const float *attn, size_t n, size_t head,
                           float *scores)
{
    const size_t window = p->o.window < n ? p->o.window : n, before = n - window;
    const size_t half = p->o.kernel / 2;
    float *mean = scores + p->max_tokens; /* the second half of a pruner's room */

    pl_prune_group_mean(p, attn, n, head, 1.0f / (float)window, mean);
    for (size_t i = 0; i < before; i++) {
        const size_t first = i < half ? 0 : i - half;
        const size_t end = i + half + 1 < before ? i + half + 1 : before;
        float sum = 0;
        for (size_t j = first; j < end; j++)
            sum += mean[j];
        scores[i] = sum / (float)p->o.kernel;
    }
    for (size_t i = before; i < n; i++)
        scores[i] = INFINITY;
}

size_t pl_prune_window_least(const struct pl_pruner *p, size_t count, size_t n)
{
    const size_t window = p->o.window < n ? p->o.window : n;

    return count > window ? count : window;
}

static size_t kv_budget(const struct pl_pruner *p, int32_t layer, size_t n)
{
    (void)layer;
    return pl_prune_window_least(p, (size_t)floor(p->o.keep[0] * (double)n), n);
}

size_t pl_prune_window(const struct pl_prune_opts *o)
{
    return o->window;
}

const struct pl_prune_method pl_prune_snapkv = {.name = "snapkv",
                                                .where = PL_PRUNE_KV,
                                                .needs = PL_STAGE_ATTN,
                                                .window = pl_prune_window,
                                                .kv_score = pl_prune_window_score,
                                                .kv_budget = kv_budget};
