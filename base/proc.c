#include "base/proc.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHUNK ((size_t)64 << 10)      /* one read: a Linux pipe's default capacity */
#define READS_MAX 16                  /* reads a pump and pipe, so that a flood cannot hold it */
#define SLICE_NS (5 * PL_NS_PER_MS)   /* between looks at a child without a pidfd */
#define RELEASE_NS (10 * PL_NS_PER_S) /* patience with a killed child */

extern char **environ;

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void pl_standard_fds(void)
{
    for (int fd = 0; fd < 3; fd++) /* open takes the lowest number that is free */
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) < 0)
            return;
}

/* Both ends close-on-exec and above 2: a process that runs with 0, 1 or 2 closed would otherwise
 * get a pipe there, and the child's dup2 calls would overwrite one another. */
static int make_pipe(int ends[2])
{
    int raw[2], e = 0;

    if (pipe2(raw, O_CLOEXEC) != 0)
        return errno;
    for (int i = 0; i < 2; i++) {
        ends[i] = raw[i] > 2 ? raw[i] : fcntl(raw[i], F_DUPFD_CLOEXEC, 3);
        if (ends[i] < 0)
            e = errno;
    }
    for (int i = 0; i < 2; i++) {
        if (raw[i] != ends[i])
            close(raw[i]);
        if (e)
            close_fd(&ends[i]);
    }
    return e;
}

static void ignore_sigpipe(void)
{
    struct sigaction sa;

    if (sigaction(SIGPIPE, NULL, &sa) == 0 && !(sa.sa_flags & SA_SIGINFO) &&
        sa.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
}

/* theirs: the child's ends of stdin, stdout and stderr. An errno. */
static int spawn(pid_t *pid, const char *const argv[], const int theirs[3])
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    int e = posix_spawn_file_actions_init(&files);

    if (e)
        return e;
    if ((e = posix_spawnattr_init(&attr))) {
        posix_spawn_file_actions_destroy(&files);
        return e;
    }
    sigemptyset(&none);
    sigfillset(&all);
    for (int fd = 0; fd < 3 && !e; fd++)
        e = posix_spawn_file_actions_adddup2(&files, theirs[fd], fd);
    if (!e)
        e = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                                POSIX_SPAWN_SETSIGDEF);
    if (!e)
        e = posix_spawnattr_setpgroup(&attr, 0);
    if (!e)
        e = posix_spawnattr_setsigmask(&attr, &none);
    if (!e)
        e = posix_spawnattr_setsigdefault(&attr, &all);
    if (!e) /* exec takes char *const[] for history's sake; nothing is written through it */
        e = posix_spawnp(pid, argv[0], &files, &attr, (char *const *)(uintptr_t)argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return e;
}

static int open_pidfd(pid_t pid)
{
#ifdef SYS_pidfd_open
    return (int)syscall(SYS_pidfd_open, pid, 0); /* close-on-exec by itself */
#else
    (void)pid;
    return -1;
#endif
}

enum pl_status pl_child_start(struct pl_child *c, const char *const argv[], size_t max_line,
                              struct pl_err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int p[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}};
    const int mine[3] = {1, 0, 0}; /* which end of each pipe stays here */
    int e = 0;
    pid_t pid = 0;

    memset(c, 0, sizeof(*c));
    pthread_once(&once, ignore_sigpipe);
    for (int i = 0; i < 3 && !e; i++) {
        e = make_pipe(p[i]);
        if (!e && fcntl(p[i][mine[i]], F_SETFL, O_NONBLOCK) != 0)
            e = errno;
    }
    if (e) {
        pl_fail_errno(err, e, "pipes for %s", argv[0]);
    } else {
        const int theirs[3] = {p[0][0], p[1][1], p[2][1]};
        e = spawn(&pid, argv, theirs);
        if (e)
            pl_fail_errno(err, e, "cannot start %s", argv[0]);
    }
    for (int i = 0; i < 3; i++) {
        close_fd(&p[i][!mine[i]]);
        if (e)
            close_fd(&p[i][mine[i]]);
    }
    if (e == EMFILE || e == ENFILE || e == EAGAIN)
        return PL_ESYS;
    if (e)
        return e == ENOMEM ? PL_ENOMEM : PL_ENOENT;
    c->pid = pid;
    c->in = p[0][1];
    c->out = p[1][0];
    c->err = p[2][0];
    c->pidfd = open_pidfd(pid);
    c->max_line = max_line < SIZE_MAX / 8 ? max_line : SIZE_MAX / 8;
    pl_buf_init(&c->line, c->max_line + CHUNK);
    pl_buf_init(&c->pending, c->max_line);
    return PL_OK;
}

