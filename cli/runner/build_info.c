#include "cli/runner/build_info.h"

#include "model/backend.h"
#include "model/image.h"
#include "model/video.h"

#include <stdio.h>
#include <string.h>

/* The paths that this machine can run, each opened to see, and what "auto" takes. */
static void read_paths(json_t *isa, char *chosen, size_t size)
{
    static const char *const names[] = {"portable", "avx2"};
    struct pl_device_opts o = {.threads = 1};
    struct pl_device *d = NULL;
    struct pl_err err;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        o.isa = names[i];
        if (pl_cpu_backend.open(&o, &d, &err) != PL_OK)
            continue;
        json_array_append_new(isa, json_string(names[i]));
        pl_cpu_backend.close(d);
    }
    o.isa = NULL;
    o.threads = 0;
    if (pl_cpu_backend.open(&o, &d, &err) == PL_OK) {
        pl_cpu_backend.describe(d, chosen, size);
        pl_cpu_backend.close(d);
    }
}

json_t *pl_build_info(void)
{
    json_t *isa = json_array();
    char chosen[128] = "";

    read_paths(isa, chosen, sizeof(chosen));
    return json_pack(
        "{s:s,s:s,s:b,s:b,s:s*,s:b,s:s*,s:b,s:b,s:o,s:s}", "version", PL_VERSION, "compiler",
#if defined(__clang__)
        "clang " __clang_version__,
#else
        "gcc " __VERSION__,
#endif
        "cuda", pl_backend_by_name("cuda") != NULL, "ffmpeg", pl_video_version() != NULL,
        "ffmpeg_version", pl_video_version(), "png", pl_png_version() != NULL, "png_version",
        pl_png_version(), "mpi", 0, "hdf5", 0, "isa", isa, "device", chosen);
}
