#include "cli/prepare.h"

#include "orchestrator/plan_files.h"
#include "worker/rank/runner.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pl_cli_prepared_release(struct pl_cli_prepared *p)
{
    pl_plan_free(p->plan);
    pl_sweep_free(p->sweep);
    free(p->arms);
    pl_problems_release(&p->warnings);
    memset(p, 0, sizeof *p);
}

static enum pl_status describe(struct pl_cli_prepared *p, bool allow_exec, uint32_t workers,
                               struct pl_problems *mistakes, struct pl_err *err)
{
    char program[PATH_MAX];
    uint64_t device_bytes = 0;
    enum pl_status st = pl_runner_find(program, sizeof program, err);
    if (st != PL_OK)
        return st;
    p->arms = calloc(p->sweep->n_arms, sizeof *p->arms);
    if (!p->arms)
        return pl_fail(err, PL_ENOMEM, "no memory for %" PRIu32 " arms", p->sweep->n_arms);
    st = pl_plan_describe(p->sweep, program, allow_exec, p->arms, &device_bytes, mistakes,
                          &p->warnings, err);
    if (st == PL_OK)
        pl_plan_check_files(p->sweep, p->arms, mistakes, &p->warnings);
    if (st == PL_OK && mistakes->n)
        st = pl_fail(err, PL_ESWEEP, "%s: %zu mistake%s", p->sweep->path, mistakes->n,
                     mistakes->n == 1 ? "" : "s");
    if (st == PL_OK)
        st = pl_plan_make(p->sweep, p->arms, device_bytes, workers, &p->plan, err);
    return st;
}

int pl_cli_prepare(const char *path, struct pl_cli_select *sel, bool allow_exec, uint32_t workers,
                   struct pl_cli_prepared *out)
{
    struct pl_cli_prepared p = {0};
    struct pl_problems mistakes = {0};
    struct pl_err err = {""};
    enum pl_status st;
    int code = pl_cli_load_sweep(path, sel, &p.sweep);
    if (code >= 0)
        return code;
    st = pl_sweep_open_samples(p.sweep, &err);
    if (st == PL_OK && pl_samples_overlap(p.sweep->list))
        pl_problems_add(&p.warnings,
                        "the text is too short for %" PRIu32
                        " disjoint samples: some overlap, and are not independent",
                        p.sweep->samples);
    if (st == PL_OK)
        st = describe(&p, allow_exec, workers, &mistakes, &err);
    pl_cli_problems(&mistakes, NULL);
    pl_problems_release(&mistakes);
    if (st != PL_OK) {
        pl_cli_prepared_release(&p);
        return pl_cli_fail(st, &err);
    }
    *out = p;
    return -1;
}

static uint64_t trials(const struct pl_cli_prepared *p)
{
    return pl_shape_rows(&p->plan->shape);
}

static const char *model_of(const struct pl_cli_prepared *p, uint32_t arm)
{
    return pl_json_get_str(pl_sweep_arm(p->sweep, arm), "model", "");
}

/* The arm of a model that needs most; -1: the model is not this arm's, or an earlier arm spoke for
 * it. */
static int64_t largest_of_model(const struct pl_cli_prepared *p, uint32_t arm)
{
    int64_t best = arm;
    for (uint32_t i = 0; i < p->sweep->n_arms; i++) {
        if (strcmp(model_of(p, i), model_of(p, arm)) != 0)
            continue;
        if (i < arm)
            return -1;
        if (pl_plan_kv_bytes(p->sweep, i, &p->arms[i]) >
            pl_plan_kv_bytes(p->sweep, (uint32_t)best, &p->arms[best]))
            best = i;
    }
    return best;
}

static bool fits(const struct pl_cli_prepared *p, uint32_t arm)
{
    const struct pl_arm_info *a = &p->arms[arm];

    return !p->plan->device_bytes ||
           a->weights_bytes + pl_plan_kv_bytes(p->sweep, arm, a) + a->workspace_bytes <=
               p->plan->device_bytes;
}

