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

#endif
