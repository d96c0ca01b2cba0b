/* How an arm's latency, throughput and memory grow with the context. */
#ifndef PL_ANALYSIS_SCALING_H
#define PL_ANALYSIS_SCALING_H

#include "analysis/dataset.h"
#include "analysis/stats.h"

/* By the phases that the trials measured: a results file does not name architectures. */
enum pl_scaling_arch {
    PL_SCALING_UNKNOWN, /* no phases, as from an engine that tells only its total */
    PL_SCALING_DECODER, /* prefill, no encode */
    PL_SCALING_ENCDEC,  /* encode, and tokens came */
    PL_SCALING_ENCODER  /* encode, and no tokens came */
};
const char *pl_scaling_arch_name(enum pl_scaling_arch a); /* NULL for the unknown */

/* One arm at one context with at least one time. Time: encode of encoders, e2e of all others. */
struct pl_scaling_point {
    uint32_t arm, context; /* indices */
    enum pl_scaling_arch arch;
    size_t n;                      /* trials */
    double mean, sd;               /* ms; sd NaN: n < 2 */
    double ci_low, ci_high;        /* 95 % of the mean; NaN: fewer than two prompts */
    double throughput;             /* tokens/s */
    double memory_min, memory_max; /* device peak, bytes; 0: not measured */
    bool synthetic;
};

struct pl_scaling {
    struct pl_scaling_point *points; /* by arm, then context in order of length */
    size_t n;
};

/* PL_ENOMEM. */
PL_MUST_CHECK
enum pl_status pl_scaling_make(const struct pl_dataset *d, struct pl_scaling *out,
                               struct pl_err *err);
void pl_scaling_release(struct pl_scaling *s);

#endif
