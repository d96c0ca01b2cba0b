/* Products of few rows with weights in GGUF blocks, held against sums in f64; that neither the
 * number of rows nor what else is in a launch moves a bit of them; and that packing loses nothing.
 */
#include "base/rng.h"
#include "model/cuda/kernels.h"
#include "model/dtype.h"
#include "model/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MOST_IN 2304 /* nine blocks of 256: more than the warps of a launch's block */
#define MOST_OUT 128
#define N 3
#define MOST_ROWS PL_CUDA_STREAM_ROWS
#define SMS 2 /* of a GPU so small that a block has several panels */

static const struct format {
    enum pl_dtype dt;
    size_t halves[2]; /* bytes of a block where its scales are; the same twice: one */
} formats[] = {{PL_DT_Q4_0, {0, 0}},     {PL_DT_Q4_1, {0, 2}}, {PL_DT_Q5_0, {0, 0}},
               {PL_DT_Q5_1, {0, 2}},     {PL_DT_Q8_0, {0, 0}}, {PL_DT_Q2_K, {80, 82}},
               {PL_DT_Q3_K, {108, 108}}, {PL_DT_Q4_K, {0, 2}}, {PL_DT_Q5_K, {0, 2}},
               {PL_DT_Q6_K, {208, 208}}};
#define FORMATS (sizeof(formats) / sizeof(*formats))

static struct pl_rng rng;
static uint8_t file[N][MOST_OUT * MOST_IN * 2] __attribute__((aligned(16)));
static uint8_t panels[N][(MOST_OUT + PL_CUDA_PANEL) * MOST_IN * 2] __attribute__((aligned(16)));
static float plain[N][MOST_OUT * MOST_IN], bias[N][MOST_OUT];
static float x[MOST_ROWS * MOST_IN] __attribute__((aligned(16))), x8[MOST_ROWS * MOST_IN];
static float gain[MOST_IN] __attribute__((aligned(16)));
static float y[N][MOST_ROWS * MOST_OUT], again[MOST_ROWS * MOST_OUT];
static uint8_t room[MOST_IN * 48] __attribute__((aligned(16)));

static double uniform(void)
{
    return pl_rng_double(&rng) * 2 - 1;
}

/* Random bits with ordinary scales. */
static struct pl_cuda_matrix matrix(int i, const struct format *f, int64_t out, int64_t in,
                                    bool biased)
{
    const size_t n = (size_t)(out * in), bytes = pl_dtype_bytes(f->dt, n);
    const size_t block = pl_dtype_bytes(f->dt, pl_dtype_traits(f->dt)->block);
    const struct pl_cuda_matrix w = {.data = panels[i],
                                     .out = out,
                                     .in = in,
                                     .dtype = f->dt,
                                     .row_bytes = pl_k_packed_row_bytes(f->dt, in),
                                     .packed = true,
                                     .bias = biased ? bias[i] : NULL};

    assert_true(bytes <= sizeof(file[i]));
    for (size_t k = 0; k < bytes; k++)
        file[i][k] = (uint8_t)(pl_rng_double(&rng) * 256);
    for (size_t at = 0; at < bytes; at += block)
        for (int h = 0; h < 2; h++) {
            const uint16_t d = pl_f32_to_f16((float)(uniform() * 0.01));
            memcpy(file[i] + at + f->halves[h], &d, 2);
        }
    pl_quant_to_f32(f->dt, file[i], plain[i], n);
    memset(panels[i], 0xa5, sizeof(panels[i]));
    assert_true(w.row_bytes >= bytes / (size_t)out &&
                w.row_bytes <= pl_dtype_bytes(f->dt, (size_t)in + 32) +
                                   (f->dt == PL_DT_Q3_K ? (size_t)in / 128 : 0));
    /* as a file that comes in parts */
    const int64_t first = out > PL_CUDA_PANEL ? PL_CUDA_PANEL : out;
    pl_k_pack(&w, 0, first, file[i], NULL);
    if (out > first)
        pl_k_pack(&w, first, out - first, file[i] + (size_t)first * (bytes / (size_t)out), NULL);
    cudaDeviceSynchronize();
    return w;
}

