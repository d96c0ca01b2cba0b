#include "orchestrator/plan.h"

#include "orchestrator/plan_estimate.h"
#include "results/quality.h"
#include "worker/rank/order.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A block is what a worker takes at once: long enough that asking for it costs nothing, short
 * enough that a lost one costs little and that every worker gets several. */
#define BLOCK_SAMPLES_MAX 16
#define BLOCK_S_MIN 0.05
#define BLOCK_S_MAX 30.0
#define BLOCKS_PER_WORKER 8
#define BLOCK_TRIALS_MAX 65535 /* a row's `order` is 16 bits */
/* Loads may take a tenth of the time. */
#define LOAD_SHARE 0.1
#define RUN_SAMPLES_UNKNOWN 8

void pl_plan_free(struct pl_plan *p)
{
    if (!p)
        return;
    free(p->arms);
    free(p->group_of);
    free(p->residence_of);
    free(p->n_residences);
    free(p);
}

static uint64_t blocks_per_context(const struct pl_plan *p)
{
    return ((uint64_t)p->shape.samples + p->block_samples - 1) / p->block_samples;
}

struct pl_block pl_plan_block(const struct pl_plan *p, uint64_t index)
{
    uint64_t chunks = blocks_per_context(p), chunk = index % chunks, rest = index / chunks;
    struct pl_block b = {.index = index,
                         .group = (uint32_t)(rest / p->shape.contexts),
                         .context = (uint32_t)(rest % p->shape.contexts),
                         .first_sample = (uint32_t)(chunk * p->block_samples)};
    uint32_t left = p->shape.samples - b.first_sample;
    b.n_samples = left < p->block_samples ? left : p->block_samples;
    return b;
}

uint64_t pl_plan_block_of(const struct pl_plan *p, const struct pl_row_id *id)
{
    return ((uint64_t)p->group_of[id->arm] * p->shape.contexts + id->context) *
               blocks_per_context(p) +
           id->sample / p->block_samples;
}

uint64_t pl_plan_kv_bytes(const struct pl_sweep *s, uint32_t arm, const struct pl_arm_info *info)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < s->n_contexts; i++) {
        const uint64_t here = pl_plan_kv_bytes_at(s, arm, info, i);
        most = here > most ? here : most;
    }
    return most;
}

uint64_t pl_plan_kv_bytes_at(const struct pl_sweep *s, uint32_t arm, const struct pl_arm_info *info,
                             uint32_t context)
{
    uint64_t rows = (uint64_t)s->contexts[context] + s->tokens_at[context];
    if ((uint64_t)info->prompt + s->tokens > rows)
        rows = (uint64_t)info->prompt + s->tokens;
    return info->kv_bytes_per_token * rows * pl_arm_slots(pl_sweep_arm(s, arm));
}

static void make_shape(const struct pl_sweep *s, const struct pl_arm_info *arms,
                       struct pl_shape *out)
{
    const json_t *measure = json_object_get(s->resolved, "measure");
    bool prefill = strcmp(pl_json_get_str(measure, "mode", ""), "prefill") == 0;
    *out = (struct pl_shape){.arms = s->n_arms,
                             .contexts = s->n_contexts,
                             .samples = s->samples,
                             .repeats = s->repeats,
                             .batch = s->batch,
                             .tokens = prefill ? 1 : s->tokens,
                             .models = 2,
                             .layers = 1,
                             .metrics = PL_QUALITY_COUNT};
    for (uint32_t i = 0; i < s->n_arms; i++) {
        bool drafts = json_is_number(json_object_get(pl_sweep_arm(s, i), "acceptance"));
        uint32_t rounds = arms[i].max_rounds ? arms[i].max_rounds : drafts ? out->tokens : 0;
        if (arms[i].layers > out->layers)
            out->layers = arms[i].layers;
        if (arms[i].layers_draft > out->layers)
            out->layers = arms[i].layers_draft;
        if (!prefill && rounds > out->rounds)
            out->rounds = rounds;
    }
    if (out->rounds > out->tokens)
        out->rounds = out->tokens;
}

static uint32_t root_of(uint32_t *of, uint32_t i)
{
    while (of[i] != i)
        i = of[i] = of[of[i]];
    return i;
}

/* Arms tied by `baseline`, directly or through others, are one comparison. Numbered by their first
 * arm. */
static void make_groups(const struct pl_sweep *s, struct pl_plan *p)
{
    uint32_t n = s->n_arms, *of = p->group_of;
    for (uint32_t i = 0; i < n; i++)
        of[i] = i;
    for (uint32_t i = 0; i < n; i++) {
        int base = pl_sweep_baseline_of(s, i);
        uint32_t a = root_of(of, i), b = root_of(of, base < 0 ? i : (uint32_t)base);
        of[a > b ? a : b] = a < b ? a : b; /* the root is always the first arm */
    }
    for (uint32_t i = 0; i < n; i++)
        of[i] = root_of(of, i);
    for (uint32_t i = 0; i < n; i++)
        of[i] = of[i] == i ? p->n_groups++ : of[of[i]];
}

