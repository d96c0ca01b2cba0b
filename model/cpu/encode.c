#include "model/cpu/steps.h"

#include <math.h>
#include <string.h>

/*
 * Every row of a source sees every other, so each block needs all rows' K and V before it attends.
 * Up to PL_CPU_CHUNK rows stay in the workspace from the first block to the last; more wait in the
 * cache's stage and pass each block in pieces, once for K and V and once for the rest. Several
 * short sources share the workspace as spans of one forward: the matrices are then read once for
 * all.
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
static void stage_copy(const struct job *j, bool out, int m, int members)
{
    const struct pl_workspace *w = &j->n->work;
    size_t h = (size_t)j->n->arch.hidden, begin, end;

    pl_pool_share(j->rows, m, members, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        float *stage = w->row_span[r]->cache->stage.data + (j->row0 + w->row_in_span[r]) * h;
        float *x = w->x + r * pl_cpu_pitch(h);
        memcpy(out ? stage : x, out ? x : stage, h * sizeof(float));
    }
    pl_step_meet(j, m);
}

/* Which of a piece's products with x are made. */
enum { KEYS = 1, QUERIES = 2 };

/* K and V into the cache, and q as attention reads it; barrier. */
static void project(const struct job *j, int32_t l, int which, int m, int members)
{
    const struct pl_cpu_layer *w = &j->n->layers[l];
    const struct pl_arch *a = &j->n->arch;
    struct pl_workspace *b = &j->n->work;
    struct pl_acts x = pl_step_attn_input(j, l, m, members);
    size_t begin, end;

    if (which & QUERIES)
        pl_step_linear(j, &w->q, &x, b->q, NULL, m);
    if (which & KEYS) {
        pl_step_linear(j, &w->k, &x, b->k, NULL, m);
        pl_step_linear(j, &w->v, &x, b->v, NULL, m);
    }
    pl_step_meet(j, m);
    if (!(which & KEYS) && !w->q_norm && a->pos != PL_POS_ROPE)
        return;
    pl_pool_share(j->rows, m, members, &begin, &end);
    for (size_t h = 0; which & QUERIES && h < (size_t)a->heads; h++)
        pl_step_rope_q(j, l, h, begin, end);
    for (size_t h = 0; which & KEYS && h < (size_t)a->kv_heads; h++)
        pl_step_rope_and_store(j, l, h, begin, end);
    pl_cpu_mark(j->n->device, m, PL_CPU_ROPE);
    pl_step_meet(j, m);
}

static void attend_and_rest(const struct job *j, int32_t l, int m, int members)
{
    pl_step_attention(j, l, false, m, members);
    pl_step_meet(j, m);
    pl_step_rest(j, l, m, members);
}

/* Final norm, taps and the stage rows of one piece. */
static void finish(const struct job *j, int m, int members)
{
    const struct pl_network *n = j->n;

    if (n->final_gain)
        pl_step_norm_x(j, n->final_gain, n->final_bias, m, members);
    pl_step_taps(j, -1, n->work.x, m, members);
    stage_copy(j, true, m, members);
}

static void whole(const struct encoding *e, int m, int members)
{
    struct job j = piece(e, 0, members);

    pl_step_input(&j, m, members);
    pl_step_meet(&j, m);
    for (int32_t l = 0; l < j.n->arch.layers; l++) {
        project(&j, l, KEYS | QUERIES, m, members);
        attend_and_rest(&j, l, m, members);
    }
    finish(&j, m, members);
}

