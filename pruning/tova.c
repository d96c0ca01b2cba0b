/*
 * TOVA (arXiv 2401.06104; checked against kvpress): in each layer the rows stay that the prompt's
 * last token looks at most, averaged over all heads; and itself.
 */
#include "pruning/method.h"

#include <math.h>

static void kv_score(const struct pl_pruner *p, const float *attn, size_t n, size_t head,
                     float *scores)
{
    (void)head; /* one choice for all heads */
    pl_prune_head_mean(p, attn, n, scores);
    scores[n - 1] = INFINITY;
}

const struct pl_prune_method pl_prune_tova = {.name = "tova",
                                              .where = PL_PRUNE_KV,
                                              .needs = PL_STAGE_ATTN,
                                              .window = pl_prune_last_row,
                                              .kv_score = kv_score};
