/* The tables of drafting arms: how much was accepted, what that bought, and what would buy more. */
#include "analysis/drafts.h"
#include "analysis/levers.h"
#include "analysis/tables.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define N(cols) (sizeof(cols) / sizeof(cols)[0])

static double over(double a, double b)
{
    return b > 0 ? a / b : NAN;
}

static void shares(const struct pl_draft_cell *c, struct pl_table *t)
{
    double v[PL_DRAFT_POSITIONS];
    size_t n = 0;
    for (; n < PL_DRAFT_POSITIONS && c->drafted_at[n]; n++)
        v[n] = (double)c->accepted_at[n] / (double)c->rounds;
    pl_table_list(t, v, n);
}

static void histogram(const struct pl_draft_cell *c, struct pl_table *t)
{
    double v[PL_DRAFT_POSITIONS];
    size_t n = 0;
    for (size_t i = 0; i < PL_DRAFT_POSITIONS; i++) {
        v[i] = (double)c->accepted_n[i];
        if (c->accepted_n[i])
            n = i + 1;
    }
    pl_table_list(t, v, n);
}

/* ---- acceptance ---- */

static const struct pl_col acceptance_cols[] = {
    {"arm", PL_COL_TEXT, NULL, 0},
    {"context", PL_COL_INT, NULL, 0},
    {"rounds", PL_COL_INT, NULL, 0},
    {"drafted", PL_COL_INT, NULL, 0},
    {"accepted", PL_COL_INT, NULL, 0},
    {"acceptance_rate", PL_COL_SHARE, "accepted %", 0},
    {"mean_length", PL_COL_RATIO, "mean length", 0},
    {"per_position", PL_COL_LIST, "by position", PL_COL_WIDE},
    {"free_tokens", PL_COL_INT, "free tokens", 0},
    {"hidden_prefill_ms", PL_COL_TIME, "hidden ms", 0},
    {"verify_ratio", PL_COL_RATIO, "verify / step", 0},
    {"divergent", PL_COL_INT, NULL, 0},
    {"rate_low", PL_COL_SHARE, "accepted % from", 0},
    {"rate_high", PL_COL_SHARE, "to", 0},
    {"histogram", PL_COL_LIST, NULL, PL_COL_WIDE},
    {"drafted_tps", PL_COL_TIME, "drafted/s", PL_COL_WIDE},
    {"accepted_tps", PL_COL_TIME, "accepted/s", PL_COL_WIDE},
    {"n", PL_COL_INT, "trials", 0},
    {"synthetic", PL_COL_BOOL, NULL, 0},
};

static void acceptance_row(const struct pl_dataset *d, uint32_t arm, uint32_t context,
                           const struct pl_draft_cell *c, struct pl_table *t)
{
    const struct pl_cell *cell = pl_dataset_cell(d, arm, context);
    const struct pl_draft_base b = pl_drafts_base(d, arm, context);
    const double rounds = (double)c->rounds, verify = over(c->verify_us / 1e3, rounds);
    const double seconds = pl_cell_mean(d, cell, PL_METRIC_E2E) * (double)cell->n / 1e3;
    double low, high;
    pl_table_row(t);
    pl_table_text(t, d->arms[arm]);
    pl_table_context(t, pl_reader_context(d->reader, context));
    pl_table_int(t, (int64_t)c->rounds);
    pl_table_int(t, (int64_t)c->drafted);
    pl_table_int(t, (int64_t)c->accepted);
    pl_table_real(t, over((double)c->accepted, (double)c->drafted));
    pl_table_real(t, 1 + over((double)c->accepted, rounds));
    shares(c, t);
    pl_table_int(t, (int64_t)c->free_tokens);
    pl_table_real(t, pl_drafts_hidden_ms(c));
    pl_table_real(t, over(verify, b.step));
    if (cell->compared)
        pl_table_int(t, (int64_t)cell->differing);
    else
        pl_table_null(t, "n/a");
    pl_drafts_acceptance_ci(d, c, &low, &high);
    pl_table_real(t, low);
    pl_table_real(t, high);
    histogram(c, t);
    pl_table_real(t, over((double)c->drafted, seconds));
    pl_table_real(t, over((double)c->accepted, seconds));
    pl_table_int(t, (int64_t)c->trials);
    pl_table_bool(t, cell->synthetic > 0);
}

