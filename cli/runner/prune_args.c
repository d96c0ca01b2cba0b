#include "cli/runner/prune_args.h"

#include "base/hash.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum pl_status read_visual(const char *text, size_t n, uint8_t **out, struct pl_err *err)
{
    size_t first = 0, count = 0;
    int end = 0;
    uint8_t *v;

    if (sscanf(text, "%zu:%zu%n", &first, &count, &end) != 2 || text[end] || first >= n ||
        count > n - first)
        return pl_fail(err, PL_EUSAGE, "--visual %s: FIRST:N within the %zu tokens is expected",
                       text, n);
    v = calloc(n, 1);
    if (!v)
        return pl_fail(err, PL_ENOMEM, "no memory for %zu tokens", n);
    memset(v + first, 1, count);
    *out = v;
    return PL_OK;
}

static enum pl_status make(const struct pl_prune_args *a, struct pl_model *m, size_t n,
                           struct pl_prune_setup *out, struct pl_err *err)
{
    json_t *prune = NULL;
    enum pl_status st = pl_json_parse("--prune", a->prune, strlen(a->prune), &prune, err);

    if (!st)
        st = pl_pruner_create(prune, m, n, 1, &out->pruner, err);
    if (!st)
        pl_pruner_set_trace(out->pruner, a->trace != NULL);
    json_decref(prune);
    return st;
}

enum pl_status pl_prune_args_merge(const struct pl_prune_args *a, struct pl_model *m,
                                   struct pl_prune_setup *out, const struct pl_vision_merge **merge,
                                   struct pl_err *err)
{
    enum pl_status st;

    *merge = NULL;
    if (!a->prune || !pl_model_vision(m))
        return PL_OK;
    st = make(a, m, (size_t)pl_model_info(m)->arch.max_positions, out, err);
    if (st)
        return st;
    *merge = pl_pruner_merge(out->pruner);
    if (!*merge) /* made once more, for the prompt's length */
        pl_prune_args_release(out);
    return PL_OK;
}

enum pl_status pl_prune_args_open(const struct pl_prune_args *a, struct pl_model *m, size_t n,
                                  const uint8_t *visual, struct pl_prune_setup *out,
                                  struct pl_err *err)
{
    enum pl_status st = PL_OK;

    if (!a->prune)
        return a->visual ? pl_fail(err, PL_EUSAGE, "--visual goes with --prune") : PL_OK;
    if (a->visual)
        st = read_visual(a->visual, n, &out->visual, err);
    else if (visual) {
        out->visual = malloc(n ? n : 1);
        if (!out->visual)
            return pl_fail(err, PL_ENOMEM, "no memory for %zu tokens", n);
        memcpy(out->visual, visual, n);
    }
    if (!st && !out->pruner)
        st = make(a, m, n, out, err);
    if (st)
        pl_prune_args_release(out);
    return st;
}

void pl_prune_args_release(struct pl_prune_setup *s)
{
    pl_pruner_free(s->pruner);
    free(s->visual);
    *s = (struct pl_prune_setup){NULL, NULL};
}

void pl_prune_args_session(const struct pl_prune_setup *s, struct pl_session_opts *o)
{
    if (s->pruner)
        pl_pruner_session_opts(s->pruner, o);
}

enum pl_status pl_prune_args_begin(const struct pl_prune_setup *s, const int32_t *ids, size_t n,
                                   struct pl_err *err)
{
    const struct pl_prune_prompt p = {
        .n = n, .key = ids ? pl_hash64(0, ids, n * sizeof(*ids)) : 0, .visual = s->visual};

    return s->pruner ? pl_pruner_begin(s->pruner, &p, err) : PL_OK;
}

enum pl_status pl_prune_args_finish(const struct pl_prune_args *a, const struct pl_prune_setup *s,
                                    struct pl_session *session, json_t **trace, struct pl_err *err)
{
    enum pl_status st = s->pruner ? pl_pruner_finish(s->pruner, session, err) : PL_OK;
    json_t *o, *lengths;

    *trace = NULL;
    if (st || !a->trace)
        return st;
    o = s->pruner ? pl_pruner_trace(s->pruner) : json_pack("{s:[]}", "stages");
    lengths = json_array();
    for (int32_t l = 0; l < pl_model_info(pl_session_model(session))->arch.layers; l++)
        json_array_append_new(lengths, json_integer((json_int_t)pl_session_kv_len(session, l)));
    if (!o || json_object_set_new(o, "kv_len", lengths) != 0) {
        json_decref(o);
        return pl_fail(err, PL_ENOMEM, "no memory for a trace");
    }
    *trace = o;
    return PL_OK;
}

enum pl_status pl_prune_args_write(const struct pl_prune_args *a, const json_t *trace,
                                   struct pl_err *err)
{
    struct pl_buf text;
    enum pl_status st;
    FILE *f;

    if (!trace)
        return PL_OK;
    pl_buf_init(&text, SIZE_MAX);
    st = pl_json_dump(trace, &text, err);
    f = st ? NULL : fopen(a->trace, "w");
    if (!st && !f)
        st = pl_fail_errno(err, errno, "%s", a->trace);
    if (f) {
        bool ok = fwrite(text.data, 1, text.len, f) == text.len && fputc('\n', f) != EOF;
        ok = fclose(f) == 0 && ok;
        if (!ok)
            st = pl_fail_errno(err, errno, "%s", a->trace);
    }
    pl_buf_release(&text);
    return st;
}
