/*
 * The pickles that NumPy writes for dictionaries of arrays, protocols 2 to 5, and nothing else:
 * values are built, never executed. Of Python's global names just the constructors of ndarray,
 * dtype and NumPy scalars (from numpy.core and numpy._core) and _codecs.encode are known; any other
 * is an error. Format: https://github.com/python/cpython/blob/main/Lib/pickletools.py
 */
#ifndef PL_MODEL_PICKLE_H
#define PL_MODEL_PICKLE_H

#include "base/arena.h"
#include "base/status.h"
#include "model/npy.h"

#include <stddef.h>
#include <stdint.h>

#define PL_PICKLE_MAX_OPS 1000000u /* of one file, and so values, memo entries and stack */
#define PL_PICKLE_MAX_DIMS PL_NPY_MAX_DIMS

struct pl_pickle; /* a value; lives in the arena, its bytes in the data that was read */

/* name: for messages. PL_EFORMAT says at which byte what was found; any bytes are safe. */
PL_MUST_CHECK
enum pl_status pl_pickle_read(const char *name, const void *data, size_t len,
                              struct pl_arena *arena, const struct pl_pickle **out,
                              struct pl_err *err);
/* The dictionary that a value is, or the single element of an object array. PL_EFORMAT: it is
 * neither. */
PL_MUST_CHECK
enum pl_status pl_pickle_dict(const char *name, const struct pl_pickle *v,
                              const struct pl_pickle **out, struct pl_err *err);
/* Array `key` of a dictionary as a column. PL_ENOENT: no such key; PL_EFORMAT: it is no array of
 * one dimension of numbers, named. */
PL_MUST_CHECK
enum pl_status pl_pickle_column(const char *name, const struct pl_pickle *dict, const char *key,
                                struct pl_column *out, struct pl_err *err);

#endif
