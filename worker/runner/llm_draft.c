/* The drafting arms of the real engine: what `describe` says of them, their set-up, their trials.
 */
#include "base/hash.h"
#include "worker/runner/llm.h"

#include <string.h>

static const json_t *draft_of(const json_t *arm)
{
    const json_t *d = json_object_get(arm, "draft");

    return d && !json_is_null(d) ? d : NULL;
}

/* Whether both models' tokenizers mean the same by an id; one that is not there says nothing. */
static enum pl_status check_pieces(const struct pl_draft_opts *o, const json_t *q, const char *path,
                                   const struct pl_arch *verifier, const struct pl_arch *drafter,
                                   struct pl_err *err)
{
    const char *own = pl_json_get_str(json_object_get(q, "model"), "path", "");
    struct pl_tokenizer *v = NULL, *d = NULL;
    struct pl_err none = {""};
    enum pl_status st = PL_OK;

    if (pl_entry_tokenizer(own, verifier, &v, &none) == PL_OK &&
        pl_entry_tokenizer(path, drafter, &d, &none) == PL_OK)
        st = pl_drafting_check_pieces(o, v, d, err);
    pl_tokenizer_free(v);
    pl_tokenizer_free(d);
    return st;
}

/* What joins two GPUs needs both models on one. */
static enum pl_status check_transport(const struct pl_draft_opts *o, const json_t *q,
                                      struct pl_err *err)
{
    const enum pl_transport_kind k = pl_transport_by_name(o->transport);

    for (int i = 0; i < 2 && (k == PL_TRANSPORT_NCCL || k == PL_TRANSPORT_PEER); i++) {
        const json_t *entry = json_object_get(q, i ? "draft_model" : "model");
        const char *device = pl_json_get_str(entry, "device", "auto");
        if (json_is_object(entry) && strncmp(device, "cuda", 4) != 0)
            return pl_fail(err, PL_ESWEEP,
                           "draft.transport: %s joins two GPUs and %s runs on device %s, expected "
                           "cuda, or transport auto or host",
                           o->transport, i ? "the drafter" : "the verifier", device);
    }
    return PL_OK;
}

/* Multiprocessors are shared out on one GPU. */
static enum pl_status check_share(const struct pl_draft_opts *o, const json_t *q,
                                  struct pl_err *err)
{
    for (int i = 0; i < 2 && o->sm_share > 0; i++) {
        const char *device =
            pl_json_get_str(json_object_get(q, i ? "draft_model" : "model"), "device", "auto");
        if (strncmp(device, "cuda", 4) != 0)
            return pl_fail(err, PL_ESWEEP,
                           "draft.sm_share: shares out one GPU's multiprocessors and %s runs on "
                           "device %s, expected cuda",
                           i ? "the drafter" : "the verifier", device);
    }
    return PL_OK;
}

enum pl_status llm_draft_describe(const json_t *q, const struct pl_arch *verifier, int64_t tokens,
                                  struct llm_draft_info *out, struct pl_err *err)
{
    const json_t *draft = draft_of(json_object_get(q, "arm"));
    const json_t *entry = json_object_get(q, "draft_model");
    struct pl_draft_opts o;
    struct pl_model_opts opts;
    struct pl_model_info info;
    struct pl_entry e;
    enum pl_status st;

    *out = (struct llm_draft_info){.max_rounds = 0};
    if (!draft)
        return PL_OK;
    st = pl_draft_opts_read(draft, &o, err);
    if (st)
        return st;
    st = check_transport(&o, q, err);
    if (!st)
        st = check_share(&o, q, err);
    if (st)
        return st;
    out->max_rounds = tokens > 1 ? tokens - 1 : 1;
    if (!json_is_object(entry))
        return pl_drafting_check(&o, verifier, NULL, err);
    st = pl_entry_read(entry, &e, err);
    if (st)
        return st;
    pl_entry_model_opts(&e, 1, NULL, 0, &opts);
    st = pl_model_describe(e.path, &opts, &info, err);
    if (st)
        return st;
    out->layers = info.arch.layers;
    out->weights_bytes = info.weights_bytes;
    out->kv_bytes_per_token = pl_arch_kv_bytes_per_token(&info.arch, pl_entry_kv(&e, info.dtype));
    out->synthetic = info.random;
    out->reads = llm_reads(&info.vision);
    if (llm_asks(json_object_get(q, "sample")) && !out->reads)
        return pl_fail(err, PL_EUNSUPPORTED,
                       "draft.model: %s reads text alone: it cannot draft for a scene",
                       info.arch.name);
    st = pl_drafting_check(&o, verifier, &info.arch, err);
    return st ? st : check_pieces(&o, q, e.path, verifier, &info.arch, err);
}

