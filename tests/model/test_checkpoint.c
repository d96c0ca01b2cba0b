#include "fixture.h"

#include "base/arena.h"
#include "base/buf.h"
#include "model/checkpoint.h"
#include "model/safetensors.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

/* header text + data bytes → a file in memory; length < 0: the header's own. */
static size_t build(char *out, const char *header, long long length, size_t data)
{
    size_t n = strlen(header);
    unsigned long long len = length < 0 ? n : (unsigned long long)length;

    for (int i = 0; i < 8; i++)
        out[i] = (char)(len >> 8 * i);
    memcpy(out + 8, header, n);
    memset(out + 8 + n, 0, data);
    return 8 + n + data;
}

static enum pl_status parse(const void *data, size_t size, size_t *n, struct pl_err *err)
{
    struct pl_tensor_view *t = NULL;
    struct pl_arena a;
    enum pl_status st;
    /* an exact copy, so that a sanitizer sees the first byte read beyond it */
    void *copy = malloc(size ? size : 1);

    assert_non_null(copy);
    memcpy(copy, data, size);
    pl_arena_init(&a);
    st = pl_safetensors_parse("x", copy, size, &a, &t, n, err);
    pl_arena_release(&a);
    free(copy);
    return st;
}

#define T(name, dtype, shape, b, e)                                                                \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #b "," #e "]}"

static void test_lies(void **state)
{
    static const struct {
        const char *header;
        long long length;
        size_t data;
        enum pl_status status;
        const char *says;
    } cases[] = {
        {"{}", -1, 0, PL_OK, ""},
        {"{\"__metadata__\":{\"format\":\"pt\"}}  ", -1, 0, PL_OK, ""},
        {"{" T("a", "F32", "[2,3]", 0, 24) "}", -1, 24, PL_OK, ""},
        {"{" T("s", "F64", "[]", 0, 8) "," T("z", "F32", "[0,7]", 8, 8) "}", -1, 8, PL_OK, ""},
        {"{" T("b", "BF16", "[3]", 4, 10) "," T("a", "F32", "[1]", 0, 4) "}", -1, 10, PL_OK, ""},
        {"{}", 3, 0, PL_EFORMAT, "beyond the file"},
        {"{}", 1LL << 62, 0, PL_EFORMAT, "above the format's limit"},
        {"{}", -2, 0, PL_EFORMAT, ""},
        {"{}", 0, 0, PL_EFORMAT, "not a JSON object"},
        {"[]", -1, 0, PL_EFORMAT, "not a JSON object"},
        {"{\"a\":", -1, 0, PL_EFORMAT, "safetensors header"},
        {"{\"a\":1}", -1, 0, PL_EFORMAT, "not described by an object"},
        {"{\"a\":{}}", -1, 0, PL_EFORMAT, "no dtype"},
        {"{" T("a", "F31", "[1]", 0, 4) "}", -1, 4, PL_EUNSUPPORTED, "unknown dtype \"F31\""},
        {"{" T("a", "F32", "3", 0, 4) "}", -1, 4, PL_EFORMAT, "no shape list"},
        {"{" T("a", "F32", "[-1]", 0, 4) "}", -1, 4, PL_EFORMAT, "not a size"},
        {"{" T("a", "F32", "[1.0]", 0, 4) "}", -1, 4, PL_EFORMAT, "not a size"},
        {"{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", -1, 4, PL_EFORMAT, "9 dimensions"},
        {"{" T("a", "F32", "[4294967296,4294967296]", 0, 4) "}", -1, 4, PL_EFORMAT, "overflows"},
        {"{" T("a", "F32", "[4611686018427387904]", 0, 4) "}", -1, 4, PL_EFORMAT, "need"},
        {"{" T("a", "F32", "[2]", 0, 4) "}", -1, 4, PL_EFORMAT,
         "need 8 bytes, data_offsets give 4"},
        {"{" T("a", "F32", "[1]", 4, 0) "}", -1, 4, PL_EFORMAT, "no range"},
        {"{" T("a", "F32", "[1]", -4, 0) "}", -1, 4, PL_EFORMAT, "no range"},
        {"{" T("a", "F32", "[2]", 0, 8) "}", -1, 4, PL_EFORMAT, "truncated"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", -1, 4, PL_EFORMAT,
         "no data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4.5]}}", -1, 4, PL_EFORMAT,
         "no data_offsets"},
        {"{" T("a", "F32", "[2]", 0, 8) "," T("b", "F32", "[2]", 4, 12) "}", -1, 12, PL_EFORMAT,
         "a and b overlap"},
        {"{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 0, 4) "}", -1, 4, PL_EFORMAT,
         "a and b overlap"},
        {"{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 8, 12) "}", -1, 12, PL_EFORMAT,
         "bytes 4 to 8 of the data belong to no tensor"},
        {"{" T("a", "F32", "[1]", 4, 8) "}", -1, 8, PL_EFORMAT, "bytes 0 to 4"},
        {"{" T("a", "F32", "[1]", 0, 4) "}", -1, 9, PL_EFORMAT, "5 bytes after the last"},
        {"{" T("a", "F32", "[1]", 0, 4) "," T("a", "F32", "[1]", 4, 8) "}", -1, 8, PL_EFORMAT,
         "duplicate"},
    };
    char file[4096];
    size_t n = 0;

    (void)state;
    fails(PL_EFORMAT, "the file is empty", parse("", 0, &n, &err));
    fails(PL_EFORMAT, "too few", parse("abc", 3, &n, &err));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pl_err err = {0};
        size_t size = build(file, cases[i].header, cases[i].length, cases[i].data);
        if (cases[i].length == -2) { /* cut within the header */
            size = 9;
        }
        enum pl_status st = parse(file, size, &n, &err);
        if (st != cases[i].status || !strstr(err.text, cases[i].says))
            fail_msg("case %zu %s: %s: %s", i, cases[i].header, pl_status_text(st), err.text);
    }
}

