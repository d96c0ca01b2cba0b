#include "spec_decode/draft_opts.h"

#include "spec_decode/draft.h"

#include <string.h>

static const char *const methods[] = {"prompt_lookup", "model",      "eagle",
                                      "medusa",        "retokenize", "adapter"};

const char *pl_draft_method_name(enum pl_draft_method m)
{
    return methods[m];
}

bool pl_draft_needs_model(const struct pl_draft_opts *o)
{
    return o->method == PL_DRAFT_MODEL || o->method == PL_DRAFT_RETOKENIZE ||
           (o->method == PL_DRAFT_ADAPTER && o->adapter && strcmp(o->adapter, "B1") != 0);
}

static enum pl_status read_int(const json_t *o, const char *key, int64_t least, int64_t most,
                               int64_t *out, struct pl_err *err)
{
    const json_t *v = json_object_get(o, key);

    if (!v || json_is_null(v))
        return PL_OK;
    if (!json_is_integer(v) || json_integer_value(v) < least || json_integer_value(v) > most)
        return pl_fail(err, PL_ESWEEP, "draft.%s: expected a whole number from %lld to %lld", key,
                       (long long)least, (long long)most);
    *out = json_integer_value(v);
    return PL_OK;
}

static enum pl_status read_text(const json_t *o, const char *key, const char **out,
                                struct pl_err *err)
{
    const json_t *v = json_object_get(o, key);

    if (!v || json_is_null(v))
        return PL_OK;
    if (!json_is_string(v))
        return pl_fail(err, PL_ESWEEP, "draft.%s: expected a string", key);
    *out = json_string_value(v);
    return PL_OK;
}

/* One of a and b: *is_b. */
static enum pl_status read_choice(const json_t *o, const char *key, const char *a, const char *b,
                                  bool *is_b, bool *given, struct pl_err *err)
{
    const char *v = NULL;
    enum pl_status st = read_text(o, key, &v, err);

    *given = v != NULL;
    if (st || !v)
        return st;
    if (strcmp(v, a) != 0 && strcmp(v, b) != 0)
        return pl_fail(err, PL_ESWEEP, "draft.%s: \"%s\", expected %s or %s", key, v, a, b);
    *is_b = strcmp(v, b) == 0;
    return PL_OK;
}

static enum pl_status read_method(const json_t *draft, struct pl_draft_opts *o, struct pl_err *err)
{
    const char *name = NULL;
    enum pl_status st = read_text(draft, "method", &name, err);

    if (st)
        return st;
    if (!name)
        name = o->adapter ? "adapter" : o->model ? "model" : NULL;
    for (size_t i = 0; name && i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (strcmp(name, methods[i]) == 0) {
            o->method = (enum pl_draft_method)i;
            return PL_OK;
        }
    }
    if (name)
        return pl_fail(err, PL_ESWEEP,
                       "draft.method: \"%s\", expected prompt_lookup, model, eagle, medusa, "
                       "retokenize or adapter",
                       name);
    return pl_fail(err, PL_ESWEEP, "draft.method is missing, expected a method or a model");
}

static enum pl_status check_keys(const json_t *draft, struct pl_err *err)
{
    static const char *const keys[] = {"model",       "method",   "adapter",       "weights",
                                       "gamma",       "overlap",  "after_prefill", "transport",
                                       "temperature", "sm_share", "adaptive",      "min_ngram",
                                       "max_ngram",   "tree",     "tree_top",      "tree_tokens"};
    const char *name;
    json_t *v;

    json_object_foreach ((json_t *)draft, name, v) {
        bool known = false;
        for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
            known |= strcmp(keys[i], name) == 0;
        if (!known)
            return pl_fail(err, PL_ESWEEP, "draft: unknown key \"%s\"", name);
    }
    return PL_OK;
}

static enum pl_status read_share(const json_t *draft, struct pl_draft_opts *o, struct pl_err *err)
{
    const json_t *v = json_object_get(draft, "sm_share");

    if (!v || json_is_null(v))
        return PL_OK;
    o->sm_share = json_number_value(v);
    if (!json_is_number(v) || !(o->sm_share >= 0.01 && o->sm_share <= 0.99))
        return pl_fail(err, PL_ESWEEP, "draft.sm_share: expected a number from 0.01 to 0.99");
    return PL_OK;
}

static enum pl_status read_numbers(const json_t *draft, struct pl_draft_opts *o, struct pl_err *err)
{
    const json_t *t = json_object_get(draft, "temperature");
    enum pl_status st = read_int(draft, "gamma", 1, PL_DRAFT_MAX, &o->gamma, err);

    if (!st)
        st = read_int(draft, "min_ngram", 1, 64, &o->min_ngram, err);
    if (!st)
        st = read_int(draft, "max_ngram", 1, 64, &o->max_ngram, err);
    if (!st)
        st = read_int(draft, "tree_top", 1, 16, &o->tree_top, err);
    if (!st)
        st = read_int(draft, "tree_tokens", 1, PL_DRAFT_MAX, &o->tree_tokens, err);
    if (!st && o->max_ngram < o->min_ngram)
        st = pl_fail(err, PL_ESWEEP, "draft.max_ngram: %lld, expected at least min_ngram (%lld)",
                     (long long)o->max_ngram, (long long)o->min_ngram);
    if (st || !t || json_is_null(t))
        return st;
    o->temperature = json_number_value(t);
    if (!json_is_number(t) || !(o->temperature >= 0 && o->temperature <= 100))
        return pl_fail(err, PL_ESWEEP, "draft.temperature: expected a number from 0 to 100");
    return PL_OK;
}

