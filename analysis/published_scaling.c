/* The published context-scaling runs: one CSV over all models, and one JSON a model. */
#include "analysis/published.h"

#include "base/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GIB 1073741824.0 /* their "GB" is torch's bytes / 1024³ */
#define FILE_CAP (UINT64_C(64) << 20)

/* "inference_scaling_20251130_073707": when the file's first trial began, in UTC. */
static void exp_id(const struct pl_dataset *d, char *out, size_t size)
{
    int64_t first = INT64_MAX;
    struct tm tm = {0};
    time_t t;

    for (uint32_t i = 0; i < d->shape.arms * d->shape.contexts; i++)
        for (size_t k = 0; k < d->cells[i].n; k++)
            if (d->cells[i].start_ns[k] < first)
                first = d->cells[i].start_ns[k];
    t = (time_t)(first / 1000000000);
    if (first == INT64_MAX || !gmtime_r(&t, &tm) ||
        strftime(out, size, "inference_scaling_%Y%m%d_%H%M%S", &tm) == 0)
        snprintf(out, size, "inference_scaling");
}

/* ---- inference_results.csv ---- */

enum pl_status pl_published_scaling_csv(const struct pl_report *r, struct pl_published *p,
                                        struct pl_err *err)
{
    const struct pl_dataset *d = r->data;
    struct pl_out o;
    char id[64];
    enum pl_status st;

    if (r->scaling.n == 0)
        return PL_OK;
    pl_out_init(&o, FILE_CAP);
    exp_id(d, id, sizeof id);
    pl_out_text(&o, "exp_id,model,arch,context_length,latency_ms,throughput,max_memory_gb\n");
    for (size_t i = 0; i < r->scaling.n; i++) {
        const struct pl_scaling_point *s = &r->scaling.points[i];
        const char *arch = pl_scaling_arch_name(s->arch);
        char *model = NULL;
        if (asprintf(&model, "%s%s", d->arms[s->arm], s->synthetic ? " (synthetic)" : "") < 0) {
            o.st = PL_ENOMEM;
            break;
        }
        pl_out_f(&o, "%s,", id);
        pl_out_esc(&o, PL_ESC_CSV, model);
        pl_out_f(&o, ",%s,%" PRId64 ",", arch ? arch : "",
                 pl_published_length(d, s->arm, s->context));
        pl_published_csv_float(&o, s->mean);
        pl_out_text(&o, ",");
        pl_published_csv_float(&o, s->throughput);
        pl_out_text(&o, ",");
        pl_published_csv_float(&o, s->memory_max > 0 ? s->memory_max / GIB : NAN);
        pl_out_text(&o, "\n");
        free(model);
    }
    st = pl_published_file(p, "inference_results.csv", &o, err);
    pl_out_release(&o);
    return st;
}

/* ---- e3_MODEL.json: json.dumps(…, indent=2) ---- */

static void key(struct pl_out *o, int indent, const char *name)
{
    pl_out_f(o, "%*s", indent, "");
    pl_out_esc(o, PL_ESC_JSON, name);
    pl_out_text(o, ": ");
}

static void text(struct pl_out *o, int indent, const char *name, const char *value, bool last)
{
    key(o, indent, name);
    if (value)
        pl_out_esc(o, PL_ESC_JSON, value);
    else
        pl_out_text(o, "null");
    pl_out_text(o, last ? "\n" : ",\n");
}

static void real(struct pl_out *o, int indent, const char *name, double value, bool last)
{
    key(o, indent, name);
    pl_published_float(o, value);
    pl_out_text(o, last ? "\n" : ",\n");
}

static void whole(struct pl_out *o, int indent, const char *name, int64_t value, bool last)
{
    key(o, indent, name);
    pl_out_f(o, "%" PRId64 "%s", value, last ? "\n" : ",\n");
}

static const char *precision(const char *dtype)
{
    return !dtype                       ? NULL
           : strcmp(dtype, "f32") == 0  ? "fp32"
           : strcmp(dtype, "f16") == 0  ? "fp16"
           : strcmp(dtype, "bf16") == 0 ? "bf16"
                                        : dtype;
}

