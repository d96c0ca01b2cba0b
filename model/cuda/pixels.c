/* Frames → pixels on the device. The host plans both passes of a resize (model/resize.c), whose
 * weights are made in doubles; events go over as they are, pictures as their bytes. */
#include "model/cuda/profile.h"
#include "model/resize.h"

#include <string.h>

#define MOST_EVENTS (1u << 30) /* of a frame: pl_k_raster numbers them in 31 bits */

struct frame {
    struct pl_resize_side side[2]; /* x, y */
    int32_t width, height;
};

/* Parts of the device's scratch, by bytes from its beginning. */
struct room {
    size_t plan, events, picture, wide, all;
};

/* What is sent before the first launch: the table, then both sides of each frame. */
struct plan {
    int32_t *words;
    size_t n;
};

static size_t side_words(const struct pl_resize_side *s)
{
    return 2 * (size_t)s->n + (size_t)s->n * (size_t)s->most;
}

static enum pl_status measure(const struct pl_frames *f, const struct pl_preprocess *p,
                              struct pl_arena *arena, struct frame *out, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < f->n && !st; i++) {
        const struct pl_image *image = f->images ? &f->images->v[i] : NULL;
        out[i].width = image ? image->width : f->cut[i].width;
        out[i].height = image ? image->height : f->cut[i].height;
        if (!image && f->cut[i].end - f->cut[i].begin > MOST_EVENTS)
            st = pl_fail(err, PL_ERANGE, "%zu events in a frame, at most %u are expected",
                         f->cut[i].end - f->cut[i].begin, MOST_EVENTS);
        else
            st = pl_resize_plan(out[i].width, out[i].height, p->resize, p->crop, arena,
                                &out[i].side[0], &out[i].side[1], err);
    }
    return st;
}

static enum pl_status make_plan(const struct frame *f, size_t n, const struct pl_preprocess *p,
                                struct pl_arena *arena, struct plan *out, struct pl_err *err)
{
    float table[3][256];
    size_t at = 3 * 256;

    out->n = at;
    for (size_t i = 0; i < n; i++)
        out->n += side_words(&f[i].side[0]) + side_words(&f[i].side[1]);
    out->words = pl_arena_alloc(arena, out->n * sizeof(*out->words));
    if (!out->words)
        return pl_fail(err, PL_ENOMEM, "no memory to plan the pixels of %zu frames", n);
    pl_preprocess_table(p, table);
    memcpy(out->words, table, sizeof(table));
    for (size_t i = 0; i < 2 * n; i++) {
        const struct pl_resize_side *s = &f[i / 2].side[i % 2];
        const size_t weights = (size_t)s->n * (size_t)s->most;
        for (int32_t k = 0; k < s->n; k++) {
            out->words[at + (size_t)k] = s->tap[k].first;
            out->words[at + (size_t)(s->n + k)] = s->tap[k].taps;
        }
        memcpy(out->words + at + 2 * (size_t)s->n, s->weights, weights * sizeof(*s->weights));
        at += side_words(s);
    }
    return PL_OK;
}

static struct pl_cuda_side on_device(const struct pl_resize_side *s, const int32_t *words)
{
    return (struct pl_cuda_side){.n = s->n,
                                 .before = s->before,
                                 .first = s->first,
                                 .rows = s->last - s->first,
                                 .most = s->most,
                                 .at = words,
                                 .taps = words + s->n,
                                 .weights = words + 2 * s->n};
}

static struct room lay_out(const struct pl_frames *f, const struct frame *frames, size_t words)
{
    size_t picture = 0, wide = 0;
    struct room r = {.plan = 0};

    for (size_t i = 0; i < f->n; i++) {
        const struct frame *at = &frames[i];
        size_t bytes = (size_t)at->width * (size_t)at->height * (f->events ? sizeof(uint32_t) : 3);
        size_t between = (size_t)(at->side[1].last - at->side[1].first) * 3 * (size_t)at->side[0].n;
        picture = bytes > picture ? bytes : picture;
        wide = between > wide ? between : wide;
    }
    r.events = pl_round_up(words * sizeof(int32_t), 256);
    r.picture = r.events + (f->events ? pl_round_up(5 * f->events->n, 256) : 0);
    r.wide = r.picture + pl_round_up(picture, 256);
    r.all = r.wide + wide;
    return r;
}

