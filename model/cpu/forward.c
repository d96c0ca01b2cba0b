#include "model/cpu/cpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/*
 * One forward is one run of the thread pool: every member walks the same list of steps, takes its
 * share of each and meets the others at a barrier where a step reads what another member wrote.
 */
struct job {
    struct pl_network *n;
    const struct pl_forward *f;
    size_t rows;
    size_t attn_block; /* query vectors of one attend call */
    bool own_norm; /* few rows: every member norms all of them, which costs less than a barrier */
    bool by_head;  /* members own whole KV heads from the projections through attention: no barrier
                      there */
};

static void step_input(const struct job *j, int m, int members)
{
    const struct pl_forward *f = j->f;
    size_t h = (size_t)j->n->arch.hidden, begin, end;
    float *x = j->n->work.x;

    pl_pool_share(j->rows, m, members, &begin, &end);
    if (f->first_layer > 0)
        memcpy(x + begin * h, f->spans[0].cache->stage.data + (f->stage_row + begin) * h,
               (end - begin) * h * sizeof(float));
    else if (f->embeds)
        memcpy(x + begin * h, f->embeds + begin * h, (end - begin) * h * sizeof(float));
    else
        pl_cpu_embed(j->n, f->ids + begin, end - begin, x + begin * h);
}

/* Returns where this member finds the normed rows: in the workspace after a barrier, or its own. */
static const float *step_norm(const struct job *j, const float *gain, int m, int members)
{
    const struct pl_arch *a = &j->n->arch;
    const struct pl_workspace *w = &j->n->work;
    size_t h = (size_t)a->hidden, begin = 0, end = j->rows;
    float *to = w->xn;

    if (j->own_norm)
        to = pl_cpu_scratch_of(j->n->device, m) + PL_GEMM_SCRATCH;
    else
        pl_pool_share(j->rows, m, members, &begin, &end);
    for (size_t r = begin; r < end; r++)
        j->n->device->kernels->norm(a->norm, a->norm_eps, to + r * h, w->x + r * h, gain, NULL, h);
    if (!j->own_norm)
        pl_pool_barrier(j->n->device->pool);
    return to;
}

static int64_t position(const struct job *j, int32_t layer, size_t row)
{
    const struct pl_workspace *w = &j->n->work;

    if (j->f->positions)
        return j->f->positions[row];
    return w->row_span[row]->cache->kv[layer].next_position + (int64_t)w->row_in_span[row];
}

/* Whether this layer's positions are the ones that the table was last made for. */
static bool same_positions(const struct job *j, int32_t layer)
{
    if (layer == j->f->first_layer)
        return false;
    for (size_t i = 0; i < j->f->n_spans && !j->f->positions; i++) {
        const struct pl_cpu_kv *kv = j->f->spans[i].cache->kv;
        if (kv[layer].next_position != kv[layer - 1].next_position)
            return false;
    }
    return true;
}

static void step_rope_table(const struct job *j, int32_t layer, int m, int members)
{
    const struct pl_workspace *w = &j->n->work;
    size_t half = (size_t)j->n->arch.head_dim / 2, begin, end;

    if (j->n->arch.pos != PL_POS_ROPE || same_positions(j, layer))
        return;
    pl_pool_share(j->rows, m, members, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        float pos = (float)position(j, layer, r);
        for (size_t i = 0; i < half; i++) {
            float angle = pos * j->n->inv_freq[i];
            w->cos[r * half + i] = cosf(angle);
            w->sin[r * half + i] = sinf(angle);
        }
    }
    pl_pool_barrier(j->n->device->pool);
}

/* y[rows, out] = x · wᵀ + bias for the panels [first, end); then added to add_to, where that is
 * given. */
