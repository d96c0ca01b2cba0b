/* The simulated engine: reads its keys, keeps what is loaded, waits or does not, breaks as planted.
 */
#include "worker/runner/sim.h"

#include "base/clock.h"
#include "base/rng.h"

#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

struct sim_model {
    char *name;
    json_t *entry;
    uint64_t trials; /* since it was loaded */
    struct sim_model *next;
};

struct sim_arm {
    char *name;
    uint64_t hash;
    struct pl_sim_params params;
    struct sim_model *model;
    struct sim_arm *next;
};

struct sim_state {
    struct sim_model *models;
    struct sim_arm *arms;
    uint64_t seed, device;
    uint32_t tokens;
    bool prefill_only;
    int64_t started_ns, virtual_ns; /* the clocks that drift goes by */
    uint64_t *samples;              /* [room_sequences] of the trial in hand */
    struct pl_sim_room room;
    size_t room_sequences;
};

struct range {
    const char *key;
    double dflt, low, high;
    size_t at; /* offset in struct pl_sim_params */
};
#define AT(field) offsetof(struct pl_sim_params, field)

static const struct range model_keys[] = {
    {"prefill_us_per_token", 2, 0, 1e9, AT(prefill_us_per_token)},
    {"decode_us", 300, 0, 1e12, AT(decode_us)},
    {"noise", 0, 0, 10, AT(noise)},
    {"sample_effect", 0, 0, 10, AT(sample_effect)},
    {"device_effect", 0, 0, 10, AT(device_effect)},
    {"drift_per_hour", 0, -1, 1000, AT(drift_per_hour)},
    {"batch_cost", 0, 0, 1, AT(batch_cost)},
    {"load_s", 0, 0, 1e6, AT(load_s)},
    {"cold", 1, 1, 1e6, AT(cold)},
};

static enum pl_status read_range(const json_t *o, const struct range *r, double dflt, double *out,
                                 struct pl_err *err)
{
    double v = dflt;
    enum pl_status st = pl_json_f64(o, r->key, dflt, &v, err);

    if (st)
        return pl_fail(err, PL_ESWEEP, "%s: a number is expected", r->key);
    if (!(v >= r->low && v <= r->high))
        return pl_fail(err, PL_ESWEEP, "%s: %g, expected %g to %g", r->key, v, r->low, r->high);
    *out = v;
    return PL_OK;
}

static enum pl_status read_fail(const json_t *o, struct pl_sim_params *p, struct pl_err *err)
{
    static const char *const names[PL_SIM_FAILS] = {"crash", "hang", "oom", "garbage"};
    const json_t *f = json_object_get(o, "fail");

    if (!f || json_is_null(f))
        return PL_OK;
    if (!json_is_object(f))
        return pl_fail(err, PL_ESWEEP, "fail: {crash, hang, oom, garbage} is expected");
    for (int i = 0; i < PL_SIM_FAILS; i++) {
        const struct range r = {names[i], 0, 0, 1, 0};
        enum pl_status st = read_range(f, &r, p->fail[i], &p->fail[i], err);
        if (st)
            return pl_err_prefix(err, st, "fail");
    }
    return PL_OK;
}

/* Drafting keys of one object over what is in p; *seen when `acceptance` stands there. */
static enum pl_status read_draft(const json_t *o, struct pl_sim_params *p, bool *seen,
                                 struct pl_err *err)
{
    const struct range acceptance = {"acceptance", 0, 0, 1, 0}, draft = {"draft_us", 0, 0, 1e12, 0};
    const struct range verify = {"verify_us", 0, 0, 1e12, 0},
                       gamma = {"gamma", 1, 1, PL_SIM_MAX_GAMMA, 0};
    double g = p->gamma;
    enum pl_status st = read_range(o, &acceptance, p->acceptance, &p->acceptance, err);

    if (!st)
        st = read_range(o, &draft, p->draft_us, &p->draft_us, err);
    if (!st)
        st = read_range(o, &verify, p->verify_us, &p->verify_us, err);
    if (!st)
        st = read_range(o, &gamma, g, &g, err);
    if (!st && g != (int32_t)g)
        st = pl_fail(err, PL_ESWEEP, "gamma: %g, a whole number is expected", g);
    if (st)
        return st;
    p->gamma = (int32_t)g;
    *seen |= json_is_number(json_object_get(o, "acceptance"));
    return PL_OK;
}

