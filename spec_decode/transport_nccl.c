#include "spec_decode/transport_nccl.h"

#include "base/clock.h"
#include "spec_decode/nccl_abi.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef void *comm_t;

#define DEADLINE_NS (30 * PL_NS_PER_S)
#define IDLE_NS 20000 /* between two looks, once a carry takes longer than most */
#define SPIN_NS 200000

struct pl_nccl {
    void *so;
    int (*unique_id)(struct pl_nccl_id *);
    int (*init)(comm_t *, int ranks, struct pl_nccl_id, int rank, struct pl_nccl_config *);
    int (*group_start)(void), (*group_end)(void);
    int (*send)(const void *, size_t, int type, int peer, comm_t, void *stream);
    int (*recv)(void *, size_t, int type, int peer, comm_t, void *stream);
    int (*async_error)(comm_t, int *);
    int (*finalize)(comm_t), (*destroy)(comm_t), (*abort)(comm_t);
    const char *(*text)(int);
    struct pl_transport_end ends[2]; /* by rank: the sender's, the receiver's */
    struct pl_device_native native[2];
    comm_t comms[2];
    int64_t deadline_ns;
    struct pl_err broken; /* "": works */
    enum pl_status broken_status;
};

static enum pl_status resolve(struct pl_nccl *n, struct pl_err *err)
{
    const struct {
        const char *name;
        void **to;
    } list[] = {{"ncclGetUniqueId", (void **)&n->unique_id},
                {"ncclCommInitRankConfig", (void **)&n->init},
                {"ncclGroupStart", (void **)&n->group_start},
                {"ncclGroupEnd", (void **)&n->group_end},
                {"ncclSend", (void **)&n->send},
                {"ncclRecv", (void **)&n->recv},
                {"ncclCommGetAsyncError", (void **)&n->async_error},
                {"ncclCommFinalize", (void **)&n->finalize},
                {"ncclCommDestroy", (void **)&n->destroy},
                {"ncclCommAbort", (void **)&n->abort},
                {"ncclGetErrorString", (void **)&n->text}};

    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        *list[i].to = dlsym(n->so, list[i].name);
        if (!*list[i].to)
            return pl_fail(err, PL_EUNSUPPORTED, "NCCL has no %s: 2.14 or later is expected",
                           list[i].name);
    }
    return PL_OK;
}

static enum pl_status check(const struct pl_nccl *n, int result, const char *what,
                            struct pl_err *err)
{
    if (result == PL_NCCL_SUCCESS || result == PL_NCCL_IN_PROGRESS)
        return PL_OK;
    return pl_fail(err, PL_EDEVICE, "NCCL: %s: %s", what, n->text(result));
}

/* Neither end has an error; *busy: one of them is still at it. */
static enum pl_status look(const struct pl_nccl *n, const char *what, bool *busy,
                           struct pl_err *err)
{
    enum pl_status st = PL_OK;

    *busy = false;
    for (int r = 0; r < 2 && !st; r++) {
        int state = PL_NCCL_SUCCESS;
        if (!n->comms[r])
            continue;
        st = check(n, n->async_error(n->comms[r], &state), what, err);
        if (!st)
            st = check(n, state, what, err);
        *busy |= state == PL_NCCL_IN_PROGRESS;
    }
    return st;
}

/* Until the library has taken what it was given and, with `streams`, both devices have done it. */
static enum pl_status wait(const struct pl_nccl *n, const char *what, bool streams,
                           struct pl_err *err)
{
    const int64_t began = pl_now_ns();
    enum pl_status st = PL_OK;
    bool busy = true;

    while (busy && !st) {
        const int64_t spent = pl_now_ns() - began;
        st = look(n, what, &busy, err);
        for (int r = 0; r < 2 && streams && !busy && !st; r++) {
            bool done;
            st = n->ends[r].backend->poll(n->ends[r].device, &done, err);
            busy |= !done;
        }
        if (!st && busy && spent > n->deadline_ns)
            st = pl_fail(err, PL_ETIMEOUT, "NCCL: %s: nothing came of it in %.1f s", what,
                         (double)n->deadline_ns / 1e9);
        if (!st && busy && spent > SPIN_NS)
            nanosleep(&(struct timespec){.tv_nsec = IDLE_NS}, NULL);
    }
    return st;
}

static void abort_all(struct pl_nccl *n)
{
    for (int r = 0; r < 2; r++) {
        if (n->comms[r])
            (void)n->abort(n->comms[r]);
        n->comms[r] = NULL;
    }
}

/* Gives up: what was begun is aborted, and later calls say the same. */
static enum pl_status give_up(struct pl_nccl *n, enum pl_status st, const struct pl_err *err)
{
    abort_all(n);
    n->broken = *err;
    n->broken_status = st;
    return st;
}

