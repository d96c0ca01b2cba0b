/* A stand-in for libnccl.so.2 on memory that is all one: messages of a group are copied once both streams have come to it. What it is told to do wrong, it
 * does from the next group on; it counts what became of its communicators. */
#include "spec_decode/nccl_abi.h"

#include "cuda_runtime_api.h"

#include <stddef.h>
#include <string.h>

/* For the test. fake_mode: 0 works, 1 an asynchronous error, 2 never ready, 3 a send is refused, 4 making communicators is refused. */
extern int fake_mode, fake_made, fake_destroyed, fake_aborted, fake_messages;
int fake_mode, fake_made, fake_destroyed, fake_aborted, fake_messages;

static int comms[2], depth;
static struct message {
    const void *from;
    void *to;
    size_t bytes;
} message;
static size_t n_sent, n_wanted;
static cudaStream_t sender, receiver;

int ncclGetVersion(int *v);
int ncclGetUniqueId(struct pl_nccl_id *id);
int ncclCommInitRankConfig(void **comm, int ranks, struct pl_nccl_id id, int rank, struct pl_nccl_config *c);
int ncclGroupStart(void);
int ncclGroupEnd(void);
int ncclSend(const void *p, size_t n, int type, int peer, void *comm, void *stream);
int ncclRecv(void *p, size_t n, int type, int peer, void *comm, void *stream);
int ncclCommGetAsyncError(void *comm, int *state);
int ncclCommFinalize(void *comm);
int ncclCommDestroy(void *comm);
int ncclCommAbort(void *comm);
const char *ncclGetErrorString(int e);

int ncclGetVersion(int *v)
{
    *v = 22907;
    return 0;
}

int ncclGetUniqueId(struct pl_nccl_id *id)
{
    memset(id, 7, sizeof(*id));
    return 0;
}

int ncclCommInitRankConfig(void **comm, int ranks, struct pl_nccl_id id, int rank, struct pl_nccl_config *c)
{
    if (ranks != 2 || rank < 0 || rank > 1 || id.internal[127] != 7 || c->magic != PL_NCCL_CONFIG_MAGIC || c->blocking || c->size != sizeof(*c) || !depth)
        return 4;
    if (fake_mode == 4)
        return 5;
    *comm = &comms[rank];
    fake_made++;
    return PL_NCCL_IN_PROGRESS;
}

int ncclGroupStart(void)
{
    depth++;
    return 0;
}

static void deliver(const void *arg)
{
    const struct message *m = arg;

    memcpy(m->to, m->from, m->bytes);
}

int ncclGroupEnd(void)
{
    depth--;
    if (message.from && message.to && n_sent == n_wanted && !fake_mode) {
        message.bytes = n_sent * sizeof(float);
        pl_emu_meet(sender, receiver, deliver, &message, sizeof(message));
        fake_messages++;
    }
    message = (struct message){NULL, NULL, 0};
    return fake_mode == 2 ? PL_NCCL_IN_PROGRESS : PL_NCCL_SUCCESS;
}

int ncclSend(const void *p, size_t n, int type, int peer, void *comm, void *stream)
{
    sender = stream;
    message.from = p;
    n_sent = n;
    return fake_mode == 3 || type != PL_NCCL_FLOAT32 || peer != 1 || comm != &comms[0] || !depth ? 4 : 0;
}

int ncclRecv(void *p, size_t n, int type, int peer, void *comm, void *stream)
{
    receiver = stream;
    message.to = p;
    n_wanted = n;
    return type != PL_NCCL_FLOAT32 || peer != 0 || comm != &comms[1] || !depth ? 4 : 0;
}

int ncclCommGetAsyncError(void *comm, int *state)
{
    *state = fake_mode == 1 && comm == &comms[1] ? 6 : fake_mode == 2 ? PL_NCCL_IN_PROGRESS : PL_NCCL_SUCCESS;
    return 0;
}

int ncclCommFinalize(void *comm)
{
    (void)comm;
    return PL_NCCL_IN_PROGRESS;
}

int ncclCommDestroy(void *comm)
{
    (void)comm;
    fake_destroyed++;
    return 0;
}

int ncclCommAbort(void *comm)
{
    (void)comm;
    fake_aborted++;
    return 0;
}

const char *ncclGetErrorString(int e)
{
    return e == 4 ? "invalid argument" : e == 5 ? "invalid usage" : e == 6 ? "remote process exited or there was a network error" : "?";
}
