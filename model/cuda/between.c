/* What goes from one device to another, and what libraries beside this one need to do so. */
#include "model/cuda/cuda.h"

/* Work that `behind` is given from now on waits for what `first` has been given so far. */
static enum pl_status order(struct pl_device *first, struct pl_device *behind, struct pl_err *err)
{
    enum pl_status st = pl_cuda_check(cudaSetDevice(first->ordinal), "copy", err);

    if (!st && !first->fence)
        st = pl_cuda_check(cudaEventCreateWithFlags(&first->fence, cudaEventDisableTiming), "copy",
                           err);
    if (!st)
        st = pl_cuda_check(cudaEventRecord(first->fence, first->stream), "copy", err);
    if (!st)
        st = pl_cuda_check(cudaSetDevice(behind->ordinal), "copy", err);
    if (!st)
        st = pl_cuda_check(cudaStreamWaitEvent(behind->stream, first->fence, 0), "copy", err);
    return st;
}

enum pl_status pl_cuda_copy(struct pl_tensor *y, size_t y_first, const struct pl_tensor *x,
                            size_t x_first, size_t n, struct pl_err *err)
{
    struct pl_device *to = y->device, *from = x->device;
    enum pl_status st = pl_check_copy(y, y_first, x, x_first, n, err);
    const size_t bytes = n * x->cols * sizeof(float);
    float *dst;
    const float *src;

    if (st || !n)
        return st;
    dst = y->data + y_first * y->cols;
    src = x->data + x_first * x->cols;
    if (to != from) /* the receiver may still be reading what is there */
        st = order(to, from, err);
    if (!st && to->ordinal == from->ordinal)
        st = pl_cuda_check(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, from->stream),
                           "copy", err);
    else if (!st)
        st = pl_cuda_check(
            cudaMemcpyPeerAsync(dst, to->ordinal, src, from->ordinal, bytes, from->stream), "copy",
            err);
    if (!st && to != from)
        st = order(from, to, err);
    return st;
}

static enum pl_status reach_one_way(int from, int to, struct pl_err *err)
{
    int can = 0;
    enum pl_status st = pl_cuda_check(cudaDeviceCanAccessPeer(&can, from, to), "peer copy", err);
    cudaError_t e;

    if (!st && !can)
        st = pl_fail(err, PL_EUNSUPPORTED, "peer copy: GPU %d does not reach GPU %d", from, to);
    if (!st)
        st = pl_cuda_check(cudaSetDevice(from), "peer copy", err);
    if (st)
        return st;
    e = cudaDeviceEnablePeerAccess(to, 0);
    if (e == cudaErrorPeerAccessAlreadyEnabled) {
        cudaGetLastError(); /* not the next call's */
        e = cudaSuccess;
    }
    return pl_cuda_check(e, "peer copy", err);
}

enum pl_status pl_cuda_reaches(struct pl_device *from, struct pl_device *to, struct pl_err *err)
{
    enum pl_status st;

    if (from->ordinal == to->ordinal)
        return PL_OK;
    st = reach_one_way(from->ordinal, to->ordinal, err);
    return st ? st : reach_one_way(to->ordinal, from->ordinal, err);
}

enum pl_status pl_cuda_native(struct pl_device *d, struct pl_device_native *out, struct pl_err *err)
{
    *out = (struct pl_device_native){.ordinal = d->ordinal, .stream = d->stream};
    return pl_cuda_check(cudaSetDevice(d->ordinal), "cudaSetDevice", err);
}

float *pl_cuda_address(struct pl_tensor *t)
{
    return t->data;
}

enum pl_status pl_cuda_poll(struct pl_device *d, bool *done, struct pl_err *err)
{
    cudaError_t launched = cudaGetLastError(), e = cudaStreamQuery(d->stream);

    *done = e != cudaErrorNotReady;
    if (!*done)
        cudaGetLastError(); /* the runtime keeps "not ready" like an error */
    return pl_cuda_check(launched != cudaSuccess ? launched
                         : *done                 ? e
                                                 : cudaSuccess,
                         "a device's work", err);
}
