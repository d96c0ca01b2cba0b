/* Pixels made on the device: the host's bits, of pictures and event streams of every awkward size; towers fed by them make the same rows;
 * what is wrong with a file is told in the same words. */
#include "fixture.h"

#include "base/rng.h"
#include "model/vision.h"

#define VISION PL_SOURCE_DIR "/tests/model/vision"

static const struct pl_backend *b;
static struct pl_device *device;

static int open_device(void **state)
{
    struct pl_err err;

    (void)state;
    b = pl_backend_by_name("cuda");
    return b->open(NULL, &device, &err);
}

static int close_device(void **state)
{
    (void)state;
    b->close(device);
    return 0;
}

static struct pl_preprocess clip(int32_t resize, int32_t crop)
{
    return (struct pl_preprocess){.resize = resize,
                                  .crop = crop,
                                  .mean = {0.48145466f, 0.4578275f, 0.40821073f},
                                  .std = {0.26862954f, 0.26130258f, 0.27577711f}};
}

/* The same frames both ways; `rendered`: what the host makes of events, which f holds. */
static void same(const struct pl_frames *f, const struct pl_images *rendered, const struct pl_preprocess *p)
{
    const size_t each = 3 * (size_t)p->crop * (size_t)p->crop;
    float *host = malloc(f->n * each * sizeof(float)), *there = malloc(f->n * each * sizeof(float));
    struct pl_tensor *t = NULL;

    assert_true(host && there);
    ok(pl_images_preprocess(rendered, p, host, &err));
    ok(b->tensor_create(device, f->n, each, &t, &err));
    ok(b->pixels(device, f, p, t, &err));
    ok(b->download(t, 0, f->n, there, &err));
    assert_memory_equal(host, there, f->n * each * sizeof(float));
    b->tensor_free(t);
    free(host);
    free(there);
}

/* Wide, tall, tiny, enlarged, cut off, with a black border; sizes differ within one call. */
static void pictures(void **state)
{
    static const int32_t sizes[][2] = {{64, 48}, {31, 77}, {1, 1}, {3, 200}, {200, 2}, {57, 57}};
    static const int32_t shapes[][2] = {{56, 56}, {28, 40}, {40, 28}, {9, 7}};
    struct pl_images l = {.v = NULL};
    struct pl_rng r;

    (void)state;
    pl_rng_init(&r, 3);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct pl_image *image;
        ok(pl_images_add(&l, sizes[i][0], sizes[i][1], &image, &err));
        for (int32_t k = 0; k < 3 * sizes[i][0] * sizes[i][1]; k++)
            image->rgb[k] = (uint8_t)(pl_rng_u64(&r) & 1 ? 255 * (pl_rng_u64(&r) & 1) : pl_rng_u64(&r)); /* edges overshoot */
    }
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const struct pl_preprocess p = clip(shapes[i][0], shapes[i][1]);
        same(&(struct pl_frames){.images = &l, .n = l.n}, &l, &p);
    }
    pl_images_release(&l);
}

/* Many events at few pixels, so that the last one has to win; frames of their own sizes, the last one longer. */
static void events(void **state)
{
    enum { N = 9001 };
    static uint16_t x[N], y[N];
    static uint8_t polarity[N];
    static int64_t t[N];
    const struct pl_events e = {.n = N, .x = x, .y = y, .p = polarity, .t = t, .sorted = true};
    struct pl_event_frame cut[5];
    struct pl_images l = {.v = NULL};
    struct pl_rng r;

    (void)state;
    pl_rng_init(&r, 4);
    for (int i = 0; i < N; i++) {
        x[i] = (uint16_t)(pl_rng_u64(&r) % (i < 3000 ? 40 : 64));
        y[i] = (uint16_t)(pl_rng_u64(&r) % (i < 3000 ? 70 : 30));
        polarity[i] = pl_rng_u64(&r) & 1;
    }
    ok(pl_events_cut(&e, 5, cut, &err));
    assert_true(cut[0].width == 40 && cut[0].height == 70 && cut[4].end == N && cut[4].end - cut[4].begin == 1801);
    ok(pl_events_render(&e, 5, &l, &err));
    const struct pl_frames f = {.events = &e, .cut = cut, .n = 5};
    const struct pl_preprocess p = clip(56, 56), other = clip(33, 50);
    same(&f, &l, &p);
    same(&f, &l, &other);
    pl_images_release(&l);
}

