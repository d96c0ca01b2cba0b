#include "fixture.h"

#include "base/buf.h"
#include "model/backend.h"
#include "model/quant.h"

#include <sys/mman.h>
#include <unistd.h>

#define DIR PL_SOURCE_DIR "/tests/model/gguf"

static const enum pl_dtype formats[] = {PL_DT_Q4_0, PL_DT_Q4_1, PL_DT_Q5_0, PL_DT_Q5_1, PL_DT_Q8_0,
                                        PL_DT_Q2_K, PL_DT_Q3_K, PL_DT_Q4_K, PL_DT_Q5_K, PL_DT_Q6_K};
#define FORMATS (sizeof(formats) / sizeof(formats[0]))
#define GOLDEN 512 /* elements of a golden row of blocks, at least */

static void golden(enum pl_dtype dt, const char *ext, struct pl_buf *out)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/blocks_%s.%s", DIR, pl_dtype_traits(dt)->name, ext);
    ok(pl_read_file(path, 1u << 20, out, &err));
}

/* Bit for bit what the gguf package says. */
static void test_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < FORMATS; i++) {
        const struct pl_dtype_traits *t = pl_dtype_traits(formats[i]);
        struct pl_buf bin, want;
        golden(formats[i], "bin", &bin);
        golden(formats[i], "f32", &want);
        size_t n = bin.len / t->bytes * t->block;
        assert_true(n >= GOLDEN && want.len == n * sizeof(float));
        assert_int_equal(pl_dtype_bytes(formats[i], n), bin.len);
        float *got = malloc(n * sizeof(*got));
        char *odd = malloc(bin.len + 1); /* blocks in files are not aligned */
        memcpy(odd + 1, bin.data, bin.len);
        pl_quant_to_f32(formats[i], odd + 1, got, n);
        if (memcmp(got, want.data, want.len))
            fail_msg("%s differs from the gguf package", t->name);
        free(got);
        free(odd);
        pl_buf_release(&bin);
        pl_buf_release(&want);
    }
}

/* A matrix of golden blocks, shuffled; in a file, since pages that were packed are given back. */
static void make_matrix(enum pl_dtype dt, size_t rows, size_t cols, struct pl_tensor_view *v)
{
    const struct pl_dtype_traits *t = pl_dtype_traits(dt);
    size_t n = rows * cols / t->block;
    int fd = memfd_create("matrix", 0);
    struct pl_buf bin;
    char *data;

    assert_true(fd >= 0 && !ftruncate(fd, (off_t)(n * t->bytes)));
    data = mmap(NULL, n * t->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(data != MAP_FAILED);
    close(fd);

    golden(dt, "bin", &bin);
    for (size_t b = 0; b < n; b++)
        memcpy(data + b * t->bytes, bin.data + b * 7 % (bin.len / t->bytes) * t->bytes, t->bytes);
    pl_buf_release(&bin);
    *v = (struct pl_tensor_view){.name = "w",
                                 .dtype = dt,
                                 .dims = 2,
                                 .shape = {(int64_t)rows, (int64_t)cols},
                                 .elements = (int64_t)(rows * cols),
                                 .data = data,
                                 .bytes = n * t->bytes,
                                 .file = "test"};
}

static void product(struct pl_device *d, const struct pl_weight_source *src, enum pl_dtype dt,
                    size_t n, const float *x, float *y)
{
    const struct pl_backend *b = &pl_cpu_backend;
    struct pl_tensor *w = NULL, *in = NULL, *out = NULL;
    size_t rows = (size_t)src->rows, cols = (size_t)src->cols;

    ok(b->weight_create(d, src, dt, &w, &err));
    ok(b->tensor_create(d, n, cols, &in, &err));
    ok(b->tensor_create(d, n, rows, &out, &err));
    ok(b->upload(in, 0, n, x, &err));
    ok(b->linear(out, in, w, NULL, &err));
    ok(b->download(out, 0, n, y, &err));
    b->tensor_free(w);
    b->tensor_free(in);
    b->tensor_free(out);
}

/* Quantised weights give the bits of the f32 weights that they decode to, for any number of rows.
 */
static void check_product(struct pl_device *d, enum pl_dtype dt, size_t rows, size_t cols,
                          int paired)
{
    static const size_t counts[] = {1, 2, 3, 5, 6, 7, 12, 13, 31};
    struct pl_tensor_view v;
    struct pl_weight_source src = {
        .name = "w", .view = &v, .rows = (int64_t)rows, .cols = (int64_t)cols, .paired = paired};
    float *x = malloc(31 * cols * sizeof(*x)), *a = malloc(31 * rows * sizeof(*a)),
          *b = malloc(31 * rows * sizeof(*b));

    make_matrix(dt, rows, cols, &v);
    for (size_t i = 0; i < 31 * cols; i++)
        x[i] = (float)((int)(i * 2654435761u >> 16 & 0xffff) - 32768) / 30000.0f;
    product(d, &src, PL_DT_F32, 31, x, b);
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        memset(a, 0, 31 * rows * sizeof(*a));
        product(d, &src, PL_DT_AUTO, counts[i], x, a);
        if (memcmp(a, b, counts[i] * rows * sizeof(*a)))
            fail_msg("%s [%zu, %zu] paired %d, %zu rows: other bits than decoded weights",
                     pl_dtype_traits(dt)->name, rows, cols, paired, counts[i]);
    }
    free(x);
    free(a);
    free(b);
    munmap((void *)v.data, v.bytes);
}

static void test_products(void **state)
{
    const char *isa;

    (void)state;
    for (size_t s = 0; next_isa(&s, &isa);) {
        struct pl_device *d = NULL;
        ok(pl_cpu_backend.open(&(struct pl_device_opts){.threads = 2, .isa = isa}, &d, &err));
        for (size_t i = 0; i < FORMATS; i++) {
            size_t block = pl_dtype_traits(formats[i])->block;
            check_product(d, formats[i], 37, 768, 0);
            check_product(d, formats[i], 1, 256, 0);
            check_product(d, formats[i], 48, 256, 12);
            if (block == 32) {
                check_product(d, formats[i], 17, 32, 0);
                check_product(d, formats[i], 20, 288, 4);
            }
        }
        pl_cpu_backend.close(d);
    }
}

static void test_traits(void **state)
{
    (void)state;
    assert_true(pl_quant_decodes(PL_DT_Q6_K));
    assert_false(pl_quant_decodes(PL_DT_F16));
    assert_false(pl_quant_decodes(PL_DT_IQ4_NL));
    assert_false(pl_quant_decodes(PL_DT_AUTO));
    for (size_t i = 0; i < FORMATS; i++)
        assert_true(pl_dtype_traits(formats[i])->block > 1 &&
                    !pl_dtype_traits(formats[i])->computes);
    assert_int_equal(pl_dtype_by_name("q4_k"), PL_DT_Q4_K);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_traits),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