/* [{model, context, bytes, fits}]: what the arm of each model that needs most needs in all. */
static json_t *lengths_json(const struct pl_cli_prepared *p)
{
    json_t *out = json_array();
    for (uint32_t i = 0; i < p->sweep->n_arms; i++) {
        const int64_t at = largest_of_model(p, i);
        for (uint32_t c = 0; at >= 0 && c < p->sweep->n_contexts; c++) {
            const struct pl_arm_info *a = &p->arms[at];
            const uint64_t need = a->weights_bytes + a->workspace_bytes +
                                  pl_plan_kv_bytes_at(p->sweep, (uint32_t)at, a, c);
            const bool ok = !p->plan->device_bytes || need <= p->plan->device_bytes;
            json_array_append_new(out, json_pack("{s:s,s:I,s:I,s:b}", "model", model_of(p, i),
                                                 "context", (json_int_t)p->sweep->contexts[c],
                                                 "bytes", (json_int_t)need, "fits", ok));
        }
    }
    return out;
}

static json_t *bytes_json(const struct pl_cli_prepared *p)
{
    json_t *out = json_array();
    for (uint32_t i = 0; i < p->sweep->n_arms; i++) {
        int64_t at = largest_of_model(p, i);
        const struct pl_arm_info *a;
        if (at < 0)
            continue;
        a = &p->arms[at];
        json_array_append_new(
            out, json_pack("{s:s,s:I,s:I,s:I,s:b}", "model", model_of(p, i), "weights",
                           (json_int_t)a->weights_bytes, "kv",
                           (json_int_t)pl_plan_kv_bytes(p->sweep, (uint32_t)at, a), "workspace",
                           (json_int_t)a->workspace_bytes, "fits", fits(p, (uint32_t)at)));
    }
    return out;
}

static json_t *arms_json(const struct pl_cli_prepared *p)
{
    json_t *out = json_array();
    for (uint32_t i = 0; i < p->sweep->n_arms; i++) {
        json_t *a = json_pack(
            "{s:s,s:s,s:s,s:I,s:I,s:b}", "arm", pl_sweep_arm_name(p->sweep, i), "model",
            model_of(p, i), "baseline", pl_json_get_str(pl_sweep_arm(p->sweep, i), "baseline", ""),
            "group", (json_int_t)p->plan->group_of[i], "residence",
            (json_int_t)p->plan->residence_of[i], "synthetic", p->arms[i].synthetic);
        json_t *ms = json_array();
        for (uint32_t c = 0; c < p->sweep->n_contexts; c++) {
            double t = pl_plan_trial_s(p->sweep, p->arms, i, c);
            json_array_append_new(ms, t > 0 ? json_real(t * 1e3) : json_null());
        }
        json_object_set_new(a, "trial_ms", ms);
        json_array_append_new(out, a);
    }
    return out;
}

/* Tokens of a trial at each context; with measure.mode prefill the file has room for one. */
static json_t *tokens_json(const struct pl_cli_prepared *p)
{
    const uint32_t most = p->plan->shape.tokens, *at = p->sweep->tokens_at;
    json_t *list = json_array();
    for (uint32_t i = 0; i < p->sweep->n_contexts; i++)
        json_array_append_new(list, json_integer(at[i] < most ? at[i] : most));
    return list;
}

json_t *pl_cli_plan_json(const struct pl_cli_prepared *p, uint32_t workers)
{
    const struct pl_plan *pl = p->plan;
    json_t *warnings = json_array();
    for (size_t i = 0; i < p->warnings.n; i++)
        json_array_append_new(warnings, json_string(p->warnings.items[i]));
    return json_pack(
        "{s:s,s:s,s:I,s:I,s:I,s:o,s:o,s:o,s:o,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:O,s:I,s:I,s:o,s:o}",
        "name", pl_json_get_str(p->sweep->resolved, "name", ""), "sha256", p->sweep->sha256,
        "trials", (json_int_t)trials(p), "blocks", (json_int_t)pl->n_blocks, "loads",
        (json_int_t)pl->loads, "estimate_s",
        pl->estimate_s > 0 ? json_real(pl->estimate_s) : json_null(), "trials_s",
        pl->trials_s > 0 ? json_real(pl->trials_s) : json_null(), "bytes", bytes_json(p), "lengths",
        lengths_json(p), "device_bytes", (json_int_t)pl->device_bytes, "workers",
        (json_int_t)workers, "groups", (json_int_t)pl->n_groups, "block_samples",
        (json_int_t)pl->block_samples, "run_samples", (json_int_t)pl->run_samples, "tokens",
        (json_int_t)pl->shape.tokens, "context_tokens", tokens_json(p), "contexts",
        json_object_get(json_object_get(p->sweep->resolved, "grid"), "contexts"), "samples",
        (json_int_t)p->sweep->samples, "repeats", (json_int_t)p->sweep->repeats, "arms",
        arms_json(p), "warnings", warnings);
}

