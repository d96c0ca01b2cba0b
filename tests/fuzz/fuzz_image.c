/* What a vision model is shown: the first byte says whether the rest is a PNG or a clip; then what
 * the tower would be given of it. */
#include "fuzz.h"
#include "model/image.h"
#include "model/video.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct pl_preprocess p = {.resize = 20, .crop = 16, .std = {1, 1, 1}};
    struct pl_images l = {0};
    struct pl_video_info info;
    struct pl_err err;
    size_t pixels = 0;
    float *out;

    if (size < 1)
        return 0;
    if (data[0] == 'p')
        (void)!pl_png_parse("fuzz.png", data + 1, size - 1, &l, &err);
    else
        (void)!pl_video_parse("fuzz.mp4", data + 1, size - 1, 8, &l, &info, &err);
    for (size_t i = 0; i < l.n; i++)
        pixels += (size_t)l.v[i].width * (size_t)l.v[i].height;
    out = malloc((l.n + 1) * 3 * 16 * 16 * sizeof(*out));
    if (out && pixels < 1 << 20)
        (void)!pl_images_preprocess(&l, &p, out, &err);
    free(out);
    pl_images_release(&l);
    return 0;
}
