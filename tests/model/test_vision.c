/* EventGPT and Video-LLaVA against torch and transformers: pixels, rows, logits, greedy ids; both
 * generations of weight names; what is missing or contradicts is named. */
#include "golden.h"

#include "base/buf.h"
#include "base/hash.h"
#include "model/events.h"
#include "model/video.h"
#include "model/vision.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#define VISION PL_SOURCE_DIR "/tests/model/vision"

static struct pl_model *load(const char *name)
{
    struct pl_model *m = NULL;
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", VISION, name);
    ok(pl_model_load(path, NULL, &m, &err));
    return m;
}

static struct npy golden(const char *name)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", VISION, name);
    return npy_read(path);
}

static struct pl_pixels load_media(struct pl_model *m, enum pl_media_kind kind, const char *name)
{
    struct pl_media media = {.kind = kind, .max_window_ms = -1};
    struct pl_media_times t;
    struct pl_pixels p = {.v = NULL};
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", VISION, name);
    media.path = path;
    ok(pl_vision_load(&pl_model_info(m)->vision, &media, NULL, &p, &t, NULL, &err));
    assert_true(t.decode > 0);
    if (kind == PL_MEDIA_EVENTS)
        assert_true(t.raster > 0);
    if (kind != PL_MEDIA_PIXELS)
        assert_true(t.preprocess > 0);
    return p;
}

/* Logits of every row, then the greedy ids. greedy NULL: not those. */
static void check_text(struct pl_model *m, const struct pl_pixels *p, const char *ids_name,
                       const char *logits_name, const char *greedy_name)
{
    const struct pl_vision_config *c = &pl_model_info(m)->vision;
    size_t n_rows = (size_t)pl_vision_rows(c, p->frames, p->still), n = 0, h = (size_t)c->hidden;
    struct npy ids = golden(ids_name), want = golden(logits_name);
    struct pl_session *s = new_session(m, NULL);
    float *rows = malloc(n_rows * h * sizeof(*rows)), *embeds, *logits, *last;

    ok(pl_vision_encode(pl_model_vision(m), p, rows, &err));
    ok(pl_vision_spliced(c, ids.data, ids.cols, n_rows, p->still, &n, &err));
    assert_int_equal(n, want.rows);
    embeds = malloc(n * h * sizeof(*embeds));
    ok(pl_vision_splice(m, ids.data, ids.cols, rows, n_rows, p->still, embeds, &err));
    logits = malloc(n * want.cols * sizeof(*logits));
    ok(pl_session_prefill(s, &(struct pl_prompt){.embeds = embeds, .n = n, .all_logits = true},
                          logits, &err));
    double r = relative(logits, want.data, n * want.cols);
    print_message("%s: %zu rows, max|d|/max|logit| %.2e\n", logits_name, n, r);
    assert_true(r <= 1e-4);
    last = logits + (n - 1) * want.cols;
    if (greedy_name) {
        struct npy greedy = golden(greedy_name);
        for (size_t i = 0; i < greedy.cols; i++) {
            last[2] = -INFINITY; /* the end of a text */
            int32_t id = pl_logits_argmax(last, want.cols);
            assert_int_equal(id, ((int32_t *)greedy.data)[i]);
            ok(pl_session_decode(s, id, last, &err));
        }
        free(greedy.data);
    }
    pl_session_free(s);
    free(rows);
    free(embeds);
    free(logits);
    free(ids.data);
    free(want.data);
}

