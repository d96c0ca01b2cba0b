/*
 * SDTP, saliency-driven dynamic token pruning (arXiv 2504.04514v2): after block l a scorer
 * Linear(H, M) → GELU → Linear(M, 1) reads each hidden state. Checkpoint keys
 * "{l}.scorer.{0,2}.{weight,bias}"; M is H/4 in the implementation in use, and whatever the file
 * has here.
 */
#include "pruning/method.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK 512u /* rows scored at once: their middle stays in the cache */

struct scorer {
    int32_t layer;
    struct pl_tensor *w0, *b0, *w2, *b2;
};

struct sdtp {
    const struct pl_backend *backend;
    struct scorer *scorers; /* [n] */
    size_t n;
    struct pl_tensor **middles; /* [n]: [CHUNK, M] */
    struct pl_tensor *out;      /* [CHUNK, 1] */
};

static enum pl_status bad_shape(const struct pl_tensor_view *v, const char *want,
                                struct pl_err *err)
{
    char is[96];

    pl_tensor_shape_text(v, is, sizeof is);
    return pl_fail(err, PL_EFORMAT, "%s: %s is %s, expected %s", v->file, v->name, is, want);
}

/* One part of a scorer; a weight is [rows, cols], a bias [cols] (rows 0). −1: any. */
static enum pl_status find(const struct pl_checkpoint *c, const char *path, int32_t layer,
                           const char *part, int64_t rows, int64_t cols,
                           const struct pl_tensor_view **out, struct pl_err *err)
{
    char name[64], want[64];
    const struct pl_tensor_view *v;
    bool ok;

    snprintf(name, sizeof name, "%d.scorer.%s", layer, part);
    v = pl_checkpoint_find(c, name);
    if (!v)
        return pl_fail(err, PL_EFORMAT, "%s: there is no %s: no scorer for layer %d", path, name,
                       layer);
    if (rows)
        ok = v->dims == 2 && (rows < 0 || v->shape[0] == rows) && v->shape[1] == cols;
    else
        ok = v->dims == 1 && v->shape[0] == cols;
    if (rows < 0)
        snprintf(want, sizeof want, "[*, %lld]", (long long)cols);
    else if (rows)
        snprintf(want, sizeof want, "[%lld, %lld]", (long long)rows, (long long)cols);
    else
        snprintf(want, sizeof want, "[%lld]", (long long)cols);
    if (!ok)
        return bad_shape(v, want, err);
    if (v->dtype != PL_DT_F32 && v->dtype != PL_DT_F16 && v->dtype != PL_DT_BF16)
        return pl_fail(err, PL_EUNSUPPORTED, "%s: %s is %s, expected f32, f16 or bf16", v->file,
                       v->name, pl_dtype_traits(v->dtype)->name);
    *out = v;
    return PL_OK;
}

enum { W0, B0, W2, B2, PARTS };

static enum pl_status find_scorer(const struct pl_checkpoint *c, const char *path, int32_t layer,
                                  int64_t hidden, const struct pl_tensor_view *v[PARTS],
                                  struct pl_err *err)
{
    enum pl_status st = find(c, path, layer, "0.weight", -1, hidden, &v[W0], err);
    int64_t middle = st ? 0 : v[W0]->shape[0];

    if (!st)
        st = find(c, path, layer, "0.bias", 0, middle, &v[B0], err);
    if (!st)
        st = find(c, path, layer, "2.weight", 1, middle, &v[W2], err);
    if (!st)
        st = find(c, path, layer, "2.bias", 0, 1, &v[B2], err);
    return st;
}

/* Without `layers`, every scorer of the file is a stage. */
static enum pl_status layers_of_file(const struct pl_checkpoint *c, struct pl_prune_opts *o,
                                     const struct pl_arch *a, struct pl_err *err)
{
    for (int32_t l = 0; l < a->layers && o->n_layers < PL_PRUNE_STAGES_MAX; l++) {
        char name[64];
        snprintf(name, sizeof name, "%d.scorer.0.weight", l);
        if (pl_checkpoint_find(c, name))
            o->layers[o->n_layers++] = l;
    }
    return o->n_layers ? PL_OK
                       : pl_fail(err, PL_EFORMAT,
                                 "%s holds no scorer of a layer below %d, expected tensors like "
                                 "4.scorer.0.weight",
                                 o->weights, a->layers);
}

static enum pl_status check(struct pl_prune_opts *o, const struct pl_arch *a, struct pl_err *err)
{
    const struct pl_tensor_view *v[PARTS];
    struct pl_checkpoint *c = NULL;
    enum pl_status st;

    if (!o->weights)
        return pl_fail(err, PL_ESWEEP, "prune.weights is missing: sdtp needs its scorers");
    st = pl_checkpoint_open(o->weights, &c, err);
    if (!st && !o->n_layers)
        st = layers_of_file(c, o, a, err);
    for (size_t i = 0; i < o->n_layers && !st; i++)
        st = find_scorer(c, o->weights, o->layers[i], a->hidden, v, err);
    pl_checkpoint_free(c);
    return st;
}

