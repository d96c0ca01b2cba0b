/* The real engine, on model/: describes, loads and unloads; llm_trial.c measures. */
#include "worker/runner/llm.h"
#include "worker/runner/work.h"

#include "base/hash.h"
#include "base/log.h"
#include "worker/runner/host.h"
#include "worker/runner/llm_batch.h"
#include "worker/runner/llm_prune.h"

#include <stdlib.h>
#include <string.h>

static enum pl_status no_memory(struct pl_err *err)
{
    return pl_fail(err, PL_ENOMEM, "engine: no memory");
}

static enum pl_status llm_open(void **state, struct pl_err *err)
{
    struct llm_state *s = calloc(1, sizeof(*s));

    if (!s || !(s->texts = pl_text_cache_new())) {
        free(s);
        return no_memory(err);
    }
    struct pl_host h;
    pl_host_read(&h);
    s->memory = h.memory_bytes;
    pl_buf_init(&s->text, PL_TOKENIZER_MAX_TEXT);
    *state = s;
    return PL_OK;
}

static void free_model(struct llm_model *m)
{
    llm_batch_free(&m->batch);
    llm_eyes_release(&m->eyes);
    pl_session_free(m->session);
    pl_model_free(m->model);
    pl_tokenizer_free(m->tokenizer);
    free(m->first);
    free(m->step);
    free(m->states);
    free(m->verify);
    free(m->kv_len);
    free(m->name);
    json_decref(m->json);
    free(m);
}

static void free_arm(struct llm_arm *a)
{
    pl_drafting_free(a->drafting);
    llm_prune_release(&a->pruned);
    json_decref(a->draft);
    free(a->name);
    free(a);
}

/* Whether an arm runs on a model (NULL: any), or was made by the load in hand. */
static bool arm_goes(const struct llm_arm *a, const char *model, bool fresh_only)
{
    if (fresh_only)
        return a->fresh || a->model->fresh || (a->drafter && a->drafter->fresh);
    return !model || strcmp(a->model->name, model) == 0 ||
           (a->drafter && strcmp(a->drafter->name, model) == 0);
}

/* Models by name (NULL: all) or, with fresh_only, those of the load in hand; and their arms. */
static void drop(struct llm_state *s, const char *model, bool fresh_only)
{
    for (struct llm_arm **at = &s->arms; *at;) {
        struct llm_arm *a = *at;
        if (!arm_goes(a, model, fresh_only)) {
            at = &a->next;
            continue;
        }
        *at = a->next;
        free_arm(a);
    }
    for (struct llm_model **at = &s->models; *at;) {
        struct llm_model *m = *at;
        if (fresh_only ? !m->fresh : model && strcmp(m->name, model) != 0) {
            at = &m->next;
            continue;
        }
        *at = m->next;
        free_model(m);
    }
}

static void llm_unload(void *state, const char *model)
{
    drop(state, model, false);
}

static void llm_close(void *state)
{
    struct llm_state *s = state;

    if (!s)
        return;
    drop(s, NULL, false);
    pl_text_cache_free(s->texts);
    pl_tokenizer_free(s->ids_tokenizer);
    free(s->ids_path);
    pl_ids_release(&s->ids);
    pl_ids_release(&s->next);
    pl_buf_release(&s->text);
    free(s->probs);
    free(s->out_tokens);
    free(s->out_ns);
    free(s->rounds);
    llm_burst_free(&s->burst);
    llm_batch_buffers_free(&s->buffers);
    free(s);
}

/* ---- describe ---- */

static void say(json_t *list, const char *text)
{
    json_array_append_new(list, json_string(text));
}

/* What an arm asks for and this engine cannot do. */
static void check_arm(const json_t *arm, json_t *errors)
{
    const json_t *draft = json_object_get(arm, "draft");
    const char *method = pl_json_get_str(draft, "method", "");

    if (json_is_object(json_object_get(arm, "prune")) &&
        (strcmp(method, "medusa") == 0 || strcmp(method, "eagle") == 0))
        json_array_append_new(errors, json_sprintf("prune beside draft.method %s: it reads the "
                                                   "states of the whole prompt",
                                                   method));
    struct llm_sequences q;
    struct pl_err err = {""};
    if (llm_sequences_read(arm, &q, &err))
        say(errors, err.text);
}

static int64_t largest(const json_t *contexts)
{
    int64_t most = 1;

    for (size_t i = 0; i < json_array_size(contexts); i++) {
        json_int_t c = json_integer_value(json_array_get(contexts, i));
        if (c > most)
            most = c;
    }
    return most;
}

