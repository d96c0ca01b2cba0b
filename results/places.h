/* The cells of one row inside its block, in the order in which the CRC takes them. Of this room
 * only; knows no HDF5. */
#ifndef PL_RESULTS_PLACES_H
#define PL_RESULTS_PLACES_H

#include "results/record.h"

/* In the order in which the CRC takes them. */
enum pl_cell {
    PL_CELL_TRIALS,
    PL_CELL_TOKENS,
    PL_CELL_TOKEN_MS,
    PL_CELL_KV_LEN,
    PL_CELL_ROUNDS,
    PL_CELL_QUALITY,
    PL_CELLS
};

struct pl_layout {
    size_t size[PL_CELLS];   /* bytes of a row's cell; 0: the dataset is absent */
    size_t offset[PL_CELLS]; /* from the row's first byte */
    size_t bytes;            /* of the row */
};

void pl_layout_of(const struct pl_shape *shape, struct pl_layout *out);
const char *pl_cell_name(enum pl_cell c); /* "trials" … */

/* Every dataset is one run of bytes: element i of a row dataset stands at its address + i * size.
 */
struct pl_places {
    struct pl_shape shape;
    uint64_t rows;
    struct pl_layout layout;
    uint64_t spans_at; /* 0: the file has none */
    uint64_t work_at;  /* likewise */
    uint64_t commit_at, cell_at[PL_CELLS], overflow_at, log_at[PL_LOG_KINDS];
    uint32_t log_capacity[PL_LOG_KINDS];
};

/* Where a row's PL_SPANS_MAX spans stand; 0: it has none. */
uint64_t pl_places_spans(const struct pl_places *p, uint64_t index);

#endif
