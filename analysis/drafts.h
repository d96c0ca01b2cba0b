/* What drafting did, summed over the done rows of one arm at one context. */
#ifndef PL_ANALYSIS_DRAFTS_H
#define PL_ANALYSIS_DRAFTS_H

#include "base/status.h"
#include "results/reader.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_DRAFT_POSITIONS 256

struct pl_draft_sums {
    uint64_t drafted, accepted;
};

struct pl_draft_cell {
    uint64_t trials; /* done rows with a round */
    uint64_t rounds, drafted, accepted, free_tokens, cut;
    double draft_us, verify_us;                                               /* Σ over rounds */
    uint64_t drafted_at[PL_DRAFT_POSITIONS], accepted_at[PL_DRAFT_POSITIONS]; /* by position */
    uint64_t accepted_n[PL_DRAFT_POSITIONS]; /* rounds that accepted n */
    /* of a verification, by the drafts in it: rounds, Σ and Σ² of its time */
    uint64_t verify_n[PL_DRAFT_POSITIONS];
    double verify_at_us[PL_DRAFT_POSITIONS], verify_at_us2[PL_DRAFT_POSITIONS];
    struct pl_draft_sums *samples; /* [samples] */
    uint64_t overlaps;             /* of the spans: trials with any */
    double overlap_ms; /* Σ: both lanes at work while the verifier was in its prefill */
};

struct pl_cell;
struct pl_dataset;

/* Adds a done row. PL_ENOMEM. */
PL_MUST_CHECK
enum pl_status pl_drafts_add(struct pl_dataset *d, const struct pl_row_view *v, struct pl_err *err);
/* NULL: the arm drafted nothing there. */
const struct pl_draft_cell *pl_drafts_cell(const struct pl_dataset *d, uint32_t arm,
                                           uint32_t context);
/* Whether the arm drafted somewhere; whether it is the baseline of an arm that did. */
bool pl_drafts_arm(const struct pl_dataset *d, uint32_t arm);
bool pl_drafts_baseline(const struct pl_dataset *d, uint32_t arm);
void pl_drafts_free(struct pl_dataset *d); /* all of them */
/* 95 % of accepted / drafted over prompts, within 0 and 1; NaN: fewer than two drafted. */
void pl_drafts_acceptance_ci(const struct pl_dataset *d, const struct pl_draft_cell *c, double *low,
                             double *high);
/* Mean over trials with spans of how long the drafter worked beside the verifier's prefill; NaN:
 * none has any. */
double pl_drafts_hidden_ms(const struct pl_draft_cell *c);
/* Verifications of a mean trial: the phase, as draft, adapter and wait are (/rounds has whole
 * microseconds); of an engine that tells no phases, its rounds. */
double pl_drafts_verify_ms(const struct pl_dataset *d, const struct pl_cell *cell,
                           const struct pl_draft_cell *c);

/* How long both lanes of a trial worked while the verifier was in its prefill, from its spans; NaN:
 * it has none. */
PL_MUST_CHECK
enum pl_status pl_drafts_overlap_ms(const struct pl_dataset *d, uint64_t index, double *ms);

/* Means of the baseline of an arm at a context; all NaN where there is none, or where a trial runs
 * several sequences. */
struct pl_draft_base {
    double ttft, e2e, step, tokens; /* ms, ms, ms a token after the first, tokens a trial */
};
struct pl_draft_base pl_drafts_step(const struct pl_dataset *d, uint32_t baseline,
                                    uint32_t context); /* of a baseline itself */
struct pl_draft_base pl_drafts_base(const struct pl_dataset *d, uint32_t arm, uint32_t context);

/* A verification of k tokens (the last accepted one and k − 1 drafts) of one arm, or of all arms
 * with that baseline, at a context. n 0: there was none. k 1: the baseline's own decode step. */
struct pl_verify_cost {
    uint64_t n;      /* rounds; k 1: trials */
    double mean, sd; /* ms; sd with n − 1, NaN: not known */
};
struct pl_verify_cost pl_drafts_verify(const struct pl_dataset *d, uint32_t arm, uint32_t context,
                                       size_t k);
struct pl_verify_cost pl_drafts_verify_all(const struct pl_dataset *d, uint32_t baseline,
                                           uint32_t context, size_t k);

/* The published curve, and its generalisation to R rounds (docs/METRICS.md):
 * S = (P + N·t) / (P + V + (N − a − R)·t); NaN where a + R > N: so many are not wanted. */
double pl_drafts_model(double prefill, double step, double verify, double tokens, double accepted,
                       double rounds);

#endif
