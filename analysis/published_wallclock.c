/* The published wall-clock comparison of drafting configurations: e2e_wallclock.{json,md}. */
#include "analysis/published.h"

#include "analysis/drafts.h"
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FILE_CAP (UINT64_C(256) << 20)

/* A done trial of the first context. */
struct trial {
    bool done;
    uint64_t index;
    struct pl_trial t;
};

struct wallclock {
    const struct pl_dataset *d;
    struct trial *trials; /* [arms][samples · repeats] */
    size_t slots;
    uint32_t base;
};

static bool take(void *ctx, const struct pl_row_view *v)
{
    struct wallclock *w = ctx;
    const size_t at =
        (size_t)v->id.arm * w->slots + (size_t)v->id.sample * w->d->shape.repeats + v->id.repeat;
    if (v->commit.state == PL_ROW_DONE && v->id.context == 0)
        w->trials[at] = (struct trial){true, v->index, *v->row.trial};
    return true;
}

/* A sum whose parts may be unknown; NaN while all were. */
static void add_known(double *sum, double v)
{
    if (!isnan(v))
        *sum = (isnan(*sum) ? 0 : *sum) + v;
}

static double zero_if_nan(double v)
{
    return isnan(v) ? 0 : v;
}

/* Not finite: null. */
static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static const struct trial *trial_of(const struct wallclock *w, uint32_t arm, size_t slot)
{
    const struct trial *t = &w->trials[(size_t)arm * w->slots + slot];
    return t->done ? t : NULL;
}

/* Means over the done trials of an arm; with `paired`, those that the baseline has, too. */
struct means {
    double n, prefill, decode, total, d_vision, vision, d_prefill, d_decode, drafted, accepted,
        free;
    double speedup, overlap, overlaps, tokens;
};

static struct means means_of(const struct wallclock *w, uint32_t arm)
{
    struct means m = {.vision = NAN, .d_vision = NAN, .d_prefill = NAN, .d_decode = NAN};
    for (size_t i = 0; i < w->slots; i++) {
        const struct trial *t = trial_of(w, arm, i), *b = trial_of(w, w->base, i);
        double ms = NAN;
        if (!t || !b)
            continue;
        m.n++;
        m.prefill += t->t.ttft_ms;
        m.decode += t->t.total_ms - t->t.ttft_ms;
        m.total += t->t.total_ms;
        add_known(&m.vision, t->t.vision_ms);
        add_known(&m.d_vision, t->t.d_vision_ms);
        add_known(&m.d_prefill, t->t.d_prefill_ms);
        add_known(&m.d_decode, t->t.d_decode_ms);
        m.drafted += t->t.drafted;
        m.accepted += t->t.accepted;
        m.free += t->t.free_tokens;
        m.tokens += t->t.generated;
        m.speedup += b->t.total_ms / t->t.total_ms;
        if (pl_drafts_overlap_ms(w->d, t->index, &ms) == PL_OK && !isnan(ms)) {
            m.overlap += ms;
            m.overlaps++;
        }
    }
    return m;
}

static json_t *config_json(const struct pl_dataset *d)
{
    const json_t *sweep = pl_reader_sweep(d->reader), *data = json_object_get(sweep, "data");
    const json_t *generate = json_object_get(sweep, "generate");
    const char *dir = pl_json_get_str(data, "dir", pl_json_get_str(data, "path", NULL));
    int64_t gamma = 0;
    for (uint32_t a = 0; a < d->shape.arms; a++) {
        const json_t *arm = pl_reader_arm_json(d->reader, a),
                     *draft = json_object_get(arm, "draft");
        const int64_t g = pl_json_get_i64(json_is_object(draft) ? draft : arm, "gamma", 0);
        gamma = g > gamma ? g : gamma;
    }
    return json_pack(
        "{s:s?,s:I,s:I,s:o,s:I,s:o,s:o}", "dataset_dir", dir, "max_samples",
        (json_int_t)d->shape.samples, "max_new_tokens",
        (json_int_t)pl_json_get_i64(generate, "tokens", d->shape.tokens), "gamma",
        gamma ? json_integer(gamma) : json_null(), "warmup",
        (json_int_t)pl_json_get_i64(json_object_get(sweep, "measure"), "warmup", 0), "n_questions",
        json_object_get(data, "n_questions") ? json_incref(json_object_get(data, "n_questions"))
                                             : json_null(),
        "questions", json_array());
}

