#include "model/config_get.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* One whole number of a family's list. dflt 0: it must be there. */
struct dim {
    const char *key;
    int64_t dflt, max;
    int32_t *out;
};

static enum pl_status get_dims(const json_t *c, const struct dim *d, size_t n, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < n && !st; i++)
        st = pl_config_dim(c, d[i].key, d[i].dflt, d[i].max, d[i].out, err);
    return st;
}

#define DIMS(c, list, err) get_dims(c, list, sizeof(list) / sizeof((list)[0]), err)

/* Norm epsilon and the spread of random weights. */
static enum pl_status get_scales(const json_t *c, const char *eps_key, double eps_dflt,
                                 struct pl_arch *a, struct pl_err *err)
{
    double eps = 0, std = 0;
    enum pl_status st = pl_config_real(c, eps_key, eps_dflt, &eps, err);

    if (!st)
        st = pl_config_real(c, "initializer_range", 0.02, &std, err);
    a->norm_eps = (float)eps;
    a->init_std = (float)std;
    return st;
}

/* hidden = heads · head_dim, one KV head a head. */
static enum pl_status split_heads(struct pl_arch *a, const char *hidden, const char *heads,
                                  struct pl_err *err)
{
    if (a->hidden % a->heads)
        return pl_fail(err, PL_EFORMAT, "config.json: %s %d is no multiple of %s %d", hidden,
                       a->hidden, heads, a->heads);
    a->kv_heads = a->heads;
    a->head_dim = a->hidden / a->heads;
    return PL_OK;
}

/* Qwen2 and Qwen3 say which blocks have the window: max_window_layers, in newer files layer_types.
 */
static enum pl_status parse_qwen_window(const json_t *c, struct pl_arch *a, struct pl_err *err)
{
    const json_t *types = pl_config_member(c, "layer_types");
    int64_t from = 0;
    bool use = false, found = false;
    enum pl_status st = pl_config_flag(c, "use_sliding_window", false, &use, err);

    if (!st)
        st = pl_config_int(c, "max_window_layers", 28, 0, MAX_LAYERS, &from, err);
    if (st || !use || !a->window) {
        a->window = 0;
        return st;
    }
    if (types && json_array_size(types) != (size_t)a->layers)
        return pl_fail(err, PL_EFORMAT, "config.json: layer_types has %zu layers, the model %d",
                       json_array_size(types), a->layers);
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *t = json_string_value(json_array_get(types, i));
        bool slides = t && !strcmp(t, "sliding_attention");
        if (!t || (!slides && strcmp(t, "full_attention") != 0))
            return pl_fail(err, PL_EUNSUPPORTED,
                           "config.json: layer_types: \"%.40s\" is not supported",
                           t ? t : "(not a string)");
        if (slides && !found) {
            found = true;
            from = (int64_t)i;
        }
        if (found && !slides)
            return pl_fail(err, PL_EUNSUPPORTED,
                           "config.json: layer_types: full attention after layers with a window "
                           "is not supported");
    }
    if (types && !found)
        a->window = 0;
    a->window_from = (int32_t)from;
    return PL_OK;
}

/* Llama and what differs from it by biases, norms on q and k, and a window. */
static enum pl_status parse_llama(const json_t *c, struct pl_arch *a, struct pl_err *err)
{
    int64_t head_dim = 0;
    bool qwen3 = !strncmp(a->name, "Qwen3", 5), qwen2 = !strncmp(a->name, "Qwen2", 5);
    bool window = qwen2 || qwen3 || !strncmp(a->name, "Mistral", 7);
    const struct dim dims[] = {{"num_hidden_layers", 0, MAX_LAYERS, &a->layers},
                               {"hidden_size", 0, MAX_DIM, &a->hidden},
                               {"num_attention_heads", 0, MAX_DIM, &a->heads},
                               {"intermediate_size", 0, MAX_DIM, &a->ffn},
                               {"vocab_size", 0, MAX_VOCAB, &a->vocab}};
    enum pl_status st = DIMS(c, dims, err);

