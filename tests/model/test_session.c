#include "fixture.h"

#include <math.h>

#define PROMPT 100
#define STEPS 33

static const char *const models[] = {"plain",      "head_dim",    "mqa_sharded", "tied_bf16",
                                     "llama3_f16", "linear_bias", "mistral"};
static const enum pl_dtype kvs[] = {PL_DT_F32, PL_DT_F16, PL_DT_BF16};

/* What one way of running gives: the prompt's last logits, then those of each further token. */
struct trace {
    float *logits; /* [STEPS + 1, vocab] */
    size_t vocab;
    int32_t prompt[PROMPT], next[STEPS];
};

static void trace_init(struct trace *t, int32_t vocab)
{
    t->vocab = (size_t)vocab;
    t->logits = calloc((STEPS + 1) * t->vocab, sizeof(float));
    assert_non_null(t->logits);
    make_ids(t->prompt, PROMPT, 5, vocab);
    make_ids(t->next, STEPS, 6, vocab);
}

static struct pl_session *session_for(struct pl_model *m, enum pl_dtype kv)
{
    return new_session(m, &(struct pl_session_opts){
                              .max_tokens = PROMPT + STEPS + 1, .max_verify = 64, .kv_dtype = kv});
}

/* The reference: one thread, the prompt in one go, then decode by decode. */
static void run_plain(const char *name, const char *isa, enum pl_dtype kv, int threads,
                      struct trace *t)
{
    struct pl_model *m = load_model(name, threads, isa);
    struct pl_session *s = session_for(m, kv);

    trace_init(t, pl_model_info(m)->arch.vocab);
    prefill(s, t->prompt, PROMPT, t->logits);
    for (size_t i = 0; i < STEPS; i++)
        ok(pl_session_decode(s, t->next[i], t->logits + (i + 1) * t->vocab, &err));
    pl_session_free(s);
    pl_model_free(m);
}

static void same_bits(const char *what, const char *name, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof(*a)))
            fail_msg("%s, %s: element %zu is %.9g, expected %.9g", name, what, i, (double)a[i],
                     (double)b[i]);
}

/* Every cut of prompt and continuation into prefills, verifies and rollbacks gives the reference's
 * bits. */
static void check_cuts(const char *name, struct pl_model *m, enum pl_dtype kv,
                       const struct trace *ref)
{
    static const size_t cuts[] = {1, 7, 64, 99};
    static const size_t ks[] = {1, 2, 5, 12, 13, 32};
    size_t v = ref->vocab;
    float *got = calloc((STEPS + 1) * v, sizeof(*got));
    struct pl_session *s = session_for(m, kv);

    for (size_t c = 0; c < 4; c++) {
        pl_session_reset(s);
        for (size_t at = 0; at < PROMPT; at += cuts[c])
            prefill(s, ref->prompt + at, PROMPT - at < cuts[c] ? PROMPT - at : cuts[c], got);
        same_bits("cut prompt", name, got, ref->logits, v);
    }
    for (size_t i = 0; i < sizeof(ks) / sizeof(ks[0]); i++) {
        size_t k = ks[i];
        ok(pl_session_verify(s, ref->next, k, got, &err));
        same_bits("verify", name, got, ref->logits + v, k * v);
        assert_int_equal(pl_session_len(s), PROMPT + k);
        /* other tokens verified, then forgotten, leave no trace */
        ok(pl_session_rollback(s, k, &err));
        ok(pl_session_verify(s, ref->prompt, k, got, &err));
        ok(pl_session_rollback(s, k - 1, &err));
        ok(pl_session_rollback(s, 1, &err));
        ok(pl_session_decode(s, ref->next[0], got, &err));
        same_bits("decode after rollback", name, got, ref->logits + v, v);
        ok(pl_session_verify(s, ref->next + 1, k < STEPS - 1 ? k : STEPS - 1, got, &err));
        same_bits("verify after decode", name, got, ref->logits + 2 * v,
                  (k < STEPS - 1 ? k : STEPS - 1) * v);
        ok(pl_session_rollback(s, 1 + (k < STEPS - 1 ? k : STEPS - 1), &err));
    }
    free(got);
    pl_session_free(s);
}

/* Every instruction set on the first two models, all KV types on the second. */
static void test_invariance(void **state)
{
    const char *isa;

    (void)state;
    for (size_t n = 0; n < sizeof(models) / sizeof(models[0]); n++) {
        for (size_t i = 0; next_isa(&i, &isa);) {
            for (size_t k = 0; k < (n == 1 ? 3 : i == 1 && n > 1 ? 0 : 1); k++) {
                struct trace ref;
                run_plain(models[n], isa, kvs[k], 1, &ref);
                assert_true(isfinite(ref.logits[0]));
                for (int threads = 1; threads <= 4; threads += threads == 1 ? 1 : 2) {
                    struct pl_model *m = load_model(models[n], threads, isa);
                    check_cuts(models[n], m, kvs[k], &ref);
                    pl_model_free(m);
                }
                free(ref.logits);
            }
        }
    }
}

