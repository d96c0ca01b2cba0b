/*
 * Where samples of text begin: one UTF-8 file, or a folder whose regular files are read in the
 * order of their names, cut into slots of `context × 6` bytes that a seed shuffles (data/sample.h).
 */
#ifndef PL_DATA_TEXT_STARTS_H
#define PL_DATA_TEXT_STARTS_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pl_text_start {
    uint32_t file;
    uint64_t offset; /* bytes; a whole character begins here */
};

struct pl_text_part {
    char *path;
    uint64_t size;
    uint64_t slots; /* samples it gives before they overlap */
};

struct pl_text_starts {
    struct pl_text_part *files; /* [n_files] */
    size_t n_files;
    struct pl_text_start *starts; /* [count] */
    uint32_t count;
    bool overlap; /* more than there are slots: those beyond are drawn anywhere */
};

/* context: tokens of the longest prompt. count: 0 = one a slot. PL_ENOENT, PL_EFORMAT (not UTF-8),
 * PL_ERANGE (shorter than one context of bytes), PL_EIO, PL_ENOMEM; on failure *out stays as it
 * was. */
PL_MUST_CHECK
enum pl_status pl_text_starts_open(const char *path, uint64_t seed, uint64_t context,
                                   uint32_t count, struct pl_text_starts *out, struct pl_err *err);
void pl_text_starts_release(struct pl_text_starts *t);

#endif
