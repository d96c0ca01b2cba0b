#include "model/cuda/cuda.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FINAL (-1) /* the tap behind the final norm */

/* One forward or encode on its way: what every step needs. */
struct run {
    struct pl_network *n;
    const struct pl_forward *f;
    struct pl_cuda_step step;  /* with the device's addresses */
    struct pl_cuda_step cross; /* the same rows, with K and V of the source */
    int32_t rows, max_span, splits, cross_splits, longest;
    int32_t chunk;       /* keys of a split at fixed places; 0: they are where it suits */
    bool gemm;           /* inputs of products are of `act`, not f32 */
    enum pl_dtype input; /* f32, or act */
    const float *mask;
    enum pl_status st;
    struct pl_err *err;
};

/* A step as it is laid out, on the host or the device. */
static struct pl_cuda_step step_at(const struct pl_cuda_work *w, char *base)
{
    size_t tree = pl_cuda_step_numbers(w->rows), head = pl_cuda_step_head(w->rows);
    int32_t *p = (int32_t *)(void *)base;

    return (struct pl_cuda_step){.ids = p,
                                 .positions = p + w->rows,
                                 .types = p + 2 * w->rows,
                                 .span = p + 3 * w->rows,
                                 .in_span = p + 4 * w->rows,
                                 .span_row = p + 5 * w->rows,
                                 .ends = p + 5 * w->rows + PL_CUDA_SPANS + 1,
                                 .picks = p + 5 * w->rows + PL_CUDA_SPANS + 1 + PL_MAX_EOS,
                                 .tree = p + tree,
                                 .kv = (struct pl_cuda_kv *)(void *)(base + head)};
}

static void fill(int32_t *to, const int32_t *from, size_t n)
{
    if (from)
        memcpy(to, from, n * sizeof(*to));
}

/* What each row of the tree sees of it: its parent's bits and its own. */
static void fill_tree(const struct pl_token_tree *t, size_t rows, int32_t *to)
{
    uint32_t bits[PL_TREE_MAX][PL_CUDA_TREE_WORDS];
    size_t all = t->base + rows;

    to[0] = (int32_t)t->base;
    memcpy(to + 1, t->depth, all * sizeof(*to));
    for (size_t i = 0; i < all; i++) {
        if (t->parents[i] < 0)
            memset(bits[i], 0, sizeof(bits[i]));
        else
            memcpy(bits[i], bits[t->parents[i]], sizeof(bits[i]));
        bits[i][i / 32] |= 1u << i % 32;
    }
    memcpy(to + PL_CUDA_TREE_HEAD, bits[t->base], rows * sizeof(bits[0]));
}

/* Writes the step on the host and sends it: the layers' K and V, then those of the source. */
static enum pl_status send_step(struct run *r, const struct pl_source *source)
{
    struct pl_cuda_work *w = &r->n->work;
    const struct pl_forward *f = r->f;
    struct pl_cuda_step host = step_at(w, w->step_host);
    size_t row = 0, layers = (size_t)r->n->arch.layers, n = f->n_spans;
    struct pl_cuda_kv *kv = (struct pl_cuda_kv *)(void *)host.kv;
    enum pl_status st = PL_OK;

    if (w->step_busy)
        st = pl_cuda_sync(r->n->device, "forward", r->err);
    if (st)
        return st;
    fill((int32_t *)host.ids, f->ids, (size_t)r->rows);
    fill((int32_t *)host.positions, f->positions, (size_t)r->rows);
    fill((int32_t *)host.types, source ? source->types : NULL, (size_t)r->rows);
    if (f->tree)
        fill_tree(f->tree, (size_t)r->rows, (int32_t *)host.tree);
    for (size_t i = 0; i < PL_MAX_EOS; i++)
        ((int32_t *)host.ends)[i] = i < f->n_ends ? f->ends[i] : -1;
    for (size_t s = 0; s < n; s++) {
        const struct pl_cache *c = f->spans[s].cache;
        ((int32_t *)host.span_row)[s] = (int32_t)row;
        for (size_t i = 0; i < f->spans[s].rows; i++, row++) {
            ((int32_t *)host.span)[row] = (int32_t)s;
            ((int32_t *)host.in_span)[row] = (int32_t)i;
        }
        for (size_t l = 0; l < layers; l++) {
            kv[l * n + s] = pl_cuda_kv(&c->kv[l]);
            kv[(layers + l) * n + s] = pl_cuda_kv(&c->cross[l]);
        }
    }
    ((int32_t *)host.span_row)[n] = (int32_t)row;
    r->step = step_at(w, w->step);
    r->step.rows = r->rows;
    r->step.n_spans = (int32_t)n;
    r->step.ids = f->ids ? r->step.ids : NULL;
    r->step.positions = f->positions ? r->step.positions : NULL;
    r->step.types = source && source->types ? r->step.types : NULL;
    r->step.tree = f->tree ? r->step.tree : NULL;
    r->cross = r->step;
    r->cross.kv += layers * n;
    r->cross.tree = NULL;
    w->step_busy = true;
    return pl_cuda_check(
        cudaMemcpyAsync(w->step, w->step_host,
                        (size_t)((char *)(kv + 2 * layers * n) - (char *)w->step_host),
                        cudaMemcpyHostToDevice, r->n->device->stream),
        "forward", r->err);
}

