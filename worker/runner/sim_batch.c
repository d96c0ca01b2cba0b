/* The simulated engine's trials of several sequences. */
#include "worker/runner/loop.h"
#include "worker/runner/sim.h"

static double step_us(const struct pl_sim_params *p, uint32_t sequences)
{
    return sequences ? p->decode_us * (1 + p->batch_cost * (sequences - 1)) : 0;
}

/* All prompts one after another, then steps of all together. */
static void batch(const struct pl_sim_params *p, double prefill, double factor, uint32_t tokens,
                  const struct pl_sim_room *room, struct pl_trial_result *out)
{
    double now = 0;

    for (uint32_t b = 0; b < p->sequences; b++) {
        now += prefill;
        room->token_ns[(size_t)b * tokens] = pl_sim_ns(now, factor);
    }
    for (uint32_t i = 1; i < tokens; i++)
        for (uint32_t b = 0; b < p->sequences; b++)
            room->token_ns[(size_t)b * tokens + i] =
                pl_sim_ns(now + i * step_us(p, p->sequences), factor);
    for (uint32_t b = 0; b < p->sequences; b++) {
        out->ttft_ns += room->token_ns[(size_t)b * tokens];
        room->lengths[b] = tokens;
    }
    out->phase_ns[PL_PHASE_PREFILL] = pl_sim_ns(now, factor);
}

/* Each turn admits one request at most, and makes a token for everyone who was there before it. */
static void loop(const struct pl_sim_params *p, double prefill, double factor, uint32_t tokens,
                 const struct pl_sim_room *room, struct pl_trial_result *out)
{
    uint32_t left = p->sequences;
    int64_t before = 0;
    double now = 0;
    struct pl_loop l;

    pl_loop_begin(&l, p->clients, p->sequences, room->queue, room->running);
    out->phase_ns[PL_PHASE_PREFILL] = 0;
    for (uint32_t r = 0; r < p->sequences; r++)
        room->lengths[r] = 0;
    while (left) {
        uint32_t there = l.n_running, request = pl_loop_admit(&l);
        now += step_us(p, there) + (request == PL_LOOP_NONE ? 0 : prefill);
        int64_t ns = pl_sim_ns(now, factor);
        if (request != PL_LOOP_NONE)
            out->phase_ns[PL_PHASE_PREFILL] += ns - before;
        before = ns;
        for (uint32_t i = 0, n = l.n_running; i < n; i++)
            room->token_ns[(size_t)l.running[i] * tokens + room->lengths[l.running[i]]++] = ns;
        for (uint32_t i = 0; i < l.n_running;) {
            uint32_t r = l.running[i];
            if (room->lengths[r] < tokens) {
                i++;
                continue;
            }
            room->answered[r] = ns;
            pl_loop_answer(&l, r);
            left--;
        }
    }
    for (uint32_t r = 0; r < p->sequences; r++)
        out->ttft_ns += room->token_ns[(size_t)r * tokens] - pl_loop_came(&l, r, 0, room->answered);
}

void pl_sim_batch(const struct pl_sim_params *p, const struct pl_sim_key *k, double factor,
                  uint32_t tokens, bool prefill_only, const struct pl_sim_room *room,
                  struct pl_trial_result *out)
{
    double prefill = p->prefill_us_per_token * (double)k->context;

    if (p->clients)
        loop(p, prefill, factor, tokens, room, out);
    else
        batch(p, prefill, factor, tokens, room, out);
    out->ttft_ns /= p->sequences;
    for (uint32_t b = 0; b < p->sequences; b++) {
        const int64_t last = room->token_ns[(size_t)b * tokens + tokens - 1];
        out->total_ns = last > out->total_ns ? last : out->total_ns;
        room->kv_len[b] = (uint32_t)k->context;
    }
    out->ttft_ns = out->ttft_ns > 0 ? out->ttft_ns : 1;
    out->total_ns = out->total_ns > out->ttft_ns ? out->total_ns : out->ttft_ns;
    if (!prefill_only)
        out->phase_ns[PL_PHASE_DECODE] = out->total_ns - out->phase_ns[PL_PHASE_PREFILL];
    else
        out->phase_ns[PL_PHASE_PREFILL] = out->total_ns;
    out->sequences = p->sequences;
    out->lengths = room->lengths;
    out->stride = tokens;
    out->generated = p->sequences * tokens;
    out->prompt_tokens *= p->sequences;
}
