#include "model/gguf_arch.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* As in arch.c: sizes beyond these are a broken file, and products of them still fit 63 bits. */
#define MAX_DIM (1 << 20)
#define MAX_LAYERS 4096
#define MAX_VOCAB (1 << 24)
#define MAX_POSITIONS (INT64_C(1) << 31)

struct keys;

struct family {
    const char *architecture, *name, *names; /* names: of its weights (arch.h's family) */
    enum pl_status (*fill)(struct keys *k, struct pl_arch *a);
    bool paired_rows;
};

static enum pl_status fill_llama(struct keys *k, struct pl_arch *a);
static enum pl_status fill_gpt2(struct keys *k, struct pl_arch *a);
static enum pl_status fill_bert(struct keys *k, struct pl_arch *a);

static const struct family families[] = {
    {"llama", "LlamaForCausalLM", "llama", fill_llama, true},
    {"qwen2", "Qwen2ForCausalLM", "llama", fill_llama, false},
    {"qwen3", "Qwen3ForCausalLM", "llama", fill_llama, false},
    {"gpt2", "GPT2LMHeadModel", "gpt2", fill_gpt2, false},
    {"bert", "BertModel", "bert", fill_bert, false},
};

const struct pl_tensor_view *pl_gguf_tensor(const struct pl_gguf *g, const char *name)
{
    size_t n;
    const struct pl_tensor_view *t = pl_gguf_tensors(g, &n);

    for (size_t i = 0; i < n; i++)
        if (!strcmp(t[i].name, name))
            return &t[i];
    return NULL;
}

static const struct family *find_family(const struct pl_gguf *g)
{
    const struct pl_gguf_pair *p = pl_gguf_find(g, "general.architecture");

    for (size_t i = 0; p && p->type == PL_GGUF_STRING && i < sizeof(families) / sizeof(families[0]);
         i++)
        if (p->count == strlen(families[i].architecture) &&
            !memcmp(p->data, families[i].architecture, (size_t)p->count))
            return &families[i];
    return NULL;
}

bool pl_gguf_paired_rows(const struct pl_gguf *g)
{
    const struct family *f = find_family(g);

    return f && f->paired_rows;
}

struct keys {
    const struct pl_gguf *g;
    const char *architecture;
    struct pl_err *err;
    char key[96];
};

static const char *key(struct keys *k, const char *name)
{
    snprintf(k->key, sizeof(k->key), "%s.%s", k->architecture, name);
    return k->key;
}

/* dflt below min: the key must be there. */
static enum pl_status get_int(struct keys *k, const char *name, int64_t dflt, int64_t min,
                              int64_t max, int64_t *out)
{
    if (dflt < min && !pl_gguf_find(k->g, key(k, name)))
        return pl_fail(k->err, PL_EFORMAT, "%s: no metadata %s", pl_gguf_file(k->g), k->key);
    return pl_gguf_int(k->g, key(k, name), dflt, min, max, out, k->err);
}

static enum pl_status get_dim(struct keys *k, const char *name, int64_t dflt, int64_t max,
                              int32_t *out)
{
    int64_t v = 0;
    enum pl_status st;
    const struct pl_gguf_pair *p = pl_gguf_find(k->g, key(k, name));

    if (p && p->type == PL_GGUF_ARRAY)
        return pl_fail(k->err, PL_EUNSUPPORTED, "%s: %s differs by layer, which is not supported",
                       pl_gguf_file(k->g), k->key);
    st = get_int(k, name, dflt, 1, max, &v);
    if (!st)
        *out = (int32_t)v;
    return st;
}

static enum pl_status get_positive(struct keys *k, const char *name, double dflt, double *out)
{
    enum pl_status st = pl_gguf_real(k->g, key(k, name), dflt, out, k->err);

    if (!st && (!(*out > 0) || !(*out < 1e30)))
        st = pl_fail(k->err, PL_EFORMAT, "%s: %s is missing or not a positive number",
                     pl_gguf_file(k->g), k->key);
    return st;
}

static bool is(struct pl_gguf_str s, const char *text)
{
    return s.len == strlen(text) && !memcmp(s.s, text, s.len);
}

/* What llama.cpp reads; the attention factor comes on top of transformers' 0.1 ln(factor) + 1. */
static enum pl_status get_yarn(struct keys *k, struct pl_arch *a, double factor)
{
    struct pl_rope *r = &a->rope;
    double attention = 1;
    enum pl_status st = get_int(k, "rope.scaling.original_context_length", a->max_positions, 1,
                                MAX_POSITIONS, &r->original_max_positions);

