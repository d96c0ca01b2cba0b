/* A safetensors file: header, offsets, dtypes. */
#include "fuzz.h"
#include "model/checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64], dir[] = "/tmp/paceline-fuzz-XXXXXX", link[128];
    const int fd = fuzz_file(data, size, path);
    struct pl_checkpoint *c = NULL;
    struct pl_err err;
    if (!mkdtemp(dir))
        abort();
    snprintf(link, sizeof link, "%s/model.safetensors", dir);
    if (symlink(path, link) != 0)
        abort();
    if (pl_checkpoint_open(dir, &c, &err) == PL_OK)
        pl_checkpoint_free(c);
    unlink(link);
    rmdir(dir);
    close(fd);
    return 0;
}
