#include "spec_decode/eagle.h"

#include "base/rng.h"
#include "model/checkpoint.h"
#include "spec_decode/tree.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FEED 64 /* rows that pass through fc at once */

/* A token that may be drafted. */
struct node {
    int32_t id, parent; /* −1: the last verified token */
    int32_t row;        /* of the head's tree; −1: it was not run */
    int32_t shape;      /* its number in the static tree */
    double score;       /* log of the product of the probabilities on the way to it */
};

struct eagle {
    const struct pl_backend *be;
    struct pl_model *verifier, *blocks;
    struct pl_session *s; /* rows: what was verified; in a draft, its tree behind them */
    struct pl_tensor *fc, *bias, *x, *y, *state, *logits;
    struct pl_tensor *first_x[FEED], *first_y[FEED]; /* the first i + 1 rows of x and y */
    size_t hidden, vocab, depth, top, nodes, capacity;
    struct pl_draft_shape shape; /* n 0: not the static tree */
    struct pl_accept_rule rule;  /* key: of the text at hand */
    uint64_t seed;
    int32_t masked[PL_ACCEPT_MAX_MASKED];
    struct pl_prompt prompt;     /* of the text at hand, where it is no ids */
    size_t fed;                  /* rows */
    float *in, *out;             /* [FEED][2 · hidden], [FEED][hidden] */
    float *row;                  /* [vocab] logits */
    float *last;                 /* [hidden] the head's state behind the last row that was fed */
    float *states;               /* [PL_TREE_MAX][hidden] of the tree's rows */
    struct node *node;           /* [room] */
    size_t n, room, rows;        /* nodes so far; rows of the tree */
    size_t front[FEED], n_front; /* nodes whose children come next */
};

static void eagle_free(void *state)
{
    struct eagle *e = state;

    if (!e)
        return;
    pl_session_free(e->s);
    pl_model_free(e->blocks);
    if (e->be) {
        for (size_t i = 0; i < FEED; i++) {
            e->be->tensor_free(e->first_x[i]);
            e->be->tensor_free(e->first_y[i]);
        }
        struct pl_tensor *const all[] = {e->fc, e->bias, e->x, e->y, e->state, e->logits};
        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
            e->be->tensor_free(all[i]);
    }
    free(e->in);
    free(e->out);
    free(e->row);
    free(e->last);
    free(e->states);
    free(e->node);
    free(e->rule.p);
    free(e);
}

/* Rows of a matrix of the file with `cols` columns (a vector: 1). */
static enum pl_status rows_of(const char *path, const struct pl_checkpoint *c, const char *name,
                              int64_t cols, int64_t *rows, const struct pl_tensor_view **out,
                              struct pl_err *err)
{
    const struct pl_tensor_view *t = pl_checkpoint_find(c, name);
    char shape[128];

    if (!t)
        return pl_fail(err, PL_EFORMAT, "%s: %s misses, expected an EAGLE head", path, name);
    pl_tensor_shape_text(t, shape, sizeof(shape));
    if (!t->dims || t->dims > 2 || t->shape[t->dims - 1] != cols)
        return pl_fail(err, PL_EFORMAT, "%s: %s is %s, expected rows of %lld", path, name, shape,
                       (long long)cols);
    if (!pl_dtype_traits(t->dtype)->computes)
        return pl_fail(err, PL_EUNSUPPORTED, "%s: %s is %s, expected f32, f16 or bf16", path, name,
                       pl_dtype_traits(t->dtype)->name);
    *rows = t->dims == 2 ? t->shape[0] : 1;
    if (out)
        *out = t;
    return PL_OK;
}

/* The layer as an architecture: the verifier's, but for its widths. */
static enum pl_status describe(const char *path, const struct pl_checkpoint *c,
                               const struct pl_arch *v, struct pl_arch *a, struct pl_err *err)
{
    int64_t q = 0, k = 0, ffn = 0;
    enum pl_status st;

    *a = *v;
    st = rows_of(path, c, "layers.0.self_attn.q_proj.weight", v->hidden, &q, NULL, err);
    if (!st)
        st = rows_of(path, c, "layers.0.self_attn.k_proj.weight", v->hidden, &k, NULL, err);
    if (!st)
        st = rows_of(path, c, "layers.0.mlp.gate_proj.weight", v->hidden, &ffn, NULL, err);
    if (st)
        return st;
    if (q <= 0 || k <= 0 || q % v->head_dim || k % v->head_dim || q % k || ffn <= 0 ||
        ffn > INT32_MAX || q > INT32_MAX)
        return pl_fail(err, PL_EFORMAT,
                       "%s: %lld rows of q and %lld of k, expected whole heads of %d", path,
                       (long long)q, (long long)k, v->head_dim);
    memcpy(a->name, "EAGLE head", sizeof("EAGLE head"));
    memcpy(a->family, "llama", sizeof("llama"));
    a->layers = 1;
    a->heads = (int32_t)(q / v->head_dim);
    a->kv_heads = (int32_t)(k / v->head_dim);
    a->ffn = (int32_t)ffn;
    a->vocab = 0;
    a->head = a->final_norm = a->embed_norm = a->tied = a->qk_norm = false;
    a->gated = a->bare_start = true;
    a->qkv_bias = pl_checkpoint_find(c, "layers.0.self_attn.q_proj.bias") != NULL;
    a->o_bias = a->mlp_bias = false;
    a->act = PL_ACT_SILU;
    a->norm = PL_NORM_RMS;
    a->max_positions = v->max_positions + PL_TREE_MAX;
    a->usual_positions = v->usual_positions;
    return PL_OK;
}

