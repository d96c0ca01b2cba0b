/*
 * Products of matrices alone, on one thread by its CPU time: products [OUTPUTS] [COLUMNS]. Dense
 * weights with ROWS rows beside OpenBLAS and oneDNN, where the system has them (dlopen; f32, one
 * thread), and block formats by rows with activations of 8 bits, at last one row with weights out
 * of memory; beside all of them the rate of multiply-adds in registers and of reading. Tables on
 * stdout; each figure is the best of seven.
 */
#include "base/clock.h"
#include "model/cpu/cpu.h"
#include "worker/runner/limits.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROWS 512
#define RUNS 7
#define STREAMED ((size_t)96 << 20) /* bytes */

struct product {
    const struct pl_kernels *k;
    struct pl_gemm g;
};

static double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *room(size_t bytes)
{
    void *p = aligned_alloc(64, pl_round_up(bytes, 64));

    if (!p)
        exit(1);
    memset(p, 0, bytes);
    return p;
}

/* 10⁹ multiply-adds a second */
static double rate(void (*run)(void *), void *arg, double multiply_adds)
{
    double best = 0;

    for (int r = 0; r < RUNS; r++) {
        double begin = cpu_seconds();
        run(arg);
        double got = multiply_adds / (cpu_seconds() - begin) / 1e9;
        best = got > best ? got : best;
    }
    return best;
}

static void run_ours(void *arg)
{
    const struct product *p = arg;

    p->k->gemm(&p->g);
}

typedef void cblas_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a,
                      int lda, const float *b, int ldb, float beta, float *c, int ldc);
typedef int dnnl_fn(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                    int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc);

struct peer {
    cblas_fn *cblas;
    dnnl_fn *dnnl;
    size_t n, k;
    const float *x, *w;
    float *y;
};

static void run_cblas(void *arg)
{
    const struct peer *p = arg;
    int n = (int)p->n, k = (int)p->k;

    p->cblas(101, 111, 112, ROWS, n, k, 1, p->x, k, p->w, k, 0, p->y, n);
}

static void run_dnnl(void *arg)
{
    const struct peer *p = arg;
    int64_t n = (int64_t)p->n, k = (int64_t)p->k;

    (void)p->dnnl('N', 'T', ROWS, n, k, 1, p->x, k, p->w, k, 0, p->y, n);
}

static void *symbol(const char *library, const char *name)
{
    void *l = dlopen(library, RTLD_NOW | RTLD_LOCAL);

    return l ? dlsym(l, name) : NULL;
}

static void dense(const struct pl_kernels *k, size_t outputs, size_t columns, const float *x,
                  float *y, float *scratch, double fma)
{
    static const enum pl_dtype types[] = {PL_DT_F32, PL_DT_F16, PL_DT_BF16};
    const double work = (double)ROWS * (double)(outputs * columns);
    struct peer peer = {.n = outputs, .k = columns, .x = x, .y = y};
    float *values = room(outputs * columns * sizeof(*values));
    void *w = room(outputs * columns * sizeof(float));

    for (size_t i = 0; i < outputs * columns; i++)
        values[i] = (float)(i % 251) * 0.01f - 1;
    printf("| weights, %d rows | GFLOP/s | %% of multiply-adds |\n|---|---:|---:|\n", ROWS);
    for (size_t t = 0; t < 3; t++) {
        struct product p = {.k = k,
                            .g = {.x = x,
                                  .ldx = pl_cpu_pitch(columns),
                                  .rows = ROWS,
                                  .k = columns,
                                  .w = w,
                                  .dtype = types[t],
                                  .stride = columns * PL_PANEL,
                                  .end = outputs / PL_PANEL,
                                  .n = outputs,
                                  .y = y,
                                  .ldy = pl_cpu_pitch(outputs),
                                  .scratch = scratch}};
        pl_dtype_from_f32(types[t], values, w, outputs * columns);
        double got = 2 * rate(run_ours, &p, work);
        printf("| %s | %.1f | %.0f |\n", pl_dtype_traits(types[t])->name, got, 100 * got / fma);
    }
    peer.w = values;
    peer.cblas = (cblas_fn *)symbol("libopenblas.so.0", "cblas_sgemm");
    peer.dnnl = (dnnl_fn *)symbol("libdnnl.so.2", "dnnl_sgemm");
    for (int t = 0; t < 2; t++) {
        bool there = t ? peer.dnnl != NULL : peer.cblas != NULL;
        double got = there ? 2 * rate(t ? run_dnnl : run_cblas, &peer, work) : 0;
        if (there)
            printf("| f32, %s | %.1f | %.0f |\n", t ? "oneDNN" : "OpenBLAS", got, 100 * got / fma);
    }
    free(values);
    free(w);
}

/* Blocks of any bits, but d and m of ordinary size. */
static uint8_t *panels(enum pl_dtype dt, size_t outputs, size_t columns)
{
    struct pl_q8_format f = pl_q8_format(dt);
    size_t each = pl_q8_panel_bytes(dt, columns), n = outputs / PL_PANEL * each;
    uint8_t *w = room(n);
    uint16_t half = pl_f32_to_f16(0.01f);

    for (size_t i = 0; i < n; i++)
        w[i] = (uint8_t)(i * 2654435761u >> 13);
    for (size_t b = 0; b < n; b += pl_q8_block_bytes(&f))
        for (size_t i = 0; i < 16 * (1 + (size_t)f.has_m); i++)
            memcpy(w + b + 2 * i, &half, 2);
    return w;
}

