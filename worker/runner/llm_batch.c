/*
 * Trials of several sequences on the real engine (docs/METRICS.md, "Several sequences"). Every
 * forward is one pl_sessions_step: of a batch first all prompts, row after row as they fit, then
 * the tokens; of a closed loop the tokens of those that run and beside them a piece of one prompt.
 * Where the device can, steps of tokens alone are made by it ahead.
 * An arm that prunes chooses over a whole prompt, so its prompts run one by one, and steps hold
 * tokens only.
 */
#include "worker/runner/llm_batch.h"

#include "base/clock.h"
#include "base/hash.h"
#include "pruning/pruner.h"
#include "worker/runner/host.h"
#include "worker/runner/llm_prune.h"
#include "worker/runner/loop.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum pl_status llm_sequences_read(const json_t *arm, struct llm_sequences *out, struct pl_err *err)
{
    const json_t *draft = json_object_get(arm, "draft");
    int64_t batch = pl_json_get_i64(arm, "batch", 1), n = pl_json_get_i64(arm, "concurrency", 1);
    int64_t requests = pl_json_get_i64(arm, "requests", n), slots = n > 1 ? n : batch;

    if (batch < 1 || n < 1 || (batch > 1 && n > 1) || requests < n || requests > 65536)
        return pl_fail(err, PL_ESWEEP,
                       "batch %" PRId64 ", concurrency %" PRId64 ", requests %" PRId64
                       ": one of batch and concurrency is expected, and requests ≥ concurrency",
                       batch, n, requests);
    if (slots > 1 && draft && !json_is_null(draft))
        return pl_fail(err, PL_EUNSUPPORTED,
                       "draft beside %s: this runner's engine drafts for one sequence",
                       n > 1 ? "concurrency" : "batch");
    if (slots > LLM_MAX_SLOTS)
        return pl_fail(err, PL_EUNSUPPORTED,
                       "%s %" PRId64 ": this runner's engine steps at most %d sequences together",
                       n > 1 ? "concurrency" : "batch", slots, LLM_MAX_SLOTS);
    *out = (struct llm_sequences){.all = (uint32_t)(n > 1 ? requests : batch),
                                  .slots = (uint32_t)slots,
                                  .clients = n > 1 ? (uint32_t)n : 0};
    return PL_OK;
}

struct run {
    struct llm_state *s;
    struct llm_model *m;
    const struct pl_arch *a;
    struct llm_sequences q;
    struct llm_pruned *pruned; /* NULL: the arm keeps all */
    size_t context, tokens, masked;
    struct pl_session *slots[LLM_MAX_SLOTS];
    uint32_t of[LLM_MAX_SLOTS]; /* the sequence in each slot */
    size_t read[LLM_MAX_SLOTS]; /* rows of its prompt that were fed */
    size_t live[LLM_MAX_SLOTS]; /* slots whose prompt is read and whose end is not reached */
    size_t n_live;
    struct pl_loop loop;
    int64_t start, mark; /* of this process's clock; mark: until when time is booked */
    int64_t encode, prefill, decode;
    struct pl_device_work counted; /* until when work is booked */
    struct pl_trial_work work;
    int64_t last; /* the last token known (encoders: the last states) */
    struct pl_fault *f;
};

static enum pl_status failed(struct run *r, enum pl_status st)
{
    return pl_fault_set(r->f, st, st == PL_ERANGE ? PL_FAULT_CONTEXT : PL_FAULT_RUNNER);
}

/* Books the time and the work since the last call. */
static void book(struct run *r, int64_t *phase, int64_t until)
{
    const struct pl_device_work now = llm_work_done(r->m);

    *phase += until - r->mark;
    r->mark = until;
    if (phase == &r->prefill)
        r->work.prefill_flops += now.flops - r->counted.flops;
    if (phase == &r->decode) {
        r->work.decode_flops += now.flops - r->counted.flops;
        r->work.decode_bytes += now.bytes - r->counted.bytes;
    }
    r->counted = now;
}

