/*
 * NumPy's files as far as this project reads them: .npy versions 1.0 to 3.0, of numbers or of a
 * structured dtype of numbers, and .npz archives of them. Nothing is copied: what is found points
 * into the bytes that were given. Format:
 * https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 */
#ifndef PL_MODEL_NPY_H
#define PL_MODEL_NPY_H

#include "base/arena.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_NPY_MAX_DIMS 8
#define PL_NPY_MAX_FIELDS 32
#define PL_NPY_MAX_PIXELS (1u << 28) /* numbers of one file of pixels */

/* NumPy's letters: i u f b(ool), O object, S bytes, U text, V structured or opaque. */
struct pl_npy_type {
    char kind;
    bool big; /* endian */
    size_t item;
};

struct pl_npy_field {
    char name[32];
    struct pl_npy_type type;
    size_t at; /* in the item */
};

struct pl_npy {
    struct pl_npy_type type; /* V: the fields', item their sum */
    struct pl_npy_field field[PL_NPY_MAX_FIELDS];
    int fields; /* 0: not structured */
    bool fortran;
    int dims;
    size_t dim[PL_NPY_MAX_DIMS], count; /* count: their product */
    const uint8_t *data;                /* what follows the header */
    size_t bytes;                       /* count · item, but for objects: those are a pickle */
};

/* PL_EFORMAT says what the header lies about. name: for messages. */
PL_MUST_CHECK
enum pl_status pl_npy_parse(const char *name, const void *data, size_t len, struct pl_npy *out,
                            struct pl_err *err);
/* "<f4", "|O" … (the text between the quotes); false: not a type of this list. */
bool pl_npy_type_parse(const char *text, size_t len, struct pl_npy_type *out);

/* One number after another, stride bytes apart. */
struct pl_column {
    const uint8_t *data;
    size_t n, stride;
    struct pl_npy_type type;
};
/* The numbers as whole ones, out[n]; floats are rounded down when `floor`, else must be whole.
 * PL_EFORMAT: a type that holds no numbers; PL_ERANGE names the place of what does not fit. `what`
 * and name: for messages. */
PL_MUST_CHECK
enum pl_status pl_column_ints(const struct pl_column *c, const char *name, const char *what,
                              bool floor, int64_t *out, struct pl_err *err);

/* Whether the bytes begin as a zip archive does. */
bool pl_npz_is(const void *data, size_t len);
/* Array `key` of an .npz archive, inflated into the arena where it is deflated. PL_ENOENT: there is
 * no such array; PL_EFORMAT, PL_EUNSUPPORTED (method; deflate in a build without zlib). */
PL_MUST_CHECK
enum pl_status pl_npz_array(const char *name, const void *data, size_t len, const char *key,
                            struct pl_arena *arena, struct pl_npy *out, struct pl_err *err);

/* float32 [frames, channels, height, width], or three dimensions of one frame, little endian, C
 * order; *out is malloc'd, n[4] its sizes. PL_EFORMAT, PL_ERANGE (more than PL_NPY_MAX_PIXELS). */
PL_MUST_CHECK
enum pl_status pl_npy_read_pixels(const char *path, float **out, size_t n[4], struct pl_err *err);

#endif
