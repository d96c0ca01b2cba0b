#include "model/cpu/tile.h"

#include <math.h>
#include <string.h>

#define DIRECT_ROWS                                                                                \
    12 /* up to here each weight is converted in registers, above once into scratch */

/* The same as `behind` on rows [row, row + rows) of panels [first, end) of y. */
static void finish(const struct pl_gemm *g, size_t row, size_t rows, size_t first, size_t end)
{
    size_t o0 = first * PL_PANEL, o1 = end * PL_PANEL < g->n ? end * PL_PANEL : g->n;

    for (size_t r = row; g->bias && r < row + rows; r++)
        for (size_t o = o0; o < o1; o++)
            g->y[r * g->ldy + o] += g->bias[o];
    for (size_t r = row; g->add_to && r < row + rows; r++)
        for (size_t o = o0; o < o1; o++)
            g->add_to[r * g->ld_add + o] += g->y[r * g->ldy + o];
}

/* Bias and add_to from row `row` of panel p on. */
static struct behind behind(const struct pl_gemm *g, size_t row, size_t p)
{
    struct behind b = {.bias = g->bias ? g->bias + p * PL_PANEL : NULL, .ld_add = g->ld_add};

    b.add = g->add_to ? g->add_to + row * g->ld_add + p * PL_PANEL : NULL;
    return b;
}

/* What the next panel will read: fetched a part with each tile, since hardware does not foresee
 * the step from panel to panel. */
struct ahead {
    const char *at;
    size_t bytes;
};

/* All rows on one panel of `valid` outputs; y points to the panel's first output. */
INLINE void panel_rows(enum pl_dtype dt, const float *x, size_t ldx, size_t rows, size_t k,
                       const void *w, size_t valid, float *y, size_t ldy, bool resume,
                       struct ahead next, struct behind then)
{
    const size_t each = rows ? pl_round_up(next.bytes * MAX_ROWS / rows + 1, 64) : 0;
    float part[MAX_ROWS * PL_PANEL];

    for (size_t r = 0, at = 0; r < rows; r += MAX_ROWS) {
        size_t mr = rows - r < MAX_ROWS ? rows - r : MAX_ROWS;
        for (size_t to = at + each; at < to && at < next.bytes; at += 64)
            __builtin_prefetch(next.at + at);
        for (size_t m = r + mr; resume && m < rows && m < r + 2 * MAX_ROWS; m++)
            __builtin_prefetch(y + m * ldy, 1);
        for (size_t m = mr; then.add && r + m < rows && m < mr + MAX_ROWS; m++)
            __builtin_prefetch(then.add + m * then.ld_add, 1);
        if (valid == PL_PANEL) {
            rows_by_panel(mr, dt, x + r * ldx, ldx, k, w, y + r * ldy, ldy, resume, then);
            if (then.add)
                then.add += mr * then.ld_add;
            continue;
        }
        memset(part, 0, sizeof(part));
        for (size_t m = 0; resume && m < mr; m++)
            memcpy(part + m * PL_PANEL, y + (r + m) * ldy, valid * sizeof(float));
        rows_by_panel(mr, dt, x + r * ldx, ldx, k, w, part, PL_PANEL, resume, (struct behind){0});
        for (size_t m = 0; m < mr; m++)
            memcpy(y + (r + m) * ldy, part + m * PL_PANEL, valid * sizeof(float));
    }
}

static size_t panel_width(const struct pl_gemm *g, size_t p)
{
    return g->n - p * PL_PANEL < PL_PANEL ? g->n - p * PL_PANEL : PL_PANEL;
}

/* Few rows: weights pass once, converted in registers. One row takes four panels at a time to hide
 * the latency of fma. */
INLINE void gemm_direct(const struct pl_gemm *g, enum pl_dtype dt)
{
    size_t p = g->first;

    while (g->rows == 1 && p + 4 <= g->end && (p + 4) * PL_PANEL <= g->n) {
        tile(1, MAX_ROWS > 3 ? 4 : 2, dt, g->x, g->ldx, g->k, element(g->w, p * g->stride, dt),
             g->stride, g->y + p * PL_PANEL, g->ldy, g->resume, (struct behind){0});
        p += MAX_ROWS > 3 ? 4 : 2;
    }
    for (; p < g->end; p++)
        panel_rows(dt, g->x, g->ldx, g->rows, g->k, element(g->w, p * g->stride, dt),
                   panel_width(g, p), g->y + p * PL_PANEL, g->ldy, g->resume, (struct ahead){0},
                   (struct behind){0});
}

/* A block of x side by side in out: where its rows lie an even number of lines apart, a tile's
 * would meet in the same few places of L1. */
