/* Run-time selection: --arms, --contexts, --samples, --set. */
#include "unit.h"

static const char text[] = "data: {kind: synthetic}\n"
                           "models: {sim: {engine: sim}, gone: {path: /not/here}}\n"
                           "arms:\n"
                           "  base: {model: sim}\n"
                           "  fast: {model: sim, scale: 0.5}\n"
                           "  keep0.9: {model: sim, baseline: fast}\n"
                           "  real: {model: gone}\n"
                           "baseline: base\n"
                           "grid: {contexts: [64, 128], samples: 8}\n";

static void test_arms(void **state)
{
    struct pl_sweep *s = NULL;
    struct pl_select sel = {.arms = "keep0.9"};
    char said[1024];
    (void)state;
    assert_int_equal(unit_load(text, &sel, &s, said, sizeof said), PL_OK);
    assert_string_equal(said, "--arms: \"fast\" runs too, the baseline of \"keep0.9\"\n"
                              "--arms: \"base\" runs too, the baseline of \"fast\"\n");
    assert_int_equal(s->n_arms, 3);
    assert_string_equal(pl_sweep_arm_name(s, 0), "base"); /* the file's order */
    assert_string_equal(pl_sweep_arm_name(s, 2), "keep0.9");
    assert_int_equal(pl_sweep_baseline_of(s, 2), 1);
    assert_null(pl_sweep_model(s, "gone")); /* not chosen: need not be there */
    pl_sweep_free(s);

    s = NULL;
    sel.arms = "fast,base";
    assert_int_equal(unit_load(text, &sel, &s, said, sizeof said), PL_OK);
    assert_string_equal(said, "");
    assert_int_equal(s->n_arms, 2);
    pl_sweep_free(s);
}

static void test_override(void **state)
{
    static const char *const set[] = {"grid.repeats=4",
                                      "models.sim.noise=0.25",
                                      "arms.keep0.9.scale=3",
                                      "measure={warmup: 9}",
                                      "name=",
                                      "arms.new={model: sim}",
                                      "models.sim.fail.crash=0.5"};
    struct pl_select sel = {
        .arms = "base,fast,keep0.9,new", .contexts = "7,5", .samples = "3", .set = set, .n_set = 7};
    struct pl_sweep *s = unit_sweep(text, &sel);
    (void)state;
    assert_int_equal(s->n_arms, 4);
    assert_int_equal(s->n_contexts, 2);
    assert_int_equal(s->contexts[0], 7);
    assert_int_equal(s->contexts[1], 5);
    assert_int_equal(s->samples, 3);
    assert_int_equal(s->repeats, 4);
    assert_true(pl_json_get_f64(pl_sweep_model(s, "sim"), "noise", 0) == 0.25);
    assert_true(pl_json_get_f64(json_object_get(pl_sweep_model(s, "sim"), "fail"), "crash", 0) ==
                0.5);
    assert_true(pl_json_get_f64(pl_sweep_arm(s, 2), "scale", 0) == 3);
    assert_true(pl_sweep_measure_f64(s, "warmup", 0) == 9);
    assert_string_equal(pl_json_get_str(s->resolved, "name", ""), "s");
    assert_string_equal(s->text, text); /* what is stored as given */
    pl_sweep_free(s);
}

/* An anchored map that several models share changes only where --set says. */
static void test_shared(void **state)
{
    static const char *const set[] = {"models.one.noise=0.5"};
    struct pl_select sel = {.set = set, .n_set = 1};
    struct pl_sweep *s = unit_sweep("data: {kind: synthetic}\n"
                                    "models: {one: &m {engine: sim}, two: *m}\n"
                                    "arms: {a: {model: one}, b: {model: two}}\nbaseline: a\n"
                                    "grid: {contexts: [1], samples: 1}\n",
                                    &sel);
    (void)state;
    assert_true(pl_json_get_f64(pl_sweep_model(s, "one"), "noise", 0) == 0.5);
    assert_true(pl_json_get_f64(pl_sweep_model(s, "two"), "noise", 0) == 0);
    pl_sweep_free(s);
}

static void test_mistakes(void **state)
{
    static const char *const set[] = {
        "grid.repeats", "grid.repeats=0",      "grid.samples.x=1",     "measure.warmpu=1",
        "=1",           "models.sim.noise=[1", "data.kind=[synthetic]"};
    static const struct {
        struct pl_select sel;
        const char *said;
    } bad[] = {
        {{.arms = "bsae,fast"},
         "--arms: \"bsae\" is not an arm, expected arms of this sweep, did you mean base\n"},
        {{.arms = ""}, "--arms: \"\" is not an arm, expected arms of this sweep\n"},
        {{.contexts = "64,x", .arms = "base"},
         "--contexts: grid.contexts holds \"x\", expected whole numbers from 1 to 16777216\n"},
        {{.contexts = "", .arms = "base"},
         "--contexts: grid.contexts is an empty list, expected a list of whole numbers from 1 to "
         "16777216, or [auto]\n"},
        {{.samples = "few", .arms = "base"},
         "--samples: grid.samples is \"few\", expected a whole number from 1 to 4294967295, or "
         "all\n"},
        {{.set = set, .n_set = 6, .arms = "base"},
         "--set grid.repeats: no value, expected key=value\n"
         "--set grid.repeats: grid.repeats is \"0\", expected a whole number from 1 to 65535\n"
         "--set grid.samples.x: a value on the way is not a map, expected a key of the sweep\n"
         "--set measure.warmpu: unknown key \"warmpu\" in measure, expected mode, warmup, timeout, "
         "load_timeout, exclusive, quality, energy, kernels or noise, did you mean warmup\n"
         "--set : \"\" is not a key, expected names with dots, like grid.repeats\n"
         "--set models.sim.noise:2:1: while parsing a flow sequence did not find expected ',' or "
         "']' (from line 1)\n"},
        {{.set = set + 6, .n_set = 1, .arms = "base"},
         "--set data.kind: data.kind is a list, expected text, synthetic, eventgpt, dsec, needle "
         "or longbench\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct pl_sweep *s = NULL;
        char said[4096];
        assert_int_equal(unit_load(text, &bad[i].sel, &s, said, sizeof said), PL_ESWEEP);
        assert_string_equal(said, bad[i].said);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_folder(test_arms),
        in_folder(test_override),
        in_folder(test_shared),
        in_folder(test_mistakes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