static size_t prompt_rows(const struct run *r)
{
    return r->a->encoder_layers ? 1 : r->context;
}

static const int32_t *prompt_of(const struct run *r, size_t slot)
{
    return r->a->encoder_layers ? &r->a->decoder_start
                                : r->s->buffers.ids + (size_t)r->of[slot] * r->context;
}

/* The sources of slots [first, first + n) at once. */
static enum pl_status encode(struct run *r, size_t first, size_t n)
{
    struct pl_source sources[LLM_MAX_SLOTS];
    float *states[LLM_MAX_SLOTS];
    enum pl_status st;

    for (size_t i = 0; i < n; i++) {
        size_t slot = first + i;
        sources[i] = (struct pl_source){.ids = r->s->buffers.ids + (size_t)r->of[slot] * r->context,
                                        .n = r->context};
        states[i] = slot ? r->m->batch.states[slot - 1] : r->m->states;
    }
    st = pl_sessions_encode(r->slots + first, sources, n, r->a->causal ? NULL : states, &r->f->err);
    r->last = pl_now_ns();
    book(r, &r->encode, r->last);
    return st ? failed(r, st) : PL_OK;
}

/* Whether that token was the sequence's last. */
static bool ends(const struct run *r, uint32_t sequence, int32_t id)
{
    return r->s->buffers.lengths[sequence] == r->tokens ||
           (r->s->stop_at_eos && llm_is_eos(r->m, id));
}

/* The next token of a slot's sequence, known at r->last. True: it was its last. */
static bool note(struct run *r, size_t slot, int32_t id)
{
    struct llm_buffers *b = &r->s->buffers;
    const uint32_t q = r->of[slot];
    const size_t at = (size_t)q * r->tokens + b->lengths[q]++;
    size_t kept = 0;

    b->tokens[at] = id;
    b->ns[at] = r->last - r->start;
    if (!ends(r, q, id))
        return false;
    b->answered[q] = r->last - r->start;
    for (size_t i = 0; i < r->n_live; i++)
        if (r->live[i] != slot)
            r->live[kept++] = r->live[i];
    r->n_live = kept;
    if (r->q.clients)
        pl_loop_answer(&r->loop, q);
    return true;
}

static enum pl_status broken(struct run *r, uint32_t q)
{
    return pl_err_prefix(&r->f->err, llm_numeric(r->f, r->s->buffers.lengths[q]), "sequence %u", q);
}

/* The token that a slot's logits say, and when it was known. */
static enum pl_status take(struct run *r, size_t slot, float *logits)
{
    struct llm_buffers *b = &r->s->buffers;
    uint32_t q = r->of[slot];
    int32_t id = pl_pick(logits, (size_t)r->a->vocab, r->m->eos, r->masked);

    if (id < 0)
        return broken(r, q);
    r->last = pl_now_ns();
    if (b->lengths[q] == 0) {
        if (q == 0)
            memcpy(r->m->first, logits, (size_t)r->a->vocab * sizeof(*logits));
        for (int32_t l = 0; l < r->a->layers; l++)
            b->kv_len[(size_t)q * (size_t)r->a->layers + (size_t)l] =
                r->a->encoder_layers ? (uint32_t)r->context
                                     : (uint32_t)pl_session_kv_len(r->slots[slot], l);
        r->live[r->n_live++] = slot;
    }
    note(r, slot, id);
    return PL_OK;
}

/* Parts of one step and whose they are. */
struct step {
    struct pl_part parts[LLM_MAX_SLOTS];
    size_t slot[LLM_MAX_SLOTS], n, rows;
    bool silent, prompt; /* the last part's prompt goes on; some part is a prompt's */
};

