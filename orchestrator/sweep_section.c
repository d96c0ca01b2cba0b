/* One section of a sweep file, read by the key table. */
#include "orchestrator/sweep_suggest.h"
#include "orchestrator/sweep_tree.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool plain(const struct pl_yaml *v)
{
    return v->kind == PL_YAML_SCALAR && !v->quoted;
}

static bool read_i64(const struct pl_yaml *v, int64_t *out)
{
    char *end = NULL;
    if (!plain(v) || !v->text[0] || strspn(v->text, "+-0123456789") != strlen(v->text))
        return false;
    errno = 0;
    *out = strtoll(v->text, &end, 10);
    return !errno && !*end;
}

static bool read_u64(const struct pl_yaml *v, uint64_t *out)
{
    char *end = NULL;
    if (!plain(v) || !v->text[0] || strspn(v->text, "0123456789") != strlen(v->text))
        return false;
    errno = 0;
    *out = strtoull(v->text, &end, 10);
    return !errno && !*end;
}

static bool read_f64(const struct pl_yaml *v, double *out)
{
    char *end = NULL;
    if (!plain(v) || !v->text[0] || strspn(v->text, "+-.0123456789eE") != strlen(v->text))
        return false;
    *out = strtod(v->text, &end);
    return !*end && isfinite(*out);
}

static bool in_choices(const char *choices, const char *word)
{
    size_t n = strlen(word);
    while (*choices) {
        size_t len = strcspn(choices, "|");
        if (len == n && memcmp(choices, word, n) == 0)
            return true;
        choices += choices[len] ? len + 1 : len;
    }
    return false;
}

static const char *suggest_choice(struct pl_tree *t, const char *choices, const char *word)
{
    struct pl_suggest s;
    pl_suggest_init(&s, word);
    while (*choices) {
        size_t len = strcspn(choices, "|");
        const char *c = pl_arena_strndup(&t->arena, choices, len);
        if (c)
            pl_suggest_offer(&s, c);
        choices += choices[len] ? len + 1 : len;
    }
    return s.best;
}

static json_t *read_ints(struct pl_tree *t, const struct pl_sweep_key *k, const struct pl_yaml *v,
                         const char *label, const char *expected)
{
    json_t *list;
    if (v->kind != PL_YAML_SEQ || v->n == 0) {
        pl_tree_mistake(t, v, "%s.%s is %s, expected %s", label, k->name,
                        v->kind == PL_YAML_SEQ ? "an empty list" : pl_tree_show(t, v), expected);
        return NULL;
    }
    list = json_array();
    if (k->type == PL_KEY_INTS_OR_AUTO && v->n == 1 && v->items[0]->kind == PL_YAML_SCALAR &&
        strcmp(v->items[0]->text, "auto") == 0) {
        if (json_array_append_new(list, json_string("auto")) != 0)
            t->no_memory = true;
        return list;
    }
    for (size_t i = 0; i < v->n; i++) {
        int64_t n = 0;
        const struct pl_yaml *item = v->items[i];
        bool seen = false;
        if (!read_i64(item, &n) || (double)n < k->min || (double)n > k->max) {
            pl_tree_mistake(t, item, "%s.%s holds %s, expected whole numbers from %.10g to %.10g",
                            label, k->name, pl_tree_show(t, item), k->min, k->max);
            continue;
        }
        for (size_t j = 0; j < json_array_size(list); j++)
            seen = seen || json_integer_value(json_array_get(list, j)) == n;
        if (seen)
            pl_tree_mistake(t, item, "%s.%s holds %" PRId64 " twice, expected different numbers",
                            label, k->name, n);
        else if (json_array_append_new(list, json_integer(n)) != 0)
            t->no_memory = true;
    }
    return list;
}

/* {128: 50, 512: 100} as a JSON object of the same keys; which of them are contexts of the grid is
 * seen later. */
static json_t *read_by_context(struct pl_tree *t, const struct pl_sweep_key *k,
                               const struct pl_yaml *v, const char *label)
{
    json_t *out = json_object();
    if (v->n == 0)
        pl_tree_mistake(t, v, "%s.%s is an empty map, expected a number for each context", label,
                        k->name);
    for (size_t i = 0; i < v->n; i++) {
        int64_t context = 0, n = 0;
        char key[24];
        if (!read_i64(v->keys[i], &context) || context < 1) {
            pl_tree_mistake(t, v->keys[i], "%s.%s has the key \"%s\", expected context lengths",
                            label, k->name, v->keys[i]->text);
            continue;
        }
        snprintf(key, sizeof key, "%" PRId64, context);
        if (json_object_get(out, key))
            pl_tree_mistake(t, v->keys[i], "duplicate key \"%s\" in %s.%s, expected it once", key,
                            label, k->name);
        else if (!read_i64(v->items[i], &n) || (double)n < k->min || (double)n > k->max)
            pl_tree_mistake(t, v->items[i],
                            "%s.%s.%s is %s, expected a whole number from %.10g to %.10g", label,
                            k->name, key, pl_tree_show(t, v->items[i]), k->min, k->max);
        else if (json_object_set_new(out, key, json_integer(n)) != 0)
            t->no_memory = true;
    }
    return out;
}

