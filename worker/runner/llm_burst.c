/* All tokens of a trial from a device that makes them by itself: the host waits once, behind the
 * last. */
#include "worker/runner/llm.h"

#include "base/clock.h"

enum pl_status llm_burst_room(struct llm_burst *b, int64_t tokens, struct pl_err *err)
{
    llm_burst_free(b);
    b->draws = calloc((size_t)tokens, sizeof(*b->draws));
    b->made = calloc((size_t)tokens, sizeof(*b->made));
    if (tokens && (!b->draws || !b->made))
        return pl_fail(err, PL_ENOMEM, "no memory for %lld tokens", (long long)tokens);
    return PL_OK;
}

void llm_burst_free(struct llm_burst *b)
{
    free(b->draws);
    free(b->made);
    *b = (struct llm_burst){0};
}

bool llm_bursts(const struct llm_state *s, const struct llm_model *m)
{
    return !s->stop_at_eos && pl_session_generates(m->session);
}

/* When the tokens were there: by the device's clock, counted back from the wait's end. */
static void times(struct llm_state *s, size_t n, int64_t start, int64_t last)
{
    const struct pl_generated *made = s->burst.made;

    for (size_t i = 0; i < n; i++) {
        const int64_t at = last - start - (made[n - 1].ns - made[i].ns);
        s->out_ns[i + 1] = at > s->out_ns[i] ? at : s->out_ns[i];
    }
}

enum pl_status llm_burst(struct llm_state *s, struct llm_model *m,
                         const struct pl_accept_rule *rule, int64_t tokens, int64_t start,
                         int64_t *last, int64_t *said, struct pl_fault *f)
{
    const size_t n = (size_t)tokens - 1;
    const struct pl_generation g = {.first = s->out_tokens[0],
                                    .n = n,
                                    .temperature = s->temperature,
                                    .draws = s->burst.draws,
                                    .ends = rule->masked,
                                    .n_ends = rule->n_masked};
    enum pl_status st;

    for (size_t i = 0; i < n && s->temperature > 0; i++)
        s->burst.draws[i] = pl_accept_uniform(rule, i + 1, 0);
    st = pl_session_generate(m->session, &g, s->burst.made, &f->err);
    if (st)
        return pl_fault_set(f, st, PL_FAULT_RUNNER);
    *last = pl_now_ns();
    m->step_there = false;
    for (size_t i = 0; i < n; i++) {
        const struct pl_picked *p = &s->burst.made[i].token;
        if (p->id < 0)
            return llm_numeric(f, (int64_t)i + 1);
        s->out_tokens[i + 1] = p->id;
        if (p->all != p->id && *said > (int64_t)i + 1)
            *said = (int64_t)i + 1;
    }
    times(s, n, start, *last);
    return PL_OK;
}
