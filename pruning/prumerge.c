/*
 * PruMerge and PruMerge+ (arXiv 2403.15388; github.com/42Shawn/LLaVA-PruMerge), before the language
 * model: of a picture the patches stay that the class row attends to more than Q3 + 1.5 · IQR of
 * all (`keep`: so many of the highest); `plus` adds every max(1, ⌊⌊1 / r⌋ / 3⌋)-th patch, r the
 * part that stayed. To each come those `neighbours` patches whose keys are most like its own
 * (cosine), times the attention they got. Unlike there: attention is the mean over heads, rows stay
 * in order, no extra row for what went, the class row stays; with no outlier the highest.
 */
#include "pruning/method.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct merge {
    const struct pl_pruner *p;
    struct pl_vision_merge calls;
    size_t patches, hidden, n, near; /* n: kept patches; near: neighbours of each */
    int32_t *kept;                   /* [patches] */
    int32_t *neighbours;             /* [n][near] */
    float *attn, *scores, *norm;     /* [patches]; norm: 1 / |key| */
    bool *stays;                     /* [patches] */
    size_t room, room_near;
};

static int ascending(const void *a, const void *b)
{
    return (*(const float *)a > *(const float *)b) - (*(const float *)a < *(const float *)b);
}

/* Linear between order statistics of v, which is sorted. */
static double quantile(const float *v, size_t n, double q)
{
    const double at = q * (double)(n - 1);
    const size_t i = (size_t)at;

    return i + 1 < n ? (double)v[i] + (at - (double)i) * ((double)v[i + 1] - (double)v[i])
                     : (double)v[n - 1];
}

static size_t outliers(const float *attn, float *sorted, size_t n)
{
    size_t count = 0;

    memcpy(sorted, attn, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), ascending);
    const double q1 = quantile(sorted, n, 0.25), q3 = quantile(sorted, n, 0.75);
    for (size_t i = 0; i < n; i++)
        count += (double)attn[i] > q3 + 1.5 * (q3 - q1);
    return count;
}

static void free_room(struct merge *m)
{
    free(m->kept);
    free(m->attn);
    free(m->scores);
    free(m->norm);
    free(m->stays);
}

static enum pl_status make_room(struct merge *m, size_t patches, struct pl_err *err)
{
    if (patches <= m->room)
        return PL_OK;
    free_room(m);
    m->kept = malloc(patches * sizeof(*m->kept));
    m->attn = malloc(patches * sizeof(*m->attn));
    m->scores = malloc(patches * sizeof(*m->scores));
    m->norm = malloc(patches * sizeof(*m->norm));
    m->stays = malloc(patches * sizeof(*m->stays));
    m->room = patches;
    if (m->kept && m->attn && m->scores && m->norm && m->stays)
        return PL_OK;
    m->room = 0;
    return pl_fail(err, PL_ENOMEM, "no memory to merge %zu patches", patches);
}

/* The patches that stay, ascending in m->kept. */
static void choose_patches(struct merge *m)
{
    const struct pl_prune_opts *o = &m->p->o;
    const size_t n = m->patches;
    size_t count =
        o->n_keep ? (size_t)floor(o->keep[0] * (double)n) : outliers(m->attn, m->scores, n);

    count = count < 1 ? 1 : count;
    pl_keep_select(m->attn, n, count, m->kept);
    memset(m->stays, 0, n * sizeof(*m->stays));
    for (size_t i = 0; i < count; i++)
        m->stays[m->kept[i]] = true;
    const size_t third = n / count / 3, step = third ? third : 1;
    for (size_t i = 0; o->plus && i < n; i += step)
        m->stays[i] = true;
    m->n = 0;
    for (size_t i = 0; i < n; i++)
        if (m->stays[i])
            m->kept[m->n++] = (int32_t)i;
}

