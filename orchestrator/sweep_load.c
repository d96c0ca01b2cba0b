/* A sweep file → the resolved sweep. Every step records its mistakes and goes on, so that all come
 * in one go. */
#include "orchestrator/sweep_batch.h"
#include "orchestrator/sweep_data.h"
#include "orchestrator/sweep_draft.h"
#include "orchestrator/sweep_models.h"
#include "orchestrator/sweep_paths.h"
#include "orchestrator/sweep_prune.h"
#include "orchestrator/sweep_select.h"
#include "orchestrator/sweep_suggest.h"
#include "orchestrator/sweep_tree.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SWEEP_BYTES_MAX (4u << 20)
#define TRIALS_MAX ((uint64_t)1 << 40)

struct loader {
    struct pl_tree t;
    struct pl_models models;
    struct pl_arm_def *arms;
    json_t **arm_json; /* [n_arms] */
    size_t n_arms;
    json_t *root, *data, *grid, *generate, *measure;
};

static void loader_release(struct loader *l)
{
    pl_models_release(&l->models);
    for (size_t i = 0; l->arm_json && i < l->n_arms; i++)
        json_decref(l->arm_json[i]);
    json_decref(l->root);
    json_decref(l->data);
    json_decref(l->grid);
    json_decref(l->generate);
    json_decref(l->measure);
    pl_tree_release(&l->t);
}

static bool is_null(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return !v || json_is_null(v);
}

static bool has_str(const json_t *o, const char *key, const char *value)
{
    return strcmp(pl_json_get_str(o, key, ""), value) == 0;
}

/* --- arms --- */

/* What drafts for an arm: its model must be there, and one of ours. */
static void read_draft(struct loader *l, const struct pl_arm_def *arm, const struct pl_model_def *m,
                       json_t *j, const char *label)
{
    const struct pl_yaml *v = pl_tree_get(arm->map, "draft");
    const char *dir = pl_json_get_str(l->root, "adapter_dir", NULL), *name, *sub;
    json_t *draft;
    struct pl_model_def *d;
    if (!v || !m || !(m->engines & PL_FOR_OWN))
        return;
    draft = pl_tree_draft(&l->t, v, label, dir);
    pl_tree_put(&l->t, j, "draft", draft ? draft : json_null());
    name = pl_json_get_str(draft, "model", NULL);
    sub = pl_arena_printf(&l->t.arena, "%s.draft.model", label);
    if (!name || !sub)
        return;
    d = pl_models_find(&l->models, name);
    if (!d)
        pl_models_none(&l->t, &l->models, pl_tree_at(v, "model"), sub, name);
    else if (!(d->engines & PL_FOR_OWN))
        pl_tree_mistake(&l->t, pl_tree_at(v, "model"),
                        "%s is \"%s\", expected a model of our own runner", sub, name);
}

/* The simulated engine's drafting keys: the arm's, else its model's, else the defaults; they mean
 * something together only. */
static void resolve_drafting(struct loader *l, const struct pl_model_def *m,
                             const struct pl_arm_def *arm, json_t *j, const char *label)
{
    static const char *const keys[] = {"gamma", "draft_us", "verify_us"};
    json_t *accept = json_object_get(j, "acceptance");
    if (json_is_null(accept))
        accept = json_object_get(m->json, "acceptance");
    if (!accept || json_is_null(accept)) {
        for (size_t i = 0; i < 3; i++)
            if (pl_tree_get(arm->map, keys[i]))
                pl_tree_mistake(&l->t, pl_tree_at(arm->map, keys[i]),
                                "%s.%s is given without acceptance, expected both or none", label,
                                keys[i]);
        return;
    }
    json_object_set(j, "acceptance", accept);
    for (size_t i = 0; i < 3; i++) {
        json_t *v = json_object_get(j, keys[i]);
        if (json_is_null(v))
            v = json_object_get(m->json, keys[i]);
        if (v && !json_is_null(v))
            json_object_set(j, keys[i], v);
        else if (i == 0)
            pl_tree_put(&l->t, j, keys[i], json_integer(1));
        else
            pl_tree_put(&l->t, j, keys[i],
                        json_real(i == 1 ? 0 : pl_json_get_f64(m->json, "decode_us", 0)));
    }
}

