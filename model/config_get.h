/* What every family reads from config.json: numbers and flags with their bounds, activation, RoPE,
 * special tokens. Errors name the key (PL_EFORMAT) or what cannot be run (PL_EUNSUPPORTED). */
#ifndef PL_MODEL_CONFIG_GET_H
#define PL_MODEL_CONFIG_GET_H

#include "model/arch.h"

/* Sizes beyond these are a broken config, and products of them still fit 63 bits. */
#define MAX_DIM (1 << 20)
#define MAX_LAYERS 4096
#define MAX_VOCAB (1 << 24)
#define MAX_POSITIONS (INT64_C(1) << 31)
#define ENDLESS (INT64_C(1) << 20) /* positions of models that have no table of them */

/* DIR/file, or path itself where it is a file. New reference. */
PL_MUST_CHECK
enum pl_status pl_config_read(const char *path, const char *file, json_t **out, struct pl_err *err);
/* NULL when it is absent or null: transformers writes null where it means "not set". */
const json_t *pl_config_member(const json_t *o, const char *key);
/* dflt below min: the key must be there. */
PL_MUST_CHECK
enum pl_status pl_config_int(const json_t *o, const char *key, int64_t dflt, int64_t min,
                             int64_t max, int64_t *out, struct pl_err *err);
/* 1 to max; dflt 0: the key must be there. */
PL_MUST_CHECK
enum pl_status pl_config_dim(const json_t *o, const char *key, int64_t dflt, int64_t max,
                             int32_t *out, struct pl_err *err);
/* Above 0; dflt 0: the key must be there. */
PL_MUST_CHECK
enum pl_status pl_config_real(const json_t *o, const char *key, double dflt, double *out,
                              struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_config_flag(const json_t *o, const char *key, bool dflt, bool *out,
                              struct pl_err *err);
/* key's value, else dflt. */
PL_MUST_CHECK
enum pl_status pl_config_act(const json_t *c, const char *key, const char *dflt, struct pl_arch *a,
                             struct pl_err *err);
/* rope_theta + rope_scaling {type | rope_type, …} (files on the Hub), or rope_parameters
 * {rope_theta, rope_type, …}. Reads a->max_positions. */
PL_MUST_CHECK
enum pl_status pl_config_rope(const json_t *c, struct pl_arch *a, struct pl_err *err);
/* bos_token_id and eos_token_id, one or a list; ids outside the vocabulary are passed over. */
PL_MUST_CHECK
enum pl_status pl_config_tokens(const json_t *c, struct pl_arch *a, struct pl_err *err);
/* dtype | torch_dtype; without either, as it is */
void pl_config_dtype(const json_t *c, struct pl_arch *a);

#endif