static void test_eventgpt(void **state)
{
    struct pl_model *m = load("eventgpt");
    const struct pl_vision_config *c = &pl_model_info(m)->vision;
    struct npy want = golden("eventgpt/pixels.npy"), rows = golden("eventgpt/rows.npy");
    struct npy rows1 = golden("eventgpt/rows1.npy");
    struct pl_pixels p = load_media(m, PL_MEDIA_EVENTS, "events/p4core.npy");
    float got[22 * 32];

    (void)state;
    assert_int_equal(c->kind, PL_VISION_EVENTGPT);
    assert_int_equal(c->feature_layer, -1);
    assert_int_equal(c->max_window_ms, 100);
    assert_int_equal(pl_vision_rows(c, 5, false), 22);
    assert_int_equal(p.frames, 5);
    for (size_t i = 0; i < want.rows * want.cols; i++)
        assert_true(fabsf(p.v[i] - ((float *)want.data)[i]) < 1e-5f);
    ok(pl_vision_encode(pl_model_vision(m), &p, got, &err));
    assert_true(relative(got, rows.data, 22 * 32) < 1e-4);
    p.frames = 1; /* then fewer, then all again */
    ok(pl_vision_encode(pl_model_vision(m), &p, got, &err));
    assert_true(relative(got, rows1.data, 18 * 32) < 1e-4);
    p.frames = 5;
    check_text(m, &p, "eventgpt/ids.npy", "eventgpt/logits.npy", "eventgpt/greedy.npy");
    pl_pixels_release(&p);
    if (pl_video_version()) {
        p = load_media(m, PL_MEDIA_VIDEO, "clips/second.mp4"); /* frames that somebody rendered */
        assert_int_equal(p.frames, 5);
        pl_pixels_release(&p);
    }
    free(want.data);
    free(rows.data);
    free(rows1.data);
    pl_model_free(m);
}

static void test_video_llava(void **state)
{
    static const char *const names[] = {"video-llava", "video-llava-v5"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct pl_model *m = load(names[i]);
        const struct pl_vision_config *c = &pl_model_info(m)->vision;
        struct pl_pixels p = load_media(m, PL_MEDIA_PIXELS, "video-llava/pixels.npy");
        assert_int_equal(c->kind, PL_VISION_VIDEO_LLAVA);
        assert_int_equal(c->tower_layers, 3);
        assert_int_equal(c->tower.layers, 2);
        assert_int_equal(c->feature_layer, -2);
        assert_int_equal(pl_model_info(m)->arch.eos[0], 2);
        check_text(m, &p, "video-llava/ids.npy", "video-llava/logits.npy",
                   "video-llava/greedy.npy");
        p.frames = 1;
        p.still = true;
        check_text(m, &p, "video-llava/still_ids.npy", "video-llava/still_logits.npy", NULL);
        pl_pixels_release(&p);
        pl_model_free(m);
    }
}

/* ---- merges ---- */

struct first_rows {
    size_t keep, hidden, asked;
};

static enum pl_status choose(void *user, size_t tokens, size_t hidden, const float *attn,
                             const float *keys, size_t *n, struct pl_err *e)
{
    struct first_rows *f = user;
    float sum = 0;

    (void)e;
    for (size_t i = 0; i < tokens; i++) {
        assert_true(attn[i] > 0 && isfinite(keys[i * hidden]));
        sum += attn[i];
    }
    assert_true(fabsf(sum - 1) < 1e-5f);
    f->hidden = hidden;
    f->asked++;
    *n = f->keep < tokens ? f->keep : tokens;
    return PL_OK;
}

static void apply(void *user, const float *rows, float *out)
{
    const struct first_rows *f = user;

    memcpy(out, rows, (f->keep < 17 ? f->keep : 17) * f->hidden * sizeof(*out));
}

/* Merges that leave the first rows as they are: the rows that come without one, and fewer. */
static void check_merges(const char *name, const char *pixels, bool pooled)
{
    struct pl_model *m = load(name);
    struct pl_vision *v = pl_model_vision(m);
    struct pl_pixels p = load_media(m, PL_MEDIA_PIXELS, pixels);
    const size_t h = 32, all = (size_t)pl_vision_rows(pl_vision_config(v), p.frames, false);
    float *plain = malloc(all * h * sizeof(*plain)), *got = malloc(all * h * sizeof(*got));

    ok(pl_vision_encode(v, &p, plain, &err));
    for (size_t keep = 17; keep; keep = keep == 17 ? 3 : keep == 3 ? 1 : 0) {
        struct first_rows f = {.keep = keep};
        const struct pl_vision_merge merge = {choose, apply, &f};
        size_t n = 0;
        ok(pl_vision_encode_merged(v, &p, &merge, got, &n, &err));
        assert_int_equal(f.asked, pooled ? 1 : p.frames);
        assert_int_equal(n, pooled ? p.frames + keep : p.frames * keep);
        if (pooled) {
            assert_true(relative(got, plain, n * h) < 1e-5);
        } else {
            for (size_t i = 0; i < p.frames; i++)
                assert_true(relative(got + i * keep * h, plain + i * 17 * h, keep * h) < 1e-5);
        }
    }
    ok(pl_vision_encode(v, &p, got, &err)); /* and as before, in the room of merges */
    assert_memory_equal(got, plain, all * h * sizeof(*got));
    free(plain);
    free(got);
    pl_pixels_release(&p);
    pl_model_free(m);
}

