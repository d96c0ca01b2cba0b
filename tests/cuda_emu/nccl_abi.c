/* What spec_decode/nccl_abi.h takes for granted of NCCL, held against its header where there is one. Compiled, never run. */
#include "spec_decode/nccl_abi.h"

#include <nccl.h>

_Static_assert(ncclSuccess == PL_NCCL_SUCCESS && ncclInProgress == PL_NCCL_IN_PROGRESS, "results");
_Static_assert(ncclFloat32 == PL_NCCL_FLOAT32, "types");
_Static_assert(sizeof(ncclUniqueId) == sizeof(struct pl_nccl_id), "id");
#define SAME(member) \
    _Static_assert(offsetof(ncclConfig_t, member) == offsetof(struct pl_nccl_config, member) && \
                       sizeof(((ncclConfig_t *)0)->member) == sizeof(((struct pl_nccl_config *)0)->member), \
                   #member)
SAME(size);
SAME(magic);
SAME(version);
SAME(blocking);
_Static_assert(sizeof(ncclConfig_t) >= sizeof(struct pl_nccl_config), "config");
_Static_assert(NCCL_VERSION(2, 14, 0) == PL_NCCL_CONFIG_VERSION && NCCL_CONFIG_UNDEF_INT == PL_NCCL_UNDEFINED, "version");
#ifdef NCCL_API_MAGIC /* older headers have it in an initialiser alone */
_Static_assert(NCCL_API_MAGIC == PL_NCCL_CONFIG_MAGIC, "magic");
#endif

/* the calls, by their types */
extern ncclResult_t (*const pl_abi_init)(ncclComm_t *, int, ncclUniqueId, int, ncclConfig_t *);
extern ncclResult_t (*const pl_abi_send)(const void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t);
extern ncclResult_t (*const pl_abi_recv)(void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t);
extern ncclResult_t (*const pl_abi_error)(ncclComm_t, ncclResult_t *);
ncclResult_t (*const pl_abi_init)(ncclComm_t *, int, ncclUniqueId, int, ncclConfig_t *) = ncclCommInitRankConfig;
ncclResult_t (*const pl_abi_send)(const void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t) = ncclSend;
ncclResult_t (*const pl_abi_recv)(void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t) = ncclRecv;
ncclResult_t (*const pl_abi_error)(ncclComm_t, ncclResult_t *) = ncclCommGetAsyncError;
