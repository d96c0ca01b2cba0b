/* The rows of `bench` on stdout. */
#ifndef PL_CLI_RUNNER_BENCH_PRINT_H
#define PL_CLI_RUNNER_BENCH_PRINT_H

#include "model/backend.h"
#include "model/model.h"
#include "worker/runner/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pl_bench_format { PL_BENCH_MD, PL_BENCH_CSV, PL_BENCH_JSON };

struct pl_bench_head {
    const char *path;
    const struct pl_model_info *info;
    const char *kv; /* the cache's type */
    int threads;
    struct pl_limits limits;
    struct pl_device_ceilings device; /* read_bytes_per_s > 0: the limits are this device's */
    double load_s;                    /* from the files to a model that can run */
    double loaded_bytes, peak_bytes;  /* resident: then, and the most by the end of the tests */
    const struct pl_bench_profile *profiles; /* [n_profiles] */
    size_t n_profiles;
};

#define PL_BENCH_OPS 64

/* Where one more run of a test spent its time: by operation on the calling thread, or by kernel. */
struct pl_bench_profile {
    size_t row; /* of the test */
    struct pl_op_time ops[PL_BENCH_OPS];
    char names[PL_BENCH_OPS][80];
    size_t n;
};

enum pl_bench_kind { PL_BENCH_PROMPT, PL_BENCH_GENERATION, PL_BENCH_VERIFY };

/* mean, sd, best: tokens/s of all sequences over the repeats; ms: of one prompt, step or
 * verification. gb_per_s: weights and KV read by generation / time, NaN for prompts; gflop_per_s:
 * multiply-adds as two operations, in integers where activations are 8-bit; NaN for verifications
 * and for steps behind an encoder. steps: a verification's time in decode steps timed in turn with
 * it, and its deviation; else NaN. */
struct pl_bench_row {
    enum pl_bench_kind kind;
    int64_t tokens, depth, repeats, sequences; /* tokens: of a verification, its rows */
    double mean, sd, best, ms, gb_per_s, gflop_per_s, steps, steps_sd;
};

void pl_bench_print(enum pl_bench_format f, const struct pl_bench_head *h,
                    const struct pl_bench_row *rows, size_t n);

#endif
