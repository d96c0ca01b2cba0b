/* The same table in every format. */
#include "analysis/table.h"

#include <stdlib.h>
#include <string.h>

#define CELL_TEXT 64 /* a number for people */

static const struct pl_cell_value *cell(const struct pl_table *t, size_t row, size_t col)
{
    return &t->cells[row * t->n_cols + col];
}

static const char *head(const struct pl_col *c)
{
    return c->head ? c->head : c->name;
}

static bool is_number(const struct pl_col *c)
{
    return c->kind != PL_COL_TEXT && c->kind != PL_COL_BOOL && c->kind != PL_COL_LIST;
}

const char *pl_format_ext(enum pl_format f)
{
    static const char *const ext[] = {"md", "csv", "json", "tex"};
    return (unsigned)f < PL_FORMAT_COUNT ? ext[f] : "";
}

/* ---- for programs ---- */

static void write_list(const char *numbers, enum pl_escape esc, struct pl_out *o)
{
    if (esc != PL_ESC_JSON) {
        pl_out_text(o, numbers);
        return;
    }
    pl_out_text(o, "[");
    for (const char *at = numbers; *at;) {
        const size_t n = strcspn(at, " ");
        pl_out_f(o, "%.*s%s", (int)n, at, at[n] ? ", " : "");
        at += n + (at[n] == ' ');
    }
    pl_out_text(o, "]");
}

static void exact(const struct pl_col *c, const struct pl_cell_value *v, enum pl_escape esc,
                  struct pl_out *o)
{
    switch (c->kind) {
    case PL_COL_TEXT:
        pl_out_esc(o, esc, v->text ? v->text : "");
        break;
    case PL_COL_LIST:
        write_list(v->text, esc, o);
        break;
    case PL_COL_INT:
        pl_out_f(o, "%lld", (long long)v->integer);
        break;
    case PL_COL_BOOL:
        pl_out_text(o, v->integer ? "true" : "false");
        break;
    default:
        pl_out_num(o, v->real);
    }
}

static void write_json(const struct pl_table *t, struct pl_out *o)
{
    pl_out_text(o, "{\"table\": ");
    pl_out_esc(o, PL_ESC_JSON, t->name);
    pl_out_text(o, ", \"rows\": [");
    for (size_t r = 0; r < t->n_rows; r++) {
        pl_out_text(o, r ? ",\n  {" : "\n  {");
        for (size_t c = 0; c < t->n_cols; c++) {
            const struct pl_cell_value *v = cell(t, r, c);
            pl_out_text(o, c ? ", " : "");
            pl_out_esc(o, PL_ESC_JSON, t->cols[c].name);
            pl_out_text(o, ": ");
            if (v->null)
                pl_out_text(o, "null");
            else
                exact(&t->cols[c], v, PL_ESC_JSON, o);
        }
        pl_out_text(o, "}");
    }
    pl_out_text(o, t->n_rows ? "\n]}\n" : "]}\n");
}

static void write_csv(const struct pl_table *t, struct pl_out *o)
{
    for (size_t c = 0; c < t->n_cols; c++) {
        pl_out_text(o, c ? "," : "");
        pl_out_esc(o, PL_ESC_CSV, t->cols[c].name);
    }
    pl_out_text(o, "\n");
    for (size_t r = 0; r < t->n_rows; r++) {
        for (size_t c = 0; c < t->n_cols; c++) {
            pl_out_text(o, c ? "," : "");
            if (!cell(t, r, c)->null)
                exact(&t->cols[c], cell(t, r, c), PL_ESC_CSV, o);
        }
        pl_out_text(o, "\n");
    }
}

/* ---- for people ---- */

