#include "base/yaml.h"

#include "base/buf.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct pl_arena arena;

static int setup(void **state)
{
    (void)state;
    pl_arena_init(&arena);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    pl_arena_release(&arena);
    return 0;
}

static const struct pl_yaml *parse(const char *text)
{
    struct pl_err err = {.text = ""};
    struct pl_yaml *y = NULL;

    if (pl_yaml_parse("t.yaml", text, strlen(text), &arena, &y, &err))
        fail_msg("%s", err.text);
    return y;
}

static void assert_fails(const char *text, const char *where, const char *what)
{
    struct pl_err err = {.text = ""};
    struct pl_yaml *y = NULL;

    assert_int_equal(pl_yaml_parse("t.yaml", text, strlen(text), &arena, &y, &err), PL_ESWEEP);
    assert_null(y);
    if (strncmp(err.text, where, strlen(where)) != 0 || !strstr(err.text, what))
        fail_msg("'%s' does not say '%s… %s'", err.text, where, what);
}

static void assert_at(const struct pl_yaml *y, int line, int column)
{
    assert_non_null(y);
    assert_int_equal(y->line, line);
    assert_int_equal(y->column, column);
}

static void tree_with_places(void **state)
{
    const struct pl_yaml *y = parse("# sweep\n"
                                    "name: run é x\n"
                                    "data: {kind: text,   path: 'c.txt'}\n"
                                    "list:\n"
                                    "  - 1\n"
                                    "  -   two\n"
                                    "note: |\n"
                                    "  a\n"
                                    "  b\n"
                                    "none:\n"
                                    "\"q\": \"3\"\n");

    (void)state;
    assert_int_equal(y->kind, PL_YAML_MAP);
    assert_int_equal(y->n, 6);
    assert_at(y, 2, 1);
    assert_at(y->keys[1], 3, 1);
    const struct pl_yaml *v = pl_yaml_get(y, "name");
    assert_at(v, 2, 7);
    assert_string_equal(v->text, "run \xC3\xA9 x");
    assert_false(v->quoted);
    v = pl_yaml_get(y, "data");
    assert_at(v, 3, 7);
    assert_at(pl_yaml_get(v, "path"), 3, 28);
    assert_true(pl_yaml_get(v, "path")->quoted);
    v = pl_yaml_get(y, "list");
    assert_int_equal(v->kind, PL_YAML_SEQ);
    assert_null(v->keys);
    assert_int_equal(v->n, 2);
    assert_at(v->items[1], 6, 7);
    assert_string_equal(v->items[1]->text, "two");
    assert_null(pl_yaml_get(v, "two"));
    assert_string_equal(pl_yaml_get(y, "note")->text, "a\nb\n");
    assert_true(pl_yaml_get(y, "note")->quoted);
    assert_string_equal(pl_yaml_get(y, "none")->text, "");
    assert_false(pl_yaml_get(y, "none")->quoted);
    assert_true(pl_yaml_get(y, "q")->quoted);
    assert_null(pl_yaml_get(y, "absent"));
    assert_null(pl_yaml_get(NULL, "x"));
    assert_int_equal(parse("{}")->n, 0);
    assert_int_equal(parse("--- [a]\n...\n")->n, 1);
}

static void duplicate_keys_stay(void **state)
{
    const struct pl_yaml *y = parse("a: 1\nb: 2\na: 3\n");

    (void)state;
    assert_int_equal(y->n, 3);
    assert_string_equal(y->keys[2]->text, "a");
    assert_at(y->keys[2], 3, 1);
    assert_string_equal(pl_yaml_get(y, "a")->text, "1");
}

static void anchors_and_merges(void **state)
{
    const struct pl_yaml *y = parse("base: &b {model: llm, keep: 0.9}\n"
                                    "more: &m {keep: 0.1, extra: 1}\n"
                                    "same: *b\n"
                                    "one: {<<: *b, keep: 0.5}\n"
                                    "two: {<<: [*b, *m], x: 1}\n"
                                    "str: {'<<': 1}\n"
                                    "re: &b 7\n"
                                    "last: *b\n"
                                    "*b : key\n");

    (void)state;
    assert_ptr_equal(pl_yaml_get(y, "same"), pl_yaml_get(y, "base"));
    const struct pl_yaml *v = pl_yaml_get(y, "one");
    assert_int_equal(v->n, 2);
    assert_string_equal(v->keys[0]->text, "keep");
    assert_string_equal(pl_yaml_get(v, "keep")->text, "0.5");
    assert_string_equal(pl_yaml_get(v, "model")->text, "llm");
    assert_at(pl_yaml_get(v, "model"), 1, 18);
    v = pl_yaml_get(y, "two");
    assert_int_equal(v->n, 4);
    assert_string_equal(pl_yaml_get(v, "keep")->text, "0.9");
    assert_string_equal(pl_yaml_get(v, "extra")->text, "1");
    assert_string_equal(pl_yaml_get(pl_yaml_get(y, "str"), "<<")->text, "1");
    assert_string_equal(pl_yaml_get(y, "last")->text, "7");
    assert_string_equal(pl_yaml_get(y, "7")->text, "key");
}