static void count_product(struct pl_device *d, const struct pl_cuda_matrix *w, int64_t rows)
{
    d->work.flops += 2 * rows * w->in * w->out;
    d->work.bytes += w->out * (int64_t)w->row_bytes;
}

enum pl_status pl_cuda_product(struct pl_device *d, const struct pl_cuda_matrix *w, const void *x,
                               int64_t rows, enum pl_dtype act, void *decoded, float *y, bool add,
                               struct pl_err *err)
{
    const int64_t most = (int64_t)(PL_CUDA_DECODED / (act == PL_DT_F32 ? 4 : 2)) / w->in;
    struct pl_cuda_gemm_call c = {
        .dtype = act, .x = x, .in = w->in, .rows = rows, .ldy = w->out, .add = add};
    enum pl_status st = PL_OK;

    count_product(d, w, rows);
    if (pl_cuda_few(d, rows)) {
        for (int64_t r = 0; r < rows; r += PL_CUDA_GEMV_ROWS) {
            struct pl_cuda_product p = {.w = w, .y = y + r * w->out, .add = add};
            pl_k_gemv(&p, 1, (const float *)x + r * w->in,
                      (int)(rows - r < PL_CUDA_GEMV_ROWS ? rows - r : PL_CUDA_GEMV_ROWS),
                      d->stream);
        }
        return PL_OK;
    }
    if (w->dtype != act && !most)
        return pl_fail(err, PL_EUNSUPPORTED, "a matrix with rows of %lld", (long long)w->in);
    for (int64_t at = 0; at < w->out && !st; at += c.out) {
        struct pl_cuda_matrix part = *w;
        part.data = (char *)w->data + (size_t)at * w->row_bytes;
        part.out = w->dtype == act || w->out - at < most ? w->out - at : most;
        c.w = part.data;
        if (w->dtype != act) {
            pl_k_decode(&part, act, decoded, d->stream);
            c.w = decoded;
        }
        c.out = part.out;
        c.y = y + at;
        st = pl_cuda_gemm_run(d->gemm, &c, d->stream, err);
    }
    if (!st && w->bias)
        pl_k_add_bias(y, w->bias, (int)rows, w->out, d->stream);
    return st;
}

/* Products of one input; those of one type and few rows go out together. */
static void products(struct run *r, const struct pl_cuda_product *p, int n, const void *x)
{
    struct pl_device *d = r->n->device;
    bool alike = r->rows <= PL_CUDA_GEMV_ROWS;

    for (int i = 1; i < n; i++)
        alike = alike && p[i].w->dtype == p[0].w->dtype;
    if (r->st)
        return;
    if (alike) {
        pl_k_gemv(p, n, (const float *)x, r->rows, d->stream);
        for (int i = 0; i < n; i++)
            count_product(d, p[i].w, r->rows);
        return;
    }
    for (int i = 0; i < n && !r->st; i++)
        r->st = pl_cuda_product(d, p[i].w, x, r->rows, r->n->act, r->n->work.decoded, p[i].y,
                                p[i].add, r->err);
}

static void product(struct run *r, const struct pl_cuda_matrix *w, const void *x, float *y,
                    bool add)
{
    struct pl_cuda_product p = {.w = w, .y = y, .add = add};

    products(r, &p, 1, x);
}

/* Normed rows of x in the type that products read. */
static const void *normed(struct run *r, const float *gain, const float *bias)
{
    const struct pl_arch *a = &r->n->arch;
    struct pl_cuda_work *w = &r->n->work;

    pl_k_norm(a->norm, a->norm_eps, w->in, r->input, w->x, gain, bias, r->rows, a->hidden,
              r->n->device->stream);
    return w->in;
}

/* x itself in that type. */
static const void *as_input(struct run *r)
{
    struct pl_cuda_work *w = &r->n->work;

    if (r->input == PL_DT_F32)
        return w->x;
    pl_k_cast(w->x, (int64_t)r->rows * r->n->arch.hidden, r->input, w->in, r->n->device->stream);
    return w->in;
}

static void norm_x(struct run *r, const float *gain, const float *bias)
{
    const struct pl_arch *a = &r->n->arch;
    float *x = r->n->work.x;

    pl_k_norm(a->norm, a->norm_eps, x, PL_DT_F32, x, gain, bias, r->rows, a->hidden,
              r->n->device->stream);
}

