/* A runner that crashes, hangs, babbles or cannot start is a reason and a text, within its
 * deadline. */
#include "base/clock.h"
#include "worker/rank/runner.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define S PL_NS_PER_S
#define MS PL_NS_PER_MS

static struct pl_runner *start_exec(const char *const *exec, int64_t hello_ns)
{
    const struct pl_runner_opts opts = {
        .program = FAKE_RUNNER, .exec = exec, .hello_timeout_ns = hello_ns};
    struct pl_runner *r = NULL;
    struct pl_err err;

    assert_int_equal(pl_runner_start(&opts, &r, &err), PL_OK);
    return r;
}

static struct pl_runner *start(const char *mode)
{
    const char *const exec[] = {FAKE_RUNNER, mode, NULL};

    return start_exec(exec, 20 * S);
}

/* Pumps until something is settled; fails the test after 30 s. */
static enum pl_runner_event settle(struct pl_runner *r, json_t **answer, enum pl_reason *reason,
                                   struct pl_err *err)
{
    const int64_t end = pl_now_ns() + 30 * S;
    enum pl_runner_event ev;

    do
        ev = pl_runner_pump(r, 10 * MS, answer, reason, err);
    while (ev == PL_RUNNER_NOTHING && pl_now_ns() < end);
    return ev;
}

static struct pl_runner *ready(const char *mode)
{
    struct pl_runner *r = start(mode);
    enum pl_reason reason = PL_REASON_NONE;
    struct pl_err err = {""};
    json_t *answer = NULL;

    assert_null(pl_runner_hello(r));
    assert_int_equal(settle(r, &answer, &reason, &err), PL_RUNNER_READY);
    assert_non_null(pl_runner_hello(r));
    return r;
}

static void send(struct pl_runner *r, int64_t timeout_ns)
{
    json_t *request = json_pack("{s:s}", "type", "trial");
    struct pl_err err;

    assert_int_equal(pl_runner_send(r, request, timeout_ns, &err), PL_OK);
    json_decref(request);
}

static void good_trial(struct pl_runner *r)
{
    enum pl_reason reason;
    struct pl_err err;
    json_t *answer = NULL;

    send(r, 20 * S);
    assert_int_equal(settle(r, &answer, &reason, &err), PL_RUNNER_ANSWER);
    assert_string_equal(pl_json_get_str(answer, "type", ""), "result");
    json_decref(answer);
}

/* The runner fails now, with this reason and a text that holds `part`; and stays failed. */
static void expect_failure(struct pl_runner *r, enum pl_reason reason, const char *part)
{
    enum pl_reason got = PL_REASON_NONE;
    struct pl_err err = {""};
    json_t *answer = NULL;

    assert_int_equal(settle(r, &answer, &got, &err), PL_RUNNER_FAILED);
    if (got != reason || !strstr(err.text, part))
        print_message("got %s: %s\n", pl_reason_name(got), err.text);
    assert_int_equal(got, reason);
    assert_non_null(strstr(err.text, part));
    assert_null(strchr(err.text, '\n'));
    got = PL_REASON_NONE;
    assert_int_equal(pl_runner_pump(r, 0, &answer, &got, &err), PL_RUNNER_FAILED);
    assert_int_equal(got, reason);
    json_t *request = json_object();
    assert_int_equal(pl_runner_send(r, request, S, &err), PL_OK);
    json_decref(request);
    assert_int_equal(pl_runner_pump(r, 0, &answer, &got, &err), PL_RUNNER_FAILED);
    assert_null(answer);
}

static void trials_are_answered(void **state)
{
    struct pl_runner *r = ready("normal");
    json_t *request = json_pack("{s:s}", "type", "trial"), *answer = NULL;
    enum pl_reason reason;
    struct pl_err err;

    (void)state;
    assert_true(pl_runner_synthetic(r));
    assert_false(pl_runner_wrong_protocol(r));
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(pl_runner_send(r, request, 20 * S, &err), PL_OK);
        assert_int_equal(pl_runner_send(r, request, 20 * S, &err), PL_EBUSY);
        assert_int_equal(settle(r, &answer, &reason, &err), PL_RUNNER_ANSWER);
        assert_int_equal(pl_json_get_i64(answer, "id", 0), i);
        json_decref(answer);
    }
    assert_int_equal(pl_runner_pump(r, 0, &answer, &reason, &err), PL_RUNNER_NOTHING);
    json_decref(request);
    assert_true(pl_runner_free(r));
}

static void nothing_may_be_sent_before_hello(void **state)
{
    struct pl_runner *r = start("silent");
    json_t *request = json_object();
    struct pl_err err;

    (void)state;
    assert_int_equal(pl_runner_send(r, request, S, &err), PL_EBUSY);
    json_decref(request);
    assert_true(pl_runner_free(r));
    assert_true(pl_runner_free(NULL));
}

