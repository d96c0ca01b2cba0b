#include "spec_decode/adapter_impl.h"

#include <math.h>
#include <string.h>

static enum pl_status norm(const struct pl_adapter *a, struct pl_tensor *y,
                           const struct pl_tensor *x, const struct norm *n, struct pl_err *err)
{
    return a->be->norm(PL_NORM_LAYER, EPS, y, x, n->gain, n->bias, err);
}

static enum pl_status linear(const struct pl_adapter *a, struct pl_tensor *y,
                             const struct pl_tensor *x, const struct lin *l, struct pl_err *err)
{
    return a->be->linear(y, x, l->w, l->b, err);
}

/* x += α·up(gelu(down(norm x))); L3: the norm stands behind `down`. */
static enum pl_status run_block(struct pl_adapter *a, const struct block *b, const struct rows *r,
                                struct pl_err *err)
{
    struct pl_tensor *to = r->f;
    enum pl_status st = PL_OK;

    if (b->norm.gain)
        st = norm(a, r->h, r->x, &b->norm, err);
    if (!st)
        st = linear(a, to, b->norm.gain ? r->h : r->x, &b->down, err);
    if (!st && b->inner.gain)
        st = norm(a, to, to, &b->inner, err);
    if (!st)
        st = a->be->activate(PL_ACT_GELU, to, to, err);
    if (!st)
        st = linear(a, r->y, to, &b->up, err);
    if (!st)
        st = a->be->axpby(b->alpha, r->y, 1, r->x, err);
    return st;
}

static enum pl_status run_layer(struct pl_adapter *a, const struct layer *l, const struct rows *r,
                                struct pl_err *err)
{
    enum pl_status st = norm(a, r->h, r->x, &l->attn_norm, err);

    if (!st)
        st = linear(a, r->q, r->h, &l->q, err);
    if (!st)
        st = linear(a, r->k, r->h, &l->k, err);
    if (!st)
        st = linear(a, r->v, r->h, &l->v, err);
    if (!st)
        st = a->be->attention(r->y, r->q, r->k, r->v, HEADS, a->kind != L4, err);
    if (!st)
        st = linear(a, r->h, r->y, &l->o, err);
    if (!st)
        st = a->be->axpby(1, r->h, 1, r->x, err);
    if (!st)
        st = norm(a, r->h, r->x, &l->ffn_norm, err);
    if (!st)
        st = linear(a, r->f, r->h, &l->up, err);
    if (!st)
        st = a->be->activate(PL_ACT_GELU, r->f, r->f, err);
    if (!st)
        st = linear(a, r->y, r->f, &l->down, err);
    if (!st)
        st = a->be->axpby(1, r->y, 1, r->x, err);
    return st;
}

/* A model's states: on the host, or rows of the adapter's device from `first` on. */
struct states {
    const float *host;
    const struct pl_tensor *rows;
    size_t first;
};

/* A model's states in the adapter's width into `to`; host: [n][D], where they are wanted there. */
static enum pl_status enter(struct pl_adapter *a, struct pl_tensor *to, struct pl_tensor *raw,
                            struct states from, const struct lin *in, size_t n, float *host,
                            struct pl_err *err)
{
    struct pl_tensor *first = in->w ? raw : to;
    enum pl_status st = from.rows ? a->be->copy(first, 0, from.rows, from.first, n, err)
                                  : a->be->upload(first, 0, n, from.host, err);

    if (!st && in->w)
        st = linear(a, to, raw, in, err);
    if (st || !host)
        return st;
    if (in->w || from.rows)
        return a->be->download(to, 0, n, host, err);
    memcpy(host, from.host, n * a->D * sizeof(*host));
    return PL_OK;
}

/* x = fusion_norm(g·e + (1 − g)·v + W'[e; v]); the residual v goes to q's place on the host. */
static enum pl_status fuse(struct pl_adapter *a, const struct rows *r, struct states e,
                           struct states v, size_t n, struct pl_err *err)
{
    size_t D = a->D;
    float *he = a->host_x, *hv = a->host_y, *both = a->host_g;
    enum pl_status st = enter(a, r->x, r->e, e, &a->in, n, he, err);

    if (!st)
        st = enter(a, r->h, r->vv, v, &a->in_v, n, hv, err);
    if (st)
        return st;
    for (size_t i = 0; i < n; i++) {
        memcpy(both + 2 * i * D, he + i * D, D * sizeof(*both));
        memcpy(both + (2 * i + 1) * D, hv + i * D, D * sizeof(*both));
    }
    st = a->be->upload(r->pair, 0, n, both, err);
    if (!st)
        st = linear(a, r->g, r->pair, &a->gate, err);
    if (!st)
        st = a->be->download(r->g, 0, n, both, err);
    if (st)
        return st;
    for (size_t i = 0; i < n * D; i++) {
        float g = 1.0f / (1.0f + expf(-both[i]));
        he[i] = g * he[i] + (1 - g) * hv[i];
    }
    st = a->be->upload(r->x, 0, n, he, err);
    if (!st)
        st = linear(a, r->y, r->pair, &a->fusion, err);
    if (!st)
        st = a->be->axpby(1, r->y, 1, r->x, err);
    return st ? st : norm(a, r->x, r->x, &a->final_norm, err);
}

/* Attention adapters: r->x holds the input of the layers; host_y the residual [n][D]. */
static enum pl_status run_attention(struct pl_adapter *a, const struct rows *r, size_t n,
                                    struct pl_err *err)
{
    enum pl_status st = PL_OK;

