#include "cuda_runtime.h"
#include "emu.h"

#include <stdio.h>
#include <stdlib.h>
#include <malloc.h>
#include <time.h>
#include <ucontext.h>

#include <map>
#include <numeric>
#include <mutex>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

/* To the thread sanitizer each lane is a thread, and nothing orders two of them but a barrier, a __syncwarp, a launch's begin and a block's
 * end (a shuffle does not): what a kernel reads of a neighbour's without one of these is told as a race. Blocks stand in order, and are not
 * held against each other. This file itself is built without it: what a fiber that is switched away leaves open would never be closed. */
#if defined(PL_EMU_TSAN)
extern "C" void *__tsan_get_current_fiber(void);
extern "C" void *__tsan_create_fiber(unsigned flags);
extern "C" void __tsan_switch_to_fiber(void *fiber, unsigned flags);
extern "C" void __tsan_acquire(void *at);
extern "C" void __tsan_release(void *at);
#define TSAN_HERE() __tsan_get_current_fiber()
#define TSAN_NEW() __tsan_create_fiber(0)
#define TSAN_TO(f) __tsan_switch_to_fiber(f, 1) /* orders nothing */
#define TSAN_ACQUIRE(p) __tsan_acquire(p)
#define TSAN_RELEASE(p) __tsan_release(p)
#else
#define TSAN_HERE() NULL
#define TSAN_NEW() NULL
#define TSAN_TO(f) (void)(f)
#define TSAN_ACQUIRE(p) (void)(p)
#define TSAN_RELEASE(p) (void)(p)
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;
struct pl_emu_asked pl_emu_asked;
unsigned pl_emu_order;
long pl_emu_stop_launch;

namespace
{
enum state { READY, AT_BARRIER, AT_WARP, DONE };

struct fiber {
    void *sp, *tsan;
    char *stack;
    enum state state;
    dim3 index;
    unsigned lane, warp, turn;
};

const size_t STACK = 64 * 1024;

std::mutex device; /* one launch or copy at a time, whoever makes it */
std::vector<fiber> &fibers = *new std::vector<fiber>; /* stacks live to the end */
std::vector<uint64_t> slots; /* [warp][2][32] */
std::vector<char> gathered;  /* [warp][2][32 · 64] */
std::vector<char> shared_memory;
void *scheduler_sp, *scheduler_tsan;
fiber *current, *warp_end; /* of the warp that runs */
bool released;             /* its lanes go on from where they waited for each other */
char in_block, in_warp[32]; /* what lanes meet at, to the thread sanitizer */
void (*kernel_body)(void *);
void *kernel_arg;

[[noreturn]] void die(const char *what)
{
    fprintf(stderr, "cuda emulation: %s in block (%u, %u, %u)\n", what, blockIdx.x, blockIdx.y,
            blockIdx.z);
    abort();
}
} // namespace

/* Saves the callee-saved registers on the stack, then changes stacks. */
#if defined(__x86_64__)
extern "C" void pl_emu_switch(void **from, void *to);
asm(R"(
.pushsection .text
.globl pl_emu_switch
.type pl_emu_switch,@function
pl_emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size pl_emu_switch,.-pl_emu_switch
.popsection
)");
#else
#error "the emulation switches stacks on x86-64 only"
#endif

