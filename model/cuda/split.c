/*
 * Two lanes on one GPU, each on multiprocessors of its own: green contexts, by the driver's own
 * functions, which are asked for when they are wanted (CUDA 12.5 has all of them), so that nothing
 * is linked to and an older driver says so. Both share the GPU's memory and its primary context;
 * what differs is the stream that work is launched on. A graph keeps the multiprocessors that it
 * was captured on, so that `part` tells graphs apart.
 */
#include "model/cuda/cuda.h"

#include <cuda.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

struct pl_cuda_part {
    struct pl_cuda_part *next;
    int id; /* of both halves of a split; > 0 */
    int sms, all;
    double share; /* that was asked for, of the second's */
    bool second;
    cudaStream_t stream;
#if CUDART_VERSION >= 12050
    CUgreenCtx context;
    CUresult (*destroy)(CUgreenCtx);
#endif
};

#if CUDART_VERSION >= 12050

#define VERSION 12050 /* of the functions: their structures are that version's */

/* X(function) */
#define FUNCTIONS(X)                                                                               \
    X(cuDeviceGet)                                                                                 \
    X(cuDeviceGetDevResource)                                                                      \
    X(cuDevSmResourceSplitByCount)                                                                 \
    X(cuDevResourceGenerateDesc)                                                                   \
    X(cuGreenCtxCreate)                                                                            \
    X(cuGreenCtxDestroy)                                                                           \
    X(cuGreenCtxStreamCreate)                                                                      \
    X(cuGetErrorString)

struct driver {
#define PL_X(name) __typeof__(name) *name;
    FUNCTIONS(PL_X)
#undef PL_X
};

static enum pl_status find(const char *name, void *to, struct pl_err *err)
{
    enum cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    void **at = to;
    cudaError_t e = cudaGetDriverEntryPointByVersion(name, at, VERSION, cudaEnableDefault, &found);

    if (e == cudaSuccess && found == cudaDriverEntryPointSuccess && *at)
        return PL_OK;
    cudaGetLastError(); /* not the next call's */
    return pl_fail(err, PL_EUNSUPPORTED, "this driver has no %s", name);
}

static enum pl_status open_driver(struct driver *d, struct pl_err *err)
{
    enum pl_status st = PL_OK;

#define PL_X(name)                                                                                 \
    if (!st)                                                                                       \
        st = find(#name, &d->name, err);
    FUNCTIONS(PL_X)
#undef PL_X
    return st;
}

static enum pl_status said(const struct driver *d, CUresult e, const char *what, struct pl_err *err)
{
    const char *text = NULL;

    if (e == CUDA_SUCCESS)
        return PL_OK;
    if (d->cuGetErrorString(e, &text) != CUDA_SUCCESS || !text)
        text = "an error without a text";
    return pl_fail(err, e == CUDA_ERROR_OUT_OF_MEMORY ? PL_ENOMEM : PL_EUNSUPPORTED, "%s: %s", what,
                   text);
}

/* Whether the two streams wait for each other, as lanes that change over make them. */
static enum pl_status try_streams(struct pl_device *d, cudaStream_t part, struct pl_err *err)
{
    cudaStream_t const way[] = {d->whole, part, d->whole};
    enum pl_status st = PL_OK;
    cudaEvent_t e = NULL;

    st = pl_cuda_check(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "an event", err);
    for (int i = 0; i < 2 && !st; i++) {
        st = pl_cuda_check(cudaEventRecord(e, way[i]), "an event of a part's stream", err);
        if (!st)
            st = pl_cuda_check(cudaStreamWaitEvent(way[i + 1], e, 0), "a part's stream", err);
    }
    if (!st)
        st = pl_cuda_check(cudaStreamSynchronize(d->whole), "a part's stream", err);
    if (e)
        cudaEventDestroy(e);
    if (st)
        cudaGetLastError();
    return st == PL_EDEVICE ? PL_EUNSUPPORTED : st;
}

static void part_free(struct pl_cuda_part *p)
{
    if (!p)
        return;
    if (p->stream)
        cudaStreamDestroy(p->stream);
    if (p->context)
        p->destroy(p->context);
    free(p);
}

static enum pl_status make_part(const struct driver *k, struct pl_device *d, CUdevice gpu,
                                CUdevResource *r, struct pl_cuda_part **out, struct pl_err *err)
{
    struct pl_cuda_part *p = calloc(1, sizeof(*p));
    CUdevResourceDesc desc;
    enum pl_status st;

    if (!p)
        return pl_fail(err, PL_ENOMEM, "no memory for a part of a GPU");
    p->sms = (int)r->sm.smCount;
    p->destroy = k->cuGreenCtxDestroy;
    st = said(k, k->cuDevResourceGenerateDesc(&desc, r, 1), "cuDevResourceGenerateDesc", err);
    if (!st)
        st = said(k, k->cuGreenCtxCreate(&p->context, desc, gpu, CU_GREEN_CTX_DEFAULT_STREAM),
                  "cuGreenCtxCreate", err);
    if (!st)
        st = said(k, k->cuGreenCtxStreamCreate(&p->stream, p->context, CU_STREAM_NON_BLOCKING, 0),
                  "cuGreenCtxStreamCreate", err);
    if (!st)
        st = try_streams(d, p->stream, err);
    if (st)
        part_free(p);
    else
        *out = p;
    return st;
}

/* The multiprocessors as the GPU lets them be shared out: in groups, the second's at least as many
 * as its share. */
static enum pl_status share_out(const struct driver *k, CUdevice gpu, double share,
                                CUdevResource *first, CUdevResource *second, int *all,
                                struct pl_err *err)
{
    CUdevResource whole;
    unsigned groups = 1, want;
    enum pl_status st = said(k, k->cuDeviceGetDevResource(gpu, &whole, CU_DEV_RESOURCE_TYPE_SM),
                             "cuDeviceGetDevResource", err);

