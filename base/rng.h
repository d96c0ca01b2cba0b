/*
 * Counter-based random numbers: every draw is a pure function of a key, so that results do not
 * depend on who ran what when. Mixing: splitmix64 finaliser (Steele, Lea, Flood 2014, "Fast
 * splittable pseudorandom number generators").
 */
#ifndef PL_BASE_RNG_H
#define PL_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

/* Folds n words into one key; the order matters, and (a) differs from (a, 0). */
uint64_t pl_key(uint64_t seed, const uint64_t *words, size_t n);
/* pl_keyv(seed, a, b, c) */
#define pl_keyv(seed, ...)                                                                         \
    pl_key((seed), (const uint64_t[]){__VA_ARGS__},                                                \
           sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))
uint64_t pl_hash_str(const char *s); /* FNV-1a 64 then the finaliser: a stable name → word */

struct pl_rng {
    uint64_t state;
};
void pl_rng_init(struct pl_rng *r, uint64_t key);
uint64_t pl_rng_u64(struct pl_rng *r);
double pl_rng_double(struct pl_rng *r);                  /* [0, 1), 53 bits */
uint64_t pl_rng_below(struct pl_rng *r, uint64_t bound); /* unbiased; bound ≥ 1 */
double pl_rng_normal(struct pl_rng *r);                  /* mean 0, σ 1 (Box–Muller) */
/* Fisher–Yates of the indices 0..n-1 in idx (which the caller filled). */
void pl_rng_shuffle(struct pl_rng *r, uint32_t *idx, size_t n);

#endif
