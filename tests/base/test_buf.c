#include "base/buf.h"

#include "unit.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void grows_to_its_cap(void **state)
{
    struct pl_buf b;
    struct pl_err err;

    (void)state;
    pl_buf_init(&b, 1000);
    assert_null(b.data);
    for (int i = 0; i < 100; i++)
        assert_int_equal(pl_buf_add(&b, "0123456789", 10, &err), PL_OK);
    assert_int_equal(b.len, 1000);
    assert_int_equal(b.data[1000], '\0');
    assert_in_range(b.size, 1001, 1001); /* memory is capped, too */
    assert_int_equal(pl_buf_add(&b, "x", 1, &err), PL_ERANGE);
    assert_contains(err.text, "1000");
    assert_int_equal(pl_buf_add(&b, "x", SIZE_MAX, NULL), PL_ERANGE);
    assert_int_equal(pl_buf_addf(&b, &err, "%d", 1), PL_ERANGE);
    assert_null(pl_buf_reserve(&b, 1));
    assert_int_equal(b.len, 1000);
    assert_int_equal(strlen(b.data), 1000);
    assert_int_equal(pl_buf_add(&b, NULL, 0, &err), PL_OK);
    pl_buf_release(&b);
    assert_null(b.data);
    assert_int_equal(pl_buf_add(&b, "again", 5, &err), PL_OK);
    assert_string_equal(b.data, "again");
    pl_buf_release(&b);
}

static void format_consume_reserve(void **state)
{
    struct pl_buf b;

    (void)state;
    pl_buf_init(&b, 1u << 20);
    assert_int_equal(pl_buf_addf(&b, NULL, "%s=%d;", "k", 42), PL_OK);
    assert_int_equal(pl_buf_addf(&b, NULL, "%*d", 500, 1), PL_OK);
    assert_int_equal(b.len, 505);
    pl_buf_consume(&b, 2);
    assert_int_equal(memcmp(b.data, "42;", 3), 0);
    pl_buf_consume(&b, 9999);
    assert_int_equal(b.len, 0);
    assert_string_equal(b.data, "");
    char *p = pl_buf_reserve(&b, 5000);
    assert_ptr_equal(p, b.data);
    memset(p, 'z', 5001); /* the NUL's place included */
    b.len += 5000;
    b.data[b.len] = '\0';
    assert_int_equal(strlen(b.data), 5000);
    pl_buf_clear(&b);
    assert_string_equal(b.data, "");
    pl_buf_release(&b);
    pl_buf_consume(&b, 1);
}

static int enter_scratch(void **state)
{
    static char dir[] = "/tmp/paceline-buf-XXXXXX";

    *state = mkdtemp(dir);
    return *state && chdir(dir) == 0 ? 0 : -1;
}

static int leave_scratch(void **state)
{
    (void)remove("f");
    (void)remove("empty");
    (void)chdir("/");
    return rmdir(*state); /* fails when a temporary was left behind */
}

static void files_round_trip(void **state)
{
    static char data[300000];
    struct pl_err err;
    struct pl_buf b;
    struct stat sb;

    (void)state;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (char)(i * 31 + i / 256);
    assert_int_equal(pl_write_file_atomic("f", "old", 3, &err), PL_OK);
    assert_int_equal(pl_write_file_atomic("f", data, sizeof(data), &err), PL_OK);
    assert_int_equal(pl_read_file("f", sizeof(data), &b, &err), PL_OK);
    assert_int_equal(b.len, sizeof(data));
    assert_memory_equal(b.data, data, sizeof(data));
    assert_int_equal(b.data[b.len], '\0');
    pl_buf_release(&b);
    memset(&b, 0, sizeof(b));
    assert_int_equal(pl_read_file("f", sizeof(data) - 1, &b, &err), PL_ERANGE);
    assert_null(b.data); /* untouched */
    mode_t mask = umask(022);
    assert_int_equal(pl_write_file_atomic("empty", NULL, 0, &err), PL_OK);
    umask(mask);
    assert_int_equal(stat("empty", &sb), 0);
    assert_int_equal(sb.st_mode & 0777, 0644);
    assert_int_equal(pl_read_file("empty", 0, &b, &err), PL_OK);
    assert_string_equal(b.data, "");
    pl_buf_release(&b);
}

static void file_errors(void **state)
{
    struct pl_err err;
    struct pl_buf b;
    int n = 0;

    (void)state;
    assert_int_equal(pl_read_file("absent", 10, &b, &err), PL_ENOENT);
    assert_contains(err.text, "absent: ");
    assert_int_equal(pl_read_file(".", 1u << 20, &b, &err), PL_EUSAGE);
    assert_int_equal(pl_read_file("-", 10, &b, &err), PL_ENOENT);
    assert_int_equal(pl_write_file_atomic("no/such/f", "x", 1, &err), PL_ENOENT);
    assert_int_equal(pl_write_file_atomic("f", "kept", 4, &err), PL_OK);
    assert_int_equal(mkdir("d", 0777), 0);
    assert_int_not_equal(pl_write_file_atomic("d", "x", 1, &err), PL_OK);
    assert_int_equal(rmdir("d"), 0);
    DIR *d = opendir(".");
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += strstr(e->d_name, ".tmp") != NULL;
    closedir(d);
    assert_int_equal(n, 0); /* the failed write left no temporary */
}

static void files_without_a_size(void **state)
{
    struct pl_err err;
    struct pl_buf b;

    (void)state;
    assert_int_equal(pl_read_file("/proc/self/status", 1u << 20, &b, &err), PL_OK);
    assert_true(b.len > 100);
    pl_buf_release(&b);
    assert_int_equal(pl_read_file("/proc/self/status", 10, &b, &err), PL_ERANGE);
    assert_int_equal(pl_read_file("/dev/zero", 100000, &b, &err), PL_ERANGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_to_its_cap),     cmocka_unit_test(format_consume_reserve),
        cmocka_unit_test(files_round_trip),     cmocka_unit_test(file_errors),
        cmocka_unit_test(files_without_a_size),
    };
    return cmocka_run_group_tests(tests, enter_scratch, leave_scratch);
}
