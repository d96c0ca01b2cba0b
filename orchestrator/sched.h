/*
 * Who measures what: the pure heart of a run. Blocks are leased on request, leases expire unless
 * they are renewed, what a worker left undone is leased again. No I/O, no MPI, no clock of its own:
 * `now` is handed in (ns, monotonic).
 *
 * Memory: one bit a row (two with re-runs), a few words a worker. The order of a group's blocks is
 * a keyed permutation that is computed, not stored.
 *
 * Promises: a row is settled once; only the holder of a live lease can settle it; a block is in one
 * lease at a time; a worker stays in its comparison group while that has work (its models stay
 * loaded); what came back is handed out before what is fresh.
 */
#ifndef PL_ORCHESTRATOR_SCHED_H
#define PL_ORCHESTRATOR_SCHED_H

#include "orchestrator/plan.h"
#include "worker/rank/job.h"

#include <stdbool.h>
#include <stdint.h>

#define PL_SCHED_LEASES 2 /* a worker may hold: the one it runs and the next */

struct pl_sched;

struct pl_sched_opts {
    uint64_t seed;
    uint32_t n_workers; /* slots, 0 … n_workers − 1 */
    int64_t lease_ns,
        grace_ns; /* a lease is taken away lease + grace after it was granted or last renewed */
    bool again;   /* rows of earlier sessions may be marked with pl_sched_again */
    /* Asked about every row that is open when a lease ends without its holder's word (expired,
     * left): a worker may have committed rows that it never reported, and those must not be done
     * again. NULL: none is. */
    bool (*committed)(void *ctx, uint64_t row, bool *failed);
    void *committed_ctx;
};

/* plan is borrowed and must outlive it. PL_ENOMEM; PL_ERANGE: blocks that are not group-major, or
 * workers 0. */
PL_MUST_CHECK
enum pl_status pl_sched_new(const struct pl_plan *plan, const struct pl_sched_opts *opts,
                            struct pl_sched **out, struct pl_err *err);
void pl_sched_free(struct pl_sched *s);

/* Before the first grant: the row was settled in an earlier session / failed there and is to run
 * again, from `attempt` on (the largest given counts for all of them). */
void pl_sched_settled(struct pl_sched *s, uint64_t row, bool failed);
void pl_sched_again(struct pl_sched *s, uint64_t row, unsigned attempt);

/* A worker that may take leases; devices: of its set. A slot may join again after pl_sched_leave.
 */
void pl_sched_join(struct pl_sched *s, uint32_t worker, uint32_t devices);
/* It takes no more; its leases, if any, come back at once (opts.committed is asked). */
void pl_sched_leave(struct pl_sched *s, uint32_t worker);
uint32_t pl_sched_workers(const struct pl_sched *s); /* joined and not left */

struct pl_grant {
    uint64_t lease; /* ≥ 1, never used twice */
    struct pl_block block;
    struct pl_cells cells; /* arms borrowed from the scheduler */
    uint32_t todo;         /* cells to do */
    bool give_up;          /* every worker said that it cannot load all of this group */
    bool has_again;        /* some of the cells are re-runs */
    unsigned again_attempt;
};
enum pl_granted {
    PL_GRANTED,       /* *out is set */
    PL_GRANT_LATER,   /* nothing now; something may come back */
    PL_GRANT_NEVER,   /* what is left needs another worker than this one */
    PL_GRANT_FINISHED /* every row is settled */
};
enum pl_granted pl_sched_grant(struct pl_sched *s, uint32_t worker, int64_t now,
                               struct pl_grant *out);
/* Cells of a grant, as bits: todo and (has_again) again, each PL_BITS(cells) bytes, zeroed by the
 * caller. */
void pl_sched_cells(const struct pl_sched *s, const struct pl_grant *g, uint8_t *todo,
                    uint8_t *again);
/* The most cells a block can have. */
uint32_t pl_sched_max_cells(const struct pl_sched *s);

/* The worker wrote this cell of its lease. False: the lease is not its any more, or no such cell:
 * nothing changed. */
bool pl_sched_row(struct pl_sched *s, uint32_t worker, uint64_t lease, uint32_t cell, bool failed);
bool pl_sched_holds(const struct pl_sched *s, uint32_t worker, uint64_t lease);
/* A sign of life: all its leases run anew from now. */
void pl_sched_renew(struct pl_sched *s, uint32_t worker, int64_t now);
/* Through with a lease: what is not settled comes back. cannot: this worker cannot load all of the
 * group, and gets no more of it while another worker can. */
void pl_sched_done(struct pl_sched *s, uint32_t worker, uint64_t lease, bool cannot);
/* Takes one lease away that ran out (opts.committed is asked); false when there is none. Call until
 * false. */
bool pl_sched_expire(struct pl_sched *s, int64_t now, uint32_t *worker, uint64_t *lease);

/* Rows are left, nobody holds a lease, and no worker that is here may ever take what is left. */
bool pl_sched_stuck(const struct pl_sched *s);

struct pl_sched_counts {
    uint64_t rows, done, failed, left; /* over all sessions */
    uint64_t granted, expired, returned, late;
    uint32_t leases; /* live */
};
void pl_sched_count(const struct pl_sched *s, struct pl_sched_counts *out);
size_t pl_sched_bytes(const struct pl_sched *s); /* memory it holds */

/* A keyed permutation of 0 … n − 1 (four Feistel rounds on the next even power of two, walked back
 * into range). */
uint64_t pl_sched_permute(uint64_t key, uint64_t n, uint64_t i);

#endif
