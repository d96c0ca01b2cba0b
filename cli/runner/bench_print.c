#include "cli/runner/bench_print.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>

/* What products multiply. */
static const char *activations(const struct pl_bench_head *h)
{
    static const char *const names[] = {"f32", "int8", "bf16"};

    return names[h->info->activations];
}

static bool on_device(const struct pl_bench_head *h)
{
    return h->device.read_bytes_per_s > 0;
}

static double arithmetic_limit(const struct pl_bench_head *h)
{
    if (on_device(h))
        return h->device.flop_per_s;
    const double limits[] = {h->limits.f32_flop_per_s, h->limits.int8_op_per_s,
                             h->limits.bf16_flop_per_s};
    return limits[h->info->activations];
}

static double read_pct(const struct pl_bench_head *h, const struct pl_bench_row *r)
{
    return 100 * r->gb_per_s * 1e9 /
           (on_device(h) ? h->device.read_bytes_per_s : h->limits.read_bytes_per_s);
}

static double arithmetic_pct(const struct pl_bench_head *h, const struct pl_bench_row *r)
{
    return 100 * r->gflop_per_s * 1e9 / arithmetic_limit(h);
}

/* Share of the limit that the row's work runs into: reading for generation, arithmetic for prompts.
 */
static double limit_pct(const struct pl_bench_head *h, const struct pl_bench_row *r)
{
    return r->kind == PL_BENCH_PROMPT ? arithmetic_pct(h, r) : read_pct(h, r);
}

/* "pp512", "tg128@d512", "tg128x8", "vr22@d512" */
static void test_name(const struct pl_bench_row *r, char *out, size_t size)
{
    static const char *const kinds[] = {"pp", "tg", "vr"};
    int n = snprintf(out, size, "%s%lld", kinds[r->kind], (long long)r->tokens);

    if (r->sequences > 1)
        n += snprintf(out + n, size - (size_t)n, "x%lld", (long long)r->sequences);
    if (r->depth)
        snprintf(out + n, size - (size_t)n, "@d%lld", (long long)r->depth);
}

static const char *kind_name(const struct pl_bench_row *r)
{
    static const char *const names[] = {"prompt", "generation", "verify"};

    return names[r->kind];
}

static const char *cell(double v, char *out, size_t size)
{
    if (isnan(v))
        snprintf(out, size, " ");
    else
        snprintf(out, size, "%.2f", v);
    return out;
}

static double total_ns(const struct pl_bench_profile *p)
{
    double sum = 0;

    for (size_t i = 0; i < p->n; i++)
        sum += (double)p->ops[i].ns;
    return sum;
}

/* Of a kernel: the limit that its bytes or its operations come closer to; NaN: not counted. */
static double op_limit_pct(const struct pl_bench_head *h, const struct pl_op_time *o)
{
    const double s = (double)o->ns / 1e9;
    const double read = (double)o->bytes / h->device.read_bytes_per_s / s;
    const double flop = (double)o->flops / h->device.flop_per_s / s;

    return o->bytes || o->flops ? 100 * (read > flop ? read : flop) : NAN;
}

