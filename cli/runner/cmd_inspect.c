#include "cli/runner/build_info.h"
#include "cli/runner/cmds.h"
#include "cli/runner/inspect_gguf.h"
#include "cli/runner/inspect_media.h"
#include "cli/runner/opts.h"
#include "model/arch.h"
#include "model/checkpoint.h"
#include "model/model.h"
#include "model/tokenizer.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static void print_json(json_t *j)
{
    json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(17));
    putchar('\n');
}

static int build(bool as_json)
{
    json_t *j = pl_build_info(), *v;
    const char *key;
    size_t i;

    if (as_json) {
        print_json(j);
    } else {
        json_object_foreach (j, key, v) {
            printf("%-10s ", key);
            if (json_is_boolean(v))
                printf("%s", json_is_true(v) ? "yes" : "no");
            else if (json_is_string(v))
                printf("%s", json_string_value(v));
            for (i = 0; i < json_array_size(v); i++)
                printf("%s%s", i ? ", " : "", json_string_value(json_array_get(v, i)));
            putchar('\n');
        }
    }
    json_decref(j);
    return pl_rcmd_done("inspect", 0);
}

static json_t *config_json(const struct pl_arch *a)
{
    json_t *j = json_pack(
        "{s:s,s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:I,s:s,s:f,s:s,s:b,s:s,s:b,s:s,s:I}", "arch",
        a->name, "family", a->family, "layers", a->layers, "hidden", a->hidden, "heads", a->heads,
        "kv_heads", a->kv_heads, "head_dim", a->head_dim, "ffn", a->ffn, "vocab", a->vocab,
        "max_positions", (json_int_t)a->max_positions, "norm", pl_norm_name(a->norm), "norm_eps",
        (double)a->norm_eps, "activation", pl_act_name(a->act), "gated", a->gated, "positions",
        pl_pos_name(a->pos), "tied", a->tied, "stored", pl_dtype_traits(a->stored)->name, "params",
        (json_int_t)pl_arch_params(a));

    if (!j)
        return NULL;
    if (a->pos == PL_POS_ROPE) {
        json_object_set_new(j, "rope", json_string(pl_rope_name(a->rope.kind)));
        json_object_set_new(j, "rope_theta", json_real(a->rope.theta));
    }
    json_object_set_new(j, "kind",
                        json_string(a->encoder_layers ? "encoder-decoder"
                                    : a->causal       ? "decoder"
                                                      : "encoder"));
    if (a->encoder_layers)
        json_object_set_new(j, "encoder_layers", json_integer(a->encoder_layers));
    if (a->window)
        json_object_set_new(j, "sliding_window", json_integer(a->window));
    if (a->patch) {
        json_object_set_new(j, "image_size", json_integer(a->image));
        json_object_set_new(j, "patch_size", json_integer(a->patch));
    }
    return j;
}

static json_t *tensor_json(const struct pl_tensor_view *t, int64_t *nan, int64_t *inf)
{
    json_t *shape = json_array();
    int64_t n = 0, i = 0;

    for (int32_t d = 0; d < t->dims; d++)
        json_array_append_new(shape, json_integer(t->shape[d]));
    pl_tensor_nonfinite(t, &n, &i);
    *nan += n;
    *inf += i;
    return json_pack("{s:s,s:s,s:o,s:I,s:I,s:I}", "name", t->name, "dtype",
                     pl_dtype_traits(t->dtype)->name, "shape", shape, "bytes", (json_int_t)t->bytes,
                     "nan", (json_int_t)n, "inf", (json_int_t)i);
}

static json_t *tokenizer_json(const char *path)
{
    struct pl_tokenizer *t = NULL;
    struct pl_err err;
    json_t *j;

    if (pl_tokenizer_load(path, &t, &err) != PL_OK)
        return json_null();
    const struct pl_tokenizer_info *i = pl_tokenizer_info(t);
    j = json_pack("{s:s,s:i,s:i,s:i,s:b}", "kind", i->kind, "vocab", i->vocab, "bos", i->bos, "eos",
                  i->eos, "add_bos", i->add_bos);
    pl_tokenizer_free(t);
    return j;
}

/* Tensors and bytes of each type: {"q4_k": {"tensors": 3, "bytes": 432}}. */
static json_t *types_json(const struct pl_checkpoint *c)
{
    json_t *types = json_object();

    for (size_t i = 0; i < pl_checkpoint_count(c); i++) {
        const struct pl_tensor_view *t = pl_checkpoint_tensor(c, i);
        const char *name = pl_dtype_traits(t->dtype)->name;
        json_t *o = json_object_get(types, name);
        json_int_t n = json_integer_value(json_object_get(o, "tensors"));
        json_int_t bytes = json_integer_value(json_object_get(o, "bytes"));
        json_object_set_new(
            types, name,
            json_pack("{s:I,s:I}", "tensors", n + 1, "bytes", bytes + (json_int_t)t->bytes));
    }
    return types;
}