/* What the 8 bits of n numbers stand for. */
static void to_8_bits(const float *from, int64_t n)
{
    for (int64_t i = 0; i < n; i += 32) {
        float most = 0;
        for (int k = 0; k < 32; k++)
            most = fmaxf(most, fabsf(from[i + k]));
        for (int k = 0; k < 32; k++)
            x8[i + k] = most > 0 ? most / 127 * rintf(from[i + k] * (127 / most)) : 0;
    }
}

static void draw_x(int64_t in)
{
    for (int64_t i = 0; i < MOST_ROWS * in; i++)
        x[i] = (float)(uniform() * exp(3 * uniform()));
    memset(x + in, 0, 32 * sizeof(*x)); /* a part of zeros, if there is a second row */
    to_8_bits(x, MOST_ROWS * in);
}

static void packed(const struct pl_cuda_product *p, int n, const float *input, int rows,
                   const struct pl_cuda_rms *norm)
{
    const struct pl_cuda_packed_rows in = {
        .x = input, .type = PL_DT_F32, .rows = rows, .norm = norm, .room = room, .sms = SMS};

    assert_true(pl_k_packed_room(p[0].w->in) <= sizeof(room));
    memset(room, 0xa5, sizeof(room));
    pl_k_gemv_packed(p, n, &in, NULL);
    cudaDeviceSynchronize();
}

static void check(const struct pl_cuda_product *p, int i, int rows, const float *input,
                  double start)
{
    const struct pl_cuda_matrix *w = p->w;

    for (int r = 0; r < rows; r++)
        for (int64_t o = 0; o < w->out; o++) {
            double want = start + (w->bias ? (double)w->bias[o] : 0), size = 0, most = 0, sum = 0;
            const double got = (double)p->y[r * w->out + o];
            for (int64_t k = 0; k < w->in; k++) {
                const double a = (double)plain[i][o * w->in + k], b = (double)input[r * w->in + k];
                want += a * b;
                size += fabs(a * b);
                most = fmax(most, fabs(a));
                sum += fabs(b);
            }
            if (!(fabs(got - want) <= 1e-6 * (size + 2 * most * sum + 1)))
                fail_msg("%s, %d rows, [%lld, %lld]: row %d, output %lld is %.9g, expected %.9g",
                         pl_dtype_traits(w->dtype)->name, rows, (long long)w->out, (long long)w->in,
                         r, (long long)o, got, want);
        }
}

static void products(const struct pl_cuda_product *p, int n, int rows)
{
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k < MOST_ROWS * p[i].w->out; k++)
            p[i].y[k] = 0.5F;
    packed(p, n, x, rows, NULL);
    cudaDeviceSynchronize();
    for (int i = 0; i < n; i++)
        check(&p[i], i, rows, x8, p[i].add ? 0.5 : 0);
}

/* Two of one format, the first added, the second with a bias. */
static void check_format(const struct format *f)
{
    static const int64_t ins[] = {32, 64, 96, 288, 608}, wide_ins[] = {256, 768, MOST_IN, 512, 256};
    static const int64_t outs[] = {1, 3, 17, 16, 40};
    const bool k = pl_dtype_traits(f->dt)->block == 256;

    for (int rows = 1; rows <= MOST_ROWS; rows += rows >= PL_CUDA_GEMV_ROWS ? 7 : 1) {
        const int64_t in = (k ? wide_ins : ins)[rows % 5];
        const struct pl_cuda_matrix w[2] = {matrix(0, f, outs[rows % 5], in, false),
                                            matrix(1, f, outs[(rows + 2) % 5], in, true)};
        const struct pl_cuda_product p[2] = {{.w = &w[0], .y = y[0], .add = true},
                                             {.w = &w[1], .y = y[1]}};
        draw_x(in);
        products(p, 2, rows);
    }
}

static void test_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < FORMATS; i++)
        check_format(&formats[i]);
    assert_int_equal(pl_k_packed_row_bytes(PL_DT_BF16, 256), 0);
    assert_int_equal(pl_k_packed_row_bytes(PL_DT_Q4_K, 128), 0);
}