enum pl_status llm_draft_arm(struct llm_state *s, struct llm_arm *a, const json_t *arm,
                             struct pl_err *err)
{
    const json_t *draft = draft_of(arm);
    enum pl_status st;

    pl_drafting_free(a->drafting);
    json_decref(a->draft);
    a->drafting = NULL;
    a->draft = NULL;
    a->drafter = NULL;
    if (!draft)
        return PL_OK;
    a->draft = json_deep_copy(draft);
    if (!a->draft)
        return pl_fail(err, PL_ENOMEM, "engine: no memory");
    st = pl_draft_opts_read(a->draft, &a->draft_opts, err);
    if (!st && a->draft_opts.temperature <= 0)
        a->draft_opts.temperature = s->temperature;
    if (st || !a->draft_opts.model)
        return st;
    for (struct llm_model *m = s->models; m; m = m->next)
        if (strcmp(m->name, a->draft_opts.model) == 0)
            a->drafter = m;
    if (!a->drafter)
        return pl_fail(err, PL_ESWEEP, "draft.model: %s is not loaded", a->draft_opts.model);
    return pl_drafting_check_pieces(&a->draft_opts, a->model->tokenizer, a->drafter->tokenizer,
                                    err);
}

enum pl_status llm_draft_ready(const struct llm_state *s, struct llm_arm *a, int64_t context,
                               int64_t tokens, struct pl_err *err)
{
    struct pl_drafting_opts o = {
        .verifier = a->model->model,
        .verifier_kv = pl_entry_kv(&a->model->entry, pl_model_info(a->model->model)->dtype),
        .draft = &a->draft_opts,
        .max_prompt = (size_t)context,
        .max_tokens = (size_t)tokens,
        .masked = a->model->eos,
        .n_masked = s->stop_at_eos ? 0 : a->model->n_eos,
        .tokenizers = {a->model->tokenizer, a->drafter ? a->drafter->tokenizer : NULL},
        .seed = s->seed,
        .prune = a->pruned.prune};

    if (pl_drafting_fits(a->drafting, (size_t)context, (size_t)tokens) &&
        a->own_prompt <= a->own_room)
        return PL_OK;
    a->own_room = a->own_prompt > context ? a->own_prompt : context;
    o.max_drafter_prompt = (size_t)a->own_room;
    if (a->drafter) {
        o.drafter = a->drafter->model;
        o.drafter_eos = a->drafter->eos;
        o.n_drafter_eos = s->stop_at_eos ? a->drafter->n_eos : 0;
        o.drafter_masked = a->drafter->eos;
        o.n_drafter_masked = s->stop_at_eos ? 0 : a->drafter->n_eos;
        o.drafter_kv = pl_entry_kv(&a->drafter->entry, pl_model_info(a->drafter->model)->dtype);
    }
    pl_drafting_free(a->drafting);
    a->drafting = NULL;
    return pl_drafting_create(&o, &a->drafting, err);
}

enum pl_status llm_draft_say(const struct llm_arm *a, json_t *said, struct pl_err *err)
{
    const struct pl_transport *t = pl_drafting_transport(a->drafting);
    json_t *o =
        t ? json_pack("{s:s,s:b}", "transport", pl_transport_kind_name(pl_transport_kind(t)),
                      "shared_device", pl_transport_shared(t))
          : json_object();
    struct pl_device_split lanes;
    const char *why;

    if (o && a->draft_opts.sm_share > 0) {
        why = pl_drafting_lanes(a->drafting, &lanes);
        if (why)
            json_object_set_new(o, "not_split", json_string(why));
        else
            json_object_update_new(o, json_pack("{s:b,s:[i,i]}", "shared_device", 1,
                                                "multiprocessors", lanes.second, lanes.all));
    }
    if (!o)
        return pl_fail(err, PL_ENOMEM, "engine: no memory");
    if (json_object_size(o) == 0)
        json_decref(o);
    else if (json_object_set_new(said, a->name, o))
        return pl_fail(err, PL_ENOMEM, "engine: no memory");
    return PL_OK;
}

