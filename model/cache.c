#include "model/cache.h"

#include "base/arena.h"
#include "model/positions.h"

#include <stdlib.h>

/* Rows of a layer: all, or a ring that holds the window and the rows of one forward. */
static size_t layer_cap(const struct pl_cache_memory *m, const struct pl_arch *a,
                        const struct pl_cache_opts *o, int32_t layer)
{
    size_t all = pl_round_up(o->max_tokens, m->keys), ring = all;

    if (a->window && layer >= a->window_from && !o->whole_kv && (size_t)a->window < all)
        ring = pl_round_up((size_t)a->window + m->chunk, m->keys);
    return ring < all ? ring : all;
}

/* Layers that have K and V of their own. */
static int32_t kv_layers(const struct pl_arch *a)
{
    return a->causal ? a->layers : 1;
}

int64_t pl_cache_kv_bytes(const struct pl_cache_memory *m, const struct pl_arch *a,
                          const struct pl_cache_opts *o)
{
    size_t sum = 0, k, v;

    for (int32_t l = 0; l < kv_layers(a); l++) {
        m->layer_bytes(a, o->kv_dtype, layer_cap(m, a, o, l), &k, &v);
        sum += k + v;
    }
    if (a->encoder_layers) {
        m->layer_bytes(a, o->kv_dtype, pl_round_up(o->max_source, m->keys), &k, &v);
        sum += (size_t)a->layers * (k + v);
    }
    return (int64_t)sum;
}

int64_t pl_cache_side_bytes(const struct pl_cache_memory *m, const struct pl_arch *a,
                            const struct pl_cache_opts *o)
{
    int64_t padded = (int64_t)pl_round_up(o->max_tokens, m->keys), f = (int64_t)sizeof(float);
    int64_t rows = (int64_t)o->max_tokens * a->hidden * f, sum = (int64_t)o->n_taps * rows;

    sum += o->stage || !a->causal ? rows : 0;
    sum += o->attn_sums ? a->heads * padded * f : 0;
    sum += a->causal ? 0 : padded * f;
    return sum;
}

struct pl_cache_opts pl_cache_source_opts(const struct pl_cache_opts *o)
{
    return (struct pl_cache_opts){.kv_dtype = o->kv_dtype, .max_tokens = o->max_source};
}

static char *place(const struct pl_cache_memory *m, const struct pl_cache *c, struct pl_kv *kv,
                   size_t cap, char *at)
{
    size_t k, v;

    m->layer_bytes(c->arch, c->dtype, cap, &k, &v);
    kv->cap = cap;
    kv->k = at;
    kv->v = at + k;
    return at + k + v;
}

static enum pl_status create_kv(const struct pl_cache_memory *m, struct pl_cache *c,
                                const struct pl_cache_opts *o, struct pl_err *err)
{
    const struct pl_arch *a = c->arch;
    enum pl_status st;
    char *at;

    c->kv_bytes = pl_cache_kv_bytes(m, a, o);
    st = m->alloc(&c->block, (size_t)c->kv_bytes, err);
    if (st)
        return pl_err_prefix(err, st, "a KV cache of %zu tokens", o->max_tokens);
    at = c->block;
    for (int32_t l = 0; l < a->layers; l++) {
        if (l < kv_layers(a))
            at = place(m, c, &c->kv[l], layer_cap(m, a, o, l), at);
        else
            c->kv[l] = c->kv[0];
        c->kv[l].window = a->window && l >= a->window_from ? (size_t)a->window : 0;
    }
    for (int32_t l = 0; l < a->layers && a->encoder_layers; l++)
        at = place(m, c, &c->cross[l], pl_round_up(o->max_source, m->keys), at);
    if (!a->causal) { /* nothing stays: it is workspace */
        c->other_bytes += c->kv_bytes;
        c->kv_bytes = 0;
    }
    return PL_OK;
}

static enum pl_status floats(const struct pl_cache_memory *m, struct pl_cache *c, size_t n,
                             float **out, struct pl_err *err)
{
    enum pl_status st;
    void *p;

    st = m->alloc(&p, n * sizeof(float), err);
    if (st)
        return pl_err_prefix(err, st, "a session of %zu tokens", c->max_tokens);
    *out = p;
    c->other_bytes += (int64_t)(n * sizeof(float));
    return PL_OK;
}

