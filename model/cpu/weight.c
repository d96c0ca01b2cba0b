#include "model/cpu/cpu.h"

#include "model/quant.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* From 2 MB on in huge pages; not cleared. */
static void *alloc_room(size_t n, size_t size)
{
    const size_t huge = (size_t)2 << 20;
    size_t bytes;
    void *p;

    if (__builtin_mul_overflow(n, size, &bytes) || bytes > SIZE_MAX - 64)
        return NULL;
    if (posix_memalign(&p, bytes < huge ? 64 : huge, pl_round_up(bytes ? bytes : 1, 64)))
        return NULL;
    if (bytes >= huge)
        (void)madvise(p, bytes / huge * huge, MADV_HUGEPAGE);
    return p;
}

void *pl_cpu_alloc(size_t n, size_t size)
{
    void *p = alloc_room(n, size);

    return p ? memset(p, 0, n * size) : NULL;
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

int64_t pl_cpu_panel_bytes(size_t out, size_t in, enum pl_dtype dt, enum pl_activations acts)
{
    if (acts == PL_ACTIVATIONS_INT8 && pl_q8_format(dt).block)
        return (int64_t)((out + PL_PANEL - 1) / PL_PANEL * pl_q8_panel_bytes(dt, in));
    if (pl_quant_decodes(dt))
        return (int64_t)pl_dtype_bytes(dt, out * in);
    if (acts != PL_ACTIVATIONS_F32 && dt == PL_DT_BF16) /* where it becomes pairs */
        in = 2 * pl_cpu_pairs(in);
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

/* The whole pages of a view. */
static void advise(const struct pl_tensor_view *v, int advice)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)v->data + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)v->data + v->bytes) / page * page;

    if (end > begin)
        (void)madvise((void *)begin, end - begin, advice);
}

/* Pages that were read leave the resident set: the packed copy replaces them. */
static void drop_pages(const struct pl_tensor_view *v)
{
    advise(v, MADV_DONTNEED);
}

/* In one go instead of a fault each. */
static void fetch_pages(const struct pl_tensor_view *v)
{
#ifdef MADV_POPULATE_READ
    advise(v, MADV_POPULATE_READ);
#else
    advise(v, MADV_WILLNEED);
#endif
}

/* Bytes from a row of a pack's room to the next: a power of two would put all 16 into the same few
 * lines of L1 (interleaving 4096 columns of bf16: 1.2 ns an element, 0.3 so). */
static size_t row_pitch(const struct pl_panels *o)
{
    return pl_round_up(o->in * pl_cpu_dtype_bytes(o->dtype), 64) + 64;
}

static void interleave(const struct pl_panels *o, size_t panel, const char *rows)
{
    const size_t at = panel * o->in * PL_PANEL, pitch = row_pitch(o);

    if (o->dtype == PL_DT_F32) {
        float *dst = (float *)o->data + at;
        for (size_t k = 0; k < o->in; k++)
            for (size_t j = 0; j < PL_PANEL; j++)
                dst[k * PL_PANEL + j] = ((const float *)(const void *)(rows + j * pitch))[k];
    } else if (o->acts == PL_ACTIVATIONS_BF16) {
        const size_t pairs = pl_cpu_pairs(o->in);
        uint32_t *dst = (uint32_t *)o->data + panel * pairs * PL_PANEL;
        for (size_t i = 0; i < pairs; i++)
            for (size_t j = 0; j < PL_PANEL; j++) {
                const uint16_t *row = (const uint16_t *)(const void *)(rows + j * pitch);
                dst[i * PL_PANEL + j] =
                    row[2 * i] | (2 * i + 1 < o->in ? (uint32_t)row[2 * i + 1] << 16 : 0);
            }
    } else {
        uint16_t *dst = (uint16_t *)o->data + at;
        for (size_t k = 0; k < o->in; k++)
            for (size_t j = 0; j < PL_PANEL; j++)
                dst[k * PL_PANEL + j] = ((const uint16_t *)(const void *)(rows + j * pitch))[k];
    }
}

