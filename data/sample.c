#include "data/sample.h"

#include "base/hash.h"
#include "base/rng.h"
#include "data/answer_score.h"
#include "data/longbench.h"
#include "data/needle.h"
#include "data/scenes.h"
#include "data/text_file.h"
#include "data/text_starts.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BASE_NAME_MAX 64 /* bytes of a file's name in a sample's id */
#define SCENE_NAME_MAX 120
#define QUESTION_NAME_MAX 160

enum { KEY_LONGBENCH = 0x6c6f6e67, KEY_SYNTHETIC = 0x73796e74 };

/* Of longbench: the file stays mapped. */
struct bench {
    struct pl_arena arena;
    struct pl_text_file file;
    struct pl_longbench list;
    uint32_t *order; /* [count] */
    char *path, *prompt;
};

struct pl_samples {
    bool text;
    uint32_t needles; /* facts in a text; 0: none */
    struct bench *bench;
    const char *kind; /* of scenes; NULL: none */
    struct pl_scenes *scenes;
    json_t *max_window_ms, *cache_vision; /* of scenes: passed on to the runner */
    bool overlap;
    uint64_t seed;
    uint32_t count;
    struct pl_text_starts texts; /* of text and needle */
};

static void bench_free(struct bench *b)
{
    if (!b)
        return;
    pl_text_file_close(&b->file);
    pl_arena_release(&b->arena);
    free(b->order);
    free(b->path);
    free(b->prompt);
    free(b);
}

void pl_samples_free(struct pl_samples *s)
{
    if (!s)
        return;
    pl_text_starts_release(&s->texts);
    pl_scenes_free(s->scenes);
    bench_free(s->bench);
    json_decref(s->max_window_ms);
    json_decref(s->cache_vision);
    free(s);
}

uint32_t pl_samples_count(const struct pl_samples *s)
{
    return s->count;
}

bool pl_samples_overlap(const struct pl_samples *s)
{
    return s->overlap;
}

static enum pl_status open_text(struct pl_samples *s, const json_t *data, uint64_t context,
                                struct pl_err *err)
{
    const char *path = NULL;
    enum pl_status st = pl_json_str(data, "path", "", &path, err);
    if (st != PL_OK)
        return st;
    if (!path[0])
        return pl_fail(err, PL_EUSAGE, "data.path is missing, expected a text file or a folder");
    st = pl_text_starts_open(path, s->seed, context, s->count, &s->texts, err);
    if (st != PL_OK)
        return st;
    s->count = s->texts.count;
    s->overlap = s->texts.overlap;
    return PL_OK;
}

/* The file that text sample `i` begins in. */
static const char *text_path(const struct pl_samples *s, uint32_t i)
{
    return s->texts.files[s->texts.starts[i].file].path;
}

static enum pl_status open_scenes(struct pl_samples *s, const json_t *data, struct pl_err *err)
{
    uint32_t most;
    enum pl_status st = pl_scenes_open(data, s->seed, &s->scenes, err);
    if (st != PL_OK)
        return st;
    most = pl_scenes_samples(s->scenes);
    if (s->count > most)
        return pl_fail(err, PL_ERANGE,
                       "grid.samples is %" PRIu32 ", expected at most %" PRIu32
                       " (or all): %" PRIu32 " scenes and their questions",
                       s->count, most, pl_scenes_count(s->scenes));
    if (s->count == 0)
        s->count = most;
    s->max_window_ms = json_incref(json_object_get(data, "max_window_ms"));
    s->cache_vision = json_incref(json_object_get(data, "cache_vision"));
    return PL_OK;
}