/* One residence of one group. */
struct residence {
    uint32_t group, number;
    uint64_t bytes;
};

/* A model in a residence: its weights once, and the most that KV cache and workspace of one of its
 * arms take. */
struct resident {
    const char *model;
    uint32_t residence; /* among all */
    uint64_t most;
};

struct packing {
    struct residence *residences; /* [arms] */
    struct resident *residents;   /* [arms] */
    uint32_t n_residences, n_residents;
};

static struct resident *find_resident(const struct packing *k, uint32_t residence,
                                      const char *model)
{
    for (uint32_t i = 0; i < k->n_residents; i++)
        if (k->residents[i].residence == residence && strcmp(k->residents[i].model, model) == 0)
            return &k->residents[i];
    return NULL;
}

/* First fit. */
static void place_arm(const struct pl_sweep *s, struct pl_plan *p, struct packing *k, uint32_t arm)
{
    const struct pl_arm_info *a = &p->arms[arm];
    const char *model = pl_json_get_str(pl_sweep_arm(s, arm), "model", "");
    uint64_t own = pl_plan_kv_bytes(s, arm, a) + a->workspace_bytes, more = a->weights_bytes + own;
    uint32_t g = p->group_of[arm], r = 0;
    struct resident *same = NULL;
    for (; r < k->n_residences; r++) {
        if (k->residences[r].group != g)
            continue;
        same = find_resident(k, r, model);
        more = !same ? a->weights_bytes + own : own > same->most ? own - same->most : 0;
        if (!p->device_bytes || k->residences[r].bytes + more <= p->device_bytes)
            break;
    }
    if (r == k->n_residences) {
        same = NULL;
        more = a->weights_bytes + own;
        k->residences[k->n_residences++] = (struct residence){g, p->n_residences[g]++, 0};
    }
    k->residences[r].bytes += more;
    if (!same)
        k->residents[k->n_residents++] = (struct resident){model, r, own};
    else if (own > same->most)
        same->most = own;
    p->residence_of[arm] = k->residences[r].number;
}

static enum pl_status make_residences(const struct pl_sweep *s, struct pl_plan *p,
                                      struct pl_err *err)
{
    struct packing k = {.residences = calloc(s->n_arms, sizeof *k.residences),
                        .residents = calloc(s->n_arms, sizeof *k.residents)};
    enum pl_status st = PL_OK;
    if (!k.residences || !k.residents)
        st = pl_fail(err, PL_ENOMEM, "no memory for the plan of %" PRIu32 " arms", s->n_arms);
    for (uint32_t i = 0; i < s->n_arms && st == PL_OK; i++)
        place_arm(s, p, &k, i);
    free(k.residences);
    free(k.residents);
    return st;
}

/* Time of one sample of a group at a context: every arm, every repeat. 0: not known. */
static double sample_s(const struct pl_sweep *s, const struct pl_plan *p, uint32_t group,
                       uint32_t context)
{
    double sum = 0;
    for (uint32_t i = 0; i < s->n_arms; i++) {
        double t = p->group_of[i] == group ? pl_plan_busy_s(s, p->arms, i, context) : -1;
        if (t == 0)
            return 0;
        sum += t > 0 ? t * s->repeats : 0;
    }
    return sum;
}

static uint64_t count_blocks(const struct pl_plan *p, uint32_t block_samples)
{
    uint64_t chunks = ((uint64_t)p->shape.samples + block_samples - 1) / block_samples;
    return chunks * p->n_groups * p->shape.contexts;
}

static void choose_block(const struct pl_sweep *s, struct pl_plan *p, uint32_t n_workers)
{
    double shortest = INFINITY, longest = 0; /* of one sample */
    uint32_t bs = s->samples < BLOCK_SAMPLES_MAX ? s->samples : BLOCK_SAMPLES_MAX;
    for (uint32_t g = 0; g < p->n_groups; g++)
        for (uint32_t c = 0; c < s->n_contexts; c++) {
            double t = sample_s(s, p, g, c);
            if (t > 0) {
                shortest = t < shortest ? t : shortest;
                longest = t > longest ? t : longest;
            }
        }
    while (bs > 1 && ((uint64_t)bs * s->repeats * s->n_arms > BLOCK_TRIALS_MAX ||
                      bs * longest > BLOCK_S_MAX ||
                      (count_blocks(p, bs) < (uint64_t)BLOCKS_PER_WORKER * n_workers &&
                       (bs - 1) * shortest >= BLOCK_S_MIN)))
        bs--;
    p->block_samples = bs;
}

/* The length of an ABBA run: with r residences a pass through them costs r − 1 loads, and those may
 * take a tenth. */