static enum pl_status open_fc(struct eagle *e, const char *path, const struct pl_checkpoint *c,
                              struct pl_err *err)
{
    struct pl_device *d = pl_model_device(e->verifier);
    const struct pl_tensor_view *w = NULL, *b = NULL;
    int64_t rows = 0, one = 0;
    enum pl_status st = rows_of(path, c, "fc.weight", 2 * (int64_t)e->hidden, &rows, &w, err);

    if (!st && rows != (int64_t)e->hidden)
        st = pl_fail(err, PL_EFORMAT, "%s: fc.weight has %lld rows, expected %zu", path,
                     (long long)rows, e->hidden);
    if (!st && pl_checkpoint_find(c, "fc.bias"))
        st = rows_of(path, c, "fc.bias", (int64_t)e->hidden, &one, &b, err);
    if (st)
        return st;
    const struct pl_weight_source src = {
        .name = w->name, .view = w, .rows = rows, .cols = 2 * (int64_t)e->hidden};
    st = e->be->weight_create(d, &src, pl_model_info(e->blocks)->dtype, &e->fc, err);
    if (!st && b)
        st = e->be->tensor_create(d, 1, e->hidden, &e->bias, err);
    if (st || !b)
        return st;
    pl_dtype_to_f32(b->dtype, b->data, e->last, e->hidden);
    return e->be->upload(e->bias, 0, 1, e->last, err);
}

static enum pl_status make_room(struct eagle *e, const struct pl_eagle_opts *o, struct pl_err *err)
{
    struct pl_device *d = pl_model_device(e->verifier);
    size_t h = e->hidden;
    enum pl_status st = e->be->tensor_create(d, FEED, 2 * h, &e->x, err);

    if (!st)
        st = e->be->tensor_create(d, FEED, h, &e->y, err);
    if (!st)
        st = e->be->tensor_create(d, 1, h, &e->state, err);
    if (!st)
        st = e->be->tensor_create(d, 1, e->vocab, &e->logits, err);
    for (size_t i = 0; i < FEED && !st; i++) {
        st = e->be->tensor_view(e->x, 0, i + 1, &e->first_x[i], err);
        if (!st)
            st = e->be->tensor_view(e->y, 0, i + 1, &e->first_y[i], err);
    }
    /* a level adds at most top · top, and no more rows than a tree has are ever run */
    e->room = e->top + (PL_TREE_MAX + e->top) * e->top + PL_DRAFT_MAX;
    e->in = calloc(FEED * 2 * h, sizeof(*e->in));
    e->out = calloc(FEED * h, sizeof(*e->out));
    e->row = calloc(e->vocab, sizeof(*e->row));
    e->last = calloc(h, sizeof(*e->last));
    e->states = calloc(PL_TREE_MAX * h, sizeof(*e->states));
    e->node = calloc(e->room, sizeof(*e->node));
    if (o->temperature > 0)
        e->rule.p = calloc(2 * e->vocab, sizeof(*e->rule.p));
    if (!st && (!e->in || !e->out || !e->row || !e->last || !e->states || !e->node ||
                (o->temperature > 0 && !e->rule.p)))
        st = pl_fail(err, PL_ENOMEM, "no memory for an EAGLE head");
    return st;
}

static enum pl_status make_session(struct eagle *e, const struct pl_eagle_opts *o,
                                   struct pl_err *err)
{
    static const int final_states = PL_TAP_FINAL;
    size_t most = (size_t)pl_model_info(e->blocks)->arch.max_positions;
    const struct pl_session_opts so = {.max_tokens =
                                           o->max_prompt + o->max_tokens + PL_TREE_MAX < most
                                               ? o->max_prompt + o->max_tokens + PL_TREE_MAX
                                               : most,
                                       .max_verify = PL_TREE_MAX,
                                       .taps = &final_states,
                                       .n_taps = 1,
                                       .kv_dtype = o->kv};

