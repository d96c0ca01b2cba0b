#include "model/resize.h"

#include <math.h>
#include <string.h>

static double bicubic(double x)
{
    const double a = -0.5;

    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

/* Weights of output `at` of the whole resized side, as Pillow rounds them. */
static void weights(const struct pl_resize_side *s, int32_t at, struct pl_resize_tap *t,
                    int32_t *out, double *work)
{
    double scale = (double)s->size / s->resized, wide = scale < 1.0 ? 1.0 : scale;
    double support = 2.0 * wide, center = (at + 0.5) * scale, sum = 0;
    int32_t first = (int32_t)(center - support + 0.5), end = (int32_t)(center + support + 0.5);

    first = first < 0 ? 0 : first;
    end = end > s->size ? s->size : end;
    for (int32_t i = first; i < end; i++) {
        work[i - first] = bicubic((i - center + 0.5) * (1.0 / wide));
        sum += work[i - first];
    }
    for (int32_t i = 0; i < end - first; i++) {
        double w = (sum != 0.0 ? work[i] / sum : work[i]) * (1 << PL_RESIZE_BITS);
        out[i] = (int32_t)(w < 0 ? w - 0.5 : w + 0.5);
    }
    *t = (struct pl_resize_tap){.first = first, .taps = end - first, .weights = out};
}

static enum pl_status no_memory(struct pl_err *err)
{
    return pl_fail(err, PL_ENOMEM, "no memory to resize a picture");
}

static enum pl_status plan_side(struct pl_resize_side *s, int32_t crop, struct pl_arena *arena,
                                struct pl_err *err)
{
    double scale = (double)s->size / s->resized;
    size_t most = 2 * (size_t)ceil(2.0 * (scale < 1.0 ? 1.0 : scale)) + 1;
    int32_t skip = s->resized > crop ? (s->resized - crop) / 2 : 0, *w;
    double *work = pl_arena_calloc(arena, most, sizeof(*work));

    s->n = s->resized < crop ? s->resized : crop;
    s->before = (crop - s->n + 1) / 2;
    s->tap = pl_arena_calloc(arena, (size_t)s->n, sizeof(*s->tap));
    w = pl_arena_calloc(arena, (size_t)s->n * most, sizeof(*w));
    s->most = (int32_t)most;
    s->weights = w;
    if (!work || !s->tap || !w)
        return no_memory(err);
    for (int32_t i = 0; i < s->n; i++)
        weights(s, skip + i, &s->tap[i], w + (size_t)i * most, work);
    s->first = s->tap[0].first;
    s->last = s->tap[s->n - 1].first + s->tap[s->n - 1].taps;
    for (int32_t i = 0; i < s->n; i++)
        s->tap[i].first -= s->first;
    return PL_OK;
}

enum pl_status pl_resize_plan(int32_t width, int32_t height, int32_t resize, int32_t crop,
                              struct pl_arena *arena, struct pl_resize_side *x,
                              struct pl_resize_side *y, struct pl_err *err)
{
    int32_t s = width < height ? width : height, l = width < height ? height : width;
    int32_t resized_long = (int32_t)((double)((int64_t)resize * l) / s);
    enum pl_status st;

    *x = (struct pl_resize_side){.size = width, .resized = width == s ? resize : resized_long};
    *y = (struct pl_resize_side){.size = height, .resized = height == s ? resize : resized_long};
    st = plan_side(x, crop, arena, err);
    return st ? st : plan_side(y, crop, arena, err);
}

static const struct pl_resize_kernels *kernels(void)
{
#ifdef PL_HAVE_AVX2
    if (__builtin_cpu_supports("avx2"))
        return &pl_resize_avx2;
#endif
    return &pl_resize_portable;
}

enum pl_status pl_resize_crop(const struct pl_image *in, int32_t resize, int32_t crop, uint8_t *out,
                              struct pl_err *err)
{
    const struct pl_resize_kernels *k = kernels();
    struct pl_resize_side x, y;
    size_t plane = (size_t)crop * (size_t)crop, row, width, rows;
    uint8_t *wide, *scratch, *line;
    struct pl_arena arena;
    enum pl_status st;

    pl_arena_init(&arena);
    st = pl_resize_plan(in->width, in->height, resize, crop, &arena, &x, &y, err);
    if (st)
        goto out;
    row = 3 * (size_t)x.n;
    width = (size_t)(x.last - x.first);
    rows = (size_t)(y.last - y.first);
    wide = pl_arena_alloc(&arena, rows * row);
    line = pl_arena_alloc(&arena, row);
    scratch = pl_arena_alloc(&arena, PL_RESIZE_STRIP * (width * 3 + row + 2 * PL_RESIZE_STRIP));
    if (!wide || !line || !scratch) {
        st = no_memory(err);
        goto out;
    }
    for (size_t at = 0; at < rows; at += PL_RESIZE_STRIP)
        k->across(in->rgb + (((size_t)y.first + at) * (size_t)in->width + (size_t)x.first) * 3,
                  (size_t)in->width * 3, rows - at < PL_RESIZE_STRIP ? rows - at : PL_RESIZE_STRIP,
                  width, x.tap, (size_t)x.n, wide + at * row, row, scratch);
    if (x.n < crop || y.n < crop)
        memset(out, 0, 3 * plane);
    for (int32_t i = 0; i < y.n; i++) {
        uint8_t *to = out + (size_t)(y.before + i) * (size_t)crop + x.before;
        k->down(wide, row, &y.tap[i], line, row);
        for (size_t c = 0; c < 3; c++)
            memcpy(to + c * plane, line + c * (size_t)x.n, (size_t)x.n);
    }
out:
    pl_arena_release(&arena);
    return st;
}
