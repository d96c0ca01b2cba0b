/* A model that drafts by its own decoding. */
#include "base/rng.h"
#include "spec_decode/draft.h"

#include <stdlib.h>
#include <string.h>

#define FEED 32 /* rows of verified text fed at once */

struct drafter {
    struct pl_session *s;
    struct pl_accept_rule rule; /* how it chooses; key: of the text at hand */
    uint64_t seed;
    size_t vocab, hidden, max_text;
    size_t capacity, prompt; /* of the session; of them the prompt's rows */
    int tap;
    int32_t *fed; /* [max_text] generated ids that its KV cache holds */
    size_t n_fed;
    float *logits; /* [FEED][vocab]: those after the last row that was fed stand in row `at` */
    size_t at;
    float *row; /* [max_text + 1][hidden]: row t chose id t of the text; NULL without a tap */
    struct pl_tensor *rows; /* the same on the session's device instead, or NULL */
    const struct pl_backend *backend;
    bool lead;
    int32_t eos[PL_ACCEPT_MAX_MASKED];
    size_t n_eos;
    /* of a device that makes tokens by itself, [PL_DRAFT_MAX] each; else NULL */
    struct pl_generated *made;
    double *draws;
};

static void model_free(void *state)
{
    struct drafter *d = state;

    if (!d)
        return;
    free(d->fed);
    free(d->logits);
    free(d->row);
    free(d->made);
    free(d->draws);
    if (d->rows)
        d->backend->tensor_free(d->rows);
    free((void *)d->rule.masked);
    free(d->rule.p);
    free(d);
}

enum pl_status pl_draft_model_new(const struct pl_draft_model_opts *o, void **out,
                                  struct pl_err *err)
{
    const struct pl_arch *a = &pl_model_info(pl_session_model(o->session))->arch;
    struct drafter *d = calloc(1, sizeof(*d));
    int32_t *masked = calloc(o->n_masked + 1, sizeof(*masked));
    bool ok = d && masked;

    if (!ok) {
        free(d);
        free(masked);
        return pl_fail(err, PL_ENOMEM, "no memory for a drafter");
    }
    for (size_t i = 0; i < o->n_masked; i++)
        masked[i] = o->masked[i];
    *d = (struct drafter){.s = o->session,
                          .vocab = (size_t)a->vocab,
                          .hidden = (size_t)a->hidden,
                          .max_text = o->max_text,
                          .seed = o->key,
                          .capacity = pl_session_capacity(o->session),
                          .tap = o->tap,
                          .lead = o->lead};
    for (size_t i = 0; i < o->n_eos && i < PL_ACCEPT_MAX_MASKED; i++)
        d->eos[d->n_eos++] = o->eos[i];
    d->rule = (struct pl_accept_rule){
        .temperature = o->temperature, .masked = masked, .n_masked = o->n_masked};
    d->fed = calloc(o->max_text + 1, sizeof(*d->fed));
    d->logits = calloc(FEED * d->vocab, sizeof(*d->logits));
    if (o->temperature > 0)
        d->rule.p = calloc(2 * d->vocab, sizeof(*d->rule.p));
    if (o->tap >= 0 && !o->on_device)
        d->row = calloc((o->max_text + 1) * d->hidden, sizeof(*d->row));
    const bool ahead = pl_session_generates(o->session);
    if (ahead) {
        d->made = calloc(PL_DRAFT_MAX, sizeof(*d->made));
        d->draws = calloc(PL_DRAFT_MAX, sizeof(*d->draws));
    }
    if ((ahead && (!d->made || !d->draws)) || !d->fed || !d->logits ||
        (o->temperature > 0 && !d->rule.p) || (o->tap >= 0 && !o->on_device && !d->row)) {
        model_free(d);
        return pl_fail(err, PL_ENOMEM, "no memory for a drafter");
    }
    if (o->tap >= 0 && o->on_device) {
        struct pl_model *m = pl_session_model(o->session);
        d->backend = pl_model_backend(m);
        enum pl_status st = d->backend->tensor_create(pl_model_device(m), o->max_text + 1,
                                                      d->hidden, &d->rows, err);
        if (st) {
            model_free(d);
            return st;
        }
    }
    *out = d;
    return PL_OK;
}

