#include "base/yaml.h"

#include <stdint.h>
#include <string.h>
#include <yaml.h>

#define DEPTH_MAX 64
/* Aliases are counted each time they occur: what a reader of the tree would walk. */
#define NODES_MAX 1000000u
#define ANCHORS_MAX 1000u
#define MERGE_PAIRS_MAX 1000u /* merging compares every pair of keys */

/* A node and what it costs to walk it. The public part comes first, so that a pointer to it is one
 * to this. */
struct node {
    struct pl_yaml y;
    uint32_t weight; /* nodes below and itself */
    int height;      /* levels below and itself */
};

struct anchor {
    const char *name;
    struct node *node; /* NULL while the node is being read: an alias would make it its own part */
};

struct reader {
    const char *name;
    yaml_parser_t parser;
    struct pl_arena *arena;
    struct pl_err *err;
    uint32_t nodes; /* made so far */
    struct anchor anchors[ANCHORS_MAX];
    size_t n_anchors;
};

/* A growing list in the arena: doubling wastes at most as much again. */
struct list {
    struct pl_yaml **p;
    size_t n, size;
};

static enum pl_status fail_at(struct reader *r, const yaml_mark_t *m, const char *what)
{
    return pl_fail(r->err, PL_ESWEEP, "%s:%zu:%zu: %s", r->name, m->line + 1, m->column + 1, what);
}

static enum pl_status no_memory(struct reader *r)
{
    return pl_fail(r->err, PL_ENOMEM, "%s: no memory for the YAML tree", r->name);
}

/* The place of a byte: the decoder reports only that for bad UTF-8. */
static yaml_mark_t mark_of_offset(const char *text, size_t len, size_t offset)
{
    yaml_mark_t m = {0};

    for (size_t i = 0; i < offset && i < len; i++) {
        if (text[i] == '\n') {
            m.line++;
            m.column = 0;
        } else if (((unsigned char)text[i] & 0xC0) != 0x80) {
            m.column++;
        }
    }
    return m;
}

static enum pl_status fail_parser(struct reader *r)
{
    const yaml_parser_t *p = &r->parser;
    const char *problem = p->problem ? p->problem : "syntax error";
    yaml_mark_t m = p->problem_mark;

    if (p->error == YAML_MEMORY_ERROR)
        return no_memory(r);
    if (p->error == YAML_READER_ERROR)
        m = mark_of_offset((const char *)p->input.string.start,
                           (size_t)(p->input.string.end - p->input.string.start),
                           p->problem_offset);
    if (!p->context || p->error == YAML_READER_ERROR)
        return fail_at(r, &m, problem);
    return pl_fail(r->err, PL_ESWEEP, "%s:%zu:%zu: %s %s (from line %zu)", r->name, m.line + 1,
                   m.column + 1, p->context, problem, p->context_mark.line + 1);
}

static enum pl_status next(struct reader *r, yaml_event_t *e)
{
    if (!yaml_parser_parse(&r->parser, e)) {
        memset(e, 0, sizeof(*e));
        return fail_parser(r);
    }
    return PL_OK;
}

static enum pl_status list_add(struct reader *r, struct list *l, struct pl_yaml *item)
{
    if (l->n == l->size) {
        size_t size = l->size ? 2 * l->size : 4;
        struct pl_yaml **p = pl_arena_calloc(r->arena, size, sizeof(struct pl_yaml *));
        if (!p)
            return no_memory(r);
        if (l->n)
            memcpy(p, l->p, l->n * sizeof(struct pl_yaml *));
        l->p = p;
        l->size = size;
    }
    l->p[l->n++] = item;
    return PL_OK;
}

static enum pl_status node_new(struct reader *r, enum pl_yaml_kind kind, const yaml_mark_t *m,
                               struct node **out)
{
    if (++r->nodes > NODES_MAX)
        return fail_at(r, m, "too many nodes (the limit is 1000000)");
    struct node *n = pl_arena_alloc(r->arena, sizeof(*n));
    if (!n)
        return no_memory(r);
    n->y.kind = kind;
    n->y.line = (int)m->line + 1;
    n->y.column = (int)m->column + 1;
    n->weight = 1;
    n->height = 1;
    *out = n;
    return PL_OK;
}

