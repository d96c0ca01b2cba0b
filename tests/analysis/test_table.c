/* Every format of one hostile table, and the numbers that people read. */
#include "analysis/table.h"
#include "cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct pl_col cols[] = {{"name", PL_COL_TEXT, NULL, 0},
                                     {"n", PL_COL_INT, "trials", 0},
                                     {"ms", PL_COL_TIME, NULL, 0},
                                     {"ok", PL_COL_BOOL, NULL, 0},
                                     {"verdict", PL_COL_TEXT, NULL, PL_COL_VERDICT},
                                     {"spare", PL_COL_RATIO, NULL, PL_COL_WIDE}};

static void make(struct pl_table *t)
{
    pl_table_init(t, "odd", "Odd & ends", cols, 6);
    pl_table_row(t);
    pl_table_text(t, "a|b,\"c\"\n<d>&'e'\\f_%$#{}~^\x1b[31m\xff");
    pl_table_int(t, -7);
    pl_table_real(t, 0.1);
    pl_table_bool(t, true);
    pl_table_text(t, "FASTER (small)");
    pl_table_real(t, 1.0 / 3);
    pl_table_row(t);
    pl_table_text(t, "");
    pl_table_int(t, INT64_MAX);
    pl_table_real(t, NAN);
    pl_table_bool(t, false);
    pl_table_null(t, "n/a (needs 662)");
    pl_table_note(t, "synthetic: %d of <%d>", 1, 2);
}

static char *written(enum pl_format f)
{
    struct pl_table t;
    struct pl_out o;
    make(&t);
    pl_out_init(&o, 1 << 20);
    pl_table_write(&t, f, &o);
    assert_int_equal(o.st, PL_OK);
    char *text = strdup(o.buf.data);
    pl_out_release(&o);
    pl_table_release(&t);
    return text;
}

static void check(enum pl_format f, const char *expected)
{
    char *text = written(f);
    assert_string_equal(text, expected);
    free(text);
}

static void test_json(void **state)
{
    (void)state;
    check(PL_FORMAT_JSON,
          "{\"table\": \"odd\", \"rows\": [\n"
          "  {\"name\": \"a|b,\\\"c\\\"\\n<d>&'e'\\\\f_%$#{}~^?[31m?\", \"n\": -7, \"ms\": 0.1, "
          "\"ok\": true, \"verdict\": \"FASTER (small)\", \"spare\": 0.3333333333333333},\n"
          "  {\"name\": \"\", \"n\": 9223372036854775807, \"ms\": null, \"ok\": false, "
          "\"verdict\": null, \"spare\": null}\n]}\n");
}

static void test_csv(void **state)
{
    (void)state;
    check(PL_FORMAT_CSV, "name,n,ms,ok,verdict,spare\n"
                         "\"a|b,\"\"c\"\"\n<d>&'e'\\f_%$#{}~^?[31m?\",-7,0.1,true,"
                         "FASTER (small),0.3333333333333333\n"
                         "\"\",9223372036854775807,,false,,\n");
}

static void test_md(void **state)
{
    (void)state;
    check(
        PL_FORMAT_MD,
        "## Odd & ends\n\n| name | n | ms | ok | verdict | spare |\n|---|---:|---:|---|---|---:|\n"
        "| a\\|b,\"c\" \\<d>\\&'e'\\\\f_%$#{}~^?\\[31m? | -7 | 0.1000 | yes | FASTER (small) | "
        "0.3333 |\n"
        "|  | 9223372036854775807 |  | no | n/a (needs 662) |  |\n"
        "\nsynthetic: 1 of \\<2>\n");
}

static void test_tex(void **state)
{
    char *text = written(PL_FORMAT_TEX);
    (void)state;
    assert_non_null(strstr(text, "\\begin{tabular}{lrrllr}"));
    assert_non_null(strstr(text, "a\\textbar{}b,\\textquotedbl{}c\\textquotedbl{} "
                                 "\\textless{}d\\textgreater{}\\&'e'\\textbackslash{}f\\_\\%\\$\\#"
                                 "\\{\\}\\textasciitilde{}\\textasciicircum{}?[31m? & -7"));
    assert_non_null(strstr(text, "\\end{tabular}"));
    free(text);
}

static bool second(const struct pl_table *t, size_t row)
{
    return row + 1 == t->n_rows;
}

