/* Rows and log records. One file dataspace and one memory dataspace a dataset, made once: a row is
 * a moved hyperslab and a write of bytes that need no conversion. */
#include "results/writer.h"

#include "results/h5.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct slab {
    hid_t dset, type, mem, disk;
    int rank;
    hsize_t start[PL_H5_RANK_MAX], count[PL_H5_RANK_MAX];
};

struct pl_writer {
    char *path;
    struct pl_shape shape;
    uint64_t rows;
    struct pl_layout layout;
    hid_t file;
    int fd; /* for fdatasync and fstatvfs */
    struct slab commit, cells[PL_CELLS], logs[PL_LOG_KINDS], overflow;
    hsize_t log_capacity[PL_LOG_KINDS];
};

/* ---- opening ---- */

static void slab_release(struct slab *s)
{
    pl_h5_close_space(s->mem);
    pl_h5_close_space(s->disk);
    pl_h5_close_dset(s->dset);
    pl_h5_close_type(s->type);
    *s = (struct slab){0};
}

/* Takes over spec->type. `whole`: dims of the dataset that are one cell (the last rank − rows
 * ones). */
static enum pl_status slab_open(struct pl_writer *w, struct slab *s,
                                const struct pl_dset_spec *spec, int row_dims, struct pl_err *err)
{
    s->type = spec->type;
    s->rank = spec->rank;
    s->dset = H5Dopen2(w->file, spec->name, H5P_DEFAULT);
    if (s->dset < 0)
        return pl_h5_fail(err, PL_EFORMAT, "%s: /%s", w->path, spec->name);
    hid_t type = H5Dget_type(s->dset);
    const bool same_type = type >= 0 && s->type >= 0 && H5Tequal(type, s->type) > 0;
    pl_h5_close_type(type);
    if (!same_type)
        return pl_fail(err, PL_EFORMAT, "%s: /%s has another type than this version writes",
                       w->path, spec->name);
    hsize_t dims[H5S_MAX_RANK];
    s->disk = H5Dget_space(s->dset);
    const int rank = s->disk < 0 ? -1 : H5Sget_simple_extent_ndims(s->disk);
    if (rank != spec->rank || H5Sget_simple_extent_dims(s->disk, dims, NULL) != rank ||
        memcmp(dims, spec->dims, (size_t)rank * sizeof dims[0]) != 0)
        return pl_fail(err, PL_EFORMAT, "%s: /%s has another shape than this sweep", w->path,
                       spec->name);
    for (int i = 0; i < rank; i++) {
        s->start[i] = 0;
        s->count[i] = i < row_dims ? 1 : dims[i];
    }
    /* the same rank on both sides: HDF5 then builds no projection of one space onto the other */
    s->mem = H5Screate_simple(rank, s->count, NULL);
    if (s->mem < 0)
        return pl_h5_fail(err, PL_ENOMEM, "%s: /%s", w->path, spec->name);
    return PL_OK;
}

static enum pl_status open_logs(struct pl_writer *w, struct pl_err *err)
{
    for (int k = 0; k < PL_LOG_KINDS; k++) {
        struct pl_dset_spec spec = {.name = pl_log_name((enum pl_log_kind)k),
                                    .type = pl_h5_log_type((enum pl_log_kind)k),
                                    .rank = 1};
        hid_t d = H5Dopen2(w->file, spec.name, H5P_DEFAULT), space = d < 0 ? d : H5Dget_space(d);
        if (space >= 0 && H5Sget_simple_extent_ndims(space) == 1)
            H5Sget_simple_extent_dims(space, spec.dims, NULL);
        pl_h5_close_space(space);
        pl_h5_close_dset(d);
        w->log_capacity[k] = spec.dims[0];
        const enum pl_status st = slab_open(w, &w->logs[k], &spec, 1, err);
        if (st != PL_OK)
            return st;
    }
    const struct pl_dset_spec overflow = {
        .name = "log_overflow", .type = H5Tcopy(H5T_STD_U64LE), .rank = 1, .dims = {PL_LOG_KINDS}};
    return slab_open(w, &w->overflow, &overflow, 1, err);
}

