#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIRST_SIZE 256u
#define IO_MAX ((size_t)1 << 30) /* Linux moves at most 2 GiB a call */

void pl_buf_init(struct pl_buf *b, size_t cap)
{
    memset(b, 0, sizeof(*b));
    b->cap = cap < SIZE_MAX / 4 ? cap : SIZE_MAX / 4; /* so that no sum below overflows */
}

void pl_buf_clear(struct pl_buf *b)
{
    b->len = 0;
    if (b->data)
        b->data[0] = '\0';
}

void pl_buf_release(struct pl_buf *b)
{
    free(b->data);
    pl_buf_init(b, b->cap);
}

static enum pl_status grow(struct pl_buf *b, size_t n)
{
    if (n > b->cap || b->len > b->cap - n)
        return PL_ERANGE;
    size_t need = b->len + n + 1;
    if (need <= b->size)
        return PL_OK;
    size_t size = b->size ? b->size * 2 : FIRST_SIZE;
    if (size > b->cap + 1)
        size = b->cap + 1;
    if (size < need)
        size = need;
    char *p = realloc(b->data, size);
    if (!p)
        return PL_ENOMEM;
    if (!b->data)
        p[0] = '\0';
    b->data = p;
    b->size = size;
    return PL_OK;
}

static enum pl_status grow_err(struct pl_buf *b, size_t n, struct pl_err *err)
{
    enum pl_status st = grow(b, n);

    if (st == PL_ERANGE)
        return pl_fail(err, st, "%zu bytes more than the limit of %zu", b->len + n - b->cap,
                       b->cap);
    if (st)
        return pl_fail(err, st, "no memory for %zu bytes", b->len + n);
    return PL_OK;
}

enum pl_status pl_buf_add(struct pl_buf *b, const void *data, size_t n, struct pl_err *err)
{
    enum pl_status st = grow_err(b, n, err);

    if (st)
        return st;
    if (n)
        memcpy(b->data + b->len, data, n);
    b->len += n;
    b->data[b->len] = '\0';
    return PL_OK;
}

enum pl_status pl_buf_addf(struct pl_buf *b, struct pl_err *err, const char *fmt, ...)
{
    va_list ap, again;
    enum pl_status st;

    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    st = n < 0 ? pl_fail(err, PL_ERANGE, "text cannot be formatted") : grow_err(b, (size_t)n, err);
    if (!st) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    va_end(ap);
    return st;
}

char *pl_buf_reserve(struct pl_buf *b, size_t n)
{
    return grow(b, n) == PL_OK ? b->data + b->len : NULL;
}

void pl_buf_consume(struct pl_buf *b, size_t n)
{
    if (n >= b->len) {
        pl_buf_clear(b);
        return;
    }
    b->len -= n;
    memmove(b->data, b->data + n, b->len);
    b->data[b->len] = '\0';
}

/* Reads fd to its end. The size that stat gives is a hint only: /proc files say 0, others may grow.
 */
static enum pl_status read_all(int fd, const char *path, size_t hint, struct pl_buf *b,
                               struct pl_err *err)
{
    size_t want = hint ? hint + 1 : 4096;

    for (;;) {
        size_t room = b->cap - b->len; /* the last call asks for one byte more, to see the end */
        if (want > room)
            want = room;
        char probe, *to = want ? pl_buf_reserve(b, want) : &probe;
        if (!to)
            return pl_fail(err, PL_ENOMEM, "%s: no memory for %zu bytes", path, b->len + want);
        ssize_t got = read(fd, to, want ? (want < IO_MAX ? want : IO_MAX) : 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return pl_fail_errno(err, errno, "%s", path);
        if (got == 0)
            return PL_OK;
        if (!want)
            return pl_fail(err, PL_ERANGE, "%s: larger than %zu bytes", path, b->cap);
        b->len += (size_t)got;
        b->data[b->len] = '\0';
        want = b->size - b->len > 1 ? b->size - b->len - 1 : b->size;
    }
}

enum pl_status pl_read_file(const char *path, size_t cap, struct pl_buf *out, struct pl_err *err)
{
    struct pl_buf b;
    struct stat sb;
    enum pl_status st;

    pl_buf_init(&b, cap);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return pl_fail_errno(err, errno, "%s", path);
    if (fstat(fd, &sb) != 0) {
        st = pl_fail_errno(err, errno, "%s", path);
        goto out;
    }
    bool regular = S_ISREG(sb.st_mode);
    if (regular && (uint64_t)sb.st_size > b.cap) {
        st = pl_fail(err, PL_ERANGE, "%s: %lld bytes, more than the limit of %zu", path,
                     (long long)sb.st_size, b.cap);
        goto out;
    }
    if (!pl_buf_reserve(&b, 0)) { /* an empty file is "", not NULL */
        st = pl_fail(err, PL_ENOMEM, "%s: no memory", path);
        goto out;
    }
    st = read_all(fd, path, regular ? (size_t)sb.st_size : 0, &b, err);
out:
    close(fd);
    if (st)
        pl_buf_release(&b);
    else
        *out = b;
    return st;
}

static int write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t put = write(fd, p, n < IO_MAX ? n : IO_MAX);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return errno;
        p += put;
        n -= (size_t)put;
    }
    return 0;
}

/* A fresh file beside path. O_EXCL makes the name safe among threads, processes and the nodes of a
 * shared file system; mkstemp is not used because its files are private (0600) whatever the umask.
 */
static int open_beside(const char *path, char *tmp, size_t size)
{
    static unsigned serial;

    for (int tries = 0; tries < 1000; tries++) {
        unsigned id = __atomic_add_fetch(&serial, 1, __ATOMIC_RELAXED);
        int n = snprintf(tmp, size, "%s.%ld.%u.tmp", path, (long)getpid(), id);
        if (n < 0 || (size_t)n >= size) {
            errno = ENAMETOOLONG;
            return -1;
        }
        int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST)
            return fd;
    }
    return -1;
}

/* The rename itself lasts only once its folder is on disk. File systems that cannot do it say
 * EINVAL: no harm. */
static void sync_folder(const char *path)
{
    char dir[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;

    if (n >= sizeof(dir))
        return;
    if (!slash)
        snprintf(dir, sizeof(dir), ".");
    else
        snprintf(dir, sizeof(dir), "%.*s", n ? (int)n : 1, path);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)fsync(fd);
    close(fd);
}

enum pl_status pl_write_file_atomic(const char *path, const void *data, size_t n,
                                    struct pl_err *err)
{
    char tmp[PATH_MAX];
    int fd = open_beside(path, tmp, sizeof(tmp));

    if (fd < 0)
        return pl_fail_errno(err, errno, "%s", path);
    int e = write_all(fd, data, n);
    if (!e && fsync(fd) != 0)
        e = errno;
    if (close(fd) != 0 && !e)
        e = errno; /* network file systems report a full disk here */
    if (!e && rename(tmp, path) != 0)
        e = errno;
    if (e) {
        (void)unlink(tmp);
        return pl_fail_errno(err, e, "%s", path);
    }
    sync_folder(path);
    return PL_OK;
}
