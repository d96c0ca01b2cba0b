#include "model/weights.h"

#include "base/rng.h"
#include "model/gguf_arch.h"
#include "model/quant.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Where the decoder's tensors may stand: as published, bare, and inside multimodal models. */
static const char *const prefixes[] = {"model.", "", "language_model.model.",
                                       "model.language_model."};
static const char *const head_names[] = {"lm_head.weight", "language_model.lm_head.weight"};
static const char *const gguf_head_names[] = {"output.weight", "output.weight"};

/* What the parts of a Llama are called. */
struct names {
    const char *embed, *blocks, *attn_norm, *q, *k, *v, *o, *ffn_norm, *gate, *up, *down,
        *final_norm;
    const char *const *head; /* two names */
};
static const struct names hub_names = {
    "embed_tokens",     "layers",           "input_layernorm",  "self_attn.q_proj",
    "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "post_attention_layernorm",
    "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj",    "norm",
    head_names};
static const struct names gguf_names = {
    "token_embd", "blk",      "attn_norm", "attn_q",   "attn_k",      "attn_v",       "attn_output",
    "ffn_norm",   "ffn_gate", "ffn_up",    "ffn_down", "output_norm", gguf_head_names};

struct resolver {
    const struct pl_arch *arch;
    const struct pl_checkpoint *c; /* NULL: random */
    uint64_t seed;
    struct pl_arena *arena;
    const struct pl_gguf *gguf; /* NULL: c is none */
    const struct names *names;
    const char *prefix;
    int32_t paired; /* of q and k: see backend.h */
    int32_t used;
    int64_t elements[PL_DT_COUNT]; /* of matrices, by type */
    struct pl_err *err;
};

static void expected_text(int64_t rows, int64_t cols, bool vector, char *out, size_t size)
{
    if (vector)
        snprintf(out, size, "[%" PRId64 "]", cols);
    else
        snprintf(out, size, "[%" PRId64 ", %" PRId64 "]", rows, cols);
}

static enum pl_status check_view(struct resolver *r, const struct pl_tensor_view *t, int64_t rows,
                                 int64_t cols, bool vector)
{
    char want[64], found[160];
    bool fits = vector ? t->dims == 1 && t->shape[0] == cols
                       : t->dims == 2 && t->shape[0] == rows && t->shape[1] == cols;

    expected_text(rows, cols, vector, want, sizeof(want));
    pl_tensor_shape_text(t, found, sizeof(found));
    if (!fits)
        return pl_fail(r->err, PL_EFORMAT, "%s: tensor %s: expected shape %s by %s, found %s",
                       t->file, t->name, want, r->gguf ? "the metadata" : "config.json", found);
    if (!pl_dtype_traits(t->dtype)->computes && !(r->gguf && pl_quant_decodes(t->dtype)))
        return pl_fail(
            r->err, PL_EUNSUPPORTED, "%s: tensor %s is %s: weights must be F32, F16%s", t->file,
            t->name,
            r->gguf ? pl_dtype_traits(t->dtype)->name : pl_dtype_traits(t->dtype)->safetensors,
            r->gguf ? ", BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 or Q2_K to Q6_K" : " or BF16");
    return PL_OK;
}

/* Fills one source. rows 0: a vector. fill: what random vectors hold. */
static enum pl_status resolve(struct resolver *r, struct pl_weight_source *s, const char *name,
                              int64_t rows, int64_t cols, float fill)
{
    enum pl_status st;
    char want[64];

    if (!name)
        return pl_fail(r->err, PL_ENOMEM, "no memory for weight names");
    *s = (struct pl_weight_source){.name = name, .rows = rows ? rows : 1, .cols = cols};
    if (!r->c) {
        s->key = pl_keyv(r->seed, pl_hash_str(name));
        s->std = rows ? r->arch->init_std : 0;
        s->fill = fill;
        return PL_OK;
    }
    s->view = pl_checkpoint_find(r->c, name);
    if (!s->view) {
        expected_text(rows, cols, !rows, want, sizeof(want));
        return pl_fail(r->err, PL_EFORMAT, "the checkpoint has no tensor %s (expected shape %s)",
                       name, want);
    }
    st = check_view(r, s->view, rows, cols, !rows);
    if (st)
        return st;
    r->used++;
    r->elements[s->view->dtype] += rows ? s->view->elements : 0;
    return PL_OK;
}

/* One linear of a layer with its bias, where it has one. */
static enum pl_status linear(struct resolver *r, struct pl_weight_source *w,
                             struct pl_weight_source *b, int32_t layer, const char *name,
                             int64_t rows, int64_t cols, bool bias)
{
    const char *blocks = r->names->blocks;
    enum pl_status st = resolve(
        r, w, pl_arena_printf(r->arena, "%s%s.%d.%s.weight", r->prefix, blocks, layer, name), rows,
        cols, 0);

    if (!st && bias)
        st = resolve(r, b,
                     pl_arena_printf(r->arena, "%s%s.%d.%s.bias", r->prefix, blocks, layer, name),
                     0, rows, 0);
    if (!bias)
        *b = (struct pl_weight_source){.name = name, .absent = true};
    return st;
}

