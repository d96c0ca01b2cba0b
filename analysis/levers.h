/* What drafting saved, what it cost, and what would save more: docs/METRICS.md, speedup_analysis.
 */
#ifndef PL_ANALYSIS_LEVERS_H
#define PL_ANALYSIS_LEVERS_H

#include "analysis/dataset.h"
#include "analysis/out.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of an arm that drafted at a context; means a trial, ms. */
struct pl_levers {
    uint32_t arm, context;
    double drafted, accepted, rounds; /* counts */
    double e2e, base_e2e, step;
    double verify, beyond; /* all verifications; more than a step each */
    double draft, adapter, wait;
    double all_accepted, cheap_verify, all_hidden; /* what each alone could save at most */
    const char *largest; /* "acceptance", "verify cost", "overlap"; NULL: not known */
};
/* The i-th of them by context, then arm; false: there are no more. */
bool pl_levers_get(const struct pl_dataset *d, size_t i, struct pl_levers *out);
/* "acceptance would pay most: …", one sentence. */
#define PL_LEVERS_TEXT 400
void pl_levers_text(const struct pl_levers *l, char out[PL_LEVERS_TEXT]);
/* The sentence of each, a line for a terminal. */
void pl_levers_lines(const struct pl_dataset *d, struct pl_out *o);

#endif
