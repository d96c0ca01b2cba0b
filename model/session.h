/*
 * One sequence on a model: its KV cache and the buffers of its steps, all allocated at creation
 * (decode and verify allocate nothing). Life: create → prefill → (decode | verify | rollback)* →
 * reset → prefill … → free. An encoder only encodes, as often as one likes; an encoder–decoder
 * encodes its source before the first prefill after create or reset. Thread rule: the model's
 * (model.h).
 *
 * Logits are f32 on the host. On failure nothing has been appended (PL_ERANGE is found before any
 * work). CPU: verify(k) gives the very bits of k decodes, any cut of the prompt and any number of
 * threads the very bits of one.
 */
#ifndef PL_MODEL_SESSION_H
#define PL_MODEL_SESSION_H

#include "base/status.h"
#include "model/model.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a stage hook needs to see; the engine prepares nothing else. */
enum pl_stage_need {
    PL_STAGE_HIDDEN = 1, /* the rows' hidden states */
    PL_STAGE_LAST = 2,   /* the last row's hidden state */
    PL_STAGE_ATTN =
        4, /* the block's attention probabilities, summed over the queries of the window */
};

struct pl_stage {
    int32_t layer;        /* 0-based: the block that was just run */
    size_t n;             /* rows that are left (the current length) */
    const int32_t *index; /* [n] each row's place in the prompt, ascending */
    const struct pl_backend *backend;
    struct pl_device *device;
    const struct pl_tensor *hidden; /* [n, hidden]; NULL unless asked for */
    const float *last;              /* [hidden] on the host; NULL unless asked for */
    const float *attn; /* [heads][n] on the host: Σ over the window's queries of p(query, column);
                          NULL unless asked for */
};

/*
 * Called in prefill after each of `layers`, once all rows passed that block. Writes the rows to
 * keep into kept (ascending, distinct, 1 ≤ *n_kept ≤ stage->n; room for n) or leaves *n_kept == n
 * with kept untouched to keep all. The rows dropped do not enter later blocks: KV lengths then fall
 * from layer to layer (the staircase). A failing hook fails the prefill. The last block's hook is
 * allowed and compacts only the final hidden states; the last prompt row must be kept (its logits
 * are wanted): PL_ERANGE otherwise.
 */
struct pl_stage_hook {
    const char *name;
    const int32_t *layers; /* ascending, distinct, < layers. Copied. */
    size_t n_layers;
    unsigned needs;     /* pl_stage_need bits */
    size_t attn_window; /* the last so many rows' attention is summed; 0: all rows */
    enum pl_status (*run)(void *user, const struct pl_stage *stage, int32_t *kept, size_t *n_kept,
                          struct pl_err *err);
    void *user;
};

enum pl_positions {
    PL_POSITIONS_ORIGINAL,   /* a survivor keeps its place; new token t has position prompt + t */
    PL_POSITIONS_RENUMBERED, /* 0 … k−1 after every stage; new token t has kv_len[layer] + t */
};

#define PL_TAP_FINAL (-1) /* after the last block and the final norm */

struct pl_session_opts {
    size_t max_tokens; /* most positions: prompt + generated + a verify in flight (encoders: rows
                          of the source); 0: the model's usual_positions */
    size_t max_source; /* encoder–decoders: most rows of the source; 0: usual_positions */
    size_t max_verify; /* longest verify; 0: 32 */
    enum pl_dtype kv_dtype; /* f32, f16, bf16; PL_DT_AUTO: f32 */
    enum pl_positions positions;
    const struct pl_stage_hook *hooks; /* copied; two hooks may not name one layer */
    size_t n_hooks;
    /* Hidden states to keep of every call's rows: PL_TAP_FINAL, or L ≥ 1: after block L (1-based).
     * Costs max_tokens · hidden floats each. Copied. */
    const int *taps;
    size_t n_taps;
};

struct pl_prompt {
    const int32_t *ids;  /* [n], or NULL with embeds */
    const float *embeds; /* [n, hidden] on the host: spliced inputs (vision); wins over ids */
    size_t n;
    bool all_logits; /* logits [rows, vocab] instead of the last row's [vocab]; not with hooks */
};

struct pl_session_memory {
    int64_t kv_bytes;        /* allocated for K and V */
    int64_t kv_bytes_used;   /* Σ over layers of kv_len · 2 · kv_heads · head_dim · bytes */
    int64_t workspace_bytes; /* everything else, the workspace that the model's sessions share
                                included */
};

struct pl_session;
struct pl_picked; /* backend.h */
struct pl_draw;

/* PL_ERANGE: more tokens than the model has positions, a tap or hook layer outside the model;
 * PL_EUNSUPPORTED: kv dtype; PL_ENOMEM. */
PL_MUST_CHECK
enum pl_status pl_session_create(struct pl_model *m, const struct pl_session_opts *o,
                                 struct pl_session **out, struct pl_err *err);
void pl_session_free(struct pl_session *s); /* accepts NULL */
/* What create would allocate on the backend that the model is described for, from the description
 * alone. */
