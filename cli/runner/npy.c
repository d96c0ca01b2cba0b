#include "cli/runner/npy.h"

#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
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

enum pl_status pl_npy_write(const char *path, void *data, size_t rows, size_t cols,
                            struct pl_err *err)
{
    char *head = data;
    size_t total = PL_NPY_HEADER + rows * cols * sizeof(float);
    struct stat sb;

    memset(head, ' ', PL_NPY_HEADER);
    memcpy(head, MAGIC "\x01\x00\x76\x00", 10); /* version 1.0, 118 bytes of text */
    int n = snprintf(head + 10, PL_NPY_HEADER - 10,
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }", rows, cols);
    if (n < 0 || n >= PL_NPY_HEADER - 10)
        return pl_fail(err, PL_ERANGE, "%s: shape %zu x %zu", path, rows, cols);
    head[10 + n] = ' ';
    head[PL_NPY_HEADER - 1] = '\n';
    if (stat(path, &sb) == 0 && !S_ISREG(sb.st_mode))
        return write_through(path, data, total, err);
    return pl_write_file_atomic(path, data, total, err);
}

#define MAX_DIMS 4

struct header {
    size_t at;   /* where the numbers begin */
    size_t item; /* bytes of one */
    bool floats;
    size_t dim[MAX_DIMS];
    int dims;
};

static enum pl_status bad(struct pl_err *err, const char *path, const char *what)
{
    return pl_fail(err, PL_EFORMAT, "%s: %s", path, what);
}

/* The text after 'key': and blanks; NULL when it is not there. */
static const char *value_of(const char *text, const char *key)
{
    const char *p = strstr(text, key);

    if (!p)
        return NULL;
    p += strlen(key);
    p += strspn(p, " ");
    if (*p++ != ':')
        return NULL;
    return p + strspn(p, " ");
}

/* "(7,)" or "(1, 7)" */
static bool read_shape(const char *p, struct header *h)
{
    h->dims = 0;
    if (*p++ != '(')
        return false;
    for (;;) {
        char *end;
        p += strspn(p, " ");
        if (*p == ')')
            break;
        if (h->dims == MAX_DIMS || *p < '0' || *p > '9')
            return false;
        errno = 0;
        h->dim[h->dims++] = (size_t)strtoull(p, &end, 10);
        if (errno)
            return false;
        p = end + strspn(end, " ");
        if (*p == ',')
            p++;
        else if (*p != ')')
            return false;
    }
    return h->dims > 0;
}

static bool read_type(const char *v, struct header *h)
{
    static const struct {
        const char *name;
        size_t item;
        bool floats;
    } types[] = {{"'<i4'", 4, false},
                 {"'<i8'", 8, false},
                 {"'|u1'", 1, false},
                 {"'|b1'", 1, false},
                 {"'<f4'", 4, true}};

    for (size_t i = 0; v && i < sizeof(types) / sizeof(types[0]); i++) {
        if (strncmp(v, types[i].name, 5) != 0)
            continue;
        h->item = types[i].item;
        h->floats = types[i].floats;
        return true;
    }
    return false;
}

static enum pl_status read_header(const char *path, const struct pl_buf *b, bool floats,
                                  struct header *h, struct pl_err *err)
{
    const unsigned char *u = (const unsigned char *)b->data;
    size_t start, len;
    char text[4096];
    const char *v;

