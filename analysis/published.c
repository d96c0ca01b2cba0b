#include "analysis/published.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
    const char *files; /* a pattern of the names that it writes */
    enum pl_status (*write)(const struct pl_report *r, struct pl_published *p, struct pl_err *err);
} shapes[] = {
    {"inference_results.csv", pl_published_scaling_csv},
    {"e2e_wallclock.*", pl_published_wallclock},
    {"e3_*.json", pl_published_e3},
    {"table2.md", pl_published_table2},
    {"sdtp_results*.json", pl_published_sdtp},
};
#define N_SHAPES (sizeof shapes / sizeof shapes[0])

int64_t pl_published_length(const struct pl_dataset *d, uint32_t arm, uint32_t context)
{
    const struct pl_cell *c = pl_dataset_cell(d, arm, context);
    const int64_t n = pl_reader_context(d->reader, context);

    return n || !c->n ? n : llround(c->prompt_tokens / (double)c->n / c->sequences);
}

void pl_published_float(struct pl_out *o, double v)
{
    const size_t at = o->buf.len;
    pl_out_num(o, v);
    if (o->st == PL_OK && isfinite(v) && strcspn(o->buf.data + at, ".e") == o->buf.len - at)
        pl_out_text(o, ".0");
}

void pl_published_csv_float(struct pl_out *o, double v)
{
    if (isfinite(v))
        pl_published_float(o, v);
}

enum pl_status pl_published_file(struct pl_published *p, const char *name, const struct pl_out *o,
                                 struct pl_err *err)
{
    char *path = NULL;
    enum pl_status st = PL_OK;

    if (!p->made && mkdir(p->dir, 0777) != 0 && errno != EEXIST)
        return pl_fail_errno(err, errno, "%s: cannot make this directory", p->dir);
    p->made = true;
    if (asprintf(&path, "%s/%s", p->dir, name) < 0)
        return pl_fail(err, PL_ENOMEM, "%s", p->dir);
    st = pl_out_write(o, path, err);
    free(path);
    return st;
}

/* Files of an earlier report: only names that a shape here writes. */
static void clear(const char *dir)
{
    DIR *d = opendir(dir);
    const struct dirent *e;

    while (d && (e = readdir(d)) != NULL)
        for (size_t i = 0; i < N_SHAPES; i++)
            if (fnmatch(shapes[i].files, e->d_name, 0) == 0)
                (void)unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
}

enum pl_status pl_published_write(const struct pl_report *r, const char *dir, struct pl_err *err)
{
    char *path = NULL;
    struct pl_published p = {NULL, false};
    enum pl_status st = PL_OK;

    if (asprintf(&path, "%s/published", dir) < 0)
        return pl_fail(err, PL_ENOMEM, "%s", dir);
    clear(path);
    p.dir = path;
    for (size_t i = 0; i < N_SHAPES && st == PL_OK; i++)
        st = shapes[i].write(r, &p, err);
    if (!p.made)
        (void)rmdir(path); /* empty by now, unless somebody put files of their own there */
    free(path);
    return st;
}
