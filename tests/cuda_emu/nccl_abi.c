/* What spec_decode/transport_nccl.c takes for granted of NCCL, held against a toolkit's header where there is one. Compiled, never run. */
#include <nccl.h>
#include <stddef.h>

_Static_assert(ncclSuccess == 0 && ncclInProgress == 7, "results");
_Static_assert(ncclFloat32 == 7, "types");
_Static_assert(sizeof(ncclUniqueId) == 128, "id");
_Static_assert(offsetof(ncclConfig_t, size) == 0 && offsetof(ncclConfig_t, magic) == 8 && offsetof(ncclConfig_t, version) == 12 &&
                   offsetof(ncclConfig_t, blocking) == 16 && sizeof(ncclConfig_t) >= 24,
               "config");
_Static_assert(NCCL_VERSION(2, 14, 0) == 21400 && NCCL_CONFIG_UNDEF_INT == -2147483647 - 1, "version");

/* the calls, by their types */
extern ncclResult_t (*const pl_abi_init)(ncclComm_t *, int, ncclUniqueId, int, ncclConfig_t *);
extern ncclResult_t (*const pl_abi_send)(const void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t);
extern ncclResult_t (*const pl_abi_recv)(void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t);
extern ncclResult_t (*const pl_abi_error)(ncclComm_t, ncclResult_t *);
ncclResult_t (*const pl_abi_init)(ncclComm_t *, int, ncclUniqueId, int, ncclConfig_t *) = ncclCommInitRankConfig;
ncclResult_t (*const pl_abi_send)(const void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t) = ncclSend;
ncclResult_t (*const pl_abi_recv)(void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t) = ncclRecv;
ncclResult_t (*const pl_abi_error)(ncclComm_t, ncclResult_t *) = ncclCommGetAsyncError;
