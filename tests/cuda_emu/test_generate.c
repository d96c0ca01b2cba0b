/* Tokens that a GPU makes by itself: those of decodes one by one, greedy and drawn, up to an end of the text or not. On the emulated one:
 * with one wait for any number of them, or for each few. */
#include "fixture.h"

#include "spec_decode/accept.h"

#ifdef PL_EMULATED
#include <cuda_runtime_api.h>
#endif

#define PROMPT 21
#define N 8

static struct pl_model *load(const char *name, const char *device, bool deterministic)
{
    char path[256];
    const struct pl_model_opts o = {.where = {.deterministic = deterministic}, .device = device, .dtype = PL_DT_AUTO};
    struct pl_model *m = NULL;

    snprintf(path, sizeof(path), GOLDENS "/%s", name);
    ok(pl_model_load(path, &o, &m, &err));
    return m;
}

static struct pl_session *start(struct pl_model *m, const struct pl_session_opts *o)
{
    const struct pl_arch *a = &pl_model_info(m)->arch;
    int32_t ids[PROMPT];
    struct pl_session *s = NULL;

    for (size_t i = 0; i < PROMPT; i++)
        ids[i] = (int32_t)((i * 7 + i * i % 11 + 3) % (size_t)a->vocab);
    ok(pl_session_create(m, o, &s, &err));
    if (a->encoder_layers)
        ok(pl_session_encode(s, &(struct pl_source){.ids = ids, .n = PROMPT}, NULL, &err));
    ok(pl_session_prefill(s, &(struct pl_prompt){.ids = a->encoder_layers ? &a->decoder_start : ids, .n = a->encoder_layers ? 1 : PROMPT},
                          NULL, &err));
    return s;
}

/* The tokens one by one; next: the logits behind them. */
static void one_by_one(struct pl_session *s, const struct pl_accept_rule *rule, int32_t first, size_t n, struct pl_picked *out, float *next)
{
    const size_t vocab = (size_t)pl_model_info(pl_session_model(s))->arch.vocab;
    int32_t id = first;

    for (size_t i = 0; i < n; i++) {
        ok(pl_session_decode(s, id, next, &err));
        ok(pl_accept_one(rule, next, vocab, i, &id, &err));
        out[i] = (struct pl_picked){id, id};
        for (size_t e = 0; e < rule->n_masked; e++) {
            const int32_t end = rule->masked[e];
            if (next[end] > next[id] || (next[end] == next[id] && end < id))
                out[i].all = end;
        }
    }
    ok(pl_session_decode(s, id, next, &err));
}

static void check(const char *name, const char *reference, double temperature, bool deterministic)
{
    struct pl_model *m = load(name, "cuda", deterministic), *other = load(name, reference, deterministic);
    const size_t vocab = (size_t)pl_model_info(m)->arch.vocab;
    const struct pl_session_opts o = {.max_tokens = PROMPT + N + 1, .max_source = PROMPT, .max_verify = 1};
    struct pl_session *s = start(m, &o), *r = start(other, &o);
    float *p = calloc(2 * vocab, sizeof(*p)), *a = calloc(vocab, sizeof(*a)), *b = calloc(vocab, sizeof(*b));
    const int32_t ends[2] = {5, 17};
    const struct pl_accept_rule rule = {.temperature = temperature, .key = 99, .masked = ends, .n_masked = 2, .p = p};
    double draws[N];
    const struct pl_generation g = {.first = 4, .n = N, .temperature = temperature, .draws = draws, .ends = ends, .n_ends = 2};
    struct pl_generated got[N];
    struct pl_picked want[N];

    for (size_t i = 0; i < N; i++)
        draws[i] = pl_accept_uniform(&rule, i, 0);
    one_by_one(r, &rule, g.first, N, want, b);
    assert_true(pl_session_generates(s));
    ok(pl_session_generate(s, &g, got, &err));
    for (size_t i = 0; i < N; i++) {
        if (got[i].token.id != want[i].id || (got[i].token.all != got[i].token.id) != (want[i].all != want[i].id))
            fail_msg("%s at temperature %g: token %zu is %d (%d), one by one %d (%d)", name, temperature, i, got[i].token.id,
                     got[i].token.all, want[i].id, want[i].all);
        assert_true(!i || got[i].ns >= got[i - 1].ns);
    }
    ok(pl_session_decode(s, got[N - 1].token.id, a, &err));
    assert_int_equal(pl_session_len(s), pl_session_len(r));
    assert_int_equal(pl_session_kv_len(s, 0), pl_session_kv_len(r, 0));
    if (strcmp(reference, "cuda") == 0)
        assert_memory_equal(a, b, vocab * sizeof(*a));
    ok(pl_session_rollback(s, 1, &err));
    pl_session_free(s);
    pl_session_free(r);
    pl_model_free(m);
    pl_model_free(other);
    free(p);
    free(a);
    free(b);
}

