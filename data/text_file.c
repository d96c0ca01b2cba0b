#include "data/text_file.h"

#include "base/utf8.h"
#include "data/sample.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum pl_status pl_text_file_open(struct pl_text_file *f, const char *path, struct pl_err *err)
{
    struct stat sb;
    void *p;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return pl_fail_errno(err, errno, "%s", path);
    if (fstat(fd, &sb) != 0 || !S_ISREG(sb.st_mode)) {
        close(fd);
        return pl_fail(err, PL_EFORMAT, "%s: not a regular file", path);
    }
    f->text = "";
    f->len = (size_t)sb.st_size;
    if (f->len) {
        p = mmap(NULL, f->len, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            enum pl_status st = pl_fail_errno(err, errno, "%s: mapping it", path);
            close(fd);
            return st;
        }
        f->text = p;
    }
    close(fd);
    return PL_OK;
}

void pl_text_file_close(struct pl_text_file *f)
{
    if (f->len)
        munmap((void *)(uintptr_t)f->text, f->len);
    f->text = "";
    f->len = 0;
}

enum pl_status pl_text_file_check(const struct pl_text_file *f, const char *path,
                                  struct pl_err *err)
{
    size_t i = 0;
    uint32_t c;
    while (i < f->len) {
        size_t n = pl_utf8_char(f->text + i, f->len - i, &c);
        if (n == 0)
            return pl_fail(err, PL_EFORMAT, "%s: not UTF-8 at byte %zu (0x%02x)", path, i,
                           (unsigned char)f->text[i]);
        i += n;
        /* Most text is ASCII: eight bytes at a time. */
        while (i + 8 <= f->len) {
            uint64_t w;
            memcpy(&w, f->text + i, 8);
            if (w & UINT64_C(0x8080808080808080))
                break;
            i += 8;
        }
    }
    return PL_OK;
}

struct cached {
    char *path;
    struct pl_text_file file;
};

struct pl_text_cache {
    struct cached *items;
    size_t n;
};

struct pl_text_cache *pl_text_cache_new(void)
{
    return calloc(1, sizeof(struct pl_text_cache));
}

void pl_text_cache_free(struct pl_text_cache *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n; i++) {
        pl_text_file_close(&c->items[i].file);
        free(c->items[i].path);
    }
    free(c->items);
    free(c);
}

static enum pl_status cache_file(struct pl_text_cache *c, const char *path,
                                 const struct pl_text_file **out, struct pl_err *err)
{
    struct cached *grown;
    char *copy;
    enum pl_status st;
    for (size_t i = 0; i < c->n; i++)
        if (strcmp(c->items[i].path, path) == 0) {
            *out = &c->items[i].file;
            return PL_OK;
        }
    grown = realloc(c->items, (c->n + 1) * sizeof *grown);
    if (grown)
        c->items = grown;
    copy = strdup(path);
    if (!grown || !copy) {
        free(copy);
        return pl_fail(err, PL_ENOMEM, "%s: no memory", path);
    }
    c->items[c->n].path = copy;
    st = pl_text_file_open(&c->items[c->n].file, path, err);
    if (st != PL_OK) {
        free(copy);
        return st;
    }
    *out = &c->items[c->n++].file;
    return PL_OK;
}

enum pl_status pl_text_cache_get(struct pl_text_cache *c, const json_t *sample, const char **text,
                                 size_t *len, struct pl_err *err)
{
    const char *path = NULL;
    const struct pl_text_file *f = NULL;
    int64_t offset = 0;
    enum pl_status st = pl_json_str(sample, "path", "", &path, err);
    if (st == PL_OK)
        st = pl_json_i64(sample, "offset", 0, &offset, err);
    if (st != PL_OK)
        return st;
    if (!path[0])
        return pl_fail(err, PL_EFORMAT, "the sample names no text file");
    st = cache_file(c, path, &f, err);
    if (st != PL_OK)
        return st;
    if (offset < 0 || (uint64_t)offset > f->len)
        return pl_fail(err, PL_ERANGE, "%s: offset %lld is beyond its %zu bytes", path,
                       (long long)offset, f->len);
    *text = f->text + offset;
    *len = f->len - (size_t)offset;
    return PL_OK;
}
