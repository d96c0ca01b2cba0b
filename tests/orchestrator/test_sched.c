/* The scheduler alone: its promises one by one, then all of them under random workers. */
#include "unit.h"

#include "base/rng.h"
#include "orchestrator/sched.h"
#include "worker/rank/msg.h"

#include <stdlib.h>
#include <string.h>

#define S INT64_C(1000000000)
#define LEASE (30 * S)
#define GRACE (15 * S)

struct world {
    struct pl_plan *plan; /* on the heap: the scheduler points to it */
    struct pl_sched *s;
};

/* groups of `per_group` arms each; plain memory, freed by world_release. */
static struct world world_of(uint32_t groups, uint32_t per_group, uint32_t contexts,
                             uint32_t samples, uint32_t repeats, uint32_t block_samples,
                             uint32_t workers, bool again)
{
    struct world w = {0};
    const uint32_t arms = groups * per_group;
    struct pl_err err;
    w.plan = calloc(1, sizeof *w.plan);
    w.plan->shape = (struct pl_shape){.arms = arms,
                                      .contexts = contexts,
                                      .samples = samples,
                                      .repeats = repeats,
                                      .batch = 1,
                                      .tokens = 1,
                                      .models = 2,
                                      .layers = 1};
    w.plan->arms = calloc(arms, sizeof *w.plan->arms);
    w.plan->group_of = calloc(arms, sizeof *w.plan->group_of);
    for (uint32_t a = 0; a < arms; a++) {
        w.plan->group_of[a] = a % groups; /* interleaved on purpose */
        w.plan->arms[a].devices = 1;
    }
    w.plan->n_groups = groups;
    w.plan->block_samples = block_samples;
    w.plan->n_blocks =
        (uint64_t)groups * contexts * ((samples + block_samples - 1) / block_samples);
    const struct pl_sched_opts o = {
        .seed = 7, .n_workers = workers, .lease_ns = LEASE, .grace_ns = GRACE, .again = again};
    assert_int_equal(pl_sched_new(w.plan, &o, &w.s, &err), PL_OK);
    return w;
}

static void world_release(struct world *w)
{
    pl_sched_free(w->s);
    free(w->plan->arms);
    free(w->plan->group_of);
    free(w->plan);
}

static struct pl_sched_counts counts(const struct world *w)
{
    struct pl_sched_counts n;
    pl_sched_count(w->s, &n);
    assert_true(n.done + n.failed + n.left == n.rows);
    return n;
}

static void do_all(struct world *w, uint32_t worker, const struct pl_grant *g)
{
    for (uint32_t c = 0; c < pl_cells_count(&g->cells); c++)
        (void)pl_sched_row(w->s, worker, g->lease, c, false);
    pl_sched_done(w->s, worker, g->lease, false);
}

static void test_permutation(void **state)
{
    (void)state;
    const uint64_t sizes[] = {1, 2, 3, 7, 64, 1000, 4097};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        const uint64_t n = sizes[k];
        uint8_t *seen = calloc(PL_BITS(n), 1);
        uint64_t moved = 0;
        for (uint64_t i = 0; i < n; i++) {
            const uint64_t to = pl_sched_permute(42, n, i);
            assert_true(to < n);
            assert_false(pl_bit_get(seen, to));
            pl_bit_set(seen, to);
            moved += to != i;
        }
        if (n >= 64)
            assert_true(moved > n / 2);
        free(seen);
    }
    assert_int_not_equal(pl_sched_permute(1, 4097, 5), pl_sched_permute(2, 4097, 5));
}

static void test_one_worker_does_all(void **state)
{
    (void)state;
    struct world w = world_of(1, 2, 2, 10, 3, 4, 1, false);
    struct pl_grant g;
    uint32_t blocks = 0;
    assert_int_equal(pl_sched_grant(w.s, 0, 0, &g), PL_GRANT_NEVER); /* not joined */
    pl_sched_join(w.s, 0, 1);
    while (pl_sched_grant(w.s, 0, 0, &g) == PL_GRANTED) {
        assert_int_equal(g.todo, pl_cells_count(&g.cells));
        do_all(&w, 0, &g);
        blocks++;
    }
    assert_int_equal(blocks, w.plan->n_blocks);
    assert_int_equal(counts(&w).left, 0);
    assert_int_equal(counts(&w).done, 2 * 2 * 10 * 3);
    assert_int_equal(pl_sched_grant(w.s, 0, 0, &g), PL_GRANT_FINISHED);
    world_release(&w);
}

