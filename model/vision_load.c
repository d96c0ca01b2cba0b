/* Files → pixels, step by step and timed. */
#include "base/clock.h"
#include "model/backend.h"
#include "model/events.h"
#include "model/npy.h"
#include "model/video.h"
#include "model/vision.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pl_pixels_release(struct pl_pixels *p)
{
    free(p->v);
    *p = (struct pl_pixels){.v = NULL};
}

static int64_t since(int64_t t0)
{
    int64_t t = pl_now_ns() - t0;

    return t > 0 ? t : 1; /* work was done, however coarse the clock */
}

static enum pl_status load_pixels(const struct pl_vision_config *c, const struct pl_media *m,
                                  struct pl_pixels *out, struct pl_err *err)
{
    size_t n[4], size = (size_t)c->tower.image;
    float *v = NULL;
    enum pl_status st = pl_npy_read_pixels(m->path, &v, n, err);

    if (st)
        return st;
    if (!n[0] || n[1] != 3 || n[2] != size || n[3] != size) {
        free(v);
        return pl_fail(err, PL_ERANGE,
                       "%s: [%zu, %zu, %zu, %zu], the model reads [frames, 3, %zu, %zu]", m->path,
                       n[0], n[1], n[2], n[3], size, size);
    }
    *out = (struct pl_pixels){.v = v, .frames = n[0], .size = c->tower.image};
    return PL_OK;
}

/* Frames on their way, and what they are made of. */
struct taken {
    struct pl_images images;
    struct pl_events events;    /* n 0: the pictures above */
    struct pl_event_frame *cut; /* [n] of the events, which a device renders */
    size_t n;
};

static void taken_release(struct taken *f)
{
    pl_images_release(&f->images);
    pl_events_release(&f->events);
    free(f->cut);
}

/* Rendered here, or just cut where a device renders them. */
static enum pl_status take_events(struct taken *f, size_t n, bool here, struct pl_err *err)
{
    enum pl_status st;

    if (here) {
        st = pl_events_render(&f->events, n, &f->images, err);
        pl_events_release(&f->events);
        return st;
    }
    f->n = n;
    f->cut = calloc(n, sizeof(*f->cut));
    return f->cut ? pl_events_cut(&f->events, n, f->cut, err)
                  : pl_fail(err, PL_ENOMEM, "no memory for %zu frames", n);
}

static enum pl_status load_events(const struct pl_vision_config *c, const struct pl_media *m,
                                  bool here, struct taken *f, struct pl_media_times *t,
                                  struct pl_err *warning, struct pl_err *err)
{
    int64_t window = m->max_window_ms < 0 ? c->max_window_ms : m->max_window_ms, t0 = pl_now_ns();
    bool sorted;
    enum pl_status st;

    if (c->kind != PL_VISION_EVENTGPT)
        return pl_fail(err, PL_EUSAGE, "%s: the model reads clips, not events", m->path);
    st = pl_events_read(m->path, &f->events, err);
    if (st)
        return st;
    t->decode = since(t0);
    t0 = pl_now_ns();
    sorted = f->events.sorted;
    st = pl_events_check_window(&f->events, window, err);
    if (!st)
        st = take_events(f, (size_t)c->frames, here, err);
    t->raster = since(t0);
    if (!st && !sorted)
        snprintf(warning->text, sizeof(warning->text),
                 "%.900s: t is not sorted: the frames are cut "
                 "in file order",
                 m->path);
    return st ? pl_err_prefix(err, st, "%s", m->path) : PL_OK;
}

static enum pl_status load_clip(const struct pl_vision_config *c, const struct pl_media *m,
                                struct pl_images *frames, struct pl_media_times *t,
                                struct pl_err *warning, struct pl_err *err)
{
    int64_t t0 = pl_now_ns();
    struct pl_video_info info;
    enum pl_status st = pl_video_read(m->path, (size_t)c->frames, frames, &info, err);

    t->decode = since(t0);
    if (!st && info.frames < c->frames)
        snprintf(warning->text, sizeof(warning->text), "%.900s: %lld frames, fewer than %d",
                 m->path, (long long)info.frames, c->frames);
    return st;
}

