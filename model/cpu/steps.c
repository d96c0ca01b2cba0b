#include "model/cpu/steps.h"

#include <math.h>
#include <string.h>

/* More rows than these rather meet at barriers than wait for the one with the slowest heads. */
#define BY_HEAD_ROWS 64

/* Small blocks where there are few query vectors, so that every member gets some. The bits do not
 * depend on it. */
static size_t attention_block(const struct pl_arch *a, size_t rows, int members)
{
    size_t vectors = rows * (size_t)a->heads,
           each = (vectors + (size_t)members - 1) / (size_t)members;

    return each < PL_ATTN_BLOCK ? each : PL_ATTN_BLOCK;
}

void pl_step_meet(const struct job *j, int m)
{
    pl_cpu_mark(j->n->device, m, PL_CPU_OTHER);
    pl_pool_barrier(j->n->device->pool);
    pl_cpu_mark(j->n->device, m, PL_CPU_WAIT);
}

void pl_job_shape(struct job *j, int members)
{
    const struct pl_arch *a = &j->n->arch;

    j->attn_block = attention_block(a, j->rows, members);
    j->own_norm = j->rows * pl_cpu_pitch((size_t)a->hidden) <= PL_CPU_OWN;
    j->by_head = j->rows <= BY_HEAD_ROWS && a->causal && a->kv_heads % members == 0 &&
                 a->head_dim % PL_PANEL == 0;
}

static int64_t position(const struct job *j, int32_t layer, size_t row)
{
    const struct pl_workspace *w = &j->n->work;
    const struct pl_token_tree *t = j->f->tree;

    if (j->f->positions)
        return j->f->positions[j->row0 + row];
    if (t)
        return w->row_span[row]->cache->kv[layer].next_position - (int64_t)t->base +
               t->depth[t->base + row];
    return w->row_span[row]->cache->kv[layer].next_position + (int64_t)w->row_in_span[row];
}

static void add_row(const struct pl_rows *t, size_t at, float *x, size_t n)
{
    for (size_t i = 0; t->dtype == PL_DT_F32 && i < n; i++)
        x[i] += ((const float *)t->data)[at * n + i];
    for (size_t i = 0; t->dtype != PL_DT_F32 && i < n; i++)
        x[i] += pl_cpu_load(t->dtype, t->data, at * n + i);
}

/* The pixels of a patch in the order of the conv's weights: [channel][y][x]. */
static void gather_patch(const struct pl_arch *a, const float *pixels, size_t patch, float *out)
{
    size_t p = (size_t)a->patch, size = (size_t)a->image, side = size / p;
    size_t y0 = patch / side * p, x0 = patch % side * p;

    for (size_t c = 0; c < (size_t)a->channels; c++)
        for (size_t y = 0; y < p; y++)
            memcpy(out + (c * p + y) * p, pixels + (c * size + y0 + y) * size + x0,
                   p * sizeof(float));
}

/* The class row and the patches of an image. */
static void image_rows(const struct job *j, int m, int members)
{
    const struct pl_arch *arch = &j->n->arch;
    const struct pl_workspace *w = &j->n->work;
    size_t each = j->n->patch.in, h = (size_t)arch->hidden, begin, end;
    struct pl_acts a;

    pl_pool_share(j->rows, m, members, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        if (j->row0 + r == 0)
            memset(w->patch, 0, each * sizeof(float));
        else
            gather_patch(arch, j->source->pixels, j->row0 + r - 1,
                         w->patch + r * pl_cpu_pitch(each));
    }
    pl_step_meet(j, m);
    a = pl_step_acts_of(j, w->patch, j->rows, &j->n->patch, m, members);
    pl_step_linear(j, &j->n->patch, &a, w->x, NULL, m);
    pl_step_meet(j, m);
    if (begin < end && begin == 0 && j->row0 == 0)
        memcpy(w->x, j->n->cls, h * sizeof(float));
}

