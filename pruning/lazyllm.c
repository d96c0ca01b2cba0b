/*
 * In the manner of LazyLLM (arXiv 2407.14057, section 4.1): at each stage the token's score is the
 * attention that the prompt's last token pays it in that block, averaged over heads. Prefill only:
 * tokens that went are not revived while decoding.
 */
#include "pruning/method.h"

static enum pl_status score(struct pl_pruner *p, const struct pl_stage *stage, float *scores,
                            struct pl_err *err)
{
    (void)err;
    pl_prune_head_mean(p, stage->attn, stage->n, scores);
    return PL_OK;
}

const struct pl_prune_method pl_prune_lazyllm = {.name = "lazyllm",
                                                 .where = PL_PRUNE_STAGES,
                                                 .needs = PL_STAGE_ATTN,
                                                 .window = pl_prune_last_row,
                                                 .score = score};
