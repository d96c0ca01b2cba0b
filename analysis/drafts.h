/* What drafting did, summed over the done rows of one arm at one context. */
#ifndef PL_ANALYSIS_DRAFTS_H
#define PL_ANALYSIS_DRAFTS_H

#include "base/status.h"
#include "results/reader.h"

#include <stddef.h>
#include <stdint.h>

#define PL_DRAFT_POSITIONS 256

struct pl_draft_cell {
    uint64_t trials; /* done rows with a round */
    uint64_t rounds, drafted, accepted, free_tokens;
    double draft_us, verify_us;                                               /* Σ over rounds */
    uint64_t drafted_at[PL_DRAFT_POSITIONS], accepted_at[PL_DRAFT_POSITIONS]; /* by position */
    uint64_t accepted_n[PL_DRAFT_POSITIONS]; /* rounds that accepted n */
    uint64_t overlaps;                       /* of the spans: trials with any */
    double overlap_ms; /* Σ: both lanes at work while the verifier was in its prefill */
};

struct pl_dataset;

/* Adds a done row. PL_ENOMEM. */
PL_MUST_CHECK
enum pl_status pl_drafts_add(struct pl_dataset *d, const struct pl_row_view *v, struct pl_err *err);
/* NULL: the arm drafted nothing there. */
const struct pl_draft_cell *pl_drafts_cell(const struct pl_dataset *d, uint32_t arm,
                                           uint32_t context);
/* Mean over trials with spans of how long the drafter worked beside the verifier's prefill; NaN:
 * none has any. */
double pl_drafts_hidden_ms(const struct pl_draft_cell *c);

/* How long both lanes of a trial worked while the verifier was in its prefill, from its spans; NaN:
 * it has none. */
PL_MUST_CHECK
enum pl_status pl_drafts_overlap_ms(const struct pl_dataset *d, uint64_t index, double *ms);

/* The published curve, and its generalisation to R rounds (docs/METRICS.md):
 * S = (P + N·t) / (P + V + (N − a − R)·t) */
double pl_drafts_model(double prefill, double step, double verify, double tokens, double accepted,
                       double rounds);

#endif