static enum pl_status read_sequences(const json_t *arm, struct pl_sim_params *p, struct pl_err *err)
{
    int64_t batch = pl_json_get_i64(arm, "batch", 1), n = pl_json_get_i64(arm, "concurrency", 1);
    int64_t requests = pl_json_get_i64(arm, "requests", n);

    if (batch < 1 || n < 1 || batch > PL_SIM_MAX_SEQUENCES || requests > PL_SIM_MAX_SEQUENCES ||
        requests < n || (batch > 1 && n > 1))
        return pl_fail(err, PL_ESWEEP,
                       "batch %lld, concurrency %lld, requests %lld: the simulated engine runs one "
                       "of batch and concurrency, up to %d sequences",
                       (long long)batch, (long long)n, (long long)requests, PL_SIM_MAX_SEQUENCES);
    p->sequences = (uint32_t)(n > 1 ? requests : batch);
    p->clients = n > 1 ? (uint32_t)n : 0;
    if (p->sequences > 1 && p->drafts)
        return pl_fail(err, PL_ESWEEP, "simulated drafting runs one sequence, not %u",
                       p->sequences);
    return PL_OK;
}

enum pl_status pl_sim_params_read(const json_t *model, const json_t *arm, struct pl_sim_params *out,
                                  struct pl_err *err)
{
    struct pl_sim_params p;
    const struct range scale = {"scale", 1, 1e-6, 1e6, 0};
    const json_t *draft = json_object_get(arm, "draft");
    bool in_model = false, in_arm = false;
    enum pl_status st = PL_OK;

    memset(&p, 0, sizeof(p));
    p.gamma = 1;
    for (size_t i = 0; !st && i < sizeof(model_keys) / sizeof(model_keys[0]); i++)
        st = read_range(model, &model_keys[i], model_keys[i].dflt,
                        (double *)((char *)&p + model_keys[i].at), err);
    p.verify_us = p.decode_us;
    if (!st && pl_json_bool(model, "virtual", false, &p.is_virtual, err))
        st = pl_fail(err, PL_ESWEEP, "virtual: true or false is expected");
    if (!st)
        st = read_fail(model, &p, err);
    if (!st)
        st = read_fail(arm, &p, err);
    if (!st)
        st = read_range(arm, &scale, 1, &p.scale, err);
    if (!st)
        st = read_draft(model, &p, &in_model, err);
    if (!st)
        st = read_draft(arm, &p, &in_arm, err);
    if (!st && json_is_object(draft))
        st = read_draft(draft, &p, &in_arm, err);
    if (st)
        return st;
    p.drafts = in_model || in_arm || json_is_object(draft);
    st = read_sequences(arm, &p, err);
    if (!st)
        *out = p;
    return st;
}

static enum pl_status sim_open(void **state, struct pl_err *err)
{
    struct sim_state *s = calloc(1, sizeof(*s));

    if (!s)
        return pl_fail(err, PL_ENOMEM, "simulated engine: no memory");
    s->started_ns = pl_now_ns();
    *state = s;
    return PL_OK;
}

static void free_arm(struct sim_arm *a)
{
    free(a->name);
    free(a);
}

static void free_model(struct sim_model *m)
{
    free(m->name);
    json_decref(m->entry);
    free(m);
}

static void sim_unload(void *state, const char *model)
{
    struct sim_state *s = state;

    for (struct sim_arm **at = &s->arms; *at;) {
        struct sim_arm *a = *at;
        if (model && strcmp(a->model->name, model) != 0) {
            at = &a->next;
            continue;
        }
        *at = a->next;
        free_arm(a);
    }
    for (struct sim_model **at = &s->models; *at;) {
        struct sim_model *m = *at;
        if (model && strcmp(m->name, model) != 0) {
            at = &m->next;
            continue;
        }
        *at = m->next;
        free_model(m);
    }
}

static void free_room(struct sim_state *s)
{
    free(s->room.tokens);
    free(s->room.token_ns);
    free(s->room.rounds);
    free(s->room.kv_len);
    free(s->room.lengths);
    free(s->room.queue);
    free(s->room.running);
    free(s->room.answered);
    free(s->samples);
    s->samples = NULL;
    memset(&s->room, 0, sizeof(s->room));
}

