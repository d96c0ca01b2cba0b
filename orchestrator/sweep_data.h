/* What `data` and `grid` must say to each other, kind by kind. */
#ifndef PL_ORCHESTRATOR_SWEEP_DATA_H
#define PL_ORCHESTRATOR_SWEEP_DATA_H

#include "orchestrator/sweep_tree.h"

/* data, grid: as their sections were read. Records mistakes, finds the paths, writes out what
 * depends on the kind and drops the keys of other kinds, which say nothing about this sweep. */
void pl_sweep_check_data(struct pl_tree *t, json_t *data, const json_t *grid);

#endif
