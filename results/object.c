/* Finding datasets in a file that may come from anywhere. */
#include "results/h5.h"

#include <inttypes.h>
#include <string.h>

void pl_h5_found_release(struct pl_h5_found *f)
{
    pl_h5_close_type(f->type);
    f->type = H5I_INVALID_HID;
}

bool pl_h5_exists(const struct pl_h5_source *s, const char *name)
{
    char group[64];
    const char *slash = strchr(name, '/');
    if (slash) {
        const size_t n = (size_t)(slash - name);
        if (n >= sizeof group)
            return false;
        memcpy(group, name, n);
        group[n] = '\0';
        if (H5Lexists(s->file, group, H5P_DEFAULT) <= 0)
            goto absent;
    }
    if (H5Lexists(s->file, name, H5P_DEFAULT) > 0)
        return true;
absent:
    H5Eclear2(H5E_DEFAULT);
    return false;
}

static enum pl_status take_place(const struct pl_h5_source *s, hid_t d, const char *name,
                                 struct pl_h5_found *f, struct pl_err *err)
{
    hid_t space = H5Dget_space(d), dcpl = H5Dget_create_plist(d);
    enum pl_status st = PL_OK;
    f->type = H5Dget_type(d);
    f->rank = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    if (f->type < 0 || dcpl < 0 || f->rank < 0 || H5Sget_simple_extent_type(space) == H5S_NULL ||
        H5Sget_simple_extent_dims(space, f->dims, NULL) != f->rank) {
        st = pl_h5_fail(err, PL_EFORMAT, "%s: /%s: unreadable type or shape", s->path, name);
        goto out;
    }
    if (H5Pget_layout(dcpl) != H5D_CONTIGUOUS || H5Pget_external_count(dcpl) != 0) {
        st = pl_fail(err, PL_EFORMAT,
                     "%s: /%s is not contiguous: rewritten by another tool, or not our file",
                     s->path, name);
        goto out;
    }
    f->bytes = H5Tget_size(f->type);
    bool over = f->bytes == 0;
    for (int i = 0; i < f->rank; i++)
        over |= __builtin_mul_overflow(f->bytes, (uint64_t)f->dims[i], &f->bytes);
    const haddr_t at = H5Dget_offset(d);
    if (over || at == HADDR_UNDEF || at > s->file_bytes || f->bytes > s->file_bytes - at)
        st = pl_fail(err, PL_EFORMAT, "%s: /%s lies outside the file of %" PRIu64 " bytes", s->path,
                     name, s->file_bytes);
    f->at = at;
out:
    H5Eclear2(H5E_DEFAULT);
    pl_h5_close_space(space);
    pl_h5_close_plist(dcpl);
    if (st != PL_OK)
        pl_h5_found_release(f);
    return st;
}

enum pl_status pl_h5_find(const struct pl_h5_source *s, const char *name, struct pl_h5_found *f,
                          struct pl_err *err)
{
    *f = (struct pl_h5_found){.type = H5I_INVALID_HID};
    if (!pl_h5_exists(s, name)) {
        H5Eclear2(H5E_DEFAULT);
        return pl_fail(err, PL_EFORMAT, "%s: dataset /%s is missing", s->path, name);
    }
    hid_t d = H5Dopen2(s->file, name, H5P_DEFAULT);
    if (d < 0)
        return pl_h5_fail(err, PL_EFORMAT, "%s: dataset /%s", s->path, name);
    const enum pl_status st = take_place(s, d, name, f, err);
    H5Dclose(d);
    return st;
}

static enum pl_status wrong_type(const struct pl_h5_source *s, const char *name, const char *want,
                                 struct pl_err *err)
{
    H5Eclear2(H5E_DEFAULT);
    return pl_fail(err, PL_EFORMAT, "%s: /%s has a wrong type, expected %s", s->path, name, want);
}

enum pl_status pl_h5_find_typed(const struct pl_h5_source *s, const char *name, hid_t type,
                                int rank, struct pl_h5_found *f, struct pl_err *err)
{
    enum pl_status st = pl_h5_find(s, name, f, err);
    if (st == PL_OK && (type < 0 || H5Tequal(f->type, type) <= 0))
        st = wrong_type(s, name, "the one in docs/RESULTS_FILE.md", err);
    if (st == PL_OK && f->rank != rank)
        st = pl_fail(err, PL_EFORMAT, "%s: /%s has %d dimensions, expected %d", s->path, name,
                     f->rank, rank);
    pl_h5_close_type(type);
    pl_h5_found_release(f);
    return st;
}

enum pl_status pl_h5_find_strings(const struct pl_h5_source *s, const char *name, int rank,
                                  struct pl_h5_found *f, size_t *len, struct pl_err *err)
{
    enum pl_status st = pl_h5_find(s, name, f, err);
    if (st != PL_OK)
        return st;
    const bool ok = H5Tget_class(f->type) == H5T_STRING && H5Tis_variable_str(f->type) == 0;
    *len = H5Tget_size(f->type);
    pl_h5_found_release(f);
    if (!ok || *len == 0)
        return wrong_type(s, name, "strings of a fixed length", err);
    if (f->rank != rank)
        return pl_fail(err, PL_EFORMAT, "%s: /%s has %d dimensions, expected %d", s->path, name,
                       f->rank, rank);
    return PL_OK;
}
