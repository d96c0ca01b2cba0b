/* What reader.c (opening) and reader_rows.c (bulk) share. */
#ifndef PL_RESULTS_READER_IMPL_H
#define PL_RESULTS_READER_IMPL_H

#include "results/places.h"
#include "results/reader.h"

/* Labels of one axis, each NUL-terminated at i * stride. */
struct pl_labels {
    char *data;
    size_t stride;
    uint32_t n;
};

/* After opening, HDF5 holds nothing: every dataset is contiguous, so the bulk is read at its
 * address with pread. */
struct pl_reader {
    char *path;
    int fd;
    struct pl_places p;
    struct pl_labels arms, samples, metrics;
    uint32_t n_contexts;
    int64_t *contexts;
    json_t **arm_json; /* [arms] */
    char *text, *resolved, sha256[65];
    json_t *sweep, *provenance;
};

/* n bytes at `at`, all of them; `what` is the dataset for the message. */
PL_MUST_CHECK
enum pl_status pl_reader_pread(const struct pl_reader *r, const char *what, uint64_t at, void *out,
                               size_t n, struct pl_err *err);

#endif
