/* Making a results file whole: beside its final name, flushed, then given the name. */
#include "results/h5.h"
#include "results/writer.h"

#include "base/buf.h"
#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define NAME_MAX_BYTES 4096u          /* an axis label */
#define TEXT_MAX_BYTES (64u << 20)    /* a document */
#define ATTRIBUTE_MAX_BYTES 4096u     /* longer provenance strings stand in the JSON only */
#define LOG_CAPACITY_MAX (16u << 20)  /* slots */
#define STRING_CHUNK_BYTES (1u << 20) /* of labels written at once */

struct maker {
    const char *path; /* the final name, for messages */
    hid_t file;
    hid_t bulk;        /* dataset creation: contiguous, allocated at once, never filled */
    uint64_t bytes;    /* of all datasets so far */
    enum pl_status st; /* of the first failure in HDF5 */
    struct pl_err *err;
};

/* The first failure's text stays: the calls that clean up after it empty HDF5's error stack. */
static enum pl_status fail(struct maker *m, const char *what)
{
    if (m->st == PL_OK)
        m->st = pl_h5_fail(m->err, PL_EIO, "%s: creating %s", m->path, what);
    return m->st;
}

static hid_t make_dset(struct maker *m, const char *name, hid_t type, int rank, const hsize_t *dims,
                       hid_t dcpl)
{
    hid_t space = rank ? H5Screate_simple(rank, dims, NULL) : H5Screate(H5S_SCALAR);
    hid_t d =
        space < 0 ? space : H5Dcreate2(m->file, name, type, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    if (d >= 0) {
        hsize_t n = H5Tget_size(type);
        for (int i = 0; i < rank; i++)
            n *= dims[i];
        m->bytes += n;
    } else {
        (void)fail(m, name);
    }
    pl_h5_close_space(space);
    return d;
}

/* ---- strings ---- */

struct labels {
    const char *const *list;
    const struct pl_results_spec *spec; /* list == NULL: its sample_id */
    hsize_t n;
    size_t len; /* of the longest */
};

static enum pl_status measure(struct maker *m, const char *what, struct labels *l)
{
    l->len = 1;
    for (hsize_t i = 0; l->list && i < l->n; i++) {
        const size_t n = l->list[i] ? strlen(l->list[i]) : 0;
        if (n > l->len)
            l->len = n;
    }
    if (!l->list)
        l->len = l->spec->sample_id_len ? l->spec->sample_id_len : 1;
    const size_t most = strcmp(what, "axes/arm_json") ? NAME_MAX_BYTES : TEXT_MAX_BYTES;
    if (l->len > most || l->len * l->n > UINT64_C(1) << 32)
        return pl_fail(m->err, PL_ERANGE, "%s: %s has strings of %zu bytes, expected at most %zu",
                       m->path, what, l->len, most);
    return PL_OK;
}

static void put_label(const struct labels *l, hsize_t i, char *tmp, char *out)
{
    memset(out, 0, l->len);
    if (l->list) {
        if (l->list[i])
            memcpy(out, l->list[i], strlen(l->list[i]));
        return;
    }
    tmp[0] = '\0';
    l->spec->sample_id(l->spec->sample_ctx, (uint32_t)i, tmp, l->len + 1);
    memcpy(out, tmp, strnlen(tmp, l->len));
}

static enum pl_status write_labels(struct maker *m, const char *name, struct labels *l)
{
    enum pl_status st = measure(m, name, l);
    if (st != PL_OK)
        return st;
    const hsize_t step = l->len < STRING_CHUNK_BYTES ? STRING_CHUNK_BYTES / l->len : 1;
    hid_t type = pl_h5_string(l->len), d = H5I_INVALID_HID, mem = H5I_INVALID_HID,
          disk = H5I_INVALID_HID;
    char *buf = malloc((l->n < step ? l->n : step) * l->len), *tmp = malloc(l->len + 1);
    if (!buf || !tmp) {
        st = pl_fail(m->err, PL_ENOMEM, "%s: %s", m->path, name);
        goto out;
    }
    st = PL_EIO;
    d = make_dset(m, name, type, 1, &l->n, m->bulk);
    if (d < 0 || (disk = H5Dget_space(d)) < 0)
        goto out;
    for (hsize_t at = 0; at < l->n; at += step) {
        const hsize_t k = l->n - at < step ? l->n - at : step;
        for (hsize_t i = 0; i < k; i++)
            put_label(l, at + i, tmp, buf + i * l->len);
        pl_h5_close_space(mem);
        mem = H5Screate_simple(1, &k, NULL);
        if (mem < 0 || H5Sselect_hyperslab(disk, H5S_SELECT_SET, &at, NULL, &k, NULL) < 0 ||
            H5Dwrite(d, type, mem, disk, H5P_DEFAULT, buf) < 0)
            goto out;
    }
    st = PL_OK;
out:
    if (st == PL_EIO)
        st = fail(m, name);
    free(buf);
    free(tmp);
    pl_h5_close_space(mem);
    pl_h5_close_space(disk);
    pl_h5_close_dset(d);
    pl_h5_close_type(type);
    return st;
}

static enum pl_status write_text(struct maker *m, const char *name, const char *text)
{
    const size_t n = strlen(text);
    if (n > TEXT_MAX_BYTES)
        return pl_fail(m->err, PL_ERANGE, "%s: %s has %zu bytes, expected at most %u", m->path,
                       name, n, TEXT_MAX_BYTES);
    hid_t type = pl_h5_string(n), d = make_dset(m, name, type, 0, NULL, m->bulk);
    const bool ok = d >= 0 && H5Dwrite(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text) >= 0;
    const enum pl_status st = ok ? PL_OK : fail(m, name);
    pl_h5_close_dset(d);
    pl_h5_close_type(type);
    return st;
}

static enum pl_status write_attribute(struct maker *m, hid_t on, const char *name, hid_t type,
                                      const void *value)
{
    hid_t space = H5Screate(H5S_SCALAR), a = H5I_INVALID_HID;
    if (space >= 0)
        a = H5Acreate2(on, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    const bool ok = a >= 0 && H5Awrite(a, type, value) >= 0;
    const enum pl_status st = ok ? PL_OK : fail(m, name);
    if (a >= 0)
        H5Aclose(a);
    pl_h5_close_space(space);
    return st;
}

static enum pl_status write_string_attribute(struct maker *m, hid_t on, const char *name,
                                             const char *value)
{
    const size_t n = strlen(value);
    if (n > ATTRIBUTE_MAX_BYTES)
        return PL_OK;
    hid_t type = pl_h5_string(n);
    const enum pl_status st = write_attribute(m, on, name, type, value);
    pl_h5_close_type(type);
    return st;
}

/* ---- the parts ---- */

static enum pl_status make_bulk(struct maker *m, const struct pl_dset_spec *spec)
{
    hid_t d = make_dset(m, spec->name, spec->type, spec->rank, spec->dims, m->bulk);
    pl_h5_close_type(spec->type);
    if (d < 0)
        return fail(m, spec->name);
    H5Dclose(d);
    return PL_OK;
}

static enum pl_status make_rows(struct maker *m, const struct pl_shape *shape)
{
    struct pl_dset_spec spec;
    enum pl_status st = PL_OK;
    for (int c = 0; st == PL_OK && c < PL_CELLS; c++)
        if (pl_h5_cell_spec(shape, (enum pl_cell)c, &spec))
            st = make_bulk(m, &spec);
    if (st == PL_OK) {
        pl_h5_work_spec(shape, &spec);
        st = make_bulk(m, &spec);
    }
    if (st == PL_OK && pl_h5_spans_spec(shape, &spec))
        st = make_bulk(m, &spec);
    return st;
}

/* The markers are zeros on the disk, not a hole: setting one back to 0 must not need new space. */
static enum pl_status make_commit(struct maker *m, const struct pl_shape *shape)
{
    static const struct pl_commit zero;
    struct pl_dset_spec spec;
    hid_t d = H5I_INVALID_HID, dcpl = H5Pcopy(m->bulk);
    pl_h5_commit_spec(shape, &spec);
    if (dcpl >= 0 && H5Pset_fill_time(dcpl, H5D_FILL_TIME_ALLOC) >= 0 &&
        H5Pset_fill_value(dcpl, spec.type, &zero) >= 0)
        d = make_dset(m, spec.name, spec.type, spec.rank, spec.dims, dcpl);
    const enum pl_status st = d >= 0 ? PL_OK : fail(m, spec.name);
    pl_h5_close_dset(d);
    pl_h5_close_plist(dcpl);
    pl_h5_close_type(spec.type);
    return st;
}

/* Never filled either: nothing in a new file is ever freed, so unwritten space reads as zeros
 * (`used` = 0). */
static enum pl_status make_logs(struct maker *m, const struct pl_results_spec *s)
{
    for (int k = 0; k < PL_LOG_KINDS; k++) {
        const char *name = pl_log_name((enum pl_log_kind)k);
        const hsize_t n = s->log_capacity[k];
        if (n == 0 || n > LOG_CAPACITY_MAX)
            return pl_fail(m->err, PL_ERANGE, "%s: /%s of %" PRIu64 " slots, expected 1 to %u",
                           m->path, name, (uint64_t)n, LOG_CAPACITY_MAX);
        hid_t type = pl_h5_log_type((enum pl_log_kind)k);
        hid_t d = make_dset(m, name, type, 1, &n, m->bulk);
        pl_h5_close_type(type);
        if (d < 0)
            return fail(m, name);
        H5Dclose(d);
    }
    static const uint64_t zeros[PL_LOG_KINDS];
    const hsize_t kinds = PL_LOG_KINDS;
    hid_t d = make_dset(m, "log_overflow", H5T_STD_U64LE, 1, &kinds, m->bulk);
    const bool ok = d >= 0 && H5Dwrite(d, H5T_STD_U64LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros) >= 0;
    const enum pl_status st = ok ? PL_OK : fail(m, "log_overflow");
    pl_h5_close_dset(d);
    return st;
}

static enum pl_status make_axes(struct maker *m, const struct pl_results_spec *s)
{
    const char *reasons[PL_REASON_COUNT];
    for (int i = 0; i < PL_REASON_COUNT; i++)
        reasons[i] = pl_reason_name((enum pl_reason)i);
    struct {
        const char *name;
        struct labels l;
    } axes[] = {
        {"axes/arm", {.list = s->arm_names, .n = s->shape.arms}},
        {"axes/arm_json", {.list = s->arm_json, .n = s->shape.arms}},
        {"axes/sample", {.list = s->sample_ids, .spec = s, .n = s->shape.samples}},
        {"axes/reason", {.list = reasons, .n = PL_REASON_COUNT}},
        {"axes/metric", {.list = s->metric_names, .n = s->shape.metrics}},
    };
    hid_t group = H5Gcreate2(m->file, "axes", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (group < 0)
        return fail(m, "axes");
    H5Gclose(group);
    for (size_t i = 0; i < sizeof axes / sizeof axes[0]; i++) {
        if (!axes[i].l.n)
            continue;
        const enum pl_status st = write_labels(m, axes[i].name, &axes[i].l);
        if (st != PL_OK)
            return st;
    }
    const hsize_t n = s->shape.contexts;
    hid_t d = make_dset(m, "axes/context", H5T_STD_I64LE, 1, &n, m->bulk);
    const bool ok =
        d >= 0 && H5Dwrite(d, H5T_STD_I64LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, s->contexts) >= 0;
    const enum pl_status st = ok ? PL_OK : fail(m, "axes/context");
    pl_h5_close_dset(d);
    return st;
}

static bool reserved_attribute(const char *name)
{
    return !strcmp(name, "format") || !strcmp(name, "format_version") || !strcmp(name, "sha256");
}

static enum pl_status provenance_attributes(struct maker *m, hid_t group, const json_t *provenance)
{
    const char *key;
    json_t *v;
    /* jansson's iteration takes no const; nothing is changed */
    json_object_foreach ((json_t *)(uintptr_t)provenance, key, v) {
        enum pl_status st = PL_OK;
        if (reserved_attribute(key) || !*key || strlen(key) > 255)
            continue;
        if (json_is_string(v)) {
            st = write_string_attribute(m, group, key, json_string_value(v));
        } else if (json_is_integer(v)) {
            const int64_t i = json_integer_value(v);
            st = write_attribute(m, group, key, H5T_STD_I64LE, &i);
        } else if (json_is_real(v)) {
            const double d = json_real_value(v);
            st = write_attribute(m, group, key, H5T_IEEE_F64LE, &d);
        } else if (json_is_boolean(v)) {
            const uint8_t b = json_is_true(v);
            st = write_attribute(m, group, key, H5T_STD_U8LE, &b);
        }
        if (st != PL_OK)
            return st;
    }
    return PL_OK;
}

static enum pl_status make_sweep(struct maker *m, const struct pl_results_spec *s)
{
    const uint32_t version = PL_FORMAT_VERSION;
    struct pl_buf json;
    pl_buf_init(&json, TEXT_MAX_BYTES);
    hid_t group = H5Gcreate2(m->file, "sweep", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    enum pl_status st = group >= 0 ? PL_OK : fail(m, "sweep");
    if (st == PL_OK)
        st = write_string_attribute(m, group, "format", PL_FORMAT_NAME);
    if (st == PL_OK)
        st = write_attribute(m, group, "format_version", H5T_STD_U32LE, &version);
    if (st == PL_OK)
        st = write_string_attribute(m, group, "sha256", s->sha256);
    if (st == PL_OK && s->provenance)
        st = provenance_attributes(m, group, s->provenance);
    if (st == PL_OK && s->provenance)
        st = pl_json_dump(s->provenance, &json, m->err);
    if (st == PL_OK)
        st = write_text(m, "sweep/text", s->sweep_text);
    if (st == PL_OK)
        st = write_text(m, "sweep/resolved", s->resolved);
    if (st == PL_OK)
        st = write_text(m, "sweep/provenance", json.len ? json.data : "{}");
    if (group >= 0)
        H5Gclose(group);
    pl_buf_release(&json);
    return st;
}

static enum pl_status fill_file(const char *path, const char *tmp,
                                const struct pl_results_spec *spec, uint64_t *bytes,
                                struct pl_err *err)
{
    struct maker m = {.path = path, .file = H5I_INVALID_HID, .bulk = H5I_INVALID_HID, .err = err};
    enum pl_status st = PL_OK;
    hid_t fapl = pl_h5_fapl();
    m.bulk = H5Pcreate(H5P_DATASET_CREATE);
    if (fapl < 0 || m.bulk < 0 || H5Pset_layout(m.bulk, H5D_CONTIGUOUS) < 0 ||
        H5Pset_alloc_time(m.bulk, H5D_ALLOC_TIME_EARLY) < 0 ||
        H5Pset_fill_time(m.bulk, H5D_FILL_TIME_NEVER) < 0) {
        st = fail(&m, "property lists");
        goto out;
    }
    m.file = H5Fcreate(tmp, H5F_ACC_TRUNC, H5P_DEFAULT, fapl);
    if (m.file < 0) {
        st = fail(&m, tmp);
        goto out;
    }
    st = make_sweep(&m, spec);
    if (st == PL_OK)
        st = make_axes(&m, spec);
    if (st == PL_OK)
        st = make_commit(&m, &spec->shape);
    if (st == PL_OK)
        st = make_rows(&m, &spec->shape);
    if (st == PL_OK)
        st = make_logs(&m, spec);
    if (st == PL_OK && H5Fflush(m.file, H5F_SCOPE_GLOBAL) < 0)
        st = pl_h5_fail(err, PL_EIO, "%s: flushing", path);
    *bytes = m.bytes;
out:
    if (m.file > 0 && H5Fclose(m.file) < 0 && st == PL_OK)
        st = pl_h5_fail(err, PL_EIO, "%s: closing", path);
    pl_h5_close_plist(m.bulk);
    pl_h5_close_plist(fapl);
    return st;
}

/* ---- the name ---- */

/* Puts tmp in path's place only if nothing is there. A hard link is the portable way; where there
 * are none, a plain rename. */
static enum pl_status take_name(const char *tmp, const char *path, struct pl_err *err)
{
    if (link(tmp, path) == 0) {
        unlink(tmp);
        return PL_OK;
    }
    if (errno != EEXIST && access(path, F_OK) != 0 && rename(tmp, path) == 0)
        return PL_OK;
    return pl_fail_errno(err, errno, "%s", path);
}

/* Every row will be written whole, so a file that cannot grow to its size is a failure now rather
 * than at three in the morning. */
static enum pl_status check_space(const char *dir, const char *path, uint64_t bytes,
                                  struct pl_err *err)
{
    struct statvfs fs;
    if (statvfs(dir, &fs) != 0 || fs.f_blocks == 0)
        return PL_OK; /* some network file systems do not tell */
    const uint64_t left = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (left >= bytes)
        return PL_OK;
    return pl_fail(err, PL_EIO,
                   "%s: no space left on device: the results need %" PRIu64 " bytes, %" PRIu64
                   " are free",
                   path, bytes, left);
}

static enum pl_status sync_path(const char *path, int flags, const char *name, struct pl_err *err)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
    if (fd < 0)
        return pl_fail_errno(err, errno, "%s", name);
    /* a directory that cannot be synced (EINVAL on some file systems) is no failure */
    const int rc = fsync(fd), e = errno;
    close(fd);
    if (rc != 0 && !(flags & O_DIRECTORY))
        return pl_fail_errno(err, e, "%s: writing to the disk", name);
    return PL_OK;
}

static enum pl_status check_free_name(const char *path, struct pl_err *err)
{
    struct stat sb;
    if (lstat(path, &sb) != 0)
        return errno == ENOENT ? PL_OK : pl_fail_errno(err, errno, "%s", path);
    if (S_ISREG(sb.st_mode) || S_ISLNK(sb.st_mode))
        return pl_fail_errno(err, EEXIST, "%s", path);
    return pl_fail(err, PL_EIO, "%s: a %s, expected the name of a new file", path,
                   S_ISDIR(sb.st_mode) ? "directory" : "device, pipe or socket");
}

enum pl_status pl_results_create(const char *path, const struct pl_results_spec *spec,
                                 struct pl_err *err)
{
    enum pl_status st = pl_shape_check(&spec->shape, err);
    char *tmp = NULL, *dir_copy = NULL, *dir = NULL;
    uint64_t bytes = 0;
    if (st == PL_OK)
        st = check_free_name(path, err);
    if (st != PL_OK)
        return st;
    if (asprintf(&tmp, "%s.creating", path) < 0)
        return pl_fail(err, PL_ENOMEM, "%s", path);
    dir_copy = strdup(path);
    if (!dir_copy) {
        st = pl_fail(err, PL_ENOMEM, "%s", path);
        goto out;
    }
    dir = dirname(dir_copy);
    pl_h5_begin();
    st = fill_file(path, tmp, spec, &bytes, err);
    if (st == PL_OK)
        st = check_space(dir, path, bytes, err);
    if (st == PL_OK)
        st = sync_path(tmp, 0, path, err);
    if (st == PL_OK)
        st = take_name(tmp, path, err);
    if (st == PL_OK)
        st = sync_path(dir, O_DIRECTORY, path, err);
    else
        unlink(tmp);
out:
    free(dir_copy);
    free(tmp);
    return st;
}
