#include "spec_decode/round.h"

#include "base/clock.h"
#include "base/rng.h"
#include "model/backend.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct pl_spec {
    struct pl_spec_opts o;
    int32_t masked[PL_ACCEPT_MAX_MASKED];
    size_t vocab, hidden, most;  /* most: tokens of one draft */
    struct pl_draft sent, draft; /* the drafter's, and what arrived */
    int32_t *text;               /* [max_prompt + max_tokens + 1] */
    int32_t *rows;               /* [most + 1] of a verify */
    int32_t *parents;            /* [most + 1] of a tree's verify */
    int32_t *path;               /* [most + 1] */
    float *logits;               /* [most + 1][vocab] */
    struct pl_picked *picks;     /* [most + 1] instead, of a greedy verifier that picks; or NULL */
    float *first, *last;         /* [vocab] */
    float *states;               /* [state_rows][hidden], with a tap */
    size_t n_states, state_rows;
    int64_t *token_ns;
    struct pl_spec_round *rounds;
    struct pl_spec_span spans[PL_SPEC_MAX_SPANS];
    /* of the request in hand */
    const struct pl_spec_request *q;
    struct pl_spec_result r;
    int64_t mark; /* of the verifier's lane: what came before has its phase */
    size_t lookahead;
    uint64_t seed;
    atomic_bool stop;
    /* written by the drafter's lane, read after it was waited for */
    int64_t d_look, d_begin, d_ready, d_end;
    int64_t d_mark; /* of the drafter's lane, like mark; of pl_now_ns */
};

static size_t most_drafted(const struct pl_spec_opts *o)
{
    size_t most = o->overlap ? PL_DRAFT_MAX : o->gamma;

    return o->nodes > most ? o->nodes : most;
}

static enum pl_status allocate(struct pl_spec *s, struct pl_err *err)
{
    size_t rows = s->most + 1, tokens = s->o.max_tokens + s->most + 1;
    size_t q = s->o.with_q ? s->vocab : 0;
    enum pl_status st = pl_draft_init(&s->sent, s->most, s->o.width, q, err);

    if (!st)
        st = pl_draft_init(&s->draft, s->most, s->o.width, q, err);
    if (!st)
        st = pl_transport_prepare(s->o.transport, &s->sent, &s->draft, err);
    if (st)
        return st;
    s->text = calloc(s->o.max_prompt + tokens, sizeof(*s->text));
    s->rows = calloc(rows, sizeof(*s->rows));
    s->parents = calloc(rows, sizeof(*s->parents));
    s->path = calloc(rows, sizeof(*s->path));
    if (s->o.rule.temperature <= 0 && pl_session_picks(s->o.verifier))
        s->picks = calloc(rows, sizeof(*s->picks));
    s->logits = calloc((s->picks ? 1 : rows) * s->vocab, sizeof(*s->logits));
    s->first = calloc(s->vocab, sizeof(*s->first));
    s->token_ns = calloc(tokens, sizeof(*s->token_ns));
    s->rounds = calloc(tokens, sizeof(*s->rounds));
    if (s->o.tap >= 0)
        s->states = calloc(s->state_rows * s->hidden, sizeof(*s->states));
    if (s->o.rule.temperature > 0)
        s->o.rule.p = calloc(2 * s->vocab, sizeof(*s->o.rule.p));
    if (!s->text || !s->rows || !s->parents || !s->path || !s->logits || !s->first ||
        !s->token_ns || !s->rounds || (s->o.tap >= 0 && !s->states) ||
        (s->o.rule.temperature > 0 && !s->o.rule.p))
        return pl_fail(err, PL_ENOMEM, "no memory for drafting %zu tokens", s->most);
    return PL_OK;
}

enum pl_status pl_spec_create(const struct pl_spec_opts *o, struct pl_spec **out,
                              struct pl_err *err)
{
    const struct pl_arch *a = &pl_model_info(pl_session_model(o->verifier))->arch;
    struct pl_spec *s;
    enum pl_status st;

