/* A GGUF file's metadata as JSON, for `inspect`. */
#ifndef PL_CLI_RUNNER_INSPECT_GGUF_H
#define PL_CLI_RUNNER_INSPECT_GGUF_H

#include "model/gguf.h"

#include <jansson.h>

/* {key: value …} in order of key: numbers, booleans, strings (not UTF-8: with ? for what cannot be
 * printed), lists of up to 16 numbers or strings; longer or nested ones as {"of": type, "count":
 * N}. New reference; NULL: no memory. */
json_t *pl_gguf_metadata_json(const struct pl_gguf *g);

#endif
