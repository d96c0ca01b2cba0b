/* Tensors and the operation table. */
#include "model/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

enum pl_status pl_cuda_tensor_create(struct pl_device *d, size_t rows, size_t cols,
                                     struct pl_tensor **out, struct pl_err *err)
{
    struct pl_tensor *t = calloc(1, sizeof(*t));
    enum pl_status st = pl_cuda_enter(d, "a tensor", err);
    void *p = NULL;
    size_t n = 0;

    if (!st && (!t || __builtin_mul_overflow(rows, cols, &n) || n > SIZE_MAX / sizeof(float)))
        st = pl_fail(err, PL_ENOMEM, "no memory for a tensor [%zu, %zu]", rows, cols);
    if (!st)
        st = pl_cuda_alloc(&p, n * sizeof(float), "a tensor", err);
    if (!st)
        st = pl_cuda_check(cudaMemsetAsync(p, 0, n * sizeof(float), d->stream), "a tensor", err);
    if (st) {
        cudaFree(p);
        free(t);
        return st;
    }
    *t = (struct pl_tensor){.device = d, .rows = rows, .cols = cols, .data = p};
    *out = t;
    return PL_OK;
}

enum pl_status pl_cuda_weight_create(struct pl_device *d, const struct pl_weight_source *src,
                                     enum pl_dtype dt, struct pl_tensor **out, struct pl_err *err)
{
    struct pl_tensor *t = calloc(1, sizeof(*t));
    struct pl_cuda_matrix *m = calloc(1, sizeof(*m));
    enum pl_status st = pl_cuda_enter(d, src->name, err);

    if (!st && t && m)
        st = pl_cuda_matrix_load(d, src, dt, m, err);
    else if (!st)
        st = pl_fail(err, PL_ENOMEM, "%s: no memory", src->name);
    if (st) {
        free(m);
        free(t);
        return st;
    }
    *t =
        (struct pl_tensor){.device = d, .rows = (size_t)m->out, .cols = (size_t)m->in, .weight = m};
    *out = t;
    return PL_OK;
}

void pl_cuda_tensor_free(struct pl_tensor *t)
{
    if (!t)
        return;
    if (!t->borrowed) {
        cudaFree(t->data);
        if (t->weight)
            pl_cuda_matrix_free(t->weight);
        free(t->weight);
    }
    free(t);
}

enum pl_status pl_cuda_upload(struct pl_tensor *t, size_t first, size_t n, const float *src,
                              struct pl_err *err)
{
    enum pl_status st = pl_check_rows(t, first, n, err);

    if (st || !n)
        return st;
    st = pl_cuda_check(cudaMemcpyAsync(t->data + first * t->cols, src, n * t->cols * sizeof(float),
                                       cudaMemcpyHostToDevice, t->device->stream),
                       "upload", err);
    return st ? st : pl_cuda_sync(t->device, "upload", err);
}

enum pl_status pl_cuda_download(const struct pl_tensor *t, size_t first, size_t n, float *dst,
                                struct pl_err *err)
{
    enum pl_status st = pl_check_rows(t, first, n, err);

    if (st || !n)
        return st;
    st = pl_cuda_check(cudaMemcpyAsync(dst, t->data + first * t->cols, n * t->cols * sizeof(float),
                                       cudaMemcpyDeviceToHost, t->device->stream),
                       "download", err);
    return st ? st : pl_cuda_sync(t->device, "download", err);
}

/* Rows of x that the library multiplies at a time. */
#define SLICE ((size_t)4096)

/* Input and decoded weights in the type that GEMMs of this weight run in, in the scratch. */
static enum pl_status linear_slice(struct pl_tensor *y, const struct pl_tensor *x,
                                   const struct pl_cuda_matrix *w, size_t first, size_t rows,
                                   struct pl_err *err)
{
    struct pl_device *d = y->device;
    enum pl_dtype act = pl_cuda_act(d, w->dtype);
    size_t input = pl_round_up(rows * x->cols * sizeof(float), 256);
    float *to = y->data + first * y->cols;
    const void *from = x->data + first * x->cols;
    enum pl_status st;

    if (pl_cuda_few(d, (int64_t)rows))
        return pl_cuda_product(d, w, from, (int64_t)rows, act, NULL, to, false, err);
    st = pl_cuda_scratch(d, input + PL_CUDA_DECODED, err);
    if (st)
        return st;
    if (act != PL_DT_F32) {
        pl_k_cast(from, (int64_t)(rows * x->cols), act, d->scratch, d->stream);
        from = d->scratch;
    }
    return pl_cuda_product(d, w, from, (int64_t)rows, act, (char *)d->scratch + input, to, false,
                           err);
}

enum pl_status pl_cuda_linear(struct pl_tensor *y, const struct pl_tensor *x,
                              const struct pl_tensor *w, const struct pl_tensor *bias,
                              struct pl_err *err)
{
    enum pl_status st = pl_check_linear(y, x, w, bias, err);
    struct pl_cuda_matrix m;

    if (!st)
        st = pl_cuda_enter(y->device, "linear", err);
    if (st)
        return st;
    m = *(const struct pl_cuda_matrix *)w->weight;
    m.bias = bias ? bias->data : NULL;
    for (size_t at = 0; at < x->rows && !st; at += SLICE)
        st = linear_slice(y, x, &m, at, x->rows - at < SLICE ? x->rows - at : SLICE, err);
    return st;
}

