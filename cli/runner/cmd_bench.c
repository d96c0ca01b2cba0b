#include "base/cgroup.h"
#include "base/clock.h"
#include "base/rng.h"
#include "cli/runner/bench_print.h"
#include "cli/runner/bench_transport.h"
#include "cli/runner/cmds.h"
#include "cli/runner/model_args.h"
#include "model/session.h"
#include "worker/runner/host.h"
#include "worker/runner/work.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench {
    struct pl_model *m;
    const struct pl_model_info *info;
    struct pl_session *s;
    struct pl_session **all; /* [sequences]; the first is s */
    int32_t *ids;            /* random, as many as any test needs */
    float *logits;           /* of all sequences, or of a verification's rows */
    int64_t depth, repeats, sequences;
};

static bool reads_source(const struct bench *b)
{
    return !b->info->arch.causal || b->info->arch.encoder_layers;
}

static enum pl_status fill_depth(struct bench *b, int64_t depth, struct pl_err *err)
{
    struct pl_prompt p = {.ids = b->ids, .n = (size_t)depth};
    struct pl_source source = {.ids = b->ids, .n = (size_t)depth};
    enum pl_status st = PL_OK;

    pl_session_reset(b->s);
    if (reads_source(b)) { /* the depth is the source's; the decoder begins with one token */
        p.n = 1;
        st = pl_session_encode(b->s, &source, NULL, err);
        return st ? st : pl_session_prefill(b->s, &p, b->logits, err);
    }
    return depth ? pl_session_prefill(b->s, &p, b->logits, err) : PL_OK;
}

static enum pl_status run_prompt(struct bench *b, int64_t n, double *seconds, struct pl_err *err)
{
    struct pl_prompt p = {.ids = b->ids + b->depth, .n = (size_t)n};
    struct pl_source source = {.ids = b->ids, .n = (size_t)n};
    enum pl_status st = PL_OK;

    if (reads_source(b))
        pl_session_reset(b->s);
    else
        st = fill_depth(b, b->depth, err);
    int64_t t0 = pl_now_ns();
    if (!st && reads_source(b))
        st = pl_session_encode(b->s, &source, NULL, err);
    else if (!st)
        st = pl_session_prefill(b->s, &p, b->logits, err);
    *seconds = (double)(pl_now_ns() - t0) / 1e9;
    return st;
}

/* The same steps of `width` sequences where the device makes its tokens by itself. */
static enum pl_status run_alone(struct pl_session *const *s, const int32_t *ids, size_t width,
                                int64_t n, double *kv_bytes, struct pl_err *err)
{
    const struct pl_generation g = {.ids = ids, .n_ids = width, .n = (size_t)n};
    struct pl_generated *made = calloc((size_t)n * width, sizeof(*made));
    enum pl_status st = made ? pl_sessions_generate(s, width, &g, made, err)
                             : pl_fail(err, PL_ENOMEM, "no memory for %lld tokens", (long long)n);

    for (size_t i = 0; i < (size_t)n * width && !st; i++)
        if (made[i].token.id < 0)
            st = pl_fail(err, PL_EFORMAT, "the logits of token %zu are NaN", i / width);
    *kv_bytes = 0;
    for (size_t i = 0; i < width; i++)
        *kv_bytes += (double)pl_session_kv_read(s[i]);
    free(made);
    return st;
}

static enum pl_status run_steps(struct bench *b, int64_t n, double *seconds, double *kv_bytes,
                                struct pl_err *err)
{
    enum pl_status st = fill_depth(b, b->depth ? b->depth : 1, err);
    int32_t id = b->ids[b->depth];
    const bool alone = pl_session_generates(b->s);
    int64_t t0 = pl_now_ns();

    *kv_bytes = 0;
    if (!st && alone)
        st = run_alone(&b->s, &id, 1, n, kv_bytes, err);
    for (int64_t i = 0; !st && !alone && i < n; i++) {
        st = pl_session_decode(b->s, id, b->logits, err);
        id = pl_logits_argmax(b->logits, (size_t)b->info->arch.vocab);
        if (!st && id < 0)
            st = pl_fail(err, PL_EFORMAT, "the logits of token %lld are NaN", (long long)i);
        *kv_bytes += (double)pl_session_kv_read(b->s);
    }
    *seconds = (double)(pl_now_ns() - t0) / 1e9;
    return st;
}