namespace
{
/* The address sanitizer is not told of a change of stacks: it wants that for exceptions and for its fake stack (off here), of which there are
 * none, and telling took more than half of a test's time. */
bool may_run(const fiber *f)
{
    return f->state == READY || (released && f->state == AT_WARP);
}

/* To the next lane that can go on, else back: half as many switches as by way of the scheduler each time. */
void yield()
{
    fiber *me = current, *next = me + 1;

    if (next < warp_end && may_run(next)) {
        current = next;
        threadIdx = next->index;
        TSAN_TO(next->tsan);
        pl_emu_switch(&me->sp, next->sp);
    } else {
        TSAN_TO(scheduler_tsan);
        pl_emu_switch(&me->sp, scheduler_sp);
    }
}

void fiber_main()
{
    TSAN_ACQUIRE(&in_block);
    kernel_body(kernel_arg);
    TSAN_RELEASE(&in_block);
    current->state = DONE;
    yield();
    abort();
}

void prepare(fiber *f)
{
    /* not all at one distance: they would share a few sets of the caches */
    void **sp = (void **)(void *)(f->stack + STACK - 64 - f->lane * 320);

#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(f->stack, STACK); /* of frames that the last block never left */
#endif
    *--sp = NULL; /* where fiber_main would return to; keeps the stack aligned as after a call */
    *--sp = (void *)fiber_main;
    for (int i = 0; i < 6; i++)
        *--sp = NULL;
    f->sp = sp;
    f->state = READY;
    f->turn = 0;
}

void resume(fiber *f)
{
    current = f;
    threadIdx = f->index;
    TSAN_TO(f->tsan);
    pl_emu_switch(&scheduler_sp, f->sp);
}

/* Runs a warp's lanes until none can go on; whether any did. */
bool run_warp(fiber *begin, fiber *end)
{
    bool moved = false, all = true;

    warp_end = end;
    for (released = false; all; released = true) {
        size_t waiting = 0, live = 0;
        for (fiber *f = begin; f < end; f++)
            if (may_run(f)) {
                resume(f);
                f = current; /* the last of those that went on after it */
                moved = true;
            }
        for (const fiber *f = begin; f < end; f++) {
            waiting += f->state == AT_WARP;
            live += f->state != DONE;
        }
        all = waiting && waiting == live;
    }
    return moved;
}

void run_block(size_t n)
{
    TSAN_RELEASE(&in_block);
    for (size_t i = 0; i < n; i++)
        prepare(&fibers[i]);
    for (size_t live = n; live;) {
        size_t waiting = 0;
        bool moved = false;
        for (size_t w = 0; w < n; w += 32)
            moved |= run_warp(&fibers[w], &fibers[0] + (w + 32 < n ? w + 32 : n));
        live = 0;
        for (size_t i = 0; i < n; i++) {
            live += fibers[i].state != DONE;
            waiting += fibers[i].state == AT_BARRIER;
        }
        if (!moved || waiting != live)
            die("a barrier that not all threads reach");
        for (size_t i = 0; i < n && live; i++)
            if (fibers[i].state == AT_BARRIER)
                fibers[i].state = READY;
    }
    TSAN_ACQUIRE(&in_block);
}
} // namespace

void *pl_emu_shared(void)
{
    return shared_memory.data();
}

int pl_emu_lane(void)
{
    return (int)current->lane;
}

void __syncthreads(void)
{
    TSAN_RELEASE(&in_block);
    current->state = AT_BARRIER;
    yield();
    threadIdx = current->index;
    TSAN_ACQUIRE(&in_block);
}

static void meet(void)
{
    current->state = AT_WARP;
    yield();
    threadIdx = current->index;
}

void __syncwarp(unsigned)
{
    TSAN_RELEASE(&in_warp[current->warp]);
    meet();
    TSAN_ACQUIRE(&in_warp[current->warp]);
}

uint64_t pl_emu_exchange(uint64_t mine, int from)
{
    fiber *me = current;
    uint64_t *slot = &slots[(size_t)me->warp * 64 + (me->turn++ & 1) * 32];

    slot[me->lane] = mine;
    meet();
    return slot[from & 31];
}

const void *pl_emu_gather(const void *mine, size_t n)
{
    fiber *me = current;
    char *room = &gathered[((size_t)me->warp * 2 + (me->turn++ & 1)) * 32 * 64];

    if (n > 64)
        die("a fragment of more than 64 bytes");
    for (size_t i = 0; i < n; i++) /* not memcpy, which a sanitizer looks into */
        room[n * me->lane + i] = ((const char *)mine)[i];
    meet();
    return room;
}

/* --- the runtime --- */
static const size_t MEMORY = (size_t)96 << 20; /* what each says it has; it gives as much as is asked for */
static const int MOST_GPUS = 4;

struct pl_emu_event {
    int gpu;
    struct timespec at;
};
struct block {
    int gpu;
    size_t bytes;
    bool pinned;
};
static std::mutex memory; /* of what stands below */
static std::map<void *, block> &blocks = *new std::map<void *, block>;
static size_t in_use[MOST_GPUS];
static bool reached[MOST_GPUS][MOST_GPUS];
static thread_local cudaError_t last_error;
static thread_local int current_gpu;

static cudaError_t give(cudaError_t e)
{
    if (e != cudaSuccess)
        last_error = e;
    return e;
}

static int number_of(const char *name, int otherwise)
{
    const char *said = getenv(name);

    return said && *said ? atoi(said) : otherwise;
}

static int n_gpus()
{
    int n = number_of("PACELINE_EMULATED_GPUS", 1);

    return n < 1 ? 1 : n < MOST_GPUS ? n : MOST_GPUS;
}

