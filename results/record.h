/*
 * What one row holds. Structs here are the memory types of the file's compounds: packed,
 * little-endian, in the file's order, so that the bytes of a struct are the bytes in the file and
 * the CRC is the same from either side.
 */
#ifndef PL_RESULTS_RECORD_H
#define PL_RESULTS_RECORD_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The grid: R = [arm, context, sample, repeat], and the fixed inner shapes of a row. */
struct pl_shape {
    uint32_t arms, contexts, samples, repeats;
    uint32_t batch;   /* sequences a trial, ≥ 1 */
    uint32_t tokens;  /* generated tokens a sequence, ≥ 1 (prefill mode: 1) */
    uint32_t models;  /* 2 always: verifier (or only model) first, drafter second */
    uint32_t layers;  /* most layers of any model, ≥ 1 */
    uint32_t rounds;  /* 0: no arm drafts and /rounds is absent */
    uint32_t metrics; /* quality metrics; 0: /quality is absent */
};

struct pl_row_id {
    uint32_t arm, context, sample, repeat;
};

/* PL_ERANGE, naming the dimension: 0, models ≠ 2, rounds > tokens, a row beyond PL_ROW_BYTES_MAX, a
 * file beyond 2^62 bytes. */
PL_MUST_CHECK
enum pl_status pl_shape_check(const struct pl_shape *s, struct pl_err *err);
uint64_t pl_shape_rows(const struct pl_shape *s); /* saturates at UINT64_MAX */
uint64_t pl_row_index(const struct pl_shape *s, const struct pl_row_id *id); /* C order */
struct pl_row_id pl_row_at(const struct pl_shape *s, uint64_t index);

/* Why a trial failed; the names stand in the file (/axes/reason) and in the tables. */
#define PL_REASON_LIST(X)                                                                          \
    X(NONE, "none")                                                                                \
    X(CRASH, "crash")       /* the runner died by a signal or exited */                            \
    X(OOM, "oom")           /* host or device memory ran out */                                    \
    X(TIMEOUT, "timeout")   /* no answer before the deadline */                                    \
    X(GARBAGE, "garbage")   /* bytes that are not the protocol */                                  \
    X(LOAD, "load")         /* a model could not be loaded */                                      \
    X(START, "start")       /* the runner could not be started */                                  \
    X(DATA, "data")         /* the sample is missing or broken */                                  \
    X(CONTEXT, "context")   /* the text or the model is shorter than the context */                \
    X(MEMORY, "memory")     /* foreseen not to fit */                                              \
    X(NUMERIC, "numeric")   /* NaN or infinite logits */                                           \
    X(IDENTITY, "identity") /* the row contradicts its own counts or times */                      \
    X(RUNNER, "runner")     /* any other error the runner reported */                              \
    X(DEVICE, "device")     /* lost or quarantined device */

enum pl_reason {
#define PL_X(sym, name) PL_REASON_##sym,
    PL_REASON_LIST(PL_X)
#undef PL_X
        PL_REASON_COUNT
};
const char *pl_reason_name(enum pl_reason r);     /* "unknown" beyond the list */
enum pl_reason pl_reason_parse(const char *name); /* PL_REASON_RUNNER for names it does not know */

/* The columns of /trials in their order: X(C type, tag, name). Times are ms; bytes are bytes; NaN:
 * not measured. preprocess and tower are parts of vision. */
