/* Where the files that a sweep names are: the current directory first, then the sweep file's. */
#ifndef PL_ORCHESTRATOR_SWEEP_PATHS_H
#define PL_ORCHESTRATOR_SWEEP_PATHS_H

#include "orchestrator/sweep_tree.h"

/* `path` when it exists, else the path beside the sweep file when that does, else NULL. The arena's
 * or `path` itself. */
const char *pl_tree_find_path(struct pl_tree *t, const char *path);
/* Replaces o[key] by where it is; a mistake at `at` when it is nowhere. */
void pl_tree_resolve_path(struct pl_tree *t, json_t *o, const char *key, const struct pl_yaml *at,
                          const char *label);
/* A foreign engine's argv: the program must be there and executable (PATH is searched for a bare
 * name); arguments that name a file beside the sweep, and none from the current directory, are
 * replaced by it. */
void pl_tree_resolve_exec(struct pl_tree *t, json_t *argv, const struct pl_yaml *at,
                          const char *label);

#endif
