#include "orchestrator/sched.h"

#include "base/rng.h"
#include "worker/rank/msg.h"

#include <stdlib.h>
#include <string.h>

#define NO_GROUP UINT32_MAX

struct lease {
    uint64_t id; /* 0: free */
    uint64_t block;
    int64_t since;
};

struct worker {
    bool joined;
    uint32_t devices, group; /* group: of its last lease */
    struct lease leases[PL_SCHED_LEASES];
};

struct group {
    uint32_t first_arm, n_arms; /* in arms[] */
    uint32_t devices;           /* most that one of its arms needs */
    uint64_t first_block, cursor;
    uint32_t workers; /* whose last lease was of this group */
    bool give_up;
};

struct pl_sched {
    const struct pl_plan *plan;
    struct pl_sched_opts opts;
    uint64_t rows, next_lease, per_group;
    uint8_t *settled, *again; /* a bit a row */
    uint8_t *cannot;          /* a bit a (worker, group) */
    unsigned again_attempt;
    uint32_t *arms; /* sorted by group */
    struct group *groups;
    struct worker *workers;
    uint64_t *back; /* blocks that came back, oldest first */
    uint32_t n_back, max_cells;
    size_t bytes;
    struct pl_sched_counts counts;
};

/* ---- life ---- */

static void *take(struct pl_sched *s, uint64_t n, size_t size)
{
    s->bytes += (size_t)n * size;
    return calloc(n ? n : 1, size);
}

static enum pl_status make_groups(struct pl_sched *s, struct pl_err *err)
{
    const struct pl_plan *p = s->plan;
    uint32_t at = 0;
    for (uint32_t g = 0; g < p->n_groups; g++) {
        struct group *q = &s->groups[g];
        q->first_arm = at;
        q->devices = 1;
        for (uint32_t a = 0; a < p->shape.arms; a++) {
            if (p->group_of[a] != g)
                continue;
            s->arms[at++] = a;
            if (p->arms && p->arms[a].devices > q->devices)
                q->devices = p->arms[a].devices;
        }
        q->n_arms = at - q->first_arm;
        q->first_block = g * s->per_group;
        const uint64_t cells = (uint64_t)q->n_arms * p->block_samples * p->shape.repeats;
        if (q->n_arms == 0 || cells > UINT32_MAX || pl_plan_block(p, q->first_block).group != g ||
            pl_plan_block(p, q->first_block + s->per_group - 1).group != g)
            return pl_fail(err, PL_ERANGE, "plan: group %u has no arms or strange blocks", g);
        if (cells > s->max_cells)
            s->max_cells = (uint32_t)cells;
    }
    return PL_OK;
}

enum pl_status pl_sched_new(const struct pl_plan *plan, const struct pl_sched_opts *opts,
                            struct pl_sched **out, struct pl_err *err)
{
    struct pl_sched *s = calloc(1, sizeof *s);
    if (!s)
        return pl_fail(err, PL_ENOMEM, "scheduler");
    s->plan = plan;
    s->opts = *opts;
    s->bytes = sizeof *s;
    s->rows = pl_shape_rows(&plan->shape);
    s->next_lease = 1;
    s->counts.rows = s->counts.left = s->rows;
    enum pl_status st = PL_OK;
    if (plan->n_groups == 0 || plan->n_blocks % plan->n_groups || opts->n_workers == 0) {
        st =
            pl_fail(err, PL_ERANGE, "plan: %u groups, %u workers", plan->n_groups, opts->n_workers);
        goto bad;
    }
    s->per_group = plan->n_blocks / plan->n_groups;
    s->settled = take(s, PL_BITS(s->rows), 1);
    s->again = opts->again ? take(s, PL_BITS(s->rows), 1) : NULL;
    s->cannot = take(s, PL_BITS((uint64_t)opts->n_workers * plan->n_groups), 1);
    s->arms = take(s, plan->shape.arms, sizeof *s->arms);
    s->groups = take(s, plan->n_groups, sizeof *s->groups);
    s->workers = take(s, opts->n_workers, sizeof *s->workers);
    s->back = take(s, (uint64_t)opts->n_workers * PL_SCHED_LEASES, sizeof *s->back);
    if (!s->settled || (opts->again && !s->again) || !s->cannot || !s->arms || !s->groups ||
        !s->workers || !s->back) {
        st = pl_fail(err, PL_ENOMEM, "scheduler of %llu rows", (unsigned long long)s->rows);
        goto bad;
    }
    for (uint32_t w = 0; w < opts->n_workers; w++)
        s->workers[w].group = NO_GROUP;
    st = make_groups(s, err);
    if (st != PL_OK)
        goto bad;
    *out = s;
    return PL_OK;
bad:
    pl_sched_free(s);
    return st;
}

