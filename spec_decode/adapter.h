/*
 * Adapters: a drafter's hidden states → the verifier's, whose head then says tokens. A file is
 * safetensors with the names of the published modules; D, the adapter's own width, is read from the
 * shapes. LayerNorm eps 1e-5, GELU by erf.
 *
 *   L1  layers.0. down_proj [b, D], up_proj [D, b], layer_norm, alpha_param; final_norm:
 *       final_norm(x + α·up(gelu(down(layer_norm(x)))))
 *   L2  the same blocks.0., blocks.1., blocks.2. in turn
 *   L3  input_norm; blocks.i. 0 [b, D], 1 (norm of b), 4 [D, b], alphas.i; final_norm
 *   L4  layers.0. attn_norm, attn.in_proj_weight [3D, D], in_proj_bias, attn.out_proj, ffn_norm,
 *       ffn.0, ffn.3 (pre-norm, 8 heads, every row sees all); output_proj.0 (norm), output_proj.1;
 *       alpha: h + α·(output_proj(…) − h)
 *   L5  input_norm, pos_embed [1, P, D], layers.0. as L4's but causal, output_norm, output_proj,
 * alpha B1  as L5, on the verifier's own states: its row i is the verifier's state i + 1 L5F
 * gate.0, fusion_proj [D, 2D], fusion_norm: x = fusion_norm(g·e + (1 − g)·v + fusion_proj[e; v])
 *       with g = σ(gate.0[e; v]), then L5's from pos_embed on, residual v: says state i + 1
 *
 * Where sizes differ: in_proj [D, drafter's] and in_proj_v [D, verifier's] before all else,
 * out_proj [verifier's, D] behind it.
 */
#ifndef PL_SPEC_DECODE_ADAPTER_H
#define PL_SPEC_DECODE_ADAPTER_H

#include "base/status.h"
#include "model/model.h"
#include "spec_decode/draft.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pl_adapter;

struct pl_adapter_opts {
    const char *path, *kind;   /* "L1" … "L5", "L5F", "B1" */
    struct pl_model *verifier; /* its device runs the adapter, its head says the tokens */
    size_t drafter_width;      /* of the states that come; 0: none do (B1) */
    size_t max_rows;           /* of one run */
    const int32_t *masked;     /* ids that are never said; copied */
    size_t n_masked;
};

/* Whether it is fed with the verifier's states, too, and says the next one. */
bool pl_adapter_ahead(const char *kind);
/* PL_ENOENT, PL_EFORMAT: what misses, or its shape and the one expected; PL_EUNSUPPORTED. */
PL_MUST_CHECK
enum pl_status pl_adapter_open(const struct pl_adapter_opts *o, struct pl_adapter **out,
                               struct pl_err *err);
void pl_adapter_free(struct pl_adapter *a); /* accepts NULL; before the verifier */
/* e [n][drafter's], v [n][verifier's] (ahead only; else NULL) → out [n][verifier's]. */
PL_MUST_CHECK
enum pl_status pl_adapter_run(struct pl_adapter *a, const float *e, const float *v, size_t n,
                              float *out, struct pl_err *err);
/* The verifier's tokens of n of its states. */
PL_MUST_CHECK
enum pl_status pl_adapter_tokens(struct pl_adapter *a, const float *states, size_t n, int32_t *ids,
                                 struct pl_err *err);
/* A draft's states become its ids. v0: the verifier's state that chose the last verified token
 * (ahead only). */
PL_MUST_CHECK
enum pl_status pl_adapter_translate(void *adapter, struct pl_draft *draft, const float *v0,
                                    struct pl_err *err);
/* B1 as a drafter of its own; the state is the adapter, which is not freed with it. */
extern const struct pl_drafter_ops pl_draft_b1;

#endif
