#include "fixture.h"

#include <math.h>

/* What a test's hook is told to keep, and what it saw. */
struct script {
    size_t keep_every; /* 1: all; k: every k-th row and the last */
    bool name_all;     /* lists all rows instead of leaving kept alone */
    bool fail, drop_last, disorder;
    size_t seen_n[8], calls;
    int32_t seen_layer[8];
};

static enum pl_status keep(void *user, const struct pl_stage *st, int32_t *kept, size_t *n_kept,
                           struct pl_err *err)
{
    struct script *s = user;
    size_t n = 0;

    s->seen_n[s->calls] = st->n;
    s->seen_layer[s->calls++] = st->layer;
    if (st->hidden)
        assert_int_equal(st->backend->rows(st->hidden), st->n);
    if (st->hidden && st->last) {
        size_t h = st->backend->cols(st->hidden);
        float *row = malloc(h * sizeof(*row));
        ok(st->backend->download(st->hidden, st->n - 1, 1, row, &err));
        assert_memory_equal(row, st->last, h * sizeof(*row));
        free(row);
    }
    for (size_t i = 1; i < st->n; i++)
        assert_true(st->index[i] > st->index[i - 1]);
    if (s->fail)
        return pl_fail(err, PL_EIO, "the scorer broke");
    if (s->keep_every == 1 && !s->name_all)
        return PL_OK;
    for (size_t i = 0; i < st->n; i++)
        if (i % s->keep_every == 0 || (i + 1 == st->n && !s->drop_last))
            kept[n++] = (int32_t)i;
    if (s->disorder)
        kept[0] = kept[1];
    *n_kept = n;
    return PL_OK;
}

static const int32_t two_layers[] = {0, 1};
static const int32_t all_layers[] = {0, 1, 2};

static struct pl_session *hooked(struct pl_model *m, struct script *s, const int32_t *layers,
                                 size_t n, unsigned needs, enum pl_positions positions)
{
    struct pl_stage_hook h = {
        .name = "test", .layers = layers, .n_layers = n, .needs = needs, .run = keep, .user = s};

    return new_session(m,
                       &(struct pl_session_opts){
                           .hooks = &h, .n_hooks = 1, .max_tokens = 350, .positions = positions});
}

#define ALL_NEEDS (PL_STAGE_HIDDEN | PL_STAGE_LAST | PL_STAGE_ATTN)

static void test_keep_all(void **state)
{
    struct pl_model *m = load_model("plain", 2, NULL);
    struct pl_session *plain = new_session(m, &(struct pl_session_opts){.max_tokens = 350});
    float want[97], got[97];
    int32_t ids[300];

    (void)state;
    make_ids(ids, 300, 9, 97);
    for (int named = 0; named < 2; named++) {
        for (int renumber = 0; renumber < 2; renumber++) {
            struct script s = {.keep_every = 1, .name_all = named};
            struct pl_session *h =
                hooked(m, &s, all_layers, 3, ALL_NEEDS,
                       renumber ? PL_POSITIONS_RENUMBERED : PL_POSITIONS_ORIGINAL);
            pl_session_reset(plain);
            prefill(plain, ids, 300, want);
            prefill(h, ids, 300, got);
            assert_memory_equal(got, want, sizeof(want));
            for (int i = 0; i < 5; i++) {
                ok(pl_session_decode(plain, i, want, &err));
                ok(pl_session_decode(h, i, got, &err));
                assert_memory_equal(got, want, sizeof(want));
            }
            assert_int_equal(s.calls, 3);
            assert_int_equal(pl_session_kv_len(h, 2), 305);
            pl_session_free(h);
        }
    }
    pl_session_free(plain);
    pl_model_free(m);
}

