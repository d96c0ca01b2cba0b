#include "spec_decode/medusa.h"

#include "model/checkpoint.h"
#include "spec_decode/tree.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HEADS 16

struct medusa {
    const struct pl_backend *be;
    struct pl_model *verifier;
    struct pl_tensor *w[MAX_HEADS], *b[MAX_HEADS], *head[MAX_HEADS]; /* head NULL: the verifier's */
    size_t n, hidden, vocab;
    struct pl_tensor *x, *y, *logits; /* [1, …] */
    float *row;                       /* [vocab] */
    int32_t masked[PL_ACCEPT_MAX_MASKED];
    size_t n_masked, top;
    struct pl_draft_shape shape; /* with top > 1 */
    int32_t said[MAX_HEADS][PL_TREE_MAX_TOP];
};

static void medusa_free(void *state)
{
    struct medusa *m = state;

    if (!m)
        return;
    for (size_t i = 0; i < MAX_HEADS; i++) {
        m->be->tensor_free(m->w[i]);
        m->be->tensor_free(m->b[i]);
        m->be->tensor_free(m->head[i]);
    }
    m->be->tensor_free(m->x);
    m->be->tensor_free(m->y);
    m->be->tensor_free(m->logits);
    free(m->row);
    free(m);
}

static const struct pl_tensor_view *look(const struct pl_checkpoint *c, size_t k, const char *rest)
{
    char name[64];

    snprintf(name, sizeof(name), "%zu.%s", k, rest);
    return pl_checkpoint_find(c, name);
}

static enum pl_status check(const char *path, const struct pl_tensor_view *t, size_t k,
                            const char *rest, size_t rows, size_t cols, struct pl_err *err)
{
    char shape[128];

    if (!t)
        return pl_fail(err, PL_EFORMAT, "%s: %zu.%s misses, expected Medusa heads", path, k, rest);
    pl_tensor_shape_text(t, shape, sizeof(shape));
    if ((uint64_t)t->elements != (uint64_t)rows * cols || !t->dims ||
        (uint64_t)t->shape[t->dims - 1] != cols)
        return pl_fail(err, PL_EFORMAT, "%s: %s is %s, expected [%zu, %zu]", path, t->name, shape,
                       rows, cols);
    if (t->dtype != PL_DT_F32 && t->dtype != PL_DT_F16 && t->dtype != PL_DT_BF16)
        return pl_fail(err, PL_EUNSUPPORTED, "%s: %s is %s, expected f32, f16 or bf16", path,
                       t->name, pl_dtype_traits(t->dtype)->name);
    return PL_OK;
}

static enum pl_status matrix(struct medusa *m, const struct pl_tensor_view *t, size_t rows,
                             struct pl_tensor **out, struct pl_err *err)
{
    const struct pl_weight_source src = {
        .name = t->name, .view = t, .rows = (int64_t)rows, .cols = (int64_t)m->hidden};

    return m->be->weight_create(pl_model_device(m->verifier), &src, PL_DT_F32, out, err);
}

static enum pl_status open_head(struct medusa *m, const char *path, const struct pl_checkpoint *c,
                                size_t k, struct pl_err *err)
{
    const struct pl_tensor_view *w = look(c, k, "0.linear.weight"),
                                *b = look(c, k, "0.linear.bias");
    const struct pl_tensor_view *head = look(c, k, "1.weight");
    enum pl_status st = check(path, w, k, "0.linear.weight", m->hidden, m->hidden, err);

    if (!st)
        st = check(path, b, k, "0.linear.bias", 1, m->hidden, err);
    if (!st && head)
        st = check(path, head, k, "1.weight", m->vocab, m->hidden, err);
    if (!st)
        st = matrix(m, w, m->hidden, &m->w[k], err);
    if (!st && head)
        st = matrix(m, head, m->vocab, &m->head[k], err);
    if (!st)
        st = m->be->tensor_create(pl_model_device(m->verifier), 1, m->hidden, &m->b[k], err);
    if (st)
        return st;
    pl_dtype_to_f32(b->dtype, b->data, m->row, m->hidden);
    return m->be->upload(m->b[k], 0, 1, m->row, err);
}

static enum pl_status make_room(struct medusa *m, struct pl_err *err)
{
    struct pl_device *d = pl_model_device(m->verifier);
    enum pl_status st = m->be->tensor_create(d, 1, m->hidden, &m->x, err);

    if (!st)
        st = m->be->tensor_create(d, 1, m->hidden, &m->y, err);
    if (!st)
        st = m->be->tensor_create(d, 1, m->vocab, &m->logits, err);
    m->row = calloc(m->vocab > m->hidden ? m->vocab : m->hidden, sizeof(*m->row));
    return st || m->row ? st : pl_fail(err, PL_ENOMEM, "no memory for Medusa heads");
}

