/*
 * What rank 0 and the workers say to each other: packed structs, one build on both sides (the
 * version is checked in HELLO). The order of two messages between the same two ranks is kept.
 *
 *   worker → rank 0                              rank 0 → worker
 *   HELLO     who I am, what I see               WELCOME | REFUSE
 *   REQ       I can take a block                 LEASE | WAIT (a LEASE follows later) | FINISH
 *   LOAD      a load happened                    ACK with the load's number
 *   CEILING   what my cores can do at most       –
 *   KERNEL    what a kernel took in one trial    –
 *   BURST     what came of it                    ENERGY: measure this arm × context
 *   FAILURE   a trial or a load failed           ACK: its /failures entry is in the file
 *   PROGRESS  rows written; renews my leases     RENEWED with the same stamp, and REVOKED for a
 * lease not mine any more DONE      I am through with a lease          – OUT       I take no more
 * leases              – STOPPING  a signal told me to stop           STOP to everyone BYE       my
 * last word                       FINISH | STOP came before
 */
#ifndef PL_WORKER_RANK_MSG_H
#define PL_WORKER_RANK_MSG_H

#include "results/record.h"
#include "worker/rank/devices.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_MSG_MAGIC 0x50434c31u /* "PCL1" */

#define PL_MSG_LIST(X)                                                                             \
    X(HELLO, hello)                                                                                \
    X(WELCOME, welcome)                                                                            \
    X(REFUSE, refuse)                                                                              \
    X(REQ, req)                                                                                    \
    X(LEASE, lease)                                                                                \
    X(WAIT, wait)                                                                                  \
    X(LOAD, load)                                                                                  \
    X(CEILING, ceiling)                                                                            \
    X(KERNEL, kernel)                                                                              \
    X(ENERGY, energy)                                                                              \
    X(BURST, burst)                                                                                \
    X(FAILURE, failure)                                                                            \
    X(ACK, ack)                                                                                    \
    X(PROGRESS, progress)                                                                          \
    X(RENEWED, renewed)                                                                            \
    X(REVOKED, revoked)                                                                            \
    X(DONE, done)                                                                                  \
    X(OUT, out)                                                                                    \
    X(STOPPING, stopping)                                                                          \
    X(STOP, stop)                                                                                  \
    X(FINISH, finish)                                                                              \
    X(BYE, bye)

enum pl_msg_type {
    PL_MSG_NONE,
#define PL_X(sym, name) PL_MSG_##sym,
    PL_MSG_LIST(PL_X)
#undef PL_X
        PL_MSG_TYPES
};

struct __attribute__((packed)) pl_msg_head {
    uint32_t magic, type;
};

