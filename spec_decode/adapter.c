#include "spec_decode/adapter_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[KINDS] = {"L1", "L2", "L3", "L4", "L5", "B1", "L5F"};

bool pl_adapter_ahead(const char *kind)
{
    return strcmp(kind, "B1") == 0 || strcmp(kind, "L5F") == 0;
}

/* ---- opening ---- */

static const struct pl_tensor_view *look(const struct pl_adapter *a, const char *fmt, ...)
    PL_PRINTF(2, 3);
static const struct pl_tensor_view *look(const struct pl_adapter *a, const char *fmt, ...)
{
    char name[128];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(name, sizeof(name), fmt, ap);
    va_end(ap);
    return pl_checkpoint_find(a->file, name);
}

/* A view of `rows` × `cols` elements (vectors: rows 1; a leading 1 is fine), a float type. */
static enum pl_status demand(const struct pl_adapter *a, const char *name, size_t rows, size_t cols,
                             const struct pl_tensor_view **out, struct pl_err *err)
{
    const struct pl_tensor_view *t = pl_checkpoint_find(a->file, name);
    char shape[128];
    uint64_t elements;

    if (!t)
        return pl_fail(err, PL_EFORMAT, "%s: %s misses, expected adapter %s", a->path, name,
                       names[a->kind]);
    pl_tensor_shape_text(t, shape, sizeof(shape));
    if (__builtin_mul_overflow((uint64_t)rows, (uint64_t)cols, &elements) || !elements ||
        (uint64_t)t->elements != elements || (t->dims && (uint64_t)t->shape[t->dims - 1] != cols))
        return pl_fail(err, PL_EFORMAT, "%s: %s is %s, expected [%zu, %zu]", a->path, name, shape,
                       rows, cols);
    if (t->dtype != PL_DT_F32 && t->dtype != PL_DT_F16 && t->dtype != PL_DT_BF16)
        return pl_fail(err, PL_EUNSUPPORTED, "%s: %s is %s, expected f32, f16 or bf16", a->path,
                       name, pl_dtype_traits(t->dtype)->name);
    *out = t;
    return PL_OK;
}

static enum pl_status vector(struct pl_adapter *a, const char *name, size_t rows, size_t cols,
                             size_t skip, size_t whole, struct pl_tensor **out, struct pl_err *err)
{
    const struct pl_tensor_view *t = NULL;
    float *v = NULL;
    enum pl_status st = demand(a, name, whole == rows * cols ? rows : 1,
                               whole == rows * cols ? cols : whole, &t, err);

    if (!st) { /* so many stand in the file */
        v = malloc(whole * sizeof(*v));
        st = v ? PL_OK : pl_fail(err, PL_ENOMEM, "no memory for an adapter");
    }
    if (!st) {
        pl_dtype_to_f32(t->dtype, t->data, v, whole);
        st = a->be->tensor_create(a->device, rows, cols, out, err);
    }
    if (!st)
        st = a->be->upload(*out, 0, rows, v + skip, err);
    free(v);
    return st;
}

/* Rows [skip_rows, + out) of a matrix [whole, in], and the same of its bias. */
static enum pl_status linear(struct pl_adapter *a, const char *weight, const char *bias, size_t out,
                             size_t in, size_t skip_rows, size_t whole, struct lin *l,
                             struct pl_err *err)
{
    const struct pl_tensor_view *t = NULL;
    enum pl_status st = demand(a, weight, whole, in, &t, err);

    if (!st) {
        const struct pl_weight_source src = {.name = weight,
                                             .view = t,
                                             .rows = (int64_t)out,
                                             .cols = (int64_t)in,
                                             .skip = (int64_t)(skip_rows * in)};
        st = a->be->weight_create(a->device, &src, PL_DT_AUTO, &l->w, err);
    }
    if (!st && bias)
        st = vector(a, bias, 1, out, skip_rows, whole, &l->b, err);
    return st;
}

static enum pl_status named_linear(struct pl_adapter *a, const char *prefix, bool biased,
                                   size_t out, size_t in, struct lin *l, struct pl_err *err)
{
    char w[160], b[160];

    snprintf(w, sizeof(w), "%s.weight", prefix);
    snprintf(b, sizeof(b), "%s.bias", prefix);
    return linear(a, w, biased ? b : NULL, out, in, 0, out, l, err);
}

