#include "worker/runner/drafting.h"

#include "base/log.h"
#include "spec_decode/adapter.h"
#include "spec_decode/eagle.h"
#include "spec_decode/medusa.h"
#include "spec_decode/retokenize.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct pl_drafting {
    struct pl_model *models[2];        /* verifier, drafter or NULL */
    struct pl_session *verifier, *own; /* own: the drafter's, or NULL */
    const struct pl_drafter_ops *ops;
    void *drafter;
    struct pl_adapter *adapter; /* NULL: none */
    bool states;                /* the verifier's states are wanted */
    bool ahead;                 /* the adapter goes on from the verifier's states */
    struct pl_lane *lane;
    struct pl_transport *transport; /* of states; NULL: none travel */
    struct pl_spec *spec;
    double sm_share;              /* of the drafter's lane, 0: both on all multiprocessors */
    struct pl_device_split split; /* what that came to */
    struct pl_err not_split;      /* why it could not be, or "" */
    size_t max_prompt, max_tokens;
    struct pl_pruner *pruner; /* of the verifier's prompt, or NULL */
    uint32_t *kv_len;         /* [layers] */
};

enum pl_status pl_drafting_check(const struct pl_draft_opts *draft, const struct pl_arch *verifier,
                                 const struct pl_arch *drafter, struct pl_err *err)
{
    const enum pl_transport_kind transport = pl_transport_by_name(draft->transport);

    if (!verifier->causal || verifier->encoder_layers)
        return pl_fail(err, PL_EUNSUPPORTED, "draft: %s is no decoder: nothing to draft for",
                       verifier->name);
    if (drafter && (!drafter->causal || drafter->encoder_layers))
        return pl_fail(err, PL_EUNSUPPORTED, "draft.model: %s is no decoder: it cannot draft",
                       drafter->name);
    if (transport == PL_TRANSPORT_KINDS)
        return pl_fail(err, PL_ESWEEP, "draft.transport: \"%s\", expected auto, nccl, peer or host",
                       draft->transport);
    if (transport != PL_TRANSPORT_AUTO && transport != PL_TRANSPORT_HOST &&
        !(draft->adapter && pl_draft_needs_model(draft)))
        return pl_fail(err, PL_ESWEEP,
                       "draft.transport: %s carries a drafter's states to an adapter; this draft "
                       "sends ids alone, expected auto or host",
                       draft->transport);
    if (draft->gamma + 1 > verifier->max_positions)
        return pl_fail(err, PL_ERANGE,
                       "draft.gamma: %" PRId64 " tokens a round, the model has %" PRId64
                       " positions",
                       draft->gamma, verifier->max_positions);
    switch (draft->method) {
    case PL_DRAFT_LOOKUP:
        return PL_OK;
    case PL_DRAFT_MODEL:
        return drafter ? pl_draft_check_vocab(drafter, verifier, err)
                       : pl_fail(err, PL_ESWEEP, "draft.model is not known");
    case PL_DRAFT_MEDUSA:
    case PL_DRAFT_EAGLE:
        return PL_OK;
    case PL_DRAFT_RETOKENIZE:
    case PL_DRAFT_ADAPTER:
        return drafter || !pl_draft_needs_model(draft)
                   ? PL_OK
                   : pl_fail(err, PL_ESWEEP, "draft.model is not known");
    default:
        return pl_fail(err, PL_EUNSUPPORTED, "draft.method: this runner has no %s",
                       pl_draft_method_name(draft->method));
    }
}

enum pl_status pl_drafting_check_pieces(const struct pl_draft_opts *draft,
                                        const struct pl_tokenizer *verifier,
                                        const struct pl_tokenizer *drafter, struct pl_err *err)
{
    if (draft->method != PL_DRAFT_MODEL || !verifier || !drafter)
        return PL_OK;
    for (int32_t id = 0; id < pl_tokenizer_info(verifier)->vocab; id++) {
        const char *v = pl_tokenizer_piece(verifier, id), *d = pl_tokenizer_piece(drafter, id);
        if (v != d && (!v || !d || strcmp(v, d) != 0))
            return pl_fail(err, PL_ERANGE,
                           "draft.model: its vocabulary is another one: id %" PRId32
                           " is \"%s\", the verifier\'s is \"%s\"",
                           id, d ? d : "", v ? v : "");
    }
    return PL_OK;
}