enum pl_status pl_draft_medusa_open(const char *path, struct pl_model *verifier,
                                    const int32_t *masked, size_t n_masked, size_t top,
                                    size_t nodes, void **out, struct pl_err *err)
{
    const struct pl_arch *a = &pl_model_info(verifier)->arch;
    struct medusa *m = calloc(1, sizeof(*m));
    struct pl_checkpoint *c = NULL;
    enum pl_status st;

    if (!m)
        return pl_fail(err, PL_ENOMEM, "no memory for Medusa heads");
    m->be = pl_model_backend(verifier);
    m->verifier = verifier;
    m->hidden = (size_t)a->hidden;
    m->vocab = (size_t)a->vocab;
    m->n_masked = n_masked < PL_ACCEPT_MAX_MASKED ? n_masked : PL_ACCEPT_MAX_MASKED;
    for (size_t i = 0; i < m->n_masked; i++)
        m->masked[i] = masked[i];
    m->top = top;
    st = make_room(m, err);
    if (!st)
        st = pl_checkpoint_open(path, &c, err);
    while (!st && m->n < MAX_HEADS && (m->n == 0 || look(c, m->n, "0.linear.weight"))) {
        st = open_head(m, path, c, m->n, err);
        m->n++;
    }
    pl_checkpoint_free(c);
    pl_draft_shape_make(pl_draft_shape_medusa, top, m->n, nodes, &m->shape);
    if (st)
        medusa_free(m);
    else
        *out = m;
    return st;
}

static enum pl_status medusa_begin(void *d, const struct pl_prompt *prompt, uint64_t key,
                                   struct pl_err *err)
{
    (void)d;
    (void)prompt;
    (void)key;
    (void)err;
    return PL_OK;
}

/* What head k says after the state in x: its `top` choices. */
static enum pl_status say(struct medusa *m, size_t k, struct pl_err *err)
{
    enum pl_status st = m->be->linear(m->y, m->x, m->w[k], m->b[k], err);

    if (!st)
        st = m->be->activate(PL_ACT_SILU, m->y, m->y, err);
    if (!st)
        st = m->be->axpby(1, m->x, 1, m->y, err);
    if (!st)
        st = m->be->linear(m->logits, m->y, m->head[k] ? m->head[k] : pl_model_head(m->verifier),
                           NULL, err);
    if (!st)
        st = m->be->download(m->logits, 0, 1, m->row, err);
    if (st)
        return st;
    if (pl_draft_top(m->row, m->vocab, m->masked, m->n_masked, m->top, m->said[k]) < m->top)
        return pl_fail(err, PL_EFORMAT, "Medusa head %zu says NaN or infinite", k);
    return PL_OK;
}

enum pl_status pl_draft_medusa_logits(void *d, const float *state, size_t k, float *logits,
                                      struct pl_err *err)
{
    struct medusa *m = d;
    enum pl_status st;

    if (k >= m->n)
        return pl_fail(err, PL_ERANGE, "Medusa head %zu: there are %zu", k, m->n);
    st = m->be->upload(m->x, 0, 1, state, err);
    if (!st)
        st = say(m, k, err);
    if (!st)
        memcpy(logits, m->row, m->vocab * sizeof(*logits));
    return st;
}

/* The nodes that stand less deep than `depth`: a parent that is there has its number in `at`. */
static void fill_tree(const struct medusa *m, size_t depth, struct pl_draft *out)
{
    int32_t at[PL_DRAFT_MAX];

    for (size_t i = 0; i < m->shape.n; i++) {
        int32_t parent = m->shape.parent[i];
        if (m->shape.depth[i] >= depth || out->n == out->max)
            continue;
        at[i] = (int32_t)out->n;
        out->parents[out->n] = parent < 0 ? -1 : at[parent];
        out->ids[out->n++] = m->said[m->shape.depth[i]][m->shape.rank[i]];
    }
    out->tree = true;
}

static enum pl_status medusa_draft(void *d, const struct pl_verified *text, size_t want,
                                   struct pl_draft *out, struct pl_err *err)
{
    struct medusa *m = d;
    enum pl_status st;

    out->n = 0;
    out->tree = out->has_q = false;
    if (!text->n_states)
        return PL_OK;
    st = m->be->upload(m->x, 0, 1, text->states + (text->n_states - 1) * m->hidden, err);
    want = want < m->n ? want : m->n;
    for (size_t k = 0; k < want && !st; k++)
        st = say(m, k, err);
    if (!st && m->top > 1)
        fill_tree(m, want, out);
    for (; !st && m->top == 1 && out->n < want; out->n++)
        out->ids[out->n] = m->said[out->n][0];
    return st;
}

const struct pl_drafter_ops pl_draft_medusa = {.name = "medusa",
                                               .states = true,
                                               .begin = medusa_begin,
                                               .draft = medusa_draft,
                                               .free = medusa_free};
