/* GPUs and their memory, and what the runtime says of errors. */
#include "emu.hpp"

#include <stdio.h>
#include <stdlib.h>
#include <malloc.h>

#include <map>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

static const size_t MEMORY = (size_t)96 << 20; /* what each says it has; it gives as much as is asked for */

struct block {
    int gpu;
    size_t bytes;
    bool pinned;
};
static std::mutex memory; /* of what stands below */
static std::map<void *, block> &blocks = *new std::map<void *, block>;
static size_t in_use[PL_EMU_MOST_GPUS];
static bool reached[PL_EMU_MOST_GPUS][PL_EMU_MOST_GPUS];
static thread_local cudaError_t last_error;
static thread_local int current_gpu;

cudaError_t pl_emu_give(cudaError_t e)
{
    if (e != cudaSuccess)
        last_error = e;
    return e;
}

int pl_emu_number(const char *name, int otherwise)
{
    const char *said = getenv(name);

    return said && *said ? atoi(said) : otherwise;
}

int pl_emu_gpus()
{
    int n = pl_emu_number("PACELINE_EMULATED_GPUS", 1);

    return n < 1 ? 1 : n < PL_EMU_MOST_GPUS ? n : PL_EMU_MOST_GPUS;
}

int pl_emu_gpu()
{
    return current_gpu;
}

void pl_emu_hide_others(int gpu, bool hidden)
{
#if defined(__SANITIZE_ADDRESS__)
    std::lock_guard<std::mutex> hold(memory);

    for (auto &b : blocks)
        if (b.second.gpu != gpu && !b.second.pinned) {
            if (hidden)
                __asan_poison_memory_region(b.first, b.second.bytes);
            else
                __asan_unpoison_memory_region(b.first, b.second.bytes);
        }
#else
    (void)gpu;
    (void)hidden;
#endif
}

/* The allocation that p lies in, or blocks.end(); `memory` is held. */
static std::map<void *, block>::iterator around(const void *p)
{
    auto b = blocks.upper_bound(const_cast<void *>(p));

    if (b == blocks.begin())
        return blocks.end();
    --b;
    return (const char *)p <= (const char *)b->first + b->second.bytes ? b : blocks.end();
}

bool pl_emu_owns(int gpu, const void *p, size_t n)
{
    std::lock_guard<std::mutex> hold(memory);
    auto b = around(p);

    return b != blocks.end() && (gpu < 0 || b->second.gpu == gpu) && !b->second.pinned && (const char *)p + n <= (const char *)b->first + b->second.bytes;
}

bool pl_emu_pinned(const void *p)
{
    std::lock_guard<std::mutex> hold(memory);
    auto b = around(p);

    return b != blocks.end() && b->second.pinned;
}

cudaError_t cudaRuntimeGetVersion(int *v)
{
    *v = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = pl_emu_gpus();
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int ordinal)
{
    if (ordinal < 0 || ordinal >= pl_emu_gpus())
        return pl_emu_give(cudaErrorInvalidDevice);
    current_gpu = ordinal;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int ordinal)
{
    if (ordinal < 0 || ordinal >= pl_emu_gpus())
        return pl_emu_give(cudaErrorInvalidDevice);
    *p = cudaDeviceProp();
    snprintf(p->name, sizeof(p->name), "emulated on the CPU");
    p->major = pl_emu_number("PACELINE_EMULATED_MAJOR", 8);
    p->multiProcessorCount = 4;
    p->totalGlobalMem = MEMORY;
    memcpy(p->uuid.bytes, "\xe0" "emulated GPU 0", 15);
    p->uuid.bytes[14] = (char)('0' + ordinal);
    p->sharedMemPerBlockOptin = 227 * 1024;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *ordinal)
{
    *ordinal = current_gpu;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    std::lock_guard<std::mutex> hold(memory);
    size_t used = in_use[current_gpu];

    *total = MEMORY;
    *free = used < MEMORY ? MEMORY - used : 0;
    return cudaSuccess;
}

static cudaError_t allocate(void **p, size_t n, bool pinned)
{
    cudaError_t e = pl_emu_unsafe();

    if (e != cudaSuccess)
        return e;
    std::lock_guard<std::mutex> hold(memory);
    *p = n < (size_t)1 << 34 ? aligned_alloc(256, (n + 255) / 256 * 256 + (n ? 0 : 256)) : NULL;
    if (!*p)
        return pl_emu_give(cudaErrorMemoryAllocation);
    memset(*p, 0xa5, n); /* never zeros by luck */
    blocks[*p] = block{current_gpu, malloc_usable_size(*p), pinned};
    in_use[current_gpu] += pinned ? 0 : malloc_usable_size(*p);
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t n)
{
    return allocate(p, n, false);
}

/* What was allocated is free once the GPU's work is done, as cudaFree waits for it. */
static cudaError_t release(void *p, bool pinned)
{
    cudaError_t e = pl_emu_unsafe();
    size_t bytes;
    int gpu;

    if (e != cudaSuccess || !p)
        return e;
    {
        std::lock_guard<std::mutex> hold(memory);
        auto b = blocks.find(p);
        if (b == blocks.end() || b->second.pinned != pinned)
            return pl_emu_give(cudaErrorInvalidValue);
        gpu = b->second.gpu;
        bytes = b->second.bytes;
    }
    if (!pinned)
        pl_emu_finish(gpu);
    if (pl_emu_in_use(p, bytes)) {
        fprintf(stderr, "cuda emulation: memory is freed that a copy has still to read or write\n");
        abort();
    }
    std::lock_guard<std::mutex> hold(memory);
    auto b = blocks.find(p);
    in_use[gpu] -= pinned ? 0 : b->second.bytes;
    blocks.erase(b);
    free(p);
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    return release(p, false);
}

cudaError_t cudaMallocHost(void **p, size_t n)
{
    return allocate(p, n, true);
}

/* Nothing promises that this waits: what is still to be copied from or to p is the caller's fault, and told. */
cudaError_t cudaFreeHost(void *p)
{
    return release(p, true);
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int from, int to)
{
    if (from < 0 || to < 0 || from >= pl_emu_gpus() || to >= pl_emu_gpus())
        return pl_emu_give(cudaErrorInvalidDevice);
    *can = from != to && pl_emu_number("PACELINE_EMULATED_PEERS", 1);
    return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int to, unsigned)
{
    std::lock_guard<std::mutex> hold(memory);

    if (to < 0 || to >= pl_emu_gpus() || to == current_gpu || !pl_emu_number("PACELINE_EMULATED_PEERS", 1))
        return pl_emu_give(cudaErrorInvalidDevice);
    if (reached[current_gpu][to])
        return pl_emu_give(cudaErrorPeerAccessAlreadyEnabled);
    reached[current_gpu][to] = true;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t e = last_error;

    last_error = cudaSuccess;
    return e;
}

const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaErrorMemoryAllocation ? "out of memory"
           : e == cudaErrorIllegalAddress ? "an illegal memory access was encountered"
           : e == cudaErrorInvalidDevice  ? "invalid device ordinal"
           : e == cudaErrorInvalidResourceHandle ? "invalid resource handle"
           : e == cudaErrorNotReady ? "device not ready"
           : e == cudaErrorStreamCaptureUnsupported ? "operation not permitted when stream is capturing"
           : e == cudaErrorStreamCaptureInvalidated ? "operation failed due to a previous error during capture"
           : e                            ? "invalid value"
                                          : "no error";
}
