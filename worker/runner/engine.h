/*
 * What `serve` asks of an engine: a const vtable over an opaque state. Two stand here: sim (planted
 * truths, CONTRACTS §2) and llm (the real one, on model/). An engine is called by one thread, one
 * request at a time. Times are integer ns durations.
 */
#ifndef PL_WORKER_RUNNER_ENGINE_H
#define PL_WORKER_RUNNER_ENGINE_H

#include "base/json.h"
#include "base/status.h"
#include "data/sample.h"
#include "model/backend.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The protocol's reasons. X(symbol, name) */
#define PL_FAULT_LIST(X)                                                                           \
    X(OOM, "oom")                                                                                  \
    X(LOAD, "load")                                                                                \
    X(DATA, "data")                                                                                \
    X(CONTEXT, "context")                                                                          \
    X(MEMORY, "memory")                                                                            \
    X(NUMERIC, "numeric")                                                                          \
    X(RUNNER, "runner")

enum pl_fault_reason {
#define PL_X(sym, name) PL_FAULT_##sym,
    PL_FAULT_LIST(PL_X)
#undef PL_X
        PL_FAULT_COUNT
};
const char *pl_fault_name(enum pl_fault_reason r);

/* Why a request failed; becomes an `error` answer. */
struct pl_fault {
    enum pl_fault_reason reason;
    bool fatal; /* the runner must not be used again */
    struct pl_err err;
};
/* Sets reason (memory that ran out: oom and fatal, whatever is said) and returns st; the text is in
 * f->err already. */
enum pl_status pl_fault_set(struct pl_fault *f, enum pl_status st, enum pl_fault_reason reason);

/* Phases in the order of CONTRACTS, then parts of a vision: not further phases of their lane.
 * X(symbol, name) */
#define PL_PHASE_LIST(X)                                                                           \
    X(TOKENIZE, "tokenize")                                                                        \
    X(VISION, "vision")                                                                            \
    X(ENCODE, "encode")                                                                            \
    X(PREFILL, "prefill")                                                                          \
    X(DRAFT, "draft")                                                                              \
    X(ADAPTER, "adapter")                                                                          \
    X(VERIFY, "verify")                                                                            \
    X(DECODE, "decode")                                                                            \
    X(WAIT, "wait")                                                                                \
    X(D_VISION, "d_vision")                                                                        \
    X(D_PREFILL, "d_prefill")                                                                      \
    X(D_DECODE, "d_decode")                                                                        \
    X(D_WAIT, "d_wait")                                                                            \
    X(PREPROCESS, "preprocess")                                                                    \
    X(TOWER, "tower")                                                                              \
    X(D_PREPROCESS, "d_preprocess")                                                                \
    X(D_TOWER, "d_tower")

enum pl_phase {
#define PL_X(sym, name) PL_PHASE_##sym,
    PL_PHASE_LIST(PL_X)
#undef PL_X
        PL_PHASE_COUNT,
    PL_PHASE_PARTS = PL_PHASE_PREPROCESS /* from here on: parts of other phases */
};
const char *pl_phase_name(enum pl_phase p);

/* What a load says, the part of one engine. Borrowed until the call returns. */
struct pl_load {
    const json_t *models; /* name → entry, this engine's only */
    const json_t *arms;   /* name → resolved arm, of those models */
    int64_t tokens;       /* ≥ 1, the most of any trial */
    bool stop_at_eos;
    double temperature;
    int64_t quality;   /* measure.quality: tokens behind a prompt to score after a trial; 0: none */
    bool prefill_only; /* measure.mode is prefill: one token, from the prefill */
    bool energy;       /* measure.energy */
    uint64_t seed;
    const char *device_kind, *device_uuid; /* NULL: not said */
    const char *partner_uuid;              /* of a pair's second GPU; NULL: there is none */
    int threads;                           /* 0: not said */
    const int *cpus;
    size_t n_cpus;
    int64_t max_context; /* 0: not said */
    json_t *said; /* filled: {arm: {"transport", "shared_device"}} of arms whose states travel,
                     with draft.sm_share also "multiprocessors" or "not_split" */
};

struct pl_trial_request {
    uint64_t id;
    const char *arm;
    int64_t context;
    int64_t tokens;        /* at most the load's; 0: the load's */
    const json_t *sample;  /* of the first sequence */
    const json_t *samples; /* of every sequence; NULL: there is one */
    int64_t repeat, attempt;
    bool timed;   /* false: a warm-up */
    bool kernels; /* tells what each kernel took, by the device's own clock */
};

