/* A runner's `result` (docs/RUNNER.md) as a row. */
#ifndef PL_WORKER_RANK_ROW_H
#define PL_WORKER_RANK_ROW_H

#include "base/json.h"
#include "base/status.h"
#include "results/record.h"

/*
 * Clears `row` and fills what the runner measured. Strict about what is there (types, ranges,
 * counts within the shape), tolerant of what is not: absent times are NaN, absent counts 0.
 * PL_EPROTO names the key (the trial then fails with reason `garbage`); the row's contents are
 * undefined then. worker, load, block, order, neighbours, swapped and start_unix_ns are the
 * caller's. sequences: how many the trial was asked for, ≤ shape.batch; another number is refused.
 */
PL_MUST_CHECK
enum pl_status pl_row_from_result(const json_t *result, const struct pl_shape *shape,
                                  uint32_t sequences, struct pl_row *row, struct pl_err *err);

/* The `spans` of a result, at most PL_SPANS_MAX of them. PL_EPROTO names what is no span. */
PL_MUST_CHECK
enum pl_status pl_spans_from_result(const json_t *result, struct pl_lane_span *out, uint32_t *n,
                                    struct pl_err *err);

#endif
