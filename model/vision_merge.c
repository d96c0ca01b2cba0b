/* Fewer rows of a picture: what the last block of a tower looks at, and rows that are merged by it
 * before the projector. */
#include "model/vision_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- a gaze ---- */

static enum pl_status vector(struct pl_vision *v, const struct pl_weight_source *s,
                             struct pl_tensor **out, struct pl_err *err)
{
    const size_t n = (size_t)s->cols;
    float *row = malloc(n * sizeof(*row));
    enum pl_status st;

    if (!row)
        return pl_fail(err, PL_ENOMEM, "%s: no memory", s->name);
    pl_weight_read(s, 0, row, n);
    st = v->backend->tensor_create(v->device, 1, n, out, err);
    if (!st)
        st = v->backend->upload(*out, 0, 1, row, err);
    free(row);
    return st;
}

enum pl_status pl_vision_gaze_create(struct pl_vision *v, const struct pl_model_sources *tower,
                                     struct pl_vision_gaze *out, struct pl_err *err)
{
    const int32_t layers = v->config.tower.layers;
    const struct pl_layer_sources *last = layers ? &tower->layers[layers - 1] : NULL;
    enum pl_status st;

    if (!last)
        return PL_OK;
    st = pl_vision_linear_create(v, &last->q, &last->q_bias, PL_DT_F32, &out->q, err);
    if (!st)
        st = pl_vision_linear_create(v, &last->k, &last->k_bias, PL_DT_F32, &out->k, err);
    if (!st)
        st = vector(v, &last->attn_norm, &out->gain, err);
    if (!st && !pl_weight_absent(&last->attn_norm_bias))
        st = vector(v, &last->attn_norm_bias, &out->bias, err);
    return st;
}

int64_t pl_vision_gaze_bytes(const struct pl_arch *tower)
{
    const int64_t h = tower->hidden, biases = tower->qkv_bias ? 2 : 0;
    const int64_t norm = tower->norm == PL_NORM_LAYER ? 2 : 1;

    return tower->layers ? (2 * h * h + (biases + norm) * h) * (int64_t)sizeof(float) : 0;
}

enum pl_status pl_vision_gaze_room(struct pl_vision *v, struct pl_vision_gaze *g,
                                   struct pl_err *err)
{
    const size_t tokens = (size_t)pl_arch_image_rows(&v->config.tower);
    const size_t h = (size_t)v->config.tower.hidden;
    enum pl_status st = v->backend->tensor_create(v->device, tokens, h, &g->x, err);

    return st ? st : v->backend->tensor_create(v->device, tokens, h, &g->keys, err);
}

void pl_vision_gaze_free_room(struct pl_vision *v, struct pl_vision_gaze *g)
{
    v->backend->tensor_free(g->x);
    v->backend->tensor_free(g->keys);
    g->x = g->keys = NULL;
}

void pl_vision_gaze_free(struct pl_vision *v, struct pl_vision_gaze *g)
{
    struct pl_tensor *const all[] = {g->q.w, g->q.b, g->k.w, g->k.b, g->gain, g->bias};

    pl_vision_gaze_free_room(v, g);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        v->backend->tensor_free(all[i]);
}

/* ---- a merge ---- */

/* Room on the host. Of `frames` frames where they are pooled, else of one. */
struct looked {
    size_t tokens, hidden; /* the tower's */
    float *q;              /* [hidden] */
    float *keys, *attn;    /* [tokens, hidden], [tokens]: sums over the frames so far */
    float *now;            /* [tokens, hidden] keys of the frame in hand, then merged rows */
    float *p;              /* [tokens] */
    float *rows;           /* [frames][tokens, hidden] */
};

static void looked_release(struct looked *l)
{
    free(l->q);
    free(l->keys);
    free(l->attn);
    free(l->now);
    free(l->p);
    free(l->rows);
}

static enum pl_status looked_init(struct looked *l, const struct pl_vision *v, size_t frames,
                                  struct pl_err *err)
{
    const size_t n = (size_t)pl_arch_image_rows(&v->config.tower);
    const size_t h = (size_t)v->config.tower.hidden;

