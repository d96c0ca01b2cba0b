/*
 * StreamingLLM (arXiv 2309.17453): the first `head` rows (attention sinks) and the last ones stay,
 * whatever is in them. Keys keep the positions that they were rotated by, as in kvpress.
 */
#include "pruning/method.h"

static void kv_score(const struct pl_pruner *p, const float *attn, size_t n, size_t head,
                     float *scores)
{
    (void)attn;
    (void)head;
    for (size_t i = 0; i < n; i++)
        scores[i] = i < p->o.rule.head ? (float)n : (float)i;
}

const struct pl_prune_method pl_prune_streamingllm = {
    .name = "streamingllm", .where = PL_PRUNE_KV, .kv_score = kv_score};
