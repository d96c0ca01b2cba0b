/* What --resume shows when the sweep has changed. */
#include "unit.h"

static void assert_diff(const char *a, const char *b, const char *want)
{
    struct pl_buf out;
    struct pl_err err = {""};
    pl_buf_init(&out, 4096);
    assert_int_equal(pl_sweep_diff(a, b, &out, &err), PL_OK);
    assert_string_equal(out.data ? out.data : "", want);
    pl_buf_release(&out);
}

static void test_changes(void **state)
{
    (void)state;
    assert_diff("{\"a\":1}", "{\"a\":1}", "");
    assert_diff("{\"grid\":{\"contexts\":[1,2],\"samples\":3}}",
                "{\"grid\":{\"contexts\":[1,4],\"samples\":3}}",
                "- grid.contexts: [1,2]\n+ grid.contexts: [1,4]\n");
    assert_diff(
        "{\"arms\":[{\"name\":\"a\",\"scale\":1.0},{\"name\":\"b\",\"scale\":1.0}],\"z\":0}",
        "{\"arms\":[{\"name\":\"b\",\"scale\":2.0}],\"z\":0}",
        "- arms.a.name: \"a\"\n- arms.a.scale: 1.0\n- arms.b.scale: 1.0\n"
        "+ arms.b.scale: 2.0\n");
    assert_diff("{\"m\":{}}", "{\"m\":{\"x\":null}}", "- m: {}\n+ m.x: null\n");
}

static void test_cut(void **state)
{
    struct pl_buf out;
    struct pl_err err = {""};
    (void)state;
    pl_buf_init(&out, 32);
    assert_int_equal(pl_sweep_diff("{\"a\":1,\"b\":2,\"c\":3,\"d\":4}",
                                   "{\"a\":5,\"b\":6,\"c\":7,\"d\":8}", &out, &err),
                     PL_OK);
    assert_string_equal(out.data, "- a: 1\n- b: 2\n- c: 3\n…\n");
    pl_buf_release(&out);
}

static void test_broken(void **state)
{
    struct pl_buf out;
    struct pl_err err = {""};
    (void)state;
    pl_buf_init(&out, 1024);
    assert_int_equal(pl_sweep_diff("{", "{}", &out, &err), PL_EFORMAT);
    assert_non_null(strstr(err.text, "old sweep"));
    pl_buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_folder(test_changes),
        in_folder(test_cut),
        in_folder(test_broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