void pl_session_bytes(const struct pl_model_info *m, const struct pl_session_opts *o,
                      struct pl_session_memory *out);
/* The same for n sessions of one model. */
void pl_sessions_bytes(const struct pl_model_info *m, const struct pl_session_opts *o, size_t n,
                       struct pl_session_memory *out);
/* As new: lengths 0. */
void pl_session_reset(struct pl_session *s);

/* Runs the encoder over the whole source. hidden: NULL, or [n, hidden] on the host: its last states
 * (after the final norm where there is one; an image tower's are as its last block left them). Taps
 * are an encoder's; those of an encoder–decoder are its decoder's. PL_EUSAGE: the model has no
 * encoder, or has read past a prefill already; PL_ERANGE: an id, type or row out of bounds. */
PL_MUST_CHECK
enum pl_status pl_session_encode(struct pl_session *s, const struct pl_source *source,
                                 float *hidden, struct pl_err *err);
/* What the pooler makes of the last source, [hidden]: tanh(W · row 0 + b). PL_EUNSUPPORTED: the
 * model has none. */
PL_MUST_CHECK
enum pl_status pl_session_pooled(struct pl_session *s, float *out, struct pl_err *err);

/* Appends the prompt (behind an encoder: the decoder's first ids). logits may be NULL. May be
 * called again to append more, unless there are hooks (then once after create or reset). PL_ERANGE:
 * an empty prompt, an id outside the vocabulary, more than max_tokens. A prefill that failed within
 * (a hook) resets the session. */
PL_MUST_CHECK
enum pl_status pl_session_prefill(struct pl_session *s, const struct pl_prompt *p, float *logits,
                                  struct pl_err *err);
/* One token in, the next one's logits [vocab] out. PL_EUSAGE before prefill. */
PL_MUST_CHECK
enum pl_status pl_session_decode(struct pl_session *s, int32_t id, float *logits,
                                 struct pl_err *err);
/* As decode, and the choice among what is not one of `ends` (≤ PL_MAX_EOS): the greedy one, or a
 * draw. It is made where the logits are: a device then copies none to the host, and *copied is
 * false. A backend that does not pick leaves drawing to the caller: out->id is −1, *copied true. */
PL_MUST_CHECK
enum pl_status pl_session_decode_pick(struct pl_session *s, int32_t id, const int32_t *ends,
                                      size_t n_ends, const struct pl_draw *draw, float *logits,
                                      bool *copied, struct pl_picked *out, struct pl_err *err);
/* Whether tokens can be made by the device itself, with no stop of the host's between them. */
bool pl_session_generates(const struct pl_session *s);
/* g->n decode steps (backend.h) of n different sessions of one model together; out [g->n][n]: what
 * decode_pick gives one by one. −1: the logits were no numbers, and the session must be reset. Taps
 * hold the rows of all steps. PL_EUNSUPPORTED: the device does not. */
PL_MUST_CHECK
enum pl_status pl_sessions_generate(struct pl_session *const *s, size_t n,
                                    const struct pl_generation *g, struct pl_generated *out,
                                    struct pl_err *err);
/* Of one session. */
PL_MUST_CHECK
enum pl_status pl_session_generate(struct pl_session *s, const struct pl_generation *g,
                                   struct pl_generated *out, struct pl_err *err);
/* As generate of one id, but the first of `stops` is the last token: *used of out's *made ones
 * count, those behind it are forgotten by the session. They are made so many at a time: a wait for
 * each is some 20 µs in which nothing runs, while of 8 at most 7 steps are for nothing. Without
 * stops: in one go. */
#define PL_GENERATE_AHEAD 8
PL_MUST_CHECK
enum pl_status pl_session_generate_until(struct pl_session *s, const struct pl_generation *g,
                                         const int32_t *stops, size_t n_stops,
                                         struct pl_generated *out, size_t *made, size_t *used,
                                         struct pl_err *err);
/* When each of out [n · stride], n steps of `stride` sequences, was there by a clock that said
 * `last` when they all were: the device's clock counted back from it, never below `least`. */
void pl_generated_times(const struct pl_generated *out, size_t stride, size_t n, int64_t last,
                        int64_t least, int64_t *times);
/* k tokens in, logits [k, vocab]: row i is what decode(ids[i]) after the ones before it would give.
 * 1 ≤ k ≤ max_verify. */
PL_MUST_CHECK
enum pl_status pl_session_verify(struct pl_session *s, const int32_t *ids, size_t k, float *logits,
                                 struct pl_err *err);
/* Whether choices are made where the logits are, which are then not copied. */
bool pl_session_picks(const struct pl_session *s);
/* As verify, and tree, of a session that does: of each row the greedy choice among what is not one
 * of `ends` (≤ PL_MAX_EOS). */