/* Rows of x to every tap of this layer (1-based; −1: final). */
static void taps(struct run *r, int layer)
{
    size_t h = (size_t)r->n->arch.hidden, row = 0;

    for (size_t s = 0; s < r->f->n_spans; s++) {
        const struct pl_cache *c = r->f->spans[s].cache;
        for (size_t t = 0; t < c->n_taps && !r->st; t++)
            if (c->tap_layers[t] == layer)
                r->st = pl_cuda_check(
                    cudaMemcpyAsync(c->taps[t].data + r->f->tap_row * h, r->n->work.x + row * h,
                                    r->f->spans[s].rows * h * sizeof(float),
                                    cudaMemcpyDeviceToDevice, r->n->device->stream),
                    "hidden states", r->err);
        row += r->f->spans[s].rows;
    }
}

static struct pl_cuda_heads heads_of(const struct run *r, int32_t l)
{
    const struct pl_arch *a = &r->n->arch;
    const struct pl_cuda_layer *w = &r->n->layers[l];

    return (struct pl_cuda_heads){
        .heads = a->heads,
        .kv_heads = a->kv_heads,
        .dim = a->head_dim,
        .layer = l,
        .kv_dtype = r->f->spans[0].cache->dtype,
        .eps = a->norm_eps,
        .q_norm = w->v[PL_V_Q],
        .k_norm = w->v[PL_V_K],
        .inv_freq = r->n->inv_freq,
        .rope_factor = a->rope.kind == PL_ROPE_YARN ? (float)a->rope.attention_factor : 1,
        .append = a->causal,
    };
}

static struct pl_cuda_attend attend_of(const struct run *r, int32_t l, bool cross)
{
    const struct pl_arch *a = &r->n->arch;
    const struct pl_cuda_work *w = &r->n->work;
    const struct pl_cache *c = r->f->spans[0].cache;
    bool sums = r->f->sums_layer == l && c->sums.data && !cross;

    return (struct pl_cuda_attend){
        .q = w->q,
        .out = w->att,
        .to = r->input,
        .lse = sums ? w->lse : NULL,
        .heads = a->heads,
        .kv_heads = a->kv_heads,
        .dim = a->head_dim,
        .layer = l,
        .kv_dtype = c->dtype,
        .scale = a->unscaled ? 1.0f : 1.0f / sqrtf((float)a->head_dim),
        .causal = a->causal && !cross,
        .bias = cross ? NULL : c->relative,
        .bias_span = (int32_t)(2 * c->padded),
        .bias_centre = (int32_t)c->padded,
        .mask = r->mask,
        .max_span = r->max_span,
        .splits = cross ? r->cross_splits : r->splits,
        .chunk = r->chunk,
        .n_rows = r->rows,
        .partial = w->partial,
    };
}

/* As many rows at a time as their parts have room for. */
static void attend(struct run *r, const struct pl_cuda_step *step, const struct pl_cuda_attend *all)
{
    const int64_t room = r->n->device->partials / (all->splits * (int64_t)all->heads);
    struct pl_cuda_attend a = *all;
    const int32_t most =
        (all->splits > 1 || all->chunk) && room < r->rows ? (int32_t)(room ? room : 1) : r->rows;

    for (a.first_row = 0; a.first_row < r->rows; a.first_row += most) {
        a.n_rows = r->rows - a.first_row < most ? r->rows - a.first_row : most;
        pl_k_attend(step, &a, r->n->device->stream);
    }
}

static void self_attention(struct run *r, int32_t l, const void *x)
{
    const struct pl_cuda_layer *w = &r->n->layers[l];
    struct pl_cuda_work *b = &r->n->work;
    struct pl_cuda_product qkv[] = {{.w = &w->w[PL_W_Q], .y = b->q},
                                    {.w = &w->w[PL_W_K], .y = b->k},
                                    {.w = &w->w[PL_W_V], .y = b->v}};
    struct pl_cuda_heads h = heads_of(r, l);
    struct pl_cuda_attend a = attend_of(r, l, false);
    cudaStream_t s = r->n->device->stream;

    products(r, qkv, 3, x);
    pl_k_rope_store(&r->step, &h, b->q, b->k, b->v, s);
    attend(r, &r->step, &a);
    if (a.lse) {
        struct pl_tensor *sums = &r->f->spans[0].cache->sums;
        pl_k_attend_sums(&r->step, &a, (int)r->f->sums_skip, r->longest, sums->data,
                         (int64_t)sums->cols, s);
    }
    product(r, &w->w[PL_W_O], b->att, b->x, true);
}

static void cross_attention(struct run *r, int32_t l)
{
    const struct pl_cuda_layer *w = &r->n->layers[l];
    struct pl_cuda_work *b = &r->n->work;
    struct pl_cuda_attend a = attend_of(r, l, true);

    a.mask = r->f->spans[0].cache->source->masked ? r->f->spans[0].cache->source->mask : NULL;
    product(r, &w->w[PL_W_CROSS_Q], normed(r, w->v[PL_V_CROSS], NULL), b->q, false);
    attend(r, &r->cross, &a);
    product(r, &w->w[PL_W_CROSS_O], b->att, b->x, true);
}

