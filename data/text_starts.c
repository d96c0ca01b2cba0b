#include "data/text_starts.h"

#include "base/rng.h"
#include "data/text_file.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SLOT_BYTES_PER_TOKEN 6
/* How far a start may move to find white space: longer "words" are not English, so the character is
 * taken as it is. */
#define WORD_SCAN 256

enum { KEY_SLOTS = 0x736c6f74, KEY_EXTRA = 0x78747261 };

void pl_text_starts_release(struct pl_text_starts *t)
{
    for (size_t i = 0; i < t->n_files; i++)
        free(t->files[i].path);
    free(t->files);
    free(t->starts);
    *t = (struct pl_text_starts){0};
}

static enum pl_status add_file(struct pl_text_starts *t, const char *path, struct pl_err *err)
{
    struct pl_text_part *grown = realloc(t->files, (t->n_files + 1) * sizeof *grown);
    char *copy = strdup(path);
    if (grown)
        t->files = grown;
    if (!grown || !copy) {
        free(copy);
        return pl_fail(err, PL_ENOMEM, "%s: no memory for the list of files", path);
    }
    t->files[t->n_files++] = (struct pl_text_part){.path = copy};
    return PL_OK;
}

static int visible(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name); /* bytes, not the locale's order */
}

/* The regular files of a folder, by name; hidden ones and folders within are left out. */
static enum pl_status list_folder(struct pl_text_starts *t, const char *path, struct pl_err *err)
{
    enum pl_status st = PL_OK;
    struct dirent **names = NULL;
    int n = scandir(path, &names, visible, by_name);
    if (n < 0)
        return pl_fail_errno(err, errno, "%s", path);
    for (int i = 0; i < n && st == PL_OK; i++) {
        char *full = NULL;
        struct stat sb;
        const char *sep = path[strlen(path) - 1] == '/' ? "" : "/";
        if (asprintf(&full, "%s%s%s", path, sep, names[i]->d_name) < 0) {
            st = pl_fail(err, PL_ENOMEM, "%s: no memory for the list of files", path);
            break;
        }
        if (stat(full, &sb) == 0 && S_ISREG(sb.st_mode))
            st = add_file(t, full, err);
        free(full);
    }
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
    if (st == PL_OK && t->n_files == 0)
        return pl_fail(err, PL_ENOENT, "%s: the folder has no text files", path);
    return st;
}

static enum pl_status list_files(struct pl_text_starts *t, const char *path, struct pl_err *err)
{
    struct stat sb;
    if (stat(path, &sb) != 0)
        return pl_fail_errno(err, errno, "%s", path);
    if (S_ISDIR(sb.st_mode))
        return list_folder(t, path, err);
    if (!S_ISREG(sb.st_mode))
        return pl_fail(err, PL_EFORMAT, "%s: neither a file nor a folder", path);
    return add_file(t, path, err);
}

/* Checks every file and counts its slots. */
static enum pl_status measure_files(struct pl_text_starts *t, const char *path, uint64_t context,
                                    uint64_t *slots, struct pl_err *err)
{
    uint64_t slot = context * SLOT_BYTES_PER_TOKEN, total = 0, bytes = 0;
    for (size_t i = 0; i < t->n_files; i++) {
        struct pl_text_part *f = &t->files[i];
        struct pl_text_file map;
        enum pl_status st = pl_text_file_open(&map, f->path, err);
        if (st != PL_OK)
            return st;
        f->size = map.len;
        st = pl_text_file_check(&map, f->path, err);
        pl_text_file_close(&map);
        if (st != PL_OK)
            return st;
        f->slots = f->size / slot;
        if (f->slots == 0 && f->size >= context)
            f->slots = 1;
        total += f->slots;
        bytes += f->size;
    }
    if (total == 0)
        return pl_fail(err, PL_ERANGE,
                       "%s: %" PRIu64 " bytes of text, too short for a context of %" PRIu64
                       " tokens, expected at least %" PRIu64 " bytes in one file",
                       path, bytes, context, context);
    if (total > UINT32_MAX)
        total = UINT32_MAX;
    *slots = total;
    return PL_OK;
}

