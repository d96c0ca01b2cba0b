/* What model/cuda/cupti_abi.h takes for granted of CUPTI, held against a toolkit's header where there is one. Compiled, never run. */
#include "model/cuda/cupti_abi.h"

#include <cupti.h>

_Static_assert(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL == PL_CUPTI_KIND_KERNEL && CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION == PL_CUPTI_KIND_EXTERNAL,
               "kinds");
_Static_assert(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0 == PL_CUPTI_EXTERNAL_CUSTOM0 && CUPTI_ACTIVITY_FLAG_FLUSH_FORCED == PL_CUPTI_FLUSH_FORCED,
               "values");

#define SAME(theirs, member, ours, own) \
    _Static_assert(offsetof(theirs, member) == offsetof(struct ours, own) && sizeof(((theirs *)0)->member) == sizeof(((struct ours *)0)->own), #member)
#define KERNEL(member, own) SAME(CUpti_ActivityKernel9, member, pl_cupti_kernel, own)
KERNEL(kind, kind);
KERNEL(start, start);
KERNEL(end, end);
KERNEL(completed, completed);
KERNEL(deviceId, device);
KERNEL(contextId, context);
KERNEL(streamId, stream);
KERNEL(correlationId, correlation);
KERNEL(gridId, grid_id);
KERNEL(name, name);
#define EXTERNAL(member, own) SAME(CUpti_ActivityExternalCorrelation, member, pl_cupti_external, own)
EXTERNAL(kind, kind);
EXTERNAL(externalKind, external_kind);
EXTERNAL(externalId, id);
EXTERNAL(correlationId, correlation);