    e->capacity = so.max_tokens;
    return pl_session_create(e->blocks, &so, &e->s, err);
}

enum pl_status pl_draft_eagle_open(const struct pl_eagle_opts *o, void **out, struct pl_err *err)
{
    const struct pl_arch *v = &pl_model_info(o->verifier)->arch;
    struct eagle *e = calloc(1, sizeof(*e));
    struct pl_checkpoint *c = NULL;
    struct pl_arch a;
    enum pl_status st;

    if (!e)
        return pl_fail(err, PL_ENOMEM, "no memory for an EAGLE head");
    e->be = pl_model_backend(o->verifier);
    e->verifier = o->verifier;
    e->hidden = (size_t)v->hidden;
    e->vocab = (size_t)v->vocab;
    e->depth = o->depth;
    e->top = o->top < PL_TREE_MAX_TOP ? o->top : PL_TREE_MAX_TOP;
    e->nodes = o->top > 1 ? o->nodes : o->depth;
    e->rule = (struct pl_accept_rule){.temperature = o->temperature};
    e->seed = o->key;
    for (size_t i = 0; i < o->n_masked && i < PL_ACCEPT_MAX_MASKED; i++)
        e->masked[e->rule.n_masked++] = o->masked[i];
    e->rule.masked = e->masked;
    if (o->fixed)
        pl_draft_shape_make(pl_draft_shape_eagle, o->top, o->depth, o->nodes, &e->shape);
    st = make_room(e, o, err);
    if (!st && v->pos != PL_POS_ROPE)
        st = pl_fail(err, PL_EUNSUPPORTED, "an EAGLE head on %s: expected a model with RoPE",
                     v->name);
    if (!st)
        st = pl_checkpoint_open(o->path, &c, err);
    if (!st)
        st = describe(o->path, c, v, &a, err);
    if (!st)
        st = pl_model_graft(o->verifier, c, &a, &e->blocks, err);
    if (!st)
        st = open_fc(e, o->path, c, err);
    if (!st)
        st = make_session(e, o, err);
    pl_checkpoint_free(c);
    if (st)
        eagle_free(e);
    else
        *out = e;
    return st;
}

static enum pl_status eagle_begin(void *d, const struct pl_prompt *prompt, uint64_t key,
                                  struct pl_err *err)
{
    struct eagle *e = d;

    (void)err;
    pl_session_reset(e->s);
    e->prompt = *prompt;
    e->rule.key = pl_keyv(e->seed, key);
    e->fed = 0;
    return PL_OK;
}

/* e->in's first n rows through fc, to e->out. */
static enum pl_status project(struct eagle *e, size_t n, struct pl_err *err)
{
    enum pl_status st = e->be->upload(e->x, 0, n, e->in, err);

    if (!st)
        st = e->be->linear(e->first_y[n - 1], e->first_x[n - 1], e->fc, e->bias, err);
    return st ? st : e->be->download(e->y, 0, n, e->out, err);
}

/* One row of fc's input: a token, or the prompt's embedding of it, and the state before it. */
static enum pl_status enter(struct eagle *e, size_t row, int32_t id, const float *embedded,
                            const float *state, struct pl_err *err)
{
    float *to = e->in + row * 2 * e->hidden;
    enum pl_status st = PL_OK;

    if (embedded)
        memcpy(to, embedded, e->hidden * sizeof(*to));
    else
        st = pl_model_embed(e->verifier, &id, 1, to, err);
    memcpy(to + e->hidden, state, e->hidden * sizeof(*to));
    return st;
}

/* Rows e->fed … of the text, whose tokens and states are known. */
static enum pl_status feed(struct eagle *e, const int32_t *ids, const float *states, size_t n,
                           struct pl_err *err)
{
    enum pl_status st = PL_OK;

    for (size_t at = 0, k; at < n && !st; at += k) {
        k = n - at < FEED ? n - at : FEED;
        for (size_t i = 0; i < k && !st; i++) {
            size_t token = e->fed + i + 1;
            const float *embedded = ids[at + i] < 0 && e->prompt.embeds && token < e->prompt.n
                                        ? e->prompt.embeds + token * e->hidden
                                        : NULL;
            st = enter(e, i, ids[at + i], embedded, states + (at + i) * e->hidden, err);
        }
        if (!st)
            st = project(e, k, err);
        if (!st)
            st = pl_session_prefill(e->s, &(struct pl_prompt){.embeds = e->out, .n = k}, NULL, err);
        if (!st)
            st = pl_session_hidden_copy(e->s, 0, k - 1, 1, e->last, err);
        e->fed += st ? 0 : k;
    }
    return st;
}