static const int final_states = PL_TAP_FINAL;

static size_t least(size_t a, int64_t b)
{
    return (int64_t)a < b ? a : (size_t)b;
}

static size_t tree_nodes(const struct pl_draft_opts *o)
{
    return o->tree == PL_DRAFT_CHAIN ? 0 : (size_t)o->tree_tokens;
}

static enum pl_status make_verifier(struct pl_drafting *d, const struct pl_drafting_opts *o,
                                    size_t most, struct pl_err *err)
{
    const struct pl_arch *a = &pl_model_info(o->verifier)->arch;
    struct pl_session_opts so = {
        .max_tokens =
            least(o->max_prompt + o->max_tokens - 1 + tree_nodes(o->draft), a->max_positions),
        .max_verify = most + 1,
        .taps = &final_states,
        .n_taps = d->states ? 1 : 0,
        .kv_dtype = o->verifier_kv};
    enum pl_status st = PL_OK;

    d->kv_len = calloc((size_t)a->layers, sizeof(*d->kv_len));
    if (!d->kv_len)
        return pl_fail(err, PL_ENOMEM, "no memory to draft");
    if (o->prune && d->states)
        return pl_fail(err, PL_EUNSUPPORTED,
                       "prune beside this draft: it reads the states of the whole prompt");
    if (o->prune)
        st = pl_pruner_create(o->prune, o->verifier, so.max_tokens, o->seed, &d->pruner, err);
    if (st)
        return st;
    if (d->pruner)
        pl_pruner_session_opts(d->pruner, &so);
    return pl_session_create(o->verifier, &so, &d->verifier, err);
}

#define MORE_TOKENS 3 /* most of the drafter's for one of the verifier's that there is room for */

static enum pl_status make_model_drafter(struct pl_drafting *d, const struct pl_drafting_opts *o,
                                         size_t most, struct pl_err *err)
{
    const struct pl_arch *a = &pl_model_info(o->drafter)->arch;
    const bool other = o->draft->method == PL_DRAFT_RETOKENIZE; /* more tokens for the same text */
    size_t prompt = o->max_drafter_prompt ? o->max_drafter_prompt : o->max_prompt;
    size_t tokens = (prompt + o->max_tokens) * (other ? MORE_TOKENS : 1) + most;
    const struct pl_session_opts so = {.max_tokens = least(tokens, a->max_positions),
                                       .max_verify = 32,
                                       .taps = &final_states,
                                       .n_taps = o->draft->adapter ? 1 : 0,
                                       .kv_dtype = o->drafter_kv};
    enum pl_status st = pl_session_create(o->drafter, &so, &d->own, err);

    if (st)
        return st;
    const struct pl_draft_model_opts mo = {
        .session = d->own,
        .max_text = other ? so.max_tokens : o->max_tokens + most,
        .temperature = o->draft->temperature,
        .key = o->seed + 1,
        .masked = other ? o->drafter_masked : o->masked,
        .n_masked = other ? o->n_drafter_masked : o->n_masked,
        .eos = o->drafter_eos,
        .n_eos = o->n_drafter_eos,
        .tap = o->draft->adapter ? 0 : -1,
        .lead = d->ahead,
        .on_device = d->transport && pl_transport_kind(d->transport) != PL_TRANSPORT_HOST};
    d->ops = other ? &pl_draft_retokenize : &pl_draft_model;
    return other
               ? pl_draft_retokenize_new(&(struct pl_retokenize_opts){.verifier = o->tokenizers[0],
                                                                      .drafter = o->tokenizers[1],
                                                                      .model = mo,
                                                                      .most = PL_DRAFT_MAX},
                                         &d->drafter, err)
               : pl_draft_model_new(&mo, &d->drafter, err);
}