void pl_sched_free(struct pl_sched *s)
{
    if (!s)
        return;
    free(s->settled);
    free(s->again);
    free(s->cannot);
    free(s->arms);
    free(s->groups);
    free(s->workers);
    free(s->back);
    free(s);
}

/* ---- rows ---- */

static void settle(struct pl_sched *s, uint64_t row, bool failed)
{
    if (pl_bit_get(s->settled, row))
        return;
    pl_bit_set(s->settled, row);
    s->counts.left--;
    if (failed)
        s->counts.failed++;
    else
        s->counts.done++;
}

void pl_sched_settled(struct pl_sched *s, uint64_t row, bool failed)
{
    if (row < s->rows)
        settle(s, row, failed);
}

void pl_sched_again(struct pl_sched *s, uint64_t row, unsigned attempt)
{
    if (!s->again || row >= s->rows)
        return;
    pl_bit_set(s->again, row);
    if (attempt > s->again_attempt)
        s->again_attempt = attempt;
}

static struct pl_cells cells_of(const struct pl_sched *s, const struct pl_block *b)
{
    const struct group *g = &s->groups[b->group];
    return (struct pl_cells){.arms = s->arms + g->first_arm,
                             .n_arms = g->n_arms,
                             .context = b->context,
                             .first_sample = b->first_sample,
                             .n_samples = b->n_samples,
                             .repeats = s->plan->shape.repeats};
}

static uint64_t row_of(const struct pl_sched *s, const struct pl_cells *c, uint32_t cell)
{
    const struct pl_row_id id = pl_cells_row(c, cell);
    return pl_row_index(&s->plan->shape, &id);
}

static uint32_t todo_of(const struct pl_sched *s, const struct pl_cells *c)
{
    uint32_t todo = 0;
    const uint32_t n = pl_cells_count(c);
    for (uint32_t i = 0; i < n; i++)
        todo += !pl_bit_get(s->settled, row_of(s, c, i));
    return todo;
}

void pl_sched_cells(const struct pl_sched *s, const struct pl_grant *g, uint8_t *todo,
                    uint8_t *again)
{
    const uint32_t n = pl_cells_count(&g->cells);
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t row = row_of(s, &g->cells, i);
        if (pl_bit_get(s->settled, row))
            continue;
        pl_bit_set(todo, i);
        if (again && s->again && pl_bit_get(s->again, row))
            pl_bit_set(again, i);
    }
}

uint32_t pl_sched_max_cells(const struct pl_sched *s)
{
    return s->max_cells;
}

/* ---- workers ---- */

static uint64_t cannot_bit(const struct pl_sched *s, uint32_t worker, uint32_t group)
{
    return (uint64_t)worker * s->plan->n_groups + group;
}

static bool able(const struct pl_sched *s, uint32_t worker, uint32_t group)
{
    const struct worker *w = &s->workers[worker];
    if (!w->joined || w->devices < s->groups[group].devices)
        return false;
    return s->groups[group].give_up || !pl_bit_get(s->cannot, cannot_bit(s, worker, group));
}

/* Nobody is left who can load it: whoever comes next says so in the rows. */
static void review(struct pl_sched *s, uint32_t group)
{
    struct group *g = &s->groups[group];
    bool any = false, somebody = false;
    for (uint32_t w = 0; w < s->opts.n_workers; w++) {
        if (!s->workers[w].joined || s->workers[w].devices < g->devices)
            continue;
        somebody = true;
        any |= !pl_bit_get(s->cannot, cannot_bit(s, w, group));
    }
    if (somebody)
        g->give_up = !any;
}

static void review_all(struct pl_sched *s)
{
    for (uint32_t g = 0; g < s->plan->n_groups; g++)
        review(s, g);
}

void pl_sched_join(struct pl_sched *s, uint32_t worker, uint32_t devices)
{
    if (worker >= s->opts.n_workers)
        return;
    s->workers[worker].joined = true;
    s->workers[worker].devices = devices;
    review_all(s);
}

static void give_back(struct pl_sched *s, struct lease *l)
{
    const struct pl_block b = pl_plan_block(s->plan, l->block);
    const struct pl_cells c = cells_of(s, &b);
    if (todo_of(s, &c) > 0) {
        if (s->n_back < s->opts.n_workers * PL_SCHED_LEASES)
            s->back[s->n_back++] = l->block;
        else
            s->groups[b.group].cursor =
                0; /* no room to remember it: look through the group again */
        s->counts.returned++;
    }
    l->id = 0;
    s->counts.leases--;
}

