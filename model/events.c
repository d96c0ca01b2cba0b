#include "model/events.h"

#include "base/arena.h"
#include "base/buf.h"
#include "model/npy.h"
#include "model/pickle.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { X, Y, T, P, COLUMNS };

static const char *const column_names[COLUMNS] = {"x", "y", "t", "p"};

/* ---- columns of a file ---- */

static enum pl_status structured_columns(const char *name, const struct pl_npy *a,
                                         struct pl_column out[COLUMNS], struct pl_err *err)
{
    if (a->dims != 1)
        return pl_fail(err, PL_EFORMAT, "%s: a list of events is expected, it has %d dimensions",
                       name, a->dims);
    for (int c = 0; c < COLUMNS; c++) {
        const struct pl_npy_field *f = NULL;
        for (int i = 0; i < a->fields; i++)
            if (!strcmp(a->field[i].name, column_names[c]))
                f = &a->field[i];
        if (!f)
            return pl_fail(err, PL_EFORMAT, "%s: the events have no field %s (x, y, t, p)", name,
                           column_names[c]);
        out[c] = (struct pl_column){
            .data = a->data + f->at, .n = a->count, .stride = a->type.item, .type = f->type};
    }
    return PL_OK;
}

static enum pl_status npz_columns(const char *name, const void *data, size_t len,
                                  struct pl_arena *arena, struct pl_column out[COLUMNS],
                                  struct pl_err *err)
{
    for (int c = 0; c < COLUMNS; c++) {
        struct pl_npy a;
        enum pl_status st = pl_npz_array(name, data, len, column_names[c], arena, &a, err);
        if (st)
            return st == PL_ENOENT ? PL_EFORMAT : st;
        if (a.dims != 1)
            return pl_fail(err, PL_EFORMAT, "%s: %s has %d dimensions, 1 is expected", name,
                           column_names[c], a.dims);
        out[c] =
            (struct pl_column){.data = a.data, .n = a.count, .stride = a.type.item, .type = a.type};
    }
    return PL_OK;
}

static enum pl_status pickled_columns(const char *name, const struct pl_npy *a,
                                      struct pl_arena *arena, struct pl_column out[COLUMNS],
                                      struct pl_err *err)
{
    const struct pl_pickle *v, *dict;
    enum pl_status st;

    if (a->count != 1)
        return pl_fail(err, PL_EFORMAT,
                       "%s: an array of %zu objects: one dict of arrays is expected", name,
                       a->count);
    st = pl_pickle_read(name, a->data, a->bytes, arena, &v, err);
    if (!st)
        st = pl_pickle_dict(name, v, &dict, err);
    for (int c = 0; c < COLUMNS && !st; c++) {
        st = pl_pickle_column(name, dict, column_names[c], &out[c], err);
        st = st == PL_ENOENT ? PL_EFORMAT : st;
    }
    return st;
}

static enum pl_status find_columns(const char *name, const void *data, size_t len,
                                   struct pl_arena *arena, struct pl_column out[COLUMNS],
                                   struct pl_err *err)
{
    struct pl_npy a;
    enum pl_status st;

    if (pl_npz_is(data, len))
        return npz_columns(name, data, len, arena, out, err);
    st = pl_npy_parse(name, data, len, &a, err);
    if (st)
        return st;
    if (a.type.kind == 'O')
        return pickled_columns(name, &a, arena, out, err);
    if (a.fields)
        return structured_columns(name, &a, out, err);
    return pl_fail(err, PL_EFORMAT,
                   "%s: an array of plain numbers: a dict of arrays x, y, t, p or a structured "
                   "array of such fields is expected",
                   name);
}

/* ---- numbers ---- */

static enum pl_status read_coordinates(const struct pl_column *c, const char *name, int which,
                                       int64_t *wide, uint16_t *out, int32_t *size,
                                       struct pl_err *err)
{
    uint16_t most = 0;
    enum pl_status st = pl_column_ints(c, name, column_names[which], false, wide, err);

    for (size_t i = 0; i < c->n && !st; i++) {
        if (wide[i] < 0 || wide[i] >= PL_IMAGE_MAX_SIDE)
            return pl_fail(err, PL_ERANGE, "%s: %s[%zu] is %" PRId64 ", outside 0 … %d", name,
                           column_names[which], i, wide[i], PL_IMAGE_MAX_SIDE - 1);
        out[i] = (uint16_t)wide[i];
        most = out[i] > most ? out[i] : most;
    }
    *size = most + 1;
    return st;
}

static enum pl_status read_times(const struct pl_column *c, const char *name, struct pl_events *e,
                                 struct pl_err *err)
{
    enum pl_status st = pl_column_ints(c, name, "t", true, e->t, err);

    if (st)
        return st;
    e->sorted = true;
    e->t_min = e->t_max = e->t[0];
    for (size_t i = 1; i < e->n; i++) {
        e->sorted = e->sorted && e->t[i] >= e->t[i - 1];
        e->t_min = e->t[i] < e->t_min ? e->t[i] : e->t_min;
        e->t_max = e->t[i] > e->t_max ? e->t[i] : e->t_max;
    }
    return PL_OK;
}

