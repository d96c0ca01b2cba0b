/* PNG by libpng's simplified interface. */
#include "base/buf.h"
#include "model/image.h"

#include <stdlib.h>
#include <string.h>

#if PL_HAVE_PNG
#include <png.h>

const char *pl_png_version(void)
{
    return PNG_LIBPNG_VER_STRING;
}

enum pl_status pl_png_parse(const char *name, const void *data, size_t len,
                            struct pl_images *append, struct pl_err *err)
{
    png_image png = {.version = PNG_IMAGE_VERSION};
    struct pl_image *image = NULL;
    uint8_t *rgba = NULL;
    size_t pixels = 0;
    enum pl_status st = PL_OK;

    if (!png_image_begin_read_from_memory(&png, data, len))
        return pl_fail(err, PL_EFORMAT, "%s: not a PNG file: %s", name, png.message);
    png.format = PNG_FORMAT_RGBA; /* RGB would mix what is transparent with a background */
    if (png.width > PL_IMAGE_MAX_SIDE || png.height > PL_IMAGE_MAX_SIDE)
        st = pl_fail(err, PL_ERANGE, "%s: %u × %u pixels, at most %d a side", name, png.width,
                     png.height, PL_IMAGE_MAX_SIDE);
    if (!st)
        st = pl_images_add(append, (int32_t)png.width, (int32_t)png.height, &image, err);
    if (!st) {
        pixels = (size_t)png.width * png.height;
        rgba = malloc(pixels * 4);
        if (!rgba)
            st = pl_fail(err, PL_ENOMEM, "%s: no memory", name);
        else if (!png_image_finish_read(&png, NULL, rgba, 0, NULL))
            st = pl_fail(err, PL_EFORMAT, "%s: broken PNG: %s", name, png.message);
        if (st)
            free(append->v[--append->n].rgb);
    }
    for (size_t i = 0; i < pixels && !st; i++)
        memcpy(image->rgb + 3 * i, rgba + 4 * i, 3);
    free(rgba);
    png_image_free(&png);
    return st;
}

enum pl_status pl_png_write(const char *path, const struct pl_image *image, struct pl_err *err)
{
    png_image png = {.version = PNG_IMAGE_VERSION,
                     .width = (png_uint_32)image->width,
                     .height = (png_uint_32)image->height,
                     .format = PNG_FORMAT_RGB};
    png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png);
    void *bytes = malloc(size);
    enum pl_status st;

    if (!bytes)
        return pl_fail(err, PL_ENOMEM, "%s: no memory", path);
    if (png_image_write_to_memory(&png, bytes, &size, 0, image->rgb, 0, NULL))
        st = pl_write_file_atomic(path, bytes, size, err);
    else
        st = pl_fail(err, PL_EIO, "%s: %s", path, png.message);
    free(bytes);
    return st;
}
#else
#define ABSENT "this build has no libpng (inspect --build)"

const char *pl_png_version(void)
{
    return NULL;
}

enum pl_status pl_png_parse(const char *name, const void *data, size_t len,
                            struct pl_images *append, struct pl_err *err)
{
    (void)data;
    (void)len;
    (void)append;
    return pl_fail(err, PL_EUNSUPPORTED, "%s: PNG cannot be read: " ABSENT, name);
}

enum pl_status pl_png_write(const char *path, const struct pl_image *image, struct pl_err *err)
{
    (void)image;
    return pl_fail(err, PL_EUNSUPPORTED, "%s: PNG cannot be written: " ABSENT, path);
}
#endif

enum pl_status pl_png_read(const char *path, struct pl_images *append, struct pl_err *err)
{
    struct pl_buf b;
    enum pl_status st = pl_read_file(path, 1u << 30, &b, err);

    if (st)
        return st;
    st = pl_png_parse(path, b.data, b.len, append, err);
    pl_buf_release(&b);
    return st;
}
