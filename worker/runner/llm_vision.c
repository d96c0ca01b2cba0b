#include "worker/runner/llm_vision.h"

#include "base/clock.h"
#include "model/video.h"
#include "worker/runner/llm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static enum pl_status no_memory(struct pl_err *err)
{
    return pl_fail(err, PL_ENOMEM, "no memory for the embeddings of a prompt");
}

static void forget(struct llm_eyes *e, struct llm_seen *s, size_t hidden)
{
    e->seen_bytes -= s->n * hidden * sizeof(float);
    free(s->file);
    free(s->merge);
    free(s->rows);
    memset(s, 0, sizeof(*s));
}

void llm_eyes_release(struct llm_eyes *e)
{
    for (size_t i = 0; i < PL_EYES_SEEN; i++) {
        free(e->seen[i].file);
        free(e->seen[i].merge);
        free(e->seen[i].rows);
    }
    free(e->embeds);
    free(e->visual);
    free(e->own);
    memset(e, 0, sizeof(*e));
}

bool llm_asks(const json_t *sample)
{
    return json_is_string(json_object_get(sample, "question"));
}

const char *llm_reads(const struct pl_vision_config *c)
{
    return c->kind == PL_VISION_EVENTGPT      ? "events"
           : c->kind == PL_VISION_VIDEO_LLAVA ? "video"
                                              : NULL;
}

static enum pl_status text_alone(struct pl_err *err)
{
    return pl_fail(err, PL_EUSAGE, "the model reads text alone: it cannot be asked about scenes");
}

const char *llm_scene_file(const struct pl_vision_config *c, const json_t *sample,
                           struct pl_err *err)
{
    const char *key = llm_reads(c), *path = key ? pl_json_get_str(sample, key, NULL) : NULL;

    if (!key)
        (void)!text_alone(err);
    else if (!path)
        (void)!pl_fail(err, PL_ENOENT, "scene %s has no %s, which %s reads",
                       pl_json_get_str(sample, "scene", "?"),
                       c->kind == PL_VISION_EVENTGPT ? "event file" : "clip",
                       pl_vision_kind_name(c->kind));
    return path;
}

enum pl_status llm_prompt_length(const struct pl_vision_config *c, const struct pl_tokenizer *t,
                                 const json_t *sample, int64_t *out, struct pl_err *err)
{
    struct pl_ids ids = {0};
    size_t n = 0;
    enum pl_status st =
        c->kind == PL_VISION_NONE
            ? text_alone(err)
            : pl_vision_prompt_ids(c, t, pl_json_get_str(sample, "question", ""), false, &ids, err);
    if (!st)
        st = pl_vision_spliced(c, ids.ids, ids.n,
                               (size_t)pl_vision_rows(c, (size_t)c->frames, false), false, &n, err);
    pl_ids_release(&ids);
    if (!st)
        *out = (int64_t)n;
    return st;
}

int64_t llm_describe_scene(const json_t *q, const struct pl_entry *e,
                           const struct pl_model_info *info, int64_t tokens, json_t *answer,
                           json_t *errors)
{
    const json_t *sample = json_object_get(q, "sample"), *arm = json_object_get(q, "arm");
    const char *reads = llm_reads(&info->vision);
    struct pl_tokenizer *t = NULL;
    struct pl_err err = {""};
    int64_t n = 0;

    if (!llm_asks(sample))
        return 0;
    if (pl_json_get_i64(arm, "batch", 1) != 1 || pl_json_get_i64(arm, "concurrency", 1) != 1)
        json_array_append_new(
            errors,
            json_string("batch, concurrency: this runner's engine looks at one scene at a time"));
    json_object_set_new(answer, "reads", reads ? json_pack("[s]", reads) : json_array());
    if (reads && strcmp(reads, "video") == 0 &&
        pl_video_readable(pl_json_get_str(sample, "video", ""), &err))
        json_array_append_new(errors, json_string(err.text));
    if (pl_entry_tokenizer(e->path, &info->arch, &t, &err) == PL_OK && /* else it is said */
        (llm_prompt_length(&info->vision, t, sample, &n, &err) ||
         llm_check_context(&info->arch, n, tokens, &err)))
        json_array_append_new(errors, json_string(err.text));
    pl_tokenizer_free(t);
    json_object_set_new(answer, "prompt_tokens", json_integer(n));
    return n;
}

