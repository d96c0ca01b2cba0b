#include "orchestrator/sweep_tree.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pl_tree_release(struct pl_tree *t)
{
    for (size_t i = 0; i < t->n_mistakes; i++)
        free(t->mistakes[i].text);
    free(t->mistakes);
    free(t->origins);
    pl_arena_release(&t->arena);
    memset(t, 0, sizeof *t);
}

static void record(struct pl_tree *t, int line, int column, char *text)
{
    struct pl_mistake *grown = realloc(t->mistakes, (t->n_mistakes + 1) * sizeof *grown);
    if (!grown || !text) {
        t->no_memory = true;
        if (grown)
            t->mistakes = grown;
        free(text);
        return;
    }
    t->mistakes = grown;
    t->mistakes[t->n_mistakes] = (struct pl_mistake){line, column, t->n_mistakes, text};
    t->n_mistakes++;
}

static const char *or_empty(struct pl_tree *t, const char *s)
{
    if (!s)
        t->no_memory = true;
    return s ? s : "";
}

const char *pl_tree_place(struct pl_tree *t, const struct pl_yaml *at)
{
    if (at->line < 0 && (size_t)(-1 - at->line) < t->n_origins)
        return t->origins[-1 - at->line];
    return or_empty(t, pl_arena_printf(&t->arena, "%d:%d", at->line, at->column));
}

void pl_tree_mistake(struct pl_tree *t, const struct pl_yaml *at, const char *fmt, ...)
{
    char *text = NULL, *line = NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    if (!text) {
        t->no_memory = true;
        return;
    }
    if (at && at->line < 0) {
        if (asprintf(&line, "%s: %s", pl_tree_place(t, at), text) < 0)
            line = NULL;
    } else if (asprintf(&line, "%s:%d:%d: %s", t->path, at ? at->line : 1, at ? at->column : 1,
                        text) < 0) {
        line = NULL;
    }
    free(text);
    record(t, at ? at->line : 1, at ? at->column : 1, line);
}

static int add_origin(struct pl_tree *t, const char *origin)
{
    const char **grown = realloc(t->origins, (t->n_origins + 1) * sizeof *grown);
    if (!grown) {
        t->no_memory = true;
        return 0;
    }
    t->origins = grown;
    t->origins[t->n_origins++] = origin;
    return -(int)t->n_origins;
}

void pl_tree_option_mistake(struct pl_tree *t, const char *origin, const char *fmt, ...)
{
    char *text = NULL;
    struct pl_yaml at = {.line = add_origin(t, origin), .column = 1};
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    if (text && at.line)
        pl_tree_mistake(t, &at, "%s", text);
    else
        t->no_memory = true;
    free(text);
}