/* The points of one arm: points[first … first + n). */
struct arm {
    const struct pl_report *r;
    uint32_t arm;
    size_t first, n;
    enum pl_scaling_arch arch;
    double peak;        /* bytes */
    int64_t begin, end; /* unix ns: the first trial's start, the last one's end */
    bool synthetic;
};

static void put_config(const struct arm *a, struct pl_out *o)
{
    static const char *const kinds[] = {[PL_SCALING_UNKNOWN] = "infer_scaling",
                                        [PL_SCALING_DECODER] = "infer_decoder_scaling",
                                        [PL_SCALING_ENCDEC] = "infer_seq2seq_scaling",
                                        [PL_SCALING_ENCODER] = "infer_encoder_scaling"};
    const struct pl_dataset *d = a->r->data;
    const json_t *sweep = pl_reader_sweep(d->reader), *arm = pl_reader_arm_json(d->reader, a->arm);
    const char *name = pl_json_get_str(arm, "model", "");
    const json_t *model = json_object_get(json_object_get(sweep, "models"), name);
    const json_t *engine = json_object_get(model, "engine");
    const char *arch = pl_scaling_arch_name(a->arch);
    int64_t longest = 0;

    for (size_t i = 0; i < a->n; i++) {
        const int64_t c =
            pl_published_length(d, a->arm, a->r->scaling.points[a->first + i].context);
        longest = c > longest ? c : longest;
    }
    pl_out_text(o, "  \"config\": {\n    \"model\": {\n");
    text(o, 6, "name", d->arms[a->arm], false);
    text(o, 6, "arch", arch, false);
    text(o, 6, "pretrained", pl_json_get_str(model, "path", name), false);
    text(o, 6, "dtype", precision(pl_json_get_str(model, "dtype", NULL)), false);
    text(o, 6, "attn_impl",
         json_is_object(engine)   ? "foreign"
         : json_is_string(engine) ? "simulated"
                                  : "paceline",
         false);
    pl_out_text(o, "      \"use_lora\": false,\n");
    whole(o, 6, "max_length", longest, true);
    pl_out_text(o, "    },\n    \"bench\": {\n");
    text(o, 6, "name", kinds[a->arch], false);
    text(o, 6, "arch", arch, false);
    pl_out_text(o, "      \"context_lengths\": [\n");
    for (size_t i = 0; i < a->n; i++)
        pl_out_f(o, "        %" PRId64 "%s\n",
                 pl_published_length(d, a->arm, a->r->scaling.points[a->first + i].context),
                 i + 1 < a->n ? "," : "");
    pl_out_text(o, "      ],\n");
    if (a->arch != PL_SCALING_ENCODER)
        whole(o, 6, "num_tokens", d->shape.tokens, false);
    whole(o, 6, "batch_size", pl_json_get_i64(arm, "batch", 1), false);
    whole(o, 6, "num_runs", d->shape.repeats, false);
    whole(o, 6, "warmup_runs", pl_json_get_i64(json_object_get(sweep, "measure"), "warmup", 0),
          true);
    pl_out_text(o, "    }\n  },\n");
}

struct spread {
    double mean, sd;
};

static struct spread spread_of(const struct pl_dataset *d, const struct pl_cell *c,
                               enum pl_metric m)
{
    double sum = 0, squares = 0, n = 0;

    for (size_t i = 0; i < c->n; i++) {
        const double v = pl_cell_value(d, c, m, i);
        if (isfinite(v)) {
            sum += v;
            n++;
        }
    }
    for (size_t i = 0; i < c->n; i++) {
        const double v = pl_cell_value(d, c, m, i);
        if (isfinite(v))
            squares += (v - sum / n) * (v - sum / n);
    }
    return (struct spread){n > 0 ? sum / n : NAN, n > 1 ? sqrt(squares / (n - 1)) : NAN};
}

static void put_spread(struct pl_out *o, const char *mean, const char *sd, struct spread v)
{
    real(o, 6, mean, v.mean, false);
    real(o, 6, sd, v.sd, false);
}