static void feed_forward(struct run *r, int32_t l, const void *x)
{
    const struct pl_cuda_layer *w = &r->n->layers[l];
    const struct pl_arch *a = &r->n->arch;
    struct pl_cuda_work *b = &r->n->work;
    struct pl_cuda_product p[] = {{.w = &w->w[PL_W_UP], .y = b->up},
                                  {.w = &w->w[PL_W_GATE], .y = b->gate}};

    products(r, p, a->gated ? 2 : 1, x);
    pl_k_act(a->act, b->mid, r->input, a->gated ? b->gate : NULL, b->up, (int64_t)r->rows * a->ffn,
             r->n->device->stream);
    product(r, &w->w[PL_W_DOWN], b->mid, b->x, true);
}

static void layer(struct run *r, int32_t l)
{
    const struct pl_cuda_layer *w = &r->n->layers[l];
    bool post = r->n->arch.post_norm;

    self_attention(r, l,
                   post || !w->v[PL_V_ATTN] ? as_input(r)
                                            : normed(r, w->v[PL_V_ATTN], w->v[PL_V_ATTN_BIAS]));
    if (r->n->encoder)
        cross_attention(r, l);
    if (post)
        norm_x(r, w->v[PL_V_ATTN], w->v[PL_V_ATTN_BIAS]);
    feed_forward(r, l, post ? as_input(r) : normed(r, w->v[PL_V_FFN], w->v[PL_V_FFN_BIAS]));
    if (post)
        norm_x(r, w->v[PL_V_FFN], w->v[PL_V_FFN_BIAS]);
    taps(r, l + 1);
}

static enum pl_status copy(struct run *r, float *to, const float *from, size_t n,
                           enum cudaMemcpyKind kind)
{
    return pl_cuda_check(cudaMemcpyAsync(to, from, n * sizeof(float), kind, r->n->device->stream),
                         "forward", r->err);
}

/* The rows' embeddings, or the cache's stage rows, into x. */
static void input(struct run *r, const struct pl_source *source)
{
    struct pl_network *n = r->n;
    const struct pl_network *from = n->embedder ? n->embedder : n;
    size_t h = (size_t)n->arch.hidden, rows = (size_t)r->rows;
    cudaStream_t s = n->device->stream;
    float *x = n->work.x;

    if (r->f->first_layer > 0) {
        r->st = copy(r, x, r->f->spans[0].cache->stage.data + r->f->stage_row * h, rows * h,
                     cudaMemcpyDeviceToDevice);
        return;
    }
    if (source && source->pixels) {
        const struct pl_arch *a = &n->arch;
        size_t each = (size_t)a->channels * (size_t)a->image * (size_t)a->image;
        r->st = pl_cuda_scratch(n->device, each * sizeof(float), r->err);
        if (!r->st)
            r->st = copy(r, n->device->scratch, source->pixels, each, cudaMemcpyHostToDevice);
        if (r->st)
            return;
        pl_k_patches(n->device->scratch, a->channels, a->image, a->patch, (float *)n->work.mid, s);
        const void *patches = n->work.mid;
        if (r->gemm && n->act != PL_DT_F32) {
            pl_k_cast((const float *)patches, (int64_t)rows * n->patch.in, n->act, n->work.in, s);
            patches = n->work.in;
        }
        product(r, &n->patch, patches, x, false);
        if (!r->st)
            r->st = copy(r, x, n->cls, h, cudaMemcpyDeviceToDevice);
    } else if (r->f->embeds) {
        r->st = copy(r, x, r->f->embeds, rows * h, cudaMemcpyHostToDevice);
    } else {
        pl_k_embed(from->embed.data ? &from->embed : &from->head, r->step.ids, r->rows, x, s);
    }
    if (n->positions || n->types)
        pl_k_add_tables(&r->step, n->positions, n->arch.pos_offset, n->types, (int64_t)h, x, s);
    if (n->embed_gain)
        norm_x(r, n->embed_gain, n->embed_bias);
}

/* Logits of up to PL_CUDA_LOGIT_ROWS rows of x from `first` on, on the device. */
static void head(struct run *r, size_t first, size_t rows)
{
    struct pl_network *net = r->n;
    struct pl_cuda_work *w = &net->work;
    size_t h = (size_t)net->arch.hidden, vocab = (size_t)net->arch.vocab;
    cudaStream_t s = net->device->stream;
    const void *x = w->x + first * h;

    if (r->st)
        return;
    if (!pl_cuda_few(net->device, (int64_t)rows) && net->act != PL_DT_F32) {
        pl_k_cast((const float *)x, (int64_t)(rows * h), net->act, w->in, s);
        x = w->in;
    }
    r->st = pl_cuda_product(net->device, &net->head, x, (int64_t)rows, net->act, w->decoded,
                            w->logits, false, r->err);
    if (!r->st && net->arch.logit_scale != 1)
        pl_k_scale(w->logits, net->arch.logit_scale, (int64_t)(rows * vocab), s);
}