static enum pl_status make_comms(struct pl_nccl *n, struct pl_err *err)
{
    struct pl_nccl_config c = {.size = sizeof(c),
                               .magic = PL_NCCL_CONFIG_MAGIC,
                               .version = PL_NCCL_CONFIG_VERSION,
                               .undefined = PL_NCCL_UNDEFINED};
    struct pl_nccl_id id;
    enum pl_status st = check(n, n->unique_id(&id), "ncclGetUniqueId", err);
    int end;

    if (!st)
        st = check(n, n->group_start(), "ncclGroupStart", err);
    if (st)
        return st;
    for (int r = 0; r < 2 && !st; r++) {
        st = n->ends[r].backend->native(n->ends[r].device, &n->native[r], err);
        if (!st)
            st = check(n, n->init(&n->comms[r], 2, id, r, &c), "ncclCommInitRankConfig", err);
    }
    end = n->group_end(); /* also after a failure: the group is the thread's */
    if (!st)
        st = check(n, end, "ncclCommInitRankConfig", err);
    return st ? st : wait(n, "making two communicators", false, err);
}

/* The first message makes connections. */
static enum pl_status warm_up(struct pl_nccl *n, struct pl_err *err)
{
    struct pl_tensor *t[2] = {NULL, NULL};
    enum pl_status st = PL_OK;

    for (int r = 0; r < 2 && !st; r++)
        st = n->ends[r].backend->tensor_create(n->ends[r].device, 1, 256, &t[r], err);
    for (int i = 0; i < 2 && !st; i++)
        st = pl_nccl_carry(n, n->ends[0].backend->address(t[0]), n->ends[1].backend->address(t[1]),
                           256, err);
    for (int r = 0; r < 2; r++)
        n->ends[r].backend->tensor_free(t[r]);
    return st;
}

static void *open_library(const char *asked)
{
    const char *library = asked ? asked : getenv("PACELINE_NCCL"); /* for tests */

    /* stays: threads of its own may still run when communicators are gone */
    return dlopen(library ? library : "libnccl.so.2", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
}

void pl_nccl_version(char *out, size_t size)
{
    void *so = open_library(NULL);
    int (*version)(int *) = NULL;
    int v = 0;

    *out = '\0';
    if (so)
        *(void **)&version = dlsym(so, "ncclGetVersion");
    if (version && version(&v) == PL_NCCL_SUCCESS)
        snprintf(out, size, "%d.%d.%d", v / 10000, v % 10000 / 100, v % 100); /* 2.9 on */
    if (so)
        dlclose(so);
}

enum pl_status pl_nccl_open(const struct pl_transport_opts *o, struct pl_nccl **out,
                            struct pl_err *err)
{
    struct pl_nccl *n = calloc(1, sizeof(*n));
    enum pl_status st;

    if (!n)
        return pl_fail(err, PL_ENOMEM, "no memory for NCCL");
    n->ends[0] = o->from;
    n->ends[1] = o->to;
    n->deadline_ns = o->deadline_ns ? o->deadline_ns : DEADLINE_NS;
    n->so = open_library(o->library);
    st = n->so ? resolve(n, err) : pl_fail(err, PL_EUNSUPPORTED, "NCCL: %s", dlerror());
    if (!st)
        st = make_comms(n, err);
    if (!st)
        st = warm_up(n, err);
    if (st) {
        abort_all(n);
        pl_nccl_close(n);
        return st;
    }
    *out = n;
    return PL_OK;
}

void pl_nccl_close(struct pl_nccl *n)
{
    struct pl_err none;
    bool ok = true;

    if (!n)
        return;
    for (int r = 0; r < 2; r++)
        ok = ok && n->comms[r] && !check(n, n->finalize(n->comms[r]), "ncclCommFinalize", &none);
    ok = ok && !wait(n, "ncclCommFinalize", false, &none);
    for (int r = 0; r < 2 && ok; r++) {
        (void)n->destroy(n->comms[r]);
        n->comms[r] = NULL;
    }
    abort_all(n);
    if (n->so)
        dlclose(n->so);
    free(n);
}

enum pl_status pl_nccl_carry(struct pl_nccl *n, const float *from, float *to, size_t floats,
                             struct pl_err *err)
{
    enum pl_status st;
    int end;

    if (n->broken.text[0]) {
        *err = n->broken;
        return n->broken_status;
    }
    st = check(n, n->group_start(), "ncclGroupStart", err);
    if (st)
        return give_up(n, st, err);
    st = check(n, n->send(from, floats, PL_NCCL_FLOAT32, 1, n->comms[0], n->native[0].stream),
               "ncclSend", err);
    if (!st)
        st = check(n, n->recv(to, floats, PL_NCCL_FLOAT32, 0, n->comms[1], n->native[1].stream),
                   "ncclRecv", err);
    end = n->group_end();
    if (!st)
        st = check(n, end, "ncclGroupEnd", err);
    if (!st)
        st = wait(n, "a send and a receive", true, err);
    return st ? give_up(n, st, err) : PL_OK;
}
