/* The real engine's state, shared by its loading (llm.c), its measuring (llm_trial.c) and
 * their parts. */
#ifndef PL_WORKER_RUNNER_LLM_H
#define PL_WORKER_RUNNER_LLM_H

#include "data/sample.h"
#include "model/model.h"
#include "model/session.h"
#include "model/tokenizer.h"
#include "worker/runner/drafting.h"
#include "worker/runner/engine.h"
#include "worker/runner/entry.h"
#include "worker/runner/llm_vision.h"

#include <stdbool.h>
#include <stdint.h>

/* How many sequences a trial runs. */
struct llm_sequences {
    uint32_t all;     /* of a trial */
    uint32_t slots;   /* of them in memory at once */
    uint32_t clients; /* of a closed loop; 0: a fixed batch */
};

/* A model's further sequences, beside llm_model.session. */
struct llm_batch {
    struct pl_session **more; /* [n] */
    float **states;           /* [n] encoders: as llm_model.states */
    size_t n;
    size_t max_source;
    float *logits; /* [n_logits, vocab] of a step */
    size_t n_logits;
};

/* What trials of several sequences are made of; grown, never shrunk. */
struct llm_buffers {
    int32_t *ids;                                /* [sequences, context] */
    int32_t *tokens;                             /* [sequences, tokens] */
    int64_t *ns;                                 /* [sequences, tokens] */
    uint32_t *kv_len;                            /* [sequences, layers] */
    uint32_t *lengths, *queue, *running;         /* [sequences] */
    int64_t *answered;                           /* [sequences] */
    struct pl_generated *made;                   /* [LLM_MADE] of steps without a wait */
    int64_t *made_ns;                            /* [LLM_MADE] */
    size_t n_ids, n_tokens, n_kv_len, n_lengths; /* elements */
};

#define LLM_MADE 8192 /* tokens of all sequences between two waits */

struct llm_model {
    char *name;
    json_t *json;          /* its entry */
    struct pl_entry entry; /* borrows from json */
    struct pl_model *model;
    struct pl_tokenizer *tokenizer; /* NULL: there is none, and why stands in no_tokenizer */
    struct pl_err no_tokenizer;
    struct pl_session *session; /* one for all arms: a trial begins with a reset */
    float *first, *step;        /* logits [vocab] of the prefill and of the last step */
    bool step_there;            /* step holds them: what was picked on a device was not copied */
    float *states;              /* encoders: [capacity, hidden] last hidden states */
    size_t max_source;          /* encoder–decoders: rows that the session's encoder takes */
    uint32_t *kv_len;           /* [layers] */
    struct llm_eyes eyes;
    int32_t eos[PL_MAX_EOS];
    size_t n_eos;
    struct llm_batch batch;
    size_t quality; /* ids of the text behind a prompt that are scored after a trial */
    float *verify;  /* logits [LLM_QUALITY_ROWS, vocab] of them; NULL without */
    bool fresh;     /* of the load in hand */
    struct llm_model *next;
};

#define LLM_QUALITY_ROWS 16u
#define LLM_KERNELS 64

struct pl_pruner;
/* What an arm that prunes runs on instead of the model's session; zeroed: it does not prune. */
struct llm_pruned {
    json_t *prune;                /* the arm's key */
    char *key;                    /* the same as text */
    struct pl_pruner *pruner;     /* of all its sessions: their prompts run one by one */
    struct pl_session **sessions; /* [n] one for each sequence at once */
    size_t n;
    uint64_t seed;
};

struct llm_arm {
    char *name;
    struct llm_model *model;
    struct llm_sequences sequences;
    json_t *draft;                   /* its key, or NULL: it does not draft */
    struct pl_draft_opts draft_opts; /* borrows from draft */
    struct llm_model *drafter;       /* NULL: drafts without a model */
    struct pl_drafting *drafting;    /* made for the largest context */
    int64_t own_prompt, own_room;    /* scenes: the drafter's prompt, and what it has room for */
    struct llm_pruned pruned;
    bool fresh;
    struct llm_arm *next;
};