    if (a->pos)
        st = a->be->axpby(1, r->pos, 1, r->x, err);
    for (size_t i = 0; i < a->n_layers && !st; i++)
        st = run_layer(a, &a->layers[i], r, err);
    if (!st)
        st = norm(a, r->h, r->x, &a->output_norm, err);
    if (!st)
        st = linear(a, r->y, r->h, &a->output, err);
    if (!st)
        st = a->be->upload(r->x, 0, n, a->host_y, err);
    if (!st) /* h + α(o − h) */
        st = a->be->axpby(a->alpha, r->y, 1 - a->alpha, r->x, err);
    return st;
}

static enum pl_status run_rows(struct pl_adapter *a, const struct rows *r, struct states e,
                               struct states v, size_t n, struct pl_err *err)
{
    enum pl_status st;

    if (a->kind == L5F) {
        st = fuse(a, r, e, v, n, err);
        return st ? st : run_attention(a, r, n, err);
    }
    st = a->kind == B1 ? enter(a, r->x, r->vv, v, &a->in_v, n, a->host_y, err)
                       : enter(a, r->x, r->e, e, &a->in, n, a->host_y, err);
    if (!st && a->input_norm.gain)
        st = norm(a, r->x, r->x, &a->input_norm, err);
    if (a->kind > L3)
        return st ? st : run_attention(a, r, n, err);
    for (size_t i = 0; i < a->n_blocks && !st; i++)
        st = run_block(a, &a->blocks[i], r, err);
    return st ? st : norm(a, r->x, r->x, &a->final_norm, err);
}

static enum pl_status run_states(struct pl_adapter *a, struct states e, struct states v, size_t n,
                                 float *out, struct pl_err *err)
{
    enum pl_status st;

    if (!n || n > a->rows)
        return pl_fail(err, PL_ERANGE, "an adapter on %zu states: it takes 1 to %zu", n, a->rows);
    const struct rows *r = &a->first[n - 1];
    st = run_rows(a, r, e, v, n, err);
    if (!st && a->out.w)
        st = linear(a, r->z, r->x, &a->out, err);
    return st ? st : a->be->download(a->out.w ? r->z : r->x, 0, n, out, err);
}

enum pl_status pl_adapter_run(struct pl_adapter *a, const float *e, const float *v, size_t n,
                              float *out, struct pl_err *err)
{
    return run_states(a, (struct states){.host = e}, (struct states){.host = v}, n, out, err);
}

enum pl_status pl_adapter_tokens(struct pl_adapter *a, const float *states, size_t n, int32_t *ids,
                                 struct pl_err *err)
{
    enum pl_status st = a->be->upload(a->z, 0, n, states, err);

    if (!st)
        st = a->be->linear(a->logits, a->first[n - 1].z, pl_model_head(a->verifier), NULL, err);
    for (size_t i = 0; i < n && !st; i++) {
        st = a->be->download(a->logits, i, 1, a->host_logits, err);
        if (!st)
            ids[i] = pl_pick(a->host_logits, a->vocab, a->masked, a->n_masked);
        if (!st && ids[i] < 0)
            st = pl_fail(err, PL_EFORMAT, "the adapter's state %zu is NaN or infinite", i);
    }
    return st;
}

/* chain[1 … n] from chain[0] = v0, each from those before it. */
static enum pl_status run_chain(struct pl_adapter *a, struct states e, const float *v0, size_t n,
                                struct pl_err *err)
{
    enum pl_status st = PL_OK;

    memcpy(a->chain, v0, a->Dv * sizeof(*v0));
    for (size_t i = 1; i <= n && !st; i++) {
        float *fresh = a->chain + a->Dv; /* rows 1 … i; only the last is new */
        st = run_states(a, e, (struct states){.host = a->chain}, i, a->host_g, err);
        if (!st)
            memcpy(fresh + (i - 1) * a->Dv, a->host_g + (i - 1) * a->Dv, a->Dv * sizeof(*fresh));
    }
    return st;
}

enum pl_status pl_adapter_translate(void *adapter, struct pl_draft *draft, const float *v0,
                                    struct pl_err *err)
{
    struct pl_adapter *a = adapter;
    const struct states e = {draft->states, draft->rows, draft->rows ? draft->first : 0};
    enum pl_status st;

    if (draft->n > a->rows)
        draft->n = a->rows;
    if (!draft->n)
        return PL_OK;
    if (a->kind == L5F) {
        st = run_chain(a, e, v0, draft->n, err);
        return st ? st : pl_adapter_tokens(a, a->chain + a->Dv, draft->n, draft->ids, err);
    }
    st = run_states(a, e, (struct states){.host = NULL}, draft->n, a->chain, err);
    return st ? st : pl_adapter_tokens(a, a->chain, draft->n, draft->ids, err);
}

/* ---- B1 ---- */

static enum pl_status b1_begin(void *d, const struct pl_prompt *prompt, uint64_t key,
                               struct pl_err *err)
{
    (void)d;
    (void)prompt;
    (void)key;
    (void)err;
    return PL_OK;
}

static enum pl_status b1_draft(void *d, const struct pl_verified *text, size_t want,
                               struct pl_draft *out, struct pl_err *err)
{
    struct pl_adapter *a = d;
    enum pl_status st;

    out->n = 0;
    out->tree = out->has_q = false;
    if (!text->n_states)
        return PL_OK;
    want = want < a->rows ? want : a->rows;
    st = run_chain(a, (struct states){.host = NULL}, text->states + (text->n_states - 1) * a->Dv,
                   want, err);
    if (!st)
        st = pl_adapter_tokens(a, a->chain + a->Dv, want, out->ids, err);
    if (!st)
        out->n = want;
    return st;
}

static void b1_free(void *d)
{
    (void)d;
}

const struct pl_drafter_ops pl_draft_b1 = {
    .name = "B1", .states = true, .begin = b1_begin, .draft = b1_draft, .free = b1_free};
