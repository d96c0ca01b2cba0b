/* A full disk, on a tmpfs of 2 MiB (root only): found at creation when the rows cannot fit, else at
 * the row, which then counts as empty. With MPI the same is tried by test_results_mpi. Skips (77)
 * where nothing can be mounted. */
#include "fixture.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* HDF5 1.10 loses 1 KB of its own when a close fails. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libhdf5";
}

static char dir[512], path[600];
static struct pl_err err;

static bool full_text(const char *text)
{
    if (strcasestr(text, "no space left on device"))
        return true;
    print_error("%s\n", text);
    return false;
}

static void rows_that_cannot_fit_are_refused_at_creation(void **state)
{
    (void)state;
    struct pl_shape s = fixture_shape();
    char half[700];
    snprintf(half, sizeof half, "%s.creating", path);
    /* the markers alone fit, then not even they */
    for (s.samples = 20000; s.samples <= 200000; s.samples *= 10) {
        assert_int_equal(fixture_create(path, &s, &err), PL_EIO);
        assert_true(full_text(err.text));
        assert_int_equal(access(path, F_OK), -1);
        assert_int_equal(access(half, F_OK), -1);
    }
}

static void fill_disk(void)
{
    static const char zeros[4096];
    char other[700];
    snprintf(other, sizeof other, "%s/other", dir);
    const int fd = open(other, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    while (write(fd, zeros, sizeof zeros) > 0)
        ;
    assert_int_equal(errno, ENOSPC);
    close(fd);
}

static void empty_disk(void)
{
    char other[700];
    snprintf(other, sizeof other, "%s/other", dir);
    assert_int_equal(unlink(other), 0);
}

static bool count(void *ctx, const struct pl_row_view *v)
{
    ((uint64_t *)ctx)[v->torn]++;
    return true;
}

static void a_row_that_does_not_fit_counts_as_empty(void **state)
{
    (void)state;
    struct pl_shape s = fixture_shape();
    struct pl_writer *w = NULL;
    struct pl_reader *r = NULL;
    struct pl_row row;
    uint64_t whole = 0, seen[2] = {0, 0};
    enum pl_status st = PL_OK;
    s.samples = 300;
    assert_ok(fixture_create(path, &s, &err));
    assert_ok(pl_writer_open(path, &s, &w, &err));
    assert_ok(pl_row_init(&row, &s, &err));
    fixture_row(&s, 0, 0, &row);
    assert_ok(pl_writer_row(w, 0, &row, PL_ROW_DONE, 0, 0, &err));
    fill_disk();
    for (uint64_t i = 0; i < pl_shape_rows(&s) && st == PL_OK; i++) {
        fixture_row(&s, i, 1, &row);
        st = pl_writer_row(w, i, &row, PL_ROW_DONE, 1, 0, &err);
        whole += st == PL_OK;
    }
    assert_int_equal(st, PL_EIO);
    assert_true(full_text(err.text));
    assert_contains(err.text, path);
    assert_true(whole >= 1); /* row 0 has its pages already */
    assert_ok(pl_reader_open(path, &r, &err));
    assert_ok(pl_reader_each(r, count, seen, &err));
    assert_int_equal(seen[0], whole);
    assert_int_equal(seen[1], 0);
    /* space again: the same row goes in */
    empty_disk();
    fixture_row(&s, whole, 2, &row);
    assert_ok(pl_writer_row(w, whole, &row, PL_ROW_DONE, 2, 0, &err));
    pl_reader_free(r);
    pl_writer_free(w);
    pl_row_release(&row);
    unlink(path);
}

static void creation_on_a_full_disk_leaves_nothing(void **state)
{
    (void)state;
    const struct pl_shape s = fixture_shape();
    fill_disk();
    assert_int_equal(fixture_create(path, &s, &err), PL_EIO);
    assert_true(full_text(err.text));
    empty_disk();
    assert_int_equal(access(path, F_OK), -1);
    assert_ok(fixture_create(path, &s, &err));
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_that_cannot_fit_are_refused_at_creation),
        cmocka_unit_test(a_row_that_does_not_fit_counts_as_empty),
        cmocka_unit_test(creation_on_a_full_disk_leaves_nothing),
    };
    snprintf(dir, sizeof dir, "%s", fixture_path("full"));
    if (mkdir(dir, 0700) != 0)
        return 1;
    /* a mount namespace of our own: nothing stays behind, whatever happens */
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", dir, "tmpfs", 0, "size=2m") != 0) {
        printf("SKIP: a small tmpfs cannot be mounted here (%s)\n", strerror(errno));
        rmdir(dir);
        return 77;
    }
    snprintf(path, sizeof path, "%s/r.h5", dir);
    const int rc = cmocka_run_group_tests_name("results/full", tests, NULL, NULL);
    umount(dir);
    rmdir(dir);
    return rc;
}
