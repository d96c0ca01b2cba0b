/*
 * A tree of tokens on a deterministic device: each row's logits have the bits of a decode at the
 * end of its path. Sums over few rows do not depend on the rows (linear.cu), so what is left is
 * attention, whose sums go by the places of the keys: before a row's turn the keys and values of
 * its path are laid where decodes would have left them, and it is attended as a sequence of its
 * own, in one part of the keys or several as a decode is. Afterwards the tree lies in its own order
 * again. A chain needs no move; each turn of the way costs a small launch, and each row one of its
 * own.
 */
#include "model/cuda/run.h"

#include <string.h>

/* What a tree needs beside the step, on the device (and, but for the sides, where it is made). */
struct room {
    int32_t *span, *in_span, *span_row, *path; /* path [rows][PL_TREE_MAX] */
    struct pl_cuda_kv *kv;                     /* [layers][rows] */
    size_t sent;                               /* bytes of the above */
    char *k, *v;                               /* [kv_heads][PL_TREE_MAX][dim] */
    size_t all;
};

static struct room room_at(const struct pl_arch *a, void *base)
{
    const size_t n = PL_TREE_MAX, numbers = 3 * n + 1 + n * n;
    const size_t side = (size_t)a->kv_heads * n * (size_t)a->head_dim * sizeof(float);
    struct room r = {.span = base};

    r.in_span = r.span + n;
    r.span_row = r.in_span + n;
    r.path = r.span_row + n + 1;
    r.sent = pl_round_up(numbers * sizeof(int32_t), 256);
    r.kv = (struct pl_cuda_kv *)(void *)((char *)base + r.sent);
    r.sent += pl_round_up((size_t)a->layers * n * sizeof(*r.kv), 256);
    r.k = (char *)base + r.sent;
    r.v = r.k + side;
    r.all = r.sent + 2 * side;
    return r;
}

static enum pl_status reserve(struct pl_network *n, struct pl_err *err)
{
    const struct room size = room_at(&n->arch, NULL);
    enum pl_status st = PL_OK;

    if (!n->paths)
        st = pl_cuda_alloc(&n->paths, size.all, "paths of a tree", err);
    if (!st && !n->paths_host)
        st = pl_cuda_alloc_host(&n->paths_host, size.sent, "paths of a tree", err);
    return st;
}

/* The nodes from the root down to `node`. */
static void path_to(const struct pl_token_tree *t, int32_t node, int32_t *out)
{
    for (int32_t at = node; at >= 0; at = t->parents[at])
        out[t->depth[at]] = at;
}

void pl_cuda_paths_send(struct pl_cuda_run *r)
{
    struct pl_network *n = r->n;
    const struct pl_token_tree *t = r->f->tree;
    const struct pl_cache *c = r->f->spans[0].cache;
    const int32_t base = t ? (int32_t)t->base : 0;
    struct room host, there;

    if (!t || !n->device->exact || r->f->want == PL_LOGITS_NONE || r->st)
        return;
    r->st = reserve(n, r->err);
    if (r->st)
        return;
    host = room_at(&n->arch, n->paths_host);
    there = room_at(&n->arch, n->paths);
    for (int32_t i = 0; i < r->rows; i++) {
        host.span[i] = host.span_row[i] = i;
        host.in_span[i] = 0;
        path_to(t, base + i, host.path + (size_t)i * PL_TREE_MAX);
        for (int32_t l = 0; l < n->arch.layers; l++) {
            struct pl_cuda_kv *kv = &host.kv[l * r->rows + i];
            *kv = pl_cuda_kv(&c->kv[l]);
            kv->len += t->depth[base + i] - base;
        }
    }
    host.span_row[r->rows] = r->rows;
    r->paths = r->step;
    r->paths.span = there.span;
    r->paths.in_span = there.in_span;
    r->paths.span_row = there.span_row;
    r->paths.kv = there.kv;
    r->paths.n_spans = r->rows;
    r->paths.tree = NULL;
    r->by_path = true;
    r->st = pl_cuda_check(cudaMemcpyAsync(n->paths, n->paths_host, host.sent,
                                          cudaMemcpyHostToDevice, n->device->stream),
                          "paths of a tree", r->err);
}

void pl_cuda_paths_attend(struct pl_cuda_run *r, const struct pl_cuda_attend *all)
{
    const struct pl_arch *arch = &r->n->arch;
    const struct pl_token_tree *t = r->f->tree;
    const struct pl_cuda_kv kv = pl_cuda_kv(&r->f->spans[0].cache->kv[all->layer]);
    const struct room host = room_at(arch, r->n->paths_host), there = room_at(arch, r->n->paths);
    const int32_t base = (int32_t)t->base, nodes = base + r->rows;
    struct pl_cuda_kv_side side = {.kv = kv,
                                   .base = kv.len - base,
                                   .kv_heads = arch->kv_heads,
                                   .dim = arch->head_dim,
                                   .dtype = all->kv_dtype,
                                   .rows = nodes,
                                   .k = there.k,
                                   .v = there.v};
    cudaStream_t s = r->n->device->stream;
    int32_t now[PL_TREE_MAX]; /* the node that lies at each place */
    struct pl_cuda_attend a = *all;
    bool moved = false;

    for (int32_t i = 0; i < nodes; i++)
        now[i] = i;
    pl_k_kv_side(&side, NULL, nodes, false, s);
    a.n_rows = a.max_span = 1;
    for (a.first_row = 0; a.first_row < r->rows; a.first_row++) {
        const size_t at = (size_t)a.first_row * PL_TREE_MAX;
        const int32_t n = t->depth[base + a.first_row] + 1;
        if (memcmp(now, host.path + at, (size_t)n * sizeof(*now))) {
            pl_k_kv_side(&side, there.path + at, n, true, s);
            memcpy(now, host.path + at, (size_t)n * sizeof(*now));
            moved = true;
        }
        pl_k_attend(&r->paths, &a, s);
    }
    if (moved)
        pl_k_kv_side(&side, NULL, nodes, true, s);
}
