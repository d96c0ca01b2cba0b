/*
 * A SentencePiece model file (sentencepiece_model.proto, proto2) → its vocabulary. Only the fields
 * that decide ids are read; pure, so that tests and fuzzers feed it bytes.
 */
#ifndef PL_MODEL_SPM_H
#define PL_MODEL_SPM_H

#include "base/arena.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_SPM_MAX_FILE (256u << 20)
#define PL_SPM_MAX_PIECES (1u << 24)
#define PL_SPM_MAX_PIECE 4096u /* bytes of one piece */

/* The numbers of the .proto */
enum pl_spm_type {
    PL_SPM_NORMAL = 1,
    PL_SPM_UNKNOWN = 2,
    PL_SPM_CONTROL = 3,
    PL_SPM_USER = 4,
    PL_SPM_UNUSED = 5,
    PL_SPM_BYTE = 6
};
enum pl_spm_kind { PL_SPM_UNIGRAM = 1, PL_SPM_BPE = 2, PL_SPM_WORD = 3, PL_SPM_CHAR = 4 };

struct pl_spm_piece {
    const char *text; /* NUL-terminated; may hold any UTF-8 */
    uint32_t len;
    float score;
    enum pl_spm_type type;
};

struct pl_spm {
    struct pl_spm_piece *pieces;
    size_t n;
    int32_t kind; /* enum pl_spm_kind, or what the file says */
    int32_t unk, bos, eos, pad;
    bool byte_fallback, whitespace_as_suffix;
    const char *unk_surface;
    const char *normaliser; /* its name */
    size_t charsmap;        /* bytes of normalisation rules; 0: identity */
    const void *rules;      /* those bytes, within the data that was parsed */
    bool dummy_prefix, remove_extra_whitespace, escape_whitespace;
};

/* Everything lives in the arena. PL_EFORMAT when the bytes are no SentencePiece model. */
PL_MUST_CHECK
enum pl_status pl_spm_parse(const char *file, const void *data, size_t size, struct pl_arena *arena,
                            struct pl_spm *out, struct pl_err *err);

#endif
