/*
 * Who drafts: a const vtable over an opaque state. A drafter is told the whole verified text each
 * time and keeps its own state (a KV cache) in step with it: what it fed and was not verified, it
 * rolls back by itself. Nothing is allocated while drafting. One thread at a time; a drafter with a
 * model of its own (`lane`) may be called by another thread than the verifier's, at the same time.
 */
#ifndef PL_SPEC_DECODE_DRAFT_H
#define PL_SPEC_DECODE_DRAFT_H

#include "base/status.h"
#include "model/backend.h"
#include "model/session.h"
#include "spec_decode/accept.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_DRAFT_MAX 255 /* tokens of one verify but its root */

/* What a drafter proposes. `states` travel where an adapter makes the tokens from them. */
struct pl_draft {
    int32_t *ids;     /* [max] */
    int32_t *parents; /* [max]; used when tree */
    bool tree;
    float *q;               /* [max][vocab], or NULL: drafters then propose without chance */
    bool has_q;             /* q was filled */
    float *states;          /* [max][width] the drafter's hidden states that predict ids, or NULL */
    struct pl_tensor *rows; /* the same on a device instead (transport.h), or NULL */
    const struct pl_backend *backend; /* rows' */
    size_t first;                     /* the row of ids[0] */
    size_t n, max, width, vocab;
};
PL_MUST_CHECK
enum pl_status pl_draft_init(struct pl_draft *d, size_t max, size_t width, size_t vocab_q,
                             struct pl_err *err);
void pl_draft_release(struct pl_draft *d);

/* The verified text. */
struct pl_verified {
    const int32_t
        *ids; /* [n_prompt + n]: the prompt (NULL ids where it is no text: −1), generated */
    size_t n_prompt, n; /* n ≥ 1; the last one has been fed to nobody yet */
    /* The verifier's states after its final norm of the rows that it last ran, the last of which
     * predicted ids' last token; NULL unless the drafter asked for them. */
    const float *states; /* [n_states][hidden] */
    size_t n_states;
};

struct pl_drafter_ops {
    const char *name;
    bool lane;   /* has a prefill of its own that can run beside the verifier's */
    bool states; /* wants pl_verified.states */
    bool prompt; /* … of the whole prompt, after the prefill */
    bool first;  /* its run-ahead begins with the token that the verifier's prefill gives, too */
    /* A new text. prompt: the drafter's own, or the verifier's. key: of this text's draws; two
     * texts whose draws were the same would not be drawn independently. */
    enum pl_status (*begin)(void *d, const struct pl_prompt *prompt, uint64_t key,
                            struct pl_err *err);
    /* Decodes until stop(arg) or `most` tokens, from its prefill on. */
    enum pl_status (*run_ahead)(void *d, bool (*stop)(void *arg), void *arg, size_t most,
                                struct pl_draft *out, struct pl_err *err);
    /* Proposes at most `want` ≥ 1 tokens after the text, or a tree of that depth, whose nodes come
     * after their parents, the most promising first where that may be; none (out->n 0) is no
     * mistake. */
    enum pl_status (*draft)(void *d, const struct pl_verified *text, size_t want,
                            struct pl_draft *out, struct pl_err *err);
    void (*free)(void *d); /* accepts NULL */
};

/* --- the drafters; `out` is the state for their ops --- */

extern const struct pl_drafter_ops pl_draft_lookup;
/* Prompt lookup: the text's last n-gram (longest first, max_ngram … min_ngram) at its latest
 * earlier place; what followed there is the draft. */
PL_MUST_CHECK
enum pl_status pl_draft_lookup_new(int min_ngram, int max_ngram, void **out, struct pl_err *err);

extern const struct pl_drafter_ops pl_draft_model;
struct pl_draft_model_opts {
    struct pl_session *session; /* borrowed; max_verify ≥ 2 */
    size_t max_text;            /* most generated tokens that it is ever told */
    double temperature;         /* > 0: draws, and fills q */
    uint64_t key;
    const int32_t *masked; /* copied, like eos */
    size_t n_masked;
    const int32_t *eos; /* behind one of these it drafts no more */
    size_t n_eos;
    int tap;   /* ≥ 0: that tap's states travel with the draft: the one that chose each id, */
    bool lead; /* or the one before it */
    bool on_device; /* drafts have `rows`, not `states` */
};
PL_MUST_CHECK
enum pl_status pl_draft_model_new(const struct pl_draft_model_opts *o, void **out,
                                  struct pl_err *err);
/* Two models may draft for each other: the same ids mean the same pieces. PL_ERANGE says what
 * differs. `looser`: the drafter's vocabulary may be a prefix of the verifier's. */
PL_MUST_CHECK
enum pl_status pl_draft_check_vocab(const struct pl_arch *drafter, const struct pl_arch *verifier,
                                    struct pl_err *err);

#endif
