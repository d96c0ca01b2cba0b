/* Scenes and their questions: trees and instruction files as their users have them, 10 970 samples
 * in no time, and every broken file told by its place. */
#include "data/scenes.h"

#include "base/clock.h"
#include "data/answer_score.h"
#include "data/questions.h"
#include "data/sample.h"

#include "../folder.h"

static struct pl_err err;

static enum pl_status try_open(const char *kind, const char *questions, int n_questions,
                               uint64_t seed, struct pl_samples **out)
{
    const int64_t contexts[] = {PL_CONTEXT_AUTO};
    json_t *data =
        json_pack("{s:s,s:s,s:s?,s:i,s:f,s:b}", "kind", kind, "dir", "D", "questions", questions,
                  "n_questions", n_questions, "max_window_ms", 100.0, "cache_vision", 0);
    err.text[0] = '\0';
    enum pl_status st = pl_samples_open(data, seed, contexts, 1, 0, out, &err);
    json_decref(data);
    return st;
}

static struct pl_samples *open_list(const char *kind, const char *questions, int n_questions)
{
    struct pl_samples *s = NULL;
    if (try_open(kind, questions, n_questions, 1, &s) != PL_OK)
        fail_msg("%s", err.text);
    return s;
}

/* The request of the sample of that name; NULL: there is none. */
static json_t *sample_named(const struct pl_samples *s, const char *name)
{
    char id[PL_SAMPLE_ID_MAX];
    for (uint32_t i = 0; i < pl_samples_count(s); i++) {
        pl_samples_id(s, i, id, sizeof id);
        if (strcmp(id, name) == 0)
            return pl_samples_request(s, i);
    }
    return NULL;
}

static const char *member(const json_t *o, const char *key)
{
    return pl_json_get_str(o, key, "-");
}

static void test_tree(void **state)
{
    struct pl_samples *s;
    json_t *r;
    (void)state;
    put("D/event_npy/a/2.npy", "x");
    put("D/event_npy/a/10.npy", "x");
    put("D/event_npy/b/0.npy", "x");
    put("D/event_npy/b/.0.npy.swp", "x");
    put("D/event_npy/b/notes.txt", "x");
    put("D/mp4/a/2.mp4", "x");
    put("D/mp4/a/3.mp4", "x");
    put("D/event_image/a/2_1.png", "x");
    put("D/event_image/a/2_0.png", "x");
    put("D/event_image/a/preview.png", "x");
    put("q.txt", "\xEF\xBB\xBF"
                 "12\tWhat is it?\r\n\r\n3\t  How many? \r\nAnd this one\r\n9\tLast");
    s = open_list("dsec", "q.txt", 3);
    assert_int_equal(pl_samples_count(s), 4 * 3);
    assert_int_equal(pl_scenes_count(pl_samples_scenes(s)), 4);
    assert_false(pl_samples_answered(s));
    assert_null(pl_samples_answer(s, 0));
    r = sample_named(s, "a/2 × What is it?");
    assert_non_null(r);
    assert_string_equal(member(r, "kind"), "dsec");
    assert_string_equal(member(r, "scene"), "a/2");
    assert_string_equal(member(r, "events"), "D/event_npy/a/2.npy");
    assert_string_equal(member(r, "video"), "D/mp4/a/2.mp4");
    assert_string_equal(member(r, "question"), "What is it?");
    assert_true(json_is_false(json_object_get(r, "cache_vision")));
    assert_int_equal(json_array_size(json_object_get(r, "images")), 2);
    assert_string_equal(json_string_value(json_array_get(json_object_get(r, "images"), 1)),
                        "D/event_image/a/2_1.png");
    json_decref(r);
    r = sample_named(s, "a/3 × And this one"); /* a clip without events */
    assert_true(json_is_null(json_object_get(r, "events")));
    json_decref(r);
    assert_null(sample_named(s, "b/0 × Last"));
    pl_samples_free(s);
}

