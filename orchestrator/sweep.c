#include "orchestrator/sweep.h"

#include "base/hash.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void pl_sweep_free(struct pl_sweep *s)
{
    if (!s)
        return;
    pl_samples_free(s->list);
    json_decref(s->resolved);
    json_decref(s->work);
    json_decref(s->engines);
    free(s->resolved_text);
    free(s->contexts);
    free(s->tokens_at);
    free(s->places);
    free(s->path);
    free(s->text);
    free(s);
}

/* resolved_text and sha256 from `resolved`. */
static enum pl_status seal(struct pl_sweep *s, struct pl_err *err)
{
    struct pl_buf b;
    char *text = NULL;
    enum pl_status st;
    pl_buf_init(&b, 64u << 20);
    st = pl_json_dump(s->resolved, &b, err);
    if (st == PL_OK && !(text = strndup(b.data, b.len)))
        st = pl_fail(err, PL_ENOMEM, "no memory for the resolved sweep");
    if (st == PL_OK) {
        free(s->resolved_text);
        s->resolved_text = text;
        pl_sha256_hex(b.data, b.len, s->sha256);
    }
    pl_buf_release(&b);
    return st;
}

static enum pl_status count_in(const json_t *o, const char *key, int64_t min, int64_t max,
                               uint32_t *out, struct pl_err *err)
{
    int64_t n = 0;
    enum pl_status st = pl_json_i64(o, key, min - 1, &n, err);
    if (st == PL_OK && (n < min || n > max))
        st = pl_fail(err, PL_EFORMAT,
                     "%s is missing or out of range, expected %" PRId64 " to %" PRId64, key, min,
                     max);
    if (st == PL_OK)
        *out = (uint32_t)n;
    return st;
}

static enum pl_status check_arms(struct pl_sweep *s, struct pl_err *err)
{
    const json_t *arms = json_object_get(s->resolved, "arms");
    size_t n = json_array_size(arms);
    if (n < 1 || n > UINT16_MAX)
        return pl_fail(err, PL_EFORMAT, "arms is not a list of 1 to 65535 arms");
    s->n_arms = (uint32_t)n;
    s->batch = 1;
    for (uint32_t i = 0; i < n; i++) {
        const json_t *arm = json_array_get(arms, i);
        const char *name = pl_json_get_str(arm, "name", NULL);
        const char *model = pl_json_get_str(arm, "model", NULL);
        if (!name || !model)
            return pl_fail(err, PL_EFORMAT, "arm %" PRIu32 " has no name or no model", i);
        if (!json_is_object(pl_sweep_model(s, model)))
            return pl_fail(err, PL_EFORMAT, "arm %s names the model %s, which is not there", name,
                           model);
        if (pl_sweep_baseline_of(s, i) < 0)
            return pl_fail(err, PL_EFORMAT, "arm %s has no baseline among the arms", name);
        if (pl_arm_sequences(arm) > s->batch)
            s->batch = pl_arm_sequences(arm);
    }
    return PL_OK;
}

static enum pl_status check_grid(struct pl_sweep *s, struct pl_err *err)
{
    const json_t *grid = json_object_get(s->resolved, "grid");
    const json_t *contexts = json_object_get(grid, "contexts");
    size_t n = json_array_size(contexts);
    enum pl_status st;
    if (n < 1 || n > UINT16_MAX)
        return pl_fail(err, PL_EFORMAT, "grid.contexts is not a list of 1 to 65535 numbers");
    s->n_contexts = (uint32_t)n;
    s->contexts = calloc(n, sizeof *s->contexts);
    if (!s->contexts)
        return pl_fail(err, PL_ENOMEM, "no memory for %zu contexts", n);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(contexts, i);
        const bool own = n == 1 && json_is_string(v) && strcmp(json_string_value(v), "auto") == 0;
        s->contexts[i] = own ? PL_CONTEXT_AUTO : json_integer_value(v);
        if (!own && (s->contexts[i] < 1 || s->contexts[i] > INT32_MAX))
            return pl_fail(err, PL_EFORMAT, "grid.contexts holds what is not a length");
    }
    st = count_in(grid, "samples", 0, UINT32_MAX, &s->samples, err);
    if (st == PL_OK)
        st = count_in(grid, "repeats", 1, UINT16_MAX, &s->repeats, err);
    return st;
}

