/* Products of bf16 with activations rounded to bf16: exact sums for one product, tolerances and
 * bits for models; and the other products of the AVX-512 paths beside AVX2's. */
#include "emulated.h"

#include <math.h>

static const char *const isas[] = {"avx512bf16", "emulated"};
#define ISAS (sizeof(isas) / sizeof(isas[0]))
#define MOST 150 /* rows: more than a block holds, and no multiple of a tile */

static float *random_floats(size_t n, uint32_t seed)
{
    float *x = malloc(n * sizeof(*x));

    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = ((float)(seed >> 8) / 8388608.0f - 1) * (i % 50 == 3 ? 30 : 1);
    }
    return x;
}

static float rounded(float x)
{
    return pl_bf16_to_f32(pl_f32_to_bf16(x));
}

struct product {
    struct pl_device *d;
    struct pl_tensor *w;
    size_t out, in;
    float *x, *weights, *pairs, *scratch; /* pairs: x as gemm reads it */
};

/* The weight as pairs, from values that bf16 holds; transposed: from a view [in, out]. */
static void product_init(struct product *p, struct pl_device *d, size_t out, size_t in,
                         bool transposed, struct pl_panels *panels)
{
    struct pl_tensor_view v = {.dtype = PL_DT_F32, .elements = (int64_t)(out * in)};
    struct pl_weight_source src = {
        .name = "w", .rows = (int64_t)out, .cols = (int64_t)in, .view = &v};
    float *file = malloc(out * in * sizeof(*file)); /* its pages are given back once read */

    *p = (struct product){.d = d, .out = out, .in = in};
    p->x = random_floats(MOST * in, 3);
    p->weights = random_floats(out * in, 5);
    p->pairs = malloc(MOST * pl_cpu_pairs_pitch(in) * sizeof(float));
    p->scratch = malloc(PL_GEMM_SCRATCH * sizeof(float));
    for (size_t i = 0; i < out * in; i++)
        file[transposed ? i % in * out + i / in : i] = p->weights[i];
    v.data = file;
    v.bytes = out * in * sizeof(float);
    src.ld = transposed ? (int64_t)out : 0;
    ok(pl_cpu_pack(d, &src, PL_DT_BF16, PL_ACTIVATIONS_INT8, panels, &err));
    free(file);
    assert_int_equal(panels->acts, PL_ACTIVATIONS_BF16);
    for (size_t r = 0; r < MOST; r++)
        d->kernels->round(p->x + r * in, in, p->pairs + r * pl_cpu_pairs_pitch(in));
}

static void product_release(struct product *p, struct pl_panels *panels)
{
    free(p->x);
    free(p->weights);
    free(p->pairs);
    free(p->scratch);
    free(panels->data);
}

static void run(const struct product *p, const struct pl_panels *panels, size_t rows, size_t r0,
                float *y)
{
    struct pl_gemm g = {.x = p->pairs + r0 * pl_cpu_pairs_pitch(p->in),
                        .ldx = pl_cpu_pairs_pitch(p->in),
                        .rows = rows,
                        .y = y,
                        .ldy = p->out,
                        .scratch = p->scratch,
                        .end = (p->out + PL_PANEL - 1) / PL_PANEL};

    pl_cpu_gemm_weight(&g, panels);
    p->d->kernels->gemm(&g);
}

static void check_product(struct pl_device *d, size_t out, size_t in, bool transposed)
{
    static const size_t counts[] = {2, 3, 5, 12, 13, 24, 65, MOST};
    float *y = malloc(MOST * out * sizeof(*y)), *one = malloc(MOST * out * sizeof(*one));
    struct pl_panels panels = {0};
    struct product p;

    product_init(&p, d, out, in, transposed, &panels);
    for (size_t r = 0; r < MOST; r++)
        run(&p, &panels, 1, r, one + r * out);
    for (size_t r = 0; r < MOST; r += 29) {
        for (size_t o = 0; o < out; o++) {
            double sum = 0, terms = 0, got = (double)one[r * out + o];
            for (size_t i = 0; i < in; i++) {
                double t =
                    (double)rounded(p.x[r * in + i]) * (double)rounded(p.weights[o * in + i]);
                sum += t;
                terms += fabs(t);
            }
            if (!(fabs(got - sum) <= 2e-6 * terms))
                fail_msg("%s [%zu, %zu], row %zu output %zu: %.9g, expected %.9g", d->kernels->name,
                         out, in, r, o, got, sum);
        }
    }
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        memset(y, 0, MOST * out * sizeof(*y));
        run(&p, &panels, counts[i], 0, y);
        if (memcmp(y, one, counts[i] * out * sizeof(*y)))
            fail_msg("%s [%zu, %zu]: %zu rows give other bits than one by one", d->kernels->name,
                     out, in, counts[i]);
    }
    product_release(&p, &panels);
    free(y);
    free(one);
}

