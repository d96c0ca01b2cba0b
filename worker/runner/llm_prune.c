#include "worker/runner/llm_prune.h"

#include "base/hash.h"
#include "pruning/pruner.h"

#include <stdlib.h>

void llm_prune_check(const json_t *arm, const struct pl_arch *a, json_t *errors)
{
    const json_t *prune = json_object_get(arm, "prune");
    struct pl_err err = {""};

    if (prune && !json_is_null(prune) && pl_prune_check(prune, a, &err))
        json_array_append_new(errors, json_string(err.text));
}

static void drop_room(struct llm_pruned *p)
{
    for (size_t i = 0; i < p->n; i++)
        pl_session_free(p->sessions[i]);
    free(p->sessions);
    pl_pruner_free(p->pruner);
    p->sessions = NULL;
    p->n = 0;
    p->pruner = NULL;
}

void llm_prune_release(struct llm_pruned *p)
{
    drop_room(p);
    json_decref(p->prune);
    free(p->key);
    p->prune = NULL;
    p->key = NULL;
}

void llm_prune_set(struct llm_pruned *p, const json_t *arm)
{
    json_t *prune = json_object_get(arm, "prune");

    llm_prune_release(p);
    if (prune && !json_is_null(prune))
        p->prune = json_incref(prune);
    if (p->prune)
        p->key = json_dumps(p->prune, JSON_COMPACT | JSON_SORT_KEYS);
}

enum pl_status llm_prune_room(struct llm_pruned *p, const struct llm_model *m, uint64_t seed,
                              size_t slots, int64_t context, int64_t tokens, struct pl_err *err)
{
    struct pl_session_opts o;
    enum pl_status st;

    llm_session_opts(m, context, tokens, &o);
    if (p->n >= slots && pl_session_capacity(p->sessions[0]) >= o.max_tokens && p->seed == seed)
        return PL_OK;
    drop_room(p);
    p->seed = seed;
    st = pl_pruner_create(p->prune, m->model, o.max_tokens, seed, &p->pruner, err);
    if (st)
        return st;
    pl_pruner_session_opts(p->pruner, &o);
    p->sessions = calloc(slots, sizeof(*p->sessions));
    if (!p->sessions)
        return pl_fail(err, PL_ENOMEM, "no memory for %zu sequences", slots);
    for (; p->n < slots; p->n++) {
        st = pl_session_create(m->model, &o, &p->sessions[p->n], err);
        if (st)
            return slots > 1 ? pl_err_prefix(err, st, "sequence %zu of %zu", p->n + 1, slots) : st;
    }
    return PL_OK;
}

void llm_prune_swap(struct llm_pruned *p, struct llm_model *m)
{
    struct pl_session *s = m->session;

    if (!p->n) /* nor where the arm drafts: that has sessions of its own */
        return;
    m->session = p->sessions[0];
    p->sessions[0] = s;
}

enum pl_status llm_prune_merge(struct llm_pruned *p, const struct llm_model *m, uint64_t seed,
                               int64_t tokens, struct llm_merge *out, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    *out = (struct llm_merge){NULL, p->key};
    if (p->prune && !p->key)
        return pl_fail(err, PL_ENOMEM, "no memory for an arm's prune");
    if (p->prune && !p->pruner) /* else the one at hand will do, or a larger one comes */
        st = llm_prune_room(p, m, seed, 1, 1, tokens, err);
    if (!st && p->prune)
        out->merge = pl_pruner_merge(p->pruner);
    return st;
}

enum pl_status llm_prune_begin(struct llm_pruned *p, const int32_t *ids, size_t n,
                               const struct llm_eyes *eyes, struct pl_err *err)
{
    const struct pl_prune_prompt prompt = {.n = eyes->n ? eyes->n : n,
                                           .visual = eyes->n ? eyes->visual : NULL,
                                           .key = pl_hash64(0, ids, n * sizeof(*ids))};

    return p->prune ? pl_pruner_begin(p->pruner, &prompt, err) : PL_OK;
}
