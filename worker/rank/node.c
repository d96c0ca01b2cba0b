#include "worker/rank/node.h"

#include "base/clock.h"
#include "base/hash.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLOTS 512 /* workers of one run on one node */
#define PATIENCE_NS (100 * PL_NS_PER_MS)

/* A cache line each, so that one worker's flag does not slow another's trial. */
struct slot {
    _Alignas(64) _Atomic uint32_t measuring;
    _Atomic uint32_t pid;          /* for a person who looks; liveness is the lock's */
    _Atomic int64_t waiting_since; /* monotonic ns; 0: not in the queue for the node */
    _Atomic int64_t last_asked;
};

struct table {
    _Alignas(64) _Atomic uint32_t used; /* slots that were ever taken: nobody looks further */
    struct slot slots[SLOTS];
};

struct pl_node {
    int fd;
    struct table *t; /* shared */
    unsigned mine;
    bool holds; /* the node, under `exclusive` */
};

void pl_node_key(const char *results_path, char out[PL_NODE_KEY])
{
    const char *job = getenv("SLURM_JOB_ID");
    char real[PATH_MAX], dir[PATH_MAX], hex[PL_SHA256_HEX];
    size_t n = 0;

    if (job && *job) {
        for (; job[n] && n < PL_NODE_KEY - 8; n++) {
            if (!isalnum((unsigned char)job[n]) && job[n] != '_' && job[n] != '-')
                break;
        }
        if (!job[n]) {
            snprintf(out, PL_NODE_KEY, "job%s", job);
            return;
        }
    }
    /* the file may not be there yet: its folder is */
    const char *slash = strrchr(results_path, '/'), *name = slash ? slash + 1 : results_path;
    snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - results_path) + 1 : 1,
             slash ? results_path : ".");
    if (realpath(dir, real)) {
        snprintf(dir, sizeof(dir), "%.*s/%.255s", PATH_MAX - 300, real, name);
        pl_sha256_hex(dir, strlen(dir), hex);
    } else {
        pl_sha256_hex(results_path, strlen(results_path), hex);
    }
    snprintf(out, PL_NODE_KEY, "file%.32s", hex);
}

static bool node_path(const char *folder, const char *key, char *out, size_t size)
{
    int n = snprintf(out, size, "%s/paceline-%lu-%s", folder, (unsigned long)geteuid(), key);

    return n > 0 && (size_t)n < size;
}

static const char *const folders[] = {"/dev/shm", "/tmp"};

/* Opens or makes the file and sees to it that it is ours. -1 with errno. */
static int open_file(const char *path)
{
    const off_t size = (off_t)sizeof(struct table);
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600), e = 0;
    struct stat sb;

    if (fd < 0)
        return -1;
    if (fstat(fd, &sb) != 0)
        e = errno;
    else if (!S_ISREG(sb.st_mode) || sb.st_uid != geteuid() || (sb.st_mode & 077) ||
             (sb.st_size != 0 && sb.st_size != size))
        e = EPERM;
    else /* allocated, so that a full file system is an error here and no SIGBUS later */
        e = posix_fallocate(fd, 0, size);
    if (!e)
        return fd;
    close(fd);
    errno = e;
    return -1;
}

static struct flock slot_lock(unsigned slot, short type)
{
    return (struct flock){.l_type = type,
                          .l_whence = SEEK_SET,
                          .l_start =
                              (off_t)(offsetof(struct table, slots) + slot * sizeof(struct slot)),
                          .l_len = (off_t)sizeof(struct slot)};
}

static unsigned used_slots(const struct pl_node *n)
{
    const uint32_t used = atomic_load_explicit(&n->t->used, memory_order_relaxed);

    return used < SLOTS ? used : SLOTS;
}

/* Is the slot held by a process that lives? Never asked of one's own: a process does not see its
 * own locks. */
