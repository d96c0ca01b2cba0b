/* Trees of tokens: every row against the decodes of its path, on the CPU bit for bit. */
#include "fixture.h"

#include <math.h>

#define PROMPT 60

/* The CPU's bits; another device's within its tolerance, or that of a rounded KV cache. */
static void same(const char *what, const char *name, const struct pl_model *m, enum pl_dtype kv,
                 const float *a, const float *b, size_t n)
{
    double most = kv == PL_DT_F32 ? 5 * tolerance(m, NULL) : 4e-2;

    for (size_t i = 0; i < n; i++)
        if (exact_device() ? memcmp(&a[i], &b[i], sizeof(*a)) != 0
                           : !(fabs((double)a[i] - (double)b[i]) <= most))
            fail_msg("%s, %s: element %zu is %.9g, expected %.9g", name, what, i, (double)a[i],
                     (double)b[i]);
}

#define NODES 40

/* The path to a row, from the text on. */
static size_t path_to(const int32_t *parents, int32_t row, int32_t *path)
{
    size_t n = 0;

    for (int32_t i = row; i >= 0; i = parents[i])
        n++;
    for (size_t i = n; i-- > 0; row = parents[row])
        path[i] = row;
    return n;
}

/* Every row of a tree gives the bits of a decode at the end of its path, the tree in one pass or in
 * several; a path that is kept goes on as if its tokens had been decoded. */
static void check_tree(const char *name, struct pl_model *m, enum pl_dtype kv, size_t text)
{
    const struct pl_session_opts o = {
        .max_tokens = PROMPT + NODES + 2, .max_verify = NODES, .kv_dtype = kv};
    struct pl_session *s = new_session(m, &o), *plain = new_session(m, &o);
    size_t v = (size_t)pl_model_info(m)->arch.vocab;
    float *got = calloc(NODES * v, sizeof(*got)), *want = calloc(NODES * v, sizeof(*want));
    int32_t prompt[PROMPT], ids[NODES], parents[NODES], path[NODES], on[NODES];

    const int32_t step = exact_device() ? 1 : 7; /* emulated kernels are slow */
    const size_t first = exact_device() ? 1 : 12;

    make_ids(prompt, PROMPT, 5, (int32_t)v);
    make_ids(ids, NODES, 8, (int32_t)v);
    for (int32_t i = 0; i < NODES; i++) /* a root, runs that go on, branches, a second root */
        parents[i] = i == 0 || i == 21 ? -1 : i % 3 ? i - 1 : i / 2;
    prefill(plain, prompt, text, want);
    for (size_t cut = first; cut <= NODES; cut = cut * 3 + 4) {
        size_t n = path_to(parents, NODES - 2, path);
        pl_session_reset(s);
        prefill(s, prompt, text, got);
        for (size_t at = 0; at < NODES; at += cut)
            ok(pl_session_tree(
                s, &(struct pl_prompt){.ids = ids + at, .n = NODES - at < cut ? NODES - at : cut},
                parents + at, got + at * v, &err));
        for (int32_t i = 0; i < NODES && cut == first; i += step) {
            size_t k = path_to(parents, i, on);
            for (size_t j = 0; j < k; j++)
                ok(pl_session_decode(plain, ids[on[j]], want + (size_t)i * v, &err));
            ok(pl_session_rollback(plain, k, &err));
        }
        for (int32_t i = 0; i < NODES; i += step)
            same("a tree's row", name, m, kv, got + (size_t)i * v, want + (size_t)i * v, v);
        fails(PL_EUSAGE, "a path of it is kept first", pl_session_decode(s, 1, got, &err));
        fails(PL_EUSAGE, "while a tree", pl_session_rollback(s, 1, &err));
        on[0] = path[n - 1];
        fails(PL_ERANGE, "no way on", pl_session_keep_path(s, on, 1, &err));
        ok(pl_session_keep_path(s, path, n, &err));
        assert_int_equal(pl_session_len(s), text + n);
        for (size_t j = 0; j < n; j++)
            ok(pl_session_decode(plain, ids[path[j]], got, &err));
        ok(pl_session_decode(plain, 7, got + v, &err));
        ok(pl_session_decode(s, 7, got, &err));
        same("after a tree", name, m, kv, got, got + v, v);
        ok(pl_session_rollback(plain, n + 1, &err));
        ok(pl_session_rollback(s, n + 1, &err));
        assert_int_equal(pl_session_len(s), text);
    }
    free(got);
    free(want);
    pl_session_free(s);
    pl_session_free(plain);
}

/* Window, learned positions and T5's biases beside plain ones; the text ends in a chunk's midst,
 * and right before the next. */
static const char *const models[] = {
    "plain",       "head_dim",     "mqa_sharded", "tied_bf16", "families/mistral_window",
    "linear_bias", "families/gpt2"};

static void test_tree(void **state)
{
    static const enum pl_dtype kvs[] = {PL_DT_F32, PL_DT_F16, PL_DT_BF16};
    static const char *const isas[] = {"portable", NULL};

    (void)state;
    for (size_t n = 0; n < sizeof(models) / sizeof(models[0]); n++) {
        for (int threads = 1; threads <= (exact_device() ? 3 : 1); threads++) {
            struct pl_model *m = load_model(models[n], threads, isas[n % 2]);
            check_tree(models[n], m, kvs[n % 3], threads == 3 ? 60 : 3);
            pl_model_free(m);
        }
    }
}

/* What is no tree, or has no room, is refused, and nothing is left behind. */
static void test_refused(void **state)
{
    struct pl_model *m = load_model("plain", 1, NULL);
    const struct pl_session_opts o = {.max_tokens = 12, .max_verify = 8};
    struct pl_session *s = new_session(m, &o);
    static const int32_t ids[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    static const int32_t chain[] = {-1, 0, 1, 2, 3, 4, 5, 6, 7}, ahead[] = {-1, 2, 0};
    float *logits = calloc((size_t)pl_model_info(m)->arch.vocab * 9, sizeof(*logits));

    (void)state;
    fails(PL_EUSAGE, "before any prefill",
          pl_session_tree(s, &(struct pl_prompt){.ids = ids, .n = 2}, chain, logits, &err));
    prefill(s, ids, 5, logits);
    fails(PL_ERANGE, "takes 1 to 8",
          pl_session_tree(s, &(struct pl_prompt){.ids = ids, .n = 9}, chain, logits, &err));
    fails(PL_ERANGE, "hangs on row 2",
          pl_session_tree(s, &(struct pl_prompt){.ids = ids, .n = 3}, ahead, logits, &err));
    fails(PL_ERANGE, "the session holds 12",
          pl_session_tree(s, &(struct pl_prompt){.ids = ids, .n = 8}, chain, logits, &err));
    ok(pl_session_tree(s, &(struct pl_prompt){.ids = ids, .n = 4}, chain, logits, &err));
    fails(PL_ERANGE, "8 tokens after 5",
          pl_session_tree(s, &(struct pl_prompt){.ids = ids, .n = 4}, chain, logits, &err));
    ok(pl_session_keep_path(s, NULL, 0, &err));
    assert_int_equal(pl_session_len(s), 5);
    ok(pl_session_decode(s, 1, logits, &err));
    free(logits);
    pl_session_free(s);
    pl_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tree), cmocka_unit_test(test_refused)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
