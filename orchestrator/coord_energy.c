/* measure.energy: after the grid, one burst an arm × context, one at a time in the whole run, so
 * that nobody measures beside it. Those of earlier sessions are not done again. */
#include "orchestrator/coord_impl.h"

#include "results/reader.h"

#include <stdlib.h>

static bool wanted(const struct pl_coord *c)
{
    const json_t *measure = json_object_get(c->o.sweep->resolved, "measure");
    return json_is_true(json_object_get(measure, "energy"));
}

/* Marks what the file has. */
static bool look_up(struct pl_coord *c)
{
    const uint32_t contexts = c->o.sweep->n_contexts;
    struct pl_reader *r = NULL;
    void *records = NULL;
    uint32_t n = 0;
    uint64_t overflow;
    struct pl_err err = {""};
    c->bursts.done = calloc((size_t)c->o.sweep->n_arms * contexts, sizeof *c->bursts.done);
    if (!c->bursts.done)
        return false;
    if (pl_reader_open(c->o.results, &r, &err) != PL_OK ||
        pl_reader_log(r, PL_LOG_ENERGY, &records, &n, &overflow, &err) != PL_OK)
        pl_coord_say(c, PL_LOG_WARN, "energy: %s", err.text);
    for (uint32_t i = 0; i < n; i++) {
        const struct pl_log_energy *e = (const struct pl_log_energy *)records + i;
        if (e->arm < c->o.sweep->n_arms && e->context < contexts)
            c->bursts.done[(size_t)e->arm * contexts + e->context] = true;
    }
    free(records);
    pl_reader_free(r);
    return true;
}

bool pl_coord_energy_left(struct pl_coord *c)
{
    const size_t all = (size_t)c->o.sweep->n_arms * c->o.sweep->n_contexts;
    if (!wanted(c) || (!c->bursts.done && !look_up(c)))
        return false;
    while (c->bursts.next < all && c->bursts.done[c->bursts.next])
        c->bursts.next++;
    return c->bursts.next < all;
}

static bool there(const struct member *m)
{
    return m->joined && !m->lost && !m->out && !m->bye;
}

bool pl_coord_energy(struct pl_coord *c)
{
    bool anyone = false;
    if (!pl_coord_energy_left(c))
        return false;
    if (c->bursts.given && !there(&c->members[c->bursts.slot])) {
        pl_coord_say(c, PL_LOG_WARN, "energy: the worker that measured is gone");
        c->bursts.done[c->bursts.next] = true; /* it may be what took it down */
        c->bursts.given = false;
        return pl_coord_energy_left(c);
    }
    for (uint32_t s = 0; s < c->n_members && !c->bursts.given; s++) {
        anyone |= there(&c->members[s]);
        if (!there(&c->members[s]) || !c->members[s].waiting)
            continue;
        const struct pl_msg_energy m = {.head = pl_msg_head(PL_MSG_ENERGY),
                                        .arm = (uint32_t)(c->bursts.next / c->o.sweep->n_contexts),
                                        .context =
                                            (uint32_t)(c->bursts.next % c->o.sweep->n_contexts)};
        if (c->bursts.next == 0)
            pl_coord_say(c, PL_LOG_INFO, "energy: a burst for each arm and context");
        c->bursts.slot = s;
        c->bursts.given = true;
        pl_coord_send(c, s, &m, sizeof m);
    }
    if (!c->bursts.given && !anyone) {
        pl_coord_say(c, PL_LOG_WARN, "energy: nobody is left to measure it");
        return false;
    }
    return true;
}

void pl_coord_burst(struct pl_coord *c, uint32_t slot, const struct pl_msg_burst *in)
{
    struct pl_log_energy e = in->record;
    const size_t at = (size_t)e.arm * c->o.sweep->n_contexts + e.context;
    if (!c->bursts.given || slot != c->bursts.slot || at != c->bursts.next)
        return; /* too late */
    e.used = 1;
    e.session = c->session.number;
    e.worker = c->members[slot].number;
    e.source[sizeof e.source - 1] = e.absent[sizeof e.absent - 1] = '\0';
    pl_coord_log(c, PL_LOG_ENERGY, &e);
    if (e.absent[0] && !c->bursts.said)
        pl_coord_say(c, PL_LOG_WARN, "energy is not measured: %s", e.absent);
    c->bursts.said |= e.absent[0] != '\0';
    c->bursts.done[at] = true;
    c->bursts.given = false;
    c->busy = true;
}
