#include "cli/runner/model_args.h"

#include "cli/runner/npy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum pl_status pl_model_args_entry(const struct pl_model_args *a, const char *path, json_t **json,
                                   struct pl_entry *entry, struct pl_err *err)
{
    json_t *j = json_pack("{s:s,s:s*,s:s*,s:s*,s:s*}", "path", path, "device", a->device, "dtype",
                          a->dtype, "weights", a->weights, "kv", a->kv);
    enum pl_status st;

    if (!j)
        return pl_fail(err, PL_EUSAGE, "an option is not UTF-8");
    json_object_set_new(j, "threads", json_integer(a->threads));
    st = pl_entry_read(j, entry, err);
    if (st)
        json_decref(j);
    else
        *json = j;
    return st;
}

enum pl_status pl_model_args_load(const struct pl_model_args *a, const char *path, json_t **json,
                                  struct pl_entry *entry, struct pl_model **model,
                                  struct pl_err *err)
{
    struct pl_model_opts o;
    enum pl_status st = pl_model_args_entry(a, path, json, entry, err);

    if (st)
        return st;
    pl_entry_model_opts(entry, 0, NULL, 0, &o);
    st = pl_model_load(path, &o, model, err);
    if (st) {
        json_decref(*json);
        *json = NULL;
    }
    return st;
}

static enum pl_status typed_ids(const char *text, struct pl_ids *ids, struct pl_err *err)
{
    const char *p = text;
    enum pl_status st = PL_OK;

    for (p += strspn(p, " ,\t\n"); !st && *p; p += strspn(p, " ,\t\n")) {
        char *end;
        errno = 0;
        long v = strtol(p, &end, 10);
        if (end == p || errno || v < INT32_MIN || v > INT32_MAX || !strchr(" ,\t\n", *end))
            return pl_fail(err, PL_EUSAGE, "--ids: \"%.20s\" is not an id", p);
        st = pl_ids_add(ids, (int32_t)v, err);
        p = end;
    }
    return st;
}

static enum pl_status filed_ids(const char *path, struct pl_ids *ids, struct pl_err *err)
{
    int32_t *v = NULL;
    size_t n = 0;
    enum pl_status st = pl_npy_read_ids(path, &v, &n, err);

    for (size_t i = 0; !st && i < n; i++)
        st = pl_ids_add(ids, v[i], err);
    free(v);
    return st;
}

enum pl_status pl_model_args_input(const struct pl_model_args *a, const struct pl_tokenizer *t,
                                   const struct pl_err *why, int32_t vocab, struct pl_ids *ids,
                                   struct pl_err *err)
{
    enum pl_status st;

    if (!!a->ids + !!a->ids_file + !!a->prompt != 1)
        return pl_fail(err, PL_EUSAGE, "one of --ids, --ids-file and --prompt is needed");
    if (a->ids)
        st = typed_ids(a->ids, ids, err);
    else if (a->ids_file)
        st = filed_ids(a->ids_file, ids, err);
    else if (!t)
        st = pl_fail(err, PL_ENOENT, "%s", why->text);
    else if (!*a->prompt)
        st = pl_fail(err, PL_EUSAGE, "--prompt: the text is empty");
    else
        st = pl_tokenizer_encode(t, a->prompt, strlen(a->prompt), true, ids, err);
    if (st)
        return st;
    if (ids->n == 0)
        return pl_fail(err, PL_EUSAGE, "the input holds no id");
    for (size_t i = 0; i < ids->n; i++)
        if (ids->ids[i] < 0 || ids->ids[i] >= vocab)
            return pl_fail(err, PL_ERANGE, "id %d at place %zu is outside the vocabulary of %d",
                           ids->ids[i], i, vocab);
    return PL_OK;
}
