/* What two resolved sweeps differ in, line by line with the keys that each line stands under. */
#include "orchestrator/sweep.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINES_MAX 1000000

/* A sweep as lines "path: value", so that a line says where it stands. */
struct lines {
    char **p;
    size_t n, cap;
};

static void lines_release(struct lines *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->p[i]);
    free(l->p);
}

static enum pl_status add_line(struct lines *l, const char *path, const char *value,
                               struct pl_err *err)
{
    if (l->n == LINES_MAX)
        return pl_fail(err, PL_ERANGE, "more than %d values in a sweep", LINES_MAX);
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        char **p = realloc(l->p, cap * sizeof *p);
        if (!p)
            return pl_fail(err, PL_ENOMEM, "no memory for the difference");
        l->p = p;
        l->cap = cap;
    }
    if (asprintf(&l->p[l->n], "%s: %s", path, value) < 0)
        return pl_fail(err, PL_ENOMEM, "no memory for the difference");
    l->n++;
    return PL_OK;
}

/* A list of plain values stays on one line; a list of maps with names (arms) goes by the name. */
static bool plain_list(const json_t *j)
{
    size_t i;
    const json_t *v;
    if (!json_is_array(j))
        return false;
    json_array_foreach (j, i, v)
        if (json_is_object(v) || json_is_array(v))
            return false;
    return true;
}

static enum pl_status flatten(struct lines *l, const char *path, const json_t *j, int depth,
                              struct pl_err *err);

static enum pl_status flatten_child(struct lines *l, const char *path, const char *key,
                                    const json_t *j, int depth, struct pl_err *err)
{
    char *below = NULL;
    enum pl_status st;
    if (asprintf(&below, "%s%s%s", path, path[0] ? "." : "", key) < 0)
        return pl_fail(err, PL_ENOMEM, "no memory for the difference");
    st = flatten(l, below, j, depth + 1, err);
    free(below);
    return st;
}

static enum pl_status flatten(struct lines *l, const char *path, const json_t *j, int depth,
                              struct pl_err *err)
{
    enum pl_status st = PL_OK;
    if (depth > 64)
        return pl_fail(err, PL_ERANGE, "a sweep nested deeper than 64 levels");
    if (json_is_object(j) && json_object_size(j)) {
        const char *key;
        json_t *v;
        json_object_foreach ((json_t *)(uintptr_t)j, key, v) {
            st = flatten_child(l, path, key, v, depth, err);
            if (st != PL_OK)
                return st;
        }
    } else if (json_is_array(j) && !plain_list(j)) {
        for (size_t i = 0; i < json_array_size(j) && st == PL_OK; i++) {
            const json_t *v = json_array_get(j, i);
            char number[24];
            snprintf(number, sizeof number, "%zu", i);
            st = flatten_child(l, path, pl_json_get_str(v, "name", number), v, depth, err);
        }
    } else {
        char *text = json_dumps(j, JSON_COMPACT | JSON_ENCODE_ANY);
        st = text ? add_line(l, path, text, err)
                  : pl_fail(err, PL_ENOMEM, "no memory for the difference");
        free(text);
    }
    return st;
}

static enum pl_status read_lines(const char *name, const char *text, struct lines *l,
                                 struct pl_err *err)
{
    json_t *j = NULL;
    enum pl_status st = pl_json_parse(name, text, strlen(text), &j, err);
    if (st == PL_OK)
        st = flatten(l, "", j, 0, err);
    json_decref(j);
    return st;
}

/* Lines that end at the cap: one last line says so. */
static bool put(struct pl_buf *out, char sign, const char *line)
{
    if (out->cap - out->len >= strlen(line) + 3 + 8 &&
        pl_buf_addf(out, NULL, "%c %s\n", sign, line) == PL_OK)
        return true;
    if (pl_buf_addf(out, NULL, "…\n") != PL_OK)
        return false;
    return false;
}

/* Longest common subsequence of a[0..n) and b[0..m), n·m bounded by the caller: prints what is not
 * in it. */
static enum pl_status print_changes(char **a, size_t n, char **b, size_t m, struct pl_buf *out,
                                    struct pl_err *err)
{
    size_t w = m + 1, i = 0, j = 0;
    uint32_t *len = calloc((n + 1) * w, sizeof *len);
    bool room = true;
    if (!len)
        return pl_fail(err, PL_ENOMEM, "no memory for the difference");
    for (i = n; i-- > 0;)
        for (j = m; j-- > 0;) {
            uint32_t skip_a = len[(i + 1) * w + j], skip_b = len[i * w + j + 1];
            len[i * w + j] = strcmp(a[i], b[j]) == 0 ? len[(i + 1) * w + j + 1] + 1
                             : skip_a > skip_b       ? skip_a
                                                     : skip_b;
        }
    for (i = j = 0; room && (i < n || j < m);) {
        if (i < n && j < m && strcmp(a[i], b[j]) == 0) {
            i++;
            j++;
        } else if (i < n && (j == m || len[(i + 1) * w + j] >= len[i * w + j + 1])) {
            room = put(out, '-', a[i++]);
        } else {
            room = put(out, '+', b[j++]);
        }
    }
    free(len);
    return PL_OK;
}

enum pl_status pl_sweep_diff(const char *old_resolved, const char *new_resolved, struct pl_buf *out,
                             struct pl_err *err)
{
    struct lines a = {0}, b = {0};
    size_t head = 0, tail = 0;
    enum pl_status st = read_lines("old sweep", old_resolved, &a, err);
    if (st == PL_OK)
        st = read_lines("new sweep", new_resolved, &b, err);
    if (st == PL_OK) {
        while (head < a.n && head < b.n && strcmp(a.p[head], b.p[head]) == 0)
            head++;
        while (tail < a.n - head && tail < b.n - head &&
               strcmp(a.p[a.n - 1 - tail], b.p[b.n - 1 - tail]) == 0)
            tail++;
        if ((a.n - head - tail + 1) * (b.n - head - tail + 1) > ((size_t)1 << 26))
            st = pl_buf_addf(out, err, "(too many differences to list)\n");
        else
            st = print_changes(a.p + head, a.n - head - tail, b.p + head, b.n - head - tail, out,
                               err);
    }
    lines_release(&a);
    lines_release(&b);
    return st;
}
