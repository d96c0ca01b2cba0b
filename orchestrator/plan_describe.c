/* What runners say of a sweep's arms before anything runs. */
#include "base/clock.h"
#include "data/scenes.h"
#include "orchestrator/plan.h"
#include "worker/rank/runner.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DESCRIBE_S 60.0

struct child {
    struct pl_runner *runner;
    const char *model; /* a foreign engine's; NULL: our own runner */
    bool broken;       /* said so already */
};

struct describer {
    const struct pl_sweep *s;
    json_t *work; /* arm → what `described` says of its work */
    const char *program;
    bool allow_exec;
    uint64_t device_bytes;
    struct child *children; /* room for each arm's model and its ids_from */
    size_t n;
    struct pl_problems *problems, *warnings;
};

static int64_t patience_ns(const struct pl_sweep *s)
{
    return (int64_t)(pl_sweep_measure_f64(s, "load_timeout", DESCRIBE_S) * (double)PL_NS_PER_S);
}

/* "sweep.yaml:7:3: " of an arm, as far as it is known; free it. */
static char *place_of(const struct pl_sweep *s, uint32_t arm)
{
    char *out = NULL;
    int w = s->path && s->places && s->places[arm][0]
                ? asprintf(&out, "%s:%d:%d: ", s->path, s->places[arm][0], s->places[arm][1])
                : asprintf(&out, "%s%s", s->path ? s->path : "", s->path ? ": " : "");
    return w < 0 ? NULL : out;
}

/* Once a text: arms of one model often share their mistakes. */
static void add_once(struct pl_problems *p, const char *subject, const char *text)
{
    size_t len = strlen(text);
    for (size_t i = 0; i < p->n; i++) {
        size_t have = strlen(p->items[i]);
        if (have > len && strcmp(p->items[i] + have - len, text) == 0)
            return;
    }
    pl_problems_add(p, "%s: %s", subject, text);
}

static enum pl_status start_child(const struct describer *d, const json_t *exec,
                                  struct pl_runner **out, struct pl_err *err)
{
    struct pl_runner_opts opts = {.program = d->program, .hello_timeout_ns = patience_ns(d->s)};
    const char **argv = NULL;
    enum pl_status st;
    if (exec) {
        size_t n = json_array_size(exec);
        argv = calloc(n + 1, sizeof *argv);
        if (!argv)
            return pl_fail(err, PL_ENOMEM, "no memory to start a runner");
        for (size_t i = 0; i < n; i++)
            argv[i] = json_string_value(json_array_get(exec, i));
        opts.exec = argv;
    }
    st = pl_runner_start(&opts, out, err);
    free(argv);
    return st;
}

/* The child that speaks for a model, which may be broken: `problems` says why. NULL: *st. */
static struct child *child_for(struct describer *d, const char *place, const char *model,
                               enum pl_status *st, struct pl_err *err)
{
    const json_t *engine = json_object_get(pl_sweep_model(d->s, model), "engine");
    const json_t *exec = json_object_get(engine, "exec");
    const char *key = exec ? model : NULL;
    struct child *c;
    for (size_t i = 0; i < d->n; i++)
        if (key ? d->children[i].model && strcmp(d->children[i].model, key) == 0
                : !d->children[i].model)
            return &d->children[i];
    c = &d->children[d->n];
    *c = (struct child){.model = key};
    if (exec && !d->allow_exec) {
        d->n++;
        c->broken = true;
        pl_problems_add(d->problems,
                        "%smodels.%s.engine.exec starts \"%s\", expected --allow-exec on the "
                        "command line, which allows programs that a sweep names",
                        place, model, json_string_value(json_array_get(exec, 0)));
        return c;
    }
    *st = start_child(d, exec, &c->runner, err);
    if (*st != PL_OK && exec) {
        d->n++;
        c->broken = true;
        pl_problems_add(d->problems, "%smodels.%s.engine: %s", place, model, err->text);
        *st = PL_OK;
        return c;
    }
    if (*st != PL_OK)
        return NULL;
    d->n++;
    return c;
}

static uint64_t number(const json_t *o, const char *key)
{
    int64_t n = pl_json_get_i64(o, key, 0);
    return n > 0 ? (uint64_t)n : 0;
}

static uint32_t small(const json_t *o, const char *key, uint32_t max)
{
    uint64_t n = number(o, key);
    return n > max ? max : (uint32_t)n;
}

static void take_texts(struct pl_problems *out, const json_t *answer, const char *key,
                       const char *subject)
{
    size_t i;
    json_t *v;
    json_array_foreach (json_object_get(answer, key), i, v)
        if (json_is_string(v))
            add_once(out, subject, json_string_value(v));
}

/* Tokens of a trial at each context. */
static json_t *tokens_list(const struct pl_sweep *s, bool prefill)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < s->n_contexts; i++)
        json_array_append_new(list, json_integer(prefill ? 1 : s->tokens_at[i]));
    return list;
}

