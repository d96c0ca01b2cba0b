#include "model/weights.h"

#include "base/rng.h"
#include "model/gguf_arch.h"
#include "model/quant.h"
#include "model/weight_names.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct resolver {
    const struct pl_arch *arch;
    const struct pl_weight_names *names;
    const char *const *prefixes;
    struct pl_finder *f;
    const struct pl_checkpoint *c; /* NULL: random */
    struct pl_arena *arena;
    const struct pl_gguf *gguf; /* NULL: c is none */
    const char *prefix;
    int32_t paired; /* of q and k: see backend.h */
    float std;      /* of random matrices */
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

/* Appends name to a list, which ends with … when it is full. */
static void list_name(struct pl_err *list, const char *name)
{
    char *text = list->text;
    size_t at = strlen(text), room = sizeof(list->text) - 256;

    if (at + strlen(name) + 2 < room)
        snprintf(text + at, room - at, "%s%s", at ? ", " : "", name);
    else if (at < 3 || strcmp(text + at - 3, "…") != 0)
        snprintf(text + at, sizeof(list->text) - at, "%s…", at ? ", " : "");
}

static void note_missing(struct pl_finder *f, const char *name, const char *shape)
{
    if (f->missing++)
        list_name(&f->more_missing, name);
    else
        snprintf(f->first_missing.text, sizeof(f->first_missing.text), "%.150s (expected shape %s)",
                 name, shape);
}

static void note_used(struct resolver *r, const struct pl_tensor_view *t)
{
    r->f->used[t - pl_checkpoint_tensor(r->c, 0)] = true;
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
        s->key = pl_keyv(r->f->seed, pl_hash_str(name));
        s->std = rows ? r->std : 0;
        s->fill = fill;
        return PL_OK;
    }
    s->view = pl_checkpoint_find(r->c, name);
    if (!s->view) {
        expected_text(rows, cols, !rows, want, sizeof(want));
        note_missing(r->f, name, want);
        return PL_OK;
    }
    st = check_view(r, s->view, rows, cols, !rows);
    if (st)
        return st;
    note_used(r, s->view);
    r->f->elements[s->view->dtype] += rows ? s->view->elements : 0;
    return PL_OK;
}

/* A part of a tensor: outputs [first, first + rows) of `all`, which may be stored as [in, all]. */
static enum pl_status resolve_part(struct resolver *r, struct pl_weight_source *s, const char *name,
                                   int64_t first, int64_t rows, int64_t all, int64_t cols)
{
    bool vector = rows == 0;
    enum pl_status st;

    if (r->c && r->arch->transposed && !vector)
        st = resolve(r, s, name, cols, all, 0);
    else
        st = resolve(r, s, name, vector ? 0 : all, cols, 0);
    if (st)
        return st;
    if (!r->c)
        s->key += (uint64_t)first;
    s->ld = r->c && r->arch->transposed && !vector ? all : 0;
    s->skip = s->ld ? first : first * cols;
    s->rows = rows;
    s->cols = cols;
    return PL_OK;
}

static const char *block_name(struct resolver *r, int32_t l, const char *name, const char *end)
{
    return pl_arena_printf(r->arena, "%s%s%d.%s%s", r->prefix, r->names->block, l, name, end);
}

/* One linear of a block with its bias, where it has one. */
static enum pl_status linear(struct resolver *r, struct pl_weight_source *w,
                             struct pl_weight_source *b, int32_t layer, const char *name,
                             int64_t rows, int64_t cols, bool bias)
{
    enum pl_status st =
        resolve_part(r, w, block_name(r, layer, name, ".weight"), 0, rows, rows, cols);

    if (!st && bias)
        st = resolve(r, b, block_name(r, layer, name, ".bias"), 0, rows, 0);
    return st;
}

