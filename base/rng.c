#include "base/rng.h"

#include <math.h>

#define GOLDEN UINT64_C(0x9E3779B97F4A7C15) /* 2^64 / φ, odd: splitmix64's step */

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

uint64_t pl_key(uint64_t seed, const uint64_t *words, size_t n)
{
    uint64_t h = mix(seed + GOLDEN);

    /* Each word costs a step of its own, also when it is 0: (a) and (a, 0) part, and so do (a, b)
     * and (b, a). */
    for (size_t i = 0; i < n; i++)
        h = mix((h + GOLDEN) ^ mix(words[i] + GOLDEN));
    return h;
}

uint64_t pl_hash_str(const char *s)
{
    uint64_t h = UINT64_C(0xCBF29CE484222325);

    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * UINT64_C(0x100000001B3);
    return mix(h);
}

void pl_rng_init(struct pl_rng *r, uint64_t key)
{
    r->state = key;
}

uint64_t pl_rng_u64(struct pl_rng *r)
{
    r->state += GOLDEN;
    return mix(r->state);
}

double pl_rng_double(struct pl_rng *r)
{
    return (double)(pl_rng_u64(r) >> 11) * 0x1p-53;
}

/* Lemire 2019, "Fast random integer generation in an interval": a draw is dropped only in the
 * biased sliver. */
uint64_t pl_rng_below(struct pl_rng *r, uint64_t bound)
{
    if (bound <= 1)
        return 0;
    unsigned __int128 m = (unsigned __int128)pl_rng_u64(r) * bound;
    if ((uint64_t)m < bound) {
        uint64_t least = -bound % bound;
        while ((uint64_t)m < least)
            m = (unsigned __int128)pl_rng_u64(r) * bound;
    }
    return (uint64_t)(m >> 64);
}

double pl_rng_normal(struct pl_rng *r)
{
    /* The second value of the pair is not kept: a draw then depends on the state alone. */
    double u = 1.0 - pl_rng_double(r); /* (0, 1]: its logarithm is finite */
    double v = pl_rng_double(r);

    return sqrt(-2.0 * log(u)) * cos(2.0 * M_PI * v);
}

void pl_rng_shuffle(struct pl_rng *r, uint32_t *idx, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)pl_rng_below(r, i);
        uint32_t t = idx[i - 1];
        idx[i - 1] = idx[j];
        idx[j] = t;
    }
}
