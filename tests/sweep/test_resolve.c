/* Right sweeps: what they come to, every default written out. */
#include "unit.h"

static void assert_resolved(const char *text, const char *want)
{
    struct pl_sweep *s = unit_sweep(text, NULL);
    json_t *j = json_loads(want, 0, NULL);
    char *have = json_dumps(s->resolved, JSON_COMPACT), *expect = json_dumps(j, JSON_COMPACT);
    assert_non_null(j);
    assert_string_equal(have, expect); /* the order of keys too: it is hashed */
    free(have);
    free(expect);
    json_decref(j);
    pl_sweep_free(s);
}

static const char smallest[] = "data: {kind: synthetic}\n"
                               "models: {sim: {engine: sim}}\n"
                               "arms: {a: {model: sim}}\n"
                               "grid: {contexts: [64, 16], samples: 2}\n";

static void test_defaults(void **state)
{
    (void)state;
    assert_resolved(
        smallest,
        "{\"name\":\"s\",\"seed\":1,\"data\":{\"kind\":\"synthetic\",\"path\":null},"
        "\"models\":{\"sim\":{\"engine\":\"sim\",\"prefill_us_per_token\":2.0,\"decode_us\":300.0,"
        "\"noise\":0.0,\"sample_effect\":0.0,\"device_effect\":0.0,\"drift_per_hour\":0.0,"
        "\"virtual\":false,\"batch_cost\":0.0,\"load_s\":0.0,\"cold\":1.0,\"fail\":null}},"
        "\"arms\":[{\"name\":\"a\",\"model\":\"sim\",\"baseline\":\"a\",\"batch\":1,"
        "\"concurrency\":1,\"requests\":null,"
        "\"scale\":1.0,"
        "\"acceptance\":null,\"gamma\":null,\"draft_us\":null,\"verify_us\":null,\"fail\":null}],"
        "\"baseline\":\"a\",\"grid\":{\"contexts\":[64,16],\"samples\":2,\"repeats\":1},"
        "\"generate\":{\"tokens\":128,\"stop_at_eos\":false,\"temperature\":0.0},"
        "\"measure\":{\"mode\":\"e2e\",\"warmup\":3,\"timeout\":null,\"load_timeout\":null,"
        "\"exclusive\":\"none\",\"quality\":32,\"energy\":false,\"kernels\":false,\"noise\":0.01}}");
}

static void test_everything(void **state)
{
    (void)state;
    put("corpus.txt", "some words to read\n");
    assert_int_equal(mkdir("m", 0700), 0);
    assert_resolved(
        "name: all\nseed: 18446744073709551615\n"
        "data: {kind: text, path: corpus.txt}\n"
        "models:\n"
        "  llm: {path: m, dtype: bf16, device: cpu, threads: 2, kv: f16, weights: random:7}\n"
        "  stored: {path: m, dtype: auto, kv: auto}\n"
        "  other: {engine: {exec: [cat, -u, corpus.txt], ids_from: stored}}\n"
        "arms:\n"
        "  base: {model: llm}\n"
        "  L4+VL: {model: other}\n"
        "baseline: base\n"
        "grid: {contexts: [4], samples: all, repeats: 3}\n"
        "generate: {tokens: 8, stop_at_eos: true, temperature: 0}\n"
        "measure: {mode: prefill, warmup: 0, timeout: 5, load_timeout: 60.5, exclusive: none, "
        "noise: 0.02}\n",
        "{\"name\":\"all\",\"seed\":-1,\"data\":{\"kind\":\"text\",\"path\":\"corpus.txt\"},"
        "\"models\":{\"llm\":{\"engine\":null,\"path\":\"m\",\"weights\":\"random:7\","
        "\"dtype\":\"bf16\",\"device\":\"cpu\",\"threads\":2,\"kv\":\"f16\",\"deterministic\":false,"
        "\"preprocess\":\"host\",\"activations\":"
        "\"int8\"},"
        "\"stored\":{\"engine\":null,\"path\":\"m\",\"weights\":null,\"dtype\":null,"
        "\"device\":\"auto\",\"threads\":null,\"kv\":null,\"deterministic\":false,\"preprocess\":\"host\",\"activations\":\"int8\"},"
        "\"other\":{\"engine\":{\"exec\":[\"cat\",\"-u\",\"corpus.txt\"],\"ids_from\":\"stored\"},"
        "\"path\":null,\"weights\":null,\"dtype\":null,\"device\":\"auto\",\"threads\":null,"
        "\"kv\":null,\"activations\":\"int8\"}},"
        "\"arms\":[{\"name\":\"base\",\"model\":\"llm\",\"baseline\":\"base\",\"batch\":1,"
        "\"concurrency\":1,\"requests\":null,\"prune\":null},"
        "{\"name\":\"L4+VL\",\"model\":\"other\",\"baseline\":\"base\",\"batch\":1,"
        "\"concurrency\":1,\"requests\":null,\"prune\":null}],"
        "\"baseline\":\"base\",\"grid\":{\"contexts\":[4],\"samples\":0,\"repeats\":3},"
        "\"generate\":{\"tokens\":8,\"stop_at_eos\":true,\"temperature\":0.0},"
        "\"measure\":{\"mode\":\"prefill\",\"warmup\":0,\"timeout\":5.0,\"load_timeout\":60.5,"
        "\"exclusive\":\"none\",\"quality\":32,\"energy\":false,\"kernels\":false,\"noise\":0.02}}");
}