/* q, k and v below each other in one tensor, their biases behind each other in another. */
static enum pl_status fused_qkv(struct resolver *r, struct pl_layer_sources *s, int32_t l)
{
    const struct pl_arch *a = r->arch;
    int64_t q = (int64_t)a->heads * a->head_dim, kv = (int64_t)a->kv_heads * a->head_dim, at = 0;
    struct pl_weight_source *const w[] = {&s->q, &s->k, &s->v}, *const b[] = {&s->q_bias,
                                                                              &s->k_bias,
                                                                              &s->v_bias};
    const char *name = block_name(r, l, r->names->q, ".weight");
    const char *bias = block_name(r, l, r->names->q, ".bias");
    enum pl_status st = PL_OK;

    for (int i = 0; i < 3 && !st; i++) {
        int64_t rows = i ? kv : q;
        st = resolve_part(r, w[i], name, at, rows, q + 2 * kv, a->hidden);
        if (!st && a->qkv_bias) {
            st = resolve(r, b[i], bias, 0, q + 2 * kv, 0);
            b[i]->cols = rows;
            b[i]->skip = at;
        }
        at += rows;
    }
    return st;
}

/* Gain and, for LayerNorm, bias; old files say gamma and beta. */
static enum pl_status norm(struct resolver *r, struct pl_weight_source *gain,
                           struct pl_weight_source *bias, const char *name)
{
    const char *g = pl_arena_printf(r->arena, "%s.weight", name);
    const char *b = pl_arena_printf(r->arena, "%s.bias", name);
    const char *old = pl_arena_printf(r->arena, "%s.gamma", name);
    enum pl_status st;

    if (!name || !g || !b || !old)
        return pl_fail(r->err, PL_ENOMEM, "no memory for weight names");
    if (r->c && !pl_checkpoint_find(r->c, g) && pl_checkpoint_find(r->c, old)) {
        g = old;
        b = pl_arena_printf(r->arena, "%s.beta", name);
    }
    st = resolve(r, gain, g, 0, r->arch->hidden, 1);
    if (!st && r->arch->norm == PL_NORM_LAYER)
        st = resolve(r, bias, b, 0, r->arch->hidden, 0);
    return st;
}

static enum pl_status cross_attention(struct resolver *r, struct pl_layer_sources *s, int32_t l)
{
    const struct pl_weight_names *n = r->names;
    struct pl_weight_source none = {0};
    int64_t h = r->arch->hidden, q = (int64_t)r->arch->heads * r->arch->head_dim;
    enum pl_status st = norm(r, &s->cross_norm, &none, block_name(r, l, n->cross_norm, ""));

    if (!st)
        st = linear(r, &s->cross_q, &none, l, n->cross_q, q, h, false);
    if (!st)
        st = linear(r, &s->cross_k, &none, l, n->cross_k, q, h, false);
    if (!st)
        st = linear(r, &s->cross_v, &none, l, n->cross_v, q, h, false);
    if (!st)
        st = linear(r, &s->cross_o, &none, l, n->cross_o, h, q, false);
    return st;
}

static enum pl_status attention(struct resolver *r, struct pl_layer_sources *s, int32_t l)
{
    const struct pl_arch *a = r->arch;
    const struct pl_weight_names *n = r->names;
    int64_t h = a->hidden, q = (int64_t)a->heads * a->head_dim;
    int64_t kv = (int64_t)a->kv_heads * a->head_dim;
    enum pl_status st = PL_OK;

    if (a->fused_qkv)
        st = fused_qkv(r, s, l);
    else
        st = linear(r, &s->q, &s->q_bias, l, n->q, q, h, a->qkv_bias);
    if (!st && !a->fused_qkv)
        st = linear(r, &s->k, &s->k_bias, l, n->k, kv, h, a->qkv_bias);
    if (!st && !a->fused_qkv)
        st = linear(r, &s->v, &s->v_bias, l, n->v, kv, h, a->qkv_bias);
    if (!st)
        st = linear(r, &s->o, &s->o_bias, l, n->o, h, q, a->o_bias);
    s->q.paired = s->k.paired = s->q_bias.paired = s->k_bias.paired = r->paired;
    if (!st && a->qk_norm)
        st = resolve(r, &s->q_norm, block_name(r, l, n->q_norm, ".weight"), 0, a->head_dim, 1);
    if (!st && a->qk_norm)
        st = resolve(r, &s->k_norm, block_name(r, l, n->k_norm, ".weight"), 0, a->head_dim, 1);
    return st;
}