struct __attribute__((packed)) pl_msg_hello {
    struct pl_msg_head head;
    int32_t mpi_rank, pid;
    char version[32];
    char sweep_sha[72]; /* of the sweep file's text and the selection, as this rank sees them; ""
                           with `error` */
    char error[512];    /* why this worker cannot take part; "" else */
    struct pl_device_report report;
};
struct __attribute__((packed)) pl_msg_welcome {
    struct pl_msg_head head;
    uint32_t worker; /* number in /workers */
    int64_t lease_ns;
    struct pl_device_deal deal;
    uint32_t json_len;
    char json[]; /* pl_job's, not NUL-terminated */
};
struct __attribute__((packed)) pl_msg_refuse {
    struct pl_msg_head head;
    int32_t exit_code;
    char text[1024]; /* "" when rank 0 has said it */
};
struct __attribute__((packed)) pl_msg_req {
    struct pl_msg_head head;
    char cpus[64]; /* its cores, for /workers */
};
struct __attribute__((packed)) pl_msg_lease {
    struct pl_msg_head head;
    uint64_t lease, block;
    uint32_t group, context, first_sample, n_samples, n_cells;
    uint8_t give_up;   /* 1: no worker can load what this group needs: fail at once what you cannot
                          load */
    uint8_t has_again; /* 1: a second bitmap follows */
    uint8_t again_attempt; /* first attempt number of the cells of the second bitmap; the others' is
                              0 */
    uint8_t bits[]; /* [⌈n_cells / 8⌉] cells to do, then the same of cells that failed in an earlier
                       session */
};
struct __attribute__((packed)) pl_msg_wait {
    struct pl_msg_head head;
};
struct __attribute__((packed)) pl_msg_load {
    struct pl_msg_head head;
    uint64_t seq;
    struct pl_log_load record; /* session, load, worker: filled by rank 0 */
};
struct __attribute__((packed)) pl_msg_ceiling {
    struct pl_msg_head head;
    struct pl_log_ceiling record; /* session, worker: filled by rank 0 */
};
struct __attribute__((packed)) pl_msg_kernel {
    struct pl_msg_head head;
    struct pl_log_kernel record; /* session, worker: filled by rank 0 */
};
struct __attribute__((packed)) pl_msg_failure {
    struct pl_msg_head head;
    uint64_t seq;
    struct pl_log_failure record;
};
struct __attribute__((packed)) pl_msg_ack {
    struct pl_msg_head head;
    uint64_t seq;
    uint32_t number; /* of the load */
};
struct __attribute__((packed)) pl_msg_progress {
    struct pl_msg_head head;
    uint64_t lease; /* 0: a sign of life alone */
    int64_t stamp;  /* the worker's clock when it sent this; comes back in RENEWED */
    uint32_t n;
    struct __attribute__((packed)) pl_msg_cell {
        uint32_t cell;
        uint8_t failed;
    } cells[];
};
struct __attribute__((packed)) pl_msg_renewed {
    struct pl_msg_head head;
    int64_t stamp;
};
struct __attribute__((packed)) pl_msg_revoked {
    struct pl_msg_head head;
    uint64_t lease;
};
struct __attribute__((packed)) pl_msg_energy {
    struct pl_msg_head head;
    uint32_t arm, context;
};
struct __attribute__((packed)) pl_msg_burst {
    struct pl_msg_head head;
    struct pl_log_energy record; /* session, worker: filled by rank 0 */
};
struct __attribute__((packed)) pl_msg_done {
    struct pl_msg_head head;
    uint64_t lease;
    uint8_t
        cannot; /* 1: rows are left because a model or an engine of this group does not load here */
    struct pl_log_block record;
};
struct __attribute__((packed)) pl_msg_out {
    struct pl_msg_head head;
    uint8_t fatal; /* 1: the results file cannot be written; the run cannot go on */
    char text[1024];
};
struct __attribute__((packed)) pl_msg_stopping {
    struct pl_msg_head head;
    uint8_t hard;
};
struct __attribute__((packed)) pl_msg_stop {
    struct pl_msg_head head;
    uint8_t hard; /* 1: now; 0: the trial in hand may finish */
};
struct __attribute__((packed)) pl_msg_finish {
    struct pl_msg_head head;
};
struct __attribute__((packed)) pl_msg_bye {
    struct pl_msg_head head;
    int32_t exit_code;
};

static inline struct pl_msg_head pl_msg_head(enum pl_msg_type type)
{
    return (struct pl_msg_head){.magic = PL_MSG_MAGIC, .type = (uint32_t)type};
}

/* The type of a message whose magic, size and counts are right; PL_MSG_NONE for anything else. */
enum pl_msg_type pl_msg_check(const void *buf, size_t n);
const char *pl_msg_name(enum pl_msg_type type);

#define PL_BITS(n) (((size_t)(n) + 7) / 8)
static inline bool pl_bit_get(const uint8_t *bits, uint64_t i)
{
    return bits[i / 8] >> (i % 8) & 1;
}
static inline void pl_bit_set(uint8_t *bits, uint64_t i)
{
    bits[i / 8] |= (uint8_t)(1u << (i % 8));
}

#endif