static enum pl_status open_bench(struct pl_samples *s, const json_t *data, struct pl_err *err)
{
    const char *path = pl_json_get_str(data, "path", "");
    const char *prompt = pl_json_get_str(data, "prompt", PL_LONGBENCH_PROMPT);
    struct bench *b = s->bench = calloc(1, sizeof *b);
    struct pl_rng rng;
    enum pl_status st;
    if (!b)
        return pl_fail(err, PL_ENOMEM, "%s: no memory", path);
    pl_arena_init(&b->arena);
    b->path = strdup(path);
    b->prompt = strdup(prompt);
    st = pl_longbench_check_prompt(prompt, err);
    if (st != PL_OK)
        return pl_err_prefix(err, st, "data.prompt");
    st = pl_text_file_open(&b->file, path, err);
    if (st == PL_OK)
        st = pl_text_file_check(&b->file, path, err);
    if (st == PL_OK)
        st = pl_longbench_parse(path, b->file.text, b->file.len, &b->arena, &b->list, err);
    if (st != PL_OK)
        return st;
    if (s->count > b->list.n)
        return pl_fail(err, PL_ERANGE,
                       "grid.samples is %" PRIu32 ", expected at most %zu (or all): %s has no more",
                       s->count, b->list.n, path);
    b->order = malloc(b->list.n * sizeof *b->order);
    if (!b->order || !b->path || !b->prompt)
        return pl_fail(err, PL_ENOMEM, "%s: no memory for %zu samples", path, b->list.n);
    for (uint32_t i = 0; i < b->list.n; i++)
        b->order[i] = i;
    pl_rng_init(&rng, pl_keyv(s->seed, KEY_LONGBENCH));
    pl_rng_shuffle(&rng, b->order, b->list.n);
    s->count = s->count ? s->count : (uint32_t)b->list.n;
    return PL_OK;
}

static const struct pl_longbench_item *bench_item(const struct pl_samples *s, uint32_t i)
{
    return &s->bench->list.items[s->bench->order[i]];
}

/* The longest of the contexts; of scenes there is one, and that is [auto]. */
static enum pl_status check_contexts(const int64_t *contexts, size_t n, bool scenes, int64_t *out,
                                     struct pl_err *err)
{
    int64_t most = 0;
    for (size_t i = 0; i < n; i++)
        most = contexts[i] > most ? contexts[i] : most;
    if (scenes && (n != 1 || most != PL_CONTEXT_AUTO))
        return pl_fail(err, PL_ERANGE, "contexts of scenes, expected [auto]");
    if (!scenes && (most < 1 || most > INT32_MAX))
        return pl_fail(err, PL_ERANGE, "largest context %" PRId64 ", expected 1 to %d", most,
                       INT32_MAX);
    *out = most;
    return PL_OK;
}

enum pl_status pl_samples_open(const json_t *data, uint64_t seed, const int64_t *contexts,
                               size_t n_contexts, uint32_t count, struct pl_samples **out,
                               struct pl_err *err)
{
    static const char *const scenes[] = {"eventgpt", "dsec"};
    const char *kind = NULL, *of_scenes = NULL;
    int64_t context = 0;
    struct pl_samples *s;
    enum pl_status st = pl_json_str(data, "kind", "", &kind, err);
    if (st != PL_OK)
        return st;
    for (size_t i = 0; i < sizeof scenes / sizeof scenes[0]; i++)
        of_scenes = strcmp(kind, scenes[i]) == 0 ? scenes[i] : of_scenes;
    st = check_contexts(contexts, n_contexts, of_scenes, &context, err);
    if (st != PL_OK)
        return st;
    s = calloc(1, sizeof *s);
    if (!s)
        return pl_fail(err, PL_ENOMEM, "no memory for the samples");
    s->seed = seed;
    s->count = count;
    s->kind = of_scenes;
    if (strcmp(kind, "needle") == 0)
        s->needles = (uint32_t)pl_json_get_i64(data, "needles", 1);
    s->text = strcmp(kind, "text") == 0 || s->needles;
    if (s->needles > PL_NEEDLES_MAX)
        st = pl_fail(err, PL_ERANGE, "data.needles is %" PRIu32 ", expected at most %d", s->needles,
                     PL_NEEDLES_MAX);
    else if (strcmp(kind, "longbench") == 0)
        st = open_bench(s, data, err);
    else if (s->text)
        st = open_text(s, data, (uint64_t)context, err);
    else if (s->kind)
        st = open_scenes(s, data, err);
    else if (strcmp(kind, "synthetic") != 0)
        st = pl_fail(err, PL_EUNSUPPORTED,
                     "data.kind \"%s\", expected text, synthetic, eventgpt, dsec, needle or "
                     "longbench",
                     kind);
    else if (count == 0)
        st = pl_fail(err, PL_ERANGE,
                     "samples: all has no end with synthetic data, expected a "
                     "number");
    if (st != PL_OK) {
        pl_samples_free(s);
        return st;
    }
    *out = s;
    return PL_OK;
}

