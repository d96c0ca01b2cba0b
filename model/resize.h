/* Pillow's bicubic resize, bit for bit, of just the part that the crop keeps. For image.c. */
#ifndef PL_MODEL_RESIZE_H
#define PL_MODEL_RESIZE_H

#include "base/status.h"
#include "model/image.h"

#include <stdint.h>

/* The short side to `resize`, the long one in proportion, the middle square of `crop`, black where
 * there is nothing: out[3][crop][crop]. */
PL_MUST_CHECK
enum pl_status pl_resize_crop(const struct pl_image *in, int32_t resize, int32_t crop, uint8_t *out,
                              struct pl_err *err);

#endif