/* Its holder says nothing any more: what it had committed counts, the rest comes back. */
static void take_away(struct pl_sched *s, struct lease *l)
{
    const struct pl_block b = pl_plan_block(s->plan, l->block);
    const struct pl_cells c = cells_of(s, &b);
    const uint32_t n = s->opts.committed ? pl_cells_count(&c) : 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t row = row_of(s, &c, i);
        bool failed = false;
        if (!pl_bit_get(s->settled, row) && s->opts.committed(s->opts.committed_ctx, row, &failed))
            settle(s, row, failed);
    }
    give_back(s, l);
}

static void leave_group(struct pl_sched *s, struct worker *w)
{
    if (w->group != NO_GROUP)
        s->groups[w->group].workers--;
    w->group = NO_GROUP;
}

void pl_sched_leave(struct pl_sched *s, uint32_t worker)
{
    if (worker >= s->opts.n_workers || !s->workers[worker].joined)
        return;
    struct worker *w = &s->workers[worker];
    for (int i = 0; i < PL_SCHED_LEASES; i++)
        if (w->leases[i].id)
            take_away(s, &w->leases[i]);
    leave_group(s, w);
    w->joined = false;
    review_all(s);
}

uint32_t pl_sched_workers(const struct pl_sched *s)
{
    uint32_t n = 0;
    for (uint32_t w = 0; w < s->opts.n_workers; w++)
        n += s->workers[w].joined;
    return n;
}

/* ---- granting ---- */

static bool in_lease(const struct pl_sched *s, uint64_t block)
{
    for (uint32_t w = 0; w < s->opts.n_workers; w++)
        for (int i = 0; i < PL_SCHED_LEASES; i++)
            if (s->workers[w].leases[i].id && s->workers[w].leases[i].block == block)
                return true;
    return false;
}

static bool free_work(const struct pl_sched *s, uint64_t block)
{
    const struct pl_block b = pl_plan_block(s->plan, block);
    const struct pl_cells c = cells_of(s, &b);
    return todo_of(s, &c) > 0 && !in_lease(s, block);
}

static bool take_back(struct pl_sched *s, uint32_t group, uint64_t *block)
{
    for (uint32_t i = 0; i < s->n_back;) {
        const uint64_t at = s->back[i];
        if (pl_plan_block(s->plan, at).group != group) {
            i++;
            continue;
        }
        memmove(s->back + i, s->back + i + 1, (--s->n_back - i) * sizeof *s->back);
        if (free_work(s, at)) {
            *block = at;
            return true;
        }
    }
    return false;
}

static bool take_fresh(struct pl_sched *s, uint32_t group, uint64_t *block)
{
    struct group *g = &s->groups[group];
    const uint64_t key = pl_keyv(s->opts.seed, UINT64_C(0x626c6f636b), group);
    while (g->cursor < s->per_group) {
        const uint64_t at = g->first_block + pl_sched_permute(key, s->per_group, g->cursor++);
        if (free_work(s, at)) {
            *block = at;
            return true;
        }
    }
    return false;
}

static uint64_t group_left(const struct pl_sched *s, uint32_t group)
{
    const struct group *g = &s->groups[group];
    uint64_t n = s->per_group - g->cursor;
    for (uint32_t i = 0; i < s->n_back; i++)
        n += pl_plan_block(s->plan, s->back[i]).group == group;
    return n;
}

/* The worker's own group while it has work; else the group with the most blocks a worker that is on
 * it. */
static bool choose(struct pl_sched *s, uint32_t worker, uint64_t *block)
{
    struct worker *w = &s->workers[worker];
    if (w->group != NO_GROUP && able(s, worker, w->group) &&
        (take_back(s, w->group, block) || take_fresh(s, w->group, block)))
        return true;
    for (;;) {
        uint32_t best = NO_GROUP;
        uint64_t most = 0;
        for (uint32_t g = 0; g < s->plan->n_groups; g++) {
            const uint64_t left = able(s, worker, g) ? group_left(s, g) : 0;
            const uint64_t share = left ? 1 + left * 64 / (s->groups[g].workers + 1) : 0;
            if (share > most) {
                most = share;
                best = g;
            }
        }
        if (best == NO_GROUP)
            return false;
        if (take_back(s, best, block) || take_fresh(s, best, block))
            return true;
    }
}

static bool never(const struct pl_sched *s, uint32_t worker)
{
    for (uint32_t g = 0; g < s->plan->n_groups; g++) {
        if (!able(s, worker, g))
            continue;
        if (group_left(s, g) > 0)
            return false;
        for (uint32_t w = 0; w < s->opts.n_workers; w++)
            for (int i = 0; i < PL_SCHED_LEASES; i++)
                if (s->workers[w].leases[i].id &&
                    pl_plan_block(s->plan, s->workers[w].leases[i].block).group == g)
                    return false;
    }
    return true;
}

bool pl_sched_stuck(const struct pl_sched *s)
{
    if (s->counts.left == 0 || s->counts.leases > 0)
        return false;
    for (uint32_t w = 0; w < s->opts.n_workers; w++)
        if (s->workers[w].joined && !never(s, w))
            return false;
    return true;
}

