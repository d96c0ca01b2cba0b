/* An arm's `draft`: keys that go together, and the file that they come to. */
#ifndef PL_ORCHESTRATOR_SWEEP_DRAFT_H
#define PL_ORCHESTRATOR_SWEEP_DRAFT_H

#include "orchestrator/sweep_tree.h"

/* The resolved draft (new reference), mistakes recorded. v: the key's value; label: "arms.A";
 * adapter_dir: the sweep's, or NULL. Whether its model exists is the caller's to check. */
json_t *pl_tree_draft(struct pl_tree *t, const struct pl_yaml *v, const char *label,
                      const char *adapter_dir);
/* The root's adapter_dir as it is found; one that is not there is a mistake. */
void pl_tree_adapter_dir(struct pl_tree *t, json_t *root, const struct pl_yaml *at);
/* Its weights' path, found by name in adapter_dir where none is given; the file must be there. */
void pl_tree_draft_weights(struct pl_tree *t, json_t *draft, const struct pl_yaml *v,
                           const char *label, const char *adapter_dir);

#endif