static void the_tokens_of_decodes(void **state)
{
    static const char *const models[] = {"plain", "tied_bf16", "families/mistral_window", "families/gpt2", "families/t5", "families/qwen3"};

    (void)state;
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        check(models[i], "cuda", 0, i == 1);
        check(models[i], "cuda", 0.9, i == 2);
    }
    check("plain", "cpu", 0, false);
    check("plain", "cpu", 1.3, false);
}

#define MOST 20

/* The tokens up to `stop`, against decodes on another session, whose counts are the same, too. */
static void check_until(struct pl_model *m, const struct pl_session_opts *o, const struct pl_generated *all, int32_t stop, size_t want)
{
    const struct pl_backend *b = pl_model_backend(m);
    const size_t vocab = (size_t)pl_model_info(m)->arch.vocab;
    const struct pl_generation g = {.first = 4, .n = MOST};
    const size_t ahead = (want + PL_GENERATE_AHEAD - 1) / PL_GENERATE_AHEAD * PL_GENERATE_AHEAD;
    struct pl_session *s = start(m, o), *r = start(m, o);
    float *next = calloc(2 * vocab, sizeof(*next));
    struct pl_generated got[MOST];
    size_t made = 0, used = 0;

    const struct pl_device_work before = b->work(pl_model_device(m));
    ok(pl_session_generate_until(s, &g, &stop, 1, got, &made, &used, &err));
    assert_int_equal(used, want);
    assert_int_equal(made, ahead < MOST ? ahead : MOST);
    for (size_t i = 0; i < made; i++) {
        assert_int_equal(got[i].token.id, all[i].token.id);
        assert_true(!i || (got[i].ns >= got[i - 1].ns && got[i].work.bytes > got[i - 1].work.bytes));
    }
    const struct pl_device_work then = b->work(pl_model_device(m));
    assert_int_equal(then.flops, got[made - 1].work.flops);
    for (size_t i = 0; i < used; i++)
        ok(pl_session_decode(r, i ? got[i - 1].token.id : g.first, next, &err));
    const struct pl_device_work now = b->work(pl_model_device(m));
    assert_int_equal(got[used - 1].work.flops - before.flops, now.flops - then.flops);
    assert_int_equal(got[used - 1].work.bytes - before.bytes, now.bytes - then.bytes);
    /* nothing stands behind the stop */
    assert_int_equal(pl_session_len(s), pl_session_len(r));
    ok(pl_session_decode(s, 7, next, &err));
    ok(pl_session_decode(r, 7, next + vocab, &err));
    assert_memory_equal(next, next + vocab, vocab * sizeof(*next));
    free(next);
    pl_session_free(s);
    pl_session_free(r);
}

static void up_to_an_end(void **state)
{
    static const char *const models[] = {"plain", "families/mistral_window"};
    static const size_t at[] = {0, 6, 7, 8, 15, MOST - 1};

    (void)state;
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        struct pl_model *m = load(models[i], "cuda", false);
        const struct pl_session_opts o = {.max_tokens = PROMPT + MOST + 1, .max_verify = 1};
        struct pl_session *s = start(m, &o);
        struct pl_generated all[MOST];
        ok(pl_session_generate(s, &(struct pl_generation){.first = 4, .n = MOST}, all, &err));
        pl_session_free(s);
        for (size_t k = 0; k < sizeof(at) / sizeof(at[0]); k++) {
            size_t first = 0;
            while (all[first].token.id != all[at[k]].token.id)
                first++;
            check_until(m, &o, all, all[first].token.id, first + 1);
        }
        check_until(m, &o, all, -5, MOST);
        pl_model_free(m);
    }
}

