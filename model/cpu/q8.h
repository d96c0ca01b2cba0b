/*
 * Products in 8-bit integers: weights of ggml's block formats, repacked at load, with activations
 * that are quantised once for each product. Layouts of both, for those who make them (q8_pack.c,
 * `quantize`) and those who read them (q8.c).
 *
 * Activations: int8 with one scale for each 32 elements, q = round to even(x · 127 / max |x|).
 *
 * Weights: panels of 16 outputs. A panel is a row of blocks of `block` columns; a block holds, for
 * its 16 outputs, the halves d and, where the format has them, m; the scales of its groups and
 * their mins, a byte each; and then a unit for each 32 columns. In a unit, vector j (of 8) holds
 * columns 4j … 4j + 3 of 16 outputs, 64 bytes: what one dot-product instruction takes. Its
 * integers are not negative but in q8_0, and are split into planes:
 *   8 bits  the vectors themselves
 *   4 bits  4 · 64 bytes, vector i low and i + 4 high (i < 4)
 *   2 bits  2 · 64 bytes, vectors i, i + 2, i + 4, i + 6 from low to high (i < 2)
 *   1 bit   64 bytes, bit j of vector j
 * Q4_K, Q5_K and Q3_K grow by 2 to 4 % (their 6-bit scales become bytes), the others stay as large.
 *
 * Order of operations: a unit's integers, Σ scale · (q − offset) · activation and Σ min ·
 * activation, are exact; t = integer · d, with mins fma(integer of the mins, ±m, t); an output is
 * the chain acc = fma(t, scale of the activation, acc) by rising units. So bits depend neither on
 * rows nor on threads.
 */
#ifndef PL_MODEL_CPU_Q8_H
#define PL_MODEL_CPU_Q8_H

#include "model/cpu/kernels.h"

#define PL_Q8_CHUNK 256 /* columns of one struct pl_q8 */
#define PL_Q8_UNIT 32
#define PL_Q8_AHEAD 4096 /* bytes */
#define PL_Q8_FEW 8      /* rows; more wait for arithmetic, not for weights */

/* A row's activations of 256 columns (zeros behind the last). */
struct pl_q8 {
    int8_t q[PL_Q8_CHUNK];
    float d[PL_Q8_CHUNK / PL_Q8_UNIT];
    int16_t sum[PL_Q8_CHUNK / 16]; /* Σ q of 16 columns */
    /* The same apart for columns 4i, 4i + 1 and 4i + 2, 4i + 3, times 32: as pairs of products
     * come out of the multiplication. */
    int16_t pair[PL_Q8_CHUNK / 16][2];
};

_Static_assert(sizeof(struct pl_q8) == 384, "six cache lines");

/* X(dtype, block, group, low plane's bits, high plane's bits, offset, has m, bytes of scales and
 * mins a group); value = d · scale · (q − offset) ± m. group 32 and block 32: no scales but d. */
#define PL_Q8_LIST(X)                                                                              \
    X(PL_DT_Q4_0, 32, 32, 4, 0, 8, 0, 0)                                                           \
    X(PL_DT_Q4_1, 32, 32, 4, 0, 0, 1, 0)                                                           \
    X(PL_DT_Q5_0, 32, 32, 4, 1, 16, 0, 0)                                                          \
    X(PL_DT_Q5_1, 32, 32, 4, 1, 0, 1, 0)                                                           \
    X(PL_DT_Q8_0, 32, 32, 8, 0, 0, 0, 0)                                                           \
    X(PL_DT_Q2_K, 256, 16, 2, 0, 0, 1, 1)                                                          \
    X(PL_DT_Q3_K, 256, 16, 2, 1, 4, 0, 1)                                                          \
    X(PL_DT_Q4_K, 256, 32, 4, 0, 0, 1, 2)                                                          \
    X(PL_DT_Q5_K, 256, 32, 4, 1, 0, 1, 2)                                                          \
    X(PL_DT_Q6_K, 256, 16, 4, 2, 32, 0, 1)

struct pl_q8_format {
    uint32_t block, group, low, high, offset, has_m, scale_bytes;
};

static inline uint32_t pl_q8_unit_bytes(const struct pl_q8_format *f)
{
    return 64 * (f->low + f->high);
}

/* Bytes before a block's units. */
static inline uint32_t pl_q8_head_bytes(const struct pl_q8_format *f)
{
    return 32 + 32 * f->has_m + f->scale_bytes * 16 * (f->block / f->group);
}

static inline uint32_t pl_q8_block_bytes(const struct pl_q8_format *f)
{
    return pl_q8_head_bytes(f) + f->block / PL_Q8_UNIT * pl_q8_unit_bytes(f);
}

/* Fetches what stands PL_Q8_AHEAD behind p, as much as is read there: hardware does not foresee the
 * next page. */
static inline __attribute__((always_inline)) void pl_q8_fetch(const uint8_t *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(p + PL_Q8_AHEAD + i);
}

/* block 0: dt has no such form. */
struct pl_q8_format pl_q8_format(enum pl_dtype dt);
/* Bytes of a panel of k columns. */
size_t pl_q8_panel_bytes(enum pl_dtype dt, size_t k);
/* Sixteen rows of dt's blocks, k columns each, → one panel. */
void pl_q8_pack_panel(enum pl_dtype dt, const uint8_t *const rows[PL_PANEL], size_t k,
                      uint8_t *out);
/* Structs of a row of k columns. */
static inline size_t pl_q8_chunks(size_t k)
{
    return (k + PL_Q8_CHUNK - 1) / PL_Q8_CHUNK;
}

#endif