static enum pl_status read_numbers(const char *name, const struct pl_column c[COLUMNS],
                                   struct pl_events *e, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    for (int i = 1; i < COLUMNS; i++)
        if (c[i].n != c[X].n)
            return pl_fail(err, PL_EFORMAT, "%s: %zu x but %zu %s", name, c[X].n, c[i].n,
                           column_names[i]);
    if (c[X].n == 0)
        return pl_fail(err, PL_ERANGE, "%s: it holds no events", name);
    e->n = c[X].n;
    e->x = malloc(e->n * sizeof(*e->x));
    e->y = malloc(e->n * sizeof(*e->y));
    e->p = malloc(e->n);
    e->t = malloc(e->n * sizeof(*e->t));
    if (!e->x || !e->y || !e->p || !e->t)
        return pl_fail(err, PL_ENOMEM, "%s: no memory for %zu events", name, e->n);
    st = read_coordinates(&c[X], name, X, e->t, e->x, &e->width, err);
    if (!st)
        st = read_coordinates(&c[Y], name, Y, e->t, e->y, &e->height, err);
    if (!st)
        st = pl_column_ints(&c[P], name, "p", true, e->t, err);
    for (size_t i = 0; i < e->n && !st; i++)
        e->p[i] = e->t[i] != 0;
    return st ? st : read_times(&c[T], name, e, err);
}

enum pl_status pl_events_parse(const char *name, const void *data, size_t len,
                               struct pl_events *out, struct pl_err *err)
{
    struct pl_column columns[COLUMNS];
    struct pl_events e = {.n = 0};
    struct pl_arena arena;
    enum pl_status st;

    pl_arena_init(&arena);
    st = find_columns(name, data, len, &arena, columns, err);
    if (!st)
        st = read_numbers(name, columns, &e, err);
    pl_arena_release(&arena);
    if (st)
        pl_events_release(&e);
    else
        *out = e;
    return st;
}

enum pl_status pl_events_read(const char *path, struct pl_events *out, struct pl_err *err)
{
    struct pl_buf b;
    enum pl_status st = pl_read_file(path, PL_EVENTS_MAX_BYTES, &b, err);

    if (st)
        return st;
    st = pl_events_parse(path, b.data, b.len, out, err);
    pl_buf_release(&b);
    return st;
}

void pl_events_release(struct pl_events *e)
{
    free(e->x);
    free(e->y);
    free(e->p);
    free(e->t);
    *e = (struct pl_events){.n = 0};
}

enum pl_status pl_events_check_window(const struct pl_events *e, int64_t max_window_ms,
                                      struct pl_err *err)
{
    uint64_t span = (uint64_t)e->t_max - (uint64_t)e->t_min;

    if (max_window_ms <= 0 || span < (uint64_t)max_window_ms * 1000)
        return PL_OK;
    return pl_fail(err, PL_ERANGE,
                   "the events span %" PRIu64 " µs: windows of %" PRId64
                   " ms and more are refused (max_window_ms)",
                   span, max_window_ms);
}

/* ---- frames ---- */

static void measure(const struct pl_events *e, struct pl_event_frame *f)
{
    uint16_t w = 0, h = 0;

    for (size_t i = f->begin; i < f->end; i++) {
        w = e->x[i] > w ? e->x[i] : w;
        h = e->y[i] > h ? e->y[i] : h;
    }
    f->width = w + 1;
    f->height = h + 1;
}

enum pl_status pl_events_cut(const struct pl_events *e, size_t n, struct pl_event_frame *out,
                             struct pl_err *err)
{
    size_t each = n ? e->n / n : 0;
    enum pl_status st = PL_OK;

    if (each == 0)
        return pl_fail(err, PL_ERANGE, "%zu event%s: %zu frames of equal count need at least %zu",
                       e->n, e->n == 1 ? "" : "s", n, n);
    for (size_t i = 0; i < n && !st; i++) {
        out[i] =
            (struct pl_event_frame){.begin = i * each, .end = i + 1 < n ? (i + 1) * each : e->n};
        measure(e, &out[i]);
        st = pl_image_check(out[i].width, out[i].height, err);
    }
    return st;
}

static enum pl_status render(const struct pl_events *e, const struct pl_event_frame *f,
                             struct pl_images *append, struct pl_err *err)
{
    struct pl_image *image;
    enum pl_status st = pl_images_add(append, f->width, f->height, &image, err);

    if (st)
        return st;
    memset(image->rgb, 255, (size_t)image->width * (size_t)image->height * 3);
    for (size_t i = f->begin; i < f->end; i++) {
        uint8_t *at = image->rgb + ((size_t)e->y[i] * (size_t)image->width + e->x[i]) * 3;
        uint8_t red = e->p[i] ? 255 : 0;
        at[0] = red;
        at[1] = 0;
        at[2] = (uint8_t)(255 - red);
    }
    return PL_OK;
}

enum pl_status pl_events_render(const struct pl_events *e, size_t n, struct pl_images *append,
                                struct pl_err *err)
{
    struct pl_event_frame *f = calloc(n ? n : 1, sizeof(*f));
    enum pl_status st =
        f ? pl_events_cut(e, n, f, err) : pl_fail(err, PL_ENOMEM, "no memory for %zu frames", n);

    for (size_t i = 0; i < n && !st; i++)
        st = render(e, &f[i], append, err);
    free(f);
    return st;
}
