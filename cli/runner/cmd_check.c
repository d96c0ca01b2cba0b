#include "cli/runner/cmds.h"
#include "cli/runner/model_args.h"
#include "model/session.h"

#include <stdio.h>
#include <string.h>

#define MAX_MODELS 256

static json_t *capabilities(const struct pl_arch *a)
{
    json_t *list = json_array();

    if (!a->causal || a->encoder_layers)
        json_array_append_new(list, json_string("encode"));
    for (size_t i = 0; a->causal && i < 4; i++) {
        static const char *const decoder[] = {"prefill", "decode", "verify", "rollback"};
        json_array_append_new(list, json_string(decoder[i]));
    }
    json_array_append_new(list, json_string("hidden_states"));
    if (a->causal && a->pos != PL_POS_RELATIVE)
        json_array_append_new(list, json_string("stage_hooks"));
    return list;
}

static enum pl_status describe(const struct pl_model_args *a, const char *path, int64_t context,
                               json_t *j, struct pl_err *err)
{
    json_t *json = NULL;
    struct pl_entry e;
    struct pl_model_opts o;
    struct pl_model_info info;
    struct pl_session_memory mem;
    struct pl_tokenizer *t = NULL;
    struct pl_err why = {""};
    enum pl_status st = pl_model_args_entry(a, path, &json, &e, err);

    if (st)
        return st;
    pl_entry_model_opts(&e, 1, NULL, 0, &o);
    st = pl_model_describe(path, &o, &info, err);
    if (!st && context > info.arch.max_positions)
        st = pl_fail(err, PL_ERANGE, "context %lld is beyond the model's %lld positions",
                     (long long)context, (long long)info.arch.max_positions);
    if (st)
        goto out;
    struct pl_session_opts so = {.max_verify = 1, .kv_dtype = pl_entry_kv(&e, info.dtype)};
    if (context == 0)
        context = info.arch.usual_positions;
    so.max_tokens = (size_t)context;
    so.max_source = info.arch.encoder_layers ? (size_t)context : 0;
    pl_session_bytes(&info, &so, &mem);
    json_object_update_new(
        j, json_pack("{s:s,s:I,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:b}", "arch", info.arch.name,
                     "params", (json_int_t)info.params, "stored",
                     pl_dtype_traits(info.stored)->name, "dtype", pl_dtype_traits(info.dtype)->name,
                     "kv", pl_dtype_traits(so.kv_dtype)->name, "max_positions",
                     (json_int_t)info.arch.max_positions, "context", (json_int_t)context,
                     "weights_bytes", (json_int_t)info.weights_bytes, "kv_bytes_per_token",
                     (json_int_t)pl_arch_kv_bytes_per_token(&info.arch, so.kv_dtype), "kv_bytes",
                     (json_int_t)mem.kv_bytes, "workspace_bytes", (json_int_t)mem.workspace_bytes,
                     "synthetic", info.random));
    json_object_set_new(j, "capabilities", capabilities(&info.arch));
    if (pl_entry_tokenizer(path, &info.arch, &t, &why) == PL_OK)
        json_object_set_new(j, "tokenizer", json_string(pl_tokenizer_info(t)->kind));
    else
        json_array_append_new(json_object_get(j, "warnings"), json_string(why.text));
    pl_tokenizer_free(t);
out:
    json_decref(json);
    return st;
}

static void print_text(const json_t *j)
{
    const json_t *errors = json_object_get(j, "errors"), *warnings = json_object_get(j, "warnings");
    const char *path = json_string_value(json_object_get(j, "path"));

    if (json_array_size(errors) == 0)
        printf(
            "%s: %s, %s, weights %lld bytes, KV %lld bytes a token (%s), workspace %lld bytes at "
            "%lld tokens\n",
            path, pl_json_get_str(j, "arch", ""), pl_json_get_str(j, "dtype", ""),
            (long long)pl_json_get_i64(j, "weights_bytes", 0),
            (long long)pl_json_get_i64(j, "kv_bytes_per_token", 0), pl_json_get_str(j, "kv", ""),
            (long long)pl_json_get_i64(j, "workspace_bytes", 0),
            (long long)pl_json_get_i64(j, "context", 0));
    for (size_t i = 0; i < json_array_size(errors); i++)
        fprintf(stderr, "paceline-runner check: %s: %s\n", path,
                json_string_value(json_array_get(errors, i)));
    for (size_t i = 0; i < json_array_size(warnings); i++)
        fprintf(stderr, "paceline-runner check: %s: warning: %s\n", path,
                json_string_value(json_array_get(warnings, i)));
}

int pl_rcmd_check(int argc, char **argv)
{
    struct pl_model_args a = {0};
    bool as_json = false;
    int64_t context = 0;
    const char *args[MAX_MODELS];
    const struct pl_ropt opts[] = {{"json", 0, PL_ROPT_FLAG, &as_json, NULL, "one object", 0, 0},
                                   {"context", 0, PL_ROPT_INT, &context, "N",
                                    "tokens in the cache (the model's most)", 1, 1 << 30},
                                   PL_MODEL_OPTS(&a)};
    const struct pl_rcommand c = {
        .usage = "check MODEL… [--context N] [--json]",
        .about = "Says what models need in memory and what they can do, from their descriptions "
                 "alone;\nexit code 2 when one cannot be run.",
        .opts = opts,
        .n_opts = sizeof(opts) / sizeof(opts[0]),
        .min_args = 1,
        .max_args = MAX_MODELS};
    size_t n = 0;
    json_t *list = NULL;
    int code = pl_ropts_parse(&c, argc, argv, args, &n), worst = 0;

    if (code >= 0)
        return code;
    list = json_array();
    for (size_t i = 0; i < n; i++) {
        struct pl_err err = {""};
        json_t *j = json_pack("{s:s,s:[],s:[]}", "path", args[i], "errors", "warnings");
        enum pl_status st = describe(&a, args[i], context, j, &err);
        if (st) {
            json_array_append_new(json_object_get(j, "errors"), json_string(err.text));
            worst = pl_status_exit(st) > worst ? pl_status_exit(st) : worst;
        }
        json_object_set_new(j, "ok", json_boolean(!st));
        if (!as_json)
            print_text(j);
        json_array_append_new(list, j);
    }
    if (as_json) {
        json_t *all = json_pack("{s:O}", "models", list);
        json_dumpf(all, stdout, JSON_COMPACT | JSON_REAL_PRECISION(17));
        putchar('\n');
        json_decref(all);
    }
    json_decref(list);
    return pl_rcmd_done("check", worst);
}