    *l = (struct looked){.tokens = n,
                         .hidden = h,
                         .q = malloc(h * sizeof(float)),
                         .keys = malloc(n * h * sizeof(float)),
                         .attn = malloc(n * sizeof(float)),
                         .now = malloc(n * h * sizeof(float)),
                         .p = malloc(n * sizeof(float)),
                         .rows = malloc(frames * n * h * sizeof(float))};
    if (l->q && l->keys && l->attn && l->now && l->p && l->rows)
        return PL_OK;
    looked_release(l);
    return pl_fail(err, PL_ENOMEM, "no memory to merge the rows of %zu frames", frames);
}

static void clear(struct looked *l)
{
    memset(l->keys, 0, l->tokens * l->hidden * sizeof(float));
    memset(l->attn, 0, l->tokens * sizeof(float));
}

/* attn += share · softmax(q · keys / √d), mean over heads. */
static void add_attention(struct looked *l, size_t heads, float share)
{
    const size_t d = l->hidden / heads;
    const float scale = 1.0f / sqrtf((float)d);

    for (size_t head = 0; head < heads; head++) {
        float most = -INFINITY, sum = 0;
        for (size_t i = 0; i < l->tokens; i++) {
            float dot = 0;
            for (size_t j = head * d; j < (head + 1) * d; j++)
                dot += l->q[j] * l->now[i * l->hidden + j];
            l->p[i] = dot * scale;
            most = l->p[i] > most ? l->p[i] : most;
        }
        for (size_t i = 0; i < l->tokens; i++) {
            l->p[i] = expf(l->p[i] - most);
            sum += l->p[i];
        }
        for (size_t i = 0; i < l->tokens; i++)
            l->attn[i] += share * l->p[i] / (sum * (float)heads);
    }
}

/* The tower over one frame: its rows to the host, `share` of its gaze added. */
static enum pl_status look(struct pl_vision *v, int which, const struct pl_pixels *p, size_t frame,
                           float share, float *rows, struct looked *l, struct pl_err *err)
{
    const struct pl_backend *b = v->backend;
    const struct pl_arch *a = &v->config.tower;
    const struct pl_vision_gaze *g = &v->gaze[which];
    const struct pl_source s = pl_vision_source(v, p, frame);
    struct pl_tensor *class = NULL, *query = NULL;
    enum pl_status st = b->encode(v->tower[which], v->cache[which], &s, err);

    if (!st)
        st = b->download(b->cache_encoded(v->cache[which]), 0, l->tokens, rows, err);
    if (!st)
        st = b->norm(a->norm, a->norm_eps, g->x, b->cache_tap(v->cache[which], 0), g->gain, g->bias,
                     err);
    if (!st)
        st = b->tensor_view(g->x, 0, 1, &class, err);
    if (!st)
        st = b->tensor_view(g->keys, 0, 1, &query, err); /* before the keys come */
    if (!st)
        st = b->linear(query, class, g->q.w, g->q.b, err);
    if (!st)
        st = b->download(query, 0, 1, l->q, err);
    if (!st)
        st = b->linear(g->keys, g->x, g->k.w, g->k.b, err);
    if (!st)
        st = b->download(g->keys, 0, l->tokens, l->now, err);
    b->tensor_free(class);
    b->tensor_free(query);
    if (st)
        return st;
    for (size_t i = 0; i < l->tokens * l->hidden; i++)
        l->keys[i] += share * l->now[i];
    add_attention(l, (size_t)a->heads, share);
    return PL_OK;
}

/* Merged rows of one frame through projector and adaptor, in *out. */
static enum pl_status project(struct pl_vision *v, int which, const struct pl_vision_merge *merge,
                              const float *rows, size_t n, struct looked *l, struct pl_tensor **out,
                              struct pl_err *err)
{
    enum pl_status st;

