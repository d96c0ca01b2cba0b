#include "worker/runner/serve.h"

#include "base/cgroup.h"
#include "base/clock.h"
#include "spec_decode/transport_nccl.h"
#include "worker/runner/engine.h"
#include "worker/runner/host.h"
#include "worker/runner/limits.h"
#include "worker/runner/protocol.h"

#include <stdlib.h>
#include <string.h>

#define MAX_CPUS 4096

enum { ENGINE_SIM, ENGINE_LLM, N_ENGINES };

struct server {
    struct pl_protocol protocol;
    const struct pl_engine *engines[N_ENGINES];
    void *states[N_ENGINES];
    json_t *models; /* name → engine index */
    json_t *arms;   /* name → {"engine": index, "model": name} */
};

static int engine_of_entry(const json_t *entry)
{
    return strcmp(pl_json_get_str(entry, "engine", ""), "sim") == 0 ? ENGINE_SIM : ENGINE_LLM;
}

static enum pl_status bad(struct pl_fault *f, enum pl_status st)
{
    return pl_fault_set(f, st, PL_FAULT_RUNNER);
}

static enum pl_status no_memory(struct pl_fault *f)
{
    return bad(f, pl_fail(&f->err, PL_ENOMEM, "runner: no memory"));
}

static enum pl_status need_object(const json_t *request, const char *key, json_t **out,
                                  struct pl_fault *f)
{
    json_t *o = json_object_get(request, key);

    if (!json_is_object(o))
        return bad(f, pl_fail(&f->err, PL_EPROTO, "\"%s\": an object is expected", key));
    *out = o;
    return PL_OK;
}

/* ---- hello ---- */

/* What drives the GPUs that are here. */
static json_t *gpu_software(void)
{
    char driver[64], nccl[16];

    pl_host_gpu_driver(driver, sizeof(driver));
    pl_nccl_version(nccl, sizeof(nccl));
    return json_pack("{s:s,s:s*,s:s*}", "cuda", pl_backend_by_name("cuda")->version(), "driver",
                     *driver ? driver : NULL, "nccl", *nccl ? nccl : NULL);
}

static enum pl_status say_hello(struct server *s, struct pl_err *err)
{
    struct pl_device_info gpus[PL_HOST_GPUS];
    struct pl_host h;
    json_t *j;
    enum pl_status st;

    pl_host_read(&h);
    /* A row of the simulated engine or of random weights says so itself; this runner has others. */
    j = json_pack("{s:s,s:i,s:s,s:s,s:b,s:[{s:s,s:s,s:s,s:I}]}", "type", "hello", "protocol",
                  PL_PROTOCOL_VERSION, "runner", "paceline-runner", "version", PL_VERSION,
                  "synthetic", 0, "devices", "kind", "cpu", "uuid", "cpu", "name", h.cpu_name,
                  "bytes", (json_int_t)h.memory_bytes);
    if (!j)
        return pl_fail(err, PL_ENOMEM, "hello: no memory");
    const size_t n = pl_host_gpus(gpus);
    for (size_t i = 0; i < n; i++)
        json_array_append_new(json_object_get(j, "devices"),
                              json_pack("{s:s,s:s,s:s,s:I}", "kind", gpus[i].kind, "uuid",
                                        gpus[i].uuid, "name", gpus[i].name, "bytes",
                                        (json_int_t)gpus[i].bytes));
    if (n)
        json_object_set_new(j, "software", gpu_software());
    st = pl_protocol_send_json(&s->protocol, j, err);
    json_decref(j);
    return st;
}

/* ---- describe, ids ---- */

static enum pl_status do_describe(struct server *s, const json_t *q, json_t *answer,
                                  struct pl_fault *f)
{
    json_t *model = NULL, *arm = NULL;
    enum pl_status st = need_object(q, "model", &model, f);

    if (!st)
        st = need_object(q, "arm", &arm, f);
    if (st)
        return st;
    int e = engine_of_entry(model);
    json_object_set_new(answer, "type", json_string("described"));
    return s->engines[e]->describe(s->states[e], q, answer, f);
}

static enum pl_status do_ids(struct server *s, const json_t *q, json_t *answer, struct pl_fault *f)
{
    json_t *model = NULL, *sample = NULL;
    enum pl_status st = need_object(q, "model", &model, f);

