/* Products of 8-bit activations: exact answers for one product, tolerances and bits for models. */
#include "emulated.h"

#include "model/quant.h"

#include <math.h>

#define DIR PL_SOURCE_DIR "/tests/model/gguf"

static const enum pl_dtype formats[] = {PL_DT_Q4_0, PL_DT_Q4_1, PL_DT_Q5_0, PL_DT_Q5_1, PL_DT_Q8_0,
                                        PL_DT_Q2_K, PL_DT_Q3_K, PL_DT_Q4_K, PL_DT_Q5_K, PL_DT_Q6_K};
#define FORMATS (sizeof(formats) / sizeof(formats[0]))
/* "emulated": avx512's code with its instructions in C (avx512_emulated.h). */
static const char *const isas[] = {"portable", "avx2", "avx512", "emulated"};
#define ISAS (sizeof(isas) / sizeof(isas[0]))
#define MOST 150 /* rows: more than a tile holds, and no multiple of it */

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* A matrix of any bits but for d and m, which are halves of ordinary size. */
static uint8_t *make_blocks(enum pl_dtype dt, size_t rows, size_t cols, uint32_t seed)
{
    const struct pl_dtype_traits *t = pl_dtype_traits(dt);
    struct pl_q8_format f = pl_q8_format(dt);
    size_t n = rows * cols / t->block;
    size_t at = dt == PL_DT_Q2_K ? 80 : dt == PL_DT_Q3_K ? 108 : dt == PL_DT_Q6_K ? 208 : 0;
    uint8_t *data = malloc(n * t->bytes);

    for (size_t b = 0; b < n; b++) {
        uint8_t *p = data + b * t->bytes;
        uint16_t d = pl_f32_to_f16(0.01f + (float)(next(&seed) % 100) * 1e-3f);
        uint16_t m = pl_f32_to_f16(-0.5f + (float)(next(&seed) % 100) * 1e-2f);
        for (uint32_t i = 0; i < t->bytes; i++)
            p[i] = (uint8_t)next(&seed);
        memcpy(p + at, &d, 2);
        if (f.has_m)
            memcpy(p + at + 2, &m, 2);
    }
    return data;
}

struct product {
    enum pl_dtype dt;
    size_t out, in;
    uint8_t *blocks, *panels;
    struct pl_q8 *q8; /* [chunks][MOST] */
};

static void product_init(struct product *p, const struct pl_device *d, enum pl_dtype dt, size_t out,
                         size_t in)
{
    size_t panels = (out + PL_PANEL - 1) / PL_PANEL, row = pl_dtype_bytes(dt, in);
    float *x = malloc(in * sizeof(*x));
    uint32_t seed = (uint32_t)dt;

    *p = (struct product){.dt = dt, .out = out, .in = in};
    p->blocks = make_blocks(dt, out, in, 7);
    p->panels = malloc(panels * pl_q8_panel_bytes(dt, in));
    for (size_t i = 0; i < panels; i++) {
        const uint8_t *rows[PL_PANEL];
        for (size_t j = 0; j < PL_PANEL; j++)
            rows[j] = p->blocks + (i * PL_PANEL + j < out ? i * PL_PANEL + j : out - 1) * row;
        pl_q8_pack_panel(dt, rows, in, p->panels + i * pl_q8_panel_bytes(dt, in));
    }
    p->q8 = aligned_alloc(64, pl_q8_chunks(in) * MOST * sizeof(*p->q8));
    for (size_t r = 0; r < MOST; r++) {
        for (size_t i = 0; i < in; i++)
            x[i] = ((float)(next(&seed) % 20001) - 10000) * (i % 50 == 3 ? 3e-3f : 1e-4f);
        /* the extremes: all products of one sign at their largest */
        for (size_t i = 0; r == 1 && i < in; i++)
            x[i] = 1;
        for (size_t i = 0; r == 2 && i < in; i++)
            x[i] = -1;
        for (size_t i = 0; r == 3 && i < in; i++)
            x[i] = 0;
        d->kernels->quantize(x, in, p->q8 + r, MOST);
    }
    free(x);
}

