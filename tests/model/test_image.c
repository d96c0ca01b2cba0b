/* Resizing is Pillow's to the bit, PNG files come in as RGB, pixels are normalised. */
#include "fixture.h"

#include "base/buf.h"
#include "base/hash.h"
#include "model/image.h"

#include <math.h>
#include <unistd.h>

#define VISION PL_SOURCE_DIR "/tests/model/vision"

/* As tools/make_vision_goldens.py draws it. */
static void noise(struct pl_images *l, int32_t w, int32_t h, uint32_t seed)
{
    struct pl_image *image = NULL;

    ok(pl_images_add(l, w, h, &image, &err));
    for (size_t i = 0; i < (size_t)w * (size_t)h * 3; i++) {
        seed = seed * 1664525u + 1013904223u;
        image->rgb[i] = (uint8_t)(seed >> 24);
    }
}

static void test_resize(void **state)
{
    FILE *f = fopen(VISION "/resize.txt", "r");
    struct pl_preprocess p = {.resize = 0};
    char want[PL_SHA256_HEX], got[PL_SHA256_HEX];
    uint32_t cases = 0;
    int w, h;

    (void)state;
    assert_non_null(f);
    while (fscanf(f, "%d %d %d %d %64s", &w, &h, &p.resize, &p.crop, want) == 5) {
        struct pl_images l = {0};
        size_t n = (size_t)p.crop * (size_t)p.crop * 3;
        uint8_t *out = malloc(n);
        noise(&l, w, h, ++cases);
        ok(pl_image_resize_crop(&l.v[0], &p, out, &err));
        pl_sha256_hex(out, n, got);
        if (strcmp(got, want) != 0)
            fail_msg("%d × %d to %d, %d differs from Pillow's", w, h, p.resize, p.crop);
        free(out);
        pl_images_release(&l);
    }
    fclose(f);
    assert_int_equal(cases, 13);
}

static void test_preprocess(void **state)
{
    const struct pl_preprocess p = {
        .resize = 12, .crop = 10, .mean = {0.5f, 0.25f, 0}, .std = {0.5f, 2, 1}};
    struct pl_images l = {0};
    uint8_t bytes[10 * 10 * 3];
    float out[2 * 3 * 10 * 10];

    (void)state;
    noise(&l, 31, 17, 3);
    noise(&l, 9, 40, 4);
    ok(pl_images_preprocess(&l, &p, out, &err));
    for (size_t i = 0; i < 2; i++) {
        ok(pl_image_resize_crop(&l.v[i], &p, bytes, &err));
        for (size_t k = 0; k < 300; k++) {
            size_t c = k % 3;
            double want = (bytes[k] / 255.0 - (double)p.mean[c]) / (double)p.std[c];
            assert_true(fabs((double)out[(i * 3 + c) * 100 + k / 3] - want) < 1e-6);
        }
    }
    fails(PL_ERANGE, "cropped to 0",
          pl_images_preprocess(&l, &(struct pl_preprocess){.resize = 1}, out, &err));
    pl_images_release(&l);
    fails(PL_ERANGE, "0 × 5", pl_images_add(&l, 0, 5, &(struct pl_image *){NULL}, &err));
    fails(PL_ERANGE, "16384 × 16384",
          pl_images_add(&l, 16384, 16384, &(struct pl_image *){NULL}, &err));
}

static void test_png(void **state)
{
    static const char *const files[] = {"rgb.png", "rgba.png", "grey.png", "palette.png"};
    struct pl_images l = {0};
    char path[512];
    struct pl_buf b;

    (void)state;
    if (!pl_png_version()) {
        fails(PL_EUNSUPPORTED, "libpng", pl_png_read(VISION "/rgb.png", &l, &err));
        return;
    }
    noise(&l, 19, 11, 5);
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof(path), "%s/%s", VISION, files[i]);
        ok(pl_png_read(path, &l, &err));
        assert_int_equal(l.v[i + 1].width, 19);
        assert_int_equal(l.v[i + 1].height, 11);
        for (size_t k = 0; k < 19 * 11 * 3; k++)
            assert_int_equal(l.v[i + 1].rgb[k], l.v[0].rgb[i < 2 ? k : k / 3 * 3]);
    }
    snprintf(path, sizeof(path), "/tmp/paceline-test-%d.png", (int)getpid());
    ok(pl_png_write(path, &l.v[0], &err));
    ok(pl_png_read(path, &l, &err));
    assert_memory_equal(l.v[5].rgb, l.v[0].rgb, 19 * 11 * 3);
    ok(pl_read_file(path, 1u << 20, &b, &err));
    unlink(path);
    for (size_t n = 0; n < b.len - 12; n++) { /* its last 12 bytes say nothing but that it ends */
        struct pl_err err;
        assert_int_not_equal(pl_png_parse("cut", b.data, n, &l, &err), PL_OK);
        assert_int_equal(l.n, 6);
    }
    pl_buf_release(&b);
    pl_images_release(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_resize),
                                       cmocka_unit_test(test_preprocess),
                                       cmocka_unit_test(test_png)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
