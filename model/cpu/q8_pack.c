#include "model/cpu/q8.h"

#include "model/quant_blocks.h"

#include <string.h>

struct pl_q8_format pl_q8_format(enum pl_dtype dt)
{
    switch (dt) {
#define PL_X(sym, ...)                                                                             \
    case sym:                                                                                      \
        return (struct pl_q8_format){__VA_ARGS__};
        PL_Q8_LIST(PL_X)
#undef PL_X
    default:
        return (struct pl_q8_format){0};
    }
}

size_t pl_q8_panel_bytes(enum pl_dtype dt, size_t k)
{
    struct pl_q8_format f = pl_q8_format(dt);

    return f.block ? k / f.block * pl_q8_block_bytes(&f) : 0;
}

/* Scales (and mins) of the groups of one row's block, to stride 16. */
static void pack_scales(enum pl_dtype dt, const uint8_t *p, uint8_t *out)
{
    uint8_t scale[8], min[8];
    int8_t signed_scale[16];

    switch (dt) {
    case PL_DT_Q2_K:
        for (int g = 0; g < 16; g++)
            out[g * PL_PANEL] = p[g];
        break;
    case PL_DT_Q3_K:
        pl_quant_q3_scales(p, signed_scale);
        for (int g = 0; g < 16; g++)
            out[g * PL_PANEL] = (uint8_t)signed_scale[g];
        break;
    case PL_DT_Q6_K:
        for (int g = 0; g < 16; g++)
            out[g * PL_PANEL] = p[192 + g];
        break;
    default: /* q4_k, q5_k */
        pl_quant_scale_min(p, scale, min);
        for (int g = 0; g < 8; g++) {
            out[g * PL_PANEL] = scale[g];
            out[(8 + g) * PL_PANEL] = min[g];
        }
    }
}

/* Where d stands in a row's block; m follows it. */
static size_t d_at(enum pl_dtype dt)
{
    return dt == PL_DT_Q2_K ? 80 : dt == PL_DT_Q3_K ? 108 : dt == PL_DT_Q6_K ? 208 : 0;
}

/* Bit `bit` of v[8][64] → out[64], a bit of each vector; eight bytes at a time. */
static void pack_bits(const uint8_t *v, uint32_t bit, uint8_t *out)
{
    for (size_t i = 0; i < 64; i += 8) {
        uint64_t sum = 0, x;
        for (uint32_t j = 0; j < 8; j++) {
            memcpy(&x, v + 64 * j + i, 8);
            sum |= (x >> bit & UINT64_C(0x0101010101010101)) << j;
        }
        memcpy(out + i, &sum, 8);
    }
}

/* One unit's vectors v[8][64] → planes. */
static void pack_unit(const struct pl_q8_format *f, const uint8_t *v, uint8_t *out)
{
    uint8_t *high = out + 64 * f->low;

    if (f->low == 8)
        memcpy(out, v, 512);
    for (size_t i = 0; f->low == 4 && i < 256; i++)
        out[i] = (uint8_t)((v[i] & 15) | v[i + 256] << 4);
    for (size_t i = 0; f->low == 2 && i < 128; i++)
        out[i] =
            (uint8_t)((v[i] & 3) | (v[i + 128] & 3) << 2 | (v[i + 256] & 3) << 4 | v[i + 384] << 6);
    for (size_t i = 0; f->high == 2 && i < 128; i++)
        high[i] = (uint8_t)(v[i] >> 4 | v[i + 128] >> 4 << 2 | v[i + 256] >> 4 << 4 |
                            v[i + 384] >> 4 << 6);
    if (f->high == 1)
        pack_bits(v, f->low, high);
}

void pl_q8_pack_panel(enum pl_dtype dt, const uint8_t *const rows[PL_PANEL], size_t k, uint8_t *out)
{
    const struct pl_q8_format f = pl_q8_format(dt);
    const uint32_t bytes = pl_dtype_traits(dt)->bytes, head = pl_q8_head_bytes(&f);
    float scale[PL_QUANT_GROUPS], add[PL_QUANT_GROUPS];
    int8_t q[PL_PANEL][PL_QUANT_BLOCK];
    uint32_t v[8 * PL_PANEL];

    for (size_t b = 0; b < k / f.block; b++, out += pl_q8_block_bytes(&f)) {
        for (size_t r = 0; r < PL_PANEL; r++) {
            const uint8_t *p = rows[r] + b * bytes;
            for (uint32_t i = 0; i < bytes; i += 64)
                __builtin_prefetch(p + bytes + i);
            memcpy(out + 2 * r, p + d_at(dt), 2);
            if (f.has_m)
                memcpy(out + 32 + 2 * r, p + d_at(dt) + 2, 2);
            if (f.scale_bytes)
                pack_scales(dt, p, out + 32 + 32 * f.has_m + r);
            pl_quant_unpack(dt, p, q[r], scale, add);
            for (uint32_t i = 0; i < f.block; i++)
                q[r][i] = (int8_t)(q[r][i] + (int)f.offset);
        }
        for (uint32_t u = 0; u < f.block / PL_Q8_UNIT; u++) {
            for (size_t j = 0; j < 8; j++)
                for (size_t r = 0; r < PL_PANEL; r++)
                    memcpy(&v[j * PL_PANEL + r], &q[r][u * PL_Q8_UNIT + 4 * j], 4);
            pack_unit(&f, (const uint8_t *)v, out + head + u * pl_q8_unit_bytes(&f));
        }
    }
}
