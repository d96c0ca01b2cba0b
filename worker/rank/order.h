/*
 * In which order the trials of a block run. Pure: the order is a function of the sweep's seed and
 * of what is measured (arm, context, sample, repeat, attempt), never of who runs it or when, and
 * rows that are done already leave the others' order as it is.
 *
 * A unit is one (sample, repeat) with every arm of one residence: its arms stand next to each other
 * in random order, and units come in random order. With one residence (all models fit together)
 * that is all. With several, the block is cut into runs of run_samples samples; within a run every
 * residence is loaded once and does all the run's units, and the next run goes through the
 * residences backwards (A B | B A | A B …), so that drift cancels and every second swap is saved;
 * rows say `swapped`.
 */
#ifndef PL_WORKER_RANK_ORDER_H
#define PL_WORKER_RANK_ORDER_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pl_order_arm {
    uint32_t arm;       /* the grid's index */
    uint32_t residence; /* from 0 within the group; arms of one residence are loaded together */
};

struct pl_order_in {
    uint64_t seed;    /* the sweep's */
    uint32_t context; /* the grid's index */
    uint32_t first_sample, n_samples, repeats;
    uint32_t run_samples; /* s of the ABBA runs; 0: the whole block is one run. Not used with one
                             residence */
    uint32_t warmup;      /* untimed trials per arm after each swap (measure.warmup) */
    uint32_t attempt;     /* 0: first try; draws a new order for the retried rows */
    const struct pl_order_arm *arms; /* [n_arms] the group's arms, any order */
    uint32_t n_arms;
    const uint8_t *done; /* bit pl_order_bit(…) set: leave that row out; NULL: none is done */
};

struct pl_order_item {
    uint32_t arm, sample, repeat;
    uint32_t residence;
    uint16_t order; /* the row's place among the block's timed trials when none is left out, from 0,
                       at most 65535; warm-ups: 0 */
    bool timed;     /* false: a warm-up, not recorded */
    bool swap;      /* another residence than the item before, or the list's first: load unless that
                       residence is in memory */
    bool swapped;   /* the row's flag: the group has several residences */
};

/* Bit number in `done` of arms[arm_pos], sample, repeat: C order [n_arms][n_samples][repeats]; bit
 * b is done[b / 8] >> (b % 8) & 1. */
size_t pl_order_bit(const struct pl_order_in *in, uint32_t arm_pos, uint32_t sample,
                    uint32_t repeat);

/*
 * The list, malloc'd (free it). It holds the warm-ups where the rule wants them: `warmup` of every
 * arm that follows, after each swap, the first included. A worker whose runner already did `warmup`
 * of them for that arm and context since the last load of its residence leaves those out. *n = 0
 * and *items = NULL when every row is done. PL_ERANGE: counts of 0, too many arms or rows, a sample
 * range that overflows.
 */
PL_MUST_CHECK
enum pl_status pl_order_make(const struct pl_order_in *in, struct pl_order_item **items, size_t *n,
                             struct pl_err *err);

/*
 * Warm-ups for a runner that was replaced: `warmup` items for every arm that is timed in rest[0 …
 * n_rest − 1] before the next swap. At most in->n_arms × in->warmup items are written to out;
 * returns their number.
 */
size_t pl_order_warmups(const struct pl_order_in *in, const struct pl_order_item *rest,
                        size_t n_rest, struct pl_order_item *out);

/* Loads that a block costs from cold when no row is done: for the planner and the simulator. */
uint64_t pl_order_loads(uint32_t n_residences, uint32_t n_samples, uint32_t run_samples);

#endif