/* A view [in, all outputs] is a panel's order already, but for the outputs beside ours. */
static void pack_transposed(const struct pack *p, size_t panel, float *floats)
{
    const struct pl_panels *o = p->out;
    const struct pl_tensor_view *v = p->src->view;
    size_t first = panel * PL_PANEL, bytes = pl_cpu_dtype_bytes(o->dtype);
    size_t n = o->out - first < PL_PANEL ? o->out - first : PL_PANEL;

    uint16_t h[PL_PANEL];

    memset(floats, 0, PL_PANEL * sizeof(*floats));
    for (size_t j = 0; o->acts == PL_ACTIVATIONS_BF16 && o->in % 2 && j < PL_PANEL; j++)
        ((uint16_t *)o->data)[pl_cpu_panel_at(o, first + j, o->in)] = 0;
    for (size_t k = 0; k < o->in; k++) {
        size_t at = k * (size_t)p->src->ld + (size_t)p->src->skip + first;
        pl_dtype_to_f32(v->dtype, (const char *)v->data + at * pl_cpu_dtype_bytes(v->dtype), floats,
                        n);
        if (o->acts != PL_ACTIVATIONS_BF16) {
            pl_dtype_from_f32(o->dtype, floats,
                              (char *)o->data + pl_cpu_panel_at(o, first, k) * bytes, PL_PANEL);
            continue;
        }
        pl_dtype_from_f32(PL_DT_BF16, floats, h, PL_PANEL);
        for (size_t j = 0; j < PL_PANEL; j++)
            ((uint16_t *)o->data)[pl_cpu_panel_at(o, first + j, k)] = h[j];
    }
}

static void pack_part(void *arg, int member, int members)
{
    const struct pack *p = arg;
    const struct pl_panels *o = p->out;
    size_t begin, end, pitch = row_pitch(o);
    char *rows = p->room + (size_t)member * p->each;
    float *floats = (float *)(void *)(rows + PL_PANEL * pitch);

    pl_pool_share((o->out + PL_PANEL - 1) / PL_PANEL, member, members, &begin, &end);
    for (size_t panel = begin; panel < end; panel++) {
        size_t first = panel * PL_PANEL;
        size_t n = o->out - first < PL_PANEL ? o->out - first : PL_PANEL;
        if (p->src->ld) {
            pack_transposed(p, panel, (float *)(void *)rows);
            continue;
        }
        for (size_t j = 0; j < n; j++)
            read_as(p->src, o->dtype, pl_weight_row(p->src, first + j) * o->in, rows + j * pitch,
                    floats, o->in);
        memset(rows + n * pitch, 0, (PL_PANEL - n) * pitch);
        interleave(o, panel, rows);
    }
}

void pl_cpu_gemm_weight(struct pl_gemm *g, const struct pl_panels *p)
{
    g->w = p->data;
    g->dtype = p->dtype;
    g->pairs = p->acts == PL_ACTIVATIONS_BF16;
    g->k = g->pairs ? pl_cpu_pairs(p->in) : p->in;
    g->stride = p->acts == PL_ACTIVATIONS_INT8 ? pl_q8_panel_bytes(p->dtype, p->in)
                : pl_quant_decodes(p->dtype)   ? pl_dtype_bytes(p->dtype, p->in)
                                               : g->k * PL_PANEL;
    g->paired = p->paired;
    g->n = p->out;
}

void pl_cpu_gemm_count(struct pl_device *d, const struct pl_gemm *g)
{
    size_t end = g->end * PL_PANEL < g->n ? g->end * PL_PANEL : g->n, first = g->first * PL_PANEL;
    size_t k = g->pairs ? 2 * g->k : g->k;

    if (end > first)
        pl_cpu_count(d, 2 * g->rows * k * (end - first),
                     (end - first) * pl_dtype_bytes(g->dtype, k));
}

void pl_cpu_gemm_rows(struct pl_device *d, struct pl_gemm *g, const struct pl_panels *p, int m)
{
    size_t rows = g->rows, chunks = pl_q8_chunks(p->in), ldx = g->ldx;
    size_t each = chunks < PL_CPU_OWN_CHUNKS ? PL_CPU_OWN_CHUNKS / chunks : 1;
    const float *x = g->x;

    g->scratch = pl_cpu_scratch_of(d, m);
    pl_cpu_gemm_count(d, g);
    if (p->acts == PL_ACTIVATIONS_F32) {
        d->kernels->gemm(g);
        return;
    }
    if (p->acts == PL_ACTIVATIONS_BF16) {
        g->x = pl_cpu_own_pairs(d, m);
        g->ldx = pl_cpu_pairs_pitch(p->in);
    } else {
        g->q8 = pl_cpu_own_q8(d, m);
        g->ldq8 = each;
    }
    for (size_t r = 0; r < rows; r += each, x += each * ldx) {
        g->rows = rows - r < each ? rows - r : each;
        for (size_t i = 0; i < g->rows; i++)
            if (g->pairs)
                d->kernels->round(x + i * ldx, p->in, pl_cpu_own_pairs(d, m) + i * g->ldx);
            else
                d->kernels->quantize(x + i * ldx, p->in, pl_cpu_own_q8(d, m) + i, each);
        d->kernels->gemm(g);
        g->y += each * g->ldy;
        g->add_to += g->add_to ? each * g->ld_add : 0;
    }
}

