/* A family's tensors by name: the tables behind weights.c. */
#ifndef PL_MODEL_WEIGHT_NAMES_H
#define PL_MODEL_WEIGHT_NAMES_H

#include <stdbool.h>

/*
 * Names of one stack of blocks, below a prefix that may be there or not. A block's names stand
 * below block + its number + "."; matrices and norms are followed by ".weight" and ".bias" (norms
 * of old files: ".gamma", ".beta"). NULL: the family has none.
 */
struct pl_weight_names {
    const char *family;
    const char *prefixes[6]; /* the first names random weights */
    const char *embed[4];    /* the first one found */
    const char *positions, *types, *embed_norm, *patch, *cls, *relative, *final_norm, *pooler;
    const char *block;
    const char *attn_norm, *q, *k, *v, *o; /* fused: q is all three */
    const char *q_norm, *k_norm;
    const char *cross_norm, *cross_q, *cross_k, *cross_v, *cross_o;
    const char *ffn_norm, *gate, *up, *plain_up, *down; /* plain_up: without a gate, else NULL */
    const char *heads[3];
};

/* By pl_arch.family (or "t5 encoder"), in Hugging Face's or GGUF's names; NULL when there are none.
 */
const struct pl_weight_names *pl_weight_names(const char *family, bool gguf);

#endif
