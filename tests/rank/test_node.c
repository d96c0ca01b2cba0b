/* Workers of a node see who measures, take turns, and lose nothing by a neighbour's death. */
#include "base/clock.h"
#include "worker/rank/node.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MS PL_NS_PER_MS

static char key[PL_NODE_KEY];

static struct pl_node *open_node(void)
{
    struct pl_node *n = NULL;
    struct pl_err err = {""};

    if (pl_node_open(key, &n, &err) != PL_OK)
        print_message("%s\n", err.text);
    assert_non_null(n);
    return n;
}

/* A worker in a process of its own that obeys single letters and answers each with one. */
struct other {
    pid_t pid;
    int to, from;
};

static void obey(int in, int out)
{
    struct pl_node *n = NULL;
    char c;

    if (pl_node_open(key, &n, NULL) != PL_OK)
        _exit(3);
    while (read(in, &c, 1) == 1) {
        char answer = '.';
        if (c == 'm')
            pl_node_enter(n);
        if (c == 'l')
            pl_node_leave(n);
        if (c == 'x')
            answer = pl_node_try_exclusive(n) ? 'y' : 'n';
        if (c == 'e')
            pl_node_end_exclusive(n);
        if (c == '?')
            answer = (char)('0' + pl_node_neighbours(n));
        if (c == 'q') {
            pl_node_close(n);
            _exit(0);
        }
        if (write(out, &answer, 1) != 1)
            _exit(4);
    }
    _exit(5);
}

static struct other start_other(void)
{
    struct other o;
    int to[2], from[2];

    assert_int_equal(pipe2(to, O_CLOEXEC), 0);
    assert_int_equal(pipe2(from, O_CLOEXEC), 0);
    o.pid = fork();
    if (o.pid == 0) {
        close(to[1]);
        close(from[0]);
        obey(to[0], from[1]);
    }
    assert_true(o.pid > 0);
    close(to[0]);
    close(from[1]);
    o.to = to[1];
    o.from = from[0];
    return o;
}

static char tell(const struct other *o, char c)
{
    char answer = 0;

    assert_int_equal(write(o->to, &c, 1), 1);
    assert_int_equal(read(o->from, &answer, 1), 1);
    return answer;
}

static void end_other(struct other *o, int sig)
{
    int status;

    if (sig)
        kill(o->pid, sig);
    else
        assert_int_equal(write(o->to, "q", 1), 1);
    assert_int_equal(waitpid(o->pid, &status, 0), o->pid);
    close(o->to);
    close(o->from);
}

static void neighbours_are_counted(void **state)
{
    struct other a, b;
    struct pl_node *n;

    (void)state;
    a = start_other();
    b = start_other();
    n = open_node();
    assert_int_equal(pl_node_neighbours(n), 0);
    tell(&a, 'm');
    assert_int_equal(pl_node_neighbours(n), 1);
    assert_int_equal(tell(&a, '?'), '0'); /* not itself */
    assert_int_equal(tell(&b, '?'), '1');
    tell(&b, 'm');
    pl_node_enter(n);
    assert_int_equal(pl_node_neighbours(n), 2);
    assert_int_equal(tell(&a, '?'), '2');
    tell(&a, 'l');
    assert_int_equal(pl_node_neighbours(n), 1);
    pl_node_leave(n);
    assert_int_equal(tell(&b, '?'), '0');
    end_other(&b, 0);
    assert_int_equal(pl_node_neighbours(n), 0);
    end_other(&a, 0);
    pl_node_close(n);
    pl_node_close(NULL);
    pl_node_unlink(key);
}

static void the_dead_do_not_measure(void **state)
{
    struct other a = start_other(), b;
    struct pl_node *n = open_node();

    (void)state;
    tell(&a, 'm');
    assert_int_equal(pl_node_neighbours(n), 1);
    end_other(&a, SIGKILL);
    assert_int_equal(pl_node_neighbours(n), 0);
    b = start_other(); /* takes the slot and none of its flags */
    assert_int_equal(tell(&b, '?'), '0');
    assert_int_equal(pl_node_neighbours(n), 0);
    end_other(&b, 0);
    pl_node_close(n);
    pl_node_unlink(key);
}