/* A shape by name; tree_top alone asks for the method's usual one. */
static enum pl_status read_tree(const json_t *draft, struct pl_draft_opts *o, struct pl_err *err)
{
    static const char *const shapes[] = {"chain", "static", "dynamic"};
    const char *name = NULL;
    enum pl_status st = read_text(draft, "tree", &name, err);

    if (st)
        return st;
    if (!name) {
        o->tree = o->tree_top < 2                ? PL_DRAFT_CHAIN
                  : o->method == PL_DRAFT_MEDUSA ? PL_DRAFT_STATIC
                                                 : PL_DRAFT_DYNAMIC;
        o->tree_top = o->tree_top ? o->tree_top : 1;
        return PL_OK;
    }
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, shapes[i]) != 0)
            continue;
        o->tree = (enum pl_draft_tree)i;
        if (!i && o->tree_top > 1)
            return pl_fail(err, PL_ESWEEP, "draft.tree_top: %lld with a chain, expected 1",
                           (long long)o->tree_top);
        if (i && o->tree_top == 1)
            return pl_fail(err, PL_ESWEEP, "draft.tree_top: 1 with a tree, expected 2 to 16");
        o->tree_top = !i ? 1 : o->tree_top ? o->tree_top : 10;
        return PL_OK;
    }
    return pl_fail(err, PL_ESWEEP, "draft.tree: \"%s\", expected chain, static or dynamic", name);
}

static enum pl_status check_together(const struct pl_draft_opts *o, struct pl_err *err)
{
    const char *name = methods[o->method];
    bool heads = o->method == PL_DRAFT_EAGLE || o->method == PL_DRAFT_MEDUSA;

    if (o->method == PL_DRAFT_ADAPTER && !o->adapter)
        return pl_fail(err, PL_ESWEEP, "draft.adapter is missing, expected L1 to L5, L5F or B1");
    if (pl_draft_needs_model(o) && !o->model)
        return pl_fail(err, PL_ESWEEP, "draft.model is missing: method %s drafts with a model",
                       name);
    if (!pl_draft_needs_model(o) && o->model)
        return pl_fail(err, PL_ESWEEP, "draft.model: %s drafts without a model",
                       o->adapter ? o->adapter : name);
    if (o->method != PL_DRAFT_ADAPTER && o->adapter)
        return pl_fail(err, PL_ESWEEP, "draft.adapter: method %s has none", name);
    if ((heads || o->adapter) && !o->weights)
        return pl_fail(err, PL_ESWEEP, "draft.weights is missing, expected the file of the %s",
                       heads ? name : "adapter");
    if (!heads && !o->adapter && o->weights)
        return pl_fail(err, PL_ESWEEP, "draft.weights: method %s has none", name);
    if (o->adapter && o->temperature > 0)
        return pl_fail(err, PL_ESWEEP, "draft.temperature: adapters draft greedily, expected 0");
    if (o->tree != PL_DRAFT_CHAIN && !heads)
        return pl_fail(err, PL_ESWEEP, "draft.tree: method %s drafts chains", name);
    if (o->tree == PL_DRAFT_DYNAMIC && o->method == PL_DRAFT_MEDUSA)
        return pl_fail(err, PL_ESWEEP, "draft.tree: dynamic with medusa, expected chain or static");
    return PL_OK;
}

enum pl_status pl_draft_opts_read(const json_t *draft, struct pl_draft_opts *out,
                                  struct pl_err *err)
{
    struct pl_draft_opts o = {.gamma = 1,
                              .overlap = true,
                              .transport = "auto",
                              .min_ngram = 1,
                              .max_ngram = 4,
                              .tree_tokens = 60};
    const json_t *gamma = json_object_get(draft, "gamma"), *v;
    bool given, none = false, after = false;
    enum pl_status st;

    if (!json_is_object(draft))
        return pl_fail(err, PL_ESWEEP, "draft: expected a map with a method or a model");
    st = check_keys(draft, err);
    if (!st)
        st = read_text(draft, "model", &o.model, err);
    if (!st)
        st = read_text(draft, "adapter", &o.adapter, err);
    if (!st)
        st = read_text(draft, "weights", &o.weights, err);
    if (!st)
        st = read_text(draft, "transport", &o.transport, err);
    if (!st)
        st = read_method(draft, &o, err);
    if (!st)
        st = read_numbers(draft, &o, err);
    if (!st)
        st = read_share(draft, &o, err);
    if (!st)
        st = read_tree(draft, &o, err);
    if (!st)
        st = read_choice(draft, "overlap", "prefill", "none", &none, &given, err);
    if (!st)
        st = read_choice(draft, "after_prefill", "none", "gamma", &after, &given, err);
    if (st)
        return st;
    o.overlap = !none && pl_draft_needs_model(&o);
    if (o.sm_share > 0 && !o.overlap)
        return pl_fail(err, PL_ESWEEP,
                       "draft.sm_share: expected a draft with a model and overlap: prefill, whose "
                       "lanes run at once");
    if (!given)
        after = o.method != PL_DRAFT_ADAPTER || (gamma && !json_is_null(gamma)) || !o.overlap;
    o.after = after;
    v = json_object_get(draft, "adaptive");
    if (v && !json_is_null(v) && !json_is_boolean(v))
        return pl_fail(err, PL_ESWEEP, "draft.adaptive: expected true or false");
    o.adaptive = json_is_true(v);
    st = check_together(&o, err);
    if (!st)
        *out = o;
    return st;
}