/* The drafter's own times come from the arms that have one. */
static json_t *stages_json(const struct wallclock *w)
{
    const struct means b = means_of(w, w->base);
    struct means d = {.d_prefill = NAN};
    double drafter = NAN;
    for (uint32_t a = 0; a < w->d->shape.arms && !(d.d_prefill > 0); a++)
        d = means_of(w, a);
    add_known(&drafter, d.d_vision);
    add_known(&drafter, d.d_prefill);
    add_known(&drafter, d.d_decode);
    json_t *drafts = json_pack("{s:o,s:o,s:o,s:o,s:o,s:o}", "vision_ms", number(d.d_vision / d.n),
                               "prefill_ms", number(d.d_prefill / d.n), "decode_ms",
                               number(d.d_decode / d.n), "total_ms", number(drafter / d.n),
                               "per_token_ms", number(d.drafted > 0 ? d.d_decode / d.drafted : NAN),
                               "avg_tokens", number(d.n > 0 ? d.drafted / d.n : NAN));
    json_t *verifier =
        json_pack("{s:o,s:o,s:o,s:o,s:o,s:o}", "vision_ms", number(b.vision / b.n), "prefill_ms",
                  number((b.prefill - zero_if_nan(b.vision)) / b.n), "decode_ms",
                  number(b.decode / b.n), "total_ms", number(b.total / b.n), "per_token_ms",
                  number(b.tokens > b.n ? b.decode / (b.tokens - b.n) : NAN), "avg_tokens",
                  number(b.tokens / b.n));
    return json_pack("{s:o,s:o}", "eventgpt", drafts, "videollava", verifier);
}

static json_t *aggregate_json(const struct wallclock *w)
{
    json_t *all = json_object();
    const struct means b = means_of(w, w->base);
    json_object_set_new(all, "VL baseline",
                        json_pack("{s:f,s:o,s:o,s:i}", "speedup_mean", 1.0, "prefill_ms_mean",
                                  number(b.prefill / b.n), "decode_ms_mean", number(b.decode / b.n),
                                  "accept_rate_mean", 0));
    for (uint32_t a = 0; a < w->d->shape.arms; a++) {
        const struct means m = means_of(w, a);
        if (a == w->base || m.n == 0)
            continue;
        json_object_set_new(
            all, w->d->arms[a],
            json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:I}", "speedup_mean", number(m.speedup / m.n),
                      "prefill_ms_mean", number(m.prefill / m.n), "decode_ms_mean",
                      number(m.decode / m.n), "total_ms_mean", number(m.total / m.n),
                      "accept_rate_mean", number(m.drafted > 0 ? m.accepted / m.drafted : 0),
                      "overlap_ms_mean", number(m.overlaps > 0 ? m.overlap / m.overlaps : NAN),
                      "n_samples", (json_int_t)m.n));
    }
    return all;
}

