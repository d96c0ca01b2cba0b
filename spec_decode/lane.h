/*
 * The drafter's lane: one thread that runs one function at a time beside the caller's. Posting and
 * waiting order memory. The lane's function returns a status; a lane never hangs its owner:
 * whatever it does ends with the function's return.
 */
#ifndef PL_SPEC_DECODE_LANE_H
#define PL_SPEC_DECODE_LANE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pl_lane;

PL_MUST_CHECK
enum pl_status pl_lane_new(struct pl_lane **out, struct pl_err *err);
void pl_lane_free(struct pl_lane *l); /* accepts NULL; waits for what runs */
/* Nothing may be running. */
void pl_lane_post(struct pl_lane *l, enum pl_status (*fn)(void *arg, struct pl_err *err),
                  void *arg);
/* The posted function's status and error text. */
PL_MUST_CHECK
enum pl_status pl_lane_wait(struct pl_lane *l, struct pl_err *err);

/*
 * What carries a draft from the drafter's device to the verifier's: one interface, so that devices
 * that are no threads can be joined. `host`: both lanes are threads of this process, a copy.
 */
struct pl_draft;
struct pl_transport {
    const char *name;
    /* Called by the receiver once the sender is done with `from`; `to` has the same room. */
    enum pl_status (*move)(struct pl_draft *to, const struct pl_draft *from, struct pl_err *err);
};
extern const struct pl_transport pl_transport_host;
/* "auto", "host"; NULL when this build has none of that name. */
const struct pl_transport *pl_transport_by_name(const char *name);

#endif
