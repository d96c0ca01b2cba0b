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

static enum pl_status run(void *arg, const char *path, struct pl_err *err)
{
    const struct request *q = arg;
    struct pl_vision_config c;
    struct pl_pixels p = {.v = NULL};
    struct pl_media_times t;
    char *buf = NULL;
    size_t n;
    enum pl_status st = q->out ? PL_OK : pl_fail(err, PL_EUSAGE, "-o OUT.npy is needed");

    if (!st)
        st = pl_vision_config_read(path, &c, err);
    if (!st && c.kind == PL_VISION_NONE)
        st = pl_fail(err, PL_EUSAGE, "%s: the model reads text alone", path);
    if (!st)
        st = pl_model_args_load_media(&q->a, "pixels", &c, &p, &t, err);
    if (st)
        return st;
    const size_t dim[] = {p.frames, 3, (size_t)p.size, (size_t)p.size};
    n = dim[0] * dim[1] * dim[2] * dim[3] * sizeof(float);
    buf = malloc(PL_NPY_HEADER + n);
    if (buf) {
        memcpy(buf + PL_NPY_HEADER, p.v, n);
        st = pl_npy_write(q->out, buf, dim, 4, err);
    } else {
        st = pl_fail(err, PL_ENOMEM, "no memory for %zu bytes", n);
    }
    if (!st)
        fprintf(stderr, "%zu frames: file %.3f ms, raster %.3f ms, preprocess %.3f ms\n", p.frames,
                (double)t.decode / 1e6, (double)t.raster / 1e6, (double)t.preprocess / 1e6);
    free(buf);
    pl_pixels_release(&p);
    return st;
}

int pl_rcmd_pixels(int argc, char **argv)
{
    struct request q = {.a = {.max_window_ms = -1}};
    const struct pl_ropt opts[] = {
        PL_MEDIA_OPTS(&q.a),
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
