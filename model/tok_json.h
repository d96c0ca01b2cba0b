/* tokenizer.json, piece by piece; for model/tok_json*.c and tok_files.c only. */
#ifndef PL_MODEL_TOK_JSON_H
#define PL_MODEL_TOK_JSON_H

#include "base/json.h"
#include "model/tok_impl.h"

/* Parses any JSON value of a file. New reference. */
PL_MUST_CHECK
enum pl_status pl_tok_json_parse(const char *file, const char *data, size_t len, json_t **out,
                                 struct pl_err *err);
/* A copy of a string value; PL_EFORMAT: v is no string, or too long. what: for the message. */
PL_MUST_CHECK
enum pl_status pl_tok_json_str(struct pl_tokenizer *t, const json_t *v, const char *what,
                               struct pl_tok_str *out, struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_tok_copy(struct pl_tokenizer *t, const char *s, size_t len,
                           struct pl_tok_str *out, struct pl_err *err);
/* {"piece": id, …} */
PL_MUST_CHECK
enum pl_status pl_tok_json_vocab(struct pl_tokenizer *t, const json_t *vocab, struct pl_err *err);
/* "model" */
PL_MUST_CHECK
enum pl_status pl_tok_json_model(struct pl_tokenizer *t, const json_t *model, struct pl_err *err);
/* "normalizer", "pre_tokenizer", "decoder", "post_processor"; v may be NULL or null. The
 * post-processor after the added tokens. */
PL_MUST_CHECK
enum pl_status pl_tok_json_normalizer(struct pl_tokenizer *t, const json_t *v, int depth,
                                      struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_tok_json_splitter(struct pl_tokenizer *t, const json_t *v, int depth,
                                    struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_tok_json_decoder(struct pl_tokenizer *t, const json_t *v, int depth,
                                   struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_tok_json_template(struct pl_tokenizer *t, const json_t *v, int depth,
                                    struct pl_err *err);
/* "added_tokens", or the values of "added_tokens_decoder". */
PL_MUST_CHECK
enum pl_status pl_tok_json_added(struct pl_tokenizer *t, const json_t *list, struct pl_err *err);

/* Steps that several loaders add; PL_ERANGE: too many. */
PL_MUST_CHECK
enum pl_status pl_tok_add_normal(struct pl_tokenizer *t, const struct pl_tok_normal *z,
                                 struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_tok_add_split(struct pl_tokenizer *t, const struct pl_tok_split *z,
                                struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_tok_add_decoder(struct pl_tokenizer *t, const struct pl_tok_decoder *d,
                                  struct pl_err *err);
/* Byte level: a space in front?, split by a pattern (NULL: not), bytes to characters. */
PL_MUST_CHECK
enum pl_status pl_tok_add_byte_level(struct pl_tokenizer *t, bool prefix_space,
                                     const struct pl_tok_pattern *pattern, struct pl_err *err);
/* BERT's normaliser, splitters and decoder around WordPiece. */
PL_MUST_CHECK
enum pl_status pl_tok_add_bert(struct pl_tokenizer *t, bool lower, bool accents, bool chinese,
                               struct pl_err *err);
/* Lets the model take bytes as they are where the last splitter maps them. */
void pl_tok_try_raw(struct pl_tokenizer *t);

#endif
