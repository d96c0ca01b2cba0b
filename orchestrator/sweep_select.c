#include "orchestrator/sweep_select.h"

#include "orchestrator/sweep_suggest.h"

#include <string.h>

static void set_option(struct pl_tree *t, const char *key, const char *value, const char *origin)
{
    if (key && value && origin)
        pl_tree_set(t, key, value, origin);
    else
        t->no_memory = true;
}

void pl_select_edit(struct pl_tree *t, const struct pl_select *sel)
{
    for (size_t i = 0; i < sel->n_set; i++) {
        const char *eq = strchr(sel->set[i], '=');
        char *key = pl_arena_strndup(&t->arena, sel->set[i],
                                     eq ? (size_t)(eq - sel->set[i]) : strlen(sel->set[i]));
        char *origin = key ? pl_arena_printf(&t->arena, "--set %s", key) : NULL;
        /* Without a value the key is what is wrong: "" is never one. */
        if (!eq && origin)
            pl_tree_option_mistake(t, origin, "no value, expected key=value");
        else
            set_option(t, key, eq ? eq + 1 : NULL, origin);
    }
    if (sel->contexts)
        set_option(t, "grid.contexts", pl_arena_printf(&t->arena, "[%s]", sel->contexts),
                   "--contexts");
    if (sel->samples)
        set_option(t, "grid.samples", sel->samples, "--samples");
}

static size_t arm_of(json_t *const *arms, size_t n, const char *name, size_t len)
{
    size_t i = 0;
    for (; i < n; i++) {
        const char *a = pl_json_get_str(arms[i], "name", "");
        if (strlen(a) == len && memcmp(a, name, len) == 0)
            break;
    }
    return i;
}

static void unknown_arm(struct pl_tree *t, json_t *const *arms, size_t n, const char *name)
{
    struct pl_suggest s;
    pl_suggest_init(&s, name);
    for (size_t i = 0; i < n; i++)
        pl_suggest_offer(&s, pl_json_get_str(arms[i], "name", ""));
    pl_tree_option_mistake(t, "--arms", "\"%s\" is not an arm, expected arms of this sweep%s%s",
                           name, s.best ? ", did you mean " : "", s.best ? s.best : "");
}

void pl_select_arms(struct pl_tree *t, const struct pl_select *sel, json_t *const *arms, size_t n,
                    bool *chosen, struct pl_problems *notes)
{
    const char *p = sel ? sel->arms : NULL;
    bool again = true;
    for (size_t i = 0; i < n; i++)
        chosen[i] = !p;
    if (!p || n == 0)
        return;
    for (;;) {
        size_t len = strcspn(p, ","), at = arm_of(arms, n, p, len);
        if (at < n) {
            chosen[at] = true;
        } else {
            char *name = pl_arena_strndup(&t->arena, p, len);
            unknown_arm(t, arms, n, name ? name : "");
        }
        if (!p[len])
            break;
        p += len + 1;
    }
    while (again) {
        again = false;
        for (size_t i = 0; i < n; i++) {
            const char *base = pl_json_get_str(arms[i], "baseline", "");
            size_t at = arm_of(arms, n, base, strlen(base));
            if (!chosen[i] || at == n || chosen[at])
                continue;
            chosen[at] = again = true;
            pl_problems_add(notes, "--arms: \"%s\" runs too, the baseline of \"%s\"", base,
                            pl_json_get_str(arms[i], "name", ""));
        }
    }
}