static void sim_close(void *state)
{
    struct sim_state *s = state;

    if (!s)
        return;
    sim_unload(s, NULL);
    free_room(s);
    free(s);
}

static enum pl_status sim_describe(void *state, const json_t *request, json_t *answer,
                                   struct pl_fault *fault)
{
    const json_t *arm = json_object_get(request, "arm");
    int64_t tokens = pl_json_get_i64(request, "tokens", 128);
    struct pl_sim_params p;
    struct pl_err err = {""};
    json_t *errors = json_array();
    enum pl_status st = pl_sim_params_read(json_object_get(request, "model"), arm, &p, &err);

    (void)state;
    if (st)
        json_array_append_new(errors, json_string(err.text));
    if (tokens < 1 || tokens > PL_SIM_MAX_TOKENS)
        json_array_append_new(errors,
                              json_sprintf("tokens: %lld, the simulated engine makes 1 to %d",
                                           (long long)tokens, PL_SIM_MAX_TOKENS));
    int64_t rounds = !st && p.drafts ? (tokens > 1 ? tokens - 1 : 1) : 0;
    if (json_object_update_new(
            answer,
            json_pack("{s:i,s:i,s:i,s:i,s:i,s:i,s:I,s:s,s:b,s:i,s:[],s:o}", "layers", 1, "vocab",
                      PL_SIM_VOCAB, "max_positions", 0, "weights_bytes", 0, "kv_bytes_per_token", 0,
                      "workspace_bytes", 0, "max_rounds", (json_int_t)rounds, "tokenizer", "sim",
                      "synthetic", 1, "layers_draft", 0, "warnings", "errors", errors)))
        return pl_fault_set(fault, pl_fail(&fault->err, PL_ENOMEM, "describe: no memory"),
                            PL_FAULT_RUNNER);
    return PL_OK;
}

static struct sim_model *find_model(struct sim_state *s, const char *name)
{
    for (struct sim_model *m = s->models; m; m = m->next)
        if (strcmp(m->name, name) == 0)
            return m;
    return NULL;
}

static struct sim_arm *find_arm(struct sim_state *s, const char *name)
{
    for (struct sim_arm *a = s->arms; a; a = a->next)
        if (strcmp(a->name, name) == 0)
            return a;
    return NULL;
}

static enum pl_status no_memory(struct pl_err *err)
{
    return pl_fail(err, PL_ENOMEM, "simulated engine: no memory");
}

/* *loaded_s: grows by the load time of a model that was not there. */
static enum pl_status add_model(struct sim_state *s, const char *name, json_t *entry,
                                double *loaded_s, bool *really, struct pl_err *err)
{
    struct sim_model *m = find_model(s, name);
    struct pl_sim_params p;
    enum pl_status st = pl_sim_params_read(entry, NULL, &p, err);

    if (st)
        return pl_err_prefix(err, st, "model %s", name);
    if (m && json_equal(m->entry, entry))
        return PL_OK;
    sim_unload(s, name); /* another model of that name, and its arms */
    m = calloc(1, sizeof(*m));
    if (!m || !(m->name = strdup(name))) {
        free(m);
        return no_memory(err);
    }
    m->entry = json_incref(entry);
    m->next = s->models;
    s->models = m;
    *loaded_s += p.load_s;
    *really |= !p.is_virtual;
    return PL_OK;
}

static enum pl_status add_arm(struct sim_state *s, const char *name, const json_t *arm,
                              struct pl_err *err)
{
    struct sim_model *m = find_model(s, pl_json_get_str(arm, "model", ""));
    struct sim_arm *a = find_arm(s, name);
    struct pl_sim_params p;
    enum pl_status st;

    if (!m)
        return pl_fail(err, PL_ESWEEP, "arm %s: its model is not loaded", name);
    st = pl_sim_params_read(m->entry, arm, &p, err);
    if (st)
        return pl_err_prefix(err, st, "arm %s", name);
    if (!a) {
        a = calloc(1, sizeof(*a));
        if (!a || !(a->name = strdup(name))) {
            free(a);
            return no_memory(err);
        }
        a->hash = pl_hash_str(name);
        a->next = s->arms;
        s->arms = a;
    }
    a->params = p;
    a->model = m;
    return PL_OK;
}

/* For `tokens` of the arm with the most sequences. */
static enum pl_status make_room(struct sim_state *s, int64_t tokens, struct pl_err *err)
{
    struct pl_sim_room *r = &s->room;
    size_t n = 1, all;