    if (!st)
        st = get_positive(k, "rope.scaling.yarn_beta_fast", 32, &r->beta_fast);
    if (!st)
        st = get_positive(k, "rope.scaling.yarn_beta_slow", 1, &r->beta_slow);
    if (!st)
        st = get_positive(k, "rope.scaling.yarn_attn_factor", 1, &attention);
    if (st)
        return st;
    r->kind = PL_ROPE_YARN;
    r->factor = factor;
    r->truncate = true;
    r->attention_factor = attention * (factor > 1 ? 0.1 * log(factor) + 1 : 1);
    return PL_OK;
}

static enum pl_status get_rope(struct keys *k, struct pl_arch *a)
{
    struct pl_gguf_str type = {NULL, 0};
    struct pl_rope *r = &a->rope;
    int64_t dims = a->head_dim;
    double factor = 1;
    char text[64];
    enum pl_status st = get_positive(k, "rope.freq_base", 10000, &r->theta);

    r->kind = PL_ROPE_DEFAULT;
    r->factor = 1;
    if (!st)
        st = get_int(k, "rope.dimension_count", a->head_dim, 1, MAX_DIM, &dims);
    if (!st && dims != a->head_dim)
        st = pl_fail(k->err, PL_EUNSUPPORTED,
                     "%s: %s is %" PRId64 ", the heads have %d: rotating a part is not supported",
                     pl_gguf_file(k->g), k->key, dims, a->head_dim);
    if (!st) /* before there were types of scaling */
        st = get_positive(k, "rope.scale_linear", 1, &factor);
    if (!st)
        st = pl_gguf_string(k->g, key(k, "rope.scaling.type"), &type, k->err);
    if (!st)
        st = get_positive(k, "rope.scaling.factor", factor, &factor);
    if (st)
        return st;
    if (!type.s || is(type, "linear")) {
        r->kind = factor != 1 ? PL_ROPE_LINEAR : PL_ROPE_DEFAULT;
        r->factor = factor;
        return PL_OK;
    }
    if (is(type, "none"))
        return PL_OK;
    if (is(type, "yarn"))
        return get_yarn(k, a, factor);
    return pl_fail(k->err, PL_EUNSUPPORTED,
                   "%s: %s.rope.scaling.type \"%s\" is not supported (none, linear, yarn are)",
                   pl_gguf_file(k->g), k->architecture,
                   pl_gguf_printable(type, text, sizeof(text)));
}

static enum pl_status get_vocab(struct keys *k, struct pl_arch *a)
{
    const struct pl_tensor_view *t = pl_gguf_tensor(k->g, "token_embd.weight");
    const struct pl_gguf_pair *tokens = pl_gguf_find(k->g, "tokenizer.ggml.tokens");
    int64_t n = t && t->dims == 2 ? t->shape[0] : 0;

    if (n < 1 || n > MAX_VOCAB)
        return pl_fail(k->err, PL_EFORMAT, "%s: no tensor token_embd.weight [vocabulary, width]",
                       pl_gguf_file(k->g));
    a->vocab = (int32_t)n;
    if (tokens && tokens->type == PL_GGUF_ARRAY && tokens->count > (uint64_t)n)
        return pl_fail(k->err, PL_EFORMAT,
                       "%s: tokenizer.ggml.tokens has %" PRIu64
                       " tokens, token_embd.weight %" PRId64 " rows",
                       pl_gguf_file(k->g), tokens->count, n);
    return PL_OK;
}

static void add_eos(struct pl_arch *a, int64_t id)
{
    for (int32_t i = 0; i < a->n_eos; i++)
        if (a->eos[i] == id)
            return;
    if (id >= 0 && id < a->vocab && a->n_eos < PL_MAX_EOS)
        a->eos[a->n_eos++] = (int32_t)id;
}

static enum pl_status get_tokens(struct keys *k, struct pl_arch *a)
{
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    int64_t id = -1;
    enum pl_status st =
        pl_gguf_int(k->g, "tokenizer.ggml.bos_token_id", -1, INT32_MIN, UINT32_MAX, &id, k->err);

    a->bos = !st && id >= 0 && id < a->vocab ? (int32_t)id : -1;
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]) && !st; i++) {
        st = pl_gguf_int(k->g, ends[i], -1, INT32_MIN, UINT32_MAX, &id, k->err);
        if (!st)
            add_eos(a, id);
    }
    return st;
}

