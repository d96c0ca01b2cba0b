#include "base/log.h"

#include "unit.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static FILE *catcher;
static int real_stderr;

static void catch_start(void)
{
    catcher = tmpfile();
    assert_non_null(catcher);
    real_stderr = dup(STDERR_FILENO);
    assert_true(dup2(fileno(catcher), STDERR_FILENO) >= 0);
}

/* What was written since, in a static buffer. */
static const char *catch_stop(void)
{
    static char text[1 << 20];

    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    rewind(catcher);
    size_t n = fread(text, 1, sizeof(text) - 1, catcher);
    fclose(catcher);
    text[n] = '\0';
    return text;
}

static void plain_lines(void **state)
{
    (void)state;
    pl_log_setup(PL_LOG_WARN, "rank 2", false);
    catch_start();
    errno = EBADF;
    pl_log(PL_LOG_ERROR, "broken %d", 3);
    assert_int_equal(errno, EBADF);
    pl_log(PL_LOG_WARN, "two\nlines\r\n");
    pl_log(PL_LOG_INFO, "not shown");
    pl_log(PL_LOG_DEBUG, "not shown");
    pl_log_setup(PL_LOG_DEBUG, NULL, false);
    pl_log(PL_LOG_INFO, "shown");
    pl_log(PL_LOG_DEBUG, "shown");
    assert_string_equal(catch_stop(), "paceline: rank 2: error: broken 3\n"
                                      "paceline: rank 2: warning: two lines  \n"
                                      "paceline: shown\n"
                                      "paceline: debug: shown\n");
}

static void long_lines_stay_lines(void **state)
{
    char text[20000];

    (void)state;
    memset(text, '"', sizeof(text)); /* what JSON doubles */
    text[sizeof(text) - 1] = '\0';
    for (int json = 0; json < 2; json++) {
        pl_log_setup(PL_LOG_INFO, "r", json);
        catch_start();
        pl_log(PL_LOG_INFO, "%s", text);
        const char *got = catch_stop();
        assert_ptr_equal(strchr(got, '\n'), got + strlen(got) - 1);
        assert_true(strlen(got) > 3500);
        json_t *j = json_loads(got, 0, NULL);
        assert_int_equal(j != NULL, json);
        json_decref(j);
    }
}

static void json_lines(void **state)
{
    json_error_t e;

    (void)state;
    pl_log_setup(PL_LOG_INFO, "rank \"7\"", true);
    catch_start();
    pl_log(PL_LOG_WARN, "a\nb\t\"c\"\\ \x01 \xC3\xA9 %s", "\xFF\xC3");
    const char *got = catch_stop();
    assert_ptr_equal(strchr(got, '\n'), got + strlen(got) - 1);
    json_t *j = json_loads(got, 0, &e);
    assert_non_null(j);
    assert_int_equal(json_object_size(j), 4);
    assert_true(json_integer_value(json_object_get(j, "t_ms")) > INT64_C(1600000000000));
    assert_string_equal(json_string_value(json_object_get(j, "level")), "warning");
    assert_string_equal(json_string_value(json_object_get(j, "who")), "rank \"7\"");
    assert_string_equal(json_string_value(json_object_get(j, "msg")),
                        "a\nb\t\"c\"\\ \x01 \xC3\xA9 \xEF\xBF\xBD\xEF\xBF\xBD");
    json_decref(j);
}

static void *chatter(void *arg)
{
    for (int i = 0; i < 200; i++)
        pl_log(PL_LOG_INFO, "%0500d", *(int *)arg);
    return NULL;
}

static void threads_do_not_mix(void **state)
{
    pthread_t t[4];
    int who[4] = {1, 2, 3, 4}, lines = 0;

    (void)state;
    pl_log_setup(PL_LOG_INFO, "", false);
    catch_start();
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, chatter, &who[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    for (const char *p = catch_stop(); *p; p += 511, lines++) { /* "paceline: ", 500, newline */
        assert_int_equal(strncmp(p, "paceline: 0", 11), 0);
        assert_int_equal(p[510], '\n');
    }
    assert_int_equal(lines, 800);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_lines),
        cmocka_unit_test(long_lines_stay_lines),
        cmocka_unit_test(json_lines),
        cmocka_unit_test(threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
