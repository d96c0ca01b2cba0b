#include "model/dtype.h"

#include <string.h>

static const struct pl_dtype_traits traits[PL_DT_COUNT] = {
#define PL_X(sym, name, st, block, bytes, computes) [sym] = {name, st, block, bytes, computes},
    PL_DTYPE_LIST(PL_X)
#undef PL_X
};

const struct pl_dtype_traits *pl_dtype_traits(enum pl_dtype dt)
{
    return (unsigned)dt < PL_DT_COUNT ? &traits[dt] : &traits[PL_DT_AUTO];
}

enum pl_dtype pl_dtype_by_name(const char *name)
{
    for (int i = 0; name && i < PL_DT_COUNT; i++)
        if (!strcmp(traits[i].name, name))
            return (enum pl_dtype)i;
    return PL_DT_COUNT;
}

enum pl_dtype pl_dtype_by_safetensors(const char *name)
{
    for (int i = 0; name && i < PL_DT_COUNT; i++)
        if (traits[i].safetensors && !strcmp(traits[i].safetensors, name))
            return (enum pl_dtype)i;
    return PL_DT_COUNT;
}

static uint32_t f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    return u;
}

static float bits_f32(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

float pl_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = (h >> 10) & 31u, m = h & 0x3ffu;

    if (e == 31) /* as the hardware does: a signalling NaN becomes quiet */
        return bits_f32(sign | 0x7f800000u | (m ? 0x400000u | m << 13 : 0));
    if (e)
        return bits_f32(sign | (e + 112) << 23 | m << 13);
    /* subnormal: m · 2^−24 is exact in f32 */
    float v = (float)m * 0x1p-24f;
    return bits_f32(sign | f32_bits(v));
}

uint16_t pl_f32_to_f16(float f)
{
    uint32_t u = f32_bits(f);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000u);
    uint32_t a = u & 0x7fffffffu;

    if (a > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (a >> 13 & 0x3ffu));
    if (a >= 0x477ff000u) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (a < 0x38800000u) { /* below 2^−14: let the f32 adder round to units of 2^−24 */
        float v = bits_f32(a) + 0.5f;
        return (uint16_t)(sign | (f32_bits(v) - 0x3f000000u));
    }
    a += 0xfffu + (a >> 13 & 1u);
    return (uint16_t)(sign | (a - 0x38000000u) >> 13);
}

float pl_bf16_to_f32(uint16_t h)
{
    return bits_f32((uint32_t)h << 16);
}

uint16_t pl_f32_to_bf16(float f)
{
    uint32_t u = f32_bits(f);

    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

void pl_dtype_to_f32(enum pl_dtype dt, const void *src, float *dst, size_t n)
{
    const unsigned char *p = src; /* may be unaligned: views come from files */

    if (dt == PL_DT_F32) {
        memcpy(dst, src, n * sizeof(float));
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, 2);
        dst[i] = dt == PL_DT_F16 ? pl_f16_to_f32(h) : pl_bf16_to_f32(h);
    }
}

void pl_dtype_from_f32(enum pl_dtype dt, const float *src, void *dst, size_t n)
{
    uint16_t *h = dst;

    if (dt == PL_DT_F32)
        memcpy(dst, src, n * sizeof(float));
    else if (dt == PL_DT_F16)
        for (size_t i = 0; i < n; i++)
            h[i] = pl_f32_to_f16(src[i]);
    else
        for (size_t i = 0; i < n; i++)
            h[i] = pl_f32_to_bf16(src[i]);
}