enum pl_granted pl_sched_grant(struct pl_sched *s, uint32_t worker, int64_t now,
                               struct pl_grant *out)
{
    if (s->counts.left == 0)
        return PL_GRANT_FINISHED;
    if (worker >= s->opts.n_workers || !s->workers[worker].joined)
        return PL_GRANT_NEVER;
    struct worker *w = &s->workers[worker];
    struct lease *l = NULL;
    for (int i = 0; i < PL_SCHED_LEASES && !l; i++)
        if (w->leases[i].id == 0)
            l = &w->leases[i];
    uint64_t block;
    if (!l)
        return PL_GRANT_LATER;
    if (!choose(s, worker, &block))
        return never(s, worker) ? PL_GRANT_NEVER : PL_GRANT_LATER;
    *l = (struct lease){.id = s->next_lease++, .block = block, .since = now};
    s->counts.leases++;
    s->counts.granted++;
    *out = (struct pl_grant){.lease = l->id, .block = pl_plan_block(s->plan, block)};
    out->cells = cells_of(s, &out->block);
    out->todo = todo_of(s, &out->cells);
    out->give_up = s->groups[out->block.group].give_up;
    out->again_attempt = s->again_attempt;
    const uint32_t n = pl_cells_count(&out->cells);
    for (uint32_t i = 0; s->again && i < n && !out->has_again; i++)
        out->has_again = pl_bit_get(s->again, row_of(s, &out->cells, i));
    if (w->group != out->block.group) {
        leave_group(s, w);
        w->group = out->block.group;
        s->groups[w->group].workers++;
    }
    return PL_GRANTED;
}

/* ---- leases ---- */

static struct lease *find(const struct pl_sched *s, uint32_t worker, uint64_t lease)
{
    if (worker >= s->opts.n_workers || lease == 0)
        return NULL;
    for (int i = 0; i < PL_SCHED_LEASES; i++)
        if (s->workers[worker].leases[i].id == lease)
            return &s->workers[worker].leases[i];
    return NULL;
}

bool pl_sched_holds(const struct pl_sched *s, uint32_t worker, uint64_t lease)
{
    return find(s, worker, lease) != NULL;
}

bool pl_sched_row(struct pl_sched *s, uint32_t worker, uint64_t lease, uint32_t cell, bool failed)
{
    const struct lease *l = find(s, worker, lease);
    if (l) {
        const struct pl_block b = pl_plan_block(s->plan, l->block);
        const struct pl_cells c = cells_of(s, &b);
        if (cell < pl_cells_count(&c) && !pl_bit_get(s->settled, row_of(s, &c, cell))) {
            settle(s, row_of(s, &c, cell), failed);
            return true;
        }
    }
    s->counts.late++;
    return false;
}

void pl_sched_renew(struct pl_sched *s, uint32_t worker, int64_t now)
{
    for (int i = 0; worker < s->opts.n_workers && i < PL_SCHED_LEASES; i++)
        s->workers[worker].leases[i].since = now;
}

void pl_sched_done(struct pl_sched *s, uint32_t worker, uint64_t lease, bool cannot)
{
    struct lease *l = find(s, worker, lease);
    if (!l)
        return;
    const uint32_t group = pl_plan_block(s->plan, l->block).group;
    give_back(s, l);
    if (cannot) {
        pl_bit_set(s->cannot, cannot_bit(s, worker, group));
        review(s, group);
    }
}

bool pl_sched_expire(struct pl_sched *s, int64_t now, uint32_t *worker, uint64_t *lease)
{
    const int64_t most = s->opts.lease_ns + s->opts.grace_ns;
    for (uint32_t w = 0; w < s->opts.n_workers; w++) {
        for (int i = 0; i < PL_SCHED_LEASES; i++) {
            struct lease *l = &s->workers[w].leases[i];
            if (l->id == 0 || now - l->since <= most)
                continue;
            *worker = w;
            *lease = l->id;
            take_away(s, l);
            s->counts.expired++;
            return true;
        }
    }
    return false;
}

void pl_sched_count(const struct pl_sched *s, struct pl_sched_counts *out)
{
    *out = s->counts;
}

size_t pl_sched_bytes(const struct pl_sched *s)
{
    return s->bytes;
}

uint64_t pl_sched_permute(uint64_t key, uint64_t n, uint64_t i)
{
    unsigned half = 1;
    while (half < 32 && (UINT64_C(1) << 2 * half) < n)
        half++;
    const uint64_t mask = (UINT64_C(1) << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < 4; round++) {
            const uint64_t mixed = left ^ (pl_keyv(key, round, right) & mask);
            left = right;
            right = mixed;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}
