/* arms.A.prune: keys and paths; what they mean together is the runner's to say (docs/RUNNER.md,
 * describe). */
#ifndef PL_ORCHESTRATOR_SWEEP_PRUNE_H
#define PL_ORCHESTRATOR_SWEEP_PRUNE_H

#include "orchestrator/sweep_tree.h"

/* Sets arm's "prune" from the arm's map; null where it has none. label: "arms.A". */
void pl_tree_prune(struct pl_tree *t, const struct pl_yaml *map, json_t *arm, const char *label);
/* Finds the weights of an arm that will run. */
void pl_tree_prune_paths(struct pl_tree *t, const struct pl_yaml *map, json_t *arm,
                         const char *label);

#endif
