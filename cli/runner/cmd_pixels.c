#include "cli/runner/cmds.h"
#include "cli/runner/model_args.h"
#include "cli/runner/npy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct request {
    struct pl_model_args a;
    const char *out;
};

/* Opens the device that is to make the pixels: --device cuda --preprocess device. */
static enum pl_status open_room(const struct pl_model_args *a, struct pl_pixel_room *room,
                                struct pl_err *err)
{
    const char *device = a->device ? a->device : "cpu";
    struct pl_device_opts o = {.ordinal = 0};
    enum pl_status st;

    if (!a->preprocess || strcmp(a->preprocess, "host") == 0)
        return PL_OK;
    if (strcmp(a->preprocess, "device") != 0)
        return pl_fail(err, PL_EUSAGE, "--preprocess: \"%s\", expected host or device",
                       a->preprocess);
    st = pl_backend_find(device, &room->backend, &o.ordinal, err);
    if (st)
        return st;
    if (!room->backend->pixels)
        return pl_fail(err, PL_EUNSUPPORTED,
                       "--preprocess device: --device %s makes no pixels by itself, expected cuda",
                       device);
    return room->backend->open(&o, &room->device, err);
}

static enum pl_status run(void *arg, const char *path, struct pl_err *err)
{
    const struct request *q = arg;
    struct pl_vision_config c;
    struct pl_pixels p = {.v = NULL};
    struct pl_pixel_room room = {.t = NULL};
    struct pl_media_times t;
    char *buf = NULL;
    size_t n;
    enum pl_status st = q->out ? PL_OK : pl_fail(err, PL_EUSAGE, "-o OUT.npy is needed");

    if (!st)
        st = pl_vision_config_read(path, &c, err);
    if (!st && c.kind == PL_VISION_NONE)
        st = pl_fail(err, PL_EUSAGE, "%s: the model reads text alone", path);
    if (!st)
        st = open_room(&q->a, &room, err);
    if (!st)
        st = pl_model_args_load_media(&q->a, "pixels", &c, room.device ? &room : NULL, &p, &t, err);
    if (st)
        goto out;
    const size_t dim[] = {p.frames, 3, (size_t)p.size, (size_t)p.size};
    n = dim[0] * dim[1] * dim[2] * dim[3] * sizeof(float);
    buf = malloc(PL_NPY_HEADER + n);
    if (!buf)
        st = pl_fail(err, PL_ENOMEM, "no memory for %zu bytes", n);
    else if (p.v)
        memcpy(buf + PL_NPY_HEADER, p.v, n);
    else
        st = room.backend->download(p.device, 0, p.frames, (float *)(void *)(buf + PL_NPY_HEADER),
                                    err);
    if (!st)
        st = pl_npy_write(q->out, buf, dim, 4, err);
    if (!st)
        fprintf(stderr, "%zu frames: file %.3f ms, raster %.3f ms, preprocess %.3f ms\n", p.frames,
                (double)t.decode / 1e6, (double)t.raster / 1e6, (double)t.preprocess / 1e6);
out:
    free(buf);
    pl_pixels_release(&p);
    pl_pixel_room_release(&room);
    if (room.device)
        room.backend->close(room.device);
    return st;
}

int pl_rcmd_pixels(int argc, char **argv)
{
    struct request q = {.a = {.max_window_ms = -1}};
    const struct pl_ropt opts[] = {
        PL_MEDIA_OPTS(&q.a),
        {"device", 0, PL_ROPT_STR, &q.a.device, "cpu|cuda[:N]", "with --preprocess device", 0, 0},
        {"output", 'o', PL_ROPT_STR, &q.out, "OUT.npy", "where to (float32)", 0, 0}};
    const struct pl_rcommand c = {
        .usage = "pixels MODEL (--events F.npy | --video F | --image F.png) -o OUT.npy",
        .about =
            "Writes what the model's image tower is given of an event stream, a clip, a folder "
            "of PNGs or a\npicture: float32 [frames, 3, h, w]. Only the model's descriptions "
            "are read.",
        .opts = opts,
        .n_opts = sizeof(opts) / sizeof(opts[0]),
        .min_args = 1,
        .max_args = 1};

    return pl_rcmd_run(&c, argc, argv, run, &q);
}