static void test_html_and_text(void **state)
{
    struct pl_table t;
    struct pl_out o;
    (void)state;
    make(&t);
    pl_out_init(&o, 1 << 20);
    pl_table_write_html(&t, true, &o);
    assert_int_equal(o.st, PL_OK);
    assert_null(strstr(o.buf.data, "<d>"));
    assert_non_null(strstr(o.buf.data, "a|b,&quot;c&quot;\n&lt;d&gt;&amp;&#39;e&#39;"));
    assert_non_null(strstr(o.buf.data, "<span class=\"verdict faster\">FASTER (small)</span>"));
    assert_non_null(strstr(o.buf.data, "synthetic: 1 of &lt;2&gt;"));
    assert_null(strstr(o.buf.data, "spare"));
    pl_out_release(&o);

    pl_out_init(&o, 1 << 20);
    pl_table_write_text(&t, 0, NULL, false, 0, &o);
    assert_null(strchr(o.buf.data, '\x1b'));
    assert_null(strstr(o.buf.data, "0.3333"));
    pl_buf_clear(&o.buf);
    pl_table_write_text(&t, 1, NULL, true, 0, &o);
    assert_non_null(strstr(o.buf.data, "\x1b[32mFASTER (small)\x1b[0m"));
    assert_non_null(strstr(o.buf.data, "… 1 more rows"));
    pl_buf_clear(&o.buf);
    pl_table_write_text(&t, 0, second, false, 0, &o);
    assert_null(strstr(o.buf.data, "FASTER"));
    assert_non_null(strstr(o.buf.data, "n/a (needs 662)"));
    pl_out_release(&o);
    pl_table_release(&t);
}

/* Wider than the screen: what all rows say alike stands once below, from the last column on. */
static void test_narrow(void **state)
{
    static const struct pl_col cols[] = {{"arm", PL_COL_TEXT, NULL, 0},
                                         {"metric", PL_COL_TEXT, NULL, 0},
                                         {"pairs", PL_COL_INT, NULL, 0}};
    struct pl_table t;
    struct pl_out o;
    (void)state;
    pl_table_init(&t, "narrow", "Narrow", cols, 3);
    for (int i = 0; i < 2; i++) {
        pl_table_row(&t);
        pl_table_text(&t, i ? "b" : "a");
        pl_table_text(&t, "e2e");
        pl_table_int(&t, 12);
    }
    pl_out_init(&o, 1 << 20);
    pl_table_write_text(&t, 0, NULL, false, 18, &o);
    assert_string_equal(o.buf.data, "arm  metric  pairs\na    e2e        12\nb    e2e        12\n");
    pl_buf_clear(&o.buf);
    pl_table_write_text(&t, 0, NULL, false, 17, &o);
    assert_string_equal(o.buf.data, "arm  metric\na    e2e\nb    e2e\nin all rows: pairs 12\n");
    pl_out_release(&o);
    pl_table_release(&t);
}

static void test_numbers(void **state)
{
    static const struct {
        double v;
        const char *sig;
    } cases[] = {{0, "0"},
                 {1, "1.000"},
                 {12345.6, "12346"},
                 {0.00123456, "0.001235"},
                 {-3.14159, "-3.142"},
                 {1e20, "1.000e+20"},
                 {1e-9, "1.000e-09"}};
    static const double exact[] = {0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, -0.0, 123456789};
    char text[64];
    struct pl_out o;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pl_format_sig(cases[i].v, text, sizeof text);
        assert_string_equal(text, cases[i].sig);
    }
    pl_format_bytes(3 << 20, text, sizeof text);
    assert_string_equal(text, "3.000 MiB");
    pl_format_bytes(1023, text, sizeof text);
    assert_string_equal(text, "1023 B");
    for (size_t i = 0; i < sizeof exact / sizeof exact[0]; i++) {
        pl_out_init(&o, 100);
        pl_out_num(&o, exact[i]);
        assert_true(strtod(o.buf.data, NULL) == exact[i]);
        pl_out_release(&o);
    }
}

static void test_clean(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {{"naïve 模 🙂", "naïve 模 🙂"},
                 {"\xc0\xaf \xe0\x80\x80 \xed\xa0\x80 \xf5\x80\x80\x80", "?? ??? ??? ????"},
                 {"cut \xe6\xa8", "cut ??"},
                 {"a\x01\x7f\r\tb\nc \xc2\x9b", "a???\tb\nc ??"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[64];
        snprintf(text, sizeof text, "%s", cases[i].in);
        pl_text_clean(text);
        assert_string_equal(text, cases[i].out);
    }
    assert_int_equal(pl_text_width("naïve 模"), 7);
}

/* The first failure sticks and is told at the end. */
static void test_failure(void **state)
{
    struct pl_table t;
    struct pl_out o;
    struct pl_err err;
    (void)state;
    pl_out_init(&o, 10);
    pl_out_text(&o, "12345678");
    pl_out_f(&o, "%d", 123);
    pl_out_text(&o, "9");
    assert_int_not_equal(pl_out_status(&o, &err), PL_OK);
    assert_string_equal(o.buf.data, "12345678");
    pl_out_release(&o);

    pl_table_init(&t, "t", "T", cols, 2);
    pl_table_row(&t);
    pl_table_int(&t, 1);
    pl_table_int(&t, 1);
    pl_table_int(&t, 1); /* one too many */
    pl_out_init(&o, 1000);
    pl_table_write(&t, PL_FORMAT_CSV, &o);
    assert_int_not_equal(o.st, PL_OK);
    pl_out_release(&o);
    pl_table_release(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json),    cmocka_unit_test(test_csv),
        cmocka_unit_test(test_md),      cmocka_unit_test(test_tex),
        cmocka_unit_test(test_numbers), cmocka_unit_test(test_html_and_text),
        cmocka_unit_test(test_narrow),  cmocka_unit_test(test_clean),
        cmocka_unit_test(test_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
