#include "model/session_impl.h"

#include "base/clock.h"

#include <inttypes.h>
#include <string.h>

/* Rows that a tap saw when `rows` of them passed blocks [first, end). */
void pl_session_note_taps(struct pl_session *s, int32_t first, int32_t end, size_t rows)
{
    for (size_t i = 0; i < s->n_taps; i++)
        if ((s->taps[i] > first && s->taps[i] <= end) ||
            (s->taps[i] == PL_TAP_FINAL && end == s->layers))
            s->tap_rows[i] = rows;
}

enum pl_status pl_session_forward(struct pl_session *s, struct pl_forward *f, size_t rows,
                                  struct pl_err *err)
{
    struct pl_span span = {.cache = s->cache, .rows = rows};
    enum pl_status st;

    f->spans = &span;
    f->n_spans = 1;
    st = s->backend->forward(s->network, f, err);
    if (!st)
        s->kv_read += s->backend->cache_kv_read(s->cache);
    return st;
}

/* Blocks [first, end) over all n rows, in pieces that fit the workspace. want: of the last piece's
 * last row, or all. */
static enum pl_status run_segment(struct pl_session *s, const struct pl_prompt *p, int32_t first,
                                  int32_t end, size_t n, bool staged, int32_t sums_layer,
                                  size_t window, float *logits, struct pl_err *err)
{
    size_t most = s->backend->max_forward;
    enum pl_status st = PL_OK;

    for (size_t at = 0; at < n && !st; at += most) {
        size_t rows = n - at < most ? n - at : most;
        size_t skip = window && window < n ? n - window : 0; /* rows before the window */
        struct pl_forward f = {
            .ids = p->embeds ? NULL : p->ids + at,
            .embeds = p->embeds ? p->embeds + at * s->hidden : NULL,
            .positions = s->pos ? s->pos + at : NULL,
            .first_layer = first,
            .end_layer = end,
            .stage_row = at,
            .to_stage = staged,
            .sums_layer = sums_layer,
            .sums_skip = skip > at ? skip - at : 0,
            .tap_row = at,
        };
        if (logits && p->all_logits) {
            f.want = PL_LOGITS_ALL;
            f.logits = logits + at * s->vocab;
        } else if (logits && at + rows == n) {
            f.want = PL_LOGITS_LAST;
            f.logits = logits;
        }
        st = pl_session_forward(s, &f, rows, err);
    }
    pl_session_note_taps(s, first, end, n);
    return st;
}

static enum pl_status read_sums(struct pl_session *s, size_t n, struct pl_err *err)
{
    const struct pl_tensor *sums = s->backend->cache_sums(s->cache);
    size_t heads = s->backend->rows(sums);
    enum pl_status st = PL_OK;

    for (size_t h = 0; h < heads && !st; h++) {
        st = s->backend->download(sums, h, 1, s->sums_row, err);
        memcpy(s->attn + h * n, s->sums_row, n * sizeof(*s->attn));
    }
    return st;
}

static enum pl_status check_kept(const struct pl_session *s, const struct pl_stage_hook *h,
                                 int32_t layer, size_t n, size_t kept, struct pl_err *err)
{
    if (!kept || kept > n)
        return pl_fail(err, PL_ERANGE, "hook %s after layer %d keeps %zu of %zu rows", h->name,
                       layer, kept, n);
    for (size_t i = 0; i < kept && kept < n; i++)
        if (s->kept[i] < 0 || (size_t)s->kept[i] >= n || (i && s->kept[i] <= s->kept[i - 1]))
            return pl_fail(err, PL_ERANGE,
                           "hook %s after layer %d: kept row %zu is %" PRId32
                           ": rows must ascend and lie below %zu",
                           h->name, layer, i, s->kept[i], n);
    if (kept < n && (size_t)s->kept[kept - 1] != n - 1)
        return pl_fail(err, PL_ERANGE, "hook %s after layer %d drops the prompt's last row",
                       h->name, layer);
    return PL_OK;
}

/* Shows the stage to the hook and drops the rows that it does not keep. */
static enum pl_status run_hook(struct pl_session *s, const struct pl_stage_hook *h, int32_t layer,
                               size_t *n, struct pl_err *err)
{
    struct pl_tensor *rows = s->backend->cache_stage(s->cache), *view = NULL;
    struct pl_stage stage = {.layer = layer,
                             .n = *n,
                             .index = s->index,
                             .backend = s->backend,
                             .device = pl_model_device(s->model)};
    enum pl_status st = PL_OK;
    size_t kept = *n;

    if (h->needs & PL_STAGE_HIDDEN)
        st = s->backend->tensor_view(rows, 0, *n, &view, err);
    if (!st && h->needs & PL_STAGE_LAST)
        st = s->backend->download(rows, *n - 1, 1, s->last, err);
    if (!st && h->needs & PL_STAGE_ATTN)
        st = read_sums(s, *n, err);
    stage.hidden = view;
    stage.last = h->needs & PL_STAGE_LAST ? s->last : NULL;
    stage.attn = h->needs & PL_STAGE_ATTN ? s->attn : NULL;
    if (!st)
        st = h->run(h->user, &stage, s->kept, &kept, err);
    s->backend->tensor_free(view);
    if (!st)
        st = check_kept(s, h, layer, *n, kept, err);
    if (st || kept == *n)
        return st;
    st = s->backend->gather(rows, rows, s->kept, kept, err);
    for (size_t i = 0; i < kept; i++) {
        s->index[i] = s->index[s->kept[i]];
        s->pos[i] = s->pos[s->kept[i]];
    }
    *n = kept;
    return st;
}

static enum pl_status prefill_hooked(struct pl_session *s, const struct pl_prompt *p, float *logits,
                                     struct pl_err *err)
{
    size_t n = p->n;
    int32_t first = 0;
    enum pl_status st;

    s->hooks_ns = 0;
    for (size_t i = 0; i < n; i++)
        s->index[i] = s->pos[i] = (int32_t)i;
    for (int32_t l = 0; l < s->layers; l++) {
        const struct pl_stage_hook *h = s->by_layer[l];
        bool sums = h && h->needs & PL_STAGE_ATTN;
        if (!h)
            continue;
        if (sums)
            s->backend->cache_sums_clear(s->cache);
        st = run_segment(s, p, first, l + 1, n, true, sums ? l : -1, h->attn_window, NULL, err);
        const int64_t begun = pl_now_ns();
        if (!st)
            st = run_hook(s, h, l, &n, err);
        s->hooks_ns += pl_now_ns() - begun;
        if (st)
            return st;
        if (s->positions == PL_POSITIONS_RENUMBERED)
            for (size_t i = 0; i < n; i++)
                s->pos[i] = (int32_t)i;
        first = l + 1;
    }
    return run_segment(s, p, first, s->layers, n, false, -1, 0, logits, err);
}

enum pl_status pl_session_run_prompt(struct pl_session *s, const struct pl_prompt *p, float *logits,
                                     struct pl_err *err)
{
    if (s->n_hooks)
        return prefill_hooked(s, p, logits, err);
    return run_segment(s, p, 0, s->layers, p->n, false, -1, 0, logits, err);
}
