/* The order in which every backend takes the largest: NaN below all, −0 with 0. In C and in
 * kernels. */
#ifndef PL_MODEL_FLOAT_RANK_H
#define PL_MODEL_FLOAT_RANK_H

#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define PL_HOST_DEVICE __host__ __device__
#else
#define PL_HOST_DEVICE
#endif

static inline PL_HOST_DEVICE uint32_t pl_float_rank(float f)
{
    uint32_t u;

    if (f != f)
        return 0;
    f += 0.0f;
    memcpy(&u, &f, sizeof(u));
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

#endif