/* By place; what options brought comes last, in the order they were given. */
static int by_place(const void *pa, const void *pb)
{
    const struct pl_mistake *a = pa, *b = pb;
    if ((a->line < 0) != (b->line < 0))
        return a->line < 0 ? 1 : -1;
    if (a->line != b->line)
        return (a->line < b->line) == (a->line > 0) ? -1 : 1;
    if (a->column != b->column)
        return a->column < b->column ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

size_t pl_tree_report(struct pl_tree *t, struct pl_problems *out)
{
    size_t n = t->n_mistakes;
    if (n)
        qsort(t->mistakes, n, sizeof t->mistakes[0], by_place);
    for (size_t i = 0; i < n; i++) {
        pl_problems_add(out, "%s", t->mistakes[i].text);
        free(t->mistakes[i].text);
    }
    t->n_mistakes = 0;
    return n;
}

bool pl_yaml_is_null(const struct pl_yaml *v)
{
    return v->kind == PL_YAML_SCALAR && !v->quoted &&
           (!v->text[0] || strcmp(v->text, "~") == 0 || strcmp(v->text, "null") == 0);
}

const struct pl_yaml *pl_tree_get(const struct pl_yaml *map, const char *key)
{
    const struct pl_yaml *v = map ? pl_yaml_get(map, key) : NULL;
    return v && !pl_yaml_is_null(v) ? v : NULL;
}

const struct pl_yaml *pl_tree_at(const struct pl_yaml *map, const char *key)
{
    const struct pl_yaml *v = map ? pl_yaml_get(map, key) : NULL;
    return v ? v : map;
}

void pl_tree_put(struct pl_tree *t, json_t *o, const char *key, json_t *value)
{
    if (!value || json_object_set_new(o, key, value) != 0)
        t->no_memory = true;
}

const char *pl_tree_show(struct pl_tree *t, const struct pl_yaml *v)
{
    if (v->kind != PL_YAML_SCALAR)
        return v->kind == PL_YAML_SEQ ? "a list" : "a map";
    if (pl_yaml_is_null(v))
        return "empty";
    if (strlen(v->text) > 60)
        return or_empty(t, pl_arena_printf(&t->arena, "\"%.57s…\"", v->text));
    return or_empty(t, pl_arena_printf(&t->arena, "\"%s\"", v->text));
}

/* Nodes of an option all carry its origin; depth is capped by the parser. */
static void stamp(struct pl_yaml *v, int line)
{
    v->line = line;
    for (size_t i = 0; i < v->n && v->kind != PL_YAML_SCALAR; i++) {
        stamp(v->items[i], line);
        if (v->kind == PL_YAML_MAP)
            v->keys[i]->line = line;
    }
}

/* Which pair of the map the dotted path goes through: the longest key that is the path or its
 * beginning up to a dot, since names may hold dots. map->n when there is none. */
static size_t match_key(const struct pl_yaml *map, const char *path, size_t *len)
{
    size_t best = map->n;
    *len = strcspn(path, ".");
    for (size_t i = 0; i < map->n; i++) {
        size_t n = strlen(map->keys[i]->text);
        if (n && strncmp(path, map->keys[i]->text, n) == 0 && (path[n] == '.' || !path[n]) &&
            (best == map->n || n > *len)) {
            best = i;
            *len = n;
        }
    }
    return best;
}

static struct pl_yaml *new_scalar(struct pl_tree *t, const char *text, size_t n, int line)
{
    struct pl_yaml *k = pl_arena_alloc(&t->arena, sizeof *k);
    if (!k)
        return NULL;
    k->kind = PL_YAML_SCALAR;
    k->line = line;
    k->column = 1;
    k->text = pl_arena_strndup(&t->arena, text, n);
    return k->text ? k : NULL;
}

struct pl_yaml *pl_tree_with(struct pl_tree *t, const struct pl_yaml *map, const char *key,
                             struct pl_yaml *value)
{
    struct pl_yaml *copy = pl_arena_alloc(&t->arena, sizeof *copy);
    size_t len = 0, n = map ? map->n : 0, at;
    if (!copy)
        return NULL;
    *copy =
        map ? *map
            : (struct pl_yaml){.kind = PL_YAML_MAP, .line = value->line, .column = value->column};
    at = map ? match_key(map, key, &len) : 0;
    if (!map)
        len = strcspn(key, ".");
    copy->items = pl_arena_calloc(&t->arena, n + 1, sizeof(struct pl_yaml *));
    copy->keys = pl_arena_calloc(&t->arena, n + 1, sizeof(struct pl_yaml *));
    if (!copy->items || !copy->keys)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        copy->items[i] = map->items[i];
        copy->keys[i] = map->keys[i];
    }
    if (at == n) {
        copy->keys[n] = new_scalar(t, key, len, value->line);
        copy->n = n + 1;
        if (!copy->keys[n])
            return NULL;
    }
    if (key[len]) {
        const struct pl_yaml *below =
            at < n && !pl_yaml_is_null(map->items[at]) ? map->items[at] : NULL;
        if (below && below->kind != PL_YAML_MAP)
            return NULL;
        value = pl_tree_with(t, below, key + len + 1, value);
    }
    copy->items[at] = value;
    return value ? copy : NULL;
}

void pl_tree_set(struct pl_tree *t, const char *key, const char *value, const char *origin)
{
    struct pl_err err = {""};
    struct pl_yaml *v = NULL, *root, at = {.line = add_origin(t, origin), .column = 1};
    if (!at.line)
        return;
    if (!key[0] || key[0] == '.' || key[strlen(key) - 1] == '.' || strstr(key, "..")) {
        pl_tree_mistake(t, &at, "\"%s\" is not a key, expected names with dots, like grid.repeats",
                        key);
        return;
    }
    if (!value[strspn(value, " \t")])
        value = "~";
    if (pl_yaml_parse(origin, value, strlen(value), &t->arena, &v, &err) != PL_OK) {
        char *text = strdup(err.text);
        record(t, at.line, 1, text);
        return;
    }
    if (!v) {
        t->no_memory = true;
        return;
    }
    stamp(v, at.line);
    root = pl_tree_with(t, t->root, key, v);
    if (root)
        t->root = root;
    else
        pl_tree_mistake(t, &at, "a value on the way is not a map, expected a key of the sweep");
}

static struct pl_problems *grow(struct pl_problems *p)
{
    char **items;
    size_t cap = p->cap ? p->cap * 2 : 8;
    if (p->n < p->cap)
        return p;
    items = realloc(p->items, cap * sizeof *items);
    if (!items)
        return NULL;
    p->items = items;
    p->cap = cap;
    return p;
}

void pl_problems_add(struct pl_problems *p, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    if (!p || !grow(p))
        return;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    if (text)
        p->items[p->n++] = text;
}

void pl_problems_release(struct pl_problems *p)
{
    for (size_t i = 0; i < p->n; i++)
        free(p->items[i]);
    free(p->items);
    memset(p, 0, sizeof *p);
}
