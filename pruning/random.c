/* The control: which tokens stay is drawn, by the seed, the prompt, the layer and the token's
 * place. */
#include "pruning/method.h"

#include "base/rng.h"

static enum pl_status score(struct pl_pruner *p, const struct pl_stage *stage, float *scores,
                            struct pl_err *err)
{
    (void)err;
    for (size_t i = 0; i < stage->n; i++) {
        const uint64_t key = pl_keyv(p->seed, p->key, (uint64_t)stage->layer, stage->index[i]);
        scores[i] = (float)(key >> 40) / 16777216.0f;
    }
    return PL_OK;
}

const struct pl_prune_method pl_prune_random = {
    .name = "random", .where = PL_PRUNE_STAGES, .score = score};
