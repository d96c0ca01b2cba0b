/* A line that a runner sends: JSON, then a row of a small shape. */
#include "fuzz.h"
#include "results/reader.h"
#include "worker/rank/row.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct pl_shape shape = {1, 1, 1, 1, 2, 4, 2, 3, 4, 0};
    struct pl_row row = {0};
    struct pl_err err;
    char why[256];
    json_t *line = NULL;
    if (pl_json_parse("line", (const char *)data, size, &line, &err) != PL_OK)
        return 0;
    if (pl_row_init(&row, &shape, &err) == PL_OK &&
        pl_row_from_result(line, &shape, 2, &row, &err) == PL_OK)
        (void)pl_row_check(&shape, &row, why, sizeof why);
    pl_row_release(&row);
    json_decref(line);
    return 0;
}