static void test_products(void **state)
{
    (void)state;
    for (size_t s = 0; s < ISAS; s++) {
        struct pl_device *d = open_path(isas[s], 1);
        for (int t = 0; d && t < 2; t++) {
            check_product(d, 37, 768, t);
            check_product(d, 80, 1030, t); /* more than a block of columns, four panels at once */
            check_product(d, 17, 33, t);
            check_product(d, 1, 1, t);
        }
        pl_cpu_backend.close(d);
    }
}

/* To nearest even, what is no number stays none, and an odd column's partner is 0. */
static void test_round(void **state)
{
    static const float x[19] = {
        1 + 0x1p-8f, 1 + 3 * 0x1p-8f, -1 - 0x1.01p-8f, 0x1.fffffep127f, INFINITY, NAN, 0x1p-133f,
        -0.0f};

    (void)state;
    for (size_t s = 0; s < ISAS; s++) {
        struct pl_device *d = open_path(isas[s], 1);
        uint16_t got[20];
        float pairs[10];
        if (!d)
            continue;
        memset(pairs, 0xff, sizeof(pairs));
        d->kernels->round(x, 19, pairs);
        memcpy(got, pairs, sizeof(got));
        for (size_t i = 0; i < 19; i++)
            assert_int_equal(got[i], pl_f32_to_bf16(x[i]));
        assert_int_equal(got[0], 0x3f80);
        assert_int_equal(got[1], 0x3f82);
        assert_int_equal(got[2], 0xbf81);
        assert_int_equal(got[3], 0x7f80);
        assert_true(isnan(pl_bf16_to_f32(got[5])));
        assert_int_equal(got[19], 0);
        pl_cpu_backend.close(d);
    }
}

/* One instruction: which product comes first, each sum rounded, subnormals 0 on both sides. */
static float one_pair(const struct pl_device *d, float x0, float x1, float w0, float w1, float acc)
{
    float x[1], w[PL_PANEL], y[PL_PANEL], scratch[1];
    const float xs[] = {x0, x1}, ws[] = {w0, w1};
    struct pl_gemm g = {.x = x,
                        .ldx = 1,
                        .rows = 1,
                        .k = 1,
                        .w = w,
                        .dtype = PL_DT_BF16,
                        .pairs = true,
                        .stride = PL_PANEL,
                        .end = 1,
                        .n = PL_PANEL,
                        .y = y,
                        .ldy = PL_PANEL,
                        .resume = true,
                        .scratch = scratch};

    d->kernels->round(xs, 2, x);
    for (int i = 0; i < PL_PANEL; i++) {
        d->kernels->round(ws, 2, w + i);
        y[i] = acc;
    }
    d->kernels->gemm(&g);
    for (int i = 1; i < PL_PANEL; i++)
        assert_memory_equal(&y[i], &y[0], sizeof(float));
    return y[0];
}

static void test_instruction(void **state)
{
    (void)state;
    for (size_t s = 0; s < ISAS; s++) {
        struct pl_device *d = open_path(isas[s], 1);
        if (!d)
            continue;
        assert_true(one_pair(d, 3, 5, 7, 11, 2) == 78);
        /* later column first: 2^24 + 1 rounds to 2^24 before −2^24 comes */
        assert_true(one_pair(d, -1, 1, 0x1p24f, 1, 0x1p24f) == 0);
        assert_true(one_pair(d, 1, -1, 1, 0x1p24f, 0x1p24f) == 1);
        /* half way, to even; fused: the product of two 8-bit significands is not rounded itself */
        assert_true(one_pair(d, 0, 1, 0, 3, 0x1p24f) == 0x1p24f + 4);
        assert_true(one_pair(d, 0, 1 + 0x1p-7f, 0, 1 + 0x1p-7f, -1) == 0x1p-6f + 0x1p-14f);
        /* subnormal weight, activation, sum on the way in and out */
        assert_true(one_pair(d, 0, 1, 0, 0x1p-130f, 0) == 0);
        assert_true(one_pair(d, 0, 0x1p-130f, 0, 0x1p20f, 0) == 0);
        assert_true(one_pair(d, 0, 0, 0, 0, 0x1p-130f) == 0);
        assert_true(one_pair(d, 0, 0x1p-70f, 0, 0x1p-70f, 0) == 0);
        assert_true(one_pair(d, 0, 0x1p-63f, 0, 0x1p-63f, 0) == 0x1p-126f);
        assert_true(isnan(one_pair(d, 0, NAN, 0, 1, 0)));
        assert_true(isinf(one_pair(d, 0, INFINITY, 0, 1, 0)));
        pl_cpu_backend.close(d);
    }
}

