/*
 * The sweep: a YAML file (docs/SWEEP.md has every key) read into one resolved form. All mistakes
 * are collected, each as "file:line:column: what, expected what[, did you mean X]".
 *
 * The resolved sweep is JSON with every default written out, arms expanded (matrix) and in order,
 * paths as given, selection applied. It is what is stored, hashed (SHA-256 of its compact dump),
 * compared on --resume, and sent to the workers:
 *   {"name", "seed", "data": {…}, "models": {M: {…}}, "arms": [{"name", "model", "baseline", …}],
 * "baseline", "grid": {"contexts": […], "samples": N, "repeats": N}, "generate": {"tokens": N or
 * [N for each context], …}, "measure": {…}} A value that is decided later is null (dtype: as
 * stored, threads: the worker's share, timeout). A seed from 2^63 on is the negative integer of the
 * same 64 bits. grid.samples is 0 for `all` until the samples are opened.
 */
#ifndef PL_ORCHESTRATOR_SWEEP_H
#define PL_ORCHESTRATOR_SWEEP_H

#include "base/json.h"
#include "base/status.h"
#include "data/sample.h"
#include "results/record.h"

/* Run-time selection (CONTRACTS §1): --arms A,B --contexts N,… --samples N --set key=value. */
struct pl_select {
    const char *arms; /* comma-separated, NULL: all; a baseline that a chosen arm needs is added */
    const char *contexts; /* comma-separated lengths in place of the file's, NULL: the file's */
    const char *samples;  /* NULL: the file's; a number or "all" */
    const char *const
        *set; /* [n_set] "a.b.c=YAML value", applied to the file's tree before checking */
    size_t n_set;
};

struct pl_problems {
    char **items; /* one line each, malloc'd */
    size_t n, cap;
};
void pl_problems_add(struct pl_problems *p, const char *fmt, ...) PL_PRINTF(2, 3);
void pl_problems_release(struct pl_problems *p);

struct pl_sweep {
    char *path; /* as given */
    char *text; /* the file's bytes, NUL-terminated */
    size_t text_len;
    json_t *resolved;    /* see above */
    char *resolved_text; /* its compact dump */
    char sha256[65];
    /* Read off `resolved`: */
    uint64_t seed;
    uint32_t n_arms, n_contexts, repeats;
    uint32_t batch;      /* the most sequences of any arm's trial */
    uint32_t tokens;     /* the most of any context */
    uint32_t *tokens_at; /* [n_contexts] generated after each */
    uint32_t samples;    /* 0: all (until the samples are opened) */
    int64_t *contexts;   /* [n_contexts]; [auto] is one PL_CONTEXT_AUTO */
    int (*places)[2];    /* [n_arms] line and column of each arm in the file; NULL: not from one */
    json_t *work; /* arm → [{prefill_flop, decode_bytes} for each context], as runners described it;
                   * NULL: none did */
    json_t
        *engines; /* runner's name → {version, software, devices}, as it said hello; NULL: none */
    struct pl_samples *list; /* opened by pl_sweep_open_samples */
};

/* Reads, checks and resolves. On mistakes PL_ESWEEP with all of them in `problems`, sorted by place
 * (err says how many). On success what is in `problems` are notes: baselines that --arms brought
 * along, models that no arm uses. */
PL_MUST_CHECK
enum pl_status pl_sweep_load(const char *path, const struct pl_select *sel, struct pl_sweep **out,
                             struct pl_problems *problems, struct pl_err *err);
/* From a stored resolved sweep (resume, workers). */
PL_MUST_CHECK
enum pl_status pl_sweep_from_json(const json_t *resolved, struct pl_sweep **out,
                                  struct pl_err *err);
/* Opens the sample list; fills `samples` and grid.samples of `resolved` (and the hash) when it was
 * `all`. */
PL_MUST_CHECK
enum pl_status pl_sweep_open_samples(struct pl_sweep *s, struct pl_err *err);
void pl_sweep_free(struct pl_sweep *s);

/* Borrowed views into `resolved`. */
const json_t *pl_sweep_arm(const struct pl_sweep *s, uint32_t arm);
const char *pl_sweep_arm_name(const struct pl_sweep *s, uint32_t arm);
int pl_sweep_baseline_of(const struct pl_sweep *s,
                         uint32_t arm); /* arm index; itself for a baseline */
const json_t *pl_sweep_model(const struct pl_sweep *s, const char *name);
/* Sequences of an arm's trial (arm: its resolved JSON), and how many of them are in memory at once:
 * batch and batch, or requests and concurrency. */
uint32_t pl_arm_sequences(const json_t *arm);
uint32_t pl_arm_slots(const json_t *arm);
double pl_sweep_measure_f64(const struct pl_sweep *s, const char *key, double dflt);

/* A readable difference of two resolved sweeps, for --resume's refusal: "- path.of.key: old" and "+
 * path.of.key: new" lines, changed ones only. Written to out, cut at its cap with "…". */
PL_MUST_CHECK
enum pl_status pl_sweep_diff(const char *old_resolved, const char *new_resolved, struct pl_buf *out,
                             struct pl_err *err);

#endif