/* The rows of logits on the device: the choice of each where it is asked for. */
static void pick(struct run *r, size_t rows)
{
    if (r->f->picked && !r->st)
        pl_k_pick(r->n->work.logits, (int)rows, r->n->arch.vocab, r->step.ends, r->step.picks,
                  r->n->device->stream);
}

/* Logits, and what was picked of them, to the host: those of row `first` on. */
static void copy_logits(struct run *r, size_t rows, size_t first)
{
    const size_t vocab = (size_t)r->n->arch.vocab;

    if (!r->st && r->f->logits)
        r->st = copy(r, r->f->logits + first * vocab, r->n->work.logits, rows * vocab,
                     cudaMemcpyDeviceToHost);
    if (!r->st && r->f->picked)
        r->st = pl_cuda_check(cudaMemcpyAsync(r->f->picked + first, r->step.picks,
                                              rows * sizeof(*r->f->picked), cudaMemcpyDeviceToHost,
                                              r->n->device->stream),
                              "forward", r->err);
}

static void output(struct run *r)
{
    const struct pl_forward *f = r->f;
    struct pl_network *n = r->n;
    size_t h = (size_t)n->arch.hidden, row = 0;
    size_t all = 0, spans = f->n_spans - f->silent;

    if (f->end_layer < n->arch.layers || f->to_stage) {
        r->st = copy(r, f->spans[0].cache->stage.data + f->stage_row * h, n->work.x,
                     (size_t)r->rows * h, cudaMemcpyDeviceToDevice);
        return;
    }
    if (n->final_gain)
        norm_x(r, n->final_gain, n->final_bias);
    taps(r, FINAL);
    if (f->want == PL_LOGITS_NONE)
        return;
    if (f->want == PL_LOGITS_ALL)
        all = (size_t)r->rows;
    else if ((size_t)r->rows == f->n_spans)
        all = spans;
    for (size_t at = 0; at < all; at += PL_CUDA_LOGIT_ROWS) {
        size_t rows = all - at < PL_CUDA_LOGIT_ROWS ? all - at : PL_CUDA_LOGIT_ROWS;
        head(r, at, rows);
        pick(r, rows);
        copy_logits(r, rows, at);
    }
    for (size_t s = 0; s < spans && !all; s++) {
        row += f->spans[s].rows;
        head(r, row - 1, 1);
        pick(r, 1);
        copy_logits(r, 1, s);
    }
}

/* A few rows of ids through all layers to logits: what a graph holds. Nothing in it depends on the
 * caches but what the step says. */
static bool fits_graph(const struct run *r)
{
    const struct pl_forward *f = r->f;
    bool ok = r->rows <= PL_CUDA_GEMV_ROWS && f->ids && !f->embeds && !f->first_layer &&
              !f->to_stage && f->end_layer == r->n->arch.layers && f->sums_layer < 0 &&
              !f->silent && !r->n->no_graphs && !r->n->encoder && !f->spans[0].cache->relative;

    ok = ok &&
         (f->want == PL_LOGITS_ALL || (f->want == PL_LOGITS_LAST && (size_t)r->rows == f->n_spans));
    for (size_t s = 0; s < f->n_spans && ok; s++)
        ok = !f->spans[s].cache->n_taps;
    return ok;
}

static void few_rows(struct run *r)
{
    struct pl_network *n = r->n;

    input(r, NULL);
    for (int32_t l = 0; l < n->arch.layers && !r->st; l++)
        layer(r, l);
    if (!r->st && n->final_gain)
        norm_x(r, n->final_gain, n->final_bias);
    head(r, 0, (size_t)r->rows);
    pick(r, (size_t)r->rows);
}

static struct pl_cuda_graph key_of(const struct run *r)
{
    return (struct pl_cuda_graph){.rows = r->rows,
                                  .n_spans = (int)r->f->n_spans,
                                  .max_span = r->max_span,
                                  .splits = r->splits,
                                  .positions = r->f->positions != NULL,
                                  .tree = r->f->tree != NULL,
                                  .picks = r->f->picked != NULL,
                                  .kv_dtype = r->f->spans[0].cache->dtype};
}

static bool same_key(const struct pl_cuda_graph *a, const struct pl_cuda_graph *b)
{
    return a->rows == b->rows && a->n_spans == b->n_spans && a->max_span == b->max_span &&
           a->splits == b->splits && a->positions == b->positions && a->tree == b->tree &&
           a->picks == b->picks && a->kv_dtype == b->kv_dtype;
}

