#include "fixture.h"

#include "base/hash.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pl_shape fixture_shape(void)
{
    return (struct pl_shape){.arms = 2,
                             .contexts = 2,
                             .samples = 3,
                             .repeats = 2,
                             .batch = 1,
                             .tokens = 8,
                             .models = 2,
                             .layers = 4,
                             .rounds = FIXTURE_ROUNDS,
                             .metrics = 1};
}

static void sample_id(void *ctx, uint32_t i, char *out, size_t size)
{
    snprintf(out, size, "%s%u", (const char *)ctx, i);
}

enum pl_status fixture_create(const char *path, const struct pl_shape *shape, struct pl_err *err)
{
    static const char *const names[] = {"baseline", "drafted-γ3"};
    static const char *const json[] = {"{\"model\": \"llm\"}",
                                       "{\"model\": \"llm\", \"draft\": {}}"};
    static const int64_t contexts[] = {64, 512};
    static const char *const metrics[] = {"exact_match"};
    static char prefix[] = "text@";
    const char *resolved = "{\"name\": \"fixture\", \"seed\": 1}";
    char sha[PL_SHA256_HEX];
    pl_sha256_hex(resolved, strlen(resolved), sha);
    json_t *provenance = json_pack("{s:s, s:i, s:f, s:b, s:[s, s]}", "host", "testhost", "cores", 2,
                                   "ghz", 2.5, "cuda", 0, "gpus", "a", "b");
    const struct pl_results_spec spec = {.shape = *shape,
                                         .arm_names = names,
                                         .arm_json = json,
                                         .contexts = contexts,
                                         .sample_id = sample_id,
                                         .sample_ctx = prefix,
                                         .sample_id_len = 16,
                                         .metric_names = metrics,
                                         .sweep_text = "name: fixture\nseed: 1\n",
                                         .resolved = resolved,
                                         .sha256 = sha,
                                         .provenance = provenance,
                                         .log_capacity = {4, 4, 4, 4, 4, 4, 4, 4}};
    const enum pl_status st = pl_results_create(path, &spec, err);
    json_decref(provenance);
    return st;
}

static void add_rounds(const struct pl_shape *shape, uint64_t index, struct pl_row *row)
{
    struct pl_trial *t = row->trial;
    const bool cut = index % 2;
    t->rounds = 2;
    t->drafted = 6;
    t->accepted = cut ? 6 : 5;
    t->cut = cut;
    for (uint32_t i = 0; i < t->rounds && i < shape->rounds; i++)
        row->rounds[i] = (struct pl_round){.drafted = 3,
                                           .accepted = (uint16_t)(i == 0 && !cut ? 2 : 3),
                                           .draft_us = 5,
                                           .verify_us = 9};
}

void fixture_row(const struct pl_shape *shape, uint64_t index, uint32_t salt, struct pl_row *row)
{
    struct pl_trial *t = row->trial;
    const struct pl_row_id id = pl_row_at(shape, index);
    pl_row_clear(row, shape);
    t->prefill_ms = 10 + (double)(index % 1000);
    t->decode_ms = 20;
    t->total_ms = t->prefill_ms + t->decode_ms;
    t->ttft_ms = t->prefill_ms;
    t->prompt_tokens = 64;
    t->generated = shape->tokens;
    t->worker = salt;
    t->block = (uint32_t)(index / 4);
    t->order = (uint16_t)(index % 4);
    t->start_unix_ns = INT64_C(1700000000000000000) + (int64_t)index;
    t->ids_hash = index * UINT64_C(0x9e3779b97f4a7c15) + salt;
    t->weights_bytes = 1u << 20;
    for (uint32_t i = 0; i < shape->tokens; i++) {
        row->tokens[i] = (int32_t)(index * 31 + i + salt) & 0x7fff;
        row->token_ms[i] = (float)(t->ttft_ms + t->decode_ms * (double)i / (double)shape->tokens);
    }
    for (uint32_t i = 0; i < shape->layers; i++)
        row->kv_len[i] = 64;
    if (shape->rounds >= FIXTURE_ROUNDS && shape->tokens == 8 && id.arm == 1)
        add_rounds(shape, index, row);
    for (uint32_t i = 0; i < shape->metrics; i++)
        row->quality[i] = (double)index / 2;
}

enum pl_row_state fixture_state(uint64_t index)
{
    if (index % 11 == 5)
        return PL_ROW_EMPTY;
    return index % 7 == 3 ? PL_ROW_FAILED : PL_ROW_DONE;
}

static enum pl_status fill_logs(struct pl_writer *w, struct pl_err *err)
{
    struct pl_log_session s = {.used = 1,
                               .event = 1,
                               .ranks = 3,
                               .unix_ns = 7,
                               .host = "testhost",
                               .version = "0.1.0",
                               .provenance = "{}"};
    struct pl_log_worker worker = {.used = 1, .worker = 1, .rank = 1, .cpus = "0-1"};
    struct pl_log_load load = {.used = 1, .ok = 1, .load_ms = 12.5, .models = "llm"};
    struct pl_log_block block = {.used = 1, .done = 4, .mhz_start = NAN, .mhz_end = NAN};
    struct pl_log_failure failure = {
        .used = 1, .reason = PL_REASON_TIMEOUT, .row = 3, .detail = "no answer in 60 s"};
    struct pl_log_ceiling ceiling = {
        .used = 1, .worker = 1, .threads = 2, .read_bytes_per_s = 2e10, .kind = "f32 avx2"};
    enum pl_status st = pl_writer_log(w, PL_LOG_SESSIONS, 0, &s, err);
    if (st == PL_OK)
        st = pl_writer_log(w, PL_LOG_WORKERS, 1, &worker, err);
    if (st == PL_OK)
        st = pl_writer_log(w, PL_LOG_LOADS, 0, &load, err);
    if (st == PL_OK)
        st = pl_writer_log(w, PL_LOG_BLOCKS, 0, &block, err);
    if (st == PL_OK)
        st = pl_writer_log(w, PL_LOG_BLOCKS, 3, &block, err);
    if (st == PL_OK)
        st = pl_writer_log(w, PL_LOG_FAILURES, 2, &failure, err);
    if (st == PL_OK)
        st = pl_writer_log(w, PL_LOG_CEILINGS, 0, &ceiling, err);
    return st == PL_OK ? pl_writer_overflow(w, PL_LOG_BLOCKS, 5, err) : st;
}

enum pl_status fixture_fill(const char *path, const struct pl_shape *shape, struct pl_err *err)
{
    struct pl_writer *w = NULL;
    struct pl_row row = {.block = NULL};
    enum pl_status st = pl_writer_open(path, shape, &w, err);
    if (st == PL_OK)
        st = pl_row_init(&row, shape, err);
    for (uint64_t i = 0; st == PL_OK && i < pl_shape_rows(shape); i++) {
        const enum pl_row_state state = fixture_state(i);
        if (state == PL_ROW_EMPTY)
            continue;
        fixture_row(shape, i, 0, &row);
        if (state == PL_ROW_FAILED)
            row.trial->reason = PL_REASON_TIMEOUT;
        st = pl_writer_row(w, i, &row, state, 0, 0, err);
    }
    if (st == PL_OK)
        st = fill_logs(w, err);
    if (st == PL_OK)
        st = pl_writer_sync(w, err);
    pl_row_release(&row);
    pl_writer_free(w);
    return st;
}

const char *fixture_path(const char *name)
{
    static char path[4][512];
    static unsigned next;
    const char *dir = getenv("TMPDIR");
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/paceline-%s.%d", dir ? dir : "/tmp", name, (int)getpid());
    return p;
}
