/* Reading a job. Rank 0 wrote it, but it came over a wire: shapes and names are checked before
 * anything indexes by them. */
#include "worker/rank/job.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

uint32_t pl_cells_count(const struct pl_cells *c)
{
    return c->n_arms * c->n_samples * c->repeats;
}

struct pl_row_id pl_cells_row(const struct pl_cells *c, uint32_t cell)
{
    const uint32_t repeat = cell % c->repeats, rest = cell / c->repeats;
    return (struct pl_row_id){.arm = c->arms[rest / c->n_samples],
                              .context = c->context,
                              .sample = c->first_sample + rest % c->n_samples,
                              .repeat = repeat};
}

static enum pl_status bad(struct pl_err *err, const char *what)
{
    return pl_fail(err, PL_EPROTO, "job: %s is missing or wrong", what);
}

static bool get_u32(const json_t *o, const char *key, uint32_t *out)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > UINT32_MAX)
        return false;
    *out = (uint32_t)json_integer_value(v);
    return true;
}

static int64_t seconds(const json_t *o, const char *key)
{
    const double s = pl_json_get_f64(o, key, 0);
    return s > 0 && s < 1e9 ? (int64_t)(s * 1e9) : 0;
}

static enum pl_status parse_shape(struct pl_job *j, struct pl_err *err)
{
    const json_t *o = json_object_get(j->json, "shape");
    struct pl_shape *s = &j->shape;
    if (!get_u32(o, "arms", &s->arms) || !get_u32(o, "contexts", &s->contexts) ||
        !get_u32(o, "samples", &s->samples) || !get_u32(o, "repeats", &s->repeats) ||
        !get_u32(o, "batch", &s->batch) || !get_u32(o, "tokens", &s->tokens) ||
        !get_u32(o, "models", &s->models) || !get_u32(o, "layers", &s->layers) ||
        !get_u32(o, "rounds", &s->rounds) || !get_u32(o, "metrics", &s->metrics))
        return bad(err, "shape");
    return pl_shape_check(s, err);
}

/* The engine of a model: 0 is always our own. */
static enum pl_status find_engine(struct pl_job *j, const json_t *model, uint32_t *out,
                                  struct pl_err *err)
{
    const json_t *engine = json_object_get(model, "engine");
    const json_t *exec = json_object_get(engine, "exec");
    if (!json_is_object(engine)) {
        *out = 0;
        return PL_OK;
    }
    const size_t n = json_array_size(exec);
    const char *ids_from = pl_json_get_str(engine, "ids_from", NULL);
    if (n == 0)
        return bad(err, "engine.exec");
    for (size_t i = 0; i < n; i++)
        if (!json_is_string(json_array_get(exec, i)))
            return bad(err, "engine.exec");
    for (uint32_t e = 1; e < j->n_engines; e++) {
        size_t same = 0;
        while (same < n && j->engines[e].exec[same] &&
               strcmp(j->engines[e].exec[same], json_string_value(json_array_get(exec, same))) == 0)
            same++;
        const char *other = j->engines[e].ids_from;
        if (same == n && !j->engines[e].exec[n] &&
            (ids_from == other || (ids_from && other && strcmp(ids_from, other) == 0))) {
            *out = e;
            return PL_OK;
        }
    }
    const char **argv = calloc(n + 1, sizeof *argv);
    if (!argv)
        return pl_fail(err, PL_ENOMEM, "job");
    j->engines[j->n_engines] = (struct pl_job_engine){.exec = argv, .ids_from = ids_from};
    *out = j->n_engines++;
    for (size_t i = 0; i < n; i++)
        argv[i] = json_string_value(json_array_get(exec, i));
    return PL_OK;
}

static enum pl_status parse_arm(struct pl_job *j, uint32_t i, struct pl_err *err)
{
    struct pl_job_arm *a = &j->arms[i];
    a->json = json_array_get(json_object_get(j->sweep, "arms"), i);
    const json_t *plan = json_array_get(json_object_get(j->json, "arms"), i);
    a->name = pl_json_get_str(a->json, "name", NULL);
    a->model = pl_json_get_str(a->json, "model", NULL);
    a->draft_model = pl_json_get_str(json_object_get(a->json, "draft"), "model", NULL);
    const json_t *model = a->model ? json_object_get(j->models, a->model) : NULL;
    if (!a->name || !model || !get_u32(plan, "group", &a->group) ||
        !get_u32(plan, "residence", &a->residence) || a->group >= j->n_groups)
        return bad(err, "an arm");
    a->sim = json_is_true(json_object_get(plan, "sim"));
    const int64_t clients = pl_json_get_i64(a->json, "concurrency", 1);
    const int64_t n = clients > 1 ? pl_json_get_i64(a->json, "requests", clients)
                                  : pl_json_get_i64(a->json, "batch", 1);
    if (n < 1 || n > j->shape.batch)
        return bad(err, "an arm's batch");
    a->sequences = (uint32_t)n;
    return find_engine(j, model, &a->engine, err);
}

