/* Pruners in a session: keep 1 changes no bit, lengths fall as the rule says, bad scorers are told.
 */
#include "fixture.h"

#include "pruning/pruner.h"

#include <math.h>
#include <unistd.h>

#define N 300

struct seat {
    struct pl_model *m;
    struct pl_pruner *p;
    struct pl_session *s;
};

static struct pl_pruner *new_pruner(struct pl_model *m, const char *prune)
{
    struct pl_pruner *p = NULL;
    json_t *j = json_loads(prune, 0, NULL);

    assert_non_null(j);
    ok(pl_pruner_create(j, m, N, 1, &p, &err));
    json_decref(j);
    return p;
}

static struct seat sit(const char *model, const char *prune)
{
    struct seat t = {.m = load_model(model, 1, NULL)};
    struct pl_session_opts o = {.max_tokens = N + 40};

    t.p = new_pruner(t.m, prune);
    pl_pruner_session_opts(t.p, &o);
    t.s = new_session(t.m, &o);
    return t;
}

static void stand_up(struct seat *t)
{
    pl_session_free(t->s);
    pl_pruner_free(t->p);
    pl_model_free(t->m);
}

static enum pl_status run_of(struct seat *t, const int32_t *ids, size_t n, const uint8_t *visual,
                             float *logits, struct pl_err *err)
{
    const struct pl_prune_prompt q = {.n = n, .key = 5, .visual = visual};
    const struct pl_prompt p = {.ids = ids, .n = n};
    enum pl_status st;

    pl_session_reset(t->s);
    st = pl_pruner_begin(t->p, &q, err);
    if (!st)
        st = pl_session_prefill(t->s, &p, logits, err);
    return st ? st : pl_pruner_finish(t->p, t->s, err);
}

/* A safetensors file of scorers for `layers`, by a fixed sequence; bad: which lie it tells. */
enum lie { NONE, WIDE, NO_BIAS, FLAT, NANS };
static void write_scorers(const char *path, const int *layers, int n, int hidden, enum lie lie)
{
    const int middle = 10;
    char head[4096] = "{";
    size_t at = 1, bytes = 0;
    uint32_t seed = 77;
    float *data = calloc(100000, sizeof *data);
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    for (int i = 0; i < n; i++) {
        const int h = lie == WIDE && i == n - 1 ? hidden + 1 : hidden;
        const struct {
            const char *part;
            int rows, cols;
        } t[] = {{"0.weight", middle, h},
                 {"0.bias", 0, middle},
                 {"2.weight", 1, middle},
                 {"2.bias", 0, 1}};
        for (int k = 0; k < 4; k++) {
            const int count = (t[k].rows ? t[k].rows : 1) * t[k].cols;
            const bool flat = lie == FLAT && k == 2;
            if (lie == NO_BIAS && k == 3 && i == n - 1)
                continue;
            for (int e = 0; e < count; e++) {
                seed = seed * 1664525u + 1013904223u;
                data[bytes / 4 + (size_t)e] =
                    lie == NANS && k == 0 && e == 7 ? NAN : (float)(int32_t)seed / 2147483648.0f;
            }
            at += (size_t)snprintf(head + at, sizeof head - at,
                                   "%s\"%d.scorer.%s\":{\"dtype\":\"F32\",\"shape\":[",
                                   at > 1 ? "," : "", layers[i], t[k].part);
            if (t[k].rows && !flat)
                at += (size_t)snprintf(head + at, sizeof head - at, "%d,", t[k].rows);
            at += (size_t)snprintf(head + at, sizeof head - at, "%d],\"data_offsets\":[%zu,%zu]}",
                                   t[k].cols, bytes, bytes + (size_t)count * 4);
            bytes += (size_t)count * 4;
        }
    }
    at += (size_t)snprintf(head + at, sizeof head - at, "}");
    const uint64_t len = at;
    assert_int_equal(fwrite(&len, 8, 1, f) + fwrite(head, at, 1, f) + fwrite(data, bytes, 1, f), 3);
    fclose(f);
    free(data);
}

static char scorers[] = "/tmp/pl-scorers-XXXXXX";

