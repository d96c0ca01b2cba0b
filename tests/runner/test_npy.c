/* .npy files: what is written is what NumPy reads; what is read lies in no way that is not told. */
#include "cli/runner/npy.h"

#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[64];

static void put(const void *data, size_t n)
{
    struct pl_err err;

    assert_int_equal(pl_write_file_atomic(path, data, n, &err), PL_OK);
}

/* A file of version `major` with this header text and these numbers. */
static void make(int major, const char *text, const void *numbers, size_t n)
{
    unsigned char b[4096];
    size_t len = strlen(text), at = major == 1 ? 10 : 12;

    memcpy(b, "\x93NUMPY", 6);
    b[6] = (unsigned char)major;
    b[7] = 0;
    b[8] = (unsigned char)len;
    b[9] = (unsigned char)(len >> 8);
    b[10] = b[11] = 0;
    memcpy(b + at, text, len);
    if (n)
        memcpy(b + at + len, numbers, n);
    put(b, at + len + n);
}

static void reads(size_t n, int32_t first)
{
    int32_t *ids = NULL;
    size_t got = 99;
    struct pl_err err = {""};

    if (pl_npy_read_ids(path, &ids, &got, &err))
        fail_msg("%s", err.text);
    assert_int_equal(got, n);
    if (n)
        assert_int_equal(ids[0], first);
    free(ids);
}

static void refuses(enum pl_status expected)
{
    int32_t *ids = NULL;
    size_t n = 77;
    struct pl_err err = {""};

    assert_int_equal(pl_npy_read_ids(path, &ids, &n, &err), expected);
    assert_null(ids);
    assert_int_equal(n, 77);
    assert_true(err.text[0] != '\0');
}

#define HEAD(descr, shape)                                                                         \
    "{'descr': '" descr "', 'fortran_order': False, 'shape': " shape ", }    \n"

static void good_files(void **state)
{
    const int32_t v4[] = {5, -1, 7};
    const int64_t v8[] = {6, 1, 2};

    (void)state;
    make(1, HEAD("<i4", "(3,)"), v4, sizeof(v4));
    reads(3, 5);
    make(2, HEAD("<i8", "(3,)"), v8, sizeof(v8));
    reads(3, 6);
    make(1, HEAD("<i8", "(1, 3)"), v8, sizeof(v8));
    reads(3, 6);
    make(1, HEAD("<i4", "(0,)"), NULL, 0);
    reads(0, 0);
}

static void bad_files(void **state)
{
    const int32_t v[] = {1, 2, 3, 4, 5, 6};
    const int64_t big[] = {INT64_C(1) << 40};

    (void)state;
    put("", 0);
    refuses(PL_EFORMAT);
    put("\x93NUMP", 5);
    refuses(PL_EFORMAT);
    put("\x93NUMPY\x01\x00\xff\xff{'descr'", 18);
    refuses(PL_EFORMAT);
    put("\x93NUMPY\x02\x00\xff\xff\xff\xff{'descr'", 20);
    refuses(PL_EFORMAT);
    make(9, HEAD("<i4", "(3,)"), v, 12);
    refuses(PL_EFORMAT);
    make(1, HEAD("<f4", "(3,)"), v, 12);
    refuses(PL_EFORMAT);
    make(1, HEAD(">i4", "(3,)"), v, 12);
    refuses(PL_EFORMAT);
    make(1, HEAD("<i4", "(2, 3)"), v, 24);
    refuses(PL_EFORMAT);
    make(1, HEAD("<i4", "()"), v, 4);
    refuses(PL_EFORMAT);
    make(1, HEAD("<i4", "(-3,)"), v, 12);
    refuses(PL_EFORMAT);
    make(1, HEAD("<i4", "(3,"), v, 12);
    refuses(PL_EFORMAT);
    make(1, HEAD("<i4", "(1, 1, 3)"), v, 12);
    refuses(PL_EFORMAT);
    make(1, HEAD("<i4", "(4,)"), v, 12); /* says more than there is */
    refuses(PL_EFORMAT);
    make(1, HEAD("<i4", "(2,)"), v, 12); /* and less */
    refuses(PL_EFORMAT);
    make(1, HEAD("<i4", "(99999999999999999999999,)"), v, 12);
    refuses(PL_EFORMAT);
    make(1, HEAD("<i8", "(4611686018427387905,)"), v, 8); /* × 8 wraps to 8 */
    refuses(PL_ERANGE);
    make(1, "{'fortran_order': False, 'shape': (3,), }\n", v, 12);
    refuses(PL_EFORMAT);
    make(1, "{'descr': '<i4', 'shape': (3,), }\n", v, 12);
    refuses(PL_EFORMAT);
    make(1, HEAD("<i8", "(1,)"), big, 8);
    refuses(PL_ERANGE);
    unlink(path);
    refuses(PL_ENOENT);
}

static void writes_what_numpy_reads(void **state)
{
    char buf[PL_NPY_HEADER + 6 * sizeof(float)];
    const float v[6] = {0, 1, 2, 3, 4, 5};
    struct pl_buf b;
    struct pl_err err;

    (void)state;
    memcpy(buf + PL_NPY_HEADER, v, sizeof(v));
    assert_int_equal(pl_npy_write(path, buf, (const size_t[]){2, 3}, 2, &err), PL_OK);
    assert_int_equal(pl_read_file(path, 4096, &b, &err), PL_OK);
    assert_int_equal(b.len, sizeof(buf));
    assert_memory_equal(b.data, "\x93NUMPY\x01\x00\x76\x00{'descr': '<f4'", 25);
    assert_non_null(strstr(b.data + 10, "'shape': (2, 3), }"));
    assert_int_equal(b.data[PL_NPY_HEADER - 1], '\n');
    assert_memory_equal(b.data + PL_NPY_HEADER, v, sizeof(v));
    pl_buf_release(&b);
    assert_int_equal(pl_npy_write("/nonexistent/x.npy", buf, (const size_t[]){2, 3}, 2, &err),
                     PL_ENOENT);
    assert_int_equal(pl_npy_write("/dev/full", buf, (const size_t[]){2, 3}, 2, &err), PL_EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_files),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(writes_what_numpy_reads),
    };
    char dir[] = "/tmp/paceline-npy-XXXXXX";
    int failed;

    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof(path), "%s/ids.npy", dir);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    rmdir(dir);
    return failed;
}