/* Rows h floats long and side by side into rows of x. */
static void put_rows(const float *from, size_t h, float *x, size_t rows)
{
    for (size_t r = 0; r < rows; r++)
        memcpy(x + r * pl_cpu_pitch(h), from + r * h, h * sizeof(float));
}

void pl_step_input(const struct job *j, int m, int members)
{
    const struct pl_forward *f = j->f;
    const struct pl_network *n = j->n;
    const struct pl_source *s = j->source;
    size_t h = (size_t)n->arch.hidden, pitch = pl_cpu_pitch(h), begin, end;
    float *x = n->work.x;

    pl_pool_share(j->rows, m, members, &begin, &end);
    if (f->first_layer > 0) {
        put_rows(f->spans[0].cache->stage.data + (f->stage_row + begin) * h, h, x + begin * pitch,
                 end - begin);
        return;
    }
    if (s && s->pixels)
        image_rows(j, m, members);
    else if (f->embeds)
        put_rows(f->embeds + (j->row0 + begin) * h, h, x + begin * pitch, end - begin);
    for (size_t r = begin; r < end; r++) {
        if (!(s && s->pixels) && !f->embeds)
            pl_cpu_embed(n, f->ids + j->row0 + r, 1, x + r * pitch);
        if (n->types.data)
            add_row(&n->types, s && s->types ? (size_t)s->types[j->row0 + r] : 0, x + r * pitch, h);
        if (n->positions.data)
            add_row(&n->positions, (size_t)(position(j, 0, r) + n->arch.pos_offset), x + r * pitch,
                    h);
        if (n->embed_gain)
            n->device->kernels->norm(n->arch.norm, n->arch.norm_eps, x + r * pitch, x + r * pitch,
                                     n->embed_gain, n->embed_bias, h);
    }
}

const float *pl_step_norm(const struct job *j, const float *gain, const float *bias, int m,
                          int members)
{
    const struct pl_arch *a = &j->n->arch;
    const struct pl_workspace *w = &j->n->work;
    size_t h = (size_t)a->hidden, pitch = pl_cpu_pitch(h), begin = 0, end = j->rows;
    float *to = w->xn;

    if (j->own_norm)
        to = pl_cpu_scratch_of(j->n->device, m) + PL_GEMM_SCRATCH;
    else
        pl_pool_share(j->rows, m, members, &begin, &end);
    for (size_t r = begin; r < end; r++)
        j->n->device->kernels->norm(a->norm, a->norm_eps, to + r * pitch, w->x + r * pitch, gain,
                                    bias, h);
    pl_cpu_mark(j->n->device, m, PL_CPU_NORM);
    if (!j->own_norm)
        pl_step_meet(j, m);
    return to;
}

void pl_step_norm_x(const struct job *j, const float *gain, const float *bias, int m, int members)
{
    const struct pl_arch *a = &j->n->arch;
    size_t h = (size_t)a->hidden, pitch = pl_cpu_pitch(h), begin, end;
    float *x = j->n->work.x;

    pl_pool_share(j->rows, m, members, &begin, &end);
    for (size_t r = begin; r < end; r++)
        j->n->device->kernels->norm(a->norm, a->norm_eps, x + r * pitch, x + r * pitch, gain, bias,
                                    h);
    pl_cpu_mark(j->n->device, m, PL_CPU_NORM);
    pl_step_meet(j, m);
}

