#include "model/pickle_impl.h"

const char *const pl_pickle_kinds[] = {
    "a mark", "None",     "an int",  "a float",  "a string",         "bytes", "a tuple", "a list",
    "a dict", "a global", "a dtype", "an array", "a number of NumPy"};

enum pl_status pl_pickle_dict(const char *name, const struct pl_pickle *v,
                              const struct pl_pickle **out, struct pl_err *err)
{
    if (v->kind == ARRAY && v->type.kind == 'O' && v->dims >= 0 && v->len == 1)
        v = v->item[0];
    if (v->kind != DICT)
        return pl_fail(err, PL_EFORMAT, "%s: it holds %s, a dict of arrays is expected", name,
                       pl_pickle_kinds[v->kind]);
    *out = v;
    return PL_OK;
}

enum pl_status pl_pickle_column(const char *name, const struct pl_pickle *dict, const char *key,
                                struct pl_column *out, struct pl_err *err)
{
    const struct pl_pickle *v = NULL;

    for (size_t i = 0; i + 1 < dict->len; i += 2) {
        const struct pl_pickle *k = dict->item[i];
        if ((k->kind == STR || k->kind == BYTES) && pl_pickle_is(k, key))
            v = dict->item[i + 1];
    }
    if (!v)
        return pl_fail(err, PL_ENOENT, "%s: it has no array \"%s\"", name, key);
    if (v->kind != ARRAY || v->dims < 0)
        return pl_fail(err, PL_EFORMAT, "%s: %s is %s, an array is expected", name, key,
                       pl_pickle_kinds[v->kind]);
    if (v->dims != 1)
        return pl_fail(err, PL_EFORMAT, "%s: %s has %d dimensions, 1 is expected", name, key,
                       v->dims);
    if (v->type.kind == 'O')
        return pl_fail(err, PL_EFORMAT, "%s: %s is an array of objects, of numbers is expected",
                       name, key);
    *out = (struct pl_column){
        .data = v->bytes, .n = v->count, .stride = v->type.item, .type = v->type};
    return PL_OK;
}