/* The last token of a slot's sequence. */
static const int32_t *last_of(const struct run *r, size_t slot)
{
    const struct llm_buffers *b = &r->s->buffers;
    const uint32_t q = r->of[slot];

    return b->tokens + (size_t)q * r->tokens + b->lengths[q] - 1;
}

static void add_tokens(struct run *r, struct step *p)
{
    for (size_t i = 0; i < r->n_live; i++) {
        size_t slot = r->live[i];
        p->parts[p->n] =
            (struct pl_part){.session = r->slots[slot], .ids = last_of(r, slot), .n = 1};
        p->slot[p->n++] = slot;
        p->rows++;
    }
}

/* As much of the slot's prompt as fits. */
static void add_prompt(struct run *r, struct step *p, size_t slot)
{
    size_t left = prompt_rows(r) - r->read[slot];
    size_t n = left < PL_STEP_ROWS - p->rows ? left : PL_STEP_ROWS - p->rows;

    p->parts[p->n] = (struct pl_part){.session = r->slots[slot],
                                      .ids = prompt_of(r, slot) + r->read[slot],
                                      .n = n,
                                      .prompt = true};
    p->slot[p->n++] = slot;
    p->rows += n;
    r->read[slot] += n;
    p->prompt = true;
    p->silent = n < left;
}

static enum pl_status run_step(struct run *r, const struct step *p)
{
    enum pl_status st = pl_sessions_step(p->parts, p->n, p->silent, r->m->batch.logits, &r->f->err);

    if (st)
        return failed(r, st);
    for (size_t i = 0; i + p->silent < p->n && !st; i++)
        st = take(r, p->slot[i], r->m->batch.logits + i * (size_t)r->a->vocab);
    /* to the last token that it made known, so that the phases end with the trial */
    if (!st)
        book(r, p->prompt ? &r->prefill : &r->decode, p->n > p->silent ? r->last : pl_now_ns());
    return st;
}

/* Steps of all running sequences that a device makes by itself, at most `most`: until the first of
 * them has all its tokens. Where one may end before, what was made behind its end is in no figure,
 * but for the time that its row took of the others' steps. */
static enum pl_status run_alone(struct run *r, size_t most)
{
    const struct llm_buffers *b = &r->s->buffers;
    struct pl_session *sessions[LLM_MAX_SLOTS];
    size_t slot[LLM_MAX_SLOTS], used[LLM_MAX_SLOTS] = {0}, n = r->n_live, live = n;
    int32_t ids[LLM_MAX_SLOTS];
    struct pl_generation g = {
        .ids = ids, .n_ids = n, .n = most, .ends = r->m->eos, .n_ends = r->masked};
    enum pl_status st;

    g.n = g.n < LLM_MADE / n ? g.n : LLM_MADE / n;
    for (size_t i = 0; i < n; i++) {
        slot[i] = r->live[i];
        sessions[i] = r->slots[slot[i]];
        ids[i] = *last_of(r, slot[i]);
        const size_t left = r->tokens - b->lengths[r->of[slot[i]]];
        g.n = left < g.n ? left : g.n;
    }
    st = pl_sessions_generate(sessions, n, &g, b->made, &r->f->err);
    if (st)
        return failed(r, st);
    pl_generated_times(b->made, n, g.n, pl_now_ns(), r->last, b->made_ns);
    for (size_t t = 0; t < g.n; t++) {
        const struct pl_generated *made = b->made + t * n;
        if (live)
            r->last = b->made_ns[t];
        else
            r->counted.bytes += made->shared_bytes;
        for (size_t i = 0; i < n; i++) {
            if (used[i]) {
                r->counted.flops += made[i].work.flops;
                r->counted.bytes += made[i].work.bytes;
                continue;
            }
            if (made[i].token.id < 0)
                return broken(r, r->of[slot[i]]);
            used[i] = note(r, slot[i], made[i].token.id) ? t + 1 : 0;
            live -= used[i] > 0;
        }
    }
    for (size_t i = 0; i < n && !st; i++)
        if (used[i] && used[i] < g.n)
            st = pl_session_rollback(sessions[i], g.n - used[i], &r->f->err);
    book(r, &r->decode, r->last);
    return st ? failed(r, st) : PL_OK;
}

