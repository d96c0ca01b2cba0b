#include "data/scenes_impl.h"

#include "base/rng.h"
#include "data/text_file.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { KEY_SCENES = 0x7363656e };

void pl_scenes_free(struct pl_scenes *s)
{
    if (!s)
        return;
    pl_arena_release(&s->arena);
    free(s);
}

uint32_t pl_scenes_samples(const struct pl_scenes *s)
{
    return s->n_samples;
}

uint32_t pl_scenes_count(const struct pl_scenes *s)
{
    return s->n_scenes;
}

const struct pl_scene *pl_scenes_scene(const struct pl_scenes *s, uint32_t scene)
{
    return &s->scenes[scene];
}

uint32_t pl_scenes_longest(const struct pl_scenes *s)
{
    return s->longest;
}

bool pl_scenes_answered(const struct pl_scenes *s)
{
    return s->answered;
}

/* The last scene whose first sample is not beyond i. */
static uint32_t scene_of(const struct pl_scenes *s, uint32_t i)
{
    uint32_t low = 0, high = s->n_scenes;
    while (high - low > 1) {
        uint32_t mid = low + (high - low) / 2;
        if (s->first[mid] <= i)
            low = mid;
        else
            high = mid;
    }
    return low;
}

void pl_scenes_sample(const struct pl_scenes *s, uint32_t i, struct pl_scene_sample *out)
{
    const uint32_t scene = s->first ? scene_of(s, i) : i / s->n_items;
    const struct scene_item *q = &s->items[s->first ? i : i % s->n_items];
    *out = (struct pl_scene_sample){.scene = scene,
                                    .name = q->name ? q->name : s->scenes[scene].name,
                                    .question = q->question,
                                    .twin = q->twin,
                                    .answer = q->answer};
}

static enum pl_status no_memory(struct pl_err *err)
{
    return pl_fail(err, PL_ENOMEM, "no memory for the list of scenes");
}

/* The one file DIR/NAME.json; NULL and PL_OK: there is none. */
static enum pl_status json_in(struct pl_scenes *s, const char *dir, const char **out,
                              struct pl_err *err)
{
    const char *found = NULL;
    struct dirent *d;
    DIR *folder = opendir(dir);
    enum pl_status st = PL_OK;
    if (!folder)
        return pl_fail_errno(err, errno, "%s", dir);
    while (st == PL_OK && (d = readdir(folder))) {
        size_t n = strlen(d->d_name);
        if (d->d_name[0] == '.' || n < 6 || strcasecmp(d->d_name + n - 5, ".json") != 0)
            continue;
        if (found)
            st = pl_fail(err, PL_EUSAGE,
                         "%s: more than one .json file in it, expected data.questions to name one",
                         dir);
        else if (!(found = pl_arena_printf(&s->arena, "%s/%s", dir, d->d_name)))
            st = no_memory(err);
    }
    closedir(folder);
    if (st == PL_OK)
        *out = found;
    return st;
}

