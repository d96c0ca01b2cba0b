/* Files → pixels, step by step and timed. */
#include "base/clock.h"
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

static enum pl_status load_events(const struct pl_vision_config *c, const struct pl_media *m,
                                  struct pl_images *frames, struct pl_media_times *t,
                                  struct pl_err *warning, struct pl_err *err)
{
    int64_t window = m->max_window_ms < 0 ? c->max_window_ms : m->max_window_ms, t0 = pl_now_ns();
    struct pl_events e = {.n = 0};
    enum pl_status st;

    if (c->kind != PL_VISION_EVENTGPT)
        return pl_fail(err, PL_EUSAGE, "%s: the model reads clips, not events", m->path);
    st = pl_events_read(m->path, &e, err);
    if (st)
        return st;
    t->decode = since(t0);
    t0 = pl_now_ns();
    st = pl_events_check_window(&e, window, err);
    if (!st)
        st = pl_events_render(&e, (size_t)c->frames, frames, err);
    t->raster = since(t0);
    if (!st && !e.sorted)
        snprintf(warning->text, sizeof(warning->text),
                 "%.900s: t is not sorted: the frames are cut "
                 "in file order",
                 m->path);
    pl_events_release(&e);
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
                                  struct pl_images *frames, struct pl_media_times *t,
                                  struct pl_err *warning, struct pl_err *err)
{
    int64_t t0 = pl_now_ns();
    enum pl_status st;

    if (m->kind == PL_MEDIA_EVENTS)
        return load_events(c, m, frames, t, warning, err);
    if (m->kind == PL_MEDIA_VIDEO)
        return load_clip(c, m, frames, t, warning, err);
    st = pl_png_read(m->path, frames, err);
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

enum pl_status pl_vision_load(const struct pl_vision_config *c, const struct pl_media *m,
                              struct pl_pixels *out, struct pl_media_times *times,
                              struct pl_err *warning, struct pl_err *err)
{
    struct pl_media_times t = {0, 0, 0};
    struct pl_images frames = {.v = NULL};
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
        st = load_frames(c, m, &frames, &t, warning, err);
        t0 = pl_now_ns();
        if (!st)
            st = preprocess(c, &frames, &p, err);
        t.preprocess = since(t0);
        pl_images_release(&frames);
    }
    if (st)
        return st;
    p.still = m->kind == PL_MEDIA_IMAGE && c->kind == PL_VISION_VIDEO_LLAVA;
    *out = p;
    if (times)
        *times = t;
    return PL_OK;
}