/* Writes what the pipe takes. False once the child closed its end: nothing can be sent any more. */
static bool flush(struct pl_child *c)
{
    while (c->in >= 0 && c->sent < c->pending.len) {
        ssize_t n = write(c->in, c->pending.data + c->sent, c->pending.len - c->sent);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return true;
        if (n < 0) {
            close_fd(&c->in);
            break;
        }
        c->sent += (size_t)n;
    }
    pl_buf_clear(&c->pending);
    c->sent = 0;
    return c->in >= 0;
}

enum pl_status pl_child_send(struct pl_child *c, const void *data, size_t n, struct pl_err *err)
{
    enum pl_status st;
    size_t waiting = c->pending.len - c->sent;

    if (c->pid == 0 || c->in < 0)
        return pl_fail(err, PL_EIO, "the child closed its stdin");
    if (n > c->max_line - waiting)
        return pl_fail(err, PL_ERANGE, "the child does not read: %zu bytes wait, %zu are allowed",
                       waiting + n, c->max_line);
    if (n > c->pending.cap - c->pending.len) { /* room only once what was written is dropped */
        pl_buf_consume(&c->pending, c->sent);
        c->sent = 0;
    }
    st = pl_buf_add(&c->pending, data, n, err);
    if (st)
        return st;
    return flush(c) ? PL_OK : pl_fail(err, PL_EIO, "the child closed its stdin");
}

/* Makes room for one read of stdout. False when the caller should take lines first. Bytes are moved
 * only when that is cheap (fewer than were handed out) or cannot be avoided (one unfinished line),
 * so the cost stays linear in what was read. */
static bool make_room(struct pl_child *c)
{
    struct pl_buf *b = &c->line;
    size_t held = b->len - c->taken;

    if (held > c->max_line)
        return false;
    if (b->size - b->len <= CHUNK && c->taken > 0 && (held <= c->taken || c->scanned == b->len)) {
        c->scanned -= c->taken;
        pl_buf_consume(b, c->taken);
        c->taken = 0;
    }
    return pl_buf_reserve(b, CHUNK) != NULL;
}

/* Room would not come by waiting for the pipe: stdout need not be polled. */
static bool stdout_full(const struct pl_child *c)
{
    size_t held = c->line.len - c->taken;

    return held > c->max_line ||
           (c->scanned < c->line.len && held > c->taken && c->line.len > c->line.cap - CHUNK);
}

/* Bytes that belong to a line already given up. */
static void skip(struct pl_child *c)
{
    const char *from = c->line.data + c->taken;
    const char *nl = memchr(from, '\n', c->line.len - c->taken);

    c->taken = nl ? (size_t)(nl - c->line.data) + 1 : c->line.len;
    c->scanned = c->taken;
    c->skipping = !nl;
}