static enum pl_status named_norm(struct pl_adapter *a, const char *prefix, size_t n, struct norm *o,
                                 struct pl_err *err)
{
    char name[160];
    enum pl_status st;

    snprintf(name, sizeof(name), "%s.weight", prefix);
    st = vector(a, name, 1, n, 0, n, &o->gain, err);
    snprintf(name, sizeof(name), "%s.bias", prefix);
    return st ? st : vector(a, name, 1, n, 0, n, &o->bias, err);
}

static enum pl_status scalar(struct pl_adapter *a, const char *name, float *out, struct pl_err *err)
{
    const struct pl_tensor_view *t = pl_checkpoint_find(a->file, name);

    if (!t || t->elements != 1)
        return pl_fail(err, PL_EFORMAT, "%s: %s misses, expected one number", a->path, name);
    if (t->dtype != PL_DT_F32 && t->dtype != PL_DT_F16 && t->dtype != PL_DT_BF16)
        return pl_fail(err, PL_EUNSUPPORTED, "%s: %s is no float", a->path, name);
    pl_dtype_to_f32(t->dtype, t->data, out, 1);
    return PL_OK;
}

static enum pl_status open_block(struct pl_adapter *a, size_t i, struct pl_err *err)
{
    const char *list = a->kind == L1 ? "layers" : "blocks";
    struct block *b = &a->blocks[i];
    const struct pl_tensor_view *t =
        look(a, a->kind == L3 ? "%s.%zu.0.weight" : "%s.%zu.down_proj.weight", list, i);
    size_t wide = t && t->dims == 2 && t->shape[0] > 0 ? (size_t)t->shape[0] : 1;
    char name[128];
    enum pl_status st;

    a->wide = wide > a->wide ? wide : a->wide;
    snprintf(name, sizeof(name), a->kind == L3 ? "%s.%zu.0" : "%s.%zu.down_proj", list, i);
    st = named_linear(a, name, false, wide, a->D, &b->down, err);
    snprintf(name, sizeof(name), a->kind == L3 ? "%s.%zu.4" : "%s.%zu.up_proj", list, i);
    if (!st)
        st = named_linear(a, name, false, a->D, wide, &b->up, err);
    snprintf(name, sizeof(name), a->kind == L3 ? "%s.%zu.1" : "%s.%zu.layer_norm", list, i);
    if (!st)
        st = named_norm(a, name, a->kind == L3 ? wide : a->D, a->kind == L3 ? &b->inner : &b->norm,
                        err);
    if (a->kind == L3)
        snprintf(name, sizeof(name), "alphas.%zu", i);
    else
        snprintf(name, sizeof(name), "%s.%zu.alpha_param", list, i);
    return st ? st : scalar(a, name, &b->alpha, err);
}

static enum pl_status open_layer(struct pl_adapter *a, size_t i, struct pl_err *err)
{
    struct layer *l = &a->layers[i];
    const struct pl_tensor_view *t = look(a, "layers.%zu.ffn.0.weight", i);
    size_t D = a->D, wide = t && t->dims == 2 && t->shape[0] > 0 ? (size_t)t->shape[0] : 1;
    struct lin *const qkv[3] = {&l->q, &l->k, &l->v};
    char w[128], b[128];
    enum pl_status st = PL_OK;

    a->wide = wide > a->wide ? wide : a->wide;
    snprintf(w, sizeof(w), "layers.%zu.attn.in_proj_weight", i);
    snprintf(b, sizeof(b), "layers.%zu.attn.in_proj_bias", i);
    for (size_t k = 0; k < 3 && !st; k++)
        st = linear(a, w, b, D, D, k * D, 3 * D, qkv[k], err);
#define PART(call, fmt, ...)                                                                       \
    do {                                                                                           \
        snprintf(w, sizeof(w), fmt, i);                                                            \
        if (!st)                                                                                   \
            st = call(a, w, __VA_ARGS__, err);                                                     \
    } while (0)
    PART(named_linear, "layers.%zu.attn.out_proj", true, D, D, &l->o);
    PART(named_norm, "layers.%zu.attn_norm", D, &l->attn_norm);
    PART(named_norm, "layers.%zu.ffn_norm", D, &l->ffn_norm);
    PART(named_linear, "layers.%zu.ffn.0", true, wide, D, &l->up);
    PART(named_linear, "layers.%zu.ffn.3", true, D, wide, &l->down);
#undef PART
    return st;
}

