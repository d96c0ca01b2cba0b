/*
 * ggml's block-quantised formats: what a row of blocks decodes to. Values are exactly those of
 * ggml's reference (ggml-quants.c, dequantize_row_*): in f32, w = scale · q, or scale · q + add,
 * each operation rounded by itself. Layouts stand in quant_blocks.h.
 */
#ifndef PL_MODEL_QUANT_H
#define PL_MODEL_QUANT_H

#include "model/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether dt is a block format that can be decoded (and so run). */
bool pl_quant_decodes(enum pl_dtype dt);
/* n elements at src, whole blocks, of a format that decodes → f32. src need not be aligned. */
void pl_quant_to_f32(enum pl_dtype dt, const void *src, float *dst, size_t n);

#endif
