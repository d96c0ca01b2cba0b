/* One trial of the real engine: what is timed, and what is not (docs/METRICS.md, "A trial"). */
#include "worker/runner/llm.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/rng.h"
#include "pruning/pruner.h"
#include "worker/runner/llm_batch.h"
#include "worker/runner/llm_prune.h"

#include <math.h>
#include <string.h>

static enum pl_status fault(struct pl_fault *f, enum pl_status st, enum pl_fault_reason reason)
{
    return pl_fault_set(f, st, reason);
}

enum pl_status llm_numeric(struct pl_fault *f, int64_t token)
{
    return fault(f,
                 pl_fail(&f->err, PL_EFORMAT, "the logits of token %lld are NaN or infinite",
                         (long long)token),
                 PL_FAULT_NUMERIC);
}

struct times {
    int64_t start, encoded, first, last; /* of this process's clock; encoded 0: no encoder */
    uint32_t generated;
    int64_t said;      /* tokens before the model's own end */
    int64_t behind_ns; /* steps behind the last token, by the device's clock */
    struct pl_trial_work work;
};

struct pl_device_work llm_work_done(const struct llm_model *m)
{
    return pl_model_backend(m->model)->work(pl_model_device(m->model));
}

bool llm_is_eos(const struct llm_model *m, int32_t id)
{
    for (size_t i = 0; i < m->n_eos; i++)
        if (m->eos[i] == id)
            return true;
    return false;
}

/* The encoder over the whole context. */
static enum pl_status encode(struct llm_state *s, struct llm_model *m, struct times *t,
                             struct pl_fault *f)
{
    const struct pl_source source = {.ids = s->ids.ids, .n = s->ids.n};
    enum pl_status st = pl_session_encode(m->session, &source, m->states, &f->err);

    t->encoded = t->first = t->last = pl_now_ns();
    return st ? fault(f, st, st == PL_ERANGE ? PL_FAULT_CONTEXT : PL_FAULT_RUNNER) : PL_OK;
}

/* Whether a text would end here: one of the ends that were left out of the choice beats id. */
static bool ends(const struct llm_model *m, const float *logits, int32_t id, size_t masked)
{
    for (size_t i = 0; id >= 0 && i < masked; i++) {
        const float end = logits[m->eos[i]];
        if (end > logits[id] || (end == logits[id] && m->eos[i] < id))
            return true;
    }
    return false;
}

/* The next token, number t; −1: the logits are no numbers. */
static int32_t choose(const struct pl_accept_rule *rule, float *logits, size_t vocab, int64_t t)
{
    struct pl_err err;
    int32_t id = -1;

    return pl_accept_one(rule, logits, vocab, (uint64_t)t, &id, &err) ? -1 : id;
}

/* One step behind *id: the next token, number t, and whether the text would end here. It is chosen
 * where the logits are. */
static enum pl_status next_token(const struct llm_state *s, struct llm_model *m,
                                 const struct pl_accept_rule *rule, int64_t t, int32_t *id,
                                 bool *over, struct pl_err *err)
{
    const bool draws = s->temperature > 0;
    const struct pl_draw draw = {s->temperature,
                                 draws ? pl_accept_uniform(rule, (uint64_t)t, 0) : 0};
    struct pl_picked got;
    enum pl_status st =
        pl_session_decode_pick(m->session, *id, rule->masked, rule->n_masked, draws ? &draw : NULL,
                               m->step, &m->step_there, &got, err);

    if (st)
        return st;
    if (draws && m->step_there) {
        *id = choose(rule, m->step, (size_t)pl_model_info(m->model)->arch.vocab, t);
        *over = ends(m, m->step, *id, rule->n_masked);
    } else {
        *id = got.id;
        *over = got.all != got.id;
    }
    return PL_OK;
}

/* Where the device's work has come to, for a second clock beside the host's. */
static void mark(const struct llm_model *m, int i)
{
    const struct pl_backend *b = pl_model_backend(m->model);

    if (b->mark)
        b->mark(pl_model_device(m->model), i);
}

/* The phases by the device's clock. The host's may be longer, by what the host does between calls:
 * a device that says more than the host waited was not waited for. */
