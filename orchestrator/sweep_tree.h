/* Inside orchestrator/: the YAML tree of one sweep while it is read, its mistakes, and the edits
 * that --set makes to it. */
#ifndef PL_ORCHESTRATOR_SWEEP_TREE_H
#define PL_ORCHESTRATOR_SWEEP_TREE_H

#include "base/arena.h"
#include "base/json.h"
#include "base/yaml.h"
#include "orchestrator/sweep.h"
#include "orchestrator/sweep_keys.h"

struct pl_mistake {
    int line, column;
    size_t order; /* of finding, to keep a stable order within a place */
    char *text;
};

struct pl_tree {
    const char *path; /* of the sweep file, for messages */
    struct pl_arena arena;
    struct pl_yaml *root;
    /* Nodes that did not come from the file have line −1 − i: they were given by origin[i] ("--set
     * grid.samples"). */
    const char **origins;
    size_t n_origins;
    struct pl_mistake *mistakes;
    size_t n_mistakes;
    bool no_memory; /* something could not be recorded */
};

void pl_tree_release(struct pl_tree *t);
/* Records "place: text". at NULL: the file as a whole. */
void pl_tree_mistake(struct pl_tree *t, const struct pl_yaml *at, const char *fmt, ...)
    PL_PRINTF(3, 4);
/* The same for what an option says: "origin: text" (origin is borrowed). */
void pl_tree_option_mistake(struct pl_tree *t, const char *origin, const char *fmt, ...)
    PL_PRINTF(3, 4);
/* "3:5", or the option that a node came from. */
const char *pl_tree_place(struct pl_tree *t, const struct pl_yaml *at);
/* Moves the mistakes, sorted by place, to `out`; returns how many. */
size_t pl_tree_report(struct pl_tree *t, struct pl_problems *out);

/* Replaces the value at the dotted path `key` by the parsed `value`, making maps on the way.
 * `origin` is kept (borrowed). A mistake when a value on the way is not a map, or on bad YAML. */
void pl_tree_set(struct pl_tree *t, const char *key, const char *value, const char *origin);
/* In a map: a copy whose dotted `key` is `value` (values that the tree shares are not changed).
 * NULL: a value on the way is not a map, or no memory. */
struct pl_yaml *pl_tree_with(struct pl_tree *t, const struct pl_yaml *map, const char *key,
                             struct pl_yaml *value);

/* How a value is called in a message: `"abc"`, `a list`, `a map`, `empty`. The arena's. */
const char *pl_tree_show(struct pl_tree *t, const struct pl_yaml *v);
bool pl_yaml_is_null(const struct pl_yaml *v); /* a plain empty, ~ or null */

/* Reads a map as `section`: unknown and doubled keys, types and ranges are mistakes; the result has
 * every key of the table whose engines fit, in the table's order, with defaults; PL_KEY_MAP and
 * PL_KEY_ANY keys are left out. label: "grid", "arms.fast". Never NULL, unless memory is out
 * (t->no_memory). */
json_t *pl_tree_section(struct pl_tree *t, const struct pl_yaml *map, enum pl_sweep_section section,
                        unsigned engines, const char *label);
/* `unknown key "x" in grid, expected contexts, samples or repeats[, did you mean …]` */
void pl_tree_unknown_key(struct pl_tree *t, const struct pl_yaml *key,
                         enum pl_sweep_section section, unsigned engines, const char *label);
bool pl_tree_knows(const char *name, enum pl_sweep_section section);
/* First value of a key of a map, NULL when absent or empty. */
const struct pl_yaml *pl_tree_get(const struct pl_yaml *map, const char *key);
/* Where a mistake about a key is: at its value, else at the map (which may be NULL). */
const struct pl_yaml *pl_tree_at(const struct pl_yaml *map, const char *key);
/* o[key] = value, which is taken over; NULL is memory that ran out. */
void pl_tree_put(struct pl_tree *t, json_t *o, const char *key, json_t *value);

/* One arm after its matrix was expanded. The arena's. */
struct pl_arm_def {
    const char *name;
    const struct pl_yaml *key; /* where the file names it */
    const struct pl_yaml *map; /* without `matrix`, its values put in */
};
#define PL_ARMS_MAX 4096
/* The arms in the order of the file; doubled names are mistakes and left out. *out is the arena's.
 * Returns how many. */
size_t pl_tree_arms(struct pl_tree *t, const struct pl_yaml *arms, struct pl_arm_def **out);
/* Names stand in tables, in file names and in --arms lists: a mistake unless the name can. */
bool pl_tree_name_ok(struct pl_tree *t, const struct pl_yaml *key, const char *name,
                     const char *what);

#endif