static int64_t tokens_at(const json_t *q, size_t context)
{
    const json_t *v = json_array_get(json_object_get(q, "context_tokens"), context);
    return json_is_integer(v) ? json_integer_value(v) : pl_json_get_i64(q, "tokens", 128);
}

static void check_contexts(const json_t *q, const json_t *contexts, const struct pl_arch *a,
                           json_t *errors)
{
    if (a->patch) {
        json_array_append_new(errors,
                              json_sprintf("%s reads images: it cannot be run on ids", a->name));
        return;
    }
    for (size_t i = 0; i < json_array_size(contexts); i++) {
        struct pl_err err = {""};
        if (llm_check_context(a, json_integer_value(json_array_get(contexts, i)), tokens_at(q, i),
                              &err))
            say(errors, err.text);
    }
}

/* The file's hash names a tokenizer: arms that share it get identical ids. Without one only
 * synthetic data can be read. */
static json_t *tokenizer_name(const struct pl_entry *e, const struct pl_arch *a, const char *data,
                              json_t *warnings, json_t *errors)
{
    struct pl_tokenizer *t = NULL;
    struct pl_err err = {""};
    char hex[PL_SHA256_HEX] = "";
    enum pl_status st = pl_entry_tokenizer(e->path, a, &t, &err);

    if (!st)
        st = pl_sha256_file(pl_tokenizer_info(t)->file, hex, &err);
    pl_tokenizer_free(t);
    if (!st)
        return json_string(hex);
    if (data && strcmp(data, "synthetic") != 0)
        say(errors, err.text);
    else if (!data)
        say(warnings, err.text);
    return json_string("");
}

/* [{prefill_flop, decode_bytes}] for each context, of arms whose work the model's shape tells;
 * NULL: what is drafted or pruned away is not known beforehand. */
static json_t *work_list(const json_t *q, const struct pl_model_info *info, enum pl_dtype kv)
{
    static const char *const less[] = {"draft", "prune"};
    const json_t *contexts = json_object_get(q, "contexts"), *arm = json_object_get(q, "arm");
    const int64_t batch = pl_json_get_i64(arm, "batch", 1);
    json_t *list = json_array();

    for (size_t i = 0; i < sizeof(less) / sizeof(less[0]); i++) {
        const json_t *v = json_object_get(arm, less[i]);
        if (v && !json_is_null(v))
            goto none;
    }
    if (info->arch.patch || pl_json_get_i64(arm, "concurrency", 1) != 1 ||
        llm_asks(json_object_get(q, "sample"))) /* prompts of their own lengths */
        goto none;
    for (size_t i = 0; i < json_array_size(contexts); i++) {
        const int64_t context = json_integer_value(json_array_get(contexts, i));
        json_array_append_new(
            list, json_pack("{s:f,s:f}", "prefill_flop",
                            (double)batch * pl_work_prompt_flop(&info->arch, (double)context, 0),
                            "decode_bytes",
                            pl_work_decode_bytes(info, kv, context, tokens_at(q, i), batch)));
    }
    return list;
none:
    json_decref(list);
    return NULL;
}

static enum pl_status llm_describe(void *state, const json_t *q, json_t *answer,
                                   struct pl_fault *fault)
{
    const json_t *contexts = json_object_get(q, "contexts");
    const char *data = pl_json_get_str(q, "data", NULL);
    int64_t tokens = pl_json_get_i64(q, "tokens", 128), positions = 0, source = 0;
    json_t *errors = json_array(), *warnings = json_array(), *tokenizer = NULL;
    struct pl_model_info info;
    struct pl_session_memory mem = {0, 0, 0};
    struct pl_model_opts opts;
    struct pl_entry e;
    struct pl_err err = {""};
    struct llm_draft_info draft = {.max_rounds = 0};
    struct llm_sequences sequences = {1, 1, 0};
    int64_t kv = 0, longest;
    enum pl_status st = pl_entry_read(json_object_get(q, "model"), &e, &err);