    a->causal = a->head = a->final_norm = a->gated = true;
    a->norm = PL_NORM_RMS;
    a->pos = PL_POS_ROPE;
    a->qk_norm = qwen3;
    if (!st)
        st = pl_config_dim(c, "num_key_value_heads", a->heads, MAX_DIM, &a->kv_heads, err);
    if (!st)
        st = pl_config_int(c, "max_position_embeddings", 2048, 1, MAX_POSITIONS, &a->max_positions,
                           err);
    if (!st)
        st = pl_config_int(c, "head_dim", qwen3 ? 128 : a->hidden / a->heads, 1, MAX_DIM, &head_dim,
                           err);
    if (!st)
        st = get_scales(c, "rms_norm_eps", 1e-6, a, err);
    if (!st)
        st = pl_config_flag(c, "attention_bias", false, &a->qkv_bias, err);
    if (!st)
        st = pl_config_flag(c, "mlp_bias", false, &a->mlp_bias, err);
    if (!st)
        st = pl_config_flag(c, "tie_word_embeddings", false, &a->tied, err);
    if (!st)
        st = pl_config_act(c, "hidden_act", "silu", a, err);
    if (!st)
        st = pl_config_rope(c, a, err);
    if (!st && window)
        st = pl_config_int(c, "sliding_window", 0, 0, INT64_MAX, &a->window, err);
    if (!st && (qwen2 || qwen3))
        st = parse_qwen_window(c, a, err);
    if (st)
        return st;
    a->head_dim = (int32_t)head_dim;
    a->o_bias = a->qkv_bias;
    if (qwen2) { /* its code has them, its configuration has no word for it */
        a->qkv_bias = true;
        a->o_bias = false;
    }
    if (!pl_config_member(c, "head_dim") && !qwen3 && a->hidden % a->heads)
        return pl_fail(err, PL_EFORMAT,
                       "config.json: hidden_size %d is no multiple of num_attention_heads %d and "
                       "there is no head_dim",
                       a->hidden, a->heads);
    if (a->heads % a->kv_heads)
        return pl_fail(err, PL_EFORMAT,
                       "config.json: num_attention_heads %d is no multiple of num_key_value_heads "
                       "%d",
                       a->heads, a->kv_heads);
    if (a->head_dim % 2)
        return pl_fail(err, PL_EFORMAT, "config.json: head_dim %d is odd: RoPE needs pairs",
                       a->head_dim);
    if ((int64_t)a->heads * a->head_dim > MAX_DIM)
        return pl_fail(err, PL_EFORMAT, "config.json: %d heads of %d are beyond %d", a->heads,
                       a->head_dim, MAX_DIM);
    if (a->window >= a->max_positions)
        a->window = 0;
    return PL_OK;
}

/* Video-LLaVA's language model stands under text_config, less what LlamaConfig's defaults say. */
static enum pl_status parse_video_llava(const json_t *config, struct pl_arch *a, struct pl_err *err)
{
    const json_t *text = pl_config_member(config, "text_config");
    const json_t *tied = pl_config_member(config, "tie_word_embeddings");
    const char *model = json_string_value(pl_config_member(text, "model_type"));
    json_t *c, *defaults;
    enum pl_status st;

    if (text && !json_is_object(text))
        return pl_fail(err, PL_EFORMAT, "config.json: text_config is not an object");
    if (model && strcmp(model, "llama") != 0)
        return pl_fail(
            err, PL_EUNSUPPORTED,
            "config.json: text_config's model_type \"%.40s\" is not supported (llama is)", model);
    c = text ? json_copy((json_t *)(uintptr_t)text) : json_object();
    defaults = json_pack("{s:i,s:i,s:i,s:i,s:i,s:i,s:i}", "hidden_size", 4096, "intermediate_size",
                         11008, "num_hidden_layers", 32, "num_attention_heads", 32, "vocab_size",
                         32000, "bos_token_id", 1, "eos_token_id", 2);
    if (!c || !defaults || json_object_update_missing(c, defaults) ||
        (tied && json_object_set(c, "tie_word_embeddings", (json_t *)(uintptr_t)tied)))
        st = pl_fail(err, PL_ENOMEM, "no memory for config.json");
    else
        st = parse_llama(c, a, err);
    if (!st)
        st = pl_config_tokens(c, a, err);
    if (!st)
        pl_config_dtype(c, a);
    json_decref(defaults);
    json_decref(c);
    return st;
}