static void test_expiry_and_late_replies(void **state)
{
    (void)state;
    struct world w = world_of(1, 1, 1, 4, 1, 4, 2, false);
    struct pl_grant a, b;
    uint32_t worker;
    uint64_t lease;
    pl_sched_join(w.s, 0, 1);
    pl_sched_join(w.s, 1, 1);
    assert_int_equal(pl_sched_grant(w.s, 0, 0, &a), PL_GRANTED);
    assert_true(pl_sched_row(w.s, 0, a.lease, 0, false));
    assert_false(pl_sched_row(w.s, 0, a.lease, 0, false)); /* twice is once */
    assert_false(pl_sched_row(w.s, 1, a.lease, 1, false)); /* not its lease */
    assert_false(pl_sched_row(w.s, 0, a.lease, 4, false)); /* no such cell */
    assert_int_equal(pl_sched_grant(w.s, 1, 0, &b), PL_GRANT_LATER);
    /* renewed at 20 s: alive until 65 s */
    pl_sched_renew(w.s, 0, 20 * S);
    assert_false(pl_sched_expire(w.s, 20 * S + LEASE + GRACE, &worker, &lease));
    assert_true(pl_sched_expire(w.s, 20 * S + LEASE + GRACE + 1, &worker, &lease));
    assert_int_equal(worker, 0);
    assert_int_equal(lease, a.lease);
    assert_false(pl_sched_holds(w.s, 0, a.lease));
    assert_false(pl_sched_expire(w.s, 1000 * S, &worker, &lease));
    /* the rest goes to the other, what was done stays done */
    assert_int_equal(pl_sched_grant(w.s, 1, 70 * S, &b), PL_GRANTED);
    assert_int_equal(b.block.index, a.block.index);
    assert_int_equal(b.todo, 3);
    uint8_t todo[1] = {0};
    pl_sched_cells(w.s, &b, todo, NULL);
    assert_int_equal(todo[0], 0x0e);
    assert_false(pl_sched_row(w.s, 0, a.lease, 1, false)); /* too late */
    assert_int_equal(counts(&w).late, 4);
    for (uint32_t c = 1; c < 4; c++)
        assert_true(pl_sched_row(w.s, 1, b.lease, c, c == 3));
    assert_int_equal(counts(&w).failed, 1);
    assert_int_equal(counts(&w).left, 0);
    world_release(&w);
}

static bool odd_rows(void *ctx, uint64_t row, bool *failed)
{
    ++*(unsigned *)ctx;
    *failed = row == 3;
    return row % 2 == 1;
}

/* What a silent worker committed and never reported is not done again. */
static void test_unreported_rows_count(void **state)
{
    (void)state;
    unsigned asked = 0;
    struct world w = world_of(1, 1, 1, 4, 1, 4, 2, false);
    struct pl_grant g;
    uint32_t worker;
    uint64_t lease;
    pl_sched_free(w.s);
    const struct pl_sched_opts o = {.n_workers = 2,
                                    .lease_ns = LEASE,
                                    .grace_ns = GRACE,
                                    .committed = odd_rows,
                                    .committed_ctx = &asked};
    assert_int_equal(pl_sched_new(w.plan, &o, &w.s, NULL), PL_OK);
    pl_sched_join(w.s, 0, 1);
    pl_sched_join(w.s, 1, 1);
    assert_int_equal(pl_sched_grant(w.s, 0, 0, &g), PL_GRANTED);
    assert_true(pl_sched_row(w.s, 0, g.lease, 0, false));
    assert_true(pl_sched_expire(w.s, 1000 * S, &worker, &lease));
    assert_int_equal(asked, 3); /* not about what it had reported */
    assert_int_equal(counts(&w).done, 2);
    assert_int_equal(counts(&w).failed, 1);
    assert_int_equal(pl_sched_grant(w.s, 1, 1000 * S, &g), PL_GRANTED);
    assert_int_equal(g.todo, 1);
    pl_sched_done(w.s, 1, g.lease, false); /* its word: nobody is asked */
    assert_int_equal(asked, 3);
    world_release(&w);
}

static void test_workers_stay_in_their_group(void **state)
{
    (void)state;
    struct world w = world_of(2, 1, 1, 64, 1, 1, 2, false);
    struct pl_grant g;
    uint32_t group[2], changes = 0;
    for (uint32_t k = 0; k < 2; k++) {
        pl_sched_join(w.s, k, 1);
        assert_int_equal(pl_sched_grant(w.s, k, 0, &g), PL_GRANTED);
        group[k] = g.block.group;
        do_all(&w, k, &g);
    }
    assert_int_not_equal(group[0], group[1]); /* spread at first */
    for (bool any = true; any;) {
        any = false;
        for (uint32_t k = 0; k < 2; k++) {
            if (pl_sched_grant(w.s, k, 0, &g) != PL_GRANTED)
                continue;
            any = true;
            changes += g.block.group != group[k];
            group[k] = g.block.group;
            do_all(&w, k, &g);
        }
    }
    assert_int_equal(counts(&w).left, 0);
    assert_true(changes <= 2);
    world_release(&w);
}

