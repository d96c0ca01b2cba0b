/* cmocka, and a folder of its own for each test to load sweeps from. */
#ifndef PL_TESTS_SWEEP_UNIT_H
#define PL_TESTS_SWEEP_UNIT_H

#include "orchestrator/sweep.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char unit_dir[64];

static inline int unit_set_up(void **state)
{
    (void)state;
    snprintf(unit_dir, sizeof unit_dir, "/tmp/pl-sweep-XXXXXX");
    return mkdtemp(unit_dir) && chdir(unit_dir) == 0 ? 0 : -1;
}

static inline int unit_tear_down(void **state)
{
    char cmd[96];
    (void)state;
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", unit_dir);
    return chdir("/") == 0 && system(cmd) == 0 ? 0 : -1;
}

#define in_folder(f) cmocka_unit_test_setup_teardown(f, unit_set_up, unit_tear_down)

static inline void unit_write(const char *name, const char *text)
{
    FILE *f = fopen(name, "w");
    assert_non_null(f);
    assert_int_equal(fputs(text, f) < 0, 0);
    assert_int_equal(fclose(f), 0);
}

/* Loads text as s.yaml; `said` gets the problems or notes, one a line. */
static inline enum pl_status unit_load(const char *text, const struct pl_select *sel,
                                       struct pl_sweep **out, char *said, size_t size)
{
    struct pl_problems p = {0};
    struct pl_err err = {""};
    enum pl_status st;
    size_t at = 0;
    unit_write("s.yaml", text);
    st = pl_sweep_load("s.yaml", sel, out, &p, &err);
    said[0] = '\0';
    for (size_t i = 0; i < p.n && at < size; i++)
        at += (size_t)snprintf(said + at, size - at, "%s\n", p.items[i]);
    if (st == PL_ESWEEP) {
        char want[64];
        snprintf(want, sizeof want, "s.yaml: %zu mistake%s", p.n, p.n == 1 ? "" : "s");
        assert_string_equal(err.text, want);
    } else {
        assert_string_equal(err.text, "");
    }
    pl_problems_release(&p);
    return st;
}

/* Loads what must be right. */
static inline struct pl_sweep *unit_sweep(const char *text, const struct pl_select *sel)
{
    struct pl_sweep *s = NULL;
    char said[4096];
    if (unit_load(text, sel, &s, said, sizeof said) != PL_OK)
        fail_msg("%s", said);
    return s;
}

#endif