static enum pl_status parse_gpt2(const json_t *c, struct pl_arch *a, struct pl_err *err)
{
    bool by_layer = false, scaled = true;
    const struct dim dims[] = {{"n_layer", 0, MAX_LAYERS, &a->layers},
                               {"n_embd", 0, MAX_DIM / 4, &a->hidden},
                               {"n_head", 0, MAX_DIM, &a->heads},
                               {"vocab_size", 0, MAX_VOCAB, &a->vocab}};
    enum pl_status st = DIMS(c, dims, err);

    a->causal = a->head = a->final_norm = true;
    a->norm = PL_NORM_LAYER;
    a->pos = PL_POS_LEARNED;
    a->qkv_bias = a->o_bias = a->mlp_bias = true;
    a->fused_qkv = a->transposed = true;
    if (!st)
        st = pl_config_dim(c, "n_inner", 4 * (int64_t)a->hidden, MAX_DIM, &a->ffn, err);
    if (!st)
        st = pl_config_int(c, pl_config_member(c, "n_positions") ? "n_positions" : "n_ctx", 1024, 1,
                           MAX_DIM, &a->max_positions, err);
    if (!st)
        st = get_scales(c, "layer_norm_epsilon", 1e-5, a, err);
    if (!st)
        st = pl_config_act(c, "activation_function", "gelu_new", a, err);
    if (!st)
        st = pl_config_flag(c, "tie_word_embeddings", true, &a->tied, err);
    if (!st)
        st = pl_config_flag(c, "scale_attn_weights", true, &scaled, err);
    if (!st)
        st = pl_config_flag(c, "scale_attn_by_inverse_layer_idx", false, &by_layer, err);
    if (st)
        return st;
    if (by_layer)
        return pl_fail(err, PL_EUNSUPPORTED,
                       "config.json: scale_attn_by_inverse_layer_idx is not supported");
    a->unscaled = !scaled;
    return split_heads(a, "n_embd", "n_head", err);
}

static void encoder_of_ids(struct pl_arch *a)
{
    a->norm = PL_NORM_LAYER;
    a->pos = PL_POS_LEARNED;
    a->post_norm = a->embed_norm = true;
    a->qkv_bias = a->o_bias = a->mlp_bias = true;
}

/* BERT and, with positions that begin after the pad's, RoBERTa. */
static enum pl_status parse_bert(const json_t *c, struct pl_arch *a, struct pl_err *err)
{
    const char *kind = json_string_value(pl_config_member(c, "position_embedding_type"));
    bool decoder = false;
    int64_t pad = 0;
    const struct dim dims[] = {{"num_hidden_layers", 0, MAX_LAYERS, &a->layers},
                               {"hidden_size", 0, MAX_DIM, &a->hidden},
                               {"num_attention_heads", 0, MAX_DIM, &a->heads},
                               {"intermediate_size", 0, MAX_DIM, &a->ffn},
                               {"vocab_size", 0, MAX_VOCAB, &a->vocab},
                               {"type_vocab_size", 2, MAX_DIM, &a->types}};
    enum pl_status st = DIMS(c, dims, err);

