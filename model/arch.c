#include "model/arch.h"

#include "model/gguf_arch.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define CONFIG_MAX (8u << 20)

/* Sizes beyond these are a broken config, and products of them still fit 63 bits. */
#define MAX_DIM (1 << 20)
#define MAX_LAYERS 4096
#define MAX_VOCAB (1 << 24)
#define MAX_POSITIONS (INT64_C(1) << 31)

static const char *const act_names[] = {"silu", "gelu", "gelu_tanh", "quick_gelu", "relu"};
static const char *const norm_names[] = {"rms", "layer"};
static const char *const rope_names[] = {"default", "linear", "llama3"};

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

/* transformers writes null where it means "not set". */
static const json_t *member(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    return json_is_null(v) ? NULL : v;
}

static enum pl_status get_int(const json_t *o, const char *key, int64_t dflt, int64_t min,
                              int64_t max, int64_t *out, struct pl_err *err)
{
    const json_t *v = member(o, key);

    if (!v && dflt >= min) {
        *out = dflt;
        return PL_OK;
    }
    if (!v)
        return pl_fail(err, PL_EFORMAT, "config.json has no %s", key);
    if (!json_is_integer(v))
        return pl_fail(err, PL_EFORMAT, "config.json: %s is not an integer", key);
    if (json_integer_value(v) < min || json_integer_value(v) > max)
        return pl_fail(err, PL_EFORMAT,
                       "config.json: %s is %" JSON_INTEGER_FORMAT ", expected %" PRId64
                       " to %" PRId64,
                       key, json_integer_value(v), min, max);
    *out = json_integer_value(v);
    return PL_OK;
}

static enum pl_status get_dim(const json_t *o, const char *key, int64_t dflt, int64_t max,
                              int32_t *out, struct pl_err *err)
{
    int64_t v = 0;
    enum pl_status st = get_int(o, key, dflt, 1, max, &v, err);

    if (!st)
        *out = (int32_t)v;
    return st;
}

static enum pl_status get_real(const json_t *o, const char *key, double dflt, double *out,
                               struct pl_err *err)
{
    const json_t *v = member(o, key);

    if (v && !json_is_number(v))
        return pl_fail(err, PL_EFORMAT, "config.json: %s is not a number", key);
    *out = v ? json_number_value(v) : dflt;
    if (!(*out > 0) || !(*out < 1e30))
        return pl_fail(err, PL_EFORMAT, "config.json: %s is missing or not a positive number", key);
    return PL_OK;
}

static enum pl_status get_flag(const json_t *o, const char *key, bool *out, struct pl_err *err)
{
    const json_t *v = member(o, key);

    if (v && !json_is_boolean(v))
        return pl_fail(err, PL_EFORMAT, "config.json: %s is not true or false", key);
    *out = v && json_is_true(v);
    return PL_OK;
}

static enum pl_status parse_act(const json_t *c, struct pl_arch *a, struct pl_err *err)
{
    static const struct {
        const char *name;
        enum pl_act_kind kind;
    } table[] = {
        {"silu", PL_ACT_SILU},
        {"swish", PL_ACT_SILU},
        {"gelu", PL_ACT_GELU},
        {"gelu_new", PL_ACT_GELU_TANH},
        {"gelu_pytorch_tanh", PL_ACT_GELU_TANH},
        {"quick_gelu", PL_ACT_QUICK_GELU},
        {"relu", PL_ACT_RELU},
    };
    const json_t *v = member(c, "hidden_act");
    const char *name = v ? json_string_value(v) : "silu";

    for (size_t i = 0; name && i < sizeof(table) / sizeof(table[0]); i++) {
        if (!strcmp(name, table[i].name)) {
            a->act = table[i].kind;
            return PL_OK;
        }
    }
    return pl_fail(err, PL_EUNSUPPORTED, "config.json: hidden_act \"%.40s\" is not supported",
                   name ? name : "(not a string)");
}

/* rope_theta + rope_scaling {type | rope_type, …} (files on the Hub), or rope_parameters
 * {rope_theta, rope_type, …}. */
static enum pl_status parse_rope(const json_t *c, struct pl_arch *a, struct pl_err *err)
{
    const json_t *p = member(c, "rope_parameters"), *s = p ? p : member(c, "rope_scaling");
    struct pl_rope *r = &a->rope;
    const json_t *type = NULL;
    enum pl_status st;
    double partial = 1;

