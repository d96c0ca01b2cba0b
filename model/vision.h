/*
 * Eyes of a language model: EventGPT's and Video-LLaVA's towers, projectors and prompts. A model
 * that has them is loaded by pl_model_load like any other; pl_arch describes its language model and
 * pl_vision_config what stands before it. The way of one input, each step callable alone:
 *
 * - pl_vision_load: file → frames (events.h, video.h) → pixels [frames, 3, h, w] (image.h)
 * - pl_vision_encode: pixels → rows [n, hidden] (tower, projector, adaptor, pooling)
 * - pl_vision_prompt_ids: question → text with a vision token → ids with a vision token
 * - pl_vision_splice: ids + rows → embeddings [m, hidden] for pl_session_prefill
 */
#ifndef PL_MODEL_VISION_H
#define PL_MODEL_VISION_H

#include "base/buf.h"
#include "base/json.h"
#include "base/status.h"
#include "model/arch.h"
#include "model/image.h"
#include "model/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pl_vision_kind { PL_VISION_NONE, PL_VISION_EVENTGPT, PL_VISION_VIDEO_LLAVA };

#define PL_EVENT_TOKEN (-200) /* EventGPT's id of `<event>`; in no vocabulary */

/* Read from config.json, the tower's own config.json (EventGPT: what mm_visual_tower or
 * visual_tower names, in DIR or relative to it, or vision_config inside) and
 * preprocessor_config.json where there is one. */
struct pl_vision_config {
    enum pl_vision_kind kind; /* NONE: a model that reads text alone; nothing else holds then */
    struct pl_arch tower;     /* CLIP's; layers: the blocks that run (feature_layer counted off) */
    int32_t tower_layers;     /* blocks that the checkpoint has */
    int32_t feature_layer; /* index into hidden_states: −1 the last block's, −2 the one before */
    bool images_drop_cls;  /* Video-LLaVA: a still image's first row is dropped, a clip's never */
    int32_t hidden;        /* of the language model: a row's width */
    enum pl_act_kind act;  /* between the projector's two linears */
    bool projector_bias, adaptor;
    int32_t frames;        /* of one input: 5, 8 */
    int32_t vision_token;  /* id of <event> or <video> */
    int32_t image_token;   /* id of <image>; −1: none */
    int32_t max_rows;      /* embeddings beyond it are cut off, as upstream does; 0: none */
    int32_t max_window_ms; /* windows as long as this are refused; 0: none */
    bool start_end, patch; /* EventGPT: <ev_start>, <ev_end> and <ev_patch> are tokens */
    struct pl_preprocess preprocess;
};

/* dir: a model directory, or its config.json. kind NONE for models without eyes (GGUF, too).
 * PL_EFORMAT, PL_EUNSUPPORTED, PL_ENOENT name the key or file. */
PL_MUST_CHECK
enum pl_status pl_vision_config_read(const char *dir, struct pl_vision_config *out,
                                     struct pl_err *err);
const char *pl_vision_kind_name(enum pl_vision_kind k); /* "eventgpt", "video-llava", "none" */
/* Rows that `frames` pictures become: EventGPT frames + tokens of one; Video-LLaVA frames × tokens,
 * a still image's without the class row. */
int64_t pl_vision_rows(const struct pl_vision_config *c, size_t frames, bool still);
/* Weights of towers and projector. */
int64_t pl_vision_params(const struct pl_vision_config *c);

/* ---- file → pixels ---- */

enum pl_media_kind {
    PL_MEDIA_EVENTS, /* an event file: EventGPT only */
    PL_MEDIA_VIDEO,  /* a clip, or a folder of PNGs; EventGPT: rendered event frames */
    PL_MEDIA_IMAGE,  /* one PNG: a still image */
    PL_MEDIA_PIXELS  /* .npy, float32 [frames, 3, h, w], as the tower takes them */
};

struct pl_media {
    enum pl_media_kind kind;
    const char *path;
    int64_t max_window_ms; /* −1: the config's; 0: none */
};

struct pl_pixels {
    float *v;                       /* [frames, 3, size, size]; NULL: they are on a device */
    const struct pl_tensor *device; /* [≥ frames, 3 · size · size], borrowed from a pl_pixel_room */
    size_t frames;
    int32_t size;
    bool still; /* one picture, not a clip */
};
void pl_pixels_release(struct pl_pixels *p);

struct pl_backend;
struct pl_device;
struct pl_tensor;

/* A device that makes the pixels instead of the host, bit for bit the same; its backend has
 * `pixels`. */
struct pl_pixel_room {
    const struct pl_backend *backend;
    struct pl_device *device;
    struct pl_tensor *t; /* of the last frames, as many as there were at most; NULL at first */
};
void pl_pixel_room_release(struct pl_pixel_room *r); /* before its device is closed */