static void pack_rows(const float *x, size_t ldx, size_t rows, size_t n, float *out)
{
    for (size_t r = 0; r < rows; r++)
        memcpy(out + r * K_BLOCK, x + r * ldx, n * sizeof(*out));
}

/* Many rows: blocks of k so that a panel's block stays in L1, and of rows so that x's stays in L2;
 * partial chains wait in y, which is exact. */
INLINE void gemm_blocked(const struct pl_gemm *g, enum pl_dtype dt)
{
    const bool pack = g->ldx % (2 * PL_PANEL) == 0 && g->end - g->first >= 4; /* worth its copy */
    const size_t most = PL_GEMM_ROWS;
    const size_t block = K_BLOCK * PL_PANEL * (is_wide(dt) ? 4 : 2);
    const enum pl_dtype in_tile = is_wide(dt) ? dt : PL_DT_F32;

    for (size_t k0 = 0; k0 < g->k || k0 == 0; k0 += K_BLOCK) {
        size_t kn = g->k - k0 < K_BLOCK ? g->k - k0 : K_BLOCK;
        bool resume = g->resume || k0 > 0, last = k0 + kn == g->k;
        for (size_t r = 0; r < g->rows; r += most) {
            size_t rows = g->rows - r < most ? g->rows - r : most;
            const float *x = g->x + r * g->ldx + k0;
            if (pack) {
                pack_rows(x, g->ldx, rows, kn, g->scratch + K_BLOCK * PL_PANEL);
                x = g->scratch + K_BLOCK * PL_PANEL;
            }
            for (size_t p = g->first; p < g->end; p++) {
                const void *w = element(g->w, p * g->stride + k0 * PL_PANEL, dt);
                struct ahead next = {element(w, g->stride, dt), block * kn / K_BLOCK};
                if (p + 1 == g->end && last)
                    next.bytes = 0;
                else if (p + 1 == g->end)
                    next.at = element(g->w, g->first * g->stride + (k0 + kn) * PL_PANEL, dt);
                if (dt != in_tile) {
                    for (size_t i = 0; i < kn * PL_PANEL; i += WIDTH)
                        store(g->scratch + i, load_weight(w, i, dt));
                    w = g->scratch;
                }
                bool whole = panel_width(g, p) == PL_PANEL;
                panel_rows(in_tile, x, pack ? K_BLOCK : g->ldx, rows, kn, w, panel_width(g, p),
                           g->y + r * g->ldy + p * PL_PANEL, g->ldy, resume, next,
                           last && whole ? behind(g, r, p) : (struct behind){0});
                if (last && !whole)
                    finish(g, r, rows, p, p + 1);
            }
        }
    }
}

INLINE void gemm_dense(const struct pl_gemm *g, enum pl_dtype dt)
{
    if (g->rows > DIRECT_ROWS) {
        gemm_blocked(g, dt);
        return;
    }
    gemm_direct(g, dt);
    finish(g, 0, g->rows, g->first, g->end);
}

static void gemm(const struct pl_gemm *g)
{
    if (g->first >= g->end)
        return;
    if (g->q8 || pl_dtype_traits(g->dtype)->block > 1) {
        if (g->q8)
            PL_Q8_GEMM(g);
        else
            PL_QUANT_GEMM(g);
        finish(g, 0, g->rows, g->first, g->end);
    } else if (g->dtype == PL_DT_F32) {
        gemm_dense(g, PL_DT_F32);
    } else if (g->dtype == PL_DT_F16) {
        gemm_dense(g, PL_DT_F16);
    } else if (!g->pairs) {
        gemm_dense(g, PL_DT_BF16);
    } else {
#ifdef PL_ISA_BF16
        gemm_dense(g, BF16_PAIRS);
#endif
    }
}

#ifdef PL_ISA_BF16
/* As pl_f32_to_bf16. What is subnormal stays: the product takes it for 0. */
static void round_row(const float *x, size_t n, float *out)
{
    uint16_t *to = (uint16_t *)(void *)out;
    size_t i = 0;

    for (; i + WIDTH <= n; i += WIDTH) {
        vu u = (vu)load(x + i);
        vf even = (vf)(u + 0x7fff + (u >> 16 & 1)), nan = (vf)(u | 0x400000);
        vu kept = (vu)pick((u & 0x7fffffff) > 0x7f800000, nan, even);
        *(vh *)(to + i) = __builtin_convertvector(kept >> 16, vh);
    }
    for (; i < n; i++)
        to[i] = pl_f32_to_bf16(x[i]);
    if (n % 2)
        to[n] = 0;
}
#endif

