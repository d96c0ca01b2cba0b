#include "model/backend.h"

#include <limits.h>
#include <stdlib.h>
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

enum pl_status pl_backend_find(const char *device, const struct pl_backend **out, int *ordinal,
                               struct pl_err *err)
{
    const char *number = device && !strncmp(device, "cuda:", 5) ? device + 5 : NULL;
    char *end = NULL;
    long n = 0;

    *out = pl_backend_by_name(number ? "cuda" : device);
    if (number)
        n = strtol(number, &end, 10);
    if (number ? end == number || *end || n < 0 || n > INT_MAX
               : device && strcmp(device, "cpu") && strcmp(device, "cuda"))
        return pl_fail(err, PL_EUSAGE, "device \"%.40s\": cpu, cuda or cuda:N is expected", device);
    if (number)
        *ordinal = (int)n;
    return *out ? PL_OK
                : pl_fail(err, PL_EUNSUPPORTED, "device %.40s: this program was built without CUDA",
                          device);
}