    if (!st)
        st = need_object(q, "sample", &sample, f);
    if (st)
        return st;
    int e = engine_of_entry(model);
    if (!s->engines[e]->ids)
        return bad(f, pl_fail(&f->err, PL_EUNSUPPORTED, "the %s engine has no tokenizer",
                              s->engines[e]->name));
    json_object_set_new(answer, "type", json_string("ids"));
    return s->engines[e]->ids(s->states[e], q, answer, f);
}

/* ---- ceilings ---- */

static enum pl_status gpu_ceilings(const json_t *device, json_t *answer, struct pl_err *err)
{
    const struct pl_backend *b = pl_backend_by_name("cuda");
    const char *uuid = pl_json_get_str(device, "uuid", "");
    struct pl_device_opts o = {.ordinal = pl_host_gpu_number(uuid)};
    struct pl_device_ceilings c;
    struct pl_device *d = NULL;
    enum pl_status st = b && o.ordinal >= 0
                            ? b->open(&o, &d, err)
                            : pl_fail(err, PL_EUNSUPPORTED, "ceilings: no GPU %s here", uuid);

    if (!st)
        st = b->ceilings(d, &c, err);
    if (d)
        b->close(d);
    if (!st && json_object_update_new(answer, json_pack("{s:f,s:f,s:s}", "read_bytes_per_s",
                                                        c.read_bytes_per_s, "flop_per_s",
                                                        c.flop_per_s, "kind", c.kind)))
        st = pl_fail(err, PL_ENOMEM, "ceilings: no memory");
    return st;
}

static enum pl_status do_ceilings(const json_t *q, json_t *answer, struct pl_fault *f)
{
    const json_t *device = json_object_get(q, "device");
    int64_t threads = 0;
    struct pl_limits l;
    enum pl_status st = pl_json_i64(q, "threads", 0, &threads, &f->err);

    if (!st && (threads < 0 || threads > MAX_CPUS))
        st = pl_fail(&f->err, PL_ERANGE, "ceilings: %lld threads", (long long)threads);
    if (!st && threads == 0)
        threads = pl_usable_cpus("");
    json_object_set_new(answer, "type", json_string("ceilings"));
    json_object_set_new(answer, "threads", json_integer((json_int_t)threads));
    if (!st && strcmp(pl_json_get_str(device, "kind", "cpu"), "cpu") != 0) {
        st = gpu_ceilings(device, answer, &f->err);
        return st ? bad(f, st) : PL_OK;
    }
    if (!st)
        st = pl_limits_measure_apart((int)threads, &l, &f->err);
    if (st)
        return bad(f, st);
    if (json_object_update_new(answer, json_pack("{s:f,s:f,s:o}", "read_bytes_per_s",
                                                 l.read_bytes_per_s, "flop_per_s", l.f32_flop_per_s,
                                                 "kind", json_sprintf("f32 %s", l.vectors))))
        return no_memory(f);
    return PL_OK;
}

/* ---- load, unload ---- */

static enum pl_status read_load(const json_t *q, struct pl_load *l, int *cpus, struct pl_fault *f)
{
    const json_t *generate = json_object_get(q, "generate"), *list = json_object_get(q, "cpus");
    const json_t *device = json_object_get(q, "device");
    const json_t *measure = json_object_get(q, "measure");
    const char *mode = pl_json_get_str(measure, "mode", "e2e");
    int64_t seed = 1, threads = 0;
    enum pl_status st;

