#include "model/cpu/steps.h"

#include <math.h>
#include <string.h>

/* q, k and v: a share of each, or by_head those of this member's KV heads. */
static void step_qkv(const struct job *j, const struct pl_cpu_layer *w, const struct pl_acts *x,
                     int m, int members)
{
    const struct pl_arch *a = &j->n->arch;
    const struct pl_workspace *b = &j->n->work;
    size_t per_kv = (size_t)a->head_dim / PL_PANEL, first, end;
    size_t per_q = per_kv * (size_t)(a->heads / a->kv_heads);

    if (!j->by_head) {
        pl_step_linear(j, &w->q, x, b->q, NULL, m);
        pl_step_linear(j, &w->k, x, b->k, NULL, m);
        pl_step_linear(j, &w->v, x, b->v, NULL, m);
        pl_step_meet(j, m);
        return;
    }
    pl_pool_share((size_t)a->kv_heads, m, members, &first, &end);
    pl_step_linear_panels(j, &w->q, x, b->q, pl_cpu_pitch(w->q.out), NULL, first * per_q,
                          end * per_q, m);
    pl_step_linear_panels(j, &w->k, x, b->k, pl_cpu_pitch(w->k.out), NULL, first * per_kv,
                          end * per_kv, m);
    pl_step_linear_panels(j, &w->v, x, b->v, pl_cpu_pitch(w->v.out), NULL, first * per_kv,
                          end * per_kv, m);
}

static void step_rope_and_store(const struct job *j, int32_t layer, int m, int members)
{
    const struct pl_arch *a = &j->n->arch;
    size_t heads = (size_t)a->heads, kv_heads = (size_t)a->kv_heads;
    size_t group = heads / kv_heads, begin, end;

    if (j->by_head) {
        pl_pool_share(kv_heads, m, members, &begin, &end);
        for (size_t h = begin * group; h < end * group; h++)
            pl_step_rope_q(j, layer, h, 0, j->rows);
        for (size_t h = begin; h < end; h++)
            pl_step_rope_and_store(j, layer, h, 0, j->rows);
        pl_cpu_mark(j->n->device, m, PL_CPU_ROPE);
        return;
    }
    /* By rows where there are enough: heads of q take no time where nothing turns them. */
    const bool by_rows = j->rows >= 8 * (size_t)members;
    pl_pool_share(by_rows ? j->rows : heads + kv_heads, m, members, &begin, &end);
    for (size_t u = by_rows ? 0 : begin; u < (by_rows ? heads + kv_heads : end); u++) {
        size_t first = by_rows ? begin : 0, last = by_rows ? end : j->rows;
        if (u < heads)
            pl_step_rope_q(j, layer, u, first, last);
        else
            pl_step_rope_and_store(j, layer, u - heads, first, last);
    }
    pl_cpu_mark(j->n->device, m, PL_CPU_ROPE);
    pl_step_meet(j, m);
}

/* Adds the rows' attention probabilities to the cache's column sums, a KV head's to a member. */
static void step_sums(const struct job *j, int32_t layer, int m, int members)
{
    const struct pl_arch *a = &j->n->arch;
    struct pl_cache *c = j->f->spans[0].cache;
    size_t dim = (size_t)a->head_dim, group = (size_t)(a->heads / a->kv_heads), begin, end;
    size_t bytes = pl_cpu_dtype_bytes(c->dtype), seen = 0;
    size_t pitch = pl_cpu_pitch((size_t)a->heads * dim);
    float *scratch = pl_cpu_scratch_of(j->n->device, m), *p = scratch + PL_GEMM_SCRATCH;

    pl_pool_share((size_t)a->kv_heads, m, members, &begin, &end); /* as by_head has it */
    for (size_t h = begin * group; h < end * group; h++) {
        const struct pl_kv *kv = &c->kv[layer]; /* whole: see pl_cache_opts.whole_kv */
        const char *k = (char *)kv->k + pl_cpu_k_head(a, kv->cap, h / group) * bytes;
        float *sums = c->sums.data + h * c->sums.cols;
        for (size_t r = j->f->sums_skip; r < j->rows; r++) {
            size_t len = kv->len + r + 1, from = pl_kv_first(kv, len - 1);
            seen += len - from;
            j->n->device->kernels->weights(p, j->n->work.q + r * pitch + h * dim, dim, k, c->dtype,
                                           from, len, a->unscaled ? 1.0f : 1.0f / sqrtf((float)dim),
                                           scratch);
            for (size_t i = 0; i < len; i++)
                sums[i] += p[i];
        }
    }
    pl_cpu_count(j->n->device, 2 * dim * seen, 0);
}