static void print_md(const struct pl_bench_head *h, const struct pl_bench_row *rows, size_t n)
{
    char name[64], a[32], b[32], c[32], d[32], e[32], f[32], g[32], bf16[48] = "";

    if (h->limits.bf16_flop_per_s > 0)
        snprintf(bf16, sizeof(bf16), ", bf16 %.1f GFLOP/s", h->limits.bf16_flop_per_s / 1e9);
    printf("%s: %s, %.2f M parameters, %s, KV %s, %s%s\n", h->path, h->info->arch.name,
           (double)h->info->params / 1e6, pl_dtype_traits(h->info->dtype)->name, h->kv,
           h->info->device, h->info->random ? ", random weights" : "");
    if (on_device(h))
        printf("limits measured here on the device: read %.2f GB/s, %s %.1f GFLOP/s\n",
               h->device.read_bytes_per_s / 1e9, h->device.kind, h->device.flop_per_s / 1e9);
    else
        printf("limits measured here with %d threads: read %.2f GB/s, f32 %.1f GFLOP/s, "
               "int8 %.1f GOP/s%s (%s)\n",
               h->threads, h->limits.read_bytes_per_s / 1e9, h->limits.f32_flop_per_s / 1e9,
               h->limits.int8_op_per_s / 1e9, bf16, h->limits.vectors);
    printf("loaded in %.2f s, resident then %.0f MB, at most %.0f MB\n\n", h->load_s,
           h->loaded_bytes / 1e6, h->peak_bytes / 1e6);
    printf("| test | tokens/s | sd | ms | GB/s | %% of read | GOP/s | %% of %s | "
           "steps | sd |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
           on_device(h) ? h->device.kind : activations(h));
    for (size_t i = 0; i < n; i++) {
        test_name(&rows[i], name, sizeof(name));
        printf("| %s | %.2f | %s | %.3f | %s | %s | %s | %s | %s | %s |\n", name, rows[i].mean,
               cell(rows[i].sd, a, sizeof(a)), rows[i].ms, cell(rows[i].gb_per_s, b, sizeof(b)),
               cell(read_pct(h, &rows[i]), c, sizeof(c)), cell(rows[i].gflop_per_s, d, sizeof(d)),
               cell(arithmetic_pct(h, &rows[i]), e, sizeof(e)), cell(rows[i].steps, f, sizeof(f)),
               cell(rows[i].steps_sd, g, sizeof(g)));
    }
    for (size_t i = 0; i < h->n_profiles; i++) {
        const struct pl_bench_profile *p = &h->profiles[i];
        double sum = total_ns(p);
        test_name(&rows[p->row], name, sizeof(name));
        printf("\n| %s, one run by %s | ms | %% |%s\n|---|---:|---:|%s\n", name,
               on_device(h) ? "kernel" : "operation", on_device(h) ? " calls | % of limit |" : "",
               on_device(h) ? "---:|---:|" : "");
        for (size_t o = 0; o < p->n; o++)
            if (p->ops[o].ns) {
                printf("| %s | %.3f | %.1f |", p->ops[o].name, (double)p->ops[o].ns / 1e6,
                       100 * (double)p->ops[o].ns / sum);
                if (on_device(h))
                    printf(" %lld | %s |", (long long)p->ops[o].calls,
                           cell(op_limit_pct(h, &p->ops[o]), a, sizeof(a)));
                putchar('\n');
            }
    }
}

static void number(double v)
{
    if (!isnan(v))
        printf("%.17g", v);
}

static void print_csv(const struct pl_bench_head *h, const struct pl_bench_row *rows, size_t n)
{
    char name[64];

    printf("test,kind,tokens,depth,repeats,tokens_per_s,sd,gb_per_s,gflop_per_s,limit_pct,dtype,kv,"
           "threads,read_limit_gb_per_s,f32_limit_gflop_per_s,synthetic,"
           "int8_limit_gop_per_s,activations,read_pct,arithmetic_pct,load_s,loaded_bytes,peak_"
           "bytes,sequences,ms,steps,steps_sd,best,bf16_limit_gflop_per_s\n");
    for (size_t i = 0; i < n; i++) {
        const struct pl_bench_row *r = &rows[i];
        test_name(r, name, sizeof(name));
        printf("%s,%s,%lld,%lld,%lld,", name, kind_name(r), (long long)r->tokens,
               (long long)r->depth, (long long)r->repeats);
        number(r->mean);
        putchar(',');
        number(r->sd);
        putchar(',');
        number(r->gb_per_s);
        putchar(',');
        number(r->gflop_per_s);
        putchar(',');
        number(limit_pct(h, r));
        printf(",%s,%s,%d,%.17g,%.17g,%d,%.17g,%s,", pl_dtype_traits(h->info->dtype)->name, h->kv,
               h->threads, h->limits.read_bytes_per_s / 1e9, h->limits.f32_flop_per_s / 1e9,
               h->info->random, h->limits.int8_op_per_s / 1e9, activations(h));
        number(read_pct(h, r));
        putchar(',');
        number(arithmetic_pct(h, r));
        printf(",%.17g,%.0f,%.0f,%lld,%.17g,", h->load_s, h->loaded_bytes, h->peak_bytes,
               (long long)r->sequences, r->ms);
        number(r->steps);
        putchar(',');
        number(r->steps_sd);
        putchar(',');
        number(r->best);
        printf(",%.17g\n", h->limits.bf16_flop_per_s / 1e9);
    }
}