/* Every sequence has the prompt of that depth; then each step decodes one token of all. */
static enum pl_status run_batch(struct bench *b, int64_t n, double *seconds, double *kv_bytes,
                                struct pl_err *err)
{
    const struct pl_prompt p = {.ids = b->ids, .n = (size_t)(b->depth ? b->depth : 1)};
    const size_t vocab = (size_t)b->info->arch.vocab, width = (size_t)b->sequences;
    enum pl_status st = PL_OK;
    int32_t *ids = calloc(width, sizeof(*ids));

    if (!ids)
        return pl_fail(err, PL_ENOMEM, "no memory for %zu ids", width);
    for (size_t i = 0; i < width && !st; i++) {
        pl_session_reset(b->all[i]);
        st = pl_session_prefill(b->all[i], &p, b->logits, err);
        ids[i] = b->ids[b->depth];
    }
    const bool alone = pl_session_generates(b->all[0]);
    int64_t t0 = pl_now_ns();
    *kv_bytes = 0;
    if (!st && alone)
        st = run_alone(b->all, ids, width, n, kv_bytes, err);
    for (int64_t step = 0; step < n && !st && !alone; step++) {
        st = pl_sessions_decode(b->all, ids, width, b->logits, err);
        for (size_t i = 0; i < width && !st; i++) {
            ids[i] = pl_logits_argmax(b->logits + i * vocab, vocab);
            if (ids[i] < 0)
                st = pl_fail(err, PL_EFORMAT, "the logits of token %lld are NaN", (long long)step);
            *kv_bytes += (double)pl_session_kv_read(b->all[i]);
        }
    }
    *seconds = (double)(pl_now_ns() - t0) / 1e9;
    free(ids);
    return st;
}

#define VERIFIES 8

/* Verifications of n rows, each forgotten again, and in turn with them as many decode steps, timed
 * apart; the rows' best ids are looked for, too. *ratio: a verification's time over a step's. */
static enum pl_status run_verify(struct bench *b, int64_t n, double *seconds, double *kv_bytes,
                                 double *ratio, struct pl_err *err)
{
    const size_t vocab = (size_t)b->info->arch.vocab;
    enum pl_status st = fill_depth(b, b->depth ? b->depth : 1, err);
    int64_t ns[2] = {0}; /* of steps, of verifications */

    *kv_bytes = 0;
    for (int i = 0; i < 2 * VERIFIES && !st; i++) {
        const size_t rows = i % 2 ? (size_t)n : 1;
        int64_t t0 = pl_now_ns();
        st = i % 2 ? pl_session_verify(b->s, b->ids, rows, b->logits, err)
                   : pl_session_decode(b->s, b->ids[0], b->logits, err);
        for (size_t r = 0; r < rows && !st; r++)
            if (pl_logits_argmax(b->logits + r * vocab, vocab) < 0)
                st = pl_fail(err, PL_EFORMAT, "the logits of row %zu are NaN", r);
        *kv_bytes += i % 2 && !st ? (double)pl_session_kv_read(b->s) : 0;
        if (!st)
            st = pl_session_rollback(b->s, rows, err);
        ns[i % 2] += pl_now_ns() - t0;
    }
    *seconds = (double)ns[1] / 1e9;
    *ratio = (double)ns[1] / (double)ns[0];
    return st;
}

static void mean_sd(const double *v, int64_t n, double *mean, double *sd)
{
    double sum = 0, squares = 0;

    for (int64_t i = 0; i < n; i++)
        sum += v[i];
    *mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++)
        squares += (v[i] - *mean) * (v[i] - *mean);
    *sd = n > 1 ? sqrt(squares / (double)(n - 1)) : NAN;
}

/* Operations of n steps behind `past` tokens; behind an encoder they are not counted. */
static double steps_flop(const struct bench *b, int64_t n, double past)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += pl_work_prompt_flop(&b->info->arch, 1, past + (double)i);
    return b->info->arch.encoder_layers ? NAN : sum;
}