enum pl_status pl_cuda_norm(enum pl_norm_kind kind, float eps, struct pl_tensor *y,
                            const struct pl_tensor *x, const struct pl_tensor *gain,
                            const struct pl_tensor *bias, struct pl_err *err)
{
    enum pl_status st = pl_check_norm(y, x, gain, bias, err);

    if (!st)
        st = pl_cuda_enter(y->device, "norm", err);
    if (!st)
        pl_k_norm(kind, eps, y->data, PL_DT_F32, x->data, gain->data, bias ? bias->data : NULL,
                  (int)x->rows, (int64_t)x->cols, y->device->stream);
    return st;
}

enum pl_status pl_cuda_activate(enum pl_act_kind act, struct pl_tensor *y,
                                const struct pl_tensor *x, struct pl_err *err)
{
    enum pl_status st = pl_check_rowwise("activate", "output and input", y, x, err);

    if (!st)
        st = pl_cuda_enter(y->device, "activate", err);
    if (!st)
        pl_k_act(act, y->data, PL_DT_F32, NULL, x->data, PL_DT_F32, (int64_t)(x->rows * x->cols),
                 y->device->stream);
    return st;
}

enum pl_status pl_cuda_axpby(float a, const struct pl_tensor *x, float b, struct pl_tensor *y,
                             struct pl_err *err)
{
    enum pl_status st = pl_check_rowwise("axpby", "y and x", y, x, err);

    if (!st)
        st = pl_cuda_enter(y->device, "axpby", err);
    if (!st)
        pl_k_axpby(a, x->data, b, y->data, (int64_t)(x->rows * x->cols), y->device->stream);
    return st;
}

enum pl_status pl_cuda_attention(struct pl_tensor *y, const struct pl_tensor *q,
                                 const struct pl_tensor *k, const struct pl_tensor *v, size_t heads,
                                 bool causal, struct pl_err *err)
{
    enum pl_status st = pl_check_attention(y, q, k, v, heads, causal, err);

    if (!st)
        st = pl_cuda_enter(y->device, "attention", err);
    if (!st)
        pl_k_attend_small(y->data, q->data, k->data, v->data, (int)q->rows, (int)k->rows,
                          (int)heads, (int)(q->cols / heads), causal, y->device->stream);
    return st;
}

/* n numbers of the scratch to the host. */
static enum pl_status take(struct pl_device *d, int32_t *idx, size_t n, const char *what,
                           struct pl_err *err)
{
    enum pl_status st = pl_cuda_check(
        cudaMemcpyAsync(idx, d->scratch, n * sizeof(*idx), cudaMemcpyDeviceToHost, d->stream), what,
        err);

    return st ? st : pl_cuda_sync(d, what, err);
}

enum pl_status pl_cuda_topk(const struct pl_tensor *x, size_t k, int32_t *idx, struct pl_err *err)
{
    enum pl_status st = pl_check_topk(x, k, err);

    if (!st)
        st = pl_cuda_enter(x->device, "topk", err);
    if (!st)
        st = pl_cuda_scratch(x->device, k * sizeof(*idx), err);
    if (st)
        return st;
    pl_k_topk(x->data, (int)x->cols, (int)k, x->device->scratch, x->device->stream);
    return take(x->device, idx, k, "topk", err);
}

enum pl_status pl_cuda_argmax(const struct pl_tensor *x, int32_t *idx, struct pl_err *err)
{
    enum pl_status st = pl_check_argmax(x, err);

    if (!st)
        st = pl_cuda_enter(x->device, "argmax", err);
    if (!st)
        st = pl_cuda_scratch(x->device, x->rows * sizeof(*idx), err);
    if (st)
        return st;
    pl_k_argmax(x->data, (int)x->rows, (int64_t)x->cols, x->device->scratch, x->device->stream);
    return take(x->device, idx, x->rows, "argmax", err);
}

enum pl_status pl_cuda_gather(struct pl_tensor *y, const struct pl_tensor *x, const int32_t *idx,
                              size_t n, struct pl_err *err)
{
    struct pl_device *d = y->device;
    size_t ids = pl_round_up(n * sizeof(*idx), 256), rows = n * x->cols * sizeof(float);
    enum pl_status st = pl_check_gather(y, x, idx, n, err);

    if (st || !n)
        return st;
    st = pl_cuda_enter(d, "gather", err);
    if (!st)
        st = pl_cuda_scratch(d, ids + rows, err);
    if (!st)
        st = pl_cuda_check(
            cudaMemcpyAsync(d->scratch, idx, n * sizeof(*idx), cudaMemcpyHostToDevice, d->stream),
            "gather", err);
    if (st)
        return st;
    /* by way of the scratch, since y may be x */
    float *between = (float *)(void *)((char *)d->scratch + ids);
    pl_k_gather(between, x->data, d->scratch, (int)n, (int64_t)x->cols, d->stream);
    st = pl_cuda_check(cudaMemcpyAsync(y->data, between, rows, cudaMemcpyDeviceToDevice, d->stream),
                       "gather", err);
    return st ? st : pl_cuda_sync(d, "gather", err);
}
