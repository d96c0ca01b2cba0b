/*
 * What model/cuda/split.c takes of the driver's interface, for the emulation: names, shapes and values as NVIDIA's cuda.h has them. A GPU
 * is shared out in pairs of its multiprocessors; PACELINE_EMULATED_GREEN=0 is a driver that knows nothing of this.
 */
#ifndef PL_EMU_CUDA_H
#define PL_EMU_CUDA_H

#include "cuda_runtime_api.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { CUDA_SUCCESS = 0, CUDA_ERROR_INVALID_VALUE = 1, CUDA_ERROR_OUT_OF_MEMORY = 2, CUDA_ERROR_INVALID_RESOURCE_TYPE = 914 } CUresult;
typedef int CUdevice;
typedef struct pl_emu_green *CUgreenCtx;
typedef struct pl_emu_green *CUdevResourceDesc;
typedef cudaStream_t CUstream;
typedef enum { CU_DEV_RESOURCE_TYPE_INVALID = 0, CU_DEV_RESOURCE_TYPE_SM = 1 } CUdevResourceType;
typedef struct {
    unsigned int smCount, minSmPartitionSize, smCoscheduledAlignment;
} CUdevSmResource;
typedef struct {
    CUdevResourceType type;
    unsigned char _internal_padding[92];
    union {
        CUdevSmResource sm;
        unsigned char _oversize[48];
    };
} CUdevResource;

#define CU_GREEN_CTX_DEFAULT_STREAM 1
#define CU_STREAM_NON_BLOCKING 1

CUresult cuDeviceGet(CUdevice *device, int ordinal);
CUresult cuDeviceGetDevResource(CUdevice device, CUdevResource *resource, CUdevResourceType type);
CUresult cuDevSmResourceSplitByCount(CUdevResource *result, unsigned int *nbGroups, const CUdevResource *input, CUdevResource *remaining,
                                     unsigned int useFlags, unsigned int minCount);
CUresult cuDevResourceGenerateDesc(CUdevResourceDesc *phDesc, CUdevResource *resources, unsigned int nbResources);
CUresult cuGreenCtxCreate(CUgreenCtx *phCtx, CUdevResourceDesc desc, CUdevice dev, unsigned int flags);
CUresult cuGreenCtxDestroy(CUgreenCtx hCtx);
CUresult cuGreenCtxStreamCreate(CUstream *phStream, CUgreenCtx greenCtx, unsigned int flags, int priority);
CUresult cuGetErrorString(CUresult error, const char **pStr);

#ifdef __cplusplus
}
#endif
#endif
