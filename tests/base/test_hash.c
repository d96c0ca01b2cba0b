#include "base/hash.h"

#include "base/buf.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef uint32_t crc_fn(uint32_t crc, const void *data, size_t n);

static crc_fn *const paths[] = {pl_crc32c, pl_crc32c_portable};

/* RFC 3720, appendix B.4 */
static void crc_known_answers(void **state)
{
    unsigned char zeros[32] = {0}, ones[32], up[32], down[32];

    (void)state;
    memset(ones, 0xFF, sizeof(ones));
    for (int i = 0; i < 32; i++) {
        up[i] = (unsigned char)i;
        down[i] = (unsigned char)(31 - i);
    }
    for (size_t k = 0; k < 2; k++) {
        assert_int_equal(paths[k](0, "123456789", 9), 0xE3069283);
        assert_int_equal(paths[k](0, zeros, 32), 0x8A9136AA);
        assert_int_equal(paths[k](0, ones, 32), 0x62A8AB43);
        assert_int_equal(paths[k](0, up, 32), 0x46DD794E);
        assert_int_equal(paths[k](0, down, 32), 0x113FDB5C);
        assert_int_equal(paths[k](0, "", 0), 0);
    }
}

/* Both paths, every alignment and every split, against the bitwise definition. */
static void crc_paths_agree(void **state)
{
    unsigned char p[300];

    (void)state;
    for (size_t i = 0; i < sizeof(p); i++)
        p[i] = (unsigned char)(i * 167 + 13);
    for (size_t from = 0; from < 9; from++) {
        for (size_t n = 0; n < 70; n++) {
            uint32_t c = 0xFFFFFFFF;
            for (size_t i = 0; i < n; i++) {
                c ^= p[from + i];
                for (int b = 0; b < 8; b++)
                    c = (c >> 1) ^ (c & 1 ? 0x82F63B78u : 0);
            }
            assert_int_equal(pl_crc32c(0, p + from, n), ~c);
            assert_int_equal(pl_crc32c_portable(0, p + from, n), ~c);
        }
    }
    uint32_t whole = pl_crc32c(0, p, sizeof(p));
    for (size_t cut = 0; cut <= sizeof(p); cut++) {
        for (size_t k = 0; k < 2; k++)
            assert_int_equal(paths[k](paths[k](0, p, cut), p + cut, sizeof(p) - cut), whole);
    }
}

/* FIPS 180-2's examples */
static void sha256_known_answers(void **state)
{
    char hex[PL_SHA256_HEX];

    (void)state;
    pl_sha256_hex("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    pl_sha256_hex(NULL, 0, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    char *million = malloc(1000000);
    assert_non_null(million);
    memset(million, 'a', 1000000);
    pl_sha256_hex(million, 1000000, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");

    char path[] = "/tmp/paceline-hash-XXXXXX", file_hex[PL_SHA256_HEX];
    struct pl_err err;
    close(mkstemp(path));
    assert_int_equal(pl_write_file_atomic(path, million, 1000000, &err), PL_OK);
    assert_int_equal(pl_sha256_file(path, file_hex, &err), PL_OK);
    assert_string_equal(file_hex, hex);
    (void)remove(path);
    free(million);
    assert_int_equal(pl_sha256_file(path, file_hex, &err), PL_ENOENT);
    assert_contains(err.text, path);
    assert_string_equal(file_hex, hex); /* untouched */
    assert_int_equal(pl_sha256_file("/", file_hex, &err), PL_EUSAGE);
}

static void hash64(void **state)
{
    (void)state;
    /* pinned: it stands in result files */
    assert_true(pl_hash64(7, "", 0) == UINT64_C(0x74b5abcc66b8bdc1));
    assert_true(pl_hash64(7, "123456789", 9) == UINT64_C(0xa0e5aa2bbeb80556));
    assert_true(pl_hash64(8, "", 0) != pl_hash64(7, "", 0));
    assert_true(pl_hash64(7, "a", 1) != pl_hash64(7, "a\0", 2));
    assert_true(pl_hash64(7, "12345678abcdefgh", 16) != pl_hash64(7, "abcdefgh12345678", 16));
    char odd[17] = "x12345678";
    assert_true(pl_hash64(7, odd + 1, 8) == pl_hash64(7, "12345678", 8)); /* any alignment */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc_known_answers),
        cmocka_unit_test(crc_paths_agree),
        cmocka_unit_test(sha256_known_answers),
        cmocka_unit_test(hash64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
