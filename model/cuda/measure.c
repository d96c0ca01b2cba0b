/* What a GPU is, can do at most, has of memory and says of time. */
#include "model/cuda/cuda.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define DEVICES 64
#define READ_BYTES ((size_t)4 << 30) /* several times any L2 */
#define PRODUCT 8192                 /* side of the matrices multiplied */
#define RUNS 5
#define RUNS_NS 300000000 /* … or so long */

static _Atomic int64_t peaks[DEVICES];

static int current(void)
{
    int d = 0;

    return cudaGetDevice(&d) == cudaSuccess && d >= 0 && d < DEVICES ? d : 0;
}

static int64_t used_now(int64_t *total)
{
    size_t free = 0, all = 0;

    if (cudaMemGetInfo(&free, &all) != cudaSuccess) {
        cudaGetLastError();
        all = free = 0;
    }
    if (total)
        *total = (int64_t)all;
    return (int64_t)(all - free);
}

static int64_t raise_peak(int d, int64_t used)
{
    int64_t was = atomic_load(&peaks[d]);

    while (used > was && !atomic_compare_exchange_weak(&peaks[d], &was, used))
        ;
    return used > was ? used : was;
}

void pl_cuda_note_memory(void)
{
    raise_peak(current(), used_now(NULL));
}

void pl_cuda_memory(struct pl_device *d, bool reset, struct pl_device_memory *out)
{
    int at = d->ordinal < DEVICES ? d->ordinal : 0;

    cudaSetDevice(d->ordinal);
    memset(out, 0, sizeof(*out));
    out->used = used_now(&out->total);
    if (reset)
        atomic_store(&peaks[at], out->used);
    out->peak = raise_peak(at, out->used);
}

static void uuid_text(const cudaUUID_t *u, char *out, size_t size)
{
    const unsigned char *b = (const unsigned char *)u->bytes;

    snprintf(out, size, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
             b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
             b[14], b[15]);
}

size_t pl_cuda_list(struct pl_device_info *out, size_t max)
{
    struct cudaDeviceProp p;
    int n = 0;
    size_t there = 0;

    if (cudaGetDeviceCount(&n) != cudaSuccess) {
        cudaGetLastError();
        return 0;
    }
    for (int i = 0; i < n && there < max; i++) {
        struct pl_device_info *d = &out[there];
        if (cudaGetDeviceProperties(&p, i) != cudaSuccess) {
            cudaGetLastError();
            continue;
        }
        memset(d, 0, sizeof(*d));
        snprintf(d->kind, sizeof(d->kind), "cuda");
        snprintf(d->name, sizeof(d->name), "%.60s", p.name);
        uuid_text(&p.uuid, d->uuid, sizeof(d->uuid));
        d->bytes = (int64_t)p.totalGlobalMem;
        there++;
    }
    return there;
}

const char *pl_cuda_version(void)
{
    static char text[16]; /* the same each time */
    int v = 0;

    if (cudaRuntimeGetVersion(&v) != cudaSuccess)
        cudaGetLastError();
    snprintf(text, sizeof(text), "%d.%d", v / 1000, v % 1000 / 10);
    return text;
}

void pl_cuda_mark(struct pl_device *d, int i)
{
    cudaSetDevice(d->ordinal);
    if (!d->marks[i] && cudaEventCreate(&d->marks[i]) != cudaSuccess) {
        cudaGetLastError();
        d->marks[i] = NULL;
    }
    if (d->marks[i] && cudaEventRecord(d->marks[i], d->stream) != cudaSuccess)
        cudaGetLastError();
}

int64_t pl_cuda_between(struct pl_device *d, int from, int to)
{
    float ms = 0;

    if (!d->marks[from] || !d->marks[to] || cudaEventSynchronize(d->marks[to]) != cudaSuccess ||
        cudaEventElapsedTime(&ms, d->marks[from], d->marks[to]) != cudaSuccess) {
        cudaGetLastError();
        return -1;
    }
    return (int64_t)((double)ms * 1e6);
}