static enum pl_status matrix(const struct pl_cache_memory *m, struct pl_cache *c,
                             struct pl_device *d, struct pl_tensor *t, size_t rows, size_t cols,
                             struct pl_err *err)
{
    *t = (struct pl_tensor){.device = d, .rows = rows, .cols = cols};
    return floats(m, c, rows * cols, &t->data, err);
}

static enum pl_status create_sides(const struct pl_cache_memory *m, struct pl_cache *c,
                                   struct pl_device *d, const struct pl_cache_opts *o,
                                   struct pl_err *err)
{
    const struct pl_arch *a = c->arch;
    size_t hidden = (size_t)a->hidden;
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < o->n_taps && !st; i++) {
        c->tap_layers[i] = o->taps[i];
        c->n_taps++;
        st = matrix(m, c, d, &c->taps[i], c->max_tokens, hidden, err);
    }
    if (!st && (o->stage || !a->causal))
        st = matrix(m, c, d, &c->stage, c->max_tokens, hidden, err);
    if (!st && !a->causal)
        st = floats(m, c, c->padded, &c->mask, err);
    if (!st && o->attn_sums)
        st = matrix(m, c, d, &c->sums, (size_t)a->heads, c->padded, err);
    return st;
}

enum pl_status pl_cache_create(const struct pl_cache_memory *m, struct pl_network *n,
                               const struct pl_arch *a, struct pl_device *d,
                               const struct pl_cache_opts *o, struct pl_cache **out,
                               struct pl_err *err)
{
    size_t layers = (size_t)a->layers;
    enum pl_status st = PL_OK;
    struct pl_cache *c;

    if (o->kv_dtype != PL_DT_F32 && o->kv_dtype != PL_DT_F16 && o->kv_dtype != PL_DT_BF16)
        return pl_fail(err, PL_EUNSUPPORTED, "a KV cache of type %s cannot be run (f32, f16, bf16)",
                       pl_dtype_traits(o->kv_dtype)->name);
    c = calloc(1, sizeof(*c));
    if (!c)
        return pl_fail(err, PL_ENOMEM, "no memory for a session");
    c->network = n;
    c->arch = a;
    c->dtype = o->kv_dtype;
    c->max_tokens = o->max_tokens;
    c->padded = pl_round_up(o->max_tokens, m->keys);
    c->kv = calloc(layers, sizeof(*c->kv));
    c->cross = calloc(layers, sizeof(*c->cross));
    c->taps = calloc(o->n_taps + 1, sizeof(*c->taps));
    c->tap_layers = calloc(o->n_taps + 1, sizeof(*c->tap_layers));
    c->positions = a->causal ? NULL : calloc(c->max_tokens, sizeof(*c->positions));
    if (!c->kv || !c->cross || !c->taps || !c->tap_layers || (!a->causal && !c->positions))
        st = pl_fail(err, PL_ENOMEM, "no memory for a session");
    if (!st)
        st = create_kv(m, c, o, err);
    if (!st)
        st = create_sides(m, c, d, o, err);
    if (st) {
        pl_cache_free(m, c);
        return st;
    }
    *out = c;
    return PL_OK;
}

void pl_cache_free(const struct pl_cache_memory *m, struct pl_cache *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n_taps; i++)
        m->free(c->taps[i].data);
    m->free(c->stage.data);
    m->free(c->sums.data);
    m->free(c->relative);
    m->free(c->mask);
    m->free(c->block);
    free(c->positions);
    free(c->taps);
    free(c->tap_layers);
    free(c->cross);
    free(c->kv);
    free(c);
}

void pl_cache_relative(const struct pl_cache *c, const float *by_bucket, size_t span, float *table)
{
    size_t heads = (size_t)c->arch->heads;

    for (size_t i = 0; i < span; i++) {
        size_t b = (size_t)pl_relative_bucket(c->arch, (int64_t)i - (int64_t)c->padded);
        for (size_t h = 0; h < heads; h++)
            table[h * span + i] = by_bucket[b * heads + h];
    }
}

size_t pl_cache_len(const struct pl_cache *c, int32_t layer)
{
    const struct pl_kv *kv = &c->kv[layer];
    size_t rows = kv->len - kv->first;

    return kv->window && rows > kv->window ? kv->window : rows;
}

