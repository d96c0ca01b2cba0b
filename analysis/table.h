/*
 * A table: columns with a type and a way to print, rows of cells, and the same content as Markdown,
 * CSV, JSON, LaTeX, HTML and aligned text. JSON and CSV hold full precision; what is not available
 * is null there and empty in CSV, and its reason ("n/a (needs 662)") stands in the others.
 * Filling cannot fail half-way: the first failure sticks and every writer reports it.
 */
#ifndef PL_ANALYSIS_TABLE_H
#define PL_ANALYSIS_TABLE_H

#include "analysis/out.h"
#include "base/arena.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pl_col_kind {
    PL_COL_TEXT,
    PL_COL_INT,
    PL_COL_BOOL,  /* yes / no for people */
    PL_COL_TIME,  /* four significant digits */
    PL_COL_RATIO, /* four decimals */
    PL_COL_SHARE, /* percent, from a fraction */
    PL_COL_BYTES, /* KiB, MiB, GiB */
    PL_COL_LIST   /* numbers: an array in JSON, blanks between them elsewhere */
};

enum pl_col_flags {
    PL_COL_WIDE = 1,    /* left out where a person reads: HTML and the terminal */
    PL_COL_VERDICT = 2, /* coloured by what it says */
    PL_COL_LONG = 4     /* running text: may wrap */
};

struct pl_col {
    const char *name;
    enum pl_col_kind kind;
    const char *head; /* for people, with the unit; NULL: the name */
    unsigned flags;
};

struct pl_cell_value {
    bool null;
    union {
        double real;
        int64_t integer;
    };
    const char *text; /* of PL_COL_TEXT, or what a null says; NULL: nothing */
};

struct pl_table {
    const char *name, *title;  /* static */
    const struct pl_col *cols; /* static */
    size_t n_cols;
    struct pl_cell_value *cells; /* [n_rows][n_cols] */
    size_t n_rows, cap;
    size_t at;            /* cells filled in the last row */
    const char *notes[8]; /* printed under the table, in the arena */
    size_t n_notes;
    struct pl_arena arena;
    bool failed;
};

void pl_table_init(struct pl_table *t, const char *name, const char *title,
                   const struct pl_col *cols, size_t n_cols);
void pl_table_release(struct pl_table *t);
/* Begins a row; cells not given are null. */
void pl_table_row(struct pl_table *t);
/* Cells from left to right. Text is copied and cleaned (pl_text_clean); NULL text and values that
 * are not finite are null. */
void pl_table_text(struct pl_table *t, const char *s);
void pl_table_int(struct pl_table *t, int64_t v);
void pl_table_real(struct pl_table *t, double v);
/* Of a PL_COL_LIST; those that are not finite are left out, none is null. */
void pl_table_list(struct pl_table *t, const double *v, size_t n);
/* A context length; 0 ([auto]: each prompt's own) is null and reads "auto". */
void pl_table_context(struct pl_table *t, int64_t tokens);
/* The same in words: "context 512", "own prompts". */
#define PL_CONTEXT_TEXT 32
void pl_context_text(int64_t tokens, char out[PL_CONTEXT_TEXT]);
void pl_table_bool(struct pl_table *t, bool v);
/* shown: static text for people; NULL: nothing. */
void pl_table_null(struct pl_table *t, const char *shown);
void pl_table_note(struct pl_table *t, const char *fmt, ...) PL_PRINTF(2, 3);

enum pl_format { PL_FORMAT_MD, PL_FORMAT_CSV, PL_FORMAT_JSON, PL_FORMAT_TEX, PL_FORMAT_COUNT };
const char *pl_format_ext(enum pl_format f); /* "md" … */
void pl_table_write(const struct pl_table *t, enum pl_format f, struct pl_out *o);
/* Aligned columns for a terminal, PL_COL_WIDE left out; at most max_rows rows (0: all) of those
 * that `keep` takes (NULL: all). screen: where the table is wider than so many columns (0: any
 * width), columns that say the same in all rows stand in one line below it. */
void pl_table_write_text(const struct pl_table *t, size_t max_rows,
                         bool (*keep)(const struct pl_table *t, size_t row), bool colour,
                         size_t screen, struct pl_out *o);
/* A <table>, PL_COL_WIDE left out; notes under it where asked. */
void pl_table_write_html(const struct pl_table *t, bool notes, struct pl_out *o);

/* What stands in one of its <td>. */
void pl_table_html_value(const struct pl_table *t, size_t row, size_t col, struct pl_out *o);

/* What a person reads in a cell: "" where nothing is known. Valid until size bytes of out are. */
const char *pl_cell_text(const struct pl_col *col, const struct pl_cell_value *v, char *out,
                         size_t size);
/* Four significant digits, without exponent between 1e-6 and 1e15. */
void pl_format_sig(double v, char *out, size_t size);
void pl_format_bytes(double v, char *out, size_t size);

#endif