static void in_pieces(const struct encoding *e, int m, int members)
{
    const struct pl_network *n = e->job.n;

    for (size_t at = 0; at < e->n; at += PL_CPU_CHUNK) {
        struct job j = piece(e, at, members);
        pl_step_input(&j, m, members);
        pl_step_meet(&j, m);
        stage_copy(&j, true, m, members);
    }
    for (int32_t l = 0; l < n->arch.layers; l++) {
        for (size_t at = 0; at < e->n; at += PL_CPU_CHUNK) {
            struct job j = piece(e, at, members);
            stage_copy(&j, false, m, members);
            project(&j, l, KEYS, m, members);
        }
        for (size_t at = 0; at < e->n; at += PL_CPU_CHUNK) {
            struct job j = piece(e, at, members);
            stage_copy(&j, false, m, members);
            project(&j, l, QUERIES, m, members);
            attend_and_rest(&j, l, m, members);
            stage_copy(&j, true, m, members);
        }
    }
    for (size_t at = 0; at < e->n; at += PL_CPU_CHUNK) {
        struct job j = piece(e, at, members);
        stage_copy(&j, false, m, members);
        finish(&j, m, members);
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
    size_t kv_heads = (size_t)n->arch.kv_heads, pitch = pl_cpu_pitch(kv_heads * dim), begin, end;

    pl_pool_share(kv_heads, m, members, &begin, &end);
    for (int32_t l = 0; l < n->arch.layers; l++) {
        for (size_t at = 0; at < e->n; at += PL_CPU_CHUNK) {
            struct job j = piece(e, at, members);
            const struct pl_panels *const users[] = {&n->layers[l].cross_k, &n->layers[l].cross_v};
            struct pl_acts x = {
                .x = source->stage.data + at * hidden, .ldx = hidden, .rows = j.rows};
            x = pl_step_acts(&j, x, users, 2, m, members);
            pl_step_linear(&j, &n->layers[l].cross_k, &x, b->k, NULL, m);
            pl_step_linear(&j, &n->layers[l].cross_v, &x, b->v, NULL, m);
            pl_step_meet(&j, m);
            for (size_t h = begin; h < end; h++)
                for (size_t r = 0; r < j.rows; r++)
                    pl_store_kv(e->cache, &e->cache->cross[l], h, at + r,
                                b->k + r * pitch + h * dim, b->v + r * pitch + h * dim);
            pl_step_meet(&j, m);
        }
    }
}

/* K and V of a source's states for the decoder that this encoder stands before. */
static void cross(struct pl_network *n, struct pl_cache *c, size_t rows)
{
    struct encoding e = {.job = {.n = n}, .cache = c, .n = rows};

    pl_pool_run(n->device->pool, cross_member, &e);
    for (int32_t l = 0; l < n->arch.layers; l++)
        c->cross[l].len = rows;
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
    enum pl_status st = pl_cache_check_source(to, s, err);

    if (st)
        return st;
    pl_cache_begin_source(c, to, s, to->mask);
    for (size_t r = 0; r < PL_CPU_CHUNK; r++) {
        net->work.row_span[r] = &span;
        net->work.row_in_span[r] = r;
    }
    n->device->profile.last = n->device->profile.on ? pl_now_ns() : 0;
    pl_pool_run(n->device->pool, encode_member, &e);
    if (n->encoder)
        cross(n, c, s->n);
    return PL_OK;
}

/* Sources that share the workspace. */
struct pack {
    struct pl_span spans[PL_CPU_CHUNK];
    int32_t ids[PL_CPU_CHUNK], positions[PL_CPU_CHUNK], types[PL_CPU_CHUNK];
    size_t n, rows;
};

static void pack_add(struct pack *p, struct pl_network *net, struct pl_cache *to,
                     const struct pl_source *s)
{
    p->spans[p->n] = (struct pl_span){.cache = to, .rows = s->n};
    for (size_t r = 0; r < s->n; r++) {
        p->ids[p->rows + r] = s->ids[r];
        p->positions[p->rows + r] = to->positions[r];
        p->types[p->rows + r] = s->types ? s->types[r] : 0;
        net->work.row_span[p->rows + r] = &p->spans[p->n];
        net->work.row_in_span[p->rows + r] = r;
    }
    p->rows += s->n;
    p->n++;
}

enum pl_status pl_cpu_encode_batch(struct pl_network *n, struct pl_cache *const *caches,
                                   const struct pl_source *sources, size_t n_sources,
                                   struct pl_err *err)
{
    struct pl_network *net = n->encoder ? n->encoder : n;
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < n_sources && !st; i++)
        st = pl_cache_check_source(n->encoder ? caches[i]->source : caches[i], &sources[i], err);
    for (size_t i = 0, next; i < n_sources && !st; i = next) {
        struct pack p = {.n = 0};
        struct pl_source all = {.ids = p.ids, .types = p.types};
        struct pl_forward f = {.spans = p.spans,
                               .ids = p.ids,
                               .positions = p.positions,
                               .end_layer = net->arch.layers,
                               .sums_layer = -1};
        for (next = i; next < n_sources && sources[next].n <= PL_CPU_CHUNK - p.rows; next++) {
            struct pl_cache *to = n->encoder ? caches[next]->source : caches[next];
            pl_cache_begin_source(caches[next], to, &sources[next], to->mask);
            pack_add(&p, net, to, &sources[next]);
        }
        if (p.n < 2) { /* alone, or too long to share */
            st = pl_cpu_encode(n, caches[i], &sources[i], err);
            next = i + 1;
            continue;
        }
        f.n_spans = p.n;
        all.n = p.rows;
        struct encoding e = {.job = {.n = net, .f = &f, .source = &all}, .n = p.rows};
        n->device->profile.last = n->device->profile.on ? pl_now_ns() : 0;
        pl_pool_run(n->device->pool, encode_member, &e);
        for (size_t k = i; k < next && n->encoder; k++)
            cross(n, caches[k], sources[k].n);
    }
    return st;
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
                        .bias = n->pooler.bias};

    if (!n->pooler.data)
        return pl_fail(err, PL_EUNSUPPORTED, "the model has no pooler");
    pl_cpu_gemm_weight(&g, &n->pooler);
    pl_cpu_gemm_rows(n->device, &g, &n->pooler, 0);
    for (size_t i = 0; i < h; i++)
        out[i] = tanhf(out[i]);
    return PL_OK;
}
