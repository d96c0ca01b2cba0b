#include "model/config_get.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define CONFIG_MAX (8u << 20)

enum pl_status pl_config_read(const char *path, const char *file, json_t **out, struct pl_err *err)
{
    char full[4096];
    struct stat sb;
    bool dir = !stat(path, &sb) && S_ISDIR(sb.st_mode);
    int n = snprintf(full, sizeof(full), "%s%s%s", path, dir ? "/" : "", dir ? file : "");

    if (n < 0 || (size_t)n >= sizeof(full))
        return pl_fail(err, PL_ERANGE, "the path %.100s… is too long", path);
    return pl_json_read_file(full, CONFIG_MAX, out, err);
}

const json_t *pl_config_member(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    return json_is_null(v) ? NULL : v;
}

enum pl_status pl_config_int(const json_t *o, const char *key, int64_t dflt, int64_t min,
                             int64_t max, int64_t *out, struct pl_err *err)
{
    const json_t *v = pl_config_member(o, key);

    if (!v && dflt >= min) {
        *out = dflt;
        return PL_OK;
    }
    if (!v)
        return pl_fail(err, PL_EFORMAT, "config.json has no %s", key);
    if (!json_is_integer(v))
        return pl_fail(err, PL_EFORMAT, "config.json: %s is not an integer", key);
    if (json_integer_value(v) < min || json_integer_value(v) > max)
        return pl_fail(err, PL_EFORMAT,
                       "config.json: %s is %" JSON_INTEGER_FORMAT ", expected %" PRId64
                       " to %" PRId64,
                       key, json_integer_value(v), min, max);
    *out = json_integer_value(v);
    return PL_OK;
}

enum pl_status pl_config_dim(const json_t *o, const char *key, int64_t dflt, int64_t max,
                             int32_t *out, struct pl_err *err)
{
    int64_t v = 0;
    enum pl_status st = pl_config_int(o, key, dflt, 1, max, &v, err);

    if (!st)
        *out = (int32_t)v;
    return st;
}

enum pl_status pl_config_real(const json_t *o, const char *key, double dflt, double *out,
                              struct pl_err *err)
{
    const json_t *v = pl_config_member(o, key);

    if (v && !json_is_number(v))
        return pl_fail(err, PL_EFORMAT, "config.json: %s is not a number", key);
    *out = v ? json_number_value(v) : dflt;
    if (!(*out > 0) || !(*out < 1e30))
        return pl_fail(err, PL_EFORMAT, "config.json: %s is missing or not a positive number", key);
    return PL_OK;
}

enum pl_status pl_config_flag(const json_t *o, const char *key, bool dflt, bool *out,
                              struct pl_err *err)
{
    const json_t *v = pl_config_member(o, key);

    if (v && !json_is_boolean(v))
        return pl_fail(err, PL_EFORMAT, "config.json: %s is not true or false", key);
    *out = v ? json_is_true(v) : dflt;
    return PL_OK;
}

enum pl_status pl_config_act(const json_t *c, const char *key, const char *dflt, struct pl_arch *a,
                             struct pl_err *err)
{
    static const struct {
        const char *name;
        enum pl_act_kind kind;
    } table[] = {
        {"silu", PL_ACT_SILU},
        {"swish", PL_ACT_SILU},
        {"gelu", PL_ACT_GELU},
        {"gelu_new", PL_ACT_GELU_TANH},
        {"gelu_fast", PL_ACT_GELU_TANH},
        {"gelu_pytorch_tanh", PL_ACT_GELU_TANH},
        {"quick_gelu", PL_ACT_QUICK_GELU},
        {"relu", PL_ACT_RELU},
    };
    const json_t *v = pl_config_member(c, key);
    const char *name = v ? json_string_value(v) : dflt;

    for (size_t i = 0; name && i < sizeof(table) / sizeof(table[0]); i++) {
        if (!strcmp(name, table[i].name)) {
            a->act = table[i].kind;
            return PL_OK;
        }
    }
    return pl_fail(err, PL_EUNSUPPORTED, "config.json: %s \"%.40s\" is not supported", key,
                   name ? name : "(not a string)");
}

/* What transformers' _compute_yarn_parameters reads. */
static enum pl_status parse_yarn(const json_t *s, struct pl_arch *a, struct pl_err *err)
{
    struct pl_rope *r = &a->rope;
    double mscale = 0, all = 0;
    enum pl_status st;

    r->kind = PL_ROPE_YARN;
    st = pl_config_int(s, "original_max_position_embeddings", a->max_positions, 1, MAX_POSITIONS,
                       &r->original_max_positions, err);
    if (!st)
        st = pl_config_real(s, "factor",
                            (double)a->max_positions / (double)r->original_max_positions,
                            &r->factor, err);
    if (!st)
        st = pl_config_real(s, "beta_fast", 32, &r->beta_fast, err);
    if (!st)
        st = pl_config_real(s, "beta_slow", 1, &r->beta_slow, err);
    if (!st)
        st = pl_config_flag(s, "truncate", true, &r->truncate, err);
    if (!st && pl_config_member(s, "attention_factor"))
        return pl_config_real(s, "attention_factor", 1, &r->attention_factor, err);
    if (st)
        return st;
    mscale = json_number_value(pl_config_member(s, "mscale"));
    all = json_number_value(pl_config_member(s, "mscale_all_dim"));
    double ln = r->factor > 1 ? 0.1 * log(r->factor) : 0;
    r->attention_factor = mscale != 0 && all != 0 ? (mscale * ln + 1) / (all * ln + 1) : ln + 1;
    return PL_OK;
}