static void device_phases(const struct llm_model *m, int64_t behind_ns, struct pl_trial_result *out)
{
    static const enum pl_phase phases[2] = {PL_PHASE_PREFILL, PL_PHASE_DECODE};
    const struct pl_backend *b = pl_model_backend(m->model);

    for (int i = 0; i < 2 && b->between; i++) {
        const int64_t host = out->phase_ns[phases[i]];
        if (host < 0 || (i && out->generated < 2))
            continue;
        out->device_ns[i] = b->between(pl_model_device(m->model), i, i + 1) - (i ? behind_ns : 0);
        if (out->device_ns[i] > host + host / 50 + 100000)
            pl_log(PL_LOG_WARN, "%s took %.3f ms by the GPU's clock and %.3f ms by the host's",
                   i ? "decode" : "prefill", (double)out->device_ns[i] / 1e6, (double)host / 1e6);
    }
}

/* The tokens behind the first, each waited for. */
static enum pl_status step_by_step(struct llm_state *s, struct llm_model *m,
                                   const struct pl_accept_rule *rule, int64_t tokens,
                                   struct times *t, struct pl_fault *f)
{
    int32_t id = s->out_tokens[0];
    bool over = false;
    int64_t n = 1;

    while (n < tokens && !(s->stop_at_eos && llm_is_eos(m, id))) {
        enum pl_status st = next_token(s, m, rule, n, &id, &over, &f->err);
        if (st)
            return fault(f, st, PL_FAULT_RUNNER);
        if (t->said > n && over)
            t->said = n;
        t->last = pl_now_ns();
        if (id < 0)
            return llm_numeric(f, n);
        s->out_tokens[n] = id;
        s->out_ns[n++] = t->last - t->start;
    }
    t->generated = (uint32_t)n;
    return PL_OK;
}

/* The same from a device that goes on by itself; *behind: what it did behind the last. */
static enum pl_status by_itself(struct llm_state *s, struct llm_model *m,
                                const struct pl_accept_rule *rule, int64_t tokens, struct times *t,
                                struct pl_device_work *behind, struct pl_fault *f)
{
    struct llm_burst_out burst;
    enum pl_status st = llm_burst(s, m, rule, tokens, t->start, &burst, f);

    if (st)
        return st;
    t->generated = (uint32_t)burst.generated;
    t->last = burst.last;
    t->said = t->said < burst.said ? t->said : burst.said;
    t->behind_ns = burst.behind_ns;
    *behind = burst.behind;
    return PL_OK;
}

/* From the prompt to the last token. Nothing in here allocates, prints or reads files. */
static enum pl_status generate(struct llm_state *s, struct llm_model *m, struct pl_pruner *pruner,
                               int64_t tokens, struct times *t, struct pl_fault *f)
{
    const struct pl_arch *a = &pl_model_info(m->model)->arch;
    const struct pl_device_work before = llm_work_done(m);
    struct pl_device_work read;
    const int32_t begin = a->decoder_start;
    const struct pl_prompt prompt = {.ids = a->encoder_layers ? &begin : s->ids.ids,
                                     .embeds = m->eyes.n ? m->eyes.embeds : NULL,
                                     .n = a->encoder_layers ? 1
                                          : m->eyes.n       ? m->eyes.n
                                                            : s->ids.n};
    size_t masked = s->stop_at_eos ? 0 : m->n_eos, vocab = (size_t)a->vocab;
    /* the draws of an arm that drafts (round.h), so that it and its baseline draw alike */
    const struct pl_accept_rule rule = {
        .temperature = s->temperature,
        .key = pl_keyv(s->seed, pl_hash64(0, s->ids.ids, s->ids.n * sizeof(*s->ids.ids))),
        .masked = m->eos,
        .n_masked = masked,
        .p = s->probs};
    struct pl_device_work behind = {0};

    mark(m, 0);
    enum pl_status st = pl_session_prefill(m->session, &prompt, m->first, &f->err);

    if (!st && pruner)
        st = pl_pruner_finish(pruner, m->session, &f->err);
    if (st)
        return fault(f, st, st == PL_ERANGE ? PL_FAULT_CONTEXT : PL_FAULT_RUNNER);
    int32_t id = choose(&rule, m->first, vocab, 0);
    read = llm_work_done(m);
    t->work.prefill_flops = read.flops - before.flops;
    t->said = ends(m, m->first, id, masked) ? 0 : tokens;
    mark(m, 1);
    t->first = t->last = pl_now_ns();
    if (id < 0)
        return llm_numeric(f, 0);
    s->out_tokens[0] = id;
    s->out_ns[0] = t->first - t->start;
    for (int32_t l = 0; l < a->layers; l++) /* of the prompt: behind an encoder, of the source */
        m->kv_len[l] =
            a->encoder_layers ? (uint32_t)s->ids.n : (uint32_t)pl_session_kv_len(m->session, l);
    t->generated = 1;
    if (tokens > 1 && !(s->stop_at_eos && llm_is_eos(m, id)))
        st = llm_bursts(s, m) ? by_itself(s, m, &rule, tokens, t, &behind, f)
                              : step_by_step(s, m, &rule, tokens, t, f);
    if (st)
        return st;
    mark(m, 2);
    t->work.decode_flops = llm_work_done(m).flops - read.flops - behind.flops;
    t->work.decode_bytes = llm_work_done(m).bytes - read.bytes - behind.bytes;
    if (t->said > t->generated)
        t->said = t->generated;
    return PL_OK;
}

