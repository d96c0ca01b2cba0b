/*
 * Products of 8-bit activations with repacked block formats (layouts and order: q8.h), compiled
 * once for each instruction set.
 *
 * One row: a unit's vectors one after the other. More: vectors of all parts of a panel are unpacked
 * into registers and all rows of a tile pass them, so that four columns of a row are loaded once
 * for 16 outputs: with AVX2 the loads are what a product waits for first. Eight registers hold
 * half a unit then, and the sums of the first half wait in L1.
 * With AVX2 many rows of q8_0 go another way (q8_bytes.c).
 */
#include "model/cpu/q8.h"
#include "model/cpu/q8_isa.h"

#include <string.h>

#define TILE 64 /* rows whose 256 columns (24 KB) stay in L1, their 2048 columns in L2 */

#define QUADS (PARTS == 1 ? 8 : 4) /* vectors of a part that stay in registers for many rows */

/* Vector j of the eight in a unit's planes (q8_0: as mac8 takes it). f and j are constants where
 * this is inlined. */
INLINE vb unpack(const struct pl_q8_format f, const uint8_t *p, int j)
{
    const uint8_t *high = p + 64 * f.low;
    vb w;

    if (f.low == 8)
        return first8(p + 64 * j);
    if (f.low == 4)
        w = low_bits(shift(load_bytes(p + 64 * (j % 4)), -(j / 4 * 4)), 15);
    else
        w = low_bits(shift(load_bytes(p + 64 * (j % 2)), -(j / 2 * 2)), 3);
    if (f.high == 1)
        w |= low_bits(shift(load_bytes(high), (int)f.low - j), 1 << f.low);
    else if (f.high == 2)
        w |= low_bits(shift(load_bytes(high + 64 * (j % 2)), 4 - j / 2 * 2), 3 << 4);
    return w;
}

/* How many products are added before they are widened: those of a group, or as many as fit. */
INLINE int summed(const struct pl_q8_format f)
{
    const int limit = LIMIT(f.low + f.high), quads = (int)f.group / 4;

    return limit < quads ? limit : quads;
}

/* Scales and mins of the groups of a unit. */
struct group_scales {
    vscale s[2], m[2];
};

/* Unit u of a block, whose scales begin at p; twice the same where a group is as wide as a unit. */
INLINE struct group_scales unit_scales(const struct pl_q8_format f, const uint8_t *p, size_t u)
{
    const size_t g = u * PL_Q8_UNIT / f.group, next = f.group == 16 ? g + 1 : g;
    const bool is_signed = f.offset != 0;
    struct group_scales v = {.s = {load_scales(p + g * PL_PANEL, is_signed),
                                   load_scales(p + next * PL_PANEL, is_signed)}};

    if (f.scale_bytes == 2) {
        v.m[0] = v.m[1] = load_scales(p + (8 + g) * PL_PANEL, false);
    } else if (f.has_m) { /* both in one byte */
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
            v.m[i] = (vscale)((vu)v.s[i] >> 4 & 0x000f000f);
            v.s[i] = (vscale)((vu)v.s[i] & 0x000f000f);
        }
    }
    return v;
}

/* What the row loops take from a block: of each part, the scales of its outputs. */
struct block_scales {
    vf d[PARTS], m[PARTS];
    struct group_scales g[PARTS];
};

/* Of a unit's sums in 16 bits, beginning with vector j: in 32 bits, by their group's scale. */
INLINE vi close_group(const struct pl_q8_format f, vacc acc, const struct group_scales *g,
                      const struct pl_q8 *a, size_t u, int j)
{
    if (f.group == 16 && f.offset)
        acc = centre(acc, a->pair[2 * u + (size_t)j / 4], f.offset == 32 ? 0 : 3);
    return f.scale_bytes ? widen(acc, g->s[j / 4]) : widen_plain(acc);
}

/* A row's integer products with a unit → the outputs of a part. */
INLINE vf add_unit(const struct pl_q8_format f, vi dot, vf d, vf m, const struct group_scales *g,
                   const struct pl_q8 *a, size_t u, vf sum)
{
    const int16_t by = f.low == 8 ? OFFSET_OF_8 : (int16_t)f.offset;
    vf t;

    if (f.group == 32 && by)
        dot = minus_pair(dot, a->sum + 2 * u, by);
    t = to_float(dot) * d;
    if (f.has_m && f.scale_bytes)
        t = fma_(to_float(pair_product(g->m[0], g->m[1], a->sum + 2 * u)), m, t);
    else if (f.has_m)
        t = fma_(to_float(minus_pair((vi){0}, a->sum + 2 * u, -1)), m, t);
    return fma_(t, splat(a->d[u]), sum);
}