static enum pl_status ask(struct describer *d, struct child *c, const json_t *model,
                          const json_t *arm, json_t **answer, struct pl_err *err)
{
    const json_t *drafter =
        pl_sweep_model(d->s, pl_json_get_str(json_object_get(arm, "draft"), "model", ""));
    const json_t *grid = json_object_get(d->s->resolved, "grid");
    const json_t *measure = json_object_get(d->s->resolved, "measure");
    bool prefill = strcmp(pl_json_get_str(measure, "mode", ""), "prefill") == 0;
    const json_t *data = json_object_get(d->s->resolved, "data");
    json_t *q =
        json_pack("{s:s,s:O,s:O?,s:O,s:O,s:I,s:o,s:s}", "type", "describe", "model", model,
                  "draft_model", drafter, "arm", arm, "contexts", json_object_get(grid, "contexts"),
                  "tokens", (json_int_t)(prefill ? 1 : d->s->tokens), "context_tokens",
                  tokens_list(d->s, prefill), "data", pl_json_get_str(data, "kind", "text"));
    const struct pl_scenes *scenes = d->s->list ? pl_samples_scenes(d->s->list) : NULL;
    enum pl_status st;
    if (q && scenes) /* the longest prompt, or nearly, for what depends on its length */
        json_object_set_new(q, "sample", pl_samples_request(d->s->list, pl_scenes_longest(scenes)));
    if (!q)
        return pl_fail(err, PL_ENOMEM, "no memory to ask a runner");
    st = pl_runner_call(c->runner, q, patience_ns(d->s), answer, err);
    json_decref(q);
    return st;
}

/* A foreign engine that failed; once it is dead it is not asked again. */
static void blame(struct describer *d, struct child *c, const char *subject, enum pl_status st,
                  const struct pl_err *err)
{
    c->broken = st != PL_EFORMAT; /* an `error` answer */
    add_once(d->problems, subject, err->text);
}

static void take_answer(struct pl_arm_info *info, const json_t *answer)
{
    size_t i;
    json_t *v;
    info->layers = small(answer, "layers", UINT16_MAX);
    if (info->layers == 0)
        info->layers = 1;
    info->layers_draft = small(answer, "layers_draft", UINT16_MAX);
    info->max_rounds = small(answer, "max_rounds", UINT16_MAX * 16u);
    info->weights_bytes = number(answer, "weights_bytes");
    info->kv_bytes_per_token = number(answer, "kv_bytes_per_token");
    info->workspace_bytes = number(answer, "workspace_bytes");
    info->max_positions = (int64_t)number(answer, "max_positions");
    info->prompt = (int64_t)number(answer, "prompt_tokens");
    info->reads_told = json_is_array(json_object_get(answer, "reads"));
    json_array_foreach (json_object_get(answer, "reads"), i, v) {
        const char *what = json_string_value(v);
        info->reads_events |= what && strcmp(what, "events") == 0;
        info->reads_video |= what && strcmp(what, "video") == 0;
    }
}

static void check_fit(struct describer *d, uint32_t arm, const char *subject,
                      const struct pl_arm_info *info)
{
    const uint64_t rest = info->weights_bytes + info->workspace_bytes;
    for (uint32_t c = 0; c < d->s->n_contexts && d->device_bytes; c++) {
        const uint64_t kv = pl_plan_kv_bytes_at(d->s, arm, info, c);
        if (rest + kv <= d->device_bytes)
            continue;
        char context[48] = "a scene";
        if (d->s->contexts[c])
            snprintf(context, sizeof context, "context %" PRId64, d->s->contexts[c]);
        pl_problems_add(d->warnings,
                        "%s, %s needs %.1f GiB (weights %.1f, KV cache %.1f) and its device has "
                        "%.1f GiB: its trials will fail (reason memory)",
                        subject, context, (double)(rest + kv) / 1073741824.0,
                        (double)info->weights_bytes / 1073741824.0, (double)kv / 1073741824.0,
                        (double)d->device_bytes / 1073741824.0);
    }
}

/* The model whose tokenizer a foreign engine's ids come from is described too, for its mistakes. */
static enum pl_status ask_ids_from(struct describer *d, const char *place, const json_t *engine,
                                   const json_t *arm, struct pl_err *err)
{
    const char *from = pl_json_get_str(engine, "ids_from", NULL);
    enum pl_status st = PL_OK;
    struct child *c;
    json_t *answer = NULL;
    char *subject = NULL;
    if (!from)
        return PL_OK;
    c = child_for(d, place, from, &st, err);
    if (!c || c->broken)
        return st;
    if (asprintf(&subject, "%smodels.%s", place, from) < 0)
        return pl_fail(err, PL_ENOMEM, "no memory to describe a model");
    st = ask(d, c, pl_sweep_model(d->s, from), arm, &answer, err);
    if (st == PL_OK)
        take_texts(d->problems, answer, "errors", subject);
    else if (st == PL_EFORMAT)
        add_once(d->problems, subject, err->text);
    json_decref(answer);
    free(subject);
    return st == PL_EFORMAT ? PL_OK : st;
}

