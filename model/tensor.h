/*
 * A tensor as every backend has it, and what the entries of the operation table ask of their
 * operands: a backend adds only where the memory is and what a weight looks like.
 */
#ifndef PL_MODEL_TENSOR_H
#define PL_MODEL_TENSOR_H

#include "model/backend.h"

struct pl_tensor {
    struct pl_device *device;
    size_t rows, cols;
    float *data;   /* [rows, cols] where the device has its memory; NULL for a weight */
    void *weight;  /* NULL, or the matrix in the backend's own order: its own struct */
    bool borrowed; /* a view: the memory is another's */
};

/* Entries of the vtable. */
size_t pl_tensor_rows(const struct pl_tensor *t);
size_t pl_tensor_cols(const struct pl_tensor *t);
enum pl_status pl_tensor_view(const struct pl_tensor *t, size_t first, size_t n,
                              struct pl_tensor **out, struct pl_err *err);

/* That rows [first, first + n) can be copied. */
PL_MUST_CHECK
enum pl_status pl_check_rows(const struct pl_tensor *t, size_t first, size_t n, struct pl_err *err);
/* That n rows of x can be copied to rows of y. */
PL_MUST_CHECK
enum pl_status pl_check_copy(const struct pl_tensor *y, size_t y_first, const struct pl_tensor *x,
                             size_t x_first, size_t n, struct pl_err *err);
/* That y takes a row for each of x's; op and what name them in the error. */
PL_MUST_CHECK
enum pl_status pl_check_rowwise(const char *op, const char *what, const struct pl_tensor *y,
                                const struct pl_tensor *x, struct pl_err *err);
/* The operands of the table's entries. */
PL_MUST_CHECK
enum pl_status pl_check_linear(const struct pl_tensor *y, const struct pl_tensor *x,
                               const struct pl_tensor *w, const struct pl_tensor *bias,
                               struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_check_norm(const struct pl_tensor *y, const struct pl_tensor *x,
                             const struct pl_tensor *gain, const struct pl_tensor *bias,
                             struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_check_attention(const struct pl_tensor *y, const struct pl_tensor *q,
                                  const struct pl_tensor *k, const struct pl_tensor *v,
                                  size_t heads, bool causal, struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_check_topk(const struct pl_tensor *x, size_t k, struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_check_gather(const struct pl_tensor *y, const struct pl_tensor *x,
                               const int32_t *idx, size_t n, struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_check_argmax(const struct pl_tensor *x, struct pl_err *err);

#endif
