/*
 * Pictures in memory: 8-bit RGB, as they come from PNG files, clips and rasterised events, and what
 * a vision tower is given of them.
 */
#ifndef PL_MODEL_IMAGE_H
#define PL_MODEL_IMAGE_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#define PL_IMAGE_MAX_SIDE 16384
#define PL_IMAGE_MAX_PIXELS (1 << 26)

struct pl_image {
    int32_t width, height; /* 1 … PL_IMAGE_MAX_SIDE */
    uint8_t *rgb;          /* [height, width, 3] */
};

/* Frames in their order; sizes may differ. Zero-initialise, release with pl_images_release. */
struct pl_images {
    struct pl_image *v;
    size_t n;
};
void pl_images_release(struct pl_images *l);
/* PL_ERANGE: a side, or the whole, out of bounds. */
PL_MUST_CHECK
enum pl_status pl_image_check(int32_t width, int32_t height, struct pl_err *err);
/* Appends a picture of that size, its pixels not set. PL_ERANGE: a side, or the
 * whole, out of bounds. */
PL_MUST_CHECK
enum pl_status pl_images_add(struct pl_images *l, int32_t width, int32_t height,
                             struct pl_image **out, struct pl_err *err);

/*
 * CLIP's preprocessing: the short side to `resize` (the long one to ⌊resize · long / short⌋) by
 * bicubic interpolation with antialias, the square of `crop` in the middle (offsets rounded down;
 * black where the picture is smaller), then (v/255 − mean) / std. The resized bytes are those of
 * Pillow's Image.resize(BICUBIC), bit for bit.
 */
struct pl_preprocess {
    int32_t resize, crop;
    float mean[3], std[3];
};
/* PL_ERANGE: sides out of bounds. */
PL_MUST_CHECK
enum pl_status pl_preprocess_check(const struct pl_preprocess *p, struct pl_err *err);
/* What a byte v of channel c becomes. */
void pl_preprocess_table(const struct pl_preprocess *p, float table[3][256]);
/* Pixels [n, 3, crop, crop] to out. */
PL_MUST_CHECK
enum pl_status pl_images_preprocess(const struct pl_images *l, const struct pl_preprocess *p,
                                    float *out, struct pl_err *err);
/* The resized and cropped bytes of one picture, [crop, crop, 3]; for tests. */
PL_MUST_CHECK
enum pl_status pl_image_resize_crop(const struct pl_image *in, const struct pl_preprocess *p,
                                    uint8_t *out, struct pl_err *err);

/* PNG files, by libpng; PL_EUNSUPPORTED in a build without it. Any kind of PNG is read as 8-bit RGB
 * (alpha dropped, grey and palettes expanded). */
PL_MUST_CHECK
enum pl_status pl_png_read(const char *path, struct pl_images *append, struct pl_err *err);
/* The same of bytes in memory; name: for messages. Any bytes are safe. */
PL_MUST_CHECK
enum pl_status pl_png_parse(const char *name, const void *data, size_t len,
                            struct pl_images *append, struct pl_err *err);
/* A picture as a PNG file, atomically. */
PL_MUST_CHECK
enum pl_status pl_png_write(const char *path, const struct pl_image *image, struct pl_err *err);
/* "1.6.39"; NULL in a build without libpng. */
const char *pl_png_version(void);

#endif