enum pl_status pl_config_rope(const json_t *c, struct pl_arch *a, struct pl_err *err)
{
    const json_t *p = pl_config_member(c, "rope_parameters"),
                 *s = p ? p : pl_config_member(c, "rope_scaling");
    struct pl_rope *r = &a->rope;
    const json_t *type = NULL;
    enum pl_status st;
    double partial = 1;

    if (s && !json_is_object(s))
        return pl_fail(err, PL_EFORMAT, "config.json: %s is not an object",
                       p ? "rope_parameters" : "rope_scaling");
    st = pl_config_real(p && pl_config_member(p, "rope_theta") ? p : c, "rope_theta", 10000.0,
                        &r->theta, err);
    if (!st)
        st = pl_config_real(p && pl_config_member(p, "partial_rotary_factor") ? p : c,
                            "partial_rotary_factor", 1.0, &partial, err);
    if (st)
        return st;
    if (partial != 1)
        return pl_fail(err, PL_EUNSUPPORTED,
                       "config.json: partial_rotary_factor %g is not supported", partial);
    r->kind = PL_ROPE_DEFAULT;
    r->factor = 1;
    if (!s)
        return PL_OK;
    type = pl_config_member(s, "rope_type") ? pl_config_member(s, "rope_type")
                                            : pl_config_member(s, "type");
    if (!type && p)
        return PL_OK;
    const char *name = json_string_value(type);
    if (!name)
        return pl_fail(err, PL_EFORMAT, "config.json: rope_scaling has no rope_type");
    if (!strcmp(name, "default"))
        return PL_OK;
    if (!strcmp(name, "linear")) {
        r->kind = PL_ROPE_LINEAR;
        return pl_config_real(s, "factor", 0, &r->factor, err);
    }
    if (!strcmp(name, "yarn"))
        return parse_yarn(s, a, err);
    if (strcmp(name, "llama3"))
        return pl_fail(err, PL_EUNSUPPORTED,
                       "config.json: rope_type \"%.40s\" is not supported "
                       "(default, linear, llama3, yarn are)",
                       name);
    r->kind = PL_ROPE_LLAMA3;
    st = pl_config_real(s, "factor", 0, &r->factor, err);
    if (!st)
        st = pl_config_real(s, "low_freq_factor", 0, &r->low_freq_factor, err);
    if (!st)
        st = pl_config_real(s, "high_freq_factor", 0, &r->high_freq_factor, err);
    if (!st)
        st = pl_config_int(s, "original_max_position_embeddings", 0, 1, MAX_POSITIONS,
                           &r->original_max_positions, err);
    if (!st && r->high_freq_factor <= r->low_freq_factor)
        st = pl_fail(err, PL_EFORMAT,
                     "config.json: rope_scaling: high_freq_factor must be above low_freq_factor");
    return st;
}

enum pl_status pl_config_tokens(const json_t *c, struct pl_arch *a, struct pl_err *err)
{
    const json_t *eos = pl_config_member(c, "eos_token_id"),
                 *bos = pl_config_member(c, "bos_token_id");
    size_t n = json_is_array(eos) ? json_array_size(eos) : eos ? 1 : 0;

    a->bos = -1;
    if (bos && json_is_integer(bos) && json_integer_value(bos) >= 0 &&
        json_integer_value(bos) < a->vocab)
        a->bos = (int32_t)json_integer_value(bos);
    if (n > PL_MAX_EOS)
        return pl_fail(err, PL_EFORMAT, "config.json: eos_token_id names %zu tokens (at most %d)",
                       n, PL_MAX_EOS);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_is_array(eos) ? json_array_get(eos, i) : eos;
        if (!json_is_integer(v))
            return pl_fail(err, PL_EFORMAT, "config.json: eos_token_id is no id or list of ids");
        if (json_integer_value(v) >= 0 && json_integer_value(v) < a->vocab)
            a->eos[a->n_eos++] = (int32_t)json_integer_value(v);
    }
    return PL_OK;
}

void pl_config_dtype(const json_t *c, struct pl_arch *a)
{
    static const struct {
        const char *name;
        enum pl_dtype dt;
    } table[] = {{"float32", PL_DT_F32}, {"float16", PL_DT_F16}, {"bfloat16", PL_DT_BF16}};
    const json_t *v = pl_config_member(c, "dtype") ? pl_config_member(c, "dtype")
                                                   : pl_config_member(c, "torch_dtype");
    const char *name = v ? json_string_value(v) : NULL;

    for (size_t i = 0; name && i < sizeof(table) / sizeof(table[0]); i++)
        if (!strcmp(name, table[i].name))
            a->stored = table[i].dt;
}