/* d and m of the block at p. */
INLINE void block_heads(const struct pl_q8_format f, const uint8_t *p, struct block_scales *b)
{
#pragma GCC unroll 4
    for (int part = 0; part < PARTS; part++) {
        b->d[part] = load_halves(p + part * WIDTH * 2);
        b->m[part] = f.has_m ? load_halves(p + 32 + part * WIDTH * 2) : splat(0);
        if (f.scale_bytes)
            b->m[part] = -b->m[part];
    }
}

/* The scales of its unit i. */
INLINE void block_scales_of(const struct pl_q8_format f, const uint8_t *p, size_t i,
                            struct block_scales *b)
{
#pragma GCC unroll 4
    for (int part = 0; part < PARTS; part++)
        b->g[part] = f.scale_bytes ? unit_scales(f, p + 32 + 32 * f.has_m + part * WIDTH, i)
                                   : (struct group_scales){0};
}

/* The block at p and one row, whose unit `first` is the block's first: all outputs in one pass. A
 * pass for each part of a block of 2 to 3 KB left memory idle in every second one. */
INLINE void block_row(const struct pl_q8_format f, const uint8_t *p, const struct pl_q8 *a,
                      size_t first, vf sum[PARTS])
{
    const uint8_t *unit = p + pl_q8_head_bytes(&f);
    const int n = summed(f);
    struct block_scales b;

    block_heads(f, p, &b);
    pl_q8_fetch(p, pl_q8_head_bytes(&f));
    for (size_t i = 0; i < f.block / PL_Q8_UNIT; i++, unit += pl_q8_unit_bytes(&f)) {
        const size_t u = first + i;
        const int8_t *q = a->q + PL_Q8_UNIT * u;
        vi dot[PARTS] = {{0}};
        pl_q8_fetch(unit, pl_q8_unit_bytes(&f));
        block_scales_of(f, p, i, &b);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j += n) {
            vacc acc[PARTS] = {{0}};
#pragma GCC unroll 8
            for (int k = j; k < j + n; k++) {
#pragma GCC unroll 4
                for (int part = 0; part < PARTS; part++) {
                    const uint8_t *w = unit + part * VB;
                    if (f.low == 8)
                        dot[part] = mac8(dot[part], unpack(f, w, k), w + 64 * k, q + 4 * k);
                    else
                        acc[part] = mac(acc[part], unpack(f, w, k), q + 4 * k);
                }
            }
#pragma GCC unroll 4
            for (int part = 0; part < PARTS; part++)
                if (f.low != 8)
                    dot[part] += close_group(f, acc[part], &b.g[part], a, u, j);
        }
#pragma GCC unroll 4
        for (int part = 0; part < PARTS; part++)
            sum[part] = add_unit(f, dot[part], b.d[part], b.m[part], &b.g[part], a, u, sum[part]);
    }
}

/* Sums of a tile's rows: the outputs, and what is not finished of a unit. */
struct tile {
    vf out[TILE][PARTS];
    vacc open[TILE][PARTS]; /* a group's, of the half unit before */
    vi unit[TILE][PARTS];
};

/* Half a unit, or all of it: vectors [from, from + QUADS). */
INLINE void unit_step(const struct pl_q8_format f, const uint8_t *unit,
                      const struct block_scales *b, const struct pl_q8 *a, size_t u, size_t rows,
                      int from, struct tile *t)
{
    const int n = summed(f) < QUADS ? summed(f) : QUADS;
    const bool spans = summed(f) > QUADS && f.low != 8, opens = spans && from == 0;
    vb w[PARTS][QUADS];

#pragma GCC unroll 4
    for (int p = 0; p < PARTS; p++)
#pragma GCC unroll 8
        for (int j = 0; j < QUADS; j++)
            w[p][j] = unpack(f, unit + p * VB, from + j);
    for (size_t r = 0; r < rows; r++) {
        const int8_t *q = a[r].q + PL_Q8_UNIT * u + 4 * from;
        vi dot[PARTS] = {{0}};
        if (from > 0 && !spans)
            memcpy(dot, t->unit[r], sizeof(dot));
#pragma GCC unroll 8
        for (int j = 0; j < QUADS; j += n) {
            vacc acc[PARTS] = {{0}};
            if (from > 0 && spans)
                memcpy(acc, t->open[r], sizeof(acc));
#pragma GCC unroll 8
            for (int k = j; k < j + n; k++) {
#pragma GCC unroll 4
                for (int p = 0; p < PARTS; p++) {
                    if (f.low == 8)
                        dot[p] = mac8(dot[p], w[p][k], unit + p * VB + 64 * (from + k), q + 4 * k);
                    else
                        acc[p] = mac(acc[p], w[p][k], q + 4 * k);
                }
            }
            if (opens)
                memcpy(t->open[r], acc, sizeof(acc));
#pragma GCC unroll 4
            for (int p = 0; p < PARTS; p++)
                if (!opens && f.low != 8)
                    dot[p] += close_group(f, acc[p], &b->g[p], &a[r], u, spans ? 0 : from + j);
        }
        if (from + QUADS < 8 && !spans)
            memcpy(t->unit[r], dot, sizeof(dot));
#pragma GCC unroll 4
        for (int p = 0; p < PARTS; p++)
            if (from + QUADS == 8)
                t->out[r][p] =
                    add_unit(f, dot[p], b->d[p], b->m[p], &b->g[p], &a[r], u, t->out[r][p]);
    }
}

