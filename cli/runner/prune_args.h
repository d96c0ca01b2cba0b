/* --prune and --trace of commands on a model: an arm's key, and what it came to. */
#ifndef PL_CLI_RUNNER_PRUNE_ARGS_H
#define PL_CLI_RUNNER_PRUNE_ARGS_H

#include "cli/runner/opts.h"
#include "model/session.h"
#include "pruning/pruner.h"

struct pl_prune_args {
    const char *prune, *trace, *visual;
};

#define PL_PRUNE_OPTS(a)                                                                           \
    {"prune", 0, PL_ROPT_STR, &(a)->prune, "JSON", "an arm's `prune` (docs/SWEEP.md)", 0, 0},      \
        {"visual",    0,                                                                           \
         PL_ROPT_STR, &(a)->visual,                                                                \
         "FIRST:N",   "with --prune: ids that stand for a picture",                                \
         0,           0},                                                                          \
    {                                                                                              \
        "trace", 0, PL_ROPT_STR, &(a)->trace, "OUT.json", "what was kept, and KV lengths", 0, 0    \
    }

/* What the options come to; zeroed at first. pruner NULL: --prune is not given. */
struct pl_prune_setup {
    struct pl_pruner *pruner;
    uint8_t *visual;
};
/* Before the input is read: a method that makes a picture's rows fewer, into *merge (else NULL). */
PL_MUST_CHECK
enum pl_status pl_prune_args_merge(const struct pl_prune_args *a, struct pl_model *m,
                                   struct pl_prune_setup *out, const struct pl_vision_merge **merge,
                                   struct pl_err *err);
/* After that, for a prompt of n tokens. visual: [n] rows of a picture, or NULL (else --visual
 * says). PL_EUSAGE, PL_ESWEEP …: what is wrong with the options. */
PL_MUST_CHECK
enum pl_status pl_prune_args_open(const struct pl_prune_args *a, struct pl_model *m, size_t n,
                                  const uint8_t *visual, struct pl_prune_setup *out,
                                  struct pl_err *err);
void pl_prune_args_release(struct pl_prune_setup *s);
/* Adds the hooks. */
void pl_prune_args_session(const struct pl_prune_setup *s, struct pl_session_opts *o);
PL_MUST_CHECK
enum pl_status pl_prune_args_begin(const struct pl_prune_setup *s, const int32_t *ids, size_t n,
                                   struct pl_err *err);
/* After the prefill: KV is reduced, and *trace (NULL where none is wanted) becomes what --trace
 * writes: {stages, kept_kv, kv_len}. New reference. */
PL_MUST_CHECK
enum pl_status pl_prune_args_finish(const struct pl_prune_args *a, const struct pl_prune_setup *s,
                                    struct pl_session *session, json_t **trace, struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_prune_args_write(const struct pl_prune_args *a, const json_t *trace,
                                   struct pl_err *err);

#endif
