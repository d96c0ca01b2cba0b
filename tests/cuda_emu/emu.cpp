/* A kernel's blocks on the CPU: a block's threads are fibers, which barriers and warp exchanges switch. */
#include "emu.hpp"

#include <stdio.h>
#include <stdlib.h>

#include <map>
#include <numeric>
#include <string>

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

std::vector<fiber> &fibers = *new std::vector<fiber>; /* stacks live to the end */
std::vector<uint64_t> slots; /* [warp][2][32] */
std::vector<char> gathered;  /* [warp][2][32 · 64] */
std::vector<char> shared_memory;
void *scheduler_sp, *scheduler_tsan;
fiber *current, *warp_end; /* of the warp that runs */
bool released;             /* its lanes go on from where they waited for each other */
char in_block, in_warp[32]; /* what lanes meet at, to the thread sanitizer */
const std::function<void()> *kernel;

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
    (*kernel)();
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

static void run(dim3 grid, dim3 block, size_t shared, int gpu, bool narrow, bool begins_early, const std::function<void()> &body)
{
    size_t n = (size_t)block.x * block.y * block.z;

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
    pl_emu_asked.early += begins_early;
    pl_emu_asked.narrow += narrow;
    kernel = &body;
    scheduler_tsan = TSAN_HERE();
    for (size_t i = 0; i < n; i++) {
        fibers[i].index = dim3((unsigned)i % block.x, (unsigned)i / block.x % block.y,
                               (unsigned)i / (block.x * block.y));
        fibers[i].lane = (unsigned)i % 32;
        fibers[i].warp = (unsigned)i / 32;
    }
    pl_emu_hide_others(gpu, true);
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
        if (begins_early && !waited)
            die("a launch that does not wait for the one before");
    }
    pl_emu_hide_others(gpu, false);
    if (stops)
        pl_emu_went_wrong(gpu, cudaErrorIllegalAddress);
}

/* Kernels that may have more shared memory than the 48 KiB that any may, by GPU. */
static std::map<std::pair<int, std::string>, size_t> &big = *new std::map<std::pair<int, std::string>, size_t>;

void pl_emu_big_shared(const char *where, const char *name, size_t bytes)
{
    std::lock_guard<std::recursive_mutex> hold(pl_emu_device);

    big[{pl_emu_gpu(), std::string(where) + name}] = bytes;
}

void pl_emu_run(const char *where, const char *name, dim3 grid, dim3 block, size_t shared, cudaStream_t s, std::function<void()> body)
{
    std::lock_guard<std::recursive_mutex> hold(pl_emu_device);
    const size_t n = (size_t)block.x * block.y * block.z, most = 48 * 1024;
    const int gpu = pl_emu_gpu();
    const bool begins_early = early, narrow = s && s->sms;

    early = false;
    if (s && s->gpu != gpu) {
        pl_emu_give(cudaErrorInvalidResourceHandle);
        return;
    }
    auto more = shared > most ? big.find({gpu, std::string(where) + name}) : big.end();
    if (!n || n > 1024 || !grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535 || shared > 227 * 1024 ||
        (shared > most && (more == big.end() || shared > more->second))) {
        fprintf(stderr, "cuda emulation: %s: no GPU takes %u × %u × %u blocks of %zu threads with %zu bytes of shared memory\n", name, grid.x, grid.y, grid.z, n, shared);
        pl_emu_give(cudaErrorInvalidConfiguration);
        return;
    }
    pl_emu_queue(s, [=] { run(grid, block, shared, gpu, narrow, begins_early, body); });
}
