/* A model's numbers against the reference's, which stand in .npy files. */
#ifndef PL_TESTS_MODEL_GOLDEN_H
#define PL_TESTS_MODEL_GOLDEN_H

#include "fixture.h"
#include "npy.h"

#include <math.h>

/* max |a − b| / max |b|; NaN: a holds one. */
static inline double relative(const float *a, const float *b, size_t n)
{
    double diff = 0, most = 0;

    for (size_t i = 0; i < n; i++) {
        diff = fmax(diff, fabs((double)a[i] - (double)b[i]));
        most = fmax(most, fabs((double)b[i]));
        if (a[i] != a[i])
            return NAN;
    }
    return diff / most;
}

/* The same over the rows that the golden has: the last of a's `rows`. */
static inline double relative_last(const float *a, size_t rows, const struct npy *b)
{
    assert_true(rows >= b->rows);
    return relative(a + (rows - b->rows) * b->cols, b->data, b->rows * b->cols);
}

/* Decodes greedily from the logits `last` on, which are the reference's ids. */
static inline void check_greedy(struct pl_session *s, float *last, size_t vocab,
                                const struct npy *greedy)
{
    for (size_t i = 0; i < greedy->cols; i++) {
        int32_t id = pl_logits_argmax(last, vocab);
        assert_int_equal(id, ((int32_t *)greedy->data)[i]);
        ok(pl_session_decode(s, id, last, &err));
    }
}

#endif
