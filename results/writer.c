/*
 * Rows and log records. HDF5 opens the file and says where each dataset lies; the bytes then go
 * there through its driver's own handle. H5Dwrite would do the same write, but first compares the
 * compound's 39 member names with a bubble sort: 14 of 27 us a row.
 */
#include "results/writer.h"

#include "results/io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct pl_writer {
    char *path;
    struct pl_places p;
    int fd;     /* for POSIX writes, fdatasync and fstatvfs */
    hid_t file; /* open only while its driver's handle is used */
    struct pl_io io;
};

/* ---- opening ---- */

static enum pl_status open_file(struct pl_writer *w, struct pl_err *err)
{
    struct stat sb;
    bool mpi = false;
    w->fd = open(w->path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (w->fd < 0 || fstat(w->fd, &sb) != 0)
        return pl_fail_errno(err, errno, "%s", w->path);
    if (!S_ISREG(sb.st_mode))
        return pl_fail(err, PL_EFORMAT, "%s: not a regular file", w->path);
    pl_h5_begin();
    hid_t fapl = pl_h5_fapl();
    if (fapl >= 0 && pl_io_fapl(fapl, &mpi) == 0)
        w->file = H5Fopen(w->path, mpi ? H5F_ACC_RDWR : H5F_ACC_RDONLY, fapl);
    enum pl_status st = w->file > 0 ? PL_OK : pl_h5_fail(err, PL_EFORMAT, "%s: opening", w->path);
    pl_h5_close_plist(fapl);
    if (st != PL_OK)
        return st;
    const struct pl_h5_source src = {
        .path = w->path, .file = w->file, .file_bytes = (uint64_t)sb.st_size};
    st = pl_places_read(&src, &w->p, err);
    if (st != PL_OK)
        return st;
    if (mpi)
        return pl_io_mpi(&w->io, w->file)
                   ? PL_OK
                   : pl_h5_fail(err, PL_EIO, "%s: no MPI file handle", w->path);
    pl_io_posix(&w->io, w->fd);
    H5Fclose(w->file);
    w->file = H5I_INVALID_HID;
    return PL_OK;
}

static enum pl_status check_shape(const struct pl_writer *w, const struct pl_shape *want,
                                  struct pl_err *err)
{
    const struct pl_shape *is = &w->p.shape;
    const struct {
        const char *name;
        uint32_t is, want;
    } dims[] = {{"arms", is->arms, want->arms},          {"contexts", is->contexts, want->contexts},
                {"samples", is->samples, want->samples}, {"repeats", is->repeats, want->repeats},
                {"batch", is->batch, want->batch},       {"tokens", is->tokens, want->tokens},
                {"models", is->models, want->models},    {"layers", is->layers, want->layers},
                {"rounds", is->rounds, want->rounds},    {"metrics", is->metrics, want->metrics}};
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++)
        if (dims[i].is != dims[i].want)
            return pl_fail(err, PL_EFORMAT, "%s: made for %s = %u, this sweep has %u", w->path,
                           dims[i].name, dims[i].is, dims[i].want);
    return PL_OK;
}

enum pl_status pl_writer_open(const char *path, const struct pl_shape *shape,
                              struct pl_writer **out, struct pl_err *err)
{
    struct pl_writer *w = calloc(1, sizeof *w);
    if (!w)
        return pl_fail(err, PL_ENOMEM, "%s", path);
    w->fd = -1;
    w->path = strdup(path);
    enum pl_status st = w->path ? open_file(w, err) : pl_fail(err, PL_ENOMEM, "%s", path);
    if (st == PL_OK)
        st = check_shape(w, shape, err);
    if (st == PL_OK)
        *out = w;
    else
        pl_writer_free(w);
    return st;
}

void pl_writer_free(struct pl_writer *w)
{
    if (!w)
        return;
    pl_h5_close_file(w->file);
    if (w->fd >= 0)
        close(w->fd);
    free(w->path);
    free(w);
}

/* ---- writing ---- */

/* MPI-IO often says no more than "input/output error": a full file system is told by asking it. */
static enum pl_status io_failed(const struct pl_writer *w, int e, const char *what,
                                struct pl_err *err)
{
    struct statvfs fs;
    if (w->io.mpi && e == EIO && fstatvfs(w->fd, &fs) == 0 && fs.f_blocks &&
        (uint64_t)fs.f_bavail * fs.f_frsize < w->p.layout.bytes + 2 * fs.f_frsize)
        e = ENOSPC;
    return pl_fail_errno(err, e, "%s: /%s", w->path, what);
}

static enum pl_status put(const struct pl_writer *w, const char *what, uint64_t at, const void *buf,
                          size_t n, struct pl_err *err)
{
    const int e = w->io.ops->write_at(&w->io, at, buf, n);
    return e ? io_failed(w, e, what, err) : PL_OK;
}

