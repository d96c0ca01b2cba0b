/* The published SDTP benchmark: table2.md over all arms that prune, and one JSON a configuration.
 */
#include "analysis/published.h"

#include "analysis/pruned.h"
#include "base/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GIB 1073741824.0 /* their "GB" is torch's bytes / 1024³ */
#define FILE_CAP (UINT64_C(64) << 20)

static void cell(struct pl_out *o, double v, int digits)
{
    if (isfinite(v))
        pl_out_f(o, " %.*f |", digits, v);
    else
        pl_out_text(o, " n/a |");
}

static void md_row(struct pl_out *o, const struct pl_dataset *d, const struct pl_pruned *p,
                   bool base)
{
    const double *s = base ? p->base_s : p->arm_s;

    pl_out_f(o, "| %" PRId64 " | ", pl_published_length(d, p->baseline, p->context));
    pl_out_esc(o, PL_ESC_MD, d->arms[base ? p->baseline : p->arm]);
    pl_out_text(o, pl_dataset_cell(d, base ? p->baseline : p->arm, p->context)->synthetic
                       ? " (synthetic) |"
                       : " |");
    for (int i = 0; i < 3; i++)
        cell(o, s[i], 4);
    cell(o, base ? 1 : p->prefill.speedup, 2);
    cell(o, base ? 1 : p->e2e.speedup, 2);
    cell(o, base ? 0 : 100 * p->reduction, 1);
    pl_out_text(o, "\n");
}

enum pl_status pl_published_table2(const struct pl_report *r, struct pl_published *p,
                                   struct pl_err *err)
{
    const struct pl_dataset *d = r->data;
    struct pl_pruned v, last = {.context = UINT32_MAX};
    struct pl_out o;
    enum pl_status st = PL_OK;

    pl_out_init(&o, FILE_CAP);
    pl_out_text(&o,
                "| Length | Method | Prefill (s) | Decode (s) | Total (s) | Prefill Speedup (×) | "
                "End2End Speedup (×) | KV Reduction (%) |\n"
                "|---|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; pl_pruned_get(d, &r->speedups, i, &v); i++) {
        if (v.context != last.context || v.baseline != last.baseline)
            md_row(&o, d, &v, true);
        md_row(&o, d, &v, false);
        last = v;
    }
    if (last.context != UINT32_MAX)
        st = pl_published_file(p, "table2.md", &o, err);
    pl_out_release(&o);
    return st;
}

/* ---- sdtp_results.json: json.dump(…, indent=2) ---- */

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *lengths(const struct pl_dataset *d, const struct pl_cell *c, double *last)
{
    json_t *list = json_array();

    for (uint32_t l = 0; l < d->shape.layers; l++) {
        const double v = pl_cell_layer_rows(d, c, l);
        if (isnan(v))
            continue;
        *last = v;
        json_array_append_new(list, json_integer(llround(v)));
    }
    return list;
}

/* The blocks after which tokens went, new: `layers`, or where a method of stages has its own, the
 * blocks behind which the lengths fall (a stage after the last block leaves no mark there). NULL:
 * no stages. */
static json_t *stages_of(const struct pl_dataset *d, uint32_t arm)
{
    const json_t *prune = json_object_get(pl_reader_arm_json(d->reader, arm), "prune");
    const char *method = pl_json_get_str(prune, "method", "");
    json_t *layers = json_object_get(prune, "layers");

    if (json_is_array(layers))
        return json_incref(layers);
    if (strcmp(method, "sdtp") != 0 && strcmp(method, "fastv") != 0)
        return NULL;
    layers = json_array();
    for (uint32_t c = 0; c < d->shape.contexts && !json_array_size(layers); c++)
        for (uint32_t l = 0; l + 1 < d->shape.layers; l++) {
            const struct pl_cell *v = pl_dataset_cell(d, arm, c);
            if (pl_cell_layer_rows(d, v, l + 1) < pl_cell_layer_rows(d, v, l))
                json_array_append_new(layers, json_integer(l));
        }
    return layers;
}

/* keep of each stage as one ratio, and what they leave together. */
static double first_keep(const json_t *prune)
{
    const json_t *keep = json_object_get(prune, "keep");

    keep = json_is_array(keep) ? json_array_get(keep, 0) : keep;
    return json_is_number(keep) ? json_number_value(keep) : NAN;
}

static json_t *metadata(const struct pl_dataset *d, uint32_t arm, json_t *layers)
{
    const json_t *a = pl_reader_arm_json(d->reader, arm), *prune = json_object_get(a, "prune");
    const double keep = first_keep(prune), total = pl_json_get_f64(prune, "total_keep", NAN);
    const size_t stages = json_array_size(layers);
    int64_t first = INT64_MAX;
    char when[32] = "";
    struct tm tm;

    for (uint32_t c = 0; c < d->shape.contexts; c++) {
        const struct pl_cell *v = pl_dataset_cell(d, arm, c);
        for (size_t k = 0; k < v->n; k++)
            first = v->start_ns[k] < first ? v->start_ns[k] : first;
    }
    const time_t t = (time_t)(first / 1000000000);
    if (first != INT64_MAX && gmtime_r(&t, &tm))
        (void)strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    return json_pack("{s:s,s:s,s:{s:n,s:n,s:n,s:n},s:{s:O?,s:o,s:I,s:f,s:o},s:{s:s,s:s,s:s,s:s}}",
                     "config_name", d->arms[arm], "model", pl_json_get_str(a, "model", ""),
                     "hardware", "gpu_count", "gpu_model", "gpu_memory_gb", "cuda_version",
                     "pruning_config", "prune_layers", layers, "keep_ratio", number(keep),
                     "min_head_tokens", (json_int_t)pl_json_get_i64(prune, "head", 4),
                     "min_tail_ratio", pl_json_get_f64(prune, "tail", 0.1), "cumulative_keep_ratio",
                     number(!isnan(total) ? total
                            : stages      ? pow(keep, (double)stages)
                                          : NAN),
                     "run_info", "timestamp", when, "script", "paceline", "mode",
                     d->prefill_mode ? "prefill" : "profile", "benchmark_mode",
                     d->prefill_mode ? "prefill" : "end2end");
}

