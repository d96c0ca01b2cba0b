/* `matrix`: one entry of `arms` becomes an arm for each combination of values. */
#include "orchestrator/sweep_suggest.h"
#include "orchestrator/sweep_tree.h"

#include <stdio.h>
#include <string.h>

#define NAME_MAX_BYTES 64

struct expansion {
    struct pl_tree *t;
    struct pl_arm_def *arms; /* [PL_ARMS_MAX] */
    size_t n;
    const struct pl_yaml *key; /* the entry that is expanded */
    const struct pl_yaml *matrix;
};

bool pl_tree_name_ok(struct pl_tree *t, const struct pl_yaml *key, const char *name,
                     const char *what)
{
    size_t n = strlen(name);
    bool ok = n > 0 && n <= NAME_MAX_BYTES && name[0] != ' ' && name[n - 1] != ' ';
    for (size_t i = 0; ok && i < n; i++)
        ok = (unsigned char)name[i] >= ' ' && name[i] != 0x7f && !strchr(",/\\\"'`{}|", name[i]);
    if (!ok)
        pl_tree_mistake(t, key,
                        "%s \"%s\" cannot be a name, expected 1 to %d bytes without , / \\ | "
                        "quotes, braces or outer blanks",
                        what, name, NAME_MAX_BYTES);
    return ok;
}

/* The matrix key that {word} means: itself, or the only one that ends in ".word". matrix->n: none.
 */
static size_t matrix_key_of(const struct pl_yaml *matrix, const char *word)
{
    size_t found = matrix->n, n = strlen(word);
    for (size_t i = 0; i < matrix->n; i++)
        if (strcmp(matrix->keys[i]->text, word) == 0)
            return i;
    for (size_t i = 0; i < matrix->n; i++) {
        const char *k = matrix->keys[i]->text;
        size_t len = strlen(k);
        if (len > n && k[len - n - 1] == '.' && strcmp(k + len - n, word) == 0) {
            if (found < matrix->n)
                return matrix->n;
            found = i;
        }
    }
    return found;
}

static bool append(char *out, size_t *at, const char *s, size_t n)
{
    if (*at + n > NAME_MAX_BYTES)
        return false;
    memcpy(out + *at, s, n);
    *at += n;
    out[*at] = '\0';
    return true;
}

/* One {word} or {word:nodot}. */
static bool append_value(const struct expansion *e, char *out, size_t *at, const char *inside,
                         size_t len, const size_t *pick)
{
    char word[NAME_MAX_BYTES + 1];
    const char *colon = memchr(inside, ':', len), *value;
    size_t n = colon ? (size_t)(colon - inside) : len, k;
    bool nodot = colon && len - n == 6 && memcmp(colon, ":nodot", 6) == 0;
    if (n > NAME_MAX_BYTES)
        n = NAME_MAX_BYTES;
    memcpy(word, inside, n);
    word[n] = '\0';
    if (colon && !nodot) {
        pl_tree_mistake(e->t, e->key, "arms.%s has {%.*s}, expected {%s} or {%s:nodot}",
                        e->key->text, (int)len, inside, word, word);
        return false;
    }
    k = matrix_key_of(e->matrix, word);
    if (k == e->matrix->n) {
        struct pl_suggest s;
        pl_suggest_init(&s, word);
        for (size_t i = 0; i < e->matrix->n; i++)
            pl_suggest_offer(&s, e->matrix->keys[i]->text);
        pl_tree_mistake(e->t, e->key, "arms.%s has {%s}, expected a key of its matrix%s%s",
                        e->key->text, word, s.best ? ", did you mean " : "", s.best ? s.best : "");
        return false;
    }
    value = e->matrix->items[k]->items[pick[k]]->text;
    for (; *value; value++)
        if (!(nodot && *value == '.') && !append(out, at, value, 1))
            return false;
    return true;
}

