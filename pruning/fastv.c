/*
 * FastV (arXiv 2403.06764; github.com/pkunlp-icler/FastV): after block K − 1 (K = 2, so layer 1)
 * visual tokens are ranked by the attention that the prompt's last token pays them there, averaged
 * over heads; all others stay.
 */
#include "pruning/method.h"

static enum pl_status check(struct pl_prune_opts *o, const struct pl_arch *a, struct pl_err *err)
{
    if (o->n_layers)
        return PL_OK;
    if (a->layers < 2)
        return pl_fail(err, PL_ESWEEP, "prune.layers is missing: this model has no layer 1");
    o->layers[o->n_layers++] = 1;
    return PL_OK;
}

static enum pl_status score(struct pl_pruner *p, const struct pl_stage *stage, float *scores,
                            struct pl_err *err)
{
    (void)err;
    pl_prune_head_mean(p, stage->attn, stage->n, scores);
    return PL_OK;
}

const struct pl_prune_method pl_prune_fastv = {.name = "fastv",
                                               .where = PL_PRUNE_STAGES,
                                               .needs = PL_STAGE_ATTN,
                                               .window = pl_prune_last_row,
                                               .check = check,
                                               .score = score};
