#include "pruning/method.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct pl_prune_method *pl_prune_method(const char *name)
{
    static const struct pl_prune_method *const all[] = {
        &pl_prune_sdtp, &pl_prune_random,  &pl_prune_fastv,     &pl_prune_lazyllm,
        &pl_prune_h2o,  &pl_prune_snapkv,  &pl_prune_pyramidkv, &pl_prune_streamingllm,
        &pl_prune_tova, &pl_prune_prumerge};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    return NULL;
}

static size_t count_visual(const struct pl_pruner *p, const int32_t *index, size_t n)
{
    size_t v = 0;

    for (size_t i = 0; p->visual && i < n; i++)
        v += p->visual[index[i]] != 0;
    return v;
}

/* ---- stages ---- */

/* Rows to keep of the n that are left, after stage k. */
static size_t stage_count(const struct pl_pruner *p, const struct pl_stage *stage, size_t k)
{
    const struct pl_prune_opts *o = &p->o;
    size_t n = stage->n, visual;

    if (!o->visual)
        return o->total_keep > 0 ? p->lengths[k] : pl_keep_count(&o->rule, n, o->keep[k]);
    visual = count_visual(p, stage->index, n);
    if (o->total_keep > 0)
        return n - visual + (p->lengths[k] < visual ? p->lengths[k] : visual);
    return n - visual + (o->keep[k] >= 1 ? visual : (size_t)floor(o->keep[k] * (double)visual));
}

/* Rows that stay whatever their score. */
static void fix_rows(const struct pl_pruner *p, const struct pl_stage *stage, float *scores)
{
    size_t head, tail;

    if (p->o.visual) {
        for (size_t i = 0; i < stage->n; i++)
            if (!p->visual[stage->index[i]] || i + 1 == stage->n)
                scores[i] = INFINITY;
        return;
    }
    pl_keep_always(&p->o.rule, stage->n, &head, &tail);
    for (size_t i = 0; i < head; i++)
        scores[i] = INFINITY;
    for (size_t i = stage->n - tail; i < stage->n; i++)
        scores[i] = INFINITY;
}

static enum pl_status check_scores(const struct pl_pruner *p, const struct pl_stage *stage,
                                   const float *scores, struct pl_err *err)
{
    for (size_t i = 0; i < stage->n; i++)
        if (!isfinite(scores[i]))
            return pl_fail(err, PL_EFORMAT,
                           "%s after layer %d: the score of token %" PRId32 " is %s",
                           p->o.method->name, stage->layer, stage->index[i],
                           isnan(scores[i]) ? "NaN" : "infinite");
    return PL_OK;
}

static json_t *numbers(const float *v, const int32_t *w, size_t n)
{
    json_t *list = json_array();

    for (size_t i = 0; list && i < n; i++)
        json_array_append_new(list, v ? json_real((double)v[i]) : json_integer(w[i]));
    return list;
}

static enum pl_status note_stage(struct pl_pruner *p, const struct pl_stage *stage, json_t *scores,
                                 const int32_t *kept, size_t n, struct pl_err *err)
{
    json_t *places = json_array();

    for (size_t i = 0; places && i < n; i++)
        json_array_append_new(places, json_integer(stage->index[kept ? kept[i] : (int32_t)i]));
    if (json_array_append_new(p->stages, json_pack("{s:i,s:o,s:o}", "layer", stage->layer, "scores",
                                                   scores ? scores : json_array(), "kept", places)))
        return pl_fail(err, PL_ENOMEM, "no memory for a trace");
    return PL_OK;
}

static enum pl_status run_stage(void *user, const struct pl_stage *stage, int32_t *kept,
                                size_t *n_kept, struct pl_err *err)
{
    struct pl_pruner *p = user;
    enum pl_status st;
    size_t k = 0, count;
    json_t *scores = NULL;

    while (p->o.layers[k] != stage->layer)
        k++;
    count = stage_count(p, stage, k);
    if (count == stage->n) /* nothing goes: no score is asked for */
        return p->tracing ? note_stage(p, stage, NULL, NULL, count, err) : PL_OK;
    st = p->o.method->score(p, stage, p->scores, err);
    if (!st)
        st = check_scores(p, stage, p->scores, err);
    if (st)
        return st;
    if (p->tracing)
        scores = numbers(p->scores, NULL, stage->n);
    fix_rows(p, stage, p->scores);
    if (p->o.visual && count == 0)
        count = 1;
    pl_keep_select(p->scores, stage->n, count, kept);
    *n_kept = count;
    return p->tracing ? note_stage(p, stage, scores, kept, count, err) : PL_OK;
}

/* ---- KV ---- */

static size_t kv_budget(const struct pl_pruner *p, int32_t layer, size_t n)
{
    size_t count;

    if (p->o.method->kv_budget)
        count = p->o.method->kv_budget(p, layer, n);
    else
        count = (size_t)floor(p->o.keep[0] * (double)n);
    return count < 1 ? 1 : count > n ? n : count;
}