bool llm_all_finite(const float *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(v[i]))
            return false;
    return true;
}

static struct llm_arm *find_arm(struct llm_state *s, const char *name)
{
    for (struct llm_arm *a = s->arms; a; a = a->next)
        if (strcmp(a->name, name) == 0)
            return a;
    return NULL;
}

/* Hashes of what went in and what came out, which must be numbers. */
static enum pl_status check_numbers(const struct llm_state *s, const struct llm_model *m,
                                    struct pl_trial_result *out, struct pl_fault *f)
{
    const struct pl_arch *a = &pl_model_info(m->model)->arch;
    size_t n = a->causal ? (size_t)a->vocab : s->ids.n * (size_t)a->hidden;
    const float *last = a->causal ? m->first : m->states;

    out->hashed = true;
    out->ids_hash = pl_hash64(0, s->ids.ids, s->ids.n * sizeof(s->ids.ids[0]));
    out->logits_hash = pl_hash64(0, last, n * sizeof(float));
    if (!llm_all_finite(last, n) && !a->causal)
        return fault(f, pl_fail(&f->err, PL_EFORMAT, "the hidden states are NaN or infinite"),
                     PL_FAULT_NUMERIC);
    if (!llm_all_finite(last, n))
        return llm_numeric(f, 0);
    if (out->generated > 1 && m->step_there && !llm_all_finite(m->step, n))
        return llm_numeric(f, out->generated - 1);
    return PL_OK;
}

/* What was done before the prompt could be run. */
static int64_t before_prompt(const struct pl_trial_result *out)
{
    const int64_t tokenize = out->phase_ns[PL_PHASE_TOKENIZE],
                  vision = out->phase_ns[PL_PHASE_VISION];

    return (tokenize > 0 ? tokenize : 0) + (vision > 0 ? vision : 0);
}

/* The model alone, with s->ids as what it reads. */
static enum pl_status plain_trial(struct llm_state *s, struct llm_arm *arm, int64_t tokens,
                                  struct times *t, struct pl_trial_result *out, struct pl_fault *f)
{
    struct llm_model *m = arm->model;
    const struct pl_arch *a = &pl_model_info(m->model)->arch;
    int64_t begun = t->start + before_prompt(out);
    enum pl_status st = PL_OK;

    pl_session_reset(m->session);
    if (!a->causal || a->encoder_layers)
        st = encode(s, m, t, f);
    if (!st && a->causal)
        st = generate(s, m, arm->pruned.pruner, tokens, t, f);
    if (st)
        return st;
    out->generated = t->generated;
    out->tokens = s->out_tokens;
    out->token_ns = s->out_ns;
    if (t->encoded) {
        out->phase_ns[PL_PHASE_ENCODE] = t->encoded - begun;
        begun = t->encoded;
    }
    if (a->causal) {
        out->phase_ns[PL_PHASE_PREFILL] = t->first - begun;
        out->work = t->work;
    }
    if (a->causal && !s->prefill_only)
        out->phase_ns[PL_PHASE_DECODE] = t->last - t->first;
    out->phase_ns[PL_PHASE_WAIT] = 0;
    if (a->causal)
        device_phases(m, t->behind_ns, out);
    out->ttft_ns = t->first - t->start;
    out->total_ns = t->last - t->start;
    out->kv_len = m->kv_len;
    out->layers = a->causal ? (uint32_t)a->layers : 0;
    out->synthetic = m->entry.random;
    return PL_OK;
}