static void test_exclusive(void **state)
{
    struct pl_sweep *s;
    (void)state;
    assert_int_equal(mkdir("m", 0700), 0);
    s = unit_sweep("data: {kind: synthetic}\nmodels: {m: {path: m}, sim: {engine: sim}}\n"
                   "arms: {a: {model: m}, b: {model: sim}}\nbaseline: a\n"
                   "grid: {contexts: [4], samples: 1}\n",
                   NULL);
    assert_string_equal(pl_json_get_str(json_object_get(s->resolved, "measure"), "exclusive", ""),
                        "node");
    pl_sweep_free(s);
}

static void test_drafting(void **state)
{
    struct pl_sweep *s;
    const json_t *a;
    (void)state;
    s = unit_sweep("data: {kind: synthetic}\n"
                   "models:\n"
                   "  sim: {engine: sim, decode_us: 250}\n"
                   "  spec: {engine: sim, acceptance: 0.5, gamma: 4, draft_us: 10}\n"
                   "arms:\n"
                   "  plain: {model: sim}\n"
                   "  own: {model: sim, acceptance: 0.8, draft_us: 20}\n"
                   "  models: {model: spec}\n"
                   "  over: {model: spec, gamma: 2, verify_us: 400}\n"
                   "baseline: plain\ngrid: {contexts: [4], samples: 1}\n",
                   NULL);
    a = pl_sweep_arm(s, 0);
    assert_true(json_is_null(json_object_get(a, "acceptance")));
    assert_true(json_is_null(json_object_get(a, "gamma")));
    a = pl_sweep_arm(s, 1);
    assert_true(pl_json_get_f64(a, "acceptance", -1) == 0.8);
    assert_int_equal(pl_json_get_i64(a, "gamma", -1), 1);
    assert_true(pl_json_get_f64(a, "draft_us", -1) == 20);
    assert_true(pl_json_get_f64(a, "verify_us", -1) == 250);
    a = pl_sweep_arm(s, 2);
    assert_true(pl_json_get_f64(a, "acceptance", -1) == 0.5);
    assert_int_equal(pl_json_get_i64(a, "gamma", -1), 4);
    assert_true(pl_json_get_f64(a, "verify_us", -1) == 300);
    a = pl_sweep_arm(s, 3);
    assert_int_equal(pl_json_get_i64(a, "gamma", -1), 2);
    assert_true(pl_json_get_f64(a, "draft_us", -1) == 10);
    assert_true(pl_json_get_f64(a, "verify_us", -1) == 400);
    assert_null(json_object_get(pl_sweep_model(s, "spec"), "acceptance"));
    pl_sweep_free(s);
}