static void sdtp_close(struct pl_pruner *p)
{
    struct sdtp *s = p->state;

    for (size_t i = 0; i < s->n; i++) {
        s->backend->tensor_free(s->scorers[i].w0);
        s->backend->tensor_free(s->scorers[i].b0);
        s->backend->tensor_free(s->scorers[i].w2);
        s->backend->tensor_free(s->scorers[i].b2);
        s->backend->tensor_free(s->middles[i]);
    }
    s->backend->tensor_free(s->out);
    free(s->scorers);
    free(s->middles);
    free(s);
}

static enum pl_status put(const struct pl_backend *b, struct pl_device *d,
                          const struct pl_tensor_view *v, bool weight, struct pl_tensor **out,
                          struct pl_err *err)
{
    struct pl_weight_source src = {
        .name = v->name, .view = v, .rows = weight ? v->shape[0] : 1, .cols = v->shape[weight]};
    float *f;
    enum pl_status st;

    if (weight)
        return b->weight_create(d, &src, PL_DT_F32, out, err);
    f = malloc((size_t)src.cols * sizeof(*f));
    if (!f)
        return pl_fail(err, PL_ENOMEM, "no memory for %s", v->name);
    pl_weight_read(&src, 0, f, (size_t)src.cols);
    st = b->tensor_create(d, 1, (size_t)src.cols, out, err);
    if (!st)
        st = b->upload(*out, 0, 1, f, err);
    free(f);
    return st;
}

static enum pl_status load(struct pl_pruner *p, struct pl_model *m, struct sdtp *s,
                           const struct pl_checkpoint *c, struct pl_err *err)
{
    struct pl_device *d = pl_model_device(m);
    enum pl_status st = s->backend->tensor_create(d, CHUNK, 1, &s->out, err);

    for (size_t i = 0; i < s->n && !st; i++) {
        const struct pl_tensor_view *v[PARTS];
        struct scorer *k = &s->scorers[i];
        k->layer = p->o.layers[i];
        st = find_scorer(c, p->o.weights, k->layer, p->arch->hidden, v, err);
        if (!st)
            st = put(s->backend, d, v[W0], true, &k->w0, err);
        if (!st)
            st = put(s->backend, d, v[B0], false, &k->b0, err);
        if (!st)
            st = put(s->backend, d, v[W2], true, &k->w2, err);
        if (!st)
            st = put(s->backend, d, v[B2], false, &k->b2, err);
        if (!st)
            st = s->backend->tensor_create(d, CHUNK, (size_t)v[W0]->shape[0], &s->middles[i], err);
    }
    return st;
}

static enum pl_status sdtp_open(struct pl_pruner *p, struct pl_model *m, struct pl_err *err)
{
    struct sdtp *s = calloc(1, sizeof(*s));
    struct pl_checkpoint *c = NULL;
    enum pl_status st;

    p->state = s;
    if (!s)
        return pl_fail(err, PL_ENOMEM, "no memory for scorers");
    s->backend = pl_model_backend(m);
    s->scorers = calloc(p->o.n_layers, sizeof(*s->scorers));
    s->middles = calloc(p->o.n_layers, sizeof(*s->middles));
    if (!s->scorers || !s->middles)
        return pl_fail(err, PL_ENOMEM, "no memory for scorers");
    s->n = p->o.n_layers;
    st = pl_checkpoint_open(p->o.weights, &c, err);
    if (!st)
        st = load(p, m, s, c, err);
    pl_checkpoint_free(c);
    return st;
}

static enum pl_status score(struct pl_pruner *p, const struct pl_stage *stage, float *scores,
                            struct pl_err *err)
{
    struct sdtp *s = p->state;
    const struct pl_backend *b = s->backend;
    const struct scorer *k = s->scorers;
    enum pl_status st = PL_OK;

    while (k->layer != stage->layer)
        k++;
    for (size_t at = 0; at < stage->n && !st; at += CHUNK) {
        const size_t rows = stage->n - at < CHUNK ? stage->n - at : CHUNK;
        struct pl_tensor *x = NULL, *y = NULL, *z = NULL;
        st = b->tensor_view(stage->hidden, at, rows, &x, err);
        if (!st)
            st = b->tensor_view(s->middles[k - s->scorers], 0, rows, &y, err);
        if (!st)
            st = b->tensor_view(s->out, 0, rows, &z, err);
        if (!st)
            st = b->linear(y, x, k->w0, k->b0, err);
        if (!st)
            st = b->activate(PL_ACT_GELU, y, y, err);
        if (!st)
            st = b->linear(z, y, k->w2, k->b2, err);
        if (!st)
            st = b->download(z, 0, rows, scores + at, err);
        b->tensor_free(x);
        b->tensor_free(y);
        b->tensor_free(z);
    }
    return st;
}

const struct pl_prune_method pl_prune_sdtp = {.name = "sdtp",
                                              .where = PL_PRUNE_STAGES,
                                              .needs = PL_STAGE_HIDDEN,
                                              .check = check,
                                              .open = sdtp_open,
                                              .close = sdtp_close,
                                              .score = score};
