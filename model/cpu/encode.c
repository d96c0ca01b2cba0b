#include "model/cpu/steps.h"

#include <math.h>
#include <string.h>

/*
 * Every row of a source sees every other, so each block needs all rows' K and V before it attends.
 * Up to PL_CPU_CHUNK rows stay in the workspace from the first block to the last; more wait in the
 * cache's stage and pass each block in pieces, once for K and V and once for the rest.
 */
struct encoding {
    struct job job;
    struct pl_cache *cache;
    size_t n;
};

/* The job for the piece that begins at row `at`. */
static struct job piece(const struct encoding *e, size_t at, int members)
{
    struct job j = e->job;

    j.row0 = at;
    j.rows = e->n - at < PL_CPU_CHUNK ? e->n - at : PL_CPU_CHUNK;
    pl_job_shape(&j, members);
    return j;
}

/* Rows of the workspace from or to the stage; barrier. */
static void stage_copy(const struct encoding *e, const struct job *j, bool out, int m, int members)
{
    size_t h = (size_t)j->n->arch.hidden, begin, end;
    float *x = j->n->work.x, *stage = e->cache->stage.data + j->row0 * h;

    pl_pool_share(j->rows, m, members, &begin, &end);
    memcpy((out ? stage : x) + begin * h, (out ? x : stage) + begin * h,
           (end - begin) * h * sizeof(float));
    pl_pool_barrier(j->n->device->pool);
}

static void keys_and_values(const struct job *j, int32_t l, const float *x, int m, int members)
{
    const struct pl_cpu_layer *w = &j->n->layers[l];
    struct pl_workspace *b = &j->n->work;
    size_t begin, end;

    pl_step_linear(j, &w->k, x, j->rows, b->k, NULL, m, members);
    pl_step_linear(j, &w->v, x, j->rows, b->v, NULL, m, members);
    pl_pool_barrier(j->n->device->pool);
    pl_pool_share((size_t)j->n->arch.kv_heads, m, members, &begin, &end);
    for (size_t h = begin; h < end; h++)
        pl_step_rope_and_store(j, l, h);
    pl_pool_barrier(j->n->device->pool);
}

static void queries_and_rest(const struct job *j, int32_t l, const float *x, int m, int members)
{
    size_t begin, end;

    pl_step_linear(j, &j->n->layers[l].q, x, j->rows, j->n->work.q, NULL, m, members);
    pl_pool_barrier(j->n->device->pool);
    if (j->n->layers[l].q_norm || j->n->arch.pos == PL_POS_ROPE) {
        pl_pool_share((size_t)j->n->arch.heads, m, members, &begin, &end);
        for (size_t h = begin; h < end; h++)
            pl_step_rope_q(j, l, h);
        pl_pool_barrier(j->n->device->pool);
    }
    pl_step_attention(j, l, false, m, members);
    pl_pool_barrier(j->n->device->pool);
    pl_step_rest(j, l, m, members);
}

/* Final norm, taps and the stage rows of one piece. */
static void finish(const struct encoding *e, const struct job *j, int m, int members)
{
    const struct pl_network *n = j->n;

    if (n->final_gain)
        pl_step_norm_x(j, n->final_gain, n->final_bias, m, members);
    pl_step_taps(j, -1, n->work.x, m, members);
    stage_copy(e, j, true, m, members);
}

static void whole(const struct encoding *e, int m, int members)
{
    struct job j = piece(e, 0, members);

    pl_step_input(&j, m, members);
    pl_pool_barrier(j.n->device->pool);
    for (int32_t l = 0; l < j.n->arch.layers; l++) {
        const float *x = pl_step_attn_input(&j, l, m, members);
        keys_and_values(&j, l, x, m, members);
        queries_and_rest(&j, l, x, m, members);
    }
    finish(e, &j, m, members);
}

static void in_pieces(const struct encoding *e, int m, int members)
{
    const struct pl_network *n = e->job.n;

    for (size_t at = 0; at < e->n; at += PL_CPU_CHUNK) {
        struct job j = piece(e, at, members);
        pl_step_input(&j, m, members);
        pl_pool_barrier(n->device->pool);
        stage_copy(e, &j, true, m, members);
    }
    for (int32_t l = 0; l < n->arch.layers; l++) {
        for (size_t at = 0; at < e->n; at += PL_CPU_CHUNK) {
            struct job j = piece(e, at, members);
            stage_copy(e, &j, false, m, members);
            keys_and_values(&j, l, pl_step_attn_input(&j, l, m, members), m, members);
        }
        for (size_t at = 0; at < e->n; at += PL_CPU_CHUNK) {
            struct job j = piece(e, at, members);
            stage_copy(e, &j, false, m, members);
            queries_and_rest(&j, l, pl_step_attn_input(&j, l, m, members), m, members);
            stage_copy(e, &j, true, m, members);
        }
    }
    for (size_t at = 0; at < e->n; at += PL_CPU_CHUNK) {
        struct job j = piece(e, at, members);
        stage_copy(e, &j, false, m, members);
        finish(e, &j, m, members);
    }
}