static void tags(void **state)
{
    const struct pl_yaml *y = parse("[!!str 1, !!int \"2\", !!seq [], !!map {}, ! 3, !!float 1]");

    (void)state;
    assert_true(y->items[0]->quoted);
    assert_false(y->items[1]->quoted);
    assert_true(y->items[4]->quoted);
    assert_false(y->items[5]->quoted);
    assert_fails("a: !mine x", "t.yaml:1:4: ", "tags");
    assert_fails("a: !!python/object x", "t.yaml:1:4: ", "tag");
    assert_fails("a: !!binary x", "t.yaml:1:4: ", "tag");
    assert_fails("a: !!map x", "t.yaml:1:4: ", "tag");
    assert_fails("a: !!str [x]", "t.yaml:1:4: ", "tag");
}

static void errors_have_places(void **state)
{
    (void)state;
    assert_fails("a: 1\nb: [1, 2\nc: 3\n", "t.yaml:3:", "flow sequence");
    assert_fails("a: 1\n b: 2\n", "t.yaml:2:3: ", "mapping values");
    assert_fails("a:\n\t- 1\n", "t.yaml:2:1: ", "");
    assert_fails("a: *x\n", "t.yaml:1:4: ", "unknown anchor");
    assert_fails("a: &x [1, *x]\n", "t.yaml:1:11: ", "alias inside");
    assert_fails("a: 1\n---\nb: 2\n", "t.yaml:2:1: ", "more than one document");
    assert_fails("", "t.yaml:1:1: ", "empty");
    assert_fails("# only this\n", "t.yaml:2:1: ", "empty");
    assert_fails("a: 1\n? [x, y]\n: 2\n", "t.yaml:2:3: ", "key must be a scalar");
    assert_fails("a: 1\nb: \"x\\0y\"\n", "t.yaml:2:4: ", "NUL");
    assert_fails("a: 1\nb\xC3\xA9: \xFF\n", "t.yaml:2:5: ", "UTF-8");
    assert_fails("a: {<<: 3}\n", "t.yaml:1:9: ", "merges maps only");
    assert_fails("a: \"x\n", "t.yaml:2:1: ", "quoted scalar");
}

static void limits(void **state)
{
    struct pl_buf b;

    (void)state;
    pl_buf_init(&b, 1u << 24);
    for (int i = 0; i < 63; i++)
        assert_int_equal(pl_buf_add(&b, "[", 1, NULL), PL_OK);
    assert_int_equal(pl_buf_add(&b, "x", 1, NULL), PL_OK);
    for (int i = 0; i < 63; i++)
        assert_int_equal(pl_buf_add(&b, "]", 1, NULL), PL_OK);
    assert_int_equal(parse(b.data)->n, 1); /* 64 levels */
    pl_buf_clear(&b);
    for (int i = 0; i < 100000; i++)
        assert_int_equal(pl_buf_add(&b, "[", 1, NULL), PL_OK);
    assert_fails(b.data, "t.yaml:1:65: ", "deeply");

    /* ten levels of ten aliases each: 10^10 nodes for a reader, 110 in the file */
    pl_buf_clear(&b);
    assert_int_equal(pl_buf_addf(&b, NULL, "a0: &a0 x\n"), PL_OK);
    for (int i = 1; i <= 10; i++) {
        assert_int_equal(pl_buf_addf(&b, NULL, "a%d: &a%d [", i, i), PL_OK);
        for (int k = 0; k < 10; k++)
            assert_int_equal(pl_buf_addf(&b, NULL, "%s*a%d", k ? "," : "", i - 1), PL_OK);
        assert_int_equal(pl_buf_addf(&b, NULL, "]\n"), PL_OK);
    }
    assert_fails(b.data, "t.yaml:7:", "aliases");

    /* depth through aliases */
    pl_buf_clear(&b);
    assert_int_equal(pl_buf_addf(&b, NULL, "a0: &a0 x\n"), PL_OK);
    for (int i = 1; i <= 70; i++)
        assert_int_equal(pl_buf_addf(&b, NULL, "a%d: &a%d [*a%d]\n", i, i, i - 1), PL_OK);
    assert_fails(b.data, "t.yaml:64:", "deeply");

    pl_buf_clear(&b);
    for (int i = 0; i < 1000001; i++)
        assert_int_equal(pl_buf_add(&b, "- 1\n", 4, NULL), PL_OK);
    assert_fails(b.data, "t.yaml:1000000:3: ", "too many nodes");

    pl_buf_clear(&b);
    for (int i = 0; i < 1001; i++)
        assert_int_equal(pl_buf_addf(&b, NULL, "- &n%d x\n", i), PL_OK);
    assert_fails(b.data, "t.yaml:1001:3: ", "too many anchors");
    pl_buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tree_with_places, setup, teardown),
        cmocka_unit_test_setup_teardown(duplicate_keys_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(anchors_and_merges, setup, teardown),
        cmocka_unit_test_setup_teardown(tags, setup, teardown),
        cmocka_unit_test_setup_teardown(errors_have_places, setup, teardown),
        cmocka_unit_test_setup_teardown(limits, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
