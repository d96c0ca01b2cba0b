/* Percentiles, outliers, verdicts and drift. */
#include "analysis/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define Z99 2.5758293035489004 /* two-sided 1 % */

size_t pl_percentile_floor(double p)
{
    static const struct {
        double p;
        size_t n;
    } floors[] = {{0.50, 11}, {0.90, 64}, {0.95, 130}, {0.99, 662}};
    for (size_t i = 0; i < sizeof floors / sizeof floors[0]; i++)
        if (fabs(p - floors[i].p) < 1e-9)
            return floors[i].n;
    return 0;
}

double pl_quantile(const double *sorted, size_t n, double p)
{
    const double h = p * (double)(n - 1);
    const size_t i = (size_t)h;
    if (i + 1 >= n)
        return sorted[n - 1];
    return sorted[i] + (h - (double)i) * (sorted[i + 1] - sorted[i]);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(const double *sorted, size_t n, double p)
{
    return n >= pl_percentile_floor(p) ? pl_quantile(sorted, n, p) : NAN;
}

static void outliers(const double *sorted, size_t n, struct pl_summary *out)
{
    const double q1 = pl_quantile(sorted, n, 0.25), q3 = pl_quantile(sorted, n, 0.75);
    const double iqr = q3 - q1;
    out->fence_low = q1 - 1.5 * iqr;
    out->fence_high = q3 + 1.5 * iqr;
    for (size_t i = 0; i < n; i++) {
        if (sorted[i] < q1 - 3 * iqr || sorted[i] > q3 + 3 * iqr)
            out->far++;
        else if (sorted[i] < out->fence_low || sorted[i] > out->fence_high)
            out->mild++;
    }
}

void pl_summarise(double *v, size_t n, struct pl_summary *out)
{
    double sum = 0, squares = 0;

    *out = (struct pl_summary){.n = n,
                               .mean = NAN,
                               .sd = NAN,
                               .p50 = NAN,
                               .p95 = NAN,
                               .p99 = NAN,
                               .fence_low = NAN,
                               .fence_high = NAN};
    if (n == 0)
        return;
    qsort(v, n, sizeof *v, by_value);
    for (size_t i = 0; i < n; i++)
        sum += v[i];
    out->mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (v[i] - out->mean) * (v[i] - out->mean);
    if (n > 1)
        out->sd = sqrt(squares / (double)(n - 1));
    if (out->sd < 1e-13 * fabs(out->mean)) /* what the sum was rounded by; the values are alike */
        out->sd = 0;
    out->p50 = percentile(v, n, 0.50);
    out->p95 = percentile(v, n, 0.95);
    out->p99 = percentile(v, n, 0.99);
    if (n >= 4)
        outliers(v, n, out);
}

void pl_errors_add(struct pl_errors *e, uint64_t unit, double error)
{
    if (e->units == 0 || unit != e->unit) {
        e->squares += e->part * e->part;
        e->part = 0;
        e->unit = unit;
        e->units++;
    }
    e->part += error;
}

double pl_errors_half(const struct pl_errors *e)
{
    const double h = (double)e->units;
    if (e->units < 2)
        return NAN;
    return pl_t975(e->units - 1) * sqrt(h / (h - 1) * (e->squares + e->part * e->part));
}

enum pl_verdict pl_verdict(double ci_low, double ci_high, double delta)
{
    const bool inside = ci_low >= 1 - delta && ci_high <= 1 + delta;
    if (ci_low > 1)
        return inside ? PL_FASTER_SMALL : PL_FASTER;
    if (ci_high < 1)
        return inside ? PL_SLOWER_SMALL : PL_SLOWER;
    return inside ? PL_SAME : PL_AMBIGUOUS;
}

const char *pl_verdict_text(enum pl_verdict v)
{
    static const char *const texts[] = {
        [PL_VERDICT_NONE] = NULL,    [PL_FASTER] = "FASTER",
        [PL_SLOWER] = "SLOWER",      [PL_FASTER_SMALL] = "FASTER (small)",
        [PL_SAME] = "SAME",          [PL_SLOWER_SMALL] = "SLOWER (small)",
        [PL_AMBIGUOUS] = "AMBIGUOUS"};
    return (size_t)v < sizeof texts / sizeof texts[0] ? texts[v] : NULL;
}

/* The rank within its stream says which half a value is of; a stream of odd length leaves out its
 * middle. */
static void halves(const double *x, const uint32_t *stream, size_t n, double *change, double *z)
{
    double sum[2] = {0, 0}, squares = 0;
    size_t count[2] = {0, 0}, all = 0;

    for (size_t from = 0, to; from < n; from = to) {
        for (to = from; to < n && stream[to] == stream[from];)
            to++;
        const size_t half = (to - from) / 2;
        for (size_t i = 0; i < half; i++) {
            sum[0] += x[from + i];
            sum[1] += x[to - 1 - i];
        }
        count[0] += half;
        count[1] += half;
    }
    if (count[0] < 2)
        return;
    const double mean[2] = {sum[0] / (double)count[0], sum[1] / (double)count[1]};
    for (size_t from = 0, to; from < n; from = to) {
        for (to = from; to < n && stream[to] == stream[from];)
            to++;
        const size_t half = (to - from) / 2;
        for (size_t i = 0; i < half; i++) {
            squares += (x[from + i] - mean[0]) * (x[from + i] - mean[0]);
            squares += (x[to - 1 - i] - mean[1]) * (x[to - 1 - i] - mean[1]);
        }
        all += 2 * half;
    }
    const double se = sqrt(squares / (double)(all - 2) * (2.0 / (double)count[0]));
    *change = expm1(mean[1] - mean[0]);
    *z = se > 0 ? (mean[1] - mean[0]) / se : 0;
}

void pl_drift(double *ln_ms, const uint32_t *stream, size_t n, double delta, struct pl_drift *out)
{
    double variance = 0, covariance = 0;

    *out = (struct pl_drift){.n = n};
    if (n < PL_DRIFT_MIN)
        return;
    for (size_t from = 0, to; from < n; from = to) {
        double mean = 0;
        for (to = from; to < n && stream[to] == stream[from]; to++)
            mean += ln_ms[to];
        mean /= (double)(to - from);
        for (size_t i = from; i < to; i++) {
            ln_ms[i] -= mean;
            variance += ln_ms[i] * ln_ms[i];
            if (i > from)
                covariance += ln_ms[i] * ln_ms[i - 1];
        }
    }
    out->lag1 = variance > 0 ? covariance / variance : 0;
    halves(ln_ms, stream, n, &out->change, &out->z);
    out->halves_bad = fabs(out->z) > Z99 && fabs(out->change) > delta;
    out->lag1_bad = fabs(out->lag1) > fmax(0.1, Z99 / sqrt((double)n));
}
