#include "model/quant.h"

#include "model/quant_blocks.h"

bool pl_quant_decodes(enum pl_dtype dt)
{
    return pl_quant_group(dt) != 0;
}

void pl_quant_to_f32(enum pl_dtype dt, const void *src, float *dst, size_t n)
{
    uint32_t block = pl_dtype_traits(dt)->block, bytes = pl_dtype_traits(dt)->bytes;
    uint32_t group = pl_quant_group(dt);
    bool has_add = pl_quant_has_add(dt);
    const uint8_t *p = src;
    int8_t q[PL_QUANT_BLOCK];
    float scale[PL_QUANT_GROUPS], add[PL_QUANT_GROUPS] = {0};

    for (size_t b = 0; b < n / block; b++, p += bytes, dst += block) {
        pl_quant_unpack(dt, p, q, scale, add);
        for (uint32_t g = 0; g < block / group; g++) {
            const int8_t *from = q + g * group;
            float *to = dst + g * group;
            if (has_add)
                for (uint32_t i = 0; i < group; i++)
                    to[i] = scale[g] * (float)from[i] + add[g];
            else
                for (uint32_t i = 0; i < group; i++)
                    to[i] = scale[g] * (float)from[i];
        }
    }
}