/* A file that begins with a list or an object is JSON; a question does not begin so. */
static bool looks_like_json(const struct pl_text_file *f)
{
    size_t i = f->len >= 3 && memcmp(f->text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    while (i < f->len && strchr(" \t\r\n", f->text[i]))
        i++;
    return i < f->len && (f->text[i] == '[' || f->text[i] == '{');
}

/* What a question file holds: one of the two has n > 0. */
static enum pl_status read_file(struct pl_scenes *s, const char *path, struct pl_questions *list,
                                struct pl_instructions *json, struct pl_err *err)
{
    struct pl_text_file f;
    enum pl_status st = pl_text_file_open(&f, path, err);
    if (st != PL_OK)
        return st;
    if (f.len > PL_QUESTIONS_FILE_MAX)
        st = pl_fail(err, PL_ERANGE, "%s: %zu bytes, expected at most %u", path, f.len,
                     PL_QUESTIONS_FILE_MAX);
    else if (looks_like_json(&f))
        st = pl_instructions_parse(path, f.text, f.len, &s->arena, json, err);
    else
        st = pl_questions_parse(path, f.text, f.len, &s->arena, list, err);
    pl_text_file_close(&f);
    return st;
}

/* Every scene is asked the first n of the list, in place of what it may have of its own. */
static enum pl_status ask_all(struct pl_scenes *s, const struct pl_questions *list, uint32_t n,
                              struct pl_err *err)
{
    s->n_items = (uint32_t)(list->n < n ? list->n : n);
    s->first = NULL;
    s->items = pl_arena_calloc(&s->arena, s->n_items, sizeof *s->items);
    if (!s->items)
        return no_memory(err);
    for (uint32_t i = 0; i < s->n_items; i++)
        s->items[i].question = list->text[i];
    return PL_OK;
}

struct twin {
    const char *name, *question;
    uint32_t at;
};

static int by_words(const void *x, const void *y)
{
    const struct twin *a = x, *b = y;
    int c = a->name && b->name ? strcmp(a->name, b->name) : 0;
    c = c ? c : strcmp(a->question, b->question);
    return c ? c : a->at < b->at ? -1 : a->at > b->at;
}

/* Items that read the same are numbered, so that every sample has a name of its own. */
static enum pl_status number_twins(struct pl_scenes *s, struct pl_err *err)
{
    struct twin *t = malloc(s->n_items * sizeof *t);
    if (!t)
        return no_memory(err);
    for (uint32_t i = 0, scene = 0; i < s->n_items; i++) {
        while (s->first && s->first[scene + 1] <= i)
            scene++;
        t[i] = (struct twin){s->items[i].name ? s->items[i].name
                             : s->first       ? s->scenes[scene].name
                                              : NULL,
                             s->items[i].question, i};
    }
    qsort(t, s->n_items, sizeof *t, by_words);
    for (uint32_t i = 1; i < s->n_items; i++)
        if ((!t[i].name || strcmp(t[i].name, t[i - 1].name) == 0) &&
            strcmp(t[i].question, t[i - 1].question) == 0)
            s->items[t[i].at].twin = s->items[t[i - 1].at].twin + 1;
    free(t);
    return PL_OK;
}

/* Scenes in a random order, a scene's items behind each other. */
static enum pl_status shuffle(struct pl_scenes *s, uint64_t seed, struct pl_err *err)
{
    uint32_t *order = malloc(s->n_scenes * sizeof *order);
    struct pl_scene *scenes = pl_arena_calloc(&s->arena, s->n_scenes, sizeof *scenes);
    uint32_t *first = NULL;
    struct scene_item *items = NULL;
    struct pl_rng rng;
    if (s->first) {
        first = pl_arena_calloc(&s->arena, (size_t)s->n_scenes + 1, sizeof *first);
        items = pl_arena_calloc(&s->arena, s->n_items, sizeof *items);
    }
    if (!order || !scenes || (s->first && (!first || !items))) {
        free(order);
        return no_memory(err);
    }
    for (uint32_t i = 0; i < s->n_scenes; i++)
        order[i] = i;
    pl_rng_init(&rng, pl_keyv(seed, KEY_SCENES));
    pl_rng_shuffle(&rng, order, s->n_scenes);
    for (uint32_t i = 0, at = 0; i < s->n_scenes; i++) {
        const uint32_t from = order[i];
        scenes[i] = s->scenes[from];
        for (uint32_t k = s->first ? s->first[from] : 0; s->first && k < s->first[from + 1]; k++)
            items[at++] = s->items[k];
        if (first)
            first[i + 1] = at;
    }
    free(order);
    s->scenes = scenes;
    if (first) {
        s->first = first;
        s->items = items;
    }
    return PL_OK;
}

static enum pl_status count(struct pl_scenes *s, struct pl_err *err)
{
    uint64_t n = s->first ? s->n_items : (uint64_t)s->n_scenes * s->n_items;
    size_t most = 0;
    if (n > PL_SCENE_SAMPLES_MAX)
        return pl_fail(err, PL_ERANGE, "%llu samples, expected at most %u", (unsigned long long)n,
                       PL_SCENE_SAMPLES_MAX);
    s->n_samples = (uint32_t)n;
    for (uint32_t i = 0; i < s->n_items; i++) {
        size_t len = strlen(s->items[i].question);
        if (len > most) {
            most = len;
            s->longest = i;
        }
        s->answered = s->answered || s->items[i].answer;
    }
    return PL_OK;
}

static enum pl_status fill(struct pl_scenes *s, const json_t *data, struct pl_err *err)
{
    const char *kind = pl_json_get_str(data, "kind", ""), *dir = pl_json_get_str(data, "dir", NULL);
    const char *file = pl_json_get_str(data, "questions", NULL);
    const uint32_t n = (uint32_t)pl_json_get_i64(data, "n_questions", 10);
    const bool tree = strcmp(kind, "dsec") == 0;
    struct pl_questions list = {NULL, 0};
    struct pl_instructions json = {NULL, 0};
    enum pl_status st = PL_OK;
    if (!dir)
        return pl_fail(err, PL_EUSAGE, "data.dir is missing, expected the folder of the scenes");
    if (n < 1)
        return pl_fail(err, PL_ERANGE, "data.n_questions is 0, expected at least 1");
    if (!file)
        st = json_in(s, dir, &file, err);
    if (st == PL_OK && !file)
        st = pl_fail(err, PL_EUSAGE,
                     "data.questions is missing and %s has no .json file, expected %s", dir,
                     tree ? "a list of questions or an instruction JSON" : "an instruction JSON");
    if (st == PL_OK)
        st = read_file(s, file, &list, &json, err);
    if (st != PL_OK)
        return st;
    s->question_file = pl_arena_strdup(&s->arena, file);
    if (json.n == 0 && !tree) { /* a list for the scenes that the folder's JSON names */
        st = json_in(s, dir, &file, err);
        if (st == PL_OK && !file)
            st = pl_fail(err, PL_EUSAGE,
                         "%s: no .json file in it, expected an instruction JSON that names the "
                         "event files",
                         dir);
        if (st == PL_OK)
            st = read_file(s, file, &(struct pl_questions){NULL, 0}, &json, err);
    }
    if (st == PL_OK && json.n)
        st = pl_scenes_from_instructions(s, dir, tree, &json, n, err);
    else if (st == PL_OK)
        st = pl_scenes_list_tree(s, dir, err);
    if (st == PL_OK && list.n)
        st = ask_all(s, &list, n, err);
    return st == PL_OK ? number_twins(s, err) : st;
}

enum pl_status pl_scenes_open(const json_t *data, uint64_t seed, struct pl_scenes **out,
                              struct pl_err *err)
{
    struct pl_scenes *s = calloc(1, sizeof *s);
    if (!s)
        return no_memory(err);
    pl_arena_init(&s->arena);
    enum pl_status st = fill(s, data, err);
    if (st == PL_OK)
        st = shuffle(s, seed, err);
    if (st == PL_OK)
        st = count(s, err);
    if (st != PL_OK) {
        pl_scenes_free(s);
        return st;
    }
    *out = s;
    return PL_OK;
}