static const char instructions[] =
    "\xEF\xBB\xBF[{\"id\": \"one\", \"event_data\": \"event_npy/a/1.npy\", \"extra\": [1],\r\n"
    " \"conversations\": [{\"from\": \"human\", \"value\": \"<event>\\nHow many?\"},"
    " {\"from\": \"gpt\", \"value\": \" Two. \"}, {\"from\": \"human\", \"value\": "
    "\"Which?\"}]},\r\n"
    "{\"id\": 7, \"event_data\": \"event_npy/a/1.npy\", \"conversations\": ["
    "{\"from\": \"human\", \"value\": \"Where?\"}, {\"from\": \"gpt\", \"value\": \"Left\"}]},\r\n"
    "{\"id\": \"two\", \"video\": \"b.mp4\", \"conversations\": ["
    "{\"from\": \"human\", \"value\": \"Which?<video>\"}, {\"from\": \"human\", \"value\": "
    "\"Which?\"}]}]\r\n";

static void test_instructions(void **state)
{
    struct pl_samples *s;
    char id[PL_SAMPLE_ID_MAX];
    json_t *r;
    int answers = 0;
    (void)state;
    put("D/q.json", instructions);
    put("D/event_npy/a/1.npy", "x");
    put("D/mp4/a/1.mp4", "x");
    s = open_list("eventgpt", NULL, 10); /* the only .json of the folder */
    assert_int_equal(pl_samples_count(s), 5);
    assert_int_equal(pl_scenes_count(pl_samples_scenes(s)), 2);
    assert_true(pl_samples_answered(s));
    r = sample_named(s, "one × How many?");
    assert_string_equal(member(r, "events"), "D/event_npy/a/1.npy");
    assert_string_equal(member(r, "video"), "D/mp4/a/1.mp4");
    assert_string_equal(member(r, "question"), "How many?");
    json_decref(r);
    r = sample_named(s, "two × Which? #2");
    assert_string_equal(member(r, "video"), "D/b.mp4");
    json_decref(r);
    for (uint32_t i = 0; i < 5; i++) {
        const char *a = pl_samples_answer(s, i);
        pl_samples_id(s, i, id, sizeof id);
        answers += a != NULL;
        if (strcmp(id, "one × How many?") == 0)
            assert_string_equal(a, "Two.");
        if (strcmp(id, "7 × Where?") == 0)
            assert_string_equal(a, "Left");
    }
    assert_int_equal(answers, 2);
    pl_samples_free(s);
    s = open_list("eventgpt", "D/q.json", 1); /* of a scene, not of an item */
    assert_int_equal(pl_samples_count(s), 2);
    pl_samples_free(s);
    s = open_list("dsec", "D/q.json", 10); /* scenes go by SEQ/N */
    r = sample_named(s, "a/1 × How many?");
    assert_non_null(r);
    json_decref(r);
    pl_samples_free(s);
    put("list.txt", "One?\nTwo?\nThree?\n"); /* in place of the questions in the JSON */
    s = open_list("eventgpt", "list.txt", 2);
    assert_int_equal(pl_samples_count(s), 2 * 2);
    assert_false(pl_samples_answered(s));
    pl_samples_free(s);
}

static const struct {
    const char *text, *said;
} bad_json[] = {
    {"[1, 2", "q.json:1:"},
    {"{}", "q.json: it is an object, expected a list of items"},
    {"[]", "q.json: it is an empty list, expected a list of items"},
    {"[5]", "q.json: item 0: it is a whole number, expected an object of id, event_data and "
            "conversations"},
    {"[{\"event_data\": \"e\"}]", "q.json: item 0: id is missing, expected a string"},
    {"[{\"id\": [], \"event_data\": \"e\"}]", "q.json: item 0: id is a list, expected a string"},
    {"[{\"id\": \"a\"}]", "q.json: item 0 (id a): event_data is missing, expected a string"},
    {"[{\"id\": \"a\", \"event_data\": 3}]",
     "q.json: item 0 (id a): event_data is a whole number, expected a string"},
    {"[{\"id\": \"a\", \"event_data\": \"e\"}]",
     "q.json: item 0 (id a): conversations is missing, expected a list of questions and answers"},
    {"[{\"id\": \"a\", \"event_data\": \"e\", \"conversations\": []}]",
     "q.json: item 0 (id a): conversations is empty, expected at least one question"},
    {"[{\"id\": \"a\", \"event_data\": \"e\", \"conversations\": [7]}]",
     "q.json: item 0 (id a): conversations[0] is a whole number, expected an object of from and "
     "value"},
    {"[{\"id\": 1, \"event_data\": \"e\", \"conversations\": [{\"from\": \"human\", \"value\": "
     "\"q\"}]},{\"id\": 2, \"event_data\": \"e\", \"conversations\": [{\"from\": \"user\"}]}]",
     "q.json: item 1 (id 2): conversations[0].from is \"user\", expected human or gpt"},
    {"[{\"id\": 1, \"event_data\": \"e\", \"conversations\": [{\"from\": \"gpt\", \"value\": "
     "\"q\"}]}]",
     "q.json: item 0 (id 1): conversations[0].from is gpt, expected human: an answer needs its "
     "question before it"},
    {"[{\"id\": 1, \"event_data\": \"e\", \"conversations\": [{\"from\": \"human\"}]}]",
     "q.json: item 0 (id 1): conversations[0].value is missing, expected a string"},
    {"[{\"id\": 1, \"event_data\": \"e\", \"conversations\": [{\"from\": \"human\", \"value\": \" "
     "\\n\"}]}]",
     "q.json: item 0 (id 1): conversations[0].value is empty, expected text"},
    {"[{\"id\": 1, \"event_data\": \"e\", \"conversations\": [{\"from\": \"human\", \"value\": "
     "\"<event>\\n\"}]}]",
     "q.json: item 0 (id 1): conversations[0].value is a mark without a question, expected text"},
    {"[{\"id\": 1, \"id\": 2}]", "q.json:1:"},
};