static json_t *sample_json(const struct wallclock *w, uint32_t arm, size_t slot)
{
    const struct trial *t = trial_of(w, arm, slot), *b = trial_of(w, w->base, slot);
    const uint32_t sample = (uint32_t)(slot / w->d->shape.repeats);
    const char *label = pl_reader_sample(w->d->reader, sample);
    double overlap = NAN;
    if (!t || !b)
        return NULL;
    if (arm == w->base)
        return json_pack("{s:I,s:s,s:o,s:o,s:o,s:I,s:n}", "sample", (json_int_t)sample, "question",
                         label, "prefill_ms", number(t->t.ttft_ms), "decode_ms",
                         number(t->t.total_ms - t->t.ttft_ms), "total_ms", number(t->t.total_ms),
                         "n_tokens", (json_int_t)t->t.generated, "text");
    if (pl_drafts_overlap_ms(w->d, t->index, &overlap) != PL_OK)
        overlap = NAN;
    const double decode = t->t.total_ms - t->t.ttft_ms;
    return json_pack(
        "{s:I,s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:I,s:I,s:I,s:o,s:o,s:n}", "sample",
        (json_int_t)sample, "question", label, "bl_total_ms", number(b->t.total_ms),
        "parallel_prefill_ms", number(t->t.ttft_ms + zero_if_nan(t->t.wait_ms)), "egpt_prefill_ms",
        number(t->t.d_prefill_ms), "vl_prefill_ms", number(t->t.prefill_ms), "egpt_decode_ms",
        number(t->t.d_decode_ms), "overlap_ms", number(overlap), "overlap_ratio",
        number(overlap / t->t.prefill_ms), "sd_decode_ms", number(decode), "sd_total_ms",
        number(t->t.total_ms), "speedup", number(b->t.total_ms / t->t.total_ms), "n_tokens",
        (json_int_t)t->t.generated, "drafted", (json_int_t)t->t.drafted, "accepted",
        (json_int_t)t->t.accepted, "accept_rate",
        number(t->t.drafted ? (double)t->t.accepted / t->t.drafted : 0), "tokens_per_iter",
        number(t->t.rounds ? 1 + (double)t->t.accepted / t->t.rounds : NAN), "text");
}

static json_t *samples_json(const struct wallclock *w, uint32_t arm)
{
    json_t *list = json_array();
    for (size_t i = 0; i < w->slots; i++) {
        json_t *one = sample_json(w, arm, i);
        if (one)
            json_array_append_new(list, one);
    }
    return list;
}

static void stamp(const struct pl_dataset *d, const char *format, char *out, size_t size)
{
    int64_t first = INT64_MAX;
    struct tm tm = {0};
    for (uint32_t i = 0; i < d->shape.arms * d->shape.contexts; i++)
        for (size_t k = 0; k < d->cells[i].n; k++)
            first = d->cells[i].start_ns[k] < first ? d->cells[i].start_ns[k] : first;
    const time_t t = (time_t)(first / 1000000000);
    if (first == INT64_MAX || !gmtime_r(&t, &tm) || strftime(out, size, format, &tm) == 0)
        snprintf(out, size, "unknown");
}

static void write_row(const struct wallclock *w, uint32_t arm, struct pl_out *o)
{
    const struct means m = means_of(w, arm);
    if (m.n == 0)
        return;
    if (arm == w->base)
        pl_out_f(o, "| VL baseline | %.0f | %.0f | %.0f | --- | 1.00x | --- |\n", m.prefill / m.n,
                 m.decode / m.n, m.total / m.n);
    else
        pl_out_f(o, "| %s | %.0f | %.0f | %.0f | %.1f%% | **%.2fx** | %.1f |\n", w->d->arms[arm],
                 m.prefill / m.n, m.decode / m.n, m.total / m.n,
                 m.drafted > 0 ? 100 * m.accepted / m.drafted : 0, m.speedup / m.n, m.free / m.n);
}

