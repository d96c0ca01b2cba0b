#include "worker/rank/order.h"

#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

#define ARMS_MAX 65536
#define WARMUP_MAX 10000
#define ROWS_MAX ((uint64_t)1 << 26) /* of one block */

/* Draws of different kinds never share a key. */
enum {
    DRAW_UNIT = 0x756e6974,
    DRAW_ARM = 0x61726d,
    DRAW_FIRST = 0x66697273,
    DRAW_WARM = 0x7761726d
};

struct keyed {
    uint64_t key;
    uint32_t index;
};

static int by_key(const void *a, const void *b)
{
    const struct keyed *x = a, *y = b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

size_t pl_order_bit(const struct pl_order_in *in, uint32_t arm_pos, uint32_t sample,
                    uint32_t repeat)
{
    return ((size_t)arm_pos * in->n_samples + (sample - in->first_sample)) * in->repeats + repeat;
}

static bool is_done(const struct pl_order_in *in, uint32_t arm_pos, uint32_t sample,
                    uint32_t repeat)
{
    size_t bit = pl_order_bit(in, arm_pos, sample, repeat);

    return in->done && (in->done[bit / 8] >> (bit % 8) & 1);
}

static enum pl_status check(const struct pl_order_in *in, struct pl_err *err)
{
    if (in->n_arms == 0 || in->n_samples == 0 || in->repeats == 0)
        return pl_fail(err, PL_ERANGE, "a block of %u arms, %u samples and %u repeats", in->n_arms,
                       in->n_samples, in->repeats);
    if (in->n_samples > UINT32_MAX - in->first_sample)
        return pl_fail(err, PL_ERANGE, "a block's samples %u + %u overflow", in->first_sample,
                       in->n_samples);
    if (in->n_arms > ARMS_MAX || (uint64_t)in->n_samples * in->repeats > ROWS_MAX / in->n_arms)
        return pl_fail(err, PL_ERANGE, "a block of %u arms, %u samples and %u repeats is too large",
                       in->n_arms, in->n_samples, in->repeats);
    if (in->warmup > WARMUP_MAX)
        return pl_fail(err, PL_ERANGE, "%u warm-up trials", in->warmup);
    for (uint32_t i = 0; i < in->n_arms; i++) {
        if (in->arms[i].residence >= in->n_arms)
            return pl_fail(err, PL_ERANGE, "residence %u of %u arms", in->arms[i].residence,
                           in->n_arms);
    }
    return PL_OK;
}

static uint32_t count_residences(const struct pl_order_in *in)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < in->n_arms; i++) {
        if (in->arms[i].residence >= n)
            n = in->arms[i].residence + 1;
    }
    return n;
}

struct list {
    struct pl_order_item *items;
    size_t n;
    uint64_t place; /* of the next timed trial, done ones included */
};

/* One (sample, repeat) under one residence: its arms in random order. */
static void add_unit(const struct pl_order_in *in, struct list *l, uint32_t residence,
                     uint32_t sample, uint32_t repeat, bool swapped, struct keyed *arms)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < in->n_arms; i++) {
        if (in->arms[i].residence == residence)
            arms[n++] = (struct keyed){.key = pl_keyv(in->seed, DRAW_ARM, in->arms[i].arm,
                                                      in->context, sample, repeat, in->attempt),
                                       .index = i};
    }
    qsort(arms, n, sizeof(*arms), by_key);
    for (uint32_t i = 0; i < n; i++, l->place++) {
        if (is_done(in, arms[i].index, sample, repeat))
            continue;
        l->items[l->n++] = (struct pl_order_item){
            .arm = in->arms[arms[i].index].arm,
            .sample = sample,
            .repeat = repeat,
            .residence = residence,
            .order = (uint16_t)(l->place < UINT16_MAX ? l->place : UINT16_MAX),
            .timed = true,
            .swapped = swapped};
    }
}

/* All units of the samples first … first + n − 1 under one residence, in random order. */
static void add_run(const struct pl_order_in *in, struct list *l, uint32_t residence,
                    uint32_t first, uint32_t n, bool swapped, struct keyed *units,
                    struct keyed *arms)
{
    const uint32_t n_units = n * in->repeats;

    for (uint32_t u = 0; u < n_units; u++)
        units[u] =
            (struct keyed){.key = pl_keyv(in->seed, DRAW_UNIT, in->context, first + u / in->repeats,
                                          u % in->repeats, in->attempt),
                           .index = u};
    qsort(units, n_units, sizeof(*units), by_key);
    for (uint32_t u = 0; u < n_units; u++)
        add_unit(in, l, residence, first + units[u].index / in->repeats,
                 units[u].index % in->repeats, swapped, arms);
}