/* Every cut and every flipped bit of a real header: an error or a checkpoint, never more. */
static void test_mutations(void **state)
{
    struct pl_buf b;
    size_t n, failed = 0, head;

    (void)state;
    ok(pl_read_file(GOLDENS "/tied_bf16/model.safetensors", 1u << 20, &b, &err));
    head = 8 + (unsigned char)b.data[0] + 256u * (unsigned char)b.data[1];
    for (size_t i = 0; i < head; i++) {
        for (int bit = 0; bit < 8; bit += 3) {
            b.data[i] = (char)(b.data[i] ^ 1 << bit);
            failed += parse(b.data, b.len, &n, NULL) != PL_OK;
            b.data[i] = (char)(b.data[i] ^ 1 << bit);
        }
        assert_int_not_equal(parse(b.data, i, &n, NULL), PL_OK);
    }
    assert_true(failed > head);
    assert_int_not_equal(parse(b.data, b.len - 1, &n, NULL), PL_OK);
    ok(parse(b.data, b.len, &n, &err));
    assert_int_equal(n, 29);
    pl_buf_release(&b);
}

static void put(const char *dir, const char *name, const char *text, size_t n)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    ok(pl_write_file_atomic(path, text, n, &err));
}

static void test_directories(void **state)
{
    char dir[] = "/tmp/pl_ckpt_XXXXXX", path[256], file[512], target[512];
    struct pl_checkpoint *c = NULL;
    size_t n;

    (void)state;
    assert_non_null(mkdtemp(dir));
    fails(PL_ENOENT, "looked for model.safetensors", pl_checkpoint_open(dir, &c, &err));
    put(dir, "pytorch_model.bin", "x", 1);
    fails(PL_ENOENT, "pytorch_model.bin is there", pl_checkpoint_open(dir, &c, &err));
    fails(PL_ENOENT, "/nowhere", pl_checkpoint_open("/nowhere", &c, &err));
    n = build(file, "{" T("a", "F32", "[1]", 0, 4) "}", -1, 4);
    put(dir, "one.safetensors", file, n);
    put(dir, "two.safetensors", file, n);
    put(dir, "model.safetensors.index.json", "{\"weight_map\":{}}", 17);
    fails(PL_EFORMAT, "no usable weight_map", pl_checkpoint_open(dir, &c, &err));
#define INDEX(text) put(dir, "model.safetensors.index.json", text, strlen(text))
    INDEX("{\"weight_map\":{\"a\":\"../one.safetensors\"}}");
    fails(PL_EFORMAT, "not in a file of this directory", pl_checkpoint_open(dir, &c, &err));
    INDEX("{\"weight_map\":{\"a\":\"three.safetensors\"}}");
    fails(PL_ENOENT, "three.safetensors", pl_checkpoint_open(dir, &c, &err));
    INDEX("{\"weight_map\":{\"b\":\"one.safetensors\"}}");
    fails(PL_EFORMAT, "tensor b is not in one.safetensors", pl_checkpoint_open(dir, &c, &err));
    INDEX("{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}");
    fails(PL_EFORMAT, "tensor a stands in both", pl_checkpoint_open(dir, &c, &err));
    INDEX("{\"weight_map\":{\"a\":\"one.safetensors\"}}");
    ok(pl_checkpoint_open(dir, &c, &err));
    assert_int_equal(pl_checkpoint_count(c), 1);
    assert_non_null(pl_checkpoint_find(c, "a"));
    assert_null(pl_checkpoint_find(c, "b"));
    pl_checkpoint_free(c);
    /* a symbolic link, as a Hub cache has it */
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    snprintf(target, sizeof(target), "%s/one.safetensors", dir);
    assert_int_equal(symlink(target, path), 0);
    ok(pl_checkpoint_open(dir, &c, &err));
    pl_checkpoint_free(c);
    static const char *const all[] = {"model.safetensors", "one.safetensors", "two.safetensors",
                                      "model.safetensors.index.json", "pytorch_model.bin"};
    for (size_t i = 0; i < 5; i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, all[i]);
        unlink(path);
    }
    rmdir(dir);
}

