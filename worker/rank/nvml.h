/*
 * What NVIDIA's management library says of a GPU: clock, temperature, why it is slowed down,
 * energy. The library is opened when a worker was dealt a GPU (dlopen), so that the program starts
 * where there is no driver; no header of NVIDIA's is needed.
 */
#ifndef PL_WORKER_RANK_NVML_H
#define PL_WORKER_RANK_NVML_H

#include "base/status.h"

#include <stdint.h>

struct pl_nvml;

struct pl_nvml_reading {
    double mhz, celsius; /* of the multiprocessors; NaN: not readable */
    uint64_t throttle;   /* nvmlClocksEventReason bits; 0: none, or not readable */
    double joules;       /* counted since the driver was loaded; NaN: this GPU has no counter */
};

/* library NULL: "libnvidia-ml.so.1". PL_ENOENT: no library, or it lacks a function; PL_ESYS: it
 * does not start, or knows no GPU of that UUID ("GPU-…"). The text says which. */
PL_MUST_CHECK
enum pl_status pl_nvml_open(const char *library, const char *uuid, struct pl_nvml **out,
                            struct pl_err *err);
void pl_nvml_close(struct pl_nvml *n); /* accepts NULL */
/* All that can be read now; NULL reads nothing: NaN and 0. */
void pl_nvml_read(struct pl_nvml *n, struct pl_nvml_reading *out);

#endif