/* The rows of a layer that each KV head keeps. */
static enum pl_status choose_kv(struct pl_pruner *p, int32_t layer, const float *attn, size_t n,
                                struct pl_err *err)
{
    const size_t heads = (size_t)p->arch->kv_heads, count = kv_budget(p, layer, n);
    int32_t *idx = p->kv_index + (size_t)layer * heads * p->max_tokens;

    p->kv_count[layer] = count;
    for (size_t h = 0; h < heads && count < n; h++) {
        p->o.method->kv_score(p, attn, n, h, p->scores);
        for (size_t i = 0; i < n; i++)
            if (isnan(p->scores[i]))
                return pl_fail(err, PL_EFORMAT, "%s, layer %d: the score of token %zu is NaN",
                               p->o.method->name, layer, i);
        pl_keep_select(p->scores, n, count, idx + h * count);
    }
    return PL_OK;
}

static enum pl_status see_attention(void *user, const struct pl_stage *stage, int32_t *kept,
                                    size_t *n_kept, struct pl_err *err)
{
    (void)kept; /* all rows go on; the cache is reduced once the prefill is done */
    (void)n_kept;
    return choose_kv(user, stage->layer, stage->attn, stage->n, err);
}

static enum pl_status note_kv(struct pl_pruner *p, const int32_t *idx, size_t n, struct pl_err *err)
{
    json_t *heads = json_array();

    for (int32_t h = 0; heads && h < p->arch->kv_heads; h++)
        json_array_append_new(heads, numbers(NULL, idx + (size_t)h * n, n));
    if (json_array_append_new(p->kept_kv, heads))
        return pl_fail(err, PL_ENOMEM, "no memory for a trace");
    return PL_OK;
}

enum pl_status pl_pruner_finish(struct pl_pruner *p, struct pl_session *s, struct pl_err *err)
{
    const size_t heads = (size_t)p->arch->kv_heads;
    enum pl_status st = PL_OK;

    if (p->o.method->where != PL_PRUNE_KV)
        return PL_OK;
    for (int32_t l = 0; l < p->arch->layers && !st; l++) {
        const size_t n = pl_session_kv_len(s, l);
        int32_t *idx = p->kv_index + (size_t)l * heads * p->max_tokens;
        if (!p->o.method->needs)
            st = choose_kv(p, l, NULL, n, err);
        else if (n != p->n)
            st = pl_fail(
                err, PL_EUNSUPPORTED,
                "%s: layer %d sees a window of %zu of %zu tokens, its KV is reduced already",
                p->o.method->name, l, n, p->n);
        for (size_t i = 0; p->kv_count[l] == n && i < heads * n && p->tracing && !st; i++)
            idx[i] = (int32_t)(i % n);
        if (!st && p->kv_count[l] < n)
            st = pl_session_kv_keep(s, l, idx, p->kv_count[l], err);
        if (!st && p->tracing)
            st = note_kv(p, idx, p->kv_count[l], err);
    }
    return st;
}

void pl_prune_group_mean(const struct pl_pruner *p, const float *attn, size_t n, size_t head,
                         float scale, float *out)
{
    const size_t group = (size_t)(p->arch->heads / p->arch->kv_heads);
    const float *a = attn + head * group * n;

    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (size_t g = 0; g < group; g++)
            sum += a[g * n + i];
        out[i] = sum / (float)group * scale;
    }
}

void pl_prune_head_mean(const struct pl_pruner *p, const float *attn, size_t n, float *out)
{
    const size_t heads = (size_t)p->arch->heads;

    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (size_t h = 0; h < heads; h++)
            sum += attn[h * n + i];
        out[i] = sum / (float)heads;
    }
}

const struct pl_vision_merge *pl_pruner_merge(const struct pl_pruner *p)
{
    return p->o.n_keep && p->o.keep[0] >= 1 ? NULL : p->merge;
}

enum pl_status pl_prune_note_merge(struct pl_pruner *p, const int32_t *kept, size_t n,
                                   struct pl_err *err)
{
    if (p->tracing && json_array_append_new(p->merged, numbers(NULL, kept, n)))
        return pl_fail(err, PL_ENOMEM, "no memory for a trace");
    return PL_OK;
}

size_t pl_prune_last_row(const struct pl_prune_opts *o)
{
    (void)o;
    return 1;
}

/* ---- life ---- */

static enum pl_status make_room(struct pl_pruner *p, struct pl_err *err)
{
    const size_t layers = (size_t)p->arch->layers, heads = (size_t)p->arch->kv_heads;
    bool ok = (p->scores = malloc(2 * p->max_tokens * sizeof(*p->scores))) != NULL;

    if (p->o.method->where == PL_PRUNE_KV) {
        p->kv_index = malloc(layers * heads * p->max_tokens * sizeof(*p->kv_index));
        p->kv_count = calloc(layers, sizeof(*p->kv_count));
        ok = ok && p->kv_index && p->kv_count;
    }
    p->stages = json_array();
    p->kept_kv = json_array();
    p->merged = json_array();
    return ok && p->stages && p->kept_kv && p->merged
               ? PL_OK
               : pl_fail(err, PL_ENOMEM, "no memory to prune %zu tokens", p->max_tokens);
}

