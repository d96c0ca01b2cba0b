/* Directories, files, and the order in which they are made. */
#include "analysis/report.h"
#include "analysis/published.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX (UINT64_C(256) << 20)

enum pl_status pl_report_load(const char *path, struct pl_report *r, struct pl_err *err)
{
    memset(r, 0, sizeof *r);
    enum pl_status st = pl_dataset_load(path, &r->data, err);
    if (st == PL_OK)
        st = pl_speedups_make(r->data, &r->speedups, err);
    if (st == PL_OK)
        st = pl_scaling_make(r->data, &r->scaling, err);
    if (st == PL_OK)
        st = pl_tables_make(r->data, &r->speedups, &r->scaling, r->tables, err);
    if (st == PL_OK)
        st = pl_figures_make(r->data, &r->speedups, &r->scaling, r->figures, err);
    return st;
}

void pl_report_release(struct pl_report *r)
{
    pl_figures_release(r->figures);
    pl_tables_release(r->tables);
    pl_speedups_release(&r->speedups);
    pl_scaling_release(&r->scaling);
    pl_dataset_free(r->data);
    memset(r, 0, sizeof *r);
}

static enum pl_status make_dir(const char *path, struct pl_err *err)
{
    struct stat s;
    if (mkdir(path, 0777) == 0)
        return PL_OK;
    if (errno == EEXIST && stat(path, &s) == 0 && S_ISDIR(s.st_mode))
        return PL_OK;
    return pl_fail_errno(err, errno, "%s: cannot make this directory", path);
}

/* mkdir -p */
static enum pl_status make_dirs(const char *path, struct pl_err *err)
{
    char *copy = strdup(path);
    enum pl_status st = copy ? PL_OK : pl_fail(err, PL_ENOMEM, "%s", path);

    for (char *p = copy ? copy + 1 : NULL; st == PL_OK && *copy && *p; p++)
        if (*p == '/') {
            *p = '\0';
            st = make_dir(copy, err);
            *p = '/';
        }
    if (st == PL_OK)
        st = make_dir(path, err);
    free(copy);
    return st;
}

static char *join(const char *dir, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

static enum pl_status write_table(const struct pl_table *t, enum pl_format f, const char *dir,
                                  struct pl_err *err)
{
    struct pl_out o;
    char *path = NULL;
    enum pl_status st;

    pl_out_init(&o, FILE_MAX);
    if (asprintf(&path, "%s/%s.%s", dir, t->name, pl_format_ext(f)) < 0) {
        path = NULL;
        st = pl_fail(err, PL_ENOMEM, "%s", dir);
    } else {
        pl_table_write(t, f, &o);
        st = pl_out_write(&o, path, err);
    }
    free(path);
    pl_out_release(&o);
    return st;
}

/* A figure of an earlier report that this one does not have. */
static void remove_figure(const struct pl_figure *f, const char *dir)
{
    static const char *const ext[] = {"svg", "png"};
    for (int i = 0; i < 2; i++) {
        char *path = NULL;
        if (asprintf(&path, "%s/%s.%s", dir, f->name, ext[i]) < 0)
            return;
        unlink(path);
        free(path);
    }
}

static void draw_figures(struct pl_report *r, const char *dir)
{
    bool told = false;
    for (int i = 0; i < PL_FIGURE_COUNT; i++) {
        const struct pl_figure *f = &r->figures[i];
        struct pl_err why;
        r->drawn[i] = false;
        if (f->too_large)
            pl_tables_warn(&r->tables[PL_TABLE_WARNINGS], "figures", NULL, -1,
                           "the figure %s has more rows than a picture can hold: draw a part with "
                           "the tables' CSV",
                           f->name);
        if (!f->wanted) {
            remove_figure(f, dir);
            continue;
        }
        const enum pl_status st = pl_figure_draw(f, dir, &why);
        r->drawn[i] = st == PL_OK;
        if (st == PL_OK)
            continue;
        remove_figure(f, dir);
        if (st == PL_ENOENT && told)
            continue;
        told = true;
        pl_tables_warn(&r->tables[PL_TABLE_WARNINGS], "figures", NULL, -1,
                       st == PL_ENOENT ? "no figures: gnuplot was not found (%s)"
                                       : "a figure was not drawn: %s",
                       why.text);
    }
}

enum pl_status pl_report_write(struct pl_report *r, const char *dir, const bool *wanted,
                               unsigned formats, struct pl_err *err)
{
    char *tables = join(dir, "tables"), *figures = join(dir, "figures");
    char *page = join(dir, "report.html");
    struct pl_out html;
    enum pl_status st = PL_OK;

    pl_out_init(&html, FILE_MAX);
    if (!tables || !figures || !page) {
        st = pl_fail(err, PL_ENOMEM, "%s", dir);
        goto out;
    }
    st = make_dirs(dir, err);
    if (st == PL_OK)
        st = make_dir(tables, err);
    if (st == PL_OK)
        st = make_dir(figures, err);
    if (st != PL_OK)
        goto out;
    draw_figures(r, figures);
    for (int t = 0; t < PL_TABLE_COUNT && st == PL_OK; t++)
        for (int f = 0; f < PL_FORMAT_COUNT && st == PL_OK; f++)
            if ((!wanted || wanted[t]) && formats >> f & 1)
                st = write_table(&r->tables[t], (enum pl_format)f, tables, err);
    if (st == PL_OK && !wanted)
        st = pl_published_write(r, dir, err);
    if (st != PL_OK)
        goto out;
    pl_report_html(r, dir, &html);
    st = pl_out_write(&html, page, err);
out:
    pl_out_release(&html);
    free(tables);
    free(figures);
    free(page);
    return st;
}