/* One number for all contexts, or a list beside them. */
static enum pl_status check_tokens(struct pl_sweep *s, struct pl_err *err)
{
    const json_t *v = json_object_get(json_object_get(s->resolved, "generate"), "tokens");
    bool list = json_is_array(v);
    s->tokens_at = calloc(s->n_contexts, sizeof *s->tokens_at);
    if (!s->tokens_at)
        return pl_fail(err, PL_ENOMEM, "no memory for %" PRIu32 " contexts", s->n_contexts);
    if (list && json_array_size(v) != s->n_contexts)
        return pl_fail(err, PL_EFORMAT, "generate.tokens is a list of %zu for %" PRIu32 " contexts",
                       json_array_size(v), s->n_contexts);
    for (uint32_t i = 0; i < s->n_contexts; i++) {
        const json_t *n = list ? json_array_get(v, i) : v;
        if (!json_is_integer(n) || json_integer_value(n) < 1 || json_integer_value(n) > 1 << 20)
            return pl_fail(err, PL_EFORMAT,
                           "generate.tokens is missing or out of range, expected 1 to %d", 1 << 20);
        s->tokens_at[i] = (uint32_t)json_integer_value(n);
        if (s->tokens_at[i] > s->tokens)
            s->tokens = s->tokens_at[i];
    }
    return PL_OK;
}

enum pl_status pl_sweep_from_json(const json_t *resolved, struct pl_sweep **out, struct pl_err *err)
{
    struct pl_sweep *s = calloc(1, sizeof *s);
    enum pl_status st = PL_OK;
    if (!s)
        return pl_fail(err, PL_ENOMEM, "no memory for the sweep");
    s->resolved = json_deep_copy(resolved);
    if (!json_is_object(s->resolved))
        st = pl_fail(err, PL_EFORMAT, "the resolved sweep is not a JSON object");
    if (st == PL_OK)
        st = check_arms(s, err);
    if (st == PL_OK)
        st = check_grid(s, err);
    if (st == PL_OK)
        st = check_tokens(s, err);
    if (st == PL_OK && !json_is_object(json_object_get(s->resolved, "data")))
        st = pl_fail(err, PL_EFORMAT, "data is missing");
    if (st == PL_OK) {
        s->seed = (uint64_t)pl_json_get_i64(s->resolved, "seed", 1);
        st = seal(s, err);
    }
    if (st != PL_OK) {
        pl_sweep_free(s);
        return pl_err_prefix(err, st, "resolved sweep");
    }
    *out = s;
    return PL_OK;
}

enum pl_status pl_sweep_open_samples(struct pl_sweep *s, struct pl_err *err)
{
    struct pl_samples *list = NULL;
    enum pl_status st = pl_samples_open(json_object_get(s->resolved, "data"), s->seed, s->contexts,
                                        s->n_contexts, s->samples, &list, err);
    if (st != PL_OK)
        return st;
    if (s->samples == 0) {
        json_t *n = json_integer(pl_samples_count(list));
        if (!n || json_object_set_new(json_object_get(s->resolved, "grid"), "samples", n) != 0)
            st = pl_fail(err, PL_ENOMEM, "no memory for the resolved sweep");
        else
            st = seal(s, err);
    }
    if (st != PL_OK) {
        pl_samples_free(list);
        return st;
    }
    pl_samples_free(s->list);
    s->list = list;
    s->samples = pl_samples_count(list);
    return PL_OK;
}

const json_t *pl_sweep_arm(const struct pl_sweep *s, uint32_t arm)
{
    return json_array_get(json_object_get(s->resolved, "arms"), arm);
}

const char *pl_sweep_arm_name(const struct pl_sweep *s, uint32_t arm)
{
    return pl_json_get_str(pl_sweep_arm(s, arm), "name", "");
}

int pl_sweep_baseline_of(const struct pl_sweep *s, uint32_t arm)
{
    const char *base = pl_json_get_str(pl_sweep_arm(s, arm), "baseline", NULL);
    for (uint32_t i = 0; base && i < s->n_arms; i++)
        if (strcmp(pl_sweep_arm_name(s, i), base) == 0)
            return (int)i;
    return -1;
}

const json_t *pl_sweep_model(const struct pl_sweep *s, const char *name)
{
    return json_object_get(json_object_get(s->resolved, "models"), name);
}

static uint32_t count_of(const json_t *arm, const char *key, uint32_t dflt)
{
    int64_t n = pl_json_get_i64(arm, key, dflt);
    return n < 1 ? 1 : n > UINT16_MAX + 1 ? UINT16_MAX + 1 : (uint32_t)n;
}

uint32_t pl_arm_slots(const json_t *arm)
{
    uint32_t clients = count_of(arm, "concurrency", 1);
    return clients > 1 ? clients : count_of(arm, "batch", 1);
}

uint32_t pl_arm_sequences(const json_t *arm)
{
    uint32_t slots = pl_arm_slots(arm);
    return count_of(arm, "concurrency", 1) > 1 ? count_of(arm, "requests", slots) : slots;
}

double pl_sweep_measure_f64(const struct pl_sweep *s, const char *key, double dflt)
{
    return pl_json_get_f64(json_object_get(s->resolved, "measure"), key, dflt);
}
