/* Texts with a question: facts are the seed's, and a LongBench file that is none is told by its
 * line. */
#include "data/longbench.h"
#include "data/needle.h"
#include "data/sample.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct pl_err err;

static void facts_are_the_seeds(void **state)
{
    (void)state;
    for (uint32_t facts = 1; facts <= PL_NEEDLES_MAX; facts += 9) {
        char answer[8] = "", again[8] = "", other[8] = "";
        json_t *a = pl_needle_make(5, 3, facts, answer), *b = pl_needle_make(5, 3, facts, again);
        json_t *c = pl_needle_make(5, 4, facts, other);
        assert_true(a && json_equal(a, b) && !json_equal(a, c));
        assert_string_equal(answer, again);
        const json_t *list = json_object_get(a, "facts");
        double before = -1;
        size_t holders = 0;
        assert_int_equal(json_array_size(list), facts);
        for (size_t i = 0; i < facts; i++) {
            const json_t *o = json_array_get(list, i);
            const double at = json_number_value(json_object_get(o, "at"));
            const char *text = json_string_value(json_object_get(o, "text"));
            assert_true(at > before && at < 1 && floor(at * facts) == (double)i);
            before = at;
            holders += strstr(text, answer) != NULL;
            for (size_t k = 0; k < i; k++) /* every key once */
                assert_int_not_equal(
                    strncmp(text,
                            json_string_value(json_object_get(json_array_get(list, k), "text")),
                            strcspn(text, "0123456789")),
                    0);
        }
        assert_int_equal(holders, 1);
        json_decref(a);
        json_decref(b);
        json_decref(c);
    }
}

static void broken_lines_are_told(void **state)
{
    static const struct {
        const char *text, *says;
    } t[] = {
        {"", "no item, expected a JSON object a line"},
        {"\n \r\n", "no item"},
        {"[1]\n", "f:1: no JSON object"},
        {"{\"context\": \"c\", \"input\": \"i\", \"answers\": [\"a\"]}\n{\"context\n", "f:2:"},
        {"{\"input\": \"i\", \"answers\": [\"a\"]}", "f:1: \"context\" is missing"},
        {"{\"context\": \"c\", \"input\": 1, \"answers\": [\"a\"]}", "\"input\" is no text"},
        {"\n{\"context\": \"c\", \"input\": \"i\"}", "f:2: \"answers\" is missing"},
        {"{\"context\": \"c\", \"input\": \"i\", \"answers\": []}", "\"answers\" is empty"},
        {"{\"context\": \"c\", \"input\": \"i\", \"answers\": [\"a\", 2]}",
         "\"answers\"[1] is no text"},
        {"{\"context\": \"c\", \"input\": \"i\", \"answers\": [\"a\"], \"all_classes\": 3}",
         "\"all_classes\" is no list"},
        {"\xEF\xBB\xBF{}", "byte order mark"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct pl_longbench list = {NULL, 0};
        struct pl_arena arena;
        pl_arena_init(&arena);
        assert_int_equal(pl_longbench_parse("f", t[i].text, strlen(t[i].text), &arena, &list, &err),
                         PL_EFORMAT);
        if (!strstr(err.text, t[i].says))
            fail_msg("\"%s\" does not say \"%s\"", err.text, t[i].says);
        pl_arena_release(&arena);
    }
    assert_int_equal(pl_longbench_check_prompt("{input}", &err), PL_EFORMAT);
    assert_int_equal(pl_longbench_check_prompt("{context}{context}", &err), PL_EFORMAT);
    assert_int_equal(pl_longbench_check_prompt("{input}{context}{input}", &err), PL_EFORMAT);
    assert_int_equal(pl_longbench_check_prompt("x{context}y", &err), PL_OK);
}

static void items_become_prompts(void **state)
{
    static const char lines[] = "{\"context\": \"long\", \"input\": \"who?\", \"answers\": "
                                "[\"me\", \"I\"], \"all_classes\": null, \"length\": 3}\n"
                                "\n"
                                "{\"context\": \"c2\", \"input\": \"kind?\", \"answers\": [\"x\"], "
                                "\"all_classes\": [\"x\", \"y\"]}";
    const int64_t contexts[] = {64};
    char path[] = "/tmp/pl-longbench-XXXXXX", id[PL_SAMPLE_ID_MAX];
    struct pl_sample_scores v;
    struct pl_samples *s = NULL;
    int fd = mkstemp(path), classes = 0;

    (void)state;
    assert_true(fd >= 0 && write(fd, lines, sizeof lines - 1) == (ssize_t)sizeof lines - 1);
    close(fd);
    json_t *data = json_pack("{s:s,s:s,s:s}", "kind", "longbench", "path", path, "prompt",
                             "Q {input} in {context}.");
    assert_int_equal(pl_samples_open(data, 1, contexts, 1, 0, &s, &err), PL_OK);
    assert_int_equal(pl_samples_count(s), 2);
    assert_true(pl_samples_answered(s));
    for (uint32_t i = 0; i < 2; i++) {
        json_t *q = pl_samples_request(s, i);
        const char *body = json_string_value(json_object_get(q, "body"));
        const bool second = strcmp(body, "c2") == 0;
        pl_samples_id(s, i, id, sizeof id);
        assert_string_equal(strrchr(id, ':'), second ? ":3" : ":1");
        assert_string_equal(json_string_value(json_object_get(q, "head")),
                            second ? "Q kind? in " : "Q who? in ");
        assert_string_equal(json_string_value(json_object_get(q, "tail")), ".");
        pl_samples_score(s, i, second ? "x\ny" : "I.", &v);
        assert_true(isnan(v.accuracy) && isnan(v.f1) == second &&
                    isnan(v.classification) != second);
        assert_true(second ? v.classification == 1 : v.exact_match == 1 && v.f1 == 1);
        classes += second;
        json_decref(q);
    }
    assert_int_equal(classes, 1);
    pl_samples_free(s);
    s = NULL;
    assert_int_equal(pl_samples_open(data, 1, contexts, 1, 3, &s, &err), PL_ERANGE);
    assert_non_null(strstr(err.text, "at most 2 (or all)"));
    json_decref(data);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(facts_are_the_seeds),
                                       cmocka_unit_test(broken_lines_are_told),
                                       cmocka_unit_test(items_become_prompts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
