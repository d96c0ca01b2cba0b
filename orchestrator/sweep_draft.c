#include "orchestrator/sweep_draft.h"

#include "orchestrator/sweep_paths.h"

#include <string.h>

static bool is(const char *s, const char *one, const char *other)
{
    return s && (strcmp(s, one) == 0 || (other && strcmp(s, other) == 0));
}

/* What the method needs and cannot have. */
static void check_together(struct pl_tree *t, const json_t *j, const struct pl_yaml *v,
                           const char *label, const char *adapter_dir)
{
    const char *method = pl_json_get_str(j, "method", ""),
               *model = pl_json_get_str(j, "model", NULL);
    const char *adapter = pl_json_get_str(j, "adapter", NULL);
    const char *weights = pl_json_get_str(j, "weights", NULL);
    const char *tree = pl_json_get_str(j, "tree", NULL);
    int64_t top = pl_json_get_i64(j, "tree_top", 0);
    bool heads = is(method, "eagle", "medusa");
    bool with_model = is(method, "model", "retokenize") ||
                      (is(method, "adapter", NULL) && !is(adapter, "B1", NULL));

    if (is(method, "adapter", NULL) && !adapter)
        pl_tree_mistake(t, v, "%s.draft.adapter is missing, expected L1, L2, L3, L4, L5, L5F or B1",
                        label);
    else if (with_model && !model)
        pl_tree_mistake(t, v, "%s.draft.model is missing, expected the model that drafts (%s)",
                        label, method);
    if (!with_model && model)
        pl_tree_mistake(t, pl_tree_at(v, "model"),
                        "%s.draft.model is given, but %s drafts without a model", label,
                        adapter ? adapter : method);
    if (adapter && !is(method, "adapter", NULL))
        pl_tree_mistake(t, pl_tree_at(v, "adapter"), "%s.draft.adapter is given with method %s",
                        label, method);
    if (weights && !heads && !is(method, "adapter", NULL))
        pl_tree_mistake(t, pl_tree_at(v, "weights"),
                        "%s.draft.weights is given, but method %s has none", label, method);
    if (!weights && !adapter_dir && (heads || adapter))
        pl_tree_mistake(t, v, "%s.draft.weights is missing, expected a file (or adapter_dir)",
                        label);
    if (top > 1 && !heads)
        pl_tree_mistake(t, pl_tree_at(v, "tree_top"),
                        "%s.draft.tree_top is more than 1, but method %s drafts chains", label,
                        method);
    if (tree && !heads && !is(tree, "chain", NULL))
        pl_tree_mistake(t, pl_tree_at(v, "tree"),
                        "%s.draft.tree is %s, but method %s drafts chains", label, tree, method);
    else if (is(tree, "dynamic", NULL) && is(method, "medusa", NULL))
        pl_tree_mistake(t, pl_tree_at(v, "tree"),
                        "%s.draft.tree is dynamic, but medusa drafts chains or the static tree",
                        label);
    if (tree && (top == 1) != is(tree, "chain", NULL) && top)
        pl_tree_mistake(t, pl_tree_at(v, "tree_top"), "%s.draft.tree_top is %lld with tree %s",
                        label, (long long)top, tree);
    if (pl_json_get_i64(j, "max_ngram", 4) < pl_json_get_i64(j, "min_ngram", 1))
        pl_tree_mistake(t, pl_tree_at(v, "max_ngram"), "%s.draft.max_ngram is less than min_ngram",
                        label);
    if (pl_json_get_f64(j, "sm_share", 0) > 0 &&
        (!with_model || !is(pl_json_get_str(j, "overlap", ""), "prefill", NULL)))
        pl_tree_mistake(t, pl_tree_at(v, "sm_share"),
                        "%s.draft.sm_share is given, but its lanes never run at once, expected a "
                        "draft with a model and overlap: prefill",
                        label);
    if (adapter && pl_json_get_f64(j, "temperature", 0) > 0)
        pl_tree_mistake(t, pl_tree_at(v, "temperature"),
                        "%s.draft.temperature is more than 0, but adapters draft greedily", label);
}

/* The defaults that hang on other keys: an adapter without gamma only hides the prefill. */
static void resolve_rounds(struct pl_tree *t, json_t *j)
{
    const bool hides = is(pl_json_get_str(j, "method", NULL), "adapter", NULL) &&
                       !is(pl_json_get_str(j, "adapter", NULL), "B1", NULL) &&
                       is(pl_json_get_str(j, "overlap", NULL), "prefill", NULL) &&
                       !json_is_integer(json_object_get(j, "gamma"));
    if (!pl_json_get_str(j, "after_prefill", NULL))
        pl_tree_put(t, j, "after_prefill", json_string(hides ? "none" : "gamma"));
    if (!json_is_integer(json_object_get(j, "gamma")))
        pl_tree_put(t, j, "gamma", json_integer(1));
}

json_t *pl_tree_draft(struct pl_tree *t, const struct pl_yaml *v, const char *label,
                      const char *adapter_dir)
{
    const char *sub = pl_arena_printf(&t->arena, "%s.draft", label);
    size_t before = t->n_mistakes;
    json_t *j;
    if (!sub) {
        t->no_memory = true;
        return NULL;
    }
    j = pl_tree_section(t, v, PL_SECTION_DRAFT, PL_FOR_ALL, sub);
    if (!j || t->n_mistakes != before || v->kind != PL_YAML_MAP)
        return j;
    if (!pl_json_get_str(j, "method", NULL)) {
        const char *said = pl_json_get_str(j, "adapter", NULL) ? "adapter"
                           : pl_json_get_str(j, "model", NULL) ? "model"
                                                               : NULL;
        if (said && json_object_set_new(j, "method", json_string(said)) != 0)
            t->no_memory = true;
        else if (!said)
            pl_tree_mistake(t, v, "%s.draft.method is missing, expected a method or a model",
                            label);
        if (!said)
            return j;
    }
    check_together(t, j, v, label, adapter_dir);
    resolve_rounds(t, j);
    return j;
}

void pl_tree_draft_weights(struct pl_tree *t, json_t *draft, const struct pl_yaml *v,
                           const char *label, const char *adapter_dir)
{
    const char *method = pl_json_get_str(draft, "method", "");
    const char *adapter = pl_json_get_str(draft, "adapter", NULL);
    const char *sub = pl_arena_printf(&t->arena, "%s.draft", label), *path = NULL;
    if (!sub) {
        t->no_memory = true;
        return;
    }
    if (!pl_json_get_str(draft, "weights", NULL) && adapter_dir &&
        (adapter || is(method, "eagle", "medusa"))) {
        path = pl_arena_printf(&t->arena, "%s/%s.safetensors", adapter_dir,
                               adapter ? adapter : method);
        if (!path || json_object_set_new(draft, "weights", json_string(path)) != 0)
            t->no_memory = true;
    }
    pl_tree_resolve_path(t, draft, "weights", pl_tree_at(v, "weights"), sub);
}

void pl_tree_adapter_dir(struct pl_tree *t, json_t *root, const struct pl_yaml *at)
{
    const char *dir = pl_json_get_str(root, "adapter_dir", NULL), *found;
    if (!dir)
        return;
    found = pl_tree_find_path(t, dir);
    if (!found)
        pl_tree_mistake(t, at, "adapter_dir is \"%s\", expected a directory that exists", dir);
    else if (found != dir && json_object_set_new(root, "adapter_dir", json_string(found)) != 0)
        t->no_memory = true;
}
