/* Bytes of an open results file, at an address, whole: through MPI-IO where the file was opened
 * with it, else POSIX. */
#ifndef PL_RESULTS_IO_H
#define PL_RESULTS_IO_H

#include "results/h5.h"

struct pl_io;
struct pl_io_ops {
    /* All n bytes, or an errno value. */
    int (*read_at)(const struct pl_io *io, uint64_t at, void *buf, size_t n);
    int (*write_at)(const struct pl_io *io, uint64_t at, const void *buf, size_t n);
};
struct pl_io {
    const struct pl_io_ops *ops;
    int fd;    /* of the caller; POSIX */
    void *mpi; /* an MPI_File of HDF5's; MPI-IO */
};

void pl_io_posix(struct pl_io *io, int fd);
/* For a file opened by `fapl`'s driver: when that is MPI-IO takes its handle, which lives as long
 * as `file`, and returns true. A serial build always says false. */
bool pl_io_mpi(struct pl_io *io, hid_t file);
/* In a parallel build and between MPI_Init and MPI_Finalize: changes the driver to MPI-IO on
 * MPI_COMM_SELF, sets *mpi. Else leaves the POSIX one. 0, or < 0 on failure. */
int pl_io_fapl(hid_t fapl, bool *mpi);

#endif