/* Rows [first, first + n) of the last call are those behind the text's ids at … */
static enum pl_status take_rows(struct drafter *d, size_t first, size_t n, size_t at,
                                struct pl_err *err)
{
    if (d->tap < 0)
        return PL_OK;
    if (d->rows)
        return d->backend->copy(d->rows, at, pl_session_hidden(d->s, (size_t)d->tap), first, n,
                                err);
    return pl_session_hidden_copy(d->s, (size_t)d->tap, first, n, d->row + at * d->hidden, err);
}

static enum pl_status model_begin(void *state, const struct pl_prompt *prompt, uint64_t key,
                                  struct pl_err *err)
{
    struct drafter *d = state;
    enum pl_status st;

    pl_session_reset(d->s);
    d->n_fed = d->at = 0;
    d->rule.key = pl_keyv(d->seed, key);
    st = pl_session_prefill(d->s, prompt, d->logits, err);
    d->prompt = prompt->n;
    return st ? st : take_rows(d, pl_session_hidden_rows(d->s, 0) - 1, 1, 0, err);
}

/* n ids of the generated text, whose first one is number d->n_fed. */
static enum pl_status feed(struct drafter *d, const int32_t *ids, size_t n, struct pl_err *err)
{
    while (n) {
        size_t k = n < FEED ? n : FEED;
        enum pl_status st = k == 1 ? pl_session_decode(d->s, ids[0], d->logits, err)
                                   : pl_session_verify(d->s, ids, k, d->logits, err);
        if (!st)
            st = take_rows(d, 0, k, d->n_fed + 1, err);
        if (st)
            return st;
        d->at = k - 1;
        memcpy(d->fed + d->n_fed, ids, k * sizeof(*ids));
        d->n_fed += k;
        ids += k;
        n -= k;
    }
    return PL_OK;
}

/* Whether the draft ends in an end of sequence. */
static bool ended(const struct drafter *d, const struct pl_draft *out)
{
    for (size_t i = 0; i < d->n_eos; i++)
        if (out->ids[out->n - 1] == d->eos[i])
            return true;
    return false;
}

static bool has_room(const struct drafter *d, size_t n)
{
    return d->n_fed + n <= d->max_text && d->prompt + d->n_fed + n <= d->capacity;
}

/* What token number t is drawn by. */
static double draw_of(const struct drafter *d, size_t t)
{
    struct pl_rng r;

    pl_rng_init(&r, pl_keyv(d->rule.key, t, 3));
    return pl_rng_double(&r);
}

/* n ids of out's, number t of the text on, are there: with the states that travel. */
static enum pl_status add(struct drafter *d, size_t t, size_t n, struct pl_draft *out,
                          struct pl_err *err)
{
    const size_t from = d->lead && t ? t - 1 : t, at = out->n;

    out->n += n;
    if (d->row && out->states)
        memcpy(out->states + at * d->hidden, d->row + from * d->hidden,
               n * d->hidden * sizeof(*d->row));
    if (d->rows && out->rows)
        return d->backend->copy(out->rows, at, d->rows, from, n, err);
    return PL_OK;
}

/* The next token of its own, number t of the text, into out. */
static enum pl_status propose(struct drafter *d, size_t t, struct pl_draft *out, struct pl_err *err)
{
    float *logits = d->logits + d->at * d->vocab;
    int32_t *id = &out->ids[out->n];
    enum pl_status st;

    if (d->rule.temperature > 0 && out->q) {
        float *q = out->q + out->n * d->vocab;
        st = pl_accept_probs(&d->rule, logits, d->vocab, q, err);
        if (!st)
            *id = pl_accept_draw(q, d->vocab, draw_of(d, t));
        out->has_q = true;
    } else {
        st = pl_accept_one(
            &(struct pl_accept_rule){.masked = d->rule.masked, .n_masked = d->rule.n_masked},
            logits, d->vocab, t, id, err);
    }
    if (st)
        return st;
    return add(d, t, 1, out, err);
}

/* ids [k] go in, and `want` tokens behind them, number t of the text on, come out without a stop
 * between them; no more than up to an end. */
