/* The steps of a forward on a device: input, products, norms, attention, one block. */
#include "model/cuda/run.h"

#include <math.h>

static void count_product(struct pl_device *d, const struct pl_cuda_matrix *w, int64_t rows)
{
    d->work.flops += 2 * rows * w->in * w->out;
    d->work.bytes += w->out * (int64_t)w->row_bytes;
}

/* Products of one input on tensor cores that take the weights as they come: x is f32 where rows are
 * few, else of the weights' type. */
static bool streams(const struct pl_device *d, const struct pl_cuda_matrix *w, int64_t rows,
                    enum pl_dtype act)
{
    return !d->plain && pl_k_gemv_mma_does(w, rows) && (pl_cuda_few(d, rows) || w->dtype == act);
}

/* Rows as packed weights take them; room: for those in 8 bits. */
static struct pl_cuda_packed_rows packed_rows(const struct pl_device *d, const void *x,
                                              enum pl_dtype type, int64_t rows,
                                              const struct pl_cuda_rms *norm, void *room)
{
    return (struct pl_cuda_packed_rows){
        .x = x, .type = type, .rows = (int)rows, .norm = norm, .room = room, .sms = d->sms};
}

/* Products of one f32 input of a few rows, weights of one type, or all packed; room: for x in 8
 * bits. */
static void few(const struct pl_device *d, const struct pl_cuda_product *p, int n, const float *x,
                int rows, void *room)
{
    bool stream = true;

    if (p[0].w->packed) {
        const struct pl_cuda_packed_rows in = packed_rows(d, x, PL_DT_F32, rows, NULL, room);
        pl_k_gemv_packed(p, n, &in, d->stream);
        return;
    }
    for (int i = 0; i < n; i++)
        stream = stream && streams(d, p[i].w, rows, PL_DT_F32);
    if (stream)
        pl_k_gemv_mma(p, n, x, NULL, rows, d->stream);
    else
        pl_k_gemv(p, n, x, rows, d->stream);
}

enum pl_status pl_cuda_product(struct pl_device *d, const struct pl_cuda_matrix *w, const void *x,
                               int64_t rows, enum pl_dtype act, void *decoded, float *y, bool add,
                               struct pl_err *err)
{
    const int64_t most = (int64_t)(PL_CUDA_DECODED / (act == PL_DT_F32 ? 4 : 2)) / w->in /
                         PL_CUDA_PANEL * PL_CUDA_PANEL;
    struct pl_cuda_gemm_call c = {.dtype = act,
                                  .to = PL_DT_F32,
                                  .x = x,
                                  .in = w->in,
                                  .rows = rows,
                                  .ldy = w->out,
                                  .add = add};
    enum pl_status st = PL_OK;

