/*
 * Files from anywhere: cut off, overwritten, with objects missing or of another kind. Each gives
 * one clear PL_EFORMAT, and none takes the program down (the reader runs in a child that must exit
 * by itself).
 */
#include "fixture.h"
#include "unit.h"

#include "base/rng.h"

#include <hdf5.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct pl_err err;
static char good[512], bad[512];
static char *bytes; /* of the good file */
static size_t n_bytes;

static void write_bad(const void *data, size_t n)
{
    FILE *f = fopen(bad, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static bool ignore(void *ctx, const struct pl_row_view *v)
{
    *(uint64_t *)ctx += v->torn;
    return true;
}

/* Opens, reads and verifies everything in `bad`; in a child. */
static enum pl_status read_all(void)
{
    struct pl_reader *r = NULL;
    struct pl_writer *w = NULL;
    struct pl_verify_counts n;
    uint64_t torn = 0;
    enum pl_status st = pl_reader_open(bad, &r, &err);
    if (st == PL_OK)
        st = pl_reader_each(r, ignore, &torn, &err);
    if (st == PL_OK)
        st = pl_reader_verify(r, NULL, NULL, &n, &err);
    if (st == PL_OK)
        st = pl_writer_open(bad, pl_reader_shape(r), &w, &err);
    pl_writer_free(w);
    pl_reader_free(r);
    return st;
}

/* The status that a child got, its text in err.text; -1 when it was killed. */
static int read_in_child(void)
{
    int fd[2], status = 0;
    assert_int_equal(pipe(fd), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        err.text[0] = '\0';
        const enum pl_status st = read_all();
        if (write(fd[1], err.text, strlen(err.text) + 1) < 0)
            _exit(99);
        _exit((int)st);
    }
    close(fd[1]);
    const ssize_t n = read(fd[0], err.text, sizeof err.text - 1);
    err.text[n > 0 ? n : 0] = '\0';
    close(fd[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void expect_format_error(const char *what)
{
    const int st = read_in_child();
    if (st != PL_EFORMAT)
        fail_msg("%s: status %d, \"%s\"", what, st, err.text);
    assert_contains(err.text, bad);
    assert_null(strchr(err.text, '\n'));
}

static int setup(void **state)
{
    (void)state;
    const struct pl_shape shape = fixture_shape();
    snprintf(good, sizeof good, "%s", fixture_path("good.h5"));
    snprintf(bad, sizeof bad, "%s", fixture_path("bad.h5"));
    unlink(good);
    if (fixture_create(good, &shape, &err) != PL_OK || fixture_fill(good, &shape, &err) != PL_OK)
        return -1;
    FILE *f = fopen(good, "rb");
    if (!f)
        return -1;
    fseek(f, 0, SEEK_END);
    n_bytes = (size_t)ftell(f);
    rewind(f);
    bytes = malloc(n_bytes);
    const bool ok = bytes && fread(bytes, 1, n_bytes, f) == n_bytes;
    fclose(f);
    return ok ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    free(bytes);
    unlink(good);
    unlink(bad);
    return 0;
}

static void the_good_file_is_good(void **state)
{
    (void)state;
    write_bad(bytes, n_bytes);
    assert_int_equal(read_in_child(), PL_OK);
}

static void cut_off_files(void **state)
{
    (void)state;
    const size_t sizes[] = {0,   1,    7,    8,    9,    47,          95,
                            96,  97,   511,  512,  2048, n_bytes / 4, n_bytes / 2,
                            800, 4096, 9000, 1000, 1500, n_bytes - 1, n_bytes - 4096};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char what[64];
        snprintf(what, sizeof what, "cut off at %zu of %zu", sizes[i], n_bytes);
        write_bad(bytes, sizes[i]);
        expect_format_error(what);
    }
}

static void random_bytes(void **state)
{
    (void)state;
    static char noise[100000];
    struct pl_rng rng;
    pl_rng_init(&rng, 7);
    for (int round = 0; round < 8; round++) {
        for (size_t i = 0; i < sizeof noise; i++)
            noise[i] = (char)pl_rng_u64(&rng);
        if (round >= 4) /* behind a true signature, then a true superblock */
            memcpy(noise, bytes, round >= 6 ? 96 : 8);
        write_bad(noise, round % 2 ? sizeof noise : 3000);
        expect_format_error("random bytes");
    }
}

/* ---- edited with HDF5 ---- */

static hid_t edit(void)
{
    write_bad(bytes, n_bytes);
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t f = H5Fopen(bad, H5F_ACC_RDWR, fapl);
    H5Pclose(fapl);
    assert_true(f >= 0);
    return f;
}

static void missing_datasets(void **state)
{
    (void)state;
    static const char *const names[] = {
        "trials",       "tokens",      "token_ms",       "kv_len",       "commit",
        "sessions",     "workers",     "loads",          "blocks",       "failures",
        "log_overflow", "sweep",       "sweep/resolved", "sweep/text",   "sweep/provenance",
        "axes",         "axes/arm",    "axes/arm_json",  "axes/context", "axes/sample",
        "axes/reason",  "axes/metric", "quality"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        hid_t f = edit();
        assert_true(H5Ldelete(f, names[i], H5P_DEFAULT) >= 0);
        H5Fclose(f);
        expect_format_error(names[i]);
        /* these two are told by the other's presence */
        if (strcmp(names[i], "axes/metric") != 0 && strcmp(names[i], "quality") != 0)
            assert_contains(err.text, names[i]);
    }
}

static void replace(hid_t f, const char *name, hid_t type, int rank, const hsize_t *dims,
                    bool chunked)
{
    hid_t space = H5Screate_simple(rank, dims, NULL), p = H5Pcreate(H5P_DATASET_CREATE);
    assert_true(H5Ldelete(f, name, H5P_DEFAULT) >= 0);
    if (chunked)
        H5Pset_chunk(p, rank, dims);
    H5Pset_alloc_time(p, H5D_ALLOC_TIME_EARLY);
    hid_t d = H5Dcreate2(f, name, type, space, H5P_DEFAULT, p, H5P_DEFAULT);
    assert_true(d >= 0);
    H5Dclose(d);
    H5Pclose(p);
    H5Sclose(space);
}

static void wrong_types_and_shapes(void **state)
{
    (void)state;
    const hsize_t grid[] = {2, 2, 3, 2, 1, 8, 4}, kv[] = {2, 2, 3, 2, 2, 1, 4},
                  other[] = {2, 2, 4, 2}, one[] = {3}, huge[] = {2, 2, 3, 2, 1, 1u << 20};
    hid_t vl = H5Tcopy(H5T_C_S1);
    H5Tset_size(vl, H5T_VARIABLE);
    const struct {
        const char *name;
        hid_t type;
        int rank;
        const hsize_t *dims;
        bool chunked;
        const char *part;
    } cases[] = {
        {"tokens", H5T_STD_I32BE, 6, grid, false, "type"},
        {"tokens", H5T_STD_U32LE, 6, grid, false, "type"},
        {"tokens", H5T_STD_I32LE, 6, grid, true, "not contiguous"},
        {"tokens", H5T_STD_I32LE, 5, grid, false, "5 dimensions, expected 6"},
        {"tokens", H5T_STD_I32LE, 6, huge, false, "token_ms: dimension 5"},
        {"kv_len", H5T_IEEE_F32LE, 7, kv, false, "type"},
        {"trials", H5T_IEEE_F64LE, 4, grid, false, "type"},
        {"commit", H5T_STD_U64LE, 4, grid, false, "type"},
        {"commit", H5T_STD_U64LE, 4, other, false, "/commit"},
        {"rounds", H5T_STD_U32LE, 6, grid, false, "/token"},
        {"log_overflow", H5T_STD_U64LE, 1, one, false, "log_overflow: dimension 0 is 3"},
        {"axes/context", H5T_STD_I32LE, 1, grid, false, "type"},
        {"axes/context", H5T_STD_I64LE, 1, one, false, "/axes/context has 3 entries"},
        {"axes/arm", vl, 1, grid, false, "fixed length"},
        {"axes/sample", H5T_STD_I64LE, 1, one, false, "fixed length"},
        {"sweep/resolved", vl, 1, one, false, "fixed length"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        hid_t f = edit();
        replace(f, cases[i].name, cases[i].type, cases[i].rank, cases[i].dims, cases[i].chunked);
        H5Fclose(f);
        expect_format_error(cases[i].name);
        if (strcmp(cases[i].name, "rounds") != 0)
            assert_contains(err.text, cases[i].part);
    }
    H5Tclose(vl);
}

static void put_attribute(hid_t f, const char *name, hid_t type, const void *value)
{
    hid_t g = H5Gopen2(f, "sweep", H5P_DEFAULT), space = H5Screate(H5S_SCALAR);
    assert_true(H5Adelete(g, name) >= 0);
    if (type >= 0) {
        hid_t a = H5Acreate2(g, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
        assert_true(a >= 0 && H5Awrite(a, type, value) >= 0);
        H5Aclose(a);
    }
    H5Sclose(space);
    H5Gclose(g);
}

static void attributes(void **state)
{
    (void)state;
    static const char *const names[] = {"format", "format_version", "sha256"};
    static char text[60000];
    const char *const pointer = "paceline-results";
    const int version = 99;
    hid_t huge = H5Tcopy(H5T_C_S1), vl = H5Tcopy(H5T_C_S1);
    H5Tset_size(huge, sizeof text);
    H5Tset_size(vl, H5T_VARIABLE);
    memset(text, 'x', sizeof text);
    for (size_t i = 0; i < 3; i++) {
        hid_t f = edit();
        put_attribute(f, names[i], H5I_INVALID_HID, NULL);
        H5Fclose(f);
        expect_format_error(names[i]);
        assert_contains(err.text, names[i]);
        assert_contains(err.text, "missing");
        f = edit();
        put_attribute(f, names[i], huge, text);
        H5Fclose(f);
        expect_format_error(names[i]);
        assert_contains(err.text, "wrong type or size");
        f = edit();
        put_attribute(f, names[i], vl, &pointer);
        H5Fclose(f);
        expect_format_error(names[i]);
    }
    hid_t f = edit();
    put_attribute(f, "format_version", H5T_NATIVE_INT, &version);
    H5Fclose(f);
    expect_format_error("version");
    assert_contains(err.text, "format version 99, expected 2");
    H5Tclose(huge);
    H5Tclose(vl);
}

static void another_hdf5_file(void **state)
{
    (void)state;
    hid_t f = H5Fcreate(bad, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(f);
    expect_format_error("an empty HDF5 file");
    assert_contains(err.text, "not a paceline results file");
}

/* Single bytes changed anywhere: opened or refused, never a crash. Rows and logs are read; a
 * changed row is torn. */
static void changed_bytes(void **state)
{
    (void)state;
    struct pl_rng rng;
    unsigned refused = 0, died = 0;
    const unsigned rounds = 300;
    pl_rng_init(&rng, 11);
    for (unsigned i = 0; i < rounds; i++) {
        char *copy = malloc(n_bytes);
        assert_non_null(copy);
        memcpy(copy, bytes, n_bytes);
        for (int k = 0; k < 4; k++) /* metadata stands at the front: half of the changes go there */
            copy[pl_rng_below(&rng, k % 2 ? 8192 : n_bytes)] = (char)pl_rng_u64(&rng);
        write_bad(copy, n_bytes);
        free(copy);
        const int st = read_in_child();
        refused += st == PL_EFORMAT;
        if (st != PL_OK && st != PL_EFORMAT) {
            died++;
            print_message("round %u: status %d, \"%s\"\n", i, st, err.text);
        }
    }
    print_message("%u of %u refused, %u died\n", refused, rounds, died);
    assert_int_equal(died, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_good_file_is_good),  cmocka_unit_test(cut_off_files),
        cmocka_unit_test(random_bytes),           cmocka_unit_test(missing_datasets),
        cmocka_unit_test(wrong_types_and_shapes), cmocka_unit_test(attributes),
        cmocka_unit_test(another_hdf5_file),      cmocka_unit_test(changed_bytes),
    };
    return cmocka_run_group_tests_name("results/hostile", tests, setup, teardown);
}