static enum pl_status make_heads(struct pl_drafting *d, const struct pl_drafting_opts *o,
                                 struct pl_err *err)
{
    const struct pl_draft_opts *draft = o->draft;
    const struct pl_eagle_opts eo = {.path = draft->weights,
                                     .verifier = o->verifier,
                                     .kv = o->verifier_kv,
                                     .max_prompt = o->max_prompt,
                                     .max_tokens = o->max_tokens,
                                     .depth = (size_t)draft->gamma,
                                     .top = (size_t)draft->tree_top,
                                     .nodes = (size_t)draft->tree_tokens,
                                     .fixed = draft->tree == PL_DRAFT_STATIC,
                                     .temperature = draft->temperature,
                                     .key = o->seed + 1,
                                     .masked = o->masked,
                                     .n_masked = o->n_masked};
    bool eagle = draft->method == PL_DRAFT_EAGLE;
    enum pl_status st = eagle ? pl_draft_eagle_open(&eo, &d->drafter, err)
                              : pl_draft_medusa_open(draft->weights, o->verifier, o->masked,
                                                     o->n_masked, (size_t)draft->tree_top,
                                                     (size_t)draft->tree_tokens, &d->drafter, err);

    d->ops = st ? NULL : eagle ? &pl_draft_eagle : &pl_draft_medusa;
    return st;
}

static enum pl_status make_drafter(struct pl_drafting *d, const struct pl_drafting_opts *o,
                                   size_t most, struct pl_err *err)
{
    const struct pl_draft_opts *draft = o->draft;

    if (draft->method == PL_DRAFT_ADAPTER) {
        const struct pl_adapter_opts ao = {
            .path = draft->weights,
            .kind = draft->adapter,
            .verifier = o->verifier,
            .drafter_width = o->drafter ? (size_t)pl_model_info(o->drafter)->arch.hidden : 0,
            .max_rows = most,
            .masked = o->masked,
            .n_masked = o->n_masked};
        enum pl_status st = pl_adapter_open(&ao, &d->adapter, err);
        if (st || o->drafter)
            return st ? st : make_model_drafter(d, o, most, err);
        d->ops = &pl_draft_b1;
        d->drafter = d->adapter;
        return PL_OK;
    }
    if (draft->method == PL_DRAFT_RETOKENIZE && (!o->tokenizers[0] || !o->tokenizers[1]))
        return pl_fail(err, PL_ENOENT, "draft.method retokenize: %s has no tokenizer",
                       o->tokenizers[0] ? "the drafter" : "the verifier");
    if (draft->method == PL_DRAFT_MODEL || draft->method == PL_DRAFT_RETOKENIZE)
        return make_model_drafter(d, o, most, err);
    if (draft->method == PL_DRAFT_MEDUSA || draft->method == PL_DRAFT_EAGLE)
        return make_heads(d, o, err);
    d->ops = &pl_draft_lookup;
    return pl_draft_lookup_new((int)draft->min_ngram, (int)draft->max_ngram, &d->drafter, err);
}

/* What is left of the prompt is what the rounds go on from. */
static enum pl_status prefilled(void *user, struct pl_session *verifier, struct pl_err *err)
{
    struct pl_drafting *d = user;
    const int32_t layers = pl_model_info(d->models[0])->arch.layers;
    enum pl_status st = d->pruner ? pl_pruner_finish(d->pruner, verifier, err) : PL_OK;

    for (int32_t l = 0; l < layers && !st; l++)
        d->kv_len[l] = (uint32_t)pl_session_kv_len(verifier, l);
    return st;
}

enum pl_status pl_drafting_prompt(struct pl_drafting *d, const struct pl_prune_prompt *p,
                                  struct pl_err *err)
{
    return d->pruner ? pl_pruner_begin(d->pruner, p, err) : PL_OK;
}