size_t pl_order_warmups(const struct pl_order_in *in, const struct pl_order_item *rest,
                        size_t n_rest, struct pl_order_item *out)
{
    size_t arms = 0; /* the first round finds them, the others repeat it */

    if (in->warmup == 0)
        return 0;
    for (size_t i = 0; i < n_rest && rest[i].residence == rest[0].residence; i++) {
        size_t j = 0;
        while (j < arms && out[j].arm != rest[i].arm)
            j++;
        if (!rest[i].timed || j < arms)
            continue;
        out[arms++] = (struct pl_order_item){
            .arm = rest[i].arm, .residence = rest[i].residence, .swapped = rest[i].swapped};
    }
    for (uint32_t k = 0; k < in->warmup; k++) {
        /* every arm is warmed with the same samples */
        uint64_t draw = pl_keyv(in->seed, DRAW_WARM, in->context, in->first_sample, k);
        for (size_t j = 0; j < arms; j++) {
            out[k * arms + j] = out[j];
            out[k * arms + j].sample = in->first_sample + (uint32_t)(draw % in->n_samples);
        }
    }
    return arms * in->warmup;
}

/* Puts warm-ups before each residence's first item, and marks the swaps. A new list. */
static struct pl_order_item *with_warmups(const struct pl_order_in *in, const struct list *l,
                                          size_t *n_out)
{
    size_t swaps = 0, n = 0;
    struct pl_order_item *out;

    for (size_t i = 0; i < l->n; i++)
        swaps += i == 0 || l->items[i].residence != l->items[i - 1].residence;
    out = calloc(l->n + swaps * in->n_arms * in->warmup, sizeof(*out));
    if (!out)
        return NULL;
    for (size_t i = 0; i < l->n; i++) {
        if (i == 0 || l->items[i].residence != l->items[i - 1].residence) {
            size_t first = n;
            n += pl_order_warmups(in, l->items + i, l->n - i, out + n);
            out[n] = l->items[i];
            out[first].swap = true;
            n++;
        } else {
            out[n++] = l->items[i];
        }
    }
    *n_out = n;
    return out;
}

enum pl_status pl_order_make(const struct pl_order_in *in, struct pl_order_item **items, size_t *n,
                             struct pl_err *err)
{
    struct keyed *units = NULL, *arms = NULL;
    struct pl_order_item *out = NULL;
    struct list l = {0};
    size_t n_out = 0;
    enum pl_status st = check(in, err);

    if (st)
        return st;
    const uint32_t n_res = count_residences(in);
    const bool swapped = n_res > 1;
    const uint32_t s = swapped && in->run_samples && in->run_samples < in->n_samples
                           ? in->run_samples
                           : in->n_samples;
    units = calloc((size_t)s * in->repeats, sizeof(*units));
    arms = calloc(in->n_arms, sizeof(*arms));
    l.items = calloc((size_t)in->n_arms * in->n_samples * in->repeats, sizeof(*l.items));
    if (!units || !arms || !l.items) {
        st = pl_fail(err, PL_ENOMEM, "no memory for a block of %u samples", in->n_samples);
        goto out;
    }
    /* which end of the residences comes first is drawn, so that none always has the cold device */
    bool backwards = swapped && (pl_keyv(in->seed, DRAW_FIRST, in->context, in->first_sample) & 1);
    for (uint32_t at = 0; at < in->n_samples; at += s, backwards = !backwards) {
        uint32_t run = in->n_samples - at < s ? in->n_samples - at : s;
        for (uint32_t r = 0; r < n_res; r++)
            add_run(in, &l, backwards ? n_res - 1 - r : r, in->first_sample + at, run, swapped,
                    units, arms);
    }
    if (l.n) {
        out = with_warmups(in, &l, &n_out);
        if (!out) {
            st = pl_fail(err, PL_ENOMEM, "no memory for a block of %u samples", in->n_samples);
            goto out;
        }
    }
    *items = out;
    *n = n_out;
out:
    free(units);
    free(arms);
    free(l.items);
    return st;
}

uint64_t pl_order_loads(uint32_t n_residences, uint32_t n_samples, uint32_t run_samples)
{
    uint64_t runs = run_samples ? ((uint64_t)n_samples + run_samples - 1) / run_samples : 1;

    if (n_residences == 0 || n_samples == 0)
        return 0;
    return 1 + runs * (n_residences - 1);
}
