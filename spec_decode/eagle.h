/*
 * EAGLE heads (Li et al. 2024): row t is fc of [the embedding of token t + 1; the verifier's state
 * t after its final norm], then one decoder layer without input norm, which gives state t + 1; the
 * verifier's output head says the token after it. Where the verifier's state is not known yet, the
 * head's own stands in. Published keys: fc.{weight,bias}, layers.0.* as in Llama; embed_tokens, if
 * it is there, is the verifier's and not read. Widths come from the shapes, head_dim and RoPE from
 * the verifier.
 *
 *   chain    the likeliest token, `depth` times; above temperature 0 drawn, with q
 *   static   the published tree (tree.h), level by level
 *   dynamic  EAGLE-2: the `top` likeliest children of each of the `top` likeliest nodes of the
 * level above, by the product of their probabilities; of all of these the best `nodes`
 */
#ifndef PL_SPEC_DECODE_EAGLE_H
#define PL_SPEC_DECODE_EAGLE_H

#include "model/model.h"
#include "spec_decode/draft.h"

extern const struct pl_drafter_ops
    pl_draft_eagle; /* wants the verifier's states, the prompt's too */

struct pl_eagle_opts {
    const char *path;
    struct pl_model *verifier; /* outlives it */
    enum pl_dtype kv;
    size_t max_prompt, max_tokens;
    size_t depth, top, nodes; /* top 1: a chain */
    bool fixed;               /* the static tree */
    double temperature;       /* of chains */
    uint64_t key;
    const int32_t *masked; /* ids that are never said; copied */
    size_t n_masked;
};
/* PL_ENOENT, PL_EFORMAT: what misses, or its shape and the one expected. */
PL_MUST_CHECK
enum pl_status pl_draft_eagle_open(const struct pl_eagle_opts *o, void **out, struct pl_err *err);
/* Logits [vocab] after row `n` − 1 of the rows given: ids[i] is token i + 1, states[i] the
 * verifier's state i. For tests. */
PL_MUST_CHECK
enum pl_status pl_draft_eagle_logits(void *d, const int32_t *ids, const float *states, size_t n,
                                     float *logits, struct pl_err *err);

#endif
