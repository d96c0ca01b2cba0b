#include "fixture.h"

#include "base/rng.h"
#include "results/quality.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define START_NS INT64_C(1760000000000000000)

static void must(enum pl_status st, const struct pl_err *err)
{
    if (st == PL_OK)
        return;
    fprintf(stderr, "fixture: %s\n", err->text);
    abort();
}

static uint32_t or_one(uint32_t v)
{
    return v ? v : 1;
}

static double log_normal(double sigma, uint64_t key)
{
    struct pl_rng r;
    pl_rng_init(&r, key);
    return exp(sigma * pl_rng_normal(&r) - sigma * sigma / 2);
}

static uint64_t seed_of(const struct fixture *f)
{
    return f->seed ? f->seed : 1;
}

static double draw(const struct fixture *f, uint64_t tag, uint64_t row)
{
    struct pl_rng r;
    pl_rng_init(&r, pl_keyv(seed_of(f), tag, row));
    return pl_rng_double(&r);
}

static void sample_id(void *ctx, uint32_t i, char *out, size_t size)
{
    const struct fixture *f = ctx;
    if (f->questions && !f->flat)
        snprintf(out, size, "s%" PRIu32 " × q%" PRIu32, i / f->questions, i % f->questions);
    else
        snprintf(out, size, "text:%" PRIu32, i);
}

static void fill_time(const struct fixture *f, const struct pl_row_id *id, int64_t context,
                      uint32_t tokens, double factor, struct pl_trial *t)
{
    const bool last = id->arm + 1 == f->arms;
    const double prefill = 0.002 * (double)context * factor, step = 0.3 * factor;
    double now = 0;

    t->prefill_ms = prefill;
    t->wait_ms = 0;
    t->ttft_ms = prefill;
    now = prefill;
    if (f->prefill)
        t->decode_ms = 0;
    else if (f->drafts && last) {
        t->draft_ms = 0.1 * step * tokens;
        t->verify_ms = 0.5 * step * tokens;
        now += t->draft_ms + t->verify_ms;
    } else {
        t->decode_ms = step * (tokens - 1);
        now += t->decode_ms;
    }
    t->total_ms = now;
    if (f->encodes && id->arm > 0) {
        t->encode_ms = 2 * prefill;
        t->total_ms += t->encode_ms;
        t->ttft_ms += t->encode_ms;
    }
    if (f->encodes && id->arm == 2) {
        t->prefill_ms = t->decode_ms = NAN;
        t->ttft_ms = t->total_ms = t->encode_ms;
    }
    if (f->few_phases)
        t->prefill_ms = t->wait_ms = t->decode_ms = NAN;
}

static void fill(const struct fixture *f, const struct pl_shape *s, const struct pl_row_id *id,
                 int64_t context, struct pl_row *row)
{
    struct pl_trial *t = row->trial;
    const uint64_t seed = seed_of(f), index = pl_row_index(s, id);
    const uint32_t devices = or_one(f->devices), sessions = or_one(f->sessions);
    const uint32_t worker = id->sample % devices;
    const double scale = f->scale[id->arm] > 0 ? f->scale[id->arm] : 1;
    const uint32_t scene = f->questions ? id->sample / f->questions : 0;
    const double when = (double)id->sample / s->samples;
    const double factor = scale * log_normal(f->noise, pl_keyv(seed, 1, index)) *
                          log_normal(f->sample_effect, pl_keyv(seed, 2, id->sample)) *
                          log_normal(f->device_effect, pl_keyv(seed, 3, worker)) *
                          log_normal(f->scene_effect, pl_keyv(seed, 4, id->arm, scene)) *
                          (1 + f->drift * when);

    (void)sessions;
    pl_row_clear(row, s);
    t->prompt_tokens = (uint32_t)context;
    t->generated = f->encodes && id->arm == 2 ? 0 : f->prefill ? 1 : s->tokens;
    t->worker = worker;
    t->synthetic = !f->real;
    t->start_unix_ns = START_NS + (int64_t)index * 1000;
    t->start_unix_ns += (int64_t)id->sample * INT64_C(1000000000);
    fill_time(f, id, context, s->tokens, factor, t);
    for (uint32_t i = 0; i < t->generated; i++)
        row->tokens[i] = (int32_t)(f->quality && i < id->arm ? 1000 + i : i);
    if (f->quality)
        row->quality[PL_QUALITY_PERPLEXITY] = ldexp(id->sample % 2 ? 40 : 10, (int)id->arm);
    if (f->answer && id->arm == 0)
        row->quality[PL_QUALITY_ANSWER_TOKENS] = f->answer;
    if (f->memory) {
        t->weights_bytes = UINT64_C(3) << 20;
        t->kv_bytes = 4096 * (uint64_t)context;
        t->workspace_bytes = 1 << 20;
        t->device_peak_bytes = UINT64_C(9) << 20;
        row->work.prefill_flops =
            UINT64_C(1000000) * (uint64_t)context / (id->arm + 1 == f->arms ? 2 : 1);
        row->work.decode_bytes = UINT64_C(3) << (id->arm + 1 == f->arms ? 28 : 30);
    }
    for (uint32_t l = 0; l < s->layers && f->memory; l++)
        row->kv_len[l] =
            (uint32_t)(id->arm + 1 == f->arms && l >= s->layers / 2 ? context / 2 : context);
}

