/*
 * Reading a results file, also while a run writes it. No row is trusted without its marker and CRC:
 * a row whose CRC does not match counts as empty. Every shape, type and string is checked at open
 * (PL_EFORMAT names the object): the file may come from anywhere.
 */
#ifndef PL_RESULTS_READER_H
#define PL_RESULTS_READER_H

#include "results/record.h"

#include <jansson.h>

struct pl_reader;

PL_MUST_CHECK
enum pl_status pl_reader_open(const char *path, struct pl_reader **out, struct pl_err *err);
void pl_reader_free(struct pl_reader *r);

const struct pl_shape *pl_reader_shape(const struct pl_reader *r);
/* Axis labels; borrowed. */
const char *pl_reader_arm(const struct pl_reader *r, uint32_t arm);
const json_t *pl_reader_arm_json(const struct pl_reader *r, uint32_t arm);
int64_t pl_reader_context(const struct pl_reader *r, uint32_t context);
const char *pl_reader_sample(const struct pl_reader *r, uint32_t sample);
const char *pl_reader_metric(const struct pl_reader *r, uint32_t metric);
const char *pl_reader_sweep_text(const struct pl_reader *r);
const char *pl_reader_resolved(const struct pl_reader *r); /* JSON text */
const json_t *pl_reader_sweep(const struct pl_reader *r);  /* the same, parsed */
const char *pl_reader_sha256(const struct pl_reader *r);
const json_t *pl_reader_provenance(const struct pl_reader *r);

/* Markers as stored (no CRC check) of rows [first, first+n): cheap, for progress. */
PL_MUST_CHECK
enum pl_status pl_reader_markers(struct pl_reader *r, uint64_t first, uint64_t n,
                                 struct pl_commit *out, struct pl_err *err);

struct pl_row_view {
    uint64_t index;
    struct pl_row_id id;
    struct pl_commit commit; /* state is PL_ROW_EMPTY after a CRC mismatch */
    bool torn;               /* marker set, CRC wrong */
    struct pl_row row;       /* borrowed until the next row */
};
/* Calls fn for every row whose marker is set (torn ones too), in index order, read in chunks of
 * bounded memory. fn returns false to stop early. */
PL_MUST_CHECK
enum pl_status pl_reader_each(struct pl_reader *r,
                              bool (*fn)(void *ctx, const struct pl_row_view *v), void *ctx,
                              struct pl_err *err);
/* The spans of a row that has them (writer.h), in out[PL_SPANS_MAX]; *n 0: none. They have no CRC:
 * ask only for rows that are done. */
PL_MUST_CHECK
enum pl_status pl_reader_spans(struct pl_reader *r, uint64_t index, struct pl_lane_span *out,
                               uint32_t *n, struct pl_err *err);
/* Used records of a log, in slot order: *records is malloc'd (free it), n of pl_log_size(kind)
 * bytes. */
PL_MUST_CHECK
enum pl_status pl_reader_log(struct pl_reader *r, enum pl_log_kind kind, void **records,
                             uint32_t *n, uint64_t *overflow, struct pl_err *err);

struct pl_verify_counts {
    uint64_t rows, done, failed, empty; /* rows = done + failed + empty + torn */
    uint64_t torn, broken_identity, bad_log;
    uint64_t problems; /* all of them: what the callback was told */
};
/* Everything that can be checked: CRCs, states, reasons, the accounting identities of CONTRACTS §3
 * (a callback gets one line a problem). `paceline verify` prints it. */
PL_MUST_CHECK
enum pl_status pl_reader_verify(struct pl_reader *r, void (*problem)(void *ctx, const char *text),
                                void *ctx, struct pl_verify_counts *out, struct pl_err *err);

/* The identities of one done row; NULL when they hold, else a static-lifetime reason written to
 * buf. */
const char *pl_row_check(const struct pl_shape *shape, const struct pl_row *row, char *buf,
                         size_t size);

#endif
