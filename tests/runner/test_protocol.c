/* Lines in and out: caps, junk, numbers, escapes, and the dispatcher over a pipe. */
#include "worker/runner/jsonout.h"
#include "worker/runner/protocol.h"
#include "worker/runner/serve.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct feed {
    int fd;
    const char *data;
    size_t n;
};

static void *feeder(void *arg)
{
    struct feed *f = arg;
    struct pl_err err;

    (void)!pl_write_all(f->fd, f->data, f->n, &err);
    close(f->fd);
    return NULL;
}

/* A protocol that reads `data`, written by another thread. */
static pthread_t start(struct pl_protocol *p, struct feed *f, int fds[2])
{
    pthread_t t;

    assert_int_equal(pipe(fds), 0);
    f->fd = fds[1];
    pl_protocol_init(p, fds[0], -1);
    assert_int_equal(pthread_create(&t, NULL, feeder, f), 0);
    return t;
}

static void lines_are_cut_and_capped(void **state)
{
    const size_t big = PL_PROTOCOL_LINE_MAX;
    char *data = malloc(3 * big), *line;
    struct feed f = {.data = data};
    struct pl_protocol p;
    struct pl_err err;
    size_t len;
    int fds[2];

    (void)state;
    assert_non_null(data);
    char *at = data;
    memcpy(at, "one\n\n \r\n", 8);
    at += 8;
    memset(at, 'x', big); /* the longest there may be */
    at += big;
    *at++ = '\n';
    memset(at, 'y', big + 1); /* one more than may be */
    at += big + 1;
    memcpy(at, "\ntwo\nno end", 11);
    f.n = (size_t)(at + 11 - data);
    pthread_t t = start(&p, &f, fds);
    assert_int_equal(pl_protocol_next(&p, &line, &len, &err), PL_OK);
    assert_string_equal(line, "one");
    assert_int_equal(pl_protocol_next(&p, &line, &len, &err), PL_OK);
    assert_int_equal(len, big);
    assert_int_equal(line[len - 1], 'x');
    assert_int_equal(pl_protocol_next(&p, &line, &len, &err), PL_ERANGE);
    assert_int_equal(pl_protocol_next(&p, &line, &len, &err), PL_OK);
    assert_string_equal(line, "two");
    assert_int_equal(pl_protocol_next(&p, &line, &len, &err), PL_OK);
    assert_null(line);
    pthread_join(t, NULL);
    close(fds[0]);
    pl_protocol_release(&p);
    free(data);
}

static void numbers_and_strings(void **state)
{
    const int64_t v[] = {0, -1, INT64_MAX, INT64_MIN, 10};
    const char text[] = "a\"b\\c\n\x01\x7f\xc3\xa9\xff\xed\xa0\x80\xf4\x90\x80\x80 \xe2\x82";
    struct pl_buf b;
    struct pl_jsonout o = {.buf = &b};

    (void)state;
    pl_buf_init(&b, 4096);
    pl_jsonout_i64s(&o, v, 5);
    pl_jsonout_hex64(&o, UINT64_C(0x0123456789abcdef));
    pl_jsonout_u64(&o, UINT64_MAX);
    pl_jsonout_u32s(&o, NULL, 0);
    assert_false(o.failed);
    assert_string_equal(b.data, "[0,-1,9223372036854775807,-9223372036854775808,10]"
                                "\"0123456789abcdef\"18446744073709551615[]");
    pl_buf_clear(&b);
    pl_jsonout_str(&o, text, sizeof(text) - 1);
    json_error_t e;
    json_t *j = json_loadb(b.data, b.len, JSON_DECODE_ANY, &e);
    if (!j)
        fail_msg("%s in %s", e.text, b.data);
#define BAD "\xef\xbf\xbd"
    assert_string_equal(json_string_value(j),
                        "a\"b\\c\n\x01\x7f\xc3\xa9" BAD BAD BAD BAD BAD BAD BAD BAD " " BAD BAD);
    json_decref(j);
    pl_buf_release(&b);
    pl_buf_init(&b, 8);
    pl_jsonout_str(&o, "longer than eight", 17);
    assert_true(o.failed);
    pl_buf_release(&b);
}

/* What `serve` answers to the lines of `requests`, without hello; an array. New reference. */
static json_t *converse(const char *requests, enum pl_status expected)
{
    int in[2], out[2];
    struct pl_protocol p;
    struct pl_err err = {""};
    json_t *all = json_array();
    char *line;
    size_t len;

    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    assert_int_equal(pl_write_all(in[1], requests, strlen(requests), &err), PL_OK);
    close(in[1]);
    /* Answers of these tests fit the pipe: one thread is enough. */
    assert_int_equal(pl_serve(in[0], out[1], &err), expected);
    close(in[0]);
    close(out[1]);
    pl_protocol_init(&p, out[0], -1);
    while (pl_protocol_next(&p, &line, &len, &err) == PL_OK && line) {
        json_t *j = json_loadb(line, len, 0, NULL);
        if (!j)
            fail_msg("not JSON: %s", line);
        json_array_append_new(all, j);
    }
    pl_protocol_release(&p);
    close(out[0]);
    assert_string_equal(pl_json_get_str(json_array_get(all, 0), "type", ""), "hello");
    assert_int_equal(pl_json_get_i64(json_array_get(all, 0), "protocol", 0), PL_PROTOCOL_VERSION);
    json_array_remove(all, 0);
    return all;
}