/* What an answer holds for an arm. */
static void take(struct describer *d, uint32_t arm, const struct child *c, const char *subject,
                 const json_t *answer, struct pl_arm_info *info)
{
    const json_t *devices = json_object_get(pl_runner_hello(c->runner), "devices");
    take_answer(info, answer);
    info->synthetic |=
        pl_runner_synthetic(c->runner) || json_is_true(json_object_get(answer, "synthetic"));
    if (d->device_bytes == 0)
        d->device_bytes = number(json_array_get(devices, 0), "bytes");
    take_texts(d->problems, answer, "errors", subject);
    take_texts(d->warnings, answer, "warnings", subject);
    check_fit(d, arm, subject, info);
}

static enum pl_status describe_arm(struct describer *d, uint32_t i, const char *place,
                                   struct pl_arm_info *info, struct pl_err *err)
{
    const json_t *arm = pl_sweep_arm(d->s, i);
    const char *name = pl_json_get_str(arm, "model", "");
    const json_t *model = pl_sweep_model(d->s, name);
    const json_t *engine = json_object_get(model, "engine");
    char *subject = NULL;
    json_t *answer = NULL;
    enum pl_status st = PL_OK;
    struct child *c = child_for(d, place, name, &st, err);
    info->sim = json_is_string(engine) && strcmp(json_string_value(engine), "sim") == 0;
    info->synthetic = info->sim || json_is_string(json_object_get(model, "weights"));
    const char *transport = pl_json_get_str(json_object_get(arm, "draft"), "transport", "auto");
    /* what joins two GPUs asks for a pair of them */
    info->devices = strcmp(transport, "nccl") == 0 || strcmp(transport, "peer") == 0 ? 2 : 1;
    info->layers = 1;
    if (!c || c->broken)
        return st;
    if (asprintf(&subject, "%sarms.%s", place, pl_sweep_arm_name(d->s, i)) < 0)
        return pl_fail(err, PL_ENOMEM, "no memory to describe an arm");
    st = ask(d, c, model, arm, &answer, err);
    if (st == PL_OK) {
        json_t *work = json_object_get(answer, "work");
        take(d, i, c, subject, answer, info);
        if (json_is_array(work) && json_object_set(d->work, pl_sweep_arm_name(d->s, i), work) != 0)
            st = pl_fail(err, PL_ENOMEM, "no memory to describe an arm");
        if (st == PL_OK)
            st = ask_ids_from(d, place, engine, arm, err);
    } else if (st != PL_ENOMEM && (c->model || st == PL_EFORMAT)) {
        blame(d, c, subject, st, err);
        st = PL_OK;
    }
    json_decref(answer);
    free(subject);
    return st;
}

/* Who answered, in what version and on which devices. */
static json_t *engines_of(const struct describer *d)
{
    static const char *const told[] = {"version", "software", "devices"};
    json_t *all = json_object();
    for (size_t i = 0; i < d->n && all; i++) {
        const struct pl_runner *r = d->children[i].runner;
        const json_t *hello = r ? pl_runner_hello(r) : NULL;
        const char *name = pl_json_get_str(hello, "runner", NULL);
        json_t *e = name && !json_object_get(all, name) ? json_object() : NULL;
        for (size_t k = 0; k < sizeof told / sizeof told[0] && e; k++)
            if (json_object_get(hello, told[k]))
                json_object_set(e, told[k], json_object_get(hello, told[k]));
        if (e)
            json_object_set_new(all, name, e);
    }
    return all;
}

enum pl_status pl_plan_describe(struct pl_sweep *s, const char *runner_program, bool allow_exec,
                                struct pl_arm_info *arms, uint64_t *device_bytes,
                                struct pl_problems *problems, struct pl_problems *warnings,
                                struct pl_err *err)
{
    struct pl_err own = {""};
    struct describer d = {.s = s,
                          .work = json_object(),
                          .program = runner_program,
                          .allow_exec = allow_exec,
                          .problems = problems,
                          .warnings = warnings};
    struct pl_arm_info *infos = calloc(s->n_arms, sizeof *infos);
    enum pl_status st = PL_OK;
    d.children = calloc((size_t)s->n_arms * 2 + 1, sizeof *d.children);
    if (!infos || !d.children)
        st = pl_fail(err, PL_ENOMEM, "no memory to describe %" PRIu32 " arms", s->n_arms);
    for (uint32_t i = 0; i < s->n_arms && st == PL_OK; i++) {
        char *place = place_of(s, i);
        st = place ? describe_arm(&d, i, place, &infos[i], err ? err : &own)
                   : pl_fail(err, PL_ENOMEM, "no memory to describe an arm");
        free(place);
    }
    json_t *engines = engines_of(&d);
    for (size_t i = 0; i < d.n; i++)
        if (d.children[i].runner && !pl_runner_free(d.children[i].runner))
            pl_problems_add(warnings, "a runner that was asked about the sweep could not be ended");
    if (st == PL_OK) {
        memcpy(arms, infos, s->n_arms * sizeof *infos);
        *device_bytes = d.device_bytes;
        json_decref(s->work);
        s->work = json_incref(d.work);
        json_decref(s->engines);
        s->engines = json_incref(engines);
    }
    json_decref(d.work);
    json_decref(engines);
    free(d.children);
    free(infos);
    return st;
}