/* llm_burst.c: what tokens that a device makes by itself need, [tokens] each. */
struct llm_burst {
    double *draws;
    struct pl_generated *made;
    int64_t *ns;
};
struct llm_burst_out {
    int64_t generated; /* with the first */
    int64_t last;      /* when the last of them was there */
    int64_t said;      /* of them before the model's own end */
    /* steps that were made behind the end of the text: no part of any figure */
    int64_t behind_ns; /* by the device's clock */
    struct pl_device_work behind;
};

struct llm_state {
    struct llm_model *models;
    struct llm_arm *arms;
    struct pl_text_cache *texts;
    struct pl_tokenizer *ids_tokenizer; /* of the `ids` requests, the last one's */
    char *ids_path;
    struct pl_ids ids;
    struct pl_ids next; /* ids and what the text goes on with */
    uint64_t seed;
    int64_t memory;     /* bytes of this machine, 0: not known */
    struct pl_buf text; /* the last answer */
    int64_t tokens;     /* to generate; 0: nothing was loaded */
    bool stop_at_eos, prefill_only;
    bool energy;         /* trials' energy is measured, too */
    bool profiling;      /* the trial in hand tells its kernels' times */
    double temperature;  /* 0: greedy */
    float *probs;        /* [2][vocab of the largest model], above temperature 0 */
    int32_t *out_tokens; /* [tokens] */
    int64_t *out_ns;     /* [tokens] */
    struct llm_burst burst;
    struct pl_trial_round *rounds; /* [tokens] */
    struct pl_trial_span spans[PL_SPEC_MAX_SPANS];
    struct llm_buffers buffers;
    struct pl_op_time kernels[LLM_KERNELS]; /* of the last trial that was asked for them */
    char kernel_names[LLM_KERNELS][80];
};

PL_MUST_CHECK
enum pl_status llm_burst_room(struct llm_burst *b, int64_t tokens, struct pl_err *err);
void llm_burst_free(struct llm_burst *b);
/* Whether a trial's tokens come that way. */
bool llm_bursts(const struct llm_state *s, const struct llm_model *m);
/* The tokens behind the first, which is no end, and when each was there. tokens > 1. */
PL_MUST_CHECK
enum pl_status llm_burst(struct llm_state *s, struct llm_model *m,
                         const struct pl_accept_rule *rule, int64_t tokens, int64_t start,
                         struct llm_burst_out *out, struct pl_fault *f);

/* --- llm_room.c: room for trials, and the bytes they took --- */
/* Positions and rows of a source that `context` ids and `tokens` generated ones need. */
void llm_need(const struct pl_arch *a, int64_t context, int64_t tokens, int64_t *positions,
              int64_t *source);
/* PL_ERANGE: the context, or what is generated after it, is beyond the model's positions. */
PL_MUST_CHECK
enum pl_status llm_check_context(const struct pl_arch *a, int64_t context, int64_t tokens,
                                 struct pl_err *err);
/* Of a session with room for that and for what is scored behind the prompt. */
void llm_session_opts(const struct llm_model *m, int64_t context, int64_t tokens,
                      struct pl_session_opts *out);
/* Whether the models that are loaded and an arm's sequences of that length fit this machine's
 * memory (a GPU's says so itself when it is asked). PL_ERANGE: bytes needed, bytes there. */
PL_MUST_CHECK
enum pl_status llm_foresee(const struct llm_state *s, const struct llm_arm *arm, int64_t context,
                           int64_t tokens, struct pl_err *err);
/* A session with room for them, made anew when the one at hand has less. */
PL_MUST_CHECK
enum pl_status llm_session(struct llm_model *m, int64_t context, int64_t tokens,
                           struct pl_err *err);
/* The peak that llm_measure_bytes tells begins anew: the process's, or the model's device's. */
void llm_reset_peak(const struct llm_model *m);
/* Bytes of a trial on these sessions. KV: what the sequences' tokens take at its end; what the
 * sessions hold besides is workspace (drafted: they are known already). Other: resident at the peak
 * and none of ours. */
