#include "model/resize_rows.h"

#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define STRIP PL_RESIZE_STRIP
#define HALF (1 << (PL_RESIZE_BITS - 1))

static inline uint8_t clip(int32_t sum)
{
    int32_t v = sum >> PL_RESIZE_BITS;

    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* out[j][i] = in[i][j] for 16 × 16 bytes. */
static void transpose(const uint8_t *in, size_t in_pitch, uint8_t *out, size_t out_pitch)
{
#ifdef __SSE2__
    __m128i a[16], b[16];

    for (size_t i = 0; i < 16; i++)
        a[i] = _mm_loadu_si128((const __m128i *)(const void *)(in + i * in_pitch));
    for (int round = 0; round < 4; round++) { /* row i beside row i + 8, four times */
        for (int i = 0; i < 8; i++) {
            b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
            b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
        }
        memcpy(a, b, sizeof(a));
    }
    for (size_t i = 0; i < 16; i++)
        _mm_storeu_si128((__m128i *)(void *)(out + i * out_pitch), a[i]);
#else
    for (size_t i = 0; i < 16; i++)
        for (size_t j = 0; j < 16; j++)
            out[j * out_pitch + i] = in[i * in_pitch + j];
#endif
}

/* The same of `cols` columns of `rows` rows of in; out has room for whole blocks, in's rows may end
 * right after cols. */
static void transpose_strip(const uint8_t *in, size_t pitch, size_t rows, size_t cols, uint8_t *out)
{
    uint8_t block[STRIP * STRIP];

    for (size_t j = 0; j < cols; j += STRIP) {
        size_t n = cols - j < STRIP ? cols - j : STRIP;
        if (rows == STRIP && n == STRIP) {
            transpose(in + j, pitch, out + j * STRIP, STRIP);
            continue;
        }
        for (size_t i = 0; i < STRIP; i++) {
            memset(block + i * STRIP, 0, STRIP);
            memcpy(block + i * STRIP, in + (i < rows ? i : rows - 1) * pitch + j, n);
        }
        transpose(block, STRIP, out + j * STRIP, STRIP);
    }
}

static void across(const uint8_t *from, size_t pitch, size_t rows, size_t width,
                   const struct pl_resize_tap *tap, size_t n, uint8_t *to, size_t to_pitch,
                   uint8_t *scratch)
{
    uint8_t *turned = scratch, *sums = scratch + STRIP * (width * 3 + STRIP);
    uint8_t block[STRIP * STRIP];

    transpose_strip(from, pitch, rows, width * 3, turned);
    for (size_t c = 0; c < 3; c++) {
        for (size_t x = 0; x < n; x++) {
            const uint8_t *in = turned + ((size_t)tap[x].first * 3 + c) * STRIP;
            const int32_t *w = tap[x].weights;
            uint8_t *out = sums + (c * n + x) * STRIP;
            int32_t sum[STRIP];
            for (size_t i = 0; i < STRIP; i++)
                sum[i] = HALF;
            for (int32_t k = 0; k < tap[x].taps; k++)
                for (size_t i = 0; i < STRIP; i++)
                    sum[i] += w[k] * in[(size_t)k * 3 * STRIP + i];
            for (size_t i = 0; i < STRIP; i++)
                out[i] = clip(sum[i]);
        }
    }
    for (size_t j = 0; j < 3 * n; j += STRIP) {
        size_t left = 3 * n - j < STRIP ? 3 * n - j : STRIP;
        transpose(sums + j * STRIP, STRIP, block, STRIP);
        for (size_t i = 0; i < rows; i++)
            memcpy(to + i * to_pitch + j, block + i * STRIP, left);
    }
}

static void down(const uint8_t *from, size_t pitch, const struct pl_resize_tap *tap, uint8_t *to,
                 size_t n)
{
    enum { LANES = 32 };
    int32_t sum[LANES];

    for (size_t x = 0; x < n; x += LANES) {
        size_t m = n - x < LANES ? n - x : LANES;
        for (size_t i = 0; i < LANES; i++)
            sum[i] = HALF;
        for (int32_t k = 0; k < tap->taps; k++) {
            const uint8_t *in = from + (size_t)(tap->first + k) * pitch + x;
            int32_t w = tap->weights[k];
            if (m == LANES)
                for (size_t i = 0; i < LANES; i++)
                    sum[i] += w * in[i];
            else
                for (size_t i = 0; i < m; i++)
                    sum[i] += w * in[i];
        }
        for (size_t i = 0; i < m; i++)
            to[x + i] = clip(sum[i]);
    }
}

const struct pl_resize_kernels PL_RESIZE_KERNELS = {.across = across, .down = down};