/* From a file as a trial takes it, at the towers' own sizes; and the same errors. */
static void files(void **state)
{
    static const struct {
        enum pl_media_kind kind;
        const char *model, *path;
        int64_t window;
    } all[] = {{PL_MEDIA_EVENTS, "eventgpt", "events/p4core.npy", -1},
               {PL_MEDIA_EVENTS, "eventgpt", "events/structured.npy", -1},
               {PL_MEDIA_EVENTS, "eventgpt", "events/p4core.npy", 1},   /* too long a window */
               {PL_MEDIA_EVENTS, "eventgpt", "events/nothing.npy", -1}, /* not there */
               {PL_MEDIA_EVENTS, "video-llava", "events/p4core.npy", -1},
               {PL_MEDIA_IMAGE, "video-llava", "rgb.png", -1},
               {PL_MEDIA_PIXELS, "video-llava", "video-llava/pixels.npy", -1},
               {PL_MEDIA_VIDEO, "video-llava", "clips/second.mp4", -1}}; /* a build without FFmpeg refuses both */
    struct pl_pixel_room room = {.backend = b, .device = device};
    int fine = 0, refused = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        struct pl_err told[2] = {{""}, {""}}, warned[2] = {{""}, {""}};
        struct pl_pixels p[2] = {{.v = NULL}, {.v = NULL}};
        struct pl_media_times t = {0};
        struct pl_vision_config c;
        char model[512], path[512];
        snprintf(model, sizeof(model), "%s/%s", VISION, all[i].model);
        snprintf(path, sizeof(path), "%s/%s", VISION, all[i].path);
        const struct pl_media m = {.kind = all[i].kind, .path = path, .max_window_ms = all[i].window};
        ok(pl_vision_config_read(model, &c, &err));
        enum pl_status host = pl_vision_load(&c, &m, NULL, &p[0], NULL, &warned[0], &told[0]);
        enum pl_status there = pl_vision_load(&c, &m, &room, &p[1], &t, &warned[1], &told[1]);
        assert_int_equal(host, there);
        assert_string_equal(told[0].text, told[1].text);
        assert_string_equal(warned[0].text, warned[1].text);
        if (!host && all[i].kind != PL_MEDIA_PIXELS) {
            const size_t each = 3 * (size_t)p[0].size * (size_t)p[0].size;
            float *got = malloc(p[0].frames * each * sizeof(float));
            assert_true(!p[1].v && p[1].frames == p[0].frames && p[1].size == p[0].size && p[1].still == p[0].still);
            assert_true(t.decode > 0 && t.preprocess > 0);
            ok(b->download(p[1].device, 0, p[1].frames, got, &err));
            assert_memory_equal(got, p[0].v, p[0].frames * each * sizeof(float));
            free(got);
        }
        fine += !host;
        refused += host != PL_OK;
        pl_pixels_release(&p[0]);
        pl_pixels_release(&p[1]);
    }
    assert_true(fine >= 3 && refused >= 3);
    pl_pixel_room_release(&room);
}

static struct pl_model *load(const char *name, bool there)
{
    const struct pl_model_opts o = {.device = "cuda", .dtype = PL_DT_F32, .device_pixels = there};
    struct pl_model *m = NULL;
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", VISION, name);
    ok(pl_model_load(path, &o, &m, &err));
    return m;
}

/* A model told to make its pixels on the device sees what it sees otherwise, twice over. */
static void rows(void **state)
{
    const struct pl_media m = {.kind = PL_MEDIA_EVENTS, .path = VISION "/events/p4core.npy", .max_window_ms = -1};
    float got[2][22 * 32];

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct pl_model *model = load("eventgpt", i);
        struct pl_vision *v = pl_model_vision(model);
        assert_true(i ? pl_vision_room(v) != NULL : !pl_vision_room(v));
        for (int again = 0; again < 2; again++) {
            struct pl_pixels p = {.v = NULL};
            ok(pl_vision_load(pl_vision_config(v), &m, pl_vision_room(v), &p, NULL, NULL, &err));
            assert_true(i ? !p.v : p.v != NULL);
            ok(pl_vision_encode(v, &p, got[i], &err));
            pl_pixels_release(&p);
        }
        pl_model_free(model);
    }
    assert_memory_equal(got[0], got[1], sizeof(got[0]));
}

/* Where it cannot be, it is said before anything is loaded. */
static void refused(void **state)
{
    const struct pl_model_opts cpu = {.device = "cpu", .device_pixels = true};
    const struct pl_model_opts cuda = {.device = "cuda", .device_pixels = true};
    struct pl_model_info info;
    struct pl_model *m = NULL;

    (void)state;
    fails(PL_EUNSUPPORTED, "preprocess: the cpu makes no pixels", pl_model_describe(VISION "/eventgpt", &cpu, &info, &err));
    fails(PL_EUNSUPPORTED, "preprocess: the cpu makes no pixels", pl_model_load(VISION "/eventgpt", &cpu, &m, &err));
    fails(PL_EUSAGE, "reads text alone", pl_model_describe(GOLDENS "/tied_bf16", &cuda, &info, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pictures), cmocka_unit_test(events), cmocka_unit_test(files), cmocka_unit_test(rows),
                                       cmocka_unit_test(refused)};

    return cmocka_run_group_tests(tests, open_device, close_device);
}
