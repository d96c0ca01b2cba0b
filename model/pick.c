/* The greedy choice of a row of logits. */
#include "model/session.h"

#include <math.h>
#include <string.h>

/* Four floats, and what a comparison of them gives. */
typedef float v4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));

static v4 larger(v4 a, v4 b)
{
    i4 which = a > b;

    return (v4)(((i4)a & which) | ((i4)b & ~which));
}

/* In lanes: a row of logits is judged for every drafted token. The largest, then where it first
 * stands. */
int32_t pl_logits_argmax(const float *logits, size_t n)
{
    v4 most[4] = {{0}}, x;
    i4 nan = {0};
    float best;
    size_t i = 0, at = 0;

    if (!n)
        return -1;
    best = logits[0];
    for (size_t k = 0; k < 4; k++)
        most[k] = (v4){best, best, best, best};
    for (; i + 16 <= n; i += 16) {
        for (size_t k = 0; k < 4; k++) {
            memcpy(&x, logits + i + 4 * k, sizeof(x));
            nan |= x != x;
            most[k] = larger(x, most[k]);
        }
    }
    for (size_t k = 0; k < 16; k++)
        best = most[k / 4][k % 4] > best ? most[k / 4][k % 4] : best;
    for (; i < n; i++) {
        nan[0] |= logits[i] != logits[i];
        best = logits[i] > best ? logits[i] : best;
    }
    if (nan[0] | nan[1] | nan[2] | nan[3])
        return -1;
    while (logits[at] != best)
        at++;
    return (int32_t)at;
}

int32_t pl_pick(float *logits, size_t n, const int32_t *masked, size_t n_masked)
{
    float kept[PL_MAX_EOS];
    bool broken = false;
    int32_t best;

    for (size_t i = 0; i < n_masked; i++) {
        kept[i] = logits[masked[i]];
        broken |= isnan(kept[i]);
        logits[masked[i]] = -INFINITY;
    }
    best = pl_logits_argmax(logits, n);
    broken |= best < 0 || !isfinite(logits[best]);
    for (size_t i = 0; i < n_masked; i++)
        logits[masked[i]] = kept[i];
    return broken ? -1 : best;
}
