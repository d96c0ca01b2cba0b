/*
 * DIR/published: the report's numbers in the shapes that users of published tools read with their
 * own scripts, key for key and in their order (docs/METRICS.md, "published"). What a shape asks for
 * and nobody measured is null, or empty in CSV; what is synthetic says so.
 */
#ifndef PL_ANALYSIS_PUBLISHED_H
#define PL_ANALYSIS_PUBLISHED_H

#include "analysis/out.h"
#include "analysis/report.h"
#include "base/json.h"

/* Where files go; the directory is made with the first of them. */
struct pl_published {
    const char *dir; /* DIR/published */
    bool made;
};

/* Writes what the data has a shape for; files of an earlier report that this one has not go. */
PL_MUST_CHECK
enum pl_status pl_published_write(const struct pl_report *r, const char *dir, struct pl_err *err);

/* A shape's own writer, one a row of the list in published.c: its files by pl_published_file, or
 * none. */
PL_MUST_CHECK
enum pl_status pl_published_scaling_csv(const struct pl_report *r, struct pl_published *p,
                                        struct pl_err *err); /* inference_results.csv */
PL_MUST_CHECK
enum pl_status pl_published_e3(const struct pl_report *r, struct pl_published *p,
                               struct pl_err *err); /* e3_MODEL.json */

PL_MUST_CHECK
enum pl_status pl_published_wallclock(const struct pl_report *r, struct pl_published *p,
                                      struct pl_err *err); /* e2e_wallclock.{json,md} */
PL_MUST_CHECK
enum pl_status pl_published_table2(const struct pl_report *r, struct pl_published *p,
                                   struct pl_err *err); /* table2.md */
PL_MUST_CHECK
enum pl_status pl_published_sdtp(const struct pl_report *r, struct pl_published *p,
                                 struct pl_err *err); /* sdtp_results.json */

/* Writes o as DIR/published/NAME. */
PL_MUST_CHECK
enum pl_status pl_published_file(struct pl_published *p, const char *name, const struct pl_out *o,
                                 struct pl_err *err);
/* The length that a published shape has for a cell: the context, or with [auto], where the file has
 * 0, the mean length of its prompts, rounded. */
int64_t pl_published_length(const struct pl_dataset *d, uint32_t arm, uint32_t context);
/* A number as Python's json writes a float: 5.0, not 5; "null" unless it is finite. */
void pl_published_float(struct pl_out *o, double v);
/* As Python's json.dump(v, indent=2) writes it; NULL: PL_ENOMEM, which writes will tell. */
void pl_published_json(struct pl_out *o, json_t *v);
/* The same for CSV: nothing unless it is finite. */
void pl_published_csv_float(struct pl_out *o, double v);

#endif
