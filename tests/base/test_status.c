#include "base/status.h"

#include "unit.h"

#include <errno.h>
#include <string.h>

static void texts_and_exit_codes(void **state)
{
    (void)state;
    for (int st = 0; st < PL_STATUS_COUNT; st++)
        assert_true(strlen(pl_status_text((enum pl_status)st)) > 1);
    assert_string_equal(pl_status_text(PL_ETIMEOUT), "timed out");
    assert_non_null(pl_status_text((enum pl_status)99));
    assert_int_equal(pl_status_exit(PL_OK), 0);
    assert_int_equal(pl_status_exit(PL_ESWEEP), 2);
    assert_int_equal(pl_status_exit(PL_EINTERRUPTED), 5);
    assert_int_equal(pl_status_exit(PL_EIO), 6);
    assert_int_equal(pl_status_exit((enum pl_status)99), 6);
}

static void fail_sets_one_line(void **state)
{
    struct pl_err err = {.text = "before"};

    (void)state;
    assert_int_equal(pl_fail(&err, PL_EPROTO, "a %d\nb\n\n", 7), PL_EPROTO);
    assert_string_equal(err.text, "a 7 b");
    assert_int_equal(pl_fail(&err, PL_EIO, "x: %s", err.text), PL_EIO);
    assert_string_equal(err.text, "x: a 7 b");
    assert_int_equal(pl_fail(NULL, PL_EIO, "dropped"), PL_EIO);
}

static void fail_errno_maps(void **state)
{
    struct pl_err err;

    (void)state;
    assert_int_equal(pl_fail_errno(&err, ENOENT, "%s", "/f"), PL_ENOENT);
    assert_string_equal(err.text, "/f: No such file or directory");
    assert_int_equal(pl_fail_errno(NULL, EEXIST, "x"), PL_EEXIST);
    assert_int_equal(pl_fail_errno(&err, ENOMEM, "x"), PL_ENOMEM);
    assert_int_equal(pl_fail_errno(&err, EACCES, "x"), PL_EIO);
}

static void prefix_goes_before(void **state)
{
    struct pl_err err = {.text = "inner"};

    (void)state;
    assert_int_equal(pl_err_prefix(&err, PL_EIO, "line %d", 3), PL_EIO);
    assert_string_equal(err.text, "line 3: inner");
    assert_int_equal(pl_err_prefix(NULL, PL_EIO, "x"), PL_EIO);
}

static void long_texts_are_cut_at_a_character(void **state)
{
    struct pl_err err;
    char s[3000];

    (void)state;
    memset(s, 'x', sizeof(s));
    s[sizeof(s) - 1] = '\0';
    pl_fail(&err, PL_EIO, "%s", s);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    /* the reason survives a long name */
    pl_fail_errno(&err, ENOENT, "%s", s);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_contains(err.text, "x: No such file or directory");
    pl_err_prefix(&err, PL_EIO, "%s", s);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);

    for (size_t off = 0; off < 4; off++) { /* é is two bytes, 😀 four: the cut falls inside */
        memset(s, 'x', off);
        for (size_t i = off; i + 4 < sizeof(s); i += 4)
            memcpy(s + i, "\xF0\x9F\x98\x80", 5);
        pl_fail(&err, PL_EIO, "%s", s);
        assert_int_equal((strlen(err.text) - off) % 4, 0);
        assert_in_range(strlen(err.text), sizeof(err.text) - 4, sizeof(err.text) - 1);
        pl_err_prefix(&err, PL_EIO, "y");
        assert_int_equal((strlen(err.text) - off - 3) % 4, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_and_exit_codes),
        cmocka_unit_test(fail_sets_one_line),
        cmocka_unit_test(fail_errno_maps),
        cmocka_unit_test(prefix_goes_before),
        cmocka_unit_test(long_texts_are_cut_at_a_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
