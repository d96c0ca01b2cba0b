/* The interval of a ratio of totals: drawing clusters and prompts again and again. */
#include "analysis/stats.h"
#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define Z975 1.959963984540054

double pl_t975(size_t dof)
{
    static const double table[] = {
        12.706204736, 4.302652730, 3.182446305, 2.776445105, 2.570581836, 2.446911851,
        2.364624252,  2.306004135, 2.262157163, 2.228138852, 2.200985160, 2.178812830,
        2.160368656,  2.144786688, 2.131449546, 2.119905299, 2.109815578, 2.100922040,
        2.093024054,  2.085963447, 2.079613845, 2.073873068, 2.068657610, 2.063898562,
        2.059538553,  2.055529439, 2.051830516, 2.048407142, 2.045229642, 2.042272456};
    const double z = Z975, v = (double)dof;

    if (dof == 0)
        return INFINITY;
    if (dof <= sizeof table / sizeof table[0])
        return table[dof - 1];
    /* the expansion of Fisher and Cornish (1960); beyond 30 right to seven digits */
    const double z3 = z * z * z, z5 = z3 * z * z, z7 = z5 * z * z;
    return z + (z3 + z) / (4 * v) + (5 * z5 + 16 * z3 + 3 * z) / (96 * v * v) +
           (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * v * v * v);
}

/* Two numbers below a bound from each 64 random bits; their bias is bound / 2^32. */
struct dice {
    struct pl_rng rng;
    uint64_t bits;
    bool half;
};

static size_t roll(struct dice *d, size_t bound)
{
    if (!d->half)
        d->bits = pl_rng_u64(&d->rng);
    const uint64_t word = d->half ? d->bits >> 32 : d->bits & 0xffffffff;
    d->half = !d->half;
    return (size_t)((word * bound) >> 32);
}

/* Units sorted by cluster, cluster c being [first[c], first[c + 1]). */
struct draw {
    struct pl_unit *units;
    size_t n;
    size_t *first;
    size_t clusters;
};

static int by_cluster(const void *a, const void *b)
{
    const struct pl_unit *x = a, *y = b;
    if (x->cluster != y->cluster)
        return x->cluster < y->cluster ? -1 : 1;
    if (x->base != y->base) /* the answer must not hang on qsort's order of equals */
        return x->base < y->base ? -1 : 1;
    return (x->arm > y->arm) - (x->arm < y->arm);
}

/* Unit sums of whole groups: a group is a random part of one cluster. Random groups of independent
 * units have the spread that the units have, and the work is bounded. */
static void group(struct draw *d, uint64_t seed)
{
    struct pl_rng rng;
    const double keep = (double)PL_UNITS_MAX / (double)d->n;
    size_t to = 0;

    pl_rng_init(&rng, pl_keyv(seed, 1));
    for (size_t c = 0; c < d->clusters; c++) {
        const size_t from = d->first[c], size = d->first[c + 1] - from;
        const size_t groups = (size_t)fmax(1, floor((double)size * keep));
        for (size_t i = size; i > 1; i--) {
            const size_t j = (size_t)pl_rng_below(&rng, i);
            const struct pl_unit swap = d->units[from + i - 1];
            d->units[from + i - 1] = d->units[from + j];
            d->units[from + j] = swap;
        }
        d->first[c] = to;
        for (size_t g = 0; g < groups; g++) {
            struct pl_unit sum = {0, 0, d->units[from].cluster};
            for (size_t i = g * size / groups; i < (g + 1) * size / groups; i++) {
                sum.base += d->units[from + i].base;
                sum.arm += d->units[from + i].arm;
            }
            d->units[to++] = sum; /* to ≤ from + g: nothing unread is overwritten */
        }
    }
    d->first[d->clusters] = to;
    d->n = to;
}

static double one_resample(const struct draw *d, bool two_stages, struct dice *dice)
{
    double base = 0, arm = 0;

    if (!two_stages) {
        for (size_t i = 0; i < d->n; i++) {
            const struct pl_unit *u = &d->units[roll(dice, d->n)];
            base += u->base;
            arm += u->arm;
        }
        return log(base / arm);
    }
    for (size_t c = 0; c < d->clusters; c++) {
        const size_t pick = roll(dice, d->clusters);
        const size_t from = d->first[pick], size = d->first[pick + 1] - from;
        for (size_t i = 0; i < size; i++) {
            const struct pl_unit *u = &d->units[from + roll(dice, size)];
            base += u->base;
            arm += u->arm;
        }
    }
    return log(base / arm);
}

