#include "model/resize_rows.h"

#include <string.h>

#ifdef __SSE2__
#include <immintrin.h>
#endif

#define STRIP PL_RESIZE_STRIP
#define HALF (1 << (PL_RESIZE_BITS - 1)) /* what rounds */

/* Eight sums of weighted bytes. AVX2 by name: GCC 12 loads and stores vectors of bytes one by one.
 */
#ifdef __AVX2__
struct lanes {
    __m256i v;
};

static inline void begin(struct lanes *sum)
{
    sum->v = _mm256_set1_epi32(HALF);
}

static inline void add(struct lanes *sum, int32_t weight, const uint8_t *in)
{
    __m256i v = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)in));

    sum->v = _mm256_add_epi32(sum->v, _mm256_mullo_epi32(v, _mm256_set1_epi32(weight)));
}

static inline void clip(const struct lanes *sum, uint8_t *out)
{
    __m256i v = _mm256_srai_epi32(sum->v, PL_RESIZE_BITS);
    __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));

    _mm_storel_epi64((__m128i *)(void *)out, _mm_packus_epi16(w, w));
}
#else
struct lanes {
    int32_t v[8];
};
static inline void begin(struct lanes *sum)
{
    for (int i = 0; i < 8; i++)
        sum->v[i] = HALF;
}

static inline void add(struct lanes *sum, int32_t weight, const uint8_t *in)
{
    for (int i = 0; i < 8; i++)
        sum->v[i] += weight * in[i];
}

static inline void clip(const struct lanes *sum, uint8_t *out)
{
    for (int i = 0; i < 8; i++) {
        int32_t v = sum->v[i] >> PL_RESIZE_BITS;
        out[i] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
}
#endif

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
            struct lanes low, high;
            begin(&low);
            begin(&high);
            for (int32_t k = 0; k < tap[x].taps; k++, in += 3 * STRIP) {
                add(&low, w[k], in);
                add(&high, w[k], in + 8);
            }
            clip(&low, out);
            clip(&high, out + 8);
        }
    }
    for (size_t j = 0; j < 3 * n; j += STRIP) {
        size_t left = 3 * n - j < STRIP ? 3 * n - j : STRIP;
        transpose(sums + j * STRIP, STRIP, block, STRIP);
        for (size_t i = 0; i < rows; i++)
            memcpy(to + i * to_pitch + j, block + i * STRIP, left);
    }
}

/* Eight columns, four times. */
static void down32(const uint8_t *in, size_t pitch, const struct pl_resize_tap *tap, uint8_t *to)
{
    struct lanes a, b, c, d;

    begin(&a);
    begin(&b);
    begin(&c);
    begin(&d);
    for (int32_t k = 0; k < tap->taps; k++, in += pitch) {
        add(&a, tap->weights[k], in);
        add(&b, tap->weights[k], in + 8);
        add(&c, tap->weights[k], in + 16);
        add(&d, tap->weights[k], in + 24);
    }
    clip(&a, to);
    clip(&b, to + 8);
    clip(&c, to + 16);
    clip(&d, to + 24);
}

static void down(const uint8_t *from, size_t pitch, const struct pl_resize_tap *tap, uint8_t *to,
                 size_t n)
{
    size_t x = 0;

    from += (size_t)tap->first * pitch;
    for (; x + 32 <= n; x += 32)
        down32(from + x, pitch, tap, to + x);
    for (; x < n; x++) {
        int32_t sum = HALF;
        for (int32_t k = 0; k < tap->taps; k++)
            sum += tap->weights[k] * from[(size_t)k * pitch + x];
        sum >>= PL_RESIZE_BITS;
        to[x] = (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
    }
}

const struct pl_resize_kernels PL_RESIZE_KERNELS = {.across = across, .down = down};