/* Deviation of the trials' own tokens/s. */
static double throughput_sd(const struct pl_dataset *d, const struct pl_cell *c)
{
    double sum = 0, squares = 0;

    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < c->n; i++) {
            const double ms = pl_cell_value(d, c, PL_METRIC_E2E, i);
            const double v = 1e3 * c->generated[i] / ms;
            if (pass == 0)
                sum += v;
            else
                squares += (v - sum / (double)c->n) * (v - sum / (double)c->n);
        }
    return c->n > 1 ? sqrt(squares / (double)(c->n - 1)) : NAN;
}

static void put_metrics(const struct arm *a, size_t i, struct pl_out *o)
{
    const struct pl_dataset *d = a->r->data;
    const struct pl_scaling_point *s = &a->r->scaling.points[a->first + i];
    const struct pl_cell *c = pl_dataset_cell(d, a->arm, s->context);
    const struct spread ttft = spread_of(d, c, PL_METRIC_TTFT),
                        tbt = spread_of(d, c, PL_METRIC_TPOT);
    const double own = c->weights_bytes + c->kv_bytes + c->workspace_bytes;
    const bool encoder = a->arch == PL_SCALING_ENCODER;

    pl_out_f(o, "    \"%" PRId64 "\": {\n", pl_published_length(d, a->arm, s->context));
    if (encoder) {
        put_spread(o, "forward_pass_latency_ms", "latency_std_ms",
                   spread_of(d, c, PL_METRIC_ENCODE));
    } else {
        put_spread(o, "ttft_ms", "ttft_std_ms", ttft);
        if (a->arch == PL_SCALING_ENCDEC)
            put_spread(o, "encoder_latency_ms", "encoder_std_ms",
                       spread_of(d, c, PL_METRIC_ENCODE));
        real(o, 6, "throughput_tokens_per_sec", s->throughput, false);
        real(o, 6, "throughput_std", throughput_sd(d, c), false);
        put_spread(o, "e2e_latency_ms", "e2e_std_ms", spread_of(d, c, PL_METRIC_E2E));
    }
    whole(o, 6, "total_runs", (int64_t)c->n, false);
    real(o, 6, "inference_energy_per_sample_joules", NAN, false);
    real(o, 6, "avg_power_watts", NAN, false);
    if (!encoder) {
        put_spread(o, "tbt_ms", "tbt_std_ms", tbt);
        real(o, 6, "first_token_latency_ms", ttft.mean, false);
        real(o, 6, "latency_std_ms", tbt.sd, false); /* theirs is the deviation of tbt */
    }
    real(o, 6, "max_memory_gb", s->memory_max > 0 ? s->memory_max / GIB : NAN, false);
    real(o, 6, "current_memory_gb", own > 0 ? own / (double)c->done / GIB : NAN, true);
    pl_out_f(o, "    }%s\n", i + 1 < a->n ? "," : "");
}

static const char *device_name(const struct pl_dataset *d)
{
    const char *name = d->n_workers ? d->workers[0].device : "";
    return *name && strcmp(name, "cpu") != 0
               ? name
               : pl_json_get_str(pl_reader_provenance(d->reader), "cpu", NULL);
}

static void put_end(const struct arm *a, struct pl_out *o)
{
    const struct pl_dataset *d = a->r->data;
    char device[160];
    const char *name = device_name(d);

    snprintf(device, sizeof device, "%s", name ? name : "");
    pl_text_clean(device);
    pl_out_text(o, "  },\n  \"timing\": {\n");
    real(o, 4, "start_time", (double)a->begin / 1e9, false);
    real(o, 4, "end_time", (double)a->end / 1e9, false);
    real(o, 4, "duration_seconds", (double)(a->end - a->begin) / 1e9, true);
    pl_out_text(o, "  },\n  \"resources\": {\n");
    text(o, 4, "gpu_name", name ? device : NULL, false);
    real(o, 4, "max_memory_gb", a->peak > 0 ? a->peak / GIB : NAN, false);
    text(o, 4, "cuda_version", pl_json_get_str(pl_reader_provenance(d->reader), "cuda", NULL),
         true);
    pl_out_text(o, "  },\n  \"power\": {\n");
    real(o, 4, "avg_watt", NAN, false);
    real(o, 4, "kwh", NAN, false);
    real(o, 4, "duration_seconds", NAN, true);
    pl_out_text(o, "  },\n");
    if (a->synthetic)
        pl_out_text(o, "  \"synthetic\": true,\n");
    real(o, 2, "timestamp", (double)a->end / 1e9, true);
    pl_out_text(o, "}");
}