static void print_size(uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    size_t u = 0;
    while (v >= 1024 && u < 4) {
        v /= 1024;
        u++;
    }
    printf("%10.*f %-3s", u ? 1 : 0, v, units[u]);
}

static void print_time(const char *name, double s)
{
    printf("%-10s ", name);
    if (s <= 0)
        printf("not known before the first trials\n");
    else if (s < 120)
        printf("%.3g s\n", s);
    else if (s < 7200)
        printf("%.3g min\n", s / 60);
    else
        printf("%.3g h\n", s / 3600);
}

void pl_cli_plan_print(const struct pl_cli_prepared *p, uint32_t workers)
{
    const struct pl_sweep *s = p->sweep;
    const struct pl_plan *pl = p->plan;
    printf("%-10s %s\n", "sweep", pl_json_get_str(s->resolved, "name", ""));
    printf("%-10s %" PRIu64 " = %" PRIu32 " arm%s × %" PRIu32 " context%s × %" PRIu32
           " sample%s × %" PRIu32 " repeat%s\n",
           "trials", trials(p), s->n_arms, s->n_arms == 1 ? "" : "s", s->n_contexts,
           s->n_contexts == 1 ? "" : "s", s->samples, s->samples == 1 ? "" : "s", s->repeats,
           s->repeats == 1 ? "" : "s");
    printf("%-10s %" PRIu64 " of %" PRIu32 " samples, in %" PRIu32 " comparison%s\n", "blocks",
           pl->n_blocks, pl->block_samples, pl->n_groups, pl->n_groups == 1 ? "" : "s");
    printf("%-10s %" PRIu64 " with %" PRIu32 " worker%s\n", "loads", pl->loads, workers,
           workers == 1 ? "" : "s");
    if (pl->run_samples)
        printf("%-10s models do not fit together: runs of %" PRIu32 " samples\n", "swaps",
               pl->run_samples);
    print_time("estimate", pl->estimate_s);
    printf("\n%-24s %14s %14s %14s  %s\n", "model", "weights", "KV cache", "workspace", "fits");
    for (uint32_t i = 0; i < s->n_arms; i++) {
        int64_t at = largest_of_model(p, i);
        if (at < 0)
            continue;
        printf("%-24s ", model_of(p, i));
        print_size(p->arms[at].weights_bytes);
        printf(" ");
        print_size(pl_plan_kv_bytes(s, (uint32_t)at, &p->arms[at]));
        printf(" ");
        print_size(p->arms[at].workspace_bytes);
        printf("  %s\n", fits(p, (uint32_t)at) ? "yes" : "no");
    }
    printf("\n%-24s %-24s %-24s %s\n", "arm", "model", "baseline", "expected trial");
    for (uint32_t i = 0; i < s->n_arms; i++) {
        printf("%-24s %-24s %-24s ", pl_sweep_arm_name(s, i), model_of(p, i),
               pl_json_get_str(pl_sweep_arm(s, i), "baseline", ""));
        for (uint32_t c = 0; c < s->n_contexts && p->arms[i].sim && s->contexts[c]; c++)
            printf("%s%.4g ms at %" PRId64, c ? ", " : "", pl_plan_trial_s(s, p->arms, i, c) * 1e3,
                   s->contexts[c]);
        printf("%s\n", p->arms[i].sim         ? (s->contexts[0] ? " (simulated)" : "simulated")
                       : p->arms[i].synthetic ? "not known (random weights)"
                                              : "not known");
    }
}
