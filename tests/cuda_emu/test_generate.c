/* Tokens that a GPU makes by itself: those of decodes one by one, greedy and drawn, up to an end of the text or not. On the emulated one:
 * with one wait for any number of them, or for each few. */
#include "fixture.h"

#include "spec_decode/accept.h"
#include "spec_decode/draft.h"

#include <math.h>

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
    const struct pl_generation g = {.ids = (const int32_t[]){4}, .n_ids = 1, .n = N, .temperature = temperature, .draws = draws, .ends = ends, .n_ends = 2};
    struct pl_generated got[N];
    struct pl_picked want[N];

    for (size_t i = 0; i < N; i++)
        draws[i] = pl_accept_uniform(&rule, i, 0);
    one_by_one(r, &rule, g.ids[0], N, want, b);
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
    const struct pl_generation g = {.ids = (const int32_t[]){4}, .n_ids = 1, .n = MOST};
    const size_t ahead = (want + PL_GENERATE_AHEAD - 1) / PL_GENERATE_AHEAD * PL_GENERATE_AHEAD;
    struct pl_session *s = start(m, o), *r = start(m, o);
    float *next = calloc(2 * vocab, sizeof(*next));
    struct pl_generated got[MOST];
    struct pl_device_work sum = {0}, work = {0}; /* of the used, of all */
    size_t made = 0, used = 0;

    const struct pl_device_work before = b->work(pl_model_device(m));
    ok(pl_session_generate_until(s, &g, &stop, 1, got, &made, &used, &err));
    assert_int_equal(used, want);
    assert_int_equal(made, ahead < MOST ? ahead : MOST);
    for (size_t i = 0; i < made; i++) {
        assert_int_equal(got[i].token.id, all[i].token.id);
        assert_true(!i || (got[i].ns >= got[i - 1].ns && got[i].work.bytes >= got[i - 1].work.bytes));
        if (i < used)
            sum = (struct pl_device_work){sum.flops + got[i].work.flops, sum.bytes + got[i].work.bytes + got[i].shared_bytes};
        work = (struct pl_device_work){work.flops + got[i].work.flops, work.bytes + got[i].work.bytes + got[i].shared_bytes};
    }
    const struct pl_device_work then = b->work(pl_model_device(m));
    assert_int_equal(then.flops - before.flops, work.flops);
    assert_int_equal(then.bytes - before.bytes, work.bytes);
    for (size_t i = 0; i < used; i++)
        ok(pl_session_decode(r, i ? got[i - 1].token.id : g.ids[0], next, &err));
    const struct pl_device_work now = b->work(pl_model_device(m));
    assert_int_equal(sum.flops, now.flops - then.flops);
    assert_int_equal(sum.bytes, now.bytes - then.bytes);
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
        ok(pl_session_generate(s, &(struct pl_generation){.ids = (const int32_t[]){4}, .n_ids = 1, .n = MOST}, all, &err));
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

#define MANY 70 /* more than there is room for logits of at once */
#define TURNS 4

/* Sequences of unlike lengths, as many as asked for. */
static void start_many(struct pl_model *m, size_t n, struct pl_session **s)
{
    const struct pl_arch *a = &pl_model_info(m)->arch;
    const struct pl_session_opts o = {.max_tokens = PROMPT + TURNS + 8, .max_source = PROMPT, .max_verify = 256, .taps = (int[]){PL_TAP_FINAL}, .n_taps = n == 3};
    int32_t ids[PROMPT];

    for (size_t k = 0; k < n; k++) {
        for (size_t i = 0; i < PROMPT; i++)
            ids[i] = (int32_t)((i * 7 + k * 13 + 3) % (size_t)a->vocab);
        ok(pl_session_create(m, &o, &s[k], &err));
        if (a->encoder_layers)
            ok(pl_session_encode(s[k], &(struct pl_source){.ids = ids, .n = PROMPT - k % 5}, NULL, &err));
        ok(pl_session_prefill(s[k], &(struct pl_prompt){.ids = a->encoder_layers ? &a->decoder_start : ids, .n = a->encoder_layers ? 1 : PROMPT - k % 5},
                              NULL, &err));
    }
}

