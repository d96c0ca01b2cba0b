#include "orchestrator/lock.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RETRY_NS (50 * PL_NS_PER_MS)

struct pl_lock {
    int fd;
};

/* Locks of the open file (not of the process): closing another descriptor of the same file, as
 * libraries do, keeps them. */
static int lock_byte(int fd, off_t byte, short type)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
#ifdef F_OFD_SETLK
    if (fcntl(fd, F_OFD_SETLK, &l) == 0)
        return 0;
    if (errno != EINVAL)
        return -1;
    l.l_pid = 0;
#endif
    return fcntl(fd, F_SETLK, &l);
}

static bool unsupported(int errnum)
{
    return errnum == ENOLCK || errnum == ENOSYS || errnum == EOPNOTSUPP || errnum == EINVAL;
}

static enum pl_status open_lock(const char *results, struct pl_lock **out, struct pl_err *err)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s.lock", results) >= (int)sizeof path)
        return pl_fail(err, PL_ERANGE, "%s: a name that long", results);
    struct pl_lock *l = calloc(1, sizeof *l);
    if (!l)
        return pl_fail(err, PL_ENOMEM, "%s", path);
    l->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (l->fd < 0) {
        const enum pl_status st = pl_fail_errno(err, errno, "%s", path);
        free(l);
        return st;
    }
    *out = l;
    return PL_OK;
}

static void read_holder(int fd, char *out, size_t size)
{
    const ssize_t n = pread(fd, out, size - 1, 0);
    out[n > 0 ? n : 0] = '\0';
    out[strcspn(out, "\n")] = '\0';
    if (!out[0])
        snprintf(out, size, "another run");
}

static void write_holder(int fd)
{
    char host[64] = "", text[128];
    if (gethostname(host, sizeof host - 1) != 0)
        host[0] = '\0';
    const int n = snprintf(text, sizeof text, "process %ld on %s\n", (long)getpid(), host);
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n)
        return; /* it only helps a message */
}

/* Waits for one byte. */
static enum pl_status wait_byte(const char *results, int fd, off_t byte, int64_t until,
                                bool (*stop)(void), bool *said, struct pl_err *err)
{
    char holder[128];
    const int64_t begun = pl_now_ns();
    while (lock_byte(fd, byte, F_WRLCK) != 0) {
        const int errnum = errno;
        if (unsupported(errnum)) {
            pl_log(PL_LOG_WARN,
                   "%s.lock: no locks on this file system (%s): see to it that only one run writes",
                   results, strerror(errnum));
            return PL_OK;
        }
        if (errnum != EAGAIN && errnum != EACCES && errnum != EINTR)
            return pl_fail_errno(err, errnum, "%s.lock", results);
        read_holder(fd, holder, sizeof holder);
        const int64_t now = pl_now_ns();
        if (stop && stop())
            return pl_fail(err, PL_EINTERRUPTED, "%s: stopped while waiting for %s", results,
                           holder);
        if (now >= until)
            return pl_fail(err, PL_EBUSY, "%s: %s of %s still writes it", results,
                           byte == 0 ? "the coordinator" : "a worker", holder);
        if (!*said && now - begun > PL_NS_PER_S) {
            pl_log(PL_LOG_INFO, "%s: waiting for %s to end", results, holder);
            *said = true;
        }
        pl_sleep_ns(RETRY_NS);
    }
    return PL_OK;
}

enum pl_status pl_lock_coordinator(const char *results, int64_t wait_ns, bool (*stop)(void),
                                   struct pl_lock **out, struct pl_err *err)
{
    struct pl_lock *l = NULL;
    bool said = false;
    const int64_t until = pl_now_ns() + wait_ns;
    enum pl_status st = open_lock(results, &l, err);
    if (st != PL_OK)
        return st;
    st = wait_byte(results, l->fd, 0, until, stop, &said, err);
    if (st == PL_OK)
        st = wait_byte(results, l->fd, 1, until, stop, &said, err);
    if (st != PL_OK) {
        pl_lock_free(l);
        return st;
    }
    (void)lock_byte(l->fd, 1, F_UNLCK);
    write_holder(l->fd);
    *out = l;
    return PL_OK;
}

enum pl_status pl_lock_worker(const char *results, struct pl_lock **out, struct pl_err *err)
{
    struct pl_lock *l = NULL;
    const enum pl_status st = open_lock(results, &l, err);
    if (st != PL_OK)
        return st;
    if (lock_byte(l->fd, 1, F_RDLCK) != 0 && !unsupported(errno)) {
        const int errnum = errno;
        pl_lock_free(l);
        return errnum == EAGAIN || errnum == EACCES
                   ? pl_fail(err, PL_EBUSY, "%s: another run is taking it over", results)
                   : pl_fail_errno(err, errnum, "%s.lock", results);
    }
    *out = l;
    return PL_OK;
}

void pl_lock_free(struct pl_lock *l)
{
    if (!l)
        return;
    close(l->fd);
    free(l);
}

bool pl_lock_held(const char *results)
{
    char path[PATH_MAX];
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    if (snprintf(path, sizeof path, "%s.lock", results) >= (int)sizeof path)
        return false;
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool held = false;
#ifdef F_OFD_GETLK
    if (fcntl(fd, F_OFD_GETLK, &l) == 0)
        held = l.l_type != F_UNLCK;
    else
#endif
    {
        l.l_pid = 0;
        held = fcntl(fd, F_GETLK, &l) == 0 && l.l_type != F_UNLCK;
    }
    close(fd);
    return held;
}
