/*
 * What a worker must know of a run, as rank 0 sends it in WELCOME: the resolved sweep and the
 * plan's numbers. Read-only once parsed; strings and JSON views are borrowed from `json`.
 */
#ifndef PL_WORKER_RANK_JOB_H
#define PL_WORKER_RANK_JOB_H

#include "base/json.h"
#include "base/status.h"
#include "results/record.h"

#include <stdbool.h>
#include <stdint.h>

/* One kind of runner child: our own (also the simulated engine), or one foreign argv. */
struct pl_job_engine {
    const char **exec;    /* NULL: our own; else NULL-terminated */
    const char *ids_from; /* model whose tokenizer makes the ids; NULL: the engine gets text */
};

struct pl_job_arm {
    const char *name;
    const json_t *json;
    const char *model, *draft_model; /* draft_model: NULL where nothing drafts */
    uint32_t group, residence, engine;
    bool sim;
    uint32_t sequences; /* of a trial, ≤ shape.batch */
};

struct pl_job {
    json_t *json; /* owned */
    const json_t *sweep, *models, *data;
    struct pl_shape shape;
    struct pl_job_arm *arms; /* [shape.arms] */
    uint32_t n_groups;
    uint32_t *group_arms;  /* arms sorted by group */
    uint32_t *group_first; /* [n_groups + 1] into group_arms */
    struct pl_job_engine *engines;
    uint32_t n_engines;
    int64_t *contexts; /* [shape.contexts] */
    uint32_t *tokens;  /* [shape.contexts] that a trial generates after each */
    int64_t max_context;
    uint64_t seed;
    const char *samples; /* digest of the list that rank 0 has */
    uint32_t run_samples, warmup, retries;
    bool kernels; /* measure.kernels: behind the warm-ups one more, with its kernels' times */
    int64_t timeout_ns, load_timeout_ns; /* 0: the rule max(60 s, 20 × median) */
    enum pl_job_exclusive { PL_EXCLUSIVE_AUTO, PL_EXCLUSIVE_NONE, PL_EXCLUSIVE_NODE } exclusive;
    bool prefill_only; /* measure.mode: prefill */
    uint16_t session;
    const char *results; /* path of the results file */
};

/* Takes a new reference of json. PL_EPROTO names what is missing or contradicts the shape. */
PL_MUST_CHECK
enum pl_status pl_job_parse(json_t *json, struct pl_job **out, struct pl_err *err);
void pl_job_free(struct pl_job *job);

/*
 * Cells: the rows of one block, numbered alike by rank 0 and the workers. Cell c of a block with
 * arms[n_arms] (the group's, in grid order), n_samples and repeats is C order
 * [arm][sample][repeat], the same as pl_order_bit.
 */
struct pl_cells {
    const uint32_t *arms;
    uint32_t n_arms, context, first_sample, n_samples, repeats;
};
uint32_t pl_cells_count(const struct pl_cells *c);
struct pl_row_id pl_cells_row(const struct pl_cells *c, uint32_t cell);

#endif