static const char *const all_methods[] = {
    "{\"method\":\"sdtp\",\"weights\":\"%s\",\"layers\":[0,1],\"keep\":%s}",
    "{\"method\":\"sdtp\",\"weights\":\"%s\",\"keep\":%s,\"positions\":\"renumbered\"}",
    "{\"method\":\"random\",\"layers\":[0,1],\"keep\":%2$s}",
    "{\"method\":\"fastv\",\"tokens\":\"all\",\"keep\":%2$s}",
    "{\"method\":\"lazyllm\",\"layers\":[0,2],\"keep\":%2$s}",
    "{\"method\":\"h2o\",\"keep\":%2$s}",
    "{\"method\":\"snapkv\",\"keep\":%2$s}",
    "{\"method\":\"pyramidkv\",\"keep\":%2$s}",
    "{\"method\":\"streamingllm\",\"keep\":%2$s}",
    "{\"method\":\"tova\",\"keep\":%2$s}",
};

static void keep_1_is_the_baseline(void **state)
{
    static const char *const models[] = {"plain", "mistral"};
    static const int both[] = {0, 1};
    int32_t ids[N];
    float want[97], got[97];

    (void)state;
    for (int k = 0; k < 2; k++) {
        struct pl_model *m = load_model(models[k], 1, NULL);
        const struct pl_arch *a = &pl_model_info(m)->arch;
        assert_in_range(a->vocab, 1, 97);
        write_scorers(scorers, both, 2, a->hidden, NONE);
        make_ids(ids, N, 3, a->vocab);
        for (size_t i = 0; i < sizeof all_methods / sizeof all_methods[0]; i++) {
            struct pl_session *plain =
                new_session(m, &(struct pl_session_opts){.max_tokens = N + 40});
            char prune[512];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(prune, sizeof prune, all_methods[i], scorers, "1");
#pragma GCC diagnostic pop
            struct seat t = sit(models[k], prune);
            prefill(plain, ids, N, want);
            ok(run_of(&t, ids, N, NULL, got, &err));
            assert_memory_equal(got, want, (size_t)a->vocab * sizeof(float));
            for (int step = 0; step < 4; step++) {
                ok(pl_session_decode(plain, step, want, &err));
                ok(pl_session_decode(t.s, step, got, &err));
                assert_memory_equal(got, want, (size_t)a->vocab * sizeof(float));
                assert_int_equal(pl_session_kv_read(t.s), pl_session_kv_read(plain));
            }
            for (int32_t l = 0; l < a->layers; l++)
                assert_int_equal(pl_session_kv_len(t.s, l), pl_session_kv_len(plain, l));
            pl_session_free(plain);
            stand_up(&t);
        }
        pl_model_free(m);
    }
}

/* The staircase of every method, and that a decode step reads no more than it. */
static void lengths_fall(void **state)
{
    static const int both[] = {0, 1};
    static const size_t want[][3] = {
        {300, 150, 75},  {300, 150, 75},  {300, 150, 75},  {300, 300, 150},
        {300, 150, 150}, {150, 150, 150}, {150, 150, 150}, {0},
        {150, 150, 150}, {150, 150, 150}};
    int32_t ids[N];
    float logits[97];

    (void)state;
    write_scorers(scorers, both, 2, 40, NONE);
    make_ids(ids, N, 3, 97);
    for (size_t i = 0; i < sizeof all_methods / sizeof all_methods[0]; i++) {
        char prune[512];
        size_t rows = 0;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(prune, sizeof prune, all_methods[i], scorers, "0.5");
#pragma GCC diagnostic pop
        struct seat t = sit("plain", prune);
        const int64_t row = pl_arch_kv_bytes_per_token(&pl_model_info(t.m)->arch, PL_DT_F32) / 3;
        ok(run_of(&t, ids, N, NULL, logits, &err));
        for (int32_t l = 0; l < 3 && want[i][0]; l++)
            assert_int_equal(pl_session_kv_len(t.s, l), want[i][l]);
        if (!want[i][0]) { /* the pyramid: falling, keep · n on average */
            assert_true(pl_session_kv_len(t.s, 0) > pl_session_kv_len(t.s, 1));
            assert_true(pl_session_kv_len(t.s, 1) > pl_session_kv_len(t.s, 2));
        }
        for (int32_t l = 0; l < 3; l++)
            rows += pl_session_kv_len(t.s, l);
        ok(pl_session_decode(t.s, 5, logits, &err));
        assert_int_equal(pl_session_kv_read(t.s), row * (int64_t)(rows + 3));
        /* again, the same; a rollback leads back to the prompt's end */
        ok(pl_session_rollback(t.s, 1, &err));
        float a[97], b[97];
        ok(pl_session_decode(t.s, 5, a, &err));
        assert_memory_equal(a, logits, sizeof a);
        ok(run_of(&t, ids, N, NULL, b, &err));
        ok(pl_session_decode(t.s, 5, a, &err));
        assert_memory_equal(a, logits, sizeof a);
        stand_up(&t);
    }
}