static bool is_held(const struct pl_node *n, unsigned slot)
{
    struct flock l = slot_lock(slot, F_WRLCK);

    return fcntl(n->fd, F_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

static void reset_slot(struct slot *s, uint32_t pid)
{
    atomic_store(&s->measuring, 0);
    atomic_store(&s->waiting_since, 0);
    atomic_store(&s->last_asked, 0);
    atomic_store(&s->pid, pid);
}

enum pl_status pl_node_open(const char *key, struct pl_node **out, struct pl_err *err)
{
    struct pl_node *n = calloc(1, sizeof(*n));
    char path[PATH_MAX] = "";
    int e = ENOENT;

    if (!n)
        return pl_fail(err, PL_ENOMEM, "no memory for the node's table");
    if (!*key || strchr(key, '/')) {
        free(n);
        return pl_fail(err, PL_EUSAGE, "'%s' is no key of a node's table", key);
    }
    n->fd = -1;
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]) && n->fd < 0; i++) {
        if (i > 0 && e != ENOENT && e != EACCES && e != EROFS)
            break; /* the folder is there: another worker would not look further */
        if (!node_path(folders[i], key, path, sizeof(path)))
            e = ENAMETOOLONG;
        else if ((n->fd = open_file(path)) < 0)
            e = errno;
    }
    if (n->fd < 0) {
        free(n);
        return e == EPERM
                   ? pl_fail(err, PL_EIO, "%s is not this user's, or not what it should be", path)
                   : pl_fail_errno(err, e, "%s", path);
    }
    n->t = mmap(NULL, sizeof(*n->t), PROT_READ | PROT_WRITE, MAP_SHARED, n->fd, 0);
    if (n->t == MAP_FAILED) {
        e = errno;
        close(n->fd);
        free(n);
        return pl_fail_errno(err, e, "%s", path);
    }
    for (n->mine = 0; n->mine < SLOTS; n->mine++) {
        struct flock l = slot_lock(n->mine, F_WRLCK);
        if (fcntl(n->fd, F_SETLK, &l) == 0)
            break;
    }
    if (n->mine == SLOTS) {
        munmap(n->t, sizeof(*n->t));
        close(n->fd);
        free(n);
        return pl_fail(err, PL_EBUSY, "%s: all %d slots are held", path, SLOTS);
    }
    reset_slot(&n->t->slots[n->mine], (uint32_t)getpid());
    for (uint32_t used = atomic_load(&n->t->used);
         used <= n->mine && !atomic_compare_exchange_weak(&n->t->used, &used, n->mine + 1);)
        continue;
    *out = n;
    return PL_OK;
}

void pl_node_close(struct pl_node *n)
{
    if (!n)
        return;
    reset_slot(&n->t->slots[n->mine], 0);
    munmap(n->t, sizeof(*n->t));
    close(n->fd); /* frees the slot's lock and the node's */
    free(n);
}

void pl_node_unlink(const char *key)
{
    char path[PATH_MAX];

    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        if (*key && !strchr(key, '/') && node_path(folders[i], key, path, sizeof(path)))
            (void)unlink(path);
    }
}

void pl_node_enter(struct pl_node *n)
{
    atomic_store(&n->t->slots[n->mine].measuring, 1);
}

void pl_node_leave(struct pl_node *n)
{
    atomic_store(&n->t->slots[n->mine].measuring, 0);
}

unsigned pl_node_neighbours(const struct pl_node *n)
{
    const unsigned used = used_slots(n);
    unsigned count = 0;

    for (unsigned i = 0; i < used; i++) {
        if (i != n->mine && atomic_load_explicit(&n->t->slots[i].measuring, memory_order_relaxed) &&
            is_held(n, i))
            count++;
    }
    return count;
}

/* Has another worker that still asks waited longer? */
static bool must_yield(const struct pl_node *n, int64_t since, int64_t now)
{
    const unsigned used = used_slots(n);

    for (unsigned i = 0; i < used; i++) {
        const int64_t theirs = atomic_load(&n->t->slots[i].waiting_since);
        if (i == n->mine || theirs == 0 || theirs > since || (theirs == since && i > n->mine))
            continue;
        if (now - atomic_load(&n->t->slots[i].last_asked) < PATIENCE_NS && is_held(n, i))
            return true;
    }
    return false;
}

bool pl_node_try_exclusive(struct pl_node *n)
{
    struct slot *s = &n->t->slots[n->mine];
    const int64_t now = pl_now_ns();
    int64_t since = atomic_load(&s->waiting_since);

    if (n->holds)
        return true;
    if (since == 0 || now - atomic_load(&s->last_asked) >= PATIENCE_NS)
        since = now;
    atomic_store(&s->last_asked, now);
    atomic_store(&s->waiting_since, since);
    if (must_yield(n, since, now) || flock(n->fd, LOCK_EX | LOCK_NB) != 0)
        return false;
    atomic_store(&s->waiting_since, 0);
    n->holds = true;
    return true;
}

void pl_node_end_exclusive(struct pl_node *n)
{
    atomic_store(&n->t->slots[n->mine].waiting_since, 0);
    if (n->holds)
        (void)flock(n->fd, LOCK_UN);
    n->holds = false;
}