    if (s && !json_is_object(s))
        return pl_fail(err, PL_EFORMAT, "config.json: %s is not an object",
                       p ? "rope_parameters" : "rope_scaling");
    st = get_real(p && member(p, "rope_theta") ? p : c, "rope_theta", 10000.0, &r->theta, err);
    if (!st)
        st = get_real(p && member(p, "partial_rotary_factor") ? p : c, "partial_rotary_factor", 1.0,
                      &partial, err);
    if (st)
        return st;
    if (partial != 1)
        return pl_fail(err, PL_EUNSUPPORTED,
                       "config.json: partial_rotary_factor %g is not supported", partial);
    r->kind = PL_ROPE_DEFAULT;
    r->factor = 1;
    if (!s)
        return PL_OK;
    type = member(s, "rope_type") ? member(s, "rope_type") : member(s, "type");
    if (!type && p)
        return PL_OK;
    const char *name = json_string_value(type);
    if (!name)
        return pl_fail(err, PL_EFORMAT, "config.json: rope_scaling has no rope_type");
    if (!strcmp(name, "default"))
        return PL_OK;
    if (!strcmp(name, "linear")) {
        r->kind = PL_ROPE_LINEAR;
        return get_real(s, "factor", 0, &r->factor, err);
    }
    if (strcmp(name, "llama3"))
        return pl_fail(err, PL_EUNSUPPORTED,
                       "config.json: rope_type \"%.40s\" is not supported "
                       "(default, linear, llama3 are)",
                       name);
    r->kind = PL_ROPE_LLAMA3;
    st = get_real(s, "factor", 0, &r->factor, err);
    if (!st)
        st = get_real(s, "low_freq_factor", 0, &r->low_freq_factor, err);
    if (!st)
        st = get_real(s, "high_freq_factor", 0, &r->high_freq_factor, err);
    if (!st)
        st = get_int(s, "original_max_position_embeddings", 0, 1, MAX_POSITIONS,
                     &r->original_max_positions, err);
    if (!st && r->high_freq_factor <= r->low_freq_factor)
        st = pl_fail(err, PL_EFORMAT,
                     "config.json: rope_scaling: high_freq_factor must be above low_freq_factor");
    return st;
}

static enum pl_status parse_tokens(const json_t *c, struct pl_arch *a, struct pl_err *err)
{
    const json_t *eos = member(c, "eos_token_id"), *bos = member(c, "bos_token_id");
    size_t n = json_is_array(eos) ? json_array_size(eos) : eos ? 1 : 0;

    a->bos = -1;
    if (bos && json_is_integer(bos) && json_integer_value(bos) >= 0 &&
        json_integer_value(bos) < a->vocab)
        a->bos = (int32_t)json_integer_value(bos);
    if (n > PL_MAX_EOS)
        return pl_fail(err, PL_EFORMAT, "config.json: eos_token_id names %zu tokens (at most %d)",
                       n, PL_MAX_EOS);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_is_array(eos) ? json_array_get(eos, i) : eos;
        if (!json_is_integer(v))
            return pl_fail(err, PL_EFORMAT, "config.json: eos_token_id is no id or list of ids");
        if (json_integer_value(v) >= 0 && json_integer_value(v) < a->vocab)
            a->eos[a->n_eos++] = (int32_t)json_integer_value(v);
    }
    return PL_OK;
}

static void parse_dtype(const json_t *c, struct pl_arch *a)
{
    static const struct {
        const char *name;
        enum pl_dtype dt;
    } table[] = {{"float32", PL_DT_F32}, {"float16", PL_DT_F16}, {"bfloat16", PL_DT_BF16}};
    const json_t *v = member(c, "dtype") ? member(c, "dtype") : member(c, "torch_dtype");
    const char *name = v ? json_string_value(v) : NULL;

    a->stored = PL_DT_AUTO;
    for (size_t i = 0; name && i < sizeof(table) / sizeof(table[0]); i++)
        if (!strcmp(name, table[i].name))
            a->stored = table[i].dt;
}

/* Llama and what differs from it by nothing but the name. */
static enum pl_status parse_llama(const json_t *c, struct pl_arch *a, struct pl_err *err)
{
    int64_t window = 0, head_dim = 0;
    double eps = 0, std = 0;
    enum pl_status st;