/* The arm's name from the template; false after a mistake. */
static bool make_name(const struct expansion *e, const size_t *pick, char out[NAME_MAX_BYTES + 1])
{
    const char *p = e->key->text;
    size_t at = 0;
    bool room = true;
    out[0] = '\0';
    while (*p && room) {
        const char *close = *p == '{' ? strchr(p, '}') : NULL;
        size_t n = strcspn(p, "{");
        if (*p != '{') {
            room = append(out, &at, p, n);
            p += n;
            continue;
        }
        if (!close) {
            pl_tree_mistake(e->t, e->key, "arms.%s has a { without a }, expected {KEY}",
                            e->key->text);
            return false;
        }
        n = e->t->n_mistakes;
        room = append_value(e, out, &at, p + 1, (size_t)(close - p - 1), pick);
        if (!room && e->t->n_mistakes > n)
            return false;
        p = close + 1;
    }
    if (!room)
        pl_tree_mistake(e->t, e->key, "arms.%s makes a name of more than %d bytes", e->key->text,
                        NAME_MAX_BYTES);
    return room;
}

static bool add_arm(struct expansion *e, const char *name, const struct pl_yaml *map)
{
    struct pl_tree *t = e->t;
    const char *copy;
    if (e->n == PL_ARMS_MAX) {
        pl_tree_mistake(t, e->key, "the sweep has more than %d arms", PL_ARMS_MAX);
        return false;
    }
    for (size_t i = 0; i < e->n; i++) {
        if (strcmp(e->arms[i].name, name) != 0)
            continue;
        if (e->arms[i].key == e->key)
            pl_tree_mistake(
                t, e->key,
                "arms.%s makes \"%s\" twice, expected every matrix key in its name, like {%s}",
                e->key->text, name, e->matrix->keys[e->matrix->n - 1]->text);
        else
            pl_tree_mistake(t, e->key, "duplicate arm \"%s\", expected it once, first at %s", name,
                            pl_tree_place(t, e->arms[i].key));
        return false;
    }
    copy = pl_arena_strdup(&t->arena, name);
    if (!copy || !map) {
        t->no_memory = true;
        return false;
    }
    if (pl_tree_name_ok(t, e->key, copy, "arm"))
        e->arms[e->n++] = (struct pl_arm_def){copy, e->key, map};
    return true;
}

/* What a matrix key sets: itself, or that key of the arm's `prune` map when it is none of an arm.
 */
static const char *target_of(struct pl_tree *t, const struct pl_yaml *map, const char *key)
{
    const struct pl_yaml *prune = pl_tree_get(map, "prune");
    const char *sub;
    if (!prune || prune->kind != PL_YAML_MAP || pl_tree_knows(key, PL_SECTION_ARM) ||
        !pl_tree_knows(key, PL_SECTION_PRUNE))
        return key;
    sub = pl_arena_printf(&t->arena, "prune.%s", key);
    return sub ? sub : key;
}

static bool check_matrix(struct pl_tree *t, const struct pl_yaml *key, const struct pl_yaml *map,
                         const struct pl_yaml *m)
{
    size_t before = t->n_mistakes;
    if (m->kind != PL_YAML_MAP || m->n == 0) {
        pl_tree_mistake(t, m,
                        "arms.%s.matrix is %s, expected a map of lists, like {scale: [0.9, 1.1]}",
                        key->text, m->kind == PL_YAML_MAP ? "an empty map" : pl_tree_show(t, m));
        return false;
    }
    for (size_t i = 0; i < m->n; i++) {
        const struct pl_yaml *k = m->keys[i], *v = m->items[i];
        struct pl_yaml first = *k;
        const char *target = target_of(t, map, k->text);
        first.text = pl_arena_strndup(&t->arena, target, strcspn(target, "."));
        if (!first.text) {
            t->no_memory = true;
            return false;
        }
        for (size_t j = 0; j < i; j++)
            if (strcmp(m->keys[j]->text, k->text) == 0)
                pl_tree_mistake(
                    t, k, "duplicate key \"%s\" in arms.%s.matrix, expected it once, first at %s",
                    k->text, key->text, pl_tree_place(t, m->keys[j]));
        if (!pl_tree_knows(first.text, PL_SECTION_ARM) || strcmp(first.text, "matrix") == 0) {
            char label[NAME_MAX_BYTES + 32];
            snprintf(label, sizeof label, "arms.%.64s.matrix", key->text);
            pl_tree_unknown_key(t, &first, PL_SECTION_ARM, PL_FOR_ALL, label);
        }
        if (v->kind != PL_YAML_SEQ || v->n == 0) {
            pl_tree_mistake(t, v, "arms.%s.matrix.%s is %s, expected a list of values", key->text,
                            k->text, v->kind == PL_YAML_SEQ ? "an empty list" : pl_tree_show(t, v));
            continue;
        }
        for (size_t j = 0; j < v->n; j++)
            if (v->items[j]->kind != PL_YAML_SCALAR)
                pl_tree_mistake(t, v->items[j], "arms.%s.matrix.%s holds %s, expected plain values",
                                key->text, k->text, pl_tree_show(t, v->items[j]));
    }
    return t->n_mistakes == before;
}