/* Kernels of the current GPU touch its own memory and what is pinned, nothing else. */
static void others_memory(bool away)
{
#if defined(__SANITIZE_ADDRESS__)
    std::lock_guard<std::mutex> hold(memory);

    for (auto &b : blocks)
        if (b.second.gpu != current_gpu && !b.second.pinned) {
            if (away)
                __asan_poison_memory_region(b.first, b.second.bytes);
            else
                __asan_unpoison_memory_region(b.first, b.second.bytes);
        }
#else
    (void)away;
#endif
}

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = n_gpus();
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int ordinal)
{
    if (ordinal < 0 || ordinal >= n_gpus())
        return give(cudaErrorInvalidDevice);
    current_gpu = ordinal;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int ordinal)
{
    if (ordinal < 0 || ordinal >= n_gpus())
        return give(cudaErrorInvalidDevice);
    *p = cudaDeviceProp();
    snprintf(p->name, sizeof(p->name), "emulated on the CPU");
    p->major = number_of("PACELINE_EMULATED_MAJOR", 8);
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
    std::lock_guard<std::mutex> hold(memory);

    *p = n < (size_t)1 << 34 ? aligned_alloc(256, (n + 255) / 256 * 256 + (n ? 0 : 256)) : NULL;
    if (!*p)
        return give(cudaErrorMemoryAllocation);
    memset(*p, 0xa5, n); /* never zeros by luck */
    blocks[*p] = block{current_gpu, malloc_usable_size(*p), pinned};
    in_use[current_gpu] += malloc_usable_size(*p);
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t n)
{
    return allocate(p, n, false);
}

cudaError_t cudaFree(void *p)
{
    std::lock_guard<std::mutex> hold(memory);
    auto b = blocks.find(p);

    if (!p)
        return cudaSuccess;
    if (b == blocks.end())
        return give(cudaErrorInvalidValue);
    in_use[b->second.gpu] -= b->second.bytes;
    blocks.erase(b);
    free(p);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **p, size_t n)
{
    return allocate(p, n, true);
}

cudaError_t cudaFreeHost(void *p)
{
    return cudaFree(p);
}

void pl_emu_hold(int held)
{
    if (held)
        device.lock();
    else
        device.unlock();
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind kind)
{
    std::lock_guard<std::mutex> hold(device);

    pl_emu_asked.to_device += kind == cudaMemcpyHostToDevice;
    if (kind == cudaMemcpyDeviceToHost) {
        pl_emu_asked.to_host++;
        pl_emu_asked.bytes_to_host += (long)n;
    }

    if (n)
        memcpy(to, from, n);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind,
                            cudaStream_t)
{
    return cudaMemcpy(to, from, n, kind);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t pitch_to, const void *from, size_t pitch_from,
                              size_t width, size_t height, enum cudaMemcpyKind, cudaStream_t)
{
    std::lock_guard<std::mutex> hold(device);

    for (size_t i = 0; i < height; i++)
        memcpy((char *)to + i * pitch_to, (const char *)from + i * pitch_from, width);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *p, int value, size_t n)
{
    std::lock_guard<std::mutex> hold(device);

    memset(p, value, n);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t n, cudaStream_t)
{
    return cudaMemset(p, value, n);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = (cudaStream_t)calloc(1, sizeof(**s));
    if (!*s)
        return give(cudaErrorMemoryAllocation);
    (*s)->gpu = current_gpu;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    free(s);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    std::lock_guard<std::mutex> hold(device);

    pl_emu_asked.waits++;
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t)
{
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t e, unsigned)
{
    return give(e ? cudaSuccess : cudaErrorInvalidValue);
}

/* Whether [p, p + n) lies in one allocation of that GPU. */
static bool owns(int gpu, const void *p, size_t n)
{
    std::lock_guard<std::mutex> hold(memory);
    auto b = blocks.upper_bound(const_cast<void *>(p));

    if (b == blocks.begin())
        return false;
    --b;
    return b->second.gpu == gpu && !b->second.pinned && (const char *)p + n <= (const char *)b->first + b->second.bytes;
}

cudaError_t cudaMemcpyPeerAsync(void *to, int to_gpu, const void *from, int from_gpu, size_t n, cudaStream_t)
{
    if (!owns(to_gpu, to, n) || !owns(from_gpu, from, n))
        return give(cudaErrorInvalidValue);
    return cudaMemcpy(to, from, n, cudaMemcpyDeviceToDevice);
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int from, int to)
{
    if (from < 0 || to < 0 || from >= n_gpus() || to >= n_gpus())
        return give(cudaErrorInvalidDevice);
    *can = from != to && number_of("PACELINE_EMULATED_PEERS", 1);
    return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int to, unsigned)
{
    std::lock_guard<std::mutex> hold(memory);

    if (to < 0 || to >= n_gpus() || to == current_gpu || !number_of("PACELINE_EMULATED_PEERS", 1))
        return give(cudaErrorInvalidDevice);
    if (reached[current_gpu][to])
        return give(cudaErrorPeerAccessAlreadyEnabled);
    reached[current_gpu][to] = true;
    return cudaSuccess;
}

