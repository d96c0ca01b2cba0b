/* Beginning a session: a new results file, or an old one that goes on. */
#ifndef PL_ORCHESTRATOR_RESUME_H
#define PL_ORCHESTRATOR_RESUME_H

#include "orchestrator/plan.h"
#include "orchestrator/sched.h"
#include "results/writer.h"

/* What rank 0 goes on with in the file's logs. */
struct pl_session {
    uint16_t number;
    uint32_t
        slot[PL_LOG_KINDS]; /* next free one; records after the last slot only count as overflow */
    uint64_t overflow[PL_LOG_KINDS];
    uint32_t next_worker, next_load;
    uint64_t torn; /* rows whose marker was set and whose CRC was wrong: they are done again */
};

/* Session 0 in a new file. PL_EEXIST when path is there. */
PL_MUST_CHECK
enum pl_status pl_session_create(const char *path, const struct pl_sweep *sweep,
                                 const struct pl_plan *plan, const json_t *provenance,
                                 struct pl_session *out, struct pl_err *err);
/* Is it the same sweep? PL_ESWEEP when not, with the difference in `diff`. */
PL_MUST_CHECK
enum pl_status pl_session_same(const char *path, const struct pl_sweep *sweep, struct pl_buf *diff,
                               struct pl_err *err);
/* The next session of the same sweep, on the same inputs (PL_ESWEEP names what changed): every row
 * is read and its CRC checked, done ones (and failed ones, unless rerun_failed) are settled in
 * sched. */
PL_MUST_CHECK
enum pl_status pl_session_resume(const char *path, const struct pl_plan *plan,
                                 const json_t *provenance, bool rerun_failed,
                                 struct pl_sched *sched, struct pl_session *out,
                                 struct pl_err *err);

#endif