/* A cell in full, wide ones too; of a list each number to four digits. */
static void shown(const struct pl_col *c, const struct pl_cell_value *v, enum pl_escape esc,
                  struct pl_out *o)
{
    char text[CELL_TEXT], *end;
    if (v->null || c->kind != PL_COL_LIST) {
        pl_out_esc(o, esc, pl_cell_text(c, v, text, sizeof text));
        return;
    }
    for (const char *at = v->text; *at; at = end + (*end == ' ')) {
        pl_format_sig(strtod(at, &end), text, sizeof text);
        pl_out_f(o, "%s%s", at == v->text ? "" : " ", text);
        if (end == at)
            break;
    }
}

static void write_md(const struct pl_table *t, struct pl_out *o)
{
    pl_out_f(o, "## %s\n\n|", t->title);
    for (size_t c = 0; c < t->n_cols; c++)
        pl_out_f(o, " %s |", t->cols[c].name);
    pl_out_text(o, "\n|");
    for (size_t c = 0; c < t->n_cols; c++)
        pl_out_text(o, is_number(&t->cols[c]) ? "---:|" : "---|");
    pl_out_text(o, "\n");
    for (size_t r = 0; r < t->n_rows; r++) {
        pl_out_text(o, "|");
        for (size_t c = 0; c < t->n_cols; c++) {
            pl_out_text(o, " ");
            shown(&t->cols[c], cell(t, r, c), PL_ESC_MD, o);
            pl_out_text(o, " |");
        }
        pl_out_text(o, "\n");
    }
    for (size_t i = 0; i < t->n_notes; i++) {
        pl_out_text(o, "\n");
        pl_out_esc(o, PL_ESC_MD, t->notes[i]);
        pl_out_text(o, "\n");
    }
}

static void write_tex(const struct pl_table *t, struct pl_out *o)
{
    pl_out_text(o, "% ");
    pl_out_esc(o, PL_ESC_TEX, t->title);
    pl_out_text(o, "\n\\begin{tabular}{");
    for (size_t c = 0; c < t->n_cols; c++)
        pl_out_text(o, is_number(&t->cols[c]) ? "r" : "l");
    pl_out_text(o, "}\n\\hline\n");
    for (size_t c = 0; c < t->n_cols; c++) {
        pl_out_text(o, c ? " & " : "");
        pl_out_esc(o, PL_ESC_TEX, t->cols[c].name);
    }
    pl_out_text(o, " \\\\\n\\hline\n");
    for (size_t r = 0; r < t->n_rows; r++) {
        for (size_t c = 0; c < t->n_cols; c++) {
            pl_out_text(o, c ? " & " : "");
            shown(&t->cols[c], cell(t, r, c), PL_ESC_TEX, o);
        }
        pl_out_text(o, " \\\\\n");
    }
    pl_out_text(o, "\\hline\n\\end{tabular}\n");
    for (size_t i = 0; i < t->n_notes; i++) {
        pl_out_text(o, "\n\\par\\noindent\\footnotesize ");
        pl_out_esc(o, PL_ESC_TEX, t->notes[i]);
        pl_out_text(o, "\n");
    }
}

void pl_table_write(const struct pl_table *t, enum pl_format f, struct pl_out *o)
{
    if (t->failed && o->st == PL_OK)
        o->st = pl_fail(&o->err, PL_ENOMEM, "the table %s", t->name);
    switch (f) {
    case PL_FORMAT_MD:
        write_md(t, o);
        break;
    case PL_FORMAT_CSV:
        write_csv(t, o);
        break;
    case PL_FORMAT_JSON:
        write_json(t, o);
        break;
    case PL_FORMAT_TEX:
        write_tex(t, o);
        break;
    case PL_FORMAT_COUNT:
        break;
    }
}

static const char *verdict_class(const char *text)
{
    static const struct {
        const char *prefix, *name;
    } classes[] = {
        {"FASTER", "faster"}, {"SLOWER", "slower"}, {"SAME", "same"}, {"AMBIGUOUS", "ambiguous"}};
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
        if (strncmp(text, classes[i].prefix, strlen(classes[i].prefix)) == 0)
            return classes[i].name;
    return "";
}

