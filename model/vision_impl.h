/* What model.c needs of vision.c. */
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

#endif