    encoder_of_ids(a);
    if (!st)
        st = pl_config_int(c, "max_position_embeddings", 512, 1, MAX_DIM, &a->max_positions, err);
    if (!st)
        st = get_scales(c, "layer_norm_eps", 1e-12, a, err);
    if (!st)
        st = pl_config_act(c, "hidden_act", "gelu", a, err);
    if (!st)
        st = pl_config_flag(c, "is_decoder", false, &decoder, err);
    if (!st && strstr(a->name, "oberta"))
        st = pl_config_int(c, "pad_token_id", 1, 0, a->vocab - 1, &pad, err);
    if (!st && strstr(a->name, "oberta")) {
        a->pad = (int32_t)pad;
        a->pos_offset = a->pad + 1;
        a->max_positions -= a->pos_offset;
    }
    if (st)
        return st;
    if (decoder)
        return pl_fail(err, PL_EUNSUPPORTED, "config.json: %s with is_decoder is not supported",
                       a->name);
    if (kind && strcmp(kind, "absolute") != 0)
        return pl_fail(err, PL_EUNSUPPORTED,
                       "config.json: position_embedding_type \"%.40s\" is not supported", kind);
    if (a->max_positions < 1)
        return pl_fail(err, PL_EFORMAT,
                       "config.json: max_position_embeddings leaves none after the pad's");
    return split_heads(a, "hidden_size", "num_attention_heads", err);
}

static enum pl_status parse_distilbert(const json_t *c, struct pl_arch *a, struct pl_err *err)
{
    const struct dim dims[] = {{"n_layers", 0, MAX_LAYERS, &a->layers},
                               {"dim", 0, MAX_DIM, &a->hidden},
                               {"n_heads", 0, MAX_DIM, &a->heads},
                               {"hidden_dim", 0, MAX_DIM, &a->ffn},
                               {"vocab_size", 0, MAX_VOCAB, &a->vocab}};
    enum pl_status st = DIMS(c, dims, err);

    encoder_of_ids(a);
    if (!st)
        st = pl_config_int(c, "max_position_embeddings", 512, 1, MAX_DIM, &a->max_positions, err);
    if (!st)
        st = get_scales(c, "layer_norm_eps", 1e-12, a, err);
    if (!st)
        st = pl_config_act(c, "activation", "gelu", a, err);
    return st ? st : split_heads(a, "dim", "n_heads", err);
}

/* feed_forward_proj: "relu", "gated-gelu" (which is gelu_new), "gated-silu", … */
static enum pl_status parse_t5_ffn(const json_t *c, struct pl_arch *a, struct pl_err *err)
{
    const json_t *v = pl_config_member(c, "feed_forward_proj");
    const char *name = v ? json_string_value(v) : "relu", *act;
    json_t *o;
    enum pl_status st;

    if (!name)
        return pl_fail(err, PL_EFORMAT, "config.json: feed_forward_proj is not a string");
    a->gated = !strncmp(name, "gated-", 6);
    act = !strcmp(name, "gated-gelu") ? "gelu_new" : a->gated ? name + 6 : name;
    o = json_pack("{s:s}", "feed_forward_proj", act);
    if (!o)
        return pl_fail(err, PL_EFORMAT, "config.json: feed_forward_proj cannot be read");
    st = pl_config_act(o, "feed_forward_proj", act, a, err);
    json_decref(o);
    return st;
}

static enum pl_status parse_t5(const json_t *c, struct pl_arch *a, struct pl_err *err)
{
    bool alone = !strcmp(a->name, "T5EncoderModel"), scaled = true;
    int64_t start = 0;
    const struct dim dims[] = {{"num_layers", 0, MAX_LAYERS, &a->encoder_layers},
                               {"d_model", 0, MAX_DIM, &a->hidden},
                               {"num_heads", 0, MAX_DIM, &a->heads},
                               {"d_kv", 0, MAX_DIM, &a->head_dim},
                               {"d_ff", 0, MAX_DIM, &a->ffn},
                               {"vocab_size", 0, MAX_VOCAB, &a->vocab},
                               {"relative_attention_num_buckets", 32, 4096, &a->buckets},
                               {"relative_attention_max_distance", 128, MAX_DIM, &a->far_bucket}};
    enum pl_status st = DIMS(c, dims, err);

