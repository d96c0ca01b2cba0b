#include "analysis/pruned.h"
#include "analysis/tables.h"
#include "base/json.h"
#include "results/quality.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define N(cols) (sizeof(cols) / sizeof(cols)[0])
#define GIB 1073741824.0

bool pl_arm_prunes(const struct pl_dataset *d, uint32_t arm)
{
    return json_is_object(json_object_get(pl_reader_arm_json(d->reader, arm), "prune"));
}

double pl_cell_layer_rows(const struct pl_dataset *d, const struct pl_cell *c, uint32_t layer)
{
    (void)d;
    return c->layer_rows && c->layer_n[layer] > 0 ? c->layer_rows[layer] / c->layer_n[layer] : NAN;
}

static double mean_kv(const struct pl_cell *c)
{
    return c->kv[0].layers > 0 ? c->kv[0].lengths / c->kv[0].layers : NAN;
}

static double mean_peak(const struct pl_cell *c)
{
    return c->n && c->device_peak_bytes > 0 ? c->device_peak_bytes / (double)c->n : NAN;
}

static double mean_work(const struct pl_cell *c, double sum)
{
    return c->worked && sum > 0 ? sum / (double)c->worked : NAN;
}

static void fill_ideal(const struct pl_cell *arm, const struct pl_cell *base, struct pl_pruned *p)
{
    const double prefill = p->base_s[0], decode = isnan(p->base_s[1]) ? 0 : p->base_s[1];

    p->base_flops = mean_work(base, base->prefill_flops);
    p->arm_flops = mean_work(arm, arm->prefill_flops);
    p->base_read = mean_work(base, base->decode_bytes);
    p->arm_read = mean_work(arm, arm->decode_bytes);
    p->ideal_prefill = p->base_flops / p->arm_flops;
    p->ideal_decode = p->base_read / p->arm_read;
    p->ideal_e2e = (prefill + decode) /
                   (prefill / p->ideal_prefill + (decode > 0 ? decode / p->ideal_decode : 0));
}

static void fill(const struct pl_dataset *d, const struct pl_speedups *s, struct pl_pruned *p)
{
    static const enum pl_metric metrics[] = {PL_METRIC_PREFILL, PL_METRIC_GENERATION,
                                             PL_METRIC_E2E};
    struct pl_ratio *ratios[] = {&p->prefill, &p->decode, &p->e2e};
    const struct pl_cell *arm = pl_dataset_cell(d, p->arm, p->context);
    const struct pl_cell *base = pl_dataset_cell(d, p->baseline, p->context);

    for (int m = 0; m < 3; m++) {
        const struct pl_speedup *v = pl_speedups_find(s, p->arm, p->context, metrics[m]);
        *ratios[m] = (struct pl_ratio){.speedup = NAN, .ci_low = NAN, .ci_high = NAN};
        p->base_s[m] = p->arm_s[m] = NAN;
        if (!v || !v->n)
            continue;
        *ratios[m] = v->ratio;
        p->base_s[m] = v->baseline_ms / 1000;
        p->arm_s[m] = v->arm_ms / 1000;
        p->n = v->n;
    }
    p->base_bytes = mean_peak(base);
    p->arm_bytes = mean_peak(arm);
    p->base_kv = mean_kv(base);
    p->arm_kv = mean_kv(arm);
    p->reduction = arm->kv[0].full > 0 ? 1 - arm->kv[0].lengths / arm->kv[0].full : NAN;
    fill_ideal(arm, base, p);
}

bool pl_pruned_get(const struct pl_dataset *d, const struct pl_speedups *s, size_t i,
                   struct pl_pruned *out)
{
    for (uint32_t c = 0; c < d->shape.contexts; c++)
        for (uint32_t a = 0; a < d->shape.arms; a++) {
            if (!pl_arm_prunes(d, a) || d->baseline[a] == a || !pl_dataset_cell(d, a, c)->n)
                continue;
            if (i-- > 0)
                continue;
            *out = (struct pl_pruned){.arm = a, .baseline = d->baseline[a], .context = c};
            fill(d, s, out);
            return true;
        }
    return false;
}

