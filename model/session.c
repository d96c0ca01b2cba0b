#include "model/session_impl.h"

#include <inttypes.h>
#include <stdlib.h>

#define DEFAULT_VERIFY 32
#define PADDING 64 /* columns that a backend may round its sums up by */

static unsigned all_needs(const struct pl_session_opts *o)
{
    unsigned needs = 0;

    for (size_t i = 0; i < o->n_hooks; i++)
        needs |= o->hooks[i].needs;
    return needs;
}

static struct pl_cache_opts cache_opts(const struct pl_session_opts *o, const struct pl_arch *a)
{
    size_t usual = (size_t)a->usual_positions;

    return (struct pl_cache_opts){
        .kv_dtype = o->kv_dtype == PL_DT_AUTO ? PL_DT_F32 : o->kv_dtype,
        .max_tokens = o->max_tokens ? o->max_tokens : usual,
        .max_source = !a->encoder_layers ? 0
                      : o->max_source    ? o->max_source
                                         : usual,
        .whole_kv = o->n_hooks > 0,
        .max_rows = o->max_verify ? o->max_verify : DEFAULT_VERIFY,
        .stage = o->n_hooks > 0,
        .attn_sums = (all_needs(o) & PL_STAGE_ATTN) != 0,
        .taps = o->taps,
        .n_taps = o->n_taps,
    };
}

static size_t own_bytes(const struct pl_arch *a, const struct pl_session_opts *o, size_t max_tokens)
{
    size_t n = 0;

    if (o->n_hooks)
        n += 3 * max_tokens * sizeof(int32_t);
    if (all_needs(o) & PL_STAGE_LAST)
        n += (size_t)a->hidden * sizeof(float);
    if (all_needs(o) & PL_STAGE_ATTN)
        n += ((size_t)a->heads * max_tokens + max_tokens + PADDING) * sizeof(float);
    return n;
}

void pl_session_bytes(const struct pl_model_info *m, const struct pl_session_opts *o,
                      struct pl_session_memory *out)
{
    const struct pl_arch *a = &m->arch;
    struct pl_cache_opts c = cache_opts(o, a);
    struct pl_cache_bytes b = m->backend->cache_need(a, &c);

    *out = (struct pl_session_memory){
        .kv_bytes = b.kv, .workspace_bytes = b.workspace + (int64_t)own_bytes(a, o, c.max_tokens)};
}

void pl_sessions_bytes(const struct pl_model_info *m, const struct pl_session_opts *o, size_t n,
                       struct pl_session_memory *out)
{
    struct pl_cache_opts c = cache_opts(o, &m->arch);
    int64_t shared = m->backend->cache_need(&m->arch, &c).shared;

    pl_session_bytes(m, o, out);
    out->kv_bytes *= (int64_t)n;
    out->workspace_bytes = shared + (out->workspace_bytes - shared) * (int64_t)n;
}

static enum pl_status check_opts(const struct pl_arch *a, const struct pl_session_opts *o,
                                 struct pl_err *err)
{
    if (o->max_tokens > (uint64_t)a->max_positions)
        return pl_fail(err, PL_ERANGE,
                       "a session of %zu tokens: the model has %" PRId64 " positions",
                       o->max_tokens, a->max_positions);
    if (o->max_source > (uint64_t)a->max_positions)
        return pl_fail(err, PL_ERANGE,
                       "a source of %zu tokens: the model has %" PRId64 " positions", o->max_source,
                       a->max_positions);
    if (o->n_hooks && (!a->causal || a->pos == PL_POS_RELATIVE))
        return pl_fail(err, PL_EUNSUPPORTED,
                       "%s: stage hooks need a decoder without relative "
                       "positions",
                       a->name);
    if (o->max_verify > MAX_FORWARD)
        return pl_fail(err, PL_ERANGE, "a verify of %zu tokens: at most %d", o->max_verify,
                       MAX_FORWARD);
    for (size_t i = 0; i < o->n_taps; i++)
        if (o->taps[i] != PL_TAP_FINAL && (o->taps[i] < 1 || o->taps[i] > a->layers))
            return pl_fail(err, PL_ERANGE, "hidden states after block %d: the model has %d",
                           o->taps[i], a->layers);
    for (size_t i = 0; i < o->n_hooks; i++) {
        const struct pl_stage_hook *h = &o->hooks[i];
        for (size_t j = 0; j < h->n_layers; j++) {
            if (h->layers[j] < 0 || h->layers[j] >= a->layers)
                return pl_fail(err, PL_ERANGE, "hook %s: layer %d: the model has 0 to %d", h->name,
                               h->layers[j], a->layers - 1);
            if (j && h->layers[j] <= h->layers[j - 1])
                return pl_fail(err, PL_ERANGE, "hook %s: its layers do not ascend", h->name);
        }
    }
    return PL_OK;
}

