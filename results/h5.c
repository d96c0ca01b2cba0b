#include "results/h5.h"

#include "results/writer.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* H5Pset_file_locking came with 1.10.7 and 1.12.1. */
#if H5_VERSION_GE(1, 12, 1) || (H5_VERSION_GE(1, 10, 7) && !H5_VERSION_GE(1, 12, 0))
#define HAVE_FILE_LOCKING_PROPERTY 1
#endif

void pl_h5_begin(void)
{
#ifndef HAVE_FILE_LOCKING_PROPERTY
    setenv("HDF5_USE_FILE_LOCKING", "FALSE", 1); /* read when the library starts */
#endif
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5Eclear2(H5E_DEFAULT);
}

hid_t pl_h5_fapl(void)
{
    hid_t p = H5Pcreate(H5P_FILE_ACCESS);
    if (p < 0)
        return p;
    /* with one rank, the sieve buffer held committed rows back at a SIGKILL */
    if (H5Pset_sieve_buf_size(p, 0) < 0 || H5Pset_fclose_degree(p, H5F_CLOSE_STRONG) < 0)
        goto bad;
#ifdef HAVE_FILE_LOCKING_PROPERTY
    if (H5Pset_file_locking(p, 0, 1) < 0)
        goto bad;
#endif
    return p;
bad:
    H5Pclose(p);
    return H5I_INVALID_HID;
}

/* ---- errors ---- */

struct innermost {
    char text[512];
    int errnum;
};

static herr_t take_innermost(unsigned n, const H5E_error2_t *e, void *ctx)
{
    struct innermost *in = ctx;
    if (n > 0 || !e->desc)
        return 0;
    const char *no = strstr(e->desc, "errno = ");
    if (no)
        in->errnum = (int)strtol(no + strlen("errno = "), NULL, 10);
    snprintf(in->text, sizeof in->text, "%s", e->desc);
    for (char *p = in->text; *p; p++)
        if (iscntrl((unsigned char)*p))
            *p = ' ';
    return 0;
}

enum pl_status pl_h5_fail(struct pl_err *err, enum pl_status st, const char *fmt, ...)
{
    struct innermost in = {.text = "", .errnum = 0};
    char prefix[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(prefix, sizeof prefix, fmt, ap);
    va_end(ap);
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_innermost, &in);
    H5Eclear2(H5E_DEFAULT);
    if (in.errnum > 0)
        return pl_fail_errno(err, in.errnum, "%s", prefix);
    if (in.text[0])
        return pl_fail(err, st, "%s: %s", prefix, in.text);
    return pl_fail(err, st, "%s", prefix);
}

/* ---- handles ---- */

void pl_h5_close_type(hid_t id)
{
    if (id > 0)
        H5Tclose(id);
}

void pl_h5_close_space(hid_t id)
{
    if (id > 0)
        H5Sclose(id);
}

void pl_h5_close_dset(hid_t id)
{
    if (id > 0)
        H5Dclose(id);
}

void pl_h5_close_plist(hid_t id)
{
    if (id > 0)
        H5Pclose(id);
}

void pl_h5_close_file(hid_t id)
{
    if (id > 0)
        H5Fclose(id);
}

const char *pl_results_hdf5_version(void)
{
    static char text[48];
    unsigned major, minor, patch;
#ifdef PL_PARALLEL_HDF5
    static const char kind[] = "parallel";
#else
    static const char kind[] = "serial";
#endif
    if (!text[0] && H5get_libversion(&major, &minor, &patch) >= 0)
        snprintf(text, sizeof text, "%u.%u.%u %s", major, minor, patch, kind);
    return text;
}
