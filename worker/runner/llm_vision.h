/* A question about a scene: what a model with eyes makes of its file and of the question, and the
 * answer as text. */
#ifndef PL_WORKER_RUNNER_LLM_VISION_H
#define PL_WORKER_RUNNER_LLM_VISION_H

#include "base/json.h"
#include "base/status.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "model/vision.h"
#include "worker/runner/entry.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_EYES_SEEN 16            /* scenes kept with data.cache_vision */
#define PL_EYES_BYTES (256u << 20) /* and bytes of their rows */

/* What vision made of a scene, kept for its other questions. */
struct llm_seen {
    char *file;  /* NULL: free */
    char *merge; /* its key, or "" */
    float *rows;
    size_t n, whole; /* rows; before they were merged */
    uint64_t used;   /* when, by look-ups */
};

/* Of one loaded model; zeroed at first. */
struct llm_eyes {
    float *embeds;   /* [n, hidden] the prompt in hand; n 0: it is ids */
    size_t n, cap;   /* cap: floats */
    size_t whole;    /* n before rows of the picture were merged (within a look: those rows) */
    uint8_t *visual; /* [n] 1: a row of the picture */
    size_t visual_cap;
    float *rows; /* [n_rows, hidden] of the scene in hand, borrowed from `own` or `seen` */
    size_t n_rows;
    float *own;
    size_t own_cap; /* floats */
    struct llm_seen seen[PL_EYES_SEEN];
    size_t seen_bytes;
    uint64_t clock;
};
void llm_eyes_release(struct llm_eyes *e);

/* Whether a sample is a question about a scene. */
bool llm_asks(const json_t *sample);

/* Times of one look, ns. */
struct llm_look {
    int64_t tokenize, vision; /* > 0 */
    int64_t preprocess, tower; /* of vision: file → pixels, pixels → rows; −1: they were kept */
    bool kept;                 /* found among the scenes seen before */
};

/* What makes a picture's rows fewer, and the text that tells it from others. */
struct llm_merge {
    const struct pl_vision_merge *merge;
    const char *key;
};
/* Makes the prompt of a sample: ids with their vision token into `ids`, and e->embeds. PL_ENOENT:
 * the sample has no file of the kind that this model reads; PL_EFORMAT, PL_ERANGE, PL_EUNSUPPORTED:
 * it is broken or refused; PL_EUSAGE: the model reads text alone. merge may be NULL. */
PL_MUST_CHECK
enum pl_status llm_look(struct llm_eyes *e, const struct pl_model *m, const struct pl_tokenizer *t,
                        const json_t *sample, const struct llm_merge *merge, struct pl_ids *ids,
                        struct llm_look *times, struct pl_err *err);
/* The file of a sample that a model of this configuration reads; NULL and a text: there is none. */
const char *llm_scene_file(const struct pl_vision_config *c, const json_t *sample,
                           struct pl_err *err);
/* "events", "video"; NULL: the model reads text alone. */
const char *llm_reads(const struct pl_vision_config *c);
/* Length of a sample's prompt, without its file. */
PL_MUST_CHECK
enum pl_status llm_prompt_length(const struct pl_vision_config *c, const struct pl_tokenizer *t,
                                 const json_t *sample, int64_t *out, struct pl_err *err);
/* Of a `describe` request: what the arm reads of a scene, and the prompt of the sample with the
 * longest question, which is returned; 0: no scenes, or a mistake. */
int64_t llm_describe_scene(const json_t *request, const struct pl_entry *e,
                           const struct pl_model_info *info, int64_t tokens, json_t *answer,
                           json_t *errors);
/* Generated ids as a text without blanks at its ends; out is cleared first. */
PL_MUST_CHECK
enum pl_status llm_answer(const struct pl_tokenizer *t, const int32_t *ids, size_t n,
                          struct pl_buf *out, struct pl_err *err);

#endif