static void read_arm(struct loader *l, size_t i)
{
    struct pl_tree *t = &l->t;
    const struct pl_arm_def *arm = &l->arms[i];
    const struct pl_yaml *v = pl_tree_get(arm->map, "model");
    struct pl_model_def *m = NULL;
    char *label = pl_arena_printf(&t->arena, "arms.%s", arm->name), *sub;
    json_t *keys, *j = json_object();
    if (!label || !j) {
        t->no_memory = true;
        json_decref(j);
        return;
    }
    if (v && v->kind == PL_YAML_SCALAR && v->text[0]) {
        m = pl_models_find(&l->models, v->text);
        sub = pl_arena_printf(&t->arena, "%s.model", label);
        if (!m && sub && l->models.n)
            pl_models_none(&l->t, &l->models, v, sub, v->text);
    }
    keys = pl_tree_section(t, arm->map, PL_SECTION_ARM, m ? m->engines : PL_FOR_ALL, label);
    pl_tree_put(&l->t, j, "name", json_string(arm->name));
    if (json_object_update(j, keys) != 0)
        t->no_memory = true;
    json_decref(keys);
    read_draft(l, arm, m, j, label);
    if (m && (m->engines & PL_FOR_REAL) && m->engines != PL_FOR_ALL)
        pl_tree_prune(t, arm->map, j, label);
    if (m && m->engines == PL_FOR_SIM) {
        pl_tree_fail(&l->t, arm->map, j, label);
        resolve_drafting(l, m, arm, j, label);
    }
    pl_batch_check(t, arm->map, j, label);
    l->arm_json[i] = j;
}

static void read_arms(struct loader *l, const struct pl_yaml *arms)
{
    struct pl_tree *t = &l->t;
    if (!arms)
        return;
    if (arms->kind != PL_YAML_MAP || arms->n == 0) {
        pl_tree_mistake(t, arms, "arms is %s, expected a map of arms by name",
                        arms->kind == PL_YAML_MAP ? "an empty map" : pl_tree_show(t, arms));
        return;
    }
    l->n_arms = pl_tree_arms(t, arms, &l->arms);
    l->arm_json = pl_arena_calloc(&t->arena, l->n_arms + 1, sizeof(json_t *));
    if (!l->arm_json) {
        t->no_memory = true;
        l->n_arms = 0;
    }
    for (size_t i = 0; i < l->n_arms; i++)
        read_arm(l, i);
}

static size_t find_arm(const struct loader *l, const char *name)
{
    size_t i = 0;
    while (i < l->n_arms && strcmp(l->arms[i].name, name) != 0)
        i++;
    return i;
}

static void no_such_arm(struct loader *l, const struct pl_yaml *at, const char *label,
                        const char *name)
{
    struct pl_suggest s;
    pl_suggest_init(&s, name);
    for (size_t i = 0; i < l->n_arms; i++)
        pl_suggest_offer(&s, l->arms[i].name);
    pl_tree_mistake(&l->t, at, "%s is \"%s\", expected an arm of this sweep%s%s", label, name,
                    s.best ? ", did you mean " : "", s.best ? s.best : "");
}

/* Every arm gets its baseline written out; all of them must be arms. */
static void resolve_baselines(struct loader *l)
{
    struct pl_tree *t = &l->t;
    const struct pl_yaml *at = pl_tree_at(t->root, "baseline");
    const char *base = pl_json_get_str(l->root, "baseline", NULL);
    bool needed = false;
    if (base && l->n_arms && find_arm(l, base) == l->n_arms) {
        no_such_arm(l, at, "baseline", base);
        return;
    }
    if (!base && l->n_arms == 1)
        base = l->arms[0].name;
    for (size_t i = 0; i < l->n_arms; i++) {
        json_t *arm = l->arm_json[i];
        const char *own = pl_json_get_str(arm, "baseline", NULL);
        char *label = pl_arena_printf(&t->arena, "arms.%s.baseline", l->arms[i].name);
        if (own && label && find_arm(l, own) == l->n_arms)
            no_such_arm(l, pl_tree_at(l->arms[i].map, "baseline"), label, own);
        else if (!own && base)
            pl_tree_put(&l->t, arm, "baseline", json_string(base));
        else if (!own)
            needed = true;
    }
    if (needed && !pl_tree_get(t->root, "baseline"))
        pl_tree_mistake(t, t->root,
                        "baseline is missing, expected an arm that others are compared with");
    else if (base)
        pl_tree_put(&l->t, l->root, "baseline", json_string(base));
}