/* Whether the arm can be asked for that much, and room for it. */
static enum pl_status prepare(struct llm_state *s, struct llm_arm *arm, int64_t context,
                              int64_t tokens, struct pl_fault *f)
{
    enum pl_status st;

    if (tokens > s->tokens)
        return fault(f,
                     pl_fail(&f->err, PL_ERANGE, "%lld tokens, and the load said at most %lld",
                             (long long)tokens, (long long)s->tokens),
                     PL_FAULT_RUNNER);
    st = llm_check_context(&pl_model_info(arm->model->model)->arch, context, tokens, &f->err);
    if (st)
        return fault(f, st, PL_FAULT_CONTEXT);
    st = llm_foresee(s, arm, context, tokens, &f->err);
    if (st)
        return fault(f, st, PL_FAULT_MEMORY);
    const bool drafts = arm->draft && !s->prefill_only; /* in sessions of its own */
    if (arm->pruned.prune && !drafts)
        st = llm_prune_room(&arm->pruned, arm->model, s->seed, 1, context, tokens, &f->err);
    else
        st = llm_session(arm->model, context, tokens, &f->err);
    if (!st && drafts)
        st = llm_draft_ready(s, arm, context, s->tokens, &f->err);
    return st ? fault(f, st, PL_FAULT_RUNNER) : PL_OK;
}

/* What the model reads of a sample: s->ids, and behind eyes its embeddings. *n: the prompt's rows.
 */
static enum pl_status read_sample(struct llm_state *s, struct llm_arm *arm,
                                  const struct pl_trial_request *q, struct llm_look *times,
                                  int64_t *n, struct pl_fault *f)
{
    struct llm_model *m = arm->model;
    struct llm_merge merge;
    const int32_t vocab = pl_model_info(m->model)->arch.vocab;
    enum pl_status st;

    m->eyes.n = 0;
    memset(times, 0, sizeof(*times));
    times->tokenize = times->vision = times->preprocess = times->tower = -1;
    *n = q->context;
    if (!llm_asks(q->sample))
        return llm_sample_ids(s, m->tokenizer, &m->no_tokenizer, vocab, q->sample, q->context,
                              &times->tokenize, f);
    if (!m->tokenizer)
        st = pl_fail(&f->err, PL_ENOENT, "%s", m->no_tokenizer.text);
    else
        st = llm_prune_merge(&arm->pruned, m, s->seed, s->tokens, &merge, &f->err);
    if (!st)
        st = llm_look(&m->eyes, m->model, m->tokenizer, q->sample, merge.merge ? &merge : NULL,
                      &s->ids, times, &f->err);
    *n = (int64_t)m->eyes.n;
    return st ? fault(f, st, PL_FAULT_DATA) : PL_OK;
}

/* What the worker scores. */
static enum pl_status tell_answer(struct llm_state *s, const struct llm_model *m,
                                  const struct times *t, struct pl_trial_result *out,
                                  struct pl_fault *f)
{
    enum pl_status st;

    if (t->said < 0) /* where the answer ends is not known */
        return PL_OK;
    st = llm_answer(m->tokenizer, out->tokens, (size_t)t->said, &s->text, &f->err);
    if (st)
        return fault(f, st, PL_FAULT_RUNNER);
    out->text = s->text.data ? s->text.data : "";
    out->text_len = s->text.len;
    return PL_OK;
}

/* Hashes tell inputs apart: of a scene not by its question alone. */
static enum pl_status finish_scene(struct llm_state *s, const struct llm_model *m,
                                   const struct times *t, struct pl_trial_result *out,
                                   struct pl_fault *f)
{
    const size_t hidden = (size_t)pl_model_info(m->model)->arch.hidden;

    out->ids_hash = pl_hash64(out->ids_hash, m->eyes.rows, m->eyes.n_rows * hidden * sizeof(float));
    return tell_answer(s, m, t, out, f);
}

/* On m->session, which is the arm's; the prompt is there. */
static enum pl_status run_trial(struct llm_state *s, struct llm_arm *arm, int64_t tokens,
                                const struct pl_trial_request *q, struct pl_trial_result *out,
                                struct pl_fault *f)
{
    struct llm_model *m = arm->model;
    struct times t = {.start = 0};
    bool drafts = arm->draft && !s->prefill_only;
    enum pl_status st =
        drafts ? PL_OK : llm_prune_begin(&arm->pruned, s->ids.ids, s->ids.n, &m->eyes, &f->err);

    if (st)
        return fault(f, st, PL_FAULT_DATA);
    /* The trial began a tokenisation and a look ago; finding the text is no part of it, nor is
     * making room for a prompt that is longer than was foreseen. */
    t.start = pl_now_ns() - before_prompt(out);
    st = drafts ? llm_draft_trial(s, arm, tokens, q->sample, t.start, out, f)
                : plain_trial(s, arm, tokens, &t, out, f);
    if (st)
        return st;
    if (drafts) { /* where the end is kept back, nobody looked for it */
        t.said = s->stop_at_eos || !m->n_eos ? (int64_t)out->generated : -1;
        for (size_t i = 0; t.said > 0 && i < m->n_eos; i++)
            t.said -= out->tokens[t.said - 1] == m->eos[i];
    } else if (q->timed && !s->stop_at_eos && m->n_eos && out->generated) {
        pl_trial_result_quality(out, "answer_tokens", (double)t.said);
    }
    llm_measure_bytes(m, &m->session, 1, drafts, out);
    st = check_numbers(s, m, out, f);
    if (!st && m->eyes.n)
        st = finish_scene(s, m, &t, out, f);
    else if (!st && llm_is_asked(q->sample))
        st = tell_answer(s, m, &t, out, f);
    else if (!st && !drafts)
        llm_quality(s, m, q, out);
    return st;
}