static enum pl_status empty_marker(const struct pl_writer *w, uint64_t at, struct pl_err *err)
{
    static const struct pl_commit zero;
    struct pl_commit old;
    const int e = w->io.ops->read_at(&w->io, at, &old, sizeof old);
    if (e)
        return io_failed(w, e, "commit", err);
    if (memcmp(&old, &zero, sizeof old) == 0)
        return PL_OK;
    return put(w, "commit", at, &zero, sizeof zero, err);
}

enum pl_status pl_writer_row(struct pl_writer *w, uint64_t index, const struct pl_row *row,
                             enum pl_row_state state, uint8_t attempt, uint16_t session,
                             struct pl_err *err)
{
    const struct pl_layout *l = &w->p.layout;
    if (index >= w->p.rows)
        return pl_fail(err, PL_ERANGE, "%s: row %" PRIu64 " of %" PRIu64, w->path, index,
                       w->p.rows);
    if (row->n_bytes != l->bytes || (state != PL_ROW_DONE && state != PL_ROW_FAILED))
        return pl_fail(err, PL_ERANGE, "%s: a row of %zu bytes, state %d; expected %zu, 1 or 2",
                       w->path, row->n_bytes, (int)state, l->bytes);
    const uint64_t commit_at = w->p.commit_at + index * sizeof(struct pl_commit);
    enum pl_status st = empty_marker(w, commit_at, err);
    const unsigned char *bytes = row->bytes;
    for (int c = 0; st == PL_OK && c < PL_CELLS; c++)
        if (l->size[c])
            st = put(w, pl_cell_name((enum pl_cell)c), w->p.cell_at[c] + index * l->size[c],
                     bytes + l->offset[c], l->size[c], err);
    if (st == PL_OK && w->p.work_at)
        st = put(w, "work", w->p.work_at + index * sizeof row->work, &row->work, sizeof row->work,
                 err);
    if (st != PL_OK)
        return st;
    const struct pl_commit mark = {.state = (uint8_t)state,
                                   .attempt = attempt,
                                   .session = session,
                                   .crc = pl_row_crc(index, row)};
    return put(w, "commit", commit_at, &mark, sizeof mark, err);
}

enum pl_status pl_writer_spans(struct pl_writer *w, uint64_t index,
                               const struct pl_lane_span *spans, uint32_t n, struct pl_err *err)
{
    struct pl_lane_span all[PL_SPANS_MAX] = {{0}};
    const uint64_t at = index < w->p.rows ? pl_places_spans(&w->p, index) : 0;
    if (!at)
        return PL_OK;
    if (n)
        memcpy(all, spans, (n < PL_SPANS_MAX ? n : PL_SPANS_MAX) * sizeof *all);
    return put(w, "spans", at, all, sizeof all, err);
}

enum pl_status pl_writer_log(struct pl_writer *w, enum pl_log_kind kind, uint32_t slot,
                             const void *record, struct pl_err *err)
{
    static const uint8_t used = 1;
    unsigned char copy[sizeof(struct pl_log_session) + sizeof(struct pl_log_failure)];
    if ((unsigned)kind >= PL_LOG_KINDS || slot >= w->p.log_capacity[kind])
        return pl_fail(err, PL_ERANGE, "%s: /%s: slot %u of %u", w->path, pl_log_name(kind), slot,
                       (unsigned)kind < PL_LOG_KINDS ? w->p.log_capacity[kind] : 0);
    /* `used` is the first byte: it goes in after the rest, so what a kill cuts off is no record */
    const size_t n = pl_log_size(kind);
    const uint64_t at = w->p.log_at[kind] + slot * n;
    memcpy(copy, record, n);
    copy[0] = 0;
    const enum pl_status st = put(w, pl_log_name(kind), at, copy, n, err);
    return st == PL_OK ? put(w, pl_log_name(kind), at, &used, 1, err) : st;
}

enum pl_status pl_writer_overflow(struct pl_writer *w, enum pl_log_kind kind, uint64_t count,
                                  struct pl_err *err)
{
    if ((unsigned)kind >= PL_LOG_KINDS)
        return pl_fail(err, PL_ERANGE, "%s: no log %d", w->path, (int)kind);
    return put(w, "log_overflow", w->p.overflow_at + 8u * (unsigned)kind, &count, sizeof count,
               err);
}

enum pl_status pl_writer_sync(struct pl_writer *w, struct pl_err *err)
{
    return fdatasync(w->fd) == 0 ? PL_OK
                                 : pl_fail_errno(err, errno, "%s: writing to the disk", w->path);
}
