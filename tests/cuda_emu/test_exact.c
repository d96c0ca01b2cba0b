/* A deterministic device: a verification gives the bits of its decodes, a tree those of decodes along its paths, a step of several sequences those of each alone, with keys split
 * among blocks and rows among launches; without it they differ. */
#include "fixture.h"

#include "model/cuda/cuda.h"

#define PROMPT 70
#define K 22

static struct pl_model *load(const char *name, bool deterministic)
{
    char path[256];
    const struct pl_model_opts o = {.where = {.deterministic = deterministic}, .device = "cuda", .dtype = PL_DT_AUTO};
    struct pl_model *m = NULL;

    snprintf(path, sizeof(path), GOLDENS "/%s", name);
    ok(pl_model_load(path, &o, &m, &err));
    return m;
}

/* Numbers of `got` whose bits are not `want`'s. */
static size_t differ(const float *got, const float *want, size_t n)
{
    size_t d = 0;

    for (size_t i = 0; i < n; i++)
        d += memcmp(got + i, want + i, sizeof(*got)) != 0;
    return d;
}

static void ids_of(int32_t *ids, size_t n, size_t seed, size_t vocab)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)((i * 7 + seed * 13 + i * i % 11) % vocab);
}

/* How many logits of verifications of 1, 7 and K rows, and of three sequences' steps, are not the decodes'. */
static size_t check(struct pl_model *m, enum pl_dtype kv)
{
    const struct pl_session_opts o = {.max_tokens = PROMPT + K + 1, .max_verify = K, .kv_dtype = kv};
    const size_t vocab = (size_t)pl_model_info(m)->arch.vocab;
    float *want = calloc(K * vocab, sizeof(*want)), *got = calloc(K * vocab, sizeof(*got));
    struct pl_session *s[3];
    int32_t ids[PROMPT + K], step[3];
    size_t differing = 0;

    for (size_t i = 0; i < 3; i++) {
        ids_of(ids, PROMPT + K, i, vocab);
        ok(pl_session_create(m, &o, &s[i], &err));
        ok(pl_session_prefill(s[i], &(struct pl_prompt){.ids = ids, .n = PROMPT - 9 * i}, got, &err));
        step[i] = ids[PROMPT];
    }
    for (size_t i = 0; i < 3; i++) {
        ok(pl_session_decode(s[i], step[i], want + i * vocab, &err));
        ok(pl_session_rollback(s[i], 1, &err));
    }
    ok(pl_sessions_decode(s, step, 3, got, &err));
    differing += differ(got, want, 3 * vocab);
    ok(pl_session_rollback(s[0], 1, &err));
    ids_of(ids, PROMPT + K, 0, vocab);
    for (size_t i = 0; i < K; i++)
        ok(pl_session_decode(s[0], ids[PROMPT + i], want + i * vocab, &err));
    ok(pl_session_rollback(s[0], K, &err));
    for (size_t k = 1; k <= K; k += k == 1 ? 6 : 15) {
        ok(pl_session_verify(s[0], ids + PROMPT, k, got, &err));
        ok(pl_session_rollback(s[0], k, &err));
        differing += differ(got, want, k * vocab);
    }
    for (size_t i = 0; i < 3; i++)
        pl_session_free(s[i]);
    free(want);
    free(got);
    return differing;
}

static const char *const models[] = {"plain", "tied_bf16", "mqa_sharded", "families/mistral_window", "../gguf/mixed_k.gguf"};

static void test_exact(void **state)
{
    static const enum pl_dtype kvs[] = {PL_DT_F32, PL_DT_BF16, PL_DT_F16};

    (void)state;
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        struct pl_model *m = load(models[i], true);
        struct pl_device *d = pl_model_device(m);
        const int32_t heads = pl_model_info(m)->arch.heads;
        const size_t way = (i + 1) % 3; /* all keys in one part; parts of 32; those in launches of few rows */
        d->exact_keys = way ? 32 : PL_CUDA_EXACT_KEYS;
        d->partials = way == 2 ? heads * 5 * 3 : PL_CUDA_PARTIALS;
        size_t n = check(m, kvs[i % 3]);
        if (n)
            fail_msg("%s, way %zu: %zu logits are not the decodes'", models[i], way, n);
        pl_model_free(m);
    }
}

