#include "model/cpu/cpu.h"

#include "base/rng.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *pl_cpu_alloc(size_t n, size_t size)
{
    size_t bytes;
    void *p;

    if (__builtin_mul_overflow(n, size, &bytes) || bytes > SIZE_MAX - 64)
        return NULL;
    bytes = bytes ? pl_round_up(bytes, 64) : 64;
    p = aligned_alloc(64, bytes);
    if (p)
        memset(p, 0, bytes);
    return p;
}

float pl_cpu_load(enum pl_dtype dt, const void *src, size_t i)
{
    if (dt == PL_DT_F32)
        return ((const float *)src)[i];
    uint16_t h = ((const uint16_t *)src)[i];
    return dt == PL_DT_F16 ? pl_f16_to_f32(h) : pl_bf16_to_f32(h);
}

void pl_cpu_store(enum pl_dtype dt, void *dst, size_t i, float v)
{
    if (dt == PL_DT_F32)
        ((float *)dst)[i] = v;
    else
        ((uint16_t *)dst)[i] = dt == PL_DT_F16 ? pl_f32_to_f16(v) : pl_f32_to_bf16(v);
}

enum pl_dtype pl_cpu_weight_dtype(const struct pl_weight_source *src, enum pl_dtype want)
{
    if (want != PL_DT_AUTO)
        return want;
    return src->view ? src->view->dtype : PL_DT_F32;
}

int64_t pl_cpu_panel_bytes(size_t out, size_t in, enum pl_dtype dt)
{
    return (int64_t)(pl_round_up(out, PL_PANEL) * in * pl_cpu_dtype_bytes(dt));
}

/* Uniform in ±std·√3 (so of standard deviation std): 32 bits of one mix for each element, whoever
 * asks in whatever order. */
static void random_read(const struct pl_weight_source *src, size_t first, float *out, size_t n)
{
    const double step = (double)src->std * 1.7320508075688772 * 2 / 4294967296.0;

    for (size_t i = 0; i < n; i++) {
        uint64_t z = src->key + (uint64_t)(first + i) * UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        z ^= z >> 31;
        out[i] = (float)((double)(int32_t)(uint32_t)(z >> 32) * step);
    }
}

void pl_cpu_source_read(const struct pl_weight_source *src, size_t first, float *out, size_t n)
{
    if (src->view) {
        size_t bytes = pl_cpu_dtype_bytes(src->view->dtype);
        pl_dtype_to_f32(src->view->dtype, (const char *)src->view->data + first * bytes, out, n);
    } else if (src->std > 0) {
        random_read(src, first, out, n);
    } else {
        for (size_t i = 0; i < n; i++)
            out[i] = src->fill;
    }
}

struct pack {
    const struct pl_weight_source *src;
    struct pl_panels *out;
    float *rows; /* [threads][16 · in] */
};

/* Pages that were read leave the resident set: the packed copy replaces them. */
static void drop_pages(const struct pl_tensor_view *v)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)v->data + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)v->data + v->bytes) / page * page;

    if (end > begin)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}

static void pack_part(void *arg, int member, int members)
{
    const struct pack *p = arg;
    const struct pl_panels *o = p->out;
    float *rows = p->rows + (size_t)member * PL_PANEL * o->in;
    size_t begin, end;

    pl_pool_share((o->out + PL_PANEL - 1) / PL_PANEL, member, members, &begin, &end);
    for (size_t panel = begin; panel < end; panel++) {
        size_t first = panel * PL_PANEL;
        size_t n = o->out - first < PL_PANEL ? o->out - first : PL_PANEL;
        pl_cpu_source_read(p->src, first * o->in, rows, n * o->in);
        memset(rows + n * o->in, 0, (PL_PANEL - n) * o->in * sizeof(float));
        for (size_t k = 0; k < o->in; k++)
            for (size_t j = 0; j < PL_PANEL; j++)
                pl_cpu_store(o->dtype, o->data, (panel * o->in + k) * PL_PANEL + j,
                             rows[j * o->in + k]);
    }
}

enum pl_status pl_cpu_pack(struct pl_device *d, const struct pl_weight_source *src,
                           enum pl_dtype dt, struct pl_panels *out, struct pl_err *err)
{
    struct pl_panels o = {
        .out = (size_t)src->rows, .in = (size_t)src->cols, .dtype = pl_cpu_weight_dtype(src, dt)};
    size_t threads = (size_t)pl_pool_threads(d->pool);
    struct pack p = {.src = src, .out = &o};

    if (!pl_dtype_traits(o.dtype)->computes)
        return pl_fail(err, PL_EUNSUPPORTED, "%s: weights of type %s cannot be run", src->name,
                       pl_dtype_traits(o.dtype)->name);
    o.data = pl_cpu_alloc(pl_round_up(o.out, PL_PANEL) * o.in, pl_cpu_dtype_bytes(o.dtype));
    p.rows = pl_cpu_alloc(threads * PL_PANEL * o.in, sizeof(float));
    if (!o.data || !p.rows) {
        free(o.data);
        free(p.rows);
        return pl_fail(err, PL_ENOMEM, "%s: no memory for %lld bytes", src->name,
                       (long long)pl_cpu_panel_bytes(o.out, o.in, o.dtype));
    }
    pl_pool_run(d->pool, pack_part, &p);
    free(p.rows);
    if (src->view)
        drop_pages(src->view);
    *out = o;
    return PL_OK;
}

enum pl_status pl_cpu_vector(const struct pl_weight_source *src, float **out, struct pl_err *err)
{
    float *v;

    *out = NULL;
    if (src->absent)
        return PL_OK;
    v = pl_cpu_alloc((size_t)src->cols, sizeof(*v));
    if (!v)
        return pl_fail(err, PL_ENOMEM, "%s: no memory", src->name);
    pl_cpu_source_read(src, 0, v, (size_t)src->cols);
    *out = v;
    return PL_OK;
}
