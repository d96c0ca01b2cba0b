/*
 * Speculative decoding of one sequence. A round: draft → one verify of [last token, drafts] → the
 * accepted prefix and one token of the verifier's own → both sides forget what was not accepted.
 *
 *   generated = 1 + Σ(accepted + 1) + plain steps − cut
 *
 * 1 is the token that the prefill gives; a plain step is a decode where nothing was drafted; cut
 * are tokens of the last round behind an end of sequence. pl_spec_generate checks the identity.
 *
 * A draft may be a tree: all of its nodes are drafted tokens, and accepted is the path that the
 * verifier took.
 *
 * With a drafter that has a prefill of its own, `overlap` starts both prefills together, each in a
 * lane of its own; the drafter decodes until the verifier's prefill has ended (free tokens). Its
 * first token is dropped, since the verifier's own stands in its place; the rest is the first
 * round's draft. After the prefill the lanes take turns, on the caller's thread.
 */
#ifndef PL_SPEC_DECODE_ROUND_H
#define PL_SPEC_DECODE_ROUND_H

#include "base/status.h"
#include "model/session.h"
#include "spec_decode/accept.h"
#include "spec_decode/draft.h"
#include "spec_decode/lane.h"
#include "spec_decode/transport.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_SPEC_MAX_SPANS 256

enum pl_spec_phase {
    PL_SPEC_PREFILL,
    PL_SPEC_DRAFT, /* the verifier's lane drafts, or has the other one draft and waits for that */
    PL_SPEC_ADAPTER,
    PL_SPEC_VERIFY,
    PL_SPEC_DECODE,
    PL_SPEC_WAIT,      /* for the other lane, and what is left between phases */
    PL_SPEC_D_VISION,  /* what the drafter's prompt is made of */
    PL_SPEC_D_PREFILL, /* the drafter's own model */
    PL_SPEC_D_DECODE,
    PL_SPEC_D_WAIT, /* between those, from the trial's start to the last token; has no spans */
    PL_SPEC_PHASES
};

struct pl_spec_span {
    uint8_t lane;             /* 0 verifier, 1 drafter */
    uint8_t kind;             /* enum pl_spec_phase */
    int64_t start_ns, end_ns; /* since the request's start */
};

struct pl_spec_round {
    uint32_t drafted, accepted;
    int64_t draft_us, verify_us;
};

/* Makes tokens of the states that a drafter sent; called in the verifier's lane (adapters). */
struct pl_spec_translate {
    /* v0: the verifier's state that chose the last verified token; NULL without a tap */
    enum pl_status (*run)(void *user, struct pl_draft *draft, const float *v0, struct pl_err *err);
    void *user; /* NULL run: the draft's ids are the verifier's already */
    bool ahead; /* it begins at v0, so with a run-ahead's second token */
};

struct pl_spec_opts {
    struct pl_session *verifier; /* borrowed; max_verify > every draft */
    const struct pl_drafter_ops *ops;
    void *drafter; /* borrowed */
    struct pl_spec_translate translate;
    struct pl_lane *lane;           /* for overlap; borrowed */
    struct pl_transport *transport; /* of the states in a draft; borrowed. NULL: both lanes' memory
                                       is the host's */
    size_t gamma;                   /* tokens of a round's chain, or a tree's depth */
    size_t nodes;                   /* most of a tree; 0: chains */
    bool overlap, after, adaptive;
    int tap;      /* the verifier's tap with final states, for drafters that want them; else −1 */
    size_t width; /* of the states in a draft; 0: none travel */
    bool with_q;  /* the drafter fills q */
    size_t max_tokens; /* most generated tokens of a request */
    size_t max_prompt;
    struct pl_accept_rule rule; /* masked: copied; p: its own */
    /* The verifier's prompt was just read: pruners reduce its KV. In the caller's lane; may be
     * NULL. */
    enum pl_status (*prefilled)(void *user, struct pl_session *verifier, struct pl_err *err);
    void *prefilled_user;
    /* Told when both lanes begin to run at the same time, and when that ends: a CPU's cores are
     * then dealt. May be NULL. */
    enum pl_status (*lanes)(void *user, bool both, struct pl_err *err);
    void *lanes_user;
};

struct pl_spec_request {
    const int32_t *ids; /* the verifier's prompt as text; NULL: none, then embeds */
    const float *embeds;
    size_t n_prompt;
    struct pl_prompt drafter_prompt; /* n 0: the verifier's */
    /* Makes the drafter's prompt, in the drafter's lane; NULL: it is the one above. */
    enum pl_status (*look)(void *user, struct pl_prompt *out, struct pl_err *err);
    void *look_user;
    size_t tokens;      /* ≥ 1 */
    const int32_t *eos; /* generation ends behind one of these */
    size_t n_eos;
    uint64_t key;     /* sampling: of this request's draws, beside the rule's */
    int64_t start_ns; /* of pl_now_ns: what times are counted from */
};

struct pl_spec_result {
    const int32_t *tokens;   /* [n] */
    const int64_t *token_ns; /* [n] since the start */
    size_t n;
    const struct pl_spec_round *rounds; /* [n_rounds] */
    size_t n_rounds;
    uint32_t drafted, accepted, free_tokens, cut, plain;
    int64_t phase_ns[PL_SPEC_PHASES];
    int64_t ready_ns;                        /* the prefills' begin, since the start */
    int64_t first_ns, last_ns;               /* first and last token, since the start */
    const float *first_logits, *last_logits; /* [vocab]; last: NULL where a device chose */
    const struct pl_spec_span *spans;        /* [n_spans] the first PL_SPEC_MAX_SPANS */
    size_t n_spans;
};

struct pl_spec;

PL_MUST_CHECK
enum pl_status pl_spec_create(const struct pl_spec_opts *o, struct pl_spec **out,
                              struct pl_err *err);
void pl_spec_free(struct pl_spec *s); /* accepts NULL */
/* Resets both sides and generates. out's arrays live until the next call. PL_ERANGE: prompt or
 * tokens beyond the sessions; PL_EFORMAT: NaN or infinite logits. */
PL_MUST_CHECK
enum pl_status pl_spec_generate(struct pl_spec *s, const struct pl_spec_request *q,
                                struct pl_spec_result *out, struct pl_err *err);

#endif
