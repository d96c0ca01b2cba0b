/*
 * Errors: one status enum for the whole project, one caller-owned text.
 *
 * A fallible function returns enum pl_status and takes a `struct pl_err *err` as its last
 * argument (may be NULL: the text is then dropped). Outputs are untouched on failure. Libraries
 * neither print nor exit; the two programs in cli/ do.
 */
#ifndef PL_BASE_STATUS_H
#define PL_BASE_STATUS_H

#include <stdarg.h>

/* X(symbol, exit code of a program that ends with it, text) */
#define PL_STATUS_LIST(X)                                                                          \
    X(PL_OK, 0, "ok")                                                                              \
    X(PL_EUSAGE, 2, "usage error")                                                                 \
    X(PL_ESWEEP, 2, "error in the sweep file")                                                     \
    X(PL_EFORMAT, 2, "malformed file")                                                             \
    X(PL_ENOENT, 2, "no such file or directory")                                                   \
    X(PL_EEXIST, 2, "already exists")                                                              \
    X(PL_EUNSUPPORTED, 2, "not supported")                                                         \
    X(PL_ERANGE, 2, "out of range")                                                                \
    X(PL_EIO, 6, "input/output error")                                                             \
    X(PL_ENOMEM, 6, "out of memory")                                                               \
    X(PL_ESYS, 6, "system error")                                                                  \
    X(PL_EDEVICE, 6, "device error")                                                               \
    X(PL_EPROTO, 6, "protocol error")                                                              \
    X(PL_ETIMEOUT, 6, "timed out")                                                                 \
    X(PL_EBUSY, 6, "busy")                                                                         \
    X(PL_EINTERRUPTED, 5, "interrupted")

enum pl_status {
#define PL_X(sym, exit_code, text) sym,
    PL_STATUS_LIST(PL_X)
#undef PL_X
        PL_STATUS_COUNT
};

#define PL_MUST_CHECK __attribute__((warn_unused_result))
#define PL_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

struct pl_err {
    char text[1024]; /* one line, no newline at its end; "" when nothing failed */
};

/* Static text of a status; never NULL. */
const char *pl_status_text(enum pl_status st);
/* Exit code (CONTRACTS: 2 usage or input, 5 interrupted, 6 environment) of a status. */
int pl_status_exit(enum pl_status st);

/* Sets err->text (cut to its size at a whole character, line breaks made spaces; the arguments may
 * point into err->text) and returns st, so that `return pl_fail(err, PL_EIO, …)` works. */
enum pl_status pl_fail(struct pl_err *err, enum pl_status st, const char *fmt, ...) PL_PRINTF(3, 4);
/* The same with ": <strerror(errnum)>" at its end; ENOENT → PL_ENOENT, EEXIST → PL_EEXIST, ENOMEM →
 * PL_ENOMEM, EISDIR → PL_EUSAGE (exit code 2), everything else PL_EIO. */
enum pl_status pl_fail_errno(struct pl_err *err, int errnum, const char *fmt, ...) PL_PRINTF(3, 4);
/* Puts "<prefix>: " before the text that is there; returns st. */
enum pl_status pl_err_prefix(struct pl_err *err, enum pl_status st, const char *fmt, ...)
    PL_PRINTF(3, 4);

#endif