const uint32_t *pl_drafting_kv_len(const struct pl_drafting *d)
{
    return d->kv_len;
}

static size_t drafter_width(const struct pl_drafting_opts *o)
{
    return (size_t)pl_model_info(o->drafter)->arch.hidden;
}

/* What carries the drafter's states to the adapter. */
static enum pl_status make_transport(struct pl_drafting *d, const struct pl_drafting_opts *o,
                                     size_t most, struct pl_err *err)
{
    const struct pl_transport_opts to = {
        .from = {pl_model_backend(o->drafter), pl_model_device(o->drafter)},
        .to = {pl_model_backend(o->verifier), pl_model_device(o->verifier)},
        .most = (most + 1) * drafter_width(o)};
    enum pl_status st =
        pl_transport_open(pl_transport_by_name(o->draft->transport), &to, &d->transport, err);

    return st ? pl_err_prefix(err, st, "draft.transport: %s", o->draft->transport) : PL_OK;
}

/* Multiprocessors of its own for each lane, where they are asked for. A GPU, or a driver, that
 * cannot is said, and both lanes go on on all of them. */
static enum pl_status split_lanes(struct pl_drafting *d, double share, struct pl_err *err)
{
    const struct pl_backend *b = pl_model_backend(d->models[0]);
    enum pl_status st;

    if (share <= 0)
        return PL_OK;
    if (!b->split || b != pl_model_backend(d->models[1]))
        return pl_fail(err, PL_ESWEEP,
                       "draft.sm_share: shares out one GPU's multiprocessors, expected device: "
                       "cuda of both models");
    st = b->split(pl_model_device(d->models[0]), pl_model_device(d->models[1]), share, &d->split,
                  &d->not_split);
    if (st == PL_EUNSUPPORTED) {
        pl_log(PL_LOG_WARN, "draft.sm_share: both lanes share all multiprocessors: %s",
               d->not_split.text);
        return PL_OK;
    }
    if (st)
        return pl_fail(err, st, "draft.sm_share: %s", d->not_split.text);
    d->sm_share = share;
    pl_log(PL_LOG_INFO, "draft.sm_share: shared device, the drafter has %d of %d multiprocessors",
           d->split.second, d->split.all);
    return PL_OK;
}

const char *pl_drafting_lanes(const struct pl_drafting *d, struct pl_device_split *out)
{
    *out = d->split;
    return d->sm_share > 0 ? NULL : d->not_split.text;
}

/* While both prefills run each model has half of the cores, else all of them. */
static enum pl_status deal_cores(void *user, bool both, struct pl_err *err)
{
    struct pl_drafting *d = user;
    const struct pl_backend *b = pl_model_backend(d->models[0]);
    enum pl_status st = PL_OK;

    if (both && b->split &&
        b == pl_model_backend(d->models[1])) /* another arm may have had its own */
        st = b->split(pl_model_device(d->models[0]), pl_model_device(d->models[1]), d->sm_share,
                      &d->split, err);
    for (int i = 0; i < 2 && !st; i++)
        st = pl_model_backend(d->models[i])
                 ->narrow(pl_model_device(d->models[i]), both ? i : 0, both ? 2 : 1, err);
    return st;
}

enum pl_status pl_drafting_create(const struct pl_drafting_opts *o, struct pl_drafting **out,
                                  struct pl_err *err)
{
    const struct pl_draft_opts *draft = o->draft;
    size_t most = draft->overlap ? PL_DRAFT_MAX : (size_t)draft->gamma;
    bool eagle = draft->method == PL_DRAFT_EAGLE;
    struct pl_drafting *d = calloc(1, sizeof(*d));
    enum pl_status st;

