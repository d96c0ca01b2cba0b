#include "spec_decode/accept.h"

#include "base/rng.h"
#include "model/backend.h"
#include "model/session.h"

#include <math.h>
#include <stdbool.h>

double pl_accept_uniform(const struct pl_accept_rule *rule, uint64_t t, uint64_t which)
{
    struct pl_rng r;

    pl_rng_init(&r, pl_keyv(rule->key, t, which));
    return pl_rng_double(&r);
}

static enum pl_status broken(struct pl_err *err, uint64_t t)
{
    return pl_fail(err, PL_EFORMAT, "the logits of token %llu are NaN or infinite",
                   (unsigned long long)t);
}

enum pl_status pl_accept_probs(const struct pl_accept_rule *rule, const float *logits, size_t vocab,
                               float *p, struct pl_err *err)
{
    double scale = 1 / rule->temperature, sum = 0;
    float max = -INFINITY;

    for (size_t i = 0; i < vocab; i++)
        p[i] = logits[i];
    for (size_t i = 0; i < rule->n_masked; i++)
        p[rule->masked[i]] = -INFINITY;
    for (size_t i = 0; i < vocab; i++) {
        if (isnan(logits[i]))
            return pl_fail(err, PL_EFORMAT, "logit %zu is NaN", i);
        max = p[i] > max ? p[i] : max;
    }
    if (!isfinite(max))
        return pl_fail(err, PL_EFORMAT, "the largest logit is infinite");
    for (size_t i = 0; i < vocab; i++) {
        p[i] = (float)exp(((double)p[i] - (double)max) * scale);
        sum += (double)p[i];
    }
    for (size_t i = 0; i < vocab; i++)
        p[i] = (float)((double)p[i] / sum);
    return PL_OK;
}

int32_t pl_accept_draw(const float *p, size_t vocab, double draw)
{
    double sum = 0, all = 0;
    int32_t last = 0;

    for (size_t i = 0; i < vocab; i++)
        all += (double)p[i];
    for (size_t i = 0; i < vocab; i++) {
        if (p[i] <= 0)
            continue;
        sum += (double)p[i];
        last = (int32_t)i;
        if (draw * all < sum)
            break;
    }
    return last;
}

enum pl_status pl_accept_one(const struct pl_accept_rule *rule, float *logits, size_t vocab,
                             uint64_t t, int32_t *id, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    if (rule->temperature <= 0) {
        int32_t best = pl_pick(logits, vocab, rule->masked, rule->n_masked);
        if (best < 0)
            return broken(err, t);
        *id = best;
        return PL_OK;
    }
    st = pl_accept_probs(rule, logits, vocab, rule->p, err);
    if (!st)
        *id = pl_accept_draw(rule->p, vocab, pl_accept_uniform(rule, t, 0));
    return st;
}

/* The child of `node` (−1: the root) that holds id; −1: none. */
static int32_t child(const struct pl_proposal *d, int32_t node, int32_t id)
{
    for (size_t i = 0; i < d->k; i++) {
        int32_t parent = d->parents ? d->parents[i] : (int32_t)i - 1;
        if (parent == node && d->ids[i] == id)
            return (int32_t)i;
    }
    return -1;
}

/* Whether ids[i], drawn from q, is taken; *next is what comes instead when it is not. */
static enum pl_status try_drawn(const struct pl_accept_rule *rule, const struct pl_proposal *d,
                                size_t i, const float *logits, size_t vocab, uint64_t t,
                                bool *taken, int32_t *next, struct pl_err *err)
{
    const float *q = d->q + i * vocab;
    float *p = rule->p, *rest = rule->p + vocab;
    int32_t id = d->ids[i];
    bool any = false;
    enum pl_status st = pl_accept_probs(rule, logits, vocab, p, err);

    if (st)
        return st;
    *taken = pl_accept_uniform(rule, t, 1) * (double)q[id] < (double)p[id];
    if (*taken)
        return PL_OK;
    for (size_t v = 0; v < vocab; v++) {
        rest[v] = p[v] > q[v] ? p[v] - q[v] : 0;
        any |= rest[v] > 0;
    }
    /* p = q up to rounding: there is no rest, and p itself is as good. */
    *next = pl_accept_draw(any ? rest : p, vocab, pl_accept_uniform(rule, t, 2));
    return PL_OK;
}

enum pl_status pl_accept(const struct pl_accept_rule *rule, const struct pl_proposal *d,
                         float *logits, size_t vocab, uint64_t t, int32_t *path, size_t *accepted,
                         int32_t *next, struct pl_err *err)
{
    int32_t node = -1, id = -1;
    size_t n = 0;

    for (;;) {
        const size_t at = (size_t)(node + 1);
        float *row = logits ? logits + at * vocab : NULL;
        enum pl_status st = PL_OK;
        if (d->q && rule->temperature > 0 && n < d->k) {
            bool taken = false;
            st = try_drawn(rule, d, n, row, vocab, t + n, &taken, &id, err);
            node = taken ? (int32_t)n : -1;
        } else if (d->chosen && rule->temperature <= 0) {
            id = d->chosen[at].id;
            st = id < 0 ? broken(err, t + n) : PL_OK;
            node = st ? -1 : child(d, node, id);
        } else {
            st = pl_accept_one(rule, row, vocab, t + n, &id, err);
            node = st ? -1 : child(d, node, id);
        }
        if (st)
            return st;
        if (node < 0)
            break;
        path[n++] = node;
    }
    *accepted = n;
    *next = id;
    return PL_OK;
}