struct pl_acts pl_step_acts(const struct job *j, struct pl_acts a,
                            const struct pl_panels *const *users, size_t n, int m, int members)
{
    struct pl_device *d = j->n->device;
    struct pl_q8 *q8 = NULL;
    float *pairs = NULL;
    size_t begin = 0, end = a.rows, k = 0;

    a.ldq8 = PL_CPU_CHUNK;
    for (size_t i = 0; i < n; i++) {
        if (!users[i]->data || users[i]->acts == PL_ACTIVATIONS_F32)
            continue;
        k = users[i]->in;
        if (users[i]->acts == PL_ACTIVATIONS_INT8)
            q8 = j->n->work.q8;
        else
            pairs = j->n->work.pairs;
    }
    if (!k)
        return a;
    const bool own = !(q8 && pairs) && a.rows * pl_q8_chunks(k) <= PL_CPU_OWN_CHUNKS;
    if (own) {
        q8 = q8 ? pl_cpu_own_q8(d, m) : NULL;
        pairs = pairs ? pl_cpu_own_pairs(d, m) : NULL;
        a.ldq8 = a.rows;
    } else {
        pl_step_meet(j, m);
        pl_pool_share(a.rows, m, members, &begin, &end);
    }
    a.q8 = q8;
    a.pairs = pairs;
    a.ld_pairs = pl_cpu_pairs_pitch(k);
    for (size_t r = begin; r < end && q8; r++)
        d->kernels->quantize(a.x + r * a.ldx, k, q8 + r, a.ldq8);
    for (size_t r = begin; r < end && pairs; r++)
        d->kernels->round(a.x + r * a.ldx, k, pairs + r * a.ld_pairs);
    pl_cpu_mark(d, m, PL_CPU_QUANTIZE);
    if (!own)
        pl_step_meet(j, m);
    return a;
}

struct pl_acts pl_step_acts_of(const struct job *j, const float *x, size_t rows,
                               const struct pl_panels *user, int m, int members)
{
    struct pl_acts a = {.x = x, .ldx = pl_cpu_pitch(user->in), .rows = rows};

    return pl_step_acts(j, a, &user, 1, m, members);
}

struct pl_acts pl_step_attn_input(const struct job *j, int32_t layer, int m, int members)
{
    const struct pl_cpu_layer *w = &j->n->layers[layer];
    const struct pl_panels *const users[] = {&w->q, &w->k, &w->v};
    struct pl_acts a = {.x = j->n->work.x, .ldx = pl_cpu_pitch(w->q.in), .rows = j->rows};

    if (!j->n->arch.post_norm && w->attn_norm)
        a.x = pl_step_norm(j, w->attn_norm, w->attn_norm_bias, m, members);
    return pl_step_acts(j, a, users, 3, m, members);
}

/* Whether this layer's positions are the ones that the table was last made for. */
static bool same_positions(const struct job *j, int32_t layer)
{
    if (layer == j->f->first_layer)
        return false;
    for (size_t i = 0; i < j->f->n_spans && !j->f->positions; i++) {
        const struct pl_kv *kv = j->f->spans[i].cache->kv;
        if (kv[layer].next_position != kv[layer - 1].next_position)
            return false;
    }
    return true;
}

void pl_step_rope_table(const struct job *j, int32_t layer, int m, int members)
{
    const struct pl_workspace *w = &j->n->work;
    const struct pl_rope *rope = &j->n->arch.rope;
    size_t half = (size_t)j->n->arch.head_dim / 2, begin, end;
    float factor = rope->kind == PL_ROPE_YARN ? (float)rope->attention_factor : 1;

    if (j->n->arch.pos != PL_POS_ROPE || same_positions(j, layer))
        return;
    pl_pool_share(j->rows, m, members, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        float pos = (float)position(j, layer, r);
        for (size_t i = 0; i < half; i++) {
            float angle = pos * j->n->inv_freq[i];
            w->cos[r * half + i] = factor * cosf(angle);
            w->sin[r * half + i] = factor * sinf(angle);
        }
    }
    pl_step_meet(j, m);
}

