/* cmocka, and a folder of its own for each test to load sweeps from. */
#ifndef PL_TESTS_SWEEP_UNIT_H
#define PL_TESTS_SWEEP_UNIT_H

#include "orchestrator/sweep.h"

#include "../folder.h"

/* Loads text as s.yaml; `said` gets the problems or notes, one a line. */
static inline enum pl_status unit_load(const char *text, const struct pl_select *sel,
                                       struct pl_sweep **out, char *said, size_t size)
{
    struct pl_problems p = {0};
    struct pl_err err = {""};
    enum pl_status st;
    size_t at = 0;
    put("s.yaml", text);
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

/* Loads what must be refused, with these words, or (said NULL) with some that hold
 * `part`. */
static inline void unit_refuses(const char *text, const char *said, const char *part)
{
    struct pl_sweep *s = NULL;
    char got[8192];
    assert_int_equal(unit_load(text, NULL, &s, got, sizeof got), PL_ESWEEP);
    assert_null(s);
    if (said)
        assert_string_equal(got, said);
    else
        assert_non_null(strstr(got, part));
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