static bool read_stdout(struct pl_child *c)
{
    bool any = false;

    for (int i = 0; i < READS_MAX && c->out >= 0; i++) {
        if (!make_room(c))
            break;
        ssize_t n = read(c->out, c->line.data + c->line.len, CHUNK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        any = true;
        if (n <= 0) {
            close_fd(&c->out);
            break;
        }
        c->line.len += (size_t)n;
        c->line.data[c->line.len] = '\0';
        if (c->skipping)
            skip(c);
        if ((size_t)n < CHUNK)
            break;
    }
    return any;
}

static void keep_tail(struct pl_child *c, char *p, size_t n)
{
    const size_t room = sizeof(c->tail) - 1;

    for (char *z = p; (z = memchr(z, '\0', n - (size_t)(z - p)));)
        *z = ' '; /* it is handed out as a string */
    if (n >= room) {
        p += n - room;
        n = room;
        c->tail_len = 0;
    } else if (c->tail_len + n > room) {
        size_t drop = c->tail_len + n - room;
        c->tail_len -= drop;
        memmove(c->tail, c->tail + drop, c->tail_len);
    }
    memcpy(c->tail + c->tail_len, p, n);
    c->tail_len += n;
    c->tail[c->tail_len] = '\0';
}

static bool read_stderr(struct pl_child *c)
{
    char buf[16384];
    bool any = false;

    for (int i = 0; i < READS_MAX * 4 && c->err >= 0; i++) {
        ssize_t n = read(c->err, buf, sizeof(buf));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        any = true;
        if (n <= 0) {
            close_fd(&c->err);
            break;
        }
        keep_tail(c, buf, (size_t)n);
        if ((size_t)n < sizeof(buf))
            break;
    }
    return any;
}

enum { WATCH_OUT, WATCH_ERR, WATCH_IN, WATCH_PID, WATCH_EXTRA, WATCH_N };

/* One wait and one round of moving. *idle: there was nothing to wait for, or a signal came. */
static bool pump_once(struct pl_child *c, int64_t timeout_ns, int extra_fd, bool *idle)
{
    /* negative descriptors are skipped by poll. stdin only while bytes wait for it, else its
     * POLLERR would spin */
    struct pollfd f[WATCH_N] = {
        [WATCH_OUT] = {.fd = stdout_full(c) ? -1 : c->out, .events = POLLIN},
        [WATCH_ERR] = {.fd = c->err, .events = POLLIN},
        [WATCH_IN] = {.fd = c->sent < c->pending.len ? c->in : -1, .events = POLLOUT},
        [WATCH_PID] = {.fd = c->exited ? -1 : c->pidfd, .events = POLLIN},
        [WATCH_EXTRA] = {.fd = extra_fd, .events = POLLIN},
    };
    struct timespec t = {.tv_sec = (time_t)(timeout_ns / PL_NS_PER_S),
                         .tv_nsec = (long)(timeout_ns % PL_NS_PER_S)};
    bool any = false, watched = !c->exited;

    for (int i = 0; i < WATCH_N; i++)
        watched = watched || f[i].fd >= 0;
    *idle = !watched;
    if (!watched)
        return false;
    int n = ppoll(f, WATCH_N, &t, NULL);
    if (n < 0)
        *idle = true;
    if (n > 0) {
        any = f[WATCH_EXTRA].revents != 0;
        if (f[WATCH_OUT].revents)
            any = read_stdout(c) || any;
        if (f[WATCH_ERR].revents)
            any = read_stderr(c) || any;
        if (f[WATCH_IN].revents) {
            (void)flush(c); /* a closed stdin is told by the next send */
            any = true;
        }
    }
    if (!c->exited && (c->pidfd < 0 || (n > 0 && f[WATCH_PID].revents)))
        any = pl_child_reap(c) || any;
    return any;
}

bool pl_child_pump(struct pl_child *c, int64_t timeout_ns, int extra_fd)
{
    bool idle;

    if (c->pid == 0)
        return false;
    if (timeout_ns < 0)
        timeout_ns = 0;
    if (c->exited || c->pidfd >= 0 || timeout_ns <= SLICE_NS)
        return pump_once(c, timeout_ns, extra_fd, &idle);
    int64_t now = pl_now_ns();
    int64_t end = timeout_ns > INT64_MAX - now ? INT64_MAX : now + timeout_ns;
    for (int64_t left = timeout_ns; left > 0; left = end - pl_now_ns()) {
        if (pump_once(c, left < SLICE_NS ? left : SLICE_NS, extra_fd, &idle))
            return true;
        if (idle)
            return false;
    }
    return false;
}

char *pl_child_line(struct pl_child *c, size_t *len, bool *too_long)
{
    if (c->pid == 0 || !c->line.data)
        return NULL;
    char *from = c->line.data + c->taken;
    char *nl = memchr(c->line.data + c->scanned, '\n', c->line.len - c->scanned);
    size_t n = nl ? (size_t)(nl - from) : c->line.len - c->taken;

    c->scanned = nl ? c->taken + n + 1 : c->line.len;
    if (n > c->max_line) {
        c->taken = c->scanned;
        c->skipping = !nl;
        if (too_long)
            *too_long = true;
        return NULL;
    }
    if (!nl) {
        if (n == 0) { /* all handed out: start over at the front, without moving anything */
            pl_buf_clear(&c->line);
            c->taken = c->scanned = 0;
        }
        return NULL;
    }
    *nl = '\0';
    c->taken = c->scanned;
    if (len)
        *len = n;
    return from;
}

bool pl_child_eof(const struct pl_child *c)
{
    if (c->pid == 0)
        return true;
    if (c->out >= 0)
        return false;
    size_t left = c->line.len - c->scanned;
    return left == 0 || !memchr(c->line.data + c->scanned, '\n', left);
}

void pl_child_kill(struct pl_child *c, int sig)
{
    if (c->pid > 0 && !c->exited)
        (void)kill(-c->pid, sig);
}

bool pl_child_reap(struct pl_child *c)
{
    siginfo_t si = {0};
    int r;

    if (c->pid == 0 || c->exited)
        return true;
    /* Look without reaping first: while the zombie holds its number, the group's cannot be
     * another's. */
    while ((r = waitid(P_PID, (id_t)c->pid, &si, WEXITED | WNOHANG | WNOWAIT)) != 0 &&
           errno == EINTR)
        continue;
    if (r == 0 && si.si_pid == 0)
        return false;
    c->status = -1;
    if (r == 0) {
        (void)kill(-c->pid, SIGKILL);
        while (waitpid(c->pid, &c->status, 0) < 0 && errno == EINTR)
            continue;
    }
    c->exited = true; /* also when someone else reaped it (ECHILD): its status is lost then */
    close_fd(&c->pidfd);
    return true;
}

bool pl_child_release(struct pl_child *c)
{
    if (c->pid == 0) {
        memset(c, 0, sizeof(*c));
        return true;
    }
    pl_child_kill(c, SIGKILL);
    close_fd(&c->in);
    close_fd(&c->out);
    close_fd(&c->err);
    int64_t end = pl_now_ns() + RELEASE_NS, nap = 20 * PL_NS_PER_US;
    while (!pl_child_reap(c) && pl_now_ns() < end) {
        pl_sleep_ns(nap);
        nap = nap * 2 < 10 * PL_NS_PER_MS ? nap * 2 : 10 * PL_NS_PER_MS;
    }
    close_fd(&c->pidfd);
    pl_buf_release(&c->line);
    pl_buf_release(&c->pending);
    pid_t stuck = c->exited ? 0 : c->pid;
    memset(c, 0, sizeof(*c));
    c->in = c->out = c->err = c->pidfd = -1;
    c->pid = stuck;
    return stuck == 0;
}

static const char *signal_name(int sig)
{
    static const struct {
        int sig;
        const char *name;
    } names[] = {
        {SIGHUP, "SIGHUP"},   {SIGINT, "SIGINT"},   {SIGQUIT, "SIGQUIT"}, {SIGILL, "SIGILL"},
        {SIGTRAP, "SIGTRAP"}, {SIGABRT, "SIGABRT"}, {SIGBUS, "SIGBUS"},   {SIGFPE, "SIGFPE"},
        {SIGKILL, "SIGKILL"}, {SIGSEGV, "SIGSEGV"}, {SIGPIPE, "SIGPIPE"}, {SIGALRM, "SIGALRM"},
        {SIGTERM, "SIGTERM"}, {SIGUSR1, "SIGUSR1"}, {SIGUSR2, "SIGUSR2"}, {SIGSYS, "SIGSYS"},
        {SIGXCPU, "SIGXCPU"}, {SIGXFSZ, "SIGXFSZ"},
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].sig == sig)
            return names[i].name;
    }
    return NULL;
}

void pl_child_describe(const struct pl_child *c, char *out, size_t size)
{
    if (c->pid == 0) {
        snprintf(out, size, "not started");
    } else if (!c->exited) {
        snprintf(out, size, "running");
    } else if (WIFEXITED(c->status)) {
        snprintf(out, size, "exit code %d", WEXITSTATUS(c->status));
    } else if (WIFSIGNALED(c->status)) {
        const char *name = signal_name(WTERMSIG(c->status));
        if (name)
            snprintf(out, size, "killed by %s", name);
        else
            snprintf(out, size, "killed by signal %d", WTERMSIG(c->status));
    } else {
        snprintf(out, size, "ended, exit status unknown");
    }
}
