#include "orchestrator/sweep_data.h"

#include "orchestrator/sweep_paths.h"

#include <string.h>

enum {
    TEXT = 1,
    SYNTHETIC = 2,
    EVENTGPT = 4,
    DSEC = 8,
    NEEDLE = 16,
    LONGBENCH = 32,
    SCENES = EVENTGPT | DSEC,
    FILES = TEXT | NEEDLE | LONGBENCH
};
#define EVENTGPT_WINDOW_MS 100.0 /* upstream refuses longer ones */

static const struct {
    const char *key;
    unsigned kinds;
    const char *expected; /* in place of it, with another kind */
} keys[] = {
    {"path", FILES, "kind: text, needle or longbench"},
    {"needles", NEEDLE, "kind: needle"},
    {"prompt", LONGBENCH, "kind: longbench"},
    {"dir", SCENES, "kind: eventgpt or dsec"},
    {"questions", SCENES, "kind: eventgpt or dsec"},
    {"n_questions", SCENES, "kind: eventgpt or dsec"},
    {"max_window_ms", SCENES, "kind: eventgpt or dsec"},
    {"cache_vision", SCENES, "kind: eventgpt or dsec"},
};

static unsigned kind_of(const json_t *data)
{
    static const char *const names[] = {"text", "synthetic", "eventgpt",
                                        "dsec", "needle",    "longbench"};
    const char *kind = pl_json_get_str(data, "kind", "");
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(kind, names[i]) == 0)
            return 1u << i;
    return 0; /* a mistake, told by its section */
}

static void drop_others(struct pl_tree *t, const struct pl_yaml *map, json_t *data, unsigned kind)
{
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (keys[i].kinds & kind)
            continue;
        if (pl_tree_get(map, keys[i].key))
            pl_tree_mistake(t, pl_tree_at(map, keys[i].key),
                            "data.%s is given with %s data, expected %s", keys[i].key,
                            pl_json_get_str(data, "kind", ""), keys[i].expected);
        /* `path` was there before the other kinds: sweeps that are running keep their hash. */
        if (strcmp(keys[i].key, "path") != 0)
            json_object_del(data, keys[i].key);
    }
}

static void check_scenes(struct pl_tree *t, const struct pl_yaml *map, json_t *data, unsigned kind)
{
    const char *questions = pl_json_get_str(data, "questions", NULL), *dir;
    if (!pl_tree_get(map, "dir"))
        pl_tree_mistake(t, map, "data.dir is missing, expected the folder of the scenes");
    pl_tree_resolve_path(t, data, "dir", pl_tree_at(map, "dir"), "data");
    dir = pl_json_get_str(data, "dir", "");
    if (questions && !pl_tree_find_path(t, questions)) { /* or in the folder itself */
        char *below = pl_arena_printf(&t->arena, "%s/%s", dir, questions);
        if (below && pl_tree_find_path(t, below))
            json_object_set_new(data, "questions", json_string(below));
    }
    pl_tree_resolve_path(t, data, "questions", pl_tree_at(map, "questions"), "data");
    if (kind == EVENTGPT && !pl_tree_get(map, "max_window_ms"))
        json_object_set_new(data, "max_window_ms", json_real(EVENTGPT_WINDOW_MS));
    json_object_del(data, "path");
}

static void check_grid(struct pl_tree *t, const json_t *grid, unsigned kind)
{
    const struct pl_yaml *map = pl_tree_get(t->root, "grid");
    const struct pl_yaml *samples = pl_tree_get(map, "samples");
    const json_t *contexts = json_object_get(grid, "contexts");
    const bool automatic = json_is_string(json_array_get(contexts, 0));
    if ((kind & SCENES) && json_array_size(contexts) && !automatic)
        pl_tree_mistake(t, pl_tree_at(map, "contexts"),
                        "grid.contexts holds lengths, expected [auto]: a prompt about a scene has "
                        "its own length");
    if ((kind & (FILES | SYNTHETIC)) && automatic)
        pl_tree_mistake(t, pl_tree_at(map, "contexts"),
                        "grid.contexts is [auto], expected lengths: only prompts about scenes "
                        "(data.kind eventgpt or dsec) have one of their own");
    if (kind == SYNTHETIC && samples && samples->kind == PL_YAML_SCALAR &&
        strcmp(samples->text, "all") == 0)
        pl_tree_mistake(t, samples,
                        "grid.samples is all, expected a number, since synthetic data has no end");
}

void pl_sweep_check_data(struct pl_tree *t, json_t *data, const json_t *grid)
{
    const struct pl_yaml *map = pl_tree_get(t->root, "data");
    const unsigned kind = kind_of(data);
    if (!map || map->kind != PL_YAML_MAP || !kind)
        return;
    drop_others(t, map, data, kind);
    if (kind & FILES) {
        if (!pl_tree_get(map, "path"))
            pl_tree_mistake(t, map, "data.path is missing, expected %s",
                            kind == LONGBENCH ? "a JSON Lines file in LongBench's format"
                                              : "a text file or a folder of them");
        pl_tree_resolve_path(t, data, "path", pl_tree_at(map, "path"), "data");
    } else if (kind & SCENES) {
        check_scenes(t, map, data, kind);
    }
    check_grid(t, grid, kind);
}
