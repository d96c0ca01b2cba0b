/* cuBLASLt's part, by plain loops. As with it, what was made on one GPU works while that one is current. */
#include "model/cuda/cuda.h"

#include <stdlib.h>

struct pl_cuda_gemm {
    int gpu;
};

enum pl_status pl_cuda_gemm_create(struct pl_cuda_gemm **out, struct pl_err *err)
{
    struct pl_cuda_gemm *g = calloc(1, sizeof(*g));

    if (!g)
        return pl_fail(err, PL_ENOMEM, "no memory");
    *out = g;
    return pl_cuda_check(cudaGetDevice(&g->gpu), "gemm", err);
}

void pl_cuda_gemm_free(struct pl_cuda_gemm *g)
{
    free(g);
}

/* n numbers of dt in f32: decoded once, since a call for each number took most of a test's time. */
static float *decoded(enum pl_dtype dt, const void *p, int64_t n)
{
    float *f = malloc((size_t)n * sizeof(*f) + 1);

    if (f)
        pl_dtype_to_f32(dt, p, f, (size_t)n);
    return f;
}

static void multiply(const void *arg)
{
    const struct pl_cuda_gemm_call *c = arg;
    float *x = decoded(c->dtype, c->x, c->rows * c->in);
    float *w = decoded(c->dtype, c->w, c->out * c->in);

    if (!x || !w)
        abort();
    for (int64_t r = 0; r < c->rows; r++)
        for (int64_t o = 0; o < c->out; o++) {
            const int64_t at = r * c->ldy + o;
            float sum = 0;
            for (int64_t k = 0; k < c->in; k++)
                sum += x[r * c->in + k] * w[o * c->in + k];
            if (c->to == PL_DT_BF16)
                ((uint16_t *)c->y)[at] = pl_f32_to_bf16(sum);
            else if (c->to == PL_DT_F16)
                ((uint16_t *)c->y)[at] = pl_f32_to_f16(sum);
            else
                ((float *)c->y)[at] = c->add ? ((float *)c->y)[at] + sum : sum;
        }
    free(x);
    free(w);
}

enum pl_status pl_cuda_gemm_run(struct pl_cuda_gemm *g, const struct pl_cuda_gemm_call *c,
                                cudaStream_t s, struct pl_err *err)
{
    int gpu = -1;

    if (cudaGetDevice(&gpu) || gpu != g->gpu)
        return pl_fail(err, PL_EDEVICE, "gemm of GPU %d while GPU %d is current", g->gpu, gpu);
    pl_emu_host_work(s, multiply, c, sizeof(*c));
    return PL_OK;
}
