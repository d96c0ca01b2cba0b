/* Scenes of a DSEC folder: event_npy/SEQ/N.npy, event_image/SEQ/N_k.png, mp4/SEQ/N.mp4. */
#include "data/scenes_impl.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { EVENTS, VIDEO, IMAGE, N_KINDS };
static const struct {
    const char *folder, *ext;
} kinds[N_KINDS] = {{"event_npy", ".npy"}, {"mp4", ".mp4"}, {"event_image", ".png"}};

struct entry {
    const char *seq, *stem, *path; /* stem: N */
    uint32_t k;                    /* of an image */
    int kind;
};

struct listing {
    struct pl_arena *arena;
    struct entry *list;
    size_t n, cap;
    struct pl_err *err;
};

static enum pl_status no_memory(struct pl_err *err)
{
    return pl_fail(err, PL_ENOMEM, "no memory for the list of scenes");
}

static enum pl_status add(struct listing *l, const struct entry *e)
{
    if (!e->seq || !e->stem || !e->path)
        return no_memory(l->err);
    if (l->n == PL_SCENES_MAX)
        return pl_fail(l->err, PL_ERANGE, "more than %u files of scenes", PL_SCENES_MAX);
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 1024;
        struct entry *list = realloc(l->list, cap * sizeof *list);
        if (!list)
            return no_memory(l->err);
        l->list = list;
        l->cap = cap;
    }
    l->list[l->n++] = *e;
    return PL_OK;
}

/* "N_k" → N and k; false: it is no image of a scene. */
static bool split_image(struct listing *l, const char *stem, struct entry *e)
{
    const char *bar = strrchr(stem, '_');
    char *end;
    if (!bar || bar == stem || !bar[1] || strspn(bar + 1, "0123456789") != strlen(bar + 1))
        return false;
    errno = 0;
    unsigned long k = strtoul(bar + 1, &end, 10);
    if (errno || k > UINT32_MAX)
        return false;
    e->k = (uint32_t)k;
    e->stem = pl_arena_strndup(l->arena, stem, (size_t)(bar - stem));
    return true;
}

static enum pl_status list_sequence(struct listing *l, int kind, const char *dir, const char *seq)
{
    const char *ext = kinds[kind].ext;
    enum pl_status st = PL_OK;
    struct dirent *d;
    DIR *folder = opendir(dir);
    if (!folder)
        return errno == ENOTDIR ? PL_OK : pl_fail_errno(l->err, errno, "%s", dir);
    while (st == PL_OK && (d = readdir(folder))) {
        size_t n = strlen(d->d_name), m = strlen(ext);
        struct entry e = {.seq = seq, .kind = kind};
        if (d->d_name[0] == '.' || n <= m || strcasecmp(d->d_name + n - m, ext) != 0)
            continue;
        e.stem = pl_arena_strndup(l->arena, d->d_name, n - m);
        if (e.stem && kind == IMAGE && !split_image(l, e.stem, &e))
            continue;
        e.path = pl_arena_printf(l->arena, "%s/%s", dir, d->d_name);
        st = add(l, &e);
    }
    closedir(folder);
    return st;
}

static enum pl_status list_kind(struct listing *l, const char *dir, int kind)
{
    const char *path = pl_arena_printf(l->arena, "%s/%s", dir, kinds[kind].folder);
    enum pl_status st = PL_OK;
    struct dirent *d;
    DIR *folder = path ? opendir(path) : NULL;
    if (!path)
        return no_memory(l->err);
    if (!folder) /* a dataset may come without its clips, or without its events */
        return errno == ENOENT ? PL_OK : pl_fail_errno(l->err, errno, "%s", path);
    while (st == PL_OK && (d = readdir(folder))) {
        if (d->d_name[0] == '.')
            continue;
        const char *seq = pl_arena_strdup(l->arena, d->d_name);
        const char *below = pl_arena_printf(l->arena, "%s/%s", path, d->d_name);
        st = seq && below ? list_sequence(l, kind, below, seq) : no_memory(l->err);
    }
    closedir(folder);
    return st;
}

/* N as a number where it is one: 2 stands before 10. */
static int by_stem(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    if (strspn(a, "0123456789") == n && strspn(b, "0123456789") == m && n != m) {
        while (*a == '0' && n > 1) {
            a++;
            n--;
        }
        while (*b == '0' && m > 1) {
            b++;
            m--;
        }
        if (n != m)
            return n < m ? -1 : 1;
    }
    return strcmp(a, b);
}

static int same_scene(const struct entry *a, const struct entry *b)
{
    int c = strcmp(a->seq, b->seq);
    return c ? c : by_stem(a->stem, b->stem);
}

static int by_scene(const void *x, const void *y)
{
    const struct entry *a = x, *b = y;
    int c = same_scene(a, b);
    if (c)
        return c;
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    if (a->k != b->k)
        return a->k < b->k ? -1 : 1;
    return strcmp(a->path, b->path);
}

/* One scene of the n entries that are its. */
static enum pl_status make_scene(struct pl_scenes *s, const struct entry *e, size_t n,
                                 struct pl_scene *out, struct pl_err *err)
{
    size_t images = 0;
    for (size_t i = 0; i < n; i++)
        images += e[i].kind == IMAGE;
    out->name = pl_arena_printf(&s->arena, "%s/%s", e->seq, e->stem);
    out->images = images ? pl_arena_calloc(&s->arena, images, sizeof *out->images) : NULL;
    if (!out->name || (images && !out->images))
        return no_memory(err);
    for (size_t i = 0; i < n; i++) {
        if (e[i].kind == EVENTS)
            out->events = e[i].path;
        else if (e[i].kind == VIDEO)
            out->video = e[i].path;
        else
            out->images[out->n_images++] = e[i].path;
    }
    return PL_OK;
}

enum pl_status pl_scenes_list_tree(struct pl_scenes *s, const char *dir, struct pl_err *err)
{
    struct listing l = {.arena = &s->arena, .err = err};
    enum pl_status st = PL_OK;
    for (int k = 0; k < N_KINDS && st == PL_OK; k++)
        st = list_kind(&l, dir, k);
    if (st == PL_OK && l.n == 0)
        st = pl_fail(err, PL_ENOENT,
                     "%s: no scenes in it, expected event_npy/SEQ/N.npy or mp4/SEQ/N.mp4", dir);
    if (st == PL_OK) {
        qsort(l.list, l.n, sizeof *l.list, by_scene);
        s->scenes = pl_arena_calloc(&s->arena, l.n, sizeof *s->scenes);
        st = s->scenes ? PL_OK : no_memory(err);
    }
    for (size_t i = 0, n; st == PL_OK && i < l.n; i += n) {
        for (n = 1; i + n < l.n && same_scene(&l.list[i], &l.list[i + n]) == 0;)
            n++;
        st = make_scene(s, &l.list[i], n, &s->scenes[s->n_scenes++], err);
    }
    free(l.list);
    return st;
}