static enum pl_status send(struct pl_device *d, size_t at, const void *from, size_t bytes,
                           struct pl_err *err)
{
    return pl_cuda_check(
        cudaMemcpyAsync((char *)d->scratch + at, from, bytes, cudaMemcpyHostToDevice, d->stream),
        "pixels", err);
}

/* x, y and p behind each other. */
static enum pl_status send_events(struct pl_device *d, const struct pl_events *e, size_t at,
                                  struct pl_err *err)
{
    enum pl_status st = send(d, at, e->x, 2 * e->n, err);

    if (!st)
        st = send(d, at + 2 * e->n, e->y, 2 * e->n, err);
    return st ? st : send(d, at + 4 * e->n, e->p, e->n, err);
}

/* The frame's picture, or the last event at each of its pixels. */
static enum pl_status send_picture(struct pl_device *d, const struct pl_frames *f, size_t i,
                                   const struct frame *frame, const struct room *r,
                                   struct pl_err *err)
{
    const size_t pixels = (size_t)frame->width * (size_t)frame->height;
    const char *base = (const char *)d->scratch + r->events;
    enum pl_status st;
    size_t first;

    if (f->images)
        return send(d, r->picture, f->images->v[i].rgb, 3 * pixels, err);
    first = f->cut[i].begin;
    st = pl_cuda_check(
        cudaMemsetAsync((char *)d->scratch + r->picture, 0, pixels * sizeof(uint32_t), d->stream),
        "pixels", err);
    if (!st)
        pl_k_raster((const uint16_t *)base + first, (const uint16_t *)base + f->events->n + first,
                    (const uint8_t *)base + 4 * f->events->n + first,
                    (int64_t)(f->cut[i].end - first), frame->width,
                    (uint32_t *)((char *)d->scratch + r->picture), d->stream);
    return st;
}

static enum pl_status run(struct pl_device *d, const struct pl_frames *f,
                          const struct pl_preprocess *p, const struct frame *frames,
                          const struct plan *plan, float *out, struct pl_err *err)
{
    const struct room r = lay_out(f, frames, plan->n);
    const size_t each = 3 * (size_t)p->crop * (size_t)p->crop;
    enum pl_status st = pl_cuda_scratch(d, r.all, err);
    const int32_t *words = d->scratch;
    size_t at = 3 * 256;

    pl_cuda_op(d, PL_CUDA_OP_PIXELS);
    if (!st)
        st = send(d, r.plan, plan->words, plan->n * sizeof(*plan->words), err);
    if (!st && f->events)
        st = send_events(d, f->events, r.events, err);
    for (size_t i = 0; i < f->n && !st; i++) {
        const struct pl_resize_side *x = &frames[i].side[0], *y = &frames[i].side[1];
        const struct pl_cuda_side there[2] = {on_device(x, words + at),
                                              on_device(y, words + at + side_words(x))};
        at += side_words(x) + side_words(y);
        st = send_picture(d, f, i, &frames[i], &r, err);
        if (!st)
            pl_k_pixels((const char *)d->scratch + r.picture, f->events != NULL, frames[i].width,
                        &there[0], &there[1], p->crop, (const float *)d->scratch,
                        (uint8_t *)d->scratch + r.wide, out + i * each, d->stream);
    }
    pl_cuda_op(d, PL_CUDA_OP_OTHER);
    return st ? st : pl_cuda_sync(d, "pixels", err);
}

enum pl_status pl_cuda_pixels(struct pl_device *d, const struct pl_frames *f,
                              const struct pl_preprocess *p, struct pl_tensor *out,
                              struct pl_err *err)
{
    const size_t each = 3 * (size_t)p->crop * (size_t)p->crop;
    enum pl_status st = pl_cuda_enter(d, "pixels", err);
    struct frame *frames;
    struct pl_arena arena;
    struct plan plan;

    if (!st && (out->rows < f->n || out->cols != each))
        st = pl_fail(err, PL_ERANGE, "pixels [%zu, %zu] into a tensor [%zu, %zu]", f->n, each,
                     out->rows, out->cols);
    if (st)
        return st;
    pl_arena_init(&arena);
    frames = pl_arena_calloc(&arena, f->n, sizeof(*frames));
    st = frames ? measure(f, p, &arena, frames, err)
                : pl_fail(err, PL_ENOMEM, "no memory for %zu frames", f->n);
    if (!st)
        st = make_plan(frames, f->n, p, &arena, &plan, err);
    if (!st)
        st = run(d, f, p, frames, &plan, out->data, err);
    pl_arena_release(&arena);
    return st;
}
