#include "base/json.h"

#include "unit.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static json_t *parse(const char *text)
{
    struct pl_err err = {.text = ""};
    json_t *j = NULL;

    if (pl_json_parse("t", text, strlen(text), &j, &err))
        fail_msg("%s", err.text);
    return j;
}

static void errors_have_places(void **state)
{
    static const struct {
        const char *text, *where, *what;
    } cases[] = {
        {"{\"a\": 1,\n \"b\": }", "cfg.json:2:7: ", "unexpected token"},
        {"{\"a\": 1,\n\n \"a\": 2}", "cfg.json:3:4: ", "uplicate"},
        {"{\"a\": 1} x", "cfg.json:1:", "end of file"},
        {"", "cfg.json:1:0: ", ""},
        {"{\"a\": \"\xFF\"}", "cfg.json:1:7: ", "decode byte 0xff"},
        {"{\"a\": 99999999999999999999}", "cfg.json:1:", "too big integer"},
        {"3", "cfg.json:1:", ""},
    };
    json_t *j = NULL;
    struct pl_err err;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(pl_json_parse("cfg.json", cases[i].text, strlen(cases[i].text), &j, &err),
                         PL_EFORMAT);
        assert_int_equal(strncmp(err.text, cases[i].where, strlen(cases[i].where)), 0);
        assert_contains(err.text, cases[i].what);
        assert_null(j);
    }
    /* len counts, not the NUL */
    assert_int_equal(pl_json_parse("n", "{}garbage", 2, &j, &err), PL_OK);
    json_decref(j);
    /* deep nesting is an error, not a stack overflow */
    char deep[100001];
    memset(deep, '[', sizeof(deep) - 1);
    deep[sizeof(deep) - 1] = '\0';
    assert_int_equal(pl_json_parse("n", deep, sizeof(deep) - 1, &j, NULL), PL_EFORMAT);
}

static void dump_round_trips(void **state)
{
    struct pl_buf b;
    struct pl_err err;
    json_t *j =
        parse("{\"z\": 1, \"a\": [true, null, \"x\\ny\\u00e9\"], \"pi\": 0.1, \"e\": 1e300}");

    (void)state;
    pl_buf_init(&b, 200);
    assert_int_equal(pl_buf_add(&b, "> ", 2, &err), PL_OK);
    assert_int_equal(pl_json_dump(j, &b, &err), PL_OK);
    assert_string_equal(b.data, "> {\"z\":1,\"a\":[true,null,\"x\\ny\xC3\xA9\"],"
                                "\"pi\":0.10000000000000001,\"e\":1.0000000000000001e300}");
    json_t *again = parse(b.data + 2);
    assert_true(json_equal(j, again));
    json_decref(again);
    /* beyond the cap: unchanged */
    pl_buf_release(&b);
    pl_buf_init(&b, 10);
    assert_int_equal(pl_buf_add(&b, "> ", 2, &err), PL_OK);
    assert_int_equal(pl_json_dump(j, &b, &err), PL_ERANGE);
    assert_string_equal(b.data, "> ");
    assert_int_equal(b.len, 2);
    pl_buf_release(&b);
    json_decref(j);
}

static void typed_members(void **state)
{
    json_t *j = parse("{\"i\": -7, \"r\": 2.5, \"s\": \"x\", \"t\": true, \"n\": null, \"o\": {}}");
    struct pl_err err;
    int64_t i = 0;
    double f = 0;
    bool b = false;
    const char *s = NULL;

    (void)state;
    assert_int_equal(pl_json_i64(j, "i", 1, &i, &err), PL_OK);
    assert_int_equal(i, -7);
    assert_int_equal(pl_json_i64(j, "absent", 5, &i, &err), PL_OK);
    assert_int_equal(i, 5);
    assert_int_equal(pl_json_i64(j, "n", 6, &i, &err), PL_OK);
    assert_int_equal(i, 6);
    assert_int_equal(pl_json_i64(j, "r", 1, &i, &err), PL_EFORMAT);
    assert_string_equal(err.text, "\"r\": an integer is expected, not a real");
    assert_int_equal(i, 6); /* untouched */
    assert_int_equal(pl_json_f64(j, "i", 0, &f, &err), PL_OK);
    assert_true(f == -7.0);
    assert_int_equal(pl_json_f64(j, "r", 0, &f, &err), PL_OK);
    assert_true(f == 2.5);
    assert_int_equal(pl_json_f64(j, "s", 0, &f, &err), PL_EFORMAT);
    assert_int_equal(pl_json_bool(j, "t", false, &b, &err), PL_OK);
    assert_true(b);
    assert_int_equal(pl_json_bool(j, "i", false, &b, &err), PL_EFORMAT);
    assert_int_equal(pl_json_bool(j, "absent", true, &b, &err), PL_OK);
    assert_true(b);
    assert_int_equal(pl_json_str(j, "s", NULL, &s, &err), PL_OK);
    assert_string_equal(s, "x");
    assert_int_equal(pl_json_str(j, "o", NULL, &s, &err), PL_EFORMAT);
    assert_contains(err.text, "not an object");
    assert_int_equal(pl_json_str(j, "absent", NULL, &s, &err), PL_OK);
    assert_null(s);
    assert_string_equal(pl_json_get_str(j, "s", "d"), "x");
    assert_string_equal(pl_json_get_str(j, "i", "d"), "d");
    assert_int_equal(pl_json_get_i64(j, "i", 0), -7);
    assert_int_equal(pl_json_get_i64(j, "s", 3), 3);
    assert_true(pl_json_get_f64(j, "i", 0) == -7.0);
    assert_true(pl_json_get_f64(NULL, "i", 1.5) == 1.5);
    json_decref(j);
}

static void files(void **state)
{
    char path[] = "/tmp/paceline-json-XXXXXX";
    struct pl_err err;
    json_t *j = NULL;

    (void)state;
    close(mkstemp(path));
    assert_int_equal(pl_write_file_atomic(path, "{\"a\":\n[}", 8, &err), PL_OK);
    assert_int_equal(pl_json_read_file(path, PL_JSON_MAX, &j, &err), PL_EFORMAT);
    assert_contains(err.text, path);
    assert_contains(err.text, ":2:2: ");
    assert_int_equal(pl_json_read_file(path, 7, &j, &err), PL_ERANGE);
    assert_int_equal(pl_write_file_atomic(path, "[1]", 3, &err), PL_OK);
    assert_int_equal(pl_json_read_file(path, PL_JSON_MAX, &j, &err), PL_OK);
    assert_int_equal(json_array_size(j), 1);
    json_decref(j);
    (void)remove(path);
    assert_int_equal(pl_json_read_file(path, PL_JSON_MAX, &j, &err), PL_ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_have_places),
        cmocka_unit_test(dump_round_trips),
        cmocka_unit_test(typed_members),
        cmocka_unit_test(files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
