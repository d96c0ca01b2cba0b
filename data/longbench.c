#include "data/longbench.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static bool blank(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r')
            return false;
    return true;
}

/* A list of texts of a line; `least` of them at least. */
static enum pl_status texts(const json_t *o, const char *key, size_t least, const char *where,
                            struct pl_arena *arena, const char ***out, size_t *n,
                            struct pl_err *err)
{
    const json_t *list = json_object_get(o, key);

    *n = 0;
    *out = NULL;
    if (!least && (!list || json_is_null(list)))
        return PL_OK;
    if (!json_is_array(list) || json_array_size(list) < least)
        return pl_fail(err, PL_EFORMAT, "%s: \"%s\" is %s, expected a list of texts", where, key,
                       !list                 ? "missing"
                       : json_is_array(list) ? "empty"
                                             : "no list");
    *out = pl_arena_calloc(arena, json_array_size(list) + 1, sizeof **out);
    for (size_t i = 0; *out && i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_string(v))
            return pl_fail(err, PL_EFORMAT, "%s: \"%s\"[%zu] is no text", where, key, i);
        (*out)[i] = pl_arena_strdup(arena, json_string_value(v));
        if (!(*out)[i])
            *out = NULL;
    }
    if (!*out)
        return pl_fail(err, PL_ENOMEM, "%s: no memory", where);
    *n = json_array_size(list);
    return PL_OK;
}

static enum pl_status one_line(const char *name, uint32_t line, const char *s, size_t len,
                               struct pl_arena *arena, struct pl_longbench_item *out,
                               struct pl_err *err)
{
    static const char *const must[] = {"context", "input"};
    char where[300];
    json_error_t e;
    json_t *o;
    enum pl_status st = PL_OK;

    snprintf(where, sizeof where, "%.240s:%" PRIu32, name, line);
    if (len > PL_LONGBENCH_LINE_MAX)
        return pl_fail(err, PL_ERANGE, "%s: a line of %zu bytes, expected at most %u", where, len,
                       PL_LONGBENCH_LINE_MAX);
    o = json_loadb(s, len, JSON_REJECT_DUPLICATES, &e);
    if (!json_is_object(o)) {
        st = o ? pl_fail(err, PL_EFORMAT, "%s: no JSON object", where)
               : pl_fail(err, PL_EFORMAT, "%s:%d: %s", where, e.column, e.text);
        json_decref(o);
        return st;
    }
    for (size_t i = 0; i < 2 && !st; i++)
        if (!json_is_string(json_object_get(o, must[i])))
            st = pl_fail(err, PL_EFORMAT, "%s: \"%s\" is %s, expected a text", where, must[i],
                         json_object_get(o, must[i]) ? "no text" : "missing");
    if (!st)
        st = texts(o, "answers", 1, where, arena, &out->answers, &out->n_answers, err);
    if (!st)
        st = texts(o, "all_classes", 0, where, arena, &out->classes, &out->n_classes, err);
    out->line = line;
    out->len = len;
    json_decref(o);
    return st;
}

enum pl_status pl_longbench_parse(const char *name, const char *text, size_t len,
                                  struct pl_arena *arena, struct pl_longbench *out,
                                  struct pl_err *err)
{
    struct pl_longbench_item *items = NULL;
    size_t n = 0, room = 0;
    uint32_t line = 0;
    enum pl_status st = PL_OK;

    if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) {
        st = pl_fail(err, PL_EFORMAT, "%.240s:1: a byte order mark, expected plain UTF-8", name);
        return st;
    }
    for (size_t at = 0, end; at < len && !st; at = end + 1) {
        const char *newline = memchr(text + at, '\n', len - at);
        end = newline ? (size_t)(newline - text) : len;
        line++;
        if (blank(text + at, end - at))
            continue;
        if (n == room) {
            struct pl_longbench_item *more = realloc(items, (room ? 2 * room : 64) * sizeof *items);
            if (!more) {
                st = pl_fail(err, PL_ENOMEM, "%.240s: no memory for %zu items", name, n);
                break;
            }
            items = more;
            room = room ? 2 * room : 64;
        }
        items[n] = (struct pl_longbench_item){.at = at};
        st = one_line(name, line, text + at, end - at, arena, &items[n], err);
        n++;
    }
    if (!st && !n)
        st = pl_fail(err, PL_EFORMAT, "%.240s: no item, expected a JSON object a line", name);
    if (!st) {
        out->items = pl_arena_calloc(arena, n, sizeof *items);
        if (!out->items)
            st = pl_fail(err, PL_ENOMEM, "%.240s: no memory for %zu items", name, n);
    }
    if (!st) {
        memcpy(out->items, items, n * sizeof *items);
        out->n = n;
    }
    free(items);
    return st;
}

/* ---- prompts ---- */

#define CONTEXT "{context}"
#define INPUT "{input}"

enum pl_status pl_longbench_check_prompt(const char *prompt, struct pl_err *err)
{
    const char *context = strstr(prompt, CONTEXT), *input = strstr(prompt, INPUT);

    if (!context || strstr(context + 1, CONTEXT))
        return pl_fail(err, PL_EFORMAT, "a prompt with %s " CONTEXT ", expected one",
                       context ? "more than one" : "no");
    if (input && strstr(input + 1, INPUT))
        return pl_fail(err, PL_EFORMAT, "a prompt with more than one " INPUT ", expected one");
    return PL_OK;
}

/* Part of a prompt, with the input in its place. */
static json_t *fill(const char *s, size_t n, const char *input)
{
    const char *at = strstr(s, INPUT);
    const size_t mark = sizeof INPUT - 1;

    if (!at || (size_t)(at - s) >= n)
        return json_stringn(s, n);
    return json_sprintf("%.*s%s%.*s", (int)(at - s), s, input, (int)(n - (size_t)(at - s) - mark),
                        at + mark);
}

json_t *pl_longbench_prompt(const char *text, size_t len, const struct pl_longbench_item *item,
                            const char *prompt)
{
    const char *context = strstr(prompt, CONTEXT), *input, *tail;
    json_t *o = item->at <= len && item->len <= len - item->at
                    ? json_loadb(text + item->at, item->len, 0, NULL)
                    : NULL;
    json_t *out = NULL;

    input = json_string_value(json_object_get(o, "input"));
    if (context && input && json_is_string(json_object_get(o, "context"))) {
        tail = context + sizeof CONTEXT - 1;
        out = json_pack("{s:o,s:O,s:o}", "head", fill(prompt, (size_t)(context - prompt), input),
                        "body", json_object_get(o, "context"), "tail",
                        fill(tail, strlen(tail), input));
    }
    json_decref(o);
    return out;
}
