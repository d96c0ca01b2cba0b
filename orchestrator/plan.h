/*
 * What a sweep comes to: shapes, comparison groups, residence groups, blocks. Made by rank 0 from
 * the sweep and what the runners said of its models (describe). Pure once the descriptions are
 * there.
 */
#ifndef PL_ORCHESTRATOR_PLAN_H
#define PL_ORCHESTRATOR_PLAN_H

#include "orchestrator/sweep.h"

/* What `describe` said of one arm. */
struct pl_arm_info {
    uint32_t layers, layers_draft, max_rounds;
    uint64_t weights_bytes, kv_bytes_per_token, workspace_bytes;
    int64_t max_positions; /* 0: no limit known */
    bool synthetic;        /* simulated engine, random weights */
    bool sim;              /* engine: sim */
    uint32_t devices;      /* devices an arm needs: 1 or 2 */
    int64_t prompt;        /* contexts [auto]: the longest prompt; 0: not known */
    bool reads_events, reads_video, reads_told; /* files of a scene; told: by its runner */
};

struct pl_plan {
    struct pl_shape shape;
    struct pl_arm_info *arms; /* [shape.arms] */
    uint32_t n_groups;        /* comparison groups: arms tied by `baseline` */
    uint32_t *group_of;       /* [arms] */
    uint32_t *residence_of;   /* [arms], per group from 0: arms whose models are loaded together */
    uint32_t *n_residences;   /* [n_groups] */
    uint32_t block_samples;   /* samples a block */
    uint32_t run_samples;     /* s of the ABBA runs; 0 where nothing is swapped */
    uint64_t n_blocks;        /* groups × contexts × ⌈samples / block_samples⌉ */
    uint64_t device_bytes;    /* memory one device set has; 0: not known, everything fits */
    double estimate_s;        /* with n_workers; 0: not known */
    double trials_s; /* Σ of the trials' own times, however long they take to come (virtual); 0: not
                        known */
    uint64_t loads;  /* loads foreseen with n_workers */
};

struct pl_block {
    uint64_t index;
    uint32_t group, context; /* indices */
    uint32_t first_sample, n_samples;
};

/* n_workers ≥ 1 (for block size, loads and the estimate). */
PL_MUST_CHECK
enum pl_status pl_plan_make(const struct pl_sweep *s, const struct pl_arm_info *arms,
                            uint64_t device_bytes, uint32_t n_workers, struct pl_plan **out,
                            struct pl_err *err);
void pl_plan_free(struct pl_plan *p);
struct pl_block pl_plan_block(const struct pl_plan *p, uint64_t index);
/* Row index of the block that a row belongs to. */
uint64_t pl_plan_block_of(const struct pl_plan *p, const struct pl_row_id *id);

/* Bytes of an arm's KV cache at the longest context, of all sequences that are in memory at once.
 */
uint64_t pl_plan_kv_bytes(const struct pl_sweep *s, uint32_t arm, const struct pl_arm_info *info);
/* The same at one context. */
uint64_t pl_plan_kv_bytes_at(const struct pl_sweep *s, uint32_t arm, const struct pl_arm_info *info,
                             uint32_t context);
/* Expected time of one trial, exact for the simulated engine (docs/SWEEP.md), as it reports it; 0:
 * not known. */
double pl_plan_trial_s(const struct pl_sweep *s, const struct pl_arm_info *arms, uint32_t arm,
                       uint32_t context);

/* Asks runner children about every arm (one child for our own engine and sim, one a foreign
 * engine); adds mistakes to `problems` (missing models, contexts beyond the model, …) and warnings
 * to `warnings`, each with the arm's place in the file; fills s->work. Blocking. allow_exec:
 * CONTRACTS. */
PL_MUST_CHECK
enum pl_status pl_plan_describe(struct pl_sweep *s, const char *runner_program, bool allow_exec,
                                struct pl_arm_info *arms, uint64_t *device_bytes,
                                struct pl_problems *problems, struct pl_problems *warnings,
                                struct pl_err *err);

#endif
