#include "cli/runner/bench_transport.h"

#include "base/clock.h"
#include "spec_decode/transport.h"
#include "worker/runner/host.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEAST_BYTES ((size_t)8 << 10)
#define SIZES 6 /* by fours: to 8 MiB */
#define MOST_FLOATS (LEAST_BYTES / sizeof(float) << 2 * (SIZES - 1))
#define RUNS_NS (100 * PL_NS_PER_MS)
#define LEAST_RUNS 5
#define MOST_RUNS 1000

struct line {
    size_t bytes;
    int runs;
    double median_us, least_us;
};

struct result {
    struct line lines[SIZES];
    bool shared;
    struct pl_err why; /* "": it ran */
};

struct ends {
    struct pl_transport_end end[2];
    char said[2][96];
};

static enum pl_status open_end(const char *name, struct pl_transport_end *e, char *said,
                               size_t size, struct pl_err *err)
{
    struct pl_device_opts o = {.ordinal = 0};
    enum pl_status st = pl_backend_find(name, &e->backend, &o.ordinal, err);
    int n;

    if (st)
        return st;
    st = e->backend->open(&o, &e->device, err);
    if (st)
        return pl_err_prefix(err, PL_EUNSUPPORTED, "device %s", name);
    n = snprintf(said, size, "%s (", name);
    e->backend->describe(e->device, said + n, size - (size_t)n - 1);
    strncat(said, ")", size - strlen(said) - 1);
    return PL_OK;
}

/* Until all that the device was given is done. */
static enum pl_status settle(const struct pl_transport_end *e, struct pl_err *err)
{
    enum pl_status st = PL_OK;
    bool done = !e->backend->poll;

    while (!done && !st)
        st = e->backend->poll(e->device, &done, err);
    return st;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* One size: carried until there is time no more, each waited for at the receiver. */
static enum pl_status run_size(struct pl_transport *t, const struct ends *e, struct pl_tensor *from,
                               struct pl_tensor *to, size_t rows, double *us, struct line *out,
                               struct pl_err *err)
{
    const int64_t begin = pl_now_ns();
    enum pl_status st = PL_OK;
    int n = 0;

    for (int warm = 0; warm < 3 && !st; warm++) {
        st = pl_transport_carry(t, to, from, rows, err);
        if (!st)
            st = settle(&e->end[1], err);
    }
    while (!st && n < MOST_RUNS && (n < LEAST_RUNS || pl_now_ns() - begin < RUNS_NS)) {
        int64_t t0 = pl_now_ns();
        st = pl_transport_carry(t, to, from, rows, err);
        if (!st)
            st = settle(&e->end[1], err);
        us[n++] = (double)(pl_now_ns() - t0) / 1e3;
    }
    if (st)
        return st;
    qsort(us, (size_t)n, sizeof(*us), ascending);
    *out = (struct line){
        .bytes = rows * LEAST_BYTES, .runs = n, .median_us = us[n / 2], .least_us = us[0]};
    return PL_OK;
}

/* All sizes by one transport; what arrived must be what was sent. */
static enum pl_status run_kind(enum pl_transport_kind kind, const struct ends *e, float *host,
                               double *us, struct result *out, struct pl_err *err)
{
    const size_t width = LEAST_BYTES / sizeof(float), rows = MOST_FLOATS / width;
    const struct pl_transport_opts o = {.from = e->end[0], .to = e->end[1], .most = MOST_FLOATS};
    struct pl_tensor *from = NULL, *to = NULL;
    struct pl_transport *t = NULL;
    enum pl_status st;

    st = pl_transport_open(kind, &o, &t, &out->why);
    if (st == PL_EUNSUPPORTED || st == PL_EDEVICE)
        return PL_OK; /* told with its reason */
    if (st)
        *err = out->why;
    if (!st)
        st = e->end[0].backend->tensor_create(e->end[0].device, rows, width, &from, err);
    if (!st)
        st = e->end[1].backend->tensor_create(e->end[1].device, rows, width, &to, err);
    for (size_t i = 0; i < MOST_FLOATS; i++)
        host[i] = (float)(i % 16777213 + 1 + (size_t)kind);
    if (!st)
        st = e->end[0].backend->upload(from, 0, rows, host, err);
    for (size_t i = 0; i < SIZES && !st; i++)
        st = run_size(t, e, from, to, (size_t)1 << 2 * i, us, &out->lines[i], err);
    if (!st)
        st = e->end[1].backend->download(to, 0, rows, host, err);
    for (size_t i = 0; i < MOST_FLOATS && !st; i++)
        if (host[i] != (float)(i % 16777213 + 1 + (size_t)kind))
            st = pl_fail(err, PL_EDEVICE, "transport %s: byte %zu is not what was sent",
                         pl_transport_kind_name(kind), i * sizeof(*host));
    if (!st)
        out->shared = pl_transport_shared(t);
    pl_transport_close(t);
    e->end[0].backend->tensor_free(from);
    e->end[1].backend->tensor_free(to);
    return st;
}

static double gb_per_s(const struct line *l)
{
    return (double)l->bytes / l->median_us / 1e3;
}

static void print_rows(const struct result *r, enum pl_bench_format f)
{
    const char *row = f == PL_BENCH_MD ? "| %s%s | %zu | %.2f | %.2f | %.3f | %d |\n"
                                       : "%s,%s,%zu,%.17g,%.17g,%.17g,%d\n";

    for (int k = PL_TRANSPORT_NCCL; k < PL_TRANSPORT_KINDS; k++) {
        const char *shared = f == PL_BENCH_MD ? (r[k].shared ? ", shared device" : "")
                             : r[k].shared    ? "1"
                                              : "0";
        for (size_t i = 0; i < SIZES && !r[k].why.text[0]; i++) {
            const struct line *l = &r[k].lines[i];
            printf(row, pl_transport_kind_name((enum pl_transport_kind)k), shared, l->bytes,
                   l->median_us, l->least_us, gb_per_s(l), l->runs);
        }
    }
}

static void print_json(const struct ends *e, const struct result *r)
{
    json_t *rows = json_array(), *not_here = json_object();
    json_t *j = json_pack("{s:s,s:s,s:o,s:o}", "from", e->said[0], "to", e->said[1], "rows", rows,
                          "unsupported", not_here);

    for (int k = PL_TRANSPORT_NCCL; k < PL_TRANSPORT_KINDS; k++) {
        const char *name = pl_transport_kind_name((enum pl_transport_kind)k);
        if (r[k].why.text[0])
            json_object_set_new(not_here, name, json_string(r[k].why.text));
        for (size_t i = 0; i < SIZES && !r[k].why.text[0]; i++) {
            const struct line *l = &r[k].lines[i];
            json_array_append_new(rows, json_pack("{s:s,s:I,s:f,s:f,s:f,s:i,s:b}", "transport",
                                                  name, "bytes", (json_int_t)l->bytes, "median_us",
                                                  l->median_us, "least_us", l->least_us, "gb_per_s",
                                                  gb_per_s(l), "runs", l->runs, "shared_device",
                                                  r[k].shared));
        }
    }
    json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(17));
    putchar('\n');
    json_decref(j);
}