static void one_at_a_time(void **state)
{
    struct other a = start_other();
    struct pl_node *n = open_node();
    int64_t end;

    (void)state;
    assert_int_equal(tell(&a, 'x'), 'y');
    assert_int_equal(tell(&a, 'x'), 'y');
    assert_false(pl_node_try_exclusive(n));
    tell(&a, 'e');
    assert_true(pl_node_try_exclusive(n));
    assert_int_equal(tell(&a, 'x'), 'n');
    pl_node_end_exclusive(n);
    assert_int_equal(tell(&a, 'x'), 'y');
    assert_false(pl_node_try_exclusive(n));
    end_other(&a, SIGKILL); /* freed by its death */
    for (end = pl_now_ns() + 5000 * MS; !pl_node_try_exclusive(n) && pl_now_ns() < end;)
        pl_sleep_ns(MS);
    assert_true(pl_node_try_exclusive(n));
    pl_node_close(n);
    n = open_node();
    assert_true(pl_node_try_exclusive(n));
    pl_node_close(n);
    pl_node_unlink(key);
}

/* Who waits longest is next, even if the last holder asks first; who has stopped asking is not
 * waited for. */
static void turns_are_fair(void **state)
{
    struct other a = start_other(), b = start_other(), c = start_other();

    (void)state;
    assert_int_equal(tell(&a, 'x'), 'y');
    assert_int_equal(tell(&b, 'x'), 'n');
    assert_int_equal(tell(&c, 'x'), 'n');
    tell(&a, 'e');
    assert_int_equal(tell(&a, 'x'), 'n');
    assert_int_equal(tell(&c, 'x'), 'n');
    assert_int_equal(tell(&b, 'x'), 'y');
    tell(&b, 'e');
    assert_int_equal(tell(&a, 'x'), 'n');
    assert_int_equal(tell(&c, 'x'), 'y');
    tell(&c, 'e');
    assert_int_equal(tell(&a, 'x'), 'y');
    assert_int_equal(tell(&b, 'x'), 'n');
    tell(&a, 'e');
    pl_sleep_ns(150 * MS);
    assert_int_equal(tell(&c, 'x'), 'y'); /* b slept too long */
    tell(&c, 'e');
    assert_int_equal(tell(&a, 'x'), 'y');
    assert_int_equal(tell(&b, 'x'), 'n');
    tell(&a, 'e');
    end_other(&b, SIGKILL);
    assert_int_equal(tell(&c, 'x'), 'y'); /* b is dead */
    end_other(&a, 0);
    end_other(&c, 0);
    pl_node_unlink(key);
}

/* Never two at once, whatever the timing: 4 processes, 300 turns each, one of them killed in the
 * middle. */
static void stress(void **state)
{
    enum { N = 4, TURNS = 300 };
    pid_t pids[N];
    struct shared {
        _Atomic int inside, bad, turns[N];
    } *sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    (void)state;
    assert_true(sh != MAP_FAILED);
    for (int i = 0; i < N; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            struct pl_node *n = NULL;
            if (pl_node_open(key, &n, NULL) != PL_OK)
                _exit(3);
            while (i == 0 || sh->turns[i] < TURNS) {
                if (!pl_node_try_exclusive(n)) {
                    pl_sleep_ns(20 * PL_NS_PER_US);
                    continue;
                }
                if (i > 0 && sh->inside++ != 0)
                    sh->bad++;
                sh->turns[i]++;
                if (i > 0)
                    sh->inside--;
                pl_node_end_exclusive(n);
            }
            pl_node_close(n);
            _exit(0);
        }
    }
    pl_sleep_ns(10 * MS);
    kill(pids[0], SIGKILL);
    for (int i = 0; i < N; i++) {
        int status = -1;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        if (i > 0)
            assert_int_equal(status, 0);
    }
    assert_int_equal(sh->bad, 0);
    for (int i = 1; i < N; i++)
        assert_int_equal(sh->turns[i], TURNS);
    munmap(sh, sizeof(*sh));
    pl_node_unlink(key);
}

