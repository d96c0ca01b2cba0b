#include "model/tensor.h"

#include <stdlib.h>

size_t pl_tensor_rows(const struct pl_tensor *t)
{
    return t->rows;
}

size_t pl_tensor_cols(const struct pl_tensor *t)
{
    return t->cols;
}

enum pl_status pl_tensor_view(const struct pl_tensor *t, size_t first, size_t n,
                              struct pl_tensor **out, struct pl_err *err)
{
    enum pl_status st = pl_check_rows(t, first, n, err);
    struct pl_tensor *v;

    if (st)
        return st;
    v = calloc(1, sizeof(*v));
    if (!v)
        return pl_fail(err, PL_ENOMEM, "no memory for a view");
    *v = *t;
    v->borrowed = true;
    v->rows = n;
    v->data = t->data + first * t->cols;
    *out = v;
    return PL_OK;
}

static enum pl_status misfit(struct pl_err *err, const char *op, const char *what,
                             const struct pl_tensor *a, const struct pl_tensor *b)
{
    return pl_fail(err, PL_ERANGE, "%s: %s do not fit: [%zu, %zu] and [%zu, %zu]", op, what,
                   a->rows, a->cols, b->rows, b->cols);
}

/* Whether y can take one row of `cols` for each of x's. */
static bool takes(const struct pl_tensor *y, const struct pl_tensor *x, size_t cols)
{
    return y->data && x->data && y->rows >= x->rows && y->cols == cols;
}

enum pl_status pl_check_rows(const struct pl_tensor *t, size_t first, size_t n, struct pl_err *err)
{
    if (!t->data)
        return pl_fail(err, PL_EUSAGE, "a weight in the backend's order has no rows to copy");
    if (first > t->rows || n > t->rows - first)
        return pl_fail(err, PL_ERANGE, "rows %zu to %zu of a tensor [%zu, %zu]", first, first + n,
                       t->rows, t->cols);
    return PL_OK;
}

enum pl_status pl_check_copy(const struct pl_tensor *y, size_t y_first, const struct pl_tensor *x,
                             size_t x_first, size_t n, struct pl_err *err)
{
    enum pl_status st = pl_check_rows(x, x_first, n, err);

    if (!st)
        st = pl_check_rows(y, y_first, n, err);
    if (!st && x->cols != y->cols)
        st = misfit(err, "copy", "rows", y, x);
    return st;
}

enum pl_status pl_check_rowwise(const char *op, const char *what, const struct pl_tensor *y,
                                const struct pl_tensor *x, struct pl_err *err)
{
    return takes(y, x, x->cols) ? PL_OK : misfit(err, op, what, y, x);
}

enum pl_status pl_check_linear(const struct pl_tensor *y, const struct pl_tensor *x,
                               const struct pl_tensor *w, const struct pl_tensor *bias,
                               struct pl_err *err)
{
    if (!w->weight)
        return pl_fail(err, PL_EUSAGE, "linear: the weight was not made by weight_create");
    if (!x->data || x->cols != w->cols)
        return misfit(err, "linear", "input and weight", x, w);
    if (!takes(y, x, w->rows))
        return misfit(err, "linear", "output and weight", y, w);
    if (bias && bias->cols != w->rows)
        return misfit(err, "linear", "bias and weight", bias, w);
    return PL_OK;
}

enum pl_status pl_check_norm(const struct pl_tensor *y, const struct pl_tensor *x,
                             const struct pl_tensor *gain, const struct pl_tensor *bias,
                             struct pl_err *err)
{
    if (!takes(y, x, x->cols))
        return misfit(err, "norm", "output and input", y, x);
    if (gain->cols != x->cols || (bias && bias->cols != x->cols))
        return misfit(err, "norm", "gain or bias and input", gain, x);
    return PL_OK;
}

enum pl_status pl_check_attention(const struct pl_tensor *y, const struct pl_tensor *q,
                                  const struct pl_tensor *k, const struct pl_tensor *v,
                                  size_t heads, bool causal, struct pl_err *err)
{
    if (!heads || q->cols % heads)
        return pl_fail(err, PL_ERANGE, "attention: %zu columns are no %zu heads", q->cols, heads);
    if (!takes(y, q, q->cols) || y->data == q->data)
        return misfit(err, "attention", "output and queries", y, q);
    if (k->cols != q->cols || !k->rows || (causal && k->rows < q->rows))
        return misfit(err, "attention", "queries and keys", q, k);
    if (v->cols != k->cols || v->rows != k->rows)
        return misfit(err, "attention", "keys and values", k, v);
    return PL_OK;
}

enum pl_status pl_check_topk(const struct pl_tensor *x, size_t k, struct pl_err *err)
{
    if (!x->data || !x->rows || !k || k > x->cols)
        return pl_fail(err, PL_ERANGE, "topk: %zu of %zu columns", k, x->cols);
    return PL_OK;
}

enum pl_status pl_check_gather(const struct pl_tensor *y, const struct pl_tensor *x,
                               const int32_t *idx, size_t n, struct pl_err *err)
{
    if (!y->data || !x->data || y->cols != x->cols || n > y->rows)
        return misfit(err, "gather", "output and input", y, x);
    for (size_t i = 0; i < n; i++)
        if (idx[i] < 0 || (size_t)idx[i] >= x->rows)
            return pl_fail(err, PL_ERANGE, "gather: row %d of %zu", idx[i], x->rows);
    return PL_OK;
}

enum pl_status pl_check_argmax(const struct pl_tensor *x, struct pl_err *err)
{
    if (!x->data || !x->cols)
        return pl_fail(err, PL_ERANGE, "argmax of a tensor without columns");
    return PL_OK;
}