void llm_measure_bytes(const struct llm_model *m, struct pl_session *const *sessions, size_t n,
                       bool drafted, struct pl_trial_result *out);
/* --- llm_ids.c: what a sample's ids are --- */
/* A tokenizer's or generator's ids of a sample into s->ids: exactly `context` of them. tokenize_ns:
 * −1 where nothing was tokenised. */
PL_MUST_CHECK
enum pl_status llm_sample_ids(struct llm_state *s, const struct pl_tokenizer *tokenizer,
                              const struct pl_err *no_tokenizer, int32_t vocab,
                              const json_t *sample, int64_t context, int64_t *tokenize_ns,
                              struct pl_fault *fault);
/* Answers an `ids` request (docs/RUNNER.md). */
enum pl_status llm_ids(void *state, const json_t *request, json_t *answer, struct pl_fault *fault);
/* --- llm_asked.c: texts with a question behind them (data.kind needle, longbench) --- */
bool llm_is_asked(const json_t *sample);
/* Exactly `context` ids into s->ids: what stands in a text is cut to fit, the question never. */
PL_MUST_CHECK
enum pl_status llm_asked_ids(struct llm_state *s, const struct pl_tokenizer *t,
                             const json_t *sample, int64_t context, int64_t *tokenize_ns,
                             struct pl_fault *f);
/* --- llm_draft.c: arms that draft --- */
struct llm_draft_info {
    int64_t max_rounds, weights_bytes, kv_bytes_per_token; /* of the drafter; 0: none */
    int32_t layers;
    bool synthetic;
    const char *reads; /* of a scene: "events", "video"; NULL: nothing */
};
/* From a `describe` request. Without a draft: all 0. */
PL_MUST_CHECK
enum pl_status llm_draft_describe(const json_t *q, const struct pl_arch *verifier, int64_t tokens,
                                  struct llm_draft_info *out, struct pl_err *err);
/* Reads the arm's draft, whose model is loaded. */
PL_MUST_CHECK
enum pl_status llm_draft_arm(struct llm_state *s, struct llm_arm *a, const json_t *arm,
                             struct pl_err *err);
/* Room for a trial of that size. */
PL_MUST_CHECK
enum pl_status llm_draft_ready(const struct llm_state *s, struct llm_arm *a, int64_t context,
                               int64_t tokens, struct pl_err *err);
/* Adds to `said` what carries the arm's states, where they travel. */
PL_MUST_CHECK
enum pl_status llm_draft_say(const struct llm_arm *a, json_t *said, struct pl_err *err);
/* A question about a scene, before llm_draft_ready: how long the drafter's prompt is. */
PL_MUST_CHECK
enum pl_status llm_draft_scene(struct llm_arm *a, const json_t *sample, struct pl_err *err);
/* s->ids is the prompt, or of a scene what the model's eyes saw. The model's `first` and `step`
 * hold the first and last logits then. */
PL_MUST_CHECK
enum pl_status llm_draft_trial(struct llm_state *s, struct llm_arm *a, int64_t tokens,
                               const json_t *sample, int64_t start_ns, struct pl_trial_result *out,
                               struct pl_fault *f);
/* --- llm_quality.c --- */
/* Adds the scores of a finished trial; takes its session's generated tokens back. s->ids is the
 * prompt. */
void llm_quality(struct llm_state *s, struct llm_model *m, const struct pl_trial_request *q,
                 struct pl_trial_result *out);
/* --- llm_trial.c --- */
/* What the model's device has done so far. */
struct pl_device_work llm_work_done(const struct llm_model *m);
bool llm_is_eos(const struct llm_model *m, int32_t id);
bool llm_all_finite(const float *v, size_t n);
/* The fault of logits that are no numbers, of a sequence's token. */
enum pl_status llm_numeric(struct pl_fault *f, int64_t token);
enum pl_status llm_trial(void *state, const struct pl_trial_request *request,
                         struct pl_trial_result *out, struct pl_fault *fault);

#endif