#define PL_TRIAL_COLUMNS(X)                                                                        \
    X(double, F64, tokenize_ms)                                                                    \
    X(double, F64, vision_ms)                                                                      \
    X(double, F64, encode_ms)                                                                      \
    X(double, F64, prefill_ms)                                                                     \
    X(double, F64, draft_ms)                                                                       \
    X(double, F64, adapter_ms)                                                                     \
    X(double, F64, verify_ms)                                                                      \
    X(double, F64, decode_ms)                                                                      \
    X(double, F64, wait_ms)                                                                        \
    X(double, F64, d_vision_ms)                                                                    \
    X(double, F64, d_prefill_ms)                                                                   \
    X(double, F64, d_decode_ms)                                                                    \
    X(double, F64, preprocess_ms)                                                                  \
    X(double, F64, tower_ms)                                                                       \
    X(double, F64, d_preprocess_ms)                                                                \
    X(double, F64, d_tower_ms)                                                                     \
    X(double, F64, ttft_ms)                                                                        \
    X(double, F64, total_ms)                                                                       \
    X(uint32_t, U32, prompt_tokens)                                                                \
    X(uint32_t, U32, generated)                                                                    \
    X(uint32_t, U32, rounds)                                                                       \
    X(uint32_t, U32, drafted)                                                                      \
    X(uint32_t, U32, accepted)                                                                     \
    X(uint32_t, U32, free_tokens)                                                                  \
    X(uint32_t, U32, cut)                                                                          \
    X(uint32_t, U32, divergent)                                                                    \
    X(uint64_t, U64, weights_bytes)                                                                \
    X(uint64_t, U64, kv_bytes)                                                                     \
    X(uint64_t, U64, workspace_bytes)                                                              \
    X(uint64_t, U64, device_peak_bytes)                                                            \
    X(uint64_t, U64, other_bytes)                                                                  \
    X(uint32_t, U32, worker)                                                                       \
    X(uint32_t, U32, load)                                                                         \
    X(uint32_t, U32, block)                                                                        \
    X(uint16_t, U16, order)                                                                        \
    X(uint16_t, U16, neighbours_min)                                                               \
    X(uint16_t, U16, neighbours_max)                                                               \
    X(uint16_t, U16, reason)                                                                       \
    X(uint8_t, U8, synthetic)                                                                      \
    X(uint8_t, U8, swapped)                                                                        \
    X(int64_t, I64, start_unix_ns)                                                                 \
    X(uint64_t, U64, ids_hash)                                                                     \
    X(uint64_t, U64, logits_hash)                                                                  \
    X(double, F64, d_wait_ms)

struct __attribute__((packed)) pl_trial {
#define PL_X(type, tag, name) type name;
    PL_TRIAL_COLUMNS(PL_X)
#undef PL_X
};

struct __attribute__((packed)) pl_round {
    uint16_t drafted, accepted;
    uint32_t draft_us, verify_us;
};

/* What the engine counted (docs/RESULTS_FILE.md, /work); 0: it did not. Beside the CRC: written
 * before the marker, under the same lease. */
struct __attribute__((packed)) pl_row_work {
    uint64_t prefill_flops, decode_flops, decode_bytes;
};

/* What a lane did when (docs/RESULTS_FILE.md, /spans): the first samples' first repeat of each arm.
 */
#define PL_SPANS_SAMPLES 4
#define PL_SPANS_MAX 256
struct __attribute__((packed)) pl_lane_span {
    uint8_t lane, kind;      /* 0 verifier, 1 drafter; the phase's place among the columns */
    double start_ms, end_ms; /* since the trial's start; end 0: no span */
};

enum pl_row_state { PL_ROW_EMPTY = 0, PL_ROW_DONE = 1, PL_ROW_FAILED = 2 };

struct __attribute__((packed)) pl_commit {
    uint8_t state;    /* enum pl_row_state */
    uint8_t attempt;  /* 0: first try */
    uint16_t session; /* which start of the run wrote it, from 0 */
    uint32_t crc;
};

/* One row in memory: a block of `pl_row_bytes(shape)` holding the cells side by side in CRC order
 * (/trials /tokens /token_ms /kv_len /rounds /quality); the pointers below point into it. */
struct pl_row {
    struct pl_trial *trial;
    int32_t *tokens;         /* [batch][tokens], −1 beyond the end */
    float *token_ms;         /* [batch][tokens], since the trial's start; NaN beyond the end */
    uint32_t *kv_len;        /* [models][batch][layers] */
    struct pl_round *rounds; /* [batch][rounds]; NULL when absent */
    double *quality;         /* [metrics]; NULL when absent */
    struct pl_row_work work; /* not among the bytes */
    void *bytes;
    size_t n_bytes;
    void *block; /* what was allocated: bytes starts up to 7 bytes in, so that every array above is
                    aligned */
};

#define PL_ROW_BYTES_MAX (256u << 20)
size_t pl_row_bytes(const struct pl_shape *shape); /* of a shape that pl_shape_check took */

