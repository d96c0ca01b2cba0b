/* The trampoline: what it sets, what it removes, and how it fails. */
#include "base/clock.h"
#include "base/proc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define S PL_NS_PER_S

struct outcome {
    char out[65536], err[4096];
    int status;
};

static void run(const char *const argv[], struct outcome *o)
{
    const int64_t end = pl_now_ns() + 20 * S;
    struct pl_child c;
    struct pl_err err;
    size_t len = 0, n;
    char *line;

    memset(o, 0, sizeof(*o));
    assert_int_equal(pl_child_start(&c, argv, 65536, &err), PL_OK);
    while (!(c.exited && c.out < 0 && c.err < 0) && pl_now_ns() < end) {
        (void)pl_child_pump(&c, S, -1);
        while ((line = pl_child_line(&c, &n, NULL)))
            len += (size_t)snprintf(o->out + len, sizeof(o->out) - len, "%s\n", line);
        assert_true(len < sizeof(o->out));
    }
    assert_true(c.exited);
    o->status = WIFEXITED(c.status) ? WEXITSTATUS(c.status) : -WTERMSIG(c.status);
    snprintf(o->err, sizeof(o->err), "%s", c.tail);
    assert_true(pl_child_release(&c));
}

static bool has_line(const char *text, const char *line)
{
    char want[256];

    snprintf(want, sizeof(want), "%s\n", line);
    const char *at = strstr(text, want);
    return at && (at == text || at[-1] == '\n');
}

static void what_it_sets(void **state)
{
    char pid[24], oom[64] = "";
    const char *const argv[] = {FAKE_RUNNER, "loop-exec", "--parent",  pid,    "--cpus",
                                "0",         "--",        FAKE_RUNNER, "show", NULL};
    struct outcome o;
    int fd;

    (void)state;
    snprintf(pid, sizeof(pid), "%ld", (long)getpid());
    run(argv, &o);
    assert_int_equal(o.status, 0);
    assert_string_equal(o.err, "");
    assert_true(has_line(o.out, "pdeathsig 9"));
    assert_true(has_line(o.out, "fds 0"));
    assert_true(has_line(o.out, "cpus 1"));
    assert_true(has_line(o.out, "leader 1"));
    assert_true(has_line(o.out, "usr1 ignored"));
    assert_true(has_line(o.out, "blocked 0"));
    fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && read(fd, oom, sizeof(oom) - 1) > 0)
        assert_true(has_line(o.out, "oom 1000"));
    close(fd);
}

static void what_it_removes(void **state)
{
    static const char *const gone[] = {
        "OMPI_COMM_WORLD_RANK",  "PMIX_RANK",           "PMI_FD",
        "SLURM_CPU_BIND_LIST",   "SLURM_TRES_PER_TASK", "SLURM_PROCID",
        "SLURM_LOCALID",         "SLURM_STEP_ID",       "SLURM_NTASKS",
        "SLURM_NTASKS_PER_NODE", "SLURM_TASK_PID"};
    static const char *const kept[] = {"SLURM_JOB_ID",  "CUDA_VISIBLE_DEVICES", "PATH", "OMPIX",
                                       "SLURM_PROCIDS", "SLURM_JOB_NODELIST"};
    const char *const argv[] = {FAKE_RUNNER, "exec", "--", FAKE_RUNNER, "show", NULL};
    struct outcome o;
    char line[128];

    (void)state;
    for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++)
        setenv(gone[i], "1", 1);
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
        setenv(kept[i], strcmp(kept[i], "PATH") == 0 ? "/usr/bin:/bin" : "1", 1);
    run(argv, &o);
    assert_int_equal(o.status, 0);
    for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++) {
        snprintf(line, sizeof(line), "env %s=", gone[i]);
        assert_null(strstr(o.out, line));
        unsetenv(gone[i]);
    }
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        snprintf(line, sizeof(line), "env %s=", kept[i]);
        assert_non_null(strstr(o.out, line));
        if (strcmp(kept[i], "PATH") != 0)
            unsetenv(kept[i]);
    }
}

