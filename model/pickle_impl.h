/* A pickle's values, as pickle.c builds them and pickle_get.c reads them. */
#ifndef PL_MODEL_PICKLE_IMPL_H
#define PL_MODEL_PICKLE_IMPL_H

#include "model/pickle.h"

#include <string.h>

enum kind { MARK, NONE, INT, FLOAT, STR, BYTES, TUPLE, LIST, DICT, GLOBAL, DTYPE, ARRAY, SCALAR };

/* What a message calls it. */
extern const char *const pl_pickle_kinds[];

enum global { G_RECONSTRUCT, G_SCALAR, G_FROMBUFFER, G_NDARRAY, G_DTYPE, G_ENCODE };

struct pl_pickle {
    enum kind kind;
    enum global global;
    int64_t i; /* INT (bool, too) */
    const uint8_t *bytes;
    size_t len;              /* of bytes; of items */
    struct pl_pickle **item; /* TUPLE, LIST; DICT: key, value, key, value … */
    size_t room;
    struct pl_npy_type type; /* DTYPE, ARRAY */
    int dims;                /* ARRAY; −1: not built yet */
    size_t dim[PL_PICKLE_MAX_DIMS], count;
};

static inline bool pl_pickle_is(const struct pl_pickle *v, const char *text)
{
    return v->len == strlen(text) && !memcmp(v->bytes, text, v->len);
}

#endif