/* Where slot `k` of all files begins. */
static struct pl_text_start slot_start(const struct pl_text_starts *t, uint64_t k, uint64_t slot)
{
    uint32_t file = 0;
    while (k >= t->files[file].slots)
        k -= t->files[file++].slots;
    return (struct pl_text_start){file, k * slot};
}

/* A start anywhere that leaves a context's bytes: what samples beyond the last slot get. */
static struct pl_text_start extra_start(const struct pl_text_starts *t, uint64_t seed, uint32_t i,
                                        uint64_t context)
{
    struct pl_rng rng;
    uint64_t room = 0, at;
    uint32_t file = 0;
    for (size_t f = 0; f < t->n_files; f++)
        room += t->files[f].slots ? t->files[f].size - context + 1 : 0;
    pl_rng_init(&rng, pl_keyv(seed, KEY_EXTRA, i));
    at = pl_rng_below(&rng, room);
    for (;; file++) {
        uint64_t here = t->files[file].slots ? t->files[file].size - context + 1 : 0;
        if (at < here)
            return (struct pl_text_start){file, at};
        at -= here;
    }
}

static bool blank(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* Moves a start forward to the first character after white space, at least to the start of a
 * character. */
static uint64_t align_start(const char *text, uint64_t len, uint64_t at, uint64_t limit)
{
    uint64_t end, p;
    if (at == 0)
        return len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 && limit >= 3 ? 3 : 0;
    while (at < len && ((unsigned char)text[at] & 0xC0) == 0x80)
        at++;
    end = at + WORD_SCAN < limit ? at + WORD_SCAN : limit;
    p = at;
    if (!blank(text[at - 1]))
        while (p < end && !blank(text[p]))
            p++;
    while (p < end && blank(text[p]))
        p++;
    return p < end ? p : at;
}

static enum pl_status align_starts(struct pl_text_starts *t, uint64_t context, struct pl_err *err)
{
    for (uint32_t f = 0; f < t->n_files; f++) {
        struct pl_text_file map;
        enum pl_status st = pl_text_file_open(&map, t->files[f].path, err);
        uint64_t limit;
        if (st != PL_OK)
            return st;
        if (map.len != t->files[f].size) {
            pl_text_file_close(&map);
            return pl_fail(err, PL_EIO, "%s: changed while it was read", t->files[f].path);
        }
        limit = map.len >= context ? map.len - context : 0;
        for (uint32_t i = 0; i < t->count; i++)
            if (t->starts[i].file == f)
                t->starts[i].offset = align_start(map.text, map.len, t->starts[i].offset, limit);
        pl_text_file_close(&map);
    }
    return PL_OK;
}

enum pl_status pl_text_starts_open(const char *path, uint64_t seed, uint64_t context,
                                   uint32_t count, struct pl_text_starts *out, struct pl_err *err)
{
    struct pl_text_starts t = {.count = count};
    uint64_t slots = 0;
    uint32_t *order = NULL;
    enum pl_status st = list_files(&t, path, err);
    if (st == PL_OK)
        st = measure_files(&t, path, context, &slots, err);
    if (st != PL_OK)
        goto out;
    if (t.count == 0)
        t.count = (uint32_t)slots;
    t.overlap = t.count > slots;
    t.starts = calloc(t.count, sizeof *t.starts);
    order = malloc(slots * sizeof *order);
    if (!t.starts || !order) {
        st = pl_fail(err, PL_ENOMEM, "no memory for %" PRIu32 " samples", t.count);
        goto out;
    }
    for (uint32_t i = 0; i < slots; i++)
        order[i] = i;
    struct pl_rng rng;
    pl_rng_init(&rng, pl_keyv(seed, KEY_SLOTS));
    pl_rng_shuffle(&rng, order, slots);
    for (uint32_t i = 0; i < t.count; i++)
        t.starts[i] = i < slots ? slot_start(&t, order[i], context * SLOT_BYTES_PER_TOKEN)
                                : extra_start(&t, seed, i, context);
    st = align_starts(&t, context, err);
out:
    free(order);
    if (st == PL_OK)
        *out = t;
    else
        pl_text_starts_release(&t);
    return st;
}
