/* Event files of every kind give one and the same stream and the published frames; whatever lies in
 * one is told. */
#include "fixture.h"

#include "base/buf.h"
#include "base/hash.h"
#include "model/events.h"

#define VISION PL_SOURCE_DIR "/tests/model/vision"

static void check_frames(const struct pl_events *e, const char *list)
{
    struct pl_images frames = {0};
    char want[PL_SHA256_HEX], got[PL_SHA256_HEX];
    int w, h;
    FILE *f = fopen(list, "r");

    assert_non_null(f);
    ok(pl_events_render(e, 5, &frames, &err));
    assert_int_equal(frames.n, 5);
    for (size_t i = 0; i < frames.n; i++) {
        assert_int_equal(fscanf(f, "%d %d %64s", &w, &h, want), 3);
        assert_int_equal(frames.v[i].width, w);
        assert_int_equal(frames.v[i].height, h);
        pl_sha256_hex(frames.v[i].rgb, (size_t)w * (size_t)h * 3, got);
        assert_string_equal(got, want);
    }
    fclose(f);
    pl_images_release(&frames);
}

static void test_kinds(void **state)
{
    static const char *const files[] = {
        "p2core.npy",  "p2_core.npy", "p3core.npy",   "p3_core.npy",   "p4core.npy",
        "p4_core.npy", "p5core.npy",  "p5_core.npy",  "i8.npy",        "u4.npy",
        "i2.npy",      "f4.npy",      "f8.npy",       "big.npy",       "bool.npy",
        "fortran.npy", "stored.npz",  "deflated.npz", "structured.npy"};
    struct pl_events first = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        struct pl_events e = {0};
        char path[512];
        snprintf(path, sizeof(path), "%s/events/%s", VISION, files[i]);
        ok(pl_events_read(path, &e, &err));
        assert_int_equal(e.n, 203);
        assert_true(e.sorted);
        assert_int_equal(e.width, 40);
        assert_int_equal(e.height, 31);
        check_frames(&e, VISION "/events/frames.txt");
        if (i == 0) {
            first = e;
            continue;
        }
        assert_memory_equal(e.t, first.t, e.n * sizeof(*e.t));
        assert_memory_equal(e.p, first.p, e.n);
        pl_events_release(&e);
    }
    pl_events_release(&first);
}

/* ---- files made here ---- */

/* A .npy of version 1 with that header and body; returns its length. */
static size_t npy(unsigned char *b, const char *head, const void *body, size_t n)
{
    size_t len = strlen(head);

    memcpy(b, "\x93NUMPY\x01\x00", 8);
    b[8] = (unsigned char)len;
    b[9] = (unsigned char)(len >> 8);
    memcpy(b + 10, head, len);
    if (n)
        memcpy(b + 10 + len, body, n);
    return 10 + len + n;
}

#define RECORD "[('x', '<i4'), ('y', '<i4'), ('t', '<i8'), ('p', '|i1')]"

struct __attribute__((packed)) record {
    int32_t x, y;
    int64_t t;
    int8_t p;
};

static enum pl_status parse_records(const struct record *r, size_t n, struct pl_events *e,
                                    struct pl_err *err)
{
    unsigned char b[4096];
    char head[256];

    snprintf(head, sizeof(head),
             "{'descr': " RECORD ", 'fortran_order': False, 'shape': (%zu,), }\n", n);
    return pl_events_parse("made.npy", b, npy(b, head, r, n * sizeof(*r)), e, err);
}