static void starts_that_fail(void **state)
{
    static const struct {
        const char *mode;
        enum pl_reason reason;
        const char *part;
    } cases[] = {
        {"exit-at-once", PL_REASON_START, "before its hello: exit code 3"},
        {"exit-at-once", PL_REASON_START, "cannot find my configuration"},
        {"crash-at-hello", PL_REASON_CRASH, "before its hello: killed by SIG"},
        {"garbage-hello", PL_REASON_GARBAGE, "Loading checkpoint"},
        {"protocol-2", PL_REASON_START, "protocol 2"},
        {"protocol-2", PL_REASON_START, "speaks 1"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pl_runner *r = start(cases[i].mode);
        expect_failure(r, cases[i].reason, cases[i].part);
        assert_int_equal(pl_runner_wrong_protocol(r), strcmp(cases[i].mode, "protocol-2") == 0);
        assert_true(pl_runner_free(r));
    }
}

static void missing_programs(void **state)
{
    const char *const missing[] = {"/no/such/engine", "--x", NULL};
    const char *const not_program[] = {"/etc/passwd", NULL};
    const char *const empty[] = {NULL};
    struct pl_runner_opts opts = {.program = "/no/such/paceline-runner"};
    struct pl_runner *r = NULL;
    struct pl_err err;

    (void)state;
    assert_int_equal(pl_runner_start(&opts, &r, &err), PL_ENOENT);
    assert_null(r);
    opts.exec = empty;
    assert_int_equal(pl_runner_start(&opts, &r, &err), PL_EUSAGE);
    r = start_exec(missing, S * 20);
    expect_failure(r, PL_REASON_START, "/no/such/engine: No such file");
    assert_true(pl_runner_free(r));
    r = start_exec(not_program, S * 20);
    expect_failure(r, PL_REASON_START, "/etc/passwd: Permission denied");
    assert_true(pl_runner_free(r));
}

static void no_hello_in_time(void **state)
{
    const char *const exec[] = {FAKE_RUNNER, "silent", NULL};
    struct pl_runner *r = start_exec(exec, 100 * MS);

    (void)state;
    expect_failure(r, PL_REASON_TIMEOUT, "no hello");
    assert_true(pl_runner_free(r));
}

static void trials_that_fail(void **state)
{
    static const struct {
        const char *mode;
        enum pl_reason reason;
        const char *part, *tail;
    } cases[] = {
        {"crash", PL_REASON_CRASH, "killed by SIGABRT", "kv_len == 7"},
        {"crash", PL_REASON_CRASH, "last words: assertion failed", ""},
        {"exit", PL_REASON_CRASH, "exit code 4", ""},
        {"half-line", PL_REASON_CRASH, "exit code 0", ""},
        {"kill-9", PL_REASON_CRASH, "out-of-memory killer", ""},
        {"garbage", PL_REASON_GARBAGE, "?[31mWarning:", ""},
        {"no-object", PL_REASON_GARBAGE, "[1,2,3]", ""},
        {"wrong-id", PL_REASON_GARBAGE, "another request", ""},
        {"babble-with-answer", PL_REASON_GARBAGE, "done", ""},
        {"long-line", PL_REASON_GARBAGE, "8388608 bytes", ""},
        {"fatal", PL_REASON_OOM, "no device memory", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pl_runner *r = ready(cases[i].mode);
        good_trial(r);
        send(r, 20 * S);
        expect_failure(r, cases[i].reason, cases[i].part);
        assert_non_null(strstr(pl_runner_stderr_tail(r), cases[i].tail));
        assert_true(pl_runner_free(r));
    }
}

static void deadlines(void **state)
{
    static const char *const modes[] = {"hang", "grandchild", "stop-reading"};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct pl_runner *r = ready(modes[i]);
        int64_t t0;
        if (i < 2)
            good_trial(r);
        t0 = pl_now_ns();
        send(r, 150 * MS);
        expect_failure(r, PL_REASON_TIMEOUT, "no answer before the deadline");
        assert_in_range(pl_now_ns() - t0, 150 * MS, 3 * S);
        if (i == 0)
            assert_non_null(strstr(pl_runner_stderr_tail(r), "waiting for the device"));
        assert_true(pl_runner_free(r));
    }
}

/* More than a pipe holds, to a runner that does not read. */
static void requests_that_are_not_read(void **state)
{
    struct pl_runner *r = ready("stop-reading");
    char *pad = malloc(4 << 20), *huge = malloc(9 << 20);
    json_t *request, *answer = NULL;
    enum pl_reason reason;
    struct pl_err err;

    (void)state;
    memset(pad, 'x', 4 << 20);
    pad[(4 << 20) - 1] = '\0';
    memset(huge, 'x', 9 << 20);
    huge[(9 << 20) - 1] = '\0';
    request = json_pack("{s:s}", "pad", huge);
    assert_int_equal(pl_runner_send(r, request, S, &err), PL_ERANGE);
    json_decref(request);
    assert_int_equal(pl_runner_pump(r, 0, &answer, &reason, &err), PL_RUNNER_NOTHING);
    request = json_pack("{s:s}", "pad", pad);
    assert_int_equal(pl_runner_send(r, request, 150 * MS, &err), PL_OK);
    json_decref(request);
    expect_failure(r, PL_REASON_TIMEOUT, "did not read");
    assert_true(pl_runner_free(r));
    free(pad);
    free(huge);
}

/* The whole process group dies with the runner: nobody keeps the device. */
static void the_group_dies(void **state)
{
    struct pl_runner *r = ready("grandchild");
    pid_t group = (pid_t)json_integer_value(json_object_get(pl_runner_hello(r), "group"));
    int64_t end;

    (void)state;
    assert_true(group > 1 && group != getpgrp());
    good_trial(r);
    send(r, 100 * MS);
    expect_failure(r, PL_REASON_TIMEOUT, "deadline");
    assert_true(pl_runner_free(r));
    for (end = pl_now_ns() + 5 * S; kill(-group, 0) == 0 && pl_now_ns() < end;)
        pl_sleep_ns(MS); /* init reaps the orphan */
    assert_int_equal(kill(-group, 0), -1);
    assert_int_equal(errno, ESRCH);
}

/* What is said between requests is noticed at the latest with the next one. */
static void babble_between_requests(void **state)
{
    static const char *const modes[] = {"babble-after-hello", "babble-after-answer"};

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct pl_runner *r = ready(modes[i / 2]);
        if (i / 2) {
            good_trial(r);
            good_trial(r);
        }
        if (i % 2 || i / 2) { /* half a line does not end the wait by itself */
            pl_sleep_ns(200 * MS);
            send(r, 20 * S);
        }
        expect_failure(r, PL_REASON_GARBAGE, "no request asked for");
        assert_true(pl_runner_free(r));
    }
}

