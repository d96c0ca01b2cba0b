/*
 * The statistics, apart from files and tables: pure functions of their arguments. docs/METRICS.md
 * derives each formula.
 */
#ifndef PL_ANALYSIS_STATS_H
#define PL_ANALYSIS_STATS_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- one sample ---- */

/* Fewest values for a percentile to be printed: p50 and p95 so that order statistics bound it, p90
 * and p99 by MLPerf's rule (99 % confidence). 0 for other p. */
size_t pl_percentile_floor(double p);
/* Linear between order statistics ("type 7": h = (n − 1)·p), p in [0, 1]; sorted ascending, n ≥ 1.
 */
double pl_quantile(const double *sorted, size_t n, double p);

struct pl_summary {
    size_t n;
    double mean, sd;      /* NaN: n < 1, n < 2; sd with n − 1 */
    double p50, p95, p99; /* NaN below their floors */
    size_t mild, far;     /* beyond 1.5 and 3 IQR of the quartiles (Tukey); far ones are not mild */
    double fence_low, fence_high; /* of 1.5 IQR; NaN: n < 4 */
};
/* Sorts v. NaN must have been left out. Nothing is dropped: outliers are in the mean. */
void pl_summarise(double *v, size_t n, struct pl_summary *out);

/* ---- the ratio of two totals ---- */

/* What one prompt contributed in one device × session: sums over its paired trials. */
struct pl_unit {
    double base, arm;
    uint32_t cluster; /* device × session */
};

struct pl_ratio {
    double speedup;         /* Σ base / Σ arm; NaN: nothing to divide */
    double ci_low, ci_high; /* 95 %; NaN with fewer than two units */
    uint32_t units, clusters;
    bool fixed; /* fewer than PL_CLUSTERS_MIN clusters: taken as they are */
};

#define PL_CLUSTERS_MIN 5
#define PL_RESAMPLES 10000 /* up to PL_UNITS_EXACT units, then PL_RESAMPLES_MANY */
#define PL_RESAMPLES_MANY 4000
#define PL_UNITS_EXACT 1024
#define PL_UNITS_MAX 2048 /* more units than this are drawn in groups of about equal size */

/*
 * Ratio of totals with a 95 % bootstrap interval. With at least PL_CLUSTERS_MIN clusters: clusters
 * are drawn, then units within each; with fewer, units are drawn over all of them. The interval is
 * the percentile interval of ln ratio about the estimate, stretched by
 *   (t / z) · (SE / sd*),  t = t_{0.975, H−1}, SE² = H/(H−1) · Σ_h E_h²,
 *   E_h = Σ_{u ∈ h} (base_u / Σ base − arm_u / Σ arm)
 * where h runs over the H clusters (or units), sd* is the resamples' own deviation: drawing in two
 * stages counts the spread within clusters twice, and few clusters need t.
 * resamples: 0 for the numbers above. Units with a sum that is not positive and finite must have
 * been left out. Same arguments, same answer. PL_ENOMEM.
 */
PL_MUST_CHECK
enum pl_status pl_ratio_ci(const struct pl_unit *units, size_t n, uint64_t seed, uint32_t resamples,
                           struct pl_ratio *out, struct pl_err *err);
/* 97.5 % point of Student's t. */
double pl_t975(size_t dof);

/* The interval of a mean or a ratio of totals, linearised: what each prompt adds to the error,
 * added up within units (those of one stand together). Zeroed to begin with. */
struct pl_errors {
    uint64_t unit;
    double part, squares; /* of the unit, Σ over the units before it */
    size_t units;
};
void pl_errors_add(struct pl_errors *e, uint64_t unit, double error);
/* Half of the 95 % interval: t_{0.975, H−1} · √(H/(H−1) · Σ_h E_h²); NaN: fewer than two units. */
double pl_errors_half(const struct pl_errors *e);

enum pl_verdict {
    PL_VERDICT_NONE, /* nothing was compared */
    PL_FASTER,
    PL_FASTER_SMALL,
    PL_SLOWER,
    PL_SLOWER_SMALL,
    PL_SAME,
    PL_AMBIGUOUS
};
/* From the 95 % interval of the speedup; NaN bounds are ambiguous. */
enum pl_verdict pl_verdict(double ci_low, double ci_high, double delta);
const char *pl_verdict_text(enum pl_verdict v); /* "FASTER (small)"; NULL for PL_VERDICT_NONE */

/* ---- drift ---- */

struct pl_drift {
    size_t n;
    double change;   /* second half / first half − 1, of geometric means */
    double z;        /* ln(1 + change) in standard errors */
    double lag1;     /* autocorrelation of neighbours in time */
    bool halves_bad; /* |z| > 2.58 and |change| > delta */
    bool lag1_bad;   /* |lag1| > max(0.1, 2.58/√n) */
};
#define PL_DRIFT_MIN 20
/* ln_ms: logs of a unit's time, in the order in which they ran within each stream; stream[i]: the
 * device, equal ones contiguous. Each stream's mean is taken out first. Fewer than PL_DRIFT_MIN
 * values: all zero. Overwrites ln_ms. */
void pl_drift(double *ln_ms, const uint32_t *stream, size_t n, double delta, struct pl_drift *out);

#endif