static void test_bad_json(void **state)
{
    (void)state;
    mkdir("D", 0700);
    for (size_t i = 0; i < sizeof bad_json / sizeof bad_json[0]; i++) {
        struct pl_samples *s = NULL;
        put("q.json", bad_json[i].text);
        assert_int_equal(try_open("eventgpt", "q.json", 10, 1, &s), PL_EFORMAT);
        assert_null(s);
        if (strncmp(err.text, bad_json[i].said, strlen(bad_json[i].said)) != 0)
            fail_msg("\"%s\" instead of \"%s\"", err.text, bad_json[i].said);
    }
}

static void test_bad_lists(void **state)
{
    static const struct {
        const char *text;
        size_t n;
        const char *said;
    } bad[] = {
        {"", 0, "q.txt: no question in it, expected one a line"},
        {"\r\n \n", 4, "q.txt: no question in it, expected one a line"},
        {"12\tfine\nten\tWhat?\n", 19, "q.txt:2: \"ten\", expected COUNT<TAB>QUESTION"},
        {"12\t \n", 5, "q.txt:1: a count and no question"},
        {"a\0b\n", 4, "q.txt:1: a zero byte, expected text"},
        {"fine\n\xff\n", 7, "q.txt:"},
    };
    (void)state;
    put("D/event_npy/a/0.npy", "x");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct pl_samples *s = NULL;
        put_bytes("q.txt", bad[i].text, bad[i].n);
        assert_int_equal(try_open("dsec", "q.txt", 10, 1, &s), PL_EFORMAT);
        if (strncmp(err.text, bad[i].said, strlen(bad[i].said)) != 0)
            fail_msg("\"%s\" instead of \"%s\"", err.text, bad[i].said);
    }
}

static void test_nothing_there(void **state)
{
    struct pl_samples *s = NULL;
    (void)state;
    mkdir("D", 0700);
    put("q.txt", "What?\n");
    assert_int_equal(try_open("dsec", "q.txt", 1, 1, &s), PL_ENOENT);
    assert_non_null(strstr(err.text, "no scenes in it"));
    assert_int_equal(try_open("dsec", NULL, 1, 1, &s), PL_EUSAGE);
    assert_non_null(strstr(err.text, "data.questions is missing"));
    assert_int_equal(try_open("dsec", "none.txt", 1, 1, &s), PL_ENOENT);
    assert_int_equal(try_open("eventgpt", "q.txt", 1, 1, &s), PL_EUSAGE);
    put("D/a.json", instructions);
    put("D/b.json", instructions);
    assert_int_equal(try_open("eventgpt", NULL, 1, 1, &s), PL_EUSAGE);
    assert_non_null(strstr(err.text, "more than one .json"));
}

