/* Decode steps that need no word of the host's between them. */
#include "model/session_impl.h"

bool pl_session_generates(const struct pl_session *s)
{
    return s->backend->generate != NULL;
}

static enum pl_status check_generation(struct pl_session *const *s, size_t n,
                                       const struct pl_generation *g, struct pl_err *err)
{
    const size_t rows = n ? g->n_ids / n + g->n - 1 : 0; /* of each sequence */
    enum pl_status st = PL_OK;

    if (!n || n > MAX_FORWARD)
        return pl_fail(err, PL_ERANGE, "%zu sequences in one step: 1 to %d", n, MAX_FORWARD);
    if (!s[0]->backend->generate)
        return pl_fail(err, PL_EUNSUPPORTED, "%s makes no tokens by itself", s[0]->backend->name);
    if (!g->n || g->n_ends > PL_MAX_EOS || (g->temperature > 0 && !g->draws))
        return pl_fail(err, PL_EUSAGE,
                       "%zu tokens, %zu ends: at least 1, at most %d; above "
                       "temperature 0 with a draw for each",
                       g->n, g->n_ends, PL_MAX_EOS);
    if (g->logits && n > 1)
        return pl_fail(err, PL_EUSAGE, "the logits of %zu sequences: of one alone", n);
    if (!g->n_ids || (n > 1 && g->n_ids != n) || g->n_ids > PL_STEP_ROWS)
        return pl_fail(err, PL_EUSAGE,
                       "%zu tokens go into %zu sequences: one into each, or up to %d into one",
                       g->n_ids, n, PL_STEP_ROWS);
    st = pl_sessions_check_same(s, n, err);
    for (size_t i = 0; i < n && !st; i++) {
        st = pl_session_check_decoder(s[i], err);
        if (!st && !s[i]->len)
            st = pl_fail(err, PL_EUSAGE, "tokens are generated before any prefill");
        if (!st)
            st = pl_session_check_room(s[i], rows, err);
    }
    return st ? st : pl_model_check_ids(s[0]->model, g->ids, g->n_ids, err);
}

enum pl_status pl_sessions_generate(struct pl_session *const *s, size_t n,
                                    const struct pl_generation *g, struct pl_generated *out,
                                    struct pl_err *err)
{
    struct pl_cache *caches[MAX_FORWARD] = {NULL};
    enum pl_status st = check_generation(s, n, g, err);

    if (st)
        return st;
    for (size_t i = 0; i < n; i++)
        caches[i] = s[i]->cache;
    st = s[0]->backend->generate(s[0]->network, caches, n, g, out, err);
    for (size_t i = 0; i < n && !st; i++) {
        const size_t rows = g->n_ids / n + g->n - 1;
        s[i]->kv_read = s[i]->backend->cache_kv_read(s[i]->cache);
        pl_session_note_taps(s[i], 0, s[i]->layers, rows);
        s[i]->len += rows;
        s[i]->since += rows;
    }
    return st;
}

enum pl_status pl_session_generate(struct pl_session *s, const struct pl_generation *g,
                                   struct pl_generated *out, struct pl_err *err)
{
    return pl_sessions_generate(&s, 1, g, out, err);
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

    int32_t last;

    for (bool over = false; !st && !over && all < g->n;) {
        part.n = n_stops && g->n - all > PL_GENERATE_AHEAD ? PL_GENERATE_AHEAD : g->n - all;
        part.draws = g->draws ? g->draws + all : NULL;
        st = pl_session_generate(s, &part, out + all, err);
        kv_read += s->kv_read;
        for (size_t i = 0; !st && !over && i < part.n; i++) {
            last = out[all + i].token.id;
            over = last < 0 || is_one_of(stops, n_stops, last);
            kept++;
        }
        part.ids = &last;
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

void pl_generated_times(const struct pl_generated *out, size_t stride, size_t n, int64_t last,
                        int64_t least, int64_t *times)
{
    for (size_t i = 0; i < n; i++) {
        const int64_t at = last - (out[(n - 1) * stride].ns - out[i * stride].ns);
        times[i] = least = at > least ? at : least;
    }
}