/* Several sequences together: the tokens, counts and KV of joint steps, each waited for. */
static void check_together(struct pl_model *m, size_t n, double temperature)
{
    const struct pl_backend *backend = pl_model_backend(m);
    const size_t vocab = (size_t)pl_model_info(m)->arch.vocab;
    const struct pl_accept_rule rule = {.temperature = temperature, .key = 5, .p = calloc(2 * vocab, sizeof(float))};
    struct pl_session *s[MANY], *r[MANY];
    static struct pl_generated got[TURNS * MANY];
    float *logits = calloc(MANY * vocab, sizeof(*logits)), *other = calloc(MANY * vocab, sizeof(*other));
    double draws[TURNS * MANY];
    int32_t ids[MANY];
    struct pl_device_work sum = {0};
    const struct pl_generation g = {.ids = ids, .n_ids = n, .n = TURNS, .temperature = temperature, .draws = draws};

    start_many(m, n, s);
    start_many(m, n, r);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)i + 1;
    for (size_t i = 0; i < TURNS * n; i++)
        draws[i] = pl_accept_uniform(&rule, i, 0);
#ifdef PL_EMULATED
    cudaDeviceSynchronize(); /* the prompts' messages are gone */
    const struct pl_emu_asked asked = pl_emu_asked;
#endif
    ok(pl_sessions_generate(s, n, &g, got, &err));
#ifdef PL_EMULATED
    assert_in_range(pl_emu_asked.waits - asked.waits, 1, 2); /* the end; the prompts' logits nobody asked for */
    assert_int_equal(pl_emu_asked.to_device - asked.to_device, 2);
    assert_int_equal(pl_emu_asked.to_host - asked.to_host, 1);
#endif
    const struct pl_device_work before = backend->work(pl_model_device(m));
    for (size_t t = 0; t < TURNS; t++) {
        ok(pl_sessions_decode(r, ids, n, logits, &err));
        for (size_t i = 0; i < n; i++) {
            const struct pl_generated *p = &got[t * n + i];
            int32_t want = -1;
            ok(pl_accept_one(&rule, logits + i * vocab, vocab, t * n + i, &want, &err));
            if (p->token.id != want)
                fail_msg("sequence %zu of %zu at temperature %g: token %zu is %d, by itself %d", i, n, temperature, t, p->token.id, want);
            ids[i] = want;
            sum = (struct pl_device_work){sum.flops + p->work.flops, sum.bytes + p->work.bytes + (i ? 0 : p->shared_bytes)};
            assert_int_equal(p->shared_bytes, got[t * n].shared_bytes);
        }
    }
    const struct pl_device_work after = backend->work(pl_model_device(m));
    assert_int_equal(sum.flops, after.flops - before.flops);
    assert_int_equal(sum.bytes, after.bytes - before.bytes);
    ok(pl_sessions_decode(s, ids, n, other, &err));
    ok(pl_sessions_decode(r, ids, n, logits, &err));
    assert_memory_equal(other, logits, n * vocab * sizeof(*logits));
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(pl_session_len(s[i]), pl_session_len(r[i]));
        pl_session_free(s[i]);
        pl_session_free(r[i]);
    }
    free(logits);
    free(other);
    free(rule.p);
}

static void several_together(void **state)
{
    static const char *const models[] = {"plain", "tied_bf16", "families/mistral_window", "families/t5"};

    (void)state;
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        struct pl_model *m = load(models[i], "cuda", i == 1);
        check_together(m, 3, 0.8);
        check_together(m, i ? 2 : 8, 0);
#ifndef __SANITIZE_ADDRESS__ /* half a minute there */
        if (!i)
            check_together(m, MANY, 0.8);
#endif
        pl_model_free(m);
    }
}

