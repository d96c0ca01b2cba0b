#include "orchestrator/sweep_models.h"

#include "orchestrator/sweep_paths.h"
#include "orchestrator/sweep_suggest.h"

#include <string.h>

void pl_models_release(struct pl_models *models)
{
    for (size_t i = 0; i < models->n; i++)
        json_decref(models->defs[i].json);
}

/* What `engine:` says: whose model it is; the JSON of the engine (NULL: our own). */
static unsigned read_engine(struct pl_tree *t, const struct pl_yaml *v, const char *label,
                            json_t **engine)
{
    struct pl_suggest s;
    const char *sub = pl_arena_printf(&t->arena, "%s.engine", label);
    if (!v)
        return PL_FOR_OWN;
    if (v->kind == PL_YAML_MAP && sub) {
        *engine = pl_tree_section(t, v, PL_SECTION_ENGINE, PL_FOR_ALL, sub);
        return PL_FOR_EXEC;
    }
    if (v->kind == PL_YAML_SCALAR && strcmp(v->text, "sim") == 0) {
        *engine = json_string("sim");
        return PL_FOR_SIM;
    }
    pl_suggest_init(&s, v->kind == PL_YAML_SCALAR ? v->text : "");
    pl_suggest_offer(&s, "sim");
    pl_tree_mistake(t, v, "%s.engine is %s, expected sim or {exec: [ARGV…], ids_from: MODEL}%s%s",
                    label, pl_tree_show(t, v), s.best ? ", did you mean " : "",
                    s.best ? s.best : "");
    return PL_FOR_ALL;
}

void pl_tree_fail(struct pl_tree *t, const struct pl_yaml *map, json_t *o, const char *label)
{
    const struct pl_yaml *v = pl_tree_get(map, "fail");
    const char *sub = pl_arena_printf(&t->arena, "%s.fail", label);
    pl_tree_put(t, o, "fail",
                v && sub ? pl_tree_section(t, v, PL_SECTION_FAIL, PL_FOR_ALL, sub) : json_null());
}

static void read_model(struct pl_tree *t, struct pl_model_def *m)
{
    static const char *const types[] = {"dtype", "kv"};
    char *label = pl_arena_printf(&t->arena, "models.%s", m->name);
    json_t *engine = NULL, *own;
    if (!label) {
        t->no_memory = true;
        return;
    }
    m->engines = read_engine(t, pl_tree_get(m->map, "engine"), label, &engine);
    own = pl_tree_section(t, m->map, PL_SECTION_MODEL, m->engines, label);
    m->json = json_object();
    pl_tree_put(t, m->json, "engine", engine ? engine : json_null());
    if (!m->json || json_object_update(m->json, own) != 0)
        t->no_memory = true;
    json_decref(own);
    if (m->engines == PL_FOR_SIM)
        pl_tree_fail(t, m->map, m->json, label);
    /* "auto" and nothing said are the same sweep. */
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(pl_json_get_str(m->json, types[i], ""), "auto") == 0)
            pl_tree_put(t, m->json, types[i], json_null());
    if (m->engines == PL_FOR_OWN && !pl_tree_get(m->map, "path"))
        pl_tree_mistake(t, m->map, "%s.path is missing, expected a model's directory, or an engine",
                        label);
}

void pl_models_read(struct pl_tree *t, const struct pl_yaml *models, struct pl_models *out)
{
    if (!models)
        return;
    if (models->kind != PL_YAML_MAP || models->n == 0) {
        pl_tree_mistake(t, models, "models is %s, expected a map of models by name",
                        models->kind == PL_YAML_MAP ? "an empty map" : pl_tree_show(t, models));
        return;
    }
    out->defs = pl_arena_calloc(&t->arena, models->n, sizeof *out->defs);
    if (!out->defs) {
        t->no_memory = true;
        return;
    }
    for (size_t i = 0; i < models->n; i++) {
        const struct pl_yaml *key = models->keys[i], *v = models->items[i];
        struct pl_model_def *m = &out->defs[out->n];
        size_t first = 0;
        while (strcmp(models->keys[first]->text, key->text) != 0)
            first++;
        if (first < i) {
            pl_tree_mistake(t, key, "duplicate model \"%s\", expected it once, first at %s",
                            key->text, pl_tree_place(t, models->keys[first]));
            continue;
        }
        if (!pl_tree_name_ok(t, key, key->text, "model"))
            continue;
        out->n++;
        m->name = key->text;
        m->map = v;
        if (v->kind == PL_YAML_MAP) {
            read_model(t, m);
            continue;
        }
        m->engines = PL_FOR_ALL;
        m->json = json_object();
        pl_tree_mistake(t, v, "models.%s is %s, expected a map with a path or an engine", m->name,
                        pl_tree_show(t, v));
    }
}

struct pl_model_def *pl_models_find(const struct pl_models *models, const char *name)
{
    for (size_t i = 0; i < models->n; i++)
        if (strcmp(models->defs[i].name, name) == 0)
            return &models->defs[i];
    return NULL;
}

void pl_models_none(struct pl_tree *t, const struct pl_models *models, const struct pl_yaml *at,
                    const char *label, const char *name)
{
    struct pl_suggest s;
    pl_suggest_init(&s, name);
    for (size_t i = 0; i < models->n; i++)
        pl_suggest_offer(&s, models->defs[i].name);
    pl_tree_mistake(t, at, "%s is \"%s\", expected a model of this sweep%s%s", label, name,
                    s.best ? ", did you mean " : "", s.best ? s.best : "");
}

void pl_models_check_used(struct pl_tree *t, const struct pl_models *models, struct pl_model_def *m)
{
    char *label = pl_arena_printf(&t->arena, "models.%s", m->name);
    char *sub = pl_arena_printf(&t->arena, "models.%s.engine", m->name);
    json_t *engine = json_object_get(m->json, "engine");
    const struct pl_yaml *at = pl_tree_at(m->map, "engine");
    const char *ids_from, *path = pl_json_get_str(m->json, "path", NULL), *found;
    if (!label || !sub) {
        t->no_memory = true;
        return;
    }
    if (m->engines == PL_FOR_OWN)
        pl_tree_resolve_path(t, m->json, "path", pl_tree_at(m->map, "path"), label);
    if (m->engines != PL_FOR_EXEC)
        return;
    /* A foreign engine may name its model as it likes. */
    found = path ? pl_tree_find_path(t, path) : NULL;
    if (found && found != path)
        pl_tree_put(t, m->json, "path", json_string(found));
    pl_tree_resolve_exec(t, json_object_get(engine, "exec"), pl_tree_at(at, "exec"), sub);
    ids_from = pl_json_get_str(engine, "ids_from", NULL);
    if (ids_from) {
        struct pl_model_def *from = pl_models_find(models, ids_from);
        sub = pl_arena_printf(&t->arena, "%s.ids_from", sub);
        if (!from && sub)
            pl_models_none(t, models, pl_tree_at(at, "ids_from"), sub, ids_from);
        else if (from && sub && !(from->engines & PL_FOR_OWN))
            pl_tree_mistake(
                t, pl_tree_at(at, "ids_from"),
                "%s is \"%s\", expected a model of our own runner, which has a tokenizer", sub,
                ids_from);
        else if (from && !from->used) {
            from->used = true;
            pl_models_check_used(t, models, from);
        }
    }
}
