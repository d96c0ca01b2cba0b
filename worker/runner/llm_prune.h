/* Arms that prune: sessions and a pruner of their own beside the model's sessions. */
#ifndef PL_WORKER_RUNNER_LLM_PRUNE_H
#define PL_WORKER_RUNNER_LLM_PRUNE_H

#include "worker/runner/llm.h"

/* The mistakes of an arm's `prune` on a model of this shape, for describe. */
void llm_prune_check(const json_t *arm, const struct pl_arch *a, json_t *errors);
/* Takes over the arm's key; what was made for another one is freed. */
void llm_prune_set(struct llm_pruned *p, const json_t *arm);
void llm_prune_release(struct llm_pruned *p);
/* Room for `slots` sequences of `context` tokens and `tokens` generated ones, made anew where there
 * is less. */
PL_MUST_CHECK
enum pl_status llm_prune_room(struct llm_pruned *p, const struct llm_model *m, uint64_t seed,
                              size_t slots, int64_t context, int64_t tokens, struct pl_err *err);
/* Puts the arm's session in the place of the model's for one trial, and the second time back. */
void llm_prune_swap(struct llm_pruned *p, struct llm_model *m);
/* What the arm does to a picture's rows before the prompt is there, into *out; merge NULL: nothing.
 */
PL_MUST_CHECK
enum pl_status llm_prune_merge(struct llm_pruned *p, const struct llm_model *m, uint64_t seed,
                               int64_t tokens, struct llm_merge *out, struct pl_err *err);
/* Tells the pruner what prompt comes: n ids, and behind eyes what they stand for. */
PL_MUST_CHECK
enum pl_status llm_prune_begin(struct llm_pruned *p, const int32_t *ids, size_t n,
                               const struct llm_eyes *eyes, struct pl_err *err);

#endif
