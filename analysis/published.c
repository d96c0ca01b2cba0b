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

static void json_value(struct pl_out *o, json_t *v, int indent);

/* The members of a list or map, a line each. */
static void json_members(struct pl_out *o, json_t *v, int indent)
{
    const bool map = json_is_object(v);
    const size_t n = map ? json_object_size(v) : json_array_size(v);
    void *at = map ? json_object_iter(v) : NULL;

    pl_out_text(o, map ? "{" : "[");
    for (size_t i = 0; i < n; i++) {
        pl_out_f(o, "%s\n%*s", i ? "," : "", indent + 2, "");
        if (map) {
            pl_out_esc(o, PL_ESC_JSON, json_object_iter_key(at));
            pl_out_text(o, ": ");
        }
        json_value(o, map ? json_object_iter_value(at) : json_array_get(v, i), indent + 2);
        at = map ? json_object_iter_next(v, at) : NULL;
    }
    if (n)
        pl_out_f(o, "\n%*s", indent, "");
    pl_out_text(o, map ? "}" : "]");
}

static void json_value(struct pl_out *o, json_t *v, int indent)
{
    if (json_is_object(v) || json_is_array(v))
        json_members(o, v, indent);
    else if (json_is_string(v))
        pl_out_esc(o, PL_ESC_JSON, json_string_value(v));
    else if (json_is_real(v))
        pl_published_float(o, json_real_value(v));
    else if (json_is_integer(v))
        pl_out_f(o, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else
        pl_out_text(o, json_is_true(v) ? "true" : json_is_false(v) ? "false" : "null");
}

void pl_published_json(struct pl_out *o, json_t *v)
{
    if (!v && o->st == PL_OK)
        o->st = PL_ENOMEM;
    json_value(o, v, 0);
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
