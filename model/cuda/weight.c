#include "model/cuda/cuda.h"

#include "model/quant.h"

#include <stdlib.h>
#include <string.h>

#define STAGING ((size_t)16 << 20) /* bytes that go to the device at a time */

enum pl_dtype pl_cuda_weight_dtype(const struct pl_weight_source *src, enum pl_dtype want)
{
    if (want != PL_DT_AUTO)
        return want;
    return src->view ? src->view->dtype : PL_DT_F32;
}

int64_t pl_cuda_matrix_bytes(const struct pl_weight_source *src, enum pl_dtype want)
{
    const enum pl_dtype dt = pl_cuda_weight_dtype(src, want);
    const size_t row = pl_k_packed_row_bytes(dt, src->cols);

    if (pl_weight_absent(src))
        return 0;
    if (row) /* without what fills the last panel up */
        return src->rows * (int64_t)row;
    return (int64_t)pl_dtype_bytes(dt, (size_t)src->rows * (size_t)src->cols);
}

/* Row r of the matrix, in dt; floats: room for a row. */
static void read_row(const struct pl_weight_source *src, enum pl_dtype dt, size_t r, void *out,
                     float *floats)
{
    size_t in = (size_t)src->cols;

    if (src->ld) {
        for (size_t k = 0; k < in; k++)
            pl_weight_read(src, k * (size_t)src->ld + r, floats + k, 1);
    } else {
        size_t at = pl_weight_row(src, r) * in;
        if (src->view && src->view->dtype == dt) {
            memcpy(out, (const char *)src->view->data + pl_dtype_bytes(dt, at + (size_t)src->skip),
                   pl_dtype_bytes(dt, in));
            return;
        }
        pl_weight_read(src, at, floats, in);
    }
    pl_dtype_from_f32(dt, floats, out, in);
}

/* n rows in the file's form from `staging` to the device. */
static enum pl_status send_rows(struct pl_device *d, const struct pl_cuda_matrix *m, size_t first,
                                size_t n, const char *staging, size_t bytes, const char *name,
                                struct pl_err *err)
{
    enum pl_status st = PL_OK;

    if (!m->packed)
        return pl_cuda_check(cudaMemcpyAsync((char *)m->data + first * m->row_bytes, staging, bytes,
                                             cudaMemcpyHostToDevice, d->stream),
                             name, err);
    st = pl_cuda_scratch(d, bytes, err);
    if (!st)
        st = pl_cuda_check(
            cudaMemcpyAsync(d->scratch, staging, bytes, cudaMemcpyHostToDevice, d->stream), name,
            err);
    if (st)
        return st;
    pl_k_pack(m, (int64_t)first, (int64_t)n, d->scratch, d->stream);
    return pl_cuda_sync(d, name, err);
}

static enum pl_status copy_rows(struct pl_device *d, const struct pl_weight_source *src,
                                const struct pl_cuda_matrix *m, struct pl_err *err)
{
    const size_t rows = (size_t)m->out, row = pl_dtype_bytes(m->dtype, (size_t)m->in);
    size_t most = STAGING / row / PL_CUDA_PANEL * PL_CUDA_PANEL;
    enum pl_status st = PL_OK;
    float *floats = malloc((size_t)m->in * sizeof(*floats));
    char *staging;

    most = most ? most : PL_CUDA_PANEL;
    most = most < rows ? most : rows;
    staging = malloc(most * row);
    if (!floats || !staging)
        st = pl_fail(err, PL_ENOMEM, "%s: no memory", src->name);
    for (size_t at = 0; at < rows && !st; at += most) {
        size_t n = rows - at < most ? rows - at : most;
        for (size_t r = 0; r < n; r++)
            read_row(src, m->dtype, at + r, staging + r * row, floats);
        st = send_rows(d, m, at, n, staging, n * row, src->name, err);
    }
    free(staging);
    free(floats);
    return st;
}

enum pl_status pl_cuda_matrix_load(struct pl_device *d, const struct pl_weight_source *src,
                                   enum pl_dtype want, struct pl_cuda_matrix *out,
                                   struct pl_err *err)
{
    struct pl_cuda_matrix m = {
        .out = src->rows, .in = src->cols, .dtype = pl_cuda_weight_dtype(src, want)};
    bool blocks = pl_quant_decodes(m.dtype) && src->view && src->view->dtype == m.dtype;
    enum pl_status st;

    if (!blocks && !pl_dtype_traits(m.dtype)->computes)
        return pl_fail(err, PL_EUNSUPPORTED, "%s: weights of type %s cannot be run", src->name,
                       pl_dtype_traits(m.dtype)->name);
    if (blocks && d->plain)
        m.dtype = PL_DT_F32;
    m.row_bytes = pl_k_packed_row_bytes(m.dtype, m.in);
    m.packed = m.row_bytes > 0;
    if (!m.packed)
        m.row_bytes = pl_dtype_bytes(m.dtype, (size_t)m.in);
    st = pl_cuda_alloc(&m.data,
                       pl_round_up((size_t)m.out, m.packed ? PL_CUDA_PANEL : 1) * m.row_bytes,
                       src->name, err);
    if (st)
        return st;
    if (!src->view && src->std > 0) {
        pl_k_random(m.dtype, m.data, m.out * m.in, src->key, src->std, d->stream);
        st = pl_cuda_sync(d, src->name, err);
    } else {
        st = copy_rows(d, src, &m, err);
    }
    if (st) {
        cudaFree(m.data);
        return st;
    }
    *out = m;
    return PL_OK;
}

void pl_cuda_matrix_free(struct pl_cuda_matrix *m)
{
    cudaFree(m->data);
    cudaFree(m->bias);
    *m = (struct pl_cuda_matrix){0};
}

enum pl_status pl_cuda_vector_load(const struct pl_weight_source *src, bool on_host, float **out,
                                   struct pl_err *err)
{
    size_t rows = (size_t)src->rows, cols = (size_t)src->cols;
    enum pl_status st = PL_OK;
    float *v;
    void *p;

    *out = NULL;
    if (pl_weight_absent(src))
        return PL_OK;
    v = calloc(rows * cols + 1, sizeof(*v));
    if (!v)
        return pl_fail(err, PL_ENOMEM, "%s: no memory", src->name);
    if (src->paired)
        for (size_t i = 0; i < cols; i++)
            pl_weight_read(src, pl_weight_row(src, i), v + i, 1);
    else
        pl_weight_read(src, 0, v, rows * cols);
    if (on_host) {
        *out = v;
        return PL_OK;
    }
    st = pl_cuda_alloc(&p, rows * cols * sizeof(*v), src->name, err);
    if (!st) {
        st = pl_cuda_check(cudaMemcpy(p, v, rows * cols * sizeof(*v), cudaMemcpyHostToDevice),
                           src->name, err);
        if (st)
            cudaFree(p);
        else
            *out = p;
    }
    free(v);
    return st;
}