static void test_sharded(void **state)
{
    struct pl_checkpoint *c = NULL;

    (void)state;
    ok(pl_checkpoint_open(GOLDENS "/mqa_sharded", &c, &err));
    assert_int_equal(pl_checkpoint_count(c), 21);
    for (size_t i = 1; i < 21; i++)
        assert_true(strcmp(pl_checkpoint_tensor(c, i - 1)->name, pl_checkpoint_tensor(c, i)->name) <
                    0);
    pl_checkpoint_free(c);
}

static void test_nonfinite(void **state)
{
    float f32[] = {1, NAN, INFINITY, -INFINITY, 0};
    uint16_t f16[] = {0x7c00, 0x7c01, 0xfc00, 0x7bff}, bf16[] = {0x7f80, 0xffff, 0x7f7f};
    struct pl_tensor_view t = {.dtype = PL_DT_F32, .elements = 5, .data = f32};
    int64_t nan, inf;

    (void)state;
    pl_tensor_nonfinite(&t, &nan, &inf);
    assert_true(nan == 1 && inf == 2);
    t = (struct pl_tensor_view){.dtype = PL_DT_F16, .elements = 4, .data = f16};
    pl_tensor_nonfinite(&t, &nan, &inf);
    assert_true(nan == 1 && inf == 2);
    t = (struct pl_tensor_view){.dtype = PL_DT_BF16, .elements = 3, .data = bf16};
    pl_tensor_nonfinite(&t, &nan, &inf);
    assert_true(nan == 1 && inf == 1);
}

/* All 65536 halves survive the way to f32 and back; rounding is to nearest even. */
static void test_halves(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float a = pl_f16_to_f32((uint16_t)h), b = pl_bf16_to_f32((uint16_t)h);
        if (a == a)
            assert_int_equal(pl_f32_to_f16(a), h);
        else
            assert_true(isnan(pl_f16_to_f32(pl_f32_to_f16(a))));
        if (b == b)
            assert_int_equal(pl_f32_to_bf16(b), h);
        else
            assert_true(isnan(pl_bf16_to_f32(pl_f32_to_bf16(b))));
    }
    assert_int_equal(pl_f32_to_f16(1.0f + 0x1p-11f), 0x3c00);
    assert_int_equal(pl_f32_to_f16(1.0f + 3 * 0x1p-11f), 0x3c02);
    assert_int_equal(pl_f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(pl_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(pl_f32_to_f16(0x1p-25f), 0);
    assert_int_equal(pl_f32_to_f16(0x1.8p-25f), 1);
    assert_int_equal(pl_f32_to_bf16(1.0f + 0x1p-8f), 0x3f80);
    assert_int_equal(pl_f32_to_bf16(1.0f + 3 * 0x1p-8f), 0x3f82);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lies),        cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_directories), cmocka_unit_test(test_sharded),
        cmocka_unit_test(test_nonfinite),   cmocka_unit_test(test_halves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