/* The graph for this kind of step, captured when it is first asked for; NULL: there can be none. */
static const struct pl_cuda_graph *find_graph(struct run *r)
{
    struct pl_network *n = r->n;
    struct pl_cuda_graph key = key_of(r);
    cudaStream_t s = n->device->stream;
    cudaGraph_t graph = NULL;
    const struct pl_device_work before = n->device->work;

    for (int i = 0; i < n->n_graphs; i++)
        if (same_key(&n->graphs[i], &key))
            return &n->graphs[i];
    if (n->n_graphs == PL_CUDA_GRAPHS)
        return NULL;
    if (cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal)) {
        n->no_graphs = true;
        return NULL;
    }
    few_rows(r);
    key.work = (struct pl_device_work){n->device->work.flops - before.flops,
                                       n->device->work.bytes - before.bytes};
    n->device->work = before; /* nothing ran yet */
    if (cudaStreamEndCapture(s, &graph) || r->st || cudaGraphInstantiate(&key.exec, graph, 0)) {
        n->no_graphs = true;
        key.exec = NULL;
        cudaGetLastError();
    }
    if (graph)
        cudaGraphDestroy(graph);
    if (!key.exec)
        return NULL;
    n->graphs[n->n_graphs] = key;
    return &n->graphs[n->n_graphs++];
}

static void run_few(struct run *r)
{
    const struct pl_cuda_graph *g = find_graph(r);
    struct pl_device_work *work = &r->n->device->work;

    if (g && !r->st) {
        r->st = pl_cuda_check(cudaGraphLaunch(g->exec, r->n->device->stream), "forward", r->err);
        *work = (struct pl_device_work){work->flops + g->work.flops, work->bytes + g->work.bytes};
    } else if (!r->st) {
        few_rows(r);
    }
    copy_logits(r, (size_t)r->rows, 0);
}

/* Keys of a part where sums must not depend on the rows at hand: the model's alone decide. */
static int32_t exact_chunk(const struct run *r)
{
    const struct pl_arch *a = &r->n->arch;
    const struct pl_device *d = r->n->device;
    int64_t most = d->partials / a->heads;

    if (!d->exact || r->gemm)
        return 0;
    most = most < PL_CUDA_MAX_SPLITS ? most : PL_CUDA_MAX_SPLITS;
    most = (a->max_positions + most - 1) / (most ? most : 1);
    most = most > d->exact_keys ? most : d->exact_keys;
    return (int32_t)pl_round_up((size_t)most, PL_CUDA_KEYS);
}

/* Parts of that many keys up to the longest sequence's end; one where a window moves over them. */
static int32_t exact_splits(const struct run *r)
{
    int64_t end = 0;

    for (size_t s = 0; s < r->f->n_spans; s++) {
        const struct pl_cache *c = r->f->spans[s].cache;
        for (int32_t l = r->f->first_layer; l < r->f->end_layer; l++) {
            int64_t len = (int64_t)(c->kv[l].len + r->f->spans[s].rows);
            end = len > end ? len : end;
            if (c->kv[l].window)
                return 1;
        }
    }
    return (int32_t)((end + r->chunk - 1) / r->chunk);
}

/* Parts that the keys are split in, so that all multiprocessors have work; 1 where rows suffice. */
static int32_t choose_splits(const struct run *r, int32_t longest)
{
    const struct pl_arch *a = &r->n->arch;
    if (r->chunk)
        return 1;
    int64_t vectors = (int64_t)r->rows * a->heads;
    int64_t wide = r->gemm ? PL_CUDA_MMA_VECTORS : PL_CUDA_VECTORS;
    int64_t blocks = (int64_t)r->f->n_spans * a->kv_heads *
                     ((r->max_span * (a->heads / a->kv_heads) + wide - 1) / wide);
    int64_t n = 2 * (int64_t)r->n->device->sms / blocks;

    n = n < (longest + 127) / 128 ? n : (longest + 127) / 128;
    n = n < PL_CUDA_MAX_SPLITS ? n : PL_CUDA_MAX_SPLITS;
    n = n < r->n->device->partials / vectors ? n : r->n->device->partials / vectors;
    return n > 1 ? (int32_t)n : 1;
}

static void begin(struct run *r, struct pl_network *n, const struct pl_forward *f, size_t rows,
                  struct pl_err *err)
{
    *r = (struct run){.n = n, .f = f, .rows = (int32_t)rows, .err = err};
    r->gemm = !pl_cuda_few(n->device, (int64_t)rows);
    r->input = r->gemm ? n->act : PL_DT_F32;
    for (size_t s = 0; s < f->n_spans; s++)
        if ((int32_t)f->spans[s].rows > r->max_span)
            r->max_span = (int32_t)f->spans[s].rows;
}

