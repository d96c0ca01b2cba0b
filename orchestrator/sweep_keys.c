#include "orchestrator/sweep_keys.h"

#include "base/prune_keys.h"

#include <stdio.h>
#include <string.h>

#define ROOT PL_SECTION_ROOT
#define DATA PL_SECTION_DATA
#define MODEL PL_SECTION_MODEL
#define ENGINE PL_SECTION_ENGINE
#define FAIL PL_SECTION_FAIL
#define ARM PL_SECTION_ARM
#define DRAFT PL_SECTION_DRAFT
#define GRID PL_SECTION_GRID
#define GENERATE PL_SECTION_GENERATE
#define MEASURE PL_SECTION_MEASURE

const struct pl_sweep_key pl_sweep_keys[] = {
    /* section, name, type, min, max, choices, default, unit, engines, default in words, help */
    {ROOT, "name", PL_KEY_STR, 0, 0, NULL, "null", "", PL_FOR_ALL, "the file's name",
     "what the sweep is called in outputs"},
    {ROOT, "seed", PL_KEY_U64, 0, 0, NULL, "1", "", PL_FOR_ALL, NULL,
     "samples, order and simulated times are drawn from it"},
    {ROOT, "data", PL_KEY_MAP, 0, 0, NULL, NULL, "", PL_FOR_ALL, NULL, "where samples come from"},
    {ROOT, "models", PL_KEY_MAP, 0, 0, NULL, NULL, "", PL_FOR_ALL, NULL, "the models, by name"},
    {ROOT, "arms", PL_KEY_MAP, 0, 0, NULL, NULL, "", PL_FOR_ALL, NULL,
     "what is compared, by name, in the order of the tables"},
    {ROOT, "baseline", PL_KEY_STR, 0, 0, NULL, "null", "", PL_FOR_ALL,
     "required, unless there is one arm or every arm has its own",
     "the arm that others are compared with"},
    {ROOT, "adapter_dir", PL_KEY_PATH, 0, 0, NULL, "null", "path", PL_FOR_ALL,
     "drafts name their weights",
     "where `arms.A.draft` finds an adapter or heads by name: L4.safetensors, eagle.safetensors"},
    {ROOT, "grid", PL_KEY_MAP, 0, 0, NULL, NULL, "", PL_FOR_ALL, NULL,
     "contexts × samples × repeats"},
    {ROOT, "generate", PL_KEY_MAP, 0, 0, NULL, "{}", "", PL_FOR_ALL, "the defaults below",
     "what every trial generates"},
    {ROOT, "measure", PL_KEY_MAP, 0, 0, NULL, "{}", "", PL_FOR_ALL, "the defaults below",
     "how trials are timed"},

    {DATA, "kind", PL_KEY_CHOICE, 0, 0, "text|synthetic|eventgpt|dsec|needle|longbench", NULL, "",
     PL_FOR_ALL, NULL,
     "text: one UTF-8 file or a folder of them; synthetic: seeded random ids of the arm's "
     "vocabulary; eventgpt: scenes of an instruction JSON; dsec: scenes of a DSEC folder; needle: "
     "facts hidden in a text; longbench: a JSON Lines file in LongBench's format"},
    {DATA, "path", PL_KEY_PATH, 0, 0, NULL, "null", "path", PL_FOR_ALL,
     "required for text, needle, longbench", "the file; of text and needle also a folder"},
    {DATA, "needles", PL_KEY_INT, 1, 64, NULL, "1", "facts", PL_FOR_ALL, NULL,
     "hidden in each text; one of them is asked for"},
    {DATA, "prompt", PL_KEY_STR, 0, 0, NULL, "null", "", PL_FOR_ALL,
     "{context}, a question line with {input}, Answer:", "what is made of an item"},
    {DATA, "dir", PL_KEY_PATH, 0, 0, NULL, "null", "path", PL_FOR_ALL,
     "required for eventgpt, dsec", "the folder that the scenes' files are in"},
    {DATA, "questions", PL_KEY_PATH, 0, 0, NULL, "null", "path", PL_FOR_ALL,
     "the one .json file in dir", "an instruction JSON, or a list of questions for every scene"},
    {DATA, "n_questions", PL_KEY_INT, 1, 1000000, NULL, "10", "questions", PL_FOR_ALL, NULL,
     "at most so many of a scene, the first ones"},
    {DATA, "max_window_ms", PL_KEY_FLOAT_OR_NONE, 0.001, 1e9, NULL, "null", "ms", PL_FOR_ALL,
     "100 for eventgpt, none for dsec", "event windows as long as this are refused"},
    {DATA, "cache_vision", PL_KEY_BOOL, 0, 0, NULL, "false", "", PL_FOR_ALL, NULL,
     "one vision pass for all questions of a scene; every table then says so"},

    {MODEL, "path", PL_KEY_PATH, 0, 0, NULL, "null", "path", PL_FOR_REAL,
     "required, unless there is an engine",
     "a Hugging Face directory; with `weights: random:…` a config.json or its directory"},
    {MODEL, "engine", PL_KEY_ANY, 0, 0, NULL, "null", "", PL_FOR_ALL, "our own runner",
     "`sim`, or `{exec: [ARGV…], ids_from: MODEL}` (a foreign engine, needs --allow-exec)"},
    {MODEL, "weights", PL_KEY_RANDOM, 0, 0, NULL, "null", "", PL_FOR_REAL, "the file's",
     "random weights of the model's shape; rows are labelled synthetic"},
    {MODEL, "dtype", PL_KEY_CHOICE, 0, 0, "f32|bf16|f16|auto", "null", "", PL_FOR_REAL,
     "auto: as stored", "type that weights are held in"},
    {MODEL, "device", PL_KEY_CHOICE, 0, 0, "auto|cpu|cuda", "\"auto\"", "", PL_FOR_REAL, NULL,
     "where it runs (auto: the CPU); a build without CUDA, or a machine without a GPU, refuses "
     "cuda when it describes the model"},
    {MODEL, "threads", PL_KEY_INT, 1, 1024, NULL, "null", "threads", PL_FOR_REAL,
     "the worker's share of cores", "CPU threads"},
    {MODEL, "kv", PL_KEY_CHOICE, 0, 0, "f32|f16|bf16|auto", "null", "", PL_FOR_REAL,
     "auto: the dtype's, f16 beside quantised weights", "type of the KV cache"},
    {MODEL, "deterministic", PL_KEY_BOOL, 0, 0, NULL, "false", "", PL_FOR_OWN, NULL,
     "cuda: verifying up to 256 tokens, a drafted tree's too, gives the bits of as many decodes (a "
     "prompt of more than 256 tokens depends on how it is cut), and a step of several sequences "
     "those of each alone; the CPU always does"},
    {MODEL, "preprocess", PL_KEY_CHOICE, 0, 0, "host|device", "\"host\"", "", PL_FOR_OWN, NULL,
     "models with eyes: who makes pixels of events and frames: the host, or the model's GPU "
     "(device: cuda), bit for bit the same; files are read, and clips decoded, by the host"},
    {MODEL, "activations", PL_KEY_CHOICE, 0, 0, "int8|f32", "\"int8\"", "", PL_FOR_REAL, NULL,
     "what products read on the CPU: int8 (with quantised weights 8-bit integers, quantised once "
     "for each product; with bf16 weights bf16, rounded likewise, where the processor has AVX-512 "
     "BF16; else f32), or f32 (slower; the reference)"},
    {MODEL, "prefill_us_per_token", PL_KEY_FLOAT, 0, 1e9, NULL, "2", "µs a token", PL_FOR_SIM, NULL,
     "mean prefill time of one prompt token"},
    {MODEL, "decode_us", PL_KEY_FLOAT, 0, 1e12, NULL, "300", "µs", PL_FOR_SIM, NULL,
     "mean time of one decode step"},
    {MODEL, "noise", PL_KEY_FLOAT, 0, 10, NULL, "0", "σ of ln time", PL_FOR_SIM, NULL,
     "of each trial on its own"},
    {MODEL, "sample_effect", PL_KEY_FLOAT, 0, 10, NULL, "0", "σ of ln time", PL_FOR_SIM, NULL,
     "of a sample, common to all arms"},
    {MODEL, "device_effect", PL_KEY_FLOAT, 0, 10, NULL, "0", "σ of ln time", PL_FOR_SIM, NULL,
     "of a device, common to all arms"},
    {MODEL, "drift_per_hour", PL_KEY_FLOAT, -1, 1000, NULL, "0", "fraction an hour", PL_FOR_SIM,
     NULL, "times grow by this, common to all arms"},
    {MODEL, "virtual", PL_KEY_BOOL, 0, 0, NULL, "false", "", PL_FOR_SIM, NULL,
     "report times without waiting for them"},
    {MODEL, "batch_cost", PL_KEY_FLOAT, 0, 1, NULL, "0", "fraction", PL_FOR_SIM, NULL,
     "each further sequence of a decode step adds this fraction of decode_us"},
    {MODEL, "load_s", PL_KEY_FLOAT, 0, 86400, NULL, "0", "s", PL_FOR_SIM, NULL, "time of a load"},
    {MODEL, "cold", PL_KEY_FLOAT, 1, 1e6, NULL, "1", "factor", PL_FOR_SIM, NULL,
     "of the first trial after a load; what is over 1 halves with each trial"},
    {MODEL, "fail", PL_KEY_MAP, 0, 0, NULL, "null", "", PL_FOR_SIM, "nothing fails",
     "how often a trial breaks its runner"},
    {MODEL, "acceptance", PL_KEY_FLOAT, 0, 1, NULL, "null", "probability", PL_FOR_SIM,
     "no drafting", "the default of its arms, see arms.A"},
    {MODEL, "gamma", PL_KEY_INT, 1, 64, NULL, "null", "tokens", PL_FOR_SIM, "1",
     "the default of its arms"},
    {MODEL, "draft_us", PL_KEY_FLOAT, 0, 1e12, NULL, "null", "µs", PL_FOR_SIM, "0",
     "the default of its arms"},
    {MODEL, "verify_us", PL_KEY_FLOAT, 0, 1e12, NULL, "null", "µs", PL_FOR_SIM, "decode_us",
     "the default of its arms"},

    {ENGINE, "exec", PL_KEY_STRS, 0, 0, NULL, NULL, "", PL_FOR_ALL, NULL,
     "the program and its arguments; speaks docs/RUNNER.md"},
    {ENGINE, "ids_from", PL_KEY_STR, 0, 0, NULL, "null", "model", PL_FOR_ALL,
     "the engine gets text", "give it the token ids of this model's tokenizer"},

    {FAIL, "crash", PL_KEY_FLOAT, 0, 1, NULL, "0", "probability", PL_FOR_ALL, NULL,
     "the runner dies"},
    {FAIL, "hang", PL_KEY_FLOAT, 0, 1, NULL, "0", "probability", PL_FOR_ALL, NULL,
     "the runner never answers"},
    {FAIL, "oom", PL_KEY_FLOAT, 0, 1, NULL, "0", "probability", PL_FOR_ALL, NULL,
     "the runner is out of memory"},
    {FAIL, "garbage", PL_KEY_FLOAT, 0, 1, NULL, "0", "probability", PL_FOR_ALL, NULL,
     "the runner answers with bytes that are not the protocol"},

    {ARM, "model", PL_KEY_STR, 0, 0, NULL, NULL, "model", PL_FOR_ALL, NULL,
     "the model that it runs"},
    {ARM, "baseline", PL_KEY_STR, 0, 0, NULL, "null", "arm", PL_FOR_ALL, "the top-level baseline",
     "the arm that it is compared with"},
    {ARM, "matrix", PL_KEY_MAP, 0, 0, NULL, "null", "", PL_FOR_ALL, "one arm",
     "lists of values by key: one arm a combination"},
    {ARM, "draft", PL_KEY_MAP, 0, 0, NULL, "null", "", PL_FOR_OWN, "it does not draft",
     "speculative decoding: who drafts, and how; see arms.A.draft"},
    {ARM, "prune", PL_KEY_MAP, 0, 0, NULL, "null", "", PL_FOR_REAL, "every token stays",
     "drops prompt tokens, or rows of their KV"},
    {ARM, "batch", PL_KEY_INT, 1, 1024, NULL, "1", "sequences", PL_FOR_ALL, NULL,
     "so many samples in one trial, all at once (see Batches)"},
    {ARM, "concurrency", PL_KEY_INT, 1, 1024, NULL, "1", "sequences", PL_FOR_ALL, NULL,
     "a closed loop of so many clients in one trial, continuous batching (see Concurrency)"},
    {ARM, "requests", PL_KEY_INT, 1, 65536, NULL, "null", "sequences", PL_FOR_ALL,
     "concurrency: each client asks once", "requests that a trial's clients make in all"},
    {ARM, "scale", PL_KEY_FLOAT, 1e-6, 1e6, NULL, "1", "factor", PL_FOR_SIM, NULL,
     "multiplies its times"},
    {ARM, "fail", PL_KEY_MAP, 0, 0, NULL, "null", "", PL_FOR_SIM, "the model's",
     "like models.M.fail, over the model's"},
    {ARM, "acceptance", PL_KEY_FLOAT, 0, 1, NULL, "null", "probability", PL_FOR_SIM, "no drafting",
     "drafts, and each drafted position is accepted with this, independently"},
    {ARM, "gamma", PL_KEY_INT, 1, 64, NULL, "null", "tokens", PL_FOR_SIM, "1",
     "tokens drafted a round (needs acceptance)"},
    {ARM, "draft_us", PL_KEY_FLOAT, 0, 1e12, NULL, "null", "µs", PL_FOR_SIM, "0",
     "mean time of drafting one token (needs acceptance)"},
    {ARM, "verify_us", PL_KEY_FLOAT, 0, 1e12, NULL, "null", "µs", PL_FOR_SIM,
     "the model's decode_us", "mean time of one verification (needs acceptance)"},

    {DRAFT, "model", PL_KEY_STR, 0, 0, NULL, "null", "model", PL_FOR_ALL,
     "required for model, retokenize and adapters but B1", "the model that drafts"},
    {DRAFT, "method", PL_KEY_CHOICE, 0, 0, "prompt_lookup|model|eagle|medusa|retokenize|adapter",
     "null", "", PL_FOR_ALL, "adapter where there is one, else model", "who drafts"},
    {DRAFT, "adapter", PL_KEY_CHOICE, 0, 0, "L1|L2|L3|L4|L5|L5F|B1", "null", "", PL_FOR_ALL, "none",
     "what makes the drafter's hidden states the verifier's"},
    {DRAFT, "weights", PL_KEY_PATH, 0, 0, NULL, "null", "path", PL_FOR_ALL, "found in adapter_dir",
     "safetensors of the adapter or the heads"},
    {DRAFT, "gamma", PL_KEY_INT, 1, 255, NULL, "null", "tokens", PL_FOR_ALL, "1",
     "tokens drafted a round, at most (with a tree: its depth)"},
    {DRAFT, "overlap", PL_KEY_CHOICE, 0, 0, "prefill|none", "\"prefill\"", "", PL_FOR_ALL, NULL,
     "prefill: a drafter with a model starts beside the verifier's prefill and drafts until that "
     "ends"},
    {DRAFT, "after_prefill", PL_KEY_CHOICE, 0, 0, "none|gamma", "null", "", PL_FOR_ALL,
     "none for an adapter without gamma, else gamma",
     "whether it goes on drafting, gamma tokens a round"},
    {DRAFT, "transport", PL_KEY_CHOICE, 0, 0, "auto|nccl|peer|host", "\"auto\"", "", PL_FOR_ALL,
     NULL,
     "what carries the drafter's states to the adapter: NCCL or a copy between a pair of GPUs, the "
     "host's memory; auto: what the devices at hand allow (see Transports)"},
    {DRAFT, "temperature", PL_KEY_FLOAT, 0, 100, NULL, "0", "", PL_FOR_ALL, NULL,
     "0: greedy, the verifier's own output; above: both sides sample, in the verifier's "
     "distribution"},
    {DRAFT, "sm_share", PL_KEY_FLOAT, 0.01, 0.99, NULL, "null", "fraction", PL_FOR_ALL,
     "both lanes on all of them",
     "of the GPU's multiprocessors, for the drafter while both lanes run on one GPU (device: cuda "
     "of both); the verifier has the others"},
    {DRAFT, "adaptive", PL_KEY_BOOL, 0, 0, NULL, "false", "", PL_FOR_ALL, NULL,
     "a round drafts one more than the last one where all were accepted, else one more than were; "
     "at most gamma"},
    {DRAFT, "min_ngram", PL_KEY_INT, 1, 64, NULL, "null", "tokens", PL_FOR_ALL, "1",
     "prompt_lookup: the shortest end of the text that is looked for"},
    {DRAFT, "max_ngram", PL_KEY_INT, 1, 64, NULL, "null", "tokens", PL_FOR_ALL, "4",
     "prompt_lookup: the longest"},
    {DRAFT, "tree", PL_KEY_CHOICE, 0, 0, "chain|static|dynamic", "null", "", PL_FOR_ALL,
     "chain; with tree_top more than 1: dynamic (eagle), static (medusa)",
     "eagle, medusa: what is drafted and verified in one pass, gamma deep. static: the published "
     "shape (63 nodes of Medusa, 25 of EAGLE-1); dynamic: EAGLE-2's likeliest nodes"},
    {DRAFT, "tree_top", PL_KEY_INT, 1, 16, NULL, "null", "", PL_FOR_ALL, "10 with a tree",
     "eagle, medusa: children of a node at most"},
    {DRAFT, "tree_tokens", PL_KEY_INT, 1, 255, NULL, "null", "tokens", PL_FOR_ALL, "60",
     "eagle, medusa: nodes of a tree at most"},

#define PL_X(name, type, min, max, choices, dflt, words, unit, methods, help)                      \
    {PL_SECTION_PRUNE, #name, PL_KEY_##type, min, max, choices, dflt, unit,                        \
     PL_FOR_ALL,       words, help},
    PL_PRUNE_KEYS(PL_X)
#undef PL_X

        {GRID, "contexts", PL_KEY_INTS_OR_AUTO, 1, 16777216, NULL, NULL, "tokens", PL_FOR_ALL, NULL,
         "context lengths; every id counts, BOS included. [auto]: each prompt's own (eventgpt, "
         "dsec)"},
    {GRID, "samples", PL_KEY_INT_OR_ALL, 1, 4294967295.0, NULL, NULL, "", PL_FOR_ALL, NULL,
     "samples at each context; `all`: as many as are disjoint in the text, or all scenes and their "
     "questions"},
    {GRID, "repeats", PL_KEY_INT, 1, 65535, NULL, "1", "", PL_FOR_ALL, NULL,
     "trials of each arm × context × sample"},

    {GENERATE, "tokens", PL_KEY_INT_BY_CONTEXT, 1, 1048576, NULL, "128", "tokens", PL_FOR_ALL, NULL,
     "exactly this many are generated, unless stop_at_eos; `{128: 50, 512: 100}`: 50 after a "
     "context of "
     "128, 100 after 512"},
    {GENERATE, "stop_at_eos", PL_KEY_BOOL, 0, 0, NULL, "false", "", PL_FOR_ALL, NULL,
     "end at the model's end-of-sequence token"},
    {GENERATE, "temperature", PL_KEY_FLOAT, 0, 100, NULL, "0", "", PL_FOR_ALL, NULL,
     "0: greedy; above: drawn from softmax(logits / temperature), by the sweep's seed and the "
     "prompt; drafting arms without a temperature of their own take it, too"},

    {MEASURE, "mode", PL_KEY_CHOICE, 0, 0, "prefill|e2e", "\"e2e\"", "", PL_FOR_ALL, NULL,
     "prefill: trials end with the first token"},
    {MEASURE, "warmup", PL_KEY_INT, 0, 10000, NULL, "3", "trials", PL_FOR_ALL, NULL,
     "untimed trials for each arm × context after each load"},
    {MEASURE, "timeout", PL_KEY_FLOAT, 0.001, 1e7, NULL, "null", "s", PL_FOR_ALL,
     "max(60, 20 × median)", "a trial that takes longer has failed"},
    {MEASURE, "load_timeout", PL_KEY_FLOAT, 0.001, 1e7, NULL, "null", "s", PL_FOR_ALL,
     "max(60, 20 × median)", "the same for a load"},
    {MEASURE, "exclusive", PL_KEY_CHOICE, 0, 0, "none|node", "null", "", PL_FOR_ALL,
     "node for real engines on the CPU, else none", "node: one trial at a time on a node"},
    {MEASURE, "quality", PL_KEY_INT, 0, 4096, NULL, "32", "tokens", PL_FOR_ALL, NULL,
     "of the text behind the prompt, scored after each timed trial; 0: none"},
    {MEASURE, "energy", PL_KEY_BOOL, 0, 0, NULL, "false", "", PL_FOR_ALL, NULL,
     "after the grid, at least 10 s of nothing but each arm × context, for its energy"},
    {MEASURE, "kernels", PL_KEY_BOOL, 0, 0, NULL, "false", "", PL_FOR_ALL, NULL,
     "behind an arm's warm-ups at a context one more, with the time of each kernel (CUPTI's): the "
     "table `kernels`; every model needs device: cuda"},
    {MEASURE, "noise", PL_KEY_FLOAT, 0, 1, NULL, "0.01", "fraction", PL_FOR_ALL, NULL,
     "δ of the verdicts: a difference below it is called small"},
};
const size_t pl_sweep_n_keys = sizeof pl_sweep_keys / sizeof pl_sweep_keys[0];

