/* What plain torch and kvpress keep (tools/make_pruning_goldens.py): indices exactly, survivors'
 * logits to 1e-4, 24 greedy tokens; three prompts alone and stepped together. */
#include "fixture.h"

#include "base/json.h"
#include "pruning/pruner.h"

#include <math.h>

#define SHARED PL_SOURCE_DIR "/tests/pruning/goldens"
#ifdef PL_WINDOWED /* the same weights with a sliding window */
#define HERE SHARED "/window"
#define LEAST 6
#else
#define HERE SHARED
#define LEAST 31
#endif
#ifdef PL_FEW /* an emulated GPU takes seconds a case: one in PL_FEW, and a few tokens of it */
#define GREEDY 2
#else
#define GREEDY 24
#define PL_FEW 1
#endif
#define MOST 160

struct seat {
    struct pl_pruner *p;
    struct pl_session *s;
    int32_t ids[MOST];
    uint8_t visual[MOST];
    size_t n;
    bool marked;
    float logits[128];
};

static json_t *cases, *prompts;
static struct pl_model *model;
static float *survivors;

static int load(void **state)
{
    struct pl_model_opts o = {.where = {.threads = 1}};
    json_t *all = NULL;
    struct pl_buf b;

    (void)state;
    ok(pl_model_load(HERE, &o, &model, &err));
    ok(pl_json_read_file(HERE "/cases.json", 1 << 20, &all, &err));
    cases = json_incref(json_object_get(all, "cases"));
    prompts = json_incref(json_object_get(all, "prompts"));
    json_decref(all);
    pl_buf_init(&b, 1 << 22);
    ok(pl_read_file(HERE "/logits.f32", 1 << 22, &b, &err));
    survivors = malloc(b.len);
    memcpy(survivors, b.data, b.len);
    pl_buf_release(&b);
    return 0;
}

static int unload(void **state)
{
    (void)state;
    json_decref(cases);
    json_decref(prompts);
    pl_model_free(model);
    free(survivors);
    return 0;
}