    snprintf(a->family, sizeof(a->family), "llama");
    a->norm = PL_NORM_RMS;
    a->pos = PL_POS_ROPE;
    a->gated = true;
    st = get_dim(c, "num_hidden_layers", 0, MAX_LAYERS, &a->layers, err);
    if (!st)
        st = get_dim(c, "hidden_size", 0, MAX_DIM, &a->hidden, err);
    if (!st)
        st = get_dim(c, "num_attention_heads", 0, MAX_DIM, &a->heads, err);
    if (!st)
        st = get_dim(c, "num_key_value_heads", a->heads, MAX_DIM, &a->kv_heads, err);
    if (!st)
        st = get_dim(c, "intermediate_size", 0, MAX_DIM, &a->ffn, err);
    if (!st)
        st = get_dim(c, "vocab_size", 0, MAX_VOCAB, &a->vocab, err);
    if (!st)
        st = get_int(c, "max_position_embeddings", 2048, 1, MAX_POSITIONS, &a->max_positions, err);
    if (!st)
        st = get_int(c, "head_dim", a->hidden / a->heads, 1, MAX_DIM, &head_dim, err);
    if (!st)
        st = get_real(c, "rms_norm_eps", 1e-6, &eps, err);
    if (!st)
        st = get_real(c, "initializer_range", 0.02, &std, err);
    if (!st)
        st = get_flag(c, "attention_bias", &a->qkv_bias, err);
    if (!st)
        st = get_flag(c, "mlp_bias", &a->mlp_bias, err);
    if (!st)
        st = get_flag(c, "tie_word_embeddings", &a->tied, err);
    if (!st)
        st = parse_act(c, a, err);
    if (!st)
        st = parse_rope(c, a, err);
    if (!st)
        st = get_int(c, "sliding_window", 0, 0, INT64_MAX, &window, err);
    if (st)
        return st;
    a->head_dim = (int32_t)head_dim;
    a->norm_eps = (float)eps;
    a->init_std = (float)std;
    a->o_bias = a->qkv_bias;
    if (!member(c, "head_dim") && a->hidden % a->heads)
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
    if (window && window < a->max_positions)
        return pl_fail(err, PL_EUNSUPPORTED,
                       "config.json: sliding_window %" PRId64 " is not supported", window);
    return PL_OK;
}

enum pl_status pl_arch_parse(const json_t *config, struct pl_arch *out, struct pl_err *err)
{
    static const struct {
        const char *name;
        enum pl_status (*parse)(const json_t *, struct pl_arch *, struct pl_err *);
    } families[] = {
        {"LlamaForCausalLM", parse_llama},
        {"MistralForCausalLM", parse_llama},
    };
    const char *name = json_string_value(json_array_get(member(config, "architectures"), 0));
    struct pl_arch a = {.bos = -1};
    enum pl_status st;

    if (!json_is_object(config))
        return pl_fail(err, PL_EFORMAT, "config.json is not an object");
    if (!name)
        return pl_fail(err, PL_EFORMAT, "config.json has no architectures");
    if (member(config, "quantization_config"))
        return pl_fail(err, PL_EUNSUPPORTED,
                       "config.json: quantization_config is not supported (weights must be F32, "
                       "F16 or BF16)");
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
        if (strcmp(name, families[i].name))
            continue;
        snprintf(a.name, sizeof(a.name), "%s", name);
        st = families[i].parse(config, &a, err);
        if (!st)
            st = parse_tokens(config, &a, err);
        if (st)
            return st;
        parse_dtype(config, &a);
        *out = a;
        return PL_OK;
    }
    return pl_fail(err, PL_EUNSUPPORTED,
                   "architecture %.80s is not supported (LlamaForCausalLM and MistralForCausalLM "
                   "are)",
                   name);
}

enum pl_status pl_arch_read(const char *path, struct pl_arch *out, struct pl_err *err)
{
    char file[4096];
    enum pl_status st;
    struct stat sb;
    json_t *j = NULL;

    if (pl_checkpoint_is_gguf(path)) {
        struct pl_checkpoint *c = NULL;
        st = pl_checkpoint_open(path, &c, err);
        if (!st)
            st = pl_gguf_arch(pl_checkpoint_gguf(c), out, err);
        pl_checkpoint_free(c);
        return st;
    }
    int n = snprintf(file, sizeof(file), "%s%s", path,
                     !stat(path, &sb) && S_ISDIR(sb.st_mode) ? "/config.json" : "");
    if (n < 0 || (size_t)n >= sizeof(file))
        return pl_fail(err, PL_ERANGE, "the path %.100s… is too long", path);
    st = pl_json_read_file(file, CONFIG_MAX, &j, err);
    if (st)
        return st;
    st = pl_arch_parse(j, out, err);
    json_decref(j);
    return st ? pl_err_prefix(err, st, "%s", path) : PL_OK;
}

int64_t pl_arch_params(const struct pl_arch *a)
{
    int64_t h = a->hidden, q = (int64_t)a->heads * a->head_dim;
    int64_t kv = (int64_t)a->kv_heads * a->head_dim;
    int64_t norm = a->norm == PL_NORM_LAYER ? 2 * h : h;
    int64_t layer = h * (q + 2 * kv) + q * h + (a->gated ? 3 : 2) * h * (int64_t)a->ffn + 2 * norm;

    layer += (a->qkv_bias ? q + 2 * kv : 0) + (a->o_bias ? h : 0);
    layer += a->mlp_bias ? (a->gated ? 2 : 1) * (int64_t)a->ffn + h : 0;
    return (a->tied ? 1 : 2) * (int64_t)a->vocab * h + norm + a->layers * layer;
}

int64_t pl_arch_kv_bytes_per_token(const struct pl_arch *a, enum pl_dtype kv)
{
    enum pl_dtype dt = kv == PL_DT_AUTO ? PL_DT_F32 : kv;

    return INT64_C(2) * a->layers * a->kv_heads * a->head_dim * pl_dtype_traits(dt)->bytes;
}