static void linear_panels(const struct job *j, const struct pl_panels *p, const float *x,
                          size_t rows, float *y, float *add_to, size_t first, size_t end, int m)
{
    struct pl_gemm g = {.x = x,
                        .ldx = p->in,
                        .rows = rows,
                        .first = first,
                        .end = end,
                        .y = y,
                        .ldy = p->out,
                        .bias = p->bias,
                        .add_to = add_to,
                        .ld_add = p->out,
                        .scratch = pl_cpu_scratch_of(j->n->device, m)};

    pl_cpu_gemm_weight(&g, p);
    j->n->device->kernels->gemm(&g);
}

/* The same for this member's share of all panels. */
static void step_linear(const struct job *j, const struct pl_panels *p, const float *x, size_t rows,
                        float *y, float *add_to, int m, int members)
{
    size_t first, end;

    pl_pool_share((p->out + PL_PANEL - 1) / PL_PANEL, m, members, &first, &end);
    linear_panels(j, p, x, rows, y, add_to, first, end, m);
}

/* q, k and v: a share of each, or by_head those of this member's KV heads. */
static void step_qkv(const struct job *j, const struct pl_cpu_layer *w, const float *x, int m,
                     int members)
{
    const struct pl_arch *a = &j->n->arch;
    const struct pl_workspace *b = &j->n->work;
    size_t per_kv = (size_t)a->head_dim / PL_PANEL, first, end;
    size_t per_q = per_kv * (size_t)(a->heads / a->kv_heads);

    if (!j->by_head) {
        step_linear(j, &w->q, x, j->rows, b->q, NULL, m, members);
        step_linear(j, &w->k, x, j->rows, b->k, NULL, m, members);
        step_linear(j, &w->v, x, j->rows, b->v, NULL, m, members);
        pl_pool_barrier(j->n->device->pool);
        return;
    }
    pl_pool_share((size_t)a->kv_heads, m, members, &first, &end);
    linear_panels(j, &w->q, x, j->rows, b->q, NULL, first * per_q, end * per_q, m);
    linear_panels(j, &w->k, x, j->rows, b->k, NULL, first * per_kv, end * per_kv, m);
    linear_panels(j, &w->v, x, j->rows, b->v, NULL, first * per_kv, end * per_kv, m);
}

static void rotate(float *x, const float *cos, const float *sin, size_t half)
{
    for (size_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cos[i] - b * sin[i];
        x[i + half] = b * cos[i] + a * sin[i];
    }
}

static void store_kv(struct pl_cache *c, int32_t layer, size_t head, size_t at, const float *k,
                     const float *v)
{
    size_t dim = (size_t)c->network->arch.head_dim;
    struct pl_cpu_kv *kv = &c->kv[layer];
    size_t kh = pl_cpu_k_head(c, head), vh = pl_cpu_v_head(c, head);

    for (size_t d = 0; d < dim; d++) {
        pl_cpu_store(c->dtype, kv->k, kh + pl_cpu_k_at(dim, at, d), k[d]);
        pl_cpu_store(c->dtype, kv->v, vh + pl_cpu_v_at(dim, at, d), v[d]);
    }
}

/* RoPE on the q of one head's rows. */
static void rope_q(const struct job *j, size_t head)
{
    const struct pl_arch *a = &j->n->arch;
    const struct pl_workspace *w = &j->n->work;
    size_t dim = (size_t)a->head_dim, half = dim / 2;

    for (size_t r = 0; r < j->rows && a->pos == PL_POS_ROPE; r++)
        rotate(w->q + (r * (size_t)a->heads + head) * dim, w->cos + r * half, w->sin + r * half,
               half);
}

/* RoPE on the k of one KV head's rows, and K and V into the cache. */
static void rope_and_store(const struct job *j, int32_t layer, size_t head)
{
    const struct pl_arch *a = &j->n->arch;
    const struct pl_workspace *w = &j->n->work;
    size_t dim = (size_t)a->head_dim, half = dim / 2, kv_heads = (size_t)a->kv_heads;

    for (size_t r = 0; r < j->rows; r++) {
        float *k = w->k + (r * kv_heads + head) * dim;
        struct pl_cache *c = w->row_span[r]->cache;
        if (a->pos == PL_POS_ROPE)
            rotate(k, w->cos + r * half, w->sin + r * half, half);
        store_kv(c, layer, head, c->kv[layer].len + w->row_in_span[r], k,
                 w->v + (r * kv_heads + head) * dim);
    }
}

