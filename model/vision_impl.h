/* What model.c needs of vision.c, and what vision.c and vision_merge.c share. */
#ifndef PL_MODEL_VISION_IMPL_H
#define PL_MODEL_VISION_IMPL_H

#include "model/backend.h"
#include "model/vision.h"
#include "model/weights.h"

struct pl_vision_sources {
    struct pl_model_sources tower[2]; /* of events or clips; of still images */
    bool has[2];
    struct pl_weight_source first, first_bias, second, second_bias; /* the projector */
    struct pl_weight_source adaptor, adaptor_bias;
};

/* Finds towers and projector (as pl_finder_network does). An image tower may be left out. */
PL_MUST_CHECK
enum pl_status pl_vision_find(struct pl_finder *f, const struct pl_vision_config *c, float std,
                              struct pl_vision_sources *out, struct pl_err *err);
/* Whether a tensor is one that multimodal checkpoints have and no forward reads. */
bool pl_vision_known_extra(const char *name);
/* Bytes that pl_vision_create would take for weights. */
int64_t pl_vision_need(const struct pl_backend *b, const struct pl_vision_config *c,
                       const struct pl_vision_sources *s, enum pl_dtype dt);
PL_MUST_CHECK
enum pl_status pl_vision_create(const struct pl_backend *b, struct pl_device *d,
                                const struct pl_vision_config *c, const struct pl_vision_sources *s,
                                enum pl_dtype dt, struct pl_vision **out, struct pl_err *err);
void pl_vision_free(struct pl_vision *v); /* accepts NULL */
int64_t pl_vision_weights_bytes(const struct pl_vision *v);
/* From now on pixels are made where the towers are; the backend has `pixels`. */
void pl_vision_make_pixels(struct pl_vision *v);

/* ---- between vision.c and vision_merge.c ---- */

/* One linear with its bias (NULL: none). */
struct pl_vision_linear {
    struct pl_tensor *w, *b;
    size_t out;
};

/* What a tower's last block looks with, once more: what a merge is chosen by (vision_merge.c). */
struct pl_vision_gaze {
    struct pl_vision_linear q, k;
    struct pl_tensor *gain, *bias; /* [1, hidden] of the norm before them */
    struct pl_tensor *x, *keys;    /* [tokens, hidden]; made with the room of a merge */
};

struct pl_vision {
    struct pl_vision_config config;
    const struct pl_backend *backend;
    struct pl_device *device;
    struct pl_network *tower[2]; /* [1] NULL: no still images */
    struct pl_vision_linear first, second, adaptor;
    struct pl_vision_gaze gaze[2];
    int64_t weights_bytes;
    struct pl_pixel_room room; /* backend NULL: the host makes pixels */
    /* made by pl_vision_reserve */
    size_t frames;
    bool merges; /* with room for a merge */
    struct pl_cache *cache[2];
    struct pl_tensor *a, *b; /* [tokens, hidden] of one frame, in turns */
    /* EventGPT */
    struct pl_tensor *sum;      /* [tokens, hidden] mean over the frames */
    struct pl_tensor *temporal; /* [frames, hidden] mean over each frame's rows */
    struct pl_tensor *zero;     /* [1, hidden] */
};

/* Projector and adaptor of the first n rows of x; they are then in *out (v->a or v->b). */
PL_MUST_CHECK
enum pl_status pl_vision_project(struct pl_vision *v, const struct pl_tensor *x, size_t n,
                                 struct pl_tensor **out, struct pl_err *err);
/* Row `frame` of temporal: the mean of x's rows. */
PL_MUST_CHECK
enum pl_status pl_vision_mean_row(struct pl_vision *v, const struct pl_tensor *x, size_t frame,
                                  struct pl_err *err);
/* Weights of a gaze (their bytes), and what comes with the room for merges. */
int64_t pl_vision_gaze_bytes(const struct pl_arch *tower);
PL_MUST_CHECK
enum pl_status pl_vision_gaze_create(struct pl_vision *v, const struct pl_model_sources *tower,
                                     struct pl_vision_gaze *out, struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_vision_gaze_room(struct pl_vision *v, struct pl_vision_gaze *g,
                                   struct pl_err *err);
void pl_vision_gaze_free_room(struct pl_vision *v, struct pl_vision_gaze *g);
void pl_vision_gaze_free(struct pl_vision *v, struct pl_vision_gaze *g);
/* As pl_vision_reserve, with room for merges. */
PL_MUST_CHECK
enum pl_status pl_vision_reserve_merges(struct pl_vision *v, size_t frames, struct pl_err *err);
/* One frame, as a tower takes it. */
struct pl_source pl_vision_source(const struct pl_vision *v, const struct pl_pixels *p,
                                  size_t frame);
/* Checks of pixels before an encode. */
PL_MUST_CHECK
enum pl_status pl_vision_check(const struct pl_vision *v, const struct pl_pixels *p,
                               struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_vision_linear_create(struct pl_vision *v, const struct pl_weight_source *w,
                                       const struct pl_weight_source *b, enum pl_dtype dt,
                                       struct pl_vision_linear *out, struct pl_err *err);

#endif
