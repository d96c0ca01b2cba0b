/* Trials of several sequences on the real engine: a fixed batch, or a closed loop of clients. */
#ifndef PL_WORKER_RUNNER_LLM_BATCH_H
#define PL_WORKER_RUNNER_LLM_BATCH_H

#include "worker/runner/llm.h"

/* Sequences that a joint step can hold. */
#define LLM_MAX_SLOTS PL_STEP_ROWS

/* An arm's batch, concurrency and requests. PL_EUNSUPPORTED: more than the engine can. */
PL_MUST_CHECK
enum pl_status llm_sequences_read(const json_t *arm, struct llm_sequences *out, struct pl_err *err);
/* Room for the trials of an arm of several sequences, made where it is less. */
PL_MUST_CHECK
enum pl_status llm_batch_room(struct llm_state *s, struct llm_arm *arm, int64_t context,
                              int64_t tokens, struct pl_err *err);
void llm_batch_free(struct llm_batch *b); /* a model's sessions */
void llm_batch_buffers_free(struct llm_buffers *b);
enum pl_status llm_batch_trial(struct llm_state *s, struct llm_arm *arm,
                               const struct pl_trial_request *q, struct pl_trial_result *out,
                               struct pl_fault *f);

#endif