/* How many there are: PREFIX.i.SUFFIX for i from 0 on. */
static size_t count(const struct pl_adapter *a, const char *prefix, const char *suffix)
{
    size_t n = 0;

    while (n < MAX_BLOCKS && look(a, "%s.%zu.%s", prefix, n, suffix))
        n++;
    return n;
}

static enum pl_status open_attention(struct pl_adapter *a, struct pl_err *err)
{
    const struct pl_tensor_view *t = pl_checkpoint_find(a->file, "pos_embed");
    enum pl_status st = PL_OK;

    a->n_layers = count(a, "layers", "attn.in_proj_weight");
    if (!a->n_layers || a->D % HEADS)
        return pl_fail(err, PL_EFORMAT,
                       "%s: expected adapter %s, layers of attention with %d heads", a->path,
                       names[a->kind], HEADS);
    for (size_t i = 0; i < a->n_layers && !st; i++)
        st = open_layer(a, i, err);
    if (!st)
        st = scalar(a, "alpha", &a->alpha, err);
    if (st || a->kind == L4) {
        if (!st)
            st = named_norm(a, "output_proj.0", a->D, &a->output_norm, err);
        return st ? st : named_linear(a, "output_proj.1", true, a->D, a->D, &a->output, err);
    }
    a->positions = t && t->dims >= 2 ? (size_t)t->shape[t->dims - 2] : 1;
    st = vector(a, "pos_embed", a->positions, a->D, 0, a->positions * a->D, &a->pos, err);
    if (!st)
        st = named_norm(a, "output_norm", a->D, &a->output_norm, err);
    if (!st)
        st = named_linear(a, "output_proj", true, a->D, a->D, &a->output, err);
    if (!st && a->kind != L5F)
        st = named_norm(a, "input_norm", a->D, &a->input_norm, err);
    if (st || a->kind != L5F)
        return st;
    st = named_linear(a, "fusion_proj", true, a->D, 2 * a->D, &a->fusion, err);
    if (!st)
        st = named_norm(a, "fusion_norm", a->D, &a->final_norm, err);
    return st ? st : named_linear(a, "gate.0", true, a->D, 2 * a->D, &a->gate, err);
}

static enum pl_status open_body(struct pl_adapter *a, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    if (a->kind > L3)
        return open_attention(a, err);
    a->n_blocks = count(a, a->kind == L1 ? "layers" : "blocks",
                        a->kind == L3 ? "0.weight" : "down_proj.weight");
    if (!a->n_blocks)
        return pl_fail(err, PL_EFORMAT, "%s: no bottleneck blocks, expected adapter %s", a->path,
                       names[a->kind]);
    for (size_t i = 0; i < a->n_blocks && !st; i++)
        st = open_block(a, i, err);
    if (!st && a->kind == L3)
        st = named_norm(a, "input_norm", a->D, &a->input_norm, err);
    return st ? st : named_norm(a, "final_norm", a->D, &a->final_norm, err);
}

/* The adapter's own width, and what joins it to the models'. */
static enum pl_status open_ends(struct pl_adapter *a, struct pl_err *err)
{
    static const char *const tells[KINDS] = {
        "final_norm.weight",  "final_norm.weight",  "final_norm.weight", "output_proj.0.weight",
        "output_norm.weight", "output_norm.weight", "fusion_norm.weight"};
    const struct pl_tensor_view *t = pl_checkpoint_find(a->file, tells[a->kind]);
    enum pl_status st = PL_OK;