static enum pl_status open_all(struct pl_writer *w, struct pl_err *err)
{
    enum pl_status st;
    struct pl_dset_spec spec;
    hid_t fapl = pl_h5_fapl();
    if (fapl >= 0 && pl_h5_fapl_mpi(fapl) == 0)
        w->file = H5Fopen(w->path, H5F_ACC_RDWR, fapl);
    pl_h5_close_plist(fapl);
    if (w->file <= 0)
        return pl_h5_fail(err, PL_EFORMAT, "%s: opening", w->path);
    pl_h5_commit_spec(&w->shape, &spec);
    st = slab_open(w, &w->commit, &spec, 4, err);
    for (int c = 0; st == PL_OK && c < PL_CELLS; c++)
        if (pl_h5_cell_spec(&w->shape, (enum pl_cell)c, &spec))
            st = slab_open(w, &w->cells[c], &spec, 4, err);
    return st == PL_OK ? open_logs(w, err) : st;
}

enum pl_status pl_writer_open(const char *path, const struct pl_shape *shape,
                              struct pl_writer **out, struct pl_err *err)
{
    enum pl_status st = pl_shape_check(shape, err);
    if (st != PL_OK)
        return st;
    struct pl_writer *w = calloc(1, sizeof *w);
    if (!w)
        return pl_fail(err, PL_ENOMEM, "%s", path);
    w->shape = *shape;
    w->rows = pl_shape_rows(shape);
    pl_layout_of(shape, &w->layout);
    w->fd = -1;
    w->path = strdup(path);
    if (!w->path) {
        st = pl_fail(err, PL_ENOMEM, "%s", path);
        goto bad;
    }
    w->fd = open(path, O_RDWR | O_CLOEXEC);
    if (w->fd < 0) {
        st = pl_fail_errno(err, errno, "%s", path);
        goto bad;
    }
    pl_h5_begin();
    st = open_all(w, err);
    if (st != PL_OK)
        goto bad;
    *out = w;
    return PL_OK;
bad:
    pl_writer_free(w);
    return st;
}

void pl_writer_free(struct pl_writer *w)
{
    if (!w)
        return;
    slab_release(&w->commit);
    slab_release(&w->overflow);
    for (int c = 0; c < PL_CELLS; c++)
        slab_release(&w->cells[c]);
    for (int k = 0; k < PL_LOG_KINDS; k++)
        slab_release(&w->logs[k]);
    pl_h5_close_file(w->file);
    if (w->fd >= 0)
        close(w->fd);
    free(w->path);
    free(w);
}

/* ---- writing ---- */

/* MPI-IO hides errno: a full file system is told by asking it. */
static enum pl_status write_failed(struct pl_writer *w, const char *name, struct pl_err *err)
{
    struct statvfs fs;
    struct pl_err inner = {.text = ""};
    const enum pl_status st = pl_h5_fail(&inner, PL_EIO, "%s: writing /%s", w->path, name);
    if (!strcasestr(inner.text, "no space left") && fstatvfs(w->fd, &fs) == 0 && fs.f_blocks &&
        (uint64_t)fs.f_bavail * fs.f_frsize < w->layout.bytes + 4096)
        return pl_fail(err, PL_EIO, "%s: no space left on device", inner.text);
    return pl_fail(err, st, "%s", inner.text);
}

static bool slab_write(struct slab *s, const void *data)
{
    return H5Sselect_hyperslab(s->disk, H5S_SELECT_SET, s->start, NULL, s->count, NULL) >= 0 &&
           H5Dwrite(s->dset, s->type, s->mem, s->disk, H5P_DEFAULT, data) >= 0;
}

static void slab_row(struct slab *s, const struct pl_row_id *id)
{
    s->start[0] = id->arm;
    s->start[1] = id->context;
    s->start[2] = id->sample;
    s->start[3] = id->repeat;
}

