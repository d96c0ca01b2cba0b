/* Inside orchestrator/: run-time selection (--arms, --contexts, --samples, --set) while a sweep is
 * read. */
#ifndef PL_ORCHESTRATOR_SWEEP_SELECT_H
#define PL_ORCHESTRATOR_SWEEP_SELECT_H

#include "orchestrator/sweep_tree.h"

/* Puts --set, then --contexts and --samples, into the file's tree. */
void pl_select_edit(struct pl_tree *t, const struct pl_select *sel);
/* chosen[i]: arm i is run. Baselines that a chosen arm needs are chosen too, with a note. */
void pl_select_arms(struct pl_tree *t, const struct pl_select *sel, json_t *const *arms, size_t n,
                    bool *chosen, struct pl_problems *notes);

#endif