/* Attention of `rows` rows of a span in layer l, and the sums that were asked for. */
static void count_attention(const struct pl_network *n, const struct pl_forward *f,
                            const struct pl_cache *c, int32_t l, size_t rows)
{
    const struct pl_kv *kv = &c->kv[l];
    const int64_t each = 2 * n->arch.heads * n->arch.head_dim;
    int64_t seen = 0, summed = 0;

    for (size_t i = 0; i < rows; i++) {
        const int64_t keys = (int64_t)(kv->len + i + 1 - pl_kv_first(kv, kv->len + i));
        seen += keys;
        summed += f->sums_layer == l && c->sums.data && i >= f->sums_skip ? keys : 0;
    }
    n->device->work.flops +=
        each * (2 * seen + summed + 2 * (int64_t)(rows * (n->encoder ? c->cross[l].len : 0)));
}

/* The bytes of K and V that this forward read: from the first row that its first row sees. */
static void count_read(const struct pl_network *n, const struct pl_forward *f)
{
    int64_t row_bytes =
        2 * n->arch.kv_heads * n->arch.head_dim * pl_dtype_traits(f->spans[0].cache->dtype)->bytes;

    for (size_t s = 0; s < f->n_spans; s++) {
        struct pl_cache *c = f->spans[s].cache;
        c->kv_read = 0;
        for (int32_t l = f->first_layer; l < f->end_layer; l++) {
            const struct pl_kv *kv = &c->kv[l];
            size_t keys = kv->len + f->spans[s].rows - pl_kv_first(kv, kv->len);
            c->kv_read += row_bytes * (int64_t)(keys + c->cross[l].len);
            count_attention(n, f, c, l, f->spans[s].rows);
        }
        n->device->work.bytes += c->kv_read;
    }
}

static enum pl_status check_forward(struct pl_network *n, const struct pl_forward *f, size_t *rows,
                                    int32_t *longest, struct pl_err *err)
{
    *rows = 0;
    *longest = 0;
    if (f->tree && (f->n_spans != 1 || f->tree->base + f->spans[0].rows > PL_TREE_MAX))
        return pl_fail(err, PL_ERANGE, "a tree of more than %d rows", PL_TREE_MAX);
    if (f->n_ends > PL_MAX_EOS)
        return pl_fail(err, PL_ERANGE, "%zu ids are left out, at most %d can be", f->n_ends,
                       PL_MAX_EOS);
    if (f->n_spans > PL_CUDA_SPANS)
        return pl_fail(err, PL_ERANGE, "more than %d sequences in one forward", PL_CUDA_SPANS);
    for (size_t s = 0; s < f->n_spans; s++) {
        const struct pl_cache *c = f->spans[s].cache;
        if (f->spans[s].rows > n->work.rows - *rows)
            return pl_fail(err, PL_ERANGE, "more than %zu rows in one forward", n->work.rows);
        for (int32_t l = f->first_layer; l < f->end_layer; l++) {
            int32_t len = (int32_t)(c->kv[l].len - c->kv[l].first + f->spans[s].rows);
            *longest = len > *longest ? len : *longest;
        }
        *rows += f->spans[s].rows;
    }
    if (!*rows)
        return pl_fail(err, PL_ERANGE, "a forward without rows");
    if (f->picked && *rows > PL_CUDA_GEMV_ROWS)
        return pl_fail(err, PL_ERANGE, "%zu rows are picked from, at most %d can be", *rows,
                       PL_CUDA_GEMV_ROWS);
    return pl_cache_check_room(f, err);
}

enum pl_status pl_cuda_forward(struct pl_network *n, const struct pl_forward *f, struct pl_err *err)
{
    enum pl_status st;
    struct run r;
    size_t rows;
    int32_t longest;

    st = check_forward(n, f, &rows, &longest, err);
    if (!st)
        st = pl_cuda_check(cudaSetDevice(n->device->ordinal), "forward", err);
    if (st)
        return st;
    begin(&r, n, f, rows, err);
    r.longest = longest;
    r.chunk = exact_chunk(&r);
    r.splits = r.chunk ? exact_splits(&r) : choose_splits(&r, longest);
    r.cross_splits = n->encoder ? choose_splits(&r, (int32_t)f->spans[0].cache->cross[0].len) : 1;
    r.st = send_step(&r, NULL);
    if (!r.st && fits_graph(&r)) {
        run_few(&r);
    } else if (!r.st) {
        input(&r, NULL);
        for (int32_t l = f->first_layer; l < f->end_layer && !r.st; l++)
            layer(&r, l);
        if (!r.st)
            output(&r);
    }
    if (!r.st && (f->want != PL_LOGITS_NONE || f->embeds)) {
        r.st = pl_cuda_sync(n->device, "forward", err);
        n->work.step_busy = false;
    }
    if (!r.st) {
        count_read(n, f);
        pl_cache_advance(f);
    }
    return r.st;
}

/* Lengths, positions and mask of the source. */
static enum pl_status begin_source(struct pl_cache *c, struct pl_cache *to,
                                   const struct pl_source *s, struct pl_err *err)
{
    float *mask = calloc(to->padded, sizeof(*mask));
    enum pl_status st;

    if (!mask)
        return pl_fail(err, PL_ENOMEM, "no memory for a mask");
    pl_cache_begin_source(c, to, s, mask);
    st = pl_cuda_check(
        cudaMemcpy(to->mask, mask, to->padded * sizeof(*mask), cudaMemcpyHostToDevice), "mask",
        err);
    free(mask);
    return st;
}