    if (!o->gamma || o->gamma > PL_DRAFT_MAX || o->nodes > PL_DRAFT_MAX ||
        o->rule.n_masked > PL_ACCEPT_MAX_MASKED)
        return pl_fail(err, PL_ERANGE, "gamma %zu, %zu nodes: expected 1 to %d", o->gamma, o->nodes,
                       PL_DRAFT_MAX);
    if (o->overlap && (!o->ops->run_ahead || !o->lane))
        return pl_fail(err, PL_EUSAGE, "%s has no prefill to overlap", o->ops->name);
    s = calloc(1, sizeof(*s));
    if (!s)
        return pl_fail(err, PL_ENOMEM, "no memory to draft");
    s->o = *o;
    s->o.rule.p = NULL;
    for (size_t i = 0; i < o->rule.n_masked; i++)
        s->masked[i] = o->rule.masked[i];
    s->o.rule.masked = s->masked;
    s->seed = o->rule.key;
    s->vocab = (size_t)a->vocab;
    s->hidden = (size_t)a->hidden;
    s->most = most_drafted(o);
    s->state_rows = o->ops->prompt && o->max_prompt > s->most ? o->max_prompt : s->most + 1;
    st = allocate(s, err);
    if (st) {
        pl_spec_free(s);
        return st;
    }
    *out = s;
    return PL_OK;
}

void pl_spec_free(struct pl_spec *s)
{
    if (!s)
        return;
    pl_draft_release(&s->sent);
    pl_draft_release(&s->draft);
    free(s->text);
    free(s->rows);
    free(s->parents);
    free(s->path);
    free(s->logits);
    free(s->picks);
    free(s->first);
    free(s->states);
    free(s->token_ns);
    free(s->rounds);
    free(s->o.rule.p);
    free(s);
}

static void add_span(struct pl_spec *s, int lane, enum pl_spec_phase kind, int64_t begin,
                     int64_t end)
{
    int64_t t0 = s->q->start_ns;

    s->r.phase_ns[kind] += end - begin;
    if (s->r.n_spans < PL_SPEC_MAX_SPANS)
        s->spans[s->r.n_spans++] =
            (struct pl_spec_span){(uint8_t)lane, (uint8_t)kind, begin - t0, end - t0};
}

/* What passed in the verifier's lane since the last mark was `kind`. */
static int64_t lap(struct pl_spec *s, enum pl_spec_phase kind)
{
    int64_t now = pl_now_ns(), took = now - s->mark;

    add_span(s, 0, kind, s->mark, now);
    s->mark = now;
    return took;
}

/* What the drafter's lane did; until then it waited. Behind the text's end nothing counts. */
static void drafter_lap(struct pl_spec *s, enum pl_spec_phase kind, int64_t begin, int64_t end,
                        int64_t over)
{
    begin = begin < over ? begin : over;
    end = end < over ? end : over;
    s->r.phase_ns[PL_SPEC_D_WAIT] += begin - s->d_mark;
    add_span(s, 1, kind, begin, end);
    s->d_mark = end;
}

static size_t left(const struct pl_spec *s)
{
    return s->q->tokens - s->r.n;
}

static bool ends(const struct pl_spec *s, int32_t id)
{
    for (size_t i = 0; i < s->q->n_eos; i++)
        if (s->q->eos[i] == id)
            return true;
    return false;
}

/* Whether the text's last token is an end. */
static bool ended(const struct pl_spec *s)
{
    return ends(s, s->text[s->q->n_prompt + s->r.n - 1]);
}

/* Appends tokens that are known now, up to an end or the number asked for. True: the last one was
 * an end. */
static bool emit(struct pl_spec *s, int32_t id, int64_t now)
{
    s->text[s->q->n_prompt + s->r.n] = id;
    s->token_ns[s->r.n++] = now - s->q->start_ns;
    s->r.last_ns = now - s->q->start_ns;
    return ends(s, id);
}

static enum pl_status take_states(struct pl_spec *s, size_t rows, struct pl_err *err)
{
    size_t have;

