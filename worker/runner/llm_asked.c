/* Prompts made of a text that is cut to fit and a question that is not (docs/SWEEP.md, "Texts with
 * a question"). */
#include "worker/runner/llm.h"

#include "base/clock.h"

#include <math.h>
#include <string.h>

bool llm_is_asked(const json_t *sample)
{
    const char *kind = pl_json_get_str(sample, "kind", "");

    return strcmp(kind, "needle") == 0 || strcmp(kind, "longbench") == 0;
}

static enum pl_status append(struct pl_ids *out, const int32_t *ids, size_t n, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < n && !st; i++)
        st = pl_ids_add(out, ids[i], err);
    return st;
}

static enum pl_status piece(const struct pl_tokenizer *t, const json_t *o, const char *key,
                            bool begin, struct pl_ids *out, struct pl_err *err)
{
    const json_t *v = json_object_get(o, key);

    if (!json_is_string(v))
        return pl_fail(err, PL_EPROTO, "sample.%s is missing", key);
    return pl_tokenizer_encode(t, json_string_value(v), json_string_length(v), begin, out, err);
}

static enum pl_status short_of(int64_t context, size_t fixed, struct pl_err *err)
{
    return pl_fail(err, PL_ERANGE,
                   "context %lld is too short: what is asked takes %zu tokens of it",
                   (long long)context, fixed);
}

/* The text's first ids with the facts among them, then the question. */
static enum pl_status needle(struct llm_state *s, const struct pl_tokenizer *t,
                             const json_t *sample, const char *text, size_t len, size_t context,
                             struct pl_err *err)
{
    const json_t *facts = json_object_get(sample, "facts");
    struct pl_ids body = {0}, fact = {0}, question = {0};
    const size_t n = json_array_size(facts);
    size_t fixed = 0, at = 0;
    enum pl_status st = piece(t, sample, "end", false, &question, err);

    for (size_t i = 0; i < n && !st; i++)
        st = piece(t, json_array_get(facts, i), "text", false, &fact, err);
    fixed = question.n + fact.n;
    if (!st && fixed + n + 1 >= context)
        st = short_of((int64_t)context, fixed, err);
    if (!st)
        st = pl_tokenizer_encode_prefix(t, text, len, context - fixed, &body, err);
    for (size_t i = 0; i < n && !st; i++) {
        const json_t *o = json_array_get(facts, i);
        const double depth = fmin(1, fmax(0, pl_json_get_f64(o, "at", 0)));
        const size_t to = 1 + (size_t)floor(depth * (double)(body.n - 1)); /* behind BOS */
        st = append(&s->ids, body.ids + at, to > at ? to - at : 0, err);
        at = to > at ? to : at;
        fact.n = 0;
        if (!st)
            st = piece(t, o, "text", false, &fact, err);
        if (!st)
            st = append(&s->ids, fact.ids, fact.n, err);
    }
    if (!st)
        st = append(&s->ids, body.ids + at, body.n - at, err);
    if (!st)
        st = append(&s->ids, question.ids, question.n, err);
    pl_ids_release(&body);
    pl_ids_release(&fact);
    pl_ids_release(&question);
    return st;
}

/* Head, body and tail; of a body that is too long the middle goes. */
static enum pl_status bench(struct llm_state *s, const struct pl_tokenizer *t, const json_t *sample,
                            size_t context, struct pl_err *err)
{
    struct pl_ids head = {0}, body = {0}, tail = {0};
    enum pl_status st = piece(t, sample, "head", true, &head, err);
    size_t fixed, room, first;

    if (!st)
        st = piece(t, sample, "body", false, &body, err);
    if (!st)
        st = piece(t, sample, "tail", false, &tail, err);
    fixed = head.n + tail.n;
    if (!st && fixed >= context)
        st = short_of((int64_t)context, fixed, err);
    else if (!st && fixed + body.n < context)
        st = pl_fail(err, PL_ERANGE, "%zu ids, %zu needed", fixed + body.n, context);
    if (!st) {
        room = context - fixed;
        first = room - room / 2;
        st = append(&s->ids, head.ids, head.n, err);
        if (!st)
            st = append(&s->ids, body.ids, first, err);
        if (!st)
            st = append(&s->ids, body.ids + body.n - room / 2, room / 2, err);
        if (!st)
            st = append(&s->ids, tail.ids, tail.n, err);
    }
    pl_ids_release(&head);
    pl_ids_release(&body);
    pl_ids_release(&tail);
    return st;
}

enum pl_status llm_asked_ids(struct llm_state *s, const struct pl_tokenizer *t,
                             const json_t *sample, int64_t context, int64_t *tokenize_ns,
                             struct pl_fault *f)
{
    const bool hidden = strcmp(pl_json_get_str(sample, "kind", ""), "needle") == 0;
    const char *text = NULL;
    size_t len = 0;
    enum pl_status st = hidden ? pl_text_cache_get(s->texts, sample, &text, &len, &f->err) : PL_OK;

    if (st)
        return pl_fault_set(f, st, PL_FAULT_DATA);
    int64_t t0 = pl_now_ns();
    st = hidden ? needle(s, t, sample, text, len, (size_t)context, &f->err)
                : bench(s, t, sample, (size_t)context, &f->err);
    *tokenize_ns = pl_now_ns() - t0;
    return st ? pl_fault_set(f, st, st == PL_ERANGE ? PL_FAULT_CONTEXT : PL_FAULT_DATA) : PL_OK;
}