void pl_table_acceptance(const struct pl_dataset *d, struct pl_table *t)
{
    pl_table_init(t, pl_table_id_name(PL_TABLE_ACCEPTANCE), "Acceptance of drafts", acceptance_cols,
                  N(acceptance_cols));
    for (uint32_t c = 0; c < d->shape.contexts; c++)
        for (uint32_t a = 0; a < d->shape.arms; a++)
            if (pl_drafts_cell(d, a, c))
                acceptance_row(d, a, c, pl_drafts_cell(d, a, c), t);
    pl_table_note(t, "mean length: 1 + accepted / rounds; verify / step: a verification's time in "
                     "the baseline's decode steps");
    pl_table_note(t, "divergent: trials whose tokens are not the baseline's");
    pl_tables_label(d, t);
}

/* ---- speedup_analysis ---- */

static const struct pl_col analysis_cols[] = {
    {"arm", PL_COL_TEXT, NULL, 0},
    {"context", PL_COL_INT, NULL, 0},
    {"drafted", PL_COL_TIME, "drafted a trial", 0},
    {"accepted", PL_COL_TIME, "accepted", 0},
    {"saved", PL_COL_TIME, "steps saved", 0},
    {"step_ms", PL_COL_TIME, "step ms", 0},
    {"saved_ms", PL_COL_TIME, "worth ms", 0},
    {"verify_ms", PL_COL_TIME, "verify ms", 0},
    {"verify_cost_ms", PL_COL_TIME, "beyond a step ms", 0},
    {"draft_ms", PL_COL_TIME, "draft ms", 0},
    {"adapter_ms", PL_COL_TIME, "adapter ms", 0},
    {"wait_ms", PL_COL_TIME, "wait ms", 0},
    {"net_ms", PL_COL_TIME, "net ms", 0},
    {"measured_ms", PL_COL_TIME, "measured ms", 0},
    {"all_accepted_ms", PL_COL_TIME, "if all accepted", 0},
    {"cheap_verify_ms", PL_COL_TIME, "if verify = step", 0},
    {"all_hidden_ms", PL_COL_TIME, "if drafts were hidden", 0},
    {"lever", PL_COL_TEXT, "pays most", 0},
    {"sentence", PL_COL_TEXT, NULL, PL_COL_WIDE},
    {"synthetic", PL_COL_BOOL, NULL, 0},
};

static void analysis_row(const struct pl_dataset *d, const struct pl_levers *l, struct pl_table *t)
{
    char text[PL_LEVERS_TEXT];
    pl_table_row(t);
    pl_table_text(t, d->arms[l->arm]);
    pl_table_context(t, pl_reader_context(d->reader, l->context));
    pl_table_real(t, l->drafted);
    pl_table_real(t, l->accepted);
    pl_table_real(t, l->accepted);
    pl_table_real(t, l->step);
    pl_table_real(t, l->accepted * l->step);
    pl_table_real(t, l->verify);
    pl_table_real(t, l->beyond);
    pl_table_real(t, l->draft);
    pl_table_real(t, l->adapter);
    pl_table_real(t, l->wait);
    pl_table_real(t, l->accepted * l->step - l->beyond - l->all_hidden);
    pl_table_real(t, l->base_e2e - l->e2e);
    pl_table_real(t, l->all_accepted);
    pl_table_real(t, l->cheap_verify);
    pl_table_real(t, l->all_hidden);
    pl_table_text(t, l->largest);
    pl_levers_text(l, text);
    pl_table_text(t, text);
    pl_table_bool(t, pl_dataset_cell(d, l->arm, l->context)->synthetic > 0);
}

void pl_table_speedup_analysis(const struct pl_dataset *d, struct pl_table *t)
{
    pl_table_init(t, pl_table_id_name(PL_TABLE_SPEEDUP_ANALYSIS), "What drafting bought",
                  analysis_cols, N(analysis_cols));
    struct pl_levers l;
    for (size_t i = 0; pl_levers_get(d, i, &l); i++)
        analysis_row(d, &l, t);
    pl_table_note(t, "means a trial; net = worth - verify beyond a step - draft - adapter - wait; "
                     "measured = baseline e2e - arm e2e (prefills included)");
    pl_table_note(t,
                  "the three ifs: ms that each alone would save more: every draft accepted (plain "
                  "steps, then whole rounds), a verification at the price of a step, nothing spent "
                  "on drafting, adapter and waiting");
    pl_tables_label(d, t);
}

