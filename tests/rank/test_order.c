/* The order of a block's trials: pure, balanced, the same for what is left, ABBA where models are
 * swapped. */
#include "worker/rank/order.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static const struct pl_order_arm four[] = {{3, 0}, {5, 0}, {8, 0}, {9, 0}};
static const struct pl_order_arm two_homes[] = {{0, 0}, {1, 1}, {2, 0}};
static const struct pl_order_arm three_homes[] = {{0, 0}, {1, 1}, {2, 2}};

static struct pl_order_in block(const struct pl_order_arm *arms, uint32_t n_arms)
{
    struct pl_order_in in = {.seed = 7,
                             .context = 1,
                             .first_sample = 100,
                             .n_samples = 8,
                             .repeats = 3,
                             .arms = arms,
                             .n_arms = n_arms};

    return in;
}

static struct pl_order_item *make(const struct pl_order_in *in, size_t *n)
{
    struct pl_order_item *items = NULL;
    struct pl_err err = {""};

    assert_int_equal(pl_order_make(in, &items, n, &err), PL_OK);
    return items;
}

static uint32_t arm_pos(const struct pl_order_in *in, uint32_t arm)
{
    uint32_t p = 0;

    while (in->arms[p].arm != arm)
        p++;
    return p;
}

static size_t bit_of(const struct pl_order_in *in, const struct pl_order_item *it)
{
    return pl_order_bit(in, arm_pos(in, it->arm), it->sample, it->repeat);
}

static size_t count_swaps(const struct pl_order_item *items, size_t n)
{
    size_t swaps = 0;

    for (size_t i = 0; i < n; i++)
        swaps += items[i].swap;
    return swaps;
}

static bool same(const struct pl_order_item *a, const struct pl_order_item *b)
{
    return a->arm == b->arm && a->sample == b->sample && a->repeat == b->repeat &&
           a->residence == b->residence && a->order == b->order && a->timed == b->timed &&
           a->swapped == b->swapped;
}

/* Every row once, whatever the shape. */
static void every_row_once(void **state)
{
    const struct {
        const struct pl_order_arm *arms;
        uint32_t n_arms, run;
    } shapes[] = {{four, 4, 0},        {four, 1, 0},        {two_homes, 3, 0},    {two_homes, 3, 3},
                  {three_homes, 3, 1}, {three_homes, 3, 8}, {three_homes, 3, 100}};

    (void)state;
    for (size_t c = 0; c < sizeof(shapes) / sizeof(shapes[0]); c++) {
        struct pl_order_in in = block(shapes[c].arms, shapes[c].n_arms);
        uint8_t seen[8 * 3 * 4] = {0};
        size_t n = 0;
        in.run_samples = shapes[c].run;
        struct pl_order_item *items = make(&in, &n);
        assert_int_equal(n, in.n_arms * 8 * 3);
        for (size_t i = 0; i < n; i++) {
            assert_true(items[i].timed);
            assert_int_equal(items[i].order, i);
            assert_int_equal(items[i].residence, in.arms[arm_pos(&in, items[i].arm)].residence);
            assert_int_equal(items[i].swap, i == 0 || items[i].residence != items[i - 1].residence);
            assert_int_equal(items[i].swapped, shapes[c].arms != four);
            assert_int_equal(seen[bit_of(&in, &items[i])]++, 0);
        }
        free(items);
    }
}

/* With one residence a unit's arms stand together. */
static void units_stay_together(void **state)
{
    const struct pl_order_in in = block(four, 4);
    size_t n = 0;
    struct pl_order_item *items = make(&in, &n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(items[i].sample, items[i - i % 4].sample);
        assert_int_equal(items[i].repeat, items[i - i % 4].repeat);
    }
    free(items);
}

/* Over many units each arm stands at each place about equally often: 4 arms, 6000 units, 1500
 * expected a place, σ = √(6000·¼·¾) = 33.5; the seed is fixed, so the bounds of 4 σ either hold for
 * ever or never. */