/* The order is the seed's, a scene's questions stay together, the first N are the first of all. */
static void test_order(void **state)
{
    struct pl_samples *a = NULL, *b = NULL, *c = NULL;
    char path[64], x[PL_SAMPLE_ID_MAX], y[PL_SAMPLE_ID_MAX];
    int64_t contexts[] = {PL_CONTEXT_AUTO};
    int moved = 0;
    (void)state;
    for (int i = 0; i < 40; i++) {
        snprintf(path, sizeof path, "D/event_npy/s/%d.npy", i);
        put(path, "x");
    }
    put("q.txt", "One?\nTwo?\n");
    assert_int_equal(try_open("dsec", "q.txt", 2, 1, &a), PL_OK);
    assert_int_equal(try_open("dsec", "q.txt", 2, 2, &b), PL_OK);
    for (uint32_t i = 0; i < 80; i++) {
        pl_samples_id(a, i, x, sizeof x);
        pl_samples_id(b, i, y, sizeof y);
        moved += strcmp(x, y) != 0;
        assert_non_null(strstr(x, i % 2 ? " × Two?" : " × One?"));
    }
    assert_true(moved > 40);
    json_t *data = json_pack("{s:s,s:s,s:s,s:i}", "kind", "dsec", "dir", "D", "questions", "q.txt",
                             "n_questions", 2);
    assert_int_equal(pl_samples_open(data, 1, contexts, 1, 7, &c, &err), PL_OK);
    assert_int_equal(pl_samples_count(c), 7);
    pl_samples_id(a, 6, x, sizeof x);
    pl_samples_id(c, 6, y, sizeof y);
    assert_string_equal(x, y);
    pl_samples_free(c);
    assert_int_equal(pl_samples_open(data, 1, contexts, 1, 81, &c, &err), PL_ERANGE);
    assert_non_null(strstr(err.text, "expected at most 80"));
    contexts[0] = 64;
    assert_int_equal(pl_samples_open(data, 1, contexts, 1, 7, &c, &err), PL_ERANGE);
    json_decref(data);
    pl_samples_free(a);
    pl_samples_free(b);
}

/* A long name is cut, and still the name of one sample. */
static void test_long_names(void **state)
{
    char text[700], a[PL_SAMPLE_ID_MAX], b[PL_SAMPLE_ID_MAX];
    struct pl_samples *s;
    (void)state;
    put("D/event_npy/s/0.npy", "x");
    memset(text, 'w', sizeof text);
    memcpy(text + 160, "é", 2);
    text[300] = '\n';
    memcpy(text + 160 + 301, "é", 2);
    text[601] = '!';
    text[602] = '\n';
    text[603] = '\0';
    put("q.txt", text);
    s = open_list("dsec", "q.txt", 2);
    assert_int_equal(pl_samples_count(s), 2);
    pl_samples_id(s, 0, a, sizeof a);
    pl_samples_id(s, 1, b, sizeof b);
    assert_string_not_equal(a, b);
    assert_true(strlen(a) < 200);
    assert_true(pl_samples_id_size(s) <= PL_SAMPLE_ID_MAX);
    pl_samples_free(s);
}

static const char npy[] = "\x93NUMPY\x01\x00\x1e\x00{'descr': '|O', 'shape': ()}.\n\x80\x02}.";
static const char mp4[] = "\0\0\0\x10"
                          "ftypisom"
                          "\0\0\0\0"
                          "\0\0\0\x08"
                          "moov"
                          "\0\0\0\x0c"
                          "mdatABCD";

static void test_check(void **state)
{
    struct pl_scene_check c;
    struct pl_samples *s;
    char first[65], again[65];
    (void)state;
    put_bytes("D/event_npy/s/0.npy", npy, sizeof npy - 1);
    put_bytes("D/event_npy/s/1.npy", npy, sizeof npy - 2); /* cut off */
    put("D/event_npy/s/2.npy", "");
    put_bytes("D/event_npy/s/3.npy", mp4, sizeof mp4 - 1);
    put_bytes("D/event_npy/s/4.npy", npy, 40);
    put_bytes("D/mp4/s/0.mp4", mp4, sizeof mp4 - 1);
    put_bytes("D/mp4/s/1.mp4", mp4, sizeof mp4 - 2); /* cut off */
    put_bytes("D/mp4/s/2.mp4", mp4, 16);             /* no index */
    put("D/mp4/s/3.mp4", "RIFF....AVI LIST");
    put("q.txt", "What?\n");
    s = open_list("dsec", "q.txt", 1);
    pl_scenes_check(pl_samples_scenes(s), PL_SCENE_EVENTS, &c);
    assert_int_equal(c.scenes, 5);
    assert_int_equal(c.absent, 0);
    assert_int_equal(c.broken, 4);
    assert_non_null(strstr(c.first, "D/event_npy/s/"));
    pl_scenes_check(pl_samples_scenes(s), PL_SCENE_VIDEO, &c);
    assert_int_equal(c.absent, 1); /* s/4 has none */
    assert_int_equal(c.broken, 3);
    assert_int_equal(pl_scenes_hash(pl_samples_scenes(s), first, &err), PL_OK);
    put_bytes("D/mp4/s/0.mp4", mp4, sizeof mp4 - 2);
    assert_int_equal(pl_scenes_hash(pl_samples_scenes(s), again, &err), PL_OK);
    assert_string_not_equal(first, again);
    put_bytes("D/mp4/s/0.mp4", mp4, sizeof mp4 - 1);
    assert_int_equal(pl_scenes_hash(pl_samples_scenes(s), again, &err), PL_OK);
    assert_string_equal(first, again);
    pl_samples_free(s);
    assert_int_equal(try_open("dsec", "q.txt", 1, 99, &s), PL_OK); /* another order */
    assert_int_equal(pl_scenes_hash(pl_samples_scenes(s), again, &err), PL_OK);
    assert_string_equal(first, again);
    unlink("D/event_npy/s/0.npy");
    pl_scenes_check(pl_samples_scenes(s), PL_SCENE_EVENTS, &c);
    assert_int_equal(c.absent, 1);
    pl_samples_free(s);
}

