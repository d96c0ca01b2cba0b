/*
 * The simulated engine's arithmetic, apart from its clothes: what one trial of planted truths is.
 * Every draw is a pure function of its key (base/rng.h).
 *
 *   factor = scale · L(noise; arm, context, sample, repeat, attempt) · L(sample_effect; sample)
 *          · L(device_effect; device) · (1 + drift_per_hour · hours) · (1 + (cold − 1) / 2^k)
 *   L(σ; key) = exp(σ·z − σ²/2), z normal from (seed, key): mean 1
 *   prefill = prefill_us_per_token · context · factor; a plain step = decode_us · factor;
 *   a round = (gamma · draft_us + verify_us) · factor, each of its gamma tokens accepted with
 *   probability `acceptance` until the first that is not
 *   several sequences: L(sample_effect) is the mean over their samples; prompts one after another;
 * a step of n sequences = decode_us · (1 + batch_cost · (n − 1)) · factor
 *
 * hours: since the runner's start; where `virtual`, the sum of its trials' and loads' times. k:
 * trials since the model was loaded.
 */
#ifndef PL_WORKER_RUNNER_SIM_H
#define PL_WORKER_RUNNER_SIM_H

#include "base/json.h"
#include "base/status.h"
#include "worker/runner/engine.h"

#include <stdbool.h>
#include <stdint.h>

#define PL_SIM_VOCAB 32000
#define PL_SIM_MAX_TOKENS (1 << 20)
#define PL_SIM_MAX_GAMMA 64
#define PL_SIM_MAX_SEQUENCES 65536

enum pl_sim_fail { PL_SIM_CRASH, PL_SIM_HANG, PL_SIM_OOM, PL_SIM_GARBAGE, PL_SIM_FAILS };

struct pl_sim_params {
    double prefill_us_per_token, decode_us; /* 2, 300 */
    double noise, sample_effect, device_effect, drift_per_hour;
    double load_s, cold; /* 0, 1 */
    double scale;        /* 1; the arm's */
    double batch_cost;   /* 0 */
    uint32_t sequences;  /* 1; of a trial: the arm's batch or requests */
    uint32_t clients;    /* 0: no loop; the arm's concurrency */
    bool is_virtual;
    bool drafts;
    double acceptance, draft_us, verify_us; /* 0, 0, decode_us */
    int32_t gamma;                          /* 1 */
    double fail[PL_SIM_FAILS];              /* probabilities */
};

/* From a model entry and an arm (NULL: the model alone). An arm drafts where `acceptance` stands in
 * it, in its `draft` or, for all its arms, in the model; the same places hold gamma, draft_us and
 * verify_us, the nearest wins. PL_ESWEEP names the key and what it may be. */
PL_MUST_CHECK
enum pl_status pl_sim_params_read(const json_t *model, const json_t *arm, struct pl_sim_params *out,
                                  struct pl_err *err);

/* What a trial's draws are keyed by. */
struct pl_sim_key {
    uint64_t seed, arm, device; /* pl_hash_str of the names */
    uint64_t context, sample, repeat, attempt;
    const uint64_t *samples; /* of every sequence; NULL: there is one */
};

/* noise · sample_effect · device_effect · scale */
double pl_sim_factor(const struct pl_sim_params *p, const struct pl_sim_key *k);
/* Which planted failure this trial has; PL_SIM_FAILS: none. */
enum pl_sim_fail pl_sim_draw_fail(const struct pl_sim_params *p, const struct pl_sim_key *k);

/* Room for one trial: arrays of sequences · `tokens` items, unless said. */
struct pl_sim_room {
    int32_t *tokens;
    int64_t *token_ns;
    struct pl_trial_round *rounds;                /* [tokens] */
    uint32_t *kv_len, *lengths, *queue, *running; /* [sequences] */
    int64_t *answered;                            /* [sequences] */
};
/* A time in whole ns. */
int64_t pl_sim_ns(double us, double factor);
/* The times of a trial of p->sequences > 1; out has been begun by pl_sim_trial. */
void pl_sim_batch(const struct pl_sim_params *p, const struct pl_sim_key *k, double factor,
                  uint32_t tokens, bool prefill_only, const struct pl_sim_room *room,
                  struct pl_trial_result *out);
/* One trial of `tokens` ≥ 1 with every time multiplied by factor. Fills out, whose arrays are
 * room's. Phases add up to total_ns exactly. */
void pl_sim_trial(const struct pl_sim_params *p, const struct pl_sim_key *k, double factor,
                  uint32_t tokens, bool prefill_only, const struct pl_sim_room *room,
                  struct pl_trial_result *out);

#endif
