/* What rank 0 tells the workers of a run (worker/rank/job.h reads it), and what says that two ranks
 * see the same sweep. */
#ifndef PL_ORCHESTRATOR_JOB_H
#define PL_ORCHESTRATOR_JOB_H

#include "base/hash.h"
#include "orchestrator/plan.h"

/* The job as JSON; new reference, NULL when memory is out. results: a path that holds on every
 * host. */
json_t *pl_job_make(const struct pl_sweep *s, const struct pl_plan *p, const char *results,
                    uint16_t session, uint32_t retries);
/* SHA-256 of the sweep file's bytes and the selection, as this process sees them. */
PL_MUST_CHECK
enum pl_status pl_job_sweep_sha(const char *path, const struct pl_select *sel,
                                char out[PL_SHA256_HEX], struct pl_err *err);

#endif