/* Prompts, steps or verifications that one run of a test has. */
static double calls_of(enum pl_bench_kind kind, int64_t n)
{
    return kind == PL_BENCH_PROMPT ? 1 : kind == PL_BENCH_VERIFY ? VERIFIES : (double)n;
}

static enum pl_status run_once(struct bench *b, enum pl_bench_kind kind, int64_t n,
                               int64_t sequences, double *seconds, double *kv, double *ratio,
                               struct pl_err *err)
{
    if (kind == PL_BENCH_PROMPT)
        return run_prompt(b, n, seconds, err);
    if (kind == PL_BENCH_VERIFY)
        return run_verify(b, n, seconds, kv, ratio, err);
    return sequences > 1 ? run_batch(b, n, seconds, kv, err) : run_steps(b, n, seconds, kv, err);
}

/* One test: a warm-up, then the repeats. */
static enum pl_status run_test(struct bench *b, enum pl_bench_kind kind, int64_t n,
                               int64_t sequences, struct pl_bench_row *row, struct pl_err *err)
{
    double *rate = malloc(2 * (size_t)b->repeats * sizeof(*rate)), seconds = 0, kv = 0, ratio = 0;
    double *ratios = rate ? rate + b->repeats : NULL;
    const double past = kind == PL_BENCH_PROMPT || b->depth ? (double)b->depth : 1;
    double calls = calls_of(kind, n);
    double tokens = kind == PL_BENCH_VERIFY ? (double)n * VERIFIES : (double)(n * sequences);
    enum pl_status st = rate ? PL_OK : pl_fail(err, PL_ENOMEM, "no memory");

    for (int64_t r = -1; !st && r < b->repeats; r++) {
        st = run_once(b, kind, n, sequences, &seconds, &kv, &ratio, err);
        if (!st && r >= 0) {
            rate[r] = tokens / seconds;
            ratios[r] = ratio;
        }
    }
    if (!st) {
        *row = (struct pl_bench_row){.kind = kind,
                                     .tokens = n,
                                     .depth = b->depth,
                                     .repeats = b->repeats,
                                     .sequences = sequences,
                                     .gb_per_s = NAN,
                                     .gflop_per_s = NAN,
                                     .steps = NAN,
                                     .steps_sd = NAN};
        mean_sd(rate, b->repeats, &row->mean, &row->sd);
        for (int64_t r = 0; r < b->repeats; r++)
            row->best = rate[r] > row->best ? rate[r] : row->best;
        if (kind == PL_BENCH_VERIFY)
            mean_sd(ratios, b->repeats, &row->steps, &row->steps_sd);
        double per_s = row->mean / (tokens / calls); /* prompts, steps or verifications */
        row->ms = 1e3 / per_s;
        if (kind == PL_BENCH_PROMPT)
            row->gflop_per_s = pl_work_prompt_flop(&b->info->arch, (double)n, past) * per_s / 1e9;
        else
            row->gb_per_s = (pl_work_step_weight_bytes(b->info) + kv / calls) * per_s / 1e9;
        if (kind == PL_BENCH_GENERATION)
            row->gflop_per_s = steps_flop(b, n, past) / (double)n * (double)sequences * per_s / 1e9;
    }
    free(rate);
    return st;
}

/* One more run of a test with the backend's clock for each operation on. */
static enum pl_status run_profile(struct bench *b, const struct pl_bench_row *row, size_t index,
                                  struct pl_bench_profile *out, struct pl_err *err)
{
    const struct pl_backend *k = pl_model_backend(b->m);
    struct pl_device *d = pl_model_device(b->m);
    double seconds, kv, ratio;
    const struct pl_op_time *ops;
    enum pl_status st;

