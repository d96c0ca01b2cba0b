/* Reading control groups of both versions, from a made-up /proc and /sys. */
#include "base/cgroup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[] = "/tmp/paceline-cgroup-XXXXXX";

/* Makes the folders of path and writes the file. */
static void put(const char *path, const char *text)
{
    char full[512];
    FILE *f;

    snprintf(full, sizeof(full), "%s/%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        (void)mkdir(full, 0755);
        *p = '/';
    }
    f = fopen(full, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int make_root(void **state)
{
    (void)state;
    snprintf(root, sizeof(root), "/tmp/paceline-cgroup-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *sb, int flag, struct FTW *ftw)
{
    (void)sb;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static int remove_root(void **state)
{
    (void)state;
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void version_2(void **state)
{
    struct pl_cgroup g;

    (void)state;
    put("proc/self/cgroup", "0::/slurm/job_1/step_0\n");
    put("sys/fs/cgroup/slurm/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/slurm/job_1/cpu.max", "250000 100000\n");
    put("sys/fs/cgroup/slurm/job_1/step_0/cpu.max", "400000 100000\n");
    put("sys/fs/cgroup/slurm/job_1/step_0/memory.events",
        "low 0\noom 9\noom_kill 3\noom_group_kill 7\n");
    assert_true(pl_cgroup_find(root, "cpu", &g));
    assert_int_equal(g.version, 2);
    assert_true(pl_cgroup_cpus(&g) == 2.5); /* the tightest on the way up */
    assert_true(pl_cgroup_find(root, "memory", &g));
    assert_int_equal(pl_cgroup_oom_kills(&g), 3);
}

static void version_1(void **state)
{
    struct pl_cgroup g;

    (void)state;
    put("proc/self/cgroup", "5:cpuset:/x\n4:memory:/m\n3:cpu,cpuacct:/c/d\n0::/\n");
    put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/cpu/c/d/cpu.cfs_quota_us", "50000\n");
    put("sys/fs/cgroup/cpu/c/d/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/memory/m/memory.oom_control",
        "oom_kill_disable 0\nunder_oom 0\noom_kill 12\n");
    assert_true(pl_cgroup_find(root, "cpu", &g));
    assert_int_equal(g.version, 1);
    assert_true(pl_cgroup_cpus(&g) == 0.5);
    assert_true(pl_cgroup_find(root, "memory", &g));
    assert_int_equal(pl_cgroup_oom_kills(&g), 12);
}

/* In a container the path may be the host's: then what is seen as the top counts. */
static void hidden_paths(void **state)
{
    struct pl_cgroup g;

    (void)state;
    put("proc/self/cgroup", "0::/docker/0123\n");
    put("sys/fs/cgroup/cpu.max", "150000 100000\n");
    assert_true(pl_cgroup_find(root, "cpu", &g));
    assert_true(pl_cgroup_cpus(&g) == 1.5);
    put("proc/self/cgroup", "0::/../../elsewhere\n");
    assert_true(pl_cgroup_find(root, "cpu", &g));
    assert_true(pl_cgroup_cpus(&g) == 1.5);
    assert_int_equal(pl_cgroup_oom_kills(&g), -1);
}

static void nothing_there(void **state)
{
    struct pl_cgroup g;

    (void)state;
    assert_false(pl_cgroup_find(root, "cpu", &g));
    put("proc/self/cgroup", "nonsense\n\n:\n1:name=systemd:/\n");
    assert_false(pl_cgroup_find(root, "cpu", &g));
    put("proc/self/cgroup", "0::/\n");
    assert_false(pl_cgroup_find(root, "cpu", &g)); /* no /sys/fs/cgroup */
    put("sys/fs/cgroup/cpu.max", "nonsense\n");
    assert_true(pl_cgroup_find(root, "cpu", &g));
    assert_true(pl_cgroup_cpus(&g) == 0);
    assert_int_equal(pl_cgroup_keyed("/no/such/file", "x"), -1);
}

/* Whole CPUs of the quota, where those are fewer than the affinity's; one at least. */
static void usable(void **state)
{
    cpu_set_t set;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);
    assert_int_equal(pl_usable_cpus(root), CPU_COUNT(&set));
    assert_true(pl_cpu_quota(root) == 0);
    put("proc/self/cgroup", "0::/\n");
    put("sys/fs/cgroup/cpu.max", "99900000 100000\n");
    assert_int_equal(pl_usable_cpus(root), CPU_COUNT(&set) < 999 ? CPU_COUNT(&set) : 999);
    put("sys/fs/cgroup/cpu.max", "190000 100000\n");
    assert_int_equal(pl_usable_cpus(root), 1);
    put("sys/fs/cgroup/cpu.max", "20000 100000\n");
    assert_int_equal(pl_usable_cpus(root), 1);
    assert_true(pl_cpu_quota(root) == 0.2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(version_2, make_root, remove_root),
        cmocka_unit_test_setup_teardown(version_1, make_root, remove_root),
        cmocka_unit_test_setup_teardown(hidden_paths, make_root, remove_root),
        cmocka_unit_test_setup_teardown(nothing_there, make_root, remove_root),
        cmocka_unit_test_setup_teardown(usable, make_root, remove_root),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