const char *pl_section_name(enum pl_sweep_section s)
{
    static const char *const names[] = {"",
                                        "data",
                                        "models.M",
                                        "models.M.engine",
                                        "models.M.fail",
                                        "arms.A",
                                        "arms.A.draft",
                                        "arms.A.prune",
                                        "grid",
                                        "generate",
                                        "measure"};
    return names[s];
}

/* "a, b or c" from "a|b|c", each in front of `quote`s. */
static void list_choices(const char *choices, char *out, size_t size)
{
    size_t at = 0;
    while (*choices && at + 1 < size) {
        size_t n = strcspn(choices, "|");
        const char *next = choices[n] ? choices + n + 1 : choices + n;
        const char *sep = !*next ? "" : strchr(next, '|') ? ", " : " or ";
        int w = snprintf(out + at, size - at, "%.*s%s", (int)n, choices, sep);
        if (w < 0)
            return;
        at += (size_t)w;
        choices = next;
    }
}

static void number_range(const char *noun, const struct pl_sweep_key *k, char *out, size_t size)
{
    if (k->max >= 1e7)
        snprintf(out, size, "%s of at least %.10g", noun, k->min);
    else
        snprintf(out, size, "%s from %.10g to %.10g", noun, k->min, k->max);
}

void pl_key_expected(const struct pl_sweep_key *k, char *out, size_t size)
{
    if (size)
        out[0] = '\0';
    switch (k->type) {
    case PL_KEY_STR:
        snprintf(out, size, "a string");
        break;
    case PL_KEY_PATH:
        snprintf(out, size, "a path");
        break;
    case PL_KEY_INT:
        number_range("a whole number", k, out, size);
        break;
    case PL_KEY_U64:
        snprintf(out, size, "a whole number from 0 to 18446744073709551615");
        break;
    case PL_KEY_FLOAT:
        number_range("a number", k, out, size);
        break;
    case PL_KEY_FLOATS:
        number_range("a number, or a list of them,", k, out, size);
        break;
    case PL_KEY_BOOL:
        snprintf(out, size, "true or false");
        break;
    case PL_KEY_CHOICE:
        list_choices(k->choices, out, size);
        break;
    case PL_KEY_INTS:
        snprintf(out, size, "a list of whole numbers from %.10g to %.10g", k->min, k->max);
        break;
    case PL_KEY_INTS_OR_AUTO:
        snprintf(out, size, "a list of whole numbers from %.10g to %.10g, or [auto]", k->min,
                 k->max);
        break;
    case PL_KEY_FLOAT_OR_NONE:
        snprintf(out, size, "a number of at least %.10g, or none", k->min);
        break;
    case PL_KEY_INT_OR_ALL:
        snprintf(out, size, "a whole number from %.10g to %.10g, or all", k->min, k->max);
        break;
    case PL_KEY_INT_BY_CONTEXT:
        snprintf(out, size, "a whole number from %.10g to %.10g, or a map of them by context",
                 k->min, k->max);
        break;
    case PL_KEY_RANDOM:
        snprintf(out, size, "random:SEED");
        break;
    case PL_KEY_STRS:
        snprintf(out, size, "a list of strings");
        break;
    case PL_KEY_MAP:
        snprintf(out, size, "a map");
        break;
    case PL_KEY_ANY:
        snprintf(out, size, "sim or {exec: [ARGV…], ids_from: MODEL}");
        break;
    }
}

void pl_key_doc_row(const struct pl_sweep_key *k, char *out, size_t size)
{
    char expected[160], dflt[80];
    const char *section = pl_section_name(k->section);
    pl_key_expected(k, expected, sizeof expected);
    if (k->default_text)
        snprintf(dflt, sizeof dflt, "%s", k->default_text);
    else
        snprintf(dflt, sizeof dflt, "%s%s%s", k->dflt ? "`" : "", k->dflt ? k->dflt : "required",
                 k->dflt ? "`" : "");
    snprintf(out, size, "| `%s%s%s` | %s | %s | %s | %s |", section, section[0] ? "." : "", k->name,
             expected, k->unit, dflt, k->help);
}
