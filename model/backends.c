#include "model/backend.h"

#include <string.h>

#ifndef PL_DEFAULT_DEVICE
#define PL_DEFAULT_DEVICE "cpu"
#endif

static const struct pl_backend *const backends[] = {
    &pl_cpu_backend,
#ifdef PL_HAVE_CUDA
    &pl_cuda_backend,
#endif
};

const struct pl_backend *pl_backend_by_name(const char *name)
{
    for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++)
        if (!strcmp(backends[i]->name, name ? name : PL_DEFAULT_DEVICE))
            return backends[i];
    return NULL;
}