static void product_release(struct product *p)
{
    free(p->blocks);
    free(p->panels);
    free(p->q8);
}

static void run(const struct pl_device *d, const struct product *p, size_t r0, size_t rows,
                float *y)
{
    struct pl_gemm g = {.q8 = p->q8 + r0, .ldq8 = MOST, .rows = rows, .y = y, .ldy = p->out};

    pl_cpu_gemm_weight(&g, &(struct pl_panels){.out = p->out,
                                               .in = p->in,
                                               .dtype = p->dt,
                                               .data = p->panels,
                                               .acts = PL_ACTIVATIONS_INT8});
    g.end = (p->out + PL_PANEL - 1) / PL_PANEL;
    d->kernels->gemm(&g);
}

/* What the decoded weights and the integers come to in double, and how large its terms are. */
static void exact(const struct product *p, size_t r, size_t o, double *sum, double *terms)
{
    float *w = malloc(p->in * sizeof(*w));

    pl_quant_to_f32(p->dt, p->blocks + o * pl_dtype_bytes(p->dt, p->in), w, p->in);
    *sum = *terms = 0;
    for (size_t i = 0; i < p->in; i++) {
        const struct pl_q8 *a = &p->q8[i / PL_Q8_CHUNK * MOST + r];
        double t =
            (double)w[i] * a->q[i % PL_Q8_CHUNK] * (double)a->d[i % PL_Q8_CHUNK / PL_Q8_UNIT];
        *sum += t;
        *terms += fabs(t);
    }
    free(w);
}

static void check_product(const struct pl_device *d, enum pl_dtype dt, size_t out, size_t in)
{
    static const size_t counts[] = {1, 2, 3, 4, 7, 8, 22, 32, 63, 64, 65, MOST};
    float *y = malloc(MOST * out * sizeof(*y)), *one = malloc(MOST * out * sizeof(*one));
    struct product p;

    product_init(&p, d, dt, out, in);
    for (size_t r = 0; r < MOST; r++)
        run(d, &p, r, 1, one + r * out);
    for (size_t r = 0; r < 6; r++) {
        for (size_t o = 0; o < out; o++) {
            double sum, terms, got = (double)one[r * out + o];
            exact(&p, r, o, &sum, &terms);
            if (!(fabs(got - sum) <= 2e-6 * terms))
                fail_msg("%s, %s [%zu, %zu], row %zu output %zu: %.9g, expected %.9g",
                         d->kernels->name, pl_dtype_traits(dt)->name, out, in, r, o, got, sum);
        }
    }
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        memset(y, 0, MOST * out * sizeof(*y));
        run(d, &p, 0, counts[i], y);
        if (memcmp(y, one, counts[i] * out * sizeof(*y)))
            fail_msg("%s, %s [%zu, %zu]: %zu rows give other bits than one by one",
                     d->kernels->name, pl_dtype_traits(dt)->name, out, in, counts[i]);
    }
    product_release(&p);
    free(y);
    free(one);
}

static void test_products(void **state)
{
    (void)state;
    for (size_t s = 0; s < ISAS; s++) {
        struct pl_device *d = open_path(isas[s], 1);
        for (size_t i = 0; d && i < FORMATS; i++) {
            check_product(d, formats[i], 37, 768);
            check_product(d, formats[i], 1, 256);
            if (pl_dtype_traits(formats[i])->block == 32) {
                check_product(d, formats[i], 17, 32);
                check_product(d, formats[i], 20, 288);
            }
        }
        pl_cpu_backend.close(d);
    }
}

