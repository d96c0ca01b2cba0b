/* cmocka and what it wants before it. */
#ifndef PL_TESTS_ORCHESTRATOR_UNIT_H
#define PL_TESTS_ORCHESTRATOR_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
