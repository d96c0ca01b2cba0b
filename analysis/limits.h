/* How near a phase comes to what its machine was measured to do at most (docs/METRICS.md). */
#ifndef PL_ANALYSIS_LIMITS_H
#define PL_ANALYSIS_LIMITS_H

#include "analysis/dataset.h"

/* Percent: of the multiply-add rate for `prefill` (and `encode`), of the read rate for `decode`,
 * `tpot` and `decode_tps`. NaN where the file has no ceiling, or the work is not known. */
double pl_limit_pct(const struct pl_dataset *d, uint32_t arm, uint32_t context, enum pl_metric m);

/* Bytes that a step of one sequence reads, on average; 0 where the work is not known. */
double pl_limit_step_bytes(const struct pl_dataset *d, uint32_t arm, uint32_t context);

#endif