    (void)state;
    memset(&info, 0, sizeof(info));
    info.arch.layers = 1;
    check_arm(json_object_get(q, "arm"), errors);
    if (!st) {
        pl_entry_model_opts(&e, 1, NULL, 0, &opts);
        st = pl_model_describe(e.path, &opts, &info, &err);
    }
    if (st) {
        say(errors, err.text);
    } else {
        struct pl_session_opts so = {.max_verify = 1, .kv_dtype = pl_entry_kv(&e, info.dtype)};
        longest = llm_describe_scene(q, &e, &info, tokens, answer, errors);
        if (largest(contexts) > longest)
            longest = largest(contexts);
        llm_need(&info.arch, longest, tokens, &positions, &source);
        so.max_tokens = (size_t)positions;
        so.max_source = (size_t)source;
        kv = pl_arch_kv_bytes_per_token(&info.arch, so.kv_dtype);
        if (llm_sequences_read(json_object_get(q, "arm"), &sequences, &err))
            sequences.slots = 1; /* check_arm has said it */
        else if (sequences.all > 1 && data && strcmp(data, "text") && strcmp(data, "synthetic"))
            say(errors, "batch, concurrency: this runner's engine runs scenes, and texts with a "
                        "question, one at a time");
        pl_sessions_bytes(&info, &so, sequences.slots, &mem);
        check_contexts(q, contexts, &info.arch, errors);
        llm_prune_check(json_object_get(q, "arm"), &info.arch, errors);
        json_t *work = json_array_size(errors) ? NULL : work_list(q, &info, so.kv_dtype);
        if (work)
            json_object_set_new(answer, "work", work);
        tokenizer = tokenizer_name(&e, &info.arch, data, warnings, errors);
        if (llm_draft_describe(q, &info.arch, tokens, &draft, &err))
            say(errors, err.text);
        json_t *reads = json_object_get(answer, "reads");
        if (reads && draft.reads)
            say(reads, draft.reads);
    }
    if (json_object_update_new(
            answer,
            json_pack("{s:i,s:i,s:I,s:I,s:I,s:I,s:I,s:o,s:b,s:i,s:s,s:s,s:o,s:o}", "layers",
                      info.arch.layers, "vocab", info.arch.vocab, "max_positions",
                      (json_int_t)info.arch.max_positions, "weights_bytes",
                      (json_int_t)(info.weights_bytes + draft.weights_bytes), "kv_bytes_per_token",
                      (json_int_t)(kv + draft.kv_bytes_per_token), "workspace_bytes",
                      (json_int_t)mem.workspace_bytes, "max_rounds", (json_int_t)draft.max_rounds,
                      "tokenizer", tokenizer ? tokenizer : json_string(""), "synthetic",
                      info.random || draft.synthetic, "layers_draft", draft.layers, "dtype",
                      pl_dtype_traits(info.dtype)->name, "arch", info.arch.name, "warnings",
                      warnings, "errors", errors)))
        return pl_fault_set(fault, no_memory(&fault->err), PL_FAULT_RUNNER);
    return PL_OK;
}

/* ---- load ---- */

static struct llm_model *find_model(struct llm_state *s, const char *name)
{
    for (struct llm_model *m = s->models; m; m = m->next)
        if (strcmp(m->name, name) == 0)
            return m;
    return NULL;
}

/* Whether arms of this load draft with a model and none verifies with it: of a pair of GPUs it has
 * the second for itself. */
static bool only_drafts(const struct pl_load *l, const char *name)
{
    bool drafts = false;
    const char *arm;
    json_t *v;

    json_object_foreach ((json_t *)l->arms, arm, v) {
        if (strcmp(pl_json_get_str(v, "model", ""), name) == 0)
            return false;
        drafts |= strcmp(pl_json_get_str(json_object_get(v, "draft"), "model", ""), name) == 0;
    }
    return drafts;
}

static enum pl_status fill_model(struct llm_model *m, const struct pl_load *l, struct pl_err *err)
{
    const char *uuid =
        l->partner_uuid && only_drafts(l, m->name) ? l->partner_uuid : l->device_uuid;
    struct pl_model_opts opts;
    int32_t eos = -1;
    enum pl_status st = pl_entry_read(m->json, &m->entry, err);

    if (st)
        return st;
    pl_entry_model_opts(&m->entry, l->threads, l->cpus, l->n_cpus, &opts);
    /* "cuda" is the one that was dealt to this worker; the first where none was. */
    if (strcmp(m->entry.device, "cuda") == 0 && uuid && l->device_kind &&
        strcmp(l->device_kind, "cpu") != 0)
        opts.where.ordinal = pl_host_gpu_number(uuid);
    if (opts.where.ordinal < 0)
        return pl_fail(err, PL_EUNSUPPORTED, "device cuda: GPU %s is not here", uuid);
    st = pl_model_load(m->entry.path, &opts, &m->model, err);
    if (st)
        return st;
    const struct pl_arch *a = &pl_model_info(m->model)->arch;
    /* Synthetic data needs no tokenizer: its absence is told when a text comes. */
    if (pl_entry_tokenizer(m->entry.path, a, &m->tokenizer, &m->no_tokenizer) == PL_OK)
        eos = pl_tokenizer_info(m->tokenizer)->eos;
    m->n_eos = pl_eos_ids(a, eos, m->eos);
    if (a->patch)
        return pl_fail(err, PL_EUNSUPPORTED, "%s reads images: it cannot be run on ids", a->name);
    m->first = calloc((size_t)a->vocab, sizeof(float));
    m->step = calloc((size_t)a->vocab, sizeof(float));
    m->kv_len = calloc((size_t)a->layers, sizeof(*m->kv_len));
    m->quality = (size_t)l->quality;
    if (m->quality)
        m->verify = malloc((size_t)a->vocab * LLM_QUALITY_ROWS * sizeof(*m->verify));
    return m->first && m->step && m->kv_len && (m->verify || !m->quality) ? PL_OK : no_memory(err);
}

