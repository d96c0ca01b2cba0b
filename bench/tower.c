/* Times an image tower's products: tower CONFIG THREADS RUNS [FRAMES]. CONFIG: a config.json,
 * weights random, f32. Each run is one pass over FRAMES random pictures with the backend's clock
 * between operations on the calling thread. Prints JSON: seconds of a run, seconds and operations
 * of the products, the multiply-add limit of the same threads measured before and after. */
#include "base/clock.h"
#include "base/rng.h"
#include "model/model.h"
#include "worker/runner/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The operations that are products of a matrix of weights, by the profile's names. */
static const char *const products[] = {"q, k, v", "attention output", "gate, up", "down"};

/* 2 a weight and row, all blocks. */
static double flop(const struct pl_arch *a, size_t frames)
{
    const double h = a->hidden, q = (double)a->heads * a->head_dim;

    return 2.0 * (double)frames * (double)pl_arch_image_rows(a) * a->layers *
           (4 * h * q + 2 * h * a->ffn);
}

static bool is_product(const char *name)
{
    for (size_t i = 0; i < sizeof(products) / sizeof(products[0]); i++)
        if (strcmp(products[i], name) == 0)
            return true;
    return false;
}

static enum pl_status one_run(const struct pl_model *m, const struct pl_pixels *p, float *rows,
                              bool last, struct pl_err *err)
{
    const struct pl_backend *b = pl_model_backend(m);
    struct pl_device *d = pl_model_device(m);
    const struct pl_arch *tower = &pl_model_info(m)->vision.tower;
    enum pl_status st;
    double ns = 0;
    size_t n;

    st = b->profile(d, true, err);
    if (st)
        return st;
    const int64_t t0 = pl_now_ns();
    st = pl_vision_encode(pl_model_vision(m), p, rows, err);
    const int64_t t1 = pl_now_ns();
    const struct pl_op_time *ops = b->profile_read(d, &n);

    printf("{\"seconds\":%.4f,\"ops\":{", (double)(t1 - t0) / 1e9);
    for (size_t i = 0; i < n; i++) {
        ns += is_product(ops[i].name) ? (double)ops[i].ns : 0;
        printf("%s\"%s\":%.4f", i ? "," : "", ops[i].name, (double)ops[i].ns / 1e9);
    }
    printf("},\"product_seconds\":%.4f,\"product_gflop\":%.3f}%s", ns / 1e9,
           flop(tower, p->frames) / 1e9, last ? "" : ",\n");
    (void)!b->profile(d, false, err);
    return st;
}

static enum pl_status bench(const char *config, int threads, long runs, size_t frames,
                            struct pl_err *err)
{
    const struct pl_model_opts o = {
        .where = {.threads = threads}, .dtype = PL_DT_F32, .random = true, .random_seed = 1};
    struct pl_limits before, after;
    struct pl_model *m = NULL;
    struct pl_pixels p = {.frames = frames};
    struct pl_rng rng;
    float *rows = NULL;
    enum pl_status st = pl_model_load(config, &o, &m, err);

    if (st)
        return st;
    const struct pl_vision_config *c = pl_vision_config(pl_model_vision(m));
    const size_t each = 3 * (size_t)c->tower.image * (size_t)c->tower.image;
    p.size = c->tower.image;
    p.v = malloc(frames * each * sizeof(*p.v));
    rows = malloc((size_t)pl_vision_rows(c, frames, false) * (size_t)c->hidden * sizeof(*rows));
    st = p.v && rows ? pl_limits_measure(threads, &before, err)
                     : pl_fail(err, PL_ENOMEM, "no memory for %zu pictures", frames);
    pl_rng_init(&rng, 1);
    for (size_t i = 0; !st && i < frames * each; i++)
        p.v[i] = (float)pl_rng_normal(&rng);
    if (!st)
        st = pl_vision_encode(pl_model_vision(m), &p, rows, err); /* untimed */
    if (!st)
        printf("{\"runs\":[");
    for (long r = 0; !st && r < runs; r++)
        st = one_run(m, &p, rows, r + 1 == runs, err);
    if (!st)
        st = pl_limits_measure(threads, &after, err);
    if (!st)
        printf("],\n\"threads\":%d,\"fma_gflop_per_s\":[%.2f,%.2f],\"vectors\":\"%s\"}\n", threads,
               before.f32_flop_per_s / 1e9, after.f32_flop_per_s / 1e9, after.vectors);
    free(rows);
    pl_pixels_release(&p);
    pl_model_free(m);
    return st;
}

int main(int argc, char **argv)
{
    const long threads = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
    const long runs = argc > 3 ? strtol(argv[3], NULL, 10) : 0;
    const long frames = argc > 4 ? strtol(argv[4], NULL, 10) : 1;
    struct pl_err err = {""};

    if (threads < 1 || runs < 1 || frames < 1 || frames > 64) {
        fprintf(stderr, "usage: tower CONFIG THREADS RUNS [FRAMES]\n");
        return 2;
    }
    if (bench(argv[1], (int)threads, runs, (size_t)frames, &err)) {
        fprintf(stderr, "tower: %s\n", err.text);
        return 2;
    }
    return 0;
}