/* All rows' logits equal those of the prompts that end there; more rows than one forward takes. */
static void test_all_logits(void **state)
{
    struct pl_model *m = load_model("plain", 2, NULL);
    struct pl_session *s = new_session(m, NULL);
    size_t v = (size_t)pl_model_info(m)->arch.vocab;
    int32_t ids[300];
    float *all = malloc(300 * v * sizeof(*all)), *one = malloc(v * sizeof(*one));

    (void)state;
    make_ids(ids, 300, 1, (int32_t)v);
    ok(pl_session_prefill(s, &(struct pl_prompt){.ids = ids, .n = 300, .all_logits = true}, all,
                          &err));
    for (size_t n = 1; n <= 300; n += 37) {
        pl_session_reset(s);
        prefill(s, ids, n, one);
        same_bits("all logits", "plain", one, all + (n - 1) * v, v);
    }
    free(all);
    free(one);
    pl_session_free(s);
    pl_model_free(m);
}

static void test_embeddings(void **state)
{
    struct pl_model *m = load_model("tied_bf16", 2, NULL);
    const struct pl_arch *a = &pl_model_info(m)->arch;
    struct pl_session *s = new_session(m, NULL);
    float *x = malloc(70 * (size_t)a->hidden * sizeof(*x));
    float want[97], got[97];
    int32_t ids[70];

    (void)state;
    assert_int_equal(a->vocab, 97);
    make_ids(ids, 70, 2, a->vocab);
    prefill(s, ids, 70, want);
    ok(pl_model_embed(m, ids, 70, x, &err));
    pl_session_reset(s);
    ok(pl_session_prefill(s, &(struct pl_prompt){.embeds = x, .n = 70}, got, &err));
    same_bits("embeddings", "tied_bf16", got, want, 97);
    fails(PL_ERANGE, "the vocabulary has", pl_model_embed(m, &(int32_t){97}, 1, x, &err));
    free(x);
    pl_session_free(s);
    pl_model_free(m);
}

/* Several sequences of different lengths in one step. */
static void test_together(void **state)
{
    struct pl_model *m = load_model("mqa_sharded", 3, NULL);
    size_t v = (size_t)pl_model_info(m)->arch.vocab;
    struct pl_session *s[5], *alone = new_session(m, NULL);
    float *got = malloc(5 * v * sizeof(*got)), *want = malloc(v * sizeof(*want));
    int32_t ids[200], next[5] = {9, 8, 7, 6, 5};

    (void)state;
    make_ids(ids, 200, 3, (int32_t)v);
    for (size_t i = 0; i < 5; i++) {
        s[i] = new_session(m, &(struct pl_session_opts){.max_tokens = 210});
        prefill(s[i], ids, 1 + i * 47, NULL);
    }
    for (int step = 0; step < 3; step++) {
        ok(pl_sessions_decode(s, next, 5, got, &err));
        for (size_t i = 0; i < 5; i++) {
            pl_session_reset(alone);
            prefill(alone, ids, 1 + i * 47, NULL);
            for (int k = 0; k <= step; k++)
                ok(pl_session_decode(alone, next[i], want, &err));
            same_bits("together", "mqa_sharded", got + i * v, want, v);
        }
    }
    struct pl_session *twice[] = {s[2], s[2]};
    fails(PL_EUSAGE, "the same", pl_sessions_decode(twice, next, 2, got, &err));
    for (size_t i = 0; i < 5; i++)
        pl_session_free(s[i]);
    pl_session_free(alone);
    free(got);
    free(want);
    pl_model_free(m);
}

