/*
 * What a transformer is, as data: read from config.json, run by one forward. A family is a table of
 * weight names and a way to fill this struct, never a forward of its own.
 */
#ifndef PL_MODEL_ARCH_H
#define PL_MODEL_ARCH_H

#include "base/json.h"
#include "base/status.h"
#include "model/dtype.h"

#include <stdbool.h>
#include <stdint.h>

enum pl_norm_kind { PL_NORM_RMS, PL_NORM_LAYER };
enum pl_pos_kind { PL_POS_ROPE, PL_POS_NONE };
enum pl_act_kind { PL_ACT_SILU, PL_ACT_GELU, PL_ACT_GELU_TANH, PL_ACT_QUICK_GELU, PL_ACT_RELU };
enum pl_rope_kind { PL_ROPE_DEFAULT, PL_ROPE_LINEAR, PL_ROPE_LLAMA3 };

/* RoPE frequencies: θ_i = theta^(−2i/head_dim), pairs (i, i + head_dim/2) ("neox" order); scaling
 * as in transformers' modeling_rope_utils (linear: θ/factor; llama3: by wavelength between the two
 * cut-offs). */
struct pl_rope {
    enum pl_rope_kind kind;
    double theta, factor, low_freq_factor, high_freq_factor;
    int64_t original_max_positions;
};

#define PL_MAX_EOS 8

struct pl_arch {
    char name[64];   /* config.json's architectures[0], or what would stand there */
    char family[16]; /* "llama" */
    int32_t layers, hidden, heads, kv_heads, head_dim, ffn, vocab;
    int64_t max_positions;
    enum pl_norm_kind norm;
    float norm_eps;
    enum pl_pos_kind pos;
    struct pl_rope rope;
    enum pl_act_kind act;
    bool gated;                      /* act(gate) · up, else act(up) */
    bool qkv_bias, o_bias, mlp_bias; /* which linears carry biases */
    bool tied;                       /* lm_head is the embedding */
    float init_std;                  /* initializer_range, for random weights */
    enum pl_dtype stored;            /* torch_dtype / dtype, PL_DT_AUTO when the config has none */
    int32_t bos;                     /* −1: none */
    int32_t eos[PL_MAX_EOS];
    int32_t n_eos;
};

/* Reads a parsed config.json of either layout (rope_theta + rope_scaling | rope_parameters;
 * torch_dtype | dtype). PL_EUNSUPPORTED names the architecture, activation, rope_type or feature
 * that cannot be run; PL_EFORMAT names the key that contradicts or misses. */
PL_MUST_CHECK
enum pl_status pl_arch_parse(const json_t *config, struct pl_arch *out, struct pl_err *err);
/* Reads DIR/config.json (or that file itself), or a GGUF file's metadata. */
PL_MUST_CHECK
enum pl_status pl_arch_read(const char *path, struct pl_arch *out, struct pl_err *err);

const char *pl_norm_name(enum pl_norm_kind k);
const char *pl_act_name(enum pl_act_kind k);
const char *pl_rope_name(enum pl_rope_kind k);
/* All weights, the tied head counted once. */
int64_t pl_arch_params(const struct pl_arch *a);
/* Bytes of K and V of one token over all layers: 2 · layers · kv_heads · head_dim · bytes. */
int64_t pl_arch_kv_bytes_per_token(const struct pl_arch *a, enum pl_dtype kv);

#endif
