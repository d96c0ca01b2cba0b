/* What the files of a forward share: one on its way, and its steps. A step does nothing once `st`
 * is set. */
#ifndef PL_MODEL_CUDA_RUN_H
#define PL_MODEL_CUDA_RUN_H

#include "model/cuda/cuda.h"
#include "model/cuda/profile.h"

#define PL_CUDA_FINAL (-1) /* the tap behind the final norm */

/* One forward or encode on its way: what every step needs. */
struct pl_cuda_run {
    struct pl_network *n;
    const struct pl_forward *f;
    struct pl_cuda_step step;  /* with the device's addresses */
    struct pl_cuda_step cross; /* the same rows, with K and V of the source */
    struct pl_cuda_step paths; /* a tree's rows, each a sequence of its own */
    bool by_path;              /* then: they are attended so (path.c) */
    int32_t rows, max_span, splits, cross_splits, longest;
    int32_t chunk;       /* keys of a split at fixed places; 0: they are where it suits */
    bool gemm;           /* inputs of products are of `act`, not f32 */
    enum pl_dtype input; /* f32, or act */
    const float *mask;
    const struct pl_cuda_burst *burst; /* the device goes on by itself; NULL: it does not */
    enum pl_status st;
    struct pl_err *err;
};

void pl_cuda_run_begin(struct pl_cuda_run *r, struct pl_network *n, const struct pl_forward *f,
                       size_t rows, struct pl_err *err);
/* Writes the step on the host and sends it: the layers' K and V, then those of the source. */
PL_MUST_CHECK
enum pl_status pl_cuda_run_send(struct pl_cuda_run *r, const struct pl_source *source);
/* path.c: behind it, for a tree whose logits are to be decodes'; and such a tree's attention. */
void pl_cuda_paths_send(struct pl_cuda_run *r);
void pl_cuda_paths_attend(struct pl_cuda_run *r, const struct pl_cuda_attend *all);
/* forward.c, for burst.c: whether the forward can be run and of how many rows; then, of few rows of
 * ids through all layers, the parts of their keys, input, layers, head and choice, by a graph where
 * there can be one; then, before they are in the caches, the work of its attention to sequence s.
 */
PL_MUST_CHECK
enum pl_status pl_cuda_run_check(struct pl_network *n, const struct pl_forward *f, size_t *rows,
                                 struct pl_err *err);
void pl_cuda_run_few(struct pl_cuda_run *r);
struct pl_device_work pl_cuda_run_count(const struct pl_cuda_run *r, size_t s);
/* Behind all that was launched since pl_cuda_run_send, whether it went well or not. */
void pl_cuda_run_over(const struct pl_cuda_run *r);
/* Parts that the keys are split in, so that all multiprocessors have work; 1 where rows suffice. */
int32_t pl_cuda_run_splits(const struct pl_cuda_run *r, int32_t longest);
/* The rows' embeddings, or the cache's stage rows, into x. */
void pl_cuda_run_input(struct pl_cuda_run *r, const struct pl_source *source);
void pl_cuda_run_layer(struct pl_cuda_run *r, int32_t l);
/* x normed in place. */
void pl_cuda_run_norm(struct pl_cuda_run *r, const float *gain, const float *bias);
/* Rows of x to every tap of this layer (1-based; PL_CUDA_FINAL). */
void pl_cuda_run_taps(struct pl_cuda_run *r, int layer);
/* x in the type that products read. */
const void *pl_cuda_run_as_input(struct pl_cuda_run *r);
void pl_cuda_run_product(struct pl_cuda_run *r, const struct pl_cuda_matrix *w, const void *x,
                         float *y, bool add);
struct pl_cuda_heads pl_cuda_run_heads(const struct pl_cuda_run *r, int32_t l);
PL_MUST_CHECK
enum pl_status pl_cuda_run_copy(struct pl_cuda_run *r, float *to, const float *from, size_t n,
                                enum cudaMemcpyKind kind);

#endif