static void step_rope_and_store(const struct job *j, int32_t layer, int m, int members)
{
    const struct pl_arch *a = &j->n->arch;
    size_t heads = (size_t)a->heads, kv_heads = (size_t)a->kv_heads;
    size_t group = heads / kv_heads, begin, end;

    if (j->by_head) {
        pl_pool_share(kv_heads, m, members, &begin, &end);
        for (size_t h = begin * group; h < end * group; h++)
            rope_q(j, h);
        for (size_t h = begin; h < end; h++)
            rope_and_store(j, layer, h);
        return;
    }
    pl_pool_share(heads + kv_heads, m, members, &begin, &end);
    for (size_t u = begin; u < end; u++) {
        if (u < heads)
            rope_q(j, u);
        else
            rope_and_store(j, layer, u - heads);
    }
    pl_pool_barrier(j->n->device->pool);
}

/* One attend call: query vectors [first, first + n) of a span and KV head, counted row by row,
 * within a row head by head. */
static void attend_block(const struct job *j, int32_t layer, const struct pl_span *s, size_t row0,
                         size_t kv_head, size_t first, size_t n, int m)
{
    const struct pl_arch *a = &j->n->arch;
    const struct pl_workspace *w = &j->n->work;
    size_t dim = (size_t)a->head_dim, group = (size_t)(a->heads / a->kv_heads);
    struct pl_cache *c = s->cache;
    size_t bytes = pl_cpu_dtype_bytes(c->dtype);
    struct pl_attend t = {.n = n,
                          .dim = dim,
                          .k = (char *)c->kv[layer].k + pl_cpu_k_head(c, kv_head) * bytes,
                          .v = (char *)c->kv[layer].v + pl_cpu_v_head(c, kv_head) * bytes,
                          .dtype = c->dtype,
                          .scale = 1.0f / sqrtf((float)dim),
                          .scratch = pl_cpu_scratch_of(j->n->device, m)};

    for (size_t i = 0; i < n; i++) {
        size_t row = (first + i) / group, head = kv_head * group + (first + i) % group;
        size_t at = ((row0 + row) * (size_t)a->heads + head) * dim;
        t.q[i] = w->q + at;
        t.out[i] = w->att + at;
        t.len[i] = c->kv[layer].len + row + 1;
    }
    j->n->device->kernels->attend(&t);
    if (first + n == s->rows * group) /* the block that reads all of this head's keys */
        __atomic_fetch_add(&c->kv_read, (int64_t)(t.len[n - 1] * dim * 2 * bytes),
                           __ATOMIC_RELAXED);
}

static void step_attention(const struct job *j, int32_t layer, int m, int members)
{
    const struct pl_arch *a = &j->n->arch;
    size_t group = (size_t)(a->heads / a->kv_heads), kv_heads = (size_t)a->kv_heads;
    size_t first = 0, end = kv_heads, item = 0, row0 = 0;

    if (j->by_head)
        pl_pool_share(kv_heads, m, members, &first, &end);
    for (size_t s = 0; s < j->f->n_spans; s++) {
        const struct pl_span *span = &j->f->spans[s];
        size_t vectors = span->rows * group;
        for (size_t h = first; h < end; h++) {
            for (size_t at = 0; at < vectors; at += j->attn_block, item++) {
                size_t n = vectors - at < j->attn_block ? vectors - at : j->attn_block;
                if (j->by_head || item % (size_t)members == (size_t)m)
                    attend_block(j, layer, span, row0, h, at, n, m);
            }
        }
        row0 += span->rows;
    }
}