static const enum pl_dtype block_types[] = {PL_DT_Q4_0, PL_DT_Q4_1, PL_DT_Q5_0, PL_DT_Q5_1,
                                            PL_DT_Q8_0, PL_DT_Q2_K, PL_DT_Q3_K, PL_DT_Q4_K,
                                            PL_DT_Q5_K, PL_DT_Q6_K};
#define BLOCK_TYPES (sizeof(block_types) / sizeof(block_types[0]))

static void quantised(const struct pl_kernels *k, size_t outputs, size_t columns, const float *x,
                      float *y)
{
    static const size_t rows[] = {1, 4, 8, 22, 64, ROWS};
    size_t chunks = pl_q8_chunks(columns);
    struct pl_q8 *q8 = room(ROWS * chunks * sizeof(*q8));

    for (size_t r = 0; r < ROWS; r++)
        k->quantize(x + r * columns, columns, q8 + r, ROWS);
    printf("\n| 10^9 multiply-adds/s by rows | 1 | 4 | 8 | 22 | 64 | %d |\n"
           "|---|---:|---:|---:|---:|---:|---:|\n",
           ROWS);
    for (size_t t = 0; t < BLOCK_TYPES; t++) {
        uint8_t *w = panels(block_types[t], outputs, columns);
        printf("| %s |", pl_dtype_traits(block_types[t])->name);
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
            struct product p = {.k = k,
                                .g = {.q8 = q8,
                                      .ldq8 = ROWS,
                                      .rows = rows[i],
                                      .k = columns,
                                      .w = w,
                                      .dtype = block_types[t],
                                      .stride = pl_q8_panel_bytes(block_types[t], columns),
                                      .end = outputs / PL_PANEL,
                                      .n = outputs,
                                      .y = y,
                                      .ldy = outputs}};
            printf(" %.1f |", rate(run_ours, &p, (double)rows[i] * (double)(outputs * columns)));
        }
        putchar('\n');
        free(w);
    }
    free(q8);
}

/* One row, and more weights than caches hold: as in generation. */
static void streamed(const struct pl_kernels *k, size_t columns, const float *x)
{
    struct pl_q8 *q8 = room(pl_q8_chunks(columns) * sizeof(*q8));

    k->quantize(x, columns, q8, 1);
    printf("\n| one row, weights out of memory | GB/s |\n|---|---:|\n");
    for (size_t t = 0; t < BLOCK_TYPES; t++) {
        const size_t each = pl_q8_panel_bytes(block_types[t], columns), n = STREAMED / each;
        uint8_t *w = panels(block_types[t], n * PL_PANEL, columns);
        float *y = room(n * PL_PANEL * sizeof(*y));
        struct product p = {.k = k,
                            .g = {.q8 = q8,
                                  .ldq8 = 1,
                                  .rows = 1,
                                  .k = columns,
                                  .w = w,
                                  .dtype = block_types[t],
                                  .stride = each,
                                  .end = n,
                                  .n = n * PL_PANEL,
                                  .y = y,
                                  .ldy = n * PL_PANEL}};
        printf("| %s | %.1f |\n", pl_dtype_traits(block_types[t])->name,
               rate(run_ours, &p, (double)(n * each)));
        free(w);
        free(y);
    }
    free(q8);
}

int main(int argc, char **argv)
{
    size_t outputs = argc > 1 ? strtoul(argv[1], NULL, 10) : 1024;
    size_t columns = argc > 2 ? strtoul(argv[2], NULL, 10) : 2048;
    struct pl_device *d = NULL;
    struct pl_err err = {""};
    struct pl_limits limits;

    if (outputs < PL_PANEL || outputs % PL_PANEL || columns < 256 || columns % 256)
        return fprintf(stderr, "products: outputs in sixteens and columns in 256s are expected\n"),
               2;
    setenv("OMP_NUM_THREADS", "1", 1);
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    if (pl_limits_measure(1, &limits, &err) ||
        pl_cpu_backend.open(&(struct pl_device_opts){.threads = 1}, &d, &err))
        return fprintf(stderr, "products: %s\n", err.text), 1;
    float *x = room(ROWS * pl_cpu_pitch(columns) * sizeof(*x)),
          *y = room(ROWS * pl_cpu_pitch(outputs) * sizeof(*y));
    float *scratch = room(PL_GEMM_SCRATCH * sizeof(*scratch));
    for (size_t i = 0; i < ROWS * pl_cpu_pitch(columns); i++)
        x[i] = (float)((i * 40503u >> 3) % 2001) / 1000 - 1;
    printf("[%zu, %zu], one thread by its CPU time, %s; limits: f32 %.1f GFLOP/s, int8 %.1f 10^9 "
           "multiply-adds/s, read %.1f GB/s\n\n",
           outputs, columns, d->kernels->name, limits.f32_flop_per_s / 1e9,
           limits.int8_op_per_s / 2e9, limits.read_bytes_per_s / 1e9);
    dense(d->kernels, outputs, columns, x, y, scratch, limits.f32_flop_per_s / 1e9);
    quantised(d->kernels, outputs, columns, x, y);
    streamed(d->kernels, columns, x);
    pl_cpu_backend.close(d);
    free(x);
    free(y);
    free(scratch);
    return 0;
}
