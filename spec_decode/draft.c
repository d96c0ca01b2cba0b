#include "spec_decode/draft.h"

#include <inttypes.h>
#include <stdlib.h>

enum pl_status pl_draft_init(struct pl_draft *d, size_t max, size_t width, size_t vocab_q,
                             struct pl_err *err)
{
    *d = (struct pl_draft){.max = max, .width = width, .vocab = vocab_q};
    d->ids = calloc(max + 1, sizeof(*d->ids));
    d->parents = calloc(max + 1, sizeof(*d->parents));
    if (vocab_q)
        d->q = calloc(max * vocab_q, sizeof(*d->q));
    if (width)
        d->states = calloc((max + 1) * width, sizeof(*d->states));
    if (!d->ids || !d->parents || (vocab_q && !d->q) || (width && !d->states)) {
        pl_draft_release(d);
        return pl_fail(err, PL_ENOMEM, "no memory for a draft of %zu tokens", max);
    }
    return PL_OK;
}

void pl_draft_release(struct pl_draft *d)
{
    free(d->ids);
    free(d->parents);
    free(d->q);
    free(d->states);
    if (d->rows)
        d->backend->tensor_free(d->rows);
    *d = (struct pl_draft){.ids = NULL};
}

enum pl_status pl_draft_check_vocab(const struct pl_arch *drafter, const struct pl_arch *verifier,
                                    struct pl_err *err)
{
    if (drafter->vocab == verifier->vocab)
        return PL_OK;
    return pl_fail(err, PL_ERANGE,
                   "the drafter's vocabulary has %" PRId32 " ids, the verifier's %" PRId32
                   ": expected the same",
                   drafter->vocab, verifier->vocab);
}