static enum pl_status copy_hooks(struct pl_session *s, const struct pl_session_opts *o,
                                 struct pl_err *err)
{
    s->by_layer = calloc((size_t)s->layers, sizeof(*s->by_layer));
    s->hooks = calloc(o->n_hooks + 1, sizeof(*s->hooks));
    if (!s->by_layer || !s->hooks)
        return pl_fail(err, PL_ENOMEM, "no memory for a session's hooks");
    for (size_t i = 0; i < o->n_hooks; i++) {
        const struct pl_stage_hook *h = &o->hooks[i];
        struct stage_hook *to = &s->hooks[i];
        to->hook = *h;
        s->n_hooks++; /* from here on pl_session_free knows it */
        to->layers = calloc(h->n_layers + 1, sizeof(*to->layers));
        if (!to->layers)
            return pl_fail(err, PL_ENOMEM, "no memory for a session's hooks");
        to->hook.layers = to->layers;
        for (size_t j = 0; j < h->n_layers; j++) {
            to->layers[j] = h->layers[j];
            if (s->by_layer[h->layers[j]])
                return pl_fail(err, PL_ERANGE, "hooks %s and %s both name layer %d",
                               s->by_layer[h->layers[j]]->name, h->name, h->layers[j]);
            s->by_layer[h->layers[j]] = &to->hook;
        }
    }
    return PL_OK;
}

static enum pl_status allocate(struct pl_session *s, const struct pl_session_opts *o,
                               struct pl_err *err)
{
    const struct pl_arch *a = &pl_model_info(s->model)->arch;
    size_t n = s->max_tokens;
    bool ok = true;

    s->taps = calloc(o->n_taps + 1, sizeof(*s->taps));
    s->tap_rows = calloc(o->n_taps + 1, sizeof(*s->tap_rows));
    ok = s->taps && s->tap_rows;
    for (size_t i = 0; ok && i < o->n_taps; i++)
        s->taps[i] = o->taps[i];
    s->n_taps = o->n_taps;
    if (o->n_hooks) {
        s->index = calloc(n, sizeof(*s->index));
        s->pos = calloc(n, sizeof(*s->pos));
        s->kept = calloc(n, sizeof(*s->kept));
        ok = ok && s->index && s->pos && s->kept;
    }
    if (all_needs(o) & PL_STAGE_LAST) {
        s->last = calloc(s->hidden, sizeof(*s->last));
        ok = ok && s->last;
    }
    if (all_needs(o) & PL_STAGE_ATTN) {
        s->attn = calloc((size_t)a->heads * n, sizeof(*s->attn));
        s->sums_row = calloc(n + PADDING, sizeof(*s->sums_row));
        ok = ok && s->attn && s->sums_row;
    }
    return ok ? PL_OK : pl_fail(err, PL_ENOMEM, "no memory for a session of %zu tokens", n);
}

enum pl_status pl_session_create(struct pl_model *m, const struct pl_session_opts *opts,
                                 struct pl_session **out, struct pl_err *err)
{
    static const struct pl_session_opts none;
    const struct pl_session_opts *o = opts ? opts : &none;
    const struct pl_arch *a = &pl_model_info(m)->arch;
    struct pl_cache_opts c = cache_opts(o, a);
    struct pl_session *s;
    enum pl_status st;

    st = check_opts(a, o, err);
    if (st)
        return st;
    s = calloc(1, sizeof(*s));
    if (!s)
        return pl_fail(err, PL_ENOMEM, "no memory for a session");
    s->model = m;
    s->backend = pl_model_backend(m);
    s->network = pl_model_network(m);
    s->layers = a->layers;
    s->vocab = (size_t)a->vocab;
    s->hidden = (size_t)a->hidden;
    s->max_tokens = c.max_tokens;
    s->max_verify = c.max_rows;
    s->kv_dtype = c.kv_dtype;
    s->positions = o->positions;
    s->own_bytes = own_bytes(a, o, c.max_tokens);
    st = copy_hooks(s, o, err);
    if (!st)
        st = allocate(s, o, err);
    if (!st)
        st = s->backend->cache_create(s->network, &c, &s->cache, err);
    if (st) {
        pl_session_free(s);
        return st;
    }
    *out = s;
    return PL_OK;
}