struct pl_trial_round {
    uint32_t drafted, accepted;
    int64_t draft_us, verify_us;
};

/* Part of a lane's time: lane 0 is the verifier's, 1 the drafter's. */
struct pl_trial_span {
    uint8_t lane;
    uint8_t kind;             /* enum pl_phase */
    int64_t start_ns, end_ns; /* since the trial's start */
};

/* A score of the answer, by a name of docs/METRICS.md. */
struct pl_trial_quality {
    const char *name;
    double value;
};
#define PL_TRIAL_QUALITIES 8

/* A trial's outcome: one sequence, or `sequences` of them. Pointers are the engine's, valid until
 * its next call. A phase of −1 was not measured. */
struct pl_trial_result {
    uint32_t prompt_tokens, generated; /* over all sequences */
    uint32_t sequences;                /* ≥ 1 */
    const uint32_t *lengths;           /* [sequences] tokens of each; NULL: one of `generated` */
    uint32_t stride; /* sequence b's tokens and their times begin at b · stride */
    const int32_t *tokens;
    const int64_t *token_ns; /* since the trial's start */
    int64_t phase_ns[PL_PHASE_COUNT];
    int64_t ttft_ns, total_ns;
    int64_t device_ns[2];   /* prefill, decode by the device's own clock; −1: not measured */
    const uint32_t *kv_len; /* [sequences][layers] after prefill */
    uint32_t layers;
    const uint32_t *kv_len_draft; /* [layers_draft] the drafter's; NULL: there is none */
    uint32_t layers_draft;
    const struct pl_trial_round *rounds; /* [n_rounds] */
    uint32_t n_rounds;
    const struct pl_trial_span *spans; /* [n_spans]; the first ones only */
    uint32_t n_spans;
    uint32_t drafted, accepted, free_tokens, cut, divergent;
    int64_t weights_bytes, kv_bytes, workspace_bytes, device_peak_bytes,
        other_bytes; /* −1: not measured */
    struct pl_trial_work {
        int64_t prefill_flops, decode_flops; /* of the model's matrix products and attention;
                                                decode: of all that follows the first token */
        int64_t decode_bytes;                /* of weights and KV that these read */
    } work;                                  /* −1: not counted */
    bool hashed;
    uint64_t ids_hash, logits_hash;
    struct pl_trial_quality quality[PL_TRIAL_QUALITIES];
    uint32_t n_quality;
    const struct pl_op_time *kernels; /* [n_kernels] */
    size_t n_kernels;
    const char *text; /* what the model answered, up to its own end; NULL: not told */
    size_t text_len;
    bool synthetic;
    const char *garbage; /* a planted fault: sent as it is instead of the answer; else NULL */
};
/* Everything zero, phases and bytes −1. */
void pl_trial_result_init(struct pl_trial_result *r);
/* Adds a score; one that is not finite was not measured and is left out. name: lives on. */
void pl_trial_result_quality(struct pl_trial_result *r, const char *name, double value);

struct pl_engine {
    const char *name;
    enum pl_status (*open)(void **state, struct pl_err *err);
    void (*close)(void *state); /* accepts NULL */
    /* Adds the members of `described` to answer, but type and id. request: the whole one. A mistake
     * of the sweep is an item of answer's `errors`, not a failure. */
    enum pl_status (*describe)(void *state, const json_t *request, json_t *answer,
                               struct pl_fault *fault);
    /* Adds models and arms to what is loaded; adds {weights_bytes, resident_bytes} by name to
     * models_out; *load_ns ≥ 0 replaces the measured time. On failure nothing new stays. */
    enum pl_status (*load)(void *state, const struct pl_load *load, json_t *models_out,
                           int64_t *load_ns, struct pl_fault *fault);
    enum pl_status (*trial)(void *state, const struct pl_trial_request *request,
                            struct pl_trial_result *out, struct pl_fault *fault);
    /* Forgets a model and the arms that use it; unknown names are fine. NULL: everything. */
    void (*unload)(void *state, const char *model);
    /* The ids of a sample under a model's tokenizer; NULL: the engine has none. Adds `ids` and
     * `bytes`. */
    enum pl_status (*ids)(void *state, const json_t *request, json_t *answer,
                          struct pl_fault *fault);
};

extern const struct pl_engine pl_engine_sim;
extern const struct pl_engine pl_engine_llm;

#endif
