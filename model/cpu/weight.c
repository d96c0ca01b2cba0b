#include "model/cpu/cpu.h"

#include "model/quant.h"

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
    if (pl_quant_decodes(dt))
        return (int64_t)pl_dtype_bytes(dt, out * in);
    return (int64_t)(pl_round_up(out, PL_PANEL) * in * pl_cpu_dtype_bytes(dt));
}

/* n elements from element `first` on, in dt; row is room for n floats. */
static void read_as(const struct pl_weight_source *src, enum pl_dtype dt, size_t first, void *out,
                    float *row, size_t n)
{
    size_t bytes = pl_cpu_dtype_bytes(dt);

    if (src->view && src->view->dtype == dt) {
        memcpy(out, (const char *)src->view->data + (first + (size_t)src->skip) * bytes, n * bytes);
        return;
    }
    pl_weight_read(src, first, row, n);
    pl_dtype_from_f32(dt, row, out, n);
}

struct pack {
    const struct pl_weight_source *src;
    const struct pl_panels *out;
    size_t each; /* bytes of a thread's part of room */
    char *room;  /* 16 rows in the panels' type, then one row of floats */
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

static void interleave(const struct pl_panels *o, size_t panel, const void *rows)
{
    size_t at = panel * o->in * PL_PANEL;

    if (o->dtype == PL_DT_F32) {
        float *dst = (float *)o->data + at;
        for (size_t k = 0; k < o->in; k++)
            for (size_t j = 0; j < PL_PANEL; j++)
                dst[k * PL_PANEL + j] = ((const float *)rows)[j * o->in + k];
    } else {
        uint16_t *dst = (uint16_t *)o->data + at;
        for (size_t k = 0; k < o->in; k++)
            for (size_t j = 0; j < PL_PANEL; j++)
                dst[k * PL_PANEL + j] = ((const uint16_t *)rows)[j * o->in + k];
    }
}

/* A view [in, all outputs] is a panel's order already, but for the outputs beside ours. */
static void pack_transposed(const struct pack *p, size_t panel, float *floats)
{
    const struct pl_panels *o = p->out;
    const struct pl_tensor_view *v = p->src->view;
    size_t first = panel * PL_PANEL, bytes = pl_cpu_dtype_bytes(o->dtype);
    size_t n = o->out - first < PL_PANEL ? o->out - first : PL_PANEL;

    memset(floats, 0, PL_PANEL * sizeof(*floats));
    for (size_t k = 0; k < o->in; k++) {
        size_t at = k * (size_t)p->src->ld + (size_t)p->src->skip + first;
        pl_dtype_to_f32(v->dtype, (const char *)v->data + at * pl_cpu_dtype_bytes(v->dtype), floats,
                        n);
        pl_dtype_from_f32(o->dtype, floats,
                          (char *)o->data + (panel * o->in + k) * PL_PANEL * bytes, PL_PANEL);
    }
}

static void pack_part(void *arg, int member, int members)
{
    const struct pack *p = arg;
    const struct pl_panels *o = p->out;
    size_t begin, end, bytes = pl_cpu_dtype_bytes(o->dtype), row = o->in * bytes;
    char *rows = p->room + (size_t)member * p->each;
    float *floats = (float *)(rows + pl_round_up(PL_PANEL * row, 64));

    pl_pool_share((o->out + PL_PANEL - 1) / PL_PANEL, member, members, &begin, &end);
    for (size_t panel = begin; panel < end; panel++) {
        size_t first = panel * PL_PANEL;
        size_t n = o->out - first < PL_PANEL ? o->out - first : PL_PANEL;
        if (p->src->ld) {
            pack_transposed(p, panel, (float *)(void *)rows);
            continue;
        }
        for (size_t j = 0; j < n; j++)
            read_as(p->src, o->dtype, pl_weight_row(p->src, first + j) * o->in, rows + j * row,
                    floats, o->in);
        memset(rows + n * row, 0, (PL_PANEL - n) * row);
        interleave(o, panel, rows);
    }
}

void pl_cpu_gemm_weight(struct pl_gemm *g, const struct pl_panels *p)
{
    g->w = p->data;
    g->dtype = p->dtype;
    g->stride = pl_quant_decodes(p->dtype) ? pl_dtype_bytes(p->dtype, p->in) : p->in * PL_PANEL;
    g->paired = p->paired;
    g->k = p->in;
    g->n = p->out;
}

enum pl_status pl_cpu_pack(struct pl_device *d, const struct pl_weight_source *src,
                           enum pl_dtype dt, struct pl_panels *out, struct pl_err *err)
{
    struct pl_panels o = {
        .out = (size_t)src->rows, .in = (size_t)src->cols, .dtype = pl_cpu_weight_dtype(src, dt)};
    size_t threads = (size_t)pl_pool_threads(d->pool);
    struct pack p = {.src = src, .out = &o};