    merge->apply(merge->user, rows, l->now);
    st = v->backend->upload(v->gaze[which].x, 0, n, l->now, err);
    return st ? st : pl_vision_project(v, v->gaze[which].x, n, out, err);
}

static enum pl_status merge_frames(struct pl_vision *v, const struct pl_pixels *p,
                                   const struct pl_vision_merge *merge, float *rows, size_t *n_rows,
                                   struct looked *l, struct pl_err *err)
{
    const size_t h = (size_t)v->config.hidden;
    const size_t skip = p->still && v->config.images_drop_cls;
    enum pl_status st = PL_OK;

    for (size_t f = 0; f < p->frames && !st; f++) {
        struct pl_tensor *x;
        size_t n = 0;
        clear(l);
        st = look(v, p->still, p, f, 1, l->rows, l, err);
        if (!st)
            st = merge->choose(merge->user, l->tokens, l->hidden, l->attn, l->keys, &n, err);
        if (!st)
            st = project(v, p->still, merge, l->rows, n, l, &x, err);
        if (!st && n > skip)
            st = v->backend->download(x, skip, n - skip, rows + *n_rows * h, err);
        *n_rows += n - skip;
    }
    return st;
}

static enum pl_status merge_pooled(struct pl_vision *v, const struct pl_pixels *p,
                                   const struct pl_vision_merge *merge, float *rows, size_t *n_rows,
                                   struct looked *l, struct pl_err *err)
{
    const struct pl_backend *b = v->backend;
    const size_t h = (size_t)v->config.hidden;
    const size_t frame = l->tokens * l->hidden;
    const float share = 1.0f / (float)p->frames;
    struct pl_tensor *x, *some = NULL, *sum = NULL;
    size_t n = 0;
    enum pl_status st = PL_OK;

    clear(l);
    for (size_t f = 0; f < p->frames && !st; f++) {
        st = look(v, 0, p, f, share, l->rows + f * frame, l, err);
        if (!st)
            st = pl_vision_project(v, b->cache_encoded(v->cache[0]), l->tokens, &x, err);
        if (!st)
            st = pl_vision_mean_row(v, x, f, err);
    }
    if (!st)
        st = merge->choose(merge->user, l->tokens, l->hidden, l->attn, l->keys, &n, err);
    if (!st)
        st = b->tensor_view(v->sum, 0, n, &sum, err);
    for (size_t f = 0; f < p->frames && !st; f++) {
        st = project(v, 0, merge, l->rows + f * frame, n, l, &x, err);
        if (!st)
            st = b->tensor_view(x, 0, n, &some, err);
        if (!st)
            st = b->axpby(share, some, f ? 1.0f : 0.0f, sum, err);
        b->tensor_free(some);
        some = NULL;
    }
    if (!st)
        st = b->download(v->temporal, 0, p->frames, rows, err);
    if (!st)
        st = b->download(sum, 0, n, rows + p->frames * h, err);
    b->tensor_free(sum);
    *n_rows = p->frames + n;
    return st;
}

enum pl_status pl_vision_encode_merged(struct pl_vision *v, const struct pl_pixels *p,
                                       const struct pl_vision_merge *merge, float *rows,
                                       size_t *n_rows, struct pl_err *err)
{
    const bool pooled = v->config.kind == PL_VISION_EVENTGPT;
    struct looked l = {0};
    enum pl_status st = pl_vision_check(v, p, err);

    *n_rows = 0;
    if (!st && v->config.tower.layers < 2)
        st = pl_fail(err, PL_EUNSUPPORTED,
                     "a tower of one block: what its class row looks at is not at hand");
    if (!st)
        st = pl_vision_reserve_merges(v, p->frames, err);
    if (!st)
        st = looked_init(&l, v, pooled ? p->frames : 1, err);
    if (st)
        return st;
    st = pooled ? merge_pooled(v, p, merge, rows, n_rows, &l, err)
                : merge_frames(v, p, merge, rows, n_rows, &l, err);
    looked_release(&l);
    return st;
}
