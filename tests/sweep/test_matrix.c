/* `matrix`: one arm a combination, named by a template. */
#include "unit.h"

#define SWEEP(arms)                                                                                \
    "data: {kind: synthetic}\nmodels: {sim: {engine: sim}, sim2: {engine: sim}}\narms:\n" arms     \
    "baseline: base\ngrid: {contexts: [2], samples: 1}\n"

static void names_of(const struct pl_sweep *s, char *out, size_t size)
{
    size_t at = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < s->n_arms; i++)
        at += (size_t)snprintf(out + at, size - at, "%s ", pl_sweep_arm_name(s, i));
}

static void test_combinations(void **state)
{
    struct pl_sweep *s;
    char names[512];
    (void)state;
    s = unit_sweep(SWEEP("  base: {model: sim}\n"
                         "  \"x{scale:nodot}-{model}\":\n"
                         "    model: sim\n"
                         "    scale: 7\n"
                         "    matrix: {scale: [0.9, 1.10], model: [sim, sim2]}\n"
                         "  last: {model: sim}\n"),
                   NULL);
    names_of(s, names, sizeof names);
    assert_string_equal(names, "base x09-sim x09-sim2 x110-sim x110-sim2 last ");
    assert_true(pl_json_get_f64(pl_sweep_arm(s, 3), "scale", 0) == 1.1);
    assert_string_equal(pl_json_get_str(pl_sweep_arm(s, 4), "model", ""), "sim2");
    assert_true(pl_json_get_f64(pl_sweep_arm(s, 5), "scale", 0) == 1);
    assert_null(json_object_get(pl_sweep_arm(s, 1), "matrix"));
    pl_sweep_free(s);
}

static void test_dotted(void **state)
{
    struct pl_sweep *s;
    char names[512];
    (void)state;
    s = unit_sweep(SWEEP("  base: {model: sim}\n"
                         "  \"c{crash}\": {model: sim, fail: {hang: 0.25}, "
                         "matrix: {fail.crash: [0.1, 0.2]}}\n"),
                   NULL);
    names_of(s, names, sizeof names);
    assert_string_equal(names, "base c0.1 c0.2 ");
    for (uint32_t i = 1; i < 3; i++) {
        const json_t *fail = json_object_get(pl_sweep_arm(s, i), "fail");
        assert_true(pl_json_get_f64(fail, "crash", 0) == 0.1 * i);
        assert_true(pl_json_get_f64(fail, "hang", 0) == 0.25);
    }
    pl_sweep_free(s);
}

/* A key of `prune` needs no prefix; a list may stand in its place. */
static void test_prune(void **state)
{
    struct pl_sweep *s;
    char names[512];
    (void)state;
    s = unit_sweep("data: {kind: synthetic}\nmodels: {m: {path: .}}\narms:\n  base: {model: m}\n"
                   "  \"keep{keep:nodot}\": {model: m, prune: {method: random, layers: [1, 3]}, "
                   "matrix: {keep: [0.9, 0.8]}}\n"
                   "  each: {model: m, prune: {method: random, layers: [1, 3], keep: [0.5, 1]}}\n"
                   "baseline: base\ngrid: {contexts: [4], samples: 1}\n",
                   NULL);
    names_of(s, names, sizeof names);
    assert_string_equal(names, "base keep09 keep08 each ");
    assert_true(json_is_null(json_object_get(pl_sweep_arm(s, 0), "prune")));
    for (uint32_t i = 1; i < 3; i++) {
        const json_t *prune = json_object_get(pl_sweep_arm(s, i), "prune");
        assert_true(pl_json_get_f64(prune, "keep", 0) == (i == 1 ? 0.9 : 0.8));
        assert_int_equal(json_array_size(json_object_get(prune, "layers")), 2);
        assert_true(json_is_null(json_object_get(prune, "weights")));
    }
    assert_int_equal(
        json_array_size(json_object_get(json_object_get(pl_sweep_arm(s, 3), "prune"), "keep")), 2);
    pl_sweep_free(s);
}