static void write_md(const struct wallclock *w, const json_t *config, const json_t *stages,
                     struct pl_out *o)
{
    static const char *const keys[] = {"eventgpt", "videollava"};
    static const char *const names[] = {"EventGPT", "Video-LLaVA"};
    static const char *const cells[] = {"vision_ms", "prefill_ms", "decode_ms", "total_ms",
                                        "per_token_ms"};
    const struct pl_dataset *d = w->d;
    char text[160];
    stamp(d, "%Y-%m-%dT%H:%M:%S", text, sizeof text);
    pl_out_f(o, "# E2E Wall-Clock Benchmark — All Methods\n\nGenerated: %s\n\n", text);
    pl_dataset_synthetic_text(d, text, sizeof text);
    if (*text)
        pl_out_f(o, "**%s**\n\n", text);
    pl_out_f(o,
             "## Configuration\n- Dataset: `%s`\n- Samples: %u (after %lld warmup)\n"
             "- Questions: %lld\n- Max tokens: %lld, gamma: %lld\n\n## Results\n\n",
             pl_json_get_str(config, "dataset_dir", "none"), d->shape.samples,
             (long long)pl_json_get_i64(config, "warmup", 0),
             (long long)pl_json_get_i64(config, "n_questions", 1),
             (long long)pl_json_get_i64(config, "max_new_tokens", 0),
             (long long)pl_json_get_i64(config, "gamma", 1));
    pl_out_text(o,
                "| Config | Prefill (ms) | Decode (ms) | Total (ms) | Accept | Speedup | FreeTok "
                "|\n|--------|-------------|------------|-----------|--------|---------|---------|"
                "\n");
    write_row(w, w->base, o);
    for (uint32_t a = 0; a < d->shape.arms; a++)
        if (a != w->base)
            write_row(w, a, o);
    pl_out_text(o, "\n## 3-Stage Timing (Both Models)\n\n| Model | Vision (ms) | Prefill (ms) | "
                   "Decode (ms) | Total (ms) | ms/token |\n|-------|------------|-------------|"
                   "------------|-----------|----------|\n");
    for (int i = 0; i < 2; i++) {
        const json_t *s = json_object_get(stages, keys[i]);
        if (!json_is_real(json_object_get(s, "total_ms")))
            continue;
        pl_out_f(o, "| %s |", names[i]);
        for (size_t k = 0; k < sizeof cells / sizeof cells[0]; k++) {
            const double v = pl_json_get_f64(s, cells[k], NAN);
            if (isnan(v))
                pl_out_text(o, " --- |");
            else
                pl_out_f(o, " %.1f |", v);
        }
        pl_out_text(o, "\n");
    }
}

static enum pl_status write_files(const struct wallclock *w, struct pl_published *p,
                                  struct pl_err *err)
{
    json_t *config = config_json(w->d), *stages = stages_json(w), *sd = json_object(), *all;
    char when[32], synthetic[160];
    struct pl_out o;
    enum pl_status st = PL_OK;
    stamp(w->d, "%Y%m%d_%H%M%S", when, sizeof when);
    for (uint32_t a = 0; a < w->d->shape.arms; a++)
        if (a != w->base)
            json_object_set_new(sd, w->d->arms[a], samples_json(w, a));
    all = json_pack("{s:s,s:O,s:O,s:o,s:o,s:o}", "timestamp", when, "config", config,
                    "stage_timing", stages, "aggregate", aggregate_json(w), "baseline_per_sample",
                    samples_json(w, w->base), "sd_per_sample", sd);
    pl_dataset_synthetic_text(w->d, synthetic, sizeof synthetic);
    if (*synthetic && all)
        json_object_set_new(all, "synthetic", json_string(synthetic));
    pl_out_init(&o, FILE_CAP);
    pl_published_json(&o, all);
    st = pl_published_file(p, "e2e_wallclock.json", &o, err);
    pl_out_release(&o);
    pl_out_init(&o, FILE_CAP);
    if (st == PL_OK) {
        write_md(w, config, stages, &o);
        st = pl_published_file(p, "e2e_wallclock.md", &o, err);
    }
    pl_out_release(&o);
    json_decref(all);
    json_decref(config);
    json_decref(stages);
    return st;
}

enum pl_status pl_published_wallclock(const struct pl_report *r, struct pl_published *p,
                                      struct pl_err *err)
{
    struct wallclock w = {.d = r->data, .base = UINT32_MAX};
    const struct pl_shape *s = &r->data->shape;
    enum pl_status st;
    if (!r->data->drafts)
        return PL_OK;
    for (uint32_t a = 0; a < s->arms && w.base == UINT32_MAX; a++)
        if (r->data->baseline[a] != a)
            w.base = r->data->baseline[a];
    if (w.base == UINT32_MAX)
        return PL_OK;
    w.slots = (size_t)s->samples * s->repeats;
    w.trials = calloc((size_t)s->arms * w.slots, sizeof *w.trials);
    if (!w.trials)
        return pl_fail(err, PL_ENOMEM, "no memory for e2e_wallclock.json");
    st = pl_reader_each(r->data->reader, take, &w, err);
    if (st == PL_OK)
        st = write_files(&w, p, err);
    free(w.trials);
    return st;
}