static void test_cannot(void **state)
{
    (void)state;
    struct world w = world_of(1, 1, 1, 2, 1, 1, 2, false);
    struct pl_grant g;
    pl_sched_join(w.s, 0, 1);
    pl_sched_join(w.s, 1, 1);
    assert_int_equal(pl_sched_grant(w.s, 0, 0, &g), PL_GRANTED);
    assert_false(g.give_up);
    pl_sched_done(w.s, 0, g.lease, true);
    /* the other one can, as far as anyone knows; the first gets nothing of it */
    assert_true(pl_sched_grant(w.s, 0, 0, &g) == PL_GRANT_NEVER);
    assert_int_equal(pl_sched_grant(w.s, 1, 0, &g), PL_GRANTED);
    assert_false(g.give_up);
    pl_sched_done(w.s, 1, g.lease, true);
    /* nobody can: whoever asks says so in the rows */
    assert_int_equal(pl_sched_grant(w.s, 0, 0, &g), PL_GRANTED);
    assert_true(g.give_up);
    assert_true(pl_sched_row(w.s, 0, g.lease, 0, true));
    pl_sched_done(w.s, 0, g.lease, false);
    world_release(&w);
}

static void test_devices_and_stuck(void **state)
{
    (void)state;
    struct world w = world_of(2, 1, 1, 1, 1, 1, 2, false);
    struct pl_grant g;
    pl_sched_free(w.s);
    w.plan->arms[1].devices = 2;
    const struct pl_sched_opts o = {.n_workers = 2, .lease_ns = LEASE, .grace_ns = GRACE};
    assert_int_equal(pl_sched_new(w.plan, &o, &w.s, NULL), PL_OK);
    pl_sched_join(w.s, 0, 1);
    assert_false(pl_sched_stuck(w.s));
    assert_int_equal(pl_sched_grant(w.s, 0, 0, &g), PL_GRANTED);
    assert_int_equal(g.block.group, 0);
    do_all(&w, 0, &g);
    assert_int_equal(pl_sched_grant(w.s, 0, 0, &g), PL_GRANT_NEVER);
    assert_true(pl_sched_stuck(w.s));
    pl_sched_join(w.s, 1, 2);
    assert_false(pl_sched_stuck(w.s));
    assert_int_equal(pl_sched_grant(w.s, 1, 0, &g), PL_GRANTED);
    assert_false(pl_sched_stuck(w.s));
    pl_sched_leave(w.s, 1);
    assert_false(pl_sched_holds(w.s, 1, g.lease));
    assert_true(pl_sched_stuck(w.s));
    world_release(&w);
}

static void test_resume_and_again(void **state)
{
    (void)state;
    struct world w = world_of(1, 1, 1, 8, 1, 2, 1, true);
    struct pl_grant g;
    uint32_t todo = 0, again_cells = 0;
    pl_sched_settled(w.s, 0, false);
    pl_sched_settled(w.s, 1, false);
    pl_sched_settled(w.s, 2, true);
    pl_sched_again(w.s, 5, 2);
    pl_sched_again(w.s, 6, 1);
    assert_int_equal(counts(&w).left, 5);
    pl_sched_join(w.s, 0, 1);
    while (pl_sched_grant(w.s, 0, 0, &g) == PL_GRANTED) {
        uint8_t bits[2] = {0, 0};
        pl_sched_cells(w.s, &g, bits, bits + 1);
        assert_int_equal(bits[1] & ~bits[0], 0);
        assert_int_equal(g.has_again, bits[1] != 0);
        again_cells += (uint32_t)__builtin_popcount(bits[1]);
        todo += g.todo;
        assert_int_equal(g.again_attempt, 2);
        do_all(&w, 0, &g);
    }
    assert_int_equal(todo, 5);
    assert_int_equal(again_cells, 2);
    assert_int_equal(counts(&w).failed, 1);
    world_release(&w);
}

static void test_memory_is_bits(void **state)
{
    (void)state;
    struct world w = world_of(1, 2, 1, 500000, 10, 16, 4, false);
    assert_true(pl_sched_bytes(w.s) < 10 * 1000 * 1000 / 8 + 4096);
    world_release(&w);
}

/* ---- all at once ---- */

struct holder {
    bool held;
    struct pl_grant g;
    uint32_t next; /* cell */
    uint8_t todo[8];
    int64_t renewed;
};

