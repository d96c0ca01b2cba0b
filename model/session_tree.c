/* A tree of tokens behind the text: what is checked of it, and the path that stays. */
#include "model/session_impl.h"

#include <inttypes.h>

static enum pl_status check_tree(const struct pl_session *s, const struct pl_prompt *rows,
                                 const int32_t *parents, struct pl_err *err)
{
    size_t most = s->max_verify < PL_TREE_MAX ? s->max_verify : PL_TREE_MAX;
    enum pl_status st = PL_OK;

    if (!s->len)
        return pl_fail(err, PL_EUSAGE, "a tree before any prefill");
    if (!rows->n || rows->n > most - s->tree)
        return pl_fail(err, PL_ERANGE, "a tree of %zu + %zu rows: this session takes 1 to %zu",
                       s->tree, rows->n, most);
    for (size_t i = 0; i < rows->n; i++)
        if (parents[i] < -1 || parents[i] >= (int64_t)(s->tree + i))
            return pl_fail(err, PL_ERANGE, "row %zu of a tree hangs on row %" PRId32, s->tree + i,
                           parents[i]);
    st = pl_session_check_room(s, s->tree + rows->n, err);
    return st || rows->embeds ? st : pl_model_check_ids(s->model, rows->ids, rows->n, err);
}

/* f: what is wanted of the rows; the rest is filled in here. */
static enum pl_status run_tree(struct pl_session *s, const struct pl_prompt *rows,
                               const int32_t *parents, struct pl_forward f, struct pl_err *err)
{
    const struct pl_token_tree tree = {.parents = s->parents, .depth = s->depth, .base = s->tree};
    size_t before = s->tree;
    enum pl_status st;

    f.ids = rows->embeds ? NULL : rows->ids;
    f.embeds = rows->embeds;
    f.tree = &tree;
    f.end_layer = s->layers;
    f.sums_layer = -1;
    f.want = f.logits || f.picked ? PL_LOGITS_ALL : PL_LOGITS_NONE;
    s->tree = 0; /* what it is checked for */
    st = pl_session_check_decoder(s, err);
    s->tree = before;
    if (!st)
        st = check_tree(s, rows, parents, err);
    if (st)
        return st;
    for (size_t i = 0; i < rows->n; i++) {
        s->parents[before + i] = parents[i];
        s->depth[before + i] = parents[i] < 0 ? 0 : s->depth[parents[i]] + 1;
    }
    s->kv_read = 0;
    st = pl_session_forward(s, &f, rows->n, err);
    if (st)
        return st;
    pl_session_note_taps(s, 0, s->layers, rows->n);
    s->tree += rows->n;
    return PL_OK;
}

enum pl_status pl_session_tree(struct pl_session *s, const struct pl_prompt *rows,
                               const int32_t *parents, float *logits, struct pl_err *err)
{
    return run_tree(s, rows, parents, (struct pl_forward){.logits = logits}, err);
}

enum pl_status pl_session_tree_pick(struct pl_session *s, const struct pl_prompt *rows,
                                    const int32_t *parents, const int32_t *ends, size_t n_ends,
                                    struct pl_picked *out, struct pl_err *err)
{
    const struct pl_forward f = {.picked = out, .ends = ends, .n_ends = n_ends};

    if (!s->backend->picks)
        return pl_fail(err, PL_EUNSUPPORTED, "%s does not pick", s->backend->name);
    return run_tree(s, rows, parents, f, err);
}

enum pl_status pl_session_keep_path(struct pl_session *s, const int32_t *path, size_t n,
                                    struct pl_err *err)
{
    int32_t parent = -1;
    enum pl_status st;

    for (size_t i = 0; i < n; i++) {
        if (path[i] < 0 || (size_t)path[i] >= s->tree || s->parents[path[i]] != parent)
            return pl_fail(err, PL_ERANGE, "row %" PRId32 " is no way on in a tree of %zu rows",
                           path[i], s->tree);
        parent = path[i];
    }
    st = s->backend->cache_keep_path(s->cache, s->tree, path, n, err);
    if (st)
        return st;
    s->tree = 0;
    s->len += n;
    s->since += n;
    return PL_OK;
}
