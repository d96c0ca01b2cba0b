/* Every identity holds on the fixture's rows and is missed when one number of a row is changed. */
#include "fixture.h"
#include "unit.h"

#include <math.h>
#include <string.h>

#define PLAIN 0u    /* rows of arm 0 draft nothing */
#define DRAFTED 12u /* arm 1, even: 2 + 3 accepted of 6, none cut */
#define CUT 13u     /* arm 1, odd: 3 + 3 accepted of 6, 1 cut */

static struct pl_shape shape;
static struct pl_row row;
static char why[256];

static const char *check(void)
{
    return pl_row_check(&shape, &row, why, sizeof why);
}

static int setup(void **state)
{
    (void)state;
    struct pl_err err = {.text = ""};
    shape = fixture_shape();
    return pl_row_init(&row, &shape, &err) == PL_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    pl_row_release(&row);
    return 0;
}

static void good_rows_pass(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < pl_shape_rows(&shape); i++) {
        fixture_row(&shape, i, 0, &row);
        assert_null(check());
    }
}

#define BREAK(index, part, ...)                                                                    \
    do {                                                                                           \
        fixture_row(&shape, (index), 0, &row);                                                     \
        __VA_ARGS__;                                                                               \
        const char *text = check();                                                                \
        assert_non_null(text);                                                                     \
        assert_contains(text, part);                                                               \
    } while (0)

static void times_are_accounted_for(void **state)
{
    (void)state;
    BREAK(PLAIN, "phases + wait", row.trial->decode_ms += 0.011 * row.trial->total_ms);
    BREAK(PLAIN, "phases + wait", row.trial->wait_ms = 5);
    BREAK(PLAIN, "total_ms", row.trial->total_ms = NAN);
    BREAK(PLAIN, "prefill_ms", row.trial->prefill_ms = -1);
    BREAK(PLAIN, "d_decode_ms", row.trial->d_decode_ms = INFINITY);
    BREAK(PLAIN, "preprocess", row.trial->preprocess_ms = 1e9);
    BREAK(PLAIN, "tower", row.trial->d_tower_ms = 1e9);
    BREAK(PLAIN, "drafter", row.trial->d_decode_ms = 2 * row.trial->total_ms);
    BREAK(PLAIN, "drafter's phases + wait", row.trial->d_wait_ms = 0.5 * row.trial->total_ms);
    BREAK(PLAIN, "drafter's phases + wait", row.trial->d_wait_ms = 1.5 * row.trial->total_ms);
    BREAK(PLAIN, "ttft", row.trial->ttft_ms = row.trial->total_ms + 1);
    BREAK(PLAIN, "reason", row.trial->reason = PL_REASON_OOM);
    fixture_row(&shape, PLAIN, 0, &row);
    row.trial->decode_ms += 0.009 * row.trial->total_ms;
    assert_null(check());
    /* a trial of 40 us may miss by 2 us */
    fixture_row(&shape, PLAIN, 0, &row);
    row.trial->prefill_ms = 0.030;
    row.trial->decode_ms = 0.010;
    row.trial->ttft_ms = 0.030;
    row.trial->total_ms = 0.0415;
    for (uint32_t i = 0; i < shape.tokens; i++)
        row.token_ms[i] = 0.03f;
    assert_null(check());
    row.trial->total_ms = 0.0425;
    assert_non_null(check());
}

static void tokens_are_counted(void **state)
{
    (void)state;
    BREAK(PLAIN, "generated = 7", row.trial->generated = 7);
    BREAK(PLAIN, "after the end", row.tokens[3] = -1);
    BREAK(PLAIN, "after the end", (row.tokens[7] = -2, row.trial->generated = 7));
    BREAK(PLAIN, "token 4", row.token_ms[4] = row.token_ms[3] - 0.5f);
    BREAK(PLAIN, "token 4", row.token_ms[4] = NAN);
    BREAK(PLAIN, "token 7", row.token_ms[7] = (float)(2 * row.trial->total_ms));
    BREAK(PLAIN, "nothing generated",
          (memset(row.tokens, 0xff, 4 * (size_t)shape.tokens), row.trial->generated = 0));
    /* engines without token times */
    fixture_row(&shape, PLAIN, 0, &row);
    for (uint32_t i = 0; i < shape.tokens; i++)
        row.token_ms[i] = NAN;
    assert_null(check());
}

static void a_prefill_row_generates_nothing(void **state)
{
    (void)state;
    fixture_row(&shape, PLAIN, 0, &row);
    memset(row.tokens, 0xff, 4 * (size_t)shape.tokens);
    row.trial->generated = 0;
    row.trial->total_ms = row.trial->prefill_ms;
    row.trial->decode_ms = NAN;
    assert_null(check());
}

static void rounds_add_up(void **state)
{
    (void)state;
    BREAK(PLAIN, "cut = 1", row.trial->cut = 1);
    BREAK(PLAIN, "accepted = 3", row.trial->accepted = 3);
    BREAK(DRAFTED, "sums to", row.trial->accepted += 1);
    BREAK(DRAFTED, "sums to", row.trial->drafted += 1);
    BREAK(DRAFTED, "more accepted", row.rounds[1].accepted = 4);
    BREAK(DRAFTED, "are filled", row.trial->rounds = 1);
    BREAK(DRAFTED, "are filled", row.trial->rounds = FIXTURE_ROUNDS + 1);
    BREAK(DRAFTED, "free_tokens", row.trial->free_tokens = 7);
    BREAK(DRAFTED, "cut = 4", row.trial->cut = 4);
    BREAK(CUT, "plain steps", row.trial->cut = 0);
    BREAK(DRAFTED, "plain steps",
          (row.rounds[0].accepted = 3, row.trial->accepted = 6, row.trial->cut = 0));
    /* one accepted less is one plain step more */
    fixture_row(&shape, DRAFTED, 0, &row);
    row.rounds[0].accepted = 1;
    row.trial->accepted = 4;
    assert_null(check());
}

static void a_file_without_rounds_takes_none(void **state)
{
    (void)state;
    struct pl_err err = {.text = ""};
    struct pl_shape plain = fixture_shape();
    struct pl_row r;
    plain.rounds = 0;
    assert_ok(pl_row_init(&r, &plain, &err));
    fixture_row(&plain, DRAFTED, 0, &r);
    assert_null(pl_row_check(&plain, &r, why, sizeof why));
    r.trial->rounds = 1;
    assert_non_null(pl_row_check(&plain, &r, why, sizeof why));
    pl_row_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_rows_pass),     cmocka_unit_test(times_are_accounted_for),
        cmocka_unit_test(tokens_are_counted), cmocka_unit_test(a_prefill_row_generates_nothing),
        cmocka_unit_test(rounds_add_up),      cmocka_unit_test(a_file_without_rounds_takes_none),
    };
    return cmocka_run_group_tests_name("results/check", tests, setup, teardown);
}