void pl_step_linear_panels(const struct job *j, const struct pl_panels *p, const struct pl_acts *x,
                           float *y, size_t ldy, float *add_to, size_t first, size_t end, int m)
{
    const bool pairs = p->acts == PL_ACTIVATIONS_BF16;
    struct pl_gemm g = {.x = pairs ? x->pairs : x->x,
                        .q8 = p->acts == PL_ACTIVATIONS_INT8 ? x->q8 : NULL,
                        .ldx = pairs ? x->ld_pairs : x->ldx,
                        .ldq8 = x->ldq8,
                        .rows = x->rows,
                        .first = first,
                        .end = end,
                        .y = y,
                        .ldy = ldy,
                        .bias = p->bias,
                        .add_to = add_to,
                        .ld_add = pl_cpu_pitch(p->out),
                        .scratch = pl_cpu_scratch_of(j->n->device, m)};

    pl_cpu_gemm_weight(&g, p);
    pl_cpu_gemm_count(j->n->device, &g);
    j->n->device->kernels->gemm(&g);
    pl_cpu_mark(j->n->device, m, p->op);
}

/* Fewer panels than this at a time are not worth what a product does once. */
static size_t least_panels(const struct pl_panels *p, size_t rows)
{
    return rows <= 8 ? 4 : p->acts == PL_ACTIVATIONS_INT8 ? 8 : 3;
}

void pl_step_linear(const struct job *j, const struct pl_panels *p, const struct pl_acts *x,
                    float *y, float *add_to, int m)
{
    struct pl_pool *pool = j->n->device->pool;
    const size_t panels = (p->out + PL_PANEL - 1) / PL_PANEL, ldy = pl_cpu_pitch(p->out);
    size_t first, end;

    pl_pool_loop(pool, m);
    while (pl_pool_take(pool, m, panels, least_panels(p, x->rows), &first, &end))
        pl_step_linear_panels(j, p, x, y, ldy, add_to, first, end, m);
}

static void rotate(float *x, const float *cos, const float *sin, size_t half)
{
    for (size_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cos[i] - b * sin[i];
        x[i + half] = b * cos[i] + a * sin[i];
    }
}

void pl_store_kv(const struct pl_cache *c, const struct pl_kv *kv, size_t head, size_t at,
                 const float *k, const float *v)
{
    const struct pl_arch *a = &c->network->arch;
    size_t dim = (size_t)a->head_dim;
    size_t kh = pl_cpu_k_head(a, kv->cap, head) + pl_cpu_k_at(dim, at % kv->cap, 0);
    size_t vh = pl_cpu_v_head(a, kv->cap, head) + pl_cpu_v_at(dim, at % kv->cap, 0);

    if (c->dtype == PL_DT_F32) {
        float *to_k = (float *)kv->k + kh, *to_v = (float *)kv->v + vh;
        for (size_t d = 0; d < dim; d++)
            to_k[pl_cpu_k_at(dim, 0, d)] = k[d];
        size_t d = 0;
        for (; d + PL_PANEL <= dim; d += PL_PANEL)
            memcpy(to_v + pl_cpu_v_at(dim, 0, d), v + d, PL_PANEL * sizeof(*v));
        for (; d < dim; d++)
            to_v[pl_cpu_v_at(dim, 0, d)] = v[d];
        return;
    }
    for (size_t d = 0; d < dim; d++) {
        pl_cpu_store(c->dtype, kv->k, kh + pl_cpu_k_at(dim, 0, d), k[d]);
        pl_cpu_store(c->dtype, kv->v, vh + pl_cpu_v_at(dim, 0, d), v[d]);
    }
}

/* A row of one head's q or k: normed where the model does that, then turned. */
static void shape_head(const struct job *j, float *x, const float *gain, size_t row)
{
    const struct pl_arch *a = &j->n->arch;
    const struct pl_workspace *w = &j->n->work;
    size_t half = (size_t)a->head_dim / 2;

    if (gain)
        j->n->device->kernels->norm(PL_NORM_RMS, a->norm_eps, x, x, gain, NULL,
                                    (size_t)a->head_dim);
    if (a->pos == PL_POS_ROPE)
        rotate(x, w->cos + row * half, w->sin + row * half, half);
}

