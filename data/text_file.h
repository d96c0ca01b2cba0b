/* A text file mapped read-only. Single owner; not NUL-terminated; an empty file has text "" and len
 * 0. */
#ifndef PL_DATA_TEXT_FILE_H
#define PL_DATA_TEXT_FILE_H

#include "base/status.h"

#include <stddef.h>

struct pl_text_file {
    const char *text;
    size_t len;
};

PL_MUST_CHECK
enum pl_status pl_text_file_open(struct pl_text_file *f, const char *path, struct pl_err *err);
void pl_text_file_close(struct pl_text_file *f);
/* PL_EFORMAT with the offset of the first byte that is not UTF-8 (RFC 3629: no surrogates, nothing
 * overlong). */
PL_MUST_CHECK
enum pl_status pl_text_file_check(const struct pl_text_file *f, const char *path,
                                  struct pl_err *err);

#endif