static enum pl_status go_on(struct drafter *d, const int32_t *ids, size_t k, size_t t, size_t want,
                            struct pl_draft *out, struct pl_err *err)
{
    const bool draws = d->rule.temperature > 0 && out->q;
    const struct pl_generation g = {.ids = ids,
                                    .n_ids = k,
                                    .n = want,
                                    .temperature = draws ? d->rule.temperature : 0,
                                    .draws = d->draws,
                                    .ends = d->rule.masked,
                                    .n_ends = d->rule.n_masked,
                                    .logits = draws ? out->q + out->n * d->vocab : NULL};
    const size_t at = out->n;
    enum pl_status st;

    for (size_t i = 0; i < want && draws; i++)
        d->draws[i] = draw_of(d, t + i);
    st = pl_session_generate(d->s, &g, d->made, err);
    if (!st)
        st = take_rows(d, 0, k + want - 1, d->n_fed + 1, err);
    if (st)
        return st;
    memcpy(d->fed + d->n_fed, ids, k * sizeof(*ids));
    d->n_fed += k;
    for (size_t i = 0; i + 1 < want; i++)
        d->fed[d->n_fed++] = d->made[i].token.id;
    out->has_q |= draws;
    for (size_t n = 0; n < want && !st; n++) {
        const int32_t id = d->made[n].token.id;
        float *q = draws ? out->q + (at + n) * d->vocab : NULL;
        if (id < 0)
            return pl_fail(err, PL_EFORMAT, "the logits of token %zu are NaN or infinite", t + n);
        out->ids[out->n++] = id;
        if (q)
            st = pl_accept_probs(&d->rule, q, d->vocab, q, err);
        if (ended(d, out))
            break;
    }
    const size_t n = out->n - at;
    out->n = at;
    return st ? st : add(d, t, n, out, err);
}

static enum pl_status model_run_ahead(void *state, bool (*stop)(void *arg), void *arg, size_t most,
                                      struct pl_draft *out, struct pl_err *err)
{
    struct drafter *d = state;
    enum pl_status st;

    out->n = 0;
    out->tree = out->has_q = false;
    st = propose(d, 0, out, err);
    while (!st && out->n < most && !ended(d, out) && has_room(d, 1) && !stop(arg)) {
        if (d->made) { /* the id is read before anything is written over it */
            st = go_on(d, &out->ids[out->n - 1], 1, out->n, 1, out, err);
            continue;
        }
        st = feed(d, &out->ids[out->n - 1], 1, err);
        if (!st)
            st = propose(d, out->n, out, err);
    }
    return st;
}

static enum pl_status model_draft(void *state, const struct pl_verified *text, size_t want,
                                  struct pl_draft *out, struct pl_err *err)
{
    struct drafter *d = state;
    const int32_t *ids = text->ids + text->n_prompt;
    size_t same = 0;
    enum pl_status st = PL_OK;

    out->n = 0;
    out->tree = out->has_q = false;
    /* Its last row must be the text's last token: that one is always fed anew. */
    while (same < d->n_fed && same + 1 < text->n && d->fed[same] == ids[same])
        same++;
    if (d->n_fed > same) {
        st = pl_session_rollback(d->s, d->n_fed - same, err);
        d->n_fed = same;
    }
    if (st || !has_room(d, text->n - same))
        return st;
    if (d->made) {
        const size_t new = text->n - same, last = (new - 1) % FEED + 1;
        want = want < PL_DRAFT_MAX ? want : PL_DRAFT_MAX;
        while (want > 1 && !has_room(d, new + want - 1))
            want--;
        st = feed(d, ids + same, new - last, err);
        return st ? st : go_on(d, ids + text->n - last, last, text->n, want, out, err);
    }
    st = feed(d, ids + same, text->n - same, err);
    while (!st && out->n < want) {
        st = propose(d, text->n + out->n, out, err);
        if (st || out->n == want || ended(d, out) || !has_room(d, 1))
            break;
        st = feed(d, &out->ids[out->n - 1], 1, err);
    }
    return st;
}

const struct pl_drafter_ops pl_draft_model = {.name = "model",
                                              .lane = true,
                                              .first = true,
                                              .begin = model_begin,
                                              .run_ahead = model_run_ahead,
                                              .draft = model_draft,
                                              .free = model_free};
