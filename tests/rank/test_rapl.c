/* Energy counters: which count, what a turn adds, and what cannot be read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "worker/rank/rapl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char root[64];

static void put(const char *zone, const char *file, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, zone);
    (void)mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/%s/%s", root, zone, file);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void zone(const char *name, const char *kind, const char *range, const char *now)
{
    put(name, "name", kind);
    put(name, "max_energy_range_uj", range);
    put(name, "energy_uj", now);
}

static int fresh(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/paceline-rapl-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int clear(void **state)
{
    char command[96];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command);
}

static void test_counts(void **state)
{
    struct pl_rapl r;
    struct pl_err err = {""};
    (void)state;
    zone("intel-rapl:0", "package-0\n", "262143328850\n", "100000000\n");
    zone("intel-rapl:0:0", "core\n", "262143328850\n", "1\n");
    zone("intel-rapl:0:1", "dram\n", "65712999613\n", "65712000000\n");
    zone("intel-rapl:1", "psys\n", "1000\n", "1\n");
    zone("intel-rapl-mmio:0", "package-0\n", "1000\n", "1\n");
    assert_int_equal(pl_rapl_open(root, &r, &err), PL_OK);
    assert_int_equal(r.n, 2);
    assert_non_null(strstr(r.source, "package-0"));
    assert_non_null(strstr(r.source, root)); /* it is not the kernel's */
    put("intel-rapl:0", "energy_uj", "103500000\n");
    put("intel-rapl:0:0", "energy_uj", "99000000\n");
    put("intel-rapl:0:1", "energy_uj", "387\n"); /* turned round: 999613 + 387 */
    assert_int_equal(pl_rapl_read(&r, &err), PL_OK);
    assert_true(fabs(pl_rapl_joules(&r) - 4.5) < 1e-9);
    put("intel-rapl:0:1", "energy_uj", "65712999613\n");
    assert_int_equal(pl_rapl_read(&r, &err), PL_OK);
    put("intel-rapl:0:1", "energy_uj", "0\n"); /* right at its range */
    assert_int_equal(pl_rapl_read(&r, &err), PL_OK);
    assert_true(fabs(pl_rapl_joules(&r) - (4.5 + 65712.999226)) < 1e-6);
    assert_int_equal(r.readings, 4);
}

static void test_bad(void **state)
{
    struct pl_rapl r = {.n = 7};
    struct pl_err err = {""};
    (void)state;
    assert_int_equal(pl_rapl_open(root, &r, &err), PL_ENOENT);
    assert_non_null(strstr(err.text, "no energy counter"));
    assert_int_equal(pl_rapl_open("/no/such/folder", &r, &err), PL_ENOENT);
    zone("intel-rapl:0", "package-0\n", "1000\n", "-5\n");
    assert_int_equal(pl_rapl_open(root, &r, &err), PL_EFORMAT);
    assert_non_null(strstr(err.text, "energy_uj holds \"-5\""));
    put("intel-rapl:0", "energy_uj", "");
    assert_int_not_equal(pl_rapl_open(root, &r, &err), PL_OK);
    assert_int_equal(r.n, 7); /* untouched on failure */
    put("intel-rapl:0", "energy_uj", "5000\n");
    assert_int_equal(pl_rapl_open(root, &r, &err), PL_OK);
    put("intel-rapl:0", "energy_uj", "4000\n"); /* it fell, and not by turning round */
    assert_int_equal(pl_rapl_read(&r, &err), PL_EFORMAT);
    assert_non_null(strstr(err.text, "beyond its range"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_counts, fresh, clear),
        cmocka_unit_test_setup_teardown(test_bad, fresh, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