static void test_frames(void **state)
{
    const struct record r[] = {{2, 1, 0, 0},  {2, 1, 1, 1}, {0, 0, 2, 1}, {1, 0, 3, 0},
                               {3, 2, 4, -1}, {3, 2, 5, 0}, {0, 2, 6, 1}};
    static const uint8_t red[] = {255, 0, 0}, blue[] = {0, 0, 255}, white[] = {255, 255, 255};
    struct pl_images frames = {0};
    struct pl_events e = {0};

    (void)state;
    ok(parse_records(r, 7, &e, &err));
    assert_int_equal(e.p[4], 1); /* any number but 0 */
    ok(pl_events_render(&e, 3, &frames, &err));
    assert_int_equal(frames.v[0].width, 3); /* each frame is as large as its own events */
    assert_int_equal(frames.v[0].height, 2);
    assert_memory_equal(frames.v[0].rgb + (1 * 3 + 2) * 3, red, 3); /* the last one wins */
    assert_memory_equal(frames.v[0].rgb, white, 3);
    assert_int_equal(frames.v[1].width, 2);
    assert_int_equal(frames.v[1].height, 1);
    assert_memory_equal(frames.v[1].rgb + 3, blue, 3);
    assert_int_equal(frames.v[2].width, 4); /* the rest goes to the last */
    assert_memory_equal(frames.v[2].rgb + (2 * 4 + 3) * 3, blue, 3);
    assert_memory_equal(frames.v[2].rgb + (2 * 4 + 0) * 3, red, 3);
    pl_images_release(&frames);
    fails(PL_ERANGE, "7 events: 8 frames", pl_events_render(&e, 8, &frames, &err));
    assert_int_equal(frames.n, 0);
    pl_events_release(&e);
}

static void test_ranges(void **state)
{
    struct record r[] = {{5, 5, 99, 1}, {5, 5, 0, 0}, {5, 5, 50, 1}};
    struct pl_images frames = {0};
    struct pl_events e = {0};

    (void)state;
    ok(parse_records(r, 3, &e, &err)); /* all at one pixel, t not sorted */
    assert_false(e.sorted);
    assert_int_equal(e.t_min, 0);
    assert_int_equal(e.t_max, 99);
    ok(pl_events_render(&e, 1, &frames, &err));
    assert_int_equal(frames.v[0].width, 6);
    pl_images_release(&frames);
    pl_events_release(&e);
    fails(PL_ERANGE, "no events", parse_records(r, 0, &e, &err));
    ok(parse_records(r, 1, &e, &err));
    fails(PL_ERANGE, "1 event: 5 frames", pl_events_render(&e, 5, &frames, &err));
    pl_events_release(&e);
    r[1].x = -1;
    fails(PL_ERANGE, "x[1] is -1", parse_records(r, 3, &e, &err));
    r[1].x = PL_IMAGE_MAX_SIDE;
    fails(PL_ERANGE, "x[1] is 16384", parse_records(r, 3, &e, &err));
    r[1].x = r[1].y = PL_IMAGE_MAX_SIDE - 1;
    ok(parse_records(r, 3, &e, &err));
    fails(PL_ERANGE, "pixels", pl_events_render(&e, 1, &frames, &err));
    pl_events_release(&e);
}

static void test_window(void **state)
{
    struct record r[] = {{0, 0, -50, 1}, {0, 0, 99949, 0}};
    struct pl_events e = {0};

    (void)state;
    ok(parse_records(r, 2, &e, &err));
    ok(pl_events_check_window(&e, 100, &err)); /* 99 999 µs */
    pl_events_release(&e);
    r[1].t = 99950;
    ok(parse_records(r, 2, &e, &err));
    fails(PL_ERANGE, "100000 µs", pl_events_check_window(&e, 100, &err));
    ok(pl_events_check_window(&e, 101, &err));
    ok(pl_events_check_window(&e, 0, &err));
    pl_events_release(&e);
    r[0].t = INT64_MIN;
    r[1].t = INT64_MAX;
    ok(parse_records(r, 2, &e, &err));
    fails(PL_ERANGE, "18446744073709551615 µs", pl_events_check_window(&e, INT64_MAX / 2000, &err));
    pl_events_release(&e);
}