static json_t *arm_json(const struct fixture *f, uint32_t a, const char *name)
{
    const char *base = f->baseline[a];
    json_t *o = json_pack("{s:s, s:s}", "name", name, "model", "sim");
    if (base && *base)
        json_object_set_new(o, "baseline", json_string(base));
    else if (base)
        json_object_set_new(o, "baseline", json_string(name));
    if (f->memory && !f->encodes && a + 1 == f->arms)
        json_object_set_new(o, "prune", json_pack("{s:s, s:f}", "method", "sdtp", "keep", 0.5));
    return o;
}

static void write_logs(struct pl_writer *w, const struct fixture *f)
{
    struct pl_err err;
    const uint32_t devices = or_one(f->devices), sessions = or_one(f->sessions);
    for (uint32_t s = 0; s < sessions; s++) {
        struct pl_log_session start = {.used = 1,
                                       .event = 1,
                                       .session = (uint16_t)s,
                                       .ranks = devices + 1,
                                       .unix_ns = START_NS,
                                       .host = "node0",
                                       .version = "0.1.0",
                                       .provenance = "{}"};
        must(pl_writer_log(w, PL_LOG_SESSIONS, s, &start, &err), &err);
        for (uint32_t i = 0; i < devices; i++) {
            struct pl_log_worker k = {
                .used = 1, .session = (uint16_t)s, .worker = i, .rank = i + 1};
            snprintf(k.host, sizeof k.host, "node%u", i);
            snprintf(k.device, sizeof k.device, "cpu");
            must(pl_writer_log(w, PL_LOG_WORKERS, s * devices + i, &k, &err), &err);
        }
    }
}