static json_t *side(const struct pl_dataset *d, const struct pl_pruned *p, bool base, double *last)
{
    const double *s = base ? p->base_s : p->arm_s;
    const struct pl_cell *c = pl_dataset_cell(d, base ? p->baseline : p->arm, p->context);

    return json_pack("{s:o,s:o,s:o,s:o,s:o}", "prefill_latency_seconds", number(s[0]),
                     "decode_latency_seconds", number(s[1]), "total_latency_seconds", number(s[2]),
                     "memory_gb", number((base ? p->base_bytes : p->arm_bytes) / GIB),
                     "kv_lens_after_prefill", lengths(d, c, last));
}

static json_t *one_length(const struct pl_dataset *d, const struct pl_pruned *p, size_t stages)
{
    const int64_t n = pl_published_length(d, p->baseline, p->context);
    double full = NAN, left = NAN;
    json_t *base = side(d, p, true, &full), *arm = side(d, p, false, &left);

    if (isfinite(left)) {
        json_object_set_new(arm, "tokens_kept", json_integer(llround(left)));
        json_object_set_new(arm, "tokens_pruned", json_integer(n - llround(left)));
        json_object_set_new(arm, "pruning_ratio", json_real(1 - left / (double)n));
    }
    json_object_set_new(arm, "pruning_steps", json_integer((json_int_t)stages));
    return json_pack("{s:o,s:o,s:{s:o,s:o,s:o},s:o,s:o}", "baseline", base, "sdtp", arm, "speedup",
                     "prefill", number(p->prefill.speedup), "decode", number(p->decode.speedup),
                     "total", number(p->e2e.speedup), "kv_reduction", number(p->reduction),
                     "memory_reduction", number(1 - p->arm_bytes / p->base_bytes));
}

static json_t *configuration(const struct pl_report *r, uint32_t arm)
{
    const struct pl_dataset *d = r->data;
    json_t *results = json_object(), *tested = json_array(), *stages = stages_of(d, arm);
    double speedups = 0, memory = 0;
    size_t n = 0;
    struct pl_pruned p;

    for (size_t i = 0; pl_pruned_get(d, &r->speedups, i, &p); i++) {
        char key[24];
        if (p.arm != arm)
            continue;
        const int64_t length = pl_published_length(d, p.baseline, p.context);
        snprintf(key, sizeof key, "%" PRId64, length);
        json_object_set_new(results, key, one_length(d, &p, json_array_size(stages)));
        json_array_append_new(tested, json_integer(length));
        speedups += p.e2e.speedup;
        memory += 1 - p.arm_bytes / p.base_bytes;
        n++;
    }
    json_t *all = json_pack("{s:o,s:o,s:{s:o,s:o,s:o}}", "metadata", metadata(d, arm, stages),
                            "results", results, "summary", "tested_lengths", tested, "avg_speedup",
                            number(n ? speedups / (double)n : NAN), "avg_memory_reduction",
                            number(n ? memory / (double)n : NAN));
    json_decref(stages);
    return all;
}

/* The first arm that prunes under the published name; where there are more, each under its own,
 * too. */
enum pl_status pl_published_sdtp(const struct pl_report *r, struct pl_published *p,
                                 struct pl_err *err)
{
    const struct pl_dataset *d = r->data;
    enum pl_status st = PL_OK;
    uint32_t arms = 0, seen = 0;

    for (uint32_t a = 0; a < d->shape.arms; a++)
        arms += pl_arm_prunes(d, a) && d->baseline[a] != a;
    for (uint32_t a = 0; a < d->shape.arms && st == PL_OK; a++) {
        json_t *o;
        char *name = NULL;
        struct pl_out out;
        if (!pl_arm_prunes(d, a) || d->baseline[a] == a)
            continue;
        o = configuration(r, a);
        if (o && d->synthetic)
            json_object_set_new(o, "synthetic", json_true());
        pl_out_init(&out, FILE_CAP);
        pl_published_json(&out, o);
        json_decref(o);
        if (asprintf(&name, "sdtp_results_%s.json", d->arms[a]) < 0)
            st = pl_fail(err, PL_ENOMEM, "sdtp_results.json");
        if (st == PL_OK && seen++ == 0)
            st = pl_published_file(p, "sdtp_results.json", &out, err);
        if (st == PL_OK && arms > 1)
            st = pl_published_file(p, name, &out, err);
        pl_out_release(&out);
        free(name);
    }
    return st;
}
