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

static bool is_one_of(const int32_t *ids, size_t n, int32_t id)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

enum pl_status pl_session_generate_until(struct pl_session *s, const struct pl_generation *g,
                                         const int32_t *stops, size_t n_stops,
                                         struct pl_generated *out, size_t *made, size_t *used,
                                         struct pl_err *err)
{
    struct pl_generation part = *g;
    int64_t kv_read = 0;
    size_t all = 0, kept = 0;
    enum pl_status st = PL_OK;

    for (bool over = false; !st && !over && all < g->n;) {
        part.n = n_stops && g->n - all > PL_GENERATE_AHEAD ? PL_GENERATE_AHEAD : g->n - all;
        part.draws = g->draws ? g->draws + all : NULL;
        st = pl_session_generate(s, &part, out + all, err);
        kv_read += s->kv_read;
        for (size_t i = 0; !st && !over && i < part.n; i++) {
            part.first = out[all + i].token.id;
            over = part.first < 0 || is_one_of(stops, n_stops, part.first);
            kept++;
        }
        all += st ? 0 : part.n;
    }
    if (!st && all > kept)
        st = pl_session_rollback(s, all - kept, err);
    if (st)
        return st;
    s->kv_read = kv_read;
    *made = all;
    *used = kept;
    return PL_OK;
}

void pl_generated_times(const struct pl_generated *out, size_t n, int64_t last, int64_t least,
                        int64_t *times)
{
    for (size_t i = 0; i < n; i++) {
        const int64_t at = last - (out[n - 1].ns - out[i].ns);
        times[i] = least = at > least ? at : least;
    }
}