/* Formats that packed products of one input may mix, alone and with fewer rows: the same bits. */
static void test_bits(void **state)
{
    static const int together[][N] = {{7, 9, 7}, {4, 0, 4}, {8, 8, 9}, {1, 2, 3}, {5, 6, 5}};
    const int64_t in = MOST_IN;

    (void)state;
    for (size_t t = 0; t < sizeof(together) / sizeof(*together); t++) {
        struct pl_cuda_matrix w[N];
        struct pl_cuda_product p[N];
        for (int i = 0; i < N; i++) {
            w[i] = matrix(i, &formats[together[t][i]], 17 + 11 * i, in, i == 1);
            p[i] = (struct pl_cuda_product){.w = &w[i], .y = y[i]};
        }
        draw_x(in);
        products(p, N, MOST_ROWS);
        for (int rows = 1; rows < MOST_ROWS; rows += rows < 7 ? 2 : 11)
            for (int i = 0; i < N; i++) {
                const struct pl_cuda_product one = {.w = &w[i], .y = again};
                const int first = MOST_ROWS - rows;
                packed(&one, 1, x + first * in, rows, NULL);
                assert_memory_equal(again, y[i] + first * w[i].out,
                                    (size_t)(rows * w[i].out) * sizeof(float));
            }
    }
}

/* But for the sign of a zero. */
static void same(const float *got, const float *want, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        assert_true(got[i] == want[i]);
}

/* Decoded and looked up, weights are the file's. */
static void test_decoded(void **state)
{
    static float out[MOST_OUT * MOST_IN], rows[4 * MOST_IN];
    static const int32_t ids[] = {36, 0, 15, 24};

    (void)state;
    for (size_t i = 0; i < FORMATS; i++) {
        const int64_t in = pl_dtype_traits(formats[i].dt)->block == 256 ? 512 : 160;
        const struct pl_cuda_matrix w = matrix(0, &formats[i], 37, in, false);
        memset(out, 0xa5, sizeof(out));
        pl_k_decode(&w, PL_DT_F32, out, NULL);
        cudaDeviceSynchronize();
        same(out, plain[0], 37 * in);
        pl_k_embed(&w, ids, 4, rows, NULL);
        cudaDeviceSynchronize();
        for (int r = 0; r < 4; r++)
            same(rows + r * in, plain[0] + ids[r] * in, in);
    }
}

/* What is no number stays none, and in its row. */
static void test_nan(void **state)
{
    const float bad[] = {NAN, INFINITY, -INFINITY};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const struct pl_cuda_matrix w = matrix(0, &formats[7], 20, 512, false);
        const struct pl_cuda_product p = {.w = &w, .y = y[0]};
        draw_x(512);
        x[512 + 300] = bad[i];
        packed(&p, 1, x, 3, NULL);
        for (int o = 0; o < 20; o++)
            assert_true(isfinite(y[0][o]) && isnan(y[0][20 + o]) && isfinite(y[0][40 + o]));
        packed(&p, 1, x + 512, 1, NULL);
        for (int o = 0; o < 20; o++)
            assert_true(isnan(y[0][o]));
    }
}

