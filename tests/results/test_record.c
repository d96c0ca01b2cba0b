/* Rows in memory: places, alignment, cleared values, CRC; shapes and names. */
#include "fixture.h"
#include "unit.h"

#include "base/hash.h"

#include <math.h>
#include <string.h>

static void index_is_c_order_and_inverts(void **state)
{
    (void)state;
    const struct pl_shape s = fixture_shape();
    uint64_t at = 0;
    struct pl_row_id id;
    for (id.arm = 0; id.arm < s.arms; id.arm++)
        for (id.context = 0; id.context < s.contexts; id.context++)
            for (id.sample = 0; id.sample < s.samples; id.sample++)
                for (id.repeat = 0; id.repeat < s.repeats; id.repeat++) {
                    assert_int_equal(pl_row_index(&s, &id), at);
                    const struct pl_row_id back = pl_row_at(&s, at++);
                    assert_memory_equal(&back, &id, sizeof id);
                }
    assert_int_equal(at, pl_shape_rows(&s));
}

static void rows_saturate(void **state)
{
    (void)state;
    const struct pl_shape s = {
        .arms = UINT32_MAX, .contexts = UINT32_MAX, .samples = UINT32_MAX, .repeats = 1};
    assert_true(pl_shape_rows(&s) == UINT64_MAX);
}

static void a_bad_shape_is_named(void **state)
{
    (void)state;
    struct pl_err err = {.text = ""};
    struct pl_shape s = fixture_shape();
    assert_ok(pl_shape_check(&s, &err));
    s.layers = 0;
    assert_int_equal(pl_shape_check(&s, &err), PL_ERANGE);
    assert_contains(err.text, "layers");
    s = fixture_shape();
    s.rounds = s.tokens + 1;
    assert_int_equal(pl_shape_check(&s, &err), PL_ERANGE);
    assert_contains(err.text, "rounds");
    s = fixture_shape();
    s.models = 3;
    assert_int_equal(pl_shape_check(&s, &err), PL_ERANGE);
    s = fixture_shape();
    s.tokens = UINT32_MAX;
    s.batch = UINT32_MAX;
    assert_int_equal(pl_shape_check(&s, &err), PL_ERANGE);
    s = fixture_shape();
    s.arms = s.contexts = s.samples = UINT32_MAX;
    assert_int_equal(pl_shape_check(&s, &err), PL_ERANGE);
}

static void cells_stand_side_by_side_and_aligned(void **state)
{
    (void)state;
    struct pl_err err = {.text = ""};
    for (uint32_t tokens = 1; tokens < 5; tokens++)
        for (uint32_t layers = 1; layers < 4; layers++)
            for (uint32_t rounds = 0; rounds <= tokens; rounds++) {
                struct pl_shape s = fixture_shape();
                s.tokens = tokens;
                s.layers = layers;
                s.rounds = rounds;
                s.batch = 3;
                struct pl_row r;
                assert_ok(pl_row_init(&r, &s, &err));
                const unsigned char *b = r.bytes;
                assert_ptr_equal(r.trial, b);
                assert_ptr_equal(r.tokens, b + sizeof(struct pl_trial));
                assert_ptr_equal(r.token_ms, r.tokens + 3 * tokens);
                assert_ptr_equal(r.kv_len, r.token_ms + 3 * tokens);
                const unsigned char *end = (unsigned char *)(r.kv_len + 2 * 3 * layers);
                if (rounds)
                    assert_ptr_equal(r.rounds, end);
                else
                    assert_null(r.rounds);
                assert_ptr_equal(r.quality, end + rounds * 3 * sizeof(struct pl_round));
                assert_int_equal((uintptr_t)r.tokens % 4, 0);
                assert_int_equal((uintptr_t)r.quality % 8, 0);
                assert_int_equal(r.n_bytes, pl_row_bytes(&s));
                assert_ptr_equal(b + r.n_bytes, r.quality + 1);
                pl_row_release(&r);
            }
}

static void a_cleared_row_says_not_measured(void **state)
{
    (void)state;
    struct pl_err err = {.text = ""};
    const struct pl_shape s = fixture_shape();
    struct pl_row r;
    assert_ok(pl_row_init(&r, &s, &err));
    memset(r.bytes, 0x5a, r.n_bytes);
    pl_row_clear(&r, &s);
    assert_true(isnan(r.trial->tokenize_ms) && isnan(r.trial->total_ms));
    assert_int_equal(r.trial->generated, 0);
    assert_int_equal(r.trial->logits_hash, 0);
    for (uint32_t i = 0; i < s.tokens; i++)
        assert_true(r.tokens[i] == -1 && isnan(r.token_ms[i]));
    for (uint32_t i = 0; i < 2 * s.layers; i++)
        assert_int_equal(r.kv_len[i], 0);
    assert_int_equal(r.rounds[s.rounds - 1].verify_us, 0);
    assert_true(isnan(r.quality[0]));
    pl_row_release(&r);
    pl_row_release(NULL);
}

/* Bit by bit, with nothing shared with base/. */
static uint32_t slow_crc32c(const unsigned char *p, size_t n)
{
    uint32_t c = 0xffffffffu;
    while (n--) {
        c ^= *p++;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? (c >> 1) ^ 0x82f63b78u : c >> 1;
    }
    return ~c;
}

static void the_crc_covers_index_and_bytes(void **state)
{
    (void)state;
    struct pl_err err = {.text = ""};
    const struct pl_shape s = fixture_shape();
    struct pl_row r;
    unsigned char flat[4096];
    assert_int_equal(slow_crc32c((const unsigned char *)"123456789", 9), 0xE3069283u);
    assert_ok(pl_row_init(&r, &s, &err));
    fixture_row(&s, 7, 0, &r);
    assert_true(8 + r.n_bytes <= sizeof flat);
    const uint64_t index = UINT64_C(0x0102030405060708);
    for (int i = 0; i < 8; i++)
        flat[i] = (unsigned char)(8 - i);
    memcpy(flat + 8, r.bytes, r.n_bytes);
    assert_int_equal(pl_row_crc(index, &r), slow_crc32c(flat, 8 + r.n_bytes));
    assert_int_not_equal(pl_row_crc(index, &r), pl_row_crc(index + 1, &r));
    pl_row_release(&r);
}

static void names_come_back(void **state)
{
    (void)state;
    for (int i = 0; i < PL_REASON_COUNT; i++)
        assert_int_equal(pl_reason_parse(pl_reason_name((enum pl_reason)i)), i);
    assert_string_equal(pl_reason_name((enum pl_reason)PL_REASON_COUNT), "unknown");
    assert_int_equal(pl_reason_parse("gremlins"), PL_REASON_RUNNER);
    assert_string_equal(pl_log_name(PL_LOG_FAILURES), "failures");
    assert_int_equal(pl_log_size(PL_LOG_FAILURES), sizeof(struct pl_log_failure));
    assert_int_equal(pl_log_size(PL_LOG_KINDS), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(index_is_c_order_and_inverts),
        cmocka_unit_test(rows_saturate),
        cmocka_unit_test(a_bad_shape_is_named),
        cmocka_unit_test(cells_stand_side_by_side_and_aligned),
        cmocka_unit_test(a_cleared_row_says_not_measured),
        cmocka_unit_test(the_crc_covers_index_and_bytes),
        cmocka_unit_test(names_come_back),
    };
    return cmocka_run_group_tests_name("results/record", tests, NULL, NULL);
}
