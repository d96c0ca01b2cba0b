/* cmocka and what it wants before it. */
#ifndef PL_TESTS_RESULTS_UNIT_H
#define PL_TESTS_RESULTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define assert_contains(text, part)                                                                \
    do {                                                                                           \
        if (!strstr((text), (part)))                                                               \
            fail_msg("\"%s\" is not in \"%s\"", (part), (text));                                   \
    } while (0)
#define assert_ok(call)                                                                            \
    do {                                                                                           \
        if ((call) != PL_OK)                                                                       \
            fail_msg("%s: %s", #call, err.text);                                                   \
    } while (0)

#endif
