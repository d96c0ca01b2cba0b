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
/* LEARNED: a table added to the embeddings; RELATIVE: T5's buckets, a bias on the scores. */
enum pl_pos_kind { PL_POS_ROPE, PL_POS_NONE, PL_POS_LEARNED, PL_POS_RELATIVE };
enum pl_act_kind { PL_ACT_SILU, PL_ACT_GELU, PL_ACT_GELU_TANH, PL_ACT_QUICK_GELU, PL_ACT_RELU };
enum pl_rope_kind { PL_ROPE_DEFAULT, PL_ROPE_LINEAR, PL_ROPE_LLAMA3, PL_ROPE_YARN };

/* RoPE frequencies: θ_i = theta^(−2i/head_dim), pairs (i, i + head_dim/2) ("neox" order); scaling
 * as in transformers' modeling_rope_utils (linear: θ/factor; llama3: by wavelength between the two
 * cut-offs; yarn: a ramp between the dimensions that turn beta_fast and beta_slow times within the
 * original positions, cos and sin times attention_factor). */
struct pl_rope {
    enum pl_rope_kind kind;
    double theta, factor, low_freq_factor, high_freq_factor;
    double beta_fast, beta_slow, attention_factor;
    bool truncate; /* yarn: the ramp's ends are whole dimensions */
    int64_t original_max_positions;
};

#define PL_MAX_EOS 8
#define PL_TREE_MAX 256 /* rows of a tree (backend.h) */

/*
 * A decoder (causal, with a head), an encoder (neither), or both: encoder_layers > 0 puts an
 * encoder of that many blocks, else alike, before the decoder, whose blocks then attend to it.
 *
 * The block, x [n, hidden]: x += o(attention(norm(x))); x += o(cross(norm(x))) where there is an
 * encoder; x += down(act(gate(norm(x))) · up(norm(x))). post_norm: x = norm(x + …(x)) instead.
 */
struct pl_arch {
    char name[64];   /* config.json's architectures[0], or what would stand there */
    char family[16]; /* of weight names: "llama", "gpt2", "bert", "distilbert", "t5", "clip" */
    int32_t layers, hidden, heads, kv_heads, head_dim, ffn, vocab; /* vocab 0: takes no ids */
    int64_t max_positions;   /* beyond them nothing runs; relative positions: as good as endless */
    int64_t usual_positions; /* what a session that says nothing has room for; ≤ max_positions */
    bool causal, head;       /* rows see only what is before them; there are logits */
    int32_t encoder_layers;
    int32_t decoder_start; /* first id of the decoder behind an encoder; −1: none */
    enum pl_norm_kind norm;
    float norm_eps;
    bool post_norm, embed_norm, final_norm;
    bool bare_start; /* the first block's attention reads x itself */
    bool qk_norm; /* RMS over each head of q and k, before RoPE */
    enum pl_pos_kind pos;
    struct pl_rope rope;
    int32_t pos_offset; /* LEARNED: the table's row of position 0 */
    int32_t pad; /* ≥ 0: positions count ids other than this one, which has row pos_offset − 1 */
    int32_t types;               /* LEARNED: rows of a token type table; 0: none */
    int32_t buckets, far_bucket; /* RELATIVE: relative_attention_num_buckets, …_max_distance */
    bool unscaled;               /* scores are q · k, not q · k / √head_dim */
    int64_t window;              /* a row sees itself and window − 1 rows before it; 0: all */
    int32_t window_from;         /* … in blocks from this one on */
    enum pl_act_kind act;
    bool gated;                      /* act(gate) · up, else act(up) */
    bool qkv_bias, o_bias, mlp_bias; /* which linears carry biases */
    bool fused_qkv;                  /* q, k and v stand below each other in one matrix … */
    bool transposed;                 /* … and the blocks' matrices are stored as [in, out] */
    bool tied;                       /* lm_head is the embedding */
    float logit_scale;               /* on the logits; 1 */
    int32_t image, patch, channels;  /* pixels in: [channels, image, image] in patches; 0: ids in */
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
const char *pl_pos_name(enum pl_pos_kind k);
/* Rows of one image: its patches and one for the class; 0: the model takes ids. */
int64_t pl_arch_image_rows(const struct pl_arch *a);
/* The encoder of an encoder–decoder as an architecture of its own. */
struct pl_arch pl_arch_encoder(const struct pl_arch *a);
/* All weights that run, the tied head counted once (an encoder's pooler is not counted). */
int64_t pl_arch_params(const struct pl_arch *a);
/* Bytes of K and V of one token over all layers: 2 · layers · kv_heads · head_dim · bytes; behind
 * an encoder that is what a token of the source takes as well. Encoders keep none: 0. */
int64_t pl_arch_kv_bytes_per_token(const struct pl_arch *a, enum pl_dtype kv);

#endif
