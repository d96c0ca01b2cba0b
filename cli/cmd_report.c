/* `paceline report`: tables, figures and one page of a results file. */
#include "analysis/levers.h"
#include "analysis/pruned.h"
#include "analysis/report.h"
#include "cli/commands.h"
#include "cli/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SHOWN_ROWS 60 /* of a table on the terminal; the files have all */

static bool wants_colour(void)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
}

/* Columns of the terminal that stdout is; 0: a file or a pipe, which takes tables of any width. */
static size_t screen_columns(void)
{
    struct winsize w;
    return isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 ? w.ws_col : 0;
}

/* "speedup,latency" → wanted. False after a message. */
static bool pick_tables(const char *list, bool *wanted)
{
    memset(wanted, 0, PL_TABLE_COUNT * sizeof *wanted);
    for (const char *at = list, *end; at; at = *end ? end + 1 : NULL) {
        end = strchrnul(at, ',');
        const enum pl_table_id id = pl_table_id_parse(at, (size_t)(end - at));
        if (id == PL_TABLE_COUNT) {
            fprintf(stderr, "paceline: no table \"%.*s\"; there are:", (int)(end - at), at);
            for (int i = 0; i < PL_TABLE_COUNT; i++)
                fprintf(stderr, " %s", pl_table_id_name((enum pl_table_id)i));
            fprintf(stderr, "\n");
            return false;
        }
        wanted[id] = true;
    }
    return true;
}

static bool pick_formats(const char *list, unsigned *formats)
{
    *formats = 0;
    for (const char *at = list, *end; at; at = *end ? end + 1 : NULL) {
        int f = 0;
        end = strchrnul(at, ',');
        const size_t n = (size_t)(end - at);
        while (f < PL_FORMAT_COUNT && (strlen(pl_format_ext((enum pl_format)f)) != n ||
                                       memcmp(pl_format_ext((enum pl_format)f), at, n) != 0))
            f++;
        if (f == PL_FORMAT_COUNT) {
            fprintf(stderr, "paceline: no format \"%.*s\"; there are: md csv json tex\n", (int)n,
                    at);
            return false;
        }
        *formats |= 1u << f;
    }
    return true;
}

/* The terminal shows what a trial comes to; every phase is in the files. */
static bool named(const struct pl_table *t, size_t row, size_t column, const char *const *names)
{
    const char *text = t->cells[row * t->n_cols + column].text;
    for (; text && *names; names++)
        if (strcmp(text, *names) == 0)
            return true;
    return false;
}

/* latency: the phase is its third column; speedup: the metric its fourth */
static bool is_whole(const struct pl_table *t, size_t row)
{
    static const char *const names[] = {"ttft", "e2e", "tpot", NULL};
    return named(t, row, 2, names);
}

static bool is_main(const struct pl_table *t, size_t row)
{
    static const char *const names[] = {"prefill", "e2e", NULL};
    return named(t, row, 3, names);
}

static enum pl_status print(const struct pl_report *r, const bool *wanted, struct pl_err *err)
{
    static const enum pl_table_id shown[] = {PL_TABLE_SPEEDUP,  PL_TABLE_QUALITY,
                                             PL_TABLE_LATENCY,  PL_TABLE_ACCEPTANCE,
                                             PL_TABLE_FAILURES, PL_TABLE_WARNINGS};
    const bool colour = wants_colour();
    const char *between = "";
    struct pl_out o;

    pl_out_init(&o, 64u << 20);
    for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++) {
        const struct pl_table *t = &r->tables[shown[i]];
        if (t->n_rows == 0 || (wanted && !wanted[shown[i]]))
            continue;
        pl_out_f(&o, "%s%s\n", between, t->title);
        pl_table_write_text(t, SHOWN_ROWS,
                            shown[i] == PL_TABLE_LATENCY   ? is_whole
                            : shown[i] == PL_TABLE_SPEEDUP ? is_main
                                                           : NULL,
                            colour, screen_columns(), &o);
        between = "\n";
    }
    if (r->data->drafts && (!wanted || wanted[PL_TABLE_SPEEDUP_ANALYSIS])) {
        pl_out_f(&o, "%sWhich lever would pay most\n", between);
        pl_levers_lines(r->data, &o);
        between = "\n";
    }
    if (!wanted || wanted[PL_TABLE_TABLE2])
        pl_pruned_lines(r->data, &r->speedups, &o);
    if (r->data->done == 0)
        pl_out_f(&o, "%sno finished trials yet\n", between);
    const enum pl_status st = pl_out_status(&o, err);
    if (st == PL_OK && o.buf.len)
        fwrite(o.buf.data, 1, o.buf.len, stdout);
    pl_out_release(&o);
    return st;
}

int pl_cmd_report(int argc, char **argv)
{
    const char *path = NULL, *dir = NULL, *tables = NULL, *format = "md,csv,json,tex";
    const struct pl_opt opts[] = {
        {"output", 'o', PL_OPT_STR, &dir, "DIR", "where the report goes (made if missing)"},
        {"tables", 0, PL_OPT_STR, &tables, "A,B", "only these tables"},
        {"format", 0, PL_OPT_STR, &format, "F,…", "table files: md, csv, json, tex (all)"},
    };
    bool wanted[PL_TABLE_COUNT];
    unsigned formats;
    struct pl_report r;
    struct pl_err err = {""};
    size_t n_args;

    int code = pl_opts_parse("report FILE -o DIR", opts, sizeof opts / sizeof opts[0], argc, argv,
                             &path, 1, 1, &n_args);
    if (code >= 0)
        return code;
    if (!dir || !*dir) {
        fprintf(stderr, "paceline: report needs -o DIR\n");
        return 2;
    }
    if ((tables && !pick_tables(tables, wanted)) || !pick_formats(format, &formats))
        return 2;
    enum pl_status st = pl_report_load(path, &r, &err);
    if (st == PL_OK)
        st = pl_report_write(&r, dir, tables ? wanted : NULL, formats, &err);
    if (st == PL_OK)
        st = print(&r, tables ? wanted : NULL, &err);
    code = st == PL_OK ? pl_cli_done(0) : pl_cli_fail(st, &err); /* the tables come first */
    if (st == PL_OK)
        fprintf(stderr, "report: %s/report.html\n", dir);
    pl_report_release(&r);
    return code;
}