static json_t *vision_json(const struct pl_vision_config *v)
{
    return json_pack("{s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:I,s:i}", "kind", pl_vision_kind_name(v->kind),
                     "tower_layers", v->tower_layers, "feature_layer", v->feature_layer,
                     "tower_hidden", v->tower.hidden, "image_size", v->tower.image, "patch_size",
                     v->tower.patch, "frames", v->frames, "rows",
                     (json_int_t)pl_vision_rows(v, (size_t)v->frames, false), "vision_token",
                     v->vision_token);
}

/* Warnings of a description, as a list. */
static void note(void *list, const char *text)
{
    json_array_append_new(list, json_string(text));
}

/* What the path would be as a model: config, runs or config_error, tokenizer. */
static void look_at_model(const char *path, json_t *j)
{
    struct pl_arch a;
    struct pl_model_info info;
    struct pl_err why = {""};
    json_t *warnings = json_array();
    enum pl_status st = pl_arch_read(path, &a, &why);

    json_object_set_new(j, "config", st ? json_null() : config_json(&a));
    if (!st)
        st = pl_model_describe(path, &(struct pl_model_opts){.warn = note, .warn_user = warnings},
                               &info, &why);
    if (st)
        json_object_set_new(j, "config_error", json_string(why.text));
    else
        json_object_set_new(j, "runs",
                            json_pack("{s:s,s:s,s:I,s:I,s:i}", "device", "cpu", "dtype",
                                      pl_dtype_traits(info.dtype)->name, "weights_bytes",
                                      (json_int_t)info.weights_bytes, "kv_bytes_per_token_f16",
                                      (json_int_t)pl_arch_kv_bytes_per_token(&a, PL_DT_F16),
                                      "unused_tensors", info.extra_tensors));
    if (!st && info.vision.kind != PL_VISION_NONE)
        json_object_set_new(j, "vision", vision_json(&info.vision));
    json_object_set_new(j, "tokenizer", tokenizer_json(path));
    json_object_set_new(j, "warnings", warnings);
}

/* Everything that a path holds: {path, format, metadata, config, runs, config_error, tokenizer,
 * types, tensors, tensor_bytes, nan, inf}. A model that cannot be run is still listed. */
static enum pl_status look(const char *path, json_t **out, struct pl_err *err)
{
    struct pl_checkpoint *c = NULL;
    const struct pl_gguf *g;
    struct stat sb;
    json_t *list = NULL;
    int64_t bytes = 0, nan = 0, inf = 0;
    enum pl_status st = pl_checkpoint_open(path, &c, err);

    if (st)
        return st;
    list = json_array();
    for (size_t i = 0; i < pl_checkpoint_count(c); i++) {
        const struct pl_tensor_view *t = pl_checkpoint_tensor(c, i);
        json_array_append_new(list, tensor_json(t, &nan, &inf));
        bytes += (int64_t)t->bytes;
    }
    json_t *j = json_pack("{s:s,s:I,s:I,s:I,s:I}", "path", path, "file_bytes",
                          (json_int_t)pl_checkpoint_file_bytes(c), "tensor_bytes",
                          (json_int_t)bytes, "nan", (json_int_t)nan, "inf", (json_int_t)inf);
    g = pl_checkpoint_gguf(c);
    json_object_set_new(j, "format", json_string(g ? "gguf" : "safetensors"));
    if (g)
        json_object_set_new(j, "metadata", pl_gguf_metadata_json(g));
    if (g || (stat(path, &sb) == 0 && S_ISDIR(sb.st_mode)))
        look_at_model(path, j);
    json_object_set_new(j, "types", types_json(c));
    json_object_set_new(j, "tensors", list);
    pl_checkpoint_free(c);
    if (!j)
        return pl_fail(err, PL_ENOMEM, "%s: no memory", path);
    *out = j;
    return PL_OK;
}

/* One line, whatever a file's text holds. */
static void print_string(const char *key, const json_t *v)
{
    struct pl_gguf_str s = {json_string_value(v), json_string_length(v)};
    char text[101];

    printf("  %-14s %s%s\n", key, pl_gguf_printable(s, text, sizeof(text)),
           s.len >= sizeof(text) ? "…" : "");
}

static void print_value(const char *key, const json_t *v)
{
    char text[64];

    if (json_is_string(v))
        print_string(key, v);
    else if (json_is_object(v) && json_object_get(v, "of"))
        printf("  %-14s %lld × %s\n", key,
               (long long)json_integer_value(json_object_get(v, "count")),
               json_string_value(json_object_get(v, "of")));
    else if (json_is_object(v))
        printf("  %-14s %lld tensors, %lld bytes\n", key,
               (long long)json_integer_value(json_object_get(v, "tensors")),
               (long long)json_integer_value(json_object_get(v, "bytes")));
    else if (json_is_array(v))
        for (size_t i = 0; i < json_array_size(v); i++) {
            snprintf(text, sizeof(text), "%.24s[%zu]", key, i);
            print_value(text, json_array_get(v, i));
        }
    else if (json_is_integer(v))
        printf("  %-14s %lld\n", key, (long long)json_integer_value(v));
    else if (json_is_real(v))
        printf("  %-14s %g\n", key, json_real_value(v));
    else if (json_is_boolean(v))
        printf("  %-14s %s\n", key, json_is_true(v) ? "yes" : "no");
}

