/* The sweep's `models`: each with its engine, and what is asked of those that an arm runs. */
#ifndef PL_ORCHESTRATOR_SWEEP_MODELS_H
#define PL_ORCHESTRATOR_SWEEP_MODELS_H

#include "orchestrator/sweep_tree.h"

struct pl_model_def {
    const char *name;
    const struct pl_yaml *map;
    unsigned engines; /* the one it has; PL_FOR_ALL when its engine is a mistake */
    json_t *json;
    bool used;
};

struct pl_models {
    struct pl_model_def *defs; /* of the tree's arena */
    size_t n;
};

/* Reads the section (NULL: none), mistakes recorded. */
void pl_models_read(struct pl_tree *t, const struct pl_yaml *models, struct pl_models *out);
void pl_models_release(struct pl_models *models);
struct pl_model_def *pl_models_find(const struct pl_models *models, const char *name);
/* The mistake that `label` names a model that is not there. */
void pl_models_none(struct pl_tree *t, const struct pl_models *models, const struct pl_yaml *at,
                    const char *label, const char *name);
/* o.fail from the map's `fail`, of a simulated model or an arm of one. */
void pl_tree_fail(struct pl_tree *t, const struct pl_yaml *map, json_t *o, const char *label);
/* What only matters for models that an arm runs: files, programs and models that they name. */
void pl_models_check_used(struct pl_tree *t, const struct pl_models *models,
                          struct pl_model_def *m);

#endif
