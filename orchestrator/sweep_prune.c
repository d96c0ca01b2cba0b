#include "orchestrator/sweep_prune.h"

#include "orchestrator/sweep_paths.h"

#include <string.h>

void pl_tree_prune(struct pl_tree *t, const struct pl_yaml *map, json_t *arm, const char *label)
{
    const struct pl_yaml *v = pl_tree_get(map, "prune");
    const char *sub = pl_arena_printf(&t->arena, "%s.prune", label);
    json_t *prune =
        v && sub ? pl_tree_section(t, v, PL_SECTION_PRUNE, PL_FOR_ALL, sub) : json_null();

    /* prumerge finds out by itself how many stand out */
    const bool asks = strcmp(pl_json_get_str(prune, "method", ""), "prumerge") != 0;
    if (v && v->kind == PL_YAML_MAP && asks && !pl_tree_get(v, "keep") &&
        !pl_tree_get(v, "total_keep"))
        pl_tree_mistake(t, v, "%s.keep is missing, expected keep or total_keep", sub);
    if (json_object_set_new(arm, "prune", prune) != 0)
        t->no_memory = true;
}

void pl_tree_prune_paths(struct pl_tree *t, const struct pl_yaml *map, json_t *arm,
                         const char *label)
{
    json_t *prune = json_object_get(arm, "prune");
    const struct pl_yaml *at = pl_tree_get(map, "prune");
    const struct pl_yaml *weights = at ? pl_tree_get(at, "weights") : NULL;
    const char *sub = pl_arena_printf(&t->arena, "%s.prune", label);

    if (weights && sub && json_is_object(prune))
        pl_tree_resolve_path(t, prune, "weights", weights, sub);
}