void pl_session_free(struct pl_session *s)
{
    if (!s)
        return;
    if (s->cache)
        s->backend->cache_free(s->cache);
    for (size_t i = 0; i < s->n_hooks; i++)
        free(s->hooks[i].layers);
    free(s->hooks);
    free(s->by_layer);
    free(s->index);
    free(s->pos);
    free(s->kept);
    free(s->last);
    free(s->attn);
    free(s->sums_row);
    free(s->taps);
    free(s->tap_rows);
    free(s);
}

void pl_session_reset(struct pl_session *s)
{
    s->backend->cache_reset(s->cache);
    for (size_t i = 0; i < s->n_taps; i++)
        s->tap_rows[i] = 0;
    s->len = s->since = s->source_len = s->tree = 0;
    s->kv_read = s->hooks_ns = 0;
}

enum pl_status pl_session_check_source(const struct pl_session *s, const struct pl_source *in,
                                       struct pl_err *err)
{
    const struct pl_arch *a = &pl_model_info(s->model)->arch;
    int64_t image = pl_arch_image_rows(a);

    if (a->causal && !a->encoder_layers)
        return pl_fail(err, PL_EUSAGE, "%s has no encoder", a->name);
    if (s->len && a->causal)
        return pl_fail(err, PL_EUSAGE, "a source comes before the decoder's first token");
    if (!in->n)
        return pl_fail(err, PL_ERANGE, "the source is empty: at least one row is needed");
    if (!!in->ids + !!in->embeds + !!in->pixels != 1)
        return pl_fail(err, PL_EUSAGE, "a source is ids, embeddings or pixels");
    if (in->pixels ? image != (int64_t)in->n : image && !in->embeds)
        return pl_fail(err, PL_EUSAGE, "%s reads %s", a->name,
                       image ? "pixels, an image at a time" : "ids, not pixels");
    for (size_t i = 0; in->types && i < in->n; i++)
        if (in->types[i] < 0 || in->types[i] >= a->types)
            return pl_fail(err, PL_ERANGE, "token type %zu is %" PRId32 ", the model has %" PRId32,
                           i, in->types[i], a->types);
    return in->ids ? pl_model_check_ids(s->model, in->ids, in->n, err) : PL_OK;
}

enum pl_status pl_session_encode(struct pl_session *s, const struct pl_source *source,
                                 float *hidden, struct pl_err *err)
{
    enum pl_status st = pl_session_check_source(s, source, err);

    if (st)
        return st;
    s->source_len = 0;
    st = s->backend->encode(s->network, s->cache, source, err);
    return st ? st : pl_session_note_source(s, source->n, hidden, err);
}

enum pl_status pl_session_note_source(struct pl_session *s, size_t rows, float *hidden,
                                      struct pl_err *err)
{
    if (hidden) {
        enum pl_status st =
            s->backend->download(s->backend->cache_encoded(s->cache), 0, rows, hidden, err);
        if (st)
            return st;
    }
    s->source_len = rows;
    if (!pl_model_info(s->model)->arch.causal) {
        s->len = rows;
        pl_session_note_taps(s, 0, s->layers, rows);
    }
    s->kv_read = 0;
    return PL_OK;
}

enum pl_status pl_session_pooled(struct pl_session *s, float *out, struct pl_err *err)
{
    if (!s->source_len || pl_model_info(s->model)->arch.causal)
        return pl_fail(err, PL_EUSAGE, "there is nothing to pool: an encoder reads a source first");
    return s->backend->pool(s->network, s->cache, out, err);
}

/* Whether the session can take ids of a decoder. */
enum pl_status pl_session_check_decoder(const struct pl_session *s, struct pl_err *err)
{
    const struct pl_arch *a = &pl_model_info(s->model)->arch;

    if (!a->causal)
        return pl_fail(err, PL_EUSAGE, "%s is an encoder: it makes no tokens", a->name);
    if (a->encoder_layers && !s->source_len)
        return pl_fail(err, PL_EUSAGE, "%s: the source comes before the decoder's ids", a->name);
    if (s->tree)
        return pl_fail(err, PL_EUSAGE, "a tree of %zu rows is at hand: a path of it is kept first",
                       s->tree);
    return PL_OK;
}

enum pl_status pl_session_check_room(const struct pl_session *s, size_t n, struct pl_err *err)
{
    int64_t most = pl_model_info(s->model)->arch.max_positions;

