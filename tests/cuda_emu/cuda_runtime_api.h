/*
 * A stand-in for the CUDA runtime, for tests on machines with no GPU: the calls that model/cuda/
 * makes, on ordinary memory. It checks what the backend computes, which memory it touches and what
 * it does not wait for: a stream's work is done when somebody asks for it, as late as CUDA allows,
 * and a captured step with the arguments that it was captured with. It says nothing of a GPU's
 * speed, its races or its rounding. PACELINE_EMULATED_GRAPHS=0: nothing can be captured.
 *
 * There is one GPU, or as many (at most 4) as PACELINE_EMULATED_GPUS says; each reaches the others
 * unless PACELINE_EMULATED_PEERS is 0. What a thread allocates, makes and launches belongs to the
 * GPU that is current to it, and a stream or event of another is refused as the runtime does; under
 * the address sanitizer a kernel that touches another GPU's memory is told.
 */
#ifndef PL_EMU_CUDA_RUNTIME_API_H
#define PL_EMU_CUDA_RUNTIME_API_H

#include <stddef.h>

#define CUDART_VERSION 13000

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidDevice = 101,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
    cudaErrorPeerAccessAlreadyEnabled = 704,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorStreamCaptureWrongThread = 908
} cudaError_t;
enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
typedef struct pl_emu_stream *cudaStream_t;
typedef struct pl_emu_event *cudaEvent_t;
typedef struct pl_emu_graph *cudaGraph_t;
typedef struct pl_emu_graph_exec *cudaGraphExec_t;
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };

typedef struct {
    char bytes[16];
} cudaUUID_t;

struct cudaDeviceProp {
    char name[256];
    cudaUUID_t uuid;
    int major, minor, multiProcessorCount;
    size_t totalGlobalMem, sharedMemPerBlockOptin;
};

#define cudaStreamNonBlocking 1
#define cudaEventDisableTiming 2

cudaError_t cudaRuntimeGetVersion(int *v);
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaGetDevice(int *ordinal);
cudaError_t cudaSetDevice(int ordinal);
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int ordinal);
cudaError_t cudaMemGetInfo(size_t *free, size_t *total);
cudaError_t cudaMalloc(void **p, size_t n);
cudaError_t cudaFree(void *p);
cudaError_t cudaMallocHost(void **p, size_t n);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind,
                            cudaStream_t s);
cudaError_t cudaMemcpy2DAsync(void *to, size_t pitch_to, const void *from, size_t pitch_from,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t s);
cudaError_t cudaMemset(void *p, int value, size_t n);
cudaError_t cudaMemsetAsync(void *p, int value, size_t n, cudaStream_t s);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamQuery(cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags);
cudaError_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device,
                                size_t n, cudaStream_t s);
cudaError_t cudaDeviceCanAccessPeer(int *can, int from, int to);
cudaError_t cudaDeviceEnablePeerAccess(int to, unsigned flags);
cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t s);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e);
cudaError_t cudaGraphDestroy(cudaGraph_t g);
cudaError_t cudaEventCreate(cudaEvent_t *e);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to);
cudaError_t cudaGetLastError(void);
cudaError_t cudaDeviceSynchronize(void);
const char *cudaGetErrorString(cudaError_t e);

/* Of the driver's interface (cuda.h). */
enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess = 0, cudaDriverEntryPointSymbolNotFound = 1 };
#define cudaEnableDefault 0
cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *found);
/* Green contexts that are there now. */
int pl_emu_green_contexts(void);

/* What the host asked for since the program began. */
struct pl_emu_asked {
    long launches, waits, to_host, bytes_to_host, to_device;
    long early; /* of the launches: those that may begin before the one before them has ended */
    long narrow; /* of the launches: on a part of the multiprocessors */
    long graphs, replays; /* made; launched, of whose launches and copies each counts above */
    long graphs_gone;     /* of those made: destroyed */
};
extern struct pl_emu_asked pl_emu_asked;

/* Which order blocks go in: 0 as they are numbered, else one drawn from this. */
extern unsigned pl_emu_order;
/* The launch so many from now (1: the next) ends behind half of its blocks, with an error that the next call to
 * cudaGetLastError gives; 0: none does. */
extern long pl_emu_stop_launch;
/* 1: no capture can begin; 2: each is broken by what it is given; 3: no graph can be made of one. 0: all goes well. */
extern int pl_emu_refuse_capture;

/* For what stands in for a library beside the runtime: run(a copy of arg's n bytes) in the stream's turn. And when both streams are
 * there, which go on behind it. */
void pl_emu_host_work(cudaStream_t s, void (*run)(const void *), const void *arg, size_t n);
void pl_emu_meet(cudaStream_t from, cudaStream_t to, void (*run)(const void *), const void *arg, size_t n);

#ifdef __cplusplus
}
#endif
#endif
