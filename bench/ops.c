/* Times what stands outside a model's blocks: ops DEVICE [--model DIR] [--adapter L4.safetensors]
 * [--vision DIR] [--rows N] [--scores N]
 *
 * One JSON object a line: {"op", "ms" (median), "least_ms", "runs", "shape"}. Times are from call
 * to return on the host, results included, after three untimed runs: that is what a trial waits
 * for. select   the top 70 % of N scores (32768), as a pruner's stage asks for them; gather: their
 * rows of --model's width adapter  --adapter over N rows (22) of --model's width, then --model's
 * head and argmax on them tower    --vision's tower and projector over one clip's random pixels
 * Models are made of random weights; one block of --model is enough. */
#include "base/clock.h"
#include "base/rng.h"
#include "model/model.h"
#include "model/session.h"
#include "model/vision.h"
#include "spec_decode/adapter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUNS 30
#define WARM 3

struct options {
    const char *device, *model, *adapter, *vision;
    long rows, scores;
};

struct op {
    const char *name;
    enum pl_status (*run)(void *, struct pl_err *);
    void *what;
    char shape[96];
};

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static enum pl_status time_op(const struct op *o, struct pl_err *err)
{
    double ms[RUNS];
    enum pl_status st = PL_OK;

    for (int i = -WARM; i < RUNS && !st; i++) {
        int64_t t0 = pl_now_ns();
        st = o->run(o->what, err);
        if (i >= 0)
            ms[i] = (double)(pl_now_ns() - t0) / 1e6;
    }
    if (st)
        return pl_err_prefix(err, st, "%s", o->name);
    qsort(ms, RUNS, sizeof(ms[0]), by_size);
    printf("{\"op\":\"%s\",\"ms\":%.6f,\"least_ms\":%.6f,\"runs\":%d,\"shape\":\"%s\"}\n", o->name,
           ms[RUNS / 2], ms[0], RUNS, o->shape);
    fflush(stdout);
    return PL_OK;
}

static enum pl_status load(const struct options *q, const char *dir, struct pl_model **m,
                           struct pl_err *err)
{
    const struct pl_model_opts o = {
        .device = q->device, .dtype = PL_DT_BF16, .random = true, .random_seed = 1};

    return pl_model_load(dir, &o, m, err);
}

static float *noise(size_t n)
{
    float *v = malloc(n * sizeof(*v));
    struct pl_rng r;

    pl_rng_init(&r, 7);
    for (size_t i = 0; v && i < n; i++)
        v[i] = (float)pl_rng_normal(&r);
    return v;
}

struct select {
    const struct pl_backend *k;
    struct pl_tensor *scores, *rows, *kept, *one;
    size_t keep;
    int32_t *idx;
};

static enum pl_status run_select(void *p, struct pl_err *err)
{
    struct select *s = p;

    return s->k->topk(s->scores, s->keep, s->idx, err);
}

static enum pl_status run_gather(void *p, struct pl_err *err)
{
    struct select *s = p;
    float first;
    enum pl_status st = s->k->gather(s->kept, s->rows, s->idx, s->keep, err);

    return st ? st : s->k->download(s->one, 0, 1, &first, err); /* waits for it */
}

static enum pl_status selection(const struct options *q, struct pl_model *m, struct pl_err *err)
{
    const size_t n = (size_t)q->scores, h = (size_t)pl_model_info(m)->arch.hidden;
    struct pl_device *d = pl_model_device(m);
    struct select s = {.k = pl_model_backend(m), .keep = n * 7 / 10};
    float *scores = noise(n), *row = noise(h);
    struct op o = {.name = "select", .run = run_select, .what = &s};
    enum pl_status st;

    s.idx = calloc(n, sizeof(*s.idx));
    st = scores && row && s.idx ? PL_OK : pl_fail(err, PL_ENOMEM, "no memory");
    if (!st)
        st = s.k->tensor_create(d, 1, n, &s.scores, err);
    if (!st)
        st = s.k->tensor_create(d, n, h, &s.rows, err);
    if (!st)
        st = s.k->tensor_create(d, s.keep, h, &s.kept, err);
    if (!st)
        st = s.k->tensor_create(d, 1, 1, &s.one, err);
    if (!st)
        st = s.k->upload(s.one, 0, 1, scores, err);
    if (!st)
        st = s.k->upload(s.scores, 0, 1, scores, err);
    for (size_t i = 0; i < n && !st; i += n / 8 + 1)
        st = s.k->upload(s.rows, i, 1, row, err);
    snprintf(o.shape, sizeof(o.shape), "%zu of %zu", s.keep, n);
    if (!st)
        st = time_op(&o, err);
    o.name = "gather";
    o.run = run_gather;
    snprintf(o.shape, sizeof(o.shape), "%zu of %zu rows of %zu", s.keep, n, h);
    if (!st)
        st = time_op(&o, err);
    s.k->tensor_free(s.one);
    s.k->tensor_free(s.kept);
    s.k->tensor_free(s.rows);
    s.k->tensor_free(s.scores);
    free(s.idx);
    free(row);
    free(scores);
    return st;
}

