/*
 * Attention of a tree's rows. A row must give the bits that a sequence of its ancestors would give,
 * so its keys must stand where that sequence's would: from the chunk of keys on in which the tree
 * begins, K and V are copied into a thread's scratch, path by path, and attended there.
 */
#include "model/cpu/steps.h"

#include <math.h>
#include <string.h>

struct tail {
    const struct pl_token_tree *tree;
    const struct pl_kv *kv;
    size_t dim, bytes;
    const char *from_k, *from_v; /* of one head in the cache */
    char *k, *v;                 /* keys from `first` on */
    size_t first, start;         /* start: the tree's first row */
    int32_t path[PL_TREE_MAX];   /* row of the tree that stands at each depth */
    size_t known;                /* of path */
};

static size_t tail_keys(size_t rows)
{
    return pl_round_up(PL_ATTN_CHUNK - 1 + rows, PL_ATTN_CHUNK);
}

size_t pl_cpu_tree_scratch(const struct pl_arch *a, size_t rows)
{
    size_t dim = (size_t)a->head_dim;

    return pl_attend_scratch(dim) + tail_keys(rows) * (dim + pl_round_up(dim, PL_PANEL));
}

static void copy_element(const struct tail *t, char *to, size_t at, const char *from, size_t src)
{
    memcpy(to + at * t->bytes, from + src * t->bytes, t->bytes);
}

/* Key number `key` of the tail from row `row` of the cache. */
static void put(struct tail *t, size_t key, size_t row)
{
    size_t at = key - t->first, src = row % t->kv->cap;

    for (size_t d = 0; d < t->dim; d++) {
        copy_element(t, t->k, pl_cpu_k_at(t->dim, at, d), t->from_k, pl_cpu_k_at(t->dim, src, d));
        copy_element(t, t->v, pl_cpu_v_at(t->dim, at, d), t->from_v, pl_cpu_v_at(t->dim, src, d));
    }
}

/* Lets the keys of the path to `row` stand behind those before the tree. */
static void walk(struct tail *t, size_t row)
{
    size_t depth = (size_t)t->tree->depth[row];
    int32_t node = (int32_t)row;

    for (size_t i = depth + 1; i-- > 0 && !(i < t->known && t->path[i] == node);) {
        t->path[i] = node;
        put(t, t->start + i, t->start + (size_t)node);
        node = t->tree->parents[node];
    }
    t->known = depth + 1;
}

static void open_tail(struct tail *t, const struct job *j, int32_t layer, size_t kv_head, int m)
{
    const struct pl_arch *a = &j->n->arch;
    const struct pl_cache *c = j->f->spans[0].cache;
    size_t dim = (size_t)a->head_dim;

    t->tree = j->f->tree;
    t->kv = &c->kv[layer];
    t->dim = dim;
    t->bytes = pl_cpu_dtype_bytes(c->dtype);
    t->from_k = (char *)t->kv->k + pl_cpu_k_head(a, t->kv->cap, kv_head) * t->bytes;
    t->from_v = (char *)t->kv->v + pl_cpu_v_head(a, t->kv->cap, kv_head) * t->bytes;
    t->k = (char *)(pl_cpu_scratch_of(j->n->device, m) + pl_attend_scratch(dim));
    t->v = t->k + tail_keys(j->rows + t->tree->base) * dim * t->bytes;
    t->start = t->kv->len - t->tree->base;
    t->first = t->start / PL_ATTN_CHUNK * PL_ATTN_CHUNK;
    t->known = 0;
    for (size_t key = t->first; key < t->start; key++)
        put(t, key, key);
}

/* Rows [row0, row0 + rows) of the forward, each the parent of the next, of one KV head. */
static void attend_run(const struct job *j, struct tail *t, size_t kv_head, size_t row0,
                       size_t rows, int m)
{
    const struct pl_arch *a = &j->n->arch;
    const struct pl_workspace *w = &j->n->work;
    const struct pl_cache *c = j->f->spans[0].cache;
    size_t group = (size_t)(a->heads / a->kv_heads), vectors = rows * group;
    struct pl_attend call = {.dim = t->dim,
                             .ring = t->kv->cap,
                             .k = t->from_k,
                             .v = t->from_v,
                             .tail_k = t->k,
                             .tail_v = t->v,
                             .tail = t->first,
                             .dtype = c->dtype,
                             .scale = a->unscaled ? 1.0f : 1.0f / sqrtf((float)t->dim),
                             .scratch = pl_cpu_scratch_of(j->n->device, m)};

    walk(t, t->tree->base + row0 + rows - 1);
    for (size_t first = 0; first < vectors; first += call.n) {
        call.n = vectors - first < PL_ATTN_BLOCK ? vectors - first : PL_ATTN_BLOCK;
        for (size_t i = 0; i < call.n; i++) {
            size_t row = row0 + (first + i) / group, head = kv_head * group + (first + i) % group;
            size_t at = row * pl_cpu_pitch((size_t)a->heads * t->dim) + head * t->dim;
            size_t place = t->start + (size_t)t->tree->depth[t->tree->base + row];
            call.q[i] = w->q + at;
            call.out[i] = w->att + at;
            call.len[i] = place + 1;
            call.first[i] = pl_kv_first(t->kv, place);
            if (c->relative)
                call.bias[i] =
                    c->relative + head * (2 * c->padded + PL_ATTN_CHUNK) + c->padded - place;
        }
        j->n->device->kernels->attend(&call);
    }
}

void pl_step_attention_tree(const struct job *j, int32_t layer, int m, int members)
{
    const struct pl_token_tree *tree = j->f->tree;
    size_t kv_heads = (size_t)j->n->arch.kv_heads, begin, end, rows;
    struct pl_cache *c = j->f->spans[0].cache;
    struct tail t;

    pl_pool_share(kv_heads, m, members, &begin, &end); /* as by_head has it */
    for (size_t h = begin; h < end; h++) {
        open_tail(&t, j, layer, h, m);
        for (size_t row = 0; row < j->rows; row += rows) {
            for (rows = 1; row + rows < j->rows; rows++)
                if (tree->parents[tree->base + row + rows] !=
                    (int32_t)(tree->base + row + rows) - 1)
                    break;
            attend_run(j, &t, h, row, rows, m);
        }
        size_t keys = t.kv->len + j->rows - pl_kv_first(t.kv, t.start);
        __atomic_fetch_add(&c->kv_read, (int64_t)(keys * t.dim * 2 * t.bytes), __ATOMIC_RELAXED);
    }
    pl_cpu_mark(j->n->device, m, PL_CPU_ATTENTION);
}