const struct pl_scenes *pl_samples_scenes(const struct pl_samples *s)
{
    return s->scenes;
}

const char *pl_samples_answer(const struct pl_samples *s, uint32_t i)
{
    struct pl_scene_sample q = {0};
    if (s->scenes)
        pl_scenes_sample(s->scenes, i, &q);
    return q.answer;
}

bool pl_samples_answered(const struct pl_samples *s)
{
    return s->needles || s->bench || (s->scenes && pl_scenes_answered(s->scenes));
}

static void score_bench(const struct pl_longbench_item *item, const char *answer,
                        struct pl_sample_scores *out)
{
    const char *const *right = (const char *const *)item->answers;
    struct pl_answer_scores v;
    if (item->n_classes) {
        out->classification = pl_answer_classification(
            answer, right, item->n_answers, (const char *const *)item->classes, item->n_classes);
    } else if (pl_answer_scores(answer, right, item->n_answers, &v)) {
        out->f1 = v.f1;
        out->rouge_l = v.rouge_l;
        out->exact_match = v.exact_match;
    }
}

void pl_samples_score(const struct pl_samples *s, uint32_t i, const char *answer,
                      struct pl_sample_scores *out)
{
    const char *right = pl_samples_answer(s, i);
    char number[8];
    *out = (struct pl_sample_scores){NAN, NAN, NAN, NAN, NAN};
    if (s->bench) {
        score_bench(bench_item(s, i), answer, out);
    } else if (s->needles) {
        json_decref(pl_needle_make(s->seed, i, s->needles, number));
        out->accuracy = pl_answer_holds(answer, number);
    } else if (right) {
        out->accuracy = pl_answer_score(answer, right);
    }
}

/* At most `max` bytes of a name, into max + 1: a long one is cut within characters and made unique
 * again by a hash of the whole. */
static void shorten(const char *name, size_t max, char *out)
{
    size_t n = strlen(name);
    if (n <= max) {
        memcpy(out, name, n + 1);
        return;
    }
    n = max - 9;
    while (n && ((unsigned char)name[n] & 0xC0) == 0x80)
        n--;
    memcpy(out, name, n);
    snprintf(out + n, max + 1 - n, "~%08" PRIx32, (uint32_t)pl_hash_str(name));
}

static void scene_id(const struct pl_samples *s, uint32_t i, char *out, size_t size)
{
    char scene[SCENE_NAME_MAX + 1], question[QUESTION_NAME_MAX + 1], twin[16] = "";
    struct pl_scene_sample q;
    pl_scenes_sample(s->scenes, i, &q);
    shorten(q.name, SCENE_NAME_MAX, scene);
    shorten(q.question, QUESTION_NAME_MAX, question);
    for (char *c = question; *c; c++) /* an id is one line */
        if ((unsigned char)*c < 0x20)
            *c = ' ';
    if (q.twin)
        snprintf(twin, sizeof twin, " #%" PRIu32, q.twin + 1);
    snprintf(out, size, "%s × %s%s", scene, question, twin);
}

void pl_samples_id(const struct pl_samples *s, uint32_t i, char *out, size_t size)
{
    char name[BASE_NAME_MAX + 1];
    const char *path, *slash;
    if (s->scenes) {
        scene_id(s, i, out, size);
        return;
    }
    if (!s->text && !s->bench) {
        snprintf(out, size, "synthetic-%" PRIu32, i);
        return;
    }
    path = s->bench ? s->bench->path : text_path(s, i);
    slash = strrchr(path, '/');
    shorten(slash ? slash + 1 : path, BASE_NAME_MAX, name);
    if (s->bench)
        snprintf(out, size, "%s:%" PRIu32, name, bench_item(s, i)->line);
    else
        snprintf(out, size, "%s@%" PRIu64 "%s", name, s->texts.starts[i].offset,
                 s->needles ? "?" : "");
}

size_t pl_samples_id_size(const struct pl_samples *s)
{
    char id[PL_SAMPLE_ID_MAX];
    size_t most = BASE_NAME_MAX + 32; /* of the other kinds */
    for (uint32_t i = 0; s->scenes && i < s->count; i++) {
        pl_samples_id(s, i, id, sizeof id);
        most = i == 0 || strlen(id) + 1 > most ? strlen(id) + 1 : most;
    }
    return most;
}