static void expect(const json_t *all, size_t i, int64_t id, const char *type)
{
    const json_t *j = json_array_get(all, i);
    char *text = json_dumps(j, 0);

    if (pl_json_get_i64(j, "id", -1) != id || strcmp(pl_json_get_str(j, "type", ""), type) != 0)
        fail_msg("answer %zu: %s", i, text);
    free(text);
}

static void bad_requests_are_answered(void **state)
{
    json_t *all =
        converse("not json\n"
                 "[]\n"
                 "{\"type\":\"trial\"}\n"
                 "{\"id\":-1,\"type\":\"trial\"}\n"
                 "{\"id\":1}\n"
                 "{\"id\":2,\"type\":\"dance\"}\n"
                 "{\"id\":3,\"type\":\"trial\",\"arm\":\"a\",\"context\":1,\"sample\":{}}\n"
                 "{\"id\":4,\"type\":\"trial\",\"arm\":7}\n"
                 "{\"id\":5,\"type\":\"load\"}\n"
                 "{\"id\":6,\"type\":\"load\",\"models\":{},\"arms\":{\"a\":{\"model\":\"m\"}}}\n"
                 "{\"id\":7,\"type\":\"describe\",\"model\":[]}\n"
                 "{\"id\":8,\"type\":\"ids\",\"model\":{\"engine\":\"sim\"},\"sample\":{}}\n"
                 "{\"id\":9,\"id\":9,\"type\":\"unload\"}\n"
                 "{\"id\":10,\"type\":\"unload\",\"models\":[\"x\"],\"who\":\"knows\"}\n",
                 PL_OK);

    (void)state;
    assert_int_equal(json_array_size(all), 14);
    for (size_t i = 0; i < 4; i++)
        expect(all, i, 0, "error");
    for (size_t i = 4; i < 12; i++)
        expect(all, i, (int64_t)i - 3, "error");
    expect(all, 12, 0, "error");
    expect(all, 13, 10, "unloaded");
    for (size_t i = 0; i < 13; i++)
        assert_false(json_is_true(json_object_get(json_array_get(all, i), "fatal")));
    json_decref(all);
}

static void ceilings_are_measured(void **state)
{
    json_t *all = converse("{\"id\":1,\"type\":\"ceilings\",\"threads\":1}\n"
                           "{\"id\":2,\"type\":\"ceilings\",\"threads\":-1}\n",
                           PL_OK);
    const json_t *c = json_array_get(all, 0);

    (void)state;
    expect(all, 0, 1, "ceilings");
    expect(all, 1, 2, "error");
    assert_int_equal(pl_json_get_i64(c, "threads", 0), 1);
    assert_true(pl_json_get_f64(c, "read_bytes_per_s", 0) > 1e7);
    assert_true(pl_json_get_f64(c, "flop_per_s", 0) > 1e7);
    assert_int_equal(strncmp(pl_json_get_str(c, "kind", ""), "f32 ", 4), 0);
    json_decref(all);
}

#define SIM "\"sim\":{\"engine\":\"sim\",\"virtual\":true,\"noise\":0.1,\"load_s\":2,\"new key\":1"
#define TRIAL(id, arm, more)                                                                       \
    "{\"type\":\"trial\",\"id\":" #id ",\"arm\":\"" arm                                            \
    "\",\"context\":64,\"sample\":{\"index\":3}" more "}\n"

static void a_sim_conversation(void **state)
{
    json_t *all = converse(
        "{\"type\":\"load\",\"id\":1,\"models\":{" SIM "}},\"arms\":{\"a\":{\"model\":\"sim\"},"
        "\"b\":{\"model\":\"sim\",\"draft\":{\"acceptance\":1,\"gamma\":3}}},"
        "\"generate\":{\"tokens\":5}}\n" TRIAL(2, "a", ",\"later\":[]") TRIAL(3, "b", "") TRIAL(
            4, "a", "") "{\"type\":\"unload\",\"id\":5,\"models\":[\"sim\"]}\n" TRIAL(6, "a", ""),
        PL_OK);
    const json_t *plain = json_array_get(all, 1), *draft = json_array_get(all, 2);

    (void)state;
    assert_int_equal(json_array_size(all), 6);
    expect(all, 0, 1, "loaded");
    assert_int_equal(pl_json_get_i64(json_array_get(all, 0), "load_ns", 0), 2000000000);
    expect(all, 1, 2, "result");
    assert_true(json_is_true(json_object_get(plain, "synthetic")));
    assert_int_equal(json_array_size(json_array_get(json_object_get(plain, "tokens"), 0)), 5);
    assert_int_equal(json_array_size(json_object_get(plain, "rounds")), 0);
    expect(all, 2, 3, "result");
    const json_t *counts = json_object_get(draft, "counts");
    assert_int_equal(json_array_size(json_array_get(json_object_get(draft, "rounds"), 0)), 1);
    assert_int_equal(pl_json_get_i64(counts, "drafted", 0), 3);
    assert_int_equal(pl_json_get_i64(counts, "accepted", 0), 3);
    assert_int_equal(pl_json_get_i64(counts, "cut", 9), 0);
    /* the same key, the same time */
    assert_int_equal(pl_json_get_i64(plain, "total_ns", 0),
                     pl_json_get_i64(json_array_get(all, 3), "total_ns", 1));
    expect(all, 4, 5, "unloaded");
    expect(all, 5, 6, "error");
    json_decref(all);
}