static bool has(const struct keys *k, const char *tensor)
{
    return pl_gguf_tensor(k->g, tensor) != NULL;
}

/* Features that cannot be run. */
static enum pl_status refuse(struct keys *k, const struct pl_arch *a)
{
    static const char *const refused[] = {"blk.0.ffn_gate_exps.weight", "blk.0.ffn_gate_inp.weight",
                                          "blk.0.ffn_gate.0.weight",    "blk.0.attn_sinks.weight",
                                          "blk.0.attn_qkv.weight",      "blk.0.attn_q_norm.weight"};
    int64_t experts = 0, window = 0;
    enum pl_status st = get_int(k, "expert_count", 0, 0, INT64_MAX, &experts);

    if (!st && experts)
        return pl_fail(k->err, PL_EUNSUPPORTED, "%s: %s is %" PRId64 ": experts are not supported",
                       pl_gguf_file(k->g), k->key, experts);
    if (!st)
        st = get_int(k, "attention.sliding_window", 0, 0, INT64_MAX, &window);
    if (!st && window && window < a->max_positions)
        return pl_fail(k->err, PL_EUNSUPPORTED, "%s: %s %" PRId64 " is not supported",
                       pl_gguf_file(k->g), k->key, window);
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]) - a->qk_norm && !st; i++)
        if (has(k, refused[i]))
            return pl_fail(k->err, PL_EUNSUPPORTED,
                           "%s: it has a tensor %s, which is not supported in a %s model",
                           pl_gguf_file(k->g), refused[i], k->architecture);
    return st;
}

static enum pl_status get_sizes(struct keys *k, struct pl_arch *a)
{
    int64_t head_dim = 0, value_dim = 0;
    double eps = 0;
    enum pl_status st = get_dim(k, "block_count", 0, MAX_LAYERS, &a->layers);

    if (!st)
        st = get_dim(k, "embedding_length", 0, MAX_DIM, &a->hidden);
    if (!st)
        st = get_dim(k, "attention.head_count", 0, MAX_DIM, &a->heads);
    if (!st)
        st = get_dim(k, "attention.head_count_kv", a->heads, MAX_DIM, &a->kv_heads);
    if (!st)
        st = get_dim(k, "feed_forward_length", 0, MAX_DIM, &a->ffn);
    if (!st)
        st = get_int(k, "context_length", 0, 1, MAX_POSITIONS, &a->max_positions);
    if (!st)
        st = get_int(k, "attention.key_length", a->hidden / a->heads, 1, MAX_DIM, &head_dim);
    if (!st)
        st = get_int(k, "attention.value_length", head_dim, 1, MAX_DIM, &value_dim);
    if (!st)
        st = get_positive(k,
                          a->norm == PL_NORM_RMS ? "attention.layer_norm_rms_epsilon"
                                                 : "attention.layer_norm_epsilon",
                          0, &eps);
    if (st)
        return st;
    a->head_dim = (int32_t)head_dim;
    a->norm_eps = (float)eps;
    if (!pl_gguf_find(k->g, key(k, "attention.key_length")) && a->hidden % a->heads)
        return pl_fail(k->err, PL_EFORMAT,
                       "%s: embedding_length %d is no multiple of attention.head_count %d",
                       pl_gguf_file(k->g), a->hidden, a->heads);
    if (value_dim != head_dim)
        return pl_fail(k->err, PL_EUNSUPPORTED,
                       "%s: keys of %" PRId64 " and values of %" PRId64 " are not supported",
                       pl_gguf_file(k->g), head_dim, value_dim);
    if (a->heads % a->kv_heads)
        return pl_fail(k->err, PL_EFORMAT,
                       "%s: attention.head_count %d is no multiple of attention.head_count_kv %d",
                       pl_gguf_file(k->g), a->heads, a->kv_heads);
    if (a->head_dim % 2 && a->pos == PL_POS_ROPE)
        return pl_fail(k->err, PL_EFORMAT, "%s: heads of %d: RoPE needs pairs", pl_gguf_file(k->g),
                       a->head_dim);
    if ((int64_t)a->heads * a->head_dim > MAX_DIM)
        return pl_fail(k->err, PL_EFORMAT, "%s: %d heads of %d are beyond %d", pl_gguf_file(k->g),
                       a->heads, a->head_dim, MAX_DIM);
    return PL_OK;
}

/* Rows of the table of learned positions are the positions there are. */
static enum pl_status get_positions(struct keys *k, struct pl_arch *a)
{
    const struct pl_tensor_view *t = pl_gguf_tensor(k->g, "position_embd.weight");