/* Normed on the way: the bits of rows normed before, and one row has those of many. */
static void test_normed(void **state)
{
    static float normed[MOST_ROWS * MOST_IN] __attribute__((aligned(16)));
    static float plain_y[MOST_ROWS * MOST_OUT], one_y[MOST_OUT];
    const struct pl_cuda_rms norm = {.gain = gain, .eps = 1e-5F};
    const int64_t in = 768, out = 40;

    (void)state;
    for (size_t f = 0; f < FORMATS; f++) {
        const struct pl_cuda_matrix w = matrix(0, &formats[f], out, in, true);
        struct pl_cuda_product p = {.w = &w, .y = plain_y};
        draw_x(in);
        for (int rows = 1; rows <= MOST_ROWS; rows += 10) {
            for (int r = 0; r < rows; r++) {
                double squares = 0;
                for (int64_t k = 0; k < in; k++)
                    squares += (double)x[r * in + k] * (double)x[r * in + k];
                const double by = 1 / sqrt(squares / (double)in + 1e-5);
                for (int64_t k = 0; k < in; k++)
                    normed[r * in + k] = (float)((double)x[r * in + k] * by * (double)gain[k]);
            }
            p.y = plain_y;
            packed(&p, 1, normed, rows, NULL);
            p.y = y[0];
            packed(&p, 1, x, rows, &norm);
            for (int64_t i = 0; i < rows * out; i++) /* a number may round to the next byte */
                assert_true(fabs((double)y[0][i] - (double)plain_y[i]) <
                            2e-3 * (1 + fabs((double)plain_y[i])));
            for (int r = 0; r < rows; r++) {
                p.y = one_y;
                packed(&p, 1, x + r * in, 1, &norm);
                assert_memory_equal(one_y, y[0] + r * out, (size_t)out * sizeof(float));
            }
        }
    }
}

/* Gate, up and activation in one launch: what two products and it make, to the bit. */
static void test_gated(void **state)
{
    const struct pl_cuda_rms norm = {.gain = gain, .eps = 1e-5F};
    static float act[MOST_ROWS * MOST_OUT];
    const int64_t in = 512, out = 39;

    (void)state;
    for (size_t f = 0; f < FORMATS; f++) {
        const struct pl_cuda_matrix w[2] = {matrix(0, &formats[f], out, in, f % 2),
                                            matrix(1, &formats[f], out, in, f % 2)};
        draw_x(in);
        for (int rows = 1; rows <= MOST_ROWS; rows += rows == 1 ? 5 : 16) {
            const struct pl_cuda_packed_rows input = {
                .x = x, .type = PL_DT_F32, .rows = rows, .norm = &norm, .room = room, .sms = SMS};
            for (int i = 0; i < 2; i++)
                packed(&(struct pl_cuda_product){.w = &w[i], .y = y[i]}, 1, x, rows, &norm);
            const long launches = pl_emu_asked.launches;
            pl_k_gemv_packed_gated(&w[0], &w[1], PL_ACT_SILU, &input, act, PL_DT_F32, NULL);
            cudaDeviceSynchronize();
            assert_int_equal(pl_emu_asked.launches - launches, rows == 1 ? 1 : 2);
            pl_k_act(PL_ACT_SILU, y[2], PL_DT_F32, y[0], y[1], PL_DT_F32, rows * out, NULL);
            cudaDeviceSynchronize();
            assert_memory_equal(act, y[2], (size_t)(rows * out) * sizeof(float));
        }
    }
}

/* Q, K and V with RoPE into the cache, their types the same or not: what products and
 * pl_k_rope_store make, in a launch for each type. */