/* The patches whose keys are most like that of kept patch k, itself left out. */
static void find_neighbours(struct merge *m, const float *keys, size_t k)
{
    const size_t self = (size_t)m->kept[k];
    const float *own = keys + self * m->hidden;

    for (size_t i = 0; i < m->patches; i++) {
        const float *key = keys + i * m->hidden;
        float dot = 0;
        for (size_t j = 0; j < m->hidden; j++)
            dot += own[j] * key[j];
        m->scores[i] = dot * m->norm[self] * m->norm[i];
    }
    m->scores[self] = -INFINITY;
    pl_keep_select(m->scores, m->patches, m->near, m->neighbours + k * m->near);
}

static enum pl_status choose(void *user, size_t tokens, size_t hidden, const float *attn,
                             const float *keys, size_t *n, struct pl_err *err)
{
    struct merge *m = user;
    const float *patch_keys = keys + hidden; /* behind the class row's */
    enum pl_status st;

    if (tokens < 2)
        return pl_fail(err, PL_EUNSUPPORTED, "prumerge: a picture of %zu rows", tokens);
    m->patches = tokens - 1;
    m->hidden = hidden;
    m->near = m->p->o.neighbours < m->patches - 1 ? m->p->o.neighbours : m->patches - 1;
    st = make_room(m, m->patches, err);
    if (st)
        return st;
    for (size_t i = 0; i < m->patches; i++) {
        float sum = 0;
        for (size_t j = 0; j < hidden; j++)
            sum += patch_keys[i * hidden + j] * patch_keys[i * hidden + j];
        m->norm[i] = 1.0f / fmaxf(sqrtf(sum), 1e-12f);
        m->attn[i] = attn[i + 1];
        if (!isfinite(m->attn[i]) || !isfinite(sum))
            return pl_fail(err, PL_EFORMAT,
                           "prumerge: the attention or key of patch %zu is NaN or infinite", i);
    }
    choose_patches(m);
    if (m->n * m->near > m->room_near) {
        free(m->neighbours);
        m->neighbours = malloc(m->n * m->near * sizeof(*m->neighbours));
        m->room_near = m->neighbours ? m->n * m->near : 0;
        if (!m->neighbours)
            return pl_fail(err, PL_ENOMEM, "no memory to merge %zu patches", m->patches);
    }
    for (size_t k = 0; k < m->n && m->near; k++)
        find_neighbours(m, patch_keys, k);
    *n = m->n + 1;
    return pl_prune_note_merge((struct pl_pruner *)m->p, m->kept, m->n, err);
}

static void apply(void *user, const float *rows, float *out)
{
    const struct merge *m = user;
    const size_t h = m->hidden;

    memcpy(out, rows, h * sizeof(*out));
    for (size_t k = 0; k < m->n; k++) {
        float *to = out + (k + 1) * h;
        memcpy(to, rows + (size_t)(m->kept[k] + 1) * h, h * sizeof(*to));
        for (size_t i = 0; i < m->near; i++) {
            const size_t from = (size_t)m->neighbours[k * m->near + i];
            for (size_t j = 0; j < h; j++)
                to[j] += m->attn[from] * rows[(from + 1) * h + j];
        }
    }
}

static enum pl_status open_merge(struct pl_pruner *p, struct pl_model *model, struct pl_err *err)
{
    struct merge *m = pl_model_vision(model) ? calloc(1, sizeof(*m)) : NULL;

    if (!pl_model_vision(model))
        return pl_fail(err, PL_EUNSUPPORTED,
                       "prumerge merges a picture's tokens: the model reads text alone");
    if (!m)
        return pl_fail(err, PL_ENOMEM, "no memory for a pruner");
    m->p = p;
    m->calls = (struct pl_vision_merge){choose, apply, m};
    p->state = m;
    p->merge = &m->calls;
    return PL_OK;
}

static void close_merge(struct pl_pruner *p)
{
    struct merge *m = p->state;

    free_room(m);
    free(m->neighbours);
    free(m);
}

const struct pl_prune_method pl_prune_prumerge = {
    .name = "prumerge", .where = PL_PRUNE_INPUT, .open = open_merge, .close = close_merge};