    if (b->len < 12 || memcmp(u, MAGIC, 6) != 0)
        return bad(err, path, "not a .npy file");
    if (u[6] < 1 || u[6] > 3)
        return bad(err, path, "a .npy version that is not known");
    start = u[6] == 1 ? 10 : 12;
    len = u[8] | (size_t)u[9] << 8;
    if (u[6] > 1)
        len |= (size_t)u[10] << 16 | (size_t)u[11] << 24;
    if (len >= sizeof(text) || len > b->len - start)
        return bad(err, path, "the header is longer than it may be");
    memcpy(text, b->data + start, len);
    text[len] = '\0';
    if (strlen(text) != len)
        return bad(err, path, "the header holds a NUL");
    if (!read_type(value_of(text, "'descr'"), h) || h->floats != floats)
        return bad(err, path,
                   floats ? "float32 is expected ('<f4')"
                          : "int32 or int64 is expected ('<i4' or '<i8')");
    v = value_of(text, "'fortran_order'");
    if (!v || (strncmp(v, "False", 5) != 0 && strncmp(v, "True", 4) != 0))
        return bad(err, path, "no fortran_order");
    if (floats && *v == 'T')
        return bad(err, path, "C order is expected, not Fortran's");
    v = value_of(text, "'shape'"); /* one row: both orders are the same */
    if (!v || !read_shape(v, h) || (floats && h->dims < 3))
        return bad(err, path,
                   floats ? "images are expected, shape (frames, channels, height, width)"
                          : "a list of ids is expected, shape (n,) or (1, n)");
    if (!floats && (h->dims > 2 || (h->dims == 2 && h->dim[0] != 1)))
        return bad(err, path, "a list of ids is expected, shape (n,) or (1, n)");
    h->at = start + len;
    return PL_OK;
}

enum pl_status pl_npy_read_ids(const char *path, int32_t **ids, size_t *n, struct pl_err *err)
{
    struct pl_buf b;
    struct header h = {0};
    int32_t *out = NULL;
    size_t count = 0;
    enum pl_status st = pl_read_file(path, (size_t)PL_NPY_MAX_IDS * 8 + 8192, &b, err);

    if (st)
        return st;
    st = read_header(path, &b, false, &h, err);
    if (!st)
        count = h.dim[h.dims - 1];
    if (!st && count > PL_NPY_MAX_IDS)
        st = pl_fail(err, PL_ERANGE, "%s: %zu ids, at most %u", path, count, PL_NPY_MAX_IDS);
    if (!st && (b.len - h.at) != count * h.item)
        st = pl_fail(err, PL_EFORMAT, "%s: %zu bytes of numbers, its shape says %zu", path,
                     b.len - h.at, count * h.item);
    if (!st && !(out = malloc((count ? count : 1) * sizeof(*out))))
        st = pl_fail(err, PL_ENOMEM, "%s: no memory", path);
    for (size_t i = 0; !st && i < count; i++) {
        const char *p = b.data + h.at + i * h.item;
        int32_t v4 = 0;
        int64_t v = (unsigned char)*p;
        if (h.item == 4) {
            memcpy(&v4, p, sizeof(v4));
            v = v4;
        }
        if (h.item == 8)
            memcpy(&v, p, sizeof(v));
        if (v < INT32_MIN || v > INT32_MAX)
            st = pl_fail(err, PL_ERANGE, "%s: id %lld", path, (long long)v);
        else
            out[i] = (int32_t)v;
    }
    pl_buf_release(&b);
    if (st) {
        free(out);
        return st;
    }
    *ids = out;
    *n = count;
    return PL_OK;
}

enum pl_status pl_npy_read_pixels(const char *path, float **out, size_t n[4], struct pl_err *err)
{
    struct pl_buf b;
    struct header h = {0};
    size_t count = 1;
    float *v = NULL;
    enum pl_status st = pl_read_file(path, (size_t)PL_NPY_MAX_IDS * 8 + 8192, &b, err);

    if (st)
        return st;
    st = read_header(path, &b, true, &h, err);
    for (int i = 0; !st && i < 4; i++) {
        n[i] = h.dims == 4 ? h.dim[i] : i ? h.dim[i - 1] : 1;
        if (__builtin_mul_overflow(count, n[i], &count) || count > PL_NPY_MAX_IDS)
            st = pl_fail(err, PL_ERANGE, "%s: more than %u numbers", path, PL_NPY_MAX_IDS);
    }
    if (!st && (b.len - h.at) != count * sizeof(*v))
        st = pl_fail(err, PL_EFORMAT, "%s: %zu bytes of numbers, its shape says %zu", path,
                     b.len - h.at, count * sizeof(*v));
    if (!st && !(v = malloc((count ? count : 1) * sizeof(*v))))
        st = pl_fail(err, PL_ENOMEM, "%s: no memory", path);
    if (!st) {
        memcpy(v, b.data + h.at, count * sizeof(*v));
        *out = v;
    }
    pl_buf_release(&b);
    return st;
}