    s->tokens = 0;
    for (const struct sim_arm *a = s->arms; a; a = a->next)
        n = a->params.sequences > n ? a->params.sequences : n;
    all = n * (size_t)tokens;
    if (all > PL_SIM_MAX_TOKENS * (size_t)16)
        return pl_fail(err, PL_ERANGE, "%zu sequences of %lld tokens are too many", n,
                       (long long)tokens);
    free_room(s);
    r->tokens = malloc(all * sizeof(*r->tokens));
    r->token_ns = malloc(all * sizeof(*r->token_ns));
    r->rounds = malloc((size_t)tokens * sizeof(*r->rounds));
    r->kv_len = malloc(n * sizeof(*r->kv_len));
    r->lengths = malloc(n * sizeof(*r->lengths));
    r->queue = malloc(n * sizeof(*r->queue));
    r->running = malloc(n * sizeof(*r->running));
    r->answered = malloc(n * sizeof(*r->answered));
    s->samples = malloc(n * sizeof(*s->samples));
    if (!r->tokens || !r->token_ns || !r->rounds || !r->kv_len || !r->lengths || !r->queue ||
        !r->running || !r->answered || !s->samples)
        return no_memory(err);
    s->tokens = (uint32_t)tokens;
    s->room_sequences = n;
    return PL_OK;
}

static enum pl_status check_tokens(int64_t tokens, struct pl_err *err)
{
    if (tokens >= 1 && tokens <= PL_SIM_MAX_TOKENS)
        return PL_OK;
    return pl_fail(err, PL_ERANGE, "tokens: %lld, the simulated engine makes 1 to %d",
                   (long long)tokens, PL_SIM_MAX_TOKENS);
}

/* Two runners on one machine have one device unless they say otherwise. */
static uint64_t device_key(const struct pl_load *l)
{
    char host[HOST_NAME_MAX + 1] = "";

    if (l->device_uuid && *l->device_uuid && strcmp(l->device_uuid, "cpu") != 0)
        return pl_hash_str(l->device_uuid);
    (void)gethostname(host, sizeof(host) - 1);
    return pl_hash_str(host);
}

static enum pl_status sim_load(void *state, const struct pl_load *l, json_t *models_out,
                               int64_t *load_ns, struct pl_fault *fault)
{
    struct sim_state *s = state;
    enum pl_status st = check_tokens(l->tokens, &fault->err);
    double seconds = 0;
    bool really = false;
    const char *name;
    json_t *entry;

    s->seed = l->seed;
    s->prefill_only = l->prefill_only;
    s->device = device_key(l);
    json_object_foreach ((json_t *)l->models, name, entry) {
        if (!st)
            st = add_model(s, name, entry, &seconds, &really, &fault->err);
        if (!st &&
            json_object_set_new(models_out, name,
                                json_pack("{s:i,s:i}", "weights_bytes", 0, "resident_bytes", 0)))
            st = no_memory(&fault->err);
    }
    json_object_foreach ((json_t *)l->arms, name, entry) {
        if (!st)
            st = add_arm(s, name, entry, &fault->err);
    }
    if (!st)
        st = make_room(s, l->tokens, &fault->err);
    if (st)
        return pl_fault_set(fault, st, PL_FAULT_LOAD);
    *load_ns = (int64_t)(seconds * 1e9);
    if (really)
        pl_sleep_ns(*load_ns);
    else
        s->virtual_ns += *load_ns;
    return PL_OK;
}

/* Neither reads nor answers; goes when the other side does. */
static _Noreturn void hang(void)
{
    struct pollfd pf = {.fd = STDIN_FILENO, .events = 0};

    for (;;)
        if (poll(&pf, 1, 1000) > 0 && (pf.revents & (POLLHUP | POLLERR | POLLNVAL)))
            _exit(1);
}

static enum pl_status plant(enum pl_sim_fail f, const struct pl_sim_key *k,
                            struct pl_trial_result *out, struct pl_fault *fault)
{
    static const char *const junk[] = {
        "Segmentation fault (not really): 0x7ffd\n",
        "{\"type\":\"result\",\"id\":18446744073709551615,\"generated\":[1]}\n",
        "{\"type\":\"result\",\"generated\":[[[\n",
        "\x01\x02\xff\xfe binary\n",
    };