/* e->row = what the verifier's head says of a state. */
static enum pl_status say(struct eagle *e, const float *state, struct pl_err *err)
{
    enum pl_status st = e->be->upload(e->state, 0, 1, state, err);

    if (!st)
        st = e->be->linear(e->logits, e->state, pl_model_head(e->verifier), NULL, err);
    return st ? st : e->be->download(e->logits, 0, 1, e->row, err);
}

enum pl_status pl_draft_eagle_logits(void *d, const int32_t *ids, const float *states, size_t n,
                                     float *logits, struct pl_err *err)
{
    struct eagle *e = d;
    enum pl_status st = eagle_begin(e, &(struct pl_prompt){.n = 0}, 0, err);

    if (!st)
        st = feed(e, ids, states, n, err);
    if (!st)
        st = say(e, e->last, err);
    if (!st)
        memcpy(logits, e->row, e->vocab * sizeof(*logits));
    return st;
}

/* The children of a node (−1: of the last verified token) from e->row. */
static enum pl_status add_children(struct eagle *e, int32_t parent, struct pl_err *err)
{
    int32_t ids[PL_TREE_MAX_TOP], shape = parent < 0 ? -1 : e->node[parent].shape;
    size_t n = pl_draft_top(e->row, e->vocab, e->masked, e->rule.n_masked, e->top, ids);
    double sum = 0, before = parent < 0 ? 0 : e->node[parent].score;

    if (n < e->top)
        return pl_fail(err, PL_EFORMAT, "the EAGLE head says NaN or infinite");
    if (!e->shape.n && e->top > 1)
        sum = pl_draft_log_sum(e->row, e->vocab, e->masked, e->rule.n_masked);
    for (size_t i = 0; !e->shape.n && i < n && e->n < e->room; i++)
        e->node[e->n++] = (struct node){.id = ids[i],
                                        .parent = parent,
                                        .row = -1,
                                        .score = before + (double)e->row[ids[i]] - sum};
    for (size_t i = 0; i < e->shape.n && e->n < e->room; i++)
        if (e->shape.parent[i] == shape)
            e->node[e->n++] = (struct node){
                .id = ids[e->shape.rank[i]], .parent = parent, .row = -1, .shape = (int32_t)i};
    return PL_OK;
}

static bool has_children(const struct eagle *e, const struct node *n)
{
    for (size_t i = 0; i < e->shape.n; i++)
        if (e->shape.parent[i] == n->shape)
            return true;
    return false;
}

/* The score that `most` of the nodes from `first` on reach, and how many with that very score are
 * among them. */
static double threshold(const struct eagle *e, size_t first, size_t most, size_t *ties)
{
    double best[PL_DRAFT_MAX];
    size_t n = 0;

    for (size_t i = first; i < e->n; i++) {
        double score = e->node[i].score;
        if (n == most && score <= best[n - 1])
            continue;
        size_t at = n < most ? n++ : n - 1;
        for (; at && score > best[at - 1]; at--)
            best[at] = best[at - 1];
        best[at] = score;
    }
    *ties = 0;
    while (*ties < n && best[n - 1 - *ties] == best[n - 1])
        ++*ties;
    return n ? best[n - 1] : 0;
}

/* Whether a node is one of those; called once for each, in order. */
static bool reaches(const struct node *n, double least, size_t *ties)
{
    return n->score > least || (n->score == least && *ties && (*ties)--);
}

/* The nodes from `first` on that go on: the `top` best, or those of the static tree that have
 * children; in their order. */
static void choose_front(struct eagle *e, size_t first)
{
    size_t ties;
    double least = threshold(e, first, e->top, &ties);

    e->n_front = 0;
    for (size_t i = first; i < e->n && e->n_front < FEED; i++)
        if (e->shape.n ? has_children(e, &e->node[i]) : reaches(&e->node[i], least, &ties))
            e->front[e->n_front++] = i;
}

/* Runs the front through the layer, behind their parents. */
static enum pl_status run_front(struct eagle *e, struct pl_err *err)
{
    int32_t parents[FEED];
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < e->n_front && !st; i++) {
        struct node *n = &e->node[e->front[i]];
        parents[i] = n->parent < 0 ? -1 : e->node[n->parent].row;
        st = enter(e, i, n->id, NULL,
                   parents[i] < 0 ? e->last : e->states + (size_t)parents[i] * e->hidden, err);
    }
    if (!st)
        st = project(e, e->n_front, err);
    if (!st)
        st = pl_session_tree(e->s, &(struct pl_prompt){.embeds = e->out, .n = e->n_front}, parents,
                             NULL, err);
    if (!st)
        st = pl_session_hidden_copy(e->s, 0, 0, e->n_front, e->states + e->rows * e->hidden, err);
    for (size_t i = 0; i < e->n_front && !st; i++)
        e->node[e->front[i]].row = (int32_t)e->rows++;
    return st;
}

