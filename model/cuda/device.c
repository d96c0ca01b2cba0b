#include "model/cuda/profile.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum pl_status pl_cuda_check(cudaError_t e, const char *what, struct pl_err *err)
{
    if (e == cudaSuccess)
        return PL_OK;
    cudaGetLastError(); /* told here, and not by the next call again */
    return pl_fail(err, e == cudaErrorMemoryAllocation ? PL_ENOMEM : PL_EDEVICE, "%s: CUDA: %s",
                   what, cudaGetErrorString(e));
}

enum pl_status pl_cuda_enter(const struct pl_device *d, const char *what, struct pl_err *err)
{
    return pl_cuda_check(cudaSetDevice(d->ordinal), what, err);
}

/* For tests: PACELINE_CUDA_FAULT=alloc:N fails the N-th allocation of the process for want of
 * memory, sync:N the N-th wait and all later ones, as a GPU does that was lost. */
static bool planted(const char *kind, _Atomic long *calls, bool stays)
{
    const char *s = getenv("PACELINE_CUDA_FAULT");
    size_t n = strlen(kind);
    long at = s && !strncmp(s, kind, n) && s[n] == ':' ? strtol(s + n + 1, NULL, 10) : 0;
    long call = at > 0 ? atomic_fetch_add(calls, 1) + 1 : 0;

    return at > 0 && (call == at || (stays && call > at));
}

enum pl_status pl_cuda_sync(struct pl_device *d, const char *what, struct pl_err *err)
{
    static _Atomic long calls;
    cudaError_t launched = cudaGetLastError(), e = cudaStreamSynchronize(d->stream);

    if (planted("sync", &calls, true))
        e = cudaErrorIllegalAddress;

    return pl_cuda_check(launched != cudaSuccess ? launched : e, what, err);
}

enum pl_status pl_cuda_loaded(struct pl_device *d, const char *what, struct pl_err *err)
{
    enum pl_status st = pl_cuda_check(cudaStreamSynchronize(NULL), what, err);

    return st ? st : pl_cuda_sync(d, what, err);
}

static enum pl_status allocate(cudaError_t (*give)(void **, size_t), const char *kind, void **out,
                               size_t bytes, const char *what, struct pl_err *err)
{
    static _Atomic long calls;
    enum pl_status st;
    void *p = NULL;

    st = pl_cuda_check(planted("alloc", &calls, false) ? cudaErrorMemoryAllocation
                                                       : give(&p, bytes ? bytes : 1),
                       what, err);
    if (st)
        return pl_err_prefix(err, st, "%zu bytes of %s memory", bytes, kind);
    *out = p;
    return PL_OK;
}

static cudaError_t on_device(void **p, size_t bytes)
{
    return cudaMalloc(p, bytes);
}

static cudaError_t on_host(void **p, size_t bytes)
{
    return cudaMallocHost(p, bytes);
}

enum pl_status pl_cuda_alloc(void **out, size_t bytes, const char *what, struct pl_err *err)
{
    enum pl_status st = allocate(on_device, "device", out, bytes, what, err);

    if (!st)
        pl_cuda_note_memory();
    return st;
}

enum pl_status pl_cuda_alloc_host(void **out, size_t bytes, const char *what, struct pl_err *err)
{
    return allocate(on_host, "pinned", out, bytes, what, err);
}

enum pl_status pl_cuda_scratch(struct pl_device *d, size_t bytes, struct pl_err *err)
{
    enum pl_status st;
    void *p;

    if (bytes <= d->scratch_bytes)
        return PL_OK;
    st = pl_cuda_sync(d, "scratch", err);
    if (!st)
        st = pl_cuda_alloc(&p, bytes, "scratch", err);
    if (st)
        return st;
    cudaFree(d->scratch);
    d->scratch = p;
    d->scratch_bytes = bytes;
    return PL_OK;
}

static void device_close(struct pl_device *d)
{
    if (!d)
        return;
    cudaSetDevice(d->ordinal);
    pl_cuda_gemm_free(d->gemm);
    pl_cuda_marks_free(d);
    pl_cuda_profile_end(d);
    if (d->fence)
        cudaEventDestroy(d->fence);
    cudaFree(d->scratch);
    pl_cuda_parts_free(d);
    if (d->whole)
        cudaStreamDestroy(d->whole);
    free(d);
}

static enum pl_status device_open(const struct pl_device_opts *o, struct pl_device **out,
                                  struct pl_err *err)
{
    struct pl_device *d = calloc(1, sizeof(*d));
    const char *overlap =
        getenv("PACELINE_CUDA_OVERLAP"); /* off till a GPU says what it is worth */
    struct cudaDeviceProp p;
    enum pl_status st = PL_OK;
    int n = 0;