#define DIM 32
#define CAP 26
#define HEAD_ROWS 22
static void check_heads(const int *types, int launches, int rows)
{
    static float cache[2][2][2 * CAP * DIM], inv_freq[DIM / 2]; /* [way][K, V] */
    static const int32_t span[HEAD_ROWS];
    int32_t in_span[HEAD_ROWS];
    const int64_t in = 512, outs[N] = {4 * DIM, 2 * DIM, 2 * DIM};
    const struct pl_cuda_rms norm = {.gain = gain, .eps = 1e-5F};
    const struct pl_cuda_heads h = {.heads = 4,
                                    .kv_heads = 2,
                                    .dim = DIM,
                                    .kv_dtype = PL_DT_F32,
                                    .inv_freq = inv_freq,
                                    .rope_factor = 1,
                                    .append = true};
    const struct pl_cuda_packed_rows input = {
        .x = x, .type = PL_DT_F32, .rows = rows, .norm = &norm, .room = room, .sms = SMS};
    static float q[2][HEAD_ROWS * 4 * DIM], k[HEAD_ROWS * 2 * DIM], v[HEAD_ROWS * 2 * DIM];
    struct pl_cuda_matrix w[N];
    struct pl_cuda_product p[N];

    draw_x(in);
    for (int i = 0; i < HEAD_ROWS; i++)
        in_span[i] = i;
    for (int i = 0; i < DIM / 2; i++)
        inv_freq[i] = (float)pow(10000, -2.0 * i / DIM);
    for (int i = 0; i < N; i++) {
        w[i] = matrix(i, &formats[types[i]], outs[i], in, i != 1);
        p[i] = (struct pl_cuda_product){.w = &w[i], .y = i == 0 ? q[0] : i == 1 ? k : v};
    }
    for (int way = 0; way < 2; way++) {
        const struct pl_cuda_kv kv = {cache[way][0], cache[way][1], CAP, 0, 0, 4, 11};
        const struct pl_cuda_step step = {
            .span = span, .in_span = in_span, .kv = &kv, .rows = rows, .n_spans = 1};
        memset(cache[way], 0, sizeof(cache[way]));
        if (way == 0) {
            pl_k_gemv_packed(p, N, &input, NULL);
            pl_k_rope_store(&step, &h, q[0], k, v, NULL);
            cudaDeviceSynchronize();
            p[0].y = q[1];
            p[1].y = p[2].y = NULL;
            continue;
        }
        const long before = pl_emu_asked.launches;
        pl_k_gemv_packed_qkv(p, &input, &step, &h, NULL);
        cudaDeviceSynchronize();
        assert_int_equal(pl_emu_asked.launches - before, launches + (rows > 1));
    }
    for (int i = 0; i < rows * 4 * DIM; i++)
        assert_true(fabs((double)q[1][i] - (double)q[0][i]) <= 1e-5 * (1 + fabs((double)q[0][i])));
    for (int i = 0; i < 2 * 2 * CAP * DIM; i++)
        assert_true(fabs((double)cache[1][i / (2 * CAP * DIM)][i % (2 * CAP * DIM)] -
                         (double)cache[0][i / (2 * CAP * DIM)][i % (2 * CAP * DIM)]) <= 1e-4);
}

static void test_heads(void **state)
{
    static const int types[][N] = {{7, 7, 7}, {7, 7, 9}, {0, 4, 8}};

    (void)state;
    for (int i = 0; i < 3; i++)
        for (int rows = 1; rows <= HEAD_ROWS; rows += 7)
            check_heads(types[i], i + 1, rows);
}

/* 9 rows and more are bf16 or f16, as what came before left them. */
static void test_narrow_rows(void **state)
{
    static uint16_t narrow[MOST_ROWS * MOST_IN] __attribute__((aligned(16)));
    static const enum pl_dtype types[] = {PL_DT_BF16, PL_DT_F16};
    const int64_t in = 512, out = 33;
    const int rows = 22;

    (void)state;
    for (size_t f = 0; f < 2 * FORMATS; f++) {
        const struct pl_cuda_matrix w = matrix(0, &formats[f / 2], out, in, true);
        struct pl_cuda_product p = {.w = &w, .y = y[0]};
        draw_x(in);
        pl_dtype_from_f32(types[f % 2], x, narrow, (size_t)(rows * in));
        pl_dtype_to_f32(types[f % 2], narrow, x, (size_t)(rows * in));
        packed(&p, 1, x, rows, NULL);
        memcpy(again, y[0], sizeof(again));
        pl_k_gemv_packed(
            &p, 1,
            &(struct pl_cuda_packed_rows){
                .x = narrow, .type = types[f % 2], .rows = rows, .room = room, .sms = SMS},
            NULL);
        assert_memory_equal(again, y[0], (size_t)(rows * out) * sizeof(float));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),      cmocka_unit_test(test_bits),
        cmocka_unit_test(test_normed),      cmocka_unit_test(test_gated),
        cmocka_unit_test(test_narrow_rows), cmocka_unit_test(test_heads),
        cmocka_unit_test(test_decoded),     cmocka_unit_test(test_nan)};

    pl_rng_init(&rng, 12);
    for (int i = 0; i < MOST_IN; i++)
        gain[i] = (float)(1 + 0.5 * uniform());
    for (int i = 0; i < N; i++)
        for (int o = 0; o < MOST_OUT; o++)
            bias[i][o] = (float)uniform();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