    if (!k->profile)
        return pl_fail(err, PL_EUNSUPPORTED, "--profile: %s keeps no times of operations", k->name);
    st = k->profile(d, true, err);
    if (st)
        return st;
    b->depth = row->depth;
    st = run_once(b, row->kind, row->tokens, row->sequences, &seconds, &kv, &ratio, err);
    ops = k->profile_read(d, &out->n);
    out->n = out->n < PL_BENCH_OPS ? out->n : PL_BENCH_OPS;
    for (size_t i = 0; i < out->n; i++) { /* names go with the profile */
        snprintf(out->names[i], sizeof(out->names[i]), "%s", ops[i].name);
        out->ops[i] = ops[i];
        out->ops[i].name = out->names[i];
    }
    out->row = index;
    (void)!k->profile(d, false, err);
    return st;
}

#define MAX_TESTS 32

/* "512,4096" → numbers ≥ 1 */
static enum pl_status read_list(const char *option, const char *text, int64_t *out, size_t *n,
                                struct pl_err *err)
{
    const char *p = text;

    for (*n = 0; *p;) {
        char *end;
        errno = 0;
        long v = strtol(p, &end, 10);
        if (end == p || errno || v < 1 || v > 1 << 24 || (*end && *end != ',') || *n == MAX_TESTS)
            return pl_fail(err, PL_EUSAGE, "-%s: \"%s\", numbers from 1 on with commas between",
                           option, text);
        out[(*n)++] = v;
        p = *end ? end + 1 : end;
    }
    return PL_OK;
}

struct request {
    struct pl_model_args a;
    const char *prompt_list, *step_list, *verify_list, *depth_list, *format_name; /* as given */
    int64_t prompts[MAX_TESTS], steps[MAX_TESTS], verifies[MAX_TESTS], depths[MAX_TESTS];
    size_t n_prompts, n_steps, n_verifies, n_depths; /* no depth: none stands before */
    int64_t sequences, repeats;
    enum pl_bench_format format;
    bool profile, transport;
    const char *to; /* the transport's other end */
};

static int64_t largest(const int64_t *v, size_t n, int64_t least)
{
    for (size_t i = 0; i < n; i++)
        least = v[i] > least ? v[i] : least;
    return least;
}

static enum pl_status check_request(const struct request *q, const struct pl_arch *a,
                                    struct pl_err *err)
{
    if (a->patch)
        return pl_fail(err, PL_EUNSUPPORTED, "%s reads images: bench runs on ids", a->name);
    if (q->n_depths && !a->causal)
        return pl_fail(err, PL_EUSAGE, "-d: %s is an encoder", a->name);
    if ((q->n_verifies || q->sequences > 1) && (!a->causal || a->encoder_layers))
        return pl_fail(err, PL_EUSAGE, "-k, -b: %s is no decoder", a->name);
    if (q->sequences > PL_STEP_ROWS)
        return pl_fail(err, PL_EUSAGE, "-b: at most %d sequences", PL_STEP_ROWS);
    return PL_OK;
}

static enum pl_status prepare(struct bench *b, const struct request *q, const struct pl_entry *e,
                              struct pl_err *err)
{
    const struct pl_arch *a = &b->info->arch;
    const int64_t wide = largest(q->verifies, q->n_verifies, q->sequences);
    struct pl_session_opts o = {.max_verify = (size_t)wide,
                                .kv_dtype = pl_entry_kv(e, b->info->dtype)};
    int64_t most = largest(q->prompts, q->n_prompts, 1);
    struct pl_rng r;
    enum pl_status st = check_request(q, a, err);

    if (st)
        return st;
    if (q->n_steps && a->causal)
        most = largest(q->steps, q->n_steps, most - 1) + 1;
    most = largest(q->verifies, q->n_verifies, most - 1) + 1;
    o.max_tokens = (size_t)(largest(q->depths, q->n_depths, 0) + most);
    o.max_source = a->encoder_layers ? o.max_tokens : 0;
    b->repeats = q->repeats;
    b->sequences = q->sequences;
    b->ids = malloc((o.max_tokens + 1) * sizeof(*b->ids));
    b->logits = malloc((size_t)wide * (size_t)a->vocab * sizeof(*b->logits));
    b->all = calloc((size_t)q->sequences, sizeof(struct pl_session *));
    if (!b->ids || !b->logits || !b->all)
        return pl_fail(err, PL_ENOMEM, "no memory for %zu ids", o.max_tokens);
    pl_rng_init(&r, 1);
    for (size_t i = 0; i <= o.max_tokens; i++)
        b->ids[i] = (int32_t)pl_rng_below(&r, (uint64_t)a->vocab);
    for (int64_t i = 0; i < q->sequences && !st; i++)
        st = pl_session_create(b->m, &o, &b->all[i], err);
    b->s = b->all[0];
    return st;
}