    if (!t || t->dims != 2 || t->shape[0] < 1 || t->shape[0] > MAX_DIM)
        return pl_fail(k->err, PL_EFORMAT, "%s: no tensor position_embd.weight [positions, width]",
                       pl_gguf_file(k->g));
    a->max_positions = t->shape[0];
    return PL_OK;
}

static enum pl_status fill_llama(struct keys *k, struct pl_arch *a)
{
    enum pl_status st;

    a->causal = a->head = a->final_norm = a->gated = true;
    a->norm = PL_NORM_RMS;
    a->pos = PL_POS_ROPE;
    a->act = PL_ACT_SILU;
    a->qk_norm = !strcmp(k->architecture, "qwen3");
    a->qkv_bias = has(k, "blk.0.attn_q.bias");
    a->o_bias = has(k, "blk.0.attn_output.bias");
    a->mlp_bias = has(k, "blk.0.ffn_down.bias");
    st = get_sizes(k, a);
    if (!st)
        st = get_rope(k, a);
    return st ? st : refuse(k, a);
}

static enum pl_status fill_gpt2(struct keys *k, struct pl_arch *a)
{
    enum pl_status st;

    a->causal = a->head = a->final_norm = true;
    a->norm = PL_NORM_LAYER;
    a->pos = PL_POS_LEARNED;
    a->act = PL_ACT_GELU_TANH;
    a->qkv_bias = a->o_bias = a->mlp_bias = true;
    a->fused_qkv = true;
    st = get_sizes(k, a);
    return st ? st : get_positions(k, a);
}

static enum pl_status fill_bert(struct keys *k, struct pl_arch *a)
{
    const struct pl_tensor_view *types = pl_gguf_tensor(k->g, "token_types.weight");
    bool causal = false;
    enum pl_status st = pl_gguf_bool(k->g, key(k, "attention.causal"), false, &causal, k->err);

    if (!st && causal)
        return pl_fail(k->err, PL_EUNSUPPORTED, "%s: a causal bert is not supported",
                       pl_gguf_file(k->g));
    a->post_norm = a->embed_norm = true;
    a->norm = PL_NORM_LAYER;
    a->pos = PL_POS_LEARNED;
    a->act = PL_ACT_GELU;
    a->qkv_bias = a->o_bias = a->mlp_bias = true;
    if (types && types->dims == 2 && types->shape[0] > 0 && types->shape[0] <= MAX_DIM)
        a->types = (int32_t)types->shape[0];
    if (!st)
        st = get_sizes(k, a);
    return st ? st : get_positions(k, a);
}

enum pl_status pl_gguf_arch(const struct pl_gguf *g, struct pl_arch *out, struct pl_err *err)
{
    const struct family *f = find_family(g);
    struct keys k = {.g = g, .err = err};
    struct pl_arch a = {
        .bos = -1, .pad = -1, .decoder_start = -1, .logit_scale = 1, .init_std = 0.02f};
    struct pl_gguf_str name;
    int64_t split = 0;
    char text[64];
    enum pl_status st = pl_gguf_string(g, "general.architecture", &name, err);

    if (!st && !name.s)
        st = pl_fail(err, PL_EFORMAT, "%s: no metadata general.architecture", pl_gguf_file(g));
    if (!st && !f)
        st = pl_fail(
            err, PL_EUNSUPPORTED,
            "%s: GGUF architecture \"%s\" is not supported (llama, qwen2, qwen3, gpt2, bert are)",
            pl_gguf_file(g), pl_gguf_printable(name, text, sizeof(text)));
    if (!st)
        st = pl_gguf_int(g, "split.count", 0, 0, UINT16_MAX, &split, err);
    if (!st && split > 1)
        st = pl_fail(err, PL_EUNSUPPORTED,
                     "%s: one of %" PRId64 " parts: split GGUF models are not supported (join them "
                     "with llama-gguf-split --merge)",
                     pl_gguf_file(g), split);
    if (st)
        return st;
    k.architecture = f->architecture;
    snprintf(a.name, sizeof(a.name), "%s", f->name);
    snprintf(a.family, sizeof(a.family), "%s", f->names);
    st = f->fill(&k, &a);
    if (!st)
        st = get_vocab(&k, &a);
    if (!st)
        st = get_tokens(&k, &a);
    a.tied = a.head && !has(&k, "output.weight");
    a.usual_positions = a.max_positions;
    if (!st)
        *out = a;
    return st;
}
