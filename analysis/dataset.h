/*
 * What the tables need from a results file, in memory: the times of every done row as arrays per
 * arm × context, counts of everything else. Memory is O(done rows), about 8 bytes a measured column
 * and 24 a row; tokens, per-token times and rounds are not kept. Read-only once loaded.
 */
#ifndef PL_ANALYSIS_DATASET_H
#define PL_ANALYSIS_DATASET_H

#include "analysis/drafts.h"
#include "results/reader.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(symbol, column of /trials, its name in the tables) */
#define PL_METRIC_COLUMNS(X)                                                                       \
    X(TOKENIZE, tokenize_ms, "tokenize")                                                           \
    X(VISION, vision_ms, "vision")                                                                 \
    X(ENCODE, encode_ms, "encode")                                                                 \
    X(PREFILL, prefill_ms, "prefill")                                                              \
    X(DRAFT, draft_ms, "draft")                                                                    \
    X(ADAPTER, adapter_ms, "adapter")                                                              \
    X(VERIFY, verify_ms, "verify")                                                                 \
    X(DECODE, decode_ms, "decode")                                                                 \
    X(WAIT, wait_ms, "wait")                                                                       \
    X(D_VISION, d_vision_ms, "d_vision")                                                           \
    X(D_PREFILL, d_prefill_ms, "d_prefill")                                                        \
    X(D_DECODE, d_decode_ms, "d_decode")                                                           \
    X(D_WAIT, d_wait_ms, "d_wait")                                                                 \
    X(PREPROCESS, preprocess_ms, "preprocess")                                                     \
    X(TOWER, tower_ms, "tower")                                                                    \
    X(D_PREPROCESS, d_preprocess_ms, "d_preprocess")                                               \
    X(D_TOWER, d_tower_ms, "d_tower")                                                              \
    X(TTFT, ttft_ms, "ttft")                                                                       \
    X(E2E, total_ms, "e2e")

enum pl_metric {
#define PL_X(sym, column, name) PL_METRIC_##sym,
    PL_METRIC_COLUMNS(PL_X)
#undef PL_X
        PL_METRIC_COLUMN_COUNT,
    /* from several columns: docs/METRICS.md */
    PL_METRIC_TPOT = PL_METRIC_COLUMN_COUNT, /* ms between a sequence's tokens */
    PL_METRIC_DECODE_TPS,                    /* tokens/s after the first ones */
    PL_METRIC_THROUGHPUT,                    /* tokens/s of the whole trial */
    PL_METRIC_GENERATION, /* decode + draft + adapter + verify: what follows the first token */
    PL_METRIC_COUNT
};
#define PL_METRIC_PHASES PL_METRIC_TTFT /* the first so many are phases */
const char *pl_metric_name(enum pl_metric m);

/* One arm at one context. Row i of the arrays is a done row; rows are in order of (sample, repeat).
 */
struct pl_cell {
    uint64_t done, failed, torn;
    uint64_t synthetic, swapped, divergent,
        disturbed;                       /* done rows; disturbed: neighbours_max > 0 */
    uint64_t by_reason[PL_REASON_COUNT]; /* failed rows */
    uint64_t compared, differing; /* done rows whose ids were held to the baseline's; other ids */
    size_t n, cap;                /* n = done */
    uint64_t *slot;               /* sample · repeats + repeat */
    uint32_t *place;              /* index into pl_dataset.places */
    uint32_t *generated;          /* tokens of all sequences */
    uint32_t sequences, clients;  /* of a trial of this arm; clients 0: no closed loop */
    float *seq_ttft, *seq_tpot;   /* [n][sequences] ms, NaN: not told; NULL: one sequence */
    int64_t *start_ns;            /* wall clock */
    double *column[PL_METRIC_COLUMN_COUNT]; /* ms, NaN: not measured; NULL: measured nowhere here */
    /* sums over done rows */
    double prompt_tokens, weights_bytes, kv_bytes, workspace_bytes, device_peak_bytes, other_bytes;
    double prefill_flops, decode_flops, decode_bytes; /* over `worked` of them */
    uint64_t worked;                                  /* rows whose engine counted its work */
    double device_peak_min, device_peak_max;          /* of rows that have it; 0: none does */
    struct {
        double lengths, layers, full; /* Σ length, Σ 1, Σ prompt tokens over layers with a length */
        uint32_t shortest, longest;
    } kv[2];                      /* model 0: verifier or only model; 1: drafter */
    double *layer_rows, *layer_n; /* [layers] of model 0: Σ length, Σ 1; NULL: not known */
    double **quality;             /* [metrics][n]; NaN: not measured; NULL: nowhere here */
};

