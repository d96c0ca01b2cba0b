/* What a forward must do at least, by the model's shape alone: the numerators of "percent of the
 * machine's limit". */
#ifndef PL_WORKER_RUNNER_WORK_H
#define PL_WORKER_RUNNER_WORK_H

#include "model/model.h"

/* Multiply-adds of n tokens after `past` ones, as operations: 2 for each weight of a block and pair
 * of attention, the head once (only the last row's logits are made). Encoders: all pairs, no head;
 * behind one, K and V of the source for each block of the decoder. */
double pl_work_prompt_flop(const struct pl_arch *a, double n, double past);

/* Weight bytes that one decoded token reads: all, but for tables of which it reads one row. */
double pl_work_step_weight_bytes(const struct pl_model_info *info);

/* Bytes that decoding the tokens after the first reads behind `context` ids, for `sequences` at
 * once: the weights once a step, each sequence's K and V (in blocks with a window no more of them
 * than it shows). 0: not known (encoders, and behind one). */
double pl_work_decode_bytes(const struct pl_model_info *info, enum pl_dtype kv, int64_t context,
                            int64_t tokens, int64_t sequences);

#endif
