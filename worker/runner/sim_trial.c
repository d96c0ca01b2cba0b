/* The draws and the arithmetic of the simulated engine: pure functions of their keys. */
#include "worker/runner/sim.h"

#include "base/hash.h"
#include "base/rng.h"

#include <math.h>
#include <string.h>

/* What a draw is for: keys of different purposes never meet. */
enum {
    TAG_NOISE = 1,
    TAG_SAMPLE,
    TAG_DEVICE,
    TAG_FAIL,
    TAG_TOKENS,
    TAG_ACCEPT,
};

static double log_normal(double sigma, uint64_t key)
{
    struct pl_rng r;

    if (sigma == 0)
        return 1;
    pl_rng_init(&r, key);
    return exp(sigma * pl_rng_normal(&r) - sigma * sigma / 2);
}

static uint64_t trial_key(const struct pl_sim_key *k, uint64_t tag)
{
    return pl_keyv(k->seed, tag, k->arm, k->context, k->sample, k->repeat, k->attempt);
}

/* Of the trial's samples, the mean. */
static double sample_effect(const struct pl_sim_params *p, const struct pl_sim_key *k)
{
    double sum = 0;

    if (!k->samples)
        return log_normal(p->sample_effect, pl_keyv(k->seed, TAG_SAMPLE, k->sample));
    for (uint32_t b = 0; b < p->sequences; b++)
        sum += log_normal(p->sample_effect, pl_keyv(k->seed, TAG_SAMPLE, k->samples[b]));
    return sum / p->sequences;
}

double pl_sim_factor(const struct pl_sim_params *p, const struct pl_sim_key *k)
{
    return p->scale * log_normal(p->noise, trial_key(k, TAG_NOISE)) * sample_effect(p, k) *
           log_normal(p->device_effect, pl_keyv(k->seed, TAG_DEVICE, k->device));
}

enum pl_sim_fail pl_sim_draw_fail(const struct pl_sim_params *p, const struct pl_sim_key *k)
{
    struct pl_rng r;

    pl_rng_init(&r, trial_key(k, TAG_FAIL));
    for (int i = 0; i < PL_SIM_FAILS;
         i++) /* every kind has its own draw, whatever the others are */
        if (pl_rng_double(&r) < p->fail[i])
            return (enum pl_sim_fail)i;
    return PL_SIM_FAILS;
}

int64_t pl_sim_ns(double us, double factor)
{
    double ns = us * 1e3 * factor;

    return ns < 9e18 ? llround(ns) : INT64_MAX / 4;
}

/* Plain steps: token i is known i steps after the first. The sum is not made of rounded steps, so
 * that no rounding piles up. */
static void plain(const struct pl_sim_params *p, double factor, uint32_t tokens,
                  const struct pl_sim_room *room, struct pl_trial_result *out)
{
    for (uint32_t i = 1; i < tokens; i++)
        room->token_ns[i] = out->ttft_ns + pl_sim_ns(p->decode_us * i, factor);
    out->generated = tokens;
    out->phase_ns[PL_PHASE_DECODE] = room->token_ns[tokens - 1] - out->ttft_ns;
}

static void drafted(const struct pl_sim_params *p, const struct pl_sim_key *k, double factor,
                    uint32_t tokens, const struct pl_sim_room *room, struct pl_trial_result *out)
{
    int64_t draft = pl_sim_ns(p->draft_us * p->gamma, factor),
            verify = pl_sim_ns(p->verify_us, factor);
    int64_t now = out->ttft_ns;
    uint32_t n = 1, gamma = (uint32_t)p->gamma;
    struct pl_rng r;

    pl_rng_init(&r, trial_key(k, TAG_ACCEPT));
    while (n < tokens) {
        uint32_t accepted = 0;
        while (accepted < gamma && pl_rng_double(&r) < p->acceptance)
            accepted++;
        now += draft + verify;
        room->rounds[out->n_rounds++] =
            (struct pl_trial_round){gamma, accepted, (draft + 500) / 1000, (verify + 500) / 1000};
        out->drafted += gamma;
        out->accepted += accepted;
        uint32_t got = accepted + 1;
        if (got > tokens - n) {
            out->cut = got - (tokens - n);
            got = tokens - n;
        }
        for (uint32_t i = 0; i < got; i++)
            room->token_ns[n++] = now;
    }
    out->generated = tokens;
    out->phase_ns[PL_PHASE_DRAFT] = draft * out->n_rounds;
    out->phase_ns[PL_PHASE_VERIFY] = verify * out->n_rounds;
}

/* A greedy engine says the same whatever arm, repeat or attempt: lossless by construction. */
static uint64_t say(const struct pl_sim_key *k, uint64_t sample, int32_t *tokens, uint32_t n)
{
    uint64_t text = pl_keyv(k->seed, TAG_TOKENS, k->context, sample);
    struct pl_rng r;

    pl_rng_init(&r, text);
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (int32_t)pl_rng_below(&r, PL_SIM_VOCAB);
    return text;
}

static void one(const struct pl_sim_params *p, const struct pl_sim_key *k, double factor,
                uint32_t tokens, bool prefill_only, const struct pl_sim_room *room,
                struct pl_trial_result *out)
{
    out->ttft_ns = pl_sim_ns(p->prefill_us_per_token * (double)k->context, factor);
    if (out->ttft_ns < 1)
        out->ttft_ns = 1; /* ratios of times are taken */
    room->token_ns[0] = out->ttft_ns;
    out->rounds = room->rounds;
    room->kv_len[0] = out->prompt_tokens;
    out->phase_ns[PL_PHASE_PREFILL] = out->ttft_ns;
    if (p->drafts && !prefill_only)
        drafted(p, k, factor, tokens, room, out);
    else
        plain(p, factor, tokens, room, out);
    out->total_ns = room->token_ns[tokens - 1];
}

void pl_sim_trial(const struct pl_sim_params *p, const struct pl_sim_key *k, double factor,
                  uint32_t tokens, bool prefill_only, const struct pl_sim_room *room,
                  struct pl_trial_result *out)
{
    pl_trial_result_init(out);
    if (prefill_only)
        tokens = 1;
    out->prompt_tokens = (uint32_t)k->context;
    out->tokens = room->tokens;
    out->token_ns = room->token_ns;
    out->kv_len = room->kv_len;
    out->layers = 1;
    out->phase_ns[PL_PHASE_WAIT] = 0;
    if (k->samples && p->sequences > 1)
        pl_sim_batch(p, k, factor, tokens, prefill_only, room, out);
    else
        one(p, k, factor, tokens, prefill_only, room, out);
    for (uint32_t b = 1; b < out->sequences; b++)
        (void)say(k, k->samples[b], room->tokens + (size_t)b * tokens, tokens);
    out->hashed = true;
    out->ids_hash = say(k, k->sample, room->tokens, tokens);
    out->logits_hash = pl_hash64(out->ids_hash, room->tokens, sizeof(room->tokens[0]));
    out->synthetic = true;
}
