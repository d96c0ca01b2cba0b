/* What model/cuda/profile.c takes for granted of CUPTI, held against a toolkit's header where there is one. Compiled, never run. */
#include <cupti.h>
#include <stddef.h>

_Static_assert(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL == 10 && CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION == 39, "kinds");
_Static_assert(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0 == 3 && CUPTI_ACTIVITY_FLAG_FLUSH_FORCED == 1, "values");
#define KERNEL(member, at) _Static_assert(offsetof(CUpti_ActivityKernel9, member) == (at), #member)
KERNEL(kind, 0);
KERNEL(start, 16);
KERNEL(end, 24);
KERNEL(correlationId, 92);
KERNEL(gridId, 96);
KERNEL(name, 104);
#define EXTERNAL(member, at) _Static_assert(offsetof(CUpti_ActivityExternalCorrelation, member) == (at), #member)
EXTERNAL(externalKind, 4);
EXTERNAL(externalId, 8);
EXTERNAL(correlationId, 16);
