/*
 * Weight names: which tensor of a checkpoint is which part of an architecture. A family's table
 * lists the names it is published under; prefixes may be there or not. Every tensor is checked
 * against the architecture before anything is loaded.
 */
#ifndef PL_MODEL_WEIGHTS_H
#define PL_MODEL_WEIGHTS_H

#include "base/arena.h"
#include "base/status.h"
#include "model/arch.h"
#include "model/backend.h"
#include "model/checkpoint.h"

struct pl_weights_report {
    int32_t used;         /* tensors of the checkpoint that the model needs */
    bool blocks;          /* some matrix is of a block format (quant.h) */
    enum pl_dtype stored; /* the type that most of the matrices' elements have; f32 when random */
};

/* Where a model's parts find their tensors, and what was found so far. Zero but for c, seed and
 * arena. */
struct pl_finder {
    const struct pl_checkpoint *c; /* NULL: random weights from seed */
    uint64_t seed;
    struct pl_arena *arena;                    /* sources live there, views as long as c */
    bool *used;                                /* [tensors of c] */
    bool *passed;                              /* [tensors of c] of no use, and known to be */
    int64_t elements[PL_DT_COUNT];             /* of matrices, by type */
    int32_t missing;                           /* tensors that c has not … */
    struct pl_err first_missing, more_missing; /* … by name, the first with its shape */
};

/* One language model or tower. prefixes: where its names stand, instead of the family's own
 * (NULL-terminated; the first names random weights); NULL: those. What is missing is noted in f:
 * the sources hold only once pl_finder_finish agrees. PL_EFORMAT names tensor, expected and found
 * shape; PL_EUNSUPPORTED tensor and type. */
PL_MUST_CHECK
enum pl_status pl_finder_network(struct pl_finder *f, const struct pl_arch *a,
                                 const char *const *prefixes, struct pl_model_sources *out,
                                 struct pl_err *err);
/* One matrix [rows, cols], or (rows 0) vector [cols], below the first of `prefixes` that has it.
 * std: the spread of random matrices; random vectors are 0. */
PL_MUST_CHECK
enum pl_status pl_finder_tensor(struct pl_finder *f, const char *const *prefixes, const char *name,
                                int64_t rows, int64_t cols, float std, struct pl_weight_source *out,
                                struct pl_err *err);
/* PL_EFORMAT names the tensors that are missing, the first with its expected shape. */
PL_MUST_CHECK
enum pl_status pl_finder_finish(const struct pl_finder *f, struct pl_weights_report *report,
                                struct pl_err *err);
/* The names of tensors that nothing asked for ("a, b, …"), less those that `known` says are of no
 * use to anybody. Returns how many there are. */
size_t pl_finder_unused(const struct pl_finder *f, bool (*known)(const char *name),
                        struct pl_err *text);

#endif
