/* What an arm's batch, concurrency and requests must be together. */
#ifndef PL_ORCHESTRATOR_SWEEP_BATCH_H
#define PL_ORCHESTRATOR_SWEEP_BATCH_H

#include "orchestrator/sweep_tree.h"

/* Adds the mistakes of an arm (its map in the file; its JSON, drafting resolved) and writes
 * `requests` out. */
void pl_batch_check(struct pl_tree *t, const struct pl_yaml *map, json_t *arm, const char *label);

#endif