/* The block at p and `rows` rows of the chunk at a, whose unit `first` is the block's first. */
INLINE void block_rows(const struct pl_q8_format f, const uint8_t *p, const struct pl_q8 *a,
                       size_t first, size_t rows, struct tile *t)
{
    const uint8_t *unit = p + pl_q8_head_bytes(&f);
    struct block_scales b;

    block_heads(f, p, &b);
    if (rows <= PL_Q8_FEW)
        pl_q8_fetch(p, pl_q8_head_bytes(&f));
    for (size_t i = 0; i < f.block / PL_Q8_UNIT; i++, unit += pl_q8_unit_bytes(&f)) {
        block_scales_of(f, p, i, &b);
        if (rows <= PL_Q8_FEW)
            pl_q8_fetch(unit, pl_q8_unit_bytes(&f));
#pragma GCC unroll 2
        for (int from = 0; from < 8; from += QUADS) {
            __asm__ volatile("" ::: "memory"); /* else registers hold the other half, too */
            unit_step(f, unit, &b, a, first + i, rows, from, t);
        }
    }
}

INLINE void store_row(const struct pl_gemm *g, size_t p, size_t r, const vf sum[PARTS])
{
    size_t n = g->n - p * PL_PANEL < PL_PANEL ? g->n - p * PL_PANEL : PL_PANEL;
    float out[PL_PANEL];

    for (int part = 0; part < PARTS; part++)
        store(out + part * WIDTH, sum[part]);
    memcpy(g->y + r * g->ldy + p * PL_PANEL, out, n * sizeof(*out));
}

INLINE void panel_row(const struct pl_q8_format f, const struct pl_gemm *g, size_t p)
{
    const uint8_t *w = (const uint8_t *)g->w + p * g->stride;
    vf sum[PARTS];

    for (int part = 0; part < PARTS; part++)
        sum[part] = splat(0);
    for (size_t k = 0; k < g->k; k += f.block, w += pl_q8_block_bytes(&f))
        block_row(f, w, g->q8 + k / PL_Q8_CHUNK * g->ldq8, k % PL_Q8_CHUNK / PL_Q8_UNIT, sum);
    store_row(g, p, 0, sum);
}

/* Rows [r0, r0 + rows) of one panel. */
INLINE void panel_tile(const struct pl_q8_format f, const struct pl_gemm *g, size_t p, size_t r0,
                       size_t rows)
{
    const uint8_t *w = (const uint8_t *)g->w + p * g->stride;
    struct tile t;

    for (size_t r = 0; r < rows; r++)
        for (int part = 0; part < PARTS; part++)
            t.out[r][part] = splat(0);
    for (size_t k = 0; k < g->k; k += f.block, w += pl_q8_block_bytes(&f))
        block_rows(f, w, g->q8 + k / PL_Q8_CHUNK * g->ldq8 + r0, k % PL_Q8_CHUNK / PL_Q8_UNIT, rows,
                   &t);
    for (size_t r = 0; r < rows; r++)
        store_row(g, p, r0 + r, t.out[r]);
}

/* Formats, each its own loops. A tile's rows stay near while all panels pass. */
#define PL_X(sym, ...)                                                                             \
    static void one_##sym(const struct pl_gemm *g)                                                 \
    {                                                                                              \
        for (size_t p = g->first; p < g->end; p++)                                                 \
            panel_row((struct pl_q8_format){__VA_ARGS__}, g, p);                                   \
    }                                                                                              \
    static void many_##sym(const struct pl_gemm *g)                                                \
    {                                                                                              \
        for (size_t r = 0; r < g->rows; r += TILE)                                                 \
            for (size_t p = g->first; p < g->end; p++)                                             \
                panel_tile((struct pl_q8_format){__VA_ARGS__}, g, p, r,                            \
                           g->rows - r < TILE ? g->rows - r : TILE);                               \
    }
PL_Q8_LIST(PL_X)
#undef PL_X

void PL_Q8_GEMM(const struct pl_gemm *g)
{
#ifdef PL_Q8_BYTES
    if (g->dtype == PL_DT_Q8_0 && g->rows > 1) {
        PL_Q8_BYTES(g);
        return;
    }
#endif
    switch (g->dtype) {
#define PL_X(sym, ...)                                                                             \
    case sym:                                                                                      \
        (g->rows == 1 ? one_##sym : many_##sym)(g);                                                \
        break;
        PL_Q8_LIST(PL_X)
#undef PL_X
    default:
        break;
    }
}