void pl_cache_reset(struct pl_cache *c)
{
    for (int32_t l = 0; l < c->arch->layers; l++) {
        struct pl_kv *kv = &c->kv[l];
        kv->first = kv->len = kv->written = 0;
        kv->next_position = 0;
        c->cross[l].len = 0;
    }
    if (c->source)
        pl_cache_reset(c->source);
}

size_t pl_cache_can_drop(const struct pl_cache *c)
{
    size_t least = SIZE_MAX;

    for (int32_t l = 0; l < c->arch->layers; l++) {
        const struct pl_kv *kv = &c->kv[l];
        if (kv->written <= kv->cap)
            continue;
        size_t stays = kv->written - kv->cap + kv->window - 1; /* rows that must be left */
        size_t n = kv->len > stays ? kv->len - stays : 0;
        least = n < least ? n : least;
    }
    return least;
}

void pl_cache_drop(struct pl_cache *c, size_t n)
{
    for (int32_t l = 0; l < c->arch->layers; l++) {
        c->kv[l].len -= n;
        c->kv[l].next_position -= (int64_t)n;
    }
}

struct pl_tensor *pl_cache_stage(struct pl_cache *c)
{
    return c->stage.data ? &c->stage : NULL;
}

const struct pl_tensor *pl_cache_encoded(const struct pl_cache *c)
{
    return c->source ? &c->source->stage : c->arch->causal ? NULL : &c->stage;
}

const struct pl_tensor *pl_cache_sums(const struct pl_cache *c)
{
    return c->sums.data ? &c->sums : NULL;
}

const struct pl_tensor *pl_cache_tap(const struct pl_cache *c, size_t tap)
{
    return &c->taps[tap];
}

int64_t pl_cache_kv_read(const struct pl_cache *c)
{
    return c->kv_read;
}

enum pl_status pl_cache_check_room(const struct pl_forward *f, struct pl_err *err)
{
    for (size_t s = 0; s < f->n_spans; s++) {
        const struct pl_cache *c = f->spans[s].cache;
        for (int32_t l = f->first_layer; l < f->end_layer; l++)
            if (f->spans[s].rows > c->max_tokens - (c->kv[l].len - c->kv[l].first))
                return pl_fail(err, PL_ERANGE, "the KV cache of %zu tokens is full", c->max_tokens);
    }
    return PL_OK;
}

void pl_cache_advance(const struct pl_forward *f)
{
    size_t end = 0;

    for (size_t s = 0; s < f->n_spans; s++) {
        size_t rows = f->spans[s].rows;
        end += rows;
        for (int32_t l = f->first_layer; l < f->end_layer; l++) {
            struct pl_kv *kv = &f->spans[s].cache->kv[l];
            kv->len += rows;
            kv->written = kv->len > kv->written ? kv->len : kv->written;
            kv->next_position =
                f->positions ? f->positions[end - 1] + 1 : kv->next_position + (int64_t)rows;
        }
    }
}

enum pl_status pl_cache_check_source(const struct pl_cache *to, const struct pl_source *s,
                                     struct pl_err *err)
{
    if (s->n && s->n <= to->max_tokens)
        return PL_OK;
    return pl_fail(err, PL_ERANGE, "a source of %zu rows: the session holds %zu", s->n,
                   to->max_tokens);
}

void pl_cache_begin_source(struct pl_cache *c, struct pl_cache *to, const struct pl_source *s,
                           float *mask)
{
    const struct pl_arch *a = to->arch;
    int32_t count = 0;

    c->kv_read = to->kv_read = 0;
    for (int32_t l = 0; l < a->layers; l++)
        to->kv[l].len = s->n;
    to->masked = false;
    for (size_t i = 0; i < s->n; i++) {
        /* RoBERTa counts what is not padding, by id: its padding has the row before the first */
        bool real = a->pad < 0 || !s->ids || s->ids[i] != a->pad;
        to->positions[i] = a->pad < 0 ? (int32_t)i : real ? count++ : -1;
        mask[i] = s->mask && !s->mask[i] ? -1e30f : 0;
        to->masked = to->masked || mask[i] != 0;
    }
}