    if (src->view && pl_quant_decodes(o.dtype) && src->view->dtype == o.dtype) {
        o.data = (char *)(void *)src->view->data + pl_dtype_bytes(o.dtype, (size_t)src->skip);
        o.mapped = true;
        o.paired = (size_t)src->paired;
        *out = o;
        return PL_OK;
    }
    if (!pl_dtype_traits(o.dtype)->computes)
        return pl_fail(err, PL_EUNSUPPORTED, "%s: weights of type %s cannot be run", src->name,
                       pl_dtype_traits(o.dtype)->name);
    o.data = pl_cpu_alloc(pl_round_up(o.out, PL_PANEL) * o.in, pl_cpu_dtype_bytes(o.dtype));
    p.each = pl_round_up(PL_PANEL * o.in * pl_cpu_dtype_bytes(o.dtype), 64) +
             pl_round_up(o.in * sizeof(float), 64);
    p.room = pl_cpu_alloc(threads, p.each);
    if (!o.data || !p.room) {
        free(o.data);
        free(p.room);
        return pl_fail(err, PL_ENOMEM, "%s: no memory for %lld bytes", src->name,
                       (long long)pl_cpu_panel_bytes(o.out, o.in, o.dtype));
    }
    pl_pool_run(d->pool, pack_part, &p);
    free(p.room);
    if (src->view)
        drop_pages(src->view); /* a fused one is read again for its next part */
    *out = o;
    return PL_OK;
}

enum pl_status pl_cpu_vector(const struct pl_weight_source *src, float **out, struct pl_err *err)
{
    float *v;

    *out = NULL;
    if (pl_weight_absent(src))
        return PL_OK;
    v = pl_cpu_alloc((size_t)(src->rows * src->cols), sizeof(*v));
    if (!v)
        return pl_fail(err, PL_ENOMEM, "%s: no memory", src->name);
    if (src->paired)
        for (size_t i = 0; i < (size_t)src->cols; i++)
            pl_weight_read(src, pl_weight_row(src, i), v + i, 1);
    else
        pl_weight_read(src, 0, v, (size_t)(src->rows * src->cols));
    *out = v;
    return PL_OK;
}

struct copy {
    const struct pl_weight_source *src;
    enum pl_dtype dtype;
    char *out;
    float *room; /* [threads, cols] */
};

static void copy_part(void *arg, int member, int members)
{
    const struct copy *c = arg;
    size_t cols = (size_t)c->src->cols, begin, end;

    pl_pool_share((size_t)c->src->rows, member, members, &begin, &end);
    for (size_t r = begin; r < end; r++)
        read_as(c->src, c->dtype, r * cols, c->out + r * cols * pl_cpu_dtype_bytes(c->dtype),
                c->room + (size_t)member * cols, cols);
}

enum pl_status pl_cpu_rows_copy(struct pl_device *d, const struct pl_weight_source *src,
                                enum pl_dtype dt, void **out, struct pl_err *err)
{
    struct copy c = {.src = src, .dtype = pl_cpu_weight_dtype(src, dt)};

    c.out = pl_cpu_alloc((size_t)src->rows * (size_t)src->cols, pl_cpu_dtype_bytes(c.dtype));
    c.room = pl_cpu_alloc((size_t)pl_pool_threads(d->pool) * (size_t)src->cols, sizeof(float));
    if (!c.out || !c.room) {
        free(c.out);
        free(c.room);
        return pl_fail(err, PL_ENOMEM, "%s: no memory", src->name);
    }
    pl_pool_run(d->pool, copy_part, &c);
    free(c.room);
    if (src->view)
        drop_pages(src->view);
    *out = c.out;
    return PL_OK;
}