    memset(l, 0, sizeof(*l));
    st = pl_json_i64(generate, "tokens", 128, &l->tokens, &f->err);
    if (!st)
        st = pl_json_bool(generate, "stop_at_eos", false, &l->stop_at_eos, &f->err);
    if (!st)
        st = pl_json_f64(generate, "temperature", 0, &l->temperature, &f->err);
    if (!st)
        st = pl_json_i64(q, "seed", 1, &seed, &f->err);
    if (!st)
        st = pl_json_i64(q, "threads", 0, &threads, &f->err);
    if (!st)
        st = pl_json_i64(q, "max_context", 0, &l->max_context, &f->err);
    if (!st)
        st = pl_json_i64(measure, "quality", 0, &l->quality, &f->err);
    if (!st)
        st = pl_json_bool(measure, "energy", false, &l->energy, &f->err);
    if (!st && (l->quality < 0 || l->quality > 4096))
        st = pl_fail(&f->err, PL_ERANGE, "measure.quality: 0 to 4096 tokens are expected");
    if (!st && (l->tokens < 1 || threads < 0 || threads > MAX_CPUS || l->max_context < 0))
        st = pl_fail(&f->err, PL_ERANGE, "load: tokens, threads or max_context is out of range");
    if (!st && strcmp(mode, "e2e") != 0 && strcmp(mode, "prefill") != 0)
        st = pl_fail(&f->err, PL_EPROTO, "measure.mode: \"%s\", expected prefill or e2e", mode);
    for (size_t i = 0; !st && i < json_array_size(list); i++) {
        json_int_t c = json_integer_value(json_array_get(list, i));
        if (l->n_cpus == MAX_CPUS || !json_is_integer(json_array_get(list, i)) || c < 0 ||
            c > INT32_MAX)
            st = pl_fail(&f->err, PL_EPROTO, "cpus: a list of at most %d CPU numbers is expected",
                         MAX_CPUS);
        else
            cpus[l->n_cpus++] = (int)c;
    }
    if (st)
        return bad(f, st);
    l->cpus = l->n_cpus ? cpus : NULL;
    l->prefill_only = strcmp(mode, "prefill") == 0;
    l->seed = (uint64_t)seed;
    l->threads = (int)threads;
    l->device_kind = pl_json_get_str(device, "kind", NULL);
    l->device_uuid = pl_json_get_str(device, "uuid", NULL);
    l->partner_uuid =
        pl_json_get_str(json_array_get(json_object_get(q, "devices"), 1), "uuid", NULL);
    return PL_OK;
}

/* The members of `from` whose engine is e. An arm's engine is its model's: of this request, or of
 * an earlier one. New reference, NULL when memory is out. */
static json_t *models_of(const json_t *from, int e)
{
    json_t *part = json_object(), *v;
    const char *name;

    json_object_foreach ((json_t *)from, name, v) {
        if (engine_of_entry(v) == e)
            json_object_set(part, name, v);
    }
    return part;
}

static int engine_of_arm(const struct server *s, const json_t *arm, const json_t *models)
{
    const char *model = pl_json_get_str(arm, "model", "");
    const json_t *entry = json_object_get(models, model);

    if (entry)
        return engine_of_entry(entry);
    return (int)pl_json_get_i64(s->models, model, -1);
}

static json_t *arms_of(const struct server *s, const json_t *arms, const json_t *models, int e)
{
    json_t *part = json_object(), *v;
    const char *name;

    json_object_foreach ((json_t *)arms, name, v) {
        if (engine_of_arm(s, v, models) == e)
            json_object_set(part, name, v);
    }
    return part;
}

static void remember(struct server *s, const struct pl_load *l, int e)
{
    const char *name;
    json_t *v;

    json_object_foreach ((json_t *)l->models, name, v)
        json_object_set_new(s->models, name, json_integer(e));
    json_object_foreach ((json_t *)l->arms, name, v)
        json_object_set_new(
            s->arms, name,
            json_pack("{s:i,s:s}", "engine", e, "model", pl_json_get_str(v, "model", "")));
}

static enum pl_status load_part(struct server *s, int e, struct pl_load *l, const json_t *models,
                                const json_t *arms, json_t *out, int64_t *ns, struct pl_fault *f)
{
    json_t *m = models_of(models, e), *a = arms_of(s, arms, models, e);
    enum pl_status st = m && a ? PL_OK : no_memory(f);
    int64_t t0 = pl_now_ns(), said = -1;

    if (!st && (json_object_size(m) || json_object_size(a))) {
        l->models = m;
        l->arms = a;
        st = s->engines[e]->load(s->states[e], l, out, &said, f);
        if (!st) {
            remember(s, l, e);
            *ns += said >= 0 ? said : pl_now_ns() - t0;
        }
    }
    json_decref(m);
    json_decref(a);
    return st;
}

static enum pl_status do_load(struct server *s, const json_t *q, json_t *answer, struct pl_fault *f)
{
    int cpus[MAX_CPUS];
    struct pl_load l = {.said = NULL};
    json_t *models = NULL, *arms = NULL, *v, *out = json_object();
    const char *name;
    int64_t ns = 0;
    enum pl_status st = out ? need_object(q, "models", &models, f) : no_memory(f);

