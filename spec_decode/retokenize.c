#include "spec_decode/retokenize.h"

#include "spec_decode/retok.h"

#include <stdlib.h>
#include <string.h>

#define CONTEXT 512 /* bytes of the prompt that the verifier's tokens are read behind */

struct retokenize {
    const struct pl_tokenizer *tv, *td;
    void *model; /* pl_draft_model */
    struct pl_retok *v, *d;
    struct pl_untok text;    /* the verified one, as far as it is text */
    struct pl_untok drafted; /* what the drafter adds to it */
    struct pl_draft own;     /* the drafter's tokens */
    struct pl_buf whole;     /* text + drafted */
    struct pl_ids rest, ahead;
    int32_t eos[PL_ACCEPT_MAX_MASKED];
    size_t n_eos;
    size_t heard; /* generated ids that `text` holds */
    size_t base;  /* the drafter's ids that its prefill holds */
    size_t rows;  /* of its prefill */
    size_t from;  /* where `v` begins in the text */
    size_t begin; /* where what is generated begins */
};

static void retokenize_free(void *state)
{
    struct retokenize *r = state;

    if (!r)
        return;
    pl_draft_model.free(r->model);
    pl_retok_free(r->v);
    pl_retok_free(r->d);
    pl_untok_release(&r->text);
    pl_untok_release(&r->drafted);
    pl_draft_release(&r->own);
    pl_buf_release(&r->whole);
    pl_ids_release(&r->rest);
    pl_ids_release(&r->ahead);
    free(r);
}

enum pl_status pl_draft_retokenize_new(const struct pl_retokenize_opts *o, void **out,
                                       struct pl_err *err)
{
    struct retokenize *r = calloc(1, sizeof(*r));
    enum pl_status st;

    if (!r)
        return pl_fail(err, PL_ENOMEM, "no memory to re-tokenise");
    r->tv = o->verifier;
    r->td = o->drafter;
    pl_buf_init(&r->whole, 1u << 26);
    for (size_t i = 0; i < o->model.n_eos && i < PL_ACCEPT_MAX_MASKED; i++)
        r->eos[r->n_eos++] = o->model.eos[i];
    st = pl_retok_new(o->verifier, &r->v, err);
    if (!st)
        st = pl_retok_new(o->drafter, &r->d, err);
    if (!st)
        st = pl_untok_init(&r->text, o->verifier, err);
    if (!st)
        st = pl_untok_init(&r->drafted, o->drafter, err);
    if (!st)
        st = pl_draft_init(&r->own, o->most, 0, 0, err);
    if (!st)
        st = pl_draft_model_new(&o->model, &r->model, err);
    if (st)
        retokenize_free(r);
    else
        *out = r;
    return st;
}

/* The prompt of a text: what of it no later merge can reach is the drafter's prefill. */
static enum pl_status begin_text(struct retokenize *r, const struct pl_prompt *prompt, uint64_t key,
                                 struct pl_err *err)
{
    size_t same, n, cut;
    bool border;
    enum pl_status st = pl_untok_add(&r->text, prompt->ids, prompt->n, err);

    pl_retok_begin(r->d, false);
    if (!st)
        st = pl_retok_set(r->d, r->text.text.data, r->text.text.len, &same, err);
    if (st)
        return st;
    const int32_t *ids = pl_retok_ids(r->d, &n);
    cut = r->text.text.len ? pl_retok_cut(r->d, r->text.text.data, r->text.text.len - 1) : 0;
    r->base = pl_retok_before(r->d, cut, &border);
    if (!r->base)
        r->base = 1; /* a prefill has at least one; where that one changes, no draft is made */
    if (!n)
        return pl_fail(err, PL_ERANGE, "the prompt has no text for the drafter's tokenizer");
    r->begin = r->text.text.len;
    r->from = r->begin > CONTEXT ? pl_retok_cut(r->v, r->text.text.data, r->begin - CONTEXT) : 0;
    r->rows = r->base;
    return pl_draft_model.begin(r->model, &(struct pl_prompt){.ids = ids, .n = r->base}, key, err);
}

size_t pl_draft_retokenize_prompt(const void *d)
{
    return ((const struct retokenize *)d)->rows;
}

static enum pl_status retokenize_begin(void *state, const struct pl_prompt *prompt, uint64_t key,
                                       struct pl_err *err)
{
    struct retokenize *r = state;

    pl_untok_clear(&r->text);
    pl_untok_clear(&r->drafted);
    r->heard = r->base = r->from = r->begin = 0;
    r->rows = prompt->n;
    pl_retok_begin(r->v, prompt->embeds != NULL);
    if (!prompt->embeds)
        return begin_text(r, prompt, key, err);
    pl_retok_begin(r->d, true);
    return pl_draft_model.begin(r->model, prompt, key, err);
}

/* What of the drafter's ids was generated: behind its prefill. False: its prefill is not the text's
 * any more. */
static bool own_text(struct retokenize *r, size_t same, struct pl_verified *out)
{
    size_t n;
    const int32_t *ids = pl_retok_ids(r->d, &n);

    *out = (struct pl_verified){.ids = ids + r->base, .n = n > r->base ? n - r->base : 0};
    return out->n && same >= r->base;
}