    if (st)
        return st;
    *all = (int)whole.sm.smCount;
    want = (unsigned)lround(share * *all);
    want = want < 1 ? 1 : want;
    st = said(k, k->cuDevSmResourceSplitByCount(second, &groups, &whole, first, 0, want),
              "cuDevSmResourceSplitByCount", err);
    if (!st && (groups < 1 || !second->sm.smCount || !first->sm.smCount))
        st = pl_fail(err, PL_EUNSUPPORTED, "%u of %d multiprocessors cannot be set apart", want,
                     *all);
    return st;
}

static enum pl_status make_split(struct pl_device *first, struct pl_device *second, double share,
                                 struct pl_err *err)
{
    static _Atomic int splits;
    struct pl_cuda_part *a = NULL, *b = NULL;
    CUdevResource ra, rb;
    struct driver k;
    CUdevice gpu;
    int all = 0;
    enum pl_status st = pl_cuda_enter(first, "multiprocessors", err);

    if (!st)
        st = open_driver(&k, err);
    if (!st)
        st = said(&k, k.cuDeviceGet(&gpu, first->ordinal), "cuDeviceGet", err);
    if (!st)
        st = share_out(&k, gpu, share, &ra, &rb, &all, err);
    if (!st)
        st = make_part(&k, first, gpu, &ra, &a, err);
    if (!st)
        st = make_part(&k, second, gpu, &rb, &b, err);
    if (st) {
        part_free(a);
        return st;
    }
    a->id = b->id = atomic_fetch_add(&splits, 1) + 1;
    a->all = b->all = all;
    a->share = b->share = share;
    b->second = true;
    a->next = first->parts;
    first->parts = a;
    b->next = second->parts;
    second->parts = b;
    return PL_OK;
}

#else

static void part_free(struct pl_cuda_part *p)
{
    free(p);
}

static enum pl_status make_split(struct pl_device *first, struct pl_device *second, double share,
                                 struct pl_err *err)
{
    (void)first, (void)second, (void)share;
    return pl_fail(err, PL_EUNSUPPORTED, "built with CUDA %d.%d, 12.5 is expected",
                   CUDART_VERSION / 1000, CUDART_VERSION / 10 % 100);
}

#endif

/* The halves of one split that both have: *a, *b. */
static bool find_split(const struct pl_device *first, const struct pl_device *second, double share,
                       struct pl_cuda_part **a, struct pl_cuda_part **b)
{
    for (*a = first->parts; *a; *a = (*a)->next)
        for (*b = second->parts; *b && (*a)->share == share && !(*a)->second; *b = (*b)->next)
            if ((*a)->id == (*b)->id)
                return true;
    return false;
}

enum pl_status pl_cuda_split(struct pl_device *first, struct pl_device *second, double share,
                             struct pl_device_split *out, struct pl_err *err)
{
    struct pl_cuda_part *a = NULL, *b = NULL;
    enum pl_status st = PL_OK;

    first->part = second->part = NULL;
    *out = (struct pl_device_split){.all = 0};
    if (share <= 0)
        return PL_OK;
    if (first->ordinal != second->ordinal)
        return pl_fail(err, PL_EUNSUPPORTED, "each lane has a GPU of its own");
    if (!find_split(first, second, share, &a, &b)) {
        st = make_split(first, second, share, err);
        if (!st && !find_split(first, second, share, &a, &b))
            st = pl_fail(err, PL_EDEVICE, "a split that is not there");
    }
    if (st)
        return st;
    first->part = a;
    second->part = b;
    *out = (struct pl_device_split){.first = a->sms, .second = b->sms, .all = a->all};
    return PL_OK;
}

enum pl_status pl_cuda_narrow(struct pl_device *d, int part, int parts, struct pl_err *err)
{
    const struct pl_cuda_part *p = parts > 1 ? d->part : NULL;
    cudaStream_t to = p ? p->stream : d->whole;
    enum pl_status st = PL_OK;

    if (parts < 1 || part < 0 || part >= parts)
        return pl_fail(err, PL_ERANGE, "part %d of %d", part, parts);
    if (to == d->stream)
        return PL_OK;
    st = pl_cuda_enter(d, "multiprocessors", err);
    if (!st && !d->fence)
        st = pl_cuda_check(cudaEventCreateWithFlags(&d->fence, cudaEventDisableTiming),
                           "multiprocessors", err);
    if (!st)
        st = pl_cuda_check(cudaEventRecord(d->fence, d->stream), "multiprocessors", err);
    if (!st)
        st = pl_cuda_check(cudaStreamWaitEvent(to, d->fence, 0), "multiprocessors", err);
    if (st)
        return st;
    d->stream = to;
    d->part_id = p ? p->id : 0;
    return PL_OK;
}

void pl_cuda_parts_free(struct pl_device *d)
{
    for (struct pl_cuda_part *p = d->parts, *next; p; p = next) {
        next = p->next;
        part_free(p);
    }
    d->parts = d->part = NULL;
}
