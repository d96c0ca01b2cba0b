/* The whole report: a results file in, tables, figures and one page out. */
#ifndef PL_ANALYSIS_REPORT_H
#define PL_ANALYSIS_REPORT_H

#include "analysis/dataset.h"
#include "analysis/figure.h"
#include "analysis/scaling.h"
#include "analysis/speedup.h"
#include "analysis/tables.h"

struct pl_report {
    struct pl_dataset *data;
    struct pl_speedups speedups;
    struct pl_scaling scaling;
    struct pl_table tables[PL_TABLE_COUNT];
    struct pl_figure figures[PL_FIGURE_COUNT];
    bool drawn[PL_FIGURE_COUNT]; /* set by pl_report_write: its files are there */
};

/* Reads the file and computes everything; draws and writes nothing. Release r whatever was
 * returned. */
PL_MUST_CHECK
enum pl_status pl_report_load(const char *path, struct pl_report *r, struct pl_err *err);
/* Writes DIR/report.html, DIR/tables/NAME.{md,csv,json,tex}, DIR/figures/NAME.{svg,png} and, with
 * all tables, DIR/published, making the directories; what is there is replaced file by file.
 * wanted: one a table, NULL: all; formats:
 * a bit a pl_format. A figure that cannot be drawn is a row of `warnings`, not a failure. */
PL_MUST_CHECK
enum pl_status pl_report_write(struct pl_report *r, const char *dir, const bool *wanted,
                               unsigned formats, struct pl_err *err);
void pl_report_release(struct pl_report *r);

/* The page, to o; figures are read from DIR/figures. */
void pl_report_html(const struct pl_report *r, const char *dir, struct pl_out *o);

#endif