static void look_over(struct arm *a)
{
    const struct pl_dataset *d = a->r->data;

    a->begin = INT64_MAX;
    a->end = INT64_MIN;
    for (size_t i = 0; i < a->n; i++) {
        const struct pl_scaling_point *s = &a->r->scaling.points[a->first + i];
        const struct pl_cell *c = pl_dataset_cell(d, a->arm, s->context);
        if (a->arch == PL_SCALING_UNKNOWN)
            a->arch = s->arch;
        a->synthetic |= s->synthetic;
        a->peak = fmax(a->peak, s->memory_max);
        for (size_t k = 0; k < c->n; k++) {
            const double ms = pl_cell_value(d, c, PL_METRIC_E2E, k);
            const int64_t end = c->start_ns[k] + (int64_t)((isfinite(ms) ? ms : 0) * 1e6);
            a->begin = c->start_ns[k] < a->begin ? c->start_ns[k] : a->begin;
            a->end = end > a->end ? end : a->end;
        }
    }
}

static char *plain_name(const char *arm)
{
    char *name = NULL;

    if (asprintf(&name, "e3_%s.json", arm) < 0)
        return NULL;
    for (char *c = name; *c; c++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+-", *c))
            *c = '_';
    return name;
}

/* e3_ARM.json, with what a file name should not hold replaced; its number where two become one. */
static char *file_name(const struct pl_dataset *d, uint32_t arm)
{
    char *name = plain_name(d->arms[arm]);
    bool taken = false;

    for (uint32_t i = 0; name && i < arm && !taken; i++) {
        char *other = plain_name(d->arms[i]);
        taken = other && strcmp(other, name) == 0;
        free(other);
    }
    if (!taken)
        return name;
    free(name);
    return asprintf(&name, "e3_arm%" PRIu32 ".json", arm) < 0 ? NULL : name;
}

static enum pl_status write_arm(struct arm *a, const char *id, struct pl_published *p,
                                struct pl_err *err)
{
    const struct pl_dataset *d = a->r->data;
    char *name = file_name(d, a->arm);
    struct pl_out o;
    enum pl_status st;

    if (!name)
        return pl_fail(err, PL_ENOMEM, "%s", p->dir);
    look_over(a);
    pl_out_init(&o, FILE_CAP);
    pl_out_text(&o, "{\n");
    text(&o, 2, "exp_id", id, false);
    text(&o, 2, "commit", pl_json_get_str(pl_reader_provenance(d->reader), "commit", NULL), false);
    put_config(a, &o);
    pl_out_text(&o, "  \"metrics\": {\n");
    for (size_t i = 0; i < a->n; i++)
        put_metrics(a, i, &o);
    put_end(a, &o);
    st = pl_published_file(p, name, &o, err);
    pl_out_release(&o);
    free(name);
    return st;
}

enum pl_status pl_published_e3(const struct pl_report *r, struct pl_published *p,
                               struct pl_err *err)
{
    char id[64];
    enum pl_status st = PL_OK;

    exp_id(r->data, id, sizeof id);
    for (size_t i = 0, n; i < r->scaling.n && st == PL_OK; i += n) {
        struct arm a = {.r = r, .arm = r->scaling.points[i].arm, .first = i};
        for (n = 0; i + n < r->scaling.n && r->scaling.points[i + n].arm == a.arm; n++)
            ;
        a.n = n;
        st = write_arm(&a, id, p, err);
    }
    return st;
}
