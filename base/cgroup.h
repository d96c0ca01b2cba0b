/*
 * This process's control group, versions 1 and 2, read only. sysroot is "" in life, and a folder
 * that holds proc/self/cgroup and sys/fs/cgroup in tests.
 */
#ifndef PL_BASE_CGROUP_H
#define PL_BASE_CGROUP_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pl_cgroup {
    char dir[PATH_MAX]; /* where its files are */
    size_t root;        /* bytes of dir that name the hierarchy's top */
    int version;        /* 1 or 2 */
};

/* The group of a controller ("cpu", "memory"). False: no such hierarchy. In a container whose own
 * path is hidden, the top that it sees. */
bool pl_cgroup_find(const char *sysroot, const char *controller, struct pl_cgroup *out);
/* CPUs that the group may use at once, the least from here to the top; 0: no limit. */
double pl_cgroup_cpus(const struct pl_cgroup *g);
/* The same of this process; 0: no limit, or no such group. */
double pl_cpu_quota(const char *sysroot);
/* CPUs that this process may use at once: those of its affinity, and no more than the whole ones of
 * its quota; at least one. */
int pl_usable_cpus(const char *sysroot);
/* Out-of-memory kills that the group counted; −1: not readable. */
int64_t pl_cgroup_oom_kills(const struct pl_cgroup *g);
/* The number after `key` at a line's start of a "key number" file; −1: not there. */
int64_t pl_cgroup_keyed(const char *path, const char *key);

#endif
