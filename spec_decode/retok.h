/*
 * A text that grows and is cut back, as the ids that a tokenizer gives for it, re-tokenised from
 * the last place that no merge can cross: before a space that follows something else, where no
 * piece of the vocabulary has a space inside. Where a tokenizer does not hold to that (it is tried
 * when one is opened), the whole text is encoded anew. Either way the ids are those of the whole
 * text.
 */
#ifndef PL_SPEC_DECODE_RETOK_H
#define PL_SPEC_DECODE_RETOK_H

#include "base/buf.h"
#include "base/status.h"
#include "model/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pl_retok;

PL_MUST_CHECK
enum pl_status pl_retok_new(const struct pl_tokenizer *t, struct pl_retok **out,
                            struct pl_err *err); /* t: borrowed */
void pl_retok_free(struct pl_retok *r);          /* accepts NULL */
/* Whether only what stands behind the last such place is encoded anew. */
bool pl_retok_local(const struct pl_retok *r);
/* An empty text. inside: it goes on behind something that is not part of it, as
 * pl_tokenizer_encode_inside has it; else BOS comes first where the tokenizer puts one. */
void pl_retok_begin(struct pl_retok *r, bool inside);
/* The text is now this one; *same of its ids are as they were before. */
PL_MUST_CHECK
enum pl_status pl_retok_set(struct pl_retok *r, const char *text, size_t len, size_t *same,
                            struct pl_err *err);
const int32_t *pl_retok_ids(const struct pl_retok *r, size_t *n);
/* Ids whose text ends at or before byte `at`, whether the next one begins there: a border. */
size_t pl_retok_before(const struct pl_retok *r, size_t at, bool *border);
/* The last place at or before byte `at` from which nothing merges back; 0 is one. */
size_t pl_retok_cut(const struct pl_retok *r, const char *text, size_t at);

/*
 * Ids one by one → text. What ends within a character waits for the rest of it.
 */
struct pl_untok {
    const struct pl_tokenizer *t;
    struct pl_ids pending; /* the anchor, then ids that are no text yet */
    size_t anchor;         /* bytes of its text */
    struct pl_buf text, scratch;
};
PL_MUST_CHECK
enum pl_status pl_untok_init(struct pl_untok *u, const struct pl_tokenizer *t, struct pl_err *err);
void pl_untok_release(struct pl_untok *u);
void pl_untok_clear(struct pl_untok *u);
/* Cuts the text back to `len` bytes and forgets what waits. */
void pl_untok_cut(struct pl_untok *u, size_t len);
PL_MUST_CHECK
enum pl_status pl_untok_add(struct pl_untok *u, const int32_t *ids, size_t n, struct pl_err *err);
/* Whether all ids are text: none waits. */
bool pl_untok_whole(const struct pl_untok *u);

#endif
