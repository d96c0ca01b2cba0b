/*
 * What is taken for granted of NCCL's binary interface (2.14 on), which is opened at run time and
 * needs no header here: shared by transport_nccl.c, by the stand-in that tests it, and by
 * tests/cuda_emu/nccl_abi.c, which holds it against nccl.h.
 */
#ifndef PL_SPEC_DECODE_NCCL_ABI_H
#define PL_SPEC_DECODE_NCCL_ABI_H

#include <limits.h>
#include <stddef.h>

#define PL_NCCL_SUCCESS 0
#define PL_NCCL_IN_PROGRESS 7
#define PL_NCCL_FLOAT32 7
#define PL_NCCL_CONFIG_MAGIC 0xcafebeefu
#define PL_NCCL_CONFIG_VERSION 21400
#define PL_NCCL_UNDEFINED INT_MIN

struct pl_nccl_id {
    char internal[128];
};

struct pl_nccl_config { /* of that version: later libraries take their defaults for the rest */
    size_t size;
    unsigned magic, version;
    int blocking, undefined;
};

#endif
