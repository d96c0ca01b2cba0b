/* The keep rule and the selection: published lengths, 10⁴ random schedules, and a sort as the
 * oracle. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "pruning/keep.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const struct pl_keep_rule rule = {.head = 4, .tail_min = 16, .tail = 0.1};

static size_t after(size_t n, double r, int stages)
{
    for (int i = 0; i < stages; i++)
        n = pl_keep_count(&rule, n, r);
    return n;
}

static void published_lengths(void **state)
{
    (void)state;
    assert_int_equal(after(1024, 0.9, 8), 438);
    assert_int_equal(after(1024, 0.8, 8), 171);
    assert_int_equal(after(1024, 0.7, 8), 57);
    assert_int_equal(after(32768, 0.9, 8), 14103);
    assert_int_equal(after(32768, 0.8, 8), 5496);
    assert_int_equal(after(32768, 0.7, 8), 1887);
    assert_int_equal(pl_keep_count(&rule, 700, 0.7), 489); /* 700 · 0.7 is 489.999… */
    for (size_t n = 1; n <= 20; n++)
        assert_int_equal(pl_keep_count(&rule, n, 0.1), n);
    assert_int_equal(pl_keep_count(&rule, 21, 0.999), 20);
    assert_int_equal(pl_keep_count(&rule, 21, 0.1), 20);
    assert_int_equal(pl_keep_count(&rule, 1000, 0.01), 104); /* the tail is a tenth */
    assert_int_equal(pl_keep_count(&rule, 1000, 1), 1000);
    assert_int_equal(pl_keep_count(&rule, 1000, 0.99999), 999); /* less than 1 drops something */
}

static void total_is_exact(void **state)
{
    size_t lengths[16];

    (void)state;
    pl_keep_solve(&rule, 4096, 0.7, 8, lengths);
    assert_int_equal(lengths[7], 2867);
    for (int i = 1; i < 8; i++) /* one ratio: each stage drops about as much of what is left */
        assert_true(fabs((double)lengths[i] / (double)lengths[i - 1] - (double)lengths[0] / 4096) <
                    0.01);
    pl_keep_solve(&rule, 4096, 1, 3, lengths);
    assert_int_equal(lengths[2], 4096);
    pl_keep_solve(&rule, 4096, 0.999, 8, lengths); /* fewer tokens to drop than stages */
    assert_int_equal(lengths[7], 4091);
    pl_keep_solve(&rule, 1000, 0.001, 2, lengths); /* what is always kept stays */
    assert_true(lengths[1] >= 20);
    pl_keep_solve(&rule, 17, 0.5, 2, lengths);
    assert_int_equal(lengths[1], 17);
}

struct ranked {
    float score;
    int32_t place;
};

static int by_score(const void *x, const void *y)
{
    const struct ranked *a = x, *b = y;

    return a->score != b->score ? (a->score < b->score ? 1 : -1) : a->place - b->place;
}

static int by_place(const void *x, const void *y)
{
    return *(const int32_t *)x - *(const int32_t *)y;
}

/* Scores with many ties, both signs, both zeros, infinities and denormals. */
static float draw(uint64_t key, int kind)
{
    const float u = (float)(key >> 40) / 16777216.0f - 0.5f;

    if (kind == 0)
        return u;
    if (kind == 1)
        return (float)((int)(u * 7));
    if (kind == 2)
        return key % 5 == 0 ? INFINITY : key % 7 == 0 ? -0.0f : u * 1e-38f;
    return key % 3 ? -u * 1e30f : 0.0f;
}

static void selection_is_a_sort(void **state)
{
    enum { MOST = 700 };
    float scores[MOST];
    struct ranked r[MOST];
    int32_t kept[MOST], want[MOST];

    (void)state;
    for (uint64_t t = 0; t < 4000; t++) {
        const size_t n = 1 + pl_keyv(1, t) % MOST, count = 1 + pl_keyv(2, t) % n;
        for (size_t i = 0; i < n; i++) {
            scores[i] = draw(pl_keyv(3, t, i), (int)(t % 4));
            r[i] = (struct ranked){scores[i], (int32_t)i};
        }
        qsort(r, n, sizeof r[0], by_score);
        for (size_t i = 0; i < count; i++)
            want[i] = r[i].place;
        qsort(want, count, sizeof want[0], by_place);
        memset(kept, 0xff, sizeof kept);
        pl_keep_select(scores, n, count, kept);
        assert_memory_equal(kept, want, count * sizeof kept[0]);
        if (count < MOST)
            assert_int_equal(kept[count], -1);
    }
}

/* 10⁴ random (length, stages, keeps, batch): what a session's stages would do to index lists. */
static void schedules_hold_their_promises(void **state)
{
    enum { MOST = 5000 };
    float *scores = malloc(MOST * sizeof *scores);
    int32_t *kept = malloc(MOST * sizeof *kept), *index = malloc(MOST * sizeof *index);
    size_t lengths[32];

    (void)state;
    for (uint64_t t = 0; t < 10000; t++) {
        const size_t start = 1 + pl_keyv(4, t) % (t % 10 ? 200 : MOST);
        const size_t stages = 1 + pl_keyv(5, t) % 12, batch = 1 + pl_keyv(6, t) % 3;
        const struct pl_keep_rule k = {.head = pl_keyv(7, t) % 9,
                                       .tail_min = 1 + pl_keyv(8, t) % 40,
                                       .tail = (double)(pl_keyv(9, t) % 50) / 100};
        const bool total = pl_keyv(10, t) % 2;
        const double r = (double)(1 + pl_keyv(11, t) % 1000) / 1000;
        pl_keep_solve(&k, start, r, stages, lengths);
        for (size_t b = 0; b < batch; b++) {
            size_t n = start, head, tail;
            for (size_t i = 0; i < n; i++)
                index[i] = (int32_t)i;
            for (size_t s = 0; s < stages; s++) {
                const size_t count = total ? lengths[s] : pl_keep_count(&k, n, r);
                pl_keep_always(&k, n, &head, &tail);
                assert_in_range(count, 1, n);
                assert_true(count >= head + tail);
                assert_true(total || r < 1 || count == n);
                assert_true(total || r == 1 || count < n || n == head + tail);
                for (size_t i = 0; i < n; i++)
                    scores[i] = i < head || i >= n - tail
                                    ? INFINITY
                                    : draw(pl_keyv(12, t, b, s, i), (int)s % 2);
                pl_keep_select(scores, n, count, kept);
                for (size_t i = 0; i < count; i++) {
                    assert_in_range(kept[i], i ? kept[i - 1] + 1 : 0, n - 1);
                    index[i] = index[kept[i]];
                }
                assert_true(head == 0 || kept[head - 1] == (int32_t)head - 1);
                assert_true(tail == 0 || kept[count - tail] == (int32_t)(n - tail));
                n = count;
            }
            assert_int_equal(index[n - 1], start - 1); /* the last token never goes */
        }
        if (total) {
            const size_t target = (size_t)floor(r * (double)start);
            size_t head, tail;
            pl_keep_always(&k, stages > 1 ? lengths[stages - 2] : start, &head, &tail);
            assert_int_equal(lengths[stages - 1], target > head + tail ? target
                                                  : head + tail        ? head + tail
                                                                       : 1);
        }
    }
    free(scores);
    free(kept);
    free(index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_lengths), cmocka_unit_test(total_is_exact),
        cmocka_unit_test(selection_is_a_sort), cmocka_unit_test(schedules_hold_their_promises)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