    if (!d)
        return pl_fail(err, PL_ENOMEM, "no memory to draft");
    d->ahead = draft->adapter && pl_adapter_ahead(draft->adapter);
    d->states = d->ahead || eagle || draft->method == PL_DRAFT_MEDUSA;
    most = tree_nodes(draft) > most ? tree_nodes(draft) : most;
    d->models[0] = o->verifier;
    d->models[1] = o->drafter;
    d->max_prompt = o->max_prompt;
    d->max_tokens = o->max_tokens;
    st = pl_drafting_check(draft, &pl_model_info(o->verifier)->arch,
                           o->drafter ? &pl_model_info(o->drafter)->arch : NULL, err);
    if (!st && draft->overlap && o->drafter == o->verifier)
        st =
            pl_fail(err, PL_ESWEEP,
                    "draft.model is the verifier itself, expected another model, or overlap: none");
    if (!st)
        st = make_verifier(d, o, most, err);
    if (!st && draft->adapter && o->drafter)
        st = make_transport(d, o, most, err);
    if (!st)
        st = make_drafter(d, o, most, err);
    if (!st && draft->overlap)
        st = split_lanes(d, draft->sm_share, err);
    if (!st && draft->overlap)
        st = pl_lane_new(&d->lane, err);
    if (!st) {
        const struct pl_spec_opts so = {
            .verifier = d->verifier,
            .ops = d->ops,
            .drafter = d->drafter,
            .lane = d->lane,
            .transport = d->transport,
            .gamma = (size_t)draft->gamma,
            .nodes = tree_nodes(draft),
            .overlap = draft->overlap,
            .after = draft->after,
            .adaptive = draft->adaptive,
            .prefilled = prefilled,
            .prefilled_user = d,
            .lanes = draft->overlap ? deal_cores : NULL,
            .lanes_user = d,
            .tap = d->states ? 0 : -1,
            .width = d->adapter && d->own ? drafter_width(o) : 0,
            .translate = {.run = d->adapter && d->own ? pl_adapter_translate : NULL,
                          .user = d->adapter,
                          .ahead = d->ahead},
            .with_q = draft->temperature > 0 &&
                      (draft->method == PL_DRAFT_MODEL || (eagle && draft->tree == PL_DRAFT_CHAIN)),
            .max_tokens = o->max_tokens,
            .max_prompt = o->max_prompt,
            .rule = {.temperature = draft->temperature,
                     .key = o->seed,
                     .masked = o->masked,
                     .n_masked = o->n_masked}};
        st = pl_spec_create(&so, &d->spec, err);
    }
    if (st)
        pl_drafting_free(d);
    else
        *out = d;
    return st;
}

void pl_drafting_free(struct pl_drafting *d)
{
    if (!d)
        return;
    pl_lane_free(d->lane);
    pl_spec_free(d->spec);
    if (d->ops)
        d->ops->free(d->drafter);
    pl_adapter_free(d->adapter);
    pl_transport_close(d->transport);
    pl_session_free(d->own);
    pl_session_free(d->verifier);
    pl_pruner_free(d->pruner);
    free(d->kv_len);
    free(d);
}

enum pl_status pl_drafting_generate(struct pl_drafting *d, const struct pl_spec_request *q,
                                    struct pl_spec_result *out, struct pl_err *err)
{
    return pl_spec_generate(d->spec, q, out, err);
}

bool pl_drafting_fits(const struct pl_drafting *d, size_t prompt, size_t tokens)
{
    return d && d->max_prompt >= prompt && d->max_tokens >= tokens;
}

const struct pl_session *pl_drafting_verifier(const struct pl_drafting *d)
{
    return d->verifier;
}

const struct pl_transport *pl_drafting_transport(const struct pl_drafting *d)
{
    return d->transport;
}

size_t pl_drafting_own_prompt(const struct pl_drafting *d, size_t prompt)
{
    return d->ops == &pl_draft_retokenize ? pl_draft_retokenize_prompt(d->drafter) : prompt;
}

const struct pl_session *pl_drafting_drafter(const struct pl_drafting *d)
{
    return d->own;
}
