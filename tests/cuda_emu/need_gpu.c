/* Linked into tests that run on a GPU: without one they say so and are skipped, before anything
 * else runs. */
#include "model/backend.h"

#include <stdio.h>
#include <unistd.h>

__attribute__((constructor)) static void need_gpu(void)
{
    struct pl_device_info d;

    if (pl_cuda_backend.list(&d, 1) > 0)
        return;
    printf("skipped: no GPU\n");
    fflush(stdout);
    _exit(77);
}
