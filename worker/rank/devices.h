/*
 * Who computes on what: from what the ranks report, each worker's place on its node and its device
 * set. Pure; every rank that is given the same reports comes to the same deal.
 */
#ifndef PL_WORKER_RANK_DEVICES_H
#define PL_WORKER_RANK_DEVICES_H

#include "base/json.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_DEVICES_MAX 16 /* devices that one rank may report */

/* Plain memory without pointers: may be sent as bytes between ranks of one build. */
struct pl_device {
    char kind[8];  /* "cpu", "cuda", "sim" … */
    char uuid[64]; /* unique in the world for accelerators; "cpu" for the CPU */
    char name[96];
    uint64_t bytes; /* memory; 0: not known */
};

struct pl_device_report {
    char host[64];
    int32_t rank;
    uint32_t worker; /* 1: it takes leases; 0: a coordinator, which gets no device */
    uint32_t n;
    struct pl_device devices[PL_DEVICES_MAX];
};

struct pl_device_deal {
    int32_t rank;
    int32_t local_index,
        local_count;         /* among the workers of its host, in rank order; −1, 0 for others */
    uint32_t n;              /* devices of its set: 0 (it idles), 1 or 2 */
    struct pl_device set[2]; /* drafter's partner second */
    char why[160];           /* n = 0: why it idles; else "" */
};

/* Fills a report's devices from a hello's "devices" (missing or empty: one "cpu"). Beyond
 * PL_DEVICES_MAX: dropped. Returns the number taken. */
uint32_t pl_devices_from_hello(const json_t *hello, struct pl_device_report *report);

/*
 * Deals device sets of set_size (1 or 2) among the workers of every host. kind: "cpu", "cuda", or
 * "auto": accelerators on hosts where a worker sees one, else the CPU. One accelerator goes to one
 * worker at most, and only to a worker that reported it (under
 * --gpus-per-task each sees its own); doubles by UUID are dropped, also over several names of one
 * host. The CPU is one device that all workers of its host share (their cores differ), whatever
 * set_size says. deals[n] is in the order of reports[n].
 */
PL_MUST_CHECK
enum pl_status pl_devices_deal(const struct pl_device_report *reports, size_t n, const char *kind,
                               uint32_t set_size, struct pl_device_deal *deals, struct pl_err *err);

#endif
