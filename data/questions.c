#include "data/questions.h"

#include "base/json.h"
#include "data/text_file.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static void skip_bom(const char **text, size_t *len)
{
    if (*len >= 3 && memcmp(*text, "\xEF\xBB\xBF", 3) == 0) {
        *text += 3;
        *len -= 3;
    }
}

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Without the blanks at both ends. */
static void trim(const char **s, size_t *n)
{
    while (*n && blank(**s)) {
        (*s)++;
        (*n)--;
    }
    while (*n && blank((*s)[*n - 1]))
        (*n)--;
}

static enum pl_status no_memory(struct pl_err *err, const char *name)
{
    return pl_fail(err, PL_ENOMEM, "%s: no memory for its questions", name);
}

/* ---- a list, a line each ---- */

/* The question of a line; *n 0: none. */
static enum pl_status read_line(const char *name, size_t line, const char **s, size_t *n,
                                struct pl_err *err)
{
    const char *tab = memchr(*s, '\t', *n), *at = *s;
    size_t digits = tab ? (size_t)(tab - at) : 0;
    if (tab) {
        const char *count = at;
        trim(&count, &digits);
        for (size_t i = 0; i < digits; i++)
            if (count[i] < '0' || count[i] > '9')
                return pl_fail(err, PL_EFORMAT, "%s:%zu: \"%.*s\", expected COUNT<TAB>QUESTION",
                               name, line, (int)(digits < 64 ? digits : 64), count);
        *n -= (size_t)(tab + 1 - at);
        *s = tab + 1;
    }
    trim(s, n);
    if (tab && digits && *n == 0)
        return pl_fail(err, PL_EFORMAT, "%s:%zu: a count and no question", name, line);
    if (*n > PL_QUESTION_MAX)
        return pl_fail(err, PL_EFORMAT, "%s:%zu: a question of %zu bytes, expected at most %d",
                       name, line, *n, PL_QUESTION_MAX);
    if (memchr(*s, 0, *n))
        return pl_fail(err, PL_EFORMAT, "%s:%zu: a zero byte, expected text", name, line);
    return PL_OK;
}

enum pl_status pl_questions_parse(const char *name, const char *text, size_t len,
                                  struct pl_arena *arena, struct pl_questions *out,
                                  struct pl_err *err)
{
    const struct pl_text_file file = {text, len};
    struct pl_questions q = {NULL, 0};
    size_t lines = 1, line = 0;
    enum pl_status st = pl_text_file_check(&file, name, err);
    if (st != PL_OK)
        return st;
    skip_bom(&text, &len);
    for (size_t i = 0; i < len; i++)
        lines += text[i] == '\n';
    q.text = pl_arena_calloc(arena, lines, sizeof *q.text);
    if (!q.text)
        return no_memory(err, name);
    while (len) {
        const char *end = memchr(text, '\n', len), *s = text;
        size_t n = end ? (size_t)(end - text) : len, taken = end ? n + 1 : n;
        st = read_line(name, ++line, &s, &n, err);
        if (st != PL_OK)
            return st;
        if (n && !(q.text[q.n++] = pl_arena_strndup(arena, s, n)))
            return no_memory(err, name);
        text += taken;
        len -= taken;
    }
    if (q.n == 0)
        return pl_fail(err, PL_EFORMAT, "%s: no question in it, expected one a line", name);
    *out = q;
    return PL_OK;
}

/* ---- the instruction JSON ---- */

struct reader {
    const char *name;
    struct pl_arena *arena;
    struct pl_instructions out;
    size_t cap;
    size_t item;
    char id[128]; /* of the item, for messages and for numbers */
    struct pl_err *err;
};

static enum pl_status bad(struct reader *r, const char *key, const char *found,
                          const char *expected)
{
    return pl_fail(r->err, PL_EFORMAT, "%s: item %zu%s%s%s: %s is %s, expected %s", r->name,
                   r->item, r->id[0] ? " (id " : "", r->id, r->id[0] ? ")" : "", key, found,
                   expected);
}

static const char *kind_of(const json_t *v)
{
    static const char *const names[] = {"an object", "a list", "a string", "a whole number",
                                        "a number",  "true",   "false",    "null"};
    return v ? names[json_typeof(v)] : "missing";
}

/* A string of the item, not blank; NULL when it is absent and may be. */
static enum pl_status text_of(struct reader *r, const json_t *v, const char *key, bool may_lack,
                              const char **out)
{
    const char *s = json_string_value(v);
    size_t n = s ? strlen(s) : 0;
    *out = NULL;
    if ((!v || json_is_null(v)) && may_lack)
        return PL_OK;
    if (!s)
        return bad(r, key, kind_of(v), "a string");
    trim(&s, &n);
    if (n == 0)
        return bad(r, key, "empty", "text");
    if (n > PL_QUESTION_MAX)
        return bad(r, key, "longer than 16384 bytes", "a shorter text");
    *out = pl_arena_strndup(r->arena, s, n);
    return *out ? PL_OK : no_memory(r->err, r->name);
}

