/*
 * The tokenizer inside a GGUF file: tokenizer.ggml.*, read as llama.cpp reads them
 * (llama-vocab.cpp: what a file leaves out has that program's default).
 */
#ifndef PL_MODEL_GGUF_TOKENIZER_H
#define PL_MODEL_GGUF_TOKENIZER_H

#include "base/status.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

/* PL_ENOENT: the file has none; PL_EUNSUPPORTED names its model or pre-tokenizer; PL_EFORMAT lists
 * that do not fit. */
PL_MUST_CHECK
enum pl_status pl_gguf_tokenizer(const struct pl_gguf *g, struct pl_tokenizer **out,
                                 struct pl_err *err);

#endif
