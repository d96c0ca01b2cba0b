#include "fixture.h"

#include "base/buf.h"
#include "base/json.h"

#include <math.h>
#include <unistd.h>

#define BASE                                                                                       \
    "\"architectures\":[\"LlamaForCausalLM\"],\"num_hidden_layers\":2,\"hidden_size\":8,"          \
    "\"num_attention_heads\":2,\"intermediate_size\":12,\"vocab_size\":11"

static enum pl_status parse(const char *text, struct pl_arch *a, struct pl_err *err)
{
    enum pl_status st;
    json_t *j = NULL;

    ok(pl_json_parse("config.json", text, strlen(text), &j, &err));
    st = pl_arch_parse(j, a, err);
    json_decref(j);
    return st;
}

static void test_config_defaults(void **state)
{
    struct pl_arch a;

    (void)state;
    ok(parse("{" BASE "}", &a, &err));
    assert_int_equal(a.kv_heads, 2);
    assert_int_equal(a.head_dim, 4);
    assert_int_equal(a.n_eos, 0);
    assert_int_equal(a.bos, -1);
    assert_int_equal(a.max_positions, 2048);
    assert_true(a.rope.theta == 10000.0 && a.rope.kind == PL_ROPE_DEFAULT && !a.tied);
    /* embedding, head, final norm; per layer two norms, q k v o (4 · 64), gate up down (3 · 96) */
    assert_int_equal(pl_arch_params(&a), 2 * 88 + 8 + 2 * (16 + 4 * 64 + 3 * 96));
    ok(parse("{" BASE ",\"eos_token_id\":[3,4,99],\"bos_token_id\":null,\"head_dim\":null,"
             "\"sliding_window\":4096,\"dtype\":\"bfloat16\"}",
             &a, &err));
    assert_int_equal(a.n_eos, 2);
    assert_int_equal(a.stored, PL_DT_BF16);
    ok(parse("{" BASE ",\"rope_parameters\":{\"rope_theta\":5e5,\"rope_type\":\"default\"}}", &a,
             &err));
    assert_true(a.rope.theta == 5e5);
}

static void test_config_errors(void **state)
{
    static const struct {
        const char *config;
        enum pl_status status;
        const char *says;
    } cases[] = {
        {"[]", PL_EFORMAT, "not an object"},
        {"{}", PL_EFORMAT, "no architectures"},
        {"{\"architectures\":[\"MambaForCausalLM\"]}", PL_EUNSUPPORTED, "MambaForCausalLM"},
        {"{\"model_type\":\"mamba\"}", PL_EUNSUPPORTED, "mamba"},
        {"{\"model_type\":\"gpt2\"}", PL_EFORMAT, "no n_layer"},
        {"{\"model_type\":\"t5\"}", PL_EFORMAT, "no num_layers"},
        {"{\"architectures\":[\"LlamaForCausalLM\"]}", PL_EFORMAT, "no num_hidden_layers"},
        {"{" BASE ",\"num_key_value_heads\":3}", PL_EFORMAT, "no multiple of num_key_value_heads"},
        {"{" BASE ",\"num_key_value_heads\":0}", PL_EFORMAT, "num_key_value_heads is 0"},
        {"{" BASE ",\"head_dim\":3}", PL_EFORMAT, "head_dim 3 is odd"},
        {"{" BASE ",\"head_dim\":\"4\"}", PL_EFORMAT, "head_dim is not an integer"},
        {"{" BASE ",\"hidden_act\":\"swiglu9\"}", PL_EUNSUPPORTED, "swiglu9"},
        {"{" BASE ",\"rms_norm_eps\":-1}", PL_EFORMAT, "rms_norm_eps"},
        {"{" BASE ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":-4}}", PL_EFORMAT, "factor"},
        {"{" BASE ",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":4}}", PL_EUNSUPPORTED,
         "dynamic"},
        {"{" BASE ",\"rope_parameters\":{\"rope_type\":\"longrope\"}}", PL_EUNSUPPORTED,
         "longrope"},
        {"{" BASE ",\"rope_scaling\":{\"factor\":4}}", PL_EFORMAT, "no rope_type"},
        {"{" BASE ",\"rope_scaling\":{\"type\":\"linear\"}}", PL_EFORMAT, "factor"},
        {"{" BASE ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}}", PL_EFORMAT,
         "low_freq_factor"},
        {"{" BASE ",\"partial_rotary_factor\":0.5}", PL_EUNSUPPORTED, "partial_rotary_factor"},
        {"{" BASE ",\"quantization_config\":{}}", PL_EUNSUPPORTED, "quantization_config"},
        {"{" BASE ",\"eos_token_id\":\"two\"}", PL_EFORMAT, "eos_token_id"},
        {"{" BASE ",\"tie_word_embeddings\":1}", PL_EFORMAT, "tie_word_embeddings"},
        {"{" BASE ",\"max_position_embeddings\":99999999999}", PL_EFORMAT,
         "max_position_embeddings"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pl_err err = {0};
        struct pl_arch a;
        enum pl_status st = parse(cases[i].config, &a, &err);
        if (st != cases[i].status || !strstr(err.text, cases[i].says))
            fail_msg("%s: %s: %s", cases[i].config, pl_status_text(st), err.text);
    }
}