/* Adds the rows' attention probabilities to the cache's column sums, a KV head's to a member. */
static void step_sums(const struct job *j, int32_t layer, int m, int members)
{
    const struct pl_arch *a = &j->n->arch;
    struct pl_cache *c = j->f->spans[0].cache;
    size_t dim = (size_t)a->head_dim, group = (size_t)(a->heads / a->kv_heads), begin, end;
    size_t bytes = pl_cpu_dtype_bytes(c->dtype);
    float *scratch = pl_cpu_scratch_of(j->n->device, m), *p = scratch + PL_GEMM_SCRATCH;

    pl_pool_share((size_t)a->kv_heads, m, members, &begin, &end); /* as by_head has it */
    for (size_t h = begin * group; h < end * group; h++) {
        const char *k = (char *)c->kv[layer].k + pl_cpu_k_head(c, h / group) * bytes;
        float *sums = c->sums.data + h * c->sums.cols;
        for (size_t r = j->f->sums_skip; r < j->rows; r++) {
            size_t len = c->kv[layer].len + r + 1;
            j->n->device->kernels->weights(p, j->n->work.q + (r * (size_t)a->heads + h) * dim, dim,
                                           k, c->dtype, len, 1.0f / sqrtf((float)dim), scratch);
            for (size_t i = 0; i < len; i++)
                sums[i] += p[i];
        }
    }
}

/* act(gate) · up on the columns that this member has just computed. */
static void step_activate(const struct job *j, int m, int members)
{
    const struct pl_arch *a = &j->n->arch;
    const struct pl_workspace *w = &j->n->work;
    size_t ffn = (size_t)a->ffn, begin, end;

    pl_pool_share((ffn + PL_PANEL - 1) / PL_PANEL, m, members, &begin, &end);
    begin *= PL_PANEL;
    end = end * PL_PANEL < ffn ? end * PL_PANEL : ffn;
    for (size_t r = 0; r < j->rows && begin < end; r++) {
        float *up = w->up + r * ffn + begin;
        j->n->device->kernels->act(a->act, up, a->gated ? w->gate + r * ffn + begin : up,
                                   a->gated ? up : NULL, end - begin);
    }
}

/* Copies rows of `from` into every tap of the given layer. */
static void step_taps(const struct job *j, int tap_layer, const float *from, int m, int members)
{
    const struct pl_workspace *w = &j->n->work;
    size_t h = (size_t)j->n->arch.hidden, begin, end;

    pl_pool_share(j->rows, m, members, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        struct pl_cache *c = w->row_span[r]->cache;
        for (size_t t = 0; t < c->n_taps; t++)
            if (c->tap_layers[t] == tap_layer)
                memcpy(c->taps[t].data + (j->f->tap_row + w->row_in_span[r]) * h, from + r * h,
                       h * sizeof(float));
    }
}

static void run_layer(const struct job *j, int32_t l, int m, int members)
{
    const struct pl_cpu_layer *w = &j->n->layers[l];
    struct pl_workspace *b = &j->n->work;
    struct pl_pool *pool = j->n->device->pool;
    const float *x;

    step_rope_table(j, l, m, members);
    x = step_norm(j, w->attn_norm, m, members);
    step_qkv(j, w, x, m, members);
    step_rope_and_store(j, l, m, members);
    step_attention(j, l, m, members);
    if (j->f->sums_layer == l && j->f->spans[0].cache->sums.data)
        step_sums(j, l, m, members);
    pl_pool_barrier(pool);
    step_linear(j, &w->o, b->att, j->rows, b->xn, b->x, m, members);
    pl_pool_barrier(pool);
    x = step_norm(j, w->ffn_norm, m, members);
    if (w->gate.data)
        step_linear(j, &w->gate, x, j->rows, b->gate, NULL, m, members);
    step_linear(j, &w->up, x, j->rows, b->up, NULL, m, members);
    step_activate(j, m, members);
    pl_pool_barrier(pool);
    step_linear(j, &w->down, b->up, j->rows, b->xn, b->x, m, members);
    pl_pool_barrier(pool);
    step_taps(j, l + 1, b->x, m, members);
}