/* The hash is of what is measured, not of how the file is written. */
static void test_hash(void **state)
{
    struct pl_sweep *a, *b, *c;
    (void)state;
    a = unit_sweep(smallest, NULL);
    b = unit_sweep("# the same\ngrid:\n  samples: 2\n  contexts:\n    - 64\n    - 16\n"
                   "arms: {a: {model: sim, scale: 1}}\nmodels: {sim: {engine: sim, noise: 0.0}}\n"
                   "data: {kind: synthetic}\nseed: 1\nbaseline: a\n",
                   NULL);
    c = unit_sweep("grid: {samples: 2, contexts: [16, 64]}\narms: {a: {model: sim}}\n"
                   "models: {sim: {engine: sim}}\ndata: {kind: synthetic}\n",
                   NULL);
    assert_string_equal(a->sha256, b->sha256);
    assert_string_not_equal(a->sha256, c->sha256);
    assert_int_equal(strlen(a->sha256), 64);
    assert_string_equal(a->path, "s.yaml");
    assert_string_equal(a->text, smallest);
    pl_sweep_free(a);
    pl_sweep_free(b);
    pl_sweep_free(c);
}

static void test_from_json(void **state)
{
    static const char *const broken[] = {
        "[]",
        "{}",
        "{\"arms\":[]}",
        "{\"arms\":[{\"name\":\"a\"}]}",
        "{\"arms\":[{\"name\":\"a\",\"model\":\"m\"}]}",
        "{\"arms\":[{\"name\":\"a\",\"model\":\"m\"}],\"models\":{\"m\":{}}}",
        "{\"arms\":[{\"name\":\"a\",\"model\":\"m\",\"baseline\":\"a\"}],\"models\":{\"m\":{}}}",
        "{\"arms\":[{\"name\":\"a\",\"model\":\"m\",\"baseline\":\"a\"}],\"models\":{\"m\":{}},"
        "\"grid\":{\"contexts\":[0],\"samples\":1,\"repeats\":1}}",
        "{\"arms\":[{\"name\":\"a\",\"model\":\"m\",\"baseline\":\"a\"}],\"models\":{\"m\":{}},"
        "\"grid\":{\"contexts\":[1],\"samples\":1,\"repeats\":0}}",
        "{\"arms\":[{\"name\":\"a\",\"model\":\"m\",\"baseline\":\"a\"}],\"models\":{\"m\":{}},"
        "\"grid\":{\"contexts\":[1],\"samples\":1,\"repeats\":1},\"generate\":{\"tokens\":8}}",
    };
    struct pl_sweep *s = unit_sweep(smallest, NULL), *again = NULL;
    struct pl_err err = {""};
    json_t *j;
    (void)state;
    j = json_loads(s->resolved_text, 0, NULL);
    assert_int_equal(pl_sweep_from_json(j, &again, &err), PL_OK);
    assert_string_equal(again->sha256, s->sha256);
    assert_string_equal(again->resolved_text, s->resolved_text);
    assert_int_equal(again->n_arms, 1);
    assert_int_equal(again->n_contexts, 2);
    assert_int_equal(again->contexts[1], 16);
    assert_int_equal(again->samples, 2);
    assert_int_equal(again->tokens, 128);
    assert_int_equal(again->batch, 1);
    assert_int_equal(again->seed, 1);
    assert_int_equal(pl_sweep_baseline_of(again, 0), 0);
    assert_true(pl_sweep_measure_f64(again, "timeout", 60) == 60);
    assert_true(pl_sweep_measure_f64(again, "warmup", 60) == 3);
    json_decref(j);
    pl_sweep_free(again);
    pl_sweep_free(s);
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        again = NULL;
        err.text[0] = '\0';
        j = json_loads(broken[i], 0, NULL);
        assert_non_null(j);
        assert_int_equal(pl_sweep_from_json(j, &again, &err), PL_EFORMAT);
        assert_int_equal(strncmp(err.text, "resolved sweep: ", 16), 0);
        assert_null(again);
        json_decref(j);
    }
}