/* A device in one session: the top cluster of the statistics. */
struct pl_place {
    uint32_t device; /* index into pl_dataset.devices */
    uint16_t session;
    double read_bytes_per_s, flop_per_s; /* of /ceilings, the mean of its workers'; 0: none */
};

struct pl_dataset {
    struct pl_reader *reader; /* owned; axes, sweep and provenance are read through it */
    char *path;
    struct pl_shape shape;
    uint64_t rows, done, failed, torn; /* rows: the grid's; the rest is left to do */
    struct pl_cell *cells;             /* [arms][contexts] */
    char **arms;                       /* [arms] names, clean UTF-8 */
    struct pl_draft_cell **drafts;     /* [arms][contexts] (drafts.h); NULL: no round anywhere */
    uint32_t *baseline; /* [arms] index of its baseline; itself where it has none, or is one */
    uint32_t *scene;    /* [samples] the first sample of the same scene; without scenes itself */
    char **devices;     /* [n_devices] "host/device", clean UTF-8 */
    uint32_t n_devices;
    struct pl_place *places;
    uint32_t n_places;
    uint32_t n_sessions; /* with a worker */
    double delta;        /* measure.noise: δ of the verdicts */
    uint64_t seed;
    bool prefill_mode;
    bool prunes;                          /* an arm prunes tokens */
    bool caches_vision;                   /* data.cache_vision: see pl_tables_label */
    bool simulates, draws_random_weights; /* some model of the sweep */
    uint64_t synthetic;                   /* done rows */
    struct pl_log_failure *failures;
    struct pl_log_session *sessions;
    struct pl_log_worker *workers;
    struct pl_log_ceiling *ceilings;
    struct pl_log_energy *energy; /* bursts */
    uint32_t n_energy;
    bool measures_energy; /* measure.energy */
    struct pl_log_kernel *kernels;
    uint32_t n_kernels;
    bool measures_kernels; /* measure.kernels */
    uint32_t n_failures, n_session_events, n_workers, n_ceilings;
    uint64_t overflow[PL_LOG_KINDS];
};

/* Reads the whole file, also while a run writes it. PL_EFORMAT, PL_ENOENT, PL_EIO, PL_ENOMEM. */
PL_MUST_CHECK
enum pl_status pl_dataset_load(const char *path, struct pl_dataset **out, struct pl_err *err);
void pl_dataset_free(struct pl_dataset *d); /* NULL is fine */

const struct pl_cell *pl_dataset_cell(const struct pl_dataset *d, uint32_t arm, uint32_t context);
/* A metric of row i of a cell; NaN where it was not measured or cannot be formed. */
double pl_cell_value(const struct pl_dataset *d, const struct pl_cell *c, enum pl_metric m,
                     size_t i);
/* Mean over the rows that have it; NaN where none does. */
double pl_cell_mean(const struct pl_dataset *d, const struct pl_cell *c, enum pl_metric m);
/* The same over all rows, one that does not have it taken for 0: these add up to the whole. */
double pl_cell_part(const struct pl_dataset *d, const struct pl_cell *c, enum pl_metric m);
/* What decode_tps divides by: the time after the first token (several sequences: after all
 * prompts).
 */
double pl_cell_decode_ms(const struct pl_cell *c, size_t i);
/* Of an arm of several sequences, ttft and tpot of one of them; NaN where its engine tells no
 * times.
 */
double pl_cell_sequence(const struct pl_cell *c, enum pl_metric m, size_t i, uint32_t sequence);
/* Samples of which all trials of an arm run the same ones: a trial's sequences (docs/METRICS.md).
 * Of two arms: the least that is a whole number of both's. */
uint64_t pl_cell_group(const struct pl_cell *a, const struct pl_cell *b);
/* What the intervals resample besides devices: the group of a sample, joined with its neighbours
 * that share a scene with it. Samples of one unit stand together. */
uint64_t pl_dataset_unit(const struct pl_dataset *d, uint64_t sample, uint64_t group);
/* True when some row of the cell has it. */
bool pl_cell_has(const struct pl_dataset *d, const struct pl_cell *c, enum pl_metric m);
/* Mean of a quality metric over the rows that have it (perplexity: the geometric one,
 * docs/METRICS.md); NaN where none does. rows: NULL, or how many do. */
double pl_cell_quality(const struct pl_dataset *d, const struct pl_cell *c, uint32_t metric,
                       uint64_t *rows);
/* "synthetic: all 300 finished trials (simulated engine)", or which part; "" where nothing is. */
void pl_dataset_synthetic_text(const struct pl_dataset *d, char *out, size_t size);

#endif