static void copy_file(const char *from, const char *dir, const char *name)
{
    char path[256];
    struct pl_buf b;

    ok(pl_read_file(from, 1u << 22, &b, &err));
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    ok(pl_write_file_atomic(path, b.data, b.len, &err));
    pl_buf_release(&b);
}

static void warn(void *user, const char *text)
{
    struct pl_err *e = user;

    snprintf(e->text, sizeof(e->text), "%s", text);
}

static void test_contradictions(void **state)
{
    static const char *const no_devices[] = {
        "tpu", "cpu:1", "cuda0", "cuda:", "cuda:x", "cuda:-1", "cuda:99999999999"};
    char dir[] = "/tmp/pl_load_XXXXXX", path[64];
    struct pl_model_info info;
    struct pl_model *m = NULL;

    (void)state;
    assert_non_null(mkdtemp(dir));
    fails(PL_ENOENT, "config.json", pl_model_load(dir, NULL, &m, &err));
    copy_file(GOLDENS "/plain/model.safetensors", dir, "model.safetensors");
    edit_config(GOLDENS "/plain", dir, "\"vocab_size\": 97", "\"vocab_size\": 98");
    fails(PL_EFORMAT,
          "model.embed_tokens.weight: expected shape [98, 40] by config.json, found [97, 40]",
          pl_model_load(dir, NULL, &m, &err));
    fails(PL_EFORMAT, "expected shape [98, 40]", pl_model_describe(dir, NULL, &info, &err));
    edit_config(GOLDENS "/plain", dir, "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4");
    fails(PL_EFORMAT, "no tensor model.layers.3.input_layernorm.weight (expected shape [40])",
          pl_model_load(dir, NULL, &m, &err));
    edit_config(GOLDENS "/plain", dir, "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 1");
    fails(PL_EFORMAT, "k_proj.weight: expected shape [10, 40]", pl_model_load(dir, NULL, &m, &err));
    for (size_t i = 0; i < sizeof(no_devices) / sizeof(no_devices[0]); i++)
        fails(PL_EUSAGE, "cpu, cuda or cuda:N is expected",
              pl_model_load(dir, &(struct pl_model_opts){.device = no_devices[i]}, &m, &err));
    fails(PL_EUNSUPPORTED, "i8",
          pl_model_load(dir, &(struct pl_model_opts){.dtype = PL_DT_I8}, &m, &err));
    edit_config(GOLDENS "/plain", dir, "\"vocab_size\": 97", "\"vocab_size\": 97");
    fails(PL_EUNSUPPORTED, "sse9",
          pl_model_load(dir, &(struct pl_model_opts){.where = {.isa = "sse9"}}, &m, &err));
    fails(PL_ERANGE, "threads",
          pl_model_load(dir, &(struct pl_model_opts){.where = {.threads = -1}}, &m, &err));
    /* fewer layers than the file has: the rest is extra */
    edit_config(GOLDENS "/plain", dir, "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2");
    ok(pl_model_describe(dir, NULL, &info, &err));
    assert_int_equal(info.extra_tensors, 9);
    assert_null(m);
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    assert_int_equal(truncate(path, 5000), 0);
    fails(PL_EFORMAT, "truncated", pl_model_load(dir, NULL, &m, &err));
    unlink(path);
    snprintf(path, sizeof(path), "%s/config.json", dir);
    unlink(path);
    rmdir(dir);
}