/* Several ids that go in first are read in one go; the taps hold them all. */
static void several_first(void **state)
{
    static const size_t firsts[] = {2, 8, 11};
    struct pl_model *m = load("plain", "cuda", true);
    const size_t vocab = (size_t)pl_model_info(m)->arch.vocab, hidden = (size_t)pl_model_info(m)->arch.hidden;
    float *logits = calloc(16 * vocab, sizeof(*logits)), *x = calloc(2 * 16 * hidden, sizeof(*x));
    int32_t ids[16];

    (void)state;
    for (int tapped = 0; tapped < 2; tapped++)
        for (size_t i = 0; i < 3; i++) {
            const size_t k = firsts[i];
            const struct pl_session_opts o = {.max_tokens = PROMPT + 16, .max_verify = 16, .taps = (int[]){PL_TAP_FINAL}, .n_taps = (size_t)tapped};
            struct pl_session *s = start(m, &o), *r = start(m, &o);
            struct pl_generated got[TURNS];
            for (size_t j = 0; j < k; j++)
                ids[j] = (int32_t)(j * 5 + 1);
            ok(pl_session_generate(s, &(struct pl_generation){.ids = ids, .n_ids = k, .n = TURNS}, got, &err));
            ok(pl_session_verify(r, ids, k, logits, &err));
            if (tapped)
                ok(pl_session_hidden_copy(r, 0, 0, k, x, &err));
            for (size_t t = 0; t < TURNS; t++) {
                const int32_t want = pl_logits_argmax(logits + (t ? 0 : k - 1) * vocab, vocab);
                assert_int_equal(got[t].token.id, want);
                if (t + 1 == TURNS)
                    break;
                ok(pl_session_decode(r, want, logits, &err));
                if (tapped)
                    ok(pl_session_hidden_copy(r, 0, 0, 1, x + (k + t) * hidden, &err));
            }
            assert_int_equal(pl_session_len(s), pl_session_len(r));
            if (tapped) {
                assert_int_equal(pl_session_hidden_rows(s, 0), k + TURNS - 1);
                ok(pl_session_hidden_copy(s, 0, 0, k + TURNS - 1, x + 16 * hidden, &err));
                assert_memory_equal(x, x + 16 * hidden, (k + TURNS - 1) * hidden * sizeof(*x));
            }
            pl_session_free(s);
            pl_session_free(r);
        }
    free(logits);
    free(x);
    pl_model_free(m);
}

#define GAMMA 5

/* Two drafts of a model, behind one new token and behind two; where: where they end. waits: of the second one. */
static void draft_twice(struct pl_model *m, double temperature, bool tapped, struct pl_draft *out, long *waits, long *copies)
{
    const struct pl_arch *a = &pl_model_info(m)->arch;
    const struct pl_session_opts so = {.max_tokens = PROMPT + 40, .max_verify = 32, .taps = (int[]){PL_TAP_FINAL}, .n_taps = tapped};
    struct pl_draft_model_opts o = {.max_text = 30, .temperature = temperature, .key = 3, .tap = tapped ? 0 : -1, .lead = true};
    int32_t ids[PROMPT + 8] = {0};
    struct pl_verified text = {.ids = ids, .n_prompt = PROMPT, .n = 1};
    void *d = NULL;

    for (size_t i = 0; i < PROMPT; i++)
        ids[i] = (int32_t)((i * 7 + 3) % (size_t)a->vocab);
    ids[PROMPT] = 9;
    ok(pl_session_create(m, &so, &o.session, &err));
    ok(pl_draft_model_new(&o, &d, &err));
    ok(pl_draft_init(out, GAMMA, tapped ? (size_t)a->hidden : 0, temperature > 0 ? (size_t)a->vocab : 0, &err));
    ok(pl_draft_model.begin(d, &(struct pl_prompt){.ids = ids, .n = PROMPT}, 1, &err));
    ok(pl_draft_model.draft(d, &text, GAMMA, out, &err));
    assert_int_equal(out->n, GAMMA);
    ids[PROMPT + 1] = out->ids[0]; /* the first two are taken, then another one than the third; the draft's last was never fed */
    ids[PROMPT + 2] = out->ids[1];
    ids[PROMPT + 3] = (out->ids[2] + 1) % a->vocab;
    text.n = 4;
#ifdef PL_EMULATED
    const struct pl_emu_asked before = pl_emu_asked;
#endif
    ok(pl_draft_model.draft(d, &text, GAMMA, out, &err));
#ifdef PL_EMULATED
    *waits = pl_emu_asked.waits - before.waits;
    *copies = pl_emu_asked.to_host - before.to_host;
#else
    *waits = *copies = 0;
#endif
    assert_int_equal(out->n, GAMMA);
    pl_draft_model.free(d);
    pl_session_free(o.session);
}

