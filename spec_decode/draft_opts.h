/* An arm's `draft` (docs/SWEEP.md), read. Pure. */
#ifndef PL_SPEC_DECODE_DRAFT_OPTS_H
#define PL_SPEC_DECODE_DRAFT_OPTS_H

#include "base/json.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum pl_draft_method {
    PL_DRAFT_LOOKUP,
    PL_DRAFT_MODEL,
    PL_DRAFT_EAGLE,
    PL_DRAFT_MEDUSA,
    PL_DRAFT_RETOKENIZE,
    PL_DRAFT_ADAPTER
};
const char *pl_draft_method_name(enum pl_draft_method m);

enum pl_draft_tree { PL_DRAFT_CHAIN, PL_DRAFT_STATIC, PL_DRAFT_DYNAMIC };

struct pl_draft_opts {
    enum pl_draft_method method;
    const char *model;   /* borrowed from the JSON; NULL: none */
    const char *adapter; /* "L1" …; NULL: none */
    const char *weights; /* of an adapter or heads; NULL: none */
    const char *transport;
    int64_t gamma;
    bool overlap; /* prefills run beside each other, the drafter runs ahead */
    bool after;   /* drafts gamma tokens a round after the prefill */
    bool adaptive;
    double temperature;
    double sm_share; /* of one GPU's multiprocessors while both lanes run; 0: no part of its own */
    int64_t min_ngram, max_ngram; /* prompt_lookup */
    enum pl_draft_tree tree;
    int64_t tree_top, tree_tokens; /* children of a node, nodes; a tree is gamma deep */
};

/* draft: the key's value, an object. PL_ESWEEP names the key, what stands there and what may. */
PL_MUST_CHECK
enum pl_status pl_draft_opts_read(const json_t *draft, struct pl_draft_opts *out,
                                  struct pl_err *err);
/* Whether it drafts with a model of its own. */
bool pl_draft_needs_model(const struct pl_draft_opts *o);

#endif
