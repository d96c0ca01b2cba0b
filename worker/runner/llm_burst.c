/* All tokens of a trial from a device that makes them by itself: the host waits once, behind the
 * last; where one of them may end the text, behind each few. */
#include "worker/runner/llm.h"

#include "base/clock.h"

enum pl_status llm_burst_room(struct llm_burst *b, int64_t tokens, struct pl_err *err)
{
    llm_burst_free(b);
    b->draws = calloc((size_t)tokens, sizeof(*b->draws));
    b->made = calloc((size_t)tokens, sizeof(*b->made));
    b->ns = calloc((size_t)tokens, sizeof(*b->ns));
    if (tokens && (!b->draws || !b->made || !b->ns))
        return pl_fail(err, PL_ENOMEM, "no memory for %lld tokens", (long long)tokens);
    return PL_OK;
}

void llm_burst_free(struct llm_burst *b)
{
    free(b->draws);
    free(b->made);
    free(b->ns);
    *b = (struct llm_burst){0};
}

/* Steps behind the end of a text are in no time and no count, but energy and the times of kernels
 * are measured with all that a device does. */
bool llm_bursts(const struct llm_state *s, const struct llm_model *m)
{
    return pl_session_generates(m->session) && !(s->stop_at_eos && (s->energy || s->profiling));
}

enum pl_status llm_burst(struct llm_state *s, struct llm_model *m,
                         const struct pl_accept_rule *rule, int64_t tokens, int64_t start,
                         struct llm_burst_out *out, struct pl_fault *f)
{
    const size_t n = (size_t)tokens - 1;
    const struct pl_generation g = {.ids = s->out_tokens,
                                    .n_ids = 1,
                                    .n = n,
                                    .temperature = s->temperature,
                                    .draws = s->burst.draws,
                                    .ends = rule->masked,
                                    .n_ends = rule->n_masked};
    const struct pl_generated *made = s->burst.made;
    size_t all = 0, used = 0;
    enum pl_status st;

    for (size_t i = 0; i < n && s->temperature > 0; i++)
        s->burst.draws[i] = pl_accept_uniform(rule, i + 1, 0);
    st = pl_session_generate_until(m->session, &g, m->eos, s->stop_at_eos ? m->n_eos : 0,
                                   s->burst.made, &all, &used, &f->err);
    if (st)
        return pl_fault_set(f, st, PL_FAULT_RUNNER);
    pl_generated_times(made, 1, all, pl_now_ns() - start, s->out_ns[0], s->burst.ns);
    m->step_there = false;
    *out = (struct llm_burst_out){.generated = (int64_t)used + 1, .said = tokens};
    for (size_t i = 0; i < used; i++) {
        const struct pl_picked *p = &made[i].token;
        if (p->id < 0)
            return llm_numeric(f, (int64_t)i + 1);
        s->out_tokens[i + 1] = p->id;
        s->out_ns[i + 1] = s->burst.ns[i];
        if (p->all != p->id && out->said > (int64_t)i + 1)
            out->said = (int64_t)i + 1;
    }
    out->last = start + s->burst.ns[used - 1];
    out->behind_ns = s->burst.ns[all - 1] - s->burst.ns[used - 1];
    for (size_t i = used; i < all; i++) {
        out->behind.flops += made[i].work.flops;
        out->behind.bytes += made[i].work.bytes + made[i].shared_bytes;
    }
    return PL_OK;
}
