#include "base/cgroup.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "N:cpu,cpuacct:/path" names one of the controllers. */
static bool lists(const char *controllers, const char *controller)
{
    const size_t n = strlen(controller);

    for (const char *p = controllers; *p;) {
        size_t len = strcspn(p, ",");
        if (len == n && strncmp(p, controller, n) == 0)
            return true;
        p += len + (p[len] == ',');
    }
    return false;
}

bool pl_cgroup_find(const char *sysroot, const char *controller, struct pl_cgroup *out)
{
    char file[PATH_MAX], line[PATH_MAX], path[PATH_MAX] = "";
    int version = 0, n;
    FILE *f;

    snprintf(file, sizeof(file), "%s/proc/self/cgroup", sysroot);
    f = fopen(file, "re");
    if (!f)
        return false;
    while (fgets(line, sizeof(line), f)) {
        char *controllers = strchr(line, ':'), *at = controllers ? strchr(controllers + 1, ':') : 0;
        if (!at)
            continue;
        *at++ = '\0';
        at[strcspn(at, "\n")] = '\0';
        controllers++;
        bool v1 = lists(controllers, controller);
        if (v1 || (!*controllers && !version)) {
            version = v1 ? 1 : 2;
            snprintf(path, sizeof(path), "%s", at);
        }
        if (v1)
            break;
    }
    fclose(f);
    if (!version)
        return false;
    n = snprintf(out->dir, sizeof(out->dir), "%s/sys/fs/cgroup%s%s", sysroot,
                 version == 1 ? "/" : "", version == 1 ? controller : "");
    out->root = (size_t)n;
    out->version = version;
    if (access(out->dir, X_OK) != 0)
        return false;
    if (strcmp(path, "/") != 0 && !strstr(path, "..")) {
        int more = snprintf(out->dir + n, sizeof(out->dir) - (size_t)n, "%s", path);
        if (more < 0 || (size_t)more >= sizeof(out->dir) - (size_t)n || access(out->dir, X_OK) != 0)
            out->dir[n] = '\0';
    }
    return true;
}

/* Up to max numbers of a one-line file; "max" and "-1" read as −1. How many there were. */
static int read_numbers(const char *dir, size_t dir_len, const char *name, double *out, int max)
{
    char path[PATH_MAX + 64], line[128];
    int n = 0;
    FILE *f;

    snprintf(path, sizeof(path), "%.*s/%s", (int)dir_len, dir, name);
    f = fopen(path, "re");
    if (!f)
        return 0;
    if (fgets(line, sizeof(line), f)) {
        char *save = NULL;
        for (char *w = strtok_r(line, " \n", &save); w && n < max; w = strtok_r(NULL, " \n", &save))
            out[n++] = strcmp(w, "max") == 0 ? -1 : strtod(w, NULL);
    }
    fclose(f);
    return n;
}

double pl_cgroup_cpus(const struct pl_cgroup *g)
{
    double least = 0;

    for (size_t len = strlen(g->dir);; len--) {
        double v[2] = {-1, -1};
        int n = 0;
        if (g->version == 2) {
            n = read_numbers(g->dir, len, "cpu.max", v, 2);
        } else if (read_numbers(g->dir, len, "cpu.cfs_quota_us", v, 1) == 1) {
            n = 1 + read_numbers(g->dir, len, "cpu.cfs_period_us", v + 1, 1);
        }
        if (n == 2 && v[0] > 0 && v[1] > 0 && (least == 0 || v[0] / v[1] < least))
            least = v[0] / v[1];
        while (len > g->root && g->dir[len - 1] != '/')
            len--;
        if (len <= g->root)
            return least;
    }
}

double pl_cpu_quota(const char *sysroot)
{
    struct pl_cgroup g;

    return pl_cgroup_find(sysroot, "cpu", &g) ? pl_cgroup_cpus(&g) : 0;
}

int pl_usable_cpus(const char *sysroot)
{
    const double quota = pl_cpu_quota(sysroot);
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

    if (quota > 0 && quota < n)
        n = (int)quota;
    return n > 0 ? n : 1;
}

int64_t pl_cgroup_keyed(const char *path, const char *key)
{
    const size_t n = strlen(key);
    FILE *f = fopen(path, "re");
    int64_t value = -1;
    char line[256];

    if (!f)
        return -1;
    while (value < 0 && fgets(line, sizeof(line), f)) {
        if (strncmp(line, key, n) == 0 && line[n] == ' ')
            value = strtoll(line + n, NULL, 10);
    }
    fclose(f);
    return value;
}

int64_t pl_cgroup_oom_kills(const struct pl_cgroup *g)
{
    char path[PATH_MAX + 64];

    snprintf(path, sizeof(path), "%s/%s", g->dir,
             g->version == 2 ? "memory.events" : "memory.oom_control");
    return pl_cgroup_keyed(path, "oom_kill");
}
