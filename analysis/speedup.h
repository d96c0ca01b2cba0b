/* Speedups of every arm over its baseline, and whether the series drifted. */
#ifndef PL_ANALYSIS_SPEEDUP_H
#define PL_ANALYSIS_SPEEDUP_H

#include "analysis/dataset.h"
#include "analysis/stats.h"

struct pl_device_ratio {
    uint32_t device;  /* index into the dataset's */
    uint64_t n;       /* pairs */
    double base, arm; /* sums, ms */
};

struct pl_speedup {
    uint32_t arm, baseline, context; /* indices */
    enum pl_metric metric;           /* PREFILL, GENERATION, TTFT or E2E */
    uint64_t n;                      /* pairs */
    double baseline_ms, arm_ms;      /* means over the pairs, a sequence; NaN: none */
    struct pl_ratio ratio;
    enum pl_verdict verdict;
    bool synthetic;
    struct pl_device_ratio *devices; /* [n_devices], in the dataset's order */
    uint32_t n_devices;
};

/* Rows that could not be paired, for an arm at a context. */
struct pl_unpaired {
    uint32_t arm, context;
    uint64_t alone;     /* done here, the baseline's trial is not */
    uint64_t elsewhere; /* the two ran on different devices */
};

struct pl_speedups {
    struct pl_speedup *rows; /* by context, then arm, then metric */
    size_t n, cap;
    struct pl_unpaired *unpaired;
    size_t n_unpaired;
};

/* Every arm that is not its own baseline × context × metric that either of the two measured (e2e
 * always). Pairs: same context, sample and repeat, both done, same device. */
PL_MUST_CHECK
enum pl_status pl_speedups_make(const struct pl_dataset *d, struct pl_speedups *out,
                                struct pl_err *err);
void pl_speedups_release(struct pl_speedups *s);
/* NULL when there is none. */
const struct pl_speedup *pl_speedups_find(const struct pl_speedups *s, uint32_t arm,
                                          uint32_t context, enum pl_metric m);

/* Drift of a cell's e2e times: units are samples (their repeats averaged), in order of time within
 * each device. PL_ENOMEM. */
PL_MUST_CHECK
enum pl_status pl_cell_drift(const struct pl_dataset *d, const struct pl_cell *c,
                             struct pl_drift *out, struct pl_err *err);

#endif