static void files_that_are_not_ours(void **state)
{
    struct pl_node *n = NULL;
    struct pl_err err = {""};
    char path[256], target[] = "/tmp/paceline-test-XXXXXX";
    struct stat sb;
    int fd;

    (void)state;
    snprintf(path, sizeof(path), "%s/paceline-%lu-%s",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (unsigned long)geteuid(), key);
    fd = mkstemp(target);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(symlink(target, path), 0); /* a link is not followed */
    assert_int_equal(pl_node_open(key, &n, &err), PL_EIO);
    assert_int_equal(stat(target, &sb), 0);
    assert_int_equal(sb.st_size, 0);
    unlink(path);
    unlink(target);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600); /* another size */
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "x", 1), 1);
    assert_int_equal(pl_node_open(key, &n, &err), PL_EIO);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(fchmod(fd, 0666), 0); /* open to others */
    assert_int_equal(pl_node_open(key, &n, &err), PL_EIO);
    close(fd);
    if (geteuid() == 0) { /* another's */
        assert_int_equal(chmod(path, 0600), 0);
        assert_int_equal(chown(path, 12345, (gid_t)-1), 0);
        assert_int_equal(pl_node_open(key, &n, &err), PL_EIO);
    }
    pl_node_unlink(key);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(pl_node_open("a/b", &n, &err), PL_EUSAGE);
    assert_int_equal(pl_node_open("", &n, &err), PL_EUSAGE);
    assert_null(n);
}

static void keys(void **state)
{
    char a[PL_NODE_KEY], b[PL_NODE_KEY];
    char cwd[4096], path[4200];

    (void)state;
    unsetenv("SLURM_JOB_ID");
    assert_non_null(getcwd(cwd, sizeof(cwd)));
    snprintf(path, sizeof(path), "%s/./run.h5", cwd);
    pl_node_key("run.h5", a);
    pl_node_key(path, b);
    assert_string_equal(a, b);
    pl_node_key("other.h5", b);
    assert_string_not_equal(a, b);
    pl_node_key("/no/such/folder/run.h5", b);
    assert_string_not_equal(a, b);
    setenv("SLURM_JOB_ID", "4711", 1);
    pl_node_key("run.h5", a);
    assert_string_equal(a, "job4711");
    setenv("SLURM_JOB_ID", "../../etc/passwd", 1);
    pl_node_key("run.h5", a);
    assert_null(strchr(a, '/'));
    unsetenv("SLURM_JOB_ID");
}

/* What a poll costs; shown, and bounded loosely. */
static void looking_is_cheap(void **state)
{
    enum { N = 20000 };
    struct other a = start_other();
    struct pl_node *n = open_node();
    int64_t t;
    unsigned sum = 0;

    (void)state;
    tell(&a, 'm');
    t = pl_cpu_ns();
    for (int i = 0; i < N; i++)
        sum += pl_node_neighbours(n);
    t = pl_cpu_ns() - t;
    assert_int_equal(sum, N);
    print_message("one look at one neighbour: %.2f us\n", (double)t / N / 1e3);
    assert_true(t / N < 100 * PL_NS_PER_US);
    end_other(&a, 0);
    pl_node_close(n);
    pl_node_unlink(key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_are_counted),
        cmocka_unit_test(the_dead_do_not_measure),
        cmocka_unit_test(one_at_a_time),
        cmocka_unit_test(turns_are_fair),
        cmocka_unit_test(stress),
        cmocka_unit_test(files_that_are_not_ours),
        cmocka_unit_test(keys),
        cmocka_unit_test(looking_is_cheap),
    };

    snprintf(key, sizeof(key), "test%ld", (long)getpid());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
