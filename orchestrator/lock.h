/*
 * FILE.lock: one writer of a results file at a time, on every file system with fcntl locks. Byte 0
 * is rank 0's, exclusively, for the whole run; byte 1 is shared by the workers that have the file
 * open. A new rank 0 takes byte 0, then byte 1 exclusively for a moment: then no worker of a dying
 * run writes any more, and none can come, since its rank 0 is gone. Locks go with the process.
 */
#ifndef PL_ORCHESTRATOR_LOCK_H
#define PL_ORCHESTRATOR_LOCK_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct pl_lock;

/* Rank 0. Waits up to wait_ns for a run that holds it, and says so on stderr after a second; stop()
 * true ends the wait with PL_EINTERRUPTED. PL_EBUSY names the holder. PL_ENOENT, PL_EIO: the
 * directory is missing or not writable. A file system without locks: warned about, PL_OK. */
PL_MUST_CHECK
enum pl_status pl_lock_coordinator(const char *results, int64_t wait_ns, bool (*stop)(void),
                                   struct pl_lock **out, struct pl_err *err);
/* A worker, after rank 0 took its lock. PL_EBUSY: another run is taking over. */
PL_MUST_CHECK
enum pl_status pl_lock_worker(const char *results, struct pl_lock **out, struct pl_err *err);
void pl_lock_free(struct pl_lock *l); /* NULL is fine; FILE.lock stays */

/* Is a coordinator alive? False when there is no lock file or nobody holds it. */
bool pl_lock_held(const char *results);

#endif
