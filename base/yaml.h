/*
 * A YAML document (libyaml) as a tree with positions. Anchors, aliases and merge keys are accepted;
 * an alias is the node itself. A merge key's pairs stand after the map's own and never repeat one
 * of its keys. Depth is capped at 64 and the node count at 1e6, aliases counted each time they
 * occur. Tags other than the core ones, empty and several documents and non-scalar keys are errors.
 * Duplicate keys are kept, in order, so that the sweep reader can report them with their place.
 */
#ifndef PL_BASE_YAML_H
#define PL_BASE_YAML_H

#include "base/arena.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

enum pl_yaml_kind { PL_YAML_SCALAR, PL_YAML_SEQ, PL_YAML_MAP };

struct pl_yaml {
    enum pl_yaml_kind kind;
    int line, column; /* 1-based, of its first character */
    const char *text; /* scalar: its value; never NULL for scalars */
    bool quoted;      /* scalar: quoted, block style or !!str, so a string whatever it looks like */
    size_t n;         /* seq: items; map: pairs */
    struct pl_yaml **items; /* seq items or map values */
    struct pl_yaml **keys;  /* map keys (scalars), else NULL */
};

/* Parses text (name is for messages: "name:line:column: …"). The tree lives in the arena. PL_ESWEEP
 * on syntax errors. */
PL_MUST_CHECK
enum pl_status pl_yaml_parse(const char *name, const char *text, size_t len, struct pl_arena *arena,
                             struct pl_yaml **out, struct pl_err *err);
/* First value of key in a map; NULL when absent or not a map. */
const struct pl_yaml *pl_yaml_get(const struct pl_yaml *map, const char *key);

#endif