/* --- the rest --- */

static void check_sections(struct loader *l)
{
    struct pl_tree *t = &l->t;
    const struct pl_yaml *generate = pl_tree_get(t->root, "generate");
    bool real = false, simulated = false;
    double temperature = pl_json_get_f64(l->generate, "temperature", 0);
    for (size_t i = 0; i < l->models.n; i++) {
        const struct pl_model_def *m = &l->models.defs[i];
        simulated = simulated || (m->used && m->engines == PL_FOR_SIM);
        real =
            real || (m->used && (m->engines & PL_FOR_REAL) && !has_str(m->json, "device", "cuda"));
    }
    if (json_is_true(json_object_get(l->measure, "kernels")) && (real || simulated))
        pl_tree_mistake(t, pl_tree_at(pl_tree_get(t->root, "measure"), "kernels"),
                        "measure.kernels is true, expected device: cuda of every model: times of "
                        "kernels are a GPU's");
    if (simulated && temperature > 0)
        pl_tree_mistake(t, pl_tree_at(generate, "temperature"),
                        "generate.temperature is %g, expected 0: a simulated model draws no tokens",
                        temperature);
    if (is_null(l->measure, "exclusive"))
        pl_tree_put(&l->t, l->measure, "exclusive", json_string(real ? "node" : "none"));
    if (is_null(l->root, "name")) {
        const char *slash = strrchr(t->path, '/'), *base = slash ? slash + 1 : t->path;
        const char *dot = strrchr(base, '.');
        pl_tree_put(&l->t, l->root, "name",
                    json_stringn(base, dot && dot > base ? (size_t)(dot - base) : strlen(base)));
    }
}

/* generate.tokens as a map becomes a list beside grid.contexts. What stands in it for other
 * contexts does no harm: --contexts may have left them out. */
static void resolve_tokens(struct loader *l)
{
    const json_t *by = json_object_get(l->generate, "tokens"), *v;
    const json_t *contexts = json_object_get(l->grid, "contexts");
    json_t *list;
    size_t i;
    if (!json_is_object(by))
        return;
    list = json_array();
    json_array_foreach (contexts, i, v) {
        char key[24];
        json_t *n;
        snprintf(key, sizeof key, "%lld", (long long)json_integer_value(v));
        n = json_object_get(by, key);
        if (!n)
            pl_tree_mistake(&l->t, pl_tree_at(pl_tree_get(l->t.root, "generate"), "tokens"),
                            "generate.tokens has no number for context %s, expected one for each "
                            "of grid.contexts",
                            key);
        else if (json_array_append(list, n) != 0)
            l->t.no_memory = true;
    }
    pl_tree_put(&l->t, l->generate, "tokens", list);
}

static void check_size(struct loader *l)
{
    uint64_t factors[4] = {l->n_arms, json_array_size(json_object_get(l->grid, "contexts")),
                           (uint64_t)pl_json_get_i64(l->grid, "samples", 1),
                           (uint64_t)pl_json_get_i64(l->grid, "repeats", 1)};
    uint64_t rows = 1;
    for (size_t i = 0; i < 4; i++)
        if (factors[i] && rows <= TRIALS_MAX)
            rows *= factors[i];
    if (rows > TRIALS_MAX)
        pl_tree_mistake(&l->t, pl_tree_at(l->t.root, "grid"),
                        "the grid has more trials than a results file can hold, expected at most "
                        "%" PRIu64,
                        TRIALS_MAX);
}

