#include "analysis/limits.h"

#include "base/json.h"

#include <math.h>

/* What the runner said a trial of the arm must do, 0: nothing. */
static double work_of(const struct pl_dataset *d, uint32_t arm, uint32_t context, const char *key)
{
    const json_t *work = json_object_get(pl_reader_provenance(d->reader), "work");
    const json_t *at =
        json_array_get(json_object_get(work, pl_reader_arm(d->reader, arm)), context);
    return pl_json_get_f64(at, key, 0);
}

/* Tokens that a trial is asked for: one number, or a list beside the contexts. */
static double asked_tokens(const struct pl_dataset *d, uint32_t context)
{
    const json_t *v =
        json_object_get(json_object_get(pl_reader_sweep(d->reader), "generate"), "tokens");
    return json_is_array(v) ? (double)json_integer_value(json_array_get(v, context))
                            : (double)json_integer_value(v);
}

double pl_limit_step_bytes(const struct pl_dataset *d, uint32_t arm, uint32_t context)
{
    const double steps = asked_tokens(d, context) - 1;

    return steps > 0 ? work_of(d, arm, context, "decode_bytes") / steps : 0;
}

/* Σ work / Σ (time · ceiling) over the trials whose device has a ceiling. */
double pl_limit_pct(const struct pl_dataset *d, uint32_t arm, uint32_t context, enum pl_metric m)
{
    const struct pl_cell *c = pl_dataset_cell(d, arm, context);
    const bool reads = m == PL_METRIC_DECODE || m == PL_METRIC_TPOT || m == PL_METRIC_DECODE_TPS;
    const enum pl_metric phase = reads ? PL_METRIC_DECODE : m;
    const enum pl_metric computes =
        pl_cell_has(d, c, PL_METRIC_ENCODE) ? PL_METRIC_ENCODE : PL_METRIC_PREFILL;
    const double work = work_of(d, arm, context, reads ? "decode_bytes" : "prefill_flop");
    const double steps = asked_tokens(d, context) - 1;
    double done = 0, most = 0;

    if (!(work > 0) || (!reads && m != computes))
        return NAN;
    /* A step of several sequences reads the weights once for all, and in a loop prompts and steps
     * share forwards: what is known of one sequence says nothing then. */
    if (c->clients || (reads && c->sequences > 1))
        return NAN;
    for (size_t i = 0; i < c->n; i++) {
        const struct pl_place *p = &d->places[c->place[i]];
        const double ms = pl_cell_value(d, c, phase, i);
        const double rate = reads ? p->read_bytes_per_s : p->flop_per_s;
        if (!isfinite(ms) || !(rate > 0))
            continue;
        /* fewer steps where the end of the text was reached: nearly in proportion */
        done += reads ? work * ((double)c->generated[i] - 1) / steps : work * c->sequences;
        most += ms / 1e3 * rate;
    }
    return most > 0 ? 100 * done / most : NAN;
}
