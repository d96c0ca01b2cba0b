/*
 * A drafter with another vocabulary: its tokens become text, and the text the verifier's tokens;
 * the verified text becomes its tokens the same way. Both are re-tokenised in place (retok.h), so
 * that merges across the border between what stands and what is new come out as for the whole text.
 * Where the verifier's last token ends within a piece of the drafted text, the piece's rest is
 * drafted by itself when the tokenizer can say it, else nothing is.
 */
#ifndef PL_SPEC_DECODE_RETOKENIZE_H
#define PL_SPEC_DECODE_RETOKENIZE_H

#include "spec_decode/draft.h"

#include "model/tokenizer.h"

extern const struct pl_drafter_ops pl_draft_retokenize;

struct pl_retokenize_opts {
    const struct pl_tokenizer *verifier, *drafter; /* borrowed */
    struct pl_draft_model_opts model;              /* the drafter; no tap, temperature 0 */
    size_t most;                                   /* tokens of one draft */
};
/* PL_EUNSUPPORTED: a tokenizer that has no text. */
PL_MUST_CHECK
enum pl_status pl_draft_retokenize_new(const struct pl_retokenize_opts *o, void **out,
                                       struct pl_err *err);
/* Rows of the drafter's last prefill. */
size_t pl_draft_retokenize_prompt(const void *d);

#endif