/* Level by level until `depth` tokens, or until the tree has no more room. */
static enum pl_status grow(struct eagle *e, size_t depth, struct pl_err *err)
{
    enum pl_status st = say(e, e->last, err);
    size_t first = 0;

    e->n = e->rows = 0;
    if (!st)
        st = add_children(e, -1, err);
    for (size_t d = 1; d < depth && !st; d++) {
        choose_front(e, first);
        if (!e->n_front || e->rows + e->n_front > PL_TREE_MAX ||
            e->fed + e->rows + e->n_front > e->capacity)
            break;
        first = e->n;
        st = run_front(e, err);
        for (size_t i = 0; i < e->n_front && !st; i++) {
            st = say(e, e->states + (size_t)e->node[e->front[i]].row * e->hidden, err);
            if (!st)
                st = add_children(e, (int32_t)e->front[i], err);
        }
    }
    return st;
}

/* The best nodes, in the order in which they came: a parent is never worse than its children. */
static void choose_nodes(struct eagle *e, struct pl_draft *out)
{
    size_t most = e->nodes < out->max ? e->nodes : out->max, ties;
    double least = threshold(e, 0, most, &ties);

    for (size_t i = 0; i < e->n && out->n < most; i++) {
        struct node *n = &e->node[i];
        if (!e->shape.n && !reaches(n, least, &ties))
            continue;
        n->row = (int32_t)out->n; /* from here on its number in the draft */
        out->parents[out->n] = n->parent < 0 ? -1 : e->node[n->parent].row;
        out->ids[out->n++] = n->id;
    }
    out->tree = e->top > 1;
}

/* Above temperature 0 a chain's tokens are drawn. */
static enum pl_status draw_chain(struct eagle *e, const struct pl_verified *text, size_t want,
                                 struct pl_draft *out, struct pl_err *err)
{
    const float *state = e->last;
    enum pl_status st = PL_OK;

    e->n = e->rows = 0;
    while (!st && out->n < want) {
        float *q = out->q + out->n * e->vocab;
        struct pl_rng r;
        pl_rng_init(&r, pl_keyv(e->rule.key, text->n + out->n, 3));
        st = say(e, state, err);
        if (!st)
            st = pl_accept_probs(&e->rule, e->row, e->vocab, q, err);
        if (st)
            break;
        out->ids[out->n] = pl_accept_draw(q, e->vocab, pl_rng_double(&r));
        e->node[e->n] =
            (struct node){.id = out->ids[out->n], .parent = (int32_t)e->n - 1, .row = -1};
        e->front[0] = e->n++;
        e->n_front = 1;
        if (++out->n == want || e->fed + e->rows == e->capacity || e->rows == PL_TREE_MAX)
            break;
        st = run_front(e, err);
        state = e->states + (e->rows - 1) * e->hidden;
    }
    out->has_q = true;
    return st;
}

static enum pl_status eagle_draft(void *d, const struct pl_verified *text, size_t want,
                                  struct pl_draft *out, struct pl_err *err)
{
    struct eagle *e = d;
    size_t known = text->n_prompt + text->n - 1, n = known - e->fed; /* rows; of them new */
    struct pl_err other;
    enum pl_status st, st2;

    out->n = 0;
    out->tree = out->has_q = false;
    if (!n || n > text->n_states || known > e->capacity)
        return PL_OK; /* what it missed cannot be had again */
    st = feed(e, text->ids + e->fed + 1, text->states + (text->n_states - n) * e->hidden, n, err);
    want = want < e->depth ? want : e->depth;
    if (st)
        return st;
    if (e->rule.temperature > 0 && e->top == 1 && out->q) {
        st = draw_chain(e, text, want, out, err);
    } else {
        st = grow(e, want, err);
        if (!st)
            choose_nodes(e, out);
    }
    st2 = pl_session_keep_path(e->s, NULL, 0, st ? &other : err);
    return st ? st : st2;
}

const struct pl_drafter_ops pl_draft_eagle = {.name = "eagle",
                                              .states = true,
                                              .prompt = true,
                                              .begin = eagle_begin,
                                              .draft = eagle_draft,
                                              .free = eagle_free};