void pl_table_html_value(const struct pl_table *t, size_t row, size_t col, struct pl_out *o)
{
    char text[CELL_TEXT];
    const struct pl_cell_value *v = cell(t, row, col);
    const char *s = pl_cell_text(&t->cols[col], v, text, sizeof text);
    const bool chip = t->cols[col].flags & PL_COL_VERDICT && !v->null;

    if (chip)
        pl_out_f(o, "<span class=\"verdict %s\">", verdict_class(s));
    pl_out_esc(o, PL_ESC_HTML, s);
    pl_out_text(o, chip ? "</span>" : "");
}

static void html_cell(const struct pl_table *t, size_t row, size_t col, struct pl_out *o)
{
    const struct pl_col *c = &t->cols[col];
    pl_out_f(o, "<td class=\"%s%s%s\">", is_number(c) ? "num" : "text",
             cell(t, row, col)->null ? " missing" : "", c->flags & PL_COL_LONG ? " long" : "");
    pl_table_html_value(t, row, col, o);
    pl_out_text(o, "</td>");
}

void pl_table_write_html(const struct pl_table *t, bool notes, struct pl_out *o)
{
    if (t->failed && o->st == PL_OK)
        o->st = pl_fail(&o->err, PL_ENOMEM, "the table %s", t->name);
    pl_out_text(o, "<div class=\"scroll\"><table>\n<caption>");
    pl_out_esc(o, PL_ESC_HTML, t->title);
    pl_out_text(o, "</caption>\n<thead><tr>");
    for (size_t c = 0; c < t->n_cols; c++) {
        if (t->cols[c].flags & PL_COL_WIDE)
            continue;
        pl_out_f(o, "<th scope=\"col\" class=\"%s\">", is_number(&t->cols[c]) ? "num" : "text");
        pl_out_esc(o, PL_ESC_HTML, head(&t->cols[c]));
        pl_out_text(o, "</th>");
    }
    pl_out_text(o, "</tr></thead>\n<tbody>\n");
    for (size_t r = 0; r < t->n_rows; r++) {
        pl_out_text(o, "<tr>");
        for (size_t c = 0; c < t->n_cols; c++)
            if (!(t->cols[c].flags & PL_COL_WIDE))
                html_cell(t, r, c, o);
        pl_out_text(o, "</tr>\n");
    }
    pl_out_text(o, "</tbody></table></div>\n");
    for (size_t i = 0; notes && i < t->n_notes; i++) {
        pl_out_text(o, "<p class=\"note\">");
        pl_out_esc(o, PL_ESC_HTML, t->notes[i]);
        pl_out_text(o, "</p>\n");
    }
}

/* ---- a terminal ---- */

static void pad(struct pl_out *o, size_t n)
{
    while (n--)
        pl_out_text(o, " ");
}

static void text_cell(const struct pl_table *t, size_t c, const char *s, size_t width, bool last,
                      const char *colour, struct pl_out *o)
{
    const size_t fill = width - pl_text_width(s);

    if (is_number(&t->cols[c]))
        pad(o, fill);
    pl_out_text(o, colour);
    pl_out_esc(o, PL_ESC_LINE, s);
    pl_out_text(o, *colour ? "\033[0m" : "");
    if (!is_number(&t->cols[c]) && !last)
        pad(o, fill);
    pl_out_text(o, last ? "\n" : "  ");
}

static const char *colour_of(const struct pl_col *col, const char *s)
{
    const char *name = verdict_class(s);
    if (!(col->flags & PL_COL_VERDICT) || !*name)
        return "";
    if (strcmp(name, "faster") == 0)
        return "\033[32m";
    if (strcmp(name, "slower") == 0)
        return "\033[31m";
    return "\033[2m";
}

/* The rows that are shown, into rows; *more: how many there were beyond max_rows. */
static size_t choose(const struct pl_table *t, size_t max_rows,
                     bool (*keep)(const struct pl_table *t, size_t row), size_t *rows, size_t *more)
{
    size_t n = 0;
    *more = 0;
    for (size_t r = 0; r < t->n_rows; r++) {
        if (keep && !keep(t, r))
            continue;
        if (max_rows && n == max_rows)
            ++*more;
        else
            rows[n++] = r;
    }
    return n;
}

