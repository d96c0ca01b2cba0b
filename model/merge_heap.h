/* The candidate joins of a BPE encode, best first: a binary heap on one integer, so that scores and
 * ranks, which SentencePiece's and the merge lists' BPE order by, need one heap. */
#ifndef PL_MODEL_MERGE_HEAP_H
#define PL_MODEL_MERGE_HEAP_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

struct pl_merge {
    uint64_t order; /* the smallest is popped first; pl_merge_order's */
    int32_t right;  /* the owner's: the right neighbour */
    uint32_t tag;   /* the owner's: what tells that the candidate is stale */
};

/* By rank, the leftmost (left ≥ 0) of equal ones first. */
static inline uint64_t pl_merge_order(uint32_t rank, int32_t left)
{
    return (uint64_t)rank << 32 | (uint32_t)left;
}
static inline int32_t pl_merge_left(const struct pl_merge *m)
{
    return (int32_t)(uint32_t)m->order;
}
/* The rank of a score: higher scores rank first; −0 ranks as 0. */
uint32_t pl_merge_rank(float score);

/* Zero-initialise; n may be set to 0 to empty it. */
struct pl_merge_heap {
    struct pl_merge *items;
    size_t n, size;
};
void pl_merge_release(struct pl_merge_heap *h);
PL_MUST_CHECK
enum pl_status pl_merge_push(struct pl_merge_heap *h, struct pl_merge m, struct pl_err *err);
struct pl_merge pl_merge_pop(struct pl_merge_heap *h); /* n ≥ 1 */

#endif
