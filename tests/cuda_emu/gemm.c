/* cuBLASLt's part, by plain loops. */
#include "model/cuda/cuda.h"

struct pl_cuda_gemm {
    int unused;
};

static struct pl_cuda_gemm only;

enum pl_status pl_cuda_gemm_create(struct pl_cuda_gemm **out, struct pl_err *err)
{
    (void)err;
    *out = &only;
    return PL_OK;
}

void pl_cuda_gemm_free(struct pl_cuda_gemm *g)
{
    (void)g;
}

static float at(enum pl_dtype dt, const void *p, int64_t i)
{
    float f;

    pl_dtype_to_f32(dt, (const char *)p + pl_dtype_bytes(dt, (size_t)i), &f, 1);
    return f;
}

enum pl_status pl_cuda_gemm_run(struct pl_cuda_gemm *g, const struct pl_cuda_gemm_call *c,
                                cudaStream_t s, struct pl_err *err)
{
    (void)g, (void)s, (void)err;
    for (int64_t r = 0; r < c->rows; r++)
        for (int64_t o = 0; o < c->out; o++) {
            float sum = 0, *y = c->y + r * c->ldy + o;
            for (int64_t k = 0; k < c->in; k++)
                sum += at(c->dtype, c->x, r * c->in + k) * at(c->dtype, c->w, o * c->in + k);
            *y = c->add ? *y + sum : sum;
        }
    return PL_OK;
}