void pl_pruned_lines(const struct pl_dataset *d, const struct pl_speedups *s, struct pl_out *o)
{
    struct pl_pruned p;

    for (size_t i = 0; pl_pruned_get(d, s, i, &p); i++) {
        char context[PL_CONTEXT_TEXT];
        if (isnan(p.reduction))
            continue;
        pl_context_text(pl_reader_context(d->reader, p.context), context);
        pl_out_f(o, "KV Cache: baseline=%.0f, sdtp=%.0f, reduction=%.1f%%  (%s, %s)\n", p.base_kv,
                 p.arm_kv, 100 * p.reduction, d->arms[p.arm], context);
    }
}

/* ---- table2 ---- */

static const struct pl_col table2_cols[] = {
    {"Length", PL_COL_INT, NULL, 0},
    {"Method", PL_COL_TEXT, NULL, 0},
    {"Prefill (s)", PL_COL_TIME, NULL, 0},
    {"Decode (s)", PL_COL_TIME, NULL, 0},
    {"Total (s)", PL_COL_TIME, NULL, 0},
    {"Prefill Speedup (×)", PL_COL_RATIO, NULL, 0},
    {"End2End Speedup (×)", PL_COL_RATIO, NULL, 0},
    {"KV Reduction (%)", PL_COL_TIME, NULL, 0},
    {"prefill_ci_low", PL_COL_RATIO, "prefill 95 % from", 0},
    {"prefill_ci_high", PL_COL_RATIO, "to", 0},
    {"e2e_ci_low", PL_COL_RATIO, "end2end 95 % from", 0},
    {"e2e_ci_high", PL_COL_RATIO, "to", 0},
    {"prefill_tflops", PL_COL_TIME, "prefill TFLOPs", PL_COL_WIDE},
    {"prefill_ideal", PL_COL_RATIO, "prefill, ideal", 0},
    {"decode_gb", PL_COL_TIME, "decode GB read", PL_COL_WIDE},
    {"decode_ideal", PL_COL_RATIO, "decode, ideal", PL_COL_WIDE},
    {"e2e_ideal", PL_COL_RATIO, "end2end, ideal", 0},
    {"memory_gb", PL_COL_TIME, "memory GB", 0},
    {"n", PL_COL_INT, "pairs", 0},
    {"quality_metric", PL_COL_TEXT, "quality", 0},
    {"quality", PL_COL_RATIO, "", 0},
    {"quality_baseline", PL_COL_RATIO, "baseline's", 0},
    {"synthetic", PL_COL_BOOL, NULL, 0},
};

/* The first metric that either has. */
static void put_quality(const struct pl_dataset *d, const struct pl_cell *arm,
                        const struct pl_cell *base, struct pl_table *t)
{
    for (uint32_t m = 0; m < d->shape.metrics; m++)
        if (arm->quality[m] || base->quality[m]) {
            pl_table_text(t, pl_reader_metric(d->reader, m));
            pl_table_real(t, pl_cell_quality(d, arm, m, NULL));
            pl_table_real(t, pl_cell_quality(d, base, m, NULL));
            return;
        }
    for (int i = 0; i < 3; i++)
        pl_table_null(t, "not measured");
}

static void table2_row(const struct pl_dataset *d, const struct pl_pruned *p, bool base,
                       struct pl_table *t)
{
    const struct pl_cell *arm = pl_dataset_cell(d, p->arm, p->context);
    const struct pl_cell *own = pl_dataset_cell(d, p->baseline, p->context);
    const double *s = base ? p->base_s : p->arm_s;

    pl_table_row(t);
    pl_table_context(t, pl_reader_context(d->reader, p->context));
    pl_table_text(t, d->arms[base ? p->baseline : p->arm]);
    for (int i = 0; i < 3; i++)
        pl_table_real(t, s[i]);
    pl_table_real(t, base ? 1 : p->prefill.speedup);
    pl_table_real(t, base ? 1 : p->e2e.speedup);
    pl_table_real(t, base ? 0 : 100 * p->reduction);
    pl_table_real(t, base ? NAN : p->prefill.ci_low);
    pl_table_real(t, base ? NAN : p->prefill.ci_high);
    pl_table_real(t, base ? NAN : p->e2e.ci_low);
    pl_table_real(t, base ? NAN : p->e2e.ci_high);
    pl_table_real(t, (base ? p->base_flops : p->arm_flops) / 1e12);
    pl_table_real(t, base ? 1 : p->ideal_prefill);
    pl_table_real(t, (base ? p->base_read : p->arm_read) / GIB);
    pl_table_real(t, base ? 1 : p->ideal_decode);
    pl_table_real(t, base ? 1 : p->ideal_e2e);
    pl_table_real(t, (base ? p->base_bytes : p->arm_bytes) / GIB);
    pl_table_int(t, (int64_t)p->n);
    put_quality(d, base ? own : arm, own, t);
    pl_table_bool(t, (base ? own : arm)->synthetic > 0);
}