static void encode_member(void *arg, int m, int members)
{
    const struct encoding *e = arg;

    if (e->n <= PL_CPU_CHUNK)
        whole(e, m, members);
    else
        in_pieces(e, m, members);
}

/* K and V of the source's final states for each block of the decoder. */
static void cross_member(void *arg, int m, int members)
{
    const struct encoding *e = arg;
    const struct pl_network *n = e->job.n;
    const struct pl_cache *source = e->cache->source;
    const struct pl_workspace *b = &n->work;
    size_t hidden = (size_t)n->arch.hidden, dim = (size_t)n->arch.head_dim;
    size_t kv_heads = (size_t)n->arch.kv_heads, begin, end;

    pl_pool_share(kv_heads, m, members, &begin, &end);
    for (int32_t l = 0; l < n->arch.layers; l++) {
        for (size_t at = 0; at < e->n; at += PL_CPU_CHUNK) {
            struct job j = piece(e, at, members);
            const float *x = source->stage.data + at * hidden;
            pl_step_linear(&j, &n->layers[l].cross_k, x, j.rows, b->k, NULL, m, members);
            pl_step_linear(&j, &n->layers[l].cross_v, x, j.rows, b->v, NULL, m, members);
            pl_pool_barrier(n->device->pool);
            for (size_t h = begin; h < end; h++)
                for (size_t r = 0; r < j.rows; r++)
                    pl_store_kv(e->cache, &e->cache->cross[l], h, at + r,
                                b->k + (r * kv_heads + h) * dim, b->v + (r * kv_heads + h) * dim);
            pl_pool_barrier(n->device->pool);
        }
    }
}

/* Positions and mask of the source. RoBERTa counts what is not padding, by id: its padding has the
 * row before the first. */
static void read_source(struct pl_cache *c, const struct pl_source *s)
{
    const struct pl_arch *a = &c->network->arch;
    int32_t count = 0;

    c->masked = false;
    for (size_t i = 0; i < s->n; i++) {
        bool real = a->pad < 0 || !s->ids || s->ids[i] != a->pad;
        c->positions[i] = a->pad < 0 ? (int32_t)i : real ? count++ : -1;
        c->mask[i] = s->mask && !s->mask[i] ? -1e30f : 0;
        c->masked = c->masked || c->mask[i] != 0;
    }
}

enum pl_status pl_cpu_encode(struct pl_network *n, struct pl_cache *c, const struct pl_source *s,
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
                           .sums_layer = -1};
    struct encoding e = {.job = {.n = net, .f = &f, .source = s}, .cache = to, .n = s->n};

    if (!s->n || s->n > to->max_tokens)
        return pl_fail(err, PL_ERANGE, "a source of %zu rows: the session holds %zu", s->n,
                       to->max_tokens);
    read_source(to, s);
    for (size_t r = 0; r < PL_CPU_CHUNK; r++) {
        net->work.row_span[r] = &span;
        net->work.row_in_span[r] = r;
    }
    c->kv_read = to->kv_read = 0;
    for (int32_t l = 0; l < net->arch.layers; l++)
        to->kv[l].len = s->n;
    pl_pool_run(n->device->pool, encode_member, &e);
    if (n->encoder) {
        e.job.n = n;
        e.cache = c;
        pl_pool_run(n->device->pool, cross_member, &e);
        for (int32_t l = 0; l < n->arch.layers; l++)
            c->cross[l].len = s->n;
    }
    return PL_OK;
}

enum pl_status pl_cpu_pool_row(struct pl_network *n, struct pl_cache *c, float *out,
                               struct pl_err *err)
{
    size_t h = (size_t)n->arch.hidden;
    struct pl_gemm g = {.x = c->stage.data,
                        .ldx = h,
                        .rows = 1,
                        .end = (h + PL_PANEL - 1) / PL_PANEL,
                        .y = out,
                        .ldy = h,
                        .bias = n->pooler.bias,
                        .scratch = pl_cpu_scratch_of(n->device, 0)};

    if (!n->pooler.data)
        return pl_fail(err, PL_EUNSUPPORTED, "the model has no pooler");
    pl_cpu_gemm_weight(&g, &n->pooler);
    n->device->kernels->gemm(&g);
    for (size_t i = 0; i < h; i++)
        out[i] = tanhf(out[i]);
    return PL_OK;
}