static void test_staircase(void **state)
{
    struct pl_model *m = load_model("plain", 2, NULL);
    int64_t row = pl_arch_kv_bytes_per_token(&pl_model_info(m)->arch, PL_DT_F32) / 3;
    float first[97], v1[97 * 4], v2[97 * 4];
    int32_t ids[300], next[4] = {11, 12, 13, 14};

    (void)state;
    make_ids(ids, 300, 10, 97);
    for (int renumber = 0; renumber < 2; renumber++) {
        struct script s = {.keep_every = 2};
        struct pl_session *h = hooked(m, &s, two_layers, 2, PL_STAGE_HIDDEN,
                                      renumber ? PL_POSITIONS_RENUMBERED : PL_POSITIONS_ORIGINAL);
        prefill(h, ids, 300, first);
        /* rows 0, 2, … 298 and 299; of these 151 again the even ones, the 151st among them */
        assert_int_equal(pl_session_kv_len(h, 0), 300);
        assert_int_equal(pl_session_kv_len(h, 1), 151);
        assert_int_equal(pl_session_kv_len(h, 2), 76);
        assert_int_equal(s.seen_n[1], 151);
        for (int i = 0; i < 4; i++)
            ok(pl_session_decode(h, next[i], v1 + 97 * i, &err));
        assert_int_equal(pl_session_kv_len(h, 2), 80);
        assert_int_equal(pl_session_kv_read(h), row * (304 + 155 + 80));
        ok(pl_session_rollback(h, 4, &err));
        ok(pl_session_verify(h, next, 4, v2, &err));
        assert_memory_equal(v1, v2, sizeof(v1));
        ok(pl_session_rollback(h, 4, &err));
        assert_int_equal(pl_session_kv_len(h, 1), 151);
        fails(PL_EUSAGE, "after a reset",
              pl_session_prefill(h, &(struct pl_prompt){.ids = ids, .n = 3}, NULL, &err));
        pl_session_reset(h);
        prefill(h, ids, 300, v2);
        assert_memory_equal(first, v2, sizeof(first));
        pl_session_free(h);
    }
    pl_model_free(m);
}

/* Dropping rows after the last block changes no KV and not the last row's logits. */
static void test_last_block(void **state)
{
    static const int32_t last[] = {2};
    struct pl_model *m = load_model("plain", 2, NULL);
    struct pl_session *plain = new_session(m, NULL);
    struct script s = {.keep_every = 3};
    struct pl_session *h = hooked(m, &s, last, 1, 0, PL_POSITIONS_ORIGINAL);
    float want[97], got[97];
    int32_t ids[100];

    (void)state;
    make_ids(ids, 100, 11, 97);
    prefill(plain, ids, 100, want);
    prefill(h, ids, 100, got);
    assert_memory_equal(got, want, sizeof(want));
    assert_int_equal(pl_session_kv_len(h, 2), 100);
    pl_session_free(plain);
    pl_session_free(h);
    pl_model_free(m);
}

static enum pl_status sum_attention(void *user, const struct pl_stage *st, int32_t *kept,
                                    size_t *n_kept, struct pl_err *err)
{
    double *total = user;

    (void)kept;
    (void)n_kept;
    (void)err;
    for (size_t i = 0; i < 4 * st->n; i++) {
        assert_true(st->attn[i] >= 0);
        total[i / st->n] += (double)st->attn[i];
    }
    total[4] += (double)st->attn[0]; /* head 0, column 0 */
    return PL_OK;
}

/* Each query's probabilities sum to 1, so a head's columns sum to the window's rows, however the
 * prompt was cut. */
static void test_attention_sums(void **state)
{
    static const size_t windows[] = {0, 1, 16, 290, 1000};
    struct pl_model *m = load_model("plain", 2, NULL);
    int32_t ids[300];

    (void)state;
    make_ids(ids, 300, 12, 97);
    for (size_t w = 0; w < 5; w++) {
        double total[5] = {0};
        size_t rows = windows[w] && windows[w] < 300 ? windows[w] : 300;
        struct pl_stage_hook h = {.name = "sums",
                                  .layers = two_layers,
                                  .n_layers = 2,
                                  .needs = PL_STAGE_ATTN,
                                  .attn_window = windows[w],
                                  .run = sum_attention,
                                  .user = total};
        struct pl_session *s =
            new_session(m, &(struct pl_session_opts){.hooks = &h, .n_hooks = 1, .max_tokens = 300});
        prefill(s, ids, 300, NULL);
        for (int i = 0; i < 4; i++)
            assert_true(fabs(total[i] - 2.0 * (double)rows) < 1e-3 * (double)rows);
        assert_true(windows[w] || total[4] > 1); /* the first query sees itself alone */
        pl_session_free(s);
    }
    pl_model_free(m);
}