static enum pl_status block(struct resolver *r, struct pl_layer_sources *s, int32_t l)
{
    const struct pl_arch *a = r->arch;
    const struct pl_weight_names *n = r->names;
    int64_t h = a->hidden, f = a->ffn;
    enum pl_status st = PL_OK;

    if (l || !a->bare_start)
        st = norm(r, &s->attn_norm, &s->attn_norm_bias, block_name(r, l, n->attn_norm, ""));
    if (!st)
        st = attention(r, s, l);
    if (!st && a->encoder_layers)
        st = cross_attention(r, s, l);
    if (!st)
        st = norm(r, &s->ffn_norm, &s->ffn_norm_bias, block_name(r, l, n->ffn_norm, ""));
    if (!st && a->gated)
        st = linear(r, &s->gate, &s->gate_bias, l, n->gate, f, h, a->mlp_bias);
    if (!st)
        st = linear(r, &s->up, &s->up_bias, l, !a->gated && n->plain_up ? n->plain_up : n->up, f, h,
                    a->mlp_bias);
    if (!st)
        st = linear(r, &s->down, &s->down_bias, l, n->down, h, f, a->mlp_bias);
    return st;
}

/* Prefix and name of the embedding table under which the checkpoint has one. */
static const char *find_prefix(struct resolver *r)
{
    const struct pl_weight_names *n = r->names;
    char name[128];

    for (size_t i = 0; r->c && r->prefixes[i]; i++) {
        for (size_t j = 0; n->embed[j]; j++) {
            snprintf(name, sizeof(name), "%s%s", r->prefixes[i], n->embed[j]);
            if (pl_checkpoint_find(r->c, name)) {
                r->prefix = r->prefixes[i];
                return n->embed[j];
            }
        }
    }
    r->prefix = r->prefixes[0];
    return n->embed[0];
}

static const char *outer_name(struct resolver *r, const char *name)
{
    return name ? pl_arena_printf(r->arena, "%s%s", r->prefix, name) : NULL;
}

/* The first conv of an image tower, [hidden, channels, patch, patch], is a matrix to us. */
static enum pl_status patches(struct resolver *r, struct pl_model_sources *s)
{
    const struct pl_arch *a = r->arch;
    int64_t each = (int64_t)a->channels * a->patch * a->patch;
    const char *name = outer_name(r, r->names->patch);
    const struct pl_tensor_view *t = r->c && name ? pl_checkpoint_find(r->c, name) : NULL;
    struct pl_tensor_view *flat;
    char found[160];

    if (!t)
        return resolve(r, &s->patch, name, a->hidden, each, 0);
    pl_tensor_shape_text(t, found, sizeof(found));
    if (t->dims != 4 || t->shape[0] != a->hidden || t->shape[1] != a->channels ||
        t->shape[2] != a->patch || t->shape[3] != a->patch)
        return pl_fail(r->err, PL_EFORMAT,
                       "%s: tensor %s: expected shape [%d, %d, %d, %d] by config.json, found %s",
                       t->file, t->name, a->hidden, a->channels, a->patch, a->patch, found);
    flat = pl_arena_calloc(r->arena, 1, sizeof(*flat));
    if (!flat)
        return pl_fail(r->err, PL_ENOMEM, "no memory for weight names");
    *flat = *t;
    flat->dims = 2;
    flat->shape[1] = each;
    s->patch =
        (struct pl_weight_source){.name = name, .view = flat, .rows = a->hidden, .cols = each};
    note_used(r, t);
    return check_view(r, flat, a->hidden, each, false);
}

/* What stands before the blocks. */
static enum pl_status inputs(struct resolver *r, struct pl_model_sources *s, const char *embed)
{
    const struct pl_arch *a = r->arch;
    const struct pl_weight_names *n = r->names;
    enum pl_status st = PL_OK;

