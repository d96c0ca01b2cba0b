/* What a method is made of; private to pruning/. */
#ifndef PL_PRUNING_METHOD_H
#define PL_PRUNING_METHOD_H

#include "pruning/keep.h"
#include "pruning/pruner.h"

#define PL_PRUNE_STAGES_MAX 256

/* Options as read, defaults filled in. */
struct pl_prune_opts {
    const struct pl_prune_method *method;
    double keep[PL_PRUNE_STAGES_MAX]; /* [n_layers] of stages; [1] of KV rows */
    size_t n_keep;
    double total_keep; /* 0: not given */
    int32_t layers[PL_PRUNE_STAGES_MAX];
    size_t n_layers;     /* 0: the method's own */
    const char *weights; /* borrowed from the JSON */
    enum pl_positions positions;
    bool visual; /* only visual tokens may go */
    struct pl_keep_rule rule;
    size_t window, kernel, beta, neighbours;
    double recent;
    bool average, plus;
    uint64_t seed;
    bool has_seed;
};

/* Defaults, types and ranges; whether the option is the method's. Layers are checked against `a`.
 */
PL_MUST_CHECK
enum pl_status pl_prune_opts_read(const json_t *prune, const struct pl_arch *a,
                                  struct pl_prune_opts *out, struct pl_err *err);

/* A buffer of a stage or layer that a method writes. */
struct pl_pruner {
    struct pl_prune_opts o;
    const struct pl_arch *arch; /* the model's */
    size_t max_tokens;
    uint64_t seed, key;
    const uint8_t *visual;
    size_t n, n_visual; /* of the prompt */
    size_t
        lengths[PL_PRUNE_STAGES_MAX]; /* with total_keep: tokens (that may go) after each stage */
    float *scores; /* [2 · max_tokens]: the second half is a method's to write in */
    struct pl_stage_hook hook;
    /* KV reducers */
    int32_t *kv_index;                   /* [layers][kv heads · max_tokens]: rows to keep */
    size_t *kv_count;                    /* [layers] */
    void *state;                         /* the method's own */
    const struct pl_vision_merge *merge; /* INPUT */
    bool tracing;
    json_t *stages, *kept_kv, *merged; /* the trace of the last prompt */
};

enum pl_prune_where {
    PL_PRUNE_STAGES, /* tokens, after blocks */
    PL_PRUNE_KV,     /* KV rows, after the prefill */
    PL_PRUNE_INPUT   /* visual tokens, before the first block */
};

struct pl_prune_method {
    const char *name;
    enum pl_prune_where where;
    unsigned needs; /* pl_stage_need bits */
    /* The rows of queries whose attention is summed, of the prompt's last: 0 all. NULL: all. */
    size_t (*window)(const struct pl_prune_opts *o);
    /* Headers and shapes, for check; NULL: nothing to look at. May fill in o->layers. */
    enum pl_status (*check)(struct pl_prune_opts *o, const struct pl_arch *a, struct pl_err *err);
    enum pl_status (*open)(struct pl_pruner *p, struct pl_model *m,
                           struct pl_err *err); /* NULL: fine */
    void (*close)(struct pl_pruner *p);
    /* STAGES: a score for each row of the stage, finite; the rule does the rest. */
    enum pl_status (*score)(struct pl_pruner *p, const struct pl_stage *stage, float *scores,
                            struct pl_err *err);
    /* KV: scores of the n rows of one KV head from attn [heads][n] (NULL where the method needs
     * none); INFINITY: kept whatever comes. */
    void (*kv_score)(const struct pl_pruner *p, const float *attn, size_t n, size_t head,
                     float *scores);
    /* KV: rows of a layer to keep of n; NULL: ⌊keep · n⌋, at least 1. */
    size_t (*kv_budget)(const struct pl_pruner *p, int32_t layer, size_t n);
};

extern const struct pl_prune_method pl_prune_sdtp, pl_prune_random, pl_prune_fastv,
    pl_prune_lazyllm, pl_prune_h2o, pl_prune_snapkv, pl_prune_pyramidkv, pl_prune_streamingllm,
    pl_prune_tova, pl_prune_prumerge;
/* NULL: there is none of that name. */
const struct pl_prune_method *pl_prune_method(const char *name);

/* Mean over a KV head's query heads of attn [heads][n], times `scale`. */
void pl_prune_group_mean(const struct pl_pruner *p, const float *attn, size_t n, size_t head,
                         float scale, float *out);
/* Mean over all heads of attn [heads][n]: what a stage's score is made of by attention. */
void pl_prune_head_mean(const struct pl_pruner *p, const float *attn, size_t n, float *out);
/* A picture's (EventGPT: all pictures') patches that stay, to the trace where one is kept. */
PL_MUST_CHECK
enum pl_status pl_prune_note_merge(struct pl_pruner *p, const int32_t *kept, size_t n,
                                   struct pl_err *err);
size_t pl_prune_last_row(const struct pl_prune_opts *o); /* a window of 1 */

#endif
