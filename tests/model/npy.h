/* Reads the little-endian .npy files of the goldens (float32 or int32, C order, 1 to 4 dimensions).
 * Test code: fails the test on error. */
#ifndef PL_TESTS_MODEL_NPY_H
#define PL_TESTS_MODEL_NPY_H

#include <stddef.h>

struct npy {
    size_t rows, cols; /* one dimension: rows 1; more than two: all but the last */
    void *data;        /* malloc'd: float or int32_t */
};

struct npy npy_read(const char *path);

#endif