static void test_merges(void **state)
{
    (void)state;
    check_merges("eventgpt", "eventgpt/pixels.npy", true);
    check_merges("video-llava", "video-llava/pixels.npy", false);
}

/* The processor's way: one vision token a row. */
static void test_splice(void **state)
{
    struct pl_model *m = load("video-llava");
    const struct pl_vision_config *c = &pl_model_info(m)->vision;
    int32_t ids[] = {1, 58, 58, 9, 58, 4}, bad[] = {1, 58, 99};
    float rows[3 * 32], embeds[6 * 32], words[6 * 32];
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i < 3 * 32; i++)
        rows[i] = (float)i;
    ok(pl_vision_spliced(c, ids, 6, 3, false, &n, &err));
    assert_int_equal(n, 6);
    ok(pl_vision_splice(m, ids, 6, rows, 3, false, embeds, &err));
    ok(pl_model_embed(m, (int32_t[]){1, 0, 0, 9, 0, 4}, 6, words, &err));
    memcpy(words + 32, rows, 2 * 32 * sizeof(float));
    memcpy(words + 4 * 32, rows + 2 * 32, 32 * sizeof(float));
    assert_memory_equal(embeds, words, sizeof(words));
    fails(PL_ERANGE, "3 times", pl_vision_spliced(c, ids, 6, 8, false, &n, &err));
    fails(PL_ERANGE, "0 times", pl_vision_spliced(c, ids, 1, 8, false, &n, &err));
    fails(PL_ERANGE, "token 0 is 99", pl_vision_splice(m, bad, 3, rows, 3, false, embeds, &err));
    pl_model_free(m);
}

/* Upstream cuts embeddings at 2048. */
static void test_cut(void **state)
{
    struct pl_model *m = load("eventgpt");
    struct pl_vision_config c = pl_model_info(m)->vision;
    int32_t ids[3000];
    float *embeds = malloc(2048 * 32 * sizeof(*embeds)), *rows = calloc(22 * 32, sizeof(*rows));
    float word[32];
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i < 3000; i++)
        ids[i] = (int32_t)(i % 57) + 3;
    ids[2040] = PL_EVENT_TOKEN;
    ok(pl_vision_spliced(&c, ids, 3000, 22, false, &n, &err));
    assert_int_equal(n, 2048);
    rows[7 * 32] = 5;
    ok(pl_vision_splice(m, ids, 3000, rows, 22, false, embeds, &err));
    assert_true(embeds[2047 * 32] == 5);
    ok(pl_model_embed(m, ids + 2039, 1, word, &err));
    assert_memory_equal(embeds + 2039 * 32, word, sizeof(word));
    ids[2040] = 4;
    ids[2990] = PL_EVENT_TOKEN; /* all of it cut off */
    ok(pl_vision_splice(m, ids, 3000, rows, 22, false, embeds, &err));
    free(embeds);
    free(rows);
    pl_model_free(m);
}

/* ---- clips ---- */

static void hash_frames(const struct pl_images *l, char out[PL_SHA256_HEX])
{
    struct pl_buf b;

    pl_buf_init(&b, 1u << 24);
    for (size_t i = 0; i < l->n; i++)
        ok(pl_buf_add(&b, l->v[i].rgb, (size_t)l->v[i].width * (size_t)l->v[i].height * 3, &err));
    pl_sha256_hex(b.data, b.len, out);
    pl_buf_release(&b);
}

