/* Decode steps that need no word of the host's between them. */
#include "model/session_impl.h"

bool pl_session_generates(const struct pl_session *s)
{
    return s->backend->generate != NULL;
}

enum pl_status pl_session_generate(struct pl_session *s, const struct pl_generation *g,
                                   struct pl_generated *out, struct pl_err *err)
{
    enum pl_status st;

    if (!s->backend->generate)
        return pl_fail(err, PL_EUNSUPPORTED, "%s makes no tokens by itself", s->backend->name);
    if (!g->n || g->n_ends > PL_MAX_EOS || (g->temperature > 0 && !g->draws))
        return pl_fail(err, PL_EUSAGE,
                       "%zu tokens, %zu ends: at least 1, at most %d; above "
                       "temperature 0 with a draw for each",
                       g->n, g->n_ends, PL_MAX_EOS);
    st = pl_session_check_decoder(s, err);
    if (st)
        return st;
    if (!s->len)
        return pl_fail(err, PL_EUSAGE, "tokens are generated before any prefill");
    st = pl_session_check_room(s, g->n, err);
    if (!st)
        st = pl_model_check_ids(s->model, &g->first, 1, err);
    if (st)
        return st;
    s->kv_read = 0;
    st = s->backend->generate(s->network, s->cache, g, out, err);
    if (st)
        return st;
    s->kv_read = s->backend->cache_kv_read(s->cache);
    pl_session_note_taps(s, 0, s->layers, 1);
    s->len += g->n;
    s->since += g->n;
    return PL_OK;
}