    if (a->vocab)
        st = resolve(r, &s->embed, outer_name(r, embed), a->vocab, a->hidden, 0);
    if (!st && a->pos == PL_POS_LEARNED)
        st = resolve(r, &s->positions, outer_name(r, n->positions),
                     a->pos_offset + a->max_positions, a->hidden, 0);
    if (!st && a->types)
        st = resolve(r, &s->types, outer_name(r, n->types), a->types, a->hidden, 0);
    if (!st && a->embed_norm)
        st = norm(r, &s->embed_norm, &s->embed_norm_bias, outer_name(r, n->embed_norm));
    if (!st && a->patch)
        st = patches(r, s);
    if (!st && a->patch)
        st = resolve(r, &s->cls, outer_name(r, n->cls), 0, a->hidden, 0);
    return st;
}

/* A head that is not the embedding; t5's may stand there whatever the configuration says. */
static enum pl_status head(struct resolver *r, struct pl_weight_source *s)
{
    const struct pl_weight_names *n = r->names;
    const char *name = n->heads[0];
    bool t5 = !strcmp(n->family, "t5"), found = false;

    for (size_t i = 0; r->c && n->heads[i] && !found; i++) {
        found = pl_checkpoint_find(r->c, n->heads[i]) != NULL;
        name = found ? n->heads[i] : name;
    }
    if (t5 && r->c ? !found : r->arch->tied)
        return PL_OK;
    return resolve(r, s, name, r->arch->vocab, r->arch->hidden, 0);
}

/* One stack of blocks with what stands before and behind it. */
static enum pl_status stack(struct resolver *r, struct pl_model_sources *s)
{
    const struct pl_arch *a = r->arch;
    const struct pl_weight_names *n = r->names;
    const char *embed = find_prefix(r), *pooler;
    enum pl_status st = inputs(r, s, embed);

    s->layers = pl_arena_calloc(r->arena, (size_t)a->layers, sizeof(*s->layers));
    if (!s->layers)
        return pl_fail(r->err, PL_ENOMEM, "no memory for weight names");
    if (!st && a->pos == PL_POS_RELATIVE)
        st = resolve(r, &s->relative, outer_name(r, n->relative), a->buckets, a->heads, 0);
    for (int32_t l = 0; l < a->layers && !st; l++)
        st = block(r, &s->layers[l], l);
    if (!st && a->final_norm)
        st = norm(r, &s->final_norm, &s->final_norm_bias, outer_name(r, n->final_norm));
    pooler = n->pooler ? pl_arena_printf(r->arena, "%s%s.weight", r->prefix, n->pooler) : NULL;
    if (!st && r->c && pooler && pl_checkpoint_find(r->c, pooler)) {
        st = resolve(r, &s->pooler, pooler, a->hidden, a->hidden, 0);
        if (!st)
            st = resolve(r, &s->pooler_bias,
                         pl_arena_printf(r->arena, "%s%s.bias", r->prefix, n->pooler), 0, a->hidden,
                         0);
    }
    return st;
}

/* Room for what is used of the checkpoint. */
static enum pl_status begin(struct pl_finder *f, struct pl_err *err)
{
    if (!f->c || f->used)
        return PL_OK;
    f->used = pl_arena_calloc(f->arena, pl_checkpoint_count(f->c) + 1, sizeof(*f->used));
    f->passed = pl_arena_calloc(f->arena, pl_checkpoint_count(f->c) + 1, sizeof(*f->passed));
    return f->used && f->passed ? PL_OK : pl_fail(err, PL_ENOMEM, "no memory for weight names");
}

enum pl_status pl_finder_network(struct pl_finder *f, const struct pl_arch *a,
                                 const char *const *prefixes, struct pl_model_sources *out,
                                 struct pl_err *err)
{
    bool t5_encoder = !strcmp(a->family, "t5") && !a->causal;
    struct resolver r = {.arch = a,
                         .f = f,
                         .gguf = f->c ? pl_checkpoint_gguf(f->c) : NULL,
                         .c = f->c,
                         .arena = f->arena,
                         .std = a->init_std,
                         .err = err};
    struct pl_model_sources s = {0};
    enum pl_status st = begin(f, err);