/* The widths of the columns; 0: not shown. */
static size_t measure(const struct pl_table *t, const size_t *rows, size_t n, size_t *width)
{
    char text[CELL_TEXT];
    size_t all = 0;
    for (size_t c = 0; c < t->n_cols; c++) {
        if (t->cols[c].flags & PL_COL_WIDE)
            continue;
        width[c] = pl_text_width(head(&t->cols[c]));
        for (size_t i = 0; i < n; i++) {
            const size_t w =
                pl_text_width(pl_cell_text(&t->cols[c], cell(t, rows[i], c), text, sizeof text));
            width[c] = w > width[c] ? w : width[c];
        }
        all += width[c] + 2;
    }
    return all ? all - 2 : 0;
}

/* Every shown row says the same here. */
static bool constant(const struct pl_table *t, const size_t *rows, size_t n, size_t c)
{
    char first[CELL_TEXT], text[CELL_TEXT];
    const char *want = pl_cell_text(&t->cols[c], cell(t, rows[0], c), first, sizeof first);
    for (size_t i = 1; i < n; i++)
        if (strcmp(pl_cell_text(&t->cols[c], cell(t, rows[i], c), text, sizeof text), want) != 0)
            return false;
    return *want != '\0';
}

/* A table that is too wide for the screen says what is the same in all rows once, below it. */
static void fold(const struct pl_table *t, const size_t *rows, size_t n, size_t all, size_t screen,
                 size_t *width, struct pl_out *below)
{
    char text[CELL_TEXT];
    for (size_t c = t->n_cols; n > 1 && all > screen && c-- > 1;) {
        if (!width[c] || t->cols[c].flags & (PL_COL_VERDICT | PL_COL_LONG) ||
            !constant(t, rows, n, c))
            continue;
        all -= width[c] + 2;
        width[c] = 0;
        pl_out_f(below, "%s%s ", below->buf.len ? ", " : "in all rows: ", head(&t->cols[c]));
        pl_out_esc(below, PL_ESC_LINE,
                   pl_cell_text(&t->cols[c], cell(t, rows[0], c), text, sizeof text));
    }
}

void pl_table_write_text(const struct pl_table *t, size_t max_rows,
                         bool (*keep)(const struct pl_table *t, size_t row), bool colour,
                         size_t screen, struct pl_out *o)
{
    char text[CELL_TEXT];
    size_t *width = calloc(t->n_cols, sizeof *width), last = 0, more;
    size_t *rows = calloc(t->n_rows + 1, sizeof *rows);
    struct pl_out below;

    pl_out_init(&below, 1u << 20);
    if ((!width || !rows || t->failed) && o->st == PL_OK)
        o->st = pl_fail(&o->err, PL_ENOMEM, "the table %s", t->name);
    if (o->st != PL_OK)
        goto out;
    const size_t n = choose(t, max_rows, keep, rows, &more);
    const size_t all = measure(t, rows, n, width);
    if (screen)
        fold(t, rows, n, all, screen, width, &below);
    for (size_t c = 0; c < t->n_cols; c++)
        last = width[c] ? c : last;
    for (size_t c = 0; c < t->n_cols; c++)
        if (width[c])
            text_cell(t, c, head(&t->cols[c]), width[c], c == last, colour ? "\033[1m" : "", o);
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < t->n_cols; c++) {
            if (!width[c])
                continue;
            const char *s = pl_cell_text(&t->cols[c], cell(t, rows[i], c), text, sizeof text);
            text_cell(t, c, s, width[c], c == last, colour ? colour_of(&t->cols[c], s) : "", o);
        }
    if (more)
        pl_out_f(o, "… %zu more rows\n", more);
    if (below.buf.len)
        pl_out_f(o, "%s\n", below.buf.data);
out:
    pl_out_release(&below);
    free(rows);
    free(width);
}