    a->norm = PL_NORM_RMS;
    a->pos = PL_POS_RELATIVE;
    a->unscaled = a->final_norm = true;
    a->max_positions = ENDLESS;
    if (!st)
        st = pl_config_int(c, "n_positions", 512, 1, ENDLESS, &a->usual_positions, err);
    if (!st)
        st = pl_config_dim(c, "num_decoder_layers", a->encoder_layers, MAX_LAYERS, &a->layers, err);
    if (!st)
        st = get_scales(c, "layer_norm_epsilon", 1e-6, a, err);
    if (!st)
        st = parse_t5_ffn(c, a, err);
    if (!st)
        st = pl_config_flag(c, "tie_word_embeddings", true, &a->tied, err);
    if (!st) /* transformers 5 ties on saving, and says so here what it was before */
        st = pl_config_flag(c, "scale_decoder_outputs", a->tied, &scaled, err);
    if (!st)
        st = pl_config_int(c, "decoder_start_token_id", 0, 0, a->vocab - 1, &start, err);
    if (st)
        return st;
    a->kv_heads = a->heads;
    if ((int64_t)a->heads * a->head_dim > MAX_DIM)
        return pl_fail(err, PL_EFORMAT, "config.json: %d heads of %d are beyond %d", a->heads,
                       a->head_dim, MAX_DIM);
    if (a->buckets < 4 || a->buckets % 4 || a->far_bucket <= a->buckets / 2)
        return pl_fail(err, PL_EFORMAT,
                       "config.json: relative_attention_num_buckets %d and _max_distance %d: a "
                       "multiple of 4 and more than half of it are expected",
                       a->buckets, a->far_bucket);
    if (alone) {
        a->layers = a->encoder_layers;
        a->encoder_layers = 0;
        return PL_OK;
    }
    a->causal = a->head = true;
    a->logit_scale = scaled ? 1.0f / sqrtf((float)a->hidden) : 1.0f;
    a->decoder_start = (int32_t)start;
    return PL_OK;
}

/* The image tower; in CLIPModel's file it stands under vision_config. */
static enum pl_status parse_clip(const json_t *config, struct pl_arch *a, struct pl_err *err)
{
    const json_t *c = pl_config_member(config, "vision_config")
                          ? pl_config_member(config, "vision_config")
                          : config;
    const struct dim dims[] = {{"num_hidden_layers", 12, MAX_LAYERS, &a->layers},
                               {"hidden_size", 768, MAX_DIM, &a->hidden},
                               {"num_attention_heads", 12, MAX_DIM, &a->heads},
                               {"intermediate_size", 3072, MAX_DIM, &a->ffn},
                               {"image_size", 224, 1 << 14, &a->image},
                               {"patch_size", 32, 1 << 10, &a->patch},
                               {"num_channels", 3, 64, &a->channels}};
    enum pl_status st = DIMS(c, dims, err);

    a->norm = PL_NORM_LAYER;
    a->pos = PL_POS_LEARNED;
    a->embed_norm = true;
    a->qkv_bias = a->o_bias = a->mlp_bias = true;
    if (!st)
        st = get_scales(c, "layer_norm_eps", 1e-5, a, err);
    if (!st)
        st = pl_config_act(c, "hidden_act", "quick_gelu", a, err);
    if (st)
        return st;
    if (a->patch > a->image)
        return pl_fail(err, PL_EFORMAT, "config.json: patch_size %d is more than image_size %d",
                       a->patch, a->image);
    a->max_positions = pl_arch_image_rows(a);
    return split_heads(a, "hidden_size", "num_attention_heads", err);
}