struct pl_media_times { /* ns; each is > 0 where its work was done */
    int64_t decode;     /* file → events or RGB frames */
    int64_t raster;     /* events → RGB frames; on a device: where they are cut */
    int64_t preprocess; /* RGB frames → pixels; on a device: all the rest, waited for */
};

/* room: makes the pixels, which stay there until the next load (those of PL_MEDIA_PIXELS are the
 * host's); NULL: the host does. times and warning (one line, "" when there is nothing: t not
 * sorted, a clip shorter than `frames`) may be NULL. PL_EUSAGE: the model does not read this kind.
 */
PL_MUST_CHECK
enum pl_status pl_vision_load(const struct pl_vision_config *c, const struct pl_media *m,
                              struct pl_pixel_room *room, struct pl_pixels *out,
                              struct pl_media_times *times, struct pl_err *warning,
                              struct pl_err *err);

/* ---- pixels → rows ---- */

struct pl_vision; /* a loaded model's; model.h hands it out. Thread rule: the model's. */

const struct pl_vision_config *pl_vision_config(const struct pl_vision *v);
/* The model's own device for pl_vision_load, where it was loaded with device_pixels; else NULL. */
struct pl_pixel_room *pl_vision_room(struct pl_vision *v);
/* rows[pl_vision_rows, hidden] on the host. Its time is the `vision` phase beside pl_media_times.
 * Memory for `frames` pictures is allocated at the first call (or by pl_vision_reserve). PL_EUSAGE:
 * pixels of another size; PL_EUNSUPPORTED: a still image where the checkpoint has no image tower.
 */
PL_MUST_CHECK
enum pl_status pl_vision_encode(struct pl_vision *v, const struct pl_pixels *p, float *rows,
                                struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_vision_reserve(struct pl_vision *v, size_t frames, struct pl_err *err);

/* Fewer rows of a picture, made of the tower's rows before the projector. A picture's `tokens` rows
 * begin with the class row. Video-LLaVA: chosen and merged frame by frame. EventGPT, whose rows are
 * means over the frames: chosen once, by the means of attn and keys over the frames, then merged in
 * each; its frame rows (means over all of a frame's rows) stay. */
struct pl_vision_merge {
    /* attn[tokens]: what the class row attends to in the last block that runs, mean over heads;
     * keys[tokens, hidden]: that block's. *n: rows that `apply` makes, 1 … tokens. */
    enum pl_status (*choose)(void *user, size_t tokens, size_t hidden, const float *attn,
                             const float *keys, size_t *n, struct pl_err *err);
    void (*apply)(void *user, const float *rows, float *out); /* → [n, hidden], class row first */
    void *user;
};
/* As pl_vision_encode; *n_rows (at most pl_vision_rows) of them come. PL_EUNSUPPORTED: a tower of
 * one block. */
PL_MUST_CHECK
enum pl_status pl_vision_encode_merged(struct pl_vision *v, const struct pl_pixels *p,
                                       const struct pl_vision_merge *merge, float *rows,
                                       size_t *n_rows, struct pl_err *err);
int64_t pl_vision_workspace_bytes(const struct pl_vision *v);

/* ---- text → ids → embeddings ---- */

/* The prompt of a question: the model's template around it. A text that holds the vision token
 * itself (<event>, <video>, <image>) is taken as the whole prompt. */
PL_MUST_CHECK
enum pl_status pl_vision_prompt(const struct pl_vision_config *c, const char *question, bool still,
                                struct pl_buf *out, struct pl_err *err);
/* Appends the ids of that prompt, with one id a vision token. */
PL_MUST_CHECK
enum pl_status pl_vision_prompt_ids(const struct pl_vision_config *c, const struct pl_tokenizer *t,
                                    const char *question, bool still, struct pl_ids *out,
                                    struct pl_err *err);
/* Rows that n ids and n_rows rows of vision come to (at most max_rows). PL_ERANGE: no vision token,
 * or neither one nor n_rows of them. */
PL_MUST_CHECK
enum pl_status pl_vision_spliced(const struct pl_vision_config *c, const int32_t *ids, size_t n,
                                 size_t n_rows, bool still, size_t *out, struct pl_err *err);
/* visual[n_spliced]: 1 for the rows of those that are the picture's. */
void pl_vision_mark(const struct pl_vision_config *c, const int32_t *ids, size_t n, size_t n_rows,
                    bool still, uint8_t *visual, size_t n_spliced);
struct pl_model;
/* embeds[pl_vision_spliced, hidden]: the ids' embeddings, rows in the place of the vision token
 * (one for all rows, or n_rows of them as Hugging Face's processor writes them). PL_ERANGE: as
 * above, or an id outside the vocabulary. */
PL_MUST_CHECK
enum pl_status pl_vision_splice(const struct pl_model *m, const int32_t *ids, size_t n,
                                const float *rows, size_t n_rows, bool still, float *embeds,
                                struct pl_err *err);

#endif
