/*
 * Text that is built piece by piece: a capped buffer whose first failure sticks, so that a page of
 * output needs one check at its end. Escapes for every format that the report writes.
 */
#ifndef PL_ANALYSIS_OUT_H
#define PL_ANALYSIS_OUT_H

#include "base/buf.h"
#include "base/status.h"

#include <stddef.h>

struct pl_out {
    struct pl_buf buf;
    enum pl_status st; /* the first failure; later calls do nothing */
    struct pl_err err;
};

enum pl_escape {
    PL_ESC_NONE,
    PL_ESC_HTML, /* text and double-quoted attributes */
    PL_ESC_JSON, /* with its quotes */
    PL_ESC_CSV,  /* RFC 4180: quoted where it must be */
    PL_ESC_MD,   /* a cell of a GitHub table; line breaks become spaces */
    PL_ESC_TEX,
    PL_ESC_GNUPLOT, /* single-quoted, with its quotes; line breaks become spaces */
    PL_ESC_LINE     /* a terminal: line breaks and tabs become spaces */
};

void pl_out_init(struct pl_out *o, size_t cap);
void pl_out_release(struct pl_out *o);
void pl_out_add(struct pl_out *o, const char *data, size_t n);
void pl_out_text(struct pl_out *o, const char *s);
void pl_out_f(struct pl_out *o, const char *fmt, ...) PL_PRINTF(2, 3);
/* s must be valid UTF-8 without control characters other than \n and \t: see pl_text_clean. */
void pl_out_esc(struct pl_out *o, enum pl_escape e, const char *s);
/* The shortest decimal that reads back as exactly v; "null" unless v is finite. */
void pl_out_num(struct pl_out *o, double v);
/* The first failure, with its text in err. */
PL_MUST_CHECK
enum pl_status pl_out_status(const struct pl_out *o, struct pl_err *err);
/* pl_write_file_atomic of what was built, unless something failed before. */
PL_MUST_CHECK
enum pl_status pl_out_write(const struct pl_out *o, const char *path, struct pl_err *err);

/* In place: bytes that are not UTF-8 and control characters but \n and \t become '?'. Text from
 * outside (names, paths, stderr) goes through it once, before anything else sees it. */
void pl_text_clean(char *s);
/* Code points of valid UTF-8: the columns of a terminal, near enough. */
size_t pl_text_width(const char *s);

#endif