    if (s->o.tap < 0)
        return PL_OK;
    have = pl_session_hidden_rows(s->o.verifier, (size_t)s->o.tap);
    if (rows > have)
        rows = have;
    if (rows > s->state_rows)
        rows = s->state_rows;
    s->n_states = rows;
    return pl_session_hidden_copy(s->o.verifier, (size_t)s->o.tap, have - rows, rows, s->states,
                                  err);
}

static struct pl_prompt own_prompt(const struct pl_spec *s)
{
    return (struct pl_prompt){.ids = s->q->ids, .embeds = s->q->embeds, .n = s->q->n_prompt};
}

static struct pl_prompt drafter_prompt(const struct pl_spec *s)
{
    return s->q->drafter_prompt.n ? s->q->drafter_prompt : own_prompt(s);
}

static bool must_stop(void *arg)
{
    struct pl_spec *s = arg;

    return atomic_load_explicit(&s->stop, memory_order_relaxed);
}

/* The drafter's lane while the verifier runs its prefill. */
static enum pl_status beside(void *arg, struct pl_err *err)
{
    struct pl_spec *s = arg;
    struct pl_prompt p = drafter_prompt(s);
    enum pl_status st = PL_OK;

    s->d_look = s->d_begin = s->d_ready = s->d_end = pl_now_ns();
    if (s->q->look)
        st = s->q->look(s->q->look_user, &p, err);
    s->d_begin = s->d_ready = s->d_end = pl_now_ns();
    if (!st)
        st = s->o.ops->begin(s->o.drafter, &p, s->q->key, err);
    s->d_ready = s->d_end = pl_now_ns();
    if (!st)
        st = s->o.ops->run_ahead(s->o.drafter, must_stop, s, s->most, &s->sent, err);
    s->d_end = pl_now_ns();
    return st;
}

static enum pl_status first_token(struct pl_spec *s, struct pl_err *err)
{
    struct pl_prompt p = own_prompt(s);
    int32_t id = -1;
    enum pl_status st = pl_session_prefill(s->o.verifier, &p, s->first, err);

    if (!st && s->o.prefilled)
        st = s->o.prefilled(s->o.prefilled_user, s->o.verifier, err);
    if (!st)
        st = pl_accept_one(&s->o.rule, s->first, s->vocab, 0, &id, err);
    if (st)
        return st;
    lap(s, PL_SPEC_PREFILL);
    s->r.first_ns = s->mark - s->q->start_ns;
    (void)emit(s, id, s->mark);
    s->r.first_logits = s->r.last_logits = s->first;
    return take_states(s, s->o.ops->prompt ? s->q->n_prompt : 1, err);
}

/* Forgets one token of a draft from its front. */
static void drop_first(struct pl_draft *d)
{
    if (!d->n)
        return;
    d->n--;
    d->first++;
    memmove(d->ids, d->ids + 1, d->n * sizeof(*d->ids));
    if (d->states)
        memmove(d->states, d->states + d->width, d->n * d->width * sizeof(*d->states));
    if (d->q && d->has_q)
        memmove(d->q, d->q + d->vocab, d->n * d->vocab * sizeof(*d->q));
}

static enum pl_status translate(struct pl_spec *s, struct pl_err *err)
{
    enum pl_status st;

    if (!s->o.translate.run || !s->draft.n)
        return PL_OK;
    st = s->o.translate.run(s->o.translate.user, &s->draft,
                            s->n_states ? s->states + (s->n_states - 1) * s->hidden : NULL, err);
    lap(s, PL_SPEC_ADAPTER);
    return st;
}

/* Both prefills, one beside the other; the draft is what the drafter had time for. */
static enum pl_status begin_overlapped(struct pl_spec *s, struct pl_err *err)
{
    struct pl_err other = {""};
    enum pl_status st, st2;
    int64_t over;

