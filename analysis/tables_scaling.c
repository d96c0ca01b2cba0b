/* The table over context lengths, in the columns of the published scaling runs. */
#include "analysis/tables.h"

#include "base/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const struct pl_col cols[] = {
    {"exp_id", PL_COL_TEXT, NULL, 0},
    {"model", PL_COL_TEXT, NULL, 0},
    {"arch", PL_COL_TEXT, NULL, 0},
    {"context_length", PL_COL_INT, "context", 0},
    {"latency_ms", PL_COL_TIME, "latency ms", 0},
    {"throughput", PL_COL_TIME, "tokens/s", 0},
    {"max_memory_gb", PL_COL_TIME, "peak GB", 0},
    {"n", PL_COL_INT, "trials", 0},
    {"sd", PL_COL_TIME, NULL, 0},
    {"ci_low", PL_COL_TIME, "95 % from", 0},
    {"ci_high", PL_COL_TIME, "to", 0},
    {"synthetic", PL_COL_BOOL, NULL, 0},
};

/* Where the model is; its name in the sweep where it has no path. */
static const char *model_of(const struct pl_dataset *d, uint32_t arm)
{
    const char *name = pl_json_get_str(pl_reader_arm_json(d->reader, arm), "model", NULL);
    const json_t *models = json_object_get(pl_reader_sweep(d->reader), "models");
    return name ? pl_json_get_str(json_object_get(models, name), "path", name) : NULL;
}

static void row(const struct pl_dataset *d, const struct pl_scaling_point *p, struct pl_table *t)
{
    const struct pl_cell *c = pl_dataset_cell(d, p->arm, p->context);
    int64_t length = pl_reader_context(d->reader, p->context);
    const bool own = length == 0; /* prompts of their own lengths: the mean of them */
    char *id;

    if (own && c->n)
        length = llround(c->prompt_tokens / (double)c->n);
    if (own ? asprintf(&id, "%s-auto", d->arms[p->arm]) < 0
            : asprintf(&id, "%s-%" PRId64, d->arms[p->arm], length) < 0) {
        t->failed = true;
        return;
    }
    pl_table_row(t);
    pl_table_text(t, id);
    pl_table_text(t, model_of(d, p->arm));
    pl_table_text(t, pl_scaling_arch_name(p->arch));
    pl_table_int(t, length);
    pl_table_real(t, p->mean);
    pl_table_real(t, p->throughput);
    if (p->memory_max > 0)
        pl_table_real(t, p->memory_max / 1e9);
    else
        pl_table_null(t, "not measured");
    pl_table_int(t, (int64_t)p->n);
    pl_table_real(t, p->sd);
    pl_table_real(t, p->ci_low);
    pl_table_real(t, p->ci_high);
    pl_table_bool(t, p->synthetic);
    free(id);
}

void pl_table_context_scaling(const struct pl_dataset *d, const struct pl_scaling *s,
                              struct pl_table *t)
{
    pl_table_init(t, pl_table_id_name(PL_TABLE_CONTEXT_SCALING), "Latency and memory over context",
                  cols, sizeof cols / sizeof cols[0]);
    for (size_t i = 0; i < s->n; i++)
        row(d, &s->points[i], t);
    pl_table_note(t, "latency: e2e, of encoders the forward pass; 95 %% interval of its mean, "
                     "prompts resampled");
    pl_table_note(t, d->prefill_mode ? "tokens/s: prompt tokens over that time"
                                     : "tokens/s: generated tokens (encoders: prompt tokens) over "
                                       "that time, prompt included");
    pl_table_note(t, "arch: by the phases that the trials measured");
    pl_tables_label(d, t);
}
