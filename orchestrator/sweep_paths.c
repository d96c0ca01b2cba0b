#include "orchestrator/sweep_paths.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The sweep file's directory with its slash; "" for the current one. */
static int dir_len(const struct pl_tree *t)
{
    const char *slash = strrchr(t->path, '/');
    return slash ? (int)(slash - t->path + 1) : 0;
}

const char *pl_tree_find_path(struct pl_tree *t, const char *path)
{
    char *beside;
    if (access(path, F_OK) == 0)
        return path;
    if (path[0] == '/' || dir_len(t) == 0)
        return NULL;
    beside = pl_arena_printf(&t->arena, "%.*s%s", dir_len(t), t->path, path);
    if (!beside)
        t->no_memory = true;
    return beside && access(beside, F_OK) == 0 ? beside : NULL;
}

static const char *looked_in(struct pl_tree *t)
{
    const char *s = "";
    if (dir_len(t))
        s = pl_arena_printf(&t->arena, " here or in %.*s", dir_len(t), t->path);
    return s ? s : "";
}

void pl_tree_resolve_path(struct pl_tree *t, json_t *o, const char *key, const struct pl_yaml *at,
                          const char *label)
{
    const char *path = json_string_value(json_object_get(o, key)), *found;
    if (!path)
        return;
    found = pl_tree_find_path(t, path);
    if (!found)
        pl_tree_mistake(t, at, "%s.%s is \"%s\", expected a file or directory that exists%s", label,
                        key, path, path[0] == '/' ? "" : looked_in(t));
    else if (found != path && json_object_set_new(o, key, json_string(found)) != 0)
        t->no_memory = true;
}

static bool runs(const char *path)
{
    struct stat sb;
    return stat(path, &sb) == 0 && S_ISREG(sb.st_mode) && access(path, X_OK) == 0;
}

static bool in_search_path(const char *program)
{
    const char *p = getenv("PATH");
    if (!p || !*p)
        p = "/usr/local/bin:/usr/bin:/bin";
    while (*p) {
        char full[4096];
        size_t n = strcspn(p, ":");
        int w = snprintf(full, sizeof full, "%.*s/%s", (int)n, n ? p : ".", program);
        if (w > 0 && (size_t)w < sizeof full && runs(full))
            return true;
        p += p[n] ? n + 1 : n;
    }
    return false;
}

void pl_tree_resolve_exec(struct pl_tree *t, json_t *argv, const struct pl_yaml *at,
                          const char *label)
{
    const char *program = json_string_value(json_array_get(argv, 0)), *found = program;
    if (!program)
        return;
    if (strchr(program, '/')) {
        found = pl_tree_find_path(t, program);
        if (!found)
            pl_tree_mistake(t, at, "%s.exec starts \"%s\", expected a program that exists%s", label,
                            program, program[0] == '/' ? "" : looked_in(t));
        else if (!runs(found))
            pl_tree_mistake(t, at, "%s.exec starts \"%s\", expected an executable file", label,
                            program);
    } else if (!in_search_path(program)) {
        pl_tree_mistake(t, at, "%s.exec starts \"%s\", expected a program found in PATH", label,
                        program);
    }
    for (size_t i = 0; i < json_array_size(argv); i++) {
        const char *arg = json_string_value(json_array_get(argv, i));
        if ((i == 0 && !strchr(arg, '/')) || !arg[0] || arg[0] == '-')
            continue;
        found = pl_tree_find_path(t, arg);
        if (found && found != arg && json_array_set_new(argv, i, json_string(found)) != 0)
            t->no_memory = true;
    }
}
