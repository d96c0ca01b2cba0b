/* What session.c (life, steps) and stage.c (the prompt's way through blocks and hooks) share. */
#ifndef PL_MODEL_SESSION_IMPL_H
#define PL_MODEL_SESSION_IMPL_H

#include "model/session.h"

#define MAX_FORWARD 256 /* sequences or rows of one step; no backend takes fewer */

struct stage_hook {
    struct pl_stage_hook hook;
    int32_t *layers; /* owned */
};

struct pl_session {
    struct pl_model *model;
    const struct pl_backend *backend;
    struct pl_network *network;
    struct pl_cache *cache;
    int32_t layers;
    size_t vocab, hidden;
    size_t max_tokens, max_verify;
    enum pl_positions positions;
    enum pl_dtype kv_dtype;
    size_t len, since; /* positions so far; of them after the last prefill */
    size_t tree;       /* rows of the tree at hand; 0: none */
    int32_t parents[PL_TREE_MAX], depth[PL_TREE_MAX];
    size_t source_len; /* rows that the encoder read; 0: none yet */
    int64_t kv_read, hooks_ns;

    struct stage_hook *hooks;
    size_t n_hooks;
    const struct pl_stage_hook **by_layer; /* [layers]: the hook after a block, or NULL */
    int32_t *index, *pos, *kept;           /* [max_tokens] each, with hooks */
    float *last;                           /* [hidden] */
    float *attn;     /* [heads · max_tokens]: [heads][n] of the stage at hand */
    float *sums_row; /* one head's columns on the way there */

    int *taps;
    size_t n_taps;
    size_t *tap_rows;
    size_t own_bytes;
};

/* One forward of this session alone; f's spans are filled in. */
PL_MUST_CHECK
enum pl_status pl_session_forward(struct pl_session *s, struct pl_forward *f, size_t rows,
                                  struct pl_err *err);
/* Notes that `rows` rows passed blocks [first, end): the taps there hold so many. */
void pl_session_note_taps(struct pl_session *s, int32_t first, int32_t end, size_t rows);
/* After the encoder read `rows` rows: lengths and taps, and (hidden not NULL) its last states. */
PL_MUST_CHECK
enum pl_status pl_session_note_source(struct pl_session *s, size_t rows, float *hidden,
                                      struct pl_err *err);
/* Whether the session can take ids of a decoder; n more rows; this source. */
PL_MUST_CHECK
enum pl_status pl_session_check_decoder(const struct pl_session *s, struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_session_check_room(const struct pl_session *s, size_t n, struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_session_check_source(const struct pl_session *s, const struct pl_source *in,
                                       struct pl_err *err);
/* Whether they are different ones of one model. */
PL_MUST_CHECK
enum pl_status pl_sessions_check_same(struct pl_session *const *s, size_t n, struct pl_err *err);
/* The whole prompt, with or without hooks; p and the room for it were checked. */
PL_MUST_CHECK
enum pl_status pl_session_run_prompt(struct pl_session *s, const struct pl_prompt *p, float *logits,
                                     struct pl_err *err);

#endif