/* A tree behind the prompt, grown in two forwards: two roots, branches of several depths, siblings. How many of its logits are not those of
 * decodes at the ends of its paths; and of the decode behind the path that is kept. */
static size_t check_tree(struct pl_model *m, enum pl_dtype kv)
{
    enum { NODES = 14, FIRST = 9 };
    static const int32_t parents[NODES] = {-1, 0, 1, 2, 0, 4, 4, -1, 7, 3, 8, 5, 2, 9}, path[] = {0, 4, 5, 11};
    const struct pl_session_opts o = {.max_tokens = PROMPT + NODES + 1, .max_verify = NODES, .kv_dtype = kv};
    const size_t vocab = (size_t)pl_model_info(m)->arch.vocab;
    float *want = calloc(vocab, sizeof(*want)), *got = calloc((NODES + 1) * vocab, sizeof(*got));
    int32_t ids[PROMPT + NODES + 1], way[NODES];
    struct pl_session *s = NULL, *one = NULL;
    size_t differing = 0;

    ids_of(ids, PROMPT + NODES + 1, 1, vocab);
    const int32_t *node = ids + PROMPT;
    ok(pl_session_create(m, &o, &s, &err));
    ok(pl_session_prefill(s, &(struct pl_prompt){.ids = ids, .n = PROMPT}, want, &err));
    ok(pl_session_tree(s, &(struct pl_prompt){.ids = node, .n = FIRST}, parents, got, &err));
    ok(pl_session_tree(s, &(struct pl_prompt){.ids = node + FIRST, .n = NODES - FIRST}, parents + FIRST, got + FIRST * vocab, &err));
    ok(pl_session_keep_path(s, path, 4, &err));
    ok(pl_session_decode(s, node[NODES], got + NODES * vocab, &err));
    ok(pl_session_create(m, &o, &one, &err));
    ok(pl_session_prefill(one, &(struct pl_prompt){.ids = ids, .n = PROMPT}, want, &err));
    for (int i = 0; i < NODES; i++) {
        size_t n = 0;
        for (int32_t at = i; at >= 0; at = parents[at])
            way[n++] = at;
        for (size_t k = n; k-- > 0;)
            ok(pl_session_decode(one, node[way[k]], want, &err));
        differing += differ(got + (size_t)i * vocab, want, vocab);
        ok(pl_session_rollback(one, n, &err));
    }
    for (int k = 0; k < 4; k++)
        ok(pl_session_decode(one, node[path[k]], want, &err));
    ok(pl_session_decode(one, node[NODES], want, &err));
    differing += differ(got + NODES * vocab, want, vocab);
    pl_session_free(s);
    pl_session_free(one);
    free(want);
    free(got);
    return differing;
}

static void test_trees(void **state)
{
    static const enum pl_dtype kvs[] = {PL_DT_F32, PL_DT_BF16, PL_DT_F16};

    (void)state;
#ifdef PL_SANITIZED /* two of them take it a minute */
    for (size_t i = 2; i < 4; i++) {
#else
    for (size_t i = 0; i < 4; i++) {
#endif
        struct pl_model *m = load(models[i], true);
        struct pl_device *d = pl_model_device(m);
        d->exact_keys = i % 2 ? 32 : PL_CUDA_EXACT_KEYS;
        size_t n = check_tree(m, kvs[i % 3]);
        if (n)
            fail_msg("%s: %zu logits of a tree are not the decodes'", models[i], n);
        pl_model_free(m);
    }
}

/* The test can fail: what is not asked to be deterministic rounds a verification's rows to the weights' type. */
static void test_otherwise(void **state)
{
    struct pl_model *m = load("tied_bf16", false);

    (void)state;
    assert_true(check(m, PL_DT_BF16) > 0);
    assert_true(check_tree(m, PL_DT_BF16) > 0);
    pl_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_exact), cmocka_unit_test(test_trees), cmocka_unit_test(test_otherwise)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