    if (n <= s->max_tokens - s->len)
        return PL_OK;
    return pl_fail(err, PL_ERANGE,
                   "%zu tokens after %zu: the session holds %zu (the model has %" PRId64
                   " positions)",
                   n, s->len, s->max_tokens, most);
}

enum pl_status pl_session_prefill(struct pl_session *s, const struct pl_prompt *p, float *logits,
                                  struct pl_err *err)
{
    enum pl_status st;

    if (!p->n)
        return pl_fail(err, PL_ERANGE, "the prompt is empty: at least one token is needed");
    if (!p->ids && !p->embeds)
        return pl_fail(err, PL_EUSAGE, "a prompt needs ids or embeddings");
    if (s->n_hooks && s->len)
        return pl_fail(err, PL_EUSAGE, "a session with hooks takes one prompt after a reset");
    if (s->n_hooks && p->all_logits)
        return pl_fail(err, PL_EUSAGE, "a session with hooks gives the last row's logits only");
    st = pl_session_check_decoder(s, err);
    if (!st)
        st = pl_session_check_room(s, p->n, err);
    if (!st && !p->embeds)
        st = pl_model_check_ids(s->model, p->ids, p->n, err);
    if (st)
        return st;
    s->kv_read = 0;
    st = pl_session_run_prompt(s, p, logits, err);
    if (st) {
        pl_session_reset(s);
        return st;
    }
    s->len += p->n;
    s->since = 0;
    return PL_OK;
}

/* f: what is wanted of the rows; the rest is filled in here. */
static enum pl_status append(struct pl_session *s, const int32_t *ids, size_t k,
                             struct pl_forward f, struct pl_err *err)
{
    enum pl_status st;

    f.ids = ids;
    f.end_layer = s->layers;
    f.sums_layer = -1;
    f.want = PL_LOGITS_ALL;

    st = pl_session_check_decoder(s, err);
    if (st)
        return st;
    if (!s->len)
        return pl_fail(err, PL_EUSAGE, "decode or verify before any prefill");
    st = pl_session_check_room(s, k, err);
    if (!st)
        st = pl_model_check_ids(s->model, ids, k, err);
    if (st)
        return st;
    s->kv_read = 0;
    st = pl_session_forward(s, &f, k, err);
    if (st)
        return st;
    pl_session_note_taps(s, 0, s->layers, k);
    s->len += k;
    s->since += k;
    return PL_OK;
}

enum pl_status pl_session_decode(struct pl_session *s, int32_t id, float *logits,
                                 struct pl_err *err)
{
    return append(s, &id, 1, (struct pl_forward){.logits = logits}, err);
}

enum pl_status pl_session_decode_pick(struct pl_session *s, int32_t id, const int32_t *ends,
                                      size_t n_ends, const struct pl_draw *draw, float *logits,
                                      bool *copied, struct pl_picked *out, struct pl_err *err)
{
    const bool there = s->backend->picks;
    struct pl_picked got = {-1, -1};
    struct pl_forward f = {.logits = there ? NULL : logits,
                           .picked = there ? &got : NULL,
                           .draw = draw,
                           .ends = ends,
                           .n_ends = n_ends};
    enum pl_status st = append(s, &id, 1, f, err);

    if (st)
        return st;
    if (!there && !draw) {
        got.id = pl_pick(logits, s->vocab, ends, n_ends);
        got.all = got.id < 0 ? -1 : pl_logits_argmax(logits, s->vocab);
    }
    *copied = !there;
    *out = got;
    return PL_OK;
}

static enum pl_status check_verify(const struct pl_session *s, size_t k, struct pl_err *err)
{
    if (k && k <= s->max_verify)
        return PL_OK;
    return pl_fail(err, PL_ERANGE, "a verify of %zu tokens: this session takes 1 to %zu", k,
                   s->max_verify);
}

enum pl_status pl_session_verify(struct pl_session *s, const int32_t *ids, size_t k, float *logits,
                                 struct pl_err *err)
{
    enum pl_status st = check_verify(s, k, err);

    return st ? st : append(s, ids, k, (struct pl_forward){.logits = logits}, err);
}

bool pl_session_picks(const struct pl_session *s)
{
    return s->backend->picks;
}

enum pl_status pl_session_verify_pick(struct pl_session *s, const int32_t *ids, size_t k,
                                      const int32_t *ends, size_t n_ends, struct pl_picked *out,
                                      struct pl_err *err)
{
    const struct pl_forward f = {.picked = out, .ends = ends, .n_ends = n_ends};
    enum pl_status st = check_verify(s, k, err);

