/* What can be told of a dataset's files from outside: there, of the right kind, not cut off. */
#include "data/scenes_impl.h"

#include "base/buf.h"
#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EDGE 65536
#define HASH_LINES_MAX (1u << 30)

static bool read_at(int fd, off_t at, void *out, size_t n)
{
    return pread(fd, out, n, at) == (ssize_t)n;
}

/* .npy: a header within the file; a pickled one (descr '|O') ends with the pickle's STOP. .npz: a
 * zip, whose directory is at its end. */
static const char *events_fault(int fd, off_t size)
{
    unsigned char head[12], last, end[22];
    char text[512] = "";
    if (size < 10 || !read_at(fd, 0, head, 10))
        return "shorter than an .npy header";
    if (memcmp(head, "PK\3\4", 4) == 0) {
        /* without a comment, as numpy writes it */
        if (size < 22 || !read_at(fd, size - 22, end, 22) || memcmp(end, "PK\5\6", 4) != 0)
            return "cut off: an .npz without its directory";
        return NULL;
    }
    if (memcmp(head, "\x93NUMPY", 6) != 0)
        return "neither .npy nor .npz";
    off_t at = 10, n = head[8] | head[9] << 8;
    if (head[6] >= 2) {
        if (!read_at(fd, 8, head + 8, 4))
            return "cut off in its .npy header";
        n = (off_t)(head[8] | (uint32_t)head[9] << 8 | (uint32_t)head[10] << 16 |
                    (uint32_t)head[11] << 24);
        at = 12;
    }
    if (at + n >= size)
        return "cut off in its .npy header";
    if (!read_at(fd, at, text, n < 511 ? (size_t)n : 511))
        return "not readable";
    if (!strstr(text, "'|O'"))
        return NULL;
    if (!read_at(fd, size - 1, &last, 1) || last != '.')
        return "cut off: its pickle has no end";
    return NULL;
}

/* ISO media: boxes of the top level fill the file, with a moov among them. */
static const char *clip_fault(int fd, off_t size)
{
    static const char first[][5] = {"ftyp", "styp", "moov", "mdat", "free", "skip", "wide"};
    unsigned char h[16];
    bool moov = false, known = false;
    off_t at = 0;
    if (size < 16 || !read_at(fd, 0, h, 16))
        return "shorter than a clip";
    for (size_t i = 0; i < sizeof first / sizeof first[0] && !known; i++)
        known = memcmp(h + 4, first[i], 4) == 0;
    if (!known)
        return "not an MP4 file";
    while (at + 8 <= size) {
        if (!read_at(fd, at, h, at + 16 <= size ? 16 : 8))
            return "not readable";
        uint64_t n = (uint64_t)h[0] << 24 | (uint64_t)h[1] << 16 | (uint64_t)h[2] << 8 | h[3];
        moov = moov || memcmp(h + 4, "moov", 4) == 0;
        if (n == 0) /* up to the end */
            break;
        if (n == 1 && at + 16 <= size) { /* the size as 64 bits behind the name */
            n = 0;
            for (int i = 8; i < 16; i++)
                n = n << 8 | h[i];
        }
        if (n < 8 || n > (uint64_t)(size - at))
            return "cut off";
        at += (off_t)n;
    }
    return moov ? NULL : "a clip without its index (moov)";
}

const char *pl_scene_file_fault(const char *path, enum pl_scene_file which, bool *there)
{
    const char *fault = NULL;
    struct stat sb;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    *there = fd >= 0;
    if (fd < 0 && errno == ENOENT)
        return "no such file";
    if (fd < 0)
        return "cannot be opened";
    if (fstat(fd, &sb) != 0)
        fault = "cannot be looked at";
    else if (S_ISDIR(sb.st_mode) && which == PL_SCENE_VIDEO)
        fault = NULL; /* a folder of PNGs */
    else if (!S_ISREG(sb.st_mode))
        fault = "not a regular file";
    else if (sb.st_size == 0)
        fault = "empty";
    else
        fault =
            which == PL_SCENE_EVENTS ? events_fault(fd, sb.st_size) : clip_fault(fd, sb.st_size);
    close(fd);
    return fault;
}