static void test_structured_lies(void **state)
{
    static const struct {
        const char *head, *part;
    } bad[] = {
        {"{'descr': [('x', '<i4'), ('y', '<i4'), ('p', '|i1')], 'fortran_order': False, 'shape': "
         "(0,), }",
         "no field t"},
        {"{'descr': [('x', '<U4'), ('y', '<i4'), ('t', '<i4'), ('p', '|i1')], 'fortran_order': "
         "False, "
         "'shape': (1,), }",
         "x is of type 'U4'"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", "array of plain numbers"},
        {"{'descr': [('x', '|O'), ('y', '<i4'), ('t', '<i4'), ('p', '|i1')], 'fortran_order': "
         "False, "
         "'shape': (1,), }",
         "x is of type 'O"},
        {"{'descr': " RECORD ", 'fortran_order': False, 'shape': (9,), }", "its shape says"},
        {"{'descr': [('x', '<i4'], 'fortran_order': False, 'shape': (1,), }", "descr"},
        {"{'descr': [], 'fortran_order': False, 'shape': (1,), }", "descr"},
        {"{'descr': '<q9', 'fortran_order': False, 'shape': (1,), }", "descr"},
        {"{'descr': '<f4', 'shape': (3,), }", "no fortran_order"},
        {"{'descr': '<f4', 'fortran_order': Maybe, 'shape': (3,), }", "neither True nor False"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, ", "shape"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", "shape"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }", "beyond"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (), 'more': 1}", "unexpected \"more\""},
        {"['descr']", "no dictionary"},
    };
    unsigned char b[4096];
    char body[64] = {0};
    struct pl_events e = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        size_t n = npy(b, bad[i].head, body, i == 1 ? 25 : i == 2 ? 12 : i == 3 ? 17 : 0);
        struct pl_err err = {""};
        enum pl_status st = pl_events_parse("bad.npy", b, n, &e, &err);
        if (!st || !strstr(err.text, bad[i].part))
            fail_msg("%s: %s", bad[i].head, err.text);
    }
    fails(PL_EFORMAT, "not a .npy", pl_events_parse("x", "", 0, &e, &err));
}

/* ---- hostile pickles ---- */

#define OBJECT "{'descr': '|O', 'fortran_order': False, 'shape': (), }\n"

static void test_hostile_pickles(void **state)
{
#define P(text) text, sizeof(text) - 1
    static const struct {
        const char *bytes;
        size_t n;
        const char *part;
    } bad[] = {
        {P(""), "ends in the middle"},
        {P("\x80\x04"), "ends in the middle"},
        {P("\x80\x01N."), "protocols 2 to 5"},
        {P("\x80\x04N."), "it holds None"},
        {P("\x80\x04}."), "no array \"x\""},
        {P("\x80\x04NN."), "other than one value"},
        {P("\x80\x04(."), "other than one value"},
        {P("\x80\x03"
           "cos\nsystem\nX\x04\x00\x00\x00true\x85R."),
         "os.system"},
        {P("\x80\x04\x8c\x02os\x8c\x06system\x93."), "os.system"},
        {P("\x80\x04\x8c\x08"
           "builtins\x8c\x04"
           "eval\x93."),
         "builtins.eval"},
        {P("\x80\x03"
           "cnumpy\nload\n."),
         "numpy.load"},
        {P("\x80\x02i__main__\nX\n."), "operation 0x69"},
        {P("\x80\x02P1\n."), "operation 0x50"},
        {P("\x80\x02\x82\x01."), "operation 0x82"},
        {P("\x80\x02]Q."), "operation 0x51"},
        {P("\x80\x02)\x81."), "operation 0x81"},
        {P("\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fx."), "ends in the middle"},
        {P("\x80\x04X\xff\xff\xff\xffx."), "ends in the middle"},
        {P("\x80\x04r\xff\xff\xff\xff."), "nothing to remember"},
        {P("\x80\x04Nr\xff\xff\xff\xff."), "more values"},
        {P("\x80\x04h\x07."), "not remembered"},
        {P("\x80\x04t."), "tuple"},
        {P("\x80\x04\x87."), "tuple"},
        {P("\x80\x04u."), "without a list or dict"},
        {P("\x80\x04(NNu."), "without a list or dict"},
        {P("\x80\x04](Nu."), "without a list or dict"},
        {P("\x80\x04](NNu."), "items for a list"},
        {P("\x80\x04Na."), "without a list"},
        {P("\x80\x04R."), "no constructor"},
        {P("\x80\x04NNb."), "a state for nothing"},
        {P("\x80\x04}N\x85"
           "b."),
         "what is no array"},
        {P("\x80\x04\x8a\x09xxxxxxxxx."), "64 bits"},
        {P("\x80\x03"
           "cnumpy\ndtype\nX\x02\x00\x00\x00zz\x85R."),
         "dtype"},
        {P("\x80\x03"
           "cnumpy\ndtype\nX\x02\x00\x00\x00O8\x85R."),
         "dtype"}, /* an array of objects would hold pickles of its own */
        {P("\x80\x03"
           "cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85"
           "C\x01"
           "b\x87R."),
         "another class"},
        {P("\x80\x02"
           "c_codecs\nencode\nX\x01\x00\x00\x00xX\x04\x00\x00\x00utf8\x86R."),
         "other than latin1"},
    };
    unsigned char b[4096];
    struct pl_events e = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct pl_err err = {""};
        enum pl_status st =
            pl_events_parse("bad.npy", b, npy(b, OBJECT, bad[i].bytes, bad[i].n), &e, &err);
        if (st != PL_EFORMAT || !strstr(err.text, bad[i].part))
            fail_msg("pickle %zu: %s: %s", i, pl_status_text(st), err.text);
    }
}

