/* Several sequences of one model together: every matrix is read once for all of them. */
#include "model/session_impl.h"

#include <string.h>

enum pl_status pl_sessions_check_same(struct pl_session *const *s, size_t n, struct pl_err *err)
{
    for (size_t i = 0; i < n; i++) {
        if (s[i]->model != s[0]->model)
            return pl_fail(err, PL_EUSAGE, "sequence %zu belongs to another model", i);
        for (size_t j = 0; j < i; j++)
            if (s[i] == s[j])
                return pl_fail(err, PL_EUSAGE, "sequences %zu and %zu are the same", j, i);
    }
    return PL_OK;
}

static enum pl_status check_part(const struct pl_part *p, size_t i, size_t *rows,
                                 struct pl_err *err)
{
    enum pl_status st;

    if (!p->n || p->n > PL_STEP_ROWS - *rows)
        return pl_fail(err, PL_ERANGE,
                       "sequence %zu adds %zu rows to a step of %zu: 1 to %d in all", i, p->n,
                       *rows, PL_STEP_ROWS);
    if (p->session->n_hooks && p->prompt)
        return pl_fail(err, PL_EUSAGE,
                       "sequence %zu has stage hooks: they see its whole prompt, alone", i);
    if (!p->prompt && !p->session->len)
        return pl_fail(err, PL_EUSAGE, "sequence %zu has no prompt yet", i);
    st = pl_session_check_decoder(p->session, err);
    if (!st)
        st = pl_session_check_room(p->session, p->n, err);
    if (!st)
        st = pl_model_check_ids(p->session->model, p->ids, p->n, err);
    *rows += p->n;
    return st;
}

enum pl_status pl_sessions_step(const struct pl_part *parts, size_t n, size_t silent, float *logits,
                                struct pl_err *err)
{
    struct pl_session *sessions[MAX_FORWARD];
    struct pl_span spans[MAX_FORWARD];
    int32_t ids[MAX_FORWARD];
    struct pl_forward f = {.spans = spans,
                           .n_spans = n,
                           .ids = ids,
                           .sums_layer = -1,
                           .want = n > silent ? PL_LOGITS_LAST : PL_LOGITS_NONE,
                           .silent = silent,
                           .logits = logits};
    size_t rows = 0;
    enum pl_status st;

    if (!n || n > MAX_FORWARD || silent > n)
        return pl_fail(err, PL_ERANGE, "%zu sequences in one step: 1 to %d", n, MAX_FORWARD);
    for (size_t i = 0; i < n; i++)
        sessions[i] = parts[i].session;
    st = pl_sessions_check_same(sessions, n, err);
    for (size_t i = 0; i < n && !st; i++) {
        size_t at = rows;
        st = check_part(&parts[i], i, &rows, err);
        if (st)
            break;
        memcpy(ids + at, parts[i].ids, parts[i].n * sizeof(*ids));
        spans[i] = (struct pl_span){.cache = sessions[i]->cache, .rows = parts[i].n};
    }
    if (st)
        return st;
    f.end_layer = sessions[0]->layers;
    st = sessions[0]->backend->forward(sessions[0]->network, &f, err);
    for (size_t i = 0; i < n && !st; i++) {
        struct pl_session *s = sessions[i];
        s->kv_read = s->backend->cache_kv_read(s->cache);
        pl_session_note_taps(s, 0, s->layers, parts[i].n);
        s->len += parts[i].n;
        s->since = parts[i].prompt ? 0 : s->since + parts[i].n;
    }
    return st;
}

enum pl_status pl_sessions_decode(struct pl_session *const *s, const int32_t *ids, size_t n,
                                  float *logits, struct pl_err *err)
{
    struct pl_part parts[MAX_FORWARD];

    if (!n || n > s[0]->max_verify)
        return pl_fail(err, PL_ERANGE, "%zu sequences in one step: 1 to %zu", n,
                       n ? s[0]->max_verify : (size_t)MAX_FORWARD);
    for (size_t i = 0; i < n; i++)
        parts[i] = (struct pl_part){.session = s[i], .ids = &ids[i], .n = 1};
    return pl_sessions_step(parts, n, 0, logits, err);
}

/* Sources that can share a pass, in pieces that fit the arrays here. */
static enum pl_status encode_some(struct pl_session *const *s, const struct pl_source *sources,
                                  size_t n, struct pl_err *err)
{
    struct pl_cache *caches[MAX_FORWARD];

    for (size_t i = 0; i < n; i++)
        caches[i] = s[i]->cache;
    return s[0]->backend->encode_batch(s[0]->network, caches, sources, n, err);
}

enum pl_status pl_sessions_encode(struct pl_session *const *s, const struct pl_source *sources,
                                  size_t n, float *const *hidden, struct pl_err *err)
{
    enum pl_status st = n ? pl_sessions_check_same(s, n, err) : PL_OK;

    for (size_t i = 0; i < n && !st; i++) {
        st = pl_session_check_source(s[i], &sources[i], err);
        if (!st && !sources[i].ids)
            st = pl_fail(err, PL_EUSAGE, "source %zu holds no ids: it is encoded alone", i);
    }
    if (st || !n)
        return st;
    for (size_t i = 0; i < n; i++)
        s[i]->source_len = 0;
    if (!s[0]->backend->encode_batch) {
        for (size_t i = 0; i < n && !st; i++)
            st = pl_session_encode(s[i], &sources[i], hidden ? hidden[i] : NULL, err);
        return st;
    }
    for (size_t i = 0; i < n && !st; i += MAX_FORWARD)
        st = encode_some(s + i, sources + i, n - i < MAX_FORWARD ? n - i : MAX_FORWARD, err);
    for (size_t i = 0; i < n && !st; i++)
        st = pl_session_note_source(s[i], sources[i].n, hidden ? hidden[i] : NULL, err);
    return st;
}

void pl_sessions_memory(struct pl_session *const *s, size_t n, struct pl_session_memory *out)
{
    *out = (struct pl_session_memory){0, 0, 0};
    for (size_t i = 0; i < n; i++) {
        struct pl_session_memory m;
        int64_t shared = s[i]->backend->cache_bytes(s[i]->cache).shared;
        pl_session_memory(s[i], &m);
        out->kv_bytes += m.kv_bytes;
        out->kv_bytes_used += m.kv_bytes_used;
        out->workspace_bytes += m.workspace_bytes - (i ? shared : 0);
    }
}
