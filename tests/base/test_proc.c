#include "base/proc.h"

#include "base/clock.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE (20 * PL_NS_PER_S) /* a slow machine, not the expected time */

static struct pl_child start(const char *const argv[], size_t max_line)
{
    struct pl_child c;
    struct pl_err err = {.text = ""};

    if (pl_child_start(&c, argv, max_line, &err))
        fail_msg("%s", err.text);
    return c;
}

static struct pl_child start_sh(const char *script, size_t max_line)
{
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    return start(argv, max_line);
}

/* The next line; NULL when the child is at its end, a line was too long, or time is up. */
static char *wait_line(struct pl_child *c, size_t *len, bool *too_long)
{
    int64_t end = pl_now_ns() + PATIENCE;
    bool over = false;
    char *line;

    while (!(line = pl_child_line(c, len, &over)) && !over && !pl_child_eof(c) && pl_now_ns() < end)
        pl_child_pump(c, 100 * PL_NS_PER_MS, -1);
    if (too_long)
        *too_long = over;
    return line;
}

static void wait_exit(struct pl_child *c)
{
    int64_t end = pl_now_ns() + PATIENCE;

    while (!c->exited && pl_now_ns() < end)
        pl_child_pump(c, 100 * PL_NS_PER_MS, -1);
    assert_true(c->exited);
}

static void assert_ended(const struct pl_child *c, const char *want)
{
    char how[64];

    pl_child_describe(c, how, sizeof(how));
    assert_string_equal(how, want);
}

