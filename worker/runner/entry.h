/* A sweep's model entry (docs/SWEEP.md) as the engine reads it; the commands of paceline-runner
 * make one of their options. */
#ifndef PL_WORKER_RUNNER_ENTRY_H
#define PL_WORKER_RUNNER_ENTRY_H

#include "base/json.h"
#include "base/status.h"
#include "model/model.h"
#include "model/session.h"
#include "model/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pl_entry {
    const char *path;        /* borrowed from the JSON */
    const char *device;      /* "cpu", "cuda", "cuda:N"; borrowed */
    enum pl_dtype dtype, kv; /* PL_DT_AUTO: as stored; kv: the dtype in memory */
    enum pl_activations activations;
    bool deterministic;
    bool device_pixels; /* preprocess: device */
    bool random;
    uint64_t seed; /* of random weights */
    int threads;   /* 0: not said */
};

/* Keys path, dtype, device, threads, kv, weights, activations (default int8), deterministic,
 * preprocess. PL_ESWEEP names the key, what stands there and what may; device cuda is PL_EUNSUPPORTED in a
 * build without CUDA. */
PL_MUST_CHECK
enum pl_status pl_entry_read(const json_t *entry, struct pl_entry *out, struct pl_err *err);

/* What pl_model_load and pl_model_describe are given. threads, cpus: the request's share, used
 * where the entry says none. Warnings go to the log. */
void pl_entry_model_opts(const struct pl_entry *e, int threads, const int *cpus, size_t n_cpus,
                         struct pl_model_opts *out);
/* The KV cache's type for a model whose matrices are `dtype` in memory: the same, f16 beside block
 * formats. */
enum pl_dtype pl_entry_kv(const struct pl_entry *e, enum pl_dtype dtype);

/* A model's tokenizer, as long as its ids are the model's. PL_EFORMAT: it has pieces beyond the
 * vocabulary (special tokens, which stand in brackets, may be: some files add a pad that no model
 * has). Else as pl_tokenizer_load. */
PL_MUST_CHECK
enum pl_status pl_entry_tokenizer(const char *path, const struct pl_arch *a,
                                  struct pl_tokenizer **out, struct pl_err *err);
/* Ends of text: config.json's, else the tokenizer's eos (−1: none). Returns how many, ≤ PL_MAX_EOS.
 */
size_t pl_eos_ids(const struct pl_arch *a, int32_t tokenizer_eos, int32_t out[PL_MAX_EOS]);

#endif