static void print_text(const json_t *j)
{
    static const char *const groups[] = {"metadata", "config",    "vision",
                                         "runs",     "tokenizer", "types"};
    const json_t *list = json_object_get(j, "tensors");
    const char *key;
    json_t *v;

    printf("%s: %zu tensors, %lld bytes\n", json_string_value(json_object_get(j, "path")),
           json_array_size(list),
           (long long)json_integer_value(json_object_get(j, "tensor_bytes")));
    for (size_t g = 0; g < sizeof(groups) / sizeof(groups[0]); g++) {
        json_t *o = json_object_get(j, groups[g]);
        if (json_is_object(o))
            printf("%s\n", groups[g]);
        json_object_foreach (o, key, v)
            print_value(key, v);
    }
    if (json_object_get(j, "config_error"))
        printf("cannot be run: %s\n", json_string_value(json_object_get(j, "config_error")));
    for (size_t i = 0; i < json_array_size(json_object_get(j, "warnings")); i++)
        printf("warning: %s\n",
               json_string_value(json_array_get(json_object_get(j, "warnings"), i)));
    printf("tensors\n");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *t = json_array_get(list, i), *shape = json_object_get(t, "shape");
        printf("  %-6s %12lld  %s [", json_string_value(json_object_get(t, "dtype")),
               (long long)json_integer_value(json_object_get(t, "bytes")),
               json_string_value(json_object_get(t, "name")));
        for (size_t d = 0; d < json_array_size(shape); d++)
            printf("%s%lld", d ? ", " : "",
                   (long long)json_integer_value(json_array_get(shape, d)));
        printf("]");
        if (json_integer_value(json_object_get(t, "nan")) ||
            json_integer_value(json_object_get(t, "inf")))
            printf("  %lld NaN, %lld Inf", (long long)json_integer_value(json_object_get(t, "nan")),
                   (long long)json_integer_value(json_object_get(t, "inf")));
        putchar('\n');
    }
}

static int inspect_media(const char *path, const char *png, bool as_json)
{
    struct pl_err err = {""};
    json_t *j = NULL;
    enum pl_status st = pl_media_inspect(path, png, &j, &err);

    if (st)
        return pl_rcmd_fail("inspect", st, &err);
    if (as_json)
        print_json(j);
    else
        pl_media_print(j);
    json_decref(j);
    return pl_rcmd_done("inspect", 0);
}

int pl_rcmd_inspect(int argc, char **argv)
{
    bool as_json = false, of_build = false;
    const char *args[1], *png = NULL;
    const struct pl_ropt opts[] = {
        {"json", 0, PL_ROPT_FLAG, &as_json, NULL, "one object", 0, 0},
        {"output", 'o', PL_ROPT_STR, &png, "OUT.png", "a picture of the events, the clip", 0, 0},
        {"build", 0, PL_ROPT_FLAG, &of_build, NULL, "what this build has, instead of a path", 0,
         0}};
    const struct pl_rcommand c = {
        .usage = "inspect PATH [--json] [-o OUT.png] | inspect --build [--json]",
        .about = "Lists what a model directory, a .safetensors or a GGUF "
                 "file holds and whether it runs,\n"
                 "and counts NaN and Inf; what an event file or clip "
                 "holds (-o draws it).",
        .opts = opts,
        .n_opts = sizeof(opts) / sizeof(opts[0]),
        .min_args = 0,
        .max_args = 1};
    struct pl_err err = {""};
    json_t *j = NULL;
    size_t n = 0;
    int code = pl_ropts_parse(&c, argc, argv, args, &n);

    if (code >= 0)
        return code;
    if (of_build ? n != 0 : n != 1)
        return pl_rcmd_fail("inspect", pl_fail(&err, PL_EUSAGE, "PATH or --build is needed"), &err);
    if (of_build)
        return build(as_json);
    if (pl_media_is(args[0]))
        return inspect_media(args[0], png, as_json);
    if (png)
        return pl_rcmd_fail(
            "inspect",
            pl_fail(&err, PL_EUSAGE, "-o: %s is no event file, clip or picture", args[0]), &err);
    enum pl_status st = look(args[0], &j, &err);
    if (st)
        return pl_rcmd_fail("inspect", st, &err);
    if (as_json)
        print_json(j);
    else
        print_text(j);
    json_decref(j);
    return pl_rcmd_done("inspect", 0);
}
