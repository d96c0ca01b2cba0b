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
    bool tied;            /* the head is the embedding */
    enum pl_dtype stored; /* the type that most of the matrices' elements have; f32 when random */
};

/* c NULL: random weights from seed. Everything lives in the arena, views as long as c. PL_EFORMAT
 * names a missing tensor, or tensor, expected and found shape; PL_EUNSUPPORTED tensor and type. */
PL_MUST_CHECK
enum pl_status pl_weights_resolve(const struct pl_arch *a, const struct pl_checkpoint *c,
                                  uint64_t seed, struct pl_arena *arena,
                                  struct pl_model_sources *out, struct pl_weights_report *report,
                                  struct pl_err *err);

#endif
