/*
 * The report's tables (CONTRACTS §5; docs/METRICS.md has every column). Each function initialises
 * and fills one; release it with pl_table_release whatever was returned. PL_ENOMEM, PL_EIO.
 */
#ifndef PL_ANALYSIS_TABLES_H
#define PL_ANALYSIS_TABLES_H

#include "analysis/dataset.h"
#include "analysis/scaling.h"
#include "analysis/speedup.h"
#include "analysis/table.h"

enum pl_table_id {
    PL_TABLE_SPEEDUP,
    PL_TABLE_SPEEDUP_DEVICES, /* the same per device */
    PL_TABLE_LATENCY,
    PL_TABLE_MEMORY,
    PL_TABLE_KV,
    PL_TABLE_TABLE2,
    PL_TABLE_QUALITY,
    PL_TABLE_CONTEXT_SCALING,
    PL_TABLE_ACCEPTANCE,
    PL_TABLE_SPEEDUP_ANALYSIS,
    PL_TABLE_ACCEPT_TO_SPEEDUP,
    PL_TABLE_VERIFY_COST,
    PL_TABLE_ENERGY,
    PL_TABLE_KERNELS,
    PL_TABLE_OUTLIERS,
    PL_TABLE_FAILURES,
    PL_TABLE_WARNINGS,
    PL_TABLE_PROVENANCE,
    PL_TABLE_COUNT
};
const char *pl_table_id_name(enum pl_table_id id);
/* PL_TABLE_COUNT when there is none of that name. */
enum pl_table_id pl_table_id_parse(const char *name, size_t len);

/* tables[PL_TABLE_COUNT]; all are filled. warnings may still be added to: kind, arm, context
 * (NULL and −1: none), text. */
PL_MUST_CHECK
enum pl_status pl_tables_make(const struct pl_dataset *d, const struct pl_speedups *s,
                              const struct pl_scaling *scaling, struct pl_table *tables,
                              struct pl_err *err);
void pl_tables_release(struct pl_table *tables);
void pl_tables_warn(struct pl_table *warnings, const char *kind, const char *arm, int64_t context,
                    const char *fmt, ...) PL_PRINTF(5, 6);

/* Of pl_tables_make: one each. */
void pl_table_speedup(const struct pl_dataset *d, const struct pl_speedups *s, struct pl_table *t);
void pl_table_speedup_devices(const struct pl_dataset *d, const struct pl_speedups *s,
                              struct pl_table *t);
PL_MUST_CHECK
enum pl_status pl_table_latency(const struct pl_dataset *d, struct pl_table *latency,
                                struct pl_table *outliers, struct pl_err *err);
void pl_table_memory(const struct pl_dataset *d, struct pl_table *t);
void pl_table_kv(const struct pl_dataset *d, struct pl_table *t);
void pl_table_context_scaling(const struct pl_dataset *d, const struct pl_scaling *s,
                              struct pl_table *t);
/* Of drafting arms; empty without any. */
void pl_table_acceptance(const struct pl_dataset *d, struct pl_table *t);
void pl_table_speedup_analysis(const struct pl_dataset *d, struct pl_table *t);
void pl_table_accept_to_speedup(const struct pl_dataset *d, struct pl_table *t);
void pl_table_verify_cost(const struct pl_dataset *d, struct pl_table *t);
void pl_table_energy(const struct pl_dataset *d, struct pl_table *t);
void pl_table_kernels(const struct pl_dataset *d, struct pl_table *t);
/* A row for each burst that could not be measured. */
void pl_warn_energy(const struct pl_dataset *d, struct pl_table *t);
void pl_table_failures(const struct pl_dataset *d, struct pl_table *t);
PL_MUST_CHECK
enum pl_status pl_table_provenance(const struct pl_dataset *d, struct pl_table *t,
                                   struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_table_warnings(const struct pl_dataset *d, const struct pl_speedups *s,
                                 const struct pl_table *outliers, struct pl_table *t,
                                 struct pl_err *err);

/* What every table says beneath it: synthetic, cached vision, incomplete. */
#define PL_CACHED_VISION                                                                           \
    "cached vision: data.cache_vision is true, so the vision of a scene was worked out once and "  \
    "looked up for its other questions and repeats; vision, ttft and e2e hold the look-up"
void pl_tables_label(const struct pl_dataset *d, struct pl_table *t);

#endif