static void test_clips(void **state)
{
    FILE *f = fopen(VISION "/clips/frames.txt", "r");
    char name[64], want[PL_SHA256_HEX], got[PL_SHA256_HEX], path[512];
    int total, taken, clips = 0;
    struct pl_video_info info;

    (void)state;
    assert_non_null(f);
    for (; fscanf(f, "%63s %d %d %64s", name, &total, &taken, want) == 4; clips++) {
        struct pl_images l = {0};
        snprintf(path, sizeof(path), "%s/clips/%s", VISION, name);
        if (!pl_video_version()) {
            fails(PL_EUNSUPPORTED, "FFmpeg", pl_video_read(path, 8, &l, &info, &err));
            continue;
        }
        ok(pl_video_read(path, 8, &l, &info, &err));
        assert_int_equal(info.frames, total);
        assert_int_equal(l.n, taken);
        assert_int_equal(info.width, 64);
        assert_int_equal(info.height, 48);
        hash_frames(&l, got);
        assert_string_equal(got, want);
        pl_images_release(&l);
        ok(pl_video_read(path, 0, &l, &info, &err)); /* every frame */
        assert_int_equal(l.n, total);
        pl_images_release(&l);
    }
    assert_int_equal(clips, 4);
    fclose(f);
}

/* Black stays black and white white, whatever the matrix, the range and the depth. */
static void test_colours(void **state)
{
    struct pl_images a = {0}, b = {0};
    double diff = 0;

    (void)state;
    if (!pl_video_version())
        skip(); /* a build without FFmpeg */
    ok(pl_video_read(VISION "/clips/second.mp4", 1, &a, NULL, &err));
    ok(pl_video_read(VISION "/clips/bt709.mp4", 1, &b, NULL, &err));
    for (size_t i = 0; i < 64 * 48 * 3; i++)
        diff += fabs((double)a.v[0].rgb[i] - b.v[0].rgb[i]) / (64 * 48 * 3);
    print_message("BT.601 4:2:0 and BT.709 4:4:4 10 bits of one picture: mean |d| %.2f\n", diff);
    assert_true(diff < 12); /* the chroma of 4:2:0 is coarser; a wrong matrix gives 25 */
    pl_images_release(&a);
    pl_images_release(&b);
}

static void test_folder(void **state)
{
    char dir[64] = "/tmp/paceline-pngs-XXXXXX", path[128];
    struct pl_images all = {0}, l = {0};
    struct pl_video_info info;

    (void)state;
    assert_non_null(mkdtemp(dir));
    if (pl_png_version()) {
        fails(PL_EFORMAT, "no .png", pl_video_read(dir, 8, &l, &info, &err));
        for (int i = 0; i < 12; i++) {
            struct pl_image *image = NULL;
            ok(pl_images_add(&all, 5, 4, &image, &err));
            memset(image->rgb, i * 20, 5 * 4 * 3);
            snprintf(path, sizeof(path), "%s/f_%d.png", dir, i); /* f_10 comes after f_9 */
            ok(pl_png_write(path, image, &err));
        }
        ok(pl_video_read(dir, 8, &l, &info, &err));
        assert_int_equal(l.n, 8);
        assert_int_equal(info.frames, 12);
        for (int i = 0; i < 8; i++)
            assert_int_equal(l.v[i].rgb[0], i * 12 / 8 * 20);
        for (int i = 0; i < 12; i++) {
            snprintf(path, sizeof(path), "%s/f_%d.png", dir, i);
            unlink(path);
        }
    }
    rmdir(dir);
    pl_images_release(&all);
    pl_images_release(&l);
}

static void test_no_clips(void **state)
{
    struct pl_images l = {0};

    (void)state;
    fails(PL_ENOENT, "none.mp4", pl_video_read("/none.mp4", 8, &l, NULL, &err));
    fails(PL_EFORMAT, "empty", pl_video_parse("x.mp4", "", 0, 8, &l, NULL, &err));
}

