/* Times the steps from file to pixels, many times over: vision EVENTS|- CLIP|- [RUNS]. Wall time
 * and the process's own CPU time of each step, least and median, in ms. */
#include "base/clock.h"
#include "model/events.h"
#include "model/video.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_RUNS 1000

static const float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
static const float std[3] = {0.26862954f, 0.26130258f, 0.27577711f};

struct step {
    double wall[MAX_RUNS], cpu[MAX_RUNS];
};

static double now(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void begin(struct step *s, int run)
{
    s->wall[run] = -now(CLOCK_MONOTONIC);
    s->cpu[run] = -now(CLOCK_PROCESS_CPUTIME_ID);
}

static void end(struct step *s, int run)
{
    s->wall[run] += now(CLOCK_MONOTONIC);
    s->cpu[run] += now(CLOCK_PROCESS_CPUTIME_ID);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void print(const char *name, struct step *s, int runs)
{
    qsort(s->wall, (size_t)runs, sizeof(double), by_size);
    qsort(s->cpu, (size_t)runs, sizeof(double), by_size);
    printf("%-28s wall %7.3f least %7.3f median   cpu %7.3f least %7.3f median\n", name, s->wall[0],
           s->wall[runs / 2], s->cpu[0], s->cpu[runs / 2]);
}

static int fail(const struct pl_err *err)
{
    fprintf(stderr, "vision: %s\n", err->text);
    return 2;
}

/* File → frames → pixels of that size. */
static int bench(const char *path, bool events, int32_t size, int runs)
{
    static struct step read, raster, preprocess, all;
    const struct pl_preprocess p = {.resize = size,
                                    .crop = size,
                                    .mean = {mean[0], mean[1], mean[2]},
                                    .std = {std[0], std[1], std[2]}};
    float *out = malloc(8 * 3 * (size_t)size * (size_t)size * sizeof(*out));
    struct pl_err err = {""};

    if (!out)
        return 6;
    for (int i = 0; i < runs; i++) {
        struct pl_images frames = {.v = NULL};
        struct pl_events e = {.n = 0};
        begin(&all, i);
        begin(&read, i);
        if (events ? pl_events_read(path, &e, &err) : pl_video_read(path, 8, &frames, NULL, &err))
            return fail(&err);
        end(&read, i);
        begin(&raster, i);
        if (events && pl_events_render(&e, 5, &frames, &err))
            return fail(&err);
        end(&raster, i);
        begin(&preprocess, i);
        if (pl_images_preprocess(&frames, &p, out, &err))
            return fail(&err);
        end(&preprocess, i);
        end(&all, i);
        pl_images_release(&frames);
        pl_events_release(&e);
    }
    free(out);
    print(events ? "events: read" : "clip: decode 8 frames", &read, runs);
    if (events)
        print("events: 5 frames", &raster, runs);
    print(events ? "events: 336 x 336 pixels" : "clip: 224 x 224 pixels", &preprocess, runs);
    print(events ? "events: all" : "clip: all", &all, runs);
    return 0;
}

int main(int argc, char **argv)
{
    long runs = argc > 3 ? strtol(argv[3], NULL, 10) : 50;
    int rc = 0;

    if (argc < 3 || runs < 1 || runs > MAX_RUNS) {
        fprintf(stderr, "usage: vision EVENTS|- CLIP|- [RUNS ≤ %d]\n", MAX_RUNS);
        return 2;
    }
    if (strcmp(argv[1], "-") != 0)
        rc = bench(argv[1], true, 336, (int)runs);
    if (!rc && strcmp(argv[2], "-") != 0)
        rc = bench(argv[2], false, 224, (int)runs);
    return rc;
}