    s->draft.n = 0;
    atomic_store(&s->stop, false);
    st = s->o.lanes ? s->o.lanes(s->o.lanes_user, true, err) : PL_OK;
    if (st)
        return st;
    pl_lane_post(s->o.lane, beside, s);
    st = first_token(s, err);
    atomic_store(&s->stop, true);
    st2 = pl_lane_wait(s->o.lane, &other);
    if (s->o.lanes) { /* also after a failure: the next one begins on all cores */
        enum pl_status st3 = s->o.lanes(s->o.lanes_user, false, st ? &other : err);
        st = st ? st : st3;
    }
    if (st)
        return st;
    over = ended(s) ? s->mark : INT64_MAX;
    if (!ended(s))
        lap(s, PL_SPEC_WAIT);
    if (s->q->look)
        drafter_lap(s, PL_SPEC_D_VISION, s->d_look, s->d_begin, over);
    drafter_lap(s, PL_SPEC_D_PREFILL, s->d_begin, s->d_ready, over);
    drafter_lap(s, PL_SPEC_D_DECODE, s->d_ready, s->d_end, over);
    if (st2) {
        *err = other;
        return pl_err_prefix(err, st2, "the drafter's lane");
    }
    if (ended(s))
        return PL_OK;
    st = pl_transport_move(s->o.transport, &s->draft, &s->sent, err);
    if (!st && !s->o.translate.ahead)
        st = translate(s, err);
    drop_first(&s->draft);
    if (!st && s->o.translate.ahead)
        st = translate(s, err);
    s->r.free_tokens = (uint32_t)s->draft.n;
    return st;
}

static enum pl_status begin_in_turn(struct pl_spec *s, struct pl_err *err)
{
    struct pl_prompt p = drafter_prompt(s);
    enum pl_status st = first_token(s, err);

    s->draft.n = 0;
    if (st || ended(s))
        return st;
    if (s->q->look)
        st = s->q->look(s->q->look_user, &p, err);
    int64_t looked = pl_now_ns();
    if (!st)
        st = s->o.ops->begin(s->o.drafter, &p, s->q->key, err);
    if (s->o.ops->lane) {
        if (s->q->look)
            drafter_lap(s, PL_SPEC_D_VISION, s->mark, looked, INT64_MAX);
        drafter_lap(s, PL_SPEC_D_PREFILL, looked, pl_now_ns(), INT64_MAX);
        lap(s, PL_SPEC_WAIT);
    }
    return st;
}

static enum pl_status plain_step(struct pl_spec *s, bool *done, struct pl_err *err)
{
    int32_t id = s->text[s->q->n_prompt + s->r.n - 1];
    size_t none = 0;
    enum pl_status st = s->picks ? pl_session_verify_pick(s->o.verifier, &id, 1, s->masked,
                                                          s->o.rule.n_masked, s->picks, err)
                                 : pl_session_decode(s->o.verifier, id, s->logits, err);

    if (!st)
        st = pl_accept(&s->o.rule, &(struct pl_proposal){.chosen = s->picks}, s->logits, s->vocab,
                       s->r.n, s->path, &none, &id, err);
    if (st)
        return st;
    lap(s, PL_SPEC_DECODE);
    s->r.plain++;
    s->r.last_logits = s->picks ? NULL : s->logits;
    *done = emit(s, id, s->mark);
    return take_states(s, 1, err);
}

/* A tree's nodes behind the last token, as many as there is room for. */
static enum pl_status run_tree(struct pl_spec *s, struct pl_err *err)
{
    struct pl_draft *d = &s->draft;
    size_t room = pl_session_capacity(s->o.verifier) - pl_session_len(s->o.verifier);

    if (d->n + 1 > room)
        d->n = room ? room - 1 : 0;
    s->parents[0] = -1;
    for (size_t i = 0; i < d->n; i++)
        s->parents[i + 1] = d->parents[i] + 1;
    const struct pl_prompt rows = {.ids = s->rows, .n = d->n + 1};
    return s->picks ? pl_session_tree_pick(s->o.verifier, &rows, s->parents, s->masked,
                                           s->o.rule.n_masked, s->picks, err)
                    : pl_session_tree(s->o.verifier, &rows, s->parents, s->logits, err);
}

