/*
 * Writing a results file. Rank 0 creates it whole (pl_results_create: every object, fixed shapes,
 * flushed, closed, then given its name); then every process opens it for itself (pl_writer_open: in
 * a parallel build between MPI_Init and MPI_Finalize MPI-IO on MPI_COMM_SELF, else POSIX; no HDF5
 * file locking, no sieve buffer) and writes rows independently: no call here is collective. Nothing
 * but rows, log slots and their overflow counters changes after creation.
 */
#ifndef PL_RESULTS_WRITER_H
#define PL_RESULTS_WRITER_H

#include "results/record.h"

#include <jansson.h>

struct pl_results_spec {
    struct pl_shape shape;
    const char *const *arm_names;  /* [arms] */
    const char *const *arm_json;   /* [arms], resolved */
    const int64_t *contexts;       /* [contexts] */
    const char *const *sample_ids; /* [samples]; or NULL and sample_id is called */
    void (*sample_id)(void *ctx, uint32_t i, char *out, size_t size);
    void *sample_ctx;
    uint32_t sample_id_len;          /* longest id in bytes */
    const char *const *metric_names; /* [metrics] */
    const char *sweep_text;          /* as given */
    const char *resolved;            /* resolved sweep, JSON */
    const char *sha256;              /* of resolved, hex */
    const json_t *provenance; /* object: versions, host, CPU, …; stored as attributes and as one
                                 JSON string */
    uint32_t log_capacity[PL_LOG_KINDS]; /* ≥ 1 each */
};

/* Creates path, as path.creating until it is complete (call it under the run's lock). PL_EEXIST
 * when path is there; PL_EIO on a full disk, also when the rows will not fit into what is free ("no
 * space left on device"); PL_ERANGE for shapes, labels and capacities out of bounds. Nothing is
 * left on failure. */
PL_MUST_CHECK
enum pl_status pl_results_create(const char *path, const struct pl_results_spec *spec,
                                 struct pl_err *err);

/* Of the library in use, e.g. "1.10.8 parallel"; static. */
const char *pl_results_hdf5_version(void);

struct pl_writer;
/* Opens an existing file for rows and logs; checks that its shape is `shape`. */
PL_MUST_CHECK
enum pl_status pl_writer_open(const char *path, const struct pl_shape *shape,
                              struct pl_writer **out, struct pl_err *err);
/* Writes a row: when the row's marker is not empty it is first set to 0; then the cells, then the
 * marker with its CRC. Only the holder of the row's lease may call this. PL_EIO: a full disk or
 * lost file system; the row then counts as empty. */
PL_MUST_CHECK
enum pl_status pl_writer_row(struct pl_writer *w, uint64_t index, const struct pl_row *row,
                             enum pl_row_state state, uint8_t attempt, uint16_t session,
                             struct pl_err *err);
/* Before the row, and under the same lease: its spans, at most PL_SPANS_MAX, for a row of the first
 * PL_SPANS_SAMPLES samples and the first repeat; other rows and files without /spans have none. */
PL_MUST_CHECK
enum pl_status pl_writer_spans(struct pl_writer *w, uint64_t index,
                               const struct pl_lane_span *spans, uint32_t n, struct pl_err *err);
/* Writes one log record (pl_log_size(kind) bytes) into `slot`; PL_ERANGE beyond the capacity. */
PL_MUST_CHECK
enum pl_status pl_writer_log(struct pl_writer *w, enum pl_log_kind kind, uint32_t slot,
                             const void *record, struct pl_err *err);
/* Rank 0: how many records of a kind found no slot so far (stored in /log_overflow). */
PL_MUST_CHECK
enum pl_status pl_writer_overflow(struct pl_writer *w, enum pl_log_kind kind, uint64_t count,
                                  struct pl_err *err);
/* fdatasync of the file, for the checkpoints of a long run. Local. */
PL_MUST_CHECK
enum pl_status pl_writer_sync(struct pl_writer *w, struct pl_err *err);
void pl_writer_free(struct pl_writer *w); /* NULL is fine; local, never collective */

#endif
