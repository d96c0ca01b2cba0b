#include "model/cpu/cpu.h"

#include "model/float_rank.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum pl_status pl_cpu_tensor_create(struct pl_device *d, size_t rows, size_t cols,
                                    struct pl_tensor **out, struct pl_err *err)
{
    struct pl_tensor *t = calloc(1, sizeof(*t));
    size_t n;

    if (!t || __builtin_mul_overflow(rows, cols, &n) || !(t->data = pl_cpu_alloc(n, 4))) {
        free(t);
        return pl_fail(err, PL_ENOMEM, "no memory for a tensor [%zu, %zu]", rows, cols);
    }
    t->device = d;
    t->rows = rows;
    t->cols = cols;
    *out = t;
    return PL_OK;
}

enum pl_status pl_cpu_weight_create(struct pl_device *d, const struct pl_weight_source *src,
                                    enum pl_dtype dt, struct pl_tensor **out, struct pl_err *err)
{
    struct pl_tensor *t = calloc(1, sizeof(*t));
    struct pl_panels *p = calloc(1, sizeof(*p));
    enum pl_status st;
    void *own;

    if (!t || !p) {
        st = pl_fail(err, PL_ENOMEM, "%s: no memory", src->name);
        goto out;
    }
    st = pl_cpu_pack(d, src, dt, PL_ACTIVATIONS_F32, p, err);
    if (!st && p->mapped) { /* the tensor may outlive its source */
        size_t bytes = (size_t)pl_cpu_panel_bytes(p->out, p->in, p->dtype, PL_ACTIVATIONS_F32);
        own = pl_cpu_alloc(bytes, 1);
        if (own)
            p->data = memcpy(own, p->data, bytes);
        else
            st = pl_fail(err, PL_ENOMEM, "%s: no memory", src->name);
    }
    if (st)
        goto out;
    p->mapped = false;
    *t = (struct pl_tensor){.device = d, .rows = p->out, .cols = p->in, .weight = p};
    *out = t;
    return PL_OK;
out:
    free(p);
    free(t);
    return st;
}

void pl_cpu_tensor_free(struct pl_tensor *t)
{
    if (!t)
        return;
    if (!t->borrowed) {
        free(t->data);
        if (t->weight)
            free(((struct pl_panels *)t->weight)->data);
        free(t->weight);
    }
    free(t);
}

enum pl_status pl_cpu_upload(struct pl_tensor *t, size_t first, size_t n, const float *src,
                             struct pl_err *err)
{
    enum pl_status st = pl_check_rows(t, first, n, err);

    if (!st && n)
        memcpy(t->data + first * t->cols, src, n * t->cols * sizeof(float));
    return st;
}

enum pl_status pl_cpu_download(const struct pl_tensor *t, size_t first, size_t n, float *dst,
                               struct pl_err *err)
{
    enum pl_status st = pl_check_rows(t, first, n, err);

    if (!st && n)
        memcpy(dst, t->data + first * t->cols, n * t->cols * sizeof(float));
    return st;
}

enum pl_status pl_cpu_copy(struct pl_tensor *y, size_t y_first, const struct pl_tensor *x,
                           size_t x_first, size_t n, struct pl_err *err)
{
    enum pl_status st = pl_check_copy(y, y_first, x, x_first, n, err);

    if (!st && n)
        memcpy(y->data + y_first * y->cols, x->data + x_first * x->cols,
               n * x->cols * sizeof(float));
    return st;
}

struct linear {
    struct pl_device *device;
    struct pl_gemm g;
    size_t panels;
    const struct pl_panels *weight;
};

static void linear_part(void *arg, int m, int members)
{
    const struct linear *l = arg;
    struct pl_gemm g = l->g;

    pl_pool_share(l->panels, m, members, &g.first, &g.end);
    pl_cpu_gemm_rows(l->device, &g, l->weight, m);
}

enum pl_status pl_cpu_linear(struct pl_tensor *y, const struct pl_tensor *x,
                             const struct pl_tensor *w, const struct pl_tensor *bias,
                             struct pl_err *err)
{
    enum pl_status st = pl_check_linear(y, x, w, bias, err);
    const struct pl_panels *p = w->weight;
    struct linear l = {
        .device = y->device, .weight = p, .panels = (w->rows + PL_PANEL - 1) / PL_PANEL};

    if (st)
        return st;
    l.g = (struct pl_gemm){.x = x->data,
                           .ldx = x->cols,
                           .rows = x->rows,
                           .y = y->data,
                           .ldy = y->cols,
                           .bias = bias ? bias->data : NULL};
    pl_cpu_gemm_weight(&l.g, p);
    pl_pool_run(y->device->pool, linear_part, &l);
    return PL_OK;
}

enum pl_status pl_cpu_norm(enum pl_norm_kind kind, float eps, struct pl_tensor *y,
                           const struct pl_tensor *x, const struct pl_tensor *gain,
                           const struct pl_tensor *bias, struct pl_err *err)
{
    enum pl_status st = pl_check_norm(y, x, gain, bias, err);

    for (size_t r = 0; r < x->rows && !st; r++)
        y->device->kernels->norm(kind, eps, y->data + r * y->cols, x->data + r * x->cols,
                                 gain->data, bias ? bias->data : NULL, x->cols);
    return st;
}