/* Counts child as a part of parent. */
static enum pl_status charge(struct reader *r, struct node *parent, const struct node *child,
                             const yaml_mark_t *m)
{
    if (child->weight > NODES_MAX - parent->weight)
        return fail_at(r, m, "too many nodes once its aliases are expanded (the limit is 1000000)");
    parent->weight += child->weight;
    if (child->height + 1 > parent->height)
        parent->height = child->height + 1;
    return PL_OK;
}

static enum pl_status anchor_open(struct reader *r, const yaml_char_t *name, const yaml_mark_t *m,
                                  struct anchor **out)
{
    *out = NULL;
    if (!name)
        return PL_OK;
    if (r->n_anchors == ANCHORS_MAX)
        return fail_at(r, m, "too many anchors (the limit is 1000)");
    char *copy = pl_arena_strdup(r->arena, (const char *)name);
    if (!copy)
        return no_memory(r);
    *out = &r->anchors[r->n_anchors++];
    **out = (struct anchor){.name = copy};
    return PL_OK;
}

static enum pl_status resolve(struct reader *r, const yaml_event_t *e, int depth, struct node **out)
{
    const char *name = (const char *)e->data.alias.anchor;

    for (size_t i = r->n_anchors; i-- > 0;) { /* the latest of a name counts */
        const struct anchor *a = &r->anchors[i];
        if (strcmp(a->name, name) != 0)
            continue;
        if (!a->node)
            return fail_at(r, &e->start_mark, "an alias inside the node that it stands for");
        if (depth + a->node->height - 1 > DEPTH_MAX)
            return fail_at(r, &e->start_mark, "nested too deeply (the limit is 64 levels)");
        *out = a->node;
        return PL_OK;
    }
    return fail_at(r, &e->start_mark, "alias of an unknown anchor");
}

/* Tags: only the core ones, and only on the kind that they name. */
static enum pl_status check_tag(struct reader *r, const yaml_char_t *tag, enum pl_yaml_kind kind,
                                const yaml_mark_t *m, bool *quoted)
{
    static const char prefix[] = "tag:yaml.org,2002:";
    const char *t = (const char *)tag;

    if (!t)
        return PL_OK;
    if (strcmp(t, "!") == 0) {
        *quoted = true;
        return PL_OK;
    }
    if (strncmp(t, prefix, sizeof(prefix) - 1) != 0)
        return fail_at(r, m, "tags other than YAML's core ones are not supported");
    t += sizeof(prefix) - 1;
    if (kind == PL_YAML_SCALAR) {
        *quoted = strcmp(t, "str") == 0;
        if (*quoted || strcmp(t, "int") == 0 || strcmp(t, "float") == 0 || strcmp(t, "bool") == 0 ||
            strcmp(t, "null") == 0)
            return PL_OK;
    } else if (strcmp(t, kind == PL_YAML_SEQ ? "seq" : "map") == 0) {
        return PL_OK;
    }
    return fail_at(r, m, "this tag is not supported here");
}

static enum pl_status read_node(struct reader *r, const yaml_event_t *e, int depth,
                                struct node **out);

static enum pl_status read_scalar(struct reader *r, const yaml_event_t *e, struct node **out)
{
    struct anchor *a;
    struct node *n;
    enum pl_status st;
    size_t len = e->data.scalar.length;
    const char *v = (const char *)e->data.scalar.value;