    if (!t || t->dims != 1 || t->shape[0] < 1)
        return pl_fail(err, PL_EFORMAT, "%s: %s misses, expected adapter %s", a->path,
                       tells[a->kind], names[a->kind]);
    a->D = (size_t)t->shape[0];
    if (look(a, "in_proj.weight"))
        st = named_linear(a, "in_proj", true, a->D, a->De, &a->in, err);
    if (!st && look(a, "in_proj_v.weight"))
        st = named_linear(a, "in_proj_v", true, a->D, a->Dv, &a->in_v, err);
    if (!st && look(a, "out_proj.weight"))
        st = named_linear(a, "out_proj", true, a->Dv, a->D, &a->out, err);
    if (st)
        return st;
    if (a->kind != B1 && !a->in.w && a->D != a->De)
        return pl_fail(err, PL_ERANGE,
                       "%s: adapter %s is %zu wide, the drafter's states %zu (and it has no "
                       "in_proj)",
                       a->path, names[a->kind], a->D, a->De);
    if ((a->kind == B1 || a->kind == L5F) && !a->in_v.w && a->D != a->Dv)
        return pl_fail(err, PL_ERANGE,
                       "%s: adapter %s is %zu wide, the verifier's states %zu (and it has no "
                       "in_proj_v)",
                       a->path, names[a->kind], a->D, a->Dv);
    if (!a->out.w && a->D != a->Dv)
        return pl_fail(err, PL_ERANGE,
                       "%s: adapter %s is %zu wide, the verifier's states %zu (and it has no "
                       "out_proj)",
                       a->path, names[a->kind], a->D, a->Dv);
    return PL_OK;
}

/* Views of every number of rows, so that none is made while drafting. */
static enum pl_status view_rows(struct pl_adapter *a, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    a->first = calloc(a->rows, sizeof(*a->first));
    if (!a->first)
        return pl_fail(err, PL_ENOMEM, "no memory for an adapter");
    for (size_t n = 1; n <= a->rows && !st; n++) {
        struct rows *r = &a->first[n - 1];
        const struct {
            struct pl_tensor *from, **to;
        } all[] = {{a->x, &r->x},    {a->h, &r->h},   {a->y, &r->y}, {a->q, &r->q},
                   {a->k, &r->k},    {a->v, &r->v},   {a->f, &r->f}, {a->pair, &r->pair},
                   {a->e, &r->e},    {a->vv, &r->vv}, {a->z, &r->z}, {a->g, &r->g},
                   {a->pos, &r->pos}};
        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]) && !st; i++)
            if (all[i].from)
                st = a->be->tensor_view(all[i].from, 0, n, all[i].to, err);
    }
    return st;
}

/* One tensor serves all blocks. */
static enum pl_status check_widths(const struct pl_adapter *a, struct pl_err *err)
{
    for (size_t i = 0; i < a->n_blocks + a->n_layers; i++) {
        const struct pl_tensor *w =
            i < a->n_blocks ? a->blocks[i].down.w : a->layers[i - a->n_blocks].up.w;
        if (a->be->rows(w) != a->wide)
            return pl_fail(err, PL_EUNSUPPORTED, "%s: blocks of width %zu and %zu, expected one",
                           a->path, a->be->rows(w), a->wide);
    }
    return PL_OK;
}

static enum pl_status make_room(struct pl_adapter *a, struct pl_err *err)
{
    size_t n = a->rows, most = a->Dv > a->De ? a->Dv : a->De;
    const struct {
        struct pl_tensor **t;
        size_t cols;
    } all[] = {{&a->x, a->D},         {&a->h, a->D},
               {&a->y, a->D},         {&a->q, a->D},
               {&a->k, a->D},         {&a->v, a->D},
               {&a->f, a->wide},      {&a->g, a->D},
               {&a->pair, 2 * a->D},  {&a->e, a->De ? a->De : 1},
               {&a->vv, a->Dv},       {&a->z, a->Dv},
               {&a->logits, a->vocab}};
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]) && !st; i++)
        st = a->be->tensor_create(a->device, n, all[i].cols, all[i].t, err);
    most = most > a->D ? most : a->D;
    a->host_x = calloc(n * most, sizeof(float));
    a->host_y = calloc(n * most, sizeof(float));
    a->host_g = calloc(n * 2 * most, sizeof(float));
    a->host_logits = calloc(a->vocab, sizeof(float));
    a->chain = calloc((n + 1) * a->Dv, sizeof(float));
    if (!st && (!a->host_x || !a->host_y || !a->host_g || !a->host_logits || !a->chain))
        st = pl_fail(err, PL_ENOMEM, "no memory for an adapter");
    return st ? st : view_rows(a, err);
}

