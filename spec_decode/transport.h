/*
 * What carries a draft from the drafter's device to the verifier's. Ids are the host's in any case
 * (both lanes are threads of one process); the drafter's hidden states, which an adapter reads,
 * travel by one of
 *
 *   host  through this process's memory; between any two devices
 *   peer  a copy from device to device: two GPUs of which each reaches the other, or one that both
 *         lanes share
 *   nccl  NCCL's send and receive between two GPUs; the library is opened when it is asked for
 *
 * auto is the first of peer, nccl and host that opens; on the CPU host.
 */
#ifndef PL_SPEC_DECODE_TRANSPORT_H
#define PL_SPEC_DECODE_TRANSPORT_H

#include "base/status.h"
#include "model/backend.h"
#include "spec_decode/draft.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pl_transport;

struct pl_transport_end {
    const struct pl_backend *backend;
    struct pl_device *device; /* borrowed */
};

struct pl_transport_opts {
    struct pl_transport_end from, to;
    size_t most;         /* floats of one carry */
    const char *library; /* NCCL's; NULL: PACELINE_NCCL, else libnccl.so.2 */
    int64_t deadline_ns; /* of NCCL's set-up and of each of its carries; 0: 30 s */
};

/* X(symbol, name) */
#define PL_TRANSPORT_LIST(X)                                                                       \
    X(AUTO, "auto")                                                                                \
    X(NCCL, "nccl")                                                                                \
    X(PEER, "peer")                                                                                \
    X(HOST, "host")
enum pl_transport_kind {
#define PL_X(sym, name) PL_TRANSPORT_##sym,
    PL_TRANSPORT_LIST(PL_X)
#undef PL_X
        PL_TRANSPORT_KINDS
};
/* PL_TRANSPORT_KINDS: there is none of that name. */
enum pl_transport_kind pl_transport_by_name(const char *name);
const char *pl_transport_kind_name(enum pl_transport_kind k);

/* PL_EUNSUPPORTED: these two devices cannot be joined so, or the library is not there; the text
 * says why. */
PL_MUST_CHECK
enum pl_status pl_transport_open(enum pl_transport_kind kind, const struct pl_transport_opts *o,
                                 struct pl_transport **out, struct pl_err *err);
void pl_transport_close(struct pl_transport *t);                        /* accepts NULL */
enum pl_transport_kind pl_transport_kind(const struct pl_transport *t); /* never auto */
bool pl_transport_shared(const struct pl_transport *t);                 /* both ends are one GPU */
/* n rows of `from` (on the sender's device) to the first rows of `to`, in the order of both
 * devices' work. NCCL: done when it returns; PL_EDEVICE or PL_ETIMEOUT: the communicators were
 * aborted, and every later carry fails with the same text. */
PL_MUST_CHECK
enum pl_status pl_transport_carry(struct pl_transport *t, struct pl_tensor *to,
                                  const struct pl_tensor *from, size_t n, struct pl_err *err);

/* Before the first move: where not by the host's memory, the drafts' states move to the devices. */
PL_MUST_CHECK
enum pl_status pl_transport_prepare(struct pl_transport *t, struct pl_draft *sent,
                                    struct pl_draft *draft, struct pl_err *err);
/* Called by the receiver once the sender is done with `from`; `to` has the same room. t NULL: both
 * lie in the host's memory. */
PL_MUST_CHECK
enum pl_status pl_transport_move(struct pl_transport *t, struct pl_draft *to,
                                 const struct pl_draft *from, struct pl_err *err);

#endif