static void step_output(const struct job *j, int m, int members)
{
    const struct pl_forward *f = j->f;
    struct pl_network *n = j->n;
    size_t h = (size_t)n->arch.hidden, vocab = (size_t)n->arch.vocab, begin, end, row = 0;

    if (f->end_layer < n->arch.layers || f->to_stage) {
        pl_pool_share(j->rows, m, members, &begin, &end);
        memcpy(f->spans[0].cache->stage.data + (f->stage_row + begin) * h, n->work.x + begin * h,
               (end - begin) * h * sizeof(float));
        return;
    }
    const float *x = step_norm(j, n->final_gain, m, members);
    step_taps(j, -1, x, m, members);
    if (f->want == PL_LOGITS_ALL || (f->want == PL_LOGITS_LAST && j->rows == f->n_spans)) {
        step_linear(j, &n->head_panels, x, j->rows, f->logits, NULL, m, members);
    } else if (f->want == PL_LOGITS_LAST) {
        for (size_t s = 0; s < f->n_spans; s++) {
            row += f->spans[s].rows;
            step_linear(j, &n->head_panels, x + (row - 1) * h, 1, f->logits + s * vocab, NULL, m,
                        members);
        }
    }
}

static void forward_member(void *arg, int m, int members)
{
    const struct job *j = arg;

    step_input(j, m, members);
    pl_pool_barrier(j->n->device->pool);
    for (int32_t l = j->f->first_layer; l < j->f->end_layer; l++)
        run_layer(j, l, m, members);
    step_output(j, m, members);
}

/* Small blocks where there are few query vectors, so that every member gets some. The bits do not
 * depend on it. */
static size_t attention_block(const struct pl_arch *a, size_t rows, int members)
{
    size_t vectors = rows * (size_t)a->heads,
           each = (vectors + (size_t)members - 1) / (size_t)members;

    return each < PL_ATTN_BLOCK ? each : PL_ATTN_BLOCK;
}

enum pl_status pl_cpu_forward(struct pl_network *n, const struct pl_forward *f, struct pl_err *err)
{
    struct job j = {.n = n, .f = f};

    for (size_t s = 0; s < f->n_spans; s++) {
        struct pl_cache *c = f->spans[s].cache;
        if (f->spans[s].rows > PL_CPU_CHUNK - j.rows)
            return pl_fail(err, PL_ERANGE, "more than %d rows in one forward", PL_CPU_CHUNK);
        for (int32_t l = f->first_layer; l < f->end_layer; l++)
            if (f->spans[s].rows > c->max_tokens - c->kv[l].len)
                return pl_fail(err, PL_ERANGE, "the KV cache of %zu tokens is full", c->max_tokens);
        for (size_t r = 0; r < f->spans[s].rows; r++, j.rows++) {
            n->work.row_span[j.rows] = &f->spans[s];
            n->work.row_in_span[j.rows] = r;
        }
        c->kv_read = 0;
    }
    if (!j.rows)
        return pl_fail(err, PL_ERANGE, "a forward without rows");
    int members = pl_pool_threads(n->device->pool);
    j.attn_block = attention_block(&n->arch, j.rows, members);
    j.own_norm = j.rows * (size_t)n->arch.hidden <= PL_CPU_OWN;
    j.by_head = n->arch.kv_heads % members == 0 && n->arch.head_dim % PL_PANEL == 0;
    pl_pool_run(n->device->pool, forward_member, &j);
    for (size_t s = 0; s < f->n_spans; s++) {
        for (int32_t l = f->first_layer; l < f->end_layer; l++) {
            struct pl_cpu_kv *kv = &f->spans[s].cache->kv[l];
            size_t rows = f->spans[s].rows;
            kv->len += rows;
            kv->next_position =
                f->positions ? f->positions[j.rows - 1] + 1 : kv->next_position + (int64_t)rows;
        }
    }
    return PL_OK;
}
