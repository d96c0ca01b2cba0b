/*
 * H2O, heavy hitters (arXiv 2306.14048; github.com/FMInference/H2O): each head keeps the last rows
 * and those that got most attention from all rows of the prompt. Here once, after the prefill.
 * `average` divides by the number of rows that could see a row, with `recent: 0` as kvpress'
 * ObservedAttentionPress does.
 */
#include "pruning/method.h"

#include <math.h>

static void kv_score(const struct pl_pruner *p, const float *attn, size_t n, size_t head,
                     float *scores)
{
    const size_t count = (size_t)floor(p->o.keep[0] * (double)n);
    const size_t recent = (size_t)floor(p->o.recent * (double)count);

    pl_prune_group_mean(p, attn, n, head, 1, scores);
    for (size_t i = 0; i < n && p->o.average; i++)
        scores[i] /= (float)(n - i);
    for (size_t i = n - recent; i < n; i++)
        scores[i] = INFINITY;
}

const struct pl_prune_method pl_prune_h2o = {
    .name = "h2o", .where = PL_PRUNE_KV, .needs = PL_STAGE_ATTN, .kv_score = kv_score};
