#include "cli/runner/inspect_gguf.h"

#include <math.h>
#include <stdlib.h>

#define MAX_LIST 16

static json_t *text_json(struct pl_gguf_str s)
{
    json_t *j = json_stringn(s.s, s.len);
    char out[256];

    return j ? j : json_string(pl_gguf_printable(s, out, sizeof(out)));
}

static json_t *number_json(const struct pl_gguf_pair *p, uint64_t i)
{
    enum pl_gguf_type t = p->type == PL_GGUF_ARRAY ? p->of : p->type;
    int64_t integer = 0;
    double real = pl_gguf_number(p, i, &integer);

    if (t == PL_GGUF_BOOL)
        return json_boolean(integer);
    if (t != PL_GGUF_F32 && t != PL_GGUF_F64)
        return json_integer((json_int_t)integer);
    return isfinite(real) ? json_real(real) : json_string(real != real ? "nan" : "inf");
}

static json_t *array_json(const struct pl_gguf *g, const struct pl_gguf_pair *p)
{
    struct pl_arena arena;
    struct pl_gguf_str *list = NULL;
    json_t *j;
    size_t n = 0;

    if (p->count > MAX_LIST || p->of == PL_GGUF_ARRAY)
        return json_pack("{s:s,s:I}", "of", pl_gguf_type_name(p->of), "count",
                         (json_int_t)p->count);
    pl_arena_init(&arena);
    j = json_array();
    if (p->of == PL_GGUF_STRING && pl_gguf_strings(g, p->key, &arena, &list, &n, NULL) == PL_OK)
        for (size_t i = 0; i < n; i++)
            json_array_append_new(j, text_json(list[i]));
    else if (p->of != PL_GGUF_STRING)
        for (uint64_t i = 0; i < p->count; i++)
            json_array_append_new(j, number_json(p, i));
    pl_arena_release(&arena);
    return j;
}

json_t *pl_gguf_metadata_json(const struct pl_gguf *g)
{
    json_t *j = json_object();

    for (size_t i = 0; j && i < pl_gguf_pairs(g); i++) {
        const struct pl_gguf_pair *p = pl_gguf_pair(g, i);
        json_t *v = p->type == PL_GGUF_ARRAY ? array_json(g, p)
                    : p->type == PL_GGUF_STRING
                        ? text_json((struct pl_gguf_str){(const char *)p->data, (size_t)p->count})
                        : number_json(p, 0);
        json_object_set_new(j, p->key, v);
    }
    return j;
}