/* Allocates and clears a row (pl_row_clear's values). PL_ENOMEM. */
PL_MUST_CHECK
enum pl_status pl_row_init(struct pl_row *row, const struct pl_shape *shape, struct pl_err *err);
/* NaN times and quality, −1 tokens, zero counts. */
void pl_row_clear(struct pl_row *row, const struct pl_shape *shape);
void pl_row_release(struct pl_row *row);
/* CRC32C over the linear index (u64, little-endian) and the row's bytes. */
uint32_t pl_row_crc(uint64_t index, const struct pl_row *row);

/* Logs: fixed capacity, a slot used once, `used` written as 1 with the record. Strings are
 * NUL-padded. */
struct __attribute__((packed)) pl_log_session {
    uint8_t used;
    uint8_t event; /* 1 start, 2 end */
    uint16_t session;
    int32_t exit_code; /* of an end event */
    uint32_t ranks, done, failed;
    int64_t unix_ns;
    char host[64], version[32], provenance[2048]; /* provenance: JSON */
};
struct __attribute__((packed)) pl_log_worker {
    uint8_t used;
    uint16_t session;
    uint32_t worker, rank, pid, local_index, local_count;
    int64_t unix_ns;
    char host[64], cpus[64], device[96];
};
struct __attribute__((packed)) pl_log_load {
    uint8_t used;
    uint8_t ok;
    uint16_t session;
    uint32_t load, worker;
    int64_t unix_ns;
    double load_ms, stage_ms;
    uint64_t weights_bytes, resident_bytes;
    char models[128], runner[64]; /* names, comma-separated; runner and its version */
    char transports[128]; /* "L4+VL peer, shared device; …": of arms whose states travel */
};
struct __attribute__((packed)) pl_log_block {
    uint8_t used;
    uint16_t session, attempt;
    uint32_t block, worker, done, failed;
    int64_t start_unix_ns, end_unix_ns;
    double mhz_start, mhz_end, celsius_start, celsius_end; /* NaN: not readable */
    uint64_t throttle_start, throttle_end;                 /* reason bits, device specific */
};
struct __attribute__((packed)) pl_log_failure {
    uint8_t used;
    uint8_t attempt;
    uint8_t final; /* 1: the row was given up with this */
    uint16_t session, reason;
    uint32_t worker;
    uint64_t row; /* linear index; UINT64_MAX: not a trial's (a load) */
    int64_t unix_ns;
    char detail[256], stderr_tail[2048];
};
struct __attribute__((packed)) pl_log_ceiling {
    uint8_t used;
    uint16_t session;
    uint32_t worker, threads;
    int64_t unix_ns;
    double read_bytes_per_s, flop_per_s;
    char kind[64]; /* what the second was measured with: "f32 avx2" */
};
/* A burst of measure.energy. */
struct __attribute__((packed)) pl_log_energy {
    uint8_t used;
    uint8_t synthetic;
    uint16_t session;
    uint32_t arm, context; /* indices into /axes */
    uint32_t worker, sequences, readings;
    uint64_t trials, tokens; /* of the burst; tokens: generated by all sequences */
    int64_t unix_ns;
    double seconds, joules; /* NaN: not measured, and why stands in `absent` */
    char source[64], absent[128];
};

/* A kernel of measure.kernels: one trial's. */
struct __attribute__((packed)) pl_log_kernel {
    uint8_t used;
    uint8_t synthetic;
    uint16_t session;
    uint32_t arm, context, worker; /* indices into /axes; the worker's number */
    int64_t unix_ns;               /* the trial's: the same in all of its kernels */
    double ms;
    uint64_t calls, bytes, flops; /* bytes, flops 0: not counted here */
    char name[80];
};

enum pl_log_kind {
    PL_LOG_SESSIONS,
    PL_LOG_WORKERS,
    PL_LOG_LOADS,
    PL_LOG_BLOCKS,
    PL_LOG_FAILURES,
    PL_LOG_CEILINGS,
    PL_LOG_ENERGY,
    PL_LOG_KERNELS,
    PL_LOG_KINDS
};
const char *pl_log_name(enum pl_log_kind k); /* "sessions" … */
size_t pl_log_size(enum pl_log_kind k);      /* bytes of one record */

#endif
