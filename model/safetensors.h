/*
 * One safetensors file in memory → tensor views. Pure: no file is touched, so that tests and
 * fuzzers feed it bytes. The format's rules are all kept: header ≤ 100 MB and inside the file,
 * known types, shape · size = bytes, tensors neither overlap nor leave holes, and the last one ends
 * at the end of the file.
 */
#ifndef PL_MODEL_SAFETENSORS_H
#define PL_MODEL_SAFETENSORS_H

#include "base/arena.h"
#include "base/status.h"
#include "model/checkpoint.h"

#include <stddef.h>

/* file: for messages and the views. Views and their names live in the arena, data points into
 * `data`. */
PL_MUST_CHECK
enum pl_status pl_safetensors_parse(const char *file, const void *data, size_t size,
                                    struct pl_arena *arena, struct pl_tensor_view **out, size_t *n,
                                    struct pl_err *err);

#endif