/* The ids of the piece's rest that begins at byte `at` of r->whole, where some token begins. */
static enum pl_status say_rest(struct retokenize *r, size_t at, size_t end, struct pl_err *err)
{
    struct pl_untok said;
    enum pl_status st, st2;

    r->rest.n = 0;
    st = pl_tokenizer_encode_inside(r->tv, r->whole.data + at, end - at, &r->rest, err);
    if (st)
        return st;
    st2 = pl_untok_init(&said, r->tv, err);
    if (st2)
        return st2;
    st = pl_untok_add(&said, r->rest.ids, r->rest.n, err);
    if (!st && (!pl_untok_whole(&said) || said.text.len != end - at ||
                memcmp(said.text.data, r->whole.data + at, end - at) != 0))
        r->rest.n = 0;
    pl_untok_release(&said);
    return st;
}

/* The verifier's ids of what was drafted, into out. */
static enum pl_status translate(struct retokenize *r, size_t want, struct pl_draft *out,
                                struct pl_err *err)
{
    size_t at = r->text.text.len - r->from, n, first, end, same;
    bool border;
    enum pl_status st;

    pl_buf_clear(&r->whole);
    st = pl_buf_add(&r->whole, r->text.text.data, r->text.text.len, err);
    if (!st)
        st = pl_buf_add(&r->whole, r->drafted.text.data, r->drafted.text.len, err);
    if (!st)
        st = pl_retok_set(r->v, r->whole.data + r->from, r->whole.len - r->from, &same, err);
    if (st || !r->drafted.text.len)
        return st;
    const int32_t *ids = pl_retok_ids(r->v, &n);
    first = pl_retok_before(r->v, at, &border);
    if (!border) { /* up to where a token ends again */
        bool again = false;
        for (end = at + 1; end < r->whole.len - r->from && !again; end++)
            (void)pl_retok_before(r->v, end, &again);
        end -= again;
        first = pl_retok_before(r->v, end, &again);
        if (!again)
            return PL_OK;
        st = say_rest(r, r->from + at, r->from + end, err);
        for (size_t i = 0; i < r->rest.n && out->n < want && !st; i++)
            out->ids[out->n++] = r->rest.ids[i];
        if (st || !r->rest.n)
            return st;
    }
    while (first < n && out->n < want)
        out->ids[out->n++] = ids[first++];
    return PL_OK;
}

static enum pl_status retokenize_draft(void *state, const struct pl_verified *text, size_t want,
                                       struct pl_draft *out, struct pl_err *err)
{
    struct retokenize *r = state;
    const int32_t *ids = text->ids + text->n_prompt;
    struct pl_verified own;
    size_t same = 0;
    enum pl_status st;

    out->n = 0;
    out->tree = out->has_q = false;
    st = pl_untok_add(&r->text, ids + r->heard, text->n - r->heard, err);
    r->heard = text->n;
    if (st || !pl_untok_whole(&r->text) || !r->text.text.len) /* within a character */
        return st;
    st = pl_retok_set(r->d, r->text.text.data, r->text.text.len, &same, err);
    if (st || !own_text(r, same, &own))
        return st;
    st = pl_draft_model.draft(r->model, &own, want < r->own.max ? want : r->own.max, &r->own, err);
    pl_untok_clear(&r->drafted);
    if (!st)
        st = pl_untok_add(&r->drafted, r->own.ids, r->own.n, err);
    return st ? st : translate(r, want < out->max ? want : out->max, out, err);
}

static bool is_end(const struct retokenize *r, int32_t id)
{
    for (size_t i = 0; i < r->n_eos; i++)
        if (r->eos[i] == id)
            return true;
    return false;
}

/* One token after another, behind the end of the prompt that its prefill left out. */
static enum pl_status retokenize_ahead(void *state, bool (*stop)(void *arg), void *arg, size_t most,
                                       struct pl_draft *out, struct pl_err *err)
{
    struct retokenize *r = state;
    struct pl_verified own;
    enum pl_status st = PL_OK;

    out->n = 0;
    out->tree = out->has_q = false;
    r->ahead.n = 0;
    pl_untok_clear(&r->drafted);
    if (own_text(r, SIZE_MAX, &own))
        for (size_t i = 0; i < own.n && !st; i++)
            st = pl_ids_add(&r->ahead, own.ids[i], err);
    most = most < out->max ? most : out->max;
    for (size_t n = 0; n < most && !st && !(n && stop(arg)); n++) {
        own = (struct pl_verified){.ids = r->ahead.ids, .n = r->ahead.n};
        st = own.n ? pl_draft_model.draft(r->model, &own, 1, &r->own, err)
                   : pl_draft_model.run_ahead(r->model, stop, arg, 1, &r->own, err);
        if (st || !r->own.n || is_end(r, r->own.ids[0]))
            break;
        st = pl_ids_add(&r->ahead, r->own.ids[0], err);
        if (!st)
            st = pl_untok_add(&r->drafted, r->own.ids, 1, err);
    }
    return st ? st : translate(r, most, out, err);
}

const struct pl_drafter_ops pl_draft_retokenize = {.name = "retokenize",
                                                   .lane = true,
                                                   .first = true,
                                                   .begin = retokenize_begin,
                                                   .run_ahead = retokenize_ahead,
                                                   .draft = retokenize_draft,
                                                   .free = retokenize_free};
