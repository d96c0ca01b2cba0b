#include "pruning/keep.h"

#include <math.h>
#include <string.h>

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

void pl_keep_always(const struct pl_keep_rule *rule, size_t n, size_t *head, size_t *tail)
{
    *head = least(rule->head, n);
    *tail = least(most(rule->tail_min, (size_t)floor(rule->tail * (double)n)), n - *head);
}

size_t pl_keep_count(const struct pl_keep_rule *rule, size_t n, double r)
{
    size_t head, tail, share = (size_t)floor(r * (double)n);

    if (r >= 1)
        return n;
    pl_keep_always(rule, n, &head, &tail);
    return most(head + tail, least(n - 1, most(most(1, share), head + tail)));
}

static size_t run(const struct pl_keep_rule *rule, size_t n, double r, size_t target, size_t stages,
                  size_t *lengths)
{
    for (size_t k = 0; k < stages; k++) {
        n = least(n, most(target, pl_keep_count(rule, n, r)));
        if (lengths)
            lengths[k] = n;
    }
    return n;
}

void pl_keep_solve(const struct pl_keep_rule *rule, size_t n, double total, size_t stages,
                   size_t *lengths)
{
    const size_t target = most(1, (size_t)floor(total * (double)n));
    double low = 0, high = 1; /* high leaves at least the target */

    if (!stages)
        return;
    for (int i = 0; i < 50; i++) {
        const double mid = (low + high) / 2;
        if (run(rule, n, mid, 1, stages, NULL) >= target)
            high = mid;
        else
            low = mid;
    }
    run(rule, n, high, target, stages, lengths);
    const size_t before = stages > 1 ? lengths[stages - 2] : n;
    size_t head, tail;
    pl_keep_always(rule, before, &head, &tail);
    lengths[stages - 1] = least(before, most(target, head + tail));
}

/* Bits whose order as numbers is that of the floats. */
static uint32_t ordered(float f)
{
    uint32_t u;

    f += 0.0f; /* −0 is 0 */
    memcpy(&u, &f, sizeof u);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

void pl_keep_select(const float *scores, size_t n, size_t count, int32_t *kept)
{
    static const int shifts[] = {21, 10, 0};
    uint32_t prefix = 0, mask = 0;
    size_t histogram[2048], left = count, at = 0;

    /* The count-th largest: digit by digit from the top, among those that share the digits so far.
     */
    for (int d = 0; d < 3; d++) {
        const uint32_t digits = d < 2 ? 2047 : 1023;
        uint32_t b = digits;
        memset(histogram, 0, sizeof histogram);
        for (size_t i = 0; i < n; i++) {
            const uint32_t u = ordered(scores[i]);
            if ((u & mask) == prefix)
                histogram[(u >> shifts[d]) & digits]++;
        }
        while (histogram[b] < left)
            left -= histogram[b--];
        prefix |= b << shifts[d];
        mask |= digits << shifts[d];
    }
    /* `left` of those that equal it stay. */
    for (size_t i = 0; i < n; i++) {
        const uint32_t u = ordered(scores[i]);
        if (u > prefix || (u == prefix && left)) {
            kept[at++] = (int32_t)i;
            left -= u == prefix;
        }
    }
}