static enum pl_status load_frames(const struct pl_vision_config *c, const struct pl_media *m,
                                  bool here, struct taken *f, struct pl_media_times *t,
                                  struct pl_err *warning, struct pl_err *err)
{
    int64_t t0 = pl_now_ns();
    enum pl_status st;

    if (m->kind == PL_MEDIA_EVENTS)
        return load_events(c, m, here, f, t, warning, err);
    if (m->kind == PL_MEDIA_VIDEO)
        return load_clip(c, m, &f->images, t, warning, err);
    st = pl_png_read(m->path, &f->images, err);
    t->decode = since(t0);
    return st;
}

static enum pl_status preprocess(const struct pl_vision_config *c, const struct pl_images *frames,
                                 struct pl_pixels *out, struct pl_err *err)
{
    size_t each = 3 * (size_t)c->preprocess.crop * (size_t)c->preprocess.crop;
    float *v = malloc(frames->n * each * sizeof(*v));
    enum pl_status st;

    if (!v)
        return pl_fail(err, PL_ENOMEM, "no memory for the pixels of %zu frames", frames->n);
    st = pl_images_preprocess(frames, &c->preprocess, v, err);
    if (st)
        free(v);
    else
        *out = (struct pl_pixels){.v = v, .frames = frames->n, .size = c->preprocess.crop};
    return st;
}

/* ---- the same on a device ---- */

void pl_pixel_room_release(struct pl_pixel_room *r)
{
    if (r->backend)
        r->backend->tensor_free(r->t);
    r->t = NULL;
}

static enum pl_status reserve(struct pl_pixel_room *r, size_t frames, size_t each,
                              struct pl_err *err)
{
    if (r->t && r->backend->rows(r->t) >= frames && r->backend->cols(r->t) == each)
        return PL_OK;
    pl_pixel_room_release(r);
    return r->backend->tensor_create(r->device, frames, each, &r->t, err);
}

static enum pl_status preprocess_there(const struct pl_vision_config *c, const struct taken *f,
                                       struct pl_pixel_room *r, struct pl_pixels *out,
                                       struct pl_err *err)
{
    const struct pl_frames from = {.images = f->cut ? NULL : &f->images,
                                   .events = f->cut ? &f->events : NULL,
                                   .cut = f->cut,
                                   .n = f->cut ? f->n : f->images.n};
    const size_t crop = (size_t)c->preprocess.crop;
    enum pl_status st = pl_preprocess_check(&c->preprocess, err);

    if (!st)
        st = reserve(r, from.n, 3 * crop * crop, err);
    if (!st)
        st = r->backend->pixels(r->device, &from, &c->preprocess, r->t, err);
    if (!st)
        *out = (struct pl_pixels){.device = r->t, .frames = from.n, .size = c->preprocess.crop};
    return st;
}

enum pl_status pl_vision_load(const struct pl_vision_config *c, const struct pl_media *m,
                              struct pl_pixel_room *room, struct pl_pixels *out,
                              struct pl_media_times *times, struct pl_err *warning,
                              struct pl_err *err)
{
    struct pl_media_times t = {0, 0, 0};
    struct taken frames = {.n = 0};
    struct pl_pixels p = {.v = NULL};
    struct pl_err none;
    int64_t t0 = pl_now_ns();
    enum pl_status st;

    warning = warning ? warning : &none;
    warning->text[0] = '\0';
    if (c->kind == PL_VISION_NONE)
        return pl_fail(err, PL_EUSAGE, "%s: the model reads text alone", m->path);
    if (m->kind == PL_MEDIA_PIXELS) {
        st = load_pixels(c, m, &p, err);
        t.decode = since(t0);
    } else {
        st = load_frames(c, m, !room, &frames, &t, warning, err);
        t0 = pl_now_ns();
        if (!st)
            st = room ? preprocess_there(c, &frames, room, &p, err)
                      : preprocess(c, &frames.images, &p, err);
        t.preprocess = since(t0);
        taken_release(&frames);
    }
    if (st)
        return st;
    p.still = m->kind == PL_MEDIA_IMAGE && c->kind == PL_VISION_VIDEO_LLAVA;
    *out = p;
    if (times)
        *times = t;
    return PL_OK;
}