enum { N = 36 };

static const char *const paths[] = {GOLDENS "/tied_bf16", GOLDENS "/families/gpt2",
                                    GOLDENS "/families/mistral_window",
                                    PL_SOURCE_DIR "/tests/model/gguf/bf16.gguf"};
#define PATHS (sizeof(paths) / sizeof(paths[0]))

/* Within 2 % of what f32 activations give, which test_goldens.c holds to transformers. */
static void test_tolerance(void **state)
{
    (void)state;
    for (size_t i = 0; i < PATHS; i++) {
        struct pl_model *exact = load_as(paths[i], PL_DT_BF16, PL_ACTIVATIONS_F32, 1, NULL);
        size_t vocab = (size_t)pl_model_info(exact)->arch.vocab;
        int32_t ids[N];
        make_ids(ids, N, 17, (int32_t)vocab);
        float *want = logits_of(exact, ids, N), most = 0;
        assert_int_equal(pl_model_info(exact)->activations, PL_ACTIVATIONS_F32);
        assert_null(strstr(pl_model_info(exact)->device, "bf16 activations"));
        for (size_t j = 0; j < N * vocab; j++)
            most = fmaxf(most, fabsf(want[j]));
        for (size_t s = 0; s < ISAS; s++) {
            struct pl_device *d = open_path(isas[s], 1);
            float worst = 0;
            if (!d)
                continue;
            pl_cpu_backend.close(d);
            struct pl_model *m = load_as(paths[i], PL_DT_BF16, PL_ACTIVATIONS_INT8, 2, isas[s]);
            float *got = logits_of(m, ids, N);
            for (size_t j = 0; j < N * vocab; j++)
                worst = fmaxf(worst, fabsf(got[j] - want[j]));
            print_message("%s: %s, max |difference| / max |logit| %.2e\n",
                          strrchr(paths[i], '/') + 1, pl_model_info(m)->device,
                          (double)(worst / most));
            assert_true(worst > 0 && worst <= 2e-2f * most);
            assert_int_equal(pl_model_info(m)->activations, PL_ACTIVATIONS_BF16);
            assert_non_null(strstr(pl_model_info(m)->device, "bf16 activations"));
            free(got);
            pl_model_free(m);
        }
        free(want);
        pl_model_free(exact);
    }
}

static void test_bits(void **state)
{
    (void)state;
    check_all_bits(isas, ISAS, paths, PATHS, PL_DT_BF16);
}

/* With f32 activations an AVX-512 path's chains are AVX2's, whatever a vector's width: the same
 * bits from its products of f32, f16 and bf16 and from its attention. */
static void test_as_avx2(void **state)
{
    static const char *const wide[] = {"avx512", "avx512bf16", "emulated"};
    static const enum pl_dtype types[] = {PL_DT_F32, PL_DT_F16, PL_DT_BF16};
    struct pl_device *avx2 = open_path("avx2", 1);
    int32_t ids[N];

    (void)state;
    make_ids(ids, N, 5, 97);
    for (size_t s = 0; avx2 && s < sizeof(wide) / sizeof(wide[0]); s++) {
        struct pl_device *d = open_path(wide[s], 1);
        for (size_t t = 0; d && t < sizeof(types) / sizeof(types[0]); t++) {
            struct pl_model *a = load_as(GOLDENS "/plain", types[t], PL_ACTIVATIONS_F32, 2, "avx2");
            struct pl_model *b =
                load_as(GOLDENS "/plain", types[t], PL_ACTIVATIONS_F32, 2, wide[s]);
            for (size_t n = 1; n <= N; n += 13) {
                size_t bytes = n * (size_t)pl_model_info(a)->arch.vocab * sizeof(float);
                float *want = logits_of(a, ids, n), *got = logits_of(b, ids, n);
                if (memcmp(got, want, bytes))
                    fail_msg("%s, %s, %zu rows: other bits than AVX2's", wide[s],
                             pl_dtype_traits(types[t])->name, n);
                free(want);
                free(got);
            }
            pl_model_free(a);
            pl_model_free(b);
        }
        pl_cpu_backend.close(d);
    }
    pl_cpu_backend.close(avx2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round),    cmocka_unit_test(test_instruction),
        cmocka_unit_test(test_products), cmocka_unit_test(test_tolerance),
        cmocka_unit_test(test_bits),     cmocka_unit_test(test_as_avx2),
    };
    offer_emulated();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
