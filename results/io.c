#include "results/io.h"

#include <errno.h>
#include <unistd.h>

#ifndef PL_PARALLEL_HDF5
int pl_io_fapl(hid_t fapl, bool *mpi)
{
    (void)fapl;
    *mpi = false;
    return 0;
}

bool pl_io_mpi(struct pl_io *io, hid_t file)
{
    (void)io;
    (void)file;
    return false;
}
#endif

static int posix_read(const struct pl_io *io, uint64_t at, void *buf, size_t n)
{
    unsigned char *p = buf;
    while (n) {
        const ssize_t k = pread(io->fd, p, n, (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return k < 0 ? errno : EIO;
        p += k;
        at += (uint64_t)k;
        n -= (size_t)k;
    }
    return 0;
}

static int posix_write(const struct pl_io *io, uint64_t at, const void *buf, size_t n)
{
    const unsigned char *p = buf;
    while (n) {
        const ssize_t k = pwrite(io->fd, p, n, (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return k < 0 ? errno : ENOSPC;
        p += k;
        at += (uint64_t)k;
        n -= (size_t)k;
    }
    return 0;
}

void pl_io_posix(struct pl_io *io, int fd)
{
    static const struct pl_io_ops ops = {posix_read, posix_write};
    *io = (struct pl_io){.ops = &ops, .fd = fd};
}
