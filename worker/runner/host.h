/* What this process sees of its machine. Local; reads /proc and /sys, never fails: 0 and "" where a
 * file is missing. */
#ifndef PL_WORKER_RUNNER_HOST_H
#define PL_WORKER_RUNNER_HOST_H

#include "model/backend.h"

#include <stdbool.h>
#include <stdint.h>

struct pl_host {
    char cpu_name[96];
    int64_t memory_bytes; /* the machine's, or the control group's limit when that is less */
};
void pl_host_read(struct pl_host *h);

/* Resident bytes of this process, and the most there were since pl_host_reset_peak (since its start
 * where the kernel does not allow that). */
struct pl_resident {
    int64_t now, peak;
};
void pl_host_resident(struct pl_resident *r);
/* Writes 5 to /proc/self/clear_refs (Linux ≥ 4.0, own process: no right needed). False: not
 * possible. */
bool pl_host_reset_peak(void);

#define PL_HOST_GPUS 16 /* most that are told of */
/* The GPUs that this build can run on; how many. */
/* NVIDIA's kernel module, "580.65.06"; "" without one. */
void pl_host_gpu_driver(char *out, size_t size);
size_t pl_host_gpus(struct pl_device_info out[PL_HOST_GPUS]);
/* The number of the GPU of that UUID; −1: it is not there. */
int pl_host_gpu_number(const char *uuid);

#endif
