#include "cuda_runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <malloc.h>
#include <time.h>
#include <ucontext.h>

#include <atomic>
#include <mutex>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace
{
enum state { READY, AT_BARRIER, AT_WARP, DONE };

struct fiber {
    void *sp;
    char *stack;
    enum state state;
    dim3 index;
    unsigned lane, warp, turn;
};

const size_t STACK = 64 * 1024;

std::mutex device; /* one launch at a time, whoever makes it */
std::vector<fiber> &fibers = *new std::vector<fiber>; /* stacks live to the end */
std::vector<uint64_t> slots; /* [warp][2][32] */
std::vector<char> gathered;  /* [warp][2][32 · 64] */
std::vector<char> shared_memory;
void *scheduler_sp;
fiber *current;
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
void to_scheduler()
{
    pl_emu_switch(&current->sp, scheduler_sp);
}

void fiber_main()
{
    kernel_body(kernel_arg);
    current->state = DONE;
    to_scheduler();
    abort();
}

void prepare(fiber *f)
{
    void **sp = (void **)(void *)(f->stack + STACK - 64);

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
    pl_emu_switch(&scheduler_sp, f->sp);
}

/* Lets the fibers [begin, end) go on when all that live wait for the same thing. */
bool release(size_t begin, size_t end, enum state at)
{
    for (size_t i = begin; i < end; i++)
        if (fibers[i].state != at && fibers[i].state != DONE)
            return false;
    bool any = false;
    for (size_t i = begin; i < end; i++)
        if (fibers[i].state == at) {
            fibers[i].state = READY;
            any = true;
        }
    return any;
}

void run_block(size_t n)
{
    for (size_t i = 0; i < n; i++)
        prepare(&fibers[i]);
    for (size_t done = 0; done < n;) {
        bool moved = false;
        for (size_t w = 0; w < n; w += 32) {
            size_t end = w + 32 < n ? w + 32 : n;
            do { /* a warp runs as far as it can */
                for (size_t i = w; i < end; i++)
                    if (fibers[i].state == READY) {
                        resume(&fibers[i]);
                        moved = true;
                        done += fibers[i].state == DONE;
                    }
            } while (release(w, end, AT_WARP));
        }
        if (release(0, n, AT_BARRIER))
            moved = true;
        if (!moved)
            die("a barrier that not all threads reach");
    }
}
} // namespace

void pl_emu_run(dim3 grid, dim3 block, size_t shared, void (*body)(void *), void *arg)
{
    std::lock_guard<std::mutex> hold(device);
    size_t n = (size_t)block.x * block.y * block.z;

    if (!n || n > 1024 || !grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535)
        die("a launch that no GPU takes");
    if (shared > 227 * 1024)
        die("more shared memory than a block can have");
    while (fibers.size() < n) {
        fiber f = {};
        f.stack = (char *)malloc(STACK);
        fibers.push_back(f);
    }
    slots.assign((n + 31) / 32 * 64, 0);
    gathered.assign((n + 31) / 32 * 2 * 32 * 64, 0);
    blockDim = block;
    gridDim = grid;
    kernel_body = body;
    kernel_arg = arg;
    for (size_t i = 0; i < n; i++) {
        fibers[i].index = dim3((unsigned)i % block.x, (unsigned)i / block.x % block.y,
                               (unsigned)i / (block.x * block.y));
        fibers[i].lane = (unsigned)i % 32;
        fibers[i].warp = (unsigned)i / 32;
    }
    for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) {
                /* of the very size, so that a sanitizer sees what lies beyond; never zeros */
                shared_memory = std::vector<char>(shared, (char)0xa5);
                run_block(n);
            }
}

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
    current->state = AT_BARRIER;
    to_scheduler();
    threadIdx = current->index;
}

void __syncwarp(unsigned)
{
    current->state = AT_WARP;
    to_scheduler();
    threadIdx = current->index;
}

uint64_t pl_emu_exchange(uint64_t mine, int from)
{
    fiber *me = current;
    uint64_t *slot = &slots[(size_t)me->warp * 64 + (me->turn++ & 1) * 32];

    slot[me->lane] = mine;
    __syncwarp();
    return slot[from & 31];
}

const void *pl_emu_gather(const void *mine, size_t n)
{
    fiber *me = current;
    char *room = &gathered[((size_t)me->warp * 2 + (me->turn++ & 1)) * 32 * 64];

    if (n > 64)
        die("a fragment of more than 64 bytes");
    memcpy(room + n * me->lane, mine, n);
    __syncwarp();
    return room;
}

/* --- the runtime --- */
static const size_t MEMORY = (size_t)96 << 20; /* what it says it has; it gives as much as is asked for */
static std::atomic<size_t> in_use;
static cudaError_t last_error;

static cudaError_t give(cudaError_t e)
{
    if (e != cudaSuccess)
        last_error = e;
    return e;
}

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int ordinal)
{
    return give(ordinal == 0 ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int ordinal)
{
    if (ordinal)
        return give(cudaErrorInvalidValue);
    *p = cudaDeviceProp();
    snprintf(p->name, sizeof(p->name), "emulated on the CPU");
    p->major = 8;
    p->multiProcessorCount = 4;
    p->totalGlobalMem = MEMORY;
    memcpy(p->uuid.bytes, "\xe0" "emulated GPU 0", 15);
    p->sharedMemPerBlockOptin = 227 * 1024;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *ordinal)
{
    *ordinal = 0;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    size_t used = in_use;

    *total = MEMORY;
    *free = used < MEMORY ? MEMORY - used : 0;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t n)
{
    *p = n < (size_t)1 << 34 ? aligned_alloc(256, (n + 255) / 256 * 256 + (n ? 0 : 256)) : NULL;
    if (*p) {
        memset(*p, 0xa5, n); /* never zeros by luck */
        in_use += malloc_usable_size(*p);
    }
    return give(*p ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void *p)
{
    in_use -= p ? malloc_usable_size(p) : 0;
    free(p);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **p, size_t n)
{
    return cudaMalloc(p, n);
}

cudaError_t cudaFreeHost(void *p)
{
    return cudaFree(p);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind)
{
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
    for (size_t i = 0; i < height; i++)
        memcpy((char *)to + i * pitch_to, (const char *)from + i * pitch_from, width);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *p, int value, size_t n)
{
    memset(p, value, n);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t n, cudaStream_t)
{
    return cudaMemset(p, value, n);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = NULL;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t)
{
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t)
{
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

/* There is one device here: nothing to be a peer of. */
cudaError_t cudaMemcpyPeerAsync(void *, int, const void *, int, size_t, cudaStream_t)
{
    return give(cudaErrorInvalidValue);
}

cudaError_t cudaDeviceCanAccessPeer(int *, int, int)
{
    return give(cudaErrorInvalidValue);
}

cudaError_t cudaDeviceEnablePeerAccess(int, unsigned)
{
    return give(cudaErrorInvalidValue);
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

struct pl_emu_event {
    struct timespec at;
};

cudaError_t cudaEventCreate(cudaEvent_t *e)
{
    *e = (cudaEvent_t)calloc(1, sizeof(**e));
    return give(*e ? cudaSuccess : cudaErrorMemoryAllocation);
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

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t)
{
    clock_gettime(CLOCK_MONOTONIC, &e->at);
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t)
{
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
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
           : e                            ? "invalid value"
                                          : "no error";
}

cudaError_t cudaDeviceSynchronize(void)
{
    return cudaSuccess;
}
