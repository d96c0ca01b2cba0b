#include "base/arena.h"

#include "unit.h"

#include <string.h>

static void aligned_zeroed_apart(void **state)
{
    struct pl_arena a;
    unsigned char *last = NULL;
    size_t sum = 0;

    (void)state;
    pl_arena_init(&a);
    for (size_t n = 0; n < 3000; n += 7) {
        unsigned char *p = pl_arena_alloc(&a, n);
        assert_non_null(p);
        assert_ptr_not_equal(p, last);
        assert_int_equal((uintptr_t)p % (n >= 64 ? 64 : 16), 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xAB, n);
        last = p;
        sum += n;
    }
    assert_int_equal(a.used, sum);
    /* a piece larger than any chunk */
    unsigned char *big = pl_arena_alloc(&a, 5u << 20);
    assert_non_null(big);
    assert_int_equal((uintptr_t)big % 64, 0);
    assert_int_equal(big[(5u << 20) - 1], 0);
    pl_arena_release(&a);
    assert_null(a.head);
    assert_int_equal(a.used, 0);
}

static void overflow_is_null(void **state)
{
    struct pl_arena a;

    (void)state;
    pl_arena_init(&a);
    assert_null(pl_arena_alloc(&a, SIZE_MAX));
    assert_null(pl_arena_alloc(&a, SIZE_MAX - 63));
    assert_null(pl_arena_alloc(&a, (size_t)PTRDIFF_MAX));
    assert_null(pl_arena_calloc(&a, SIZE_MAX / 2, 3));
    assert_null(pl_arena_calloc(&a, (size_t)1 << 32, (size_t)1 << 32));
    assert_non_null(pl_arena_calloc(&a, 0, SIZE_MAX));
    assert_int_equal(a.used, 0);
    assert_non_null(pl_arena_calloc(&a, 3, 5)); /* still usable */
    assert_int_equal(a.used, 15);
    pl_arena_release(&a);
}

static void strings(void **state)
{
    struct pl_arena a;

    (void)state;
    pl_arena_init(&a);
    assert_string_equal(pl_arena_strdup(&a, "paceline"), "paceline");
    assert_string_equal(pl_arena_strndup(&a, "paceline", 4), "pace");
    assert_string_equal(pl_arena_strndup(&a, "pace", 100), "pace");
    assert_string_equal(pl_arena_printf(&a, "%s-%03d", "x", 7), "x-007");
    assert_string_equal(pl_arena_printf(&a, "%s", ""), "");
    pl_arena_release(&a);
}

static void clear_reuses_and_zeroes(void **state)
{
    struct pl_arena a;

    (void)state;
    pl_arena_init(&a);
    pl_arena_clear(&a); /* of an empty one */
    for (int i = 0; i < 100; i++)
        memset(pl_arena_alloc(&a, 10000), 0xFF, 10000);
    unsigned char *big = pl_arena_alloc(&a, 3u << 20);
    memset(big, 0xFF, 3u << 20);
    pl_arena_alloc(&a, 16);
    pl_arena_clear(&a);
    assert_int_equal(a.used, 0);
    unsigned char *again = pl_arena_alloc(&a, 3u << 20);
    assert_ptr_equal(again, big); /* the largest chunk was kept */
    for (size_t i = 0; i < 3u << 20; i++) {
        if (again[i] != 0)
            fail_msg("byte %zu is not zero", i);
    }
    pl_arena_release(&a);
    pl_arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aligned_zeroed_apart),
        cmocka_unit_test(overflow_is_null),
        cmocka_unit_test(strings),
        cmocka_unit_test(clear_reuses_and_zeroes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