void pl_step_rope_q(const struct job *j, int32_t layer, size_t head, size_t row, size_t end)
{
    const struct pl_arch *a = &j->n->arch;
    const float *gain = j->n->layers[layer].q_norm;
    size_t dim = (size_t)a->head_dim, pitch = pl_cpu_pitch((size_t)a->heads * dim);

    for (size_t r = row; r < end && (gain || a->pos == PL_POS_ROPE); r++)
        shape_head(j, j->n->work.q + r * pitch + head * dim, gain, r);
}

void pl_step_rope_and_store(const struct job *j, int32_t layer, size_t head, size_t row, size_t end)
{
    const struct pl_arch *a = &j->n->arch;
    const struct pl_workspace *w = &j->n->work;
    size_t dim = (size_t)a->head_dim, pitch = pl_cpu_pitch((size_t)a->kv_heads * dim);

    for (size_t r = row; r < end; r++) {
        float *k = w->k + r * pitch + head * dim;
        const struct pl_cache *c = w->row_span[r]->cache;
        const struct pl_kv *kv = &c->kv[layer];
        size_t at = (a->causal ? kv->len : j->row0) + w->row_in_span[r];
        shape_head(j, k, j->n->layers[layer].k_norm, r);
        pl_store_kv(c, kv, head, at, k, w->v + r * pitch + head * dim);
    }
}

/* Rows of one sequence that attend to the same keys. */
struct view {
    struct pl_cache *c;
    const struct pl_kv *kv;
    size_t row0, rows; /* in the workspace */
    bool cross;
};

/* Keys that query vector i of row `row` sees, and what is added to their scores. */
static void aim(const struct job *j, const struct view *v, struct pl_attend *t, size_t i,
                size_t row, size_t head)
{
    const struct pl_arch *a = &j->n->arch;
    const struct pl_cache *c = v->c;
    bool causal = a->causal && !v->cross;
    size_t at = causal ? v->kv->len + row : j->row0 + row;

    t->len[i] = causal ? at + 1 : v->kv->len;
    t->first[i] = causal ? pl_kv_first(v->kv, at) : 0;
    if (c->relative && !v->cross)
        t->bias[i] = c->relative + head * (2 * c->padded + PL_ATTN_CHUNK) + c->padded - at;
}

/* One attend call: query vectors [first, first + n) of a view and KV head, counted row by row,
 * within a row head by head. */
static void attend_block(const struct job *j, const struct view *v, size_t kv_head, size_t first,
                         size_t n, int m)
{
    const struct pl_arch *a = &j->n->arch;
    const struct pl_workspace *w = &j->n->work;
    size_t dim = (size_t)a->head_dim, group = (size_t)(a->heads / a->kv_heads);
    const struct pl_cache *seen = v->cross ? v->c->source : v->c;
    size_t bytes = pl_cpu_dtype_bytes(v->c->dtype), seen_keys = 0, read = 0;
    struct pl_attend t = {.n = n,
                          .dim = dim,
                          .ring = v->kv->cap,
                          .mask = seen->masked ? seen->mask : NULL,
                          .k = (char *)v->kv->k + pl_cpu_k_head(a, v->kv->cap, kv_head) * bytes,
                          .v = (char *)v->kv->v + pl_cpu_v_head(a, v->kv->cap, kv_head) * bytes,
                          .dtype = v->c->dtype,
                          .scale = a->unscaled ? 1.0f : 1.0f / sqrtf((float)dim),
                          .scratch = pl_cpu_scratch_of(j->n->device, m)};

    for (size_t i = 0; i < n; i++) {
        size_t row = (first + i) / group, head = kv_head * group + (first + i) % group;
        size_t at = (v->row0 + row) * pl_cpu_pitch((size_t)a->heads * dim) + head * dim;
        t.q[i] = w->q + at;
        t.out[i] = w->att + at;
        aim(j, v, &t, i, row, head);
    }
    j->n->device->kernels->attend(&t);
    for (size_t i = 0; i < n; i++)
        seen_keys += t.len[i] - t.first[i];
    if (first + n == v->rows * group) { /* the block that reads the last of this head's keys */
        size_t from = a->causal && !v->cross ? pl_kv_first(v->kv, v->kv->len) : 0;
        read = (t.len[n - 1] - from) * dim * 2 * bytes;
        __atomic_fetch_add(&v->c->kv_read, (int64_t)read, __ATOMIC_RELAXED);
    }
    pl_cpu_count(j->n->device, 4 * dim * seen_keys, read);
}