static void choose_run(const struct pl_sweep *s, struct pl_plan *p)
{
    for (uint32_t g = 0; g < p->n_groups; g++) {
        double load = 0, trials = INFINITY;
        uint32_t run = RUN_SAMPLES_UNKNOWN;
        if (p->n_residences[g] < 2)
            continue;
        for (uint32_t i = 0; i < s->n_arms && load >= 0; i++) {
            double t = pl_plan_load_s(s, p->arms, i);
            if (p->group_of[i] == g)
                load = t < 0 ? -1 : t > load ? t : load;
        }
        for (uint32_t c = 0; c < s->n_contexts; c++) {
            double t = sample_s(s, p, g, c);
            trials = t < trials ? t : trials;
        }
        if (load >= 0 && trials > 0) {
            double want =
                ceil((p->n_residences[g] - 1) * load * (1 - LOAD_SHARE) / LOAD_SHARE / trials);
            run = want < 1 ? 1 : want < s->samples ? (uint32_t)want : s->samples;
        }
        if (run > s->samples)
            run = s->samples;
        if (run > p->run_samples)
            p->run_samples = run;
    }
    /* A run must fit into a block, which is all that a worker holds. */
    if (p->run_samples > p->block_samples)
        p->block_samples = p->run_samples;
}

static void add_up(const struct pl_sweep *s, struct pl_plan *p, uint32_t n_workers)
{
    uint64_t chunks = blocks_per_context(p);
    double warmup = pl_sweep_measure_f64(s, "warmup", 0), busy = 0;
    bool known = true;
    for (uint32_t g = 0; g < p->n_groups; g++) {
        uint64_t blocks = chunks * p->shape.contexts;
        uint64_t first = blocks < n_workers ? blocks : n_workers;
        uint64_t swaps =
            blocks * (pl_order_loads(p->n_residences[g], p->block_samples, p->run_samples) - 1);
        double load = 0;
        p->loads += first + swaps;
        for (uint32_t i = 0; i < s->n_arms; i++) {
            double t = p->group_of[i] == g ? pl_plan_load_s(s, p->arms, i) : 0;
            known = known && t >= 0;
            load = t > load ? t : load;
        }
        busy += (double)(first + swaps) * load;
        for (uint32_t c = 0; c < s->n_contexts; c++) {
            double t = sample_s(s, p, g, c);
            /* warm-ups: each worker once a context, and again after each swap */
            double again = (double)(chunks < n_workers ? chunks : n_workers) +
                           (double)swaps / s->n_contexts / p->n_residences[g];
            known = known && t > 0;
            busy += t * s->samples + t / s->repeats * warmup * again;
        }
    }
    for (uint32_t i = 0; i < s->n_arms; i++)
        for (uint32_t c = 0; c < s->n_contexts; c++)
            p->trials_s += pl_plan_trial_s(s, p->arms, i, c) * s->samples * s->repeats;
    if (!known)
        p->trials_s = 0;
    else
        p->estimate_s = busy / (p->n_blocks < n_workers ? (double)p->n_blocks : n_workers);
}

enum pl_status pl_plan_make(const struct pl_sweep *s, const struct pl_arm_info *arms,
                            uint64_t device_bytes, uint32_t n_workers, struct pl_plan **out,
                            struct pl_err *err)
{
    struct pl_plan *p;
    enum pl_status st;
    uint32_t n = s->n_arms;
    if (s->samples == 0 || n == 0 || s->n_contexts == 0)
        return pl_fail(err, PL_ERANGE,
                       "the sweep has no trials: %" PRIu32 " arms, %" PRIu32 " contexts, %" PRIu32
                       " samples",
                       n, s->n_contexts, s->samples);
    if (n_workers == 0)
        return pl_fail(err, PL_ERANGE, "a plan for 0 workers, expected at least 1");
    p = calloc(1, sizeof *p);
    if (p) {
        p->arms = calloc(n, sizeof *p->arms);
        p->group_of = calloc(n, sizeof *p->group_of);
        p->residence_of = calloc(n, sizeof *p->residence_of);
        p->n_residences = calloc(n, sizeof *p->n_residences);
    }
    if (!p || !p->arms || !p->group_of || !p->residence_of || !p->n_residences) {
        pl_plan_free(p);
        return pl_fail(err, PL_ENOMEM, "no memory for the plan of %" PRIu32 " arms", n);
    }
    memcpy(p->arms, arms, n * sizeof *arms);
    p->device_bytes = device_bytes;
    make_shape(s, arms, &p->shape);
    make_groups(s, p);
    st = make_residences(s, p, err);
    if (st != PL_OK) {
        pl_plan_free(p);
        return st;
    }
    choose_block(s, p, n_workers);
    choose_run(s, p);
    p->n_blocks = count_blocks(p, p->block_samples);
    add_up(s, p, n_workers);
    *out = p;
    return PL_OK;
}
