/* Options that commands on a model share: which weights, where, and the input. */
#ifndef PL_CLI_RUNNER_MODEL_ARGS_H
#define PL_CLI_RUNNER_MODEL_ARGS_H

#include "base/json.h"
#include "base/status.h"
#include "cli/runner/opts.h"
#include "model/model.h"
#include "model/session.h"
#include "model/tokenizer.h"
#include "worker/runner/entry.h"

#include <stdint.h>

struct pl_model_args {
    const char *device, *dtype, *weights, *kv, *activations, *preprocess;
    int64_t threads;
    bool deterministic;
    const char *ids, *ids_file, *prompt;
    const char *decoder_ids_file, *type_ids_file, *mask_file, *pixels;
    const char *events, *video, *image;
    int64_t max_window_ms;               /* −1: the model's */
    const struct pl_vision_merge *merge; /* makes a picture's rows fewer; NULL: nothing does */
};

/* What the input options come to. Zero-initialise, release with pl_model_input_release. */
struct pl_model_input {
    struct pl_ids ids, decoder_ids, types;
    uint8_t *mask; /* [ids.n] or NULL */
    float *pixels; /* [frames][channels, image, image] or NULL */
    size_t frames;
    float *embeds;   /* [rows, hidden]: what ids and pictures come to; NULL: ids alone */
    size_t rows;     /* of embeds */
    uint8_t *visual; /* [rows] 1: a row of the picture; NULL without embeds */
    int64_t tokenize_ns, vision_ns, tower_ns; /* vision: files and tower; 0: not done */
    struct pl_media_times media;
};
void pl_model_input_release(struct pl_model_input *in);

#define PL_MODEL_OPTS(a)                                                                           \
    {"device", 0, PL_ROPT_STR, &(a)->device, "cpu|cuda[:N]", "where it runs", 0, 0},               \
        {"threads", 't', PL_ROPT_INT, &(a)->threads, "N", "threads (default: the CPUs given)",     \
         1,         4096},                                                                         \
        {"dtype", 0, PL_ROPT_STR, &(a)->dtype, "f32|bf16|f16", "weights in memory (as stored)",    \
         0,       0},                                                                              \
        {"deterministic",                                                                          \
         0,                                                                                        \
         PL_ROPT_FLAG,                                                                             \
         &(a)->deterministic,                                                                      \
         NULL,                                                                                     \
         "cuda: a verification gives the bits of its decodes",                                     \
         0,                                                                                        \
         0},                                                                                       \
        {"kv", 0, PL_ROPT_STR, &(a)->kv, "f32|bf16|f16", "KV cache (the dtype's)", 0, 0},          \
        {"activations",                                                                            \
         0,                                                                                        \
         PL_ROPT_STR,                                                                              \
         &(a)->activations,                                                                        \
         "int8|f32",                                                                               \
         "what products read (int8; bf16 beside bf16 weights with AVX-512 BF16)",                  \
         0,                                                                                        \
         0},                                                                                       \
    {                                                                                              \
        "weights", 0, PL_ROPT_STR, &(a)->weights, "random:SEED",                                   \
            "random weights; only config.json is read", 0, 0                                       \
    }
#define PL_MEDIA_OPTS(a)                                                                           \
    {"events", 0, PL_ROPT_STR, &(a)->events, "F.npy", "EventGPT: an event stream", 0, 0},          \
        {"video", 0, PL_ROPT_STR, &(a)->video, "F", "a clip, or a folder of PNGs", 0, 0},          \
        {"image", 0, PL_ROPT_STR, &(a)->image, "F.png", "a still image", 0, 0},                    \
        {"preprocess",                                                                             \
         0,                                                                                        \
         PL_ROPT_STR,                                                                              \
         &(a)->preprocess,                                                                         \
         "host|device",                                                                            \
         "who makes pixels of frames (host)",                                                      \
         0,                                                                                        \
         0},                                                                                       \
    {                                                                                              \
        "max-window-ms", 0, PL_ROPT_INT, &(a)->max_window_ms, "N",                                 \
            "event windows as long as this are refused (100; 0: none)", 0, INT64_MAX / 2000        \
    }
