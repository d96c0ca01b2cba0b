/* NumPy files, as this program writes and reads them: version 1.0 out, what model/npy.h reads in.
 * Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html */
#ifndef PL_CLI_RUNNER_NPY_H
#define PL_CLI_RUNNER_NPY_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#define PL_NPY_HEADER 128 /* bytes of the header that pl_npy_write makes */
#define PL_NPY_MAX_IDS (1u << 24)

/* float32 of that shape: `data` has PL_NPY_HEADER free bytes in front of the numbers, which are
 * filled here, so that one atomic write does. A path that is not a regular file (a pipe, a device)
 * is written to as it is. */
PL_MUST_CHECK
enum pl_status pl_npy_write(const char *path, void *data, const size_t *dim, int dims,
                            struct pl_err *err);
/* A list of int32, int64, uint8 or bool, [n] or [1, n], little endian; *ids is malloc'd. PL_EFORMAT
 * says what the file lies about; PL_ERANGE: more than PL_NPY_MAX_IDS, or a number beyond int32. */
PL_MUST_CHECK
enum pl_status pl_npy_read_ids(const char *path, int32_t **ids, size_t *n, struct pl_err *err);
#endif