/* K and V of the source's final states for each block of the decoder. */
static enum pl_status cross_kv(struct pl_network *n, struct pl_cache *c, size_t rows,
                               struct pl_err *err)
{
    struct pl_span span = {.cache = c, .rows = rows};
    struct pl_forward f = {.spans = &span, .n_spans = 1, .sums_layer = -1};
    struct pl_cuda_work *w = &n->work;
    struct run r;
    const void *x;

    begin(&r, n, &f, rows, err);
    r.st = send_step(&r, NULL);
    if (!r.st)
        r.st = copy(&r, w->x, c->source->stage.data, rows * (size_t)n->arch.hidden,
                    cudaMemcpyDeviceToDevice);
    x = as_input(&r);
    for (int32_t l = 0; l < n->arch.layers && !r.st; l++) {
        struct pl_cuda_heads h = heads_of(&r, l);
        h.append = false;
        h.k_norm = h.inv_freq = NULL;
        product(&r, &n->layers[l].w[PL_W_CROSS_K], x, w->k, false);
        product(&r, &n->layers[l].w[PL_W_CROSS_V], x, w->v, false);
        pl_k_rope_store(&r.cross, &h, NULL, w->k, w->v, n->device->stream);
    }
    for (int32_t l = 0; l < n->arch.layers && !r.st; l++)
        c->cross[l].len = rows;
    return r.st;
}

enum pl_status pl_cuda_encode(struct pl_network *n, struct pl_cache *c, const struct pl_source *s,
                              struct pl_err *err)
{
    struct pl_cache *to = n->encoder ? c->source : c;
    struct pl_network *net = n->encoder ? n->encoder : n;
    struct pl_span span = {.cache = to, .rows = s->n};
    struct pl_forward f = {.spans = &span,
                           .n_spans = 1,
                           .ids = s->ids,
                           .embeds = s->embeds,
                           .positions = to->positions,
                           .end_layer = net->arch.layers,
                           .to_stage = true,
                           .sums_layer = -1};
    enum pl_status st = pl_cache_check_source(to, s, err);
    struct run r;

    if (!st)
        st = pl_cuda_check(cudaSetDevice(n->device->ordinal), "encode", err);
    if (!st)
        st = begin_source(c, to, s, err);
    if (st)
        return st;
    begin(&r, net, &f, s->n, err);
    r.longest = (int32_t)s->n;
    r.splits = choose_splits(&r, r.longest);
    r.mask = to->masked ? to->mask : NULL;
    r.st = send_step(&r, s);
    if (!r.st)
        input(&r, s);
    for (int32_t l = 0; l < net->arch.layers && !r.st; l++)
        layer(&r, l);
    if (!r.st && net->final_gain)
        norm_x(&r, net->final_gain, net->final_bias);
    if (!r.st)
        taps(&r, FINAL);
    if (!r.st)
        r.st = copy(&r, to->stage.data, net->work.x, s->n * (size_t)net->arch.hidden,
                    cudaMemcpyDeviceToDevice);
    if (!r.st && n->encoder)
        r.st = cross_kv(n, c, s->n, err);
    n->device->work.flops +=
        4 * (int64_t)s->n * (int64_t)s->n * net->arch.layers * net->arch.heads * net->arch.head_dim;
    if (!r.st)
        r.st = pl_cuda_sync(n->device, "encode", err);
    net->work.step_busy = n->work.step_busy = false;
    return r.st;
}

enum pl_status pl_cuda_encode_batch(struct pl_network *n, struct pl_cache *const *caches,
                                    const struct pl_source *sources, size_t n_sources,
                                    struct pl_err *err)
{
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < n_sources && !st; i++)
        st = pl_cuda_encode(n, caches[i], &sources[i], err);
    return st;
}

enum pl_status pl_cuda_pool(struct pl_network *n, struct pl_cache *c, float *out,
                            struct pl_err *err)
{
    struct pl_device *d = n->device;
    enum pl_status st;

    if (!n->pooler.data)
        return pl_fail(err, PL_EUNSUPPORTED, "the model has no pooler");
    st = pl_cuda_product(d, &n->pooler, c->stage.data, 1, n->act, NULL, n->work.q, false, err);
    if (st)
        return st;
    pl_k_tanh(n->work.q, n->arch.hidden, d->stream);
    st = pl_cuda_check(cudaMemcpyAsync(out, n->work.q, (size_t)n->arch.hidden * sizeof(float),
                                       cudaMemcpyDeviceToHost, d->stream),
                       "pooler", err);
    return st ? st : pl_cuda_sync(d, "pooler", err);
}