#define PL_INPUT_OPTS(a)                                                                           \
    {"ids", 0, PL_ROPT_STR, &(a)->ids, "\"1 2 3\"", "input: token ids", 0, 0},                     \
        {"ids-file", 0, PL_ROPT_STR, &(a)->ids_file, "F.npy", "input: int32 or int64 ids", 0, 0},  \
        {"prompt", 0, PL_ROPT_STR, &(a)->prompt, "TEXT", "input: a text", 0, 0},                   \
        {"decoder-ids-file",                                                                       \
         0,                                                                                        \
         PL_ROPT_STR,                                                                              \
         &(a)->decoder_ids_file,                                                                   \
         "F.npy",                                                                                  \
         "behind an encoder: the decoder's first ids (its start token)",                           \
         0,                                                                                        \
         0},                                                                                       \
        {"type-ids-file",                                                                          \
         0,                                                                                        \
         PL_ROPT_STR,                                                                              \
         &(a)->type_ids_file,                                                                      \
         "F.npy",                                                                                  \
         "encoders: token types",                                                                  \
         0,                                                                                        \
         0},                                                                                       \
        {"mask-file", 0, PL_ROPT_STR, &(a)->mask_file, "F.npy", "encoders: 0 for padding", 0, 0},  \
        {"pixels",    0,                                                                           \
         PL_ROPT_STR, &(a)->pixels,                                                                \
         "F.npy",     "what an image tower is given: float32 [frames, 3, h, w]",                   \
         0,           0},                                                                          \
        PL_MEDIA_OPTS(a)

/* The model entry that the options come to, and its JSON (new reference, which entry borrows from).
 * PL_EUSAGE, PL_EUNSUPPORTED. */
PL_MUST_CHECK
enum pl_status pl_model_args_entry(const struct pl_model_args *a, const char *path, json_t **json,
                                   struct pl_entry *entry, struct pl_err *err);
/* The same, loaded. */
PL_MUST_CHECK
enum pl_status pl_model_args_load(const struct pl_model_args *a, const char *path, json_t **json,
                                  struct pl_entry *entry, struct pl_model **model,
                                  struct pl_err *err);
/* The picture that --events, --video, --image and --pixels name. PL_EUSAGE: none, or two. */
PL_MUST_CHECK
enum pl_status pl_model_args_media(const struct pl_model_args *a, struct pl_media *out,
                                   struct pl_err *err);
/* Its pixels, in `room` (NULL: the host's); a warning goes to stderr behind `command`. */
PL_MUST_CHECK
enum pl_status pl_model_args_load_media(const struct pl_model_args *a, const char *command,
                                        const struct pl_vision_config *c,
                                        struct pl_pixel_room *room, struct pl_pixels *out,
                                        struct pl_media_times *times, struct pl_err *err);
/* Exactly one of --ids, --ids-file and --prompt, or --pixels, as the model takes it; ids are
 * checked against the vocabulary, what goes with them against their number. --prompt needs the
 * tokenizer (NULL: PL_ENOENT with `why`). The decoder of an encoder–decoder gets its start token
 * where no ids are given. With a picture, --prompt is the question (or the whole prompt, where the
 * vision token stands in it) and ids hold the vision token: tower and projector run here. */
PL_MUST_CHECK
enum pl_status pl_model_args_input(const struct pl_model_args *a, const char *command,
                                   const struct pl_tokenizer *t, const struct pl_err *why,
                                   struct pl_model *m, struct pl_model_input *in,
                                   struct pl_err *err);
/* The prompt that a decoder is given of it. */
struct pl_prompt pl_model_input_prompt(const struct pl_model_input *in, const struct pl_arch *arch);
/* The part of it that an encoder reads; `frame` of an image tower's. */
struct pl_source pl_model_input_source(const struct pl_model_input *in, const struct pl_arch *arch,
                                       size_t frame);

#endif
