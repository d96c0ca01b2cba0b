/* What the emulation's own files share: emu.cpp runs kernels, streams.cpp says when, memory.cpp has the GPUs and their memory. */
#ifndef PL_EMU_EMU_HPP
#define PL_EMU_EMU_HPP

#include "cuda_runtime.h"

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

const int PL_EMU_MOST_GPUS = 4;

/* A place in a stream's work, that others may wait for. */
struct pl_emu_stamp {
    struct pl_emu_stream *stream;
    bool there;
    struct timespec at;
};
/* Where there is no `run`, only the wait. */
struct pl_emu_work {
    std::function<void()> run;
    std::shared_ptr<pl_emu_stamp> behind;
    std::vector<std::pair<const char *, size_t>> of = {}; /* memory that a copy has still to read and write */
};
struct pl_emu_stream {
    int gpu;
    int sms; /* of a green context; 0: all */
    std::deque<pl_emu_work> queue;
    bool running; /* its first piece of work */
    bool capturing, spoilt;
    std::thread::id capturer;
    std::vector<pl_emu_work> captured;
};

/* Of all that runs, and of all streams. */
extern std::recursive_mutex pl_emu_device;

/* memory.cpp */
cudaError_t pl_emu_give(cudaError_t e); /* e, which the next cudaGetLastError gives too */
int pl_emu_gpus();
int pl_emu_gpu(); /* the thread's current one */
int pl_emu_number(const char *variable, int otherwise);
/* Whether [p, p + n) lies in one allocation of device memory (gpu −1: of any), or of pinned memory. */
bool pl_emu_owns(int gpu, const void *p, size_t n);
bool pl_emu_pinned(const void *p);
/* Kernels of a GPU touch its own memory and what is pinned, nothing else. */
void pl_emu_hide_others(int gpu, bool hidden);

/* streams.cpp */
cudaError_t pl_emu_queue(cudaStream_t s, std::function<void()> run);
/* cudaSuccess unless the thread captures, which such a call ends. */
cudaError_t pl_emu_unsafe();
/* Whether a copy that has not run reads or writes [p, p + n). */
bool pl_emu_in_use(const void *p, size_t n);
/* All work that was given to this GPU. */
void pl_emu_finish(int gpu);
/* What goes wrong while work of a GPU runs: the next call that waits tells it. */
void pl_emu_went_wrong(int gpu, cudaError_t e);

#endif
