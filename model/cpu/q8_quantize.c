/* Activations in 8 bits (layout: q8.h), compiled once for each instruction set. */
#include "model/cpu/q8.h"
#include "model/cpu/vec.h"

#include <string.h>

/* The largest |x| of n (a multiple of 16) as its bits, so that Inf and NaN are above all. */
INLINE uint32_t largest(const float *x, size_t n)
{
    uint32_t lane[WIDTH], most = 0;
    vu m = {0};

    for (size_t i = 0; i < n; i += WIDTH) {
        vu v = (vu)load(x + i) & 0x7fffffff;
        vu more = (vu)((vi)v > (vi)m);
        m = (v & more) | (m & ~more);
    }
    memcpy(lane, &m, sizeof(m));
    for (int i = 0; i < WIDTH; i++)
        most = lane[i] > most ? lane[i] : most;
    return most;
}

/* n columns (a multiple of 16) with one scale. A NaN or Inf makes the scale NaN, and so the
 * product.
 */
INLINE float quantize_part(const float *x, size_t n, int8_t *q)
{
    uint32_t bits = largest(x, n);
    float most, inverse;

    memcpy(&most, &bits, sizeof(most));
    if (bits >= 0x7f800000 || most < 1e-30f) {
        memset(q, 0, n);
        return bits >= 0x7f800000 ? __builtin_nanf("") : 0;
    }
    inverse = 127.0f / most;
    for (size_t i = 0; i < n; i += 16) {
        int32_t t[16];
        for (size_t j = 0; j < 16; j += WIDTH) { /* to even: by the adder */
            vi v = (vi)(load(x + i + j) * splat(inverse) + splat(12582912.0f)) - 0x4b400000;
            memcpy(t + j, &v, sizeof(v));
        }
        for (size_t j = 0; j < 16; j++)
            q[i + j] = (int8_t)t[j];
    }
    return most / 127.0f;
}

static void quantize_chunk(const float *x, size_t n, struct pl_q8 *out)
{
    for (size_t u = 0; u < PL_Q8_CHUNK / PL_Q8_UNIT; u++)
        out->d[u] = u * PL_Q8_UNIT < n
                        ? quantize_part(x + u * PL_Q8_UNIT, PL_Q8_UNIT, out->q + u * PL_Q8_UNIT)
                        : 0;
    if (n < PL_Q8_CHUNK)
        memset(out->q + n, 0, PL_Q8_CHUNK - n);
    for (size_t g = 0; g < PL_Q8_CHUNK / 16; g++) {
        const int8_t *q = out->q + 16 * g;
        int even = 0, odd = 0;
        for (int i = 0; i < 16; i += 4) {
            even += q[i] + q[i + 1];
            odd += q[i + 2] + q[i + 3];
        }
        out->sum[g] = (int16_t)(even + odd);
        out->pair[g][0] = (int16_t)(even * 32);
        out->pair[g][1] = (int16_t)(odd * 32);
    }
}

void PL_Q8_QUANTIZE(const float *x, size_t n, struct pl_q8 *out, size_t stride)
{
    for (size_t i = 0; i < n; i += PL_Q8_CHUNK, out += stride)
        quantize_chunk(x + i, n - i < PL_Q8_CHUNK ? n - i : PL_Q8_CHUNK, out);
}