static enum pl_status run_chain(struct pl_spec *s, struct pl_err *err)
{
    const size_t n = s->draft.n + 1;

    return s->picks ? pl_session_verify_pick(s->o.verifier, s->rows, n, s->masked,
                                             s->o.rule.n_masked, s->picks, err)
                    : pl_session_verify(s->o.verifier, s->rows, n, s->logits, err);
}

/* What the verifier keeps of the draft's rows: the last token's and, of the draft's, the path of
 * *a; and their states. */
static enum pl_status keep(struct pl_spec *s, size_t a, struct pl_err *err)
{
    struct pl_draft *d = &s->draft;
    enum pl_status st = take_states(s, d->n + 1, err);

    s->n_states = s->o.tap < 0 ? 0 : a + 1;
    if (st || !d->tree)
        return st ? st : pl_session_rollback(s->o.verifier, d->n - a, err);
    s->parents[0] = 0; /* from here on the path */
    for (size_t i = 0; i < a; i++) {
        s->parents[i + 1] = s->path[i] + 1;
        if (s->states)
            memcpy(s->states + (i + 1) * s->hidden,
                   s->states + (size_t)s->parents[i + 1] * s->hidden,
                   s->hidden * sizeof(*s->states));
    }
    return pl_session_keep_path(s->o.verifier, s->parents, a + 1, err);
}

/* The draft in one verify; *a tokens of it stand in path. */
static enum pl_status verify(struct pl_spec *s, size_t *a, int32_t *next, struct pl_err *err)
{
    const struct pl_draft *d = &s->draft;
    enum pl_status st;

    s->rows[0] = s->text[s->q->n_prompt + s->r.n - 1];
    memcpy(s->rows + 1, d->ids, d->n * sizeof(*s->rows));
    st = d->tree ? run_tree(s, err) : run_chain(s, err);
    struct pl_proposal p = {.ids = d->ids,
                            .parents = d->tree ? d->parents : NULL,
                            .q = d->has_q ? d->q : NULL,
                            .chosen = s->picks,
                            .k = d->n};
    if (!st)
        st = pl_accept(&s->o.rule, &p, s->logits, s->vocab, s->r.n, s->path, a, next, err);
    if (st)
        return st;
    s->r.last_logits = s->logits + (*a ? (size_t)s->path[*a - 1] + 1 : 0) * s->vocab;
    s->r.last_logits = s->picks ? NULL : s->r.last_logits;
    return keep(s, *a, err);
}

static enum pl_status round_of(struct pl_spec *s, int64_t draft_ns, bool *done, struct pl_err *err)
{
    struct pl_spec_round *r = &s->rounds[s->r.n_rounds];
    size_t a = 0, asked = s->draft.tree ? s->lookahead : s->draft.n;
    int32_t next = -1;
    enum pl_status st = verify(s, &a, &next, err);

    if (st)
        return st;
    int64_t took = lap(s, PL_SPEC_VERIFY);
    *r = (struct pl_spec_round){.drafted = (uint32_t)s->draft.n,
                                .accepted = (uint32_t)a,
                                .draft_us = draft_ns / 1000,
                                .verify_us = took / 1000};
    s->r.n_rounds++;
    s->r.drafted += r->drafted;
    s->r.accepted += r->accepted;
    for (size_t i = 0; i <= a && !*done; i++) {
        *done = emit(s, i < a ? s->draft.ids[s->path[i]] : next, s->mark);
        if (*done)
            s->r.cut = (uint32_t)(a - i);
    }
    if (s->o.adaptive && a >= asked && s->lookahead < s->o.gamma)
        s->lookahead++;
    else if (s->o.adaptive && a < asked)
        s->lookahead = a + 1 < s->o.gamma ? a + 1 : s->o.gamma;
    return PL_OK;
}