    count_product(d, w, rows);
    if (pl_cuda_few(d, rows)) {
        if (w->packed && !decoded) {
            st = pl_cuda_scratch(d, pl_k_packed_room(w->in), err);
            decoded = d->scratch;
        }
        if (st)
            return st;
        for (int64_t r = 0; r < rows; r += PL_CUDA_GEMV_ROWS) {
            struct pl_cuda_product p = {.w = w, .y = y + r * w->out, .add = add};
            few(d, &p, 1, (const float *)x + r * w->in,
                (int)(rows - r < PL_CUDA_GEMV_ROWS ? rows - r : PL_CUDA_GEMV_ROWS), decoded);
        }
        return PL_OK;
    }
    const struct pl_cuda_product p = {.w = w, .y = y, .add = add};
    if (streams(d, w, rows, act)) {
        pl_k_gemv_mma(&p, 1, x, NULL, (int)rows, d->stream);
        return PL_OK;
    }
    if (w->packed && rows <= PL_CUDA_STREAM_ROWS) {
        const struct pl_cuda_packed_rows in = packed_rows(d, x, act, rows, NULL, decoded);
        pl_k_gemv_packed(&p, 1, &in, d->stream);
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

/* Whether the weights of products are all packed, and are multiplied as they are. */
static bool all_packed(const struct pl_cuda_run *r, const struct pl_cuda_product *p, int n)
{
    const bool few = pl_cuda_few(r->n->device, r->rows);
    bool all = r->rows <= (few ? PL_CUDA_GEMV_ROWS : PL_CUDA_STREAM_ROWS);

    for (int i = 0; i < n; i++)
        all = all && p[i].w->packed;
    return all;
}

/* Rows of x as packed weights take them: in f32, to be normed, or what products read. */
static struct pl_cuda_packed_rows run_rows(struct pl_cuda_run *r, const void *x,
                                           const struct pl_cuda_rms *norm)
{
    return packed_rows(r->n->device, x, norm ? PL_DT_F32 : r->input, r->rows, norm,
                       r->n->work.decoded);
}

/* Products of one input; those of one type and few rows go out together. norm: of x, for weights
 * that are all packed; else NULL. */
static void products(struct pl_cuda_run *r, const struct pl_cuda_product *p, int n, const void *x,
                     const struct pl_cuda_rms *norm)
{
    struct pl_device *d = r->n->device;
    bool alike = r->rows <= PL_CUDA_GEMV_ROWS, stream = !pl_cuda_few(d, r->rows);
    const bool packed = all_packed(r, p, n);

    for (int i = 0; i < n; i++) {
        alike = alike && !p[i].w->packed && p[i].w->dtype == p[0].w->dtype;
        stream = stream && streams(d, p[i].w, r->rows, r->n->act);
    }
    if (r->st)
        return;
    if (alike || stream || packed) {
        const struct pl_cuda_packed_rows in = run_rows(r, x, norm);
        if (packed)
            pl_k_gemv_packed(p, n, &in, d->stream);
        else if (stream)
            pl_k_gemv_mma(p, n, x, NULL, r->rows, d->stream);
        else
            few(d, p, n, (const float *)x, r->rows, r->n->work.decoded);
        for (int i = 0; i < n; i++)
            count_product(d, p[i].w, r->rows);
        return;
    }
    for (int i = 0; i < n && !r->st; i++)
        r->st = pl_cuda_product(d, p[i].w, x, r->rows, r->n->act, r->n->work.decoded, p[i].y,
                                p[i].add, r->err);
}

void pl_cuda_run_product(struct pl_cuda_run *r, const struct pl_cuda_matrix *w, const void *x,
                         float *y, bool add)
{
    struct pl_cuda_product p = {.w = w, .y = y, .add = add};

    products(r, &p, 1, x, NULL);
}

/* Normed rows of x in the type that products read. */
static const void *normed(struct pl_cuda_run *r, const float *gain, const float *bias)
{
    const struct pl_arch *a = &r->n->arch;
    struct pl_cuda_work *w = &r->n->work;

    pl_cuda_op(r->n->device, PL_CUDA_OP_NORM);
    pl_k_norm(a->norm, a->norm_eps, w->in, r->input, w->x, gain, bias, r->rows, a->hidden,
              r->n->device->stream);
    return w->in;
}

/* x itself in that type. */
const void *pl_cuda_run_as_input(struct pl_cuda_run *r)
{
    struct pl_cuda_work *w = &r->n->work;

    if (r->input == PL_DT_F32)
        return w->x;
    pl_cuda_op(r->n->device, PL_CUDA_OP_NORM);
    pl_k_cast(w->x, (int64_t)r->rows * r->n->arch.hidden, r->input, w->in, r->n->device->stream);
    return w->in;
}

void pl_cuda_run_norm(struct pl_cuda_run *r, const float *gain, const float *bias)
{
    const struct pl_arch *a = &r->n->arch;
    float *x = r->n->work.x;

    pl_cuda_op(r->n->device, PL_CUDA_OP_NORM);
    pl_k_norm(a->norm, a->norm_eps, x, PL_DT_F32, x, gain, bias, r->rows, a->hidden,
              r->n->device->stream);
}

/* Rows of x to every tap of this layer (1-based; −1: final). */
void pl_cuda_run_taps(struct pl_cuda_run *r, int layer)
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

struct pl_cuda_heads pl_cuda_run_heads(const struct pl_cuda_run *r, int32_t l)
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

static struct pl_cuda_attend attend_of(const struct pl_cuda_run *r, int32_t l, bool cross)
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
        .ended = w->ended,
    };
}

/* As many rows at a time as their parts have room for. */
static void attend(struct pl_cuda_run *r, const struct pl_cuda_step *step,
                   const struct pl_cuda_attend *all)
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

/* What a part of a block reads of x, normed by its gain where the block norms before. */
static const void *read_rows(struct pl_cuda_run *r, const float *gain, const float *bias)
{
    return r->n->arch.post_norm || !gain ? pl_cuda_run_as_input(r) : normed(r, gain, bias);
}

