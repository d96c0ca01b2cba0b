#include "worker/runner/engine.h"

#include <math.h>
#include <string.h>

const char *pl_fault_name(enum pl_fault_reason r)
{
    static const char *const names[] = {
#define PL_X(sym, name) name,
        PL_FAULT_LIST(PL_X)
#undef PL_X
    };

    return (unsigned)r < PL_FAULT_COUNT ? names[r] : "runner";
}

enum pl_status pl_fault_set(struct pl_fault *f, enum pl_status st, enum pl_fault_reason reason)
{
    f->reason = st == PL_ENOMEM ? PL_FAULT_OOM : reason;
    f->fatal = st == PL_ENOMEM || st == PL_EDEVICE; /* nothing more comes of a GPU that failed */
    return st;
}

const char *pl_phase_name(enum pl_phase p)
{
    static const char *const names[] = {
#define PL_X(sym, name) name,
        PL_PHASE_LIST(PL_X)
#undef PL_X
    };

    return (unsigned)p < PL_PHASE_COUNT ? names[p] : "unknown";
}

void pl_trial_result_quality(struct pl_trial_result *r, const char *name, double value)
{
    if (isfinite(value) && r->n_quality < PL_TRIAL_QUALITIES)
        r->quality[r->n_quality++] = (struct pl_trial_quality){name, value};
}

void pl_trial_result_init(struct pl_trial_result *r)
{
    memset(r, 0, sizeof(*r));
    r->sequences = 1;
    for (int i = 0; i < PL_PHASE_COUNT; i++)
        r->phase_ns[i] = -1;
    r->device_ns[0] = r->device_ns[1] = -1;
    r->weights_bytes = r->kv_bytes = r->workspace_bytes = -1;
    r->device_peak_bytes = r->other_bytes = -1;
    r->work.prefill_flops = r->work.decode_flops = r->work.decode_bytes = -1;
}
