/* An arm's `prune` read by the table of base/prune_keys.h. */
#include "pruning/method.h"

#include "base/prune_keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct key {
    const char *name;
    enum { CHOICE, PATH, INT, INTS, U64, BOOL, FLOAT, FLOATS } type;
    double min, max;
    const char *choices, *methods;
};

static const struct key keys[] = {
#define PL_X(name, type, min, max, choices, dflt, words, unit, methods, help)                      \
    {#name, type, min, max, choices, methods},
    PL_PRUNE_KEYS(PL_X)
#undef PL_X
};
#define N_KEYS (sizeof(keys) / sizeof(keys[0]))

static bool in_list(const char *list, const char *word)
{
    const size_t n = strlen(word);

    for (;;) {
        const size_t len = strcspn(list, "|");
        if (len == n && memcmp(list, word, n) == 0)
            return true;
        if (!list[len])
            return false;
        list += len + 1;
    }
}

static bool in_range(const struct key *k, const json_t *v, bool whole)
{
    const double d = json_number_value(v);

    return (whole ? json_is_integer(v) : json_is_number(v)) && d >= k->min && d <= k->max;
}

static bool right(const struct key *k, const json_t *v)
{
    const bool list = json_is_array(v) && json_array_size(v) > 0;
    bool ok = list;

    switch (k->type) {
    case CHOICE:
        return json_is_string(v) && in_list(k->choices, json_string_value(v));
    case PATH:
        return json_is_string(v) && json_string_length(v) > 0;
    case INT:
        return in_range(k, v, true);
    case U64:
        return json_is_integer(v);
    case BOOL:
        return json_is_boolean(v);
    case FLOAT:
        return in_range(k, v, false);
    case INTS:
    case FLOATS:
        for (size_t i = 0; list && i < json_array_size(v); i++)
            ok = ok && in_range(k, json_array_get(v, i), k->type == INTS);
        return ok || (k->type == FLOATS && in_range(k, v, false));
    }
    return false;
}

static void expected(const struct key *k, char *out, size_t size)
{
    static const char *const nouns[] = {[INT] = "a whole number",
                                        [INTS] = "a list of whole numbers",
                                        [FLOAT] = "a number",
                                        [FLOATS] = "a number, or a list of them,"};
    if (k->type == CHOICE)
        snprintf(out, size, "one of %s", k->choices);
    else if (k->type == PATH || k->type == U64 || k->type == BOOL)
        snprintf(out, size, "%s",
                 k->type == PATH   ? "a path"
                 : k->type == BOOL ? "true or false"
                                   : "a whole number");
    else
        snprintf(out, size, "%s from %.10g to %.10g", nouns[k->type], k->min, k->max);
}

static enum pl_status check_keys(const json_t *prune, const char *method, struct pl_err *err)
{
    const char *name;
    json_t *v;

    json_object_foreach ((json_t *)prune, name, v) {
        const struct key *k = NULL;
        char want[160], *shown;
        for (size_t i = 0; i < N_KEYS; i++)
            k = strcmp(keys[i].name, name) == 0 ? &keys[i] : k;
        if (!k)
            return pl_fail(err, PL_ESWEEP, "prune: unknown key \"%s\"", name);
        if (json_is_null(v))
            continue;
        if (!right(k, v)) {
            expected(k, want, sizeof want);
            shown = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6));
            enum pl_status st = pl_fail(err, PL_ESWEEP, "prune.%s is %.60s, expected %s", name,
                                        shown ? shown : "?", want);
            free(shown);
            return st;
        }
        if (method && !in_list(k->methods, method))
            return pl_fail(err, PL_ESWEEP, "prune.%s is not an option of %s, but of %s", name,
                           method, k->methods);
    }
    return PL_OK;
}

static enum pl_status read_layers(const json_t *list, const struct pl_arch *a,
                                  struct pl_prune_opts *o, struct pl_err *err)
{
    o->n_layers = json_array_size(list);
    if (o->n_layers > PL_PRUNE_STAGES_MAX)
        return pl_fail(err, PL_ESWEEP, "prune.layers: %zu stages, expected at most %d", o->n_layers,
                       PL_PRUNE_STAGES_MAX);
    for (size_t i = 0; i < o->n_layers; i++) {
        const json_int_t l = json_integer_value(json_array_get(list, i));
        if (l >= a->layers)
            return pl_fail(err, PL_ESWEEP,
                           "prune.layers: %lld is not a layer of this model, expected 0 to %d",
                           (long long)l, a->layers - 1);
        if (i && l <= o->layers[i - 1])
            return pl_fail(err, PL_ESWEEP, "prune.layers: %lld after %d, expected ascending layers",
                           (long long)l, o->layers[i - 1]);
        o->layers[i] = (int32_t)l;
    }
    return PL_OK;
}