/* All tests at the depth that b says. */
static enum pl_status run_tests(struct bench *b, const struct request *q, struct pl_bench_row *rows,
                                size_t *n, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    for (size_t i = 0; !st && i < q->n_prompts; i++)
        st = run_test(b, PL_BENCH_PROMPT, q->prompts[i], 1, &rows[(*n)++], err);
    for (size_t i = 0; !st && i < q->n_steps && b->info->arch.causal; i++)
        st = run_test(b, PL_BENCH_GENERATION, q->steps[i], q->sequences, &rows[(*n)++], err);
    for (size_t i = 0; !st && i < q->n_verifies; i++)
        st = run_test(b, PL_BENCH_VERIFY, q->verifies[i], 1, &rows[(*n)++], err);
    return st;
}

/* After the tests, which have warmed the clocks up; the model's threads sleep by now. */
static enum pl_status measure_limits(struct bench *b, struct pl_bench_head *head,
                                     struct pl_err *err)
{
    const struct pl_backend *k = pl_model_backend(b->m);

    if (k->ceilings)
        return k->ceilings(pl_model_device(b->m), &head->device, err);
    return pl_limits_measure(head->threads, &head->limits, err);
}

static enum pl_status measure(const struct request *q, const char *path, struct pl_err *err)
{
    json_t *json = NULL;
    struct pl_entry e;
    struct bench b = {.m = NULL};
    const size_t depths = q->n_depths ? q->n_depths : 1;
    struct pl_bench_row *rows = calloc(3 * MAX_TESTS * depths, sizeof(*rows));
    struct pl_bench_profile *profiles = NULL;
    struct pl_bench_head head = {.path = path};
    struct pl_resident resident;
    size_t n = 0;
    int64_t t0 = pl_now_ns();
    enum pl_status st = rows ? pl_model_args_load(&q->a, path, &json, &e, &b.m, err)
                             : pl_fail(err, PL_ENOMEM, "no memory");

    head.load_s = (double)(pl_now_ns() - t0) / 1e9;
    pl_host_resident(&resident);
    head.loaded_bytes = (double)resident.now;
    if (!st) {
        b.info = pl_model_info(b.m);
        head.info = b.info;
        head.kv = pl_dtype_traits(pl_entry_kv(&e, b.info->dtype))->name;
        head.threads = q->a.threads ? (int)q->a.threads : pl_usable_cpus("");
        st = prepare(&b, q, &e, err);
    }
    for (size_t d = 0; !st && d < depths; d++) {
        b.depth = q->n_depths ? q->depths[d] : 0;
        st = run_tests(&b, q, rows, &n, err);
    }
    if (!st && q->profile) {
        profiles = calloc(n, sizeof(*profiles));
        st = profiles ? PL_OK : pl_fail(err, PL_ENOMEM, "no memory");
        head.profiles = profiles;
    }
    for (; !st && q->profile && head.n_profiles < n; head.n_profiles++)
        st = run_profile(&b, &rows[head.n_profiles], head.n_profiles, &profiles[head.n_profiles],
                         err);
    pl_host_resident(&resident);
    head.peak_bytes = (double)resident.peak;
    if (!st)
        st = measure_limits(&b, &head, err);
    if (!st)
        pl_bench_print(q->format, &head, rows, n);
    for (int64_t i = 0; b.all && i < q->sequences; i++)
        pl_session_free(b.all[i]);
    pl_model_free(b.m);
    free(b.all);
    free(rows);
    free(profiles);
    free(b.ids);
    free(b.logits);
    json_decref(json);
    return st;
}