static void places_are_balanced(void **state)
{
    struct pl_order_in in = block(four, 4);
    unsigned at[4][4] = {{0}}, before = 0;
    size_t n = 0;

    (void)state;
    in.n_samples = 2000;
    struct pl_order_item *items = make(&in, &n);
    for (size_t i = 0; i < n; i++)
        at[arm_pos(&in, items[i].arm)][i % 4]++;
    for (int a = 0; a < 4; a++) {
        for (int place = 0; place < 4; place++)
            assert_in_range(at[a][place], 1500 - 134, 1500 + 134);
    }
    /* and of a pair each is before the other in half of the units: 3000 ± 4·38.7 */
    for (size_t u = 0; u < n; u += 4) {
        size_t first = 0;
        while (items[u + first].arm != 3 && items[u + first].arm != 9)
            first++;
        before += items[u + first].arm == 3;
    }
    assert_in_range(before, 3000 - 155, 3000 + 155);
    free(items);
}

/* What is left runs in the order that it had, in every shape. */
static void the_rest_keeps_its_order(void **state)
{
    (void)state;
    for (int shape = 0; shape < 3; shape++) {
        struct pl_order_in in = block(shape == 0   ? four
                                      : shape == 1 ? two_homes
                                                   : three_homes,
                                      shape == 0 ? 4 : 3);
        uint8_t done[12] = {0};
        size_t n = 0, m = 0, j = 0;
        in.run_samples = 2;
        struct pl_order_item *all = make(&in, &n), *left;
        for (size_t i = 0; i < sizeof(done); i++)
            done[i] = (uint8_t)(37 * (i + 3) * (i + 5));
        in.done = done;
        left = make(&in, &m);
        assert_in_range(m, 1, n - 1);
        for (size_t i = 0; i < n; i++) {
            size_t bit = bit_of(&in, &all[i]);
            if (done[bit / 8] >> (bit % 8) & 1)
                continue;
            assert_true(j < m && same(&all[i], &left[j]));
            j++;
        }
        assert_int_equal(j, m);
        free(all);
        free(left);
        memset(done, 0xff, sizeof(done));
        left = make(&in, &m);
        assert_null(left);
        assert_int_equal(m, 0);
    }
}

/* Nothing but the row decides: another cut into blocks, or another order of arms, changes no
 * relative order. */
static void blocks_do_not_matter(void **state)
{
    const struct pl_order_arm turned[] = {{9, 0}, {3, 0}, {8, 0}, {5, 0}};
    struct pl_order_in in = block(four, 4), part = block(turned, 4);
    size_t n = 0, m = 0, j = 0;

    (void)state;
    part.first_sample = 103;
    part.n_samples = 3;
    struct pl_order_item *all = make(&in, &n), *some = make(&part, &m);
    for (size_t i = 0; i < n; i++) {
        if (all[i].sample < 103 || all[i].sample > 105)
            continue;
        assert_int_equal(all[i].arm, some[j].arm);
        assert_int_equal(all[i].sample, some[j].sample);
        assert_int_equal(all[i].repeat, some[j].repeat);
        j++;
    }
    assert_int_equal(j, m);
    free(some);
    /* the key's parts each draw anew */
    for (int change = 0; change < 3; change++) {
        struct pl_order_in other = block(four, 4);
        size_t moved = 0;
        other.seed += change == 0;
        other.context += change == 1;
        other.attempt += change == 2;
        some = make(&other, &m);
        for (size_t i = 0; i < n; i++)
            moved += !same(&all[i], &some[i]);
        assert_true(moved > n / 2);
        free(some);
    }
    free(all);
}

