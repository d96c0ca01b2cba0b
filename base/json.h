/*
 * JSON is jansson's (<jansson.h>: json_t, reference counted). These are the few things it lacks:
 * access with an expected type and a message that names the key, one-line output into a pl_buf, and
 * caps.
 */
#ifndef PL_BASE_JSON_H
#define PL_BASE_JSON_H

#include "base/buf.h"
#include "base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define PL_JSON_MAX (8u << 20) /* a line of the runner protocol, a config file */

/* Parses one object or array; PL_EFORMAT with "name:line:column: …". Duplicate keys are an error.
 * New reference. */
PL_MUST_CHECK
enum pl_status pl_json_parse(const char *name, const char *text, size_t len, json_t **out,
                             struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_json_read_file(const char *path, size_t cap, json_t **out, struct pl_err *err);
/* Compact, keys in insertion order, reals with 17 significant digits, no newline. */
PL_MUST_CHECK
enum pl_status pl_json_dump(const json_t *j, struct pl_buf *out, struct pl_err *err);

/* Typed members: absent or null → the default; present with another type → PL_EFORMAT naming `key`.
 * An integer is taken where a real is asked. Strings are borrowed. */
PL_MUST_CHECK
enum pl_status pl_json_i64(const json_t *o, const char *key, int64_t dflt, int64_t *out,
                           struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_json_f64(const json_t *o, const char *key, double dflt, double *out,
                           struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_json_bool(const json_t *o, const char *key, bool dflt, bool *out,
                            struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_json_str(const json_t *o, const char *key, const char *dflt, const char **out,
                           struct pl_err *err);
/* Convenience without errors: NULL / dflt when absent or of another type. */
const char *pl_json_get_str(const json_t *o, const char *key, const char *dflt);
int64_t pl_json_get_i64(const json_t *o, const char *key, int64_t dflt);
double pl_json_get_f64(const json_t *o, const char *key, double dflt);

#endif
