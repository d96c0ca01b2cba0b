/*
 * Trees of drafted tokens: published shapes, and the best tokens of a row of logits. A shape says
 * of each node which node it hangs on and the how manieth choice there it is.
 */
#ifndef PL_SPEC_DECODE_TREE_H
#define PL_SPEC_DECODE_TREE_H

#include "base/status.h"
#include "spec_decode/draft.h"

#include <stddef.h>
#include <stdint.h>

#define PL_TREE_MAX_TOP 16 /* children of a node */

struct pl_draft_shape {
    int32_t parent[PL_DRAFT_MAX]; /* −1: the root, whose token is known */
    uint8_t rank[PL_DRAFT_MAX];   /* 0: the likeliest */
    uint8_t depth[PL_DRAFT_MAX];  /* 0: a child of the root */
    size_t n;
};

/* mc_sim_7b_63 of Medusa and of EAGLE-1: "0 00 1 …", a node a word, the ranks from the root on. */
extern const char pl_draft_shape_medusa[], pl_draft_shape_eagle[];

/* The nodes of `choices`, in its order, that have a rank below `top`, a depth below `depth` and
 * such ancestors, at most `most` ≤ PL_DRAFT_MAX; every parent stands before its children. */
void pl_draft_shape_make(const char *choices, size_t top, size_t depth, size_t most,
                         struct pl_draft_shape *out);

/* The k ≤ PL_TREE_MAX_TOP largest logits, the largest first (ties: the lower id), none of them
 * masked. Fewer where there are fewer finite ones. */
size_t pl_draft_top(const float *logits, size_t vocab, const int32_t *masked, size_t n_masked,
                    size_t k, int32_t *ids);
/* log Σ exp of the logits but the masked ones. */
double pl_draft_log_sum(const float *logits, size_t vocab, const int32_t *masked, size_t n_masked);

#endif