/* Between blocks, or after all of them to see their attention. */
static void make_hook(struct pl_pruner *p)
{
    const struct pl_prune_method *m = p->o.method;

    if (m->where == PL_PRUNE_KV)
        for (p->o.n_layers = 0; p->o.n_layers < (size_t)p->arch->layers; p->o.n_layers++)
            p->o.layers[p->o.n_layers] = (int32_t)p->o.n_layers;
    p->hook = (struct pl_stage_hook){.name = m->name,
                                     .layers = p->o.layers,
                                     .n_layers = p->o.n_layers,
                                     .needs = m->needs,
                                     .attn_window = m->window ? m->window(&p->o) : 0,
                                     .run = m->where == PL_PRUNE_KV ? see_attention : run_stage,
                                     .user = p};
}

enum pl_status pl_pruner_create(const json_t *prune, struct pl_model *m, size_t max_tokens,
                                uint64_t seed, struct pl_pruner **out, struct pl_err *err)
{
    struct pl_pruner *p = calloc(1, sizeof(*p));
    enum pl_status st;

    if (!p)
        return pl_fail(err, PL_ENOMEM, "no memory for a pruner");
    p->arch = &pl_model_info(m)->arch;
    p->max_tokens = max_tokens;
    st = pl_prune_opts_read(prune, p->arch, &p->o, err);
    if (!st && p->o.method->where == PL_PRUNE_KV && p->arch->layers > PL_PRUNE_STAGES_MAX)
        st = pl_fail(err, PL_EUNSUPPORTED, "prune: a model of %d layers", p->arch->layers);
    p->seed = p->o.has_seed ? p->o.seed : seed;
    if (!st)
        st = make_room(p, err);
    if (!st && p->o.method->open)
        st = p->o.method->open(p, m, err);
    p->o.weights = NULL; /* the JSON's */
    if (st) {
        pl_pruner_free(p);
        return st;
    }
    make_hook(p);
    *out = p;
    return PL_OK;
}

void pl_pruner_free(struct pl_pruner *p)
{
    if (!p)
        return;
    if (p->state && p->o.method->close)
        p->o.method->close(p);
    json_decref(p->stages);
    json_decref(p->kept_kv);
    json_decref(p->merged);
    free(p->scores);
    free(p->kv_index);
    free(p->kv_count);
    free(p);
}

void pl_pruner_session_opts(const struct pl_pruner *p, struct pl_session_opts *o)
{
    if (p->o.method->where == PL_PRUNE_INPUT ||
        (p->o.method->where == PL_PRUNE_KV && !p->o.method->needs))
        return;
    o->positions = p->o.positions;
    o->hooks = &p->hook;
    o->n_hooks = 1;
}

int64_t pl_pruner_bytes(const struct pl_pruner *p)
{
    const size_t kv = p->kv_index ? (size_t)p->arch->layers * (size_t)p->arch->kv_heads : 0;

    return (int64_t)(p->max_tokens * (2 * sizeof(float) + kv * sizeof(int32_t)));
}

enum pl_status pl_pruner_begin(struct pl_pruner *p, const struct pl_prune_prompt *prompt,
                               struct pl_err *err)
{
    size_t may_go = prompt->n;

    if (prompt->n > p->max_tokens)
        return pl_fail(err, PL_ERANGE, "prune: a prompt of %zu tokens, made for %zu", prompt->n,
                       p->max_tokens);
    p->n = prompt->n;
    p->key = prompt->key;
    p->visual = prompt->visual;
    json_array_clear(p->stages);
    json_array_clear(p->kept_kv);
    if (p->o.visual || p->o.method->where == PL_PRUNE_INPUT) {
        may_go = 0;
        for (size_t i = 0; p->visual && i < p->n; i++)
            may_go += p->visual[i] != 0;
        if (!may_go)
            return pl_fail(err, PL_EUSAGE,
                           "%s prunes visual tokens and this prompt has none (prune.tokens: all "
                           "takes every token)",
                           p->o.method->name);
    }
    p->n_visual = p->o.visual ? may_go : 0;
    if (p->o.total_keep > 0) {
        static const struct pl_keep_rule none;
        pl_keep_solve(p->o.visual ? &none : &p->o.rule, may_go, p->o.total_keep, p->o.n_layers,
                      p->lengths);
    }
    return PL_OK;
}

void pl_pruner_set_trace(struct pl_pruner *p, bool on)
{
    p->tracing = on;
}

json_t *pl_pruner_trace(const struct pl_pruner *p)
{
    json_t *o = json_pack("{s:O}", "stages", p->stages);

    if (o && p->merge && json_object_set_new(o, "merged", json_copy(p->merged)) != 0) {
        json_decref(o);
        return NULL;
    }
    json_array_clear(p->merged);

    if (o && p->o.method->where == PL_PRUNE_KV && json_object_set(o, "kept_kv", p->kept_kv) != 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}
