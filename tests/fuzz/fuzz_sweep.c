/* A sweep file: YAML, keys, matrix, selection. */
#include "fuzz.h"
#include "orchestrator/sweep.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    const int fd = fuzz_file(data, size, path);
    const struct pl_select all = {0};
    struct pl_problems problems = {0};
    struct pl_sweep *sweep = NULL;
    struct pl_err err;
    if (pl_sweep_load(path, &all, &sweep, &problems, &err) == PL_OK)
        pl_sweep_free(sweep);
    pl_problems_release(&problems);
    close(fd);
    return 0;
}
