/* --draft of generate: an arm's key, whose `model` is here the path of the drafter. */
#ifndef PL_CLI_RUNNER_DRAFT_ARGS_H
#define PL_CLI_RUNNER_DRAFT_ARGS_H

#include "cli/runner/model_args.h"
#include "cli/runner/opts.h"

#define PL_DRAFT_OPTS(at)                                                                          \
    {                                                                                              \
        "draft", 0, PL_ROPT_STR, (at), "JSON", "an arm's `draft`; its model is a path", 0, 0       \
    }

struct pl_draft_call {
    /* device, threads, dtype and kv are the drafter's, too; so is the picture of its kind */
    const struct pl_model_args *args;
    struct pl_model *verifier;
    const struct pl_entry *entry;
    const struct pl_tokenizer *tokenizer; /* the verifier's, or NULL */
    struct pl_prompt prompt;
    size_t tokens;
    const int32_t *eos;
    size_t n_eos;
    bool stop; /* at EOS, else it is suppressed */
    int64_t start_ns;
};

/* Of an event stream and a video, both given, leaves the one that a model of this kind reads. */
void pl_draft_args_split(struct pl_model_args *a, enum pl_vision_kind kind);

/* Generates into ids and token_ns [tokens], *made of them. trace: NULL, or becomes {kv_len, rounds:
 * [{drafted, accepted}], free_tokens, cut, plain} (new reference). PL_EUSAGE, PL_ESWEEP …: what is
 * wrong with the option. */
PL_MUST_CHECK
enum pl_status pl_draft_args_generate(const char *draft, const struct pl_draft_call *c,
                                      int32_t *ids, int64_t *token_ns, size_t *made,
                                      int64_t *prefill_ns, json_t **trace, struct pl_err *err);

#endif