void pl_samples_digest(const struct pl_samples *s, char out[PL_SAMPLES_DIGEST])
{
    char id[PL_SAMPLE_ID_MAX];
    uint64_t h = s->count;
    for (uint32_t i = 0; i < s->count; i++) {
        pl_samples_id(s, i, id, sizeof id);
        h = pl_hash64(h, id, strlen(id));
    }
    snprintf(out, PL_SAMPLES_DIGEST, "%016" PRIx64, h);
}

static json_t *scene_request(const struct pl_samples *s, uint32_t i)
{
    struct pl_scene_sample q;
    pl_scenes_sample(s->scenes, i, &q);
    const struct pl_scene *c = pl_scenes_scene(s->scenes, q.scene);
    json_t *images = json_array();
    for (size_t k = 0; k < c->n_images; k++)
        json_array_append_new(images, json_string(c->images[k]));
    return json_pack("{s:s,s:I,s:s,s:s?,s:s?,s:o,s:s,s:O?,s:O?}", "kind", s->kind, "index",
                     (json_int_t)i, "scene", c->name, "events", c->events, "video", c->video,
                     "images", images, "question", q.question, "max_window_ms", s->max_window_ms,
                     "cache_vision", s->cache_vision);
}

uint32_t pl_samples_in_group(uint32_t n_samples, uint32_t size, uint32_t i, uint32_t j)
{
    uint32_t first = i / size * size;
    uint32_t n = n_samples - first < size ? n_samples - first : size;

    return first + (uint32_t)(((uint64_t)(i - first) + j) % n);
}

static json_t *bench_request(const struct pl_samples *s, uint32_t i)
{
    const struct bench *b = s->bench;
    json_t *o = pl_longbench_prompt(b->file.text, b->file.len, bench_item(s, i), b->prompt);
    json_object_set_new(o, "kind", json_string("longbench"));
    json_object_set_new(o, "index", json_integer(i));
    return o;
}

static json_t *needle_request(const struct pl_samples *s, uint32_t i)
{
    char answer[8];
    json_t *o = pl_needle_make(s->seed, i, s->needles, answer);
    json_object_set_new(o, "kind", json_string("needle"));
    json_object_set_new(o, "index", json_integer(i));
    json_object_set_new(o, "path", json_string(text_path(s, i)));
    json_object_set_new(o, "offset", json_integer((json_int_t)s->texts.starts[i].offset));
    return o;
}

json_t *pl_samples_request(const struct pl_samples *s, uint32_t i)
{
    char key[17];
    if (s->scenes)
        return scene_request(s, i);
    if (s->bench)
        return bench_request(s, i);
    if (s->needles)
        return needle_request(s, i);
    if (s->text)
        return json_pack("{s:s,s:I,s:s,s:I}", "kind", "text", "index", (json_int_t)i, "path",
                         text_path(s, i), "offset", (json_int_t)s->texts.starts[i].offset);
    snprintf(key, sizeof key, "%016" PRIx64, pl_keyv(s->seed, KEY_SYNTHETIC, i));
    return json_pack("{s:s,s:I,s:s}", "kind", "synthetic", "index", (json_int_t)i, "key", key);
}

enum pl_status pl_synthetic_ids(const json_t *sample, uint32_t vocab, int32_t *ids, size_t n,
                                struct pl_err *err)
{
    const char *key = NULL;
    char *end = NULL;
    uint64_t word;
    struct pl_rng rng;
    enum pl_status st = pl_json_str(sample, "key", "", &key, err);
    if (st != PL_OK)
        return st;
    if (vocab < 1 || vocab > INT32_MAX)
        return pl_fail(err, PL_ERANGE, "a vocabulary of %" PRIu32 ", expected 1 to %d", vocab,
                       INT32_MAX);
    errno = 0;
    word = strtoull(key, &end, 16);
    if (errno || strlen(key) != 16 || *end)
        return pl_fail(err, PL_EFORMAT, "sample.key \"%s\", expected 16 hexadecimal digits", key);
    pl_rng_init(&rng, word);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)pl_rng_below(&rng, vocab);
    return PL_OK;
}
