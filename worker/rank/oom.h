/* Evidence that the kernel, and not a person, killed a child: its counts of out-of-memory kills. */
#ifndef PL_WORKER_RANK_OOM_H
#define PL_WORKER_RANK_OOM_H

#include <stdint.h>

struct pl_oom_count {
    int64_t cgroup; /* kills in this process's memory cgroup, where its children are too; −1: not
                       readable */
    int64_t kernel; /* kills on the whole machine; −1: not readable */
};

void pl_oom_read(struct pl_oom_count *c);
/* NULL, or a static text that says which count rose since `before`. The machine's counts only where
 * the cgroup's cannot be read: there it may have been another's process. */
const char *pl_oom_evidence(const struct pl_oom_count *before);

#endif