/* Σ x, or Σ (x − mean)² */
INLINE float row_sum(const float *x, size_t n, float mean, bool square)
{
    float lane[16] = {0};
    size_t i = 0;

    for (; i + 16 <= n; i += 16) {
        for (size_t j = 0; j < 16; j++) {
            float d = x[i + j] - mean;
            lane[j] += square ? d * d : d;
        }
    }
    for (size_t j = 0; i + j < n; j++) {
        float d = x[i + j] - mean;
        lane[j] += square ? d * d : d;
    }
    return fold(lane);
}

static void norm(enum pl_norm_kind kind, float eps, float *y, const float *x, const float *gain,
                 const float *bias, size_t n)
{
    float mean = 0, scale;

    if (kind == PL_NORM_LAYER)
        mean = row_sum(x, n, 0, false) / (float)n;
    scale = 1.0f / sqrtf(row_sum(x, n, mean, true) / (float)n + eps);
    for (size_t i = 0; i < n; i++) {
        float v = (x[i] - mean) * scale * gain[i];
        y[i] = bias ? v + bias[i] : v;
    }
}

/* erf to about 1 ulp: a polynomial around 0, beyond it 1 − e^(a polynomial). */
INLINE vf verf(vf x)
{
    vf s = x * x, t = pick(x < splat(0), -x, x);
    vf near = splat(-5.96761703e-4f);
    near = fma_(near, s, splat(4.99119423e-3f));
    near = fma_(near, s, splat(-2.67681349e-2f));
    near = fma_(near, s, splat(1.12819925e-1f));
    near = fma_(near, s, splat(-3.76125336e-1f));
    near = fma_(near, s, splat(1.28379166e-1f));
    near = fma_(near, x, x);
    vf c = pick(t > splat(4), splat(4), t); /* 1 from there on */
    vf c2 = c * c;
    vf far = fma_(splat(-1.72853470e-5f), c, splat(3.83197126e-4f));
    far = fma_(far, c2, fma_(splat(-3.88396438e-3f), c, splat(2.42546219e-2f)));
    far = fma_(far, c, splat(-1.06777877e-1f));
    far = fma_(far, c, splat(-6.34846687e-1f));
    far = fma_(far, c, splat(-1.28717512e-1f));
    far = fma_(far, c, -c);
    vf n, e = exp_reduced(far, &n); /* of −16.4 … 0: 2ⁿ is no subnormal */
    far = splat(1) - (vf)((vi)e + ((vi)n << 23));
    far = pick(x < splat(0), -far, far);
    return pick(t > splat(0.927734375f), far, pick(x == x, near, x));
}

INLINE vf act_vector(enum pl_act_kind kind, vf x)
{
    vf u;

    switch (kind) {
    case PL_ACT_SILU:
        return x / (splat(1) + vexp(-x));
    case PL_ACT_QUICK_GELU:
        return x / (splat(1) + vexp(x * splat(-1.702f)));
    case PL_ACT_GELU:
        return splat(0.5f) * x * (splat(1) + verf(x * splat(0.70710678118654752f)));
    case PL_ACT_GELU_TANH: /* (1 + tanh u) / 2 = 1 / (1 + e^−2u) */
        u = splat(0.79788456080286536f) * (x + splat(0.044715f) * x * x * x);
        return x / (splat(1) + vexp(splat(-2) * u));
    case PL_ACT_RELU:
        return pick(x < splat(0), splat(0), x);
    }
    return x;
}

/* The tail goes through the same vector code. */
INLINE void act_loop(enum pl_act_kind kind, float *y, const float *x, const float *up, size_t n)
{
    size_t i = 0;

    for (; i + WIDTH <= n; i += WIDTH) {
        vf v = act_vector(kind, load(x + i));
        if (up)
            v = v * load(up + i);
        store(y + i, v);
    }
    if (i < n) {
        float in[WIDTH] = {0};
        memcpy(in, x + i, (n - i) * sizeof(float));
        store(in, act_vector(kind, load(in)));
        for (size_t j = 0; i + j < n; j++)
            y[i + j] = up ? in[j] * up[i + j] : in[j];
    }
}

static void act(enum pl_act_kind kind, float *y, const float *x, const float *up, size_t n)
{
    switch (kind) {
#define X(sym)                                                                                     \
    case sym:                                                                                      \
        act_loop(sym, y, x, up, n);                                                                \
        break;
        X(PL_ACT_SILU)
        X(PL_ACT_QUICK_GELU)
        X(PL_ACT_GELU)
        X(PL_ACT_GELU_TANH)
        X(PL_ACT_RELU)
#undef X
    }
}

const struct pl_kernels PL_KERNELS = {
    .name = PL_KERNELS_NAME,
    .gemm = gemm,
    .quantize = PL_Q8_QUANTIZE,
#ifdef PL_ISA_BF16
    .round = round_row,
#endif
    .attend = PL_ATTEND,
    .weights = PL_WEIGHTS,
    .norm = norm,
    .act = act,
};
