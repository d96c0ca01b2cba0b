/*
 * Which drafted tokens the verifier takes. Pure: logits in, a prefix (or path) and one more token
 * out. Greedy: as long as a draft is the verifier's own choice. Sampling (Leviathan et al. 2023,
 * Chen et al. 2023): a token that was drawn from q is taken with probability min(1, p/q), else the
 * next one is drawn from norm(max(0, p − q)); all taken: a bonus from p. A drafter that proposes
 * without chance has q = 1 at its token: one draw from p then decides, and a tree of such tokens is
 * followed for as long as the draw is one of the children. Both leave the verifier's distribution
 * as it is.
 */
#ifndef PL_SPEC_DECODE_ACCEPT_H
#define PL_SPEC_DECODE_ACCEPT_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#define PL_ACCEPT_MAX_MASKED 8

struct pl_picked; /* model/backend.h */

struct pl_accept_rule {
    double temperature; /* 0: greedy */
    uint64_t key;       /* of the draws: draw i of position t is a function of (key, t, i) alone */
    const int32_t *masked; /* ids that may not come (EOS), at most PL_ACCEPT_MAX_MASKED */
    size_t n_masked;
    float *p; /* sampling: room for [2][vocab] */
};

/* k drafted tokens below a root that is known. Node i hangs on parents[i] (< i; −1: the root);
 * NULL: a chain. */
struct pl_proposal {
    const int32_t *ids;     /* [k] */
    const int32_t *parents; /* [k] or NULL */
    const float *q;         /* [k][vocab] what ids[i] was drawn from (chains only), or NULL */
    const struct pl_picked *chosen; /* [k + 1] the greedy choice of each row of logits, or NULL */
    size_t k;
};

/* softmax(logits / temperature) over what is not masked. */
PL_MUST_CHECK
enum pl_status pl_accept_probs(const struct pl_accept_rule *rule, const float *logits, size_t vocab,
                               float *p, struct pl_err *err);
/* Draw `which` of position t: from [0, 1). Draw 0 is the token's, 1 and 2 those of a drafted one.
 */
double pl_accept_uniform(const struct pl_accept_rule *rule, uint64_t t, uint64_t which);
/* One token from p, by a draw from [0, 1). */
int32_t pl_accept_draw(const float *p, size_t vocab, double draw);
/* The verifier's token at position t (counts generated tokens), from one row of logits. PL_EFORMAT:
 * NaN or infinite. */
PL_MUST_CHECK
enum pl_status pl_accept_one(const struct pl_accept_rule *rule, float *logits, size_t vocab,
                             uint64_t t, int32_t *id, struct pl_err *err);
/* logits [k + 1][vocab] (NULL: `chosen` stands for them): row 0 after the root, row i + 1 after
 * node i; they are as before afterwards. path [k]: the nodes that were taken, from the root on;
 * *next: the token after them, at position t + *accepted. */
PL_MUST_CHECK
enum pl_status pl_accept(const struct pl_accept_rule *rule, const struct pl_proposal *d,
                         float *logits, size_t vocab, uint64_t t, int32_t *path, size_t *accepted,
                         int32_t *next, struct pl_err *err);

#endif
