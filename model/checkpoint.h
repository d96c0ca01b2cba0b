/*
 * The tensors of a checkpoint on disk: one safetensors or GGUF file, or the shards that
 * model.safetensors.index.json names. Files are memory-mapped read-only; a tensor's data is a view
 * into the mapping and lives as long as the checkpoint. Symbolic links are followed. Every lie of
 * a header (sizes, offsets, overlaps, shapes) is one error at opening, so that no later access
 * needs a check. Formats: https://huggingface.co/docs/safetensors (u64 LE header length, JSON,
 * data), gguf.h.
 */
#ifndef PL_MODEL_CHECKPOINT_H
#define PL_MODEL_CHECKPOINT_H

#include "base/status.h"
#include "model/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_MAX_DIMS 8
#define PL_SAFETENSORS_HEADER_MAX (100u << 20) /* the format's own limit */
#define PL_CHECKPOINT_MAX_TENSORS 1000000u
#define PL_CHECKPOINT_MAX_SHARDS 4096u

struct pl_tensor_view {
    const char *name; /* as in the file */
    enum pl_dtype dtype;
    int32_t dims;
    int64_t shape[PL_MAX_DIMS];
    int64_t elements;
    const void *data; /* little endian, row-major; not necessarily aligned to its element. Block
                         formats: a row is a whole number of blocks */
    size_t bytes;
    const char *file; /* the shard it stands in */
};

struct pl_checkpoint;
struct pl_gguf;

/* path: a directory (model.safetensors, or model.safetensors.index.json and its shards) or one
 * .safetensors or GGUF file, told by its first bytes. PL_ENOENT names what was looked for,
 * PL_EFORMAT names file, tensor and lie, PL_EUNSUPPORTED a type that is unknown. */
PL_MUST_CHECK
enum pl_status pl_checkpoint_open(const char *path, struct pl_checkpoint **out, struct pl_err *err);
void pl_checkpoint_free(struct pl_checkpoint *c);
size_t pl_checkpoint_count(const struct pl_checkpoint *c);
/* In order of name; i < count. */
const struct pl_tensor_view *pl_checkpoint_tensor(const struct pl_checkpoint *c, size_t i);
/* NULL when there is none of that name. */
const struct pl_tensor_view *pl_checkpoint_find(const struct pl_checkpoint *c, const char *name);
/* The metadata of a GGUF file, as long as the checkpoint; NULL when it is none. */
const struct pl_gguf *pl_checkpoint_gguf(const struct pl_checkpoint *c);
/* Whether a regular file is there that begins as GGUF files do. */
bool pl_checkpoint_is_gguf(const char *path);
/* Sum of the files' sizes. */
int64_t pl_checkpoint_file_bytes(const struct pl_checkpoint *c);
/* Counts what is not finite in a tensor of a type that can be run (others: 0, 0). Reads all of it.
 */
void pl_tensor_nonfinite(const struct pl_tensor_view *t, int64_t *nan, int64_t *inf);
/* "[768, 3072]" */
void pl_tensor_shape_text(const struct pl_tensor_view *t, char *out, size_t size);
/* Brings all of the files into memory, from begin to end, so that no later access waits for a page.
 * In one go: parts, in any order, were slower than reading by half (491 MB in 0.57 s, so in 0.31).
 */
void pl_checkpoint_fetch(const struct pl_checkpoint *c);
/* Drops the pages that were read from this process's resident set (they stay in the page cache). */
void pl_checkpoint_drop_pages(struct pl_checkpoint *c);

#endif