static struct pl_yaml *without_matrix(struct pl_tree *t, const struct pl_yaml *map)
{
    struct pl_yaml *m = pl_arena_alloc(&t->arena, sizeof *m);
    if (!m)
        return NULL;
    *m = *map;
    m->n = 0;
    m->keys = pl_arena_calloc(&t->arena, map->n, sizeof(struct pl_yaml *));
    m->items = pl_arena_calloc(&t->arena, map->n, sizeof(struct pl_yaml *));
    if (!m->keys || !m->items)
        return NULL;
    for (size_t i = 0; i < map->n; i++) {
        if (strcmp(map->keys[i]->text, "matrix") == 0)
            continue;
        m->keys[m->n] = map->keys[i];
        m->items[m->n++] = map->items[i];
    }
    return m;
}

/* All combinations; the last key of the matrix changes fastest. */
static void expand(struct expansion *e, const struct pl_yaml *map)
{
    struct pl_tree *t = e->t;
    const struct pl_yaml *m = e->matrix;
    const struct pl_yaml *base = without_matrix(t, map);
    size_t *pick = pl_arena_calloc(&t->arena, m->n, sizeof *pick), k;
    if (!base || !pick) {
        t->no_memory = true;
        return;
    }
    for (;;) {
        char name[NAME_MAX_BYTES + 1];
        struct pl_yaml *arm = NULL;
        const struct pl_yaml *from = base;
        for (size_t i = 0; i < m->n; i++) {
            arm = pl_tree_with(t, from, target_of(t, map, m->keys[i]->text),
                               m->items[i]->items[pick[i]]);
            if (!arm) {
                pl_tree_mistake(t, m->keys[i], "arms.%s.matrix.%s: a value on the way is not a map",
                                e->key->text, m->keys[i]->text);
                return;
            }
            from = arm;
        }
        if (!make_name(e, pick, name) || !add_arm(e, name, arm))
            return;
        for (k = m->n; k > 0 && ++pick[k - 1] == m->items[k - 1]->n; k--)
            pick[k - 1] = 0;
        if (k == 0)
            return;
    }
}

size_t pl_tree_arms(struct pl_tree *t, const struct pl_yaml *arms, struct pl_arm_def **out)
{
    struct expansion e = {.t = t};
    e.arms = pl_arena_calloc(&t->arena, PL_ARMS_MAX, sizeof *e.arms);
    *out = e.arms;
    if (!e.arms) {
        t->no_memory = true;
        return 0;
    }
    if (!arms || arms->kind != PL_YAML_MAP)
        return 0;
    for (size_t i = 0; i < arms->n; i++) {
        const struct pl_yaml *v = arms->items[i];
        e.key = arms->keys[i];
        if (v->kind != PL_YAML_MAP) {
            pl_tree_mistake(t, v, "arms.%s is %s, expected a map with a model", e.key->text,
                            pl_tree_show(t, v));
            continue;
        }
        e.matrix = pl_tree_get(v, "matrix");
        if (!e.matrix && strpbrk(e.key->text, "{}"))
            pl_tree_mistake(t, e.key,
                            "arms.%s has braces in its name, expected a matrix in the arm",
                            e.key->text);
        else if (!e.matrix)
            add_arm(&e, e.key->text, v);
        else if (check_matrix(t, e.key, v, e.matrix))
            expand(&e, v);
    }
    return e.n;
}
