/* Inside orchestrator/: what a plan's trials, loads and warm-ups take. Pure. */
#ifndef PL_ORCHESTRATOR_PLAN_ESTIMATE_H
#define PL_ORCHESTRATOR_PLAN_ESTIMATE_H

#include "orchestrator/plan.h"

/* What a trial keeps its worker busy for: its own time, or what one costs to run at all when it is
 * virtual. 0: not known. */
double pl_plan_busy_s(const struct pl_sweep *s, const struct pl_arm_info *arms, uint32_t arm,
                      uint32_t context);
/* Time of loading an arm's model; negative: not known. */
double pl_plan_load_s(const struct pl_sweep *s, const struct pl_arm_info *arms, uint32_t arm);
/* Expected verification rounds until `left` more tokens are there: acceptance is independent per
 * position, a round makes what was accepted + 1, the last one is cut. */
double pl_plan_rounds(uint32_t left, uint32_t gamma, double acceptance);

#endif
