/* What this room shares about HDF5: handles, types, errors. <hdf5.h> is seen in this room only.
 * Calls used here exist, with these meanings, in 1.10 to 1.14 (every versioned one is called by its
 * number). */
#ifndef PL_RESULTS_H5_H
#define PL_RESULTS_H5_H

#include "results/places.h"

#include <hdf5.h>

#define PL_FORMAT_NAME "paceline-results"
#define PL_FORMAT_VERSION 2
#define PL_H5_RANK_MAX 7

/* Silences HDF5's own printing; every entry into this room that uses HDF5 calls it first. */
void pl_h5_begin(void);
/* File access: no sieve buffer, no file locks, closing takes everything in the file along; POSIX
 * driver. < 0 on failure. */
hid_t pl_h5_fapl(void);
/* In a parallel build and between MPI_Init and MPI_Finalize: changes the driver to MPI-IO on
 * MPI_COMM_SELF. Else leaves the POSIX one. 0, or < 0 on failure. Defined in file_mpi.c. */
int pl_h5_fapl_mpi(hid_t fapl);
/* The innermost message of HDF5's error stack (the system's own where it holds one) after the text,
 * the stack emptied. An errno in the message decides the status as pl_fail_errno does, else it is
 * st. */
enum pl_status pl_h5_fail(struct pl_err *err, enum pl_status st, const char *fmt, ...)
    PL_PRINTF(3, 4);

/* Each closes what it is given unless it is H5I_INVALID_HID (≤ 0). */
void pl_h5_close_type(hid_t id);
void pl_h5_close_space(hid_t id);
void pl_h5_close_dset(hid_t id);
void pl_h5_close_plist(hid_t id);
void pl_h5_close_file(hid_t id);

/* ---- the schema (schema.c) ---- */

/* Types; the caller closes them with H5Tclose. < 0 on failure. */
hid_t pl_h5_string(size_t size); /* fixed, NUL-padded, UTF-8 */
hid_t pl_h5_log_type(enum pl_log_kind k);

/* One dataset of the schema. */
struct pl_dset_spec {
    const char *name;
    hid_t type; /* in memory and in the file; owned */
    int rank;
    hsize_t dims[PL_H5_RANK_MAX];
};
/* false: the shape has no such dataset, out is untouched. A type that could not be made is < 0. */
bool pl_h5_cell_spec(const struct pl_shape *shape, enum pl_cell c, struct pl_dset_spec *out);
/* The same for /work. */
void pl_h5_work_spec(const struct pl_shape *shape, struct pl_dset_spec *out);
/* The same for /spans. */
bool pl_h5_spans_spec(const struct pl_shape *shape, struct pl_dset_spec *out);
void pl_h5_commit_spec(const struct pl_shape *shape, struct pl_dset_spec *out);

/* ---- datasets of an open file (object.c) ---- */

struct pl_h5_source {
    const char *path;
    hid_t file;
    uint64_t file_bytes; /* nothing lies beyond */
};

/* A dataset that is contiguous and lies inside the file, so its bytes are [at, at + bytes). */
struct pl_h5_found {
    hid_t type; /* close it with pl_h5_found_release */
    int rank;
    hsize_t dims[H5S_MAX_RANK];
    uint64_t at, bytes;
};

bool pl_h5_exists(const struct pl_h5_source *s, const char *name);
/* PL_EFORMAT, naming the dataset: missing, not contiguous, outside the file. */
PL_MUST_CHECK
enum pl_status pl_h5_find(const struct pl_h5_source *s, const char *name, struct pl_h5_found *f,
                          struct pl_err *err);
void pl_h5_found_release(struct pl_h5_found *f);
/* One of exactly `type` (closed here, also on failure) and `rank`; f holds no type afterwards. */
PL_MUST_CHECK
enum pl_status pl_h5_find_typed(const struct pl_h5_source *s, const char *name, hid_t type,
                                int rank, struct pl_h5_found *f, struct pl_err *err);
/* One of fixed-length strings (their length to *len); f holds no type afterwards. */
PL_MUST_CHECK
enum pl_status pl_h5_find_strings(const struct pl_h5_source *s, const char *name, int rank,
                                  struct pl_h5_found *f, size_t *len, struct pl_err *err);

/* Takes the shape from the datasets and holds every one of them against it (places.c). */
PL_MUST_CHECK
enum pl_status pl_places_read(const struct pl_h5_source *s, struct pl_places *out,
                              struct pl_err *err);

#endif
