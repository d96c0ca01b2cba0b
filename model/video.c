#include "model/video.h"

#include "base/buf.h"
#include "model/video_impl.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define MAX_FILE (2u << 30)

bool pl_video_wanted(int64_t frame, int64_t total, size_t n)
{
    int64_t i;

    if (n == 0 || total <= (int64_t)n)
        return true;
    i = (frame * (int64_t)n + total - 1) / total; /* the least i with ⌊i · total / n⌋ ≥ frame */
    return i < (int64_t)n && i * total / (int64_t)n == frame;
}

/* ---- a folder of PNGs ---- */

static int is_png(const struct dirent *e)
{
    size_t n = strlen(e->d_name);

    return n > 4 && e->d_name[0] != '.' && !strcasecmp(e->d_name + n - 4, ".png");
}

static int by_number(const struct dirent **a, const struct dirent **b)
{
    return strverscmp((*a)->d_name, (*b)->d_name);
}

static enum pl_status read_folder(const char *path, size_t n, struct pl_images *append,
                                  struct pl_video_info *info, struct pl_err *err)
{
    struct dirent **list = NULL;
    char file[4096];
    enum pl_status st = PL_OK;
    int total = scandir(path, &list, is_png, by_number);

    if (total < 0)
        return pl_fail_errno(err, errno, "%s", path);
    if (total == 0)
        st = pl_fail(err, PL_EFORMAT, "%s: the folder has no .png file", path);
    for (int i = 0; i < total && !st; i++) {
        if (!pl_video_wanted(i, total, n))
            continue;
        if (snprintf(file, sizeof(file), "%s/%s", path, list[i]->d_name) >= (int)sizeof(file))
            st = pl_fail(err, PL_ERANGE, "%.200s: the path is too long", path);
        else
            st = pl_png_read(file, append, err);
    }
    if (!st) {
        const struct pl_image *first = &append->v[append->n - 1];
        *info =
            (struct pl_video_info){.frames = total, .width = first->width, .height = first->height};
        snprintf(info->codec, sizeof(info->codec), "png");
        snprintf(info->pixel_type, sizeof(info->pixel_type), "rgb24");
    }
    for (int i = 0; i < total; i++)
        free(list[i]);
    free(list);
    return st;
}

/* ---- either ---- */

static void drop_from(struct pl_images *l, size_t n)
{
    while (l->n > n)
        free(l->v[--l->n].rgb);
}

enum pl_status pl_video_parse(const char *name, const void *data, size_t len, size_t n,
                              struct pl_images *append, struct pl_video_info *info,
                              struct pl_err *err)
{
    struct pl_video_info none;
    size_t before = append->n;
    enum pl_status st;

    if (len == 0)
        return pl_fail(err, PL_EFORMAT, "%s: the file is empty", name);
    st = pl_video_decode(name, data, len, n, append, info ? info : &none, err);
    if (st)
        drop_from(append, before);
    return st;
}

enum pl_status pl_video_readable(const char *path, struct pl_err *err)
{
    struct stat sb;

    if (pl_video_version() || (stat(path, &sb) == 0 && S_ISDIR(sb.st_mode)))
        return PL_OK;
    return pl_fail(err, PL_EUNSUPPORTED, PL_VIDEO_NONE, path);
}

enum pl_status pl_video_read(const char *path, size_t n, struct pl_images *append,
                             struct pl_video_info *info, struct pl_err *err)
{
    struct pl_video_info none;
    size_t before = append->n;
    struct pl_buf b;
    struct stat sb;
    enum pl_status st;

    if (stat(path, &sb))
        return pl_fail_errno(err, errno, "%s", path);
    if (S_ISDIR(sb.st_mode)) {
        st = read_folder(path, n, append, info ? info : &none, err);
        if (st)
            drop_from(append, before);
        return st;
    }
    st = pl_read_file(path, MAX_FILE, &b, err);
    if (st)
        return st;
    st = pl_video_parse(path, b.data, b.len, n, append, info, err);
    pl_buf_release(&b);
    return st;
}
