/*
 * The steps of a block, shared by forward.c (rows that continue sequences) and encode.c (a whole
 * source that sees itself). One call into either is one run of the thread pool: every member walks
 * the same list of steps, takes its share of each (of products and of many rows' attention what it
 * comes to first) and meets the others at a barrier where a step
 * reads what another member wrote. Steps that say so end with one.
 */
#ifndef PL_MODEL_CPU_STEPS_H
#define PL_MODEL_CPU_STEPS_H

#include "model/cpu/cpu.h"

struct job {
    struct pl_network *n;
    const struct pl_forward *f;
    const struct pl_source *source; /* encode only */
    size_t rows;                    /* in the workspace */
    size_t row0;                    /* encode: rows of the source before them */
    size_t attn_block;              /* query vectors of one attend call */
    bool own_norm; /* few rows: every member norms all of them, which costs less than a barrier */
    bool by_head;  /* members own whole KV heads from the projections through attention: no barrier
                      there */
};

/* Rows that products read: as floats, ldx apart, and, for the weights that want them so, as 8-bit
 * integers (q8.h) or pairs of bf16 (kernels.h). */
struct pl_acts {
    const float *x;
    size_t ldx, rows;
    const struct pl_q8 *q8;
    size_t ldq8;
    const float *pairs;
    size_t ld_pairs;
};

/* Waits for all members. */
void pl_step_meet(const struct job *j, int m);
/* Sets what follows from the number of rows. */
void pl_job_shape(struct job *j, int members);
/* The rows' embeddings with positions, types and norm, or the cache's stage rows, into x. No
 * barrier. */
void pl_step_input(const struct job *j, int m, int members);
/* Normed rows of x: where this member finds them, in the workspace after a barrier or its own. */
const float *pl_step_norm(const struct job *j, const float *gain, const float *bias, int m,
                          int members);
/* x = norm(x); barrier. */
void pl_step_norm_x(const struct job *j, const float *gain, const float *bias, int m, int members);
/* The floats of a, [rows, the users' columns], as the n products with `users` read them: converted
 * once for all of them, by every member for itself where rows are few, else together, with a
 * barrier before and one behind. What it returns is good until the next call. Users without data do
 * not count. */
struct pl_acts pl_step_acts(const struct job *j, struct pl_acts a,
                            const struct pl_panels *const *users, size_t n, int m, int members);
/* The same for one product with rows of a workspace. */
struct pl_acts pl_step_acts_of(const struct job *j, const float *x, size_t rows,
                               const struct pl_panels *user, int m, int members);
/* y = x · wᵀ + bias, then added to add_to, where that is given, both of a workspace: the outputs
 * that member m comes to. No barrier. */
void pl_step_linear(const struct job *j, const struct pl_panels *p, const struct pl_acts *x,
                    float *y, float *add_to, int m);
/* The same for the panels [first, end), in the scratch of member m; rows of y are ldy apart. */
void pl_step_linear_panels(const struct job *j, const struct pl_panels *p, const struct pl_acts *x,
                           float *y, size_t ldy, float *add_to, size_t first, size_t end, int m);
/* What q, k and v read: x, or its normed rows. */
struct pl_acts pl_step_attn_input(const struct job *j, int32_t layer, int m, int members);
/* cos and sin of the rows' positions, where the layer has others than the last; barrier. */
void pl_step_rope_table(const struct job *j, int32_t layer, int m, int members);
/* One row of K and V into place `at` of a head. */
void pl_store_kv(const struct pl_cache *c, const struct pl_kv *kv, size_t head, size_t at,
                 const float *k, const float *v);
/* Norm and RoPE on the q of one head's rows [row, end). */
void pl_step_rope_q(const struct job *j, int32_t layer, size_t head, size_t row, size_t end);
/* The same on the k of one KV head's rows, then K and V into the cache. */
void pl_step_rope_and_store(const struct job *j, int32_t layer, size_t head, size_t row,
                            size_t end);
/* Attention of q to the rows' own sequence (cross: to the source's K and V) into att. No barrier.
 */
void pl_step_attention(const struct job *j, int32_t layer, bool cross, int m, int members);
/* The same where the rows are a tree's (backend.h). */
void pl_step_attention_tree(const struct job *j, int32_t layer, int m, int members);
/* Floats of a thread's scratch that it needs, for trees of so many rows. */
size_t pl_cpu_tree_scratch(const struct pl_arch *a, size_t rows);
/* From attention's result to the block's: o, cross attention, feed-forward, norms behind, taps. */
void pl_step_rest(const struct job *j, int32_t layer, int m, int members);
/* Copies rows of `from` into every tap of the given layer (1-based; −1: final). No barrier. */
void pl_step_taps(const struct job *j, int tap_layer, const float *from, int m, int members);

#endif