struct drafting {
    struct pl_adapter *a;
    size_t rows;
    float *in, *out;
    int32_t *ids;
};

static enum pl_status run_adapter(void *p, struct pl_err *err)
{
    struct drafting *d = p;
    enum pl_status st = pl_adapter_run(d->a, d->in, NULL, d->rows, d->out, err);

    return st ? st : pl_adapter_tokens(d->a, d->out, d->rows, d->ids, err);
}

static enum pl_status adapter(const struct options *q, struct pl_model *m, struct pl_err *err)
{
    const struct pl_arch *a = &pl_model_info(m)->arch;
    const size_t n = (size_t)q->rows, h = (size_t)a->hidden;
    const struct pl_adapter_opts ao = {
        .path = q->adapter, .kind = "L4", .verifier = m, .drafter_width = h, .max_rows = n};
    struct drafting d = {.rows = n, .in = noise(n * h), .out = malloc(n * h * sizeof(float))};
    struct op o = {.name = "adapter", .run = run_adapter, .what = &d};
    enum pl_status st;

    d.ids = calloc(n, sizeof(*d.ids));
    st = d.in && d.out && d.ids ? PL_OK : pl_fail(err, PL_ENOMEM, "no memory");
    if (!st)
        st = pl_adapter_open(&ao, &d.a, err);
    snprintf(o.shape, sizeof(o.shape), "L4 and head, %zu rows of %zu, vocabulary %d", n, h,
             a->vocab);
    if (!st)
        st = time_op(&o, err);
    pl_adapter_free(d.a);
    free(d.ids);
    free(d.out);
    free(d.in);
    return st;
}

struct looking {
    struct pl_vision *v;
    struct pl_pixels pixels;
    float *rows;
};

static enum pl_status run_tower(void *p, struct pl_err *err)
{
    struct looking *l = p;

    return pl_vision_encode(l->v, &l->pixels, l->rows, err);
}

static enum pl_status tower(const struct options *q, struct pl_err *err)
{
    struct pl_model *m = NULL;
    struct looking l = {.v = NULL};
    struct op o = {.name = "tower", .run = run_tower, .what = &l};
    enum pl_status st = load(q, q->vision, &m, err);

    if (!st) {
        l.v = pl_model_vision(m);
        st = l.v ? PL_OK : pl_fail(err, PL_EUSAGE, "%s has no tower", q->vision);
    }
    if (!st) {
        const struct pl_vision_config *c = pl_vision_config(l.v);
        const size_t side = (size_t)c->tower.image, frames = (size_t)c->frames;
        l.pixels = (struct pl_pixels){
            .v = noise(frames * 3 * side * side), .frames = frames, .size = c->tower.image};
        l.rows =
            malloc((size_t)pl_vision_rows(c, frames, false) * (size_t)c->hidden * sizeof(*l.rows));
        st = l.pixels.v && l.rows ? PL_OK : pl_fail(err, PL_ENOMEM, "no memory");
        snprintf(o.shape, sizeof(o.shape), "%zu frames of %zu, %d blocks of %d", frames, side,
                 c->tower.layers, c->tower.hidden);
    }
    if (!st)
        st = time_op(&o, err);
    free(l.rows);
    free(l.pixels.v);
    pl_model_free(m);
    return st;
}

static bool read_options(int argc, char **argv, struct options *q)
{
    for (int i = 2; i + 1 < argc; i += 2) {
        const char *k = argv[i], *v = argv[i + 1];
        if (!strcmp(k, "--model"))
            q->model = v;
        else if (!strcmp(k, "--adapter"))
            q->adapter = v;
        else if (!strcmp(k, "--vision"))
            q->vision = v;
        else if (!strcmp(k, "--rows"))
            q->rows = strtol(v, NULL, 10);
        else if (!strcmp(k, "--scores"))
            q->scores = strtol(v, NULL, 10);
        else
            return false;
    }
    return argc >= 2 && argc % 2 == 0 && q->rows > 0 && q->scores > 9 && q->scores < 1 << 24 &&
           (q->model || !q->adapter) && (q->model || q->vision);
}

int main(int argc, char **argv)
{
    struct options q = {.device = argc > 1 ? argv[1] : "", .rows = 22, .scores = 32768};
    struct pl_model *m = NULL;
    struct pl_err err = {""};
    enum pl_status st = PL_OK;

    if (!read_options(argc, argv, &q)) {
        fprintf(stderr, "usage: ops cpu|cuda[:N] [--model DIR [--adapter F]] [--vision DIR] "
                        "[--rows N] [--scores N]\n");
        return 2;
    }
    if (q.model)
        st = load(&q, q.model, &m, &err);
    if (!st && m)
        st = selection(&q, m, &err);
    if (!st && q.adapter)
        st = adapter(&q, m, &err);
    pl_model_free(m);
    if (!st && q.vision)
        st = tower(&q, &err);
    if (st)
        fprintf(stderr, "ops: %s\n", err.text);
    return st ? 1 : 0;
}