/* The whole prompt of a slot, which is then what the pruner left of it. */
static enum pl_status run_pruned_prompt(struct run *r, size_t slot)
{
    const struct pl_prompt prompt = {.ids = prompt_of(r, slot), .n = r->context};
    const struct llm_eyes none = {.n = 0};
    enum pl_status st = llm_prune_begin(r->pruned, prompt.ids, prompt.n, &none, &r->f->err);

    if (!st)
        st = pl_session_prefill(r->slots[slot], &prompt, r->m->batch.logits, &r->f->err);
    if (!st)
        st = pl_pruner_finish(r->pruned->pruner, r->slots[slot], &r->f->err);
    if (st)
        return failed(r, st);
    st = take(r, slot, r->m->batch.logits);
    if (!st)
        book(r, &r->prefill, r->last);
    return st;
}

/* All at once: every source, every prompt, then tokens of all that have not ended. */
static enum pl_status run_batch(struct run *r)
{
    size_t n = r->q.all, at = 0;
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < n; i++)
        r->of[i] = (uint32_t)i;
    if (!r->a->causal || r->a->encoder_layers)
        st = encode(r, 0, n);
    for (; !st && r->pruned && at < n; at++)
        st = run_pruned_prompt(r, at);
    while (!st && r->a->causal && at < n) {
        struct step p = {.n = 0};
        while (at < n && p.rows < PL_STEP_ROWS) {
            add_prompt(r, &p, at);
            at += !p.silent;
        }
        st = run_step(r, &p);
    }
    const bool alone = llm_bursts(r->s, r->m);
    while (!st && r->n_live) {
        struct step p = {.n = 0};
        if (!alone)
            add_tokens(r, &p);
        st = alone ? run_alone(r, r->s->stop_at_eos ? PL_GENERATE_AHEAD : SIZE_MAX)
                   : run_step(r, &p);
    }
    return st;
}

/* The next request into its client's slot; *slot SIZE_MAX: nobody waits. */
static enum pl_status admit(struct run *r, size_t *slot)
{
    uint32_t q = pl_loop_admit(&r->loop);

    *slot = SIZE_MAX;
    if (q == PL_LOOP_NONE)
        return PL_OK;
    *slot = q % r->q.clients;
    r->of[*slot] = q;
    r->read[*slot] = 0;
    pl_session_reset(r->slots[*slot]);
    return r->a->encoder_layers ? encode(r, *slot, 1) : PL_OK;
}

static enum pl_status run_loop(struct run *r)
{
    const bool alone = llm_bursts(r->s, r->m);
    size_t admitted = SIZE_MAX;
    enum pl_status st = PL_OK;

    pl_loop_begin(&r->loop, r->q.clients, r->q.all, r->s->buffers.queue, r->s->buffers.running);
    while (!st) {
        struct step p = {.n = 0};
        bool ran = false;
        if (admitted == SIZE_MAX)
            st = admit(r, &admitted);
        if (!st && admitted != SIZE_MAX && r->pruned) {
            st = run_pruned_prompt(r, admitted);
            admitted = SIZE_MAX;
            ran = true;
        }
        /* nobody waits: until the next answer, which may be behind any token */
        if (!st && alone && !ran && admitted == SIZE_MAX && r->n_live) {
            st = run_alone(r, r->s->stop_at_eos ? 1 : SIZE_MAX);
            continue;
        }
        add_tokens(r, &p);
        if (!st && admitted != SIZE_MAX) {
            add_prompt(r, &p, admitted);
            admitted = p.silent ? admitted : SIZE_MAX;
        }
        if (st || (!p.n && !ran))
            return st;
        if (p.n)
            st = run_step(r, &p);
    }
    return st;
}

