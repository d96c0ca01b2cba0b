/* Times what stands outside a model's blocks: ops DEVICE [--model DIR] [--adapter L4.safetensors]
 * [--vision DIR] [--rows N] [--scores N] [--events N] [--runs N]
 *
 * One JSON object a line: {"op", "ms" (median), "least_ms", "runs", "shape"}. Times are from call
 * to return on the host, results included, after three untimed runs: that is what a trial waits
 * for. select   the top 70 % of N scores (32768), as a pruner's stage asks for them; gather: their
 * rows of --model's width adapter  --adapter over N rows (22) of --model's width, then --model's
 * head and argmax on them tower    --vision's tower and projector over one clip's random pixels
 * pixels   N events at 640 × 480 to 5 × 336², and 8 pictures of 640 × 480 to 8 × 224², made by the
 * host and by the device
 * Models are made of random weights; one block of --model is enough. */
#include "base/clock.h"
#include "base/rng.h"
#include "model/events.h"
#include "model/model.h"
#include "model/session.h"
#include "model/vision.h"
#include "spec_decode/adapter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUNS 30 /* at most, and unless --runs says otherwise */
#define WARM 3

struct options {
    const char *device, *model, *adapter, *vision;
    long rows, scores, events, runs;
};

struct op {
    const char *name;
    enum pl_status (*run)(void *, struct pl_err *);
    void *what;
    char shape[96];
    int runs; /* ≤ RUNS */
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

    for (int i = -WARM; i < o->runs && !st; i++) {
        int64_t t0 = pl_now_ns();
        st = o->run(o->what, err);
        if (i >= 0)
            ms[i] = (double)(pl_now_ns() - t0) / 1e6;
    }
    if (st)
        return pl_err_prefix(err, st, "%s", o->name);
    qsort(ms, (size_t)o->runs, sizeof(ms[0]), by_size);
    printf("{\"op\":\"%s\",\"ms\":%.6f,\"least_ms\":%.6f,\"runs\":%d,\"shape\":\"%s\"}\n", o->name,
           ms[o->runs / 2], ms[0], o->runs, o->shape);
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
    struct op o = {.name = "select", .run = run_select, .what = &s, .runs = (int)q->runs};
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
    struct op o = {.name = "adapter", .run = run_adapter, .what = &d, .runs = (int)q->runs};
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
    struct op o = {.name = "tower", .run = run_tower, .what = &l, .runs = (int)q->runs};
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

struct seeing {
    const struct pl_backend *k; /* NULL: the host does it */
    struct pl_device *d;
    struct pl_preprocess p;
    struct pl_frames from;
    float *host;
    struct pl_tensor *there;
    int runs;
};

static enum pl_status run_pixels(void *arg, struct pl_err *err)
{
    struct seeing *s = arg;
    struct pl_images rendered = {.v = NULL};
    enum pl_status st = PL_OK;

    if (s->k)
        return s->k->pixels(s->d, &s->from, &s->p, s->there, err);
    if (s->from.events)
        st = pl_events_render(s->from.events, s->from.n, &rendered, err);
    if (!st)
        st = pl_images_preprocess(s->from.events ? &rendered : s->from.images, &s->p, s->host, err);
    pl_images_release(&rendered);
    return st;
}

/* Both ways, where the backend has its own. */
static enum pl_status pixels_of(const char *name, struct seeing *s, const struct pl_backend *k,
                                struct pl_err *err)
{
    struct op o = {.name = name, .run = run_pixels, .what = s, .runs = s->runs};
    const size_t each = 3 * (size_t)s->p.crop * (size_t)s->p.crop;
    enum pl_status st = PL_OK;

    s->host = malloc(s->from.n * each * sizeof(float));
    if (!s->host)
        st = pl_fail(err, PL_ENOMEM, "no memory");
    if (!st && k->pixels)
        st = k->tensor_create(s->d, s->from.n, each, &s->there, err);
    for (int i = 0; i < (k->pixels ? 2 : 1) && !st; i++) {
        s->k = i ? k : NULL;
        snprintf(o.shape, sizeof(o.shape), "%s: %zu frames of %d", i ? "device" : "host", s->from.n,
                 s->p.crop);
        st = time_op(&o, err);
    }
    k->tensor_free(s->there);
    free(s->host);
    s->there = NULL;
    s->host = NULL;
    return st;
}

/* A stream of events drawn at random, and pictures of random bytes. */
static enum pl_status draw_frames(struct pl_events *e, size_t n, struct pl_images *l,
                                  struct pl_err *err)
{
    enum pl_status st = PL_OK;
    struct pl_rng r;