void pl_table_table2(const struct pl_dataset *d, const struct pl_speedups *s, struct pl_table *t)
{
    struct pl_pruned p, last = {.context = UINT32_MAX};

    pl_table_init(t, pl_table_id_name(PL_TABLE_TABLE2), "Pruned beside unpruned", table2_cols,
                  N(table2_cols));
    for (size_t i = 0; pl_pruned_get(d, s, i, &p); i++) {
        if (p.context != last.context || p.baseline != last.baseline)
            table2_row(d, &p, true, t);
        table2_row(d, &p, false, t);
        last = p;
    }
    if (t->n_rows)
        pl_table_note(
            t,
            "times: means over the pairs, the baseline's over those of the first arm below it; KV "
            "Reduction = 1 − Σ lengths / (layers · prompt tokens); GB = 1024³ bytes; ideal: what "
            "the operations of the prefill and the bytes of the decode alone would allow, as the "
            "engine counted them");
    pl_tables_label(d, t);
}

/* ---- quality ---- */

static const struct pl_col quality_cols[] = {
    {"arm", PL_COL_TEXT, NULL, 0},
    {"context", PL_COL_INT, NULL, 0},
    {"metric", PL_COL_TEXT, NULL, 0},
    {"better", PL_COL_TEXT, NULL, 0},
    {"n", PL_COL_INT, "trials", 0},
    {"value", PL_COL_RATIO, NULL, 0},
    {"ci_low", PL_COL_RATIO, "95 % from", 0},
    {"ci_high", PL_COL_RATIO, "to", 0},
    {"beside", PL_COL_RATIO, "beside baseline", 0},
    {"beside_low", PL_COL_RATIO, "95 % from", 0},
    {"beside_high", PL_COL_RATIO, "to", 0},
    {"kv_kept", PL_COL_SHARE, "KV kept", 0},
    {"synthetic", PL_COL_BOOL, NULL, 0},
};

/* n units that all say 0, or all 1, have no spread, and still might have said otherwise: the exact
 * binomial interval, which holds for the mean of whatever lies within 0 and 1 as well. */
static void unanimous(double value, size_t n, double *low, double *high)
{
    const double out = 1 - pow(0.025, 1 / (double)n);

    *low = value > 0.5 ? 1 - out : 0;
    *high = value > 0.5 ? 1 : out;
}

void pl_cell_quality_interval(const struct pl_dataset *d, const struct pl_cell *c, uint32_t metric,
                              double *low, double *high)
{
    const bool geometric =
        pl_quality_geometric(pl_quality_parse(pl_reader_metric(d->reader, metric)));
    struct pl_errors e = {0};
    uint64_t n;
    const double value = pl_cell_quality(d, c, metric, &n);
    const double mean = geometric ? log(value) : value;

    *low = *high = NAN;
    if (!n)
        return;
    for (size_t i = 0; i < c->n; i++) {
        const double v = c->quality[metric][i];
        if (!isnan(v))
            pl_errors_add(&e, pl_dataset_unit(d, c->slot[i] / d->shape.repeats, 1),
                          ((geometric ? log(v) : v) - mean) / (double)n);
    }
    const double half = pl_errors_half(&e);
    if (isnan(half))
        return;
    if (!geometric && (value <= 0 || value >= 1)) {
        unanimous(value, e.units, low, high);
        return;
    }
    /* the others lie within 0 and 1: shares, and means of word scores */
    *low = geometric ? exp(mean - half) : fmax(mean - half, 0);
    *high = geometric ? exp(mean + half) : fmin(mean + half, 1);
}

/* Sums the differences of both cells' trials of the same sample and repeat, and, with e, what each
 * adds to the error of their mean; returns how many there are. */
