#include "model/positions.h"

#include <math.h>

#define TURN (2 * 3.14159265358979323846)

/* Where a dimension turns `turns` times within the original positions. */
static double yarn_dim(const struct pl_rope *r, int32_t dim, double turns)
{
    return dim * log((double)r->original_max_positions / (turns * TURN)) / (2 * log(r->theta));
}

/* Between f (fast dimensions) and f / factor (slow ones); _compute_yarn_parameters. */
static float yarn(const struct pl_rope *r, int32_t dim, int32_t i, float f)
{
    double low = yarn_dim(r, dim, r->beta_fast), high = yarn_dim(r, dim, r->beta_slow);

    if (r->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = low > 0 ? low : 0;
    high = high < dim - 1 ? high : dim - 1;
    if (low == high)
        high += 0.001;
    float ramp = ((float)i - (float)low) / (float)(high - low);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    return f / (float)r->factor * ramp + f * (1 - ramp);
}

static float llama3(const struct pl_rope *r, float f)
{
    double old = (double)r->original_max_positions, wave = TURN / (double)f;
    double smooth = (old / wave - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);

    if (wave > old / r->low_freq_factor)
        return (float)((double)f / r->factor);
    if (wave >= old / r->high_freq_factor)
        return (float)((1 - smooth) * ((double)f / r->factor) + smooth * (double)f);
    return f;
}

void pl_rope_frequencies(const struct pl_arch *a, const float *by, float *out)
{
    const struct pl_rope *r = &a->rope;

    for (int32_t i = 0; i < a->head_dim / 2; i++) {
        float f = 1.0f / powf((float)r->theta, (float)(2 * i) / (float)a->head_dim);
        if (r->kind == PL_ROPE_LINEAR)
            f /= (float)r->factor;
        else if (r->kind == PL_ROPE_LLAMA3)
            f = llama3(r, f);
        else if (r->kind == PL_ROPE_YARN)
            f = yarn(r, a->head_dim, i, f);
        out[i] = by ? f / by[i] : f;
    }
}

int32_t pl_relative_bucket(const struct pl_arch *a, int64_t distance)
{
    int32_t n = a->causal ? a->buckets : a->buckets / 2, base = 0;
    int64_t d = distance < 0 ? -distance : a->causal ? 0 : distance;

    if (!a->causal && distance > 0)
        base = n;
    if (d < n / 2)
        return base + (int32_t)d;
    float ratio = logf((float)d / (float)(n / 2)) / (float)log((double)a->far_bucket / (n / 2));
    int32_t far = n / 2 + (int32_t)(ratio * (float)(n - n / 2));
    return base + (far < n - 1 ? far : n - 1);
}
