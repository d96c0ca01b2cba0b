/*
 * What a GGUF file's metadata and tensor names say about the model: its architecture, and which
 * tensor is which weight. Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; names:
 * gguf-py's tensor_mapping.
 *
 * llama files hold the rows of q and k (and their biases) with RoPE's pairs side by side: row
 * h·d + j·d/2 + i of the model (head h, j ∈ {0, 1}, i < d/2) is row h·d + 2i + j of the file.
 * Other files do not. gpt2 files hold matrices as [out, in], not as its safetensors do.
 */
#ifndef PL_MODEL_GGUF_ARCH_H
#define PL_MODEL_GGUF_ARCH_H

#include "base/status.h"
#include "model/arch.h"
#include "model/gguf.h"

/* PL_EUNSUPPORTED names the architecture or feature that cannot be run; PL_EFORMAT the key that
 * contradicts or misses. */
PL_MUST_CHECK
enum pl_status pl_gguf_arch(const struct pl_gguf *g, struct pl_arch *out, struct pl_err *err);
/* Whether the rows of q and k come with RoPE's pairs side by side. */
bool pl_gguf_paired_rows(const struct pl_gguf *g);
const struct pl_tensor_view *pl_gguf_tensor(const struct pl_gguf *g, const char *name);

#endif
