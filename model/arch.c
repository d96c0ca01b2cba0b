#include "model/arch.h"

#include "model/config_get.h"
#include "model/gguf_arch.h"

#include <string.h>

static const char *const act_names[] = {"silu", "gelu", "gelu_tanh", "quick_gelu", "relu"};
static const char *const norm_names[] = {"rms", "layer"};
static const char *const rope_names[] = {"default", "linear", "llama3", "yarn"};
static const char *const pos_names[] = {"rope", "none", "learned", "relative"};

const char *pl_act_name(enum pl_act_kind k)
{
    return act_names[k];
}

const char *pl_norm_name(enum pl_norm_kind k)
{
    return norm_names[k];
}

const char *pl_rope_name(enum pl_rope_kind k)
{
    return rope_names[k];
}

const char *pl_pos_name(enum pl_pos_kind k)
{
    return pos_names[k];
}

enum pl_status pl_arch_read(const char *path, struct pl_arch *out, struct pl_err *err)
{
    enum pl_status st;
    json_t *j = NULL;

    if (pl_checkpoint_is_gguf(path)) {
        struct pl_checkpoint *c = NULL;
        st = pl_checkpoint_open(path, &c, err);
        if (!st)
            st = pl_gguf_arch(pl_checkpoint_gguf(c), out, err);
        pl_checkpoint_free(c);
        return st;
    }
    st = pl_config_read(path, "config.json", &j, err);
    if (st)
        return st;
    st = pl_arch_parse(j, out, err);
    json_decref(j);
    return st ? pl_err_prefix(err, st, "%s", path) : PL_OK;
}

int64_t pl_arch_image_rows(const struct pl_arch *a)
{
    int64_t side = a->patch ? a->image / a->patch : 0;

    return a->patch ? side * side + 1 : 0;
}

struct pl_arch pl_arch_encoder(const struct pl_arch *a)
{
    struct pl_arch e = *a;

    e.layers = a->encoder_layers;
    e.encoder_layers = 0;
    e.causal = e.head = false;
    return e;
}

/* Norms, attention, cross attention and feed-forward of `layers` blocks. */
static int64_t block_params(const struct pl_arch *a, int32_t layers, bool cross)
{
    int64_t h = a->hidden, q = (int64_t)a->heads * a->head_dim;
    int64_t kv = (int64_t)a->kv_heads * a->head_dim;
    int64_t norm = a->norm == PL_NORM_LAYER ? 2 * h : h;
    int64_t layer = h * (q + 2 * kv) + q * h + (a->gated ? 3 : 2) * h * (int64_t)a->ffn + 2 * norm;

    layer += (a->qkv_bias ? q + 2 * kv : 0) + (a->o_bias ? h : 0);
    layer += a->mlp_bias ? (a->gated ? 2 : 1) * (int64_t)a->ffn + h : 0;
    layer += a->qk_norm ? 2 * (int64_t)a->head_dim : 0;
    layer += cross ? h * (q + 2 * kv) + q * h + norm : 0;
    return layers * layer;
}

/* What stands around the blocks of one stack, embeddings of ids and head aside. */
static int64_t stack_params(const struct pl_arch *a)
{
    int64_t h = a->hidden, norm = a->norm == PL_NORM_LAYER ? 2 * h : h, sum = 0;

    if (a->pos == PL_POS_LEARNED)
        sum += (a->max_positions + a->pos_offset) * h;
    if (a->pos == PL_POS_RELATIVE)
        sum += (int64_t)a->buckets * a->heads;
    sum += (a->embed_norm ? norm : 0) + (a->final_norm ? norm : 0) + a->types * h;
    if (a->patch)
        sum += h * a->channels * a->patch * a->patch + h;
    return sum;
}

int64_t pl_arch_params(const struct pl_arch *a)
{
    int64_t sum = ((a->head && !a->tied) + 1) * (int64_t)a->vocab * a->hidden;

    sum += stack_params(a) + block_params(a, a->layers, a->encoder_layers > 0);
    if (a->encoder_layers)
        sum += stack_params(a) + block_params(a, a->encoder_layers, false);
    return sum;
}

int64_t pl_arch_kv_bytes_per_token(const struct pl_arch *a, enum pl_dtype kv)
{
    enum pl_dtype dt = kv == PL_DT_AUTO ? PL_DT_F32 : kv;

    if (!a->causal)
        return 0;
    return INT64_C(2) * a->layers * a->kv_heads * a->head_dim * pl_dtype_traits(dt)->bytes;
}