/* q8_0 reaches −128, which has no positive counterpart: the largest sums there are. */
static void test_extremes(void **state)
{
    (void)state;
    for (size_t s = 0; s < ISAS; s++) {
        struct pl_device *d = open_path(isas[s], 1);
        uint8_t row[8 * 34];
        const uint8_t *rows[PL_PANEL];
        float x[256], y[5][PL_PANEL];
        if (!d)
            continue;
        uint8_t *panel = malloc(pl_q8_panel_bytes(PL_DT_Q8_0, 256));
        struct pl_q8 *q8 = aligned_alloc(64, 5 * sizeof(*q8));
        for (int b = 0; b < 8; b++) {
            memcpy(row + 34 * b, (const uint8_t[]){0, 0x3c}, 2); /* 1.0 */
            memset(row + 34 * b + 2, 0x80, 32);
        }
        for (int i = 0; i < PL_PANEL; i++)
            rows[i] = row;
        pl_q8_pack_panel(PL_DT_Q8_0, rows, 256, panel);
        for (int sign = -1; sign <= 1; sign += 2) {
            for (int i = 0; i < 256; i++)
                x[i] = (float)sign * 127;
            for (size_t r = 0; r < 5; r++)
                d->kernels->quantize(x, 256, q8 + r, 5);
            struct pl_gemm g = {.q8 = q8,
                                .ldq8 = 5,
                                .k = 256,
                                .w = panel,
                                .dtype = PL_DT_Q8_0,
                                .stride = pl_q8_panel_bytes(PL_DT_Q8_0, 256),
                                .end = 1,
                                .n = PL_PANEL,
                                .y = y[0],
                                .ldy = PL_PANEL};
            for (g.rows = 1; g.rows <= 5; g.rows += 4) {
                d->kernels->gemm(&g);
                for (size_t i = 0; i < g.rows * PL_PANEL; i++)
                    assert_true(y[i / PL_PANEL][i % PL_PANEL] == (float)(-128 * 127 * 256 * sign));
            }
        }
        free(panel);
        free(q8);
        pl_cpu_backend.close(d);
    }
}

/* Scale, rounding to even, sums; and what has no scale. */
static void test_quantize(void **state)
{
    (void)state;
    for (size_t s = 0; s < ISAS; s++) {
        struct pl_device *d = open_path(isas[s], 1);
        struct pl_q8 q8[2];
        float x[288] = {0};
        if (!d)
            continue;
        for (int i = 0; i < 32; i++)
            x[i] = (float)(i - 16) * 0.5f; /* by 127 / 127 = 1 below */
        x[5] = 127;
        x[40] = 254;
        x[41] = 1;
        x[42] = 3;
        x[43] = -5;
        d->kernels->quantize(x, 288, q8, 1);
        assert_true(q8[0].d[0] == 1 && q8[0].d[1] == 2 && q8[0].d[2] == 0 && q8[1].d[0] == 0);
        assert_int_equal(q8[0].q[5], 127);
        assert_int_equal(q8[0].q[0], -8);
        assert_int_equal(q8[0].q[1], -8); /* −7.5 */
        assert_int_equal(q8[0].q[3], -6); /* −6.5 */
        assert_int_equal(q8[0].q[40], 127);
        assert_int_equal(q8[0].q[41], 0); /* 0.5 */
        assert_int_equal(q8[0].q[42], 2); /* 1.5 */
        assert_int_equal(q8[0].q[43], -2);
        for (int g = 0; g < 16; g++) {
            int sum = 0, even = 0;
            for (int i = 0; i < 16; i++) {
                sum += q8[0].q[16 * g + i];
                even += i % 4 < 2 ? q8[0].q[16 * g + i] : 0;
            }
            assert_int_equal(q8[0].sum[g], sum);
            assert_int_equal(q8[0].pair[g][0], 32 * even);
            assert_int_equal(q8[0].pair[g][1], 32 * (sum - even));
        }
        x[7] = NAN;
        d->kernels->quantize(x, 256, q8, 1);
        assert_true(isnan(q8[0].d[0]) && q8[0].d[1] == 2);
        x[7] = INFINITY;
        d->kernels->quantize(x, 256, q8, 1);
        assert_true(isnan(q8[0].d[0]));
        pl_cpu_backend.close(d);
    }
}

