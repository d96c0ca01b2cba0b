/* What a result can be traced by: versions, machine, scheduler, contents of the inputs. */
#ifndef PL_ORCHESTRATOR_PROVENANCE_H
#define PL_ORCHESTRATOR_PROVENANCE_H

#include "orchestrator/sweep.h"

/* An object for /sweep; new reference. mpi: text of the MPI library, "" without. Reads every file
 * of the models and the data once, for their SHA-256: "weights": {model: hash of its files' names
 * and hashes}, "data": hash (of scenes: pl_scenes_hash). PL_EIO, PL_ENOENT: a file went. */
PL_MUST_CHECK
enum pl_status pl_provenance(const struct pl_sweep *s, const char *mpi, unsigned ranks,
                             json_t **out, struct pl_err *err);

#endif