static const enum pl_phase phases[PL_SPEC_PHASES] = {
    [PL_SPEC_PREFILL] = PL_PHASE_PREFILL,   [PL_SPEC_DRAFT] = PL_PHASE_DRAFT,
    [PL_SPEC_ADAPTER] = PL_PHASE_ADAPTER,   [PL_SPEC_VERIFY] = PL_PHASE_VERIFY,
    [PL_SPEC_DECODE] = PL_PHASE_DECODE,     [PL_SPEC_WAIT] = PL_PHASE_WAIT,
    [PL_SPEC_D_VISION] = PL_PHASE_D_VISION, [PL_SPEC_D_PREFILL] = PL_PHASE_D_PREFILL,
    [PL_SPEC_D_DECODE] = PL_PHASE_D_DECODE, [PL_SPEC_D_WAIT] = PL_PHASE_D_WAIT};

static void add_session(const struct pl_session *v, struct pl_trial_result *out)
{
    struct pl_session_memory mem;

    if (!v)
        return;
    pl_session_memory(v, &mem);
    out->kv_bytes += mem.kv_bytes_used;
    out->workspace_bytes += mem.workspace_bytes + mem.kv_bytes - mem.kv_bytes_used;
}

/* The lanes' spans behind those of what the verifier's lane did before them (phases of `out`), as
 * many as there is room for. */
static void fill_spans(struct llm_state *s, const struct pl_spec_result *r,
                       struct pl_trial_result *out)
{
    static const enum pl_phase before[] = {PL_PHASE_TOKENIZE, PL_PHASE_VISION};
    int64_t at = 0;
    uint32_t n = 0;

    for (size_t i = 0; i < sizeof(before) / sizeof(before[0]); i++) {
        const int64_t took = out->phase_ns[before[i]];
        if (took <= 0)
            continue;
        s->spans[n++] = (struct pl_trial_span){0, (uint8_t)before[i], at, at + took};
        at += took;
    }
    for (size_t i = 0; i < r->n_spans && n < PL_SPEC_MAX_SPANS; i++)
        s->spans[n++] = (struct pl_trial_span){r->spans[i].lane, (uint8_t)phases[r->spans[i].kind],
                                               r->spans[i].start_ns, r->spans[i].end_ns};
    out->spans = s->spans;
    out->n_spans = n;
}

static void fill(struct llm_state *s, struct llm_arm *a, const struct pl_spec_result *r,
                 struct pl_trial_result *out)
{
    out->generated = (uint32_t)r->n;
    out->tokens = r->tokens;
    out->token_ns = r->token_ns;
    for (int i = 0; i < PL_SPEC_PHASES; i++)
        if (r->phase_ns[i] > 0 || phases[i] == PL_PHASE_WAIT)
            out->phase_ns[phases[i]] = r->phase_ns[i];
    out->ttft_ns = r->first_ns;
    out->total_ns = r->last_ns;
    for (size_t i = 0; i < r->n_rounds; i++)
        s->rounds[i] = (struct pl_trial_round){r->rounds[i].drafted, r->rounds[i].accepted,
                                               r->rounds[i].draft_us, r->rounds[i].verify_us};
    out->rounds = s->rounds;
    out->n_rounds = (uint32_t)r->n_rounds;
    fill_spans(s, r, out);
    out->drafted = r->drafted;
    out->accepted = r->accepted;
    out->free_tokens = r->free_tokens;
    out->cut = r->cut;
    out->weights_bytes = pl_model_info(a->model->model)->weights_bytes;
    if (a->drafter)
        out->weights_bytes += pl_model_info(a->drafter->model)->weights_bytes;
    out->kv_bytes = out->workspace_bytes = 0;
    add_session(pl_drafting_verifier(a->drafting), out);
    add_session(pl_drafting_drafter(a->drafting), out);
}

enum pl_status llm_draft_scene(struct llm_arm *a, const json_t *sample, struct pl_err *err)
{
    enum pl_status st;

