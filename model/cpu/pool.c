#include "model/cpu/pool.h"

#include "base/cgroup.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* About 50 µs of pauses on current x86: longer than what separates two decode steps, short enough
 * to leave a shared core. */
#define SPINS 4000

/* An event that happened `gen` times. */
struct gate {
    _Alignas(64) atomic_uint gen;
    atomic_int sleepers;
};

struct member {
    struct pl_pool *pool;
    pthread_t thread;
    int index;
    uint32_t loop; /* of pl_pool_loop, counted */
};

struct pl_pool {
    struct gate job;  /* a function was posted */
    struct gate meet; /* all members reached the barrier */
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_ullong taken; /* the latest loop, and below it 32 bits of what is taken */
    void (*fn)(void *, int, int);
    void *arg;
    bool stop;
    int n, started, spins;
    uint64_t serial;
    int *cpus;
    size_t n_cpus;
    struct member *members;
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static long futex(atomic_uint *at, int op, unsigned value)
{
    return syscall(SYS_futex, at, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static void gate_open(struct gate *g)
{
    atomic_fetch_add(&g->gen, 1);
    if (atomic_load(&g->sleepers))
        futex(&g->gen, FUTEX_WAKE, INT_MAX);
}

/* Returns once the gate's count is no longer `seen`. */
static void gate_wait(struct gate *g, unsigned seen, int spins)
{
    for (int i = 0; i < spins; i++) {
        if (atomic_load_explicit(&g->gen, memory_order_acquire) != seen)
            return;
        relax();
    }
    atomic_fetch_add(&g->sleepers, 1);
    while (atomic_load(&g->gen) == seen)
        futex(&g->gen, FUTEX_WAIT, seen);
    atomic_fetch_sub(&g->sleepers, 1);
}

static void bind_to(const struct pl_pool *p, int member)
{
    cpu_set_t set;

    if (!p->n_cpus)
        return;
    CPU_ZERO(&set);
    CPU_SET((unsigned)p->cpus[(size_t)member % p->n_cpus], &set);
    /* A CPU taken away since is no reason to fail: the thread then runs where it may. */
    (void)sched_setaffinity(0, sizeof(set), &set);
}

void pl_pool_barrier(struct pl_pool *p)
{
    unsigned seen = atomic_load_explicit(&p->meet.gen, memory_order_acquire);

    if (p->n == 1)
        return;
    if (atomic_fetch_add(&p->arrived, 1) == p->n - 1) {
        atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
        gate_open(&p->meet);
    } else {
        gate_wait(&p->meet, seen, p->spins);
    }
}

void pl_pool_loop(struct pl_pool *p, int m)
{
    p->members[m].loop++;
}

/* A member that is behind finds a later loop's number: all of its own was taken before that began.
 */
bool pl_pool_take(struct pl_pool *p, int m, size_t n, size_t least, size_t *begin, size_t *end)
{
    const uint32_t loop = p->members[m].loop;
    unsigned long long seen = atomic_load_explicit(&p->taken, memory_order_relaxed), next;

    do {
        const uint32_t latest = (uint32_t)(seen >> 32);
        if ((int32_t)(latest - loop) > 0)
            return false;
        *begin = latest == loop ? (size_t)(seen & UINT32_MAX) : 0;
        if (*begin >= n)
            return false;
        size_t share = (n - *begin) / (2 * (size_t)p->n);
        share = p->n == 1 ? n : share < least ? least : share;
        *end = n - *begin < share ? n : *begin + share;
        next = (unsigned long long)loop << 32 | *end;
    } while (!atomic_compare_exchange_weak(&p->taken, &seen, next));
    return true;
}

static void *work(void *arg)
{
    struct member *m = arg;
    struct pl_pool *p = m->pool;

    bind_to(p, m->index);
    for (unsigned seen = 0;; seen++) {
        gate_wait(&p->job, seen, p->spins);
        if (p->stop)
            return NULL;
        p->fn(p->arg, m->index, p->n);
        pl_pool_barrier(p);
    }
}

void pl_pool_run(struct pl_pool *p, void (*fn)(void *, int, int), void *arg)
{
    static _Thread_local uint64_t bound; /* serial of the pool this thread is bound for */

    if (p->n_cpus && bound != p->serial) {
        bind_to(p, 0);
        bound = p->serial;
    }
    if (p->n > 1) {
        p->fn = fn;
        p->arg = arg;
        gate_open(&p->job);
    }
    fn(arg, 0, p->n);
    pl_pool_barrier(p);
}

enum pl_status pl_pool_create(int threads, const int *cpus, size_t n_cpus, struct pl_pool **out,
                              struct pl_err *err)
{
    static atomic_ullong serials;
    const double quota = pl_cpu_quota("");
    const int given = n_cpus ? (int)n_cpus : pl_usable_cpus("");
    int n = threads ? threads : given;
    struct pl_pool *p;

    if (n < 1 || n > PL_POOL_MAX)
        return pl_fail(err, PL_ERANGE, "%d threads: expected 1 to %d", n, PL_POOL_MAX);
    for (size_t i = 0; i < n_cpus; i++)
        if (cpus[i] < 0 || cpus[i] >= CPU_SETSIZE)
            return pl_fail(err, PL_ERANGE, "CPU number %d is out of range", cpus[i]);
    p = aligned_alloc(64, (sizeof(*p) + 63) / 64 * 64);
    if (!p)
        return pl_fail(err, PL_ENOMEM, "no memory for a thread pool");
    memset(p, 0, sizeof(*p));
    p->n = n;
    p->n_cpus = n_cpus;
    p->serial = atomic_fetch_add(&serials, 1) + 1;
    p->spins = n <= given && (quota <= 0 || n <= quota) ? SPINS : 0;
    p->members = calloc((size_t)n, sizeof(*p->members));
    p->cpus = calloc(n_cpus + 1, sizeof(*p->cpus));
    if (!p->members || !p->cpus) {
        pl_pool_free(p);
        return pl_fail(err, PL_ENOMEM, "no memory for a thread pool");
    }
    if (n_cpus)
        memcpy(p->cpus, cpus, n_cpus * sizeof(*cpus));
    for (p->started = 1; p->started < n; p->started++) {
        struct member *m = &p->members[p->started];
        *m = (struct member){.pool = p, .index = p->started};
        int e = pthread_create(&m->thread, NULL, work, m);
        if (e) {
            int at = p->started;
            pl_pool_free(p);
            return pl_fail_errno(err, e, "cannot start thread %d", at);
        }
    }
    *out = p;
    return PL_OK;
}

void pl_pool_free(struct pl_pool *p)
{
    if (!p)
        return;
    p->stop = true;
    gate_open(&p->job);
    for (int i = 1; i < p->started; i++)
        pthread_join(p->members[i].thread, NULL);
    free(p->members);
    free(p->cpus);
    free(p);
}

int pl_pool_threads(const struct pl_pool *p)
{
    return p->n;
}

size_t pl_pool_cpus(const struct pl_pool *p, const int **cpus)
{
    *cpus = p->cpus;
    return p->n_cpus;
}
