/*
 * How many tokens a stage keeps, and which: pure. The rule is that of the implementation in use of
 * SDTP (arXiv 2504.04514v2): always kept are the first `head` tokens and the last max(tail_min,
 * ⌊tail · n⌋); of n tokens stay max(|always kept|, min(n − 1, max(1, ⌊r · n⌋, |always kept|))), in
 * their old order. Floors of double products: ⌊700 · 0.7⌋ is 489.
 */
#ifndef PL_PRUNING_KEEP_H
#define PL_PRUNING_KEEP_H

#include <stddef.h>
#include <stdint.h>

struct pl_keep_rule {
    size_t head, tail_min;
    double tail;
};

/* First and last tokens that stay whatever their score; head + tail ≤ n. */
void pl_keep_always(const struct pl_keep_rule *rule, size_t n, size_t *head, size_t *tail);
/* What a stage with ratio r in (0, 1] keeps of n ≥ 1; r = 1: all. */
size_t pl_keep_count(const struct pl_keep_rule *rule, size_t n, double r);
/*
 * lengths[k] = what is left after stage k of n tokens, so that the last one is ⌊total · n⌋ (or what
 * is always kept, where that is more): one ratio for all stages, found by bisection; the last stage
 * gives the exact number.
 */
void pl_keep_solve(const struct pl_keep_rule *rule, size_t n, double total, size_t stages,
                   size_t *lengths);
/*
 * The `count` largest of n scores as ascending indices; of equal ones the first. None may be NaN; 1
 * ≤ count ≤ n. O(n): three passes over digits of the scores' bits.
 */
void pl_keep_select(const float *scores, size_t n, size_t count, int32_t *kept);

#endif
