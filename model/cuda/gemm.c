#include "model/cuda/cuda.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define WORKSPACE (32u << 20)
#define PLANS 64
#define ALIGNED 256u /* what the library takes for granted unless it is told otherwise */

/* The library is opened when a GPU is: it takes half a second to map, and a program that was built
 * with CUDA starts where there is none. X(name without its prefix) */
#define FUNCTIONS(X)                                                                               \
    X(Create)                                                                                      \
    X(Destroy)                                                                                     \
    X(GetStatusString)                                                                             \
    X(Matmul)                                                                                      \
    X(MatmulAlgoGetHeuristic)                                                                      \
    X(MatmulDescCreate)                                                                            \
    X(MatmulDescDestroy)                                                                           \
    X(MatmulDescSetAttribute)                                                                      \
    X(MatmulPreferenceCreate)                                                                      \
    X(MatmulPreferenceDestroy)                                                                     \
    X(MatmulPreferenceSetAttribute)                                                                \
    X(MatrixLayoutCreate)                                                                          \
    X(MatrixLayoutDestroy)

static struct {
#define PL_X(name) __typeof__(&cublasLt##name) name;
    FUNCTIONS(PL_X)
#undef PL_X
} lib;
static char open_error[256]; /* "" once all of lib is there */
static pthread_once_t opened = PTHREAD_ONCE_INIT;

static void open_library(void)
{
    const char *missing = NULL;
    char name[64];
    void *so;

    snprintf(name, sizeof(name), "libcublasLt.so.%d", CUBLAS_VER_MAJOR);
    so = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!so) {
        snprintf(open_error, sizeof(open_error), "%.250s", dlerror());
        return;
    }
#define PL_X(name)                                                                                 \
    *(void **)&lib.name = dlsym(so, "cublasLt" #name);                                             \
    missing = lib.name ? missing : #name;
    FUNCTIONS(PL_X)
#undef PL_X
    if (missing)
        snprintf(open_error, sizeof(open_error), "%s has no cublasLt%s", name, missing);
}

/* The library's choice for one shape. */
struct plan {
    enum pl_dtype dtype, to;
    int64_t out, in, rows, ldy;
    uint32_t aligned; /* bytes that all three matrices are aligned to, at most ALIGNED */
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulAlgo_t algo;
};

struct pl_cuda_gemm {
    cublasLtHandle_t lt;
    void *workspace;
    struct plan plans[PLANS]; /* a ring: the oldest makes room */
    size_t n_plans;
};

static enum pl_status check(cublasStatus_t st, const char *what, struct pl_err *err)
{
    if (st == CUBLAS_STATUS_SUCCESS)
        return PL_OK;
    return pl_fail(err, st == CUBLAS_STATUS_ALLOC_FAILED ? PL_ENOMEM : PL_EDEVICE, "%s: %s", what,
                   lib.GetStatusString(st));
}

enum pl_status pl_cuda_gemm_create(struct pl_cuda_gemm **out, struct pl_err *err)
{
    struct pl_cuda_gemm *g = calloc(1, sizeof(*g));
    enum pl_status st;

    if (!g)
        return pl_fail(err, PL_ENOMEM, "no memory for cuBLASLt");
    pthread_once(&opened, open_library);
    if (open_error[0]) {
        free(g);
        return pl_fail(err, PL_EUNSUPPORTED, "cuBLASLt: %s", open_error);
    }
    st = check(lib.Create(&g->lt), "cublasLtCreate", err);
    if (!st)
        st = pl_cuda_alloc(&g->workspace, WORKSPACE, "cuBLASLt's workspace", err);
    if (st) {
        pl_cuda_gemm_free(g);
        return st;
    }
    *out = g;
    return PL_OK;
}

static void plan_release(struct plan *p)
{
    lib.MatmulDescDestroy(p->op);
    lib.MatrixLayoutDestroy(p->w);
    lib.MatrixLayoutDestroy(p->x);
    lib.MatrixLayoutDestroy(p->y);
    *p = (struct plan){0};
}

void pl_cuda_gemm_free(struct pl_cuda_gemm *g)
{
    if (!g)
        return;
    for (size_t i = 0; i < g->n_plans && i < PLANS; i++)
        plan_release(&g->plans[i]);
    if (g->lt)
        lib.Destroy(g->lt);
    cudaFree(g->workspace);
    free(g);
}

