/* Kernel times by operation of a forward, while a profile is on. */
#ifndef PL_MODEL_CUDA_PROFILE_H
#define PL_MODEL_CUDA_PROFILE_H

#include "model/cuda/cuda.h"

/* What a profile tells apart; the CPU's names where they are the same. */
#define PL_CUDA_OP_LIST(X)                                                                         \
    X(OTHER, "other")                                                                              \
    X(PIXELS, "pixels")                                                                            \
    X(INPUT, "embeddings")                                                                         \
    X(NORM, "norm")                                                                                \
    X(QKV, "q, k, v")                                                                              \
    X(ROPE, "rope, store k and v")                                                                 \
    X(ATTENTION, "attention")                                                                      \
    X(OUT, "attention output")                                                                     \
    X(FFN_IN, "gate, up")                                                                          \
    X(ACT, "activation")                                                                           \
    X(FFN_OUT, "down")                                                                             \
    X(CROSS, "cross attention")                                                                    \
    X(HEAD, "head")                                                                                \
    X(PICK, "choice")

enum pl_cuda_op {
#define PL_X(sym, name) PL_CUDA_OP_##sym,
    PL_CUDA_OP_LIST(PL_X)
#undef PL_X
        PL_CUDA_OPS
};

#define PL_CUDA_PROFILE_ROWS 64

/* What is launched from here on, and what the device counts, belongs to op. Nothing without a
 * profile. */
void pl_cuda_op(struct pl_device *d, enum pl_cuda_op op);
void pl_cuda_profile_end(struct pl_device *d);

#endif