static void mark_used(struct loader *l, const bool *chosen)
{
    for (size_t i = 0; i < l->n_arms; i++) {
        json_t *draft = json_object_get(l->arm_json[i], "draft");
        struct pl_model_def *of[2] = {
            pl_models_find(&l->models, pl_json_get_str(l->arm_json[i], "model", "")),
            pl_models_find(&l->models, pl_json_get_str(draft, "model", ""))};
        if (chosen[i] && json_is_object(draft))
            pl_tree_draft_weights(&l->t, draft, pl_tree_get(l->arms[i].map, "draft"),
                                  pl_arena_printf(&l->t.arena, "arms.%s", l->arms[i].name),
                                  pl_json_get_str(l->root, "adapter_dir", NULL));
        if (chosen[i])
            pl_tree_prune_paths(&l->t, l->arms[i].map, l->arm_json[i],
                                pl_arena_printf(&l->t.arena, "arms.%s", l->arms[i].name));
        for (int k = 0; k < 2; k++) {
            if (!of[k] || of[k]->used || !chosen[i])
                continue;
            of[k]->used = true;
            pl_models_check_used(&l->t, &l->models, of[k]);
        }
    }
}

static json_t *assemble(struct loader *l, const bool *chosen)
{
    json_t *out = json_object(), *models = json_object(), *arms = json_array();
    const char *base = pl_json_get_str(l->root, "baseline", NULL);
    size_t at = base ? find_arm(l, base) : l->n_arms;
    for (size_t i = 0; i < l->models.n; i++) {
        json_t *m = l->models.defs[i].json;
        if (!l->models.defs[i].used)
            continue;
        json_object_del(m, "acceptance"); /* the arms have them */
        json_object_del(m, "gamma");
        json_object_del(m, "draft_us");
        json_object_del(m, "verify_us");
        pl_tree_put(&l->t, models, l->models.defs[i].name, json_incref(m));
    }
    for (size_t i = 0; i < l->n_arms; i++) {
        if (!chosen[i])
            continue;
        if (at == l->n_arms || !chosen[at]) /* not selected: the first arm's stands in */
            at = find_arm(l, pl_json_get_str(l->arm_json[i], "baseline", ""));
        if (json_array_append(arms, l->arm_json[i]) != 0)
            l->t.no_memory = true;
    }
    pl_tree_put(&l->t, out, "name", json_incref(json_object_get(l->root, "name")));
    pl_tree_put(&l->t, out, "seed", json_incref(json_object_get(l->root, "seed")));
    pl_tree_put(&l->t, out, "data", json_incref(l->data));
    pl_tree_put(&l->t, out, "models", models);
    pl_tree_put(&l->t, out, "arms", arms);
    pl_tree_put(&l->t, out, "baseline",
                at < l->n_arms ? json_string(l->arms[at].name) : json_null());
    pl_tree_put(&l->t, out, "grid", json_incref(l->grid));
    pl_tree_put(&l->t, out, "generate", json_incref(l->generate));
    pl_tree_put(&l->t, out, "measure", json_incref(l->measure));
    return out;
}

/* A batch of more sequences than there are samples, or than the last group has, holds some twice.
 */
static void note_short_groups(struct loader *l, const bool *chosen, struct pl_problems *notes)
{
    uint64_t samples = (uint64_t)pl_json_get_i64(l->grid, "samples", 0);
    for (size_t i = 0; i < l->n_arms && l->t.n_mistakes == 0 && samples; i++) {
        uint64_t n = pl_arm_sequences(l->arm_json[i]);
        if (chosen[i] && samples % n)
            pl_problems_add(notes,
                            "arms.%s runs %" PRIu64 " sequences a trial and %" PRIu64
                            " samples are no multiple of that: the last trials hold a sample more "
                            "than once",
                            l->arms[i].name, n, samples);
    }
}