/* Workers that do rows, fall silent, come back, give blocks back half done, leave and join. What a
 * worker may write it writes into `by`; a row may be written again only after its lease was taken
 * away. */
static void random_run(uint64_t seed)
{
    struct pl_rng r;
    pl_rng_init(&r, pl_keyv(seed, 1));
    const uint32_t groups = 1 + (uint32_t)pl_rng_below(&r, 3);
    const uint32_t workers = 1 + (uint32_t)pl_rng_below(&r, 5);
    struct world w =
        world_of(groups, 1 + (uint32_t)pl_rng_below(&r, 3), 1 + (uint32_t)pl_rng_below(&r, 3),
                 1 + (uint32_t)pl_rng_below(&r, 20), 1 + (uint32_t)pl_rng_below(&r, 3),
                 1 + (uint32_t)pl_rng_below(&r, 6), workers, false);
    const uint64_t rows = pl_shape_rows(&w.plan->shape);
    uint8_t *settled = calloc(rows, 1);
    struct holder h[5][PL_SCHED_LEASES] = {0};
    bool joined[5] = {false};
    int64_t now = 0;
    uint64_t n_settled = 0, steps = 0;
    while (counts(&w).left > 0) {
        const uint32_t k = (uint32_t)pl_rng_below(&r, workers);
        const uint64_t what = pl_rng_below(&r, 100);
        uint32_t worker;
        uint64_t lease;
        assert_true(++steps < 400000);
        now += (int64_t)pl_rng_below(&r, S);
        while (pl_sched_expire(w.s, now, &worker, &lease))
            for (int i = 0; i < PL_SCHED_LEASES; i++)
                if (h[worker][i].held && h[worker][i].g.lease == lease)
                    assert_true(now - h[worker][i].renewed > LEASE + GRACE);
        if (!joined[k] || what < 2) {
            if (joined[k])
                pl_sched_leave(w.s, k);
            else
                pl_sched_join(w.s, k, 1);
            joined[k] = !joined[k];
            continue;
        }
        struct holder *x = &h[k][pl_rng_below(&r, PL_SCHED_LEASES)];
        if (!x->held) {
            struct pl_grant g;
            if (pl_sched_grant(w.s, k, now, &g) != PL_GRANTED)
                continue;
            for (uint32_t j = 0; j < workers; j++)
                for (int i = 0; i < PL_SCHED_LEASES; i++)
                    if (h[j][i].held && h[j][i].g.block.index == g.block.index)
                        assert_false(pl_sched_holds(w.s, j, h[j][i].g.lease));
            *x = (struct holder){.held = true, .g = g, .renewed = now};
            memset(x->todo, 0, sizeof x->todo);
            assert_true(pl_cells_count(&g.cells) <= 8 * sizeof x->todo);
            pl_sched_cells(w.s, &g, x->todo, NULL);
            while (!pl_bit_get(x->todo, x->next))
                x->next++;
        } else if (what < 80 && x->next < pl_cells_count(&x->g.cells)) {
            const struct pl_row_id id = pl_cells_row(&x->g.cells, x->next);
            const uint64_t row = pl_row_index(&w.plan->shape, &id);
            const bool holds = pl_sched_holds(w.s, k, x->g.lease), before = settled[row];
            const bool took = pl_sched_row(w.s, k, x->g.lease, x->next, what < 10);
            assert_int_equal(took, holds && !before);
            settled[row] |= took;
            n_settled += took;
            x->next++;
            if (what < 70) { /* else: it wrote but fell silent */
                pl_sched_renew(w.s, k, now);
                for (int i = 0; i < PL_SCHED_LEASES; i++)
                    h[k][i].renewed = now;
            }
        } else if (what < 97) {
            pl_sched_done(w.s, k, x->g.lease, what == 96);
            x->held = false;
        } else {
            /* forgets all it holds without a word and stays silent: only the clock brings it back
             */
            for (int i = 0; i < PL_SCHED_LEASES; i++)
                h[k][i].held = false;
            now += LEASE + GRACE + S;
        }
    }
    assert_int_equal(n_settled, rows);
    for (uint64_t i = 0; i < rows; i++)
        assert_true(settled[i]);
    free(settled);
    world_release(&w);
}

static void test_random(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 2000; seed++)
        random_run(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_permutation),
        cmocka_unit_test(test_one_worker_does_all),
        cmocka_unit_test(test_expiry_and_late_replies),
        cmocka_unit_test(test_unreported_rows_count),
        cmocka_unit_test(test_workers_stay_in_their_group),
        cmocka_unit_test(test_cannot),
        cmocka_unit_test(test_devices_and_stuck),
        cmocka_unit_test(test_resume_and_again),
        cmocka_unit_test(test_memory_is_bits),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
