/* Scenes that an instruction JSON names. */
#include "data/scenes_impl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static enum pl_status no_memory(struct pl_err *err)
{
    return pl_fail(err, PL_ENOMEM, "no memory for the list of scenes");
}

static bool exists(const char *path)
{
    struct stat sb;
    return path && stat(path, &sb) == 0;
}

/* Where a file of the JSON is: as it stands there, below DIR, below DIR/folder. What is nowhere
 * gets the second name, for the message. */
static const char *locate(struct pl_arena *a, const char *dir, const char *folder, const char *path)
{
    char *below;
    if (path[0] == '/')
        return path;
    below = pl_arena_printf(a, "%s/%s", dir, path);
    if (below && folder && !exists(below)) {
        char *deeper = pl_arena_printf(a, "%s/%s/%s", dir, folder, path);
        if (exists(deeper))
            return deeper;
    }
    return below;
}

/* The clip beside an event file: event_npy/SEQ/N.npy has mp4/SEQ/N.mp4; anywhere else the same name
 * with .mp4. NULL: there is none, or memory is out. */
static const char *clip_of(struct pl_arena *a, const char *events)
{
    static const char folder[] = "event_npy/";
    const char *at = NULL;
    size_t n = strlen(events);
    for (const char *p = events; (p = strstr(p, folder)); p++)
        if (p == events || p[-1] == '/')
            at = p;
    if (n > 4 && events[n - 4] == '.')
        n -= 4;
    char *clip =
        at ? pl_arena_printf(a, "%.*smp4/%.*s.mp4", (int)(at - events), events,
                             (int)(events + n - at) - (int)strlen(folder), at + strlen(folder))
           : pl_arena_printf(a, "%.*s.mp4", (int)n, events);
    return exists(clip) ? clip : NULL;
}

/* An item by the file that it asks about. */
struct ref {
    const char *key;
    uint32_t at; /* into the instructions */
};

static int by_key(const void *x, const void *y)
{
    const struct ref *a = x, *b = y;
    int c = strcmp(a->key, b->key);
    return c ? c : a->at < b->at ? -1 : a->at > b->at;
}

static int by_first(const void *x, const void *y)
{
    const struct ref *a = *(struct ref *const *)x, *b = *(struct ref *const *)y;
    return a->at < b->at ? -1 : a->at > b->at;
}

static enum pl_status name_scene(struct pl_scenes *s, const char *dir, bool tree,
                                 const struct pl_instruction *i, struct pl_scene *out,
                                 struct pl_err *err)
{
    const char *name = i->events ? i->events : i->video, *dot = strrchr(name, '.');
    size_t n = dot && !strchr(dot, '/') && dot > name ? (size_t)(dot - name) : strlen(name);
    if (tree && strncmp(name, "event_npy/", 10) == 0 && n > 10) {
        name += 10;
        n -= 10;
    }
    out->name = pl_arena_strndup(&s->arena, name, n);
    if (i->events)
        out->events = locate(&s->arena, dir, tree ? "event_npy" : NULL, i->events);
    if (i->video)
        out->video = locate(&s->arena, dir, tree ? "mp4" : NULL, i->video);
    if (!out->name || (i->events && !out->events) || (i->video && !out->video))
        return no_memory(err);
    if (!out->video)
        out->video = clip_of(&s->arena, out->events);
    return PL_OK;
}

/* One scene: the items of n refs, which are in the file's order; at most n_questions of them. */
static enum pl_status add_scene(struct pl_scenes *s, const char *dir, bool tree,
                                const struct pl_instructions *in, const struct ref *refs, size_t n,
                                uint32_t n_questions, struct pl_err *err)
{
    enum pl_status st =
        name_scene(s, dir, tree, &in->list[refs[0].at], &s->scenes[s->n_scenes], err);
    for (size_t i = 0; i < n && i < n_questions; i++) {
        const struct pl_instruction *q = &in->list[refs[i].at];
        s->items[s->n_items++] = (struct scene_item){
            .name = tree ? NULL : q->id, .question = q->question, .answer = q->answer};
    }
    s->first[++s->n_scenes] = s->n_items;
    return st;
}

enum pl_status pl_scenes_from_instructions(struct pl_scenes *s, const char *dir, bool tree,
                                           const struct pl_instructions *in, uint32_t n_questions,
                                           struct pl_err *err)
{
    struct ref *refs = malloc(in->n * sizeof *refs), **heads = malloc(in->n * sizeof *heads);
    enum pl_status st = PL_OK;
    size_t n_heads = 0;
    s->scenes = pl_arena_calloc(&s->arena, in->n, sizeof *s->scenes);
    s->items = pl_arena_calloc(&s->arena, in->n, sizeof *s->items);
    s->first = pl_arena_calloc(&s->arena, in->n + 1, sizeof *s->first);
    if (!refs || !heads || !s->scenes || !s->items || !s->first)
        st = no_memory(err);
    else if (in->n > PL_SCENE_SAMPLES_MAX)
        st = pl_fail(err, PL_ERANGE, "%zu questions, expected at most %u", in->n,
                     PL_SCENE_SAMPLES_MAX);
    for (size_t i = 0; st == PL_OK && i < in->n; i++) {
        const struct pl_instruction *q = &in->list[i];
        refs[i] = (struct ref){q->events ? q->events : q->video, (uint32_t)i};
    }
    if (st == PL_OK)
        qsort(refs, in->n, sizeof *refs, by_key);
    for (size_t i = 0; st == PL_OK && i < in->n; i++)
        if (i == 0 || strcmp(refs[i].key, refs[i - 1].key) != 0)
            heads[n_heads++] = &refs[i];
    if (st == PL_OK) /* scenes as the file has them */
        qsort(heads, n_heads, sizeof *heads, by_first);
    for (size_t h = 0; st == PL_OK && h < n_heads; h++) {
        const struct ref *first = heads[h], *end = first;
        while (end < refs + in->n && strcmp(end->key, first->key) == 0)
            end++;
        st = add_scene(s, dir, tree, in, first, (size_t)(end - first), n_questions, err);
    }
    free(refs);
    free(heads);
    return st;
}