    r.names = pl_weight_names(t5_encoder ? "t5 encoder" : a->family, r.gguf != NULL);
    if (!st && !r.names)
        st = pl_fail(err, PL_EUNSUPPORTED, "%s cannot be read from this kind of file", a->name);
    if (st)
        return st;
    r.prefixes = prefixes ? prefixes : r.names->prefixes;
    r.paired = r.gguf && pl_gguf_paired_rows(r.gguf) ? a->head_dim : 0;
    st = stack(&r, &s);
    if (!st && r.gguf && pl_checkpoint_find(r.c, "rope_freqs.weight")) /* llama3's, as factors */
        st = resolve(&r, &s.rope_factors, "rope_freqs.weight", 0, a->head_dim / 2, 1);
    if (!st && a->head)
        st = head(&r, &s.lm_head);
    if (!st && a->encoder_layers) {
        struct pl_arch below = pl_arch_encoder(a);
        below.vocab = 0; /* the decoder's table serves both */
        s.encoder = pl_arena_calloc(f->arena, 1, sizeof(*s.encoder));
        if (!s.encoder)
            return pl_fail(err, PL_ENOMEM, "no memory for weight names");
        r.arch = &below;
        r.names = pl_weight_names("t5 encoder", false);
        r.prefixes = r.names->prefixes;
        st = stack(&r, s.encoder);
    }
    if (!st)
        *out = s;
    return st;
}

enum pl_status pl_finder_tensor(struct pl_finder *f, const char *const *prefixes, const char *name,
                                int64_t rows, int64_t cols, float std, struct pl_weight_source *out,
                                struct pl_err *err)
{
    struct resolver r = {.f = f,
                         .gguf = f->c ? pl_checkpoint_gguf(f->c) : NULL,
                         .c = f->c,
                         .arena = f->arena,
                         .std = std,
                         .err = err};
    const char *full = NULL;
    enum pl_status st = begin(f, err);

    for (size_t i = 0; f->c && prefixes[i] && !st; i++) {
        full = pl_arena_printf(f->arena, "%s%s", prefixes[i], name);
        if (full && pl_checkpoint_find(f->c, full))
            return resolve(&r, out, full, rows, cols, 0);
    }
    return st ? st
              : resolve(&r, out, pl_arena_printf(f->arena, "%s%s", prefixes[0], name), rows, cols,
                        0);
}

enum pl_status pl_finder_finish(const struct pl_finder *f, struct pl_weights_report *report,
                                struct pl_err *err)
{
    if (f->missing == 1)
        return pl_fail(err, PL_EFORMAT, "the checkpoint has no tensor %s", f->first_missing.text);
    if (f->missing)
        return pl_fail(err, PL_EFORMAT, "the checkpoint has no tensor %s; %d more are missing: %s",
                       f->first_missing.text, f->missing - 1, f->more_missing.text);
    *report = (struct pl_weights_report){.stored = PL_DT_F32};
    for (size_t i = 0; f->c && i < pl_checkpoint_count(f->c); i++)
        report->used += f->used[i];
    for (int dt = 0; dt < PL_DT_COUNT; dt++) {
        if (f->elements[dt] > f->elements[report->stored])
            report->stored = (enum pl_dtype)dt;
        if (f->elements[dt] && pl_quant_decodes((enum pl_dtype)dt))
            report->blocks = true;
    }
    return PL_OK;
}

size_t pl_finder_unused(const struct pl_finder *f, bool (*known)(const char *name),
                        struct pl_err *text)
{
    size_t n = 0;

    text->text[0] = '\0';
    for (size_t i = 0; f->c && i < pl_checkpoint_count(f->c); i++) {
        const char *name = pl_checkpoint_tensor(f->c, i)->name;
        if (f->used[i] || f->passed[i] || known(name))
            continue;
        list_name(text, name);
        n++;
    }
    return n;
}
