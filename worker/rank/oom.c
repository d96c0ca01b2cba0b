#include "worker/rank/oom.h"

#include "base/cgroup.h"

void pl_oom_read(struct pl_oom_count *c)
{
    struct pl_cgroup g;

    c->cgroup = pl_cgroup_find("", "memory", &g) ? pl_cgroup_oom_kills(&g) : -1;
    c->kernel = pl_cgroup_keyed("/proc/vmstat", "oom_kill");
}

const char *pl_oom_evidence(const struct pl_oom_count *before)
{
    struct pl_oom_count now;

    pl_oom_read(&now);
    if (before->cgroup >= 0 && now.cgroup >= 0)
        return now.cgroup > before->cgroup ? "its cgroup counted an out-of-memory kill" : NULL;
    if (before->kernel >= 0 && now.kernel > before->kernel)
        return "the machine counted an out-of-memory kill";
    return NULL;
}