static void times(void **state)
{
    const struct pl_generated made[4] = {{.ns = 1000}, {.ns = 1500}, {.ns = 1400}, {.ns = 2500}};
    int64_t at[4];

    (void)state;
    pl_generated_times(made, 4, 9000, 7600, at);
    assert_int_equal(at[0], 7600); /* not before what was there already */
    assert_int_equal(at[1], 8000);
    assert_int_equal(at[2], 8000); /* nor before the one before */
    assert_int_equal(at[3], 9000);
}

#ifdef PL_EMULATED
/* Waits and copies to the host that n tokens take. */
static struct pl_emu_asked asked_of(struct pl_session *s, size_t n, double temperature)
{
    static struct pl_generated out[64];
    static double draws[64];
    const struct pl_generation g = {.first = 4, .n = n, .temperature = temperature, .draws = draws};
    const struct pl_emu_asked before = pl_emu_asked;

    for (size_t i = 0; i < n; i++)
        draws[i] = (double)i / (double)n;
    ok(pl_session_generate(s, &g, out, &err));
    const struct pl_emu_asked after = pl_emu_asked;
    ok(pl_session_rollback(s, n, &err));
    return (struct pl_emu_asked){.waits = after.waits - before.waits, .to_host = after.to_host - before.to_host, .to_device = after.to_device - before.to_device};
}

static void nothing_is_waited_for(void **state)
{
    struct pl_model *m = load("plain", "cuda", false);
    const struct pl_session_opts o = {.max_tokens = PROMPT + 13, .max_verify = 1};
    struct pl_session *s = start(m, &o);
    float *logits = calloc((size_t)pl_model_info(m)->arch.vocab, sizeof(*logits));

    (void)state;
    asked_of(s, 1, 0); /* for the prompt, whose logits nobody asked for */
    for (int i = 0; i < 2; i++) {
        for (size_t n = 1; n <= 12; n += 11) {
            const struct pl_emu_asked w = asked_of(s, n, i ? 0.7 : 0);
            assert_int_equal(w.waits, 1); /* the end */
            assert_int_equal(w.to_device, 2); /* the first step, the draws */
            assert_int_equal(w.to_host, 1);
        }
    }
    /* where a token may be the last, one for each few */
    for (size_t n = 1; n <= 12; n++) {
        static struct pl_generated out[12];
        const int32_t none = -5;
        size_t made, used;
        const long was = pl_emu_asked.waits;
        ok(pl_session_generate_until(s, &(struct pl_generation){.first = 4, .n = n}, &none, 1, out, &made, &used, &err));
        assert_int_equal(pl_emu_asked.waits - was, (n + PL_GENERATE_AHEAD - 1) / PL_GENERATE_AHEAD);
        ok(pl_session_rollback(s, n, &err));
    }
    /* the counters can count: a decode by itself waits and copies */
    const struct pl_emu_asked before = pl_emu_asked;
    ok(pl_session_decode(s, 4, logits, &err));
    assert_int_equal(pl_emu_asked.waits - before.waits, 1);
    assert_int_equal(pl_emu_asked.to_host - before.to_host, 1);
    free(logits);
    pl_session_free(s);
    pl_model_free(m);
}

#endif

static void bad_questions(void **state)
{
    struct pl_model *m = load("plain", "cuda", false), *cpu = load("plain", "cpu", false);
    const struct pl_session_opts o = {.max_tokens = PROMPT + 4, .max_verify = 1};
    struct pl_session *s = start(m, &o), *c = start(cpu, &o);
    struct pl_generated out[8];

    (void)state;
    fails(PL_ERANGE, "the session holds", pl_session_generate(s, &(struct pl_generation){.first = 4, .n = 5}, out, &err));
    fails(PL_EUSAGE, "0 tokens", pl_session_generate(s, &(struct pl_generation){.first = 4}, out, &err));
    fails(PL_EUSAGE, "a draw for each", pl_session_generate(s, &(struct pl_generation){.first = 4, .n = 2, .temperature = 1}, out, &err));
    assert_false(pl_session_generates(c));
    fails(PL_EUNSUPPORTED, "cpu makes no tokens", pl_session_generate(c, &(struct pl_generation){.first = 4, .n = 2}, out, &err));
    pl_session_free(s);
    pl_session_free(c);
    pl_model_free(m);
    pl_model_free(cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tokens_of_decodes),
        cmocka_unit_test(up_to_an_end),
        cmocka_unit_test(times),
#ifdef PL_EMULATED
        cmocka_unit_test(nothing_is_waited_for),
#endif
        cmocka_unit_test(bad_questions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