void pl_scenes_check(const struct pl_scenes *s, enum pl_scene_file which,
                     struct pl_scene_check *out)
{
    const char *noun = which == PL_SCENE_EVENTS ? "event file" : "clip";
    *out = (struct pl_scene_check){.scenes = s->n_scenes};
    for (uint32_t i = 0; i < s->n_scenes; i++) {
        const char *path = which == PL_SCENE_EVENTS ? s->scenes[i].events : s->scenes[i].video;
        bool there = false;
        const char *fault = path ? pl_scene_file_fault(path, which, &there) : "";
        if (!fault)
            continue;
        out->absent += !there;
        out->broken += there;
        if (out->first[0])
            continue;
        if (path)
            snprintf(out->first, sizeof out->first, "%s: %s", path, fault);
        else
            snprintf(out->first, sizeof out->first, "scene %s has no %s", s->scenes[i].name, noun);
    }
}

/* ---- hash ---- */

static enum pl_status hash_edges(int fd, off_t size, char *room, char hex[PL_SHA256_HEX],
                                 const char *path, struct pl_err *err)
{
    size_t n = size < 2 * EDGE ? (size_t)size : 2 * EDGE;
    size_t head = n < EDGE ? n : EDGE;
    if (!read_at(fd, 0, room, head) ||
        !read_at(fd, size - (off_t)(n - head), room + head, n - head))
        return pl_fail(err, PL_EIO, "%s: changed or unreadable while it was hashed", path);
    pl_sha256_hex(room, n, hex);
    return PL_OK;
}

static enum pl_status hash_file(const char *path, const char *name, char *room,
                                struct pl_buf *lines, struct pl_err *err)
{
    char hex[PL_SHA256_HEX] = "";
    struct stat sb;
    enum pl_status st = PL_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &sb) != 0 || !S_ISREG(sb.st_mode))
        st = pl_buf_addf(lines, err, "missing %s\n", name);
    else if ((st = hash_edges(fd, sb.st_size, room, hex, path, err)) == PL_OK)
        st = pl_buf_addf(lines, err, "%s %lld %s\n", hex, (long long)sb.st_size, name);
    if (fd >= 0)
        close(fd);
    return st;
}

/* A file by its scene and kind: where a dataset lies does not change it. */
static enum pl_status hash_scene(const struct pl_scene *c, char *room, struct pl_buf *lines,
                                 struct pl_err *err)
{
    char name[1100];
    enum pl_status st = PL_OK;
    if (c->events) {
        snprintf(name, sizeof name, "%.1000s events", c->name);
        st = hash_file(c->events, name, room, lines, err);
    }
    if (st == PL_OK && c->video) {
        snprintf(name, sizeof name, "%.1000s video", c->name);
        st = hash_file(c->video, name, room, lines, err);
    }
    for (size_t i = 0; i < c->n_images && st == PL_OK; i++) {
        snprintf(name, sizeof name, "%.1000s image %zu", c->name, i);
        st = hash_file(c->images[i], name, room, lines, err);
    }
    return st;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct pl_scene *const *)a)->name,
                  (*(const struct pl_scene *const *)b)->name);
}

enum pl_status pl_scenes_hash(const struct pl_scenes *s, char hex[PL_SHA256_HEX],
                              struct pl_err *err)
{
    const struct pl_scene **list = malloc(s->n_scenes * sizeof *list);
    char questions[PL_SHA256_HEX];
    struct pl_buf lines, room;
    pl_buf_init(&lines, HASH_LINES_MAX);
    pl_buf_init(&room, 2 * EDGE + 1);
    enum pl_status st = pl_sha256_file(s->question_file, questions, err);
    char *at = st == PL_OK ? pl_buf_reserve(&room, 2 * EDGE) : NULL;
    if (st == PL_OK && (!at || !list))
        st = pl_fail(err, PL_ENOMEM, "no memory to hash the data");
    if (st == PL_OK)
        st = pl_buf_addf(&lines, err, "%s questions\n", questions);
    for (uint32_t i = 0; i < s->n_scenes && st == PL_OK; i++)
        list[i] = &s->scenes[i];
    if (st == PL_OK) /* whatever order the seed gave them */
        qsort(list, s->n_scenes, sizeof *list, by_name);
    for (uint32_t i = 0; i < s->n_scenes && st == PL_OK; i++)
        st = hash_scene(list[i], at, &lines, err);
    if (st == PL_OK)
        pl_sha256_hex(lines.data, lines.len, hex);
    pl_buf_release(&lines);
    pl_buf_release(&room);
    free(list);
    return st;
}