static void test_bad_clips(void **state)
{
    struct pl_images l = {0};
    struct pl_buf b;

    (void)state;
    if (!pl_video_version())
        skip(); /* a build without FFmpeg */
    fails(PL_EFORMAT, "no video stream",
          pl_video_read(VISION "/clips/sound.mp4", 8, &l, NULL, &err));
    fails(PL_EFORMAT, "not a clip", pl_video_parse("x.mp4", "hello", 5, 8, &l, NULL, &err));
    ok(pl_read_file(VISION "/clips/second.mp4", 1u << 20, &b, &err));
    for (size_t n = 0; n < b.len - 1; n += 97) {
        struct pl_err err = {""};
        if (!pl_video_parse("cut.mp4", b.data, n, 8, &l, NULL, &err) || !err.text[0])
            fail_msg("a clip cut at %zu of %zu bytes is accepted", n, b.len);
        assert_int_equal(l.n, 0);
    }
    pl_buf_release(&b);
}

/* ---- configurations that lie, weights that are not there ---- */

static char dir[64];

static void put(const char *name, const char *text, size_t n)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    ok(pl_write_file_atomic(path, text, n, &err));
}

static void test_bad_configs(void **state)
{
    static const struct {
        const char *model, *from, *to, *part;
        enum pl_status st;
    } bad[] = {
        {"eventgpt", "/somewhere/else/tower", "/somewhere/else", "there is no config.json of it",
         PL_ENOENT},
        {"eventgpt", "mm_visual_tower", "mm_nothing", "neither mm_visual_tower", PL_EFORMAT},
        {"eventgpt", "\"event_feature_adaptor\": true",
         "\"event_feature_adaptor\": true, \"use_event_qformer\": true, "
         "\"vision_config\": {\"image_size\": 28, \"patch_size\": 7}",
         "use_event_qformer", PL_EUNSUPPORTED},
        {"video-llava", "\"vision_feature_layer\": -2", "\"vision_feature_layer\": -9",
         "the tower has 3 blocks", PL_ERANGE},
        {"video-llava", "\"vision_feature_layer\": -2", "\"vision_feature_layer\": [-2, -5]",
         "not one number", PL_EUNSUPPORTED},
        {"video-llava", "\"default\"", "\"some\"", "neither default nor full", PL_EUNSUPPORTED},
        {"video-llava", "\"video_token_index\": 58", "\"video_token_index\": 61",
         "video_token_index", PL_EFORMAT},
        {"video-llava", "\"clip_vision_model\"", "\"siglip\"", "siglip", PL_EUNSUPPORTED},
        {"video-llava", "\"model_type\": \"llama\"", "\"model_type\": \"mamba\"", "mamba",
         PL_EUNSUPPORTED},
        {"video-llava", "\"projector_hidden_act\": \"gelu\"", "\"projector_hidden_act\": \"tan\"",
         "tan", PL_EUNSUPPORTED},
    };
    static const struct {
        const char *text, *part;
    } pre[] = {{"{\"do_center_crop\": false}", "do_center_crop"},
               {"{\"resample\": 2}", "resample"},
               {"{\"crop_size\": {\"height\": 28, \"width\": 20}}", "not square"},
               {"{\"crop_size\": 27}", "the tower takes 28"},
               {"{\"size\": {\"height\": 28, \"width\": 28}}", "shortest_edge"},
               {"{\"size\": \"big\"}", "size is not a number"},
               {"{\"image_mean\": [1, 2]}", "image_mean"},
               {"{\"image_std\": [1, 0, 1]}", "image_std"},
               {"{\"rescale_factor\": 1.0}", "rescale_factor"},
               {"{", "preprocessor_config.json"}};
    struct pl_vision_config c;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char model[512];
        snprintf(model, sizeof(model), "%s/%s", VISION, bad[i].model);
        edit_config(model, dir, bad[i].from, bad[i].to);
        fails(bad[i].st, bad[i].part, pl_vision_config_read(dir, &c, &err));
    }
    edit_config(VISION "/video-llava", dir, "\"architectures\"", "\"architectures\"");
    ok(pl_vision_config_read(dir, &c, &err));
    assert_int_equal(c.preprocess.crop, 28); /* CLIP's own, where no file says */
    for (size_t i = 0; i < sizeof(pre) / sizeof(pre[0]); i++) {
        put("preprocessor_config.json", pre[i].text, strlen(pre[i].text));
        fails(i < 9 ? (strstr(pre[i].text, "false") || strstr(pre[i].text, "resample") ||
                               strstr(pre[i].text, "width") || strstr(pre[i].text, "rescale")
                           ? PL_EUNSUPPORTED
                           : PL_EFORMAT)
                    : PL_EFORMAT,
              pre[i].part, pl_vision_config_read(dir, &c, &err));
    }
    put("preprocessor_config.json", "{}", 2);
}