static size_t paired(const struct pl_cell *arm, const struct pl_cell *base, uint32_t metric,
                     bool geometric, double *sum, struct pl_errors *e, double mean,
                     const struct pl_dataset *d)
{
    size_t n = 0;

    for (size_t i = 0, k = 0; i < arm->n; i++) { /* rows stand in the order of their slots */
        while (k < base->n && base->slot[k] < arm->slot[i])
            k++;
        if (k == base->n)
            break;
        const double x = arm->quality[metric][i], y = base->quality[metric][k];
        if (base->slot[k] != arm->slot[i] || isnan(x) || isnan(y))
            continue;
        const double v = geometric ? log(x) - log(y) : x - y;
        *sum += v;
        n++;
        if (e)
            pl_errors_add(e, pl_dataset_unit(d, arm->slot[i] / d->shape.repeats, 1), v - mean);
    }
    return n;
}

bool pl_quality_beside(const struct pl_dataset *d, uint32_t arm, uint32_t context, uint32_t metric,
                       struct pl_beside *out)
{
    const struct pl_cell *c = pl_dataset_cell(d, arm, context);
    const struct pl_cell *base = pl_dataset_cell(d, d->baseline[arm], context);
    const bool geometric =
        pl_quality_geometric(pl_quality_parse(pl_reader_metric(d->reader, metric)));
    struct pl_errors e = {0};
    double sum = 0, rest = 0, low = NAN, high = NAN;

    *out = (struct pl_beside){NAN, NAN, NAN};
    if (d->baseline[arm] == arm || !c->quality[metric] || !base->quality[metric])
        return false;
    const size_t n = paired(c, base, metric, geometric, &sum, NULL, 0, d);
    if (!n)
        return false;
    const double mean = sum / (double)n;
    (void)paired(c, base, metric, geometric, &rest, &e, mean, d);
    const double half = pl_errors_half(&e) / (double)n;
    if (half > 0 || geometric) {
        low = mean - half;
        high = mean + half;
    } else if (half <= 0 && mean == 0) { /* no trial of so many differed: as `unanimous` */
        unanimous(0, e.units, &low, &high);
        low = -high;
    }
    *out = geometric ? (struct pl_beside){exp(mean), exp(low), exp(high)}
                     : (struct pl_beside){mean, low, high};
    return true;
}

void pl_table_quality(const struct pl_dataset *d, struct pl_table *t)
{
    pl_table_init(t, pl_table_id_name(PL_TABLE_QUALITY), "Quality of the answers", quality_cols,
                  N(quality_cols));
    for (uint32_t c = 0; c < d->shape.contexts; c++)
        for (uint32_t a = 0; a < d->shape.arms; a++)
            for (uint32_t m = 0; m < d->shape.metrics; m++) {
                const struct pl_cell *v = pl_dataset_cell(d, a, c);
                const char *name = pl_reader_metric(d->reader, m);
                uint64_t n = 0;
                double low, high;
                const double value = pl_cell_quality(d, v, m, &n);
                if (!n)
                    continue;
                struct pl_beside beside;
                pl_cell_quality_interval(d, v, m, &low, &high);
                (void)pl_quality_beside(d, a, c, m, &beside);
                pl_table_row(t);
                pl_table_text(t, d->arms[a]);
                pl_table_context(t, pl_reader_context(d->reader, c));
                pl_table_text(t, name);
                pl_table_text(t,
                              pl_quality_more_is_better(pl_quality_parse(name)) ? "more" : "less");
                pl_table_int(t, (int64_t)n);
                pl_table_real(t, value);
                pl_table_real(t, low);
                pl_table_real(t, high);
                pl_table_real(t, beside.value);
                pl_table_real(t, beside.low);
                pl_table_real(t, beside.high);
                pl_table_real(t, v->kv[0].full > 0 ? v->kv[0].lengths / v->kv[0].full : NAN);
                pl_table_bool(t, v->synthetic > 0);
            }
    if (t->n_rows)
        pl_table_note(t,
                      "beside baseline: on the same trials, the ratio of perplexities, of others "
                      "the difference");
    else
        pl_table_note(t, "no quality was measured");
    pl_tables_label(d, t);
}