/* Query rows of span s. */
static size_t view_rows(const struct job *j, size_t s)
{
    return j->n->arch.causal || j->f->n_spans > 1 ? j->f->spans[s].rows : j->rows;
}

/* Blocks of query vectors of all spans and KV heads. */
static size_t attention_items(const struct job *j, size_t group)
{
    size_t n = 0;

    for (size_t s = 0; s < j->f->n_spans; s++)
        n += (view_rows(j, s) * group + j->attn_block - 1) / j->attn_block;
    return n * (size_t)j->n->arch.kv_heads;
}

void pl_step_attention(const struct job *j, int32_t layer, bool cross, int m, int members)
{
    const struct pl_arch *a = &j->n->arch;
    size_t group = (size_t)(a->heads / a->kv_heads), kv_heads = (size_t)a->kv_heads;
    size_t first = 0, end = kv_heads, item = 0, row0 = 0;
    size_t items = attention_items(j, group), taken = 0, taken_end = 0;

    if (j->by_head)
        pl_pool_share(kv_heads, m, members, &first, &end);
    else
        pl_pool_loop(j->n->device->pool, m);
    for (size_t s = 0; s < j->f->n_spans; s++) {
        const struct pl_span *span = &j->f->spans[s];
        struct pl_cache *c = span->cache;
        struct view v = {.c = c,
                         .kv = cross ? &c->cross[layer] : &c->kv[layer],
                         .row0 = row0,
                         .rows = view_rows(j, s),
                         .cross = cross};
        size_t vectors = v.rows * group;
        for (size_t h = first; h < end; h++) {
            for (size_t at = 0; at < vectors; at += j->attn_block, item++) {
                size_t n = vectors - at < j->attn_block ? vectors - at : j->attn_block;
                if (!j->by_head && item >= taken_end &&
                    !pl_pool_take(j->n->device->pool, m, items, 1, &taken, &taken_end))
                    taken = taken_end = items;
                if (j->by_head || item >= taken)
                    attend_block(j, &v, h, at, n, m);
            }
        }
        row0 += v.rows;
    }
    pl_cpu_mark(j->n->device, m, PL_CPU_ATTENTION);
}

/* act(gate) · up on the columns of some panels. */
static void activate(const struct job *j, size_t first, size_t last, int m)
{
    const struct pl_arch *a = &j->n->arch;
    const struct pl_workspace *w = &j->n->work;
    size_t ffn = (size_t)a->ffn, begin = first * PL_PANEL, end = last * PL_PANEL;
    size_t pitch = pl_cpu_pitch(ffn);

    end = end < ffn ? end : ffn;
    for (size_t r = 0; r < j->rows; r++) {
        float *up = w->up + r * pitch + begin;
        j->n->device->kernels->act(a->act, up, a->gated ? w->gate + r * pitch + begin : up,
                                   a->gated ? up : NULL, end - begin);
    }
    pl_cpu_mark(j->n->device, m, PL_CPU_ACT);
}