/* An encoder answers everyone who waits in one pass. */
static enum pl_status run_encoder_loop(struct run *r)
{
    struct llm_buffers *b = &r->s->buffers;
    enum pl_status st = PL_OK;

    for (uint32_t at = 0; at < r->q.all && !st; at += r->q.clients) {
        uint32_t n = r->q.all - at < r->q.clients ? r->q.all - at : r->q.clients;
        for (uint32_t i = 0; i < n; i++)
            r->of[i] = at + i;
        st = encode(r, 0, n);
        for (uint32_t i = 0; i < n; i++)
            b->answered[at + i] = r->last - r->start;
    }
    return st;
}

/* Every sequence's ids; what tokenising took in all, −1: nothing was tokenised. */
static enum pl_status read_ids(struct run *r, const struct pl_trial_request *q, int64_t *tokenize)
{
    *tokenize = -1;
    for (uint32_t i = 0; i < r->q.all; i++) {
        int64_t ns;
        enum pl_status st = llm_sample_ids(r->s, r->m->tokenizer, &r->m->no_tokenizer, r->a->vocab,
                                           json_array_get(q->samples, i), q->context, &ns, r->f);
        if (st)
            return st;
        if (ns >= 0)
            *tokenize = (*tokenize > 0 ? *tokenize : 0) + ns;
        memcpy(r->s->buffers.ids + (size_t)i * r->context, r->s->ids.ids,
               r->context * sizeof(int32_t));
        r->s->buffers.lengths[i] = 0;
    }
    return PL_OK;
}

/* Mean over sequences of the time from coming to the first token known (encoders: to the answer). A
 * loop's first requests come once all texts are ids. */
static int64_t mean_ttft(const struct run *r, int64_t tokenize)
{
    const struct llm_buffers *b = &r->s->buffers;
    int64_t begin = r->q.clients && tokenize > 0 ? tokenize : 0, sum = 0;
    struct pl_loop all = {.clients = r->q.clients ? r->q.clients : r->q.all};

    for (uint32_t i = 0; i < r->q.all; i++) {
        int64_t known = r->a->causal   ? b->ns[(size_t)i * r->tokens]
                        : r->q.clients ? b->answered[i]
                                       : r->last - r->start;
        sum += known - pl_loop_came(&all, i, begin, b->answered);
    }
    return sum / r->q.all;
}

static enum pl_status check_states(const struct run *r)
{
    size_t n = r->context * (size_t)r->a->hidden;

    for (size_t i = 0; i < r->q.slots; i++)
        if (!llm_all_finite(i ? r->m->batch.states[i - 1] : r->m->states, n))
            return pl_fault_set(r->f,
                                pl_fail(&r->f->err, PL_EFORMAT,
                                        "the hidden states of sequence %zu are NaN or infinite", i),
                                PL_FAULT_NUMERIC);
    return PL_OK;
}

static void fill(const struct run *r, int64_t tokenize, struct pl_trial_result *out)
{
    const struct llm_buffers *b = &r->s->buffers;

    pl_trial_result_init(out);
    out->sequences = r->q.all;
    out->lengths = b->lengths;
    out->stride = (uint32_t)r->tokens;
    out->tokens = b->tokens;
    out->token_ns = b->ns;
    out->prompt_tokens = (uint32_t)(r->context * r->q.all);
    for (uint32_t i = 0; i < r->q.all; i++)
        out->generated += b->lengths[i];
    out->phase_ns[PL_PHASE_TOKENIZE] = tokenize;
    if (!r->a->causal || r->a->encoder_layers)
        out->phase_ns[PL_PHASE_ENCODE] = r->encode;
    if (r->a->causal) {
        out->phase_ns[PL_PHASE_PREFILL] = r->prefill;
        out->work = r->work;
    }
    if (r->a->causal && !r->s->prefill_only)
        out->phase_ns[PL_PHASE_DECODE] = r->decode;
    out->phase_ns[PL_PHASE_WAIT] = 0;
    out->ttft_ns = mean_ttft(r, tokenize);
    out->total_ns = r->last - r->start;
    out->kv_len = b->kv_len;
    out->layers = r->a->causal ? (uint32_t)r->a->layers : 0;
    out->synthetic = r->m->entry.random;
    /* Of the first sequence, to be compared with what it gives alone. */
    size_t n = r->a->causal ? (size_t)r->a->vocab : r->context * (size_t)r->a->hidden;
    out->hashed = true;
    out->ids_hash = pl_hash64(0, b->ids, r->context * sizeof(*b->ids));
    if (r->a->causal || !r->q.clients || r->q.all == r->q.clients)
        out->logits_hash =
            pl_hash64(0, r->a->causal ? r->m->first : r->m->states, n * sizeof(float));
}