    switch (f) {
    case PL_SIM_CRASH:
        (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); /* nobody wants this core */
        abort();
    case PL_SIM_HANG:
        hang();
    case PL_SIM_OOM:
        fault->reason = PL_FAULT_OOM;
        fault->fatal = true;
        return pl_fail(&fault->err, PL_ENOMEM, "planted: out of memory");
    default:
        out->garbage = junk[pl_keyv(k->seed, k->arm, k->sample, k->repeat) % 4];
        return PL_OK;
    }
}

/* The samples of every sequence into the key. */
static enum pl_status take_samples(struct sim_state *s, const struct sim_arm *a,
                                   const struct pl_trial_request *q, struct pl_sim_key *k,
                                   struct pl_fault *fault)
{
    size_t n = q->samples ? json_array_size(q->samples) : 1;

    if (n != a->params.sequences || n > s->room_sequences)
        return pl_fault_set(fault,
                            pl_fail(&fault->err, PL_EPROTO,
                                    "%zu samples for an arm of %u sequences", n,
                                    a->params.sequences),
                            PL_FAULT_DATA);
    for (size_t b = 0; q->samples && b < n; b++)
        s->samples[b] = (uint64_t)pl_json_get_i64(json_array_get(q->samples, b), "index", 0);
    k->samples = n > 1 ? s->samples : NULL;
    return PL_OK;
}

static enum pl_status sim_run(void *state, const struct pl_trial_request *q,
                              struct pl_trial_result *out, struct pl_fault *fault)
{
    struct sim_state *s = state;
    struct sim_arm *a = find_arm(s, q->arm);

    if (!a || !s->tokens)
        return pl_fault_set(fault, pl_fail(&fault->err, PL_EUSAGE, "arm %s is not loaded", q->arm),
                            PL_FAULT_RUNNER);
    int64_t context = q->context;
    if (context == PL_CONTEXT_AUTO) /* docs/SWEEP.md, "Scenes" */
        context = (int64_t)strlen(pl_json_get_str(q->sample, "question", ""));
    if (context < 1 || context > INT32_MAX)
        return pl_fault_set(fault,
                            pl_fail(&fault->err, PL_ERANGE, "context %lld", (long long)context),
                            PL_FAULT_CONTEXT);
    if (q->tokens > s->tokens)
        return pl_fault_set(fault,
                            pl_fail(&fault->err, PL_ERANGE,
                                    "%lld tokens, and the load said at most %u",
                                    (long long)q->tokens, s->tokens),
                            PL_FAULT_RUNNER);
    struct pl_sim_key k = {.seed = s->seed,
                           .arm = a->hash,
                           .device = s->device,
                           .context = (uint64_t)context,
                           .sample = (uint64_t)pl_json_get_i64(q->sample, "index", 0),
                           .repeat = (uint64_t)q->repeat,
                           .attempt = (uint64_t)q->attempt};
    enum pl_status st = take_samples(s, a, q, &k, fault);
    if (st)
        return st;
    if (q->timed) { /* a warm-up has the key of a trial that is yet to come */
        enum pl_sim_fail f = pl_sim_draw_fail(&a->params, &k);
        pl_trial_result_init(out);
        if (f != PL_SIM_FAILS)
            return plant(f, &k, out, fault);
    }
    double factor = pl_sim_factor(&a->params, &k);
    int64_t clock_ns = a->params.is_virtual ? s->virtual_ns : pl_now_ns() - s->started_ns;
    double drift = 1 + a->params.drift_per_hour * ((double)clock_ns / 3.6e12);
    factor *= drift > 0.01 ? drift : 0.01;
    if (a->model->trials < 64)
        factor *= 1 + (a->params.cold - 1) / (double)(UINT64_C(1) << a->model->trials);
    a->model->trials++;
    pl_sim_trial(&a->params, &k, factor, q->tokens ? (uint32_t)q->tokens : s->tokens,
                 s->prefill_only, &s->room, out);
    if (a->params.is_virtual)
        s->virtual_ns += out->total_ns;
    else
        pl_sleep_ns(out->total_ns);
    return PL_OK;
}

const struct pl_engine pl_engine_sim = {
    .name = "sim",
    .open = sim_open,
    .close = sim_close,
    .describe = sim_describe,
    .load = sim_load,
    .trial = sim_run,
    .unload = sim_unload,
};