/* Each family's configuration against its weights. */
static void test_family_contradictions(void **state)
{
    static const struct {
        const char *model, *from, *to;
        enum pl_status status;
        const char *says;
    } cases[] = {
        {"gpt2", "\"n_positions\": 160", "\"n_positions\": 161", PL_EFORMAT,
         "wpe.weight: expected shape [161, 20] by config.json, found [160, 20]"},
        {"gpt2", "\"n_embd\": 20", "\"n_embd\": 25", PL_EFORMAT, "expected shape [97, 25]"},
        {"gpt2", "\"n_head\": 5", "\"n_head\": 3", PL_EFORMAT, "n_embd 20 is no multiple"},
        {"gpt2", "\"n_inner\": null", "\"n_inner\": 81", PL_EFORMAT,
         "c_fc.weight: expected shape [20, 81] by config.json, found [20, 80]"},
        {"gpt2", "\"scale_attn_by_inverse_layer_idx\": false",
         "\"scale_attn_by_inverse_layer_idx\": true", PL_EUNSUPPORTED, "inverse_layer_idx"},
        {"bert", "\"type_vocab_size\": 2", "\"type_vocab_size\": 3", PL_EFORMAT,
         "token_type_embeddings.weight: expected shape [3, 24]"},
        {"bert", "\"is_decoder\": false", "\"is_decoder\": true", PL_EUNSUPPORTED, "is_decoder"},
        {"bert", "\"hidden_act\": \"gelu\"", "\"hidden_act\": \"mish\"", PL_EUNSUPPORTED, "mish"},
        {"roberta", "\"pad_token_id\": 1", "\"pad_token_id\": 60", PL_EFORMAT, "leaves none"},
        {"flan", "\"d_kv\": 16", "\"d_kv\": 17", PL_EFORMAT, "expected shape [68, 24]"},
        {"flan", "\"num_decoder_layers\": 3", "\"num_decoder_layers\": 4", PL_EFORMAT,
         "no tensor decoder.block.3"},
        {"flan", "gated-gelu", "relu", PL_EFORMAT, "no tensor decoder.block.0.layer.2"},
        {"flan", "gated-gelu", "gated-mish", PL_EUNSUPPORTED, "mish"},
        {"t5", "\"relative_attention_num_buckets\": 16", "\"relative_attention_num_buckets\": 32",
         PL_EFORMAT, "relative_attention_bias.weight: expected shape [32, 3]"},
        {"clip", "\"patch_size\": 6", "\"patch_size\": 5", PL_EFORMAT, "expected shape [17, 24]"},
        {"clip", "\"patch_size\": 6", "\"patch_size\": 21", PL_EFORMAT, "patch_size 21 is more"},
        {"qwen2", "\"Qwen2ForCausalLM\"", "\"Qwen3ForCausalLM\"", PL_EFORMAT,
         "expected shape [640"},
        {"qwen3", "\"Qwen3ForCausalLM\"", "\"Qwen2ForCausalLM\"", PL_EFORMAT,
         "no tensor model.layers.0.self_attn.q_proj.bias"},
    };
    char dir[] = "/tmp/pl_fam_XXXXXX", path[512];
    struct pl_model_info info;

    (void)state;
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(path, sizeof(path), "%s/families/%s", GOLDENS, cases[i].model);
        edit_config(path, dir, cases[i].from, cases[i].to);
        snprintf(path, sizeof(path), "%s/families/%s/model.safetensors", GOLDENS, cases[i].model);
        copy_file(path, dir, "model.safetensors");
        fails(cases[i].status, cases[i].says, pl_model_describe(dir, NULL, &info, &err));
    }
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    unlink(path);
    snprintf(path, sizeof(path), "%s/config.json", dir);
    unlink(path);
    rmdir(dir);
}