    if (!st)
        st = need_object(q, "arms", &arms, f);
    if (!st)
        st = read_load(q, &l, cpus, f);
    if (!st && !(l.said = json_object()))
        st = no_memory(f);
    if (!st) {
        json_object_foreach (arms, name, v) {
            if (!st && engine_of_arm(s, v, models) < 0)
                st = pl_fault_set(f,
                                  pl_fail(&f->err, PL_ESWEEP, "arm %s: model \"%s\" is not loaded",
                                          name, pl_json_get_str(v, "model", "")),
                                  PL_FAULT_LOAD);
        }
    }
    for (int e = 0; !st && e < N_ENGINES; e++)
        st = load_part(s, e, &l, models, arms, out, &ns, f);
    if (!st) {
        json_object_set_new(answer, "type", json_string("loaded"));
        json_object_set_new(answer, "load_ns", json_integer(ns));
        json_object_set(answer, "models", out);
        if (json_object_size(l.said))
            json_object_set(answer, "arms", l.said);
    }
    json_decref(l.said);
    json_decref(out);
    return st;
}

static void forget(struct server *s, const char *model)
{
    const char *name;
    json_t *v;
    void *next;

    json_object_del(s->models, model);
    json_object_foreach_safe(s->arms, next, name, v)
    {
        if (strcmp(pl_json_get_str(v, "model", ""), model) == 0)
            json_object_del(s->arms, name);
    }
    for (int e = 0; e < N_ENGINES; e++)
        s->engines[e]->unload(s->states[e], model);
}

static enum pl_status do_unload(struct server *s, const json_t *q, json_t *answer)
{
    const json_t *list = json_object_get(q, "models");

    json_object_set_new(answer, "type", json_string("unloaded"));
    if (json_array_size(list) == 0) {
        for (int e = 0; e < N_ENGINES; e++)
            s->engines[e]->unload(s->states[e], NULL);
        json_object_clear(s->models);
        json_object_clear(s->arms);
        return PL_OK;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (name)
            forget(s, name);
    }
    return PL_OK;
}

/* ---- trial ---- */

static enum pl_status read_trial(const json_t *q, struct pl_trial_request *t, struct pl_fault *f)
{
    enum pl_status st = pl_json_str(q, "arm", NULL, &t->arm, &f->err);

    t->sample = json_object_get(q, "sample");
    t->samples = json_object_get(q, "samples");
    if (!st)
        st = pl_json_i64(q, "context", 0, &t->context, &f->err);
    if (!st)
        st = pl_json_i64(q, "tokens", 0, &t->tokens, &f->err);
    if (!st)
        st = pl_json_i64(q, "repeat", 0, &t->repeat, &f->err);
    if (!st)
        st = pl_json_i64(q, "attempt", 0, &t->attempt, &f->err);
    if (!st)
        st = pl_json_bool(q, "timed", true, &t->timed, &f->err);
    if (!st)
        st = pl_json_bool(q, "kernels", false, &t->kernels, &f->err);
    /* A question has a prompt of its own length. */
    const bool own = json_is_string(json_object_get(t->sample, "question"));
    if (!st && (!t->arm || !json_is_object(t->sample) || t->context < !own || t->tokens < 0))
        st = pl_fail(
            &f->err, PL_EPROTO,
            "a trial needs \"arm\", \"context\" ≥ 1, \"sample\", and \"tokens\" ≥ 1 or none");
    if (!st && t->samples && !json_array_size(t->samples))
        st = pl_fail(&f->err, PL_EPROTO,
                     "\"samples\": a list of each sequence's sample is expected");
    return st ? bad(f, st) : PL_OK;
}

/* Leaves the answer in tx, or *garbage. */
static enum pl_status do_trial(struct server *s, const json_t *q, uint64_t id, const char **garbage,
                               struct pl_fault *f)
{
    struct pl_trial_request t = {.id = id};
    struct pl_trial_result r;
    enum pl_status st = read_trial(q, &t, f);

    if (st)
        return st;
    const json_t *arm = json_object_get(s->arms, t.arm);
    if (!arm)
        return bad(f, pl_fail(&f->err, PL_EUSAGE, "arm \"%s\" is not loaded", t.arm));
    int e = (int)pl_json_get_i64(arm, "engine", 0);
    pl_trial_result_init(&r);
    st = s->engines[e]->trial(s->states[e], &t, &r, f);
    if (st)
        return st;
    *garbage = r.garbage;
    if (r.garbage)
        return PL_OK;
    st = pl_protocol_put_result(&s->protocol, id, &r, &f->err);
    return st ? bad(f, st) : PL_OK;
}

/* ---- one line ---- */