static cudaDataType_t type_of(enum pl_dtype dt)
{
    return dt == PL_DT_BF16 ? CUDA_R_16BF : dt == PL_DT_F16 ? CUDA_R_16F : CUDA_R_32F;
}

static uint32_t aligned_to(const struct pl_cuda_gemm_call *c)
{
    const uintptr_t all = (uintptr_t)c->w | (uintptr_t)c->x | (uintptr_t)c->y | ALIGNED;

    return (uint32_t)(all & (~all + 1));
}

static cublasStatus_t prefer(cublasLtMatmulPreference_t want, uint32_t aligned)
{
    const cublasLtMatmulPreferenceAttributes_t each[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    const size_t room = WORKSPACE;
    cublasStatus_t st = lib.MatmulPreferenceSetAttribute(
        want, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof(room));

    for (size_t i = 0; i < sizeof(each) / sizeof(each[0]) && !st; i++)
        st = lib.MatmulPreferenceSetAttribute(want, each[i], &aligned, sizeof(aligned));
    return st;
}

/* The library counts columns first: yᵀ[out, rows] = (w, [in, out] to it, transposed) · xᵀ. */
static enum pl_status plan_make(struct pl_cuda_gemm *g, const struct pl_cuda_gemm_call *c,
                                struct plan *p, struct pl_err *err)
{
    const cublasOperation_t transpose = CUBLAS_OP_T;
    cublasLtMatmulPreference_t want = NULL;
    cublasLtMatmulHeuristicResult_t found;
    cublasStatus_t st;
    int n = 0;

    *p = (struct plan){.dtype = c->dtype,
                       .to = c->to,
                       .out = c->out,
                       .in = c->in,
                       .rows = c->rows,
                       .ldy = c->ldy,
                       .aligned = aligned_to(c)};
    st = lib.MatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!st)
        st = lib.MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
                                        sizeof(transpose));
    if (!st)
        st = lib.MatrixLayoutCreate(&p->w, type_of(c->dtype), (uint64_t)c->in, (uint64_t)c->out,
                                    c->in);
    if (!st)
        st = lib.MatrixLayoutCreate(&p->x, type_of(c->dtype), (uint64_t)c->in, (uint64_t)c->rows,
                                    c->in);
    if (!st)
        st = lib.MatrixLayoutCreate(&p->y, type_of(c->to), (uint64_t)c->out, (uint64_t)c->rows,
                                    c->ldy);
    if (!st)
        st = lib.MatmulPreferenceCreate(&want);
    if (!st)
        st = prefer(want, p->aligned);
    if (!st)
        st = lib.MatmulAlgoGetHeuristic(g->lt, p->op, p->w, p->x, p->y, p->y, want, 1, &found, &n);
    if (want)
        lib.MatmulPreferenceDestroy(want);
    if (!st && !n)
        st = CUBLAS_STATUS_NOT_SUPPORTED;
    if (st) {
        plan_release(p);
        return check(st, "cuBLASLt's choice of a kernel", err);
    }
    p->algo = found.algo;
    return PL_OK;
}

static enum pl_status plan_find(struct pl_cuda_gemm *g, const struct pl_cuda_gemm_call *c,
                                struct plan **out, struct pl_err *err)
{
    enum pl_status st;
    struct plan fresh;

    for (size_t i = 0; i < g->n_plans && i < PLANS; i++) {
        struct plan *p = &g->plans[i];
        if (p->dtype == c->dtype && p->to == c->to && p->out == c->out && p->in == c->in &&
            p->rows == c->rows && p->ldy == c->ldy && p->aligned == aligned_to(c)) {
            *out = p;
            return PL_OK;
        }
    }
    st = plan_make(g, c, &fresh, err);
    if (st)
        return st;
    *out = &g->plans[g->n_plans % PLANS];
    if (g->n_plans++ >= PLANS)
        plan_release(*out);
    **out = fresh;
    return PL_OK;
}

enum pl_status pl_cuda_gemm_run(struct pl_cuda_gemm *g, const struct pl_cuda_gemm_call *c,
                                cudaStream_t s, struct pl_err *err)
{
    const float one = 1, beta = c->add ? 1 : 0;
    enum pl_status st;
    struct plan *p;

    st = plan_find(g, c, &p, err);
    if (st)
        return st;
    return check(lib.Matmul(g->lt, p->op, &one, c->w, p->w, c->x, p->x, &beta, c->y, p->y, c->y,
                            p->y, &p->algo, g->workspace, WORKSPACE, s),
                 "cublasLtMatmul", err);
}
