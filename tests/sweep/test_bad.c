/* Wrong sweeps: every mistake, with its place, what was expected and the nearest right word, all in
 * one go. */
#include "unit.h"

#define HEAD "data: {kind: synthetic}\nmodels: {sim: {engine: sim}}\n"
#define TAIL "baseline: a\ngrid: {contexts: [64], samples: 2}\n"

static const struct {
    const char *text, *said;
} bad[] = {
    {"", "s.yaml:1:1: the document is empty\n"},
    {"just words\n", "s.yaml:1:1: the file is \"just words\", expected a map\n"},
    {"- a\n- b\n", "s.yaml:1:1: the file is a list, expected a map\n"},
    {"a: [1,\n", NULL}, /* libyaml's words */
    {"name: x\n", "s.yaml:1:1: data is missing, expected a map\n"
                  "s.yaml:1:1: models is missing, expected a map\n"
                  "s.yaml:1:1: arms is missing, expected a map\n"
                  "s.yaml:1:1: grid is missing, expected a map\n"},
    /* unknown keys, and typos of known ones */
    {HEAD "arms: {a: {model: sim, scael: 2}}\nbaselin: a\nbaseline: a\n"
          "grid: {context: [64], contexts: [64], samples: 2, repeat: 2}\nzebra: 1\n",
     "s.yaml:3:24: unknown key \"scael\" in arms.a, expected model, baseline, matrix, batch, "
     "concurrency, requests, scale, fail, acceptance, gamma, draft_us or verify_us, did you mean "
     "scale\n"
     "s.yaml:4:1: unknown key \"baselin\", expected name, seed, data, models, arms, baseline, "
     "adapter_dir, grid, generate or measure, did you mean baseline\n"
     "s.yaml:6:8: unknown key \"context\" in grid, expected contexts, samples or repeats, did you "
     "mean contexts\n"
     "s.yaml:6:51: unknown key \"repeat\" in grid, expected contexts, samples or repeats, did you "
     "mean repeats\n"
     "s.yaml:7:1: unknown key \"zebra\", expected name, seed, data, models, arms, baseline, "
     "adapter_dir, grid, generate or measure\n"},
    /* keys given twice name the first place */
    {HEAD "seed: 1\nseed: 2\narms:\n  a: {model: sim}\n  b: {model: sim, scale: 1, scale: 2}\n"
          "  a: {model: sim}\n" TAIL,
     "s.yaml:4:1: duplicate key \"seed\", expected it once, first at 3:1\n"
     "s.yaml:7:29: duplicate key \"scale\" in arms.b, expected it once, first at 7:19\n"
     "s.yaml:8:3: duplicate arm \"a\", expected it once, first at 6:3\n"},
    {"data: {kind: synthetic}\nmodels:\n  sim: {engine: sim}\n  sim: {engine: sim}\n"
     "arms: {a: {model: sim}}\n" TAIL,
     "s.yaml:4:3: duplicate model \"sim\", expected it once, first at 3:3\n"},
    /* types and ranges */
    {HEAD "seed: -1\nname: [x]\narms: {a: {model: sim, scale: fast}}\nbaseline: a\n"
          "grid: {contexts: [64, 0, big, 64], samples: none, repeats: 0}\n"
          "generate: {tokens: 1.5, stop_at_eos: maybe, temperature: 0.7}\n"
          "measure: {mode: prefil, warmup: \"3\", timeout: 0, exclusive: host, noise: 2}\n",
     "s.yaml:3:7: seed is \"-1\", expected a whole number from 0 to 18446744073709551615\n"
     "s.yaml:4:7: name is a list, expected a string\n"
     "s.yaml:5:31: arms.a.scale is \"fast\", expected a number from 1e-06 to 1000000\n"
     "s.yaml:7:23: grid.contexts holds \"0\", expected whole numbers from 1 to 16777216\n"
     "s.yaml:7:26: grid.contexts holds \"big\", expected whole numbers from 1 to 16777216\n"
     "s.yaml:7:31: grid.contexts holds 64 twice, expected different numbers\n"
     "s.yaml:7:45: grid.samples is \"none\", expected a whole number from 1 to 4294967295, or all\n"
     "s.yaml:7:60: grid.repeats is \"0\", expected a whole number from 1 to 65535\n"
     "s.yaml:8:20: generate.tokens is \"1.5\", expected a whole number from 1 to 1048576, or a map "
     "of them by context\n"
     "s.yaml:8:38: generate.stop_at_eos is \"maybe\", expected true or false\n"
     "s.yaml:8:58: generate.temperature is 0.7, expected 0: a simulated model draws no tokens\n"
     "s.yaml:9:17: measure.mode is \"prefil\", expected prefill or e2e, did you mean prefill\n"
     "s.yaml:9:33: measure.warmup is \"3\", expected a whole number from 0 to 10000\n"
     "s.yaml:9:47: measure.timeout is \"0\", expected a number of at least 0.001\n"
     "s.yaml:9:61: measure.exclusive is \"host\", expected none or node\n"
     "s.yaml:9:74: measure.noise is \"2\", expected a number from 0 to 1\n"},
    {HEAD "arms: {a: {model: sim}}\nbaseline: a\ngrid: {contexts: [], samples: 1}\nmeasure: 5\n",
     "s.yaml:5:18: grid.contexts is an empty list, expected a list of whole numbers from 1 to "
     "16777216, or [auto]\n"
     "s.yaml:6:10: measure is \"5\", expected a map\n"},
    {HEAD "arms: {a: {model: sim}}\nbaseline: a\ngrid: {contexts: 64}\n",
     "s.yaml:5:7: grid.samples is missing, expected a whole number from 1 to 4294967295, or all\n"
     "s.yaml:5:18: grid.contexts is \"64\", expected a list of whole numbers from 1 to 16777216, "
     "or [auto]\n"},
    /* tokens by context */
    {HEAD "arms: {a: {model: sim}}\nbaseline: a\ngrid: {contexts: [64, 128], samples: 1}\n"
          "generate: {tokens: {64: 0, long: 5, 32: 9}}\n",
     "s.yaml:6:20: generate.tokens has no number for context 64, expected one for each of "
     "grid.contexts\n"
     "s.yaml:6:20: generate.tokens has no number for context 128, expected one for each of "
     "grid.contexts\n"
     "s.yaml:6:25: generate.tokens.64 is \"0\", expected a whole number from 1 to 1048576\n"
     "s.yaml:6:28: generate.tokens has the key \"long\", expected context lengths\n"},
    {HEAD "arms: {a: {model: sim}}\nbaseline: a\ngrid: {contexts: [64], samples: 1}\n"
          "generate: {tokens: {64: 5, 64: 6}}\n",
     "s.yaml:6:28: duplicate key \"64\" in generate.tokens, expected it once\n"},
    /* names that mean nothing */
    {HEAD "arms:\n  base: {model: smi}\n  fast: {model: sim, baseline: bsae}\n"
          "baseline: fsat\ngrid: {contexts: [64], samples: 2}\n",
     "s.yaml:4:17: arms.base.model is \"smi\", expected a model of this sweep, did you mean sim\n"
     "s.yaml:6:11: baseline is \"fsat\", expected an arm of this sweep, did you mean fast\n"},
    {HEAD "arms:\n  base: {model: sim}\n  fast: {model: sim, baseline: bsae}\n"
          "baseline: base\ngrid: {contexts: [64], samples: 2}\n",
     "s.yaml:5:32: arms.fast.baseline is \"bsae\", expected an arm of this sweep, did you mean "
     "base\n"},
    {HEAD "arms: {a: {model: sim}, b: {model: sim}}\ngrid: {contexts: [64], samples: 2}\n",
     "s.yaml:1:1: baseline is missing, expected an arm that others are compared with\n"},
    {HEAD "arms: {\"a,b\": {model: sim}, \"\": {model: sim}, a: sim}\n" TAIL,
     "s.yaml:3:8: arm \"a,b\" cannot be a name, expected 1 to 64 bytes without , / \\ | quotes, "
     "braces or outer blanks\n"
     "s.yaml:3:29: arm \"\" cannot be a name, expected 1 to 64 bytes without , / \\ | quotes, "
     "braces or outer blanks\n"
     "s.yaml:3:50: arms.a is \"sim\", expected a map with a model\n"},
    /* engines and whose keys are whose */
    {"data: {kind: synthetic}\nmodels: {m: {engine: smi}, n: {path: /none, decode_us: 3}, "
     "o: {engine: sim, dtype: f32}, p: {dtype: f33, path: 1}, q: {engine: {exe: [x]}}}\n"
     "arms: {a: {model: n, scale: 2}, b: {model: m}}\n" TAIL,
     "s.yaml:2:22: models.m.engine is \"smi\", expected sim or {exec: [ARGV…], ids_from: MODEL}, "
     "did you mean sim\n"
     "s.yaml:2:38: models.n.path is \"/none\", expected a file or directory that exists\n"
     "s.yaml:2:45: models.n.decode_us is not a key of this engine, expected a model with `engine: "
     "sim`\n"
     "s.yaml:2:77: models.o.dtype is not a key of this engine, expected a model without `engine: "
     "sim`\n"
     "s.yaml:2:101: models.p.dtype is \"f33\", expected f32, bf16, f16 or auto, did you mean f32\n"
     "s.yaml:2:128: models.q.engine.exec is missing, expected a list of strings\n"
     "s.yaml:2:129: unknown key \"exe\" in models.q.engine, expected exec or ids_from, did you "
     "mean "
     "exec\n"
     "s.yaml:3:22: arms.a.scale is not a key of this engine, expected a model with `engine: "
     "sim`\n"},
    {"data: {kind: synthetic}\nmodels: {m: {dtype: f32}, n: 5, s: {engine: sim, fail: {crsh: 1, "
     "oom: 2}}, w: {path: ., weights: random}}\narms: {a: {model: s}}\n" TAIL,
     "s.yaml:2:13: models.m.path is missing, expected a model's directory, or an engine\n"
     "s.yaml:2:30: models.n is \"5\", expected a map with a path or an engine\n"
     "s.yaml:2:57: unknown key \"crsh\" in models.s.fail, expected crash, hang, oom or garbage, "
     "did "
     "you mean crash\n"
     "s.yaml:2:71: models.s.fail.oom is \"2\", expected a number from 0 to 1\n"
     "s.yaml:2:98: models.w.weights is \"random\", expected random:SEED\n"},
    {"data: {kind: synthetic}\nmodels: {m: {path: .}, s: {engine: sim}}\narms: {a: {model: m, "
     "prune: "
     "{method: sdpt, keep: 0}}, b: {model: m, prune: {method: sdtp, layrs: [1], weights: /none}}, "
     "c: "
     "{model: m, prune: {method: random, keep: [0.5, 2], layers: [-1]}}, d: {model: s, prune: "
     "{}}}\n" TAIL,
     "s.yaml:3:38: arms.a.prune.method is \"sdpt\", expected sdtp, random, fastv, lazyllm, h2o, "
     "snapkv, pyramidkv, streamingllm, tova or prumerge, did you mean sdtp\n"
     "s.yaml:3:50: arms.a.prune.keep is \"0\", expected a number, or a list of them, from 1e-06 to "
     "1\n"
     "s.yaml:3:76: arms.b.prune.keep is missing, expected keep or total_keep\n"
     "s.yaml:3:91: unknown key \"layrs\" in arms.b.prune, expected method, keep, total_keep, "
     "layers, "
     "weights, positions, tokens, head, tail, tail_min, window, kernel, beta, recent, average, "
     "plus, "
     "neighbours or seed, did you mean layers\n"
     "s.yaml:3:112: arms.b.prune.weights is \"/none\", expected a file or directory that exists\n"
     "s.yaml:3:165: arms.c.prune.keep is a list with other things in it, expected a number, or a "
     "list "
     "of them, from 1e-06 to 1\n"
     "s.yaml:3:184: arms.c.prune.layers holds \"-1\", expected whole numbers from 0 to 65535\n"
     "s.yaml:3:205: arms.d.prune is not a key of this engine, expected a model without `engine: "
     "sim`\n"},
    {HEAD
     "arms: {a: {model: sim}, b: {model: sim, gamma: 4}, c: {model: sim, acceptance: 1.5}}\n" TAIL,
     "s.yaml:3:48: arms.b.gamma is given without acceptance, expected both or none\n"
     "s.yaml:3:80: arms.c.acceptance is \"1.5\", expected a number from 0 to 1\n"},
    /* batches and closed loops */
    {HEAD "arms: {a: {model: sim}, b: {model: sim, batch: 2, concurrency: 3}, c: {model: sim, "
          "requests: 4}, d: {model: sim, concurrency: 4, requests: 3}, e: {model: sim, batch: 2, "
          "acceptance: 0.5}, f: {model: sim, batch: 0}, g: {model: sim, concurrency: 2000}}\n" TAIL,
     "s.yaml:3:48: arms.b.batch is 2 beside concurrency 3, expected one of them: a batch is fixed, "
     "a loop makes its own\n"
     "s.yaml:3:94: arms.c.requests is given without concurrency, expected both or none\n"
     "s.yaml:3:140: arms.d.requests is 3, expected at least concurrency, 4: each client asks once\n"
     "s.yaml:3:167: arms.e drafts (acceptance) in a batch, expected one sequence: simulated "
     "drafting has no batches\n"
     "s.yaml:3:211: arms.f.batch is \"0\", expected a whole number from 1 to 1024\n"
     "s.yaml:3:244: arms.g.concurrency is \"2000\", expected a whole number from 1 to 1024\n"},
    /* programs and files that are not there */
    {"data: {kind: text, path: corpus.txt}\n"
     "models: {m: {engine: {exec: [no-such-program-here]}}, n: {engine: {exec: [./gone.py]}}, "
     "o: {engine: {exec: [cat], ids_from: sm}}}\n"
     "arms: {a: {model: m}, b: {model: n}, c: {model: o}}\n" TAIL,
     "s.yaml:1:26: data.path is \"corpus.txt\", expected a file or directory that exists\n"
     "s.yaml:2:29: models.m.engine.exec starts \"no-such-program-here\", expected a program found "
     "in PATH\n"
     "s.yaml:2:74: models.n.engine.exec starts \"./gone.py\", expected a program that exists\n"
     "s.yaml:2:125: models.o.engine.ids_from is \"sm\", expected a model of this sweep\n"},
    {"data: {kind: text}\nmodels: {sim: {engine: sim}}\narms: {a: {model: sim}}\n" TAIL,
     "s.yaml:1:7: data.path is missing, expected a text file or a folder of them\n"},
    {"data: {kind: synthetic, path: x}\nmodels: {sim: {engine: sim}}\narms: {a: {model: sim}}\n"
     "baseline: a\ngrid: {contexts: [64], samples: all}\n",
     "s.yaml:1:31: data.path is given with synthetic data, expected kind: text, needle or "
     "longbench\n"
     "s.yaml:5:33: grid.samples is all, expected a number, since synthetic data has no end\n"},
    {"data: {kind: longbenhc}\nmodels: {sim: {engine: sim}}\narms: {a: {model: sim}}\n" TAIL,
     "s.yaml:1:14: data.kind is \"longbenhc\", expected text, synthetic, eventgpt, dsec, needle or "
     "longbench, did you mean longbench\n"},
    {"data: {kind: eventgpt}\nmodels: {sim: {engine: sim}}\narms: {a: {model: sim}}\n"
     "baseline: a\ngrid: {contexts: [64], samples: 4}\n",
     "s.yaml:1:7: data.dir is missing, expected the folder of the scenes\n"
     "s.yaml:5:18: grid.contexts holds lengths, expected [auto]: a prompt about a scene has its "
     "own "
     "length\n"},
    {"data: {kind: dsec, dir: nowhere, questions: q.txt, path: x, n_questions: 0, max_window_ms: "
     "-1, "
     "cache_vision: 2}\nmodels: {sim: {engine: sim}}\narms: {a: {model: sim}}\n"
     "baseline: a\ngrid: {contexts: [auto], samples: all}\n",
     "s.yaml:1:25: data.dir is \"nowhere\", expected a file or directory that exists\n"
     "s.yaml:1:45: data.questions is \"q.txt\", expected a file or directory that exists\n"
     "s.yaml:1:58: data.path is given with dsec data, expected kind: text, needle or longbench\n"
     "s.yaml:1:74: data.n_questions is \"0\", expected a whole number from 1 to 1000000\n"
     "s.yaml:1:92: data.max_window_ms is \"-1\", expected a number of at least 0.001, or none\n"
     "s.yaml:1:110: data.cache_vision is \"2\", expected true or false\n"},
    {"data: {kind: synthetic, dir: x}\nmodels: {sim: {engine: sim}}\narms: {a: {model: sim}}\n"
     "baseline: a\ngrid: {contexts: [auto], samples: 2}\n",
     "s.yaml:1:30: data.dir is given with synthetic data, expected kind: eventgpt or dsec\n"
     "s.yaml:5:18: grid.contexts is [auto], expected lengths: only prompts about scenes (data.kind "
     "eventgpt or dsec) have one of their own\n"},
    {HEAD "arms: {a: {model: sim}}\nbaseline: a\ngrid: {contexts: [1], samples: 4000000000, "
          "repeats: 60000}\n",
     "s.yaml:5:7: the grid has more trials than a results file can hold, expected at most "
     "1099511627776\n"},
};