/* ---- accept_to_speedup ---- */

static const struct pl_col curve_cols[] = {
    {"arm", PL_COL_TEXT, NULL, 0},
    {"context", PL_COL_INT, NULL, 0},
    {"source", PL_COL_TEXT, NULL, 0},
    {"acceptance_rate", PL_COL_SHARE, "accepted %", 0},
    {"speedup", PL_COL_RATIO, NULL, 0},
    {"ideal_verify", PL_COL_RATIO, "if verify = step", 0},
    {"P_ms", PL_COL_TIME, "P ms", 0},
    {"t_ms", PL_COL_TIME, "t ms", 0},
    {"V_ms", PL_COL_TIME, "V ms", 0},
    {"N", PL_COL_TIME, NULL, 0},
    {"drafted", PL_COL_TIME, NULL, 0},
    {"rounds", PL_COL_TIME, NULL, 0},
    {"verify_steps", PL_COL_RATIO, "verify / step", 0},
    {"synthetic", PL_COL_BOOL, NULL, 0},
};

struct curve {
    double P, t, V, n, drafted, rounds, cut; /* V: all rounds of a trial */
};

/* Accepted at a rate, without what was then cut off. */
static double kept(const struct curve *c, double rate)
{
    const double a = rate * c->drafted, beyond = a + c->rounds - c->n;
    return beyond > 0 && beyond <= c->cut + 1e-9 ? fmax(0, a - beyond) : a;
}

static const double rates[] = {0.21, 0.50, 0.70, 1.00};

static void curve_row(const struct pl_dataset *d, const char *arm, int64_t context,
                      const char *source, double rate, double speedup, const struct curve *c,
                      int synthetic, struct pl_table *t)
{
    const double a = kept(c, rate);
    (void)d;
    pl_table_row(t);
    pl_table_text(t, arm);
    if (context >= 0)
        pl_table_context(t, context);
    else
        pl_table_null(t, NULL);
    pl_table_text(t, source);
    pl_table_real(t, rate);
    pl_table_real(t, speedup);
    pl_table_real(t, pl_drafts_model(c->P, c->t, c->rounds * c->t, c->n, a, c->rounds));
    pl_table_real(t, c->P);
    pl_table_real(t, c->t);
    pl_table_real(t, c->V);
    pl_table_real(t, c->n);
    pl_table_real(t, c->drafted);
    pl_table_real(t, c->rounds);
    pl_table_real(t, over(c->V, c->rounds * c->t));
    if (synthetic < 0)
        pl_table_null(t, NULL);
    else
        pl_table_bool(t, synthetic > 0);
}

static void modelled(const struct pl_dataset *d, const char *arm, int64_t context,
                     const char *source, double rate, const struct curve *c, int synthetic,
                     struct pl_table *t)
{
    curve_row(d, arm, context, source, rate,
              pl_drafts_model(c->P, c->t, c->V, c->n, kept(c, rate), c->rounds), c, synthetic, t);
}

static void curve_of(const struct pl_dataset *d, uint32_t arm, uint32_t context,
                     const struct pl_draft_cell *dc, struct pl_table *t)
{
    const struct pl_cell *cell = pl_dataset_cell(d, arm, context);
    const struct pl_draft_base b = pl_drafts_base(d, arm, context);
    const int64_t length = pl_reader_context(d->reader, context);
    const double n = (double)cell->n;
    const struct curve c = {.P = b.ttft,
                            .t = b.step,
                            .V = pl_drafts_verify_ms(d, cell, dc),
                            .n = b.tokens - 1,
                            .drafted = (double)dc->drafted / n,
                            .rounds = (double)dc->rounds / n,
                            .cut = (double)dc->cut / n};
    const double rate = over((double)dc->accepted, (double)dc->drafted);
    const int synthetic = cell->synthetic > 0;
    curve_row(d, d->arms[arm], length, "measured", rate,
              over(b.e2e, pl_cell_mean(d, cell, PL_METRIC_E2E)), &c, synthetic, t);
    modelled(d, d->arms[arm], length, "model", rate, &c, synthetic, t);
    for (size_t i = 0; i < N(rates); i++)
        modelled(d, d->arms[arm], length, "model", rates[i], &c, synthetic, t);
}

