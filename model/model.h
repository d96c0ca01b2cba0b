/*
 * A model ready to run: its architecture, its weights on a device and the threads that run them.
 * Loaded once, read-only afterwards; many sessions may share it, but one thread at a time calls
 * into a model and its sessions (two models may run at the same time).
 */
#ifndef PL_MODEL_MODEL_H
#define PL_MODEL_MODEL_H

#include "base/status.h"
#include "model/arch.h"
#include "model/backend.h"
#include "model/dtype.h"
#include "model/vision.h"

#include <stdbool.h>
#include <stdint.h>

struct pl_model_opts {
    const char *device; /* "cpu", "cuda", "cuda:N"; NULL: "cpu" */
    struct pl_device_opts where;
    enum pl_dtype dtype; /* of the matrices in memory; PL_DT_AUTO: as stored (random weights:
                            config's, else f32). Block formats stay as stored only: they are then
                            read from the mapped file, which must not change meanwhile */
    enum pl_activations activations; /* INT8 or 0: f32 */
    bool random;          /* weights drawn from random_seed; only the description is read */
    uint64_t random_seed; /* the same seed and name give the same numbers on any machine */
    bool device_pixels;   /* pictures become pixels on the device instead of the host: towers alone,
                             and backends that can */
    bool check_finite;    /* reads every weight first and warns of NaN and Inf */
    void (*warn)(void *user, const char *text); /* NULL: warnings are dropped; one line each */
    void *warn_user;
};

struct pl_model_info {
    struct pl_arch arch;            /* of the language model, where there is one */
    struct pl_vision_config vision; /* kind PL_VISION_NONE: it reads text alone */
    enum pl_dtype stored; /* of the matrices in the file (the commonest); random: what was chosen */
    enum pl_dtype dtype;  /* of the matrices in memory */
    enum pl_activations activations; /* what products read; from pl_model_describe, bf16 is not
                                        foreseen */
    bool random;
    uint64_t random_seed;
    int64_t params;        /* weights, towers included; a tied head once */
    int64_t file_bytes;    /* of the checkpoint, 0 when random */
    int64_t weights_bytes; /* held in memory by the engine; pl_model_describe: what it will need */
    int64_t table_bytes;   /* of them in tables of which a token reads a row: the embedding, unless
                              it is the head too, and learned positions */
    int64_t nonfinite;     /* NaN and Inf among the weights; −1: not looked */
    int32_t tensors, extra_tensors;   /* in the files; of them not used */
    char device[128];                 /* "cpu (avx2, 2 threads)"; "" from pl_model_describe */
    const struct pl_backend *backend; /* that it is, or would be, on */
};

struct pl_model;

/* path: a Hugging Face directory or a GGUF file. PL_ENOENT (no config.json, no weights),
 * PL_EUNSUPPORTED (architecture, dtype, feature: by name), PL_EFORMAT (tensor, expected shape,
 * found shape), PL_ENOMEM. opts may be NULL. */
PL_MUST_CHECK
enum pl_status pl_model_load(const char *path, const struct pl_model_opts *opts,
                             struct pl_model **out, struct pl_err *err);
void pl_model_free(struct pl_model *m); /* accepts NULL; sessions must be gone */
const struct pl_model_info *pl_model_info(const struct pl_model *m);
/* Blocks of a checkpoint that has nothing else (a drafting head's), as a model on the device and in
 * the type of `host`, which outlives it: no ids and no logits (a: vocab 0, head false), rows come
 * as embeddings and leave through a tap. The checkpoint holds no block formats. */
PL_MUST_CHECK
enum pl_status pl_model_graft(struct pl_model *host, const struct pl_checkpoint *c,
                              const struct pl_arch *a, struct pl_model **out, struct pl_err *err);

/* What loading would give and need, from config.json and the headers alone; every name and shape is
 * checked as by pl_model_load. With opts->check_finite the weights are read and counted too. */
PL_MUST_CHECK
enum pl_status pl_model_describe(const char *path, const struct pl_model_opts *opts,
                                 struct pl_model_info *out, struct pl_err *err);

/* For adapters and scorers: the operations, the device they run on, and the weights that heads
 * share. */
const struct pl_backend *pl_model_backend(const struct pl_model *m);
struct pl_device *pl_model_device(const struct pl_model *m);
const struct pl_tensor *pl_model_head(const struct pl_model *m); /* [vocab, hidden], a weight */
const struct pl_tensor *pl_model_final_norm(const struct pl_model *m); /* [1, hidden] */
/* The embeddings of ids on the host, out[n, hidden]. PL_ERANGE: an id outside the vocabulary. */
PL_MUST_CHECK
enum pl_status pl_model_embed(const struct pl_model *m, const int32_t *ids, size_t n, float *out,
                              struct pl_err *err);
/* For session.c and those who check ids before: PL_ERANGE names the first id outside the
 * vocabulary. */
PL_MUST_CHECK
enum pl_status pl_model_check_ids(const struct pl_model *m, const int32_t *ids, size_t n,
                                  struct pl_err *err);
struct pl_network *pl_model_network(const struct pl_model *m);
/* Towers and projector; NULL: the model reads text alone. */
struct pl_vision *pl_model_vision(const struct pl_model *m);

#endif