static void test_bad(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        unit_refuses(bad[i].text, bad[i].said, "s.yaml:");
}

/* Keys that later versions have are unknown today, and nothing is suggested in their place. */
static void test_later_keys(void **state)
{
    static const char *const texts[] = {
        HEAD "stage: {}\narms: {a: {model: sim}}\n" TAIL,
    };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct pl_sweep *s = NULL;
        char said[8192];
        assert_int_equal(unit_load(texts[i], NULL, &s, said, sizeof said), PL_ESWEEP);
        assert_non_null(strstr(said, "unknown key"));
        assert_null(strstr(said, "did you mean"));
    }
}

static void test_no_file(void **state)
{
    struct pl_problems p = {0};
    struct pl_err err = {""};
    struct pl_sweep *s = NULL;
    (void)state;
    assert_int_equal(pl_sweep_load("none.yaml", NULL, &s, &p, &err), PL_ENOENT);
    assert_non_null(strstr(err.text, "none.yaml"));
    assert_int_equal(p.n, 0);
    assert_int_equal(mkdir("folder", 0700), 0);
    assert_int_not_equal(pl_sweep_load("folder", NULL, &s, &p, &err), PL_OK);
    pl_problems_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_folder(test_bad),
        in_folder(test_later_keys),
        in_folder(test_no_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
