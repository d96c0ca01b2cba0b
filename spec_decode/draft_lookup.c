#include "spec_decode/draft.h"

#include <stdlib.h>
#include <string.h>

struct lookup {
    int min_ngram, max_ngram;
};

enum pl_status pl_draft_lookup_new(int min_ngram, int max_ngram, void **out, struct pl_err *err)
{
    struct lookup *l;

    if (min_ngram < 1 || max_ngram < min_ngram)
        return pl_fail(err, PL_ERANGE, "n-grams of %d to %d: expected 1 ≤ least ≤ most", min_ngram,
                       max_ngram);
    l = calloc(1, sizeof(*l));
    if (!l)
        return pl_fail(err, PL_ENOMEM, "no memory for a drafter");
    *l = (struct lookup){min_ngram, max_ngram};
    *out = l;
    return PL_OK;
}

static enum pl_status lookup_begin(void *d, const struct pl_prompt *prompt, uint64_t key,
                                   struct pl_err *err)
{
    (void)d;
    (void)prompt;
    (void)key;
    (void)err;
    return PL_OK;
}

/* Where the last n ids stood before, latest first: the place behind them; 0: nowhere. */
static size_t find(const int32_t *ids, size_t len, size_t n)
{
    const int32_t *last = ids + len - n;

    for (size_t at = len - n; at-- > 0;)
        if (ids[at] == last[0] && memcmp(ids + at, last, n * sizeof(*ids)) == 0)
            return at + n;
    return 0;
}

static enum pl_status lookup_draft(void *d, const struct pl_verified *text, size_t want,
                                   struct pl_draft *out, struct pl_err *err)
{
    const struct lookup *l = d;
    size_t len = text->n_prompt + text->n;

    (void)err;
    out->n = 0;
    out->tree = out->has_q = false;
    for (int n = l->max_ngram; n >= l->min_ngram; n--) {
        size_t at = (size_t)n < len ? find(text->ids, len, (size_t)n) : 0;
        if (!at)
            continue;
        for (; out->n < want && at < len && text->ids[at] >= 0; at++)
            out->ids[out->n++] = text->ids[at];
        if (out->n)
            break;
    }
    return PL_OK;
}

const struct pl_drafter_ops pl_draft_lookup = {
    .name = "prompt_lookup", .begin = lookup_begin, .draft = lookup_draft, .free = free};