static void how_it_fails(void **state)
{
    static const struct {
        const char *argv[6];
        int status;
        const char *err;
    } cases[] = {
        {{NULL}, 2, "no command"},
        {{"--", NULL}, 2, "no command"},
        {{"--cpus", "0", NULL}, 2, "no command"},
        {{"--cpu", "0", "--", "true"}, 2, "unknown option '--cpu'"},
        {{"true"}, 2, "unknown option 'true'"},
        {{"--parent", "x", "--", "true"}, 2, "not 'x'"},
        {{"--parent", "0", "--", "true"}, 2, "not '0'"},
        {{"--parent", "99999999999999999999", "--", "true"}, 2, "--parent wants"},
        {{"--parent", "1", "--", "true"}, 2, "process 1 is not the parent"},
        {{"--cpus", "", "--", "true"}, 2, "--cpus wants"},
        {{"--cpus", "0-", "--", "true"}, 2, "--cpus wants"},
        {{"--cpus", "2-1", "--", "true"}, 2, "--cpus wants"},
        {{"--cpus", "0,", "--", "true"}, 2, "--cpus wants"},
        {{"--cpus", "0;1", "--", "true"}, 2, "--cpus wants"},
        {{"--cpus", "16384", "--", "true"}, 2, "--cpus wants"},
        {{"--cpus", "16383", "--", "true"}, 2, "cannot bind to processors 16383"},
        {{"--", "/no/such/program"}, 127, "cannot run /no/such/program: No such file"},
        {{"--", "no-such-program-in-path"}, 127, "cannot run no-such"},
        {{"--", "/etc/passwd"}, 126, "Permission denied"},
        {{"--", "sh", "-c", "exit 5"}, 5, ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *argv[9] = {FAKE_RUNNER, "exec"};
        struct outcome o;
        for (int k = 0; k < 6 && cases[i].argv[k]; k++)
            argv[2 + k] = cases[i].argv[k];
        run(argv, &o);
        if (o.status != cases[i].status || !strstr(o.err, cases[i].err))
            print_message("case %zu: %d, %s\n", i, o.status, o.err);
        assert_int_equal(o.status, cases[i].status);
        assert_non_null(strstr(o.err, cases[i].err));
    }
}

/* A rank that dies, however it dies, takes its runner along. */
static void it_dies_with_its_parent(void **state)
{
    int p[2], status;
    pid_t rank, runner = 0;
    int64_t end;

    (void)state;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* orphans come here to be reaped */
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    rank = fork();
    if (rank == 0) {
        char pid[24];
        snprintf(pid, sizeof(pid), "%ld", (long)getpid());
        const char *const argv[] = {FAKE_RUNNER, "exec",      "--parent",     pid,
                                    "--",        FAKE_RUNNER, "stop-reading", NULL};
        struct pl_child c;
        if (pl_child_start(&c, argv, 65536, NULL) != PL_OK)
            _exit(1);
        while (!pl_child_line(&c, NULL, NULL)) /* its hello: it is past the trampoline */
            (void)pl_child_pump(&c, S, -1);
        if (write(p[1], &c.pid, sizeof(c.pid)) != sizeof(c.pid))
            _exit(1);
        for (;;)
            pause();
    }
    assert_int_equal(read(p[0], &runner, sizeof(runner)), sizeof(runner));
    assert_int_equal(kill(runner, 0), 0);
    kill(rank, SIGKILL);
    assert_int_equal(waitpid(rank, &status, 0), rank);
    for (end = pl_now_ns() + 10 * S; waitpid(runner, &status, WNOHANG) != runner;) {
        assert_true(pl_now_ns() < end);
        pl_sleep_ns(PL_NS_PER_MS);
    }
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    close(p[0]);
    close(p[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_it_sets),
        cmocka_unit_test(what_it_removes),
        cmocka_unit_test(how_it_fails),
        cmocka_unit_test(it_dies_with_its_parent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