static void note(void *user, const char *text)
{
    snprintf(user, 1024, "%s", text);
}

/* The checkpoint of one model under the description of another. */
static void test_missing_weights(void **state)
{
    char said[1024] = "";
    struct pl_model_opts o = {.warn = note, .warn_user = said};
    struct pl_model_info info;
    struct pl_buf b;

    (void)state;
    edit_config(VISION "/video-llava", dir, "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 5");
    ok(pl_read_file(VISION "/video-llava/model.safetensors", 1u << 20, &b, &err));
    put("model.safetensors", b.data, b.len);
    fails(PL_EFORMAT,
          "no tensor video_tower.vision_model.encoder.layers.3.layer_norm1.weight (expected shape "
          "[24]); 31 more are missing: video_tower.vision_model.encoder.layers.3.layer_norm1.bias",
          pl_model_describe(dir, &o, &info, &err));
    edit_config(VISION "/video-llava", dir, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
    ok(pl_model_describe(dir, &o, &info, &err));
    assert_non_null(strstr(said, "9 tensors that are not used"));
    assert_non_null(strstr(said, "language_model.model.layers.1.mlp.down_proj.weight"));
    said[0] = '\0'; /* blocks behind vision_feature_layer are no news */
    ok(pl_model_describe(VISION "/video-llava", &o, &info, &err));
    assert_string_equal(said, "");
    pl_buf_release(&b);
}

static void test_random(void **state)
{
    struct pl_model_opts o = {.random = true, .random_seed = 7};
    static const char *const names[] = {VISION "/eventgpt", VISION "/video-llava/config.json"};
    float rows[136 * 32];

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct pl_model *m = NULL;
        struct pl_model_info info;
        struct pl_pixels p = {.frames = 2, .size = 28};
        ok(pl_model_load(names[i], &o, &m, &err));
        ok(pl_model_describe(names[i], &o, &info, &err));
        assert_int_equal(info.weights_bytes, pl_model_info(m)->weights_bytes);
        p.v = calloc(2 * 3 * 28 * 28, sizeof(float));
        ok(pl_vision_encode(pl_model_vision(m), &p, rows, &err));
        assert_true(isfinite(rows[0]) && rows[0] != 0);
        p.size = 27;
        fails(PL_EUSAGE, "27", pl_vision_encode(pl_model_vision(m), &p, rows, &err));
        pl_pixels_release(&p);
        pl_model_free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_eventgpt),    cmocka_unit_test(test_video_llava),
        cmocka_unit_test(test_splice),      cmocka_unit_test(test_merges),
        cmocka_unit_test(test_cut),         cmocka_unit_test(test_clips),
        cmocka_unit_test(test_colours),     cmocka_unit_test(test_folder),
        cmocka_unit_test(test_no_clips),    cmocka_unit_test(test_bad_clips),
        cmocka_unit_test(test_bad_configs), cmocka_unit_test(test_missing_weights),
        cmocka_unit_test(test_random)};
    static const char *const left[] = {"config.json", "preprocessor_config.json",
                                       "model.safetensors"};
    char path[256];
    int rc;

    snprintf(dir, sizeof(dir), "/tmp/paceline-vision-XXXXXX");
    if (!mkdtemp(dir))
        return 1;
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, left[i]);
        unlink(path);
    }
    rmdir(dir);
    return rc;
}