/* The size of the whole DSEC split: 1 097 scenes of ten questions. */
static void test_large(void **state)
{
    char path[64], id[PL_SAMPLE_ID_MAX];
    struct pl_samples *s;
    int64_t began, ns;
    size_t bytes = 0;
    (void)state;
    for (int i = 0; i < 1097; i++) {
        snprintf(path, sizeof path, "D/event_npy/zurich_city_%02d_a/%d.npy", i % 20, i / 20);
        put(path, "x");
        snprintf(path, sizeof path, "D/mp4/zurich_city_%02d_a/%d.mp4", i % 20, i / 20);
        put(path, "x");
    }
    put("q.txt", "1\tQ0?\n1\tQ1?\n1\tQ2?\n1\tQ3?\n1\tQ4?\n1\tQ5?\n1\tQ6?\n1\tQ7?\n1\tQ8?\n1\tQ9?\n"
                 "1\tQ10?\n");
    began = pl_now_ns();
    s = open_list("dsec", "q.txt", 10);
    for (uint32_t i = 0; i < pl_samples_count(s); i++) {
        json_t *r = pl_samples_request(s, i);
        pl_samples_id(s, i, id, sizeof id);
        bytes += strlen(id) + strlen(member(r, "question"));
        json_decref(r);
    }
    ns = pl_now_ns() - began;
    assert_int_equal(pl_samples_count(s), 10970);
    assert_true(bytes > 10970);
    print_message("10970 samples listed and named in %.0f ms\n", (double)ns / 1e6);
    assert_true(ns < PL_NS_PER_S);
    pl_samples_free(s);
}

static void test_score(void **state)
{
    static const struct {
        const char *answer, *right;
        double score;
    } t[] = {
        {"Two.", "two", 1},
        {"2", "two", 1},
        {"There are two shapes", "There are 2 shapes.", 1},
        {"The square moves to the LEFT!", "the square moves to left", 1},
        {"It doesn't", "It doesnt", 1},
        {"three", "two", 0},
        {"", "two", 0},
        {"two two", "two", 0},
        /* more than eight words: content words. 6 of 8 and 8 are common */
        {"A large red circle is at the middle center, and it moves fast up.",
         "A small red circle is at the middle center, and it moves fast down.", 6. * 2 / 16},
        {"The large red circle moves fast to the right while a small blue square rests.",
         "The large red circle moves fast to the right while a small blue square rests.", 1},
        {"red red red", "a red circle and a blue square are seen in this wide scene",
         2. * 1 / (3 + 7)},
        {"", "a red circle and a blue square are seen in this wide scene", 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++)
        if (pl_answer_score(t[i].answer, t[i].right) != t[i].score)
            fail_msg("\"%s\" for \"%s\": %.17g instead of %.17g", t[i].answer, t[i].right,
                     pl_answer_score(t[i].answer, t[i].right), t[i].score);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_folder(test_tree),         in_folder(test_instructions),  in_folder(test_bad_json),
        in_folder(test_bad_lists),    in_folder(test_nothing_there), in_folder(test_order),
        in_folder(test_long_names),   in_folder(test_check),         in_folder(test_large),
        cmocka_unit_test(test_score),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