/* The next draft; no more than what is still wanted beside the verifier's own token. */
static enum pl_status next_draft(struct pl_spec *s, int64_t *draft_ns, struct pl_err *err)
{
    const struct pl_verified text = {.ids = s->text,
                                     .n_prompt = s->q->n_prompt,
                                     .n = s->r.n,
                                     .states = s->states,
                                     .n_states = s->n_states};
    size_t want = left(s) - 1 < s->lookahead ? left(s) - 1 : s->lookahead;
    int64_t began = s->mark;
    enum pl_status st;

    s->draft.n = 0;
    *draft_ns = 0;
    if (!s->o.after || !want)
        return PL_OK;
    st = s->o.ops->draft(s->o.drafter, &text, want, &s->sent, err);
    if (!st)
        st = pl_transport_move(s->o.transport, &s->draft, &s->sent, err);
    if (st)
        return st;
    if (s->o.ops->lane)
        drafter_lap(s, PL_SPEC_D_DECODE, began, pl_now_ns(), INT64_MAX);
    lap(s, PL_SPEC_DRAFT);
    st = translate(s, err);
    *draft_ns = s->mark - began;
    return st;
}

static enum pl_status check_identity(const struct pl_spec *s, struct pl_err *err)
{
    const struct pl_spec_result *r = &s->r;
    uint64_t made = 1 + (uint64_t)r->accepted + r->n_rounds + r->plain - r->cut;

    if (made == r->n)
        return PL_OK;
    return pl_fail(err, PL_EFORMAT,
                   "%zu tokens were generated, but 1 + %" PRIu32 " accepted + %zu rounds + %" PRIu32
                   " plain steps - %" PRIu32 " cut are %" PRIu64,
                   r->n, r->accepted, r->n_rounds, r->plain, r->cut, made);
}

static enum pl_status check_request(const struct pl_spec *s, const struct pl_spec_request *q,
                                    struct pl_err *err)
{
    if (!q->tokens || q->tokens > s->o.max_tokens || q->n_prompt > s->o.max_prompt)
        return pl_fail(err, PL_ERANGE, "%zu + %zu tokens: room was made for %zu + %zu", q->n_prompt,
                       q->tokens, s->o.max_prompt, s->o.max_tokens);
    return PL_OK;
}

enum pl_status pl_spec_generate(struct pl_spec *s, const struct pl_spec_request *q,
                                struct pl_spec_result *out, struct pl_err *err)
{
    bool done;
    int64_t draft_ns = 0;
    enum pl_status st = check_request(s, q, err);

    if (st)
        return st;
    s->q = q;
    s->r = (struct pl_spec_result){.tokens = s->text + q->n_prompt,
                                   .token_ns = s->token_ns,
                                   .rounds = s->rounds,
                                   .spans = s->spans};
    s->lookahead = s->o.gamma;
    s->o.rule.key = pl_keyv(s->seed, q->key);
    for (size_t i = 0; i < q->n_prompt; i++)
        s->text[i] = q->ids ? q->ids[i] : -1;
    pl_session_reset(s->o.verifier);
    s->d_mark = q->start_ns;
    s->mark = pl_now_ns();
    s->r.ready_ns = s->mark - q->start_ns;
    if (q->tokens == 1) { /* nothing to draft for */
        st = first_token(s, err);
        s->draft.n = 0;
    } else {
        st = s->o.overlap ? begin_overlapped(s, err) : begin_in_turn(s, err);
    }
    done = !st && ended(s);
    if (!st && s->draft.n > left(s) - 1 && s->r.n == 1 && left(s))
        s->draft.n = left(s) - 1;
    s->r.free_tokens = (uint32_t)s->draft.n;
    while (!st && !done && left(s)) {
        if (!s->draft.n)
            st = next_draft(s, &draft_ns, err);
        if (!st)
            st = s->draft.n ? round_of(s, draft_ns, &done, err) : plain_step(s, &done, err);
        s->draft.n = 0;
        draft_ns = 0;
    }
    if (s->d_mark > q->start_ns) /* the drafter's lane did something */
        s->r.phase_ns[PL_SPEC_D_WAIT] += q->start_ns + s->r.last_ns - s->d_mark;
    if (!st)
        st = check_identity(s, err);
    if (!st)
        *out = s->r;
    return st;
}