    if (!st && !s->backend->picks)
        st = pl_fail(err, PL_EUNSUPPORTED, "%s does not pick", s->backend->name);
    return st ? st : append(s, ids, k, f, err);
}

enum pl_status pl_session_rollback(struct pl_session *s, size_t n, struct pl_err *err)
{
    if (s->tree)
        return pl_fail(err, PL_EUSAGE, "a rollback while a tree of %zu rows is at hand", s->tree);
    if (n > s->since)
        return pl_fail(err, PL_ERANGE, "a rollback of %zu tokens: %zu were added since the prefill",
                       n, s->since);
    if (n > s->backend->cache_can_drop(s->cache))
        return pl_fail(err, PL_ERANGE,
                       "a rollback of %zu tokens: the sliding window has overwritten what stood "
                       "before more than %zu",
                       n, s->backend->cache_can_drop(s->cache));
    s->backend->cache_drop(s->cache, n);
    s->len -= n;
    s->since -= n;
    return PL_OK;
}

size_t pl_session_len(const struct pl_session *s)
{
    return s->len;
}

size_t pl_session_capacity(const struct pl_session *s)
{
    return s->max_tokens;
}

size_t pl_session_kv_len(const struct pl_session *s, int32_t layer)
{
    return layer >= 0 && layer < s->layers ? s->backend->cache_len(s->cache, layer) : 0;
}

enum pl_status pl_session_kv_keep(struct pl_session *s, int32_t layer, const int32_t *idx, size_t n,
                                  struct pl_err *err)
{
    size_t len = pl_session_kv_len(s, layer);
    size_t heads = (size_t)pl_model_info(s->model)->arch.kv_heads;

    if (s->since || !s->len)
        return pl_fail(err, PL_EUSAGE, "KV rows are dropped right after a prefill");
    if (layer < 0 || layer >= s->layers || !n || n > len)
        return pl_fail(err, PL_ERANGE, "keep %zu of the %zu KV rows of layer %d", n, len, layer);
    for (size_t i = 0; i < heads * n; i++)
        if (idx[i] < 0 || (size_t)idx[i] >= len || (i % n && idx[i] <= idx[i - 1]))
            return pl_fail(err, PL_ERANGE, "layer %d: KV row %" PRId32 " of %zu does not ascend",
                           layer, idx[i], len);
    s->backend->cache_keep(s->cache, layer, idx, n);
    return PL_OK;
}

int64_t pl_session_kv_read(const struct pl_session *s)
{
    return s->kv_read;
}

int64_t pl_session_hooks_ns(const struct pl_session *s)
{
    return s->hooks_ns;
}

size_t pl_session_hidden_rows(const struct pl_session *s, size_t tap)
{
    return tap < s->n_taps ? s->tap_rows[tap] : 0;
}

const struct pl_tensor *pl_session_hidden(const struct pl_session *s, size_t tap)
{
    return tap < s->n_taps ? s->backend->cache_tap(s->cache, tap) : NULL;
}

enum pl_status pl_session_hidden_copy(const struct pl_session *s, size_t tap, size_t first,
                                      size_t n, float *out, struct pl_err *err)
{
    size_t rows = pl_session_hidden_rows(s, tap);

    if (tap >= s->n_taps || first > rows || n > rows - first)
        return pl_fail(err, PL_ERANGE, "hidden states %zu to %zu of tap %zu: it holds %zu rows",
                       first, first + n, tap, rows);
    return s->backend->download(s->backend->cache_tap(s->cache, tap), first, n, out, err);
}

void pl_session_memory(const struct pl_session *s, struct pl_session_memory *out)
{
    const struct pl_arch *a = &pl_model_info(s->model)->arch;
    struct pl_cache_bytes b = s->backend->cache_bytes(s->cache);
    int64_t row = pl_arch_kv_bytes_per_token(a, s->kv_dtype) / s->layers;

    out->kv_bytes = b.kv;
    out->workspace_bytes = b.workspace + (int64_t)s->own_bytes;
    out->kv_bytes_used = 0;
    for (int32_t l = 0; l < s->layers; l++)
        out->kv_bytes_used +=
            row * (int64_t)(s->backend->cache_len(s->cache, l) + (a->causal ? s->source_len : 0));
}

struct pl_model *pl_session_model(const struct pl_session *s)
{
    return s->model;
}
