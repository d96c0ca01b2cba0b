/* Options that commands on a model share: which weights, where, and the input. */
#ifndef PL_CLI_RUNNER_MODEL_ARGS_H
#define PL_CLI_RUNNER_MODEL_ARGS_H

#include "base/json.h"
#include "base/status.h"
#include "cli/runner/opts.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "worker/runner/entry.h"

#include <stdint.h>

struct pl_model_args {
    const char *device, *dtype, *weights, *kv;
    int64_t threads;
    const char *ids, *ids_file, *prompt;
};

#define PL_MODEL_OPTS(a)                                                                           \
    {"device", 0, PL_ROPT_STR, &(a)->device, "cpu|cuda[:N]", "where it runs", 0, 0},               \
        {"threads", 't', PL_ROPT_INT, &(a)->threads, "N", "threads (default: the CPUs given)",     \
         1,         4096},                                                                         \
        {"dtype", 0, PL_ROPT_STR, &(a)->dtype, "f32|bf16|f16", "weights in memory (as stored)",    \
         0,       0},                                                                              \
        {"kv", 0, PL_ROPT_STR, &(a)->kv, "f32|bf16|f16", "KV cache (the dtype's)", 0, 0},          \
    {                                                                                              \
        "weights", 0, PL_ROPT_STR, &(a)->weights, "random:SEED",                                   \
            "random weights; only config.json is read", 0, 0                                       \
    }
#define PL_INPUT_OPTS(a)                                                                           \
    {"ids", 0, PL_ROPT_STR, &(a)->ids, "\"1 2 3\"", "input: token ids", 0, 0},                     \
        {"ids-file", 0, PL_ROPT_STR, &(a)->ids_file, "F.npy", "input: int32 or int64 ids", 0, 0},  \
    {                                                                                              \
        "prompt", 0, PL_ROPT_STR, &(a)->prompt, "TEXT", "input: a text", 0, 0                      \
    }

/* The model entry that the options come to, and its JSON (new reference, which entry borrows from).
 * PL_EUSAGE, PL_EUNSUPPORTED. */
PL_MUST_CHECK
enum pl_status pl_model_args_entry(const struct pl_model_args *a, const char *path, json_t **json,
                                   struct pl_entry *entry, struct pl_err *err);
/* The same, loaded. */
PL_MUST_CHECK
enum pl_status pl_model_args_load(const struct pl_model_args *a, const char *path, json_t **json,
                                  struct pl_entry *entry, struct pl_model **model,
                                  struct pl_err *err);
/* Exactly one of --ids, --ids-file and --prompt, checked against the vocabulary; appended to ids.
 * --prompt needs the tokenizer (NULL: PL_ENOENT with `why`). */
PL_MUST_CHECK
enum pl_status pl_model_args_input(const struct pl_model_args *a, const struct pl_tokenizer *t,
                                   const struct pl_err *why, int32_t vocab, struct pl_ids *ids,
                                   struct pl_err *err);

#endif
