/* What a sample's ids are: given, drawn, or of a text; and the `ids` request. */
#include "worker/runner/llm.h"

#include "base/clock.h"

#include <string.h>

static enum pl_status given_ids(struct llm_state *s, const json_t *list, int32_t vocab,
                                struct pl_fault *f)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || id >= vocab)
            return pl_fault_set(
                f, pl_fail(&f->err, PL_ERANGE, "ids[%zu]: not in the vocabulary of %d", i, vocab),
                PL_FAULT_DATA);
        enum pl_status st = pl_ids_add(&s->ids, (int32_t)id, &f->err);
        if (st)
            return pl_fault_set(f, st, PL_FAULT_DATA);
    }
    return PL_OK;
}

static enum pl_status text_ids(struct llm_state *s, const struct pl_tokenizer *t,
                               const json_t *sample, int64_t context, int64_t *tokenize_ns,
                               struct pl_fault *f)
{
    const char *text = NULL;
    size_t len = 0;
    enum pl_status st = pl_text_cache_get(s->texts, sample, &text, &len, &f->err);

    if (st)
        return pl_fault_set(f, st, PL_FAULT_DATA);
    int64_t t0 = pl_now_ns();
    st = pl_tokenizer_encode_prefix(t, text, len, (size_t)context, &s->ids, &f->err);
    *tokenize_ns = pl_now_ns() - t0;
    return st ? pl_fault_set(f, st, st == PL_ERANGE ? PL_FAULT_CONTEXT : PL_FAULT_DATA) : PL_OK;
}

static enum pl_status synthetic_ids(struct llm_state *s, const json_t *sample, int32_t vocab,
                                    int64_t context, struct pl_fault *f)
{
    enum pl_status st = PL_OK;

    for (int64_t i = 0; !st && i < context; i++)
        st = pl_ids_add(&s->ids, 0, &f->err);
    if (!st)
        st = pl_synthetic_ids(sample, (uint32_t)vocab, s->ids.ids, s->ids.n, &f->err);
    return st ? pl_fault_set(f, st, PL_FAULT_DATA) : PL_OK;
}

enum pl_status llm_sample_ids(struct llm_state *s, const struct pl_tokenizer *tokenizer,
                              const struct pl_err *no_tokenizer, int32_t vocab,
                              const json_t *sample, int64_t context, int64_t *tokenize_ns,
                              struct pl_fault *f)
{
    const json_t *list = json_object_get(sample, "ids");
    long long index = (long long)pl_json_get_i64(sample, "index", -1);
    enum pl_status st;

    s->ids.n = 0;
    *tokenize_ns = -1;
    if (list)
        st = given_ids(s, list, vocab, f);
    else if (strcmp(pl_json_get_str(sample, "kind", ""), "synthetic") == 0)
        st = synthetic_ids(s, sample, vocab, context, f);
    else if (!tokenizer)
        st = pl_fault_set(f, pl_fail(&f->err, PL_ENOENT, "%s", no_tokenizer->text), PL_FAULT_DATA);
    else if (llm_is_asked(sample))
        st = llm_asked_ids(s, tokenizer, sample, context, tokenize_ns, f);
    else
        st = text_ids(s, tokenizer, sample, context, tokenize_ns, f);
    if (!st && s->ids.n != (size_t)context)
        st = pl_fault_set(
            f, pl_fail(&f->err, PL_ERANGE, "%zu ids, %lld needed", s->ids.n, (long long)context),
            PL_FAULT_CONTEXT);
    return st ? pl_err_prefix(&f->err, st, "sample %lld", index) : PL_OK;
}

static enum pl_status ids_tokenizer(struct llm_state *s, const char *path, struct pl_err *err)
{
    struct pl_tokenizer *t = NULL;
    char *copy;
    enum pl_status st;

    if (s->ids_tokenizer && strcmp(s->ids_path, path) == 0)
        return PL_OK;
    st = pl_tokenizer_load(path, &t, err);
    if (st)
        return st;
    copy = strdup(path);
    if (!copy) {
        pl_tokenizer_free(t);
        return pl_fail(err, PL_ENOMEM, "engine: no memory");
    }
    pl_tokenizer_free(s->ids_tokenizer);
    free(s->ids_path);
    s->ids_tokenizer = t;
    s->ids_path = copy;
    return PL_OK;
}

enum pl_status llm_ids(void *state, const json_t *q, json_t *answer, struct pl_fault *fault)
{
    struct llm_state *s = state;
    int64_t context = pl_json_get_i64(q, "context", 0), ns;
    struct pl_entry e;
    struct pl_buf text;
    json_t *list = NULL;
    enum pl_status st = pl_entry_read(json_object_get(q, "model"), &e, &fault->err);

    pl_buf_init(&text, PL_TOKENIZER_MAX_TEXT);
    if (!st)
        st = ids_tokenizer(s, e.path, &fault->err);
    if (!st && context < 1)
        st = pl_fail(&fault->err, PL_EPROTO, "context: at least 1 is expected");
    if (st) {
        st = pl_fault_set(fault, st, PL_FAULT_LOAD);
        goto out;
    }
    st = llm_sample_ids(s, s->ids_tokenizer, NULL, pl_tokenizer_info(s->ids_tokenizer)->vocab,
                        json_object_get(q, "sample"), context, &ns, fault);
    if (st)
        goto out;
    st = pl_tokenizer_decode(s->ids_tokenizer, s->ids.ids, s->ids.n, &text, &fault->err);
    list = json_array();
    for (size_t i = 0; !st && i < s->ids.n; i++)
        if (json_array_append_new(list, json_integer(s->ids.ids[i])))
            st = pl_fail(&fault->err, PL_ENOMEM, "engine: no memory");
    if (!st && json_object_update_new(
                   answer, json_pack("{s:O,s:I}", "ids", list, "bytes", (json_int_t)text.len)))
        st = pl_fail(&fault->err, PL_ENOMEM, "engine: no memory");
    if (st)
        st = pl_fault_set(fault, st, PL_FAULT_RUNNER);
out:
    json_decref(list);
    pl_buf_release(&text);
    return st;
}