    if (!d)
        return pl_fail(err, PL_ENOMEM, "no memory for a device");
    d->ordinal = o ? o->ordinal : 0;
    d->exact = o && o->deterministic;
    d->exact_keys = PL_CUDA_EXACT_KEYS;
    d->partials = PL_CUDA_PARTIALS;
    d->graphs = PL_CUDA_GRAPHS;
    d->plain = o && o->isa && !strcmp(o->isa, "portable");
    if (o && o->isa && !d->plain && strcmp(o->isa, "auto"))
        st = pl_fail(err, PL_EUNSUPPORTED,
                     "instruction set \"%.20s\" is not there (auto, portable)", o->isa);
    if (!st)
        st = pl_cuda_check(cudaGetDeviceCount(&n), "no GPU can be used", err);
    if (!st && d->ordinal >= n)
        st = pl_fail(err, PL_ERANGE, "GPU %d of %d", d->ordinal, n);
    if (!st)
        st = pl_cuda_enter(d, "cudaSetDevice", err);
    if (!st)
        st = pl_cuda_check(cudaGetDeviceProperties(&p, d->ordinal), "cudaGetDeviceProperties", err);
    if (!st)
        st = pl_cuda_check(cudaStreamCreateWithFlags(&d->whole, cudaStreamNonBlocking),
                           "cudaStreamCreate", err);
    if (!st)
        st = pl_cuda_gemm_create(&d->gemm, err);
    if (st) {
        device_close(d);
        return st;
    }
    d->stream = d->whole;
    d->sms = p.multiProcessorCount;
    d->major = p.major;
    d->overlap = overlap && !strcmp(overlap, "1") && d->major >= 9;
    pl_k_overlap(d->ordinal, d->overlap);
    snprintf(d->name, sizeof(d->name), "%.60s", p.name);
    *out = d;
    return PL_OK;
}

static void device_describe(const struct pl_device *d, char *out, size_t size)
{
    snprintf(out, size, "%s%s%s%s%s", d->name, d->plain ? ", f32" : "",
             d->exact ? ", deterministic" : "", d->overlap ? ", launches overlapped" : "",
             d->uncaptured ? ", launches not captured" : "");
}

static struct pl_device_work device_work(const struct pl_device *d)
{
    return d->work;
}

static int64_t network_bytes(const struct pl_network *n)
{
    return n->bytes;
}

static const struct pl_tensor *network_head(const struct pl_network *n)
{
    return &n->head_tensor;
}

static const struct pl_tensor *network_final_norm(const struct pl_network *n)
{
    return &n->final_tensor;
}

const struct pl_backend pl_cuda_backend = {
    .name = "cuda",
    .picks = true,
    .max_forward = PL_CUDA_CHUNK,
    .open = device_open,
    .close = device_close,
    .narrow = pl_cuda_narrow,
    .split = pl_cuda_split,
    .work = device_work,
    .describe = device_describe,
    .list = pl_cuda_list,
    .version = pl_cuda_version,
    .ceilings = pl_cuda_ceilings,
    .memory = pl_cuda_memory,
    .mark = pl_cuda_mark,
    .between = pl_cuda_between,
    .profile = pl_cuda_profile,
    .profile_read = pl_cuda_profile_read,
    .tensor_create = pl_cuda_tensor_create,
    .weight_create = pl_cuda_weight_create,
    .tensor_view = pl_tensor_view,
    .tensor_free = pl_cuda_tensor_free,
    .rows = pl_tensor_rows,
    .cols = pl_tensor_cols,
    .upload = pl_cuda_upload,
    .download = pl_cuda_download,
    .copy = pl_cuda_copy,
    .reaches = pl_cuda_reaches,
    .native = pl_cuda_native,
    .address = pl_cuda_address,
    .poll = pl_cuda_poll,
    .linear = pl_cuda_linear,
    .norm = pl_cuda_norm,
    .activate = pl_cuda_activate,
    .axpby = pl_cuda_axpby,
    .attention = pl_cuda_attention,
    .topk = pl_cuda_topk,
    .gather = pl_cuda_gather,
    .argmax = pl_cuda_argmax,
    .pixels = pl_cuda_pixels,
    .network_create = pl_cuda_network_create,
    .network_free = pl_cuda_network_free,
    .network_bytes = network_bytes,
    .network_need = pl_cuda_network_need,
    .network_head = network_head,
    .network_final_norm = network_final_norm,
    .embed = pl_cuda_embed,
    .cache_create = pl_cuda_cache_create,
    .cache_free = pl_cuda_cache_free,
    .cache_bytes = pl_cuda_cache_bytes,
    .cache_need = pl_cuda_cache_need,
    .cache_len = pl_cache_len,
    .cache_reset = pl_cache_reset,
    .cache_can_drop = pl_cache_can_drop,
    .cache_drop = pl_cache_drop,
    .cache_keep = pl_cuda_cache_keep,
    .cache_keep_path = pl_cuda_cache_keep_path,
    .cache_stage = pl_cache_stage,
    .cache_encoded = pl_cache_encoded,
    .cache_sums = pl_cache_sums,
    .cache_sums_clear = pl_cuda_cache_sums_clear,
    .cache_tap = pl_cache_tap,
    .cache_kv_read = pl_cache_kv_read,
    .forward = pl_cuda_forward,
    .generate = pl_cuda_generate,
    .encode = pl_cuda_encode,
    .encode_batch = pl_cuda_encode_batch,
    .pool = pl_cuda_pool,
};