enum pl_status pl_cpu_activate(enum pl_act_kind act, struct pl_tensor *y, const struct pl_tensor *x,
                               struct pl_err *err)
{
    enum pl_status st = pl_check_rowwise("activate", "output and input", y, x, err);

    if (!st)
        y->device->kernels->act(act, y->data, x->data, NULL, x->rows * x->cols);
    return st;
}

enum pl_status pl_cpu_axpby(float a, const struct pl_tensor *x, float b, struct pl_tensor *y,
                            struct pl_err *err)
{
    enum pl_status st = pl_check_rowwise("axpby", "y and x", y, x, err);

    for (size_t i = 0; i < x->rows * x->cols && !st; i++)
        y->data[i] = b != 0 ? a * x->data[i] + b * y->data[i] : a * x->data[i];
    return st;
}

/* One query row of one head over `len` keys, by two passes over the scores in p[len]. */
static void attend_row(float *y, const float *q, const struct pl_tensor *k,
                       const struct pl_tensor *v, size_t at, size_t dim, size_t len, float *p)
{
    float scale = 1.0f / sqrtf((float)dim), max = -INFINITY, sum = 0;

    for (size_t j = 0; j < len; j++) {
        float dot = 0;
        for (size_t d = 0; d < dim; d++)
            dot += q[d] * k->data[j * k->cols + at + d];
        p[j] = dot * scale;
        max = p[j] > max ? p[j] : max;
    }
    for (size_t j = 0; j < len; j++) {
        p[j] = expf(p[j] - max);
        sum += p[j];
    }
    memset(y, 0, dim * sizeof(*y));
    for (size_t j = 0; j < len; j++)
        for (size_t d = 0; d < dim; d++)
            y[d] += p[j] / sum * v->data[j * v->cols + at + d];
}

enum pl_status pl_cpu_attention(struct pl_tensor *y, const struct pl_tensor *q,
                                const struct pl_tensor *k, const struct pl_tensor *v, size_t heads,
                                bool causal, struct pl_err *err)
{
    enum pl_status st = pl_check_attention(y, q, k, v, heads, causal, err);
    size_t dim = st ? 0 : q->cols / heads;
    float *p;

    if (st)
        return st;
    p = pl_cpu_alloc(k->rows, sizeof(*p));
    if (!p)
        return pl_fail(err, PL_ENOMEM, "attention: no memory for %zu scores", k->rows);
    for (size_t r = 0; r < q->rows; r++)
        for (size_t h = 0; h < heads; h++)
            attend_row(y->data + r * y->cols + h * dim, q->data + r * q->cols + h * dim, k, v,
                       h * dim, dim, causal ? k->rows - q->rows + r + 1 : k->rows, p);
    free(p);
    pl_cpu_count(y->device,
                 4 * q->cols *
                     (causal ? q->rows * (k->rows - q->rows) + q->rows * (q->rows + 1) / 2
                             : q->rows * k->rows),
                 0);
    return PL_OK;
}

/* The k-th largest rank by four passes of 256 buckets; *ties: how many of that rank are among the
 * k. */
static uint32_t kth_rank(const float *x, size_t n, size_t k, size_t *ties)
{
    uint32_t prefix = 0, mask = 0;

    for (int shift = 24; shift >= 0; shift -= 8) {
        size_t count[256] = {0};
        int b = 255;
        for (size_t i = 0; i < n; i++)
            if ((pl_float_rank(x[i]) & mask) == prefix)
                count[pl_float_rank(x[i]) >> shift & 255]++;
        for (; count[b] < k; b--)
            k -= count[b];
        prefix |= (uint32_t)b << shift;
        mask |= UINT32_C(255) << shift;
    }
    *ties = k;
    return prefix;
}

enum pl_status pl_cpu_topk(const struct pl_tensor *x, size_t k, int32_t *idx, struct pl_err *err)
{
    enum pl_status st = pl_check_topk(x, k, err);
    size_t ties, out = 0;
    uint32_t least;

    if (st)
        return st;
    least = kth_rank(x->data, x->cols, k, &ties);
    for (size_t i = 0; i < x->cols; i++) {
        uint32_t r = pl_float_rank(x->data[i]);
        if (r > least || (r == least && ties && ties--))
            idx[out++] = (int32_t)i;
    }
    return PL_OK;
}

enum pl_status pl_cpu_gather(struct pl_tensor *y, const struct pl_tensor *x, const int32_t *idx,
                             size_t n, struct pl_err *err)
{
    enum pl_status st = pl_check_gather(y, x, idx, n, err);

    for (size_t i = 0; i < n && !st; i++)
        memmove(y->data + i * y->cols, x->data + (size_t)idx[i] * x->cols, x->cols * sizeof(float));
    return st;
}

enum pl_status pl_cpu_argmax(const struct pl_tensor *x, int32_t *idx, struct pl_err *err)
{
    enum pl_status st = pl_check_argmax(x, err);

    for (size_t r = 0; r < x->rows && !st; r++) {
        const float *row = x->data + r * x->cols;
        int32_t best = row[0] == row[0] ? 0 : -1;
        for (size_t c = 1; c < x->cols && best >= 0; c++)
            best = row[c] != row[c] ? -1 : row[c] > row[best] ? (int32_t)c : best;
        idx[r] = best;
    }
    return st;
}