static void echo(void **state)
{
    const char *const argv[] = {"cat", NULL}; /* found in PATH */
    struct pl_child c = start(argv, 1000);
    struct pl_err err;
    size_t len = 0;

    (void)state;
    assert_ended(&c, "running");
    assert_null(pl_child_line(&c, &len, NULL));
    assert_int_equal(getpgid(c.pid), c.pid);
    assert_int_equal(fcntl(c.out, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    assert_int_equal(fcntl(c.in, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(pl_child_send(&c, "one\n\ntwo\nthr", 12, &err), PL_OK);
    assert_string_equal(wait_line(&c, &len, NULL), "one");
    assert_int_equal(len, 3);
    assert_string_equal(wait_line(&c, &len, NULL), "");
    assert_int_equal(len, 0);
    assert_string_equal(wait_line(&c, &len, NULL), "two");
    assert_null(pl_child_line(&c, &len, NULL));
    assert_int_equal(pl_child_send(&c, "ee\nhalf", 7, &err), PL_OK);
    assert_string_equal(wait_line(&c, &len, NULL), "three");
    assert_false(pl_child_eof(&c));
    close(c.in);
    c.in = -1; /* end of file: cat ends */
    wait_exit(&c);
    assert_null(wait_line(&c, &len, NULL)); /* "half" has no newline */
    assert_true(pl_child_eof(&c));
    assert_ended(&c, "exit code 0");
    assert_true(pl_child_release(&c));
    assert_int_equal(c.pid, 0);
    assert_true(pl_child_release(&c));
}

/* Lines through a child both ways at once, far more than the pipes hold; the bytes and their order
 * must be right. */
static void many_lines(void **state)
{
    enum { LINES = 60000 };
    const char *const argv[] = {"cat", NULL};
    struct pl_child c = start(argv, 100000);
    struct pl_err err;
    char want[64];
    int sent = 0, got = 0;
    bool queued = false;
    int64_t end = pl_now_ns() + PATIENCE;

    (void)state;
    while (got < LINES && pl_now_ns() < end) {
        for (; sent < LINES; sent++) {
            int n = snprintf(want, sizeof(want), "line %d %*d\n", sent, sent % 40, 7);
            enum pl_status st = pl_child_send(&c, want, (size_t)n, &err);
            if (st == PL_ERANGE)
                break;
            assert_int_equal(st, PL_OK);
        }
        pl_child_pump(&c, queued ? 0 : PL_NS_PER_S, -1);
        queued = false;
        size_t len;
        /* at times one line a pump only, so that lines queue up */
        for (char *p; (p = pl_child_line(&c, &len, NULL)); got++) {
            int n = snprintf(want, sizeof(want), "line %d %*d", got, got % 40, 7);
            assert_int_equal(len, n);
            assert_string_equal(p, want);
            if (got % 3 == 0) {
                got++;
                queued = true;
                break;
            }
        }
    }
    assert_int_equal(got, LINES);
    assert_true(pl_child_release(&c));
}

static void big_line(void **state)
{
    struct pl_child c =
        start_sh("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo after", 3000000);
    size_t len = 0;
    bool over;
    char *p = wait_line(&c, &len, &over);

    (void)state;
    assert_non_null(p);
    assert_int_equal(len, 3000000);
    assert_int_equal(strspn(p, "x"), 3000000);
    assert_string_equal(wait_line(&c, &len, &over), "after");
    assert_false(over);
    assert_true(pl_child_release(&c));
}

static void line_too_long(void **state)
{
    /* 200 MB without a newline, then an ordinary line, a line one byte too long, another ordinary
     * one */
    struct pl_child c = start_sh("head -c 200000000 /dev/zero; echo; echo next; "
                                 "head -c 10001 /dev/zero | tr '\\0' x; echo; echo last",
                                 10000);
    size_t len;
    bool over;

    (void)state;
    assert_null(wait_line(&c, &len, &over));
    assert_true(over);
    assert_string_equal(wait_line(&c, &len, &over), "next");
    assert_true(c.line.size <= 10000 + 65536 + 1);
    assert_null(wait_line(&c, &len, &over));
    assert_true(over);
    assert_string_equal(wait_line(&c, &len, &over), "last");
    assert_false(over);
    assert_true(pl_child_release(&c));
}

/* Nobody takes the lines: stdout is not read beyond the cap, and all of them are there later. */
static void lines_wait(void **state)
{
    struct pl_child c = start_sh("seq 1 300000", 5000);
    int n = 0;

    (void)state;
    for (int i = 0; i < 20; i++)
        pl_child_pump(&c, PL_NS_PER_MS, -1);
    assert_true(c.line.size <= 5000 + 65536 + 1);
    assert_false(c.exited);
    for (char *p; (p = wait_line(&c, NULL, NULL)); n++)
        assert_int_equal(strtol(p, NULL, 10), n + 1);
    assert_int_equal(n, 300000);
    assert_true(pl_child_release(&c));
}

static void exits_at_once(void **state)
{
    struct pl_child c = start_sh("echo bye; exit 3", 100);
    struct pl_err err;

    (void)state;
    wait_exit(&c);
    assert_ended(&c, "exit code 3");
    assert_string_equal(wait_line(&c, NULL, NULL), "bye"); /* not lost */
    assert_null(wait_line(&c, NULL, NULL));
    assert_true(pl_child_eof(&c));
    pl_child_kill(&c, SIGKILL);                                  /* no-op */
    assert_int_equal(pl_child_send(&c, "x\n", 2, &err), PL_EIO); /* and no SIGPIPE */
    assert_int_equal(pl_child_send(&c, "x\n", 2, NULL), PL_EIO);
    /* nothing is left: a pump does not wait */
    while (c.err >= 0)
        pl_child_pump(&c, PL_NS_PER_S, -1);
    int64_t t = pl_now_ns();
    assert_false(pl_child_pump(&c, 30 * PL_NS_PER_S, -1));
    assert_true(pl_now_ns() - t < 10 * PL_NS_PER_S);
    assert_true(pl_child_release(&c));
}

static void killed(void **state)
{
    struct pl_child c = start_sh("kill -SEGV $$", 100);

    (void)state;
    wait_exit(&c);
    assert_ended(&c, "killed by SIGSEGV");
    assert_true(pl_child_release(&c));
    c = start_sh("exec sleep 1000", 100);
    pl_child_kill(&c, SIGTERM);
    wait_exit(&c);
    assert_ended(&c, "killed by SIGTERM");
    assert_true(pl_child_release(&c));
    /* one that shrugs off SIGTERM and is stopped */
    c = start_sh("trap '' TERM; echo up; kill -STOP $$; sleep 1000", 100);
    assert_string_equal(wait_line(&c, NULL, NULL), "up");
    int64_t t = pl_now_ns();
    assert_true(pl_child_release(&c));
    assert_true(pl_now_ns() - t < 5 * PL_NS_PER_S);
}

static void ignores_stdin(void **state)
{
    struct pl_child c = start_sh("exec sleep 1000", 1u << 20);
    struct pl_err err;
    char *block = calloc(1, 300000);
    int64_t t = pl_now_ns();
    enum pl_status st = PL_OK;
    int n = 0;

    (void)state;
    assert_non_null(block);
    for (; n < 100 && !(st = pl_child_send(&c, block, 300000, &err)); n++)
        pl_child_pump(&c, 0, -1);
    assert_int_equal(st, PL_ERANGE);
    assert_in_range(n, 3, 8); /* 1 MiB waits and what the pipe holds */
    assert_true(pl_now_ns() - t < 5 * PL_NS_PER_S);
    assert_int_equal(pl_child_send(&c, block, SIZE_MAX, &err), PL_ERANGE);
    assert_int_equal(pl_child_send(&c, block, (1u << 20) + 1, &err), PL_ERANGE);
    t = pl_now_ns();
    assert_false(pl_child_pump(&c, 20 * PL_NS_PER_MS, -1)); /* a full pipe does not spin */
    assert_true(pl_now_ns() - t >= 20 * PL_NS_PER_MS);
    assert_true(pl_child_release(&c));
    free(block);
}

static void missing_executable(void **state)
{
    static const char *const bad[] = {"/no/such/program", "paceline-no-such-program", "/etc/passwd",
                                      "/etc"};
    struct pl_child c;
    struct pl_err err;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *const argv[] = {bad[i], "x", NULL};
        assert_int_equal(pl_child_start(&c, argv, 100, &err), PL_ENOENT);
        assert_contains(err.text, bad[i]);
        assert_true(pl_child_release(&c));
    }
}

static void stderr_tail(void **state)
{
    struct pl_child c = start_sh("echo warning >&2", 100);

    (void)state;
    wait_exit(&c);
    while (c.err >= 0)
        pl_child_pump(&c, PL_NS_PER_S, -1);
    assert_string_equal(c.tail, "warning\n");
    assert_true(pl_child_release(&c));
    c = start_sh("seq 1 300000 >&2; printf 'a\\0z' >&2; echo done", 100);
    assert_string_equal(wait_line(&c, NULL, NULL), "done");
    while (c.err >= 0)
        pl_child_pump(&c, PL_NS_PER_S, -1);
    assert_int_equal(c.tail_len, 4095);
    assert_int_equal(strlen(c.tail), 4095);
    assert_string_equal(c.tail + 4095 - 17, "299999\n300000\na z");
    assert_true(pl_child_release(&c));
}

static bool alive(pid_t pid)
{
    /* an orphan may stay a zombie where nothing reaps it: that is dead, too */
    char path[64], text[256] = "";

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    size_t n = fread(text, 1, sizeof(text) - 1, f);
    fclose(f);
    text[n] = '\0';
    const char *after = strrchr(text, ')');
    return after && after[1] == ' ' && after[2] != 'Z' && after[2] != 'X';
}

static void assert_dies(pid_t pid)
{
    int64_t end = pl_now_ns() + PATIENCE;

    while (alive(pid) && pl_now_ns() < end)
        pl_sleep_ns(PL_NS_PER_MS);
    assert_false(alive(pid));
}

static void the_group_dies(void **state)
{
    struct pl_child c = start_sh("sleep 1000 & echo $!; wait", 100);
    pid_t grandchild = (pid_t)strtol(wait_line(&c, NULL, NULL), NULL, 10);

    (void)state;
    assert_true(grandchild > 1);
    assert_true(alive(grandchild));
    assert_true(pl_child_release(&c));
    assert_dies(grandchild);
    /* the leader ends by itself and leaves one that holds the pipes: its end is seen, and the rest
     * goes with it */
    c = start_sh("sleep 1000 & echo $!; exit 0", 100);
    grandchild = (pid_t)strtol(wait_line(&c, NULL, NULL), NULL, 10);
    wait_exit(&c);
    assert_ended(&c, "exit code 0");
    assert_dies(grandchild);
    assert_null(wait_line(&c, NULL, NULL));
    assert_true(pl_child_eof(&c));
    assert_true(pl_child_release(&c));
}

/* A child must not inherit what the parent blocks or ignores. */
static void clean_signals(void **state)
{
    sigset_t block, before;

    (void)state;
    sigemptyset(&block);
    sigaddset(&block, SIGTERM);
    sigprocmask(SIG_BLOCK, &block, &before);
    struct sigaction sa;
    assert_int_equal(sigaction(SIGPIPE, NULL, &sa), 0);
    assert_true(sa.sa_handler == SIG_IGN); /* earlier starts did that */
    struct pl_child c = start_sh("grep -E '^Sig(Blk|Ign)' /proc/self/status", 100);
    sigprocmask(SIG_SETMASK, &before, NULL);
    for (int i = 0; i < 2; i++) {
        const char *p = wait_line(&c, NULL, NULL);
        assert_non_null(p);
        /* the kernel's numbers 32 and 33 belong to the C library */
        assert_int_equal(strtoull(p + 7, NULL, 16) & ~UINT64_C(0x180000000), 0);
    }
    assert_true(pl_child_release(&c));
}

static void extra_descriptor_wakes(void **state)
{
    struct pl_child c = start_sh("exec sleep 1000", 100);
    int p[2];

    (void)state;
    assert_int_equal(pipe(p), 0);
    assert_false(pl_child_pump(&c, PL_NS_PER_MS, p[0]));
    assert_int_equal(write(p[1], "x", 1), 1);
    int64_t t = pl_now_ns();
    assert_true(pl_child_pump(&c, 60 * PL_NS_PER_S, p[0]));
    assert_true(pl_now_ns() - t < 30 * PL_NS_PER_S);
    close(p[0]);
    close(p[1]);
    assert_true(pl_child_release(&c));
}

static void works_without_pidfd(void **state)
{
    struct pl_child c = start_sh("echo a; exec 1>&- 2>&-; sleep 0.05; exit 4", 100);

    (void)state;
    if (c.pidfd >= 0)
        close(c.pidfd);
    c.pidfd = -1;
    assert_string_equal(wait_line(&c, NULL, NULL), "a");
    int64_t t = pl_now_ns();
    while (!c.exited && pl_now_ns() - t < PATIENCE)
        pl_child_pump(&c, PATIENCE, -1);
    assert_true(pl_now_ns() - t < PATIENCE / 2); /* the end woke it */
    assert_ended(&c, "exit code 4");
    assert_true(pl_child_release(&c));
}

static void low_descriptors_closed(void **state)
{
    int saved[3], flags = F_DUPFD_CLOEXEC;

    (void)state;
    for (int i = 0; i < 3; i++) {
        saved[i] = fcntl(i, flags, 50);
        close(i);
    }
    struct pl_child c;
    const char *const argv[] = {"/bin/sh", "-c", "read x; echo out $x; echo err >&2", NULL};
    enum pl_status st = pl_child_start(&c, argv, 100, NULL);
    for (int i = 0; i < 3; i++) {
        dup2(saved[i], i);
        close(saved[i]);
    }
    assert_int_equal(st, PL_OK);
    assert_int_equal(pl_child_send(&c, "hello\n", 6, NULL), PL_OK);
    assert_string_equal(wait_line(&c, NULL, NULL), "out hello");
    while (c.err >= 0)
        pl_child_pump(&c, PL_NS_PER_S, -1);
    assert_string_equal(c.tail, "err\n");
    assert_true(pl_child_release(&c));
}

static int open_descriptors(void)
{
    int n = 0;

    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void no_descriptor_leaks(void **state)
{
    const char *const missing[] = {"/no/such/program", NULL};
    struct pl_child c;
    int before = open_descriptors();

    (void)state;
    for (int i = 0; i < 20; i++) {
        c = start_sh("exit 0", 100);
        assert_true(pl_child_release(&c));
        assert_int_equal(pl_child_start(&c, missing, 100, NULL), PL_ENOENT);
    }
    assert_int_equal(open_descriptors(), before);
    /* without descriptors it fails cleanly */
    struct rlimit lim, tight;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &lim), 0);
    for (int room = 0; room < 6; room++) {
        tight = lim;
        tight.rlim_cur = (rlim_t)(before + room);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
        const char *const argv[] = {"/bin/true", NULL};
        enum pl_status st = pl_child_start(&c, argv, 100, NULL);
        if (!st)
            assert_true(pl_child_release(&c));
        setrlimit(RLIMIT_NOFILE, &lim);
        assert_int_equal(open_descriptors(), before);
        assert_true(st == PL_OK || st == PL_ESYS);
    }
    struct pl_child zero = {0}; /* its 0 is not a descriptor to close */
    assert_true(pl_child_release(&zero));
    assert_int_equal(open_descriptors(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(echo),
        cmocka_unit_test(many_lines),
        cmocka_unit_test(big_line),
        cmocka_unit_test(line_too_long),
        cmocka_unit_test(lines_wait),
        cmocka_unit_test(exits_at_once),
        cmocka_unit_test(killed),
        cmocka_unit_test(ignores_stdin),
        cmocka_unit_test(missing_executable),
        cmocka_unit_test(stderr_tail),
        cmocka_unit_test(the_group_dies),
        cmocka_unit_test(clean_signals),
        cmocka_unit_test(extra_descriptor_wakes),
        cmocka_unit_test(works_without_pidfd),
        cmocka_unit_test(low_descriptors_closed),
        cmocka_unit_test(no_descriptor_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