    pl_rng_init(&r, 9);
    *e = (struct pl_events){.n = n,
                            .x = malloc(n * sizeof(*e->x)),
                            .y = malloc(n * sizeof(*e->y)),
                            .p = malloc(n),
                            .t = calloc(n, sizeof(*e->t)),
                            .sorted = true};
    if (!e->x || !e->y || !e->p || !e->t)
        return pl_fail(err, PL_ENOMEM, "no memory");
    for (size_t i = 0; i < n; i++) {
        e->x[i] = (uint16_t)pl_rng_below(&r, 640);
        e->y[i] = (uint16_t)pl_rng_below(&r, 480);
        e->p[i] = pl_rng_u64(&r) & 1;
    }
    for (int i = 0; i < 8 && !st; i++) {
        struct pl_image *image;
        st = pl_images_add(l, 640, 480, &image, err);
        for (size_t k = 0; k < 3 * 640 * 480 && !st; k++)
            image->rgb[k] = (uint8_t)pl_rng_u64(&r);
    }
    return st;
}

static enum pl_status pixels(const struct options *q, struct pl_err *err)
{
    struct pl_device_opts where = {.ordinal = 0};
    const struct pl_backend *k = NULL;
    const struct pl_preprocess p = {.mean = {0.48f, 0.46f, 0.41f}, .std = {0.27f, 0.26f, 0.28f}};
    struct pl_event_frame cut[5];
    struct pl_events e = {.n = 0};
    struct pl_images l = {.v = NULL};
    struct seeing s = {.p = p, .from = {.events = &e, .cut = cut, .n = 5}, .runs = (int)q->runs};
    enum pl_status st = pl_backend_find(q->device, &k, &where.ordinal, err);

    if (!st)
        st = k->open(&where, &s.d, err);
    if (!st)
        st = draw_frames(&e, (size_t)q->events, &l, err);
    if (!st)
        st = pl_events_cut(&e, 5, cut, err);
    s.p.resize = s.p.crop = 336;
    if (!st)
        st = pixels_of("pixels of events", &s, k, err);
    s.from = (struct pl_frames){.images = &l, .n = l.n};
    s.p.resize = s.p.crop = 224;
    if (!st)
        st = pixels_of("pixels of frames", &s, k, err);
    pl_events_release(&e);
    pl_images_release(&l);
    if (k)
        k->close(s.d);
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
        else if (!strcmp(k, "--events"))
            q->events = strtol(v, NULL, 10);
        else if (!strcmp(k, "--runs"))
            q->runs = strtol(v, NULL, 10);
        else if (!strcmp(k, "--scores"))
            q->scores = strtol(v, NULL, 10);
        else
            return false;
    }
    return argc >= 2 && argc % 2 == 0 && q->rows > 0 && q->scores > 9 && q->scores < 1 << 24 &&
           q->runs > 0 && q->runs <= RUNS &&
           (!q->events || (q->events > 4 && q->events < 1 << 24)) && (q->model || !q->adapter) &&
           (q->model || q->vision || q->events);
}

int main(int argc, char **argv)
{
    struct options q = {
        .device = argc > 1 ? argv[1] : "", .rows = 22, .scores = 32768, .runs = RUNS};
    struct pl_model *m = NULL;
    struct pl_err err = {""};
    enum pl_status st = PL_OK;

    if (!read_options(argc, argv, &q)) {
        fprintf(stderr, "usage: ops cpu|cuda[:N] [--model DIR [--adapter F]] [--vision DIR] "
                        "[--rows N] [--scores N] [--events N] [--runs N]\n");
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
    if (!st && q.events)
        st = pixels(&q, &err);
    if (st)
        fprintf(stderr, "ops: %s\n", err.text);
    return st ? 1 : 0;
}