/* A number, or a list of them. */
static json_t *read_floats(struct pl_tree *t, const struct pl_sweep_key *k, const struct pl_yaml *v,
                           const char *label, const char *expected)
{
    const bool list = v->kind == PL_YAML_SEQ;
    json_t *out = json_array(), *one;
    double d = 0;
    bool ok = !list || v->n > 0;
    for (size_t i = 0; ok && i < (list ? v->n : 1); i++) {
        ok = read_f64(list ? v->items[i] : v, &d) && d >= k->min && d <= k->max;
        if (ok && json_array_append_new(out, json_real(d)) != 0)
            t->no_memory = true;
    }
    if (!ok) {
        json_decref(out);
        pl_tree_mistake(t, v, "%s.%s is %s, expected %s", label, k->name,
                        list ? "a list with other things in it" : pl_tree_show(t, v), expected);
        return NULL;
    }
    if (list)
        return out;
    one = json_incref(json_array_get(out, 0));
    json_decref(out);
    return one;
}

static json_t *read_strings(struct pl_tree *t, const struct pl_sweep_key *k,
                            const struct pl_yaml *v, const char *label)
{
    json_t *list = json_array();
    bool ok = v->kind == PL_YAML_SEQ && v->n > 0;
    for (size_t i = 0; ok && i < v->n; i++)
        if (v->items[i]->kind != PL_YAML_SCALAR ||
            json_array_append_new(list, json_string(v->items[i]->text)) != 0)
            ok = false;
    if (ok)
        return list;
    json_decref(list);
    pl_tree_mistake(t, v, "%s.%s is %s, expected a list of strings", label, k->name,
                    v->kind == PL_YAML_SEQ ? "not a list of strings" : pl_tree_show(t, v));
    return NULL;
}

/* The value's JSON, or NULL when its type or range is wrong. */
static json_t *read_scalar(const struct pl_sweep_key *k, const struct pl_yaml *v)
{
    int64_t n = 0;
    uint64_t u = 0;
    double d = 0;
    if (v->kind != PL_YAML_SCALAR)
        return NULL;
    switch (k->type) {
    case PL_KEY_STR:
    case PL_KEY_PATH:
        return v->text[0] ? json_string(v->text) : NULL;
    case PL_KEY_INT:
    case PL_KEY_INT_BY_CONTEXT:
        return read_i64(v, &n) && (double)n >= k->min && (double)n <= k->max ? json_integer(n)
                                                                             : NULL;
    case PL_KEY_INT_OR_ALL:
        if (strcmp(v->text, "all") == 0)
            return json_integer(0);
        return read_i64(v, &n) && (double)n >= k->min && (double)n <= k->max ? json_integer(n)
                                                                             : NULL;
    case PL_KEY_FLOAT_OR_NONE:
        if (strcmp(v->text, "none") == 0)
            return json_null();
        return read_f64(v, &d) && d >= k->min && d <= k->max ? json_real(d) : NULL;
    case PL_KEY_U64:
        return read_u64(v, &u) ? json_integer((json_int_t)u) : NULL;
    case PL_KEY_FLOAT:
        return read_f64(v, &d) && d >= k->min && d <= k->max ? json_real(d) : NULL;
    case PL_KEY_BOOL:
        if (plain(v) && (strcasecmp(v->text, "true") == 0 || strcasecmp(v->text, "false") == 0))
            return json_boolean(v->text[0] == 't' || v->text[0] == 'T');
        return NULL;
    case PL_KEY_CHOICE:
        return in_choices(k->choices, v->text) ? json_string(v->text) : NULL;
    case PL_KEY_RANDOM: {
        struct pl_yaml seed = *v;
        if (strncmp(v->text, "random:", 7) != 0)
            return NULL;
        seed.text = v->text + 7;
        seed.quoted = false;
        return read_u64(&seed, &u) ? json_string(v->text) : NULL;
    }
    default:
        return NULL;
    }
}

static json_t *read_value(struct pl_tree *t, const struct pl_sweep_key *k, const struct pl_yaml *v,
                          const char *label)
{
    char expected[200];
    const char *near = NULL;
    json_t *j;
    pl_key_expected(k, expected, sizeof expected);
    if (k->type == PL_KEY_INTS || k->type == PL_KEY_INTS_OR_AUTO)
        return read_ints(t, k, v, label, expected);
    if (k->type == PL_KEY_FLOATS)
        return read_floats(t, k, v, label, expected);
    if (k->type == PL_KEY_STRS)
        return read_strings(t, k, v, label);
    if (k->type == PL_KEY_INT_BY_CONTEXT && v->kind == PL_YAML_MAP)
        return read_by_context(t, k, v, label);
    j = read_scalar(k, v);
    if (j)
        return j;
    if (k->type == PL_KEY_CHOICE && v->kind == PL_YAML_SCALAR)
        near = suggest_choice(t, k->choices, v->text);
    pl_tree_mistake(t, v, "%s%s%s is %s, expected %s%s%s", label, label[0] ? "." : "", k->name,
                    pl_tree_show(t, v), expected, near ? ", did you mean " : "", near ? near : "");
    return NULL;
}