static void sit(struct seat *t, const json_t *c)
{
    const int tap = PL_TAP_FINAL;
    struct pl_session_opts o = {.max_tokens = MOST + GREEDY, .taps = &tap, .n_taps = 1};
    json_t *prune = json_deep_copy(json_object_get(c, "prune"));
    const json_t *ids =
        json_array_get(prompts, (size_t)json_integer_value(json_object_get(c, "prompt")));
    const json_t *visual = json_object_get(c, "visual");

    memset(t, 0, sizeof *t);
    if (json_object_get(prune, "weights"))
        json_object_set_new(prune, "weights", json_string(SHARED "/scorers.safetensors"));
    t->n = json_array_size(ids);
    assert_in_range(t->n, 1, MOST);
    for (size_t i = 0; i < t->n; i++)
        t->ids[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    t->marked = json_is_array(visual);
    if (t->marked)
        memset(t->visual + json_integer_value(json_array_get(visual, 0)), 1,
               (size_t)json_integer_value(json_array_get(visual, 1)));
    ok(pl_pruner_create(prune, model, MOST, 1, &t->p, &err));
    pl_pruner_set_trace(t->p, true);
    pl_pruner_session_opts(t->p, &o);
    t->s = new_session(model, &o);
    json_decref(prune);
}

static void stand_up(struct seat *t)
{
    pl_session_free(t->s);
    pl_pruner_free(t->p);
}

static void start(struct seat *t)
{
    const struct pl_prune_prompt q = {.n = t->n, .visual = t->marked ? t->visual : NULL};

    ok(pl_pruner_begin(t->p, &q, &err));
    prefill(t->s, t->ids, t->n, t->logits);
    ok(pl_pruner_finish(t->p, t->s, &err));
}

static void same_list(const char *what, const json_t *got, const json_t *want)
{
    if (json_equal(got, want))
        return;
    char *g = json_dumps(got, JSON_ENCODE_ANY | JSON_COMPACT);
    char *w = json_dumps(want, JSON_ENCODE_ANY | JSON_COMPACT);
    fail_msg("%s: kept %s\nexpected %s", what, g, w);
}

/* Logits of every row that is left: the head over the last hidden states. */
static double logits_off(struct seat *t, const float *want, size_t rows)
{
    const struct pl_backend *b = pl_model_backend(model);
    const size_t vocab = (size_t)pl_model_info(model)->arch.vocab;
    struct pl_tensor *x = NULL, *y = NULL;
    float *got = malloc(rows * vocab * sizeof *got);
    double diff = 0, most = 0;

    assert_int_equal(pl_session_hidden_rows(t->s, 0), rows);
    ok(b->tensor_view(pl_session_hidden(t->s, 0), 0, rows, &x, &err));
    ok(b->tensor_create(pl_model_device(model), rows, vocab, &y, &err));
    ok(b->linear(y, x, pl_model_head(model), NULL, &err));
    ok(b->download(y, 0, rows, got, &err));
    for (size_t i = 0; i < rows * vocab; i++) {
        diff = fmax(diff, fabs((double)got[i] - (double)want[i]));
        most = fmax(most, fabs((double)want[i]));
    }
    b->tensor_free(x);
    b->tensor_free(y);
    free(got);
    return diff / most;
}

static void alone(void **state)
{
    const size_t vocab = (size_t)pl_model_info(model)->arch.vocab;
    size_t at = 0, i;
    json_t *c;

    (void)state;
    json_array_foreach (cases, i, c) {
        const json_t *kept = json_object_get(c, "kept"), *greedy = json_object_get(c, "greedy");
        char what[96];
        struct seat t;
        if (i % PL_FEW) {
            at += (size_t)json_integer_value(json_object_get(c, "rows"));
            continue;
        }
        snprintf(what, sizeof what, "case %zu, %s", i,
                 json_string_value(json_object_get(c, "name")));
        sit(&t, c);
        start(&t);
        json_t *trace = pl_pruner_trace(t.p), *stages = json_object_get(trace, "stages");
        for (size_t k = 0; k < json_array_size(kept); k++)
            same_list(what, json_object_get(json_array_get(stages, k), "kept"),
                      json_array_get(kept, k));
        if (!kept)
            same_list(what, json_object_get(trace, "kept_kv"), json_object_get(c, "kept_kv"));
        json_decref(trace);
        if (kept) {
            const size_t rows = (size_t)json_integer_value(json_object_get(c, "rows"));
            const double off = logits_off(&t, survivors + at * vocab, rows);
            at += rows;
            if (!(off <= 1e-4))
                fail_msg("%s: survivors' logits are off by %g", what, off);
        }
        for (size_t k = 0; k < GREEDY; k++) {
            const int32_t id = pl_logits_argmax(t.logits, vocab);
            if (id != json_integer_value(json_array_get(greedy, k)))
                fail_msg("%s: token %zu is %d, expected %lld", what, k, id,
                         (long long)json_integer_value(json_array_get(greedy, k)));
            ok(pl_session_decode(t.s, id, t.logits, &err));
        }
        stand_up(&t);
    }
    assert_true(i >= LEAST);
}

/* Every three cases of a kind, one for each prompt, in one step: each its own kept set. */
static void together(void **state)
{
    static const char *const names[] = {"sdtp", "lazyllm", "snapkv", "h2o"};
    const size_t vocab = (size_t)pl_model_info(model)->arch.vocab;

    (void)state;
    for (size_t k = 0; k < (PL_FEW > 1 || LEAST < 31 ? 1 : 4); k++) {
        struct seat t[3];
        const json_t *greedy[3];
        struct pl_session *s[3];
        float logits[3 * 128];
        size_t i, n = 0;
        json_t *c;
        json_array_foreach (cases, i, c) {
            if (n == 3 || strcmp(json_string_value(json_object_get(c, "name")), names[k]) != 0 ||
                json_integer_value(json_object_get(c, "prompt")) != (json_int_t)n)
                continue;
            sit(&t[n], c);
            start(&t[n]);
            s[n] = t[n].s;
            greedy[n++] = json_object_get(c, "greedy");
        }
        assert_int_equal(n, 3);
        for (size_t step = 0; step < GREEDY; step++) {
            int32_t ids[3];
            for (size_t b = 0; b < 3; b++) {
                ids[b] = pl_logits_argmax(step ? logits + b * vocab : t[b].logits, vocab);
                assert_int_equal(ids[b], json_integer_value(json_array_get(greedy[b], step)));
            }
            ok(pl_sessions_decode(s, ids, 3, logits, &err));
        }
        for (size_t b = 0; b < 3; b++)
            stand_up(&t[b]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(alone), cmocka_unit_test(together)};
    const struct pl_backend *b = pl_backend_by_name(NULL);
    const struct pl_device_opts o = {.threads = 1};
    struct pl_device *d = NULL;
    struct pl_err why = {""};

    if (b->open(&o, &d, &why)) {
        printf("SKIP: %s\n", why.text);
        return 77;
    }
    b->close(d);
    return cmocka_run_group_tests(tests, load, unload);
}