static void test_mistakes(void **state)
{
    static const struct {
        const char *arms, *said;
    } bad[] = {
        {"  base: {model: sim}\n  x: {model: sim, matrix: {scale: [1, 2]}}\n",
         "s.yaml:5:3: arms.x makes \"x\" twice, expected every matrix key in its name, like "
         "{scale}\n"},
        {"  base: {model: sim}\n  x{scael}: {model: sim, matrix: {scale: [1, 2]}}\n",
         "s.yaml:5:3: arms.x{scael} has {scael}, expected a key of its matrix, did you mean "
         "scale\n"},
        {"  base: {model: sim}\n  x{scale:short}: {model: sim, matrix: {scale: [1, 2]}}\n",
         "s.yaml:5:3: arms.x{scale:short} has {scale:short}, expected {scale} or {scale:nodot}\n"},
        {"  base: {model: sim}\n  x{scale: {model: sim, matrix: {scale: [1, 2]}}\n",
         "s.yaml:5:3: arms.x{scale has a { without a }, expected {KEY}\n"},
        {"  base: {model: sim}\n  x{scale}: {model: sim}\n",
         "s.yaml:5:3: arms.x{scale} has braces in its name, expected a matrix in the arm\n"},
        {"  base: {model: sim}\n  x{scael}: {model: sim, matrix: {scael: [1, 2]}}\n",
         "s.yaml:5:35: unknown key \"scael\" in arms.x{scael}.matrix, expected model, baseline, "
         "matrix, draft, prune, batch, concurrency, requests, scale, fail, acceptance, gamma, "
         "draft_us or verify_us, did you mean scale\n"},
        {"  base: {model: sim}\n  x{scale}: {model: sim, matrix: {scale: 1}}\n",
         "s.yaml:5:42: arms.x{scale}.matrix.scale is \"1\", expected a list of values\n"},
        {"  base: {model: sim}\n  x{scale}: {model: sim, matrix: {scale: []}}\n",
         "s.yaml:5:42: arms.x{scale}.matrix.scale is an empty list, expected a list of values\n"},
        {"  base: {model: sim}\n  x{scale}: {model: sim, matrix: {scale: [[1], 2]}}\n",
         "s.yaml:5:43: arms.x{scale}.matrix.scale holds a list, expected plain values\n"},
        {"  base: {model: sim}\n  x{scale}: {model: sim, matrix: [1]}\n",
         "s.yaml:5:34: arms.x{scale}.matrix is a list, expected a map of lists, like {scale: "
         "[0.9, 1.1]}\n"},
        {"  base: {model: sim}\n  x{scale}: {model: sim, matrix: {scale: [1, 0, fast]}}\n",
         "s.yaml:5:46: arms.x0.scale is \"0\", expected a number from 1e-06 to 1000000\n"
         "s.yaml:5:49: arms.xfast.scale is \"fast\", expected a number from 1e-06 to 1000000\n"},
        {"  x2: {model: sim}\n  base: {model: sim}\n  x{scale}: {model: sim, matrix: {scale: [1, "
         "2]}}\n",
         "s.yaml:6:3: duplicate arm \"x2\", expected it once, first at 4:3\n"},
        {"  base: {model: sim}\n  x{scale}: {model: sim, matrix: {scale: [1], scale: [2]}}\n",
         "s.yaml:5:47: duplicate key \"scale\" in arms.x{scale}.matrix, expected it once, first at "
         "5:35\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct pl_sweep *s = NULL;
        char said[4096], text[2048];
        snprintf(text, sizeof text, SWEEP("%s"), bad[i].arms);
        assert_int_equal(unit_load(text, NULL, &s, said, sizeof said), PL_ESWEEP);
        assert_string_equal(said, bad[i].said);
    }
}

/* A matrix does not run away with the memory. */
static void test_too_many(void **state)
{
    struct pl_sweep *s = NULL;
    char said[4096];
    (void)state;
    assert_int_equal(
        unit_load(SWEEP("  base: {model: sim}\n"
                        "  a{scale}b{gamma}c{acceptance}d{draft_us}: {model: sim, matrix: {scale: "
                        "[1, 2, 3, 4, 5, 6, 7, 8], gamma: [1, 2, 3, 4, 5, 6, 7, 8], acceptance: "
                        "[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], draft_us: [1, 2, 3, 4, 5, 6, 7, "
                        "8]}}\n"),
                  NULL, &s, said, sizeof said),
        PL_ESWEEP);
    assert_string_equal(said, "s.yaml:5:3: the sweep has more than 4096 arms\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_folder(test_combinations), in_folder(test_dotted),   in_folder(test_prune),
        in_folder(test_mistakes),     in_folder(test_too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