/* A B | B A | A …: loads as foreseen, runs of s samples, and each way first about as often. */
static void runs_alternate(void **state)
{
    static const struct {
        const struct pl_order_arm *arms;
        uint32_t n_res, run, loads;
    } cases[] = {{two_homes, 2, 2, 5}, {two_homes, 2, 3, 4},   {two_homes, 2, 1, 9},
                 {two_homes, 2, 0, 2}, {three_homes, 3, 2, 9}, {three_homes, 3, 8, 3}};
    unsigned a_first = 0;

    (void)state;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct pl_order_in in = block(cases[c].arms, 3);
        size_t n = 0;
        in.run_samples = cases[c].run;
        struct pl_order_item *items = make(&in, &n);
        assert_int_equal(count_swaps(items, n), cases[c].loads);
        assert_int_equal(pl_order_loads(cases[c].n_res, 8, cases[c].run), cases[c].loads);
        free(items);
    }
    struct pl_order_in in = block(two_homes, 3);
    in.run_samples = 2;
    for (uint32_t i = 0; i < 400; i++) { /* 200 ± 4·10 */
        size_t n = 0;
        in.first_sample = 8 * i;
        struct pl_order_item *items = make(&in, &n);
        a_first += items[0].residence == 0;
        for (size_t k = 0; k < n; k++) { /* runs of 2 samples: 6 units, A has 2 arms and B 1 */
            assert_int_equal((items[k].sample - in.first_sample) / 2, k / 18);
            assert_int_equal(items[k].residence == items[0].residence,
                             (k % 18 < (items[k - k % 18].residence == 0 ? 12U : 6U)) ==
                                 (k / 18 % 2 == 0));
        }
        free(items);
    }
    assert_in_range(a_first, 160, 240);
    assert_int_equal(pl_order_loads(1, 100, 3), 1);
    assert_int_equal(pl_order_loads(2, 0, 3), 0);
}

static void warmups_follow_each_swap(void **state)
{
    struct pl_order_in in = block(two_homes, 3);
    struct pl_order_item fresh[8];
    uint8_t done[9] = {0};
    size_t n = 0, timed = 0;

    (void)state;
    in.run_samples = 4;
    in.warmup = 2;
    struct pl_order_item *items = make(&in, &n);
    assert_int_equal(count_swaps(items, n), 3); /* A B | B A or B A | A B */
    for (size_t i = 0; i < n; i++) {
        size_t arms = items[i].residence == 0 ? 2 : 1;
        timed += items[i].timed;
        if (!items[i].swap)
            continue;
        for (size_t k = 0; k < 2 * arms; k++) {
            assert_false(items[i + k].timed);
            assert_int_equal(items[i + k].residence, items[i].residence);
            assert_in_range(items[i + k].sample, 100, 107);
        }
        assert_true(items[i + 2 * arms].timed);
        if (arms == 2)
            assert_true(items[i].arm != items[i + 1].arm && items[i].arm == items[i + 2].arm);
    }
    assert_int_equal(timed, 72);
    /* a fresh runner in the middle: only the arms that are still to come */
    assert_int_equal(pl_order_warmups(&in, items + n - 1, 1, fresh), 2);
    assert_int_equal(fresh[0].arm, items[n - 1].arm);
    assert_false(fresh[0].timed || fresh[1].timed);
    assert_int_equal(pl_order_warmups(&in, items, 0, fresh), 0);
    free(items);
    /* an arm with nothing left is not warmed */
    memset(done, 0xff, 3);
    in.done = done;
    items = make(&in, &n);
    for (size_t i = 0; i < n; i++)
        assert_int_not_equal(items[i].arm, 0);
    free(items);
}

static void wrong_counts(void **state)
{
    const struct pl_order_arm bad[] = {{0, 5}};
    struct pl_order_item *items = NULL;
    struct pl_err err;
    size_t n = 9;

    (void)state;
    for (int c = 0; c < 7; c++) {
        struct pl_order_in in = block(c == 5 ? bad : four, c == 5 ? 1 : 4);
        if (c == 0)
            in.n_arms = 0;
        if (c == 1)
            in.n_samples = 0;
        if (c == 2)
            in.repeats = 0;
        if (c == 3)
            in.first_sample = UINT32_MAX - 2;
        if (c == 4)
            in.n_samples = in.repeats = 1U << 20;
        if (c == 6)
            in.warmup = UINT32_MAX;
        assert_int_equal(pl_order_make(&in, &items, &n, &err), PL_ERANGE);
        assert_null(items);
        assert_int_equal(n, 9);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_once),           cmocka_unit_test(units_stay_together),
        cmocka_unit_test(places_are_balanced),      cmocka_unit_test(the_rest_keeps_its_order),
        cmocka_unit_test(blocks_do_not_matter),     cmocka_unit_test(runs_alternate),
        cmocka_unit_test(warmups_follow_each_swap), cmocka_unit_test(wrong_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
