/* arms.A.draft and adapter_dir: what goes together, and where files are found. */
#include "unit.h"

#include <sys/stat.h>

#define HEAD                                                                                       \
    "data: {kind: synthetic}\nmodels: {big: {path: m}, small: {path: m}, s: {engine: sim}}\n"
#define TAIL "baseline: b\ngrid: {contexts: [64], samples: 2}\n"
#define ARMS(draft) HEAD "arms: {b: {model: big}, d: {model: big, draft: " draft "}}\n" TAIL

static const struct {
    const char *text, *said;
} bad[] = {
    {ARMS("{}"), "s.yaml:3:48: arms.d.draft.method is missing, expected a method or a model\n"},
    {ARMS("{method: prompt_lookup, gamma: 0}"),
     "s.yaml:3:79: arms.d.draft.gamma is \"0\", expected a whole number from 1 to 255\n"},
    {ARMS("{method: magic}"), "s.yaml:3:57: arms.d.draft.method is \"magic\", expected "
                              "prompt_lookup, model, eagle, medusa, retokenize or adapter\n"},
    {ARMS("{metod: model}"), "s.yaml:3:49: unknown key \"metod\" in arms.d.draft, expected model, "
                             "method, adapter, weights, gamma, overlap, after_prefill, transport, "
                             "temperature, sm_share, adaptive, min_ngram, max_ngram, tree, "
                             "tree_top or tree_tokens, did you mean method\n"},
    {ARMS("{model: smal}"), "s.yaml:3:56: arms.d.draft.model is \"smal\", expected a model of this "
                            "sweep, did you mean small\n"},
    {ARMS("{model: s}"),
     "s.yaml:3:56: arms.d.draft.model is \"s\", expected a model of our own runner\n"},
    {ARMS("{method: model}"),
     "s.yaml:3:48: arms.d.draft.model is missing, expected the model that drafts (model)\n"},
    {ARMS("{method: prompt_lookup, model: small}"),
     "s.yaml:3:79: arms.d.draft.model is given, but prompt_lookup drafts without a model\n"},
    {ARMS("{method: adapter, model: small}"),
     "s.yaml:3:48: arms.d.draft.adapter is missing, expected L1, L2, L3, L4, L5, L5F or B1\n"},
    {ARMS("{model: small, adapter: L4}"),
     "s.yaml:3:48: arms.d.draft.weights is missing, expected a file (or adapter_dir)\n"},
    {ARMS("{model: small, adapter: L4, weights: nowhere}"),
     "s.yaml:3:85: arms.d.draft.weights is \"nowhere\", expected a file or directory that "
     "exists\n"},
    {ARMS("{method: prompt_lookup, min_ngram: 3, max_ngram: 2}"),
     "s.yaml:3:97: arms.d.draft.max_ngram is less than min_ngram\n"},
    {ARMS("{method: prompt_lookup, tree: static}"),
     "s.yaml:3:78: arms.d.draft.tree is static, but method prompt_lookup drafts chains\n"},
    {ARMS("{method: medusa, weights: m, tree: dynamic}"),
     "s.yaml:3:83: arms.d.draft.tree is dynamic, but medusa drafts chains or the static tree\n"},
    {ARMS("{method: eagle, weights: m, tree: chain, tree_top: 4}"),
     "s.yaml:3:99: arms.d.draft.tree_top is 4 with tree chain\n"},
    {ARMS("{method: prompt_lookup, tree_top: 2}"),
     "s.yaml:3:82: arms.d.draft.tree_top is more than 1, but method prompt_lookup drafts chains\n"},
    {ARMS("{model: small, sm_share: 1}"),
     "s.yaml:3:73: arms.d.draft.sm_share is \"1\", expected a number from 0.01 to 0.99\n"},
    {ARMS("{model: small, overlap: none, sm_share: 0.25}"),
     "s.yaml:3:88: arms.d.draft.sm_share is given, but its lanes never run at once, expected a "
     "draft with a model and overlap: prefill\n"},
    {ARMS("{method: prompt_lookup, sm_share: 0.25}"),
     "s.yaml:3:82: arms.d.draft.sm_share is given, but its lanes never run at once, expected a "
     "draft with a model and overlap: prefill\n"},
    {HEAD "arms: {b: {model: s, draft: {model: big}}}\n" TAIL, NULL},
    {"adapter_dir: nowhere\n" HEAD "arms: {b: {model: big}}\n" TAIL,
     "s.yaml:1:14: adapter_dir is \"nowhere\", expected a directory that exists\n"},
};

static void test_bad(void **state)
{
    (void)state;
    mkdir("m", 0700);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        unit_refuses(bad[i].text, bad[i].said, "draft");
}

static struct pl_sweep *good(const char *text)
{
    struct pl_sweep *s = NULL;
    char said[8192];
    if (unit_load(text, NULL, &s, said, sizeof said) != PL_OK)
        fail_msg("%s", said);
    return s;
}

/* The drafter's model is used, so it stays in the resolved sweep; the method is written out. */
static void test_good(void **state)
{
    struct pl_sweep *s;
    const json_t *d;
    (void)state;
    mkdir("m", 0700);
    mkdir("ad", 0700);
    put("ad/L4.safetensors", "x");
    put("ad/eagle.safetensors", "x");
    s = good(ARMS("{model: small, gamma: 5}"));
    d = json_object_get(pl_sweep_arm(s, 1), "draft");
    assert_string_equal(pl_json_get_str(d, "method", ""), "model");
    assert_int_equal(pl_json_get_i64(d, "gamma", 0), 5);
    assert_non_null(pl_sweep_model(s, "small"));
    pl_sweep_free(s);
    s = good("adapter_dir: ad\n" HEAD
             "arms: {b: {model: big}, L4+VL: {model: big, draft: {model: small, adapter: L4}},\n"
             "  e: {model: big, draft: {method: eagle}}}\n" TAIL);
    d = json_object_get(pl_sweep_arm(s, 1), "draft");
    assert_string_equal(pl_json_get_str(d, "method", ""), "adapter");
    assert_string_equal(pl_json_get_str(d, "weights", ""), "ad/L4.safetensors");
    d = json_object_get(pl_sweep_arm(s, 2), "draft");
    assert_string_equal(pl_json_get_str(d, "weights", ""), "ad/eagle.safetensors");
    pl_sweep_free(s);
    s = good(HEAD "arms: {b: {model: big}, 'g{gamma}': {model: big, draft: {method: prompt_lookup},"
                  " matrix: {draft.gamma: [1, 2, 16]}}}\n" TAIL);
    assert_string_equal(pl_sweep_arm_name(s, 3), "g16");
    d = json_object_get(pl_sweep_arm(s, 3), "draft");
    assert_int_equal(pl_json_get_i64(d, "gamma", 0), 16);
    pl_sweep_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {in_folder(test_bad), in_folder(test_good)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