static enum pl_status norm(struct resolver *r, struct pl_weight_source *s, int32_t layer,
                           const char *name)
{
    return resolve(
        r, s,
        pl_arena_printf(r->arena, "%s%s.%d.%s.weight", r->prefix, r->names->blocks, layer, name), 0,
        r->arch->hidden, 1);
}

static enum pl_status llama_layer(struct resolver *r, struct pl_layer_sources *s, int32_t l)
{
    const struct pl_arch *a = r->arch;
    const struct names *n = r->names;
    int64_t h = a->hidden, q = (int64_t)a->heads * a->head_dim, f = a->ffn;
    int64_t kv = (int64_t)a->kv_heads * a->head_dim;
    enum pl_status st;

    st = norm(r, &s->attn_norm, l, n->attn_norm);
    if (!st)
        st = linear(r, &s->q, &s->q_bias, l, n->q, q, h, a->qkv_bias);
    if (!st)
        st = linear(r, &s->k, &s->k_bias, l, n->k, kv, h, a->qkv_bias);
    if (!st)
        st = linear(r, &s->v, &s->v_bias, l, n->v, kv, h, a->qkv_bias);
    if (!st)
        st = linear(r, &s->o, &s->o_bias, l, n->o, h, q, a->o_bias);
    if (!st)
        st = norm(r, &s->ffn_norm, l, n->ffn_norm);
    if (!st)
        st = linear(r, &s->gate, &s->gate_bias, l, n->gate, f, h, a->mlp_bias);
    if (!st)
        st = linear(r, &s->up, &s->up_bias, l, n->up, f, h, a->mlp_bias);
    if (!st)
        st = linear(r, &s->down, &s->down_bias, l, n->down, h, f, a->mlp_bias);
    s->q.paired = s->k.paired = s->q_bias.paired = s->k_bias.paired = r->paired;
    return st;
}

static void find_prefix(struct resolver *r)
{
    char name[128];

    r->gguf = r->c ? pl_checkpoint_gguf(r->c) : NULL;
    r->names = r->gguf ? &gguf_names : &hub_names;
    r->prefix = r->gguf ? "" : prefixes[0];
    if (r->gguf) {
        r->paired = pl_gguf_paired_rows(r->gguf) ? r->arch->head_dim : 0;
        return;
    }
    for (size_t i = 0; r->c && i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        snprintf(name, sizeof(name), "%sembed_tokens.weight", prefixes[i]);
        if (pl_checkpoint_find(r->c, name)) {
            r->prefix = prefixes[i];
            return;
        }
    }
}

static enum pl_status llama_head(struct resolver *r, struct pl_weight_source *s)
{
    const char *const *names = r->names->head;
    const char *name = names[0];

    if (r->arch->tied) {
        *s = (struct pl_weight_source){.name = name, .absent = true};
        return PL_OK;
    }
    for (size_t i = 0; r->c && i < 2; i++) {
        if (pl_checkpoint_find(r->c, names[i])) {
            name = names[i];
            break;
        }
    }
    return resolve(r, s, name, r->arch->vocab, r->arch->hidden, 0);
}

/* GGUF files carry llama3's scaling as the factors themselves. */
static enum pl_status rope_factors(struct resolver *r, struct pl_weight_source *s)
{
    *s = (struct pl_weight_source){.name = "rope_freqs.weight", .absent = true};
    if (!r->gguf || !pl_checkpoint_find(r->c, s->name))
        return PL_OK;
    return resolve(r, s, s->name, 0, r->arch->head_dim / 2, 1);
}

enum pl_status pl_weights_resolve(const struct pl_arch *a, const struct pl_checkpoint *c,
                                  uint64_t seed, struct pl_arena *arena,
                                  struct pl_model_sources *out, struct pl_weights_report *report,
                                  struct pl_err *err)
{
    struct resolver r = {.arch = a, .c = c, .seed = seed, .arena = arena, .err = err};
    struct pl_model_sources s = {0};
    enum pl_status st;

    find_prefix(&r);
    s.layers = pl_arena_calloc(arena, (size_t)a->layers, sizeof(*s.layers));
    if (!s.layers)
        return pl_fail(err, PL_ENOMEM, "no memory for weight names");
    st = resolve(&r, &s.embed, pl_arena_printf(arena, "%s%s.weight", r.prefix, r.names->embed),
                 a->vocab, a->hidden, 0);
    for (int32_t l = 0; l < a->layers && !st; l++)
        st = llama_layer(&r, &s.layers[l], l);
    if (!st)
        st = resolve(&r, &s.final_norm,
                     pl_arena_printf(arena, "%s%s.weight", r.prefix, r.names->final_norm), 0,
                     a->hidden, 1);
    if (!st)
        st = llama_head(&r, &s.lm_head);
    if (!st)
        st = rope_factors(&r, &s.rope_factors);
    if (st)
        return st;
    report->used = r.used;
    report->stored = PL_DT_F32;
    for (int dt = 0; dt < PL_DT_COUNT; dt++)
        if (r.elements[dt] > r.elements[report->stored])
            report->stored = (enum pl_dtype)dt;
    report->blocks = false;
    for (int dt = 0; dt < PL_DT_COUNT; dt++)
        report->blocks = report->blocks || (r.elements[dt] && pl_quant_decodes((enum pl_dtype)dt));
    *out = s;
    return PL_OK;
}
