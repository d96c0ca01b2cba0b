/* Pillow's bicubic resize, bit for bit, of just the part that the crop keeps. For image.c, and its
 * plan for backends that do it on their device. */
#ifndef PL_MODEL_RESIZE_H
#define PL_MODEL_RESIZE_H

#include "base/arena.h"
#include "base/status.h"
#include "model/image.h"
#include "model/resize_rows.h"

#include <stdint.h>

/* One side: what the output's kept part [0, n) is made of. */
struct pl_resize_side {
    int32_t size, resized;
    int32_t n;                 /* outputs that are computed */
    int32_t before;            /* of the crop, black */
    int32_t first, last;       /* inputs that are read: [first, last) */
    struct pl_resize_tap *tap; /* [n], firsts counted from `first` */
    int32_t most;              /* taps of one output */
    int32_t *weights;          /* [n][most]: where the taps' are */
};
/* Both sides of a picture as pl_resize_crop takes them; what they point at is the arena's. */
PL_MUST_CHECK
enum pl_status pl_resize_plan(int32_t width, int32_t height, int32_t resize, int32_t crop,
                              struct pl_arena *arena, struct pl_resize_side *x,
                              struct pl_resize_side *y, struct pl_err *err);
/* The short side to `resize`, the long one in proportion, the middle square of `crop`, black where
 * there is nothing: out[3][crop][crop]. */
PL_MUST_CHECK
enum pl_status pl_resize_crop(const struct pl_image *in, int32_t resize, int32_t crop, uint8_t *out,
                              struct pl_err *err);

#endif
