/* The inner loops of resize.c, built once for each instruction set. A weight has PL_RESIZE_BITS
 * bits behind the point; a sum of weighted bytes fits 32 bits. */
#ifndef PL_MODEL_RESIZE_ROWS_H
#define PL_MODEL_RESIZE_ROWS_H

#include <stddef.h>
#include <stdint.h>

#define PL_RESIZE_BITS 22
#define PL_RESIZE_STRIP 16 /* rows that one horizontal pass takes side by side */

/* What one output column or row is made of: taps inputs from `first` on. */
struct pl_resize_tap {
    int32_t first, taps;
    const int32_t *weights;
};

struct pl_resize_kernels {
    /* One strip: from [rows = 16][from_bytes] (RGB, `pitch` bytes apart; rows beyond `rows` repeat
     * the last) to [16][3 · n], red, green, blue behind each other, `to_pitch` bytes apart. Tap
     * firsts count pixels. scratch: 16 · (width · 3 + 3 · n + 32) bytes. */
    void (*across)(const uint8_t *from, size_t pitch, size_t rows, size_t width,
                   const struct pl_resize_tap *tap, size_t n, uint8_t *to, size_t to_pitch,
                   uint8_t *scratch);
    /* One output row of n bytes, of the rows that *tap names in from, `pitch` bytes apart. */
    void (*down)(const uint8_t *from, size_t pitch, const struct pl_resize_tap *tap, uint8_t *to,
                 size_t n);
};

extern const struct pl_resize_kernels pl_resize_portable;
#ifdef PL_HAVE_AVX2
extern const struct pl_resize_kernels pl_resize_avx2;
#endif

#endif