static void run_layer(const struct job *j, int32_t l, int m, int members)
{
    struct pl_acts x;

    pl_step_rope_table(j, l, m, members);
    x = pl_step_attn_input(j, l, m, members);
    step_qkv(j, &j->n->layers[l], &x, m, members);
    step_rope_and_store(j, l, m, members);
    if (j->f->tree)
        pl_step_attention_tree(j, l, m, members);
    else
        pl_step_attention(j, l, false, m, members);
    if (j->f->sums_layer == l && j->f->spans[0].cache->sums.data)
        step_sums(j, l, m, members);
    pl_step_meet(j, m);
    pl_step_rest(j, l, m, members);
}

/* Logits of `rows` rows, the part of the vocabulary that member m comes to. */
static void step_head(const struct job *j, const float *x, size_t rows, float *logits, int m,
                      int members)
{
    const size_t vocab = (size_t)j->n->arch.vocab, panels = (vocab + PL_PANEL - 1) / PL_PANEL;
    const float scale = j->n->arch.logit_scale;
    struct pl_pool *pool = j->n->device->pool;
    struct pl_acts a = pl_step_acts_of(j, x, rows, &j->n->head_panels, m, members);
    size_t first, end;

    pl_pool_loop(pool, m);
    while (pl_pool_take(pool, m, panels, 8, &first, &end)) {
        pl_step_linear_panels(j, &j->n->head_panels, &a, logits, vocab, NULL, first, end, m);
        end = end * PL_PANEL < vocab ? end * PL_PANEL : vocab;
        for (size_t r = 0; scale != 1 && r < rows; r++)
            for (size_t i = first * PL_PANEL; i < end; i++)
                logits[r * vocab + i] *= scale;
    }
}

static void step_output(const struct job *j, int m, int members)
{
    const struct pl_forward *f = j->f;
    struct pl_network *n = j->n;
    size_t h = (size_t)n->arch.hidden, vocab = (size_t)n->arch.vocab, begin, end, row = 0;
    size_t pitch = pl_cpu_pitch(h);

    if (f->end_layer < n->arch.layers || f->to_stage) {
        pl_pool_share(j->rows, m, members, &begin, &end);
        for (size_t r = begin; r < end; r++)
            memcpy(f->spans[0].cache->stage.data + (f->stage_row + r) * h, n->work.x + r * pitch,
                   h * sizeof(float));
        return;
    }
    const float *x =
        n->final_gain ? pl_step_norm(j, n->final_gain, n->final_bias, m, members) : n->work.x;
    pl_step_taps(j, -1, x, m, members);
    if (f->want == PL_LOGITS_ALL ||
        (f->want == PL_LOGITS_LAST && j->rows == f->n_spans && !f->silent)) {
        step_head(j, x, j->rows, f->logits, m, members);
    } else if (f->want == PL_LOGITS_LAST) {
        for (size_t s = 0; s + f->silent < f->n_spans; s++) {
            row += f->spans[s].rows;
            step_head(j, x + (row - 1) * pitch, 1, f->logits + s * vocab, m, members);
        }
    }
}

static void forward_member(void *arg, int m, int members)
{
    const struct job *j = arg;

    pl_step_input(j, m, members);
    pl_cpu_mark(j->n->device, m, PL_CPU_INPUT);
    pl_step_meet(j, m);
    for (int32_t l = j->f->first_layer; l < j->f->end_layer; l++)
        run_layer(j, l, m, members);
    step_output(j, m, members);
}

enum pl_status pl_cpu_forward(struct pl_network *n, const struct pl_forward *f, struct pl_err *err)
{
    struct job j = {.n = n, .f = f};
    enum pl_status st;

    for (size_t s = 0; s < f->n_spans; s++) {
        struct pl_cache *c = f->spans[s].cache;
        if (f->spans[s].rows > PL_CPU_CHUNK - j.rows)
            return pl_fail(err, PL_ERANGE, "more than %d rows in one forward", PL_CPU_CHUNK);
        for (size_t r = 0; r < f->spans[s].rows; r++, j.rows++) {
            n->work.row_span[j.rows] = &f->spans[s];
            n->work.row_in_span[j.rows] = r;
        }
        c->kv_read = 0;
    }
    if (!j.rows)
        return pl_fail(err, PL_ERANGE, "a forward without rows");
    st = pl_cache_check_room(f, err);
    if (st)
        return st;
    pl_job_shape(&j, pl_pool_threads(n->device->pool));
    n->device->profile.last = n->device->profile.on ? pl_now_ns() : 0;
    pl_pool_run(n->device->pool, forward_member, &j);
    pl_cache_advance(f);
    return PL_OK;
}