static void cold_fades_by_half(void **state)
{
    json_t *all = converse(
        "{\"type\":\"load\",\"id\":1,\"models\":{\"sim\":{\"engine\":\"sim\",\"virtual\":true,"
        "\"cold\":3}},\"arms\":{\"a\":{\"model\":\"sim\"}},\"generate\":{\"tokens\":1}}\n" TRIAL(
            2, "a", "") TRIAL(3, "a", "") TRIAL(4, "a", ",\"timed\":false"),
        PL_OK);
    const int64_t expected[] = {3 * 128000, 2 * 128000, 192000};

    (void)state;
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pl_json_get_i64(json_array_get(all, i + 1), "total_ns", 0), expected[i]);
    json_decref(all);
}

static void planted_oom_is_fatal(void **state)
{
    json_t *all = converse("{\"type\":\"load\",\"id\":1,\"models\":{" SIM
                           ",\"fail\":{\"oom\":1}}},\"arms\":{\"a\":{\"model\":\"sim\"}}}\n" TRIAL(
                               2, "a", ",\"timed\":false") TRIAL(3, "a", "") TRIAL(4, "a", ""),
                           PL_EPROTO);

    (void)state;
    assert_int_equal(json_array_size(all), 3);
    expect(all, 1, 2, "result"); /* warm-ups do not fail */
    expect(all, 2, 3, "error");
    assert_string_equal(pl_json_get_str(json_array_get(all, 2), "reason", ""), "oom");
    assert_true(json_is_true(json_object_get(json_array_get(all, 2), "fatal")));
    json_decref(all);
}

static void describe_tells_mistakes(void **state)
{
    json_t *all = converse(
        "{\"type\":\"describe\",\"id\":1,\"model\":{\"engine\":\"sim\"},\"arm\":{\"acceptance\":0."
        "5},"
        "\"contexts\":[64],\"tokens\":16}\n"
        "{\"type\":\"describe\",\"id\":2,\"model\":{\"engine\":\"sim\",\"noise\":-3},\"arm\":{}}\n"
        "{\"type\":\"describe\",\"id\":3,\"model\":{\"path\":\"/nonexistent\"},\"arm\":{}}\n"
        "{\"type\":\"describe\",\"id\":4,\"model\":{\"path\":\"/"
        "x\",\"device\":\"cuda\"},\"arm\":{}}\n",
        PL_OK);

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        expect(all, i, (int64_t)i + 1, "described");
        assert_int_equal(json_array_size(json_object_get(json_array_get(all, i), "errors")), i > 0);
    }
    assert_int_equal(pl_json_get_i64(json_array_get(all, 0), "max_rounds", 0), 15);
    assert_true(json_is_true(json_object_get(json_array_get(all, 0), "synthetic")));
    json_decref(all);
}

static void scores_are_told(void **state)
{
    struct pl_protocol p;
    struct pl_trial_result r;
    struct pl_err err;

    (void)state;
    pl_protocol_init(&p, -1, -1);
    pl_trial_result_init(&r);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pl_protocol_put_result(&p, 1, &r, &err), PL_OK);
        json_t *j = json_loadb(p.tx.data, p.tx.len, 0, NULL), *q = json_object_get(j, "quality");
        assert_int_equal(json_object_size(q), i ? 3 : 0);
        if (i) {
            assert_true(json_number_value(json_object_get(q, "perplexity")) == 1 / 3.0);
            assert_true(json_number_value(json_object_get(q, "f1")) == -1.2345678901234567e-300);
            assert_true(json_number_value(json_object_get(q, "accuracy")) == 1);
        }
        json_decref(j);
        pl_trial_result_quality(&r, "perplexity", 1 / 3.0);
        pl_trial_result_quality(&r, "f1", -1.2345678901234567e-300);
        pl_trial_result_quality(&r, "accuracy", 1);
        pl_trial_result_quality(&r, "rouge_l", __builtin_nan(""));
    }
    pl_protocol_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_cut_and_capped),  cmocka_unit_test(numbers_and_strings),
        cmocka_unit_test(bad_requests_are_answered), cmocka_unit_test(ceilings_are_measured),
        cmocka_unit_test(a_sim_conversation),        cmocka_unit_test(cold_fades_by_half),
        cmocka_unit_test(planted_oom_is_fatal),      cmocka_unit_test(describe_tells_mistakes),
        cmocka_unit_test(scores_are_told),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
