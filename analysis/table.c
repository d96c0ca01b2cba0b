/* Filling a table, and its cells as text. */
#include "analysis/table.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pl_table_init(struct pl_table *t, const char *name, const char *title,
                   const struct pl_col *cols, size_t n_cols)
{
    memset(t, 0, sizeof *t);
    t->name = name;
    t->title = title;
    t->cols = cols;
    t->n_cols = n_cols;
    pl_arena_init(&t->arena);
}

void pl_table_release(struct pl_table *t)
{
    free(t->cells);
    if (t->name)
        pl_arena_release(&t->arena);
    memset(t, 0, sizeof *t);
}

void pl_table_row(struct pl_table *t)
{
    if (t->n_rows == t->cap) {
        const size_t cap = t->cap ? t->cap * 2 : 32;
        struct pl_cell_value *more = realloc(t->cells, cap * t->n_cols * sizeof *more);
        if (!more) {
            t->failed = true;
            return;
        }
        t->cells = more;
        t->cap = cap;
    }
    for (size_t i = 0; i < t->n_cols; i++)
        t->cells[t->n_rows * t->n_cols + i] = (struct pl_cell_value){.null = true};
    t->n_rows++;
    t->at = 0;
}

static void put(struct pl_table *t, struct pl_cell_value v)
{
    if (t->failed)
        return;
    if (t->n_rows == 0 || t->at >= t->n_cols) {
        t->failed = true;
        return;
    }
    t->cells[(t->n_rows - 1) * t->n_cols + t->at++] = v;
}

void pl_table_text(struct pl_table *t, const char *s)
{
    struct pl_cell_value v = {.null = s == NULL};
    if (s) {
        char *copy = pl_arena_strdup(&t->arena, s);
        if (copy)
            pl_text_clean(copy);
        else
            t->failed = true;
        v.text = copy;
    }
    put(t, v);
}

void pl_table_int(struct pl_table *t, int64_t v)
{
    put(t, (struct pl_cell_value){.integer = v});
}

void pl_table_real(struct pl_table *t, double v)
{
    put(t, (struct pl_cell_value){.null = !isfinite(v), .real = v});
}

void pl_table_list(struct pl_table *t, const double *v, size_t n)
{
    struct pl_out o;
    struct pl_cell_value c = {.null = true};
    pl_out_init(&o, 1u << 20);
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(v[i]))
            continue;
        pl_out_text(&o, o.buf.len ? " " : "");
        pl_out_num(&o, v[i]);
    }
    if (o.buf.len) {
        c = (struct pl_cell_value){.text = pl_arena_strdup(&t->arena, o.buf.data)};
        t->failed |= o.st != PL_OK || !c.text;
    }
    pl_out_release(&o);
    put(t, c);
}

void pl_table_context(struct pl_table *t, int64_t tokens)
{
    if (tokens)
        pl_table_int(t, tokens);
    else
        pl_table_null(t, "auto");
}

void pl_context_text(int64_t tokens, char out[PL_CONTEXT_TEXT])
{
    if (tokens)
        snprintf(out, PL_CONTEXT_TEXT, "context %" PRId64, tokens);
    else
        snprintf(out, PL_CONTEXT_TEXT, "own prompts");
}

void pl_table_bool(struct pl_table *t, bool v)
{
    put(t, (struct pl_cell_value){.integer = v});
}

void pl_table_null(struct pl_table *t, const char *shown)
{
    put(t, (struct pl_cell_value){.null = true, .text = shown});
}

void pl_table_note(struct pl_table *t, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    pl_text_clean(text);
    char *copy = pl_arena_strdup(&t->arena, text);
    if (!copy || t->n_notes == sizeof t->notes / sizeof t->notes[0])
        t->failed = true;
    else
        t->notes[t->n_notes++] = copy;
}

void pl_format_sig(double v, char *out, size_t size)
{
    const double a = fabs(v);
    if (a == 0)
        snprintf(out, size, "0");
    else if (!(a >= 1e-6 && a < 1e15))
        snprintf(out, size, "%.3e", v);
    else {
        int decimals = 3 - (int)floor(log10(a));
        snprintf(out, size, "%.*f", decimals < 0 ? 0 : decimals, v);
    }
}

void pl_format_bytes(double v, char *out, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    char number[32];
    size_t u = 0;
    while (fabs(v) >= 1024 && u + 1 < sizeof units / sizeof units[0]) {
        v /= 1024;
        u++;
    }
    if (u == 0)
        snprintf(number, sizeof number, "%.0f", v);
    else
        pl_format_sig(v, number, sizeof number);
    snprintf(out, size, "%s %s", number, units[u]);
}

const char *pl_cell_text(const struct pl_col *col, const struct pl_cell_value *v, char *out,
                         size_t size)
{
    if (v->null)
        return v->text ? v->text : "";
    switch (col->kind) {
    case PL_COL_TEXT:
    case PL_COL_LIST:
        return v->text ? v->text : "";
    case PL_COL_BOOL:
        return v->integer ? "yes" : "no";
    case PL_COL_INT:
        snprintf(out, size, "%lld", (long long)v->integer);
        break;
    case PL_COL_TIME:
        pl_format_sig(v->real, out, size);
        break;
    case PL_COL_RATIO:
        snprintf(out, size, "%.4f", v->real);
        break;
    case PL_COL_SHARE:
        snprintf(out, size, "%.2f %%", 100 * v->real);
        break;
    case PL_COL_BYTES:
        pl_format_bytes(v->real, out, size);
        break;
    }
    return out;
}
