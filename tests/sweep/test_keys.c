/* The key table: its defaults pass its own checks, docs/SWEEP.md says what it says, and
 * did-you-mean means typos only. */
#include "base/buf.h"
#include "orchestrator/sweep_keys.h"
#include "orchestrator/sweep_suggest.h"
#include "unit.h"

static void test_documented(void **state)
{
    struct pl_buf doc;
    struct pl_err err = {""};
    int missing = 0;
    (void)state;
    pl_buf_init(&doc, 1 << 20);
    assert_int_equal(pl_read_file(PL_SOURCE_DIR "/docs/SWEEP.md", 1 << 20, &doc, &err), PL_OK);
    for (size_t i = 0; i < pl_sweep_n_keys; i++) {
        char row[1024];
        pl_key_doc_row(&pl_sweep_keys[i], row, sizeof row);
        if (strstr(doc.data, row))
            continue;
        print_message("docs/SWEEP.md lacks this row:\n%s\n", row);
        missing++;
    }
    pl_buf_release(&doc);
    assert_int_equal(missing, 0);
}

static void test_defaults(void **state)
{
    (void)state;
    for (size_t i = 0; i < pl_sweep_n_keys; i++) {
        const struct pl_sweep_key *k = &pl_sweep_keys[i];
        json_t *j = k->dflt ? json_loads(k->dflt, JSON_DECODE_ANY, NULL) : json_null();
        assert_non_null(j);
        if (json_is_number(j) && k->type != PL_KEY_U64)
            assert_true(json_number_value(j) >= k->min && json_number_value(j) <= k->max);
        if (json_is_string(j))
            assert_non_null(strstr(k->choices, json_string_value(j)));
        if (json_is_null(j) && k->dflt)
            assert_non_null(k->default_text);
        for (size_t other = 0; other < i; other++)
            assert_false(pl_sweep_keys[other].section == k->section &&
                         strcmp(pl_sweep_keys[other].name, k->name) == 0);
        json_decref(j);
    }
}

static void test_distance(void **state)
{
    static const struct {
        const char *a, *b;
        size_t d;
    } t[] = {
        {"", "", 0},       {"", "abc", 3},           {"abc", "abc", 0},
        {"ABC", "abc", 0}, {"abc", "acb", 1},        {"kitten", "sitting", 3},
        {"ca", "abc", 3},  {"samples", "sample", 1}, {"baseline", "base", 4},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        assert_int_equal(pl_word_distance(t[i].a, t[i].b), t[i].d);
        assert_int_equal(pl_word_distance(t[i].b, t[i].a), t[i].d);
    }
}

static void test_suggest(void **state)
{
    static const struct {
        const char *word, *best;
    } t[] = {
        {"sample", "samples"},
        {"smaples", "samples"},
        {"contxts", "contexts"},
        {"kv", NULL},
        {"zebra", NULL},
        {"SEED", "seed"},
        {"sede", "seed"},
        {"x", NULL},
        {"", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct pl_suggest s;
        pl_suggest_init(&s, t[i].word);
        pl_suggest_offer(&s, "seed");
        pl_suggest_offer(&s, "samples");
        pl_suggest_offer(&s, "contexts");
        if (t[i].best)
            assert_string_equal(s.best, t[i].best);
        else
            assert_null(s.best);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_folder(test_documented),
        in_folder(test_defaults),
        in_folder(test_distance),
        in_folder(test_suggest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
