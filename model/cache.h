/*
 * One sequence's KV cache as every backend has it: which rows a layer holds, what stands beside
 * them, and how long it is. A backend says how K and V lie in memory and where memory comes from
 * (struct pl_cache_memory), and fills it.
 */
#ifndef PL_MODEL_CACHE_H
#define PL_MODEL_CACHE_H

#include "model/backend.h"
#include "model/tensor.h"

/* K and V of one layer. Rows are counted from the sequence's start; row j stands at place j mod
 * cap, so that a window needs no more rows than it shows and one forward adds. */
struct pl_kv {
    void *k, *v;
    size_t cap;     /* places, a multiple of pl_cache_memory.keys */
    size_t window;  /* a row sees so many, itself included; 0: all */
    size_t first;   /* rows before it were dropped */
    size_t len;     /* rows so far */
    size_t written; /* the most that len has been since a reset: what may have been overwritten */
    int64_t next_position;
};

struct pl_cache {
    struct pl_network *network; /* the backend's */
    const struct pl_arch *arch; /* its shape */
    enum pl_dtype dtype;
    size_t max_tokens;
    size_t padded;       /* max_tokens in tiles of pl_cache_memory.keys */
    struct pl_kv *kv;    /* [layers]; an encoder's layers share one */
    struct pl_kv *cross; /* [layers] of the source */
    void *block;         /* K and V of all layers */
    struct pl_tensor stage, sums;
    struct pl_tensor *taps;
    int *tap_layers;
    size_t n_taps;
    float *relative;    /* [heads][…] score bias by distance, as the backend reads it */
    float *mask;        /* encoders: [padded] 0, or −1e30 for keys that are padding */
    int32_t *positions; /* encoders: [max_tokens] on the host */
    bool masked;
    struct pl_cache *source; /* of an encoder–decoder: the encoder's */
    int64_t kv_bytes, other_bytes, kv_read;
};

/* A backend's ways with a cache's memory. */
struct pl_cache_memory {
    size_t chunk; /* most rows of one forward */
    size_t keys;  /* keys of a tile */
    /* Bytes of K and of V of one layer of `cap` places. */
    void (*layer_bytes)(const struct pl_arch *a, enum pl_dtype dt, size_t cap, size_t *k,
                        size_t *v);
    /* Zeroed; *out NULL when it fails. */
    enum pl_status (*alloc)(void **out, size_t bytes, struct pl_err *err);
    void (*free)(void *p);
};

/* What K and V of all layers take, and what stands beside them: hidden states, sums, mask. */
int64_t pl_cache_kv_bytes(const struct pl_cache_memory *m, const struct pl_arch *a,
                          const struct pl_cache_opts *o);
int64_t pl_cache_side_bytes(const struct pl_cache_memory *m, const struct pl_arch *a,
                            const struct pl_cache_opts *o);
/* Of an encoder's cache in an encoder–decoder's. */
struct pl_cache_opts pl_cache_source_opts(const struct pl_cache_opts *o);

/* Memory for all but `relative` and `source`, empty. */
PL_MUST_CHECK
enum pl_status pl_cache_create(const struct pl_cache_memory *m, struct pl_network *n,
                               const struct pl_arch *a, struct pl_device *d,
                               const struct pl_cache_opts *o, struct pl_cache **out,
                               struct pl_err *err);
/* All of it but `source`. Accepts NULL. */
void pl_cache_free(const struct pl_cache_memory *m, struct pl_cache *c);
/* table[heads][span]: T5's bias of the key that stands i − padded behind its query.
 * by_bucket: [buckets, heads]. */
void pl_cache_relative(const struct pl_cache *c, const float *by_bucket, size_t span, float *table);

/* Entries of the vtable. */
size_t pl_cache_len(const struct pl_cache *c, int32_t layer);
void pl_cache_reset(struct pl_cache *c);
size_t pl_cache_can_drop(const struct pl_cache *c);
void pl_cache_drop(struct pl_cache *c, size_t n);
struct pl_tensor *pl_cache_stage(struct pl_cache *c);
const struct pl_tensor *pl_cache_encoded(const struct pl_cache *c);
const struct pl_tensor *pl_cache_sums(const struct pl_cache *c);
const struct pl_tensor *pl_cache_tap(const struct pl_cache *c, size_t tap);
int64_t pl_cache_kv_read(const struct pl_cache *c);

/* The first row that the query in row `row` sees. */
static inline size_t pl_kv_first(const struct pl_kv *kv, size_t row)
{
    return kv->window && row + 1 > kv->window + kv->first ? row + 1 - kv->window : kv->first;
}

/* That a forward's rows fit behind those of its caches. */
PL_MUST_CHECK
enum pl_status pl_cache_check_room(const struct pl_forward *f, struct pl_err *err);
/* Counts them, once they are there. */
void pl_cache_advance(const struct pl_forward *f);

/* Makes `to`, the cache of the encoder itself, ready for a source: lengths, positions, and the
 * mask's first s->n numbers. c: the cache that asked, `to` or the decoder's. */
PL_MUST_CHECK
enum pl_status pl_cache_check_source(const struct pl_cache *to, const struct pl_source *s,
                                     struct pl_err *err);
void pl_cache_begin_source(struct pl_cache *c, struct pl_cache *to, const struct pl_source *s,
                           float *mask);

#endif
