#include "golden.h"

static const char *const names[] = {"plain",      "head_dim",   "mqa_sharded", "tied_bf16",
                                    "llama3_f16", "llama3_hub", "linear_bias", "mistral"};

static struct npy golden(const char *name, const char *file)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s/%s.npy", GOLDENS, name, file);
    return npy_read(path);
}

static void check_model(const char *name, const char *isa)
{
    static const int taps[] = {1};
    struct pl_model *m = load_model(name, 2, isa);
    struct pl_session *s = new_session(m, &(struct pl_session_opts){.taps = taps, .n_taps = 1});
    struct npy ids = golden(name, "ids"), logits = golden(name, "logits");
    struct npy hidden = golden(name, "hidden1"), greedy = golden(name, "greedy");
    double r, h;

    assert_int_equal(logits.rows, ids.cols);
    assert_int_equal(logits.cols, pl_model_info(m)->arch.vocab);
    float *got = malloc(logits.rows * logits.cols * sizeof(*got));
    float *gh = malloc(hidden.rows * hidden.cols * sizeof(*gh));
    struct pl_prompt p = {.ids = ids.data, .n = ids.cols, .all_logits = true};
    ok(pl_session_prefill(s, &p, got, &err));
    r = relative(got, logits.data, logits.rows * logits.cols);
    assert_int_equal(pl_session_hidden_rows(s, 0), ids.cols);
    ok(pl_session_hidden_copy(s, 0, 0, ids.cols, gh, &err));
    h = relative(gh, hidden.data, hidden.rows * hidden.cols);
    print_message("%-12s %-8s logits max|d|/max|logit| %.2e, hidden after block 1 %.2e\n", name,
                  pl_model_info(m)->device, r, h);
    assert_true(r <= tolerance(m, isa));
    assert_true(h <= tolerance(m, isa));

    float *last = got + (logits.rows - 1) * logits.cols;
    check_greedy(s, last, logits.cols, &greedy);
    free(got);
    free(gh);
    free(ids.data);
    free(logits.data);
    free(hidden.data);
    free(greedy.data);
    pl_session_free(s);
    pl_model_free(m);
}

static void test_transformers(void **state)
{
    const char *isa;

    (void)state;
    for (size_t k = 0; next_isa(&k, &isa);)
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
            check_model(names[i], isa);
}

static void test_info(void **state)
{
    struct pl_model *m = load_model("mqa_sharded", 1, NULL);
    const struct pl_model_info *i = pl_model_info(m);
    struct pl_model_info d;

    (void)state;
    assert_string_equal(i->arch.name, "LlamaForCausalLM");
    assert_int_equal(i->arch.kv_heads, 1);
    assert_int_equal(i->arch.head_dim, 12);
    assert_int_equal(i->dtype, PL_DT_F32);
    assert_int_equal(i->extra_tensors, 0);
    assert_int_equal(pl_arch_kv_bytes_per_token(&i->arch, PL_DT_F16), 2 * 2 * 12 * 2);
    ok(pl_model_describe(GOLDENS "/mqa_sharded", NULL, &d, &err));
    assert_int_equal(d.weights_bytes, i->weights_bytes);
    assert_int_equal(d.params, i->params);
    pl_model_free(m);

    m = load_model("linear_bias", 1, NULL);
    i = pl_model_info(m);
    assert_int_equal(i->extra_tensors, 2);
    pl_model_free(m);

    m = load_model("tied_bf16", 1, NULL);
    i = pl_model_info(m);
    assert_int_equal(i->dtype, PL_DT_BF16);
    assert_int_equal(i->arch.n_eos, 2);
    assert_int_equal(i->arch.eos[1], 5);
    assert_true(i->arch.tied);
    /* bf16 on disk: two bytes a parameter and a header */
    assert_true(i->file_bytes > 2 * i->params && i->file_bytes < 2 * i->params + 8192);
    pl_model_free(m);
}

/* Weights held in another type than stored, and KV in 16 bits: near, not equal. */
static void test_dtypes(void **state)
{
    static const enum pl_dtype dts[] = {PL_DT_F32, PL_DT_F16, PL_DT_BF16};
    struct npy ids = golden("plain", "ids"), logits = golden("plain", "logits");

    (void)state;
    float *got = malloc(logits.cols * sizeof(*got));
    for (int w = 0; w < 3; w++) {
        for (int kv = 0; kv < 3; kv++) {
            struct pl_model_opts o = {.dtype = dts[w], .where = {.threads = 1}};
            struct pl_model *m = NULL;
            ok(pl_model_load(GOLDENS "/plain", &o, &m, &err));
            struct pl_session *s =
                new_session(m, &(struct pl_session_opts){.max_tokens = 40, .kv_dtype = dts[kv]});
            struct pl_session_memory mem;
            prefill(s, ids.data, ids.cols, got);
            double r =
                relative(got, (float *)logits.data + (logits.rows - 1) * logits.cols, logits.cols);
            assert_true(r < (w == 2 || kv == 2 ? 0.1 : w || kv ? 0.01 : 1e-4));
            assert_true(w + kv == 0 || r > 1e-7);
            pl_session_memory(s, &mem);
            assert_int_equal(mem.kv_bytes_used,
                             (int64_t)ids.cols *
                                 pl_arch_kv_bytes_per_token(&pl_model_info(m)->arch, dts[kv]));
            assert_true(mem.kv_bytes >= mem.kv_bytes_used && mem.workspace_bytes > 0);
            pl_session_free(s);
            pl_model_free(m);
        }
    }
    free(got);
    free(ids.data);
    free(logits.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transformers),
        cmocka_unit_test(test_info),
        cmocka_unit_test(test_dtypes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