static json_t *real(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *op_json(const struct pl_bench_head *h, const struct pl_op_time *o, double sum)
{
    json_t *j = json_pack("{s:s,s:f,s:f}", "name", o->name, "ms", (double)o->ns / 1e6, "pct",
                          100 * (double)o->ns / sum);

    if (on_device(h))
        json_object_update_new(j, json_pack("{s:I,s:I,s:I,s:o}", "calls", (json_int_t)o->calls,
                                            "bytes", (json_int_t)o->bytes, "flops",
                                            (json_int_t)o->flops, "limit_pct",
                                            real(op_limit_pct(h, o))));
    return j;
}

static json_t *profile_json(const struct pl_bench_head *h, const struct pl_bench_row *rows)
{
    json_t *all = json_array();
    char name[64];

    for (size_t i = 0; i < h->n_profiles; i++) {
        const struct pl_bench_profile *p = &h->profiles[i];
        json_t *ops = json_array();
        double sum = total_ns(p);
        for (size_t o = 0; o < p->n; o++)
            if (p->ops[o].ns)
                json_array_append_new(ops, op_json(h, &p->ops[o], sum));
        test_name(&rows[p->row], name, sizeof(name));
        json_array_append_new(all, json_pack("{s:s,s:o}", "test", name, "ops", ops));
    }
    return all;
}

static void print_json(const struct pl_bench_head *h, const struct pl_bench_row *rows, size_t n)
{
    char name[64];
    json_t *list = json_array(), *j;

    for (size_t i = 0; i < n; i++) {
        const struct pl_bench_row *r = &rows[i];
        test_name(r, name, sizeof(name));
        json_array_append_new(
            list,
            json_pack("{s:s,s:s,s:I,s:I,s:I,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:I,s:o,s:o,s:o}",
                      "test", name, "kind", kind_name(r), "tokens", (json_int_t)r->tokens, "depth",
                      (json_int_t)r->depth, "repeats", (json_int_t)r->repeats, "tokens_per_s",
                      real(r->mean), "sd", real(r->sd), "best", real(r->best), "gb_per_s",
                      real(r->gb_per_s), "gflop_per_s", real(r->gflop_per_s), "limit_pct",
                      real(limit_pct(h, r)), "read_pct", real(read_pct(h, r)), "arithmetic_pct",
                      real(arithmetic_pct(h, r)), "sequences", (json_int_t)r->sequences, "ms",
                      real(r->ms), "steps", real(r->steps), "steps_sd", real(r->steps_sd)));
    }
    j = json_pack(
        "{s:s,s:s,s:I,s:s,s:s,s:s,s:i,s:b,s:s,s:{s:f,s:f,s:f,s:f,s:s},s:f,s:f,s:f,s:o}", "model",
        h->path, "arch", h->info->arch.name, "params", (json_int_t)h->info->params, "dtype",
        pl_dtype_traits(h->info->dtype)->name, "kv", h->kv, "device", h->info->device, "threads",
        h->threads, "synthetic", h->info->random, "activations", activations(h), "limits",
        "read_gb_per_s", h->limits.read_bytes_per_s / 1e9, "f32_gflop_per_s",
        h->limits.f32_flop_per_s / 1e9, "int8_gop_per_s", h->limits.int8_op_per_s / 1e9,
        "bf16_gflop_per_s", h->limits.bf16_flop_per_s / 1e9, "vectors", h->limits.vectors, "load_s",
        h->load_s, "loaded_bytes", h->loaded_bytes, "peak_bytes", h->peak_bytes, "rows", list);
    if (on_device(h))
        json_object_set_new(j, "device_limits",
                            json_pack("{s:f,s:f,s:s}", "read_gb_per_s",
                                      h->device.read_bytes_per_s / 1e9, "gflop_per_s",
                                      h->device.flop_per_s / 1e9, "kind", h->device.kind));
    if (h->n_profiles)
        json_object_set_new(j, "profile", profile_json(h, rows));
    json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(17));
    putchar('\n');
    json_decref(j);
}

void pl_bench_print(enum pl_bench_format f, const struct pl_bench_head *h,
                    const struct pl_bench_row *rows, size_t n)
{
    switch (f) {
    case PL_BENCH_MD:
        print_md(h, rows, n);
        break;
    case PL_BENCH_CSV:
        print_csv(h, rows, n);
        break;
    case PL_BENCH_JSON:
        print_json(h, rows, n);
        break;
    }
}