/* Whether that norm can ride in the product behind it: by mean squares, of at most so many rows. A
 * deterministic device's rows all go the same way, whatever their number. */
static bool rides(const struct pl_cuda_run *r, const float *gain, const float *bias, int32_t most,
                  struct pl_cuda_rms *out)
{
    const struct pl_arch *a = &r->n->arch;

    *out = (struct pl_cuda_rms){.gain = gain, .eps = a->norm_eps};
    return !a->post_norm && a->norm == PL_NORM_RMS && gain && !bias && !r->n->device->exact &&
           r->rows <= most;
}

/* Norm, Q, K and V, RoPE and the cache's new rows in one launch, where that can be. */
static bool qkv_at_once(struct pl_cuda_run *r, int32_t l, const struct pl_cuda_product *p,
                        const struct pl_cuda_heads *h)
{
    const struct pl_cuda_layer *w = &r->n->layers[l];
    const bool packed = all_packed(r, p, 3);
    struct pl_device *d = r->n->device;
    struct pl_cuda_rms norm;

    if (r->st ||
        !rides(r, w->v[PL_V_ATTN], w->v[PL_V_ATTN_BIAS],
               packed ? PL_CUDA_STREAM_ROWS : PL_CUDA_GEMV_ROWS, &norm) ||
        !pl_k_gemv_mma_qkv_does(h))
        return false;
    for (int i = 0; i < 3 && !packed; i++)
        if (!streams(d, p[i].w, r->rows, r->n->act) || p[i].w->dtype != p[0].w->dtype)
            return false;
    pl_cuda_op(d, PL_CUDA_OP_QKV);
    if (packed) {
        const struct pl_cuda_packed_rows in = run_rows(r, r->n->work.x, &norm);
        pl_k_gemv_packed_qkv(p, &in, &r->step, h, d->stream);
    } else {
        pl_k_gemv_mma_qkv(p, r->n->work.x, &norm, &r->step, h, d->stream);
    }
    for (int i = 0; i < 3; i++)
        count_product(d, p[i].w, r->rows);
    return true;
}

static void self_attention(struct pl_cuda_run *r, int32_t l)
{
    const struct pl_cuda_layer *w = &r->n->layers[l];
    struct pl_cuda_work *b = &r->n->work;
    struct pl_cuda_product qkv[] = {{.w = &w->w[PL_W_Q], .y = b->q},
                                    {.w = &w->w[PL_W_K], .y = b->k},
                                    {.w = &w->w[PL_W_V], .y = b->v}};
    struct pl_cuda_heads h = pl_cuda_run_heads(r, l);
    struct pl_cuda_attend a = attend_of(r, l, false);
    struct pl_device *d = r->n->device;
    cudaStream_t s = d->stream;

    if (!qkv_at_once(r, l, qkv, &h)) {
        struct pl_cuda_rms norm;
        const bool ride = all_packed(r, qkv, 3) && rides(r, w->v[PL_V_ATTN], w->v[PL_V_ATTN_BIAS],
                                                         PL_CUDA_STREAM_ROWS, &norm);
        const void *x = ride ? b->x : read_rows(r, w->v[PL_V_ATTN], w->v[PL_V_ATTN_BIAS]);
        pl_cuda_op(d, PL_CUDA_OP_QKV);
        products(r, qkv, 3, x, ride ? &norm : NULL);
        pl_cuda_op(d, PL_CUDA_OP_ROPE);
        pl_k_rope_store(&r->step, &h, b->q, b->k, b->v, s);
    }
    pl_cuda_op(d, PL_CUDA_OP_ATTENTION);
    if (r->by_path)
        pl_cuda_paths_attend(r, &a);
    else
        attend(r, &r->step, &a);
    if (a.lse) {
        struct pl_tensor *sums = &r->f->spans[0].cache->sums;
        pl_k_attend_sums(&r->step, &a, (int)r->f->sums_skip, r->longest, sums->data,
                         (int64_t)sums->cols, s);
    }
    pl_cuda_op(d, PL_CUDA_OP_OUT);
    pl_cuda_run_product(r, &w->w[PL_W_O], b->att, b->x, true);
}

