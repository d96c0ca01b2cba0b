#include "orchestrator/resume.h"

#include "data/sample.h"
#include "results/quality.h"
#include "results/reader.h"

#include <stdlib.h>
#include <string.h>

/* ---- a new file ---- */

static void sample_id(void *ctx, uint32_t i, char *out, size_t size)
{
    pl_samples_id(((const struct pl_sweep *)ctx)->list, i, out, size);
}

static uint32_t clamp(uint64_t v, uint32_t least, uint32_t most)
{
    return v < least ? least : v > most ? most : (uint32_t)v;
}

static void log_capacities(const struct pl_sweep *sweep, const struct pl_plan *plan,
                           uint32_t out[PL_LOG_KINDS])
{
    const bool kernels =
        json_is_true(json_object_get(json_object_get(sweep->resolved, "measure"), "kernels"));
    const uint64_t rows = pl_shape_rows(&plan->shape);
    out[PL_LOG_SESSIONS] = 512;
    out[PL_LOG_WORKERS] = 4096;
    out[PL_LOG_LOADS] = clamp(plan->loads * 8 + 1024, 1024, 1u << 17);
    out[PL_LOG_BLOCKS] = clamp(plan->n_blocks * 2 + 1024, 1024, 1u << 20);
    out[PL_LOG_FAILURES] = clamp(rows * 2, 64, 1u << 13);
    out[PL_LOG_CEILINGS] = 4096;
    out[PL_LOG_KERNELS] =
        kernels ? clamp((uint64_t)plan->shape.arms * plan->shape.contexts * 256, 1024, 1u << 20)
                : 1;
    out[PL_LOG_ENERGY] = clamp((uint64_t)plan->shape.arms * plan->shape.contexts, 16, 1u << 16);
}

enum pl_status pl_session_create(const char *path, const struct pl_sweep *sweep,
                                 const struct pl_plan *plan, const json_t *provenance,
                                 struct pl_session *out, struct pl_err *err)
{
    const uint32_t n = plan->shape.arms;
    struct pl_results_spec spec = {.shape = plan->shape,
                                   .contexts = sweep->contexts,
                                   .sample_id = sample_id,
                                   .sample_ctx = (void *)sweep,
                                   .metric_names = pl_quality_names(),
                                   .sample_id_len = pl_samples_id_size(sweep->list),
                                   .sweep_text = sweep->text,
                                   .resolved = sweep->resolved_text,
                                   .sha256 = sweep->sha256,
                                   .provenance = provenance};
    const char **names = calloc(n, sizeof *names), **texts = calloc(n, sizeof *texts);
    enum pl_status st = names && texts ? PL_OK : pl_fail(err, PL_ENOMEM, "%s", path);
    for (uint32_t a = 0; st == PL_OK && a < n; a++) {
        names[a] = pl_sweep_arm_name(sweep, a);
        texts[a] = json_dumps(pl_sweep_arm(sweep, a), JSON_COMPACT);
        if (!texts[a])
            st = pl_fail(err, PL_ENOMEM, "%s", path);
    }
    spec.arm_names = names;
    spec.arm_json = texts;
    log_capacities(sweep, plan, spec.log_capacity);
    if (st == PL_OK)
        st = pl_results_create(path, &spec, err);
    if (st == PL_OK)
        memset(out, 0, sizeof *out);
    for (uint32_t a = 0; texts && a < n; a++)
        free((void *)texts[a]);
    free(texts);
    free(names);
    return st;
}

/* ---- an old one ---- */

enum pl_status pl_session_same(const char *path, const struct pl_sweep *sweep, struct pl_buf *diff,
                               struct pl_err *err)
{
    struct pl_reader *r = NULL;
    enum pl_status st = pl_reader_open(path, &r, err);
    if (st != PL_OK)
        return st;
    if (strcmp(pl_reader_sha256(r), sweep->sha256) != 0) {
        st = pl_sweep_diff(pl_reader_resolved(r), sweep->resolved_text, diff, err);
        if (st == PL_OK)
            st = pl_fail(err, PL_ESWEEP, "%s holds another sweep than %s: nothing was changed",
                         path, sweep->path ? sweep->path : "this one");
    }
    pl_reader_free(r);
    return st;
}