static json_t *read_all(struct loader *l, const struct pl_select *sel, struct pl_problems *notes)
{
    struct pl_tree *t = &l->t;
    const struct pl_yaml *data;
    bool *chosen;
    if (sel)
        pl_select_edit(t, sel);
    l->root = pl_tree_section(t, t->root, PL_SECTION_ROOT, PL_FOR_ALL, "");
    pl_tree_adapter_dir(t, l->root, pl_tree_at(t->root, "adapter_dir"));
    if (t->root->kind != PL_YAML_MAP)
        return NULL;
    data = pl_tree_get(t->root, "data");
    l->data = pl_tree_section(t, data, PL_SECTION_DATA, PL_FOR_ALL, "data");
    pl_models_read(t, pl_tree_get(t->root, "models"), &l->models);
    read_arms(l, pl_tree_get(t->root, "arms"));
    l->grid = pl_tree_section(t, pl_tree_get(t->root, "grid"), PL_SECTION_GRID, PL_FOR_ALL, "grid");
    l->generate = pl_tree_section(t, pl_tree_get(t->root, "generate"), PL_SECTION_GENERATE,
                                  PL_FOR_ALL, "generate");
    l->measure = pl_tree_section(t, pl_tree_get(t->root, "measure"), PL_SECTION_MEASURE, PL_FOR_ALL,
                                 "measure");
    resolve_baselines(l);
    chosen = pl_arena_calloc(&t->arena, l->n_arms + 1, sizeof *chosen);
    if (!chosen || t->no_memory) {
        t->no_memory = true;
        return NULL;
    }
    pl_select_arms(t, sel, l->arm_json, l->n_arms, chosen, notes);
    mark_used(l, chosen);
    pl_sweep_check_data(t, l->data, l->grid);
    check_sections(l);
    resolve_tokens(l);
    check_size(l);
    for (size_t i = 0; i < l->models.n && t->n_mistakes == 0; i++)
        if (!l->models.defs[i].used && !(sel && sel->arms))
            pl_problems_add(notes, "models.%s is used by no arm", l->models.defs[i].name);
    note_short_groups(l, chosen, notes);
    return t->n_mistakes || t->no_memory ? NULL : assemble(l, chosen);
}

/* Where the file has each arm, for what is found out later. */
static bool keep_places(const struct loader *l, struct pl_sweep *s)
{
    s->places = calloc(s->n_arms, sizeof *s->places);
    for (uint32_t i = 0; s->places && i < s->n_arms; i++) {
        size_t at = find_arm(l, pl_sweep_arm_name(s, i));
        if (at < l->n_arms && l->arms[at].key->line > 0) {
            s->places[i][0] = l->arms[at].key->line;
            s->places[i][1] = l->arms[at].key->column;
        }
    }
    return s->places != NULL;
}

enum pl_status pl_sweep_load(const char *path, const struct pl_select *sel, struct pl_sweep **out,
                             struct pl_problems *problems, struct pl_err *err)
{
    struct loader l = {.t = {.path = path}};
    struct pl_problems notes = {0};
    struct pl_buf text;
    struct pl_sweep *s = NULL;
    json_t *resolved = NULL;
    size_t n;
    enum pl_status st;
    pl_arena_init(&l.t.arena);
    pl_buf_init(&text, SWEEP_BYTES_MAX);
    st = pl_read_file(path, SWEEP_BYTES_MAX, &text, err);
    if (st != PL_OK)
        goto out;
    st = pl_yaml_parse(path, text.data ? text.data : "", text.len, &l.t.arena, &l.t.root, err);
    if (st == PL_ESWEEP) {
        pl_problems_add(problems, "%s", err ? err->text : "");
        st = pl_fail(err, PL_ESWEEP, "%s: 1 mistake", path);
    }
    if (st != PL_OK)
        goto out;
    resolved = read_all(&l, sel, &notes);
    n = pl_tree_report(&l.t, problems);
    if (n)
        st = pl_fail(err, PL_ESWEEP, "%s: %zu mistake%s", path, n, n == 1 ? "" : "s");
    else if (!resolved || l.t.no_memory)
        st = pl_fail(err, PL_ENOMEM, "%s: no memory for the sweep", path);
    if (st == PL_OK)
        st = pl_sweep_from_json(resolved, &s, err);
    if (st != PL_OK)
        goto out;
    s->path = strdup(path);
    s->text = strndup(text.data, text.len);
    s->text_len = text.len;
    if (!s->path || !s->text || !keep_places(&l, s)) {
        st = pl_fail(err, PL_ENOMEM, "%s: no memory for the sweep", path);
        goto out;
    }
    for (size_t i = 0; i < notes.n; i++)
        pl_problems_add(problems, "%s", notes.items[i]);
    *out = s;
    s = NULL;
out:
    pl_sweep_free(s);
    json_decref(resolved);
    pl_problems_release(&notes);
    pl_buf_release(&text);
    loader_release(&l);
    return st;
}
