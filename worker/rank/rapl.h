/*
 * Energy counters of this machine's processors: the packages, and the memory beside them where it
 * has a counter of its own, as Linux' powercap tells them (RAPL; AMD's too). Counters run round:
 * each is read often enough to see every turn once.
 */
#ifndef PL_WORKER_RANK_RAPL_H
#define PL_WORKER_RANK_RAPL_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define PL_RAPL_ZONES 32
#define PL_RAPL_ROOT "/sys/class/powercap"

struct pl_rapl {
    struct pl_rapl_zone {
        char path[320]; /* of its energy_uj */
        char name[32];
        uint64_t last, range; /* µJ; range: the counter turns to 0 after it */
        double joules;        /* since it was opened */
    } zones[PL_RAPL_ZONES];
    uint32_t n, readings; /* readings: of all counters, the first included */
    char source[64];      /* "package-0 dram"; the folder in front when it is not PL_RAPL_ROOT */
};

/* Finds the counters below root and reads them for the first time. PL_ENOENT: there are none;
 * PL_EIO, PL_EFORMAT: one cannot be read. The text says which. */
PL_MUST_CHECK
enum pl_status pl_rapl_open(const char *root, struct pl_rapl *out, struct pl_err *err);
/* Adds what was used since the last reading. */
PL_MUST_CHECK
enum pl_status pl_rapl_read(struct pl_rapl *r, struct pl_err *err);
/* Joules since pl_rapl_open, all zones. */
double pl_rapl_joules(const struct pl_rapl *r);

#endif
