/*
 * One GGUF file in memory → metadata and tensor views. Pure: no file is touched, so that tests and
 * fuzzers feed it bytes. Versions 2 and 3, little endian. Format:
 * https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 *
 *   "GGUF" | u32 version | u64 tensors | u64 pairs
 *   pairs:   u64 length, key | u32 type | value (string: u64 length, bytes; array: u32 type, u64
 *            count, values)
 *   tensors: u64 length, name | u32 dims | u64 sizes, innermost first | u32 type | u64 offset
 *   padding to general.alignment (32) | data, each offset a multiple of the alignment
 *
 * Every length, count, size and offset is checked at parsing; keys and names are printable ASCII;
 * nothing overlaps. A view's shape is [rows, cols] as everywhere here: the file's sizes reversed.
 * Types that cannot be decoded but have a known size are listed all the same.
 */
#ifndef PL_MODEL_GGUF_H
#define PL_MODEL_GGUF_H

#include "base/arena.h"
#include "base/status.h"
#include "model/checkpoint.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What no honest file comes near. */
#define PL_GGUF_MAX_PAIRS 65536u
#define PL_GGUF_MAX_KEY 65535u
#define PL_GGUF_MAX_NAME 255u
#define PL_GGUF_MAX_NESTING 4

/* As numbered in the file. */
enum pl_gguf_type {
    PL_GGUF_U8,
    PL_GGUF_I8,
    PL_GGUF_U16,
    PL_GGUF_I16,
    PL_GGUF_U32,
    PL_GGUF_I32,
    PL_GGUF_F32,
    PL_GGUF_BOOL,
    PL_GGUF_STRING,
    PL_GGUF_ARRAY,
    PL_GGUF_U64,
    PL_GGUF_I64,
    PL_GGUF_F64,
    PL_GGUF_TYPES
};

struct pl_gguf_pair {
    const char *key;
    enum pl_gguf_type type;
    enum pl_gguf_type of;      /* of an array's elements */
    uint64_t count;            /* elements of an array, bytes of a string, else 1 */
    const unsigned char *data; /* the value, an array's first element, a string's first byte */
    size_t bytes;              /* that they take in the file */
};

struct pl_gguf_str {
    const char *s; /* not NUL-terminated, any bytes */
    size_t len;
};

struct pl_gguf; /* lives in the arena that it was parsed into */

/* Whether bytes begin as a GGUF file does. */
bool pl_gguf_is(const void *data, size_t size);
/* file: for messages and the views. PL_EFORMAT names what is wrong and where; PL_EUNSUPPORTED a
 * version, a byte order or a tensor's type. */
PL_MUST_CHECK
enum pl_status pl_gguf_parse(const char *file, const void *data, size_t size,
                             struct pl_arena *arena, struct pl_gguf **out, struct pl_err *err);

const char *pl_gguf_file(const struct pl_gguf *g);
uint32_t pl_gguf_version(const struct pl_gguf *g);
/* In the file's order. */
const struct pl_tensor_view *pl_gguf_tensors(const struct pl_gguf *g, size_t *n);
size_t pl_gguf_pairs(const struct pl_gguf *g);
const struct pl_gguf_pair *pl_gguf_pair(const struct pl_gguf *g, size_t i);        /* by key */
const struct pl_gguf_pair *pl_gguf_find(const struct pl_gguf *g, const char *key); /* or NULL */
const char *pl_gguf_type_name(enum pl_gguf_type t);

/* Typed values. A missing key gives dflt (as it is); another type or a value outside [min, max] is
 * PL_EFORMAT, naming the key. Any integer type is an integer, those and floats are reals. */
PL_MUST_CHECK
enum pl_status pl_gguf_int(const struct pl_gguf *g, const char *key, int64_t dflt, int64_t min,
                           int64_t max, int64_t *out, struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_gguf_real(const struct pl_gguf *g, const char *key, double dflt, double *out,
                            struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_gguf_bool(const struct pl_gguf *g, const char *key, bool dflt, bool *out,
                            struct pl_err *err);
/* A missing key: s NULL. */
PL_MUST_CHECK
enum pl_status pl_gguf_string(const struct pl_gguf *g, const char *key, struct pl_gguf_str *out,
                              struct pl_err *err);
/* A string for a message, cut to size − 1 bytes; what cannot be printed becomes ?. Returns out. */
const char *pl_gguf_printable(struct pl_gguf_str s, char *out, size_t size);
/* Arrays, in the arena; a missing key: *out NULL, *n 0. */
PL_MUST_CHECK
enum pl_status pl_gguf_strings(const struct pl_gguf *g, const char *key, struct pl_arena *arena,
                               struct pl_gguf_str **out, size_t *n, struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_gguf_floats(const struct pl_gguf *g, const char *key, struct pl_arena *arena,
                              float **out, size_t *n, struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_gguf_ints(const struct pl_gguf *g, const char *key, struct pl_arena *arena,
                            int32_t **out, size_t *n, struct pl_err *err);
/* Element i < count of an array of numbers or booleans (or of a lone one, i 0), as a real and,
 * where it is one, an integer (unsigned ones beyond int64: clamped). */
double pl_gguf_number(const struct pl_gguf_pair *p, uint64_t i, int64_t *integer);

#endif
