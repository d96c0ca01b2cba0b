/*
 * Medusa heads (Cai et al. 2024): head k says the token k + 1 places behind the one that the
 * verifier's last state chose: x + SiLU(W·x + b), then the verifier's output head, or the head's
 * own where the file has one. Published keys: {k}.0.linear.{weight,bias}, {k}.1.weight. Chains, or
 * the published tree (tree.h): node r at depth k is head k's choice number r.
 */
#ifndef PL_SPEC_DECODE_MEDUSA_H
#define PL_SPEC_DECODE_MEDUSA_H

#include "model/model.h"
#include "spec_decode/draft.h"

extern const struct pl_drafter_ops pl_draft_medusa; /* wants pl_verified.states */

/* masked: ids that are never said; copied. top 1: chains; else trees of at most `nodes` with so
 * many children a node. PL_ENOENT, PL_EFORMAT: what misses, or its shape and the one expected. The
 * verifier outlives it. */
PL_MUST_CHECK
enum pl_status pl_draft_medusa_open(const char *path, struct pl_model *verifier,
                                    const int32_t *masked, size_t n_masked, size_t top,
                                    size_t nodes, void **out, struct pl_err *err);
/* Logits [vocab] of head k after the verifier's state [hidden]. PL_ERANGE: no such head. For tests.
 */
PL_MUST_CHECK
enum pl_status pl_draft_medusa_logits(void *d, const float *state, size_t k, float *logits,
                                      struct pl_err *err);

#endif