void pl_cuda_marks_free(struct pl_device *d)
{
    for (int i = 0; i < PL_DEVICE_MARKS; i++)
        if (d->marks[i])
            cudaEventDestroy(d->marks[i]);
}

/* Seconds of the fastest of several runs, by the device's clock; the first warms up. */
static enum pl_status fastest(struct pl_device *d, enum pl_status (*run)(void *, struct pl_err *),
                              void *what, double *seconds, struct pl_err *err)
{
    enum pl_status st = PL_OK;
    int64_t best = 0, spent = 0;

    for (int i = 0; i <= RUNS && !st && (i < 2 || spent < RUNS_NS); i++) {
        pl_cuda_mark(d, 0);
        st = run(what, err);
        pl_cuda_mark(d, 1);
        if (!st)
            st = pl_cuda_sync(d, "ceilings", err);
        int64_t ns = st ? 0 : pl_cuda_between(d, 0, 1);
        spent += ns;
        if (i && ns > 0 && (!best || ns < best))
            best = ns;
    }
    if (!st && !best)
        st = pl_fail(err, PL_EDEVICE, "ceilings: the device's clock says nothing");
    *seconds = (double)best / 1e9;
    return st;
}

struct work {
    struct pl_device *d;
    void *room;
    size_t bytes;
    struct pl_cuda_gemm_call product;
};

static enum pl_status read_room(void *p, struct pl_err *err)
{
    const struct work *w = p;
    (void)err;
    pl_k_read(w->room, (int64_t)(w->bytes / 16), 0x9e3779b9u, (uint32_t *)w->room, w->d->sms * 16,
              w->d->stream);
    return PL_OK;
}

static enum pl_status multiply(void *p, struct pl_err *err)
{
    const struct work *w = p;

    return pl_cuda_gemm_run(w->d->gemm, &w->product, w->d->stream, err);
}

/* Both run on one buffer of random bf16: numbers that are zero run faster than a model's. */
enum pl_status pl_cuda_ceilings(struct pl_device *d, struct pl_device_ceilings *out,
                                struct pl_err *err)
{
    struct pl_device_ceilings c = {.read_bytes_per_s = 0};
    struct work w = {.d = d};
    size_t free = 0, total = 0, side = PRODUCT;
    double seconds;
    enum pl_status st = pl_cuda_enter(d, "ceilings", err);

    if (!st)
        st = pl_cuda_check(cudaMemGetInfo(&free, &total), "ceilings", err);
    if (st)
        return st;
    w.bytes = READ_BYTES < free / 16 ? READ_BYTES : free / 16 / 256 * 256;
    while (side > 256 && 8 * side * side > w.bytes) /* two of bf16, one of f32 */
        side /= 2;
    st = pl_cuda_alloc(&w.room, w.bytes, "ceilings", err);
    if (st)
        return st;
    pl_k_random(PL_DT_BF16, w.room, (int64_t)(w.bytes / 2), 1, 1.0f, d->stream);
    w.product = (struct pl_cuda_gemm_call){.dtype = PL_DT_BF16,
                                           .w = w.room,
                                           .x = (char *)w.room + 2 * side * side,
                                           .y = (float *)(void *)((char *)w.room + 4 * side * side),
                                           .out = (int64_t)side,
                                           .in = (int64_t)side,
                                           .rows = (int64_t)side,
                                           .ldy = (int64_t)side};
    st = fastest(d, read_room, &w, &seconds, err);
    if (!st)
        c.read_bytes_per_s = (double)w.bytes / seconds;
    if (!st)
        st = fastest(d, multiply, &w, &seconds, err);
    if (!st) {
        c.flop_per_s = 2 * (double)side * (double)side * (double)side / seconds;
        snprintf(c.kind, sizeof(c.kind), "bf16 product of %zu", side);
        *out = c;
    }
    cudaFree(w.room);
    return st;
}
