/* A small results file whose rows are a pure function of their index. */
#ifndef PL_TESTS_RESULTS_FIXTURE_H
#define PL_TESTS_RESULTS_FIXTURE_H

#include "results/reader.h"
#include "results/writer.h"

#define FIXTURE_ROUNDS 4u

/* 2 arms × 2 contexts × 3 samples × 2 repeats; 8 tokens, 4 layers, 4 rounds, 1 metric. */
struct pl_shape fixture_shape(void);
/* Creates a file of that shape, or of another one (labels are made up). */
PL_MUST_CHECK
enum pl_status fixture_create(const char *path, const struct pl_shape *shape, struct pl_err *err);
/* What row `index` holds; identities hold. salt tells attempts apart. */
void fixture_row(const struct pl_shape *shape, uint64_t index, uint32_t salt, struct pl_row *row);
/* 0 empty, 1 done, 2 failed: what fixture_fill makes of it. */
enum pl_row_state fixture_state(uint64_t index);
/* Writes every row that is not to be empty, and some records of each log. */
PL_MUST_CHECK
enum pl_status fixture_fill(const char *path, const struct pl_shape *shape, struct pl_err *err);
/* "<dir of temporary files>/<name>.<pid>"; static buffer, four at a time. */
const char *fixture_path(const char *name);

#endif
