/* Frames of events and pictures → pixels: model/events.c's rasterisation and model/resize.c's two
 * passes in the same integers, and then a table, so that the bits are the host's. */
#include "model/cuda/common.cuh"

extern "C" {
#include "model/resize_rows.h"
}

#define THREADS 256
#define MOST_BLOCKS 65536

/* The last event of a pixel is the one of the highest number, whichever thread comes first. */
__global__ void raster(const uint16_t *x, const uint16_t *y, const uint8_t *p, int64_t n,
                       int32_t width, uint32_t *last)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;

    if (i < n)
        atomicMax(&last[(int64_t)y[i] * width + x[i]], 2 * (uint32_t)i + 2 + (p[i] != 0));
}

/* Red, green and blue of pixel `at`. */
__device__ __forceinline__ void colour(const uint8_t *bytes, int64_t at, int32_t rgb[3])
{
    for (int c = 0; c < 3; c++)
        rgb[c] = bytes[at * 3 + c];
}
__device__ __forceinline__ void colour(const uint32_t *last, int64_t at, int32_t rgb[3])
{
    uint32_t e = last[at];

    rgb[0] = !e || (e & 1) ? 255 : 0;
    rgb[1] = e ? 0 : 255;
    rgb[2] = !e || !(e & 1) ? 255 : 0;
}

__device__ __forceinline__ uint8_t rounded(int32_t sum)
{
    sum >>= PL_RESIZE_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* wide[row][3][x.n] of the rows that y reads. */
template <typename T>
__global__ void across(const T *picture, int32_t width, struct pl_cuda_side x, int32_t first_row,
                       int32_t rows, uint8_t *wide)
{
    const int64_t all = (int64_t)rows * x.n;

    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < all;
         i += (int64_t)gridDim.x * blockDim.x) {
        const int32_t row = (int32_t)(i / x.n), col = (int32_t)(i % x.n), taps = x.taps[col];
        const int32_t *w = x.weights + (int64_t)col * x.most;
        const int64_t at = (int64_t)(first_row + row) * width + x.first + x.at[col];
        int32_t sum[3], rgb[3];
        for (int c = 0; c < 3; c++)
            sum[c] = 1 << (PL_RESIZE_BITS - 1);
        for (int32_t k = 0; k < taps; k++) {
            colour(picture, at + k, rgb);
            for (int c = 0; c < 3; c++)
                sum[c] += w[k] * rgb[c];
        }
        for (int c = 0; c < 3; c++)
            wide[((int64_t)row * 3 + c) * x.n + col] = rounded(sum[c]);
    }
}

/* out[3][crop][crop] of wide; black around it. */
__global__ void down(const uint8_t *wide, int32_t columns, int32_t before, struct pl_cuda_side y,
                     int32_t crop, const float *table, float *out)
{
    const int64_t plane = (int64_t)crop * crop;

    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < 3 * plane;
         i += (int64_t)gridDim.x * blockDim.x) {
        const int32_t c = (int32_t)(i / plane), row = (int32_t)(i % plane / crop) - y.before;
        const int32_t col = (int32_t)(i % crop) - before;
        uint8_t v = 0;
        if (row >= 0 && row < y.n && col >= 0 && col < columns) {
            const int32_t *w = y.weights + (int64_t)row * y.most;
            const uint8_t *from = wide + ((int64_t)y.at[row] * 3 + c) * columns + col;
            int32_t sum = 1 << (PL_RESIZE_BITS - 1);
            for (int32_t k = 0; k < y.taps[row]; k++)
                sum += w[k] * from[(int64_t)k * 3 * columns];
            v = rounded(sum);
        }
        out[i] = table[c * 256 + v];
    }
}

static unsigned blocks(int64_t threads)
{
    int64_t n = (threads + THREADS - 1) / THREADS;

    return (unsigned)(n < MOST_BLOCKS ? n : MOST_BLOCKS);
}

extern "C" void pl_k_raster(const uint16_t *x, const uint16_t *y, const uint8_t *p, int64_t n,
                            int32_t width, uint32_t *last, cudaStream_t s)
{
    PL_LAUNCH(raster, ceil_div(n, THREADS), THREADS, 0, s, x, y, p, n, width, last);
}

extern "C" void pl_k_pixels(const void *picture, bool events, int32_t width,
                            const struct pl_cuda_side *x, const struct pl_cuda_side *y,
                            int32_t crop, const float *table, uint8_t *wide, float *out,
                            cudaStream_t s)
{
    const unsigned n = blocks((int64_t)y->rows * x->n);

    if (events)
        PL_LAUNCH(across, n, THREADS, 0, s, (const uint32_t *)picture, width, *x, y->first, y->rows,
                  wide);
    else
        PL_LAUNCH(across, n, THREADS, 0, s, (const uint8_t *)picture, width, *x, y->first, y->rows,
                  wide);
    PL_LAUNCH(down, blocks(3 * (int64_t)crop * crop), THREADS, 0, s, wide, x->n, x->before, *y,
              crop, table, out);
}