PL_MUST_CHECK
enum pl_status pl_session_verify_pick(struct pl_session *s, const int32_t *ids, size_t k,
                                      const int32_t *ends, size_t n_ends, struct pl_picked *out,
                                      struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_session_tree_pick(struct pl_session *s, const struct pl_prompt *rows,
                                    const int32_t *parents, const int32_t *ends, size_t n_ends,
                                    struct pl_picked *out, struct pl_err *err);
/* Forgets the last n tokens (decoded or verified since the last prefill; more is PL_ERANGE, and so
 * is, for a model with a sliding window, more than the last 256 or the longest verify). Later bits
 * are as if they had never been. */
PL_MUST_CHECK
enum pl_status pl_session_rollback(struct pl_session *s, size_t n, struct pl_err *err);
/* A tree of tokens behind the text, in one pass: its rows are ids or embeds of `rows` (n ≥ 1), and
 * hang on rows parents[i] of the tree (−1: the text's last row), which come before them. logits
 * [n, vocab], or NULL: row i is what decode would give at the end of the path to it, on the CPU bit
 * for bit. May be called again to append to the tree, at most max_verify rows in all and room for
 * all of them; then pl_session_keep_path, before anything else is run. PL_EUSAGE: hooks' sessions
 * before a prefill. Taps hold the rows of the last call. */
PL_MUST_CHECK
enum pl_status pl_session_tree(struct pl_session *s, const struct pl_prompt *rows,
                               const int32_t *parents, float *logits, struct pl_err *err);
/* Of the tree at hand keeps the path [n] (from the text on, n 0: nothing); its other rows are
 * forgotten, as if they had never been. */
PL_MUST_CHECK
enum pl_status pl_session_keep_path(struct pl_session *s, const int32_t *path, size_t n,
                                    struct pl_err *err);
/* One decode step of n different sessions of one model together; logits [n, vocab]. The same bits
 * as one after the other. n ≤ the first session's max_verify. */
PL_MUST_CHECK
enum pl_status pl_sessions_decode(struct pl_session *const *s, const int32_t *ids, size_t n,
                                  float *logits, struct pl_err *err);

/* Rows that one session appends in a step of several. */
struct pl_part {
    struct pl_session *session;
    const int32_t *ids; /* [n] */
    size_t n;
    bool prompt; /* rows of a prompt, or a piece of one: nothing before them is rolled back */
};
/* One forward of n different sessions of one model together: pieces of prompts (of sessions without
 * hooks) beside decode steps. At most PL_STEP_ROWS rows in all. logits [n − silent, vocab]: after
 * each part's last row; the last `silent` parts give none. The same bits as part by part. */
#define PL_STEP_ROWS 256
PL_MUST_CHECK
enum pl_status pl_sessions_step(const struct pl_part *parts, size_t n, size_t silent, float *logits,
                                struct pl_err *err);
/* Encodes one source of ids (no images) in each of n different sessions of one model; hidden NULL,
 * or [n] as pl_session_encode has it. Short sources share passes; the bits are those of one by one.
 */
PL_MUST_CHECK
enum pl_status pl_sessions_encode(struct pl_session *const *s, const struct pl_source *sources,
                                  size_t n, float *const *hidden, struct pl_err *err);
/* Of n sessions of one model, what they share counted once. */
void pl_sessions_memory(struct pl_session *const *s, size_t n, struct pl_session_memory *out);

/* Positions so far: prompt + tokens since. */
size_t pl_session_len(const struct pl_session *s);
size_t pl_session_capacity(const struct pl_session *s);
/* KV rows of a layer that its last row sees: the staircase after pruning; no more than a sliding
 * window (which with hooks counts rows that are left, not places in the prompt). */
size_t pl_session_kv_len(const struct pl_session *s, int32_t layer);
/* After prefill: keeps, in one layer, n KV rows of each KV head: idx [kv_heads][n], ascending
 * within a head (KV reducers). */
PL_MUST_CHECK
enum pl_status pl_session_kv_keep(struct pl_session *s, int32_t layer, const int32_t *idx, size_t n,
                                  struct pl_err *err);
/* KV bytes that the last prefill, decode, generate (all its steps) or verify read (a counter, not a
 * formula). */
int64_t pl_session_kv_read(const struct pl_session *s);
/* Time that the last prefill spent in hooks: showing them their stage, choosing, dropping rows. */
int64_t pl_session_hooks_ns(const struct pl_session *s);

/* The hidden states that tap number `tap` kept of the last call: its rows (after pruning: the
 * survivors that reached that block). */
size_t pl_session_hidden_rows(const struct pl_session *s, size_t tap);
const struct pl_tensor *pl_session_hidden(const struct pl_session *s,
                                          size_t tap); /* [≥ rows, hidden] */
PL_MUST_CHECK
enum pl_status pl_session_hidden_copy(const struct pl_session *s, size_t tap, size_t first,
                                      size_t n, float *out, struct pl_err *err);

void pl_session_memory(const struct pl_session *s, struct pl_session_memory *out);
struct pl_model *pl_session_model(const struct pl_session *s);

/* Index of the largest; ties: the lowest; −1 when any is NaN (or n is 0). */
int32_t pl_logits_argmax(const float *logits, size_t n);
/* Greedy choice with n_masked ≤ PL_MAX_EOS ids out of the question (logits are as before
 * afterwards). −1: NaN or infinite. */
int32_t pl_pick(float *logits, size_t n, const int32_t *masked, size_t n_masked);

#endif