enum pl_status pl_adapter_open(const struct pl_adapter_opts *o, struct pl_adapter **out,
                               struct pl_err *err)
{
    const struct pl_arch *v = &pl_model_info(o->verifier)->arch;
    struct pl_adapter *a = calloc(1, sizeof(*a));
    enum pl_status st;

    if (!a)
        return pl_fail(err, PL_ENOMEM, "no memory for an adapter");
    a->path = o->path;
    for (a->kind = 0; a->kind < KINDS && strcmp(names[a->kind], o->kind) != 0;)
        a->kind++;
    st = a->kind < KINDS ? PL_OK : pl_fail(err, PL_EUNSUPPORTED, "no adapter \"%s\"", o->kind);
    a->be = pl_model_backend(o->verifier);
    a->device = pl_model_device(o->verifier);
    a->verifier = o->verifier;
    a->De = o->drafter_width;
    a->Dv = (size_t)v->hidden;
    a->vocab = (size_t)v->vocab;
    a->rows = o->max_rows;
    a->n_masked = o->n_masked < PL_ACCEPT_MAX_MASKED ? o->n_masked : PL_ACCEPT_MAX_MASKED;
    for (size_t i = 0; i < a->n_masked; i++)
        a->masked[i] = o->masked[i];
    if (!st)
        st = pl_checkpoint_open(o->path, &a->file, err);
    if (!st)
        st = open_ends(a, err);
    if (!st)
        st = open_body(a, err);
    if (!st && a->positions && a->rows > a->positions)
        a->rows = a->positions;
    if (!st)
        st = check_widths(a, err);
    if (!st)
        st = make_room(a, err);
    pl_checkpoint_free(a->file);
    a->file = NULL;
    if (st)
        pl_adapter_free(a);
    else
        *out = a;
    return st;
}

static void free_lin(const struct pl_adapter *a, struct lin *l)
{
    a->be->tensor_free(l->w);
    a->be->tensor_free(l->b);
}

static void free_norm(const struct pl_adapter *a, struct norm *n)
{
    a->be->tensor_free(n->gain);
    a->be->tensor_free(n->bias);
}

void pl_adapter_free(struct pl_adapter *a)
{
    if (!a)
        return;
    for (size_t n = 0; a->first && n < a->rows; n++) {
        const struct rows *r = &a->first[n];
        struct pl_tensor *const views[] = {r->x,    r->h, r->y,  r->q, r->k, r->v,  r->f,
                                           r->pair, r->e, r->vv, r->z, r->g, r->pos};
        for (size_t i = 0; i < sizeof(views) / sizeof(views[0]); i++)
            a->be->tensor_free(views[i]);
    }
    free(a->first);
    struct pl_tensor *const room[] = {a->x, a->h,    a->y, a->q,  a->k, a->v,      a->f,
                                      a->g, a->pair, a->e, a->vv, a->z, a->logits, a->pos};
    for (size_t i = 0; i < sizeof(room) / sizeof(room[0]); i++)
        a->be->tensor_free(room[i]);
    for (size_t i = 0; i < MAX_BLOCKS; i++) {
        struct layer *l = &a->layers[i];
        struct lin *const lins[] = {
            &a->blocks[i].down, &a->blocks[i].up, &l->q, &l->k, &l->v, &l->o, &l->up, &l->down};
        for (size_t k = 0; k < sizeof(lins) / sizeof(lins[0]); k++)
            free_lin(a, lins[k]);
        free_norm(a, &a->blocks[i].norm);
        free_norm(a, &a->blocks[i].inner);
        free_norm(a, &l->attn_norm);
        free_norm(a, &l->ffn_norm);
    }
    free_norm(a, &a->input_norm);
    free_norm(a, &a->final_norm);
    free_norm(a, &a->output_norm);
    struct lin *const ends[] = {&a->output, &a->in, &a->in_v, &a->out, &a->fusion, &a->gate};
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
        free_lin(a, ends[i]);
    free(a->host_x);
    free(a->host_y);
    free(a->host_g);
    free(a->host_logits);
    free(a->chain);
    free(a);
}