static void ends_between_requests(void **state)
{
    struct pl_runner *r = ready("exit-after-answer");

    (void)state;
    good_trial(r);
    good_trial(r);
    pl_sleep_ns(100 * MS);
    send(r, 20 * S);
    expect_failure(r, PL_REASON_CRASH, "between requests: exit code 5");
    assert_true(pl_runner_free(r));
}

/* Whole answers count although the process is gone. */
static void last_answers_count(void **state)
{
    struct pl_runner *r = ready("big-answer-then-exit");
    enum pl_reason reason;
    struct pl_err err;
    json_t *answer = NULL;

    (void)state;
    good_trial(r);
    send(r, 20 * S);
    assert_int_equal(settle(r, &answer, &reason, &err), PL_RUNNER_ANSWER);
    assert_int_equal(json_string_length(json_object_get(answer, "pad")), 7 << 20);
    json_decref(answer);
    answer = NULL;
    expect_failure(r, PL_REASON_CRASH, "exit code 0");
    assert_true(pl_runner_free(r));
}

/* Without its pipes it is of no use, deadline or not. */
static void closed_pipes(void **state)
{
    struct pl_runner *r = ready("close-stdout");

    (void)state;
    expect_failure(r, PL_REASON_CRASH, "closed its standard output");
    assert_true(pl_runner_free(r));
    r = ready("close-stdin");
    pl_sleep_ns(50 * MS);
    send(r, 0);
    expect_failure(r, PL_REASON_CRASH, "closed its standard input");
    assert_true(pl_runner_free(r));
}

static void errors_are_answers(void **state)
{
    struct pl_runner *r = ready("error");
    enum pl_reason reason;
    struct pl_err err;
    json_t *answer = NULL;

    (void)state;
    good_trial(r);
    send(r, 20 * S);
    assert_int_equal(settle(r, &answer, &reason, &err), PL_RUNNER_ANSWER);
    assert_string_equal(pl_json_get_str(answer, "reason", ""), "context");
    json_decref(answer);
    assert_int_equal(pl_runner_pump(r, 0, &answer, &reason, &err), PL_RUNNER_NOTHING);
    assert_true(pl_runner_free(r));
}

static void a_flood_on_stderr_is_no_harm(void **state)
{
    struct pl_runner *r = ready("stderr-flood");

    (void)state;
    good_trial(r);
    assert_true(strlen(pl_runner_stderr_tail(r)) > 1000);
    assert_true(pl_runner_free(r));
}