static void test_all_samples(void **state)
{
    struct pl_sweep *s;
    struct pl_err err = {""};
    char text[601], before[65];
    (void)state;
    memset(text, 'x', 600);
    text[600] = '\0';
    put("t.txt", text);
    s = unit_sweep("data: {kind: text, path: t.txt}\nmodels: {sim: {engine: sim}}\n"
                   "arms: {a: {model: sim}}\ngrid: {contexts: [10], samples: all}\n",
                   NULL);
    assert_int_equal(s->samples, 0);
    memcpy(before, s->sha256, 65);
    assert_int_equal(pl_sweep_open_samples(s, &err), PL_OK);
    assert_int_equal(s->samples, 10);
    assert_int_equal(pl_samples_count(s->list), 10);
    assert_int_equal(pl_json_get_i64(json_object_get(s->resolved, "grid"), "samples", -1), 10);
    assert_string_not_equal(s->sha256, before);
    pl_sweep_free(s);
}

/* Here first, then beside the sweep file; what is found is what is stored. */
static void test_paths(void **state)
{
    struct pl_sweep *s = NULL;
    struct pl_problems p = {0};
    struct pl_err err = {""};
    (void)state;
    assert_int_equal(mkdir("d", 0700), 0);
    assert_int_equal(mkdir("d/m", 0700), 0);
    put("d/t.txt", "some text");
    put("d/engine.py", "");
    put("d/s.yaml",
               "data: {kind: text, path: t.txt}\n"
               "models: {m: {path: m}, e: {engine: {exec: [cat, engine.py, nothing]}}}\n"
               "arms: {a: {model: m}, b: {model: e}}\nbaseline: a\n"
               "grid: {contexts: [2], samples: 1}\n");
    assert_int_equal(pl_sweep_load("d/s.yaml", NULL, &s, &p, &err), PL_OK);
    assert_string_equal(pl_json_get_str(json_object_get(s->resolved, "data"), "path", ""),
                        "d/t.txt");
    assert_string_equal(pl_json_get_str(pl_sweep_model(s, "m"), "path", ""), "d/m");
    json_t *exec = json_object_get(json_object_get(pl_sweep_model(s, "e"), "engine"), "exec");
    assert_string_equal(json_string_value(json_array_get(exec, 0)), "cat");
    assert_string_equal(json_string_value(json_array_get(exec, 1)), "d/engine.py");
    assert_string_equal(json_string_value(json_array_get(exec, 2)), "nothing");
    pl_sweep_free(s);
    put("t.txt", "other text");
    s = NULL;
    assert_int_equal(pl_sweep_load("d/s.yaml", NULL, &s, &p, &err), PL_OK);
    assert_string_equal(pl_json_get_str(json_object_get(s->resolved, "data"), "path", ""), "t.txt");
    pl_sweep_free(s);
    pl_problems_release(&p);
}

static void test_unused_model(void **state)
{
    struct pl_sweep *s = NULL;
    char said[1024];
    (void)state;
    assert_int_equal(unit_load("data: {kind: synthetic}\n"
                               "models: {sim: {engine: sim}, big: {path: /not/here}}\n"
                               "arms: {a: {model: sim}}\ngrid: {contexts: [2], samples: 1}\n",
                               NULL, &s, said, sizeof said),
                     PL_OK);
    assert_string_equal(said, "models.big is used by no arm\n");
    assert_null(pl_sweep_model(s, "big"));
    pl_sweep_free(s);
}

/* Anchors and merge keys are YAML's own way to say a thing once. */
static void test_anchors(void **state)
{
    struct pl_sweep *s;
    (void)state;
    s = unit_sweep("data: {kind: synthetic}\n"
                   "models:\n  one: &one {engine: sim, decode_us: 7}\n"
                   "  two: {<<: *one, noise: 0.5}\n"
                   "arms: {a: {model: one}, b: {model: two}}\nbaseline: a\n"
                   "grid: {contexts: [2], samples: 1}\n",
                   NULL);
    assert_true(pl_json_get_f64(pl_sweep_model(s, "two"), "decode_us", 0) == 7);
    assert_true(pl_json_get_f64(pl_sweep_model(s, "two"), "noise", 0) == 0.5);
    pl_sweep_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_folder(test_defaults),    in_folder(test_everything), in_folder(test_exclusive),
        in_folder(test_drafting),    in_folder(test_hash),       in_folder(test_from_json),
        in_folder(test_all_samples), in_folder(test_paths),      in_folder(test_unused_model),
        in_folder(test_anchors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
