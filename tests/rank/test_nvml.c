/* NVML: what a reading holds, and that a machine without it says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "worker/rank/nvml.h"

#include <math.h>
#include <string.h>

static void test_reading(void **state)
{
    struct pl_nvml *n = NULL;
    struct pl_nvml_reading r;
    struct pl_err err = {""};

    (void)state;
    assert_int_equal(pl_nvml_open(FAKE_NVML, "GPU-fake", &n, &err), PL_OK);
    pl_nvml_read(n, &r);
    assert_true(r.mhz == 1990 && r.celsius == 41 && r.throttle == 0 && r.joules == 1.5);
    pl_nvml_read(n, &r);
    assert_true(r.mhz == 1980 && r.celsius == 42 && r.throttle == 4 && r.joules == 3.0);
    pl_nvml_close(n);
    pl_nvml_read(NULL, &r);
    assert_true(isnan(r.mhz) && isnan(r.celsius) && isnan(r.joules) && r.throttle == 0);
    pl_nvml_close(NULL);
}

static void test_absent(void **state)
{
    struct pl_nvml *n = NULL;
    struct pl_err err = {""};

    (void)state;
    assert_int_equal(pl_nvml_open(FAKE_NVML, "GPU-other", &n, &err), PL_ESYS);
    assert_non_null(strstr(err.text, "GPU-other: Not Found"));
    assert_int_equal(pl_nvml_open("/nowhere/libnvidia-ml.so.1", "GPU-fake", &n, &err), PL_ENOENT);
    assert_int_equal(pl_nvml_open("libm.so.6", "GPU-fake", &n, &err), PL_ENOENT);
    assert_non_null(strstr(err.text, "nvmlInit_v2"));
    assert_null(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reading),
                                       cmocka_unit_test(test_absent)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