/* H/(H−1) · Σ E_h² over clusters or units. */
static double robust_variance(const struct draw *d, bool by_clusters, double base, double arm)
{
    const size_t h = by_clusters ? d->clusters : d->n;
    double sum = 0;

    for (size_t i = 0; i < h; i++) {
        const size_t from = by_clusters ? d->first[i] : i;
        const size_t to = by_clusters ? d->first[i + 1] : i + 1;
        double e = 0;
        for (size_t u = from; u < to; u++)
            e += d->units[u].base / base - d->units[u].arm / arm;
        sum += e * e;
    }
    return sum * (double)h / (double)(h - 1);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void interval(const struct draw *d, double base, double arm, double *stars, size_t n,
                     uint64_t seed, struct pl_ratio *out)
{
    struct dice dice = {.half = false};
    const double centre = log(base / arm);
    double sum = 0, squares = 0;

    pl_rng_init(&dice.rng, pl_keyv(seed, 2));
    for (size_t i = 0; i < n; i++) {
        stars[i] = one_resample(d, !out->fixed, &dice) - centre;
        sum += stars[i];
        squares += stars[i] * stars[i];
    }
    qsort(stars, n, sizeof *stars, by_value);
    const double mean = sum / (double)n;
    const double sd = sqrt(fmax(0, squares / (double)n - mean * mean));
    const double se = sqrt(robust_variance(d, !out->fixed, base, arm));
    const size_t h = out->fixed ? d->n : d->clusters;
    const double stretch = sd > 0 ? pl_t975(h - 1) / Z975 * se / sd : 0;
    out->ci_low = exp(centre + stretch * pl_quantile(stars, n, 0.025));
    out->ci_high = exp(centre + stretch * pl_quantile(stars, n, 0.975));
}

static void find_clusters(struct draw *d)
{
    d->clusters = 0;
    for (size_t i = 0; i < d->n; i++)
        if (i == 0 || d->units[i].cluster != d->units[i - 1].cluster)
            d->first[d->clusters++] = i;
    d->first[d->clusters] = d->n;
}

enum pl_status pl_ratio_ci(const struct pl_unit *units, size_t n, uint64_t seed, uint32_t resamples,
                           struct pl_ratio *out, struct pl_err *err)
{
    struct pl_ratio r = {.speedup = NAN, .ci_low = NAN, .ci_high = NAN, .fixed = true};
    struct draw d = {.n = n};
    enum pl_status st = PL_OK;
    double *stars = NULL, base = 0, arm = 0;

    if (n == 0 || n > UINT32_MAX) {
        *out = r;
        return n ? pl_fail(err, PL_ERANGE, "%zu prompts are too many", n) : PL_OK;
    }
    if (!resamples)
        resamples = n <= PL_UNITS_EXACT ? PL_RESAMPLES : PL_RESAMPLES_MANY;
    d.units = malloc(n * sizeof *d.units);
    d.first = malloc((n + 1) * sizeof *d.first);
    stars = malloc(resamples * sizeof *stars);
    if (!d.units || !d.first || !stars) {
        st = pl_fail(err, PL_ENOMEM, "a bootstrap over %zu prompts", n);
        goto out;
    }
    memcpy(d.units, units, n * sizeof *units);
    qsort(d.units, n, sizeof *d.units, by_cluster);
    find_clusters(&d);
    for (size_t i = 0; i < n; i++) {
        base += d.units[i].base;
        arm += d.units[i].arm;
    }
    r.speedup = base / arm;
    r.units = (uint32_t)n;
    r.clusters = (uint32_t)d.clusters;
    r.fixed = d.clusters < PL_CLUSTERS_MIN;
    if (n > PL_UNITS_MAX)
        group(&d, seed);
    if (n > 1)
        interval(&d, base, arm, stars, resamples, seed, &r);
    *out = r;
out:
    free(stars);
    free(d.first);
    free(d.units);
    return st;
}
