#include "worker/runner/work.h"

double pl_work_prompt_flop(const struct pl_arch *a, double n, double past)
{
    double q = (double)a->heads * a->head_dim, kv = (double)a->kv_heads * a->head_dim;
    double block = a->hidden * (2 * q + 2 * kv) + (a->gated ? 3.0 : 2.0) * a->hidden * a->ffn;
    double pairs = n * past + n * (n + 1) / 2;

    if (a->causal && !a->encoder_layers)
        return a->layers * (2 * block * n + 4 * q * pairs) + 2.0 * a->hidden * a->vocab;
    return (a->encoder_layers ? a->encoder_layers : a->layers) * (2 * block * n + 4 * q * n * n) +
           (a->encoder_layers ? a->layers * 4 * kv * a->hidden * n : 0);
}

double pl_work_step_weight_bytes(const struct pl_model_info *info)
{
    return (double)(info->weights_bytes - info->table_bytes);
}

/* Σ over the steps of the rows that a block reads: context + 1, context + 2, …, at most `window`.
 */
static double rows_read(double context, double steps, double window)
{
    double growing = steps;

    if (window > 0 && context + steps > window)
        growing = window > context ? window - context : 0;
    return growing * context + growing * (growing + 1) / 2 + (steps - growing) * window;
}

double pl_work_decode_bytes(const struct pl_model_info *info, enum pl_dtype kv, int64_t context,
                            int64_t tokens, int64_t sequences)
{
    const struct pl_arch *a = &info->arch;
    const double steps = (double)tokens - 1;
    const double row = (double)pl_arch_kv_bytes_per_token(a, kv) / a->layers;
    const double windowed = a->window ? a->layers - a->window_from : 0;

    if (!a->causal || a->encoder_layers)
        return 0;
    return steps * pl_work_step_weight_bytes(info) +
           (double)sequences * row *
               ((a->layers - windowed) * rows_read((double)context, steps, 0) +
                windowed * rows_read((double)context, steps, (double)a->window));
}
