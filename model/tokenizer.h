/*
 * Text ↔ ids, for every kind of tokenizer: one opaque type, immutable after loading, so that any
 * thread may use it.
 *
 * Ids and texts are those of the library that the file is made for:
 *  - tokenizer.model, spiece.model (sentencepiece): BPE and unigram, byte fallback, dummy prefix,
 *    normalisation rules. Special pieces' names standing in the text are plain text.
 *  - tokenizer.json (tokenizers): BPE (byte-level too), Unigram, WordPiece with their added tokens,
 *    which are recognised in the text. Its truncation and padding settings are not applied.
 *  - vocab.json + merges.txt, vocab.txt: what transformers makes of them (GPT-2, RoBERTa, Qwen2 by
 *    tokenizer_config.json's tokenizer_class or config.json's model_type; BERT).
 * In a directory that has several, the first of this order is read: tokenizer.model (when it is
 * SentencePiece's), tokenizer.json, spiece.model, vocab.json + merges.txt, vocab.txt.
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
    const char *kind; /* sentencepiece-bpe, sentencepiece-unigram, byte-level-bpe, bpe, unigram,
                         wordpiece */
    const char *file; /* that was read */
    int32_t vocab;    /* the largest id + 1 */
    int32_t bos, eos, unk, pad; /* −1: none */
    bool add_bos, add_eos;      /* encode with add_special puts ids before, behind the text */
};

struct pl_tokenizer;

/* dir: a model directory, or the tokenizer file itself, or a GGUF file. PL_ENOENT names the files
 * looked for; PL_EUNSUPPORTED names the part that is not known; PL_EFORMAT a broken file. */
PL_MUST_CHECK
enum pl_status pl_tokenizer_load(const char *dir, struct pl_tokenizer **out, struct pl_err *err);

enum pl_tokenizer_format {
    PL_TOKENIZER_MODEL, /* SentencePiece */
    PL_TOKENIZER_JSON,  /* tokenizer.json */
    PL_TOKENIZER_VOCAB  /* vocab.txt */
};
/* The same from the bytes of one file; name: for messages (copied). Any bytes are safe. */
PL_MUST_CHECK
enum pl_status pl_tokenizer_load_bytes(const char *name, enum pl_tokenizer_format format,
                                       const void *data, size_t len, struct pl_tokenizer **out,
                                       struct pl_err *err);

/* A tokenizer from arrays that another file format holds (GGUF). Everything is copied. */
enum pl_tokenizer_kind {
    PL_TOKENIZER_SPM_BPE,     /* pieces with scores, ▁ for a space, <0x00>… for bytes */
    PL_TOKENIZER_SPM_UNIGRAM, /* the same */
    PL_TOKENIZER_BYTE_BPE,    /* pieces in GPT-2's characters, merges, a pre-tokenizer */
    PL_TOKENIZER_WORDPIECE    /* BERT's */
};
struct pl_tokenizer_parts {
    const char *name; /* for messages, and what info.file says */
    enum pl_tokenizer_kind kind;
    size_t n;
    const char *const *pieces;
    const uint32_t *lengths; /* of the pieces; NULL: they end with NUL */
    const float *scores;     /* NULL: 0 */
    const int32_t *types;    /* of sentencepiece: 1 normal, 2 unknown, 3 control, 4 user-defined, 5
                                unused, 6 byte; NULL: all normal. BPE, WordPiece: 3 and 4 are
                                recognised    in the text, and 3 vanishes in decode */
    const char *const *merges; /* "left right", in order of rank */
    size_t n_merges;
    const char *pre; /* byte-level BPE: gpt-2, llama-bpe, qwen2, smollm …; NULL: gpt-2 */
    int32_t bos, eos, unk, pad; /* −1: none. WordPiece: bos is [CLS], eos is [SEP] */
    bool add_bos, add_eos;
    bool dummy_prefix, remove_extra_whitespace; /* sentencepiece */
    const void *charsmap;                       /* sentencepiece: normalisation rules */
    size_t charsmap_len;
    bool lowercase;   /* WordPiece: text is lower-cased and stripped of accents */
    bool word_starts; /* WordPiece: pieces that begin a word are marked by ▁ (GGUF), not the others
                         by ## */
};
/* PL_EUNSUPPORTED names a pre-tokenizer that is not known. */
PL_MUST_CHECK
enum pl_status pl_tokenizer_from_parts(const struct pl_tokenizer_parts *p,
                                       struct pl_tokenizer **out, struct pl_err *err);

void pl_tokenizer_free(struct pl_tokenizer *t); /* accepts NULL */
const struct pl_tokenizer_info *pl_tokenizer_info(const struct pl_tokenizer *t);

/* Appends the ids of text (any bytes; invalid UTF-8 becomes U+FFFD byte by byte). add_special: with
 * BOS, EOS, [CLS], [SEP] … as the file says. An empty text gives no ids but those. out is unchanged
 * on failure. */
PL_MUST_CHECK
enum pl_status pl_tokenizer_encode(const struct pl_tokenizer *t, const char *text, size_t len,
                                   bool add_special, struct pl_ids *out, struct pl_err *err);
/* The same without them, for a text that goes on behind a special token that the caller has put:
 * sentencepiece then puts its dummy prefix only where tokenizer_config.json says legacy, or
 * nothing.
 */
PL_MUST_CHECK
enum pl_status pl_tokenizer_encode_inside(const struct pl_tokenizer *t, const char *text,
                                          size_t len, struct pl_ids *out, struct pl_err *err);
/* The id of an added or special token (sentencepiece: of the file, or of tokenizer_config.json's
 * added_tokens_decoder and added_tokens.json beside it); −1: there is none of that name. */
int32_t pl_tokenizer_special(const struct pl_tokenizer *t, const char *name);
/* Appends exactly `want` ids: the first ones that encode would give for the whole text (BOS
 * and the like included; never EOS), reading no more of the text than it needs. PL_ERANGE
 * when the text has fewer: the message says how many. */
PL_MUST_CHECK
enum pl_status pl_tokenizer_encode_prefix(const struct pl_tokenizer *t, const char *text,
                                          size_t len, size_t want, struct pl_ids *out,
                                          struct pl_err *err);
/* Appends the text of ids as the library does, special tokens left out (skip_special_tokens, its
 * default). sentencepiece: bytes join into UTF-8 (what does not: U+FFFD), the dummy prefix's space
 * is dropped. Ids that no piece has say nothing. PL_ERANGE: an id outside the vocabulary. */
PL_MUST_CHECK
enum pl_status pl_tokenizer_decode(const struct pl_tokenizer *t, const int32_t *ids, size_t n,
                                   struct pl_buf *out, struct pl_err *err);
/* The piece of an id as it stands in the file (▁ for space); NULL outside the vocabulary. */
const char *pl_tokenizer_piece(const struct pl_tokenizer *t, int32_t id);

#endif
