#include "model/weights.h"

#include "base/rng.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Where the decoder's tensors may stand: as published, bare, and inside multimodal models. */
static const char *const prefixes[] = {"model.", "", "language_model.model.",
                                       "model.language_model."};
static const char *const head_names[] = {"lm_head.weight", "language_model.lm_head.weight"};

struct resolver {
    const struct pl_arch *arch;
    const struct pl_checkpoint *c; /* NULL: random */
    uint64_t seed;
    struct pl_arena *arena;
    const char *prefix;
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
        return pl_fail(r->err, PL_EFORMAT,
                       "%s: tensor %s: expected shape %s by config.json, found %s", t->file,
                       t->name, want, found);
    if (!pl_dtype_traits(t->dtype)->computes)
        return pl_fail(r->err, PL_EUNSUPPORTED,
                       "%s: tensor %s is %s: weights must be F32, F16 or BF16", t->file, t->name,
                       pl_dtype_traits(t->dtype)->safetensors);
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
    enum pl_status st =
        resolve(r, w, pl_arena_printf(r->arena, "%slayers.%d.%s.weight", r->prefix, layer, name),
                rows, cols, 0);

    if (!st && bias)
        st = resolve(r, b, pl_arena_printf(r->arena, "%slayers.%d.%s.bias", r->prefix, layer, name),
                     0, rows, 0);
    if (!bias)
        *b = (struct pl_weight_source){.name = name, .absent = true};
    return st;
}

static enum pl_status llama_layer(struct resolver *r, struct pl_layer_sources *s, int32_t l)
{
    const struct pl_arch *a = r->arch;
    int64_t h = a->hidden, q = (int64_t)a->heads * a->head_dim, f = a->ffn;
    int64_t kv = (int64_t)a->kv_heads * a->head_dim;
    enum pl_status st;

    st = resolve(r, &s->attn_norm,
                 pl_arena_printf(r->arena, "%slayers.%d.input_layernorm.weight", r->prefix, l), 0,
                 h, 1);
    if (!st)
        st = linear(r, &s->q, &s->q_bias, l, "self_attn.q_proj", q, h, a->qkv_bias);
    if (!st)
        st = linear(r, &s->k, &s->k_bias, l, "self_attn.k_proj", kv, h, a->qkv_bias);
    if (!st)
        st = linear(r, &s->v, &s->v_bias, l, "self_attn.v_proj", kv, h, a->qkv_bias);
    if (!st)
        st = linear(r, &s->o, &s->o_bias, l, "self_attn.o_proj", h, q, a->o_bias);
    if (!st)
        st = resolve(
            r, &s->ffn_norm,
            pl_arena_printf(r->arena, "%slayers.%d.post_attention_layernorm.weight", r->prefix, l),
            0, h, 1);
    if (!st)
        st = linear(r, &s->gate, &s->gate_bias, l, "mlp.gate_proj", f, h, a->mlp_bias);
    if (!st)
        st = linear(r, &s->up, &s->up_bias, l, "mlp.up_proj", f, h, a->mlp_bias);
    if (!st)
        st = linear(r, &s->down, &s->down_bias, l, "mlp.down_proj", h, f, a->mlp_bias);
    return st;
}

static void find_prefix(struct resolver *r)
{
    char name[128];

    r->prefix = prefixes[0];
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
    const char *name = head_names[0];

    if (r->arch->tied) {
        *s = (struct pl_weight_source){.name = name, .absent = true};
        return PL_OK;
    }
    for (size_t i = 0; r->c && i < sizeof(head_names) / sizeof(head_names[0]); i++) {
        if (pl_checkpoint_find(r->c, head_names[i])) {
            name = head_names[i];
            break;
        }
    }
    return resolve(r, s, name, r->arch->vocab, r->arch->hidden, 0);
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
    st = resolve(&r, &s.embed, pl_arena_printf(arena, "%sembed_tokens.weight", r.prefix), a->vocab,
                 a->hidden, 0);
    for (int32_t l = 0; l < a->layers && !st; l++)
        st = llama_layer(&r, &s.layers[l], l);
    if (!st)
        st = resolve(&r, &s.final_norm, pl_arena_printf(arena, "%snorm.weight", r.prefix), 0,
                     a->hidden, 1);
    if (!st)
        st = llama_head(&r, &s.lm_head);
    if (st)
        return st;
    report->used = r.used;
    report->stored = PL_DT_F32;
    for (int dt = 0; dt < PL_DT_COUNT; dt++)
        if (r.elements[dt] > r.elements[report->stored])
            report->stored = (enum pl_dtype)dt;
    *out = s;
    return PL_OK;
}