    if ((st = node_new(r, PL_YAML_SCALAR, &e->start_mark, &n)) ||
        (st = anchor_open(r, e->data.scalar.anchor, &e->start_mark, &a)))
        return st;
    if (memchr(v, '\0', len))
        return fail_at(r, &e->start_mark, "a NUL character in a string");
    n->y.quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    if ((st = check_tag(r, e->data.scalar.tag, PL_YAML_SCALAR, &e->start_mark, &n->y.quoted)))
        return st;
    n->y.text = pl_arena_strndup(r->arena, v, len);
    if (!n->y.text)
        return no_memory(r);
    if (a)
        a->node = n;
    *out = n;
    return PL_OK;
}

/* The next node inside a collection; *out = NULL at its end. */
static enum pl_status read_member(struct reader *r, struct node *parent, yaml_event_type_t end,
                                  int depth, struct node **out)
{
    yaml_event_t e;
    enum pl_status st = next(r, &e);

    *out = NULL;
    if (st)
        return st;
    if (e.type != end && !(st = read_node(r, &e, depth, out)))
        st = charge(r, parent, *out, &e.start_mark);
    yaml_event_delete(&e);
    return st;
}

static enum pl_status read_seq(struct reader *r, const yaml_event_t *e, int depth,
                               struct node **out)
{
    struct list items = {0};
    struct anchor *a;
    struct node *n, *item;
    enum pl_status st;
    bool quoted;

    if ((st = node_new(r, PL_YAML_SEQ, &e->start_mark, &n)) ||
        (st = anchor_open(r, e->data.sequence_start.anchor, &e->start_mark, &a)) ||
        (st = check_tag(r, e->data.sequence_start.tag, PL_YAML_SEQ, &e->start_mark, &quoted)))
        return st;
    for (;;) {
        if ((st = read_member(r, n, YAML_SEQUENCE_END_EVENT, depth + 1, &item)))
            return st;
        if (!item)
            break;
        if ((st = list_add(r, &items, &item->y)))
            return st;
    }
    n->y.n = items.n;
    n->y.items = items.p;
    if (a)
        a->node = n;
    *out = n;
    return PL_OK;
}

static bool has_key(const struct list *keys, const char *key)
{
    for (size_t i = 0; i < keys->n; i++) {
        if (strcmp(keys->p[i]->text, key) == 0)
            return true;
    }
    return false;
}

static enum pl_status fail_node(struct reader *r, const struct pl_yaml *y, const char *what)
{
    return pl_fail(r->err, PL_ESWEEP, "%s:%d:%d: %s", r->name, y->line, y->column, what);
}

/* Adds those pairs of `from` whose keys are not there yet. */
static enum pl_status merge_map(struct reader *r, const struct pl_yaml *from, struct list *keys,
                                struct list *values)
{
    enum pl_status st;

    if (from->kind != PL_YAML_MAP)
        return fail_node(r, from, "'<<' merges maps only");
    if (from->n > MERGE_PAIRS_MAX || keys->n > MERGE_PAIRS_MAX)
        return fail_node(r, from, "too many pairs to merge (the limit is 1000)");
    for (size_t i = 0; i < from->n; i++) {
        if (has_key(keys, from->keys[i]->text))
            continue;
        if ((st = list_add(r, keys, from->keys[i])) || (st = list_add(r, values, from->items[i])))
            return st;
    }
    return PL_OK;
}

/* Merged pairs come after a map's own, which win; of several merged maps the earlier wins. */
static enum pl_status merge_all(struct reader *r, const struct list *merges, struct list *keys,
                                struct list *values)
{
    enum pl_status st;

    for (size_t i = 0; i < merges->n; i++) {
        const struct pl_yaml *m = merges->p[i];
        if (m->kind != PL_YAML_SEQ) {
            if ((st = merge_map(r, m, keys, values)))
                return st;
            continue;
        }
        for (size_t k = 0; k < m->n; k++) {
            if ((st = merge_map(r, m->items[k], keys, values)))
                return st;
        }
    }
    return PL_OK;
}

static enum pl_status read_map(struct reader *r, const yaml_event_t *e, int depth,
                               struct node **out)
{
    struct list keys = {0}, values = {0}, merges = {0};
    struct anchor *a;
    struct node *n, *key, *value;
    enum pl_status st;
    bool quoted;