static enum pl_status parse_arms(struct pl_job *j, struct pl_err *err)
{
    const uint32_t n = j->shape.arms;
    if (!get_u32(j->json, "groups", &j->n_groups) || j->n_groups == 0 || j->n_groups > n)
        return bad(err, "groups");
    j->arms = calloc(n, sizeof *j->arms);
    j->engines = calloc(n + 1, sizeof *j->engines);
    j->group_arms = calloc(n, sizeof *j->group_arms);
    j->group_first = calloc((size_t)j->n_groups + 1, sizeof *j->group_first);
    if (!j->arms || !j->engines || !j->group_arms || !j->group_first)
        return pl_fail(err, PL_ENOMEM, "job");
    j->n_engines = 1;
    for (uint32_t i = 0; i < n; i++) {
        const enum pl_status st = parse_arm(j, i, err);
        if (st != PL_OK)
            return st;
    }
    uint32_t at = 0;
    for (uint32_t g = 0; g < j->n_groups; g++) {
        j->group_first[g] = at;
        for (uint32_t i = 0; i < n; i++)
            if (j->arms[i].group == g)
                j->group_arms[at++] = i;
    }
    j->group_first[j->n_groups] = at;
    return PL_OK;
}

static enum pl_status parse_tokens(struct pl_job *j, struct pl_err *err)
{
    const json_t *v = json_object_get(json_object_get(j->sweep, "generate"), "tokens");
    const bool list = json_is_array(v);
    j->tokens = calloc(j->shape.contexts, sizeof *j->tokens);
    if (!j->tokens)
        return pl_fail(err, PL_ENOMEM, "job");
    for (uint32_t i = 0; i < j->shape.contexts; i++) {
        const json_t *n = list ? json_array_get(v, i) : v;
        const int64_t tokens = j->prefill_only ? 1 : json_integer_value(n);
        if (!json_is_integer(n) || tokens < 1 || tokens > j->shape.tokens)
            return bad(err, "generate.tokens");
        j->tokens[i] = (uint32_t)tokens;
    }
    return PL_OK;
}

static enum pl_status parse_rest(struct pl_job *j, struct pl_err *err)
{
    const json_t *measure = json_object_get(j->sweep, "measure");
    const json_t *contexts = json_object_get(json_object_get(j->sweep, "grid"), "contexts");
    uint32_t session;
    j->contexts = calloc(j->shape.contexts, sizeof *j->contexts);
    if (!j->contexts)
        return pl_fail(err, PL_ENOMEM, "job");
    if (json_array_size(contexts) != j->shape.contexts)
        return bad(err, "grid.contexts");
    for (uint32_t i = 0; i < j->shape.contexts; i++) {
        j->contexts[i] = json_integer_value(json_array_get(contexts, i));
        if (j->contexts[i] > j->max_context)
            j->max_context = j->contexts[i];
    }
    if (pl_json_get_i64(j->json, "longest_prompt", 0) > j->max_context)
        j->max_context = pl_json_get_i64(j->json, "longest_prompt", 0);
    j->samples = pl_json_get_str(j->json, "samples", "");
    j->seed = (uint64_t)pl_json_get_i64(j->sweep, "seed", 1);
    j->results = pl_json_get_str(j->json, "results", NULL);
    if (!get_u32(j->json, "run_samples", &j->run_samples) ||
        !get_u32(j->json, "retries", &j->retries) || !get_u32(j->json, "session", &session) ||
        !j->results)
        return bad(err, "a number or the results path");
    j->session = (uint16_t)session;
    j->warmup = (uint32_t)pl_json_get_i64(measure, "warmup", 3);
    j->kernels = json_is_true(json_object_get(measure, "kernels"));
    j->timeout_ns = seconds(measure, "timeout");
    j->load_timeout_ns = seconds(measure, "load_timeout");
    j->prefill_only = strcmp(pl_json_get_str(measure, "mode", "e2e"), "prefill") == 0;
    const char *exclusive = pl_json_get_str(measure, "exclusive", "");
    j->exclusive = strcmp(exclusive, "node") == 0   ? PL_EXCLUSIVE_NODE
                   : strcmp(exclusive, "none") == 0 ? PL_EXCLUSIVE_NONE
                                                    : PL_EXCLUSIVE_AUTO;
    return parse_tokens(j, err);
}

enum pl_status pl_job_parse(json_t *json, struct pl_job **out, struct pl_err *err)
{
    struct pl_job *j = calloc(1, sizeof *j);
    if (!j)
        return pl_fail(err, PL_ENOMEM, "job");
    j->json = json_incref(json);
    j->sweep = json_object_get(json, "sweep");
    j->models = json_object_get(j->sweep, "models");
    j->data = json_object_get(j->sweep, "data");
    enum pl_status st = parse_shape(j, err);
    if (st == PL_OK)
        st = parse_arms(j, err);
    if (st == PL_OK)
        st = parse_rest(j, err);
    if (st != PL_OK) {
        pl_job_free(j);
        return st;
    }
    *out = j;
    return PL_OK;
}

void pl_job_free(struct pl_job *j)
{
    if (!j)
        return;
    for (uint32_t e = 1; j->engines && e < j->n_engines; e++)
        free(j->engines[e].exec);
    free(j->engines);
    free(j->arms);
    free(j->group_arms);
    free(j->group_first);
    free(j->contexts);
    free(j->tokens);
    json_decref(j->json);
    free(j);
}