static void near(const float *a, const float *b, size_t n, float far)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(a[i] - b[i]) <= far))
            fail_msg("number %zu is %g, expected %g", i, (double)a[i], (double)b[i]);
}

/* A round's draft is what the CPU drafts step by step, its probabilities and states, too, with one wait (one more for states that the host wants). */
static void drafts(void **state)
{
    struct pl_model *m[2] = {load("plain", "cuda", false), load("plain", "cpu", false)};
    const size_t vocab = (size_t)pl_model_info(m[0])->arch.vocab, hidden = (size_t)pl_model_info(m[0])->arch.hidden;

    (void)state;
    for (int i = 0; i < 4; i++) {
        const double temperature = i / 2 ? 0.9 : 0;
        struct pl_draft got = {0}, want = {0};
        long waits, copies, none;
        draft_twice(m[0], temperature, i % 2, &got, &waits, &copies);
        draft_twice(m[1], temperature, i % 2, &want, &none, &none);
        for (size_t k = 0; k < GAMMA; k++)
            assert_int_equal(got.ids[k], want.ids[k]);
        assert_int_equal(got.has_q, i / 2);
        if (i / 2)
            near(got.q, want.q, GAMMA * vocab, 1e-4f);
        if (i % 2)
            near(got.states, want.states, GAMMA * hidden, 1e-3f);
#ifdef PL_EMULATED
        assert_int_equal(waits, 1 + i % 2);
        assert_int_equal(copies, 1 + i % 2 + i / 2);
#endif
        pl_draft_release(&got);
        pl_draft_release(&want);
    }
    pl_model_free(m[0]);
    pl_model_free(m[1]);
}

/* Verifications and trees of which only the choices come back. */
static void choices(void **state)
{
    struct pl_model *m = load("plain", "cuda", true);
    const size_t vocab = (size_t)pl_model_info(m)->arch.vocab;
    const struct pl_session_opts o = {.max_tokens = PROMPT + 80, .max_verify = 70};
    static const size_t rows[] = {1, 8, 70};
    const int32_t ends[2] = {5, 17};
    struct pl_session *s = start(m, &o);
    float *logits = calloc(70 * vocab, sizeof(*logits));
    struct pl_picked got[70];
    int32_t ids[70], parents[70];

    (void)state;
    for (int i = 0; i < 70; i++) {
        ids[i] = (i * 11 + 2) % (int32_t)vocab;
        parents[i] = (i - 1) / 2 - (i == 0);
    }
    for (int tree = 0; tree < 2; tree++)
        for (size_t i = 0; i < 3; i++) {
            const struct pl_prompt p = {.ids = ids, .n = rows[i]};
            if (tree) {
                ok(pl_session_tree(s, &p, parents, logits, &err));
                ok(pl_session_keep_path(s, NULL, 0, &err));
            } else {
                ok(pl_session_verify(s, ids, rows[i], logits, &err));
                ok(pl_session_rollback(s, rows[i], &err));
            }
#ifdef PL_EMULATED
            const struct pl_emu_asked before = pl_emu_asked;
#endif
            ok(tree ? pl_session_tree_pick(s, &p, parents, ends, 2, got, &err) : pl_session_verify_pick(s, ids, rows[i], ends, 2, got, &err));
#ifdef PL_EMULATED
            assert_int_equal(pl_emu_asked.waits - before.waits, 1);
            assert_int_equal(pl_emu_asked.bytes_to_host - before.bytes_to_host, rows[i] * sizeof(*got));
#endif
            if (tree)
                ok(pl_session_keep_path(s, NULL, 0, &err));
            else
                ok(pl_session_rollback(s, rows[i], &err));
            for (size_t r = 0; r < rows[i]; r++) {
                assert_int_equal(got[r].all, pl_logits_argmax(logits + r * vocab, vocab));
                assert_int_equal(got[r].id, pl_pick(logits + r * vocab, vocab, ends, 2));
            }
        }
    free(logits);
    pl_session_free(s);
    pl_model_free(m);
}

