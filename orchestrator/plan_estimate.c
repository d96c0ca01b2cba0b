#include "orchestrator/plan_estimate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A virtual trial still goes through the protocol and into the file (docs/RESULTS.md has the
 * measurement). */
#define OVERHEAD_S 1e-4
#define EXACT_STEPS 100000000.0

double pl_plan_rounds(uint32_t left, uint32_t gamma, double acceptance)
{
    double *expect, rounds;
    if (left == 0)
        return 0;
    if ((double)left * gamma > EXACT_STEPS || !(expect = calloc((size_t)left + 1, sizeof *expect)))
        return left * (1 - acceptance) / (1 - pow(acceptance, gamma + 1.0));
    for (uint32_t m = 1; m <= left; m++) {
        double p = 1; /* of accepting the first k */
        expect[m] = 1;
        for (uint32_t k = 0; k < gamma && k + 1 < m; k++) {
            expect[m] += p * (1 - acceptance) * expect[m - k - 1];
            p *= acceptance;
        }
        if (gamma + 1 < m)
            expect[m] += p * expect[m - gamma - 1];
    }
    rounds = expect[left];
    free(expect);
    return rounds;
}

static bool prefill_only(const struct pl_sweep *s)
{
    return strcmp(pl_json_get_str(json_object_get(s->resolved, "measure"), "mode", ""),
                  "prefill") == 0;
}

double pl_plan_trial_s(const struct pl_sweep *s, const struct pl_arm_info *arms, uint32_t arm,
                       uint32_t context)
{
    const json_t *a = pl_sweep_arm(s, arm), *accept = json_object_get(a, "acceptance");
    const json_t *m = pl_sweep_model(s, pl_json_get_str(a, "model", ""));
    uint32_t left = prefill_only(s) ? 0 : s->tokens_at[context] - 1;
    double us;
    if (!arms[arm].sim)
        return 0;
    us = pl_json_get_f64(m, "prefill_us_per_token", 0) * (double)s->contexts[context];
    if (json_is_number(accept)) {
        uint32_t gamma = (uint32_t)pl_json_get_i64(a, "gamma", 1);
        us += pl_plan_rounds(left, gamma, json_number_value(accept)) *
              (gamma * pl_json_get_f64(a, "draft_us", 0) + pl_json_get_f64(a, "verify_us", 0));
    } else {
        /* a closed loop: as if its clients always asked together, which is about right */
        uint32_t slots = pl_arm_slots(a), all = pl_arm_sequences(a);
        us = us * all + left * pl_json_get_f64(m, "decode_us", 0) * ceil((double)all / slots) *
                            (1 + pl_json_get_f64(m, "batch_cost", 0) * (slots - 1));
    }
    return us * 1e-6 * pl_json_get_f64(a, "scale", 1);
}

static const json_t *model_of(const struct pl_sweep *s, uint32_t arm)
{
    return pl_sweep_model(s, pl_json_get_str(pl_sweep_arm(s, arm), "model", ""));
}

double pl_plan_busy_s(const struct pl_sweep *s, const struct pl_arm_info *arms, uint32_t arm,
                      uint32_t context)
{
    if (!arms[arm].sim)
        return 0;
    if (json_is_true(json_object_get(model_of(s, arm), "virtual")))
        return OVERHEAD_S;
    return pl_plan_trial_s(s, arms, arm, context) + OVERHEAD_S;
}

double pl_plan_load_s(const struct pl_sweep *s, const struct pl_arm_info *arms, uint32_t arm)
{
    const json_t *m = model_of(s, arm);
    if (!arms[arm].sim)
        return -1;
    return json_is_true(json_object_get(m, "virtual")) ? 0 : pl_json_get_f64(m, "load_s", 0);
}
