/* A folder of its own for each test, in which it runs, and files there. */
#ifndef PL_TESTS_FOLDER_H
#define PL_TESTS_FOLDER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder_path[64];

static inline int folder_set_up(void **state)
{
    (void)state;
    snprintf(folder_path, sizeof folder_path, "/tmp/pl-test-XXXXXX");
    return mkdtemp(folder_path) && chdir(folder_path) == 0 ? 0 : -1;
}

static inline int folder_tear_down(void **state)
{
    char cmd[96];
    (void)state;
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", folder_path);
    return chdir("/") == 0 && system(cmd) == 0 ? 0 : -1;
}

#define in_folder(f) cmocka_unit_test_setup_teardown(f, folder_set_up, folder_tear_down)

/* Makes the folders on the way, too. */
static inline void put_bytes(const char *path, const char *bytes, size_t n)
{
    char folder[512];
    FILE *f;
    snprintf(folder, sizeof folder, "%s", path);
    for (char *p = folder; (p = strchr(p, '/')); *p++ = '/') {
        *p = '\0';
        mkdir(folder, 0700);
    }
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline void put(const char *path, const char *text)
{
    put_bytes(path, text, strlen(text));
}

#endif