static void times(void **state)
{
    const struct pl_generated made[4] = {{.ns = 1000}, {.ns = 1500}, {.ns = 1400}, {.ns = 2500}};
    int64_t at[4];

    (void)state;
    pl_generated_times(made, 1, 4, 9000, 7600, at);
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
    const struct pl_generation g = {.ids = (const int32_t[]){4}, .n_ids = 1, .n = n, .temperature = temperature, .draws = draws};
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
        ok(pl_session_generate_until(s, &(struct pl_generation){.ids = (const int32_t[]){4}, .n_ids = 1, .n = n}, &none, 1, out, &made, &used, &err));
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

/* A launch that failed in the middle: nothing is in the caches, and the same question is answered as if nothing had been. */
static void stopped_midway(void **state)
{
    struct pl_model *m = load("plain", "cuda", false);
    struct pl_session *s[3], *r[3];
    const int32_t ids[3] = {4, 5, 6};
    const struct pl_generation g = {.ids = ids, .n_ids = 3, .n = TURNS};
    struct pl_generated want[3 * TURNS], got[3 * TURNS];

    (void)state;
    start_many(m, 3, s);
    start_many(m, 3, r);
    ok(pl_sessions_generate(r, 3, &g, want, &err));
    for (int at = 1; at < 40; at += 6) {
        pl_emu_stop_launch = at;
        fails(PL_EDEVICE, "illegal", pl_sessions_generate(s, 3, &g, got, &err));
        for (size_t i = 0; i < 3; i++)
            assert_int_equal(pl_session_kv_len(s[i], 0), PROMPT - i);
    }
    ok(pl_sessions_generate(s, 3, &g, got, &err));
    for (size_t i = 0; i < 3 * TURNS; i++)
        assert_int_equal(got[i].token.id, want[i].token.id);
    for (size_t i = 0; i < 3; i++) {
        pl_session_free(s[i]);
        pl_session_free(r[i]);
    }
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
    fails(PL_ERANGE, "the session holds", pl_session_generate(s, &(struct pl_generation){.ids = (const int32_t[]){4}, .n_ids = 1, .n = 5}, out, &err));
    fails(PL_EUSAGE, "0 tokens", pl_session_generate(s, &(struct pl_generation){.ids = (const int32_t[]){4}, .n_ids = 1}, out, &err));
    fails(PL_EUSAGE, "a draw for each", pl_session_generate(s, &(struct pl_generation){.ids = (const int32_t[]){4}, .n_ids = 1, .n = 2, .temperature = 1}, out, &err));
    fails(PL_EUSAGE, "2 tokens go into 3 sequences", pl_sessions_generate((struct pl_session *[]){s, s, s}, 3, &(struct pl_generation){.ids = (const int32_t[]){4, 5}, .n_ids = 2, .n = 2}, out, &err));
    fails(PL_EUSAGE, "the same", pl_sessions_generate((struct pl_session *[]){s, s}, 2, &(struct pl_generation){.ids = (const int32_t[]){4, 5}, .n_ids = 2, .n = 2}, out, &err));
    assert_false(pl_session_generates(c));
    fails(PL_EUNSUPPORTED, "cpu makes no tokens", pl_session_generate(c, &(struct pl_generation){.ids = (const int32_t[]){4}, .n_ids = 1, .n = 2}, out, &err));
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
        cmocka_unit_test(several_together),
        cmocka_unit_test(several_first),
        cmocka_unit_test(drafts),
        cmocka_unit_test(choices),
        cmocka_unit_test(times),
#ifdef PL_EMULATED
        cmocka_unit_test(nothing_is_waited_for),
        cmocka_unit_test(stopped_midway),
#endif
        cmocka_unit_test(bad_questions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