    a->own_prompt = 0;
    if (!a->drafter)
        return PL_OK;
    if (!a->drafter->tokenizer)
        return pl_fail(err, PL_ENOENT, "the drafter: %s", a->drafter->no_tokenizer.text);
    st = llm_prompt_length(&pl_model_info(a->drafter->model)->vision, a->drafter->tokenizer, sample,
                           &a->own_prompt, err);
    return st ? pl_err_prefix(err, st, "the drafter") : PL_OK;
}

/* The drafter's look at a scene, in its own lane. */
struct look {
    struct llm_model *drafter;
    const json_t *sample;
    struct pl_ids ids;
    struct llm_look times;
};

static enum pl_status look(void *user, struct pl_prompt *out, struct pl_err *err)
{
    struct look *l = user;
    struct llm_model *d = l->drafter;
    enum pl_status st =
        llm_look(&d->eyes, d->model, d->tokenizer, l->sample, NULL, &l->ids, &l->times, err);

    if (st)
        return st;
    *out = (struct pl_prompt){.embeds = d->eyes.embeds, .n = d->eyes.n};
    return PL_OK;
}

enum pl_status llm_draft_trial(struct llm_state *s, struct llm_arm *a, int64_t tokens,
                               const json_t *sample, int64_t start_ns, struct pl_trial_result *out,
                               struct pl_fault *f)
{
    struct llm_model *m = a->model;
    const bool scene = m->eyes.n > 0;
    struct look seen = {
        .drafter = a->drafter, .sample = sample, .times = {.preprocess = -1, .tower = -1}};
    const struct pl_spec_request q = {.ids = scene ? NULL : s->ids.ids,
                                      .embeds = scene ? m->eyes.embeds : NULL,
                                      .n_prompt = scene ? m->eyes.n : s->ids.n,
                                      .look = scene && a->drafter ? look : NULL,
                                      .look_user = &seen,
                                      .tokens = (size_t)tokens,
                                      .eos = m->eos,
                                      .n_eos = s->stop_at_eos ? m->n_eos : 0,
                                      .key =
                                          pl_hash64(0, s->ids.ids, s->ids.n * sizeof(*s->ids.ids)),
                                      .start_ns = start_ns};
    const struct pl_prune_prompt prompt = {
        .n = q.n_prompt, .key = q.key, .visual = scene ? m->eyes.visual : NULL};
    struct pl_spec_result r;
    enum pl_status st = pl_drafting_prompt(a->drafting, &prompt, &f->err);

    if (!st)
        st = pl_drafting_generate(a->drafting, &q, &r, &f->err);

    pl_ids_release(&seen.ids);
    if (st)
        return pl_fault_set(f, st,
                            st == PL_ERANGE    ? PL_FAULT_CONTEXT
                            : st == PL_EFORMAT ? PL_FAULT_NUMERIC
                                               : PL_FAULT_RUNNER);
    fill(s, a, &r, out);
    out->phase_ns[PL_PHASE_D_PREPROCESS] = seen.times.preprocess;
    out->phase_ns[PL_PHASE_D_TOWER] = seen.times.tower;
    for (int32_t l = 0; l < pl_model_info(m->model)->arch.layers; l++)
        m->kv_len[l] = pl_drafting_kv_len(a->drafting)[l];
    memcpy(m->first, r.first_logits, (size_t)pl_model_info(m->model)->arch.vocab * sizeof(float));
    m->step_there = r.last_logits != NULL;
    if (m->step_there)
        memcpy(m->step, r.last_logits, (size_t)pl_model_info(m->model)->arch.vocab * sizeof(float));
    out->kv_len = m->kv_len;
    out->layers = (uint32_t)pl_model_info(m->model)->arch.layers;
    if (a->drafter) {
        out->layers_draft = (uint32_t)pl_model_info(a->drafter->model)->arch.layers;
        for (uint32_t l = 0; l < out->layers_draft; l++)
            a->drafter->kv_len[l] = (uint32_t)pl_drafting_own_prompt(
                a->drafting, scene ? a->drafter->eyes.n : s->ids.n);
        out->kv_len_draft = a->drafter->kv_len;
    }
    out->synthetic = m->entry.random || (a->drafter && a->drafter->entry.random);
    return PL_OK;
}