static void print(enum pl_bench_format f, const struct ends *e, const struct result *r)
{
    if (f == PL_BENCH_JSON) {
        print_json(e, r);
        return;
    }
    if (f == PL_BENCH_MD) {
        printf("from %s to %s; each carry waited for at the receiver\n", e->said[0], e->said[1]);
        for (int k = PL_TRANSPORT_NCCL; k < PL_TRANSPORT_KINDS; k++)
            if (r[k].why.text[0])
                printf("%s: not here: %s\n", pl_transport_kind_name((enum pl_transport_kind)k),
                       r[k].why.text);
        printf("\n| transport | bytes | median µs | least µs | GB/s | runs |\n"
               "|---|---:|---:|---:|---:|---:|\n");
    } else {
        printf("transport,shared_device,bytes,median_us,least_us,gb_per_s,runs\n");
    }
    print_rows(r, f);
}

enum pl_status pl_bench_transport(const char *from, const char *to, enum pl_bench_format format,
                                  struct pl_err *err)
{
    struct pl_device_info gpus[PL_HOST_GPUS];
    const size_t there = pl_host_gpus(gpus);
    struct result r[PL_TRANSPORT_KINDS];
    struct ends e;
    float *host = malloc(MOST_FLOATS * sizeof(*host));
    double *us = malloc(MOST_RUNS * sizeof(*us));
    enum pl_status st = host && us ? PL_OK : pl_fail(err, PL_ENOMEM, "no memory");

    memset(&e, 0, sizeof(e));
    memset(r, 0, sizeof(r));
    from = from ? from : there ? "cuda" : "cpu";
    to = to ? to : there > 1 && !strcmp(from, "cuda") ? "cuda:1" : from;
    if (!st)
        st = open_end(from, &e.end[0], e.said[0], sizeof(e.said[0]), err);
    if (!st)
        st = open_end(to, &e.end[1], e.said[1], sizeof(e.said[1]), err);
    for (int k = PL_TRANSPORT_NCCL; k < PL_TRANSPORT_KINDS && !st; k++)
        st = run_kind((enum pl_transport_kind)k, &e, host, us, &r[k], err);
    if (!st)
        print(format, &e, r);
    for (int i = 0; i < 2; i++)
        if (e.end[i].device)
            e.end[i].backend->close(e.end[i].device);
    free(us);
    free(host);
    return st;
}