static const char *const paths[] = {DIR "/q4_0.gguf", DIR "/q4_1.gguf", DIR "/q5_0.gguf",
                                    DIR "/q5_1.gguf", DIR "/q8_0.gguf", DIR "/mixed_k.gguf"};
#define PATHS (sizeof(paths) / sizeof(paths[0]))

/* The logits of several prompts: in such small models with random weights one of them alone says
 * little. */
enum { PROMPTS = 6, TOKENS = 50 };

static float *logits_of_all(struct pl_model *m)
{
    size_t each = TOKENS * (size_t)pl_model_info(m)->arch.vocab;
    float *all = malloc(PROMPTS * each * sizeof(*all));
    int32_t ids[TOKENS];

    for (uint32_t i = 0; i < PROMPTS; i++) {
        make_ids(ids, TOKENS, 11 + i, 97);
        float *one = logits_of(m, ids, TOKENS);
        memcpy(all + i * each, one, each * sizeof(*all));
        free(one);
    }
    return all;
}

/* rms of the difference to f32 activations ≤ 3.5 % of the logits' standard deviation */
static void test_tolerance(void **state)
{
    (void)state;
    for (size_t i = 0; i < PATHS; i++) {
        struct pl_model *exact_model = load_as(paths[i], PL_DT_AUTO, PL_ACTIVATIONS_F32, 1, NULL);
        size_t n = PROMPTS * TOKENS * (size_t)pl_model_info(exact_model)->arch.vocab;
        float *want = logits_of_all(exact_model);
        assert_int_equal(pl_model_info(exact_model)->activations, PL_ACTIVATIONS_F32);
        for (size_t s = 0; s < ISAS; s++) {
            struct pl_device *d = open_path(isas[s], 1);
            double mean = 0, var = 0, diff = 0;
            if (!d)
                continue;
            pl_cpu_backend.close(d);
            struct pl_model *m = load_as(paths[i], PL_DT_AUTO, PL_ACTIVATIONS_INT8, 2, isas[s]);
            float *got = logits_of_all(m);
            for (size_t j = 0; j < n; j++) {
                mean += (double)want[j] / (double)n;
                diff += pow((double)got[j] - (double)want[j], 2) / (double)n;
            }
            for (size_t j = 0; j < n; j++)
                var += pow((double)want[j] - mean, 2) / (double)n;
            print_message("%-12s %-44s rms of the difference %.2f %% of the logits' sd\n",
                          strrchr(paths[i], '/') + 1, pl_model_info(m)->device,
                          100 * sqrt(diff / var));
            assert_true(diff > 0 && sqrt(diff / var) <= 0.035);
            assert_non_null(strstr(pl_model_info(m)->device, "int8 activations"));
            free(got);
            pl_model_free(m);
        }
        free(want);
        pl_model_free(exact_model);
    }
}

static void test_bits(void **state)
{
    (void)state;
    check_all_bits(isas, ISAS, paths, PATHS, PL_DT_AUTO);
}

/* Files without block formats have nothing to multiply in integers, and say so. */
static void test_plain(void **state)
{
    struct pl_model *m = load_as(DIR "/bf16.gguf", PL_DT_AUTO, PL_ACTIVATIONS_INT8, 1, "portable");

    (void)state;
    assert_int_equal(pl_model_info(m)->activations, PL_ACTIVATIONS_F32);
    assert_null(strstr(pl_model_info(m)->device, "int8"));
    pl_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantize), cmocka_unit_test(test_products),
        cmocka_unit_test(test_extremes), cmocka_unit_test(test_tolerance),
        cmocka_unit_test(test_bits),     cmocka_unit_test(test_plain),
    };
    offer_emulated();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
