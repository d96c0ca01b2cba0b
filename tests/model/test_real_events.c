/* EventGPT's own sample stream (samples/sample1.npy of its repository, 0.9 MB, not part of this
 * one) against the published rasterisation and Pillow. Skips visibly where it is not. */
#include "fixture.h"

#include "base/hash.h"
#include "model/events.h"

#include <unistd.h>

/* PL_EVENT_SAMPLE, the cache that tools/get-model fills, or a folder of shared data beside the
 * checkout. */
static const char *find(char *path, size_t size)
{
    const char *named = getenv("PL_EVENT_SAMPLE"), *home = getenv("HOME");

    if (named)
        snprintf(path, size, "%s", named);
    else
        snprintf(path, size, "%s/.cache/paceline/data/eventgpt_sample1.npy", home ? home : "");
    if (!named && access(path, R_OK))
        snprintf(path, size, "%s/../shared/data/events/eventgpt_sample1.npy", PL_SOURCE_DIR);
    return access(path, R_OK) ? NULL : path;
}

static void test_sample(void **state)
{
    const struct pl_preprocess p = {.resize = 336, .crop = 336};
    char path[1024], frame[PL_SHA256_HEX], small[PL_SHA256_HEX], got[PL_SHA256_HEX];
    uint8_t *out = malloc(336 * 336 * 3);
    struct pl_images l = {0};
    struct pl_events e = {0};
    int w, h, n = 0;
    FILE *f;

    (void)state;
    if (!find(path, sizeof(path))) {
        free(out);
        skip();
    }
    ok(pl_events_read(path, &e, &err));
    assert_int_equal(e.n, 132268);
    ok(pl_events_check_window(&e, 100, &err));
    ok(pl_events_render(&e, 5, &l, &err));
    f = fopen(PL_SOURCE_DIR "/tests/model/vision/events/real.txt", "r");
    assert_non_null(f);
    for (; fscanf(f, "%d %d %64s %64s", &w, &h, frame, small) == 4; n++) {
        assert_int_equal(l.v[n].width, w);
        assert_int_equal(l.v[n].height, h);
        pl_sha256_hex(l.v[n].rgb, (size_t)w * (size_t)h * 3, got);
        assert_string_equal(got, frame);
        ok(pl_image_resize_crop(&l.v[n], &p, out, &err));
        pl_sha256_hex(out, 336 * 336 * 3, got);
        assert_string_equal(got, small);
    }
    assert_int_equal(n, 5);
    fclose(f);
    pl_images_release(&l);
    pl_events_release(&e);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sample)};
    char path[1024];

    if (!find(path, sizeof(path))) {
        print_message("skipped: no eventgpt_sample1.npy (PL_EVENT_SAMPLE names one)\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
