/* Opening a results file that may come from anywhere: every object is demanded by name, type, shape
 * and place. */
#include "results/h5.h"
#include "results/reader_impl.h"

#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define AXIS_BYTES_MAX (UINT64_C(1) << 30) /* labels of one axis held in memory */
#define TEXT_BYTES_MAX (UINT64_C(64) << 20)

struct opener {
    struct pl_reader *r;
    struct pl_h5_source src;
    struct pl_err *err;
};

enum pl_status pl_reader_pread(const struct pl_reader *r, const char *what, uint64_t at, void *out,
                               size_t n, struct pl_err *err)
{
    unsigned char *p = out;
    while (n) {
        const ssize_t got = pread(r->fd, p, n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return pl_fail_errno(err, errno, "%s: reading /%s", r->path, what);
        if (got == 0)
            return pl_fail(err, PL_EFORMAT, "%s: /%s: the file ends in it", r->path, what);
        p += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return PL_OK;
}

/* ---- strings ---- */

static enum pl_status read_labels(const struct opener *o, const char *name, struct pl_labels *out)
{
    struct pl_h5_found f;
    size_t len;
    enum pl_status st = pl_h5_find_strings(&o->src, name, 1, &f, &len, o->err);
    if (st != PL_OK)
        return st;
    const uint64_t n = f.dims[0];
    if (n == 0 || n > UINT32_MAX || (len + 1) > AXIS_BYTES_MAX / n)
        return pl_fail(o->err, PL_EFORMAT, "%s: /%s has %" PRIu64 " strings of %zu bytes",
                       o->r->path, name, n, len);
    char *data = malloc(n * (len + 1));
    if (!data)
        return pl_fail(o->err, PL_ENOMEM, "%s: /%s", o->r->path, name);
    /* the packed strings go to the end of the block and are then spread out from the front */
    char *packed = data + n;
    st = pl_reader_pread(o->r, name, f.at, packed, n * len, o->err);
    if (st != PL_OK) {
        free(data);
        return st;
    }
    for (uint64_t i = 0; i < n; i++) {
        memmove(data + i * (len + 1), packed + i * len, len);
        data[i * (len + 1) + len] = '\0';
    }
    *out = (struct pl_labels){.data = data, .stride = len + 1, .n = (uint32_t)n};
    return PL_OK;
}

static enum pl_status read_text(const struct opener *o, const char *name, char **out)
{
    struct pl_h5_found f;
    size_t len;
    enum pl_status st = pl_h5_find_strings(&o->src, name, 0, &f, &len, o->err);
    if (st != PL_OK)
        return st;
    if (len > TEXT_BYTES_MAX)
        return pl_fail(o->err, PL_EFORMAT, "%s: /%s of %zu bytes, expected at most %" PRIu64,
                       o->r->path, name, len, TEXT_BYTES_MAX);
    char *text = malloc(len + 1);
    if (!text)
        return pl_fail(o->err, PL_ENOMEM, "%s: /%s", o->r->path, name);
    st = pl_reader_pread(o->r, name, f.at, text, len, o->err);
    if (st != PL_OK) {
        free(text);
        return st;
    }
    text[len] = '\0';
    *out = text;
    return PL_OK;
}

static enum pl_status read_json(const struct opener *o, const char *name, const char *text,
                                json_t **out)
{
    const enum pl_status st = pl_json_parse(name, text, strlen(text), out, o->err);
    return st == PL_OK ? st : pl_err_prefix(o->err, PL_EFORMAT, "%s", o->r->path);
}

/* ---- /sweep ---- */

/* Reads attribute `name` of type class `cls`, at most `size` bytes, with the library converting to
 * `mem`. */
static enum pl_status read_attribute(const struct opener *o, hid_t group, const char *name,
                                     H5T_class_t cls, size_t size, void *out)
{
    if (H5Aexists(group, name) <= 0) {
        H5Eclear2(H5E_DEFAULT);
        return pl_fail(o->err, PL_EFORMAT,
                       "%s: attribute %s of /sweep is missing: not a paceline results file",
                       o->r->path, name);
    }
    enum pl_status st = PL_EFORMAT;
    hid_t a = H5Aopen(group, name, H5P_DEFAULT), type = a < 0 ? a : H5Aget_type(a),
          space = a < 0 ? a : H5Aget_space(a);
    hid_t mem = cls == H5T_INTEGER ? H5Tcopy(H5T_NATIVE_UINT32) : pl_h5_string(size);
    const bool ok = type >= 0 && space >= 0 && mem >= 0 && H5Tget_class(type) == cls &&
                    (cls != H5T_STRING || H5Tis_variable_str(type) == 0) &&
                    H5Sget_simple_extent_type(space) == H5S_SCALAR && H5Tget_size(type) <= size;
    if (ok && H5Aread(a, mem, out) >= 0)
        st = PL_OK;
    H5Eclear2(H5E_DEFAULT);
    if (a >= 0)
        H5Aclose(a);
    pl_h5_close_type(type);
    pl_h5_close_type(mem);
    pl_h5_close_space(space);
    if (st != PL_OK)
        return pl_fail(o->err, st, "%s: attribute %s of /sweep has a wrong type or size",
                       o->r->path, name);
    return st;
}

static enum pl_status read_attributes(const struct opener *o)
{
    struct pl_reader *r = o->r;
    char format[sizeof PL_FORMAT_NAME + 1] = "";
    uint32_t version = 0;
    if (H5Lexists(o->src.file, "sweep", H5P_DEFAULT) <= 0) {
        H5Eclear2(H5E_DEFAULT);
        return pl_fail(o->err, PL_EFORMAT, "%s: /sweep is missing: not a paceline results file",
                       r->path);
    }
    hid_t group = H5Gopen2(o->src.file, "sweep", H5P_DEFAULT);
    if (group < 0)
        return pl_h5_fail(o->err, PL_EFORMAT, "%s: /sweep", r->path);
    enum pl_status st = read_attribute(o, group, "format", H5T_STRING, sizeof format - 1, format);
    if (st == PL_OK)
        st = read_attribute(o, group, "format_version", H5T_INTEGER, sizeof version, &version);
    if (st == PL_OK)
        st = read_attribute(o, group, "sha256", H5T_STRING, sizeof r->sha256 - 1, r->sha256);
    H5Gclose(group);
    if (st != PL_OK)
        return st;
    if (strcmp(format, PL_FORMAT_NAME) != 0)
        return pl_fail(o->err, PL_EFORMAT, "%s: /sweep says another format than " PL_FORMAT_NAME,
                       r->path);
    if (version != PL_FORMAT_VERSION)
        return pl_fail(o->err, PL_EFORMAT, "%s: format version %u, expected %d", r->path, version,
                       PL_FORMAT_VERSION);
    return PL_OK;
}

static enum pl_status read_sweep(const struct opener *o)
{
    struct pl_reader *r = o->r;
    char *provenance = NULL;
    enum pl_status st = read_attributes(o);
    if (st == PL_OK)
        st = read_text(o, "sweep/text", &r->text);
    if (st == PL_OK)
        st = read_text(o, "sweep/resolved", &r->resolved);
    if (st == PL_OK)
        st = read_text(o, "sweep/provenance", &provenance);
    if (st == PL_OK)
        st = read_json(o, "/sweep/resolved", r->resolved, &r->sweep);
    if (st == PL_OK)
        st = read_json(o, "/sweep/provenance", provenance, &r->provenance);
    free(provenance);
    return st;
}

/* ---- /axes ---- */

static enum pl_status read_arm_json(const struct opener *o)
{
    struct pl_reader *r = o->r;
    struct pl_labels l = {0};
    enum pl_status st = read_labels(o, "axes/arm_json", &l);
    if (st != PL_OK)
        return st;
    if (l.n != r->arms.n)
        st = pl_fail(o->err, PL_EFORMAT, "%s: /axes/arm_json has %u arms, /axes/arm %u", r->path,
                     l.n, r->arms.n);
    if (st == PL_OK && !(r->arm_json = calloc(l.n, sizeof(json_t *))))
        st = pl_fail(o->err, PL_ENOMEM, "%s: /axes/arm_json", r->path);
    for (uint32_t i = 0; st == PL_OK && i < l.n; i++)
        st = read_json(o, "/axes/arm_json", l.data + i * l.stride, &r->arm_json[i]);
    free(l.data);
    return st;
}

/* The numbers in `reason` mean what this version thinks they mean: the names we share are the same.
 */
static enum pl_status check_reasons(const struct opener *o)
{
    struct pl_labels l = {0};
    enum pl_status st = read_labels(o, "axes/reason", &l);
    for (uint32_t i = 0; st == PL_OK && i < l.n && i < PL_REASON_COUNT; i++)
        if (strcmp(l.data + i * l.stride, pl_reason_name((enum pl_reason)i)) != 0)
            st = pl_fail(o->err, PL_EFORMAT, "%s: /axes/reason %u is not \"%s\"", o->r->path, i,
                         pl_reason_name((enum pl_reason)i));
    free(l.data);
    return st;
}

static enum pl_status read_axes(const struct opener *o)
{
    struct pl_reader *r = o->r;
    struct pl_h5_found f;
    enum pl_status st = read_labels(o, "axes/arm", &r->arms);
    if (st == PL_OK)
        st = read_arm_json(o);
    if (st == PL_OK)
        st = read_labels(o, "axes/sample", &r->samples);
    if (st == PL_OK && pl_h5_exists(&o->src, "axes/metric"))
        st = read_labels(o, "axes/metric", &r->metrics);
    if (st == PL_OK)
        st = check_reasons(o);
    if (st == PL_OK)
        st = pl_h5_find_typed(&o->src, "axes/context", H5Tcopy(H5T_STD_I64LE), 1, &f, o->err);
    if (st != PL_OK)
        return st;
    if (f.dims[0] == 0 || f.bytes > AXIS_BYTES_MAX)
        return pl_fail(o->err, PL_EFORMAT, "%s: /axes/context has %" PRIu64 " contexts", r->path,
                       (uint64_t)f.dims[0]);
    r->contexts = malloc(f.bytes);
    if (!r->contexts)
        return pl_fail(o->err, PL_ENOMEM, "%s: /axes/context", r->path);
    r->n_contexts = (uint32_t)f.dims[0];
    return pl_reader_pread(r, "axes/context", f.at, r->contexts, f.bytes, o->err);
}

/* The labels and the rows are of one grid. */
static enum pl_status check_axes(const struct opener *o)
{
    const struct pl_reader *r = o->r;
    const struct pl_shape *s = &r->p.shape;
    const struct {
        const char *name;
        uint32_t labels, dim;
    } axes[] = {{"arm", r->arms.n, s->arms},
                {"context", r->n_contexts, s->contexts},
                {"sample", r->samples.n, s->samples},
                {"metric", r->metrics.n, s->metrics}};
    for (size_t i = 0; i < sizeof axes / sizeof axes[0]; i++)
        if (axes[i].labels != axes[i].dim)
            return pl_fail(o->err, PL_EFORMAT, "%s: /axes/%s has %u entries, the rows have %u",
                           r->path, axes[i].name, axes[i].labels, axes[i].dim);
    return PL_OK;
}

/* ---- the file ---- */

static enum pl_status open_file(struct opener *o)
{
    struct pl_reader *r = o->r;
    struct stat sb;
    r->fd = open(r->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */
    if (r->fd < 0 || fstat(r->fd, &sb) != 0)
        return pl_fail_errno(o->err, errno, "%s", r->path);
    if (!S_ISREG(sb.st_mode))
        return pl_fail(o->err, PL_EFORMAT, "%s: not a regular file", r->path);
    o->src.file_bytes = (uint64_t)sb.st_size;
    pl_h5_begin();
    hid_t fapl = pl_h5_fapl();
    o->src.file = H5Fopen(r->path, H5F_ACC_RDONLY, fapl);
    const enum pl_status st =
        o->src.file >= 0 ? PL_OK
                         : pl_h5_fail(o->err, PL_EFORMAT, "%s: not a readable HDF5 file", r->path);
    pl_h5_close_plist(fapl);
    return st;
}

enum pl_status pl_reader_open(const char *path, struct pl_reader **out, struct pl_err *err)
{
    struct pl_reader *r = calloc(1, sizeof *r);
    if (!r)
        return pl_fail(err, PL_ENOMEM, "%s", path);
    struct opener o = {.r = r, .src = {.path = path, .file = H5I_INVALID_HID}, .err = err};
    enum pl_status st = PL_OK;
    r->fd = -1;
    r->path = strdup(path);
    if (!r->path)
        st = pl_fail(err, PL_ENOMEM, "%s", path);
    if (st == PL_OK)
        st = open_file(&o);
    if (st == PL_OK)
        st = read_sweep(&o);
    if (st == PL_OK)
        st = read_axes(&o);
    if (st == PL_OK)
        st = pl_places_read(&o.src, &r->p, err);
    if (st == PL_OK)
        st = check_axes(&o);
    pl_h5_close_file(o.src.file);
    if (st == PL_OK)
        *out = r;
    else
        pl_reader_free(r);
    return st;
}

void pl_reader_free(struct pl_reader *r)
{
    if (!r)
        return;
    for (uint32_t i = 0; r->arm_json && i < r->arms.n; i++)
        json_decref(r->arm_json[i]);
    free(r->arm_json);
    json_decref(r->sweep);
    json_decref(r->provenance);
    free(r->arms.data);
    free(r->samples.data);
    free(r->metrics.data);
    free(r->contexts);
    free(r->text);
    free(r->resolved);
    if (r->fd >= 0)
        close(r->fd);
    free(r->path);
    free(r);
}