/* Leaves the marker's slab selected on the row. */
static enum pl_status empty_marker(struct pl_writer *w, struct pl_err *err)
{
    static const struct pl_commit zero;
    struct pl_commit old;
    struct slab *s = &w->commit;
    if (H5Sselect_hyperslab(s->disk, H5S_SELECT_SET, s->start, NULL, s->count, NULL) < 0 ||
        H5Dread(s->dset, s->type, s->mem, s->disk, H5P_DEFAULT, &old) < 0)
        return pl_h5_fail(err, PL_EIO, "%s: reading /commit", w->path);
    if (memcmp(&old, &zero, sizeof old) != 0 && !slab_write(s, &zero))
        return write_failed(w, "commit", err);
    return PL_OK;
}

enum pl_status pl_writer_row(struct pl_writer *w, uint64_t index, const struct pl_row *row,
                             enum pl_row_state state, uint8_t attempt, uint16_t session,
                             struct pl_err *err)
{
    if (index >= w->rows)
        return pl_fail(err, PL_ERANGE, "%s: row %" PRIu64 " of %" PRIu64, w->path, index, w->rows);
    if (row->n_bytes != w->layout.bytes || (state != PL_ROW_DONE && state != PL_ROW_FAILED))
        return pl_fail(err, PL_ERANGE,
                       "%s: a row of %zu bytes and state %d, expected %zu and 1 or 2", w->path,
                       row->n_bytes, (int)state, w->layout.bytes);
    const struct pl_row_id id = pl_row_at(&w->shape, index);
    const struct pl_commit mark = {.state = (uint8_t)state,
                                   .attempt = attempt,
                                   .session = session,
                                   .crc = pl_row_crc(index, row)};
    slab_row(&w->commit, &id);
    const enum pl_status st = empty_marker(w, err);
    if (st != PL_OK)
        return st;
    const unsigned char *bytes = row->bytes;
    for (int c = 0; c < PL_CELLS; c++) {
        if (!w->layout.size[c])
            continue;
        slab_row(&w->cells[c], &id);
        if (!slab_write(&w->cells[c], bytes + w->layout.offset[c]))
            return write_failed(w, pl_cell_name((enum pl_cell)c), err);
    }
    return slab_write(&w->commit, &mark) ? PL_OK : write_failed(w, "commit", err);
}

enum pl_status pl_writer_log(struct pl_writer *w, enum pl_log_kind kind, uint32_t slot,
                             const void *record, struct pl_err *err)
{
    unsigned char twice[sizeof(struct pl_log_session) + sizeof(struct pl_log_failure)];
    if ((unsigned)kind >= PL_LOG_KINDS || slot >= w->log_capacity[kind])
        return pl_fail(err, PL_ERANGE, "%s: /%s: slot %u of %" PRIu64, w->path, pl_log_name(kind),
                       slot, (unsigned)kind < PL_LOG_KINDS ? (uint64_t)w->log_capacity[kind] : 0);
    /* `used` is the first byte: the record goes in unused, then once more used, so a write that a
     * kill cuts off shows nothing or the whole */
    memcpy(twice, record, pl_log_size(kind));
    w->logs[kind].start[0] = slot;
    for (uint8_t used = 0; used <= 1; used++) {
        twice[0] = used;
        if (!slab_write(&w->logs[kind], twice))
            return write_failed(w, pl_log_name(kind), err);
    }
    return PL_OK;
}

enum pl_status pl_writer_overflow(struct pl_writer *w, enum pl_log_kind kind, uint64_t count,
                                  struct pl_err *err)
{
    if ((unsigned)kind >= PL_LOG_KINDS)
        return pl_fail(err, PL_ERANGE, "%s: no log %d", w->path, (int)kind);
    w->overflow.start[0] = kind;
    return slab_write(&w->overflow, &count) ? PL_OK : write_failed(w, "log_overflow", err);
}

enum pl_status pl_writer_sync(struct pl_writer *w, struct pl_err *err)
{
    return fdatasync(w->fd) == 0 ? PL_OK
                                 : pl_fail_errno(err, errno, "%s: writing to the disk", w->path);
}