struct walk {
    struct pl_sched *sched;
    bool rerun_failed;
    uint64_t torn;
    uint32_t last_session; /* + 1 */
    bool any;
};

static bool see_row(void *ctx, const struct pl_row_view *v)
{
    struct walk *k = ctx;
    if (v->torn) {
        k->torn++;
        return true;
    }
    if (v->commit.state == PL_ROW_EMPTY)
        return true;
    if ((uint32_t)v->commit.session + 1 > k->last_session)
        k->last_session = (uint32_t)v->commit.session + 1;
    if (v->commit.state == PL_ROW_FAILED && k->rerun_failed)
        pl_sched_again(k->sched, v->index, v->commit.attempt + 1u);
    else
        pl_sched_settled(k->sched, v->index, v->commit.state == PL_ROW_FAILED);
    return true;
}

static enum pl_status see_logs(struct pl_reader *r, struct pl_session *s, uint32_t *last,
                               struct pl_err *err)
{
    for (int k = 0; k < PL_LOG_KINDS; k++) {
        void *records = NULL;
        uint32_t n = 0;
        const enum pl_log_kind kind = (enum pl_log_kind)k;
        const enum pl_status st = pl_reader_log(r, kind, &records, &n, &s->overflow[k], err);
        if (st != PL_OK)
            return st;
        s->slot[k] = n;
        for (uint32_t i = 0; i < n; i++) {
            if (kind == PL_LOG_SESSIONS) {
                const uint32_t number = ((const struct pl_log_session *)records)[i].session + 1u;
                *last = number > *last ? number : *last;
            } else if (kind == PL_LOG_WORKERS) {
                const uint32_t next = ((const struct pl_log_worker *)records)[i].worker + 1;
                s->next_worker = next > s->next_worker ? next : s->next_worker;
            } else if (kind == PL_LOG_LOADS) {
                const uint32_t next = ((const struct pl_log_load *)records)[i].load + 1;
                s->next_load = next > s->next_load ? next : s->next_load;
            }
        }
        free(records);
    }
    return PL_OK;
}

/* Rows of two corpora or two checkpoints must not stand in one table. */
static enum pl_status same_inputs(const char *path, const json_t *old, const json_t *now,
                                  struct pl_err *err)
{
    const char *model;
    json_t *hash;
    const json_t *data = json_object_get(old, "data");
    json_t *weights = json_object_get(old, "weights");
    if (data && !json_equal(data, json_object_get(now, "data")))
        return pl_fail(err, PL_ESWEEP, "the data has changed since %s was begun", path);
    json_object_foreach (weights, model, hash)
        if (!json_equal(hash, json_object_get(json_object_get(now, "weights"), model)))
            return pl_fail(err, PL_ESWEEP, "the weights of %s have changed since %s was begun",
                           model, path);
    return PL_OK;
}

enum pl_status pl_session_resume(const char *path, const struct pl_plan *plan,
                                 const json_t *provenance, bool rerun_failed,
                                 struct pl_sched *sched, struct pl_session *out, struct pl_err *err)
{
    struct pl_reader *r = NULL;
    struct pl_session s = {0};
    struct walk walk = {.sched = sched, .rerun_failed = rerun_failed};
    enum pl_status st = pl_reader_open(path, &r, err);
    if (st != PL_OK)
        return st;
    if (memcmp(pl_reader_shape(r), &plan->shape, sizeof plan->shape) != 0)
        st = pl_fail(err, PL_ESWEEP,
                     "%s was made for other models: layers, rounds or sequences differ", path);
    if (st == PL_OK)
        st = same_inputs(path, pl_reader_provenance(r), provenance, err);
    if (st == PL_OK)
        st = see_logs(r, &s, &walk.last_session, err);
    if (st == PL_OK)
        st = pl_reader_each(r, see_row, &walk, err);
    pl_reader_free(r);
    if (st != PL_OK)
        return st;
    if (walk.last_session > UINT16_MAX)
        return pl_fail(err, PL_ERANGE, "%s: %u sessions", path, walk.last_session);
    s.number = (uint16_t)walk.last_session;
    s.torn = walk.torn;
    *out = s;
    return PL_OK;
}
