/*
 * Text ↔ ids. One opaque tokenizer for every kind; today SentencePiece BPE (tokenizer.model) with
 * byte fallback, dummy prefix and the identity normaliser. Ids are those of the sentencepiece
 * library: special tokens' names standing in the text are plain text. Immutable after loading: any
 * thread may use it.
 */
#ifndef PL_MODEL_TOKENIZER_H
#define PL_MODEL_TOKENIZER_H

#include "base/buf.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_TOKENIZER_MAX_TEXT (1u << 30) /* bytes of one encode */

/* A growing list of ids; zero-initialise, release with pl_ids_release. */
struct pl_ids {
    int32_t *ids;
    size_t n, size;
};
void pl_ids_release(struct pl_ids *l);
PL_MUST_CHECK
enum pl_status pl_ids_add(struct pl_ids *l, int32_t id, struct pl_err *err);

struct pl_tokenizer_info {
    const char *kind; /* "sentencepiece-bpe" */
    const char *file; /* that was read */
    int32_t vocab;
    int32_t bos, eos, unk, pad; /* −1: none */
    bool add_bos, add_eos;      /* what encode adds when add_special is set (tokenizer_config.json;
                                   default: BOS only) */
};

struct pl_tokenizer;

/* dir: a model directory, or the tokenizer file itself. PL_ENOENT names the files looked for;
 * PL_EUNSUPPORTED names the kind (unigram, a normaliser with rules …); PL_EFORMAT a broken file. */
PL_MUST_CHECK
enum pl_status pl_tokenizer_load(const char *dir, struct pl_tokenizer **out, struct pl_err *err);
void pl_tokenizer_free(struct pl_tokenizer *t); /* accepts NULL */
const struct pl_tokenizer_info *pl_tokenizer_info(const struct pl_tokenizer *t);

/* Appends the ids of text (any bytes; invalid UTF-8 becomes U+FFFD byte by byte). add_special: with
 * BOS/EOS as info says. An empty text gives no ids but those. out is unchanged on failure. */
PL_MUST_CHECK
enum pl_status pl_tokenizer_encode(const struct pl_tokenizer *t, const char *text, size_t len,
                                   bool add_special, struct pl_ids *out, struct pl_err *err);
/* Appends exactly `want` ids: the first ones that encode would give for the whole text (BOS
 * included where add_bos says; never EOS), reading no more of the text than it needs. PL_ERANGE
 * when the text has fewer: the message says how many. */
PL_MUST_CHECK
enum pl_status pl_tokenizer_encode_prefix(const struct pl_tokenizer *t, const char *text,
                                          size_t len, size_t want, struct pl_ids *out,
                                          struct pl_err *err);
/* Appends the text of ids as the sentencepiece library does: control tokens vanish, bytes join into
 * UTF-8 (what does not: U+FFFD), the dummy prefix's space is dropped. PL_ERANGE: an id outside the
 * vocabulary. */
PL_MUST_CHECK
enum pl_status pl_tokenizer_decode(const struct pl_tokenizer *t, const int32_t *ids, size_t n,
                                   struct pl_buf *out, struct pl_err *err);
/* The piece of an id as it stands in the file (▁ for space); NULL outside the vocabulary. */
const char *pl_tokenizer_piece(const struct pl_tokenizer *t, int32_t id);

#endif