static void test_counters(void **state)
{
    static const int taps[] = {PL_TAP_FINAL, 3};
    struct pl_model *m = load_model("plain", 2, NULL);
    const struct pl_arch *a = &pl_model_info(m)->arch;
    struct pl_session_opts o = {.max_tokens = 100, .taps = taps, .n_taps = 2};
    struct pl_session *s = new_session(m, &o);
    struct pl_session_memory had, planned;
    float logits[97], hidden[40], again[97];
    int32_t ids[80];

    (void)state;
    make_ids(ids, 80, 4, 97);
    prefill(s, ids, 80, logits);
    assert_int_equal(pl_session_kv_len(s, 0), 80);
    assert_int_equal(pl_session_hidden_rows(s, 0), 80);
    ok(pl_session_decode(s, 3, logits, &err));
    assert_int_equal(pl_session_kv_read(s), 81 * pl_arch_kv_bytes_per_token(a, PL_DT_F32));
    assert_int_equal(pl_session_hidden_rows(s, 0), 1);
    pl_session_memory(s, &had);
    pl_session_bytes(pl_model_info(m), &o, &planned);
    assert_int_equal(had.kv_bytes, planned.kv_bytes);
    assert_int_equal(had.workspace_bytes, planned.workspace_bytes);
    assert_int_equal(had.kv_bytes_used, 81 * pl_arch_kv_bytes_per_token(a, PL_DT_F32));
    /* the final tap times the head is the logits */
    ok(pl_session_hidden_copy(s, 0, 0, 1, hidden, &err));
    const struct pl_backend *b = pl_model_backend(m);
    struct pl_tensor *x = NULL, *y = NULL;
    ok(b->tensor_create(pl_model_device(m), 1, 40, &x, &err));
    ok(b->tensor_create(pl_model_device(m), 1, 97, &y, &err));
    ok(b->upload(x, 0, 1, hidden, &err));
    ok(b->linear(y, x, pl_model_head(m), NULL, &err));
    ok(b->download(y, 0, 1, again, &err));
    same_bits("head", "plain", again, logits, 97);
    /* and the last block's states, normed, are the final tap */
    ok(pl_session_hidden_copy(s, 1, 0, 1, again, &err));
    ok(b->upload(x, 0, 1, again, &err));
    ok(b->norm(a->norm, a->norm_eps, x, x, pl_model_final_norm(m), NULL, &err));
    ok(b->download(x, 0, 1, again, &err));
    same_bits("final norm", "plain", again, hidden, 40);
    fails(PL_ERANGE, "it holds 1 rows", pl_session_hidden_copy(s, 0, 1, 1, hidden, &err));
    b->tensor_free(x);
    b->tensor_free(y);
    pl_session_free(s);
    pl_model_free(m);
}

static void test_errors(void **state)
{
    static const int tap = 4;
    struct pl_model *m = load_model("plain", 1, NULL);
    struct pl_session *s = new_session(m, &(struct pl_session_opts){.max_tokens = 10}), *no = NULL;
    int32_t ids[12] = {1, 2, 3};
    float logits[97 * 3], before[97], after[97];

    (void)state;
    fails(PL_ERANGE, "empty", pl_session_prefill(s, &(struct pl_prompt){.ids = ids}, NULL, &err));
    fails(PL_EUSAGE, "before any prefill", pl_session_decode(s, 1, logits, &err));
    fails(PL_ERANGE, "holds 10",
          pl_session_prefill(s, &(struct pl_prompt){.ids = ids, .n = 11}, NULL, &err));
    prefill(s, ids, 8, NULL);
    ids[1] = 97;
    fails(PL_ERANGE, "token 1 is 97", pl_session_verify(s, ids, 2, logits, &err));
    ids[1] = -1;
    fails(PL_ERANGE, "token 1 is -1", pl_session_verify(s, ids, 2, logits, &err));
    fails(PL_ERANGE, "holds 10", pl_session_verify(s, ids, 3, logits, &err));
    fails(PL_ERANGE, "a verify of 33", pl_session_verify(s, ids, 33, logits, &err));
    fails(PL_ERANGE, "a verify of 0", pl_session_verify(s, ids, 0, logits, &err));
    fails(PL_ERANGE, "0 were added", pl_session_rollback(s, 1, &err));
    assert_int_equal(pl_session_len(s), 8);
    ok(pl_session_decode(s, 5, before, &err));
    ok(pl_session_decode(s, 5, logits, &err));
    fails(PL_ERANGE, "1 tokens after 10", pl_session_decode(s, 5, logits, &err));
    ok(pl_session_rollback(s, 2, &err));
    ok(pl_session_decode(s, 5, after, &err));
    same_bits("after errors", "plain", after, before, 97);
    fails(PL_ERANGE, "the model has 512 positions",
          pl_session_create(m, &(struct pl_session_opts){.max_tokens = 513}, &no, &err));
    fails(PL_ERANGE, "after block 4",
          pl_session_create(m, &(struct pl_session_opts){.taps = &tap, .n_taps = 1}, &no, &err));
    fails(PL_EUNSUPPORTED, "i8",
          pl_session_create(m, &(struct pl_session_opts){.kv_dtype = PL_DT_I8}, &no, &err));
    assert_null(no);
    assert_int_equal(pl_logits_argmax((float[]){1, 3, 3, 2}, 4), 1);
    assert_int_equal(pl_logits_argmax((float[]){1, 3, NAN, 2}, 4), -1);
    pl_session_free(s);
    pl_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_invariance), cmocka_unit_test(test_all_logits),
        cmocka_unit_test(test_embeddings), cmocka_unit_test(test_together),
        cmocka_unit_test(test_counters),   cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
