/* MPI-IO for writers. MPI_COMM_SELF keeps every call local: none can hang on a dead rank. */
#include "results/io.h"

#include <mpi.h>

#include <errno.h>

int pl_io_fapl(hid_t fapl, bool *mpi)
{
    int begun = 0, ended = 0;
    *mpi = false;
    if (MPI_Initialized(&begun) != MPI_SUCCESS || MPI_Finalized(&ended) != MPI_SUCCESS)
        return -1;
    if (!begun || ended)
        return 0;
    *mpi = true;
    return H5Pset_fapl_mpio(fapl, MPI_COMM_SELF, MPI_INFO_NULL) < 0 ? -1 : 0;
}

static int as_errno(int rc)
{
    int class = MPI_ERR_IO;
    MPI_Error_class(rc, &class);
    switch (class) {
    case MPI_ERR_NO_SPACE:
        return ENOSPC;
    case MPI_ERR_QUOTA:
        return EDQUOT;
    case MPI_ERR_NO_MEM:
        return ENOMEM;
    case MPI_ERR_READ_ONLY:
        return EROFS;
    default:
        return EIO;
    }
}

static int transferred(int rc, MPI_Status *status, size_t n)
{
    int count = 0;
    if (rc != MPI_SUCCESS)
        return as_errno(rc);
    if (MPI_Get_count(status, MPI_BYTE, &count) != MPI_SUCCESS || (size_t)count != n)
        return EIO;
    return 0;
}

/* A cell is at most PL_ROW_BYTES_MAX, so its size is an int. */
static int mpi_read(const struct pl_io *io, uint64_t at, void *buf, size_t n)
{
    MPI_Status status;
    const int rc =
        MPI_File_read_at(*(MPI_File *)io->mpi, (MPI_Offset)at, buf, (int)n, MPI_BYTE, &status);
    return transferred(rc, &status, n);
}

static int mpi_write(const struct pl_io *io, uint64_t at, const void *buf, size_t n)
{
    MPI_Status status;
    const int rc =
        MPI_File_write_at(*(MPI_File *)io->mpi, (MPI_Offset)at, buf, (int)n, MPI_BYTE, &status);
    return transferred(rc, &status, n);
}

bool pl_io_mpi(struct pl_io *io, hid_t file)
{
    static const struct pl_io_ops ops = {mpi_read, mpi_write};
    void *handle = NULL;
    if (H5Fget_vfd_handle(file, H5P_DEFAULT, &handle) < 0 || !handle)
        return false;
    *io = (struct pl_io){.ops = &ops, .fd = -1, .mpi = handle};
    return true;
}
