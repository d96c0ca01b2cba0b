#include "base/rng.h"

#include "unit.h"

#include <math.h>
#include <string.h>

static void known_answers(void **state)
{
    /* splitmix64 from 1234567, as its published C code prints them */
    static const uint64_t want[] = {UINT64_C(6457827717110365317), UINT64_C(3203168211198807973),
                                    UINT64_C(9817491932198370423), UINT64_C(4593380528125082431),
                                    UINT64_C(16408922859458223821)};
    struct pl_rng r;

    (void)state;
    pl_rng_init(&r, 1234567);
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++)
        assert_true(pl_rng_u64(&r) == want[i]);
    /* Pinned: files that were written with these keys must be resumed with the same ones. */
    assert_true(pl_key(1, NULL, 0) == UINT64_C(0x910a2dec89025cc1));
    assert_true(pl_keyv(1, 2, 3) == UINT64_C(0x57ff3bac093b3797));
    assert_true(pl_hash_str("") == UINT64_C(0xf52a15e9a9b5e89b));
    assert_true(pl_hash_str("baseline") == UINT64_C(0xe72e4a94cf4abc40));
}

static void keys_part(void **state)
{
    (void)state;
    assert_true(pl_keyv(1, 5) != pl_keyv(1, 5, 0));
    assert_true(pl_keyv(1, 0) != pl_keyv(1, 0, 0));
    assert_true(pl_keyv(1, 2, 3) != pl_keyv(1, 3, 2));
    assert_true(pl_keyv(1, 2) != pl_keyv(2, 1));
    assert_true(pl_keyv(0, 0) != pl_key(0, NULL, 0));
    /* 10 000 neighbouring keys: no two alike */
    static uint64_t k[10000];
    size_t n = 0;
    for (uint64_t a = 0; a < 100; a++) {
        for (uint64_t b = 0; b < 100; b++)
            k[n++] = pl_keyv(7, a, b);
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++) {
            if (k[i] == k[j])
                fail_msg("keys %zu and %zu collide", i, j);
        }
    }
}

static void uniform(void **state)
{
    enum { N = 200000, BINS = 20 };
    struct pl_rng r;
    int bins[BINS] = {0};
    double sum = 0, chi2 = 0;

    (void)state;
    pl_rng_init(&r, pl_keyv(1, 1));
    for (int i = 0; i < N; i++) {
        double u = pl_rng_double(&r);
        assert_true(u >= 0 && u < 1);
        sum += u;
        bins[(int)(u * BINS)]++;
    }
    assert_true(fabs(sum / N - 0.5) < 0.003); /* σ of the mean is 0.00065 */
    for (int i = 0; i < BINS; i++)
        chi2 += pow(bins[i] - N / BINS, 2) / (N / BINS);
    assert_true(chi2 < 43.8); /* 99.9 % point with 19 degrees of freedom */
}

static void below(void **state)
{
    struct pl_rng r;
    int seen[7] = {0}, high = 0;

    (void)state;
    pl_rng_init(&r, 42);
    for (int i = 0; i < 70000; i++)
        seen[pl_rng_below(&r, 7)]++;
    for (int i = 0; i < 7; i++)
        assert_in_range(seen[i], 9500, 10500); /* σ is 93 */
    assert_true(pl_rng_below(&r, 1) == 0);
    /* 3·2^62: a modulo would make the lower third twice as likely */
    const uint64_t bound = UINT64_C(3) << 62;
    for (int i = 0; i < 30000; i++) {
        uint64_t v = pl_rng_below(&r, bound);
        assert_true(v < bound);
        high += v >= UINT64_C(1) << 62;
    }
    assert_in_range(high, 19600, 20400); /* two thirds, σ is 82 */
}

static void normal(void **state)
{
    enum { N = 200000 };
    struct pl_rng r;
    double s1 = 0, s2 = 0;
    int far = 0;

    (void)state;
    pl_rng_init(&r, 3);
    for (int i = 0; i < N; i++) {
        double x = pl_rng_normal(&r);
        assert_true(isfinite(x));
        s1 += x;
        s2 += x * x;
        far += fabs(x) > 1.959963985;
    }
    assert_true(fabs(s1 / N) < 0.01);
    assert_true(fabs(s2 / N - 1) < 0.02);
    assert_in_range(far, N / 20 - 500, N / 20 + 500); /* 5 % lie beyond; σ is 97 */
}

static void shuffle_permutes_evenly(void **state)
{
    struct pl_rng r;
    int first[5] = {0};

    (void)state;
    pl_rng_init(&r, 9);
    for (int t = 0; t < 50000; t++) {
        uint32_t idx[5] = {0, 1, 2, 3, 4}, bits = 0;
        pl_rng_shuffle(&r, idx, 5);
        for (int i = 0; i < 5; i++)
            bits |= 1u << idx[i];
        assert_int_equal(bits, 31);
        first[idx[0]]++;
    }
    for (int i = 0; i < 5; i++)
        assert_in_range(first[i], 9500, 10500); /* σ is 89 */
    pl_rng_shuffle(&r, NULL, 0);
    struct pl_rng a, b;
    uint32_t x[100], y[100];
    for (uint32_t i = 0; i < 100; i++)
        x[i] = y[i] = i;
    pl_rng_init(&a, 5);
    pl_rng_init(&b, 5);
    pl_rng_shuffle(&a, x, 100);
    pl_rng_shuffle(&b, y, 100);
    assert_memory_equal(x, y, sizeof(x));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers), cmocka_unit_test(keys_part),
        cmocka_unit_test(uniform),       cmocka_unit_test(below),
        cmocka_unit_test(normal),        cmocka_unit_test(shuffle_permutes_evenly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
