/* cmocka and what it wants before it. */
#ifndef PL_TESTS_BASE_UNIT_H
#define PL_TESTS_BASE_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define assert_contains(text, part) assert_non_null(strstr((text), (part)))

#endif