static enum pl_status read_id(struct reader *r, const json_t *v, const char **out)
{
    const char *s = json_string_value(v);
    r->id[0] = '\0';
    if (json_is_integer(v)) {
        snprintf(r->id, sizeof r->id, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    } else {
        enum pl_status st = text_of(r, v, "id", false, out);
        if (st != PL_OK)
            return st;
        snprintf(r->id, sizeof r->id, "%.100s", s);
        return PL_OK;
    }
    *out = pl_arena_strdup(r->arena, r->id);
    return *out ? PL_OK : no_memory(r->err, r->name);
}

/* Where the picture stands in a question is the model's to say: its marks go. */
static const char *without_marks(const char *s)
{
    static const char *const marks[] = {"<event>",  "<video>",    "<image>", "<ev_start>",
                                        "<ev_end>", "<im_start>", "<im_end>"};
    for (bool again = true; again;) {
        again = false;
        while (blank(*s))
            s++;
        for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
            if (strncmp(s, marks[i], strlen(marks[i])) == 0) {
                s += strlen(marks[i]);
                again = true;
            }
    }
    return s;
}

static const char *without_end_marks(struct pl_arena *arena, const char *s)
{
    static const char *const marks[] = {"<event>",  "<video>",  "<image>",
                                        "<ev_end>", "<im_end>", "<ev_start>"};
    size_t n = strlen(s), before = n + 1;
    while (n < before) {
        before = n;
        while (n && blank(s[n - 1]))
            n--;
        for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
            size_t m = strlen(marks[i]);
            if (n >= m && memcmp(s + n - m, marks[i], m) == 0)
                n -= m;
        }
    }
    return s[n] ? pl_arena_strndup(arena, s, n) : s;
}

static enum pl_status add(struct reader *r, const struct pl_instruction *i)
{
    if (r->out.n == r->cap) {
        /* The old list stays in the arena: at most as much again. */
        size_t cap = r->cap ? 2 * r->cap : 256;
        struct pl_instruction *list = pl_arena_calloc(r->arena, cap, sizeof *list);
        if (!list)
            return no_memory(r->err, r->name);
        if (r->out.n)
            memcpy(list, r->out.list, r->out.n * sizeof *list);
        r->out.list = list;
        r->cap = cap;
    }
    r->out.list[r->out.n++] = *i;
    return PL_OK;
}

/* One turn. *open: the question that waits for its answer. */
static enum pl_status read_turn(struct reader *r, size_t k, const json_t *turn,
                                const struct pl_instruction *item, bool *open)
{
    char key[64];
    const char *from, *value = NULL;
    enum pl_status st;
    snprintf(key, sizeof key, "conversations[%zu]", k);
    if (!json_is_object(turn))
        return bad(r, key, kind_of(turn), "an object of from and value");
    snprintf(key, sizeof key, "conversations[%zu].from", k);
    from = json_string_value(json_object_get(turn, "from"));
    if (!from)
        return bad(r, key, kind_of(json_object_get(turn, "from")), "human or gpt");
    bool human = strcmp(from, "human") == 0;
    if (!human && strcmp(from, "gpt") != 0) {
        char found[80];
        snprintf(found, sizeof found, "\"%.64s\"", from);
        return bad(r, key, found, "human or gpt");
    }
    if (!human && !*open)
        return bad(r, key, "gpt", "human: an answer needs its question before it");
    snprintf(key, sizeof key, "conversations[%zu].value", k);
    st = text_of(r, json_object_get(turn, "value"), key, false, &value);
    if (st != PL_OK)
        return st;
    if (!human) {
        r->out.list[r->out.n - 1].answer = value;
        *open = false;
        return PL_OK;
    }
    struct pl_instruction i = *item;
    i.question = without_end_marks(r->arena, without_marks(value));
    if (!i.question)
        return no_memory(r->err, r->name);
    if (!i.question[0])
        return bad(r, key, "a mark without a question", "text");
    *open = true;
    return add(r, &i);
}

static enum pl_status read_item(struct reader *r, const json_t *o)
{
    const json_t *turns = json_object_get(o, "conversations"), *turn;
    struct pl_instruction item = {.item = (uint32_t)r->item};
    bool open = false;
    size_t k;
    r->id[0] = '\0';
    if (!json_is_object(o))
        return bad(r, "it", kind_of(o), "an object of id, event_data and conversations");
    enum pl_status st = read_id(r, json_object_get(o, "id"), &item.id);
    if (st == PL_OK)
        st = text_of(r, json_object_get(o, "video"), "video", true, &item.video);
    if (st == PL_OK)
        st = text_of(r, json_object_get(o, "event_data"), "event_data", item.video != NULL,
                     &item.events);
    if (st != PL_OK)
        return st;
    if (!json_is_array(turns))
        return bad(r, "conversations", kind_of(turns), "a list of questions and answers");
    if (json_array_size(turns) == 0)
        return bad(r, "conversations", "empty", "at least one question");
    json_array_foreach ((json_t *)turns, k, turn) {
        st = read_turn(r, k, turn, &item, &open);
        if (st != PL_OK)
            return st;
    }
    return PL_OK;
}

enum pl_status pl_instructions_parse(const char *name, const char *text, size_t len,
                                     struct pl_arena *arena, struct pl_instructions *out,
                                     struct pl_err *err)
{
    struct reader r = {.name = name, .arena = arena, .err = err};
    json_t *root = NULL;
    skip_bom(&text, &len);
    enum pl_status st = pl_json_parse(name, text, len, &root, err);
    if (st != PL_OK)
        return st;
    if (!json_is_array(root) || json_array_size(root) == 0)
        st = pl_fail(err, PL_EFORMAT, "%s: it is %s, expected a list of items", name,
                     json_is_array(root) ? "an empty list" : kind_of(root));
    for (; st == PL_OK && r.item < json_array_size(root); r.item++)
        st = read_item(&r, json_array_get(root, r.item));
    json_decref(root);
    if (st == PL_OK)
        *out = r.out;
    return st;
}