static const struct family {
    const char *name;  /* architectures[0]; with a dot at its end: whatever begins so */
    const char *model; /* model_type, for files that name no architecture */
    const char *weights;
    enum pl_status (*parse)(const json_t *, struct pl_arch *, struct pl_err *);
} families[] = {
    {"LlamaForCausalLM", "llama", "llama", parse_llama},
    {"MistralForCausalLM", "mistral", "llama", parse_llama},
    {"Qwen2ForCausalLM", "qwen2", "llama", parse_llama},
    {"Qwen3ForCausalLM", "qwen3", "llama", parse_llama},
    {"GPT2LMHeadModel", "gpt2", "gpt2", parse_gpt2},
    {"GPT2Model", NULL, "gpt2", parse_gpt2},
    {"BertModel", "bert", "bert", parse_bert},
    {"BertFor.", NULL, "bert", parse_bert},
    {"RobertaModel", "roberta", "bert", parse_bert},
    {"RobertaFor.", NULL, "bert", parse_bert},
    {"XLMRobertaModel", "xlm-roberta", "bert", parse_bert},
    {"XLMRobertaFor.", NULL, "bert", parse_bert},
    {"DistilBertModel", "distilbert", "distilbert", parse_distilbert},
    {"DistilBertFor.", NULL, "distilbert", parse_distilbert},
    {"T5ForConditionalGeneration", "t5", "t5", parse_t5},
    {"T5WithLMHeadModel", NULL, "t5", parse_t5},
    {"MT5ForConditionalGeneration", "mt5", "t5", parse_t5},
    {"T5EncoderModel", NULL, "t5", parse_t5},
    {"VideoLlavaForConditionalGeneration", "video_llava", "llama", parse_video_llava},
    {"EventChat.", "EventChat_llama", "llama", parse_llama}, /* EventGPT's own name */
    {"EventGPT.", NULL, "llama", parse_llama},
    {"CLIPVisionModel", "clip_vision_model", "clip", parse_clip},
    {"CLIPVisionModelWithProjection", NULL, "clip", parse_clip},
    {"CLIPModel", "clip", "clip", parse_clip},
};

static const struct family *find_family(const char *name, const char *model)
{
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
        const struct family *f = &families[i];
        size_t n = strlen(f->name);
        bool open_end = f->name[n - 1] == '.';
        if (name ? open_end ? !strncmp(name, f->name, n - 1) : !strcmp(name, f->name)
                 : f->model && !strcmp(model, f->model))
            return f;
    }
    return NULL;
}

enum pl_status pl_arch_parse(const json_t *config, struct pl_arch *out, struct pl_err *err)
{
    const char *name =
        json_string_value(json_array_get(pl_config_member(config, "architectures"), 0));
    const char *model = json_string_value(pl_config_member(config, "model_type"));
    struct pl_arch a = {
        .bos = -1, .pad = -1, .decoder_start = -1, .logit_scale = 1, .stored = PL_DT_AUTO};
    const struct family *f;
    enum pl_status st;

    if (!json_is_object(config))
        return pl_fail(err, PL_EFORMAT, "config.json is not an object");
    if (!name && !model)
        return pl_fail(err, PL_EFORMAT, "config.json has no architectures");
    if (pl_config_member(config, "quantization_config"))
        return pl_fail(err, PL_EUNSUPPORTED,
                       "config.json: quantization_config is not supported (weights must be F32, "
                       "F16 or BF16)");
    f = find_family(name, model);
    if (!f)
        return pl_fail(err, PL_EUNSUPPORTED,
                       "architecture %.80s is not supported (Llama, Mistral, Qwen2, Qwen3 and GPT2 "
                       "language models, EventGPT, Video-LLaVA, Bert, Roberta, DistilBert, T5 and "
                       "CLIP's image tower are)",
                       name ? name : model);
    snprintf(a.name, sizeof(a.name), "%s", name ? name : f->name);
    snprintf(a.family, sizeof(a.family), "%s", f->weights);
    st = f->parse(config, &a, err);
    if (!st && !a.n_eos)
        st = pl_config_tokens(config, &a, err);
    if (st)
        return st;
    if (!a.usual_positions)
        a.usual_positions = a.max_positions;
    pl_config_dtype(config, &a);
    *out = a;
    return PL_OK;
}