static enum pl_status read_keep(const json_t *prune, struct pl_prune_opts *o, struct pl_err *err)
{
    const json_t *keep = json_object_get(prune, "keep");
    const bool stages = o->method->where == PL_PRUNE_STAGES, list = json_is_array(keep);
    const size_t want = stages ? o->n_layers : 1, n = list ? json_array_size(keep) : want;

    o->total_keep = pl_json_get_f64(prune, "total_keep", 0);
    if ((!keep || json_is_null(keep)) && o->method->where == PL_PRUNE_INPUT)
        return PL_OK; /* as many as stand out */
    if (!keep || json_is_null(keep))
        return o->total_keep > 0 ? PL_OK
                                 : pl_fail(err, PL_ESWEEP, "prune: %s is missing",
                                           stages ? "keep (or total_keep)" : "keep");
    if (o->total_keep > 0)
        return pl_fail(err, PL_ESWEEP,
                       "prune: keep and total_keep are given, expected one of them");
    if (n != want)
        return pl_fail(err, PL_ESWEEP, "prune.keep: %zu numbers for %zu stages", n, want);
    for (size_t i = 0; i < n; i++)
        o->keep[i] = json_number_value(list ? json_array_get(keep, i) : keep);
    o->n_keep = n;
    return PL_OK;
}

enum pl_status pl_prune_opts_read(const json_t *prune, const struct pl_arch *a,
                                  struct pl_prune_opts *o, struct pl_err *err)
{
    const char *method = pl_json_get_str(prune, "method", NULL), *tokens;
    const json_t *layers = json_object_get(prune, "layers"), *seed;
    enum pl_status st = json_is_object(prune) ? check_keys(prune, NULL, err)
                                              : pl_fail(err, PL_ESWEEP, "prune: a map is expected");

    if (!st && !method)
        st = pl_fail(err, PL_ESWEEP, "prune.method is missing, expected one of %s",
                     PL_PRUNE_METHODS);
    if (!st)
        st = check_keys(prune, method, err);
    if (!st && (!a->causal || a->encoder_layers))
        st = pl_fail(err, PL_EUNSUPPORTED,
                     "prune: %s is no decoder of a prompt, tokens are pruned in those only",
                     a->name);
    if (st)
        return st;
    memset(o, 0, sizeof(*o));
    o->method = pl_prune_method(method);
    if (!o->method)
        return pl_fail(err, PL_EUNSUPPORTED, "prune.method: %s cannot be run on this model",
                       method);
    tokens = pl_json_get_str(prune, "tokens", o->method == &pl_prune_fastv ? "visual" : "all");
    o->visual = strcmp(tokens, "visual") == 0;
    o->weights = pl_json_get_str(prune, "weights", NULL);
    o->positions = strcmp(pl_json_get_str(prune, "positions", "original"), "original") == 0
                       ? PL_POSITIONS_ORIGINAL
                       : PL_POSITIONS_RENUMBERED;
    o->rule.head = (size_t)pl_json_get_i64(prune, "head", 4);
    o->rule.tail = pl_json_get_f64(prune, "tail", 0.1);
    o->rule.tail_min = (size_t)pl_json_get_i64(prune, "tail_min", 16);
    o->window = (size_t)pl_json_get_i64(prune, "window", 32);
    o->kernel = (size_t)pl_json_get_i64(prune, "kernel", 5);
    o->beta = (size_t)pl_json_get_i64(prune, "beta", 20);
    o->recent = pl_json_get_f64(prune, "recent", 0.5);
    o->neighbours = (size_t)pl_json_get_i64(prune, "neighbours", 32);
    o->plus = json_is_true(json_object_get(prune, "plus"));
    o->average = json_is_true(json_object_get(prune, "average"));
    seed = json_object_get(prune, "seed");
    o->has_seed = json_is_integer(seed);
    o->seed = (uint64_t)json_integer_value(seed);
    if (o->kernel % 2 == 0)
        return pl_fail(err, PL_ESWEEP, "prune.kernel is %zu, expected an odd number", o->kernel);
    if (json_is_array(layers))
        st = read_layers(layers, a, o, err);
    if (!st && o->method->check)
        st = o->method->check(o, a, err);
    if (!st && o->method->where == PL_PRUNE_STAGES && !o->n_layers)
        st = pl_fail(err, PL_ESWEEP, "prune.layers is missing: %s needs stages", method);
    return st ? st : read_keep(prune, o, err);
}

enum pl_status pl_prune_check(const json_t *prune, const struct pl_arch *a, struct pl_err *err)
{
    struct pl_prune_opts o;

    return pl_prune_opts_read(prune, a, &o, err);
}
