/*
 * Token pruning of sessions: an arm's `prune` becomes stage hooks of the engine (tokens are
 * dropped between blocks), a reduction of the KV cache right after the prefill, or a merge of a
 * picture's tokens before the model. Methods
 * and their sources: pruning/ NAME.c; keys: base/prune_keys.h, docs/SWEEP.md.
 *
 * Life: create → session_opts → pl_session_create; then for each prompt begin → pl_session_prefill
 * → finish. A pruner outlives its sessions; several may share it, whose prompts then run one after
 * the other: begin and finish bracket one prefill. Thread rule: the model's. Between begin and
 * finish nothing is allocated unless a trace was asked for.
 */
#ifndef PL_PRUNING_PRUNER_H
#define PL_PRUNING_PRUNER_H

#include "base/json.h"
#include "base/status.h"
#include "model/session.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pl_pruner;

/* Whether this `prune` can be run on a model of this shape: options, layers, the shapes in the file
 * of scorers. PL_ESWEEP names the option, PL_EFORMAT the tensor, PL_EUNSUPPORTED the model. */
PL_MUST_CHECK
enum pl_status pl_prune_check(const json_t *prune, const struct pl_arch *a, struct pl_err *err);

/* max_tokens: the longest prompt. seed: of what is drawn, unless the options have one. Errors as
 * above, PL_ENOMEM. */
PL_MUST_CHECK
enum pl_status pl_pruner_create(const json_t *prune, struct pl_model *m, size_t max_tokens,
                                uint64_t seed, struct pl_pruner **out, struct pl_err *err);
void pl_pruner_free(struct pl_pruner *p); /* accepts NULL */
/* Adds the hooks and the kind of positions to a session's options; borrowed from p. */
void pl_pruner_session_opts(const struct pl_pruner *p, struct pl_session_opts *o);
/* What the pruner holds besides its session. */
int64_t pl_pruner_bytes(const struct pl_pruner *p);

/* Of methods that make a picture's rows fewer before the language model: what
 * pl_vision_encode_merged takes, before `begin` of the prompt with them; borrowed from p. NULL: the
 * method is another one, or keeps everything. */
const struct pl_vision_merge *pl_pruner_merge(const struct pl_pruner *p);

struct pl_prune_prompt {
    size_t n;
    uint64_t key;          /* of the prompt: what is drawn depends on it (a hash of its ids) */
    const uint8_t *visual; /* [n] 1: the token stands for a part of a picture; NULL: none does.
                              Borrowed until finish */
};
/* PL_ERANGE: more than max_tokens; PL_EUSAGE: the method prunes visual tokens and there are none.
 */
PL_MUST_CHECK
enum pl_status pl_pruner_begin(struct pl_pruner *p, const struct pl_prune_prompt *prompt,
                               struct pl_err *err);
/* After the prefill: reduces the session's KV, where the method does that. */
PL_MUST_CHECK
enum pl_status pl_pruner_finish(struct pl_pruner *p, struct pl_session *s, struct pl_err *err);

/* From the next begin on, keeps what each stage saw and chose. */
void pl_pruner_set_trace(struct pl_pruner *p, bool on);
/* {stages: [{layer, scores, kept}], kept_kv: [layer][kv head][…]} of the last prompt (kept: places
 * in the prompt; kept_kv only where KV was reduced; merged: [picture][patches that stayed], since
 * the last trace). New reference; NULL: no memory. */
json_t *pl_pruner_trace(const struct pl_pruner *p);

#endif
