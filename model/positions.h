/* What positions turn into, the same for every backend: RoPE frequencies and T5's buckets. */
#ifndef PL_MODEL_POSITIONS_H
#define PL_MODEL_POSITIONS_H

#include "model/arch.h"

/* out[head_dim / 2]: θ_i = theta^(−2i/d) in f32, as transformers computes it; scaling:
 * modeling_rope_utils.py. by: [head_dim / 2] that each is divided by, or NULL. */
void pl_rope_frequencies(const struct pl_arch *a, const float *by, float *out);

/* T5's bucket of a key that stands `distance` after its query (modeling_t5.py,
 * _relative_position_bucket). */
int32_t pl_relative_bucket(const struct pl_arch *a, int64_t distance);

#endif