void pl_table_accept_to_speedup(const struct pl_dataset *d, struct pl_table *t)
{
    static const struct curve published = {
        .P = 317, .t = 14, .V = 70, .n = 30, .drafted = 20.9, .rounds = 1};
    pl_table_init(t, pl_table_id_name(PL_TABLE_ACCEPT_TO_SPEEDUP), "What acceptance would buy",
                  curve_cols, N(curve_cols));
    for (uint32_t c = 0; c < d->shape.contexts; c++)
        for (uint32_t a = 0; a < d->shape.arms; a++)
            if (pl_drafts_cell(d, a, c))
                curve_of(d, a, c, pl_drafts_cell(d, a, c), t);
    for (size_t i = 0; t->n_rows > 0 && i < N(rates); i++)
        modelled(d, "published", -1, "published model (verify = 5 decode steps)", rates[i],
                 &published, -1, t);
    pl_table_note(t, "model: S = (P + N t) / (P + V + (N - a - R) t); P the baseline's time to the "
                     "first token, t its step, N its steps, V all verifications of a trial, R its "
                     "rounds, a = accepted %% of drafted");
    pl_table_note(t,
                  "the published model has one round whose verification costs five decode steps; "
                  "drafting itself is free in it");
    pl_tables_label(d, t);
}

/* ---- verify_cost ---- */

static const struct pl_col verify_cols[] = {
    {"arm", PL_COL_TEXT, NULL, 0},
    {"context", PL_COL_INT, NULL, 0},
    {"of", PL_COL_TEXT, NULL, 0},
    {"k", PL_COL_INT, "tokens", 0},
    {"verify_ms", PL_COL_TIME, "verify ms", 0},
    {"sd", PL_COL_TIME, "sd", 0},
    {"step_ms", PL_COL_TIME, "step ms", 0},
    {"verify_steps", PL_COL_RATIO, "verify / step", 0},
    {"n", PL_COL_INT, NULL, 0},
    {"synthetic", PL_COL_BOOL, NULL, 0},
};

static void verify_row(const struct pl_dataset *d, uint32_t arm, uint32_t context, bool all,
                       size_t k, double step, struct pl_table *t)
{
    const struct pl_verify_cost v =
        all ? pl_drafts_verify_all(d, arm, context, k) : pl_drafts_verify(d, arm, context, k);
    if (!v.n)
        return;
    pl_table_row(t);
    pl_table_text(t, d->arms[arm]);
    pl_table_context(t, pl_reader_context(d->reader, context));
    pl_table_text(t, all ? "all its arms" : "arm");
    pl_table_int(t, (int64_t)k);
    pl_table_real(t, v.mean);
    pl_table_real(t, v.sd);
    pl_table_real(t, step);
    pl_table_real(t, over(v.mean, step));
    pl_table_int(t, (int64_t)v.n);
    pl_table_bool(t, pl_dataset_cell(d, arm, context)->synthetic > 0);
}

void pl_table_verify_cost(const struct pl_dataset *d, struct pl_table *t)
{
    pl_table_init(t, pl_table_id_name(PL_TABLE_VERIFY_COST), "What a verification costs",
                  verify_cols, N(verify_cols));
    for (uint32_t c = 0; c < d->shape.contexts; c++)
        for (uint32_t a = 0; a < d->shape.arms; a++) {
            const bool all = pl_drafts_baseline(d, a);
            const double step = (all ? pl_drafts_step(d, a, c) : pl_drafts_base(d, a, c)).step;
            for (size_t k = 1; k <= PL_DRAFT_POSITIONS; k++)
                if (all || pl_drafts_cell(d, a, c))
                    verify_row(d, a, c, all, k, step, t);
        }
    pl_table_note(t,
                  "tokens: those that a verification runs at once, the last accepted one and "
                  "the drafts; a baseline's rows: all arms that draft for it, and its own decode "
                  "step; ideal: 1 step, no gain: as many as tokens");
    pl_tables_label(d, t);
}