    if ((st = node_new(r, PL_YAML_MAP, &e->start_mark, &n)) ||
        (st = anchor_open(r, e->data.mapping_start.anchor, &e->start_mark, &a)) ||
        (st = check_tag(r, e->data.mapping_start.tag, PL_YAML_MAP, &e->start_mark, &quoted)))
        return st;
    for (;;) {
        if ((st = read_member(r, n, YAML_MAPPING_END_EVENT, depth + 1, &key)))
            return st;
        if (!key)
            break;
        if (key->y.kind != PL_YAML_SCALAR)
            return fail_node(r, &key->y, "a key must be a scalar");
        if ((st = read_member(r, n, YAML_NO_EVENT, depth + 1, &value)))
            return st;
        if (!key->y.quoted && strcmp(key->y.text, "<<") == 0)
            st = list_add(r, &merges, &value->y);
        else if (!(st = list_add(r, &keys, &key->y)))
            st = list_add(r, &values, &value->y);
        if (st)
            return st;
    }
    if ((st = merge_all(r, &merges, &keys, &values)))
        return st;
    n->y.n = keys.n;
    n->y.keys = keys.p;
    n->y.items = values.p;
    if (a)
        a->node = n;
    *out = n;
    return PL_OK;
}

static enum pl_status read_node(struct reader *r, const yaml_event_t *e, int depth,
                                struct node **out)
{
    if (depth > DEPTH_MAX)
        return fail_at(r, &e->start_mark, "nested too deeply (the limit is 64 levels)");
    switch (e->type) {
    case YAML_ALIAS_EVENT:
        return resolve(r, e, depth, out);
    case YAML_SCALAR_EVENT:
        return read_scalar(r, e, out);
    case YAML_SEQUENCE_START_EVENT:
        return read_seq(r, e, depth, out);
    case YAML_MAPPING_START_EVENT:
        return read_map(r, e, depth, out);
    default:
        return fail_at(r, &e->start_mark, "a value is expected");
    }
}

/* The stream: its start, one document, its end. */
static enum pl_status read_stream(struct reader *r, struct node **root)
{
    yaml_event_t e;
    enum pl_status st = PL_OK;
    bool end = false;

    *root = NULL;
    while (!st && !end) {
        if ((st = next(r, &e)))
            break;
        switch (e.type) {
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_END_EVENT:
            break;
        case YAML_DOCUMENT_START_EVENT:
            if (*root)
                st = fail_at(r, &e.start_mark, "more than one document");
            break;
        case YAML_STREAM_END_EVENT:
            end = true;
            if (!*root)
                st = fail_at(r, &e.start_mark, "the document is empty");
            break;
        default:
            st = read_node(r, &e, 1, root);
        }
        yaml_event_delete(&e);
    }
    return st;
}

enum pl_status pl_yaml_parse(const char *name, const char *text, size_t len, struct pl_arena *arena,
                             struct pl_yaml **out, struct pl_err *err)
{
    struct node *root;
    struct reader *r = pl_arena_alloc(arena, sizeof(*r)); /* the anchors are too much for a stack */
    enum pl_status st;

    if (!r)
        return pl_fail(err, PL_ENOMEM, "%s: no memory", name);
    r->name = name;
    r->arena = arena;
    r->err = err;
    if (!yaml_parser_initialize(&r->parser))
        return no_memory(r);
    yaml_parser_set_input_string(&r->parser, (const unsigned char *)(text ? text : ""), len);
    st = read_stream(r, &root);
    yaml_parser_delete(&r->parser);
    if (!st)
        *out = &root->y;
    return st;
}

const struct pl_yaml *pl_yaml_get(const struct pl_yaml *map, const char *key)
{
    if (!map || map->kind != PL_YAML_MAP)
        return NULL;
    for (size_t i = 0; i < map->n; i++) {
        if (strcmp(map->keys[i]->text, key) == 0)
            return map->items[i];
    }
    return NULL;
}
