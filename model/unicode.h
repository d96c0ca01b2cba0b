/*
 * What tokenizers need of Unicode: classes of characters, lower case, normal forms (UAX 15) and
 * grapheme clusters (UAX 29), as the reference libraries see them. Pure; thread-safe after the
 * first pl_uni_init, which every loader of a tokenizer calls.
 */
#ifndef PL_MODEL_UNICODE_H
#define PL_MODEL_UNICODE_H

#include "base/buf.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_UNI_MAX 0x110000u

enum pl_uni_flag {
    PL_UNI_L = 1 << 0, /* \p{L}, \p{N}, \s of the regular expressions */
    PL_UNI_N = 1 << 1,
    PL_UNI_S = 1 << 2,
    PL_UNI_SPACE = 1 << 3,   /* White_Space */
    PL_UNI_NUMERIC = 1 << 4, /* what the Digits splitter takes for one */
    PL_UNI_PUNCT = 1 << 5,   /* BERT's punctuation */
    PL_UNI_CLEANED = 1 << 6, /* BERT's cleaning removes it */
    PL_UNI_MN = 1 << 7,      /* BERT's accents */
    PL_UNI_MARK = 1 << 8,    /* StripAccents' marks */
    PL_UNI_WORD = 1 << 9,    /* \w around added tokens */
    PL_UNI_GCB = 15 << 10    /* grapheme cluster class */
};

void pl_uni_init(void);
/* Flags of a code point; 0 from PL_UNI_MAX on. */
uint32_t pl_uni_flags(uint32_t c);
uint32_t pl_uni_lower_of(uint32_t c); /* U+0130 gives 'i', whose U+0307 the caller adds */

/* Bytes of the character that text (len ≥ 1) begins with and the character itself; malformed bytes
 * count one by one, as U+FFFD. */
size_t pl_uni_decode(const char *text, size_t len, uint32_t *c);
size_t pl_uni_encode(uint32_t c, char out[4]);
/* Whether text is well-formed UTF-8. */
bool pl_uni_valid(const char *text, size_t len);
PL_MUST_CHECK
enum pl_status pl_uni_add(struct pl_buf *out, uint32_t c, struct pl_err *err);

enum pl_uni_form { PL_UNI_NFD, PL_UNI_NFC, PL_UNI_NFKD, PL_UNI_NFKC };
/* Appends the normal form of well-formed text. */
PL_MUST_CHECK
enum pl_status pl_uni_normal(enum pl_uni_form form, const char *text, size_t len,
                             struct pl_buf *out, struct pl_err *err);

/* Bytes of the extended grapheme cluster that text (len ≥ 1) begins with. */
size_t pl_uni_grapheme(const char *text, size_t len);

#endif