static enum pl_status add_model(struct llm_state *s, const char *name, json_t *entry,
                                const struct pl_load *l, struct pl_err *err)
{
    struct llm_model *m = find_model(s, name);
    enum pl_status st;

    if (m && json_equal(m->json, entry))
        return PL_OK;
    drop(s, name, false); /* another model of that name */
    m = calloc(1, sizeof(*m));
    if (!m)
        return no_memory(err);
    m->fresh = true;
    m->json = json_incref(entry);
    m->name = strdup(name);
    st = m->name ? fill_model(m, l, err) : no_memory(err);
    if (st) {
        free_model(m);
        return pl_err_prefix(err, st, "model %s", name);
    }
    m->next = s->models;
    s->models = m;
    return PL_OK;
}

static enum pl_status add_arm(struct llm_state *s, const char *name, const json_t *arm,
                              struct pl_err *err)
{
    struct llm_sequences sequences = {1, 1, 0};
    struct llm_model *m = find_model(s, pl_json_get_str(arm, "model", ""));
    json_t *errors = json_array();
    enum pl_status st = PL_OK;
    struct llm_arm *a;

    check_arm(arm, errors);
    if (!m)
        st = pl_fail(err, PL_ESWEEP, "arm %s: its model is not loaded", name);
    else if (json_array_size(errors))
        st = pl_fail(err, PL_EUNSUPPORTED, "arm %s: %s", name,
                     json_string_value(json_array_get(errors, 0)));
    json_decref(errors);
    if (st)
        return st;
    st = llm_sequences_read(arm, &sequences, err);
    if (!st && sequences.all > 1 && s->temperature > 0)
        st = pl_fail(err, PL_EUNSUPPORTED,
                     "arm %s: several sequences at temperature %g, expected 0 (greedy)", name,
                     s->temperature);
    if (st)
        return st;
    for (a = s->arms; a; a = a->next) {
        if (strcmp(a->name, name) == 0)
            break;
    }
    if (!a) {
        a = calloc(1, sizeof(*a));
        if (!a || !(a->name = strdup(name))) {
            free(a);
            return no_memory(err);
        }
        a->model = m;
        a->fresh = true;
        a->next = s->arms;
        s->arms = a;
    }
    a->model = m;
    a->sequences = sequences;
    llm_prune_set(&a->pruned, arm);
    st = llm_draft_arm(s, a, arm, err);
    return st ? pl_err_prefix(err, st, "arm %s", name) : PL_OK;
}

static enum pl_status make_room(struct llm_state *s, const struct pl_load *l, struct pl_err *err)
{
    struct pl_trial_round *rounds;
    int32_t *tokens;
    int64_t *ns;

    if (!(l->temperature >= 0 && l->temperature <= 100))
        return pl_fail(err, PL_ERANGE, "temperature %g, expected 0 (greedy) to 100",
                       l->temperature);
    if (l->tokens > (INT64_C(1) << 24))
        return pl_fail(err, PL_ERANGE, "tokens: %lld", (long long)l->tokens);
    tokens = calloc((size_t)l->tokens, sizeof(*tokens));
    ns = calloc((size_t)l->tokens, sizeof(*ns));
    rounds = calloc((size_t)l->tokens, sizeof(*rounds));
    if (!tokens || !ns || !rounds) {
        free(tokens);
        free(ns);
        free(rounds);
        return no_memory(err);
    }
    free(s->out_tokens);
    free(s->out_ns);
    free(s->rounds);
    s->rounds = rounds;
    s->seed = l->seed;
    s->out_tokens = tokens;
    s->out_ns = ns;
    s->tokens = l->tokens;
    s->stop_at_eos = l->stop_at_eos;
    s->energy = l->energy;
    s->prefill_only = l->prefill_only;
    s->temperature = l->temperature;
    return llm_burst_room(&s->burst, l->tokens, err);
}