static struct pl_writer *create(const char *path, const struct fixture *f,
                                const struct pl_shape *shape, const int64_t *contexts)
{
    char own[FIXTURE_ARMS][16], *arms[FIXTURE_ARMS], sha[65];
    const char *names[FIXTURE_ARMS];
    struct pl_writer *w = NULL;
    struct pl_err err;
    json_t *list = json_array();

    for (uint32_t a = 0; a < f->arms; a++) {
        snprintf(own[a], sizeof own[a], "arm%u", a);
        names[a] = f->names[a] ? f->names[a] : own[a];
        json_t *o = arm_json(f, a, names[a]);
        arms[a] = json_dumps(o, JSON_COMPACT);
        json_array_append_new(list, o);
    }
    json_t *sweep = json_pack("{s:s, s:I, s:{s:s}, s:o, s:s, s:{s:s, s:f}}", "name",
                              f->name ? f->name : "fixture", "seed", (json_int_t)seed_of(f), "data",
                              "kind", f->questions ? "dsec" : "synthetic", "arms", list, "baseline",
                              names[0], "measure", "mode", f->prefill ? "prefill" : "e2e", "noise",
                              f->delta > 0 ? f->delta : 0.01);
    json_t *provenance = json_pack("{s:s, s:{s:s, s:i}}", "host", "node0", "cpu", "name",
                                   "Test <CPU> & co", "cores", 2);
    char *text = json_dumps(sweep, JSON_COMPACT);
    memset(sha, 'a', 64);
    sha[64] = '\0';
    const struct pl_results_spec spec = {.shape = *shape,
                                         .arm_names = names,
                                         .arm_json = (const char *const *)arms,
                                         .contexts = contexts,
                                         .sample_id = sample_id,
                                         .sample_ctx = (void *)(uintptr_t)f,
                                         .sample_id_len = 16,
                                         .metric_names = pl_quality_names(),
                                         .sweep_text = "name: fixture\n",
                                         .resolved = text,
                                         .sha256 = sha,
                                         .provenance = provenance,
                                         .log_capacity = {16, 256, 16, 16, 64, 256, 16, 16}};
    unlink(path);
    must(pl_results_create(path, &spec, &err), &err);
    must(pl_writer_open(path, shape, &w, &err), &err);
    json_decref(sweep);
    json_decref(provenance);
    free(text);
    for (uint32_t a = 0; a < f->arms; a++)
        free(arms[a]);
    return w;
}

static void log_failure(struct pl_writer *w, uint64_t row, enum pl_reason reason, uint32_t slot)
{
    struct pl_err err;
    struct pl_log_failure e = {.used = 1, .final = 1, .row = row, .unix_ns = START_NS};
    e.reason = (uint16_t)reason;
    snprintf(e.detail, sizeof e.detail, "runner %s: <broken> & \"quoted\", a|b", "killed");
    snprintf(e.stderr_tail, sizeof e.stderr_tail, "line 1\nline 2, with \x1b[31mcolour\xff\n");
    must(pl_writer_log(w, PL_LOG_FAILURES, slot, &e, &err), &err);
}

void fixture_write(const char *path, const struct fixture *f)
{
    int64_t contexts[8];
    struct pl_row row;
    struct pl_err err;
    const struct pl_shape shape = {.arms = f->arms,
                                   .contexts = or_one(f->contexts),
                                   .samples = or_one(f->samples),
                                   .repeats = or_one(f->repeats),
                                   .batch = 1,
                                   .tokens = f->prefill  ? 1
                                             : f->tokens ? f->tokens
                                                         : 32,
                                   .models = 2,
                                   .layers = 4,
                                   .metrics = f->quality ? PL_QUALITY_COUNT : 0};
    uint32_t failures = 0;

    for (uint32_t c = 0; c < shape.contexts; c++)
        contexts[c] = f->context[c] ? f->context[c] : INT64_C(64) << (2 * c);
    struct pl_writer *w = create(path, f, &shape, contexts);
    write_logs(w, f);
    must(pl_row_init(&row, &shape, &err), &err);
    for (uint64_t i = 0; i < pl_shape_rows(&shape); i++) {
        const struct pl_row_id id = pl_row_at(&shape, i);
        const uint16_t session = (uint16_t)(id.sample / or_one(f->devices) % or_one(f->sessions));
        enum pl_row_state state = PL_ROW_DONE;
        if (draw(f, 11, i) < f->leave)
            continue;
        fill(f, &shape, &id, contexts[id.context], &row);
        if (draw(f, 12, i) < f->fail) {
            const enum pl_reason reason = i % 3 ? PL_REASON_CRASH : PL_REASON_TIMEOUT;
            pl_row_clear(&row, &shape);
            row.trial->reason = (uint16_t)reason;
            state = PL_ROW_FAILED;
            if (failures < 64)
                log_failure(w, i, reason, failures++);
        }
        must(pl_writer_row(w, i, &row, state, 0, session, &err), &err);
    }
    pl_row_release(&row);
    pl_writer_free(w);
}