static enum pl_status dispatch(struct server *s, const json_t *q, uint64_t id, json_t **answer,
                               const char **garbage, struct pl_fault *f)
{
    const char *type = pl_json_get_str(q, "type", NULL);

    if (!type)
        return bad(f, pl_fail(&f->err, PL_EPROTO, "a request needs \"type\""));
    if (strcmp(type, "trial") == 0)
        return do_trial(s, q, id, garbage, f);
    *answer = json_pack("{s:s,s:I}", "type", "", "id", (json_int_t)id);
    if (!*answer)
        return no_memory(f);
    if (strcmp(type, "describe") == 0)
        return do_describe(s, q, *answer, f);
    if (strcmp(type, "load") == 0)
        return do_load(s, q, *answer, f);
    if (strcmp(type, "unload") == 0)
        return do_unload(s, q, *answer);
    if (strcmp(type, "ids") == 0)
        return do_ids(s, q, *answer, f);
    if (strcmp(type, "ceilings") == 0)
        return do_ceilings(q, *answer, f);
    return bad(f, pl_fail(&f->err, PL_EUNSUPPORTED, "unknown request type \"%.64s\"", type));
}

static enum pl_status send_error(struct server *s, uint64_t id, const struct pl_fault *f,
                                 struct pl_err *err)
{
    enum pl_status st = pl_protocol_put_error(&s->protocol, id, f, err);

    if (!st)
        st = pl_protocol_send(&s->protocol, err);
    if (!st && f->fatal)
        return pl_fail(err, PL_EPROTO, "fatal: %s", f->err.text);
    return st;
}

static enum pl_status parse(const char *line, size_t len, json_t **q, uint64_t *id,
                            struct pl_fault *f)
{
    enum pl_status st = pl_json_parse("request", line, len, q, &f->err);
    const json_t *v = json_object_get(*q, "id");

    if (!st && (!json_is_integer(v) || json_integer_value(v) < 0))
        st = pl_fail(&f->err, PL_EPROTO, "a request needs \"id\", a whole number");
    if (st)
        return bad(f, st);
    *id = (uint64_t)json_integer_value(v);
    return PL_OK;
}

static enum pl_status answer_line(struct server *s, const char *line, size_t len,
                                  struct pl_err *err)
{
    json_t *q = NULL, *answer = NULL;
    const char *garbage = NULL;
    uint64_t id = 0;
    struct pl_fault f = {.reason = PL_FAULT_RUNNER};
    enum pl_status st = parse(line, len, &q, &id, &f);

    if (!st)
        st = dispatch(s, q, id, &answer, &garbage, &f);
    if (st)
        st = send_error(s, id, &f, err);
    else if (garbage)
        st = pl_write_all(s->protocol.out, garbage, strlen(garbage), err);
    else if (answer)
        st = pl_protocol_send_json(&s->protocol, answer, err);
    else
        st = pl_protocol_send(&s->protocol, err);
    json_decref(answer);
    json_decref(q);
    return st;
}

static enum pl_status run(struct server *s, struct pl_err *err)
{
    enum pl_status st = say_hello(s, err);

    while (!st) {
        struct pl_fault f = {.reason = PL_FAULT_RUNNER};
        char *line = NULL;
        size_t len = 0;

        st = pl_protocol_next(&s->protocol, &line, &len, &f.err);
        if (st == PL_ERANGE)
            st = send_error(s, 0, &f, err);
        else if (st)
            return pl_fail(err, st, "%s", f.err.text);
        else if (!line)
            return PL_OK;
        else
            st = answer_line(s, line, len, err);
    }
    return st;
}

enum pl_status pl_serve(int in, int out, struct pl_err *err)
{
    struct server s;
    enum pl_status st = PL_OK;

    memset(&s, 0, sizeof(s));
    pl_protocol_init(&s.protocol, in, out);
    s.engines[ENGINE_SIM] = &pl_engine_sim;
    s.engines[ENGINE_LLM] = &pl_engine_llm;
    s.models = json_object();
    s.arms = json_object();
    if (!s.models || !s.arms)
        st = pl_fail(err, PL_ENOMEM, "runner: no memory");
    for (int e = 0; !st && e < N_ENGINES; e++)
        st = s.engines[e]->open(&s.states[e], err);
    if (!st)
        st = run(&s, err);
    for (int e = 0; e < N_ENGINES; e++)
        s.engines[e]->close(s.states[e]);
    json_decref(s.models);
    json_decref(s.arms);
    pl_protocol_release(&s.protocol);
    return st;
}
