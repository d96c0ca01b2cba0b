/*
 * An arm's `draft`, set up on loaded models: sessions, the drafter, the rounds. The engine and
 * `paceline-runner generate --draft` use the same.
 */
#ifndef PL_WORKER_RUNNER_DRAFTING_H
#define PL_WORKER_RUNNER_DRAFTING_H

#include "base/json.h"
#include "base/status.h"
#include "model/model.h"
#include "model/session.h"
#include "model/tokenizer.h"
#include "pruning/pruner.h"
#include "spec_decode/draft_opts.h"
#include "spec_decode/round.h"

#include <stddef.h>
#include <stdint.h>

struct pl_drafting_opts {
    struct pl_model *verifier, *drafter; /* borrowed; drafter NULL: the method needs none */
    enum pl_dtype verifier_kv, drafter_kv;
    const struct pl_draft_opts *draft; /* read only while creating */
    size_t max_prompt, max_tokens;     /* of a trial */
    size_t max_drafter_prompt;         /* 0: max_prompt */
    const int32_t *masked;             /* EOS that may not come */
    size_t n_masked;
    const int32_t *drafter_eos; /* where the drafter ends; n 0: nowhere */
    size_t n_drafter_eos;
    /* retokenize: the verifier's and the drafter's (borrowed), and ids of the drafter's own that
     * may not come. */
    const struct pl_tokenizer *tokenizers[2];
    const int32_t *drafter_masked;
    size_t n_drafter_masked;
    uint64_t seed;       /* of sampling, and of what a pruner draws */
    const json_t *prune; /* the verifier's prompt is pruned so; NULL: it is not. Read only while
                            creating */
};

struct pl_drafting;

/* What of `draft` cannot work with these models, from their descriptions: one text for the first
 * mistake. drafter NULL: none was named. */
PL_MUST_CHECK
enum pl_status pl_drafting_check(const struct pl_draft_opts *draft, const struct pl_arch *verifier,
                                 const struct pl_arch *drafter, struct pl_err *err);
/* Two models that draft for each other must mean the same pieces by the same ids, where both say
 * (NULL: not said). PL_ERANGE names the first id that differs. */
PL_MUST_CHECK
enum pl_status pl_drafting_check_pieces(const struct pl_draft_opts *draft,
                                        const struct pl_tokenizer *verifier,
                                        const struct pl_tokenizer *drafter, struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_drafting_create(const struct pl_drafting_opts *o, struct pl_drafting **out,
                                  struct pl_err *err);
void pl_drafting_free(struct pl_drafting *d); /* accepts NULL; before its models */
/* With `prune`, before generate: the prompt that comes. */
PL_MUST_CHECK
enum pl_status pl_drafting_prompt(struct pl_drafting *d, const struct pl_prune_prompt *p,
                                  struct pl_err *err);
/* [layers] the verifier's KV rows after its last prefill. */
const uint32_t *pl_drafting_kv_len(const struct pl_drafting *d);
PL_MUST_CHECK
enum pl_status pl_drafting_generate(struct pl_drafting *d, const struct pl_spec_request *q,
                                    struct pl_spec_result *out, struct pl_err *err);
/* Whether it has room for a trial of that size. */
bool pl_drafting_fits(const struct pl_drafting *d, size_t prompt, size_t tokens);
const struct pl_session *pl_drafting_verifier(const struct pl_drafting *d);
const struct pl_session *pl_drafting_drafter(const struct pl_drafting *d);     /* NULL: none */
const struct pl_transport *pl_drafting_transport(const struct pl_drafting *d); /* NULL: none */
/* With draft.sm_share: the multiprocessors of both lanes; NULL. Else why both share all of them. */
const char *pl_drafting_lanes(const struct pl_drafting *d, struct pl_device_split *out);
/* Rows of the drafter's prefill for a prompt of so many ids of the verifier's. */
size_t pl_drafting_own_prompt(const struct pl_drafting *d, size_t prompt);

#endif