static enum pl_status any_trial(void *state, const struct pl_trial_request *q,
                                struct pl_trial_result *out, struct pl_fault *f)
{
    struct llm_state *s = state;
    struct llm_arm *arm = find_arm(s, q->arm);
    int64_t tokens = s->prefill_only ? 1 : q->tokens ? q->tokens : s->tokens, n;
    struct llm_look look;
    enum pl_status st;

    if (!arm || s->tokens < 1)
        return fault(f, pl_fail(&f->err, PL_EUSAGE, "arm %s is not loaded", q->arm),
                     PL_FAULT_RUNNER);
    const bool asks = llm_asks(q->sample);
    if (arm->sequences.all > 1)
        return llm_batch_trial(s, arm, q, out, f);
    st = asks ? PL_OK : prepare(s, arm, q->context, tokens, f);
    if (st)
        return st;
    llm_reset_peak(arm->model);
    st = read_sample(s, arm, q, &look, &n, f);
    if (!st && asks && arm->draft && !s->prefill_only) {
        st = llm_draft_scene(arm, q->sample, &f->err);
        st = st ? fault(f, st, PL_FAULT_DATA) : PL_OK;
    }
    if (!st && asks) /* now its length is known; a session as long as was foreseen is there */
        st = prepare(s, arm, n, tokens, f);
    if (st)
        return st;
    pl_trial_result_init(out);
    out->prompt_tokens = (uint32_t)(asks ? arm->model->eyes.whole : (size_t)n);
    out->phase_ns[PL_PHASE_TOKENIZE] = look.tokenize;
    out->phase_ns[PL_PHASE_VISION] = look.vision;
    out->phase_ns[PL_PHASE_PREPROCESS] = look.preprocess;
    out->phase_ns[PL_PHASE_TOWER] = look.tower;
    llm_prune_swap(&arm->pruned, arm->model);
    st = run_trial(s, arm, tokens, q, out, f);
    llm_prune_swap(&arm->pruned, arm->model);
    return st;
}

/* A trial with the device's clock for each kernel on. */
static enum pl_status kernels_trial(struct llm_state *s, const struct pl_trial_request *q,
                                    struct pl_trial_result *out, struct pl_fault *f)
{
    const struct llm_arm *arm = find_arm(s, q->arm);
    const struct pl_backend *b = arm ? pl_model_backend(arm->model->model) : NULL;
    struct pl_device *d = arm ? pl_model_device(arm->model->model) : NULL;
    const struct pl_op_time *got;
    struct pl_err none;
    enum pl_status st;

    if (arm && (!b->profile || strcmp(b->name, "cpu") == 0))
        return fault(f,
                     pl_fail(&f->err, PL_EUNSUPPORTED,
                             "kernel times: model %s runs on the CPU, a GPU is expected",
                             arm->model->name),
                     PL_FAULT_RUNNER);
    st = arm ? b->profile(d, true, &f->err) : PL_OK;
    if (st)
        return fault(f, st, PL_FAULT_RUNNER);
    s->profiling = true;
    st = any_trial(s, q, out, f);
    s->profiling = false;
    if (!st) {
        got = b->profile_read(d, &out->n_kernels);
        out->n_kernels = out->n_kernels < LLM_KERNELS ? out->n_kernels : LLM_KERNELS;
        for (size_t i = 0; i < out->n_kernels; i++) { /* names go with the profile */
            snprintf(s->kernel_names[i], sizeof(s->kernel_names[i]), "%s", got[i].name);
            s->kernels[i] = got[i];
            s->kernels[i].name = s->kernel_names[i];
        }
        out->kernels = s->kernels;
    }
    if (arm)
        (void)!b->profile(d, false, &none);
    return st;
}

enum pl_status llm_trial(void *state, const struct pl_trial_request *q, struct pl_trial_result *out,
                         struct pl_fault *f)
{
    return q->kernels ? kernels_trial(state, q, out, f) : any_trial(state, q, out, f);
}
