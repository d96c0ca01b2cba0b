/*
 * What is taken for granted of CUPTI's binary interface, which is opened at run time and needs no
 * header here: shared by profile.c, by the stand-in that tests it, and by
 * tests/cuda_emu/cupti_abi.c, which holds it against a toolkit's cupti_activity.h.
 */
#ifndef PL_MODEL_CUDA_CUPTI_ABI_H
#define PL_MODEL_CUDA_CUPTI_ABI_H

#include <stddef.h>
#include <stdint.h>

#define PL_CUPTI_KIND_KERNEL 10
#define PL_CUPTI_KIND_EXTERNAL 39
#define PL_CUPTI_EXTERNAL_CUSTOM0 3
#define PL_CUPTI_FLUSH_FORCED 1

struct pl_cupti_kernel { /* its first members; later ones have come and go */
    uint32_t kind, configs, caches[2];
    uint64_t start, end, completed;
    uint32_t device, context, stream;
    int32_t grid[3], block[3], shared[2];
    uint32_t local[2], correlation;
    int64_t grid_id;
    const char *name;
};
_Static_assert(offsetof(struct pl_cupti_kernel, start) == 16 &&
                   offsetof(struct pl_cupti_kernel, correlation) == 92 &&
                   offsetof(struct pl_cupti_kernel, name) == 104,
               "a kernel's record");

struct pl_cupti_external {
    uint32_t kind, external_kind;
    uint64_t id;
    uint32_t correlation, reserved;
};

typedef void pl_cupti_wanted(uint8_t **buffer, size_t *size, size_t *most);
typedef void pl_cupti_full(void *context, uint32_t stream, uint8_t *buffer, size_t size,
                           size_t valid);

#endif