/* up = act(x · gate) · (x · up), by columns. */
static void ffn_input(const struct job *j, const struct pl_cpu_layer *w, const struct pl_acts *x,
                      int m)
{
    struct pl_pool *pool = j->n->device->pool;
    struct pl_workspace *b = &j->n->work;
    const size_t panels = (w->up.out + PL_PANEL - 1) / PL_PANEL, ldy = pl_cpu_pitch(w->up.out);
    size_t first, end;

    pl_pool_loop(pool, m);
    while (pl_pool_take(pool, m, panels, least_panels(&w->up, j->rows), &first, &end)) {
        if (w->gate.data)
            pl_step_linear_panels(j, &w->gate, x, b->gate, ldy, NULL, first, end, m);
        pl_step_linear_panels(j, &w->up, x, b->up, ldy, NULL, first, end, m);
        activate(j, first, end, m);
    }
}

void pl_step_taps(const struct job *j, int tap_layer, const float *from, int m, int members)
{
    const struct pl_workspace *w = &j->n->work;
    size_t h = (size_t)j->n->arch.hidden, begin, end;

    pl_pool_share(j->rows, m, members, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        struct pl_cache *c = w->row_span[r]->cache;
        for (size_t t = 0; t < c->n_taps; t++)
            if (c->tap_layers[t] == tap_layer)
                memcpy(c->taps[t].data + (j->f->tap_row + j->row0 + w->row_in_span[r]) * h,
                       from + r * pl_cpu_pitch(h), h * sizeof(float));
    }
}

/* x += cross attention to the source. */
static void cross_attention(const struct job *j, int32_t l, int m, int members)
{
    const struct pl_cpu_layer *w = &j->n->layers[l];
    struct pl_workspace *b = &j->n->work;
    const struct pl_arch *a = &j->n->arch;
    size_t per_head = (size_t)a->head_dim / PL_PANEL, first, end;
    const float *xn = pl_step_norm(j, w->cross_norm, NULL, m, members);
    struct pl_acts x = pl_step_acts_of(j, xn, j->rows, &w->cross_q, m, members);

    if (j->by_head) {
        pl_pool_share((size_t)a->kv_heads, m, members, &first, &end);
        pl_step_linear_panels(j, &w->cross_q, &x, b->q, pl_cpu_pitch(w->cross_q.out), NULL,
                              first * per_head, end * per_head, m);
    } else {
        pl_step_linear(j, &w->cross_q, &x, b->q, NULL, m);
        pl_step_meet(j, m);
    }
    pl_step_attention(j, l, true, m, members);
    pl_step_meet(j, m);
    x = pl_step_acts_of(j, b->att, j->rows, &w->cross_o, m, members);
    pl_step_linear(j, &w->cross_o, &x, b->xn, b->x, m);
    pl_step_meet(j, m);
}

void pl_step_rest(const struct job *j, int32_t layer, int m, int members)
{
    const struct pl_cpu_layer *w = &j->n->layers[layer];
    struct pl_workspace *b = &j->n->work;
    bool post = j->n->arch.post_norm;
    const struct pl_panels *const ffn[] = {&w->gate, &w->up};
    struct pl_acts a = pl_step_acts_of(j, b->att, j->rows, &w->o, m, members);

    pl_step_linear(j, &w->o, &a, b->xn, b->x, m);
    pl_step_meet(j, m);
    if (w->cross_q.data)
        cross_attention(j, layer, m, members);
    a = (struct pl_acts){.x = b->x, .ldx = pl_cpu_pitch(w->up.in), .rows = j->rows};
    if (post)
        pl_step_norm_x(j, w->attn_norm, w->attn_norm_bias, m, members);
    else
        a.x = pl_step_norm(j, w->ffn_norm, w->ffn_norm_bias, m, members);
    a = pl_step_acts(j, a, ffn, 2, m, members);
    ffn_input(j, w, &a, m);
    pl_step_meet(j, m);
    a = pl_step_acts_of(j, b->up, j->rows, &w->down, m, members);
    pl_step_linear(j, &w->down, &a, b->xn, b->x, m);
    pl_step_meet(j, m);
    if (post)
        pl_step_norm_x(j, w->ffn_norm, w->ffn_norm_bias, m, members);
    pl_step_taps(j, layer + 1, b->x, m, members);
}