/* ---- scenes seen before ---- */

static const char *merge_key(const struct llm_merge *m)
{
    return m ? m->key : "";
}

static struct llm_seen *find_seen(struct llm_eyes *e, const char *file, const struct llm_merge *m)
{
    for (size_t i = 0; i < PL_EYES_SEEN; i++)
        if (e->seen[i].file && strcmp(e->seen[i].file, file) == 0 &&
            strcmp(e->seen[i].merge, merge_key(m)) == 0)
            return &e->seen[i];
    return NULL;
}

/* A place for n rows: a free one, else those longest unused go. NULL: they would not fit. */
static struct llm_seen *make_room(struct llm_eyes *e, size_t n, size_t hidden)
{
    const size_t bytes = n * hidden * sizeof(float);

    if (bytes > PL_EYES_BYTES)
        return NULL;
    for (;;) {
        struct llm_seen *open = NULL, *oldest = NULL;
        for (size_t i = 0; i < PL_EYES_SEEN; i++) {
            struct llm_seen *s = &e->seen[i];
            if (!s->file)
                open = s;
            else if (!oldest || s->used < oldest->used)
                oldest = s;
        }
        if (open && e->seen_bytes + bytes <= PL_EYES_BYTES)
            return open;
        forget(e, oldest, hidden); /* none open, or some bytes in use: there is one */
    }
}

/* Keeps the rows in hand. Without memory they are just not kept. */
static void keep(struct llm_eyes *e, const char *file, const struct llm_merge *m, size_t hidden)
{
    const size_t bytes = e->n_rows * hidden * sizeof(float);
    struct llm_seen *s = make_room(e, e->n_rows, hidden);

    if (!s)
        return;
    s->file = strdup(file);
    s->merge = strdup(merge_key(m));
    s->rows = malloc(bytes);
    if (!s->file || !s->merge || !s->rows) {
        free(s->file);
        free(s->merge);
        free(s->rows);
        memset(s, 0, sizeof(*s));
        return;
    }
    memcpy(s->rows, e->rows, bytes);
    s->n = e->n_rows;
    s->whole = e->whole;
    s->used = ++e->clock;
    e->seen_bytes += bytes;
}

/* ---- one look ---- */

static enum pl_status grow(float **v, size_t *cap, size_t need, struct pl_err *err)
{
    if (need <= *cap)
        return PL_OK;
    float *more = realloc(*v, need * sizeof(float));
    if (!more)
        return no_memory(err);
    *v = more;
    *cap = need;
    return PL_OK;
}

/* null: none; a sample that says nothing leaves it to the model. */
static int64_t window_ms(const json_t *sample)
{
    const json_t *v = json_object_get(sample, "max_window_ms");

    if (!v)
        return -1;
    return json_is_number(v) ? (int64_t)ceil(json_number_value(v)) : 0;
}

