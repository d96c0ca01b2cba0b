#include "model/image.h"

#include "model/resize.h"

#include <stdlib.h>
#include <string.h>

void pl_images_release(struct pl_images *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->v[i].rgb);
    free(l->v);
    *l = (struct pl_images){.v = NULL};
}

enum pl_status pl_image_check(int32_t width, int32_t height, struct pl_err *err)
{
    if (width < 1 || height < 1 || width > PL_IMAGE_MAX_SIDE || height > PL_IMAGE_MAX_SIDE ||
        (int64_t)width * height > PL_IMAGE_MAX_PIXELS)
        return pl_fail(err, PL_ERANGE,
                       "a picture of %d × %d: sides of 1 … %d and at most %d pixels are expected",
                       width, height, PL_IMAGE_MAX_SIDE, PL_IMAGE_MAX_PIXELS);
    return PL_OK;
}

enum pl_status pl_images_add(struct pl_images *l, int32_t width, int32_t height,
                             struct pl_image **out, struct pl_err *err)
{
    enum pl_status st = pl_image_check(width, height, err);
    struct pl_image *v;
    uint8_t *rgb;

    if (st)
        return st;
    rgb = malloc((size_t)width * (size_t)height * 3);
    v = rgb ? realloc(l->v, (l->n + 1) * sizeof(*v)) : NULL;
    if (!v) {
        free(rgb);
        return pl_fail(err, PL_ENOMEM, "no memory for a picture of %d × %d", width, height);
    }
    l->v = v;
    v[l->n] = (struct pl_image){.width = width, .height = height, .rgb = rgb};
    *out = &v[l->n++];
    return PL_OK;
}

enum pl_status pl_preprocess_check(const struct pl_preprocess *p, struct pl_err *err)
{
    if (p->resize < 1 || p->resize > PL_IMAGE_MAX_SIDE || p->crop < 1 ||
        p->crop > PL_IMAGE_MAX_SIDE)
        return pl_fail(err, PL_ERANGE,
                       "pictures are resized to %d and cropped to %d: 1 … %d is "
                       "expected",
                       p->resize, p->crop, PL_IMAGE_MAX_SIDE);
    return PL_OK;
}

enum pl_status pl_image_resize_crop(const struct pl_image *in, const struct pl_preprocess *p,
                                    uint8_t *out, struct pl_err *err)
{
    size_t crop = (size_t)p->crop, plane = crop * crop;
    uint8_t *planes = malloc(plane * 3);
    enum pl_status st = pl_preprocess_check(p, err);

    if (!st && !planes)
        st = pl_fail(err, PL_ENOMEM, "no memory for a picture of %d × %d", p->crop, p->crop);
    if (!st)
        st = pl_resize_crop(in, p->resize, p->crop, planes, err);
    for (size_t i = 0; i < plane && !st; i++)
        for (size_t c = 0; c < 3; c++)
            out[i * 3 + c] = planes[c * plane + i];
    free(planes);
    return st;
}

void pl_preprocess_table(const struct pl_preprocess *p, float table[3][256])
{
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++)
            table[c][v] = ((float)v / 255.0f - p->mean[c]) / p->std[c];
}

enum pl_status pl_images_preprocess(const struct pl_images *l, const struct pl_preprocess *p,
                                    float *out, struct pl_err *err)
{
    size_t plane = (size_t)p->crop * (size_t)p->crop;
    enum pl_status st = pl_preprocess_check(p, err);
    float table[3][256];
    uint8_t *bytes = st ? NULL : malloc(plane * 3);

    if (!st && !bytes)
        st = pl_fail(err, PL_ENOMEM, "no memory for a picture of %d × %d", p->crop, p->crop);
    pl_preprocess_table(p, table);
    for (size_t i = 0; i < l->n && !st; i++) {
        st = pl_resize_crop(&l->v[i], p->resize, p->crop, bytes, err);
        for (size_t c = 0; c < 3 && !st; c++) {
            float *to = out + (i * 3 + c) * plane;
            const uint8_t *from = bytes + c * plane;
            for (size_t k = 0; k < plane; k++)
                to[k] = table[c][from[k]];
        }
    }
    free(bytes);
    return st;
}
