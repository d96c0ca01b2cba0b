/* What opening (adapter.c) and running (adapter_run.c) an adapter share. */
#ifndef PL_SPEC_DECODE_ADAPTER_IMPL_H
#define PL_SPEC_DECODE_ADAPTER_IMPL_H

#include "model/checkpoint.h"
#include "spec_decode/adapter.h"

#define EPS 1e-5f
#define HEADS 8
#define MAX_BLOCKS 8

enum kind { L1, L2, L3, L4, L5, B1, L5F, KINDS };

struct lin {
    struct pl_tensor *w, *b; /* b NULL: none */
};
struct norm {
    struct pl_tensor *gain, *bias;
};
struct block {
    struct norm norm, inner; /* inner: L3's, of the bottleneck */
    struct lin down, up;
    float alpha;
};
struct layer {
    struct norm attn_norm, ffn_norm;
    struct lin q, k, v, o, up, down;
};

/* The first n rows of a tensor of the adapter's room. */
struct rows {
    struct pl_tensor *x, *h, *y, *q, *k, *v, *f, *pair, *e, *vv, *z, *g, *pos;
};

struct pl_adapter {
    enum kind kind;
    const struct pl_backend *be;
    struct pl_device *device;
    struct pl_model *verifier;
    size_t D, De, Dv, wide, rows; /* wide: of the largest bottleneck or feed-forward */
    struct block blocks[MAX_BLOCKS];
    struct layer layers[MAX_BLOCKS];
    size_t n_blocks, n_layers, positions;
    struct norm input_norm, final_norm, output_norm;
    struct lin output, in, in_v, out, fusion, gate;
    struct pl_tensor *pos;
    float alpha;
    struct rows *first; /* [rows] number i: the first i + 1 rows of the room below */
    /* [rows, …] */
    struct pl_tensor *x, *h, *y, *q, *k, *v, *f, *g, *pair, *e, *vv, *z, *logits;
    float *host_x, *host_y, *host_g, *host_logits, *chain; /* chain: [rows + 1][Dv] */
    int32_t masked[PL_ACCEPT_MAX_MASKED];
    size_t n_masked, vocab;
    struct pl_checkpoint *file; /* while opening */
    const char *path;
};

#endif
