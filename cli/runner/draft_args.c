#include "cli/runner/draft_args.h"

#include "worker/runner/drafting.h"

#include <string.h>

static json_t *trace_of(const struct pl_draft_call *c, const struct pl_spec_result *r)
{
    json_t *rounds = json_array(), *kv = json_array();

    for (size_t i = 0; i < r->n_rounds; i++)
        json_array_append_new(rounds,
                              json_pack("{s:I,s:I}", "drafted", (json_int_t)r->rounds[i].drafted,
                                        "accepted", (json_int_t)r->rounds[i].accepted));
    for (int32_t l = 0; l < pl_model_info(c->verifier)->arch.layers; l++)
        json_array_append_new(kv, json_integer((json_int_t)c->prompt.n)); /* after prefill */
    return json_pack("{s:[],s:o,s:o,s:I,s:I,s:I}", "stages", "kv_len", kv, "rounds", rounds,
                     "free_tokens", (json_int_t)r->free_tokens, "cut", (json_int_t)r->cut, "plain",
                     (json_int_t)r->plain);
}

void pl_draft_args_split(struct pl_model_args *a, enum pl_vision_kind kind)
{
    if (!a->events || !(a->video || a->image || a->pixels))
        return;
    if (kind == PL_VISION_EVENTGPT)
        a->video = a->image = a->pixels = NULL;
    else
        a->events = NULL;
}

/* What the drafter reads: the verifier's ids, or its own picture and question. */
static enum pl_status drafter_input(const struct pl_draft_call *c, const char *path,
                                    struct pl_model *drafter, struct pl_model_input *in,
                                    struct pl_err *err)
{
    const enum pl_vision_kind kind = pl_model_info(drafter)->vision.kind;
    struct pl_model_args a = *c->args;
    struct pl_tokenizer *t = NULL;
    struct pl_err why = {""};
    enum pl_status st;

    if (!c->prompt.embeds)
        return PL_OK;
    if (kind == PL_VISION_EVENTGPT && !a.events) /* it would take the verifier's clip for one */
        return pl_fail(err, PL_EUSAGE, "--events is needed: the drafter %s looks at event streams",
                       path);
    pl_draft_args_split(&a, kind);
    if (pl_entry_tokenizer(path, &pl_model_info(drafter)->arch, &t, &why) != PL_OK)
        t = NULL;
    st = pl_model_args_input(&a, "generate", t, &why, drafter, in, err);
    pl_tokenizer_free(t);
    return st ? pl_err_prefix(err, st, "the drafter") : PL_OK;
}

/* The drafter at the path that `model` names, with the verifier's options. */
static enum pl_status load_drafter(const struct pl_draft_opts *o, const struct pl_draft_call *c,
                                   json_t **json, struct pl_entry *entry, struct pl_model **out,
                                   struct pl_tokenizer **t, struct pl_err *err)
{
    struct pl_model_args a = *c->args;
    struct pl_err none = {""};
    enum pl_status st;

    a.weights = NULL;
    st = pl_model_args_load(&a, o->model, json, entry, out, err);
    if (!st && pl_entry_tokenizer(o->model, &pl_model_info(*out)->arch, t, &none) == PL_OK)
        st = pl_drafting_check_pieces(o, c->tokenizer, *t, err);
    return st;
}

enum pl_status pl_draft_args_generate(const char *draft, const struct pl_draft_call *c,
                                      int32_t *ids, int64_t *token_ns, size_t *made,
                                      int64_t *prefill_ns, json_t **trace, struct pl_err *err)
{
    json_error_t why;
    json_t *key = json_loads(draft, JSON_REJECT_DUPLICATES, &why), *json = NULL;
    struct pl_drafting *d = NULL;
    struct pl_model *drafter = NULL;
    struct pl_tokenizer *t = NULL;
    struct pl_draft_opts o;
    struct pl_entry entry;
    struct pl_spec_result r;
    struct pl_model_input in = {.rows = 0};
    struct pl_prompt theirs = {.n = 0};
    enum pl_status st;

    if (!key)
        return pl_fail(err, PL_EUSAGE, "--draft: %s, expected an arm's draft as JSON", why.text);
    st = pl_draft_opts_read(key, &o, err);
    if (!st && o.model)
        st = load_drafter(&o, c, &json, &entry, &drafter, &t, err);
    if (!st && drafter)
        st = drafter_input(c, o.model, drafter, &in, err);
    if (!st && in.embeds)
        theirs = pl_model_input_prompt(&in, &pl_model_info(drafter)->arch);
    if (!st) {
        const struct pl_drafting_opts opts = {
            .verifier = c->verifier,
            .verifier_kv = pl_entry_kv(c->entry, pl_model_info(c->verifier)->dtype),
            .drafter = drafter,
            .drafter_kv = drafter ? pl_entry_kv(&entry, pl_model_info(drafter)->dtype) : PL_DT_AUTO,
            .draft = &o,
            .max_prompt = c->prompt.n,
            .max_drafter_prompt = theirs.n,
            .max_tokens = c->tokens,
            .masked = c->eos,
            .n_masked = c->stop ? 0 : c->n_eos,
            .tokenizers = {c->tokenizer, t},
            .seed = 1};
        st = pl_drafting_create(&opts, &d, err);
    }
    if (!st) {
        const struct pl_spec_request q = {.ids = c->prompt.ids,
                                          .embeds = c->prompt.embeds,
                                          .n_prompt = c->prompt.n,
                                          .drafter_prompt = theirs,
                                          .tokens = c->tokens,
                                          .eos = c->eos,
                                          .n_eos = c->stop ? c->n_eos : 0,
                                          .start_ns = c->start_ns};
        st = pl_drafting_generate(d, &q, &r, err);
    }
    if (!st) {
        memcpy(ids, r.tokens, r.n * sizeof(*ids));
        memcpy(token_ns, r.token_ns, r.n * sizeof(*token_ns));
        *made = r.n;
        *prefill_ns = r.phase_ns[PL_SPEC_PREFILL];
        if (trace && !(*trace = trace_of(c, &r)))
            st = pl_fail(err, PL_ENOMEM, "no memory for a trace");
    }
    pl_drafting_free(d);
    pl_model_input_release(&in);
    pl_model_free(drafter);
    pl_tokenizer_free(t);
    json_decref(json);
    json_decref(key);
    return st;
}
