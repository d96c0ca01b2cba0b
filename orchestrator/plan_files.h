/* Are a dataset's files there? Said before anything runs; the rows say it again. */
#ifndef PL_ORCHESTRATOR_PLAN_FILES_H
#define PL_ORCHESTRATOR_PLAN_FILES_H

#include "orchestrator/plan.h"

/* For sweeps over scenes: warns with counts of the files that are missing or broken among those
 * that the arms read; a kind of file that is missing from every scene is a mistake. Opens each
 * file. */
void pl_plan_check_files(const struct pl_sweep *s, const struct pl_arm_info *arms,
                         struct pl_problems *problems, struct pl_problems *warnings);

#endif