static void cross_attention(struct pl_cuda_run *r, int32_t l)
{
    const struct pl_cuda_layer *w = &r->n->layers[l];
    struct pl_cuda_work *b = &r->n->work;
    struct pl_cuda_attend a = attend_of(r, l, true);

    a.mask = r->f->spans[0].cache->source->masked ? r->f->spans[0].cache->source->mask : NULL;
    const void *x = normed(r, w->v[PL_V_CROSS], NULL);
    pl_cuda_op(r->n->device, PL_CUDA_OP_CROSS);
    pl_cuda_run_product(r, &w->w[PL_W_CROSS_Q], x, b->q, false);
    attend(r, &r->cross, &a);
    pl_cuda_run_product(r, &w->w[PL_W_CROSS_O], b->att, b->x, true);
}

/* How gate, up and activation go: each by itself, or in one launch of a few rows of dense weights,
 * of packed ones, or of weights that are streamed. */
enum gating { PL_APART, PL_FEW_ROWS, PL_PACKED, PL_STREAMED };

static enum gating gating_of(const struct pl_cuda_run *r, const struct pl_cuda_matrix *gate,
                             const struct pl_cuda_matrix *up)
{
    const struct pl_device *d = r->n->device;

    if (!r->n->arch.gated || r->st || d->exact || gate->dtype != up->dtype)
        return PL_APART;
    if (gate->packed && up->packed && r->rows <= PL_CUDA_STREAM_ROWS)
        return PL_PACKED;
    if (!pl_dtype_traits(gate->dtype)->computes)
        return PL_APART;
    if (streams(d, gate, r->rows, r->n->act) && streams(d, up, r->rows, r->n->act))
        return PL_STREAMED;
    return r->rows <= PL_CUDA_GEMV_ROWS ? PL_FEW_ROWS : PL_APART;
}

/* Gate and up of many rows in the type that they are multiplied in: what the activation reads is
 * half as much then. */
static bool narrow(struct pl_cuda_run *r, const struct pl_cuda_product *p, const void *x)
{
    const enum pl_dtype act = r->n->act;
    struct pl_device *d = r->n->device;

    for (int i = 0; i < 2; i++)
        if (!r->gemm || act == PL_DT_F32 || p[i].w->dtype != act || p[i].w->bias)
            return false;
    for (int i = 0; i < 2 && !r->st; i++) {
        const struct pl_cuda_matrix *w = p[i].w;
        const struct pl_cuda_gemm_call c = {.dtype = act,
                                            .to = act,
                                            .w = w->data,
                                            .x = x,
                                            .y = p[i].y,
                                            .out = w->out,
                                            .in = w->in,
                                            .rows = r->rows,
                                            .ldy = w->out};
        count_product(d, w, r->rows);
        r->st = pl_cuda_gemm_run(d->gemm, &c, d->stream, r->err);
    }
    return true;
}

static void feed_forward(struct pl_cuda_run *r, int32_t l)
{
    const struct pl_cuda_layer *w = &r->n->layers[l];
    const struct pl_arch *a = &r->n->arch;
    const struct pl_cuda_matrix *gate = &w->w[PL_W_GATE], *up = &w->w[PL_W_UP];
    struct pl_cuda_work *b = &r->n->work;
    struct pl_device *d = r->n->device;
    struct pl_cuda_product p[] = {{.w = up, .y = b->up}, {.w = gate, .y = b->gate}};
    const enum gating how = gating_of(r, gate, up);
    struct pl_cuda_rms norm;
    const bool packed = all_packed(r, p, a->gated ? 2 : 1);
    const bool ride = (packed || how == PL_STREAMED) &&
                      rides(r, w->v[PL_V_FFN], w->v[PL_V_FFN_BIAS],
                            packed ? PL_CUDA_STREAM_ROWS : PL_CUDA_GEMV_ROWS, &norm);
    const void *x = ride ? b->x : read_rows(r, w->v[PL_V_FFN], w->v[PL_V_FFN_BIAS]);

    pl_cuda_op(d, PL_CUDA_OP_FFN_IN);
    if (how == PL_STREAMED) {
        pl_k_gemv_mma_gated(gate, up, a->act, x, ride ? &norm : NULL, r->rows, b->mid, d->stream);
    } else if (how == PL_PACKED) {
        const struct pl_cuda_packed_rows in = run_rows(r, x, ride ? &norm : NULL);
        pl_k_gemv_packed_gated(gate, up, a->act, &in, b->mid, r->input, d->stream);
    } else if (how == PL_FEW_ROWS) {
        pl_k_gemv_gated(gate, up, a->act, x, r->rows, b->mid, d->stream);
    } else {
        const bool narrowed = a->gated && narrow(r, p, x);
        if (!narrowed)
            products(r, p, a->gated ? 2 : 1, x, ride ? &norm : NULL);
        pl_cuda_op(d, PL_CUDA_OP_ACT);
        pl_k_act(a->act, b->mid, r->input, a->gated ? b->gate : NULL, b->up,
                 narrowed ? r->input : PL_DT_F32, (int64_t)r->rows * a->ffn, d->stream);
    }
    for (int i = 0; i < 2 && how != PL_APART; i++)
        count_product(d, p[i].w, r->rows);
    pl_cuda_op(d, PL_CUDA_OP_FFN_OUT);
    pl_cuda_run_product(r, &w->w[PL_W_DOWN], b->mid, b->x, true);
}

