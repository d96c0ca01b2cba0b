/*
 * Committed rows a second: N processes write M rows each of one new results file, as workers do,
 * then the file is checked whole. bench_rows [-p PROCESSES] [-n ROWS] [-t TOKENS] [-r ROUNDS] [-o
 * FILE]
 */
#include "base/clock.h"
#include "results/reader.h"
#include "results/writer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct options {
    uint32_t processes, rows, tokens, rounds;
    const char *path;
};

static void die(const char *what, const struct pl_err *err)
{
    fprintf(stderr, "bench_rows: %s: %s\n", what, err->text);
    _exit(1);
}

static void sample_id(void *ctx, uint32_t i, char *out, size_t size)
{
    (void)ctx;
    snprintf(out, size, "s%u", i);
}

static void create(const struct options *o, const struct pl_shape *shape)
{
    static const char *const names[] = {"a"}, *const json[] = {"{}"};
    static const int64_t contexts[] = {64};
    struct pl_err err = {.text = ""};
    struct pl_results_spec spec = {.shape = *shape,
                                   .arm_names = names,
                                   .arm_json = json,
                                   .contexts = contexts,
                                   .sample_id = sample_id,
                                   .sample_id_len = 12,
                                   .sweep_text = "bench",
                                   .resolved = "{}",
                                   .log_capacity = {8, 8, 8, 8, 8, 8, 8}};
    char sha[65];
    snprintf(sha, sizeof sha, "%064d", 0);
    spec.sha256 = sha;
    if (pl_results_create(o->path, &spec, &err) != PL_OK)
        die("create", &err);
}

/* A worker: opens, waits for the start byte, writes its share. */
static void worker(const struct options *o, const struct pl_shape *shape, uint32_t me, int start)
{
    struct pl_err err = {.text = ""};
    struct pl_writer *w = NULL;
    struct pl_row row;
    char byte;
    if (pl_writer_open(o->path, shape, &w, &err) != PL_OK ||
        pl_row_init(&row, shape, &err) != PL_OK)
        die("open", &err);
    if (read(start, &byte, 1) != 1)
        _exit(1);
    row.trial->generated = shape->tokens;
    for (uint32_t i = 0; i < shape->tokens; i++) {
        row.tokens[i] = (int32_t)i;
        row.token_ms[i] = (float)i;
    }
    for (uint64_t i = me; i < pl_shape_rows(shape); i += o->processes) {
        row.trial->block = (uint32_t)i;
        row.trial->total_ms = (double)i;
        if (pl_writer_row(w, i, &row, PL_ROW_DONE, 0, 0, &err) != PL_OK)
            die("row", &err);
    }
    _exit(0); /* as a killed one would: nothing is left to flush */
}

static bool count(void *ctx, const struct pl_row_view *v)
{
    if (!v->torn)
        ++*(uint64_t *)ctx;
    return true;
}

static uint64_t count_rows(const char *path)
{
    struct pl_reader *r = NULL;
    struct pl_err err = {.text = ""};
    uint64_t n = 0;
    if (pl_reader_open(path, &r, &err) != PL_OK || pl_reader_each(r, count, &n, &err) != PL_OK)
        die("read", &err);
    pl_reader_free(r);
    return n;
}

int main(int argc, char **argv)
{
    struct options o = {.processes = 2, .rows = 100000, .tokens = 24, .path = "bench_rows.h5"};
    int c, start[2], bad = 0;
    while ((c = getopt(argc, argv, "p:n:t:r:o:")) != -1) {
        const uint32_t n = c == 'o' ? 0 : (uint32_t)strtoul(optarg ? optarg : "0", NULL, 10);
        if (c == 'p')
            o.processes = n;
        else if (c == 'n')
            o.rows = n;
        else if (c == 't')
            o.tokens = n;
        else if (c == 'r')
            o.rounds = n;
        else if (c == 'o')
            o.path = optarg;
        else
            return 2;
    }
    const struct pl_shape shape = {.arms = 1,
                                   .contexts = 1,
                                   .samples = o.rows,
                                   .repeats = o.processes,
                                   .batch = 1,
                                   .tokens = o.tokens,
                                   .models = 2,
                                   .layers = 8,
                                   .rounds = o.rounds};
    unlink(o.path);
    create(&o, &shape);
    if (pipe(start) != 0)
        return 1;
    for (uint32_t p = 0; p < o.processes; p++)
        if (fork() == 0)
            worker(&o, &shape, p, start[0]);
    usleep(300000);
    const int64_t t0 = pl_now_ns();
    for (uint32_t p = 0; p < o.processes; p++)
        if (write(start[1], "g", 1) != 1)
            return 1;
    for (uint32_t p = 0; p < o.processes; p++) {
        int status = 0;
        wait(&status);
        bad |= status;
    }
    const double s = (double)(pl_now_ns() - t0) / 1e9;
    const uint64_t rows = pl_shape_rows(&shape);
    if (bad || count_rows(o.path) != rows)
        return fprintf(stderr, "bench_rows: rows are missing\n"), 1;
    printf("%" PRIu64 " rows of %zu bytes, %u processes, %.3f s: %.0f rows/s, %.1f us a row each\n",
           rows, pl_row_bytes(&shape), o.processes, s, (double)rows / s,
           s * 1e6 * o.processes / (double)rows);
    unlink(o.path);
    return 0;
}
