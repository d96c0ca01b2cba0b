#include "cli/runner/npy.h"

#include "base/buf.h"
#include "model/npy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "\x93NUMPY"

static enum pl_status write_through(const char *path, const char *data, size_t n,
                                    struct pl_err *err)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC), e = 0;

    if (fd < 0)
        return pl_fail_errno(err, errno, "%s", path);
    while (n > 0 && !e) {
        ssize_t put = write(fd, data, n);
        if (put < 0 && errno != EINTR)
            e = errno;
        else if (put > 0) {
            data += put;
            n -= (size_t)put;
        }
    }
    if (close(fd) != 0 && !e)
        e = errno;
    return e ? pl_fail_errno(err, e, "%s", path) : PL_OK;
}

enum pl_status pl_npy_write(const char *path, void *data, const size_t *dim, int dims,
                            struct pl_err *err)
{
    char *head = data, shape[96] = "";
    size_t total = sizeof(float), at = 0;
    struct stat sb;

    for (int i = 0; i < dims; i++) {
        total *= dim[i];
        at += (size_t)snprintf(shape + at, sizeof(shape) - at, "%s%zu", i ? ", " : "", dim[i]);
        if (at >= sizeof(shape))
            return pl_fail(err, PL_ERANGE, "%s: %d dimensions", path, dims);
    }
    total += PL_NPY_HEADER;

    memset(head, ' ', PL_NPY_HEADER);
    memcpy(head, MAGIC "\x01\x00\x76\x00", 10); /* version 1.0, 118 bytes of text */
    int n = snprintf(head + 10, PL_NPY_HEADER - 10,
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }", shape);
    if (n < 0 || n >= PL_NPY_HEADER - 10)
        return pl_fail(err, PL_ERANGE, "%s: shape (%s)", path, shape);
    head[10 + n] = ' ';
    head[PL_NPY_HEADER - 1] = '\n';
    if (stat(path, &sb) == 0 && !S_ISREG(sb.st_mode))
        return write_through(path, data, total, err);
    return pl_write_file_atomic(path, data, total, err);
}

enum pl_status pl_npy_read_ids(const char *path, int32_t **ids, size_t *n, struct pl_err *err)
{
    struct pl_buf b;
    struct pl_npy a;
    int64_t *wide = NULL;
    int32_t *out = NULL;
    size_t count = 0;
    enum pl_status st = pl_read_file(path, (size_t)PL_NPY_MAX_IDS * 8 + 65536, &b, err);

    if (st)
        return st;
    st = pl_npy_parse(path, b.data, b.len, &a, err);
    if (!st && (!strchr("iub", a.type.kind) || a.type.big))
        st = pl_fail(err, PL_EFORMAT, "%s: int32 or int64 is expected ('<i4' or '<i8')", path);
    if (!st && (a.dims < 1 || a.dims > 2 || (a.dims == 2 && a.dim[0] != 1)))
        st = pl_fail(err, PL_EFORMAT, "%s: a list of ids is expected, shape (n,) or (1, n)", path);
    count = st ? 0 : a.count;
    if (count > PL_NPY_MAX_IDS)
        st = pl_fail(err, PL_ERANGE, "%s: %zu ids, at most %u", path, count, PL_NPY_MAX_IDS);
    if (!st) {
        wide = malloc((count ? count : 1) * sizeof(*wide));
        out = malloc((count ? count : 1) * sizeof(*out));
        if (!wide || !out)
            st = pl_fail(err, PL_ENOMEM, "%s: no memory", path);
    }
    if (!st) {
        const struct pl_column c = {.data = a.data, .n = count, .stride = a.type.item, a.type};
        st = pl_column_ints(&c, path, "id", false, wide, err);
    }
    for (size_t i = 0; !st && i < count; i++) {
        out[i] = (int32_t)wide[i];
        if (out[i] != wide[i])
            st = pl_fail(err, PL_ERANGE, "%s: id %lld", path, (long long)wide[i]);
    }
    free(wide);
    pl_buf_release(&b);
    if (st) {
        free(out);
        return st;
    }
    *ids = out;
    *n = count;
    return PL_OK;
}