bool pl_tree_knows(const char *name, enum pl_sweep_section section)
{
    for (size_t i = 0; i < pl_sweep_n_keys; i++)
        if (pl_sweep_keys[i].section == section && strcmp(pl_sweep_keys[i].name, name) == 0)
            return true;
    return false;
}

static bool fits(const struct pl_sweep_key *k, enum pl_sweep_section section, unsigned engines)
{
    return k->section == section && (k->engines & engines);
}

void pl_tree_unknown_key(struct pl_tree *t, const struct pl_yaml *key,
                         enum pl_sweep_section section, unsigned engines, const char *label)
{
    struct pl_suggest s;
    const struct pl_sweep_key *other = NULL;
    char list[512];
    size_t at = 0, n = 0, i_name = 0;
    pl_suggest_init(&s, key->text);
    for (size_t i = 0; i < pl_sweep_n_keys; i++) {
        const struct pl_sweep_key *k = &pl_sweep_keys[i];
        n += fits(k, section, engines);
        if (fits(k, section, engines))
            pl_suggest_offer(&s, k->name);
        else if (k->section == section && strcmp(k->name, key->text) == 0)
            other = k;
    }
    if (other) {
        pl_tree_mistake(t, key, "%s.%s is not a key of this engine, expected %s", label, key->text,
                        other->engines & PL_FOR_SIM ? "a model with `engine: sim`"
                                                    : "a model without `engine: sim`");
        return;
    }
    list[0] = '\0';
    for (size_t i = 0; i < pl_sweep_n_keys; i++) {
        const struct pl_sweep_key *k = &pl_sweep_keys[i];
        const char *sep = i_name == 0 ? "" : i_name + 1 == n ? " or " : ", ";
        if (!fits(k, section, engines) || at >= sizeof list)
            continue;
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", sep, k->name);
        i_name++;
    }
    pl_tree_mistake(t, key, "unknown key \"%s\"%s%s, expected %s%s%s", key->text,
                    label[0] ? " in " : "", label, list, s.best ? ", did you mean " : "",
                    s.best ? s.best : "");
}

static void check_keys(struct pl_tree *t, const struct pl_yaml *map, enum pl_sweep_section section,
                       unsigned engines, const char *label)
{
    for (size_t i = 0; i < map->n; i++) {
        const struct pl_yaml *key = map->keys[i];
        bool known = false;
        size_t first = i;
        for (size_t j = 0; j < i && first == i; j++)
            if (strcmp(map->keys[j]->text, key->text) == 0)
                first = j;
        if (first < i) {
            pl_tree_mistake(t, key, "duplicate key \"%s\"%s%s, expected it once, first at %s",
                            key->text, label[0] ? " in " : "", label,
                            pl_tree_place(t, map->keys[first]));
            continue;
        }
        for (size_t k = 0; k < pl_sweep_n_keys && !known; k++)
            known = fits(&pl_sweep_keys[k], section, engines) &&
                    strcmp(pl_sweep_keys[k].name, key->text) == 0;
        if (!known)
            pl_tree_unknown_key(t, key, section, engines, label);
    }
}

json_t *pl_tree_section(struct pl_tree *t, const struct pl_yaml *map, enum pl_sweep_section section,
                        unsigned engines, const char *label)
{
    json_t *out = json_object();
    bool is_map = map && map->kind == PL_YAML_MAP;
    if (!out)
        t->no_memory = true;
    if (map && !is_map && !pl_yaml_is_null(map))
        pl_tree_mistake(t, map, "%s is %s, expected a map", label[0] ? label : "the file",
                        pl_tree_show(t, map));
    else if (is_map)
        check_keys(t, map, section, engines, label);
    for (size_t i = 0; i < pl_sweep_n_keys; i++) {
        const struct pl_sweep_key *k = &pl_sweep_keys[i];
        const struct pl_yaml *v;
        json_t *j = NULL;
        if (!fits(k, section, engines))
            continue;
        v = is_map ? pl_tree_get(map, k->name) : NULL;
        if (!v && !k->dflt && is_map) {
            char expected[200];
            pl_key_expected(k, expected, sizeof expected);
            pl_tree_mistake(t, map, "%s%s%s is missing, expected %s", label, label[0] ? "." : "",
                            k->name, expected);
        }
        if (k->type == PL_KEY_MAP || k->type == PL_KEY_ANY)
            continue;
        if (v)
            j = read_value(t, k, v, label);
        if (!j && k->dflt)
            j = json_loads(k->dflt, JSON_DECODE_ANY, NULL);
        if (j && k->type == PL_KEY_FLOAT && json_is_integer(j)) {
            double d = (double)json_integer_value(j);
            json_decref(j);
            j = json_real(d);
        }
        if (j && out && json_object_set_new(out, k->name, j) != 0)
            t->no_memory = true;
    }
    return out;
}
