#include "cli/runner/inspect_media.h"

#include "model/events.h"
#include "model/video.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define EVENT_FRAMES 5
#define CLIP_FRAMES 8
#define GAP 4 /* pixels between pictures */

/* ---- what a path is ---- */

static bool ends(const char *s, const char *with)
{
    size_t n = strlen(s), w = strlen(with);

    return n >= w && !strcasecmp(s + n - w, with);
}

static bool is_folder_of_png(const char *path)
{
    char file[4200];
    struct dirent *e;
    bool found = false;
    DIR *d;

    snprintf(file, sizeof(file), "%s/config.json", path);
    if (!access(file, F_OK) || !(d = opendir(path)))
        return false;
    while (!found && (e = readdir(d)))
        found = ends(e->d_name, ".png");
    closedir(d);
    return found;
}

static bool is_clip(const char *path)
{
    static const char *const names[] = {".mp4", ".mkv", ".avi", ".webm", ".mov", ".m4v", ".gif"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (ends(path, names[i]))
            return true;
    return false;
}

static bool is_events(const char *path)
{
    return ends(path, ".npy") || ends(path, ".npz");
}

bool pl_media_is(const char *path)
{
    struct stat sb;

    if (stat(path, &sb))
        return false;
    if (S_ISDIR(sb.st_mode))
        return is_folder_of_png(path);
    return is_events(path) || is_clip(path) || ends(path, ".png");
}

/* ---- a picture ---- */

/* All of them in a row, on grey. */
static enum pl_status write_row(const char *path, const struct pl_images *l, struct pl_err *err)
{
    struct pl_images sheet = {.v = NULL};
    struct pl_image *to = NULL;
    int32_t width = -GAP, height = 0, x = 0;
    enum pl_status st;

    for (size_t i = 0; i < l->n; i++) {
        width += l->v[i].width + GAP;
        height = l->v[i].height > height ? l->v[i].height : height;
    }
    st = pl_images_add(&sheet, width, height, &to, err);
    if (!st)
        memset(to->rgb, 128, (size_t)width * (size_t)height * 3);
    for (size_t i = 0; i < l->n && !st; i++) {
        const struct pl_image *from = &l->v[i];
        for (int32_t y = 0; y < from->height; y++)
            memcpy(to->rgb + ((size_t)y * (size_t)width + (size_t)x) * 3,
                   from->rgb + (size_t)y * (size_t)from->width * 3, (size_t)from->width * 3);
        x += from->width + GAP;
    }
    if (!st)
        st = pl_png_write(path, to, err);
    pl_images_release(&sheet);
    return st;
}

static enum pl_status no_memory(struct pl_err *err)
{
    return pl_fail(err, PL_ENOMEM, "inspect: no memory");
}

static enum pl_status look_at_events(const char *path, const char *png, json_t **out,
                                     struct pl_err *err)
{
    struct pl_images frames = {.v = NULL};
    struct pl_events e = {.n = 0};
    size_t on = 0;
    double span;
    enum pl_status st = pl_events_read(path, &e, err);

    if (st)
        return st;
    for (size_t i = 0; i < e.n; i++)
        on += e.p[i];
    span = (double)((uint64_t)e.t_max - (uint64_t)e.t_min);
    *out = json_pack("{s:s,s:s,s:I,s:I,s:I,s:i,s:i,s:I,s:I,s:f,s:b}", "path", path, "format",
                     "events", "events", (json_int_t)e.n, "positive", (json_int_t)on, "negative",
                     (json_int_t)(e.n - on), "width", e.width, "height", e.height, "t_min_us",
                     (json_int_t)e.t_min, "t_max_us", (json_int_t)e.t_max, "span_ms", span / 1e3,
                     "sorted", e.sorted);
    if (!*out)
        st = no_memory(err);
    else if (span > 0)
        json_object_set_new(*out, "events_per_s", json_real((double)e.n * 1e6 / span));
    if (!st && png)
        st = pl_events_render(&e, e.n < EVENT_FRAMES ? 1 : EVENT_FRAMES, &frames, err);
    if (!st && png)
        st = write_row(png, &frames, err);
    pl_images_release(&frames);
    pl_events_release(&e);
    return st;
}

static enum pl_status look_at_clip(const char *path, const char *format, const char *png,
                                   json_t **out, struct pl_err *err)
{
    struct pl_images frames = {.v = NULL};
    struct pl_video_info i;
    enum pl_status st = pl_video_read(path, CLIP_FRAMES, &frames, &i, err);

    if (st)
        return st;
    *out = json_pack("{s:s,s:s,s:I,s:i,s:i,s:s,s:s}", "path", path, "format", format, "frames",
                     (json_int_t)i.frames, "width", i.width, "height", i.height, "codec", i.codec,
                     "pixels", i.pixel_type);
    if (!*out)
        st = no_memory(err);
    if (!st && i.fps > 0)
        json_object_set_new(*out, "fps", json_real(i.fps));
    if (!st && i.seconds > 0)
        json_object_set_new(*out, "seconds", json_real(i.seconds));
    if (!st && png)
        st = write_row(png, &frames, err);
    pl_images_release(&frames);
    return st;
}

static enum pl_status look_at_picture(const char *path, const char *png, json_t **out,
                                      struct pl_err *err)
{
    struct pl_images l = {.v = NULL};
    enum pl_status st = pl_png_read(path, &l, err);

    if (st)
        return st;
    *out = json_pack("{s:s,s:s,s:i,s:i}", "path", path, "format", "picture", "width", l.v[0].width,
                     "height", l.v[0].height);
    st = *out ? PL_OK : no_memory(err);
    if (!st && png)
        st = write_row(png, &l, err);
    pl_images_release(&l);
    return st;
}

enum pl_status pl_media_inspect(const char *path, const char *png, json_t **out, struct pl_err *err)
{
    struct stat sb;
    json_t *j = NULL;
    enum pl_status st;

    if (is_events(path))
        st = look_at_events(path, png, &j, err);
    else if (ends(path, ".png"))
        st = look_at_picture(path, png, &j, err);
    else
        st = look_at_clip(path, !stat(path, &sb) && S_ISDIR(sb.st_mode) ? "folder" : "clip", png,
                          &j, err);
    if (!st && png)
        json_object_set_new(j, "picture", json_string(png));
    if (st)
        json_decref(j);
    else
        *out = j;
    return st;
}

void pl_media_print(const json_t *j)
{
    const char *key;
    json_t *v;

    json_object_foreach ((json_t *)(uintptr_t)j, key, v) {
        printf("%-14s ", key);
        if (json_is_string(v))
            printf("%s\n", json_string_value(v));
        else if (json_is_integer(v))
            printf("%lld\n", (long long)json_integer_value(v));
        else if (json_is_real(v))
            printf("%.6g\n", json_real_value(v));
        else
            printf("%s\n", json_is_true(v) ? "yes" : "no");
    }
}