/* Two hooks; taps hold what reached their block. */
static void test_two_hooks_and_taps(void **state)
{
    static const int32_t l0[] = {0}, l1[] = {1};
    static const int taps[] = {1, 2, 3, PL_TAP_FINAL};
    struct pl_model *m = load_model("plain", 2, NULL);
    struct script a = {.keep_every = 2}, b = {.keep_every = 5};
    struct pl_stage_hook h[] = {
        {.name = "a", .layers = l0, .n_layers = 1, .run = keep, .user = &a},
        {.name = "b", .layers = l1, .n_layers = 1, .run = keep, .user = &b}};
    struct pl_session_opts o = {.hooks = h, .n_hooks = 2, .taps = taps, .n_taps = 4};
    struct pl_session *s = new_session(m, &o), *no = NULL;
    int32_t ids[101];

    (void)state;
    make_ids(ids, 101, 13, 97);
    prefill(s, ids, 101, NULL);
    assert_int_equal(pl_session_hidden_rows(s, 0), 101);
    assert_int_equal(pl_session_hidden_rows(s, 1), 51);
    assert_int_equal(pl_session_hidden_rows(s, 2), 11);
    assert_int_equal(pl_session_hidden_rows(s, 3), 11);
    h[1].layers = l0;
    fails(PL_ERANGE, "a and b both name layer 0", pl_session_create(m, &o, &no, &err));
    pl_session_free(s);
    pl_model_free(m);
}

static void test_bad_hooks(void **state)
{
    static const int32_t outside[] = {3}, unordered[] = {1, 1};
    struct pl_model *m = load_model("plain", 1, NULL);
    struct script s = {.keep_every = 2};
    struct pl_session *h = hooked(m, &s, two_layers, 2, 0, PL_POSITIONS_ORIGINAL), *no = NULL;
    struct pl_stage_hook bad = {.name = "bad", .layers = outside, .n_layers = 1, .run = keep};
    struct pl_session_opts o = {.hooks = &bad, .n_hooks = 1};
    int32_t ids[50];
    struct pl_prompt p = {.ids = ids, .n = 50};

    (void)state;
    make_ids(ids, 50, 14, 97);
    s.drop_last = true;
    fails(PL_ERANGE, "drops the prompt's last row", pl_session_prefill(h, &p, NULL, &err));
    s = (struct script){.keep_every = 2, .disorder = true};
    fails(PL_ERANGE, "rows must ascend", pl_session_prefill(h, &p, NULL, &err));
    s = (struct script){.fail = true};
    fails(PL_EIO, "the scorer broke", pl_session_prefill(h, &p, NULL, &err));
    assert_int_equal(pl_session_len(h), 0);
    assert_int_equal(pl_session_kv_len(h, 0), 0);
    s = (struct script){.keep_every = 2};
    ok(pl_session_prefill(h, &p, NULL, &err));
    fails(PL_ERANGE, "layer 3", pl_session_create(m, &o, &no, &err));
    bad.layers = unordered;
    bad.n_layers = 2;
    fails(PL_ERANGE, "do not ascend", pl_session_create(m, &o, &no, &err));
    pl_session_free(h);
    pl_model_free(m);
}

/* Keeping all KV rows changes nothing; keeping rows per head gives what a cache of those rows
 * gives. */
static void test_kv_keep(void **state)
{
    struct pl_model *m = load_model("plain", 2, NULL);
    struct pl_session *s = new_session(m, NULL);
    float want[97], got[97];
    int32_t ids[130], idx[260];

    (void)state;
    make_ids(ids, 130, 15, 97);
    prefill(s, ids, 130, NULL);
    ok(pl_session_decode(s, 5, want, &err));
    ok(pl_session_rollback(s, 1, &err));
    for (int i = 0; i < 260; i++)
        idx[i] = i % 130;
    ok(pl_session_kv_keep(s, 1, idx, 130, &err));
    ok(pl_session_decode(s, 5, got, &err));
    assert_memory_equal(got, want, sizeof(want));
    ok(pl_session_rollback(s, 1, &err));
    /* the first 70 rows are what a shorter prompt left: layer 0 sees only its own rows */
    for (int i = 0; i < 140; i++)
        idx[i] = i % 70;
    pl_session_reset(s);
    prefill(s, ids, 130, NULL);
    for (int32_t l = 0; l < 3; l++)
        ok(pl_session_kv_keep(s, l, idx, 70, &err));
    assert_int_equal(pl_session_kv_len(s, 1), 70);
    ok(pl_session_decode(s, 5, got, &err));
    assert_memory_not_equal(got, want, sizeof(want));
    fails(PL_EUSAGE, "right after a prefill", pl_session_kv_keep(s, 1, idx, 70, &err));
    ok(pl_session_rollback(s, 1, &err));
    idx[3] = 70;
    fails(PL_ERANGE, "does not ascend", pl_session_kv_keep(s, 1, idx, 60, &err));
    pl_session_free(s);
    pl_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keep_all),
        cmocka_unit_test(test_staircase),
        cmocka_unit_test(test_last_block),
        cmocka_unit_test(test_attention_sums),
        cmocka_unit_test(test_two_hooks_and_taps),
        cmocka_unit_test(test_bad_hooks),
        cmocka_unit_test(test_kv_keep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