static void totals(void **state)
{
    int32_t ids[N];
    struct seat t = sit("plain", "{\"method\":\"random\",\"layers\":[0,1],\"total_keep\":0.7}");

    (void)state;
    make_ids(ids, N, 3, 97);
    for (size_t n = 200; n <= N; n += 100) {
        ok(run_of(&t, ids, n, NULL, NULL, &err));
        assert_int_equal(pl_session_kv_len(t.s, 2), n * 7 / 10);
    }
    stand_up(&t);
}

/* Only what is marked as visual goes; the trace tells the same as the cache. */
static void visual_spans(void **state)
{
    static const char *const methods[] = {
        "{\"method\":\"fastv\",\"keep\":0.25}",
        "{\"method\":\"random\",\"layers\":[0,1],\"tokens\":\"visual\",\"total_keep\":0.25}"};
    int32_t ids[N];
    uint8_t visual[N] = {0};

    (void)state;
    make_ids(ids, N, 3, 97);
    memset(visual + 7, 1, 100);
    for (int i = 0; i < 2; i++) {
        struct seat t = sit("plain", methods[i]);
        pl_pruner_set_trace(t.p, true);
        ok(run_of(&t, ids, N, visual, NULL, &err));
        assert_int_equal(pl_session_kv_len(t.s, 2), N - 75);
        json_t *trace = pl_pruner_trace(t.p), *stages = json_object_get(trace, "stages");
        const json_t *last = json_array_get(stages, json_array_size(stages) - 1);
        const json_t *kept = json_object_get(last, "kept");
        assert_int_equal(json_array_size(kept), N - 75);
        for (int32_t j = 0; j < 7; j++)
            assert_int_equal(json_integer_value(json_array_get(kept, (size_t)j)), j);
        assert_in_range(json_integer_value(json_array_get(kept, 31)), 31, 106);
        assert_int_equal(json_integer_value(json_array_get(kept, 32)), 107);
        json_decref(trace);
        fails(PL_EUSAGE, "this prompt has none", run_of(&t, ids, N, NULL, NULL, &err));
        stand_up(&t);
    }
}

static void bad_scorers(void **state)
{
    static const int both[] = {0, 1};
    static const struct {
        enum lie lie;
        const char *says;
    } lies[] = {{WIDE, "1.scorer.0.weight is [10, 41], expected [*, 40]"},
                {NO_BIAS, "there is no 1.scorer.2.bias"},
                {FLAT, "0.scorer.2.weight is [10], expected [1, 10]"}};
    struct pl_model *m = load_model("plain", 1, NULL);
    struct pl_pruner *p = NULL;
    char prune[256];
    int32_t ids[N];

    (void)state;
    snprintf(prune, sizeof prune, "{\"method\":\"sdtp\",\"weights\":\"%s\",\"keep\":0.5}", scorers);
    json_t *j = json_loads(prune, 0, NULL);
    for (size_t i = 0; i < 3; i++) {
        write_scorers(scorers, both, 2, 40, lies[i].lie);
        fails(PL_EFORMAT, lies[i].says, pl_prune_check(j, &pl_model_info(m)->arch, &err));
        fails(PL_EFORMAT, lies[i].says, pl_pruner_create(j, m, N, 1, &p, &err));
    }
    write_scorers(scorers, both, 2, 40, NONE);
    json_object_set_new(j, "layers", json_pack("[i,i]", 0, 2));
    fails(PL_EFORMAT, "there is no 2.scorer.0.weight",
          pl_prune_check(j, &pl_model_info(m)->arch, &err));
    write_scorers(scorers, both, 2, 40, NANS);
    struct seat t = sit("plain", prune);
    make_ids(ids, N, 3, 97);
    fails(PL_EFORMAT, "sdtp after layer 0: the score of token 0 is NaN",
          run_of(&t, ids, N, NULL, NULL, &err));
    assert_int_equal(pl_session_len(t.s), 0);
    stand_up(&t);
    json_decref(j);
    pl_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keep_1_is_the_baseline), cmocka_unit_test(lengths_fall),
        cmocka_unit_test(totals), cmocka_unit_test(visual_spans), cmocka_unit_test(bad_scorers)};
    const int fd = mkstemp(scorers);

    if (fd < 0)
        return 1;
    close(fd);
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(scorers);
    return rc;
}