static void test_nan_weights(void **state)
{
    char dir[] = "/tmp/pl_nan_XXXXXX", path[64];
    struct pl_err told = {0};
    struct pl_model_opts o = {.check_finite = true, .warn = warn, .warn_user = &told};
    struct pl_model_info info;
    struct pl_buf b;

    (void)state;
    ok(pl_model_describe(GOLDENS "/plain", &o, &info, &err));
    assert_int_equal(info.nonfinite, 0);
    ok(pl_model_describe(GOLDENS "/plain", NULL, &info, &err));
    assert_int_equal(info.nonfinite, -1);
    assert_non_null(mkdtemp(dir));
    copy_file(GOLDENS "/plain/config.json", dir, "config.json");
    ok(pl_read_file(GOLDENS "/plain/model.safetensors", 1u << 22, &b, &err));
    memcpy(b.data + b.len - 4, &(float){NAN}, 4);
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    ok(pl_write_file_atomic(path, b.data, b.len, &err));
    pl_buf_release(&b);
    ok(pl_model_describe(dir, &o, &info, &err));
    assert_int_equal(info.nonfinite, 1);
    assert_non_null(strstr(told.text, "model.norm.weight: 1 NaN and 0 Inf"));
    unlink(path);
    snprintf(path, sizeof(path), "%s/config.json", dir);
    unlink(path);
    rmdir(dir);
}

static void random_logits(uint64_t seed, int threads, enum pl_dtype dt, float *out)
{
    struct pl_model_opts o = {
        .random = true, .random_seed = seed, .dtype = dt, .where = {.threads = threads}};
    int32_t ids[20];
    struct pl_model *m = NULL;
    struct pl_session *s;

    ok(pl_model_load(GOLDENS "/plain/config.json", &o, &m, &err));
    assert_true(pl_model_info(m)->random);
    assert_int_equal(pl_model_info(m)->random_seed, seed);
    s = new_session(m, &(struct pl_session_opts){.max_tokens = 20});
    make_ids(ids, 20, 1, 97);
    prefill(s, ids, 20, out);
    pl_session_free(s);
    pl_model_free(m);
}

static void test_random(void **state)
{
    float a[97], b[97];
    double sum = 0;

    (void)state;
    random_logits(7, 1, PL_DT_AUTO, a);
    random_logits(7, 3, PL_DT_AUTO, b);
    assert_memory_equal(a, b, sizeof(a));
    random_logits(8, 1, PL_DT_AUTO, b);
    assert_memory_not_equal(a, b, sizeof(a));
    for (int i = 0; i < 97; i++)
        sum += fabs((double)a[i]);
    assert_true(isfinite(sum) && sum > 1);
    random_logits(7, 1, PL_DT_BF16, b);
    for (int i = 0; i < 97; i++)
        assert_true(fabs((double)(a[i] - b[i])) < 0.05 * sum / 97 + 0.05);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_defaults),       cmocka_unit_test(test_config_errors),
        cmocka_unit_test(test_contradictions),        cmocka_unit_test(test_nan_weights),
        cmocka_unit_test(test_family_contradictions), cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