/* A list that holds itself, and a million values that are never used. */
static void test_deep_pickles(void **state)
{
    size_t n = 3000000;
    unsigned char *b = malloc(n + 256);
    char *body = malloc(n);
    struct pl_events e = {0};

    (void)state;
    memcpy(body,
           "\x80\x04]\x94h\x00"
           "a.",
           8);
    fails(PL_EFORMAT, "it holds a list",
          pl_events_parse("self.npy", b, npy(b, OBJECT, body, 8), &e, &err));
    memset(body, ']', n);
    fails(PL_EFORMAT, "more operations",
          pl_events_parse("deep.npy", b, npy(b, OBJECT, body, n), &e, &err));
    memset(body, '(', n);
    fails(PL_EFORMAT, "more operations",
          pl_events_parse("marks.npy", b, npy(b, OBJECT, body, n), &e, &err));
    free(body);
    free(b);
}

/* Every prefix of a good file is an error and no more. */
static void test_truncated(void **state)
{
    static const char *const files[] = {"p4core.npy", "p2_core.npy", "deflated.npz", "stored.npz",
                                        "structured.npy"};
    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char path[512];
        struct pl_buf b;
        struct pl_events e = {0};
        snprintf(path, sizeof(path), "%s/events/%s", VISION, files[i]);
        ok(pl_read_file(path, 1u << 20, &b, &err));
        for (size_t n = 0; n < b.len; n++) {
            struct pl_err err = {""};
            char *part = malloc(n ? n : 1);
            memcpy(part, b.data, n);
            if (!pl_events_parse(files[i], part, n, &e, &err) || !err.text[0])
                fail_msg("%s is accepted at %zu of %zu bytes", files[i], n, b.len);
            free(part);
        }
        pl_buf_release(&b);
    }
    fails(PL_ENOENT, "none.npy", pl_events_read("/none.npy", &(struct pl_events){0}, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),           cmocka_unit_test(test_frames),
        cmocka_unit_test(test_ranges),          cmocka_unit_test(test_window),
        cmocka_unit_test(test_structured_lies), cmocka_unit_test(test_hostile_pickles),
        cmocka_unit_test(test_deep_pickles),    cmocka_unit_test(test_truncated)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