enum pl_status llm_batch_trial(struct llm_state *s, struct llm_arm *arm,
                               const struct pl_trial_request *q, struct pl_trial_result *out,
                               struct pl_fault *f)
{
    struct llm_model *m = arm->model;
    int64_t tokens = s->prefill_only ? 1 : q->tokens ? q->tokens : s->tokens, tokenize;
    struct run r = {.s = s,
                    .m = m,
                    .a = &pl_model_info(m->model)->arch,
                    .q = arm->sequences,
                    .pruned = arm->pruned.prune ? &arm->pruned : NULL,
                    .context = (size_t)q->context,
                    .tokens = (size_t)tokens,
                    .masked = s->stop_at_eos ? 0 : m->n_eos,
                    .f = f};
    enum pl_status st;

    if (json_array_size(q->samples) != r.q.all)
        return pl_fault_set(f,
                            pl_fail(&f->err, PL_EPROTO, "%zu samples for an arm of %u sequences",
                                    json_array_size(q->samples), r.q.all),
                            PL_FAULT_RUNNER);
    if (tokens > s->tokens)
        return pl_fault_set(f,
                            pl_fail(&f->err, PL_ERANGE,
                                    "%" PRId64 " tokens, and the load said at most %" PRId64,
                                    tokens, s->tokens),
                            PL_FAULT_RUNNER);
    if (q->context < 1)
        return pl_fault_set(f,
                            pl_fail(&f->err, PL_EUNSUPPORTED,
                                    "scenes: this runner's engine runs them one sequence a trial"),
                            PL_FAULT_RUNNER);
    st = llm_check_context(r.a, q->context, tokens, &f->err);
    if (st)
        return pl_fault_set(f, st, PL_FAULT_CONTEXT);
    st = llm_foresee(s, arm, q->context, tokens, &f->err);
    if (st)
        return pl_fault_set(f, st, PL_FAULT_MEMORY);
    st = llm_batch_room(s, arm, q->context, tokens, &f->err);
    if (st)
        return pl_fault_set(f, st, PL_FAULT_RUNNER);
    for (size_t i = 0; i < r.q.slots; i++) {
        r.slots[i] = r.pruned ? r.pruned->sessions[i] : i ? m->batch.more[i - 1] : m->session;
        pl_session_reset(r.slots[i]);
    }
    llm_reset_peak(m);
    st = read_ids(&r, q, &tokenize);
    if (st)
        return st;
    /* The trial began the tokenisations ago; looking texts up is no part of it. */
    r.mark = pl_now_ns();
    r.start = r.mark - (tokenize > 0 ? tokenize : 0);
    r.counted = llm_work_done(m);
    st = !r.q.clients ? run_batch(&r) : !r.a->causal ? run_encoder_loop(&r) : run_loop(&r);
    if (st)
        return st;
    fill(&r, tokenize, out);
    llm_measure_bytes(m, r.slots, r.q.slots, false, out);
    return r.a->causal ? PL_OK : check_states(&r);
}
