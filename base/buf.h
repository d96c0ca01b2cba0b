/*
 * A growable byte buffer with a named cap: what outsiders send is never held without a limit.
 * `data` is always NUL-terminated once anything was written (the NUL is not counted in len). Single
 * owner.
 */
#ifndef PL_BASE_BUF_H
#define PL_BASE_BUF_H

#include "base/status.h"

#include <stddef.h>

struct pl_buf {
    char *data;
    size_t len, size; /* bytes used, allocated */
    size_t cap;       /* most bytes it may ever hold */
};

void pl_buf_init(struct pl_buf *b, size_t cap);
void pl_buf_clear(struct pl_buf *b); /* len = 0, memory kept */
void pl_buf_release(struct pl_buf *b);
/* PL_ERANGE beyond the cap, PL_ENOMEM; the buffer is unchanged then. */
PL_MUST_CHECK
enum pl_status pl_buf_add(struct pl_buf *b, const void *data, size_t n, struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_buf_addf(struct pl_buf *b, struct pl_err *err, const char *fmt, ...)
    PL_PRINTF(3, 4);
/* Makes room for n more bytes and a NUL and returns where they go (bump len and set the NUL
 * yourself), NULL beyond cap or memory. */
char *pl_buf_reserve(struct pl_buf *b, size_t n);
/* Drops the first n bytes. */
void pl_buf_consume(struct pl_buf *b, size_t n);

/* A whole file; PL_ENOENT, PL_EIO, PL_ERANGE when it is larger than cap. "-" is not special. out is
 * overwritten without being released first (it need not be initialised; untouched on failure); an
 * empty file gives "". */
PL_MUST_CHECK
enum pl_status pl_read_file(const char *path, size_t cap, struct pl_buf *out, struct pl_err *err);
/* Replaces path atomically (temporary beside it, fsync, rename). */
PL_MUST_CHECK
enum pl_status pl_write_file_atomic(const char *path, const void *data, size_t n,
                                    struct pl_err *err);

#endif