static void calls(void **state)
{
    struct pl_runner *r = start("error");
    json_t *request = json_pack("{s:s}", "type", "describe"), *answer = NULL;
    struct pl_err err = {""};

    (void)state;
    assert_int_equal(pl_runner_call(r, request, 20 * S, &answer, &err), PL_OK);
    assert_string_equal(pl_json_get_str(answer, "type", ""), "describe");
    json_decref(answer);
    answer = NULL;
    assert_int_equal(pl_runner_call(r, request, 20 * S, &answer, &err), PL_EFORMAT);
    assert_string_equal(err.text, "too short");
    assert_true(pl_runner_free(r));
    r = start("exit-at-once");
    assert_int_equal(pl_runner_call(r, request, 20 * S, &answer, &err), PL_ENOENT);
    assert_non_null(strstr(err.text, "cannot find my configuration"));
    assert_true(pl_runner_free(r));
    r = start("hang");
    assert_int_equal(pl_runner_call(r, request, 20 * S, &answer, &err), PL_OK);
    json_decref(answer);
    answer = NULL;
    assert_int_equal(pl_runner_call(r, request, 100 * MS, &answer, &err), PL_ETIMEOUT);
    assert_null(answer);
    assert_true(pl_runner_free(r));
    json_decref(request);
}

static void finding_the_program(void **state)
{
    char path[PATH_MAX], exe[PATH_MAX], *slash;
    struct pl_err err = {""};
    ssize_t n;

    (void)state;
    setenv("PACELINE_RUNNER", FAKE_RUNNER, 1);
    assert_int_equal(pl_runner_find(path, sizeof(path), &err), PL_OK);
    assert_string_equal(path, FAKE_RUNNER);
    assert_int_equal(pl_runner_find(path, 4, &err), PL_ERANGE);
    setenv("PACELINE_RUNNER", "/etc/passwd", 1);
    assert_int_equal(pl_runner_find(path, sizeof(path), &err), PL_ENOENT);
    assert_non_null(strstr(err.text, "/etc/passwd"));
    unsetenv("PACELINE_RUNNER");
    n = readlink("/proc/self/exe", exe, sizeof(exe) - 32);
    assert_true(n > 0);
    exe[n] = '\0';
    slash = strrchr(exe, '/');
    snprintf(slash, 32, "/paceline-runner");
    assert_int_equal(symlink(FAKE_RUNNER, exe), 0);
    assert_int_equal(pl_runner_find(path, sizeof(path), &err), PL_OK);
    assert_int_equal(unlink(exe), 0);
    assert_string_equal(path, exe);
}

/* What one exchange costs this side; shown, and bounded loosely (sanitizers, busy machines). */
static void exchanges_are_cheap(void **state)
{
    enum { N = 2000 };
    struct pl_runner *r = ready("normal");
    json_t *request =
        json_pack("{s:s, s:s, s:i, s:{s:s, s:i, s:s, s:i}, s:i, s:i, s:b}", "type", "trial", "arm",
                  "baseline", "context", 64, "sample", "kind", "text", "index", 7, "path",
                  "corpus.txt", "offset", 8192, "repeat", 0, "attempt", 0, "timed", 1);
    enum pl_reason reason;
    struct pl_err err;
    json_t *answer = NULL;
    int64_t cpu, wall;

    (void)state;
    cpu = pl_cpu_ns();
    wall = pl_now_ns();
    for (int i = 0; i < N; i++) {
        assert_int_equal(pl_runner_send(r, request, 20 * S, &err), PL_OK);
        while (pl_runner_pump(r, MS, &answer, &reason, &err) == PL_RUNNER_NOTHING)
            continue;
        assert_int_equal(pl_json_get_i64(answer, "id", 0), i + 1);
        json_decref(answer);
        answer = NULL;
    }
    cpu = pl_cpu_ns() - cpu;
    wall = pl_now_ns() - wall;
    print_message("an exchange: %.1f us of CPU here, %.1f us in all\n", (double)cpu / N / 1e3,
                  (double)wall / N / 1e3);
    assert_true(cpu / N < 500 * PL_NS_PER_US);
    json_decref(request);
    assert_true(pl_runner_free(r));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trials_are_answered),
        cmocka_unit_test(nothing_may_be_sent_before_hello),
        cmocka_unit_test(starts_that_fail),
        cmocka_unit_test(missing_programs),
        cmocka_unit_test(no_hello_in_time),
        cmocka_unit_test(trials_that_fail),
        cmocka_unit_test(deadlines),
        cmocka_unit_test(requests_that_are_not_read),
        cmocka_unit_test(the_group_dies),
        cmocka_unit_test(babble_between_requests),
        cmocka_unit_test(ends_between_requests),
        cmocka_unit_test(last_answers_count),
        cmocka_unit_test(closed_pipes),
        cmocka_unit_test(errors_are_answers),
        cmocka_unit_test(a_flood_on_stderr_is_no_harm),
        cmocka_unit_test(calls),
        cmocka_unit_test(finding_the_program),
        cmocka_unit_test(exchanges_are_cheap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