/* There are no graphs here: who asks for one is told so and goes without. */
cudaError_t cudaStreamBeginCapture(cudaStream_t, enum cudaStreamCaptureMode)
{
    return cudaErrorInvalidValue;
}

cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *)
{
    return cudaErrorInvalidValue;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *, cudaGraph_t, unsigned long long)
{
    return cudaErrorInvalidValue;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t)
{
    return cudaErrorInvalidValue;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t)
{
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t)
{
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *e)
{
    *e = (cudaEvent_t)calloc(1, sizeof(**e));
    if (!*e)
        return give(cudaErrorMemoryAllocation);
    (*e)->gpu = current_gpu;
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    return cudaEventCreate(e);
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    free(e);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    if (e->gpu != (s ? s->gpu : current_gpu))
        return give(cudaErrorInvalidResourceHandle);
    clock_gettime(CLOCK_MONOTONIC, &e->at);
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t)
{
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    if (from->gpu != to->gpu)
        return give(cudaErrorInvalidResourceHandle);
    *ms = (float)((double)(to->at.tv_sec - from->at.tv_sec) * 1e3 +
                  (double)(to->at.tv_nsec - from->at.tv_nsec) / 1e6);
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
           : e                            ? "invalid value"
                                          : "no error";
}

cudaError_t cudaDeviceSynchronize(void)
{
    return cudaSuccess;
}

static bool early, waited;

void pl_emu_early(int may)
{
    early = may;
}

void pl_emu_waited(void)
{
    waited = true;
}

/* The i-th block to run of `all`: a step that shares no factor with `all` comes by each once. */
static size_t nth_block(size_t i, size_t all)
{
    size_t step = pl_emu_order % all;

    if (!pl_emu_order)
        return i;
    for (step = step ? step : 1; std::gcd(step, all) != 1; step++)
        ;
    return (pl_emu_order + i * step) % all;
}

void pl_emu_run(dim3 grid, dim3 block, size_t shared, cudaStream_t s, void (*body)(void *), void *arg)
{
    std::lock_guard<std::mutex> hold(device);
    size_t n = (size_t)block.x * block.y * block.z;

    if (s && s->gpu != current_gpu) {
        give(cudaErrorInvalidResourceHandle);
        return;
    }
    if (!n || n > 1024 || !grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535)
        die("a launch that no GPU takes");
    if (shared > 227 * 1024)
        die("more shared memory than a block can have");
    while (fibers.size() < n) {
        fiber f = {};
        f.stack = (char *)malloc(STACK);
        f.tsan = TSAN_NEW();
        fibers.push_back(f);
    }
    slots.assign((n + 31) / 32 * 64, 0);
    gathered.assign((n + 31) / 32 * 2 * 32 * 64, 0);
    blockDim = block;
    gridDim = grid;
    pl_emu_asked.launches++;
    pl_emu_asked.early += early;
    pl_emu_asked.narrow += s && s->sms;
    kernel_body = body;
    kernel_arg = arg;
    scheduler_tsan = TSAN_HERE();
    for (size_t i = 0; i < n; i++) {
        fibers[i].index = dim3((unsigned)i % block.x, (unsigned)i / block.x % block.y,
                               (unsigned)i / (block.x * block.y));
        fibers[i].lane = (unsigned)i % 32;
        fibers[i].warp = (unsigned)i / 32;
    }
    others_memory(true);
    const size_t all = (size_t)grid.x * grid.y * grid.z;
    const bool stops = pl_emu_stop_launch && --pl_emu_stop_launch == 0;
    for (size_t i = 0; i < (stops ? all / 2 : all); i++) {
        const size_t at = nth_block(i, all);
        blockIdx = dim3((unsigned)(at % grid.x), (unsigned)(at / grid.x % grid.y),
                        (unsigned)(at / grid.x / grid.y));
        /* of the very size, so that a sanitizer sees what lies beyond; never zeros */
        shared_memory = std::vector<char>(shared, (char)0xa5);
        waited = false;
        run_block(n);
        if (early && !waited)
            die("a launch that does not wait for the one before");
    }
    early = false;
    others_memory(false);
    if (stops)
        give(cudaErrorIllegalAddress);
}