/* file → rows. */
static enum pl_status see(struct llm_eyes *e, const struct pl_model *m, const json_t *sample,
                          const struct llm_merge *merge, struct llm_look *times, struct pl_err *err)
{
    struct pl_vision *v = pl_model_vision(m);
    const struct pl_vision_config *c = pl_vision_config(v);
    const bool events = c->kind == PL_VISION_EVENTGPT;
    const struct pl_media media = {.kind = events ? PL_MEDIA_EVENTS : PL_MEDIA_VIDEO,
                                   .path = llm_scene_file(c, sample, err),
                                   .max_window_ms = window_ms(sample)};
    struct pl_pixels pixels = {0};
    int64_t began = pl_now_ns();

    if (!media.path)
        return PL_ENOENT;
    enum pl_status st = pl_vision_load(c, &media, pl_vision_room(v), &pixels, NULL, NULL, err);
    int64_t loaded = pl_now_ns();
    if (!st) {
        e->n_rows = (size_t)pl_vision_rows(c, pixels.frames, pixels.still);
        st = grow(&e->own, &e->own_cap, e->n_rows * (size_t)c->hidden, err);
        e->rows = e->own;
    }
    e->whole = e->n_rows;
    if (!st && merge)
        st = pl_vision_encode_merged(v, &pixels, merge->merge, e->own, &e->n_rows, err);
    else if (!st)
        st = pl_vision_encode(v, &pixels, e->own, err);
    times->preprocess = loaded > began ? loaded - began : 1;
    times->tower = pl_now_ns() - loaded;
    pl_pixels_release(&pixels);
    return st;
}

enum pl_status llm_look(struct llm_eyes *e, const struct pl_model *m, const struct pl_tokenizer *t,
                        const json_t *sample, const struct llm_merge *merge, struct pl_ids *ids,
                        struct llm_look *times, struct pl_err *err)
{
    struct pl_vision *v = pl_model_vision(m);
    const struct pl_vision_config *c = v ? pl_vision_config(v) : NULL;
    const bool cache = json_is_true(json_object_get(sample, "cache_vision"));
    const char *file = c ? llm_scene_file(c, sample, err) : NULL;
    size_t n = 0;

    e->n = 0;
    *times = (struct llm_look){.preprocess = -1, .tower = -1};
    if (!c)
        return text_alone(err);
    if (!file)
        return PL_ENOENT;
    ids->n = 0;
    int64_t t0 = pl_now_ns();
    enum pl_status st =
        pl_vision_prompt_ids(c, t, pl_json_get_str(sample, "question", ""), false, ids, err);
    int64_t t1 = pl_now_ns();
    if (st)
        return st;
    struct llm_seen *seen = cache ? find_seen(e, file, merge) : NULL;
    times->kept = seen != NULL;
    if (seen) {
        seen->used = ++e->clock;
        e->rows = seen->rows;
        e->n_rows = seen->n;
        e->whole = seen->whole;
    } else {
        st = see(e, m, sample, merge, times, err);
    }
    if (!st)
        st = pl_vision_spliced(c, ids->ids, ids->n, e->n_rows, false, &n, err);
    if (!st)
        st = grow(&e->embeds, &e->cap, n * (size_t)c->hidden, err);
    if (!st)
        st = pl_vision_splice(m, ids->ids, ids->n, e->rows, e->n_rows, false, e->embeds, err);
    int64_t t2 = pl_now_ns();
    if (st)
        return st;
    if (n > e->visual_cap) { /* for pruners; what it costs is not measured */
        uint8_t *more = realloc(e->visual, n);
        if (!more)
            return no_memory(err);
        e->visual = more;
        e->visual_cap = n;
    }
    pl_vision_mark(c, ids->ids, ids->n, e->n_rows, false, e->visual, n);
    e->n = n;
    times->tokenize = t1 > t0 ? t1 - t0 : 1;
    times->vision = t2 > t1 ? t2 - t1 : 1;
    if (cache && !seen)
        keep(e, file, merge, (size_t)c->hidden);
    e->whole += n - e->n_rows; /* from here on of the prompt */
    return PL_OK;
}

static bool blank(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

enum pl_status llm_answer(const struct pl_tokenizer *t, const int32_t *ids, size_t n,
                          struct pl_buf *out, struct pl_err *err)
{
    pl_buf_clear(out);
    enum pl_status st = pl_tokenizer_decode(t, ids, n, out, err);
    size_t first = 0;

    if (st)
        return st;
    while (first < out->len && blank(out->data[first]))
        first++;
    pl_buf_consume(out, first);
    while (out->len && blank(out->data[out->len - 1]))
        out->data[--out->len] = '\0';
    return PL_OK;
}