/* Room for what a member converts for itself, one row of so many columns at least. */
static enum pl_status room_for_own(struct pl_device *d, size_t columns, struct pl_err *err)
{
    size_t chunks = pl_q8_chunks(columns);

    return pl_cpu_scratch(d,
                          PL_CPU_OWN_AT +
                              (chunks > PL_CPU_OWN_CHUNKS ? chunks : PL_CPU_OWN_CHUNKS) *
                                  PL_CPU_OWN_CHUNK,
                          err);
}

static void repack_part(void *arg, int member, int members)
{
    const struct pack *p = arg;
    const struct pl_panels *o = p->out;
    size_t begin, end, row = pl_dtype_bytes(o->dtype, o->in), each = p->each;
    const uint8_t *from = p->src->view->data, *rows[PL_PANEL];

    from += pl_dtype_bytes(o->dtype, (size_t)p->src->skip);
    pl_pool_share((o->out + PL_PANEL - 1) / PL_PANEL, member, members, &begin, &end);
    for (size_t panel = begin; panel < end; panel++) {
        for (size_t j = 0; j < PL_PANEL; j++) { /* behind the last: that one again */
            size_t out = panel * PL_PANEL + j < o->out ? panel * PL_PANEL + j : o->out - 1;
            rows[j] = from + pl_weight_row(p->src, out) * row;
        }
        pl_q8_pack_panel(o->dtype, rows, o->in, (uint8_t *)o->data + panel * each);
    }
}

/* The pages of the file that were read are given back: the panels replace them. */
static enum pl_status repack(struct pl_device *d, const struct pl_weight_source *src,
                             struct pl_panels *o, struct pl_err *err)
{
    struct pack p = {.src = src, .out = o, .each = pl_q8_panel_bytes(o->dtype, o->in)};
    enum pl_status st = room_for_own(d, o->in, err);

    if (st)
        return st;
    o->data = alloc_room((o->out + PL_PANEL - 1) / PL_PANEL, p.each);
    if (!o->data)
        return pl_fail(err, PL_ENOMEM, "%s: no memory for %zu panels of %zu bytes", src->name,
                       (o->out + PL_PANEL - 1) / PL_PANEL, p.each);
    o->acts = PL_ACTIVATIONS_INT8;
    fetch_pages(src->view);
    pl_pool_run(d->pool, repack_part, &p);
    drop_pages(src->view);
    return PL_OK;
}

enum pl_status pl_cpu_pack(struct pl_device *d, const struct pl_weight_source *src,
                           enum pl_dtype dt, enum pl_activations acts, struct pl_panels *out,
                           struct pl_err *err)
{
    struct pl_panels o = {
        .out = (size_t)src->rows, .in = (size_t)src->cols, .dtype = pl_cpu_weight_dtype(src, dt)};
    size_t threads = (size_t)pl_pool_threads(d->pool);
    struct pack p = {.src = src, .out = &o};

    if (acts == PL_ACTIVATIONS_INT8 && src->view && pl_q8_format(o.dtype).block &&
        src->view->dtype == o.dtype) {
        enum pl_status st = repack(d, src, &o, err);
        if (!st)
            *out = o;
        return st;
    }
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
    if (acts == PL_ACTIVATIONS_INT8 && o.dtype == PL_DT_BF16 && d->kernels->round) {
        enum pl_status st = room_for_own(d, o.in, err);
        if (st)
            return st;
        o.acts = PL_ACTIVATIONS_BF16;
    }
    const size_t columns = o.acts == PL_ACTIVATIONS_BF16 ? 2 * pl_cpu_pairs(o.in) : o.in;
    o.data = alloc_room(pl_round_up(o.out, PL_PANEL) * columns, pl_cpu_dtype_bytes(o.dtype));
    p.each = PL_PANEL * row_pitch(&o) + pl_round_up(o.in * sizeof(float), 64);
    p.room = pl_cpu_alloc(threads, p.each);
    if (!o.data || !p.room) {
        free(o.data);
        free(p.room);
        return pl_fail(err, PL_ENOMEM, "%s: no memory for %lld bytes", src->name,
                       (long long)pl_cpu_panel_bytes(o.out, o.in, o.dtype, acts));
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