/* What probabilities of any loaded model's tokens need. */
static enum pl_status probs_room(struct llm_state *s, struct pl_err *err)
{
    size_t vocab = 0;
    float *p;

    for (struct llm_model *m = s->models; m && s->temperature > 0; m = m->next)
        if ((size_t)pl_model_info(m->model)->arch.vocab > vocab)
            vocab = (size_t)pl_model_info(m->model)->arch.vocab;
    if (!vocab)
        return PL_OK;
    p = realloc(s->probs, 2 * vocab * sizeof(*p));
    if (!p)
        return no_memory(err);
    s->probs = p;
    return PL_OK;
}

/* A session for the largest context now, so that no trial pays for one. */
static enum pl_status foresee_session(const struct llm_state *s, struct llm_model *m,
                                      const struct pl_load *l, struct pl_err *err)
{
    const struct llm_arm alone = {.model = m, .sequences = {1, 1, 0}};

    if (l->max_context == 0 ||
        llm_foresee(s, &alone, l->max_context, l->prefill_only ? 1 : l->tokens, err))
        return PL_OK;
    return llm_session(m, l->max_context, l->prefill_only ? 1 : l->tokens, err);
}

/* The same for what an arm drafts with. Room made for other settings (tokens, EOS) goes. */
static enum pl_status ready_arm(struct llm_state *s, struct llm_arm *a, const struct pl_load *l,
                                struct pl_err *err)
{
    const int64_t tokens = l->prefill_only ? 1 : l->tokens;

    pl_drafting_free(a->drafting);
    a->drafting = NULL;
    if (l->max_context && llm_foresee(s, a, l->max_context, tokens, err))
        return PL_OK; /* trials that fit make room for themselves; the others say what they need */
    if (a->sequences.all > 1 && l->max_context)
        return llm_batch_room(s, a, l->max_context, tokens, err);
    if (a->pruned.prune && l->max_context && (!a->draft || l->prefill_only))
        return llm_prune_room(&a->pruned, a->model, l->seed, 1, l->max_context, tokens, err);
    if (!a->draft || !l->max_context || l->prefill_only)
        return PL_OK;
    enum pl_status st = llm_draft_ready(s, a, l->max_context, l->tokens, err);
    return st ? st : llm_draft_say(a, l->said, err);
}

static enum pl_status load_models(struct llm_state *s, const struct pl_load *l, json_t *models_out,
                                  struct pl_err *err)
{
    const char *name;
    json_t *entry;

    json_object_foreach ((json_t *)l->models, name, entry) {
        struct pl_resident before, after;
        pl_host_resident(&before);
        enum pl_status st = add_model(s, name, entry, l, err);
        if (!st)
            st = foresee_session(s, find_model(s, name), l, err);
        if (st)
            return st;
        pl_host_resident(&after);
        int64_t weights = pl_model_info(find_model(s, name)->model)->weights_bytes;
        int64_t grown = after.now > before.now ? after.now - before.now : 0;
        if (json_object_set_new(models_out, name,
                                json_pack("{s:I,s:I}", "weights_bytes", (json_int_t)weights,
                                          "resident_bytes", (json_int_t)grown)))
            return no_memory(err);
    }
    return PL_OK;
}

static enum pl_status llm_load(void *state, const struct pl_load *l, json_t *models_out,
                               int64_t *load_ns, struct pl_fault *fault)
{
    struct llm_state *s = state;
    enum pl_status st = make_room(s, l, &fault->err);
    const char *name;
    json_t *arm;

    (void)load_ns; /* as measured by the caller */
    if (!st)
        st = load_models(s, l, models_out, &fault->err);
    if (!st)
        st = probs_room(s, &fault->err);
    json_object_foreach ((json_t *)l->arms, name, arm) {
        if (!st)
            st = add_arm(s, name, arm, &fault->err);
    }
    for (struct llm_arm *a = s->arms; !st && a; a = a->next)
        st = ready_arm(s, a, l, &fault->err);
    if (st)
        drop(s, NULL, true);
    for (struct llm_model *m = s->models; m; m = m->next)
        m->fresh = false;
    for (struct llm_arm *a = s->arms; a; a = a->next)
        a->fresh = false;
    return st ? pl_fault_set(fault, st, PL_FAULT_LOAD) : PL_OK;
}

const struct pl_engine pl_engine_llm = {
    .name = "llm",
    .open = llm_open,
    .close = llm_close,
    .describe = llm_describe,
    .load = llm_load,
    .trial = llm_trial,
    .unload = llm_unload,
    .ids = llm_ids,
};