static enum pl_status read_format(const char *name, enum pl_bench_format *out, struct pl_err *err)
{
    if (strcmp(name, "md") == 0)
        *out = PL_BENCH_MD;
    else if (strcmp(name, "csv") == 0)
        *out = PL_BENCH_CSV;
    else if (strcmp(name, "json") == 0)
        *out = PL_BENCH_JSON;
    else
        return pl_fail(err, PL_EUSAGE, "--format %s, expected md, csv or json", name);
    return PL_OK;
}

static enum pl_status run(void *arg, const char *path, struct pl_err *err)
{
    struct request *q = arg;
    enum pl_status st = read_list("p", q->prompt_list, q->prompts, &q->n_prompts, err);

    if (!st)
        st = read_list("n", q->step_list, q->steps, &q->n_steps, err);
    if (!st)
        st = read_list("k", q->verify_list, q->verifies, &q->n_verifies, err);
    if (!st)
        st = read_list("d", q->depth_list, q->depths, &q->n_depths, err);
    if (!st)
        st = read_format(q->format_name, &q->format, err);
    if (!st && q->profile && q->format == PL_BENCH_CSV)
        st = pl_fail(err, PL_EUSAGE, "--profile: md or json is expected beside it");
    if (!st && q->transport == (path != NULL))
        st = pl_fail(err, PL_EUSAGE,
                     path ? "--transport measures devices: no MODEL is expected"
                          : "a MODEL is expected, or --transport");
    if (!st && q->to && !q->transport)
        st = pl_fail(err, PL_EUSAGE, "--to: only with --transport");
    if (!st && q->transport)
        return pl_bench_transport(q->a.device, q->to, q->format, err);
    return st ? st : measure(q, path, err);
}

int pl_rcmd_bench(int argc, char **argv)
{
    struct request q = {.repeats = 5,
                        .sequences = 1,
                        .prompt_list = "512",
                        .step_list = "128",
                        .verify_list = "",
                        .depth_list = "",
                        .format_name = "md"};
    const struct pl_ropt opts[] = {
        {"prompt-tokens", 'p', PL_ROPT_STR, &q.prompt_list, "N,…",
         "prompt lengths (512; \"\": none)", 0, 0},
        {"tokens", 'n', PL_ROPT_STR, &q.step_list, "N,…", "tokens to generate (128; \"\": none)", 0,
         0},
        {"verify", 'k', PL_ROPT_STR, &q.verify_list, "K,…",
         "rows to verify at once, also in decode steps timed in turn (none)", 0, 0},
        {"depth", 'd', PL_ROPT_STR, &q.depth_list, "D,…",
         "tokens that stand in the cache before (none)", 0, 0},
        {"sequences", 'b', PL_ROPT_INT, &q.sequences, "N", "that generate together (1)", 1, 1024},
        {"repeats", 'r', PL_ROPT_INT, &q.repeats, "R", "timed runs of each test (5)", 1, 100000},
        {"format", 0, PL_ROPT_STR, &q.format_name, "md|csv|json", "(md)", 0, 0},
        {"profile", 0, PL_ROPT_FLAG, &q.profile, NULL,
         "one more run of each test: the time by operation (md, json)", 0, 0},
        {"transport", 0, PL_ROPT_FLAG, &q.transport, NULL,
         "no MODEL: what carrying 8 KiB to 8 MiB between two devices takes", 0, 0},
        {"to", 0, PL_ROPT_STR, &q.to, "cpu|cuda[:N]", "the second device, --device is the first", 0,
         0},
        PL_MODEL_OPTS(&q.a)};
    const struct pl_rcommand c = {
        .usage = "bench MODEL [-p 512,4096] [-n 128] [-k 4,8,22] [-d DEPTH,…] [-b N] [-r 5] "
                 "[--format md|csv|json] [--profile]\n       paceline-runner bench --transport "
                 "[--device D] [--to D]",
        .about = "Prompt and generation speed (mean and standard deviation over the repeats), "
                 "beside what\nthis machine, or the GPU, can read and compute at most, measured in "
                 "the same run.",
        .opts = opts,
        .n_opts = sizeof(opts) / sizeof(opts[0]),
        .min_args = 0,
        .max_args = 1};

    return pl_rcmd_run(&c, argc, argv, run, &q);
}
