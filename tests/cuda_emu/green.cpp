/* Green contexts (cuda.h here says of which kind), and how the runtime finds them. */
#include "cuda.h"
#include "emu.hpp"

#include <stdlib.h>
#include <string.h>

#include <atomic>

struct pl_emu_green {
    int gpu;
    unsigned sms;
};

static std::atomic<int> alive; /* contexts */
static const unsigned PAIR = 2;

int pl_emu_green_contexts(void)
{
    return alive;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    int n = 0;

    cudaGetDeviceCount(&n);
    *device = ordinal;
    return ordinal >= 0 && ordinal < n ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuDeviceGetDevResource(CUdevice device, CUdevResource *resource, CUdevResourceType type)
{
    struct cudaDeviceProp p;

    if (type != CU_DEV_RESOURCE_TYPE_SM)
        return CUDA_ERROR_INVALID_RESOURCE_TYPE;
    if (cudaGetDeviceProperties(&p, device) != cudaSuccess)
        return CUDA_ERROR_INVALID_VALUE;
    memset(resource, 0, sizeof(*resource));
    resource->type = type;
    memcpy(resource->_internal_padding, &device, sizeof(device));
    resource->sm = {(unsigned)p.multiProcessorCount, PAIR, PAIR};
    return CUDA_SUCCESS;
}

CUresult cuDevSmResourceSplitByCount(CUdevResource *result, unsigned int *groups, const CUdevResource *input, CUdevResource *remaining, unsigned int,
                                     unsigned int least)
{
    const unsigned each = (least + PAIR - 1) / PAIR * PAIR;
    unsigned n = *groups;

    if (input->type != CU_DEV_RESOURCE_TYPE_SM || least > input->sm.smCount)
        return CUDA_ERROR_INVALID_VALUE;
    n = each && input->sm.smCount / each < n ? input->sm.smCount / each : n;
    for (unsigned i = 0; i < n; i++) {
        result[i] = *input;
        result[i].sm.smCount = each;
    }
    *groups = n;
    if (remaining) {
        *remaining = *input;
        remaining->sm.smCount = input->sm.smCount - n * each;
        remaining->type = remaining->sm.smCount ? CU_DEV_RESOURCE_TYPE_SM : CU_DEV_RESOURCE_TYPE_INVALID;
    }
    return CUDA_SUCCESS;
}

CUresult cuDevResourceGenerateDesc(CUdevResourceDesc *desc, CUdevResource *resources, unsigned int n)
{
    static thread_local pl_emu_green last; /* the driver keeps them to the end */

    if (n != 1 || resources->type != CU_DEV_RESOURCE_TYPE_SM)
        return CUDA_ERROR_INVALID_RESOURCE_TYPE;
    memcpy(&last.gpu, resources->_internal_padding, sizeof(last.gpu));
    last.sms = resources->sm.smCount;
    *desc = &last;
    return CUDA_SUCCESS;
}

CUresult cuGreenCtxCreate(CUgreenCtx *out, CUdevResourceDesc desc, CUdevice device, unsigned int flags)
{
    if (desc->gpu != device || flags != CU_GREEN_CTX_DEFAULT_STREAM)
        return CUDA_ERROR_INVALID_VALUE;
    *out = new pl_emu_green(*desc);
    alive++;
    return CUDA_SUCCESS;
}

CUresult cuGreenCtxDestroy(CUgreenCtx c)
{
    delete c;
    alive--;
    return CUDA_SUCCESS;
}

CUresult cuGreenCtxStreamCreate(CUstream *out, CUgreenCtx c, unsigned int flags, int)
{
    if (flags != CU_STREAM_NON_BLOCKING) /* the driver takes no others */
        return CUDA_ERROR_INVALID_VALUE;
    if (cudaStreamCreateWithFlags(out, cudaStreamNonBlocking) != cudaSuccess)
        return CUDA_ERROR_OUT_OF_MEMORY;
    (*out)->gpu = c->gpu;
    (*out)->sms = (int)c->sms;
    return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult e, const char **out)
{
    *out = e == CUDA_SUCCESS                       ? "no error"
           : e == CUDA_ERROR_OUT_OF_MEMORY         ? "out of memory"
           : e == CUDA_ERROR_INVALID_RESOURCE_TYPE ? "invalid resource type"
                                                   : "invalid argument";
    return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned version, unsigned long long, enum cudaDriverEntryPointQueryResult *found)
{
    static const struct {
        const char *name;
        void *function;
    } all[] = {{"cuDeviceGet", (void *)cuDeviceGet},
               {"cuDeviceGetDevResource", (void *)cuDeviceGetDevResource},
               {"cuDevSmResourceSplitByCount", (void *)cuDevSmResourceSplitByCount},
               {"cuDevResourceGenerateDesc", (void *)cuDevResourceGenerateDesc},
               {"cuGreenCtxCreate", (void *)cuGreenCtxCreate},
               {"cuGreenCtxDestroy", (void *)cuGreenCtxDestroy},
               {"cuGreenCtxStreamCreate", (void *)cuGreenCtxStreamCreate},
               {"cuGetErrorString", (void *)cuGetErrorString}};
    const char *said = getenv("PACELINE_EMULATED_GREEN");
    const bool old = said && !strcmp(said, "0");

    *function = NULL;
    *found = cudaDriverEntryPointSymbolNotFound;
    for (auto &f : all)
        if (!strcmp(f.name, symbol) && !(old && strstr(symbol, "Green")) && version >= 12050)
            *function = f.function, *found = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}
