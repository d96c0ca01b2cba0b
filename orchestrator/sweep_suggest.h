/* "did you mean": the nearest word of a list, when it is near enough to be a typo of it. Pure. */
#ifndef PL_ORCHESTRATOR_SWEEP_SUGGEST_H
#define PL_ORCHESTRATOR_SWEEP_SUGGEST_H

#include <stddef.h>

/* Edit distance with swaps of neighbours (optimal string alignment), letters' case costing nothing;
 * words beyond 64 bytes are as far as they are long. */
size_t pl_word_distance(const char *a, const char *b);

struct pl_suggest {
    const char *word; /* what was written */
    const char *best; /* nearest so far, borrowed; NULL: nothing near enough */
    size_t distance;
};
void pl_suggest_init(struct pl_suggest *s, const char *word);
void pl_suggest_offer(struct pl_suggest *s, const char *candidate);

#endif