void pl_cuda_run_layer(struct pl_cuda_run *r, int32_t l)
{
    const struct pl_cuda_layer *w = &r->n->layers[l];
    bool post = r->n->arch.post_norm;

    self_attention(r, l);
    if (r->n->encoder)
        cross_attention(r, l);
    if (post)
        pl_cuda_run_norm(r, w->v[PL_V_ATTN], w->v[PL_V_ATTN_BIAS]);
    feed_forward(r, l);
    if (post)
        pl_cuda_run_norm(r, w->v[PL_V_FFN], w->v[PL_V_FFN_BIAS]);
    pl_cuda_run_taps(r, l + 1);
}

enum pl_status pl_cuda_run_copy(struct pl_cuda_run *r, float *to, const float *from, size_t n,
                                enum cudaMemcpyKind kind)
{
    return pl_cuda_check(cudaMemcpyAsync(to, from, n * sizeof(float), kind, r->n->device->stream),
                         "forward", r->err);
}

/* The source's pixels on the device. */
static const float *picture(struct pl_cuda_run *r, const struct pl_source *s)
{
    const struct pl_arch *a = &r->n->arch;
    size_t each = (size_t)a->channels * (size_t)a->image * (size_t)a->image;

    if (s->picture)
        return s->picture->data + s->picture_row * each;
    r->st = pl_cuda_scratch(r->n->device, each * sizeof(float), r->err);
    if (!r->st)
        r->st = pl_cuda_run_copy(r, r->n->device->scratch, s->pixels, each, cudaMemcpyHostToDevice);
    return r->n->device->scratch;
}

/* The rows' embeddings, or the cache's stage rows, into x. */
void pl_cuda_run_input(struct pl_cuda_run *r, const struct pl_source *source)
{
    struct pl_network *n = r->n;
    const struct pl_network *from = n->embedder ? n->embedder : n;
    size_t h = (size_t)n->arch.hidden, rows = (size_t)r->rows;
    cudaStream_t s = n->device->stream;
    float *x = n->work.x;

    pl_cuda_op(n->device, PL_CUDA_OP_INPUT);
    if (r->f->first_layer > 0) {
        r->st = pl_cuda_run_copy(r, x, r->f->spans[0].cache->stage.data + r->f->stage_row * h,
                                 rows * h, cudaMemcpyDeviceToDevice);
        return;
    }
    if (source && (source->pixels || source->picture)) {
        const struct pl_arch *a = &n->arch;
        const float *pixels = picture(r, source);
        if (r->st)
            return;
        pl_k_patches(pixels, a->channels, a->image, a->patch, (float *)n->work.mid, s);
        const void *patches = n->work.mid;
        if (r->gemm && n->act != PL_DT_F32) {
            pl_k_cast((const float *)patches, (int64_t)rows * n->patch.in, n->act, n->work.in, s);
            patches = n->work.in;
        }
        pl_cuda_run_product(r, &n->patch, patches, x, false);
        if (!r->st)
            r->st = pl_cuda_run_copy(r, x, n->cls, h, cudaMemcpyDeviceToDevice);
    } else if (r->f->embeds) {
        r->st = pl_cuda_run_copy(r, x, r->f->embeds, rows * h, cudaMemcpyHostToDevice);
    } else {
        pl_k_embed(from->embed.data ? &from->embed : &from->head, r->step.ids, r->rows, x, s);
    }
    if (n->positions || n->types)
        pl_k_add_tables(&r->step, n->positions, n->arch.pos_offset, n->types, (int64_t)h, x, s);
    if (n->embed_gain)
        pl_cuda_run_norm(r, n->embed_gain, n->embed_bias);
}
